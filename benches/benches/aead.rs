//! The AEAD alone: what a packet costs in a batch of 64, by size, key, direction and number of SAs.
//!
//! ```sh
//! cargo bench -p culvert-benches --bench aead -- [provider] [algorithm] [sizes] [sas]
//! cargo bench -p culvert-benches --bench aead -- vaes-avx512 aes-256-gcm-16 64,1420 1
//! ```
//!
//! Size is the text of ESP: what is encrypted. A window is one batch, and short, so that the least
//! and the middle of many say what the code does and not who else had the machine. SAs take turns
//! in an order without a pattern, one packet each, so that with thousands of them no key is in a
//! near cache.
//! Packets are: they were just received, or written to.

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::ICV_LEN;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Protocol;
use culvert_aead::Provider;
use culvert_aead::ProviderKey;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;
use quanta::Clock;

const BATCH: usize = 64;

/// Batches that are timed for a figure: one under `cargo test`, which only looks whether all runs.
fn windows() -> usize {
    if std::env::args().any(|word| word == "--bench") { 2000 } else { 1 }
}

/// From one packet to the next, as in packet memory.
const STRIDE: usize = 2048;

const SIZES: [usize; 11] = [40, 64, 128, 192, 256, 384, 512, 768, 1024, 1280, 1420];
const SAS: [usize; 2] = [1, 10_000];

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let mut provider = match words.next() {
        Some(name) => Provider::named(&name).expect("a provider of this machine"),
        None => Provider::best().provider,
    };
    let algorithm = words.next().map_or(Algorithm::Aes128Gcm16, |keyword| {
        Algorithm::parse(Protocol::Esp, &keyword).expect("an algorithm of ESP")
    });
    let numbers = |word: String| word.split(',').map(|n| n.parse().expect("a number")).collect();
    let sizes: Vec<usize> = words.next().map_or(SIZES.to_vec(), numbers);
    let sas: Vec<usize> = words.next().map_or(SAS.to_vec(), numbers);
    println!("{} {algorithm}: TSC cycles per packet, least and median", provider.name());
    for sas in sas {
        let keys = keys(&provider, algorithm, sas);
        for &size in &sizes {
            let (seal_least, seal) = middle(seal(&mut provider, &keys, size));
            let (open_least, open) = middle(open(&mut provider, &keys, size));
            println!(
                "sas {sas:5} size {size:5}: seal {seal_least:6.1} {seal:6.1}, \
                 open {open_least:6.1} {open:6.1}"
            );
        }
    }
}

fn keys(provider: &Provider, algorithm: Algorithm, sas: usize) -> Vec<ProviderKey> {
    let keymat = |number: usize| {
        let mut octets = vec![0x5a; algorithm.keymat_len()];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        Keymat::new(octets)
    };
    let key = |number| provider.key(algorithm, &keymat(number)).expect("the right length");
    (0..sas).map(key).collect()
}

/// Which SA a packet is of: all of them in turn. The step has no factor in common with 10,000.
fn sa_of(packet: usize, sas: usize) -> usize {
    packet * 3877 % sas
}

/// Octets of `count` packets, each `STRIDE` after the other.
fn packets(memory: &mut [u8], size: usize) -> impl Iterator<Item = &mut [u8]> {
    memory.chunks_exact_mut(STRIDE).map(move |frame| &mut frame[..TEXT_AT + size + ICV_LEN])
}

fn ops<'a>(
    keys: &'a [ProviderKey],
    first: usize,
    memory: &'a mut [u8],
    size: usize,
) -> Vec<Op<'a, ProviderKey>> {
    let op = |(at, esp)| Op { key: &keys[sa_of(first + at, keys.len())], esn_high: None, esp };
    packets(memory, size).enumerate().map(op).collect()
}

/// Ticks of each window.
fn seal(provider: &mut Provider, keys: &[ProviderKey], size: usize) -> Vec<u64> {
    let clock = Clock::new();
    let mut memory = vec![0x5a; BATCH * STRIDE];
    let window = |window| {
        let mut ops = ops(keys, window * BATCH, &mut memory, size);
        let start = clock.raw();
        provider.seal(&mut ops);
        clock.raw() - start
    };
    (0..windows()).map(window).collect()
}

/// Ticks of each window.
fn open(provider: &mut Provider, keys: &[ProviderKey], size: usize) -> Vec<u64> {
    let clock = Clock::new();
    let batches = keys.len().div_ceil(BATCH);
    let mut sealed = vec![0x5a; batches * BATCH * STRIDE];
    for (batch, memory) in sealed.chunks_exact_mut(BATCH * STRIDE).enumerate() {
        provider.seal(&mut ops(keys, batch * BATCH, memory, size));
    }
    let mut memory = vec![0; BATCH * STRIDE];
    let window = |window| {
        let first = window % batches * BATCH;
        memory.copy_from_slice(&sealed[first * STRIDE..][..BATCH * STRIDE]);
        let mut ops = ops(keys, first, &mut memory, size);
        let mut statuses = [const { Status::Pending }; BATCH];
        let start = clock.raw();
        provider.open(&mut ops, &mut statuses);
        let ticks = clock.raw() - start;
        assert!(statuses.iter().all(|status| matches!(status, Status::Authentic(_))));
        ticks
    };
    (0..windows()).map(window).collect()
}

/// The least and the median, for one packet.
fn middle(mut ticks: Vec<u64>) -> (f64, f64) {
    ticks.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_packet = |ticks: u64| ticks as f64 / BATCH as f64;
    (per_packet(ticks[0]), per_packet(ticks[ticks.len() / 2]))
}
