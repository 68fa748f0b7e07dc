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
//! RFC 4303 appendix A2.2 says, and the ICV, which covers it, proves or disproves the guess. Should
//! it be wrong for long, [`Window::failed`] searches further up (appendix A3).
//!
//! The word of bits that `top` is in lies beside it, and goes to the ring when `top` moves on to
//! another: packets in order touch the ring once in 64.
//!
//! The bits also tell what was lost and how far packets were out of order, at no cost to those that
//! come in order.

use culvert_aead::Verified;
use culvert_aead::prefetch::prefetch;
use culvert_frame::SlabBox;

use crate::window_state::WindowState;

/// Smallest window size, in packets.
pub const SIZE_MIN: u32 = 64;
/// Largest window size, in packets.
pub const SIZE_MAX: u32 = 65536;

/// Forged packets in a row before the first further subspace is tried.
pub const RESYNC_AFTER: u64 = 64;
/// From then on one in so many is tried again.
pub const RESYNC_EVERY: u64 = 16;
/// How many subspaces above the expected one are tried, in turn.
pub const RESYNC_SUBSPACES: u64 = 3;

/// Anti-replay state of one inbound SA.
#[derive(Debug)]
pub struct Window {
    top: u64,
    /// The bits of the word that `top` is in: those in the ring are out of date.
    head: u64,
    /// 0 when anti-replay is off.
    size: u64,
    ring: SlabBox<[u64]>,
    /// Numbers accepted.
    accepted: u64,
    /// Not of interest to packets that come in order, and so not among what each packet reads.
    aside: Box<Aside>,
    esn: bool,
}

#[derive(Debug, Default)]
struct Aside {
    /// Packets right of the window that were forged while `accepted` was `failures_at`.
    failures: u64,
    failures_at: u64,
    /// Where the window started.
    start: u64,
    reorder_depth: u64,
}

/// A sequence number that passed the check before decryption and is not yet proven authentic.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    seq: u64,
    /// [`ESN`], [`RETRIED`]. As bits, for a `Result` with a flag in it is slow to take apart.
    flags: u8,
}

