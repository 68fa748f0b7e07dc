//! The IPv4 header (RFC 791), its checksum, and the changes forwarding makes to it.
//!
//! Options are skipped, not read. Octets behind the total length are link padding and no part of
//! the packet.

use core::net::Ipv4Addr;

use crate::Malformed;
use crate::checksum;

/// Octets of a header without options; what [`emit`] writes.
pub const HEADER_LEN: usize = 20;

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const CHECKSUM_AT: usize = 10;

/// Offset of the protocol octet.
pub const PROTOCOL_AT: usize = 9;

/// An IPv4 header whose lengths and checksum hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Octets of the header with its options: 20 to 60.
    pub header_len: usize,
    /// Octets of the packet: at least `header_len`, at most the octets that were parsed.
    pub total_len: usize,
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// MF.
    pub more_fragments: bool,
    /// Fragment offset in units of 8 octets.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Ipv4 {
    /// True for a fragment, the first included.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }
}

/// Reads and checks the header at the start of `packet`.
///
/// # Errors
/// [`Malformed`] when the version is not 4, the header length is below 20 octets or beyond the
/// packet, the total length is shorter than the header or longer than `packet`, or the header
/// checksum is wrong (RFC 1812 section 5.2.2).
#[inline(always)]
pub fn parse(packet: &[u8]) -> Result<Ipv4, Malformed> {
    let header: &[u8; HEADER_LEN] = packet.first_chunk().ok_or(Malformed::Truncated)?;
    let (header_len, total_len) = lengths(header)?;
    if header_len < HEADER_LEN {
        return Err(Malformed::HeaderLength);
    }
    if total_len < header_len || total_len > packet.len() {
        return Err(Malformed::TotalLength);
    }
    // Headers with options are rare and take the loop.
    let is_right = match header_len {
        HEADER_LEN => checksum::holds(header),
        _ => checksum::sum(&packet[..header_len]) == 0xffff,
    };
    if !is_right {
        return Err(Malformed::Checksum);
    }
    Ok(fields(header, header_len, total_len))
}

/// What a [bare](parse_bare) header says of its packet to whoever looks for its flow: its length,
/// and its addresses, the source in the upper half. As numbers, for a header that is taken apart is
/// put together again octet by octet.
#[inline(always)]
#[must_use]
pub fn look_bare(packet: &[u8]) -> Option<(u16, u64)> {
    let header: &[u8; HEADER_LEN] = packet.first_chunk()?;
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    let is_there = (HEADER_LEN..=packet.len()).contains(&usize::from(total_len));
    if header[0] != 0x45 || !is_there || !checksum::holds(header) {
        return None;
    }
    let addresses = header.last_chunk().copied().map_or(0, u64::from_be_bytes);
    Some((total_len, addresses))
}

/// [`parse`] for a header without options, in less time. None says nothing: ask [`parse`], which
/// finds the same and all else.
#[inline(always)]
#[must_use]
pub fn parse_bare(packet: &[u8]) -> Option<Ipv4> {
    let header: &[u8; HEADER_LEN] = packet.first_chunk()?;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_there = (HEADER_LEN..=packet.len()).contains(&total_len);
    let is_right = header[0] == 0x45 && is_there && checksum::holds(header);
    is_right.then(|| fields(header, HEADER_LEN, total_len))
}

/// Reads a header that an ICMP error quotes: its options are there, what follows may be cut short,
/// and `total_len` says what is there. Whoever quotes it may have changed what its checksum covers.
#[must_use]
pub(crate) fn parse_quoted(bytes: &[u8]) -> Option<Ipv4> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let (header_len, total_len) = lengths(header).ok()?;
    let is_there = header_len >= HEADER_LEN && header_len <= bytes.len();
    is_there.then(|| fields(header, header_len, total_len.max(header_len).min(bytes.len())))
}

