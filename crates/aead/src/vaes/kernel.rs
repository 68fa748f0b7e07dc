//! AES-GCM over one ESP packet in vectors of 64 octets: the mathematics, and the only code of the
//! provider that touches memory through pointers.
//!
//! # Layout: one packet is one run of blocks
//!
//! In front of the text of an ESP packet stand 16 octets, SPI, sequence number and IV: as many as
//! a block has. So the packet without its ICV is cut into vectors of four blocks from its very
//! first octet, and the first lane of the first vector, which needs neither encryption nor its
//! own octets in the hash, is used for what GCM has besides the text:
//!
//! ```text
//!  octets    | SPI seq IV | text 0..16 | text 16..32 | text 32..48 | text 48..64 | ...
//!  counter   |     1      |     2      |      3      |      4      |      5      | ...
//!  hashed    |    AAD     |    C 1     |     C 2     |     C 3     |     C 4     | ... | lengths
//!  power     |  H^(m)     |  H^(m-1)   |  H^(m-2)    |  H^(m-3)    |  H^(m-4)    | ... |   H^1
//! ```
//!
//! Counter 1 is GCM's J0, which encrypts the hash into the ICV (SP 800-38D section 7.1), so that
//! its AES rounds come for free with those of the text. The lanes of the text are then where a
//! naive reading of the formulas puts them, all loads are of whole vectors but for the last, and
//! `m`, the number of blocks hashed, is that of the header and the text plus one for the lengths.
//!
//! # GHASH: octets, bits and a factor of x
//!
//! GHASH works on polynomials over GF(2) modulo P = x^128 + x^7 + x^2 + x + 1, and GCM takes the
//! first bit of a block, the highest of its first octet, for the coefficient of x^0 (SP 800-38D
//! section 6.3). A block with its octets reversed ([`reflect`]) is therefore an integer whose bit
//! `127 - i` is the coefficient of x^i: everything is mirrored. A carry-less product does not mind
//! that: of A = sum a_i 2^(127-i) and B likewise it is the sum of (a·b)_k 2^(254-k), which is the
//! mirrored product in 256 bits, shifted right by one.
//!
//! The shift is made once, on the key: what is kept of H^k is H^k·x^-1, in the mirror one bit to
//! the left. A bit that falls out there is x^-1 = x^127 + x^6 + x + 1 (P divided by x), mirrored
//! c2000000000000000000000000000001. With such a B, bit `255 - k` of the product is the
//! coefficient of x^k of a·b: no shift anywhere else. See [`times_inverse_x`].
//!
//! # Reduction
//!
//! Of the 256 bits, in quarters q3 q2 q1 q0, the upper half q3 q2 holds x^0 to x^127 and the lower
//! half the powers to be folded: q1 those from x^128, q0 those from x^192. As x^128 = 1 + x + x^2 +
//! x^7, a quarter is added 128 bits further up, and again 1, 2 and 7 bits to the right of there.
//! The three shifts are the carry-less product with 2^63 + 2^62 + 2^57 = c200000000000000, whose
//! 128 bits lie over the quarter above the folded one and the next. So q0 folds into q2 (itself)
//! and into q2 q1 (the product), after which q1, now complete, folds into q3, and into q3 q2. Two
//! multiplications in all, and none is left over: the product's lower half ends where the next
//! fold begins. The sum of the two inner products of a multiplication lies over q2 q1 as well,
//! so that it joins the first fold. See [`reduce`].
//!
//! # Powers of H, and when to reduce
//!
//! Products of many blocks are added before they are reduced, as reduction is linear. While the
//! packet is long, 16 blocks are taken at a time, and *all four lanes* of vector `j` of such a
//! group are multiplied by H^(16-4j): each lane carries a sum of its own, and the carried lanes
//! are added to the first vector of what follows. For block `i` of lane `l` of a group that is
//! followed by r more blocks that gives, as long as the rest is multiplied with the right power
//! for its place, H^(r-l) in the first vector: H^(16-4j)·H^(r-l) = H^(16+r-i) with i = 4j + l,
//! which is the power the layout above asks for.
//!
//! The rest, the *tail*, of at most 20 blocks with the lengths among them, is multiplied by H^r to
//! H^1, read from a table of descending powers at `20 - r`. Carried lanes need r >= 4, or a lane
//! of theirs would have no power: a group is taken only while more than 20 blocks are left, so a
//! tail behind a group has at least 5. Lanes behind the lengths hold zeroes, in the tail and in
//! its powers.
//!
//! # Order of the work
//!
//! A packet of one tail stays in registers: sealed, its vectors go from the cipher to the hash and
//! to memory; opened, they are hashed, and stored decrypted if the ICV is right. A longer one is
//! passed over twice, [`crypt`] and [`icv_of`], in the order that its direction wants: a packet is
//! in the nearest cache, and the CPU overlaps the two only where they meet. So nothing is decrypted
//! before it is known to be authentic, and there is nothing to wipe.
//!
//! Not done: working on several packets at once, which would fill the waits in short ones; and
//! interleaving the rounds of AES with the multiplications in one pass over a long one.
//!
//! GCM's limit of 2^36 - 32 octets of text (SP 800-38D section 5.2.1.1) is not checked: no buffer
//! of a packet comes near it.
//!
//! # Constant time
//!
//! Branches, masks and addresses depend on lengths alone, the instructions used on secrets take
//! the same time for all operands, and ICVs are compared as one vector.
//!
//! # Unsafe code
//!
//! All arithmetic is in safe functions that have the target features. What remains are the loads
//! and stores: each takes a slice or an array and touches its octets only, with the mask, where
//! there is one, computed from the length of the slice in the same function.

