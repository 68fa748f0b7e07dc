//! A gateway over memory with the packets for it: what `culvert bench engine` measures in one cell.
//!
//! Each worker has a core, a thread, SAs of its own and a *lane* of packets for these: they arrive
//! where their SA lives, as they do where the NIC steers them. With several workers the gateway is
//! one all the same: one set of policies, one directory, and the rings between the workers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Provider;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_engine::crew::Lending;
use culvert_esp::Spi;
use culvert_frame::MemIo;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::gateway::Spread;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::udp;
use ipnet::IpNet;
use quanta::Clock;

use super::engine::pin;
use super::turns::Turns;
use crate::cli::BenchDirection;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);
/// Time of every turn; 0 would be never.
const NOW: u64 = 1;
const FIRST_SPI: u32 = 0x1000;
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const FIRST_DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Frames of each worker.
const FRAMES: usize = 256;

/// Longest packet that fits into a frame whatever the algorithm.
const FRAME_PACKET_MAX: u16 = 1500;

/// What a tunnel adds at most, with room to spare.
const GROWTH: u16 = 200;

/// Octets from which on packets are lent where workers help one another.
const SPREAD_OCTETS: usize = 512;

/// Turns before the clock starts, and so many times round all flows.
const WARM_UP_TURNS: usize = 500;
const WARM_UP_LAPS: usize = 2;

/// What one cell measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) direction: BenchDirection,
    pub(super) algorithm: Algorithm,
    pub(super) provider: Provider,
    /// Octets of the inner IP packet.
    pub(super) size: u16,
    /// Workers, on as many cores from `core` on.
    pub(super) workers: u16,
    pub(super) core: usize,
    /// All packets are for the first worker, and the others help it.
    pub(super) spread: bool,
    /// SAs, policies and flows of each worker.
    pub(super) sas: u32,
    pub(super) policies: u32,
    pub(super) flows: u32,
    pub(super) esn: bool,
    /// Packets in a batch.
    pub(super) batch: u16,
}

impl Shape {
    /// Workers that have packets of their own.
    pub(super) fn owners(&self) -> u16 {
        if self.spread { 1 } else { self.workers }
    }
}

/// What one worker did in one round.
pub(super) struct Lap {
    pub(super) turns: Turns,
    /// TSC ticks, and time, of all timed turns together.
    pub(super) ticks: u64,
    pub(super) elapsed: Duration,
}

/// A gateway, and packets for each of its workers.
pub(super) struct Rig {
    pub(super) shape: Shape,
    gateway: Gateway<Provider>,
    lanes: Vec<Lane>,
}

impl Rig {
    /// # Errors
    /// When the counts do not fit each other.
    pub(super) fn new(shape: Shape) -> Result<Rig> {
        let Shape { sas, policies, flows, .. } = shape;
        ensure!(policies >= sas, "--policies: expected at least the {sas} SAs");
        ensure!(flows <= policies, "--flows: expected at most the {policies} policies");
        ensure!(!shape.spread || sas == 1, "--spread: expected one SA");
        let workers = u32::from(shape.owners());
        let all_sas = sas * workers;
        let all: Vec<u32> = (0..policies * workers).collect();
        let direction = match shape.direction {
            BenchDirection::Outbound => Direction::Outbound,
            BenchDirection::Inbound => Direction::Inbound,
        };
        let gateway = gateway(&shape, direction, usize::from(shape.workers), all_sas, &all)?;
        let owners = owners(&gateway)?;
        let lane = |worker| {
            let owned = |policy: &u32| owners.get(&(policy % all_sas)) == Some(&worker);
            let policies: Vec<u32> = all.iter().copied().filter(owned).collect();
            Lane::new(&shape, all_sas, &policies)
        };
        let lanes = (0..usize::from(shape.owners())).map(lane).collect::<Result<_>>()?;
        Ok(Rig { shape, gateway, lanes })
    }

