//! Which packets: the selectors of policies and SAs (RFC 4301 section 4.4.1.1).
//!
//! A list of ICMP types makes several selectors, as each has one range of them, and so does a
//! protocol that is not shown, as each has one number; all else is one.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use culvert_spd::AddressRange;
use culvert_spd::AddressSelector;
use culvert_spd::PortSelector;
use culvert_spd::RangeError;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;
use ipnet::IpNet;

use super::error::ConfigError;
use super::error::shown;
use super::reader::Field;
use super::reader::Section;

/// Keys of a selector.
pub(super) const KEYS: [&str; 8] = [
    "source",
    "destination",
    "protocol",
    "source_ports",
    "destination_ports",
    "icmp",
    "mobility",
    "fragments_too",
];

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const MOBILITY: u8 = 135;

/// What a table says about the next layer protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Any,
    /// IPv6 whose fragment, or whose headers, end before the next layer.
    Opaque,
    One(u8),
}

/// Protocols by name (IANA's Protocol Numbers).
const PROTOCOLS: [(&str, Protocol); 15] = [
    ("any", Protocol::Any),
    ("opaque", Protocol::Opaque),
    ("icmp", Protocol::One(ICMP)),
    ("ipip", Protocol::One(4)),
    ("tcp", Protocol::One(6)),
    ("udp", Protocol::One(17)),
    ("dccp", Protocol::One(33)),
    ("ipv6", Protocol::One(41)),
    ("gre", Protocol::One(47)),
    ("esp", Protocol::One(50)),
    ("ah", Protocol::One(51)),
    ("icmpv6", Protocol::One(ICMP_V6)),
    ("sctp", Protocol::One(132)),
    ("mobility", Protocol::One(MOBILITY)),
    ("udplite", Protocol::One(136)),
];

/// The IPv6 extension headers that are followed: one of these announced last is all that a packet
/// shows whose next layer protocol is hidden.
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// Protocols with ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

const ADDRESSES: &str = "a prefix such as 10.1.0.0/16, an address, a range such as \
                         10.1.0.5-10.1.0.9, a list of those, or \"any\"";
const PORTS: &str = "a port from 0 to 65535, a range such as \"1024-2047\", a list of those, \
                     \"any\" or \"opaque\"";
const ICMP_TYPES: &str = "a type such as 8, types such as \"3-5\", a type and code such as \
                          \"3/4\", two of those such as \"3/0-3/4\", a list, or \"opaque\"";

/// Whether a table has to say which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// It has to.
    Required,
    /// All are meant if it does not.
    Optional,
}

/// Reads the keys of a selector from a table that may have others.
pub(super) fn read(section: &Section<'_>, wanted: Addresses) -> Result<Vec<Selector>, ConfigError> {
    let source = addresses(section, "source", wanted)?;
    let destination = addresses(section, "destination", wanted)?;
    if let (Some(one), Some(other)) = (family(&source), family(&destination))
        && one != other
    {
        let name = if one { "IPv4" } else { "IPv6" };
        return Err(section
            .error("destination", format_args!("expected {name} addresses, as the source has")));
    }
    let (protocols, uppers) = protocols_and_uppers(section, [&source, &destination])?;
    let fragments_too = section.optional("fragments_too");
    let fragments_too = fragments_too.map_or(Ok(false), |field| field.flag())?;
    if fragments_too && uppers.contains(&UpperSelector::Any) {
        return Err(section.error(
            "fragments_too",
            "expected with ports, ICMP types or mobility types only: all else matches fragments \
             anyway (RFC 4301 section 4.4.1.2)",
        ));
    }
    let each = protocols.iter().flat_map(|&one| uppers.iter().map(move |upper| (one, upper)));
    let selectors = each.map(|(protocol, upper)| {
        let selector = Selector::new(source.clone(), destination.clone(), protocol, upper.clone());
        let selector = selector.map_err(|error| section.error("source", error))?;
        Ok(selector.with_fragments_too(fragments_too))
    });
    selectors.collect()
}

