//! `[[sa]]`: security associations with keys from the file.
//!
//! 1. Each table is read on its own: types, ranges, and what its fields demand of each other.
//! 2. The SAs are compared: names, SPIs, and no key and salt under which two senders would
//!    count up the same nonces.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;

use super::Lab;
use super::error::ConfigError;
use super::error::shown;
use super::reader::Field;
use super::reader::Section;

/// Keys of `[[sa]]`.
pub(super) const KEYS: [&str; 12] = [
    "name",
    "direction",
    "spi",
    "mode",
    "source",
    "destination",
    "algorithm",
    "key",
    "esn",
    "sequence",
    "replay_window",
    "encapsulation",
];

/// Keys of `encapsulation`.
pub(super) const ENCAPSULATION_KEYS: [&str; 2] = ["source_port", "destination_port"];

/// Port of UDP-encapsulated ESP (RFC 3948), the one the XDP program steers.
const PORT_NAT_T: u16 = 4500;

/// Port of IKE without encapsulation; ESP never uses it.
const PORT_IKE: u16 = 500;

/// Lowest SPI that names an SA (RFC 4303 section 2.1).
const SPI_MIN: u32 = 256;

/// Window of an SA that does not say: bursts that cross from one worker to another are reordered
/// by more than the 64 packets that RFC 4303 section 3.4.3 prefers.
const REPLAY_WINDOW: u32 = 1024;

/// Longest name of an SA, in octets.
const NAME_MAX: usize = 64;

const AN_ADDRESS: &str = "an IPv4 or IPv6 address";
const AN_SPI: &str = "an SPI such as \"0x1001\" or 4097";

/// Algorithms that are known and never used, by their keyword without its key length.
const REFUSED: [(&str, &str); 9] = [
    ("des", "its key of 56 bits can be searched (RFC 8221 section 5)"),
    ("3des", "its blocks of 64 bits repeat too soon (RFC 8221 section 5)"),
    ("blowfish", "its blocks of 64 bits repeat too soon (RFC 8221 section 5)"),
    ("cast", "its blocks of 64 bits repeat too soon (RFC 8221 section 5)"),
    ("null", "it encrypts nothing"),
    ("aes128gmac", "it encrypts nothing (RFC 4543)"),
    ("aes192gmac", "it encrypts nothing (RFC 4543)"),
    ("aes256gmac", "it encrypts nothing (RFC 4543)"),
    ("md5", "its hash is broken (RFC 8221 section 6)"),
];

/// Which way packets go through an SA or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From ESP to plaintext.
    Inbound,
    /// From plaintext to ESP.
    Outbound,
}

/// The words of the file for a direction.
pub(super) const DIRECTIONS: [(&str, Direction); 2] =
    [("inbound", Direction::Inbound), ("outbound", Direction::Outbound)];

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        })
    }
}

/// What an SA protects of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SaMode {
    /// The whole IP packet, behind an outer header.
    #[default]
    Tunnel,
}

/// UDP ports around the ESP packets of an SA (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encapsulation {
    /// Source port; never 0 or 500.
    pub source_port: u16,
    /// Destination port; never 0 or 500, and 4500 for an inbound SA.
    pub destination_port: u16,
}

