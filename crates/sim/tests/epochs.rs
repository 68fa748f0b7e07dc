//! Keys that come again and again: SAs with epochs that are removed and added with numbers they had
//! before, tombstones that are forgotten, and gateways that start again and know nothing.
//!
//! What a daemon knows of numbers is always too little here, so that only tombstones and epochs
//! keep nonces apart. The [`Audit`] provider watches over all lives of a gateway.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use culvert_aead::Algorithm;
use culvert_aead::Audit;
use culvert_aead::Protocol;
use culvert_aead::Provider;
use culvert_control::ControlError;
use culvert_control::Epochs;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_control::epochs::LastEpoch;
use culvert_engine::WorkerId;
use culvert_frame::Port;
use culvert_sim::FramePool;
use culvert_sim::Gateway;
use culvert_sim::gateway::Room;
use culvert_sim::plain::Plain;
use culvert_sim::plain::find_id;
use culvert_sim::provider::provider;
use culvert_sim::random::Random;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;

const A: usize = 0;
const B: usize = 1;

/// One of each way to make an IV, and what has none.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Aes128Gcm16,
    Algorithm::ChaCha20Poly1305,
    Algorithm::Aes128Gmac,
    Algorithm::Aes128CbcSha256,
    Algorithm::AhAes128Gmac,
    Algorithm::NullSha256,
];

/// What happened in some runs.
#[derive(Debug, Default)]
struct Tally {
    sealed: usize,
    /// Packets with a number that the key had used before.
    again: usize,
    restarts: usize,
    /// Keys that came again.
    returned: usize,
    /// Keys that were refused because they were in use.
    in_use: usize,
    /// Epochs that forgotten keys have cost.
    used_up: usize,
}

/// A gateway whose SAs come and go.
struct Run {
    random: Random,
    scenario: Scenario,
    audit: Audit<Provider>,
    /// What the disk knows; a bad one forgets it with each start.
    last: LastEpoch,
    has_a_disk: bool,
    epochs: Epochs,
    gateway: Gateway<Audit<Provider>>,
    /// By tunnel.
    sas: Vec<Option<SaId>>,
    was_there: BTreeSet<usize>,
    seen: BTreeSet<(u32, u64)>,
    next_id: u64,
    tally: Tally,
}

fn scenario(seed: u64) -> Scenario {
    let tunnel = |index: usize| {
        let tunnel = Tunnel::ordinary(u8::try_from(index).unwrap());
        let esn = (seed + index as u64).is_multiple_of(2);
        Tunnel { esn, ..tunnel }.with_algorithm(ALGORITHMS[index])
    };
    let tunnels = (0..ALGORITHMS.len()).map(tunnel).collect();
    Scenario { workers: vec![2; 2], ..Scenario::quiet(tunnels) }
}

/// A gateway of a side without SAs that `without` is for.
fn start(
    scenario: &Scenario,
    side: usize,
    audit: &Audit<Provider>,
    without: impl Fn(&SaSpec) -> bool,
) -> Gateway<Audit<Provider>> {
    let mut config = scenario.gateway(side);
    config.frames = 64;
    config.sas.retain(|sa| !without(sa));
    let room = Room { spare_slots: 8, ..Room::default() };
    let next_hops = scenario.next_hops(side, [true; 4]);
    Gateway::in_pool(&config, audit, next_hops, &mut FramePool::of(&config), room).unwrap()
}

impl Run {
    fn new(seed: u64, has_a_disk: bool) -> Run {
        let (scenario, audit) = (scenario(seed), Audit::new(provider()));
        let gateway = start(&scenario, A, &audit, |_| true);
        let last = LastEpoch::default();
        let mut run = Run {
            random: Random::new(seed),
            sas: vec![None; scenario.tunnels.len()],
            epochs: Epochs::in_memory(last.clone()).unwrap(),
            scenario,
            audit,
            last,
            has_a_disk,
            gateway,
            was_there: BTreeSet::new(),
            seen: BTreeSet::new(),
            next_id: 1,
            tally: Tally::default(),
        };
        run.gateway.controller.set_tombstones_max(2);
        run
    }

