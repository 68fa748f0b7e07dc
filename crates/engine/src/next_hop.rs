//! Routes, neighbours and links as the kernel knows them, as one read-only snapshot.
//!
//! The control thread follows the kernel's tables and publishes a [`NextHops`] to the workers; a
//! worker asks it where a packet goes by [`NextHops::resolve`]: longest matching route, then the
//! link the route leaves by, then the neighbour's MAC address. A destination whose neighbour is not
//! known yet comes back as a [`Target`], with which control asks the kernel to resolve it.
//!
//! The snapshot is plain data. It decides nothing about metrics, tables or multipath: the follower
//! does, and inserts one route a prefix. A route out of an interface that has no [`Link`] here is
//! no route: the interface is not ours, or it is down.

use std::net::IpAddr;

use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;
use prefix_trie::PrefixMap;
use rustc_hash::FxHashMap;

use culvert_frame::Port;
use culvert_wire::ethernet::Mac;

/// Everything needed to put an Ethernet header in front of an IP packet and send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Port to send from.
    pub port: Port,
    /// VLAN identifier of the tag to send with.
    pub vlan: Option<u16>,
    /// Our MAC address on the link.
    pub source: Mac,
    /// The neighbour's MAC address.
    pub destination: Mac,
    /// MTU of the link: most octets of an IP packet.
    pub mtu: u16,
}

/// Whom to ask for: the entry that is missing in the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The kernel's index of the interface; of the VLAN device, if the link is one.
    pub interface: u32,
    /// Address of the neighbour: the gateway, or the destination itself when it is on the link.
    pub address: IpAddr,
}

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Out of one of our ports.
    Reachable(NextHop),
    /// Out of one of our ports, to a neighbour whose MAC address is not known.
    Unresolved(Target),
    /// To this machine.
    Local,
    /// Nowhere: no route, a route that discards, or one out of an interface that is not ours.
    NoRoute,
}

/// What to do with packets to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Forward them.
    Via {
        /// The kernel's index of the interface they leave by.
        interface: u32,
        /// The router to send them to, of either family (RFC 8950); without one the destination
        /// itself is on the link.
        gateway: Option<IpAddr>,
    },
    /// They are for this machine.
    Local,
    /// Never forward them.
    Blackhole,
}

/// An interface, or a VLAN device on one, that packets can leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The port of the interface, or of the one below the VLAN device.
    pub port: Port,
    /// VLAN identifier, for a VLAN device.
    pub vlan: Option<u16>,
    /// Our MAC address on it.
    pub mac: Mac,
    /// Most octets of an IP packet on it.
    pub mtu: u16,
}

/// The snapshot. Lookups neither allocate nor lock.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    routes_v4: PrefixMap<Ipv4Net, Route>,
    routes_v6: PrefixMap<Ipv6Net, Route>,
    neighbours: FxHashMap<Target, Mac>,
    links: FxHashMap<u32, Link>,
    /// Own addresses on each port: those of its links, VLAN devices included.
    stations: Vec<(Port, Mac)>,
}

impl NextHops {
    /// Adds a link, or replaces the one of that interface.
    pub fn insert_link(&mut self, interface: u32, link: Link) {
        self.links.insert(interface, link);
        if !self.is_station(link.port, link.mac) {
            self.stations.push((link.port, link.mac));
        }
    }

    /// True when a frame to `mac` on `port` is addressed to this machine.
    #[inline]
    #[must_use]
    pub fn is_station(&self, port: Port, mac: Mac) -> bool {
        self.stations.contains(&(port, mac))
    }

    /// Adds a route, or replaces the one of that prefix. Host bits of `prefix` do not matter.
    pub fn insert_route(&mut self, prefix: IpNet, route: Route) {
        match prefix {
            IpNet::V4(prefix) => _ = self.routes_v4.insert(prefix, route),
            IpNet::V6(prefix) => _ = self.routes_v6.insert(prefix, route),
        }
    }

    /// Adds a neighbour, or replaces its MAC address.
    pub fn insert_neighbour(&mut self, target: Target, mac: Mac) {
        self.neighbours.insert(target, mac);
    }

    /// Where packets to `destination` go: the longest matching route, then its link, then the
    /// neighbour entry of its gateway or of `destination` itself.
    #[inline]
    #[must_use]
    pub fn resolve(&self, destination: IpAddr) -> Resolution {
        let (interface, gateway) = match self.longest_match(destination) {
            Some(Route::Via { interface, gateway }) => (interface, gateway),
            Some(Route::Local) => return Resolution::Local,
            Some(Route::Blackhole) | None => return Resolution::NoRoute,
        };
        let Some(link) = self.links.get(&interface) else {
            return Resolution::NoRoute;
        };
        let target = Target { interface, address: gateway.unwrap_or(destination) };
        match self.neighbours.get(&target) {
            Some(&mac) => Resolution::Reachable(NextHop {
                port: link.port,
                vlan: link.vlan,
                source: link.mac,
                destination: mac,
                mtu: link.mtu,
            }),
            None => Resolution::Unresolved(target),
        }
    }

