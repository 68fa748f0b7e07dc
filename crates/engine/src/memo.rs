//! [`Memo`]: what an inbound SA knows of the flow whose packet came out of it last.
//!
//! Packets of a flow come in runs, and mostly an SA has few flows: then what policy says of the
//! next packet, and where it goes, is what was found for the one before. A memo holds both answers
//! in one cache line beside the SA, so that the packet asks neither policies nor routes, however
//! many there are.
//!
//! It is believed only while [`Plane::known_since`](crate::plane::Plane) is what it was, which
//! every change of policies and of next hops changes, and it is made only where policies look at
//! nothing but addresses.

use culvert_esp::Mode;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::trailer::PaddingCheck;
use culvert_frame::Packet;
use culvert_frame::Port;
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
    /// When it was made; 0 for nothing known.
    since: u64,
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

impl Memo {
    /// Nothing known, of an SA that is not plain.
    pub(crate) const NONE: Memo = Memo {
        addresses: [0; 32],
        since: 0,
        link: [0; LINK_LEN],
        mtu: 0,
        link_len: 0,
        port: Port(0),
        family: 0,
        is_plain: false,
    };

    /// Nothing known, of this SA.
    pub(crate) fn of<K>(entry: &InboundEntry<K>) -> Memo {
        let receiving = &entry.receiving;
        let is_plain = entry.sa.layout().protocol == culvert_aead::Protocol::Esp
            && entry.mode == Mode::Tunnel
            && entry.selectors.is_empty()
            && receiving.within.is_none()
            && receiving.dscp == DscpPolicy::KeepInner
            && receiving.padding == PaddingCheck::Strict;
        Memo { is_plain, ..Memo::NONE }
    }

    /// Takes down that packets between the addresses of `inner`, which was parsed as `parsed`, may
    /// come out of the SA and go to `hop`.
    pub(crate) fn remember(
        &mut self,
        since: u64,
        inner: &[u8],
        parsed: &ip::Packet,
        hop: &NextHop,
    ) {
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
        (self.link_len, self.mtu, self.port, self.since) = (link_len, hop.mtu, hop.port, since);
    }

    /// Forwards the packet of `family` at `content` of the frame, if it is of the flow and there is
    /// nothing unusual about it: it is checked and changed as any other, but asks nobody. `None`,
    /// and nothing was done, for all others.
    #[inline(always)]
    pub(crate) fn forward(
        &self,
        known_since: u64,
        packet: &mut Packet,
        outer_tos: u8,
        (family, content): (u8, std::ops::Range<usize>),
    ) -> Option<Port> {
        if self.since != known_since || self.family != family {
            return None;
        }
        let at = content.start;
        let inner = packet.data_mut().get_mut(content)?;
        // The families are kept apart, so that headers stay in registers.
        let len = if family == ip::PROTOCOL_IPIP {
            let header = ipv4::parse_bare(inner)?;
            let is_known = inner[ADDRESSES_V4] == self.addresses[..8];
            if !is_known || !self.is_usual(inner, &ip::Packet::V4(header), outer_tos) {
                return None;
            }
            ipv4::decrement_ttl(inner);
            header.total_len
        } else {
            let header = ipv6::parse(inner).ok()?;
            let is_known = inner[ADDRESSES_V6] == self.addresses[..];
            if !is_known || !self.is_usual(inner, &ip::Packet::V6(header), outer_tos) {
                return None;
            }
            ipv6::decrement_hop_limit(inner);
            ipv6::HEADER_LEN + header.payload_len
        };
        self.frame(packet, at, len);
        Some(self.port)
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
