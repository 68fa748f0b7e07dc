//! The AH header (RFC 4302 section 2), and what of the headers before it the ICV covers.

use core::ops::Range;

use crate::Malformed;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// Octets of the header without its ICV.
pub const FIXED_LEN: usize = 12;
/// Octets of IP headers before AH that [`immutable`] may need: more are refused.
pub const MAX_HEADERS_LEN: usize = 256;

/// An AH header whose length holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ah {
    /// Protocol of what follows the header.
    pub next_header: u8,
    /// Octets of the header, ICV and its padding included: at least 12, a multiple of 4, at most
    /// the octets that were parsed.
    pub len: usize,
    /// The reserved field as it stands: the ICV covers it, and nothing else looks at it.
    pub reserved: u16,
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
}

impl Ah {
    /// Where the ICV and its padding lie, counted from the start of the header; the ICV is first.
    #[inline]
    #[must_use]
    pub fn icv(&self) -> Range<usize> {
        FIXED_LEN..self.len
    }
}

/// Octets of a header with an ICV of `icv_len` octets, padded to a multiple of 4 octets in IPv4 and
/// of 8 in IPv6 (RFC 4302 section 3.3.3.2.1).
#[inline]
#[must_use]
pub const fn header_len(icv_len: usize, is_v4: bool) -> usize {
    (FIXED_LEN + icv_len).next_multiple_of(if is_v4 { 4 } else { 8 })
}

/// Reads the header at the start of `bytes`, an IP payload.
///
/// # Errors
/// [`Malformed::Truncated`] when the bytes end inside the first 12 octets, [`Malformed::AhLength`]
/// when the length field is below them or beyond `bytes`.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Ah, Malformed> {
    let header: &[u8; FIXED_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
    let [next_header, words, r0, r1, s0, s1, s2, s3, q0, q1, q2, q3] = *header;
    // Words of the whole header minus 2.
    let len = (usize::from(words) + 2) * 4;
    if len < FIXED_LEN || len > bytes.len() {
        return Err(Malformed::AhLength);
    }
    Ok(Ah {
        next_header,
        len,
        reserved: u16::from_be_bytes([r0, r1]),
        spi: u32::from_be_bytes([s0, s1, s2, s3]),
        seq: u32::from_be_bytes([q0, q1, q2, q3]),
    })
}

/// Writes a header that fills `out`, its ICV and padding zero, as they are while the ICV is
/// computed.
///
/// # Panics
/// When `out` is no multiple of 4 octets, shorter than [`FIXED_LEN`], or longer than 1028 octets.
#[inline]
pub fn emit(out: &mut [u8], next_header: u8, spi: u32, seq: u32) {
    assert!(out.len().is_multiple_of(4), "whole words of AH");
    let words = (out.len() / 4).checked_sub(2).filter(|&words| words > 0);
    let words = words.and_then(|words| u8::try_from(words).ok()).expect("the length of an AH");
    out[..4].copy_from_slice(&[next_header, words, 0, 0]);
    out[4..8].copy_from_slice(&spi.to_be_bytes());
    out[8..12].copy_from_slice(&seq.to_be_bytes());
    out[12..].fill(0);
}

/// Copies the IP header and all headers in front of the AH header at `ah_at` of `packet`, an IP
/// packet, into `out` as the ICV covers them: mutable fields zeroed, predictable ones as they will
/// arrive (RFC 4302 section 3.3.3.1 and appendix A). Answers the octets written, which are `ah_at`.
///
/// # Errors
/// [`Malformed::Extension`] when the headers do not end at `ah_at`, are longer than `out`, or have
/// a fragment header or a routing header whose effect is not known; [`Malformed::Options`] when an
/// option ends behind its header.
pub fn immutable(packet: &[u8], ah_at: usize, out: &mut [u8]) -> Result<usize, Malformed> {
    let headers = packet.get(..ah_at).ok_or(Malformed::Truncated)?;
    let out = out.get_mut(..ah_at).ok_or(Malformed::Extension)?;
    out.copy_from_slice(headers);
    match out.first().map(|octet| octet >> 4) {
        Some(4) => clear_v4(out)?,
        Some(6) => clear_v6(out)?,
        Some(_) => return Err(Malformed::Version),
        None => return Err(Malformed::Truncated),
    }
    Ok(ah_at)
}

