//! Where an algorithm puts things in a packet: copied into each SA, so that no packet asks the
//! algorithm.
//!
//! ```text
//! ESP  | SPI(4) seq(4) | IV | payload, padding, pad length, next header | ICV |
//! AH   | next(1) len(1) reserved(2) SPI(4) seq(4) | ICV field | alignment | payload
//! ```
//!
//! With an IPv6 outer header the text of ESP begins a multiple of 8 octets behind the SPI (RFC 4303
//! section 2.3); with the IVs of 0, 8 and 16 octets that there are it always does.

use culvert_aead::Algorithm;
use culvert_aead::Protocol;

use crate::trailer;

/// Octets of SPI and sequence number: what precedes the IV of ESP.
pub const ESP_FIXED_LEN: usize = 8;
/// Octets of an AH header in front of its ICV field (RFC 4302 section 2).
pub const AH_FIXED_LEN: usize = 12;

/// The lengths of one SA's packets, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// ESP or AH.
    pub protocol: Protocol,
    /// ESP: where the text starts, from the SPI: 8 and the IV. AH: where the ICV field starts.
    pub text_at: u8,
    /// ESP: ICV behind the text. AH: the ICV field, without the padding that aligns it.
    pub icv_len: u8,
    /// What the ESP text is a multiple of: a power of two, 4 or more. 4 for AH.
    pub block: u8,
}

impl Layout {
    /// That of AES-GCM and ChaCha20-Poly1305 with the longest ICV: what nearly all packets have.
    pub const COMMON: Layout =
        Layout { protocol: Protocol::Esp, text_at: 16, icv_len: 16, block: 4 };

    /// The layout of an algorithm's packets.
    #[must_use]
    pub fn of(algorithm: Algorithm) -> Layout {
        let octet = |len: usize| u8::try_from(len).expect("lengths of algorithms are small");
        match algorithm.protocol() {
            Protocol::Esp => Layout {
                protocol: Protocol::Esp,
                text_at: octet(algorithm.text_at()),
                icv_len: octet(algorithm.icv_len()),
                block: octet(algorithm.block_len()),
            },
            Protocol::Ah => Layout {
                protocol: Protocol::Ah,
                text_at: octet(AH_FIXED_LEN),
                icv_len: octet(algorithm.ah_icv_field_len()),
                block: octet(trailer::ALIGNMENT),
            },
        }
    }

    /// Octets of padding behind `payload_len` octets of payload.
    #[inline]
    #[must_use]
    pub const fn pad_len(self, payload_len: usize) -> usize {
        trailer::pad_len(payload_len, self.block as usize)
    }

    /// Octets behind `payload_len` octets of payload: padding, pad length, next header, ICV. None
    /// with AH.
    #[inline]
    #[must_use]
    pub const fn tail_len(self, payload_len: usize) -> usize {
        match self.protocol {
            Protocol::Esp => self.pad_len(payload_len) + trailer::FIXED_LEN + self.icv_len as usize,
            Protocol::Ah => 0,
        }
    }

    /// Writes what stands behind a payload: `tfc_len` zeroes that hide its length (RFC 4303
    /// section 2.7), then padding, pad length and next header. The room for the ICV is left as it
    /// is. `tail` is `tfc_len + tail_len(payload_len + tfc_len)` octets.
    ///
    /// # Panics
    /// When `tail` is shorter than that, or has room for more than 255 octets of padding: our own
    /// error.
    #[inline]
    pub fn emit_tail(self, tail: &mut [u8], tfc_len: usize, next_header: u8) {
        let end = tail.len() - usize::from(self.icv_len);
        tail[..tfc_len].fill(0);
        trailer::emit(&mut tail[tfc_len..end], next_header);
    }

