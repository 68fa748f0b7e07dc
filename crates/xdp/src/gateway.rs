//! [`open`]: from interface names to running packet I/O, one [`XdpIo`] a worker.
//!
//! # Steps
//!
//! 1. Look at every interface and refuse what cannot work (MTU, queues).
//! 2. Load the XDP program, and tell it own addresses and prefixes.
//! 3. Turn off offloads that merge or cut packets, and attach the program: native, else generic.
//!    From here on, what is for the engine no longer reaches the kernel: it is dropped.
//! 4. Make one region of frames and one socket for each worker and port, all over this memory.
//!    Zero-copy needs every interface to be capable of it, as shared memory has one mode.
//! 5. Fill the fill rings.
//! 6. Enter the sockets into the programs' maps. From here on packets arrive. [`prepare`] leaves
//!    this step to [`Control::connect`].
//!
//! Each choice is logged once. A failure undoes the steps before it, as dropping does: programs are
//! detached, then offloads set back as they were found.
//!
//! # Threads
//!
//! A [`Gateway`] is taken apart: each [`XdpIo`] moves to the thread of its worker, [`Control`]
//! stays with the control thread. They share nothing but the kernel and published counters. The
//! calling thread's network namespace is where the interfaces are looked up; afterwards neither
//! half depends on it.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Weak;
use std::thread;
use std::time::Duration;

use arrayvec::ArrayVec;

use culvert_frame::BATCH;
use culvert_frame::FreeFrame;
use culvert_frame::MAX_PORTS;
use culvert_frame::Port;
use culvert_frame::Region;

use crate::busy;
use crate::error::Error;
use crate::interface::Interface;
use crate::io::IoCounters;
use crate::io::PublishedCounters;
use crate::io::XdpIo;
use crate::pin::Pin;
use crate::pin::Pins;
use crate::pin::no_socket;
use crate::program;
use crate::program::Mode;
use crate::program::Prefix;
use crate::program::Role;
use crate::program::Steer;
use crate::socket::BindMode;
use crate::socket::KernelStatistics;
use crate::socket::OpenError;
use crate::socket::Options;
use crate::socket::Socket;
use crate::socket::kernel_statistics;
use crate::wake::Sleeper;

/// Slots of each ring, unless configured: some milliseconds of packets.
pub const RING_SIZE: u32 = 2048;

/// Frames of each worker, unless configured: two ports' rings, and as many on their way.
pub const FRAMES_PER_WORKER: usize = 8192;

/// Runs of each worker where frames may be larger than a buffer, unless configured: more than fill
/// a transmit ring.
pub const RUNS_PER_WORKER: usize = 512;

/// Largest number of workers: queues that a steering program serves.
pub const MAX_WORKERS: usize = culvert_steer::map::MAX_QUEUES as usize;

/// Most packets of one round of busy polling.
pub const MAX_BUSY_POLL: u16 = 2048;

/// Fewest and most slots of a ring.
const RING_SIZES: std::ops::RangeInclusive<u32> = 64..=65536;

