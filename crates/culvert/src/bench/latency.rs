//! `culvert bench latency`: how long a gateway that has nothing to do takes for a packet.
//!
//! ```text
//!   gen0 ------- veth ------- lan0   gateway   wan0 ------- veth ------- sink0
//! ```
//!
//! One packet every few milliseconds, far apart enough that whoever forwards it has gone to sleep.
//! One thread sends it at gen0 and looks without a pause for what comes out at sink0; the time
//! between, two system calls included, is what counts. Three forwarders take turns on the same
//! interfaces:
//!
//! - the kernel's routing, without culvert: it does all of it in the sender's call, on its core;
//! - culvert's worker, asleep, which seals the packet into a tunnel on another core;
//! - the same worker with busy polling, which never sleeps.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use culvert_aead::Aead;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_xdp::IoCounters;
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
use nix::sys::socket::send;
use serde::Serialize;

use super::engine;
use super::rig;
use super::veth;
use crate::cli::LatencyArgs;
use crate::lab::Cancel;
use crate::lab::End;
use crate::lab::Link;
use crate::lab::Namespaces;
use crate::lab::Ns;
use crate::lab::capture::socket_on;
use crate::run;

/// How long a packet may take before it is lost.
const LOST: Duration = Duration::from_secs(1);

/// Packets of each turn that are not counted.
const WARM_UP: u32 = 3;

/// What busy polling asks of a driver in one round.
const BUDGET: u16 = 64;

/// Frames of a worker, and slots of its rings: few, as one packet is on its way at a time, and the
/// memory of each turn is never given back.
const FRAMES: usize = 512;
const SLOTS: u32 = 128;

/// Where a frame has the protocol of its IPv4 packet.
const PROTOCOL_AT: usize = ethernet::HEADER_LEN + 9;

/// Who sends the packet; not the gateway's own address.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0x55];

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarder {
    Kernel,
    Asleep,
    Busy,
}

const FORWARDERS: [Forwarder; 3] = [Forwarder::Kernel, Forwarder::Asleep, Forwarder::Busy];

/// What one forwarder took, in microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Which.
    pub forwarder: &'static str,
    /// Packets that were counted.
    pub packets: u64,
    /// Half of them took at most so long.
    pub p50_us: f64,
    /// Nine of ten.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// The one that took longest.
    pub max_us: f64,
    /// Times that the worker slept, for each packet, those that are not counted included.
    pub sleeps_per_packet: f64,
    /// System calls of the worker, likewise. With a driver that busy polling can run, most of them
    /// find no packet.
    pub syscalls_per_packet: f64,
}

/// One forwarder's times, in nanoseconds, and what its worker did.
struct Times {
    taken: Histogram<u64>,
    /// Packets, those of the warm-up included.
    sent: u64,
    polls: u64,
    syscalls: u64,
}

/// The two ends.
struct Ends {
    gen0: OwnedFd,
    sink0: OwnedFd,
    frame: Vec<u8>,
}

/// Runs the command.
///
/// # Errors
/// When sender and worker are to share a core, the network cannot be set up, or a packet is lost.
pub fn run(args: &LatencyArgs) -> Result<()> {
    ensure!(
        args.core != args.sender_core,
        "--sender-core: expected another core than --core, found {}",
        args.sender_core
    );
    ensure!(nix::unistd::geteuid().is_root(), "bench latency needs root: try sudo");
    let cancel = Cancel::on_signals()?;
    let rows = measure(args, &cancel)?;
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(());
    }
    println!(
        "{} octets, one packet every {} ms, {} ({}), {} turns of {} packets",
        args.size,
        args.interval,
        engine::provider(None)?.name(),
        engine::cpu_model(),
        args.runs,
        args.packets
    );
    for row in rows {
        println!(
            "{:21} p50 {:6.1} us, p90 {:6.1}, p99 {:6.1}, longest {:7.1}; {:.2} sleeps and {:.1} \
             system calls a packet",
            row.forwarder,
            row.p50_us,
            row.p90_us,
            row.p99_us,
            row.max_us,
            row.sleeps_per_packet,
            row.syscalls_per_packet
        );
    }
    Ok(())
}

