//! ICMP errors of both families: written, and read for the packet they enclose.

use core::net::IpAddr;
use core::net::Ipv4Addr;
use core::net::Ipv6Addr;

use crate::checksum;
use crate::extension;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// What an error written by [`error`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The packet does not fit the next link (RFC 1191 section 4: 3/4; RFC 4443 section 3.2: 2/0).
    TooBig {
        /// Octets of the largest packet that fits.
        mtu: u32,
    },
    /// Policy forbids the packet (RFC 1812 section 5.2.7.1: 3/13; RFC 4443 section 3.1: 1/1).
    Prohibited,
    /// The peer for the destination is not reachable (3/1; 1/3).
    Unreachable,
    /// The time to live or hop limit ended (11/0; 3/0).
    TimeExceeded,
}

/// What an error that arrived reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The packet did not fit a link.
    TooBig {
        /// Octets of the largest packet that would have; 0 when an old router does not say.
        mtu: u32,
    },
    /// The packet was not delivered, for another reason (3; 1).
    Unreachable,
    /// It came too fast (4): not to be heeded (RFC 6633 section 3).
    SourceQuench,
    /// Its time to live or hop limit ended, or that of its fragments (11; 3).
    TimeExceeded,
    /// Its header was not understood (12; 4).
    ParameterProblem,
}

/// The packet that an ICMP error encloses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enclosed {
    /// What is reported of it.
    pub reported: Reported,
    /// Type and code of the error.
    pub kind: [u8; 2],
    /// Octets that it had, as its header says.
    pub len: usize,
    /// Offset of its IP header in the packet around the error.
    pub at: usize,
    /// Offset one past what is quoted of it.
    pub end: usize,
    /// Its header, with lengths cut down to what is quoted; its checksum is not checked.
    pub packet: ip::Packet,
}

/// Writes into `out` a whole IP packet from `source` that tells the sender of `offending`, an IP
/// packet, of its fate; answers its length. As much of `offending` is quoted as 576 octets in IPv4
/// (RFC 1812 section 4.3.2.3), 1280 in IPv6 (RFC 4443 section 2.4(c)), and `out` allow.
///
/// None when there must be no error (RFC 1122 section 3.2.2, RFC 4443 section 2.4(e)): about
/// another ICMP error, or what may be one; about an IPv4 fragment that is not the first; about a
/// packet to a group, but for IPv6 packets too big; about a packet whose source is not one host.
/// None too when `offending` is malformed, `source` is of the other family, or `out` has no room
/// for the headers and 8 octets of what is behind the offending packet's.
#[must_use]
pub fn error(out: &mut [u8], kind: ErrorKind, source: IpAddr, offending: &[u8]) -> Option<usize> {
    let parsed = ip::parse(offending).ok()?;
    let offending = offending.get(..parsed.total_len())?;
    match (source, &parsed) {
        (IpAddr::V4(source), ip::Packet::V4(header)) => {
            error_v4(out, kind, source, offending, header)
        }
        (IpAddr::V6(source), ip::Packet::V6(header)) => {
            error_v6(out, kind, source, offending, header)
        }
        _ => None,
    }
}

/// Octets of type, code, checksum, and the word behind them.
const HEADER_LEN: usize = 8;
/// Octets an IPv4 error has at most (RFC 1812 section 4.3.2.3).
const TOTAL_LEN_MAX_V4: usize = 576;
/// Octets an IPv6 error has at most: the smallest MTU of any link (RFC 4443 section 2.4(c)).
const TOTAL_LEN_MAX_V6: usize = 1280;
/// Octets behind the IP headers that an error quotes at least, if there are as many.
const QUOTED_MIN: usize = 8;
/// Time to live and hop limit of the errors (RFC 1700).
const TTL: u8 = 64;
/// Internetwork control: RFC 1812 section 4.3.2.5 asks for precedence 6 or 7.
const TOS_V4: u8 = 0xc0;

const UNREACHABLE_V4: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT_V4: u8 = 5;
const TIME_EXCEEDED_V4: u8 = 11;
const PARAMETER_PROBLEM_V4: u8 = 12;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;
const TIME_EXCEEDED_V6: u8 = 3;
const PARAMETER_PROBLEM_V6: u8 = 4;
/// The first type of ICMPv6 that is no error.
const INFORMATIONAL_V6: u8 = 128;
const REDIRECT_V6: u8 = 137;
/// Code of a type 3 error in IPv4: fragmentation needed and DF set.
const TOO_BIG_CODE_V4: u8 = 4;

