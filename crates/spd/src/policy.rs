//! Policies and the list of record (RFC 4301 section 4.4.1).

use crate::Compiled;
use crate::Flow;
use crate::Pfp;
use crate::Selector;

/// A set of interchangeable SAs that a policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sent through an SA of the group, or accepted from one.
    Protect(Group),
    /// Forwarded in clear.
    Bypass,
    /// Dropped.
    Discard,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which packets it is about.
    pub selector: Selector,
    /// What happens to them.
    pub action: Action,
    /// What the selector of an SA for them takes from the packet.
    pub pfp: Pfp,
}

/// What happens to a packet that no policy admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DefaultAction {
    /// Dropped, as RFC 4301 section 4.4.1 asks.
    #[default]
    Discard,
    /// Forwarded in clear: for a gateway that is put into a network which already works.
    Bypass,
}

/// The policies of a gateway, in order: the first that admits a packet decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spd {
    /// Policies for plaintext that leaves the protected side.
    pub outbound: Vec<Policy>,
    /// Policies for plaintext that enters it, whether out of an SA or never protected.
    pub inbound: Vec<Policy>,
    /// What happens to a packet that no policy of its direction admits.
    pub default: DefaultAction,
}

/// What the policies say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// What happens to it; `None`, which means DISCARD, when no policy admits it and the default is
    /// to discard.
    pub action: Option<Action>,
    /// Position in the list of the policy that said so; `None` for the default.
    pub policy: Option<u32>,
}

impl Policy {
    /// A policy whose SAs have the selector of the policy.
    #[must_use]
    pub fn new(selector: Selector, action: Action) -> Policy {
        Policy { selector, action, pfp: Pfp::NONE }
    }
}

impl Match {
    /// What no policy admits.
    pub(crate) fn none(default: DefaultAction) -> Match {
        let action = match default {
            DefaultAction::Discard => None,
            DefaultAction::Bypass => Some(Action::Bypass),
        };
        Match { action, policy: None }
    }
}

impl Spd {
    /// The policies made fast to look up.
    #[must_use]
    pub fn compile(&self) -> Compiled {
        Compiled::new(self)
    }

    /// The definition of [`Compiled::outbound`]: a search of the list from its head. Slow.
    #[must_use]
    pub fn search_outbound(&self, flow: &Flow) -> Match {
        search(&self.outbound, self.default, flow)
    }

    /// The definition of [`Compiled::inbound`]: a search of the list from its head. Slow.
    #[must_use]
    pub fn search_inbound(&self, flow: &Flow) -> Match {
        search(&self.inbound, self.default, flow)
    }
}

fn search(policies: &[Policy], default: DefaultAction, flow: &Flow) -> Match {
    (0u32..).zip(policies).find(|(_, policy)| policy.selector.matches(flow)).map_or(
        Match::none(default),
        |(position, policy)| Match { action: Some(policy.action), policy: Some(position) },
    )
}

#[cfg(test)]
mod tests {
    use culvert_wire::ip::Addresses;

    use super::*;
    use crate::PortSelector;
    use crate::Upper;
    use crate::UpperSelector;
    use crate::address::AddressRange;

    fn policy(source: &str, destination: &str, action: Action) -> Policy {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Policy::new(Selector::between(source, destination).unwrap(), action)
    }

    fn flow(source: &str, destination: &str) -> Flow {
        let [source, destination]: [AddressRange; 2] =
            [source, destination].map(|address| address.parse().unwrap());
        let addresses =
            Addresses { is_v4: source.is_v4, source: source.start, destination: destination.start };
        Flow { addresses, protocol: 17, upper: Upper::Ports { source: 500, destination: 500 } }
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
            ..Spd::default()
        }
    }

    fn found(action: Action, policy: u32) -> Match {
        Match { action: Some(action), policy: Some(policy) }
    }

    /// P02, P03: first match wins, in order, and what nothing matches is discarded.
    #[test]
    fn first_match_wins() {
        let spd = spd().compile();
        let outbound = |source, destination| spd.outbound(&flow(source, destination));
        assert_eq!(outbound("10.1.9.1", "10.2.0.1"), found(Action::Bypass, 0));
        assert_eq!(outbound("10.1.8.1", "10.2.0.1"), found(Action::Protect(Group(1)), 1));
        assert_eq!(outbound("10.3.0.1", "10.2.0.1"), found(Action::Discard, 2));
        assert_eq!(outbound("10.1.8.1", "10.4.0.1"), Match { action: None, policy: None });
        assert_eq!(outbound("fd01::1", "fd02::1"), found(Action::Protect(Group(2)), 3));
    }

    /// The two directions are separate lists.
    #[test]
    fn directions_are_separate() {
        let spd = spd().compile();
        let there = flow("10.2.0.1", "10.1.0.1");
        assert_eq!(spd.inbound(&there), found(Action::Protect(Group(1)), 0));
        assert_eq!(spd.outbound(&there), Match { action: None, policy: None });
    }

    /// P03: the default is DISCARD; BYPASS is a switch, and no policy says it.
    #[test]
    fn default_can_be_switched() {
        let there = flow("192.0.2.1", "192.0.2.2");
        assert_eq!(Spd::default().compile().outbound(&there).action, None);
        let open = Spd { default: DefaultAction::Bypass, ..spd() }.compile();
        let bypassed = Match { action: Some(Action::Bypass), policy: None };
        assert_eq!((open.outbound(&there), open.inbound(&there)), (bypassed, bypassed));
        assert_eq!(open.outbound(&flow("10.3.0.1", "10.2.0.1")).action, Some(Action::Discard));
    }

    /// P04: IKE passes because a policy says BYPASS for it, and not without one.
    #[test]
    fn ike_needs_a_policy() {
        let ike = flow("192.0.2.1", "198.51.100.1");
        assert_eq!(spd().compile().outbound(&ike).action, None);
        let (source, destination) = (PortSelector::from(500), PortSelector::from(500));
        let upper = UpperSelector::Ports { source, destination };
        let selector = Selector::new(
            AddressRange::from(std::net::IpAddr::from([192, 0, 2, 1])).into(),
            crate::AddressSelector::Any,
            Some(17),
            upper,
        );
        let mut spd = spd();
        spd.outbound.insert(0, Policy::new(selector.unwrap(), Action::Bypass));
        let spd = spd.compile();
        assert_eq!(spd.outbound(&ike), found(Action::Bypass, 0));
        let dns = Flow { upper: Upper::Ports { source: 500, destination: 53 }, ..ike };
        assert_eq!(spd.outbound(&dns).action, None);
    }
}
