//! The ESP header (RFC 4303 section 2), and what a frame from the unprotected side is.
//!
//! ESP arrives raw (protocol 50) or in UDP on port 4500 (RFC 3948), which it shares with IKE and
//! NAT keepalives; [`classify`] tells them apart. It reads headers only: whether an SA exists for
//! an SPI, and whether source and ports are those of the peer, is for its caller. The UDP checksum
//! is not looked at (RFC 3948 section 2.1).

use core::net::IpAddr;

use crate::Malformed;
use crate::ethernet;
use crate::ip;
use crate::ipv4;
use crate::ipv6;
use crate::udp;

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of the explicit IV that follows the header (RFC 4106 section 3.1).
pub const IV_LEN: usize = 8;
/// The UDP port of encapsulated ESP, IKE behind a NAT, and keepalives (RFC 3948 section 2).
pub const NAT_TRAVERSAL_PORT: u16 = 4500;

/// What stands in the place of the SPI in front of an IKE message (RFC 3948 section 2.2).
const NON_ESP_MARKER: u32 = 0;
/// The whole payload of a NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];
/// Octets of the IPv6 fragment header (RFC 8200 section 4.5).
const FRAGMENT_HEADER_LEN: usize = 8;

/// An ESP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
}

/// Reads the ESP header at the start of `bytes`.
///
/// # Errors
/// [`Malformed::Truncated`] when there are fewer than 8 octets.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Esp, Malformed> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
    let [s0, s1, s2, s3, q0, q1, q2, q3] = *header;
    Ok(Esp { spi: u32::from_be_bytes([s0, s1, s2, s3]), seq: u32::from_be_bytes([q0, q1, q2, q3]) })
}

/// Writes an ESP header into the first 8 octets of `out`.
///
/// # Panics
/// When `out` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(out: &mut [u8], spi: u32, seq: u32) {
    let out: &mut [u8; HEADER_LEN] = out.first_chunk_mut().expect("room for the ESP header");
    out[..4].copy_from_slice(&spi.to_be_bytes());
    out[4..].copy_from_slice(&seq.to_be_bytes());
}

/// The outer headers of an ESP packet, checked once (RFC 4303; RFC 3948 section 2.1).
/// `esp_at + 8 <= end <=` the length of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Security parameters index; 0 (reserved) is possible in raw ESP, and no SA has it.
    pub spi: u32,
    /// Sequence number; with ESN its low half.
    pub seq: u32,
    /// Offset of the SPI in the Ethernet frame.
    pub esp_at: usize,
    /// Offset one past the last octet of ESP in the frame; link padding is excluded.
    pub end: usize,
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// True when ESP came in UDP.
    pub encapsulated: bool,
    /// UDP source port; 0 for raw ESP.
    pub source_port: u16,
}

/// What a frame from the unprotected side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unprotected {
    /// An ESP packet, raw or in UDP.
    Esp(Outer),
    /// A NAT keepalive: to be dropped in silence (RFC 3948 section 4).
    Keepalive,
    /// An IKE message on port 4500, known by its non-ESP marker.
    Ike,
    /// UDP on port 4500 with a payload below 8 octets that is no keepalive.
    Runt,
    /// A fragment of ESP or UDP, the first included; ESP is processed only reassembled
    /// (RFC 4303 section 3.4.1).
    Fragment,
    /// Anything else: other protocols and ports, IPv6 with other extension headers, no IP at all.
    Other,
}

