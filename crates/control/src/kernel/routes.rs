//! Routes of the tables `local`, `main` and `default`, and which of them hold.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::route::RouteLwEnCapType;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteType;
use netlink_packet_route::route::RouteVia;

use culvert_engine::next_hop::NextHops;
use culvert_engine::next_hop::Route;

use super::links::Links;
use super::table::Outcome;

/// Most routes kept.
pub(super) const MAX_ROUTES: usize = 1_000_000;
/// Most next hops of a multipath route kept; a packet uses one anyway.
const MAX_HOPS: usize = 64;

/// Destinations that are never forwarded, whatever the tables say: unspecified, loopback,
/// multicast, broadcast.
const NEVER_FORWARDED: [&str; 7] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "ff00::/8",
];

/// The kernel's tables, in the order in which it asks them: the first that has any match decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RouteTable {
    Local,
    Main,
    Default,
}

/// Sorts by prefix, and the routes of a prefix by preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    prefix: IpNet,
    table: RouteTable,
    metric: u32,
    /// Among routes that agree in everything before.
    order: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Forward,
    Local,
    Blackhole,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hop {
    interface: u32,
    gateway: Option<IpAddr>,
}

/// A route. The hop matters for [`Kind::Forward`]; others have one only to tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    hop: Hop,
    more: Box<[Hop]>,
}

/// What a message says; the order in the key is 0.
type Parsed = Result<(Key, Entry), Outcome>;

/// All routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    entries: BTreeMap<Key, Entry>,
}

impl Routes {
    /// Takes a route of a listing: behind those with the same prefix, table and metric.
    pub(super) fn append(&mut self, message: &RouteMessage) -> Outcome {
        match parse(message) {
            Ok((key, entry)) => self.push(key, entry),
            Err(outcome) => outcome,
        }
    }

    /// A route appeared, or with `NLM_F_REPLACE` among the flags took the place of another.
    pub(super) fn set(&mut self, message: &RouteMessage, flags: u16) -> Outcome {
        let (key, entry) = match parse(message) {
            Ok(parsed) => parsed,
            Err(outcome) => return outcome,
        };
        let mut same = self.entries.range_mut(key..=key.last());
        match (same.next(), same.next()) {
            (None, _) => self.push(key, entry),
            (Some((_, held)), None) if *held == entry => Outcome::Same,
            (Some((_, held)), None) if flags & NLM_F_REPLACE != 0 => {
                *held = entry;
                Outcome::Changed
            }
            // Which of them is in front now, and what became of a multipath route, is not said.
            _ => Outcome::Reread,
        }
    }

    /// A route went away.
    pub(super) fn remove(&mut self, message: &RouteMessage) -> Outcome {
        let (key, entry) = match parse(message) {
            Ok(parsed) => parsed,
            Err(outcome) => return outcome,
        };
        let mut same = self.entries.range(key..=key.last());
        match (same.next(), same.next()) {
            (None, _) => Outcome::Same,
            (Some((&key, held)), None) if *held == entry => {
                self.entries.remove(&key);
                Outcome::Changed
            }
            // A part of a multipath route, or one of several.
            _ => Outcome::Reread,
        }
    }

    /// Puts the route of each prefix that holds into `next_hops`.
    pub(super) fn publish(&self, links: &Links, next_hops: &mut NextHops) {
        let mut local = Cover::default();
        for prefix in NEVER_FORWARDED {
            let prefix = prefix.parse().expect("a prefix");
            next_hops.insert_route(prefix, Route::Blackhole);
            local.insert(prefix);
        }
        let mut main = Cover::default();
        let has_default = self.entries.keys().any(|key| key.table == RouteTable::Default);
        for key in self.entries.keys() {
            match key.table {
                RouteTable::Local => local.insert(key.prefix),
                RouteTable::Main if has_default => main.insert(key.prefix),
                RouteTable::Main | RouteTable::Default => {}
            }
        }
        let mut entries = self.entries.iter().peekable();
        while let Some((key, entry)) = entries.next() {
            let mut chosen = entry.usable(links);
            while let Some((next, entry)) = entries.next_if(|(next, _)| next.prefix == key.prefix) {
                if next.table == key.table {
                    chosen = chosen.or_else(|| entry.usable(links));
                }
            }
            let hidden = match key.table {
                RouteTable::Local => false,
                RouteTable::Main => local.covers(key.prefix),
                RouteTable::Default => local.covers(key.prefix) || main.covers(key.prefix),
            };
            if !hidden {
                next_hops.insert_route(key.prefix, chosen.unwrap_or(entry.route(entry.hop)));
            }
        }
    }

