//! What a packet from the unprotected side is.
//!
//! ESP arrives raw (protocol 50) or in UDP on port 4500 (RFC 3948), which it shares with IKE and
//! NAT keepalives; AH arrives raw. [`classify`] tells them apart, and from fragments and ICMP
//! errors that concern them. It reads headers only: whether an SA exists for an SPI, and whether
//! source and ports are those of the peer, is for its caller. The UDP checksum is not looked at
//! (RFC 3948 section 2.1). Offsets count from the start of the bytes that are classified.

use core::net::IpAddr;

use super::Esp;
use super::NAT_TRAVERSAL_PORT;
use super::parse;
use crate::Malformed;
use crate::ah;
use crate::ethernet;
use crate::extension;
use crate::icmp;
use crate::ip;
use crate::ipv4;
use crate::ipv6;
use crate::udp;

/// Octets of UDP header, SPI and sequence number.
const UDP_ESP: u16 = 16;
/// What stands in the place of the SPI in front of an IKE message (RFC 3948 section 2.2).
const NON_ESP_MARKER: u32 = 0;
/// The whole payload of a NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];

/// The outer headers of an ESP or AH packet, checked once (RFC 4303; RFC 4302; RFC 3948 section
/// 2.1). `ip_at < esp_at`, and `esp_at + 8 <= end <=` the length of what was classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Security parameters index; 0 (reserved) is possible in raw ESP and AH, and no SA has it.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
    /// Offset of the outer IP header.
    pub ip_at: usize,
    /// Offset of the SPI of ESP, or of the first octet of AH.
    pub esp_at: usize,
    /// Offset one past the last octet of ESP or of AH's payload; link padding is excluded.
    pub end: usize,
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// Outer flow label, 20 bits; 0 in IPv4.
    pub flow_label: u32,
    /// True when ESP came in UDP.
    pub encapsulated: bool,
    /// UDP source port; 0 for raw ESP and AH.
    pub source_port: u16,
}

/// A fragment, as a reassembler needs it, that `offset + len()` keeps below 65536 octets.
/// `ip_at < payload_at < end <=` the length of what was classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentOf {
    /// Source and destination address.
    pub addresses: ip::Addresses,
    /// Protocol of the whole packet; in IPv6 that of the first header behind the fragment header.
    pub protocol: u8,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of the whole packet's payload in front of this one's: a multiple of 8.
    pub offset: usize,
    /// True when more fragments follow; then `len()` is a multiple of 8.
    pub more: bool,
    /// Offset of the IP header.
    pub ip_at: usize,
    /// Offset of the IPv6 fragment header, whose 8 octets end at `payload_at`; none in IPv4, where
    /// the IP header says it all.
    pub fragment_header_at: Option<usize>,
    /// Offset of the fragment's payload.
    pub payload_at: usize,
    /// Offset one past it.
    pub end: usize,
}

/// An ICMP error about a packet that could be an SA's. Nothing here is authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Offset of the IP header around the ICMP message.
    pub ip_at: usize,
    /// Who sent the ICMP message.
    pub reporter: IpAddr,
    /// What it reports.
    pub reported: icmp::Reported,
    /// Type and code of the ICMP message.
    pub kind: [u8; 2],
    /// Octets of the packet it is about, as that one's header says.
    pub len: usize,
    /// Source address of the packet it is about.
    pub source: IpAddr,
    /// Destination address of the packet it is about.
    pub destination: IpAddr,
    /// Protocol of the packet it is about: ESP, AH, or UDP (from or to port 4500).
    pub protocol: u8,
    /// UDP source and destination port of the packet it is about.
    pub ports: Option<(u16, u16)>,
    /// Its SPI, when enough is quoted. An IPv4 host need not quote it behind UDP.
    pub spi: Option<u32>,
    /// Its sequence number, or the low half of it, when enough is quoted.
    pub seq: Option<u32>,
}

/// What a packet from the unprotected side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprotected {
    /// An ESP packet, raw or in UDP.
    Esp(Outer),
    /// An AH packet; sequence number and SPI are AH's.
    Ah(Outer),
    /// A NAT keepalive: to be dropped in silence (RFC 3948 section 4).
    Keepalive,
    /// An IKE message on port 4500, known by its non-ESP marker.
    Ike,
    /// UDP on port 4500 with a payload below 8 octets that is neither keepalive nor IKE.
    Runt,
    /// A fragment of ESP, AH, or UDP, the first included; ESP and AH are processed only reassembled
    /// (RFC 4303 section 3.4.1). In IPv6 also one that is the whole packet, and one behind which
    /// destination options come.
    Fragment(FragmentOf),
    /// An ICMP error about an ESP or AH packet, or about UDP from or to port 4500 that is
    /// not IKE.
    IcmpError(IcmpError),
    /// Any other IP packet: plaintext on the unprotected side, IKE on port 500 too.
    Plain(ip::Packet),
    /// No IP at all.
    Other,
}

