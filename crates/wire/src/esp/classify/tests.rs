use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::esp::Spot;
use crate::ethernet::Mac;
use crate::icmp::Reported;
use crate::testing;
use crate::testing::DESTINATION_V4;
use crate::testing::DESTINATION_V6;
use crate::testing::FIRST;
use crate::testing::LAST;
use crate::testing::OPTIONS;
use crate::testing::ROUTING;
use crate::testing::SOURCE_V4;
use crate::testing::SOURCE_V6;
use crate::testing::WHOLE;

const ESP: [u8; 12] = [0, 0, 0x10, 0x01, 0, 0, 0, 7, 0xaa, 0xbb, 0xcc, 0xdd];
/// TCP inside, SPI 0x1001, sequence number 7, an ICV of 96 bits, and 4 octets of payload.
const AH: [u8; 28] = [
    6, 4, 0, 0, 0, 0, 0x10, 0x01, 0, 0, 0, 7, //
    9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 1, 2, 3, 4,
];

/// The four ways a frame can carry IP: either family, with and without a tag.
const LINKS: [(bool, Option<u16>); 4] =
    [(false, None), (false, Some(5)), (true, None), (true, Some(5))];

/// An Ethernet frame around an IP packet, with 4 octets of link padding.
fn link(vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let six = packet[0] >> 4 == 6;
    let mut frame = vec![0; ethernet::header_len(vlan)];
    let ether_type = if six { ethernet::ETHER_TYPE_IPV6 } else { ethernet::ETHER_TYPE_IPV4 };
    ethernet::emit(&mut frame, Mac([2; 6]), Mac([4; 6]), vlan, ether_type);
    frame.extend_from_slice(packet);
    frame.extend_from_slice(&[0x5a; 4]);
    frame
}

fn frame(six: bool, vlan: Option<u16>, protocol: u8, payload: &[u8]) -> Vec<u8> {
    link(vlan, &testing::packet(six, protocol, payload))
}

fn datagram(port: u16, checksum: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 8];
    let len = u16::try_from(8 + payload.len()).unwrap();
    udp::emit(&mut segment, 61234, port, len, checksum);
    segment.extend_from_slice(payload);
    segment
}

fn udp_frame(six: bool, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    frame(six, vlan, ip::PROTOCOL_UDP, &datagram(NAT_TRAVERSAL_PORT, 0, payload))
}

fn expected(six: bool, vlan: Option<u16>, esp_at: usize, end: usize) -> Outer {
    let v4 = (IpAddr::V4(SOURCE_V4), IpAddr::V4(DESTINATION_V4));
    let v6 = (IpAddr::V6(SOURCE_V6), IpAddr::V6(DESTINATION_V6));
    let (source, destination) = if six { v6 } else { v4 };
    Outer {
        spi: 0x1001,
        seq: 7,
        ip_at: ethernet::header_len(vlan),
        esp_at,
        end,
        source,
        destination,
        tos: testing::TOS,
        flow_label: if six { testing::FLOW_LABEL } else { 0 },
        encapsulated: false,
        source_port: 0,
    }
}

fn is_plain(classified: &Result<Unprotected, Malformed>) -> bool {
    matches!(classified, Ok(Unprotected::Plain(_)))
}

/// Raw ESP is found in both families, tagged or not, without the link padding.
#[test]
fn classify_raw_esp() {
    for (six, vlan) in LINKS {
        let esp_at = ethernet::header_len(vlan) + if six { 40 } else { 20 };
        let outer = expected(six, vlan, esp_at, esp_at + 12);
        let frame = frame(six, vlan, ip::PROTOCOL_ESP, &ESP);
        assert_eq!(classify(&frame), Ok(Unprotected::Esp(outer)), "{six} {vlan:?}");
        let spot = Spot::find(&frame).expect("the quick way");
        assert_eq!(Some(spot), outer.spot());
        let quickest = Spot::find_raw_v4(&frame).map(|(spot, _)| spot);
        assert_eq!(quickest, (!six && vlan.is_none()).then_some(spot));
        assert_eq!(spot.addresses(&frame), (outer.source, outer.destination));
    }
}

