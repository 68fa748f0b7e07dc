//! The last sequence numbers of an SA, and the boundary at 2^32 with extended ones.

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_esp::replay::RESYNC_AFTER;
use culvert_esp::replay::RESYNC_EVERY;
use culvert_sim::plain::find_id;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::assert_dropped_only;
use crate::support::changed;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::none;
use crate::support::one;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::sample;
use crate::support::through;
use crate::support::turn;
use crate::support::turn_all;

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

/// E03, M07: without ESN the last number is 2^32 - 1. It is used and accepted, and nothing after
/// it.
#[test]
fn last_number_without_esn() {
    let scenario = starting_at(u64::from(u32::MAX) - 2, false);
    let (sent, numbers) = spend(&scenario, 5);
    assert_eq!(numbers, [Some(0xffff_fffe), Some(0xffff_ffff), None, None, None]);
    assert_eq!(delivered(&scenario, &sent), [0, 1]);
}

/// E03, M07: with ESN the last number is 2^64 - 1.
#[test]
fn last_number_with_esn() {
    let scenario = starting_at(u64::MAX - 2, true);
    let (sent, numbers) = spend(&scenario, 5);
    assert_eq!(numbers, [Some(u64::MAX - 1), Some(u64::MAX), None, None, None]);
    assert_eq!(delivered(&scenario, &sent), [0, 1]);
}

/// G09, E03: with an implicit IV, which is the number, an SA ends as any other: at 2^32 - 1, or at
/// 2^64 - 1 with ESN. The last packets are sealed and opened, and no nonce comes twice.
#[test]
fn implicit_ivs_end_with_the_numbers() {
    for algorithm in
        [Algorithm::Aes128Gcm16Iiv, Algorithm::Aes256Gcm16Iiv, Algorithm::ChaCha20Poly1305Iiv]
    {
        for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let scenario = starting_at(last - 2, esn);
            let tunnel = scenario.tunnels[0].clone().with_algorithm(algorithm);
            let scenario = Scenario::quiet(vec![tunnel]);
            let (sent, numbers) = spend(&scenario, 5);
            assert_eq!(numbers, [Some(last - 1), Some(last), None, None, None], "{algorithm}");
            assert_eq!(delivered(&scenario, &sent), [0, 1]);
        }
    }
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

/// A packet of A's with any whole number, as IP.
fn numbered(scenario: &Scenario, seq: u64) -> Vec<u8> {
    let mut tunnel = scenario.tunnels[0].clone();
    tunnel.start = [seq - 1; 2];
    let mut a = gateway(&Scenario { frames: 2, ..Scenario::quiet(vec![tunnel]) }, A);
    one(&mut a, (A, LAN), &plain(A, false, seq).packet())
}

/// I19, I18: after a loss of more than 2^32 packets all that comes looks forged; one in 16 is tried
/// further up, and when one fits, the SA goes on from there. Until then nothing but verification
/// is spent: nothing forged is delivered, and no number is taken. For every kind of algorithm.
#[test]
fn resynchronisation_after_a_long_loss() {
    for algorithm in [
        Algorithm::Aes128Gcm16,
        Algorithm::ChaCha20Poly1305,
        Algorithm::Aes128Gcm16Iiv,
        Algorithm::ChaCha20Poly1305Iiv,
        Algorithm::Aes128CbcSha256,
        Algorithm::Aes128Gmac,
        Algorithm::NullSha256,
        Algorithm::AhSha256,
        Algorithm::AhAes128Gmac,
    ] {
        for subspaces in 1..=3u64 {
            let tunnel = Tunnel { esn: true, ..Tunnel::ordinary(0) };
            let scenario = Scenario::quiet(vec![tunnel.with_algorithm(algorithm)]);
            let mut b = gateway(&scenario, B);
            one(&mut b, (B, WAN), &numbered(&scenario, 1000));
            let first = (subspaces << 32) + 2000;
            let mut tries = 0;
            let accepted = (first..first + 500).find(|&seq| {
                tries += 1;
                !through(&mut b, (B, WAN), &[&numbered(&scenario, seq)]).is_empty()
            });
            let most = RESYNC_AFTER + 4 * RESYNC_EVERY;
            assert!((RESYNC_AFTER..=most).contains(&tries), "{algorithm}: {tries} tries");
            let accepted = accepted.unwrap();
            assert_eq!(sample(&b, true).sequence, accepted);
            assert_eq!(b.counters().dropped(DropReason::Icv), tries - 1);
            one(&mut b, (B, WAN), &numbered(&scenario, accepted + 1));
            let replay = Fate::Drop(DropReason::Replay);
            assert_eq!(none(&mut b, (B, WAN), &numbered(&scenario, accepted)), replay);
        }
    }
}

/// I22, M06: a receiver takes jumps of any size to the right, as leases, restarts and counters made
/// of time cause: by 2^31 - 1 and up to the last number; with ESN across a boundary of 2^32.
#[test]
fn jumps_to_the_right() {
    let run = |esn: bool, numbers: &[u64]| {
        let scenario = starting_at(0, esn);
        let mut b = gateway(&scenario, B);
        for &seq in numbers {
            one(&mut b, (B, WAN), &numbered(&scenario, seq));
            assert_eq!(sample(&b, true).sequence, seq);
        }
    };
    run(false, &[1, 1 << 31, u32::MAX.into()]);
    run(true, &[1, 1 << 31, (1 << 32) - 1, (1 << 32) + (1 << 31), (1 << 33) - 1]);
}

/// I21, M06: without anti-replay there is no window: what was seen comes again, also 0 and what is
/// far left; what is forged does not.
#[test]
fn without_a_window() {
    let scenario = ordinary();
    let mut b = changed(&scenario, B, |config| {
        config.sas.iter_mut().for_each(|sa| sa.replay_window = 0);
    });
    for seq in [5, 5, 1, 100_000, 1, 5] {
        one(&mut b, (B, WAN), &numbered(&scenario, seq));
    }
    let mut forged = numbered(&scenario, 7);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(none(&mut b, (B, WAN), &forged), Fate::Drop(DropReason::Icv));
    assert_eq!(sample(&b, true).packets, 6);
}

/// E02, E21, G02: packets that come in at three workers leave on one SA with numbers 1, 2, 3, ..,
/// each once and without a gap.
#[test]
fn numbers_of_several_workers() {
    let scenario = Scenario { workers: vec![3, 1], ..ordinary() };
    let mut a = gateway(&scenario, A);
    let mut numbers = Vec::new();
    let seq = |frame: &Vec<u8>| u32::from_be_bytes(*frame[14 + 20 + 4..].first_chunk().unwrap());
    for id in 0..300u64 {
        for worker in 0..3 {
            for copy in 0..id % 4 {
                let frame = from_host(A, &plain(A, false, 100 * id + 10 * worker + copy));
                let worker = usize::try_from(worker).unwrap();
                assert!(a.workers[worker].io_mut().inject(LAN, &frame));
            }
        }
        numbers.extend(turn_all(&mut a, 0).iter().map(seq));
    }
    numbers.extend(turn_all(&mut a, 0).iter().map(seq));
    let count = 3 * 75 * (1 + 2 + 3);
    assert_eq!(numbers, (1..=count).collect::<Vec<u32>>());
}
