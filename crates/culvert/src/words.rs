//! Selectors and packets in words, for logs and reports.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use culvert_spd::AddressSelector;
use culvert_spd::Flow;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::Upper;
use culvert_spd::UpperSelector;

/// A selector: addresses, protocol if one is named, ports or types.
pub(crate) fn selector(selector: &Selector) -> String {
    let [source, destination] =
        [selector.source(), selector.destination()].map(|side| addresses(side).join(","));
    let protocol =
        selector.protocol().map_or(String::new(), |number| format!(" protocol {number}"));
    format!("{source} > {destination}{protocol} {}", upper(selector.upper()))
}

/// A packet, as far as policy looks at it.
pub(crate) fn flow(flow: &Flow) -> String {
    let (source, destination) = endpoints(flow);
    let upper = match flow.upper {
        Upper::Ports { source, destination } => format!(" ports {source} > {destination}"),
        Upper::Icmp(number) => format!(" icmp {}", icmp(number)),
        Upper::Mobility(number) => format!(" mobility {number}"),
        Upper::None | Upper::Opaque => String::new(),
    };
    format!("{source} > {destination} protocol {}{upper}", flow.protocol)
}

/// Source and destination of a packet.
pub(crate) fn endpoints(flow: &Flow) -> (IpAddr, IpAddr) {
    let address = |number: u128| -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if flow.addresses.is_v4 => Ipv4Addr::from_bits(number).into(),
            _ => Ipv6Addr::from_bits(number).into(),
        }
    };
    (address(flow.addresses.source), address(flow.addresses.destination))
}

/// Ranges of addresses.
pub(crate) fn addresses(addresses: &AddressSelector) -> Vec<String> {
    match addresses {
        AddressSelector::Any => vec!["any".to_owned()],
        AddressSelector::Ranges(ranges) => ranges.iter().map(ToString::to_string).collect(),
    }
}

/// Ports or types.
pub(crate) fn upper(upper: &UpperSelector) -> String {
    let ports = |ports: &PortSelector| match ports {
        PortSelector::Any => "any".to_owned(),
        PortSelector::Ranges(ranges) => {
            let range = |range: &RangeInclusive<u16>| format!("{}-{}", range.start(), range.end());
            ranges.iter().map(range).collect::<Vec<String>>().join(",")
        }
    };
    match upper {
        UpperSelector::Any => "any".to_owned(),
        UpperSelector::Opaque => "opaque".to_owned(),
        UpperSelector::Ports { source, destination } => {
            format!("ports {} to {}", ports(source), ports(destination))
        }
        UpperSelector::Icmp(range) => {
            format!("icmp {}-{}", icmp(*range.start()), icmp(*range.end()))
        }
        UpperSelector::Mobility(range) => format!("mobility {}-{}", range.start(), range.end()),
    }
}

/// Type and code.
pub(crate) fn icmp(number: u16) -> String {
    let [kind, code] = number.to_be_bytes();
    format!("{kind}/{code}")
}
