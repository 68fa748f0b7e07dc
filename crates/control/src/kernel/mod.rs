//! Next hops from the kernel: routes, neighbours, links and addresses, read and followed by
//! rtnetlink.
//!
//! The gateway configures neither routes nor MAC addresses. Whatever the machine's administrator,
//! routing daemon or DHCP client put into the kernel holds for packets that bypass the kernel too:
//! a [`Follower`] reads the kernel's tables once, then applies every change the kernel announces,
//! and publishes the result to the workers as [`NextHops`] snapshots.
//!
//! # How the copy stays true
//!
//! The follower subscribes first and reads second, so no change is lost in between. Applying an old
//! announcement again is harmless, because each names the whole entry. Where the kernel changes its
//! tables without an announcement, or with one that leaves open what the result is, everything is
//! read again; so it is when announcements were lost (`ENOBUFS`) or a listing was interrupted by a
//! change. These cases are:
//!
//! - an interface goes down or away, or an address is removed: the kernel drops routes silently;
//! - a nexthop object changes; the objects themselves are not followed, routes that refer to them
//!   work because the kernel spells them out (`net.ipv4.nexthop_compat_mode`, on by default);
//! - a route joins another one of the same prefix, table and metric, or leaves it.
//!
//! # What becomes of the kernel's routes
//!
//! - Tables `local`, `main` and `default` count, in this order, as the kernel's default rules have
//!   it; other tables, policy rules and VRFs do not. Routes for one type of service only, and IPv6
//!   routes by source address, do not either.
//! - Among equal prefixes the lowest metric wins, and of a multipath route the first next hop, each
//!   time the first that leaves by an interface that is up. Packets are never spread over several.
//! - Our own addresses are local, also those of interfaces that are down.
//! - `unreachable`, `prohibit`, `blackhole`, `throw`, broadcast, multicast and anycast routes, and
//!   routes that encapsulate (MPLS, segment routing ...), never forward; nor does anything to
//!   multicast, loopback and unspecified addresses.
//! - A VLAN device (IEEE 802.1Q) directly on one of our interfaces is a link of its own. Bonds,
//!   bridges, and VLANs on VLANs are not ours.
//! - A route's own MTU is not used; the link's is.
//!
//! # Neighbours
//!
//! The kernel does address resolution; this module only asks for it ([`Follower::resolve`]) and
//! reads the answer. Since forwarded packets never pass the kernel, it would take every neighbour
//! for unused and let it grow stale; [`Follower::refresh`] makes it check stale ones again. All
//! neighbours on our links are refreshed, because which of them packets go to is known only to the
//! workers.
//!
//! Nothing here reads a clock. The sockets belong to the network namespace of the thread that calls
//! [`Follower::open`].

mod links;
mod neighbours;
mod routes;
mod socket;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::time::Duration;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_core::NetlinkPayload;
use tracing::debug;
use tracing::warn;

use culvert_engine::next_hop::NextHops;
use culvert_engine::next_hop::Target;
use culvert_frame::Port;

use socket::Dump;
use socket::Event;
use socket::Events;
use socket::Message;
use socket::Requests;
use table::Outcome;
use table::Table;

/// How long a neighbour is not asked for again.
pub const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Most different neighbours asked for within [`ASK_INTERVAL`].
pub const MAX_ASKED: usize = 256;
/// Time between two rounds in which stale neighbours are refreshed.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(15);
/// Most neighbours refreshed in one round; the next goes on where it stopped.
pub const MAX_REFRESHED: usize = 1024;

/// Most datagrams [`Follower::poll`] reads before it returns.
const MAX_DATAGRAMS: usize = 4096;
/// How often an interrupted listing is repeated before it is taken as it is, and repeated later.
const MAX_ATTEMPTS: usize = 4;

/// Why the kernel's tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A socket call failed.
    #[error("netlink socket, {operation}: {error}")]
    Socket {
        /// The call.
        operation: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The kernel did not list a table.
    #[error("netlink: the kernel does not list its {what}: {error}")]
    Dump {
        /// The table.
        what: &'static str,
        /// What the kernel answered.
        error: io::Error,
    },
    /// An interface of the configuration does not exist.
    #[error("interface {0:?}: expected the name of an existing Ethernet interface")]
    NoInterface(String),
}

