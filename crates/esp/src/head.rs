//! [`Head`]: all that stands in front of a common packet, drawn beforehand.
//!
//! Nearly all packets of a gateway leave as ESP behind a bare IPv4 header and an Ethernet header
//! without a tag. What these are is known when the next hop of their SA is, but for a few fields of
//! the packet. So they are drawn once, and a packet reads one piece of a cache line instead of the
//! next hop, the SA and its template.

use culvert_wire::ethernet;
use culvert_wire::ipv4;

use crate::layout::Layout;
use crate::outbound::COUNTER_IV_TEXT_AT;
use crate::outbound::EPOCH_SHIFT;
use crate::outbound::OutboundSa;
use crate::seq::SeqNo;
use crate::template::Inherited;
use crate::template::Patch;

/// Octets in front of a common packet: Ethernet, IPv4, ESP with its IV.
pub const HEAD_LEN: usize = ESP_AT + COUNTER_IV_TEXT_AT;

const IP_AT: usize = ethernet::HEADER_LEN;
/// Where ESP starts.
pub const ESP_AT: usize = IP_AT + ipv4::HEADER_LEN;

/// The headers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Head {
    link: [u8; ethernet::HEADER_LEN],
    /// As in the template of the SA.
    ip: [u8; ipv4::HEADER_LEN],
    spi: [u8; 4],
    patch: Patch,
    esn: bool,
    epoch: u32,
}

const _: () = assert!(size_of::<Head>() <= 52, "there is room for the next hop in its line");

impl Head {
    /// That of no packet.
    pub const NONE: Head = Head {
        link: [0; ethernet::HEADER_LEN],
        ip: [0; ipv4::HEADER_LEN],
        spi: [0; 4],
        patch: Patch::NONE,
        esn: false,
        epoch: 0,
    };

    /// That of the packets of an SA behind the Ethernet header `link`; `None` when they have other
    /// headers. It is to be drawn again when the SA gets another epoch or destination.
    #[must_use]
    pub fn of<K>(sa: &OutboundSa<K>, link: [u8; ethernet::HEADER_LEN]) -> Option<Head> {
        let (&ip, patch) = sa.template.bare_v4().filter(|_| sa.layout() == Layout::COMMON)?;
        let (spi, esn, epoch) = (sa.spi().value().to_be_bytes(), sa.sequence.esn(), sa.epoch());
        Some(Head { link, ip, spi, patch, esn, epoch })
    }

    /// Index of the SA.
    #[inline(always)]
    #[must_use]
    pub fn spi(&self) -> u32 {
        u32::from_be_bytes(self.spi)
    }

