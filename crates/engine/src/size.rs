//! How long SAs make a packet, and what becomes of one that is too long for its path (RFC 4301
//! section 8, RFC 8200 section 5).

use culvert_aead::Aead;
use culvert_esp::Mode;
use culvert_esp::template::Inherited;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::tcp;
use culvert_wire::udp;

use crate::fate::DropReason;
use crate::options::Fragmentation;
use crate::options::Mss;
use crate::plane::Plane;
use crate::plane::may_be_fragmented;
use crate::tables::Bundle;

/// Least MTU an IPv6 sender reckons with (RFC 8200 section 5): what does not fit then is
/// fragmented outside.
const MTU_MIN_V6: usize = 1280;

/// Least MTU an IPv4 sender reckons with (RFC 791 section 3.2).
const MTU_MIN_V4: usize = 68;

/// Octets of a TCP header without options.
const TCP_HEADER_LEN: usize = 20;

/// Whether a packet fits.
pub(crate) enum Fit {
    Whole,
    /// No, but it goes on whole: what comes of it is sent in fragments.
    Outside,
    /// No: first it is made into fragments of so many octets at most.
    Split {
        mtu: usize,
    },
    /// No: its source is told how many octets would.
    TooBig {
        mtu: u32,
    },
}

/// What SAs around a packet must know of it to say how long they make it.
#[derive(Clone, Copy)]
struct Outline {
    is_v4: bool,
    header_len: usize,
}

impl Outline {
    fn of(packet: &ip::Packet) -> Outline {
        let is_v4 = matches!(packet, ip::Packet::V4(_));
        Outline { is_v4, header_len: packet.upper_at() }
    }
}

/// Octets that SAs, innermost first, make of `len` octets.
fn outer_len<A: Aead>(plane: &Plane<A>, slots: &[u32], inner: Outline, len: usize) -> usize {
    let Outline { mut is_v4, mut header_len } = inner;
    let mut total = len;
    for entry in slots.iter().filter_map(|&slot| plane.outbound.at(slot)) {
        let template = &entry.sa.template;
        let layout = entry.sa.layout();
        match entry.mode {
            Mode::Tunnel => {
                is_v4 = template.is_v4();
                header_len = template.len();
                total = header_len + layout.sealed_len(total, is_v4);
            }
            Mode::Transport => {
                let udp = template.encapsulation().map_or(0, |_| udp::HEADER_LEN);
                let payload = total - header_len.min(total);
                total = header_len + udp + layout.sealed_len(payload, is_v4);
            }
        }
    }
    total
}

/// The largest packet that SAs make no larger than `mtu`.
fn inner_mtu<A: Aead>(plane: &Plane<A>, slots: &[u32], inner: Outline, mtu: usize) -> usize {
    let overhead = outer_len(plane, slots, inner, mtu) - mtu;
    let mut len = mtu.saturating_sub(overhead);
    // Padding depends on the length; a few octets more may fit.
    while outer_len(plane, slots, inner, len + 1) <= mtu {
        len += 1;
    }
    while len > 0 && outer_len(plane, slots, inner, len) > mtu {
        len -= 1;
    }
    len
}

/// The largest packet that the SA in `slot` may make for those `around` it to make no more than
/// `mtu` octets of it.
#[inline]
pub(crate) fn room_within<A: Aead>(
    plane: &Plane<A>,
    slot: u32,
    around: &[u32],
    mtu: usize,
) -> usize {
    match plane.outbound.at(slot) {
        Some(entry) if !around.is_empty() => {
            let template = &entry.sa.template;
            let made = Outline { is_v4: template.is_v4(), header_len: template.len() };
            inner_mtu(plane, around, made, mtu)
        }
        _ => mtu,
    }
}

