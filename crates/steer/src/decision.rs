//! The decision: a frame's [`Class`], and with it whether the engine or the kernel gets the frame.
//!
//! The functions here are pure but for the memory of fragments they are given. The kernel program
//! runs them over the packet pointers, user space over byte slices (replay, tests), so there is
//! one source of truth for what a gateway attracts.
//!
//! # Unprotected side
//!
//! | frame | class | goes to |
//! |---|---|---|
//! | IPv4 or IPv6, protocol 50 | `Esp4`, `Esp6` | engine |
//! | IPv4 or IPv6, protocol 51 | `Ah4`, `Ah6` | engine |
//! | UDP to port 4500 with ESP inside | `UdpEsp4`, `UdpEsp6` | engine |
//! | UDP to port 4500, fewer than 8 octets, neither keepalive nor IKE | `Runt` | engine |
//! | fragment of protocol 50 or 51, or of UDP to port 4500 with ESP | `IpsecFragment` | engine |
//! | ICMP error about ESP, AH, or UDP from port 4500, not IKE | `IcmpError` | engine |
//! | none of these, to a destination that policy protects | `Plain4`, `Plain6` | engine |
//! | UDP to port 4500, the one octet 0xFF | `Keepalive` | kernel |
//! | UDP to port 4500, first four octets zero (non-ESP marker, RFC 3948 §2.2) | `Ike` | kernel |
//! | any other fragment | `Fragment` | kernel |
//! | IP header or UDP length that contradicts itself | `Malformed` | kernel |
//! | frame that ends before a field the decision needs | `Short` | kernel |
//! | everything else | `Other` | kernel |
//!
//! What is for the engine never goes to the kernel, which might forward in clear what policy
//! protects: where the queue has no socket, the kernel program drops it.
//!
//! Whoever counts a packet must get it: what claims to be ESP goes to the engine even when it is
//! cut short or has the reserved SPI 0, and so does a runt. A payload of less than four octets
//! cannot carry the non-ESP marker, hence cannot be IKE, so it is a runt as well, an empty one
//! included. A zero marker makes a payload IKE's from four octets on, however little follows.
//! Payload length is what the UDP header says; Ethernet padding does not change it.
//!
//! In IPv6 up to [`EXTENSION_HEADERS_MAX`](crate::header::EXTENSION_HEADERS_MAX) extension headers
//! (hop-by-hop options, routing, destination options, one fragment header) are followed, and what
//! is behind them decides.
//!
//! ## Fragments
//!
//! A fragment of ESP or AH says so itself. Of UDP the first fragment decides: when it is one of ESP
//! to port 4500, the datagram is remembered and its later fragments follow it to the engine
//! ([`crate::fragments`]). All other fragments of UDP stay with the kernel, IKE's above all, and so
//! do those that arrive before their first one, and a first one too small to show the marker. A
//! fragment header on a whole packet makes it a fragment, too.
//!
//! ## ICMP errors
//!
//! The engine gets unreachable (ICMP type 3, ICMPv6 1), packet too big (ICMPv6 2), time exceeded
//! (11, 3) and parameter problem (12, 4) when the packet they quote is ours: ESP, AH, or UDP from
//! port 4500, unless the quotation shows a non-ESP marker or a length too short for ESP. Other ICMP
//! errors stay with the kernel.
//!
//! ## Plaintext
//!
//! What is not for the engine by itself, and has a destination that inbound policy protects (or
//! discards), is the engine's all the same, as policy must drop it or let it pass (RFC 4301 §5.2).
//! This goes for IKE, fragments, and what is cut short behind the destination, too, since the
//! kernel would forward those. Prefixes are matched as on the protected side, exceptions included.
//!
//! At an *own address* of the gateway ([`PrefixValue::own`](crate::PrefixValue::own)) there is
//! traffic that makes IPsec work and cannot be under its protection. It stays with the kernel: IKE
//! (to port 500 or 4500), keepalives, later fragments of UDP, ICMP errors about ESP, AH or
//! IKE, and IPv6 neighbour discovery. The rest is plaintext as any other.
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
//! Checksums, total lengths (but of first fragments) and the frame's link-layer destination are
//! not looked at: the engine does that. A zero, right or wrong UDP checksum makes no difference.

use crate::class::Class;
use crate::fragments::Fragments;
use crate::inner;
use crate::outer;
use crate::prefixes::Prefixes;
use crate::view::View;

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
        self.class.is_for_engine()
    }
}

/// Decides about an Ethernet frame received on the unprotected side. `prefixes` are destinations
/// that inbound policy protects or discards; `fragments` is the interface's memory.
#[must_use]
#[inline(always)]
pub fn unprotected<V: View + ?Sized>(
    view: &V,
    prefixes: &impl Prefixes,
    fragments: &mut impl Fragments,
) -> Decision {
    Decision { class: outer::class(view, prefixes, fragments).unwrap_or(Class::Short) }
}

/// Decides about an Ethernet frame received on the protected side. `prefixes` are destinations
/// that outbound policy protects or discards.
#[must_use]
#[inline(always)]
pub fn protected<V: View + ?Sized>(view: &V, prefixes: &impl Prefixes) -> Decision {
    Decision { class: inner::class(view, prefixes).unwrap_or(Class::Short) }
}