/// The kernel lets go of the program and the queues of a closed gateway a little later (work
/// queues, or a child process that has not closed its copy of a descriptor yet); this is how long
/// that is waited for, in steps.
const BUSY_RETRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// What a gateway is opened with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interfaces; index is [`Port`] number. At most [`MAX_PORTS`].
    pub ports: Vec<PortConfig>,
    /// Workers, each with one queue of every port. At most [`MAX_WORKERS`].
    pub workers: usize,
    /// Where the XDP program runs.
    pub mode: ModeChoice,
    /// Whether the driver copies packets.
    pub copy: CopyChoice,
    /// Frames of each worker.
    pub frames_per_worker: usize,
    /// Whether frames may be larger than one buffer: interfaces of an MTU up to
    /// [`MAX_JUMBO_MTU`](crate::interface::MAX_JUMBO_MTU) are accepted.
    pub jumbo: bool,
    /// Packets larger than one buffer that each worker can have at one time, with `jumbo`.
    pub runs_per_worker: usize,
    /// Slots of each ring; a power of two from 64 to 65536.
    pub ring_size: u32,
    /// Frames that one system call may send in copy mode; from 32 to `ring_size`. Kernels before
    /// 6.17 send 32 whatever is asked for.
    pub tx_budget: u32,
    /// Packets that a worker has a driver receive in one round, and a call makes up to two: workers
    /// never sleep, and run the drivers that let them. From 1 to [`MAX_BUSY_POLL`]. `None`: they
    /// sleep when there is nothing to do.
    pub busy_poll: Option<u16>,
    /// What the programs attract from the start; [`Control::set_prefixes`] changes it.
    pub prefixes: SidePrefixes,
    /// The gateway's own addresses at the start; [`Control::set_own_addresses`] changes them.
    pub own_addresses: Vec<IpAddr>,
    /// With broadcast addresses of the gateway's networks, the programs attract everything that is
    /// not for the gateway itself ([`Steer::set_everything`]); [`Control::set_broadcasts`] changes
    /// them.
    pub everything: Option<Vec<IpAddr>>,
    /// A directory of the BPF file system, no other gateway's: programs are pinned there, and stay
    /// attached when the process ends ([`crate::pin`]).
    pub pin: Option<PathBuf>,
}

/// Destinations whose packets policy has a say about, by the side they arrive on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidePrefixes {
    /// On the protected side: what outbound policy protects or discards.
    pub protected: Vec<Prefix>,
    /// On the unprotected side: what inbound policy protects or discards, which is not to arrive
    /// there in clear.
    pub unprotected: Vec<Prefix>,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Its name.
    pub interface: String,
    /// The side it lies on.
    pub side: Side,
}

/// The side of the gateway an interface lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The plaintext network.
    Protected,
    /// The ESP network.
    Unprotected,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// In the driver, else in the stack.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack.
    Generic,
}

/// Whether the driver copies packets to and from the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyChoice {
    /// Zero-copy when every interface can, else copy.
    #[default]
    Auto,
    /// Copy.
    Copy,
    /// Zero-copy, or not at all.
    ZeroCopy,
}

/// An open gateway, to be taken apart.
#[derive(Debug)]
pub struct Gateway {
    /// For the control thread. Dropping it detaches the programs and restores the interfaces.
    pub control: Control,
    /// One for each worker, in the order of their queues.
    pub workers: Vec<XdpIo>,
}

/// The part of a gateway that stays with the control thread.
#[derive(Debug)]
pub struct Control {
    region: &'static Region,
    ports: Vec<PortControl>,
    published: Vec<Arc<PublishedCounters>>,
    everything: bool,
    pins: Option<Pins>,
}

/// Control of one port.
///
/// The order of fields is the order of dropping: the program is detached before offloads return.
#[derive(Debug)]
pub struct PortControl {
    steer: Steer,
    interface: Interface,
    side: Side,
    mode: Mode,
    zero_copy: bool,
    sockets: Vec<Weak<OwnedFd>>,
}

