//! The IPv6 fixed header (RFC 8200 section 3), and the changes forwarding makes to it.
//!
//! Extension headers are payload here. Octets behind the payload length are link padding and no
//! part of the packet. Jumbograms are not supported: a payload length of 0 means none.

use core::net::Ipv6Addr;

use crate::Malformed;

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Offset of the next-header octet.
pub const NEXT_HEADER_AT: usize = 6;

const FLOW_LABEL_MASK: u32 = 0x000f_ffff;

/// An IPv6 fixed header whose payload length holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Octets behind the fixed header; all of them were among the octets parsed.
    pub payload_len: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The 20-bit flow label.
    pub flow_label: u32,
    /// Protocol of the payload, or the first extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

/// Reads and checks the fixed header at the start of `packet`.
///
/// # Errors
/// [`Malformed`] when the packet ends inside the header, the version is not 6, or the payload
/// length goes beyond `packet`.
#[inline]
pub fn parse(packet: &[u8]) -> Result<Ipv6, Malformed> {
    let (header, there) = fields(packet)?;
    if header.payload_len > there {
        return Err(Malformed::TotalLength);
    }
    Ok(header)
}

/// Reads a header that an ICMP error quotes: what follows may be cut short, and `payload_len` says
/// what is there.
pub(crate) fn parse_quoted(packet: &[u8]) -> Option<Ipv6> {
    let (header, there) = fields(packet).ok()?;
    Some(Ipv6 { payload_len: header.payload_len.min(there), ..header })
}

/// The fields of a header of version 6, its payload length unchecked, and the octets behind it.
#[inline]
fn fields(packet: &[u8]) -> Result<(Ipv6, usize), Malformed> {
    let (fixed, rest) = packet.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
    let (source, rest) = rest.split_first_chunk::<16>().ok_or(Malformed::Truncated)?;
    let (destination, payload) = rest.split_first_chunk::<16>().ok_or(Malformed::Truncated)?;
    let [v0, v1, v2, v3, l0, l1, next_header, hop_limit] = *fixed;
    if v0 >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let header = Ipv6 {
        payload_len: usize::from(u16::from_be_bytes([l0, l1])),
        traffic_class: v0 << 4 | v1 >> 4,
        flow_label: u32::from_be_bytes([0, v1, v2, v3]) & FLOW_LABEL_MASK,
        next_header,
        hop_limit,
        source: Ipv6Addr::from(*source),
        destination: Ipv6Addr::from(*destination),
    };
    Ok((header, payload.len()))
}

/// A fixed header to [`emit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label; the low 20 bits count.
    pub flow_label: u32,
    /// Octets behind the fixed header.
    pub payload_len: u16,
    /// Protocol of the payload, or the first extension header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

/// Writes `header` into the first 40 octets of `out`.
///
/// # Panics
/// When `out` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(out: &mut [u8], header: &Header) {
    let out: &mut [u8; HEADER_LEN] = out.first_chunk_mut().expect("room for the IPv6 header");
    let label = header.flow_label & FLOW_LABEL_MASK;
    let word = 6 << 28 | u32::from(header.traffic_class) << 20 | label;
    out[..4].copy_from_slice(&word.to_be_bytes());
    out[4..6].copy_from_slice(&header.payload_len.to_be_bytes());
    out[6] = header.next_header;
    out[7] = header.hop_limit;
    out[8..24].copy_from_slice(&header.source.octets());
    out[24..].copy_from_slice(&header.destination.octets());
}

/// Decrements the hop limit of a parsed packet.
///
/// # Panics
/// When the hop limit is 0 or `packet` is shorter than a header: parse and look first.
#[inline]
pub fn decrement_hop_limit(packet: &mut [u8]) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv6 header");
    header[7] = header[7].checked_sub(1).expect("a hop limit above 0");
}

/// Sets DSCP and ECN of a parsed packet.
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_traffic_class(packet: &mut [u8], traffic_class: u8) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv6 header");
    header[0] = header[0] & 0xf0 | traffic_class >> 4;
    header[1] = traffic_class << 4 | header[1] & 0x0f;
}

/// Sets the payload length of a parsed packet: octets behind the fixed header.
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_payload_len(packet: &mut [u8], payload_len: u16) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv6 header");
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
}

/// Sets the next header of the fixed header of a parsed packet.
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_next_header(packet: &mut [u8], next_header: u8) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv6 header");
    header[NEXT_HEADER_AT] = next_header;
}