/// One SA, as the file describes it.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Name by which policies call it; no two SAs have the same.
    pub name: Option<String>,
    /// Which way its packets go.
    pub direction: Direction,
    /// SPI, 256 or more; unique among the inbound SAs, and among the outbound SAs to one
    /// destination.
    pub spi: u32,
    /// What it protects of a packet.
    pub mode: SaMode,
    /// Source address of the outer header.
    pub source: IpAddr,
    /// Destination address of the outer header; of the same family as `source`.
    pub destination: IpAddr,
    /// Encryption and integrity.
    pub algorithm: Algorithm,
    /// Key, then salt; of the length the algorithm takes.
    pub keymat: Keymat,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Last number used (outbound) or highest number seen (inbound); below 2^32 without ESN.
    pub sequence: u64,
    /// Packets the replay window remembers, 64 to 65536; without effect on an outbound SA.
    pub replay_window: u32,
    /// UDP around ESP; `None` is raw ESP.
    pub encapsulation: Option<Encapsulation>,
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
pub(super) fn read(sections: &[Section<'_>], lab: Lab) -> Result<Vec<Sa>, ConfigError> {
    let sas = sections.iter().map(|section| read_one(section, lab));
    let sas = sas.collect::<Result<Vec<Sa>, ConfigError>>()?;
    compare(sections, &sas)?;
    Ok(sas)
}

fn read_one(section: &Section<'_>, lab: Lab) -> Result<Sa, ConfigError> {
    if section.optional("key").is_some() && !lab.static_keys {
        return Err(section.error(
            "key",
            "refused without `static_keys = true` in [lab]: a restart with the same key can use \
             a nonce twice, which lays AES-GCM open (RFC 4106 section 2); keys in a file are for \
             labs and tests",
        ));
    }
    let name = section.optional("name").as_ref().map(name).transpose()?;
    let direction =
        section.required("direction", "\"inbound\" or \"outbound\"")?.word(&DIRECTIONS)?;
    let spi = spi(&section.required("spi", AN_SPI)?)?;
    let mode = section.optional("mode").as_ref().map(mode).transpose()?.unwrap_or_default();
    let (source, destination) = addresses(section)?;
    let algorithm = algorithm(&section.required("algorithm", Keywords)?)?;
    let keymat = keymat(section, algorithm)?;
    let esn = section.optional("esn").map_or(Ok(false), |field| field.flag())?;
    let sequence = section.optional("sequence").map_or(Ok(0), |field| sequence(&field, esn))?;
    let replay_window = section
        .optional("replay_window")
        .map_or(Ok(REPLAY_WINDOW), |field| field.number(64..=65536))?;
    let encapsulation = section
        .optional("encapsulation")
        .map(|field| encapsulation(field, direction))
        .transpose()?;
    Ok(Sa {
        name,
        direction,
        spi,
        mode,
        source,
        destination,
        algorithm,
        keymat,
        esn,
        sequence,
        replay_window,
        encapsulation,
        line: section.line(),
    })
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

fn mode(field: &Field<'_>) -> Result<SaMode, ConfigError> {
    if field.as_text() == Some("transport") {
        return Err(field.error("transport mode is not supported yet: expected \"tunnel\""));
    }
    field.word(&[("tunnel", SaMode::Tunnel)])
}

fn addresses(section: &Section<'_>) -> Result<(IpAddr, IpAddr), ConfigError> {
    let source = address(&section.required("source", AN_ADDRESS)?)?;
    let field = section.required("destination", AN_ADDRESS)?;
    let destination = address(&field)?;
    if source.is_ipv4() != destination.is_ipv4() {
        let family = if source.is_ipv4() { "an IPv4" } else { "an IPv6" };
        return Err(field.wrong(format_args!("{family} address, as the source is one")));
    }
    Ok((source, destination))
}

fn address(field: &Field<'_>) -> Result<IpAddr, ConfigError> {
    let address: IpAddr = field.text(AN_ADDRESS)?.parse().map_err(|_| field.wrong(AN_ADDRESS))?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(field.wrong("the address of one host"));
    }
    Ok(address)
}

/// The keywords of all algorithms, for messages.
struct Keywords;

impl fmt::Display for Keywords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of ")?;
        for (index, algorithm) in Algorithm::ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{algorithm}")?;
        }
        Ok(())
    }
}

fn algorithm(field: &Field<'_>) -> Result<Algorithm, ConfigError> {
    let text = field.text(Keywords)?;
    if let Ok(algorithm) = text.parse() {
        return Ok(algorithm);
    }
    // Proposals such as `3des-md5` name their parts with hyphens between.
    for part in text.split(['-', '_']) {
        let part = part.to_ascii_lowercase();
        let is =
            |word| part.strip_prefix(word).is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        if let Some((word, reason)) = REFUSED.iter().find(|&&(word, _)| is(word)) {
            return Err(
                field.error(format_args!("{word} is refused, {reason}: expected {Keywords}"))
            );
        }
    }
    Err(field.wrong(Keywords))
}

