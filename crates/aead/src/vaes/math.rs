//! The field of GHASH, AES in lanes, and the loads and stores: what all the kernels are made of.
//! What it means stands at the head of `kernel`.
//!
//! # Unsafe code
//!
//! All arithmetic is in safe functions that have the target features. What remains are the loads
//! and stores: each takes a slice or an array and touches its octets only, with the mask, where
//! there is one, computed from the length of the slice in the same function.

#![expect(unsafe_code, reason = "loads and stores of vectors go through pointers")]

use std::arch::x86_64::*;

use crate::port::IV_AT;
use crate::port::SEQ_AT;
use crate::port::TEXT_AT;
use crate::x86::block::BLOCK;
use crate::x86::block::block;
use crate::x86::block::load_block;

/// Powers of H in a context: as many blocks as the longest tail has, and the lengths.
pub(super) const POWERS: usize = 20;

/// Powers of H beyond those, one for every fourth block: what a group of eight vectors takes.
pub(super) const FAR_POWERS: usize = 3;

/// Blocks of a context from H^20 on that may be read as vectors.
pub(super) const READABLE: usize = POWERS + 1 + LANES;

/// Octets of a vector.
pub(super) const VECTOR: usize = 64;

/// Blocks in a vector.
pub(super) const LANES: usize = VECTOR / BLOCK;

/// Octets of packet that a tail has room for: the last power is for the lengths.
pub(super) const TAIL_LEN: usize = (POWERS - 1) * BLOCK;

/// What the kernels need of a key: powers of H times x^-1, reflected, H^32, H^28, H^24, then H^20
/// to H^1; and the round keys, as many as its size asks for.
#[derive(Clone, Copy)]
pub(super) struct Schedule<'a, const KEYS: usize> {
    pub(super) far_powers: &'a [__m128i; FAR_POWERS],
    /// And what is behind them: to be multiplied with zeroes.
    pub(super) powers: &'a [__m128i; READABLE],
    pub(super) round_keys: &'a [__m128i; KEYS],
}

impl<const KEYS: usize> Schedule<'_, KEYS> {
    /// See [`read_again`].
    #[inline(always)]
    pub(super) fn again(&self) -> Self {
        Schedule {
            far_powers: read_again(self.far_powers),
            powers: read_again(self.powers),
            round_keys: read_again(self.round_keys),
        }
    }
}

/// What is different for every packet besides its octets.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// Salt and IV and a counter of zero, in all lanes, in the order of memory.
    pub(super) nonce: __m512i,
    /// The only block of AAD padded with zeroes; or, of longer AAD, the GHASH of all blocks but
    /// the last, plus the last. Reflected.
    pub(super) aad: __m128i,
    /// Length of the AAD.
    pub(super) aad_bits: u64,
}