fn error_v4(
    out: &mut [u8],
    kind: ErrorKind,
    source: Ipv4Addr,
    offending: &[u8],
    header: &ipv4::Ipv4,
) -> Option<usize> {
    if !may_answer_v4(offending, header) {
        return None;
    }
    let (message_type, code, word) = match kind {
        ErrorKind::TooBig { mtu } => {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            (UNREACHABLE_V4, TOO_BIG_CODE_V4, u32::from(mtu))
        }
        ErrorKind::Prohibited => (UNREACHABLE_V4, 13, 0),
        ErrorKind::Unreachable => (UNREACHABLE_V4, 1, 0),
        ErrorKind::TimeExceeded => (TIME_EXCEEDED_V4, 0, 0),
    };
    let room = out.len().min(TOTAL_LEN_MAX_V4);
    let quoted = quotation(offending, header.header_len, room, ipv4::HEADER_LEN)?;
    let total_len = ipv4::HEADER_LEN + HEADER_LEN + quoted.len();
    let (ip, message) = out[..total_len].split_at_mut(ipv4::HEADER_LEN);
    let outer = ipv4::Header {
        tos: TOS_V4,
        total_len: u16::try_from(total_len).ok()?,
        // With DF the identification is never used (RFC 6864 section 4.1).
        id: 0,
        dont_fragment: true,
        ttl: TTL,
        protocol: ip::PROTOCOL_ICMP,
        source,
        destination: header.source,
    };
    ipv4::emit(ip, &outer);
    write_message(message, [message_type, code], word, quoted, 0);
    Some(total_len)
}

fn error_v6(
    out: &mut [u8],
    kind: ErrorKind,
    source: Ipv6Addr,
    offending: &[u8],
    header: &ipv6::Ipv6,
) -> Option<usize> {
    if !may_answer_v6(offending, header, kind) {
        return None;
    }
    let (message_type, code, word) = match kind {
        ErrorKind::TooBig { mtu } => (TOO_BIG_V6, 0, mtu),
        ErrorKind::Prohibited => (UNREACHABLE_V6, 1, 0),
        ErrorKind::Unreachable => (UNREACHABLE_V6, 3, 0),
        ErrorKind::TimeExceeded => (TIME_EXCEEDED_V6, 0, 0),
    };
    let room = out.len().min(TOTAL_LEN_MAX_V6);
    let quoted = quotation(offending, ipv6::HEADER_LEN, room, ipv6::HEADER_LEN)?;
    let message_len = u16::try_from(HEADER_LEN + quoted.len()).ok()?;
    let total_len = ipv6::HEADER_LEN + usize::from(message_len);
    let (ip, message) = out[..total_len].split_at_mut(ipv6::HEADER_LEN);
    let outer = ipv6::Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: message_len,
        next_header: ip::PROTOCOL_ICMPV6,
        hop_limit: TTL,
        source,
        destination: header.source,
    };
    ipv6::emit(ip, &outer);
    let len = u32::from(message_len);
    let pseudo = checksum::pseudo_header_v6(source, header.source, ip::PROTOCOL_ICMPV6, len);
    write_message(message, [message_type, code], word, quoted, pseudo);
    Some(total_len)
}

/// As much of `offending` as `room` allows behind an IP header and an ICMP header; none when not
/// even [`QUOTED_MIN`] octets behind its own header are.
fn quotation(
    offending: &[u8],
    offending_header_len: usize,
    room: usize,
    header_len: usize,
) -> Option<&[u8]> {
    let len = room.checked_sub(header_len + HEADER_LEN)?.min(offending.len());
    let enough = len >= offending.len().min(offending_header_len + QUOTED_MIN);
    enough.then(|| &offending[..len])
}

