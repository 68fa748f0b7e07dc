//! Packets for the tests of this crate.

use core::net::Ipv4Addr;
use core::net::Ipv6Addr;
use std::vec;
use std::vec::Vec;

use crate::checksum;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

pub(crate) const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const DESTINATION_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const TOS: u8 = 0x2e;
pub(crate) const FLOW_LABEL: u32 = 0x5_4321;

/// An IP packet of either family.
pub(crate) fn packet(six: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if six { v6(protocol, payload) } else { v4(protocol, payload) }
}

pub(crate) fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    v4_with_options(&[], protocol, payload)
}

/// `options` fill whole words.
pub(crate) fn v4_with_options(options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0; 20];
    let header = ipv4::Header {
        tos: TOS,
        total_len: u16::try_from(header_len + payload.len()).unwrap(),
        id: 0x1234,
        dont_fragment: false,
        ttl: 64,
        protocol,
        source: SOURCE_V4,
        destination: DESTINATION_V4,
    };
    ipv4::emit(&mut packet, &header);
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    packet[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
    repair(&mut packet);
    packet
}

/// An IPv4 packet that is a fragment: `flags_and_offset` as they stand in the header.
pub(crate) fn v4_fragment(flags_and_offset: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = v4(protocol, payload);
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    repair(&mut packet);
    packet
}

/// Makes the checksum of an IPv4 header right, if the header is there.
pub(crate) fn repair(packet: &mut [u8]) {
    let len = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    if len >= 20
        && let Some(header) = packet.get_mut(..len)
    {
        header[10..12].fill(0);
        let sum = checksum::internet(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

pub(crate) fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    let header = ipv6::Header {
        traffic_class: TOS,
        flow_label: FLOW_LABEL,
        payload_len: u16::try_from(payload.len()).unwrap(),
        next_header,
        hop_limit: 64,
        source: SOURCE_V6,
        destination: DESTINATION_V6,
    };
    ipv6::emit(&mut packet, &header);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet with extension headers: each is its number and its octets behind the next-header
/// octet.
pub(crate) fn v6_with(extensions: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let kinds = extensions.iter().map(|(kind, _)| *kind).chain([protocol]);
    for ((_, rest), next) in extensions.iter().zip(kinds.clone().skip(1)) {
        octets.push(next);
        octets.extend_from_slice(rest);
    }
    octets.extend_from_slice(payload);
    v6(kinds.clone().next().unwrap(), &octets)
}

/// Hop-by-hop or destination options of 8 octets: a PadN.
pub(crate) const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
/// A routing header of type 0 that is used up, with one address.
pub(crate) const ROUTING: &[u8] =
    &[2, 0, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
/// A fragment header of the first fragment, identification 0x01020304.
pub(crate) const FIRST: &[u8] = &[0, 0, 1, 1, 2, 3, 4];
/// One of the last, 1024 octets in.
pub(crate) const LAST: &[u8] = &[0, 4, 0, 1, 2, 3, 4];
/// One of a fragment that is the whole packet.
pub(crate) const WHOLE: &[u8] = &[0, 0, 0, 1, 2, 3, 4];

pub(crate) fn parse(packet: &[u8]) -> ip::Packet {
    ip::parse(packet).expect("an IP packet")
}

/// The whole checksum of `bytes` by the definition, 16-bit word by word.
pub(crate) fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !u16::try_from(sum).unwrap()
}

/// `segment` of `protocol` behind the pseudo-header of the packet's addresses, written out as
/// octets (IPv4 from RFC 768, IPv6 from RFC 8200 section 8.1).
pub(crate) fn with_pseudo_header(packet: &[u8], protocol: u8, segment: &[u8]) -> Vec<u8> {
    let len = u32::try_from(segment.len()).unwrap().to_be_bytes();
    let mut bytes = Vec::new();
    if packet[0] >> 4 == 4 {
        bytes.extend_from_slice(&packet[12..20]);
        bytes.extend_from_slice(&[0, protocol, len[2], len[3]]);
    } else {
        bytes.extend_from_slice(&packet[8..40]);
        bytes.extend_from_slice(&len);
        bytes.extend_from_slice(&[0, 0, 0, protocol]);
    }
    bytes.extend_from_slice(segment);
    bytes
}
