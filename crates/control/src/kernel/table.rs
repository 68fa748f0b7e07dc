//! The table of everything known: links, addresses, routes and neighbours, changed by messages.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressMessage;

use culvert_engine::next_hop::NextHops;
use culvert_engine::next_hop::Route;
use culvert_engine::next_hop::Target;
use culvert_frame::Port;

use super::links::Links;
use super::neighbours::Neighbours;
use super::routes::Routes;

/// Most addresses kept.
pub(super) const MAX_ADDRESSES: usize = 65_536;

/// What a message did to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing that shows in a snapshot.
    Same,
    /// A snapshot would differ.
    Changed,
    /// The message does not tell all: the table must be read again.
    Reread,
    /// Nothing: the table is full.
    OverLimit,
    /// Nothing: the message is not what it should be.
    Malformed,
}

/// `Changed` or `Same`.
pub(super) fn changed_if(changed: bool) -> Outcome {
    if changed { Outcome::Changed } else { Outcome::Same }
}

/// Everything known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    links: Links,
    /// Our addresses and the interfaces they are on.
    addresses: BTreeSet<(IpAddr, u32)>,
    /// Broadcast addresses of our networks.
    broadcasts: BTreeSet<Ipv4Addr>,
    routes: Routes,
    neighbours: Neighbours,
}

impl Table {
    pub(super) fn new(interfaces: &[(String, Port)]) -> Table {
        Table {
            links: Links::new(interfaces),
            addresses: BTreeSet::new(),
            broadcasts: BTreeSet::new(),
            routes: Routes::default(),
            neighbours: Neighbours::default(),
        }
    }

    /// Takes one entry of a listing.
    pub(super) fn load(&mut self, message: &RouteNetlinkMessage) -> Outcome {
        match message {
            // Listed in the kernel's order of preference, so it goes behind those before it.
            RouteNetlinkMessage::NewRoute(route) => self.routes.append(route),
            other => self.apply(other, 0),
        }
    }

    /// Applies one announcement; `flags` are those of its netlink header.
    pub(super) fn apply(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Outcome {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.links.set(link),
            RouteNetlinkMessage::DelLink(link) => self.links.remove(link),
            RouteNetlinkMessage::NewAddress(address) => self.set_address(address),
            RouteNetlinkMessage::DelAddress(address) => self.remove_address(address),
            RouteNetlinkMessage::NewRoute(route) => self.routes.set(route, flags),
            RouteNetlinkMessage::DelRoute(route) => self.routes.remove(route),
            RouteNetlinkMessage::NewNeighbour(neighbour) => {
                self.neighbours.set(neighbour, &self.links)
            }
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbours.remove(neighbour),
            _ => Outcome::Same,
        }
    }

    pub(super) fn snapshot(&self) -> NextHops {
        let mut next_hops = NextHops::default();
        for (interface, link) in self.links.usable() {
            next_hops.insert_link(interface, link);
        }
        self.routes.publish(&self.links, &mut next_hops);
        for &(address, _) in &self.addresses {
            next_hops.insert_route(address.into(), Route::Local);
        }
        for (target, mac) in self.neighbours.reachable() {
            next_hops.insert_neighbour(target, mac);
        }
        next_hops
    }

    /// True when an interface of that name exists.
    pub(super) fn has_interface(&self, name: &str) -> bool {
        self.links.has(name)
    }

    /// Our addresses on the interface of that name, or on all.
    pub(super) fn addresses(&self, name: Option<&str>) -> impl Iterator<Item = IpAddr> {
        let on = move |index: u32| name.is_none_or(|name| self.links.name(index) == Some(name));
        self.addresses.iter().filter_map(move |&(address, index)| on(index).then_some(address))
    }

    /// The broadcast addresses of our networks.
    pub(super) fn broadcasts(&self) -> Vec<IpAddr> {
        self.broadcasts.iter().copied().map(IpAddr::V4).collect()
    }

    /// True when `target` would be on a link of ours that is up.
    pub(super) fn is_link(&self, target: &Target) -> bool {
        self.links.link(target.interface).is_some()
    }

    /// Up to `count` stale neighbours behind `after`.
    pub(super) fn stale_neighbours(&self, after: Option<Target>, count: usize) -> Vec<Target> {
        self.neighbours.stale(after).take(count).collect()
    }

