//! `culvert run`: the gateway.
//!
//! The calling thread is the control thread: it installs SAs, follows the kernel's routes and
//! neighbours, leases sequence numbers and waits for a signal. Each worker is a thread of its own,
//! pinned to a core, which owns one queue of every interface.
//!
//! Order of a start: everything that can be refused is refused before an interface is touched. Then
//! the interfaces are opened with XDP programs that know own addresses and protected prefixes:
//! from here on, no packet that is culvert's reaches the kernel. Workers get SAs, policies and next
//! hops, and only when they confirmed them do packets reach them. Order of a stop: workers end
//! their turn, programs are detached and offloads restored, the last sequence numbers are recorded.

mod gateway;
mod journal;
pub mod keying;
mod news;
mod rules;
pub mod socket;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::bail;
use culvert_aead::Aead;
use culvert_aead::PassedOver;
use culvert_aead::Provider;
use culvert_control::Controller;
use culvert_control::Direction;
use culvert_control::Epochs;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_control::SequenceStore;
use culvert_control::WorkerHandle;
use culvert_control::kernel::Follower;
use culvert_engine::Counters;
use culvert_engine::Crew;
use culvert_engine::Handoff;
use culvert_engine::Location;
use culvert_engine::Options;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_engine::WorkerConfig;
use culvert_engine::WorkerId;
use culvert_engine::crew::Lending;
use culvert_engine::handoff::Wake;
use culvert_engine::mailbox::mailbox;
use culvert_engine::tables::SaSample;
use culvert_frame::Port;
use culvert_keying::DataPlane;
use culvert_wire::ethernet::Mac;
use culvert_xdp::Interface;
use culvert_xdp::Waker;
use culvert_xdp::XdpIo;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use serde::Deserialize;
use serde::Serialize;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::assembly;
use crate::assembly::PortName;
use crate::assembly::SaWords;
use crate::cli::RunArgs;
use crate::config;
use crate::config::Config;
use crate::config::OnStop;
use crate::config::Take;
use crate::report;
use crate::report::CounterReport;
use crate::report::SaReport;

use gateway::Gateway;
use keying::Keying;
use news::NewsLog;

/// How long a worker looks for more packets after the last one before it sleeps, in nanoseconds:
/// going to sleep and waking up takes about as long.
const SPIN_NS: u64 = 50_000;
/// Longest sleep of a worker: packets on hold expire in its turns.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How often control looks at the workers' events.
const CONTROL_INTERVAL_MS: u16 = 10;
/// Packets a handoff ring holds.
const HANDOFF_CAPACITY: usize = 1024;
/// Packets that wait for the first SA of their policy, when IKE can be asked for it.
const ACQUIRE_HOLD: u8 = 16;
/// Commands a mailbox holds.
const MAILBOX_CAPACITY: usize = 1024;

pub(crate) type CulvertWorker = Worker<Provider, XdpIo>;

/// What `culvert run --report` writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunReport {
    /// All workers together.
    pub totals: CounterReport,
    /// Each worker.
    pub workers: Vec<CounterReport>,
    /// SAs in the order of the configuration.
    pub sas: Vec<SaReport>,
    /// The interfaces.
    pub ports: Vec<PortReport>,
    /// The sockets of each worker.
    #[serde(default)]
    pub io: Vec<IoReport>,
}

/// What the sockets of one worker did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoReport {
    /// Packets received.
    pub received: u64,
    /// Packets handed to the kernel to send.
    pub sent: u64,
    /// Packets the transmit ring had no room for.
    pub not_accepted: u64,
    /// Packets of several buffers dropped for lack of a free run of frames.
    pub no_run: u64,
    /// Packets of several buffers dropped as they were longer than a run.
    pub too_long: u64,
    /// System calls that told the kernel to send.
    #[serde(default)]
    pub tx_kicks: u64,
    /// System calls that told a driver of new frames to receive into.
    #[serde(default)]
    pub rx_kicks: u64,
    /// System calls that ran a driver, with busy polling.
    #[serde(default)]
    pub busy_polls: u64,
    /// System calls that waited for something to do.
    #[serde(default)]
    pub polls: u64,
    /// System calls that took note of having been woken by another thread.
    #[serde(default)]
    pub wakes: u64,
}

