//! [`Controller`]: the SAs and policies of record, and what workers are told about them.
//!
//! SAs are made here, key schedules included, and moved to the worker that will own them. Where
//! they live is published to all workers only after their owners have confirmed them, so no worker
//! ever hands a packet to an owner that does not know the SA.
//!
//! An SA lives in these steps, each of which waits for the one before:
//!
//! 1. its entry is moved to a free slot, and the worker confirms;
//! 2. an *edition* of what workers know names it; once all have taken that up, it is *known*;
//! 3. to go, it is taken out by another edition; once all workers have taken that up, nobody looks
//!    for it any more, and its worker is asked for the entry;
//! 4. the entry is back: its key is wiped here, and its slot is free.
//!
//! Each step is taken when the event that it waits for comes. So it costs the same however many SAs
//! there are, and workers take up no more than what is different.
//!
//! Rekeying is make before break (RFC 7296 section 2.8): the new outbound SA takes packets once its
//! inbound twin is known, and only when the new one is known does the old one go. Migration moves
//! the entry, counter and window with it, from worker to worker ([`culvert_engine::moves`]): no
//! moment has two owners, and no packet finds none.
//!
//! Nothing here waits: [`Controller::poll`] moves what can be moved and is called again.

mod bundles;
mod entries;
mod error;
mod inspect;
mod leases;
mod lifecycle;
mod migration;
mod publication;
mod record;
mod slots;
mod standing;
#[cfg(test)]
mod tests;
mod tombstones;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_aead::Aead;
use culvert_engine::Command;
use culvert_engine::Counters;
use culvert_engine::Location;
use culvert_engine::NextHops;
use culvert_engine::SharedCounters;
use culvert_engine::WorkerId;
use culvert_engine::directory::Directory;
use culvert_engine::handoff::Wake;
use culvert_engine::mailbox::ControlEnd;
use culvert_engine::mailbox::Notice;
use culvert_engine::next_hop::Target;
use culvert_engine::tables::SaSample;
use culvert_spd::Group;
use rustc_hash::FxHashMap;

use bundles::Bundles;
use inspect::Inspections;
use leases::Leases;
use migration::Migration;
use publication::Publication;
use record::Record;
use record::Stage;
use slots::Slots;

use crate::sa::Direction;
use crate::sequence_store::SequenceStore;

pub use error::ControlError;
pub use inspect::Retired;
pub use leases::LEASE;
pub use record::SaId;

/// News kept until they are taken.
const NEWS_MAX: usize = 4096;

/// Control's view of one worker.
pub struct WorkerHandle<K> {
    /// Commands to it, events from it.
    pub mailbox: ControlEnd<K>,
    /// Wakes it.
    pub wake: Arc<dyn Wake>,
    /// Its counters.
    pub counters: Arc<SharedCounters>,
}

/// Where an inbound SA of ESP lives from now on, that is not encapsulated: for rules of NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The SA.
    pub id: SaId,
    /// Its SPI.
    pub spi: u32,
    /// Where its packets are sent.
    pub destination: IpAddr,
    /// Its worker; `None` when it is gone.
    pub worker: Option<WorkerId>,
}

/// Something that happened at a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The worker.
    pub worker: WorkerId,
    /// The SA it concerns, if it concerns one.
    pub sa: Option<SaId>,
    /// What happened.
    pub notice: Notice,
}

struct WorkerState<K> {
    handle: WorkerHandle<K>,
    backlog: VecDeque<Command<K>>,
    inbound: Slots,
    outbound: Slots,
}

/// The controller, for AEAD provider `A`.
pub struct Controller<A: Aead> {
    aead: A,
    workers: Vec<WorkerState<A::Key>>,
    slots: usize,
    /// In boxes, as numbers only rise: nodes of a map that grows at its end are half empty.
    records: BTreeMap<SaId, Box<Record>>,
    /// SAs on their way to their worker.
    installing: BTreeSet<SaId>,
    /// How many are on their way from it.
    leaving: usize,
    /// SAs that may have what they waited for.
    due: Vec<SaId>,
    /// SAs that wait for others: for a twin to be known, for a successor to take over.
    waiting: FxHashMap<SaId, Vec<SaId>>,
    /// The number of the next SA.
    next_id: u64,
    /// Counts what decides which SA of a group is the latest.
    orders: u64,
    leases: Leases,
    bundles: Bundles,
    /// Which inbound SAs there are, as packets find them.
    claims: Directory,
    publication: Publication,
    /// Next hops that workers have not taken up yet.
    untaken_next_hops: usize,
    resolve: Vec<Target>,
    news: VecDeque<News>,
    news_lost: u64,
    samples: Vec<SaSample>,
    samples_due: usize,
    inspections: Inspections,
    lends_keys: bool,
    migrations: Vec<Migration>,
    /// Changes of places that nobody has taken yet; `None` when nobody wants them.
    placements: Option<Vec<Placement>>,
}

