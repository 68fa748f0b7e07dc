//! The configuration file: TOML text in, a configuration that cannot be wrong in itself out.
//!
//! [`Config`] names the interfaces, the workers, what holds for the gateway as a whole, and, for
//! labs and tests, SAs with keys and the policies that use them. Every field is checked, alone and
//! against the others, before anything is opened or started; the first thing that is wrong becomes
//! one line that names file, line, field, and what was expected there ([`ConfigError`]).
//!
//! Keys are wiped from memory: the text when [`Config::load`] is done with it, the parsed ones
//! with their [`Keymat`](culvert_aead::Keymat). No message and no `Debug` output shows one.
//!
//! What this module does not do: it does not ask the machine, so an interface or a core in the
//! file need not exist, and it keeps no sequence numbers, so [`Sa::sequence`] is what the file says
//! and not where a restart may go on.

mod address;
mod bundle;
mod control;
mod error;
mod policy;
mod reader;
mod sa;
mod selector;
mod settings;

use std::fs::File;
use std::io;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::path::PathBuf;

use culvert_engine::options::AuditOptions;
use culvert_engine::options::IcmpOptions;
use culvert_engine::options::NoticeOptions;
use culvert_frame::MAX_PORTS;
use culvert_spd::DefaultAction;
use culvert_xdp::gateway::MAX_BUSY_POLL;
use zeroize::Zeroizing;

pub use self::control::Control;
pub use self::control::SOCKET as CONTROL_SOCKET;
pub use self::error::ConfigError;
pub use self::policy::Action;
pub use self::policy::Policy;
pub use self::sa::Direction;
pub use self::sa::Encapsulation;
pub use self::sa::Sa;

use self::reader::Field;
use self::reader::Section;
use self::reader::Source;

/// Keys of the file, and of each of its sections.
const KEYS: [&str; 12] = [
    "state_directory",
    "interfaces",
    "workers",
    "control",
    "lab",
    "spd",
    "ike",
    "icmp",
    "audit",
    "notices",
    "sa",
    "policy",
];
const INTERFACES_KEYS: [&str; 8] =
    ["protected", "unprotected", "take", "pin", "on_stop", "mode", "zero_copy", "jumbo"];
const WORKERS_KEYS: [&str; 4] = ["count", "cores", "spread", "busy_poll"];
const LAB_KEYS: [&str; 1] = ["static_keys"];

/// Where state is kept, if the file does not say.
const STATE_DIRECTORY: &str = "/var/lib/culvert";

/// Largest file that is read, in octets: more than 100 000 SAs.
const FILE_MAX: u64 = 64 << 20;

/// Longest name of an interface, in octets (`IFNAMSIZ` without the final zero).
const INTERFACE_NAME_MAX: usize = 15;

/// Octets from which on packets may be lent.
const SPREAD: RangeInclusive<u16> = 64..=9000;

/// Most workers of one gateway.
const WORKERS_MAX: usize = 64;

/// Highest number of a core (`NR_CPUS` of the kernel is at most 8192).
const CORE_MAX: usize = 8191;

const INTERFACE_NAMES: &str = "a list of interface names such as [\"eth0\"]";

/// Everything a configuration file says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[interfaces]`
    pub interfaces: Interfaces,
    /// `[workers]`
    pub workers: Workers,
    /// `[control]`: present when IKE drives the gateway; there are no SAs and policies in the file
    /// then.
    pub control: Option<Control>,
    /// `[lab]`
    pub lab: Lab,
    /// `state_directory`: where sequence numbers survive a restart; an absolute path.
    pub state_directory: PathBuf,
    /// `[spd]`: what happens to a packet that no policy matches.
    pub default: DefaultAction,
    /// `[icmp]`
    pub icmp: IcmpOptions,
    /// `[audit]`
    pub audit: AuditOptions,
    /// `[notices]`
    pub notices: NoticeOptions,
    /// `[[sa]]`, in the order of the file.
    pub sas: Vec<Sa>,
    /// `[[policy]]`, in the order of the file, which is the order in which they are tried.
    pub policies: Vec<Policy>,
}