/// The body with `$j` = 0, 1 ... `$count` - 1, for counts up to eight. Arrays of vectors stay in
/// registers only if every index is a constant early on, which a loop does not guarantee.
macro_rules! each {
    ($count:expr, $j:ident, $body:block) => {
        each!(@ $count, $j, $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    (@ $count:expr, $j:ident, $body:block, $($index:literal),*) => {
        $({
            let $j: usize = $index;
            if $j < $count $body
        })*
    };
}
pub(super) use each;

/// The rounds of AES from `$first` on, on `$states`, `$vectors` of them, with `$between` after each
/// of the rounds `$round` up to `$keys` - 2. It makes them keystream. A macro, as what is between
/// has to stand in the same function, and its vectors in registers.
macro_rules! rounds {
    (
        $keys:expr, $vectors:expr, $states:ident, $round_keys:expr, $first:literal, $round:ident,
        $between:block
    ) => {
        rounds!(
            @ $keys, $vectors, $states, $round_keys, $first, $round, $between,
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13
        );
        let round_key = _mm512_broadcast_i32x4($round_keys[$keys - 1]);
        each!($vectors, j, {
            $states[j] = _mm512_aesenclast_epi128($states[j], round_key);
        });
    };
    (
        @ $keys:expr, $vectors:expr, $states:ident, $round_keys:expr, $first:literal,
        $round:ident, $between:block, $($index:literal),*
    ) => {
        $({
            let $round: usize = $index;
            if $round >= $first && $round < $keys - 1 {
                let round_key = _mm512_broadcast_i32x4($round_keys[$round]);
                each!($vectors, j, {
                    $states[j] = _mm512_aesenc_epi128($states[j], round_key);
                });
                $between
            }
        })*
    };
}
pub(super) use rounds;

/// Keeps the order of the source: what is before it and makes one of the vectors is computed
/// before, and what uses one of them after. No instruction. Without, the compiler undoes an
/// interleaving, since it schedules for few registers.
macro_rules! in_order {
    (@ $vector:expr) => {
        "/* {} */"
    };
    ($($vector:expr),+ $(,)?) => {
        // SAFETY: there is no instruction in it. Why not safe: it is inline assembly.
        unsafe {
            std::arch::asm!(
                $(in_order!(@ $vector),)+
                $(inout(zmm_reg) $vector,)+
                options(nomem, nostack, preserves_flags),
            );
        }
    };
}
pub(super) use in_order;

/// [`in_order`] for arrays of up to eight vectors.
macro_rules! keep_in_order {
    ($vectors:expr, $states:ident) => {
        each!($vectors, j, {
            in_order!($states[j]);
        });
    };
}
pub(super) use keep_in_order;

/// `value`, of which the compiler knows no more that it is what it was: so that it reads it again,
/// and does not keep what it read on the stack.
#[expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written there")]
#[inline(always)]
pub(super) fn read_again<T>(value: &T) -> &T {
    let mut pointer = std::ptr::from_ref(value);
    // SAFETY: there is no instruction in it, and the pointer is still that of the reference. Why
    // not safe: it is inline assembly.
    unsafe {
        std::arch::asm!(
            "/* {} */",
            inout(reg) pointer,
            options(nomem, nostack, preserves_flags),
        );
        &*pointer
    }
}

/// GCM's counters from 1, in the last 32 bits of each lane: four a vector, for all vectors whose
/// counters have no more than eight bits.
static COUNTERS: Counters = Counters(counters());

/// On a line of the cache each.
#[repr(align(64))]
struct Counters([[u8; VECTOR]; SMALL_VECTORS]);

/// Vectors from the start of a packet whose counters are in the table. The last one of the next
/// would be 256.
const SMALL_VECTORS: usize = 63;

const fn counters() -> [[u8; VECTOR]; SMALL_VECTORS] {
    let mut counters = [[0; VECTOR]; SMALL_VECTORS];
    let mut block = 0;
    while block < SMALL_VECTORS * LANES {
        #[expect(clippy::cast_possible_truncation, reason = "at most 252")]
        let counter = block as u8 + 1;
        counters[block / LANES][block % LANES * BLOCK + BLOCK - 1] = counter;
        block += 1;
    }
    counters
}

/// The counters of vector `vector` of a packet, none of more than eight bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn counters_of(vector: usize) -> __m512i {
    load(&COUNTERS.0[vector])
}

/// The counters of `VECTORS` vectors from vector `first` of a packet, added to the nonce and to the
/// first round key: what AES starts with.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn states<const KEYS: usize, const VECTORS: usize>(
    round_keys: &[__m128i; KEYS],
    nonce: __m512i,
    first: usize,
) -> [__m512i; VECTORS] {
    let round_key = _mm512_broadcast_i32x4(round_keys[0]);
    let mut states = [_mm512_setzero_si512(); VECTORS];
    if let Some(counters) = COUNTERS.0.get(first..first + VECTORS) {
        each!(VECTORS, j, {
            states[j] = xor3(load(&counters[j]), nonce, round_key);
        });
    } else {
        // One by one, for an array that is written by a function stays in memory.
        let large = large_states::<VECTORS>(_mm512_xor_si512(nonce, round_key), first);
        each!(VECTORS, j, {
            states[j] = large[j];
        });
    }
    states
}