/// The number is an extended one.
const ESN: u8 = 1;
/// It is from a search for the subspace: not to be searched for again.
const RETRIED: u8 = 2;

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
    #[inline]
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The high half that the ICV covers and the wire does not carry; `None` without ESN.
    #[inline]
    #[must_use]
    pub fn esn_high(&self) -> Option<u32> {
        (self.flags & ESN != 0).then_some((self.seq >> 32) as u32)
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
        let ring = SlabBox::from_fn(words, |_| seen);
        Ok(Window { size: u64::from(size), esn, ..Window::over(ring, top) })
    }

    /// A window of `size` packets whose highest accepted number is `top`; of those below, `unseen`
    /// were not seen.
    pub(crate) fn with_unseen(
        size: u32,
        esn: bool,
        top: u64,
        unseen: impl Iterator<Item = u64>,
    ) -> Result<Window, WindowSizeError> {
        let mut window = Window::new(size, esn, top)?;
        for number in unseen.filter(|&number| top - number < u64::from(size)) {
            let (word, bit) = window.place(number);
            *window.word_mut(word) &= !bit;
        }
        // What is missing already may still come.
        window.aside.start = top - window.size.min(top);
        window.accepted = window.seen_between(window.aside.start, top);
        Ok(window)
    }

    /// No anti-replay: every number is accepted, any number of times, 0 too. There are no extended
    /// sequence numbers then, for nothing would tell their high half (RFC 4303 section 3.3.3).
    #[must_use]
    pub fn off() -> Window {
        Window::over(SlabBox::from_fn(1, |_| 0), 0)
    }

    fn over(ring: SlabBox<[u64]>, top: u64) -> Window {
        // As yet all words are the same.
        let head = ring[0];
        Window {
            top,
            head,
            size: 0,
            ring,
            accepted: 0,
            aside: Box::new(Aside { start: top, ..Aside::default() }),
            esn: false,
        }
    }

    /// Highest number accepted so far.
    #[inline]
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Anti-replay is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.size != 0
    }

    /// Size in packets; 0 when anti-replay is off.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sequence numbers are extended.
    #[must_use]
    pub fn esn(&self) -> bool {
        self.esn
    }

    /// Writes down what the window has seen; without allocation if `state` has room for it.
    pub fn write_state(&self, state: &mut WindowState) {
        state.copy(self.top, self.size, &self.ring, self.head);
    }

    /// Asks for the bit of a number to be fetched into the cache, ahead of
    /// [`commit`](Self::commit), if it is not in the head.
    #[inline]
    pub fn prefetch(&self, candidate: &Candidate) {
        if candidate.seq >> 6 != self.top >> 6 {
            prefetch(&self.ring[self.place(candidate.seq).0]);
        }
    }

    /// Could the packet with this number on the wire be new? Nothing changes.
    ///
    /// # Errors
    /// When it certainly is not.
    #[inline]
    pub fn check(&self, seq_low: u32) -> Result<Candidate, ReplayError> {
        let seq = if self.esn { self.infer(seq_low)? } else { u64::from(seq_low) };
        self.look(seq)?;
        Ok(Candidate { seq, flags: u8::from(self.esn) * ESN })
    }

    /// The whole number that a packet with this one on the wire is taken to have, whether it is
    /// acceptable or not; `None` where no number with these low bits is left.
    #[cold]
    #[must_use]
    pub fn inferred(&self, seq_low: u32) -> Option<u64> {
        if self.esn { self.infer(seq_low).ok() } else { Some(seq_low.into()) }
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
        if seq > self.top {
            if seq - self.top > 1 || seq >> 6 != self.top >> 6 {
                self.move_on(seq);
            }
            self.top = seq;
            // Whatever stood there belonged to a number that has left the window.
            self.head |= 1 << (seq & 63);
        } else {
            self.accept_late(seq)?;
        }
        self.accepted += 1;
        Ok(())
    }

    /// Makes the head that of the word of `seq`, which will be the highest number.
    #[cold]
    fn move_on(&mut self, seq: u64) {
        let (word, _) = self.place(self.top);
        self.ring[word] = self.head;
        self.clear_between(self.top, seq);
        self.head = self.ring[self.place(seq).0];
    }

    #[cold]
    fn accept_late(&mut self, seq: u64) -> Result<(), ReplayError> {
        self.look(seq)?;
        if self.is_on() {
            let (word, bit) = self.place(seq);
            *self.word_mut(word) |= bit;
            self.aside.reorder_depth = self.aside.reorder_depth.max(self.top - seq);
        }
        Ok(())
    }

    #[inline]
    fn look(&self, seq: u64) -> Result<(), ReplayError> {
        if seq > self.top {
            return Ok(());
        }
        if !self.is_on() {
            return Ok(());
        }
        if seq == 0 {
            return Err(ReplayError::Zero);
        }
        if self.top - seq >= self.size {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = self.place(seq);
        if self.word(word) & bit == 0 { Ok(()) } else { Err(ReplayError::Duplicate) }
    }

    #[inline]
    fn place(&self, seq: u64) -> (usize, u64) {
        let word = (seq >> 6) as usize & (self.ring.len() - 1);
        (word, 1 << (seq & 63))
    }

    /// A word of the ring as it is, be it the head.
    #[inline]
    fn word(&self, word: usize) -> u64 {
        if word == self.place(self.top).0 { self.head } else { self.ring[word] }
    }

    fn word_mut(&mut self, word: usize) -> &mut u64 {
        if word == self.place(self.top).0 { &mut self.head } else { &mut self.ring[word] }
    }

    /// Clears the bits of the numbers strictly between `low` and `high`, in the ring alone.
    fn clear_between(&mut self, low: u64, high: u64) {
        let bits = self.ring.len() as u64 * 64;
        if high - low > bits {
            self.ring.fill(0);
            return;
        }
        let mut seq = low + 1;
        while seq < high {
            let (word, _) = self.place(seq);
            let count = (64 - (seq & 63)).min(high - seq);
            self.ring[word] &= !mask(seq & 63, count);
            seq += count;
        }
    }

    #[inline]
    fn infer(&self, seq_low: u32) -> Result<u64, ReplayError> {
        // Beyond the last subspace there is nothing a sender may use.
        infer::<32>(self.top, self.size, seq_low.into()).ok_or(ReplayError::TooOld)
    }

    /// Hears that the packet of `candidate` was forged, and perhaps offers another number for the
    /// same packet (RFC 4303 appendix A3): after a loss of 2^32 packets or more, the high half that
    /// the window expects is too small, and all that comes looks forged.
    ///
    /// Only packets right of the window of an SA with ESN count. When [`RESYNC_AFTER`] of them in a
    /// row have failed, one in [`RESYNC_EVERY`] is offered the same low half in one of the
    /// [`RESYNC_SUBSPACES`] next subspaces, in turn. So a flood of forgeries costs at most one more
    /// verification in 16, and none while authentic packets arrive, for each of those starts the
    /// count again. An offer that fails is not counted and brings no other.
    #[cold]
    pub fn failed(&mut self, candidate: &Candidate) -> Option<Candidate> {
        if candidate.flags != ESN || candidate.seq <= self.top {
            return None;
        }
        let aside = &mut *self.aside;
        if aside.failures_at != self.accepted {
            aside.failures_at = self.accepted;
            aside.failures = 0;
        }
        aside.failures += 1;
        let beyond = aside.failures.checked_sub(RESYNC_AFTER)?;
        if !beyond.is_multiple_of(RESYNC_EVERY) {
            return None;
        }
        let subspaces = 1 + beyond / RESYNC_EVERY % RESYNC_SUBSPACES;
        let seq = candidate.seq.checked_add(subspaces << 32)?;
        Some(Candidate { seq, flags: ESN | RETRIED })
    }

    /// Numbers that left the window unseen: lost on the way, or later than the window is wide.
    /// Exact, since the window was made; numbers still inside are not lost yet. 0 when anti-replay
    /// is off. Looks at the whole window.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let start = self.aside.start;
        let bottom = self.top.saturating_sub(self.size).max(start);
        let left = bottom - start;
        let inside = self.seen_between(bottom, self.top);
        if self.is_on() { left.saturating_sub(self.accepted - inside) } else { 0 }
    }

    /// How far behind the highest number an accepted packet has come, at most: 0 when all came in
    /// order.
    #[must_use]
    pub fn reorder_depth(&self) -> u64 {
        self.aside.reorder_depth
    }

    /// Numbers seen in `low + 1 ..= high`, at most as many as the ring has.
    fn seen_between(&self, low: u64, high: u64) -> u64 {
        let mut seen = 0;
        let mut left = high - low;
        while left > 0 {
            // Downwards, so that the last number of all needs no successor.
            let seq = low + left;
            let (word, _) = self.place(seq);
            let count = ((seq & 63) + 1).min(left);
            let from = (seq & 63) + 1 - count;
            seen += u64::from((self.word(word) & mask(from, count)).count_ones());
            left -= count;
        }
        seen
    }
}

