//! Outbound sequence numbers: spent once, never beyond the last, never beyond the lease.
//!
//! The IV of every algorithm here is derived from the sequence number, so using a number twice
//! under one key would use a nonce twice. A [`SeqNo`] is neither `Clone` nor `Copy` and can only
//! come out of a [`Sequence`]; the packet it is written into consumes it.
//!
//! Keys that outlive the process (keys in a file) need more: numbers are then drawn from a
//! *lease*, a ceiling that was written to disk before the first number below it was used. A restart
//! starts above the ceiling.

use std::mem::offset_of;

/// One sequence number, to be used in one packet.
#[derive(Debug)]
pub struct SeqNo(u64);

impl SeqNo {
    /// The whole number.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
    }

    /// A number that was spent before, to compare what two ways make of it.
    #[cfg(test)]
    pub(crate) fn again(number: u64) -> SeqNo {
        SeqNo(number)
    }
}

/// Why no number can be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeqError {
    /// The last number of the SA was used (RFC 4303 section 3.3.3): it needs a new key.
    #[error("sequence numbers of the SA are used up")]
    Exhausted,
    /// The lease on disk does not reach further yet.
    #[error("sequence lease is used up")]
    Lease,
}

/// The counter of one outbound SA.
#[derive(Debug)]
#[repr(C)]
pub struct Sequence {
    last: u64,
    /// Up to here nothing is to be thought of when a number is spent: at most `stop`.
    quiet: u64,
    /// Where spending a number needs a look: the ceiling, or the low mark before it.
    stop: u64,
    ceiling: u64,
    end: u64,
    low_at: u64,
    /// Numbers before the ceiling that are not quiet.
    margin: u64,
    low: bool,
    exhausted: bool,
    untold: bool,
    esn: bool,
}

impl Sequence {
    /// Octets at the start that are all that a [quiet](Self::is_quiet) number needs.
    pub(crate) const QUIET_LEN: usize = offset_of!(Sequence, stop);

    /// A counter whose last number used is `last`; 0 for a fresh SA. There is no lease: the ceiling
    /// is the end of the number space. The reserve is a quarter of the space.
    #[must_use]
    pub fn new(esn: bool, last: u64) -> Sequence {
        let end = Sequence::end_of(esn);
        let low_at = end - end / 4;
        let (low, exhausted, untold) = (false, false, false);
        let (quiet, stop, ceiling, margin) = (low_at, low_at, end, 0);
        Sequence { last, quiet, stop, ceiling, end, low_at, margin, low, exhausted, untold, esn }
    }

    /// The high half of a number, if the counter is an extended one.
    #[inline(always)]
    #[must_use]
    pub fn high_of(&self, number: u64) -> Option<u32> {
        self.esn.then_some((number >> 32) as u32)
    }

    /// Numbers are extended.
    #[must_use]
    pub fn esn(&self) -> bool {
        self.esn
    }

    /// The last number there is.
    #[must_use]
    pub fn end_of(esn: bool) -> u64 {
        if esn { u64::MAX } else { u64::from(u32::MAX) }
    }

    /// Lets the number space end at `end`, if it does not end before. The reserve is a quarter
    /// again.
    pub fn end_at(&mut self, end: u64) {
        self.end = self.end.min(end);
        self.ceiling = self.ceiling.min(self.end);
        self.low_at = self.end - self.end / 4;
        self.set_stop();
    }

    /// Last number used.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Highest number the lease allows.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Sets the highest number that may be used before the next call, at most the end of the space.
    pub fn set_ceiling(&mut self, ceiling: u64) {
        self.ceiling = ceiling.min(self.end);
        self.set_stop();
    }

    /// Sets how many numbers before the end of the space the counter [is low](Self::is_low): as
    /// many as are spent while a successor is made, and more.
    pub fn set_reserve(&mut self, reserve: u64) {
        self.low_at = self.end.saturating_sub(reserve);
        self.set_stop();
    }

    fn set_stop(&mut self) {
        self.stop = if self.low { self.ceiling } else { self.ceiling.min(self.low_at) };
        self.quiet = self.stop.min(self.ceiling.saturating_sub(self.margin));
    }

