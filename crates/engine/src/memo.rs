//! [`Memo`]: what is known of a flow that comes out of an inbound SA.
//!
//! What policy says of the next packet of a flow, and where it goes, is what was found for the one
//! before. A memo holds both answers in one cache line, so that the packet asks neither policies
//! nor routes, however many there are. One lies beside each SA, where it can be fetched while the
//! packet is still sealed: that of the first flow, which for most of many SAs is the only one.
//! Those of others are in a table of the worker, in which a newer one displaces an older one.
//!
//! A memo is of one SA, and is believed only while the generation is that it was made in: every
//! change of policies and of next hops begins a new one. It is made only where policies look at
//! nothing but addresses.

use culvert_esp::Mode;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::trailer::PaddingCheck;
use culvert_frame::Packet;
use culvert_frame::Port;
use culvert_frame::SlabBox;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;

use crate::headers;
use crate::next_hop::NextHop;
use crate::tables::InboundEntry;

/// Octets of the longest link header.
const LINK_LEN: usize = ethernet::HEADER_LEN + ethernet::VLAN_TAG_LEN;
/// Where addresses stand in IP headers: the source, then the destination.
const ADDRESSES_V4: std::ops::Range<usize> = 12..20;
const ADDRESSES_V6: std::ops::Range<usize> = 8..40;

/// The memo.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Memo {
    /// Of the flow, as in its headers; those of IPv4 come first.
    addresses: [u8; 32],
    /// Generation and SA; 0 for nothing known.
    tag: Tag,
    /// The link header its packets leave with.
    link: [u8; LINK_LEN],
    /// Most octets of an IP packet on that link.
    mtu: u16,
    link_len: u8,
    port: Port,
    /// [`ip::PROTOCOL_IPIP`] or [`ip::PROTOCOL_IPV6`].
    family: u8,
    /// The SA is an ESP tunnel with no wishes of its own: only such ones have memos.
    pub(crate) is_plain: bool,
}

const _: () = assert!(size_of::<Memo>() == 64, "one cache line");

/// What a memo must have to be believed: its generation, which is not 0 where something is known,
/// and the number of its SA, which no other has that was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    #[inline(always)]
    fn new(generation: u32, number: u32) -> Tag {
        Tag(u64::from(generation) << 32 | u64::from(number))
    }
}

/// The memos of a worker beside those of its SAs.
#[derive(Debug)]
pub(crate) struct Memos {
    /// As many as a power of two.
    lines: SlabBox<[Memo]>,
}

/// Memos of a worker at least and at most.
const LINES_MIN: usize = 1 << 14;
const LINES_MAX: usize = 1 << 16;

/// An odd number without a pattern: the fraction of the square root of 2.
const MIX: u64 = 0x6a09_e667_f3bc_c909;

impl Memos {
    /// Nothing known, of the flows of so many SAs.
    pub(crate) fn new(count: usize) -> Memos {
        let lines = (2 * count).next_power_of_two().clamp(LINES_MIN, LINES_MAX);
        Memos { lines: SlabBox::from_fn(lines, |_| Memo::NONE) }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.lines.fill(Memo::NONE);
    }

    #[inline(always)]
    fn index(&self, addresses: &[u8]) -> usize {
        let (words, _) = addresses.as_chunks::<8>();
        let mix = |hash: u64, word: &[u8; 8]| {
            (hash.rotate_left(29) ^ u64::from_be_bytes(*word)).wrapping_mul(MIX)
        };
        (words.iter().fold(0, mix) >> 40) as usize & (self.lines.len() - 1)
    }

    #[inline(always)]
    fn at(&self, addresses: &[u8]) -> &Memo {
        &self.lines[self.index(addresses)]
    }

    /// Where the memo of a flow belongs.
    pub(crate) fn place(&mut self, inner: &[u8], parsed: &ip::Packet) -> &mut Memo {
        let index = match parsed {
            ip::Packet::V4(_) => self.index(&inner[ADDRESSES_V4]),
            ip::Packet::V6(_) => self.index(&inner[ADDRESSES_V6]),
        };
        &mut self.lines[index]
    }
}

impl Memo {
    /// Nothing known, of an SA that is not plain.
    pub(crate) const NONE: Memo = Memo {
        addresses: [0; 32],
        tag: Tag(0),
        link: [0; LINK_LEN],
        mtu: 0,
        link_len: 0,
        port: Port(0),
        family: 0,
        is_plain: false,
    };

