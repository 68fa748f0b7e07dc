//! The XDP program of one interface: loading, attaching, and its maps.
//!
//! [`Steer`] owns one copy of the object that is part of the repository
//! (`ebpf/prebuilt/steer.bpf.o`, built from `ebpf/steer`): one program, its socket map, its prefix
//! maps, its memory of fragments and its counters. Interfaces share nothing. What the program
//! decides is written down in [`culvert_steer::decision`].
//!
//! A program looks at one of the two sets of prefixes, the one of its side: those that outbound
//! policy protects ([`Steer::set_prefixes`]) on the protected side, those that inbound policy
//! protects ([`Steer::set_unprotected_prefixes`]) on the unprotected side.
//!
//! The program runs from [`Steer::attach`] until the value is dropped. The kernel detaches it then
//! by itself, also when the process dies, as a BPF link holds the attachment; sockets vanish from
//! the socket map when they are closed. In between, frames for the engine whose queue has no socket
//! are dropped and counted: prefixes and own addresses are set before the program is attached, and
//! sockets when their owner is ready.
//!
//! Since Linux 5.11 maps are charged to the memory control group and `RLIMIT_MEMLOCK` plays no
//! part; on older kernels aya raises the limit of this process when a map is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::Index;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;

use aya::Ebpf;
use aya::EbpfError;
use aya::EbpfLoader;
use aya::include_bytes_aligned;
use aya::maps::LpmTrie;
use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::MapError;
use aya::maps::PerCpuArray;
use aya::maps::XskMap;
use aya::maps::lpm_trie::Key;
use aya::programs::ProgramError;
use aya::programs::TestRun as _;
use aya::programs::TestRunAttrs;
use aya::programs::TestRunOptions;
use aya::programs::Xdp;
use aya::programs::XdpMode;
use aya::programs::links::FdLink;
use aya::programs::links::PinnedLink;
use aya::programs::xdp::XdpError;
use aya::programs::xdp::XdpLink;
use aya::programs::xdp::XdpLinkId;
use nix::net::if_::if_nametoindex;

use culvert_steer::Counter;
use culvert_steer::PrefixValue;
use culvert_steer::counter::SLOTS;
use culvert_steer::map;
use culvert_steer::prefixes::EVERYTHING;

static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ebpf/prebuilt/steer.bpf.o"));

/// A destination prefix: an address and the number of its bits that count.
pub type Prefix = (IpAddr, u8);

/// What may go wrong with an XDP program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be loaded.
    #[error("cannot load the XDP program {program}: {reason}")]
    Load {
        /// Name of the program in the object.
        program: &'static str,
        /// The kernel's or aya's answer.
        reason: Box<EbpfError>,
    },
    /// The process may not load XDP programs.
    #[error("cannot load the XDP program {program}: CAP_BPF and CAP_NET_ADMIN (or root) needed")]
    NotPermitted {
        /// Name of the program in the object.
        program: &'static str,
    },
    /// The interface does not exist in this network namespace.
    #[error("there is no interface {interface}")]
    NoInterface {
        /// Name of the interface.
        interface: String,
    },
    /// The interface has an XDP program already.
    #[error(
        "another XDP program is attached to {interface}; remove it with \
         `ip link set dev {interface} xdp off`, or stop the process that holds it; one that a \
         gateway left pinned, `culvert release` removes"
    )]
    Busy {
        /// Name of the interface.
        interface: String,
    },
    /// The driver does not offer this mode.
    #[error("the driver of {interface} does not support XDP in {mode} mode")]
    ModeUnsupported {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: Mode,
    },
    /// Frames would not fit into the driver's XDP buffers.
    #[error(
        "the MTU of {interface}, or of its veth peer, is too large for XDP in {mode} mode; \
         lower it with `ip link set dev {interface} mtu 1500`"
    )]
    MtuTooLarge {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: Mode,
    },
    /// The kernel refused the attachment for another reason.
    #[error("cannot attach XDP to {interface} in {mode} mode: {reason}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: Mode,
        /// The kernel's answer.
        reason: Box<ProgramError>,
    },
    /// The kernel refused to detach.
    #[error("cannot detach XDP from {interface}: {reason}")]
    Detach {
        /// Name of the interface.
        interface: String,
        /// The kernel's answer.
        reason: Box<ProgramError>,
    },
    /// A program is attached to one interface at a time.
    #[error("the XDP program is attached to {interface} already")]
    Attached {
        /// Name of the interface.
        interface: String,
    },
    /// There is no attachment to pin.
    #[error("the XDP program is not attached")]
    NotAttached,
    /// An attachment could not be pinned, or a pin not be opened.
    #[error("cannot use {} as a pin of the XDP program: {reason}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The kernel's or aya's answer.
        reason: String,
    },
    /// Queue index beyond the socket map.
    #[error("queue {queue} is beyond the {} queues that steering serves", map::MAX_QUEUES)]
    QueueTooLarge {
        /// Index of the receive queue.
        queue: u32,
    },
    /// Prefix with more bits than its address has.
    #[error("prefix {address}/{bits}: at most {max} bits expected", max = width(address))]
    PrefixTooLong {
        /// Address of the prefix.
        address: IpAddr,
        /// Number of bits asked for.
        bits: u8,
    },
    /// More prefixes than a map holds.
    #[error("{count} prefixes, at most {} of one address family expected", map::MAX_PREFIXES)]
    TooManyPrefixes {
        /// Number of prefixes and exceptions of one family.
        count: usize,
    },
    /// A map operation failed.
    #[error("cannot {action} in map {map}: {reason}")]
    Map {
        /// What was to be done.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        reason: Box<MapError>,
    },
    /// The kernel refused to run the program on a given frame.
    #[error("cannot run the XDP program on a frame of {length} bytes: {reason}")]
    Run {
        /// Length of the frame.
        length: usize,
        /// The kernel's answer.
        reason: Box<ProgramError>,
    },
}

