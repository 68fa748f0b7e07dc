//! Short packets, four of any SAs at once.
//!
//! One short packet leaves the CPU waiting: ten or more rounds of AES that each wait for the one
//! before, then multiplications that wait for the last round, then a reduction. So four packets of
//! the same number of vectors and the same key size go through the rounds side by side, each with
//! round keys of its own, and the multiplications stand between the rounds: when opening, those of
//! the same four packets, as what is hashed is there from the start; when sealing, those of the
//! four before, whose sealed blocks wait in memory ([`Lag`]).
//!
//! # One reduction for four
//!
//! A packet's products are added lane by lane, and the lanes have to be added in the end. For four
//! packets that is a transposition: lane `i` of the result is the sum of the lanes of packet `i`
//! ([`Sum::join`]). From there on a vector holds four hashes: the block of the lengths, which
//! stands last in each packet, is multiplied for all four at once, and so are reduction, reflection
//! and encryption of the ICV.
//!
//! # Powers
//!
//! As everywhere the blocks of a packet meet falling powers of H that end with H^1, which is for
//! the lengths, so that `n` blocks of header and text start at H^(n+1). The vectors of powers of
//! the last blocks may reach beyond H^1, into what stands behind it in the context
//! ([`KernelKey::powers_and_behind`]): the blocks there are zeroes, and so are the products.
//!
//! # Instructions count
//!
//! At these sizes what limits is how many instructions the CPU takes in, not what its ports do. A
//! busy stream gives packets of one SA and one length ([`Fours::ALIKE`]), and with those a round
//! key is loaded once for four, and powers, masks and lengths once for all: that is a third of the
//! time.
//!
//! # Order
//!
//! Nothing is stored of a packet before its verdict when opening. That a packet's ICV is written
//! one round of the loop after its text when sealing is nothing to see from outside.

#![expect(unsafe_code, reason = "inline assembly without an instruction, to keep an order")]

use std::arch::x86_64::*;

use crate::port::ICV_LEN;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::port::TEXT_AT;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::key::KernelKey;
use crate::vaes::math::LANES;
use crate::vaes::math::POWERS;
use crate::vaes::math::PairSum;
use crate::vaes::math::Sum;
use crate::vaes::math::VECTOR;
use crate::vaes::math::behind_first_lane;
use crate::vaes::math::each;
use crate::vaes::math::esp_nonce;
use crate::vaes::math::in_order;
use crate::vaes::math::load;
use crate::vaes::math::load_first;
use crate::vaes::math::load_lanes;
use crate::vaes::math::load_pairs;
use crate::vaes::math::masked_xor;
use crate::vaes::math::ones;
use crate::vaes::math::reduce;
use crate::vaes::math::reflect;
use crate::vaes::math::reflect_esp;
use crate::vaes::math::states;
use crate::vaes::math::store;
use crate::vaes::math::store_first;
use crate::x86::block::BLOCK;
use crate::x86::block::load_block;
use crate::x86::block::store_block;

/// Packets at once.
pub(super) const FOUR: usize = LANES;

/// Packets of one number of vectors and one key size, whose count is a multiple of four.
pub(super) trait Fours<'a, 'b> {
    /// Whether key, length and upper half of the number are the same in all, so that what follows
    /// from them is worked out once.
    const ALIKE: bool;

    /// The next four. Those after the next are asked for to be in the cache.
    fn next<const KEYS: usize, const VECTORS: usize>(
        &mut self,
    ) -> Option<[&'b mut Op<'a, ProviderKey>; FOUR]>;
}

/// A packet with a key for these kernels.
struct Packet<'a, 'b> {
    key: &'a KernelKey,
    esn_high: Option<u32>,
    /// At least header and ICV.
    esp: &'b mut [u8],
}

impl<'a, 'b> Packet<'a, 'b> {
    #[inline(always)]
    fn of(op: &'b mut Op<'a, ProviderKey>) -> Packet<'a, 'b> {
        assert!(op.esp.len() >= MIN_ESP_LEN, "there is room for header and ICV");
        Packet { key: key_of(op.key), esn_high: op.esn_high, esp: op.esp }
    }

