//! The context of one SA: what the kernels need of a key, computed once.
//!
//! Laid out for the cache: ten lines, of which a packet needs those in the middle, more of them to
//! the left the longer it is and to the right the longer the key, so that they are one run. From
//! left to right, powers of H come in falling order, then the salt, which ends the sixth line, then
//! the round keys. A packet of 64 octets of text needs five lines with AES-128.
//!
//! What is in it is computed in `x86::schedule`.
//!
//! All of a context is wiped when it is dropped, and so are the intermediate values in memory. Not
//! in our hands are copies the compiler makes of a value it moves, and registers.

use std::arch::x86_64::*;
use std::fmt;
use std::mem::offset_of;
use std::ops::Range;

use zeroize::Zeroize;

use crate::algorithm::AesSize;
use crate::algorithm::SALT_LEN;
use crate::port::MIN_ESP_LEN;
use crate::prefetch::LINE;
use crate::vaes::ahead::Ahead;
use crate::vaes::kernel;
use crate::vaes::kernel::Tail;
use crate::vaes::math;
use crate::vaes::math::FAR_POWERS;
use crate::vaes::math::POWERS;
use crate::vaes::math::READABLE;
use crate::vaes::math::Schedule;
use crate::vaes::math::Start;
use crate::x86::block::BLOCK;
use crate::x86::block::load_block;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;
use crate::x86::schedule::ROUND_KEYS;

/// The context of one SA, wiped on drop.
#[repr(C, align(64))]
pub struct KernelKey {
    /// H^32, H^28 and H^24, as the powers.
    pub(crate) far_powers: [__m128i; FAR_POWERS],
    /// H^20 to H^1, each times x^-1 and reflected: see the kernels.
    pub(crate) powers: [__m128i; POWERS],
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) size: AesSize,
    pub(crate) spare: [u8; SPARE],
    /// As in memory. Shorter schedules leave the last ones zero.
    pub(crate) round_keys: [__m128i; ROUND_KEYS],
}

const _: () = assert!(size_of::<KernelKey>() == 10 * LINE);
const _: () = assert!(offset_of!(KernelKey, round_keys) == 6 * LINE);

/// What salt and size leave of a block.
const SPARE: usize = BLOCK - SALT_LEN - size_of::<AesSize>();

