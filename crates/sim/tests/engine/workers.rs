//! Several workers: packets that arrive at one that does not own their SA, and duplicates.

use culvert_engine::DropReason;
use culvert_engine::Side;
use culvert_engine::WorkerId;
use culvert_sim::gateway::Room;
use culvert_sim::plain::find_id;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::assert_dropped_only;
use crate::support::assert_frames_conserved;
use crate::support::encapsulate;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::to_host;
use crate::support::turn;
use crate::support::turn_all;

fn two_workers() -> Scenario {
    Scenario { workers: vec![2; 2], ..ordinary() }
}

/// The worker that owns the only SA of a direction, and the other one.
fn owner(gateway: &TestGateway, inbound: bool) -> (usize, usize) {
    let owns = |worker: usize| gateway.workers[worker].samples().any(|s| s.inbound == inbound);
    if owns(0) { (0, 1) } else { (1, 0) }
}

fn ids(frames: &[Vec<u8>]) -> Vec<u64> {
    frames.iter().map(|frame| find_id(frame).unwrap()).collect()
}

/// I08: two copies of a packet in one batch are delivered once.
#[test]
fn duplicates_in_one_batch() {
    let scenario = ordinary();
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    let one = encapsulate(&mut a, A, &plain(A, false, 1));
    let two = encapsulate(&mut a, A, &plain(A, false, 2));
    let delivered = turn(&mut b, 0, WAN, &[&one, &two, &one, &one, &two]);
    assert_eq!(ids(&delivered), [1, 2]);
    assert_eq!(delivered[0], to_host(B, &plain(A, false, 1)));
    assert_dropped_only(&b.counters(), DropReason::Replay, 3);
}

/// I08: two copies that arrive at two workers at once are delivered once, whoever turns first.
#[test]
fn duplicates_at_two_workers() {
    for other_first in [false, true] {
        let scenario = two_workers();
        let mut a = gateway(&scenario, A);
        let mut b = gateway(&scenario, B);
        let (owner, other) = owner(&b, true);
        let frames: Vec<_> = turn_both(&mut a, &[1, 2, 3]);
        for frame in &frames {
            for worker in [owner, other] {
                assert!(b.workers[worker].io_mut().inject(WAN, frame));
            }
        }
        let first = if other_first { other } else { owner };
        b.workers[first].turn(0);
        let mut delivered = turn_all(&mut b, 0);
        delivered.extend(turn_all(&mut b, 0));
        assert_eq!(ids(&delivered), [1, 2, 3]);
        assert_dropped_only(&b.counters(), DropReason::Replay, 3);
        assert_frames_conserved(&mut b, &scenario);
    }
}

/// Encapsulates packets at the owner of the outbound SA.
fn turn_both(gateway: &mut TestGateway, ids: &[u64]) -> Vec<Vec<u8>> {
    let (owner, _) = owner(gateway, false);
    let frames: Vec<_> = ids.iter().map(|&id| from_host(A, &plain(A, false, id))).collect();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    turn(gateway, owner, LAN, &frames)
}

/// Packets of one SA that arrive alternately at two workers are all sent, each worker's in order,
/// in both directions, and every worker keeps its number of frames.
#[test]
fn alternate_queues() {
    let scenario = two_workers();
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    let mut received = Vec::new();
    let mut next_id = 1u64..;
    for _ in 0..200 {
        for worker in 0..2 {
            let id = next_id.next().unwrap();
            let frame = from_host(A, &plain(A, id.is_multiple_of(3), id));
            assert!(a.workers[worker].io_mut().inject(LAN, &frame));
        }
        let sent = turn_all(&mut a, 0);
        assert_frames_conserved(&mut a, &scenario);
        for (index, frame) in sent.iter().enumerate() {
            assert!(b.workers[index % 2].io_mut().inject(WAN, frame));
        }
        received.extend(ids(&turn_all(&mut b, 0)));
        assert_frames_conserved(&mut b, &scenario);
    }
    for frame in turn_all(&mut a, 0) {
        assert!(b.workers[0].io_mut().inject(WAN, &frame));
    }
    for _ in 0..2 {
        received.extend(ids(&turn_all(&mut b, 0)));
    }
    for gateway in [&a, &b] {
        let counters = gateway.counters();
        assert_eq!((counters.forwarded, counters.dropped_total()), (400, 0));
        assert!(counters.handed_off >= 150 && counters.handed_off == counters.taken);
    }
    assert_eq!(received.len(), 400);
    // Odd numbers came in at worker 0 of A, even ones at worker 1: two sources, each in order.
    for source in 0..2 {
        let of_source = received.iter().filter(|&id| id % 2 == source);
        assert!(of_source.is_sorted(), "order is kept for source {source}");
    }
}

