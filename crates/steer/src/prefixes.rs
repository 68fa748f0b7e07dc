//! Protected prefixes: the look-up the decision asks, and the value stored under a prefix.
//!
//! A prefix maps to a [`PrefixValue`], four octets that say how long the prefix is, and whether it
//! is an exception or an own address. Longest match wins, so an exception inside a protected prefix
//! takes its addresses out again. An own address, on the unprotected side, stays protected but for
//! what keeps IPsec going. The length is stored because a match of the kernel's LPM trie does not
//! tell it, and the decision needs it to keep a wide prefix such as `0.0.0.0/0` from catching
//! destinations that no router forwards.

use core::net::IpAddr;
use core::net::Ipv4Addr;
use core::net::Ipv6Addr;

/// The protected prefixes of an interface from which every IP packet is the engine's, but those to
/// multicast, limited broadcast, and link-local addresses of IPv6. A router may not forward IPv4 to
/// link-local addresses either (RFC 3927 §7), but Linux does, so they have a prefix of their own.
pub const EVERYTHING: [(IpAddr, u8); 3] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
];

/// Longest-prefix match over destination addresses; addresses are in network order.
pub trait Prefixes {
    /// The value of the longest prefix that holds the IPv4 `destination`.
    fn match4(&self, destination: [u8; 4]) -> Option<PrefixValue>;

    /// The value of the longest prefix that holds the IPv6 `destination`.
    fn match6(&self, destination: [u8; 16]) -> Option<PrefixValue>;
}

/// What the prefix maps store: the length of a prefix, and what is special about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PrefixValue(u32);

const EXCEPTION: u32 = 1 << 31;
const OWN: u32 = 1 << 30;

impl PrefixValue {
    /// A protected prefix of `bits` bits.
    #[must_use]
    pub const fn protected(bits: u8) -> PrefixValue {
        PrefixValue(bits as u32)
    }

    /// A prefix of `bits` bits whose destinations stay with the kernel.
    #[must_use]
    pub const fn exception(bits: u8) -> PrefixValue {
        PrefixValue(bits as u32 | EXCEPTION)
    }

    /// An address of the gateway itself that lies in a protected prefix of `bits` bits.
    #[must_use]
    pub const fn own(bits: u8) -> PrefixValue {
        PrefixValue(bits as u32 | OWN)
    }

    /// The value as the map stores it.
    #[must_use]
    pub const fn into_raw(self) -> u32 {
        self.0
    }

    /// The value from what the map stores; every number is one.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> PrefixValue {
        PrefixValue(raw)
    }

    /// Length of the protected prefix, or of the exception, in bits.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0 & !(EXCEPTION | OWN)
    }

    /// True when destinations under this prefix stay with the kernel.
    #[must_use]
    #[inline(always)]
    pub const fn is_exception(self) -> bool {
        self.0 & EXCEPTION != 0
    }

    /// True for an own address.
    #[must_use]
    #[inline(always)]
    pub const fn is_own(self) -> bool {
        self.0 & OWN != 0
    }
}

/// The value that protects an IPv4 `destination`, if any.
#[inline(always)]
pub(crate) fn protecting4(prefixes: &impl Prefixes, destination: [u8; 4]) -> Option<PrefixValue> {
    protecting(prefixes.match4(destination), least_bits4(destination))
}

/// The value that protects an IPv6 `destination`, if any.
#[inline(always)]
pub(crate) fn protecting6(prefixes: &impl Prefixes, destination: [u8; 16]) -> Option<PrefixValue> {
    protecting(prefixes.match6(destination), least_bits6(destination))
}

#[inline(always)]
fn protecting(found: Option<PrefixValue>, least_bits: u32) -> Option<PrefixValue> {
    found.filter(|value| !value.is_exception() && value.bits() >= least_bits)
}

/// Shortest prefix that protects an IPv4 destination: longer than zero for multicast, limited
/// broadcast and link-local addresses, which only a prefix within their own range protects.
#[inline(always)]
fn least_bits4(destination: [u8; 4]) -> u32 {
    match destination {
        [255, 255, 255, 255] => 32,
        [224..=239, ..] => 4,
        [169, 254, ..] => 16,
        _ => 0,
    }
}

/// As [`least_bits4`] for IPv6: multicast and link-local addresses.
#[inline(always)]
fn least_bits6(destination: [u8; 16]) -> u32 {
    match destination {
        [0xff, ..] => 8,
        [0xfe, second, ..] if second & 0xc0 == 0x80 => 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value survives the way through the map, and the flags do not disturb the length.
    #[test]
    fn values_survive_the_map() {
        for bits in 0..=128 {
            for (value, is_exception, is_own) in [
                (PrefixValue::protected(bits), false, false),
                (PrefixValue::exception(bits), true, false),
                (PrefixValue::own(bits), false, true),
            ] {
                let value = PrefixValue::from_raw(value.into_raw());
                assert_eq!(value.bits(), u32::from(bits));
                assert_eq!((value.is_exception(), value.is_own()), (is_exception, is_own));
            }
        }
    }

    /// The ranges that no router forwards begin and end where the standards say.
    #[test]
    fn special_ranges_have_exact_edges() {
        assert_eq!(least_bits4([223, 255, 255, 255]), 0);
        assert_eq!(least_bits4([224, 0, 0, 0]), 4);
        assert_eq!(least_bits4([239, 255, 255, 255]), 4);
        assert_eq!(least_bits4([240, 0, 0, 0]), 0);
        assert_eq!(least_bits4([255, 255, 255, 254]), 0);
        assert_eq!(least_bits4([255; 4]), 32);
        assert_eq!(least_bits4([169, 253, 255, 255]), 0);
        assert_eq!(least_bits4([169, 254, 0, 1]), 16);
        let starting = |first, second| {
            let mut address = [0; 16];
            address[..2].copy_from_slice(&[first, second]);
            least_bits6(address)
        };
        assert_eq!(starting(0xff, 0x02), 8);
        assert_eq!(starting(0xfe, 0x7f), 0);
        assert_eq!(starting(0xfe, 0x80), 10);
        assert_eq!(starting(0xfe, 0xbf), 10);
        assert_eq!(starting(0xfe, 0xc0), 0);
        assert_eq!(starting(0x20, 0x01), 0);
    }
}