/// What one interface was used as.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortReport {
    /// Its name.
    pub interface: String,
    /// Where the XDP program ran: `native` or `generic`.
    pub mode: String,
    /// True when packets reached the frames without a copy.
    pub zero_copy: bool,
    /// What the XDP program counted, all queues together.
    pub steering: std::collections::BTreeMap<String, u64>,
}

struct ForWaker(Waker);

impl Wake for ForWaker {
    fn wake(&self) {
        self.0.wake();
    }
}

/// Runs the command.
///
/// # Errors
/// When the gateway cannot start, with a message for the operator.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    init_logging();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let config = Config::load(&args.config)?;
    warn_of(&config);
    let aead = provider(&args.provider)?;
    let sas = assembly::sas(&config)?;
    let store = open_store(&config, &sas)?;
    let clock = (Instant::now(), SystemTime::now());
    let keying = config.control.as_ref().map(|control| Keying::open(control, &config));
    let (mut keying, epochs) = keying.transpose()?.unzip();
    let Assembled { mut gateway, workers, mut follower, ids } =
        assemble(&config, aead, &sas, store, epochs, clock.1)?;
    let count = workers.len();
    let threads = start(&config, workers, &stop, clock.0)?;
    if let Some(keying) = &mut keying {
        keying.restore(&mut gateway);
    }
    let result = settle(&mut gateway, &threads, &stop).and_then(|()| {
        gateway.set_own(&follower.own_addresses(), &follower.broadcasts())?;
        gateway.control.connect()?;
        info!(workers = count, sas = sas.len(), "gateway ready");
        let news = NewsLog::new(ids, clock.1);
        Serving { gateway: &mut gateway, follower: &mut follower, keying: keying.as_mut() }
            .until(&stop, &threads, &news)
    });
    stop.store(true, Relaxed);
    drop(keying);
    let Gateway { controller, mut control, mut rules, .. } = gateway;
    rules.end(&control);
    // Interfaces that an operator wants open after a stop stay closed after a failure.
    let open = result.is_ok() && config.interfaces.on_stop == OnStop::Open;
    control.stay_closed(!open);
    if config.interfaces.pin.is_some() && !open {
        warn!(
            "interfaces stay closed: what culvert takes is dropped until it starts again, or \
             `culvert release` opens them"
        );
    }
    let report = finish(&config, controller, control, threads);
    result?;
    let report = report?;
    info!(
        received = report.totals.received,
        forwarded = report.totals.forwarded,
        dropped = report.totals.dropped,
        "stopped"
    );
    args.report.as_deref().map_or(Ok(()), |path| report::write(path, &report))
}

/// A gateway whose workers are still to be started.
struct Assembled {
    gateway: Gateway,
    workers: Vec<CulvertWorker>,
    follower: Follower,
    /// What the configuration says of the SAs.
    ids: HashMap<SaId, SaWords>,
}

/// Opens the interfaces and makes all that works on them; `start` is when the workers' clock began.
fn assemble(
    config: &Config,
    aead: Provider,
    sas: &[SaSpec],
    store: Option<SequenceStore>,
    epochs: Option<Epochs>,
    start: SystemTime,
) -> anyhow::Result<Assembled> {
    let names = assembly::ports(config);
    let count = worker_count(config, &names)?;
    let ports: Vec<(String, Port)> =
        names.iter().map(|name| name.interface.clone()).zip((0..).map(Port)).collect();
    let mut follower = Follower::open(&ports)?;
    let options = options(config, &names, count, &follower)?;
    let spd = assembly::spd(config);
    let prefixes = gateway::prefixes(&spd);
    let takes_all = config.interfaces.take == Take::All;
    let culvert_xdp::Gateway { control, workers: ios } =
        culvert_xdp::prepare(&culvert_xdp::Config {
            prefixes: prefixes.clone(),
            own_addresses: follower.own_addresses(),
            everything: takes_all.then(|| follower.broadcasts()),
            ..xdp_config(config, &names, count)
        })?;
    let slots = config.control.as_ref().map_or(sas.len().max(1), |control| control.max_sas);
    let spread = config.workers.spread;
    let (handles, workers) = make_workers(&control, aead, ios, slots, (options, spread));
    let mut controller = Controller::new(aead, handles, slots, store);
    controller.set_lending(spread.is_some());
    if count > 1 {
        controller.follow_placements();
    }
    let mut gateway = Gateway::new(controller, control, epochs, (takes_all, prefixes), start);
    let ids = install(&mut gateway.controller, config, sas)?;
    gateway.controller.set_policies(&spd);
    // Opening the interfaces may have changed what there is to know about them.
    follower.poll()?;
    gateway.controller.set_next_hops(follower.snapshot());
    Ok(Assembled { gateway, workers, follower, ids })
}