fn measure(args: &LatencyArgs, cancel: &Cancel) -> Result<Vec<Latency>> {
    let mut namespaces = Namespaces::new(cancel)?;
    let (source, gateway, sink) =
        (namespaces.add("gen")?, namespaces.add("gw")?, namespaces.add("sink")?);
    let link = Link { offloads: false, ..Link::default() };
    let lan0 = End { mac: Some(rig::MAC.0), ..End::new(&gateway, "lan0", &[]) };
    link.connect(&End::new(&source, "gen0", &[]), &lan0)?;
    link.connect(&End::new(&gateway, "wan0", &[]), &End::new(&sink, "sink0", &[]))?;
    let mut frame = rig::plain_frame(args.size);
    frame[6..12].copy_from_slice(&SENDER);
    let ends = Ends {
        gen0: source.run(|| socket_on("gen0"))??,
        sink0: sink.run(|| socket_on("sink0"))??,
        frame,
    };
    route(&gateway, rig::destination(0))?;
    let mut all = FORWARDERS.map(|forwarder| (forwarder, Times::new()));
    for _ in 0..args.runs {
        for (forwarder, times) in &mut all {
            turn(args, (*forwarder, times), &gateway, &ends, cancel)?;
        }
    }
    Ok(all.iter().map(|(forwarder, times)| times.row(*forwarder)).collect())
}

/// Has the kernel forward the packet.
fn route(gateway: &Ns, destination: Ipv4Addr) -> Result<()> {
    for (key, value) in [("conf.all.rp_filter", "0"), ("conf.lan0.rp_filter", "0")] {
        gateway.sysctl(&format!("net.ipv4.{key}"), value)?;
    }
    gateway.sysctl("net.ipv4.ip_forward", "1")?;
    gateway.ip("route add 10.0.0.0/8 dev wan0")?;
    gateway.ip(&format!("neigh add {destination} lladdr 02:00:00:00:00:99 dev wan0"))?;
    Ok(())
}

/// One turn of one forwarder.
fn turn(
    args: &LatencyArgs,
    (forwarder, times): (Forwarder, &mut Times),
    gateway: &Ns,
    ends: &Ends,
    cancel: &Cancel,
) -> Result<()> {
    let budget = match forwarder {
        Forwarder::Kernel => return ends.send_from_thread(args, (forwarder, times), cancel),
        Forwarder::Asleep => None,
        Forwarder::Busy => Some(BUDGET),
    };
    let config = culvert_xdp::Config {
        frames_per_worker: FRAMES,
        ring_size: SLOTS,
        tx_budget: SLOTS,
        ..veth::config(budget)
    };
    let opened = gateway.run(|| veth::open(args.core, &config))??;
    let mut control = opened.control;
    control.ports_mut()[0].steer_mut().set_prefixes(&[("10.0.0.0".parse()?, 8)])?;
    let io = opened.workers.into_iter().next().context("one worker")?;
    // The controller outlives the worker's turns, as in a gateway.
    let (mut worker, _controller) = veth::sealing(io, None, "aes128gcm16".parse()?)?;
    let stop = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let working = scope.spawn(|| {
            let pinned = engine::pin(args.core);
            run::work(&mut worker, Instant::now(), &stop);
            pinned
        });
        let result = ends.send_from_thread(args, (forwarder, times), cancel);
        stop.store(true, Relaxed);
        working.join().expect("the worker does not panic").and(result)
    });
    times.add(worker.io_mut().counters());
    result
}

