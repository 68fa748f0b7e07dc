//! A direct-mapped cache of exact matches in front of a slower lookup: that of next hops.
//!
//! One slot per hash: a newer key displaces an older one, so the cache never grows and needs no
//! eviction. It is emptied whenever what it answers for changes, so it is always equal to the
//! lookup behind it.

/// The cache. `SLOTS` is a power of two.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    slots: Box<[Option<(K, V)>]>,
}

/// A key that knows its own hash: quick, and good enough to spread over the slots.
pub(crate) trait Key: Copy + Eq {
    fn hash(&self) -> u64;
}

/// An odd number without a pattern: the fraction of the square root of 2.
const MIX: u64 = 0x6a09_e667_f3bc_c909;

#[inline]
fn fold(address: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    let halves = (address as u64, (address >> 64) as u64);
    halves.0 ^ halves.1.rotate_left(23)
}

/// Family and destination.
impl Key for (bool, u128) {
    #[inline]
    fn hash(&self) -> u64 {
        fold(self.1).wrapping_mul(MIX)
    }
}

impl<K: Key, V: Copy> Cache<K, V> {
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
    pub(crate) fn get_or(&mut self, key: K, look_up: impl FnOnce() -> V) -> V {
        let index = (key.hash() >> 40) as usize & (self.slots.len() - 1);
        match self.slots[index] {
            Some((cached, value)) if cached == key => value,
            _ => {
                let value = look_up();
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
        let mut cache: Cache<(bool, u128), u64> = Cache::new(16);
        for key in 0..1000u64 {
            let value = key * 3;
            let key = (true, u128::from(key));
            assert_eq!(cache.get_or(key, || value), value);
            assert_eq!(cache.get_or(key, || unreachable!("cached")), value);
        }
        cache.clear();
        assert_eq!(cache.get_or((true, 999), || 7), 7);
    }
}
