//! Classes of the unprotected side: what a packet carries decides, then its destination.

use crate::class::Class;
use crate::fragments::FragmentKey;
use crate::fragments::Fragments;
use crate::header::IPV4_DESTINATION;
use crate::header::IPV4_SOURCE;
use crate::header::IPV6_DESTINATION;
use crate::header::IPV6_HOP_LIMIT;
use crate::header::IPV6_SOURCE;
use crate::header::Network;
use crate::header::PROTOCOL_AH;
use crate::header::PROTOCOL_ESP;
use crate::header::PROTOCOL_ICMP;
use crate::header::PROTOCOL_ICMPV6;
use crate::header::PROTOCOL_UDP;
use crate::header::Part;
use crate::header::Upper;
use crate::header::ipv4_header_len;
use crate::header::is_ipv6;
use crate::header::network;
use crate::header::upper4;
use crate::header::upper6;
use crate::icmp;
use crate::prefixes::PrefixValue;
use crate::prefixes::Prefixes;
use crate::prefixes::protecting4;
use crate::prefixes::protecting6;
use crate::view::View;

const UDP: usize = 8;
const UDP_DESTINATION: usize = 2;
const UDP_LENGTH: usize = 4;
const PORT_IKE: u16 = 500;
const PORT_NAT_T: u16 = 4500;
const KEEPALIVE: u8 = 0xff;
const NON_ESP_MARKER: u32 = 0;
const MARKER_LEN: u16 = 4;
const ESP_HEADER_LEN: u16 = 8;
/// Octets of a datagram that hold its header and the marker.
const UDP_AND_MARKER: usize = 12;

/// What a packet is by what it carries.
#[derive(Clone, Copy)]
pub(crate) struct Carries {
    pub(crate) class: Class,
    /// True when an own address keeps it, whatever policy says.
    pub(crate) kept: bool,
}

impl Carries {
    pub(crate) const OTHER: Carries = Carries { class: Class::Other, kept: false };
    pub(crate) const OTHER_KEPT: Carries = Carries { class: Class::Other, kept: true };

    const fn class(class: Class) -> Carries {
        Carries { class, kept: false }
    }

    const fn kept(class: Class) -> Carries {
        Carries { class, kept: true }
    }

    /// The class of the packet, with `found` as the prefix that protects its destination.
    #[inline(always)]
    fn unless_plain(self, found: Option<PrefixValue>, plain: Class) -> Class {
        match found {
            Some(value) if !(self.kept && value.is_own()) => plain,
            _ => self.class,
        }
    }
}

/// The class of a frame; `None` when it is too short to tell.
#[inline(always)]
pub(crate) fn class<V: View + ?Sized>(
    view: &V,
    prefixes: &impl Prefixes,
    fragments: &mut impl Fragments,
) -> Option<Class> {
    match network(view)? {
        Network::Ipv4(at) => outer4(view, at, prefixes, fragments),
        Network::Ipv6(at) => outer6(view, at, prefixes, fragments),
        Network::Other => Some(Class::Other),
    }
}

#[inline(always)]
fn outer4<V: View + ?Sized>(
    view: &V,
    at: usize,
    prefixes: &impl Prefixes,
    fragments: &mut impl Fragments,
) -> Option<Class> {
    let Some(header_len) = ipv4_header_len(view.u8(at)?) else {
        return Some(Class::Malformed);
    };
    let carries = carries4(view, at, header_len, fragments);
    let carries = carries.unwrap_or(Carries::class(Class::Short));
    if carries.class.is_for_engine() {
        return Some(carries.class);
    }
    let destination = view.octets(at + IPV4_DESTINATION)?;
    Some(carries.unless_plain(protecting4(prefixes, destination), Class::Plain4))
}

#[inline(always)]
fn outer6<V: View + ?Sized>(
    view: &V,
    at: usize,
    prefixes: &impl Prefixes,
    fragments: &mut impl Fragments,
) -> Option<Class> {
    if !is_ipv6(view.u8(at)?) {
        return Some(Class::Malformed);
    }
    let carries = carries6(view, at, fragments).unwrap_or(Carries::class(Class::Short));
    if carries.class.is_for_engine() {
        return Some(carries.class);
    }
    let destination = view.octets(at + IPV6_DESTINATION)?;
    Some(carries.unless_plain(protecting6(prefixes, destination), Class::Plain6))
}

#[inline(always)]
fn carries4<V: View + ?Sized>(
    view: &V,
    at: usize,
    header_len: usize,
    fragments: &mut impl Fragments,
) -> Option<Carries> {
    let upper = upper4(view, at, header_len)?;
    if upper.part != Part::Whole {
        return fragment4(view, at, &upper, fragments);
    }
    match upper.protocol {
        PROTOCOL_ESP => Some(Carries::class(Class::Esp4)),
        PROTOCOL_AH => Some(Carries::class(Class::Ah4)),
        PROTOCOL_UDP => udp(view, upper.at, Class::UdpEsp4),
        PROTOCOL_ICMP => icmp::carries4(view, upper.at),
        _ => Some(Carries::OTHER),
    }
}

