//! [`Spot`]: the quick way to the ESP that nearly every frame is.

use core::net::IpAddr;
use core::net::Ipv4Addr;
use core::net::Ipv6Addr;

use super::NAT_TRAVERSAL_PORT;
use super::Outer;
use super::parse;
use crate::checksum;
use crate::ethernet;
use crate::ip;
use crate::ipv4;
use crate::ipv6;
use crate::udp;

/// What stands in the place of the SPI in front of an IKE message (RFC 3948 section 2.2).
const NON_ESP_MARKER: u32 = 0;

/// Where ESP stands in a frame, and what of the headers every packet needs: the small part of
/// [`Outer`]. All offsets lie inside the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
    /// Offset of the outer IP header.
    pub ip_at: u16,
    /// Offset of the SPI of ESP, or of the first octet of AH.
    pub esp_at: u16,
    /// Offset one past the last octet of ESP or of AH's payload.
    pub end: u16,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// The outer IP header is one of IPv4.
    pub is_v4: bool,
    /// ESP came in UDP.
    pub encapsulated: bool,
}

/// ESP in an IP packet: what the header says, where it starts behind the IP header, how long it is.
struct Found {
    spi: u32,
    seq: u32,
    at: usize,
    len: usize,
}

impl Spot {
    /// Finds the ESP of `frame`, raw or in UDP, directly behind an IP header without options of a
    /// packet that is no fragment. None says nothing: ask [`classify`](super::classify), which
    /// finds the same and all else.
    #[inline(never)]
    #[must_use]
    pub fn find(frame: &[u8]) -> Option<Spot> {
        let (ether_type, ip_at) = ethernet::payload(frame)?;
        let packet = frame.get(ip_at..usize::from(u16::MAX).min(frame.len()))?;
        match ether_type {
            ethernet::ETHER_TYPE_IPV4 => {
                let (header, upper) = bare_v4(packet)?;
                let found = Found::of(header[ipv4::PROTOCOL_AT], upper)?;
                Some(found.spot((ip_at, ip_at + ipv4::HEADER_LEN), header[1], true))
            }
            ethernet::ETHER_TYPE_IPV6 => {
                let header = ipv6::parse(packet).ok()?;
                let upper = &packet[ipv6::HEADER_LEN..][..header.payload_len];
                let found = Found::of(header.next_header, upper)?;
                Some(found.spot((ip_at, ip_at + ipv6::HEADER_LEN), header.traffic_class, false))
            }
            _ => None,
        }
    }

