//! A stream: many longer packets of one SA and one length, which is what a busy tunnel is made of.
//!
//! What follows from key and length alone is worked out once for the batch, and more than a context
//! has room for:
//!
//! - The first round of AES. The blocks of a packet differ in one octet of the counter, and a round
//!   is a sum of what it makes of each octet, plus the round key. So the first round of a block is
//!   that of the nonce with a counter of zero, one for the packet, plus what the counter makes of
//!   it, which is the same in every packet: an addition instead of a round.
//! - A power of H for every block, so that the products of a packet are added up and reduced once.
//! - The product of the lengths and H^1.
//!
//! As in `kernel` a packet is cut into vectors of four blocks from its first octet, and the vectors
//! into chunks: equal ones and a last one that may be shorter. The rounds of a chunk stand between
//! the products of another: when sealing, of the one before, for the last one of a packet that is
//! in the next packet; when opening, of the same.
//!
//! What the tables hold is as secret as the key, and is wiped when the batch is done.

#![expect(unsafe_code, reason = "wiping, and inline assembly without an instruction for an order")]

use std::arch::x86_64::*;

use crate::algorithm::AesSize;
use crate::port::ICV_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::provider::ProviderKey;
use crate::vaes::key::KernelKey;
use crate::vaes::math::LANES;
use crate::vaes::math::POWERS;
use crate::vaes::math::Sum;
use crate::vaes::math::VECTOR;
use crate::vaes::math::add_lanes;
use crate::vaes::math::behind_first_lane;
use crate::vaes::math::counters_of;
use crate::vaes::math::each;
use crate::vaes::math::esp_iv;
use crate::vaes::math::in_order;
use crate::vaes::math::keep_in_order;
use crate::vaes::math::lengths;
use crate::vaes::math::load_group;
use crate::vaes::math::load_lanes;
use crate::vaes::math::load_tail;
use crate::vaes::math::masked_xor;
use crate::vaes::math::ones;
use crate::vaes::math::read_again;
use crate::vaes::math::reduce;
use crate::vaes::math::reflect;
use crate::vaes::math::rounds;
use crate::vaes::math::store_group;
use crate::vaes::math::store_tail;
use crate::vaes::unsorted::Singly;
use crate::x86::block::BLOCK;
use crate::x86::block::is_equal;
use crate::x86::block::load_block;
use crate::x86::block::store_block;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;
use crate::x86::schedule::multiply;

/// Vectors of a packet at most: those of Ethernet's packets have no more.
const VECTORS: usize = 24;

/// Packets from which on a stream is faster than one packet after the other.
const PACKETS: usize = 24;

/// Vectors in a chunk at most.
const CHUNK: usize = 6;

/// Vectors in all chunks of a packet but the last, and in that one: at least two chunks, as equal
/// as can be.
const fn chunks(vectors: usize) -> (usize, usize) {
    let count = if vectors <= CHUNK { 2 } else { vectors.div_ceil(CHUNK) };
    let chunk = vectors.div_ceil(count);
    (chunk, vectors - chunk * (count - 1))
}

/// Calls a function of key size and sizes of chunks.
macro_rules! sized {
    ($function:ident, $size:expr, $vectors:expr, $arguments:tt) => {
        match $size {
            AesSize::Aes128 => sized!($function, KEYS_128, $vectors, $arguments, chunks),
            AesSize::Aes192 => sized!($function, KEYS_192, $vectors, $arguments, chunks),
            AesSize::Aes256 => sized!($function, KEYS_256, $vectors, $arguments, chunks),
        }
    };
    ($function:ident, $keys:ident, $vectors:expr, $arguments:tt, chunks) => {
        match chunks($vectors) {
            (3, 3) => $function::<$keys, 3, 3> $arguments,
            (4, 3) => $function::<$keys, 4, 3> $arguments,
            (4, 4) => $function::<$keys, 4, 4> $arguments,
            (5, 3) => $function::<$keys, 5, 3> $arguments,
            (5, 4) => $function::<$keys, 5, 4> $arguments,
            (5, 5) => $function::<$keys, 5, 5> $arguments,
            (6, 3) => $function::<$keys, 6, 3> $arguments,
            (6, 4) => $function::<$keys, 6, 4> $arguments,
            (6, 5) => $function::<$keys, 6, 5> $arguments,
            (6, 6) => $function::<$keys, 6, 6> $arguments,
            _ => unreachable!("a stream has packets of six to {VECTORS} vectors"),
        }
    };
}