    /// A packet that is like `first` in what [`Fours::ALIKE`] says.
    #[inline(always)]
    fn like(first: &Packet<'a, '_>, op: &'b mut Op<'a, ProviderKey>) -> Packet<'a, 'b> {
        assert!(op.esp.len() == first.esp.len(), "packets are alike");
        Packet { key: first.key, esn_high: first.esn_high, esp: op.esp }
    }

    /// In so many words, for `map` is a call.
    #[inline(always)]
    fn four<S: Fours<'a, 'b>>(ops: [&'b mut Op<'a, ProviderKey>; FOUR]) -> [Packet<'a, 'b>; FOUR] {
        let [a, b, c, d] = ops;
        let a = Packet::of(a);
        let [b, c, d] = match S::ALIKE {
            true => [Packet::like(&a, b), Packet::like(&a, c), Packet::like(&a, d)],
            false => [Packet::of(b), Packet::of(c), Packet::of(d)],
        };
        [a, b, c, d]
    }

    /// Octets of header and text.
    #[inline(always)]
    fn len(&self) -> usize {
        self.esp.len() - ICV_LEN
    }

    /// Header and text: all vectors but the last, then the octets of that.
    #[inline(always)]
    fn vectors<const VECTORS: usize>(&mut self) -> (&mut [[u8; VECTOR]], &mut [u8]) {
        let len = self.len();
        let (whole, last) = self.esp[..len].split_at_mut(VECTOR * (VECTORS - 1));
        (whole.as_chunks_mut().0, last)
    }

    /// Where the ICV goes.
    #[inline(always)]
    fn icv(self) -> &'b mut [u8; ICV_LEN] {
        self.esp.last_chunk_mut().expect("room for the ICV")
    }

    /// The powers of H for each block, vector by vector.
    #[inline(always)]
    fn powers<const VECTORS: usize>(&self) -> &'a [[__m128i; LANES]; VECTORS] {
        let powers = &self.key.powers_and_behind()[POWERS - (self.len().div_ceil(BLOCK) + 1)..];
        powers.as_chunks().0.first_chunk().expect("enough is behind them")
    }

    /// H^1.
    #[inline(always)]
    fn last_power(&self) -> __m128i {
        self.key.powers_and_behind()[POWERS - 1]
    }

    /// Lengths in bits of text and AAD: the last block hashed, reflected.
    #[inline(always)]
    fn lengths(&self) -> [u64; 2] {
        let aad = if self.esn_high.is_some() { 96 } else { 64 };
        [(self.len() - TEXT_AT) as u64 * 8, aad]
    }
}

/// The key of a packet that was given to these kernels for its key.
#[inline(always)]
fn key_of(key: &ProviderKey) -> &KernelKey {
    match key {
        ProviderKey::Kernel(key) => key,
        _ => unreachable!("the portable provider's"),
    }
}

/// What hashing four packets takes besides their blocks.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Hashing<'a, const VECTORS: usize> {
    /// See [`Packet::lengths`].
    lengths: [[u64; 2]; FOUR],
    /// H^1.
    last_powers: [__m128i; FOUR],
    /// See [`Packet::powers`].
    powers: [&'a [[__m128i; LANES]; VECTORS]; FOUR],
}

impl<'a, const VECTORS: usize> Hashing<'a, VECTORS> {
    #[inline(always)]
    fn of(packets: &[Packet<'a, '_>; FOUR]) -> Hashing<'a, VECTORS> {
        let [a, b, c, d] = packets;
        Hashing {
            lengths: [a.lengths(), b.lengths(), c.lengths(), d.lengths()],
            last_powers: [a.last_power(), b.last_power(), c.last_power(), d.last_power()],
            powers: [a.powers(), b.powers(), c.powers(), d.powers()],
        }
    }
}

