//! What a seed draws before anything happens: the two gateways, their tunnels, and which faults
//! exist in this run.
//!
//! Swarm style: a run has some faults and not others, because a fault that is always present hides
//! what only shows without it. About one run in eight has none at all, and must lose nothing.
//!
//! Everything is symmetric: side 0 and side 1 are the same gateway with the addresses swapped.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::NextHops;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::next_hop::Link;
use culvert_engine::next_hop::Route;
use culvert_engine::next_hop::Target;
use culvert_esp::Encapsulation;
use culvert_esp::Spi;
use culvert_esp::replay;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_wire::esp::NAT_TRAVERSAL_PORT;
use culvert_wire::ethernet::Mac;
use ipnet::IpNet;

use crate::gateway::GatewayConfig;
use crate::gateway::HANDOFF_CAPACITY;
use crate::random::Random;

/// The port of hosts.
pub const LAN: Port = Port(0);
/// The port of the wire between the gateways.
pub const WAN: Port = Port(1);

/// Most workers of one gateway.
pub const WORKERS_MAX: usize = 3;
/// Most frames of one worker.
pub const FRAMES_PER_WORKER_MAX: usize = 512;

/// MTU of the hosts' links.
pub const LAN_MTU: u16 = 1500;

const TUNNELS_MAX: u64 = 6;
const LAN_INTERFACE: u32 = 1;
const WAN_INTERFACE: u32 = 2;

/// The third octet of networks whose packets are sent through tunnel 0 and must not come out of it.
const FOREIGN: u8 = 200;

/// One pair of SAs. Arrays are indexed by the side that *sends* with the SA, or owns the address.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Which one it is: also its group, and part of its networks.
    pub index: u8,
    /// Tunnel endpoints.
    pub outer: [IpAddr; 2],
    /// UDP encapsulation, with the source port of each side.
    pub encapsulation: [Option<Encapsulation>; 2],
    /// Algorithm of both SAs.
    pub algorithm: Algorithm,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window of the receiver.
    pub window: [u32; 2],
    /// SPIs; sometimes the same number both ways.
    pub spi: [Spi; 2],
    /// Key and salt.
    pub keymat: [Keymat; 2],
    /// Last number used before the run.
    pub start: [u64; 2],
}

/// Which faults exist, and how often. Rates are in 1000.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Frames lost on the wire.
    pub loss: u64,
    /// Frames that arrive twice.
    pub duplication: u64,
    /// Frames that arrive late.
    pub reordering: u64,
    /// How late, in nanoseconds, at most.
    pub delay_ns_max: u64,
    /// Frames in which bits flip.
    pub bit_flips: u64,
    /// Frames that are cut short.
    pub truncation: u64,
    /// Frames whose outer header is marked with congestion.
    pub congestion: u64,
    /// Recorded frames sent again, for each step.
    pub replay: u64,
    /// Forgeries made of recorded frames, for each step.
    pub forgery: u64,
    /// Frames that never were anything, for each step.
    pub garbage: u64,
    /// Packets whose queue has nothing to do with their flow.
    pub reshuffle: u64,
    /// Turns at which a worker's transmit rings are nearly full.
    pub full_tx: u64,
    /// Turns after which a worker stands still for a while.
    pub stalls: u64,
    /// Steps at which time jumps ahead by seconds.
    pub clock_jumps: u64,
    /// Steps at which neighbours are forgotten.
    pub neighbours: u64,
    /// Steps at which the same policies are published again.
    pub republish: u64,
    /// Rings between workers hold a few packets only.
    pub small_rings: bool,
}

/// Everything a run is made of, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Workers of each side.
    pub workers: [usize; 2],
    /// The tunnels.
    pub tunnels: Vec<Tunnel>,
    /// The faults.
    pub faults: Faults,
    /// Steps with faults.
    pub steps: u64,
    /// MTU of the wire.
    pub wan_mtu: u16,
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
    /// Packets a ring between workers holds.
    pub handoff_capacity: usize,
}

