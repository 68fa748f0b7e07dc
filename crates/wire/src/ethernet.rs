//! The Ethernet header with at most one IEEE 802.1Q tag.
//!
//! A second tag, and a service tag (IEEE 802.1ad) anywhere, stay visible as the `ether_type` of the
//! result, so that whoever matches on IPv4 and IPv6 leaves such frames to the kernel. Priority and
//! drop-eligible bits of a tag are not kept; emitted tags carry priority 0.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use crate::Malformed;

/// Octets of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Octets one VLAN tag adds.
pub const VLAN_TAG_LEN: usize = 4;

/// IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// Address resolution.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// A customer VLAN tag (IEEE 802.1Q) follows.
pub const ETHER_TYPE_VLAN: u16 = 0x8100;
/// IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// A service VLAN tag (IEEE 802.1ad) follows.
pub const ETHER_TYPE_SERVICE_VLAN: u16 = 0x88a8;

const VLAN_ID_MASK: u16 = 0x0fff;

/// A MAC address; written and read as `02:00:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

/// Text that is no MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("MAC address: expected six pairs of hexadecimal digits, as in 02:00:00:00:00:01")]
pub struct InvalidMac;

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// What the payload is, behind the tag if there is one.
    pub ether_type: u16,
    /// The 12-bit VLAN identifier of the tag.
    pub vlan: Option<u16>,
    /// Offset of the payload in the frame: 14, or 18 behind a tag.
    pub payload_at: usize,
}

/// Reads the header of `frame`, looking through one VLAN tag.
///
/// # Errors
/// [`Malformed::Truncated`] when the frame ends inside the header or the tag.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Ethernet, Malformed> {
    let (header, rest) = frame.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    let untagged = Ethernet {
        destination: Mac([d0, d1, d2, d3, d4, d5]),
        source: Mac([s0, s1, s2, s3, s4, s5]),
        ether_type: u16::from_be_bytes([t0, t1]),
        vlan: None,
        payload_at: HEADER_LEN,
    };
    if untagged.ether_type != ETHER_TYPE_VLAN {
        return Ok(untagged);
    }
    let [c0, c1, t0, t1] = *rest.first_chunk::<VLAN_TAG_LEN>().ok_or(Malformed::Truncated)?;
    Ok(Ethernet {
        ether_type: u16::from_be_bytes([t0, t1]),
        vlan: Some(u16::from_be_bytes([c0, c1]) & VLAN_ID_MASK),
        payload_at: HEADER_LEN + VLAN_TAG_LEN,
        ..untagged
    })
}

/// What the payload of `frame` is, and where it starts: what most of those ask who [`parse`] it.
#[inline(always)]
#[must_use]
pub fn payload(frame: &[u8]) -> Option<(u16, usize)> {
    let &[.., t0, t1] = frame.first_chunk::<HEADER_LEN>()?;
    match u16::from_be_bytes([t0, t1]) {
        ETHER_TYPE_VLAN => tagged_payload(frame),
        ether_type => Some((ether_type, HEADER_LEN)),
    }
}

/// [`payload`] behind a tag.
#[inline(never)]
fn tagged_payload(frame: &[u8]) -> Option<(u16, usize)> {
    let link = parse(frame).ok()?;
    Some((link.ether_type, link.payload_at))
}

/// Octets of a header with or without a tag.
#[inline]
#[must_use]
pub const fn header_len(vlan: Option<u16>) -> usize {
    match vlan {
        None => HEADER_LEN,
        Some(_) => HEADER_LEN + VLAN_TAG_LEN,
    }
}

