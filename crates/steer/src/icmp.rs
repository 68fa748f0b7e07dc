//! ICMP on the unprotected side: which errors are the engine's, and which an own address keeps.

use crate::class::Class;
use crate::header::PROTOCOL_AH;
use crate::header::PROTOCOL_ESP;
use crate::header::PROTOCOL_UDP;
use crate::header::Part;
use crate::header::Upper;
use crate::header::ipv4_header_len;
use crate::header::is_ipv6;
use crate::header::upper4;
use crate::header::upper6;
use crate::outer::Carries;
use crate::view::View;

/// An ICMP header; behind it an error quotes the packet it is about (RFC 792, RFC 4443 §3).
const ICMP: usize = 8;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

const LAST_ERROR6: u8 = 4;
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT6: u8 = 137;
/// Neighbour discovery has not been forwarded (RFC 4861 §6.1 and following).
const NOT_FORWARDED: u8 = 255;

const PORT_IKE: u16 = 500;
const PORT_NAT_T: u16 = 4500;
const UDP: usize = 8;
const UDP_LENGTH_AT: usize = 4;
/// Octets of UDP header, SPI and sequence number.
const UDP_ESP: u16 = 16;

/// What an ICMP error is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// ESP, AH, or UDP from port 4500 that does not show that it is something else.
    Ipsec,
    /// UDP from port 500, or from 4500 with a marker or too short for ESP, such as a keepalive.
    Ike,
    Other,
}

/// What an ICMP message at `at` is.
#[inline(always)]
pub(crate) fn carries4<V: View + ?Sized>(view: &V, at: usize) -> Option<Carries> {
    let kind = view.u8(at)?;
    if !matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return Some(Carries::OTHER);
    }
    let quoted = at + ICMP;
    let Some(header_len) = ipv4_header_len(view.u8(quoted)?) else {
        return Some(Carries::OTHER);
    };
    let about = about(view, &upper4(view, quoted, header_len)?)?;
    Some(error(about))
}

/// What an ICMPv6 message at `at`, in a packet of this hop limit, is.
#[inline(always)]
pub(crate) fn carries6<V: View + ?Sized>(view: &V, at: usize, hop_limit: u8) -> Option<Carries> {
    let kind = view.u8(at)?;
    if (ROUTER_SOLICITATION..=REDIRECT6).contains(&kind) && hop_limit == NOT_FORWARDED {
        return Some(Carries::OTHER_KEPT);
    }
    if !(1..=LAST_ERROR6).contains(&kind) {
        return Some(Carries::OTHER);
    }
    let quoted = at + ICMP;
    if !is_ipv6(view.u8(quoted)?) {
        return Some(Carries::OTHER);
    }
    let about = about(view, &upper6(view, quoted)?)?;
    Some(error(about))
}

#[inline(always)]
fn error(about: About) -> Carries {
    match about {
        About::Ipsec => Carries { class: Class::IcmpError, kept: true },
        About::Ike => Carries::OTHER_KEPT,
        About::Other => Carries::OTHER,
    }
}

/// What the quoted packet is; its ports are known unless it is a later fragment. The quotation may
/// end behind the ports.
#[inline(always)]
fn about<V: View + ?Sized>(view: &V, quoted: &Upper) -> Option<About> {
    match quoted.protocol {
        PROTOCOL_ESP | PROTOCOL_AH => return Some(About::Ipsec),
        PROTOCOL_UDP if quoted.part != Part::Later => {}
        _ => return Some(About::Other),
    }
    Some(match view.be16(quoted.at)? {
        PORT_IKE => About::Ike,
        PORT_NAT_T if view.be32(quoted.at + UDP) == Some(0) => About::Ike,
        PORT_NAT_T if view.be16(quoted.at + UDP_LENGTH_AT).is_none_or(|len| len < UDP_ESP) => {
            About::Ike
        }
        PORT_NAT_T => About::Ipsec,
        _ => About::Other,
    })
}