/// The same for any counters, out of the way: GCM's inc32, without a carry into the nonce.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
fn large_states<const VECTORS: usize>(start: __m512i, first: usize) -> [__m512i; VECTORS] {
    #[expect(clippy::cast_possible_truncation, reason = "counters have 32 bits, and wrap")]
    let counter = (LANES * first) as u32;
    let ahead = _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1);
    let mut counters = _mm512_maskz_set1_epi32(0x1111, counter.cast_signed());
    counters = _mm512_add_epi32(counters, ahead);
    let lanes = _mm512_maskz_set1_epi32(0x1111, 4);
    let mut states = [_mm512_setzero_si512(); VECTORS];
    each!(VECTORS, j, {
        states[j] = _mm512_xor_si512(start, reflect(counters));
        counters = _mm512_add_epi32(counters, lanes);
    });
    let _ = counters;
    states
}

/// The nonce of RFC 4106 section 4 in all lanes, with a counter of zero: the salt, then the IV.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn esp_nonce(salt: [u8; SEQ_AT], packet: &[u8; SEQ_AT + TEXT_AT]) -> __m512i {
    _mm512_mask_set1_epi32(esp_iv(packet), 0x1111, i32::from_ne_bytes(salt))
}

/// The nonce with a salt of zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn esp_iv(packet: &[u8; SEQ_AT + TEXT_AT]) -> __m512i {
    // From the sequence number on: it is where the salt is to be, and the IV is in its place.
    let (_, octets) = packet.split_first_chunk::<SEQ_AT>().expect("as long");
    _mm512_maskz_broadcast_i32x4(0x6666, load_block(octets.first_chunk().expect("as long")))
}

/// The AAD of RFC 4106 section 5, padded and reflected, of a vector whose first lane is the header;
/// the other lanes are reflected, too.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn reflect_esp(octets: __m512i, esn_high: Option<u32>) -> __m512i {
    const { assert!(IV_AT == BLOCK / 2) };
    // Of the first lane only SPI and sequence number: they are the upper half then.
    let blocks = _mm512_maskz_shuffle_epi8(!0xff, octets, reflection());
    match esn_high {
        None => blocks,
        Some(high) => {
            let high = _mm512_zextsi128_si512(_mm_cvtsi32_si128(high.cast_signed()));
            // SPI, then the high half, then what stood behind SPI. None: nothing but zeroes.
            let order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 16, 2, 0);
            _mm512_permutex2var_epi32(blocks, order, high)
        }
    }
}

/// Products that are not reduced yet, lane by lane: the quarters q1 q0, q2 q1 and q3 q2.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) low: __m512i,
    pub(super) middle: __m512i,
    pub(super) high: __m512i,
}

impl Sum {
    /// Two, as three things are added in one instruction.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn add_products(&mut self, a: [__m512i; 2], b: [__m512i; 2]) {
        let low = |i: usize| _mm512_clmulepi64_epi128::<0x00>(a[i], b[i]);
        let high = |i: usize| _mm512_clmulepi64_epi128::<0x11>(a[i], b[i]);
        self.low = xor3(self.low, low(0), low(1));
        self.high = xor3(self.high, high(0), high(1));
        for i in 0..2 {
            let inner = _mm512_clmulepi64_epi128::<0x01>(a[i], b[i]);
            self.middle = xor3(self.middle, inner, _mm512_clmulepi64_epi128::<0x10>(a[i], b[i]));
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn zero() -> Sum {
        let zero = _mm512_setzero_si512();
        Sum { low: zero, middle: zero, high: zero }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn add_product(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        let inner = _mm512_clmulepi64_epi128::<0x01>(a, b);
        self.middle = xor3(self.middle, inner, _mm512_clmulepi64_epi128::<0x10>(a, b));
    }

    /// Adds the lanes of four sums: those of `sums[i]` become lane `i`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn join(even: PairSum, odd: PairSum) -> Sum {
        Sum {
            low: add_quarters(even.0.low, odd.0.low),
            middle: add_quarters(even.0.middle, odd.0.middle),
            high: add_quarters(even.0.high, odd.0.high),
        }
    }
}

/// Sums of two packets, the lanes of each added to two: see [`PairSum::join`].
#[derive(Clone, Copy)]
pub(super) struct PairSum(pub(super) Sum);

impl PairSum {
    /// Two lanes for each sum: first those of `a`, then those of `b`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn join(a: Sum, b: Sum) -> PairSum {
        PairSum(Sum {
            low: add_halves(a.low, b.low),
            middle: add_halves(a.middle, b.middle),
            high: add_halves(a.high, b.high),
        })
    }
}

