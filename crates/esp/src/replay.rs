//! The anti-replay window (RFC 4303 section 3.4.3), exact to the number.
//!
//! The window is a ring of bits indexed by the sequence number, so nothing is ever shifted
//! (RFC 6479). With `top` the highest number accepted and `size` the window, the numbers
//! `top - size + 1 ..= top` are inside: they are accepted if their bit is clear. Smaller ones are
//! too old; larger ones move the window. The ring has at least `size` bits, so numbers inside never
//! share one.
//!
//! Two steps, because only an authentic packet may change anything: [`Window::check`] says "this
//! number could be new" and returns a [`Candidate`]; [`Window::commit`] consumes the candidate and
//! the proof of authenticity and decides. Between the two other packets of the same batch may have
//! been committed, so `commit` looks again: two copies of a packet in one batch are accepted once.
//!
//! With extended sequence numbers only the low half is on the wire. The high half is inferred as
//! RFC 4303 appendix A2.2 says, and the ICV, which covers it, proves or disproves the guess.

use culvert_aead::Verified;

/// Smallest window size, in packets.
pub const SIZE_MIN: u32 = 64;
/// Largest window size, in packets.
pub const SIZE_MAX: u32 = 65536;

/// Anti-replay state of one inbound SA.
#[derive(Debug)]
pub struct Window {
    top: u64,
    size: u64,
    esn: bool,
    ring: Box<[u64]>,
}

/// A sequence number that passed the check before decryption and is not yet proven authentic.
#[derive(Debug)]
pub struct Candidate {
    seq: u64,
    esn: bool,
}

/// Why a sequence number is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Zero, which no sender uses (RFC 4303 section 3.3.3).
    #[error("sequence number zero")]
    Zero,
    /// Left of the window.
    #[error("sequence number left of the window")]
    TooOld,
    /// Inside the window and seen before.
    #[error("sequence number seen before")]
    Duplicate,
}

/// The window size is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replay window of {0} packets: expected {SIZE_MIN} to {SIZE_MAX}")]
pub struct WindowSizeError(pub u32);

impl Candidate {
    /// The whole sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The high half that the ICV covers and the wire does not carry; `None` without ESN.
    #[must_use]
    pub fn esn_high(&self) -> Option<u32> {
        self.esn.then_some((self.seq >> 32) as u32)
    }
}

