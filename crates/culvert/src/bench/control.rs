//! `culvert bench control`: SAs that come, are rekeyed and go, while packets flow.
//!
//! One thread is control, as in the gateway: it makes SAs, key schedules included, and moves them
//! to the worker. Another is that worker, which turns without pause, a batch of packets of other
//! SAs in each turn. A phase ends when the worker has confirmed all of it and every worker knows.
//! The same is asked for by XFRM messages, as IKE daemons send them, many in one go.
//!
//! Timed: from the first call or message to the last confirmation. Not timed: making specifications
//! and messages, and the socket that messages come from. Time is that of the wall and that of the
//! thread: on a machine that does other things as well, the second says more.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Provider;
use culvert_control::Controller;
use culvert_control::Direction;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_esp::Spi;
use culvert_frame::MemIo;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::FramePool;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::gateway::Room;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ipv4;
use ipnet::IpNet;
use nix::sys::resource::UsageWho;
use nix::sys::resource::getrusage;
use serde::Serialize;

use super::engine;
use super::messages;
use super::rig;
use crate::cli::ControlArgs;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Source of the packets.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// SAs that packets take throughout.
const FLOWS: u32 = 64;
/// SPI of the first of them, and of the first that comes and goes.
const FIRST_SPI: [u32; 2] = [0x1000, 0x10_0000];
/// Their first group; messages give groups from 1 on.
const FIRST_GROUP: u32 = 1 << 30;
/// Octets of their packets.
const SIZE: u16 = 64;
/// Commands that wait for the worker until control waits as well.
const BACKLOG_MAX: usize = 1024;
/// Time that nothing here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// One phase.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// What was done, and by whom.
    pub what: &'static str,
    /// SAs that came or went, or policies.
    pub count: u32,
    /// Seconds until all workers knew.
    pub seconds: f64,
    /// Of these a second.
    pub per_second: f64,
    /// Microseconds of the control thread for each.
    pub control_us_each: f64,
    /// The worker's longest turn of those in which the kernel ran nothing else on its core, in
    /// microseconds.
    pub longest_turn_us: u64,
    /// The longest of all.
    pub longest_turn_wall_us: u64,
    /// Packets forwarded meanwhile.
    pub packets: u64,
    /// Packets dropped meanwhile.
    pub drops: u64,
}

/// The whole result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// SAs of each direction.
    pub sas: u32,
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// Octets of memory that each SA took, key and window included; of the process.
    pub octets_each: u64,
    /// AEAD provider.
    pub provider: &'static str,
    /// Model of the CPU.
    pub cpu: String,
}

