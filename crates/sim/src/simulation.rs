//! Two gateways, a wire, hosts and an attacker, for as long as a seed says.
//!
//! A step lets every actor act once, in an order drawn from the seed: hosts send, workers turn
//! (unless they stand still), control polls, the kernel learns and forgets neighbours, the wire
//! carries and damages, the attacker attacks. After every turn these things are checked:
//!
//! - the gateway's counters and SAs are what the [model](crate::model) says they must be, so what
//!   was accepted is exactly what must have been;
//! - each worker has as many frames as at the start, wherever they are;
//! - what comes out at the hosts was sent by the other side, octet for octet but for TTL, ECN and
//!   checksum, and comes out once; what comes out at the wire is ESP with a number never seen;
//! - no key ever sees a nonce twice: the [`Audit`] provider watches both gateways.
//!
//! Then faults stop. Everything must come to rest, a fresh packet through every SA must arrive, and
//! when there were no faults at all, everything must have arrived.
//!
//! All of it follows from the seed: no clock, no randomness, no thread, no environment.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use culvert_aead::Audit;
use culvert_aead::RustCrypto;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::WorkerId;
use culvert_frame::Port;
use culvert_wire::ethernet;
use culvert_wire::ip;

use crate::attacker::Attacker;
use crate::attacker::Attacks;
use crate::gateway::FramePool;
use crate::gateway::Gateway;
use crate::model::Checked;
use crate::model::Model;
use crate::model::Rings;
use crate::model::lost_to_room;
use crate::plain::PAYLOAD_MIN;
use crate::plain::Plain;
use crate::plain::link_frame;
use crate::random::Random;
use crate::random::mix;
use crate::scenario::FRAMES_PER_WORKER_MAX;
use crate::scenario::Faults;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::WORKERS_MAX;
use crate::scenario::gateway_mac;
use crate::scenario::host_mac;
use crate::wire::Damage;
use crate::wire::Wire;

/// Frames that a run borrows at most.
pub const FRAMES_MAX: usize = 2 * WORKERS_MAX * FRAMES_PER_WORKER_MAX;

/// Steps within which everything comes to rest once faults have stopped.
const REST_STEPS_MAX: usize = 2000;

/// Fresh packets through every SA at the end.
const BURST: usize = 16;

/// Recorded frames replayed at a time at the end.
const REPLAYED_AT_ONCE: usize = 32;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps, those without faults included.
    pub steps: u64,
    /// Pairs of SAs.
    pub tunnels: usize,
    /// Workers of each gateway.
    pub workers: [usize; 2],
    /// SAs with ESN whose receiver went across the boundary at 2^32.
    pub crossings: usize,
    /// True when the seed drew no fault at all.
    pub quiet: bool,
    /// Packets that hosts sent.
    pub sent: u64,
    /// Packets that came out at the hosts of the other side.
    pub delivered: u64,
    /// Frames that gateways sent to each other.
    pub emitted: u64,
    /// Frames that found no room in a receive queue.
    pub overruns: u64,
    /// What the wire did.
    pub damage: Damage,
    /// What the attacker did.
    pub attacks: Attacks,
    /// The counters of both gateways together.
    pub counters: Counters,
    /// A hash of every frame that came out anywhere, in order: equal for equal runs.
    pub digest: u64,
}

/// A check that failed, with the seed that shows it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step in which it showed.
    pub step: u64,
    /// What was found, and what was expected.
    pub what: String,
}

/// Runs the simulation that `seed` describes.
///
/// # Errors
/// When a check fails, or anything panics.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_in(&mut FramePool::new(FRAMES_MAX), seed)
}

/// Like [`run`], with frames from `pool`, which needs [`FRAMES_MAX`]. A run that fails keeps the
/// frames it has.
///
/// # Errors
/// When a check fails, or anything panics.
pub fn run_in(pool: &mut FramePool, seed: u64) -> Result<Report, Failure> {
    let mut step = 0;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let scenario = Scenario::draw(seed);
        let frames = pool.free_frames();
        let mut simulation = Simulation::new(&scenario, pool)?;
        let result = simulation.run();
        step = simulation.report.steps;
        result?;
        let Simulation { gateways, report, .. } = simulation;
        gateways.into_iter().for_each(|gateway| gateway.dissolve(pool));
        if pool.free_frames() != frames {
            return Err(format!("{} of {frames} frames came back", pool.free_frames()));
        }
        Ok(report)
    }));
    let what = match result {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(what)) => what,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => format!("panic: {message}"),
            (_, Some(message)) => format!("panic: {message}"),
            _ => "panic".into(),
        },
    };
    Err(Failure { seed, step, what })
}