/// A07: AH is found in both families, with SPI and sequence number of its own places.
#[test]
fn classify_raw_ah() {
    for (six, vlan) in LINKS {
        let ah_at = ethernet::header_len(vlan) + if six { 40 } else { 20 };
        let outer = expected(six, vlan, ah_at, ah_at + 28);
        let frame = frame(six, vlan, ip::PROTOCOL_AH, &AH);
        assert_eq!(classify(&frame), Ok(Unprotected::Ah(outer)), "{six} {vlan:?}");
    }
}

/// U03: ESP in UDP is found whatever its checksum says.
#[test]
fn classify_encapsulated_esp() {
    for (six, vlan) in LINKS {
        for checksum in [0, 0x1234, 0xffff] {
            let esp_at = ethernet::header_len(vlan) + if six { 48 } else { 28 };
            let outer = expected(six, vlan, esp_at, esp_at + 12);
            let outer = Outer { encapsulated: true, source_port: 61234, ..outer };
            let segment = datagram(NAT_TRAVERSAL_PORT, checksum, &ESP);
            let frame = frame(six, vlan, ip::PROTOCOL_UDP, &segment);
            assert_eq!(classify(&frame), Ok(Unprotected::Esp(outer)), "{six} {vlan:?}");
            assert_eq!(Spot::find(&frame), outer.spot(), "the quick way");
        }
    }
}

/// U03: IKE on port 4500 is found whatever its checksum says.
#[test]
fn classify_ike_with_any_checksum() {
    for (six, vlan) in LINKS {
        for checksum in [0, 0x1234, 0xffff] {
            let segment = datagram(NAT_TRAVERSAL_PORT, checksum, &[0; 28]);
            let frame = frame(six, vlan, ip::PROTOCOL_UDP, &segment);
            assert_eq!(classify(&frame), Ok(Unprotected::Ike), "{six} {vlan:?}");
        }
    }
}

/// Octets behind the UDP length are no part of ESP, though the IP length counts them.
#[test]
fn classify_ends_esp_at_the_udp_length() {
    let mut segment = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
    segment.extend_from_slice(&[1, 2, 3]);
    let frame = frame(false, None, ip::PROTOCOL_UDP, &segment);
    let Ok(Unprotected::Esp(outer)) = classify(&frame) else { panic!("ESP") };
    assert_eq!((outer.esp_at, outer.end), (42, 54));
}

/// IPv4 options move ESP; they do not hide it.
#[test]
fn classify_behind_ipv4_options() {
    let packet = testing::v4_with_options(&[0x94, 4, 0, 0], ip::PROTOCOL_ESP, &ESP);
    let outer = expected(false, None, 38, 50);
    assert_eq!(classify(&link(None, &packet)), Ok(Unprotected::Esp(outer)));
}

/// IPv6 extension headers move ESP, AH and UDP; they do not hide them. E18
#[test]
fn classify_behind_extension_headers() {
    let all: [(u8, &[u8]); 4] = [(0, OPTIONS), (60, OPTIONS), (43, ROUTING), (60, OPTIONS)];
    for count in 1..=4 {
        let at = 14 + 40 + [8, 16, 40, 48][count - 1];
        let esp = testing::v6_with(&all[..count], ip::PROTOCOL_ESP, &ESP);
        let outer = expected(true, None, at, at + 12);
        assert_eq!(classify(&link(None, &esp)), Ok(Unprotected::Esp(outer)), "{count}");
        let ah = testing::v6_with(&all[..count], ip::PROTOCOL_AH, &AH);
        let outer = expected(true, None, at, at + 28);
        assert_eq!(classify(&link(None, &ah)), Ok(Unprotected::Ah(outer)), "{count}");
        let segment = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
        let udp = testing::v6_with(&all[..count], ip::PROTOCOL_UDP, &segment);
        let outer = expected(true, None, at + 8, at + 20);
        let outer = Outer { encapsulated: true, source_port: 61234, ..outer };
        assert_eq!(classify(&link(None, &udp)), Ok(Unprotected::Esp(outer)), "{count}");
    }
}

