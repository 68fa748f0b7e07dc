//! AES-GCM over one ESP packet in vectors of 64 octets: what all the kernels of this provider do,
//! and the one for packets that run alone.
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
//! That one is always multiplied with H^1.
//!
//! The counters of a packet are the same as those of any other. They are a table, which is added
//! to the nonce and to the first round key in one instruction a vector.
//!
//! # GHASH: octets, bits and a factor of x
//!
//! GHASH works on polynomials over GF(2) modulo P = x^128 + x^7 + x^2 + x + 1, and GCM takes the
//! first bit of a block, the highest of its first octet, for the coefficient of x^0 (SP 800-38D
//! section 6.3). A block with its octets reversed (`reflect`) is therefore an integer whose bit
//! `127 - i` is the coefficient of x^i: everything is mirrored. A carry-less product does not mind
//! that: of A = sum a_i 2^(127-i) and B likewise it is the sum of (a·b)_k 2^(254-k), which is the
//! mirrored product in 256 bits, shifted right by one.
//!
//! The shift is made once, on the key: what is kept of H^k is H^k·x^-1, in the mirror one bit to
//! the left. A bit that falls out there is x^-1 = x^127 + x^6 + x + 1 (P divided by x), mirrored
//! c2000000000000000000000000000001. With such a B, bit `255 - k` of the product is the
//! coefficient of x^k of a·b: no shift anywhere else. See `times_inverse_x`.
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
//! so that it joins the first fold. See `reduce`.
//!
//! # Powers of H, and when to reduce
//!
//! Products of many blocks are added before they are reduced, as reduction is linear. While the
//! packet is long, a group of g vectors is taken at a time, eight at most, and *all four lanes* of
//! vector `j` of it are multiplied by H^(4g-4j): each lane carries a sum of its own, and the
//! carried lanes are added to the first vector of what follows. For block `i` of lane `l` of a
//! group that is followed by r more blocks that gives, as long as the rest is multiplied with the
//! right power for its place, H^(r-l) in the first vector: H^(4g-4j)·H^(r-l) = H^(4g+r-i) with
//! i = 4j + l, which is the power the layout above asks for.
//!
//! The rest, the *tail*, of at most 19 blocks, is multiplied by H^r to H^2, and the lengths by
//! H^1, so that `r` counts them. Its powers are read from a table of descending powers at
//! `20 - r`. Carried lanes need r >= 4, or a lane of theirs would have no power: a group is taken
//! only if three blocks are behind it, however short the last. Lanes behind the lengths hold
//! zeroes, and meet whatever stands behind H^1 in the context.
//!
//! # Order of the work
//!
//! The CPU this was measured on, an Intel of the fifth generation of scalable Xeons, does one
//! vector of AES rounds in a cycle on one port, one of multiplications on another, and everything
//! else on whichever is free. So ten rounds of AES for 64 octets are a floor of ten cycles, under
//! which four multiplications for the same octets, a reflection and what adds them up just fit.
//! Karatsuba's three would want shuffles and additions from the same ports, and gain nothing.
//! (AMD's Zen 4 and 5 do two rounds in a cycle and half a multiplication. There the
//! multiplications are the floor.) What is left to lose is waiting: a round takes four cycles, a
//! reduction some twenty, and a packet that waits for its last round, then for its hash, uses a
//! fraction of either port.
//!
//! So the packet is read once, and the rounds of a group stand between the multiplications of
//! another that does not depend on them: when sealing those of the group before, which is sealed
//! already, when opening those of the same, whose sealed octets are there from the start. Compilers
//! take such an interleaving apart, since it needs more registers; `in_order!` keeps it.
//!
//! The tail has no group behind it to hide its hash. When sealing, it waits in memory (`Tail`),
//! and is hashed between the rounds of the first group of the next packet that runs alone, of
//! whatever key: so a call returns the ICV of the packet before. Only the last one of a batch is
//! waited for. When opening, a tail is hashed between its own rounds. The lengths are put into the
//! lane behind the last block, if the vector has one.
//!
//! # How long a group is
//!
//! A packet is cut into groups of one size and a tail, and which size is best depends on its
//! length (`best_group`). Ten rounds of a vector are ten cycles, but those of a tail of one to
//! three vectors are no less than forty, which is what its rounds wait for each other; so a tail
//! should be long. And when sealing, the last group is hashed beside the tail: a group of eight
//! takes longer to hash than a short tail to encrypt. For 1420 octets of text three groups of six
//! and a tail of five vectors are the best there is, for 512 one of four and a tail of five. The
//! sizes are looked up in tables that are computed when this is compiled.
//!
//! Short packets are better off four at a time: see `short`. Here they come if there are not four
//! of a kind. And many longer packets of one SA and one length need less than others: see `stream`.
//!
//! # What a forged packet costs
//!
//! A packet of one tail is in registers until its ICV is known to be right, and stored then. Of a
//! longer one the groups are decrypted in place while they are hashed. If the ICV is wrong, the
//! same keystream is added once more, which makes the packet what it was: `restore`. Until then
//! nobody but this function can see the octets, as it holds the only reference to them. A forged
//! long packet thus takes up to twice the time of an authentic one, about what it took when the
//! packet was read twice in any case.
//!
//! GCM's limit of 2^36 - 32 octets of text (SP 800-38D section 5.2.1.1) is not checked: no buffer
//! of a packet comes near it.
//!
//! # Constant time
//!
//! Branches, masks and addresses depend on lengths, on numbers of vectors and on the verdict, which
//! is public. The instructions used on secrets take the same time for all operands, and ICVs are
//! compared as one vector.

