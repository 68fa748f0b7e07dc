//! Classes of the protected side: the destination decides.

use crate::class::Class;
use crate::header::IPV4_DESTINATION;
use crate::header::IPV6_DESTINATION;
use crate::header::Network;
use crate::header::ipv4_header_len;
use crate::header::is_ipv6;
use crate::header::network;
use crate::prefixes::Prefixes;
use crate::prefixes::protecting4;
use crate::prefixes::protecting6;
use crate::view::View;

/// The class of a frame; `None` when it is too short to tell.
#[inline(always)]
pub(crate) fn class<V: View + ?Sized>(view: &V, prefixes: &impl Prefixes) -> Option<Class> {
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
    Some(match protecting4(prefixes, destination) {
        Some(_) => Class::Protected4,
        None => Class::NotProtected,
    })
}

#[inline(always)]
fn inner6<V: View + ?Sized>(view: &V, at: usize, prefixes: &impl Prefixes) -> Option<Class> {
    if !is_ipv6(view.u8(at)?) {
        return Some(Class::Malformed);
    }
    let destination = view.octets(at + IPV6_DESTINATION)?;
    Some(match protecting6(prefixes, destination) {
        Some(_) => Class::Protected6,
        None => Class::NotProtected,
    })
}