impl Config {
    /// A configuration with defaults for everything but interfaces and workers.
    #[must_use]
    pub fn new(ports: Vec<PortConfig>, workers: usize) -> Config {
        Config {
            ports,
            workers,
            mode: ModeChoice::default(),
            copy: CopyChoice::default(),
            frames_per_worker: FRAMES_PER_WORKER,
            jumbo: false,
            runs_per_worker: RUNS_PER_WORKER,
            ring_size: RING_SIZE,
            tx_budget: RING_SIZE,
            busy_poll: None,
            prefixes: SidePrefixes::default(),
            own_addresses: Vec::new(),
            everything: None,
            pin: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        expect("interfaces", 1..=MAX_PORTS, self.ports.len())?;
        expect("workers", 1..=MAX_WORKERS, self.workers)?;
        let mut names = HashSet::new();
        for port in &self.ports {
            if !names.insert(&port.interface) {
                return Err(config("interfaces", "each one once", &port.interface));
            }
        }
        if !RING_SIZES.contains(&self.ring_size) || !self.ring_size.is_power_of_two() {
            return Err(config("ring_size", "a power of two, 64 to 65536", &self.ring_size));
        }
        if !(32..=self.ring_size).contains(&self.tx_budget) {
            return Err(config("tx_budget", "32 to ring_size", &self.tx_budget));
        }
        if let Some(budget) = self.busy_poll {
            expect("busy_poll", 1..=usize::from(MAX_BUSY_POLL), usize::from(budget))?;
        }
        let fewest = (2 * self.ports.len() + 1) * BATCH;
        let most = usize::MAX / self.workers;
        expect("frames_per_worker", fewest..=most, self.frames_per_worker)?;
        expect("runs_per_worker", 1..=most, self.runs_per_worker)
    }

    /// Runs of each worker that there are.
    fn runs(&self) -> usize {
        if self.jumbo { self.runs_per_worker } else { 0 }
    }
}

/// Opens a gateway over the interfaces of the calling thread's network namespace; packets arrive.
///
/// # Errors
/// See [`Error`]; everything done until then is undone.
pub fn open(config: &Config) -> Result<Gateway, Error> {
    let mut gateway = prepare(config)?;
    gateway.control.connect()?;
    Ok(gateway)
}

/// As [`open`], but no packet arrives before [`Control::connect`]: what is for the engine is
/// dropped.
///
/// # Errors
/// As for [`open`].
pub fn prepare(config: &Config) -> Result<Gateway, Error> {
    config.check()?;
    let mut interfaces = Vec::with_capacity(config.ports.len());
    for port in &config.ports {
        let interface = Interface::inspect(&port.interface)?;
        interface.check_mtu(config.jumbo)?;
        interface.check_queues(config.workers)?;
        interfaces.push(interface);
    }
    let pins = config.pin.as_deref().map(Pins::open).transpose()?;
    if let Some(pins) = &pins {
        pins.sweep(&interfaces.iter().map(Interface::ifindex).collect::<Vec<_>>())?;
    }
    let mut ports = Vec::with_capacity(config.ports.len());
    for (interface, port) in interfaces.into_iter().zip(&config.ports) {
        ports.push(attach(interface, port.side, config, pins.as_ref())?);
    }
    let (frames, runs) = (config.frames_per_worker, config.runs());
    let (region, mut free) = Region::leak_with_runs(config.workers * frames, config.workers * runs);
    let runs = free.split_off(region.frames());
    let mut frames = Frames { region, free, runs };
    let sockets = open_sockets(config, &ports, region)?;
    let workers = assign(config, sockets, &mut ports, &mut frames)?;
    let published = workers.iter().map(|io| Arc::clone(io.published())).collect();
    let everything = config.everything.is_some();
    let control = Control { region, ports, published, everything, pins };
    let pages = region.pages().map(|pages| pages.to_string());
    tracing::info!(mib = region.len() >> 20, pages, "packet memory");
    for port in &control.ports {
        port.log();
    }
    Ok(Gateway { control, workers })
}

impl Control {
    /// The memory of all packets.
    #[must_use]
    pub fn region(&self) -> &'static Region {
        self.region
    }

    /// The ports; index is [`Port`] number.
    #[must_use]
    pub fn ports(&self) -> &[PortControl] {
        &self.ports
    }

    /// The ports, to change their steering.
    #[must_use]
    pub fn ports_mut(&mut self) -> &mut [PortControl] {
        &mut self.ports
    }

    /// Makes `prefixes` what the programs attract, each those of its side.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`]; ports before the one that failed are changed.
    pub fn set_prefixes(&mut self, prefixes: &SidePrefixes) -> Result<(), program::Error> {
        let mut ports = self.ports.iter_mut();
        ports.try_for_each(|port| set_prefixes(&mut port.steer, port.side, prefixes))
    }

