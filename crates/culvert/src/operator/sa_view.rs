//! [`SaView`]: an SA as an operator sees it, in the field's terms.

use std::fmt::Write;

use culvert_keying::algorithms;
use culvert_xfrm::Attributes;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlags;
use culvert_xfrm::sa::SaInfo;
use serde::Serialize;
use serde::Serializer;
use zeroize::Zeroizing;

use super::table::ago;
use super::table::duration;
use super::view;
use super::view::MarkView;
use super::view::SelectorView;

/// How far an SA has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It has an SPI, or is asked for, and no keys yet.
    Larval,
    Valid,
    /// One of its soft limits is reached.
    Dying,
}

impl State {
    pub(super) fn words(self) -> &'static str {
        match self {
            State::Larval => "larval",
            State::Valid => "valid",
            State::Dying => "dying",
        }
    }
}

/// An SA.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SaView {
    pub(super) spi: String,
    pub(super) direction: Option<&'static str>,
    pub(super) protocol: String,
    mode: String,
    pub(super) source: String,
    pub(super) destination: String,
    encapsulation: Option<EncapView>,
    algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "key")]
    key: Option<Zeroizing<String>>,
    reqid: u32,
    if_id: u32,
    mark: Option<MarkView>,
    esn: bool,
    replay_window: u32,
    selector: Option<SelectorView>,
    tfc_padding: Option<u32>,
    nat_keepalive: Option<u32>,
    sequence: Sequence,
    packets: u64,
    bytes: u64,
    added: u64,
    first_used: Option<u64>,
    last_used: Option<u64>,
    limits: SoftHard,
    left: SoftHard,
    drops: DropsView,
    pub(super) state: State,
}