    /// [`find`](Self::find) for raw ESP over IPv4 behind a link header without tag, which nearly
    /// all is, in less time: no call, every place known beforehand. None says nothing. With it the
    /// [addresses](Self::addresses_v4).
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "14 and 34")]
    pub fn find_raw_v4(frame: &[u8]) -> Option<(Spot, [u8; 8])> {
        const IP_AT: usize = ethernet::HEADER_LEN;
        const ESP_AT: usize = IP_AT + ipv4::HEADER_LEN;
        let start: &[u8; ESP_AT + super::HEADER_LEN] = frame.first_chunk()?;
        let [t0, t1, header @ .., s0, s1, s2, s3, q0, q1, q2, q3] = start.last_chunk::<30>()?;
        let end = IP_AT + usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & !ipv4::DONT_FRAGMENT;
        let is_it = u16::from_be_bytes([*t0, *t1]) == ethernet::ETHER_TYPE_IPV4
            && header[0] == 0x45
            && fragment == 0
            && header[ipv4::PROTOCOL_AT] == ip::PROTOCOL_ESP
            && (start.len()..=frame.len()).contains(&end)
            && checksum::holds(header);
        let spot = Spot {
            spi: u32::from_be_bytes([*s0, *s1, *s2, *s3]),
            seq: u32::from_be_bytes([*q0, *q1, *q2, *q3]),
            ip_at: IP_AT as u16,
            esp_at: ESP_AT as u16,
            end: u16::try_from(end).ok()?,
            tos: header[1],
            is_v4: true,
            encapsulated: false,
        };
        is_it.then_some((spot, *header.last_chunk()?))
    }

    /// Outer source and destination address of IPv4 as they stand in the frame that the spot was
    /// found in.
    ///
    /// # Panics
    /// When `frame` is another, shorter one.
    #[inline(always)]
    #[must_use]
    pub fn addresses_v4<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8; 8]> {
        let header = frame[usize::from(self.ip_at)..].first_chunk::<{ ipv4::HEADER_LEN }>();
        let addresses = header.expect("an IP header").last_chunk();
        if self.is_v4 { addresses } else { None }
    }

    /// Outer source and destination address, in the frame the spot was found in.
    ///
    /// # Panics
    /// When `frame` is another, shorter one.
    #[inline(always)]
    #[must_use]
    pub fn addresses(&self, frame: &[u8]) -> (IpAddr, IpAddr) {
        if let Some(addresses) = self.addresses_v4(frame) {
            let [s0, s1, s2, s3, d0, d1, d2, d3] = *addresses;
            let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
            return (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into());
        }
        let addresses = frame[usize::from(self.ip_at) + 8..].as_chunks::<16>().0;
        (Ipv6Addr::from(addresses[0]).into(), Ipv6Addr::from(addresses[1]).into())
    }

    /// UDP source port of ESP in UDP, in the frame the spot was found in; 0 for raw ESP and AH.
    ///
    /// # Panics
    /// When `frame` is another, shorter one.
    #[must_use]
    pub fn source_port(&self, frame: &[u8]) -> u16 {
        if !self.encapsulated {
            return 0;
        }
        let udp = &frame[usize::from(self.esp_at) - udp::HEADER_LEN..];
        u16::from_be_bytes([udp[0], udp[1]])
    }
}

/// An IPv4 header without options, of a packet that is no fragment, and what follows it.
#[inline(always)]
fn bare_v4(packet: &[u8]) -> Option<(&[u8; ipv4::HEADER_LEN], &[u8])> {
    let header: &[u8; ipv4::HEADER_LEN] = packet.first_chunk()?;
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    let upper = packet.get(ipv4::HEADER_LEN..total_len.into())?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & !ipv4::DONT_FRAGMENT;
    let is_bare = header[0] == 0x45 && fragment == 0 && checksum::holds(header);
    is_bare.then_some((header, upper))
}

impl Found {
    /// ESP in `upper`, where `protocol` is, raw or in UDP.
    #[inline(never)]
    fn of(protocol: u8, upper: &[u8]) -> Option<Found> {
        match protocol {
            ip::PROTOCOL_ESP => Found::raw(upper),
            ip::PROTOCOL_UDP => {
                let header = udp::parse(upper).ok()?;
                let found = Found::raw(&upper[udp::HEADER_LEN..header.len])?;
                let is_esp =
                    header.destination_port == NAT_TRAVERSAL_PORT && found.spi != NON_ESP_MARKER;
                is_esp.then_some(Found { at: udp::HEADER_LEN, ..found })
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn raw(upper: &[u8]) -> Option<Found> {
        let esp = parse(upper).ok()?;
        Some(Found { spi: esp.spi, seq: esp.seq, at: 0, len: upper.len() })
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the frame was cut to 65535 octets")]
    fn spot(self, (ip_at, upper_at): (usize, usize), tos: u8, is_v4: bool) -> Spot {
        let esp_at = upper_at + self.at;
        Spot {
            spi: self.spi,
            seq: self.seq,
            ip_at: ip_at as u16,
            esp_at: esp_at as u16,
            end: (esp_at + self.len) as u16,
            tos,
            is_v4,
            encapsulated: self.at != 0,
        }
    }
}

impl Outer {
    /// Where it was found; None when that lies beyond 65535 octets.
    #[must_use]
    pub fn spot(&self) -> Option<Spot> {
        Some(Spot {
            spi: self.spi,
            seq: self.seq,
            ip_at: self.ip_at.try_into().ok()?,
            esp_at: self.esp_at.try_into().ok()?,
            end: self.end.try_into().ok()?,
            tos: self.tos,
            is_v4: self.source.is_ipv4(),
            encapsulated: self.encapsulated,
        })
    }
}
