//! The Internet checksum (RFC 1071): whole, incremental (RFC 1624), and partial.
//!
//! Sums are values of at most 16 bits, folded, in host order, not complemented; a checksum is the
//! complement of one. Sums of pieces add up, with [`add`], as long as every piece but the last has
//! an even length.
//!
//! [`complete_partial`] exists because a veth pair hands over what its sender left to checksum
//! offload. It completes TCP and UDP directly behind the IP header; SCTP's CRC and the inner
//! packets of tunnels are left as they are.

use core::net::IpAddr;
use core::net::Ipv4Addr;
use core::net::Ipv6Addr;

use crate::extension;
use crate::ip;
use crate::udp;

/// The Internet checksum of `bytes`: 0 over bytes that contain their right checksum.
#[inline]
#[must_use]
pub fn internet(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The folded one's complement sum of `bytes` as 16-bit words; an odd last octet is padded with
/// a zero. It is 0 only when every octet is.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    // The sum does not depend on the order of octets but for a final swap (RFC 1071 section 2 B),
    // and 32-bit words in a 64-bit sum need no carries below 16 GiB: a loop that vectorises.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    u16::from_be(fold(sum + u64::from(u32::from_ne_bytes(last))))
}

/// True when a header with its checksum in it sums to what it must.
#[inline(always)]
pub(crate) fn holds(header: &[u8; 20]) -> bool {
    // Words are read as such: what is taken apart would be put together again octet by octet.
    let ([first, second, ..], [.., last]) = (header.as_chunks::<8>().0, header.as_chunks::<4>().0)
    else {
        return false;
    };
    let (sum, carry) = u64::from_ne_bytes(*first).overflowing_add(u64::from_ne_bytes(*second));
    let more = u64::from(u32::from_ne_bytes(*last)) + u64::from(carry);
    let (sum, carry) = sum.overflowing_add(more);
    let sum = sum + u64::from(carry);
    // The upper half of a number plus its halves swapped is their sum with the carry around.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    sum.wrapping_add(sum.rotate_left(16)) >> 16 == 0xffff
}

/// The sum of two sums.
#[inline]
#[must_use]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
///
/// Equal to a checksum computed anew, unless all words under it are zero.
#[inline]
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The sum of the pseudo-header of IPv4 (RFC 9293 section 3.1) for `len` octets of `protocol`.
#[inline]
#[must_use]
pub fn pseudo_header_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    add(addresses, add(u16::from(protocol), len))
}

/// The sum of the pseudo-header of IPv6 (RFC 8200 section 8.1) for `len` octets of `protocol`.
#[inline]
#[must_use]
pub fn pseudo_header_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    add(addresses, add(u16::from(protocol), sum(&len.to_be_bytes())))
}

/// Completes the TCP or UDP checksum of `ip_packet`, which was parsed as `parsed`, when its sender
/// left that to hardware; true when the packet was changed.
///
/// Such a sender (Linux's `CHECKSUM_PARTIAL`) leaves the pseudo-header's sum in the checksum
/// field, not complemented. A right checksum equals that sum for one packet in 65535, and then the
/// rest of the segment sums to the value that makes completing it no change: a packet whose
/// checksum is right is left alone. A wrong one that looks partial is made right, which hides
/// one corruption in 65535; so ask only where the link is known to be a veth.
///
/// Packets that are neither TCP nor UDP, fragments, IPv6 with extension headers, and segments whose
/// own lengths do not hold are left alone.
#[inline]
pub fn complete_partial(ip_packet: &mut [u8], parsed: &ip::Packet) -> bool {
    if matches!(parsed, ip::Packet::V4(header) if header.is_fragment()) {
        return false;
    }
    let Some(segment) = ip_packet.get_mut(parsed.upper_at()..parsed.total_len()) else {
        return false;
    };
    match parsed.protocol() {
        ip::PROTOCOL_TCP if segment.len() >= TCP_HEADER_LEN => {
            complete(segment, TCP_CHECKSUM_AT, parsed)
        }
        ip::PROTOCOL_UDP => match udp::parse(segment) {
            Ok(header) => complete(&mut segment[..header.len], UDP_CHECKSUM_AT, parsed),
            Err(_) => false,
        },
        _ => false,
    }
}