/// Which program of the object an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Steering on the unprotected side.
    Unprotected,
    /// Steering on the protected side.
    Protected,
    /// Leaves every frame to the kernel; for the far end of a veth pair in laboratories.
    Pass,
    /// Sends every frame back; the generator of benches, see [`Steer::generate`].
    Reflect,
    /// Counts and drops every frame; the sink of benches.
    Discard,
}

impl Role {
    /// The program for frames of several buffers; the same one where it does not matter.
    fn jumbo_program(self) -> &'static str {
        match self {
            Role::Unprotected => map::STEER_UNPROTECTED_FRAGS,
            Role::Protected => map::STEER_PROTECTED_FRAGS,
            Role::Pass | Role::Reflect | Role::Discard => self.program(),
        }
    }

    fn program(self) -> &'static str {
        match self {
            Role::Unprotected => map::STEER_UNPROTECTED,
            Role::Protected => map::STEER_PROTECTED,
            Role::Pass => map::PASS,
            Role::Reflect => map::REFLECT,
            Role::Discard => map::DISCARD,
        }
    }
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack, with every driver.
    Generic,
}

impl Mode {
    fn xdp_mode(self) -> XdpMode {
        match self {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// What a program did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dropped it, as it made an error (`XDP_ABORTED`).
    Aborted,
    /// Dropped it.
    Drop,
    /// Left it to the kernel.
    Pass,
    /// Sent it back out of its interface.
    Transmit,
    /// Gave it to a socket.
    Redirect,
    /// A number that no program of the object returns.
    Unknown(u32),
}

impl From<u32> for Action {
    fn from(value: u32) -> Action {
        match value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => Action::Unknown(other),
        }
    }
}

/// Counters of one receive queue since the program was loaded, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters([u64; SLOTS]);

impl QueueCounters {
    /// Every counter with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.into_iter().zip(self.0)
    }
}

impl Index<Counter> for QueueCounters {
    type Output = u64;

    fn index(&self, counter: Counter) -> &u64 {
        &self.0[counter.slot()]
    }
}

/// The loaded XDP program of one interface, with its maps.
pub struct Steer {
    role: Role,
    program: &'static str,
    object: Ebpf,
    attachment: Option<(String, Attachment)>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; SLOTS]>,
    outbound: PrefixMaps,
    inbound: PrefixMaps,
}

impl Steer {
    /// Loads the program of `role` into the kernel; it runs nowhere yet.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] without the capabilities, [`Error::Load`] otherwise.
    pub fn load(role: Role) -> Result<Steer, Error> {
        Steer::load_program(role, role.program())
    }

