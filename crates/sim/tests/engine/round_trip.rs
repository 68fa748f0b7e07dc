//! From host to host through two gateways, in every form there is, without a copy.

use culvert_aead::Algorithm;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::plain::PAYLOAD_MIN;
use culvert_sim::plain::Plain;
use culvert_sim::plain::find_id;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;

use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::plain;
use crate::support::recycle;
use crate::support::to_host;

/// Octets of an untagged Ethernet header.
const LINK: usize = 14;
/// Lets a frame through worker 0; returns what it sends, and where in memory the frame began.
fn pass(gateway: &mut TestGateway, from: Port, to: Port, frame: &[u8]) -> (Packet, *const u8) {
    let worker = &mut gateway.workers[0];
    let free = worker.io_mut().take_free().unwrap();
    let packet = free.with_contents(from, frame).unwrap();
    let address = packet.data().as_ptr();
    worker.io_mut().inject_packet(packet);
    worker.turn(0);
    let sent = worker.io_mut().take_sent(to);
    let counters = worker.counters();
    (sent.unwrap_or_else(|| panic!("nothing sent: {counters:?}")), address)
}

fn outer(frame: &[u8]) -> Outer {
    match esp::classify(frame) {
        Ok(Unprotected::Esp(outer)) => outer,
        other => panic!("not ESP: {other:?}"),
    }
}

/// Sends packets of several lengths from A to B and checks everything about them.
fn check(scenario: &Scenario, inner_six: bool) {
    let mut a = gateway(scenario, A);
    let mut b = gateway(scenario, B);
    let tunnel = &scenario.tunnels[0];
    for (seq, payload_len) in (1..).zip([16, 17, 18, 19, 1100, 1300]) {
        assert!(payload_len >= PAYLOAD_MIN);
        let plain = Plain { payload_len, ..plain(A, inner_six, u64::from(seq)) };
        let frame = from_host(A, &plain);

        let (sent, address) = pass(&mut a, LAN, WAN, &frame);
        let header = outer(sent.data());
        assert_eq!((header.spi, header.seq), (tunnel.spi[A].value(), seq));
        assert_eq!((header.source, header.destination), (tunnel.outer[A], tunnel.outer[B]));
        assert_eq!(header.encapsulated, tunnel.seen_at.is_some());
        let text_at = header.esp_at + tunnel.algorithm.text_at();
        assert_eq!(sent.data()[text_at..].as_ptr(), address.wrapping_add(LINK), "not copied");
        let seen = find_id(sent.data()).is_some();
        assert_eq!(seen, !tunnel.algorithm.is_encrypting(), "in clear only without encryption");
        assert_eq!((header.end - header.esp_at) % 4, 0, "E08");
        let on_wire = sent.data().to_vec();
        recycle(&mut a, sent);

        let (delivered, address) = pass(&mut b, WAN, LAN, &on_wire);
        let inner = delivered.data()[LINK..].as_ptr();
        assert_eq!(inner, address.wrapping_add(text_at), "not copied");
        // P19: a TTL two lower, a right checksum, and nothing else changed.
        assert_eq!(delivered.data(), to_host(B, &plain));
        recycle(&mut b, delivered);
    }
}

fn check_all(inner_six: bool, outer_six: bool) {
    for algorithm in Algorithm::ALL {
        for (udp, esn) in [(false, false), (false, true), (true, false), (true, true)] {
            let tunnel = Tunnel::ordinary(0).with_outer(outer_six).with_algorithm(algorithm);
            let tunnel = if udp { tunnel.with_udp() } else { tunnel };
            check(&Scenario::quiet(vec![Tunnel { esn, ..tunnel }]), inner_six);
        }
    }
}

/// IPv4 in IPv4: raw and in UDP, all algorithms, with and without ESN.
#[test]
fn v4_in_v4() {
    check_all(false, false);
}

/// IPv4 in IPv6: raw and in UDP, all algorithms, with and without ESN.
#[test]
fn v4_in_v6() {
    check_all(false, true);
}

/// IPv6 in IPv4: raw and in UDP, all algorithms, with and without ESN.
#[test]
fn v6_in_v4() {
    check_all(true, false);
}

/// IPv6 in IPv6: raw and in UDP, all algorithms, with and without ESN.
#[test]
fn v6_in_v6() {
    check_all(true, true);
}

/// VLAN tags are put on and taken off where next hops say so.
#[test]
fn vlan_tags() {
    let scenario = Scenario {
        lan_vlan: Some(7),
        wan_vlan: Some(4094),
        ..Scenario::quiet(vec![Tunnel::ordinary(0)])
    };
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    // An untagged packet grows by the tag as well.
    let (sent, _) = pass(&mut a, LAN, WAN, &from_host(A, &plain(A, false, 1)));
    assert_eq!(sent.data()[12..16], [0x81, 0, 0x0f, 0xfe]);
    let on_wire = sent.data().to_vec();
    recycle(&mut a, sent);
    let (delivered, _) = pass(&mut b, WAN, LAN, &on_wire);
    assert_eq!(delivered.data()[12..16], [0x81, 0, 0, 7]);
    assert_eq!(delivered.data()[18..], to_host(B, &plain(A, false, 1))[14..]);
    recycle(&mut b, delivered);
}

/// U09: an SA without encapsulation accepts its packets in UDP, and the other way round.
#[test]
fn raw_and_encapsulated_are_one_sa() {
    let raw = Scenario::quiet(vec![Tunnel::ordinary(0)]);
    let udp = Scenario::quiet(vec![Tunnel::ordinary(0).with_udp()]);
    for (sending, receiving) in [(&raw, &udp), (&udp, &raw)] {
        let mut a = gateway(sending, A);
        let mut b = gateway(receiving, B);
        let (sent, _) = pass(&mut a, LAN, WAN, &from_host(A, &plain(A, true, 1)));
        let on_wire = sent.data().to_vec();
        recycle(&mut a, sent);
        let (delivered, _) = pass(&mut b, WAN, LAN, &on_wire);
        assert_eq!(delivered.data(), to_host(B, &plain(A, true, 1)));
        recycle(&mut b, delivered);
    }
}
