//! The attacker: somebody between the gateways who records everything and sends anything.
//!
//! He has no keys. He replays what he recorded, at once or much later, at the right gateway or the
//! wrong one; forges what he recorded; and sends frames that never were anything.

use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::udp;

use crate::plain::ip_packet;
use crate::plain::link_frame;
use crate::random::Random;
use crate::scenario::Faults;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::gateway_mac;
use crate::tunnel::Tunnel;
use crate::wire::flip_bits;
use crate::wire::too_big;

/// Frames of one kind that he sends in a step at most.
const SALVO_MAX: u64 = 12;

/// What the attacker sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attacks {
    /// Recorded frames, unchanged.
    pub replays: u64,
    /// Recorded frames, changed.
    pub forgeries: u64,
    /// Errors about recorded frames.
    pub errors: u64,
    /// Anything else.
    pub garbage: u64,
}

impl Attacks {
    /// The attacks of two attackers together.
    #[must_use]
    pub fn plus(&self, other: &Attacks) -> Attacks {
        Attacks {
            replays: self.replays + other.replays,
            forgeries: self.forgeries + other.forgeries,
            errors: self.errors + other.errors,
            garbage: self.garbage + other.garbage,
        }
    }
}

/// The attacker.
pub(crate) struct Attacker<'a> {
    scenario: &'a Scenario,
    random: Random,
    recorded: Vec<(usize, Vec<u8>)>,
    pub(crate) attacks: Attacks,
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(random: Random, scenario: &'a Scenario) -> Attacker<'a> {
        let recorded = Vec::new();
        Attacker { scenario, random, recorded, attacks: Attacks::default() }
    }

    /// Sees a frame that a gateway sent to gateway `to`.
    pub(crate) fn record(&mut self, to: usize, frame: &[u8]) {
        let Faults { replay, forgery, .. } = self.scenario.faults;
        if replay + forgery > 0 {
            self.recorded.push((to, frame.to_vec()));
        }
    }

    /// Everything recorded, oldest first.
    pub(crate) fn recorded(&self) -> &[(usize, Vec<u8>)] {
        &self.recorded
    }

    /// Frames he sends now, and to which gateway.
    pub(crate) fn act(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut frames = Vec::new();
        let Faults { replay, forgery, garbage, .. } = self.scenario.faults;
        if !self.recorded.is_empty() && self.random.chance(replay) {
            for _ in 0..self.random.between(1, SALVO_MAX) {
                self.attacks.replays += 1;
                frames.push(self.replayed());
            }
        }
        if !self.recorded.is_empty() && self.random.chance(forgery) {
            for _ in 0..self.random.between(1, SALVO_MAX) {
                self.attacks.forgeries += 1;
                let (to, frame) = self.replayed();
                frames.push((to, self.forged(frame)));
            }
        }
        if !self.recorded.is_empty() && self.random.chance(forgery / 4) {
            let error = self.error();
            self.attacks.errors += u64::from(error.is_some());
            frames.extend(error);
        }
        if self.random.chance(garbage) {
            for _ in 0..self.random.between(1, SALVO_MAX) {
                self.attacks.garbage += 1;
                let to = self.random.index(self.scenario.gateways());
                frames.push((to, self.garbage(to)));
            }
        }
        frames
    }

    /// An error about a recorded frame, to the gateway that sent it: some MTU, mostly too small.
    fn error(&mut self) -> Option<(usize, Vec<u8>)> {
        let at = self.random.index(self.recorded.len());
        let frame = &self.recorded[at].1;
        let packet = &frame[ethernet::parse(frame).ok()?.payload_at..];
        let source = ip::parse(packet).ok()?.source();
        let of_tunnel = |tunnel: &Tunnel| {
            let side = tunnel.outer.iter().position(|&outer| outer == source)?;
            Some(tunnel.ends[side])
        };
        let to = self.scenario.tunnels.iter().find_map(of_tunnel)?;
        let mtu = self.random.index(1500);
        Some((to, too_big(packet, to, self.scenario.wan_vlan, mtu)?))
    }

    /// A recorded frame: from any time or just now, sometimes to the gateway that sent it.
    fn replayed(&mut self) -> (usize, Vec<u8>) {
        let len = self.recorded.len();
        let at = match self.random.chance(500) {
            true => self.random.index(len),
            false => len - 1 - self.random.index(len.min(64)),
        };
        let (to, mut frame) = self.recorded[at].clone();
        if self.random.chance(100) {
            let other = (to + 1) % self.scenario.gateways();
            frame[..6].copy_from_slice(&gateway_mac(other, WAN).0);
            return (other, frame);
        }
        (to, frame)
    }

    /// Changes what a receiver might believe without looking at the ICV, or what the ICV does not
    /// cover at all.
    fn forged(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let (outer, spi_at) = match esp::classify(&frame) {
            Ok(Unprotected::Esp(outer)) => (outer, outer.esp_at),
            Ok(Unprotected::Ah(outer)) => (outer, outer.esp_at + 4),
            _ => return frame,
        };
        let seq_at = spi_at + 4;
        match self.random.below(6) {
            // Numbers far ahead, or just beyond the one seen.
            0 => self.random.fill(&mut frame[seq_at..seq_at + 4]),
            1 => {
                let near = self.random.between(1, 2000);
                let seq = u64::from(outer.seq) + near;
                frame[seq_at..seq_at + 4].copy_from_slice(&seq.to_be_bytes()[4..]);
            }
            2 => self.random.fill(&mut frame[spi_at..seq_at]),
            3 => flip_bits(&mut self.random, &mut frame[outer.esp_at..]),
            4 => self.random.fill(&mut frame[outer.end - 8..outer.end]),
            // Who sent it is not authenticated: this one is genuine still.
            _ => change_source(&mut self.random, &mut frame),
        }
        frame
    }

    fn garbage(&mut self, to: usize) -> Vec<u8> {
        let random = &mut self.random;
        let mac = gateway_mac(to, WAN);
        let peer = self.scenario.next_station(to);
        let len = match random.below(4) {
            0 => random.index(64),
            1 => random.index(1500),
            // Beyond what a frame holds, or nearly.
            2 => 1700 + random.index(400),
            _ => 20 + random.index(100),
        };
        let mut payload = vec![0; len];
        random.fill(&mut payload);
        if random.chance(200) {
            return payload;
        }
        let protocol = random.pick(&[
            ip::PROTOCOL_ESP,
            ip::PROTOCOL_ESP,
            ip::PROTOCOL_UDP,
            ip::PROTOCOL_UDP,
            ip::PROTOCOL_AH,
            ip::PROTOCOL_TCP,
        ]);
        let tunnel = &self.scenario.tunnels[random.index(self.scenario.tunnels.len())];
        let side = tunnel.side_of(to).unwrap_or(0);
        if len >= 4 && random.chance(600) {
            let spi = tunnel.spi[1 - side].value();
            let at = match protocol {
                ip::PROTOCOL_UDP => 8,
                ip::PROTOCOL_AH => 4,
                _ => 0,
            };
            if let Some(place) = payload.get_mut(at..at + 4) {
                place.copy_from_slice(&spi.to_be_bytes());
            }
        }
        if protocol == ip::PROTOCOL_UDP && len >= udp::HEADER_LEN {
            udp_garbage(random, &mut payload);
        }
        let packet = ip_packet(tunnel.outer[1 - side], tunnel.outer[side], protocol, &payload);
        let ether_type = match tunnel.outer[0].is_ipv4() {
            true => ethernet::ETHER_TYPE_IPV4,
            false => ethernet::ETHER_TYPE_IPV6,
        };
        let ether_type = match random.below(10) {
            0 => ethernet::ETHER_TYPE_ARP,
            1 => u16::from_be_bytes([random.octet(), random.octet()]),
            _ => ether_type,
        };
        link_frame(mac, peer, random.chance(100).then_some(9), ether_type, &packet)
    }
}

