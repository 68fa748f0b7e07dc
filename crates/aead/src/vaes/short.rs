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
//! ([`VaesKey::powers_and_behind`]): the blocks there are zeroes, and so are the products.
//!
//! # Order
//!
//! Nothing is stored of a packet before its verdict when opening. That a packet's ICV is written
//! one round of the loop after its text when sealing is nothing to see from outside.

#![expect(unsafe_code, reason = "inline assembly without an instruction, to keep an order")]

use std::arch::x86_64::*;
use std::ops::Range;

use crate::port::ICV_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::port::TEXT_AT;
use crate::port::Verified;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::key::VaesKey;
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
use crate::vaes::math::store_lanes;
use crate::x86::block::BLOCK;
use crate::x86::block::load_block;
use crate::x86::block::store_block;

/// Packets at once.
pub(super) const FOUR: usize = LANES;

/// How many packets ahead keys and texts are asked for.
const AHEAD: usize = 2 * FOUR;

/// A packet with a key for these kernels.
struct Packet<'a, 'b> {
    key: &'a VaesKey,
    esn_high: Option<u32>,
    esp: &'b mut [u8],
}

impl<'a, 'b> Packet<'a, 'b> {
    #[inline(always)]
    fn of(op: &'b mut Op<'a, ProviderKey>) -> Packet<'a, 'b> {
        Packet { key: key_of(op.key), esn_high: op.esn_high, esp: op.esp }
    }

    /// Those of the batch. In so many words, for `map` is a call.
    #[inline(always)]
    fn four(ops: &'b mut [Op<'a, ProviderKey>], four: &[u8; FOUR]) -> [Packet<'a, 'b>; FOUR] {
        let [a, b, c, d] = *four;
        let four = [usize::from(a), usize::from(b), usize::from(c), usize::from(d)];
        let [a, b, c, d] = ops.get_disjoint_mut(four).expect("each packet is there once");
        [Packet::of(a), Packet::of(b), Packet::of(c), Packet::of(d)]
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

    /// The powers of H for each block, vector by vector.
    #[inline(always)]
    fn powers<const VECTORS: usize>(&self) -> &'a [[__m128i; LANES]; VECTORS] {
        let powers = &self.key.powers_and_behind()[POWERS - (self.len().div_ceil(BLOCK) + 1)..];
        powers.as_chunks().0.first_chunk().expect("enough is behind them")
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
fn key_of(key: &ProviderKey) -> &VaesKey {
    match key {
        ProviderKey::Vaes(key) => key,
        _ => unreachable!("the portable provider's"),
    }
}

/// Four packets that are sealed but for their ICV.
#[repr(align(64))]
struct Lag<'a, 'b, const VECTORS: usize> {
    /// Sealed, reflected, the header replaced by the AAD.
    blocks: [[__m512i; VECTORS]; FOUR],
    /// See [`Packet::lengths`].
    lengths: [[u64; 2]; FOUR],
    /// The encrypted J0.
    masks: [__m128i; FOUR],
    /// H^1.
    last_powers: [__m128i; FOUR],
    /// See [`Packet::powers`].
    powers: [&'a [[__m128i; LANES]; VECTORS]; FOUR],
    /// Which packets of the batch. None at first.
    packets: Option<&'b [u8; FOUR]>,
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
        $round:ident, $vectors:expr, $sums:ident, $powers:expr, $lengths:expr, $last_powers:expr,
        $hash:ident, |$i:ident, $j:ident| $block:expr
    ) => {
        if $round <= 2 * FOUR && $round % 2 == 0 {
            // Packets 0 and 2 make a pair, then 1 and 3: so that few sums wait.
            let $i = [0, 2, 1, 3][$round / 2 - 1];
            let mut sum = Sum::zero();
            each!($vectors, $j, {
                sum.add_product($block, load_lanes(&$powers[$i][$j]));
            });
            in_order!(sum.low, sum.middle, sum.high);
            if $i < 2 {
                $sums.one = sum;
            } else if $i == 2 {
                $sums.even = PairSum::join($sums.one, sum);
            } else {
                let mut sum = Sum::join($sums.even, PairSum::join($sums.one, sum));
                sum.add_product($lengths, $last_powers);
                $hash = reflect(reduce(sum));
            }
        }
    };
}

/// Seals the packets `order` of a batch, whose count is a multiple of four, and which all have a
/// key of `KEYS` round keys and header and text of `VECTORS` vectors, the last one begun.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
pub(super) fn seal<const KEYS: usize, const VECTORS: usize>(
    ops: &mut [Op<'_, ProviderKey>],
    order: &[u8],
) {
    let Some(first) = order.first() else { return };
    let any_powers = Packet::of(&mut ops[usize::from(*first)]).powers();
    let mut lag = Lag::<VECTORS> {
        blocks: [[_mm512_setzero_si512(); VECTORS]; FOUR],
        lengths: [[0; 2]; FOUR],
        masks: [_mm_setzero_si128(); FOUR],
        last_powers: [_mm_setzero_si128(); FOUR],
        powers: [any_powers; FOUR],
        packets: None,
    };
    let (fours, _) = order.as_chunks::<FOUR>();
    prefetch_packets::<KEYS, VECTORS>(ops, order, 0..AHEAD.min(order.len()));
    for (number, four) in fours.iter().enumerate() {
        let first = FOUR * number + AHEAD;
        prefetch_packets::<KEYS, VECTORS>(ops, order, first..(first + FOUR).min(order.len()));
        let hash = seal_four::<KEYS, VECTORS>(ops, four, &mut lag);
        if let Some(before) = lag.packets.replace(four) {
            write_icvs(ops, before, hash);
        }
    }
    if let Some(last) = lag.packets {
        let mut sums = Sums::new();
        let mut hash = _mm512_setzero_si512();
        for round in [2, 4, 6, 8] {
            hash_between!(
                round,
                VECTORS,
                sums,
                lag.powers,
                load_pairs(&lag.lengths),
                load_lanes(&lag.last_powers),
                hash,
                |i, j| lag.blocks[i][j]
            );
        }
        write_icvs(ops, last, _mm512_xor_si512(hash, load_lanes(&lag.masks)));
    }
}

/// Seals four packets but for their ICVs, and hashes the four before; returns the ICVs of those.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
#[expect(unused_assignments, reason = "in the last of the rounds that are written out")]
fn seal_four<'a, const KEYS: usize, const VECTORS: usize>(
    ops: &mut [Op<'a, ProviderKey>],
    four: &[u8; FOUR],
    lag: &mut Lag<'a, '_, VECTORS>,
) -> __m512i {
    let mut packets = Packet::four(ops, four);
    let mut states = first_states!(KEYS, VECTORS, packets);
    let mut sums = Sums::new();
    let mut hash = _mm512_setzero_si512();
    four_rounds!(KEYS, VECTORS, states, packets, round, {
        hash_between!(
            round,
            VECTORS,
            sums,
            lag.powers,
            load_pairs(&lag.lengths),
            load_lanes(&lag.last_powers),
            hash,
            |i, j| lag.blocks[i][j]
        );
    });
    let icvs = _mm512_xor_si512(hash, load_lanes(&lag.masks));
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
        lag.lengths[i] = packet.lengths();
        lag.last_powers[i] = packet.key.powers_and_behind()[POWERS - 1];
        lag.powers[i] = packet.powers();
    });
    icvs
}

