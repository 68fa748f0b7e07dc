//! How many packets met which fate, per worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::fate::DropReason;
use crate::fate::Fate;

/// Packet counts of one worker. Everything that came in got one fate: see [`Counters::balanced`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received from ports.
    pub received: u64,
    /// Packets taken over from other workers.
    pub taken: u64,
    /// Held packets that got their final fate.
    pub released: u64,
    /// Packets sent, sealed or opened.
    pub forwarded: u64,
    /// Packets sent in clear.
    pub bypassed: u64,
    /// Packets given to other workers.
    pub handed_off: u64,
    /// Packets put on hold.
    pub held: u64,
    /// Packets that belong to the kernel's stack.
    pub punted: u64,
    /// Packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

const SCALARS: usize = 8;

impl Counters {
    #[inline]
    pub(crate) fn record(&mut self, fate: Fate) {
        let counter = match fate {
            Fate::Forward(_) => &mut self.forwarded,
            Fate::Bypass(_) => &mut self.bypassed,
            Fate::Handoff(_) => &mut self.handed_off,
            Fate::Held => &mut self.held,
            Fate::Punt => &mut self.punted,
            Fate::Drop(reason) => &mut self.dropped[reason as usize],
        };
        *counter += 1;
    }

    /// Packets dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Packets dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Everything that came in has exactly one fate.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let fates = self.forwarded + self.bypassed + self.handed_off + self.held + self.punted;
        self.received + self.taken + self.released == fates + self.dropped_total()
    }

    /// The sum of two workers' counters.
    #[must_use]
    pub fn plus(&self, other: &Counters) -> Counters {
        let mut sum = Counters {
            received: self.received + other.received,
            taken: self.taken + other.taken,
            released: self.released + other.released,
            forwarded: self.forwarded + other.forwarded,
            bypassed: self.bypassed + other.bypassed,
            handed_off: self.handed_off + other.handed_off,
            held: self.held + other.held,
            punted: self.punted + other.punted,
            dropped: self.dropped,
        };
        sum.dropped.iter_mut().zip(&other.dropped).for_each(|(sum, &other)| *sum += other);
        sum
    }

    fn scalars(&self) -> [u64; SCALARS] {
        [
            self.received,
            self.taken,
            self.released,
            self.forwarded,
            self.bypassed,
            self.handed_off,
            self.held,
            self.punted,
        ]
    }
}

/// A copy of a worker's counters that other threads may read at any time.
///
/// The worker stores, others load; values of one reading may be of two neighbouring turns.
#[derive(Debug)]
pub struct SharedCounters {
    cells: [AtomicU64; SCALARS + DropReason::COUNT],
}

impl Default for SharedCounters {
    fn default() -> SharedCounters {
        SharedCounters { cells: [const { AtomicU64::new(0) }; SCALARS + DropReason::COUNT] }
    }
}

impl SharedCounters {
    pub(crate) fn store(&self, counters: &Counters) {
        let values = counters.scalars().into_iter().chain(counters.dropped);
        self.cells.iter().zip(values).for_each(|(cell, value)| cell.store(value, Relaxed));
    }

    /// The counters as last published.
    #[must_use]
    pub fn load(&self) -> Counters {
        let at = |index: usize| self.cells[index].load(Relaxed);
        Counters {
            received: at(0),
            taken: at(1),
            released: at(2),
            forwarded: at(3),
            bypassed: at(4),
            handed_off: at(5),
            held: at(6),
            punted: at(7),
            dropped: std::array::from_fn(|index| at(SCALARS + index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use culvert_frame::Port;

    use super::*;

    /// A fate for each packet balances; one too few does not; readers see what was stored.
    #[test]
    fn balance_and_publication() {
        let mut counters = Counters { received: 3, ..Counters::default() };
        counters.record(Fate::Forward(Port(0)));
        counters.record(Fate::Drop(DropReason::Icv));
        assert!(!counters.balanced());
        counters.record(Fate::Punt);
        assert!(counters.balanced());
        let shared = SharedCounters::default();
        shared.store(&counters);
        assert_eq!(shared.load(), counters);
        assert_eq!(shared.load().plus(&counters).dropped(DropReason::Icv), 2);
    }
}