    /// Tells the programs which addresses are the gateway's own. On the protected side they stay
    /// with the kernel ([`Steer::set_exceptions`]); on the unprotected side, where a protected
    /// prefix holds them, only what makes IPsec work does ([`Steer::set_own_addresses`]).
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`]; ports before the one that failed are changed.
    pub fn set_own_addresses(&mut self, own: &[IpAddr]) -> Result<(), program::Error> {
        let mut ports = self.ports.iter_mut();
        ports.try_for_each(|port| set_own_addresses(&mut port.steer, port.side, own))
    }

    /// Tells programs that attract everything the broadcast addresses of the gateway's networks;
    /// to others they are nothing special.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`]; ports before the one that failed are changed.
    pub fn set_broadcasts(&mut self, broadcasts: &[IpAddr]) -> Result<(), program::Error> {
        let ports = self.ports.iter_mut().filter(|_| self.everything);
        ports
            .map(|port| &mut port.steer)
            .try_for_each(|steer| steer.set_everything(Some(broadcasts)))
    }

    /// Whether interfaces stay closed when this value is dropped: pinned programs stay attached,
    /// and drop what is for the engine, until the next gateway takes them over or
    /// [`release`](crate::pin::release) detaches them. With [`Config::pin`] that is so from
    /// [`Control::connect`] on, and from the start where one was taken over; without it, never.
    pub fn stay_closed(&mut self, stay: bool) {
        let stay = stay && self.pins.is_some();
        for port in &mut self.ports {
            port.steer.stay(stay);
            port.interface.keep_offloads(stay);
        }
    }

    /// Lets packets arrive: enters the sockets into the maps of the programs. Interfaces stay
    /// closed from now on, see [`Control::stay_closed`].
    ///
    /// # Errors
    /// As for [`Steer::set_socket`].
    pub fn connect(&mut self) -> Result<(), Error> {
        for port in &mut self.ports {
            for (queue, socket) in (0_u32..).zip(&port.sockets) {
                let Some(socket) = socket.upgrade() else {
                    continue;
                };
                port.steer.set_socket(queue, socket)?;
            }
        }
        self.stay_closed(true);
        Ok(())
    }

    /// Counters of a worker's I/O as of its last turn; `None` when there is no such worker.
    #[must_use]
    pub fn io_counters(&self, worker: usize) -> Option<IoCounters> {
        self.published.get(worker).map(|counters| counters.load())
    }
}

impl PortControl {
    fn new(steer: Steer, interface: Interface, side: Side, mode: Mode) -> PortControl {
        PortControl { steer, interface, side, mode, zero_copy: false, sockets: Vec::new() }
    }

    /// The interface.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The side it lies on.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Where the XDP program runs.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether packets reach the frames without a copy.
    #[must_use]
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The XDP program: its prefixes and counters.
    #[must_use]
    pub fn steer(&self) -> &Steer {
        &self.steer
    }

    /// The XDP program, to change its prefixes.
    #[must_use]
    pub fn steer_mut(&mut self) -> &mut Steer {
        &mut self.steer
    }

    /// What the kernel counted for the socket of `worker`; `None` when there is no such worker, or
    /// its I/O is closed.
    #[must_use]
    pub fn kernel_statistics(&self, worker: usize) -> Option<KernelStatistics> {
        let socket = self.sockets.get(worker)?.upgrade()?;
        kernel_statistics(socket.as_fd()).ok()
    }

    fn log(&self) {
        tracing::info!(
            interface = self.interface.name(),
            driver = self.interface.driver(),
            side = ?self.side,
            xdp = %self.mode,
            mode = if self.zero_copy { "zero-copy" } else { "copy" },
            need_wakeup = true,
            queues = self.sockets.len(),
            "interface ready"
        );
        self.interface.warn_of_peer(self.mode == Mode::Generic);
    }
}

