//! What a seed draws before anything happens: the gateways, the tunnels between them, and which
//! faults exist in this run.
//!
//! Everything is symmetric: all gateways are the same gateway with other addresses.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_engine::NextHops;
use culvert_engine::Options;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::WorkerId;
use culvert_engine::crew::Lending;
use culvert_engine::next_hop::Link;
use culvert_engine::next_hop::Route;
use culvert_engine::next_hop::Target;
use culvert_engine::options::IcmpOptions;
use culvert_esp::Mode;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::ethernet::Mac;
use ipnet::IpNet;

use crate::gateway::GatewayConfig;
use crate::gateway::Room;
use crate::gateway::Spread;
use crate::random::Random;
use crate::random::mix;

pub use crate::faults::Faults;
pub use crate::tunnel::Tunnel;

/// The port of hosts.
pub const LAN: Port = Port(0);
/// The port of the wire between the gateways.
pub const WAN: Port = Port(1);

/// Most gateways.
pub const GATEWAYS_MAX: usize = 4;
/// Most workers of one gateway.
pub const WORKERS_MAX: usize = 4;
/// Most frames of one worker.
pub const FRAMES_PER_WORKER_MAX: usize = 768;
/// Frames of a worker that its receive queues leave to it: for fragments and what else it makes.
pub const FRAMES_RESERVED: usize = 256;

/// MTU of the hosts' links.
pub const LAN_MTU: u16 = 1500;

/// MTUs of a gateway's link to the wire that carry an IPv6 packet of 1280 octets through any SA.
pub const WAN_MTUS: [u16; 4] = [1500, 1500, 1440, 1400];

/// MTUs of the link with which IPv6 packets of 1280 octets must be fragmented outside.
pub const SMALL_WAN_MTUS: [u16; 6] = [1500, 1500, 1440, 1400, 1300, 1280];

/// MTUs of the path behind that link: for IPv6, no less than 1280.
pub const PATH_MTUS: [u16; 6] = [1500, 1500, 1400, 1280, 1006, 576];

const TUNNELS_MAX: u32 = 6;
/// Helpers of a gateway that has them.
const HELPERS: usize = 3;
/// A replay window that no packet falls out of while nothing is lost: one that was fragmented is
/// put together behind the rest of its batch.
const LOSSLESS_WINDOW: u32 = 512;
const LAN_INTERFACE: u32 = 1;
const WAN_INTERFACE: u32 = 2;

/// The third octet of networks whose packets are sent through tunnel 0 and must not come out of it.
const FOREIGN: u8 = 200;

/// Everything a run is made of, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Workers of each gateway.
    pub workers: Vec<usize>,
    /// Workers have helpers, which lend a hand with any packet.
    pub has_helpers: bool,
    /// The tunnels at the start.
    pub tunnels: Vec<Tunnel>,
    /// The faults.
    pub faults: Faults,
    /// Steps with faults.
    pub steps: u64,
    /// Steps at which a tunnel is rekeyed, in 1000. No fault: it loses nothing.
    pub rekeys: u64,
    /// MTU of the gateways' links to the wire.
    pub wan_mtu: u16,
    /// MTU of the hosts' links.
    pub lan_mtu: u16,
    /// Outbound numbers are leased from a store, so that keys may outlive a gateway.
    pub has_stores: bool,
    /// Gateways drop frames for other stations.
    pub filters_mac: bool,
    /// VLAN of the hosts' links.
    pub lan_vlan: Option<u16>,
    /// VLAN of the wire.
    pub wan_vlan: Option<u16>,
    /// Senders on the hosts' links may leave checksums partial.
    pub completes_checksums: bool,
    /// How what comes from a foreign network is refused: no inbound policy, or one of another SA.
    pub foreign_has_policy: bool,
    /// Frames of each worker: few, so that receive queues overrun, only if there are faults.
    pub frames: usize,
    /// Runs of frames of each worker, for packets larger than a frame.
    pub runs: usize,
    /// Room for what is on its way inside a gateway.
    pub room: Room,
}

