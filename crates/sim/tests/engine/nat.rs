//! NAT traversal: one SA raw and encapsulated, any checksum, keepalives, and peers that move.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_control::Direction;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::Peer;
use culvert_engine::options::Lookup;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::hop;
use crate::packets::packet;
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
use crate::support::through_at;

const SECOND: u64 = 1_000_000_000;

fn tunnel(six: bool) -> Tunnel {
    Tunnel::ordinary(0).with_algorithm(Algorithm::Aes128Gcm16).with_outer(six)
}

fn addresses(tunnel: &Tunnel) -> (IpAddr, IpAddr) {
    (tunnel.outer[A], tunnel.outer[B])
}

fn plain() -> Vec<u8> {
    let addresses = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
    packet(addresses, 17, &packets::udp(addresses, 30))
}

/// What the checksum field of a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Zero,
    Right,
    Wrong,
}

/// A datagram from `port` to port 4500.
fn datagram(addresses: (IpAddr, IpAddr), port: u16, sum: Sum, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram = port.to_be_bytes().to_vec();
    datagram.extend(4500u16.to_be_bytes());
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let right = transport_sum(addresses, 17, &datagram);
    let field = match sum {
        Sum::Zero => 0,
        Sum::Right => right,
        Sum::Wrong => right ^ 0x0101,
    };
    datagram[6..8].copy_from_slice(&field.to_be_bytes());
    packet(addresses, 17, &datagram)
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// U09, U03: one SA takes raw ESP and ESP in UDP at any time, whichever it was made for, and with
/// whatever is in the checksum field.
#[test]
fn raw_and_encapsulated_alternate() {
    for (six, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let tunnel = tunnel(six);
        let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
        let receiver = if udp { tunnel.clone().with_udp() } else { tunnel.clone() };
        let mut b = gateway(&Scenario::quiet(vec![receiver]), B);
        for round in 0..8 {
            let raw = one(&mut a, (A, LAN), &plain());
            let esp = &raw[header_len(&raw)..];
            let sent = match round % 4 {
                0 => raw,
                1 => datagram(addresses(&tunnel), 4500, Sum::Zero, esp),
                2 => datagram(addresses(&tunnel), 4500, Sum::Right, esp),
                _ => datagram(addresses(&tunnel), 4500, Sum::Wrong, esp),
            };
            assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain())), "round {round}");
        }
        let moved = notices(&mut b).into_iter().any(|n| matches!(n, Notice::Mapping { .. }));
        assert!(!moved);
    }
}

/// U03, U04: IKE on port 4500, known by its marker, is the stack's, with checksum 0, right, and
/// wrong, over both families.
#[test]
fn ike_with_any_checksum() {
    for six in [false, true] {
        let tunnel = tunnel(six).with_udp();
        let mut b = gateway(&Scenario::quiet(vec![tunnel.clone()]), B);
        for sum in [Sum::Zero, Sum::Right, Sum::Wrong] {
            let ike = [&[0; 4][..], &[7; 28]].concat();
            let message = datagram(addresses(&tunnel), 61001, sum, &ike);
            assert_eq!(none(&mut b, (B, WAN), &message), Fate::Punt, "{sum:?}");
        }
        assert_eq!(b.counters().dropped_total(), 0);
    }
}

/// U03, U05: a keepalive is swallowed whatever its checksum: no error, no news of a peer that
/// moved, no use of the SA.
#[test]
fn keepalives_are_swallowed() {
    for six in [false, true] {
        let tunnel = tunnel(six).with_udp();
        let mut b = gateway(&Scenario::quiet(vec![tunnel.clone()]), B);
        for (port, sum) in [(4500, Sum::Zero), (61001, Sum::Right), (61002, Sum::Wrong)] {
            let keepalive = datagram(addresses(&tunnel), port, sum, &[0xff]);
            let fate = none(&mut b, (B, WAN), &keepalive);
            assert_eq!(fate, Fate::Drop(DropReason::Keepalive));
        }
        assert_eq!(notices(&mut b), []);
        assert!(b.samples().all(|sample| sample.last_used.is_none()));
    }
}

