//! An IP packet of either family behind one type, and protocol numbers.

use core::net::IpAddr;

use crate::Malformed;
use crate::ipv4;
use crate::ipv6;

/// ICMP for IPv4.
pub const PROTOCOL_ICMP: u8 = 1;
/// IPv4 in IP: the next header of ESP in tunnel mode around IPv4.
pub const PROTOCOL_IPIP: u8 = 4;
/// TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// DCCP.
pub const PROTOCOL_DCCP: u8 = 33;
/// IPv6 in IP: the next header of ESP in tunnel mode around IPv6.
pub const PROTOCOL_IPV6: u8 = 41;
/// The IPv6 hop-by-hop options header; in IPv4 it means nothing.
pub const PROTOCOL_HOP_BY_HOP: u8 = 0;
/// The IPv6 routing header.
pub const PROTOCOL_ROUTING: u8 = 43;
/// The IPv6 fragment header.
pub const PROTOCOL_FRAGMENT: u8 = 44;
/// ESP.
pub const PROTOCOL_ESP: u8 = 50;
/// AH.
pub const PROTOCOL_AH: u8 = 51;
/// ICMP for IPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// No next header: in ESP, a dummy packet (RFC 4303 section 2.6).
pub const PROTOCOL_NO_NEXT: u8 = 59;
/// The IPv6 destination options header.
pub const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
/// SCTP.
pub const PROTOCOL_SCTP: u8 = 132;
/// The IPv6 mobility header.
pub const PROTOCOL_MOBILITY: u8 = 135;
/// UDP-Lite.
pub const PROTOCOL_UDP_LITE: u8 = 136;

/// A checked IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// IPv4.
    V4(ipv4::Ipv4),
    /// IPv6.
    V6(ipv6::Ipv6),
}

/// Reads and checks the IP header at the start of `packet`, by its version nibble.
///
/// # Errors
/// [`Malformed::Version`] for a version other than 4 and 6; else as [`ipv4::parse`] and
/// [`ipv6::parse`].
#[inline]
pub fn parse(packet: &[u8]) -> Result<Packet, Malformed> {
    match packet.first().map(|octet| octet >> 4) {
        Some(4) => ipv4::parse(packet).map(Packet::V4),
        Some(6) => ipv6::parse(packet).map(Packet::V6),
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Truncated),
    }
}

/// Source and destination as numbers: a key that is quick to compare and to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// True for IPv4, whose numbers are those of its 32 bits.
    pub is_v4: bool,
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
}

impl Packet {
    /// Source and destination as numbers.
    #[inline]
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        match self {
            Packet::V4(header) => Addresses {
                is_v4: true,
                source: u128::from(header.source.to_bits()),
                destination: u128::from(header.destination.to_bits()),
            },
            Packet::V6(header) => Addresses {
                is_v4: false,
                source: header.source.to_bits(),
                destination: header.destination.to_bits(),
            },
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Packet::V4(header) => IpAddr::V4(header.source),
            Packet::V6(header) => IpAddr::V6(header.source),
        }
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Packet::V4(header) => IpAddr::V4(header.destination),
            Packet::V6(header) => IpAddr::V6(header.destination),
        }
    }

    /// Octets of the packet, the header included and link padding excluded.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        match self {
            Packet::V4(header) => header.total_len,
            Packet::V6(header) => ipv6::HEADER_LEN + header.payload_len,
        }
    }

    /// Time to live or hop limit.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        match self {
            Packet::V4(header) => header.ttl,
            Packet::V6(header) => header.hop_limit,
        }
    }

    /// DSCP and ECN: type of service or traffic class.
    #[inline]
    #[must_use]
    pub fn tos(&self) -> u8 {
        match self {
            Packet::V4(header) => header.tos,
            Packet::V6(header) => header.traffic_class,
        }
    }

    /// The 20-bit flow label; 0 in IPv4.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        match self {
            Packet::V4(_) => 0,
            Packet::V6(header) => header.flow_label,
        }
    }

    /// Protocol of what lies at [`upper_at`](Self::upper_at); for IPv6 maybe an extension header.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self {
            Packet::V4(header) => header.protocol,
            Packet::V6(header) => header.next_header,
        }
    }

    /// Offset of what follows the header: behind the options of IPv4, the fixed header of IPv6.
    /// Never above [`total_len`](Self::total_len).
    #[inline]
    #[must_use]
    pub fn upper_at(&self) -> usize {
        match self {
            Packet::V4(header) => header.header_len,
            Packet::V6(_) => ipv6::HEADER_LEN,
        }
    }
}