impl Scenario {
    /// What `seed` draws.
    ///
    /// # Panics
    /// Never: there are few gateways.
    #[must_use]
    pub fn draw(seed: u64) -> Scenario {
        let random = &mut Random::new(seed);
        let faults = Faults::draw(random);
        let vlan = |random: &mut Random| random.chance(200).then(|| random.pick(&[1, 7, 4094]));
        let gateways = random.pick(&[2, 2, 2, 3, GATEWAYS_MAX]);
        let workers: Vec<usize> = (0..gateways).map(|_| 1 + random.index(WORKERS_MAX)).collect();
        let mut tunnels = draw_tunnels(random, &workers);
        if faults.are_none() {
            tunnels.iter_mut().for_each(|tunnel| tunnel.widen(LOSSLESS_WINDOW));
        }
        // Drawn apart, so that a seed without them would be the same otherwise.
        let negotiates = &mut Random::new(mix(seed));
        for end in (0..gateways).filter(|_| negotiates.chance(500)) {
            for tunnel in &mut tunnels {
                if let Some(side) = tunnel.side_of(end) {
                    tunnel.set_epoch(side, 1);
                }
            }
        }
        let has_helpers = Random::new(mix(!seed)).chance(500);
        let few = FRAMES_RESERVED + random.pick(&[160, 256, 512]);
        let has_stores = faults.restarts > 0 || random.chance(200);
        let room = Room {
            spare_slots: random.pick(&[2, 8, 8]),
            ..match faults.small_rings {
                true => Room {
                    handoff: random.pick(&[4, 16, 64]),
                    mailbox: random.pick(&[1, 4, 16]),
                    spare_slots: 0,
                },
                false => Room::default(),
            }
        };
        Scenario {
            seed,
            workers,
            has_helpers,
            tunnels,
            steps: random.between(60, 160),
            rekeys: random.pick(&[0, 0, 10, 50, 300]),
            wan_mtu: random.pick(wan_mtus(&faults)),
            has_stores,
            lan_mtu: LAN_MTU,
            filters_mac: random.chance(700),
            lan_vlan: vlan(random),
            wan_vlan: vlan(random),
            completes_checksums: random.chance(300),
            foreign_has_policy: random.chance(500),
            frames: if faults.are_none() { FRAMES_PER_WORKER_MAX } else { few },
            runs: 0,
            room,
            faults,
        }
    }

    /// Two gateways with one worker each and no faults.
    #[must_use]
    pub fn quiet(tunnels: Vec<Tunnel>) -> Scenario {
        Scenario {
            seed: 0,
            workers: vec![1; 2],
            has_helpers: false,
            tunnels,
            faults: Faults::default(),
            steps: 0,
            rekeys: 0,
            wan_mtu: 1500,
            lan_mtu: LAN_MTU,
            has_stores: false,
            filters_mac: true,
            lan_vlan: None,
            wan_vlan: None,
            completes_checksums: false,
            foreign_has_policy: false,
            frames: FRAMES_PER_WORKER_MAX,
            runs: 0,
            room: Room::default(),
        }
    }

    /// Number of gateways.
    #[must_use]
    pub fn gateways(&self) -> usize {
        self.workers.len()
    }

