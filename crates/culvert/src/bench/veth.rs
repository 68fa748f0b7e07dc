//! `culvert bench veth`: what encryption costs a forwarder over AF_XDP.
//!
//! ```text
//!   generator                 gateway                     sink
//!   gen0 ------- veth ------- lan0   wan0 ------- veth ------- sink0
//!   core 1                    core 0
//! ```
//!
//! Two forwarders share one thread and the very same sockets, frames and I/O layer, and take turns
//! of a fraction of a second: a plain one that moves each frame from lan0 to wan0 unchanged, and
//! culvert's worker, which seals it into a tunnel. The kernel generates the packets on another
//! core, faster than either forwards. What counts is the time of stretches of turns with full
//! batches: of a window the one that a tenth is below, and of all windows the median of the ratios
//! of neighbours. So neither other work on the cores nor a machine that is slow for a second bends
//! it. On veth most of the time goes into the kernel's copies and socket buffers, which both
//! forwarders pay alike: sending runs the sink's end too, on the forwarder's core.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Provider;
use culvert_control::Controller;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_control::WorkerHandle;
use culvert_engine::Handoff;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_engine::Options;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_engine::WorkerConfig;
use culvert_engine::WorkerId;
use culvert_engine::handoff::Wake;
use culvert_engine::mailbox::mailbox;
use culvert_esp::Spi;
use culvert_frame::BATCH;
use culvert_frame::Batch;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::ethernet::Mac;
use culvert_xdp::Mode;
use culvert_xdp::Role;
use culvert_xdp::Steer;
use culvert_xdp::XdpIo;
use serde::Serialize;

use super::engine;
use crate::cli::VethArgs;
use crate::lab::Cancel;
use crate::lab::End;
use crate::lab::Link;
use crate::lab::Namespaces;
use crate::lab::Ns;
use crate::lab::sites::random_key;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);

/// Windows of each forwarder that are not counted.
const WARM_UP: u32 = 2;

/// Frames the kernel generates in one call; setting one up takes some milliseconds.
const GENERATE: u32 = 1 << 18;

/// Turns with a full batch, one after the other, that are timed together: packets of several turns
/// are sent in one. The first ones after another turn are not: they leave more unsent than they
/// found.
const STRETCH: usize = 8;

/// Stretches of a window whose time is noted.
const STRETCHES_MAX: usize = 1 << 16;

/// Next hop of everything that is sealed: nobody, so that the sink's stack drops it at once.
const NOBODY: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Octets of the inner IP packet.
    pub size: u16,
    /// strongSwan's keyword.
    pub algorithm: String,
    /// AEAD provider.
    pub provider: String,
    /// Packets that the plain forwarder sends in a second, each window.
    pub plain_pps: Vec<f64>,
    /// The same of culvert.
    pub culvert_pps: Vec<f64>,
    /// Median of the plain forwarder.
    pub plain_median_pps: f64,
    /// Median of culvert.
    pub culvert_median_pps: f64,
    /// Median of the ratios of neighbouring windows, culvert's by the plain one's.
    pub ratio: f64,
    /// The plain forwarder's costs, all windows together.
    pub plain: Costs,
    /// culvert's costs, all windows together.
    pub culvert: Costs,
    /// Model of the CPU.
    pub cpu: String,
}

/// What packets cost one forwarder.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Costs {
    /// System calls a packet, of whatever kind.
    pub syscalls_per_packet: f64,
    /// Nanoseconds a packet, the sink's part of sending included.
    pub ns_per_packet: f64,
    /// Packets in a turn that had any.
    pub packets_per_turn: f64,
    /// Share of turns without a packet: the generator was too slow.
    pub idle: f64,
}

/// One forwarder's share of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Nanoseconds of a packet, in turns with full batches.
    ns_per_packet: f64,
    /// Turns with packets, and without.
    busy: u64,
    idle: u64,
    sent: u64,
    syscalls: u64,
}