/// Says what `frame`, an Ethernet frame from the unprotected side, is.
///
/// # Errors
/// [`Malformed`] when the Ethernet, IP or (on port 4500) UDP header is, or when raw ESP is shorter
/// than its header. UDP to other ports is [`Unprotected::Other`] whatever its length field says.
#[inline]
pub fn classify(frame: &[u8]) -> Result<Unprotected, Malformed> {
    let link = ethernet::parse(frame)?;
    let packet = &frame[link.payload_at..];
    let ip = match link.ether_type {
        ethernet::ETHER_TYPE_IPV4 => ip::Packet::V4(ipv4::parse(packet)?),
        ethernet::ETHER_TYPE_IPV6 => ip::Packet::V6(ipv6::parse(packet)?),
        _ => return Ok(Unprotected::Other),
    };
    let upper_at = link.payload_at + ip.upper_at();
    let upper = &packet[ip.upper_at()..ip.total_len()];
    let carries_esp = |protocol| matches!(protocol, ip::PROTOCOL_ESP | ip::PROTOCOL_UDP);
    if let ip::Packet::V4(header) = &ip
        && header.is_fragment()
    {
        let ours = carries_esp(header.protocol);
        return Ok(if ours { Unprotected::Fragment } else { Unprotected::Other });
    }
    match ip.protocol() {
        ip::PROTOCOL_ESP => {
            let esp = parse(upper)?;
            Ok(Unprotected::Esp(outer(&ip, esp, upper_at, upper.len())))
        }
        ip::PROTOCOL_UDP => classify_udp(&ip, upper, upper_at),
        ip::PROTOCOL_FRAGMENT if matches!(ip, ip::Packet::V6(_)) => {
            let header: &[u8; FRAGMENT_HEADER_LEN] =
                upper.first_chunk().ok_or(Malformed::Truncated)?;
            let ours = carries_esp(header[0]);
            Ok(if ours { Unprotected::Fragment } else { Unprotected::Other })
        }
        _ => Ok(Unprotected::Other),
    }
}

#[inline]
fn classify_udp(
    ip: &ip::Packet,
    segment: &[u8],
    segment_at: usize,
) -> Result<Unprotected, Malformed> {
    let [_, _, p0, p1, ..] = *segment else {
        return Err(Malformed::Truncated);
    };
    if u16::from_be_bytes([p0, p1]) != NAT_TRAVERSAL_PORT {
        return Ok(Unprotected::Other);
    }
    let header = udp::parse(segment)?;
    let payload = &segment[udp::HEADER_LEN..header.len];
    let Ok(esp) = parse(payload) else {
        let keepalive = payload == KEEPALIVE;
        return Ok(if keepalive { Unprotected::Keepalive } else { Unprotected::Runt });
    };
    if esp.spi == NON_ESP_MARKER {
        return Ok(Unprotected::Ike);
    }
    let outer = outer(ip, esp, segment_at + udp::HEADER_LEN, payload.len());
    Ok(Unprotected::Esp(Outer { encapsulated: true, source_port: header.source_port, ..outer }))
}

