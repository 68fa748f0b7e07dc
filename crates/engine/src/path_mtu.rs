//! The path MTU of an outbound SA (RFC 4301 section 8.2): learned from ICMP, believed within
//! bounds, forgotten again.

use std::net::IpAddr;

use culvert_wire::esp::IcmpError;

/// How long a learned path MTU is believed, in nanoseconds: 10 minutes (RFC 1191 section 6.3).
pub const AGE_NS: u64 = 600_000_000_000;

/// Least path MTU believed over IPv4, if an SA says nothing else: what every IPv4 host
/// takes (RFC 791); less would make an attacker's forged errors costly.
pub const FLOOR_V4: u16 = 576;

/// Least path MTU there is over IPv6 (RFC 8200 section 5).
pub const FLOOR_V6: u16 = 1280;

/// Numbers behind the last one used that an error may name: older packets tell nothing new.
pub const RECENT: u64 = 1 << 20;

/// MTUs of links, the next lower of which is tried when a router does not say which it has
/// (RFC 1191 section 7.1).
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// The least path MTU that an SA to `destination` believes.
pub(crate) fn floor(configured: Option<u16>, destination: IpAddr) -> u16 {
    match destination {
        IpAddr::V4(_) => configured.unwrap_or(FLOOR_V4),
        IpAddr::V6(_) => configured.unwrap_or(FLOOR_V6).max(FLOOR_V6),
    }
}

/// The MTU that an error means which says `mtu`. Over IPv4 an old router says 0, and the next lower
/// plateau is meant (RFC 1191 section 5); over IPv6 an error that says less than every link carries
/// is not heeded (RFC 8201 section 4).
pub(crate) fn told(mtu: u32, error: &IcmpError) -> Option<u16> {
    let clamped = u16::try_from(mtu).unwrap_or(u16::MAX);
    match error.destination {
        IpAddr::V4(_) if mtu == 0 => {
            PLATEAUS.into_iter().find(|&plateau| usize::from(plateau) < error.len)
        }
        IpAddr::V6(_) if clamped < FLOOR_V6 => None,
        _ => Some(clamped),
    }
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathMtu {
    learned: Option<(u16, u64)>,
}

impl PathMtu {
    /// The smaller of the link's MTU and what was learned.
    #[inline]
    pub(crate) fn limit(&self, link: u16) -> u16 {
        self.learned.map_or(link, |(mtu, _)| link.min(mtu))
    }

    /// What was learned.
    pub(crate) fn learned(&self) -> Option<u16> {
        self.learned.map(|(mtu, _)| mtu)
    }

    /// Takes in what an error says, only downwards. True when something changed.
    pub(crate) fn learn(&mut self, mtu: u16, link: u16, now: u64) -> bool {
        if mtu >= self.limit(link) {
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
        assert!(path.learn(1400, 1500, 7));
        assert_eq!((path.limit(1500), path.limit(1300)), (1400, 1300));
        assert!(!path.age(7 + AGE_NS - 1));
        assert!(path.age(7 + AGE_NS) && !path.age(7 + AGE_NS));
        assert_eq!(path.limit(1500), 1500);
    }

    /// P24: below the floor of the family, or of the SA, nothing is believed, and never upwards.
    #[test]
    fn bounded() {
        let mut path = PathMtu::default();
        assert!(!path.learn(1500, 1500, 0) && !path.learn(9000, 1500, 0));
        assert!(path.learn(576, 1500, 0));
        assert_eq!(path.limit(1500), 576);
        assert!(!path.learn(1400, 1500, 0), "not upwards");
        assert_eq!((floor(None, V4), floor(None, V6)), (576, 1280));
        assert_eq!((floor(Some(300), V4), floor(Some(300), V6)), (300, 1280));
        assert_eq!((floor(Some(1400), V4), floor(Some(1400), V6)), (1400, 1400));
    }

    /// P24: an error that names no MTU means the next plateau below the packet; over IPv6 one that
    /// names less than 1280 means nothing.
    #[test]
    fn what_is_told() {
        let error = |destination, len| IcmpError {
            ip_at: 14,
            reporter: destination,
            reported: culvert_wire::icmp::Reported::TooBig { mtu: 0 },
            kind: [3, 4],
            len,
            source: destination,
            destination,
            protocol: 50,
            ports: None,
            spi: None,
            seq: None,
        };
        let plateau = |len| told(0, &error(V4, len));
        assert_eq!([1500, 1492, 1006, 69].map(plateau), [1492, 1006, 508, 68].map(Some));
        assert_eq!([65535, 68, 0].map(plateau), [Some(32000), None, None]);
        assert_eq!(
            (told(1, &error(V4, 1500)), told(70_000, &error(V4, 0))),
            (Some(1), Some(65535))
        );
        let six = |mtu| told(mtu, &error(V6, 1500));
        assert_eq!([0, 1279, 1280, 70_000].map(six), [None, None, Some(1280), Some(65535)]);
    }
}
