//! The path MTU of an outbound SA (RFC 4301 section 8.2): learned from ICMP, believed within
//! bounds, forgotten again.

use std::net::IpAddr;

/// How long a learned path MTU is believed, in nanoseconds: 10 minutes (RFC 1191 section 6.3).
pub const AGE_NS: u64 = 600_000_000_000;

/// Least path MTU believed over IPv4: what every IPv4 host takes (RFC 791); less would make an
/// attacker's forged errors costly.
pub const FLOOR_V4: u16 = 576;

/// Least path MTU there is over IPv6 (RFC 8200 section 5).
pub const FLOOR_V6: u16 = 1280;

/// Numbers behind the last one used that an error may name: older packets tell nothing new.
pub const RECENT: u64 = 1 << 20;

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathMtu {
    learned: Option<(u16, u64)>,
}

impl PathMtu {
    /// The smaller of the link's MTU and what was learned.
    #[inline]
    pub(crate) fn limit(&self, link: usize) -> usize {
        match self.learned {
            None => link,
            Some((mtu, _)) => link.min(usize::from(mtu)),
        }
    }

    /// What was learned.
    pub(crate) fn learned(&self) -> Option<u16> {
        self.learned.map(|(mtu, _)| mtu)
    }

    /// Takes in what an error says, at most the floor of the family and only downwards. True when
    /// something changed.
    pub(crate) fn learn(&mut self, mtu: u16, destination: IpAddr, link: usize, now: u64) -> bool {
        let floor = if destination.is_ipv4() { FLOOR_V4 } else { FLOOR_V6 };
        let mtu = mtu.max(floor);
        if usize::from(mtu) >= self.limit(link) {
            return false;
        }
        self.learned = Some((mtu, now.saturating_add(AGE_NS)));
        true
    }

    /// Forgets what is too old. True when something was forgotten.
    pub(crate) fn age(&mut self, now: u64) -> bool {
        let old = self.learned.is_some_and(|(_, until)| until <= now);
        if old {
            self.learned = None;
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    /// P23: what was learned lowers the limit, is aged, and then the link's MTU holds again.
    #[test]
    fn learned_and_aged() {
        let mut path = PathMtu::default();
        assert_eq!(path.limit(1500), 1500);
        assert!(path.learn(1400, V4, 1500, 7));
        assert_eq!((path.limit(1500), path.limit(1300)), (1400, 1300));
        assert!(!path.age(7 + AGE_NS - 1));
        assert!(path.age(7 + AGE_NS) && !path.age(7 + AGE_NS));
        assert_eq!(path.limit(1500), 1500);
    }

    /// P24: below the floor of the family nothing is believed, and never upwards.
    #[test]
    fn bounded() {
        let mut path = PathMtu::default();
        assert!(!path.learn(1500, V4, 1500, 0) && !path.learn(9000, V4, 1500, 0));
        assert!(path.learn(68, V4, 1500, 0));
        assert_eq!(path.limit(1500), 576);
        assert!(!path.learn(1400, V4, 1500, 0), "not upwards");
        let mut path = PathMtu::default();
        assert!(path.learn(0, V6, 1500, 0));
        assert_eq!(path.limit(1500), 1280);
    }
}
