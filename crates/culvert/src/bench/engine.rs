//! `culvert bench engine`: the worker's whole turn over memory, on one pinned core.
//!
//! Timed: `Worker::turn`, that is commands and housekeeping (idle), receive, parse, policy or SA
//! lookup, sequence number or replay window, AEAD, headers, next hop, send queue and counters.
//! Not timed: making packets (inbound ones are sealed by a second gateway, so that they are
//! authentic and their numbers advance), putting them into receive queues, and taking them out of
//! send queues. Cycles are TSC ticks read around each turn of one batch; the figure is the median
//! over the turns of a round, and over rounds.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::AlgorithmError;
use culvert_aead::Keymat;
use culvert_aead::Protocol;
use culvert_aead::Provider;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_esp::Spi;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
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
use serde::Serialize;

use super::turns::Round;
use super::turns::Turns;
use super::turns::median;
use crate::cli::BenchDirection;
use crate::cli::EngineArgs;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);
/// Time of every turn; 0 would be never.
const NOW: u64 = 1;
const FIRST_SPI: u32 = 0x1000;
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Turns before the clock starts.
const WARM_UP_TURNS: u32 = 2000;

/// The measured cell.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// strongSwan's keyword.
    pub algorithm: String,
    /// Octets of the inner IP packet.
    pub size: u16,
    /// Number of SAs.
    pub sas: u32,
    /// Number of policies.
    pub policies: u32,
    /// Flows that packets go round, each of a policy of its own.
    pub flows: u32,
    /// Packets in the timed turns.
    pub packets: u64,
    /// Seconds in the timed turns.
    pub seconds: f64,
    /// Packets a second, at the cycles below.
    pub pps: f64,
    /// Gigabits of inner packets a second, at the cycles below.
    pub gbps: f64,
    /// TSC ticks a packet: the median of the rounds' medians.
    pub tsc_cycles_per_packet: f64,
    /// TSC ticks a packet of the fastest turn of all.
    pub best_tsc_cycles_per_packet: f64,
    /// TSC ticks a packet over all turns, what disturbed them included.
    pub mean_tsc_cycles_per_packet: f64,
    /// What each round said.
    pub rounds: Vec<Round>,
    /// AEAD provider.
    pub provider: &'static str,
    /// Model of the CPU.
    pub cpu: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Packets in a batch.
    pub batch: u16,
    /// What the timed part holds.
    pub timed: &'static str,
}

const TIMED: &str = "worker turn: receive, parse, lookup, sequence or replay, AEAD, headers, next \
                     hop, send, counters; not packet making and recycling";

/// Runs the command.
///
/// # Errors
/// When the core does not exist.
pub fn run(args: &EngineArgs) -> anyhow::Result<()> {
    let cell = measure(args)?;
    if args.json {
        println!("{}", serde_json::to_string(&cell)?);
    } else {
        println!(
            "{} {} size {} sas {} policies {} flows {}: {:.0} cycles/packet (best {:.0}, mean \
             {:.0}), {:.2} Mpps, {:.2} Gbit/s ({} on {})",
            cell.direction,
            cell.algorithm,
            cell.size,
            cell.sas,
            cell.policies,
            cell.flows,
            cell.tsc_cycles_per_packet,
            cell.best_tsc_cycles_per_packet,
            cell.mean_tsc_cycles_per_packet,
            cell.pps / 1e6,
            cell.gbps,
            cell.provider,
            cell.cpu,
        );
        println!("timed: {}", cell.timed);
    }
    Ok(())
}

/// Measures one cell.
///
/// # Errors
/// When the core does not exist.
pub fn measure(args: &EngineArgs) -> anyhow::Result<Cell> {
    pin(args.core)?;
    ensure!(args.seconds > 0.0 && args.seconds <= 3600.0, "--seconds: expected 0 to 3600");
    let mut bench = Bench::new(args)?;
    for _ in 0..WARM_UP_TURNS {
        bench.turn(|| ())?;
    }
    let (mut ticks, mut elapsed) = (0, Duration::ZERO);
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let (turns, length) = bench.round(Duration::from_secs_f64(args.seconds))?;
        rounds.push(turns.round(bench.batch));
        ticks += length.0;
        elapsed += length.1;
    }
    let turns: usize = rounds.iter().map(|round| round.turns).sum();
    let seconds = elapsed.as_secs_f64();
    let packets = (turns * bench.batch) as u64;
    let cycles = median(rounds.iter().map(|round| round.median));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (count, ticks) = (packets as f64, ticks as f64);
    let pps = ticks / seconds / cycles;
    Ok(Cell {
        direction: bench.direction_name(),
        algorithm: keyword(args.algorithm),
        size: args.size,
        sas: args.sas,
        policies: bench.policies,
        flows: bench.flows,
        packets,
        seconds,
        pps,
        gbps: pps * f64::from(args.size) * 8.0 / 1e9,
        tsc_cycles_per_packet: cycles,
        best_tsc_cycles_per_packet: rounds.iter().map(|round| round.best).fold(cycles, f64::min),
        mean_tsc_cycles_per_packet: ticks / count,
        rounds,
        provider: bench.aead.name(),
        cpu: cpu_model(),
        esn: args.esn,
        batch: args.batch,
        timed: TIMED,
    })
}