/// B, whose peer was last seen at port 4500 of A's address, and may come from anywhere.
fn roamed_to() -> (Tunnel, TestGateway, TestGateway) {
    let tunnel = tunnel(false).with_udp();
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    (tunnel, gateway(&scenario, A), gateway(&scenario, B))
}

fn moves(b: &mut TestGateway) -> Vec<(Peer, Peer)> {
    let notices = notices(b).into_iter();
    let moves = notices.filter_map(|notice| match notice {
        Notice::Mapping { old, new, .. } => Some((old, new)),
        _ => None,
    });
    moves.collect()
}

/// The same packet from another address and port.
fn from(packet: &[u8], peer: Peer) -> Vec<u8> {
    let IpAddr::V4(address) = peer.address else { panic!("IPv4") };
    with(&with(packet, 12, &address.octets()), 20, &peer.port.to_be_bytes())
}

/// U10, U11: a packet that is authentic and newer than all others moves the peer, once; a forgery,
/// a copy, and one that is only late do not, whatever address they come from.
#[test]
fn only_the_newest_authentic_packet_moves_the_peer() {
    let (tunnel, mut a, mut b) = roamed_to();
    let home = Peer { address: tunnel.outer[A], port: 4500 };
    let new = Peer { address: [198, 18, 0, 1].into(), port: 61000 };
    let attacker = Peer { address: [203, 0, 113, 66].into(), port: 666 };
    let sent: Vec<_> = (0..6).map(|_| one(&mut a, (A, LAN), &plain())).collect();
    // Number 1 from home, 3 from the new place; then attacks.
    one(&mut b, (B, WAN), &sent[0]);
    assert_eq!(moves(&mut b), []);
    one(&mut b, (B, WAN), &from(&sent[2], new));
    assert_eq!(moves(&mut b), [(home, new)]);
    none(&mut b, (B, WAN), &from(&sent[2], attacker));
    none(&mut b, (B, WAN), &from(&sent[0], attacker));
    let mut forged = from(&sent[5], attacker);
    *forged.last_mut().unwrap() ^= 1;
    none(&mut b, (B, WAN), &forged);
    // Number 2 was on its way when the peer moved, or an attacker has kept it back: it is
    // delivered.
    one(&mut b, (B, WAN), &from(&sent[1], attacker));
    assert_eq!(moves(&mut b), []);
    one(&mut b, (B, WAN), &from(&sent[3], new));
    assert_eq!(moves(&mut b), [], "told once");
    // Raw ESP says nothing of ports.
    let raw = packet(addresses(&tunnel), 50, &sent[4][28..]);
    one(&mut b, (B, WAN), &raw);
    assert_eq!(moves(&mut b), []);
    one(&mut b, (B, WAN), &from(&sent[5], home));
    assert_eq!(moves(&mut b), [(new, home)]);
}

/// U10: of several new packets in one batch each that is newest is believed, so the last decides.
#[test]
fn a_batch_moves_the_peer_to_its_newest() {
    let (tunnel, mut a, mut b) = roamed_to();
    let home = Peer { address: tunnel.outer[A], port: 4500 };
    let peer = |port| Peer { address: [198, 18, 0, 1].into(), port };
    let sent: Vec<_> = (0..3).map(|_| one(&mut a, (A, LAN), &plain())).collect();
    let batch = [from(&sent[1], peer(2)), from(&sent[0], peer(1)), from(&sent[2], peer(3))];
    let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
    assert_eq!(through(&mut b, (B, WAN), &batch).len(), 3);
    assert_eq!(moves(&mut b), [(home, peer(2)), (peer(2), peer(3))]);
}

/// U01, U10: when control says so, packets go to the new address and port, on the same SA.
#[test]
fn packets_follow_the_peer() {
    let (tunnel, _, mut b) = roamed_to();
    let hosts = (Scenario::host(B, 0, false, 5), Scenario::host(A, 0, false, 5));
    let back = packet(hosts, 17, &packets::udp(hosts, 5));
    let before = one(&mut b, (B, LAN), &back);
    assert_eq!(
        before[12..24],
        [&[192, 0, 3, 10, 192, 0, 2, 10][..], &[0x11, 0x94, 0x11, 0x94]].concat()
    );
    let id = b.controller.find(Direction::Outbound, tunnel.spi[B].value()).unwrap();
    let peer = Peer { address: [198, 18, 0, 1].into(), port: 61000 };
    b.controller.retarget(id, peer).unwrap();
    b.settle().unwrap();
    let after = one(&mut b, (B, LAN), &back);
    let [high, low] = 61000u16.to_be_bytes();
    assert_eq!(after[12..24], [192, 0, 3, 10, 198, 18, 0, 1, 0x11, 0x94, high, low]);
    assert_eq!(packets::internet(&after[..20]), 0, "the header checksum is right");
    assert_eq!(
        after[28..36],
        [&before[28..32], &[0, 0, 0, 2]].concat(),
        "the same SA, next number"
    );
}