/// The AEAD provider of a name; which, and why none that is faster, is logged.
fn provider(name: &str) -> anyhow::Result<Provider> {
    let selection = Provider::selected(name)?;
    for PassedOver { name, reason } in &selection.passed_over {
        warn!(provider = name, reason = reason.to_string(), "AEAD provider passed over");
    }
    let aead = selection.provider;
    info!(provider = aead.name(), reason = selection.reason, "AEAD");
    Ok(aead)
}

/// Installs bundles and SAs; returns what the configuration says of the SAs.
fn install(
    controller: &mut Controller<Provider>,
    config: &Config,
    sas: &[SaSpec],
) -> anyhow::Result<HashMap<SaId, SaWords>> {
    for (group, parts) in assembly::bundles(config) {
        controller.set_bundle(group, &parts)?;
    }
    let mut known = HashMap::new();
    for ((sa, words), spec) in config.sas.iter().zip(assembly::words(config)).zip(sas) {
        let id = controller
            .add_sa(spec)
            .with_context(|| format!("SA {} of line {}", spec.spi, sa.line))?;
        known.insert(id, words);
    }
    Ok(known)
}

/// What the gateway does beyond its SAs. ICMP errors come from the addresses the configuration
/// names, else from those of the protected interfaces: there the hosts are that get them.
fn options(
    config: &Config,
    names: &[PortName],
    workers: usize,
    follower: &Follower,
) -> anyhow::Result<Options> {
    let mut options = assembly::options(config);
    if config.control.is_some() {
        options.acquire_hold = ACQUIRE_HOLD;
    }
    options.workers = u8::try_from(workers).context("workers: expected at most 64")?;
    let protected = names.iter().filter(|name| name.side == Side::Protected);
    for address in protected.flat_map(|name| follower.addresses_of(&name.interface)) {
        match address {
            IpAddr::V4(address) if !address.is_link_local() => {
                options.icmp.source_v4.get_or_insert(address);
            }
            IpAddr::V6(address) if !address.is_unicast_link_local() => {
                options.icmp.source_v6.get_or_insert(address);
            }
            _ => {}
        }
    }
    Ok(options)
}

pub(crate) fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process (tests) is no error.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

fn warn_of(config: &Config) {
    for warning in config.warnings() {
        warn!("{warning}");
    }
    for sa in assembly::mute_sas(config) {
        warn!(line = sa.line, spi = sa.spi, "no inbound policy names this SA: nothing comes out");
    }
    let Some(consequence) = forwarding(config) else { return };
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        let path = format!("/proc/sys/{}", setting.replace('.', "/"));
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0") {
            warn!("{setting} is on: {consequence}; turn it off unless a filter prevents that");
        }
    }
}

/// What the kernel does, if it forwards, with packets that are not taken from it.
fn forwarding(config: &Config) -> Option<&'static str> {
    match (&config.interfaces.pin, config.interfaces.take) {
        (Some(_), Take::All) => None,
        (Some(_), Take::Policies) => Some(
            "the kernel forwards in clear what no policy's destination covers (take = \"all\" \
             leaves it nothing)",
        ),
        (None, _) => Some(
            "before culvert starts and after it ends in any way, the kernel forwards in clear what \
             policies protect (pin = true leaves it nothing)",
        ),
    }
}