/// Runs the command.
///
/// # Errors
/// When the network cannot be set up, or nothing is forwarded.
pub fn run(args: &VethArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "bench veth needs root: try sudo");
    ensure!(args.seconds > 0.0 && args.seconds <= 60.0, "--seconds: expected 0 to 60");
    let cancel = Cancel::on_signals()?;
    let mut pairs = measure(args, &cancel)?.split_off(WARM_UP as usize);
    // Where packets were too few in one of them, a pair tells nothing.
    pairs.retain(|(plain, culvert)| plain.pps().is_finite() && culvert.pps().is_finite());
    ensure!(2 * pairs.len() > args.runs as usize, "the generator was too slow in most windows");
    let (plain, culvert): (Vec<Window>, Vec<Window>) = pairs.into_iter().unzip();
    let pps = |windows: &[Window]| windows.iter().map(Window::pps).collect::<Vec<_>>();
    let (plain_pps, culvert_pps) = (pps(&plain), pps(&culvert));
    let ratios: Vec<f64> = culvert_pps.iter().zip(&plain_pps).map(|(one, of)| one / of).collect();
    let comparison = Comparison {
        size: args.size,
        algorithm: args.algorithm.to_string(),
        provider: engine::provider(args.provider.as_deref())?.name().to_owned(),
        plain_median_pps: median(&plain_pps),
        culvert_median_pps: median(&culvert_pps),
        ratio: median(&ratios),
        plain_pps,
        culvert_pps,
        plain: Costs::of(&plain),
        culvert: Costs::of(&culvert),
        cpu: engine::cpu_model(),
    };
    print(args, &comparison)
}

fn print(args: &VethArgs, comparison: &Comparison) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(comparison)?);
        return Ok(());
    }
    println!(
        "{} octets, {}, {} ({}), {} pairs of {} s",
        args.size, args.algorithm, comparison.provider, comparison.cpu, args.runs, args.seconds
    );
    let line = |name: &str, rates: &[f64], median: f64, costs: &Costs| {
        let best = rates.iter().copied().fold(0.0, f64::max);
        println!(
            "{name} median {:.0} kpps, best {:.0}; {:.4} system calls and {:.0} ns a packet, \
             {:.1} packets a turn, {:.0} % of turns without",
            median / 1e3,
            best / 1e3,
            costs.syscalls_per_packet,
            costs.ns_per_packet,
            costs.packets_per_turn,
            costs.idle * 100.0
        );
    };
    let Comparison { plain_median_pps, culvert_median_pps, plain, culvert, .. } = comparison;
    line("plain AF_XDP forwarder ", &comparison.plain_pps, *plain_median_pps, plain);
    line("culvert, sealing       ", &comparison.culvert_pps, *culvert_median_pps, culvert);
    println!("ratio {:.3}", comparison.ratio);
    Ok(())
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Window {
    fn pps(&self) -> f64 {
        1e9 / self.ns_per_packet
    }

    /// Runs turns for a while. A turn says how many packets it had.
    fn run(
        length: Duration,
        forwarder: &mut Forwarder,
        turn: fn(&mut Forwarder) -> usize,
    ) -> Window {
        let before = forwarder.io().counters();
        let mut window = Window::default();
        let mut stretches = Vec::with_capacity(STRETCHES_MAX);
        let start = Instant::now();
        let (mut now, mut began, mut full) = (start, start, 0);
        while now - start < length {
            let handled = turn(forwarder);
            let then = std::mem::replace(&mut now, Instant::now());
            *(if handled > 0 { &mut window.busy } else { &mut window.idle }) += 1;
            full = if handled == BATCH { full + 1 } else { 0 };
            began = if full % STRETCH == 1 { then } else { began };
            let is_whole = full % STRETCH == 0 && full > STRETCH;
            if is_whole && stretches.len() < STRETCHES_MAX {
                stretches.push((now - began).as_secs_f64());
            }
        }
        let after = forwarder.io().counters();
        window.ns_per_packet = undisturbed(&mut stretches) * 1e9 / (STRETCH * BATCH) as f64;
        window.sent = after.sent - before.sent;
        window.syscalls = after.syscalls() - before.syscalls();
        window
    }
}

