//! Batches of packets that each have a key, salt, size and form of their own, by every provider of
//! this machine, compared with the crates `aes` and `ghash` put together here, and tampered with.
//!
//! A kernel that works on several packets at once can take the key, nonce, power or mask of one for
//! another; no test of packets of one key sees that. So no two packets here share anything.
//!
//! Counts are small in the usual run. In full, 1,000,000 packets and 100,000 tampered ones for each
//! provider, in release:
//!
//! ```sh
//! CULVERT_MIXED_PACKETS=1000000 CULVERT_TAMPERED_PACKETS=100000 \
//!     cargo test --release -p culvert-aead --test mixed_batches -- --nocapture
//! ```

#[path = "shared/numbers.rs"]
mod numbers;
mod shared;

use aes_gcm::AeadInOut;
use aes_gcm::AesGcm;
use aes_gcm::KeyInit;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::Aes192;
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::consts::U12;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::ICV_LEN;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::ProviderKey;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;

use crate::numbers::Numbers;
use crate::shared::providers;

const GCM: [Algorithm; 3] =
    [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

/// Largest batch: more than the kernels sort at once.
const BATCH: usize = 70;

/// Octets of text: of a batch of few sizes one of them, else any to 700, some to 9200.
fn size(numbers: &mut Numbers, few: &[usize]) -> usize {
    match numbers.below(40) {
        0 => numbers.below(9200),
        1..20 if !few.is_empty() => few[numbers.below(few.len())],
        _ => numbers.below(700),
    }
}

/// A packet and all that its sender knows of it.
struct Case {
    algorithm: Algorithm,
    keymat: Vec<u8>,
    esn_high: Option<u32>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Case {
    fn new(numbers: &mut Numbers, algorithm: Algorithm, size: usize) -> Case {
        let keymat = numbers.octets(algorithm.keymat_len());
        let high = u32::try_from(numbers.next() >> 32).unwrap();
        let esn_high = (numbers.below(2) == 0).then_some(high);
        let size = size.next_multiple_of(algorithm.block_len());
        let plain = numbers.octets(algorithm.min_esp_len() + size);
        let mut case = Case { algorithm, keymat, esn_high, sealed: plain.clone(), plain };
        match algorithm {
            Algorithm::Aes128Gcm16 => case.seal::<AesGcm<Aes128, U12>>(16),
            Algorithm::Aes192Gcm16 => case.seal::<AesGcm<Aes192, U12>>(24),
            Algorithm::Aes256Gcm16 => case.seal::<AesGcm<Aes256, U12>>(32),
            _ => case.seal_portable(),
        }
        case
    }

    /// What RFC 4106 says, word by word, with the AEAD of another crate.
    fn seal<A: AeadInOut + KeyInit>(&mut self, key_len: usize) {
        let (key, salt) = self.keymat.split_at(key_len);
        let (header, rest) = self.sealed.split_at_mut(TEXT_AT);
        let (text, icv) = rest.split_at_mut(rest.len() - ICV_LEN);
        let nonce = [salt, &header[8..]].concat();
        let high = self.esn_high.map(u32::to_be_bytes);
        let high = high.as_ref().map_or(&[][..], |high| &high[..]);
        let aad = [&header[..4], high, &header[4..8]].concat();
        let cipher = A::new_from_slice(key).unwrap();
        let nonce = nonce.as_slice().try_into().unwrap();
        let tag = cipher.encrypt_inout_detached(nonce, &aad, text.into()).unwrap();
        icv.copy_from_slice(&tag);
    }

    /// Of another algorithm, which has tests of its own: here it only stands between the others.
    fn seal_portable(&mut self) {
        let mut portable = Provider::named("rustcrypto").unwrap();
        let key = portable.key(self.algorithm, &Keymat::new(self.keymat.clone())).unwrap();
        let esp = &mut self.sealed;
        portable.seal(&mut [Op { key: &key, esn_high: self.esn_high, esp }]);
    }

    /// Header, text: what a packet must have after it was opened.
    fn text(&self) -> std::ops::Range<usize> {
        self.algorithm.text_at()..self.plain.len() - self.algorithm.icv_len()
    }
}

/// Packets of a batch: of all sizes, or of few, so that there are many of a kind.
fn cases(numbers: &mut Numbers) -> Vec<Case> {
    let few: Vec<usize> = (0..numbers.below(4)).map(|_| numbers.below(320)).collect();
    let one_size = numbers.below(3) == 0;
    let count = 1 + numbers.below(BATCH);
    let mut case = |_| {
        let algorithm = match (numbers.below(12), one_size) {
            (0, _) => Algorithm::ALL[numbers.below(Algorithm::ALL.len())],
            (_, true) => GCM[0],
            _ => GCM[numbers.below(GCM.len())],
        };
        let size = size(numbers, &few);
        Case::new(numbers, algorithm, size)
    };
    (0..count).map(&mut case).collect()
}

fn keys(provider: &Provider, cases: &[Case]) -> Vec<ProviderKey> {
    let key = |case: &Case| provider.key(case.algorithm, &Keymat::new(case.keymat.clone()));
    cases.iter().map(|case| key(case).unwrap()).collect()
}

fn ops<'a>(
    keys: &'a [ProviderKey],
    esn_highs: &[Option<u32>],
    packets: &'a mut [Vec<u8>],
) -> Vec<Op<'a, ProviderKey>> {
    let parts = keys.iter().zip(esn_highs).zip(packets);
    parts.map(|((key, &esn_high), esp)| Op { key, esn_high, esp }).collect()
}

