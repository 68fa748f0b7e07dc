//! Fragmentation (RFC 791 section 3.2, RFC 8200 section 4.5), and the header work of reassembly.

use thiserror::Error;

use crate::Malformed;
use crate::extension;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// Why a packet cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfragmentable {
    /// An IPv4 packet has DF set.
    #[error("DF: expected to be clear")]
    DontFragment,
    /// An IPv6 packet has a fragment header: only its source adds that.
    #[error("IPv6 packet: expected one without a fragment header")]
    Fragmented,
    /// The MTU has no room for the headers and 8 octets; in IPv6, for all extension headers and the
    /// header of the upper layer, which must be in the first fragment (RFC 8200 section 4.5).
    #[error("MTU: expected room for the headers and 8 octets of payload")]
    Mtu,
    /// The packet's headers contradict themselves.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How a packet is split: an iterator over its pieces, in order, without gaps.
#[derive(Clone, Debug)]
pub struct Pieces {
    /// Octets of a fragment at most.
    mtu: usize,
    /// Offset of the packet's end.
    end: usize,
    /// MF of the last piece.
    more: bool,
    /// Octets of headers in every fragment but the first.
    rest_headers_len: usize,
    /// The next piece; none is left when it is empty.
    next: Piece,
}

/// One piece of a packet that is to be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Octets of headers in the packet.
    source_headers_len: usize,
    /// Offset of the octet that announces the IPv6 fragment header.
    announced_at: usize,
    /// IPv6 identification.
    id: u32,
    /// Octets of headers in the fragment, an IPv6 fragment header included.
    headers_len: usize,
    /// Offset in the packet of the payload that goes into the fragment.
    payload_at: usize,
    /// Octets of it.
    payload_len: usize,
    /// Octets of the whole packet's payload in front of it: a multiple of 8.
    offset: usize,
    /// True when more fragments follow.
    more: bool,
    /// True for the first piece, which has all IPv4 options.
    first: bool,
    /// True when the piece is all of the packet, which then stays as it is.
    whole: bool,
}

impl Piece {
    /// Octets of the fragment, its headers included: what [`write_piece`] writes.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.headers_len + self.payload_len
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut piece = self.next;
        let left = self.end - piece.payload_at;
        if left == 0 && !piece.whole {
            return None;
        }
        if !piece.whole {
            let room = self.mtu - piece.headers_len;
            let last = left <= room;
            piece.payload_len = if last { left } else { room & !7 };
            piece.more = !last || self.more;
        }
        self.next = Piece {
            payload_at: piece.payload_at + piece.payload_len,
            offset: piece.offset + piece.payload_len,
            headers_len: self.rest_headers_len,
            first: false,
            whole: false,
            ..piece
        };
        Some(piece)
    }
}

/// Plans the fragments of `packet`, which was parsed as `parsed`, for links that carry `mtu`
/// octets.
///
/// An IPv4 packet may be a fragment itself, and keeps its identification; an IPv6 packet is one of
/// our own, and its fragments get `id`. A packet that fits is one piece, itself.
///
/// # Errors
/// As [`Unfragmentable`] says.
pub fn pieces(
    packet: &[u8],
    parsed: &ip::Packet,
    mtu: usize,
    id: u32,
) -> Result<Pieces, Unfragmentable> {
    let end = parsed.total_len();
    let packet = packet.get(..end).ok_or(Malformed::Truncated)?;
    let insertion = extension::insertion(packet, parsed)?;
    let source_headers_len = insertion.insert_at;
    let whole = end <= mtu;
    let (base, more, headers_len, rest_headers_len, first_end) = match parsed {
        ip::Packet::V4(header) => {
            if header.dont_fragment && !whole {
                return Err(Unfragmentable::DontFragment);
            }
            let len = end - header.header_len;
            let base = usize::from(header.fragment_offset) * 8;
            let ends_well = !header.more_fragments || len.is_multiple_of(8);
            if !ends_well || base + len > usize::from(u16::MAX) {
                return Err(Malformed::Fragment.into());
            }
            let copied = copied_options(&packet[ipv4::HEADER_LEN..header.header_len])?;
            let rest = ipv4::HEADER_LEN + copied.as_slice().len();
            (base, header.more_fragments, header.header_len, rest, 0)
        }
        ip::Packet::V6(header) => {
            let chain = extension::walk(packet, header)?;
            if chain.fragment.is_some() && !whole {
                return Err(Unfragmentable::Fragmented);
            }
            let len = source_headers_len + extension::FRAGMENT_HEADER_LEN;
            (0, false, len, len, end.min(chain.upper_at + upper_header_len(chain.protocol)))
        }
    };
    // The first headers are the longest. What is whole keeps the payload's place.
    let (headers_len, payload_len) =
        if whole { (source_headers_len, end - source_headers_len) } else { (headers_len, 0) };
    if !whole
        && (mtu < headers_len + 8 || source_headers_len + ((mtu - headers_len) & !7) < first_end)
    {
        return Err(Unfragmentable::Mtu);
    }
    let next = Piece {
        source_headers_len,
        announced_at: insertion.announced_at,
        id,
        headers_len,
        payload_at: source_headers_len,
        payload_len,
        offset: base,
        more,
        first: true,
        whole,
    };
    Ok(Pieces { mtu, end, more, rest_headers_len, next })
}

