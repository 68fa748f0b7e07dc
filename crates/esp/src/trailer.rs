//! The ESP trailer: padding, pad length, next header (RFC 4303 sections 2.4 to 2.6).

/// Octets of pad length and next header.
pub const FIXED_LEN: usize = 2;

/// Alignment of the end of the trailer (RFC 4303 section 2.4), also for algorithms without blocks.
pub const ALIGNMENT: usize = 4;

/// Most octets of padding that one octet can tell (RFC 4303 section 2.5).
pub const PAD_LEN_MAX: usize = 255;

/// Octets of padding that `payload_len` octets of payload need so that the text ends on a multiple
/// of `block` octets, a power of two.
#[inline]
#[must_use]
pub const fn pad_len(payload_len: usize, block: usize) -> usize {
    (payload_len + FIXED_LEN).wrapping_neg() & (block - 1)
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

/// Most octets that [`word`] makes.
pub const WORD_LEN_MAX: usize = 3 + FIXED_LEN;

/// Padding of up to 3 octets, pad length and next header as one word, the first octet lowest: what
/// an algorithm without blocks needs, together with zeroes behind it.
#[inline(always)]
#[must_use]
pub fn word(pad_len: usize, next_header: u8) -> u64 {
    debug_assert!(pad_len <= 3, "longer padding is no word");
    let shift = 8 * (pad_len & 3);
    let pad = 0x03_0201 & ((1 << shift) - 1);
    pad | (pad_len as u64 | u64::from(next_header) << 8) << shift
}

/// What a receiver does about the content of padding (RFC 4303 section 2.4: it SHOULD inspect it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PaddingCheck {
    /// Other padding than 1, 2, 3, .. is an error.
    #[default]
    Strict,
    /// It is reported, and the packet goes on.
    Count,
    /// Nobody looks.
    Off,
}

/// What the trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Octets of payload in front of the padding, traffic flow confidentiality padding included.
    pub payload_len: usize,
    /// Protocol of the payload.
    pub next_header: u8,
    /// The padding is not 1, 2, 3, ..: only with [`PaddingCheck::Count`].
    pub padding_wrong: bool,
}

/// Why a decrypted packet's trailer is wrong. The packet was authentic: its sender is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    /// The pad length is larger than what there is.
    #[error("pad length beyond the text")]
    PadLength,
    /// The padding is not 1, 2, 3, ..
    #[error("padding is not 1, 2, 3, ..")]
    Padding,
}

/// Splits decrypted text into payload, padding and next header.
///
/// # Errors
/// When the pad length exceeds the text, or `check` is strict and the padding not the default one.
#[inline]
pub fn strip(text: &[u8], check: PaddingCheck) -> Result<Trailer, TrailerError> {
    let Some((rest, &[pad_len, next_header])) = text.split_last_chunk::<FIXED_LEN>() else {
        return Err(TrailerError::PadLength);
    };
    let Some(payload_len) = rest.len().checked_sub(usize::from(pad_len)) else {
        return Err(TrailerError::PadLength);
    };
    let mut padding_wrong = false;
    if check != PaddingCheck::Off {
        padding_wrong = match rest.last_chunk() {
            Some(&last) if pad_len < 8 => !ends_in_padding(last, pad_len),
            _ => {
                let mut pad = rest[payload_len..].iter().enumerate();
                pad.any(|(at, &octet)| usize::from(octet) != at + 1)
            }
        };
        if padding_wrong && check == PaddingCheck::Strict {
            return Err(TrailerError::Padding);
        }
    }
    Ok(Trailer { payload_len, next_header, padding_wrong })
}