impl Window {
    /// A window of `size` packets whose highest accepted number is `top`; everything up to `top`
    /// counts as seen.
    ///
    /// # Errors
    /// When `size` is not in [`SIZE_MIN`]`..=`[`SIZE_MAX`].
    pub fn new(size: u32, esn: bool, top: u64) -> Result<Window, WindowSizeError> {
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Err(WindowSizeError(size));
        }
        let words = size.next_power_of_two() as usize / 64;
        // A non-zero start means "highest seen": which of the older ones came is not known, and
        // accepting one twice is worse than losing it.
        let seen = if top == 0 { 0 } else { u64::MAX };
        Ok(Window { top, size: u64::from(size), esn, ring: vec![seen; words].into() })
    }

    /// Highest number accepted so far.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Could the packet with this number on the wire be new? Nothing changes.
    ///
    /// # Errors
    /// When it certainly is not.
    #[inline]
    pub fn check(&self, seq_low: u32) -> Result<Candidate, ReplayError> {
        let seq = if self.esn { self.infer(seq_low)? } else { u64::from(seq_low) };
        self.look(seq)?;
        Ok(Candidate { seq, esn: self.esn })
    }

    /// Accepts an authentic packet: once.
    ///
    /// # Errors
    /// When a packet with this number was committed after the check, or the window moved past it.
    #[inline]
    pub fn commit(&mut self, candidate: Candidate, _proof: Verified) -> Result<u64, ReplayError> {
        self.accept(candidate.seq)?;
        Ok(candidate.seq)
    }

    #[inline]
    fn accept(&mut self, seq: u64) -> Result<(), ReplayError> {
        self.look(seq)?;
        if seq > self.top {
            self.clear_between(self.top, seq);
            self.top = seq;
        }
        let (word, bit) = self.place(seq);
        self.ring[word] |= bit;
        Ok(())
    }

    #[inline]
    fn look(&self, seq: u64) -> Result<(), ReplayError> {
        if seq == 0 {
            return Err(ReplayError::Zero);
        }
        if seq > self.top {
            return Ok(());
        }
        if self.top - seq >= self.size {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = self.place(seq);
        if self.ring[word] & bit == 0 { Ok(()) } else { Err(ReplayError::Duplicate) }
    }

    #[inline]
    fn place(&self, seq: u64) -> (usize, u64) {
        let word = (seq >> 6) as usize & (self.ring.len() - 1);
        (word, 1 << (seq & 63))
    }

    /// Clears the bits of the numbers strictly between `low` and `high`, and that of `high`.
    fn clear_between(&mut self, low: u64, high: u64) {
        let bits = self.ring.len() as u64 * 64;
        if high - low >= bits {
            self.ring.fill(0);
            return;
        }
        let mut seq = low + 1;
        while seq <= high {
            let (word, _) = self.place(seq);
            let in_word = 64 - (seq & 63);
            let count = in_word.min(high - seq + 1);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << (seq & 63) };
            self.ring[word] &= !mask;
            // The last number of all has no successor to count up to.
            let Some(next) = seq.checked_add(count) else {
                return;
            };
            seq = next;
        }
    }

    /// RFC 4303 appendix A2.2: the high half that puts the number nearest to the window.
    #[inline]
    fn infer(&self, seq_low: u32) -> Result<u64, ReplayError> {
        let low = u64::from(seq_low);
        let top_low = self.top & 0xffff_ffff;
        let top_high = self.top >> 32;
        let high = if top_low >= self.size - 1 {
            // Case A: the window lies in one subspace. Left of it means the next subspace.
            let bottom = top_low + 1 - self.size;
            if low >= bottom { top_high } else { top_high + 1 }
        } else {
            // Case B: the window spans two subspaces. In the first there is no earlier one, and a
            // large number can only be a jump ahead.
            let bottom = (1 << 32) + top_low + 1 - self.size;
            if low >= bottom { top_high.saturating_sub(1) } else { top_high }
        };
        // Beyond the last subspace there is nothing a sender may use.
        if high > u64::from(u32::MAX) {
            return Err(ReplayError::TooOld);
        }
        Ok((high << 32) | low)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The definition, without any cleverness: a set of all numbers ever accepted.
    struct Naive {
        top: u64,
        size: u64,
        seen: HashSet<u64>,
    }

    impl Naive {
        fn accept(&mut self, seq: u64) -> bool {
            let inside = seq > self.top || self.top - seq < self.size;
            if seq == 0 || !inside || !self.seen.insert(seq) {
                return false;
            }
            self.top = self.top.max(seq);
            true
        }
    }

    fn window(size: u32, esn: bool) -> Window {
        Window::new(size, esn, 0).unwrap()
    }

    /// Moves an empty window so that `top` is its highest number and only that one was seen.
    fn window_at(size: u32, esn: bool, top: u64) -> (Window, Naive) {
        let mut window = window(size, esn);
        let mut naive = Naive { top: 0, size: u64::from(size), seen: HashSet::new() };
        if top > 0 {
            window.accept(top).unwrap();
            assert!(naive.accept(top));
        }
        (window, naive)
    }

    fn sizes() -> impl Strategy<Value = u32> {
        prop_oneof![
            Just(64),
            Just(65),
            Just(127),
            Just(128),
            Just(1000),
            Just(1024),
            Just(65535),
            Just(65536),
            SIZE_MIN..=SIZE_MAX
        ]
    }

    proptest! {
        /// I05, I08, I09, I10: over whole numbers the window accepts just what the set accepts.
        #[test]
        fn agrees_with_naive_set(
            size in sizes(),
            start in prop_oneof![
                Just(0u64),
                0u64..200_000,
                (1u64 << 32) - 70_000..(1 << 32) + 70_000,
                Just(u64::MAX - 100_000),
            ],
            steps in proptest::collection::vec((-70_000i64..70_000, 0u8..4), 1..300),
        ) {
            let (mut window, mut naive) = window_at(size, true, start);
            for (delta, kind) in steps {
                let edge = i64::from(size);
                let delta = match kind {
                    0 => delta,
                    1 => delta % 3,
                    2 => -edge + delta % 3,
                    _ => edge + delta % 3,
                };
                let Some(seq) = naive.top.checked_add_signed(delta) else { continue };
                prop_assert_eq!(window.accept(seq).is_ok(), naive.accept(seq), "seq {}", seq);
                prop_assert_eq!(window.top(), naive.top);
            }
        }

        /// I18: the inferred number is the one number with these low bits nearest the window:
        /// inside it if one is, else the next above.
        #[test]
        fn infers_the_number_next_to_the_window(
            size in sizes(),
            top in prop_oneof![
                0u64..200_000,
                (1u64 << 32) - 70_000..(1 << 32) + 70_000,
                (7u64 << 32) - 70_000..(7 << 32) + 70_000,
                any::<u64>().prop_map(|t| t >> 1),
            ],
            offset in prop_oneof![-70_000i64..70_000, any::<u32>().prop_map(i64::from)],
        ) {
            let (window, _) = window_at(size, true, top);
            #[expect(clippy::cast_possible_truncation)]
            let low = top.wrapping_add_signed(offset) as u32;
            let bottom = i128::from(top) - i128::from(size) + 1;
            // The first number at or above the bottom of the window that ends in these 32 bits.
            let period = 1i128 << 32;
            let expected = bottom + (i128::from(low) - bottom).rem_euclid(period);
            let expected = if expected < 0 { expected + period } else { expected };
            prop_assert_eq!(i128::from(window.infer(low).unwrap()), expected);
        }

        /// Without ESN the number is what the wire says.
        #[test]
        fn short_numbers_are_taken_as_they_are(size in sizes(), low in 1u32..) {
            let candidate = window(size, false).check(low).unwrap();
            prop_assert_eq!((candidate.seq(), candidate.esn_high()), (u64::from(low), None));
        }
    }

    /// I09: both edges are exact: `size` numbers are inside, not one more.
    #[test]
    fn edges_are_exact() {
        for size in [64, 65, 1024, 65535, 65536] {
            let (mut window, _) = window_at(size, false, 100_000);
            let bottom = 100_000 - u64::from(size) + 1;
            assert_eq!(window.accept(bottom - 1), Err(ReplayError::TooOld), "size {size}");
            assert_eq!(window.accept(bottom), Ok(()), "size {size}");
            assert_eq!(window.accept(bottom), Err(ReplayError::Duplicate), "size {size}");
            assert_eq!(window.accept(100_000), Err(ReplayError::Duplicate), "size {size}");
        }
    }

    /// A candidate does not move the window: a forged high number costs nothing. I07.
    #[test]
    fn check_changes_nothing() {
        let mut window = window(64, false);
        window.accept(5).unwrap();
        assert_eq!(window.check(4_000_000_000).unwrap().seq(), 4_000_000_000);
        assert_eq!(window.top(), 5);
        assert_eq!(window.accept(4), Ok(()));
    }

    /// A start above zero counts all older numbers as seen, also those inside the window.
    #[test]
    fn start_counts_as_seen() {
        let mut window = Window::new(64, false, 1000).unwrap();
        assert_eq!(window.accept(1000), Err(ReplayError::Duplicate));
        assert_eq!(window.accept(990), Err(ReplayError::Duplicate));
        assert_eq!(window.accept(1002), Ok(()));
        assert_eq!(window.accept(1001), Ok(()));
    }

    /// The window closes over the 2^32 boundary with ESN, and at the very last number.
    #[test]
    fn crosses_the_subspace_boundary() {
        let boundary = 1u64 << 32;
        let (mut window, _) = window_at(64, true, boundary - 2);
        assert_eq!(window.check(3).unwrap().seq(), boundary + 3);
        window.accept(boundary + 3).unwrap();
        assert_eq!(window.check(u32::MAX).unwrap().seq(), boundary - 1);
        assert_eq!(window.check(u32::MAX).unwrap().esn_high(), Some(0));
        let (mut window, _) = window_at(64, true, u64::MAX - 1);
        assert_eq!(window.accept(u64::MAX), Ok(()));
        assert_eq!(window.check(0).err(), Some(ReplayError::TooOld));
    }

    /// Sizes out of range are refused.
    #[test]
    fn size_is_checked() {
        for size in [0, 1, 63, 65537, u32::MAX] {
            assert_eq!(Window::new(size, false, 0).unwrap_err(), WindowSizeError(size));
        }
    }
}