    /// Writes padding, pad length and next header into `tail`, which is
    /// [`tail_len`](Self::tail_len) octets of ESP, and returns how many octets those are. What
    /// little of the room for the ICV is written too, the ICV covers later.
    ///
    /// # Panics
    /// When `tail` has no room for an ICV, or for more than 255 octets of padding: our own error.
    #[inline(always)]
    pub fn put_tail(self, tail: &mut [u8], next_header: u8) -> usize {
        let text_len = tail.len() - usize::from(self.icv_len);
        match tail.first_chunk_mut() {
            Some(word) if text_len <= trailer::WORD_LEN_MAX => {
                *word = trailer::word(text_len - trailer::FIXED_LEN, next_header).to_le_bytes();
            }
            _ => trailer::emit(&mut tail[..text_len], next_header),
        }
        text_len
    }

    /// Octets of the AH header, its ICV field aligned (RFC 4302 section 2.6): to 4 over IPv4, to 8
    /// over IPv6. For ESP, whose header needs no alignment, those in front of the text.
    #[inline]
    #[must_use]
    pub const fn header_len(self, is_v4: bool) -> usize {
        match self.protocol {
            Protocol::Esp => self.text_at as usize,
            Protocol::Ah => {
                let len = self.text_at as usize + self.icv_len as usize;
                len.next_multiple_of(if is_v4 { 4 } else { 8 })
            }
        }
    }

    /// Octets from the SPI (AH: from the AH header) to the end, around `payload_len` octets.
    #[inline]
    #[must_use]
    pub const fn sealed_len(self, payload_len: usize, is_v4: bool) -> usize {
        self.header_len(is_v4) + payload_len + self.tail_len(payload_len)
    }

    /// Largest payload whose [`sealed_len`](Self::sealed_len) is at most `room`; `None` when there
    /// is none.
    #[must_use]
    pub const fn payload_len_max(self, room: usize, is_v4: bool) -> Option<usize> {
        match self.protocol {
            Protocol::Ah => room.checked_sub(self.header_len(is_v4)),
            Protocol::Esp => {
                let Some(text) = room.checked_sub(self.text_at as usize + self.icv_len as usize)
                else {
                    return None;
                };
                (text - text % self.block as usize).checked_sub(trailer::FIXED_LEN)
            }
        }
    }

    /// Octets of the shortest packet, from the SPI or the AH header: empty payload.
    #[inline]
    #[must_use]
    pub const fn min_len(self) -> usize {
        match self.protocol {
            Protocol::Esp => (self.text_at + self.block) as usize + self.icv_len as usize,
            Protocol::Ah => self.header_len(true),
        }
    }