/// What the packets of a stream have in common.
#[repr(align(64))]
pub(super) struct Stream<'a> {
    /// What the first round of AES makes of the counters.
    first_round: [__m512i; VECTORS],
    /// A power of H, times x^-1 and reflected, for each block.
    powers: [__m512i; VECTORS],
    /// The salt plus the first round key.
    start: __m512i,
    /// The product of the lengths and H^1, in the order of memory.
    lengths: __m128i,
    key: &'a KernelKey,
    /// Octets of header and text.
    len: usize,
    vectors: usize,
    esn_high: Option<u32>,
}

impl<'a> Stream<'a> {
    /// Of packets that are like this one.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn of(key: &'a KernelKey, op: &Op<'_, ProviderKey>) -> Stream<'a> {
        let len = op.esp.len() - ICV_LEN;
        let round_key = _mm512_broadcast_i32x4(key.keys::<1>()[0]);
        let salt = _mm512_maskz_set1_epi32(0x1111, i32::from_ne_bytes(key.salt()));
        let aad_bits = if op.esn_high.is_some() { 96 } else { 64 };
        let lengths = multiply(lengths(aad_bits, len), key.powers_and_behind()[POWERS - 1]);
        let mut stream = Stream {
            first_round: first_round_of_counters(round_key),
            powers: [_mm512_setzero_si512(); VECTORS],
            start: _mm512_xor_si512(salt, round_key),
            lengths: _mm512_castsi512_si128(reflect(_mm512_zextsi128_si512(lengths))),
            key,
            len,
            vectors: len.div_ceil(VECTOR),
            esn_high: op.esn_high,
        };
        stream.fill_powers(len.div_ceil(BLOCK));
        stream
    }

    /// For packets of so many blocks of header and text: their powers end with H^2.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn fill_powers(&mut self, blocks: usize) {
        let known = self.key.powers_and_behind();
        // What is four vectors further to the front.
        let stride = _mm512_broadcast_i32x4(known[POWERS - 4 * LANES]);
        for vector in (0..self.vectors).rev() {
            let highest = blocks + 1 - LANES * vector;
            self.powers[vector] = if highest <= POWERS {
                // Behind H^2 is what blocks of zeroes are multiplied with.
                load_lanes(known[POWERS - highest..].first_chunk().expect("enough is behind them"))
            } else {
                let mut product = Sum::zero();
                product.add_product(self.powers[vector + 4], stride);
                reduce(product)
            };
        }
    }

    /// What the first round of AES makes of the nonce of a packet, with a counter of zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn nonce(&self, packet: &[u8]) -> __m512i {
        let iv = esp_iv(packet.first_chunk().expect("room for header and ICV"));
        let round_key = _mm512_broadcast_i32x4(self.key.keys::<2>()[1]);
        _mm512_aesenc_epi128(_mm512_xor_si512(iv, self.start), round_key)
    }

    /// The first vector of a packet with the AAD of RFC 4106 section 5 for its header.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn with_aad(&self, octets: __m512i) -> __m512i {
        match self.esn_high {
            None => _mm512_maskz_mov_epi64(!0b10, octets),
            Some(high) => {
                let high = _mm512_zextsi128_si512(_mm_cvtsi32_si128(high.to_be().cast_signed()));
                // SPI, the high half, the low half and zeroes.
                let order =
                    _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 17, 1, 16, 0);
                _mm512_permutex2var_epi32(octets, order, high)
            }
        }
    }

    /// The ICV of a packet with this sum of products, `mask` being the encrypted J0.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn icv(&self, sum: Sum, mask: __m128i) -> __m128i {
        let hash = _mm512_zextsi128_si512(add_lanes(reduce(sum)));
        let hash = _mm512_castsi512_si128(reflect(hash));
        _mm_xor_si128(hash, _mm_xor_si128(mask, self.lengths))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn wipe(&mut self) {
        let zero = _mm512_setzero_si512();
        for (a, b) in self.first_round.iter_mut().zip(&mut self.powers) {
            overwrite(a, zero);
            overwrite(b, zero);
        }
        overwrite(&mut self.start, zero);
    }

    #[inline(always)]
    fn powers<const COUNT: usize>(&self, first: usize) -> &[__m512i; COUNT] {
        self.powers[first..].first_chunk().expect("there is a power for each vector")
    }
}