impl Faults {
    /// Every fault is there or not, and seldom or often.
    fn draw(random: &mut Random) -> Faults {
        if random.chance(125) {
            return Faults::default();
        }
        let rate = |random: &mut Random| match random.chance(500) {
            true => random.pick(&[5, 20, 80, 250]),
            false => 0,
        };
        Faults {
            loss: rate(random),
            duplication: rate(random),
            reordering: rate(random),
            delay_ns_max: random.pick(&[50_000, 200_000, 2_000_000]),
            bit_flips: rate(random),
            truncation: rate(random),
            congestion: rate(random),
            replay: 4 * rate(random),
            forgery: 2 * rate(random),
            garbage: 2 * rate(random),
            reshuffle: 4 * rate(random),
            full_tx: rate(random),
            stalls: rate(random),
            clock_jumps: rate(random),
            neighbours: rate(random),
            republish: rate(random),
            small_rings: random.chance(300),
        }
    }

    /// True when there is no fault at all.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let rates = [
            self.loss,
            self.duplication,
            self.reordering,
            self.bit_flips,
            self.truncation,
            self.congestion,
            self.replay,
            self.forgery,
            self.garbage,
            self.reshuffle,
            self.full_tx,
            self.stalls,
            self.clock_jumps,
            self.neighbours,
            self.republish,
        ];
        rates.iter().all(|&rate| rate == 0) && !self.small_rings
    }
}

impl Tunnel {
    /// A fresh pair of SAs: AES-128, raw ESP over IPv4, no ESN.
    ///
    /// # Panics
    /// When the index leaves no room for its SPIs or addresses.
    #[must_use]
    pub fn ordinary(index: u8) -> Tunnel {
        let algorithm = Algorithm::Aes128Gcm16;
        let spi = 0x1000 + 16 * u32::from(index);
        Tunnel {
            index,
            outer: endpoints(index, false),
            encapsulation: [None; 2],
            algorithm,
            esn: false,
            window: [1024; 2],
            spi: [0, 1].map(|side| Spi::new(spi + side).expect("above 255")),
            keymat: [0x11, 0x22].map(|octet| key(algorithm, octet ^ index)),
            start: [0; 2],
        }
    }

    /// The same with tunnel endpoints of the other family.
    #[must_use]
    pub fn with_outer(self, six: bool) -> Tunnel {
        let outer = endpoints(self.index, six);
        Tunnel { outer, ..self }
    }

    /// The same with another algorithm, and other keys.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Tunnel {
        let keymat = [0x33, 0x44].map(|octet| key(algorithm, octet ^ self.index));
        Tunnel { algorithm, keymat, ..self }
    }

    /// The same, encapsulated in UDP.
    #[must_use]
    pub fn with_udp(self) -> Tunnel {
        let ports =
            Encapsulation { source_port: NAT_TRAVERSAL_PORT, destination_port: NAT_TRAVERSAL_PORT };
        Tunnel { encapsulation: [Some(ports); 2], ..self }
    }

    fn draw(random: &mut Random, index: u8) -> Tunnel {
        let algorithm = random.pick(&Algorithm::ALL);
        let esn = random.chance(500);
        let outer = endpoints(index, random.chance(500));
        let udp = random.chance(400);
        let spi = 0x1000 + (u32::from(random.octet()) << 16) + 16 * u32::from(index);
        let same_spi = random.chance(300);
        Tunnel {
            index,
            outer,
            encapsulation: [0, 1].map(|_| {
                udp.then(|| Encapsulation {
                    source_port: random.pick(&[NAT_TRAVERSAL_PORT, 1024, 61234]),
                    destination_port: NAT_TRAVERSAL_PORT,
                })
            }),
            algorithm,
            esn,
            window: [0, 1].map(|_| draw_window(random)),
            spi: [0, u32::from(!same_spi)].map(|add| Spi::new(spi + add).expect("above 255")),
            keymat: [0, 1].map(|_| {
                let mut octets = vec![0; algorithm.keymat_len()];
                random.fill(&mut octets);
                Keymat::new(octets)
            }),
            start: [0, 1].map(|_| draw_start(random, esn)),
        }
    }
}

/// The tunnel endpoints of tunnel `index`.
fn endpoints(index: u8, six: bool) -> [IpAddr; 2] {
    [0, 1].map(|side: u8| match six {
        false => Ipv4Addr::new(192, 0, 2 + side, 10 + index).into(),
        true => {
            let host = 0x10 + u16::from(index);
            Ipv6Addr::new(0x2001, 0xdb8, 0xff, side.into(), 0, 0, 0, host).into()
        }
    })
}

