//! Which outbound keys are in use, and which of their sequence numbers may be used.
//!
//! With a store, each outbound SA draws numbers from a lease that is on disk before it is granted.
//! A lease that cannot be written now is tried again; meanwhile that SA, and no other, stops at its
//! old ceiling.
//!
//! Without a store, keys must be fresh: one that this process has sent with is refused.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use culvert_esp::seq::Sequence;

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
    leases: HashMap<SaId, Lease>,
    keys: HashSet<Fingerprint>,
    retired: VecDeque<Fingerprint>,
    due: VecDeque<SaId>,
}

impl Leases {
    pub(super) fn new(store: Option<SequenceStore>) -> Leases {
        Leases {
            store,
            leases: HashMap::new(),
            keys: HashSet::new(),
            retired: VecDeque::new(),
            due: VecDeque::new(),
        }
    }

    /// Lets SA `id` use numbers, from disk on.
    pub(super) fn grant(&mut self, id: SaId, spec: &SaSpec) -> Result<Grant, ControlError> {
        let key = Fingerprint::of(&spec.keymat);
        if self.keys.contains(&key) {
            return Err(ControlError::KeyInUse);
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
        self.keys.insert(key.clone());
        let ceiling = grant.ceiling.unwrap_or(end);
        self.leases.insert(id, Lease { key, ceiling, end, asked: None });
        Ok(grant)
    }

    /// The highest number an SA may use, if numbers are leased.
    pub(super) fn ceiling(&self, id: SaId) -> Option<u64> {
        self.store.as_ref()?;
        self.leases.get(&id).map(|lease| lease.ceiling)
    }

    /// SA `id` has used `last` and soon needs more.
    pub(super) fn ask(&mut self, id: SaId, last: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
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
        assert!(last <= lease.ceiling, "a number above the lease was used");
        Ok(store.record(&lease.key, last)?)
    }

    /// SAs with a lease.
    pub(super) fn ids(&self) -> impl Iterator<Item = SaId> {
        self.leases.keys().copied().filter(|_| self.store.is_some())
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> Option<&SequenceStore> {
        self.store.as_ref()
    }
}
