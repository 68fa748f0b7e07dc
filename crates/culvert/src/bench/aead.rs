//! `culvert bench aead`: what sealing and opening cost by themselves.
//!
//! Timed is one call of the provider with a batch of ESP packets, which lie one behind the other
//! and each begin a line of the cache; packets take SAs in turn. Figures are taken and put together
//! as in `engine`. What is sealed goes nowhere, so the numbers may repeat.

use std::time::Duration;

use anyhow::ensure;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::Status;
use quanta::Clock;
use serde::Serialize;

use super::engine;
use super::turns::Round;
use super::turns::Turns;
use super::turns::median;
use crate::cli::AeadArgs;

/// Batches before the clock starts.
const WARM_UP: u32 = 200;

/// One measured cell.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// `seal` or `open`.
    pub operation: &'static str,
    /// Octets of text.
    pub size: u16,
    /// strongSwan's keyword.
    pub algorithm: String,
    /// AEAD provider.
    pub provider: &'static str,
    /// SAs that packets take in turn.
    pub sas: usize,
    /// Packets in a batch.
    pub batch: u16,
    /// TSC ticks a packet: the median of the rounds' medians.
    pub tsc_cycles_per_packet: f64,
    /// What each round said.
    pub rounds: Vec<Round>,
    /// Model of the CPU.
    pub cpu: String,
}

/// Runs the command.
///
/// # Errors
/// When there is no such core or provider, or the algorithm is none of ESP.
pub fn run(args: &AeadArgs) -> anyhow::Result<()> {
    engine::pin(args.core)?;
    ensure!(args.seconds > 0.0 && args.seconds <= 60.0, "--seconds: expected 0 to 60");
    let mut rigs =
        args.size.iter().map(|&size| Rig::new(args, size)).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..args.rounds {
        rigs.iter_mut().for_each(|rig| rig.round(Duration::from_secs_f64(args.seconds)));
    }
    let cells: Vec<Cell> = rigs.into_iter().flat_map(|rig| rig.cells(args)).collect();
    if args.json {
        for cell in &cells {
            println!("{}", serde_json::to_string(cell)?);
        }
        return Ok(());
    }
    println!(
        "octets    seal    open  (TSC cycles a packet, {}, {})",
        args.algorithm, cells[0].provider
    );
    for pair in cells.chunks(2) {
        let cycles = |index: usize| pair[index].tsc_cycles_per_packet;
        println!("{:>6} {:>7.1} {:>7.1}", pair[0].size, cycles(0), cycles(1));
    }
    Ok(())
}

/// Packets of one size, and what rounds with them said.
struct Rig {
    provider: Provider,
    keys: Vec<<Provider as Aead>::Key>,
    size: u16,
    packets: Packets,
    sealing: Vec<Round>,
    opening: Vec<Round>,
}

impl Rig {
    fn new(args: &AeadArgs, size: u16) -> anyhow::Result<Rig> {
        let provider = engine::provider(args.provider.as_deref())?;
        let key = |number: usize| {
            let octet = |index: usize| number.to_le_bytes()[index % 8] ^ index.to_le_bytes()[0];
            let keymat = Keymat::new((0..args.algorithm.keymat_len()).map(octet).collect());
            provider.key(args.algorithm, &keymat)
        };
        let algorithm: Algorithm = args.algorithm;
        let len = algorithm.text_at() + usize::from(size) + algorithm.icv_len();
        Ok(Rig {
            provider,
            keys: (0..usize::from(args.sas)).map(key).collect::<Result<_, _>>()?,
            size,
            packets: Packets::new(usize::from(args.batch), len),
            sealing: Vec::new(),
            opening: Vec::new(),
        })
    }

    fn round(&mut self, goal: Duration) {
        let clock = Clock::new();
        let (mut sealing, mut opening) = (Turns::default(), Turns::default());
        for _ in 0..WARM_UP {
            self.turn(&clock);
        }
        let mut elapsed = Duration::ZERO;
        while elapsed < goal {
            let [start, sealed, begun, opened] = self.turn(&clock);
            sealing.record(sealed - start);
            opening.record(opened - begun);
            elapsed += clock.delta(start, sealed) + clock.delta(begun, opened);
        }
        self.sealing.push(sealing.round(self.packets.count));
        self.opening.push(opening.round(self.packets.count));
    }

    /// Seals the batch and opens it: the clock before and after each.
    fn turn(&mut self, clock: &Clock) -> [u64; 4] {
        let mut statuses: Vec<Status> = (0..self.packets.count).map(|_| Status::Pending).collect();
        let mut batch = self.packets.ops(&self.keys);
        let start = clock.raw();
        self.provider.seal(&mut batch);
        let sealed = clock.raw();
        let mut batch = self.packets.ops(&self.keys);
        let begun = clock.raw();
        self.provider.open(&mut batch, &mut statuses);
        let opened = clock.raw();
        let authentic = statuses.iter().all(|status| matches!(status, Status::Authentic(_)));
        assert!(authentic, "what was sealed opens");
        [start, sealed, begun, opened]
    }

    fn cells(self, args: &AeadArgs) -> [Cell; 2] {
        let cell = |operation, rounds: Vec<Round>| Cell {
            operation,
            size: self.size,
            algorithm: args.algorithm.to_string(),
            provider: self.provider.name(),
            sas: self.keys.len(),
            batch: args.batch,
            tsc_cycles_per_packet: median(rounds.iter().map(|round| round.median)),
            rounds,
            cpu: engine::cpu_model(),
        };
        [cell("seal", self.sealing), cell("open", self.opening)]
    }
}

/// Octets of a line of the cache.
const LINE: usize = 64;

/// Packets of one length.
struct Packets {
    memory: Vec<u8>,
    count: usize,
    len: usize,
}

impl Packets {
    fn new(count: usize, len: usize) -> Packets {
        let memory = vec![0x5a; LINE + count * len.next_multiple_of(LINE)];
        Packets { memory, count, len }
    }

    fn ops<'a, K>(&'a mut self, keys: &'a [K]) -> Vec<Op<'a, K>> {
        let start = self.memory.as_ptr().align_offset(LINE);
        let places = self.memory[start..].chunks_exact_mut(self.len.next_multiple_of(LINE));
        let packets = places.take(self.count).map(|place| &mut place[..self.len]);
        let keys = keys.iter().cycle();
        packets.zip(keys).map(|(esp, key)| Op { key, esn_high: None, esp }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every algorithm of ESP, sealed and opened, has a cost.
    #[test]
    fn every_algorithm() {
        for algorithm in Algorithm::ALL {
            let args = AeadArgs {
                algorithm,
                provider: None,
                size: vec![64, 1420],
                sas: 3,
                seconds: 0.0005,
                rounds: 2,
                batch: 8,
                core: 0,
                json: true,
            };
            let mut rig = Rig::new(&args, 64).unwrap();
            rig.round(Duration::from_secs_f64(args.seconds));
            let [seal, open] = rig.cells(&args);
            assert!(seal.tsc_cycles_per_packet > 0.0 && open.tsc_cycles_per_packet > 0.0);
            assert_eq!((seal.sas, seal.rounds.len(), open.operation), (3, 1, "open"));
        }
    }
}
