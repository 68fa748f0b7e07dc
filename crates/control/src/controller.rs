//! [`Controller`]: the SAs and policies of record, and what workers are told about them.
//!
//! SAs are made here, key schedules included, and moved to the worker that will own them. Where
//! they live is published as a snapshot to all workers only after their owners have confirmed them,
//! so no worker ever hands a packet to an owner that does not know the SA.
//!
//! Nothing here waits: [`Controller::poll`] moves what can be moved and is called again.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use culvert_aead::Aead;
use culvert_aead::KeyError;
use culvert_engine::Command;
use culvert_engine::Counters;
use culvert_engine::Event;
use culvert_engine::InboundEntry;
use culvert_engine::Location;
use culvert_engine::NextHops;
use culvert_engine::OutboundEntry;
use culvert_engine::SharedCounters;
use culvert_engine::Snapshot;
use culvert_engine::WorkerId;
use culvert_engine::handoff::Wake;
use culvert_engine::mailbox::ControlEnd;
use culvert_engine::next_hop::Target;
use culvert_engine::tables::SaSample;
use culvert_esp::InboundSa;
use culvert_esp::OutboundSa;
use culvert_esp::Template;
use culvert_esp::Window;
use culvert_esp::replay::WindowSizeError;
use culvert_esp::seq::Sequence;
use culvert_esp::template::FamilyMismatch;
use culvert_spd::Spd;

use crate::sa::Direction;
use crate::sa::SaSpec;
use crate::sequence_store::Fingerprint;
use crate::sequence_store::SequenceStore;
use crate::sequence_store::StoreError;

/// Sequence numbers leased at a time: about 0.4 s at 10 million packets a second.
pub const LEASE: u64 = 1 << 22;

/// Numbers left at which the next lease is asked for.
const LEASE_LOW: u64 = LEASE / 2;

/// Why an SA cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The key does not fit the algorithm.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The window size is out of range.
    #[error(transparent)]
    Window(#[from] WindowSizeError),
    /// The tunnel endpoints do not fit together.
    #[error(transparent)]
    Endpoints(#[from] FamilyMismatch),
    /// The sequence number store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An inbound SA with this SPI exists.
    #[error("inbound SPI {0:#x} is in use")]
    DuplicateSpi(u32),
    /// The numbers of a key are used up, by what is on disk.
    #[error(
        "sequence numbers up to {used} may have been used with this key, and the SA can count to \
         {end}: expected a new key"
    )]
    UsedUp {
        /// The highest number that may have been used.
        used: u64,
        /// The last number of the SA.
        end: u64,
    },
    /// Every worker's table is full.
    #[error("no free slot for another SA: expected at most {0} for each worker and direction")]
    Full(usize),
}

/// Control's view of one worker.
pub struct WorkerHandle<K> {
    /// Commands to it, events from it.
    pub mailbox: ControlEnd<K>,
    /// Wakes it.
    pub wake: Arc<dyn Wake>,
    /// Its counters.
    pub counters: Arc<SharedCounters>,
}

struct WorkerState<K> {
    handle: WorkerHandle<K>,
    backlog: VecDeque<Command<K>>,
    inbound_slots: u32,
    outbound_slots: u32,
}

/// A lease of sequence numbers that an outbound SA draws from.
#[derive(Debug)]
struct Lease {
    key: Fingerprint,
    ceiling: u64,
    /// Last number of the SA.
    end: u64,
}

/// The controller, for AEAD provider `A`.
pub struct Controller<A: Aead> {
    aead: A,
    workers: Vec<WorkerState<A::Key>>,
    slots: usize,
    store: Option<SequenceStore>,
    leases: HashMap<(WorkerId, u32), Lease>,
    policies: Spd,
    draft: Snapshot,
    /// Leases that are due: worker, slot, last number used.
    due_leases: VecDeque<(WorkerId, u32, u64)>,
    publish_due: bool,
    /// SAs that their workers have not confirmed yet.
    unconfirmed: usize,
    /// Snapshots and next hops that workers have not taken up yet.
    untaken: usize,
    resolve: Vec<Target>,
    samples: Vec<SaSample>,
    samples_due: usize,
}

