//! The UDP header (RFC 768). The checksum is read and written, not verified: around ESP the ICV
//! protects more than it could, and RFC 3948 section 2.2 forbids to depend on it being zero.

use crate::Malformed;

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// A UDP header whose length holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Octets of header and payload: at least 8, at most the octets that were parsed.
    pub len: usize,
    /// Checksum as it stands; 0 is none.
    pub checksum: u16,
}

/// Reads the header at the start of `segment`, an IP payload.
///
/// # Errors
/// [`Malformed::Truncated`] when the segment ends inside the header, [`Malformed::UdpLength`] when
/// the length field is below 8 or beyond `segment`.
#[inline]
pub fn parse(segment: &[u8]) -> Result<Udp, Malformed> {
    let header: &[u8; HEADER_LEN] = segment.first_chunk().ok_or(Malformed::Truncated)?;
    let [s0, s1, d0, d1, l0, l1, c0, c1] = *header;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    if len < HEADER_LEN || len > segment.len() {
        return Err(Malformed::UdpLength);
    }
    Ok(Udp {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        len,
        checksum: u16::from_be_bytes([c0, c1]),
    })
}

/// Writes a header into the first 8 octets of `out`; `len` counts header and payload.
///
/// # Panics
/// When `out` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(out: &mut [u8], source_port: u16, destination_port: u16, len: u16, checksum: u16) {
    let out: &mut [u8; HEADER_LEN] = out.first_chunk_mut().expect("room for the UDP header");
    let [s0, s1] = source_port.to_be_bytes();
    let [d0, d1] = destination_port.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    let [c0, c1] = checksum.to_be_bytes();
    *out = [s0, s1, d0, d1, l0, l1, c0, c1];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: [u8; 11] = [0x11, 0x94, 0x01, 0xf4, 0x00, 0x0a, 0xbe, 0xef, 1, 2, 3];

    /// Every field is read; the octet behind the length is not part of the datagram.
    #[test]
    fn deconstruct() {
        let expected = Udp { source_port: 4500, destination_port: 500, len: 10, checksum: 0xbeef };
        assert_eq!(parse(&SEGMENT), Ok(expected));
    }

    /// A header is written octet for octet, and nothing behind it.
    #[test]
    fn construct() {
        let mut out = SEGMENT;
        out[..8].fill(0xff);
        emit(&mut out, 4500, 500, 10, 0xbeef);
        assert_eq!(out, SEGMENT);
    }

    /// Every prefix of a datagram is refused.
    #[test]
    fn check_len() {
        for len in 0..8 {
            assert_eq!(parse(&SEGMENT[..len]), Err(Malformed::Truncated), "{len}");
        }
        for len in 8..10 {
            assert_eq!(parse(&SEGMENT[..len]), Err(Malformed::UdpLength), "{len}");
        }
    }

    /// A length below the header is refused, 0 too (RFC 2675 jumbograms are not supported).
    #[test]
    fn parse_refuses_short_lengths() {
        for len in 0..8 {
            let mut segment = SEGMENT;
            segment[5] = len;
            assert_eq!(parse(&segment), Err(Malformed::UdpLength), "{len}");
        }
    }

    proptest! {
        /// No bytes make the parser panic, and its length lies inside the segment.
        #[test]
        fn parse_never_panics(
            mut segment in proptest::collection::vec(any::<u8>(), 0..40),
            likely: bool,
        ) {
            if likely && segment.len() >= 5 {
                segment[4] = 0;
            }
            if let Ok(header) = parse(&segment) {
                prop_assert!(HEADER_LEN <= header.len && header.len <= segment.len());
            }
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(
            (source_port, destination_port, checksum) in any::<(u16, u16, u16)>(),
            len in 8..=16_u16,
        ) {
            let mut out = [0; 16];
            emit(&mut out, source_port, destination_port, len, checksum);
            let expected = Udp { source_port, destination_port, len: usize::from(len), checksum };
            prop_assert_eq!(parse(&out), Ok(expected));
        }
    }
}
