//! How many packets met which fate, per worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::fate::DropReason;
use crate::fate::Fate;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Packet counts of one worker. Everything that came in got one fate: see
        /// [`Counters::balanced`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            /// Packets dropped, by [`DropReason`].
            pub dropped: [u64; DropReason::COUNT],
        }

        /// Counters that are no drop reasons.
        const SCALARS: usize = [$(stringify!($name)),*].len();

        impl Counters {
            /// The sum of two workers' counters.
            #[must_use]
            pub fn plus(&self, other: &Counters) -> Counters {
                Counters {
                    $($name: self.$name + other.$name,)*
                    dropped: std::array::from_fn(|at| self.dropped[at] + other.dropped[at]),
                }
            }

            fn scalars(&self) -> [u64; SCALARS] {
                [$(self.$name),*]
            }

            fn of([$($name),*]: [u64; SCALARS], dropped: [u64; DropReason::COUNT]) -> Counters {
                Counters { $($name,)* dropped }
            }
        }
    };
}

counters! {
    /// Packets received from ports.
    received,
    /// Packets taken over from other workers.
    taken,
    /// Held packets, and fragments put aside, that got their final fate.
    released,
    /// Packets made here: fragments, reassembled packets, ICMP errors, keepalives, dummies.
    made,
    /// Packets sent, sealed or opened.
    forwarded,
    /// Packets sent in clear.
    bypassed,
    /// Packets given to other workers.
    handed_off,
    /// Packets put on hold.
    held,
    /// Fragments put aside until the others come.
    reassembling,
    /// Packets replaced by their fragments.
    split,
    /// ICMP errors and NAT keepalives sent.
    answered,
    /// Packets that belong to the kernel's stack.
    punted,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::of([0; SCALARS], [0; DropReason::COUNT])
    }
}

impl Counters {
    #[inline]
    pub(crate) fn record(&mut self, fate: Fate) {
        self.record_all(fate, 1);
    }

    /// Records the fate of as many packets.
    #[inline]
    pub(crate) fn record_all(&mut self, fate: Fate, packets: usize) {
        let counter = match fate {
            Fate::Forward(_) => &mut self.forwarded,
            Fate::Bypass(_) => &mut self.bypassed,
            Fate::Handoff(_) => &mut self.handed_off,
            Fate::Held => &mut self.held,
            Fate::Reassembling => &mut self.reassembling,
            Fate::Split => &mut self.split,
            Fate::Answer(_) => &mut self.answered,
            Fate::Punt => &mut self.punted,
            Fate::Drop(reason) => &mut self.dropped[reason as usize],
        };
        *counter += packets as u64;
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
        let sent = self.forwarded + self.bypassed + self.answered + self.handed_off;
        let aside = self.held + self.reassembling + self.split + self.punted;
        let came = self.received + self.taken + self.released + self.made;
        came == sent + aside + self.dropped_total()
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
        Counters::of(std::array::from_fn(at), std::array::from_fn(|i| at(SCALARS + i)))
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
