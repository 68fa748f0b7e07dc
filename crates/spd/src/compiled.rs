//! Policies made fast to look up, equal to a search of the list from its head.
//!
//! A selector is a box in a space of five axes: source and destination address, protocol, and two
//! for ports or types (`region.rs`); a packet is a point. A lookup asks which boxes hold the point
//! and takes the one whose policy stands first.
//!
//! 1. Each range of addresses is covered by one or two aligned blocks of about its own size, a
//!    prefix by itself. A hash table has the boxes of each pair of a source and a destination block
//!    (`table.rs`).
//! 2. If there are few pairs of block sizes, a lookup probes each, the one with the first policy
//!    first, until no policy that stands before the one found is left. If there are many, a search
//!    among all blocks of an axis finds the chain of those around an address, which nest, and only
//!    pairs of those are probed (`axis.rs`).
//! 3. Where many boxes share a pair, as policies for the ports of one host do, a tree of cuts along
//!    the five axes leaves a few to compare (`tree.rs`).
//!
//! Cost: at most 16 probes; or two searches and a probe for each pair of nested blocks around the
//! packet, at most 33 * 33 for IPv4 and 129 * 129 for IPv6, if policies nest in all lengths. In
//! each pair 8 boxes are compared, more only where cuts cannot separate them: where more than
//! 8 overlap one another and none hides those behind it.
//!
//! Memory: a box has 56 octets for IPv4, 176 for IPv6. A list of n policies has at most
//! max(n, 2^19) boxes of each family, each at most 12 times: in 4 pairs of blocks, in each of them
//! 3 times in a tree. Policies between prefixes have one box, once; 100,000 of them need about
//! 10 MB, and 20 MB more where chains are needed.

mod axis;
mod region;
mod table;
mod tree;

use crate::DefaultAction;
use crate::Flow;
use crate::Match;
use crate::Policy;
use crate::Selector;
use crate::Spd;
use crate::UpperSelector;
use crate::compiled::region::Region;
use crate::compiled::region::point;
use crate::compiled::table::Table;

/// The boxes of a list: that many, or one for each policy if there are more policies.
const REGIONS_MAX: usize = 1 << 19;

/// Both lists, compiled: immutable, and shared by threads as it is.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    outbound: List,
    inbound: List,
    is_address_only: bool,
    looks_at_upper: bool,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Compiled>();
};

#[derive(Clone, Debug, Default)]
struct List {
    v4: Table<u32>,
    v6: Table<u128>,
    /// Selectors of more boxes than there is memory for; their boxes say only "maybe".
    coarse: Box<[Selector]>,
    default: DefaultAction,
}

impl Compiled {
    pub(crate) fn new(spd: &Spd) -> Compiled {
        let policies = || spd.outbound.iter().chain(&spd.inbound);
        Compiled {
            outbound: List::new(&spd.outbound, spd.default),
            inbound: List::new(&spd.inbound, spd.default),
            is_address_only: policies()
                .all(|policy| policy.selector.is_address_only() && policy.pfp.is_address_only()),
            looks_at_upper: policies().any(|policy| {
                *policy.selector.upper() != UpperSelector::Any || policy.pfp.takes_ports()
            }),
        }
    }

    /// What the policies say of a packet from the protected side.
    #[inline]
    #[must_use]
    pub fn outbound(&self, flow: &Flow) -> Match {
        self.outbound.find(flow)
    }

    /// What the policies say of a plaintext packet from the unprotected side, be it out of an SA.
    #[inline]
    #[must_use]
    pub fn inbound(&self, flow: &Flow) -> Match {
        self.inbound.find(flow)
    }

    /// True when no policy of either list looks at anything but addresses, nor gives an SA anything
    /// else of a packet: then the upper layer of packets need not be read, and addresses alone are
    /// a key for what was found.
    #[inline]
    #[must_use]
    pub fn is_address_only(&self) -> bool {
        self.is_address_only
    }

    /// True when some policy looks at ports, ICMP or mobility types, not only at the protocol.
    #[inline]
    #[must_use]
    pub fn looks_at_upper(&self) -> bool {
        self.looks_at_upper
    }
}

impl List {
    fn new(policies: &[Policy], default: DefaultAction) -> List {
        let allowance = (REGIONS_MAX / policies.len().max(1)).max(1);
        let mut coarse = Vec::new();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (position, policy) in (0u32..).zip(policies) {
            let next = u32::try_from(coarse.len()).expect("at most one for each policy");
            let exact4 = region::extend(&mut v4, policy, position, allowance, next);
            let exact6 = region::extend(&mut v6, policy, position, allowance, next);
            if !(exact4 && exact6) {
                coarse.push(policy.selector.clone());
            }
        }
        List { v4: Table::new(&v4), v6: Table::new(&v6), coarse: coarse.into(), default }
    }

    #[inline]
    fn find(&self, flow: &Flow) -> Match {
        let found = if flow.addresses.is_v4 {
            let region = self.v4.find(&point(flow), |region| self.agrees(region, flow));
            region.map(|region| (region.action, region.policy))
        } else {
            let region = self.v6.find(&point(flow), |region| self.agrees(region, flow));
            region.map(|region| (region.action, region.policy))
        };
        found.map_or(Match::none(self.default), |(action, policy)| Match {
            action: Some(action),
            policy: Some(policy),
        })
    }

    /// True when a box that holds the packet is exact, or its selector agrees.
    #[inline]
    fn agrees<W>(&self, region: &Region<W>, flow: &Flow) -> bool {
        match region.coarse {
            None => true,
            Some(index) => self.coarse[index.get() as usize - 1].matches(flow),
        }
    }
}

#[cfg(test)]
mod tests;
