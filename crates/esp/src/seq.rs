//! Outbound sequence numbers: spent once, never beyond the last, never beyond the lease.
//!
//! The IV of every algorithm here is derived from the sequence number, so using a number twice
//! under one key would use a nonce twice. A [`SeqNo`] is neither `Clone` nor `Copy` and can only
//! come out of a [`Sequence`]; the packet it is written into consumes it.
//!
//! Keys that outlive the process (keys in a file) need more: numbers are then drawn from a
//! *lease*, a ceiling that was written to disk before the first number below it was used. A restart
//! starts above the ceiling.

/// One sequence number, to be used in one packet.
#[derive(Debug)]
pub struct SeqNo(u64);

impl SeqNo {
    /// The whole number.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0
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
pub struct Sequence {
    last: u64,
    ceiling: u64,
    end: u64,
}

impl Sequence {
    /// A counter whose last number used is `last`; 0 for a fresh SA. There is no lease: the ceiling
    /// is the end of the number space.
    #[must_use]
    pub fn new(esn: bool, last: u64) -> Sequence {
        let end = Sequence::end_of(esn);
        Sequence { last, ceiling: end, end }
    }

    /// The last number there is.
    #[must_use]
    pub fn end_of(esn: bool) -> u64 {
        if esn { u64::MAX } else { u64::from(u32::MAX) }
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

    /// Spends the next number: the last one plus 1, the first being 1.
    ///
    /// # Errors
    /// At the end of the number space, or of the lease.
    #[inline]
    pub fn next_seq(&mut self) -> Result<SeqNo, SeqError> {
        if self.last >= self.ceiling {
            let exhausted = self.last >= self.end;
            return Err(if exhausted { SeqError::Exhausted } else { SeqError::Lease });
        }
        self.last += 1;
        Ok(SeqNo(self.last))
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
}
