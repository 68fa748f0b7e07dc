//! The outer headers of a tunnel: IPv4 or IPv6, and UDP when the SA is encapsulated.
//!
//! They are made once, as an image. For each packet the image is copied in front of the ESP or AH
//! header, and the fields that differ are filled in (RFC 4301 section 5.1.2):
//!
//! | field | value | otherwise |
//! |---|---|---|
//! | DSCP | of the inner packet | [`Dscp::Set`], [`Dscp::Map`] |
//! | ECN | of the inner packet (RFC 6040 normal mode) | [`EcnMode::Compatibility`]: zero |
//! | total or payload length | of this packet | |
//! | IPv4 identification | the caller's, unique over all SAs of a worker | |
//! | IPv4 don't fragment | of the inner packet; set for IPv6 | [`Df::Set`], [`Df::Clear`] |
//! | TTL, hop limit | 64 | [`Ttl::Fixed`], [`Ttl::Copy`] |
//! | IPv6 flow label | zero | [`FlowLabel::Set`] |
//! | UDP checksum | zero over IPv4 (RFC 3948 section 2.1), computed over IPv6 (RFC 8200 8.1) | |
//!
//! Options and extension headers are never copied.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_aead::Protocol;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::udp;

use crate::ecn;

/// Longest outer header: IPv6 and UDP.
pub const LEN_MAX: usize = ipv6::HEADER_LEN + udp::HEADER_LEN;

/// TTL and hop limit of outer headers when nothing else is said.
pub const TTL_DEFAULT: u8 = 64;

/// Largest flow label (RFC 6437 section 2).
pub const FLOW_LABEL_MAX: u32 = 0x000f_ffff;

const PROTOCOL_AH: u8 = 51;
const DONT_FRAGMENT: u16 = 0x4000;

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

/// The DSCP of outer headers (RFC 4301 section 5.1.2.1 note 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// That of the inner packet.
    #[default]
    Copy,
    /// Always this one, 0 to 63; higher bits are ignored.
    Set(u8),
    /// The entry that the inner DSCP selects; higher bits are ignored.
    Map(Box<[u8; 64]>),
}

/// The ECN field of outer headers (RFC 6040 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EcnMode {
    /// Normal mode: that of the inner packet.
    #[default]
    Normal,
    /// Compatibility mode, for a peer that does not merge the fields: not ECN-capable.
    Compatibility,
}

/// Don't fragment of outer IPv4 headers (RFC 4301 section 8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Df {
    /// That of the inner packet; set when it is IPv6.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Never set.
    Clear,
}

/// TTL or hop limit of outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// Always this one.
    Fixed(u8),
    /// That of the inner packet.
    Copy,
}

/// Flow label of outer IPv6 headers. That of the inner packet is never copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowLabel {
    /// None.
    #[default]
    Zero,
    /// Always this one, at most [`FLOW_LABEL_MAX`]; higher bits are ignored.
    Set(u32),
}

impl Default for Ttl {
    fn default() -> Ttl {
        Ttl::Fixed(TTL_DEFAULT)
    }
}

/// Where the fields of outer headers come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOptions {
    /// DSCP.
    pub dscp: Dscp,
    /// ECN.
    pub ecn: EcnMode,
    /// Don't fragment.
    pub df: Df,
    /// TTL or hop limit.
    pub ttl: Ttl,
    /// IPv6 flow label.
    pub flow_label: FlowLabel,
}

/// What a packet contributes to its outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// TOS or traffic class octet of the inner packet.
    pub tos: u8,
    /// Don't fragment of the inner packet; true for IPv6.
    pub dont_fragment: bool,
    /// TTL or hop limit of the inner packet.
    pub ttl: u8,
}

/// The outer headers of one SA.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Template {
    /// The headers of a packet of length 0 that inherits nothing: zero wherever a packet adds.
    image: [u8; LEN_MAX],
    patch: Patch,
    len: u8,
    /// Some bits of the TOS octet are looked up.
    maps_dscp: bool,
    is_v4: bool,
    /// What the image is made from.
    parts: Box<Parts>,
}

#[derive(Clone, Debug)]
struct Parts {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    encapsulation: Option<Encapsulation>,
    options: HeaderOptions,
}