/// RFC 4303 appendix A2.2: the number with these low bits that lies in the window, or else the next
/// one above it; `None` beyond 64 bits. `BITS` are on the wire: 32, and fewer where a test tries
/// them all.
#[inline]
fn infer<const BITS: u32>(top: u64, size: u64, low: u64) -> Option<u64> {
    let period = 1 << BITS;
    let behind = top.wrapping_sub(low) & (period - 1);
    if behind < size
        && let Some(seq) = top.checked_sub(behind)
    {
        return Some(seq);
    }
    top.checked_add(period - behind)
}

/// `count` ones from bit `from` upwards; 64 at most together.
#[inline]
fn mask(from: u64, count: u64) -> u64 {
    (u64::MAX >> (64 - count)) << from
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::proof;

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

    /// RFC 4303 appendix A2.2 as it is written there, in the words Th, Tl, Seqh, Seql and W. `None`
    /// where it would leave the number space. A subspace is 2^`bits` numbers.
    fn appendix_a2(bits: u32, top: u64, size: u64, seq_l: u64) -> Option<u64> {
        let (th, tl) = (top >> bits, top & ((1 << bits) - 1));
        let seq_h = if tl >= size - 1 {
            // Case A: the window is within one sequence number subspace.
            if seq_l >= tl + 1 - size { th } else { th + 1 }
        } else {
            // Case B: the window spans two. Below the first subspace there is none.
            if seq_l >= tl + (1 << bits) + 1 - size { th.max(1) - 1 } else { th }
        };
        (seq_h < 1 << (64 - bits)).then_some(seq_h << bits | seq_l)
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

        /// I18: the inferred number is that of the pseudo code in RFC 4303 appendix A2.2, both its
        /// cases, wherever that is defined.
        #[test]
        fn infers_as_appendix_a2(
            size in sizes(),
            top in any::<u64>(),
            near in any::<bool>(),
            subspace in 0u64..3,
            offset in -140_000i64..140_000,
            low: u32,
        ) {
            let (window, _) = window_at(size, true, if near { subspace << 32 } else { top });
            let top = window.top();
            #[expect(clippy::cast_possible_truncation)]
            let low = if near { top.wrapping_add_signed(offset) as u32 } else { low };
            prop_assert_eq!(window.infer(low).ok(), appendix_a2(32, top, size.into(), low.into()));
        }

        /// The loss is that of a count of all numbers, and the depth that of the latest packet.
        #[test]
        fn loss_and_reordering_agree_with_naive_set(
            size in sizes(),
            start in prop_oneof![Just(0u64), Just(1 << 20), Just(u64::MAX - 200_000)],
            steps in proptest::collection::vec((-200i64..400, any::<bool>()), 1..300),
        ) {
            let mut window = Window::new(size, true, start).unwrap();
            let mut seen = HashSet::new();
            let mut depth = 0;
            for (delta, far) in steps {
                let delta = if far { delta * i64::from(size) / 150 } else { delta };
                let Some(seq) = window.top().checked_add_signed(delta) else { continue };
                let behind = window.top().saturating_sub(seq);
                if window.accept(seq).is_ok() {
                    prop_assert!(seen.insert(seq));
                    depth = depth.max(behind);
                }
            }
            let bottom = window.top().saturating_sub(u64::from(size)).max(start);
            let gone = seen.iter().filter(|&&seq| seq <= bottom).count() as u64;
            prop_assert_eq!(window.lost(), bottom - start - gone);
            prop_assert_eq!(window.reorder_depth(), depth);
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

    /// I18: every number near the edge of a subspace, against every low half near it and far from
    /// it, as appendix A2.2 says; and the end of the number space.
    #[test]
    fn every_number_near_a_subspace_edge() {
        let near = 130u64;
        for edge in [1u64 << 32, 2 << 32, 0x8000_0000 << 32, 0u64.wrapping_sub(near)] {
            for top in edge - near..=edge + (near - 1) {
                let (window, _) = window_at(64, true, top);
                let around = (edge - 2 * near)..=edge.saturating_add(2 * near);
                let far = [0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xc000_0000];
                for seq in around.chain(far) {
                    #[expect(clippy::cast_possible_truncation)]
                    let low = seq as u32;
                    let expected = appendix_a2(32, top, 64, low.into());
                    assert_eq!(window.infer(low).ok(), expected, "{low:#x} at {top:#x}");
                }
            }
        }
    }

    /// I18: all there is at a small width: with 7 bits on the wire, every window size, every top in
    /// the first six subspaces and every low half are as appendix A2.2 says.
    #[test]
    fn every_inference_at_small_width() {
        for size in 1..=96 {
            for top in 0..6 << 7 {
                for low in 0..1 << 7 {
                    let expected = appendix_a2(7, top, size, low);
                    assert_eq!(infer::<7>(top, size, low), expected, "{low} at {top}, {size}");
                }
            }
        }
    }

    /// I09: jumps of every length up to three rings, from a full window at every place in a word
    /// of its ring: what was seen stays seen, what was skipped can come, and nothing else can.
    #[test]
    fn every_jump() {
        for size in [64u64, 65, 100, 128] {
            for start in 400..=464 {
                for jump in 1..=400 {
                    let (mut window, _) = window_at(u32::try_from(size).unwrap(), false, 1);
                    (2..=start).for_each(|seq| window.accept(seq).unwrap());
                    let top = start + jump;
                    window.accept(top).unwrap();
                    for seq in top - size - 1..=top + 1 {
                        let skipped = seq > start && seq != top && seq + size > top;
                        assert_eq!(window.look(seq).is_ok(), skipped, "{seq} {size} {top}");
                    }
                    assert_eq!(window.lost(), (top - size).saturating_sub(start));
                }
            }
        }
    }

    /// I09: a window of each size from 64 to 320, from each position in its ring: every number at
    /// both edges, over the whole life of a naive set.
    #[test]
    fn every_size_and_position() {
        for size in 64..=320u32 {
            for top in u64::from(size)..u64::from(size) + 130 {
                let (window, naive) = window_at(size, false, top);
                for seq in (top - u64::from(size)).saturating_sub(2)..=top + 2 {
                    let mut naive = Naive { seen: naive.seen.clone(), ..naive };
                    assert_eq!(window.look(seq).is_ok(), naive.accept(seq), "{seq} {size} {top}");
                }
            }
        }
    }

    /// I08: two copies of a packet pass the check together, and one of them is accepted.
    #[test]
    fn copies_in_one_batch() {
        let mut window = window(64, false);
        let copies = [window.check(9).unwrap(), window.check(9).unwrap()];
        let accepted = copies.map(|copy| window.commit(copy, proof()));
        assert_eq!(accepted, [Ok(9), Err(ReplayError::Duplicate)]);
        let late = window.check(8).unwrap();
        let far = window.check(200).unwrap();
        assert_eq!(window.commit(far, proof()), Ok(200));
        assert_eq!(window.commit(late, proof()), Err(ReplayError::TooOld));
    }

    /// I10, M08: zero is no number, with either width; with ESN a low half of zero is one, later.
    #[test]
    fn zero_is_refused() {
        assert_eq!(window(64, false).check(0).err(), Some(ReplayError::Zero));
        assert_eq!(window(64, true).check(0).err(), Some(ReplayError::Zero));
        let first = window(64, true).check(1).unwrap();
        assert_eq!((first.seq(), first.esn_high()), (1, Some(0)));
        let (window, _) = window_at(64, true, u64::from(u32::MAX));
        assert_eq!(window.check(0).unwrap().seq(), 1 << 32);
    }

    /// I22: a jump of any size is followed, to the last number of 32 bits, and by 2^31 - 1 and
    /// nearly 2^32 with ESN.
    #[test]
    fn jumps_are_followed() {
        for to in [1 + 0x7fff_ffff, u32::MAX] {
            let mut window = window(64, false);
            window.accept(1).unwrap();
            let candidate = window.check(to).unwrap();
            assert_eq!(window.commit(candidate, proof()), Ok(u64::from(to)));
            assert_eq!(window.lost(), u64::from(to) - 64 - 1);
        }
        for jump in [0x7fff_ffff, (1 << 32) - 64] {
            let (mut window, _) = window_at(64, true, 5 << 32 | 77);
            #[expect(clippy::cast_possible_truncation)]
            let candidate = window.check((77 + jump) as u32).unwrap();
            assert_eq!(window.commit(candidate, proof()), Ok((5 << 32 | 77) + jump));
        }
    }

    /// I21: with anti-replay off every number passes, again and again, zero too; there is no high
    /// half.
    #[test]
    fn off_accepts_everything() {
        let mut window = Window::off();
        assert!(!window.is_on() && !window.esn());
        for low in [7, 7, 0, 0, u32::MAX, 1, 7, 0] {
            let candidate = window.check(low).unwrap();
            assert_eq!(candidate.esn_high(), None);
            assert_eq!(window.commit(candidate, proof()), Ok(u64::from(low)));
        }
        assert_eq!((window.top(), window.lost(), window.reorder_depth()), (u32::MAX.into(), 0, 0));
    }

    /// What a packet of `seq` meets at a receiver: the number it is taken for, until one is right.
    fn arrive(window: &mut Window, seq: u64) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation)]
        let mut candidate = window.check(seq as u32).ok()?;
        while candidate.seq != seq {
            candidate = window.failed(&candidate)?;
        }
        window.commit(candidate, proof()).ok()
    }

    /// I19: after the loss of up to three subspaces and more the window finds its way back, within
    /// the packets that the bound tells, and then takes every packet.
    #[test]
    fn synchronises_after_a_long_loss() {
        for lost in [1 << 32, (1 << 32) + 5000, (2 << 32) - 70, 3 << 32, (4 << 32) - 500] {
            let (mut window, _) = window_at(64, true, (9 << 32) + 1234);
            let first = window.top() + lost + 1;
            let packets = RESYNC_AFTER + RESYNC_EVERY * (RESYNC_SUBSPACES - 1);
            let found = (first..).take(200).find(|&seq| arrive(&mut window, seq).is_some());
            let found = found.expect("it finds its way back");
            assert!(found - first < packets + 64, "after {} packets", found - first);
            assert!((found + 1..found + 500).all(|seq| arrive(&mut window, seq) == Some(seq)));
        }
    }

    /// I19: the search ends: what is further away is not found, however many packets come.
    #[test]
    fn search_is_bounded() {
        let (mut window, _) = window_at(64, true, 1234);
        let first = window.top() + (4 << 32) + 1;
        assert!((first..first + 5000).all(|seq| arrive(&mut window, seq).is_none()));
        assert_eq!(window.top(), 1234);
        let (mut window, _) = window_at(64, true, u64::MAX - 1000);
        let candidate = window.check(u32::MAX - 5).unwrap();
        assert!(
            (0..5000).all(|_| window.failed(&candidate).is_none()),
            "no number beyond the last"
        );
    }

    /// I19: a flood of forgeries is offered one more verification in 16, each subspace in turn,
    /// none for the offers themselves, and none at all between authentic packets.
    #[test]
    fn search_costs_one_in_sixteen() {
        let (mut window, _) = window_at(64, true, 10);
        let forged = window.check(1_000_000).unwrap();
        let offers: Vec<u64> = (0..100_000)
            .filter_map(|_| {
                let offer = window.failed(&forged)?;
                assert!(window.failed(&offer).is_none());
                Some(offer.seq >> 32)
            })
            .collect();
        assert_eq!(offers.len(), (100_000 - 64) / 16 + 1);
        assert!(offers.iter().zip([1, 2, 3].iter().cycle()).all(|(offer, turn)| offer == turn));
        for seq in 11..100 {
            window.accept(seq).unwrap();
            assert!((0..63).all(|_| window.failed(&forged).is_none()));
        }
    }

    /// I19: forgeries inside the window and SAs without ESN never start a search.
    #[test]
    fn search_is_for_new_extended_numbers() {
        let (mut window, _) = window_at(64, true, 1000);
        let late = window.check(990).unwrap();
        assert!((0..1000).all(|_| window.failed(&late).is_none()));
        let (mut short, _) = window_at(64, false, 1000);
        let forged = short.check(2000).unwrap();
        assert!((0..1000).all(|_| short.failed(&forged).is_none()));
    }

    /// Loss and depth in a story that can be counted by hand.
    #[test]
    fn loss_and_reordering() {
        let mut window = window(64, false);
        (1..=10).for_each(|seq| window.accept(seq).unwrap());
        assert_eq!((window.lost(), window.reorder_depth()), (0, 0));
        // 11 and 12 are missing, and 12 comes late, by 3.
        [13, 14, 15, 12].into_iter().for_each(|seq| window.accept(seq).unwrap());
        assert_eq!((window.lost(), window.reorder_depth()), (0, 3));
        // 11 leaves the window with 75, and is lost.
        (16..=74).for_each(|seq| window.accept(seq).unwrap());
        assert_eq!(window.lost(), 0);
        window.accept(75).unwrap();
        assert_eq!((window.lost(), window.reorder_depth()), (1, 3));
        // 76 to 936 have left the window, 937 to 999 can still come.
        window.accept(1000).unwrap();
        assert_eq!(window.lost(), 1 + (936 - 75));
    }
}
