//! One SA over several workers: helpers change nothing but who does the work.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use culvert_aead::Audit;
use culvert_aead::Provider;
use culvert_engine::DropReason;
use culvert_engine::crew::Lending;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::gateway::Spread;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::from_host;
use crate::support::ordinary;
use crate::support::plain;

const BATCH: usize = 64;
const LENDING: Lending = Lending { packet_octets: 0, chunk_octets: 200 };

type Sender = Gateway<Audit<Provider>>;

fn gateway(side: usize, spread: Option<Spread>) -> Sender {
    let scenario = Scenario { workers: vec![2; 2], ..ordinary() };
    let config = GatewayConfig { spread, ..scenario.gateway(side) };
    let next_hops = scenario.next_hops(side, [true; 4]);
    Gateway::new(&config, &Audit::new(culvert_sim::provider::provider()), next_hops).unwrap()
}

/// The worker that owns the SA of a direction.
fn owner(gateway: &Sender, inbound: bool) -> usize {
    let owns = |worker: &usize| gateway.workers[*worker].samples().any(|s| s.inbound == inbound);
    (0..2).find(owns).unwrap()
}

/// What comes out of the owner of an SA for these frames, a batch a turn.
fn through(gateway: &mut Sender, inbound: bool, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (from, to) = if inbound { (WAN, LAN) } else { (LAN, WAN) };
    let owner = owner(gateway, inbound);
    turns(&mut gateway.workers[owner], (from, to), frames)
}

fn turns<A: culvert_aead::Aead>(
    worker: &mut culvert_engine::Worker<A, culvert_frame::MemIo>,
    (from, to): (Port, Port),
    frames: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for batch in frames.chunks(BATCH) {
        batch.iter().for_each(|frame| assert!(worker.io_mut().inject(from, frame)));
        worker.turn(1);
        out.extend(std::iter::from_fn(|| worker.io_mut().take_sent_bytes(to)));
    }
    out
}

fn packets(count: u64) -> Vec<Vec<u8>> {
    (1..=count).map(|id| from_host(A, &plain(A, id.is_multiple_of(3), id))).collect()
}

/// In whatever order helpers act, what comes out is to the last octet what comes out without them,
/// in both directions and in the same order, with the same counters; numbers that come twice are
/// refused, and forged packets.
#[test]
fn any_order_of_helpers() {
    let plain = packets(5 * BATCH as u64);
    let (mut a, mut b) = (gateway(A, None), gateway(B, None));
    let sealed = through(&mut a, false, &plain);
    assert_eq!(sealed.len(), plain.len());
    let mut hostile = Vec::new();
    for (at, frame) in sealed.iter().enumerate() {
        hostile.push(frame.clone());
        if at % 5 == 0 {
            hostile.push(sealed[at / 2].clone());
        }
        if at % 7 == 0 {
            let mut forged = frame.clone();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            hostile.insert(hostile.len() - 1, forged);
        }
    }
    let opened = through(&mut b, true, &hostile);
    assert_eq!(opened.len(), plain.len());
    assert!(b.counters().dropped(DropReason::Replay) > 60);
    assert!(b.counters().dropped(DropReason::Icv) > 40);
    let mut all = 0;
    for seed in 0..20 {
        let spread =
            Some(Spread { lending: LENDING, helpers: Some((1 + (seed % 4) as usize, seed)) });
        let (mut helped_a, mut helped_b) = (gateway(A, spread), gateway(B, spread));
        assert!(through(&mut helped_a, false, &plain) == sealed, "seed {seed}");
        assert!(through(&mut helped_b, true, &hostile) == opened, "seed {seed}");
        assert_eq!(helped_b.counters(), b.counters());
        let helped = [(&helped_a, false), (&helped_b, true)];
        for (gateway, inbound) in helped {
            let helped = gateway.workers[owner(gateway, inbound)].helped();
            assert!(helped > 0, "seed {seed}");
            all += helped;
        }
    }
    assert!(all > 5 * BATCH as u64, "{all} packets done by helpers");
}

/// The same with a real second worker, on a thread of its own.
#[test]
fn a_second_worker_helps() {
    let plain = packets(100 * BATCH as u64);
    let sealed = through(&mut gateway(A, None), false, &plain);
    let spread = Some(Spread { lending: LENDING, helpers: None });
    let mut a = gateway(A, spread);
    let at = owner(&a, false);
    let mut owner = a.workers.remove(at);
    let mut other = a.workers.remove(0);
    let stop = Arc::new(AtomicBool::new(false));
    let is_stopped = Arc::clone(&stop);
    let helper = thread::spawn(move || {
        let mut done = 0;
        while !is_stopped.load(Relaxed) {
            done += other.turn(1);
        }
        done as u64
    });
    let mut out = Vec::new();
    // Until the other thread has had its share, on however busy a machine.
    let mut rounds = 0;
    while owner.helped() < 100 && rounds < 1000 {
        out = turns(&mut owner, (LAN, WAN), &plain);
        rounds += 1;
        if rounds == 1 {
            assert!(out == sealed);
        }
        assert_eq!(out.len(), plain.len());
    }
    stop.store(true, Relaxed);
    let done = helper.join().unwrap();
    assert!(done >= 100 && done == owner.helped(), "{done} done, {} seen", owner.helped());
    drop(out);
}
