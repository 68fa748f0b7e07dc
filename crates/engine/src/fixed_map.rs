//! [`FixedMap`]: a hash table that its reader neither grows nor shrinks.
//!
//! Workers own tables of SAs and neither allocate nor free. So control, which has a copy of each
//! table, decides how large it is: it sends single changes while there is room, and a whole new
//! table, twice as large, when there is none. The old one goes back to control to be freed.
//!
//! Open addressing, at most half full, so that what is looked for is nearly always found in the
//! first cache line or the one behind; what is taken out leaves no mark, as the entries behind it
//! move up.

use std::hash::BuildHasher;
use std::hash::Hash;

use culvert_aead::prefetch::prefetch;
use culvert_frame::SlabBox;
use rustc_hash::FxBuildHasher;

/// Places of an empty table.
const PLACES_MIN: usize = 16;

/// The table.
#[derive(Clone, Debug)]
pub struct FixedMap<K, V> {
    /// As many as a power of two.
    places: SlabBox<[Place<K, V>]>,
    len: usize,
}

/// An entry, if there is one. Those of half a cache line are not in two of them.
#[derive(Clone, Debug)]
#[repr(align(32))]
struct Place<K, V>(Option<(K, V)>);

impl<K, V> Default for FixedMap<K, V> {
    fn default() -> FixedMap<K, V> {
        FixedMap { places: empty(PLACES_MIN), len: 0 }
    }
}

fn empty<K, V>(places: usize) -> SlabBox<[Place<K, V>]> {
    SlabBox::from_fn(places, |_| Place(None))
}

impl<K: Copy + Eq + Hash, V> FixedMap<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there may be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.places.len() / 2
    }

    /// Octets of memory of the table itself.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.places.iter().filter_map(|place| place.0.as_ref()).map(|(key, value)| (key, value))
    }

    /// True when there is an entry with this key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut at = self.home(key);
        loop {
            match &self.places[at].0 {
                Some((found, value)) if found == key => return Some(value),
                Some(_) => at = self.next(at),
                None => return None,
            }
        }
    }

    /// Asks for the place of a key to be fetched into the cache.
    #[inline(always)]
    pub fn prefetch(&self, key: &K) {
        prefetch(&self.places[self.home(key)]);
    }

    /// Gives a key a value; the one it had.
    ///
    /// # Panics
    /// When the key is new and the table is full: whoever changes it makes room first.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let mut at = self.home(&key);
        loop {
            match &mut self.places[at].0 {
                Some((found, old)) if *found == key => return Some(std::mem::replace(old, value)),
                Some(_) => at = self.next(at),
                None => break,
            }
        }
        assert!(self.len < self.capacity(), "a table is changed by whoever knows its room");
        self.places[at].0 = Some((key, value));
        self.len += 1;
        None
    }

    /// Takes a key out; the value it had.
    pub fn take(&mut self, key: &K) -> Option<V> {
        let mut hole = self.home(key);
        loop {
            match &self.places[hole].0 {
                Some((found, _)) if found == key => break,
                Some(_) => hole = self.next(hole),
                None => return None,
            }
        }
        let taken = self.places[hole].0.take();
        self.len -= 1;
        let mask = self.places.len() - 1;
        let mut at = self.next(hole);
        while let Some((key, _)) = &self.places[at].0 {
            // An entry may move up to the hole if it does not belong behind it.
            let from_home = at.wrapping_sub(self.home(key)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.places.swap(hole, at);
                hole = at;
            }
            at = self.next(at);
        }
        taken.map(|(_, value)| value)
    }

    /// Makes room for one more entry, if there is none: true when the table is another one now.
    pub fn make_room(&mut self) -> bool {
        if self.len < self.capacity() {
            return false;
        }
        let larger = FixedMap { places: empty(self.places.len() * 2), len: 0 };
        let mut old = std::mem::replace(self, larger);
        for (key, value) in old.places.iter_mut().filter_map(|place| place.0.take()) {
            self.put(key, value);
        }
        true
    }

    #[inline]
    fn home(&self, key: &K) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are the good ones")]
        let hash = FxBuildHasher.hash_one(key) as usize;
        hash & (self.places.len() - 1)
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, the table is the map that it stands for; keys that are close
        /// and far apart, with and without a new table in between.
        #[test]
        fn equals_a_map(
            steps in proptest::collection::vec((any::<bool>(), 0u32..48, any::<u8>()), 0..400),
        ) {
            let mut table: FixedMap<u32, u8> = FixedMap::default();
            let mut model = BTreeMap::new();
            for (puts, key, value) in steps {
                let key = if key % 3 == 0 { key << 27 } else { key };
                if puts {
                    table.make_room();
                    prop_assert_eq!(table.put(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(table.take(&key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
                for key in (0..48).chain((0..48).step_by(3).map(|key| key << 27)) {
                    prop_assert_eq!(table.get(&key), model.get(&key));
                }
            }
            let all: BTreeMap<u32, u8> = table.iter().map(|(&key, &value)| (key, value)).collect();
            prop_assert_eq!(all, model);
        }
    }

    /// Room is made by doubling, at half of the places, and nothing else moves to a new table.
    #[test]
    fn room_is_doubled() {
        let mut table: FixedMap<u32, u32> = FixedMap::default();
        let grown = (0..1000).filter(|&key| {
            let has_grown = table.make_room();
            table.put(key, key);
            has_grown
        });
        assert_eq!(grown.collect::<Vec<_>>(), [8, 16, 32, 64, 128, 256, 512]);
        assert_eq!((table.len(), table.capacity()), (1000, 1024));
    }

    /// A change that nobody made room for is an error of ours.
    #[test]
    #[should_panic(expected = "whoever knows its room")]
    fn a_full_table_takes_nothing() {
        let mut table: FixedMap<u32, ()> = FixedMap::default();
        (0..9).for_each(|key| _ = table.put(key, ()));
    }
}
