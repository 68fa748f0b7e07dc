//! AES-GCM over one ESP packet, in vectors of one or two blocks.
//!
//! The layout is that of [`vaes::kernel`](crate::vaes), which also explains the mathematics: the
//! 16 octets in front of the text are a block like those of the text. Its counter is that of J0, so
//! its keystream is the mask of the ICV; it is not encrypted, which is why that lane of the
//! keystream is cleared; and in its place the AAD is hashed, which is why the hash starts with the
//! sum of the two: added to the header, it leaves the AAD.
//!
//! # Groups, one pass
//!
//! A group is eight vectors: as many as the units for AES need in flight, and as there are
//! registers for. While the rounds of AES make the keystream of the next group, the products of
//! GHASH of the last one are taken between them, one vector a round: they go to other units of
//! the CPU. What is hashed is ciphertext: sealed, the group that was just stored; opened, the same
//! octets before they were overwritten.
//!
//! The blocks of a group of n are multiplied by H^n to H^1 and the sum is reduced once; it is added
//! to the first block of what follows. The last group, of one to eight vectors, ends with the
//! block of the lengths, so that its blocks are multiplied by H^(n+1) to H^2.
//!
//! # Opening
//!
//! In one pass the text is decrypted before its ICV is known to be right. If it is not, the same
//! keystream is added once more, which leaves the octets that came. Nobody sees what was there in
//! between, as the packet is the provider's until it answers.
//!
//! # The end of the text
//!
//! There are no masked loads here. Behind the text stand the 16 octets of ICV, so that whole blocks
//! can be read from any octet of the text, and written back: octets behind the text have a
//! keystream of zeroes, and stay as they are. Of a vector of two blocks the second is touched only
//! if text is in it. So nothing outside the packet is read or written.
//!
//! # Constant time
//!
//! Branches and addresses depend on lengths alone, and the instructions used on secrets take the
//! same time for all operands.

use std::arch::x86_64::__m128i;

use crate::port::ICV_LEN;
use crate::x86::block::BLOCK;
use crate::x86::block::block;
use crate::x86::block::is_equal;
use crate::x86::block::load_block;
use crate::x86::block::store_block;
use crate::x86::block::xor;
use crate::x86::start::Start;
use crate::x86::vector::Vectors;

/// Vectors in a group.
const GROUP: usize = 8;

/// Vectors of a short packet, whose keystream is that much and no more.
const SHORT: usize = 4;

/// Powers of H in a context.
pub(crate) const POWERS: usize = 20;

// Two blocks a vector, and the block of the lengths.
const _: () = assert!(POWERS > 2 * GROUP);

/// What the kernels need of a key: powers of H times x^-1, reflected, H^20 first; and the round
/// keys, as many as its size asks for.
pub(crate) struct Schedule<'a, const KEYS: usize> {
    pub(crate) powers: &'a [__m128i; POWERS],
    pub(crate) round_keys: &'a [__m128i; KEYS],
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

/// Encrypts `packet`, which is 16 octets that stay as they are, text, and room for the ICV.
///
/// # Panics
/// When there is no room for the ICV.
#[inline(always)]
pub(crate) fn seal<V: Vectors, const KEYS: usize>(
    v: V,
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
) {
    let icv = pass::<V, KEYS, true>(v, schedule, start, packet);
    store_block(packet.last_chunk_mut().expect("room for the ICV"), icv);
}

/// Verifies `packet`, which is 16 octets that stay as they are, text, and ICV; and decrypts the
/// text if it is authentic. Otherwise it is left as it was.
///
/// # Panics
/// When it is shorter than header and ICV.
#[inline(always)]
pub(crate) fn open<V: Vectors, const KEYS: usize>(
    v: V,
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
) -> bool {
    let arrived = load_block(packet.last_chunk().expect("an ICV"));
    // A loop, so that the pass is compiled once.
    let mut is_restored = false;
    loop {
        let computed = pass::<V, KEYS, false>(v, schedule, start, packet);
        if is_restored {
            return false;
        }
        if is_equal(computed, arrived) {
            return true;
        }
        is_restored = true;
    }
}

