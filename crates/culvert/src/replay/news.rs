//! What the worker tells control, as lines of JSON: audit records, and events for IKE.

use std::net::IpAddr;

use culvert_engine::DropReason;
use culvert_engine::audit::AuditRecord;
use culvert_engine::mailbox::Notice;
use culvert_engine::mailbox::Peer;
use culvert_esp::lifetime::ExpiryCause;
use culvert_esp::lifetime::ExpiryKind;
use culvert_spd::AddressSelector;
use culvert_spd::Flow;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_spd::Upper;
use culvert_spd::UpperSelector;
use serde::Serialize;

/// A line of one of the two files.
#[derive(Debug)]
pub(super) enum NewsLine {
    Audit(AuditLine),
    Event(EventLine),
}

/// A refused packet (RFC 4301 section 5, RFC 4303 section 3.4).
#[derive(Debug, Serialize)]
pub(super) struct AuditLine {
    time_ns: u64,
    reason: &'static str,
    spi: Option<u32>,
    seq: Option<u64>,
    source: IpAddr,
    destination: IpAddr,
    flow_label: Option<u32>,
    suppressed: u64,
}

/// Something IKE wants to know.
#[derive(Debug, Serialize)]
pub(super) struct EventLine {
    time_ns: u64,
    #[serde(flatten)]
    event: Event,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// An SA reached a limit of its lifetime.
    Expire { direction: &'static str, spi: u32, kind: &'static str, cause: &'static str },
    /// The peer of an inbound SA sends from elsewhere.
    Mapping { spi: u32, old: String, new: String },
    /// A policy has no SA for a packet; `selector` is what the SA is to have.
    Acquire { policy: u32, selector: Option<SelectorLine>, flow: FlowLine, resource: Option<u8> },
    /// ESP or AH arrived that no SA is for (RFC 7296 section 1.5).
    InvalidSpi { spi: Option<u32>, source: IpAddr, destination: IpAddr },
    /// A packet came out of an SA that its selectors do not admit (RFC 4301 section 5.2).
    InvalidSelectors { spi: Option<u32>, source: IpAddr, destination: IpAddr },
    /// A combination of ECN fields that nobody should make (RFC 6040 section 4.2).
    UnusualEcn { spi: u32 },
    /// An ICMP error that says something else than a path MTU names an outbound SA (RFC 4301 section
    /// 6.1.1).
    IcmpError { spi: u32, reporter: IpAddr, icmp: String },
    /// The path MTU of an outbound SA changed; none when it was forgotten.
    PathMtu { spi: u32, mtu: Option<u16> },
}

/// A packet, as far as policy looks at it.
#[derive(Debug, Serialize)]
struct FlowLine {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mobility: Option<u8>,
}

/// A selector in the words of a configuration file.
#[derive(Debug, Serialize)]
struct SelectorLine {
    source: Vec<String>,
    destination: Vec<String>,
    protocol: Option<u8>,
    upper: String,
}

/// The lines for a notice that came at `now`, in nanoseconds of the capture; `start` is where the
/// worker's clock began.
pub(super) fn lines(notice: &Notice, now: u64, start: u64, spd: &Spd) -> Vec<NewsLine> {
    let event = match notice {
        Notice::Audit(record) => return of_record(record, start),
        Notice::Expire { inbound, spi, expiry, .. } => Event::Expire {
            direction: if *inbound { "inbound" } else { "outbound" },
            spi: *spi,
            kind: kind(expiry.kind),
            cause: cause(expiry.cause),
        },
        Notice::Mapping { spi, old, new, .. } => {
            Event::Mapping { spi: *spi, old: peer(old), new: peer(new) }
        }
        Notice::Acquire { policy, flow, resource, .. } => Event::Acquire {
            policy: *policy,
            selector: usize::try_from(*policy)
                .ok()
                .and_then(|policy| spd.outbound.get(policy))
                .and_then(|policy| narrowed(policy, flow)),
            flow: FlowLine::from(flow),
            resource: resource.map(|worker| worker.0),
        },
        Notice::UnusualEcn { spi, .. } => Event::UnusualEcn { spi: *spi },
        Notice::IcmpError { spi, reporter, kind, .. } => Event::IcmpError {
            spi: *spi,
            reporter: *reporter,
            icmp: icmp(u16::from_be_bytes(*kind)),
        },
        Notice::PathMtu { spi, mtu, .. } => Event::PathMtu { spi: *spi, mtu: *mtu },
    };
    vec![NewsLine::Event(EventLine { time_ns: now, event })]
}

/// A record, and the notification of IKE that goes with some.
fn of_record(record: &AuditRecord, start: u64) -> Vec<NewsLine> {
    let time_ns = record.at.saturating_add(start);
    let (spi, source, destination) = (record.spi, record.source, record.destination);
    let event = match record.reason {
        DropReason::NoSa => Some(Event::InvalidSpi { spi, source, destination }),
        DropReason::Selector => Some(Event::InvalidSelectors { spi, source, destination }),
        _ => None,
    };
    let audit = AuditLine {
        time_ns,
        reason: record.reason.name(),
        spi,
        seq: record.seq,
        source,
        destination,
        flow_label: record.flow_label,
        suppressed: record.suppressed,
    };
    let event = event.map(|event| NewsLine::Event(EventLine { time_ns, event }));
    [NewsLine::Audit(audit)].into_iter().chain(event).collect()
}

fn kind(kind: ExpiryKind) -> &'static str {
    match kind {
        ExpiryKind::Soft => "soft",
        ExpiryKind::Hard => "hard",
    }
}