    /// Timed turns of each worker, on its core, until each has had `goal` of them. Who is ready
    /// goes on untimed, so that none has the machine to itself.
    ///
    /// # Errors
    /// When a core does not exist, or a packet does not come out.
    pub(super) fn round(&mut self, goal: Duration) -> Result<Vec<Lap>> {
        let (shape, ready) = (&self.shape, &AtomicUsize::new(0));
        let (owners, helpers) = self.gateway.workers.split_at_mut(self.lanes.len());
        let workers = owners.iter_mut().zip(&mut self.lanes).enumerate();
        let is_over = &AtomicBool::new(false);
        thread::scope(|scope| {
            for (index, worker) in (usize::from(shape.owners())..).zip(helpers) {
                scope.spawn(move || {
                    // Without a core of its own it is slow to help, which is seen.
                    let _ = pin(shape.core + index);
                    while !is_over.load(Relaxed) {
                        worker.turn(NOW);
                    }
                });
            }
            let threads: Vec<_> = workers
                .map(|(index, (worker, lane))| {
                    scope.spawn(move || {
                        pin(shape.core + index)?;
                        lane.round(&mut Measured { shape, worker }, goal, ready)
                    })
                })
                .collect();
            let laps: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
            is_over.store(true, Relaxed);
            laps.into_iter().map(|lap| lap.expect("it does not panic")).collect()
        })
    }
}

/// Which worker owns the SA of each number.
fn owners(gateway: &Gateway<Provider>) -> Result<BTreeMap<u32, usize>> {
    let controller = &gateway.controller;
    let owner = |id| {
        let (_, spi) = controller.spi(id).context("an SA without an SPI")?;
        let location = controller.location(id).context("an SA that is not installed")?;
        Ok((spi - FIRST_SPI, usize::from(location.worker.0)))
    };
    controller.ids().map(owner).collect()
}

/// The worker under the clock.
struct Measured<'a> {
    shape: &'a Shape,
    worker: &'a mut Worker<Provider, MemIo>,
}

/// Packets for one worker, and who seals them if they are to arrive sealed.
struct Lane {
    /// Destinations that packets go round, each a flow.
    destinations: Vec<Ipv4Addr>,
    next: usize,
    frame: Vec<u8>,
    maker: Option<Gateway<Provider>>,
}

impl Lane {
    fn new(shape: &Shape, all_sas: u32, policies: &[u32]) -> Result<Lane> {
        // Few flows are those of the last policies.
        let unused = policies.len().checked_sub(shape.flows as usize);
        let unused = unused.context("SAs are spread unevenly over workers")?;
        let maker = match shape.direction {
            BenchDirection::Outbound => None,
            BenchDirection::Inbound => {
                Some(gateway(shape, Direction::Outbound, 1, all_sas, policies)?)
            }
        };
        let destinations = policies[unused..].iter().copied().map(destination).collect();
        Ok(Lane { destinations, next: 0, frame: plain_frame(shape.size), maker })
    }

    fn round(
        &mut self,
        measured: &mut Measured<'_>,
        goal: Duration,
        ready: &AtomicUsize,
    ) -> Result<Lap> {
        let shape = measured.shape;
        let laps = WARM_UP_LAPS * self.destinations.len() / usize::from(shape.batch);
        for _ in 0..WARM_UP_TURNS + laps {
            self.turn(measured, || ())?;
        }
        let clock = Clock::new();
        let mut lap = Lap { turns: Turns::default(), ticks: 0, elapsed: Duration::ZERO };
        while lap.elapsed < goal {
            let (start, end) = self.turn(measured, || clock.raw())?;
            lap.turns.record(end - start);
            lap.ticks += end - start;
            lap.elapsed += clock.delta(start, end);
        }
        ready.fetch_add(1, Relaxed);
        while ready.load(Relaxed) < usize::from(shape.owners()) {
            self.turn(measured, || ())?;
        }
        Ok(lap)
    }

    /// One turn of one batch, and what `clock` said before and after it.
    fn turn<T>(&mut self, measured: &mut Measured<'_>, clock: impl Fn() -> T) -> Result<(T, T)> {
        let expected = usize::from(measured.shape.batch);
        self.prepare(measured);
        let start = clock();
        let handled = measured.worker.turn(NOW);
        let end = clock();
        ensure!(handled == expected, "the worker took {handled} of {expected} packets");
        measured.recycle()?;
        Ok((start, end))
    }

    /// Fills the receive queue of the measured worker with one batch.
    fn prepare(&mut self, measured: &mut Measured<'_>) {
        for _ in 0..measured.shape.batch {
            address(&mut self.frame, self.destinations[self.next]);
            self.next = (self.next + 1) % self.destinations.len();
            let first = match &mut self.maker {
                None => &mut *measured.worker,
                Some(maker) => &mut maker.workers[0],
            };
            assert!(first.io_mut().inject(PROTECTED, &self.frame), "a frame is free");
        }
        if let Some(maker) = &mut self.maker {
            let maker = &mut maker.workers[0];
            maker.turn(NOW);
            while let Some(packet) = maker.io_mut().take_sent(UNPROTECTED) {
                let io = measured.worker.io_mut();
                assert!(io.inject(UNPROTECTED, packet.data()), "a frame is free");
                maker.io_mut().recycle(packet.into_free());
            }
        }
    }
}

