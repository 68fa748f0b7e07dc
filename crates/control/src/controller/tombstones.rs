//! What is remembered of SAs that are gone, so that one that comes again with the same key goes on
//! where it ended: an outbound SA above its last number, an inbound one with the window it had.
//!
//! That is for keys that IKE negotiated. A daemon moves an SA to another address by deleting and
//! adding it, and what it knows of numbers is older than what the worker did.
//!
//! Memory is bounded. What is forgotten of an outbound SA must not bring back a nonce: from then on
//! only epochs are taken that no forgotten key has sealed with. What is forgotten of an inbound SA
//! is as much as a receiver knows that was started again.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;

use culvert_esp::WindowState;

use crate::sequence_store::Fingerprint;

/// Tombstones of each direction.
pub(super) const TOMBSTONES_MAX: usize = 1 << 16;

/// Numbers of a window that are remembered at most: older ones count as seen.
const BITS_MAX: u32 = 4096;

/// What is left of an outbound SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Last number used.
    pub(super) last: u64,
    /// The highest epoch that the key has sealed with.
    pub(super) epoch: u64,
}

/// Key and SPI of an inbound SA.
pub(super) type Receiver = (Fingerprint, u32);

/// What is left of SAs, by key.
#[derive(Debug)]
pub(super) struct Tombstones {
    senders: Graves<Fingerprint, Spent>,
    receivers: Graves<Receiver, WindowState>,
    /// The highest epoch of a key that is forgotten.
    floor: u64,
}

impl Default for Tombstones {
    fn default() -> Tombstones {
        let (senders, receivers) = (Graves::default(), Graves::default());
        Tombstones { senders, receivers, floor: 0 }
    }
}

impl Tombstones {
    /// Epochs up to this one may have been used with keys that are forgotten.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Remembers so many SAs of each direction from now on.
    pub(super) fn set_max(&mut self, max: usize) {
        (self.senders.max, self.receivers.max) = (max, max);
    }

    /// What a key was used for.
    pub(super) fn spent(&self, key: &Fingerprint) -> Option<Spent> {
        self.senders.get(key).copied()
    }

    /// The key is in use: what is left of it is its SA's to know.
    pub(super) fn take_spent(&mut self, key: &Fingerprint) {
        self.senders.take(key);
    }

    /// An outbound SA is gone.
    pub(super) fn bury_sender(&mut self, key: Fingerprint, spent: Spent) {
        for forgotten in self.senders.put(key, spent) {
            self.floor = self.floor.max(forgotten.epoch);
        }
    }

    /// What the window of a key and SPI had seen.
    pub(super) fn seen(&self, receiver: &Receiver) -> Option<&WindowState> {
        self.receivers.get(receiver)
    }

    /// An inbound SA is gone.
    pub(super) fn bury_receiver(&mut self, receiver: Receiver, seen: &WindowState) {
        let seen = match self.receivers.get(&receiver) {
            Some(before) => seen.union(before),
            None => seen.clone(),
        };
        self.receivers.put(receiver, seen.compact(BITS_MAX)).for_each(drop);
    }
}

/// Values by key, of which the oldest are forgotten.
#[derive(Debug)]
struct Graves<K, V> {
    max: usize,
    values: HashMap<K, (u64, V)>,
    /// Keys, oldest first.
    ages: BTreeMap<u64, K>,
    next: u64,
}

impl<K, V> Default for Graves<K, V> {
    fn default() -> Graves<K, V> {
        Graves { max: TOMBSTONES_MAX, values: HashMap::new(), ages: BTreeMap::new(), next: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Graves<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    fn take(&mut self, key: &K) {
        if let Some((age, _)) = self.values.remove(key) {
            self.ages.remove(&age);
        }
    }

    /// Puts the newest value in the place of any with its key; what had to be forgotten.
    fn put(&mut self, key: K, value: V) -> impl Iterator<Item = V> + use<K, V> {
        self.take(&key);
        self.ages.insert(self.next, key);
        self.values.insert(key, (self.next, value));
        self.next += 1;
        let mut forgotten = Vec::new();
        while self.values.len() > self.max
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            forgotten.extend(self.values.remove(&oldest).map(|(_, value)| value));
        }
        forgotten.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use culvert_aead::Keymat;

    use super::*;

    fn key(octet: u8) -> Fingerprint {
        Fingerprint::of(&Keymat::new(vec![octet; 20]))
    }

    /// E21, G02: the oldest are forgotten, and with them all epochs up to theirs; one that is used
    /// again is young again.
    #[test]
    fn forgetting_raises_the_floor() {
        let mut tombstones = Tombstones::default();
        tombstones.set_max(2);
        let mut bury = |octet, last, epoch| {
            tombstones.bury_sender(key(octet), Spent { last, epoch });
            tombstones.floor()
        };
        assert_eq!([bury(1, 10, 3), bury(2, 20, 1), bury(1, 11, 4)], [0, 0, 0]);
        assert_eq!([bury(3, 30, 4), bury(4, 40, 4)], [1, 4]);
        let left: Vec<u8> =
            (1..5).filter(|&octet| tombstones.spent(&key(octet)).is_some()).collect();
        assert_eq!(left, [3, 4]);
        tombstones.take_spent(&key(3));
        assert_eq!(tombstones.spent(&key(3)), None);
        tombstones.bury_sender(key(5), Spent { last: 1, epoch: 9 });
        assert_eq!(tombstones.floor(), 4, "there was room");
    }

    /// I08: of one key and SPI all windows are remembered together, of others apart.
    #[test]
    fn windows_add_up() {
        let mut tombstones = Tombstones::default();
        let state = |seen: &'static [u64]| WindowState::from_fn(70, 64, |n| seen.contains(&n));
        tombstones.bury_receiver((key(1), 7), &state(&[70, 20]));
        tombstones.bury_receiver((key(1), 8), &state(&[70, 21]));
        tombstones.bury_receiver((key(1), 7), &state(&[70, 22]));
        let seen = tombstones.seen(&(key(1), 7)).unwrap();
        let numbers: Vec<u64> = (7..71).filter(|&number| seen.was_seen(number)).collect();
        assert_eq!(numbers, [20, 22, 70]);
        assert!(tombstones.seen(&(key(2), 7)).is_none());
    }
}