    /// As [`load`](Self::load), for frames of several buffers: drivers deliver those to it, and
    /// accept larger MTUs with it.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_for_jumbo(role: Role) -> Result<Steer, Error> {
        Steer::load_program(role, role.jumbo_program())
    }

    fn load_program(role: Role, name: &'static str) -> Result<Steer, Error> {
        let mut loader = EbpfLoader::new();
        if role != Role::Unprotected {
            // The map takes all its memory when it is made.
            loader.map_max_entries(map::FRAGMENTS, 1);
        }
        let mut object = loader.load(OBJECT).map_err(|reason| load_error(role, reason))?;
        program(&mut object, name)
            .and_then(Xdp::load)
            .map_err(|reason| load_error(role, reason.into()))?;
        let maps = Maps::take(&mut object).map_err(|reason| load_error(role, reason.into()))?;
        Ok(Steer {
            role,
            program: name,
            object,
            attachment: None,
            sockets: maps.sockets,
            counters: maps.counters,
            outbound: maps.outbound,
            inbound: maps.inbound,
        })
    }

    /// Which program this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Attaches the program to `interface` of the calling thread's network namespace, until this
    /// value is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] when the interface has an XDP program, [`Error::ModeUnsupported`] and
    /// [`Error::MtuTooLarge`] when another mode (or MTU) may work, [`Error::NoInterface`],
    /// [`Error::Attached`], or [`Error::Attach`] with the kernel's answer.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<(), Error> {
        if let Some((interface, _)) = &self.attachment {
            return Err(Error::Attached { interface: interface.clone() });
        }
        let index = if_nametoindex(interface)
            .map_err(|_| Error::NoInterface { interface: interface.to_owned() })?;
        let link = program(&mut self.object, self.program)
            .and_then(|program| program.attach_to_if_index(index, mode.xdp_mode()))
            .map_err(|reason| attach_error(interface, mode, reason))?;
        self.attachment = Some((interface.to_owned(), Attachment::Link(link)));
        Ok(())
    }

    /// Pins the attachment at `path`: the program stays when the process ends in any way but by
    /// dropping this value. [`Steer::stay`] makes it stay then as well.
    ///
    /// # Errors
    /// [`Error::NotAttached`], or [`Error::Pin`] with the kernel's answer; it is detached then.
    pub fn pin(&mut self, path: &Path) -> Result<(), Error> {
        let Some((interface, Attachment::Link(link))) = self.attachment.take() else {
            return Err(Error::NotAttached);
        };
        let link = program(&mut self.object, self.program)
            .and_then(|program| program.take_link(link))
            .map_err(|reason| pin_error(path, reason))?;
        let link = FdLink::try_from(link).map_err(|reason| pin_error(path, reason))?;
        let link = link.pin(path).map_err(|reason| pin_error(path, reason))?;
        let pinned = Pinned { link: Some(link), stays: false };
        self.attachment = Some((interface, Attachment::Pin(pinned)));
        Ok(())
    }

    /// Replaces the program of the attachment to `interface` that is pinned at `path` by this one,
    /// in one step. It stays when this value is dropped, unless [`Steer::stay`] says otherwise.
    ///
    /// # Errors
    /// [`Error::Attached`], [`Error::Pin`], or as for [`Steer::attach`]: the program that was
    /// attached before stays.
    pub fn take_over(&mut self, interface: &str, mode: Mode, path: &Path) -> Result<(), Error> {
        if let Some((interface, _)) = &self.attachment {
            return Err(Error::Attached { interface: interface.clone() });
        }
        let open = || PinnedLink::from_pin(path).map_err(|reason| pin_error(path, reason));
        let link = FdLink::from(open()?);
        let link = XdpLink::try_from(link).map_err(|reason| pin_error(path, reason))?;
        let pinned = Pinned { link: Some(open()?), stays: true };
        let program = program(&mut self.object, self.program);
        // The pin holds the link, so this one can go.
        program
            .and_then(|program| program.attach_to_link(link).map(|id| (program, id)))
            .and_then(|(program, id)| program.take_link(id))
            .map_err(|reason| attach_error(interface, mode, reason))?;
        self.attachment = Some((interface.to_owned(), Attachment::Pin(pinned)));
        Ok(())
    }

    /// Whether a pinned program stays attached when this value is dropped.
    pub fn stay(&mut self, stays: bool) {
        if let Some((_, Attachment::Pin(pinned))) = &mut self.attachment {
            pinned.stays = stays;
        }
    }

    /// Detaches the program and tells whether that went well; dropping the value does it too.
    ///
    /// # Errors
    /// [`Error::Detach`] with the kernel's answer. The program counts as detached all the same.
    pub fn detach(&mut self) -> Result<(), Error> {
        let Some((interface, link)) = self.attachment.take() else {
            return Ok(());
        };
        let result = match link {
            Attachment::Link(link) => {
                program(&mut self.object, self.program).and_then(|program| program.detach(link))
            }
            Attachment::Pin(mut pinned) => pinned.remove().map_err(ProgramError::IOError),
        };
        result.map_err(|reason| Error::Detach { interface, reason: Box::new(reason) })
    }

    /// Gives the frames of receive queue `queue` to the `AF_XDP` socket `socket`, until it is
    /// closed. The kernel delivers only if the socket is bound to the same queue.
    ///
    /// # Errors
    /// [`Error::QueueTooLarge`], or [`Error::Map`] when `socket` is no `AF_XDP` socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsFd) -> Result<(), Error> {
        if queue >= map::MAX_QUEUES {
            return Err(Error::QueueTooLarge { queue });
        }
        self.sockets
            .set(queue, socket.as_fd().as_raw_fd(), 0)
            .map_err(map_error("set a socket", map::XSKS))
    }

    /// Makes `prefixes` the protected prefixes of the protected side, by the fewest changes: what
    /// is there stays there, and additions come before removals. Bits of an address beyond the
    /// prefix do not matter.
    ///
    /// # Errors
    /// [`Error::PrefixTooLong`] and [`Error::TooManyPrefixes`], before anything is changed;
    /// [`Error::Map`] when the kernel refused, and then a repeated call continues the changes.
    pub fn set_prefixes(&mut self, prefixes: &[Prefix]) -> Result<(), Error> {
        self.outbound.change(|lists| lists.protected = prefixes.to_vec())
    }

    /// Makes `exceptions` the prefixes whose destinations stay with the kernel although a shorter
    /// protected prefix holds them: addresses of the gateway itself, for instance. An exception
    /// wins over an equal protected prefix.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`].
    pub fn set_exceptions(&mut self, exceptions: &[Prefix]) -> Result<(), Error> {
        self.outbound.change(|lists| lists.exceptions = exceptions.to_vec())
    }

    /// As [`Steer::set_prefixes`] for the unprotected side: destinations that inbound policy
    /// protects or discards. Plaintext to them is the engine's, which drops it or lets it pass by
    /// policy (RFC 4301 section 5.2).
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`].
    pub fn set_unprotected_prefixes(&mut self, prefixes: &[Prefix]) -> Result<(), Error> {
        self.inbound.change(|lists| lists.protected = prefixes.to_vec())
    }

    /// Whether every IP packet is the engine's, whatever the prefixes say
    /// ([`EVERYTHING`]). Exceptions stay exceptions. An own
    /// address that no prefix holds stays with the kernel, and so do `broadcasts`, the broadcast
    /// addresses of the gateway's own networks.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`].
    pub fn set_everything(&mut self, broadcasts: Option<&[IpAddr]>) -> Result<(), Error> {
        let broadcasts = broadcasts.map(<[IpAddr]>::to_vec);
        self.outbound.change(|lists| lists.everything.clone_from(&broadcasts))?;
        self.inbound.change(|lists| lists.everything = broadcasts)
    }

    /// As [`Steer::set_exceptions`] for the unprotected side: all plaintext to these destinations
    /// stays with the kernel, whatever inbound policy says.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`].
    pub fn set_unprotected_exceptions(&mut self, exceptions: &[Prefix]) -> Result<(), Error> {
        self.inbound.change(|lists| lists.exceptions = exceptions.to_vec())
    }

    /// Tells the unprotected side which addresses are the gateway's own. Where a protected prefix
    /// holds one, plaintext to it is the engine's but for IKE and what else makes IPsec work
    /// ([`culvert_steer::decision`]); elsewhere an own address is nothing special.
    ///
    /// # Errors
    /// As for [`Steer::set_prefixes`].
    pub fn set_own_addresses(&mut self, own: &[IpAddr]) -> Result<(), Error> {
        self.inbound.change(|lists| lists.own = own.to_vec())
    }

    /// Counters of the first `queues` receive queues, summed over the CPUs.
    ///
    /// # Errors
    /// [`Error::QueueTooLarge`], or [`Error::Map`] with the kernel's answer.
    pub fn counters(&self, queues: u32) -> Result<Vec<QueueCounters>, Error> {
        if queues > map::MAX_QUEUES {
            return Err(Error::QueueTooLarge { queue: queues - 1 });
        }
        let row = |queue| {
            let mut sum = QueueCounters::default();
            for cpu in self.counters.get(&queue, 0)?.iter() {
                for (total, value) in sum.0.iter_mut().zip(cpu) {
                    *total = total.wrapping_add(*value);
                }
            }
            Ok(sum)
        };
        let rows: Result<Vec<_>, _> = (0..queues).map(row).collect();
        rows.map_err(map_error("read a row", map::COUNTERS))
    }

    /// Runs the program in the kernel on `frame` as if it had arrived on queue 0, and tells what
    /// the program did with it (`BPF_PROG_TEST_RUN`). The frame goes nowhere; counters count it.
    ///
    /// # Errors
    /// [`Error::Run`]: the kernel refuses frames shorter than an Ethernet header, for instance.
    pub fn decide(&mut self, frame: &[u8]) -> Result<Action, Error> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = program(&mut self.object, self.program)
            .and_then(|program| program.test_run(options))
            .map_err(|reason| run_error(frame, reason))?;
        Ok(Action::from(result.return_value))
    }

    /// Runs the program `count` times on copies of `frame` as if they had arrived on queue 0 of
    /// `interface`, with all consequences: under [`Role::Reflect`] they leave by that interface.
    /// The call returns when all have; setting it up costs tens of milliseconds.
    ///
    /// # Errors
    /// [`Error::NoInterface`], or [`Error::Run`] with the kernel's answer.
    pub fn generate(&mut self, interface: &str, frame: &[u8], count: u32) -> Result<(), Error> {
        let index = if_nametoindex(interface)
            .map_err(|_| Error::NoInterface { interface: interface.to_owned() })?;
        // The kernel refuses lengths far below this one.
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // struct xdp_md: data, data_end, data_meta, ingress interface, queue, egress interface.
        let fields: [u32; 6] = [0, length, 0, index, 0, 0];
        let context: Vec<u8> = fields.into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(LIVE_BATCH),
            ..TestRunOptions::default()
        };
        program(&mut self.object, self.program)
            .and_then(|program| program.test_run(options))
            .map_err(|reason| run_error(frame, reason))?;
        Ok(())
    }
}