/// Makes the transport checksum of `ip_packet` follow its addresses: it was computed over
/// `source` and `destination`, and the packet now has those of `parsed` (RFC 3948 section 3.1.2 a,
/// for what came in transport mode through a NAT). True when the packet was changed.
///
/// TCP, UDP, UDP-Lite, DCCP and ICMPv6 have such checksums. A UDP checksum of 0, which is none,
/// stays; so
/// do packets whose original addresses are of the other family, fragments that are not the first,
/// and segments too short for the field.
pub fn follow_addresses(
    ip_packet: &mut [u8],
    parsed: &ip::Packet,
    source: IpAddr,
    destination: IpAddr,
) -> bool {
    let (protocol, upper_at) = extension::next_layer(ip_packet, parsed);
    let field_at = match protocol {
        ip::PROTOCOL_TCP => TCP_CHECKSUM_AT,
        ip::PROTOCOL_UDP | ip::PROTOCOL_UDP_LITE | ip::PROTOCOL_DCCP => UDP_CHECKSUM_AT,
        // RFC 4443 section 2.3; over IPv4 the number means nothing.
        ip::PROTOCOL_ICMPV6 if matches!(parsed, ip::Packet::V6(_)) => ICMP_CHECKSUM_AT,
        _ => return false,
    };
    let Some(field) = upper_at
        .and_then(|at| ip_packet.get_mut(at..parsed.total_len()))
        .and_then(|segment| segment.get_mut(field_at..)?.first_chunk_mut::<2>())
    else {
        return false;
    };
    let (old, new) = match (source, destination, parsed) {
        (IpAddr::V4(source), IpAddr::V4(destination), ip::Packet::V4(now)) => (
            pseudo_header_v4(source, destination, 0, 0),
            pseudo_header_v4(now.source, now.destination, 0, 0),
        ),
        (IpAddr::V6(source), IpAddr::V6(destination), ip::Packet::V6(now)) => (
            pseudo_header_v6(source, destination, 0, 0),
            pseudo_header_v6(now.source, now.destination, 0, 0),
        ),
        _ => return false,
    };
    let found = u16::from_be_bytes(*field);
    if old == new || found == 0 && protocol == ip::PROTOCOL_UDP {
        return false;
    }
    let mut checksum = update(found, old, new);
    if checksum == 0 && matches!(protocol, ip::PROTOCOL_UDP | ip::PROTOCOL_UDP_LITE) {
        // Zero means that there is none (RFC 768), and UDP-Lite must have one (RFC 3828).
        checksum = 0xffff;
    }
    *field = checksum.to_be_bytes();
    checksum != found
}

const TCP_HEADER_LEN: usize = 20;
const TCP_CHECKSUM_AT: usize = 16;
const ICMP_CHECKSUM_AT: usize = 2;
const UDP_CHECKSUM_AT: usize = 6;

#[inline]
fn complete(segment: &mut [u8], checksum_at: usize, parsed: &ip::Packet) -> bool {
    let Ok(len) = u16::try_from(segment.len()) else {
        return false;
    };
    let pseudo = match parsed {
        ip::Packet::V4(ip) => pseudo_header_v4(ip.source, ip.destination, ip.protocol, len),
        ip::Packet::V6(ip) => {
            pseudo_header_v6(ip.source, ip.destination, ip.next_header, u32::from(len))
        }
    };
    let found = u16::from_be_bytes([segment[checksum_at], segment[checksum_at + 1]]);
    if found != pseudo {
        return false;
    }
    // The field already holds the pseudo-header's sum, so the segment's sum is the whole.
    let mut checksum = internet(segment);
    if checksum == 0 && parsed.protocol() == ip::PROTOCOL_UDP {
        // Zero means that there is none (RFC 768; forbidden in IPv6, RFC 8200 section 8.1).
        checksum = 0xffff;
    }
    [segment[checksum_at], segment[checksum_at + 1]] = checksum.to_be_bytes();
    checksum != found
}

