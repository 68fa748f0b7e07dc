//! SAs as answers and events show them: what they were made with, and what workers say of them.

use std::net::IpAddr;

use culvert_esp::WindowState;
use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Port;
use culvert_xfrm::event::AeFlags;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::sa::Drops;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::selector::Selector;

use crate::algorithms;
use crate::plane::Report;
use crate::replay;
use crate::sas::Installed;
use crate::sas::Sa;
use crate::spec;

/// What workers say of an SA, in both directions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) inbound: Option<Report>,
    pub(crate) outbound: Option<Report>,
}

impl Truth {
    fn both(&self) -> impl Iterator<Item = &Report> {
        self.inbound.iter().chain(&self.outbound)
    }

    pub(crate) fn last_used(&self) -> Option<u64> {
        self.both().filter_map(|report| report.last_used).max()
    }

    fn sent(&self, sa: &Sa) -> u64 {
        self.outbound.as_ref().map_or_else(|| replay::sent(sa), |report| report.sequence)
    }

    /// As it was made where no worker has it.
    fn received(&self, sa: &Sa) -> WindowState {
        let seen = self.inbound.as_ref().and_then(|report| report.window.clone());
        seen.unwrap_or_else(|| replay::received(sa))
    }
}

/// What was used, before it came to be here as well.
pub(crate) fn usage(sa: &Sa, truth: &Truth) -> Usage {
    let base = spec::base(sa);
    let first = truth.both().filter_map(|report| report.first_used).min();
    Usage {
        bytes: truth.both().fold(base.bytes, |sum, report| sum.saturating_add(report.bytes)),
        packets: truth.both().fold(base.packets, |sum, report| sum.saturating_add(report.packets)),
        add_time: if base.add_time == 0 { sa.info.usage.add_time } else { base.add_time },
        use_time: if base.use_time == 0 { first.unwrap_or(0) } else { base.use_time },
    }
}

/// The fixed part.
pub(crate) fn info(sa: &Sa, truth: &Truth) -> SaInfo {
    let refused = truth.inbound.as_ref().map(|report| report.refused).unwrap_or_default();
    let [replay_window, replay, integrity_failed] =
        refused.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    SaInfo {
        usage: usage(sa, truth),
        drops: Drops { replay_window, replay, integrity_failed },
        ..sa.info
    }
}

/// Attributes in the order in which the kernel lists them; the unknown behind.
pub(crate) fn attributes(sa: &Sa, truth: &Truth) -> Attributes {
    let made = sa.attributes.0.iter().rev();
    let mut list: Vec<(u8, Attribute)> = Vec::new();
    for attribute in made {
        let Some(place) = place(attribute) else {
            continue;
        };
        if place == UNKNOWN || list.iter().all(|&(other, _)| other != place) {
            list.push((place, attribute.clone()));
        }
    }
    list.extend(truth.last_used().map(|at| (2, Attribute::LastUsed(at))));
    list.extend(algorithms::listed_integrity(&sa.attributes).into_iter().map(|of| (4, of)));
    list.push((12, replay::listed(sa, truth.sent(sa), &truth.received(sa))));
    list.sort_by_key(|&(place, _)| place);
    Attributes(list.into_iter().map(|(_, attribute)| attribute).collect())
}

/// Behind all others.
const UNKNOWN: u8 = u8::MAX;

/// Where an attribute stands in a listing (`copy_to_user_state_extra`); nothing for one that is not
/// listed, or not as it was made.
fn place(attribute: &Attribute) -> Option<u8> {
    Some(match attribute {
        Attribute::ExtraFlags(flags) if *flags != 0 => 0,
        Attribute::CareOfAddress(_) => 1,
        Attribute::AlgAead(_) => 3,
        Attribute::AlgCrypt(_) => 5,
        Attribute::AlgComp(_) => 6,
        Attribute::Encap(_) => 7,
        Attribute::TfcPadding(octets) if *octets != 0 => 8,
        Attribute::Mark(mark) if *mark != Mark::default() => 9,
        Attribute::SetMark(_) => 10,
        Attribute::SetMarkMask(_) => 11,
        Attribute::Offload(_) => 13,
        Attribute::SecurityContext(_) => 14,
        Attribute::IfId(id) if *id != 0 => 15,
        Attribute::MappingThreshold(seconds) if *seconds != 0 => 16,
        Attribute::Cpu(_) => 17,
        Attribute::Direction(_) => 18,
        Attribute::NatKeepalive(seconds) if *seconds != 0 => 19,
        Attribute::Unknown(_) => UNKNOWN,
        _ => return None,
    })
}