/// The lower half of `a` plus its upper half, then the same of `b`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn add_halves(a: __m512i, b: __m512i) -> __m512i {
    // One shuffle and one blend, as shuffles are the scarcer.
    let crossed = _mm512_shuffle_i64x2::<0b01_00_11_10>(a, b);
    _mm512_xor_si512(_mm512_mask_blend_epi64(0xf0, a, b), crossed)
}

/// Of each half the sum of its lanes: `a`'s in lanes 0 and 2, `b`'s in lanes 1 and 3.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn add_quarters(a: __m512i, b: __m512i) -> __m512i {
    // Lanes a1 b0 a3 b2, to be added to a0 b1 a2 b3.
    let order = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2);
    let crossed = _mm512_permutex2var_epi64(a, order, b);
    _mm512_xor_si512(_mm512_mask_blend_epi64(0b1100_1100, a, b), crossed)
}

/// The last block hashed: lengths in bits of the AAD and of the text, `len` being of header and
/// text (SP 800-38D section 7.1).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn lengths(aad_bits: u64, len: usize) -> __m128i {
    let text_bits = (len - BLOCK) as u128 * 8;
    block(u128::from(aad_bits) << 64 | text_bits)
}

/// Folds the lower half into the upper, in each lane: see the head of `kernel`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn reduce(sum: Sum) -> __m512i {
    let fold = _mm512_set1_epi64(0xc200_0000_0000_0000_u64.cast_signed());
    let middle =
        xor3(sum.middle, swap_halves(sum.low), _mm512_clmulepi64_epi128::<0x00>(sum.low, fold));
    xor3(sum.high, swap_halves(middle), _mm512_clmulepi64_epi128::<0x00>(middle, fold))
}

/// The halves of each lane exchanged.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn swap_halves(lanes: __m512i) -> __m512i {
    _mm512_shuffle_epi32::<0b01_00_11_10>(lanes)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b1001_0110>(a, b, c)
}

/// `a` where `mask` has ones, else nothing; plus `b`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn masked_xor(a: __m512i, mask: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b0110_1010>(a, mask, b)
}

/// `a` where `mask` has zeroes, else nothing; plus `b`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn masked_xor_not(a: __m512i, mask: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b1001_1010>(a, mask, b)
}

/// The octets of each lane in reverse order.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn reflect(lanes: __m512i) -> __m512i {
    _mm512_shuffle_epi8(lanes, reflection())
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn reflection() -> __m512i {
    _mm512_broadcast_i32x4(block(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f))
}

/// The sum of the four lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn add_lanes(lanes: __m512i) -> __m128i {
    let upper = _mm512_extracti64x4_epi64::<1>(lanes);
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(lanes), upper);
    _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

/// A mask of the first `count` octets of a vector, of all for larger counts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn first_octets(count: usize) -> __mmask64 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    _bzhi_u64(u64::MAX, count.min(VECTOR) as u32)
}

