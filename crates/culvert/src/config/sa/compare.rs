//! What two SAs may not share. Each is compared with those above it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_engine::options::Lookup;

use super::Direction;
use super::Sa;
use crate::config::error::ConfigError;
use crate::config::error::shown;
use crate::config::reader::Section;

/// SAs that have one key and salt: the first of either direction, and the first outbound one.
#[derive(Default)]
struct SameKey {
    any: Option<usize>,
    outbound: Option<usize>,
}

/// Refuses what two SAs may not share.
pub(super) fn compare(sections: &[Section<'_>], sas: &[Sa]) -> Result<(), ConfigError> {
    let mut names = BTreeMap::new();
    let mut spis = BTreeMap::new();
    let mut keys: BTreeMap<&[u8], SameKey> = BTreeMap::new();
    for (index, (section, sa)) in sections.iter().zip(sas).enumerate() {
        if let Some(name) = &sa.name
            && let Some(other) = names.insert(name, index)
        {
            let line = sas[other].line;
            let problem =
                format!("expected a name of its own, found {}, the SA of line {line}", shown(name));
            return Err(section.error("name", problem));
        }
        if let Some(other) = spis.insert(Found::of(sa), index) {
            return Err(section.error("spi", same_spi(sa, &sas[other])));
        }
        let same = keys.entry(sa.keymat.as_bytes()).or_default();
        let other = match sa.direction {
            Direction::Inbound => same.outbound,
            Direction::Outbound => same.any,
        };
        if let Some(other) = other {
            return Err(section.error("key", same_key(&sas[other])));
        }
        same.any.get_or_insert(index);
        if sa.direction == Direction::Outbound {
            same.outbound.get_or_insert(index);
        }
    }
    groups(sections, sas, &names)
}

/// What finds an SA: no two have the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    direction: Direction,
    protocol: Protocol,
    spi: u32,
    destination: Option<IpAddr>,
    source: Option<IpAddr>,
}

impl Found {
    fn of(sa: &Sa) -> Found {
        let (destination, source) = match (sa.direction, sa.lookup) {
            (Direction::Outbound, _) | (_, Lookup::SpiDestination) => (true, false),
            (_, Lookup::Spi) => (false, false),
            (_, Lookup::SpiDestinationSource) => (true, true),
        };
        Found {
            direction: sa.direction,
            protocol: sa.algorithm.protocol(),
            spi: sa.spi,
            destination: destination.then_some(sa.destination),
            source: source.then_some(sa.source),
        }
    }
}

/// Groups: of one direction, and outbound with one SA for the workers that have none of their own
/// (RFC 9611 section 2).
fn groups(
    sections: &[Section<'_>],
    sas: &[Sa],
    names: &BTreeMap<&String, usize>,
) -> Result<(), ConfigError> {
    let mut groups: BTreeMap<&String, Vec<usize>> = BTreeMap::new();
    for (index, (section, sa)) in sections.iter().zip(sas).enumerate() {
        let Some(group) = &sa.group else { continue };
        if let Some(&other) = names.get(group) {
            let (name, line) = (shown(group), sas[other].line);
            let problem =
                format!("expected a name that no SA has, found {name}, the SA of line {line}");
            return Err(section.error("group", problem));
        }
        let others = groups.entry(group).or_default();
        for other in others.iter().map(|&other| &sas[other]) {
            check_members(section, sa, other)?;
        }
        others.push(index);
    }
    let is_shared = |&&sa: &&usize| sas[sa].resource.is_none();
    let lonely = groups.values().find(|members| !members.iter().any(|sa| is_shared(&sa)));
    match lonely.and_then(|members| members.first()) {
        Some(&sa) => Err(sections[sa].error(
            "resource",
            "expected an SA without `resource` in the group too, for the other workers (RFC 9611 \
             section 2)",
        )),
        None => Ok(()),
    }
}

/// Two SAs of one group.
fn check_members(section: &Section<'_>, sa: &Sa, other: &Sa) -> Result<(), ConfigError> {
    if sa.direction != other.direction {
        return Err(section.error(
            "group",
            format_args!(
                "expected a group of {} SAs, found the one of the {} SA {}",
                sa.direction,
                other.direction,
                other.label(),
            ),
        ));
    }
    if sa.direction == Direction::Outbound && sa.resource == other.resource {
        let whose = match sa.resource {
            Some(worker) => format!("worker {}", worker.0),
            None => "all workers".to_owned(),
        };
        return Err(section.error(
            "resource",
            format_args!(
                "expected one SA of {whose} in the group, found another, the SA {}",
                other.label(),
            ),
        ));
    }
    Ok(())
}

fn same_spi(sa: &Sa, other: &Sa) -> String {
    let scope = match (sa.direction, sa.lookup) {
        (Direction::Outbound, _) | (_, Lookup::SpiDestination) => format!(" to {}", sa.destination),
        (_, Lookup::SpiDestinationSource) => format!(" from {} to {}", sa.source, sa.destination),
        (_, Lookup::Spi) => " with lookup = \"spi\"".to_owned(),
    };
    format!(
        "expected an SPI that no other {} {} SA{scope} has, found {:#x}, the SPI of the SA {}",
        sa.direction,
        sa.algorithm.protocol(),
        sa.spi,
        other.label(),
    )
}

/// Two senders under one key and salt both count from the same numbers, so they use the same
/// nonces. Two inbound SAs are not refused: what their senders do shows at their end.
fn same_key(other: &Sa) -> String {
    format!(
        "expected a key or salt of its own, found those of the {} SA {}: one nonce would be used \
         twice (RFC 4106 section 2)",
        other.direction,
        other.label(),
    )
}