/// Runs the command.
///
/// # Errors
/// When a core does not exist, or something does not end.
pub fn run(args: &ControlArgs) -> anyhow::Result<()> {
    let report = measure(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!(
        "{:<22} {:>8} {:>11} {:>11} {:>13} {:>12} {:>12} {:>6}",
        "phase",
        "count",
        "a second",
        "control us",
        "longest turn",
        "interrupted",
        "packets",
        "drops"
    );
    for phase in &report.phases {
        println!(
            "{:<22} {:>8} {:>11.0} {:>11.2} {:>10} us {:>9} us {:>12} {:>6}",
            phase.what,
            phase.count,
            phase.per_second,
            phase.control_us_each,
            phase.longest_turn_us,
            phase.longest_turn_wall_us,
            phase.packets,
            phase.drops,
        );
    }
    println!("{} octets an SA ({} on {})", report.octets_each, report.provider, report.cpu);
    Ok(())
}

/// Measures all phases.
///
/// # Errors
/// When a core does not exist, or something does not end.
pub fn measure(args: &ControlArgs) -> anyhow::Result<Report> {
    let aead = engine::provider(args.provider.as_deref())?;
    let mut gateway = gateway(args.sas, &aead)?;
    let worker = gateway.workers.pop().context("a gateway has a worker")?;
    let watch = Arc::new(Watch::default());
    let traffic = Traffic::start(worker, Arc::clone(&watch), args.worker_core)?;
    engine::pin(args.core)?;
    let mut bench = Bench { controller: gateway.controller, epoch: 1, watch, phases: Vec::new() };
    let measured = bench.by_calls(args.sas).and_then(|octets_each| {
        messages::measure(&mut bench, args.sas, args.policies)?;
        Ok(octets_each)
    });
    bench.watch.stop.store(true, Relaxed);
    // What the worker says is why the rest failed.
    match traffic.join() {
        Ok(ended) => ended?,
        Err(_) => bail!("the worker panicked"),
    }
    let octets_each = measured?;
    Ok(Report {
        sas: args.sas,
        phases: bench.phases,
        octets_each,
        provider: culvert_aead::Aead::name(&aead),
        cpu: engine::cpu_model(),
    })
}

/// Control, and what is known of the worker.
pub(super) struct Bench {
    pub(super) controller: Controller<Provider>,
    /// The epoch of the next SAs.
    pub(super) epoch: u64,
    watch: Arc<Watch>,
    phases: Vec<Phase>,
}

/// When a phase began.
pub(super) struct Started {
    at: Instant,
    cpu: Duration,
    packets: u64,
    drops: u64,
}

impl Bench {
    /// SAs by calls of the controller. Octets of memory for each.
    fn by_calls(&mut self, sas: u32) -> anyhow::Result<u64> {
        let specs = |at: u32, epoch: u64| -> anyhow::Result<Vec<[SaSpec; 2]>> {
            (at..at + sas)
                .map(|number| {
                    Ok([
                        spec(Direction::Inbound, number, epoch)?,
                        spec(Direction::Outbound, number, epoch)?,
                    ])
                })
                .collect()
        };
        let pairs = specs(0, self.epoch)?;
        let with_specs = resident()?;
        let started = self.begin();
        let mut ids: Vec<[SaId; 2]> = Vec::with_capacity(pairs.len());
        for [inbound, outbound] in &pairs {
            ids.push([self.controller.add_sa(inbound)?, self.controller.add_sa(outbound)?]);
            self.relax()?;
        }
        self.settle()?;
        self.end("SAs installed", 2 * sas, &started);
        let used = resident()?.saturating_sub(with_specs);
        // Of keys that are forgotten, as those of many old SAs are, the epoch is over.
        self.epoch += 1;
        let fresh = specs(sas, self.epoch)?;
        let started = self.begin();
        let mut renewed = Vec::with_capacity(ids.len());
        for (&[old_in, old_out], [inbound, outbound]) in ids.iter().zip(&fresh) {
            let (new_in, new_out) = self.controller.rekey(old_out, inbound, outbound)?;
            self.controller.remove_sa(old_in)?;
            renewed.extend([new_in, new_out]);
            self.relax()?;
        }
        self.settle()?;
        self.end("SAs rekeyed", 2 * sas, &started);
        let started = self.begin();
        for id in renewed {
            self.controller.remove_sa(id)?;
            self.relax()?;
        }
        self.settle()?;
        self.end("SAs removed", 2 * sas, &started);
        Ok(used / u64::from(2 * sas))
    }

    pub(super) fn begin(&self) -> Started {
        let (packets, drops) = self.traffic();
        self.watch.longest.store(0, Relaxed);
        self.watch.longest_wall.store(0, Relaxed);
        Started { at: Instant::now(), cpu: cpu_time(), packets, drops }
    }

    pub(super) fn end(&mut self, what: &'static str, count: u32, started: &Started) {
        let seconds = started.at.elapsed().as_secs_f64();
        let cpu = cpu_time().saturating_sub(started.cpu).as_secs_f64();
        let (packets, drops) = self.traffic();
        self.phases.push(Phase {
            what,
            count,
            seconds,
            per_second: f64::from(count) / seconds,
            control_us_each: cpu * 1e6 / f64::from(count),
            longest_turn_us: self.watch.longest.load(Relaxed),
            longest_turn_wall_us: self.watch.longest_wall.load(Relaxed),
            packets: packets - started.packets,
            drops: drops - started.drops,
        });
    }

    /// Packets forwarded and dropped.
    fn traffic(&self) -> (u64, u64) {
        let counters = self.controller.counters();
        let sum =
            counters.iter().fold(culvert_engine::Counters::default(), |sum, one| sum.plus(one));
        (sum.forwarded, sum.dropped.iter().sum())
    }

    fn is_patient(&self, since: Instant) -> bool {
        since.elapsed() < PATIENCE && !self.watch.has_ended.load(Relaxed)
    }

    /// Lets the controller work, and waits while the worker lags far behind.
    fn relax(&mut self) -> anyhow::Result<()> {
        self.controller.poll()?;
        let since = Instant::now();
        while self.controller.backlog() > BACKLOG_MAX {
            ensure!(self.is_patient(since), "the worker takes up no commands");
            thread::yield_now();
            self.controller.poll()?;
        }
        Ok(())
    }

    /// Waits until the worker has confirmed everything.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            self.controller.poll()?;
            if self.controller.is_idle() {
                return Ok(());
            }
            ensure!(self.is_patient(since), "the worker does not confirm");
            thread::yield_now();
        }
    }
}

