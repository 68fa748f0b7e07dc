//! Our kernels against the portable provider: the same octets for every length, alignment, key size
//! and form of AAD, and not an octet outside the packet touched.
//!
//! The portable provider is other people's code, so that a mistake would have to be made twice. So
//! is AWS-LC, which goes through the same tests.

#![cfg(target_arch = "x86_64")]

#[path = "shared/numbers.rs"]
mod numbers;
#[path = "shared/one.rs"]
mod one;

use std::io::Write;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::ICV_LEN;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::ProviderError;
use culvert_aead::RustCrypto;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;
use culvert_aead::Unusable;

use crate::numbers::Numbers;
use crate::one::open_one;
use crate::one::seal_one;

/// Longest text compared: a jumbo frame.
const LONGEST: usize = 9000;

/// AES-GCM with a 16-octet ICV, which the fast providers have kernels for.
const GCM: [Algorithm; 3] =
    [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

/// Octets around a packet that must stay as they are: more than a vector has.
const GUARD: usize = 128;

/// What they are.
const GUARD_OCTET: u8 = 0xa5;

/// The provider of a name; or `None`, said where a captured output does not hide it, when the CPU
/// lacks something.
fn of(name: &str) -> Option<Provider> {
    match Provider::named(name) {
        Ok(provider) => Some(provider),
        Err(ProviderError::Unavailable { reason: reason @ Unusable::Lacks(_), .. }) => {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            let mut stderr = std::io::stderr();
            writeln!(stderr, "SKIPPED {test}: {name}: {reason}").unwrap();
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn keymat(numbers: &mut Numbers, algorithm: Algorithm) -> Keymat {
    Keymat::new(numbers.octets(algorithm.keymat_len()))
}

/// A packet in the middle of guard octets, its first octet `offset` behind a line of the cache.
struct Guarded {
    octets: Vec<u8>,
    start: usize,
    len: usize,
}

impl Guarded {
    fn new(packet: &[u8], offset: usize) -> Guarded {
        let len = packet.len();
        let mut octets = vec![GUARD_OCTET; len + 2 * GUARD + 128];
        let start = GUARD + octets[GUARD..].as_ptr().align_offset(64) + offset;
        octets[start..start + len].copy_from_slice(packet);
        Guarded { octets, start, len }
    }

    fn packet(&mut self) -> &mut [u8] {
        &mut self.octets[self.start..self.start + self.len]
    }

    fn assert_guards(&self) {
        let (before, rest) = self.octets.split_at(self.start);
        let mut around = before.iter().chain(&rest[self.len..]);
        assert!(around.all(|&octet| octet == GUARD_OCTET), "{} octets: outside", self.len);
    }
}

/// Both providers' contexts of a key.
struct Pair {
    provider: Provider,
    fast: <Provider as Aead>::Key,
    portable: <RustCrypto as Aead>::Key,
}

impl Pair {
    fn new(provider: Provider, algorithm: Algorithm, keymat: &Keymat) -> Pair {
        let fast = provider.key(algorithm, keymat).unwrap();
        let portable = RustCrypto.key(algorithm, keymat).unwrap();
        Pair { provider, fast, portable }
    }

    /// Seals `plain` with both at `offset`, opens it again, and opens it damaged in the bit
    /// `damaged`.
    fn compare(&mut self, plain: &[u8], esn_high: Option<u32>, offset: usize, damaged: usize) {
        let len = plain.len() - TEXT_AT - ICV_LEN;
        let mut expected = plain.to_vec();
        seal_one(&mut RustCrypto, &self.portable, esn_high, &mut expected);

        let mut guarded = Guarded::new(plain, offset);
        seal_one(&mut self.provider, &self.fast, esn_high, guarded.packet());
        assert!(guarded.packet() == expected, "sealing {len} octets at {offset}");
        guarded.assert_guards();

        assert!(open_one(&mut self.provider, &self.fast, esn_high, guarded.packet()), "{len}");
        let text = ..TEXT_AT + len;
        assert!(guarded.packet()[text] == plain[text], "opening {len} octets at {offset}");
        assert!(guarded.packet()[text.end..] == expected[text.end..], "ICV of {len} octets");
        guarded.assert_guards();

        expected[damaged / 8 % plain.len()] ^= 1 << (damaged % 8);
        let mut guarded = Guarded::new(&expected, offset);
        assert!(!open_one(&mut self.provider, &self.fast, esn_high, guarded.packet()), "{len}");
        assert!(guarded.packet() == expected, "a forged packet of {len} octets was changed");
        guarded.assert_guards();
    }
}

/// Every length to 2100 octets of text, and some to a jumbo frame, with and without ESN, at
/// changing alignments; each damaged in one bit as well. // G01 I06
fn lengths(name: &str, algorithm: Algorithm) {
    let Some(provider) = of(name) else { return };
    let mut numbers = Numbers(u64::try_from(algorithm.key_len()).unwrap());
    let octets = numbers.octets(TEXT_AT + LONGEST + ICV_LEN);
    let long = (2100..LONGEST).step_by(97).chain([4047, 4048, 4080, 4081, 8191, 8192, LONGEST]);
    for len in (0..=2100).chain(long) {
        let mut pair = Pair::new(provider, algorithm, &keymat(&mut numbers, algorithm));
        for esn_high in [None, Some(0x8765_4321)] {
            let (offset, damaged) = (numbers.below(64), numbers.below(1 << 20));
            pair.compare(&octets[..TEXT_AT + len + ICV_LEN], esn_high, offset, damaged);
        }
    }
}

macro_rules! differential {
    ($($module:ident $name:literal;)*) => {
        $(
            mod $module {
                use super::*;

                #[test]
                fn lengths_aes_128() {
                    lengths($name, Algorithm::Aes128Gcm16);
                }

                #[test]
                fn lengths_aes_192() {
                    lengths($name, Algorithm::Aes192Gcm16);
                }

                #[test]
                fn lengths_aes_256() {
                    lengths($name, Algorithm::Aes256Gcm16);
                }

                #[test]
                fn alignments() {
                    super::alignments($name);
                }

                #[test]
                fn more_blocks_than_sixteen_bits_count() {
                    super::more_blocks_than_sixteen_bits_count($name);
                }

                #[test]
                fn extreme_octets() {
                    super::extreme_octets($name);
                }

                #[test]
                fn mixed_batches() {
                    super::mixed_batches($name);
                }
            }
        )*
    };
}

differential! {
    vaes_avx512 "vaes-avx512";
    vaes_avx2 "vaes-avx2";
    aes_ni "aes-ni";
    aws_lc_rs "aws-lc-rs";
}

/// Every alignment of the first octet, for lengths around the ends of vectors, tails and groups.
fn alignments(name: &str) {
    let Some(provider) = of(name) else { return };
    let mut numbers = Numbers(1);
    let octets = numbers.octets(2000);
    for algorithm in GCM {
        let mut pair = Pair::new(provider, algorithm, &keymat(&mut numbers, algorithm));
        for len in [0, 1, 15, 47, 48, 49, 63, 64, 240, 287, 288, 289, 304, 305, 560, 1420] {
            for offset in 0..64 {
                let damaged = numbers.below(1 << 20);
                pair.compare(&octets[..TEXT_AT + len + ICV_LEN], None, offset, damaged);
            }
        }
    }
}

/// So many blocks that the counter needs a third octet: no packet is so long, but the kernels do
/// not rely on that.
fn more_blocks_than_sixteen_bits_count(name: &str) {
    let Some(provider) = of(name) else { return };
    let mut numbers = Numbers(3);
    let plain = numbers.octets(TEXT_AT + (1 << 20) + 100 + ICV_LEN);
    let keymat = keymat(&mut numbers, Algorithm::Aes128Gcm16);
    Pair::new(provider, Algorithm::Aes128Gcm16, &keymat).compare(&plain, None, 0, 9_000_001);
}

/// Extreme octets: a key, nonce, header and text of ones or zeroes, where a carry or a mask that
/// is wrong has the best chance to be seen.
fn extreme_octets(name: &str) {
    let Some(provider) = of(name) else { return };
    for algorithm in GCM {
        for (key, text) in [(0, 0), (0, 0xff), (0xff, 0), (0xff, 0xff)] {
            let keymat = Keymat::new(vec![key; algorithm.keymat_len()]);
            let mut pair = Pair::new(provider, algorithm, &keymat);
            for len in 0..700 {
                let plain = vec![text; TEXT_AT + len + ICV_LEN];
                pair.compare(&plain, Some(u32::from_le_bytes([text; 4])), 0, len);
            }
        }
    }
}

/// Batches of packets that each have an algorithm, key, size and form of their own, some forged:
/// the half of them with kernels, the others between them and left to the portable provider.
fn mixed_batches(name: &str) {
    let Some(mut provider) = of(name) else { return };
    let mut numbers = Numbers(2);
    for _ in 0..60 {
        let count = numbers.below(90);
        let shapes: Vec<(Algorithm, Keymat, Option<u32>)> = (0..count)
            .map(|_| {
                let algorithm = match numbers.below(2) {
                    0 => GCM[numbers.below(GCM.len())],
                    _ => Algorithm::ALL[numbers.below(Algorithm::ALL.len())],
                };
                let high = u32::try_from(numbers.below(1 << 32)).unwrap();
                (algorithm, keymat(&mut numbers, algorithm), (high % 2 == 1).then_some(high))
            })
            .collect();
        let plain: Vec<Vec<u8>> = shapes
            .iter()
            .map(|(algorithm, ..)| {
                let len = if numbers.below(2) == 0 { 64 } else { 1600 };
                let len = numbers.below(len).next_multiple_of(algorithm.block_len());
                numbers.octets(algorithm.min_esp_len() + len)
            })
            .collect();

        let mut expected = plain.clone();
        let portable = keys(&RustCrypto, &shapes);
        RustCrypto.seal(&mut ops(&shapes, &portable, &mut expected));
        let mut batch = plain.clone();
        let fast = keys(&provider, &shapes);
        provider.seal(&mut ops(&shapes, &fast, &mut batch));
        assert!(batch == expected);

        let forged: Vec<bool> = batch
            .iter_mut()
            .map(|esp| {
                let (at, bit, forged) =
                    (numbers.below(esp.len()), numbers.below(8), numbers.below(3) == 0);
                esp[at] ^= u8::from(forged) << bit;
                forged
            })
            .collect();
        let arrived = batch.clone();
        let mut statuses: Vec<Status> = Vec::new();
        statuses.resize_with(count, Status::default);
        provider.open(&mut ops(&shapes, &fast, &mut batch), &mut statuses);
        for at in 0..count {
            let algorithm = shapes[at].0;
            let text = algorithm.text_at()..batch[at].len() - algorithm.icv_len();
            match (&statuses[at], forged[at]) {
                (Status::Authentic(_), false) => {
                    assert!(batch[at][text.clone()] == plain[at][text]);
                }
                (Status::Forged, true) => assert!(batch[at] == arrived[at]),
                (status, forged) => panic!("packet {at}: forged {forged}, but {status:?}"),
            }
        }
    }
}

fn keys<P: Aead>(provider: &P, shapes: &[(Algorithm, Keymat, Option<u32>)]) -> Vec<P::Key> {
    shapes.iter().map(|(algorithm, keymat, _)| provider.key(*algorithm, keymat).unwrap()).collect()
}

fn ops<'a, K>(
    shapes: &[(Algorithm, Keymat, Option<u32>)],
    keys: &'a [K],
    batch: &'a mut [Vec<u8>],
) -> Vec<Op<'a, K>> {
    let parts = shapes.iter().zip(keys).zip(batch);
    parts.map(|(((.., esn_high), key), esp)| Op { key, esn_high: *esn_high, esp }).collect()
}
