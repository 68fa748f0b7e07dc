//! What policy can see of a packet (RFC 4301 section 4.4.1.1): addresses, next layer protocol, and
//! the field of that protocol which selectors name.
//!
//! In IPv6 the next layer protocol is what follows hop-by-hop options, routing, fragment, and
//! destination options headers; ESP and AH are next layer protocols themselves, as the RFC says.
//! What a packet does not show is [`Upper::Opaque`], never a guess.

use crate::extension;
use crate::ip;

/// What policy can see of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source and destination address.
    pub addresses: ip::Addresses,
    /// Next layer protocol. For a fragment that is not the first, what its headers announce, which
    /// in IPv6 may be an extension header; for IPv6 headers that cannot be followed, the number of
    /// the first such header.
    pub protocol: u8,
    /// The field of that protocol which selectors name.
    pub upper: Upper,
}

/// The field of the next layer protocol that selectors name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upper {
    /// Ports of TCP, UDP, SCTP, DCCP, and UDP-Lite.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// Type * 256 + code of ICMP and ICMPv6.
    Icmp(u16),
    /// Message type of the IPv6 mobility header (RFC 6275 section 6.1.1).
    Mobility(u8),
    /// The protocol has no such field; or the packet is a fragment that begins inside the header of
    /// TCP, so that policies which admit other fragments refuse it.
    None,
    /// The protocol has one, but the packet does not show it: it is a fragment and not the first,
    /// it ends before, or its extension headers cannot be followed.
    Opaque,
}

impl Flow {
    /// What policy can see of `packet`, which was parsed as `parsed`.
    #[inline]
    #[must_use]
    pub fn of(packet: &[u8], parsed: &ip::Packet) -> Flow {
        let packet = packet.get(..parsed.total_len()).unwrap_or(packet);
        let (protocol, shown_at) = extension::next_layer(packet, parsed);
        let upper = match shown_at {
            Some(at) => Upper::of(protocol, packet.get(at..).unwrap_or_default()),
            None => {
                let six = matches!(parsed, ip::Packet::V6(_));
                let hidden = six && extension::is_extension(protocol);
                let is_opaque = hidden || Upper::is_in(protocol) && !overlaps(parsed, protocol);
                if is_opaque { Upper::Opaque } else { Upper::None }
            }
        };
        Flow { addresses: parsed.addresses(), protocol, upper }
    }

    /// The flow of an answer: addresses and ports exchanged, all else the same.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Flow {
        let ip::Addresses { is_v4, source, destination } = self.addresses;
        let upper = match self.upper {
            Upper::Ports { source, destination } => {
                Upper::Ports { source: destination, destination: source }
            }
            other => other,
        };
        let addresses = ip::Addresses { is_v4, source: destination, destination: source };
        Flow { addresses, upper, ..self }
    }
}

/// True for a later fragment of IPv4 whose octets would replace flags of the TCP header: the least
/// offset that RFC 4301 section 7.2 asks for is that of RFC 1858 section 3.2.2.
#[cold]
fn overlaps(parsed: &ip::Packet, protocol: u8) -> bool {
    let is_second = matches!(parsed, ip::Packet::V4(header) if header.fragment_offset == 1);
    is_second && protocol == ip::PROTOCOL_TCP
}

impl Upper {
    /// The field as `segment`, which starts with the header of `protocol`, shows it.
    #[inline]
    fn of(protocol: u8, segment: &[u8]) -> Upper {
        match (protocol, segment) {
            (
                ip::PROTOCOL_TCP
                | ip::PROTOCOL_UDP
                | ip::PROTOCOL_SCTP
                | ip::PROTOCOL_DCCP
                | ip::PROTOCOL_UDP_LITE,
                &[s0, s1, d0, d1, ..],
            ) => Upper::Ports {
                source: u16::from_be_bytes([s0, s1]),
                destination: u16::from_be_bytes([d0, d1]),
            },
            (ip::PROTOCOL_ICMP | ip::PROTOCOL_ICMPV6, &[message_type, code, ..]) => {
                Upper::Icmp(u16::from_be_bytes([message_type, code]))
            }
            (ip::PROTOCOL_MOBILITY, &[_, _, message_type, ..]) => Upper::Mobility(message_type),
            _ if Upper::is_in(protocol) => Upper::Opaque,
            _ => Upper::None,
        }
    }

