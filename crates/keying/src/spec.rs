//! From an SA as XFRM describes it to one that the data plane takes.

use culvert_aead::Protocol;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::options::Receiving;
use culvert_engine::options::Sending;
use culvert_esp::Encapsulation;
use culvert_esp::HeaderOptions;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::lifetime::Limits;
use culvert_esp::template::Df;
use culvert_esp::template::Dscp;
use culvert_esp::template::EcnMode;
use culvert_esp::tfc::TfcPadding;
use culvert_spd::Group;
use culvert_xfrm::Errno;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::lifetime::Limits as XfrmLimits;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::sa;
use culvert_xfrm::sa::EncapType;
use culvert_xfrm::sa::ExtraFlags;
use culvert_xfrm::sa::SaFlags;

use crate::algorithms;
use crate::refusal::Refusal;
use crate::replay;
use crate::sas::Sa;
use crate::selector;

/// Smallest window that the data plane has.
const WINDOW_MIN: u32 = culvert_esp::replay::SIZE_MIN;

/// Padding up to here or more means: to the path's MTU.
const TFC_MTU: u32 = 0xffff;

/// The groups that the data plane finds an SA by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    /// Of its kind.
    pub(crate) group: Group,
    /// Of its own.
    pub(crate) alias: Option<Group>,
}

/// What the data plane is to have of an SA in one direction. `epoch` goes into its IVs.
pub(crate) fn spec(
    sa: &Sa,
    direction: Direction,
    groups: Groups,
    epoch: u64,
    now: u64,
) -> Result<SaSpec, Refusal> {
    let info = &sa.info;
    let (algorithm, keymat) = algorithms::algorithm(info.id.proto, &sa.attributes)?;
    let family = || Refusal::new(Errno::EAFNOSUPPORT, "addresses of IPv4 or IPv6");
    let source = sa.source().ok_or_else(family)?;
    let destination = info.id.daddr.ip(info.family).ok_or_else(family)?;
    let spi = Spi::new(info.id.spi.0).map_err(|error| Refusal {
        errno: Errno::EINVAL,
        text: error.to_string(),
        at: None,
    })?;
    let is_inbound = direction == Direction::Inbound;
    let mut spec =
        SaSpec::new(direction, spi, (source, destination), (algorithm, keymat), groups.group);
    spec.mode = mode(sa)?;
    spec.esn = info.flags & SaFlags::ESN != 0;
    spec.encapsulation = encapsulation(sa)?;
    spec.lifetime = lifetime(&info.limits, &base(sa), now);
    spec.header = header(sa)?;
    if is_inbound {
        spec.selectors = selectors(sa)?;
        spec.receiving = receiving(sa);
        spec.replay_window = match replay::window_size(sa)? {
            0 => 0,
            size => size.max(WINDOW_MIN),
        };
        spec.sequence = replay::highest(sa);
        let has_received = spec.replay_window > 0 && spec.sequence > 0;
        spec.window = has_received.then(|| replay::received(sa));
    } else {
        spec.alias = groups.alias;
        spec.epoch = Some(epoch);
        spec.sending = sending(sa, spec.mode, algorithm.protocol());
        spec.sequence = replay::sent(sa);
    }
    Ok(spec)
}

fn mode(sa: &Sa) -> Result<Mode, Refusal> {
    match sa.info.mode {
        sa::Mode::TRANSPORT => Ok(Mode::Transport),
        sa::Mode::TUNNEL => Ok(Mode::Tunnel),
        _ => Err(Refusal::new(Errno::EOPNOTSUPP, "transport or tunnel mode")),
    }
}

fn encapsulation(sa: &Sa) -> Result<Option<Encapsulation>, Refusal> {
    let Some(encap) = sa.attributes.encap() else {
        return Ok(None);
    };
    if encap.kind != EncapType::ESP_IN_UDP {
        return Err(Refusal::new(Errno::EOPNOTSUPP, "ESP in UDP (RFC 3948)"));
    }
    if sa.info.id.proto != sa::ESP {
        return Err(Refusal::new(Errno::EINVAL, "no encapsulation of AH"));
    }
    Ok(Some(Encapsulation { source_port: encap.sport.0, destination_port: encap.dport.0 }))
}

