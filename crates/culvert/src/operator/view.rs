//! What SAs and policies have in common when they are shown: selectors, marks, modes, protocols.

use culvert_xfrm::Attributes;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Port;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::selector::Selector;
use serde::Serialize;

/// A mark, and which of its bits count.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct MarkView {
    value: u32,
    mask: u32,
}

/// Which packets.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SelectorView {
    pub(super) source: String,
    pub(super) destination: String,
    /// Number of the protocol; nothing for any.
    protocol: Option<u8>,
    source_port: Option<PortView>,
    destination_port: Option<PortView>,
}

/// A port, or an ICMP type or code, and which of its bits count.
#[derive(Clone, Copy, Debug, Serialize)]
struct PortView {
    port: u16,
    mask: u16,
}

impl MarkView {
    pub(super) fn of(attributes: &Attributes) -> Option<MarkView> {
        let mark = attributes.mark()?;
        Some(MarkView { value: mark.value, mask: mark.mask })
    }

    pub(super) fn words(self) -> String {
        format!("{:#x}/{:#x}", self.value, self.mask)
    }
}

impl PortView {
    fn of(port: Port, mask: Port) -> Option<PortView> {
        (mask.0 != 0).then_some(PortView { port: port.0, mask: mask.0 })
    }

    fn words(self) -> String {
        match self.mask {
            u16::MAX => self.port.to_string(),
            mask => format!("{}/{mask:#x}", self.port),
        }
    }
}

impl SelectorView {
    pub(super) fn new(selector: &Selector) -> SelectorView {
        let network = |address: Address, bits: u8| match address.ip(selector.family) {
            Some(ip) => format!("{ip}/{bits}"),
            None => "any".to_owned(),
        };
        SelectorView {
            source: network(selector.saddr, selector.prefixlen_s),
            destination: network(selector.daddr, selector.prefixlen_d),
            protocol: (selector.proto != 0).then_some(selector.proto),
            source_port: PortView::of(selector.sport, selector.sport_mask),
            destination_port: PortView::of(selector.dport, selector.dport_mask),
        }
    }

    /// True for one that admits every packet.
    pub(super) fn is_any(selector: &Selector) -> bool {
        (selector.prefixlen_s, selector.prefixlen_d, selector.proto) == (0, 0, 0)
    }

    pub(super) fn words(&self) -> String {
        let mut words = format!("{} > {}", self.source, self.destination);
        if let Some(number) = self.protocol {
            words += &format!(" proto {}", protocol(number));
        }
        for (name, port) in [("sport", self.source_port), ("dport", self.destination_port)] {
            if let Some(port) = port {
                words += &format!(" {name} {}", port.words());
            }
        }
        words
    }
}

/// A protocol by name, or by number.
pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        sa::ESP => "esp".to_owned(),
        sa::AH => "ah".to_owned(),
        sa::IPCOMP => "comp".to_owned(),
        number => number.to_string(),
    }
}

/// A mode by name, or by number.
pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::TRANSPORT => "transport".to_owned(),
        Mode::TUNNEL => "tunnel".to_owned(),
        Mode::ROUTE_OPTIMIZATION => "ro".to_owned(),
        Mode::IN_TRIGGER => "in_trigger".to_owned(),
        Mode::BEET => "beet".to_owned(),
        Mode::IPTFS => "iptfs".to_owned(),
        Mode(number) => number.to_string(),
    }
}

/// An address, or `-` where the family has none.
pub(super) fn address(address: Address, family: Family) -> String {
    address.ip(family).map_or("-".to_owned(), |ip| ip.to_string())
}

/// An SPI as everybody writes it.
pub(super) fn spi(number: u32) -> String {
    format!("{number:#010x}")
}