/// Adds the keystream to the text of `packet`, and returns the ICV over the ciphertext: over what
/// was written if `SEALS`, else over what was there.
#[inline(always)]
fn pass<V: Vectors, const KEYS: usize, const SEALS: bool>(
    v: V,
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
) -> __m128i {
    let header = load_block(packet.first_chunk().expect("a header"));
    let text_len = packet.len() - BLOCK - ICV_LEN;
    let lengths = v.one(start.lengths(text_len));
    let mut hash = xor(start.aad, v.first(v.reflect(v.one(header))));
    // Reflected, so that they can be counted in the lowest 32 bits of each lane: GCM's inc32,
    // without a carry into the nonce.
    let mut counters = v.add_32(v.all(start.j0), v.lane_numbers());

    if BLOCK + text_len <= SHORT * V::WIDTH {
        let mut keystream = keystream::<V, KEYS, SHORT>(v, schedule.round_keys, &mut counters);
        let mask = v.first(keystream[0]);
        keystream[0] = v.xor(keystream[0], v.one(mask));
        hash = tail::<V, SEALS>(v, schedule.powers, &keystream, packet, hash, lengths);
        return xor(hash, mask);
    }
    let mut keystream = keystream::<V, KEYS, GROUP>(v, schedule.round_keys, &mut counters);
    let mask = v.first(keystream[0]);
    keystream[0] = v.xor(keystream[0], v.one(mask));
    let mut rest = packet;
    while rest.len() > GROUP * V::WIDTH + ICV_LEN {
        let (group, later) = rest.split_at_mut(GROUP * V::WIDTH);
        let mut sealed = [v.one(block(0)); GROUP];
        each!(GROUP, j, {
            let octets = &mut group[V::WIDTH * j..][..V::WIDTH];
            let before = v.load(octets);
            let after = v.xor(before, keystream[j]);
            v.store(octets, after);
            sealed[j] = if SEALS { after } else { before };
        });
        (keystream, hash) = stitched(v, schedule, &mut counters, &sealed, hash);
        rest = later;
    }
    hash = tail::<V, SEALS>(v, schedule.powers, &keystream, rest, hash, lengths);
    xor(hash, mask)
}

/// The last group, `rest` less the ICV: adds the keystream, and returns the hash of all, its octets
/// in the order of memory.
#[inline(always)]
fn tail<V: Vectors, const SEALS: bool>(
    v: V,
    powers: &[__m128i; POWERS],
    keystream: &[V::Vector],
    rest: &mut [u8],
    hash: __m128i,
    lengths: V::Vector,
) -> __m128i {
    let len = rest.len() - ICV_LEN;
    let (whole, part) = (len / V::WIDTH, len % V::WIDTH);
    let mut powers_of_text = &powers[POWERS - 1 - len.div_ceil(BLOCK)..];
    let mut carried = v.one(hash);
    let mut sum = Sum::new(v, lengths, v.one(powers[POWERS - 1]));
    let (octets, last) = rest.split_at_mut(whole * V::WIDTH);
    for (octets, keystream) in octets.chunks_exact_mut(V::WIDTH).zip(keystream) {
        let before = v.load(octets);
        let after = v.xor(before, *keystream);
        v.store(octets, after);
        let hashed = v.xor(v.reflect(if SEALS { after } else { before }), carried);
        carried = v.one(block(0));
        sum.add_product(v, hashed, v.load_blocks(powers_of_text));
        powers_of_text = &powers_of_text[V::LANES..];
    }
    if part > 0 {
        let mask = v.first_octets(part);
        let before = v.load_part(last, part);
        let after = v.xor(before, v.and(keystream[whole], mask));
        v.store_part(last, part, after);
        let hashed = v.reflect(v.and(if SEALS { after } else { before }, mask));
        sum.add_product(v, v.xor(hashed, carried), v.load_blocks(powers_of_text));
    }
    v.first(v.reflect(v.one(v.sum_of_lanes(sum.reduce(v)))))
}

/// The next `COUNT` vectors of keystream; `counters` moves on.
#[inline(always)]
fn keystream<V: Vectors, const KEYS: usize, const COUNT: usize>(
    v: V,
    round_keys: &[__m128i; KEYS],
    counters: &mut V::Vector,
) -> [V::Vector; COUNT] {
    let mut states = first_round(v, round_keys[0], counters);
    for round_key in &round_keys[1..KEYS - 1] {
        let round_key = v.all(*round_key);
        each!(COUNT, j, { states[j] = v.aesenc(states[j], round_key) });
    }
    let round_key = v.all(round_keys[KEYS - 1]);
    each!(COUNT, j, { states[j] = v.aesenclast(states[j], round_key) });
    states
}