/// What the worker's thread says of itself.
#[derive(Debug, Default)]
struct Watch {
    stop: AtomicBool,
    has_ended: AtomicBool,
    longest: AtomicU64,
    longest_wall: AtomicU64,
}

/// The worker, and its packets.
struct Traffic {
    worker: Worker<Provider, MemIo>,
    watch: Arc<Watch>,
    plain: Vec<Vec<u8>>,
}

impl Traffic {
    fn start(
        worker: Worker<Provider, MemIo>,
        watch: Arc<Watch>,
        core: usize,
    ) -> anyhow::Result<thread::JoinHandle<anyhow::Result<()>>> {
        let plain = (0..FLOWS).map(frame);
        let mut traffic = Traffic { worker, watch, plain: plain.collect() };
        let work = move || {
            let watch = Arc::clone(&traffic.watch);
            let mut ended = engine::pin(core);
            while ended.is_ok() && !watch.stop.load(Relaxed) {
                ended = traffic.turn();
            }
            watch.has_ended.store(true, Relaxed);
            ended
        };
        thread::Builder::new().name("worker".to_owned()).spawn(work).context("cannot start")
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        for frame in &self.plain {
            ensure!(self.worker.io_mut().inject(PROTECTED, frame), "a frame is free");
        }
        let (switches, start) = (interruptions(), Instant::now());
        let handled = self.worker.turn(1);
        let wall = start.elapsed();
        ensure!(handled == self.plain.len(), "the worker took {handled} packets");
        let us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        if interruptions() == switches {
            self.watch.longest.fetch_max(us, Relaxed);
        }
        self.watch.longest_wall.fetch_max(us, Relaxed);
        while let Some(packet) = self.worker.io_mut().take_sent(UNPROTECTED) {
            self.worker.io_mut().recycle(packet.into_free());
        }
        Ok(())
    }
}

/// Time that the calling thread has had.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("it has no error for itself");
    let both = [usage.user_time(), usage.system_time()].map(|time| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    });
    both[0] + both[1]
}

/// How often the calling thread had to give up its core.
fn interruptions() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("it has no error for itself");
    usage.involuntary_context_switches()
}

/// Octets of memory that the process has.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let Some(text) = line.and_then(|line| line.trim().strip_suffix("kB")) else {
        bail!("/proc/self/status: expected VmRSS");
    };
    Ok(text.trim().parse::<u64>()? * 1024)
}

fn destination(flow: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + flow)
}