impl<A: Aead> Controller<A> {
    /// A controller of workers with `slots` slots each. With a store, outbound sequence numbers are
    /// leased from it; without one, keys must not outlive the process.
    #[must_use]
    pub fn new(
        aead: A,
        workers: Vec<WorkerHandle<A::Key>>,
        slots: usize,
        store: Option<SequenceStore>,
    ) -> Controller<A> {
        let state = |handle| WorkerState {
            handle,
            backlog: VecDeque::new(),
            inbound_slots: 0,
            outbound_slots: 0,
        };
        Controller {
            aead,
            workers: workers.into_iter().map(state).collect(),
            slots,
            store,
            leases: HashMap::new(),
            policies: Spd::default(),
            draft: Snapshot::default(),
            due_leases: VecDeque::new(),
            publish_due: false,
            unconfirmed: 0,
            untaken: 0,
            resolve: Vec::new(),
            samples: Vec::new(),
            samples_due: 0,
        }
    }

    /// Installs an SA on the worker that owns the fewest of its direction, and publishes it once
    /// that worker has confirmed.
    ///
    /// # Errors
    /// When the SA is impossible; nothing is installed then.
    pub fn add_sa(&mut self, spec: &SaSpec) -> Result<Location, ControlError> {
        let location = self.place(spec.direction)?;
        let key = self.aead.key(spec.algorithm, &spec.keymat)?;
        let command = match spec.direction {
            Direction::Inbound => {
                if self.draft.directory.contains_key(&spec.spi.value()) {
                    return Err(ControlError::DuplicateSpi(spec.spi.value()));
                }
                let window = Window::new(spec.replay_window, spec.esn, spec.sequence)?;
                let sa = InboundSa::new(spec.spi, spec.destination, key, window);
                self.draft.directory.insert(spec.spi.value(), location);
                let entry = Box::new(InboundEntry::new(sa, spec.group));
                Command::Inbound(location.slot, Some(entry))
            }
            Direction::Outbound => {
                let template = Template::new(spec.source, spec.destination, spec.encapsulation)?;
                let entry = Box::new(self.outbound_entry(spec, key, template, location)?);
                self.draft.groups.insert(spec.group, location);
                Command::Outbound(location.slot, Some(entry))
            }
        };
        let worker = &mut self.workers[usize::from(location.worker.0)];
        match spec.direction {
            Direction::Inbound => worker.inbound_slots += 1,
            Direction::Outbound => worker.outbound_slots += 1,
        }
        worker.backlog.push_back(command);
        self.unconfirmed += 1;
        self.publish_due = true;
        Ok(location)
    }

    /// Replaces the policies.
    pub fn set_policies(&mut self, spd: Spd) {
        self.policies = spd;
        self.publish_due = true;
    }

    /// Replaces the next hops of all workers.
    pub fn set_next_hops(&mut self, next_hops: NextHops) {
        let next_hops = Arc::new(next_hops);
        for worker in &mut self.workers {
            worker.backlog.push_back(Command::NextHops(Arc::clone(&next_hops)));
        }
        self.untaken += self.workers.len();
    }

    /// Moves commands out and events in. Call it again soon while [`is_idle`](Self::is_idle) is
    /// false.
    ///
    /// # Errors
    /// When a lease cannot be written. It is tried again with the next call; until then the SA
    /// stops at its old ceiling, and nothing is reused.
    pub fn poll(&mut self) -> Result<(), ControlError> {
        let mut result = Ok(());
        for index in 0..self.workers.len() {
            while let Some(event) = self.workers[index].handle.mailbox.event() {
                self.handle(index, event);
            }
        }
        while let Some(&(id, slot, last)) = self.due_leases.front() {
            // A lease that cannot be written now is tried again; until then the SA has its old one.
            if let Err(error) = self.extend_lease(id, slot, last) {
                result = Err(error);
                break;
            }
            self.due_leases.pop_front();
        }
        if self.publish_due && self.unconfirmed == 0 {
            self.publish();
        }
        self.workers.iter_mut().for_each(WorkerState::send_backlog);
        result
    }