impl Measured<'_> {
    /// Takes what the worker sent and checks that nothing is missing.
    fn recycle(&mut self) -> Result<()> {
        let port = match self.shape.direction {
            BenchDirection::Outbound => UNPROTECTED,
            BenchDirection::Inbound => PROTECTED,
        };
        let mut sent = 0;
        while let Some(packet) = self.worker.io_mut().take_sent(port) {
            self.worker.io_mut().recycle(packet.into_free());
            sent += 1;
        }
        let (expected, counters) = (self.shape.batch, self.worker.counters());
        ensure!(sent == expected, "{sent} of {expected} packets came out: {counters:?}");
        Ok(())
    }
}

/// Gives the packet in a frame another destination.
fn address(frame: &mut [u8], destination: Ipv4Addr) {
    let header = &mut frame[ethernet::HEADER_LEN..][..ipv4::HEADER_LEN];
    header[16..20].copy_from_slice(&destination.octets());
    header[10..12].fill(0);
    let sum = culvert_wire::checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(super) fn destination(policy: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_DESTINATION) + policy)
}

/// A gateway with SAs of one direction for some policies, of which policy n names SA n modulo
/// `all_sas`.
fn gateway(
    shape: &Shape,
    direction: Direction,
    workers: usize,
    all_sas: u32,
    policies: &[u32],
) -> Result<Gateway<Provider>> {
    let mut spd = Spd::default();
    let mut sas = Vec::new();
    let source = IpNet::from(IpAddr::from(SOURCE));
    for &number in policies {
        let destination = IpNet::from(IpAddr::from(destination(number)));
        let selector = Selector::between(source, destination)?;
        let policy = Policy::new(selector, Action::Protect(Group(number % all_sas)));
        match direction {
            Direction::Outbound => spd.outbound.push(policy),
            Direction::Inbound => spd.inbound.push(policy),
        }
        if number < all_sas {
            sas.push(sa(shape, direction, number)?);
        }
    }
    let port = |side| PortConfig { side, mac: None, completes_checksums: false };
    let config = GatewayConfig {
        workers,
        frames: FRAMES,
        runs: if shape.size > FRAME_PACKET_MAX { FRAMES } else { 0 },
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        sas,
        spd,
        spread: (shape.spread && workers > 1)
            .then(|| Spread { lending: Lending::from_octets(SPREAD_OCTETS), helpers: None }),
        ..GatewayConfig::default()
    };
    let mtu = shape.size.max(FRAME_PACKET_MAX) + GROWTH;
    let hop = |port| NextHop { port, vlan: None, source: MAC, destination: MAC, mtu };
    let next_hops = NextHops::fixed([
        ("10.0.0.0/8".parse()?, hop(PROTECTED)),
        ("192.0.2.0/24".parse()?, hop(UNPROTECTED)),
    ]);
    Ok(Gateway::new(&config, &shape.provider, next_hops)?)
}

fn sa(shape: &Shape, direction: Direction, number: u32) -> Result<SaSpec> {
    let spi = Spi::new(FIRST_SPI + number)?;
    let key = (shape.algorithm, keymat(shape.algorithm, number));
    let sa = SaSpec::new(direction, spi, (NEAR.into(), FAR.into()), key, Group(number));
    Ok(SaSpec { esn: shape.esn, ..sa })
}

/// A key for the bench: distinct for each SA, and never used for anything else.
fn keymat(algorithm: Algorithm, number: u32) -> Keymat {
    let octet = |index: usize| number.to_be_bytes()[index % 4] ^ index.to_le_bytes()[0];
    Keymat::new((0..algorithm.keymat_len()).map(octet).collect())
}

/// An Ethernet frame with a UDP packet of `size` octets.
pub(super) fn plain_frame(size: u16) -> Vec<u8> {
    let mut frame = vec![0x5a; ethernet::HEADER_LEN + usize::from(size)];
    let (link, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    ethernet::emit(link, MAC, MAC, None, ethernet::ETHER_TYPE_IPV4);
    let header = ipv4::Header {
        tos: 0,
        total_len: size,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol: ip::PROTOCOL_UDP,
        source: SOURCE,
        destination: destination(0),
    };
    ipv4::emit(packet, &header);
    udp::emit(&mut packet[ipv4::HEADER_LEN..], 1000, 2000, size - 20, 0);
    frame
}