/// The family of a selector; `None` for ANY.
fn family(addresses: &AddressSelector) -> Option<bool> {
    match addresses {
        AddressSelector::Any => None,
        AddressSelector::Ranges(ranges) => ranges.first().map(AddressRange::is_v4),
    }
}

fn addresses(
    section: &Section<'_>,
    key: &str,
    wanted: Addresses,
) -> Result<AddressSelector, ConfigError> {
    let field = match (section.optional(key), wanted) {
        (Some(field), _) => field,
        (None, Addresses::Optional) => return Ok(AddressSelector::Any),
        (None, Addresses::Required) => return Err(section.missing(key, ADDRESSES)),
    };
    if field.as_text() == Some("any") {
        return Ok(AddressSelector::Any);
    }
    let mut ranges: Vec<AddressRange> = Vec::new();
    for field in field.one_or_list(ADDRESSES)? {
        let range = range(&field)?;
        if ranges.first().is_some_and(|first| first.is_v4() != range.is_v4()) {
            return Err(field.wrong("addresses of one family in a list"));
        }
        ranges.push(range);
    }
    Ok(AddressSelector::Ranges(ranges))
}

/// A prefix without host bits, an address, or a range.
fn range(field: &Field<'_>) -> Result<AddressRange, ConfigError> {
    let text = field.text(ADDRESSES)?;
    if let Some((start, end)) = text.split_once('-') {
        let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| field.wrong(ADDRESSES));
        let range = AddressRange::new(parse(start)?, parse(end)?);
        return range.map_err(|error| {
            field.wrong(match error {
                RangeError::Families => "two addresses of one family",
                _ => "a range whose last address is not before its first",
            })
        });
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let net: IpNet = text.parse().map_err(|_| field.wrong(ADDRESSES))?;
    if net != net.trunc() {
        return Err(field.error(format_args!(
            "expected a prefix without host bits, found {}: did you mean {}?",
            shown(text),
            net.trunc(),
        )));
    }
    Ok(net.into())
}

/// Which protocols, and what is asked of the layer above; neither is empty.
fn protocols_and_uppers(
    section: &Section<'_>,
    addresses: [&AddressSelector; 2],
) -> Result<(Vec<Option<u8>>, Vec<UpperSelector>), ConfigError> {
    let field = section.optional("protocol");
    let protocol = field.map(|field| field.number_or(&PROTOCOLS, 0..=u8::MAX, Protocol::One));
    let one = match protocol.unwrap_or(Ok(Protocol::Any))? {
        Protocol::Any => None,
        Protocol::One(protocol) => Some(protocol),
        Protocol::Opaque => {
            if addresses.into_iter().any(|addresses| family(addresses) == Some(true)) {
                let why = "expected another one with IPv4, where every packet shows its protocol \
                           (RFC 4301 section 4.4.2.2)";
                return Err(section.error("protocol", why));
            }
            uppers(section, None)?;
            return Ok((EXTENSIONS.map(Some).to_vec(), vec![UpperSelector::Opaque]));
        }
    };
    Ok((vec![one], uppers(section, one)?))
}

/// True for a selector of packets whose next layer protocol is hidden.
pub(super) fn hides_protocol(selector: &Selector) -> bool {
    let is_extension = selector.protocol().is_some_and(|one| EXTENSIONS.contains(&one));
    is_extension && *selector.upper() == UpperSelector::Opaque
}