/// What a routing header sends on to another node is not for this one.
#[test]
fn classify_leaves_source_routed_packets() {
    let mut under_way = ROUTING.to_vec();
    under_way[2] = 1;
    let packet = testing::v6_with(&[(43, &under_way)], ip::PROTOCOL_ESP, &ESP);
    assert!(is_plain(&classify(&link(None, &packet))));
}

/// U04: the non-ESP marker means IKE; a zero SPI in raw ESP does not.
#[test]
fn classify_ike() {
    let ike = [&[0; 4][..], &[1; 28]].concat();
    for (six, vlan) in LINKS {
        assert_eq!(classify(&udp_frame(six, vlan, &ike)), Ok(Unprotected::Ike));
        let raw = frame(six, vlan, ip::PROTOCOL_ESP, &ike);
        let Ok(Unprotected::Esp(outer)) = classify(&raw) else { panic!("raw ESP") };
        assert_eq!(outer.spi, 0);
    }
}

/// U05: a payload of the one octet 0xff is a keepalive, and nothing else is.
#[test]
fn classify_keepalives() {
    for (six, vlan) in LINKS {
        for octet in 0..=255 {
            let expected = if octet == 0xff { Unprotected::Keepalive } else { Unprotected::Runt };
            assert_eq!(classify(&udp_frame(six, vlan, &[octet])), Ok(expected), "{octet}");
        }
    }
}

/// U07: every other payload below 8 octets is a runt.
#[test]
fn classify_runts() {
    for (six, vlan) in LINKS {
        let classify = |payload: &[u8]| classify(&udp_frame(six, vlan, payload));
        assert_eq!(classify(&[0xff; 2]), Ok(Unprotected::Runt));
        for len in (0..8).filter(|&len| len != 1) {
            assert_eq!(classify(&ESP[..len]), Ok(Unprotected::Runt), "{len}");
        }
        assert_eq!(classify(&[0; 3]), Ok(Unprotected::Runt));
        assert!(matches!(classify(&ESP[..8]), Ok(Unprotected::Esp(_))));
    }
}

/// U04: a non-ESP marker is enough to be IKE's, from its own four octets on, as in steering.
#[test]
fn classify_marker_with_little_behind_it() {
    for (six, vlan) in LINKS {
        for len in 4..12 {
            let frame = udp_frame(six, vlan, &[0; 12][..len]);
            assert_eq!(classify(&frame), Ok(Unprotected::Ike), "{len}");
            let nearly = [&[0, 0, 0, 1], &[0; 8][..len - 4]].concat();
            let found = classify(&udp_frame(six, vlan, &nearly)).unwrap();
            assert_eq!(found == Unprotected::Runt, len < 8, "{len}");
        }
    }
}

/// I01: IPv4 fragments of ESP, AH and UDP are told, with all that a reassembler needs.
#[test]
fn classify_ipv4_fragments() {
    let payload = [7; 24];
    for (flags_and_offset, offset, more) in
        [(0x2000, 0, true), (0x0001, 8, false), (0x2001, 8, true), (0x1f00, 0xf800, false)]
    {
        for protocol in [ip::PROTOCOL_ESP, ip::PROTOCOL_AH, ip::PROTOCOL_UDP] {
            let packet = testing::v4_fragment(flags_and_offset, protocol, &payload);
            let fragment = FragmentOf {
                addresses: testing::parse(&packet).addresses(),
                protocol,
                id: 0x1234,
                tos: testing::TOS,
                offset,
                more,
                ip_at: 14,
                fragment_header_at: None,
                payload_at: 34,
                end: 58,
            };
            let found = classify(&link(None, &packet));
            assert_eq!(found, Ok(Unprotected::Fragment(fragment)), "{flags_and_offset:x}");
            assert_eq!((fragment.len(), fragment.unfragmentable_len()), (24, 20));
            assert!(!fragment.is_whole());
        }
        let other = testing::v4_fragment(flags_and_offset, ip::PROTOCOL_TCP, &payload);
        assert!(is_plain(&classify(&link(None, &other))));
    }
    let whole = testing::v4_fragment(0x4000, ip::PROTOCOL_ESP, &ESP);
    let whole = classify(&link(None, &whole));
    assert!(matches!(whole, Ok(Unprotected::Esp(_))), "DF is no fragment");
}