/// A key of equal octets.
fn key(algorithm: Algorithm, octet: u8) -> Keymat {
    Keymat::new(vec![octet; algorithm.keymat_len()])
}

/// A window size: mostly an ordinary one, sometimes an odd one.
fn draw_window(random: &mut Random) -> u32 {
    match random.below(8) {
        0 => replay::SIZE_MAX,
        1 => 64 + u32::from(random.octet()),
        2 => 1024,
        3 => 4096,
        _ => random.pick(&[64, 128, 256]),
    }
}

/// The number before the first: a fresh SA, one anywhere, or one close to a boundary.
fn draw_start(random: &mut Random, esn: bool) -> u64 {
    const BOUNDARY: u64 = 1 << 32;
    match random.below(8) {
        0..4 => 0,
        4 => random.below(BOUNDARY - 10_000),
        5 | 6 => BOUNDARY - 1 - random.below(200),
        _ if esn => u64::MAX - random.below(200),
        _ => 1,
    }
}

impl Scenario {
    /// What `seed` draws.
    #[must_use]
    pub fn draw(seed: u64) -> Scenario {
        let random = &mut Random::new(seed);
        let faults = Faults::draw(random);
        let vlan = |random: &mut Random| random.chance(200).then(|| random.pick(&[1, 7, 4094]));
        let tunnels = 0..u8::try_from(random.between(1, TUNNELS_MAX)).expect("few");
        let mut tunnels: Vec<Tunnel> = tunnels.map(|index| Tunnel::draw(random, index)).collect();
        // The order of installation decides which worker owns what.
        random.shuffle(&mut tunnels);
        let ring = random.pick(&[4, 16, 64]);
        let few = random.pick(&[160, 256, FRAMES_PER_WORKER_MAX]);
        Scenario {
            seed,
            workers: [0, 1].map(|_| 1 + random.index(WORKERS_MAX)),
            tunnels,
            steps: random.between(60, 160),
            wan_mtu: random.pick(&[1500, 1500, 1400, 1280]),
            filters_mac: random.chance(700),
            lan_vlan: vlan(random),
            wan_vlan: vlan(random),
            completes_checksums: random.chance(300),
            foreign_has_policy: random.chance(500),
            frames: if faults.are_none() { FRAMES_PER_WORKER_MAX } else { few },
            handoff_capacity: if faults.small_rings { ring } else { HANDOFF_CAPACITY },
            faults,
        }
    }

    /// Two gateways with one worker each and no faults.
    #[must_use]
    pub fn quiet(tunnels: Vec<Tunnel>) -> Scenario {
        Scenario {
            seed: 0,
            workers: [1; 2],
            tunnels,
            faults: Faults::default(),
            steps: 0,
            wan_mtu: 1500,
            filters_mac: true,
            lan_vlan: None,
            wan_vlan: None,
            completes_checksums: false,
            foreign_has_policy: false,
            frames: FRAMES_PER_WORKER_MAX,
            handoff_capacity: HANDOFF_CAPACITY,
        }
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
        let port = |port, side_of_port| PortConfig {
            side: side_of_port,
            mac: self.filters_mac.then(|| gateway_mac(side, port)),
            completes_checksums: self.completes_checksums && port == LAN,
        };
        let sas = self
            .tunnels
            .iter()
            .flat_map(|tunnel| [sa(tunnel, side, side), sa(tunnel, side, 1 - side)]);
        GatewayConfig {
            workers: self.workers[side],
            frames: self.frames,
            ports: vec![port(LAN, Side::Protected), port(WAN, Side::Unprotected)],
            sas: sas.collect(),
            spd: self.policies(side),
        }
    }