impl<A: Aead> Controller<A> {
    /// A controller of workers with `slots` slots each. With a store, outbound sequence numbers are
    /// leased from it; without one, keys must not outlive the process.
    ///
    /// # Panics
    /// When there are more than 256 workers, or more than 2^32 slots.
    #[must_use]
    pub fn new(
        aead: A,
        workers: Vec<WorkerHandle<A::Key>>,
        slots: usize,
        store: Option<SequenceStore>,
    ) -> Controller<A> {
        assert!(workers.len() <= 256, "workers are numbered by an octet");
        let publication = Publication::new(workers.len());
        let state = |handle| WorkerState {
            handle,
            backlog: VecDeque::new(),
            inbound: Slots::new(slots),
            outbound: Slots::new(slots),
        };
        Controller {
            aead,
            workers: workers.into_iter().map(state).collect(),
            slots,
            records: BTreeMap::new(),
            installing: BTreeSet::new(),
            leaving: 0,
            due: Vec::new(),
            waiting: FxHashMap::default(),
            next_id: 0,
            orders: 0,
            leases: Leases::new(store),
            bundles: Bundles::default(),
            claims: Directory::default(),
            publication,
            untaken_next_hops: 0,
            resolve: Vec::new(),
            news: VecDeque::new(),
            news_lost: 0,
            samples: Vec::new(),
            samples_due: 0,
            inspections: Inspections::default(),
            lends_keys: false,
            migrations: Vec::new(),
            placements: None,
        }
    }

    /// Whether ESP SAs that are added from now on get a second copy of their key, which their
    /// worker shares with those that [help](culvert_engine::crew) it. They do not unless this is
    /// called.
    pub fn set_lending(&mut self, lends_keys: bool) {
        self.lends_keys = lends_keys;
    }

    /// Remembers so many SAs that are gone, of each direction, from now on; 65536 unless this is
    /// called. When an outbound one is forgotten, epochs up to its own are
    /// [used up](ControlError::EpochUsedUp).
    pub fn set_tombstones_max(&mut self, max: usize) {
        self.leases.tombstones.set_max(max);
    }

    /// Replaces the next hops of all workers.
    pub fn set_next_hops(&mut self, next_hops: NextHops) {
        let next_hops = Arc::new(next_hops);
        for worker in &mut self.workers {
            worker.backlog.push_back(Command::NextHops(Arc::clone(&next_hops)));
        }
        self.untaken_next_hops += self.workers.len();
    }

    /// Moves commands out and events in. Call it again soon while [`is_idle`](Self::is_idle) is
    /// false.
    ///
    /// # Errors
    /// When a lease cannot be written. It is tried again with the next call; until then the SA
    /// stops at its old ceiling, and nothing is reused. All else goes on.
    pub fn poll(&mut self) -> Result<(), ControlError> {
        let mut result = Ok(());
        for index in 0..self.workers.len() {
            while let Some(event) = self.workers[index].handle.mailbox.event() {
                result = result.and(self.handle(index, event));
            }
        }
        result = result.and(self.extend_leases());
        self.advance();
        self.publish_if_due();
        self.workers.iter_mut().for_each(WorkerState::send_backlog);
        result
    }

