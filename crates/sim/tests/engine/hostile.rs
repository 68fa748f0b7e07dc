//! Malformed and hostile frames: each is counted as what it is, and harms nobody.

use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_frame::Port;
use culvert_sim::plain::ip_packet;
use culvert_sim::plain::link_frame;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::udp;

use crate::support::A;
use crate::support::B;
use crate::support::assert_frames_conserved;
use crate::support::fates;
use crate::support::from_host;
use crate::support::from_wire;
use crate::support::gateway;
use crate::support::on_wire;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::sealed;
use crate::support::text;
use crate::support::to_host;
use crate::support::turn;

/// A frame with a name, where it arrives, and what must become of it.
type Hostile = (&'static str, Port, Vec<u8>, Fate);

fn dropped(reason: DropReason) -> Fate {
    Fate::Drop(reason)
}

/// `frame` with octets at `at` replaced.
fn with(mut frame: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

/// `frame` cut to `len` octets.
fn cut(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.truncate(len);
    frame
}

fn good(scenario: &Scenario, seq: u64) -> Vec<u8> {
    sealed(scenario, A, seq, &text(&plain(A, false, seq).packet(), ip::PROTOCOL_IPIP))
}

/// A datagram to port 4500 with a length field that may lie.
fn datagram(len: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::emit(&mut datagram, 4500, 4500, len, 0);
    datagram.extend_from_slice(payload);
    datagram
}

/// Frames that break the rules of links and outer headers.
fn outer_headers(scenario: &Scenario) -> Vec<Hostile> {
    let malformed = dropped(DropReason::Malformed);
    let other_host = dropped(DropReason::OtherHost);
    let good = good(scenario, 100);
    let six = ip_packet([0; 16].into(), [1; 16].into(), ip::PROTOCOL_ESP, &[7; 60]);
    let six = on_wire(A, &six);
    let tagged = link_frame(gateway_mac(B, WAN), gateway_mac(A, WAN), Some(7), 0x0800, &[]);
    // A header with a checksum that is right for what it says.
    let sound = |at: usize, octets: &[u8]| {
        let mut frame = with(with(good.clone(), at, octets), 14 + 10, &[0, 0]);
        let header_len = usize::from(frame[14] & 0x0f) * 4;
        let header = &frame[14..14 + header_len.clamp(20, 60)];
        let sum = culvert_wire::checksum::internet(header).to_be_bytes();
        frame[14 + 10..14 + 12].copy_from_slice(&sum);
        frame
    };
    vec![
        ("an empty frame", WAN, vec![], other_host),
        ("half an address", WAN, cut(good.clone(), 3), other_host),
        ("an address only", WAN, cut(good.clone(), 6), malformed),
        ("no Ethernet type", WAN, cut(good.clone(), 13), malformed),
        ("half a VLAN tag", WAN, cut(tagged.clone(), 16), malformed),
        ("a VLAN tag and nothing else", WAN, tagged, malformed),
        ("another station", WAN, with(good.clone(), 5, &[9]), other_host),
        ("broadcast", WAN, with(good.clone(), 0, &[0xff; 6]), other_host),
        ("half an IPv4 header", WAN, cut(good.clone(), 14 + 10), malformed),
        ("version 6 as IPv4", WAN, with(good.clone(), 14, &[0x65]), malformed),
        ("version 4 as IPv6", WAN, with(good.clone(), 12, &[0x86, 0xdd]), malformed),
        ("a header of 4 words", WAN, sound(14, &[0x44]), malformed),
        ("a header longer than the packet", WAN, sound(14 + 2, &[0, 19]), malformed),
        ("a packet longer than the frame", WAN, sound(14 + 2, &[0xff, 0xff]), malformed),
        ("a wrong header checksum", WAN, with(good.clone(), 14 + 8, &[1]), malformed),
        ("a frame cut in the middle", WAN, cut(good, 80), malformed),
        ("half an IPv6 header", WAN, cut(six.clone(), 14 + 30), malformed),
        ("an IPv6 payload beyond the frame", WAN, with(six, 14 + 4, &[0xff, 0xff]), malformed),
    ]
}

/// Frames with well-formed outer headers that are no ESP, or no ESP of ours.
fn not_esp(scenario: &Scenario) -> Vec<Hostile> {
    let malformed = dropped(DropReason::Malformed);
    let udp =
        |len, payload: &[u8]| from_wire(scenario, A, ip::PROTOCOL_UDP, &datagram(len, payload));
    let esp = |octets: &[u8]| from_wire(scenario, A, ip::PROTOCOL_ESP, octets);
    let fragment = |offset: [u8; 2]| {
        // 132 octets of payload: no multiple of 8.
        let whole = esp(&[7; 132]);
        let mut frame = with(with(whole, 14 + 6, &offset), 14 + 10, &[0, 0]);
        let sum = culvert_wire::checksum::internet(&frame[14..34]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
        frame
    };
    let six = |protocol, payload: &[u8]| {
        on_wire(A, &ip_packet([0; 16].into(), [1; 16].into(), protocol, payload))
    };
    let arp = link_frame(
        gateway_mac(B, WAN),
        gateway_mac(A, WAN),
        None,
        ethernet::ETHER_TYPE_ARP,
        &[0; 46],
    );
    vec![
        ("seven octets of ESP", WAN, esp(&[1; 7]), malformed),
        ("no octet of ESP", WAN, esp(&[]), malformed),
        ("a UDP length below its header", WAN, udp(7, &[1; 40]), malformed),
        ("a UDP length beyond the packet", WAN, udp(100, &[1; 40]), malformed),
        ("three octets of UDP", WAN, from_wire(scenario, A, ip::PROTOCOL_UDP, &[1; 3]), malformed),
        ("a runt of one octet", WAN, udp(9, &[0xfe]), dropped(DropReason::Runt)),
        ("a runt of seven octets", WAN, udp(15, &[0xff; 7]), dropped(DropReason::Runt)),
        ("an empty datagram", WAN, udp(8, &[]), dropped(DropReason::Runt)),
        ("a keepalive", WAN, udp(9, &[0xff]), dropped(DropReason::Keepalive)), // U05
        ("IKE", WAN, udp(48, &[0; 40]), Fate::Punt),                           // U04
        ("a first fragment whose end is not on 8 octets", WAN, fragment([0x20, 0]), malformed),
        ("half an IPv6 fragment header", WAN, six(ip::PROTOCOL_FRAGMENT, &[50; 4]), malformed),
        (
            "TCP to nobody's network",
            WAN,
            from_wire(scenario, A, ip::PROTOCOL_TCP, &[1; 40]),
            dropped(DropReason::NoPolicy),
        ),
        ("ARP", WAN, arp, Fate::Punt),
        ("SPI 0 in raw ESP", WAN, esp(&[0; 60]), dropped(DropReason::NoSa)),
        (
            "a reserved SPI",
            WAN,
            esp(&[&[0, 0, 0, 200][..], &[0; 56]].concat()),
            dropped(DropReason::NoSa),
        ),
        ("an SPI of nobody", WAN, esp(&[0xaa; 60]), dropped(DropReason::NoSa)), // U14
        ("our SPI, another address", WAN, other_address(scenario), dropped(DropReason::NoSa)),
    ]
}

fn other_address(scenario: &Scenario) -> Vec<u8> {
    let spi = scenario.tunnels[0].spi[A].value().to_be_bytes();
    let esp = [&spi[..], &[1; 60]].concat();
    let six = ip_packet([0; 16].into(), [1; 16].into(), ip::PROTOCOL_ESP, &esp);
    on_wire(A, &six)
}

/// ESP with an SPI of ours, and plaintext, that somebody has tampered with.
fn tampered(scenario: &Scenario) -> Vec<Hostile> {
    let (icv, replay) = (dropped(DropReason::Icv), dropped(DropReason::Replay));
    let truncated = dropped(DropReason::Truncated);
    let good = good(scenario, 100);
    let spi = scenario.tunnels[0].spi[A].value().to_be_bytes();
    let esp = |len: usize| {
        let octets = [&spi[..], &[0xff; 1800]].concat();
        from_wire(scenario, A, ip::PROTOCOL_ESP, &octets[..len])
    };
    let last = good.len() - 1;
    let lan = from_host(B, &plain(B, false, 1));
    let (to, from) = (gateway_mac(B, LAN), host_mac(B));
    let malformed = dropped(DropReason::Malformed);
    vec![
        ("ESP without text", WAN, esp(32), truncated),
        ("ESP shorter than its ICV", WAN, esp(20), truncated),
        ("ESP of an odd length", WAN, esp(101), truncated),
        ("garbage with our SPI", WAN, esp(100), icv),
        ("a giant with our SPI", WAN, esp(1756), icv),
        ("number 0", WAN, with(good.clone(), 38, &[0; 4]), replay), // I10
        ("a number far ahead", WAN, with(good.clone(), 38, &[0xff; 4]), icv), // I07
        ("another IV", WAN, with(good.clone(), 49, &[0x55]), icv),
        ("another text", WAN, with(good.clone(), 60, &[0x55]), icv),
        ("another ICV", WAN, with(good.clone(), last, &[good[last] ^ 1]), icv),
        ("a number seen before", WAN, self::good(scenario, 99), replay),
        ("half a plaintext", LAN, cut(lan.clone(), 40), malformed),
        ("a plaintext with a wrong checksum", LAN, with(lan.clone(), 22, &[1]), malformed),
        (
            "a plaintext for another station",
            LAN,
            with(lan, 5, &[9]),
            dropped(DropReason::OtherHost),
        ),
        ("no IP at all", LAN, link_frame(to, from, None, 0x86dd, &[0; 60]), malformed),
        ("something else", LAN, link_frame(to, from, None, 0x88cc, &[0; 60]), Fate::Punt),
    ]
}

/// Each frame alone gets its fate and its reason and no other; afterwards a genuine packet passes,
/// the replay window is where it was, and no frame of memory is missing.
#[test]
fn each_is_counted_as_what_it_is() {
    let scenario = ordinary();
    let mut b = gateway(&scenario, B);
    assert_eq!(turn(&mut b, 0, WAN, &[&good(&scenario, 99)]).len(), 1);
    let hostile = [outer_headers(&scenario), not_esp(&scenario), tampered(&scenario)].concat();
    assert!(hostile.len() >= 24, "{} frames", hostile.len());
    for (name, port, frame, expected) in &hostile {
        let before = b.counters();
        let sent = turn(&mut b, 0, *port, &[frame]);
        assert_eq!(fates(&b), [*expected], "{name}");
        assert!(sent.is_empty(), "{name}");
        let after = b.counters();
        let mut counted = before;
        counted.received += 1;
        match expected {
            Fate::Drop(reason) => counted.dropped[*reason as usize] += 1,
            _ => counted.punted += 1,
        }
        assert_eq!(after, counted, "{name}");
        assert_frames_conserved(&mut b, &scenario);
    }
    let delivered = turn(&mut b, 0, WAN, &[&good(&scenario, 100)]);
    assert_eq!(delivered.len(), 1, "a genuine packet with the forged number passes");
    assert_eq!(b.samples().find(|sample| sample.inbound).unwrap().sequence, 100);
}

/// All of them in one batch, between genuine packets, change nothing for these.
#[test]
fn all_at_once() {
    let scenario = ordinary();
    let mut b = gateway(&scenario, B);
    let hostile = [outer_headers(&scenario), not_esp(&scenario), tampered(&scenario)].concat();
    let mut delivered = turn(&mut b, 0, WAN, &[&good(&scenario, 99)]);
    for (seq, some) in (101..).zip(hostile.chunks(30)) {
        let genuine = good(&scenario, seq);
        let mut frames: Vec<&[u8]> = vec![];
        for (_, port, frame, _) in some {
            if *port == WAN {
                frames.push(frame);
            }
        }
        frames.insert(frames.len() / 2, &genuine);
        delivered.extend(turn(&mut b, 0, WAN, &frames));
        let last = delivered.last().unwrap();
        assert_eq!(last[14 + 20..], to_host(B, &plain(A, false, seq))[14 + 20..]);
    }
    assert_eq!(b.counters().forwarded, delivered.len() as u64);
    assert_frames_conserved(&mut b, &scenario);
}