#![expect(unsafe_code, reason = "loads and stores of vectors go through pointers")]

use std::arch::x86_64::*;

use crate::port::ICV_LEN;

/// Powers of H in a context: as many blocks as the longest tail has.
pub(super) const POWERS: usize = 20;

/// Powers of H beyond those, one for every fourth block: what a group of eight vectors takes.
pub(super) const FAR_POWERS: usize = 3;

/// Round keys of the longest schedule.
pub(super) const ROUND_KEYS: usize = 15;

/// Octets of a block.
const BLOCK: usize = 16;

/// Octets of a vector.
const VECTOR: usize = 64;

/// Blocks in a vector.
const LANES: usize = VECTOR / BLOCK;

/// Vectors in a group.
const GROUP: usize = 4;

/// Octets in a group.
const GROUP_LEN: usize = GROUP * VECTOR;

/// Octets of packet that a tail has room for: one of its blocks is the lengths.
const TAIL_LEN: usize = (POWERS - 1) * BLOCK;

/// The octets of the first lane, in masks of 64 bits.
const FIRST_LANE: __mmask8 = 0b11;

// A tail behind a group has a power for each carried lane, and a group is there to be taken.
const _: () = assert!(POWERS - GROUP * LANES >= LANES && TAIL_LEN >= GROUP_LEN);
const _: () = assert!(POWERS.is_multiple_of(LANES) && POWERS / LANES <= 5);

/// What the kernels need of a key: powers of H times x^-1, reflected, H^20 first; and the round
/// keys, as many as its size asks for.
pub(super) struct Schedule<'a, const KEYS: usize> {
    pub(super) powers: &'a [__m128i; POWERS],
    pub(super) round_keys: &'a [__m128i; KEYS],
}

/// What is different for every packet besides its octets, reflected.
#[derive(Clone, Copy)]
pub(super) struct Start {
    /// J0: nonce, then a counter of one.
    pub(super) j0: __m128i,
    /// The only block of AAD padded with zeroes; or, of longer AAD, the GHASH of all blocks but
    /// the last, plus the last.
    pub(super) aad: __m128i,
    /// Length of the AAD.
    pub(super) aad_bits: u64,
}

/// The body with `$j` = 0, 1 ... `$count` - 1, for counts up to five. Arrays of vectors stay in
/// registers only if every index is a constant early on, which a loop does not guarantee.
macro_rules! each {
    ($count:expr, $j:ident, $body:block) => {
        each!(@ $count, $j, $body, 0, 1, 2, 3, 4)
    };
    (@ $count:expr, $j:ident, $body:block, $($index:literal),*) => {
        $({
            let $j: usize = $index;
            if $j < $count $body
        })*
    };
}