/// Frames not given to a worker yet; released when opening fails.
struct Frames {
    region: &'static Region,
    free: Vec<FreeFrame>,
    runs: Vec<FreeFrame>,
}

impl Frames {
    /// What one worker gets.
    fn of_worker(&mut self, config: &Config) -> Vec<FreeFrame> {
        let rest = self.free.len().saturating_sub(config.frames_per_worker);
        let mut own = self.free.split_off(rest);
        let rest = self.runs.len().saturating_sub(config.runs());
        own.extend(self.runs.drain(rest..));
        own
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for frame in self.free.drain(..).chain(self.runs.drain(..)) {
            let _ = self.region.release_free(frame);
        }
    }
}

/// Prepares an interface and attaches its program, natively if that is possible and wanted; or
/// replaces the one that is pinned.
fn attach(
    mut interface: Interface,
    side: Side,
    config: &Config,
    pins: Option<&Pins>,
) -> Result<PortControl, Error> {
    let role = match side {
        Side::Protected => Role::Protected,
        Side::Unprotected => Role::Unprotected,
    };
    let mut steer = if config.jumbo { Steer::load_for_jumbo(role)? } else { Steer::load(role)? };
    set_own_addresses(&mut steer, side, &config.own_addresses)?;
    set_prefixes(&mut steer, side, &config.prefixes)?;
    steer.set_everything(config.everything.as_deref())?;
    if let Some(pins) = pins
        && let Some((pin, path)) = pins.find(interface.ifindex())?
    {
        let mode = take_over(&mut interface, &mut steer, config, pins, (pin, &path))?;
        return Ok(PortControl::new(steer, interface, side, mode));
    }
    let mode = match config.mode {
        ModeChoice::Native => attach_as(&mut interface, &mut steer, Mode::Native)?,
        ModeChoice::Generic => attach_as(&mut interface, &mut steer, Mode::Generic)?,
        ModeChoice::Auto => match attach_as(&mut interface, &mut steer, Mode::Native) {
            Err(Error::Program(error)) if may_work_in_generic_mode(&error) => {
                tracing::warn!(%error, "no native XDP, trying generic");
                attach_as(&mut interface, &mut steer, Mode::Generic)?
            }
            result => result?,
        },
    };
    if let Some(pins) = pins {
        steer.pin(&pins.path(interface.ifindex(), mode, interface.turned_off()))?;
    }
    Ok(PortControl::new(steer, interface, side, mode))
}

/// Replaces the program that an earlier gateway left. The interface is closed before, meanwhile,
/// and if this fails.
fn take_over(
    interface: &mut Interface,
    steer: &mut Steer,
    config: &Config,
    pins: &Pins,
    (pin, path): (Pin, &Path),
) -> Result<Mode, Error> {
    let mode = pin.mode;
    interface.keep_offloads(true);
    interface.was_turned_off(pin.offloads);
    match (config.mode, mode) {
        (ModeChoice::Auto, _)
        | (ModeChoice::Native, Mode::Native)
        | (ModeChoice::Generic, Mode::Generic) => {}
        _ => return Err(Error::PinnedMode { interface: interface.name().to_owned(), mode }),
    }
    interface.prepare(mode == Mode::Generic)?;
    let now = pins.path(interface.ifindex(), mode, interface.turned_off());
    pins.rename(path, &now)?;
    let lost = no_socket(&now);
    steer.take_over(interface.name(), mode, &now)?;
    tracing::info!(
        interface = interface.name(),
        dropped = lost.unwrap_or_default(),
        "taken over from an earlier gateway"
    );
    Ok(mode)
}

fn set_prefixes(
    steer: &mut Steer,
    side: Side,
    prefixes: &SidePrefixes,
) -> Result<(), program::Error> {
    match side {
        Side::Protected => steer.set_prefixes(&prefixes.protected),
        Side::Unprotected => steer.set_unprotected_prefixes(&prefixes.unprotected),
    }
}

