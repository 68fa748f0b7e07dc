//! Packets that wait for their policy's first SA.
//!
//! A policy that asks IKE for an SA loses the packets that come before there is one, and with them
//! often the start of a connection, which is tried again after a second only. So a few are kept, as
//! they came, and go through outbound again when a snapshot has an SA for them, of whatever policy:
//! IKE may have replaced the one that asked. The queue is small and bounded, in all and for each
//! group, and so is the time: an SA that takes longer finds hosts that have tried again.

use arrayvec::ArrayVec;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Group;

/// Packets that wait at most: what is released at a time fits a batch.
pub const AWAITING_MAX: usize = BATCH;
/// How long a packet waits, in nanoseconds.
pub const AWAITING_NS_MAX: u64 = 3_000_000_000;

/// A packet as it came in, and the group whose SA it waits for.
#[derive(Debug)]
struct Waiting {
    packet: Packet,
    group: Group,
    deadline: u64,
}

/// The queue, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Awaiting {
    queue: ArrayVec<Waiting, AWAITING_MAX>,
}

impl Awaiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Packets that wait for a group's SA.
    pub(crate) fn of_group(&self, group: Group) -> usize {
        self.queue.iter().filter(|waiting| waiting.group == group).count()
    }

    /// Adds a packet, for which there is room.
    pub(crate) fn push(&mut self, packet: Packet, group: Group, now: u64) {
        let deadline = now + AWAITING_NS_MAX;
        self.queue.push(Waiting { packet, group, deadline });
    }

    /// The oldest packet that has waited too long, or that `finds_sa`.
    pub(crate) fn pop(&mut self, now: u64, finds_sa: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let is_done = |waiting: &Waiting| waiting.deadline <= now || finds_sa(&waiting.packet);
        let at = self.queue.iter().position(is_done)?;
        Some(self.queue.remove(at).packet)
    }
}

impl Drop for Awaiting {
    /// Tokens are let go: their region lives as long as the process.
    fn drop(&mut self) {
        self.queue.drain(..).for_each(|waiting| std::mem::forget(waiting.packet));
    }
}
