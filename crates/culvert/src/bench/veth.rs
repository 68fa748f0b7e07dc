//! `culvert bench veth`: what encryption costs a forwarder over AF_XDP.
//!
//! ```text
//!   generator                 gateway                     sink
//!   gen0 ------- veth ------- lan0   wan0 ------- veth ------- sink0
//!   core 1                    core 0
//! ```
//!
//! Two forwarders run in turn over the same I/O layer: a plain one that moves each frame from lan0
//! to wan0 unchanged, and culvert's worker, which seals it into a tunnel. The kernel generates the
//! packets on another core, faster than either forwards. What counts is the number of frames a
//! second that wan0 accepted; the result is the ratio of the medians. On veth most of the time goes
//! into the kernel's copies and socket buffers, which both forwarders pay alike.

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
use culvert_aead::Keymat;
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

/// Time before a run is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// Frames the kernel generates in one call; setting one up takes some milliseconds.
const GENERATE: u32 = 1 << 17;

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
    /// Frames a second of the plain forwarder, each run.
    pub plain_pps: Vec<f64>,
    /// Frames a second of culvert, each run.
    pub culvert_pps: Vec<f64>,
    /// Median of the plain forwarder.
    pub plain_median_pps: f64,
    /// Median of culvert.
    pub culvert_median_pps: f64,
    /// culvert's median by the plain one's.
    pub ratio: f64,
    /// Model of the CPU.
    pub cpu: String,
}

/// Runs the command.
///
/// # Errors
/// When the network cannot be set up, or nothing is forwarded.
pub fn run(args: &VethArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "bench veth needs root: try sudo");
    ensure!(args.seconds > 0.0 && args.seconds <= 60.0, "--seconds: expected 0 to 60");
    let cancel = Cancel::on_signals()?;
    let mut plain_pps = Vec::new();
    let mut culvert_pps = Vec::new();
    for _ in 0..args.runs {
        plain_pps.push(measure(args, &cancel, forward_plain)?);
        culvert_pps.push(measure(args, &cancel, forward_sealed)?);
    }
    let (plain, culvert) = (median(&plain_pps), median(&culvert_pps));
    let comparison = Comparison {
        size: args.size,
        algorithm: args.algorithm.to_string(),
        provider: engine::provider(args.provider.as_deref())?.name().to_owned(),
        plain_median_pps: plain,
        culvert_median_pps: culvert,
        ratio: culvert / plain,
        plain_pps,
        culvert_pps,
        cpu: engine::cpu_model(),
    };
    print(args, &comparison)
}

fn print(args: &VethArgs, comparison: &Comparison) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(comparison)?);
        return Ok(());
    }
    let kpps = |rates: &[f64]| {
        rates.iter().map(|rate| format!("{:.0}", rate / 1e3)).collect::<Vec<_>>().join(" ")
    };
    println!(
        "{} octets, {}, {} ({})",
        args.size, args.algorithm, comparison.provider, comparison.cpu
    );
    println!(
        "plain AF_XDP forwarder  kpps {}  median {:.0}",
        kpps(&comparison.plain_pps),
        comparison.plain_median_pps / 1e3
    );
    println!(
        "culvert, sealing        kpps {}  median {:.0}",
        kpps(&comparison.culvert_pps),
        comparison.culvert_median_pps / 1e3
    );
    println!("ratio {:.2}", comparison.ratio);
    Ok(())
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// One run of one forwarder: frames a second that left.
fn measure(
    args: &VethArgs,
    cancel: &Cancel,
    forward: impl FnOnce(&VethArgs, XdpIo, &AtomicBool) -> Result<()> + Send,
) -> Result<f64> {
    let mut namespaces = Namespaces::new(cancel)?;
    let (generator, gateway, sink) =
        (namespaces.add("gen")?, namespaces.add("gw")?, namespaces.add("sink")?);
    let link = Link { offloads: false, ..Link::default() };
    link.connect(&End::new(&generator, "gen0", &[]), &End::new(&gateway, "lan0", &[]))?;
    link.connect(&End::new(&gateway, "wan0", &[]), &End::new(&sink, "sink0", &[]))?;
    let opened = gateway.run(|| open(args))??;
    let mut control = opened.control;
    control.ports_mut()[0].steer_mut().set_prefixes(&[("10.0.0.0".parse()?, 8)])?;
    let io = opened.workers.into_iter().next().context("one worker")?;
    let frame = engine::plain_frame(args.size);
    let stop = Arc::new(AtomicBool::new(false));
    let rate = thread::scope(|scope| {
        let source = scope.spawn(|| generate(args, &generator, &frame, &stop));
        let forwarder = scope.spawn(|| forward(args, io, &stop));
        let rate = rate(args, cancel, &gateway);
        stop.store(true, Relaxed);
        forwarder.join().expect("the forwarder does not panic")?;
        source.join().expect("the generator does not panic")?;
        rate
    })?;
    ensure!(rate > 0.0, "nothing was forwarded");
    Ok(rate)
}

fn open(args: &VethArgs) -> Result<culvert_xdp::Gateway> {
    let port =
        |interface: &str, side| culvert_xdp::PortConfig { interface: interface.to_owned(), side };
    let ports = vec![
        port("lan0", culvert_xdp::Side::Protected),
        port("wan0", culvert_xdp::Side::Unprotected),
    ];
    engine::pin(args.core)?;
    Ok(culvert_xdp::open(&culvert_xdp::Config::new(ports, 1))?)
}

/// Frames a second that wan0 sent while the forwarder runs.
fn rate(args: &VethArgs, cancel: &Cancel, gateway: &Ns) -> Result<f64> {
    cancel.sleep(WARM_UP)?;
    let start = Instant::now();
    let before = gateway.counters("wan0")?.tx_packets;
    cancel.sleep(Duration::from_secs_f64(args.seconds))?;
    let sent = gateway.counters("wan0")?.tx_packets - before;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(sent as f64 / start.elapsed().as_secs_f64())
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

/// Moves every frame from lan0 to wan0.
fn forward_plain(args: &VethArgs, mut io: XdpIo, stop: &AtomicBool) -> Result<()> {
    engine::pin(args.core)?;
    let mut batch = Batch::new();
    while !stop.load(Relaxed) {
        io.service();
        io.recv(PROTECTED, &mut batch);
        if batch.is_empty() {
            continue;
        }
        io.send(UNPROTECTED, &mut batch);
        batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
    }
    Ok(())
}

struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// Runs culvert's worker with one outbound SA.
fn forward_sealed(args: &VethArgs, io: XdpIo, stop: &AtomicBool) -> Result<()> {
    engine::pin(args.core)?;
    let aead = engine::provider(args.provider.as_deref())?;
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
    controller.add_sa(&sa(args)?)?;
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
    while !stop.load(Relaxed) {
        worker.turn(0);
    }
    Ok(())
}

fn sa(args: &VethArgs) -> Result<SaSpec> {
    // Each run starts its numbers anew and sends what it seals: never under one key twice.
    let keymat = Keymat::from_hex(&random_key(args.algorithm.keymat_len())?)?;
    let ends = ("192.0.2.1".parse()?, "192.0.2.2".parse()?);
    let key = (args.algorithm, keymat);
    let sa = SaSpec::new(Direction::Outbound, Spi::new(0x1001)?, ends, key, Group(0));
    Ok(SaSpec { esn: true, ..sa })
}