/// Encrypts `packet`, which is 16 octets that stay as they are, text, and room for the ICV.
///
/// # Panics
/// When there is no room for the ICV.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn seal<const KEYS: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
) {
    let (rest, icv) = packet.split_last_chunk_mut().expect("room for header and ICV");
    if rest.len() > TAIL_LEN {
        crypt(schedule, start, rest);
        store_block(icv, icv_of(schedule, start, rest));
        return;
    }
    let lengths = lengths(start.aad_bits, rest.len());
    let mut counters = counters(start.j0);
    let mut place = Place::first(start.aad);
    macro_rules! tail {
        ($vectors:literal) => {{
            let keystream = keystream::<KEYS, $vectors>(schedule.round_keys, &mut counters);
            let sealed = place.crypt(&load_tail(rest), &keystream);
            // What the keystream left behind the end of the packet is not text.
            let sealed = cut(&sealed, rest.len());
            store_tail(rest, &sealed);
            place.hash_tail(schedule.powers, &sealed, rest.len(), lengths)
        }};
    }
    let computed = match tail_vectors(rest.len()) {
        1 => tail!(1),
        2 => tail!(2),
        3 => tail!(3),
        4 => tail!(4),
        _ => tail!(5),
    };
    store_block(icv, computed);
}

/// Verifies `packet`, which is 16 octets that stay as they are, text, and ICV; and decrypts the
/// text if it is authentic. Otherwise nothing is written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn open<const KEYS: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
) -> bool {
    let Some((rest, icv)) = packet.split_last_chunk_mut() else {
        return false;
    };
    let icv = load_block(icv);
    if rest.len() > TAIL_LEN {
        let authentic = is_equal(icv_of(schedule, start, rest), icv);
        if authentic {
            crypt(schedule, start, rest);
        }
        return authentic;
    }
    let lengths = lengths(start.aad_bits, rest.len());
    let mut counters = counters(start.j0);
    let mut place = Place::first(start.aad);
    macro_rules! tail {
        ($vectors:literal) => {{
            let keystream = keystream::<KEYS, $vectors>(schedule.round_keys, &mut counters);
            let sealed = load_tail(rest);
            let opened = place.crypt(&sealed, &keystream);
            let computed = place.hash_tail(schedule.powers, &sealed, rest.len(), lengths);
            let authentic = is_equal(computed, icv);
            if authentic {
                store_tail(rest, &opened);
            }
            authentic
        }};
    }
    match tail_vectors(rest.len()) {
        1 => tail!(1),
        2 => tail!(2),
        3 => tail!(3),
        4 => tail!(4),
        _ => tail!(5),
    }
}

/// The ICV that `packet`, sealed and without its ICV, should have.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn icv_of<const KEYS: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &[u8],
) -> __m128i {
    let lengths = lengths(start.aad_bits, packet.len());
    let strides = strides(schedule.powers);
    let keystream = keystream::<KEYS, 1>(schedule.round_keys, &mut counters(start.j0));
    let mut place = Place::first(start.aad);
    place.mask = _mm512_castsi512_si128(keystream[0]);
    let mut rest = packet;
    while rest.len() > TAIL_LEN {
        let (group, later) = rest.split_first_chunk().expect("a group is no longer");
        place.hash_group(&strides, &load_group(group));
        rest = later;
    }
    macro_rules! tail {
        ($vectors:literal) => {
            place.hash_tail::<$vectors>(schedule.powers, &load_tail(rest), rest.len(), lengths)
        };
    }
    match tail_vectors(rest.len()) {
        1 => tail!(1),
        2 => tail!(2),
        3 => tail!(3),
        4 => tail!(4),
        _ => tail!(5),
    }
}

/// Adds the keystream to all of `packet`, which has no ICV, but its first 16 octets.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn crypt<const KEYS: usize>(schedule: &Schedule<'_, KEYS>, start: Start, packet: &mut [u8]) {
    let mut counters = counters(start.j0);
    let mut place = Place::first(start.aad);
    let mut rest = packet;
    while rest.len() > GROUP_LEN {
        let (group, later) = rest.split_first_chunk_mut().expect("a group is no longer");
        let keystream = keystream::<KEYS, GROUP>(schedule.round_keys, &mut counters);
        store_group(group, &place.crypt(&load_group(group), &keystream));
        place.header = 0;
        rest = later;
    }
    macro_rules! tail {
        ($vectors:literal) => {{
            let keystream = keystream::<KEYS, $vectors>(schedule.round_keys, &mut counters);
            store_tail(rest, &place.crypt(&load_tail(rest), &keystream));
        }};
    }
    match rest.len().div_ceil(VECTOR) {
        1 => tail!(1),
        2 => tail!(2),
        3 => tail!(3),
        _ => tail!(4),
    }
}

