//! Policy in both directions, and packets whose next hop is not resolved yet.

use std::net::IpAddr;

use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::hold::HELD_NS_MAX;
use culvert_engine::hold::HELD_PER_TARGET_MAX;
use culvert_engine::next_hop::Target;
use culvert_sim::plain::Plain;
use culvert_sim::plain::find_id;
use culvert_sim::plain::link_frame;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ip;

use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::assert_dropped_only;
use crate::support::encapsulate;
use crate::support::fates;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::gateway_with;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::sealed;
use crate::support::text;
use crate::support::to_host;
use crate::support::turn;
use crate::support::turn_all;

fn to(destination: [u8; 4], id: u64) -> Plain {
    Plain { destination: destination.into(), ..plain(A, false, id) }
}

/// P02: BYPASS forwards in clear, with the TTL one lower and nothing else changed.
#[test]
fn bypass_forwards_in_clear() {
    let mut a = gateway(&ordinary(), A);
    let plain = to([198, 51, 100, 7], 1);
    let sent = turn(&mut a, 0, LAN, &[&from_host(A, &plain)]);
    let packet = Plain { ttl: 63, ..plain }.packet();
    let (peer, us) = (gateway_mac(B, WAN), gateway_mac(A, WAN));
    assert_eq!(sent, [link_frame(peer, us, None, 0x0800, &packet)]);
    assert_eq!(fates(&a), [Fate::Bypass(WAN)]);
    assert_eq!((a.counters().bypassed, a.counters().forwarded), (1, 0));
}

/// P02, P03: DISCARD and no policy drop, each under its own reason, and nothing leaves.
#[test]
fn discard_and_no_policy() {
    let mut a = gateway(&ordinary(), A);
    for (destination, reason) in
        [([203, 0, 113, 7], DropReason::Discard), ([192, 0, 2, 77], DropReason::NoPolicy)]
    {
        assert!(turn(&mut a, 0, LAN, &[&from_host(A, &to(destination, 1))]).is_empty());
        assert_eq!(fates(&a), [Fate::Drop(reason)]);
    }
}

/// P03: of two policies that match the first one wins, whichever is narrower.
#[test]
fn first_match_wins() {
    let scenario = ordinary();
    let excepted: IpAddr = [10, 2, 0, 66].into();
    let discard = |destination: &str| {
        let source = "10.1.0.0/16".parse().unwrap();
        let selector = Selector::between(source, destination.parse().unwrap()).unwrap();
        Policy::new(selector, Action::Discard)
    };
    let next_hops = || scenario.next_hops(A, KNOWN);
    let mut before = gateway_with(&scenario, A, next_hops(), |config| {
        config.spd.outbound.insert(0, discard("10.2.0.66/32"));
    });
    let mut after = gateway_with(&scenario, A, next_hops(), |config| {
        config.spd.outbound.push(discard("10.2.0.66/32"));
    });
    let to_excepted = from_host(A, &Plain { destination: excepted, ..plain(A, false, 1) });
    let to_other = from_host(A, &plain(A, false, 2));
    assert_eq!(turn(&mut before, 0, LAN, &[&to_excepted, &to_other]).len(), 1);
    assert_dropped_only(&before.counters(), DropReason::Discard, 1);
    assert_eq!(turn(&mut after, 0, LAN, &[&to_excepted, &to_other]).len(), 2);
    assert_eq!(after.counters().dropped_total(), 0);
}

/// P01: a new policy is in force from the next turn on, also for flows that were seen before.
#[test]
fn new_policies_replace_cached_ones() {
    let scenario = ordinary();
    let mut a = gateway(&scenario, A);
    let frame = from_host(A, &plain(A, false, 1));
    assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), 1);
    let mut spd = scenario.policies(A);
    spd.outbound.clear();
    a.controller.set_policies(&spd);
    a.settle().unwrap();
    assert!(turn(&mut a, 0, LAN, &[&frame]).is_empty());
    assert_dropped_only(&a.counters(), DropReason::NoPolicy, 1);
}

