//! The ESP trailer: padding, pad length, next header (RFC 4303 sections 2.4 to 2.6).

/// Octets of pad length and next header.
pub const FIXED_LEN: usize = 2;

/// Alignment of the end of the trailer (RFC 4303 section 2.4), also for algorithms without blocks.
pub const ALIGNMENT: usize = 4;

/// Octets of padding that `payload_len` octets of payload need.
#[inline]
#[must_use]
pub const fn pad_len(payload_len: usize) -> usize {
    (payload_len + FIXED_LEN).next_multiple_of(ALIGNMENT) - payload_len - FIXED_LEN
}

/// Writes padding (1, 2, 3, ..), pad length and next header; `out` is `pad_len + FIXED_LEN` octets.
///
/// # Panics
/// When `out` is shorter than 2 or longer than 257 octets: our own error.
#[inline]
pub fn emit(out: &mut [u8], next_header: u8) {
    let (pad, fixed) = out.split_last_chunk_mut::<FIXED_LEN>().expect("room for the trailer");
    let pad_len = u8::try_from(pad.len()).expect("at most 255 octets of padding");
    for (octet, value) in pad.iter_mut().zip(1..=u8::MAX) {
        *octet = value;
    }
    *fixed = [pad_len, next_header];
}

/// Why a decrypted packet's trailer is wrong. The packet was authentic: its sender is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailerError {
    /// The pad length is larger than what there is.
    PadLength,
    /// The padding is not 1, 2, 3, ..
    Padding,
}

/// Splits decrypted text into the length of its payload and the next header.
///
/// # Errors
/// When the pad length exceeds the text, or the padding is not the default one (RFC 4303 section
/// 2.4: the receiver SHOULD inspect it).
#[inline]
pub fn strip(text: &[u8]) -> Result<(usize, u8), TrailerError> {
    let Some((rest, &[pad_len, next_header])) = text.split_last_chunk::<FIXED_LEN>() else {
        return Err(TrailerError::PadLength);
    };
    let Some(payload_len) = rest.len().checked_sub(usize::from(pad_len)) else {
        return Err(TrailerError::PadLength);
    };
    if rest[payload_len..].iter().zip(1..=u8::MAX).any(|(&octet, expected)| octet != expected) {
        return Err(TrailerError::Padding);
    }
    Ok((payload_len, next_header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// E07, E08, E09: any payload is padded with 1, 2, 3 to end on 4 octets, and strips again.
        #[test]
        fn round_trip(payload in proptest::collection::vec(any::<u8>(), 0..1600), next: u8) {
            let pad = pad_len(payload.len());
            prop_assert!(pad < ALIGNMENT);
            let mut text = payload.clone();
            text.resize(payload.len() + pad + FIXED_LEN, 0);
            emit(&mut text[payload.len()..], next);
            prop_assert_eq!(text.len() % ALIGNMENT, 0);
            prop_assert_eq!(strip(&text), Ok((payload.len(), next)));
            prop_assert_eq!(&text[payload.len()..text.len() - 2], &[1, 2, 3][..pad]);
        }

        /// I14: no text makes it panic or reach outside.
        #[test]
        fn any_text(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((payload_len, _)) = strip(&text) {
                prop_assert!(payload_len + FIXED_LEN <= text.len());
            }
        }
    }

    /// I13, I14: a pad length beyond the text and a wrong pattern are told apart; the longest
    /// padding is accepted.
    #[test]
    fn errors() {
        assert_eq!(strip(&[]), Err(TrailerError::PadLength));
        assert_eq!(strip(&[1, 4]), Err(TrailerError::PadLength));
        assert_eq!(strip(&[1, 1, 4]), Ok((0, 4)));
        assert_eq!(strip(&[2, 1, 4]), Err(TrailerError::Padding));
        let mut longest = vec![0; 257];
        emit(&mut longest, 4);
        assert_eq!(strip(&longest), Ok((0, 4)));
    }
}