    /// Writes the headers of an IP packet of `total` octets and consumes its number. Returns the
    /// high half of the number when the SA has ESN. `id` is the IPv4 identification.
    #[inline(always)]
    #[expect(clippy::needless_pass_by_value, reason = "a number is spent in one packet")]
    pub fn write(
        &self,
        out: &mut [u8; HEAD_LEN],
        total: u16,
        (inherited, id): (Inherited, u16),
        seq: SeqNo,
    ) -> Option<u32> {
        let number = seq.value();
        let tos = self.patch.tos(inherited.tos);
        let [front, middle] = self.patch.words(&self.ip, (tos, total), inherited, id);
        let iv = u64::from(self.epoch) << EPOCH_SHIFT | number;
        out[..IP_AT].copy_from_slice(&self.link);
        out[IP_AT..IP_AT + 8].copy_from_slice(&front.to_be_bytes());
        out[IP_AT + 8..IP_AT + 16].copy_from_slice(&middle.to_be_bytes());
        out[IP_AT + 16..ESP_AT].copy_from_slice(&self.ip[16..]);
        out[ESP_AT..ESP_AT + 4].copy_from_slice(&self.spi);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is sent")]
        out[ESP_AT + 4..ESP_AT + 8].copy_from_slice(&(number as u32).to_be_bytes());
        out[ESP_AT + 8..].copy_from_slice(&iv.to_be_bytes());
        self.esn.then_some((number >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use culvert_aead::Algorithm;
    use culvert_aead::Protocol;
    use culvert_wire::ethernet::ETHER_TYPE_IPV4;
    use culvert_wire::ethernet::Mac;
    use proptest::prelude::*;

    use super::*;
    use crate::lifetime::Lifetime;
    use crate::lifetime::Usage;
    use crate::spi::Spi;
    use crate::template::Df;
    use crate::template::Dscp;
    use crate::template::EcnMode;
    use crate::template::Encapsulation;
    use crate::template::HeaderOptions;
    use crate::template::Template;
    use crate::template::Ttl;

    fn sa(algorithm: Algorithm, esn: bool, last: u64, template: Template) -> OutboundSa<()> {
        let usage = Usage::new(Lifetime::UNLIMITED, 0);
        let (spi, layout) = (Spi::new(0xfedc_ba98).unwrap(), Layout::of(algorithm));
        OutboundSa::new(spi, esn, last, layout, (), template, usage)
    }

    fn template(addresses: [&str; 2], udp: bool, options: HeaderOptions) -> Template {
        let [source, destination] = addresses.map(|address| address.parse().unwrap());
        let ports = Encapsulation { source_port: 4500, destination_port: 4500 };
        let ports = udp.then_some(ports);
        Template::with_options(source, destination, Protocol::Esp, ports, options).unwrap()
    }

    const V4: [&str; 2] = ["192.0.2.1", "198.51.100.2"];
    const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
    const MACS: [Mac; 2] = [Mac([1, 2, 3, 4, 5, 6]), Mac([7, 8, 9, 10, 11, 12])];

    fn link() -> [u8; ethernet::HEADER_LEN] {
        let mut link = [0; ethernet::HEADER_LEN];
        ethernet::emit(&mut link, MACS[0], MACS[1], None, ETHER_TYPE_IPV4);
        link
    }

    /// Only packets behind a bare IPv4 header, with the usual lengths, whose fields are not looked
    /// up, have a head.
    #[test]
    fn others_have_none() {
        let plain = HeaderOptions::default;
        let gcm = Algorithm::Aes128Gcm16;
        let is_common =
            |algorithm, template| Head::of(&sa(algorithm, true, 0, template), link()).is_some();
        assert!(is_common(gcm, template(V4, false, plain())));
        assert!(!is_common(gcm, template(V4, true, plain())));
        assert!(!is_common(gcm, template(V6, false, plain())));
        assert!(!is_common(Algorithm::Aes128Gcm8, template(V4, false, plain())));
        let map = HeaderOptions { dscp: Dscp::Map(Box::new([7; 64])), ..plain() };
        assert!(!is_common(gcm, template(V4, false, map)));
    }

    proptest! {
        /// E20, P18, G01, G02: with any options, number and epoch it writes what link, template
        /// and SA write one after the other.
        #[test]
        fn equals_headers_made_one_by_one(
            (copies_dscp, dscp, copies_ecn) in any::<(bool, u8, bool)>(),
            (df, ttl) in (0..3usize, any::<Option<u8>>()),
            (tos, dont_fragment, inner_ttl, id) in any::<(u8, bool, u8, u16)>(),
            (esn, last) in (any::<bool>(), 0..u64::from(u32::MAX)),
            (above, epoch) in (0..256u64, 0..1u64 << 24),
            total in 36u16..1500,
        ) {
            let options = HeaderOptions {
                dscp: if copies_dscp { Dscp::Copy } else { Dscp::Set(dscp & 63) },
                ecn: if copies_ecn { EcnMode::Normal } else { EcnMode::Compatibility },
                df: [Df::Copy, Df::Set, Df::Clear][df],
                ttl: ttl.map_or(Ttl::Copy, Ttl::Fixed),
                ..HeaderOptions::default()
            };
            let last = if esn { above << 32 | last } else { last };
            let mut sa = sa(Algorithm::Aes256Gcm16, esn, last, template(V4, false, options));
            if epoch > 0 {
                sa.set_epoch(epoch);
            }
            let head = Head::of(&sa, link()).unwrap();
            let inherited = Inherited { tos, dont_fragment, ttl: inner_ttl };
            let mut expected = vec![0; ethernet::HEADER_LEN + usize::from(total)];
            expected[..ethernet::HEADER_LEN].copy_from_slice(&link());
            let (seq, again) = (sa.next_seq().unwrap(), SeqNo::again(last + 1));
            let high = sa.write_header(&mut expected[ESP_AT..HEAD_LEN], seq);
            sa.template.apply(&mut expected[ethernet::HEADER_LEN..], inherited, id);
            let mut out = [0xff; HEAD_LEN];
            prop_assert_eq!(head.write(&mut out, total, (inherited, id), again), high);
            prop_assert_eq!(&out[..], &expected[..HEAD_LEN]);
            prop_assert_eq!(head.spi(), 0xfedc_ba98);
        }
    }
}
