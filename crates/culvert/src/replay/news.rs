//! What the worker tells control, as lines of JSON: audit records, and events for IKE.

use std::collections::HashMap;
use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_control::News;
use culvert_control::SaId;
use culvert_engine::DropReason;
use culvert_engine::audit::AuditRecord;
use culvert_engine::mailbox::Notice;
use culvert_engine::mailbox::Peer;
use culvert_esp::lifetime::ExpiryKind;
use culvert_spd::Flow;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_spd::Upper;
use serde::Serialize;

use crate::assembly::SaWords;
use crate::words;

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
    direction: &'static str,
    protocol: Option<&'static str>,
    spi: Option<u32>,
    seq: Option<u64>,
    source: IpAddr,
    destination: IpAddr,
    flow_label: Option<u32>,
    flow: Option<FlowLine>,
    sa: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    admitted: Vec<SelectorLine>,
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
    InvalidSpi {
        protocol: &'static str,
        spi: u32,
        source: IpAddr,
        port: Option<u16>,
        destination: IpAddr,
        suppressed: u64,
    },
    /// A packet came out of an SA that its selectors do not admit (RFC 4301 section 5.2).
    InvalidSelectors { spi: u32, packet: String, suppressed: u64 },
    /// A combination of ECN fields that nobody should make (RFC 6040 section 4.2).
    UnusualEcn { spi: u32 },
    /// An ICMP error that says something else than a path MTU names an outbound SA (RFC 4301
    /// section 6.1.1).
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

/// What the configuration says of SAs.
pub(super) type Sas = HashMap<SaId, SaWords>;

/// The line for a notice that came at `now`, in nanoseconds of the capture; `start` is where the
/// worker's clock began.
pub(super) fn line(news: &News, now: u64, start: u64, (spd, sas): (&Spd, &Sas)) -> NewsLine {
    let event = match &news.notice {
        Notice::Audit(record) => {
            let sa = news.sa.and_then(|id| sas.get(&id));
            return NewsLine::Audit(of_record(record, start, sa));
        }
        Notice::Expire { inbound, spi, expiry, .. } => Event::Expire {
            direction: direction(*inbound),
            spi: *spi,
            kind: kind(expiry.kind),
            cause: expiry.cause.name(),
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
        &Notice::InvalidSpi { protocol, spi, source, port, destination, suppressed } => {
            let protocol = name(protocol);
            Event::InvalidSpi { protocol, spi, source, port, destination, suppressed }
        }
        Notice::InvalidSelectors { spi, packet, suppressed, .. } => Event::InvalidSelectors {
            spi: *spi,
            packet: packet.octets().iter().map(|octet| format!("{octet:02x}")).collect(),
            suppressed: *suppressed,
        },
        Notice::UnusualEcn { spi, .. } => Event::UnusualEcn { spi: *spi },
        Notice::IcmpError { spi, reporter, kind, .. } => Event::IcmpError {
            spi: *spi,
            reporter: *reporter,
            icmp: words::icmp(u16::from_be_bytes(*kind)),
        },
        Notice::PathMtu { spi, mtu, .. } => Event::PathMtu { spi: *spi, mtu: *mtu },
    };
    NewsLine::Event(EventLine { time_ns: now, event })
}

fn of_record(record: &AuditRecord, start: u64, sa: Option<&SaWords>) -> AuditLine {
    let is_mismatch = record.reason == DropReason::Selector && record.inbound;
    let admitted = sa.filter(|_| is_mismatch).map(|sa| sa.admitted.iter());
    AuditLine {
        time_ns: record.at.saturating_add(start),
        reason: record.reason.name(),
        direction: direction(record.inbound),
        protocol: record.protocol.map(name),
        spi: record.spi,
        seq: record.seq,
        source: record.source,
        destination: record.destination,
        flow_label: record.flow_label,
        flow: record.flow.as_ref().map(FlowLine::from),
        sa: sa.and_then(|sa| sa.name.clone()),
        admitted: admitted.into_iter().flatten().map(SelectorLine::from).collect(),
        suppressed: record.suppressed,
    }
}

fn direction(inbound: bool) -> &'static str {
    if inbound { "inbound" } else { "outbound" }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Esp => "esp",
        Protocol::Ah => "ah",
    }
}

fn kind(kind: ExpiryKind) -> &'static str {
    match kind {
        ExpiryKind::Soft => "soft",
        ExpiryKind::Hard => "hard",
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
            source: words::addresses(selector.source()),
            destination: words::addresses(selector.destination()),
            protocol: selector.protocol(),
            upper: words::upper(selector.upper()),
        }
    }
}

impl From<&Flow> for FlowLine {
    fn from(flow: &Flow) -> FlowLine {
        let (source, destination) = words::endpoints(flow);
        let mut line = FlowLine {
            source,
            destination,
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
            Upper::Icmp(number) => line.icmp = Some(words::icmp(number)),
            Upper::Mobility(number) => line.mobility = Some(number),
            Upper::None | Upper::Opaque => {}
        }
        line
    }
}
