//! A direct-mapped cache of exact matches in front of a slower lookup.
//!
//! One slot per hash: a newer key displaces an older one, so the cache never grows and needs no
//! eviction. It is emptied whenever what it answers for changes, so it is always equal to the
//! lookup behind it.

use std::hash::BuildHasher;
use std::hash::Hash;

use rustc_hash::FxBuildHasher;

/// The cache. `SLOTS` is a power of two.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    slots: Box<[Option<(K, V)>]>,
}

impl<K: Copy + Eq + Hash, V: Copy> Cache<K, V> {
    /// An empty cache with `slots` slots.
    ///
    /// # Panics
    /// When `slots` is not a power of two.
    pub(crate) fn new(slots: usize) -> Cache<K, V> {
        assert!(slots.is_power_of_two(), "masks select the slot");
        Cache { slots: vec![None; slots].into() }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// The value of `key`: the cached one, or what `look_up` finds, which is then cached.
    #[inline]
    pub(crate) fn get_or(&mut self, key: K, look_up: impl FnOnce(&K) -> V) -> V {
        let index = (FxBuildHasher.hash_one(key) >> 20) as usize & (self.slots.len() - 1);
        match self.slots[index] {
            Some((cached, value)) if cached == key => value,
            _ => {
                let value = look_up(&key);
                self.slots[index] = Some((key, value));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers are those of the lookup, asked once while the key stays, and again after a clear.
    #[test]
    fn equals_the_lookup() {
        let mut cache: Cache<u32, u64> = Cache::new(16);
        for key in 0..1000 {
            assert_eq!(cache.get_or(key, |&key| u64::from(key) * 3), u64::from(key) * 3);
            assert_eq!(cache.get_or(key, |_| unreachable!("cached")), u64::from(key) * 3);
        }
        cache.clear();
        assert_eq!(cache.get_or(999, |_| 7), 7);
    }
}