    fn step(&mut self) {
        let tunnel = self.random.index(self.sas.len());
        match self.random.below(100) {
            0..50 => self.send(tunnel),
            50..70 => {
                let worker = self.random.index(2);
                self.turn(worker);
            }
            70..80 => self.gateway.controller.poll().unwrap(),
            80..86 => self.add(tunnel),
            86..91 => {
                if let Some(id) = self.sas[tunnel].take() {
                    self.gateway.controller.remove_sa(id).unwrap();
                }
            }
            91..94 => {
                let worker = WorkerId(u8::try_from(self.random.below(2)).unwrap());
                if let Some(id) = self.sas[tunnel] {
                    // It may be on its way.
                    _ = self.gateway.controller.migrate_sa(id, worker);
                }
            }
            94..99 => self.settle(),
            _ => self.restart(),
        }
    }

    /// A host sends a packet through a tunnel.
    fn send(&mut self, tunnel: usize) {
        let host = |side| Scenario::host(side, u8::try_from(tunnel).unwrap(), false, 5);
        let plain = Plain::new(host(A), host(B), self.next_id);
        self.next_id += 1;
        let frame = plain.frame(gateway_mac(A, LAN), host_mac(A), None);
        let worker = self.random.index(2);
        self.gateway.workers[worker].io_mut().inject(LAN, &frame);
    }

    fn turn(&mut self, worker: usize) {
        let worker = &mut self.gateway.workers[worker];
        worker.turn(1);
        let sent = std::iter::from_fn(|| worker.io_mut().take_sent_bytes(WAN));
        for frame in sent.collect::<Vec<_>>() {
            let of_ah = frame[14 + 9] == 51;
            let at = 14 + 20 + if of_ah { 4 } else { 0 };
            let word = |at: usize| u32::from_be_bytes(*frame[at..].first_chunk().unwrap());
            let is_new = self.seen.insert((word(at), word(at + 4).into()));
            self.tally.again += usize::from(!is_new);
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.gateway.controller.poll().unwrap();
            (0..2).for_each(|worker| self.turn(worker));
        }
    }