/// GHASH of `aad` but for its last multiplication: what [`Start::aad`] wants. For AAD of any
/// length, a block at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn absorb(powers: &[__m128i; POWERS], aad: &[u8]) -> __m128i {
    let mut hash = _mm_setzero_si128();
    for octets in aad.chunks(BLOCK) {
        let mut block = [0; BLOCK];
        block[..octets.len()].copy_from_slice(octets);
        let block = _mm512_castsi512_si128(reflect(_mm512_zextsi128_si512(load_block(&block))));
        hash = _mm_xor_si128(multiply(hash, powers[POWERS - 1]), block);
    }
    hash
}

/// The product of a reflected element and one that has been through [`times_inverse_x`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let mut sum = Sum::zero();
    sum.add_product(_mm512_zextsi128_si512(a), _mm512_zextsi128_si512(b));
    _mm512_castsi512_si128(reduce(sum))
}

/// A reflected element times x^-1: see the head of this file.
pub(super) fn times_inverse_x(element: u128) -> u128 {
    const INVERSE_X: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
    // All ones if the bit that falls out is set: no branch, as H is secret.
    let fallen = 0_u128.wrapping_sub(element >> 127);
    element << 1 ^ fallen & INVERSE_X
}

/// AES of a block of zeroes, octets in the order of memory.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn encrypt_zeroes<const KEYS: usize>(round_keys: &[__m128i; KEYS]) -> __m128i {
    let mut state = round_keys[0];
    for round_key in &round_keys[1..KEYS - 1] {
        state = _mm_aesenc_si128(state, *round_key);
    }
    _mm_aesenclast_si128(state, round_keys[KEYS - 1])
}

/// A block from an integer: what [`reflect`] makes of the octets of the integer, most significant
/// first.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn block(integer: u128) -> __m128i {
    #[expect(clippy::cast_possible_truncation, reason = "one half, then the other")]
    let (high, low) = ((integer >> 64) as u64, integer as u64);
    _mm_set_epi64x(high.cast_signed(), low.cast_signed())
}

/// The inverse of [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn integer(block: __m128i) -> u128 {
    let high = _mm_extract_epi64::<1>(block).cast_unsigned();
    let low = _mm_cvtsi128_si64(block).cast_unsigned();
    u128::from(high) << 64 | u128::from(low)
}

/// The last block hashed: lengths in bits of the AAD and of the text, `len` being of header and
/// text (SP 800-38D section 7.1).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn lengths(aad_bits: u64, len: usize) -> __m128i {
    let text_bits = (len - BLOCK) as u128 * 8;
    block(u128::from(aad_bits) << 64 | text_bits)
}

/// How many vectors a tail of `len` octets of packet has, the block of the lengths included.
fn tail_vectors(len: usize) -> usize {
    (len.div_ceil(BLOCK) + 1).div_ceil(LANES)
}

/// H^16, H^12, H^8 and H^4, each in all lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn strides(powers: &[__m128i; POWERS]) -> [__m512i; GROUP] {
    let mut strides = [_mm512_setzero_si512(); GROUP];
    each!(GROUP, j, {
        strides[j] = _mm512_broadcast_i32x4(powers[POWERS - LANES * (GROUP - j)]);
    });
    strides
}

/// The first four counters, reflected, so that they can be counted in the lowest 32 bits of each
/// lane: GCM's inc32, without a carry into the nonce.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn counters(j0: __m128i) -> __m512i {
    let ahead = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
    _mm512_add_epi32(_mm512_broadcast_i32x4(j0), ahead)
}

/// The next `VECTORS` vectors of keystream; `counters` moves on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn keystream<const KEYS: usize, const VECTORS: usize>(
    round_keys: &[__m128i; KEYS],
    counters: &mut __m512i,
) -> [__m512i; VECTORS] {
    let mut states = [_mm512_setzero_si512(); VECTORS];
    let lanes = _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
    let round_key = _mm512_broadcast_i32x4(round_keys[0]);
    each!(VECTORS, j, {
        states[j] = _mm512_xor_si512(reflect(*counters), round_key);
        *counters = _mm512_add_epi32(*counters, lanes);
    });
    for round_key in &round_keys[1..KEYS - 1] {
        let round_key = _mm512_broadcast_i32x4(*round_key);
        each!(VECTORS, j, {
            states[j] = _mm512_aesenc_epi128(states[j], round_key);
        });
    }
    let round_key = _mm512_broadcast_i32x4(round_keys[KEYS - 1]);
    each!(VECTORS, j, {
        states[j] = _mm512_aesenclast_epi128(states[j], round_key);
    });
    states
}

