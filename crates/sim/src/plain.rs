//! Plaintext packets whose every octet follows from a number: what hosts of a simulation and of
//! tests send, and what must come out at the other end.

use std::net::IpAddr;

use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::udp;

use crate::random::mix;

/// Starts every payload, so that a plaintext is recognised wherever it shows up.
pub const MARK: [u8; 8] = *b"culvert:";

/// Octets of the shortest payload: mark and number.
pub const PAYLOAD_MIN: usize = 16;

/// Octets of the shortest Ethernet frame, without its check sequence.
const FRAME_MIN: usize = 60;

/// A UDP packet to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Don't fragment; for IPv4.
    pub dont_fragment: bool,
    /// Octets behind the UDP header, at least [`PAYLOAD_MIN`].
    pub payload_len: usize,
    /// The number that tells it from all others.
    pub id: u64,
}

impl Plain {
    /// An ordinary packet with a small payload.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, id: u64) -> Plain {
        Plain { source, destination, tos: 0, ttl: 64, dont_fragment: true, payload_len: 64, id }
    }

    /// Octets of the IP packet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header_len() + udp::HEADER_LEN + self.payload_len
    }

    /// A packet is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The IP packet.
    ///
    /// # Panics
    /// When the payload is shorter than [`PAYLOAD_MIN`] or the packet longer than 65535 octets.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0; self.len()];
        let datagram_at = self.header_len();
        let datagram = &mut packet[datagram_at..];
        self.write_payload(&mut datagram[udp::HEADER_LEN..]);
        let len = u16::try_from(datagram.len()).expect("an IP packet");
        udp::emit(datagram, 4000, 4001, len, 0);
        let pseudo = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                checksum::pseudo_header_v4(source, destination, ip::PROTOCOL_UDP, len)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                checksum::pseudo_header_v6(source, destination, ip::PROTOCOL_UDP, len.into())
            }
            _ => panic!("source and destination are of one family"),
        };
        let sum = match !checksum::add(pseudo, checksum::sum(datagram)) {
            0 => 0xffff,
            sum => sum,
        };
        udp::emit(datagram, 4000, 4001, len, sum);
        self.write_header(&mut packet);
        packet
    }

    /// The packet in an Ethernet frame, padded to the least length of one.
    #[must_use]
    pub fn frame(&self, destination: Mac, source: Mac, vlan: Option<u16>) -> Vec<u8> {
        let ether_type = match self.source {
            IpAddr::V4(_) => ethernet::ETHER_TYPE_IPV4,
            IpAddr::V6(_) => ethernet::ETHER_TYPE_IPV6,
        };
        let mut frame = link_frame(destination, source, vlan, ether_type, &self.packet());
        frame.resize(frame.len().max(FRAME_MIN), 0);
        frame
    }

    fn header_len(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => ipv4::HEADER_LEN,
            IpAddr::V6(_) => ipv6::HEADER_LEN,
        }
    }

    fn write_header(&self, packet: &mut [u8]) {
        let len = u16::try_from(packet.len()).expect("an IP packet");
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    tos: self.tos,
                    total_len: len,
                    id: u16::try_from(self.id & 0xffff).expect("16 bits"),
                    dont_fragment: self.dont_fragment,
                    ttl: self.ttl,
                    protocol: ip::PROTOCOL_UDP,
                    source,
                    destination,
                };
                ipv4::emit(packet, &header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    traffic_class: self.tos,
                    flow_label: u32::try_from(mix(self.id) & 0xf_ffff).expect("20 bits"),
                    payload_len: len - u16::try_from(ipv6::HEADER_LEN).expect("40"),
                    next_header: ip::PROTOCOL_UDP,
                    hop_limit: self.ttl,
                    source,
                    destination,
                };
                ipv6::emit(packet, &header);
            }
            _ => panic!("source and destination are of one family"),
        }
    }

    fn write_payload(&self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&MARK);
        payload[8..PAYLOAD_MIN].copy_from_slice(&self.id.to_be_bytes());
        let words = payload[PAYLOAD_MIN..].chunks_mut(8);
        for (counter, word) in (0..).zip(words) {
            let filler = mix(mix(self.id) ^ counter).to_be_bytes();
            word.copy_from_slice(&filler[..word.len()]);
        }
    }
}

/// An Ethernet frame around `payload`, not padded.
#[must_use]
pub fn link_frame(
    destination: Mac,
    source: Mac,
    vlan: Option<u16>,
    ether_type: u16,
    payload: &[u8],
) -> Vec<u8> {
    let payload_at = ethernet::header_len(vlan);
    let mut frame = vec![0; payload_at + payload.len()];
    ethernet::emit(&mut frame[..payload_at], destination, source, vlan, ether_type);
    frame[payload_at..].copy_from_slice(payload);
    frame
}

/// An IP packet with a right header around anything.
///
/// # Panics
/// When the addresses are not of one family, or the payload is longer than a packet.
#[must_use]
pub fn ip_packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("short");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0; ipv4::HEADER_LEN];
            let header = ipv4::Header {
                tos: 0,
                total_len: len + 20,
                id: 0,
                dont_fragment: true,
                ttl: 60,
                protocol,
                source,
                destination,
            };
            ipv4::emit(&mut packet, &header);
            packet.extend_from_slice(payload);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0; ipv6::HEADER_LEN];
            let header = ipv6::Header {
                traffic_class: 0,
                flow_label: 0,
                payload_len: len,
                next_header: protocol,
                hop_limit: 60,
                source,
                destination,
            };
            ipv6::emit(&mut packet, &header);
            packet.extend_from_slice(payload);
            packet
        }
        _ => panic!("source and destination are of one family"),
    }
}

/// The number of the plaintext that `bytes` hold anywhere in clear.
#[must_use]
pub fn find_id(bytes: &[u8]) -> Option<u64> {
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)?;
    let id = bytes[at + MARK.len()..].first_chunk()?;
    Some(u64::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(source: &str, destination: &str) -> Plain {
        Plain::new(source.parse().unwrap(), destination.parse().unwrap(), 77)
    }

    /// Both families are well-formed, with right checksums, padded, and known by their number.
    #[test]
    fn packets_are_well_formed() {
        for plain in [plain("10.0.0.1", "10.0.0.2"), plain("2001:db8::1", "2001:db8::2")] {
            let mut packet = plain.packet();
            let parsed = ip::parse(&packet).unwrap();
            assert_eq!((parsed.total_len(), parsed.ttl()), (plain.len(), 64));
            assert_eq!((parsed.source(), parsed.destination()), (plain.source, plain.destination));
            let before = packet.clone();
            assert!(!checksum::complete_partial(&mut packet, &parsed));
            assert_eq!(packet, before);
            assert_eq!(find_id(&packet), Some(77));
            let shortest = Plain { payload_len: PAYLOAD_MIN, ..plain };
            assert!(shortest.frame(Mac([0; 6]), Mac([0; 6]), None).len() >= FRAME_MIN);
        }
        assert_eq!(find_id(b"culvert:1234567"), None);
    }
}