    /// A host of `side` in the networks of tunnel `index`.
    #[must_use]
    pub fn host(side: usize, index: u8, six: bool, number: u8) -> IpAddr {
        match network(side, index, six) {
            IpNet::V4(net) => {
                let [a, b, c, _] = net.addr().octets();
                Ipv4Addr::new(a, b, c, number).into()
            }
            IpNet::V6(net) => {
                let [a, b, c, d, ..] = net.addr().segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, number.into()).into()
            }
        }
    }

    /// A host of a network whose packets tunnel 0 carries but must not deliver.
    #[must_use]
    pub fn foreign_host(side: usize, six: bool) -> IpAddr {
        Scenario::host(side, FOREIGN, six, 1)
    }

    /// The configuration of one gateway.
    #[must_use]
    pub fn gateway(&self, side: usize) -> GatewayConfig {
        self.gateway_with(side, &self.tunnels)
    }

    /// The configuration of one gateway with other tunnels than at the start.
    pub(crate) fn gateway_with(&self, side: usize, tunnels: &[Tunnel]) -> GatewayConfig {
        let port = |port, side_of_port| PortConfig {
            side: side_of_port,
            mac: self.filters_mac.then(|| gateway_mac(side, port)),
            completes_checksums: self.completes_checksums && port == LAN,
        };
        let ends = tunnels.iter().filter_map(|tunnel| Some((tunnel, tunnel.side_of(side)?)));
        let sas = ends.flat_map(|(tunnel, side)| [0, 1].map(|sender| tunnel.sa(side, sender)));
        // Errors the gateway sends are not part of what the model expects.
        let silent = IcmpOptions { rate: 0, ..IcmpOptions::default() };
        GatewayConfig {
            workers: self.workers[side],
            frames: self.frames,
            runs: self.runs,
            ports: vec![port(LAN, Side::Protected), port(WAN, Side::Unprotected)],
            bundles: Vec::new(),
            sas: sas.collect(),
            spd: self.policies(side),
            options: Options { icmp: silent, ..Options::default() },
            spread: self.has_helpers.then_some(Spread {
                lending: Lending { packet_octets: 0, chunk_octets: 200 },
                helpers: Some((HELPERS, self.seed)),
            }),
            ..GatewayConfig::default()
        }
    }

    /// The policies of one gateway.
    ///
    /// # Panics
    /// When a tunnel has no ends: our own error.
    #[must_use]
    pub fn policies(&self, gateway: usize) -> Spd {
        let mut spd = Spd::default();
        let of_gateway = || {
            let ends = self.tunnels.iter();
            ends.filter_map(|tunnel| Some((tunnel, tunnel.ends[1 - tunnel.side_of(gateway)?])))
        };
        for six in [false, true] {
            let any = net(if six { "::/0" } else { "0.0.0.0/0" });
            let clear = net(if six { "3fff:b::/32" } else { "198.51.100.0/24" });
            let never = net(if six { "3fff:d::/32" } else { "203.0.113.0/24" });
            spd.outbound.push(policy(any, clear, Action::Bypass));
            spd.outbound.push(policy(any, never, Action::Discard));
            let mut between = |peer: usize, index, out: Option<Group>, inbound: Option<Group>| {
                let (here, there) = (network(gateway, index, six), network(peer, index, six));
                let out = out.map(|group| policy(here, there, Action::Protect(group)));
                let inbound = inbound.map(|group| policy(there, here, Action::Protect(group)));
                spd.outbound.extend(out);
                spd.inbound.extend(inbound);
            };
            if let Some((_, peer)) = of_gateway().find(|(tunnel, _)| tunnel.index == 0) {
                let other = self.foreign_has_policy.then_some(Group(1));
                between(peer, FOREIGN, Some(Group(0)), other);
            }
            for (tunnel, peer) in of_gateway().filter(|(tunnel, _)| tunnel.mode == Mode::Tunnel) {
                let group = Some(Group(tunnel.index.into()));
                between(peer, tunnel.index, group, group);
            }
        }
        for (tunnel, _) in of_gateway().filter(|(tunnel, _)| tunnel.mode == Mode::Transport) {
            let side = tunnel.side_of(gateway).expect("it was chosen for that");
            let (here, there) = (host_net(tunnel.outer[side]), host_net(tunnel.peer_address(side)));
            let action = Action::Protect(Group(tunnel.index.into()));
            spd.outbound.push(policy(here, there, action));
            spd.inbound.push(policy(there, here, action));
        }
        spd
    }

    /// The kernel's tables of one gateway; neighbours are known where `known` says so, in the order
    /// LAN over IPv4, LAN over IPv6, wire over IPv4, wire over IPv6.
    #[must_use]
    pub fn next_hops(&self, side: usize, known: [bool; 4]) -> NextHops {
        self.next_hops_with(side, known, self.wan_mtu)
    }

    /// Who is behind a gateway's port to the wire: the other one of two, or a router.
    #[must_use]
    pub fn next_station(&self, side: usize) -> Mac {
        match self.gateways() {
            2 => gateway_mac(1 - side, WAN),
            _ => ROUTER_MAC,
        }
    }

    /// The same with another MTU of the wire.
    pub(crate) fn next_hops_with(&self, side: usize, known: [bool; 4], wan_mtu: u16) -> NextHops {
        let mut next_hops = NextHops::default();
        let links = [
            (LAN_INTERFACE, LAN, self.lan_vlan, self.lan_mtu),
            (WAN_INTERFACE, WAN, self.wan_vlan, wan_mtu),
        ];
        for (interface, port, vlan, mtu) in links {
            let mac = gateway_mac(side, port);
            next_hops.insert_link(interface, Link { port, vlan, mac, mtu });
        }
        let lan_v6 = Ipv6Addr::new(0x2001, 0xdb8, lan_word(side), 0, 0, 0, 0, 1);
        let routers = [
            (LAN_INTERFACE, lan_net(side, false), Ipv4Addr::new(10, lan_octet(side), 0, 1).into()),
            (LAN_INTERFACE, lan_net(side, true), lan_v6.into()),
            (WAN_INTERFACE, net("0.0.0.0/0"), address("192.0.2.254")),
            (WAN_INTERFACE, net("::/0"), address("fe80::1")),
        ];
        for ((interface, prefix, router), known) in routers.into_iter().zip(known) {
            let gateway = Some(router);
            next_hops.insert_route(prefix, Route::Via { interface, gateway });
            let target = Target { interface, address: router };
            let mac = match interface {
                LAN_INTERFACE => host_mac(side),
                _ => self.next_station(side),
            };
            if known {
                next_hops.insert_neighbour(target, mac);
            }
        }
        // Hosts of transport mode have the addresses of the endpoints.
        let transport = self.tunnels.iter().filter(|tunnel| tunnel.mode == Mode::Transport);
        for tunnel in transport {
            let Some(end) = tunnel.side_of(side) else { continue };
            let router = match tunnel.outer[end] {
                IpAddr::V4(_) => routers[0].2,
                IpAddr::V6(_) => routers[1].2,
            };
            let route = Route::Via { interface: LAN_INTERFACE, gateway: Some(router) };
            next_hops.insert_route(host_net(tunnel.outer[end]), route);
        }
        next_hops
    }
}