/// Where in a packet the work is, and what it has brought so far.
struct Place {
    /// [`FIRST_LANE`] while the next vector is the packet's first, then nothing.
    header: __mmask8,
    /// See [`Start::aad`].
    aad: __m128i,
    /// The encrypted J0.
    mask: __m128i,
    /// The hash so far: what is to be added to the next vector, lane by lane.
    carried: __m512i,
}

impl Place {
    /// At the first octet of a packet.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn first(aad: __m128i) -> Place {
        Place {
            header: FIRST_LANE,
            aad,
            mask: _mm_setzero_si128(),
            carried: _mm512_setzero_si512(),
        }
    }

    /// Adds the keystream, but not to the header, where it is the mask of the ICV.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn crypt<const VECTORS: usize>(
        &mut self,
        octets: &[__m512i; VECTORS],
        keystream: &[__m512i; VECTORS],
    ) -> [__m512i; VECTORS] {
        let mut changed = [_mm512_setzero_si512(); VECTORS];
        each!(VECTORS, j, {
            changed[j] = _mm512_xor_si512(octets[j], keystream[j]);
        });
        changed[0] = _mm512_mask_mov_epi64(changed[0], self.header, octets[0]);
        let lane = _mm512_castsi512_si128(keystream[0]);
        self.mask = _mm_mask_mov_epi64(self.mask, self.header, lane);
        changed
    }

    /// Takes a group of sealed octets into the hash.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn hash_group(&mut self, strides: &[__m512i; GROUP], sealed: &[__m512i; GROUP]) {
        let blocks = self.blocks(sealed);
        let mut sum = Sum::zero();
        each!(GROUP, j, {
            sum.add_product(blocks[j], strides[j]);
        });
        self.carried = reduce(sum);
    }

    /// Takes the last `len` sealed octets and the lengths into the hash; returns the ICV.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn hash_tail<const VECTORS: usize>(
        &mut self,
        powers: &[__m128i; POWERS],
        sealed: &[__m512i; VECTORS],
        len: usize,
        lengths: __m128i,
    ) -> __m128i {
        let text = len.div_ceil(BLOCK);
        let mut blocks = self.blocks(sealed);
        let lane = 0b1111 << (text % LANES * LANES);
        blocks[VECTORS - 1] = _mm512_mask_broadcast_i32x4(blocks[VECTORS - 1], lane, lengths);
        let powers = &powers[POWERS - (text + 1)..];
        let mut sum = Sum::zero();
        each!(VECTORS, j, {
            sum.add_product(blocks[j], load_powers(powers, j));
        });
        let hash = _mm512_zextsi128_si512(add_lanes(reduce(sum)));
        _mm_xor_si128(_mm512_castsi512_si128(reflect(hash)), self.mask)
    }

    /// Sealed octets as blocks to be hashed: reflected, the header replaced by the AAD, and with
    /// the carried lanes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn blocks<const VECTORS: usize>(&mut self, sealed: &[__m512i; VECTORS]) -> [__m512i; VECTORS] {
        let mut blocks = [_mm512_setzero_si512(); VECTORS];
        each!(VECTORS, j, {
            blocks[j] = reflect(sealed[j]);
        });
        let aad = _mm512_zextsi128_si512(self.aad);
        blocks[0] = _mm512_mask_mov_epi64(blocks[0], self.header, aad);
        blocks[0] = _mm512_xor_si512(blocks[0], self.carried);
        self.header = 0;
        blocks
    }
}

/// Products that are not reduced yet, lane by lane: the quarters q1 q0, q2 q1 and q3 q2.
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn zero() -> Sum {
        let zero = _mm512_setzero_si512();
        Sum { low: zero, middle: zero, high: zero }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn add_product(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        let inner = _mm512_clmulepi64_epi128::<0x01>(a, b);
        self.middle = xor3(self.middle, inner, _mm512_clmulepi64_epi128::<0x10>(a, b));
    }
}

/// Folds the lower half into the upper, in each lane: see the head of this file.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn reduce(sum: Sum) -> __m512i {
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
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b1001_0110>(a, b, c)
}