    fn push(&mut self, key: Key, entry: Entry) -> Outcome {
        if self.entries.len() >= MAX_ROUTES {
            return Outcome::OverLimit;
        }
        let last = self.entries.range(key..=key.last()).next_back();
        let order = last.map_or(0, |(last, _)| last.order.saturating_add(1));
        self.entries.insert(Key { order, ..key }, entry);
        Outcome::Changed
    }
}

impl Key {
    /// The last key with the same prefix, table and metric.
    fn last(self) -> Key {
        Key { order: u32::MAX, ..self }
    }
}

impl Entry {
    /// The route by the first next hop whose interface is up.
    fn usable(&self, links: &Links) -> Option<Route> {
        let mut hops = std::iter::once(&self.hop).chain(&self.more);
        match self.kind {
            Kind::Forward => {
                hops.find(|hop| links.is_up(hop.interface)).map(|hop| self.route(*hop))
            }
            Kind::Local | Kind::Blackhole => Some(self.route(self.hop)),
        }
    }

    fn route(&self, hop: Hop) -> Route {
        match self.kind {
            Kind::Forward => Route::Via { interface: hop.interface, gateway: hop.gateway },
            Kind::Local => Route::Local,
            Kind::Blackhole => Route::Blackhole,
        }
    }
}

/// A set of prefixes that tells whether one of them covers another prefix.
#[derive(Default)]
struct Cover {
    prefixes: BTreeSet<IpNet>,
    /// The prefix lengths that occur; few, where this is asked for each of many prefixes.
    lengths: BTreeSet<u8>,
}

impl Cover {
    fn insert(&mut self, prefix: IpNet) {
        self.prefixes.insert(prefix);
        self.lengths.insert(prefix.prefix_len());
    }

    fn covers(&self, prefix: IpNet) -> bool {
        self.lengths.range(..=prefix.prefix_len()).any(|&length| {
            IpNet::new(prefix.addr(), length)
                .is_ok_and(|shorter| self.prefixes.contains(&shorter.trunc()))
        })
    }
}

/// Reads a route; otherwise says what becomes of the message.
fn parse(message: &RouteMessage) -> Parsed {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return Err(Outcome::Same),
    };
    let special = header.tos != 0 || header.source_prefix_length != 0;
    if special || header.flags.contains(RouteFlags::Cloned) {
        return Err(Outcome::Same);
    }
    let (mut table, mut metric) = (u32::from(header.table), 0);
    let mut address = unspecified;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Destination(destination) => {
                address = ip(destination).ok_or(Outcome::Malformed)?;
            }
            _ => {}
        }
    }
    let table = match table {
        255 => RouteTable::Local,
        254 => RouteTable::Main,
        253 => RouteTable::Default,
        _ => return Err(Outcome::Same),
    };
    let prefix = IpNet::new(address, header.destination_prefix_length)
        .map_err(|_| Outcome::Malformed)?
        .trunc();
    Ok((Key { prefix, table, metric, order: 0 }, entry(header.kind, &message.attributes)))
}

