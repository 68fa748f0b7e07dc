//! Blocks of 16 octets in registers that every x86-64 has.
//!
//! Inlined always, so that they become part of functions compiled for more instructions.

use std::arch::x86_64::*;

/// Octets of a block.
pub(crate) const BLOCK: usize = 16;

/// A block from an integer: its octets, most significant first, in reverse order.
#[inline(always)]
pub(crate) fn block(integer: u128) -> __m128i {
    #[expect(clippy::cast_possible_truncation, reason = "one half, then the other")]
    let (high, low) = ((integer >> 64) as u64, integer as u64);
    // SAFETY: SSE2 is part of every x86-64. Why not safe: the compiler wants that said.
    unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
}

/// The inverse of [`block`].
#[inline(always)]
pub(crate) fn integer(block: __m128i) -> u128 {
    // SAFETY: as above.
    let [high, low] =
        unsafe { [_mm_unpackhi_epi64(block, block), block].map(|half| _mm_cvtsi128_si64(half)) };
    u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned())
}

/// The sum of two blocks.
#[inline(always)]
pub(crate) fn xor(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: as above.
    unsafe { _mm_xor_si128(a, b) }
}

/// Whether all octets are equal, in a time that does not tell which.
#[inline(always)]
pub(crate) fn is_equal(a: __m128i, b: __m128i) -> bool {
    // SAFETY: as above.
    unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) == 0xffff }
}

#[inline(always)]
pub(crate) fn load_block(octets: &[u8; BLOCK]) -> __m128i {
    // SAFETY: the array has 16 octets, and SSE2 is part of every x86-64. Why not safe: there is no
    // safe unaligned load.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

#[inline(always)]
pub(crate) fn store_block(octets: &mut [u8; BLOCK], block: __m128i) {
    // SAFETY: the array has 16 octets, and SSE2 is part of every x86-64. Why not safe: there is no
    // safe unaligned store.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) };
}
