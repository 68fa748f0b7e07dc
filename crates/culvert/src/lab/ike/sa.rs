//! What strongSwan says of its SAs.

use super::vici::Section;

/// An IKE SA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IkeSa {
    /// Name of its connection.
    pub name: String,
    /// Number, unique in the daemon's life.
    pub unique_id: u64,
    /// Version of IKE.
    pub version: u64,
    /// State, like `ESTABLISHED`.
    pub state: String,
    /// Own address and port.
    pub local: (String, u64),
    /// The peer's address and port.
    pub remote: (String, u64),
    /// The peer's identity.
    pub remote_id: String,
    /// SPI of the initiator, which names the IKE SA.
    pub initiator_spi: String,
    /// Whether a NAT is before this end, before the peer.
    pub nat: (bool, bool),
    /// Algorithms, in the words of the daemon.
    pub algorithms: String,
    /// Virtual addresses that this end got.
    pub local_vips: Vec<String>,
    /// Its Child SAs.
    pub children: Vec<ChildSa>,
}

/// A Child SA: two SAs of IPsec, one in each direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChildSa {
    /// Its name.
    pub name: String,
    /// Number, unique in the daemon's life.
    pub unique_id: u64,
    /// Number that ties policies to it.
    pub reqid: u64,
    /// State, like `INSTALLED`.
    pub state: String,
    /// `TUNNEL` or `TRANSPORT`.
    pub mode: String,
    /// `ESP` or `AH`.
    pub protocol: String,
    /// Whether it is encapsulated in UDP.
    pub encap: bool,
    /// SPIs in hex, inbound and outbound.
    pub spis: (String, String),
    /// Algorithms, in the words of the daemon.
    pub algorithms: String,
    /// Whether it has extended sequence numbers.
    pub esn: bool,
    /// What the engine counted, inbound and outbound.
    pub usage: (Usage, Usage),
    /// Own traffic selectors.
    pub local_ts: Vec<String>,
    /// The peer's traffic selectors.
    pub remote_ts: Vec<String>,
}

/// What was counted of one SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Octets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Seconds since the last one, when there was one.
    pub idle: Option<u64>,
}

impl IkeSa {
    /// Reads an event of `list-sas`.
    pub(super) fn read(event: &Section) -> Vec<IkeSa> {
        event.sections().map(|(name, section)| IkeSa::of(name, section)).collect()
    }

    fn of(name: &str, section: &Section) -> IkeSa {
        let end = |side: &str| {
            let text = |key: &str| section.text(&format!("{side}-{key}")).to_owned();
            (text("host"), section.number(&format!("{side}-port")))
        };
        let children = match section.value("child-sas") {
            Some(super::vici::Value::Section(children)) => {
                children.sections().map(|(_, child)| ChildSa::of(child)).collect()
            }
            _ => Vec::new(),
        };
        IkeSa {
            name: name.to_owned(),
            unique_id: section.number("uniqueid"),
            version: section.number("version"),
            state: section.text("state").to_owned(),
            local: end("local"),
            remote: end("remote"),
            remote_id: section.text("remote-id").to_owned(),
            initiator_spi: section.text("initiator-spi").to_owned(),
            nat: (section.text("nat-local") == "yes", section.text("nat-remote") == "yes"),
            algorithms: algorithms(section, &["encr-alg", "encr-keysize", "integ-alg", "dh-group"]),
            local_vips: section.list("local-vips").to_vec(),
            children,
        }
    }

    /// Its Child SAs of this name that carry traffic.
    pub fn installed(&self, name: &str) -> impl Iterator<Item = &ChildSa> {
        self.children.iter().filter(move |child| child.name == name && child.state == "INSTALLED")
    }
}

impl ChildSa {
    fn of(section: &Section) -> ChildSa {
        let usage = |direction: &str| Usage {
            bytes: section.number(&format!("bytes-{direction}")),
            packets: section.number(&format!("packets-{direction}")),
            idle: section.text(&format!("use-{direction}")).parse().ok(),
        };
        ChildSa {
            name: section.text("name").to_owned(),
            unique_id: section.number("uniqueid"),
            reqid: section.number("reqid"),
            state: section.text("state").to_owned(),
            mode: section.text("mode").to_owned(),
            protocol: section.text("protocol").to_owned(),
            encap: section.text("encap") == "yes",
            spis: (section.text("spi-in").to_owned(), section.text("spi-out").to_owned()),
            algorithms: algorithms(section, &["encr-alg", "encr-keysize", "integ-alg"]),
            esn: section.text("esn") == "1",
            usage: (usage("in"), usage("out")),
            local_ts: section.list("local-ts").to_vec(),
            remote_ts: section.list("remote-ts").to_vec(),
        }
    }
}

/// The words of these names that are there.
fn algorithms(section: &Section, names: &[&str]) -> String {
    let words: Vec<_> =
        names.iter().map(|name| section.text(name)).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}