#![expect(unsafe_code, reason = "inline assembly without an instruction, to keep an order")]

use std::arch::x86_64::*;

use crate::port::ICV_LEN;
use crate::vaes::ahead::Ahead;
use crate::vaes::math::FAR_POWERS;
use crate::vaes::math::LANES;
use crate::vaes::math::POWERS;
use crate::vaes::math::READABLE;
use crate::vaes::math::Schedule;
use crate::vaes::math::Start;
use crate::vaes::math::Sum;
use crate::vaes::math::TAIL_LEN;
use crate::vaes::math::VECTOR;
use crate::vaes::math::add_lanes;
use crate::vaes::math::behind_first_lane;
use crate::vaes::math::each;
use crate::vaes::math::in_order;
use crate::vaes::math::keep_in_order;
use crate::vaes::math::lengths;
use crate::vaes::math::load_group;
use crate::vaes::math::load_lanes;
use crate::vaes::math::load_tail;
use crate::vaes::math::masked_xor;
use crate::vaes::math::masked_xor_not;
use crate::vaes::math::ones;
use crate::vaes::math::reduce;
use crate::vaes::math::reflect;
use crate::vaes::math::rounds;
use crate::vaes::math::states;
use crate::vaes::math::store_group;
use crate::vaes::math::store_tail;
use crate::x86::block::BLOCK;
use crate::x86::block::is_equal;
use crate::x86::block::load_block;
use crate::x86::schedule::multiply;

/// Vectors in a group at most.
const GROUP_MAX: usize = 8;

/// Sizes of groups there are kernels for.
const GROUPS: [usize; 4] = [4, 5, 6, 8];

/// Vectors of a tail at most, with the lengths.
const TAIL_VECTORS: usize = POWERS / LANES;

/// Blocks behind a group at least: with the lengths there is a power for each carried lane.
const BEHIND: usize = LANES - 1;

/// Blocks of a tail at most: the last power is for the lengths.
const TAIL: usize = POWERS - 1;

// Whatever the length, there is a number of the smallest groups that leaves a tail.
const _: () = assert!(BEHIND + LANES * GROUPS[0] <= TAIL + 1);
const _: () = assert!(TAIL_VECTORS + FAR_POWERS == GROUP_MAX && TAIL * BLOCK == TAIL_LEN);