/// What the first round of AES makes of each counter, the round key of that round left out.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn first_round_of_counters(first_key: __m512i) -> [__m512i; VECTORS] {
    let zero = _mm512_setzero_si512();
    let without = _mm512_aesenc_epi128(first_key, zero);
    std::array::from_fn(|vector| {
        let with = _mm512_xor_si512(first_key, counters_of(vector));
        _mm512_xor_si512(_mm512_aesenc_epi128(with, zero), without)
    })
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: there is no stream without the instructions. Why not safe: they are known at run
        // time only.
        unsafe { self.wipe() }
    }
}

/// Writes what nobody will read.
#[inline(always)]
fn overwrite(place: &mut __m512i, vector: __m512i) {
    // SAFETY: it is the place of a vector. Why not safe: any other write might be left out.
    unsafe { std::ptr::write_volatile(place, vector) };
}

/// Keystream for `$vectors` vectors from vector `$first` of a packet on, with `$between` after each
/// round but the first and the last.
macro_rules! keystream {
    (
        $keys:expr, $vectors:expr, $stream:expr, $nonce:expr, $first:expr, $round:ident,
        $between:block
    ) => {{
        let round_keys = read_again($stream.key.keys::<$keys>());
        let first: &[__m512i; $vectors] =
            $stream.first_round[$first..].first_chunk().expect("there is one for each vector");
        let mut states = [_mm512_setzero_si512(); $vectors];
        each!($vectors, j, {
            states[j] = _mm512_xor_si512(first[j], $nonce);
        });
        rounds!($keys, $vectors, states, round_keys, 2, $round, {
            $between
            keep_in_order!($vectors, states);
        });
        states
    }};
}

/// The part of the products of the vectors `$octets`, `$count` of them, with the powers `$powers`
/// that is done after round `$round`.
macro_rules! hash_between {
    ($round:ident, $count:expr, $octets:expr, $powers:expr, $sum:ident) => {
        if $round % 2 == 0 && $round - 2 < $count {
            let (even, odd) = ($round - 2, $round - 1);
            if odd < $count {
                $sum.add_products(
                    [reflect($octets[even]), reflect($octets[odd])],
                    [$powers[even], $powers[odd]],
                );
            } else {
                $sum.add_product(reflect($octets[even]), $powers[even]);
            }
            in_order!($sum.low, $sum.middle, $sum.high);
        }
    };
}

/// The key of packets that are alike; none if they are not for these functions, or too few.
#[inline(always)]
pub(super) fn key_of<'a>(alike: &[Op<'a, ProviderKey>]) -> Option<&'a KernelKey> {
    let [Op { key: ProviderKey::Kernel(key), esp, .. }, ..] = alike else { return None };
    let vectors = esp.len().checked_sub(ICV_LEN)?.div_ceil(VECTOR);
    (alike.len() >= PACKETS && (CHUNK..=VECTORS).contains(&vectors)).then_some(key)
}

/// Seals packets that are alike and of this key.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn seal(key: &KernelKey, alike: &mut [Op<'_, ProviderKey>]) {
    let Some(first) = alike.first() else { return };
    let stream = Stream::of(key, first);
    sized!(seal_chunks, key.size(), stream.vectors, (&stream, alike));
}