/// What does not fit into the ring to the owner is dropped and counted at the source, in both
/// directions; what fits is not harmed.
#[test]
fn full_ring() {
    let scenario = Scenario { room: Room { handoff: 8, ..Room::default() }, ..two_workers() };
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    for (gateway, port, inbound) in [(&mut a, LAN, false), (&mut b, WAN, true)] {
        let (owner, other) = owner(gateway, inbound);
        let mut sender =
            crate::support::gateway(&Scenario { workers: vec![1; 2], ..ordinary() }, A);
        for id in 1..=20 {
            let frame = match inbound {
                true => encapsulate(&mut sender, A, &plain(A, false, id)),
                false => from_host(A, &plain(A, false, id)),
            };
            assert!(gateway.workers[other].io_mut().inject(port, &frame));
        }
        gateway.workers[other].turn(0);
        let side = if inbound { Side::Unprotected } else { Side::Protected };
        let source = WorkerId(u8::try_from(other).unwrap());
        assert_eq!(gateway.workers[owner].waiting_from(side, source), 8);
        assert_frames_conserved(gateway, &scenario);
        let counters = gateway.workers[other].counters();
        assert_eq!(counters.handed_off, 8);
        assert_dropped_only(counters, DropReason::HandoffFull, 12);
        let sent = turn_all(gateway, 0);
        assert_eq!(sent.len(), 8);
        assert_eq!(gateway.counters().forwarded, 8);
        if inbound {
            assert_eq!(ids(&sent), [1, 2, 3, 4, 5, 6, 7, 8], "the first of them");
        }
        assert_frames_conserved(gateway, &scenario);
    }
}

/// An owner without a free frame takes nothing: packets wait in the ring and none is lost.
#[test]
fn owner_without_frames() {
    let scenario = Scenario { frames: 4, ..two_workers() };
    let mut a = gateway(&scenario, A);
    let (owner, other) = owner(&a, false);
    let frame = |id| from_host(A, &plain(A, false, id));
    for id in 1..=4 {
        assert!(a.workers[other].io_mut().inject(LAN, &frame(id)));
        assert!(a.workers[owner].io_mut().inject(LAN, &frame(10 + id)));
    }
    a.workers[other].turn(0);
    a.workers[owner].turn(0);
    assert_eq!(a.workers[owner].io_mut().free_frames(), 0);
    assert!(a.workers[owner].is_handed_anything());
    assert_frames_conserved(&mut a, &scenario);
    // Frames come back from the port, and with them the packets.
    let mut sent = 0;
    for _ in 0..4 {
        sent += turn_all(&mut a, 0).len();
    }
    assert_eq!(sent, 8);
    assert_eq!(a.counters().dropped_total(), 0);
    assert_frames_conserved(&mut a, &scenario);
}

/// Several tunnels are spread over the workers, and each finds its packets wherever they arrive.
#[test]
fn many_tunnels_many_workers() {
    let tunnels = (0..6).map(Tunnel::ordinary).collect();
    let scenario = Scenario { workers: vec![3; 2], ..Scenario::quiet(tunnels) };
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    assert!(a.workers.iter().all(|worker| worker.samples().count() == 4));
    let mut delivered = Vec::new();
    for id in 0..60 {
        let index = u8::try_from(id % 6).unwrap();
        let host = |side| Scenario::host(side, index, false, 5);
        let plain = culvert_sim::plain::Plain::new(host(A), host(B), id);
        let worker = usize::try_from(id / 6 % 3).unwrap();
        let mut sent = turn(&mut a, worker, LAN, &[&from_host(A, &plain)]);
        sent.extend(turn_all(&mut a, 0));
        for frame in sent {
            delivered.extend(turn(&mut b, worker, WAN, &[&frame]));
            delivered.extend(turn_all(&mut b, 0));
        }
    }
    let delivered = ids(&delivered);
    assert_eq!(delivered, (0..60).collect::<Vec<_>>());
    assert_eq!(a.counters().dropped_total() + b.counters().dropped_total(), 0);
}