    /// True when every worker has confirmed every SA and taken up the last snapshot.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let sent = self.workers.iter().all(|worker| worker.backlog.is_empty());
        sent && self.unconfirmed == 0 && self.untaken == 0 && !self.publish_due
    }

    /// Neighbours that packets wait for since the last call.
    pub fn take_unresolved(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.resolve)
    }

    /// Asks all workers what their SAs did; the answer comes with a later [`poll`](Self::poll).
    pub fn request_samples(&mut self) {
        if self.samples_due > 0 {
            return;
        }
        self.samples.clear();
        self.samples_due = self.workers.len();
        for worker in &mut self.workers {
            let room = (worker.inbound_slots + worker.outbound_slots) as usize;
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

    /// Records the last numbers used, so that the next start does not skip what was leased.
    /// `last_used` comes from workers that have stopped.
    ///
    /// # Errors
    /// When the store cannot be written; the ceilings recorded before stay in force.
    pub fn record_last(
        &self,
        last_used: impl IntoIterator<Item = (Location, u64)>,
    ) -> Result<(), ControlError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        for (location, last) in last_used {
            if let Some(lease) = self.leases.get(&(location.worker, location.slot)) {
                assert!(last <= lease.ceiling, "a number above the lease was used");
                store.record(&lease.key, last)?;
            }
        }
        Ok(())
    }

    /// Where each outbound SA with a lease lives.
    pub fn leased(&self) -> impl Iterator<Item = Location> {
        self.leases.keys().map(|&(worker, slot)| Location { worker, slot })
    }

    fn place(&self, direction: Direction) -> Result<Location, ControlError> {
        let used = |worker: &WorkerState<A::Key>| match direction {
            Direction::Inbound => worker.inbound_slots,
            Direction::Outbound => worker.outbound_slots,
        };
        (0u8..)
            .zip(&self.workers)
            .min_by_key(|(_, worker)| used(worker))
            .map(|(id, worker)| Location { worker: WorkerId(id), slot: used(worker) })
            .filter(|location| (location.slot as usize) < self.slots)
            .ok_or(ControlError::Full(self.slots))
    }

    fn outbound_entry(
        &mut self,
        spec: &SaSpec,
        key: A::Key,
        template: Template,
        location: Location,
    ) -> Result<OutboundEntry<A::Key>, ControlError> {
        let Some(store) = &self.store else {
            let sa = OutboundSa::new(spec.spi, spec.esn, spec.sequence, key, template);
            return Ok(OutboundEntry::new(sa, 0));
        };
        let fingerprint = Fingerprint::of(&spec.keymat);
        let last = spec.sequence.max(store.high_water(&fingerprint)?);
        let end = Sequence::end_of(spec.esn);
        if last > end {
            // A mark is never lowered: with ESN again, or as another SA, the key still has it.
            return Err(ControlError::UsedUp { used: last, end });
        }
        let mut sa = OutboundSa::new(spec.spi, spec.esn, last, key, template);
        sa.sequence.set_ceiling(last.saturating_add(LEASE));
        let ceiling = sa.sequence.ceiling();
        store.record(&fingerprint, ceiling)?;
        let lease = Lease { key: fingerprint, ceiling, end };
        self.leases.insert((location.worker, location.slot), lease);
        Ok(OutboundEntry::new(sa, LEASE_LOW))
    }

    fn handle(&mut self, index: usize, event: Event<A::Key>) {
        match event {
            Event::Inbound(..) | Event::Outbound(..) => self.unconfirmed -= 1,
            // What is replaced is dropped here, on the control thread, and keys with it.
            Event::Snapshot(_) | Event::NextHops(_) => self.untaken -= 1,
            Event::Leased(_) => {}
            Event::Sample(samples) => {
                self.samples.extend(samples);
                self.samples_due -= 1;
            }
            Event::Resolve(target) => self.resolve.push(target),
            Event::LeaseLow { slot, last } => {
                #[expect(clippy::cast_possible_truncation, reason = "at most 256 workers")]
                self.due_leases.push_back((WorkerId(index as u8), slot, last));
            }
        }
    }

    fn extend_lease(&mut self, id: WorkerId, slot: u32, last: u64) -> Result<(), ControlError> {
        let (Some(store), Some(lease)) = (&self.store, self.leases.get_mut(&(id, slot))) else {
            return Ok(());
        };
        let ceiling = last.saturating_add(LEASE).min(lease.end).max(lease.ceiling);
        store.record(&lease.key, ceiling)?;
        lease.ceiling = ceiling;
        let command = Command::Lease { slot, ceiling };
        self.workers[usize::from(id.0)].backlog.push_back(command);
        Ok(())
    }

    fn publish(&mut self) {
        self.publish_due = false;
        let snapshot = Arc::new(Snapshot {
            spd: self.policies.compile(),
            directory: self.draft.directory.clone(),
            groups: self.draft.groups.clone(),
        });
        for worker in &mut self.workers {
            worker.backlog.push_back(Command::Snapshot(Arc::clone(&snapshot)));
        }
        self.untaken += self.workers.len();
    }
}

