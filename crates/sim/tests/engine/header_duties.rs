//! What the outer header takes from the inner one, and what comes back from it.

use std::collections::HashSet;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_esp::HeaderOptions;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::template::Df;
use culvert_esp::template::Dscp;
use culvert_esp::template::EcnMode;
use culvert_esp::template::FlowLabel;
use culvert_esp::template::Ttl;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::hop;
use crate::packets::internet;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::transport_sum;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::gateway;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::through;

const PAIRS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn tunnel(six: bool) -> Tunnel {
    Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256).with_outer(six)
}

fn hosts(six: bool) -> (IpAddr, IpAddr) {
    (Scenario::host(A, 0, six, 5), Scenario::host(B, 0, six, 5))
}

fn addresses(tunnel: &Tunnel) -> (IpAddr, IpAddr) {
    (tunnel.outer[A], tunnel.outer[B])
}

fn plain(six: bool) -> Vec<u8> {
    packet(hosts(six), 17, &packets::udp(hosts(six), 20))
}

/// The packet with another TOS or traffic class.
fn tos(packet: &[u8], tos: u8) -> Vec<u8> {
    match packet[0] >> 4 {
        4 => with(packet, 1, &[tos]),
        _ => with(packet, 0, &[0x60 | tos >> 4, tos << 4 | packet[1] & 15]),
    }
}

fn tos_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

/// A with other options for the headers of its tunnel.
fn sender(six: bool, header: &HeaderOptions) -> TestGateway {
    changed(&Scenario::quiet(vec![tunnel(six)]), A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.header = header.clone());
    })
}

/// The ESP of A's packet around an inner one.
fn sealed(tunnel: &Tunnel, seq: u32, inner: &[u8]) -> Vec<u8> {
    let next = if inner[0] >> 4 == 4 { 4 } else { 41 };
    null_esp((tunnel.spi[A].value(), &tunnel.keymat[A]), seq, None, (inner, next))
}

/// P18, P20, C01, E10, E20: every octet of tunnel mode in all pairs of families, with the default
/// options: DSCP and ECN of the inner packet, TTL 64, no flow label, DF of the inner packet or set.
#[test]
fn default_octets() {
    for (six, inner_six) in PAIRS {
        let tunnel = tunnel(six);
        let mut a = sender(six, &HeaderOptions::default());
        for (seq, octet) in (1..).zip([0x00, 0x01, 0x02, 0x03, 0xb8, 0xff]) {
            let mut inner = tos(&plain(inner_six), octet);
            if inner_six {
                // A flow label, which is not copied.
                inner = with(&inner, 1, &[inner[1] | 0x0f, 0xed, 0xcb]);
            } else if octet == 0xb8 {
                inner = with(&inner, 6, &[0x40]);
            }
            let sent = one(&mut a, (A, LAN), &inner);
            let mut expected = packet(addresses(&tunnel), 50, &sealed(&tunnel, seq, &hop(&inner)));
            expected = tos(&expected, octet);
            if !six {
                let df = if inner_six || octet == 0xb8 { 0x40 } else { 0 };
                expected = with(&expected, 4, &[sent[4], sent[5], df]);
            }
            assert_eq!(sent, expected, "{inner_six} in {six}, {octet:#x}");
        }
    }
}

/// P18: DSCP set or mapped; C02: in compatibility mode the outer packet is not ECN-capable.
#[test]
fn dscp_and_ecn_options() {
    let mut map = [0u8; 64];
    (0u8..64).for_each(|dscp| map[usize::from(dscp)] = 63 - dscp);
    for six in [false, true] {
        for ecn in [EcnMode::Normal, EcnMode::Compatibility] {
            let kept = |octet: u8| if ecn == EcnMode::Normal { octet & 3 } else { 0 };
            let header = |dscp| HeaderOptions { dscp, ecn, ..HeaderOptions::default() };
            let mut copying = sender(six, &header(Dscp::Copy));
            let mut setting = sender(six, &header(Dscp::Set(46)));
            let mut mapping = sender(six, &header(Dscp::Map(Box::new(map))));
            for octet in [0x00, 0x01, 0x02, 0x03, 0xb9, 0xff, 0x28] {
                let inner = tos(&plain(false), octet);
                for (a, dscp) in [
                    (&mut copying, octet >> 2),
                    (&mut setting, 46),
                    (&mut mapping, 63 - (octet >> 2)),
                ] {
                    let sent = one(a, (A, LAN), &inner);
                    assert_eq!(tos_of(&sent), dscp << 2 | kept(octet), "{ecn:?} {octet:#x}");
                    let header_len = if six { 40 } else { 20 };
                    assert_eq!(tos_of(&sent[header_len + 8..]), octet, "inner");
                }
            }
        }
    }
}

