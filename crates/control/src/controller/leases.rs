//! Which outbound keys are in use, and which of their sequence numbers may be used.
//!
//! With a store, each outbound SA draws numbers from a lease that is on disk before it is granted.
//! A lease that cannot be written now is tried again; meanwhile that SA, and no other, stops at its
//! old ceiling.
//!
//! Without a store, keys must be fresh: one that this process has sent with is refused.
//!
//! An SA with an epoch needs neither: what another process used of its key has other IVs. In this
//! process, it goes on where the last SA with its key ended (see `tombstones`).

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use culvert_esp::WindowState;
use culvert_esp::outbound::EPOCH_SEQUENCE_MAX;
use culvert_esp::outbound::EPOCHS;
use culvert_esp::seq::Sequence;

use super::tombstones::Receiver;
use super::tombstones::Spent;
use super::tombstones::Tombstones;
use crate::controller::ControlError;
use crate::controller::SaId;
use crate::sa::SaSpec;
use crate::sequence_store::Fingerprint;
use crate::sequence_store::SequenceStore;

/// Sequence numbers leased at a time: about 0.4 s at 10 million packets a second.
pub const LEASE: u64 = 1 << 22;

/// Numbers left at which the next lease is asked for.
pub(super) const LEASE_LOW: u64 = LEASE / 2;

/// Keys of SAs that are gone which are still recognised.
const RETIRED_MAX: usize = 1 << 16;

/// What an SA draws numbers from.
#[derive(Debug)]
struct Lease {
    key: Fingerprint,
    ceiling: u64,
    /// Last number of the SA.
    end: u64,
    /// A number the SA has used that makes the next lease due.
    asked: Option<u64>,
    /// The highest epoch that the key has sealed with, of an SA with epochs: there is no lease.
    epoch: Option<u64>,
}

/// What a new SA gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    /// The number before the first it may use.
    pub(super) last: u64,
    /// The highest it may use, if numbers are leased.
    pub(super) ceiling: Option<u64>,
}

/// The keys and leases of all outbound SAs.
#[derive(Debug)]
pub(super) struct Leases {
    store: Option<SequenceStore>,
    /// In order, as SAs come in that of their numbers: the next one is beside the last.
    leases: BTreeMap<SaId, Lease>,
    keys: HashSet<Fingerprint>,
    retired: VecDeque<Fingerprint>,
    due: VecDeque<SaId>,
    /// Keys and SPIs of inbound SAs.
    receivers: BTreeMap<SaId, Receiver>,
    /// How many of them have each.
    receiving: HashMap<Receiver, usize>,
    pub(super) tombstones: Tombstones,
}

impl Leases {
    pub(super) fn new(store: Option<SequenceStore>) -> Leases {
        Leases {
            store,
            leases: BTreeMap::new(),
            keys: HashSet::new(),
            retired: VecDeque::new(),
            due: VecDeque::new(),
            receivers: BTreeMap::new(),
            receiving: HashMap::new(),
            tombstones: Tombstones::default(),
        }
    }

    /// Lets SA `id` use numbers, from disk on.
    pub(super) fn grant(&mut self, id: SaId, spec: &SaSpec) -> Result<Grant, ControlError> {
        let key = Fingerprint::of(&spec.keymat);
        if self.keys.contains(&key) {
            return Err(ControlError::KeyInUse);
        }
        let spent = self.tombstones.spent(&key);
        match (spec.epoch, spent) {
            (Some(epoch), spent) => return self.grant_epoch(id, spec, key, epoch, spent),
            // Its numbers are those of an epoch, and no mark tells of them.
            (None, Some(_)) => return Err(ControlError::KeyInUse),
            (None, None) => {}
        }
        let end = Sequence::end_of(spec.esn);
        let mut grant = Grant { last: spec.sequence, ceiling: None };
        if let Some(store) = &self.store {
            grant.last = spec.sequence.max(store.high_water(&key)?);
            if grant.last > end {
                // A mark is never lowered: with ESN again, or as another SA, the key still has it.
                return Err(ControlError::UsedUp { used: grant.last, end });
            }
            let ceiling = grant.last.saturating_add(LEASE).min(end);
            store.record(&key, ceiling)?;
            grant.ceiling = Some(ceiling);
        }
        self.keys.insert(key);
        let ceiling = grant.ceiling.unwrap_or(end);
        self.leases.insert(id, Lease { key, ceiling, end, asked: None, epoch: None });
        Ok(grant)
    }

    /// [`grant`](Self::grant) for an SA with an epoch: numbers above those that the key has used in
    /// this process, up to where the epoch stands in IVs.
    fn grant_epoch(
        &mut self,
        id: SaId,
        spec: &SaSpec,
        key: Fingerprint,
        epoch: u64,
        spent: Option<Spent>,
    ) -> Result<Grant, ControlError> {
        if !(1..EPOCHS).contains(&epoch) {
            return Err(ControlError::Epoch(epoch));
        }
        if spec.algorithm.has_implicit_iv() {
            return Err(ControlError::EpochImplicit);
        }
        let floor = self.tombstones.floor();
        if epoch <= floor {
            return Err(ControlError::EpochUsedUp { epoch, floor });
        }
        let is_known = spent.is_some();
        let spent = spent.unwrap_or_default();
        let end = Sequence::end_of(spec.esn).min(EPOCH_SEQUENCE_MAX);
        let last = spec.sequence.max(spent.last);
        if last > end {
            return Err(ControlError::UsedUp { used: last, end });
        }
        if is_known {
            self.tombstones.take_spent(&key);
        }
        self.keys.insert(key);
        let epoch = Some(epoch.max(spent.epoch));
        self.leases.insert(id, Lease { key, ceiling: end, end, asked: None, epoch });
        Ok(Grant { last, ceiling: None })
    }

