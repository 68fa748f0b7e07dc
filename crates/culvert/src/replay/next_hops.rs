//! Next hops where there is no kernel to ask: every address that SAs and policies name resolves.

use std::collections::HashMap;

use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::NextHop;
use culvert_engine::NextHops;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Spd;
use ipnet::IpNet;

use super::PROTECTED;
use super::UNPROTECTED;
use super::link::OUR_MAC;
use super::link::THEIR_MAC;

/// What inbound policies admit lies on the protected side. The far tunnel endpoints, what outbound
/// policies bypass, and all other addresses lie on the unprotected side. The longest prefix
/// decides, as in a routing table; of equal ones the protected side's stands. All links have one
/// MTU.
pub(super) fn synthetic(sas: &[SaSpec], spd: &Spd, mtu: u16) -> NextHops {
    let mut routes: HashMap<IpNet, Port> = HashMap::new();
    for policy in spd.inbound.iter().filter(|policy| policy.action != Action::Discard) {
        let all = policy.selector.destination().prefixes().into_iter();
        routes.extend(all.map(|net| (net, PROTECTED)));
    }
    let endpoints = sas.iter().filter(|sa| sa.direction == Direction::Outbound);
    let endpoints = endpoints.map(|sa| IpNet::from(sa.destination));
    let bypassed = spd.outbound.iter().filter(|policy| policy.action == Action::Bypass);
    let bypassed = bypassed.flat_map(|policy| policy.selector.destination().prefixes());
    let everything = ["0.0.0.0/0", "::/0"].map(|any| any.parse().expect("a prefix"));
    for net in endpoints.chain(bypassed).chain(everything) {
        routes.entry(net).or_insert(UNPROTECTED);
    }
    NextHops::fixed(routes.into_iter().map(|(net, port)| {
        let hop = NextHop { port, vlan: None, source: OUR_MAC, destination: THEIR_MAC, mtu };
        (net, hop)
    }))
}