fn set_own_addresses(steer: &mut Steer, side: Side, own: &[IpAddr]) -> Result<(), program::Error> {
    let whole = |address: &IpAddr| (*address, if address.is_ipv4() { 32 } else { 128 });
    let exceptions: Vec<Prefix> = own.iter().map(whole).collect();
    match side {
        Side::Protected => steer.set_exceptions(&exceptions),
        Side::Unprotected => steer.set_own_addresses(own),
    }
}

fn attach_as(interface: &mut Interface, steer: &mut Steer, mode: Mode) -> Result<Mode, Error> {
    interface.prepare(mode == Mode::Generic)?;
    for _ in 0..BUSY_RETRIES {
        match steer.attach(interface.name(), mode) {
            Err(program::Error::Busy { .. }) => thread::sleep(BUSY_PAUSE),
            result => return Ok(result.map(|()| mode)?),
        }
    }
    steer.attach(interface.name(), mode)?;
    Ok(mode)
}

/// A taken interface stays taken, and frames that are too long stay too long.
fn may_work_in_generic_mode(error: &program::Error) -> bool {
    matches!(error, program::Error::ModeUnsupported { .. } | program::Error::Attach { .. })
}

/// Opens one socket a worker and port, worker by worker, in the best mode all of them share.
fn open_sockets(
    config: &Config,
    ports: &[PortControl],
    region: &'static Region,
) -> Result<Vec<Socket>, Error> {
    let generic = ports.iter().find(|port| port.mode == Mode::Generic);
    let mode = match (config.copy, generic) {
        (CopyChoice::ZeroCopy, Some(port)) => {
            let found = format!("generic XDP on {}", port.interface.name());
            return Err(self::config("copy", "native XDP for zero-copy", &found));
        }
        (CopyChoice::ZeroCopy, None) => BindMode::ZeroCopy,
        (CopyChoice::Auto, None) => BindMode::Auto,
        (CopyChoice::Copy, _) | (CopyChoice::Auto, Some(_)) => BindMode::Copy,
    };
    match open_sockets_in(config, ports, region, mode) {
        // The first interface may be capable of zero-copy and a later one not.
        Err(error) if mode == BindMode::Auto => {
            tracing::warn!(%error, "no common zero-copy mode, trying copy");
            open_sockets_in(config, ports, region, BindMode::Copy)
        }
        result => result,
    }
}

fn open_sockets_in(
    config: &Config,
    ports: &[PortControl],
    region: &'static Region,
    mode: BindMode,
) -> Result<Vec<Socket>, Error> {
    let mut sockets: Vec<Socket> = Vec::with_capacity(config.workers * ports.len());
    for queue in (0_u32..).take(config.workers) {
        for (number, port) in (0_u8..).zip(ports) {
            let options = Options {
                region,
                port: Port(number),
                ifindex: port.interface.ifindex(),
                queue,
                ring_size: config.ring_size,
                tx_budget: config.tx_budget,
                mode,
                jumbo: config.jumbo,
            };
            let socket = open_socket(&options, sockets.first());
            sockets.push(socket.map_err(|error| Error::Socket {
                interface: port.interface.name().to_owned(),
                queue,
                step: error.step,
                hint: hint(&error, mode),
                source: error.source,
            })?);
        }
    }
    Ok(sockets)
}