/// Octets of an upper layer's header that belong to the header chain (RFC 7112 section 3): the
/// fixed part, 8 where that is not known.
fn upper_header_len(protocol: u8) -> usize {
    match protocol {
        ip::PROTOCOL_TCP => 20,
        ip::PROTOCOL_SCTP | ip::PROTOCOL_DCCP => 12,
        _ => 8,
    }
}

/// Writes a fragment of `packet` into the first [`Piece::total_len`] octets of `out`; answers that
/// length.
///
/// # Panics
/// When `out` is shorter, or `piece` is not of `packet`.
pub fn write_piece(out: &mut [u8], packet: &[u8], piece: &Piece) -> usize {
    let out = &mut out[..piece.total_len()];
    let (headers, payload) = out.split_at_mut(piece.headers_len);
    payload.copy_from_slice(&packet[piece.payload_at..][..piece.payload_len]);
    let source = &packet[..piece.source_headers_len];
    if piece.whole {
        headers.copy_from_slice(source);
    } else if source[0] >> 4 == 4 {
        write_headers_v4(headers, source, piece);
    } else {
        write_headers_v6(headers, source, piece);
    }
    out.len()
}

fn write_headers_v4(out: &mut [u8], source: &[u8], piece: &Piece) {
    let (header, options) = source.split_at(ipv4::HEADER_LEN);
    out[..ipv4::HEADER_LEN].copy_from_slice(header);
    let total_len = as_u16(piece.total_len());
    let offset = as_u16(piece.offset);
    if piece.first {
        ipv4::set_fragment(out, options, total_len, offset, piece.more);
    } else {
        let copied = copied_options(options).expect("options that were read before");
        ipv4::set_fragment(out, copied.as_slice(), total_len, offset, piece.more);
    }
}

fn write_headers_v6(out: &mut [u8], source: &[u8], piece: &Piece) {
    let (headers, fragment) = out.split_at_mut(source.len());
    headers.copy_from_slice(source);
    let next = headers[piece.announced_at];
    headers[piece.announced_at] = ip::PROTOCOL_FRAGMENT;
    ipv6::set_payload_len(headers, as_u16(piece.total_len() - ipv6::HEADER_LEN));
    let [o0, o1] = (as_u16(piece.offset) | u16::from(piece.more)).to_be_bytes();
    fragment[..4].copy_from_slice(&[next, 0, o0, o1]);
    fragment[4..].copy_from_slice(&piece.id.to_be_bytes());
}

/// No fragment, and no offset in one, is longer than the packet it is of.
fn as_u16(octets: usize) -> u16 {
    u16::try_from(octets).expect("at most 65535 octets")
}

/// IPv4 options that go into every fragment, padded to words with ends of options.
struct CopiedOptions {
    octets: [u8; 40],
    len: usize,
}