    /// A daemon adds an SA, whose numbers it believes to be lower than they are.
    fn add(&mut self, tunnel: usize) {
        if self.sas[tunnel].is_some() {
            return;
        }
        let of_tunnel = self.scenario.tunnels[tunnel].sa(A, A);
        for _ in 0..2 {
            let epoch = Some(self.epochs.current());
            let sequence = self.random.below(4);
            let spec = SaSpec { epoch, sequence, ..of_tunnel.clone() };
            match self.gateway.controller.add_sa(&spec) {
                Ok(id) => {
                    self.sas[tunnel] = Some(id);
                    self.tally.returned += usize::from(!self.was_there.insert(tunnel));
                    return;
                }
                Err(ControlError::KeyInUse) => {
                    self.tally.in_use += 1;
                    return;
                }
                Err(ControlError::EpochUsedUp { .. }) => {
                    self.tally.used_up += 1;
                    self.epochs.next().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a new epoch is used up");
    }

    /// The gateway stops without warning. What comes next knows of epochs only what is on disk.
    fn restart(&mut self) {
        self.tally.restarts += 1;
        self.gateway = start(&self.scenario, A, &self.audit, |_| true);
        self.gateway.controller.set_tombstones_max(2);
        if !self.has_a_disk {
            self.last = LastEpoch::default();
        }
        self.epochs = Epochs::in_memory(self.last.clone()).unwrap();
        self.sas.fill(None);
    }

    fn run(mut self, steps: usize) -> Tally {
        (0..steps).for_each(|_| self.step());
        self.settle();
        Tally { sealed: self.audit.sealed(), ..self.tally }
    }
}

/// E21, G02: SAs with epochs that come and go, on workers that stand still and move them, over
/// restarts and with little memory of what was: many numbers come again under their key, and no IV
/// does, whoever makes it.
#[test]
fn keys_come_again_and_ivs_do_not() {
    let mut sum = Tally::default();
    for seed in 0..40 {
        let tally = Run::new(seed, true).run(4000);
        sum.sealed += tally.sealed;
        sum.again += tally.again;
        sum.restarts += tally.restarts;
        sum.returned += tally.returned;
        sum.in_use += tally.in_use;
        sum.used_up += tally.used_up;
    }
    println!("{sum:?}");
    assert!(sum.sealed > 10_000 && sum.again > 5_000, "{sum:?}");
    assert!(sum.restarts > 1000 && sum.returned > 2000 && sum.in_use > 100, "{sum:?}");
    assert!(sum.used_up > 100, "{sum:?}");
}

/// The test above sees what it is for: without what is on disk, IVs come again.
#[test]
fn without_a_disk_ivs_come_again() {
    let found = (0..3).filter(|&seed| {
        let run = || Run::new(seed, false).run(4000);
        let panic = catch_unwind(AssertUnwindSafe(run)).err();
        panic.is_some_and(|panic| {
            let message = panic.downcast_ref::<String>().expect("a formatted message");
            assert!(message.starts_with("nonce reuse"), "{message}");
            true
        })
    });
    assert_eq!(found.count(), 3);
}

/// Sends `count` packets from A through a tunnel, in order.
fn record(scenario: &Scenario, tunnel: usize, count: u64) -> Vec<Vec<u8>> {
    let mut a = start(scenario, A, &Audit::new(provider()), |_| false);
    let host = |side| Scenario::host(side, u8::try_from(tunnel).unwrap(), false, 5);
    let mut sent = Vec::new();
    for id in 0..count {
        let frame = Plain::new(host(A), host(B), id).frame(gateway_mac(A, LAN), host_mac(A), None);
        a.workers[0].io_mut().inject(LAN, &frame);
        sent.extend(drained(&mut a, WAN));
    }
    assert_eq!(sent.len() as u64, count);
    sent
}

/// Turns all workers twice; what they sent.
fn drained(gateway: &mut Gateway<Audit<Provider>>, port: Port) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for worker in [0, 1, 0, 1] {
        let worker = &mut gateway.workers[worker];
        worker.turn(1);
        sent.extend(std::iter::from_fn(|| worker.io_mut().take_sent_bytes(port)));
    }
    sent
}

/// I08: an inbound SA that is removed and added again and again, with windows that know too little,
/// delivers each of its packets once, ESP and AH, while anybody sends all of them over and over.
#[test]
fn windows_survive_their_sas() {
    let mut returned = 0;
    for seed in 0..12 {
        let scenario = scenario(seed);
        let mut random = Random::new(seed);
        let tunnel = random.index(ALGORITHMS.len());
        let frames = record(&scenario, tunnel, 300);
        let spec = scenario.tunnels[tunnel].sa(B, A);
        let mut b = start(&scenario, B, &Audit::new(provider()), |sa| sa.spi == spec.spi);
        let mut id = None;
        let mut delivered = BTreeSet::new();
        for step in 0..3000 {
            // Mostly new ones, some of them late, and some again.
            let newest = (step / 10).min(frames.len() - 1);
            let frame = &frames[newest.saturating_sub(random.index(80))];
            let worker = random.index(2);
            b.workers[worker].io_mut().inject(WAN, frame);
            for frame in drained(&mut b, LAN) {
                let number = find_id(&frame).unwrap();
                assert!(delivered.insert(number), "seed {seed}: {number} came twice");
            }
            match (id, random.below(40)) {
                (None, 0..10) => {
                    let spec = SaSpec { epoch: Some(1), ..spec.clone() };
                    match b.controller.add_sa(&spec) {
                        Ok(new) => id = Some(new),
                        Err(ControlError::KeyInUse) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                (Some(old), 0) => {
                    b.controller.remove_sa(old).unwrap();
                    (id, returned) = (None, returned + 1);
                }
                _ => {}
            }
            b.controller.poll().unwrap();
        }
        assert!(delivered.len() > 150, "seed {seed}: {} delivered", delivered.len());
        let is_ah = scenario.tunnels[tunnel].protocol() == Protocol::Ah;
        println!("seed {seed}: AH {is_ah}, {} of 300 delivered", delivered.len());
    }
    assert!(returned > 200, "{returned}");
}