/// Ones in the first `count` octets, at most a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn ones(count: usize) -> __m512i {
    static ONES: [u8; 2 * VECTOR] = {
        let mut ones = [0; 2 * VECTOR];
        let mut at = 0;
        while at < VECTOR {
            ones[at] = 0xff;
            at += 1;
        }
        ones
    };
    // A window into it: cheaper than a mask register, for it is a load.
    load(ONES[VECTOR - count..].first_chunk().expect("the count is at most a vector"))
}

/// Ones in all octets but those of the first lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn behind_first_lane() -> __m512i {
    _mm512_set_epi64(-1, -1, -1, -1, -1, -1, 0, 0)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load(octets: &[u8; VECTOR]) -> __m512i {
    // SAFETY: the array has 64 octets. Why not safe: there is no safe unaligned load.
    unsafe { _mm512_loadu_si512(octets.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn store(octets: &mut [u8; VECTOR], vector: __m512i) {
    // SAFETY: the array has 64 octets. Why not safe: there is no safe unaligned store.
    unsafe { _mm512_storeu_si512(octets.as_mut_ptr().cast(), vector) };
}

/// The octets of `octets`, at most a vector, and zeroes behind.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load_first(octets: &[u8]) -> __m512i {
    // SAFETY: the mask has no bit beyond the length of the slice, and what is masked out is not
    // read, nor does it fault. Why not safe: there is no safe masked load.
    unsafe { _mm512_maskz_loadu_epi8(first_octets(octets.len()), octets.as_ptr().cast()) }
}

/// Overwrites `octets`, at most a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn store_first(octets: &mut [u8], vector: __m512i) {
    let mask = first_octets(octets.len());
    // SAFETY: the mask has no bit beyond the length of the slice, and what is masked out is not
    // written, nor does it fault. Why not safe: there is no safe masked store.
    unsafe { _mm512_mask_storeu_epi8(octets.as_mut_ptr().cast(), mask, vector) };
}

/// The vectors of a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load_group<const GROUP: usize>(group: &[[u8; VECTOR]; GROUP]) -> [__m512i; GROUP] {
    let mut vectors = [_mm512_setzero_si512(); GROUP];
    each!(GROUP, j, {
        vectors[j] = load(&group[j]);
    });
    vectors
}

/// Overwrites a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn store_group<const GROUP: usize>(
    group: &mut [[u8; VECTOR]; GROUP],
    vectors: &[__m512i; GROUP],
) {
    each!(GROUP, j, {
        store(&mut group[j], vectors[j]);
    });
}

/// The octets of `tail`, which end in the last of the vectors, and zeroes behind.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load_tail<const VECTORS: usize>(tail: &[u8]) -> [__m512i; VECTORS] {
    let (whole, last) = tail.split_at(VECTOR * (VECTORS - 1));
    let (whole, _) = whole.as_chunks();
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    each!(VECTORS, j, {
        vectors[j] = if j < VECTORS - 1 { load(&whole[j]) } else { load_first(last) };
    });
    vectors
}

/// Overwrites `tail`, which ends in the last of the vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn store_tail<const VECTORS: usize>(tail: &mut [u8], vectors: &[__m512i; VECTORS]) {
    let (whole, last) = tail.split_at_mut(VECTOR * (VECTORS - 1));
    let (whole, _) = whole.as_chunks_mut();
    each!(VECTORS, j, {
        if j < VECTORS - 1 {
            store(&mut whole[j], vectors[j]);
        }
    });
    store_first(last, vectors[VECTORS - 1]);
}

/// Four blocks as a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load_lanes(blocks: &[__m128i; LANES]) -> __m512i {
    // SAFETY: the array has 64 octets. Why not safe: there is no safe unaligned load.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}

/// Four blocks, each as two halves, the lower one first, as a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn load_pairs(blocks: &[[u64; 2]; LANES]) -> __m512i {
    // SAFETY: the array has 64 octets. Why not safe: there is no safe unaligned load.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}
