//! What control is told about an SA that packets went through.

use culvert_control::Direction;
use culvert_engine::DropReason;
use culvert_engine::Inspection;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::encapsulate;
use crate::support::gateway;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::turn_all;

/// Asks about the only SA of a direction, lets the workers turn at `now`, and takes the answer.
fn inspected(gateway: &mut TestGateway, direction: Direction, now: u64) -> Inspection {
    let controller = &mut gateway.controller;
    let mut ids = controller.ids();
    let is_it = |id: &_| controller.spi(*id).is_some_and(|(of, _)| of == direction);
    let id = ids.find(is_it).unwrap();
    drop(ids);
    controller.inspect(id).unwrap();
    controller.poll().unwrap();
    turn_all(gateway, now);
    gateway.controller.poll().unwrap();
    gateway.controller.take_inspection(id).unwrap()
}

/// Times, counts, the window's bits and drops are the worker's own, at both ends.
#[test]
fn an_sa_tells_what_packets_did() {
    let scenario = ordinary();
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let sent: Vec<_> = (0..6).map(|id| encapsulate(&mut a, A, &plain(A, false, id))).collect();
    let out = inspected(&mut a, Direction::Outbound, 0);
    assert_eq!((out.packets, out.sequence, out.window), (6, 6, None));
    for (now, frame) in [(100, 1), (200, 4), (300, 4), (400, 2)] {
        assert!(b.workers[0].io_mut().inject(WAN, &sent[frame]));
        turn_all(&mut b, now);
    }
    let seen = inspected(&mut b, Direction::Inbound, 500);
    assert_eq!((seen.first_used, seen.last_used), (Some(100), Some(400)));
    assert_eq!((seen.packets, seen.sequence, seen.is_expired), (3, 5, false));
    assert_eq!((seen.bytes, seen.packets), (out.bytes / 2, out.packets / 2));
    assert_eq!(seen.dropped[DropReason::Replay as usize], 1);
    let window = seen.window.unwrap();
    let accepted: Vec<u64> = (1..10).filter(|&number| window.was_seen(number)).collect();
    assert_eq!((accepted, window.top(), window.size()), (vec![2, 3, 5], 5, 1024));
}
