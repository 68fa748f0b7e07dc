//! How an inbound SA is found, and how it treats packets.

use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_engine::options::Lookup;
use culvert_engine::options::Receiving;
use culvert_esp::Mode;
use culvert_esp::PaddingCheck;
use culvert_esp::ecn::DscpPolicy;
use culvert_spd::Selector;

use super::identity::Identity;
use crate::config::address;
use crate::config::error::ConfigError;
use crate::config::reader::Field;
use crate::config::reader::Section;
use crate::config::selector;

/// Keys of what comes out.
pub(super) const KEYS: [&str; 7] = [
    "lookup",
    "selectors",
    "decap_dscp",
    "padding",
    "icmp_errors",
    "original_source",
    "original_destination",
];

pub(super) fn read(
    section: &Section<'_>,
    identity: &Identity,
) -> Result<(Lookup, Vec<Selector>, Receiving), ConfigError> {
    const DSCPS: [(&str, DscpPolicy); 2] =
        [("keep", DscpPolicy::KeepInner), ("copy", DscpPolicy::CopyOuter)];
    const PADDINGS: [(&str, PaddingCheck); 3] = [
        ("strict", PaddingCheck::Strict),
        ("count", PaddingCheck::Count),
        ("off", PaddingCheck::Off),
    ];
    const ICMP_ERRORS: [(&str, bool); 2] = [("policy", false), ("enclosed", true)];
    check(section, identity)?;
    let default = Receiving::default();
    let padding = section.optional("padding").map(|field| field.word(&PADDINGS)).transpose()?;
    let dscp = section.optional("decap_dscp").map(|field| field.word(&DSCPS)).transpose()?;
    let errors = section.optional("icmp_errors");
    let errors = errors.map(|field| field.word(&ICMP_ERRORS)).transpose()?;
    let receiving = Receiving {
        within: None,
        padding: padding.unwrap_or(default.padding),
        dscp: dscp.unwrap_or(default.dscp),
        enclosed_errors: errors.unwrap_or(default.enclosed_errors),
        original: original(section, identity)?,
    };
    Ok((lookup(section, identity)?, selectors(section)?, receiving))
}

/// Refuses what the protocol or the mode leaves without meaning.
fn check(section: &Section<'_>, identity: &Identity) -> Result<(), ConfigError> {
    if identity.protocol == Protocol::Ah {
        section.refuse(&["padding"], "expected in ESP SAs only: AH has no padding of its own")?;
        section.refuse(
            &["original_source", "original_destination"],
            "expected in ESP SAs only: AH covers the addresses that a NAT changes (RFC 3948 \
             section 1)",
        )?;
    }
    match identity.mode {
        Mode::Tunnel => section.refuse(
            &["original_source", "original_destination"],
            "expected in transport mode only: a tunnel carries the addresses inside (RFC 3948 \
             section 3.1.1)",
        ),
        Mode::Transport => section
            .refuse(&["decap_dscp"], "expected in tunnel mode only, which has an outer header"),
    }
}

fn lookup(section: &Section<'_>, identity: &Identity) -> Result<Lookup, ConfigError> {
    const LOOKUPS: [(&str, Lookup); 3] = [
        ("spi", Lookup::Spi),
        ("destination", Lookup::SpiDestination),
        ("source", Lookup::SpiDestinationSource),
    ];
    let Some(field) = section.optional("lookup") else {
        return Ok(Lookup::default());
    };
    let lookup = field.word(&LOOKUPS)?;
    if lookup == Lookup::Spi && identity.destination.is_multicast() {
        return Err(field.wrong(
            "\"destination\" or \"source\" for a multicast group, whose SPIs others chose (RFC \
             4303 section 2.1)",
        ));
    }
    Ok(lookup)
}

/// The addresses the sender computed checksums with; one that is not given is the SA's.
fn original(
    section: &Section<'_>,
    identity: &Identity,
) -> Result<Option<(IpAddr, IpAddr)>, ConfigError> {
    let read = |key, like: IpAddr| match section.optional(key) {
        Some(field) => {
            let address = address::host(&field)?;
            address::expect_family(&field, address, like, "the SA's address")?;
            Ok(Some(address))
        }
        None => Ok(None),
    };
    let source = read("original_source", identity.source)?;
    let destination = read("original_destination", identity.destination)?;
    if source.is_none() && destination.is_none() {
        return Ok(None);
    }
    Ok(Some((source.unwrap_or(identity.source), destination.unwrap_or(identity.destination))))
}

fn selectors(section: &Section<'_>) -> Result<Vec<Selector>, ConfigError> {
    let Some(field) = section.optional("selectors") else {
        return Ok(Vec::new());
    };
    let fields: Vec<Field<'_>> = field.list("a list of tables such as [{ protocol = \"udp\" }]")?;
    let mut selectors = Vec::with_capacity(fields.len());
    for field in fields {
        let section = field.section(&selector::KEYS)?;
        selectors.extend(selector::read(&section, selector::Addresses::Optional)?);
    }
    Ok(selectors)
}