/// The interfaces of the gateway: at least one on each side, none twice, at most
/// [`MAX_PORTS`] in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    /// Interfaces to the plaintext network.
    pub protected: Vec<String>,
    /// Interfaces to the ESP network.
    pub unprotected: Vec<String>,
    /// What the XDP program takes from the kernel.
    pub take: Take,
    /// The directory of the BPF file system where the XDP programs are pinned, so that they outlive
    /// the process; an absolute path.
    pub pin: Option<PathBuf>,
    /// What an orderly stop leaves.
    pub on_stop: OnStop,
    /// How the XDP program is attached.
    pub mode: Mode,
    /// Whether frames are shared with the driver.
    pub zero_copy: ZeroCopy,
    /// Whether frames may be larger than one buffer.
    pub jumbo: bool,
}

/// What the XDP program takes from the kernel, beside ESP and AH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Take {
    /// Packets to destinations that policies protect or discard.
    #[default]
    Policies,
    /// Every IP packet that is not for the gateway itself.
    All,
}

/// What an orderly stop leaves of the interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStop {
    /// As they were found, without an XDP program.
    #[default]
    Open,
    /// With the pinned XDP program, which drops what it takes.
    Close,
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Native, and generic where the driver cannot.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the stack (SKB mode).
    Generic,
}

/// Whether the driver reads and writes packets in our memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ZeroCopy {
    /// Where the driver can.
    #[default]
    Auto,
    /// Never: the kernel copies.
    Off,
    /// Always, or the start fails.
    Require,
}

/// The workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// How many, 1 to 64; `None` leaves it to the number of queues.
    pub count: Option<usize>,
    /// The core of each worker, all different; empty leaves it to the program, and otherwise its
    /// length is `count`.
    pub cores: Vec<usize>,
    /// Octets of a packet, on average over a batch, from which on workers help one another with the
    /// packets of one SA; `None` when they never do.
    pub spread: Option<u16>,
    /// Packets that a worker has a driver receive in one round, when workers never sleep; `None`
    /// when they do.
    pub busy_poll: Option<u16>,
}

/// What only a lab should do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lab {
    /// Whether keys in the file are accepted.
    pub static_keys: bool,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is not a valid configuration.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let file_name = path.display().to_string();
        let octets = read_file(path).map_err(|reason| ConfigError::read(&file_name, reason))?;
        match std::str::from_utf8(&octets) {
            Ok(text) => Config::parse(&file_name, text),
            Err(error) => {
                let line = reader::line_starts(&octets[..error.valid_up_to()]).len();
                Err(ConfigError::invalid(&file_name, line, "TOML", "expected text in UTF-8"))
            }
        }
    }

    /// Checks `text`; `file_name` is what messages call it.
    ///
    /// # Errors
    /// If it is not a valid configuration.
    pub fn parse(file_name: &str, text: &str) -> Result<Config, ConfigError> {
        let source = Source::new(file_name, text);
        let tree = source.tree()?;
        let root = Section::root(&source, &tree, &KEYS)?;
        let interfaces = root
            .required("interfaces", "a section [interfaces] that names both sides")?
            .section(&INTERFACES_KEYS)?;
        let interfaces = read_interfaces(&interfaces, root.optional("control").is_some())?;
        let workers = read_table(&root, "workers", &WORKERS_KEYS, read_workers)?;
        let control = match root.optional("control") {
            Some(field) => {
                let why = "with [control], SAs and policies come from IKE";
                root.refuse(&["sa", "policy"], why)?;
                Some(control::control(&field.section(&control::KEYS)?)?)
            }
            None => None,
        };
        let lab = read_table(&root, "lab", &LAB_KEYS, read_lab)?;
        let default = read_table(&root, "spd", &settings::SPD_KEYS, settings::spd)?;
        read_table(&root, "ike", &settings::IKE_KEYS, settings::ike)?;
        let icmp = read_table(&root, "icmp", &settings::ICMP_KEYS, settings::icmp)?;
        let audit = read_table(&root, "audit", &settings::AUDIT_KEYS, settings::audit)?;
        let notices = read_table(&root, "notices", &settings::NOTICES_KEYS, settings::notices)?;
        let state_directory = match root.optional("state_directory") {
            Some(field) => read_state_directory(&field)?,
            None => PathBuf::from(STATE_DIRECTORY),
        };
        let sas = sa::read(&tables(&root, "sa", &sa::KEYS)?, lab, &workers)?;
        let policies = policy::read(&tables(&root, "policy", &policy::KEYS)?, &sas)?;
        Ok(Config {
            interfaces,
            workers,
            control,
            lab,
            state_directory,
            default,
            icmp,
            audit,
            notices,
            sas,
            policies,
        })
    }

    /// What an operator should know and may still want, a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let checked = |sa: &&Sa| sa.direction == Direction::Inbound && sa.replay_window > 0;
        let warning = |sa: &Sa| {
            format!(
                "the inbound SA {} has a key from the file and anti-replay, which RFC \
                 4303 section 5 advises against: a peer that counts from 1 again after a \
                 restart is taken for an attacker; replay_window = 0 turns it off",
                sa.label(),
            )
        };
        self.sas.iter().filter(checked).map(warning).collect()
    }

    /// A file of a lab with two SAs, for documentation and help.
    #[must_use]
    pub fn example() -> &'static str {
        include_str!("example.toml")
    }
}