/// What the follower did so far; each counts up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of the kernel that could not be parsed and were skipped.
    pub malformed: u64,
    /// Times the kernel dropped announcements because we read too slowly.
    pub overruns: u64,
    /// Times all tables were read.
    pub reads: u64,
    /// Entries ignored because a table of ours was full.
    pub over_limit: u64,
    /// Neighbours the kernel was asked to resolve or refresh.
    pub asked: u64,
    /// Neighbours not asked for because [`MAX_ASKED`] others were.
    pub suppressed: u64,
    /// Requests to resolve or refresh a neighbour that the kernel refused.
    pub refused: u64,
}

/// Follows the kernel's routes, neighbours, links and addresses.
///
/// Readable (as a file descriptor) when [`poll`](Follower::poll) has something to do.
#[derive(Debug)]
pub struct Follower {
    events: Events,
    requests: Requests,
    interfaces: Vec<(String, Port)>,
    table: Table,
    /// The table changed since `poll` last said so.
    changed: bool,
    /// The table must be read again.
    reread: bool,
    asked: BTreeMap<Target, Duration>,
    next_refresh: Duration,
    last_refreshed: Option<Target>,
    counters: Counters,
}

impl Follower {
    /// Subscribes to the kernel's announcements and reads its tables. `interfaces` are ours: the
    /// only ones packets may leave by, and the ports they are.
    ///
    /// # Errors
    /// [`KernelError`]: an interface does not exist, or netlink does not work.
    pub fn open(interfaces: &[(String, Port)]) -> Result<Follower, KernelError> {
        let mut follower = Follower {
            events: Events::open()?,
            requests: Requests::open()?,
            interfaces: interfaces.to_vec(),
            table: Table::new(interfaces),
            changed: false,
            reread: false,
            asked: BTreeMap::new(),
            next_refresh: Duration::ZERO,
            last_refreshed: None,
            counters: Counters::default(),
        };
        follower.read_tables()?;
        for (name, _) in interfaces {
            if !follower.table.has_interface(name) {
                return Err(KernelError::NoInterface(name.clone()));
            }
        }
        follower.changed = false;
        Ok(follower)
    }