/// Decrements time to live or hop limit of `packet`, which was parsed as `parsed`.
///
/// # Panics
/// When it is 0 or `packet` is shorter than a header: look at [`Packet::ttl`] first.
#[inline]
pub fn decrement_ttl(packet: &mut [u8], parsed: &Packet) {
    match parsed {
        Packet::V4(_) => ipv4::decrement_ttl(packet),
        Packet::V6(_) => ipv6::decrement_hop_limit(packet),
    }
}

/// Sets DSCP and ECN of `packet`, which was parsed as `parsed`.
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_tos(packet: &mut [u8], parsed: &Packet, tos: u8) {
    match parsed {
        Packet::V4(_) => ipv4::set_tos(packet, tos),
        Packet::V6(_) => ipv6::set_traffic_class(packet, tos),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn v4() -> [u8; 30] {
        let mut packet = [0; 30];
        let header = ipv4::Header {
            tos: 0x2e,
            total_len: 28,
            id: 7,
            dont_fragment: false,
            ttl: 9,
            protocol: PROTOCOL_UDP,
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
        };
        ipv4::emit(&mut packet, &header);
        packet
    }

    fn v6() -> [u8; 50] {
        let mut packet = [0; 50];
        let header = ipv6::Header {
            traffic_class: 0x2e,
            flow_label: 0,
            payload_len: 8,
            next_header: PROTOCOL_TCP,
            hop_limit: 9,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::UNSPECIFIED,
        };
        ipv6::emit(&mut packet, &header);
        packet
    }

    /// Both families answer the same questions.
    #[test]
    fn deconstruct() {
        let packet = parse(&v4()).unwrap();
        assert_eq!(packet.source(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(packet.destination(), IpAddr::from([10, 0, 0, 2]));
        assert_eq!((packet.total_len(), packet.upper_at()), (28, 20));
        assert_eq!((packet.ttl(), packet.tos(), packet.protocol()), (9, 0x2e, PROTOCOL_UDP));
        let packet = parse(&v6()).unwrap();
        assert_eq!(packet.source(), IpAddr::from(Ipv6Addr::LOCALHOST));
        assert_eq!(packet.destination(), IpAddr::from(Ipv6Addr::UNSPECIFIED));
        assert_eq!((packet.total_len(), packet.upper_at()), (48, 40));
        assert_eq!((packet.ttl(), packet.tos(), packet.protocol()), (9, 0x2e, PROTOCOL_TCP));
    }

    /// Nothing, and versions nobody speaks, are refused under their names.
    #[test]
    fn parse_refuses_other_versions() {
        assert_eq!(parse(&[]), Err(Malformed::Truncated));
        for version in (0..16).filter(|version| ![4, 6].contains(version)) {
            let mut packet = v6();
            packet[0] = version << 4;
            assert_eq!(parse(&packet), Err(Malformed::Version), "{version}");
        }
        assert_eq!(parse(&[0x45]), Err(Malformed::Truncated));
        assert_eq!(parse(&[0x60]), Err(Malformed::Truncated));
    }

    /// Changes go to the family's own field and leave a packet that still parses.
    #[test]
    fn changes_follow_the_family() {
        for packet in [&mut v4()[..], &mut v6()[..]] {
            let before = parse(packet).unwrap();
            decrement_ttl(packet, &before);
            set_tos(packet, &before, 0xb9);
            let after = parse(packet).unwrap();
            assert_eq!((after.ttl(), after.tos()), (8, 0xb9));
            assert_eq!((after.source(), after.protocol()), (before.source(), before.protocol()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// No bytes make the parser panic, and its offsets lie inside the packet, in order.
        #[test]
        fn parse_never_panics(
            mut packet in proptest::collection::vec(any::<u8>(), 0..100),
            six: bool,
        ) {
            if let Some(first) = packet.first_mut() {
                *first = *first & 0x0f | if six { 0x60 } else { 0x40 };
            }
            if let Ok(parsed) = parse(&packet) {
                prop_assert!(parsed.upper_at() <= parsed.total_len());
                prop_assert!(parsed.total_len() <= packet.len());
            }
        }
    }
}
