//! The router between the gateways: it knows who has which address, and plays the NAT in front of
//! every gateway.
//!
//! A gateway whose packets are encapsulated in UDP is seen at a public address and port. When the
//! NAT forgets that mapping, the next packet from behind it gets another one, and whatever is sent
//! to the old one goes nowhere (RFC 7296 section 2.23).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use culvert_engine::mailbox::Peer;
use culvert_esp::Mode;
use culvert_wire::checksum;
use culvert_wire::esp::NAT_TRAVERSAL_PORT;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;

use crate::random::Random;
use crate::scenario::ROUTER_MAC;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::gateway_mac;

/// The router.
#[derive(Debug)]
pub(crate) struct Router {
    gateways: usize,
    /// Whose address each one is.
    owners: BTreeMap<IpAddr, usize>,
    /// Where a gateway's address is seen, if it is behind a NAT.
    seen_at: BTreeMap<IpAddr, Peer>,
    /// Those whose NAT may forget: one end of a tunnel, for two that lose sight of each other at a
    /// time never find each other again.
    forgetful: Vec<IpAddr>,
    /// Those whose NAT gives them other ports only: in transport mode, policy knows the address.
    settled: Vec<IpAddr>,
}

impl Router {
    pub(crate) fn new(scenario: &Scenario) -> Router {
        let mut router = Router {
            gateways: scenario.gateways(),
            owners: BTreeMap::new(),
            seen_at: BTreeMap::new(),
            forgetful: Vec::new(),
            settled: Vec::new(),
        };
        for tunnel in &scenario.tunnels {
            for side in 0..2 {
                router.owners.insert(tunnel.outer[side], tunnel.ends[side]);
                if let Some(seen_at) = tunnel.seen_at {
                    router.seen_at.insert(tunnel.outer[side], seen_at[side]);
                }
            }
            if tunnel.seen_at.is_some() && tunnel.outer[0].is_ipv4() {
                router.forgetful.push(tunnel.outer[0]);
                if tunnel.mode == Mode::Transport {
                    router.settled.push(tunnel.outer[0]);
                }
            }
        }
        router
    }

    /// The NAT in front of some address forgets its mapping; the address, if there is one.
    pub(crate) fn rebind(&mut self, random: &mut Random) -> Option<(IpAddr, Peer)> {
        if self.forgetful.is_empty() {
            return None;
        }
        let inside = random.pick(&self.forgetful);
        let mut address = Ipv4Addr::new(203, 0, 114, random.octet()).into();
        if self.settled.contains(&inside) {
            address = self.seen_at(inside)?.address;
        }
        let port = 1024 + u16::try_from(random.below(60_000)).expect("small");
        let seen_at = Peer { address, port };
        self.seen_at.insert(inside, seen_at);
        Some((inside, seen_at))
    }

    /// Where a gateway's address is seen.
    pub(crate) fn seen_at(&self, inside: IpAddr) -> Option<Peer> {
        self.seen_at.get(&inside).copied()
    }

    /// The gateway that has an address itself, and is not behind a NAT there.
    pub(crate) fn in_the_open(&self, address: IpAddr) -> Option<usize> {
        let owner = self.owners.get(&address).copied();
        owner.filter(|_| address.is_ipv6() || !self.seen_at.contains_key(&address))
    }

    /// Takes a frame of gateway `from` and makes it one for the gateway it is addressed to, which
    /// is returned; `None` when it goes nowhere.
    pub(crate) fn route(&self, from: usize, frame: &mut [u8]) -> Option<usize> {
        let link = ethernet::parse(frame).ok()?;
        let packet = &mut frame[link.payload_at..];
        let parsed = ip::parse(packet).ok()?;
        let to = if self.owners.get(&parsed.source()) == Some(&from) {
            self.translate_source(packet, &parsed);
            self.translate_destination(packet, &parsed)?
        } else {
            // In clear, from a host: to whoever comes next.
            (from + 1) % self.gateways
        };
        frame[..6].copy_from_slice(&gateway_mac(to, WAN).0);
        frame[6..12].copy_from_slice(&ROUTER_MAC.0);
        Some(to)
    }

