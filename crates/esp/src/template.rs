//! The outer headers of a tunnel: IPv4 or IPv6, and UDP when the SA is encapsulated.
//!
//! They are built once when the SA is made. For each packet they are copied in front of the ESP
//! header, and the fields that differ are filled in (RFC 4301 section 5.1.2):
//!
//! | field | value |
//! |---|---|
//! | DSCP and ECN | those of the inner packet (RFC 6040 normal mode) |
//! | total or payload length | of this packet |
//! | IPv4 identification | a counter of the SA |
//! | IPv4 don't fragment | of the inner packet; set when that is IPv6 |
//! | TTL, hop limit | 64 |
//! | IPv6 flow label | zero |
//! | UDP checksum | zero over IPv4 (RFC 3948 section 2.1), computed over IPv6 (RFC 8200 8.1) |
//!
//! Options and extension headers are never copied.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::udp;

/// Longest outer header: IPv6 and UDP.
pub const LEN_MAX: usize = ipv6::HEADER_LEN + udp::HEADER_LEN;

const TTL: u8 = 64;

#[expect(clippy::cast_possible_truncation, reason = "40")]
const IPV6_HEADER_LEN: u16 = ipv6::HEADER_LEN as u16;

/// Ports of UDP encapsulation (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Source port of outbound datagrams.
    pub source_port: u16,
    /// Destination port of outbound datagrams.
    pub destination_port: u16,
}

/// Source and destination are not of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tunnel endpoints {0} and {1} are not of one address family")]
pub struct FamilyMismatch(pub IpAddr, pub IpAddr);

/// What a packet contributes to its outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// TOS or traffic class octet of the inner packet.
    pub tos: u8,
    /// Don't fragment of the inner packet; true for IPv6.
    pub dont_fragment: bool,
}

/// The outer headers of one SA.
#[derive(Debug)]
pub struct Template {
    endpoints: Endpoints,
    encapsulation: Option<Encapsulation>,
    identification: u16,
}