/// P09: what comes out of an SA must be something the SA is for: right source and destination, and
/// of the group that the first matching policy names. The SA itself is not harmed.
#[test]
fn selectors_bind_what_comes_out() {
    let tunnels = (0..2).map(Tunnel::ordinary).collect();
    let scenario = Scenario::quiet(tunnels);
    let mut b = gateway(&scenario, B);
    let of_tunnel_1 = |side| Scenario::host(side, 1, false, 5);
    let good = plain(A, false, 1);
    let bad = [
        Plain { source: Scenario::foreign_host(A, false), ..good },
        Plain { destination: Scenario::foreign_host(B, false), ..good },
        // In order for tunnel 1, but it came out of tunnel 0.
        Plain::new(of_tunnel_1(A), of_tunnel_1(B), 2),
        // The other way round: a host of ours as source.
        Plain::new(good.destination, good.source, 3),
    ];
    for (seq, plain) in (1..).zip(&bad) {
        let frame = sealed(&scenario, A, seq, &text(&plain.packet(), ip::PROTOCOL_IPIP));
        assert!(turn(&mut b, 0, WAN, &[&frame]).is_empty());
        assert_eq!(fates(&b), [Fate::Drop(DropReason::Selector)]);
    }
    let frame = sealed(&scenario, A, 9, &text(&good.packet(), ip::PROTOCOL_IPIP));
    assert_eq!(turn(&mut b, 0, WAN, &[&frame]).len(), 1);
}

/// P09 in the other direction: without any inbound policy nothing comes out, however authentic.
#[test]
fn without_inbound_policy_nothing_comes_out() {
    let scenario = ordinary();
    let mut a = gateway(&scenario, A);
    let mut b = gateway_with(&scenario, B, scenario.next_hops(B, KNOWN), |config| {
        config.spd.inbound.clear();
    });
    let frame = encapsulate(&mut a, A, &plain(A, true, 1));
    assert!(turn(&mut b, 0, WAN, &[&frame]).is_empty());
    assert_dropped_only(&b.counters(), DropReason::Selector, 1);
}

/// An unresolved next hop is asked for once; packets wait, and leave in order as soon as it is
/// known, encrypted and with their own numbers.
#[test]
fn outbound_packets_wait_for_their_next_hop() {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, [false; 4]), |_| {});
    let mut b = gateway(&scenario, B);
    for id in 1..=3 {
        let frame = from_host(A, &plain(A, false, id));
        assert!(turn(&mut a, 0, LAN, &[&frame]).is_empty());
    }
    assert_eq!((a.workers[0].held(), a.counters().held), (3, 3));
    a.controller.poll().unwrap();
    let router = Target { interface: 2, address: [192, 0, 2, 254].into() };
    assert_eq!(a.controller.take_unresolved(), [router]);
    a.controller.set_next_hops(scenario.next_hops(A, KNOWN));
    a.controller.poll().unwrap();
    let sent = turn_all(&mut a, HELD_NS_MAX - 1);
    let seq = |frame: &Vec<u8>| match esp::classify(frame) {
        Ok(Unprotected::Esp(outer)) => outer.seq,
        other => panic!("not ESP: {other:?}"),
    };
    assert_eq!(sent.iter().map(seq).collect::<Vec<_>>(), [1, 2, 3]);
    let counters = a.counters();
    assert_eq!((counters.released, counters.forwarded, counters.dropped_total()), (3, 3, 0));
    let frames: Vec<_> = sent.iter().map(Vec::as_slice).collect();
    let delivered = turn(&mut b, 0, WAN, &frames);
    assert_eq!(delivered[2], to_host(B, &plain(A, false, 3)));
}

