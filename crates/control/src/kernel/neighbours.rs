//! Neighbours on our links: their MAC addresses while the kernel holds them for usable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourAddress;
use netlink_packet_route::neighbour::NeighbourAttribute;
use netlink_packet_route::neighbour::NeighbourFlags;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::neighbour::NeighbourState;

use culvert_engine::next_hop::Target;
use culvert_wire::ethernet::Mac;

use super::links::Links;
use super::table::Outcome;
use super::table::changed_if;

/// Most neighbours kept.
pub(super) const MAX_NEIGHBOURS: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    mac: Mac,
    stale: bool,
}

/// The usable neighbours. Those being resolved, and those that failed, are absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    entries: BTreeMap<Target, Neighbour>,
}

impl Neighbours {
    /// A neighbour appeared or changed.
    pub(super) fn set(&mut self, message: &NeighbourMessage, links: &Links) -> Outcome {
        let header = &message.header;
        let family = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
        if !family || header.flags.contains(NeighbourFlags::Proxy) || !links.is_ours(header.ifindex)
        {
            return Outcome::Same;
        }
        let Some(target) = target(message) else {
            return Outcome::Malformed;
        };
        let Some(neighbour) = usable(message) else {
            return changed_if(self.entries.remove(&target).is_some());
        };
        if self.entries.len() >= MAX_NEIGHBOURS && !self.entries.contains_key(&target) {
            return Outcome::OverLimit;
        }
        let before = self.entries.insert(target, neighbour);
        changed_if(before.map(|before| before.mac) != Some(neighbour.mac))
    }

    /// The kernel forgot a neighbour.
    pub(super) fn remove(&mut self, message: &NeighbourMessage) -> Outcome {
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return Outcome::Same;
        }
        target(message)
            .map_or(Outcome::Same, |target| changed_if(self.entries.remove(&target).is_some()))
    }

    /// All usable neighbours.
    pub(super) fn reachable(&self) -> impl Iterator<Item = (Target, Mac)> {
        self.entries.iter().map(|(target, neighbour)| (*target, neighbour.mac))
    }

    /// Neighbours that are used but were not confirmed for a while, in order, behind `after`.
    pub(super) fn stale(&self, after: Option<Target>) -> impl Iterator<Item = Target> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((start, Bound::Unbounded))
            .filter(|(_, neighbour)| neighbour.stale)
            .map(|(target, _)| *target)
    }
}

/// What `ip neigh replace ADDRESS dev INTERFACE use` sends, but for the state: an entry without one
/// is resolved, and forgotten by the kernel in time when nobody asks again.
pub(super) fn use_request(target: Target) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match target.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = target.interface;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(target.address.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

fn target(message: &NeighbourMessage) -> Option<Target> {
    let interface = message.header.ifindex;
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(Target { interface, address: (*address).into() })
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some(Target { interface, address: (*address).into() })
        }
        _ => None,
    })
}

