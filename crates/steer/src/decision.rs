//! The decision: a frame's [`Class`], and with it whether the engine or the kernel gets the frame.
//!
//! The functions here are pure. The kernel program runs them over the packet pointers, user space
//! over byte slices (replay, tests), so there is one source of truth for what a gateway attracts.
//!
//! # Unprotected side
//!
//! | frame | class | goes to |
//! |---|---|---|
//! | IPv4 or IPv6, protocol 50 | `Esp4`, `Esp6` | engine |
//! | UDP to port 4500 with ESP inside | `UdpEsp4`, `UdpEsp6` | engine |
//! | UDP to port 4500, fewer than 8 octets, neither keepalive nor IKE | `Runt` | engine |
//! | UDP to port 4500, the one octet 0xFF | `Keepalive` | kernel |
//! | UDP to port 4500, first four octets zero (non-ESP marker, RFC 3948 §2.2) | `Ike` | kernel |
//! | IPv4 fragment, IPv6 with a fragment header | `Fragment` | kernel |
//! | IP header or UDP length that contradicts itself | `Malformed` | kernel |
//! | frame that ends before a field the decision needs | `Short` | kernel |
//! | everything else | `Other` | kernel |
//!
//! Whoever counts a packet must get it: what claims to be ESP goes to the engine even when it is
//! cut short or has the reserved SPI 0, and so does a runt. A payload of less than four octets
//! cannot carry the non-ESP marker, hence cannot be IKE, so it is a runt as well, an empty one
//! included. A zero marker makes a payload IKE's from four octets on, however little follows.
//! Payload length is what the UDP header says; Ethernet padding does not change it.
//!
//! # Protected side
//!
//! A packet whose destination has a protected prefix as its longest match is `Protected4` or
//! `Protected6` and goes to the engine, inner fragments included (RFC 4301 §7). Without a match,
//! under an exception, or for a multicast, limited broadcast or link-local destination under a
//! prefix wider than those ranges, it is `NotProtected` and stays with the kernel, as does what is
//! not IP (`Other`).
//!
//! # What it does not do
//!
//! It reads one VLAN tag (0x8100); a frame with two, or with a service tag (0x88a8), is `Other`.
//! IPv6 extension headers other than an
//! immediate fragment header are not followed. Checksums, total lengths and the frame's link-layer
//! destination are not looked at: the engine does that.

use crate::prefixes::PrefixValue;
use crate::prefixes::Prefixes;
use crate::prefixes::least_bits4;
use crate::prefixes::least_bits6;
use crate::view::View;

/// What a frame is, as far as steering is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Class {
    /// ESP in IPv4.
    Esp4,
    /// ESP in IPv6.
    Esp6,
    /// ESP in UDP in IPv4.
    UdpEsp4,
    /// ESP in UDP in IPv6.
    UdpEsp6,
    /// UDP to port 4500 that is too short for ESP, and neither keepalive nor IKE.
    Runt,
    /// NAT-T keepalive.
    Keepalive,
    /// UDP to port 4500 with the non-ESP marker.
    Ike,
    /// Outer fragment.
    Fragment,
    /// IPv4 packet to a protected prefix.
    Protected4,
    /// IPv6 packet to a protected prefix.
    Protected6,
    /// IP packet to an unprotected destination.
    NotProtected,
    /// Header that contradicts itself: IP version or header length, UDP length below 8.
    Malformed,
    /// Frame that ends before a field the decision needs.
    Short,
    /// Anything else.
    Other,
}

impl Class {
    /// Every class, in numeric order.
    pub const ALL: [Class; 14] = [
        Class::Esp4,
        Class::Esp6,
        Class::UdpEsp4,
        Class::UdpEsp6,
        Class::Runt,
        Class::Keepalive,
        Class::Ike,
        Class::Fragment,
        Class::Protected4,
        Class::Protected6,
        Class::NotProtected,
        Class::Malformed,
        Class::Short,
        Class::Other,
    ];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Esp4 => "esp4",
            Class::Esp6 => "esp6",
            Class::UdpEsp4 => "udp_esp4",
            Class::UdpEsp6 => "udp_esp6",
            Class::Runt => "runt",
            Class::Keepalive => "keepalive",
            Class::Ike => "ike",
            Class::Fragment => "fragment",
            Class::Protected4 => "protected4",
            Class::Protected6 => "protected6",
            Class::NotProtected => "not_protected",
            Class::Malformed => "malformed",
            Class::Short => "short",
            Class::Other => "other",
        }
    }
}

/// The decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the frame is.
    pub class: Class,
}

impl Decision {
    /// True when the frame is for the engine, false when it stays with the kernel.
    #[must_use]
    #[inline(always)]
    pub const fn redirect(self) -> bool {
        matches!(
            self.class,
            Class::Esp4
                | Class::Esp6
                | Class::UdpEsp4
                | Class::UdpEsp6
                | Class::Runt
                | Class::Protected4
                | Class::Protected6
        )
    }
}

/// Decides about an Ethernet frame received on the unprotected side.
#[must_use]
#[inline(always)]
pub fn unprotected<V: View + ?Sized>(view: &V) -> Decision {
    Decision { class: unprotected_class(view).unwrap_or(Class::Short) }
}