/// What a packet adds to the image of its headers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Patch {
    /// Sum of the image's IPv4 header, or of the pseudo header of an empty datagram over IPv6.
    sum: u16,
    /// `DONT_FRAGMENT` when the inner flag is copied, else 0.
    df_mask: u16,
    /// Which bits of the inner TOS octet are copied.
    tos_mask: u8,
    /// All ones when the inner TTL is copied, else 0.
    ttl_mask: u8,
}

impl Patch {
    /// Nothing.
    pub(crate) const NONE: Patch = Patch { sum: 0, df_mask: 0, tos_mask: 0, ttl_mask: 0 };

    /// The bits of the TOS octet that are copied.
    #[inline(always)]
    pub(crate) fn tos(&self, inner: u8) -> u8 {
        inner & self.tos_mask
    }

    /// The first 16 octets of the IPv4 header of a packet of `total` octets, with this TOS.
    #[inline(always)]
    pub(crate) fn words(
        &self,
        image: &[u8; ipv4::HEADER_LEN],
        (tos, total): (u8, u16),
        inherited: Inherited,
        id: u16,
    ) -> [u64; 2] {
        let ttl = inherited.ttl & self.ttl_mask;
        let fragment = if inherited.dont_fragment { self.df_mask } else { 0 };
        // All of these are zero in the image where they are not zero here, so sums add up.
        let fields = [u16::from(tos), total, id, fragment, u16::from(ttl) << 8];
        let sum = fields.into_iter().fold(u32::from(self.sum), |sum, field| sum + u32::from(field));
        let [front, middle] = [first_word(image), first_word(&image[8..])];
        let front = front | word(tos, 48) | word(total, 32) | word(id, 16) | word(fragment, 0);
        [front, middle | word(ttl, 56) | word(!fold(sum), 32)]
    }
}