    /// The policies of one gateway.
    #[must_use]
    pub fn policies(&self, side: usize) -> Spd {
        let policy = |source, destination, action| Policy {
            selector: Selector { source, destination },
            action,
        };
        let mut spd = Spd::default();
        for six in [false, true] {
            let any = net(if six { "::/0" } else { "0.0.0.0/0" });
            let clear = net(if six { "3fff:b::/32" } else { "198.51.100.0/24" });
            let never = net(if six { "3fff:d::/32" } else { "203.0.113.0/24" });
            spd.outbound.push(policy(any, clear, Action::Bypass));
            spd.outbound.push(policy(any, never, Action::Discard));
            let between = |from: usize, index| {
                let (source, destination) =
                    (network(from, index, six), network(1 - from, index, six));
                move |action| policy(source, destination, action)
            };
            let tunnel_0 = Action::Protect(Group(0));
            spd.outbound.push(between(side, FOREIGN)(tunnel_0));
            if self.foreign_has_policy {
                let other = Action::Protect(Group(1));
                spd.inbound.push(between(1 - side, FOREIGN)(other));
            }
            for tunnel in &self.tunnels {
                let action = Action::Protect(Group(tunnel.index.into()));
                spd.outbound.push(between(side, tunnel.index)(action));
                spd.inbound.push(between(1 - side, tunnel.index)(action));
            }
        }
        spd
    }

    /// The kernel's tables of one gateway; neighbours are known where `known` says so, in the order
    /// LAN over IPv4, LAN over IPv6, wire over IPv4, wire over IPv6.
    #[must_use]
    pub fn next_hops(&self, side: usize, known: [bool; 4]) -> NextHops {
        let mut next_hops = NextHops::default();
        let links = [
            (LAN_INTERFACE, LAN, self.lan_vlan, LAN_MTU),
            (WAN_INTERFACE, WAN, self.wan_vlan, self.wan_mtu),
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
                _ => gateway_mac(1 - side, WAN),
            };
            if known {
                next_hops.insert_neighbour(target, mac);
            }
        }
        next_hops
    }
}

/// The SA of `tunnel` that `sender` sends with, as `side` knows it.
fn sa(tunnel: &Tunnel, side: usize, sender: usize) -> SaSpec {
    let direction = match side == sender {
        true => Direction::Outbound,
        false => Direction::Inbound,
    };
    SaSpec {
        direction,
        spi: tunnel.spi[sender],
        source: tunnel.outer[sender],
        destination: tunnel.outer[1 - sender],
        algorithm: tunnel.algorithm,
        keymat: tunnel.keymat[sender].clone(),
        esn: tunnel.esn,
        sequence: tunnel.start[sender],
        replay_window: tunnel.window[sender],
        encapsulation: tunnel.encapsulation[sender],
        group: Group(tunnel.index.into()),
    }
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
    if side == 0 { 1 } else { 2 }
}

fn lan_word(side: usize) -> u16 {
    0xa0 + u16::from(lan_octet(side))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds reach every corner: quiet runs, exhaustion, both boundaries, all algorithms, all
    /// families and encapsulations.
    #[test]
    fn seeds_reach_every_corner() {
        let scenarios: Vec<Scenario> = (0..200).map(Scenario::draw).collect();
        let tunnels: Vec<&Tunnel> = scenarios.iter().flat_map(|s| &s.tunnels).collect();
        let count = |what: &dyn Fn(&&&Tunnel) -> bool| tunnels.iter().filter(what).count();
        let near_end = |t: &Tunnel| t.start[0] > u64::from(u32::MAX) - 300;
        for algorithm in Algorithm::ALL {
            assert!(count(&|t| t.algorithm == algorithm) > 50);
        }
        assert!(count(&|t| !t.esn && near_end(t)) > 20);
        assert!(count(&|t| t.esn && near_end(t)) > 20);
        assert!(count(&|t| t.outer[0].is_ipv6() && t.encapsulation[0].is_some()) > 20);
        assert!(count(&|t| t.window[0] == replay::SIZE_MAX) > 20);
        assert!(count(&|t| t.window[0] == replay::SIZE_MIN) > 20);
        let quiet = scenarios.iter().filter(|s| s.faults.are_none()).count();
        assert!((10..60).contains(&quiet), "{quiet} quiet runs");
    }

    /// The same seed draws the same scenario.
    #[test]
    fn is_deterministic() {
        let [one, two] = [7, 7].map(|seed| format!("{:?}", Scenario::draw(seed)));
        assert_eq!(one, two);
        assert_ne!(one, format!("{:?}", Scenario::draw(8)));
    }
}
