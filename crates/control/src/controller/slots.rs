//! The slots of one worker's table of one direction, and who has them.
//!
//! A slot that an SA has left is *at rest* until no worker looks there any more: a packet handed
//! over by an older snapshot must find it empty, not another SA.

use std::collections::VecDeque;

use crate::controller::SaId;

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    capacity: u32,
    /// Of slots that were ever taken.
    owners: Vec<Option<SaId>>,
    /// Of those, the ones that may be taken again.
    free: Vec<u32>,
    /// Slots, and the edition that names them no more.
    at_rest: VecDeque<(u32, u64)>,
    used: usize,
}

impl Slots {
    pub(super) fn new(capacity: usize) -> Slots {
        let capacity = u32::try_from(capacity).expect("slots are counted in 32 bits");
        Slots { capacity, owners: Vec::new(), free: Vec::new(), at_rest: VecDeque::new(), used: 0 }
    }

    /// Slots that SAs have.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.owners.len() < self.capacity as usize
    }

    /// Takes a free slot.
    pub(super) fn take(&mut self, id: SaId) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.has_room() => {
                self.owners.push(None);
                u32::try_from(self.owners.len() - 1).expect("less than the capacity")
            }
            None => return None,
        };
        self.owners[slot as usize] = Some(id);
        self.used += 1;
        Some(slot)
    }

    /// Who has a slot.
    pub(super) fn owner(&self, slot: u32) -> Option<SaId> {
        *self.owners.get(slot as usize)?
    }

    /// The SA has left its slot. `forgotten` is the edition that names it no more, if that is one
    /// that not all workers have taken up.
    pub(super) fn leave(&mut self, slot: u32, forgotten: Option<u64>) {
        assert!(self.owners[slot as usize].take().is_some(), "a slot is left once");
        self.used -= 1;
        match forgotten {
            Some(edition) => self.at_rest.push_back((slot, edition)),
            None => self.free.push(slot),
        }
    }

    /// All workers have taken an edition up: what it names no more is free.
    pub(super) fn release(&mut self, taken: u64) {
        while let Some(&(slot, forgotten)) = self.at_rest.front()
            && forgotten <= taken
        {
            self.at_rest.pop_front();
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots are taken from the lowest, are few, and rest while an edition names them.
    #[test]
    fn slots_rest() {
        let mut slots = Slots::new(2);
        let ids = [1, 2, 3].map(SaId);
        assert_eq!((slots.take(ids[0]), slots.take(ids[1])), (Some(0), Some(1)));
        assert_eq!((slots.take(ids[2]), slots.used(), slots.owner(1)), (None, 2, Some(ids[1])));
        slots.leave(0, Some(7));
        assert_eq!((slots.take(ids[2]), slots.used()), (None, 1));
        slots.release(6);
        assert!(!slots.has_room(), "edition 6 names it");
        slots.release(7);
        assert_eq!(slots.take(ids[2]), Some(0));
        slots.leave(1, None);
        assert_eq!(slots.take(ids[0]), Some(1));
    }
}