/// The two length fields, unchecked, of a header of version 4.
#[inline]
fn lengths(header: &[u8; HEADER_LEN]) -> Result<(usize, usize), Malformed> {
    let [version, _, l0, l1, ..] = *header;
    if version >> 4 != 4 {
        return Err(Malformed::Version);
    }
    Ok((usize::from(version & 0x0f) * 4, usize::from(u16::from_be_bytes([l0, l1]))))
}

#[inline]
fn fields(header: &[u8; HEADER_LEN], header_len: usize, total_len: usize) -> Ipv4 {
    let [_, tos, _, _, i0, i1, f0, f1, ttl, protocol, _, _, addresses @ ..] = *header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let fragment = u16::from_be_bytes([f0, f1]);
    Ipv4 {
        header_len,
        total_len,
        tos,
        id: u16::from_be_bytes([i0, i1]),
        dont_fragment: fragment & DONT_FRAGMENT != 0,
        more_fragments: fragment & MORE_FRAGMENTS != 0,
        fragment_offset: fragment & FRAGMENT_OFFSET,
        ttl,
        protocol,
        source: Ipv4Addr::new(s0, s1, s2, s3),
        destination: Ipv4Addr::new(d0, d1, d2, d3),
    }
}

/// A header without options, of a packet that is no fragment, to [`emit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of the packet, the header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

/// Writes `header` with its checksum into the first 20 octets of `out`.
///
/// # Panics
/// When `out` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(out: &mut [u8], header: &Header) {
    let out: &mut [u8; HEADER_LEN] = out.first_chunk_mut().expect("room for the IPv4 header");
    let fragment = u16::from(header.dont_fragment) * DONT_FRAGMENT;
    out[0] = 0x45;
    out[1] = header.tos;
    out[2..4].copy_from_slice(&header.total_len.to_be_bytes());
    out[4..6].copy_from_slice(&header.id.to_be_bytes());
    out[6..8].copy_from_slice(&fragment.to_be_bytes());
    out[8] = header.ttl;
    out[9] = header.protocol;
    out[10..12].fill(0);
    out[12..16].copy_from_slice(&header.source.octets());
    out[16..].copy_from_slice(&header.destination.octets());
    let sum = checksum::internet(out);
    write_checksum(out, sum);
}

/// Decrements the time to live of a parsed packet and updates its checksum (RFC 1624 equation 3, in
/// which the old word's complement and the new one make 0xfeff, whatever they are).
///
/// # Panics
/// When the time to live is 0 or `packet` is shorter than a header: parse and look first.
#[inline(always)]
pub fn decrement_ttl(packet: &mut [u8]) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv4 header");
    // Time to live, protocol and checksum are one word.
    let word: &mut [u8; 4] = header[8..].first_chunk_mut().expect("inside the header");
    let old = u32::from_be_bytes(*word);
    assert!(old >= 1 << 24, "a time to live above 0");
    let sum = (!old & 0xffff) + (!(1 << 8) & 0xffff);
    let sum = !(sum + (sum >> 16)) & 0xffff;
    *word = (((old & 0xffff_0000) - (1 << 24)) | sum).to_be_bytes();
}

/// Sets DSCP and ECN of a parsed packet and updates its checksum (RFC 1624).
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_tos(packet: &mut [u8], tos: u8) {
    change(packet, 0, |[version, _]| [version, tos]);
}

/// Sets the identification of a parsed packet and updates its checksum (RFC 1624).
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_id(packet: &mut [u8], id: u16) {
    change(packet, 4, |_| id.to_be_bytes());
}

/// Sets the total length of a parsed packet, in octets, and updates its checksum (RFC 1624).
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_total_len(packet: &mut [u8], total_len: u16) {
    change(packet, 2, |_| total_len.to_be_bytes());
}

/// Sets the protocol of a parsed packet and updates its checksum (RFC 1624).
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_protocol(packet: &mut [u8], protocol: u8) {
    change(packet, 8, |[ttl, _]| [ttl, protocol]);
}

