//! Selectors: which packets a policy, or an SA, is about (RFC 4301 section 4.4.1.1).

use std::fmt;

use ipnet::IpNet;

use crate::Flow;
use crate::address::AddressSelector;
use crate::upper::UpperSelector;

/// The packets a policy, or an SA, is about: those that fulfil every part.
///
/// Made by [`Selector::new`], which checks, so that each selector is one the RFC allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    pub(crate) source: AddressSelector,
    pub(crate) destination: AddressSelector,
    pub(crate) protocol: Option<u8>,
    pub(crate) upper: UpperSelector,
    pub(crate) fragments_too: bool,
}

/// A part of a selector, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Source addresses.
    Source,
    /// Destination addresses.
    Destination,
    /// Source ports.
    SourcePort,
    /// Destination ports.
    DestinationPort,
    /// ICMP type and code.
    IcmpType,
    /// Type of a mobility header.
    MobilityType,
}

/// Why parts are no selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A list without a range admits nothing; ANY is said otherwise.
    #[error("{field}: the list is empty")]
    Empty {
        /// Where.
        field: Field,
    },
    /// A range ends before it starts.
    #[error("{field}: the range ends before it starts")]
    Inverted {
        /// Where.
        field: Field,
    },
    /// A list has ranges of both address families.
    #[error("{field}: IPv4 and IPv6 in one list")]
    Families {
        /// Where.
        field: Field,
    },
    /// Source and destination are of different families.
    #[error("destination addresses: not of the family of the source addresses")]
    FamiliesDiffer,
    /// The protocol has no such field, or there is no protocol to have it.
    #[error("{field}: {}", has_none(*.protocol))]
    Protocol {
        /// Where.
        field: Field,
        /// The protocol of the selector.
        protocol: Option<u8>,
    },
}

fn has_none(protocol: Option<u8>) -> String {
    match protocol {
        Some(protocol) => format!("protocol {protocol} has none"),
        None => "only with a protocol".to_owned(),
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Field::Source => "source addresses",
            Field::Destination => "destination addresses",
            Field::SourcePort => "source ports",
            Field::DestinationPort => "destination ports",
            Field::IcmpType => "ICMP type and code",
            Field::MobilityType => "mobility header type",
        })
    }
}

impl Selector {
    /// All packets of both families.
    pub const ANY: Selector = Selector {
        source: AddressSelector::Any,
        destination: AddressSelector::Any,
        protocol: None,
        upper: UpperSelector::Any,
        fragments_too: false,
    };

    /// The selector of these parts; `protocol` `None` is ANY. Ranges of all ports, types or codes
    /// become ANY, which is how IKE writes it (RFC 7296 section 3.13.1).
    ///
    /// # Errors
    /// A [`SelectorError`] that names the part: an empty list, an inverted range, two address
    /// families, or ports, an ICMP or a mobility type without a protocol that has them.
    pub fn new(
        source: AddressSelector,
        destination: AddressSelector,
        protocol: Option<u8>,
        upper: UpperSelector,
    ) -> Result<Selector, SelectorError> {
        let from = family(&source, Field::Source)?;
        let to = family(&destination, Field::Destination)?;
        if from.zip(to).is_some_and(|(from, to)| from != to) {
            return Err(SelectorError::FamiliesDiffer);
        }
        let upper = upper.checked(protocol)?;
        Ok(Selector { source, destination, protocol, upper, fragments_too: false })
    }

    /// All packets from one prefix to another.
    ///
    /// # Errors
    /// [`SelectorError::FamiliesDiffer`].
    pub fn between(source: IpNet, destination: IpNet) -> Result<Selector, SelectorError> {
        Selector::new(source.into(), destination.into(), None, UpperSelector::Any)
    }

    /// The same, and when `too` is true also the packets of these addresses and this protocol that
    /// do not show the ports or types which the selector asks for: non-initial fragments
    /// (NON_FIRST_FRAGMENTS_ALSO, RFC 7296 section 3.10.1; RFC 4301 section 7.1).
    #[must_use]
    pub fn with_fragments_too(mut self, too: bool) -> Selector {
        self.fragments_too = too;
        self
    }

    /// Source addresses.
    #[must_use]
    pub fn source(&self) -> &AddressSelector {
        &self.source
    }

    /// Destination addresses.
    #[must_use]
    pub fn destination(&self) -> &AddressSelector {
        &self.destination
    }

    /// Next layer protocol; `None` is ANY.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        self.protocol
    }

    /// What it asks of the layer above IP.
    #[must_use]
    pub fn upper(&self) -> &UpperSelector {
        &self.upper
    }

    /// True when it also admits what does not show the ports or types it asks for.
    #[must_use]
    pub fn fragments_too(&self) -> bool {
        self.fragments_too
    }

    /// True when it looks at nothing but addresses.
    #[must_use]
    pub fn is_address_only(&self) -> bool {
        self.protocol.is_none() && self.upper == UpperSelector::Any
    }

    /// True when it admits the packet. Neither allocates nor hashes; its cost is that of the lists.
    #[inline]
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        let addresses = &flow.addresses;
        self.source.contains(addresses.is_v4, addresses.source)
            && self.destination.contains(addresses.is_v4, addresses.destination)
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.upper.matches(flow.upper, self.fragments_too)
    }
}