impl<K> WorkerState<K> {
    fn send_backlog(&mut self) {
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
            .field("unconfirmed", &self.unconfirmed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use culvert_aead::Algorithm;
    use culvert_aead::Keymat;
    use culvert_aead::RustCrypto;
    use culvert_engine::mailbox::WorkerEnd;
    use culvert_engine::mailbox::mailbox;
    use culvert_esp::Spi;
    use culvert_spd::Group;

    use super::*;

    struct NobodySleeps;

    impl Wake for NobodySleeps {
        fn wake(&self) {}
    }

    type Made = (Controller<RustCrypto>, WorkerEnd<<RustCrypto as Aead>::Key>);

    fn controller(directory: &Path) -> Made {
        let (worker_end, mailbox) = mailbox(64);
        let counters = Arc::default();
        let handle = WorkerHandle { mailbox, wake: Arc::new(NobodySleeps), counters };
        let store = SequenceStore::open(directory).unwrap();
        (Controller::new(RustCrypto, vec![handle], 4, Some(store)), worker_end)
    }

    fn spec(esn: bool) -> SaSpec {
        SaSpec {
            direction: Direction::Outbound,
            spi: Spi::new(0x1001).unwrap(),
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            algorithm: Algorithm::Aes128Gcm16,
            keymat: Keymat::new(vec![7; 20]),
            esn,
            sequence: 0,
            replay_window: 64,
            encapsulation: None,
            group: Group(0),
        }
    }

    fn mark(controller: &Controller<RustCrypto>) -> u64 {
        let store = controller.store.as_ref().unwrap();
        store.high_water(&Fingerprint::of(&spec(true).keymat)).unwrap()
    }

    /// E21: a start leases numbers before any is used, and a crash costs just those.
    #[test]
    fn numbers_are_leased_ahead() {
        let directory = tempfile::tempdir().unwrap();
        for crashes in 1..4 {
            let (mut controller, _worker) = controller(directory.path());
            controller.add_sa(&spec(true)).unwrap();
            assert_eq!(mark(&controller), crashes * LEASE);
        }
    }

    /// E21: an orderly stop records what was used, and the next start goes on from there.
    #[test]
    fn an_orderly_stop_wastes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut first, worker) = controller(directory.path());
        let location = first.add_sa(&spec(true)).unwrap();
        first.record_last([(location, 17)]).unwrap();
        drop((first, worker));
        let (mut second, _worker) = controller(directory.path());
        second.add_sa(&spec(true)).unwrap();
        assert_eq!(mark(&second), 17 + LEASE);
    }

    /// E21: numbers beyond 2^32 were used with ESN; without it the key is refused, and the mark
    /// stays for the day ESN is on again.
    #[test]
    fn the_mark_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (mut controller, _worker) = controller(directory.path());
        let used = (1 << 32) + 5_000_000;
        let store = controller.store.as_ref().unwrap();
        store.record(&Fingerprint::of(&spec(true).keymat), used).unwrap();
        let error = controller.add_sa(&spec(false)).unwrap_err();
        assert!(matches!(error, ControlError::UsedUp { used: u, .. } if u == used), "{error}");
        assert_eq!(mark(&controller), used);
        controller.add_sa(&spec(true)).unwrap();
        assert_eq!(mark(&controller), used + LEASE);
    }

    /// E03: near the end of the number space the lease ends with it.
    #[test]
    fn a_lease_ends_with_the_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let (mut controller, _worker) = controller(directory.path());
        let end = u64::from(u32::MAX);
        let location = controller.add_sa(&SaSpec { sequence: end - 10, ..spec(false) }).unwrap();
        assert_eq!(mark(&controller), end);
        controller.extend_lease(location.worker, location.slot, end - 5).unwrap();
        assert_eq!(mark(&controller), end);
        controller.record_last([(location, end)]).unwrap();
    }
}
