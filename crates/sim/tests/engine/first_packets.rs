//! Packets that come before their policy has an SA.

use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::awaiting::AWAITING_NS_MAX;
use culvert_sim::plain::find_id;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Group;

use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::assert_dropped_only;
use crate::support::assert_frames_conserved;
use crate::support::changed;
use crate::support::fates;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::notices;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::turn;
use crate::support::turn_all;

/// A gateway that keeps `hold` packets for each group, and has no outbound SA; and its SAs.
fn without_sa(scenario: &Scenario, hold: u8) -> (TestGateway, Vec<SaSpec>) {
    let mut missing = Vec::new();
    let gateway = changed(scenario, A, |config| {
        config.options.acquire_hold = hold;
        let is_outbound = |sa: &SaSpec| sa.direction == Direction::Outbound;
        missing = config.sas.extract_if(.., |sa| is_outbound(sa)).collect();
    });
    (gateway, missing)
}

fn send(a: &mut TestGateway, worker: usize, ids: std::ops::Range<u64>) {
    let frames: Vec<_> = ids.map(|id| from_host(A, &plain(A, false, id))).collect();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    assert!(turn(a, worker, LAN, &frames).is_empty());
}

/// U13: packets that come before their SA leave with it, as many as may wait and in their order;
/// the SA is asked for, and the rest is dropped as without waiting.
#[test]
fn first_packets_wait_for_their_sa() {
    let scenario = ordinary();
    let (mut a, missing) = without_sa(&scenario, 4);
    send(&mut a, 0, 0..6);
    let dropped = Fate::Drop(DropReason::NoOutboundSa);
    assert_eq!(fates(&a), [Fate::Held, Fate::Held, Fate::Held, Fate::Held, dropped, dropped]);
    let asked = notices(&mut a);
    let is_acquire = |notice: &&Notice| matches!(notice, Notice::Acquire { group: Group(0), .. });
    assert!(asked.iter().any(|notice| is_acquire(&notice)));
    assert_frames_conserved(&mut a, &scenario);
    // Other news are no SA.
    a.controller.set_policies(&scenario.gateway(A).spd);
    a.settle().unwrap();
    assert_eq!(a.workers[0].held(), 4);
    a.controller.add_sa(&missing[0]).unwrap();
    a.settle().unwrap();
    let worker = &mut a.workers[0];
    let sent: Vec<_> = std::iter::from_fn(|| worker.io_mut().take_sent_bytes(WAN)).collect();
    let mut b = gateway(&scenario, B);
    let sent: Vec<_> = sent.iter().map(Vec::as_slice).collect();
    let arrived = turn(&mut b, 0, WAN, &sent);
    let ids: Vec<_> = arrived.iter().map(|frame| find_id(frame).unwrap()).collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    assert_dropped_only(&a.counters(), DropReason::NoOutboundSa, 2);
    assert_eq!((a.counters().held, a.counters().released, a.workers[0].held()), (4, 4, 0));
    assert_frames_conserved(&mut a, &scenario);
}

/// A packet that has waited for three seconds is dropped as if it had not waited, and does not ask
/// for an SA a second time.
#[test]
fn first_packets_do_not_wait_for_ever() {
    let scenario = ordinary();
    let (mut a, _) = without_sa(&scenario, 4);
    send(&mut a, 0, 0..1);
    notices(&mut a);
    turn_all(&mut a, AWAITING_NS_MAX - 1);
    assert_eq!((a.workers[0].held(), notices(&mut a)), (1, vec![]));
    turn_all(&mut a, AWAITING_NS_MAX);
    assert_eq!(fates(&a), [Fate::Drop(DropReason::NoOutboundSa)]);
    let told = notices(&mut a);
    assert!(matches!(told[..], [Notice::Audit(_)]), "{told:?}");
    assert_frames_conserved(&mut a, &scenario);
}

/// What waits at one worker goes to the SA at another.
#[test]
fn first_packets_find_their_sa_at_another_worker() {
    let scenario = Scenario { workers: vec![2; 2], ..ordinary() };
    let (mut a, missing) = without_sa(&scenario, 1);
    for worker in [0, 1] {
        let id = worker as u64;
        send(&mut a, worker, id..id + 1);
    }
    assert_eq!(a.counters().held, 2);
    a.controller.add_sa(&missing[0]).unwrap();
    a.settle().unwrap();
    turn_all(&mut a, 0);
    assert_eq!((a.counters().handed_off, a.counters().forwarded), (1, 2));
    assert_eq!(a.counters().dropped_total(), 0);
}

/// All groups together have a bounded number of places, and one group has its share only.
#[test]
fn places_are_few() {
    let tunnels = (0..20).map(Tunnel::ordinary).collect();
    let (mut a, missing) = without_sa(&Scenario::quiet(tunnels), 4);
    assert_eq!(missing.len(), 20);
    let to = |index| {
        culvert_sim::plain::Plain::new(
            Scenario::host(A, index, false, 5),
            Scenario::host(B, index, false, 5),
            1,
        )
    };
    for _ in 0..6 {
        let frames: Vec<_> = (0..20).map(|index| from_host(A, &to(index))).collect();
        let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
        turn(&mut a, 0, LAN, &frames);
    }
    assert_eq!((a.counters().held, a.workers[0].held()), (64, 64));
    assert_dropped_only(&a.counters(), DropReason::NoOutboundSa, 120 - 64);
}