/// True when the last `pad_len` octets, fewer than 8, are 1, 2, 3, .. in this order.
#[inline]
fn ends_in_padding(last: [u8; 8], pad_len: u8) -> bool {
    let expected = 0x0001_0203_0405_0607 >> (8 * (7 - u32::from(pad_len)));
    let octets = (1 << (8 * u32::from(pad_len))) - 1;
    (u64::from_be_bytes(last) ^ expected) & octets == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// E07, E08, E09: any payload is padded with 1, 2, 3 to end on a block, and strips again.
        #[test]
        fn round_trip(
            payload in proptest::collection::vec(any::<u8>(), 0..1600),
            next: u8,
            block in prop_oneof![Just(4usize), Just(8), Just(16)],
        ) {
            let pad = pad_len(payload.len(), block);
            prop_assert!(pad < block);
            let mut text = payload.clone();
            text.resize(payload.len() + pad + FIXED_LEN, 0);
            emit(&mut text[payload.len()..], next);
            prop_assert_eq!(text.len() % block, 0);
            let payload_len = payload.len();
            let trailer = Trailer { payload_len, next_header: next, padding_wrong: false };
            for check in [PaddingCheck::Strict, PaddingCheck::Count, PaddingCheck::Off] {
                prop_assert_eq!(strip(&text, check), Ok(trailer));
            }
            let pattern: Vec<u8> = (1..=15).collect();
            prop_assert_eq!(&text[payload.len()..text.len() - 2], &pattern[..pad]);
        }

        /// E07: the word is what is written octet by octet.
        #[test]
        fn words_are_trailers(pad_len in 0..=3usize, next: u8) {
            let mut out = vec![0; pad_len + FIXED_LEN];
            emit(&mut out, next);
            out.resize(8, 0);
            prop_assert_eq!(word(pad_len, next).to_le_bytes().to_vec(), out);
        }

        /// I14: no text makes it panic or reach outside.
        #[test]
        fn any_text(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            for check in [PaddingCheck::Strict, PaddingCheck::Count, PaddingCheck::Off] {
                if let Ok(trailer) = strip(&text, check) {
                    prop_assert!(trailer.payload_len + FIXED_LEN <= text.len());
                }
            }
        }
    }

    /// I13, I14: every text of up to 300 octets with every pad length: right padding is stripped, a
    /// pad length beyond the text is refused, each of the three checks does its own about a wrong
    /// octet, first or last.
    #[test]
    fn every_pad_length_in_every_text() {
        let checks = [PaddingCheck::Strict, PaddingCheck::Count, PaddingCheck::Off];
        for len in 0..=300usize {
            for pad in 0..=255u8 {
                let mut text = vec![0xee; len];
                let rest = len.checked_sub(FIXED_LEN);
                let payload_len = rest.and_then(|rest| rest.checked_sub(usize::from(pad)));
                if let Some((_, fixed)) = text.split_last_chunk_mut::<FIXED_LEN>() {
                    *fixed = [pad, 4];
                }
                let Some(payload_len) = payload_len else {
                    let refused = checks.map(|check| strip(&text, check));
                    assert_eq!(refused, [Err(TrailerError::PadLength); 3], "{pad} of {len}");
                    continue;
                };
                for (octet, value) in text[payload_len..len - FIXED_LEN].iter_mut().zip(1..=255) {
                    *octet = value;
                }
                let right = Trailer { payload_len, next_header: 4, padding_wrong: false };
                let wrong = Trailer { padding_wrong: true, ..right };
                assert_eq!(checks.map(|check| strip(&text, check)), [Ok(right); 3]);
                let ends = [payload_len, payload_len + usize::from(pad).saturating_sub(1)];
                for at in ends.into_iter().filter(|_| pad > 0) {
                    text[at] ^= 0x10;
                    let answers = checks.map(|check| strip(&text, check));
                    let expected = [Err(TrailerError::Padding), Ok(wrong), Ok(right)];
                    assert_eq!(answers, expected, "{pad} of {len}");
                    text[at] ^= 0x10;
                }
            }
        }
    }

    /// E07, E09: the longest padding is 255 octets and counts 1, 2, 3, .. to its end.
    #[test]
    fn longest_padding() {
        let mut longest = vec![0; PAD_LEN_MAX + FIXED_LEN];
        emit(&mut longest, 4);
        let pattern: Vec<u8> = (1..=255).chain([255, 4]).collect();
        assert_eq!(longest, pattern);
    }

    /// E09: there is no writing a padding whose length does not fit its octet.
    #[test]
    #[should_panic(expected = "at most 255 octets of padding")]
    fn longer_padding_is_not_written() {
        emit(&mut [0; PAD_LEN_MAX + FIXED_LEN + 1], 4);
    }
}