/// A packet of a flow.
fn frame(flow: u32) -> Vec<u8> {
    let mut frame = rig::plain_frame(SIZE);
    let header = &mut frame[ethernet::HEADER_LEN..][..ipv4::HEADER_LEN];
    header[12..16].copy_from_slice(&SOURCE.octets());
    header[16..20].copy_from_slice(&destination(flow).octets());
    header[10..12].fill(0);
    let sum = culvert_wire::checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// An SA that comes and goes. Its group is that of its successor as well.
fn spec(direction: Direction, number: u32, epoch: u64) -> anyhow::Result<SaSpec> {
    let spi = FIRST_SPI[1] + number;
    sa(direction, spi, Group(FIRST_GROUP + FLOWS + number), epoch)
}

fn sa(direction: Direction, spi: u32, group: Group, epoch: u64) -> anyhow::Result<SaSpec> {
    let algorithm = Algorithm::Aes128Gcm16;
    let (near, far): (IpAddr, IpAddr) = (NEAR.into(), FAR.into());
    let addresses = if direction == Direction::Inbound { (far, near) } else { (near, far) };
    let keymat = Keymat::new(key_octets(spi, direction == Direction::Inbound));
    let sa = SaSpec::new(direction, Spi::new(spi)?, addresses, (algorithm, keymat), group);
    Ok(SaSpec { epoch: (direction == Direction::Outbound).then_some(epoch), ..sa })
}

/// A key for the bench: distinct for each SA, and never used for anything else.
pub(super) fn key_octets(spi: u32, inbound: bool) -> Vec<u8> {
    let mut octets = vec![u8::from(inbound); 20];
    octets[..4].copy_from_slice(&spi.to_be_bytes());
    octets
}

/// A gateway whose worker has the SAs that packets take, and room for those that come.
fn gateway(sas: u32, aead: &Provider) -> anyhow::Result<Gateway<Provider>> {
    let mut spd = Spd::default();
    let mut flows = Vec::new();
    let source = IpNet::from(IpAddr::from(SOURCE));
    for flow in 0..FLOWS {
        let selector = Selector::between(source, IpNet::from(IpAddr::from(destination(flow))))?;
        spd.outbound.push(Policy::new(selector, Action::Protect(Group(FIRST_GROUP + flow))));
        flows.push(sa(Direction::Outbound, FIRST_SPI[0] + flow, Group(FIRST_GROUP + flow), 1)?);
    }
    let port = |side| PortConfig { side, mac: None, completes_checksums: false };
    let config = GatewayConfig {
        workers: 1,
        frames: 4 * FLOWS as usize,
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        sas: flows,
        spd,
        ..GatewayConfig::default()
    };
    let hop = |port| NextHop { port, vlan: None, source: MAC, destination: MAC, mtu: 1600 };
    let next_hops = NextHops::fixed([
        ("10.0.0.0/8".parse()?, hop(PROTECTED)),
        ("192.0.2.0/24".parse()?, hop(UNPROTECTED)),
    ]);
    // While SAs are rekeyed, there are twice as many.
    let room = Room { spare_slots: 2 * sas as usize, ..Room::default() };
    let mut pool = FramePool::of(&config);
    Ok(Gateway::in_pool(&config, aead, next_hops, &mut pool, room)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand SAs come, are rekeyed and go by calls and by messages, and no packet is lost.
    #[test]
    fn nothing_is_dropped() {
        let args = ControlArgs {
            sas: 1000,
            policies: 50,
            provider: None,
            core: 0,
            worker_core: 0,
            json: true,
        };
        let report = measure(&args).unwrap();
        assert!(report.phases.len() == 6, "{report:?}");
        assert!(report.phases.iter().all(|phase| phase.drops == 0), "{report:?}");
        // In a short phase the worker may not get the core at all.
        assert!(report.phases.iter().any(|phase| phase.packets > 0), "{report:?}");
    }
}
