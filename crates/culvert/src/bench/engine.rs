//! `culvert bench engine`: the worker's whole turn over memory, on pinned cores.
//!
//! Timed: `Worker::turn`, that is commands and housekeeping (idle), receive, parse, policy or SA
//! lookup, sequence number or replay window, AEAD, headers, next hop, send queue and counters.
//! Not timed: making packets (inbound ones are sealed by a second gateway, so that they are
//! authentic and their numbers advance), putting them into receive queues, and taking them out of
//! send queues. Cycles are TSC ticks read around each turn of one batch; the figure is the median
//! over the turns of a round, and over rounds. Each round visits every cell of the table, so that
//! a slow minute of the machine is shared by all.

use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::AlgorithmError;
use culvert_aead::Protocol;
use culvert_aead::Provider;
use serde::Serialize;

use super::rig::Rig;
use super::rig::Shape;
pub(super) use super::rig::plain_frame;
use super::turns::Round;
use super::turns::median;
use crate::cli::BenchDirection;
use crate::cli::EngineArgs;

/// One measured cell.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// strongSwan's keyword.
    pub algorithm: String,
    /// AEAD provider.
    pub provider: &'static str,
    /// Octets of the inner IP packet.
    pub size: u16,
    /// Number of workers.
    pub workers: u16,
    /// All packets are of one worker, and the others help it.
    pub spread: bool,
    /// SAs of each worker.
    pub sas: u32,
    /// Policies of each worker.
    pub policies: u32,
    /// Flows that packets of a worker go round, each of a policy of its own.
    pub flows: u32,
    /// Packets in the timed turns, of all workers.
    pub packets: u64,
    /// Seconds in the timed turns, of all workers.
    pub seconds: f64,
    /// Packets a second of all workers, at the cycles below.
    pub pps: f64,
    /// Gigabits of inner packets a second of all workers, at the cycles below.
    pub gbps: f64,
    /// TSC ticks a packet of one worker (of several, their harmonic mean): the median of the
    /// rounds' medians.
    pub tsc_cycles_per_packet: f64,
    /// The same of the fastest turns of all.
    pub best_tsc_cycles_per_packet: f64,
    /// The same over all turns, what disturbed them included.
    pub mean_tsc_cycles_per_packet: f64,
    /// What each round said.
    pub rounds: Vec<Round>,
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
/// When there are not as many cores, or counts do not fit each other.
pub fn run(args: &EngineArgs) -> anyhow::Result<()> {
    let cells = measure(args)?;
    if args.json {
        for cell in &cells {
            println!("{}", serde_json::to_string(cell)?);
        }
        return Ok(());
    }
    println!(
        "{}, batches of {}, on {}; TSC cycles a packet, medians of {} rounds of {} s",
        keyword(args.algorithm),
        args.batch,
        cpu_model(),
        args.rounds,
        args.seconds,
    );
    println!(
        "direction  octets     SAs workers  provider      cycles    best    mean    Mpps  Gbit/s"
    );
    cells.iter().for_each(|cell| print(cell, &cells));
    println!("timed: {TIMED}");
    Ok(())
}

fn print(cell: &Cell, all: &[Cell]) {
    println!(
        "{:<9} {:>7} {:>7} {:>7}  {:<12} {:>7.1} {:>7.1} {:>7.1} {:>7.2} {:>7.2}{}",
        cell.direction,
        cell.size,
        cell.sas,
        cell.workers,
        cell.provider,
        cell.tsc_cycles_per_packet,
        cell.best_tsc_cycles_per_packet,
        cell.mean_tsc_cycles_per_packet,
        cell.pps / 1e6,
        cell.gbps,
        scaling(cell, all),
    );
}

/// How many times the rate of one worker this is, if one worker was measured as well.
fn scaling(cell: &Cell, all: &[Cell]) -> String {
    let but_workers =
        |cell: &Cell| (cell.direction, cell.size, cell.sas, cell.provider, cell.policies);
    let one = all.iter().find(|one| one.workers == 1 && but_workers(one) == but_workers(cell));
    match one {
        Some(one) if cell.workers > 1 => format!("  {:.2} of one worker", cell.pps / one.pps),
        _ => String::new(),
    }
}

/// Measures every cell.
///
/// # Errors
/// When there are not as many cores, or counts do not fit each other.
pub fn measure(args: &EngineArgs) -> anyhow::Result<Vec<Cell>> {
    ensure!(args.seconds > 0.0 && args.seconds <= 3600.0, "--seconds: expected 0 to 3600");
    let rigs = shapes(args)?.into_iter().map(Rig::new);
    let mut rigs: Vec<Tally> = rigs.map(|rig| rig.map(Tally::new)).collect::<Result<_, _>>()?;
    for _ in 0..args.rounds {
        for rig in &mut rigs {
            rig.round(Duration::from_secs_f64(args.seconds))?;
        }
    }
    Ok(rigs.into_iter().map(Tally::cell).collect())
}

/// The combinations of the lists, in the order of the table.
fn shapes(args: &EngineArgs) -> anyhow::Result<Vec<Shape>> {
    let providers = match args.provider.as_slice() {
        [] => vec![provider(None)?],
        names => names.iter().map(|name| provider(Some(name))).collect::<Result<_, _>>()?,
    };
    let mut shapes = Vec::new();
    for &direction in &args.direction {
        for &size in &args.size {
            for &sas in &args.sas {
                for &provider in &providers {
                    for &workers in &args.workers {
                        let policies = args.policies.unwrap_or(sas);
                        shapes.push(Shape {
                            direction,
                            algorithm: args.algorithm,
                            provider,
                            size,
                            workers,
                            core: args.core,
                            spread: args.spread && workers > 1,
                            sas,
                            policies,
                            flows: args.flows.unwrap_or(policies),
                            esn: args.esn,
                            batch: args.batch,
                        });
                    }
                }
            }
        }
    }
    Ok(shapes)
}