/// P18: DF copied, set, or cleared; over IPv6 there is none.
#[test]
fn dont_fragment() {
    let df = |option, inner: &[u8]| {
        let mut a = sender(false, &HeaderOptions { df: option, ..HeaderOptions::default() });
        let sent = one(&mut a, (A, LAN), inner);
        assert_eq!(internet(&sent[..20]), 0);
        assert_eq!(sent[6] & 0xbf, 0);
        sent[6] & 0x40 > 0
    };
    let (clear, set) = (plain(false), with(&plain(false), 6, &[0x40]));
    let six = plain(true);
    for (option, expected) in
        [(Df::Copy, [false, true, true]), (Df::Set, [true; 3]), (Df::Clear, [false; 3])]
    {
        assert_eq!([&clear, &set, &six].map(|inner| df(option, inner)), expected, "{option:?}");
    }
}

/// P18, P19, P20: the outer TTL or hop limit is fixed or the inner one as forwarded; a flow label
/// is what was configured.
#[test]
fn ttl_and_flow_label() {
    for (six, inner_six) in PAIRS {
        let at = if six { 7 } else { 8 };
        let inner = with(&plain(inner_six), if inner_six { 7 } else { 8 }, &[33]);
        for (ttl, expected) in [(Ttl::Fixed(64), 64), (Ttl::Fixed(255), 255), (Ttl::Copy, 32)] {
            let flow_label = FlowLabel::Set(0xabcde);
            let header = HeaderOptions { ttl, flow_label, ..HeaderOptions::default() };
            let sent = one(&mut sender(six, &header), (A, LAN), &inner);
            assert_eq!(sent[at], expected, "{ttl:?}");
            if six {
                assert_eq!(sent[1..4], [0x0a, 0xbc, 0xde]);
            }
        }
    }
}

/// P18, P20: IPv4 options and IPv6 extension headers stay inside, untouched.
#[test]
fn options_are_not_copied() {
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let with_options = packet_with(hosts(false), &options, 17, &packets::udp(hosts(false), 4));
    let header = [17, 0, 1, 4, 0, 0, 0, 0];
    let with_header = packet_with(hosts(true), &header, 0, &packets::udp(hosts(true), 4));
    for six in [false, true] {
        let (mut a, mut b) = (sender(six, &HeaderOptions::default()), receiver(six));
        for (seq, inner) in (1..).zip([&with_options, &with_header]) {
            let sent = one(&mut a, (A, LAN), inner);
            let esp = sealed(&tunnel(six), seq, &hop(inner));
            assert!(sent.ends_with(&esp));
            assert_eq!(sent.len() - esp.len(), if six { 40 } else { 20 });
            assert_eq!(sent[if six { 6 } else { 9 }], 50);
            assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(inner)));
        }
    }
}

fn receiver(six: bool) -> TestGateway {
    gateway(&Scenario::quiet(vec![tunnel(six)]), B)
}

/// P18, U02, E20: outer checksums in all pairs of families: that of IPv4, of UDP over IPv6; over
/// IPv4 that of UDP is zero.
#[test]
fn outer_checksums() {
    for (six, inner_six) in PAIRS {
        let tunnel = tunnel(six).with_udp();
        let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
        for len in 0..40 {
            let inner = packet(hosts(inner_six), 17, &packets::udp(hosts(inner_six), len));
            let sent = one(&mut a, (A, LAN), &inner);
            let mut udp = sent[if six { 40 } else { 20 }..].to_vec();
            let sum = [udp[6], udp[7]];
            assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
            udp[6..8].fill(0);
            let right = if six { transport_sum(addresses(&tunnel), 17, &udp) } else { 0 };
            assert_eq!(sum, right.to_be_bytes(), "{len} octets, {inner_six} in {six}");
            assert!(six || internet(&sent[..20]) == 0);
        }
    }
}