/// The same for decrypted packets that wait for a host; a later packet does not overtake them.
#[test]
fn inbound_packets_wait_for_their_host() {
    let scenario = ordinary();
    let mut a = gateway(&scenario, A);
    let mut b = gateway_with(&scenario, B, scenario.next_hops(B, [false; 4]), |_| {});
    let frames: Vec<_> = (1..=3).map(|id| encapsulate(&mut a, A, &plain(A, true, id))).collect();
    assert!(turn(&mut b, 0, WAN, &[&frames[0], &frames[1]]).is_empty());
    b.controller.poll().unwrap();
    assert_eq!(b.controller.take_unresolved().len(), 1);
    b.controller.set_next_hops(scenario.next_hops(B, KNOWN));
    b.controller.poll().unwrap();
    let delivered = turn(&mut b, 0, WAN, &[&frames[2]]);
    let ids: Vec<_> = delivered.iter().map(|frame| find_id(frame).unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(delivered[0], to_host(B, &plain(A, true, 1)));
}

/// A packet in clear that waited counts as bypassed, like one that did not.
#[test]
fn bypassed_packets_wait_too() {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, [false; 4]), |_| {});
    assert!(turn(&mut a, 0, LAN, &[&from_host(A, &to([198, 51, 100, 7], 1))]).is_empty());
    a.controller.set_next_hops(scenario.next_hops(A, KNOWN));
    a.controller.poll().unwrap();
    assert_eq!(find_id(&turn_all(&mut a, 0)[0]), Some(1));
    let counters = a.counters();
    assert_eq!((counters.held, counters.released), (1, 1));
    assert_eq!((counters.bypassed, counters.forwarded), (1, 0));
}

/// The MTU of a link that was not known when a packet was finished still binds it, both ways.
#[test]
fn held_packets_fit_the_link_they_leave_by() {
    let scenario = ordinary();
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, [false; 4]), |_| {});
    let mut b = gateway_with(&scenario, B, scenario.next_hops(B, [false; 4]), |_| {});
    let with = |payload_len, id| Plain { payload_len, ..plain(A, false, id) };
    let [fits, too_big] = [with(1418, 1), with(1419, 2)].map(|plain| from_host(A, &plain));
    turn(&mut a, 0, LAN, &[&fits, &too_big]);
    // A jumbo frame from the wire, for hosts that cannot take it.
    let jumbo = with(1600, 3).packet();
    turn(&mut b, 0, WAN, &[&sealed(&scenario, A, 1, &text(&jumbo, 4))]);
    for (side, gateway, sent) in [(A, &mut a, 1), (B, &mut b, 0)] {
        let next_hops = scenario.next_hops(side, KNOWN);
        gateway.controller.set_next_hops(next_hops);
        gateway.controller.poll().unwrap();
        assert_eq!(turn_all(gateway, 0).len(), sent);
        assert_dropped_only(&gateway.counters(), DropReason::TooBig, 1);
    }
}

/// A silent neighbour costs its own packets after a while, and nobody else's.
#[test]
fn hold_is_bounded_and_times_out() {
    let scenario = ordinary();
    let unknown_v4 = [true, true, false, true];
    let mut a = gateway_with(&scenario, A, scenario.next_hops(A, unknown_v4), |_| {});
    let frames: Vec<_> = (0..20).map(|id| from_host(A, &plain(A, false, id))).collect();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    assert!(turn(&mut a, 0, LAN, &frames).is_empty());
    assert_eq!(a.workers[0].held(), HELD_PER_TARGET_MAX);
    assert_dropped_only(&a.counters(), DropReason::HoldFull, 4);
    // IPv6 in clear leaves by another router, which is known.
    let bypass = Plain { destination: "3fff:b::1".parse().unwrap(), ..plain(A, true, 99) };
    assert_eq!(turn(&mut a, 0, LAN, &[&from_host(A, &bypass)]).len(), 1);
    assert!(turn_all(&mut a, HELD_NS_MAX).is_empty());
    assert_eq!(a.workers[0].held(), 0);
    let counters = a.counters();
    assert_eq!(counters.dropped(DropReason::HoldTimeout), HELD_PER_TARGET_MAX as u64);
    assert!(counters.balanced());
}

/// Two groups: each flow takes the SA its policy names.
#[test]
fn flows_take_the_sa_of_their_policy() {
    let tunnels = (0..3).map(Tunnel::ordinary).collect();
    let scenario = Scenario::quiet(tunnels);
    let mut a = gateway(&scenario, A);
    for index in 0..3 {
        let host = |side| Scenario::host(side, index, true, 5);
        let plain = Plain::new(host(A), host(B), 1);
        encapsulate(&mut a, A, &plain);
        let spi = scenario.tunnels[usize::from(index)].spi[A].value();
        assert_eq!(a.workers[0].last_verdicts()[0].spi, Some(spi), "{:?}", Group(index.into()));
    }
}