    fn translate_source(&self, packet: &mut [u8], parsed: &ip::Packet) {
        if let (true, Some(peer)) = (is_udp_v4(parsed), self.seen_at(parsed.source())) {
            let at = parsed.upper_at();
            packet[at..at + 2].copy_from_slice(&peer.port.to_be_bytes());
            replace_address(packet, 12, peer.address);
        }
    }

    /// The gateway that has the destination, or hides behind it.
    fn translate_destination(&self, packet: &mut [u8], parsed: &ip::Packet) -> Option<usize> {
        if !is_udp_v4(parsed) {
            return self.owners.get(&parsed.destination()).copied();
        }
        let at = parsed.upper_at() + 2;
        let port = u16::from_be_bytes([packet[at], packet[at + 1]]);
        let peer = Peer { address: parsed.destination(), port };
        let (&inside, _) = self.seen_at.iter().find(|&(_, seen_at)| *seen_at == peer)?;
        packet[at..at + 2].copy_from_slice(&NAT_TRAVERSAL_PORT.to_be_bytes());
        replace_address(packet, 16, inside);
        self.owners.get(&inside).copied()
    }
}

fn is_udp_v4(parsed: &ip::Packet) -> bool {
    matches!(parsed, ip::Packet::V4(_)) && parsed.protocol() == ip::PROTOCOL_UDP
}

fn replace_address(packet: &mut [u8], at: usize, address: IpAddr) {
    if let IpAddr::V4(address) = address {
        packet[at..at + 4].copy_from_slice(&address.octets());
    }
    packet[10..12].fill(0);
    let sum = checksum::internet(&packet[..ipv4::HEADER_LEN]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::ip_packet;
    use crate::plain::link_frame;
    use crate::tunnel::Tunnel;

    fn datagram(source: IpAddr, destination: IpAddr, ports: [u16; 2]) -> Vec<u8> {
        let mut payload = vec![0; 20];
        payload[..2].copy_from_slice(&ports[0].to_be_bytes());
        payload[2..4].copy_from_slice(&ports[1].to_be_bytes());
        let packet = ip_packet(source, destination, ip::PROTOCOL_UDP, &payload);
        link_frame(ROUTER_MAC, gateway_mac(0, WAN), None, ethernet::ETHER_TYPE_IPV4, &packet)
    }

    /// Packets find their gateway; behind a NAT they come from, and are reached at, its mapping
    /// only.
    #[test]
    fn packets_are_routed_and_translated() {
        let tunnel = Tunnel::ordinary(0).with_udp();
        let [one, other] = tunnel.outer;
        let mut router = Router::new(&Scenario::quiet(vec![tunnel]));
        let mut frame = datagram(one, other, [4500, 4500]);
        assert_eq!(router.route(0, &mut frame), Some(1));
        assert_eq!(frame[..6], gateway_mac(1, WAN).0);
        let mut random = Random::new(1);
        let (inside, peer) = router.rebind(&mut random).unwrap();
        let mut frame = datagram(inside, other, [4500, 4500]);
        assert_eq!(router.route(0, &mut frame), Some(1));
        let seen = ip::parse(&frame[14..]).unwrap();
        assert_eq!((seen.source(), &frame[34..36]), (peer.address, &peer.port.to_be_bytes()[..]));
        let mut stale = datagram(other, one, [4500, 4500]);
        assert_eq!(router.route(1, &mut stale), None, "the old mapping is dead");
        let mut back = datagram(other, peer.address, [4500, peer.port]);
        assert_eq!(router.route(1, &mut back), Some(0));
        let seen = ip::parse(&back[14..]).unwrap();
        assert_eq!((seen.destination(), &back[36..38]), (one, &4500u16.to_be_bytes()[..]));
    }
}