/// What was used before this SA came to be here.
pub(crate) fn base(sa: &Sa) -> Usage {
    sa.attributes.usage().copied().unwrap_or_default()
}

/// Limits that are left. XFRM's soft limits may lie above the hard ones, which means none, and a
/// limit that is used up is reached with the next packet.
pub(crate) fn lifetime(limits: &XfrmLimits, base: &Usage, now: u64) -> Lifetime {
    let left =
        |limit: u64, used: u64| (limit != INFINITE).then(|| limit.saturating_sub(used).max(1));
    let seconds = |limit: u64, since: u64| {
        let gone = if since == 0 { 0 } else { now.saturating_sub(since) };
        (limit != 0 && limit != INFINITE).then(|| limit.saturating_sub(gone).max(1))
    };
    let hard = Limits {
        seconds: seconds(limits.hard_age_secs, base.add_time),
        used_seconds: seconds(limits.hard_use_secs, base.use_time),
        bytes: left(limits.hard_bytes, base.bytes),
        packets: left(limits.hard_packets, base.packets),
    };
    let below = |soft: Option<u64>, hard: Option<u64>| {
        soft.filter(|&soft| hard.is_none_or(|hard| soft <= hard))
    };
    let soft = Limits {
        seconds: below(seconds(limits.soft_age_secs, base.add_time), hard.seconds),
        used_seconds: below(seconds(limits.soft_use_secs, base.use_time), hard.used_seconds),
        bytes: below(left(limits.soft_bytes, base.bytes), hard.bytes),
        packets: below(left(limits.soft_packets, base.packets), hard.packets),
    };
    Lifetime::new(soft, hard).unwrap_or_default()
}

fn header(sa: &Sa) -> Result<HeaderOptions, Refusal> {
    let has = |flag| sa.info.flags & flag != 0;
    let extra = sa.attributes.extra_flags().copied().unwrap_or(0);
    if extra & ExtraFlags::OSEQ_MAY_WRAP != 0 {
        let what = "numbers that do not begin again (RFC 4303 section 3.3.3)";
        return Err(Refusal::new(Errno::EOPNOTSUPP, what));
    }
    let mut header = HeaderOptions::default();
    if has(SaFlags::NO_ECN) {
        header.ecn = EcnMode::Compatibility;
    }
    if has(SaFlags::NO_PMTU_DISCOVERY) {
        header.df = Df::Clear;
    }
    if extra & ExtraFlags::DONT_ENCAP_DSCP != 0 {
        header.dscp = Dscp::Set(0);
    }
    Ok(header)
}

fn receiving(sa: &Sa) -> Receiving {
    let copies = sa.info.flags & SaFlags::DECAP_DSCP != 0;
    let dscp = if copies { DscpPolicy::CopyOuter } else { DscpPolicy::KeepInner };
    Receiving { dscp, ..Receiving::default() }
}

fn sending(sa: &Sa, mode: Mode, protocol: Protocol) -> Sending {
    let tfc = match sa.attributes.tfc_padding() {
        Some(&octets) if (mode, protocol) == (Mode::Tunnel, Protocol::Esp) => match octets {
            0 => TfcPadding::Off,
            octets => u16::try_from(octets)
                .ok()
                .filter(|_| octets < TFC_MTU)
                .map_or(TfcPadding::Mtu, TfcPadding::To),
        },
        _ => TfcPadding::Off,
    };
    let keepalive = sa.attributes.nat_keepalive().filter(|&&seconds| seconds > 0);
    let keepalive = keepalive.map(|&seconds| u64::from(seconds) * 1_000_000_000);
    Sending { tfc, keepalive, ..Sending::default() }
}

/// Selectors of its own, unless it admits everything; policies decide on the family then.
fn selectors(sa: &Sa) -> Result<Vec<culvert_spd::Selector>, Refusal> {
    let sel = &sa.info.sel;
    let has_ports = (sel.sport_mask, sel.dport_mask) != Default::default();
    let is_any = (sel.prefixlen_s, sel.prefixlen_d, sel.proto, sel.ifindex) == (0, 0, 0, 0);
    if is_any && !has_ports {
        return Ok(Vec::new());
    }
    Ok(selector::convert(sel)?)
}
