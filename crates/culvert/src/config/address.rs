//! Addresses, prefixes and ranges as the file writes them.

use std::net::IpAddr;

use super::error::ConfigError;
use super::reader::Field;
use super::reader::Section;

/// What an address is, for messages.
pub(super) const AN_ADDRESS: &str = "an IPv4 or IPv6 address";

/// An address that a host or a group of hosts can have.
pub(super) fn any(field: &Field<'_>) -> Result<IpAddr, ConfigError> {
    let address: IpAddr = field.text(AN_ADDRESS)?.parse().map_err(|_| field.wrong(AN_ADDRESS))?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || broadcast {
        return Err(field.wrong("the address of one host"));
    }
    Ok(address)
}

/// The address of one host.
pub(super) fn host(field: &Field<'_>) -> Result<IpAddr, ConfigError> {
    let address = any(field)?;
    if address.is_multicast() {
        return Err(field.wrong("the address of one host"));
    }
    Ok(address)
}

/// Source and destination of an SA: of one family, and only the second may be a multicast group.
pub(super) fn pair(section: &Section<'_>) -> Result<(IpAddr, IpAddr), ConfigError> {
    let source = host(&section.required("source", AN_ADDRESS)?)?;
    let field = section.required("destination", AN_ADDRESS)?;
    let destination = any(&field)?;
    expect_family(&field, destination, source, "the source")?;
    Ok((source, destination))
}

/// Refuses an address that is not of the family of another one, which is called `name`.
pub(super) fn expect_family(
    field: &Field<'_>,
    address: IpAddr,
    other: IpAddr,
    name: &str,
) -> Result<(), ConfigError> {
    if address.is_ipv4() == other.is_ipv4() {
        return Ok(());
    }
    let family = if other.is_ipv4() { "an IPv4" } else { "an IPv6" };
    Err(field.wrong(format_args!("{family} address, as {name} is one")))
}