/// Keys from a file outlive the process: their sequence numbers must be on disk.
fn open_store(config: &Config, sas: &[SaSpec]) -> anyhow::Result<Option<SequenceStore>> {
    if sas.iter().all(|sa| sa.direction == Direction::Inbound) {
        return Ok(None);
    }
    let store = SequenceStore::open(&config.state_directory).context(
        "outbound SAs with static keys need a place to record their sequence numbers, or a \
         restart would reuse nonces (RFC 4106 section 2)",
    )?;
    Ok(Some(store))
}

/// One worker for each queue: traffic of a queue without a worker would pass by the gateway.
fn worker_count(config: &Config, names: &[PortName]) -> anyhow::Result<usize> {
    let mut queues = Vec::with_capacity(names.len());
    for name in names {
        queues.push((&name.interface, Interface::inspect(&name.interface)?.rx_queues()));
    }
    let wanted = config.workers.count.or_else(|| queues.iter().map(|&(_, count)| count).min());
    let wanted = wanted.context("no interface")?;
    for (interface, count) in queues {
        if count != wanted {
            bail!(
                "interface {interface} has {count} receive queues: expected {wanted}, one for \
                 each worker; set it with `ethtool -L {interface} rx {wanted} tx {wanted}` \
                 (or `combined {wanted}`), or change workers.count"
            );
        }
    }
    Ok(wanted)
}

fn xdp_config(config: &Config, names: &[PortName], workers: usize) -> culvert_xdp::Config {
    let port = |name: &PortName| culvert_xdp::PortConfig {
        interface: name.interface.clone(),
        side: match name.side {
            Side::Protected => culvert_xdp::Side::Protected,
            Side::Unprotected => culvert_xdp::Side::Unprotected,
        },
    };
    let mut xdp = culvert_xdp::Config::new(names.iter().map(port).collect(), workers);
    xdp.mode = match config.interfaces.mode {
        config::Mode::Auto => culvert_xdp::ModeChoice::Auto,
        config::Mode::Native => culvert_xdp::ModeChoice::Native,
        config::Mode::Generic => culvert_xdp::ModeChoice::Generic,
    };
    xdp.copy = match config.interfaces.zero_copy {
        config::ZeroCopy::Auto => culvert_xdp::CopyChoice::Auto,
        config::ZeroCopy::Off => culvert_xdp::CopyChoice::Copy,
        config::ZeroCopy::Require => culvert_xdp::CopyChoice::ZeroCopy,
    };
    xdp.jumbo = config.interfaces.jumbo;
    xdp.busy_poll = config.workers.busy_poll;
    xdp.pin.clone_from(&config.interfaces.pin);
    xdp
}

fn make_workers(
    control: &culvert_xdp::Control,
    aead: Provider,
    ios: Vec<XdpIo>,
    slots: usize,
    (options, spread): (Options, Option<u16>),
) -> (Vec<WorkerHandle<<Provider as Aead>::Key>>, Vec<CulvertWorker>) {
    let port = |port: &culvert_xdp::PortControl| PortConfig {
        side: match port.side() {
            culvert_xdp::Side::Protected => Side::Protected,
            culvert_xdp::Side::Unprotected => Side::Unprotected,
        },
        mac: Some(Mac(port.interface().mac())),
        completes_checksums: port.interface().needs_checksum_completion(),
    };
    let ports: Vec<PortConfig> = control.ports().iter().map(port).collect();
    let wakers: Vec<Arc<dyn Wake>> =
        ios.iter().map(|io| Arc::new(ForWaker(io.waker())) as Arc<dyn Wake>).collect();
    let inbound = Handoff::mesh(&wakers, HANDOFF_CAPACITY);
    let outbound = Handoff::mesh(&wakers, HANDOFF_CAPACITY);
    let mut handles = Vec::with_capacity(ios.len());
    let mut workers = Vec::with_capacity(ios.len());
    let parts = ios.into_iter().zip(inbound).zip(outbound).zip(&wakers);
    for (id, (((io, inbound), outbound), wake)) in (0u8..).zip(parts) {
        let (worker_end, control_end) = mailbox(MAILBOX_CAPACITY);
        let config = WorkerConfig { id: WorkerId(id), ports: ports.clone(), slots, options };
        let worker = Worker::new(&config, aead, io, worker_end, inbound, outbound);
        let counters = worker.shared_counters();
        let wake = Arc::clone(wake);
        handles.push(WorkerHandle { mailbox: control_end, wake, counters });
        workers.push(worker);
    }
    if let Some(octets) = spread {
        let crew = Crew::of(&wakers, Lending::from_octets(usize::from(octets)));
        workers.iter_mut().zip(crew).for_each(|(worker, end)| worker.join(end));
    }
    (handles, workers)
}

