//! The ESP header (RFC 4303 section 2), and what a frame from the unprotected side is.

mod classify;
mod spot;

use crate::Malformed;

pub use classify::FragmentOf;
pub use classify::IcmpError;
pub use classify::Outer;
pub use classify::Unprotected;
pub use classify::classify;
pub use classify::classify_packet;
pub use spot::Spot;

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of the explicit IV that follows the header (RFC 4106 section 3.1).
pub const IV_LEN: usize = 8;
/// The UDP port of encapsulated ESP, IKE behind a NAT, and keepalives (RFC 3948 section 2).
pub const NAT_TRAVERSAL_PORT: u16 = 4500;

/// An ESP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
}

/// Reads the ESP header at the start of `bytes`.
///
/// # Errors
/// [`Malformed::Truncated`] when there are fewer than 8 octets.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Esp, Malformed> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
    let [s0, s1, s2, s3, q0, q1, q2, q3] = *header;
    Ok(Esp { spi: u32::from_be_bytes([s0, s1, s2, s3]), seq: u32::from_be_bytes([q0, q1, q2, q3]) })
}

/// Writes an ESP header into the first 8 octets of `out`.
///
/// # Panics
/// When `out` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(out: &mut [u8], spi: u32, seq: u32) {
    let out: &mut [u8; HEADER_LEN] = out.first_chunk_mut().expect("room for the ESP header");
    out[..4].copy_from_slice(&spi.to_be_bytes());
    out[4..].copy_from_slice(&seq.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ESP: [u8; 12] = [0, 0, 0x10, 0x01, 0, 0, 0, 7, 0xaa, 0xbb, 0xcc, 0xdd];

    /// Both fields of the header are read.
    #[test]
    fn deconstruct() {
        assert_eq!(parse(&ESP), Ok(Esp { spi: 0x1001, seq: 7 }));
    }

    /// A header is written octet for octet, and nothing behind it.
    #[test]
    fn construct() {
        let mut out = ESP;
        out[..8].fill(0xff);
        emit(&mut out, 0x1001, 7);
        assert_eq!(out, ESP);
    }

    /// Every shorter header is refused.
    #[test]
    fn check_len() {
        for len in 0..8 {
            assert_eq!(parse(&ESP[..len]), Err(Malformed::Truncated), "{len}");
        }
    }

    proptest! {
        /// What is emitted is parsed back, and no bytes make the parser panic.
        #[test]
        fn emit_then_parse(spi: u32, seq: u32, cut in 0..=8_usize) {
            let mut out = [0; 8];
            emit(&mut out, spi, seq);
            prop_assert_eq!(parse(&out), Ok(Esp { spi, seq }));
            prop_assert_eq!(parse(&out[..cut]).is_ok(), cut == 8);
        }
    }
}
