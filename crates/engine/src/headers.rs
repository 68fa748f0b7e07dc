//! Header work in a frame: AH, and transport mode, whose header lies inside the packet.
//!
//! IP headers move, payloads stay where they are.

use std::net::IpAddr;
use std::ops::Range;

use culvert_aead::Aead;
use culvert_aead::AhOp;
use culvert_aead::Status;
use culvert_frame::Packet;
use culvert_wire::ah;
use culvert_wire::checksum;
use culvert_wire::esp;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::extension;
use culvert_wire::fragment;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;

use crate::fate::DropReason;

/// True when an IP packet may itself be for an inbound SA; in IPv6 also when extension headers hide
/// what it is.
#[inline(always)]
pub(crate) fn may_be_nested(packet: &[u8], parsed: &ip::Packet) -> bool {
    match parsed.protocol() {
        ip::PROTOCOL_ESP | ip::PROTOCOL_AH => true,
        ip::PROTOCOL_HOP_BY_HOP
        | ip::PROTOCOL_ROUTING
        | ip::PROTOCOL_FRAGMENT
        | ip::PROTOCOL_DESTINATION_OPTIONS => matches!(parsed, ip::Packet::V6(_)),
        ip::PROTOCOL_UDP => {
            let port = parsed.upper_at() + 2;
            packet.get(port..port + 2) == Some(&esp::NAT_TRAVERSAL_PORT.to_be_bytes())
        }
        _ => false,
    }
}

/// Cuts a packet down to the `len` octets at `at`.
#[inline(always)]
pub(crate) fn keep(packet: &mut Packet, at: usize, len: usize) {
    let kept = packet.trim_front(at).and_then(|()| packet.truncate(len));
    assert!(kept.is_some(), "the packet was parsed inside this frame");
}

/// Verifies the AH at `ah_at` of an IP packet; what cannot be AH is forged.
pub(crate) fn open_ah<A: Aead>(
    aead: &mut A,
    key: &A::Key,
    esn_high: Option<u32>,
    packet: &mut [u8],
    ah_at: usize,
) -> Status {
    let mut covered = [0; ah::MAX_HEADERS_LEN];
    let Ok(len) = ah::immutable(packet, ah_at, &mut covered) else {
        return Status::Forged;
    };
    let header = &covered[..len];
    aead.open_ah(AhOp { key, esn_high, header, ah: &mut packet[ah_at..] })
}

/// Writes the ICV into the AH at `ah_at` of a finished IP packet; false when its headers are such
/// that no ICV can be computed.
pub(crate) fn seal_ah<A: Aead>(
    aead: &mut A,
    key: &A::Key,
    esn_high: Option<u32>,
    packet: &mut [u8],
    ah_at: usize,
) -> bool {
    let mut covered = [0; ah::MAX_HEADERS_LEN];
    let Ok(len) = ah::immutable(packet, ah_at, &mut covered) else {
        return false;
    };
    let header = &covered[..len];
    aead.seal_ah(AhOp { key, esn_high, header, ah: &mut packet[ah_at..] });
    true
}

/// Next header, start and end of what AH protects; the header lies at `at`, and the packet ends at
/// `end`.
pub(crate) fn ah_content(
    bytes: &[u8],
    at: usize,
    end: usize,
) -> Result<(u8, usize, usize), DropReason> {
    let header = ah::parse(bytes).map_err(|_| DropReason::Truncated)?;
    Ok((header.next_header, at + header.len, end))
}

/// Takes the protection out of a transport mode packet: the headers at `outer` are moved up to the
/// content, and say what follows them now. Returns where the packet starts, and what it is.
///
/// `original` are the addresses that transport checksums were computed with (RFC 3948 section
/// 3.1.2).
pub(crate) fn unwrap_transport(
    data: &mut [u8],
    outer: Range<usize>,
    (next_header, content): (u8, Range<usize>),
    original: Option<(IpAddr, IpAddr)>,
) -> Result<(usize, ip::Packet), DropReason> {
    let malformed = |_| DropReason::InnerMalformed;
    let header_len = outer.len();
    let parsed = ip::parse(&data[outer.start..]).map_err(malformed)?;
    let announced_at = match &parsed {
        ip::Packet::V4(_) => ipv4::PROTOCOL_AT,
        ip::Packet::V6(header) => {
            let packet = &data[outer.start..content.end];
            extension::walk(packet, header).map_err(malformed)?.announced_at
        }
    };
    if announced_at >= header_len {
        return Err(DropReason::InnerMalformed);
    }
    let start = content.start - header_len;
    data.copy_within(outer, start);
    let packet = &mut data[start..content.end];
    announce(packet, &parsed, announced_at, next_header);
    let inner = ip::parse(packet).map_err(malformed)?;
    if let Some((source, destination)) = original {
        checksum::follow_addresses(packet, &inner, source, destination);
    }
    Ok((start, inner))
}

/// Takes out the fragment header of an IPv6 packet that is whole: AH neither covers it nor leaves
/// it where a receiver would have to skip it (RFC 4302 section 3.3.3.1.2 and appendix A2). Returns
/// what the packet is then, or `None` when it is as it was, which it is without such a header.
pub(crate) fn drop_fragment_header(packet: &mut Packet, parsed: &ip::Packet) -> Option<ip::Packet> {
    let ip::Packet::V6(header) = parsed else {
        return None;
    };
    let fragment = extension::walk(packet.data(), header).ok()?.fragment?;
    if !fragment.is_whole() {
        return None;
    }
    let start = fragment::finish_reassembly(packet.data_mut()).ok()?;
    packet.trim_front(start)?;
    ip::parse(packet.data()).ok()
}

/// Makes `room` octets of room at `insert_at` of a packet by moving its headers forward; false when
/// the frame has no such headroom.
pub(crate) fn open_gap(packet: &mut Packet, insert_at: usize, room: usize) -> bool {
    if packet.prepend(room).is_none() {
        return false;
    }
    packet.data_mut().copy_within(room..room + insert_at, 0);
    true
}

/// Makes the headers of a packet, which were parsed as `parsed`, announce `protocol` in the octet
/// at `announced_at`, and its length as it is now.
pub(crate) fn announce(packet: &mut [u8], parsed: &ip::Packet, announced_at: usize, protocol: u8) {
    let total = u16::try_from(packet.len()).expect("a frame is shorter");
    match parsed {
        ip::Packet::V4(_) => {
            ipv4::set_protocol(packet, protocol);
            ipv4::set_total_len(packet, total);
        }
        ip::Packet::V6(_) => {
            packet[announced_at] = protocol;
            #[expect(clippy::cast_possible_truncation, reason = "40")]
            ipv6::set_payload_len(packet, total - ipv6::HEADER_LEN as u16);
        }
    }
}

/// Cuts a packet down to the IP packet of `len` octets at `at`, behind an Ethernet header of its
/// own, as if it had come in so; false when there is no room.
pub(crate) fn reframe(packet: &mut Packet, at: usize, len: usize, mac: Option<Mac>) -> bool {
    keep(packet, at, len);
    let ether_type = match packet.data().first() {
        Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    };
    let Some(out) = packet.prepend(ethernet::HEADER_LEN) else {
        return false;
    };
    let mac = mac.unwrap_or(Mac([0; 6]));
    ethernet::emit(out, mac, mac, None, ether_type);
    true
}