    /// Nothing known, of this SA, which gets a number.
    pub(crate) fn of<K>(entry: &InboundEntry<K>, number: u32) -> Memo {
        let receiving = &entry.receiving;
        let is_plain = entry.sa.layout().protocol == culvert_aead::Protocol::Esp
            && entry.mode == Mode::Tunnel
            && entry.selectors.is_empty()
            && receiving.within.is_none()
            && receiving.dscp == DscpPolicy::KeepInner
            && receiving.padding == PaddingCheck::Strict;
        Memo { is_plain, tag: Tag::new(0, number), ..Memo::NONE }
    }

    /// The tag of memos of its SA.
    #[inline(always)]
    pub(crate) fn tag(&self, generation: u32) -> Tag {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number")]
        Tag::new(generation, self.tag.0 as u32)
    }

    /// Knows nothing any more.
    pub(crate) fn forget(&mut self) {
        self.tag = self.tag(0);
    }

    /// True when it is of this generation, whatever its flow.
    pub(crate) fn is_fresh(&self, tag: Tag) -> bool {
        self.tag == tag
    }

    /// Takes down that packets between the addresses of `inner`, which was parsed as `parsed`, may
    /// come out of the SA and go to `hop`.
    pub(crate) fn remember(&mut self, tag: Tag, inner: &[u8], parsed: &ip::Packet, hop: &NextHop) {
        let ether_type = match parsed {
            ip::Packet::V4(_) => {
                self.addresses[..8].copy_from_slice(&inner[ADDRESSES_V4]);
                self.family = ip::PROTOCOL_IPIP;
                ethernet::ETHER_TYPE_IPV4
            }
            ip::Packet::V6(_) => {
                self.addresses.copy_from_slice(&inner[ADDRESSES_V6]);
                self.family = ip::PROTOCOL_IPV6;
                ethernet::ETHER_TYPE_IPV6
            }
        };
        let len = ethernet::header_len(hop.vlan);
        let link = &mut self.link[..len];
        ethernet::emit(link, hop.destination, hop.source, hop.vlan, ether_type);
        #[expect(clippy::cast_possible_truncation, reason = "14 or 18")]
        let link_len = len as u8;
        (self.link_len, self.mtu, self.port, self.tag) = (link_len, hop.mtu, hop.port, tag);
    }

