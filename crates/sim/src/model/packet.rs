//! Packets as the model looks at them, and changes them as forwarding does.

use std::net::IpAddr;

use culvert_frame::Port;
use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_wire::checksum;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ip::Addresses;

use crate::plain::link_frame;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::gateway_mac;
use crate::scenario::host_mac;

/// Octets of IP payload in a frame from a gateway's LAN port.
pub(super) fn content_len(frame: &[u8]) -> usize {
    let Ok(link) = ethernet::parse(frame) else { return 0 };
    match ip::parse(&frame[link.payload_at..]) {
        Ok(packet @ ip::Packet::V4(_)) => packet.total_len() - 20,
        Ok(packet) if packet.protocol() == ip::PROTOCOL_FRAGMENT => packet.total_len() - 48,
        Ok(packet) => packet.total_len() - 40,
        Err(_) => 0,
    }
}

/// A fragment, of either family.
pub(super) fn is_fragment(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0,
        _ => packet[6] == ip::PROTOCOL_FRAGMENT,
    }
}

/// RFC 3948 section 2.3: a datagram whose payload is one octet 0xff.
pub(super) fn is_keepalive(frame: &[u8]) -> bool {
    let Ok(link) = ethernet::parse(frame) else { return false };
    let packet = &frame[link.payload_at..];
    let Ok(parsed) = ip::parse(packet) else { return false };
    let payload = &packet[parsed.upper_at()..parsed.total_len()];
    parsed.protocol() == ip::PROTOCOL_UDP && payload.len() == 9 && payload[8] == 0xff
}

/// Puts the UDP checksum of a whole packet right.
pub(super) fn finish_udp(packet: &mut [u8]) {
    let Ok(parsed) = ip::parse(packet) else { return };
    let at = parsed.upper_at();
    let len = u16::try_from(packet.len() - at).expect("a packet");
    let pseudo = match (parsed.source(), parsed.destination()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum::pseudo_header_v4(source, destination, ip::PROTOCOL_UDP, len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::pseudo_header_v6(source, destination, ip::PROTOCOL_UDP, len.into())
        }
        _ => return,
    };
    packet[at + 6..at + 8].fill(0);
    let sum = match !checksum::add(pseudo, checksum::sum(&packet[at..])) {
        0 => 0xffff,
        sum => sum,
    };
    packet[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The UDP destination port of an encapsulated packet; 0 for none.
pub(super) fn destination_port(outer: &Outer, frame: &[u8]) -> u16 {
    if !outer.encapsulated {
        return 0;
    }
    u16::from_be_bytes([frame[outer.esp_at - 6], frame[outer.esp_at - 5]])
}

/// ESP in a datagram to a port that is not 4500: to a peer behind a NAT.
pub(super) fn encapsulated_elsewhere(frame: &[u8]) -> Option<Outer> {
    let at = ethernet::parse(frame).ok()?.payload_at;
    let packet = ip::parse(&frame[at..]).ok()?;
    if packet.protocol() != ip::PROTOCOL_UDP {
        return None;
    }
    let port_at = at + packet.upper_at() + 2;
    let mut frame = frame.to_vec();
    frame[port_at..port_at + 2].copy_from_slice(&esp::NAT_TRAVERSAL_PORT.to_be_bytes());
    match esp::classify(&frame) {
        Ok(Unprotected::Esp(outer)) => Some(outer),
        _ => None,
    }
}

/// The table of RFC 6040 section 4.2.
pub(super) fn merge_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NONE: Option<u8> = None;
    [
        [Some(0), Some(0), Some(0), NONE],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ][usize::from(inner)][usize::from(outer)]
}

/// What policies that name addresses only look at.
pub(super) fn flow(source: IpAddr, destination: IpAddr) -> Flow {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let addresses =
        Addresses { is_v4: source.is_ipv4(), source: bits(source), destination: bits(destination) };
    Flow { addresses, protocol: 0, upper: Upper::None }
}

/// Gives a packet the fields of another header of its family that routers may change, and its
/// addresses.
pub(super) fn adopt(packet: &mut [u8], header: &[u8]) {
    if packet[0] >> 4 == 4 {
        packet[12..20].copy_from_slice(&header[12..20]);
    } else {
        packet[..4].copy_from_slice(&header[..4]);
        packet[8..40].copy_from_slice(&header[8..40]);
    }
}

/// Puts TOS and TTL into a packet.
pub(super) fn finish_header(packet: &mut [u8], tos: u8, ttl: u8) {
    if packet[0] >> 4 == 4 {
        (packet[1], packet[8]) = (tos, ttl);
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = packet[1] & 0x0f | tos << 4;
        packet[7] = ttl;
    }
}

/// The frame in which gateway `end` sends a packet out of a port, without padding.
pub(super) fn on_link(scenario: &Scenario, end: usize, port: Port, packet: &[u8]) -> Vec<u8> {
    let (to, vlan) = match port {
        LAN => (host_mac(end), scenario.lan_vlan),
        _ => (scenario.next_station(end), scenario.wan_vlan),
    };
    let ether_type = match packet[0] >> 4 {
        4 => ethernet::ETHER_TYPE_IPV4,
        _ => ethernet::ETHER_TYPE_IPV6,
    };
    link_frame(to, gateway_mac(end, port), vlan, ether_type, packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of this model is the one the engine uses, written down a second time.
    #[test]
    fn ecn_table() {
        for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
            assert_eq!(merge_ecn(inner, outer), culvert_esp::ecn::decapsulate(inner, outer).ecn);
        }
    }
}