impl FragmentOf {
    /// Octets of the fragment's payload; never 0.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.end - self.payload_at
    }

    /// Octets of the headers that every fragment repeats: from the IP header to the IPv6 fragment
    /// header or, in IPv4, to the payload.
    #[inline]
    #[must_use]
    pub fn unfragmentable_len(&self) -> usize {
        self.fragment_header_at.unwrap_or(self.payload_at) - self.ip_at
    }

    /// True when this fragment is the whole packet (RFC 6946).
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Says what `frame`, an Ethernet frame from the unprotected side, is.
///
/// # Errors
/// [`Malformed`] when the Ethernet, IP or (on port 4500) UDP header is, when IPv6 extension headers
/// are, when a fragment's place is impossible, or when raw ESP or AH is shorter than its header.
/// UDP to other ports is [`Unprotected::Plain`] whatever its length field says.
pub fn classify(frame: &[u8]) -> Result<Unprotected, Malformed> {
    let link = ethernet::parse(frame)?;
    let packet = &frame[link.payload_at..];
    let ip = match link.ether_type {
        ethernet::ETHER_TYPE_IPV4 => ip::Packet::V4(ipv4::parse(packet)?),
        ethernet::ETHER_TYPE_IPV6 => ip::Packet::V6(ipv6::parse(packet)?),
        _ => return Ok(Unprotected::Other),
    };
    classify_ip(frame, link.payload_at, &ip)
}

/// Says what the IP packet at offset `ip_at` of `bytes` is: [`classify`] for what no Ethernet
/// header precedes, such as a packet that was in a tunnel. Offsets in the answer count from the
/// start of `bytes`.
///
/// # Errors
/// As [`classify`]; [`Malformed::Truncated`] when `ip_at` lies behind `bytes`.
#[inline]
pub fn classify_packet(bytes: &[u8], ip_at: usize) -> Result<Unprotected, Malformed> {
    let packet = bytes.get(ip_at..).ok_or(Malformed::Truncated)?;
    classify_ip(bytes, ip_at, &ip::parse(packet)?)
}

/// Where an upper layer lies: `ip_at + 20 <= upper_at <= end()`.
#[derive(Clone, Copy)]
struct Place<'a> {
    ip_at: usize,
    ip: &'a ip::Packet,
    upper_at: usize,
}

impl Place<'_> {
    #[inline]
    fn end(&self) -> usize {
        self.ip_at + self.ip.total_len()
    }

    #[inline]
    fn upper<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.upper_at..self.end()]
    }
}

/// None when the datagram is not to port 4500.
fn classify_udp(bytes: &[u8], place: Place<'_>) -> Result<Option<Unprotected>, Malformed> {
    let segment = place.upper(bytes);
    let [_, _, p0, p1, ..] = *segment else {
        return Err(Malformed::Truncated);
    };
    if u16::from_be_bytes([p0, p1]) != NAT_TRAVERSAL_PORT {
        return Ok(None);
    }
    let header = udp::parse(segment)?;
    let payload = &segment[udp::HEADER_LEN..header.len];
    // What has the marker is IKE's, however little follows it (RFC 3948 section 2.2).
    if word(payload, 0) == Some(NON_ESP_MARKER) {
        return Ok(Some(Unprotected::Ike));
    }
    Ok(Some(match parse(payload) {
        Ok(esp) => Unprotected::Esp(encapsulated(place, esp, header)),
        Err(_) if payload == KEEPALIVE => Unprotected::Keepalive,
        Err(_) => Unprotected::Runt,
    }))
}

fn classify_ip(bytes: &[u8], ip_at: usize, ip: &ip::Packet) -> Result<Unprotected, Malformed> {
    let packet = &bytes[ip_at..ip_at + ip.total_len()];
    let (protocol, upper_at) = match ip {
        ip::Packet::V4(header) if header.is_fragment() => return fragment_v4(ip_at, ip, header),
        ip::Packet::V4(header) => (header.protocol, header.header_len),
        ip::Packet::V6(header) => {
            let chain = extension::walk(packet, header)?;
            if let Some(fragment) = chain.fragment {
                return fragment_v6(ip_at, ip, &fragment);
            }
            if chain.is_source_routed {
                // Under way to another node: nothing behind the routing header is for this one.
                return Ok(Unprotected::Plain(*ip));
            }
            (chain.protocol, chain.upper_at)
        }
    };
    let place = Place { ip_at, ip, upper_at: ip_at + upper_at };
    let found = match protocol {
        ip::PROTOCOL_ESP => {
            let esp = parse(place.upper(bytes))?;
            Some(Unprotected::Esp(outer(place, esp, place.upper_at, place.end())))
        }
        ip::PROTOCOL_UDP => classify_udp(bytes, place)?,
        ip::PROTOCOL_AH => {
            let ah = ah::parse(place.upper(bytes))?;
            let esp = Esp { spi: ah.spi, seq: ah.seq };
            Some(Unprotected::Ah(outer(place, esp, place.upper_at, place.end())))
        }
        _ => icmp_error(packet, place),
    };
    Ok(found.unwrap_or(Unprotected::Plain(*ip)))
}

