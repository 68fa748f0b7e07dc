//! Some gateways, a wire, hosts and an attacker, for as long as a seed says.
//!
//! A step lets every actor act once, in an order drawn from the seed: hosts send, workers turn
//! (unless they stand still), control polls, SAs move between workers, tunnels are rekeyed, the
//! kernel learns and forgets neighbours, the wire carries and damages, a NAT forgets, the attacker
//! attacks. After every turn these things are checked:
//!
//! - the gateway's counters and SAs are what the [model](crate::model) says they must be, so what
//!   was accepted is exactly what must have been;
//! - each worker has as many frames as at the start, wherever they are, and each SA is in one place
//!   at most;
//! - what comes out at the hosts was sent by the other side, octet for octet but for TTL, ECN and
//!   checksum, and comes out once; what comes out at the wire is ESP or AH with a number never
//!   seen, whole or in fragments that make it whole, and goes where the peer is or was;
//! - no key ever sees a nonce twice: the [`Audit`] provider watches all gateways.
//!
//! Then faults stop. Everything must come to rest, a fresh packet through every tunnel must arrive,
//! and when there were no faults at all, everything must have arrived.
//!
//! All of it follows from the seed: no clock, no randomness, no thread, no environment.

use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use culvert_aead::Aead;
use culvert_aead::Audit;
use culvert_aead::Provider;
use culvert_control::News;
use culvert_control::sequence_store::Marks;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Notice;
use culvert_engine::reassembly::AGE_NS;
use culvert_esp::Mode;
use culvert_frame::Port;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::fragment;
use culvert_wire::ip;

use crate::attacker::Attacker;
use crate::attacker::Attacks;
use crate::coverage::Coverage;
use crate::coverage::Happening;
use crate::gateway::FramePool;
use crate::gateway::Gateway;
use crate::gateway::GatewayConfig;
use crate::keeper::Keeper;
use crate::keeper::SimGateway;
use crate::model::Checked;
use crate::model::Model;
use crate::model::Rings;
use crate::model::fragments::Piles;
use crate::model::fragments::Pushed;
use crate::model::lost_to_room;
use crate::plain::PAYLOAD_MIN;
use crate::plain::Plain;
use crate::plain::link_frame;
use crate::provider;
use crate::random::Random;
use crate::random::mix;
use crate::scenario::FRAMES_PER_WORKER_MAX;
use crate::scenario::FRAMES_RESERVED;
use crate::scenario::Faults;
use crate::scenario::GATEWAYS_MAX;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::WORKERS_MAX;
use crate::scenario::gateway_mac;
use crate::scenario::host_mac;
use crate::scenario::wan_mtus;
use crate::tunnel::Tunnel;
use crate::wire::Damage;
use crate::wire::Sent;
use crate::wire::Wire;

/// Frames that a run borrows at most.
pub const FRAMES_MAX: usize = GATEWAYS_MAX * WORKERS_MAX * FRAMES_PER_WORKER_MAX;

/// Steps within which everything comes to rest once faults have stopped.
const REST_STEPS_MAX: usize = 2000;

/// Time in which every worker looks at its timers.
const TICKS_NS: u64 = 2_000_000_000;

/// Fresh packets through every SA at the end.
const BURST: usize = 16;

/// Packets sent, or recorded frames replayed, at a time at the end.
const AT_ONCE: usize = 32;

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
    pub workers: Vec<usize>,
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
    /// Tunnels rekeyed.
    pub rekeyed: u64,
    /// SAs asked to move to another worker.
    pub migrated: u64,
    /// Times a NAT forgot its mapping.
    pub rebound: u64,
    /// Peers that were seen elsewhere than before.
    pub moved_peers: usize,
    /// The counters of all gateways together.
    pub counters: Counters,
    /// What else happened.
    pub coverage: Coverage,
    /// A hash of every frame that came out anywhere, in order: equal for equal runs.
    pub digest: u64,
}

/// A check that failed, with the seed that shows it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}, {provider}: {what}")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step in which it showed.
    pub step: u64,
    /// The provider of cryptography.
    pub provider: &'static str,
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
        let mut simulation = Simulation::new(&scenario, &mut *pool)?;
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
    let provider = provider::of_seed(seed).map_or("no provider", |provider| provider.name());
    Err(Failure { seed, step, provider, what })
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    pool: &'a mut FramePool,
    faults: Faults,
    random: Random,
    gateways: Vec<SimGateway>,
    audit: Audit<Provider>,
    model: Model<'a>,
    keeper: Keeper,
    wire: Wire,
    attacker: Attacker<'a>,
    now: u64,
    next_id: u64,
    rss_key: u64,
    /// By gateway.
    ends: Vec<End>,
    report: Report,
}