/// Decides about an Ethernet frame received on the protected side.
#[must_use]
#[inline(always)]
pub fn protected<V: View + ?Sized>(view: &V, prefixes: &impl Prefixes) -> Decision {
    Decision { class: protected_class(view, prefixes).unwrap_or(Class::Short) }
}

const ETHER_TYPE: usize = 12;
const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;

const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_ESP: u8 = 50;

const IPV4_MIN: usize = 20;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
const IPV4_DESTINATION: usize = 16;
const IPV4_MORE_OR_OFFSET: u16 = 0x3fff;

const IPV6: usize = 40;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_DESTINATION: usize = 24;

const UDP: usize = 8;
const UDP_DESTINATION: usize = 2;
const UDP_LENGTH: usize = 4;
const PORT_NAT_T: u16 = 4500;
const KEEPALIVE: u8 = 0xff;
const NON_ESP_MARKER: u32 = 0;
const MARKER_LEN: u16 = 4;
const ESP_HEADER_LEN: u16 = 8;

/// Where the network header begins, and of which protocol it claims to be.
enum Network {
    Ipv4(usize),
    Ipv6(usize),
    Other,
}

#[inline(always)]
fn network<V: View + ?Sized>(view: &V) -> Option<Network> {
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

#[inline(always)]
fn unprotected_class<V: View + ?Sized>(view: &V) -> Option<Class> {
    match network(view)? {
        Network::Ipv4(at) => outer4(view, at),
        Network::Ipv6(at) => outer6(view, at),
        Network::Other => Some(Class::Other),
    }
}

#[inline(always)]
fn outer4<V: View + ?Sized>(view: &V, at: usize) -> Option<Class> {
    let Some(header_len) = ipv4_header_len(view.u8(at)?) else {
        return Some(Class::Malformed);
    };
    if view.be16(at + IPV4_FRAGMENT)? & IPV4_MORE_OR_OFFSET != 0 {
        return Some(Class::Fragment);
    }
    match view.u8(at + IPV4_PROTOCOL)? {
        PROTOCOL_ESP => Some(Class::Esp4),
        PROTOCOL_UDP => udp(view, at + header_len, Class::UdpEsp4),
        _ => Some(Class::Other),
    }
}

#[inline(always)]
fn outer6<V: View + ?Sized>(view: &V, at: usize) -> Option<Class> {
    if view.u8(at)? >> 4 != 6 {
        return Some(Class::Malformed);
    }
    match view.u8(at + IPV6_NEXT_HEADER)? {
        PROTOCOL_ESP => Some(Class::Esp6),
        PROTOCOL_UDP => udp(view, at + IPV6, Class::UdpEsp6),
        PROTOCOL_FRAGMENT => Some(Class::Fragment),
        _ => Some(Class::Other),
    }
}

/// Length of an IPv4 header in octets, options included, from its first octet.
#[inline(always)]
fn ipv4_header_len(first: u8) -> Option<usize> {
    let header_len = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && header_len >= IPV4_MIN).then_some(header_len)
}

#[inline(always)]
fn udp<V: View + ?Sized>(view: &V, at: usize, esp: Class) -> Option<Class> {
    if view.be16(at + UDP_DESTINATION)? != PORT_NAT_T {
        return Some(Class::Other);
    }
    let Some(payload_len) = view.be16(at + UDP_LENGTH)?.checked_sub(8) else {
        return Some(Class::Malformed);
    };
    let payload = at + UDP;
    if payload_len == 1 && view.u8(payload)? == KEEPALIVE {
        return Some(Class::Keepalive);
    }
    if payload_len >= MARKER_LEN && view.be32(payload)? == NON_ESP_MARKER {
        return Some(Class::Ike);
    }
    Some(if payload_len < ESP_HEADER_LEN { Class::Runt } else { esp })
}

#[inline(always)]
fn protected_class<V: View + ?Sized>(view: &V, prefixes: &impl Prefixes) -> Option<Class> {
    match network(view)? {
        Network::Ipv4(at) => inner4(view, at, prefixes),
        Network::Ipv6(at) => inner6(view, at, prefixes),
        Network::Other => Some(Class::Other),
    }
}

#[inline(always)]
fn inner4<V: View + ?Sized>(view: &V, at: usize, prefixes: &impl Prefixes) -> Option<Class> {
    if ipv4_header_len(view.u8(at)?).is_none() {
        return Some(Class::Malformed);
    }
    let destination = view.octets(at + IPV4_DESTINATION)?;
    let found = prefixes.match4(destination);
    Some(if protects(found, least_bits4(destination)) {
        Class::Protected4
    } else {
        Class::NotProtected
    })
}

#[inline(always)]
fn inner6<V: View + ?Sized>(view: &V, at: usize, prefixes: &impl Prefixes) -> Option<Class> {
    if view.u8(at)? >> 4 != 6 {
        return Some(Class::Malformed);
    }
    let destination = view.octets(at + IPV6_DESTINATION)?;
    let found = prefixes.match6(destination);
    Some(if protects(found, least_bits6(destination)) {
        Class::Protected6
    } else {
        Class::NotProtected
    })
}

#[inline(always)]
fn protects(found: Option<PrefixValue>, least_bits: u32) -> bool {
    found.is_some_and(|value| !value.is_exception() && value.bits() >= least_bits)
}
