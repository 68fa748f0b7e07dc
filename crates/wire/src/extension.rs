//! The IPv6 extension header chain (RFC 8200 section 4), and where a transport mode header goes.
//!
//! Hop-by-hop options, routing, fragment and destination options headers are walked; everything
//! else, ESP and AH too, ends the chain. At most [`HEADERS_MAX`] headers are walked, hop-by-hop
//! options must be the first, and more than one fragment header is refused. A fragment that is not
//! the first ends the chain at its fragment header, for what follows is no header.

use crate::Malformed;
use crate::ip;
use crate::ipv4;
use crate::ipv6;

/// Extension headers a packet may have; more are malformed.
pub const HEADERS_MAX: usize = 8;
/// Octets of the fragment header (RFC 8200 section 4.5).
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// The extension headers of an IPv6 packet. Offsets count from the start of the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Protocol of what lies at `upper_at`.
    pub protocol: u8,
    /// Offset one past the last extension header; inside the packet or at its end.
    pub upper_at: usize,
    /// Offset of the next-header octet that announces `protocol`.
    pub announced_at: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// Where a transport mode header goes (RFC 4303 section 3.1.1).
    pub insertion: Insertion,
    /// True when a routing header has segments left: the packet is under way to another node.
    pub is_source_routed: bool,
}

/// A fragment header (RFC 8200 section 4.5). Offsets count from the start of the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset of the header.
    pub at: usize,
    /// Offset of the next-header octet that announces it.
    pub announced_at: usize,
    /// Protocol of the first header of the fragmentable part.
    pub protocol: u8,
    /// Octets of the fragmentable part in front of this fragment: a multiple of 8.
    pub offset: usize,
    /// M: more fragments follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
}

/// Where ESP or AH goes in transport mode: behind the IPv4 header; in IPv6 behind hop-by-hop
/// options, routing and fragment headers, and before destination options, unless such a header
/// follows them (RFC 4303 section 3.1.1, RFC 4302 section 3.1.1). Offsets count from the start of
/// the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insertion {
    /// Offset at which the new header goes.
    pub insert_at: usize,
    /// Protocol of what is there now: the next header of the new one.
    pub insert_protocol: u8,
    /// Offset of the octet that announces it, and has to announce the new header.
    pub announced_at: usize,
    /// True for a fragment, to which transport mode is never applied (RFC 4303 section 3.3.4). An
    /// IPv6 packet whose fragment header says that it is whole is none.
    pub is_fragment: bool,
}

impl Fragment {
    /// True when the fragment is the whole packet (RFC 6946).
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Walks the extension headers of `packet`, whose fixed header was parsed as `header`.
///
/// # Errors
/// [`Malformed::Extension`] as the module's documentation says.
pub fn walk(packet: &[u8], header: &ipv6::Ipv6) -> Result<Chain, Malformed> {
    let mut walker = Walker::new(packet, header);
    while walker.step()? {}
    Ok(walker.chain)
}

/// Says where ESP or AH goes in `packet`, which was parsed as `parsed`, in transport mode.
///
/// # Errors
/// [`Malformed::Extension`] as [`walk`]; never for IPv4.
#[inline]
pub fn insertion(packet: &[u8], parsed: &ip::Packet) -> Result<Insertion, Malformed> {
    match parsed {
        ip::Packet::V4(header) => Ok(Insertion {
            insert_at: header.header_len,
            insert_protocol: header.protocol,
            announced_at: ipv4::PROTOCOL_AT,
            is_fragment: header.is_fragment(),
        }),
        ip::Packet::V6(header) => walk(packet, header).map(|chain| chain.insertion),
    }
}

/// The next layer protocol of `packet`, which was parsed as `parsed`, and the offset of its header
/// from the start of the packet: none when the packet is a fragment and not the first, or when its
/// extension headers cannot be followed; the protocol is then the last that is known.
#[inline]
#[must_use]
pub fn next_layer(packet: &[u8], parsed: &ip::Packet) -> (u8, Option<usize>) {
    match parsed {
        ip::Packet::V4(header) => {
            (header.protocol, (header.fragment_offset == 0).then_some(header.header_len))
        }
        ip::Packet::V6(header) if !is_extension(header.next_header) => {
            (header.next_header, Some(ipv6::HEADER_LEN))
        }
        ip::Packet::V6(header) => {
            let mut walker = Walker::new(packet, header);
            let followed = loop {
                match walker.step() {
                    Ok(true) => {}
                    Ok(false) => break !walker.is_behind_the_first_fragment(),
                    Err(_) => break false,
                }
            };
            (walker.chain.protocol, followed.then_some(walker.chain.upper_at))
        }
    }
}

/// True for the IPv6 extension headers that are walked.
#[inline]
#[must_use]
pub fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        ip::PROTOCOL_HOP_BY_HOP
            | ip::PROTOCOL_ROUTING
            | ip::PROTOCOL_FRAGMENT
            | ip::PROTOCOL_DESTINATION_OPTIONS
    )
}

