//! The security policy database (RFC 4301 section 4.4.1): ordered policies, first match wins.
//!
//! Outbound policies say what becomes of a plaintext packet. Inbound policies bind what may come
//! out of an SA: after decryption the packet must match an inbound policy that names the SA's
//! [`Group`] (RFC 4301 section 5.2). What no policy matches is discarded.
//!
//! A policy names a group of SAs, not an SA: a rekey replaces members and leaves policies alone.
//!
//! Reads no clock, does no I/O. [`Spd`] is the list of record; [`compiled`] is what packets meet.

#![forbid(unsafe_code)]

pub mod compiled;

use std::net::IpAddr;

use ipnet::IpNet;

pub use crate::compiled::Compiled;

/// A set of interchangeable SAs that a policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group(pub u32);

/// What a policy decides on (RFC 4301 section 4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address of the plaintext packet.
    pub source: IpAddr,
    /// Destination address of the plaintext packet.
    pub destination: IpAddr,
}

/// The packets a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Source addresses.
    pub source: IpNet,
    /// Destination addresses.
    pub destination: IpNet,
}

impl Selector {
    /// True when the flow lies in both prefixes; addresses of different families never match.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        self.source.contains(&flow.source) && self.destination.contains(&flow.destination)
    }
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sent through an SA of the group, or accepted from one.
    Protect(Group),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// One policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which packets it is about.
    pub selector: Selector,
    /// What happens to them.
    pub action: Action,
}

/// The policies of a gateway, in order.
#[derive(Clone, Debug, Default)]
pub struct Spd {
    /// Policies for plaintext that leaves the protected side.
    pub outbound: Vec<Policy>,
    /// Policies for what comes out of SAs.
    pub inbound: Vec<Policy>,
}

impl Spd {
    /// The policies made fast to look up.
    #[must_use]
    pub fn compile(&self) -> Compiled {
        Compiled::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(source: &str, destination: &str, action: Action) -> Policy {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Policy { selector: Selector { source, destination }, action }
    }

    fn flow(source: &str, destination: &str) -> Flow {
        Flow { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn spd() -> Spd {
        Spd {
            outbound: vec![
                policy("10.1.9.0/24", "10.2.0.0/16", Action::Bypass),
                policy("10.1.0.0/16", "10.2.0.0/16", Action::Protect(Group(1))),
                policy("0.0.0.0/0", "10.2.0.0/16", Action::Discard),
                policy("fd01::/64", "fd02::/64", Action::Protect(Group(2))),
            ],
            inbound: vec![policy("10.2.0.0/16", "10.1.0.0/16", Action::Protect(Group(1)))],
        }
    }

    /// P02, P03: first match wins, in order, and nothing matches by default.
    #[test]
    fn first_match_wins() {
        let spd = spd().compile();
        let outbound = |source, destination| spd.outbound(&flow(source, destination));
        assert_eq!(outbound("10.1.9.1", "10.2.0.1"), Some(Action::Bypass));
        assert_eq!(outbound("10.1.8.1", "10.2.0.1"), Some(Action::Protect(Group(1))));
        assert_eq!(outbound("10.3.0.1", "10.2.0.1"), Some(Action::Discard));
        assert_eq!(outbound("10.1.8.1", "10.4.0.1"), None);
        assert_eq!(outbound("fd01::1", "fd02::1"), Some(Action::Protect(Group(2))));
    }

    /// The two directions are separate lists.
    #[test]
    fn directions_are_separate() {
        let spd = spd().compile();
        let there = flow("10.2.0.1", "10.1.0.1");
        assert_eq!(spd.inbound(&there), Some(Action::Protect(Group(1))));
        assert_eq!(spd.outbound(&there), None);
    }
}