impl KernelKey {
    /// Seals one packet, which has at least header and ICV (else: panics), but for the ICV, and
    /// returns that of the packet before: see [`kernel::seal`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn seal<'a>(
        &'a self,
        start: Start,
        packet: &mut [u8],
        tail: &mut Tail<'a>,
        ahead: Ahead,
    ) -> __m128i {
        match self.size {
            AesSize::Aes128 => {
                kernel::seal::<KEYS_128>(&self.schedule(), start, packet, tail, ahead)
            }
            AesSize::Aes192 => {
                kernel::seal::<KEYS_192>(&self.schedule(), start, packet, tail, ahead)
            }
            AesSize::Aes256 => {
                kernel::seal::<KEYS_256>(&self.schedule(), start, packet, tail, ahead)
            }
        }
    }

    /// Verifies one packet, which has at least header and ICV, and decrypts it if authentic.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn open(&self, start: Start, packet: &mut [u8], ahead: Ahead) -> bool {
        match self.size {
            AesSize::Aes128 => kernel::open::<KEYS_128>(&self.schedule(), start, packet, ahead),
            AesSize::Aes192 => kernel::open::<KEYS_192>(&self.schedule(), start, packet, ahead),
            AesSize::Aes256 => kernel::open::<KEYS_256>(&self.schedule(), start, packet, ahead),
        }
    }

    /// What RFC 4106 makes of a packet's header: the nonce (section 4) and the AAD (section 5).
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn start(&self, packet: &[u8; MIN_ESP_LEN], esn_high: Option<u32>) -> Start {
        let header = load_block(packet.first_chunk().expect("a packet is longer"));
        let aad = math::reflect_esp(_mm512_zextsi128_si512(header), esn_high);
        Start {
            nonce: math::esp_nonce(self.salt, packet.first_chunk().expect("a packet is longer")),
            aad: _mm512_castsi512_si128(aad),
            aad_bits: if esn_high.is_some() { 96 } else { 64 },
        }
    }

    /// For any nonce and AAD.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    pub(super) fn start_general(&self, nonce: &[u8; 12], aad: &[u8]) -> Start {
        let mut block = [0; BLOCK];
        block[..12].copy_from_slice(nonce);
        Start {
            nonce: _mm512_broadcast_i32x4(load_block(&block)),
            aad: kernel::absorb(&self.powers, aad),
            aad_bits: aad.len() as u64 * 8,
        }
    }

    /// The salt of RFC 4106 section 4.
    #[inline(always)]
    pub(super) fn salt(&self) -> [u8; SALT_LEN] {
        self.salt
    }

    /// Which it is.
    #[inline(always)]
    pub(super) fn size(&self) -> AesSize {
        self.size
    }

    /// H^20 to H^1, then what is behind them: whatever it is, to be multiplied with zeroes.
    #[inline(always)]
    pub(super) fn powers_and_behind(&self) -> &[__m128i; READABLE] {
        const { assert!(offset_of!(KernelKey, powers) + BLOCK * READABLE <= 9 * LINE) };
        let start = std::ptr::from_ref(self).cast::<u8>();
        // SAFETY: so many octets from the powers on are in the context, as was asserted, aligned as
        // the powers are; none is padding, as the fields there leave none, and any octets are a
        // block. The result borrows all of the context. Why not safe: it spans several fields.
        unsafe { &*start.add(offset_of!(KernelKey, powers)).cast() }
    }

    /// The lines of a context that a packet needs of which `blocks` are hashed, with the lengths.
    #[inline(always)]
    pub(super) const fn lines(keys: usize, blocks: usize) -> Range<usize> {
        let powers = if blocks > POWERS { FAR_POWERS + POWERS } else { blocks };
        let start = offset_of!(KernelKey, salt) - BLOCK * powers;
        let end = offset_of!(KernelKey, round_keys) + BLOCK * keys;
        start / LINE..end.div_ceil(LINE)
    }

    /// The line of a context that has its size, and which says that it is one.
    #[inline(always)]
    pub(super) const fn line_of_size() -> Range<usize> {
        let line = offset_of!(KernelKey, size) / LINE;
        line..line + 1
    }

    /// The first `KEYS` round keys.
    #[inline(always)]
    pub(crate) fn keys<const KEYS: usize>(&self) -> &[__m128i; KEYS] {
        const { assert!(KEYS <= ROUND_KEYS) };
        self.round_keys.first_chunk().expect("no schedule is longer than the longest")
    }

    fn schedule<const KEYS: usize>(&self) -> Schedule<'_, KEYS> {
        Schedule {
            far_powers: &self.far_powers,
            powers: self.powers_and_behind(),
            round_keys: self.keys(),
        }
    }
}

impl Drop for KernelKey {
    fn drop(&mut self) {
        self.far_powers.zeroize();
        self.powers.zeroize();
        self.round_keys.zeroize();
        self.salt.zeroize();
    }
}