/// The algorithm of a keyword: of AH with `ah-` in front, else of ESP.
///
/// # Errors
/// When there is none.
pub(crate) fn algorithm(keyword: &str) -> Result<Algorithm, AlgorithmError> {
    match keyword.strip_prefix("ah-") {
        Some(keyword) => Algorithm::parse(Protocol::Ah, keyword),
        None => Algorithm::parse(Protocol::Esp, keyword),
    }
}

fn keyword(algorithm: Algorithm) -> String {
    match algorithm.protocol() {
        Protocol::Ah => format!("ah-{algorithm}"),
        Protocol::Esp => algorithm.to_string(),
    }
}

/// Pins the calling thread to a core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let cores = core_affinity::get_core_ids().context("cannot read the cores of this machine")?;
    let Some(id) = cores.iter().find(|id| id.id == core) else {
        bail!(
            "core {core}: expected one of {:?}",
            cores.iter().map(|id| id.id).collect::<Vec<_>>()
        );
    };
    ensure!(core_affinity::set_for_current(*id), "cannot pin to core {core}");
    Ok(())
}

/// The provider of that name, or the best one.
pub(super) fn provider(name: Option<&str>) -> anyhow::Result<Provider> {
    Ok(match name {
        Some(name) => Provider::named(name)?,
        None => Provider::best().provider,
    })
}

pub(crate) fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split(':').nth(1));
    model.map_or_else(|| "unknown".to_owned(), |model| model.trim().to_owned())
}

/// The gateway that is measured, and the one that makes packets for it.
struct Bench {
    aead: Provider,
    measured: Gateway<Provider>,
    maker: Gateway<Provider>,
    direction: BenchDirection,
    plain: Vec<u8>,
    batch: usize,
    policies: u32,
    flows: u32,
    next: u32,
}

impl Bench {
    fn new(args: &EngineArgs) -> anyhow::Result<Bench> {
        let (measured, maker) = match args.direction {
            BenchDirection::Outbound => (Direction::Outbound, Direction::Outbound),
            BenchDirection::Inbound => (Direction::Inbound, Direction::Outbound),
        };
        let policies = args.policies.unwrap_or(args.sas);
        let flows = args.flows.unwrap_or(policies);
        ensure!(policies >= args.sas, "--policies: expected at least the {} SAs", args.sas);
        ensure!(flows <= policies, "--flows: expected at most the {policies} policies");
        let aead = provider(args.provider.as_deref())?;
        Ok(Bench {
            aead,
            measured: gateway(args, policies, measured, &aead)?,
            maker: gateway(args, policies, maker, &aead)?,
            direction: args.direction,
            plain: plain_frame(args.size),
            batch: usize::from(args.batch),
            policies,
            flows,
            next: 0,
        })
    }

    fn direction_name(&self) -> &'static str {
        match self.direction {
            BenchDirection::Outbound => "outbound",
            BenchDirection::Inbound => "inbound",
        }
    }

    /// Turns for at least `goal` of timed time: each turn's ticks, and ticks and time of all.
    fn round(&mut self, goal: Duration) -> anyhow::Result<(Turns, (u64, Duration))> {
        let clock = Clock::new();
        let mut turns = Turns::default();
        let (mut ticks, mut elapsed) = (0, Duration::ZERO);
        while elapsed < goal {
            let (start, end) = self.turn(|| clock.raw())?;
            turns.record(end - start);
            ticks += end - start;
            elapsed += clock.delta(start, end);
        }
        Ok((turns, (ticks, elapsed)))
    }

    /// One turn of one batch, and what `clock` said before and after it.
    fn turn<T>(&mut self, clock: impl Fn() -> T) -> anyhow::Result<(T, T)> {
        let prepared = self.prepare();
        let start = clock();
        let handled = self.measured.workers[0].turn(NOW);
        let end = clock();
        ensure!(handled == prepared, "the worker took {handled} of {prepared} packets");
        self.recycle(prepared)?;
        Ok((start, end))
    }

    /// Fills the receive queue of the measured worker with one batch.
    fn prepare(&mut self) -> usize {
        for _ in 0..self.batch {
            // Few flows are those of the last policies.
            let destination = destination(self.policies - self.flows + self.next);
            self.next = (self.next + 1) % self.flows;
            let at = ethernet::HEADER_LEN;
            self.plain[at + 16..at + 20].copy_from_slice(&destination.octets());
            let header = &mut self.plain[at..at + ipv4::HEADER_LEN];
            header[10..12].fill(0);
            let sum = culvert_wire::checksum::internet(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            let gateway = match self.direction {
                BenchDirection::Outbound => &mut self.measured,
                BenchDirection::Inbound => &mut self.maker,
            };
            assert!(gateway.workers[0].io_mut().inject(PROTECTED, &self.plain), "a frame is free");
        }
        if self.direction == BenchDirection::Inbound {
            self.seal();
        }
        self.batch
    }

    /// Lets the maker seal what it was given, and moves it to the measured worker.
    fn seal(&mut self) {
        let maker = &mut self.maker.workers[0];
        maker.turn(NOW);
        while let Some(frame) = maker.io_mut().take_sent_bytes(UNPROTECTED) {
            let io = self.measured.workers[0].io_mut();
            assert!(io.inject(UNPROTECTED, &frame), "a frame is free");
        }
    }

    /// Takes what the measured worker sent and checks that nothing is missing.
    fn recycle(&mut self, expected: usize) -> anyhow::Result<()> {
        let port = match self.direction {
            BenchDirection::Outbound => UNPROTECTED,
            BenchDirection::Inbound => PROTECTED,
        };
        let worker = &mut self.measured.workers[0];
        let mut sent = 0;
        while let Some(packet) = worker.io_mut().take_sent(port) {
            worker.io_mut().recycle(packet.into_free());
            sent += 1;
        }
        let counters = worker.counters();
        ensure!(sent == expected, "{sent} of {expected} packets came out: {counters:?}");
        Ok(())
    }
}