/// A listing, an answer to GETSA, or to ALLOCSPI.
pub(crate) fn listed(sa: &Sa, truth: &Truth) -> Body {
    Body::NewSa(info(sa, truth), attributes(sa, truth))
}

/// The same for culvert's own clients: with the direction that it has here, if it has one.
pub(crate) fn listed_to(is_ours: bool, sa: &Sa, truth: &Truth) -> Body {
    let mut body = listed(sa, truth);
    let said = match sa.installed {
        Installed { inbound: Some(_), outbound: None } => SaDirection::IN,
        Installed { inbound: None, outbound: Some(_) } => SaDirection::OUT,
        _ => return body,
    };
    if let Body::NewSa(_, list) = &mut body
        && is_ours
        && list.direction().is_none()
    {
        list.0.push(Attribute::Direction(said));
    }
    body
}

/// What those who listen are told when an SA goes.
pub(crate) fn deleted(sa: &Sa, truth: &Truth) -> Body {
    let mut list = attributes(sa, truth);
    list.0.insert(0, Attribute::Sa(Box::new(info(sa, truth))));
    Body::DeleteSa(id(sa), list)
}

/// How requests name an SA.
pub(crate) fn id(sa: &Sa) -> SaId {
    let SaInfo { id, family, .. } = sa.info;
    SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto }
}

/// What those who listen are told when an SA expires.
pub(crate) fn expired(sa: &Sa, truth: &Truth, hard: bool) -> Body {
    let list = Attributes(belonging(sa).collect());
    Body::Expire(Expire { state: info(sa, truth), hard: hard.into() }, list)
}

/// What tells SAs with one name apart.
fn belonging(sa: &Sa) -> impl Iterator<Item = Attribute> {
    let mark = Some(sa.mark()).filter(|mark| *mark != Mark::default());
    let if_id = Some(sa.if_id()).filter(|if_id| *if_id != 0);
    let direction = sa.attributes.direction().copied().map(Attribute::Direction);
    mark.map(Attribute::Mark).into_iter().chain(if_id.map(Attribute::IfId)).chain(direction)
}

/// The answer to GETAE.
pub(crate) fn numbers(sa: &Sa, truth: &Truth, flags: u32) -> Body {
    let mut list = vec![replay::listed(sa, truth.sent(sa), &truth.received(sa))];
    list.push(Attribute::Usage(usage(sa, truth)));
    if flags & AeFlags::REPLAY_THRESHOLD != 0 {
        let threshold = sa.attributes.replay_threshold().copied().unwrap_or(0);
        list.push(Attribute::ReplayThreshold(threshold));
    }
    if flags & AeFlags::TIMER_THRESHOLD != 0 {
        let threshold = sa.attributes.timer_threshold().copied().unwrap_or(0);
        list.push(Attribute::TimerThreshold(threshold));
    }
    list.extend(belonging(sa));
    let id = AeId { sa_id: id(sa), saddr: sa.info.saddr, flags, reqid: sa.info.reqid };
    Body::NewAe(id, Attributes(list))
}

/// The selector of one packet, as the kernel makes it for an SA that is wanted.
pub(crate) fn selector_of(flow: &Flow) -> Selector {
    let full = Port(u16::MAX);
    let ip = |number: u128| -> IpAddr {
        if flow.addresses.is_v4 {
            #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address")]
            std::net::Ipv4Addr::from_bits(number as u32).into()
        } else {
            std::net::Ipv6Addr::from_bits(number).into()
        }
    };
    let (source, destination) = (ip(flow.addresses.source), ip(flow.addresses.destination));
    let bits = if flow.addresses.is_v4 { 32 } else { 128 };
    let mut selector = Selector {
        daddr: Address::from(destination),
        saddr: Address::from(source),
        family: Family::of(destination),
        prefixlen_d: bits,
        prefixlen_s: bits,
        proto: flow.protocol,
        ..Selector::default()
    };
    let (source, destination) = match flow.upper {
        Upper::Ports { source, destination } => (source, destination),
        Upper::Icmp(number) => (number >> 8, number & 0xff),
        Upper::Mobility(kind) => (u16::from(kind), 0),
        Upper::None | Upper::Opaque => (0, 0),
    };
    (selector.sport, selector.sport_mask) = (Port(source), full);
    (selector.dport, selector.dport_mask) = (Port(destination), full);
    selector
}