#[inline(always)]
fn carries6<V: View + ?Sized>(
    view: &V,
    at: usize,
    fragments: &mut impl Fragments,
) -> Option<Carries> {
    let upper = upper6(view, at)?;
    if upper.part != Part::Whole {
        return fragment6(view, at, &upper, fragments);
    }
    match upper.protocol {
        PROTOCOL_ESP => Some(Carries::class(Class::Esp6)),
        PROTOCOL_AH => Some(Carries::class(Class::Ah6)),
        PROTOCOL_UDP => udp(view, upper.at, Class::UdpEsp6),
        PROTOCOL_ICMPV6 => icmp::carries6(view, upper.at, view.u8(at + IPV6_HOP_LIMIT)?),
        _ => Some(Carries::OTHER),
    }
}

#[inline(always)]
fn udp<V: View + ?Sized>(view: &V, at: usize, esp: Class) -> Option<Carries> {
    match view.be16(at + UDP_DESTINATION)? {
        PORT_NAT_T => {}
        PORT_IKE => return Some(Carries::OTHER_KEPT),
        _ => return Some(Carries::OTHER),
    }
    let Some(payload_len) = view.be16(at + UDP_LENGTH)?.checked_sub(8) else {
        return Some(Carries::class(Class::Malformed));
    };
    let payload = at + UDP;
    if payload_len == 1 && view.u8(payload)? == KEEPALIVE {
        return Some(Carries::kept(Class::Keepalive));
    }
    if payload_len >= MARKER_LEN && view.be32(payload)? == NON_ESP_MARKER {
        return Some(Carries::kept(Class::Ike));
    }
    Some(Carries::class(if payload_len < ESP_HEADER_LEN { Class::Runt } else { esp }))
}

/// A fragment in IPv4. One of another protocol than UDP never asks the memory, as identifications
/// are a protocol's own.
#[inline(always)]
fn fragment4<V: View + ?Sized>(
    view: &V,
    at: usize,
    upper: &Upper,
    fragments: &mut impl Fragments,
) -> Option<Carries> {
    match upper.protocol {
        PROTOCOL_ESP | PROTOCOL_AH => return Some(Carries::class(Class::IpsecFragment)),
        PROTOCOL_UDP => {}
        _ => return Some(Carries::class(Class::Fragment)),
    }
    let source = view.octets(at + IPV4_SOURCE)?;
    let destination = view.octets(at + IPV4_DESTINATION)?;
    let key = FragmentKey::v4(source, destination, upper.id);
    fragment(view, upper, &key, fragments)
}

#[inline(always)]
fn fragment6<V: View + ?Sized>(
    view: &V,
    at: usize,
    upper: &Upper,
    fragments: &mut impl Fragments,
) -> Option<Carries> {
    if matches!(upper.declared, PROTOCOL_ESP | PROTOCOL_AH) {
        return Some(Carries::class(Class::IpsecFragment));
    }
    let source = view.octets(at + IPV6_SOURCE)?;
    let destination = view.octets(at + IPV6_DESTINATION)?;
    let key = FragmentKey::v6(source, destination, upper.id);
    fragment(view, upper, &key, fragments)
}

/// A fragment of which only the first one of its datagram tells what it is.
#[inline(always)]
fn fragment<V: View + ?Sized>(
    view: &V,
    upper: &Upper,
    key: &FragmentKey,
    fragments: &mut impl Fragments,
) -> Option<Carries> {
    if upper.part == Part::Later {
        return Some(if fragments.knows(key) {
            Carries::class(Class::IpsecFragment)
        } else {
            Carries { class: Class::Fragment, kept: upper.protocol == PROTOCOL_UDP }
        });
    }
    let carries = first_fragment(view, upper)?;
    if upper.part == Part::First {
        if carries.class.is_for_engine() {
            fragments.remember(key);
        } else {
            fragments.forget(key);
        }
    }
    Some(carries)
}

/// The first, or only, fragment of a datagram. Its end is the header's, since the frame may have
/// padding where the marker would be.
#[inline(always)]
fn first_fragment<V: View + ?Sized>(view: &V, upper: &Upper) -> Option<Carries> {
    match upper.protocol {
        PROTOCOL_ESP | PROTOCOL_AH => return Some(Carries::class(Class::IpsecFragment)),
        PROTOCOL_UDP => {}
        _ => return Some(Carries::class(Class::Fragment)),
    }
    if upper.at + UDP_AND_MARKER > upper.end {
        return Some(Carries::kept(Class::Fragment));
    }
    let carries = udp(view, upper.at, Class::IpsecFragment)?;
    Some(match carries.class {
        Class::IpsecFragment => carries,
        _ => Carries { class: Class::Fragment, ..carries },
    })
}