/// Writes a header that fills `out`. Of `vlan` the low 12 bits count.
///
/// # Panics
/// When `out` is not exactly [`header_len`]`(vlan)` octets long.
#[inline(always)]
pub fn emit(out: &mut [u8], destination: Mac, source: Mac, vlan: Option<u16>, ether_type: u16) {
    assert_eq!(out.len(), header_len(vlan), "room for exactly the Ethernet header");
    let (addresses, types) = out.split_at_mut(12);
    addresses[..6].copy_from_slice(&destination.0);
    addresses[6..].copy_from_slice(&source.0);
    if let Some(id) = vlan {
        types[..2].copy_from_slice(&ETHER_TYPE_VLAN.to_be_bytes());
        types[2..4].copy_from_slice(&(id & VLAN_ID_MASK).to_be_bytes());
        types[4..].copy_from_slice(&ether_type.to_be_bytes());
    } else {
        types.copy_from_slice(&ether_type.to_be_bytes());
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Mac, InvalidMac> {
        let mut pairs = text.split(':');
        let mut octets = [0; 6];
        for octet in &mut octets {
            *octet = pairs.next().and_then(hexadecimal_pair).ok_or(InvalidMac)?;
        }
        if pairs.next().is_some() {
            return Err(InvalidMac);
        }
        Ok(Mac(octets))
    }
}

fn hexadecimal_pair(text: &str) -> Option<u8> {
    // Digits are checked first, because `from_str_radix` accepts a sign.
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    const UNTAGGED: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    const TAGGED: [u8; 18] =
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0x00, 0xf1, 0x23, 0x86, 0xdd];
    const DESTINATION: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// Every field of an untagged and a tagged header is read; priority bits are masked.
    #[test]
    fn deconstruct() {
        let untagged = Ethernet {
            destination: DESTINATION,
            source: SOURCE,
            ether_type: ETHER_TYPE_IPV4,
            vlan: None,
            payload_at: 14,
        };
        assert_eq!(parse(&UNTAGGED), Ok(untagged));
        assert_eq!(payload(&UNTAGGED), Some((ETHER_TYPE_IPV4, 14)));
        assert_eq!(payload(&TAGGED), Some((ETHER_TYPE_IPV6, 18)));
        assert_eq!((payload(&UNTAGGED[..13]), payload(&TAGGED[..17])), (None, None));
        let tagged =
            Ethernet { ether_type: ETHER_TYPE_IPV6, vlan: Some(0x123), payload_at: 18, ..untagged };
        assert_eq!(parse(&TAGGED), Ok(tagged));
    }

    /// A header is written octet for octet; priority and surplus bits of the identifier are 0.
    #[test]
    fn construct() {
        let mut out = [0xff; 14];
        emit(&mut out, DESTINATION, SOURCE, None, ETHER_TYPE_IPV4);
        assert_eq!(out, UNTAGGED);
        let mut out = [0xff; 18];
        emit(&mut out, DESTINATION, SOURCE, Some(0xf123), ETHER_TYPE_IPV6);
        let mut expected = TAGGED;
        expected[14] = 0x01;
        assert_eq!(out, expected);
    }

    /// Every shorter frame is refused, also inside the tag.
    #[test]
    fn check_len() {
        for len in 0..14 {
            assert_eq!(parse(&UNTAGGED[..len]), Err(Malformed::Truncated), "{len}");
        }
        for len in 0..18 {
            assert_eq!(parse(&TAGGED[..len]), Err(Malformed::Truncated), "{len}");
        }
        assert_eq!((header_len(None), header_len(Some(1))), (14, 18));
    }

    /// One tag is looked through: a second stays as the type, and so does a service tag.
    #[test]
    fn parse_looks_through_one_tag() {
        let mut twice = TAGGED;
        twice[16..].copy_from_slice(&[0x81, 0x00]);
        let link = parse(&twice).unwrap();
        assert_eq!((link.ether_type, link.payload_at), (ETHER_TYPE_VLAN, 18));
        let mut service = TAGGED;
        service[12..14].copy_from_slice(&[0x88, 0xa8]);
        let link = parse(&service).unwrap();
        assert_eq!((link.ether_type, link.vlan), (ETHER_TYPE_SERVICE_VLAN, None));
        assert_eq!(link.payload_at, 14);
    }

    /// The priority tag (identifier 0) is a tag.
    #[test]
    fn parse_keeps_identifier_zero() {
        let mut priority = TAGGED;
        priority[14..16].copy_from_slice(&[0xe0, 0x00]);
        assert_eq!(parse(&priority).unwrap().vlan, Some(0));
    }

    /// Room of another size than the header is our own error.
    #[test]
    #[should_panic(expected = "room for exactly the Ethernet header")]
    fn emit_needs_exact_room() {
        emit(&mut [0; 18], DESTINATION, SOURCE, None, ETHER_TYPE_IPV4);
    }

    /// Text that is no MAC address is refused with what was expected.
    #[test]
    fn mac_refuses_other_text() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:01:",
            "2:0:0:0:0:1",
            "02-00-00-00-00-01",
            "+2:00:00:00:00:01",
            "0g:00:00:00:00:01",
            " 02:00:00:00:00:01",
            "02:00:00:00:00:é",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac), "{text:?}");
        }
        assert_eq!("0A:bC:00:00:00:ff".parse(), Ok(Mac([0x0a, 0xbc, 0, 0, 0, 0xff])));
        assert_eq!(DESTINATION.to_string(), "02:00:00:00:00:01");
    }

    proptest! {
        /// No bytes make the parser panic, and the payload begins inside the frame.
        #[test]
        fn parse_never_panics(mut frame: [u8; 24], len in 0..=24_usize, tagged: bool) {
            if tagged {
                frame[12..14].copy_from_slice(&ETHER_TYPE_VLAN.to_be_bytes());
            }
            if let Ok(link) = parse(&frame[..len]) {
                prop_assert!(link.payload_at <= len);
            }
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(
            destination: [u8; 6],
            source: [u8; 6],
            vlan in proptest::option::of(0..4096_u16),
            ether_type: u16,
        ) {
            prop_assume!(vlan.is_some() || ether_type != ETHER_TYPE_VLAN);
            let (destination, source) = (Mac(destination), Mac(source));
            let payload_at = header_len(vlan);
            let mut out = vec![0xa5; payload_at];
            emit(&mut out, destination, source, vlan, ether_type);
            let expected = Ethernet { destination, source, ether_type, vlan, payload_at };
            prop_assert_eq!(parse(&out), Ok(expected));
        }

        /// Every address is read back from what it is written as.
        #[test]
        fn mac_text_round_trip(octets: [u8; 6]) {
            prop_assert_eq!(Mac(octets).to_string().parse(), Ok(Mac(octets)));
        }
    }
}