impl fmt::Debug for KernelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;
    use crate::algorithm::Algorithm;
    use crate::keymat::Keymat;
    use crate::port::Aead;
    use crate::provider::Provider;
    use crate::provider::ProviderKey;
    use crate::vaes::Vaes;
    use crate::x86::block::integer;
    use crate::x86::instructions::Instructions;
    use crate::x86::schedule::times_inverse_x;

    /// `None`, loudly, when the CPU has not the instructions.
    fn context(algorithm: Algorithm, key: &str) -> Option<KernelKey> {
        let Some(vaes) = Vaes::detect() else {
            eprintln!("SKIPPED: the CPU lacks {:?}", Vaes::missing());
            return None;
        };
        let mut octets = hex::decode(key).unwrap();
        octets.extend([0; SALT_LEN]);
        match Provider::Vaes(vaes).key(algorithm, &Keymat::new(octets)).unwrap() {
            ProviderKey::Kernel(context) => Some(context),
            _ => panic!("{algorithm} has a kernel"),
        }
    }

    fn octets(block: __m128i) -> String {
        hex::encode(integer(block).to_le_bytes())
    }

    /// The product in GHASH's field of reflected elements, bit by bit as in SP 800-38D section 6.3.
    fn product(x: u128, mut v: u128) -> u128 {
        let mut z = 0;
        for bit in (0..128).rev() {
            if x >> bit & 1 == 1 {
                z ^= v;
            }
            v = v >> 1 ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        z
    }

    /// The first and last of the round keys of FIPS 197 appendix A, and zeroes behind.
    #[test]
    fn schedules_are_those_of_fips_197() {
        let vectors = [
            (
                Algorithm::Aes128Gcm16,
                "2b7e151628aed2a6abf7158809cf4f3c",
                [(1, "a0fafe1788542cb123a339392a6c7605"), (10, "d014f9a8c9ee2589e13f0cc8b6630ca6")],
            ),
            (
                Algorithm::Aes192Gcm16,
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                [(1, "62f8ead2522c6b7bfe0c91f72402f5a5"), (12, "e98ba06f448c773c8ecc720401002202")],
            ),
            (
                Algorithm::Aes256Gcm16,
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                [(2, "9ba354118e6925afa51a8b5f2067fcde"), (14, "fe4890d1e6188d0b046df344706c631e")],
            ),
        ];
        for (algorithm, key, expected) in vectors {
            let Some(context) = context(algorithm, key) else { return };
            assert_eq!(octets(context.round_keys[0]), key[..32]);
            for (at, round_key) in expected {
                assert_eq!(octets(context.round_keys[at]), round_key, "{algorithm}, {at}");
            }
            let last = expected[1].0;
            assert!(context.round_keys[last + 1..].iter().all(|&key| integer(key) == 0));
        }
    }

    /// The powers are those of the field, computed bit by bit, times x^-1, highest first; and H is
    /// that of test case 2 of the GCM specification.
    #[test]
    fn powers_are_those_of_the_field() {
        let Some(context) = context(Algorithm::Aes128Gcm16, &"00".repeat(16)) else { return };
        let h = 0x66e9_4bd4_ef8a_2c3b_884c_fa59_ca34_2b2e;
        // Bit `127 - i` is the coefficient of x^i.
        let (x, mut power) = (1 << 126, h);
        for stored in context.powers.iter().rev() {
            assert_eq!(product(integer(*stored), x), power);
            power = product(power, h);
        }
        let far = |exponent| (1..exponent).fold(h, |power, _| product(power, h));
        for (stored, exponent) in context.far_powers.iter().zip([32, 28, 24]) {
            assert_eq!(product(integer(*stored), x), far(exponent), "H^{exponent}");
        }
    }

    /// Whether the bit that falls out is set or not, and whatever the others are.
    #[test]
    fn times_inverse_x_is_the_inverse() {
        let mut element = 0x8000_0000_0000_0000_0000_0000_0000_0001;
        for _ in 0..1000 {
            assert_eq!(product(times_inverse_x(element), 1 << 126), element);
            element = product(element, 0x66e9_4bd4_ef8a_2c3b_884c_fa59_ca34_2b2e);
        }
        assert_eq!(times_inverse_x(0), 0);
    }

    /// Nothing of a key is left when its context is dropped.
    #[test]
    fn contexts_are_wiped_on_drop() {
        let key = "ab".repeat(16);
        let Some(context) = context(Algorithm::Aes128Gcm16, &key) else { return };
        let mut context = ManuallyDrop::new(context);
        context.salt = [7; SALT_LEN];
        assert_ne!(integer(context.powers[0]), 0);
        #[expect(unsafe_code, reason = "to look at what is left")]
        // SAFETY: dropped once, as it is not dropped automatically, and all octets are valid values
        // of the fields, before and after. Why not safe: no safe code sees what was dropped.
        unsafe {
            ManuallyDrop::drop(&mut context);
        }
        let blocks = context.far_powers.iter().chain(&context.powers).chain(&context.round_keys);
        assert!(blocks.copied().all(|block| integer(block) == 0));
        assert_eq!(context.salt, [0; SALT_LEN]);
    }

    /// No key octet in Debug.
    #[test]
    fn debug_is_redacted() {
        let Some(context) = context(Algorithm::Aes128Gcm16, &"ab".repeat(16)) else { return };
        assert_eq!(format!("{context:?}"), "KernelKey(..)");
    }
}