impl CopiedOptions {
    fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The copied flag of an option's type (RFC 791 section 3.1).
const OPTION_COPIED: u8 = 0x80;

fn copied_options(mut options: &[u8]) -> Result<CopiedOptions, Malformed> {
    let mut copied = CopiedOptions { octets: [0; 40], len: 0 };
    loop {
        let len = match *options {
            // An end of options, which only padding follows.
            [] | [0, ..] => break,
            // No operation has no length.
            [1, ..] => 1,
            [_, len @ 2..=u8::MAX, ..] if usize::from(len) <= options.len() => usize::from(len),
            _ => return Err(Malformed::Options),
        };
        let (option, rest) = options.split_at(len);
        if option[0] & OPTION_COPIED != 0 {
            // 40 octets of options at most, for the header length has 4 bits.
            copied.octets[copied.len..copied.len + len].copy_from_slice(option);
            copied.len += len;
        }
        options = rest;
    }
    copied.len = copied.len.next_multiple_of(4);
    Ok(copied)
}

/// Makes a whole IP packet of `packet`: the headers of a first fragment with the payloads of all
/// fragments behind them, in order and without gaps. Answers the offset at which the whole packet
/// begins: 0 in IPv4; 8 in IPv6, whose fragment header is taken out.
///
/// # Errors
/// [`Malformed`] when the headers are not those of a first fragment, or the whole is longer than an
/// IP packet can be.
pub fn finish_reassembly(packet: &mut [u8]) -> Result<usize, Malformed> {
    let too_long = |_| Malformed::TotalLength;
    match ip::parse(packet)? {
        ip::Packet::V4(header) => {
            if header.fragment_offset != 0 {
                return Err(Malformed::Fragment);
            }
            let total_len = u16::try_from(packet.len()).map_err(too_long)?;
            ipv4::set_whole(packet, total_len);
            Ok(0)
        }
        ip::Packet::V6(header) => {
            let fragment = extension::walk(packet, &header)?
                .fragment
                .filter(|fragment| fragment.offset == 0)
                .ok_or(Malformed::Fragment)?;
            let removed = extension::FRAGMENT_HEADER_LEN;
            let payload_len = packet.len() - removed - ipv6::HEADER_LEN;
            let payload_len = u16::try_from(payload_len).map_err(too_long)?;
            packet[fragment.announced_at] = fragment.protocol;
            packet.copy_within(..fragment.at, removed);
            ipv6::set_payload_len(&mut packet[removed..], payload_len);
            Ok(removed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::testing::OPTIONS;
    use crate::testing::ROUTING;

    fn split(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Unfragmentable> {
        let plan = pieces(packet, &testing::parse(packet), mtu, 0xdead_beef)?;
        let fragments = plan.map(|piece| {
            let mut out = vec![0xa5; piece.total_len() + 3];
            assert_eq!(write_piece(&mut out, packet, &piece), piece.total_len());
            assert_eq!(out.split_off(piece.total_len()), [0xa5; 3]);
            out
        });
        Ok(fragments.collect())
    }

    /// Octets from `start`, as many as there are up to `end`.
    fn count(start: u8, end: u8) -> Vec<u8> {
        (start..end).collect()
    }

    /// IPv4 fragments octet for octet, as scapy builds them: 100 octets in pieces of 40.
    #[test]
    fn ipv4_fragments_equal_scapy() {
        let packet = testing::v4(6, &count(0, 100));
        let ends = [192, 0, 2, 1, 192, 0, 2, 2];
        let header = |start: [u8; 12]| [&start[..], &ends].concat();
        let expected = [
            [header([0x45, 0x2e, 0, 60, 0x12, 0x34, 0x20, 0, 64, 6, 0xc4, 0x56]), count(0, 40)],
            [header([0x45, 0x2e, 0, 60, 0x12, 0x34, 0x20, 5, 64, 6, 0xc4, 0x51]), count(40, 80)],
            [header([0x45, 0x2e, 0, 40, 0x12, 0x34, 0, 10, 64, 6, 0xe4, 0x60]), count(80, 100)],
        ]
        .map(|parts| parts.concat());
        // Any MTU that has room for 40 octets, but not for 48.
        for mtu in 60..68 {
            assert_eq!(split(&packet, mtu).unwrap(), expected, "{mtu}");
        }
    }

    /// IPv6 fragments octet for octet, as scapy builds them: the fragment header comes behind
    /// hop-by-hop options, and destination options are payload.
    #[test]
    fn ipv6_fragments_equal_scapy() {
        let packet = testing::v6_with(&[(0, OPTIONS), (60, OPTIONS)], 6, &count(0, 100));
        let header = |len: u8, fragment: [u8; 4]| {
            let mut header = testing::v6(0, &[])[..40].to_vec();
            header[5] = len;
            header.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
            header.extend_from_slice(&fragment);
            header.extend_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
            header
        };
        let options = vec![6, 0, 1, 4, 0, 0, 0, 0];
        let expected = [
            [header(0x40, [60, 0, 0, 1]), options, count(0, 0x28)].concat(),
            [header(0x40, [60, 0, 0, 0x31]), count(0x28, 0x58)].concat(),
            [header(0x1c, [60, 0, 0, 0x60]), count(0x58, 100)].concat(),
        ];
        for mtu in 104..112 {
            assert_eq!(split(&packet, mtu).unwrap(), expected, "{mtu}");
        }
    }

    /// In IPv6 the routing header, and destination options before it, are in every fragment.
    #[test]
    fn ipv6_fragments_repeat_the_routing_header() {
        let extensions: [(u8, &[u8]); 3] = [(60, OPTIONS), (43, ROUTING), (60, OPTIONS)];
        let packet = testing::v6_with(&extensions, 6, &count(0, 100));
        for fragment in split(&packet, 150).unwrap() {
            assert_eq!(fragment[8..48], packet[8..48]);
            assert_eq!(fragment[48..72], [&[44][..], ROUTING].concat());
            assert_eq!(fragment[72..74], [60, 0]);
        }
    }

    /// Of IPv4 options only those with the copied flag are in fragments but the first (RFC 791
    /// section 3.1): router alert is, record route and no operation are not.
    #[test]
    fn ipv4_options_are_copied_by_their_flag() {
        let options = [7, 7, 4, 9, 9, 9, 9, 1, 0x94, 4, 0, 0, 0x82, 3, 5, 0];
        let packet = testing::v4_with_options(&options, 6, &count(0, 80));
        let fragments = split(&packet, 60).unwrap();
        assert_eq!(fragments.len(), 3);
        assert_eq!(fragments[0][0], 0x49);
        assert_eq!(fragments[0][20..], [&options[..], &count(0, 24)].concat());
        let copied = [0x94, 4, 0, 0, 0x82, 3, 5, 0];
        assert_eq!(fragments[1][20..], [&copied[..], &count(24, 56)].concat());
        assert_eq!(fragments[2][20..], [&copied[..], &count(56, 80)].concat());
        for fragment in &fragments[1..] {
            assert_eq!(fragment[0], 0x47);
        }
        for fragment in &fragments {
            assert!(crate::ipv4::parse(fragment).is_ok(), "checksums and lengths hold");
        }
    }

    /// A fragment is split once more where it is: offsets go on, and only the last of the last has
    /// no MF.
    #[test]
    fn ipv4_fragments_are_split_once_more() {
        for (flags_and_offset, last) in [(0x2003, 0x2005), (0x0003, 0x0005)] {
            let packet = testing::v4_fragment(flags_and_offset, 17, &count(0, 24));
            let fragments = split(&packet, 40).unwrap();
            let words: Vec<u16> =
                fragments.iter().map(|f| u16::from_be_bytes([f[6], f[7]])).collect();
            assert_eq!(words, [0x2003, if last == 0x2005 { 0x2005 } else { 5 }]);
        }
        let odd = testing::v4_fragment(0x2003, 17, &count(0, 23));
        assert_eq!(split(&odd, 40), Err(Malformed::Fragment.into()));
        let beyond = testing::v4_fragment(0x1fff, 17, &count(0, 24));
        assert_eq!(split(&beyond, 40), Err(Malformed::Fragment.into()));
    }

    /// What fits stays as it is, DF and all.
    #[test]
    fn what_fits_is_one_piece() {
        let mut packets = vec![testing::v4(6, &count(0, 100)), testing::v6(6, &count(0, 100))];
        packets.push(testing::v4_fragment(0x4000, 6, &[1; 100]));
        packets.push(testing::v6_with(&[(44, testing::FIRST)], 6, &[1; 104]));
        packets.push(testing::v4(6, &[]));
        for packet in packets {
            let mut padded = packet.clone();
            padded.extend_from_slice(&[0; 4]);
            for mtu in [packet.len(), packet.len() + 1, 1 << 20] {
                assert_eq!(split(&padded, mtu).unwrap(), [&packet[..]]);
            }
        }
    }

    /// What must not be fragmented is not, and says why.
    #[test]
    fn unfragmentable_packets_are_refused() {
        let dont = testing::v4_fragment(0x4000, 6, &[1; 100]);
        assert_eq!(split(&dont, 119), Err(Unfragmentable::DontFragment));
        let fragment = testing::v6_with(&[(44, testing::WHOLE)], 6, &[1; 100]);
        assert_eq!(split(&fragment, 147), Err(Unfragmentable::Fragmented));
        assert_eq!(split(&testing::v4(6, &[1; 100]), 27), Err(Unfragmentable::Mtu));
        assert_eq!(split(&testing::v4(6, &[1; 100]), 28).unwrap().len(), 13);
        assert_eq!(split(&testing::v6(50, &[1; 100]), 55), Err(Unfragmentable::Mtu));
        assert_eq!(split(&testing::v6(50, &[1; 100]), 56).unwrap().len(), 13);
        let options = testing::v4_with_options(&[7, 5, 0, 0], 6, &[1; 100]);
        assert_eq!(split(&options, 60), Err(Malformed::Options.into()));
    }

    /// In IPv6 all headers, that of the upper layer too, are in the first fragment (RFC 8200
    /// section 4.5, RFC 7112 section 5): destination options are not cut in two, nor a TCP header.
    #[test]
    fn ipv6_first_fragments_hold_all_headers() {
        for (extensions, protocol, least) in [
            (0, 6, 40 + 8 + 24),
            (0, 17, 40 + 8 + 8),
            (1, 6, 40 + 8 + 8 + 24),
            (3, 17, 40 + 8 + 24 + 8),
            (3, 132, 40 + 8 + 24 + 16),
        ] {
            let headers = vec![(60, OPTIONS); extensions];
            let packet = testing::v6_with(&headers, protocol, &[1; 200]);
            assert_eq!(split(&packet, least - 1), Err(Unfragmentable::Mtu), "{extensions}");
            let first = split(&packet, least).unwrap().remove(0);
            assert_eq!(first.len(), least);
        }
        // What has no more behind its headers is no shorter than that.
        let short = testing::v6_with(&[(60, OPTIONS)], 6, &[1; 12]);
        assert_eq!(split(&short, 56), Err(Unfragmentable::Mtu));
    }

    /// Puts payloads behind the headers of the first fragment, as a reassembler does.
    fn gather(fragments: &[Vec<u8>], headers_len: usize) -> Vec<u8> {
        let mut whole = fragments[0].clone();
        for fragment in &fragments[1..] {
            whole.extend_from_slice(&fragment[headers_len..]);
        }
        whole
    }

    /// I02: headers that a fragmentation made give the packet back.
    #[test]
    fn reassembly_restores_the_packet() {
        let packet = testing::v4(50, &count(0, 100));
        let mut whole = gather(&split(&packet, 60).unwrap(), 20);
        assert_eq!(finish_reassembly(&mut whole), Ok(0));
        assert_eq!(whole, packet);
        let packet = testing::v6_with(&[(0, OPTIONS), (60, OPTIONS)], 50, &count(0, 100));
        let mut whole = gather(&split(&packet, 104).unwrap(), 56);
        assert_eq!(finish_reassembly(&mut whole), Ok(8));
        assert_eq!(whole[8..], packet);
        // RFC 6946: a fragment that is the whole packet.
        let mut atomic = testing::v6_with(&[(44, testing::WHOLE)], 50, &count(0, 9));
        assert_eq!(finish_reassembly(&mut atomic), Ok(8));
        assert_eq!(atomic[8..], testing::v6(50, &count(0, 9)));
    }

    /// I02: other fragments' headers are refused, and packets longer than IP allows.
    #[test]
    fn reassembly_refuses_what_is_no_first_fragment() {
        let mut later = testing::v4_fragment(1, 50, &[0; 16]);
        assert_eq!(finish_reassembly(&mut later), Err(Malformed::Fragment));
        let mut later = testing::v6_with(&[(44, testing::LAST)], 50, &[0; 16]);
        assert_eq!(finish_reassembly(&mut later), Err(Malformed::Fragment));
        let mut none = testing::v6(50, &[0; 16]);
        assert_eq!(finish_reassembly(&mut none), Err(Malformed::Fragment));
        let mut long = testing::v4_fragment(0x2000, 50, &[0; 16]);
        long.resize(65535, 0);
        assert_eq!(finish_reassembly(&mut long.clone()), Ok(0));
        long.push(0);
        assert_eq!(finish_reassembly(&mut long), Err(Malformed::TotalLength));
        let mut long = testing::v6_with(&[(44, testing::FIRST)], 50, &[0; 16]);
        long.resize(40 + 8 + 65535, 0);
        assert_eq!(finish_reassembly(&mut long.clone()), Ok(8));
        long.push(0);
        assert_eq!(finish_reassembly(&mut long), Err(Malformed::TotalLength));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Fragments fit, are in order without gaps, and give the packet back.
        #[test]
        fn split_then_reassemble(
            six: bool,
            extensions in 0..4_usize,
            payload in proptest::collection::vec(any::<u8>(), 1..1000),
            mtu in 100..600_usize,
        ) {
            let all: [(u8, &[u8]); 3] = [(0, OPTIONS), (43, ROUTING), (60, OPTIONS)];
            let options = [0x94, 4, 0, 0].repeat(extensions);
            let packet = if six {
                testing::v6_with(&all[..extensions], 50, &payload)
            } else {
                testing::v4_with_options(&options, 50, &payload)
            };
            let fragments = split(&packet, mtu).unwrap();
            if packet.len() <= mtu {
                prop_assert_eq!(fragments, [packet]);
                return Ok(());
            }
            let mut next = 0;
            let mut headers_len = 0;
            for (i, fragment) in fragments.iter().enumerate() {
                prop_assert!(fragment.len() <= mtu);
                let found = crate::esp::classify_packet(fragment, 0);
                let Ok(crate::esp::Unprotected::Fragment(found)) = found else {
                    panic!("{found:?}");
                };
                prop_assert_eq!(found.offset, next);
                prop_assert_eq!(found.more, i + 1 < fragments.len());
                prop_assert!(!found.more || fragment.len() + 8 > mtu, "as full as can be");
                next += found.len();
                headers_len = found.payload_at;
            }
            let mut whole = gather(&fragments, headers_len);
            let start = finish_reassembly(&mut whole).unwrap();
            prop_assert_eq!(&whole[start..], &packet[..]);
        }

        /// No packet makes any of it panic.
        #[test]
        fn fragmentation_never_panics(
            six: bool,
            protocol in prop_oneof![any::<u8>(), Just(0), Just(43), Just(44), Just(60)],
            octets in proptest::collection::vec(any::<u8>(), 0..120),
            mtu in 0..160_usize,
            flags_and_offset: u16,
        ) {
            let mut packet = if six {
                testing::v6(protocol, &octets)
            } else {
                let words = octets.len().min(40) / 4 * 4;
                testing::v4_with_options(&octets[..words], protocol, &octets)
            };
            if !six {
                packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
                testing::repair(&mut packet);
            }
            _ = split(&packet, mtu);
            _ = finish_reassembly(&mut packet);
        }
    }
}