/// The time that a tenth of them is below: one that nothing interrupted.
fn undisturbed(times: &mut [f64]) -> f64 {
    if times.is_empty() {
        return f64::NAN;
    }
    let tenth = times.len() / 10;
    *times.select_nth_unstable_by(tenth, f64::total_cmp).1
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
impl Costs {
    fn of(windows: &[Window]) -> Costs {
        let sum = |of: fn(&Window) -> u64| windows.iter().map(of).sum::<u64>() as f64;
        let (busy, idle) = (sum(|window| window.busy), sum(|window| window.idle));
        let sent = sum(|window| window.sent);
        let ns: Vec<f64> = windows.iter().map(|window| window.ns_per_packet).collect();
        Costs {
            syscalls_per_packet: sum(|window| window.syscalls) / sent,
            ns_per_packet: median(&ns),
            packets_per_turn: sent / busy,
            idle: idle / (busy + idle),
        }
    }
}

/// The windows of the plain forwarder and of culvert, in pairs.
fn measure(args: &VethArgs, cancel: &Cancel) -> Result<Vec<(Window, Window)>> {
    let mut namespaces = Namespaces::new(cancel)?;
    let (generator, gateway, sink) =
        (namespaces.add("gen")?, namespaces.add("gw")?, namespaces.add("sink")?);
    let link = Link { offloads: false, ..Link::default() };
    link.connect(&End::new(&generator, "gen0", &[]), &End::new(&gateway, "lan0", &[]))?;
    link.connect(&End::new(&gateway, "wan0", &[]), &End::new(&sink, "sink0", &[]))?;
    let opened = gateway.run(|| open(args.core, &config(args.busy_poll)))??;
    let mut control = opened.control;
    control.ports_mut()[0].steer_mut().set_prefixes(&[("10.0.0.0".parse()?, 8)])?;
    let io = opened.workers.into_iter().next().context("one worker")?;
    let frame = engine::plain_frame(args.size);
    let stop = AtomicBool::new(false);
    let windows = thread::scope(|scope| {
        let source = scope.spawn(|| generate(args, &generator, &frame, &stop));
        let forwarder = scope.spawn(|| forward(args, io, cancel));
        let windows = forwarder.join();
        stop.store(true, Relaxed);
        source.join().expect("the generator does not panic")?;
        windows.expect("the forwarder does not panic")
    })?;
    // What was handed over to be sent did leave.
    let handed: u64 = windows.iter().map(|(plain, culvert)| plain.sent + culvert.sent).sum();
    let left = gateway.counters("wan0")?.tx_packets;
    ensure!(left >= handed - handed / 100, "wan0 sent {left} of {handed} frames");
    Ok(windows)
}

/// Of lan0 and wan0, for one worker.
pub(super) fn config(busy_poll: Option<u16>) -> culvert_xdp::Config {
    let port =
        |interface: &str, side| culvert_xdp::PortConfig { interface: interface.to_owned(), side };
    let ports = vec![
        port("lan0", culvert_xdp::Side::Protected),
        port("wan0", culvert_xdp::Side::Unprotected),
    ];
    culvert_xdp::Config { busy_poll, ..culvert_xdp::Config::new(ports, 1) }
}

/// Opens a gateway whose memory is that of the core its worker will run on.
pub(super) fn open(core: usize, config: &culvert_xdp::Config) -> Result<culvert_xdp::Gateway> {
    engine::pin(core)?;
    Ok(culvert_xdp::open(config)?)
}

fn generate(args: &VethArgs, generator: &Ns, frame: &[u8], stop: &AtomicBool) -> Result<()> {
    generator.run(|| {
        engine::pin(args.generator_core)?;
        let mut steer = Steer::load(Role::Reflect)?;
        steer.attach("gen0", Mode::Native)?;
        while !stop.load(Relaxed) {
            steer.generate("gen0", frame, GENERATE)?;
        }
        Ok(())
    })?
}

struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// Both forwarders, over the worker's I/O.
struct Forwarder {
    worker: Worker<Provider, XdpIo>,
    /// The plain one's packets.
    batch: Batch,
}

impl Forwarder {
    fn io(&mut self) -> &mut XdpIo {
        self.worker.io_mut()
    }

    /// Moves a batch from lan0 to wan0.
    fn turn_plain(&mut self) -> usize {
        let Forwarder { worker, batch } = self;
        let io = worker.io_mut();
        io.service();
        io.recv(PROTECTED, batch);
        let received = batch.len();
        if received > 0 {
            io.send(UNPROTECTED, batch);
            batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
        }
        received
    }

    fn turn_sealing(&mut self) -> usize {
        self.worker.turn(0)
    }
}

/// A worker that seals all packets of 10.0.0.0/8 for one outbound SA, and its controller.
pub(super) fn sealing(
    io: XdpIo,
    provider: Option<&str>,
    algorithm: Algorithm,
) -> Result<(Worker<Provider, XdpIo>, Controller<Provider>)> {
    let aead = engine::provider(provider)?;
    let (worker_end, control_end) = mailbox(64);
    let port = |side| PortConfig { side, mac: None, completes_checksums: true };
    let config = WorkerConfig {
        id: WorkerId(0),
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        slots: 1,
        options: Options::default(),
    };
    let mut worker = Worker::new(&config, aead, io, worker_end, Handoff::none(), Handoff::none());
    let handle = WorkerHandle {
        mailbox: control_end,
        wake: Arc::new(Awake),
        counters: worker.shared_counters(),
    };
    let mut controller = Controller::new(aead, vec![handle], 1, None);
    controller.add_sa(&sa(algorithm)?)?;
    let selector = Selector::between("10.0.0.0/8".parse()?, "10.0.0.0/8".parse()?)?;
    let policy = Policy::new(selector, Action::Protect(Group(0)));
    controller.set_policies(&Spd { outbound: vec![policy], ..Spd::default() });
    let hop =
        NextHop { port: UNPROTECTED, vlan: None, source: NOBODY, destination: NOBODY, mtu: 1500 };
    controller.set_next_hops(NextHops::fixed([("192.0.2.0/24".parse()?, hop)]));
    while !controller.is_idle() {
        controller.poll()?;
        worker.turn(0);
    }
    Ok((worker, controller))
}

/// Runs both forwarders in turn.
fn forward(args: &VethArgs, io: XdpIo, cancel: &Cancel) -> Result<Vec<(Window, Window)>> {
    engine::pin(args.core)?;
    let (worker, _controller) = sealing(io, args.provider.as_deref(), args.algorithm)?;
    let mut forwarder = Forwarder { worker, batch: Batch::new() };
    let length = Duration::from_secs_f64(args.seconds);
    let mut windows = Vec::new();
    for _ in 0..args.runs + WARM_UP {
        cancel.check()?;
        let plain = Window::run(length, &mut forwarder, Forwarder::turn_plain);
        windows.push((plain, Window::run(length, &mut forwarder, Forwarder::turn_sealing)));
    }
    Ok(windows)
}

fn sa(algorithm: Algorithm) -> Result<SaSpec> {
    // Each run starts its numbers anew and sends what it seals: never under one key twice.
    let keymat = Keymat::from_hex(&random_key(algorithm.keymat_len())?)?;
    let ends = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
    let key = (algorithm, keymat);
    let sa = SaSpec::new(Direction::Outbound, Spi::new(0x1001)?, ends, key, Group(0));
    Ok(SaSpec { esn: true, ..sa })
}
