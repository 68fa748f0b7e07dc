//! Vectors of one or two blocks, and what the kernels do with them.
//!
//! A value of [`Xmm`] or [`Ymm`] is the proof that the CPU has the instructions. So the operations
//! are safe functions of such a value. They are inlined always, and become single instructions in
//! what [`Vectors::run`] compiles for these CPUs.

use std::arch::x86_64::*;

use crate::x86::block::BLOCK;
use crate::x86::block::block;
use crate::x86::block::load_block;
use crate::x86::block::store_block;
use crate::x86::instructions::Instructions;
use crate::x86::instructions::instructions;

/// Octets of the longest vector.
const LONGEST: usize = 32;

/// Work to be compiled for the instructions of `V`. `run` is to be inlined always, as is all it
/// calls and that is worth it.
pub(crate) trait Work<V> {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run(self, vectors: V) -> Self::Output;
}

/// A kind of vectors; the value says that the CPU has them.
pub(crate) trait Vectors: Instructions {
    /// So many blocks, the first lowest.
    type Vector: Copy;

    /// How many.
    const LANES: usize;

    /// Octets of a vector.
    const WIDTH: usize = Self::LANES * BLOCK;

    /// Does `work` in a function compiled for these instructions.
    fn run<W: Work<Self>>(self, work: W) -> W::Output;

    /// A block in the first lane, zeroes in the others.
    fn one(self, block: __m128i) -> Self::Vector;
    /// A block in all lanes.
    fn all(self, block: __m128i) -> Self::Vector;
    /// Lane `i` holds the number `i`.
    fn lane_numbers(self) -> Self::Vector;
    /// The first lane.
    fn first(self, vector: Self::Vector) -> __m128i;
    /// The sum of all lanes.
    fn sum_of_lanes(self, vector: Self::Vector) -> __m128i;
    /// The lanes of `a` and `b` added as polynomials.
    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn and(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Added in 32 bits.
    fn add_32(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The octets of each lane in reverse order.
    fn reflect(self, vector: Self::Vector) -> Self::Vector;
    /// The halves of each lane exchanged.
    fn swap_halves(self, vector: Self::Vector) -> Self::Vector;
    /// The carry-less products of halves of lanes: the bits of `HALVES` are those of the intrinsic.
    fn clmul<const HALVES: i32>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// A round of AES.
    fn aesenc(self, state: Self::Vector, key: Self::Vector) -> Self::Vector;
    /// The last round of AES.
    fn aesenclast(self, state: Self::Vector, key: Self::Vector) -> Self::Vector;
    /// The first octets, [`Vectors::WIDTH`].
    fn load(self, octets: &[u8]) -> Self::Vector;
    /// Overwrites the first octets.
    fn store(self, octets: &mut [u8], vector: Self::Vector);
    /// The first blocks, [`Vectors::LANES`].
    fn load_blocks(self, blocks: &[__m128i]) -> Self::Vector;
    /// Ones in the first `count` octets, zeroes behind; `count` is less than 128.
    fn first_octets(self, count: usize) -> Self::Vector;

    /// The lanes that hold the first `count` octets, zeroes in the others. Whole blocks are read:
    /// 15 octets behind `count` suffice.
    fn load_part(self, octets: &[u8], count: usize) -> Self::Vector;
    /// Overwrites what [`Vectors::load_part`] reads.
    fn store_part(self, octets: &mut [u8], count: usize, vector: Self::Vector);
}

/// Makes the operations that are an expression of intrinsics.
macro_rules! operations {
    ($($self:ident.$name:ident $(<const $const:ident: i32>)? ($($argument:ident: $type:ty),*)
        -> $answer:ty = $body:expr;)*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe, reason = "some need no more than every x86-64 has")]
            fn $name $(<const $const: i32>)? ($self, $($argument: $type),*) -> $answer {
                // SAFETY: `self` says that the CPU has the features, and nothing here touches
                // memory. Why not safe: the features are known at run time only.
                unsafe { $body }
            }
        )*
    };
}