impl fmt::Debug for Steer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = self.attachment.as_ref().map(|(interface, _)| interface);
        formatter
            .debug_struct("Steer")
            .field("role", &self.role)
            .field("interface", &interface)
            .field("outbound", &self.outbound.installed.len())
            .field("inbound", &self.inbound.installed.len())
            .finish_non_exhaustive()
    }
}

/// Frames the kernel generates between two looks at other work.
const LIVE_BATCH: u32 = 64;

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// What holds a program on its interface.
enum Attachment {
    /// The process.
    Link(XdpLinkId),
    /// A file of the BPF file system.
    Pin(Pinned),
}

/// A pinned attachment; the pin is removed on drop, unless it stays.
struct Pinned {
    link: Option<PinnedLink>,
    stays: bool,
}

impl Pinned {
    fn remove(&mut self) -> io::Result<()> {
        self.link.take().map_or(Ok(()), |link| link.unpin().map(drop))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if !self.stays
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, "XDP program not detached; run: culvert release");
        }
    }
}

/// The maps of an object, under their types.
struct Maps {
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, [u64; SLOTS]>,
    outbound: PrefixMaps,
    inbound: PrefixMaps,
}

impl Maps {
    fn take(object: &mut Ebpf) -> Result<Maps, MapError> {
        Ok(Maps {
            sockets: take_map(object, map::XSKS)?.try_into()?,
            counters: take_map(object, map::COUNTERS)?.try_into()?,
            outbound: PrefixMaps::take(object, [map::PREFIXES4, map::PREFIXES6])?,
            inbound: PrefixMaps::take(object, [map::PLAIN4, map::PLAIN6])?,
        })
    }
}