#[derive(Clone, Copy, Debug)]
enum Endpoints {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Template {
    /// # Errors
    /// When the endpoints are not of one family.
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        encapsulation: Option<Encapsulation>,
    ) -> Result<Template, FamilyMismatch> {
        let endpoints = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Endpoints::V4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Endpoints::V6(source, destination),
            _ => return Err(FamilyMismatch(source, destination)),
        };
        Ok(Template { endpoints, encapsulation, identification: 0 })
    }

    /// Octets of the outer headers.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        let ip = match self.endpoints {
            Endpoints::V4(..) => ipv4::HEADER_LEN,
            Endpoints::V6(..) => ipv6::HEADER_LEN,
        };
        ip + if self.encapsulation.is_some() { udp::HEADER_LEN } else { 0 }
    }

    /// Headers are never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Ethernet type of the outer packet.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        match self.endpoints {
            Endpoints::V4(..) => ethernet::ETHER_TYPE_IPV4,
            Endpoints::V6(..) => ethernet::ETHER_TYPE_IPV6,
        }
    }

    /// The far tunnel endpoint.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self.endpoints {
            Endpoints::V4(_, destination) => destination.into(),
            Endpoints::V6(_, destination) => destination.into(),
        }
    }

    /// Writes the headers into the first [`len`](Self::len) octets of `packet`, whose rest is the
    /// finished ESP packet.
    ///
    /// # Panics
    /// When `packet` is shorter than the headers or longer than 65535 octets: our own error.
    #[inline]
    pub fn apply(&mut self, packet: &mut [u8], inherited: Inherited) {
        let total = u16::try_from(packet.len()).expect("an IP packet");
        let protocol =
            if self.encapsulation.is_some() { ip::PROTOCOL_UDP } else { ip::PROTOCOL_ESP };
        let ip_len = match self.endpoints {
            Endpoints::V4(source, destination) => {
                let header = ipv4::Header {
                    tos: inherited.tos,
                    total_len: total,
                    id: self.identification,
                    dont_fragment: inherited.dont_fragment,
                    ttl: TTL,
                    protocol,
                    source,
                    destination,
                };
                self.identification = self.identification.wrapping_add(1);
                ipv4::emit(packet, &header);
                ipv4::HEADER_LEN
            }
            Endpoints::V6(source, destination) => {
                let header = ipv6::Header {
                    traffic_class: inherited.tos,
                    flow_label: 0,
                    payload_len: total - IPV6_HEADER_LEN,
                    next_header: protocol,
                    hop_limit: TTL,
                    source,
                    destination,
                };
                ipv6::emit(packet, &header);
                ipv6::HEADER_LEN
            }
        };
        if let Some(ports) = self.encapsulation {
            self.apply_udp(&mut packet[ip_len..], ports);
        }
    }

    fn apply_udp(&self, datagram: &mut [u8], ports: Encapsulation) {
        let len = u16::try_from(datagram.len()).expect("part of an IP packet");
        udp::emit(datagram, ports.source_port, ports.destination_port, len, 0);
        if let Endpoints::V6(source, destination) = self.endpoints {
            let sum = udp_v6_checksum(source, destination, datagram);
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Checksum of a datagram whose checksum field is zero; a computed zero is sent as all ones.
fn udp_v6_checksum(source: Ipv6Addr, destination: Ipv6Addr, datagram: &[u8]) -> u16 {
    let len = u32::try_from(datagram.len()).expect("part of an IP packet");
    let pseudo = checksum::pseudo_header_v6(source, destination, ip::PROTOCOL_UDP, len);
    match !checksum::add(pseudo, checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Encapsulation = Encapsulation { source_port: 4500, destination_port: 4501 };

    fn template(source: &str, destination: &str, udp: bool) -> Template {
        let parse = |text: &str| text.parse().unwrap();
        Template::new(parse(source), parse(destination), udp.then_some(PORTS)).unwrap()
    }

    fn apply(template: &mut Template, tos: u8, dont_fragment: bool) -> Vec<u8> {
        let mut packet = vec![0xaa; template.len() + 40];
        template.apply(&mut packet, Inherited { tos, dont_fragment });
        packet
    }

    /// E20, P18: protocol 50, total length, checksum, TOS and DF inherited, identification counts.
    #[test]
    fn ipv4_raw() {
        let mut template = template("192.0.2.1", "192.0.2.2", false);
        for (id, dont_fragment) in [(0, true), (1, false)] {
            let packet = apply(&mut template, 0xb9, dont_fragment);
            let ip = ipv4::parse(&packet).unwrap();
            assert_eq!((ip.total_len, ip.protocol, ip.ttl, ip.tos), (60, 50, 64, 0xb9));
            assert_eq!((ip.id, ip.dont_fragment), (id, dont_fragment));
            assert_eq!(ip.destination, Ipv4Addr::new(192, 0, 2, 2));
        }
    }

    /// U01, U02: UDP over IPv4 has the ports of the SA and a zero checksum.
    #[test]
    fn ipv4_udp() {
        let packet = apply(&mut template("192.0.2.1", "192.0.2.2", true), 0, false);
        assert_eq!(ipv4::parse(&packet).unwrap().protocol, 17);
        let udp = udp::parse(&packet[20..]).unwrap();
        assert_eq!((udp.source_port, udp.destination_port, udp.len), (4500, 4501, 48));
        assert_eq!(udp.checksum, 0);
    }

    /// P20: IPv6 has no flow label; UDP over IPv6 carries a right checksum.
    #[test]
    fn ipv6_udp() {
        let packet = apply(&mut template("2001:db8::1", "2001:db8::2", true), 0xb8, true);
        let ip = ipv6::parse(&packet).unwrap();
        assert_eq!((ip.payload_len, ip.next_header, ip.hop_limit), (48, 17, 64));
        assert_eq!((ip.traffic_class, ip.flow_label), (0xb8, 0));
        let pseudo = checksum::pseudo_header_v6(ip.source, ip.destination, 17, 48);
        assert_eq!(checksum::add(pseudo, checksum::sum(&packet[40..])), 0xffff);
        assert_ne!(udp::parse(&packet[40..]).unwrap().checksum, 0);
    }

    /// Endpoints of two families are refused.
    #[test]
    fn families_must_agree() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(Template::new(v4, v6, None).unwrap_err(), FamilyMismatch(v4, v6));
    }
}
