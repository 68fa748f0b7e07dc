//! What holds for the gateway as a whole: `[spd]`, `[ike]`, `[icmp]`, `[audit]`, `[notices]`.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_engine::DropReason;
use culvert_engine::DropReasons;
use culvert_engine::options::Accepted;
use culvert_engine::options::AuditOptions;
use culvert_engine::options::IcmpKind;
use culvert_engine::options::IcmpOptions;
use culvert_engine::options::NoticeOptions;
use culvert_spd::DefaultAction;

use super::error::ConfigError;
use super::reader::Field;
use super::reader::Section;

/// Keys of the sections.
pub(super) const SPD_KEYS: [&str; 1] = ["default"];
pub(super) const IKE_KEYS: [&str; 1] = ["bypass"];
pub(super) const ICMP_KEYS: [&str; 6] =
    ["accept", "addresses", "too_big", "time_exceeded", "prohibited", "rate"];
pub(super) const AUDIT_KEYS: [&str; 3] = ["enabled", "reasons", "rate"];
pub(super) const NOTICES_KEYS: [&str; 4] =
    ["invalid_spi", "invalid_selectors", "unusual_ecn", "rate"];

/// Most ICMP errors, audit records and notices of a worker in a second.
const RATE_MAX: u32 = 1_000_000;

const ADDRESSES: &str = "a list of IPv4 and IPv6 addresses, at most one of each";

/// Reads `[spd]`.
pub(super) fn spd(section: &Section<'_>) -> Result<DefaultAction, ConfigError> {
    const DEFAULTS: [(&str, DefaultAction); 2] =
        [("discard", DefaultAction::Discard), ("bypass", DefaultAction::Bypass)];
    let field = section.optional("default");
    field.map_or(Ok(DefaultAction::default()), |field| field.word(&DEFAULTS))
}

/// Reads `[ike]`, which says what cannot be otherwise.
pub(super) fn ike(section: &Section<'_>) -> Result<(), ConfigError> {
    match section.optional("bypass") {
        Some(field) if !field.flag()? => Err(field.error(
            "expected true: without an entry that lets IKE pass (RFC 4301 section 4.4.1) no SA \
             could ever be negotiated, and none replaced",
        )),
        _ => Ok(()),
    }
}

/// Reads `[icmp]`.
pub(super) fn icmp(section: &Section<'_>) -> Result<IcmpOptions, ConfigError> {
    let default = IcmpOptions::default();
    let addresses = section.optional("addresses").as_ref().map(addresses).transpose()?;
    let (source_v4, source_v6) = addresses.unwrap_or_default();
    Ok(IcmpOptions {
        source_v4,
        source_v6,
        too_big: flag(section, "too_big", default.too_big)?,
        time_exceeded: flag(section, "time_exceeded", default.time_exceeded)?,
        prohibited: flag(section, "prohibited", default.prohibited)?,
        rate: rate(section, default.rate)?,
        accepted: section
            .optional("accept")
            .map_or(Ok(default.accepted), |field| accepted(&field))?,
    })
}

/// Which errors about the gateway's own packets are heeded (RFC 4301 section 6.1.1).
fn accepted(field: &Field<'_>) -> Result<Accepted, ConfigError> {
    const TOGETHER: [(&str, Accepted); 2] = [("all", Accepted::ALL), ("none", Accepted::NONE)];
    const KINDS: [(&str, IcmpKind); 4] = [
        ("packet-too-big", IcmpKind::PacketTooBig),
        ("destination-unreachable", IcmpKind::DestinationUnreachable),
        ("time-exceeded", IcmpKind::TimeExceeded),
        ("parameter-problem", IcmpKind::ParameterProblem),
    ];
    let expected = "\"all\", \"none\" or a list such as [\"packet-too-big\"]";
    if let Some(word) = field.as_text() {
        let found = TOGETHER.iter().find(|(name, _)| *name == word);
        return found.map(|&(_, accepted)| accepted).ok_or_else(|| field.wrong(expected));
    }
    let kinds = field.list(expected)?;
    kinds.iter().try_fold(Accepted::NONE, |accepted, kind| Ok(accepted.and(kind.word(&KINDS)?)))
}

/// Reads `[audit]`: whether refused packets are recorded at all, for which reasons, how often.
pub(super) fn audit(section: &Section<'_>) -> Result<AuditOptions, ConfigError> {
    let default = AuditOptions::default();
    let enabled = flag(section, "enabled", true)?;
    let reasons = match section.optional("reasons") {
        Some(field) => reasons(&field)?,
        None => default.reasons,
    };
    let rate = rate(section, default.rate)?;
    Ok(AuditOptions { reasons: if enabled { reasons } else { DropReasons::NONE }, rate })
}

fn reasons(field: &Field<'_>) -> Result<DropReasons, ConfigError> {
    let audited = DropReason::ALL.iter().filter(|reason| reason.is_auditable());
    let words: Vec<(&str, DropReason)> = audited.map(|reason| (reason.name(), *reason)).collect();
    let fields = field.list("a list of reasons such as [\"icv\", \"replay\"]")?;
    let mut reasons = fields.iter().map(|field| field.word(&words));
    reasons.try_fold(DropReasons::NONE, |all, reason| Ok(all.with(reason?)))
}

/// Reads `[notices]`: what IKE and the operator are told of.
pub(super) fn notices(section: &Section<'_>) -> Result<NoticeOptions, ConfigError> {
    let default = NoticeOptions::default();
    Ok(NoticeOptions {
        invalid_spi: flag(section, "invalid_spi", default.invalid_spi)?,
        invalid_selectors: flag(section, "invalid_selectors", default.invalid_selectors)?,
        unusual_ecn: flag(section, "unusual_ecn", default.unusual_ecn)?,
        rate: rate(section, default.rate)?,
    })
}

fn flag(section: &Section<'_>, key: &str, default: bool) -> Result<bool, ConfigError> {
    section.optional(key).map_or(Ok(default), |field| field.flag())
}

fn rate(section: &Section<'_>, default: u32) -> Result<u32, ConfigError> {
    section.optional("rate").map_or(Ok(default), |field| field.number(0..=RATE_MAX))
}

fn addresses(field: &Field<'_>) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), ConfigError> {
    let (mut four, mut six) = (None, None);
    for field in field.list(ADDRESSES)? {
        let before = match super::address::host(&field)? {
            IpAddr::V4(address) => four.replace(address).is_some(),
            IpAddr::V6(address) => six.replace(address).is_some(),
        };
        if before {
            return Err(field.wrong("one address of each family at most"));
        }
    }
    Ok((four, six))
}