/// Writes a message that fills `out`; `pseudo` is the sum of its pseudo-header.
fn write_message(out: &mut [u8], kind: [u8; 2], word: u32, quoted: &[u8], pseudo: u16) {
    out[..2].copy_from_slice(&kind);
    out[2..4].fill(0);
    out[4..HEADER_LEN].copy_from_slice(&word.to_be_bytes());
    out[HEADER_LEN..].copy_from_slice(quoted);
    let sum = !checksum::add(checksum::sum(out), pseudo);
    out[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1122 section 3.2.2 and RFC 1812 section 4.3.2.7. Broadcasts of the link and of a network
/// cannot be told here.
fn may_answer_v4(offending: &[u8], header: &ipv4::Ipv4) -> bool {
    let source = header.source;
    let one_host =
        source.octets()[0] != 0 && !source.is_loopback() && source.octets()[0] < FIRST_GROUP_V4;
    let to_group = header.destination.is_multicast() || header.destination.is_broadcast();
    let error = header.protocol == ip::PROTOCOL_ICMP
        && offending.get(header.header_len).is_none_or(|&kind| is_error_type_v4(kind));
    one_host && !to_group && header.fragment_offset == 0 && !error
}

/// The first octet of groups; those above are reserved, and the limited broadcast.
const FIRST_GROUP_V4: u8 = 224;

/// RFC 4443 section 2.4(e).
fn may_answer_v6(offending: &[u8], header: &ipv6::Ipv6, kind: ErrorKind) -> bool {
    let source = header.source;
    let one_host = !source.is_unspecified() && !source.is_loopback() && !source.is_multicast();
    let to_group = header.destination.is_multicast() && !matches!(kind, ErrorKind::TooBig { .. });
    let error = match extension::next_layer(offending, &ip::Packet::V6(*header)) {
        (ip::PROTOCOL_ICMPV6, Some(at)) => {
            offending.get(at).is_none_or(|&kind| is_error_type_v6(kind))
        }
        (ip::PROTOCOL_ICMPV6, None) => true,
        // Whatever could not be followed may hide one.
        (protocol, None) => extension::is_extension(protocol),
        (_, Some(_)) => false,
    };
    one_host && !to_group && !error
}

/// The packet that `packet`, which was parsed as `parsed`, encloses, if it is an ICMP error with a
/// right checksum: destination unreachable, packet too big, source quench, time exceeded, or
/// parameter problem. None when it encloses an ICMP error: there are no errors about errors
/// (RFC 1122 section 3.2.2, RFC 4443 section 2.4(e)).
#[must_use]
pub fn enclosed(packet: &[u8], parsed: &ip::Packet) -> Option<Enclosed> {
    let packet = packet.get(..parsed.total_len())?;
    let at = match parsed {
        ip::Packet::V4(header) => (header.protocol == ip::PROTOCOL_ICMP && !header.is_fragment())
            .then_some(header.header_len)?,
        ip::Packet::V6(header) => {
            let chain = extension::walk(packet, header).ok()?;
            let whole = chain.fragment.is_none_or(|fragment| fragment.is_whole());
            let here = whole && !chain.is_source_routed;
            (chain.protocol == ip::PROTOCOL_ICMPV6 && here).then_some(chain.upper_at)?
        }
    };
    let message = packet.get(at..)?;
    let (header, quoted) = message.split_first_chunk::<HEADER_LEN>()?;
    let reported = reported(parsed, header)?;
    if !has_right_checksum(parsed, message) {
        return None;
    }
    let packet = match parsed {
        ip::Packet::V4(_) => ip::Packet::V4(ipv4::parse_quoted(quoted)?),
        ip::Packet::V6(_) => ip::Packet::V6(ipv6::parse_quoted(quoted)?),
    };
    if is_error(quoted, &packet) {
        return None;
    }
    let word = |at: usize| usize::from(u16::from_be_bytes([quoted[at], quoted[at + 1]]));
    let len = match packet {
        ip::Packet::V4(_) => word(2),
        ip::Packet::V6(_) => ipv6::HEADER_LEN + word(4),
    };
    let (at, end) = (at + HEADER_LEN, at + HEADER_LEN + packet.total_len());
    Some(Enclosed { reported, kind: [header[0], header[1]], len, at, end, packet })
}

/// True when `packet` shows that it is an ICMP error or a redirect.
fn is_error(packet: &[u8], parsed: &ip::Packet) -> bool {
    let (protocol, Some(at)) = extension::next_layer(packet, parsed) else {
        return false;
    };
    let kind = packet.get(at).copied();
    match (parsed, protocol) {
        (ip::Packet::V4(_), ip::PROTOCOL_ICMP) => kind.is_some_and(is_error_type_v4),
        (ip::Packet::V6(_), ip::PROTOCOL_ICMPV6) => kind.is_some_and(is_error_type_v6),
        _ => false,
    }
}

fn is_error_type_v4(message_type: u8) -> bool {
    matches!(
        message_type,
        UNREACHABLE_V4 | SOURCE_QUENCH | REDIRECT_V4 | TIME_EXCEEDED_V4 | PARAMETER_PROBLEM_V4
    )
}

fn is_error_type_v6(message_type: u8) -> bool {
    message_type < INFORMATIONAL_V6 || message_type == REDIRECT_V6
}

fn reported(parsed: &ip::Packet, header: &[u8; HEADER_LEN]) -> Option<Reported> {
    let [message_type, code, _, _, m0, m1, m2, m3] = *header;
    match (parsed, message_type) {
        (ip::Packet::V4(_), UNREACHABLE_V4) if code == TOO_BIG_CODE_V4 => {
            // RFC 1191 section 4: the low half of the word.
            Some(Reported::TooBig { mtu: u32::from(u16::from_be_bytes([m2, m3])) })
        }
        (ip::Packet::V4(_), UNREACHABLE_V4) | (ip::Packet::V6(_), UNREACHABLE_V6) => {
            Some(Reported::Unreachable)
        }
        (ip::Packet::V4(_), SOURCE_QUENCH) => Some(Reported::SourceQuench),
        (ip::Packet::V4(_), TIME_EXCEEDED_V4) | (ip::Packet::V6(_), TIME_EXCEEDED_V6) => {
            Some(Reported::TimeExceeded)
        }
        (ip::Packet::V4(_), PARAMETER_PROBLEM_V4) | (ip::Packet::V6(_), PARAMETER_PROBLEM_V6) => {
            Some(Reported::ParameterProblem)
        }
        (ip::Packet::V6(_), TOO_BIG_V6) => {
            Some(Reported::TooBig { mtu: u32::from_be_bytes([m0, m1, m2, m3]) })
        }
        _ => None,
    }
}

fn has_right_checksum(parsed: &ip::Packet, message: &[u8]) -> bool {
    let pseudo = match parsed {
        ip::Packet::V4(_) => 0,
        ip::Packet::V6(ip) => {
            let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
            checksum::pseudo_header_v6(ip.source, ip.destination, ip::PROTOCOL_ICMPV6, len)
        }
    };
    checksum::add(checksum::sum(message), pseudo) == 0xffff
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::testing::DESTINATION_V4;
    use crate::testing::DESTINATION_V6;
    use crate::testing::OPTIONS;

    const TOO_BIG: ErrorKind = ErrorKind::TooBig { mtu: 1360 };
    const KINDS: [ErrorKind; 4] =
        [TOO_BIG, ErrorKind::Prohibited, ErrorKind::Unreachable, ErrorKind::TimeExceeded];

    /// The packets of the goldens below: 1420 octets of UDP without a checksum over IPv4.
    fn offending_v4() -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0x05, 0x8c, 0, 7, 0x40, 0, 9, 17, 0x58, 0x58, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1,
            0, 2, 0x05, 0x78, 0, 0,
        ];
        packet.extend((0..=255).cycle().take(1280));
        packet.resize(1420, 0);
        packet
    }

    /// 1420 octets of UDP over IPv6.
    fn offending_v6() -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0x05, 0x64, 17, 9];
        packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend_from_slice(&[0, 1, 0, 2, 0x05, 0x64, 0x11, 0x11]);
        packet.extend((0..=255).cycle().take(1280));
        packet.resize(1420, 0);
        packet
    }

    fn written(kind: ErrorKind, source: IpAddr, offending: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0xa5; 1500];
        let len = error(&mut out, kind, source, offending)?;
        assert_eq!(out[len..], [0xa5; 1500][len..]);
        Some(out[..len].to_vec())
    }

    fn answer(kind: ErrorKind, offending: &[u8]) -> Option<Vec<u8>> {
        let six = offending[0] >> 4 == 6;
        let source = if six { IpAddr::V6(DESTINATION_V6) } else { IpAddr::V4(DESTINATION_V4) };
        written(kind, source, offending)
    }

    /// P12, P23: IPv4 errors octet for octet, as scapy builds them: fragmentation needed with the
    /// next MTU, administratively prohibited, host unreachable, time exceeded. 576 octets in all.
    #[test]
    fn ipv4_errors_equal_scapy() {
        let source = IpAddr::from([192, 0, 2, 1]);
        let ip =
            [0x45, 0xc0, 0x02, 0x40, 0, 0, 0x40, 0, 0x40, 1, 0x6b, 0xfb, 192, 0, 2, 1, 10, 0, 0, 1];
        let offending = offending_v4();
        for (kind, message) in KINDS.into_iter().zip([
            [3, 4, 0x65, 0xa1, 0, 0, 0x05, 0x50],
            [3, 13, 0x6a, 0xe8, 0, 0, 0, 0],
            [3, 1, 0x6a, 0xf4, 0, 0, 0, 0],
            [11, 0, 0x62, 0xf5, 0, 0, 0, 0],
        ]) {
            let found = written(kind, source, &offending).unwrap();
            assert_eq!(found.len(), 576);
            assert_eq!(found[..20], ip);
            assert_eq!(found[20..28], message, "{kind:?}");
            assert_eq!(found[28..], offending[..548]);
        }
    }

    /// P12, P23: IPv6 errors octet for octet, as scapy builds them: packet too big, prohibited,
    /// address unreachable, time exceeded. 1280 octets in all.
    #[test]
    fn ipv6_errors_equal_scapy() {
        let source = IpAddr::from(testing::SOURCE_V6);
        let offending = offending_v6();
        for (kind, message) in KINDS.into_iter().zip([
            [2, 0, 0xe5, 0xb2, 0, 0, 0x05, 0x50],
            [1, 1, 0xec, 0x01, 0, 0, 0, 0],
            [1, 3, 0xeb, 0xff, 0, 0, 0, 0],
            [3, 0, 0xea, 0x02, 0, 0, 0, 0],
        ]) {
            let found = written(kind, source, &offending).unwrap();
            assert_eq!(found.len(), 1280);
            assert_eq!(found[..8], [0x60, 0, 0, 0, 0x04, 0xd8, 58, 64]);
            assert_eq!(found[8..24], testing::SOURCE_V6.octets());
            assert_eq!(found[24..40], offending[8..24]);
            assert_eq!(found[40..48], message, "{kind:?}");
            assert_eq!(found[48..], offending[..1232]);
        }
    }

    /// An MTU above 65535 is the largest that IPv4 can say.
    #[test]
    fn ipv4_error_says_the_largest_mtu() {
        let found = answer(ErrorKind::TooBig { mtu: 0x1_0000 }, &testing::v4(17, &[0; 8])).unwrap();
        assert_eq!(found[24..28], [0, 0, 0xff, 0xff]);
    }

    /// Small packets are quoted whole, without link padding; large ones as the room allows, but
    /// never with less than 8 octets of what they carry.
    #[test]
    fn error_quotes_what_fits() {
        for six in [false, true] {
            let header = if six { 40 } else { 20 };
            let mut offending = testing::packet(six, 17, &[7; 30]);
            offending.extend_from_slice(&[0x5a; 9]);
            let whole = answer(TOO_BIG, &offending).unwrap();
            assert_eq!(whole[header + 8..], offending[..header + 30]);
            let source = if six { IpAddr::V6(DESTINATION_V6) } else { IpAddr::V4(DESTINATION_V4) };
            for room in 0..header * 2 + 50 {
                let mut out = [0; 200];
                let found = error(&mut out[..room], TOO_BIG, source, &offending);
                let least = header + 8 + header + 8;
                let expected = (room >= least).then(|| room.min(least + 22));
                assert_eq!(found, expected, "{six} {room}");
            }
        }
    }

    /// There is no error about an error, a redirect, or what may be one (RFC 1122 section 3.2.2,
    /// RFC 4443 section 2.4(e)); about other messages there is.
    #[test]
    fn no_error_about_an_error() {
        for kind in 0..=255 {
            let message = [kind, 0, 0, 0, 0, 0, 0, 0];
            let four = answer(TOO_BIG, &testing::v4(1, &message)).is_some();
            assert_eq!(four, ![3, 4, 5, 11, 12].contains(&kind), "{kind}");
            let six = kind >= 128 && kind != 137;
            assert_eq!(answer(TOO_BIG, &testing::v6(58, &message)).is_some(), six, "{kind}");
            let behind = testing::v6_with(&[(0, OPTIONS), (60, OPTIONS)], 58, &message);
            assert_eq!(answer(TOO_BIG, &behind).is_some(), six, "{kind}");
        }
        for hidden in [
            testing::v4(1, &[]),
            testing::v6(58, &[]),
            testing::v6_with(&[(44, testing::LAST)], 58, &[128; 8]),
            testing::v6_with(&[(44, testing::LAST)], 60, &[128; 8]),
            testing::v6_with(&[(60, OPTIONS); 9], 58, &[128; 8]),
        ] {
            assert_eq!(answer(TOO_BIG, &hidden), None, "{hidden:?}");
        }
    }

    /// There is none about an IPv4 fragment but the first; IPv6 has no such rule.
    #[test]
    fn no_error_about_later_fragments() {
        for (flags_and_offset, expected) in [(0x2000, true), (0x0001, false), (0x2001, false)] {
            let fragment = testing::v4_fragment(flags_and_offset, 17, &[0; 16]);
            assert_eq!(answer(TOO_BIG, &fragment).is_some(), expected, "{flags_and_offset:x}");
        }
        let later = testing::v6_with(&[(44, testing::LAST)], 17, &[0; 16]);
        assert!(answer(TOO_BIG, &later).is_some());
    }

    /// There is none to what is not one host.
    #[test]
    fn no_error_to_groups_and_nobody() {
        for (source, expected) in [
            ([0, 0, 0, 0], false),
            ([0, 1, 2, 3], false),
            ([127, 0, 0, 1], false),
            ([224, 0, 0, 1], false),
            ([239, 255, 255, 255], false),
            ([240, 0, 0, 1], false),
            ([255, 255, 255, 255], false),
            ([1, 0, 0, 1], true),
            ([223, 255, 255, 254], true),
        ] {
            let mut packet = testing::v4(17, &[0; 16]);
            packet[12..16].copy_from_slice(&source);
            testing::repair(&mut packet);
            assert_eq!(answer(TOO_BIG, &packet).is_some(), expected, "{source:?}");
        }
        for (source, expected) in [
            (Ipv6Addr::UNSPECIFIED, false),
            (Ipv6Addr::LOCALHOST, false),
            (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), false),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), true),
        ] {
            let mut packet = testing::v6(17, &[0; 16]);
            packet[8..24].copy_from_slice(&source.octets());
            assert_eq!(answer(TOO_BIG, &packet).is_some(), expected, "{source}");
        }
    }

    /// There is none about packets to groups, but for IPv6 packets that are too big (RFC 4443
    /// section 2.4(e.3)).
    #[test]
    fn no_error_about_packets_to_groups() {
        for group in [[224, 0, 0, 5], [255, 255, 255, 255]] {
            let mut packet = testing::v4(17, &[0; 16]);
            packet[16..20].copy_from_slice(&group);
            testing::repair(&mut packet);
            assert!(KINDS.iter().all(|&kind| answer(kind, &packet).is_none()), "{group:?}");
        }
        let mut packet = testing::v6(17, &[0; 16]);
        packet[24] = 0xff;
        assert_eq!(KINDS.map(|kind| answer(kind, &packet).is_some()), [true, false, false, false]);
    }

    /// There is none about what is malformed, or of the other family than the source.
    #[test]
    fn no_error_about_malformed_packets() {
        let source = IpAddr::V4(DESTINATION_V4);
        assert_eq!(written(TOO_BIG, source, &testing::v6(17, &[0; 16])), None);
        let mut packet = testing::v4(17, &[0; 16]);
        packet[8] ^= 1;
        assert_eq!(written(TOO_BIG, source, &packet), None);
        assert_eq!(written(TOO_BIG, source, &[]), None);
    }

    /// P25: what was written is read back, and the enclosed packet is where it was put.
    #[test]
    fn enclosed_reads_what_error_writes() {
        for offending in [offending_v4(), offending_v6(), testing::v4(6, &[0; 20])] {
            for kind in KINDS {
                let packet = answer(kind, &offending).unwrap();
                let found = enclosed(&packet, &testing::parse(&packet)).unwrap();
                let expected = match kind {
                    ErrorKind::TooBig { mtu } => Reported::TooBig { mtu },
                    ErrorKind::TimeExceeded => Reported::TimeExceeded,
                    _ => Reported::Unreachable,
                };
                assert_eq!((found.reported, found.len), (expected, offending.len()));
                assert_eq!(found.end, packet.len());
                let quoted = &packet[found.at..found.end];
                assert_eq!(quoted, &offending[..quoted.len()]);
                let whole = testing::parse(&offending);
                assert_eq!(found.packet.addresses(), whole.addresses());
                assert_eq!(found.packet.protocol(), whole.protocol());
                assert_eq!(found.packet.total_len(), quoted.len());
            }
        }
    }

    /// What is quoted ends at its own length: RFC 4884 extensions behind it are no part of it.
    #[test]
    fn enclosed_ends_at_its_own_length() {
        let packet = answer(TOO_BIG, &testing::v4(17, &[7; 30])).unwrap();
        let mut longer = packet.clone();
        longer.extend_from_slice(&[0; 8]);
        crate::ipv4::set_total_len(&mut longer, u16::try_from(packet.len() + 8).unwrap());
        let found = enclosed(&longer, &testing::parse(&longer)).unwrap();
        assert_eq!(found.end, packet.len());
    }

    /// Fragments of errors, errors on their way elsewhere, and messages that are no errors enclose
    /// nothing; types are those of RFC 792 and RFC 4443.
    #[test]
    fn enclosed_reads_errors_only() {
        let is_error = |packet: &[u8]| enclosed(packet, &testing::parse(packet)).is_some();
        for six in [false, true] {
            let at = if six { 40 } else { 20 };
            let right = answer(TOO_BIG, &testing::packet(six, 17, &[0; 16])).unwrap();
            for kind in 0..=255 {
                let mut packet = right.clone();
                let old = packet[at];
                packet[at] = kind;
                let sum = u16::from_be_bytes([packet[at + 2], packet[at + 3]]);
                let word = |kind| u16::from_be_bytes([kind, packet[at + 1]]);
                let sum = checksum::update(sum, word(old), word(kind));
                packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
                let errors: &[u8] = if six { &[1, 2, 3, 4] } else { &[3, 4, 11, 12] };
                assert_eq!(is_error(&packet), errors.contains(&kind), "{six} {kind}");
            }
            for cut in 0..8 + at {
                let mut packet = right[..at + cut].to_vec();
                if six {
                    ipv6::set_payload_len(&mut packet, u16::try_from(cut).unwrap());
                } else {
                    ipv4::set_total_len(&mut packet, u16::try_from(at + cut).unwrap());
                }
                assert!(!is_error(&packet), "{six} {cut}");
            }
        }
        // What an error about an error says is not heeded (RFC 1122 section 3.2.2).
        for (six, protocol, kind) in [(false, 1, 3), (false, 1, 5), (true, 58, 1), (true, 58, 137)]
        {
            let echo = [if six { 128 } else { 8 }, 0, 0, 0, 0, 0, 0, 0];
            let about = testing::packet(six, protocol, &echo);
            let mut packet = answer(TOO_BIG, &about).unwrap();
            assert!(is_error(&packet), "{six}");
            let (at, quoted) = if six { (40, 40) } else { (20, 20) };
            packet[at + 8 + quoted] = kind;
            let sum = u16::from_be_bytes([packet[at + 2], packet[at + 3]]);
            let word = |octet| u16::from_be_bytes([octet, 0]);
            let sum = checksum::update(sum, word(echo[0]), word(kind));
            packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
            assert!(!is_error(&packet), "{six} {kind}");
        }
        let mut fragment = answer(TOO_BIG, &testing::v4(17, &[0; 16])).unwrap();
        fragment[6] = 0x20;
        testing::repair(&mut fragment);
        assert!(!is_error(&fragment));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Nothing that offends makes it panic, and what is written is an error about it.
        #[test]
        fn error_never_panics(
            six: bool,
            protocol in prop_oneof![any::<u8>(), Just(0), Just(1), Just(44), Just(58), Just(60)],
            payload in proptest::collection::vec(any::<u8>(), 0..80),
            room in 0..200_usize,
            kind in 0..4_usize,
            any in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let offending = testing::packet(six, protocol, &payload);
            let source = if six { IpAddr::V6(DESTINATION_V6) } else { IpAddr::V4(DESTINATION_V4) };
            let mut out = [0; 200];
            if let Some(len) = error(&mut out[..room], KINDS[kind], source, &offending) {
                let parsed = testing::parse(&out);
                prop_assert_eq!(parsed.total_len(), len);
                prop_assert!(enclosed(&out, &parsed).is_some());
            }
            _ = error(&mut out, KINDS[kind], source, &any);
        }
    }
}