/// A rig, and what its rounds said.
struct Tally {
    rig: Rig,
    rounds: Vec<Round>,
    packets: u64,
    ticks: u64,
    elapsed: Duration,
}

impl Tally {
    fn new(rig: Rig) -> Tally {
        Tally { rig, rounds: Vec::new(), packets: 0, ticks: 0, elapsed: Duration::ZERO }
    }

    fn round(&mut self, goal: Duration) -> anyhow::Result<()> {
        let batch = usize::from(self.rig.shape.batch);
        let mut workers = Vec::new();
        for lap in self.rig.round(goal)? {
            self.ticks += lap.ticks;
            self.elapsed += lap.elapsed;
            let round = lap.turns.round(batch);
            self.packets += (round.turns * batch) as u64;
            workers.push(round);
        }
        self.rounds.push(Round::together(&workers));
        Ok(())
    }

    fn cell(self) -> Cell {
        let Shape { size, workers, .. } = self.rig.shape;
        let cycles = median(self.rounds.iter().map(|round| round.median));
        let seconds = self.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (packets, ticks) = (self.packets as f64, self.ticks as f64);
        let pps = f64::from(self.rig.shape.owners()) * ticks / seconds / cycles;
        Cell {
            direction: match self.rig.shape.direction {
                BenchDirection::Outbound => "outbound",
                BenchDirection::Inbound => "inbound",
            },
            algorithm: keyword(self.rig.shape.algorithm),
            provider: self.rig.shape.provider.name(),
            size,
            workers,
            spread: self.rig.shape.spread,
            sas: self.rig.shape.sas,
            policies: self.rig.shape.policies,
            flows: self.rig.shape.flows,
            packets: self.packets,
            seconds,
            pps,
            gbps: pps * f64::from(size) * 8.0 / 1e9,
            tsc_cycles_per_packet: cycles,
            best_tsc_cycles_per_packet: self.rounds.iter().fold(cycles, |best, r| best.min(r.best)),
            mean_tsc_cycles_per_packet: ticks / packets,
            rounds: self.rounds,
            cpu: cpu_model(),
            esn: self.rig.shape.esn,
            batch: self.rig.shape.batch,
            timed: TIMED,
        }
    }
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
        Some(name) => Provider::selected(name)?.provider,
        None => Provider::best().provider,
    })
}

pub(crate) fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split(':').nth(1));
    model.map_or_else(|| "unknown".to_owned(), |model| model.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(direction: BenchDirection) -> EngineArgs {
        EngineArgs {
            direction: vec![direction],
            algorithm: Algorithm::Aes128Gcm16,
            size: vec![64],
            sas: vec![3],
            workers: vec![1],
            spread: false,
            policies: None,
            flows: None,
            seconds: 0.001,
            rounds: 2,
            esn: true,
            provider: Vec::new(),
            batch: 16,
            core: 0,
            json: true,
        }
    }

    fn assert_measured(args: &EngineArgs) {
        let cells = measure(args).unwrap();
        assert!(!cells.is_empty());
        for cell in cells {
            assert_eq!(cell.rounds.len(), 2, "{args:?}");
            let (best, median) = (cell.best_tsc_cycles_per_packet, cell.tsc_cycles_per_packet);
            assert!(cell.packets > 0 && best > 0.0 && best <= median, "{args:?}");
        }
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

    /// Workers of one gateway each take the packets of their own SAs: nothing is handed over, for
    /// then a turn would send too few.
    #[test]
    fn several_workers() {
        let cores = core_affinity::get_core_ids().unwrap().len();
        if cores < 2 {
            eprintln!("SKIPPED: one core");
            return;
        }
        for direction in [BenchDirection::Outbound, BenchDirection::Inbound] {
            assert_measured(&EngineArgs { workers: vec![2], ..args(direction) });
        }
    }

    /// Workers help one with one SA: all packets are its own, and come out of it.
    #[test]
    fn one_sa_over_two_workers() {
        for direction in [BenchDirection::Outbound, BenchDirection::Inbound] {
            let (size, workers) = (vec![9000], vec![1, 2]);
            let args = EngineArgs { spread: true, size, workers, batch: 64, ..args(direction) };
            let error = measure(&args).unwrap_err().to_string();
            assert!(error.contains("--spread: expected one SA"), "{error}");
            let args = EngineArgs { sas: vec![1], ..args };
            assert_measured(&args);
        }
    }

    /// The table has a cell for each combination, and jumbo packets travel as well.
    #[test]
    fn combinations() {
        let both = vec![BenchDirection::Outbound, BenchDirection::Inbound];
        let args = EngineArgs {
            direction: both,
            size: vec![64, 9000],
            sas: vec![1, 5],
            provider: vec!["rustcrypto".to_owned()],
            ..args(BenchDirection::Outbound)
        };
        let cells = measure(&args).unwrap();
        let shapes: Vec<_> = cells.iter().map(|c| (c.direction, c.size, c.sas)).collect();
        let inbound = [("inbound", 64, 1), ("inbound", 64, 5), ("inbound", 9000, 1)];
        assert_eq!((shapes.len(), &shapes[4..7]), (8, &inbound[..]));
        assert!(cells.iter().all(|cell| cell.provider == "rustcrypto"));
    }

    /// Every algorithm of ESP and AH can be measured.
    #[test]
    fn every_algorithm() {
        for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
            for direction in [BenchDirection::Outbound, BenchDirection::Inbound] {
                let size = vec![1500];
                assert_measured(&EngineArgs { algorithm, size, batch: 1, ..args(direction) });
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