impl Ends {
    /// [`send_some`](Self::send_some) on a thread of its own, which is pinned. Does not panic, so
    /// that the worker is told to stop in any case.
    fn send_from_thread(
        &self,
        args: &LatencyArgs,
        (forwarder, times): (Forwarder, &mut Times),
        cancel: &Cancel,
    ) -> Result<()> {
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.send_some(args, (forwarder, times), cancel));
            sending.join().unwrap_or_else(|_| Err(anyhow!("the sender panicked")))
        })
    }

    /// Sends packets, each after the one before has arrived and an interval that is never quite the
    /// same, so that no timer goes along with it.
    fn send_some(
        &self,
        args: &LatencyArgs,
        (forwarder, times): (Forwarder, &mut Times),
        cancel: &Cancel,
    ) -> Result<()> {
        engine::pin(args.sender_core)?;
        for number in 0..args.packets + WARM_UP {
            cancel.check()?;
            let jitter = Duration::from_micros(u64::from(number * 37 % 100) * 10);
            thread::sleep(Duration::from_millis(args.interval) + jitter);
            let time = self.send_one(forwarder.protocol())?;
            times.sent += 1;
            if number >= WARM_UP {
                times.taken.record(u64::try_from(time.as_nanos())?)?;
            }
        }
        Ok(())
    }

    /// Sends the packet and waits until it arrives, as one of `protocol`.
    fn send_one(&self, protocol: u8) -> Result<Duration> {
        let mut arrived = [0; 2048];
        while receive(&self.sink0, &mut arrived)?.is_some() {}
        let start = Instant::now();
        send(self.gen0.as_raw_fd(), &self.frame, MsgFlags::empty()).context("gen0")?;
        loop {
            let length = receive(&self.sink0, &mut arrived)?;
            let time = start.elapsed();
            ensure!(time <= LOST, "a packet of protocol {protocol} did not arrive in {LOST:?}");
            if length.is_some_and(|length| self.is_it(&arrived[..length], protocol)) {
                return Ok(time);
            }
        }
    }

    /// Whether a frame is the packet, from who should have forwarded it: others are what interfaces
    /// that come up say.
    fn is_it(&self, arrived: &[u8], protocol: u8) -> bool {
        let ipv4 = ethernet::ETHER_TYPE_IPV4.to_be_bytes();
        arrived.len() >= self.frame.len()
            && arrived[12..14] == ipv4
            && arrived[PROTOCOL_AT] == protocol
    }
}

/// What a packet socket has.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>> {
    match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => Ok(Some(length)),
        // ENETDOWN: said once of a time when the interface was down.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => Ok(None),
        Err(error) => Err(error).context("sink0"),
    }
}

impl Times {
    fn new() -> Times {
        let longest = u64::try_from(2 * LOST.as_nanos()).expect("two seconds");
        let taken = Histogram::new_with_bounds(1, longest, 3).expect("bounds are right");
        Times { taken, sent: 0, polls: 0, syscalls: 0 }
    }

    fn add(&mut self, counters: IoCounters) {
        self.polls += counters.polls;
        self.syscalls += counters.syscalls();
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn row(&self, forwarder: Forwarder) -> Latency {
        let at = |quantile| self.taken.value_at_quantile(quantile) as f64 / 1e3;
        let sent = self.sent as f64;
        Latency {
            forwarder: forwarder.name(),
            packets: self.taken.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            max_us: at(1.0),
            sleeps_per_packet: self.polls as f64 / sent,
            syscalls_per_packet: self.syscalls as f64 / sent,
        }
    }
}

impl Forwarder {
    fn name(self) -> &'static str {
        match self {
            Forwarder::Kernel => "kernel, in clear",
            Forwarder::Asleep => "culvert, asleep",
            Forwarder::Busy => "culvert, busy polling",
        }
    }

    /// Of the packets that it makes of those of UDP.
    fn protocol(self) -> u8 {
        match self {
            Forwarder::Kernel => ip::PROTOCOL_UDP,
            Forwarder::Asleep | Forwarder::Busy => ip::PROTOCOL_ESP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> LatencyArgs {
        LatencyArgs {
            size: 100,
            packets: 20,
            runs: 2,
            interval: 5,
            core: 0,
            sender_core: 1,
            json: false,
        }
    }

    /// A worker that never sleeps would leave the sender half of the core.
    #[test]
    fn one_core_for_both_is_refused() {
        let error = run(&LatencyArgs { sender_core: 0, ..args() }).unwrap_err();
        let expected = "--sender-core: expected another core than --core, found 0";
        assert_eq!(error.to_string(), expected);
    }

    /// Every packet of every forwarder arrives. A worker without busy polling sleeps before each of
    /// them, one with it never does, and the kernel's forwarding is nobody's.
    #[test]
    fn each_forwarder_is_what_it_says() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: this test makes network namespaces and needs root");
            return;
        }
        let rows = measure(&args(), &Cancel::new()).unwrap();
        let [kernel, asleep, busy] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(rows.iter().all(|row| row.packets == 40 && row.p50_us > 0.0), "{rows:?}");
        assert!(kernel.syscalls_per_packet == 0.0, "{rows:?}");
        assert!(asleep.sleeps_per_packet >= 1.0, "{rows:?}");
        assert!(busy.sleeps_per_packet == 0.0 && busy.syscalls_per_packet >= 1.0, "{rows:?}");
    }
}