fn open(
    provider: &mut Provider,
    keys: &[ProviderKey],
    esn_highs: &[Option<u32>],
    packets: &mut [Vec<u8>],
) -> Vec<bool> {
    let mut statuses: Vec<Status> = Vec::new();
    statuses.resize_with(packets.len(), Status::default);
    provider.open(&mut ops(keys, esn_highs, packets), &mut statuses);
    let authentic = |status: &Status| match status {
        Status::Authentic(_) => true,
        Status::Forged => false,
        Status::Pending => panic!("a packet without a verdict"),
    };
    statuses.iter().map(authentic).collect()
}

/// How often, by a variable of the environment.
fn count(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(count) => count.parse().unwrap_or_else(|_| panic!("{variable}: expected a number")),
        Err(_) => usual,
    }
}

/// Sealed packets are those of another crate's AEAD, and opened they are what they were. // G01
#[test]
fn packets_are_those_of_another_implementation() {
    let packets = count("CULVERT_MIXED_PACKETS", 4000);
    for mut provider in providers() {
        let (mut numbers, mut done) = (Numbers(1), 0);
        while done < packets {
            let cases = cases(&mut numbers);
            let keys = keys(&provider, &cases);
            let esn_highs: Vec<_> = cases.iter().map(|case| case.esn_high).collect();
            let mut batch: Vec<_> = cases.iter().map(|case| case.plain.clone()).collect();
            provider.seal(&mut ops(&keys, &esn_highs, &mut batch));
            for (at, (case, sealed)) in cases.iter().zip(&batch).enumerate() {
                let (name, len) = (provider.name(), sealed.len());
                assert!(*sealed == case.sealed, "{name}: packet {at} of {len}, sealed");
            }
            let authentic = open(&mut provider, &keys, &esn_highs, &mut batch);
            for (at, (case, opened)) in cases.iter().zip(&batch).enumerate() {
                let (name, len) = (provider.name(), opened.len());
                assert!(authentic[at], "{name}: packet {at} of {len}, forged");
                let text = case.text();
                assert!(opened[text.clone()] == case.plain[text], "{name}: {at} of {len}, opened");
            }
            done += cases.len();
        }
        println!("{}: {done} packets", provider.name());
    }
}

/// A packet with one bit changed, in header, IV, text, ICV or the half of the sequence number that
/// is not sent, is forged and left as it came; its neighbours in the batch are opened. // I06
#[test]
fn no_bit_can_be_changed() {
    let tampers = count("CULVERT_TAMPERED_PACKETS", 2000);
    for mut provider in providers() {
        let (mut numbers, mut done) = (Numbers(2), 0);
        while done < tampers {
            let cases = cases(&mut numbers);
            let keys = keys(&provider, &cases);
            let mut esn_highs: Vec<_> = cases.iter().map(|case| case.esn_high).collect();
            let mut batch: Vec<_> = cases.iter().map(|case| case.sealed.clone()).collect();
            // Few in a batch, or about every second.
            let rare = [2, 12][numbers.below(2)];
            let tampered: Vec<bool> = (0..cases.len()).map(|_| numbers.below(rare) == 0).collect();
            for at in (0..cases.len()).filter(|&at| tampered[at]) {
                tamper(&mut numbers, &mut esn_highs[at], &mut batch[at]);
                done += 1;
            }
            let arrived = batch.clone();
            let authentic = open(&mut provider, &keys, &esn_highs, &mut batch);
            for (at, case) in cases.iter().enumerate() {
                let (name, len, text) = (provider.name(), case.plain.len(), case.text());
                assert!(authentic[at] != tampered[at], "{name}: packet {at} of {len}, verdict");
                match tampered[at] {
                    true => assert!(batch[at] == arrived[at], "{name}: {at} of {len}, changed"),
                    false => assert!(batch[at][text.clone()] == case.plain[text], "{name}: {at}"),
                }
            }
        }
        println!("{}: {done} tampered packets", provider.name());
    }
}

/// Changes one bit of a packet or of the high half: each part of it is as likely.
fn tamper(numbers: &mut Numbers, esn_high: &mut Option<u32>, packet: &mut [u8]) {
    let len = packet.len();
    let octet = match numbers.below(5) {
        0 => numbers.below(8),
        1 => 8 + numbers.below(4),
        2 => len - 1 - numbers.below(12),
        3 => match esn_high {
            Some(high) => {
                *high ^= 1 << numbers.below(32);
                return;
            }
            None => numbers.below(len),
        },
        _ => numbers.below(len),
    };
    packet[octet] ^= 1 << numbers.below(8);
}
