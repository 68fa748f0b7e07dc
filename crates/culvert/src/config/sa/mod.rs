//! `[[sa]]`: security associations with keys from the file.
//!
//! 1. Each table is read on its own: types, ranges, and what its fields demand of each other.
//!    - [`identity`]: name, direction, SPI, protocol, mode, addresses, group.
//!    - [`secret`]: algorithm and key.
//!    - [`numbers`]: sequence numbers, the replay window, lifetimes.
//!    - [`encapsulation`]: UDP around ESP.
//!    - [`header`]: the outer header of an outbound tunnel.
//!    - [`sending`] and [`receiving`]: all else about one direction.
//! 2. The SAs are compared: names, groups, SPIs, and no key and salt under which two senders would
//!    count up the same nonces ([`compare`]).

mod compare;
mod encapsulation;
mod header;
mod identity;
mod numbers;
mod receiving;
mod secret;
mod sending;

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_engine::WorkerId;
use culvert_engine::options::Lookup;
use culvert_engine::options::Receiving;
use culvert_engine::options::Sending;
use culvert_esp::HeaderOptions;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_spd::Selector;

use super::Lab;
use super::Workers;
use super::error::ConfigError;
use super::error::shown;
use super::reader::Section;

pub use culvert_control::Direction;
pub use culvert_esp::Encapsulation;

#[cfg(test)]
pub(super) use self::encapsulation::KEYS as ENCAPSULATION_KEYS;
pub(super) use self::identity::DIRECTIONS;
#[cfg(test)]
pub(super) use self::numbers::LIMITS_KEYS;

/// Keys of `[[sa]]`.
pub(super) const KEYS: [&str; 39] = [
    "name",
    "group",
    "direction",
    "spi",
    "protocol",
    "mode",
    "source",
    "destination",
    "algorithm",
    "allow_short_icv",
    "key",
    "esn",
    "sequence",
    "sequence_unspecified",
    "replay_window",
    "soft_lifetime",
    "hard_lifetime",
    "encapsulation",
    "behind_nat",
    "keepalive",
    "dscp",
    "ecn",
    "df",
    "ttl",
    "flow_label",
    "tfc",
    "dummy_interval",
    "fragmentation",
    "mss_clamp",
    "trust_icmp",
    "path_mtu_floor",
    "resource",
    "lookup",
    "selectors",
    "decap_dscp",
    "padding",
    "icmp_errors",
    "original_source",
    "original_destination",
];

/// Keys of what goes in.
const OUTBOUND_ONLY: [&str; 14] = [
    "allow_short_icv",
    "behind_nat",
    "keepalive",
    "dscp",
    "ecn",
    "df",
    "ttl",
    "flow_label",
    "tfc",
    "dummy_interval",
    "fragmentation",
    "mss_clamp",
    "trust_icmp",
    "path_mtu_floor",
];

/// One SA, as the file describes it.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Name by which policies call it; no two SAs have the same.
    pub name: Option<String>,
    /// Name by which policies call it and others of its direction together.
    pub group: Option<String>,
    /// Which way its packets go.
    pub direction: Direction,
    /// SPI, 256 or more; unique among the SAs that the same packets would find.
    pub spi: u32,
    /// What it protects of a packet.
    pub mode: Mode,
    /// Source address of the outer header; in transport mode that of the packets.
    pub source: IpAddr,
    /// Destination address, as the source and of its family.
    pub destination: IpAddr,
    /// Encryption and integrity, and with them the protocol: ESP or AH.
    pub algorithm: Algorithm,
    /// Encryption key, integrity key, salt; of the lengths the algorithm takes.
    pub keymat: Keymat,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Last number used (outbound) or highest number seen (inbound); below 2^32 without ESN.
    pub sequence: u64,
    /// Packets the replay window remembers, 64 to 65536, or 0 for no anti-replay; without effect
    /// on an outbound SA.
    pub replay_window: u32,
    /// Soft and hard limits.
    pub lifetime: Lifetime,
    /// UDP around ESP; `None` is raw ESP.
    pub encapsulation: Option<Encapsulation>,
    /// Of an outbound tunnel: the outer header.
    pub header: HeaderOptions,
    /// Of an outbound SA: how it treats packets.
    pub sending: Sending,
    /// Of an outbound SA: the worker whose own it is (RFC 9611).
    pub resource: Option<WorkerId>,
    /// Of an inbound SA: which addresses take part in finding it.
    pub lookup: Lookup,
    /// Of an inbound SA: selectors of its own; empty leaves it to the policies.
    pub selectors: Vec<Selector>,
    /// Of an inbound SA: how it treats packets. [`Receiving::within`] is for the policies to say.
    pub receiving: Receiving,
    /// Line of its header in the file.
    pub line: usize,
}

impl Sa {
    /// How messages call it: by its name, if it has one, and line.
    pub(super) fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} (line {})", shown(name), self.line),
            None => format!("of line {}", self.line),
        }
    }
}

/// Reads and compares the SAs.
pub(super) fn read(
    sections: &[Section<'_>],
    lab: Lab,
    workers: &Workers,
) -> Result<Vec<Sa>, ConfigError> {
    let sas = sections.iter().map(|section| read_one(section, lab, workers));
    let sas = sas.collect::<Result<Vec<Sa>, ConfigError>>()?;
    compare::compare(sections, &sas)?;
    Ok(sas)
}

fn read_one(section: &Section<'_>, lab: Lab, workers: &Workers) -> Result<Sa, ConfigError> {
    secret::check_lab(section, lab)?;
    let identity = identity::read(section)?;
    match identity.direction {
        Direction::Inbound => section.refuse(&OUTBOUND_ONLY, "expected in outbound SAs only")?,
        Direction::Outbound => {
            section.refuse(&receiving::KEYS, "expected in inbound SAs only")?;
        }
    }
    let algorithm = secret::algorithm(section, &identity)?;
    let keymat = secret::keymat(section, algorithm)?;
    let numbers = numbers::read(section)?;
    let lifetime = numbers::lifetime(section)?;
    let encapsulation = encapsulation::read(section, &identity)?;
    let resource = sending::resource(section, &identity, workers)?;
    let header = header::read(section, &identity)?;
    let sending = sending::read(section, &identity, encapsulation.is_some())?;
    let (lookup, selectors, receiving) = receiving::read(section, &identity)?;
    Ok(Sa {
        name: identity.name,
        group: identity.group,
        direction: identity.direction,
        spi: identity.spi,
        mode: identity.mode,
        source: identity.source,
        destination: identity.destination,
        algorithm,
        keymat,
        esn: numbers.esn,
        sequence: numbers.sequence,
        replay_window: numbers.replay_window,
        lifetime,
        encapsulation,
        header,
        sending,
        resource,
        lookup,
        selectors,
        receiving,
        line: section.line(),
    })
}