/// I01: IPv6 fragments too; destination options may hide ESP, and a fragment header on a whole
/// packet is still to be taken out.
#[test]
fn classify_ipv6_fragments() {
    for (header, offset, more) in [(WHOLE, 0, false), (FIRST, 0, true), (LAST, 1024, false)] {
        for protocol in [50, 51, 17, 60] {
            let octets = [59, 0, 1, 4, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
            let packet = testing::v6_with(&[(0, OPTIONS), (44, header)], protocol, &octets);
            let fragment = FragmentOf {
                addresses: testing::parse(&packet).addresses(),
                protocol,
                id: 0x0102_0304,
                tos: testing::TOS,
                offset,
                more,
                ip_at: 14,
                fragment_header_at: Some(62),
                payload_at: 70,
                end: 86,
            };
            let found = classify(&link(None, &packet));
            assert_eq!(found, Ok(Unprotected::Fragment(fragment)), "{header:?} {protocol}");
            assert_eq!((fragment.len(), fragment.unfragmentable_len()), (16, 48));
            assert_eq!(fragment.is_whole(), offset == 0 && !more);
        }
        let other = testing::v6_with(&[(44, header)], ip::PROTOCOL_TCP, &[0; 24]);
        assert!(is_plain(&classify(&link(None, &other))));
    }
}

/// A fragment must have octets, must not end between two places, nor behind the largest packet.
#[test]
fn classify_refuses_impossible_fragments() {
    for (flags_and_offset, len, expected) in [
        (0x2000, 12, false),
        (0x0001, 12, true),
        (0x0001, 0, false),
        (0x2000, 0, false),
        (0x1fff, 7, true),
        (0x1fff, 8, false),
    ] {
        let payload = vec![7; len];
        let v4 = testing::v4_fragment(flags_and_offset, 50, &payload);
        let v4 = classify(&link(None, &v4));
        let [o0, o1] = (flags_and_offset << 3 | flags_and_offset >> 13 & 1).to_be_bytes();
        let v6 = testing::v6_with(&[(44, &[0, o0, o1, 0, 0, 0, 1])], 50, &payload);
        let v6 = classify(&link(None, &v6));
        for found in [v4, v6] {
            assert_eq!(matches!(found, Ok(Unprotected::Fragment(_))), expected, "{found:?}");
            assert_eq!(found == Err(Malformed::Fragment), !expected);
        }
    }
}

/// An ICMP error of either family about `enclosed`, with a right checksum.
fn icmp(six: bool, kind: [u8; 2], word: u32, enclosed: &[u8]) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(enclosed);
    let protocol = if six { ip::PROTOCOL_ICMPV6 } else { ip::PROTOCOL_ICMP };
    let mut packet = testing::packet(six, protocol, &message);
    let at = packet.len() - message.len();
    let covered =
        if six { testing::with_pseudo_header(&packet, 58, &message) } else { message.clone() };
    let sum = testing::naive_checksum(&covered);
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn icmp_error_of(packet: &[u8]) -> Option<IcmpError> {
    match classify(&link(None, packet)) {
        Ok(Unprotected::IcmpError(error)) => Some(error),
        Ok(Unprotected::Plain(ip)) => {
            assert_eq!(ip, testing::parse(packet));
            None
        }
        other => panic!("{other:?}"),
    }
}

/// P24: an error about ESP, AH, or UDP on port 4500 shows whose packet it is about.
#[test]
fn classify_icmp_errors() {
    let udp = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
    let from_4500 = {
        let mut segment = udp.clone();
        udp::emit(&mut segment, NAT_TRAVERSAL_PORT, 61234, 20, 0);
        segment
    };
    type Case<'a> = (u8, &'a [u8], Option<(u16, u16)>);
    let cases: [Case<'_>; 4] = [
        (50, &ESP, None),
        (51, &AH, None),
        (17, &udp, Some((61234, 4500))),
        (17, &from_4500, Some((4500, 61234))),
    ];
    for six in [false, true] {
        for (protocol, payload, ports) in cases {
            let enclosed = testing::packet(six, protocol, payload);
            let kind = if six { [2, 0] } else { [3, 4] };
            let found = icmp_error_of(&icmp(six, kind, 1400, &enclosed)).unwrap();
            let (source, destination) = if six {
                (IpAddr::V6(SOURCE_V6), IpAddr::V6(DESTINATION_V6))
            } else {
                (IpAddr::V4(SOURCE_V4), IpAddr::V4(DESTINATION_V4))
            };
            let expected = IcmpError {
                ip_at: 14,
                reporter: source,
                reported: Reported::TooBig { mtu: 1400 },
                kind,
                len: enclosed.len(),
                source,
                destination,
                protocol,
                ports,
                spi: Some(0x1001),
                seq: Some(7),
            };
            assert_eq!(found, expected, "{six} {protocol}");
        }
    }
}

