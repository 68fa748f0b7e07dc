//! What the command line says: SPIs, marks, networks, keys, templates.

use std::fs;
use std::io;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use clap::ValueEnum;
use culvert_aead::Keymat;
use culvert_xfrm::Attribute;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Port;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::selector::Selector;
use ipnet::IpNet;
use zeroize::Zeroizing;

/// Largest key file, in octets.
const KEY_FILE_MAX: u64 = 4096;

/// ESP or AH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Esp,
    Ah,
}

/// Tunnel or transport mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    Tunnel,
    Transport,
}

impl Protocol {
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Esp => sa::ESP,
            Protocol::Ah => sa::AH,
        }
    }

    pub(super) fn aead(self) -> culvert_aead::Protocol {
        match self {
            Protocol::Esp => culvert_aead::Protocol::Esp,
            Protocol::Ah => culvert_aead::Protocol::Ah,
        }
    }
}

impl Mode {
    pub(super) fn xfrm(self) -> sa::Mode {
        match self {
            Mode::Tunnel => sa::Mode::TUNNEL,
            Mode::Transport => sa::Mode::TRANSPORT,
        }
    }
}

/// A number, decimal or hexadecimal with `0x`.
fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a number of 32 bits, such as 4097 or 0x1001".to_owned())
}

/// An SPI. Those up to 255 are reserved (RFC 4303 section 2.1); what is not an SA's is refused by
/// the gateway.
pub(super) fn spi(text: &str) -> Result<u32, String> {
    number(text)
}

/// VALUE or VALUE/MASK.
pub(super) fn mark(text: &str) -> Result<Mark, String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Ok(Mark { value: number(value)?, mask: number(mask)? })
}

/// Ports of encapsulation, SOURCE:DESTINATION.
pub(super) fn encap(text: &str) -> Result<(u16, u16), String> {
    let ports = text
        .split_once(':')
        .and_then(|(source, destination)| Some((source.parse().ok()?, destination.parse().ok()?)));
    ports.ok_or("expected two ports, such as 4500:4500".to_owned())
}

/// A network, or an address for the network that is it alone.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let address = |_| text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(address);
    network.map_err(|_| "expected a network, such as 10.1.0.0/16 or fd00::/64".to_owned())
}

/// A protocol by name or number.
pub(super) fn upper(text: &str) -> Result<u8, String> {
    let by_name = match text {
        "any" => Some(0),
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmpv6" => Some(58),
        "sctp" => Some(132),
        _ => None,
    };
    by_name
        .or_else(|| text.parse().ok())
        .ok_or("expected any, icmp, tcp, udp, icmpv6, sctp, or a number up to 255".to_owned())
}

/// Which packets.
#[derive(Clone, Debug, Args)]
pub(super) struct SelectorArgs {
    /// Source network of the packets.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    source: Option<IpNet>,
    /// Destination network of the packets.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    destination: Option<IpNet>,
    /// Protocol above IP, by name or number.
    #[arg(long, value_parser = upper, default_value = "any")]
    protocol: u8,
    /// Source port; of ICMP the type.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Destination port; of ICMP the code.
    #[arg(long, value_name = "PORT")]
    destination_port: Option<u16>,
}

impl SelectorArgs {
    /// Nothing when no network is given.
    pub(super) fn selector(&self) -> anyhow::Result<Option<Selector>> {
        let (source, destination) = match (self.source, self.destination) {
            (Some(source), Some(destination)) => (source, destination),
            (None, None) => return Ok(None),
            _ => bail!("--source and --destination: expected both"),
        };
        let family = Family::of(source.addr());
        if family != Family::of(destination.addr()) {
            bail!("--source and --destination: expected networks of one family");
        }
        let port = |port: Option<u16>| match port {
            Some(port) => (Port(port), Port(u16::MAX)),
            None => (Port(0), Port(0)),
        };
        let ((sport, sport_mask), (dport, dport_mask)) =
            (port(self.source_port), port(self.destination_port));
        Ok(Some(Selector {
            saddr: source.network().into(),
            daddr: destination.network().into(),
            prefixlen_s: source.prefix_len(),
            prefixlen_d: destination.prefix_len(),
            family,
            proto: self.protocol,
            sport,
            sport_mask,
            dport,
            dport_mask,
            ..Selector::default()
        }))
    }
}

/// Which XFRM interface and mark.
#[derive(Clone, Debug, Args)]
pub(super) struct ScopeArgs {
    /// XFRM interface.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    if_id: u32,
    /// Mark, as VALUE or VALUE/MASK.
    #[arg(long, value_parser = mark)]
    mark: Option<Mark>,
}

impl ScopeArgs {
    pub(super) fn attributes(&self) -> impl Iterator<Item = Attribute> {
        let mark = self.mark.map(Attribute::Mark);
        mark.into_iter().chain((self.if_id != 0).then_some(Attribute::IfId(self.if_id)))
    }
}

/// When to replace (soft) and when to stop (hard).
#[derive(Clone, Debug, Args)]
pub(super) struct LimitArgs {
    /// Octets until it needs a successor.
    #[arg(long, value_name = "NUMBER")]
    soft_bytes: Option<u64>,
    /// Octets until it ends.
    #[arg(long, value_name = "NUMBER")]
    hard_bytes: Option<u64>,
    /// Packets until it needs a successor.
    #[arg(long, value_name = "NUMBER")]
    soft_packets: Option<u64>,
    /// Packets until it ends.
    #[arg(long, value_name = "NUMBER")]
    hard_packets: Option<u64>,
    /// Seconds until it needs a successor.
    #[arg(long, value_name = "SECONDS")]
    soft_seconds: Option<u64>,
    /// Seconds until it ends.
    #[arg(long, value_name = "SECONDS")]
    hard_seconds: Option<u64>,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            soft_bytes: self.soft_bytes.unwrap_or(INFINITE),
            hard_bytes: self.hard_bytes.unwrap_or(INFINITE),
            soft_packets: self.soft_packets.unwrap_or(INFINITE),
            hard_packets: self.hard_packets.unwrap_or(INFINITE),
            soft_age_secs: self.soft_seconds.unwrap_or(0),
            hard_age_secs: self.hard_seconds.unwrap_or(0),
            ..Limits::default()
        }
    }
}