/// MTUs that a gateway's link may have. What is held for a neighbour is not measured against them,
/// so where neighbours are forgotten they carry all that hosts send.
#[must_use]
pub fn wan_mtus(faults: &Faults) -> &'static [u16] {
    match faults.neighbours {
        0 => &SMALL_WAN_MTUS,
        _ => &WAN_MTUS,
    }
}

/// MAC address of the router between the gateways.
pub const ROUTER_MAC: Mac = Mac([2, 0, 0, 3, 0, 0]);

/// Tunnels between all gateways, and more of the first ones for workers of their own.
fn draw_tunnels(random: &mut Random, workers: &[usize]) -> Vec<Tunnel> {
    let gateways = workers.len();
    let count = random.between(gateways as u64 - 1, TUNNELS_MAX.into());
    let mut tunnels: Vec<Tunnel> = (0..u8::try_from(count).expect("few"))
        .map(|index| {
            // The first ones connect everybody.
            let one = usize::from(index) % gateways;
            let other = (one + 1 + random.index(gateways - 1)) % gateways;
            Tunnel::draw(random, index, [one, other])
        })
        .collect();
    // The order of installation decides which worker owns what.
    random.shuffle(&mut tunnels);
    let mut own = Vec::new();
    for tunnel in &tunnels {
        for _ in 0..if random.chance(250) { random.between(1, 3) } else { 0 } {
            let worker = |gateway: usize| u8::try_from(random.index(workers[gateway]));
            let workers = tunnel.ends.map(worker).map(|id| WorkerId(id.expect("few")));
            let serial = TUNNELS_MAX + u32::try_from(own.len()).expect("few");
            own.push((tunnel.clone(), serial, workers));
        }
    }
    let own: Vec<Tunnel> = own
        .into_iter()
        .map(|(tunnel, serial, workers)| tunnel.of_workers(random, serial, workers))
        .collect();
    tunnels.extend(own);
    tunnels
}

