//! How long packets become, and what happens to those that are too long (RFC 4303 section 3.3.4,
//! RFC 4301 section 8, RFC 8200 section 5).

use culvert_aead::Protocol;
use culvert_esp::Mode;
use culvert_wire::ip;

use crate::tunnel::Tunnel;

/// What every IPv6 path carries.
const V6_MIN: usize = 1280;

/// What becomes of a packet on a path.
pub(super) enum Size {
    Fits,
    /// It is sealed, and leaves in so many fragments.
    Outside(usize),
    /// It is made into fragments of so many octets at most, which are sealed.
    Inside(usize),
    TooBig,
}

/// What becomes of a packet that `tunnel` carries over a path of `mtu` octets.
pub(super) fn judge(tunnel: &Tunnel, packet: &ip::Packet, mtu: usize) -> Size {
    let len = sealed_len(tunnel, packet.total_len());
    if len <= mtu {
        return Size::Fits;
    }
    let is_tunnel = tunnel.mode == Mode::Tunnel;
    let over_v4 = tunnel.outer[0].is_ipv4();
    let (is_v6, may_be_split) = match packet {
        ip::Packet::V4(header) => (false, !header.dont_fragment),
        ip::Packet::V6(_) => (true, false),
    };
    // Its sender cannot make it smaller.
    let is_owed = is_v6 && packet.total_len() <= V6_MIN;
    // Over IPv6 only the source of a packet fragments it, which the gateway is of a tunnel's; over
    // IPv4 DF is copied.
    let outside = (is_tunnel && !over_v4) || may_be_split || is_owed;
    if outside && (!is_tunnel || is_owed || tunnel.fragments_after) {
        return Size::Outside(count(len, mtu, over_v4));
    }
    if is_tunnel && may_be_split {
        let fitting = (0..=mtu).rev().find(|&len| sealed_len(tunnel, len) <= mtu);
        return Size::Inside(fitting.unwrap_or(0));
    }
    Size::TooBig
}

/// Fragments of at most `mtu` octets that a packet of `len` octets makes.
fn count(len: usize, mtu: usize, is_v4: bool) -> usize {
    let (header, headers) = if is_v4 { (20, 20) } else { (40, 48) };
    let (mut left, room) = (len - header, mtu - headers);
    let mut fragments = 1;
    while left > room {
        left -= room / 8 * 8;
        fragments += 1;
    }
    fragments
}

/// Octets of the IP packet that carries one of `len` octets through an SA.
pub(super) fn sealed_len(tunnel: &Tunnel, len: usize) -> usize {
    let algorithm = tunnel.algorithm;
    let is_v4 = tunnel.outer[0].is_ipv4();
    let header_len = if is_v4 { 20 } else { 40 };
    let udp = if tunnel.seen_at.is_some() { 8 } else { 0 };
    header_len
        + udp
        + match algorithm.protocol() {
            Protocol::Ah => {
                let unit = if is_v4 { 4 } else { 8 };
                payload(tunnel, len) + (12 + algorithm.ah_icv_field_len()).next_multiple_of(unit)
            }
            // SPI, number, IV and ICV around.
            Protocol::Esp => 8 + algorithm.iv_len() + text_len(tunnel, len) + algorithm.icv_len(),
        }
}

/// Octets that the algorithm works on, for a packet of `len` octets: the text of ESP, with padding
/// and trailer; with AH the whole packet.
pub(super) fn worked_on(tunnel: &Tunnel, len: usize) -> usize {
    match tunnel.protocol() {
        Protocol::Ah => sealed_len(tunnel, len),
        Protocol::Esp => text_len(tunnel, len),
    }
}

/// Payload, pad length and next header end on a block.
fn text_len(tunnel: &Tunnel, len: usize) -> usize {
    (payload(tunnel, len) + 2).next_multiple_of(tunnel.algorithm.block_len())
}

/// What is protected: the whole packet, or what follows its header.
fn payload(tunnel: &Tunnel, len: usize) -> usize {
    match (tunnel.mode, tunnel.outer[0].is_ipv4()) {
        (Mode::Tunnel, _) => len,
        (Mode::Transport, true) => len.saturating_sub(20),
        (Mode::Transport, false) => len.saturating_sub(40),
    }
}