impl Template {
    /// Headers around ESP with [default](HeaderOptions::default) options.
    ///
    /// # Errors
    /// When the endpoints are not of one family.
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        encapsulation: Option<Encapsulation>,
    ) -> Result<Template, FamilyMismatch> {
        let options = HeaderOptions::default();
        Template::with_options(source, destination, Protocol::Esp, encapsulation, options)
    }

    /// Headers around `protocol`.
    ///
    /// # Errors
    /// When the endpoints are not of one family.
    ///
    /// # Panics
    /// When AH is to be encapsulated in UDP, which no RFC does: our own error.
    pub fn with_options(
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        encapsulation: Option<Encapsulation>,
        options: HeaderOptions,
    ) -> Result<Template, FamilyMismatch> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FamilyMismatch(source, destination));
        }
        assert!(protocol == Protocol::Esp || encapsulation.is_none(), "AH is never in UDP");
        let copied = |copies: bool, bits: u8| if copies { bits } else { 0 };
        let mut template = Template {
            image: [0; LEN_MAX],
            patch: Patch {
                sum: 0,
                df_mask: if options.df == Df::Copy { DONT_FRAGMENT } else { 0 },
                tos_mask: copied(options.ecn == EcnMode::Normal, ecn::MASK)
                    | copied(options.dscp == Dscp::Copy, !ecn::MASK),
                ttl_mask: copied(options.ttl == Ttl::Copy, u8::MAX),
            },
            len: 0,
            maps_dscp: matches!(options.dscp, Dscp::Map(_)),
            is_v4: source.is_ipv4(),
            parts: Box::new(Parts { source, destination, protocol, encapsulation, options }),
        };
        template.draw();
        Ok(template)
    }

    /// Draws the image.
    fn draw(&mut self) {
        let Parts { source, destination, protocol, encapsulation, options } = &*self.parts;
        let protocol = match (encapsulation, protocol) {
            (Some(_), _) => ip::PROTOCOL_UDP,
            (None, Protocol::Esp) => ip::PROTOCOL_ESP,
            (None, Protocol::Ah) => PROTOCOL_AH,
        };
        let image = &mut self.image;
        let ip_len = match (*source, *destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ipv4::emit(image, &header_v4(source, destination, protocol, options));
                image[10..12].fill(0);
                self.patch.sum = checksum::sum(&image[..ipv4::HEADER_LEN]);
                ipv4::HEADER_LEN
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ipv6::emit(image, &header_v6(source, destination, protocol, options));
                self.patch.sum =
                    checksum::pseudo_header_v6(source, destination, ip::PROTOCOL_UDP, 0);
                ipv6::HEADER_LEN
            }
            _ => unreachable!("the families were compared"),
        };
        let mut len = ip_len;
        if let Some(ports) = encapsulation {
            udp::emit(&mut image[len..], ports.source_port, ports.destination_port, 0, 0);
            len += udp::HEADER_LEN;
        }
        self.len = u8::try_from(len).expect("headers are short");
    }

    /// Sends to another address and port from now on: the peer's mapping in a NAT has changed. The
    /// port only matters to an SA with UDP encapsulation.
    ///
    /// # Errors
    /// When the address is of another family; nothing changes then.
    pub fn retarget(&mut self, destination: IpAddr, port: u16) -> Result<(), FamilyMismatch> {
        if self.is_v4 != destination.is_ipv4() {
            return Err(FamilyMismatch(self.parts.source, destination));
        }
        self.parts.destination = destination;
        if let Some(ports) = &mut self.parts.encapsulation {
            ports.destination_port = port;
        }
        self.draw();
        Ok(())
    }

    /// Octets of the outer headers.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Headers are never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The outer header is IPv4.
    #[inline]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// Ethernet type of the outer packet.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        if self.is_v4 { ethernet::ETHER_TYPE_IPV4 } else { ethernet::ETHER_TYPE_IPV6 }
    }

    /// Our tunnel endpoint.
    #[inline]
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.parts.source
    }

    /// The far tunnel endpoint.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.parts.destination
    }

    /// Ports, when the SA is encapsulated.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self) -> Option<Encapsulation> {
        self.parts.encapsulation
    }

    /// The headers depend on what lies behind them: a checksum over the finished packet.
    #[must_use]
    pub fn covers_payload(&self) -> bool {
        !self.is_v4 && self.parts.encapsulation.is_some()
    }

    /// Where the fields come from.
    #[must_use]
    pub fn options(&self) -> &HeaderOptions {
        &self.parts.options
    }

    /// Don't fragment of the outer header of a packet; true over IPv6, whose routers never do.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self, inherited: Inherited) -> bool {
        !self.is_v4
            || (inherited.dont_fragment && self.patch.df_mask != 0)
            || self.parts.options.df == Df::Set
    }

    /// Writes the headers into the first [`len`](Self::len) octets of `packet`, whose rest is the
    /// finished ESP or AH packet. `id` is the IPv4 identification.
    ///
    /// # Panics
    /// When `packet` is shorter than the headers or longer than 65535 octets: our own error.
    #[inline(always)]
    pub fn apply(&self, packet: &mut [u8], inherited: Inherited, id: u16) {
        if self.is_v4 {
            self.apply_v4(packet, inherited, id);
        } else {
            self.apply_v6(packet, inherited);
        }
    }

    #[inline(always)]
    fn apply_v4(&self, packet: &mut [u8], inherited: Inherited, id: u16) {
        let total = u16::try_from(packet.len()).expect("an IP packet");
        let (out, datagram) = packet.split_first_chunk_mut().expect("room for the IPv4 header");
        self.put_v4(out, total, inherited, id);
        if usize::from(self.len) > ipv4::HEADER_LEN {
            self.put_udp(datagram, ipv4::HEADER_LEN);
        }
    }

    /// Writes the IPv4 header of a packet of `total` octets.
    #[inline(always)]
    fn put_v4(&self, out: &mut [u8; ipv4::HEADER_LEN], total: u16, inherited: Inherited, id: u16) {
        let image: &[u8; ipv4::HEADER_LEN] = self.image.first_chunk().expect("48 octets");
        let tos = self.outer_tos(inherited.tos);
        let words = self.patch.words(image, (tos, total), inherited, id);
        out[..8].copy_from_slice(&words[0].to_be_bytes());
        out[8..16].copy_from_slice(&words[1].to_be_bytes());
        out[16..].copy_from_slice(&image[16..]);
    }

    /// The image of its header and what is to be added to it, if it is an IPv4 header and nothing
    /// else, of which a packet's fields are masked and not looked up.
    pub(crate) fn bare_v4(&self) -> Option<(&[u8; ipv4::HEADER_LEN], Patch)> {
        let is_bare = self.is_v4 && self.parts.encapsulation.is_none() && !self.maps_dscp;
        self.image.first_chunk().filter(|_| is_bare).map(|image| (image, self.patch))
    }

    #[inline]
    fn apply_v6(&self, packet: &mut [u8], inherited: Inherited) {
        let (out, datagram) = packet
            .split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()
            .expect("room for the IPv6 header");
        let image: &[u8; ipv6::HEADER_LEN] = self.image.first_chunk().expect("48 octets");
        let payload_len = u16::try_from(datagram.len()).expect("an IP packet");
        let tos = self.outer_tos(inherited.tos);
        let ttl = inherited.ttl & self.patch.ttl_mask;
        let front = first_word(image) | word(tos, 52) | word(payload_len, 16) | word(ttl, 0);
        out[..8].copy_from_slice(&front.to_be_bytes());
        out[8..].copy_from_slice(&image[8..]);
        if usize::from(self.len) > ipv6::HEADER_LEN {
            self.put_udp(datagram, ipv6::HEADER_LEN);
        }
    }

    /// The bits of the TOS octet that the image lacks.
    #[inline]
    fn outer_tos(&self, inner: u8) -> u8 {
        let copied = self.patch.tos(inner);
        if !self.maps_dscp {
            return copied;
        }
        match &self.parts.options.dscp {
            Dscp::Map(map) => map[usize::from(inner >> 2)] << 2 | copied,
            Dscp::Copy | Dscp::Set(_) => copied,
        }
    }

    /// Writes the UDP header of an encapsulated SA into the first 8 octets of `datagram`, whose
    /// rest is the finished ESP packet: all that transport mode needs of a template.
    ///
    /// # Panics
    /// When the SA is not encapsulated, or `datagram` is shorter than the header or longer than
    /// 65535 octets: our own error.
    #[inline]
    pub fn apply_udp(&self, datagram: &mut [u8]) {
        assert!(self.parts.encapsulation.is_some(), "an SA with UDP encapsulation");
        let at = if self.is_v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        self.put_udp(datagram, at);
    }

    #[inline]
    fn put_udp(&self, datagram: &mut [u8], at: usize) {
        let len = u16::try_from(datagram.len()).expect("part of an IP packet");
        datagram[..udp::HEADER_LEN].copy_from_slice(&self.image[at..at + udp::HEADER_LEN]);
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        if !self.is_v4 {
            let sum = udp_checksum(checksum::add(self.patch.sum, len), datagram);
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// An IPv4 header of length 0 that inherits nothing.
fn header_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &HeaderOptions,
) -> ipv4::Header {
    ipv4::Header {
        tos: fixed_tos(options),
        total_len: 0,
        id: 0,
        dont_fragment: options.df == Df::Set,
        ttl: fixed_ttl(options),
        protocol,
        source,
        destination,
    }
}

/// The same for IPv6.
fn header_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    options: &HeaderOptions,
) -> ipv6::Header {
    ipv6::Header {
        traffic_class: fixed_tos(options),
        flow_label: match options.flow_label {
            FlowLabel::Zero => 0,
            FlowLabel::Set(label) => label & FLOW_LABEL_MAX,
        },
        payload_len: 0,
        next_header: protocol,
        hop_limit: fixed_ttl(options),
        source,
        destination,
    }
}

