//! SAs that move between workers while packets come.

use culvert_engine::WorkerId;
use culvert_sim::gateway::Room;
use culvert_sim::plain::find_id;
use culvert_sim::random::Random;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::ordinary;
use crate::support::plain;

const WORKERS: usize = 3;
const STEPS: usize = 4000;

/// A worker turns, or control does what it can, or an SA goes to some worker.
fn act(gateway: &mut TestGateway, random: &mut Random, moved: &mut u64) {
    match random.below(12) {
        0..3 => gateway.controller.poll().unwrap(),
        3 => {
            let ids: Vec<_> = gateway.controller.ids().collect();
            let to = WorkerId(u8::try_from(random.index(WORKERS)).unwrap());
            *moved += u64::from(gateway.controller.migrate_sa(random.pick(&ids), to).is_ok());
        }
        _ => {
            let worker = random.index(WORKERS);
            gateway.workers[worker].turn(1);
        }
    }
}

/// What a gateway sent out of a port, by worker.
fn sent(gateway: &mut TestGateway, port: culvert_frame::Port) -> Vec<(usize, Vec<u8>)> {
    let workers = gateway.workers.iter_mut().enumerate();
    let all = workers.flat_map(|(at, worker)| {
        std::iter::from_fn(move || worker.io_mut().take_sent_bytes(port)).map(move |f| (at, f))
    });
    all.collect()
}

/// How many packets came behind a later one of the same source.
fn overtaken(ids: &[u64]) -> usize {
    let mut overtaken = 0;
    for source in 0..WORKERS as u64 {
        let mut last = 0;
        for &id in ids.iter().filter(|&&id| id % WORKERS as u64 == source) {
            overtaken += usize::from(id < last);
            last = last.max(id);
        }
    }
    overtaken
}

/// E02: both SAs of a tunnel move at random times, hundreds of times, while packets arrive at all
/// workers. Every packet is delivered once, none is dropped, no nonce is used twice, numbers on the
/// wire rise at every worker, and sources keep their order but for a few packets.
#[test]
fn moves_under_load() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        // Small mailboxes make passing on fail now and then.
        let room = Room { mailbox: random.pick(&[1, 4, 256]), ..Room::default() };
        let room = Room { spare_slots: 4, ..room };
        let scenario = Scenario { workers: vec![WORKERS; 2], room, ..ordinary() };
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let (mut next, mut moved, mut delivered) = (1, [0; 2], Vec::new());
        let mut last_number = [0_u32; WORKERS];
        for step in 0..STEPS {
            let is_calm = step > STEPS - 500;
            for _ in 0..if is_calm { 0 } else { random.below(3) } {
                let frame = from_host(A, &plain(A, false, next));
                let source = usize::try_from(next).unwrap() % WORKERS;
                assert!(a.workers[source].io_mut().inject(LAN, &frame));
                next += 1;
            }
            act(&mut a, &mut random, &mut moved[0]);
            act(&mut b, &mut random, &mut moved[1]);
            for (worker, frame) in sent(&mut a, WAN) {
                let number = u32::from_be_bytes(frame[38..42].try_into().unwrap());
                assert!(number > last_number[worker], "seed {seed}: {number}");
                last_number[worker] = number;
                let to = random.index(WORKERS);
                assert!(b.workers[to].io_mut().inject(WAN, &frame));
            }
            delivered.extend(sent(&mut b, LAN).iter().map(|(_, frame)| find_id(frame).unwrap()));
        }
        for gateway in [&a, &b] {
            let counters = gateway.counters();
            assert_eq!(counters.dropped_total(), 0, "seed {seed}: {counters:?}");
        }
        let late = overtaken(&delivered);
        println!("seed {seed}: {next} packets, {moved:?} moves, {late} overtaken");
        assert!(moved.iter().all(|&moved| moved > 50), "seed {seed}: {moved:?} moves");
        delivered.sort_unstable();
        assert_eq!(delivered, (1..next).collect::<Vec<_>>(), "seed {seed}");
    }
}