/// The MAC address, if the state says that it may be used.
fn usable(message: &NeighbourMessage) -> Option<Neighbour> {
    let stale = match message.header.state {
        NeighbourState::Stale => true,
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Noarp
        | NeighbourState::Permanent => false,
        _ => return None,
    };
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => {
            let mac = Mac(bytes.as_slice().try_into().ok()?);
            Some(Neighbour { mac, stale })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::links::tests::LAN;
    use super::super::links::tests::links;
    use super::*;

    fn announce(address: &str, state: NeighbourState, mac: Option<u8>) -> NeighbourMessage {
        let RouteNetlinkMessage::NewNeighbour(mut message) = use_request(target(address)) else {
            unreachable!("it is one");
        };
        message.header.flags = NeighbourFlags::empty();
        message.header.state = state;
        if let Some(mac) = mac {
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]));
        }
        message
    }

    fn target(address: &str) -> Target {
        Target { interface: LAN, address: address.parse().unwrap() }
    }

    fn macs(neighbours: &Neighbours) -> Vec<u8> {
        neighbours.reachable().map(|(_, mac)| mac.0[5]).collect()
    }

    /// Six states are usable, the others take the neighbour out.
    #[test]
    fn usable_states() {
        let usable = [
            NeighbourState::Permanent,
            NeighbourState::Noarp,
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
            NeighbourState::Probe,
        ];
        let unusable = [
            NeighbourState::Failed,
            NeighbourState::Incomplete,
            NeighbourState::None,
            NeighbourState::Other(0x4000),
        ];
        let links = links();
        for good in usable {
            for bad in unusable {
                let mut neighbours = Neighbours::default();
                let message = announce("10.1.0.2", good, Some(1));
                assert_eq!(neighbours.set(&message, &links), Outcome::Changed, "{good:?}");
                let message = announce("10.1.0.2", bad, Some(1));
                assert_eq!(neighbours.set(&message, &links), Outcome::Changed, "{bad:?}");
                assert_eq!(macs(&neighbours), []);
            }
        }
    }

    /// Only a new MAC address shows in a snapshot; a new state alone does not.
    #[test]
    fn only_the_address_matters() {
        let (links, mut neighbours) = (links(), Neighbours::default());
        let mut set = |state, mac| neighbours.set(&announce("fe80::2", state, mac), &links);
        assert_eq!(set(NeighbourState::Reachable, Some(1)), Outcome::Changed);
        assert_eq!(set(NeighbourState::Stale, Some(1)), Outcome::Same);
        assert_eq!(set(NeighbourState::Reachable, Some(2)), Outcome::Changed);
        assert_eq!(macs(&neighbours), [2]);
        let message = announce("fe80::2", NeighbourState::Reachable, None);
        assert_eq!(neighbours.remove(&message), Outcome::Changed);
        assert_eq!(neighbours.remove(&message), Outcome::Same);
    }

    /// Proxies, bridge entries, entries of other interfaces and MAC addresses of another length are
    /// not neighbours of ours.
    #[test]
    fn ignores_what_is_no_neighbour() {
        let (links, mut neighbours) = (links(), Neighbours::default());
        let good = announce("10.1.0.2", NeighbourState::Reachable, Some(1));
        let mut proxy = good.clone();
        proxy.header.flags = NeighbourFlags::Proxy;
        let mut bridge = good.clone();
        bridge.header.family = AddressFamily::Bridge;
        let mut foreign = good.clone();
        foreign.header.ifindex = 77;
        let mut infiniband = good.clone();
        infiniband.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![0; 20]);
        for message in [proxy, bridge, foreign, infiniband] {
            assert_eq!(neighbours.set(&message, &links), Outcome::Same);
        }
        let mut nameless = good;
        nameless.attributes.remove(0);
        assert_eq!(neighbours.set(&nameless, &links), Outcome::Malformed);
        assert_eq!(macs(&neighbours), []);
    }

    /// Stale neighbours are found from any point on, others are not.
    #[test]
    fn finds_stale_neighbours() {
        let (links, mut neighbours) = (links(), Neighbours::default());
        for (address, state) in [
            ("10.1.0.2", NeighbourState::Stale),
            ("10.1.0.3", NeighbourState::Reachable),
            ("10.1.0.4", NeighbourState::Stale),
            ("10.1.0.5", NeighbourState::Permanent),
        ] {
            neighbours.set(&announce(address, state, Some(1)), &links);
        }
        let stale = |after| neighbours.stale(after).collect::<Vec<_>>();
        assert_eq!(stale(None), [target("10.1.0.2"), target("10.1.0.4")]);
        assert_eq!(stale(Some(target("10.1.0.2"))), [target("10.1.0.4")]);
        assert_eq!(stale(Some(target("10.1.0.4"))), []);
    }

    /// A full table takes no new neighbour, but still changes those it has.
    #[test]
    fn is_bounded() {
        let (links, mut neighbours) = (links(), Neighbours::default());
        let mut message = announce("10.0.0.0", NeighbourState::Reachable, Some(1));
        for host in 0..MAX_NEIGHBOURS {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(host).unwrap());
            message.attributes[0] = NeighbourAttribute::Destination(address.into());
            assert_eq!(neighbours.set(&message, &links), Outcome::Changed);
        }
        let other = announce("192.0.2.1", NeighbourState::Reachable, Some(1));
        assert_eq!(neighbours.set(&other, &links), Outcome::OverLimit);
        let known = announce("10.0.0.0", NeighbourState::Reachable, Some(2));
        assert_eq!(neighbours.set(&known, &links), Outcome::Changed);
    }
}