#[inline]
fn outer(ip: &ip::Packet, esp: Esp, esp_at: usize, len: usize) -> Outer {
    Outer {
        spi: esp.spi,
        seq: esp.seq,
        esp_at,
        end: esp_at + len,
        source: ip.source(),
        destination: ip.destination(),
        tos: ip.tos(),
        encapsulated: false,
        source_port: 0,
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::net::Ipv6Addr;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::ethernet::Mac;

    const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const DESTINATION_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const TOS: u8 = 0x2e;
    const ESP: [u8; 12] = [0, 0, 0x10, 0x01, 0, 0, 0, 7, 0xaa, 0xbb, 0xcc, 0xdd];

    /// The four ways a frame can carry IP: either family, with and without a tag.
    const LINKS: [(bool, Option<u16>); 4] =
        [(false, None), (false, Some(5)), (true, None), (true, Some(5))];

    /// An Ethernet frame around an IP packet of `protocol`, with 4 octets of link padding.
    fn frame(six: bool, vlan: Option<u16>, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let link = ethernet::header_len(vlan);
        let ip_len = if six { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        let payload_len = u16::try_from(payload.len()).unwrap();
        let mut frame = vec![0; link + ip_len];
        let ether_type = if six { ethernet::ETHER_TYPE_IPV6 } else { ethernet::ETHER_TYPE_IPV4 };
        ethernet::emit(&mut frame[..link], Mac([2; 6]), Mac([4; 6]), vlan, ether_type);
        if six {
            let header = ipv6::Header {
                traffic_class: TOS,
                flow_label: 0,
                payload_len,
                next_header: protocol,
                hop_limit: 64,
                source: SOURCE_V6,
                destination: DESTINATION_V6,
            };
            ipv6::emit(&mut frame[link..], &header);
        } else {
            let header = ipv4::Header {
                tos: TOS,
                total_len: 20 + payload_len,
                id: 0,
                dont_fragment: false,
                ttl: 64,
                protocol,
                source: SOURCE_V4,
                destination: DESTINATION_V4,
            };
            ipv4::emit(&mut frame[link..], &header);
        }
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&[0x5a; 4]);
        frame
    }

    fn datagram(port: u16, checksum: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 8];
        let len = u16::try_from(8 + payload.len()).unwrap();
        udp::emit(&mut segment, 61234, port, len, checksum);
        segment.extend_from_slice(payload);
        segment
    }

    fn udp_frame(six: bool, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
        frame(six, vlan, ip::PROTOCOL_UDP, &datagram(NAT_TRAVERSAL_PORT, 0, payload))
    }

    /// Makes the packet of an untagged IPv4 frame a fragment.
    fn fragmented(mut frame: Vec<u8>, flags_and_offset: u16) -> Vec<u8> {
        let header = &mut frame[14..34];
        header[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        header[10..12].fill(0);
        let sum = crate::checksum::internet(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn expected(six: bool, esp_at: usize) -> Outer {
        let v4 = (IpAddr::V4(SOURCE_V4), IpAddr::V4(DESTINATION_V4));
        let v6 = (IpAddr::V6(SOURCE_V6), IpAddr::V6(DESTINATION_V6));
        let (source, destination) = if six { v6 } else { v4 };
        Outer {
            spi: 0x1001,
            seq: 7,
            esp_at,
            end: esp_at + 12,
            source,
            destination,
            tos: TOS,
            encapsulated: false,
            source_port: 0,
        }
    }

    /// Both fields of the header are read.
    #[test]
    fn deconstruct() {
        assert_eq!(parse(&ESP), Ok(Esp { spi: 0x1001, seq: 7 }));
    }

    /// A header is written octet for octet, and nothing behind it.
    #[test]
    fn construct() {
        let mut out = ESP;
        out[..8].fill(0xff);
        emit(&mut out, 0x1001, 7);
        assert_eq!(out, ESP);
    }

    /// Every shorter header is refused.
    #[test]
    fn check_len() {
        for len in 0..8 {
            assert_eq!(parse(&ESP[..len]), Err(Malformed::Truncated), "{len}");
        }
    }

    /// Raw ESP is found in both families, tagged or not, without the link padding.
    #[test]
    fn classify_raw_esp() {
        for (six, vlan) in LINKS {
            let esp_at = ethernet::header_len(vlan) + if six { 40 } else { 20 };
            let outer = expected(six, esp_at);
            let frame = frame(six, vlan, ip::PROTOCOL_ESP, &ESP);
            assert_eq!(classify(&frame), Ok(Unprotected::Esp(outer)), "{six} {vlan:?}");
        }
    }

    /// ESP in UDP is found whatever its checksum says. U03
    #[test]
    fn classify_encapsulated_esp() {
        for (six, vlan) in LINKS {
            for checksum in [0, 0x1234, 0xffff] {
                let esp_at = ethernet::header_len(vlan) + if six { 48 } else { 28 };
                let outer =
                    Outer { encapsulated: true, source_port: 61234, ..expected(six, esp_at) };
                let segment = datagram(NAT_TRAVERSAL_PORT, checksum, &ESP);
                let frame = frame(six, vlan, ip::PROTOCOL_UDP, &segment);
                assert_eq!(classify(&frame), Ok(Unprotected::Esp(outer)), "{six} {vlan:?}");
            }
        }
    }

    /// Octets behind the UDP length are no part of ESP, though the IP length counts them.
    #[test]
    fn classify_ends_esp_at_the_udp_length() {
        let mut segment = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
        segment.extend_from_slice(&[1, 2, 3]);
        let frame = frame(false, None, ip::PROTOCOL_UDP, &segment);
        let Ok(Unprotected::Esp(outer)) = classify(&frame) else { panic!("ESP") };
        assert_eq!((outer.esp_at, outer.end), (42, 54));
    }

    /// IPv4 options move ESP; they do not hide it.
    #[test]
    fn classify_behind_ipv4_options() {
        let mut frame = frame(false, None, ip::PROTOCOL_ESP, &ESP);
        frame.splice(34..34, [0x94, 4, 0, 0]);
        frame[14] = 0x46;
        frame[17] += 4;
        frame[24..26].fill(0);
        let sum = crate::checksum::internet(&frame[14..38]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(classify(&frame), Ok(Unprotected::Esp(expected(false, 38))));
    }

    /// The non-ESP marker means IKE; a zero SPI in raw ESP does not. U04
    #[test]
    fn classify_ike() {
        let ike = [&[0; 4][..], &[1; 28]].concat();
        for (six, vlan) in LINKS {
            assert_eq!(classify(&udp_frame(six, vlan, &ike)), Ok(Unprotected::Ike));
            let raw = frame(six, vlan, ip::PROTOCOL_ESP, &ike);
            let Ok(Unprotected::Esp(outer)) = classify(&raw) else { panic!("raw ESP") };
            assert_eq!(outer.spi, 0);
        }
    }

    /// One octet 0xff is a keepalive; every other payload below 8 octets is a runt. U05, U07
    #[test]
    fn classify_keepalives_and_runts() {
        for (six, vlan) in LINKS {
            let classify = |payload: &[u8]| classify(&udp_frame(six, vlan, payload));
            assert_eq!(classify(&[0xff]), Ok(Unprotected::Keepalive));
            assert_eq!(classify(&[0xfe]), Ok(Unprotected::Runt));
            assert_eq!(classify(&[0xff; 2]), Ok(Unprotected::Runt));
            for len in (0..8).filter(|&len| len != 1) {
                assert_eq!(classify(&ESP[..len]), Ok(Unprotected::Runt), "{len}");
            }
            assert_eq!(classify(&[0; 7]), Ok(Unprotected::Runt));
            assert!(matches!(classify(&ESP[..8]), Ok(Unprotected::Esp(_))));
        }
    }

    /// Fragments of ESP and UDP are told from those of other protocols. I01
    #[test]
    fn classify_fragments() {
        for flags_and_offset in [0x2000, 0x0001, 0x2001, 0x1fff] {
            for (protocol, expected) in [
                (ip::PROTOCOL_ESP, Unprotected::Fragment),
                (ip::PROTOCOL_UDP, Unprotected::Fragment),
                (ip::PROTOCOL_TCP, Unprotected::Other),
            ] {
                let whole = frame(false, None, protocol, &ESP);
                let fragment = fragmented(whole, flags_and_offset);
                assert_eq!(classify(&fragment), Ok(expected), "{flags_and_offset:x} {protocol}");
                let behind = [&[protocol, 0, 0, 1, 0, 0, 0, 9][..], &ESP].concat();
                let fragment = frame(true, None, ip::PROTOCOL_FRAGMENT, &behind);
                assert_eq!(classify(&fragment), Ok(expected), "{protocol}");
            }
        }
        let whole = fragmented(frame(false, None, ip::PROTOCOL_ESP, &ESP), 0x4000);
        assert!(matches!(classify(&whole), Ok(Unprotected::Esp(_))), "DF is no fragment");
    }

    /// What is not for the gateway is other: protocols, ports, extension headers, no IP, two tags.
    #[test]
    fn classify_other() {
        for (six, vlan) in LINKS {
            for protocol in [0, 1, 6, 43, 51, 58, 59, 60, 255] {
                let frame = frame(six, vlan, protocol, &ESP);
                assert_eq!(classify(&frame), Ok(Unprotected::Other), "{protocol}");
            }
            for port in [0, 53, 500, 4499, 4501] {
                let mut segment = datagram(port, 0, &ESP);
                segment[5] = 3;
                let frame = frame(six, vlan, ip::PROTOCOL_UDP, &segment);
                assert_eq!(classify(&frame), Ok(Unprotected::Other), "{port}");
            }
        }
        let v4_44 = frame(false, None, ip::PROTOCOL_FRAGMENT, &[ip::PROTOCOL_ESP; 12]);
        assert_eq!(classify(&v4_44), Ok(Unprotected::Other), "44 is no fragment header in IPv4");
        let mut esp = frame(false, Some(5), ip::PROTOCOL_ESP, &ESP);
        esp[16..18].copy_from_slice(&ethernet::ETHER_TYPE_VLAN.to_be_bytes());
        assert_eq!(classify(&esp), Ok(Unprotected::Other), "a second tag");
        let mut arp = frame(false, None, ip::PROTOCOL_ESP, &ESP);
        arp[12..14].copy_from_slice(&ethernet::ETHER_TYPE_ARP.to_be_bytes());
        assert_eq!(classify(&arp), Ok(Unprotected::Other));
    }

    /// Headers that contradict themselves are malformed, each under its name.
    #[test]
    fn classify_refuses_malformed_frames() {
        for (six, vlan) in LINKS {
            let malformed = |protocol, payload: &[u8]| {
                classify(&frame(six, vlan, protocol, payload)).unwrap_err()
            };
            for len in 0..8 {
                assert_eq!(malformed(ip::PROTOCOL_ESP, &ESP[..len]), Malformed::Truncated);
            }
            let segment = datagram(NAT_TRAVERSAL_PORT, 0, &ESP);
            for len in 0..8 {
                assert_eq!(malformed(ip::PROTOCOL_UDP, &segment[..len]), Malformed::Truncated);
            }
            for len in [0, 7, 21, 255] {
                let mut segment = segment.clone();
                segment[5] = len;
                assert_eq!(malformed(ip::PROTOCOL_UDP, &segment), Malformed::UdpLength, "{len}");
            }
            let mut swapped = frame(six, vlan, ip::PROTOCOL_ESP, &ESP);
            swapped[ethernet::header_len(vlan)] ^= 0x20;
            assert_eq!(classify(&swapped), Err(Malformed::Version));
        }
        let short = frame(true, None, ip::PROTOCOL_FRAGMENT, &[ip::PROTOCOL_ESP; 7]);
        assert_eq!(classify(&short), Err(Malformed::Truncated));
        let mut flipped = frame(false, None, ip::PROTOCOL_ESP, &ESP);
        flipped[22] ^= 1;
        assert_eq!(classify(&flipped), Err(Malformed::Checksum));
    }

    prop_compose! {
        /// Frames that are nearly right, so that every branch is reached: a valid one with octets
        /// changed and its end moved, and sometimes with the IPv4 checksum made right again.
        fn hostile_frames()(
            (six, encapsulated, repaired) in any::<(bool, bool, bool)>(),
            vlan in proptest::option::of(0..4096_u16),
            protocol in proptest::option::of(any::<u8>()),
            port in proptest::option::of(any::<u16>()),
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            changes in proptest::collection::vec((0..60_usize, any::<u8>()), 0..4),
            cut in proptest::option::of(0..80_usize),
        ) -> Vec<u8> {
            let port = port.unwrap_or(NAT_TRAVERSAL_PORT);
            let payload = if encapsulated { datagram(port, 0, &payload) } else { payload };
            let usual = if encapsulated { ip::PROTOCOL_UDP } else { ip::PROTOCOL_ESP };
            let mut frame = frame(six, vlan, protocol.unwrap_or(usual), &payload);
            for (at, octet) in changes {
                if let Some(changed) = frame.get_mut(at) {
                    *changed = octet;
                }
            }
            let header = ethernet::header_len(vlan);
            if repaired && !six && let Some(header) = frame.get_mut(header..header + 20) {
                header[10..12].fill(0);
                let sum = crate::checksum::internet(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            frame
        }
    }

    fn check(frame: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(Unprotected::Esp(outer)) = classify(frame) {
            prop_assert!(outer.esp_at + HEADER_LEN <= outer.end && outer.end <= frame.len());
            let esp = parse(&frame[outer.esp_at..outer.end]);
            prop_assert_eq!(esp, Ok(Esp { spi: outer.spi, seq: outer.seq }));
            prop_assert!(outer.spi != 0 || !outer.encapsulated);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8000))]

        /// Nearly right frames never make it panic, and what it calls ESP lies inside the frame.
        #[test]
        fn classify_never_panics_on_hostile_frames(frame in hostile_frames()) {
            check(&frame)?;
        }

        /// Neither do any bytes at all.
        #[test]
        fn classify_never_panics_on_any_bytes(
            frame in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            check(&frame)?;
            _ = parse(&frame);
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(spi: u32, seq: u32) {
            let mut out = [0; 8];
            emit(&mut out, spi, seq);
            prop_assert_eq!(parse(&out), Ok(Esp { spi, seq }));
        }
    }
}