/// P24: what is quoted may be cut short anywhere; what is not quoted is not guessed.
#[test]
fn classify_icmp_errors_with_short_quotations() {
    for six in [false, true] {
        let kind = if six { [1, 0] } else { [3, 1] };
        let header = if six { 40 } else { 20 };
        let quoting = |protocol, payload: &[u8], len: usize| {
            let enclosed = testing::packet(six, protocol, payload);
            icmp_error_of(&icmp(six, kind, 0, &enclosed[..header + len]))
        };
        for len in 0..12 {
            let found = quoting(50, &ESP, len).unwrap();
            assert_eq!(found.spi, (len >= 4).then_some(0x1001));
            assert_eq!(found.seq, (len >= 8).then_some(7));
            let found = quoting(51, &AH, len).unwrap();
            assert_eq!(found.spi, (len >= 8).then_some(0x1001));
            assert_eq!(found.seq, (len >= 12).then_some(7));
        }
        let udp = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
        for len in 0..20 {
            let found = quoting(17, &udp, len);
            assert_eq!(found.is_some(), len >= 6, "{len}");
            assert_eq!(found.and_then(|found| found.spi), (len >= 12).then_some(0x1001));
            assert_eq!(found.and_then(|found| found.seq), (len >= 16).then_some(7));
        }
    }
}

/// Other ICMP is plaintext: no error, another packet's error, IKE's error, a wrong checksum.
#[test]
fn classify_other_icmp() {
    for six in [false, true] {
        let kind = if six { [2, 0] } else { [3, 4] };
        let esp = testing::packet(six, 50, &ESP);
        let ours = icmp(six, kind, 1400, &esp);
        assert!(icmp_error_of(&ours).is_some());
        let last = ours.len() - 1;
        let mut wrong = ours;
        wrong[last] ^= 1;
        assert_eq!(icmp_error_of(&wrong), None);
        let echo = if six { [128, 0] } else { [8, 0] };
        assert_eq!(icmp_error_of(&icmp(six, echo, 0, &esp)), None);
        for (protocol, payload) in [
            (6, &ESP[..]),
            (17, &datagram(500, 0, &ESP)),
            (17, &datagram(NAT_TRAVERSAL_PORT, 0, &[0; 28])),
            (17, &datagram(NAT_TRAVERSAL_PORT, 0, &[0xff])),
        ] {
            let enclosed = testing::packet(six, protocol, payload);
            assert_eq!(icmp_error_of(&icmp(six, kind, 1400, &enclosed)), None);
        }
    }
    let later = testing::v4_fragment(1, 50, &ESP);
    assert_eq!(icmp_error_of(&icmp(false, [3, 4], 1400, &later)), None, "no SPI in there");
}

/// Every other IP packet is plaintext, IKE on port 500 too, whatever is in its UDP header.
#[test]
fn classify_plaintext() {
    for (six, vlan) in LINKS {
        for protocol in (0..=255).filter(|protocol| ![0, 17, 43, 44, 50, 51, 60].contains(protocol))
        {
            let packet = testing::packet(six, protocol, &ESP);
            let expected = Unprotected::Plain(testing::parse(&packet));
            assert_eq!(classify(&link(vlan, &packet)), Ok(expected), "{protocol}");
        }
        for port in [0, 53, 500, 4499, 4501] {
            let mut segment = datagram(port, 0, &ESP);
            segment[5] = 3;
            let frame = frame(six, vlan, ip::PROTOCOL_UDP, &segment);
            assert!(is_plain(&classify(&frame)), "{port}");
        }
    }
    for protocol in [0, 43, 44, 60] {
        let v4 = frame(false, None, protocol, &[ip::PROTOCOL_ESP; 12]);
        assert!(is_plain(&classify(&v4)), "{protocol} is no extension header in IPv4");
    }
}

