//! Headers: where the network header of a frame begins, and what lies behind it.

use crate::view::View;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ESP: u8 = 50;
pub(crate) const PROTOCOL_AH: u8 = 51;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers of an IPv6 packet that are followed, as many as the engine follows; a packet
/// with more is not looked into.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const ETHER_TYPE: usize = 12;
const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;

const IPV4_MIN: usize = 20;
const IPV4_TOTAL_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
pub(crate) const IPV4_SOURCE: usize = 12;
pub(crate) const IPV4_DESTINATION: usize = 16;
const IPV4_MORE: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;

const IPV6: usize = 40;
const IPV6_PAYLOAD_LENGTH: usize = 4;
const IPV6_NEXT_HEADER: usize = 6;
pub(crate) const IPV6_HOP_LIMIT: usize = 7;
pub(crate) const IPV6_SOURCE: usize = 8;
pub(crate) const IPV6_DESTINATION: usize = 24;

/// Where the network header begins, and of which protocol it claims to be.
pub(crate) enum Network {
    Ipv4(usize),
    Ipv6(usize),
    Other,
}

/// The network header of an Ethernet frame with at most one VLAN tag.
#[inline(always)]
pub(crate) fn network<V: View + ?Sized>(view: &V) -> Option<Network> {
    let mut ether_type = view.be16(ETHER_TYPE)?;
    let mut at = ETHERNET;
    if ether_type == TYPE_VLAN {
        ether_type = view.be16(ETHER_TYPE + VLAN_TAG)?;
        at += VLAN_TAG;
    }
    Some(match ether_type {
        TYPE_IPV4 => Network::Ipv4(at),
        TYPE_IPV6 => Network::Ipv6(at),
        _ => Network::Other,
    })
}

/// Length of an IPv4 header in octets, options included, from its first octet.
#[inline(always)]
pub(crate) fn ipv4_header_len(first: u8) -> Option<usize> {
    let header_len = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && header_len >= IPV4_MIN).then_some(header_len)
}

/// True when the first octet of a header is that of IPv6.
#[inline(always)]
pub(crate) fn is_ipv6(first: u8) -> bool {
    first >> 4 == 6
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment; more follow.
    First,
    /// The only fragment: IPv6 knows fragment headers on whole packets (RFC 6946).
    Only,
    /// A fragment that begins inside the datagram.
    Later,
}

/// What lies behind the network header and the extension headers that were followed.
pub(crate) struct Upper {
    /// Protocol of the header at `at`; in a later fragment the same as `declared`.
    pub(crate) protocol: u8,
    /// Offset in the frame.
    pub(crate) at: usize,
    pub(crate) part: Part,
    /// What the header with the fragment offset says that follows: all fragments of a datagram
    /// agree about it.
    pub(crate) declared: u8,
    /// Identification of a fragment; 0 in a whole packet.
    pub(crate) id: u32,
    /// Offset at which a fragment ends, as its network header says; 0 in a whole packet.
    pub(crate) end: usize,
}

/// What lies behind the IPv4 header of `header_len` octets at `at`.
#[inline(always)]
pub(crate) fn upper4<V: View + ?Sized>(view: &V, at: usize, header_len: usize) -> Option<Upper> {
    let word = view.be16(at + IPV4_FRAGMENT)?;
    let part = match (word & IPV4_OFFSET, word & IPV4_MORE) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    };
    let protocol = view.u8(at + IPV4_PROTOCOL)?;
    let mut upper =
        Upper { protocol, at: at + header_len, part, declared: protocol, id: 0, end: 0 };
    if part != Part::Whole {
        upper.id = view.be16(at + IPV4_ID)?.into();
        upper.end = at + usize::from(view.be16(at + IPV4_TOTAL_LENGTH)?);
    }
    Some(upper)
}

/// What lies behind the IPv6 header at `at` and at most [`EXTENSION_HEADERS_MAX`] extension
/// headers. With more, the protocol is that of the next extension header.
#[inline(always)]
pub(crate) fn upper6<V: View + ?Sized>(view: &V, at: usize) -> Option<Upper> {
    let protocol = view.u8(at + IPV6_NEXT_HEADER)?;
    let mut upper =
        Upper { protocol, at: at + IPV6, part: Part::Whole, declared: protocol, id: 0, end: 0 };
    for _ in 0..EXTENSION_HEADERS_MAX {
        match upper.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [next, units] = view.octets(upper.at)?;
                upper.protocol = next;
                upper.at += 8 + 8 * usize::from(units);
            }
            // A fragment inside a fragment is not followed.
            FRAGMENT if upper.part == Part::Whole => {
                fragment_header(view, &mut upper)?;
                upper.end = at + IPV6 + usize::from(view.be16(at + IPV6_PAYLOAD_LENGTH)?);
                if upper.part == Part::Later {
                    break;
                }
            }
            _ => break,
        }
    }
    Some(upper)
}

/// Reads the fragment header at `upper.at` and goes behind it.
#[inline(always)]
fn fragment_header<V: View + ?Sized>(view: &V, upper: &mut Upper) -> Option<()> {
    let [next, _, high, low, id @ ..] = view.octets::<8>(upper.at)?;
    let word = u16::from_be_bytes([high, low]);
    upper.part = match (word >> 3, word & 1) {
        (0, 0) => Part::Only,
        (0, _) => Part::First,
        _ => Part::Later,
    };
    upper.declared = next;
    upper.protocol = next;
    upper.id = u32::from_be_bytes(id);
    upper.at += 8;
    Some(())
}