    /// A snapshot in which everything under a prefix goes to one given next hop: for replay,
    /// benches and simulation, where no kernel is asked.
    ///
    /// Each route gets a link and a gateway of its own, so lookups take the same steps as in a
    /// snapshot of a kernel's tables.
    #[must_use]
    pub fn fixed(routes: impl IntoIterator<Item = (IpNet, NextHop)>) -> NextHops {
        let mut next_hops = NextHops::default();
        for (interface, (prefix, hop)) in (1..).zip(routes) {
            let gateway = prefix.addr();
            next_hops.insert_link(
                interface,
                Link { port: hop.port, vlan: hop.vlan, mac: hop.source, mtu: hop.mtu },
            );
            next_hops.insert_neighbour(Target { interface, address: gateway }, hop.destination);
            next_hops.insert_route(prefix, Route::Via { interface, gateway: Some(gateway) });
        }
        next_hops
    }

    #[inline]
    fn longest_match(&self, destination: IpAddr) -> Option<Route> {
        match destination {
            IpAddr::V4(address) => self.routes_v4.get_lpm(&address.into()).map(|(_, route)| *route),
            IpAddr::V6(address) => self.routes_v6.get_lpm(&address.into()).map(|(_, route)| *route),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 4;
    const WAN: u32 = 5;
    const VLAN_7: u32 = 9;
    const FOREIGN: u32 = 2;

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn via(interface: u32, gateway: &str) -> Route {
        Route::Via { interface, gateway: Some(address(gateway)) }
    }

    fn on_link(interface: u32) -> Route {
        Route::Via { interface, gateway: None }
    }

    fn target(interface: u32, text: &str) -> Target {
        Target { interface, address: address(text) }
    }

    fn resolve(next_hops: &NextHops, text: &str) -> Resolution {
        next_hops.resolve(address(text))
    }

    /// The MAC address and port that packets to `text` go to.
    fn reached(next_hops: &NextHops, text: &str) -> (Mac, Port) {
        match resolve(next_hops, text) {
            Resolution::Reachable(hop) => (hop.destination, hop.port),
            other => panic!("{text} is not reachable: {other:?}"),
        }
    }

    /// Addresses of links count on their port only.
    #[test]
    fn stations_are_those_of_links() {
        let next_hops = snapshot(&[], &[]);
        assert!(next_hops.is_station(Port(0), mac(0)) && next_hops.is_station(Port(1), mac(1)));
        assert!(!next_hops.is_station(Port(0), mac(1)) && !next_hops.is_station(Port(1), mac(9)));
    }

    /// Two ports and a VLAN on the second, with the routes and neighbours given.
    fn snapshot(routes: &[(&str, Route)], neighbours: &[(Target, Mac)]) -> NextHops {
        let mut next_hops = NextHops::default();
        let link = |port, vlan, mtu| Link { port: Port(port), vlan, mac: mac(port), mtu };
        next_hops.insert_link(LAN, link(0, None, 9000));
        next_hops.insert_link(WAN, link(1, None, 1500));
        next_hops.insert_link(VLAN_7, link(1, Some(7), 1400));
        for (prefix, route) in routes {
            next_hops.insert_route(prefix.parse().unwrap(), *route);
        }
        for (target, mac) in neighbours {
            next_hops.insert_neighbour(*target, *mac);
        }
        next_hops
    }

    /// Of all routes that cover a destination the longest decides, in both families.
    #[test]
    fn longest_match_decides() {
        let next_hops = snapshot(
            &[
                ("0.0.0.0/0", via(WAN, "192.0.2.1")),
                ("10.0.0.0/8", via(LAN, "192.0.2.8")),
                ("10.1.0.0/16", on_link(LAN)),
                ("::/0", via(WAN, "fe80::1")),
                ("2001:db8::/32", via(LAN, "fe80::2")),
            ],
            &[
                (target(WAN, "192.0.2.1"), mac(0x10)),
                (target(LAN, "192.0.2.8"), mac(0x11)),
                (target(LAN, "10.1.2.3"), mac(0x12)),
                (target(WAN, "fe80::1"), mac(0x13)),
                (target(LAN, "fe80::2"), mac(0x14)),
            ],
        );
        assert_eq!(reached(&next_hops, "198.51.100.1"), (mac(0x10), Port(1)));
        assert_eq!(reached(&next_hops, "10.9.9.9"), (mac(0x11), Port(0)));
        assert_eq!(reached(&next_hops, "10.1.2.3"), (mac(0x12), Port(0)));
        assert_eq!(reached(&next_hops, "2001:db9::1"), (mac(0x13), Port(1)));
        assert_eq!(reached(&next_hops, "2001:db8::1"), (mac(0x14), Port(0)));
    }

    /// Every field of the next hop comes from the link or the neighbour, on a VLAN device too.
    #[test]
    fn next_hop_of_a_vlan_device() {
        let next_hops =
            snapshot(&[("10.7.0.0/16", on_link(VLAN_7))], &[(target(VLAN_7, "10.7.0.1"), mac(9))]);
        let expected = NextHop {
            port: Port(1),
            vlan: Some(7),
            source: mac(1),
            destination: mac(9),
            mtu: 1400,
        };
        assert_eq!(resolve(&next_hops, "10.7.0.1"), Resolution::Reachable(expected));
    }

    /// An IPv4 route may lead to an IPv6 gateway (RFC 8950), and the reverse.
    #[test]
    fn gateway_of_the_other_family() {
        let next_hops = snapshot(
            &[("0.0.0.0/0", via(WAN, "fe80::1")), ("::/0", via(LAN, "192.0.2.1"))],
            &[(target(WAN, "fe80::1"), mac(1)), (target(LAN, "192.0.2.1"), mac(2))],
        );
        assert_eq!(reached(&next_hops, "198.51.100.1"), (mac(1), Port(1)));
        assert_eq!(reached(&next_hops, "2001:db8::1"), (mac(2), Port(0)));
    }

    /// Our own addresses are local, however short the route that covers them otherwise.
    #[test]
    fn local() {
        let next_hops =
            snapshot(&[("10.1.0.0/16", on_link(LAN)), ("10.1.0.1/32", Route::Local)], &[]);
        assert_eq!(resolve(&next_hops, "10.1.0.1"), Resolution::Local);
    }

    /// No route, a discarding route, and a route out of a foreign interface: all the same.
    #[test]
    fn no_route() {
        let next_hops = snapshot(
            &[
                ("10.0.0.0/8", via(LAN, "192.0.2.1")),
                ("10.66.0.0/16", Route::Blackhole),
                ("172.16.0.0/12", on_link(FOREIGN)),
            ],
            &[(target(LAN, "192.0.2.1"), mac(1)), (target(FOREIGN, "172.16.0.1"), mac(2))],
        );
        assert_eq!(reached(&next_hops, "10.65.0.1").0, mac(1));
        assert_eq!(resolve(&next_hops, "10.66.0.1"), Resolution::NoRoute);
        assert_eq!(resolve(&next_hops, "172.16.0.1"), Resolution::NoRoute);
        assert_eq!(resolve(&next_hops, "198.51.100.1"), Resolution::NoRoute);
        assert_eq!(resolve(&next_hops, "2001:db8::1"), Resolution::NoRoute);
        assert_eq!(resolve(&NextHops::default(), "10.0.0.1"), Resolution::NoRoute);
    }

    /// Without a neighbour entry the answer names the gateway, or the destination on the link; an
    /// entry on another interface does not count.
    #[test]
    fn unresolved_names_whom_to_ask_for() {
        let next_hops = snapshot(
            &[("10.0.0.0/8", via(VLAN_7, "fe80::7")), ("10.1.0.0/16", on_link(LAN))],
            &[(target(WAN, "10.1.2.3"), mac(1))],
        );
        let unresolved = |interface, text| Resolution::Unresolved(target(interface, text));
        assert_eq!(resolve(&next_hops, "10.9.9.9"), unresolved(VLAN_7, "fe80::7"));
        assert_eq!(resolve(&next_hops, "10.1.2.3"), unresolved(LAN, "10.1.2.3"));
    }

    /// What is inserted twice is replaced, and host bits of a prefix do not make another prefix.
    #[test]
    fn later_inserts_replace() {
        let mut next_hops = snapshot(
            &[("10.1.0.0/16", Route::Blackhole), ("10.1.2.3/16", on_link(LAN))],
            &[(target(LAN, "10.1.0.9"), mac(1)), (target(LAN, "10.1.0.9"), mac(2))],
        );
        assert_eq!(reached(&next_hops, "10.1.0.9"), (mac(2), Port(0)));
        next_hops.insert_link(LAN, Link { port: Port(3), vlan: None, mac: mac(3), mtu: 1280 });
        assert_eq!(reached(&next_hops, "10.1.0.9"), (mac(2), Port(3)));
    }

    /// A fixed snapshot gives back exactly the next hops it was made of, by longest match.
    #[test]
    fn fixed() {
        let hop = |last, vlan| NextHop {
            port: Port(last),
            vlan,
            source: mac(last),
            destination: mac(last + 100),
            mtu: 1500 - u16::from(last),
        };
        let routes =
            [("0.0.0.0/0", hop(0, None)), ("10.0.0.0/8", hop(1, Some(12))), ("::/0", hop(2, None))];
        let next_hops = NextHops::fixed(routes.map(|(net, hop)| (net.parse().unwrap(), hop)));
        for (destination, expected) in
            [("192.0.2.1", 0), ("10.255.0.1", 1), ("2001:db8::1", 2), ("0.0.0.0", 0)]
        {
            assert_eq!(
                resolve(&next_hops, destination),
                Resolution::Reachable(routes[expected].1),
                "{destination}"
            );
        }
    }

    /// Snapshots are shared between threads.
    #[test]
    fn is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<NextHops>();
    }
}