/// What is asked of the layer above; never empty.
fn uppers(section: &Section<'_>, protocol: Option<u8>) -> Result<Vec<UpperSelector>, ConfigError> {
    if protocol.is_none_or(|protocol| !WITH_PORTS.contains(&protocol)) {
        let why = "expected with protocol = \"tcp\", \"udp\", \"sctp\", \"dccp\" or \"udplite\" \
                   only, which have ports";
        section.refuse(&["source_ports", "destination_ports"], why)?;
    }
    if protocol.is_none_or(|protocol| protocol != ICMP && protocol != ICMP_V6) {
        section.refuse(&["icmp"], "expected with protocol = \"icmp\" or \"icmpv6\" only")?;
    }
    if protocol != Some(MOBILITY) {
        section.refuse(&["mobility"], "expected with protocol = \"mobility\" only")?;
    }
    if let Some(field) = section.optional("icmp") {
        if field.as_text() == Some("opaque") {
            return Ok(vec![UpperSelector::Opaque]);
        }
        let fields = field.one_or_list(ICMP_TYPES)?;
        return fields.iter().map(icmp).collect();
    }
    if let Some(field) = section.optional("mobility") {
        let words = [("opaque", None)];
        let number = field.number_or(&words, 0..=u8::MAX, Some)?;
        let one = |number| UpperSelector::Mobility(number..=number);
        return Ok(vec![number.map_or(UpperSelector::Opaque, one)]);
    }
    let source = ports(section, "source_ports")?;
    let destination = ports(section, "destination_ports")?;
    match (source, destination) {
        (Ports::Opaque, Ports::Opaque) => Ok(vec![UpperSelector::Opaque]),
        (Ports::Absent, Ports::Absent) => Ok(vec![UpperSelector::Any]),
        (Ports::Opaque, _) => Err(section.missing("destination_ports", OPAQUE)),
        (_, Ports::Opaque) => Err(section.missing("source_ports", OPAQUE)),
        (source, destination) => Ok(vec![UpperSelector::Ports {
            source: source.selector(),
            destination: destination.selector(),
        }]),
    }
}

const OPAQUE: &str = "\"opaque\", as a packet shows both ports or none";

/// What a table says about one of the ports.
enum Ports {
    Absent,
    Opaque,
    Selected(PortSelector),
}

impl Ports {
    fn selector(self) -> PortSelector {
        match self {
            Ports::Selected(selector) => selector,
            Ports::Absent | Ports::Opaque => PortSelector::Any,
        }
    }
}

fn ports(section: &Section<'_>, key: &str) -> Result<Ports, ConfigError> {
    let Some(field) = section.optional(key) else {
        return Ok(Ports::Absent);
    };
    match field.as_text() {
        Some("any") => return Ok(Ports::Absent),
        Some("opaque") => return Ok(Ports::Opaque),
        _ => {}
    }
    let ranges: Result<Vec<RangeInclusive<u16>>, ConfigError> =
        field.one_or_list(PORTS)?.iter().map(port_range).collect();
    ranges.map(|ranges| Ports::Selected(PortSelector::Ranges(ranges)))
}

fn port_range(field: &Field<'_>) -> Result<RangeInclusive<u16>, ConfigError> {
    let range = match field.as_text() {
        Some(text) => two(text, |port| port.parse::<u16>().ok()),
        None => {
            field.as_number().and_then(|port| u16::try_from(port).ok()).map(|port| (port, port))
        }
    };
    let (start, end) = range.ok_or_else(|| field.wrong(PORTS))?;
    if start > end {
        return Err(field.wrong("a range whose last port is not below its first"));
    }
    Ok(start..=end)
}

/// Types alone mean all their codes.
fn icmp(field: &Field<'_>) -> Result<UpperSelector, ConfigError> {
    let number = field.as_number().map(|number| number.to_string());
    let text = field.as_text().map(str::to_owned).or(number);
    let parse = |text: &str| -> Option<(u8, Option<u8>)> {
        match text.split_once('/') {
            Some((kind, code)) => Some((kind.parse().ok()?, Some(code.parse().ok()?))),
            None => Some((text.parse().ok()?, None)),
        }
    };
    let range = text.and_then(|text| two(&text, parse)).ok_or_else(|| field.wrong(ICMP_TYPES))?;
    let start = (range.0.0, range.0.1.unwrap_or(0));
    let end = (range.1.0, range.1.1.unwrap_or(u8::MAX));
    if start > end {
        return Err(field.wrong("a range whose last type and code are not below its first"));
    }
    Ok(UpperSelector::icmp(start, end))
}

/// Both ends of a range, or one value twice.
fn two<T: Copy>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    match text.split_once('-') {
        Some((start, end)) => Some((parse(start)?, parse(end)?)),
        None => parse(text).map(|value| (value, value)),
    }
}
