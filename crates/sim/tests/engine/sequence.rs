//! The last sequence numbers of an SA, and the boundary at 2^32 with extended ones.

use culvert_engine::DropReason;
use culvert_sim::plain::find_id;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::assert_dropped_only;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::plain;
use crate::support::turn;

fn starting_at(start: u64, esn: bool) -> Scenario {
    let tunnel = Tunnel { start: [start; 2], esn, window: [64; 2], ..Tunnel::ordinary(0) };
    Scenario::quiet(vec![tunnel])
}

/// Sends `count` packets one after the other; what A sent, and the whole numbers it spent.
fn spend(scenario: &Scenario, count: u64) -> (Vec<Vec<u8>>, Vec<Option<u64>>) {
    let mut a = gateway(scenario, A);
    let frames: Vec<_> = (0..count).map(|id| from_host(A, &plain(A, false, id))).collect();
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    let sent = turn(&mut a, 0, LAN, &frames);
    let dropped = count - sent.len() as u64;
    if dropped > 0 {
        assert_dropped_only(&a.counters(), DropReason::SequenceExhausted, dropped);
    }
    let numbers = a.workers[0].last_verdicts().iter().map(|verdict| verdict.seq);
    (sent, numbers.collect())
}

fn delivered(scenario: &Scenario, frames: &[Vec<u8>]) -> Vec<u64> {
    let mut b = gateway(scenario, B);
    let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
    let delivered = turn(&mut b, 0, WAN, &frames);
    delivered.iter().map(|frame| find_id(frame).unwrap()).collect()
}

/// E03: without ESN the last number is 2^32 - 1. It is used and accepted, and nothing after it.
#[test]
fn last_number_without_esn() {
    let scenario = starting_at(u64::from(u32::MAX) - 2, false);
    let (sent, numbers) = spend(&scenario, 5);
    assert_eq!(numbers, [Some(0xffff_fffe), Some(0xffff_ffff), None, None, None]);
    assert_eq!(delivered(&scenario, &sent), [0, 1]);
}

/// E03: with ESN the last number is 2^64 - 1.
#[test]
fn last_number_with_esn() {
    let scenario = starting_at(u64::MAX - 2, true);
    let (sent, numbers) = spend(&scenario, 5);
    assert_eq!(numbers, [Some(u64::MAX - 1), Some(u64::MAX), None, None, None]);
    assert_eq!(delivered(&scenario, &sent), [0, 1]);
}

/// I18: with ESN nothing special happens at 2^32, in order, in reverse order, and one at a time.
#[test]
fn boundary_with_esn() {
    let scenario = starting_at((1 << 32) - 11, true);
    let (sent, numbers) = spend(&scenario, 20);
    assert_eq!(numbers[9..12], [Some((1 << 32) - 1), Some(1 << 32), Some((1 << 32) + 1)]);
    assert_eq!(delivered(&scenario, &sent), (0..20).collect::<Vec<_>>());
    let reversed: Vec<_> = sent.iter().rev().cloned().collect();
    assert_eq!(delivered(&scenario, &reversed), (0..20).rev().collect::<Vec<_>>());
    let mut b = gateway(&scenario, B);
    let one_by_one = sent.iter().filter(|frame| turn(&mut b, 0, WAN, &[frame]).len() == 1);
    assert_eq!(one_by_one.count(), 20);
    let inbound = b.samples().find(|sample| sample.inbound).unwrap();
    assert_eq!(inbound.sequence, (1 << 32) + 9);
    // All of it again, now that the window spans the boundary: nothing is accepted.
    let again = sent.iter().filter(|frame| !turn(&mut b, 0, WAN, &[frame]).is_empty());
    assert_eq!(again.count(), 0);
}

/// E01, M09: a fresh SA begins with 1.
#[test]
fn first_number() {
    for esn in [false, true] {
        assert_eq!(spend(&starting_at(0, esn), 2).1, [Some(1), Some(2)]);
    }
}