/// Starts the worker threads, each pinned to its core; their clocks began at `clock`.
fn start(
    config: &Config,
    workers: Vec<CulvertWorker>,
    stop: &Arc<AtomicBool>,
    clock: Instant,
) -> anyhow::Result<Vec<JoinHandle<CulvertWorker>>> {
    let cores = core_affinity::get_core_ids().context("cannot read the cores of this machine")?;
    if config.workers.busy_poll.is_some() && workers.len() > cores.len() {
        warn!(
            workers = workers.len(),
            cores = cores.len(),
            "busy_poll: more workers than cores: as none of them sleeps, those that share one wait \
             for one another"
        );
    }
    let mut threads = Vec::with_capacity(workers.len());
    for (index, mut worker) in workers.into_iter().enumerate() {
        let core = match config.workers.cores.get(index) {
            Some(&wanted) => cores
                .iter()
                .find(|core| core.id == wanted)
                .with_context(|| format!("workers.cores: this machine has no core {wanted}"))?,
            None => &cores[index % cores.len()],
        };
        let (core, stop) = (*core, Arc::clone(stop));
        let work = move || {
            if !core_affinity::set_for_current(core) {
                warn!(worker = index, core = core.id, "cannot pin the worker to its core");
            }
            work(&mut worker, clock, &stop);
            worker
        };
        let name = format!("worker-{index}");
        threads.push(thread::Builder::new().name(name).spawn(work).context("cannot start")?);
    }
    Ok(threads)
}

/// A worker's life: turns at times since `clock` began, and sleep when there is nothing to do.
pub(crate) fn work(worker: &mut CulvertWorker, clock: Instant, stop: &AtomicBool) {
    let mut sleep_at = 0;
    while !stop.load(Relaxed) {
        let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if worker.turn(now) > 0 {
            sleep_at = now.saturating_add(SPIN_NS);
        } else if now >= sleep_at {
            worker.wait(SLEEP_MAX);
        }
    }
}

/// Waits until the workers have confirmed everything they were told.
fn settle(
    gateway: &mut Gateway,
    threads: &[JoinHandle<CulvertWorker>],
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !gateway.settle() && !stop.load(Relaxed) {
        if threads.iter().any(JoinHandle::is_finished) {
            bail!("a worker ended by itself");
        }
    }
    Ok(())
}

/// A socket is bound to the interface there was at start; one that is made anew has none.
fn check_interfaces(control: &culvert_xdp::Control) -> anyhow::Result<()> {
    for port in control.ports() {
        let name = port.interface().name();
        if nix::net::if_::if_nametoindex(name) != Ok(port.interface().ifindex()) {
            bail!("interface {name} was removed: start again when it is back");
        }
    }
    Ok(())
}

/// What the control thread looks after while the gateway runs.
struct Serving<'a> {
    gateway: &'a mut Gateway,
    follower: &'a mut Follower,
    keying: Option<&'a mut Keying>,
}