/// I04, U09c: with SPIs of their own two clients behind one NAT are two SAs, whatever port they
/// come from; and a source in the lookup keeps others out.
#[test]
fn two_clients_behind_one_nat() {
    let nat = IpAddr::from([198, 18, 0, 1]);
    let clients = [0, 1].map(|index| Tunnel::ordinary(index).with_udp());
    let mut scenario = Scenario::quiet(clients.to_vec());
    let mut a = gateway(&scenario, A);
    for tunnel in &mut scenario.tunnels {
        // Both send from one address, to one address of B's.
        let outer = [nat, clients[0].outer[B]];
        *tunnel = Tunnel { outer, ..tunnel.clone() }.with_udp();
    }
    let mut b = changed(&scenario, B, |config| {
        config.sas.iter_mut().for_each(|sa| sa.lookup = Lookup::SpiDestinationSource);
    });
    for index in [0, 1, 1, 0] {
        let hosts = [A, B].map(|side| Scenario::host(side, index, false, 5));
        let plain = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 3));
        let mut sent = one(&mut a, (A, LAN), &plain);
        sent = from(&sent, Peer { address: nat, port: 40000 + u16::from(index) });
        let IpAddr::V4(destination) = clients[0].outer[B] else { panic!("IPv4") };
        sent = with(&sent, 16, &destination.octets());
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)));
        let stranger = from(&sent, Peer { address: [198, 18, 0, 2].into(), port: 4500 });
        assert_eq!(none(&mut b, (B, WAN), &stranger), Fate::Drop(DropReason::NoSa));
    }
}

/// U06: after 20 seconds without a packet of its own an encapsulated SA sends one octet 0xff to
/// its peer's port, and again after 20 more; any packet begins the time anew.
#[test]
fn keepalives_are_sent_when_idle() {
    for six in [false, true] {
        let tunnel = tunnel(six).with_udp();
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let mut a = changed(&scenario, A, |config| {
            config.sas.iter_mut().for_each(|sa| sa.sending.keepalive = Some(20 * SECOND));
        });
        let mut idle = |now: u64| through_at(&mut a, (A, LAN), &[], now);
        assert!(idle(20 * SECOND - 1).is_empty());
        let sent = idle(20 * SECOND + SECOND / 10);
        assert_eq!(sent.len(), 1);
        let sum = if six { Sum::Right } else { Sum::Zero };
        let mut expected = datagram(addresses(&tunnel), 4500, sum, &[0xff]);
        if !six {
            expected = with(&expected, 4, &[sent[0][4], sent[0][5]]);
        }
        assert_eq!(sent[0], expected);
        let times: Vec<u64> = (21..=100).filter(|&s| !idle(s * SECOND).is_empty()).collect();
        assert_eq!(times, [41, 61, 81], "every 20 seconds and a tick");
        // A packet at 100 s.
        assert_eq!(through_at(&mut a, (A, LAN), &[&plain()], 100 * SECOND).len(), 1);
        let mut idle = |now: u64| through_at(&mut a, (A, LAN), &[], now);
        let times: Vec<u64> = (101..=130).filter(|&s| !idle(s * SECOND).is_empty()).collect();
        assert_eq!(times, [120]);
        assert_eq!(a.counters().answered, 5);
    }
}

/// U06: an SA without encapsulation sends no keepalives.
#[test]
fn no_keepalives_without_udp() {
    let mut a = changed(&Scenario::quiet(vec![tunnel(false)]), A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.sending.keepalive = Some(20 * SECOND));
    });
    assert!((1..100).all(|s| through_at(&mut a, (A, LAN), &[], s * SECOND).is_empty()));
}