/// UDP around ESP.
#[derive(Clone, Copy, Debug, Serialize)]
struct EncapView {
    source_port: u16,
    destination_port: u16,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sequence {
    /// The last number sent.
    sent: u64,
    /// The highest number received.
    received: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct DropsView {
    /// Left of the window, or seen before.
    replay: u64,
    /// Not authentic.
    integrity: u32,
}

/// Limits, or what is left of them; nothing where there is none.
#[derive(Clone, Copy, Debug, Serialize)]
struct SoftHard {
    soft: Limits,
    hard: Limits,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Limits {
    bytes: Option<u64>,
    packets: Option<u64>,
    /// Since the SA was made.
    seconds: Option<u64>,
    /// Since its first packet.
    use_seconds: Option<u64>,
}

fn key<S: Serializer>(key: &Option<Zeroizing<String>>, to: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|key| key.as_str()).serialize(to)
}

impl Limits {
    fn all(self) -> [Option<u64>; 4] {
        [self.bytes, self.packets, self.seconds, self.use_seconds]
    }

    /// `f` of the limits, each with its place.
    fn map(self, f: impl Fn(usize, u64) -> Option<u64>) -> Limits {
        let [bytes, packets, seconds, use_seconds] = {
            let mut place = 0;
            self.all().map(|limit| {
                place += 1;
                limit.and_then(|limit| f(place - 1, limit))
            })
        };
        Limits { bytes, packets, seconds, use_seconds }
    }

    fn words(self) -> String {
        let times = |seconds: Option<u64>| seconds.map(duration);
        let numbers = |number: Option<u64>| number.map(|number| number.to_string());
        let all = [
            ("bytes", numbers(self.bytes)),
            ("packets", numbers(self.packets)),
            ("time", times(self.seconds)),
            ("time in use", times(self.use_seconds)),
        ];
        let there = all.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        let words: Vec<String> = there.collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

impl SoftHard {
    /// A soft limit above the hard one is none.
    fn new(info: &SaInfo) -> SoftHard {
        let limits = &info.limits;
        let amount = |limit: u64| (limit != INFINITE).then_some(limit);
        let seconds = |limit: u64| (limit != 0 && limit != INFINITE).then_some(limit);
        let hard = Limits {
            bytes: amount(limits.hard_bytes),
            packets: amount(limits.hard_packets),
            seconds: seconds(limits.hard_age_secs),
            use_seconds: seconds(limits.hard_use_secs),
        };
        let soft = Limits {
            bytes: amount(limits.soft_bytes),
            packets: amount(limits.soft_packets),
            seconds: seconds(limits.soft_age_secs),
            use_seconds: seconds(limits.soft_use_secs),
        };
        let all = hard.all();
        let soft =
            soft.map(|place, limit| all[place].is_none_or(|hard| limit <= hard).then_some(limit));
        SoftHard { soft, hard }
    }

    /// What is left of them.
    fn left(self, info: &SaInfo, now: u64) -> SoftHard {
        let usage = &info.usage;
        let since = |at: u64| if at == 0 { 0 } else { now.saturating_sub(at) };
        let used = [usage.bytes, usage.packets, since(usage.add_time), since(usage.use_time)];
        let left =
            |limits: Limits| limits.map(|place, limit| Some(limit.saturating_sub(used[place])));
        SoftHard { soft: left(self.soft), hard: left(self.hard) }
    }
}

impl SaView {
    /// The SA of a listing at `now`, in seconds since 1970.
    pub(super) fn new(info: &SaInfo, attributes: &Attributes, now: u64, with_key: bool) -> SaView {
        let limits = SoftHard::new(info);
        let left = limits.left(info, now);
        let is_larval = attributes.alg_aead().is_none()
            && attributes.alg_crypt().is_none()
            && attributes.alg_auth().is_none()
            && attributes.alg_auth_trunc().is_none();
        let is_dying = left.soft.all().contains(&Some(0));
        let algorithm = algorithms::algorithm(info.id.proto, attributes).ok();
        let key = |keymat: &culvert_aead::Keymat| Zeroizing::new(hex::encode(keymat.as_bytes()));
        let esn = attributes.replay_esn();
        let sequence = match (esn, attributes.replay()) {
            (Some(replay), _) => Sequence { sent: replay.oseq, received: replay.seq },
            (None, Some(replay)) => {
                Sequence { sent: replay.oseq.into(), received: replay.seq.into() }
            }
            (None, None) => Sequence { sent: 0, received: 0 },
        };
        let drops = &info.drops;
        SaView {
            spi: view::spi(info.id.spi.0),
            direction: match attributes.direction() {
                Some(&SaDirection::IN) => Some("in"),
                Some(&SaDirection::OUT) => Some("out"),
                _ => None,
            },
            protocol: view::protocol(info.id.proto),
            mode: view::mode(info.mode),
            source: view::address(info.saddr, info.family),
            destination: view::address(info.id.daddr, info.family),
            encapsulation: attributes.encap().map(|encap| EncapView {
                source_port: encap.sport.0,
                destination_port: encap.dport.0,
            }),
            algorithm: algorithm.as_ref().map(|(algorithm, _)| algorithm.keyword().to_owned()),
            key: algorithm.as_ref().filter(|_| with_key).map(|(_, keymat)| key(keymat)),
            reqid: info.reqid,
            if_id: attributes.if_id().copied().unwrap_or(0),
            mark: MarkView::of(attributes),
            esn: info.flags & SaFlags::ESN != 0,
            replay_window: esn.map_or(info.replay_window.into(), |replay| replay.replay_window),
            selector: (!SelectorView::is_any(&info.sel)).then(|| SelectorView::new(&info.sel)),
            tfc_padding: attributes.tfc_padding().copied(),
            nat_keepalive: attributes.nat_keepalive().copied(),
            sequence,
            packets: info.usage.packets,
            bytes: info.usage.bytes,
            added: info.usage.add_time,
            first_used: Some(info.usage.use_time).filter(|&at| at != 0),
            last_used: attributes.last_used().copied(),
            limits,
            left,
            drops: DropsView {
                replay: u64::from(drops.replay_window) + u64::from(drops.replay),
                integrity: drops.integrity_failed,
            },
            state: match (is_larval, is_dying) {
                (true, _) => State::Larval,
                (false, true) => State::Dying,
                (false, false) => State::Valid,
            },
        }
    }

    /// Headings of [`SaView::row`].
    pub(super) const HEADINGS: [&str; 13] = [
        "SPI",
        "DIR",
        "PROTO",
        "MODE",
        "SOURCE",
        "DESTINATION",
        "ENCAP",
        "ALGORITHM",
        "REQID",
        "STATE",
        "PACKETS",
        "BYTES",
        "LAST USED",
    ];

    /// One line of a table.
    pub(super) fn row(&self, now: u64) -> Vec<String> {
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        vec![
            self.spi.clone(),
            or_dash(self.direction),
            self.protocol.clone(),
            self.mode.clone(),
            self.source.clone(),
            self.destination.clone(),
            self.encapsulation.map_or("-".to_owned(), |ports| {
                format!("{}:{}", ports.source_port, ports.destination_port)
            }),
            or_dash(self.algorithm.as_deref()),
            self.reqid.to_string(),
            self.state.words().to_owned(),
            self.packets.to_string(),
            self.bytes.to_string(),
            ago(self.last_used, now),
        ]
    }

    /// All there is to say, a line for each thing.
    pub(super) fn text(&self, now: u64) -> String {
        let direction = self.direction.unwrap_or("-");
        let mut text =
            format!("{} {} {direction} {}\n", self.spi, self.protocol, self.state.words());
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<14}{value}");
        };
        line("mode", self.mode.clone());
        line("endpoints", format!("{} > {}", self.source, self.destination));
        let ports =
            |ports: EncapView| format!("UDP {} > {}", ports.source_port, ports.destination_port);
        line("encapsulation", self.encapsulation.map_or("-".to_owned(), ports));
        line("algorithm", self.algorithm.clone().unwrap_or("-".to_owned()));
        if let Some(key) = &self.key {
            line("key", key.to_string());
        }
        let mark = self.mark.map_or("-".to_owned(), MarkView::words);
        line("reqid", format!("{}, if_id {}, mark {mark}", self.reqid, self.if_id));
        if let Some(selector) = &self.selector {
            line("selector", selector.words());
        }
        let esn = if self.esn { "on" } else { "off" };
        line("window", format!("{}, ESN {esn}", self.replay_window));
        let Sequence { sent, received } = self.sequence;
        line("sequence", format!("sent {sent}, received {received}"));
        line("used", format!("{} packets, {} bytes", self.packets, self.bytes));
        let (first, last) = (ago(self.first_used, now), ago(self.last_used, now));
        line(
            "time",
            format!("made {}, first used {first}, last used {last}", ago(Some(self.added), now)),
        );
        line("left, soft", self.left.soft.words());
        line("left, hard", self.left.hard.words());
        let DropsView { replay, integrity } = self.drops;
        line("dropped", format!("replay {replay}, integrity {integrity}"));
        if let Some(octets) = self.tfc_padding {
            line("TFC padding", format!("to {octets} octets"));
        }
        if let Some(seconds) = self.nat_keepalive {
            line("keepalive", format!("every {seconds}s"));
        }
        text
    }
}