/// Opens a socket, with patience for a queue that a closed socket has not left yet.
fn open_socket(options: &Options, first: Option<&Socket>) -> Result<Socket, OpenError> {
    for _ in 0..BUSY_RETRIES {
        match Socket::open(options, first) {
            Err(error) if error.source.raw_os_error() == Some(libc::EBUSY) => {
                thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
    Socket::open(options, first)
}

/// Hands sockets and frames out to the workers' I/O, which fills the fill rings.
fn assign(
    config: &Config,
    sockets: Vec<Socket>,
    ports: &mut [PortControl],
    frames: &mut Frames,
) -> Result<Vec<XdpIo>, Error> {
    let mut sockets = sockets.into_iter();
    let mut workers = Vec::with_capacity(config.workers);
    for queue in 0..config.workers {
        let sleeper = Sleeper::new().map_err(Error::Wake)?;
        let mut queues: ArrayVec<Socket, MAX_PORTS> = sockets.by_ref().take(ports.len()).collect();
        for (port, socket) in ports.iter_mut().zip(&mut queues) {
            if let Some(budget) = config.busy_poll {
                let fd = socket.descriptor().as_fd();
                let busy_poll = busy::start(fd, &port.interface, queue, budget);
                socket.poll_busily(busy_poll);
            }
            port.zero_copy = socket.zero_copy();
            port.sockets.push(Arc::downgrade(socket.descriptor()));
        }
        let own = frames.of_worker(config);
        let ring_size = config.ring_size as usize;
        workers.push(XdpIo::new(frames.region, queues, own, ring_size, sleeper));
    }
    Ok(workers)
}

fn config(field: &'static str, expected: &str, found: &dyn std::fmt::Display) -> Error {
    Error::Config { field, expected: expected.to_owned(), found: found.to_string() }
}

fn expect(
    field: &'static str,
    range: std::ops::RangeInclusive<usize>,
    found: usize,
) -> Result<(), Error> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(config(field, &format!("{} to {}", range.start(), range.end()), &found))
}

/// What a failure usually means.
fn hint(error: &OpenError, mode: BindMode) -> &'static str {
    match error.source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run as root, or with CAP_NET_RAW and CAP_BPF",
        Some(libc::ENOBUFS) if error.step == "XDP_UMEM_REG" => {
            "; the limit of locked memory is too low: ulimit -l unlimited"
        }
        Some(libc::EBUSY) => "; another program holds this queue",
        Some(libc::EOPNOTSUPP) if mode == BindMode::ZeroCopy => {
            "; the driver cannot: use copy mode"
        }
        Some(libc::EAFNOSUPPORT) => "; this kernel has no AF_XDP",
        _ if error.source.kind() == io::ErrorKind::OutOfMemory => "; out of memory",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(interfaces: &[&str], workers: usize) -> Config {
        let port =
            |name: &&str| PortConfig { interface: (*name).to_owned(), side: Side::Protected };
        Config::new(interfaces.iter().map(port).collect(), workers)
    }

    fn refusal(config: &Config) -> String {
        open(config).unwrap_err().to_string()
    }

    /// Impossible configurations are refused before any interface is touched, with the field, what
    /// is possible, and what was found.
    #[test]
    fn refuses_impossible_configurations() {
        let good = config_of(&["no-such-if"], 1);
        assert!(refusal(&config_of(&[], 1)).starts_with("interfaces: expected 1 to 8, found 0"));
        assert!(refusal(&config_of(&["a"], 0)).starts_with("workers: expected 1 to 64, found 0"));
        assert!(refusal(&config_of(&["a", "a"], 1)).contains("each one once, found a"));
        assert!(refusal(&Config { ring_size: 100, ..good.clone() }).starts_with("ring_size:"));
        assert!(refusal(&Config { ring_size: 32, ..good.clone() }).starts_with("ring_size:"));
        assert!(refusal(&Config { tx_budget: 31, ..good.clone() }).starts_with("tx_budget:"));
        assert!(refusal(&Config { tx_budget: 4096, ..good.clone() }).starts_with("tx_budget:"));
        let none = Config { runs_per_worker: 0, ..good.clone() };
        assert!(refusal(&none).starts_with("runs_per_worker: expected 1 to"));
        for budget in [0, 2049] {
            let error = refusal(&Config { busy_poll: Some(budget), ..good.clone() });
            assert_eq!(error, format!("busy_poll: expected 1 to 2048, found {budget}"));
        }
        let few = Config { frames_per_worker: 191, ..good.clone() };
        assert!(refusal(&few).starts_with("frames_per_worker: expected 192 to"));
        assert!(refusal(&good).contains("no such network interface"));
    }
}