    /// Octets of text in an ESP packet of `len` octets from the SPI; `None` when no packet of this
    /// SA is so long: shorter than [`min_len`](Self::min_len), or the text is no whole number of
    /// blocks.
    #[inline]
    #[must_use]
    pub const fn text_len(self, len: usize) -> Option<usize> {
        let Some(text) = len.checked_sub(self.text_at as usize + self.icv_len as usize) else {
            return None;
        };
        let block = self.block as usize;
        if text < block || text & (block - 1) != 0 { None } else { Some(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> impl Iterator<Item = (Algorithm, Layout)> {
        let all = Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH);
        all.map(|algorithm| (algorithm, Layout::of(algorithm)))
    }

    fn esp() -> impl Iterator<Item = (Algorithm, Layout)> {
        every().filter(|(_, layout)| layout.protocol == Protocol::Esp)
    }

    fn of(keyword: &str) -> Layout {
        every().find(|(algorithm, _)| algorithm.keyword() == keyword).expect("a keyword").1
    }

    /// The numbers of RFC 4106, 3602 with 4868, 8750 and 2410.
    #[test]
    fn esp_layouts() {
        let lengths = |keyword| {
            let Layout { protocol, text_at, icv_len, block } = of(keyword);
            assert_eq!(protocol, Protocol::Esp);
            (text_at, icv_len, block)
        };
        assert_eq!(lengths("aes128gcm16"), (16, 16, 4));
        assert_eq!(of("aes128gcm16"), Layout::COMMON);
        assert_eq!(lengths("aes256gcm8"), (16, 8, 4));
        assert_eq!(lengths("aes128-sha256"), (24, 16, 16));
        assert_eq!(lengths("aes256gcm16iiv"), (8, 16, 4));
        assert_eq!(lengths("null-sha384"), (8, 24, 4));
    }

    /// E08, E09: every payload up to 1500 octets ends with pad length and next header on a multiple
    /// of 4 from the SPI, and of the block; the padding is as short as can be.
    #[test]
    fn every_text_ends_aligned() {
        for (algorithm, layout) in esp() {
            for payload_len in 0..=1500 {
                let pad_len = layout.pad_len(payload_len);
                let text = payload_len + pad_len + trailer::FIXED_LEN;
                let text_end = usize::from(layout.text_at) + text;
                assert!(text_end.is_multiple_of(4) && text.is_multiple_of(layout.block.into()));
                assert!(pad_len < usize::from(layout.block) && pad_len <= trailer::PAD_LEN_MAX);
                let sealed = layout.sealed_len(payload_len, true);
                assert_eq!(sealed, text_end + usize::from(layout.icv_len), "{algorithm}");
                assert_eq!(layout.text_len(sealed), Some(text), "{algorithm}");
            }
        }
    }

    /// Of all lengths just those are taken that a sender can make.
    #[test]
    fn other_lengths_are_no_packets() {
        for (algorithm, layout) in esp() {
            let made: Vec<usize> = (0..300).map(|len| layout.sealed_len(len, true)).collect();
            assert_eq!(made.iter().min(), Some(&layout.min_len()));
            for len in 0..300 {
                assert_eq!(
                    layout.text_len(len).is_some(),
                    made.contains(&len),
                    "{algorithm} {len}"
                );
            }
        }
    }

    /// The largest payload for a room fits it, and one octet more does not.
    #[test]
    fn largest_payload() {
        for (algorithm, layout) in every() {
            for room in 0..1600 {
                let is_v4 = room % 2 == 0;
                match layout.payload_len_max(room, is_v4) {
                    Some(len) => {
                        assert!(layout.sealed_len(len, is_v4) <= room, "{algorithm} in {room}");
                        assert!(layout.sealed_len(len + 1, is_v4) > room, "{algorithm} in {room}");
                    }
                    None => assert!(layout.sealed_len(0, is_v4) > room, "{algorithm} in {room}"),
                }
            }
        }
    }

    /// E19: behind the SPI the text starts on a multiple of 8 octets, as IPv6 asks.
    #[test]
    fn text_is_aligned_for_ipv6() {
        assert!(esp().all(|(_, layout)| layout.text_at.is_multiple_of(8)));
    }

    /// A05: an AH header is a multiple of 4 octets over IPv4 and of 8 over IPv6, and not longer
    /// than that asks. HMAC-SHA-256-128 has no padding over IPv4 and 4 octets over IPv6 (RFC 4868
    /// section 2.6: 12 + 16).
    #[test]
    fn ah_headers_are_aligned() {
        let ah = |(_, layout): &(_, Layout)| layout.protocol == Protocol::Ah;
        assert_eq!(every().filter(ah).count(), Algorithm::ALL_AH.len());
        for (algorithm, layout) in every().filter(ah) {
            let bare = 12 + algorithm.ah_icv_field_len();
            for (is_v4, alignment) in [(true, 4), (false, 8)] {
                let len = layout.header_len(is_v4);
                assert!(len.is_multiple_of(alignment) && len - bare < alignment, "{algorithm}");
            }
            assert_eq!(layout.tail_len(77), 0);
        }
        let sha256 = Layout::of(Algorithm::AhSha256);
        assert_eq!((sha256.header_len(true), sha256.header_len(false)), (28, 32));
    }

    /// E13: padding that hides the length stands between payload and ESP padding, as zeroes.
    #[test]
    fn tail_order() {
        let layout = of("aes128-sha256");
        let (payload_len, tfc_len) = (5, 3);
        let mut tail = vec![0xaa; tfc_len + layout.tail_len(payload_len + tfc_len)];
        layout.emit_tail(&mut tail, tfc_len, 41);
        let icv = [0xaa; 16];
        let expected = [&[0, 0, 0][..], &[1, 2, 3, 4, 5, 6, 6, 41], &icv].concat();
        assert_eq!((tail, 5 + 3 + 6 + 2), (expected, 16));
    }
}