/// C03, C04, C05, C06, C07, C08: the table of RFC 6040 section 4.2 through a gateway, in all pairs
/// of families: the field that comes out, with a right checksum; the drop of congestion that the
/// inner packet cannot carry; and the combinations nobody should send, told once for the SA.
#[test]
fn ecn_on_the_way_out() {
    // Inner, outer, what comes out; with a mark those to be logged.
    let drop = None;
    let table = [
        (0, [(0, Some(0), false), (2, Some(0), true), (1, Some(0), true), (3, drop, true)]),
        (2, [(0, Some(2), false), (2, Some(2), false), (1, Some(1), false), (3, Some(3), false)]),
        (1, [(0, Some(1), false), (2, Some(1), true), (1, Some(1), false), (3, Some(3), false)]),
        (3, [(0, Some(3), false), (2, Some(3), false), (1, Some(3), true), (3, Some(3), false)]),
    ];
    for (six, inner_six) in PAIRS {
        for (inner_ecn, row) in table {
            for (outer_ecn, expected, is_unusual) in row {
                let tunnel = tunnel(six);
                let scenario = Scenario { frames: 4, ..Scenario::quiet(vec![tunnel.clone()]) };
                let mut b = gateway(&scenario, B);
                let inner = tos(&plain(inner_six), 0xb8 | inner_ecn);
                let outer = |seq| {
                    let packet = packet(addresses(&tunnel), 50, &sealed(&tunnel, seq, &inner));
                    tos(&packet, 0x20 | outer_ecn)
                };
                for seq in 1..3 {
                    match expected {
                        Some(ecn) => {
                            let came = one(&mut b, (B, WAN), &outer(seq));
                            assert_eq!(came, tos(&hop(&inner), 0xb8 | ecn));
                        }
                        None => {
                            let fate = none(&mut b, (B, WAN), &outer(seq));
                            assert_eq!(fate, Fate::Drop(DropReason::Ecn));
                        }
                    }
                }
                let told = notices(&mut b);
                let told = told.iter().filter(|n| matches!(n, Notice::UnusualEcn { .. })).count();
                assert_eq!(told, usize::from(is_unusual), "{inner_ecn:02b} in {outer_ecn:02b}");
            }
        }
    }
}

/// P21: where it is configured so, the DSCP that comes out is the outer one, and ECN is merged all
/// the same.
#[test]
fn decapsulation_options() {
    let tunnel = tunnel(false);
    let mut b = changed(&Scenario::quiet(vec![tunnel.clone()]), B, |config| {
        for sa in &mut config.sas {
            sa.receiving.dscp = DscpPolicy::CopyOuter;
        }
    });
    for (seq, (inner, outer, expected)) in
        (1..).zip([(0xb8, 0x20, 0x20), (0xba, 0x23, 0x23), (0x00, 0xfd, 0xfc), (0x02, 0x28, 0x2a)])
    {
        let inner = tos(&plain(false), inner);
        let outer = tos(&packet(addresses(&tunnel), 50, &sealed(&tunnel, seq, &inner)), outer);
        assert_eq!(one(&mut b, (B, WAN), &outer), tos(&hop(&inner), expected));
    }
}

/// P21: nothing of the outer header but ECN reaches the inner packet: not its TTL, DSCP, DF, or
/// identification.
#[test]
fn outer_header_is_dropped() {
    for six in [false, true] {
        let tunnel = tunnel(six);
        let mut b = receiver(six);
        let inner = plain(true);
        let outer = packet(addresses(&tunnel), 50, &sealed(&tunnel, 1, &inner));
        let outer = match six {
            false => with(&with(&tos(&outer, 0x48), 4, &[0xaa, 0xbb, 0x40]), 8, &[1]),
            true => with(&tos(&with(&outer, 1, &[0x0f, 0xff, 0xff]), 0x48), 7, &[1]),
        };
        assert_eq!(one(&mut b, (B, WAN), &outer), hop(&inner));
    }
}

/// P18: workers of a gateway give no IPv4 identification twice until all of a worker's share, 65536
/// over the number of workers (the next power of two), are used.
#[test]
fn identifications_are_unique_among_workers() {
    let tunnels = (0..3).map(Tunnel::ordinary).collect();
    let scenario = Scenario { workers: vec![3; 2], frames: 160, ..Scenario::quiet(tunnels) };
    let mut a = gateway(&scenario, A);
    let mut seen = HashSet::new();
    let share = 65536 / 4;
    for index in 0..3 {
        let hosts = [A, B].map(|side| Scenario::host(side, index, false, 5));
        let plain = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 0));
        for _ in 0..share / 64 {
            let mut sent = through(&mut a, (A, LAN), &[&plain[..]; 64]);
            sent.extend(through(&mut a, (A, LAN), &[]));
            assert_eq!(sent.len(), 64);
            for packet in sent {
                assert_eq!(packet[6], 0, "DF is clear");
                assert!(seen.insert([packet[4], packet[5]]), "{:?}", &packet[4..6]);
            }
        }
    }
    assert_eq!(seen.len(), 3 * share);
}
