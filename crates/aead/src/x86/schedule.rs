//! What a key expands to: the context of an SA, with the key schedule of AES and powers of H.
//!
//! With the instructions for AES and carry-less multiplication, so that nothing here takes a time
//! that depends on the key. Compiled for the least that a CPU with a kernel has.

use std::arch::x86_64::*;

use zeroize::Zeroizing;

use crate::algorithm::AesSize;
use crate::algorithm::SALT_LEN;
use crate::vaes::KernelKey;
use crate::x86::block::block;
use crate::x86::block::integer;
use crate::x86::instructions::Instructions;
use crate::x86::vector::Xmm;

/// Round keys of the longest schedule.
pub(crate) const ROUND_KEYS: usize = 15;

/// Round keys by key size.
pub(crate) const KEYS_128: usize = 11;
pub(crate) const KEYS_192: usize = 13;
pub(crate) const KEYS_256: usize = 15;

/// The context of `key`, which has the length of `size`.
///
/// # Panics
/// On a CPU that no kernel runs on: our own error.
pub(crate) fn context(size: AesSize, key: &[u8], salt: [u8; SALT_LEN]) -> KernelKey {
    assert!(Xmm::detect().is_some(), "a CPU that has kernels");
    // SAFETY: these are the features just found. Why not safe: they are known at run time only.
    unsafe { expanded(size, key, salt) }
}

#[target_feature(enable = "aes,pclmulqdq,avx")]
fn expanded(size: AesSize, key: &[u8], salt: [u8; SALT_LEN]) -> KernelKey {
    let zero = _mm_setzero_si128();
    let round_keys = match size {
        AesSize::Aes128 => *expand::<4>(key),
        AesSize::Aes192 => *expand::<6>(key),
        AesSize::Aes256 => *expand::<8>(key),
    };
    let (far_powers, powers) = ([zero; _], [zero; _]);
    let mut context = KernelKey { far_powers, powers, salt, size, spare: [0; _], round_keys };
    let h = hash_key(&context.round_keys, key.len());
    let mut power = h;
    for slot in context.powers.iter_mut().rev().take(4) {
        *slot = power;
        power = multiply(power, h);
    }
    // A multiplication waits long for the one before. Of these, each needs the fourth before it.
    let count = context.powers.len();
    let fourth = context.powers[count - 4];
    for at in (0..count - 4).rev() {
        context.powers[at] = multiply(context.powers[at + 4], fourth);
    }
    // The first in the table is H^20.
    let mut power = context.powers[0];
    for slot in context.far_powers.iter_mut().rev() {
        power = multiply(power, fourth);
        *slot = power;
    }
    context
}

/// The key schedule of FIPS 197 section 5.2, for `WORDS` words of key, 4, 6 or 8: the round keys in
/// the order of memory, zeroes behind them.
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn expand<const WORDS: usize>(key: &[u8]) -> Zeroizing<[__m128i; ROUND_KEYS]> {
    let (key, _) = key.as_chunks::<4>();
    let count = 4 * (WORDS + 7);
    // First octet of a word lowest, as the instructions have it.
    let mut words = Zeroizing::new([0_u32; 4 * ROUND_KEYS]);
    for (word, octets) in words.iter_mut().zip(key) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut round = 1;
    for at in WORDS..count {
        let last = words[at - 1];
        let changed = match at % WORDS {
            0 => {
                let changed = sub_word(last).rotate_right(8) ^ round;
                // Times x modulo x^8 + x^4 + x^3 + x + 1. Rounds are no secret.
                round = round << 1 ^ if round & 0x80 == 0 { 0 } else { 0x11b };
                changed
            }
            4 if WORDS > 6 => sub_word(last),
            _ => last,
        };
        words[at] = words[at - WORDS] ^ changed;
    }
    let mut round_keys = Zeroizing::new([_mm_setzero_si128(); ROUND_KEYS]);
    let (quads, _) = words.as_chunks::<4>();
    for (round_key, quad) in round_keys.iter_mut().zip(quads) {
        let [a, b, c, d] = quad.map(u32::cast_signed);
        *round_key = _mm_set_epi32(d, c, b, a);
    }
    round_keys
}

/// The S-box on each octet of a word, by the instruction made for it: a table would be indexed by
/// the key.
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn sub_word(word: u32) -> u32 {
    let words = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(words)).cast_unsigned()
}

/// H: AES of a block of zeroes under the schedule of a key of `key_len` octets (SP 800-38D section
/// 7.1), its octets in reverse order and times x^-1, as all powers are kept.
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn hash_key(round_keys: &[__m128i; ROUND_KEYS], key_len: usize) -> __m128i {
    let last = key_len / 4 + 6;
    let mut state = round_keys[0];
    for round_key in &round_keys[1..last] {
        state = _mm_aesenc_si128(state, *round_key);
    }
    let h = Zeroizing::new(integer(_mm_aesenclast_si128(state, round_keys[last])).swap_bytes());
    block(times_inverse_x(*h))
}

/// A reflected element times x^-1: the carry-less product with one that has been through this has
/// the bits of the product where they belong.
pub(crate) fn times_inverse_x(element: u128) -> u128 {
    const INVERSE_X: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
    // All ones if the bit that falls out is set: no branch, as H is secret.
    let fallen = 0_u128.wrapping_sub(element >> 127);
    element << 1 ^ fallen & INVERSE_X
}

/// The product of a reflected element and one that has been through [`times_inverse_x`]: four
/// multiplications, of which the lower half is folded into the upper by two more.
#[target_feature(enable = "aes,pclmulqdq,avx")]
pub(crate) fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let fold = _mm_set1_epi64x(0xc200_0000_0000_0000_u64.cast_signed());
    let low = _mm_clmulepi64_si128::<0x00>(a, b);
    let inner =
        _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    let middle = _mm_xor_si128(inner, folded(low, fold));
    _mm_xor_si128(_mm_clmulepi64_si128::<0x11>(a, b), folded(middle, fold))
}

/// The lower quarter, where it is to be added.
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn folded(quarters: __m128i, fold: __m128i) -> __m128i {
    let swapped = _mm_shuffle_epi32::<0b01_00_11_10>(quarters);
    _mm_xor_si128(swapped, _mm_clmulepi64_si128::<0x00>(quarters, fold))
}
