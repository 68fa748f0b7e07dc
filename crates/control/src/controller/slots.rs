//! The slots of one worker's table of one direction, and who has them.
//!
//! A slot that an SA has left is *at rest* until no worker looks there any more: a packet handed
//! over by an older snapshot must find it empty, not another SA.

use std::collections::VecDeque;

use crate::controller::SaId;

/// The slots.
#[derive(Debug)]
pub(super) struct Slots {
    owners: Vec<Option<SaId>>,
    free: Vec<u32>,
    /// Slots, and the last snapshot that names them.
    at_rest: VecDeque<(u32, u64)>,
    used: usize,
}

impl Slots {
    pub(super) fn new(capacity: usize) -> Slots {
        let capacity = u32::try_from(capacity).expect("slots are counted in 32 bits");
        Slots {
            owners: vec![None; capacity as usize],
            free: (0..capacity).rev().collect(),
            at_rest: VecDeque::new(),
            used: 0,
        }
    }

    /// Slots that SAs have.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a free slot.
    pub(super) fn take(&mut self, id: SaId) -> Option<u32> {
        let slot = self.free.pop()?;
        self.owners[slot as usize] = Some(id);
        self.used += 1;
        Some(slot)
    }

    /// Who has a slot.
    pub(super) fn owner(&self, slot: u32) -> Option<SaId> {
        *self.owners.get(slot as usize)?
    }

    /// The SA has left its slot. `named` is the last snapshot that names it, if any does that not
    /// all workers have forgotten.
    pub(super) fn leave(&mut self, slot: u32, named: Option<u64>) {
        assert!(self.owners[slot as usize].take().is_some(), "a slot is left once");
        self.used -= 1;
        match named {
            Some(generation) => self.at_rest.push_back((slot, generation)),
            None => self.free.push(slot),
        }
    }

    /// All workers have a snapshot: what only older ones name is free.
    pub(super) fn release(&mut self, taken: u64) {
        while let Some(&(slot, named)) = self.at_rest.front()
            && named < taken
        {
            self.at_rest.pop_front();
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots are taken from the lowest, are few, and rest while a snapshot names them.
    #[test]
    fn slots_rest() {
        let mut slots = Slots::new(2);
        let ids = [1, 2, 3].map(SaId);
        assert_eq!((slots.take(ids[0]), slots.take(ids[1])), (Some(0), Some(1)));
        assert_eq!((slots.take(ids[2]), slots.used(), slots.owner(1)), (None, 2, Some(ids[1])));
        slots.leave(0, Some(7));
        assert_eq!((slots.take(ids[2]), slots.used()), (None, 1));
        slots.release(7);
        assert!(!slots.has_room(), "snapshot 7 names it");
        slots.release(8);
        assert_eq!(slots.take(ids[2]), Some(0));
        slots.leave(1, None);
        assert_eq!(slots.take(ids[0]), Some(1));
    }
}