/// Vectors of one block: AES-NI, PCLMULQDQ and AVX.
#[derive(Clone, Copy, Debug)]
pub struct Xmm(());

/// Vectors of two blocks: AVX2, VAES and VPCLMULQDQ. No instruction is of AVX-512.
#[derive(Clone, Copy, Debug)]
pub struct Ymm(());

instructions!(Xmm, "aes-ni": "aes" "pclmulqdq" "avx");
instructions!(Ymm, "vaes-avx2": "avx2" "avx" "vaes" "vpclmulqdq" "aes" "pclmulqdq");

#[target_feature(enable = "aes,pclmulqdq,avx")]
fn run_xmm<W: Work<Xmm>>(vectors: Xmm, work: W) -> W::Output {
    work.run(vectors)
}

#[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
fn run_ymm<W: Work<Ymm>>(vectors: Ymm, work: W) -> W::Output {
    work.run(vectors)
}

/// The order that reverses the octets of a block.
const REVERSE: u128 = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f;

/// 0 to 31.
const OCTET_NUMBERS: [u8; LONGEST] = {
    let mut numbers = [0; LONGEST];
    let mut at = 0;
    while at < LONGEST {
        #[expect(clippy::cast_possible_truncation, reason = "less than 32")]
        {
            numbers[at] = at as u8;
        }
        at += 1;
    }
    numbers
};

#[expect(clippy::cast_possible_truncation, reason = "less than 128, as is asked for")]
const fn octet(count: usize) -> i8 {
    (count as u8).cast_signed()
}

impl Vectors for Xmm {
    type Vector = __m128i;

    const LANES: usize = 1;

    #[inline(always)]
    fn run<W: Work<Xmm>>(self, work: W) -> W::Output {
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { run_xmm(self, work) }
    }

    operations! {
        self.one(lane: __m128i) -> __m128i = lane;
        self.all(lane: __m128i) -> __m128i = lane;
        self.lane_numbers() -> __m128i = _mm_setzero_si128();
        self.first(vector: __m128i) -> __m128i = vector;
        self.sum_of_lanes(vector: __m128i) -> __m128i = vector;
        self.xor(a: __m128i, b: __m128i) -> __m128i = _mm_xor_si128(a, b);
        self.and(a: __m128i, b: __m128i) -> __m128i = _mm_and_si128(a, b);
        self.add_32(a: __m128i, b: __m128i) -> __m128i = _mm_add_epi32(a, b);
        self.reflect(vector: __m128i) -> __m128i =
            _mm_shuffle_epi8(vector, block(REVERSE));
        self.swap_halves(vector: __m128i) -> __m128i = _mm_shuffle_epi32::<0b01_00_11_10>(vector);
        self.clmul<const HALVES: i32>(a: __m128i, b: __m128i) -> __m128i =
            _mm_clmulepi64_si128::<HALVES>(a, b);
        self.aesenc(state: __m128i, key: __m128i) -> __m128i = _mm_aesenc_si128(state, key);
        self.aesenclast(state: __m128i, key: __m128i) -> __m128i = _mm_aesenclast_si128(state, key);
        self.first_octets(count: usize) -> __m128i = {
            let numbers = load_block(OCTET_NUMBERS.first_chunk().expect("at least 16"));
            _mm_cmpgt_epi8(_mm_set1_epi8(octet(count)), numbers)
        };
    }

    #[inline(always)]
    fn load(self, octets: &[u8]) -> __m128i {
        load_block(octets.first_chunk().expect("a vector"))
    }

    #[inline(always)]
    fn store(self, octets: &mut [u8], vector: __m128i) {
        store_block(octets.first_chunk_mut().expect("a vector"), vector);
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[__m128i]) -> __m128i {
        blocks[0]
    }

    #[inline(always)]
    fn load_part(self, octets: &[u8], _count: usize) -> __m128i {
        self.load(octets)
    }

    #[inline(always)]
    fn store_part(self, octets: &mut [u8], _count: usize, vector: __m128i) {
        self.store(octets, vector);
    }
}