/// Opens the packets `order` of a batch, whose count is a multiple of four, and which all have a
/// key of `KEYS` round keys and header and text of `VECTORS` vectors, the last one begun. A forged
/// one is left as it is.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
pub(super) fn open<const KEYS: usize, const VECTORS: usize>(
    ops: &mut [Op<'_, ProviderKey>],
    order: &[u8],
    statuses: &mut [Status],
) {
    let (fours, _) = order.as_chunks::<FOUR>();
    prefetch_packets::<KEYS, VECTORS>(ops, order, 0..AHEAD.min(order.len()));
    for (number, four) in fours.iter().enumerate() {
        let first = FOUR * number + AHEAD;
        prefetch_packets::<KEYS, VECTORS>(ops, order, first..(first + FOUR).min(order.len()));
        let authentic = open_four::<KEYS, VECTORS>(Packet::four(ops, four));
        for (packet, authentic) in four.iter().zip(authentic) {
            statuses[usize::from(*packet)] = match authentic {
                true => Status::Authentic(Verified::new()),
                false => Status::Forged,
            };
        }
    }
}

/// Opens four packets; says of each whether it is authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
#[expect(unused_assignments, reason = "in the last of the rounds that are written out")]
fn open_four<const KEYS: usize, const VECTORS: usize>(
    mut packets: [Packet<'_, '_>; FOUR],
) -> [bool; FOUR] {
    let mut states = first_states!(KEYS, VECTORS, packets);
    let mut sums = Sums::new();
    let mut hash = _mm512_setzero_si512();
    let mut lengths = [[0; 2]; FOUR];
    let mut last_powers = [_mm_setzero_si128(); FOUR];
    let mut powers = [packets[0].powers::<VECTORS>(); FOUR];
    each!(FOUR, i, {
        lengths[i] = packets[i].lengths();
        last_powers[i] = packets[i].key.powers_and_behind()[POWERS - 1];
        powers[i] = packets[i].powers();
    });
    four_rounds!(KEYS, VECTORS, states, packets, round, {
        hash_between!(
            round,
            VECTORS,
            sums,
            powers,
            load_pairs(&lengths),
            load_lanes(&last_powers),
            hash,
            |i, j| {
                let octets = octets::<VECTORS>(&mut packets[i], j);
                if j == 0 { reflect_esp(octets, packets[i].esn_high) } else { reflect(octets) }
            }
        );
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
    let mut authentic = [false; FOUR];
    each!(FOUR, i, {
        authentic[i] = wrong >> (2 * i) & 0b11 == 0;
        if authentic[i] {
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
fn write_icvs(ops: &mut [Op<'_, ProviderKey>], packets: &[u8; FOUR], icvs: __m512i) {
    let mut blocks = [_mm_setzero_si128(); FOUR];
    store_lanes(&mut blocks, icvs);
    for (packet, icv) in packets.iter().zip(blocks) {
        let esp = &mut ops[usize::from(*packet)].esp;
        store_block(esp.last_chunk_mut().expect("room for the ICV"), icv);
    }
}

/// Asks for the keys and the texts of the packets `order[ahead]`.
#[inline(always)]
fn prefetch_packets<const KEYS: usize, const VECTORS: usize>(
    ops: &[Op<'_, ProviderKey>],
    order: &[u8],
    ahead: Range<usize>,
) {
    let first = order.first().map(|&packet| std::ptr::from_ref(ops[usize::from(packet)].key));
    for &packet in order.get(ahead).unwrap_or_default() {
        let op = &ops[usize::from(packet)];
        // The one SA of a stream is not asked for again and again.
        if first != Some(std::ptr::from_ref(op.key)) {
            prefetch_lines(op.key, VaesKey::lines(KEYS, LANES * VECTORS + 1));
        }
        prefetch_lines(op.esp.as_ptr(), 0..VECTORS + 1);
    }
}