type SimGateway = Gateway<Audit<RustCrypto>>;

struct Simulation<'a> {
    scenario: &'a Scenario,
    faults: Faults,
    random: Random,
    gateways: [SimGateway; 2],
    audit: Audit<RustCrypto>,
    model: Model<'a>,
    wire: Wire,
    attacker: Attacker<'a>,
    now: u64,
    next_id: u64,
    rss_key: u64,
    /// The step until which each worker stands still.
    stalled: [[u64; WORKERS_MAX]; 2],
    /// The step at which the kernel has resolved all neighbours again.
    resolved_at: [Option<u64>; 2],
    report: Report,
}

/// Who acts.
#[derive(Clone, Copy)]
enum Actor {
    Hosts(usize),
    Worker(usize, WorkerId),
    Control(usize),
    Wire,
    Attacker,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, pool: &mut FramePool) -> Checked<Simulation<'a>> {
        let mut random = Random::new(scenario.seed).fork();
        let audit = Audit::new(RustCrypto);
        let mut gateway = |side| {
            let next_hops = scenario.next_hops(side, [true; 4]);
            let capacity = scenario.handoff_capacity;
            Gateway::in_pool(&scenario.gateway(side), &audit, next_hops, pool, capacity)
                .map_err(|error| error.to_string())
        };
        let gateways = [gateway(0)?, gateway(1)?];
        Ok(Simulation {
            scenario,
            faults: scenario.faults.clone(),
            model: Model::new(scenario, &gateways),
            gateways,
            audit,
            wire: Wire::new(random.fork(), &scenario.faults),
            attacker: Attacker::new(random.fork(), scenario),
            rss_key: random.next(),
            random,
            now: 0,
            next_id: 1,
            stalled: Default::default(),
            resolved_at: [None; 2],
            report: Report {
                seed: scenario.seed,
                tunnels: scenario.tunnels.len(),
                workers: scenario.workers,
                quiet: scenario.faults.are_none(),
                ..Report::default()
            },
        })
    }

    fn run(&mut self) -> Checked<()> {
        for _ in 0..self.scenario.steps {
            self.step(true)?;
        }
        self.calm();
        self.rest()?;
        if self.report.quiet {
            self.check_nothing_lost()?;
        }
        self.burst()?;
        self.replay_everything()?;
        for (end, gateway) in self.gateways.iter().enumerate() {
            self.model.at_rest(end, gateway)?;
        }
        let made: u64 = self
            .gateways
            .iter()
            .flat_map(Gateway::samples)
            .filter_map(|sample| (!sample.inbound).then_some(sample.packets))
            .sum();
        if self.audit.sealed() as u64 != made {
            return Err(format!("{} nonces for {made} packets", self.audit.sealed()));
        }
        self.report.crossings = self.model.crossings();
        self.report.damage = self.wire.damage;
        self.report.attacks = self.attacker.attacks;
        let [one, two] = &self.gateways;
        self.report.counters = one.counters().plus(&two.counters());
        Ok(())
    }

    /// Everybody acts once; hosts and attacker only if `sending`.
    fn step(&mut self, sending: bool) -> Checked<()> {
        self.report.steps += 1;
        self.now += self.random.between(1_000, 50_000);
        if self.random.chance(self.faults.clock_jumps) {
            self.now += self.random.below(5_000_000_000);
        }
        let mut actors = vec![Actor::Wire, Actor::Attacker];
        for end in 0..2 {
            actors.extend([Actor::Hosts(end), Actor::Control(end)]);
            let workers = (0u8..).zip(&self.gateways[end].workers);
            actors.extend(workers.map(|(id, _)| Actor::Worker(end, WorkerId(id))));
        }
        self.random.shuffle(&mut actors);
        for actor in actors {
            match actor {
                Actor::Hosts(end) => self.hosts(end, sending)?,
                Actor::Worker(end, id) => self.worker(end, id)?,
                Actor::Control(end) => self.control(end)?,
                Actor::Wire => self.carry()?,
                Actor::Attacker if sending => {
                    for (to, frame) in self.attacker.act() {
                        self.inject(to, WAN, &frame);
                    }
                }
                Actor::Attacker => {}
            }
        }
        Ok(())
    }

    /// Hosts of a side receive, then send.
    fn hosts(&mut self, end: usize, sending: bool) -> Checked<()> {
        for worker in 0..self.gateways[end].workers.len() {
            let io = self.gateways[end].workers[worker].io_mut();
            while let Some(frame) = io.take_sent_bytes(LAN) {
                self.model.delivered(end, &frame)?;
                self.report.delivered += 1;
                self.report.digest = digest(self.report.digest, &frame);
            }
        }
        if !sending {
            return Ok(());
        }
        let packets = match self.random.chance(30) {
            true if self.report.quiet && self.is_busy() => 0,
            true => self.random.between(20, 100),
            false => self.random.below(8),
        };
        for _ in 0..packets {
            if self.random.chance(20) {
                let frame = self.junk(end);
                self.inject(end, LAN, &frame);
            } else {
                let plain = self.plain(end);
                self.send(end, plain);
            }
        }
        Ok(())
    }

    /// A worker turns, unless it stands still, and everything is checked.
    fn worker(&mut self, end: usize, id: WorkerId) -> Checked<()> {
        let index = usize::from(id.0);
        if self.stalled[end][index] > self.report.steps {
            return Ok(());
        }
        let limit = match self.random.chance(self.faults.full_tx) {
            true => self.random.index(8),
            false => usize::MAX,
        };
        let before = Rings::of(&self.gateways[end], id);
        let worker = &mut self.gateways[end].workers[index];
        worker.io_mut().limit_sends(limit);
        worker.turn(self.now);
        let after = Rings::of(&self.gateways[end], id);
        self.model.turned(end, id, &before, &after)?;
        self.model.compare(end, &self.gateways[end])?;
        self.check_frames(end)?;
        if self.random.chance(self.faults.stalls) {
            self.stalled[end][index] = self.report.steps + self.random.between(1, 30);
        }
        Ok(())
    }

    /// Control polls; the kernel forgets neighbours, and resolves them a while after it was asked.
    fn control(&mut self, end: usize) -> Checked<()> {
        let controller = &mut self.gateways[end].controller;
        if self.random.chance(self.faults.republish) {
            controller.set_policies(self.scenario.policies(end));
        }
        if self.random.chance(self.faults.neighbours) {
            let known = [(); 4].map(|()| self.random.chance(500));
            controller.set_next_hops(self.scenario.next_hops(end, known));
        }
        if !controller.take_unresolved().is_empty() && self.resolved_at[end].is_none() {
            self.resolved_at[end] = Some(self.report.steps + self.random.below(12));
        }
        if self.resolved_at[end].is_some_and(|step| step <= self.report.steps) {
            self.resolved_at[end] = None;
            controller.set_next_hops(self.scenario.next_hops(end, [true; 4]));
        }
        controller.poll().map_err(|error| error.to_string())
    }

    /// The wire takes what gateways sent, and brings what has arrived.
    fn carry(&mut self) -> Checked<()> {
        for end in 0..2 {
            for worker in 0..self.gateways[end].workers.len() {
                let io = self.gateways[end].workers[worker].io_mut();
                while let Some(frame) = io.take_sent_bytes(WAN) {
                    self.model.emitted(end, &frame)?;
                    self.report.emitted += 1;
                    self.report.digest = digest(self.report.digest, &frame);
                    self.attacker.record(1 - end, &frame);
                    self.wire.carry(self.now, 1 - end, frame);
                }
            }
        }
        while let Some((to, frame)) = self.wire.arrived(self.now) {
            self.inject(to, WAN, &frame);
        }
        Ok(())
    }

    /// Puts a frame into the queue where the NIC would put it.
    fn inject(&mut self, end: usize, port: Port, frame: &[u8]) {
        let workers = self.gateways[end].workers.len();
        let worker = match self.random.chance(self.faults.reshuffle) {
            true => self.random.index(workers),
            false => rss(self.rss_key, frame, workers),
        };
        let io = self.gateways[end].workers[worker].io_mut();
        if io.inject(port, frame) {
            self.model.arrived(end, worker, port, frame);
        } else {
            self.report.overruns += 1;
        }
    }

    /// Some worker has so much to do that a burst could overrun its queue, which is no fault of it.
    fn is_busy(&mut self) -> bool {
        let workers = self.gateways.iter_mut().flat_map(|gateway| &mut gateway.workers);
        let mut free = workers.map(|worker| worker.io_mut().free_frames());
        free.any(|free| free < FRAMES_PER_WORKER_MAX / 2)
    }

    fn send(&mut self, end: usize, plain: Plain) {
        self.report.sent += 1;
        self.model.sent(plain);
        let vlan = self.scenario.lan_vlan;
        let frame = plain.frame(gateway_mac(end, LAN), host_mac(end), vlan);
        self.inject(end, LAN, &frame);
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A packet that a host of side `end` sends: mostly through a tunnel.
    fn plain(&mut self, end: usize) -> Plain {
        let id = self.fresh_id();
        let random = &mut self.random;
        let six = random.chance(400);
        let tunnel = random.index(self.scenario.tunnels.len());
        let index = self.scenario.tunnels[tunnel].index;
        let host = |side, number| Scenario::host(side, index, six, number);
        let (mut source, mut destination) =
            (host(end, 1 + random.octet() % 8), host(1 - end, 1 + random.octet() % 8));
        let elsewhere = |v4: &str, v6: &str| {
            let text = if six { v6 } else { v4 };
            text.parse().expect("an address")
        };
        match random.below(100) {
            0..2 => {
                source = Scenario::foreign_host(end, six);
                destination = Scenario::foreign_host(1 - end, six);
            }
            2..4 => destination = elsewhere("198.51.100.9", "3fff:b::9"),
            4 => destination = elsewhere("203.0.113.9", "3fff:d::9"),
            5 => destination = elsewhere("192.0.2.200", "2001:db8:ff::200"),
            _ => {}
        }
        // What is held for a neighbour is not measured against the MTU.
        let len_max = if self.faults.neighbours > 0 { 1000 } else { 1440 };
        let payload_len = match random.below(10) {
            0..6 => PAYLOAD_MIN + random.index(100),
            6..9 => PAYLOAD_MIN + random.index(1000),
            _ => len_max - random.index(300),
        };
        Plain {
            source,
            destination,
            tos: if random.chance(500) { 0 } else { random.octet() },
            ttl: match random.chance(30) {
                true => 1 + random.octet() % 3,
                false => 64,
            },
            dont_fragment: random.chance(500),
            payload_len,
            id,
        }
    }

    /// A frame on a host's link that is no packet to protect.
    fn junk(&mut self, end: usize) -> Vec<u8> {
        let mac = gateway_mac(end, LAN);
        let mut payload = vec![0; self.random.index(200)];
        self.random.fill(&mut payload);
        let (to, ether_type) = match self.random.below(4) {
            0 => (mac, ethernet::ETHER_TYPE_ARP),
            1 => (mac, ethernet::ETHER_TYPE_IPV4),
            2 => (mac, ethernet::ETHER_TYPE_IPV6),
            _ => (host_mac(1 - end), ethernet::ETHER_TYPE_ARP),
        };
        link_frame(to, host_mac(end), None, ether_type, &payload)
    }

    /// Faults stop: neighbours are known, nobody stands still, the wire carries everything.
    fn calm(&mut self) {
        self.faults = Faults::default();
        self.wire.calm();
        self.stalled = Default::default();
        self.resolved_at = [None; 2];
        for (end, gateway) in self.gateways.iter_mut().enumerate() {
            let next_hops = self.scenario.next_hops(end, [true; 4]);
            gateway.controller.set_next_hops(next_hops);
        }
    }

    /// Steps until nothing is on its way anywhere.
    fn rest(&mut self) -> Checked<()> {
        for _ in 0..REST_STEPS_MAX {
            self.step(false)?;
            let workers = self.gateways.iter_mut().flat_map(|gateway| &mut gateway.workers);
            let mut at_rest = self.wire.is_empty();
            for worker in workers {
                at_rest &= worker.io_mut().free_frames() == self.scenario.frames;
            }
            if at_rest && self.gateways.iter().all(|gateway| gateway.controller.is_idle()) {
                return Ok(());
            }
        }
        Err("it does not come to rest".into())
    }

    /// Without faults nothing is lost, whatever the load.
    fn check_nothing_lost(&self) -> Checked<()> {
        if let Some(id) = self.model.missing(0).next() {
            return Err(format!("packet {id} was lost without any fault"));
        }
        let [one, two] = &self.gateways;
        let counters = one.counters().plus(&two.counters());
        let reasons = [DropReason::Replay, DropReason::Icv, DropReason::HandoffFull];
        let refused: u64 = reasons.iter().map(|&reason| counters.dropped(reason)).sum();
        let overruns = self.report.overruns;
        if refused + lost_to_room(&counters) + overruns > 0 {
            return Err(format!("{overruns} overruns, {counters:?} without any fault"));
        }
        Ok(())
    }

    /// Fresh packets through every SA arrive, whatever happened before.
    fn burst(&mut self) -> Checked<()> {
        let first = self.next_id;
        for round in 0..BURST {
            for (tunnel, end) in self.scenario.tunnels.iter().flat_map(|t| [(t, 0), (t, 1)]) {
                let six = round % 2 == 1;
                let host = |side| Scenario::host(side, tunnel.index, six, 9);
                let plain = Plain::new(host(end), host(1 - end), self.fresh_id());
                self.send(end, plain);
                if self.scenario.faults.small_rings {
                    // Rings this small overflow without any fault.
                    self.rest()?;
                }
            }
        }
        self.rest()?;
        match self.model.missing(first).next() {
            Some(id) => Err(format!("packet {id} was lost after faults had stopped")),
            None => Ok(()),
        }
    }

    /// Everything that was ever recorded, once more: nothing of it is new.
    fn replay_everything(&mut self) -> Checked<()> {
        let recorded = self.attacker.recorded().to_vec();
        for frames in recorded.chunks(REPLAYED_AT_ONCE) {
            for (to, frame) in frames {
                self.inject(*to, WAN, frame);
            }
            self.rest()?;
        }
        Ok(())
    }

    /// Each worker has its frames, wherever they are.
    fn check_frames(&mut self, end: usize) -> Checked<()> {
        for (index, worker) in self.gateways[end].workers.iter_mut().enumerate() {
            let frames = worker.frames_outside_io() + worker.io_mut().held_frames();
            let expected = self.scenario.frames;
            if frames != expected {
                return Err(format!("worker {index} has {frames} frames, not {expected}"));
            }
        }
        Ok(())
    }
}

