//! Packets that wait for a neighbour to be resolved.
//!
//! They are finished but for their Ethernet header: the packet starts at its IP header. The queue
//! is small and bounded, in all and for each neighbour, so that one silent neighbour cannot crowd
//! out the others; the kernel is asked, and the answer arrives as a new snapshot of next hops.

use arrayvec::ArrayVec;
use culvert_frame::Packet;

use crate::next_hop::Target;
use crate::worker::Side;

/// Packets held at most.
pub const HELD_MAX: usize = 64;
/// Packets held for one neighbour at most.
pub const HELD_PER_TARGET_MAX: usize = 16;
/// How long a packet is held, in nanoseconds: as long as the kernel tries to resolve.
pub const HELD_NS_MAX: u64 = 3_000_000_000;

/// A packet on hold.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) packet: Packet,
    /// The side it came from.
    pub(crate) origin: Side,
    /// The neighbour it waits for.
    pub(crate) target: Target,
    /// When it has waited too long.
    pub(crate) deadline: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    queue: ArrayVec<Held, HELD_MAX>,
}

impl Hold {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a packet that came from the side `origin`; gives it back when the queue, or the share
    /// of its target, is full. `Ok` says whether this is the first packet for its target, so that
    /// the kernel must be asked.
    pub(crate) fn push(
        &mut self,
        packet: Packet,
        origin: Side,
        target: Target,
        now: u64,
    ) -> Result<bool, Packet> {
        let waiting = self.queue.iter().filter(|held| held.target == target).count();
        if waiting >= HELD_PER_TARGET_MAX || self.queue.is_full() {
            return Err(packet);
        }
        self.queue.push(Held { packet, origin, target, deadline: now + HELD_NS_MAX });
        Ok(waiting == 0)
    }

    /// The oldest packet, when its time is over.
    pub(crate) fn pop_expired(&mut self, now: u64) -> Option<Packet> {
        let expired = self.queue.first().is_some_and(|held| held.deadline <= now);
        expired.then(|| self.queue.remove(0).packet)
    }

    /// The oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.queue.pop_at(0)
    }

    /// Puts a packet back that [`pop`](Self::pop) returned, behind the others.
    pub(crate) fn put_back(&mut self, held: Held) {
        self.queue.push(held);
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Drop for Hold {
    /// Tokens are let go: their region lives as long as the process.
    fn drop(&mut self) {
        self.queue.drain(..).for_each(|held| std::mem::forget(held.packet));
    }
}
