//! Slots of the per-queue counters.
//!
//! The kernel keeps one row of [`SLOTS`] numbers for each receive queue (and each CPU; user space
//! adds those up). Every frame a steering program sees adds one to the slot of its class; a frame
//! whose class is for the engine also adds one to [`Counter::Redirected`] or
//! [`Counter::NoSocket`], depending on whether its queue had a socket. A redirected frame can
//! still be lost when the socket has no room; the socket's own statistics count that.

use crate::class::Class;

/// One slot of a counter row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Frames of a class.
    Class(Class),
    /// Frames for the engine that were given to the socket of their queue.
    Redirected,
    /// Frames for the engine that were dropped, as their queue had no socket: passed on, the kernel
    /// might forward them in clear.
    NoSocket,
    /// Frames dropped by the `discard` program.
    Discarded,
}

const CLASSES: usize = Class::ALL.len();

/// Length of a counter row.
pub const SLOTS: usize = CLASSES + 3;

impl Counter {
    /// Every counter, in the order of the slots.
    pub const ALL: [Counter; SLOTS] = {
        let mut all = [Counter::Discarded; SLOTS];
        let mut slot = 0;
        while slot < CLASSES {
            all[slot] = Counter::Class(Class::ALL[slot]);
            slot += 1;
        }
        all[CLASSES] = Counter::Redirected;
        all[CLASSES + 1] = Counter::NoSocket;
        all
    };

    /// Index in a counter row, less than [`SLOTS`].
    #[must_use]
    #[inline(always)]
    pub const fn slot(self) -> usize {
        match self {
            Counter::Class(class) => class as usize,
            Counter::Redirected => CLASSES,
            Counter::NoSocket => CLASSES + 1,
            Counter::Discarded => CLASSES + 2,
        }
    }

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Class(class) => class.name(),
            Counter::Redirected => "redirected",
            Counter::NoSocket => "no_socket",
            Counter::Discarded => "discarded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ALL` is ordered by slot, each slot is used once, and names are distinct.
    #[test]
    fn slots_and_names_are_one_to_one() {
        for (slot, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.slot(), slot);
            let same = Counter::ALL.iter().filter(|other| other.name() == counter.name());
            assert_eq!(same.count(), 1, "{}", counter.name());
        }
    }
}
