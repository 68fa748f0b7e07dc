//! The shape of an AH packet (RFC 4302 section 2), as the length field tells it.

use crate::algorithm::Algorithm;
use crate::port::AhOp;

/// Octets in front of the ICV field: next header, length, reserved, SPI, sequence number.
pub(crate) const ICV_FIELD_AT: usize = 12;

/// Where the sequence number stands.
const SEQ_AT: usize = 8;

/// The lengths of an SA's AH header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AhShape {
    /// Octets of the ICV field without padding.
    field_len: usize,
}

/// What of an AH packet is covered, the ICV field apart.
pub(crate) struct AhParts<'a> {
    /// Header in front of AH, and AH up to the ICV field.
    pub(crate) before: [&'a [u8]; 2],
    /// IV, if there is one, and ICV. Zeroes take its place when the packet is covered.
    pub(crate) field: &'a mut [u8],
    /// Padding and payload.
    pub(crate) after: &'a [u8],
    /// In full: high half and the one sent.
    pub(crate) sequence: u64,
}

impl AhShape {
    pub(crate) const fn of(algorithm: Algorithm) -> AhShape {
        AhShape { field_len: algorithm.ah_icv_field_len() }
    }

    /// The parts of a packet; `None` when its length field cannot be right: it does not say the
    /// length of header and ICV field, rounded up to a multiple of 4 or of 8 octets (RFC 4302
    /// section 3.3.3.2.1), or says more than there is. Which of the two multiples it should be
    /// depends on the version of IP, and some peers pad to 8 with IPv4 too.
    pub(crate) fn split<'a, K>(self, op: &'a mut AhOp<'_, K>) -> Option<AhParts<'a>> {
        // In words of 4 octets, less 2 (RFC 4302 section 2.2).
        let len = (usize::from(*op.ah.get(1)?) + 2) * 4;
        let needed = ICV_FIELD_AT + self.field_len;
        let fits = len == needed.next_multiple_of(4) || len == needed.next_multiple_of(8);
        if !fits || op.ah.len() < len {
            return None;
        }
        let (fixed, rest) = op.ah.split_at_mut(ICV_FIELD_AT);
        let (field, after) = rest.split_at_mut(self.field_len);
        let low = u32::from_be_bytes(*fixed[SEQ_AT..].first_chunk()?);
        let sequence = u64::from(op.esn_high.unwrap_or(0)) << 32 | u64::from(low);
        Some(AhParts { before: [op.header, fixed], field, after, sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(field_len: usize, words: u8, len: usize) -> Option<(usize, usize)> {
        let mut ah = vec![0; len];
        if let Some(octet) = ah.get_mut(1) {
            *octet = words;
        }
        let mut op = AhOp { key: &(), esn_high: None, header: &[], ah: &mut ah };
        let parts = AhShape { field_len }.split(&mut op)?;
        Some((parts.field.len(), parts.after.len()))
    }

    /// A01, A05: of all lengths that the field can say those are right that hold the ICV and pad it
    /// to 4 or to 8 octets; and a packet must have that many.
    #[test]
    fn only_the_smallest_paddings_fit() {
        // ICV field, and the lengths with padding to 4 and to 8.
        for (field_len, lengths) in [(16, [28, 32]), (24, [36, 40]), (32, [44, 48])] {
            for words in 0..=255 {
                let said = (usize::from(words) + 2) * 4;
                for len in [0, 1, 2, 11, 12, 27, 28, 31, 32, 36, 40, 43, 44, 47, 48, 100, 1500] {
                    let fits = lengths.contains(&said) && said <= len;
                    let expected = fits.then(|| (field_len, len - 12 - field_len));
                    assert_eq!(split(field_len, words, len), expected, "{words} {len}");
                }
            }
        }
    }

    /// A06: the sequence number is the one sent, with the high half in front.
    #[test]
    fn sequence_numbers_are_in_full() {
        let mut ah = [0; 28];
        ah[1] = 5;
        ah[8..12].copy_from_slice(&[1, 2, 3, 4]);
        for (esn_high, expected) in [(None, 0x0102_0304), (Some(5), 0x5_0102_0304)] {
            let mut op = AhOp { key: &(), esn_high, header: &[], ah: &mut ah };
            assert_eq!(AhShape { field_len: 16 }.split(&mut op).unwrap().sequence, expected);
        }
    }
}
