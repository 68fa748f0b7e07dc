//! UDP around the ESP packets of an SA (RFC 3948).

use culvert_aead::Protocol;

use super::Direction;
use super::Encapsulation;
use super::identity::Identity;
use crate::config::error::ConfigError;
use crate::config::reader::Section;

/// Keys of `encapsulation`.
pub(in crate::config) const KEYS: [&str; 2] = ["source_port", "destination_port"];

/// Port of UDP-encapsulated ESP (RFC 3948), the one the XDP program steers.
const PORT_NAT_T: u16 = 4500;

/// Port of IKE without encapsulation; ESP never uses it.
const PORT_IKE: u16 = 500;

pub(super) fn read(
    section: &Section<'_>,
    identity: &Identity,
) -> Result<Option<Encapsulation>, ConfigError> {
    let Some(field) = section.optional("encapsulation") else {
        return Ok(None);
    };
    if identity.protocol == Protocol::Ah {
        return Err(field.error(
            "expected in ESP SAs only: AH covers the addresses that a NAT changes (RFC 3948 \
             section 1)",
        ));
    }
    let section = field.section(&KEYS)?;
    let source_port = port(&section, "source_port")?;
    let destination_port = port(&section, "destination_port")?;
    if identity.direction == Direction::Inbound && destination_port != PORT_NAT_T {
        return Err(section.error(
            "destination_port",
            format_args!(
                "expected {PORT_NAT_T}, the one port at which encapsulated ESP is received, \
                 found `{destination_port}`"
            ),
        ));
    }
    Ok(Some(Encapsulation { source_port, destination_port }))
}

fn port(section: &Section<'_>, key: &str) -> Result<u16, ConfigError> {
    let Some(field) = section.optional(key) else {
        return Ok(PORT_NAT_T);
    };
    let port = field.number(1..=u16::MAX)?;
    if port == PORT_IKE {
        return Err(field.wrong(format_args!(
            "a port other than {PORT_IKE}, which is for IKE alone (RFC 7296 section 2.23)"
        )));
    }
    Ok(port)
}