/// Whether a packet, which is what `bytes` begin with, fits its path, and what is to be done if not
/// (RFC 4301 section 8.2).
///
/// # Errors
/// When an SA of the bundle is gone.
#[cold]
pub(crate) fn judge<A: Aead>(
    plane: &Plane<A>,
    bundle: &Bundle,
    (bytes, inner, inherited): (&[u8], &ip::Packet, Inherited),
    mtu: usize,
) -> Result<Fit, DropReason> {
    let outline = Outline::of(inner);
    if outer_len(plane, bundle.slots(), outline, inner.total_len()) <= mtu {
        return Ok(Fit::Whole);
    }
    let last = bundle.slots().last().and_then(|&slot| plane.outbound.at(slot));
    let first = bundle.slots().first().and_then(|&slot| plane.outbound.at(slot));
    let (Some(first), Some(last)) = (first, last) else {
        return Err(DropReason::NoOutboundSa);
    };
    let is_tunnel = first.mode == Mode::Tunnel;
    let is_small_v6 = is_v6_minimum(inner);
    let template = &last.sa.template;
    // Over IPv6 only the source of a packet fragments it: the gateway that of a tunnel, DF or not,
    // and one of a host only if the host cannot send less.
    let mut all = bundle.slots().iter().filter_map(|&slot| plane.outbound.at(slot));
    let is_source = all.any(|entry| entry.mode == Mode::Tunnel);
    let outside = match template.is_v4() {
        true => !template.dont_fragment(inherited),
        false => is_source || is_small_v6,
    };
    let prefers_outside = last.sending.fragmentation == Fragmentation::After || !is_tunnel;
    if outside && (prefers_outside || is_small_v6) {
        return Ok(Fit::Outside);
    }
    let mtu = inner_mtu(plane, bundle.slots(), outline, mtu);
    if may_be_fragmented(inner) && is_tunnel {
        if stays_protected(plane, bytes, inner) {
            return Ok(Fit::Split { mtu });
        }
        if outside {
            return Ok(Fit::Outside);
        }
    }
    let told = match inner {
        ip::Packet::V4(_) => mtu.max(MTU_MIN_V4),
        ip::Packet::V6(_) => mtu.max(MTU_MIN_V6),
    };
    Ok(Fit::TooBig { mtu: u32::try_from(told).unwrap_or(u32::MAX) })
}

/// True when policy has the same SA for all fragments of a packet. Those but the first show no
/// ports, and where policy looks at ports they may be another SA's, or leave in clear.
fn stays_protected<A: Aead>(plane: &Plane<A>, bytes: &[u8], inner: &ip::Packet) -> bool {
    let whole = Flow::of(bytes, inner);
    let upper = if whole.upper == Upper::None { Upper::None } else { Upper::Opaque };
    let action = |flow: &Flow| plane.snapshot.spd.outbound(flow).action;
    let expected = action(&whole);
    matches!(expected, Some(Action::Protect(_))) && action(&Flow { upper, ..whole }) == expected
}

/// A packet that every IPv6 path carries; if a tunnel does not, its outer packets are fragmented.
pub(crate) fn is_v6_minimum(inner: &ip::Packet) -> bool {
    matches!(inner, ip::Packet::V6(_)) && inner.total_len() <= MTU_MIN_V6
}

/// Lowers the MSS of a TCP SYN to what fits its path, or to what is configured.
#[cold]
pub(crate) fn clamp_mss<A: Aead>(
    plane: &Plane<A>,
    bundle: &Bundle,
    data: &mut [u8],
    inner: &ip::Packet,
    path_mtu: Option<usize>,
) {
    let Some(entry) = bundle.slots().first().and_then(|&slot| plane.outbound.at(slot)) else {
        return;
    };
    match (entry.sending.mss, path_mtu) {
        (Mss::To(size), _) => {
            let headers = TCP_HEADER_LEN
                + match inner {
                    ip::Packet::V4(_) => ipv4::HEADER_LEN,
                    ip::Packet::V6(_) => ipv6::HEADER_LEN,
                };
            tcp::clamp_mss(data, inner, usize::from(size) + headers);
        }
        (Mss::Auto, Some(mtu)) => {
            let mtu = inner_mtu(plane, bundle.slots(), Outline::of(inner), mtu);
            tcp::clamp_mss(data, inner, mtu);
        }
        (Mss::Auto, None) | (Mss::Off, _) => {}
    }
}