    fn set_address(&mut self, message: &AddressMessage) -> Outcome {
        let Some(address) = own_address(message) else {
            return Outcome::Malformed;
        };
        let entry = (address, message.header.index);
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains(&entry) {
            return Outcome::OverLimit;
        }
        self.broadcasts.extend(broadcasts(message, address));
        changed_if(self.addresses.insert(entry))
    }

    /// The kernel may drop routes along with an address, and does not announce all of them.
    fn remove_address(&mut self, message: &AddressMessage) -> Outcome {
        match own_address(message) {
            Some(_) => Outcome::Reread,
            None => Outcome::Malformed,
        }
    }
}

/// The address that is ours: with a point-to-point peer, `IFA_ADDRESS` is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

/// The broadcast addresses that come with an address: the one it names, and the highest address of
/// its network, unless the network has room for two ends only (RFC 3021), or is a pair of ends.
fn broadcasts(message: &AddressMessage, address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Broadcast(address) => Some(*address),
        _ => None,
    });
    let is_peer = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(other) => *other != address,
        _ => false,
    };
    let is_pair = message.attributes.iter().any(is_peer);
    let highest = match address {
        IpAddr::V4(address) if message.header.prefix_len < 31 && !is_pair => {
            Ipv4Net::new(address, message.header.prefix_len).ok().map(|net| net.broadcast())
        }
        _ => None,
    };
    named.into_iter().chain(highest)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressHeader;

    use culvert_engine::next_hop::Resolution;

    use super::*;

    fn address(attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header = AddressHeader { index: 3, ..AddressHeader::default() };
        message.attributes = attributes;
        message
    }

    /// On a point-to-point link our side of the address pair is local, not the peer's.
    #[test]
    fn own_side_of_a_pair_is_local() {
        let ours: IpAddr = "192.0.2.1".parse().unwrap();
        let peer: IpAddr = "192.0.2.2".parse().unwrap();
        let message = address(vec![AddressAttribute::Address(peer), AddressAttribute::Local(ours)]);
        let mut table = Table::new(&[]);
        let message = RouteNetlinkMessage::NewAddress(message);
        assert_eq!(table.apply(&message, 0), Outcome::Changed);
        assert_eq!(table.apply(&message, 0), Outcome::Same, "announced again");
        let next_hops = table.snapshot();
        assert_eq!(next_hops.resolve(ours), Resolution::Local);
        assert_eq!(next_hops.resolve(peer), Resolution::NoRoute);
    }

    /// An address brings the broadcast addresses of its network: the one that is named, and the
    /// highest. Two ends of a wire have none.
    #[test]
    fn broadcast_addresses_of_our_networks() {
        let attributes = |text: &str| vec![AddressAttribute::Address(text.parse().unwrap())];
        let message = |bits: u8, attributes: Vec<AddressAttribute>| {
            let mut message = address(attributes);
            message.header.prefix_len = bits;
            RouteNetlinkMessage::NewAddress(message)
        };
        let mut table = Table::new(&[]);
        let mut named = attributes("192.0.2.1");
        named.push(AddressAttribute::Broadcast("192.0.2.126".parse().unwrap()));
        let mut pair = attributes("198.51.100.2");
        pair.push(AddressAttribute::Local("198.51.100.1".parse().unwrap()));
        for (bits, attributes) in [
            (25, named),
            (31, attributes("203.0.113.4")),
            (24, pair),
            (64, attributes("2001:db8::1")),
            (16, attributes("10.1.2.3")),
        ] {
            table.apply(&message(bits, attributes), 0);
        }
        let expected = ["10.1.255.255", "192.0.2.126", "192.0.2.127"];
        assert_eq!(table.broadcasts(), expected.map(|text| text.parse::<IpAddr>().unwrap()));
    }

    /// A removed address makes the tables be read again; an address message without one is skipped.
    #[test]
    fn removed_address() {
        let ours: IpAddr = "2001:db8::1".parse().unwrap();
        let mut table = Table::new(&[]);
        let message = address(vec![AddressAttribute::Address(ours)]);
        assert_eq!(table.apply(&RouteNetlinkMessage::DelAddress(message), 0), Outcome::Reread);
        let message = RouteNetlinkMessage::NewAddress(address(vec![]));
        assert_eq!(table.apply(&message, 0), Outcome::Malformed);
    }
}