/// RFC 4302 section 3.3.3.1.1: DSCP and ECN, flags, fragment offset, time to live, and checksum are
/// zeroed, and of options what appendix A1 does not call immutable.
fn clear_v4(headers: &mut [u8]) -> Result<(), Malformed> {
    let (header, options) =
        headers.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>().ok_or(Malformed::Truncated)?;
    if usize::from(header[0] & 0x0f) * 4 != ipv4::HEADER_LEN + options.len() {
        return Err(Malformed::HeaderLength);
    }
    header[1] = 0;
    header[6..9].fill(0);
    header[10..12].fill(0);
    let mut at = 0;
    // Behind an end of options there is only padding.
    while let Some(&kind) = options.get(at).filter(|&&kind| kind != OPTION_END) {
        if kind == OPTION_NO_OPERATION {
            at += 1;
            continue;
        }
        let len = usize::from(*options.get(at + 1).ok_or(Malformed::Options)?);
        let option = options.get_mut(at..at + len).filter(|option| option.len() >= 2);
        let option = option.ok_or(Malformed::Options)?;
        if matches!(kind, OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE)
            && let Some(last) = last_of_route(option)?
        {
            header[16..].copy_from_slice(&last);
        }
        if !IMMUTABLE_OPTIONS.contains(&kind) {
            option.fill(0);
        }
        at += len;
    }
    Ok(())
}

const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;
/// Security, extended security, commercial security, router alert, and sender directed
/// multi-destination delivery (RFC 4302 appendix A1): copied flag, class 0, and number.
const IMMUTABLE_OPTIONS: [u8; 5] = [0x82, 0x85, 0x86, 0x94, 0x95];

/// The destination at the end of a source route that is not yet used up (RFC 791 section 3.1).
fn last_of_route(option: &[u8]) -> Result<Option<[u8; 4]>, Malformed> {
    let [_, _, pointer, addresses @ ..] = option else {
        return Err(Malformed::Options);
    };
    let ends = *pointer >= 4 && addresses.len().is_multiple_of(4);
    match addresses.last_chunk::<4>() {
        Some(last) if ends => Ok((usize::from(*pointer) <= option.len()).then_some(*last)),
        None if ends => Ok(None),
        _ => Err(Malformed::Options),
    }
}

/// RFC 4302 section 3.3.3.1.2: DSCP and ECN, flow label, and hop limit are zeroed, and the data of
/// options that may change; routing headers are as they will arrive.
fn clear_v6(headers: &mut [u8]) -> Result<(), Malformed> {
    let (header, extensions) =
        headers.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>().ok_or(Malformed::Truncated)?;
    header[0] = 0x60;
    header[1..4].fill(0);
    header[7] = 0;
    let mut kind = header[ipv6::NEXT_HEADER_AT];
    let mut extensions = extensions;
    while let [next, units, ..] = *extensions {
        let len = (usize::from(units) + 1) * 8;
        let (extension, behind) =
            extensions.split_at_mut_checked(len).ok_or(Malformed::Extension)?;
        match kind {
            ip::PROTOCOL_HOP_BY_HOP | ip::PROTOCOL_DESTINATION_OPTIONS => {
                clear_options_v6(&mut extension[2..])?;
            }
            ip::PROTOCOL_ROUTING => {
                let destination = header.last_chunk_mut().expect("40 octets");
                follow_route(extension, destination)?;
            }
            _ => return Err(Malformed::Extension),
        }
        kind = next;
        extensions = behind;
    }
    if extensions.is_empty() { Ok(()) } else { Err(Malformed::Extension) }
}