/// The queue of a flow: its addresses decide, as in most NICs.
fn rss(key: u64, frame: &[u8], queues: usize) -> usize {
    let flow = ethernet::parse(frame).and_then(|link| ip::parse(&frame[link.payload_at..])).map_or(
        0,
        |packet| {
            let text = format!("{} {}", packet.source(), packet.destination());
            digest(key, text.as_bytes())
        },
    );
    let queues = queues as u64;
    usize::try_from(flow % queues).expect("below the number of queues")
}

/// Adds octets to a hash.
fn digest(mut hash: u64, octets: &[u8]) -> u64 {
    for chunk in octets.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word)).wrapping_add(octets.len() as u64);
    }
    hash
}

impl fmt::Display for Report {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, tunnels, workers, sent, delivered, attacks, counters, .. } = self;
        let attacks = attacks.replays + attacks.forgeries + attacks.garbage;
        write!(
            f,
            "seed {seed}: {tunnels} tunnels, {workers:?} workers, {sent} sent, {delivered} \
             delivered, {} lost on the wire, {attacks} attacks, {} dropped",
            self.damage.lost,
            counters.dropped_total(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed is the whole run: the same frames come out in the same order.
    #[test]
    fn is_deterministic() {
        for seed in [3, 4] {
            assert_eq!(run(seed).unwrap(), run(seed).unwrap());
        }
        assert_ne!(run(3).unwrap().digest, run(4).unwrap().digest);
    }
}