/// What the simulation knows of a gateway.
#[derive(Debug)]
struct End {
    /// The step until which each worker stands still.
    stalled: [u64; WORKERS_MAX],
    /// The step until which control stands still.
    control_stalled: u64,
    /// The step at which the kernel has resolved all neighbours again.
    resolved_at: Option<u64>,
    wan_mtu: u16,
    /// What it writes down of numbers, if it does.
    marks: Option<Marks>,
    /// Fragments of packets that it has begun to send, and the largest of each.
    begun: Piles,
    /// Counters of before its last restart.
    counted: Counters,
    /// Times that it began.
    starts: u64,
}

/// Who acts.
#[derive(Clone, Copy)]
enum Actor {
    Hosts(usize),
    Worker(usize, WorkerId),
    Control(usize),
    Wire,
    Keeper,
    Attacker,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, pool: &'a mut FramePool) -> Checked<Simulation<'a>> {
        let mut random = Random::new(scenario.seed).fork();
        let audit =
            Audit::new(provider::of_seed(scenario.seed).map_err(|error| error.to_string())?);
        let end = || End {
            stalled: [0; WORKERS_MAX],
            control_stalled: 0,
            resolved_at: None,
            wan_mtu: scenario.wan_mtu,
            marks: scenario.has_stores.then(Marks::default),
            begun: Piles::default(),
            counted: Counters::default(),
            starts: 1,
        };
        let ends: Vec<End> = std::iter::repeat_with(end).take(scenario.gateways()).collect();
        let mut gateway = |(end, state): (usize, &End)| {
            let next_hops = scenario.next_hops(end, [true; 4]);
            let config = GatewayConfig { marks: state.marks.clone(), ..scenario.gateway(end) };
            Gateway::in_pool(&config, &audit, next_hops, pool, scenario.room)
                .map_err(|error| error.to_string())
        };
        let gateways = ends.iter().enumerate().map(&mut gateway).collect::<Checked<_>>()?;
        let mut coverage = Coverage::default();
        if scenario.faults.small_rings {
            coverage.note(Happening::SmallRings);
        }
        let epochs = scenario.tunnels.iter().flat_map(|tunnel| tunnel.epoch);
        epochs.flatten().for_each(|_| coverage.note(Happening::Epoch));
        Ok(Simulation {
            scenario,
            pool,
            faults: scenario.faults.clone(),
            model: Model::new(scenario),
            gateways,
            audit,
            wire: Wire::new(random.fork(), scenario),
            keeper: Keeper::new(random.fork(), scenario),
            attacker: Attacker::new(random.fork(), scenario),
            rss_key: random.next(),
            random,
            now: 0,
            next_id: 1,
            ends,
            report: Report {
                seed: scenario.seed,
                tunnels: scenario.tunnels.len(),
                workers: scenario.workers.clone(),
                quiet: scenario.faults.are_none(),
                coverage,
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
        self.meet()?;
        self.burst()?;
        self.replay_everything()?;
        self.wait_for_fragments()?;
        for (end, gateway) in self.gateways.iter().enumerate() {
            self.model.at_rest(end, gateway)?;
        }
        let made = self.model.sealed();
        if self.audit.sealed() as u64 != made {
            return Err(format!("{} nonces for {made} packets", self.audit.sealed()));
        }
        self.report.crossings = self.model.crossings();
        self.report.moved_peers = self.model.moved_peers();
        self.report.damage = self.wire.damage;
        self.report.attacks = self.attacker.attacks;
        self.report.rekeyed = self.keeper.completed;
        self.report.counters = self.counters();
        let coverage = &self.report.coverage;
        self.report.coverage = coverage.plus(&self.model.coverage).plus(&self.wire.coverage);
        Ok(())
    }

    fn counters(&self) -> Counters {
        let of_now = self.gateways.iter().map(Gateway::counters);
        let of_before = self.ends.iter().map(|end| end.counted);
        of_now.chain(of_before).fold(Counters::default(), |sum, counters| sum.plus(&counters))
    }

    fn note(&mut self, what: Happening) {
        self.report.coverage.note(what);
    }

    /// A gateway stops without warning, and begins again with the same keys: what is in its queues
    /// is lost, and of its numbers it knows what its store says.
    fn restart(&mut self, end: usize) -> Checked<()> {
        let Some(mut tunnels) = self.keeper.settled(end) else {
            return Ok(());
        };
        if !self.gateways[end].lose_queues(&[LAN, WAN]) {
            return Ok(());
        }
        self.note(Happening::Restart);
        let state = &mut self.ends[end];
        let old = self.gateways.remove(end);
        state.counted = state.counted.plus(&old.counters());
        (state.stalled, state.control_stalled) = ([0; WORKERS_MAX], 0);
        (state.resolved_at, state.begun) = (None, Piles::default());
        old.dissolve(self.pool);
        state.starts += 1;
        // Numbers of keys with epochs are on no disk: whoever negotiated them tells.
        for tunnel in &mut tunnels {
            if let Some(side) = tunnel.side_of(end)
                && tunnel.epoch[side].is_some()
            {
                tunnel.epoch[side] = Some(state.starts);
                tunnel.start[side] = self.model.last_number(end, tunnel.spi[side]);
                self.report.coverage.note(Happening::NewEpoch);
            }
        }
        let config = GatewayConfig {
            marks: state.marks.clone(),
            started_at: self.now,
            ..self.scenario.gateway_with(end, &tunnels)
        };
        let next_hops = self.scenario.next_hops_with(end, [true; 4], state.wan_mtu);
        let room = self.scenario.room;
        let new = Gateway::in_pool(&config, &self.audit, next_hops, self.pool, room)
            .map_err(|error| error.to_string())?;
        self.model.restarted(end, &new, self.now)?;
        self.gateways.insert(end, new);
        Ok(())
    }

    /// Everybody acts once; hosts and attacker only if `sending`.
    fn step(&mut self, sending: bool) -> Checked<()> {
        self.report.steps += 1;
        self.now += self.random.between(1_000, 50_000);
        if self.random.chance(self.faults.clock_jumps) {
            self.now += self.random.below(5_000_000_000);
            self.note(Happening::ClockJump);
        }
        if self.random.chance(self.faults.restarts) {
            let end = self.random.index(self.gateways.len());
            self.restart(end)?;
        }
        let mut actors = vec![Actor::Wire, Actor::Keeper, Actor::Attacker];
        for end in 0..self.gateways.len() {
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
                Actor::Keeper => {
                    let rate = if sending { self.scenario.rekeys } else { 0 };
                    let parties = (&mut self.gateways[..], &self.wire.router, &mut self.model);
                    self.keeper.act(parties, (self.report.steps, rate))?;
                }
                Actor::Attacker if sending => {
                    let errors = self.attacker.attacks.errors;
                    let frames = self.attacker.act();
                    if self.attacker.attacks.errors > errors {
                        self.note(Happening::ForgedError);
                    }
                    for (to, frame) in frames {
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
                let in_tunnel = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.octets()[0] == 10,
                    IpAddr::V6(address) => (0xa0..0xb0).contains(&address.segments()[2]),
                };
                let may_split = in_tunnel(plain.source) && in_tunnel(plain.destination);
                match may_split && !plain.dont_fragment && self.random.chance(150) {
                    true => self.send_fragments(end, plain),
                    false => self.send(end, plain),
                }
            }
        }
        Ok(())
    }

    /// A worker turns, unless it stands still, and everything is checked.
    fn worker(&mut self, end: usize, id: WorkerId) -> Checked<()> {
        let index = usize::from(id.0);
        if self.ends[end].stalled[index] > self.report.steps {
            return Ok(());
        }
        let limit = match self.random.chance(self.faults.full_tx) {
            true => {
                self.note(Happening::FullTx);
                self.random.index(8)
            }
            false => usize::MAX,
        };
        let before = Rings::of(&self.gateways[end], id);
        let worker = &mut self.gateways[end].workers[index];
        worker.io_mut().limit_sends(limit);
        let helped = worker.helped();
        worker.turn(self.now);
        let helped = worker.helped() - helped;
        (0..helped).for_each(|_| self.note(Happening::Helped));
        let after = Rings::of(&self.gateways[end], id);
        let worker = &self.gateways[end].workers[index];
        self.model.turned(end, worker, id, (&before, &after), self.now)?;
        self.model.compare(end, &self.gateways[end])?;
        self.check_frames(end)?;
        if self.random.chance(self.faults.stalls) {
            self.note(Happening::Stall);
            self.ends[end].stalled[index] = self.report.steps + self.random.between(1, 30);
        }
        Ok(())
    }

    /// Control polls; the kernel forgets neighbours, and resolves them a while after it was asked.
    fn control(&mut self, end: usize) -> Checked<()> {
        if self.ends[end].control_stalled > self.report.steps {
            return Ok(());
        }
        if self.random.chance(self.faults.control_stalls) {
            self.note(Happening::ControlStall);
            self.ends[end].control_stalled = self.report.steps + self.random.between(1, 40);
        }
        let state = &mut self.ends[end];
        let controller = &mut self.gateways[end].controller;
        let happening = &mut self.report.coverage;
        if self.random.chance(self.faults.republish) {
            happening.note(Happening::Republished);
            controller.set_policies(&self.scenario.policies(end));
        }
        if self.random.chance(self.faults.mtu_changes) {
            happening.note(Happening::MtuChange);
            state.wan_mtu = self.random.pick(wan_mtus(&self.faults));
            let next_hops = self.scenario.next_hops_with(end, [true; 4], state.wan_mtu);
            controller.set_next_hops(next_hops);
        }
        if self.random.chance(self.faults.neighbours) {
            happening.note(Happening::Forgotten);
            let known = [(); 4].map(|()| self.random.chance(500));
            controller.set_next_hops(self.scenario.next_hops_with(end, known, state.wan_mtu));
        }
        if !controller.take_unresolved().is_empty() && state.resolved_at.is_none() {
            state.resolved_at = Some(self.report.steps + self.random.below(12));
        }
        if state.resolved_at.is_some_and(|step| step <= self.report.steps) {
            state.resolved_at = None;
            controller.set_next_hops(self.scenario.next_hops_with(end, [true; 4], state.wan_mtu));
        }
        self.migrate(end);
        let controller = &mut self.gateways[end].controller;
        controller.poll().map_err(|error| error.to_string())?;
        let (news, lost) = controller.take_news();
        if lost > 0 {
            return Err(format!("{lost} news were lost"));
        }
        news.into_iter().try_for_each(|news| self.hear(end, news))
    }

    /// An SA moves to another worker, if there is room.
    fn migrate(&mut self, end: usize) {
        if !self.random.chance(self.faults.migration) {
            return;
        }
        let workers = self.gateways[end].workers.len();
        let controller = &mut self.gateways[end].controller;
        let ids: Vec<_> = controller.ids().collect();
        let worker = u8::try_from(self.random.index(workers)).expect("few");
        if !ids.is_empty() {
            let id = self.random.pick(&ids);
            let moved = controller.migrate_sa(id, WorkerId(worker));
            self.report.migrated += u64::from(moved.is_ok());
        }
    }

    /// What control does about news.
    fn hear(&mut self, end: usize, news: News) -> Checked<()> {
        match (news.notice, news.sa) {
            // Who is behind a NAT itself follows nobody: two that are misled at a time never find
            // each other again (RFC 7296 section 2.23).
            (Notice::Mapping { spi, .. }, _) if !self.model.may_move(end, spi) => {}
            (Notice::Mapping { old, new, .. }, Some(inbound)) => {
                let controller = &mut self.gateways[end].controller;
                // The SA may be on its way out.
                let (Ok(_) | Err(_)) = controller.follow_mapping(inbound, old, new);
            }
            (Notice::Expire { spi, .. }, _) => self.keeper.expire(spi),
            (Notice::Mapping { spi, .. }, None) => {
                return Err(format!("news of SA {spi:#x}, which is not there"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The wire takes what gateways sent, and brings what has arrived.
    fn carry(&mut self) -> Checked<()> {
        self.wire.change();
        if self.random.chance(self.faults.rebinding)
            && self.wire.router.rebind(&mut self.random).is_some()
        {
            self.report.rebound += 1;
        }
        for end in 0..self.gateways.len() {
            for worker in 0..self.gateways[end].workers.len() {
                let io = self.gateways[end].workers[worker].io_mut();
                let frames: Vec<Vec<u8>> = std::iter::from_fn(|| io.take_sent_bytes(WAN)).collect();
                for frame in frames {
                    self.report.emitted += 1;
                    self.report.digest = digest(self.report.digest, &frame);
                    self.emit(end, frame)?;
                }
            }
        }
        while let Some((to, frame)) = self.wire.arrived(self.now) {
            self.inject(to, WAN, &frame);
        }
        Ok(())
    }

    /// A frame leaves a gateway. Fragments travel together as far as the first router, which may be
    /// a NAT and has to see the whole packet.
    fn emit(&mut self, end: usize, frame: Vec<u8>) -> Checked<()> {
        let sent = match esp::classify(&frame) {
            Ok(Unprotected::Fragment(of)) => {
                let begun = &mut self.ends[end].begun;
                // Of one whose rest had no room, nothing is waited for.
                match begun.push(of, &frame.into(), 0, &mut Vec::new()) {
                    Pushed::Whole(frame, len) => Sent { frame, fragment_max: Some(len) },
                    Pushed::Kept => return Ok(()),
                    Pushed::Dropped => return Err("a fragment was sent twice".into()),
                }
            }
            _ => Sent { frame, fragment_max: None },
        };
        self.model.emitted(end, &sent.frame, sent.fragment_max)?;
        if let Some((to, frames)) = self.wire.carry(self.now, end, sent) {
            frames.iter().for_each(|frame| self.attacker.record(to, frame));
        }
        Ok(())
    }

    /// Puts a frame from the wire, or junk, into the queue where the NIC would put it.
    fn inject(&mut self, end: usize, port: Port, frame: &[u8]) {
        self.inject_with(end, port, frame, None);
    }

    /// The same for a frame that holds the plaintext of a number.
    fn inject_with(&mut self, end: usize, port: Port, frame: &[u8], id: Option<u64>) {
        let workers = self.gateways[end].workers.len();
        let worker = match self.random.chance(self.faults.reshuffle) {
            true => {
                self.note(Happening::Reshuffled);
                self.random.index(workers)
            }
            false => rss(self.rss_key, frame, workers),
        };
        let io = self.gateways[end].workers[worker].io_mut();
        if io.free_frames() > FRAMES_RESERVED && io.inject(port, frame) {
            self.model.arrived((end, worker), port, frame, id);
        } else {
            self.report.overruns += 1;
        }
    }

    /// Some worker has so much to do that a burst could overrun its queue, which is no fault of it.
    fn is_busy(&mut self) -> bool {
        let workers = self.gateways.iter_mut().flat_map(|gateway| &mut gateway.workers);
        let mut free = workers.map(|worker| worker.io_mut().free_frames());
        free.any(|free| free < FRAMES_RESERVED + 256)
    }

    fn send(&mut self, end: usize, plain: Plain) {
        self.report.sent += 1;
        self.model.sent(&plain);
        let vlan = self.scenario.lan_vlan;
        let frame = plain.frame(gateway_mac(end, LAN), host_mac(end), vlan);
        self.inject_with(end, LAN, &frame, Some(plain.id));
    }

    /// A host sends a packet in fragments of its own.
    fn send_fragments(&mut self, end: usize, plain: Plain) {
        self.note(Happening::HostFragments);
        self.report.sent += 1;
        self.model.sent(&plain);
        let packet = plain.packet();
        let Ok(parsed) = ip::parse(&packet) else { return };
        let mtu = 100 + self.random.index(packet.len());
        let id = u32::try_from(plain.id & 0xffff_ffff).expect("32 bits");
        let Ok(pieces) = fragment::pieces(&packet, &parsed, mtu, id) else { return };
        for piece in pieces {
            let mut octets = vec![0; piece.total_len()];
            fragment::write_piece(&mut octets, &packet, &piece);
            let ether_type = match packet[0] >> 4 {
                4 => ethernet::ETHER_TYPE_IPV4,
                _ => ethernet::ETHER_TYPE_IPV6,
            };
            let (to, from) = (gateway_mac(end, LAN), host_mac(end));
            let frame = link_frame(to, from, self.scenario.lan_vlan, ether_type, &octets);
            self.inject_with(end, LAN, &frame, Some(plain.id));
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// A packet that a host of gateway `end` sends: mostly through a tunnel.
    fn plain(&mut self, end: usize) -> Plain {
        let id = self.fresh_id();
        let random = &mut self.random;
        let tunnels = &self.scenario.tunnels;
        let ends: Vec<(usize, &Tunnel)> =
            tunnels.iter().filter_map(|tunnel| Some((tunnel.side_of(end)?, tunnel))).collect();
        // A gateway may be without tunnels; then its hosts send where policy lets nothing go.
        let (side, tunnel) = match ends.is_empty() {
            true => (0, &tunnels[0]),
            false => ends[random.index(ends.len())],
        };
        let numbers = [0, 1].map(|_| 1 + random.octet() % 8);
        let six = random.chance(400);
        let [mut source, mut destination] = hosts_of(tunnel, side, six, numbers);
        let six = source.is_ipv6();
        let elsewhere = |v4: &str, v6: &str| {
            let text = if six { v6 } else { v4 };
            text.parse().expect("an address")
        };
        let foreign = ends.iter().find(|(_, tunnel)| tunnel.index == 0);
        match (random.below(100), foreign) {
            (0..2, Some((side, tunnel))) => {
                source = Scenario::foreign_host(end, six);
                destination = Scenario::foreign_host(tunnel.ends[1 - side], six);
            }
            (2..4, _) => destination = elsewhere("198.51.100.9", "3fff:b::9"),
            (4, _) => destination = elsewhere("203.0.113.9", "3fff:d::9"),
            (5, _) => destination = elsewhere("192.0.2.200", "2001:db8:ff::200"),
            _ => {}
        }
        let payload_len = match random.below(10) {
            0..6 => PAYLOAD_MIN + random.index(100),
            6..9 => PAYLOAD_MIN + random.index(800),
            // What is held for a neighbour is not measured against the MTU.
            _ if self.faults.neighbours > 0 => 900,
            _ => 1440 - random.index(300),
        };
        // What goes in clear is refused when it does not fit, and never fragmented.
        let in_clear = destination == elsewhere("198.51.100.9", "3fff:b::9");
        Plain {
            source,
            destination,
            tos: if random.chance(500) { 0 } else { random.octet() },
            ttl: match random.chance(30) {
                true => 1 + random.octet() % 3,
                false => 64,
            },
            dont_fragment: random.chance(500) || in_clear,
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
            _ => (host_mac(end + 1), ethernet::ETHER_TYPE_ARP),
        };
        link_frame(to, host_mac(end), None, ether_type, &payload)
    }

    /// Faults stop: neighbours are known, nobody stands still, the wire carries everything.
    fn calm(&mut self) {
        self.faults = Faults::default();
        self.wire.calm();
        for (end, gateway) in self.gateways.iter_mut().enumerate() {
            let state = &mut self.ends[end];
            state.stalled = [0; WORKERS_MAX];
            state.control_stalled = 0;
            state.resolved_at = None;
            state.wan_mtu = self.scenario.wan_mtu;
            let next_hops = self.scenario.next_hops(end, [true; 4]);
            gateway.controller.set_next_hops(next_hops);
        }
        self.keeper.renew();
        // What workers could not tell control they tell at their next tick.
        self.now += TICKS_NS;
    }

    /// Steps until nothing is on its way anywhere.
    fn rest(&mut self) -> Checked<()> {
        for _ in 0..REST_STEPS_MAX {
            self.step(false)?;
            let mut at_rest = self.wire.is_empty() && self.keeper.is_quiet();
            for (end, gateway) in self.gateways.iter_mut().enumerate() {
                at_rest &= gateway.controller.is_idle();
                for (index, worker) in gateway.workers.iter_mut().enumerate() {
                    // Fragments wait for others that may never come.
                    let aside = self.model.aside(end, index);
                    at_rest &= worker.io_mut().free_frames() + aside == self.scenario.frames;
                }
            }
            if at_rest {
                return Ok(());
            }
        }
        let keeper = self.keeper.is_quiet();
        let idle: Vec<bool> = self.gateways.iter().map(|g| g.controller.is_idle()).collect();
        let free: Vec<usize> = self
            .gateways
            .iter_mut()
            .flat_map(|gateway| &mut gateway.workers)
            .map(|worker| worker.io_mut().free_frames())
            .collect();
        Err(format!(
            "it does not come to rest: keeper at rest: {keeper}, controllers: {idle:?}, {free:?} \
             frames free"
        ))
    }

    /// Without faults nothing is lost, whatever the load, and however many tunnels are rekeyed.
    fn check_nothing_lost(&self) -> Checked<()> {
        if let Some(id) = self.model.missing(0).next() {
            return Err(format!("packet {id} was lost without any fault"));
        }
        let counters = self.counters();
        let reasons = [
            DropReason::Replay,
            DropReason::Icv,
            DropReason::NoSa,
            DropReason::NoOutboundSa,
            DropReason::HandoffFull,
        ];
        let refused: u64 = reasons.iter().map(|&reason| counters.dropped(reason)).sum();
        let overruns = self.report.overruns;
        if refused + lost_to_room(&counters) + overruns > 0 {
            return Err(format!("{overruns} overruns, {counters:?} without any fault"));
        }
        Ok(())
    }

    /// Every side of every tunnel sends something, so that both know where the other one is.
    fn meet(&mut self) -> Checked<()> {
        for _ in 0..2 {
            for tunnel in &self.scenario.tunnels {
                for side in 0..2 {
                    let [source, destination] = hosts_of(tunnel, side, false, [9, 9]);
                    let plain = Plain::new(source, destination, self.fresh_id());
                    self.send(tunnel.ends[side], plain);
                    self.rest()?;
                }
            }
        }
        Ok(())
    }

    /// Fresh packets through every tunnel arrive, whatever happened before.
    fn burst(&mut self) -> Checked<()> {
        let first = self.next_id;
        // No more at a time than the smallest rings hold, or any worker's queue.
        let at_once = if self.scenario.faults.small_rings { 2 } else { AT_ONCE };
        let mut waiting = 0;
        for round in 0..BURST {
            for tunnel in &self.scenario.tunnels {
                for side in 0..2 {
                    let [source, destination] = hosts_of(tunnel, side, round % 2 == 1, [9, 9]);
                    let plain = Plain::new(source, destination, self.fresh_id());
                    self.send(tunnel.ends[side], plain);
                }
                waiting += 2;
                if waiting >= at_once {
                    self.rest()?;
                    waiting = 0;
                }
            }
        }
        self.rest()?;
        match self.model.missing(first).next() {
            Some(id) => Err(format!("packet {id} was lost after faults had stopped")),
            None => self.check_tables(),
        }
    }

    /// Each gateway has the SAs it started with, or their successors, and no others.
    fn check_tables(&self) -> Checked<()> {
        for (end, gateway) in self.gateways.iter().enumerate() {
            let ends = self.scenario.tunnels.iter().filter(|t| t.side_of(end).is_some());
            let expected = 2 * ends.count();
            let of_record = gateway.controller.ids().count();
            let installed = gateway.samples().count();
            if (of_record, installed) != (expected, expected) {
                return Err(format!("{of_record} SAs, {installed} in slots, not {expected}"));
            }
        }
        Ok(())
    }

    /// Everything that was ever recorded, once more: nothing of it is new.
    fn replay_everything(&mut self) -> Checked<()> {
        let recorded = self.attacker.recorded().to_vec();
        for frames in recorded.chunks(AT_ONCE) {
            for (to, frame) in frames {
                self.inject(*to, WAN, frame);
            }
            self.rest()?;
        }
        Ok(())
    }

    /// Fragments whose packets never became whole are given up in time.
    fn wait_for_fragments(&mut self) -> Checked<()> {
        self.now += AGE_NS + TICKS_NS;
        self.rest()?;
        let frames: usize = self.gateways.iter().map(Gateway::frames_inside).sum();
        if frames > 0 {
            return Err(format!("{frames} fragments are waited for forever"));
        }
        Ok(())
    }

    /// Each worker has its frames, wherever they are, and each SA is in one place at most.
    fn check_frames(&mut self, end: usize) -> Checked<()> {
        let mut sas: Vec<(bool, u32)> =
            self.gateways[end].samples().map(|sample| (sample.inbound, sample.spi)).collect();
        sas.sort_unstable();
        if sas.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("an SA has two owners".into());
        }
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

/// Hosts that a tunnel connects, the one behind `side` first; in transport mode its endpoints.
fn hosts_of(tunnel: &Tunnel, side: usize, six: bool, numbers: [u8; 2]) -> [IpAddr; 2] {
    match tunnel.mode {
        Mode::Transport => [tunnel.outer[side], tunnel.peer_address(side)],
        Mode::Tunnel => [side, 1 - side]
            .map(|of| Scenario::host(tunnel.ends[of], tunnel.index, six, numbers[of])),
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