/// Where the key is.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct KeyArgs {
    /// File with the key, and the salt behind it, in hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    key_file: Option<std::path::PathBuf>,
    /// `-` for a key from standard input. The key itself is taken too, but every user of this
    /// machine can see it then.
    #[arg(long, value_name = "-", allow_hyphen_values = true, value_parser = key)]
    key: Option<Digits>,
}

/// Digits of a key, or `-`; never shown, and wiped.
#[derive(Clone)]
pub(super) struct Digits(Zeroizing<String>);

impl std::fmt::Debug for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Digits(..)")
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what is wrong must not be repeated by the parser")]
fn key(text: &str) -> Result<Digits, String> {
    Ok(Digits(Zeroizing::new(text.to_owned())))
}

impl KeyArgs {
    pub(super) fn read(&self) -> anyhow::Result<Keymat> {
        let digits = match (&self.key_file, &self.key) {
            (Some(path), _) => {
                let name = path.display();
                let file = fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
                warn_of_mode(path, &file);
                text(file).with_context(|| format!("cannot read {name}"))?
            }
            (None, Some(given)) if given.0.as_str() == "-" => {
                text(io::stdin()).context("cannot read a key from standard input")?
            }
            (None, Some(given)) => {
                eprintln!(
                    "culvert: warning: a key on the command line is visible to every user of this \
                     machine; --key-file or --key - keeps it to itself"
                );
                given.0.clone()
            }
            (None, None) => bail!("expected --key-file or --key"),
        };
        Ok(Keymat::from_hex(digits.trim().trim_start_matches("0x"))?)
    }
}

fn warn_of_mode(path: &Path, file: &fs::File) {
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!("culvert: warning: others than its owner may use {}", path.display());
    }
}

/// All of it, if it is not too much. Reserved in full, as growing leaves unwiped copies behind.
fn text(from: impl Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(2 * 4096));
    from.take(KEY_FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KEY_FILE_MAX {
        return Err(io::Error::other("expected at most 4096 characters"));
    }
    Ok(text)
}

/// A template in the words of `ip xfrm`.
pub(super) fn template(text: &str) -> Result<Template, String> {
    let mut template = Template {
        id: sa::XfrmId { proto: sa::ESP, ..sa::XfrmId::default() },
        mode: sa::Mode::TRANSPORT,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..Template::default()
    };
    let mut words = text.split_whitespace();
    while let Some(name) = words.next() {
        let value = words.next().ok_or(format!("{name}: expected a value behind it"))?;
        let wrong = |expected: &str| format!("{name} {value}: expected {expected}");
        match name {
            "src" | "dst" => {
                let ip: IpAddr = value.parse().map_err(|_| wrong("an address"))?;
                let family = Family::of(ip);
                if template.family != Family::UNSPEC && template.family != family {
                    return Err(wrong("addresses of one family"));
                }
                template.family = family;
                let place =
                    if name == "src" { &mut template.saddr } else { &mut template.id.daddr };
                *place = ip.into();
            }
            "proto" => {
                let proto = Protocol::from_str(value, true).map_err(|_| wrong("esp or ah"))?;
                template.id.proto = proto.number();
            }
            "mode" => {
                let mode = Mode::from_str(value, true).map_err(|_| wrong("tunnel or transport"))?;
                template.mode = mode.xfrm();
            }
            "spi" => template.id.spi.0 = number(value)?,
            "reqid" => template.reqid = number(value)?,
            "level" => {
                template.optional = match value {
                    "required" => 0,
                    "use" => 1,
                    _ => return Err(wrong("required or use")),
                };
            }
            _ => return Err(format!("{name}: expected src, dst, proto, mode, spi, reqid, level")),
        }
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Templates as `ip xfrm` writes them, and what is wrong with others.
    #[test]
    fn templates_are_read() {
        let words = "src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel reqid 7 spi 0x1001";
        let read = template(words).unwrap();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!((read.saddr, read.family), (source.into(), Family::INET));
        assert_eq!((read.id.proto, read.mode), (sa::ESP, sa::Mode::TUNNEL));
        assert_eq!((read.reqid, read.id.spi.0, read.optional), (7, 0x1001, 0));
        assert_eq!(template("level use").unwrap().optional, 1);
        for wrong in ["src", "src x", "src 192.0.2.1 dst fd00::1", "proto comp", "colour red"] {
            assert!(template(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }

    /// Numbers in both forms.
    #[test]
    fn numbers_are_read() {
        assert_eq!((spi("4097"), spi("0x1001")), (Ok(4097), Ok(4097)));
        assert!(spi("-1").is_err() && spi("0x1_0").is_err() && spi("4294967296").is_err());
        assert_eq!(mark("0x2a/0xff"), Ok(Mark { value: 42, mask: 255 }));
        assert_eq!(mark("7"), Ok(Mark { value: 7, mask: u32::MAX }));
        assert_eq!(encap("4500:1024"), Ok((4500, 1024)));
        assert!(encap("4500").is_err() && encap("4500:70000").is_err());
        assert_eq!(upper("tcp"), Ok(6));
        assert!(upper("256").is_err());
    }
}