/// A chain that is being walked.
struct Walker<'a> {
    packet: &'a [u8],
    /// What is known so far; its upper protocol is the next header to look at.
    chain: Chain,
    headers: usize,
}

impl<'a> Walker<'a> {
    fn new(packet: &'a [u8], header: &ipv6::Ipv6) -> Walker<'a> {
        let insertion = Insertion {
            insert_at: ipv6::HEADER_LEN,
            insert_protocol: header.next_header,
            announced_at: ipv6::NEXT_HEADER_AT,
            is_fragment: false,
        };
        let chain = Chain {
            protocol: header.next_header,
            upper_at: ipv6::HEADER_LEN,
            announced_at: ipv6::NEXT_HEADER_AT,
            fragment: None,
            insertion,
            is_source_routed: false,
        };
        let end = ipv6::HEADER_LEN + header.payload_len;
        Walker { packet: packet.get(..end).unwrap_or(packet), chain, headers: 0 }
    }

    /// Goes behind one more header; false when there is none.
    fn step(&mut self) -> Result<bool, Malformed> {
        let at = self.chain.upper_at;
        let kind = self.chain.protocol;
        if !is_extension(kind) || self.is_behind_the_first_fragment() {
            return Ok(false);
        }
        let misplaced = kind == ip::PROTOCOL_HOP_BY_HOP && self.headers != 0
            || kind == ip::PROTOCOL_FRAGMENT && self.chain.fragment.is_some();
        if misplaced || self.headers == HEADERS_MAX {
            return Err(Malformed::Extension);
        }
        // The smallest of these headers has 8 octets.
        let header: &[u8; 8] =
            self.packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed::Extension)?;
        let [next, units, _, segments_left, ..] = *header;
        let len = match kind {
            ip::PROTOCOL_FRAGMENT => FRAGMENT_HEADER_LEN,
            _ => (usize::from(units) + 1) * 8,
        };
        if at + len > self.packet.len() {
            return Err(Malformed::Extension);
        }
        match kind {
            ip::PROTOCOL_FRAGMENT => {
                self.chain.fragment = Some(fragment(header, at, self.chain.announced_at));
            }
            ip::PROTOCOL_ROUTING => self.chain.is_source_routed |= segments_left != 0,
            _ => {}
        }
        self.headers += 1;
        self.chain.protocol = next;
        self.chain.upper_at = at + len;
        self.chain.announced_at = at;
        if kind != ip::PROTOCOL_DESTINATION_OPTIONS {
            self.chain.insertion = Insertion {
                insert_at: at + len,
                insert_protocol: next,
                announced_at: at,
                is_fragment: self.chain.fragment.is_some_and(|fragment| !fragment.is_whole()),
            };
        }
        Ok(true)
    }

    fn is_behind_the_first_fragment(&self) -> bool {
        self.chain.fragment.is_some_and(|fragment| fragment.offset != 0)
    }
}