    /// True when every SA is where it is to be and every worker has taken up the last edition.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let sent = self.workers.iter().all(|worker| worker.backlog.is_empty());
        let settled = self.installing.is_empty() && self.leaving == 0 && self.due.is_empty();
        let settled = settled && self.migrations.is_empty();
        sent && settled && self.untaken_next_hops == 0 && self.publication.is_idle()
    }

    /// Commands that wait for room in the mailboxes of workers.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.workers.iter().map(|worker| worker.backlog.len()).sum()
    }

    /// Neighbours that packets wait for since the last call.
    pub fn take_unresolved(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.resolve)
    }

    /// What happened since the last call, oldest first, and how many news were lost because nobody
    /// took them.
    pub fn take_news(&mut self) -> (Vec<News>, u64) {
        (self.news.drain(..).collect(), std::mem::take(&mut self.news_lost))
    }

    /// Notes placements from now on.
    pub fn follow_placements(&mut self) {
        self.placements.get_or_insert_default();
    }

    /// Where SAs came to live since the last call, in order; nothing unless they are
    /// [followed](Self::follow_placements).
    pub fn take_placements(&mut self) -> Vec<Placement> {
        self.placements.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Asks all workers what their SAs did; the answer comes with a later [`poll`](Self::poll).
    pub fn request_samples(&mut self) {
        if self.samples_due > 0 {
            return;
        }
        self.samples.clear();
        self.samples_due = self.workers.len();
        for worker in &mut self.workers {
            let room = worker.inbound.used() + worker.outbound.used();
            worker.backlog.push_back(Command::Sample(Vec::with_capacity(room)));
        }
    }

    /// The answer to [`request_samples`](Self::request_samples), once all workers gave it.
    #[must_use]
    pub fn samples(&self) -> Option<&[SaSample]> {
        (self.samples_due == 0).then_some(&self.samples)
    }

    /// The counters of each worker.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.workers.iter().map(|worker| worker.handle.counters.load()).collect()
    }

    /// The SAs there are, oldest first, those on their way in or out included.
    pub fn ids(&self) -> impl Iterator<Item = SaId> {
        self.records.keys().copied()
    }

    /// The newest SA with this direction and SPI that is not on its way out.
    #[must_use]
    pub fn find(&self, direction: Direction, spi: u32) -> Option<SaId> {
        let mut found = self.records.iter().rev().filter(|(_, record)| {
            (record.direction, record.spi) == (direction, spi) && !record.is_doomed
        });
        found.next().map(|(&id, _)| id)
    }

    /// Direction and SPI of an SA.
    #[must_use]
    pub fn spi(&self, id: SaId) -> Option<(Direction, u32)> {
        self.records.get(&id).map(|record| (record.direction, record.spi))
    }

    /// Where an SA lives; `None` when there is none, or it is on its way.
    #[must_use]
    pub fn location(&self, id: SaId) -> Option<Location> {
        let record = self.records.get(&id)?;
        (record.stage == Stage::Installed).then_some(record.location)
    }

    /// True when all workers know where the SA is.
    #[must_use]
    pub fn is_known(&self, id: SaId) -> bool {
        self.records.get(&id).is_some_and(|record| record.is_known(self.publication.taken()))
    }

    /// The outbound SA that packets of a group take at a worker without one of its own, as last
    /// published.
    #[must_use]
    pub fn current(&self, group: Group) -> Option<SaId> {
        self.publication.latest(group)
    }

    /// Records the last numbers used, so that the next start does not skip what was leased.
    /// `last_used` comes from workers that have stopped.
    ///
    /// # Errors
    /// When the store cannot be written; the ceilings recorded before stay in force.
    pub fn record_last(
        &self,
        last_used: impl IntoIterator<Item = (Location, u64)>,
    ) -> Result<(), ControlError> {
        last_used.into_iter().try_for_each(|(location, last)| {
            let worker = self.workers.get(usize::from(location.worker.0));
            match worker.and_then(|worker| worker.outbound.owner(location.slot)) {
                Some(id) => self.leases.record_last(id, last),
                None => Ok(()),
            }
        })
    }

    /// Where each outbound SA with a lease lives.
    pub fn leased(&self) -> impl Iterator<Item = Location> {
        self.leases.ids().filter_map(|id| self.location(id))
    }
}

impl<K> WorkerState<K> {
    fn slots(&mut self, direction: Direction) -> &mut Slots {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    pub(super) fn send_backlog(&mut self) {
        let mut sent = false;
        while let Some(command) = self.backlog.pop_front() {
            match self.handle.mailbox.send(command) {
                Ok(()) => sent = true,
                Err(command) => {
                    self.backlog.push_front(command);
                    break;
                }
            }
        }
        if sent {
            self.handle.wake.wake();
        }
    }
}

impl<A: Aead> std::fmt::Debug for Controller<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("workers", &self.workers.len())
            .field("sas", &self.records.len())
            .field("installing", &self.installing.len())
            .finish_non_exhaustive()
    }
}