fn entry(kind: RouteType, attributes: &[RouteAttribute]) -> Entry {
    let mut single = hop(0, attributes);
    let mut multipath = Vec::new();
    for attribute in attributes {
        match (attribute, &mut single) {
            (RouteAttribute::Oif(index), Some(hop)) => hop.interface = *index,
            (RouteAttribute::MultiPath(hops), _) => {
                multipath = hops
                    .iter()
                    .take(MAX_HOPS)
                    .filter_map(|next| hop(next.interface_index, &next.attributes))
                    .collect();
            }
            _ => {}
        }
    }
    let mut hops = single.filter(|hop| hop.interface != 0).into_iter().chain(multipath);
    let first = hops.next();
    let kind = match (kind, first) {
        (RouteType::Unicast, Some(_)) => Kind::Forward,
        (RouteType::Local, _) => Kind::Local,
        _ => Kind::Blackhole,
    };
    Entry { kind, hop: first.unwrap_or_default(), more: hops.collect() }
}

/// The gateway of a next hop; `None` for one that needs more than an Ethernet header.
fn hop(interface: u32, attributes: &[RouteAttribute]) -> Option<Hop> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(_) => return None,
            RouteAttribute::EncapType(kind) if *kind != RouteLwEnCapType::None => return None,
            _ => {}
        }
    }
    Some(Hop { interface, gateway })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use culvert_engine::next_hop::Resolution;
    use culvert_engine::next_hop::Target;

    use super::super::links::tests::LAN;
    use super::super::links::tests::MANAGEMENT;
    use super::super::links::tests::WAN;
    use super::super::links::tests::links;
    use super::super::links::tests::take_down;
    use super::*;

    const MAIN: u32 = 254;
    const LOCAL: u32 = 255;
    const DEFAULT: u32 = 253;

    /// A unicast route of table main by an interface.
    fn route(prefix: &str, interface: u32) -> RouteMessage {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family =
            if prefix.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Table(MAIN),
            RouteAttribute::Destination(prefix.addr().into()),
            RouteAttribute::Oif(interface),
        ];
        message
    }

    fn with(mut message: RouteMessage, attribute: RouteAttribute) -> RouteMessage {
        message.attributes.push(attribute);
        message
    }

    fn gateway(address: &str) -> RouteAttribute {
        RouteAttribute::Gateway(address.parse::<IpAddr>().unwrap().into())
    }

    fn of_kind(mut message: RouteMessage, kind: RouteType) -> RouteMessage {
        message.header.kind = kind;
        message
    }

    fn multipath(prefix: &str, hops: &[(u32, &str)]) -> RouteMessage {
        let mut message = route(prefix, 0);
        message.attributes.pop();
        let hops = hops.iter().map(|(interface, address)| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = *interface;
            hop.attributes.push(gateway(address));
            hop
        });
        with(message, RouteAttribute::MultiPath(hops.collect()))
    }

    fn listed(messages: &[RouteMessage]) -> Routes {
        let mut routes = Routes::default();
        for message in messages {
            assert_eq!(routes.append(message), Outcome::Changed);
        }
        routes
    }

    /// Whom to ask for on the way to a destination, with the links given.
    fn next(routes: &Routes, links: &Links, destination: &str) -> Resolution {
        let mut next_hops = NextHops::default();
        links.usable().for_each(|(index, link)| next_hops.insert_link(index, link));
        routes.publish(links, &mut next_hops);
        next_hops.resolve(destination.parse().unwrap())
    }

    fn by(interface: u32, address: &str) -> Resolution {
        Resolution::Unresolved(Target { interface, address: address.parse().unwrap() })
    }

    /// On-link routes lead to the destination, others to their gateway, of either family.
    #[test]
    fn gateways() {
        let other = RouteAttribute::Via(RouteVia::Inet6("fe80::9".parse().unwrap()));
        let routes = listed(&[
            route("10.1.0.0/16", LAN),
            with(route("0.0.0.0/0", WAN), gateway("192.0.2.1")),
            with(route("10.3.0.0/16", WAN), other),
            with(route("::/0", WAN), gateway("fe80::1")),
        ]);
        let links = links();
        assert_eq!(next(&routes, &links, "10.1.0.9"), by(LAN, "10.1.0.9"));
        assert_eq!(next(&routes, &links, "10.9.0.1"), by(WAN, "192.0.2.1"));
        assert_eq!(next(&routes, &links, "10.3.0.1"), by(WAN, "fe80::9"));
        assert_eq!(next(&routes, &links, "2001:db8::1"), by(WAN, "fe80::1"));
    }

    /// A default route without a destination attribute is one.
    #[test]
    fn default_route_without_destination() {
        let mut message = with(route("0.0.0.0/0", WAN), gateway("192.0.2.1"));
        message.attributes.retain(|one| !matches!(one, RouteAttribute::Destination(_)));
        assert_eq!(next(&listed(&[message]), &links(), "10.9.0.1"), by(WAN, "192.0.2.1"));
    }

    /// The lowest metric wins, listed in whatever order, unless its interface of ours is down.
    #[test]
    fn lowest_metric_wins() {
        let metric = |interface, metric| {
            with(route("10.1.0.0/16", interface), RouteAttribute::Priority(metric))
        };
        let routes = listed(&[metric(LAN, 200), metric(WAN, 100), metric(LAN, 300)]);
        let mut links = links();
        assert_eq!(next(&routes, &links, "10.1.0.9"), by(WAN, "10.1.0.9"));
        take_down(&mut links, WAN);
        assert_eq!(next(&routes, &links, "10.1.0.9"), by(LAN, "10.1.0.9"));
        take_down(&mut links, LAN);
        assert_eq!(next(&routes, &links, "10.1.0.9"), Resolution::NoRoute);
    }

    /// A better route by an interface that is not ours is not overridden by one of ours.
    #[test]
    fn foreign_routes_count() {
        let better = with(route("10.1.0.0/16", MANAGEMENT), RouteAttribute::Priority(1));
        let worse = with(route("10.1.0.0/16", LAN), RouteAttribute::Priority(2));
        assert_eq!(next(&listed(&[worse, better]), &links(), "10.1.0.9"), Resolution::NoRoute);
    }

    /// Of a multipath route the first next hop that is up is taken.
    #[test]
    fn multipath_takes_the_first_usable() {
        let routes = listed(&[multipath("10.0.0.0/8", &[(WAN, "192.0.2.1"), (LAN, "10.1.0.1")])]);
        let mut links = links();
        assert_eq!(next(&routes, &links, "10.9.0.1"), by(WAN, "192.0.2.1"));
        take_down(&mut links, WAN);
        assert_eq!(next(&routes, &links, "10.9.0.1"), by(LAN, "10.1.0.1"));
    }

    /// Routes that discard, deliver here to several, or encapsulate never forward.
    #[test]
    fn kinds() {
        let links = links();
        for kind in [
            RouteType::BlackHole,
            RouteType::Unreachable,
            RouteType::Prohibit,
            RouteType::Throw,
            RouteType::Broadcast,
            RouteType::Multicast,
            RouteType::Anycast,
            RouteType::Other(99),
        ] {
            let routes =
                listed(&[route("0.0.0.0/0", WAN), of_kind(route("10.1.0.0/16", LAN), kind)]);
            assert_eq!(next(&routes, &links, "10.1.0.9"), Resolution::NoRoute, "{kind:?}");
        }
        let routes = listed(&[of_kind(route("10.1.0.1/32", LAN), RouteType::Local)]);
        assert_eq!(next(&routes, &links, "10.1.0.1"), Resolution::Local);
        let encapsulated =
            with(route("10.1.0.0/16", LAN), RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
        assert_eq!(next(&listed(&[encapsulated]), &links, "10.1.0.9"), Resolution::NoRoute);
        let mut object = route("10.1.0.0/16", LAN);
        object.attributes.pop();
        let object = with(object, RouteAttribute::NhId(7));
        assert_eq!(next(&listed(&[object]), &links, "10.1.0.9"), Resolution::NoRoute);
    }

    /// Other tables, routes by type of service or source, and cached ones are of no interest.
    #[test]
    fn ignored_routes() {
        let mut routes = Routes::default();
        let plain = || route("10.1.0.0/16", LAN);
        let mut by_tos = plain();
        by_tos.header.tos = 4;
        let mut by_source = route("2001:db8::/32", LAN);
        by_source.header.source_prefix_length = 64;
        let mut cached = plain();
        cached.header.flags = RouteFlags::Cloned;
        let other = with(plain(), RouteAttribute::Table(220));
        let mut mpls = plain();
        mpls.header.address_family = AddressFamily::Mpls;
        for message in [by_tos, by_source, cached, other, mpls] {
            assert_eq!(routes.append(&message), Outcome::Same);
        }
        let mut too_long = plain();
        too_long.header.destination_prefix_length = 33;
        assert_eq!(routes.append(&too_long), Outcome::Malformed);
        assert_eq!(routes, Routes::default());
    }

    /// Table local is asked before main, and main before default, even for longer prefixes.
    #[test]
    fn tables_in_order() {
        let in_table = |message, table| with(message, RouteAttribute::Table(table));
        let routes = listed(&[
            in_table(of_kind(route("10.1.0.0/16", LAN), RouteType::Local), LOCAL),
            route("10.1.2.0/24", WAN),
            route("10.2.0.0/16", LAN),
            in_table(route("10.2.2.0/24", WAN), DEFAULT),
            in_table(route("10.3.0.0/16", WAN), DEFAULT),
            in_table(route("10.2.0.0/16", WAN), DEFAULT),
        ]);
        let links = links();
        assert_eq!(next(&routes, &links, "10.1.2.1"), Resolution::Local);
        assert_eq!(next(&routes, &links, "10.2.2.1"), by(LAN, "10.2.2.1"));
        assert_eq!(next(&routes, &links, "10.3.0.1"), by(WAN, "10.3.0.1"));
    }

    /// Multicast, broadcast, loopback and unspecified addresses are not forwarded by any route.
    #[test]
    fn never_forwarded() {
        let routes = listed(&[
            route("0.0.0.0/0", WAN),
            route("224.0.0.0/24", LAN),
            route("127.0.0.0/8", LAN),
            route("::/0", WAN),
            route("ff02::/16", LAN),
        ]);
        for destination in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.5",
            "239.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
        ] {
            let found = next(&routes, &links(), destination);
            assert_eq!(found, Resolution::NoRoute, "{destination}");
        }
        assert_eq!(next(&routes, &links(), "223.255.255.255"), by(WAN, "223.255.255.255"));
    }

    /// Announcements add, repeat, replace and remove routes.
    #[test]
    fn announcements() {
        let mut routes = Routes::default();
        let (lan, wan) = (route("10.1.0.0/16", LAN), route("10.1.0.0/16", WAN));
        assert_eq!(routes.set(&lan, 0), Outcome::Changed);
        assert_eq!(routes.set(&lan, 0), Outcome::Same);
        assert_eq!(routes.set(&wan, NLM_F_REPLACE), Outcome::Changed);
        assert_eq!(next(&routes, &links(), "10.1.0.9"), by(WAN, "10.1.0.9"));
        assert_eq!(routes.remove(&wan), Outcome::Changed);
        assert_eq!(routes.remove(&wan), Outcome::Same);
        assert_eq!(routes, Routes::default());
    }

    /// Where an announcement leaves open what the result is, the tables are read again.
    #[test]
    fn ambiguous_announcements() {
        let (lan, wan) = (route("10.1.0.0/16", LAN), route("10.1.0.0/16", WAN));
        let mut routes = listed(std::slice::from_ref(&lan));
        assert_eq!(routes.set(&wan, 0), Outcome::Reread, "a second one");
        assert_eq!(routes.remove(&wan), Outcome::Reread, "another one");
        let mut routes = listed(&[lan.clone(), wan.clone()]);
        assert_eq!(routes.set(&lan, NLM_F_REPLACE), Outcome::Reread, "one of two");
        assert_eq!(routes.remove(&lan), Outcome::Reread, "one of two");
        let hops = [(WAN, "fe80::1"), (LAN, "fe80::2")];
        let mut routes = listed(&[multipath("2001:db8::/32", &hops)]);
        assert_eq!(routes.remove(&multipath("2001:db8::/32", &hops[..1])), Outcome::Reread);
        assert_eq!(routes.remove(&multipath("2001:db8::/32", &hops)), Outcome::Changed);
    }
}