/// The whole file. The buffer has its size before the first octet comes, so that growing leaves no
/// copy of a key behind.
fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB");
    if size > FILE_MAX {
        return Err(too_large());
    }
    let room = usize::try_from(size).map_err(|_| too_large())?;
    let mut octets = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(FILE_MAX + 1).read_to_end(&mut octets)?;
    if u64::try_from(octets.len()).map_or(true, |length| length > FILE_MAX) {
        return Err(too_large());
    }
    Ok(octets)
}

/// The tables of an array that may be absent.
fn tables<'a>(
    root: &Section<'a>,
    key: &str,
    keys: &[&str],
) -> Result<Vec<Section<'a>>, ConfigError> {
    root.optional(key).map_or(Ok(Vec::new()), |field| field.sections(keys))
}

/// What a table that may be absent says.
fn read_table<'a, T: Default>(
    root: &Section<'a>,
    key: &str,
    keys: &[&str],
    read: impl Fn(&Section<'a>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    root.optional(key).map_or(Ok(T::default()), |field| read(&field.section(keys)?))
}

/// With IKE, policies come late and may go: unless the file says otherwise, everything is taken.
fn read_interfaces(section: &Section<'_>, has_ike: bool) -> Result<Interfaces, ConfigError> {
    const TAKES: [(&str, Take); 2] = [("policies", Take::Policies), ("all", Take::All)];
    const MODES: [(&str, Mode); 3] =
        [("auto", Mode::Auto), ("native", Mode::Native), ("generic", Mode::Generic)];
    const ZERO_COPIES: [(&str, ZeroCopy); 3] =
        [("auto", ZeroCopy::Auto), ("off", ZeroCopy::Off), ("require", ZeroCopy::Require)];
    let mut taken = Vec::new();
    let protected = read_side(section, "protected", &mut taken)?;
    let unprotected = read_side(section, "unprotected", &mut taken)?;
    if taken.len() > MAX_PORTS {
        let count = taken.len();
        let problem =
            format!("expected at most {MAX_PORTS} interfaces on both sides, found {count}");
        return Err(section.error("unprotected", problem));
    }
    let default = if has_ike { Take::All } else { Take::Policies };
    let take = section.optional("take").map_or(Ok(default), |field| field.word(&TAKES))?;
    let mode = section.optional("mode").map_or(Ok(Mode::Auto), |field| field.word(&MODES))?;
    let zero_copy = section
        .optional("zero_copy")
        .map_or(Ok(ZeroCopy::Auto), |field| field.word(&ZERO_COPIES))?;
    if mode == Mode::Generic && zero_copy == ZeroCopy::Require {
        let problem = "expected \"auto\" or \"off\" with mode = \"generic\", which always copies, \
                       found `require`";
        return Err(section.error("zero_copy", problem));
    }
    let jumbo = section.optional("jumbo").map_or(Ok(false), |field| field.flag())?;
    let pin = section.optional("pin").map_or(Ok(None), |field| read_pin(&field))?;
    let on_stop = read_on_stop(section, pin.is_some())?;
    Ok(Interfaces { protected, unprotected, take, pin, on_stop, mode, zero_copy, jumbo })
}

