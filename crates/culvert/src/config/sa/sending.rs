//! How an outbound SA treats packets.

use culvert_aead::Protocol;
use culvert_engine::WorkerId;
use culvert_engine::options::Fragmentation;
use culvert_engine::options::Mss;
use culvert_engine::options::Sending;
use culvert_esp::Mode;
use culvert_esp::tfc::TfcPadding;

use super::Direction;
use super::identity::Identity;
use crate::config::WORKERS_MAX;
use crate::config::Workers;
use crate::config::error::ConfigError;
use crate::config::reader::Section;

/// Time between dummies and between keepalives, in milliseconds.
const INTERVAL: std::ops::RangeInclusive<u64> = 1..=86_400_000;

/// Keepalives behind a NAT, if nothing else is said (RFC 3948 section 4).
const KEEPALIVE: u64 = 20_000_000_000;

/// Least segment that is asked for: what every IPv4 host takes (RFC 9293 section 3.7.1).
const MSS_MIN: u16 = 536;

/// Least path MTU that may be believed: the smallest of any link worth a tunnel (RFC 1191 section
/// 7.1), and over IPv6 of any link at all (RFC 8200 section 5).
const PATH_MTU_MIN_V4: u16 = 296;
const PATH_MTU_MIN_V6: u16 = 1280;

pub(super) fn read(
    section: &Section<'_>,
    identity: &Identity,
    encapsulated: bool,
) -> Result<Sending, ConfigError> {
    const TFCS: [(&str, TfcPadding); 2] = [("off", TfcPadding::Off), ("mtu", TfcPadding::Mtu)];
    const MSSES: [(&str, Mss); 2] = [("off", Mss::Off), ("auto", Mss::Auto)];
    check(section, identity)?;
    let default = Sending::default();
    let tfc = section.optional("tfc");
    let tfc = tfc.map(|field| field.number_or(&TFCS, 1..=u16::MAX, TfcPadding::To)).transpose()?;
    let dummy_interval = section.optional("dummy_interval");
    let dummy_interval = dummy_interval.map(|field| field.nanoseconds(INTERVAL)).transpose()?;
    let mss = section.optional("mss_clamp");
    let mss = mss.map(|field| field.number_or(&MSSES, MSS_MIN..=u16::MAX, Mss::To)).transpose()?;
    let trusts_icmp = section.optional("trust_icmp").map(|field| field.flag()).transpose()?;
    let least = if identity.destination.is_ipv4() { PATH_MTU_MIN_V4 } else { PATH_MTU_MIN_V6 };
    let floor = section.optional("path_mtu_floor");
    let path_mtu_floor = floor.map(|field| field.number(least..=u16::MAX)).transpose()?;
    Ok(Sending {
        tfc: tfc.unwrap_or(default.tfc),
        dummy_interval,
        keepalive: keepalive(section, encapsulated)?,
        fragmentation: fragmentation(section, identity)?,
        mss: mss.unwrap_or(default.mss),
        trusts_icmp: trusts_icmp.unwrap_or(default.trusts_icmp),
        path_mtu_floor,
    })
}

/// Refuses what the protocol or the mode leaves without meaning.
fn check(section: &Section<'_>, identity: &Identity) -> Result<(), ConfigError> {
    if identity.protocol == Protocol::Ah {
        let why = "expected in ESP SAs only: AH has neither padding nor dummy packets (RFC 4303 \
                   sections 2.6 and 2.7)";
        section.refuse(&["tfc", "dummy_interval"], why)?;
    }
    if identity.mode == Mode::Transport {
        let why = "expected in tunnel mode only, whose packets carry their own length (RFC 4303 \
                   section 2.7)";
        section.refuse(&["tfc"], why)?;
    }
    Ok(())
}

/// Keepalives are for a NAT between us and the peer, whose mapping they keep.
fn keepalive(section: &Section<'_>, encapsulated: bool) -> Result<Option<u64>, ConfigError> {
    if !encapsulated {
        let why = "expected with encapsulation only: a NAT has no mapping for raw ESP";
        section.refuse(&["behind_nat", "keepalive"], why)?;
    }
    let behind_nat = section.optional("behind_nat").map_or(Ok(false), |field| field.flag())?;
    match section.optional("keepalive") {
        Some(field) => field.nanoseconds(INTERVAL).map(Some),
        None => Ok(behind_nat.then_some(KEEPALIVE)),
    }
}

/// Transport mode is for whole packets (RFC 4303 section 3.3.4), so only what it made can be
/// fragmented.
fn fragmentation(section: &Section<'_>, identity: &Identity) -> Result<Fragmentation, ConfigError> {
    const WORDS: [(&str, Fragmentation); 2] =
        [("before", Fragmentation::Before), ("after", Fragmentation::After)];
    let field = section.optional("fragmentation");
    if identity.mode == Mode::Tunnel {
        return field.map_or(Ok(Fragmentation::default()), |field| field.word(&WORDS));
    }
    match field {
        Some(field) if field.word(&WORDS)? == Fragmentation::Before => Err(field.wrong(
            "\"after\" in transport mode, which takes no fragments (RFC 4303 section 3.3.4)",
        )),
        _ => Ok(Fragmentation::After),
    }
}

/// Reads whose own SA this is.
pub(super) fn resource(
    section: &Section<'_>,
    identity: &Identity,
    workers: &Workers,
) -> Result<Option<WorkerId>, ConfigError> {
    let Some(field) = section.optional("resource") else {
        return Ok(None);
    };
    if identity.direction == Direction::Inbound {
        return Err(field.error("expected in outbound SAs only: any worker receives (RFC 9611)"));
    }
    let last = u8::try_from(workers.count.unwrap_or(WORKERS_MAX) - 1).expect("few");
    let worker = field.number(0..=last)?;
    if identity.group.is_none() {
        return Err(section.missing(
            "group",
            "the group in which an SA without `resource` serves the other workers (RFC 9611 \
             section 2)",
        ));
    }
    Ok(Some(WorkerId(worker)))
}