    /// Key and SPI of an inbound SA, and what its window must have seen, if anything is known of
    /// that.
    pub(super) fn receiver(
        &self,
        spec: &SaSpec,
    ) -> Result<(Receiver, Option<WindowState>), ControlError> {
        let receiver = (Fingerprint::of(&spec.keymat), spec.spi.value());
        if spec.epoch.is_some() && self.receiving.contains_key(&receiver) {
            return Err(ControlError::KeyInUse);
        }
        let given = spec.window.clone();
        let seen = match (given, self.tombstones.seen(&receiver)) {
            (given, None) => given,
            (None, Some(seen)) => Some(WindowState::all_seen(spec.sequence).union(seen)),
            (Some(given), Some(seen)) => Some(given.union(seen)),
        };
        Ok((receiver, seen))
    }

    /// Takes note of inbound SA `id`.
    pub(super) fn receive(&mut self, id: SaId, receiver: Receiver) {
        *self.receiving.entry(receiver).or_insert(0) += 1;
        self.receivers.insert(id, receiver);
    }

    /// Inbound SA `id` is gone, and its window had seen this.
    pub(super) fn end_receiving(&mut self, id: SaId, seen: Option<&WindowState>) {
        let Some(receiver) = self.receivers.remove(&id) else {
            return;
        };
        if let Some(count) = self.receiving.get_mut(&receiver) {
            *count -= 1;
            if *count == 0 {
                self.receiving.remove(&receiver);
            }
        }
        if let Some(seen) = seen {
            self.tombstones.bury_receiver(receiver, seen);
        }
    }

    /// The highest number an SA may use, if numbers are leased.
    pub(super) fn ceiling(&self, id: SaId) -> Option<u64> {
        self.store.as_ref()?;
        self.leases.get(&id).filter(|lease| lease.epoch.is_none()).map(|lease| lease.ceiling)
    }

    /// SA `id` has used `last` and soon needs more.
    pub(super) fn ask(&mut self, id: SaId, last: u64) {
        if let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.epoch.is_none()) {
            if lease.asked.is_none() {
                self.due.push_back(id);
            }
            lease.asked = Some(lease.asked.unwrap_or(0).max(last));
        }
    }

    /// Writes the leases that are due and returns those that are on disk. What fails is due again.
    pub(super) fn extend(&mut self) -> (Vec<(SaId, u64)>, Result<(), ControlError>) {
        let mut extended = Vec::new();
        let mut result = Ok(());
        let Some(store) = &self.store else {
            return (extended, result);
        };
        for _ in 0..self.due.len() {
            let Some(id) = self.due.pop_front() else { break };
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            let Some(last) = lease.asked else { continue };
            let ceiling = last.saturating_add(LEASE).min(lease.end).max(lease.ceiling);
            match store.record(&lease.key, ceiling) {
                Ok(()) => {
                    (lease.ceiling, lease.asked) = (ceiling, None);
                    extended.push((id, ceiling));
                }
                Err(error) => {
                    self.due.push_back(id);
                    result = result.and(Err(error.into()));
                }
            }
        }
        (extended, result)
    }

    /// SA `id` is gone, `last` was its last number: the next SA with the key goes on from there.
    pub(super) fn end(&mut self, id: SaId, last: u64) -> Result<(), ControlError> {
        let Some(lease) = self.leases.remove(&id) else {
            return Ok(());
        };
        if let Some(epoch) = lease.epoch {
            assert!(last <= lease.end, "a number that reaches into the epoch was used");
            self.keys.remove(&lease.key);
            self.tombstones.bury_sender(lease.key, Spent { last, epoch });
            return Ok(());
        }
        if let Some(store) = &self.store {
            assert!(last <= lease.ceiling, "a number above the lease was used");
            self.keys.remove(&lease.key);
            // If this fails, the ceiling stays the mark, which is never too low.
            return Ok(store.record(&lease.key, last)?);
        }
        self.retired.push_back(lease.key);
        if self.retired.len() > RETIRED_MAX
            && let Some(oldest) = self.retired.pop_front()
        {
            self.keys.remove(&oldest);
        }
        Ok(())
    }

    /// Records the last number of an SA whose worker has stopped.
    pub(super) fn record_last(&self, id: SaId, last: u64) -> Result<(), ControlError> {
        let (Some(store), Some(lease)) = (&self.store, self.leases.get(&id)) else {
            return Ok(());
        };
        if lease.epoch.is_some() {
            return Ok(());
        }
        assert!(last <= lease.ceiling, "a number above the lease was used");
        Ok(store.record(&lease.key, last)?)
    }

    /// SAs with a lease.
    pub(super) fn ids(&self) -> impl Iterator<Item = SaId> {
        let leased = |(&id, lease): (&SaId, &Lease)| lease.epoch.is_none().then_some(id);
        self.leases.iter().filter_map(leased).filter(|_| self.store.is_some())
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> Option<&SequenceStore> {
        self.store.as_ref()
    }
}