fn take_map(object: &mut Ebpf, name: &str) -> Result<Map, MapError> {
    object.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
}

/// What the prefix maps of one side are to say.
#[derive(Clone, Default)]
struct Lists {
    protected: Vec<Prefix>,
    exceptions: Vec<Prefix>,
    own: Vec<IpAddr>,
    /// With everything that no prefix holds; and broadcast addresses, which stay with the kernel.
    everything: Option<Vec<IpAddr>>,
}

/// The two prefix maps of one side, and what is in them.
struct PrefixMaps {
    names: [&'static str; 2],
    v4: LpmTrie<MapData, [u8; 4], u32>,
    v6: LpmTrie<MapData, [u8; 16], u32>,
    lists: Lists,
    installed: BTreeMap<Prefix, PrefixValue>,
}

impl PrefixMaps {
    fn take(object: &mut Ebpf, names: [&'static str; 2]) -> Result<PrefixMaps, MapError> {
        Ok(PrefixMaps {
            names,
            v4: take_map(object, names[0])?.try_into()?,
            v6: take_map(object, names[1])?.try_into()?,
            lists: Lists::default(),
            installed: BTreeMap::new(),
        })
    }

    /// Changes the lists, and then the maps, unless the lists are impossible.
    fn change(&mut self, change: impl FnOnce(&mut Lists)) -> Result<(), Error> {
        let mut lists = self.lists.clone();
        change(&mut lists);
        let wanted = combined(&lists)?;
        self.lists = lists;
        self.become_equal(&wanted)
    }

    /// Changes the maps until they hold `wanted`. `installed` follows each step, so that a failure
    /// leaves it true.
    fn become_equal(&mut self, wanted: &BTreeMap<Prefix, PrefixValue>) -> Result<(), Error> {
        let (changed, surplus) = difference(&self.installed, wanted);
        for (prefix, value) in changed {
            self.insert(prefix, value)?;
            self.installed.insert(prefix, value);
        }
        for prefix in surplus {
            self.remove(prefix)?;
            self.installed.remove(&prefix);
        }
        Ok(())
    }

    fn insert(&mut self, (address, bits): Prefix, value: PrefixValue) -> Result<(), Error> {
        let (bits, raw) = (u32::from(bits), value.into_raw());
        let [v4, v6] = self.names;
        let (name, result) = match address {
            IpAddr::V4(address) => (v4, self.v4.insert(&Key::new(bits, address.octets()), raw, 0)),
            IpAddr::V6(address) => (v6, self.v6.insert(&Key::new(bits, address.octets()), raw, 0)),
        };
        result.map_err(map_error("insert a prefix", name))
    }

    fn remove(&mut self, (address, bits): Prefix) -> Result<(), Error> {
        let bits = u32::from(bits);
        let [v4, v6] = self.names;
        let (name, result) = match address {
            IpAddr::V4(address) => (v4, self.v4.remove(&Key::new(bits, address.octets()))),
            IpAddr::V6(address) => (v6, self.v6.remove(&Key::new(bits, address.octets()))),
        };
        result.map_err(map_error("remove a prefix", name))
    }
}

/// What must be inserted (or get another value), and what must be removed, to come from `installed`
/// to `wanted`.
fn difference(
    installed: &BTreeMap<Prefix, PrefixValue>,
    wanted: &BTreeMap<Prefix, PrefixValue>,
) -> (Vec<(Prefix, PrefixValue)>, Vec<Prefix>) {
    let changed = wanted.iter().filter(|(prefix, value)| installed.get(prefix) != Some(value));
    let surplus = installed.keys().filter(|prefix| !wanted.contains_key(prefix));
    (changed.map(|(prefix, value)| (*prefix, *value)).collect(), surplus.copied().collect())
}

/// Contents of the prefix maps for these lists.
fn combined(lists: &Lists) -> Result<BTreeMap<Prefix, PrefixValue>, Error> {
    let mut wanted = BTreeMap::new();
    for prefix in &lists.protected {
        wanted.insert(canonical(*prefix)?, PrefixValue::protected(prefix.1));
    }
    for prefix in &lists.exceptions {
        wanted.insert(canonical(*prefix)?, PrefixValue::exception(prefix.1));
    }
    let holding = |address: &IpAddr| {
        let longest_first = (0..=width(address)).rev();
        longest_first.filter_map(|bits| canonical((*address, bits)).ok()).find_map(|prefix| {
            let value = wanted.get(&prefix)?;
            Some((prefix.1, value.is_exception()))
        })
    };
    let own: Vec<_> =
        lists.own.iter().filter_map(|address| Some((*address, holding(address)?))).collect();
    let addresses = lists.own.iter().chain(lists.everything.iter().flatten());
    let kept: Vec<(Prefix, PrefixValue)> = addresses
        .filter(|address| holding(address).is_none())
        .map(|address| ((*address, width(address)), PrefixValue::exception(width(address))))
        .collect();
    for (address, (bits, is_exception)) in own {
        if !is_exception {
            wanted.insert((address, width(&address)), PrefixValue::own(bits));
        }
    }
    if lists.everything.is_some() {
        wanted.extend(kept);
        for prefix in EVERYTHING {
            wanted.entry(prefix).or_insert(PrefixValue::protected(prefix.1));
        }
    }
    let v4 = wanted.keys().filter(|(address, _)| address.is_ipv4()).count();
    let count = v4.max(wanted.len() - v4);
    if count > map::MAX_PREFIXES as usize {
        return Err(Error::TooManyPrefixes { count });
    }
    Ok(wanted)
}

/// The prefix with zeros in the bits that do not count.
fn canonical((address, bits): Prefix) -> Result<Prefix, Error> {
    let host_bits = u32::from(width(&address)).checked_sub(u32::from(bits));
    let host_bits = host_bits.ok_or(Error::PrefixTooLong { address, bits })?;
    let address = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    };
    Ok((address, bits))
}

/// Bits of an address.
fn width(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn load_error(role: Role, reason: EbpfError) -> Error {
    let errno = match &reason {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error.raw_os_error(),
        EbpfError::ProgramError(reason) => errno_of(reason),
        _ => None,
    };
    let program = role.program();
    match errno {
        Some(libc::EPERM) => Error::NotPermitted { program },
        _ => Error::Load { program, reason: Box::new(reason) },
    }
}

fn attach_error(interface: &str, mode: Mode, reason: ProgramError) -> Error {
    let interface = interface.to_owned();
    match errno_of(&reason) {
        // EEXIST: a program in the other mode.
        Some(libc::EBUSY | libc::EEXIST) => Error::Busy { interface },
        Some(libc::EOPNOTSUPP) => Error::ModeUnsupported { interface, mode },
        Some(libc::ERANGE) => Error::MtuTooLarge { interface, mode },
        _ => Error::Attach { interface, mode, reason: Box::new(reason) },
    }
}

fn errno_of(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

fn pin_error(path: &Path, reason: impl fmt::Display) -> Error {
    Error::Pin { path: path.to_owned(), reason: reason.to_string() }
}

fn map_error(action: &'static str, map: &'static str) -> impl Fn(MapError) -> Error {
    move |reason| Error::Map { action, map, reason: Box::new(reason) }
}

fn run_error(frame: &[u8], reason: ProgramError) -> Error {
    Error::Run { length: frame.len(), reason: Box::new(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').unwrap();
        (address.parse().unwrap(), bits.parse().unwrap())
    }

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| prefix(text)).collect()
    }

    fn lists(protected: &[&str], exceptions: &[&str]) -> Lists {
        let (protected, exceptions) = (prefixes(protected), prefixes(exceptions));
        Lists { protected, exceptions, ..Lists::default() }
    }

    /// Bits beyond the prefix are cleared, at both ends of the range of lengths.
    #[test]
    fn prefixes_become_canonical() {
        for (given, expected) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("2001:db8:1:2::5/33", "2001:db8::/33"),
            ("2001:db8::5/128", "2001:db8::5/128"),
            ("2001:db8::5/0", "::/0"),
        ] {
            assert_eq!(canonical(prefix(given)).unwrap(), prefix(expected));
        }
    }

    /// A prefix longer than its address is refused and named.
    #[test]
    fn long_prefixes_are_refused() {
        let message = canonical(prefix("10.0.0.0/33")).unwrap_err().to_string();
        assert_eq!(message, "prefix 10.0.0.0/33: at most 32 bits expected");
        assert!(canonical(prefix("::/129")).is_err());
    }

    /// Equal prefixes count once, and an exception wins over an equal protected prefix.
    #[test]
    fn exceptions_win() {
        let wanted = combined(&lists(
            &["10.1.0.0/16", "10.1.9.9/16", "10.2.0.0/16"],
            &["10.2.0.0/16", "10.1.0.1/32"],
        ))
        .unwrap();
        let expected = [
            (prefix("10.1.0.0/16"), PrefixValue::protected(16)),
            (prefix("10.1.0.1/32"), PrefixValue::exception(32)),
            (prefix("10.2.0.0/16"), PrefixValue::exception(16)),
        ];
        assert_eq!(wanted, BTreeMap::from(expected));
    }

    /// More prefixes of one family than the map holds are refused before anything changes.
    #[test]
    fn too_many_prefixes_are_refused() {
        let many: Vec<Prefix> =
            (0..=map::MAX_PREFIXES).map(|n| (Ipv4Addr::from_bits(n).into(), 32)).collect();
        let most = Lists { protected: many[1..].to_vec(), ..lists(&[], &["::/0"]) };
        assert!(combined(&most).is_ok());
        let one_more = Lists { protected: many, ..Lists::default() };
        assert!(matches!(combined(&one_more), Err(Error::TooManyPrefixes { count: 65_537 })));
        let own = Lists { own: vec!["192.0.2.1".parse().unwrap()], ..most };
        assert!(combined(&own).is_ok());
        let protected = [own.protected, prefixes(&["0.0.0.0/0"])].concat()[1..].to_vec();
        let own = Lists { protected, ..own };
        assert!(matches!(combined(&own), Err(Error::TooManyPrefixes { count: 65_537 })));
    }

    /// An own address gets the length of the longest prefix that holds it, even if that is the
    /// address itself; outside of all prefixes, and under an exception, it gets nothing.
    #[test]
    fn own_addresses_tell_what_holds_them() {
        let own = ["10.1.0.1", "10.1.128.1", "10.2.0.1", "192.0.2.1", "2001:db8::1", "10.3.0.1"];
        let own: Vec<IpAddr> = own.iter().map(|address| address.parse().unwrap()).collect();
        let with_own = Lists {
            own: own.clone(),
            ..lists(
                &["10.1.0.0/16", "10.1.128.0/17", "10.2.0.0/16", "::/0", "10.3.0.1/32"],
                &["10.2.0.0/24"],
            )
        };
        let added = [
            (prefix("10.1.0.1/32"), PrefixValue::own(16)),
            (prefix("10.1.128.1/32"), PrefixValue::own(17)),
            (prefix("2001:db8::1/128"), PrefixValue::own(0)),
            (prefix("10.3.0.1/32"), PrefixValue::own(32)),
        ];
        let mut expected = combined(&Lists { own: vec![], ..with_own.clone() }).unwrap();
        expected.extend(added);
        assert_eq!(combined(&with_own).unwrap(), expected);
    }

    /// Everything is the engine's but exceptions, and own and broadcast addresses that no prefix of
    /// policy holds; what policy says about prefixes and own addresses stays as it is.
    #[test]
    fn everything_is_taken_but_what_is_ours() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let with_all = Lists {
            own: addresses(&["10.1.0.1", "192.0.2.1", "2001:db8::1", "10.2.0.1"]),
            everything: Some(addresses(&["192.0.2.255", "10.1.0.255"])),
            ..lists(&["10.1.0.0/16"], &["10.2.0.0/24"])
        };
        let expected = [
            (prefix("0.0.0.0/0"), PrefixValue::protected(0)),
            (prefix("10.1.0.0/16"), PrefixValue::protected(16)),
            (prefix("10.1.0.1/32"), PrefixValue::own(16)),
            (prefix("10.2.0.0/24"), PrefixValue::exception(24)),
            (prefix("169.254.0.0/16"), PrefixValue::protected(16)),
            (prefix("192.0.2.1/32"), PrefixValue::exception(32)),
            (prefix("192.0.2.255/32"), PrefixValue::exception(32)),
            (prefix("::/0"), PrefixValue::protected(0)),
            (prefix("2001:db8::1/128"), PrefixValue::exception(128)),
        ];
        assert_eq!(combined(&with_all).unwrap(), BTreeMap::from(expected));
        let exception = Lists { everything: Some(Vec::new()), ..lists(&[], &["0.0.0.0/0"]) };
        let wanted = combined(&exception).unwrap();
        assert_eq!(wanted[&prefix("0.0.0.0/0")], PrefixValue::exception(0), "they win");
    }

    /// The difference holds what is new, changed or gone, and nothing that stays.
    #[test]
    fn difference_is_minimal() {
        let old =
            combined(&lists(&["10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32"], &["10.3.0.0/16"]));
        let new = combined(&lists(&["10.1.0.0/16", "10.3.0.0/16", "10.4.0.0/16"], &[]));
        let (changed, surplus) = difference(&old.unwrap(), &new.unwrap());
        let expected = [
            (prefix("10.3.0.0/16"), PrefixValue::protected(16)),
            (prefix("10.4.0.0/16"), PrefixValue::protected(16)),
        ];
        assert_eq!(changed, expected);
        assert_eq!(surplus, prefixes(&["10.2.0.0/16", "2001:db8::/32"]));
    }

    /// The message of a taken interface says what to do about it.
    #[test]
    fn busy_interface_names_the_command() {
        let message = Error::Busy { interface: "lan0".to_owned() }.to_string();
        assert!(message.starts_with(
            "another XDP program is attached to lan0; remove it with \
             `ip link set dev lan0 xdp off`"
        ));
    }
}