/// Sets DF of a parsed packet and updates its checksum (RFC 1624).
///
/// # Panics
/// When `packet` is shorter than a header.
#[inline]
pub fn set_dont_fragment(packet: &mut [u8], dont_fragment: bool) {
    let flag = u16::from(dont_fragment) * DONT_FRAGMENT;
    change(packet, 6, |octets| (u16::from_be_bytes(octets) & !DONT_FRAGMENT | flag).to_be_bytes());
}

/// Makes a parsed fragment a whole packet of `total_len` octets and updates its checksum.
///
/// # Panics
/// When `packet` is shorter than a header.
pub(crate) fn set_whole(packet: &mut [u8], total_len: u16) {
    set_total_len(packet, total_len);
    change(packet, 6, |octets| (u16::from_be_bytes(octets) & DONT_FRAGMENT).to_be_bytes());
}

/// Makes a packet with `options`, a multiple of 4 octets, of the header at the start of `packet`,
/// `total_len` octets long, and a fragment at `offset` octets; its checksum is computed anew.
///
/// # Panics
/// When `packet` is shorter than header and options, or `options` longer than 40 octets.
pub(crate) fn set_fragment(
    packet: &mut [u8],
    options: &[u8],
    total_len: u16,
    offset: u16,
    more: bool,
) {
    let header_len = HEADER_LEN + options.len();
    let header = &mut packet[..header_len];
    header[HEADER_LEN..].copy_from_slice(options);
    let words = u8::try_from(header_len / 4).ok().filter(|words| *words <= 0x0f);
    header[0] = 0x40 | words.expect("at most 60 octets of header");
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    let more = u16::from(more) * MORE_FRAGMENTS;
    let fragment = (offset / 8) & FRAGMENT_OFFSET | more;
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0);
    let sum = checksum::internet(header);
    header[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Changes the 16-bit word at `at` and updates the checksum for it.
#[inline]
fn change(packet: &mut [u8], at: usize, to: impl FnOnce([u8; 2]) -> [u8; 2]) {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut().expect("an IPv4 header");
    let old = [header[at], header[at + 1]];
    let new = to(old);
    [header[at], header[at + 1]] = new;
    let sum = u16::from_be_bytes([header[CHECKSUM_AT], header[CHECKSUM_AT + 1]]);
    let sum = checksum::update(sum, u16::from_be_bytes(old), u16::from_be_bytes(new));
    write_checksum(header, sum);
}

#[inline]
fn write_checksum(header: &mut [u8; HEADER_LEN], sum: u16) {
    [header[CHECKSUM_AT], header[CHECKSUM_AT + 1]] = sum.to_be_bytes();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A UDP packet's header as found in the literature, with its checksum b861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    fn golden() -> [u8; 0x73] {
        let mut packet = [0; 0x73];
        packet[..20].copy_from_slice(&HEADER);
        packet
    }

    /// Changes octets of a header and makes its checksum right again.
    fn with(at: usize, octets: &[u8]) -> [u8; 0x73] {
        let mut packet = golden();
        packet[at..at + octets.len()].copy_from_slice(octets);
        set_right_checksum(&mut packet);
        packet
    }

    fn set_right_checksum(packet: &mut [u8]) {
        let len = usize::from(packet[0] & 0x0f) * 4;
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..len.max(20)]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Every field is read.
    #[test]
    fn deconstruct() {
        let expected = Ipv4 {
            header_len: 20,
            total_len: 0x73,
            tos: 0,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: 17,
            source: Ipv4Addr::new(192, 168, 0, 1),
            destination: Ipv4Addr::new(192, 168, 0, 199),
        };
        assert_eq!(parse(&golden()), Ok(expected));
        assert!(!expected.is_fragment());
        let other = parse(&with(1, &[0xb9, 0x00, 0x70, 0x12, 0x34, 0x3f, 0xff])).unwrap();
        assert_eq!((other.tos, other.total_len, other.id), (0xb9, 0x70, 0x1234));
        assert!(!other.dont_fragment && other.more_fragments && other.is_fragment());
        assert_eq!(other.fragment_offset, 0x1fff);
    }

    /// A header is written octet for octet, with its checksum, and nothing behind it.
    #[test]
    fn construct() {
        let mut out = [0xff; 24];
        let header = Header {
            tos: 0,
            total_len: 0x73,
            id: 0,
            dont_fragment: true,
            ttl: 64,
            protocol: 17,
            source: Ipv4Addr::new(192, 168, 0, 1),
            destination: Ipv4Addr::new(192, 168, 0, 199),
        };
        emit(&mut out, &header);
        assert_eq!(out[..20], HEADER);
        assert_eq!(out[20..], [0xff; 4]);
    }

    /// Every prefix of a packet is refused; octets behind the total length are not part of it.
    #[test]
    fn check_len() {
        let packet = golden();
        for len in 0..20 {
            assert_eq!(parse(&packet[..len]), Err(Malformed::Truncated), "{len}");
        }
        for len in 20..packet.len() {
            assert_eq!(parse(&packet[..len]), Err(Malformed::TotalLength), "{len}");
        }
        let mut padded = [0; 0x80];
        padded[..0x73].copy_from_slice(&packet);
        assert_eq!(parse(&padded).unwrap().total_len, 0x73);
    }

    /// Each field that can be wrong is refused under its name.
    #[test]
    fn parse_refuses_wrong_fields() {
        assert_eq!(parse(&with(0, &[0x65])), Err(Malformed::Version));
        assert_eq!(parse(&with(0, &[0x44])), Err(Malformed::HeaderLength));
        assert_eq!(parse(&with(0, &[0x40])), Err(Malformed::HeaderLength));
        assert_eq!(parse(&with(2, &[0, 19])), Err(Malformed::TotalLength));
        assert_eq!(parse(&with(2, &[0, 0x74])), Err(Malformed::TotalLength));
        assert_eq!(parse(&with(2, &[0xff, 0xff])), Err(Malformed::TotalLength));
        // 60 octets of header in a packet of 59.
        let mut long = with(2, &[0, 59]);
        long[0] = 0x4f;
        set_right_checksum(&mut long);
        assert_eq!(parse(&long), Err(Malformed::TotalLength));
    }

    /// Options are skipped and covered by the checksum.
    #[test]
    fn parse_skips_options() {
        let mut packet = golden();
        packet[0] = 0x47;
        packet[20..28].copy_from_slice(&[0x94, 4, 0, 0, 1, 1, 1, 0]);
        set_right_checksum(&mut packet);
        assert_eq!(parse(&packet).unwrap().header_len, 28);
        packet[26] ^= 1;
        assert_eq!(parse(&packet), Err(Malformed::Checksum));
    }

    /// A flip of any bit of the header is refused.
    #[test]
    fn parse_refuses_every_flipped_bit() {
        for bit in 0..160 {
            let mut packet = golden();
            packet[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(parse(&packet).is_err(), "{bit}");
        }
    }

    /// A time to live of 0 does not wrap round.
    #[test]
    #[should_panic(expected = "a time to live above 0")]
    fn decrement_refuses_zero() {
        decrement_ttl(&mut with(8, &[0]));
    }

    prop_compose! {
        fn headers()(
            (tos, total_len, id, dont_fragment) in any::<(u8, u16, u16, bool)>(),
            (ttl, protocol) in any::<(u8, u8)>(),
            (source, destination) in any::<([u8; 4], [u8; 4])>(),
        ) -> Header {
            let (source, destination) = (source.into(), destination.into());
            let total_len = total_len % 100 + 20;
            Header { tos, total_len, id, dont_fragment, ttl, protocol, source, destination }
        }
    }

    fn emitted(header: &Header) -> [u8; 120] {
        let mut packet = [0; 120];
        emit(&mut packet, header);
        packet
    }

    /// E20: a checksum after a hop is that of the header anew, for every checksum there is.
    #[test]
    fn every_checksum_after_a_hop() {
        for id in 0..=u16::MAX {
            let header = Header {
                tos: 0,
                total_len: 20,
                id,
                dont_fragment: false,
                ttl: 64,
                protocol: 17,
                source: Ipv4Addr::new(10, 0, 0, 1),
                destination: Ipv4Addr::new(10, 0, 0, 2),
            };
            let mut packet = emitted(&header);
            decrement_ttl(&mut packet);
            assert_eq!(packet, emitted(&Header { ttl: 63, ..header }), "{id}");
        }
    }

    /// What [`look_bare`] says of a header.
    fn looked_at(header: &Ipv4) -> (u16, u64) {
        let [source, destination] = [header.source, header.destination].map(Ipv4Addr::to_bits);
        let len = u16::try_from(header.total_len).unwrap();
        (len, u64::from(source) << 32 | u64::from(destination))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// No bytes make the parser panic, and its lengths lie inside the packet.
        #[test]
        fn parse_never_panics(
            mut packet in proptest::collection::vec(any::<u8>(), 0..100),
            likely: bool,
        ) {
            if likely && packet.len() >= 60 {
                packet[0] = packet[0] & 0x0f | 0x40;
                packet[2] = 0;
                set_right_checksum(&mut packet);
            }
            let bare = parse_bare(&packet);
            prop_assert!(bare.is_none() || bare == parse(&packet).ok());
            prop_assert_eq!(look_bare(&packet), bare.as_ref().map(looked_at));
            if let Ok(header) = parse(&packet) {
                prop_assert!((20..=60).contains(&header.header_len));
                prop_assert!(header.header_len <= header.total_len);
                prop_assert!(header.total_len <= packet.len());
            }
        }

        /// What is emitted is parsed back.
        #[test]
        fn emit_then_parse(header in headers()) {
            let parsed = parse(&emitted(&header)).unwrap();
            prop_assert_eq!(parse_bare(&emitted(&header)), Some(parsed));
            prop_assert_eq!(look_bare(&emitted(&header)), Some(looked_at(&parsed)));
            prop_assert_eq!(parsed.tos, header.tos);
            prop_assert_eq!(parsed.total_len, usize::from(header.total_len));
            prop_assert_eq!(parsed.id, header.id);
            prop_assert_eq!(parsed.dont_fragment, header.dont_fragment);
            prop_assert_eq!((parsed.ttl, parsed.protocol), (header.ttl, header.protocol));
            prop_assert_eq!(parsed.source, header.source);
            prop_assert_eq!(parsed.destination, header.destination);
            prop_assert!(!parsed.is_fragment() && parsed.header_len == 20);
        }

        /// Changes in place give the octets of a header emitted with the new values: the
        /// incremental checksum is the one computed anew. C08, P19.
        #[test]
        fn changes_equal_a_new_header(header in headers(), tos: u8) {
            let header = Header { ttl: header.ttl.max(1), ..header };
            let mut packet = emitted(&header);
            decrement_ttl(&mut packet);
            let header = Header { ttl: header.ttl - 1, ..header };
            prop_assert_eq!(packet, emitted(&header));
            set_tos(&mut packet, tos);
            prop_assert_eq!(packet, emitted(&Header { tos, ..header }));
        }

        /// E20: so do those that templates and transport mode make.
        #[test]
        fn setters_equal_a_new_header(header in headers(), other in headers()) {
            let mut packet = emitted(&header);
            set_id(&mut packet, other.id);
            set_total_len(&mut packet, other.total_len);
            set_protocol(&mut packet, other.protocol);
            set_dont_fragment(&mut packet, other.dont_fragment);
            let Header { id, total_len, protocol, dont_fragment, .. } = other;
            let expected = Header { id, total_len, protocol, dont_fragment, ..header };
            prop_assert_eq!(packet, emitted(&expected));
        }
    }
}