/// MAC address of a gateway's port.
#[must_use]
pub fn gateway_mac(side: usize, port: Port) -> Mac {
    Mac([2, 0, 0, 1, lan_octet(side), port.0])
}

/// MAC address of the router to all hosts of a side.
#[must_use]
pub fn host_mac(side: usize) -> Mac {
    Mac([2, 0, 0, 2, lan_octet(side), 0])
}

/// All hosts of a side.
fn lan_net(side: usize, six: bool) -> IpNet {
    let text = if six {
        format!("2001:db8:{:x}::/48", lan_word(side))
    } else {
        format!("10.{}.0.0/16", lan_octet(side))
    };
    net(&text)
}

/// The hosts of a side that tunnel `index` serves.
fn network(side: usize, index: u8, six: bool) -> IpNet {
    let text = if six {
        format!("2001:db8:{:x}:{index:x}::/64", lan_word(side))
    } else {
        format!("10.{}.{index}.0/24", lan_octet(side))
    };
    net(&text)
}

fn lan_octet(side: usize) -> u8 {
    1 + u8::try_from(side).expect("few gateways")
}

fn lan_word(side: usize) -> u16 {
    0xa0 + u16::from(lan_octet(side))
}

fn policy(source: IpNet, destination: IpNet, action: Action) -> Policy {
    let selector = Selector::between(source, destination).expect("of one family");
    Policy::new(selector, action)
}

fn host_net(address: IpAddr) -> IpNet {
    address.into()
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[cfg(test)]
mod tests {
    use culvert_aead::Algorithm;
    use culvert_aead::Protocol;
    use culvert_esp::replay;

    use super::*;

    /// Seeds reach every corner: quiet runs, exhaustion, both boundaries, all algorithms, modes and
    /// protocols, all families and encapsulations, any number of gateways.
    #[test]
    fn seeds_reach_every_corner() {
        let scenarios: Vec<Scenario> = (0..400).map(Scenario::draw).collect();
        let tunnels: Vec<&Tunnel> = scenarios.iter().flat_map(|s| &s.tunnels).collect();
        let count = |what: &dyn Fn(&&&Tunnel) -> bool| tunnels.iter().filter(what).count();
        let near_end = |t: &Tunnel| t.start[0] > u64::from(u32::MAX) - 300;
        for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
            assert!(count(&|t| t.algorithm == algorithm) > 10, "{algorithm:?}");
        }
        for mode in [Mode::Tunnel, Mode::Transport] {
            for protocol in [Protocol::Esp, Protocol::Ah] {
                assert!(count(&|t| (t.mode, t.protocol()) == (mode, protocol)) > 20);
            }
        }
        assert!(count(&|t| !t.esn && near_end(t)) > 20);
        assert!(count(&|t| t.esn && near_end(t)) > 20);
        assert!(count(&|t| t.outer[0].is_ipv6() && t.seen_at.is_some()) > 20);
        assert!(count(&|t| t.window[0] == replay::SIZE_MAX) > 20);
        assert!(count(&|t| t.window[0] == replay::SIZE_MIN) > 20);
        assert!(count(&|t| t.packets_max.is_some()) > 20);
        assert!(count(&|t| t.bytes_max.is_some()) > 20);
        assert!(count(&|t| t.seconds_max.is_some()) > 20);
        assert!(count(&|t| t.mode == Mode::Transport && t.seen_at.is_some()) > 20);
        assert!(count(&|t| t.fragments_after) > 20);
        assert!(count(&|t| t.resource[0].is_some()) > 20);
        for gateways in 2..=GATEWAYS_MAX {
            assert!(scenarios.iter().filter(|s| s.gateways() == gateways).count() > 20);
        }
        let quiet = scenarios.iter().filter(|s| s.faults.are_none()).count();
        assert!((20..120).contains(&quiet), "{quiet} quiet runs");
    }

    /// The same seed draws the same scenario.
    #[test]
    fn is_deterministic() {
        let [one, two] = [7, 7].map(|seed| format!("{:?}", Scenario::draw(seed)));
        assert_eq!(one, two);
        assert_ne!(one, format!("{:?}", Scenario::draw(8)));
    }
}