    /// Sets how many numbers before the ceiling [`next_quiet`](Self::next_quiet) ends, so that the
    /// owner can ask for a higher one in time.
    pub fn set_margin(&mut self, margin: u64) {
        self.margin = margin;
        self.set_stop();
    }

    /// True when the next number needs no thought: it is neither the last one of anything, nor near
    /// the ceiling.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.last < self.quiet
    }

    /// Spends the next number if it [needs no thought](Self::is_quiet).
    #[inline(always)]
    pub fn next_quiet(&mut self) -> Option<SeqNo> {
        if !self.is_quiet() {
            return None;
        }
        self.last += 1;
        Some(SeqNo(self.last))
    }

    /// True when a higher ceiling would allow more numbers.
    #[must_use]
    pub fn can_grow(&self) -> bool {
        self.ceiling < self.end
    }

    /// Numbers left under the lease.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.ceiling.saturating_sub(self.last)
    }

    /// The reserve was touched: the SA needs a successor soon.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.low
    }

    /// A number was asked for beyond the last there is (RFC 4303 section 3.3.3).
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// [`is_low`](Self::is_low) or [`is_exhausted`](Self::is_exhausted) became true since
    /// [`take_news`](Self::take_news).
    #[inline]
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.untold
    }

    /// [`has_news`](Self::has_news), and false the next time.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.untold)
    }

    /// Spends the next number: the last one plus 1, the first being 1.
    ///
    /// # Errors
    /// At the end of the number space, whether or not the receiver has anti-replay; or at that of
    /// the lease.
    #[inline]
    pub fn next_seq(&mut self) -> Result<SeqNo, SeqError> {
        if self.last >= self.stop {
            self.look()?;
        }
        self.last += 1;
        Ok(SeqNo(self.last))
    }

    #[cold]
    fn look(&mut self) -> Result<(), SeqError> {
        if self.last >= self.low_at && !self.low {
            self.low = true;
            self.untold = true;
            self.set_stop();
        }
        if self.last < self.ceiling {
            return Ok(());
        }
        if self.last < self.end {
            return Err(SeqError::Lease);
        }
        self.untold |= !self.exhausted;
        self.exhausted = true;
        Err(SeqError::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(sequence: &mut Sequence) -> Result<u64, SeqError> {
        sequence.next_seq().map(|seq| seq.value())
    }

    /// E01, E02: 1, 2, 3.
    #[test]
    fn starts_at_one_and_counts_up() {
        let mut sequence = Sequence::new(false, 0);
        assert_eq!([(); 3].map(|()| spend(&mut sequence)), [Ok(1), Ok(2), Ok(3)]);
    }

    /// E03: the counter never cycles, at either width, and stays refused.
    #[test]
    fn refuses_after_the_last_number() {
        for (esn, end) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let mut sequence = Sequence::new(esn, end - 1);
            assert_eq!(spend(&mut sequence), Ok(end));
            assert_eq!(spend(&mut sequence), Err(SeqError::Exhausted));
            assert_eq!(spend(&mut sequence), Err(SeqError::Exhausted));
        }
    }

    /// E21: no number above the lease is used, and a lease never reaches past the end.
    #[test]
    fn stops_at_the_lease() {
        let mut sequence = Sequence::new(false, 10);
        sequence.set_ceiling(11);
        assert_eq!((spend(&mut sequence), spend(&mut sequence)), (Ok(11), Err(SeqError::Lease)));
        sequence.set_ceiling(u64::MAX);
        assert_eq!(sequence.ceiling(), u64::from(u32::MAX));
        assert!(!sequence.can_grow());
        assert_eq!(spend(&mut sequence), Ok(12));
    }

    /// E03, E05: a counter knows nothing of the receiver's window: with anti-replay off it is
    /// refused too, as a second round would use nonces twice.
    #[test]
    fn refuses_without_anti_replay_too() {
        let mut sequence = Sequence::new(false, u64::from(u32::MAX) - 2);
        let spent: Vec<_> = (0..1000).filter_map(|_| spend(&mut sequence).ok()).collect();
        assert_eq!(spent, [0xffff_fffe, 0xffff_ffff]);
        assert!(sequence.is_exhausted());
    }

    /// The low mark is told once, long before the end, and the end once.
    #[test]
    fn low_is_told_once_before_the_end() {
        let end = u64::from(u32::MAX);
        let mut sequence = Sequence::new(false, end - 8);
        sequence.set_reserve(5);
        let mut news = Vec::new();
        for _ in 0..20 {
            let spent = spend(&mut sequence);
            if sequence.has_news() {
                assert!(sequence.take_news() && !sequence.has_news());
                news.push((spent, sequence.is_low(), sequence.is_exhausted()));
            }
        }
        let expected = [(Ok(end - 4), true, false), (Err(SeqError::Exhausted), true, true)];
        assert_eq!(news, expected);
    }

    /// E03: numbers may end sooner than their width says, and never later.
    #[test]
    fn numbers_end_sooner() {
        let mut sequence = Sequence::new(true, 997);
        sequence.end_at(1000);
        let spent: Vec<_> = (0..5).map(|_| spend(&mut sequence)).collect();
        let none = Err(SeqError::Exhausted);
        assert_eq!(spent, [Ok(998), Ok(999), Ok(1000), none, none]);
        assert!(sequence.is_low() && !sequence.can_grow());
        let mut sequence = Sequence::new(false, u64::from(u32::MAX));
        sequence.end_at(1 << 40);
        sequence.set_ceiling(u64::MAX);
        assert_eq!(spend(&mut sequence), none);
    }

    /// E21: quiet numbers are the same numbers, and end in time: at the margin before the ceiling,
    /// and where there is news.
    #[test]
    fn quiet_numbers_end_in_time() {
        let mut sequence = Sequence::new(false, 10);
        sequence.set_margin(3);
        sequence.set_ceiling(20);
        let quiet: Vec<u64> =
            std::iter::from_fn(|| sequence.next_quiet()).map(|seq| seq.value()).collect();
        assert_eq!(quiet, [11, 12, 13, 14, 15, 16, 17]);
        assert_eq!((spend(&mut sequence), sequence.remaining()), (Ok(18), 2));
        sequence.set_ceiling(u64::MAX);
        assert_eq!(sequence.next_quiet().map(|seq| seq.value()), Some(19));
        let end = u64::from(u32::MAX);
        let mut sequence = Sequence::new(false, end - 8);
        sequence.set_reserve(5);
        while sequence.next_quiet().is_some() {}
        assert_eq!((sequence.last(), sequence.has_news()), (end - 5, false));
        assert_eq!((spend(&mut sequence), sequence.has_news()), (Ok(end - 4), true));
        while sequence.next_quiet().is_some() {}
        assert_eq!(sequence.last(), end);
        sequence.set_margin(u64::MAX);
        assert!(!sequence.is_quiet());
    }

    /// Unless told otherwise, a quarter of the numbers is the reserve, at either width.
    #[test]
    fn reserve_is_a_quarter() {
        for (esn, bits) in [(false, 32), (true, 64)] {
            let low_at = 3u64 << (bits - 2);
            let mut sequence = Sequence::new(esn, low_at - 2);
            assert!((0..2).all(|_| spend(&mut sequence).is_ok() && !sequence.is_low()), "{bits}");
            assert_eq!(spend(&mut sequence), Ok(low_at + 1));
            assert!(sequence.is_low(), "{bits}");
        }
    }

    /// E21: the low mark and the lease do not disturb each other: a lease below, at and above it.
    #[test]
    fn lease_and_low_mark() {
        let end = u64::from(u32::MAX);
        let mut sequence = Sequence::new(false, end - 10);
        sequence.set_reserve(5);
        let mut low = Vec::new();
        for ceiling in [end - 7, end - 5, end - 2, end] {
            sequence.set_ceiling(ceiling);
            while let Ok(seq) = spend(&mut sequence) {
                assert!(seq <= ceiling);
                low.push(sequence.is_low());
            }
            assert_eq!((sequence.last(), sequence.remaining()), (ceiling, 0));
        }
        assert_eq!(low, [false, false, false, false, false, true, true, true, true, true]);
    }
}