    /// Itself, or the one of `others`, whichever is of the flow with these addresses.
    #[inline(always)]
    fn or_other<'a>(
        &'a self,
        others: &'a Memos,
        tag: Tag,
        (family, addresses): (u8, &[u8]),
    ) -> Option<&'a Memo> {
        let is_it = |memo: &Memo| {
            memo.tag == tag
                && memo.family == family
                && memo.addresses[..addresses.len()] == *addresses
        };
        if is_it(self) {
            return Some(self);
        }
        let other = others.at(addresses);
        is_it(other).then_some(other)
    }

    /// Forwards the packet of `family` at `content` of the frame, if its flow is known, here or
    /// among `others`, and there is nothing unusual about it: it is checked and changed as any
    /// other, but asks nobody. `None`, and nothing was done, for all others.
    #[inline(always)]
    pub(crate) fn forward(
        &self,
        others: &Memos,
        tag: Tag,
        packet: &mut Packet,
        outer_tos: u8,
        (family, content): (u8, std::ops::Range<usize>),
    ) -> Option<Port> {
        let at = content.start;
        let inner = packet.data_mut().get_mut(content)?;
        // The families are kept apart, so that headers stay in registers.
        let (memo, len) = match family {
            ip::PROTOCOL_IPIP => {
                let header = ipv4::parse_bare(inner)?;
                let memo = self.or_other(others, tag, (family, &inner[ADDRESSES_V4]))?;
                if !memo.is_usual(inner, &ip::Packet::V4(header), outer_tos) {
                    return None;
                }
                ipv4::decrement_ttl(inner);
                (memo, header.total_len)
            }
            ip::PROTOCOL_IPV6 => {
                let header = ipv6::parse(inner).ok()?;
                let memo = self.or_other(others, tag, (family, &inner[ADDRESSES_V6]))?;
                if !memo.is_usual(inner, &ip::Packet::V6(header), outer_tos) {
                    return None;
                }
                ipv6::decrement_hop_limit(inner);
                (memo, ipv6::HEADER_LEN + header.payload_len)
            }
            _ => return None,
        };
        memo.frame(packet, at, len);
        Some(memo.port)
    }

    /// It has a hop left, fits, keeps its TOS (RFC 6040 section 4.2), and is for no SA again.
    #[inline(always)]
    fn is_usual(&self, inner: &[u8], parsed: &ip::Packet, outer_tos: u8) -> bool {
        let outer_ecn = outer_tos & culvert_esp::ecn::MASK;
        let keeps_tos = outer_ecn == parsed.tos() & culvert_esp::ecn::MASK || outer_ecn == 0;
        keeps_tos
            && parsed.ttl() > 1
            && parsed.total_len() <= usize::from(self.mtu)
            && !headers::may_be_nested(inner, parsed)
    }

    /// Makes a frame hold the packet at `at` behind the link header.
    #[inline(always)]
    fn frame(&self, packet: &mut Packet, at: usize, len: usize) {
        // Outer header, ESP header and IV are longer.
        let link_len = usize::from(self.link_len);
        let start = packet.headroom() + at - link_len;
        let data = packet.span(start, link_len + len).expect("the packet was in this frame");
        let (short, tag) = self.link.split_at(ethernet::HEADER_LEN);
        data[..ethernet::HEADER_LEN].copy_from_slice(short);
        if link_len == LINK_LEN {
            data[ethernet::HEADER_LEN..LINK_LEN].copy_from_slice(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use culvert_frame::Region;
    use culvert_wire::ethernet::Mac;

    use super::*;

    /// Where inner packets start: behind room for all outer headers.
    const AT: usize = 50;

    fn inner(source: [u8; 4], ttl: u8) -> Vec<u8> {
        let header = ipv4::Header {
            tos: 0,
            total_len: 28,
            id: 0,
            dont_fragment: false,
            ttl,
            protocol: ip::PROTOCOL_TCP,
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::new(10, 2, 0, 1),
        };
        let mut packet = vec![7; 28];
        ipv4::emit(&mut packet, &header);
        packet
    }

    fn hop(last: u8, vlan: Option<u16>) -> NextHop {
        let (source, destination) = (Mac([2; 6]), Mac([4, 4, 4, 4, 4, last]));
        NextHop { port: Port(last), vlan, source, destination, mtu: 1500 }
    }

    /// The port that a packet is forwarded to, and the frame that it is then.
    fn forward(memo: &Memo, others: &Memos, tag: Tag, inner: &[u8]) -> Option<(Port, Vec<u8>)> {
        let contents = [&[0xee; AT][..], inner, b"trailer"].concat();
        let (region, mut frames) = Region::leak(1);
        let frame = frames.pop().expect("one frame");
        let mut packet = frame.with_contents(Port(9), &contents).expect("it fits");
        let content = (ip::PROTOCOL_IPIP, AT..AT + inner.len());
        let port = memo.forward(others, tag, &mut packet, 0, content);
        let data = packet.data().to_vec();
        let _ = region.release_free(packet.into_free());
        assert!(port.is_some() || data == contents, "what is not forwarded is as it was");
        port.map(|port| (port, data))
    }

    /// A flow is known in the memo of its SA or in the table, with its own next hop; flows in
    /// neither are not, and neither are those of another SA or of another generation.
    #[test]
    fn flows_are_of_one_sa_and_generation() {
        let sources = (0..100).map(|last| [10, 1, 0, last]);
        let hops = |last| hop(last, last.is_multiple_of(2).then_some(5));
        let (mut memo, mut others) = (Memo::NONE, Memos::new(1));
        memo.tag = Tag::new(0, 3);
        let tag = memo.tag(8);
        for source in sources.clone() {
            let (packet, hop) = (inner(source, 64), hops(source[3]));
            assert_eq!(forward(&memo, &others, tag, &packet), None);
            let parsed = ip::parse(&packet).expect("a packet");
            match source[3] {
                0 => memo.remember(tag, &packet, &parsed, &hop),
                _ => others.place(&packet, &parsed).remember(tag, &packet, &parsed, &hop),
            }
        }
        let mut known = 0;
        for source in sources {
            let (packet, hop) = (inner(source, 64), hops(source[3]));
            // Some displace each other.
            if let Some((port, frame)) = forward(&memo, &others, tag, &packet) {
                let mut expected = vec![0; ethernet::header_len(hop.vlan)];
                ethernet::emit(&mut expected, hop.destination, hop.source, hop.vlan, 0x0800);
                expected.extend(inner(source, 63));
                assert_eq!((port, frame), (hop.port, expected));
                known += 1;
            }
            for other in [Tag::new(8, 4), Tag::new(9, 3), Tag::new(0, 3)] {
                assert_eq!(forward(&memo, &others, other, &packet), None);
            }
        }
        assert!(known > 90, "{known} of 100");
        memo.forget();
        others.clear();
        assert_eq!(forward(&memo, &others, tag, &inner([10, 1, 0, 0], 64)), None);
    }
}