/// Sets the flow label of a parsed packet; the low 20 bits count.
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_flow_label(packet: &mut [u8], flow_label: u32) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv6 header");
    let [_, l0, l1, l2] = (flow_label & FLOW_LABEL_MASK).to_be_bytes();
    header[1] = header[1] & 0xf0 | l0;
    header[2..4].copy_from_slice(&[l1, l2]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        traffic_class: 0xb9,
        flow_label: 0xabcde,
        payload_len: 5,
        next_header: 50,
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    const PACKET: [u8; 45] = [
        0x6b, 0x9a, 0xbc, 0xde, 0x00, 0x05, 50, 64, //
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, //
        b'h', b'e', b'l', b'l', b'o',
    ];

    /// Every field is read.
    #[test]
    fn deconstruct() {
        let expected = Ipv6 {
            payload_len: 5,
            traffic_class: 0xb9,
            flow_label: 0xabcde,
            next_header: 50,
            hop_limit: 64,
            source: HEADER.source,
            destination: HEADER.destination,
        };
        assert_eq!(parse(&PACKET), Ok(expected));
    }

    /// A header is written octet for octet, surplus bits of the label masked, nothing behind it.
    #[test]
    fn construct() {
        let mut out = PACKET;
        out[..40].fill(0xff);
        emit(&mut out, &Header { flow_label: 0xfffa_bcde, ..HEADER });
        assert_eq!(out, PACKET);
    }

    /// Every prefix of a packet is refused; octets behind the payload are not part of it.
    #[test]
    fn check_len() {
        for len in 0..40 {
            assert_eq!(parse(&PACKET[..len]), Err(Malformed::Truncated), "{len}");
        }
        for len in 40..45 {
            assert_eq!(parse(&PACKET[..len]), Err(Malformed::TotalLength), "{len}");
        }
        let mut padded = [0; 60];
        padded[..45].copy_from_slice(&PACKET);
        assert_eq!(parse(&padded).unwrap().payload_len, 5);
    }

    /// Wrong fields are refused under their names.
    #[test]
    fn parse_refuses_wrong_fields() {
        let mut packet = PACKET;
        packet[0] = 0x4b;
        assert_eq!(parse(&packet), Err(Malformed::Version));
        let mut packet = PACKET;
        packet[4] = 0xff;
        assert_eq!(parse(&packet), Err(Malformed::TotalLength));
    }

    /// A hop limit of 0 does not wrap round.
    #[test]
    #[should_panic(expected = "a hop limit above 0")]
    fn decrement_refuses_zero() {
        let mut packet = PACKET;
        packet[7] = 0;
        decrement_hop_limit(&mut packet);
    }

    prop_compose! {
        fn headers()(
            (traffic_class, flow_label, payload_len) in (any::<u8>(), 0..1_u32 << 20, 0..=60_u16),
            (next_header, hop_limit) in any::<(u8, u8)>(),
            (source, destination) in any::<([u8; 16], [u8; 16])>(),
        ) -> Header {
            let (source, destination) = (source.into(), destination.into());
            Header {
                traffic_class,
                flow_label,
                payload_len,
                next_header,
                hop_limit,
                source,
                destination,
            }
        }
    }

    fn emitted(header: &Header) -> [u8; 100] {
        let mut packet = [0; 100];
        emit(&mut packet, header);
        packet
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// No bytes make the parser panic, and its length lies inside the packet.
        #[test]
        fn parse_never_panics(
            mut packet in proptest::collection::vec(any::<u8>(), 0..100),
            likely: bool,
        ) {
            if likely && packet.len() >= 5 {
                packet[0] = packet[0] & 0x0f | 0x60;
                packet[4] = 0;
            }
            if let Ok(header) = parse(&packet) {
                prop_assert!(HEADER_LEN + header.payload_len <= packet.len());
            }
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(header in headers()) {
            let parsed = parse(&emitted(&header)).unwrap();
            prop_assert_eq!(parsed.traffic_class, header.traffic_class);
            prop_assert_eq!(parsed.flow_label, header.flow_label);
            prop_assert_eq!(parsed.payload_len, usize::from(header.payload_len));
            prop_assert_eq!(parsed.next_header, header.next_header);
            prop_assert_eq!(parsed.hop_limit, header.hop_limit);
            prop_assert_eq!(parsed.source, header.source);
            prop_assert_eq!(parsed.destination, header.destination);
        }

        /// Changes in place give the octets of a header emitted with the new values. P19.
        #[test]
        fn changes_equal_a_new_header(header in headers(), traffic_class: u8) {
            let header = Header { hop_limit: header.hop_limit.max(1), ..header };
            let mut packet = emitted(&header);
            decrement_hop_limit(&mut packet);
            let header = Header { hop_limit: header.hop_limit - 1, ..header };
            prop_assert_eq!(packet, emitted(&header));
            set_traffic_class(&mut packet, traffic_class);
            prop_assert_eq!(packet, emitted(&Header { traffic_class, ..header }));
        }

        /// So do those that templates and transport mode make; surplus bits of a label are masked.
        #[test]
        fn setters_equal_a_new_header(header in headers(), other in headers(), surplus: u32) {
            let mut packet = emitted(&header);
            set_payload_len(&mut packet, other.payload_len);
            set_next_header(&mut packet, other.next_header);
            set_flow_label(&mut packet, other.flow_label | surplus << 20);
            let Header { payload_len, next_header, flow_label, .. } = other;
            let expected = Header { payload_len, next_header, flow_label, ..header };
            prop_assert_eq!(packet, emitted(&expected));
        }
    }
}
