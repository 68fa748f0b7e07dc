//! Batches of packets of one SA and one length, as a busy stream brings them, by every provider of
//! this machine, compared with single packets of the portable one, and tampered with.
//!
//! A kernel may take what is the same in all packets from the first; here all else differs, and
//! every length is there at which something starts anew. In some streams one packet is unlike.

mod shared;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::ProviderKey;
use culvert_aead::Status;

use crate::shared::providers;

const GCM: [Algorithm; 3] =
    [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

/// Octets of text: all of those that kernels for short packets take, some of those that
/// are cut into groups, each size of a group with each of a tail, and long ones.
fn sizes() -> impl Iterator<Item = usize> {
    (0..=330).chain((331..2500).step_by(11)).chain([1420, 9000, 9700])
}

/// Packets of a batch: fours with and without a rest, and more than are sorted at once.
const COUNTS: [usize; 7] = [4, 5, 7, 8, 3, 67, 12];

/// Longer packets of many to a batch, for which there are kernels of their own: of vectors of 64
/// octets any number there is, the last one whole, begun, or of a block and a part.
fn sizes_of_many() -> impl Iterator<Item = usize> {
    (280..1620).step_by(13)
}

/// Packets of such a batch: enough, and more than are sorted at once with enough left over.
const MANY: [usize; 3] = [24, 33, 90];

/// In what one packet is unlike the others.
#[derive(Clone, Copy, Debug)]
enum Odd {
    None,
    UpperHalf,
    NoUpperHalf,
    Length,
}

const ODDS: [Odd; 5] = [Odd::None, Odd::UpperHalf, Odd::None, Odd::NoUpperHalf, Odd::Length];

struct Stream {
    esn_highs: Vec<Option<u32>>,
    packets: Vec<Vec<u8>>,
}

impl Stream {
    /// No two packets of a stream have any eight octets in common.
    fn new(size: usize, count: usize, odd: Odd) -> Stream {
        let octet = |packet: usize, at: usize| {
            (packet * 251 + at * at * 7 + at * 31 + size).to_le_bytes()[at % 2]
        };
        let len = Algorithm::Aes128Gcm16.min_esp_len() + size;
        let packet = |len| move |packet| (0..len).map(|at| octet(packet, at)).collect();
        let mut packets: Vec<Vec<u8>> = (0..count).map(packet(len)).collect();
        let mut esn_highs = vec![(size % 8 < 4).then_some(0x0102_0304); count];
        let unlike = count - 1 - size % (count - 1);
        match odd {
            Odd::None => {}
            Odd::UpperHalf => esn_highs[unlike] = Some(0x0102_0305),
            Odd::NoUpperHalf => esn_highs[unlike] = None,
            Odd::Length => packets[unlike] = packet(len + 1)(unlike),
        }
        Stream { esn_highs, packets }
    }

    fn ops<'a>(&'a mut self, key: &'a ProviderKey) -> Vec<Op<'a, ProviderKey>> {
        let packets = self.packets.iter_mut().zip(&self.esn_highs);
        packets.map(|(esp, &esn_high)| Op { key, esn_high, esp }).collect()
    }

    fn seal_one_by_one(&mut self, provider: &mut Provider, key: &ProviderKey) {
        for op in self.ops(key) {
            provider.seal(&mut [op]);
        }
    }
}

fn key(provider: &Provider, algorithm: Algorithm) -> ProviderKey {
    let octet = |at: usize| (at * 37 + 11).to_le_bytes()[0];
    let keymat = Keymat::new((0..algorithm.keymat_len()).map(octet).collect());
    provider.key(algorithm, &keymat).unwrap()
}

fn check(
    provider: &mut Provider,
    algorithm: Algorithm,
    streams: impl Iterator<Item = (usize, usize, Odd)>,
) {
    let mut portable = Provider::named("rustcrypto").unwrap();
    let (key, portable_key) = (key(provider, algorithm), key(&portable, algorithm));
    for (number, (size, count, odd)) in streams.enumerate() {
        let plain = Stream::new(size, count, odd);
        let what = format!("{}, {algorithm}, {count} of {size}, odd {odd:?}", provider.name());

        let mut expected = Stream::new(size, count, odd);
        expected.seal_one_by_one(&mut portable, &portable_key);
        let mut sealed = Stream::new(size, count, odd);
        provider.seal(&mut sealed.ops(&key));
        assert!(sealed.packets == expected.packets, "{what}: sealed");

        // One bit of every third packet, anywhere.
        let is_tampered = |packet: usize| (packet + number).is_multiple_of(3);
        for packet in (0..count).filter(|&packet| is_tampered(packet)) {
            let octets = &mut sealed.packets[packet];
            let len = octets.len();
            octets[(packet * 13 + number * 29) % len] ^= 1 << (packet % 8);
        }
        let before = sealed.packets.clone();
        let mut statuses: Vec<Status> = (0..count).map(|_| Status::Pending).collect();
        provider.open(&mut sealed.ops(&key), &mut statuses);
        for packet in 0..count {
            let is_authentic = matches!(statuses[packet], Status::Authentic(_));
            assert_eq!(is_authentic, !is_tampered(packet), "{what}: packet {packet}");
            let text = algorithm.text_at()..before[packet].len() - algorithm.icv_len();
            let expected = if is_authentic { &plain.packets } else { &before };
            assert!(
                sealed.packets[packet][text.clone()] == expected[packet][text],
                "{what}: text of packet {packet}"
            );
        }
    }
}

/// Sealed alike, opened again; what was tampered with is told from the others and left as it was.
#[test]
fn of_every_length() {
    for mut provider in providers() {
        for gcm in GCM {
            let streams = sizes().zip(COUNTS.into_iter().cycle()).zip(ODDS.into_iter().cycle());
            check(&mut provider, gcm, streams.map(|((size, count), odd)| (size, count, odd)));
        }
    }
}

/// The same of batches of many longer packets.
#[test]
fn of_many_longer_packets() {
    for mut provider in providers() {
        for gcm in GCM {
            let streams = sizes_of_many().zip(MANY.into_iter().cycle());
            check(&mut provider, gcm, streams.map(|(size, count)| (size, count, Odd::None)));
        }
    }
}