    /// Applies what the kernel announced, without waiting for more; true when a new
    /// [`snapshot`](Follower::snapshot) would differ from the one before.
    ///
    /// Reads all tables again when it must (see the module text), at most once a call.
    ///
    /// # Errors
    /// [`KernelError`] when a socket fails. The follower stays usable: its table is the last good
    /// one, and the next call tries again.
    pub fn poll(&mut self) -> Result<bool, KernelError> {
        for _ in 0..MAX_DATAGRAMS {
            match self.events.receive()? {
                Event::Nothing => break,
                Event::Lost => {
                    self.counters.overruns += 1;
                    self.reread = true;
                }
                Event::Datagram => self.apply_datagram(),
            }
        }
        if self.reread {
            self.read_tables()?;
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// The table as the workers use it. Costs as much as the table is large.
    #[must_use]
    pub fn snapshot(&self) -> NextHops {
        self.table.snapshot()
    }

    /// The addresses of this machine, each once.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.table.addresses(None).collect();
        addresses.dedup();
        addresses
    }

    /// The broadcast addresses of this machine's networks, each once. Packets to them are for the
    /// machine itself.
    #[must_use]
    pub fn broadcasts(&self) -> Vec<IpAddr> {
        self.table.broadcasts()
    }

    /// The addresses that an interface has.
    pub fn addresses_of(&self, interface: &str) -> impl Iterator<Item = IpAddr> {
        self.table.addresses(Some(interface))
    }

    /// Asks the kernel to resolve a neighbour; the answer comes by [`poll`](Follower::poll).
    ///
    /// `now` is the time since any fixed moment. False, and nothing done, when the neighbour was
    /// asked for within [`ASK_INTERVAL`], when too many others were, and when it is not on one of
    /// our links.
    pub fn resolve(&mut self, target: Target, now: Duration) -> bool {
        let address = target.address;
        if address.is_multicast() || address.is_unspecified() || !self.table.is_link(&target) {
            return false;
        }
        let recent = |at: &Duration| now.saturating_sub(*at) < ASK_INTERVAL;
        if self.asked.get(&target).is_some_and(recent) {
            return false;
        }
        if self.asked.len() >= MAX_ASKED {
            self.asked.retain(|_, at| recent(at));
            if self.asked.len() >= MAX_ASKED {
                self.counters.suppressed += 1;
                return false;
            }
        }
        self.asked.insert(target, now);
        self.ask(target);
        true
    }

    /// Makes the kernel check stale neighbours again, in rounds [`REFRESH_INTERVAL`] apart; to be
    /// called often.
    pub fn refresh(&mut self, now: Duration) {
        if now < self.next_refresh {
            return;
        }
        self.next_refresh = now.saturating_add(REFRESH_INTERVAL);
        let stale = self.table.stale_neighbours(self.last_refreshed, MAX_REFRESHED);
        self.last_refreshed = stale.last().copied().filter(|_| stale.len() == MAX_REFRESHED);
        for target in stale {
            self.ask(target);
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// As if a packet had to go to `target`: the kernel resolves or checks the entry.
    fn ask(&mut self, target: Target) {
        self.counters.asked += 1;
        let request = neighbours::use_request(target);
        if let Err(error) = self.events.send(request, NLM_F_CREATE | NLM_F_REPLACE) {
            self.counters.refused += 1;
            debug!(?target, %error, "cannot ask the kernel for a neighbour");
        }
    }

    /// Applies the messages of the datagram just received.
    fn apply_datagram(&mut self) {
        for message in self.events.messages() {
            let outcome = match message {
                Ok(Message { payload: NetlinkPayload::InnerMessage(message), flags, .. }) => {
                    self.table.apply(&message, flags)
                }
                Ok(Message { payload: NetlinkPayload::Error(answer), .. }) => {
                    self.counters.refused += u64::from(answer.code.is_some());
                    debug!(error = %answer.to_io(), "the kernel's answer about a neighbour");
                    Outcome::Same
                }
                Ok(_) => Outcome::Same,
                Err(outcome) => outcome,
            };
            match outcome {
                Outcome::Same => {}
                Outcome::Changed => self.changed = true,
                Outcome::Reread => self.reread = true,
                Outcome::Malformed => self.counters.malformed += 1,
                Outcome::OverLimit => over_limit(&mut self.counters),
            }
        }
    }

    /// Reads all tables and puts them in the place of what was known.
    fn read_tables(&mut self) -> Result<(), KernelError> {
        self.reread = true;
        // What was announced until now is part of what is read.
        for _ in 0..MAX_DATAGRAMS {
            if matches!(self.events.receive()?, Event::Nothing) {
                break;
            }
        }
        let mut attempts = 1;
        let (table, complete) = loop {
            let mut table = Table::new(&self.interfaces);
            let complete = self.fill(&mut table)?;
            if complete || attempts == MAX_ATTEMPTS {
                break (table, complete);
            }
            attempts += 1;
        };
        self.changed |= table != self.table;
        self.table = table;
        self.reread = !complete;
        Ok(())
    }

    /// Reads all tables into `table`; false when something changed meanwhile, so that entries may
    /// be missing.
    fn fill(&mut self, table: &mut Table) -> Result<bool, KernelError> {
        self.counters.reads += 1;
        let mut complete = true;
        // Links come first for two reasons: what is a neighbour of ours depends on them, and
        // listing them waits for the kernel's big lock, so that a change of an interface or an
        // address whose announcement made us read is over when routes are listed.
        for dump in Dump::ALL {
            let counters = &mut self.counters;
            complete &= self.requests.dump(dump, |message| {
                match message.map_or(Outcome::Malformed, |message| table.load(&message)) {
                    Outcome::Malformed => counters.malformed += 1,
                    Outcome::OverLimit => over_limit(counters),
                    Outcome::Same | Outcome::Changed | Outcome::Reread => {}
                }
            })?;
        }
        Ok(complete)
    }
}

fn over_limit(counters: &mut Counters) {
    if counters.over_limit == 0 {
        warn!(
            links = links::MAX_LINKS,
            addresses = table::MAX_ADDRESSES,
            routes = routes::MAX_ROUTES,
            neighbours = neighbours::MAX_NEIGHBOURS,
            "a table of the kernel is larger than these limits; the rest of it is ignored"
        );
    }
    counters.over_limit += 1;
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl AsRawFd for Follower {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