/// The bit of an option's type that says that its data may change on the way (RFC 8200 section
/// 4.2).
const OPTION_MAY_CHANGE: u8 = 0x20;

fn clear_options_v6(mut options: &mut [u8]) -> Result<(), Malformed> {
    while let [kind, rest @ ..] = options {
        if *kind == 0 {
            // Pad1 has no length.
            options = rest;
            continue;
        }
        let (len, data) = rest.split_first_mut().ok_or(Malformed::Options)?;
        let (data, behind) =
            data.split_at_mut_checked(usize::from(*len)).ok_or(Malformed::Options)?;
        if *kind & OPTION_MAY_CHANGE != 0 {
            data.fill(0);
        }
        options = behind;
    }
    Ok(())
}

/// Brings a routing header and the destination into the order in which they will arrive: each node
/// on the way swaps the destination with the next address of a header of type 0 (RFC 2460 section
/// 4.4), and so does the only one of type 2 (RFC 6275 section 6.4).
fn follow_route(extension: &mut [u8], destination: &mut [u8; 16]) -> Result<(), Malformed> {
    let [_, _, kind, segments_left, _, _, _, _, addresses @ ..] = extension else {
        return Err(Malformed::Extension);
    };
    let left = usize::from(*segments_left);
    if left == 0 {
        return Ok(());
    }
    let (addresses, rest) = addresses.as_chunks_mut::<16>();
    if !matches!(kind, 0 | 2) || !rest.is_empty() || left > addresses.len() {
        return Err(Malformed::Extension);
    }
    *segments_left = 0;
    let first = addresses.len() - left;
    for address in &mut addresses[first..] {
        core::mem::swap(address, destination);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    const AH: [u8; 24] = [
        6, 4, 0, 0, 0, 0, 1, 1, 0, 0, 0, 7, //
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    /// Router alert, no operation, loose source route to 192.0.2.10 by 192.0.2.9 (which is done),
    /// record route, time stamp, security, end of options.
    const OPTIONS_V4: [u8; 36] = [
        0x94, 4, 0, 0, //
        1, //
        0x83, 11, 8, 192, 0, 2, 9, 192, 0, 2, 10, //
        7, 7, 4, 0xaa, 0xaa, 0xaa, 0xaa, //
        0x44, 8, 5, 0, 1, 2, 3, 4, //
        0x82, 4, 0, 0xff, //
        0,
    ];

    /// Hop-by-hop options: router alert, an option that may change (0x26), PadN.
    const HOP_BY_HOP: [u8; 15] = [1, 5, 2, 0, 0, 0x26, 1, 10, 1, 5, 0, 0, 0, 0, 0];
    /// Destination options: PadN, and an option that may change (0x3e).
    const DESTINATION: [u8; 7] = [0, 1, 1, 0, 0x3e, 1, 0xff];

    fn routing(segments_left: u8) -> Vec<u8> {
        let mut header = vec![4, 0, segments_left, 0, 0, 0, 0];
        for last in [9, 10] {
            header.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        header
    }

    fn v6(segments_left: u8) -> Vec<u8> {
        let routing = routing(segments_left);
        testing::v6_with(&[(0, &HOP_BY_HOP), (43, &routing), (60, &DESTINATION)], 51, &AH)
    }

    fn covered(packet: &[u8], ah_at: usize) -> Result<Vec<u8>, Malformed> {
        let mut out = [0x77; MAX_HEADERS_LEN];
        let len = immutable(packet, ah_at, &mut out)?;
        assert_eq!(out[len..], [0x77; MAX_HEADERS_LEN][len..]);
        Ok(out[..len].to_vec())
    }

    /// A01, A05: with an ICV of 96 bits, payload length is 4 in both families (RFC 4302 section
    /// 2.2); longer ones are padded to 8 octets in IPv6 and to 4 in IPv4, and no further.
    #[test]
    fn header_len_is_padded_as_little_as_needed() {
        assert_eq!((header_len(12, true), header_len(12, false)), (24, 24));
        assert_eq!((header_len(16, true), header_len(16, false)), (28, 32));
        assert_eq!((header_len(24, true), header_len(24, false)), (36, 40));
        assert_eq!((header_len(32, true), header_len(32, false)), (44, 48));
        for icv_len in 0..100 {
            for (is_v4, unit) in [(true, 4), (false, 8)] {
                let len = header_len(icv_len, is_v4);
                assert!(len.is_multiple_of(unit));
                assert!((12 + icv_len..12 + icv_len + unit).contains(&len));
            }
        }
    }

    /// A01, A02: a header is written octet for octet, payload length in words minus 2, reserved
    /// and ICV zero; and nothing behind it.
    #[test]
    fn construct() {
        let mut out = [0xff; 28];
        emit(&mut out[..24], 6, 0x101, 7);
        assert_eq!(out[..24], AH);
        assert_eq!(out[24..], [0xff; 4]);
        for words in 3..=257 {
            let mut out = vec![0xff; words * 4];
            emit(&mut out, 6, 0x101, 7);
            assert_eq!(usize::from(out[1]), words - 2);
            assert_eq!(parse(&out).unwrap().icv(), 12..words * 4);
        }
    }

    /// A02: every field is read; a reserved field that is not 0 is no error.
    #[test]
    fn deconstruct() {
        let mut bytes = AH;
        bytes[2..4].copy_from_slice(&[0xbe, 0xef]);
        let expected = Ah { next_header: 6, len: 24, reserved: 0xbeef, spi: 0x101, seq: 7 };
        assert_eq!(parse(&bytes), Ok(expected));
        assert_eq!(expected.icv(), 12..24);
    }

    /// A01: lengths below the fixed header and beyond the packet are refused.
    #[test]
    fn check_len() {
        for len in 0..12 {
            assert_eq!(parse(&AH[..len]), Err(Malformed::Truncated), "{len}");
        }
        for len in 12..24 {
            assert_eq!(parse(&AH[..len]), Err(Malformed::AhLength), "{len}");
        }
        for (words, expected) in [(0, false), (1, true), (4, true), (5, false), (255, false)] {
            let mut bytes = AH;
            bytes[1] = words;
            assert_eq!(parse(&bytes).is_ok(), expected, "{words}");
        }
    }

    /// A03: the fixed header, as scapy's `zero_mutable_fields` has it.
    #[test]
    fn immutable_of_a_plain_ipv4_header() {
        let packet = testing::v4(51, &AH);
        let expected = [0x45, 0, 0, 44, 0x12, 0x34, 0, 0, 0, 51, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        assert_eq!(covered(&packet, 20).unwrap(), expected);
    }

    /// A03: options by appendix A1, and the last destination of a source route.
    #[test]
    fn immutable_of_ipv4_options() {
        let packet = testing::v4_with_options(&OPTIONS_V4, 51, &AH);
        let mut expected =
            vec![0x4e, 0, 0, 80, 0x12, 0x34, 0, 0, 0, 51, 0, 0, 192, 0, 2, 1, 192, 0, 2, 10];
        expected.extend_from_slice(&[0x94, 4, 0, 0, 1]);
        expected.extend_from_slice(&[0; 26]);
        expected.extend_from_slice(&[0x82, 4, 0, 0xff, 0]);
        assert_eq!(covered(&packet, 56).unwrap(), expected);
        // As it arrives: the route is used up, the destination is the last.
        let mut arrived = packet;
        arrived[27] = 12;
        arrived[16..20].copy_from_slice(&[192, 0, 2, 10]);
        assert_eq!(covered(&arrived, 56).unwrap(), expected);
    }

    /// A03: of all 256 option types, those that appendix A1 calls immutable are kept, others
    /// zeroed whole, types that nobody knows too.
    #[test]
    fn immutable_of_every_ipv4_option() {
        // Copied flag and number, from the table's rows under "immutable": class is 0.
        let kept = [(1, 2), (1, 5), (1, 6), (1, 20), (1, 21)].map(|(copied, n)| copied << 7 | n);
        for kind in 2..=255_u8 {
            let options = [kind, 6, 4, 1, 2, 3, 1, 0];
            let packet = testing::v4_with_options(&options, 51, &AH);
            if [131, 137].contains(&kind) {
                // 6 octets are no source route.
                assert_eq!(covered(&packet, 28), Err(Malformed::Options));
                continue;
            }
            let found = covered(&packet, 28).unwrap();
            let expected = if kept.contains(&kind) { options } else { [0, 0, 0, 0, 0, 0, 1, 0] };
            assert_eq!(found[20..], expected, "{kind}");
        }
    }

    /// A04: the sender's view, as scapy's `zero_mutable_fields` has it.
    #[test]
    fn immutable_of_ipv6_headers() {
        let mut expected = testing::v6(0, &[0; 88])[..40].to_vec();
        expected[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        expected[7] = 0;
        expected[39] = 10;
        expected.extend_from_slice(&[43, 1, 5, 2, 0, 0, 0x26, 1, 0, 1, 5, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[60, 4, 0, 0, 0, 0, 0, 0]);
        for last in [2, 9] {
            expected
                .extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        expected.extend_from_slice(&[51, 0, 1, 1, 0, 0x3e, 1, 0]);
        let packet = v6(2);
        let ah_at = packet.len() - AH.len();
        assert_eq!(covered(&packet, ah_at).unwrap(), expected);
    }

    /// A04: every node on the way sees what the receiver will: the routing header is processed as
    /// RFC 2460 section 4.4 says, address by address.
    #[test]
    fn immutable_is_the_same_on_all_of_a_route() {
        let mut packet = v6(2);
        let ah_at = packet.len() - AH.len();
        let sent = covered(&packet, ah_at).unwrap();
        for segments_left in [1, 0] {
            packet[56 + 3] = segments_left;
            let next = 56 + 8 + 16 * (2 - 1 - usize::from(segments_left));
            let (header, rest) = packet.split_at_mut(56);
            header[24..40].swap_with_slice(&mut rest[next - 56..next - 40]);
            packet[7] -= 1;
            assert_eq!(covered(&packet, ah_at).unwrap(), sent, "{segments_left}");
        }
    }

    /// Flips every bit of the headers, and says for each octet which bits the ICV does not cover.
    fn uncovered_bits(packet: &[u8], ah_at: usize) -> Vec<u8> {
        let before = covered(packet, ah_at).unwrap();
        let mut uncovered = vec![0; ah_at];
        for bit in 0..ah_at * 8 {
            let mut changed = packet.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            if covered(&changed, ah_at).as_ref() == Ok(&before) {
                uncovered[bit / 8] |= 1 << (bit % 8);
            }
        }
        uncovered
    }

    /// A03: the bits that may change are exactly those of DSCP, ECN, flags, offset, time to live,
    /// checksum, and of mutable options all but what says where they end and what they are.
    #[test]
    fn immutable_covers_every_other_bit_of_ipv4() {
        let packet = testing::v4_with_options(&OPTIONS_V4, 51, &AH);
        let mut expected = [0; 56];
        expected[1] = 0xff;
        expected[6..9].fill(0xff);
        expected[10..12].fill(0xff);
        // The destination is that of the route, which is not used up.
        expected[16..20].fill(0xff);
        // The route: all but type, length, pointer and last destination.
        expected[28..32].fill(0xff);
        // Record route and time stamp: their data.
        expected[38..43].fill(0xff);
        expected[45..51].fill(0xff);
        let found = uncovered_bits(&packet, 56);
        for at in 0..56 {
            // Types and lengths of mutable options are covered by their zeros alone, and pointers
            // of a route by whether it is used up.
            if ![25, 26, 27, 36, 37, 43, 44].contains(&at) {
                assert_eq!(found[at], expected[at], "octet {at}");
            }
        }
    }

    /// A04: the bits that may change are exactly those of DSCP, ECN, flow label, hop limit, and of
    /// the data of options that may change.
    #[test]
    fn immutable_covers_every_other_bit_of_ipv6() {
        let packet = v6(0);
        let ah_at = packet.len() - AH.len();
        let mut expected = vec![0; ah_at];
        // The version is what the headers were parsed by; the rest of the first word may change.
        expected[0] = 0x0f;
        expected[1..4].fill(0xff);
        expected[7] = 0xff;
        expected[48] = 0xff;
        expected[ah_at - 1] = 0xff;
        assert_eq!(uncovered_bits(&packet, ah_at), expected);
    }

    /// Headers that cannot be covered are refused under their names.
    #[test]
    fn immutable_refuses_what_it_does_not_know() {
        let v4 = testing::v4_with_options(&OPTIONS_V4, 51, &AH);
        assert_eq!(covered(&v4, 52), Err(Malformed::HeaderLength));
        assert_eq!(covered(&v4, 90), Err(Malformed::Truncated));
        assert_eq!(covered(&[0x50; 60], 40), Err(Malformed::Version));
        assert_eq!(immutable(&v4, 56, &mut [0; 55]), Err(Malformed::Extension));
        for option in [[7, 1, 0, 0], [7, 0, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7], [0x83, 3, 3, 0]] {
            let packet = testing::v4_with_options(&option, 51, &AH);
            assert_eq!(covered(&packet, 24), Err(Malformed::Options), "{option:?}");
        }
        let fragment = testing::v6_with(&[(44, testing::WHOLE)], 51, &AH);
        assert_eq!(covered(&fragment, 48), Err(Malformed::Extension));
        assert_eq!(covered(&v6(0), 41), Err(Malformed::Extension));
        assert_eq!(covered(&v6(3), 104), Err(Malformed::Extension));
        let mut unknown = v6(1);
        unknown[58] = 1;
        assert_eq!(covered(&unknown, 104), Err(Malformed::Extension));
        for options in [[0, 1, 5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0, 1, 2, 0, 0, 1, 1]] {
            let packet = testing::v6_with(&[(60, &options)], 51, &AH);
            assert_eq!(covered(&packet, 48), Err(Malformed::Options), "{options:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// No bytes make the parser panic, and its length lies inside them.
        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(ah) = parse(&bytes) {
                prop_assert!(ah.icv().end <= bytes.len() && ah.len >= 12);
            }
        }

        /// No packet makes it panic, and it is done in one go: what is covered covers itself.
        #[test]
        fn immutable_never_panics(
            six: bool,
            options in proptest::collection::vec(any::<u8>(), 0..80),
            kind in prop_oneof![Just(0), Just(43), Just(60)],
            ah_at in 0..200_usize,
        ) {
            let packet = if six {
                testing::v6(kind, &options)
            } else {
                let words = options.len().min(40) / 4 * 4;
                testing::v4_with_options(&options[..words], 51, &AH)
            };
            _ = covered(&packet, ah_at);
            let headers = if six { packet.len() } else { packet.len() - AH.len() };
            if let Ok(once) = covered(&packet, headers) {
                prop_assert_eq!(once.len(), headers);
                if six {
                    prop_assert_eq!(covered(&once, headers), Ok(once.clone()));
                }
            }
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(
            (next_header, spi, seq) in any::<(u8, u32, u32)>(),
            words in 3..=20_usize,
        ) {
            let mut out = [0xff; 80];
            emit(&mut out[..words * 4], next_header, spi, seq);
            let expected = Ah { next_header, len: words * 4, reserved: 0, spi, seq };
            prop_assert_eq!(parse(&out), Ok(expected));
        }
    }
}