/// Four packets that are sealed but for their ICV.
#[repr(align(64))]
struct Lag<'a, 'b, const VECTORS: usize> {
    /// Sealed, reflected, the header replaced by the AAD.
    blocks: [[__m512i; VECTORS]; FOUR],
    /// The encrypted J0.
    masks: [__m128i; FOUR],
    hashing: Hashing<'a, VECTORS>,
    /// Where the ICVs go. None at first.
    icvs: Option<[&'b mut [u8; ICV_LEN]; FOUR]>,
}

/// What waits of the four hashes for the others.
struct Sums {
    one: Sum,
    even: PairSum,
}

impl Sums {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn new() -> Sums {
        Sums { one: Sum::zero(), even: PairSum(Sum::zero()) }
    }
}

/// The rounds of AES of four packets, all but the first key and the last round, with `$between`
/// after each.
macro_rules! four_rounds {
    ($keys:expr, $vectors:expr, $states:ident, $packets:ident, $round:ident, $between:block) => {
        four_rounds!(
            @ $keys, $vectors, $states, $packets, $round, $between,
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
        )
    };
    (
        @ $keys:expr, $vectors:expr, $states:ident, $packets:ident, $round:ident, $between:block,
        $($index:literal),*
    ) => {
        $({
            let $round: usize = $index;
            if $round < $keys - 1 {
                each!(FOUR, i, {
                    let round_keys = $packets[i].key.keys::<$keys>();
                    let round_key = _mm512_broadcast_i32x4(round_keys[$round]);
                    each!($vectors, j, {
                        $states[i][j] = _mm512_aesenc_epi128($states[i][j], round_key);
                        in_order!($states[i][j]);
                    });
                });
                $between
            }
        })*
    };
}

/// What AES of four packets starts with. A macro, as what a function returns may stay in memory.
macro_rules! first_states {
    ($keys:expr, $vectors:expr, $packets:ident) => {{
        let mut first = [[_mm512_setzero_si512(); $vectors]; FOUR];
        each!(FOUR, i, {
            let Packet { key, esp, .. } = &$packets[i];
            let nonce = esp_nonce(key.salt(), esp.first_chunk().expect("room for header and ICV"));
            let states = states::<$keys, $vectors>(key.keys(), nonce, 0);
            each!($vectors, j, {
                first[i][j] = states[j];
            });
        });
        first
    }};
}

/// The hashes of four packets, in the lanes of `$hash`, made between the rounds of AES: of each in
/// turn the sum of its products, then what they share. `$block` is block vector `$j` of packet
/// `$i`.
macro_rules! hash_between {
    (
        $round:expr, $vectors:expr, $sums:ident, $hashing:expr, $hash:ident,
        |$i:ident, $j:ident| $block:expr
    ) => {
        if $round <= 2 * FOUR && $round % 2 == 0 {
            // Packets 0 and 2 make a pair, then 1 and 3: so that few sums wait.
            let $i = [0, 2, 1, 3][$round / 2 - 1];
            let mut sum = Sum::zero();
            each!($vectors, $j, {
                sum.add_product($block, load_lanes(&$hashing.powers[$i][$j]));
            });
            in_order!(sum.low, sum.middle, sum.high);
            if $i < 2 {
                $sums.one = sum;
            } else if $i == 2 {
                $sums.even = PairSum::join($sums.one, sum);
            } else {
                let mut sum = Sum::join($sums.even, PairSum::join($sums.one, sum));
                sum.add_product(load_pairs(&$hashing.lengths), load_lanes(&$hashing.last_powers));
                $hash = reflect(reduce(sum));
            }
        }
    };
}

/// Seals packets which all have a key of `KEYS` round keys and header and text of `VECTORS`
/// vectors, the last one begun.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
pub(super) fn seal<'a, 'b, const KEYS: usize, const VECTORS: usize, S: Fours<'a, 'b>>(mut fours: S)
where
    'a: 'b,
{
    let Some(first) = fours.next::<KEYS, VECTORS>() else { return };
    let mut packets = Packet::four::<S>(first);
    let mut lag = Lag::<VECTORS> {
        blocks: [[_mm512_setzero_si512(); VECTORS]; FOUR],
        masks: [_mm_setzero_si128(); FOUR],
        hashing: Hashing::of(&packets),
        icvs: None,
    };
    loop {
        seal_four::<KEYS, VECTORS, S>(packets, &mut lag);
        match fours.next::<KEYS, VECTORS>() {
            Some(next) => packets = Packet::four::<S>(next),
            None => break,
        }
    }
    if let Some(icvs) = lag.icvs.take() {
        write_icvs(icvs, hash_last(&lag));
    }
}

/// The ICVs of the last four packets, whose hash nothing is left to hide behind.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
#[expect(unused_assignments, reason = "in the last of the turns that are written out")]
fn hash_last<const VECTORS: usize>(lag: &Lag<'_, '_, VECTORS>) -> __m512i {
    let mut sums = Sums::new();
    let mut hash = _mm512_setzero_si512();
    each!(FOUR, turn, {
        hash_between!(2 * (turn + 1), VECTORS, sums, lag.hashing, hash, |i, j| lag.blocks[i][j]);
    });
    _mm512_xor_si512(hash, load_lanes(&lag.masks))
}

/// Seals four packets but for their ICVs, and makes those of the four before.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
#[expect(unused_assignments, reason = "in the last of the rounds that are written out")]
fn seal_four<'a, 'b, const KEYS: usize, const VECTORS: usize, S: Fours<'a, 'b>>(
    mut packets: [Packet<'a, 'b>; FOUR],
    lag: &mut Lag<'a, 'b, VECTORS>,
) where
    'a: 'b,
{
    let mut states = first_states!(KEYS, VECTORS, packets);
    let mut sums = Sums::new();
    let mut hash = _mm512_setzero_si512();
    four_rounds!(KEYS, VECTORS, states, packets, round, {
        hash_between!(round, VECTORS, sums, lag.hashing, hash, |i, j| lag.blocks[i][j]);
    });
    if let Some(icvs) = lag.icvs.take() {
        write_icvs(icvs, _mm512_xor_si512(hash, load_lanes(&lag.masks)));
    }
    if !S::ALIKE {
        lag.hashing = Hashing::of(&packets);
    }
    each!(FOUR, i, {
        let packet = &mut packets[i];
        let last_round_key = _mm512_broadcast_i32x4(packet.key.keys::<KEYS>()[KEYS - 1]);
        let esn_high = packet.esn_high;
        let (whole, last) = packet.vectors::<VECTORS>();
        each!(VECTORS, j, {
            let keystream = _mm512_aesenclast_epi128(states[i][j], last_round_key);
            let mut added = _mm512_set1_epi64(-1);
            if j == 0 {
                lag.masks[i] = _mm512_castsi512_si128(keystream);
                added = behind_first_lane();
            }
            let sealed = if j + 1 < VECTORS {
                let sealed = masked_xor(keystream, added, load(&whole[j]));
                store(&mut whole[j], sealed);
                sealed
            } else {
                // What is behind the end is not text: zeroes, to be hashed.
                let added = _mm512_and_si512(added, ones(last.len()));
                let sealed = masked_xor(keystream, added, load_first(last));
                store_first(last, sealed);
                sealed
            };
            lag.blocks[i][j] = if j == 0 { reflect_esp(sealed, esn_high) } else { reflect(sealed) };
        });
    });
    let [a, b, c, d] = packets;
    lag.icvs = Some([a.icv(), b.icv(), c.icv(), d.icv()]);
}

/// Opens packets which all have a key of `KEYS` round keys and header and text of `VECTORS`
/// vectors, the last one begun. Returns a bit for each that is authentic, the first in the lowest;
/// a forged one is left as it is.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
pub(super) fn open<'a, 'b, const KEYS: usize, const VECTORS: usize, S: Fours<'a, 'b>>(
    mut fours: S,
) -> u64
where
    'a: 'b,
{
    let Some(first) = fours.next::<KEYS, VECTORS>() else { return 0 };
    let mut packets = Packet::four::<S>(first);
    let alike = Hashing::of(&packets);
    let (mut authentic, mut at) = (0, 0);
    loop {
        authentic |= open_four::<KEYS, VECTORS, S>(packets, &alike) << at;
        at += FOUR;
        match fours.next::<KEYS, VECTORS>() {
            Some(next) => packets = Packet::four::<S>(next),
            None => return authentic,
        }
    }
}

/// Opens four packets; a bit for each that is authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
#[expect(unused_assignments, reason = "in the last of the rounds that are written out")]
fn open_four<'a, 'b, const KEYS: usize, const VECTORS: usize, S: Fours<'a, 'b>>(
    mut packets: [Packet<'a, 'b>; FOUR],
    alike: &Hashing<'a, VECTORS>,
) -> u64
where
    'a: 'b,
{
    let hashing = if S::ALIKE { *alike } else { Hashing::of(&packets) };
    let mut states = first_states!(KEYS, VECTORS, packets);
    let mut sums = Sums::new();
    let mut hash = _mm512_setzero_si512();
    four_rounds!(KEYS, VECTORS, states, packets, round, {
        hash_between!(round, VECTORS, sums, hashing, hash, |i, j| {
            let octets = octets::<VECTORS>(&mut packets[i], j);
            if j == 0 { reflect_esp(octets, packets[i].esn_high) } else { reflect(octets) }
        });
    });
    let mut masks = [_mm_setzero_si128(); FOUR];
    let mut icvs = [_mm_setzero_si128(); FOUR];
    each!(FOUR, i, {
        let last_round_key = _mm512_broadcast_i32x4(packets[i].key.keys::<KEYS>()[KEYS - 1]);
        each!(VECTORS, j, {
            let octets = octets::<VECTORS>(&mut packets[i], j);
            let keystream = _mm512_aesenclast_epi128(states[i][j], last_round_key);
            states[i][j] = _mm512_xor_si512(keystream, octets);
            if j == 0 {
                masks[i] = _mm512_castsi512_si128(keystream);
                states[i][0] = masked_xor(keystream, behind_first_lane(), octets);
            }
        });
        icvs[i] = load_block(packets[i].esp.last_chunk().expect("room for the ICV"));
    });
    let computed = _mm512_xor_si512(hash, load_lanes(&masks));
    let wrong = _mm512_cmpneq_epi64_mask(computed, load_lanes(&icvs));
    let mut authentic = 0;
    each!(FOUR, i, {
        if wrong >> (2 * i) & 0b11 == 0 {
            authentic |= 1 << i;
            let (whole, last) = packets[i].vectors::<VECTORS>();
            each!(VECTORS, j, {
                if j + 1 < VECTORS {
                    store(&mut whole[j], states[i][j]);
                } else {
                    store_first(last, states[i][j]);
                }
            });
        }
    });
    authentic
}

/// Vector `j` of header and text, zeroes behind the end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn octets<const VECTORS: usize>(packet: &mut Packet<'_, '_>, j: usize) -> __m512i {
    let (whole, last) = packet.vectors::<VECTORS>();
    if j + 1 < VECTORS { load(&whole[j]) } else { load_first(last) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn write_icvs(places: [&mut [u8; ICV_LEN]; FOUR], icvs: __m512i) {
    let [a, b, c, d] = places;
    store_block(a, _mm512_extracti32x4_epi32::<0>(icvs));
    store_block(b, _mm512_extracti32x4_epi32::<1>(icvs));
    store_block(c, _mm512_extracti32x4_epi32::<2>(icvs));
    store_block(d, _mm512_extracti32x4_epi32::<3>(icvs));
}

/// Asks for the text of a packet to be in the cache.
#[inline(always)]
pub(super) fn prefetch_text<const VECTORS: usize>(op: &Op<'_, ProviderKey>) {
    prefetch_lines(op.esp.as_ptr(), 0..VECTORS + 1);
}

/// Asks for the key of a packet to be in the cache.
#[inline(always)]
pub(super) fn prefetch_key<const KEYS: usize, const VECTORS: usize>(op: &Op<'_, ProviderKey>) {
    prefetch_lines(op.key, KernelKey::lines(KEYS, LANES * VECTORS + 1));
}