    /// True when `protocol` has a field that selectors name.
    #[inline]
    fn is_in(protocol: u8) -> bool {
        matches!(
            protocol,
            ip::PROTOCOL_TCP
                | ip::PROTOCOL_UDP
                | ip::PROTOCOL_SCTP
                | ip::PROTOCOL_DCCP
                | ip::PROTOCOL_UDP_LITE
                | ip::PROTOCOL_ICMP
                | ip::PROTOCOL_ICMPV6
                | ip::PROTOCOL_MOBILITY
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::testing::FIRST;
    use crate::testing::LAST;
    use crate::testing::OPTIONS;
    use crate::testing::ROUTING;
    use crate::testing::WHOLE;

    const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
    const WITH_FIELDS: [u8; 8] = [1, 6, 17, 33, 58, 132, 135, 136];
    const SEGMENT: [u8; 12] = [0x12, 0x34, 0x56, 0x78, 0, 12, 0, 0, 1, 2, 3, 4];

    fn flow(packet: &[u8]) -> (u8, Upper) {
        let parsed = testing::parse(packet);
        let flow = Flow::of(packet, &parsed);
        assert_eq!(flow.addresses, parsed.addresses());
        (flow.protocol, flow.upper)
    }

    fn ports() -> Upper {
        Upper::Ports { source: 0x1234, destination: 0x5678 }
    }

    /// P05: ports of every protocol that has them are shown, in both families.
    #[test]
    fn ports_are_shown() {
        for six in [false, true] {
            for protocol in WITH_PORTS {
                let packet = testing::packet(six, protocol, &SEGMENT);
                assert_eq!(flow(&packet), (protocol, ports()), "{six}");
            }
        }
    }

    /// P05: behind IPv4 options too.
    #[test]
    fn ports_behind_ipv4_options_are_shown() {
        let packet = testing::v4_with_options(&[0x94, 4, 0, 0], 6, &SEGMENT);
        assert_eq!(flow(&packet), (6, ports()));
    }

    /// P06: ICMP is type * 256 + code; the example is "port unreachable", 3/3.
    #[test]
    fn icmp_is_type_times_256_plus_code() {
        let unreachable = [3, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(flow(&testing::v4(1, &unreachable)), (1, Upper::Icmp(3 * 256 + 3)));
        let echo = [128, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(flow(&testing::v6(58, &echo)), (58, Upper::Icmp(32768)));
    }

    /// P05: the type of a mobility header is its third octet: 5 is a binding update.
    #[test]
    fn mobility_is_the_message_type() {
        let update = [59, 1, 5, 0, 0, 0, 0, 0];
        assert_eq!(flow(&testing::v6(135, &update)), (135, Upper::Mobility(5)));
    }

    /// P05: the next layer is behind all of hop-by-hop options, routing, fragment and destination
    /// options headers.
    #[test]
    fn extension_headers_are_skipped() {
        let all: [(u8, &[u8]); 5] =
            [(0, OPTIONS), (60, OPTIONS), (43, ROUTING), (44, WHOLE), (60, OPTIONS)];
        for count in 0..=5 {
            let packet = testing::v6_with(&all[..count], 17, &SEGMENT);
            assert_eq!(flow(&packet), (17, ports()), "{count}");
        }
    }

    /// P05: AH and ESP are next layer protocols, not headers to skip (RFC 4301 section 4.4.1.1).
    #[test]
    fn ah_and_esp_end_the_walk() {
        for protocol in [50, 51] {
            for packet in [
                testing::v4(protocol, &SEGMENT),
                testing::v6(protocol, &SEGMENT),
                testing::v6_with(&[(0, OPTIONS)], protocol, &SEGMENT),
            ] {
                assert_eq!(flow(&packet), (protocol, Upper::None));
            }
        }
    }

    /// P08: a fragment that is not the first hides the field, and only where there is one; one that
    /// begins 8 octets into TCP is no such fragment, as it would replace flags (RFC 1858).
    #[test]
    fn later_fragments_are_opaque() {
        for protocol in 0..=255 {
            let has_field = WITH_FIELDS.contains(&protocol);
            let expected = if has_field { Upper::Opaque } else { Upper::None };
            for offset in [0x0001, 0x2001, 0x0002, 0x1fff] {
                let packet = testing::v4_fragment(offset, protocol, &SEGMENT);
                let overlaps = protocol == 6 && offset & 0x1fff == 1;
                let expected = if overlaps { Upper::None } else { expected };
                assert_eq!(flow(&packet), (protocol, expected));
            }
            // In IPv6 an extension header behind the fragment header hides the protocol itself.
            let extension = [0, 43, 44, 60].contains(&protocol);
            let expected = if has_field || extension { Upper::Opaque } else { Upper::None };
            let packet = testing::v6_with(&[(0, OPTIONS), (44, LAST)], protocol, &SEGMENT);
            assert_eq!(flow(&packet), (protocol, expected));
        }
    }

    /// P08: the first fragment shows what it has.
    #[test]
    fn first_fragments_show_their_ports() {
        assert_eq!(flow(&testing::v4_fragment(0x2000, 17, &SEGMENT)), (17, ports()));
        let packet = testing::v6_with(&[(44, FIRST), (60, OPTIONS)], 6, &SEGMENT);
        assert_eq!(flow(&packet), (6, ports()));
    }

    /// P08: what a packet is too short to show is opaque, though link padding follows.
    #[test]
    fn cut_fields_are_opaque() {
        for six in [false, true] {
            for (protocol, needed) in
                [(1, 2), (6, 4), (17, 4), (33, 4), (58, 2), (132, 4), (135, 3), (136, 4)]
            {
                for len in 0..=needed {
                    let mut packet = testing::packet(six, protocol, &SEGMENT[..len]);
                    packet.extend_from_slice(&[0xa5; 8]);
                    let (found, upper) = flow(&packet);
                    assert_eq!(found, protocol);
                    assert_eq!(upper == Upper::Opaque, len < needed, "{protocol} {len}");
                }
            }
        }
    }

    /// Protocols without such a field have none; in IPv4 that goes for extension headers' numbers.
    #[test]
    fn other_protocols_have_no_field() {
        for protocol in (0..=255).filter(|protocol| !WITH_FIELDS.contains(protocol)) {
            assert_eq!(flow(&testing::v4(protocol, &SEGMENT)), (protocol, Upper::None));
            if ![0, 43, 44, 60].contains(&protocol) {
                assert_eq!(flow(&testing::v6(protocol, &SEGMENT)), (protocol, Upper::None));
            }
        }
    }

    /// Headers that cannot be followed hide everything behind them.
    #[test]
    fn broken_extension_headers_are_opaque() {
        let cut = testing::v6(60, &[6, 1, 1, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(flow(&cut), (60, Upper::Opaque));
        let late = testing::v6_with(&[(60, OPTIONS), (0, OPTIONS)], 6, &SEGMENT);
        assert_eq!(flow(&late), (0, Upper::Opaque));
        let many = [(60, OPTIONS); 9];
        assert_eq!(flow(&testing::v6_with(&many, 6, &SEGMENT)), (60, Upper::Opaque));
    }

    /// An answer has addresses and ports exchanged, and is the packet's flow when reversed again.
    #[test]
    fn reversed_exchanges_both_ends() {
        let packet = testing::v4(6, &SEGMENT);
        let flow = Flow::of(&packet, &testing::parse(&packet));
        let answer = flow.reversed();
        let expected = Upper::Ports { source: 0x5678, destination: 0x1234 };
        assert_eq!((answer.protocol, answer.upper), (6, expected));
        assert_eq!(answer.addresses.source, 0xc000_0202);
        assert_eq!(answer.addresses.destination, 0xc000_0201);
        assert_eq!(answer.reversed(), flow);
        let icmp = Flow { upper: Upper::Icmp(0x0800), ..flow };
        assert_eq!(icmp.reversed().upper, Upper::Icmp(0x0800));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// No packet makes it panic, not even one cut shorter than it was when it was parsed.
        #[test]
        fn flow_never_panics(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            six: bool,
            protocol in prop_oneof![any::<u8>(), Just(0), Just(43), Just(44), Just(60)],
            cut in 0..140_usize,
        ) {
            let packet = testing::packet(six, protocol, &payload);
            let parsed = testing::parse(&packet);
            _ = Flow::of(&packet, &parsed);
            _ = Flow::of(&packet[..cut.min(packet.len())], &parsed);
        }
    }
}
