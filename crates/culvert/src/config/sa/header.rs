//! The outer header of an outbound tunnel (RFC 4301 section 5.1.2).

use culvert_esp::HeaderOptions;
use culvert_esp::template::Df;
use culvert_esp::template::Dscp;
use culvert_esp::template::EcnMode;
use culvert_esp::template::FlowLabel;
use culvert_esp::template::Ttl;

use super::identity::Identity;
use crate::config::error::ConfigError;
use crate::config::reader::Field;
use crate::config::reader::Section;

/// Keys of the outer header.
const KEYS: [&str; 5] = ["dscp", "ecn", "df", "ttl", "flow_label"];

/// Highest codepoint of six bits.
const DSCP_MAX: u8 = 63;

/// Highest flow label of twenty bits.
const FLOW_LABEL_MAX: u32 = 0xf_ffff;

const DSCP: &str = "\"copy\", an integer from 0 to 63 or a table such as { \"10\" = 46 }";

pub(super) fn read(
    section: &Section<'_>,
    identity: &Identity,
) -> Result<HeaderOptions, ConfigError> {
    const ECN_MODES: [(&str, EcnMode); 2] =
        [("normal", EcnMode::Normal), ("compatibility", EcnMode::Compatibility)];
    const DFS: [(&str, Df); 3] = [("copy", Df::Copy), ("set", Df::Set), ("clear", Df::Clear)];
    const TTLS: [(&str, Ttl); 1] = [("copy", Ttl::Copy)];
    if !identity.encapsulates() {
        section.refuse(&KEYS, "expected in tunnel mode only, which makes an outer header")?;
    }
    if identity.destination.is_ipv4() {
        section.refuse(&["flow_label"], "expected with IPv6 addresses only")?;
    } else {
        section.refuse(&["df"], "expected with IPv4 addresses only")?;
    }
    let default = HeaderOptions::default();
    let dscp = section.optional("dscp").as_ref().map(dscp).transpose()?;
    let ecn = section.optional("ecn").map(|field| field.word(&ECN_MODES)).transpose()?;
    let df = section.optional("df").map(|field| field.word(&DFS)).transpose()?;
    let ttl = section.optional("ttl");
    let ttl = ttl.map(|field| field.number_or(&TTLS, 1..=u8::MAX, Ttl::Fixed)).transpose()?;
    let flow_label = section.optional("flow_label");
    let flow_label = flow_label.map(|field| field.number(0..=FLOW_LABEL_MAX)).transpose()?;
    Ok(HeaderOptions {
        dscp: dscp.unwrap_or(default.dscp),
        ecn: ecn.unwrap_or(default.ecn),
        df: df.unwrap_or(default.df),
        ttl: ttl.unwrap_or(default.ttl),
        flow_label: flow_label.map_or(default.flow_label, FlowLabel::Set),
    })
}

fn dscp(field: &Field<'_>) -> Result<Dscp, ConfigError> {
    if field.as_text() == Some("copy") {
        return Ok(Dscp::Copy);
    }
    let Some(entries) = field.entries() else {
        let number = field.as_number().and_then(|number| u8::try_from(number).ok());
        let number = number.filter(|&number| number <= DSCP_MAX);
        return number.map(Dscp::Set).ok_or_else(|| field.wrong(DSCP));
    };
    // What the table does not name is copied.
    let mut map =
        Box::new(std::array::from_fn(|codepoint| u8::try_from(codepoint).expect("one of 64")));
    for (inner, outer) in entries {
        let inner = inner.parse().ok().filter(|&inner: &usize| inner < map.len());
        let Some(inner) = inner else {
            return Err(outer.error("expected a DSCP from 0 to 63 as key"));
        };
        map[inner] = outer.number(0..=DSCP_MAX)?;
    }
    Ok(Dscp::Map(map))
}