/// What is not IP, or has two tags, is other.
#[test]
fn classify_other() {
    let mut esp = frame(false, Some(5), ip::PROTOCOL_ESP, &ESP);
    esp[16..18].copy_from_slice(&ethernet::ETHER_TYPE_VLAN.to_be_bytes());
    assert_eq!(classify(&esp), Ok(Unprotected::Other), "a second tag");
    let mut arp = frame(false, None, ip::PROTOCOL_ESP, &ESP);
    arp[12..14].copy_from_slice(&ethernet::ETHER_TYPE_ARP.to_be_bytes());
    assert_eq!(classify(&arp), Ok(Unprotected::Other));
}

/// Headers that contradict themselves are malformed, each under its name.
#[test]
fn classify_refuses_malformed_frames() {
    for (six, vlan) in LINKS {
        let malformed =
            |protocol, payload: &[u8]| classify(&frame(six, vlan, protocol, payload)).unwrap_err();
        for len in 0..8 {
            assert_eq!(malformed(ip::PROTOCOL_ESP, &ESP[..len]), Malformed::Truncated);
        }
        for len in 0..24 {
            let expected = if len < 12 { Malformed::Truncated } else { Malformed::AhLength };
            assert_eq!(malformed(ip::PROTOCOL_AH, &AH[..len]), expected);
        }
        let segment = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
        for len in 0..8 {
            assert_eq!(malformed(ip::PROTOCOL_UDP, &segment[..len]), Malformed::Truncated);
        }
        for len in [0, 7, 21, 255] {
            let mut segment = segment.clone();
            segment[5] = len;
            assert_eq!(malformed(ip::PROTOCOL_UDP, &segment), Malformed::UdpLength, "{len}");
        }
        let mut swapped = frame(six, vlan, ip::PROTOCOL_ESP, &ESP);
        swapped[ethernet::header_len(vlan)] ^= 0x20;
        assert_eq!(classify(&swapped), Err(Malformed::Version));
    }
    let short = frame(true, None, ip::PROTOCOL_FRAGMENT, &[ip::PROTOCOL_ESP; 7]);
    assert_eq!(classify(&short), Err(Malformed::Extension));
    let mut flipped = frame(false, None, ip::PROTOCOL_ESP, &ESP);
    flipped[22] ^= 1;
    assert_eq!(classify(&flipped), Err(Malformed::Checksum));
    assert_eq!(classify_packet(&[0; 4], 5), Err(Malformed::Truncated));
}

/// Without an Ethernet header the answers are the same, in both families, at any offset.
#[test]
fn classify_packet_agrees_with_classify() {
    for (six, vlan) in LINKS {
        for (protocol, payload) in
            [(50, &ESP[..]), (51, &AH), (17, &datagram(4500, 0, &ESP)), (6, &ESP)]
        {
            let packet = testing::packet(six, protocol, payload);
            let frame = link(vlan, &packet);
            let ip_at = ethernet::header_len(vlan);
            assert_eq!(classify_packet(&frame, ip_at), classify(&frame));
            if let Ok(Unprotected::Esp(outer) | Unprotected::Ah(outer)) =
                classify_packet(&packet, 0)
            {
                assert_eq!((outer.ip_at, outer.end), (0, packet.len()));
            }
        }
    }
}

