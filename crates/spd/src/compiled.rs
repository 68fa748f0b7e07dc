//! Policies made fast to look up: tuple space search.
//!
//! Policies whose prefixes have the same two lengths lie in one hash table, keyed by the prefixes.
//! A lookup asks each table once and takes the policy that stands first in the list. It costs as
//! much as there are different pairs of lengths, however many policies there are, and it is equal
//! to a search of the list from its head.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::Action;
use crate::Flow;
use crate::Policy;
use crate::Spd;

/// Both lists, compiled.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    outbound: List,
    inbound: List,
}

#[derive(Clone, Debug, Default)]
struct List {
    spaces: Vec<Space>,
}

/// The policies with one pair of prefix lengths; all of one address family.
#[derive(Clone, Debug)]
struct Space {
    source_len: u8,
    destination_len: u8,
    is_v4: bool,
    policies: FxHashMap<(IpAddr, IpAddr), (u32, Action)>,
}

impl Compiled {
    pub(crate) fn new(spd: &Spd) -> Compiled {
        Compiled { outbound: List::new(&spd.outbound), inbound: List::new(&spd.inbound) }
    }

    /// The action for a packet from the protected side; `None`, which means DISCARD, when no policy
    /// matches.
    #[must_use]
    pub fn outbound(&self, flow: &Flow) -> Option<Action> {
        self.outbound.first_match(flow)
    }

    /// The action for a packet that came out of an SA; `None` when no policy matches.
    #[must_use]
    pub fn inbound(&self, flow: &Flow) -> Option<Action> {
        self.inbound.first_match(flow)
    }
}

impl List {
    fn new(policies: &[Policy]) -> List {
        let mut list = List::default();
        for (position, policy) in (0u32..).zip(policies) {
            let (source, destination) = (policy.selector.source, policy.selector.destination);
            if source.addr().is_ipv4() != destination.addr().is_ipv4() {
                continue; // Matches nothing.
            }
            let key = (source.network(), destination.network());
            let space = list.space(source, destination);
            space.policies.entry(key).or_insert((position, policy.action));
        }
        list
    }

    fn space(&mut self, source: IpNet, destination: IpNet) -> &mut Space {
        let (source_len, destination_len) = (source.prefix_len(), destination.prefix_len());
        let is_v4 = source.addr().is_ipv4();
        let same = |space: &Space| {
            (space.source_len, space.destination_len, space.is_v4)
                == (source_len, destination_len, is_v4)
        };
        let index = self.spaces.iter().position(same).unwrap_or_else(|| {
            let policies = FxHashMap::default();
            self.spaces.push(Space { source_len, destination_len, is_v4, policies });
            self.spaces.len() - 1
        });
        &mut self.spaces[index]
    }

    fn first_match(&self, flow: &Flow) -> Option<Action> {
        if flow.source.is_ipv4() != flow.destination.is_ipv4() {
            return None;
        }
        let found = self.spaces.iter().filter(|space| space.is_v4 == flow.source.is_ipv4());
        found
            .filter_map(|space| {
                let source = prefix(flow.source, space.source_len);
                let destination = prefix(flow.destination, space.destination_len);
                space.policies.get(&(source, destination))
            })
            .min_by_key(|(position, _)| position)
            .map(|&(_, action)| action)
    }
}

/// The first address of the prefix of `len` bits that holds `address`.
fn prefix(address: IpAddr, len: u8) -> IpAddr {
    match IpNet::new(address, len) {
        Ok(net) => net.network(),
        // Lengths come from prefixes of the same family.
        Err(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::Group;
    use crate::Selector;

    /// The definition: the first policy of the list that matches.
    fn search(policies: &[Policy], flow: &Flow) -> Option<Action> {
        policies.iter().find(|policy| policy.selector.matches(flow)).map(|policy| policy.action)
    }

    /// Addresses that often share prefixes.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..4, 0u32..4).prop_map(|(a, b)| Ipv4Addr::from(a << 30 | b).into()),
            (0u128..4, 0u128..4).prop_map(|(a, b)| Ipv6Addr::from(a << 126 | b).into()),
        ]
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=4).prop_map(|(address, bits)| {
            let max = if address.is_ipv4() { 32 } else { 128 };
            let len = [0, 1, 2, max - 1, max][usize::from(bits)];
            IpNet::new(address, len).unwrap()
        })
    }

    fn policies() -> impl Strategy<Value = Vec<Policy>> {
        let policy = (net(), net(), 0u32..5).prop_map(|(source, destination, action)| {
            let action = match action {
                0 => Action::Bypass,
                1 => Action::Discard,
                group => Action::Protect(Group(group)),
            };
            Policy { selector: Selector { source, destination }, action }
        });
        proptest::collection::vec(policy, 0..20)
    }

    proptest! {
        /// P01, P03: the compiled list is equal to a search of the list in order.
        #[test]
        fn equals_the_list(
            outbound in policies(),
            inbound in policies(),
            source in address(),
            destination in address(),
        ) {
            // A packet has addresses of one family.
            prop_assume!(source.is_ipv4() == destination.is_ipv4());
            let flow = Flow { source, destination };
            let spd = Spd { outbound, inbound };
            let compiled = spd.compile();
            prop_assert_eq!(compiled.outbound(&flow), search(&spd.outbound, &flow));
            prop_assert_eq!(compiled.inbound(&flow), search(&spd.inbound, &flow));
        }
    }
}
