//! What an SA is: its name, and what tells it from other SAs.

use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_esp::Mode;

use super::Direction;
use crate::config::address;
use crate::config::error::ConfigError;
use crate::config::reader::Field;
use crate::config::reader::Section;

/// Lowest SPI that names an SA (RFC 4303 section 2.1).
const SPI_MIN: u32 = 256;

/// Longest name of an SA, in octets.
const NAME_MAX: usize = 64;

const AN_SPI: &str = "an SPI such as \"0x1001\" or 4097";

/// The words of the file for a direction.
pub(in crate::config) const DIRECTIONS: [(&str, Direction); 2] =
    [("inbound", Direction::Inbound), ("outbound", Direction::Outbound)];

/// What the other fields of an SA depend on.
pub(super) struct Identity {
    pub(super) name: Option<String>,
    pub(super) group: Option<String>,
    pub(super) direction: Direction,
    pub(super) spi: u32,
    pub(super) protocol: Protocol,
    pub(super) mode: Mode,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl Identity {
    /// True for an SA that puts packets into a tunnel.
    pub(super) fn encapsulates(&self) -> bool {
        self.direction == Direction::Outbound && self.mode == Mode::Tunnel
    }
}

pub(super) fn read(section: &Section<'_>) -> Result<Identity, ConfigError> {
    const PROTOCOLS: [(&str, Protocol); 2] = [("esp", Protocol::Esp), ("ah", Protocol::Ah)];
    const MODES: [(&str, Mode); 2] = [("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];
    let name = section.optional("name").as_ref().map(name).transpose()?;
    let group = section.optional("group").as_ref().map(self::name).transpose()?;
    let direction =
        section.required("direction", "\"inbound\" or \"outbound\"")?.word(&DIRECTIONS)?;
    let spi = spi(&section.required("spi", AN_SPI)?)?;
    let protocol = section.optional("protocol");
    let protocol = protocol.map_or(Ok(Protocol::Esp), |field| field.word(&PROTOCOLS))?;
    let mode = section.optional("mode").map_or(Ok(Mode::Tunnel), |field| field.word(&MODES))?;
    let (source, destination) = address::pair(section)?;
    Ok(Identity { name, group, direction, spi, protocol, mode, source, destination })
}

/// A name is also a word in counters, logs and file names, so its characters are few.
fn name(field: &Field<'_>) -> Result<String, ConfigError> {
    let expected = format!("a name of 1 to {NAME_MAX} letters, digits, \"-\", \"_\" or \".\"");
    let text = field.text(&expected)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(good) {
        return Err(field.wrong(expected));
    }
    Ok(text.to_owned())
}

/// An SPI is an integer or a string in hexadecimal with its prefix: `"1001"` could be meant
/// either way.
fn spi(field: &Field<'_>) -> Result<u32, ConfigError> {
    let number = match field.as_text() {
        Some(text) => text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok()),
        None => field.as_number(),
    };
    let number = number.ok_or_else(|| field.wrong(AN_SPI))?;
    u32::try_from(number).ok().filter(|&spi| spi >= SPI_MIN).ok_or_else(|| {
        field.wrong(format_args!(
            "an SPI from {SPI_MIN:#x} to {:#x} (RFC 4303 section 2.1 reserves 0 to 255)",
            u32::MAX,
        ))
    })
}