/// Folds a wide sum of 16-bit words (in any common octet order) into 16 bits.
#[inline]
fn fold(sum: u64) -> u16 {
    // At most 0x1_ffff_fffe, then 0x1_fffe, then 0xffff.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::ipv4;
    use crate::ipv6;
    use crate::testing;

    /// The definition, word by word: the oracle for everything here.
    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        u16::try_from(sum).unwrap()
    }

    /// The oracle for whole TCP and UDP checksums: the pseudo-header written out as octets (IPv4
    /// from RFC 768, IPv6 from RFC 8200 section 8.1) with the segment behind it.
    fn naive_upper(packet: &[u8], parsed: &ip::Packet, segment: &[u8]) -> u16 {
        let len = u32::try_from(segment.len()).unwrap().to_be_bytes();
        let mut bytes = Vec::new();
        match parsed {
            ip::Packet::V4(_) => {
                bytes.extend_from_slice(&packet[12..20]);
                bytes.extend_from_slice(&[0, parsed.protocol(), len[2], len[3]]);
            }
            ip::Packet::V6(_) => {
                bytes.extend_from_slice(&packet[8..40]);
                bytes.extend_from_slice(&len);
                bytes.extend_from_slice(&[0, 0, 0, parsed.protocol()]);
            }
        }
        let pseudo_len = bytes.len();
        bytes.extend_from_slice(segment);
        let at = pseudo_len + checksum_at(parsed);
        bytes[at..at + 2].fill(0);
        !naive_sum(&bytes)
    }

    fn naive_pseudo(packet: &[u8], parsed: &ip::Packet, segment: &[u8]) -> u16 {
        !naive_upper(packet, parsed, &vec![0; segment.len()])
    }

    fn checksum_at(parsed: &ip::Packet) -> usize {
        if parsed.protocol() == ip::PROTOCOL_TCP { 16 } else { 6 }
    }

    /// A TCP or UDP packet with checksum field 0, and `padding` octets of link padding behind.
    fn packet(six: bool, tcp: bool, addresses: [u8; 32], data: &[u8], padding: usize) -> Vec<u8> {
        let protocol = if tcp { ip::PROTOCOL_TCP } else { ip::PROTOCOL_UDP };
        let upper_at = if six { 40 } else { 20 };
        let header_len = if tcp { 20 } else { 8 };
        let segment_len = u16::try_from(header_len + data.len()).unwrap();
        let mut packet = vec![0; upper_at + header_len];
        let (source, destination) = addresses.split_at(16);
        if six {
            let header = ipv6::Header {
                traffic_class: 0,
                flow_label: 1,
                payload_len: segment_len,
                next_header: protocol,
                hop_limit: 64,
                source: <[u8; 16]>::try_from(source).unwrap().into(),
                destination: <[u8; 16]>::try_from(destination).unwrap().into(),
            };
            ipv6::emit(&mut packet, &header);
        } else {
            let header = ipv4::Header {
                tos: 0,
                total_len: 20 + segment_len,
                id: 1,
                dont_fragment: false,
                ttl: 64,
                protocol,
                source: <[u8; 4]>::try_from(&source[..4]).unwrap().into(),
                destination: <[u8; 4]>::try_from(&destination[..4]).unwrap().into(),
            };
            ipv4::emit(&mut packet, &header);
        }
        if tcp {
            packet[upper_at..upper_at + 2].copy_from_slice(&[0x12, 0x34]);
            packet[upper_at + 12] = 0x50;
        } else {
            udp::emit(&mut packet[upper_at..], 0x1234, 53, segment_len, 0);
        }
        packet.extend_from_slice(data);
        packet.extend(vec![0xa5; padding]);
        packet
    }

    /// The example of RFC 1071 section 3.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(internet(&bytes), 0x220d);
        assert_eq!((sum(&[]), sum(&[0; 9]), sum(&[0xff; 6])), (0, 0, 0xffff));
    }

    /// The example of RFC 1624 section 4, which the equation of RFC 1141 gets wrong.
    #[test]
    fn updates_the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    /// A UDP checksum that computes to 0 is sent as 0xffff, in both families; TCP's stays 0.
    #[test]
    fn computed_zero_is_sent_as_ones_in_udp() {
        for six in [false, true] {
            for tcp in [false, true] {
                let mut zero_sum = packet(six, tcp, [1; 32], &[0, 0], 0);
                let parsed = ip::parse(&zero_sum).unwrap();
                let upper = zero_sum.len() - if tcp { 22 } else { 10 };
                // Data equal to the checksum without it bring the sum to 0xffff.
                let balance = naive_upper(&zero_sum, &parsed, &zero_sum[upper..]);
                let end = zero_sum.len();
                zero_sum[end - 2..].copy_from_slice(&balance.to_be_bytes());
                assert_eq!(naive_upper(&zero_sum, &parsed, &zero_sum[upper..]), 0);
                let pseudo = naive_pseudo(&zero_sum, &parsed, &zero_sum[upper..]).to_be_bytes();
                let at = upper + checksum_at(&parsed);
                zero_sum[at..at + 2].copy_from_slice(&pseudo);
                assert!(complete_partial(&mut zero_sum, &parsed));
                let expected = if tcp { [0, 0] } else { [0xff, 0xff] };
                assert_eq!(zero_sum[at..at + 2], expected, "six {six}, tcp {tcp}");
            }
        }
    }

    /// A right checksum that happens to equal the pseudo-header's sum is left alone.
    #[test]
    fn right_checksum_that_looks_partial_is_left_alone() {
        for (six, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bytes = packet(six, tcp, [3; 32], &[0, 0], 0);
            let parsed = ip::parse(&bytes).unwrap();
            let upper = parsed.upper_at();
            let pseudo = naive_pseudo(&bytes, &parsed, &bytes[upper..]);
            // Data chosen so that the whole checksum is the pseudo-header's sum.
            let end = bytes.len();
            let data = add(naive_upper(&bytes, &parsed, &bytes[upper..]), !pseudo);
            bytes[end - 2..].copy_from_slice(&data.to_be_bytes());
            assert_eq!(naive_upper(&bytes, &parsed, &bytes[upper..]), pseudo);
            let at = upper + checksum_at(&parsed);
            bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            let before = bytes.clone();
            assert!(!complete_partial(&mut bytes, &parsed));
            assert_eq!(bytes, before);
        }
    }

    /// UDP over IPv4 without a checksum stays without one.
    #[test]
    fn absent_udp_checksum_is_left_alone() {
        let mut bytes = packet(false, false, [9; 32], b"data", 0);
        let parsed = ip::parse(&bytes).unwrap();
        assert!(!complete_partial(&mut bytes, &parsed));
        assert_eq!(bytes[26..28], [0, 0]);
    }

    /// Fragments and protocols without such a checksum are left alone, whatever stands there.
    #[test]
    fn fragments_and_other_protocols_are_left_alone() {
        let mut bytes = packet(false, false, [1; 32], b"data", 0);
        let Ok(ip::Packet::V4(header)) = ip::parse(&bytes) else { panic!("IPv4") };
        let parsed = ip::Packet::V4(header);
        let pseudo = naive_pseudo(&bytes, &parsed, &bytes[20..]).to_be_bytes();
        bytes[26..28].copy_from_slice(&pseudo);
        let first = ip::Packet::V4(ipv4::Ipv4 { more_fragments: true, ..header });
        let last = ip::Packet::V4(ipv4::Ipv4 { fragment_offset: 1, ..header });
        let icmp = ip::Packet::V4(ipv4::Ipv4 { protocol: ip::PROTOCOL_ICMP, ..header });
        for other in [first, last, icmp] {
            assert!(!complete_partial(&mut bytes, &other), "{other:?}");
        }
        assert!(complete_partial(&mut bytes, &parsed), "the test would see a change");
    }

    /// A segment that ends inside its TCP header is left alone, also where the field would lie
    /// behind its end.
    #[test]
    fn short_tcp_segments_are_left_alone() {
        for len in 0..20 {
            let mut bytes = packet(false, true, [1; 32], &[], 0);
            let Ok(ip::Packet::V4(header)) = ip::parse(&bytes) else { panic!("IPv4") };
            let parsed = ip::Packet::V4(ipv4::Ipv4 { total_len: 20 + len, ..header });
            let pseudo = naive_pseudo(&bytes, &parsed, &bytes[20..]);
            let pseudo = add(add(pseudo, !20), u16::try_from(len).unwrap()).to_be_bytes();
            bytes[36..38].copy_from_slice(&pseudo);
            assert!(!complete_partial(&mut bytes, &parsed), "{len}");
        }
    }

    /// A packet of `protocol` with its checksum at `field_at` of `segment`, sent from where NAT has
    /// put it; the checksum is that of the addresses before.
    fn translated(six: bool, protocol: u8, field_at: usize, segment: &[u8]) -> Vec<u8> {
        let mut packet = testing::packet(six, protocol, segment);
        let at = packet.len() - segment.len() + field_at;
        let sum = testing::naive_checksum(&testing::with_pseudo_header(&packet, protocol, segment));
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        if six {
            packet[8..40].fill(0x3e);
        } else {
            packet[12..20].copy_from_slice(&[203, 0, 113, 5, 198, 51, 100, 7]);
            testing::repair(&mut packet);
        }
        packet
    }

    /// Makes the checksum follow from the addresses before NAT.
    fn follow(packet: &mut [u8]) -> bool {
        let parsed = testing::parse(packet);
        match parsed {
            ip::Packet::V4(_) => follow_addresses(
                packet,
                &parsed,
                testing::SOURCE_V4.into(),
                testing::DESTINATION_V4.into(),
            ),
            ip::Packet::V6(_) => follow_addresses(
                packet,
                &parsed,
                testing::SOURCE_V6.into(),
                testing::DESTINATION_V6.into(),
            ),
        }
    }

    const SEGMENT: [u8; 24] =
        [0x12, 0x34, 0, 80, 0, 24, 0, 0, 1, 2, 3, 4, 0x50, 6, 7, 8, 0, 0, 11, 12, 13, 14, 15, 16];
    const WITH_CHECKSUM: [(u8, usize); 4] = [(6, 16), (17, 6), (33, 6), (136, 6)];

    /// U08: what was computed over the addresses before NAT is right over those behind it.
    #[test]
    fn checksum_follows_addresses() {
        for six in [false, true] {
            for (protocol, field_at) in WITH_CHECKSUM {
                let mut segment = SEGMENT;
                segment[field_at..field_at + 2].fill(0);
                let mut packet = translated(six, protocol, field_at, &segment);
                let at = packet.len() - SEGMENT.len();
                let wrong = packet.clone();
                let sum = |packet: &[u8]| {
                    let bytes = testing::with_pseudo_header(packet, protocol, &packet[at..]);
                    testing::naive_checksum(&bytes)
                };
                assert_ne!(sum(&wrong), 0);
                assert!(follow(&mut packet));
                assert_eq!(sum(&packet), 0, "{six} {protocol}");
                packet[at + field_at..][..2].copy_from_slice(&wrong[at + field_at..][..2]);
                assert_eq!(packet, wrong, "only the field changes");
            }
        }
    }

    /// U08: the checksum of ICMPv6 covers the addresses, too (RFC 4443 section 2.3).
    #[test]
    fn icmpv6_checksum_follows_addresses() {
        let mut segment = SEGMENT;
        segment[2..4].fill(0);
        let mut packet = translated(true, 58, 2, &segment);
        assert!(follow(&mut packet));
        let bytes = testing::with_pseudo_header(&packet, 58, &packet[40..]);
        assert_eq!(testing::naive_checksum(&bytes), 0);
        let unchanged = translated(false, 58, 2, &segment);
        assert!(!follow(&mut unchanged.clone()), "over IPv4 it is anything");
    }

    /// U08: a UDP datagram without a checksum stays without one.
    #[test]
    fn absent_udp_checksum_follows_nothing() {
        let mut packet = translated(false, 17, 6, &SEGMENT);
        packet[26..28].fill(0);
        let before = packet.clone();
        assert!(!follow(&mut packet));
        assert_eq!(packet, before);
    }

    /// U08: a checksum that becomes 0 is written as ones in UDP and UDP-Lite, and as 0 in TCP.
    #[test]
    fn followed_zero_is_sent_as_ones() {
        for six in [false, true] {
            for (protocol, field_at, expected) in
                [(17, 6, [0xff; 2]), (136, 6, [0xff; 2]), (6, 16, [0; 2])]
            {
                let mut packet = translated(six, protocol, field_at, &SEGMENT);
                let at = packet.len() - SEGMENT.len();
                // The last word takes up what the checksum would be.
                packet[at + field_at..][..2].fill(0);
                let bytes = testing::with_pseudo_header(&packet, protocol, &packet[at..]);
                let old = u16::from_be_bytes([SEGMENT[22], SEGMENT[23]]);
                let balance = add(testing::naive_checksum(&bytes), old).to_be_bytes();
                let mut segment = packet[at..].to_vec();
                segment[22..].copy_from_slice(&balance);
                let mut packet = translated(six, protocol, field_at, &segment);
                assert!(follow(&mut packet));
                assert_eq!(packet[at + field_at..][..2], expected, "{six} {protocol}");
            }
        }
    }

    /// Other protocols, later fragments, short segments, and other families are left alone; so is
    /// what no NAT changed.
    #[test]
    fn nothing_else_follows_addresses() {
        let unchanged = |mut packet: Vec<u8>| {
            let before = packet.clone();
            !follow(&mut packet) && packet == before
        };
        for protocol in (0..=255).filter(|protocol| ![6, 17, 33, 136].contains(protocol)) {
            assert!(unchanged(translated(false, protocol, 6, &SEGMENT)), "{protocol}");
        }
        for (protocol, field_at) in WITH_CHECKSUM {
            let mut later = translated(false, protocol, field_at, &SEGMENT);
            later[7] = 1;
            testing::repair(&mut later);
            assert!(unchanged(later));
            let mut short = translated(false, protocol, field_at, &SEGMENT);
            ipv4::set_total_len(&mut short, u16::try_from(20 + field_at + 1).unwrap());
            assert!(unchanged(short));
            assert!(unchanged(testing::v4(protocol, &SEGMENT)), "no NAT");
        }
        let mut packet = translated(true, 6, 16, &SEGMENT);
        let parsed = testing::parse(&packet);
        let (source, destination) = (testing::SOURCE_V4, testing::DESTINATION_V4);
        assert!(!follow_addresses(&mut packet, &parsed, source.into(), destination.into()));
        // Shorter than it was when it was parsed.
        assert!(!follow_addresses(&mut packet[..50], &parsed, source.into(), destination.into()));
    }

    /// Folding keeps the value modulo 65535 at the ends of its range and needs no further step.
    #[test]
    fn fold_reaches_16_bits() {
        let ends = [0, 1, 0xffff, 0x1_0000, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        for sum in ends.into_iter().chain((0..64).map(|bit| u64::MAX << bit)) {
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:x}");
            assert_eq!(fold(sum) == 0, sum == 0, "{sum:x}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// The quick check of a header says what the sum says, for right and wrong ones.
        #[test]
        fn holds_is_the_sum(header: [u8; 20], wrong in 0..3_u16) {
            let mut header = header;
            header[10..12].fill(0);
            let sum = internet(&header).wrapping_add(wrong);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(holds(&header), super::sum(&header) == 0xffff);
            prop_assert!(holds(&header) || wrong != 0);
        }

        /// The fast sum is the definition's, at every length and alignment.
        #[test]
        fn sum_equals_definition(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            start in 0..8_usize,
        ) {
            let bytes = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(sum(bytes), naive_sum(bytes));
        }

        /// Sums of pieces add up.
        #[test]
        fn sums_of_pieces_add_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0..100_usize,
        ) {
            let (head, tail) = bytes.split_at((at * 2).min(bytes.len() / 2 * 2));
            prop_assert_eq!(add(sum(head), sum(tail)), naive_sum(&bytes));
        }

        /// An incremental update is the checksum computed anew.
        #[test]
        fn update_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..60),
            at in 0..30_usize,
            new: [u8; 2],
        ) {
            let at = (at * 2).min(bytes.len() / 2 * 2 - 2);
            let before = internet(&bytes);
            let old = [bytes[at], bytes[at + 1]];
            prop_assume!(bytes.iter().any(|&octet| octet != 0));
            bytes[at..at + 2].copy_from_slice(&new);
            prop_assume!(bytes.iter().any(|&octet| octet != 0));
            let updated = update(before, u16::from_be_bytes(old), u16::from_be_bytes(new));
            prop_assert_eq!(updated, !naive_sum(&bytes));
        }

        /// A partial checksum is completed to the one a sender without offload computes; done
        /// again, or on a packet that was whole, nothing changes.
        #[test]
        fn completes_to_the_software_checksum(
            (six, tcp, addresses) in any::<(bool, bool, [u8; 32])>(),
            data in proptest::collection::vec(any::<u8>(), 0..80),
            padding in 0..6_usize,
        ) {
            let mut bytes = packet(six, tcp, addresses, &data, padding);
            let parsed = ip::parse(&bytes).unwrap();
            let segment = parsed.upper_at()..parsed.total_len();
            let whole = match naive_upper(&bytes, &parsed, &bytes[segment.clone()]) {
                0 if !tcp => 0xffff,
                sum => sum,
            };
            let partial = naive_pseudo(&bytes, &parsed, &bytes[segment.clone()]);
            let at = segment.start + checksum_at(&parsed);
            let mut expected = bytes.clone();
            expected[at..at + 2].copy_from_slice(&whole.to_be_bytes());
            bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
            prop_assert_eq!(complete_partial(&mut bytes, &parsed), whole != partial);
            prop_assert_eq!(&bytes, &expected);
            prop_assert!(!complete_partial(&mut bytes, &parsed));
            prop_assert_eq!(&bytes, &expected);
        }

        /// No bytes make it panic, even bytes that are not those that were parsed.
        #[test]
        fn complete_partial_never_panics(
            (six, tcp, addresses) in any::<(bool, bool, [u8; 32])>(),
            data in proptest::collection::vec(any::<u8>(), 0..40),
            (at, octet) in any::<(proptest::sample::Index, u8)>(),
            len: proptest::sample::Index,
            mut noise in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = packet(six, tcp, addresses, &data, 0);
            let parsed = ip::parse(&bytes).unwrap();
            complete_partial(&mut noise, &parsed);
            let at = at.index(bytes.len());
            bytes[at] = octet;
            let len = len.index(bytes.len() + 1);
            complete_partial(&mut bytes[..len], &parsed);
            if let Ok(parsed) = ip::parse(&bytes[..len]) {
                complete_partial(&mut bytes[..len], &parsed);
            }
        }
    }
}