impl Serving<'_> {
    /// The control loop: until a signal comes.
    fn until(
        &mut self,
        stop: &AtomicBool,
        threads: &[JoinHandle<CulvertWorker>],
        news: &NewsLog,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut complained = None;
        let mut addresses_due = false;
        let mut is_busy = false;
        while !stop.load(Relaxed) {
            if threads.iter().any(JoinHandle::is_finished) {
                bail!("a worker ended by itself");
            }
            self.wait(is_busy);
            match self.follower.poll() {
                Ok(true) => {
                    check_interfaces(&self.gateway.control)?;
                    self.gateway.controller.set_next_hops(self.follower.snapshot());
                    addresses_due = true;
                }
                Ok(false) => {}
                Err(error) => warn!(%error, "next hops"),
            }
            let now = start.elapsed();
            let mut result = self.gateway.poll().map_err(anyhow::Error::from);
            if addresses_due {
                let own = self.follower.own_addresses();
                let told = self.gateway.set_own(&own, &self.follower.broadcasts());
                addresses_due = told.is_err();
                result = result.and(told);
            }
            // Whatever failed is tried again in a moment; once a second is often enough to say so.
            if let Err(error) = result
                && complained.is_none_or(|at| now - at >= Duration::from_secs(1))
            {
                complained = Some(now);
                error!("{error:#}");
            }
            let (happened, lost) = self.gateway.take_news();
            news.write(&happened, lost);
            if let Some(keying) = &mut self.keying {
                is_busy = keying.serve(self.gateway, &happened);
            }
            for target in self.gateway.controller.take_unresolved() {
                self.follower.resolve(target, now);
            }
            self.follower.refresh(now);
        }
        Ok(())
    }

    /// Waits for something to do; not long, for workers do not say when they have news.
    fn wait(&self, is_busy: bool) {
        let mut fds = vec![PollFd::new(self.follower.as_fd(), PollFlags::POLLIN)];
        if let Some(keying) = &self.keying {
            fds.extend(keying.poll_fds());
        }
        let most = if is_busy { 0 } else { CONTROL_INTERVAL_MS };
        // An interrupted wait is as good as one that ended.
        let _ = nix::poll::poll(&mut fds, PollTimeout::from(most));
    }
}

/// Ends the workers, restores the interfaces, and records the last sequence numbers.
fn finish(
    config: &Config,
    mut controller: Controller<Provider>,
    control: culvert_xdp::Control,
    threads: Vec<JoinHandle<CulvertWorker>>,
) -> anyhow::Result<RunReport> {
    // Whoever sleeps wakes up for this, and sees the stop flag.
    controller.request_samples();
    let _ = controller.poll();
    let mut workers = Vec::with_capacity(threads.len());
    for thread in threads {
        match thread.join() {
            Ok(worker) => workers.push(worker),
            Err(_) => bail!("a worker panicked"),
        }
    }
    let ports = control.ports().iter().map(port_report).collect();
    let io = (0..workers.len()).filter_map(|worker| control.io_counters(worker));
    let io = io.map(io_report).collect();
    drop(control);
    let last_used: Vec<(Location, u64)> = controller
        .leased()
        .filter_map(|location| {
            let worker = workers.get(usize::from(location.worker.0))?;
            Some((location, worker.last_used(location.slot)?))
        })
        .collect();
    controller.record_last(last_used)?;
    let samples: Vec<SaSample> = workers.iter().flat_map(Worker::samples).collect();
    let zero = Counters::default();
    let totals = workers.iter().fold(zero, |sum, worker| sum.plus(worker.counters()));
    Ok(RunReport {
        totals: CounterReport::from(&totals),
        workers: workers.iter().map(|worker| worker.counters().into()).collect(),
        sas: report::sa_reports(config, &samples),
        ports,
        io,
    })
}

fn io_report(counters: culvert_xdp::IoCounters) -> IoReport {
    IoReport {
        received: counters.received,
        sent: counters.sent,
        not_accepted: counters.not_accepted,
        no_run: counters.no_run,
        too_long: counters.too_long,
        tx_kicks: counters.tx_kicks,
        rx_kicks: counters.rx_kicks,
        busy_polls: counters.busy_polls,
        polls: counters.polls,
        wakes: counters.wakes,
    }
}

fn port_report(port: &culvert_xdp::PortControl) -> PortReport {
    let queues = u32::try_from(port.interface().rx_queues()).unwrap_or(1);
    let mut steering = std::collections::BTreeMap::new();
    for row in port.steer().counters(queues).unwrap_or_default() {
        for (counter, value) in row.iter().filter(|&(_, value)| value > 0) {
            *steering.entry(counter.name().to_owned()).or_default() += value;
        }
    }
    PortReport {
        interface: port.interface().name().to_owned(),
        mode: port.mode().to_string(),
        zero_copy: port.zero_copy(),
        steering,
    }
}