fn cause(cause: ExpiryCause) -> &'static str {
    match cause {
        ExpiryCause::Time => "time",
        ExpiryCause::Bytes => "bytes",
        ExpiryCause::Packets => "packets",
        ExpiryCause::Sequence => "sequence",
    }
}

fn peer(peer: &Peer) -> String {
    std::net::SocketAddr::new(peer.address, peer.port).to_string()
}

/// The selector of the SA that a packet asks for.
fn narrowed(policy: &Policy, flow: &Flow) -> Option<SelectorLine> {
    let selector = policy.selector.narrowed(policy.pfp, flow)?;
    Some(SelectorLine::from(&selector))
}

impl From<&Selector> for SelectorLine {
    fn from(selector: &Selector) -> SelectorLine {
        SelectorLine {
            source: addresses(selector.source()),
            destination: addresses(selector.destination()),
            protocol: selector.protocol(),
            upper: upper(selector.upper()),
        }
    }
}

fn addresses(addresses: &AddressSelector) -> Vec<String> {
    match addresses {
        AddressSelector::Any => vec!["any".to_owned()],
        AddressSelector::Ranges(ranges) => ranges.iter().map(ToString::to_string).collect(),
    }
}

fn upper(upper: &UpperSelector) -> String {
    let ports = |ports: &PortSelector| match ports {
        PortSelector::Any => "any".to_owned(),
        PortSelector::Ranges(ranges) => {
            let range = |range: &std::ops::RangeInclusive<u16>| {
                format!("{}-{}", range.start(), range.end())
            };
            ranges.iter().map(range).collect::<Vec<String>>().join(",")
        }
    };
    match upper {
        UpperSelector::Any => "any".to_owned(),
        UpperSelector::Opaque => "opaque".to_owned(),
        UpperSelector::Ports { source, destination } => {
            format!("ports {} to {}", ports(source), ports(destination))
        }
        UpperSelector::Icmp(range) => {
            format!("icmp {}-{}", icmp(*range.start()), icmp(*range.end()))
        }
        UpperSelector::Mobility(range) => format!("mobility {}-{}", range.start(), range.end()),
    }
}

/// Type and code.
fn icmp(number: u16) -> String {
    let [kind, code] = number.to_be_bytes();
    format!("{kind}/{code}")
}

impl From<&Flow> for FlowLine {
    fn from(flow: &Flow) -> FlowLine {
        let addresses = &flow.addresses;
        let address = |number: u128| -> IpAddr {
            match u32::try_from(number) {
                Ok(number) if addresses.is_v4 => std::net::Ipv4Addr::from_bits(number).into(),
                _ => std::net::Ipv6Addr::from_bits(number).into(),
            }
        };
        let mut line = FlowLine {
            source: address(addresses.source),
            destination: address(addresses.destination),
            protocol: flow.protocol,
            source_port: None,
            destination_port: None,
            icmp: None,
            mobility: None,
        };
        match flow.upper {
            Upper::Ports { source, destination } => {
                line.source_port = Some(source);
                line.destination_port = Some(destination);
            }
            Upper::Icmp(number) => line.icmp = Some(icmp(number)),
            Upper::Mobility(number) => line.mobility = Some(number),
            Upper::None | Upper::Opaque => {}
        }
        line
    }
}