fn destination(policy: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + policy)
}

/// A gateway with SAs of one direction, and policies which name one after the other.
fn gateway(
    args: &EngineArgs,
    policies: u32,
    direction: Direction,
    aead: &Provider,
) -> anyhow::Result<Gateway<Provider>> {
    let mut spd = Spd::default();
    let source = IpNet::from(IpAddr::from(SOURCE));
    for number in 0..policies {
        let destination = IpNet::from(IpAddr::from(destination(number)));
        let selector = Selector::between(source, destination)?;
        let policy = Policy::new(selector, Action::Protect(Group(number % args.sas)));
        match direction {
            Direction::Outbound => spd.outbound.push(policy),
            Direction::Inbound => spd.inbound.push(policy),
        }
    }
    let mut sas = Vec::new();
    for number in 0..args.sas {
        let spi = Spi::new(FIRST_SPI + number)?;
        let key = (args.algorithm, keymat(args.algorithm, number));
        let sa = SaSpec::new(direction, spi, (NEAR.into(), FAR.into()), key, Group(number));
        sas.push(SaSpec { esn: args.esn, ..sa });
    }
    let port = |side| PortConfig { side, mac: None, completes_checksums: false };
    let config = GatewayConfig {
        workers: 1,
        frames: 256,
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        sas,
        spd,
        ..GatewayConfig::default()
    };
    let hop = |port| NextHop { port, vlan: None, source: MAC, destination: MAC, mtu: 1600 };
    let next_hops = NextHops::fixed([
        ("10.0.0.0/8".parse()?, hop(PROTECTED)),
        ("192.0.2.0/24".parse()?, hop(UNPROTECTED)),
    ]);
    Ok(Gateway::new(&config, aead, next_hops)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(direction: BenchDirection) -> EngineArgs {
        EngineArgs {
            direction,
            algorithm: Algorithm::Aes128Gcm16,
            size: 64,
            sas: 3,
            policies: None,
            flows: None,
            seconds: 0.001,
            rounds: 2,
            esn: true,
            provider: None,
            batch: 16,
            core: 0,
            json: true,
        }
    }

    fn assert_measured(args: &EngineArgs) {
        let cell = measure(args).unwrap();
        assert_eq!(cell.rounds.len(), 2, "{args:?}");
        let (best, median) = (cell.best_tsc_cycles_per_packet, cell.tsc_cycles_per_packet);
        assert!(cell.packets > 0 && best > 0.0 && best <= median, "{args:?}");
    }

    /// Every packet of a bench comes out, both directions, over several SAs, over more policies
    /// than SAs, and over one of many.
    #[test]
    fn nothing_is_lost() {
        for direction in [BenchDirection::Outbound, BenchDirection::Inbound] {
            for (policies, flows) in [(None, None), (Some(1000), None), (Some(1000), Some(1))] {
                assert_measured(&EngineArgs { policies, flows, ..args(direction) });
            }
        }
    }

    /// Every algorithm of ESP and AH can be measured.
    #[test]
    fn every_algorithm() {
        for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
            for direction in [BenchDirection::Outbound, BenchDirection::Inbound] {
                assert_measured(&EngineArgs { algorithm, size: 1500, batch: 1, ..args(direction) });
            }
        }
    }

    /// More flows than policies, and fewer policies than SAs, are refused.
    #[test]
    fn impossible_counts() {
        for (policies, flows) in [(Some(2), None), (Some(9), Some(10))] {
            let args = EngineArgs { policies, flows, ..args(BenchDirection::Outbound) };
            assert!(measure(&args).unwrap_err().to_string().contains("expected at"));
        }
    }
}
