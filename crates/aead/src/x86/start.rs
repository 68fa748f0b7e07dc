//! What is different for every packet besides its octets: nonce and AAD.

use std::arch::x86_64::__m128i;

use crate::algorithm::SALT_LEN;
use crate::port::TEXT_AT;
use crate::x86::block::block;

/// Where a packet starts: blocks with their octets in reverse order.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    /// J0: nonce, then a counter of one.
    pub(crate) j0: __m128i,
    /// The only block of AAD padded with zeroes; or, of longer AAD, the GHASH of all blocks but
    /// the last, plus the last.
    pub(crate) aad: __m128i,
    /// Length of the AAD.
    pub(crate) aad_bits: u64,
}

impl Start {
    /// What RFC 4106 makes of a header: the nonce (section 4) and the AAD (section 5).
    #[inline(always)]
    pub(crate) fn of(salt: [u8; SALT_LEN], header: &[u8; TEXT_AT], esn_high: Option<u32>) -> Start {
        // As integers, most significant octet first, everything stays in registers.
        let header = u128::from_be_bytes(*header);
        let salt = u128::from(u32::from_be_bytes(salt));
        let (spi, seq, iv) = (header >> 96, header >> 64 & 0xffff_ffff, header << 64 >> 32);
        let (aad, aad_bits) = match esn_high {
            None => (header >> 64 << 64, 64),
            Some(high) => (spi << 96 | u128::from(high) << 64 | seq << 32, 96),
        };
        Start { j0: block(salt << 96 | iv | 1), aad: block(aad), aad_bits }
    }

    /// For any nonce, and AAD that was hashed to `aad`.
    pub(crate) fn general(nonce: &[u8; 12], aad: __m128i, aad_len: usize) -> Start {
        let mut j0 = [0; 16];
        j0[..12].copy_from_slice(nonce);
        j0[15] = 1;
        Start { j0: block(u128::from_be_bytes(j0)), aad, aad_bits: aad_len as u64 * 8 }
    }

    /// The last block hashed: lengths in bits of the AAD and of `text_len` octets of text (SP
    /// 800-38D section 7.1).
    #[inline(always)]
    pub(crate) fn lengths(&self, text_len: usize) -> __m128i {
        let text_bits = text_len as u128 * 8;
        block(u128::from(self.aad_bits) << 64 | text_bits)
    }
}