fn fragment(header: &[u8; 8], at: usize, announced_at: usize) -> Fragment {
    let [protocol, _, o0, o1, i0, i1, i2, i3] = *header;
    let offset = u16::from_be_bytes([o0, o1]);
    Fragment {
        at,
        announced_at,
        protocol,
        // In units of 8 octets above 3 other bits, which is octets when those are cleared.
        offset: usize::from(offset & !7),
        more: offset & 1 != 0,
        id: u32::from_be_bytes([i0, i1, i2, i3]),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing;
    use crate::testing::FIRST;
    use crate::testing::LAST;
    use crate::testing::OPTIONS;
    use crate::testing::ROUTING;
    use crate::testing::WHOLE;

    fn chain(packet: &[u8]) -> Result<Chain, Malformed> {
        let ip::Packet::V6(header) = testing::parse(packet) else { panic!("IPv6") };
        walk(packet, &header)
    }

    /// A packet without extension headers is its own upper layer.
    #[test]
    fn no_extension_header() {
        for protocol in (1..=255).filter(|&protocol| !is_extension(protocol)) {
            let insertion = Insertion {
                insert_at: 40,
                insert_protocol: protocol,
                announced_at: 6,
                is_fragment: false,
            };
            let expected = Chain {
                protocol,
                upper_at: 40,
                announced_at: 6,
                fragment: None,
                insertion,
                is_source_routed: false,
            };
            assert_eq!(chain(&testing::v6(protocol, &[])), Ok(expected));
        }
    }

    /// E18: a new header goes behind hop-by-hop options, routing and fragment headers, and before
    /// destination options unless one of those follows them.
    #[test]
    fn insertion_follows_rfc_4303() {
        type Case<'a> = (&'a [(u8, &'a [u8])], usize, u8, usize);
        let cases: [Case<'_>; 8] = [
            (&[], 40, 6, 6),
            (&[(0, OPTIONS)], 48, 6, 40),
            (&[(60, OPTIONS)], 40, 60, 6),
            (&[(0, OPTIONS), (60, OPTIONS)], 48, 60, 40),
            (&[(43, ROUTING)], 64, 6, 40),
            (&[(60, OPTIONS), (43, ROUTING)], 72, 6, 48),
            (&[(60, OPTIONS), (43, ROUTING), (60, OPTIONS)], 72, 60, 48),
            (&[(0, OPTIONS), (43, ROUTING), (44, WHOLE), (60, OPTIONS)], 80, 60, 72),
        ];
        for (extensions, insert_at, insert_protocol, announced_at) in cases {
            let packet = testing::v6_with(extensions, 6, &[0; 20]);
            let expected =
                Insertion { insert_at, insert_protocol, announced_at, is_fragment: false };
            assert_eq!(insertion(&packet, &testing::parse(&packet)), Ok(expected));
            assert_eq!(packet[announced_at], insert_protocol);
            assert_eq!(chain(&packet).unwrap().protocol, 6);
        }
    }

    /// In IPv4 it goes behind the header with its options.
    #[test]
    fn insertion_in_ipv4() {
        let packet = testing::v4_with_options(&[0x94, 4, 0, 0], 17, &[0; 8]);
        let expected =
            Insertion { insert_at: 24, insert_protocol: 17, announced_at: 9, is_fragment: false };
        assert_eq!(insertion(&packet, &testing::parse(&packet)), Ok(expected));
    }

    /// E17: fragments are known as such, the first included; a whole packet with a fragment header
    /// is none (RFC 6946).
    #[test]
    fn insertion_tells_fragments() {
        let is_fragment =
            |packet: &[u8]| insertion(packet, &testing::parse(packet)).unwrap().is_fragment;
        for (flags_and_offset, expected) in
            [(0, false), (0x4000, false), (0x2000, true), (1, true), (0x3fff, true)]
        {
            let packet = testing::v4_fragment(flags_and_offset, 6, &[0; 24]);
            assert_eq!(is_fragment(&packet), expected, "{flags_and_offset:x}");
        }
        for (header, expected) in [(WHOLE, false), (FIRST, true), (LAST, true)] {
            let packet = testing::v6_with(&[(44, header)], 6, &[0; 24]);
            assert_eq!(is_fragment(&packet), expected, "{header:?}");
            let packet = testing::v6_with(&[(44, header), (60, OPTIONS)], 6, &[0; 24]);
            assert_eq!(is_fragment(&packet), expected, "{header:?}");
        }
    }

    /// Every field of the fragment header is read, its reserved bits are not.
    #[test]
    fn fragment_header_is_read() {
        let header = [0xff, 0x04, 0x07, 0xde, 0xad, 0xbe, 0xef];
        let packet = testing::v6_with(&[(0, OPTIONS), (44, &header)], 50, &[1; 9]);
        let expected = Fragment {
            at: 48,
            announced_at: 40,
            protocol: 50,
            offset: 1024,
            more: true,
            id: 0xdead_beef,
        };
        let chain = chain(&packet).unwrap();
        assert_eq!(chain.fragment, Some(expected));
        assert_eq!((chain.protocol, chain.upper_at, chain.announced_at), (50, 56, 48));
    }

    /// What follows the header of a later fragment is no header, whatever its number says.
    #[test]
    fn later_fragments_end_the_chain() {
        let packet = testing::v6_with(&[(44, LAST), (60, &[0xff; 7])], 6, &[]);
        let chain = chain(&packet).unwrap();
        assert_eq!((chain.protocol, chain.upper_at), (60, 48));
    }

    /// A packet under way to another node of its route is known.
    #[test]
    fn source_routes_are_told() {
        let mut under_way = ROUTING.to_vec();
        under_way[2] = 1;
        for (header, expected) in [(ROUTING, false), (&under_way[..], true)] {
            let packet = testing::v6_with(&[(43, header)], 50, &[0; 8]);
            assert_eq!(chain(&packet).unwrap().is_source_routed, expected);
        }
    }

    /// Chains that cannot be right are refused.
    #[test]
    fn broken_chains_are_refused() {
        let broken: [&[(u8, &[u8])]; 4] = [
            &[(60, OPTIONS), (0, OPTIONS)],
            &[(0, OPTIONS), (0, OPTIONS)],
            &[(44, FIRST), (44, FIRST)],
            &[(60, &[1, 1, 4, 0, 0, 0, 0])],
        ];
        for extensions in broken {
            let packet = testing::v6_with(extensions, 59, &[]);
            assert_eq!(chain(&packet), Err(Malformed::Extension), "{extensions:?}");
        }
        for count in 0..12 {
            let packet = testing::v6_with(&[(60, OPTIONS)].repeat(count), 6, &[0; 20]);
            assert_eq!(chain(&packet).is_ok(), count <= HEADERS_MAX, "{count}");
        }
    }

    /// Every prefix of the headers is refused, though the rest follows behind the payload length.
    #[test]
    fn cut_chains_are_refused() {
        for kind in [0, 43, 44, 60] {
            let octets = [6, 0, 0, 0, 0, 0, 0, 0];
            for len in 0..8 {
                let mut packet = testing::v6(kind, &octets[..len]);
                packet.extend_from_slice(&octets[len..]);
                assert_eq!(chain(&packet), Err(Malformed::Extension), "{kind} {len}");
            }
        }
    }

    prop_compose! {
        /// Packets whose extension headers are mostly right.
        fn packets()(
            extensions in proptest::collection::vec(
                (
                    prop_oneof![Just(0), Just(43), Just(44), Just(60), any::<u8>()],
                    prop_oneof![Just(OPTIONS), Just(WHOLE), Just(FIRST), Just(LAST), Just(ROUTING)],
                ),
                0..6,
            ),
            protocol: u8,
            payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) -> Vec<u8> {
            testing::v6_with(&extensions, protocol, &payload)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// No packet makes it panic; offsets lie in the packet, in order, and announce what they
        /// say.
        #[test]
        fn walk_never_panics(packet in packets(), cut in 0..300_usize) {
            let parsed = testing::parse(&packet);
            if let Ok(chain) = chain(&packet) {
                let place = chain.insertion;
                prop_assert!(40 <= place.insert_at && place.insert_at <= chain.upper_at);
                prop_assert!(chain.upper_at <= packet.len());
                prop_assert_eq!(packet[place.announced_at], place.insert_protocol);
                prop_assert_eq!(packet[chain.announced_at], chain.protocol);
                prop_assert!(chain.announced_at < chain.upper_at);
                let later = chain.fragment.is_some_and(|fragment| fragment.offset != 0);
                let shown = (!later).then_some(chain.upper_at);
                prop_assert_eq!(next_layer(&packet, &parsed), (chain.protocol, shown));
            } else {
                prop_assert_eq!(next_layer(&packet, &parsed).1, None);
            }
            let ip::Packet::V6(header) = parsed else { panic!("IPv6") };
            _ = walk(&packet[..cut.min(packet.len())], &header);
            _ = next_layer(&packet[..cut.min(packet.len())], &parsed);
        }

        /// A header that is put where the insertion says is found there, and all else behind it.
        #[test]
        fn inserted_header_is_found(mut packet in packets()) {
            if let Ok(before) = chain(&packet) {
                let place = before.insertion;
                packet[place.announced_at] = ip::PROTOCOL_ESP;
                packet.splice(place.insert_at..place.insert_at, [0x77; 8]);
                let len = u16::try_from(packet.len() - 40).unwrap();
                ipv6::set_payload_len(&mut packet, len);
                let after = chain(&packet).unwrap();
                prop_assert_eq!(after.protocol, ip::PROTOCOL_ESP);
                prop_assert_eq!(after.upper_at, place.insert_at);
                prop_assert_eq!(after.fragment.is_some(), before.fragment.is_some());
            }
        }
    }
}