/// Vectors in each group of a packet of so many blocks: see the head.
type Plans = [u8; 601];

static TO_SEAL: Plans = plans(true);
static TO_OPEN: Plans = plans(false);

const fn plans(sealing: bool) -> Plans {
    let mut plans = [0; 601];
    let mut blocks = 0;
    while blocks < plans.len() {
        plans[blocks] = best_group(blocks, sealing);
        blocks += 1;
    }
    plans
}

/// How many groups of `group` vectors a packet of `blocks` blocks has.
const fn count_groups(blocks: usize, group: usize) -> usize {
    if blocks <= TAIL { 0 } else { (blocks - BEHIND) / (LANES * group) }
}

/// The size of groups that costs least; 0 for a packet that is a tail.
#[expect(clippy::cast_possible_truncation, reason = "at most eight")]
const fn best_group(blocks: usize, sealing: bool) -> u8 {
    let (mut best, mut least, mut index) = (0, usize::MAX, 0);
    while index < GROUPS.len() {
        let group = GROUPS[index];
        let count = count_groups(blocks, group);
        let tail = blocks - LANES * group * count;
        if count > 0 && tail <= TAIL {
            // In cycles: ten rounds of each vector, but of few not less than they wait for each
            // other, nor than hashing a group takes beside the tail.
            let rounds = 10 * tail.div_ceil(LANES);
            let hashing = if sealing { 6 * group + 4 } else { 0 };
            let tail = max(max(rounds, 40), hashing);
            let cost = (10 * group + START_OF_GROUP) * count + tail;
            if cost < least {
                (best, least) = (group, cost);
            }
        }
        index += 1;
    }
    best as u8
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Cycles that are lost between two groups.
const START_OF_GROUP: usize = 5;

/// Vectors in each group of a packet of so many octets; 0 for a packet that is a tail.
#[inline(always)]
fn group_of(octets: usize, plans: &Plans) -> usize {
    // The smallest groups always leave a tail.
    plans.get(octets.div_ceil(BLOCK)).map_or(GROUPS[0], |&group| usize::from(group))
}

/// The groups of a packet, and its tail.
#[inline(always)]
fn cut<const GROUP: usize>(packet: &mut [u8]) -> (&mut [[[u8; VECTOR]; GROUP]], &mut [u8]) {
    let count = count_groups(packet.len().div_ceil(BLOCK), GROUP);
    let (groups, tail) = packet.split_at_mut(VECTOR * GROUP * count);
    (groups.as_chunks_mut().0.as_chunks_mut().0, tail)
}

/// Keystream for the next `$vectors` vectors of a place, with `$between` after each round but the
/// last.
macro_rules! keystream {
    ($keys:expr, $vectors:expr, $schedule:expr, $place:expr, $round:ident, $between:block) => {{
        let round_keys = $schedule.round_keys;
        let mut states = states::<$keys, { $vectors }>(round_keys, $place.nonce, $place.vector);
        rounds!($keys, $vectors, states, round_keys, 1, $round, {
            $between
            keep_in_order!($vectors, states);
        });
        states
    }};
}

/// A part of what takes the vectors `$sealed`, a group of `$group`, into the hash: that which is
/// done after round `$round`.
macro_rules! hash_group {
    ($round:ident, $schedule:expr, $place:expr, $group:expr, $sealed:expr, $sum:ident) => {
        if $round % 2 == 0 && $round - 2 < $group {
            let (even, odd) = ($round - 2, $round - 1);
            let mut block = reflect($sealed[even]);
            if even == 0 {
                block = _mm512_xor_si512(block, $place.carried);
            }
            if odd < $group {
                $sum.add_products(
                    [block, reflect($sealed[odd])],
                    [stride($schedule, $group - even), stride($schedule, $group - odd)],
                );
            } else {
                $sum.add_product(block, stride($schedule, $group - even));
            }
            in_order!($sum.low, $sum.middle, $sum.high);
        }
        if $round == GROUP_MAX {
            $place.carried = reduce($sum);
        }
    };
}

/// The same for a tail: `$hash` is what comes of it.
macro_rules! hash_tail {
    ($round:ident, $tail:expr, $sum:ident, $hash:ident) => {
        if $round % 2 == 0 && $round <= TAIL_VECTORS + 1 && $tail.count > $round - 2 {
            let (even, odd) = ($round - 2, $round - 1);
            if odd < TAIL_VECTORS {
                $sum.add_products(
                    [$tail.blocks[even], $tail.blocks[odd]],
                    [$tail.powers_of(even), $tail.powers_of(odd)],
                );
            } else {
                $sum.add_product($tail.blocks[even], $tail.powers_of(even));
            }
            in_order!($sum.low, $sum.middle, $sum.high);
        }
        if $round == GROUP_MAX {
            $hash = add_lanes(reduce($sum));
        }
    };
}

/// [`keystream`] while the group `$sealed` is hashed.
macro_rules! keystream_and_group {
    ($keys:expr, $vectors:expr, $schedule:expr, $place:expr, $group:expr, $sealed:expr) => {{
        let (schedule, sealed) = ($schedule.again(), $sealed);
        let mut sum = Sum::zero();
        keystream!($keys, $vectors, schedule, $place, round, {
            hash_group!(round, schedule, $place, $group, sealed, sum);
        })
    }};
}

/// [`keystream`] while `$tail`, of this packet or another, is hashed.
macro_rules! keystream_and_tail {
    ($keys:expr, $vectors:expr, $schedule:expr, $place:expr, $tail:expr, $hash:ident) => {{
        let schedule = $schedule.again();
        let mut sum = Sum::zero();
        keystream!($keys, $vectors, schedule, $place, round, {
            hash_tail!(round, $tail, sum, $hash);
        })
    }};
}

/// What the macro `$of` makes of the number of vectors that a tail has.
macro_rules! by_vectors {
    ($tail:expr, $of:ident) => {
        match $tail.len().div_ceil(VECTOR) {
            1 => $of!(1),
            2 => $of!(2),
            3 => $of!(3),
            4 => $of!(4),
            _ => $of!(5),
        }
    };
}

/// Encrypts `packet`, which is 16 octets that stay as they are, text, and room for the ICV, which
/// is not written yet: it is what the next call returns, or [`Tail::icv`], for the packet that
/// `tail` is of. A call returns that of the packet before, if there is one.
///
/// # Panics
/// When there is no room for header and ICV.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn seal<'a, const KEYS: usize>(
    schedule: &Schedule<'a, KEYS>,
    start: Start,
    packet: &mut [u8],
    tail: &mut Tail<'a>,
    ahead: Ahead,
) -> __m128i {
    let (packet, _) = packet.split_last_chunk_mut::<ICV_LEN>().expect("room for header and ICV");
    match group_of(packet.len(), &TO_SEAL) {
        8 => seal_groups::<KEYS, 8>(schedule, start, packet, tail, ahead),
        6 => seal_groups::<KEYS, 6>(schedule, start, packet, tail, ahead),
        5 => seal_groups::<KEYS, 5>(schedule, start, packet, tail, ahead),
        4 => seal_groups::<KEYS, 4>(schedule, start, packet, tail, ahead),
        _ => seal_tail(schedule, start, packet, tail, ahead),
    }
}