#[inline]
fn outer(place: Place<'_>, esp: Esp, esp_at: usize, end: usize) -> Outer {
    let ip = place.ip;
    Outer {
        spi: esp.spi,
        seq: esp.seq,
        ip_at: place.ip_at,
        esp_at,
        end,
        source: ip.source(),
        destination: ip.destination(),
        tos: ip.tos(),
        flow_label: ip.flow_label(),
        encapsulated: false,
        source_port: 0,
    }
}

#[inline]
fn encapsulated(place: Place<'_>, esp: Esp, header: udp::Udp) -> Outer {
    let esp_at = place.upper_at + udp::HEADER_LEN;
    let outer = outer(place, esp, esp_at, place.upper_at + header.len);
    Outer { encapsulated: true, source_port: header.source_port, ..outer }
}

/// Octets of payload that no packet exceeds: the range of the IPv4 total length and of the IPv6
/// payload length.
const PAYLOAD_LEN_MAX: usize = 65535;

fn fragment_v4(
    ip_at: usize,
    ip: &ip::Packet,
    header: &ipv4::Ipv4,
) -> Result<Unprotected, Malformed> {
    if !matches!(header.protocol, ip::PROTOCOL_ESP | ip::PROTOCOL_AH | ip::PROTOCOL_UDP) {
        return Ok(Unprotected::Plain(*ip));
    }
    checked(FragmentOf {
        addresses: ip.addresses(),
        protocol: header.protocol,
        id: u32::from(header.id),
        tos: header.tos,
        offset: usize::from(header.fragment_offset) * 8,
        more: header.more_fragments,
        ip_at,
        fragment_header_at: None,
        payload_at: ip_at + header.header_len,
        end: ip_at + header.total_len,
    })
}

fn fragment_v6(
    ip_at: usize,
    ip: &ip::Packet,
    fragment: &extension::Fragment,
) -> Result<Unprotected, Malformed> {
    let ours = matches!(
        fragment.protocol,
        ip::PROTOCOL_ESP | ip::PROTOCOL_AH | ip::PROTOCOL_UDP | ip::PROTOCOL_DESTINATION_OPTIONS
    );
    if !ours {
        return Ok(Unprotected::Plain(*ip));
    }
    checked(FragmentOf {
        addresses: ip.addresses(),
        protocol: fragment.protocol,
        id: fragment.id,
        tos: ip.tos(),
        offset: fragment.offset,
        more: fragment.more,
        ip_at,
        fragment_header_at: Some(ip_at + fragment.at),
        payload_at: ip_at + fragment.at + extension::FRAGMENT_HEADER_LEN,
        end: ip_at + ip.total_len(),
    })
}

/// A fragment with octets, that ends where another may begin, inside the largest packet.
fn checked(fragment: FragmentOf) -> Result<Unprotected, Malformed> {
    let len = fragment.len();
    let ends_well = !fragment.more || len.is_multiple_of(8);
    if len == 0 || !ends_well || fragment.offset + len > PAYLOAD_LEN_MAX {
        return Err(Malformed::Fragment);
    }
    Ok(Unprotected::Fragment(fragment))
}

/// An ICMP error about an ESP or AH packet, or about UDP from or to port 4500, if `packet` is one.
fn icmp_error(packet: &[u8], place: Place<'_>) -> Option<Unprotected> {
    let enclosed = icmp::enclosed(packet, place.ip)?;
    let quoted = packet.get(enclosed.at..enclosed.end)?;
    let (protocol, upper_at) = extension::next_layer(quoted, &enclosed.packet);
    let upper = quoted.get(upper_at?..)?;
    let (ports, spi, seq) = match protocol {
        ip::PROTOCOL_ESP => (None, word(upper, 0), word(upper, 4)),
        ip::PROTOCOL_AH => (None, word(upper, 4), word(upper, 8)),
        ip::PROTOCOL_UDP => {
            let [s0, s1, d0, d1, ..] = *upper else {
                return None;
            };
            let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            let spi = word(upper, udp::HEADER_LEN);
            let ours = ports.0 == NAT_TRAVERSAL_PORT || ports.1 == NAT_TRAVERSAL_PORT;
            // Keepalives are too short for ESP, and as much the stack's as IKE.
            let is_short = match *upper {
                [_, _, _, _, l0, l1, ..] => u16::from_be_bytes([l0, l1]) < UDP_ESP,
                _ => true,
            };
            if !ours || is_short || spi == Some(NON_ESP_MARKER) {
                return None;
            }
            (Some(ports), spi, word(upper, udp::HEADER_LEN + 4))
        }
        _ => return None,
    };
    Some(Unprotected::IcmpError(IcmpError {
        ip_at: place.ip_at,
        reporter: place.ip.source(),
        reported: enclosed.reported,
        kind: enclosed.kind,
        len: enclosed.len,
        source: enclosed.packet.source(),
        destination: enclosed.packet.destination(),
        protocol,
        ports,
        spi,
        seq,
    }))
}

/// The 32 bits at `at` of `bytes`, if they are there.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests;
