//! [`Random`]: the one source of chance in a simulation.
//!
//! SplitMix64: tiny, fast, the same on every machine and in every version. Good enough to choose
//! faults; never for keys that protect anything.

/// A generator whose whole future is given by its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator of its own for some purpose, so that drawing more for one leaves the others as
    /// they were.
    #[must_use]
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// Any 64 bits.
    #[expect(clippy::should_implement_trait, reason = "an iterator would have to end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is above 0. The bias for bounds far below 2^64 is too small to
    /// matter here.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let product = u128::from(self.next()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index of a collection of `len` things, which is above 0.
    pub fn index(&mut self, len: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
        let index = self.below(len as u64) as usize;
        index
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An octet.
    pub fn octet(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    /// Fills `out` with octets.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let octets = self.next().to_le_bytes();
            chunk.copy_from_slice(&octets[..chunk.len()]);
        }
    }

    /// Puts `things` in an order where each order is equally likely.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let other = self.index(last + 1);
            things.swap(last, other);
        }
    }
}

/// The finaliser of SplitMix64: a bijection in which every bit of the input moves every bit of the
/// output. Also a hash of small things.
#[must_use]
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers for seed 0 are those of the published algorithm.
    #[test]
    fn is_splitmix64() {
        let mut random = Random::new(0);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    /// Bounds hold, every value occurs, and a shuffle keeps everything.
    #[test]
    fn bounds_and_shuffle() {
        let mut random = Random::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[random.index(7)] = true;
            assert!((3..=5).contains(&random.between(3, 5)));
        }
        assert_eq!(seen, [true; 7]);
        assert!(!random.chance(0) && random.chance(1000));
        let mut things: Vec<u8> = (0..50).collect();
        random.shuffle(&mut things);
        assert!(!things.is_sorted());
        things.sort_unstable();
        assert_eq!(things, (0..50).collect::<Vec<u8>>());
    }
}
