//! `[[policy]]`: what happens to which packets, in the order of the file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;

use super::error::ConfigError;
use super::error::shown;
use super::reader::Field;
use super::reader::Section;
use super::sa::DIRECTIONS;
use super::sa::Direction;
use super::sa::Sa;

/// Keys of `[[policy]]`.
pub(super) const KEYS: [&str; 5] = ["direction", "source", "destination", "action", "sa"];

/// All IPv4 addresses, all IPv6 addresses.
const ALL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ALL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

const A_SELECTOR: &str = "a prefix such as 10.1.0.0/16, an address, or \"any\"";

/// One policy. The first whose selectors a packet matches decides (RFC 4301 section 4.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which way the packets go that it is for.
    pub direction: Direction,
    /// Source addresses of the packet (in a tunnel, of the inner one); no host bits are set.
    pub source: IpNet,
    /// Destination addresses, of the same family as `source`; no host bits are set.
    pub destination: IpNet,
    /// What happens to a packet that matches.
    pub action: Action,
    /// Line of its header in the file.
    pub line: usize,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Outbound: it is sent through the SA. Inbound: it is let out if it came through the SA.
    Protect {
        /// Index into [`Config::sas`](super::Config::sas), of an SA of the policy's direction.
        sa: usize,
    },
    /// It is forwarded as it is.
    Bypass,
    /// It is dropped.
    Discard,
}

/// Reads the policies. Where both selectors are `"any"`, one table makes two policies, the first
/// for IPv4 and the second for IPv6.
pub(super) fn read(sections: &[Section<'_>], sas: &[Sa]) -> Result<Vec<Policy>, ConfigError> {
    let names = sas.iter().enumerate().filter_map(|(index, sa)| Some((sa.name.as_deref()?, index)));
    let names: BTreeMap<&str, usize> = names.collect();
    let mut policies = Vec::with_capacity(sections.len());
    for section in sections {
        let direction =
            section.required("direction", "\"inbound\" or \"outbound\"")?.word(&DIRECTIONS)?;
        let pairs = selectors(section)?;
        let action = action(section, direction, sas, &names)?;
        let line = section.line();
        let pairs = pairs.into_iter().flatten();
        policies.extend(pairs.map(|(source, destination)| Policy {
            direction,
            source,
            destination,
            action,
            line,
        }));
    }
    Ok(policies)
}

type Pair = (IpNet, IpNet);

/// Source and destination; two pairs if both are `"any"`.
fn selectors(section: &Section<'_>) -> Result<[Option<Pair>; 2], ConfigError> {
    let source = selector(&section.required("source", A_SELECTOR)?)?;
    let field = section.required("destination", A_SELECTOR)?;
    let destination = selector(&field)?;
    match (source, destination) {
        (Some(source), Some(destination)) if is_v4(source) != is_v4(destination) => {
            let family = if is_v4(source) { "an IPv4" } else { "an IPv6" };
            Err(field.wrong(format_args!("{family} prefix, as the source is one")))
        }
        (Some(source), Some(destination)) => Ok([Some((source, destination)), None]),
        (Some(source), None) => Ok([Some((source, all_like(source))), None]),
        (None, Some(destination)) => Ok([Some((all_like(destination), destination)), None]),
        (None, None) => Ok([Some((ALL_V4, ALL_V4)), Some((ALL_V6, ALL_V6))]),
    }
}

/// One selector; `None` is `"any"`.
fn selector(field: &Field<'_>) -> Result<Option<IpNet>, ConfigError> {
    let text = field.text(A_SELECTOR)?;
    if text == "any" {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(IpNet::from(address)));
    }
    let net: IpNet = text.parse().map_err(|_| field.wrong(A_SELECTOR))?;
    if net != net.trunc() {
        return Err(field.error(format_args!(
            "expected a prefix without host bits, found {}: did you mean {}?",
            shown(text),
            net.trunc(),
        )));
    }
    Ok(Some(net))
}

fn is_v4(net: IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn all_like(net: IpNet) -> IpNet {
    if is_v4(net) { ALL_V4 } else { ALL_V6 }
}

/// The word of `action`, before its SA is known.
#[derive(Clone, Copy)]
enum Verb {
    Protect,
    Bypass,
    Discard,
}

fn action(
    section: &Section<'_>,
    direction: Direction,
    sas: &[Sa],
    names: &BTreeMap<&str, usize>,
) -> Result<Action, ConfigError> {
    const VERBS: [(&str, Verb); 3] =
        [("protect", Verb::Protect), ("bypass", Verb::Bypass), ("discard", Verb::Discard)];
    let verb =
        section.required("action", "\"protect\", \"bypass\" or \"discard\"")?.word(&VERBS)?;
    let unused = match verb {
        Verb::Protect => {
            let expected = format!("the name of an {direction} SA for action = \"protect\"");
            let field = section.required("sa", &expected)?;
            return protect(&field, &expected, direction, sas, names);
        }
        Verb::Bypass => Action::Bypass,
        Verb::Discard => Action::Discard,
    };
    match section.optional("sa") {
        Some(field) => Err(field.error("expected no SA but for action = \"protect\"")),
        None => Ok(unused),
    }
}

fn protect(
    field: &Field<'_>,
    expected: &str,
    direction: Direction,
    sas: &[Sa],
    names: &BTreeMap<&str, usize>,
) -> Result<Action, ConfigError> {
    let name = field.text(expected)?;
    let Some(&sa) = names.get(name) else {
        return Err(field.error(format_args!("expected {expected}, found no SA {}", shown(name))));
    };
    if sas[sa].direction != direction {
        return Err(field.error(format_args!(
            "expected {expected}, found the {} SA {}",
            sas[sa].direction,
            sas[sa].label(),
        )));
    }
    Ok(Action::Protect { sa })
}