fn fixed_tos(options: &HeaderOptions) -> u8 {
    if let Dscp::Set(dscp) = options.dscp { dscp << 2 } else { 0 }
}

fn fixed_ttl(options: &HeaderOptions) -> u8 {
    if let Ttl::Fixed(ttl) = options.ttl { ttl } else { 0 }
}

/// The first 8 octets as a number.
#[inline]
fn first_word(octets: &[u8]) -> u64 {
    u64::from_be_bytes(*octets.first_chunk().expect("8 octets of a header"))
}

/// A field at its place in such a number.
#[inline]
fn word(field: impl Into<u64>, shift: u32) -> u64 {
    field.into() << shift
}

/// A sum of 16-bit words as the Internet checksum has it: carries go round.
#[inline]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = sum + (sum >> 16);
    (sum & 0xffff) as u16
}

/// Checksum of a datagram whose checksum field is zero; a computed zero is sent as all ones.
#[inline]
fn udp_checksum(pseudo: u16, datagram: &[u8]) -> u16 {
    match !checksum::add(pseudo, checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: Encapsulation = Encapsulation { source_port: 4500, destination_port: 4501 };
    const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

    fn template([source, destination]: [&str; 2], udp: bool, options: HeaderOptions) -> Template {
        let parse = |text: &str| text.parse().unwrap();
        let ports = udp.then_some(PORTS);
        Template::with_options(parse(source), parse(destination), Protocol::Esp, ports, options)
            .unwrap()
    }

    fn plain(addresses: [&str; 2], udp: bool) -> Template {
        template(addresses, udp, HeaderOptions::default())
    }

    fn apply(template: &Template, tos: u8, dont_fragment: bool) -> Vec<u8> {
        let mut packet = vec![0xaa; template.len() + 40];
        template.apply(&mut packet, Inherited { tos, dont_fragment, ttl: 17 }, 0x1234);
        packet
    }

    /// TOS, DF and TTL of the outer header.
    fn outer_v4(options: HeaderOptions, tos: u8, dont_fragment: bool) -> (u8, bool, u8) {
        let ip = ipv4::parse(&apply(&template(V4, false, options), tos, dont_fragment)).unwrap();
        (ip.tos, ip.dont_fragment, ip.ttl)
    }

    /// E20, P18: protocol 50, total length, checksum, TOS and DF inherited, the caller's
    /// identification, no options.
    #[test]
    fn ipv4_raw() {
        let template = plain(V4, false);
        for dont_fragment in [true, false] {
            let packet = apply(&template, 0xb9, dont_fragment);
            let ip = ipv4::parse(&packet).unwrap();
            assert_eq!((ip.total_len, ip.protocol, ip.ttl, ip.tos), (60, 50, 64, 0xb9));
            assert_eq!((ip.id, ip.dont_fragment, ip.header_len), (0x1234, dont_fragment, 20));
            assert_eq!(ip.destination, Ipv4Addr::new(192, 0, 2, 2));
            assert_eq!(packet[20..], [0xaa; 40]);
        }
    }

    /// AH has protocol 51 over either family.
    #[test]
    fn carries_ah() {
        for addresses in [V4, V6] {
            let [source, destination] = addresses.map(|text| text.parse().unwrap());
            let options = HeaderOptions::default();
            let template =
                Template::with_options(source, destination, Protocol::Ah, None, options).unwrap();
            let packet = apply(&template, 0, false);
            assert_eq!(packet[if template.is_v4() { 9 } else { 6 }], 51);
        }
    }

    /// U01, U02: UDP over IPv4 has the ports of the SA and a zero checksum.
    #[test]
    fn ipv4_udp() {
        let packet = apply(&plain(V4, true), 0, false);
        assert_eq!(ipv4::parse(&packet).unwrap().protocol, 17);
        let udp = udp::parse(&packet[20..]).unwrap();
        assert_eq!((udp.source_port, udp.destination_port, udp.len), (4500, 4501, 48));
        assert_eq!(udp.checksum, 0);
    }

    /// P20: IPv6 has no flow label; UDP over IPv6 carries a right checksum.
    #[test]
    fn ipv6_udp() {
        let packet = apply(&plain(V6, true), 0xb8, true);
        let ip = ipv6::parse(&packet).unwrap();
        assert_eq!((ip.payload_len, ip.next_header, ip.hop_limit), (48, 17, 64));
        assert_eq!((ip.traffic_class, ip.flow_label), (0xb8, 0));
        let pseudo = checksum::pseudo_header_v6(ip.source, ip.destination, 17, 48);
        assert_eq!(checksum::add(pseudo, checksum::sum(&packet[40..])), 0xffff);
        assert_ne!(udp::parse(&packet[40..]).unwrap().checksum, 0);
    }

    /// P18: DSCP copied, set or mapped, for each of the 64, whatever ECN says.
    #[test]
    fn dscp_copy_set_map() {
        let map = Box::new(std::array::from_fn(|dscp| 63 - u8::try_from(dscp).unwrap()));
        let choices = [Dscp::Copy, Dscp::Set(46), Dscp::Map(map)];
        let templates = choices
            .map(|dscp| template(V4, false, HeaderOptions { dscp, ..HeaderOptions::default() }));
        for tos in 0..=255u8 {
            let outer = templates.each_ref().map(|template| apply(template, tos, false)[1]);
            let dscp = [tos >> 2, 46, 63 - (tos >> 2)];
            assert_eq!(outer, dscp.map(|dscp| dscp << 2 | tos & 3), "{tos:#x}");
        }
    }

    /// C01, C02: normal mode copies the four ECN fields, compatibility mode clears them, over both
    /// families, with DSCP as it is.
    #[test]
    fn ecn_normal_and_compatibility() {
        for addresses in [V4, V6] {
            for (ecn, mask) in [(EcnMode::Normal, 3), (EcnMode::Compatibility, 0)] {
                let options = HeaderOptions { ecn, ..HeaderOptions::default() };
                let template = template(addresses, false, options);
                for inner in 0..4 {
                    let packet = apply(&template, 0xb8 | inner, true);
                    let tos = ip::parse(&packet).unwrap().tos();
                    assert_eq!(tos, 0xb8 | inner & mask, "{ecn:?} {inner}");
                }
            }
        }
    }

    /// P18: DF copied, set or clear; what the template tells of it is what it writes.
    #[test]
    fn df_copy_set_clear() {
        let cases = [
            (Df::Copy, true, true),
            (Df::Copy, false, false),
            (Df::Set, true, true),
            (Df::Set, false, true),
            (Df::Clear, true, false),
            (Df::Clear, false, false),
        ];
        for (df, dont_fragment, outer) in cases {
            let options = HeaderOptions { df, ..HeaderOptions::default() };
            let inherited = Inherited { tos: 0, dont_fragment, ttl: 1 };
            let told = template(V4, false, options.clone()).dont_fragment(inherited);
            assert!(template(V6, false, options.clone()).dont_fragment(inherited));
            assert_eq!((outer_v4(options, 0, dont_fragment).1, told), (outer, outer), "{df:?}");
        }
    }

    /// P18, P20: TTL and hop limit are fixed unless they are to be copied; a flow label is the
    /// configured one, never the inner.
    #[test]
    fn ttl_and_flow_label() {
        for (ttl, outer) in [(Ttl::Fixed(255), 255), (Ttl::Fixed(1), 1), (Ttl::Copy, 17)] {
            for (flow_label, label) in [(FlowLabel::Zero, 0), (FlowLabel::Set(0xf_ffff), 0xf_ffff)]
            {
                let options = HeaderOptions { ttl, flow_label, ..HeaderOptions::default() };
                assert_eq!(outer_v4(options.clone(), 0, true).2, outer);
                let packet = apply(&template(V6, false, options), 0xff, true);
                let ip = ipv6::parse(&packet).unwrap();
                assert_eq!((ip.hop_limit, ip.flow_label), (outer, label));
                assert_eq!(ip.traffic_class, 0xff);
            }
        }
        assert_eq!(HeaderOptions::default().ttl, Ttl::Fixed(64));
    }

    /// U10: a new mapping of the peer changes address and port and nothing else; a family does not
    /// change.
    #[test]
    fn retarget() {
        for (addresses, new, other) in [(V4, "203.0.113.9", V6[0]), (V6, "2001:db8::9", V4[0])] {
            let options = HeaderOptions { dscp: Dscp::Set(10), ..HeaderOptions::default() };
            let mut moved = template(addresses, true, options.clone());
            let before = apply(&moved, 3, true);
            moved.retarget(other.parse().unwrap(), 1).unwrap_err();
            assert_eq!(apply(&moved, 3, true), before);
            moved.retarget(new.parse().unwrap(), 62_000).unwrap();
            assert_eq!(moved.destination(), new.parse::<IpAddr>().unwrap());
            assert_eq!(moved.encapsulation().unwrap().destination_port, 62_000);
            let mut made = template([addresses[0], new], true, options);
            made.retarget(new.parse().unwrap(), 62_000).unwrap();
            assert_eq!(apply(&moved, 3, true), apply(&made, 3, true));
            let packet = apply(&moved, 3, true);
            let udp = udp::parse(&packet[moved.len() - 8..]).unwrap();
            assert_eq!((udp.source_port, udp.destination_port), (4500, 62_000));
        }
    }

    /// Transport mode takes the UDP header alone, the same as a tunnel's.
    #[test]
    fn udp_header_alone() {
        for addresses in [V4, V6] {
            let template = plain(addresses, true);
            let whole = apply(&template, 0, true);
            let mut datagram = vec![0xaa; 48];
            template.apply_udp(&mut datagram);
            assert_eq!(datagram, whole[template.len() - 8..]);
        }
    }

    /// Endpoints of two families are refused.
    #[test]
    fn families_must_agree() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(Template::new(v4, v6, None).unwrap_err(), FamilyMismatch(v4, v6));
    }

    fn any_options() -> impl Strategy<Value = HeaderOptions> {
        let dscp = prop_oneof![
            Just(Dscp::Copy),
            any::<u8>().prop_map(Dscp::Set),
            any::<[[u8; 32]; 2]>().prop_map(|map| Dscp::Map(Box::new(std::array::from_fn(|at| {
                map[at / 32][at % 32]
            })))),
        ];
        let ecn = prop_oneof![Just(EcnMode::Normal), Just(EcnMode::Compatibility)];
        let df = prop_oneof![Just(Df::Copy), Just(Df::Set), Just(Df::Clear)];
        let ttl = prop_oneof![Just(Ttl::Copy), any::<u8>().prop_map(Ttl::Fixed)];
        let label = prop_oneof![Just(FlowLabel::Zero), any::<u32>().prop_map(FlowLabel::Set)];
        (dscp, ecn, df, ttl, label).prop_map(|(dscp, ecn, df, ttl, flow_label)| HeaderOptions {
            dscp,
            ecn,
            df,
            ttl,
            flow_label,
        })
    }

    /// The TOS octet that the options ask for, field by field.
    fn expected_tos(options: &HeaderOptions, tos: u8) -> u8 {
        let dscp = match &options.dscp {
            Dscp::Copy => tos >> 2,
            Dscp::Set(dscp) => dscp & 63,
            Dscp::Map(map) => map[usize::from(tos >> 2)] & 63,
        };
        dscp << 2 | if options.ecn == EcnMode::Normal { tos & 3 } else { 0 }
    }

    proptest! {
        /// E20, P18, P20: with any options, lengths and addresses the patched image is what
        /// writing the header anew makes, checksums included.
        #[test]
        fn image_equals_header_made_anew(
            options in any_options(),
            addresses in any::<[u32; 2]>(),
            addresses_v6 in any::<[u128; 2]>(),
            len in 0usize..3000,
            (tos, dont_fragment, ttl, id) in any::<(u8, bool, u8, u16)>(),
            udp: bool,
        ) {
            let inherited = Inherited { tos, dont_fragment, ttl };
            let tos = expected_tos(&options, tos);
            let ttl = if let Ttl::Fixed(ttl) = options.ttl { ttl } else { ttl };
            let df = match options.df {
                Df::Copy => dont_fragment,
                Df::Set => true,
                Df::Clear => false,
            };
            let flow_label =
                if let FlowLabel::Set(label) = options.flow_label { label & 0xf_ffff } else { 0 };
            let protocol = if udp { 17 } else { 50 };
            let ports = udp.then_some(PORTS);
            let made = |source, destination| {
                let options = options.clone();
                let template =
                    Template::with_options(source, destination, Protocol::Esp, ports, options)
                        .unwrap();
                let mut packet = vec![0x5a; template.len() + len];
                template.apply(&mut packet, inherited, id);
                packet
            };

            let [source, destination] = addresses.map(Ipv4Addr::from);
            let packet = made(source.into(), destination.into());
            let mut anew = [0; ipv4::HEADER_LEN];
            let total_len = u16::try_from(packet.len()).unwrap();
            ipv4::emit(&mut anew, &ipv4::Header {
                tos, total_len, id, dont_fragment: df, ttl, protocol, source, destination,
            });
            prop_assert_eq!(&packet[..20], &anew);

            let [source, destination] = addresses_v6.map(Ipv6Addr::from);
            let packet = made(source.into(), destination.into());
            let mut anew = [0; ipv6::HEADER_LEN];
            let payload_len = u16::try_from(packet.len() - 40).unwrap();
            ipv6::emit(&mut anew, &ipv6::Header {
                traffic_class: tos,
                flow_label,
                payload_len,
                next_header: protocol,
                hop_limit: ttl,
                source,
                destination,
            });
            prop_assert_eq!(&packet[..40], &anew);
            if udp {
                let pseudo =
                    checksum::pseudo_header_v6(source, destination, 17, payload_len.into());
                let sum = checksum::add(pseudo, checksum::sum(&packet[40..]));
                prop_assert_eq!(sum, 0xffff);
                prop_assert_ne!(udp::parse(&packet[40..]).unwrap().checksum, 0);
            }
        }
    }
}