/// [`seal`] for a packet of groups of `GROUP` vectors, one at least, and a tail.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn seal_groups<'a, const KEYS: usize, const GROUP: usize>(
    schedule: &Schedule<'a, KEYS>,
    start: Start,
    packet: &mut [u8],
    tail: &mut Tail<'a>,
    mut ahead: Ahead,
) -> __m128i {
    let lengths = lengths(start.aad_bits, packet.len());
    let mut place = Place::first(start, packet);
    let mut hash = _mm_setzero_si128();
    let (groups, rest) = cut::<GROUP>(packet);
    let (first, others) = groups.split_first_mut().expect("there is one");
    ahead.ask_some();
    let keystream = keystream_and_tail!(KEYS, GROUP, schedule, place, tail, hash);
    // Sealed and not hashed yet.
    let mut sealed = place.crypt(&load_group(first), &keystream);
    store_group(first, &sealed);
    for group in others {
        ahead.ask_some();
        let keystream = keystream_and_group!(KEYS, GROUP, schedule, place, GROUP, &sealed);
        sealed = place.crypt(&load_group(group), &keystream);
        store_group(group, &sealed);
    }
    ahead.ask();
    macro_rules! tail {
        ($vectors:literal) => {{
            let keystream = keystream_and_group!(KEYS, $vectors, schedule, place, GROUP, &sealed);
            let icv = tail.icv_of(hash);
            tail.seal::<KEYS, $vectors>(schedule, &mut place, &keystream, rest, lengths);
            icv
        }};
    }
    by_vectors!(rest, tail)
}