impl Vectors for Ymm {
    type Vector = __m256i;

    const LANES: usize = 2;

    #[inline(always)]
    fn run<W: Work<Ymm>>(self, work: W) -> W::Output {
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { run_ymm(self, work) }
    }

    operations! {
        self.one(lane: __m128i) -> __m256i = _mm256_zextsi128_si256(lane);
        self.all(lane: __m128i) -> __m256i = _mm256_broadcastsi128_si256(lane);
        self.lane_numbers() -> __m256i = _mm256_set_epi32(0, 0, 0, 1, 0, 0, 0, 0);
        self.first(vector: __m256i) -> __m128i = _mm256_castsi256_si128(vector);
        self.sum_of_lanes(vector: __m256i) -> __m128i = {
            let second = _mm256_extracti128_si256::<1>(vector);
            _mm_xor_si128(_mm256_castsi256_si128(vector), second)
        };
        self.xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        self.and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        self.add_32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        self.reflect(vector: __m256i) -> __m256i =
            _mm256_shuffle_epi8(vector, self.all(block(REVERSE)));
        self.swap_halves(vector: __m256i) -> __m256i =
            _mm256_shuffle_epi32::<0b01_00_11_10>(vector);
        self.clmul<const HALVES: i32>(a: __m256i, b: __m256i) -> __m256i =
            _mm256_clmulepi64_epi128::<HALVES>(a, b);
        self.aesenc(state: __m256i, key: __m256i) -> __m256i = _mm256_aesenc_epi128(state, key);
        self.aesenclast(state: __m256i, key: __m256i) -> __m256i =
            _mm256_aesenclast_epi128(state, key);
        self.first_octets(count: usize) -> __m256i =
            _mm256_cmpgt_epi8(_mm256_set1_epi8(octet(count)), self.load(&OCTET_NUMBERS));
    }

    #[inline(always)]
    fn load(self, octets: &[u8]) -> __m256i {
        let octets: &[u8; 32] = octets.first_chunk().expect("a vector");
        // SAFETY: the array has 32 octets, and `self` says that the CPU has the feature. Why not
        // safe: there is no safe unaligned load.
        unsafe { _mm256_loadu_si256(octets.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, octets: &mut [u8], vector: __m256i) {
        let octets: &mut [u8; 32] = octets.first_chunk_mut().expect("a vector");
        // SAFETY: the array has 32 octets, and `self` says that the CPU has the feature. Why not
        // safe: there is no safe unaligned store.
        unsafe { _mm256_storeu_si256(octets.as_mut_ptr().cast(), vector) };
    }

    #[inline(always)]
    fn load_blocks(self, blocks: &[__m128i]) -> __m256i {
        let blocks: &[__m128i; 2] = blocks.first_chunk().expect("a vector");
        // SAFETY: the array has 32 octets, and `self` says that the CPU has the feature. Why not
        // safe: there is no safe unaligned load.
        unsafe { _mm256_loadu_si256(blocks.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_part(self, octets: &[u8], count: usize) -> __m256i {
        let first = load_block(octets.first_chunk().expect("a block"));
        if count <= BLOCK {
            return self.one(first);
        }
        let second = load_block(octets[BLOCK..].first_chunk().expect("two blocks"));
        // SAFETY: `self` says that the CPU has the feature. Why not safe: it is known at run time
        // only.
        unsafe { _mm256_set_m128i(second, first) }
    }

    #[inline(always)]
    fn store_part(self, octets: &mut [u8], count: usize, vector: __m256i) {
        store_block(octets.first_chunk_mut().expect("a block"), self.first(vector));
        if count > BLOCK {
            // SAFETY: `self` says that the CPU has the feature. Why not safe: it is known at run
            // time only.
            let second = unsafe { _mm256_extracti128_si256::<1>(vector) };
            store_block(octets[BLOCK..].first_chunk_mut().expect("two blocks"), second);
        }
    }
}