/// [`seal`] for packets with chunks of `CHUNK` vectors, and a last one of `LAST`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
fn seal_chunks<const KEYS: usize, const CHUNK: usize, const LAST: usize>(
    stream: &Stream<'_>,
    alike: &mut [Op<'_, ProviderKey>],
) {
    let (len, before_last) = (stream.len, stream.vectors - LAST);
    // Of the packet before: its last chunk, which is not hashed yet, and where its ICV goes.
    let mut last = [_mm512_setzero_si512(); LAST];
    let (mut sum, mut mask) = (Sum::zero(), _mm_setzero_si128());
    let mut nowhere = [0; ICV_LEN];
    let mut place = &mut nowhere;
    for (op, mut ahead) in Singly::new(alike) {
        let nonce = stream.nonce(op.esp);
        let (packet, icv) = op.esp.split_at_mut(len);
        let icv = icv.first_chunk_mut().expect("room for the ICV");
        let (chunks, rest) = packet.split_at_mut(VECTOR * before_last);
        let chunks = chunks.as_chunks_mut().0.as_chunks_mut().0;
        let (first, others) = chunks.split_first_mut().expect("there are two chunks");

        let powers = stream.powers::<LAST>(before_last);
        let keystream = keystream!(KEYS, CHUNK, stream, nonce, 0, round, {
            hash_between!(round, LAST, last, powers, sum);
            if round == 8 {
                store_block(place, stream.icv(sum, mask));
            }
        });
        place = icv;
        mask = _mm512_castsi512_si128(keystream[0]);
        let mut sealed = crypt(first, &keystream, behind_first_lane());
        sealed[0] = stream.with_aad(sealed[0]);

        sum = Sum::zero();
        let mut hashed = 0;
        for chunk in others {
            ahead.ask_some();
            let powers = stream.powers::<CHUNK>(hashed);
            hashed += CHUNK;
            let keystream = keystream!(KEYS, CHUNK, stream, nonce, hashed, round, {
                hash_between!(round, CHUNK, sealed, powers, sum);
            });
            sealed = crypt(chunk, &keystream, _mm512_set1_epi64(-1));
        }

        ahead.ask();
        let powers = stream.powers::<CHUNK>(hashed);
        let keystream = keystream!(KEYS, LAST, stream, nonce, before_last, round, {
            hash_between!(round, CHUNK, sealed, powers, sum);
        });
        last = seal_last(rest, &keystream);
    }
    let powers = stream.powers::<LAST>(before_last);
    each!(LAST, j, {
        sum.add_product(reflect(last[j]), powers[j]);
    });
    store_block(place, stream.icv(sum, mask));
}

/// Verifies packets that are alike and of this key, and decrypts those that are authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
pub(super) fn open(key: &KernelKey, alike: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
    let Some(first) = alike.first() else { return };
    let stream = Stream::of(key, first);
    sized!(open_chunks, key.size(), stream.vectors, (&stream, alike, statuses));
}

/// [`open`] for packets with chunks of `CHUNK` vectors, and a last one of `LAST`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline(never)]
fn open_chunks<const KEYS: usize, const CHUNK: usize, const LAST: usize>(
    stream: &Stream<'_>,
    alike: &mut [Op<'_, ProviderKey>],
    statuses: &mut [Status],
) {
    let (len, before_last) = (stream.len, stream.vectors - LAST);
    for ((op, mut ahead), status) in Singly::new(alike).zip(statuses) {
        let nonce = stream.nonce(op.esp);
        let (packet, icv) = op.esp.split_at_mut(len);
        let icv = icv.first_chunk_mut().expect("room for the ICV");
        let icv = load_block(icv);
        let (chunks, rest) = packet.split_at_mut(VECTOR * before_last);
        let chunks: &mut [[[u8; VECTOR]; CHUNK]] = chunks.as_chunks_mut().0.as_chunks_mut().0;

        let mut sum = Sum::zero();
        let mut mask = _mm_setzero_si128();
        let mut done = 0;
        let mut text = behind_first_lane();
        for chunk in &mut *chunks {
            ahead.ask_some();
            let mut sealed = load_group(chunk);
            if done == 0 {
                sealed[0] = stream.with_aad(sealed[0]);
            }
            let powers = stream.powers::<CHUNK>(done);
            let keystream = keystream!(KEYS, CHUNK, stream, nonce, done, round, {
                hash_between!(round, CHUNK, sealed, powers, sum);
            });
            if done == 0 {
                mask = _mm512_castsi512_si128(keystream[0]);
            }
            crypt(chunk, &keystream, text);
            text = _mm512_set1_epi64(-1);
            done += CHUNK;
        }

        ahead.ask();
        let sealed = load_tail::<LAST>(rest);
        let powers = stream.powers::<LAST>(before_last);
        let keystream = keystream!(KEYS, LAST, stream, nonce, before_last, round, {
            hash_between!(round, LAST, sealed, powers, sum);
        });
        let is_authentic = is_equal(stream.icv(sum, mask), icv);
        if is_authentic {
            store_tail(rest, &plus(&sealed, &keystream));
        } else {
            restore::<KEYS, CHUNK>(stream, nonce, chunks);
        }
        *status = Status::of(is_authentic);
    }
}

/// Adds the keystream to the chunks of a forged packet once more, so that they are what they were.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[cold]
#[inline(never)]
fn restore<const KEYS: usize, const CHUNK: usize>(
    stream: &Stream<'_>,
    nonce: __m512i,
    chunks: &mut [[[u8; VECTOR]; CHUNK]],
) {
    let mut text = behind_first_lane();
    for (number, chunk) in chunks.iter_mut().enumerate() {
        let keystream = keystream!(KEYS, CHUNK, stream, nonce, CHUNK * number, _round, {});
        crypt(chunk, &keystream, text);
        text = _mm512_set1_epi64(-1);
    }
}

/// Adds the keystream to a chunk; of the first vector only where `text` has ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn crypt<const CHUNK: usize>(
    chunk: &mut [[u8; VECTOR]; CHUNK],
    keystream: &[__m512i; CHUNK],
    text: __m512i,
) -> [__m512i; CHUNK] {
    let octets = load_group(chunk);
    let mut changed = plus(&octets, keystream);
    changed[0] = masked_xor(keystream[0], text, octets[0]);
    store_group(chunk, &changed);
    changed
}

/// Adds the keystream to the last chunk, whose end is in the last vector: what is behind is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn seal_last<const LAST: usize>(rest: &mut [u8], keystream: &[__m512i; LAST]) -> [__m512i; LAST] {
    let mut sealed = plus(&load_tail(rest), keystream);
    store_tail(rest, &sealed);
    let end = ones(rest.len() - VECTOR * (LAST - 1));
    sealed[LAST - 1] = _mm512_and_si512(sealed[LAST - 1], end);
    sealed
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn plus<const COUNT: usize>(
    octets: &[__m512i; COUNT],
    keystream: &[__m512i; COUNT],
) -> [__m512i; COUNT] {
    let mut sum = [_mm512_setzero_si512(); COUNT];
    each!(COUNT, j, {
        sum[j] = _mm512_xor_si512(octets[j], keystream[j]);
    });
    sum
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;
    use crate::algorithm::Algorithm;
    use crate::keymat::Keymat;
    use crate::port::Aead;
    use crate::port::MIN_ESP_LEN;
    use crate::provider::Provider;
    use crate::vaes::Vaes;
    use crate::x86::instructions::Instructions;

    /// As equal as can be, none of more vectors than a chunk has, two at least.
    #[test]
    fn chunks_make_up_a_packet() {
        for vectors in CHUNK..=VECTORS {
            let (chunk, last) = chunks(vectors);
            assert!((3..=CHUNK).contains(&chunk), "{vectors}");
            assert!((chunk.min(3)..=chunk).contains(&last), "{vectors}");
            assert!(vectors > last && (vectors - last).is_multiple_of(chunk), "{vectors}");
        }
    }

    /// Nothing that comes of a key is left when a stream is done.
    #[test]
    fn streams_are_wiped_on_drop() {
        let Some(vaes) = Vaes::detect() else {
            eprintln!("SKIPPED: the CPU lacks {:?}", Vaes::missing());
            return;
        };
        let algorithm = Algorithm::Aes128Gcm16;
        let keymat = Keymat::new(vec![0xab; algorithm.keymat_len()]);
        let key = Provider::Vaes(vaes).key(algorithm, &keymat).unwrap();
        let ProviderKey::Kernel(context) = &key else { panic!("{algorithm} has a kernel") };
        let mut packet = [0; MIN_ESP_LEN + 1420];
        let op = Op { key: &key, esn_high: None, esp: &mut packet };
        let is_zero = |vector: __m512i| {
            // SAFETY: that is 64 octets, too. Why not safe: another type.
            unsafe { std::mem::transmute::<__m512i, [u8; VECTOR]>(vector) == [0; VECTOR] }
        };
        // SAFETY: there is a `Vaes`, so the CPU has the instructions. Why not safe: known at run
        // time only.
        let mut stream = ManuallyDrop::new(unsafe { Stream::of(context, &op) });
        assert!(!stream.powers[..stream.vectors].iter().copied().any(is_zero));
        assert!(!stream.first_round[1..].iter().copied().any(is_zero));
        assert!(!is_zero(stream.start));
        // SAFETY: dropped once, as it is not dropped automatically, and all octets are valid values
        // of the fields, before and after. Why not safe: no safe code sees what was dropped.
        unsafe { ManuallyDrop::drop(&mut stream) };
        assert!(stream.powers.iter().chain(&stream.first_round).copied().all(is_zero));
        assert!(is_zero(stream.start));
    }
}