/// The octets of each lane in reverse order.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn reflect(lanes: __m512i) -> __m512i {
    let order = block(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
    _mm512_shuffle_epi8(lanes, _mm512_broadcast_i32x4(order))
}

/// The sum of the four lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn add_lanes(lanes: __m512i) -> __m128i {
    let upper = _mm512_extracti64x4_epi64::<1>(lanes);
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(lanes), upper);
    _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}

/// Whether all octets are equal, in a time that does not tell which.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn is_equal(a: __m128i, b: __m128i) -> bool {
    let difference = _mm_xor_si128(a, b);
    _mm_testz_si128(difference, difference) == 1
}

/// The first `len` octets of vectors, zeroes behind.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn cut<const VECTORS: usize>(vectors: &[__m512i; VECTORS], len: usize) -> [__m512i; VECTORS] {
    let mut cut = *vectors;
    each!(VECTORS, j, {
        cut[j] = _mm512_maskz_mov_epi8(first_octets(len.saturating_sub(VECTOR * j)), vectors[j]);
    });
    cut
}

/// A mask of the first `count` octets of a vector, of all for larger counts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn first_octets(count: usize) -> __mmask64 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    _bzhi_u64(u64::MAX, count.min(VECTOR) as u32)
}

/// The vectors of a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn load_group(group: &[u8; GROUP_LEN]) -> [__m512i; GROUP] {
    let mut vectors = [_mm512_setzero_si512(); GROUP];
    each!(GROUP, j, {
        // SAFETY: `j` is less than GROUP, so that the vector ends within the array. Why not safe:
        // there is no safe unaligned load.
        vectors[j] = unsafe { _mm512_loadu_si512(group.as_ptr().add(VECTOR * j).cast()) };
    });
    vectors
}

/// Overwrites a group.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn store_group(group: &mut [u8; GROUP_LEN], vectors: &[__m512i; GROUP]) {
    each!(GROUP, j, {
        // SAFETY: `j` is less than GROUP, so that the vector ends within the array. Why not safe:
        // there is no safe unaligned store.
        unsafe { _mm512_storeu_si512(group.as_mut_ptr().add(VECTOR * j).cast(), vectors[j]) };
    });
}

/// The octets of `tail`, and zeroes behind.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn load_tail<const VECTORS: usize>(tail: &[u8]) -> [__m512i; VECTORS] {
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    each!(VECTORS, j, {
        let octets = tail.get(VECTOR * j..).unwrap_or_default();
        // SAFETY: the mask has no bit beyond the length of the slice, and what is masked out is
        // not read, nor does it fault. Why not safe: there is no safe masked load.
        vectors[j] =
            unsafe { _mm512_maskz_loadu_epi8(first_octets(octets.len()), octets.as_ptr().cast()) };
    });
    vectors
}

/// Overwrites `tail` with the first octets of the vectors.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn store_tail<const VECTORS: usize>(tail: &mut [u8], vectors: &[__m512i; VECTORS]) {
    each!(VECTORS, j, {
        let octets = tail.get_mut(VECTOR * j..).unwrap_or_default();
        let mask = first_octets(octets.len());
        // SAFETY: the mask has no bit beyond the length of the slice, and what is masked out is
        // not written, nor does it fault. Why not safe: there is no safe masked store.
        unsafe { _mm512_mask_storeu_epi8(octets.as_mut_ptr().cast(), mask, vectors[j]) };
    });
}

/// The powers for vector `j` of a tail that starts at `powers[0]`; zeroes behind H^1.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn load_powers(powers: &[__m128i], j: usize) -> __m512i {
    let powers = powers.get(LANES * j..).unwrap_or_default();
    // Two bits of the mask for a power.
    let mask = 0xff_u8 >> (2 * (LANES - powers.len().min(LANES)));
    // SAFETY: the mask has no bit beyond the length of the slice, and what is masked out is not
    // read, nor does it fault. Why not safe: there is no safe masked load.
    unsafe { _mm512_maskz_loadu_epi64(mask, powers.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn load_block(block: &[u8; BLOCK]) -> __m128i {
    // SAFETY: the array has 16 octets. Why not safe: there is no safe unaligned load.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn store_block(octets: &mut [u8; ICV_LEN], block: __m128i) {
    // SAFETY: the array has 16 octets. Why not safe: there is no safe unaligned store.
    unsafe { _mm_storeu_si128(octets.as_mut_ptr().cast(), block) };
}