/// Makes octets a datagram to the port of encapsulated ESP: sometimes a runt, a keepalive, or IKE.
fn udp_garbage(random: &mut Random, datagram: &mut Vec<u8>) {
    match random.below(4) {
        0 => datagram.truncate(udp::HEADER_LEN + random.index(8)),
        1 => {
            datagram.truncate(udp::HEADER_LEN);
            datagram.push(0xff);
        }
        2 if datagram.len() >= 12 => datagram[8..12].fill(0),
        _ => {}
    }
    let len = u16::try_from(datagram.len()).expect("short");
    udp::emit(datagram, 4500, esp::NAT_TRAVERSAL_PORT, len, 0);
}

/// Replaces the outer source address and puts the header's checksum right.
fn change_source(random: &mut Random, frame: &mut [u8]) {
    let Ok(link) = ethernet::parse(frame) else {
        return;
    };
    let packet = &mut frame[link.payload_at..];
    match ip::parse(packet) {
        Ok(ip::Packet::V4(_)) => {
            packet[15] = random.octet();
            packet[10..12].fill(0);
            let sum = culvert_wire::checksum::internet(&packet[..ipv4::HEADER_LEN]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(ip::Packet::V6(_)) => packet[23] = random.octet(),
        Err(_) => {}
    }
}