fn read_pin(field: &Field<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let expected = "true, false, or an absolute path on a BPF file system";
    match field.as_text() {
        Some(path) if Path::new(path).is_absolute() => Ok(Some(PathBuf::from(path))),
        Some(_) => Err(field.wrong(expected)),
        None => {
            let pinned = field.flag().map_err(|_| field.wrong(expected))?;
            Ok(pinned.then(|| PathBuf::from(culvert_xdp::PIN_DIRECTORY)))
        }
    }
}

fn read_on_stop(section: &Section<'_>, pinned: bool) -> Result<OnStop, ConfigError> {
    const WORDS: [(&str, OnStop); 2] = [("open", OnStop::Open), ("close", OnStop::Close)];
    let Some(field) = section.optional("on_stop") else {
        return Ok(if pinned { OnStop::Close } else { OnStop::Open });
    };
    match field.word(&WORDS)? {
        OnStop::Close if !pinned => {
            Err(field.wrong("\"open\" without pin, which is what keeps interfaces closed"))
        }
        word => Ok(word),
    }
}

/// The interfaces of one side. `taken` holds those read so far, with the key they stood under.
fn read_side<'k>(
    section: &Section<'_>,
    key: &'k str,
    taken: &mut Vec<(String, &'k str)>,
) -> Result<Vec<String>, ConfigError> {
    let fields = section.required(key, INTERFACE_NAMES)?.list(INTERFACE_NAMES)?;
    let mut names = Vec::with_capacity(fields.len());
    for field in &fields {
        let name = read_interface(field)?;
        if let Some((_, side)) = taken.iter().find(|(other, _)| *other == name) {
            return Err(field.wrong(format_args!("an interface that is not yet {side}")));
        }
        taken.push((name.clone(), key));
        names.push(name);
    }
    Ok(names)
}

/// The name of an interface, by the kernel's rules.
fn read_interface(field: &Field<'_>) -> Result<String, ConfigError> {
    let expected = format!("an interface name of 1 to {INTERFACE_NAME_MAX} octets");
    let name = field.text(&expected)?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty()
        || name.len() > INTERFACE_NAME_MAX
        || name == "."
        || name == ".."
        || name.contains(bad)
    {
        return Err(field.wrong(expected));
    }
    Ok(name.to_owned())
}

fn read_workers(section: &Section<'_>) -> Result<Workers, ConfigError> {
    let count = section.optional("count").map(|field| field.number(1..=WORKERS_MAX)).transpose()?;
    let spread = section.optional("spread").map(|field| field.number(SPREAD)).transpose()?;
    let busy_poll =
        section.optional("busy_poll").map(|field| field.number(1..=MAX_BUSY_POLL)).transpose()?;
    let Some(field) = section.optional("cores") else {
        return Ok(Workers { count, cores: Vec::new(), spread, busy_poll });
    };
    let mut cores = Vec::new();
    for core in field.list("a list of core numbers such as [0, 1]")? {
        let number = core.number(0..=CORE_MAX)?;
        if cores.contains(&number) {
            return Err(core.wrong("a core of its own for each worker"));
        }
        cores.push(number);
    }
    let length = cores.len();
    match count {
        Some(count) if count != length => Err(field.error(format_args!(
            "expected {count} cores, one for each worker of workers.count, found {length}"
        ))),
        None if length > WORKERS_MAX => {
            Err(field.error(format_args!("expected at most {WORKERS_MAX} cores, found {length}")))
        }
        _ => Ok(Workers { count: Some(length), cores, spread, busy_poll }),
    }
}

fn read_lab(section: &Section<'_>) -> Result<Lab, ConfigError> {
    let static_keys = section.optional("static_keys").map_or(Ok(false), |field| field.flag())?;
    Ok(Lab { static_keys })
}

fn read_state_directory(field: &Field<'_>) -> Result<PathBuf, ConfigError> {
    let expected = "an absolute path";
    let path = PathBuf::from(field.text(expected)?);
    if path.is_absolute() { Ok(path) } else { Err(field.wrong(expected)) }
}

#[cfg(test)]
mod tests;