/// [`seal`] for a packet that is a tail.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn seal_tail<'a, const KEYS: usize>(
    schedule: &Schedule<'a, KEYS>,
    start: Start,
    packet: &mut [u8],
    tail: &mut Tail<'a>,
    ahead: Ahead,
) -> __m128i {
    ahead.ask();
    let lengths = lengths(start.aad_bits, packet.len());
    let mut place = Place::first(start, packet);
    let mut hash = _mm_setzero_si128();
    macro_rules! tail {
        ($vectors:literal) => {{
            let keystream = keystream_and_tail!(KEYS, $vectors, schedule, place, tail, hash);
            let icv = tail.icv_of(hash);
            tail.seal::<KEYS, $vectors>(schedule, &mut place, &keystream, packet, lengths);
            icv
        }};
    }
    by_vectors!(packet, tail)
}

/// Verifies `packet`, which is 16 octets that stay as they are, text, and ICV; and decrypts the
/// text if it is authentic. Otherwise the octets are what they were when it returns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn open<const KEYS: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
    ahead: Ahead,
) -> bool {
    let Some((packet, icv)) = packet.split_last_chunk_mut() else {
        return false;
    };
    let icv = load_block(icv);
    match group_of(packet.len(), &TO_OPEN) {
        8 => open_groups::<KEYS, 8>(schedule, start, packet, icv, ahead),
        6 => open_groups::<KEYS, 6>(schedule, start, packet, icv, ahead),
        5 => open_groups::<KEYS, 5>(schedule, start, packet, icv, ahead),
        _ => open_groups::<KEYS, 4>(schedule, start, packet, icv, ahead),
    }
}

/// [`open`] for a packet of groups of `GROUP` vectors, or none, and a tail.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn open_groups<const KEYS: usize, const GROUP: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    packet: &mut [u8],
    icv: __m128i,
    mut ahead: Ahead,
) -> bool {
    let (lengths, mut place) = (lengths(start.aad_bits, packet.len()), Place::first(start, packet));
    let mut last = Tail::new();
    let (groups, rest) = cut::<GROUP>(packet);
    macro_rules! group {
        ($group:ident) => {{
            let sealed = load_group($group);
            let keystream = keystream_and_group!(KEYS, GROUP, schedule, place, GROUP, &sealed);
            let opened = place.crypt(&load_group($group), &keystream);
            store_group($group, &opened);
        }};
    }
    // The first one by itself, as where it stands in the packet is known.
    if let Some((first, others)) = groups.split_first_mut() {
        ahead.ask_some();
        group!(first);
        for group in others {
            ahead.ask_some();
            group!(group);
        }
    }
    ahead.ask();
    macro_rules! tail {
        ($vectors:literal) => {{
            let sealed = load_tail::<$vectors>(rest);
            last.set(schedule, &place, &sealed, rest.len(), lengths);
            let mut hash = _mm_setzero_si128();
            let keystream = keystream_and_tail!(KEYS, $vectors, schedule, place, last, hash);
            let opened = place.crypt(&sealed, &keystream);
            last.mask = _mm512_castsi512_si128(place.mask);
            let computed = last.icv_of(hash);
            let authentic = is_equal(computed, icv);
            if authentic {
                store_tail(rest, &opened);
            }
            authentic
        }};
    }
    let authentic = by_vectors!(rest, tail);
    if !authentic {
        restore(schedule, start, groups);
    }
    authentic
}