/// Reads the key. No message quotes a digit of it.
fn keymat(section: &Section<'_>, algorithm: Algorithm) -> Result<Keymat, ConfigError> {
    let expected = format!(
        "{} hexadecimal digits ({} octets of key, then {} of salt) for {algorithm}",
        2 * algorithm.keymat_len(),
        algorithm.key_len(),
        algorithm.keymat_len() - algorithm.key_len(),
    );
    let field = section.required("key", &expected)?;
    let wrong =
        |found: &dyn fmt::Display| field.error(format_args!("expected {expected}, found {found}"));
    let Some(text) = field.as_text() else {
        return Err(wrong(&field.kind()));
    };
    if let Some(at) = text.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(wrong(&format_args!("something else at character {}", at + 1)));
    }
    if text.len() != 2 * algorithm.keymat_len() {
        return Err(wrong(&text.len()));
    }
    Keymat::from_hex(text).map_err(|_| wrong(&"something else"))
}

fn sequence(field: &Field<'_>, esn: bool) -> Result<u64, ConfigError> {
    if esn {
        return field.number(0..=u64::MAX);
    }
    let last = u64::from(u32::MAX);
    match field.as_number() {
        Some(number) if number > last => Err(field.wrong(format_args!(
            "an integer from 0 to {last}, the last number without esn = true"
        ))),
        _ => field.number(0..=last),
    }
}

fn encapsulation(field: Field<'_>, direction: Direction) -> Result<Encapsulation, ConfigError> {
    let section = field.section(&ENCAPSULATION_KEYS)?;
    let source_port = port(&section, "source_port")?;
    let destination_port = port(&section, "destination_port")?;
    if direction == Direction::Inbound && destination_port != PORT_NAT_T {
        return Err(section.error(
            "destination_port",
            format_args!(
                "expected {PORT_NAT_T}, the one port at which encapsulated ESP is received, \
                 found `{destination_port}`"
            ),
        ));
    }
    Ok(Encapsulation { source_port, destination_port })
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

/// SAs that have one key and salt: the first of either direction, and the first outbound one.
#[derive(Default)]
struct SameKey {
    any: Option<usize>,
    outbound: Option<usize>,
}

/// Refuses what two SAs may not share. Each is compared with those above it.
fn compare(sections: &[Section<'_>], sas: &[Sa]) -> Result<(), ConfigError> {
    let mut names = BTreeMap::new();
    let mut inbound = BTreeMap::new();
    let mut outbound = BTreeMap::new();
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
        let other = match sa.direction {
            Direction::Inbound => inbound.insert(sa.spi, index),
            Direction::Outbound => outbound.insert((sa.spi, sa.destination), index),
        };
        if let Some(other) = other {
            return Err(section.error("spi", same_spi(sa, &sas[other])));
        }
        let same = keys.entry(sa.keymat.as_bytes()).or_default();
        let other = match sa.direction {
            Direction::Inbound => same.outbound,
            Direction::Outbound => same.any,
        };
        if let Some(other) = other {
            return Err(section.error("key", same_key(sa, &sas[other])));
        }
        same.any.get_or_insert(index);
        if sa.direction == Direction::Outbound {
            same.outbound.get_or_insert(index);
        }
    }
    Ok(())
}

fn same_spi(sa: &Sa, other: &Sa) -> String {
    let scope = match sa.direction {
        Direction::Inbound => String::new(),
        Direction::Outbound => format!(" to {}", sa.destination),
    };
    format!(
        "expected an SPI that no other {} SA{scope} has, found {:#x}, the SPI of the SA {}",
        sa.direction,
        sa.spi,
        other.label(),
    )
}

/// Two senders under one key and salt both count from the same numbers, so they use the same
/// nonces. Two inbound SAs are not refused: what their senders do shows at their end.
fn same_key(sa: &Sa, other: &Sa) -> String {
    format!(
        "expected a key or salt of its own: the {} SA {} has those of the {} SA {}, so one nonce \
         would be used twice (RFC 4106 section 2)",
        sa.direction,
        sa.label(),
        other.direction,
        other.label(),
    )
}
