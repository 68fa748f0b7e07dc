//! Packets that wait for a neighbour to be resolved.
//!
//! They are finished but for their Ethernet header: the packet starts at its IP header. The queue
//! is small and bounded, in all and for each neighbour, so that one silent neighbour cannot crowd
//! out the others; the kernel is asked, and the answer arrives as a new snapshot of next hops.
//!
//! The kernel is asked again while packets wait: it gives up on a neighbour after a while, its
//! answer may be void by the time it is needed, and where packets never cease to come there is no
//! second first one.
//!
//! Each side has half of the places, so that a scan of hosts that do not exist, which anybody
//! behind the tunnel can do, leaves places for the packets of the tunnel itself.

use arrayvec::ArrayVec;
use culvert_frame::Packet;

use crate::ids::Side;
use crate::next_hop::Target;

/// Packets held at most.
pub const HELD_MAX: usize = 64;
/// Packets held for one neighbour at most.
pub const HELD_PER_TARGET_MAX: usize = 16;
/// Packets held at most that came from one side.
pub const HELD_PER_SIDE_MAX: usize = HELD_MAX / 2;
/// How long a packet is held, in nanoseconds: as long as the kernel tries to resolve.
pub const HELD_NS_MAX: u64 = 3_000_000_000;
/// How long a packet waits until the kernel is asked again, in nanoseconds.
pub const ASK_AGAIN_NS: u64 = 500_000_000;
/// Least time between two questions for packets that found no place, in nanoseconds.
pub const ASK_FULL_NS: u64 = 50_000_000;

/// A packet on hold.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) packet: Packet,
    /// The side it came from.
    pub(crate) origin: Side,
    /// True when policy says BYPASS.
    pub(crate) in_clear: bool,
    /// The neighbour it waits for.
    pub(crate) target: Target,
    /// When it has waited too long.
    pub(crate) deadline: u64,
    /// When to ask the kernel again.
    ask_at: u64,
}

impl Held {
    /// Whom to ask the kernel for again, when it is time; then not again for [`ASK_AGAIN_NS`].
    fn asks_again(&mut self, now: u64) -> Option<Target> {
        let due = now >= self.ask_at;
        if due {
            self.ask_at = now + ASK_AGAIN_NS;
        }
        due.then_some(self.target)
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    queue: ArrayVec<Held, HELD_MAX>,
    ask_full_at: u64,
}

impl Hold {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a packet that came from the side `origin`; gives it back when the share of that side,
    /// or that of its target, is full. `Ok` says whether this is the first packet for its target,
    /// so that the kernel must be asked.
    pub(crate) fn push(
        &mut self,
        packet: Packet,
        (origin, in_clear): (Side, bool),
        target: Target,
        now: u64,
    ) -> Result<bool, Packet> {
        let waiting = self.queue.iter().filter(|held| held.target == target).count();
        let of_side = self.queue.iter().filter(|held| held.origin == origin).count();
        if waiting >= HELD_PER_TARGET_MAX || of_side >= HELD_PER_SIDE_MAX {
            return Err(packet);
        }
        let (deadline, ask_at) = (now + HELD_NS_MAX, now + ASK_AGAIN_NS);
        self.queue.push(Held { packet, origin, in_clear, target, deadline, ask_at });
        Ok(waiting == 0)
    }

    /// True when the kernel may be asked for a packet that found no place.
    pub(crate) fn asks_for_more(&mut self, now: u64) -> bool {
        let due = now >= self.ask_full_at;
        if due {
            self.ask_full_at = now + ASK_FULL_NS;
        }
        due
    }

    /// Neighbours to ask the kernel for again.
    pub(crate) fn due(&mut self, now: u64) -> impl Iterator<Item = Target> {
        self.queue.iter_mut().filter_map(move |held| held.asks_again(now))
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

#[cfg(test)]
mod tests {
    use culvert_frame::MemIo;
    use culvert_frame::PacketIo;
    use culvert_frame::Port;

    use super::*;

    /// Only the first packet for a neighbour makes the kernel be asked at once, but each of them
    /// twice a second from then on.
    #[test]
    fn the_kernel_is_asked_again() {
        let mut io = MemIo::new(2);
        let mut hold = Hold::default();
        let target = Target { interface: 1, address: [10, 0, 0, 1].into() };
        for first in [true, false] {
            let packet = io.take_free().unwrap().with_contents(Port(0), b"x").unwrap();
            assert_eq!(hold.push(packet, (Side::Protected, false), target, 7).unwrap(), first);
        }
        while let Some(mut held) = hold.pop() {
            let due: Vec<bool> = [6, 7, 8, 8, 13, 14]
                .map(|at| held.asks_again(at * ASK_AGAIN_NS / 7 + 7).is_some())
                .to_vec();
            assert_eq!(due, [false, true, false, false, false, true]);
            io.recycle(held.packet.into_free());
        }
    }
}