/// Adds the keystream to the groups of a forged packet once more, so that they are what they were.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[cold]
#[inline(never)]
fn restore<const KEYS: usize, const GROUP: usize>(
    schedule: &Schedule<'_, KEYS>,
    start: Start,
    groups: &mut [[[u8; VECTOR]; GROUP]],
) {
    let Some(first) = groups.first() else { return };
    let mut place = Place::first(start, first.as_flattened());
    for group in groups {
        let keystream = keystream!(KEYS, GROUP, schedule, place, _round, {});
        store_group(group, &place.crypt(&load_group(group), &keystream));
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

/// Where in a packet the work is, and what it has brought so far.
struct Place {
    /// See [`Start::nonce`].
    nonce: __m512i,
    /// The next vector to be encrypted or decrypted.
    vector: usize,
    /// Ones where keystream is to be added to the next vector: not to the header, which the first
    /// one has.
    added: __m512i,
    /// In the first lane, once the first vector is done, the encrypted J0.
    mask: __m512i,
    /// The hash so far: what is to be added to the next vector hashed, lane by lane. At first what
    /// makes the header the AAD.
    carried: __m512i,
}

impl Place {
    /// At the first octet of a packet.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn first(start: Start, packet: &[u8]) -> Place {
        let header = load_block(packet.first_chunk().expect("room for the header"));
        let header = reflect(_mm512_zextsi128_si512(header));
        Place {
            nonce: start.nonce,
            vector: 0,
            added: behind_first_lane(),
            mask: _mm512_setzero_si512(),
            carried: _mm512_xor_si512(header, _mm512_zextsi128_si512(start.aad)),
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
        changed[0] = masked_xor(keystream[0], self.added, octets[0]);
        self.mask = masked_xor_not(keystream[0], self.added, self.mask);
        self.added = _mm512_set1_epi64(-1);
        self.vector += VECTORS;
        changed
    }
}

/// The last vectors of a packet, to be taken into its hash, and what then makes an ICV of that.
#[repr(align(64))]
pub(super) struct Tail<'a> {
    /// Reflected, with the hash so far and the lengths; zeroes behind.
    blocks: [__m512i; TAIL_VECTORS],
    /// How many of them. None at first.
    count: usize,
    /// The powers of H, and of them the one for the first block. None at first.
    powers: Option<&'a [__m128i; READABLE]>,
    first_power: usize,
    /// The encrypted J0.
    mask: __m128i,
}

impl<'a> Tail<'a> {
    /// Of no packet.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn new() -> Tail<'a> {
        Tail {
            blocks: [_mm512_setzero_si512(); TAIL_VECTORS],
            count: 0,
            powers: None,
            first_power: 0,
            mask: _mm_setzero_si128(),
        }
    }

    /// Seals the tail of the packet of `place`, and keeps it.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn seal<const KEYS: usize, const VECTORS: usize>(
        &mut self,
        schedule: &Schedule<'a, KEYS>,
        place: &mut Place,
        keystream: &[__m512i; VECTORS],
        rest: &mut [u8],
        lengths: __m128i,
    ) {
        let mut sealed = place.crypt(&load_tail(rest), keystream);
        store_tail(rest, &sealed);
        // What the keystream left behind the end of the packet is not text.
        let last = ones(rest.len() - VECTOR * (VECTORS - 1));
        sealed[VECTORS - 1] = _mm512_and_si512(sealed[VECTORS - 1], last);
        self.set(schedule, place, &sealed, rest.len(), lengths);
        self.mask = _mm512_castsi512_si128(place.mask);
    }

    /// The last `len` sealed octets, with zeroes behind, of the packet of `place`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn set<const KEYS: usize, const VECTORS: usize>(
        &mut self,
        schedule: &Schedule<'a, KEYS>,
        place: &Place,
        sealed: &[__m512i; VECTORS],
        len: usize,
        lengths: __m128i,
    ) {
        let blocks = len.div_ceil(BLOCK);
        // In the lane behind the last block, or by themselves.
        let (lane, alone) = match blocks % LANES {
            0 => (0, 0xff),
            before => (0xf << (4 * before), 0),
        };
        each!(VECTORS, j, {
            let mut block = reflect(sealed[j]);
            if j == VECTORS - 1 {
                block = _mm512_mask_broadcast_i32x4(block, lane, lengths);
            }
            if j == 0 {
                block = _mm512_xor_si512(block, place.carried);
            }
            *self.blocks.get_mut(j).expect("no tail is longer") = block;
        });
        if let Some(block) = self.blocks.get_mut(VECTORS) {
            *block = _mm512_maskz_mov_epi64(alone, _mm512_zextsi128_si512(lengths));
        }
        // They are multiplied in pairs.
        if let Some(block) = self.blocks.get_mut(VECTORS + 1) {
            *block = _mm512_setzero_si512();
        }
        self.count = (blocks + 1).div_ceil(LANES);
        self.powers = Some(schedule.powers);
        self.first_power = POWERS - (blocks + 1);
    }

    /// The powers of H for vector `j`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn powers_of(&self, j: usize) -> __m512i {
        let Some(powers) = self.powers else { return _mm512_setzero_si512() };
        // Vectors behind the count are zeroes: any powers will do.
        let first = (self.first_power + LANES * j).min(READABLE - LANES);
        load_lanes(powers[first..].first_chunk().expect("four are behind it"))
    }

    /// The ICV of a packet with this hash.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn icv_of(&self, hash: __m128i) -> __m128i {
        let hash = _mm512_castsi512_si128(reflect(_mm512_zextsi128_si512(hash)));
        _mm_xor_si128(hash, self.mask)
    }

    /// The ICV of the packet.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    pub(super) fn icv(&self) -> __m128i {
        let mut sum = Sum::zero();
        each!(TAIL_VECTORS, j, {
            if j < self.count {
                sum.add_product(self.blocks[j], self.powers_of(j));
            }
        });
        self.icv_of(add_lanes(reduce(sum)))
    }
}

/// H^(4·`vectors`) in all lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn stride<const KEYS: usize>(schedule: Schedule<'_, KEYS>, vectors: usize) -> __m512i {
    _mm512_broadcast_i32x4(match (LANES * vectors).checked_sub(POWERS) {
        None | Some(0) => schedule.powers[POWERS - LANES * vectors],
        Some(_) => schedule.far_powers[GROUP_MAX - vectors],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every packet groups leave a tail that is neither too long for the powers nor too short
    /// for what the last group carries; packets that are no longer than a tail have no groups.
    #[test]
    fn every_length_is_cut() {
        for octets in 1..20_000_usize {
            for plans in [&TO_SEAL, &TO_OPEN] {
                let (group, blocks) = (group_of(octets, plans), octets.div_ceil(BLOCK));
                if blocks <= TAIL {
                    assert_eq!((group, count_groups(blocks, GROUPS[0])), (0, 0), "{octets}");
                    continue;
                }
                assert!(GROUPS.contains(&group), "{octets}");
                let count = count_groups(blocks, group);
                let tail = blocks - LANES * group * count;
                assert!(count > 0 && (BEHIND..=TAIL).contains(&tail), "{octets}: {tail}");
            }
        }
    }
}