/// The keystream of the next group, and the hash so far with the group `sealed`.
#[inline(always)]
fn stitched<V: Vectors, const KEYS: usize>(
    v: V,
    schedule: &Schedule<'_, KEYS>,
    counters: &mut V::Vector,
    sealed: &[V::Vector; GROUP],
    hash: __m128i,
) -> ([V::Vector; GROUP], __m128i) {
    const { assert!(KEYS > GROUP + 2) };
    let (round_keys, powers) = (schedule.round_keys, &schedule.powers[POWERS - GROUP * V::LANES..]);
    let mut states: [V::Vector; GROUP] = first_round(v, round_keys[0], counters);
    let mut sum = Sum::zero(v);
    each!(GROUP, round, {
        let round_key = v.all(round_keys[1 + round]);
        each!(GROUP, j, { states[j] = v.aesenc(states[j], round_key) });
        let mut hashed = v.reflect(sealed[round]);
        if round == 0 {
            hashed = v.xor(hashed, v.one(hash));
        }
        sum.add_product(v, hashed, v.load_blocks(&powers[V::LANES * round..]));
    });
    for round_key in &round_keys[1 + GROUP..KEYS - 1] {
        let round_key = v.all(*round_key);
        each!(GROUP, j, { states[j] = v.aesenc(states[j], round_key) });
    }
    let round_key = v.all(round_keys[KEYS - 1]);
    each!(GROUP, j, { states[j] = v.aesenclast(states[j], round_key) });
    (states, v.sum_of_lanes(sum.reduce(v)))
}

/// The next counters, with the first round key; `counters` moves on.
#[inline(always)]
fn first_round<V: Vectors, const COUNT: usize>(
    v: V,
    round_key: __m128i,
    counters: &mut V::Vector,
) -> [V::Vector; COUNT] {
    let mut states = [*counters; COUNT];
    let (lanes, round_key) = (v.all(block(V::LANES as u128)), v.all(round_key));
    each!(COUNT, j, {
        states[j] = v.xor(v.reflect(*counters), round_key);
        *counters = v.add_32(*counters, lanes);
    });
    states
}

/// GHASH of `aad` but for its last multiplication: what [`Start::aad`] wants. For AAD of any
/// length, a block at a time.
#[inline(always)]
pub(crate) fn absorb<V: Vectors>(v: V, powers: &[__m128i; POWERS], aad: &[u8]) -> __m128i {
    let mut hash = block(0);
    for octets in aad.chunks(BLOCK) {
        let mut padded = [0; BLOCK];
        padded[..octets.len()].copy_from_slice(octets);
        let product = Sum::new(v, v.one(hash), v.one(powers[POWERS - 1])).reduce(v);
        hash = v.first(v.xor(product, v.reflect(v.one(load_block(&padded)))));
    }
    hash
}

/// Products that are not reduced yet, lane by lane: the quarters q1 q0, q2 q1 and q3 q2.
struct Sum<V: Vectors> {
    low: V::Vector,
    middle: V::Vector,
    high: V::Vector,
}

impl<V: Vectors> Sum<V> {
    #[inline(always)]
    fn zero(v: V) -> Sum<V> {
        let zero = v.one(block(0));
        Sum { low: zero, middle: zero, high: zero }
    }

    /// One product.
    #[inline(always)]
    fn new(v: V, a: V::Vector, b: V::Vector) -> Sum<V> {
        let mut sum = Sum::zero(v);
        sum.add_product(v, a, b);
        sum
    }

    #[inline(always)]
    fn add_product(&mut self, v: V, a: V::Vector, b: V::Vector) {
        self.low = v.xor(self.low, v.clmul::<0x00>(a, b));
        self.high = v.xor(self.high, v.clmul::<0x11>(a, b));
        let inner = v.xor(v.clmul::<0x01>(a, b), v.clmul::<0x10>(a, b));
        self.middle = v.xor(self.middle, inner);
    }

    /// Folds the lower half into the upper, in each lane.
    #[inline(always)]
    fn reduce(self, v: V) -> V::Vector {
        let fold = v.all(block(0xc200_0000_0000_0000));
        let folded = |quarters| v.xor(v.swap_halves(quarters), v.clmul::<0x00>(quarters, fold));
        let middle = v.xor(self.middle, folded(self.low));
        v.xor(self.high, folded(middle))
    }
}