prop_compose! {
    /// Frames that are nearly right, so that every branch is reached: a valid one with octets
    /// changed and its end moved, and sometimes with the IPv4 checksum made right again.
    fn hostile_frames()(
        (six, encapsulated, repaired) in any::<(bool, bool, bool)>(),
        vlan in proptest::option::of(0..4096_u16),
        protocol in proptest::option::of(
            prop_oneof![any::<u8>(), Just(0), Just(1), Just(43), Just(44), Just(51), Just(58)],
        ),
        port in proptest::option::of(any::<u16>()),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        changes in proptest::collection::vec((0..60_usize, any::<u8>()), 0..4),
        cut in proptest::option::of(0..80_usize),
    ) -> Vec<u8> {
        let port = port.unwrap_or(NAT_TRAVERSAL_PORT);
        let payload = if encapsulated { datagram(port, 0, &payload) } else { payload };
        let usual = if encapsulated { ip::PROTOCOL_UDP } else { ip::PROTOCOL_ESP };
        let mut frame = frame(six, vlan, protocol.unwrap_or(usual), &payload);
        for (at, octet) in changes {
            if let Some(changed) = frame.get_mut(at) {
                *changed = octet;
            }
        }
        if repaired && !six {
            testing::repair(&mut frame[ethernet::header_len(vlan)..]);
        }
        frame.truncate(cut.unwrap_or(usize::MAX));
        frame
    }
}

fn check(frame: &[u8]) -> Result<(), TestCaseError> {
    let classified = classify(frame);
    // The quick way finds nothing but what the slow way finds.
    if let Some(spot) = Spot::find(frame) {
        let Ok(Unprotected::Esp(outer)) = classified else {
            return Err(TestCaseError::fail("a spot and no ESP"));
        };
        prop_assert_eq!(outer.spot(), Some(spot));
        prop_assert_eq!(spot.addresses(frame), (outer.source, outer.destination));
        prop_assert_eq!(spot.source_port(frame), outer.source_port);
    }
    if let Some((spot, addresses)) = Spot::find_raw_v4(frame) {
        prop_assert_eq!(Spot::find(frame), Some(spot));
        prop_assert_eq!(spot.addresses_v4(frame), Some(&addresses));
    }
    match classified {
        Ok(Unprotected::Esp(outer)) => {
            prop_assert!(outer.esp_at + 8 <= outer.end && outer.end <= frame.len());
            let esp = parse(&frame[outer.esp_at..outer.end]);
            prop_assert_eq!(esp, Ok(Esp { spi: outer.spi, seq: outer.seq }));
            prop_assert!(outer.spi != 0 || !outer.encapsulated);
        }
        Ok(Unprotected::Ah(outer)) => {
            prop_assert!(outer.end <= frame.len());
            let ah = ah::parse(&frame[outer.esp_at..outer.end]).unwrap();
            prop_assert_eq!((ah.spi, ah.seq), (outer.spi, outer.seq));
        }
        Ok(Unprotected::Fragment(fragment)) => {
            prop_assert!(fragment.ip_at < fragment.payload_at);
            prop_assert!(fragment.payload_at < fragment.end && fragment.end <= frame.len());
            prop_assert!(fragment.offset + fragment.len() <= 65535);
            prop_assert!(fragment.unfragmentable_len() >= 20);
        }
        _ => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8000))]

    /// Nearly right frames never make it panic, and what it finds lies inside the frame.
    #[test]
    fn classify_never_panics_on_hostile_frames(frame in hostile_frames()) {
        check(&frame)?;
    }

    /// Neither do any bytes at all.
    #[test]
    fn classify_never_panics_on_any_bytes(
        frame in proptest::collection::vec(any::<u8>(), 0..120),
        ip_at in 0..130_usize,
    ) {
        check(&frame)?;
        _ = classify_packet(&frame, ip_at);
    }

    /// Neither do ICMP errors about anything.
    #[test]
    fn classify_never_panics_on_icmp_errors(
        six: bool,
        (kind, code) in (1..13_u8, 0..5_u8),
        next in prop_oneof![any::<u8>(), Just(0), Just(17), Just(44), Just(50), Just(51), Just(60)],
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 0..80_usize,
    ) {
        let enclosed = testing::packet(six, next, &payload);
        let packet = icmp(six, [kind, code], 0, &enclosed[..cut.min(enclosed.len())]);
        check(&link(None, &packet))?;
        // Anything quoted, with a right checksum around it.
        check(&link(None, &icmp(six, [kind, code], 0, &payload)))?;
    }
}