/// True for IPv4; `None` for ANY.
fn family(addresses: &AddressSelector, field: Field) -> Result<Option<bool>, SelectorError> {
    let AddressSelector::Ranges(ranges) = addresses else { return Ok(None) };
    let Some(first) = ranges.first() else { return Err(SelectorError::Empty { field }) };
    if ranges.iter().any(|range| range.is_v4 != first.is_v4) {
        return Err(SelectorError::Families { field });
    }
    Ok(Some(first.is_v4))
}

#[cfg(test)]
mod tests {
    use culvert_wire::ip::Addresses;

    use super::*;
    use crate::AddressRange;
    use crate::PortSelector;
    use crate::Upper;

    const ANY: AddressSelector = AddressSelector::Any;

    fn ranges(texts: &[&str]) -> AddressSelector {
        AddressSelector::Ranges(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn upper(protocol: u8, upper: UpperSelector) -> Selector {
        Selector::new(ANY, ANY, Some(protocol), upper).unwrap()
    }

    fn ports(source: PortSelector, destination: PortSelector) -> UpperSelector {
        UpperSelector::Ports { source, destination }
    }

    fn flow(protocol: u8, upper: Upper) -> Flow {
        let addresses = Addresses { is_v4: true, source: 0x0a01_0001, destination: 0x0a02_0001 };
        Flow { addresses, protocol, upper }
    }

    fn between(source: &str, destination: &str) -> Flow {
        let [source, destination]: [AddressRange; 2] =
            [source, destination].map(|text| text.parse().unwrap());
        let addresses =
            Addresses { is_v4: source.is_v4, source: source.start, destination: destination.start };
        Flow { addresses, protocol: 6, upper: Upper::None }
    }

    fn shown(source: u16, destination: u16) -> Upper {
        Upper::Ports { source, destination }
    }

    /// P05: addresses are lists of true ranges, exact at both ends; ANY is every address.
    #[test]
    fn addresses_are_lists_of_ranges() {
        let source = ranges(&["10.1.0.5-10.1.0.9", "10.3.0.0/16"]);
        let selector = Selector::new(source, ANY, None, UpperSelector::Any).unwrap();
        let admits = |source| selector.matches(&between(source, "192.0.2.1"));
        assert!(["10.1.0.5", "10.1.0.9", "10.3.0.0", "10.3.255.255"].iter().all(|a| admits(a)));
        assert!(!["10.1.0.4", "10.1.0.10", "10.2.255.255", "10.4.0.0"].iter().any(|a| admits(a)));
        assert!(!selector.matches(&between("::10.1.0.5", "fd00::1")));
        assert!(Selector::ANY.matches(&between("fd00::1", "fd00::2")));
        assert!(Selector::ANY.matches(&between("10.0.0.1", "10.0.0.2")));
    }

    /// P05: a protocol is one or ANY; ports are lists of ranges, exact at both ends.
    #[test]
    fn protocol_and_ports() {
        let web = PortSelector::Ranges(vec![80..=80, 8000..=8080]);
        let selector = upper(6, ports(PortSelector::Any, web));
        let admits = |protocol, port| selector.matches(&flow(protocol, shown(5, port)));
        let admitted: Vec<u16> = (0..=u16::MAX).filter(|&port| admits(6, port)).collect();
        assert_eq!(admitted.len(), 82);
        assert_eq!([admitted[0], admitted[1], admitted[81]], [80, 8000, 8080]);
        assert!(!admits(17, 80));
        assert!(Selector { protocol: Some(50), ..Selector::ANY }.matches(&flow(50, Upper::None)));
    }

    /// P06: type and code are compared as one number, so a range may begin within one type and end
    /// within another: (3, 4) to (5, 1) has (4, 255) and not (5, 2).
    #[test]
    fn icmp_is_compared_as_one_number() {
        let selector = upper(1, UpperSelector::icmp((3, 4), (5, 1)));
        let admits =
            |message: u16, code| selector.matches(&flow(1, Upper::Icmp(message * 256 + code)));
        let cases = [(3, 3), (3, 4), (4, 0), (4, 255), (5, 1), (5, 2)];
        let answers = cases.map(|(message, code)| admits(message, code));
        assert_eq!(answers, [false, true, true, true, true, false]);
        assert!(!selector.matches(&flow(58, Upper::Icmp(0x0304))));
    }

    /// P05: the type of a mobility header is a range.
    #[test]
    fn mobility_type_is_a_range() {
        let selector = upper(135, UpperSelector::Mobility(5..=6));
        let admitted =
            (0..=255).filter(|&kind| selector.matches(&flow(135, Upper::Mobility(kind))));
        assert_eq!(admitted.collect::<Vec<u8>>(), [5, 6]);
    }

    /// P05, P08: ANY admits what is not shown, OPAQUE admits nothing else, and a range never does.
    #[test]
    fn any_opaque_and_ranges_of_fragments() {
        let any = upper(6, UpperSelector::Any);
        let opaque = upper(6, UpperSelector::Opaque);
        let one_side = upper(6, ports(PortSelector::Any, 80.into()));
        let nearly_all = upper(6, ports(PortSelector::Any, (0..=65534).into()));
        let answers =
            |upper| [&any, &opaque, &one_side, &nearly_all].map(|one| one.matches(&flow(6, upper)));
        assert_eq!(answers(Upper::Opaque), [true, true, false, false]);
        assert_eq!(answers(shown(1, 80)), [true, false, true, true]);
        assert_eq!(answers(Upper::None), [true, false, false, false]);
        for range in [UpperSelector::icmp((8, 0), (8, 0)), UpperSelector::icmp((0, 0), (255, 254))]
        {
            assert!(!upper(1, range).matches(&flow(1, Upper::Opaque)));
        }
        assert!(!upper(135, UpperSelector::Mobility(1..=9)).matches(&flow(135, Upper::Opaque)));
    }

    /// P08: a range of all ports is ANY, as on the wire of IKE, and so admits fragments.
    #[test]
    fn all_ports_are_any() {
        let all = upper(6, ports((0..=u16::MAX).into(), (0..=u16::MAX).into()));
        assert_eq!(all.upper(), &UpperSelector::Any);
        assert_eq!(upper(1, UpperSelector::icmp((0, 0), (255, 255))).upper(), &UpperSelector::Any);
        assert_eq!(upper(135, UpperSelector::Mobility(0..=255)).upper(), &UpperSelector::Any);
        // Without ports there is nothing to refuse.
        let none = Selector::new(ANY, ANY, None, ports(PortSelector::Any, PortSelector::Any));
        assert_eq!(none, Ok(Selector::ANY));
    }

    /// U15: NON_FIRST_FRAGMENTS_ALSO lets a range admit fragments of the same protocol and
    /// addresses, and nothing more.
    #[test]
    fn fragments_too() {
        let plain = upper(6, ports(PortSelector::Any, 80.into()));
        let too = plain.clone().with_fragments_too(true);
        assert!(too.fragments_too() && !plain.fragments_too());
        assert!(too.matches(&flow(6, Upper::Opaque)) && !plain.matches(&flow(6, Upper::Opaque)));
        assert!(!too.matches(&flow(17, Upper::Opaque)));
        assert!(!too.matches(&flow(6, shown(80, 81))));
        assert!(!too.matches(&flow(6, Upper::None)));
        let here = Selector { destination: ranges(&["10.9.0.0/16"]), ..too };
        assert!(!here.matches(&flow(6, Upper::Opaque)));
        let icmp = upper(1, UpperSelector::icmp((8, 0), (8, 255))).with_fragments_too(true);
        assert!(icmp.matches(&flow(1, Upper::Opaque)));
    }

    /// P05: parts that contradict one another are refused, and the error names the part.
    #[test]
    fn refusals_name_the_part() {
        let new = |source: &[&str], destination: &[&str], protocol, upper| {
            Selector::new(ranges(source), ranges(destination), protocol, upper)
                .map_err(|error| error.to_string())
        };
        let addresses = |source: &[&str], destination: &[&str]| {
            new(source, destination, None, UpperSelector::Any).unwrap_err()
        };
        let (v4, v6) = ("10.0.0.0/8", "fd00::/8");
        assert_eq!(addresses(&[], &[v4]), "source addresses: the list is empty");
        assert_eq!(addresses(&[v4], &[v4, v6]), "destination addresses: IPv4 and IPv6 in one list");
        assert_eq!(
            addresses(&[v4], &[v6]),
            "destination addresses: not of the family of the source addresses"
        );
        let upper = |protocol, upper| new(&[v4], &[v4], protocol, upper).unwrap_err();
        let any = PortSelector::Any;
        let empty = PortSelector::Ranges(vec![]);
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        let inverted = PortSelector::from(9..=8);
        assert_eq!(upper(Some(6), ports(empty, any.clone())), "source ports: the list is empty");
        assert_eq!(
            upper(Some(6), ports(any.clone(), inverted)),
            "destination ports: the range ends before it starts"
        );
        assert_eq!(upper(None, ports(any, 80.into())), "destination ports: only with a protocol");
        assert_eq!(
            upper(Some(50), ports(80.into(), 80.into())),
            "source ports: protocol 50 has none"
        );
        assert_eq!(
            upper(Some(6), UpperSelector::Icmp(0..=9)),
            "ICMP type and code: protocol 6 has none"
        );
        assert_eq!(
            upper(Some(58), UpperSelector::icmp((9, 0), (8, 0))),
            "ICMP type and code: the range ends before it starts"
        );
        assert_eq!(
            upper(Some(1), UpperSelector::Mobility(0..=9)),
            "mobility header type: protocol 1 has none"
        );
    }
}
