//! Packets of an SA that another worker owns.
//!
//! A NIC spreads packets over queues without regard to SAs, and an SA lives in one worker. A packet
//! that arrives elsewhere is handed over: its token is moved through a bounded ring to the owner,
//! and for each packet it takes the owner moves one free frame back. So each worker's number of
//! frames is constant, nothing drains to one side, and memory never moves. A packet in a run of
//! frames is exchanged for a free run; an owner without one gives back the very run, and the packet
//! is dropped, so that small packets behind it need not wait.
//!
//! There is one pair of rings for each (source, owner), so packets of a flow, which arrive at one
//! worker, stay in order. A full ring is a counted drop at the source. Inbound and outbound have a
//! mesh of their own, because the owner runs them through different code.

use std::sync::Arc;

use culvert_frame::Batch;
use culvert_frame::FreeFrame;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use rtrb::Consumer;
use rtrb::Producer;
use rtrb::RingBuffer;

use crate::ids::WorkerId;

/// Wakes a worker that may be asleep.
pub trait Wake: Send + Sync {
    /// Returns soon; does nothing when the worker is awake.
    fn wake(&self);
}

/// One worker's ends of a mesh.
pub struct Handoff {
    to: Vec<Option<Outgoing>>,
    from: Vec<Option<Incoming>>,
    turns: usize,
}

struct Outgoing {
    packets: Producer<Packet>,
    frames: Consumer<FreeFrame>,
    wake: Arc<dyn Wake>,
    wake_due: bool,
}

struct Incoming {
    packets: Consumer<Packet>,
    frames: Producer<FreeFrame>,
}

impl Handoff {
    /// A mesh among as many workers as there are wakers, with `capacity` packets a ring.
    #[must_use]
    pub fn mesh(wakers: &[Arc<dyn Wake>], capacity: usize) -> Vec<Handoff> {
        let workers = wakers.len();
        let empty = || Handoff {
            to: (0..workers).map(|_| None).collect(),
            from: (0..workers).map(|_| None).collect(),
            turns: 0,
        };
        let mut mesh: Vec<Handoff> = (0..workers).map(|_| empty()).collect();
        for source in 0..workers {
            for owner in (0..workers).filter(|&owner| owner != source) {
                let (packet_in, packet_out) = RingBuffer::new(capacity);
                let (frame_in, frame_out) = RingBuffer::new(capacity);
                mesh[source].to[owner] = Some(Outgoing {
                    packets: packet_in,
                    frames: frame_out,
                    wake: Arc::clone(&wakers[owner]),
                    wake_due: false,
                });
                mesh[owner].from[source] = Some(Incoming { packets: packet_out, frames: frame_in });
            }
        }
        mesh
    }

    /// The mesh of a single worker: nobody to hand anything to.
    #[must_use]
    pub fn none() -> Handoff {
        Handoff { to: Vec::new(), from: Vec::new(), turns: 0 }
    }

    /// Hands a packet to its owner; gives it back when the ring is full or there is no such worker.
    #[inline]
    pub(crate) fn give(&mut self, owner: WorkerId, packet: Packet) -> Result<(), Packet> {
        let Some(Some(outgoing)) = self.to.get_mut(usize::from(owner.0)) else {
            return Err(packet);
        };
        match outgoing.packets.push(packet) {
            Ok(()) => {
                outgoing.wake_due = true;
                Ok(())
            }
            Err(rtrb::PushError::Full(packet)) => Err(packet),
        }
    }

    /// Wakes the owners that were given something since the last call.
    #[inline]
    pub(crate) fn wake_owners(&mut self) {
        for outgoing in self.to.iter_mut().flatten() {
            if std::mem::take(&mut outgoing.wake_due) {
                outgoing.wake.wake();
            }
        }
    }

    /// Takes packets handed to this worker into `batch`, one free frame given back for each; stops
    /// when the batch is full or no frame is free. Each call begins with another source, so that a
    /// busy one cannot keep the others waiting. Returns how many packets in runs were dropped, as
    /// no run was free.
    #[inline]
    pub(crate) fn take(&mut self, io: &mut impl PacketIo, batch: &mut Batch) -> usize {
        let mut dropped = 0;
        let first = usize::from(self.first_source().0);
        self.turns = self.turns.wrapping_add(1);
        let (before, from) = self.from.split_at_mut(first);
        for incoming in from.iter_mut().chain(before).flatten() {
            while !batch.is_full() && !incoming.frames.is_full() {
                let Ok(next) = incoming.packets.peek() else { break };
                if next.is_run() {
                    dropped += usize::from(!incoming.take_run(io, batch));
                    continue;
                }
                let Some(frame) = io.take_free() else { return dropped };
                let Ok(packet) = incoming.packets.pop() else {
                    io.recycle(frame);
                    break;
                };
                batch.push(packet);
                if let Err(rtrb::PushError::Full(frame)) = incoming.frames.push(frame) {
                    unreachable!("room was checked: {frame:?}");
                }
            }
        }
        dropped
    }

    /// Takes back the frames that owners returned.
    #[inline]
    pub(crate) fn collect(&mut self, io: &mut impl PacketIo) {
        for outgoing in self.to.iter_mut().flatten() {
            while let Ok(frame) = outgoing.frames.pop() {
                io.recycle(frame);
            }
        }
    }

    /// True when something was handed to this worker.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.from.iter().flatten().any(|incoming| !incoming.packets.is_empty())
    }
}

impl Incoming {
    /// Takes the next packet, which is in a run; false when it is dropped for lack of a free run.
    #[cold]
    fn take_run(&mut self, io: &mut impl PacketIo, batch: &mut Batch) -> bool {
        let Ok(packet) = self.packets.pop() else { return true };
        let (frame, taken) = match io.take_run() {
            Some(run) => {
                batch.push(packet);
                (run, true)
            }
            None => (packet.into_free(), false),
        };
        if let Err(rtrb::PushError::Full(frame)) = self.frames.push(frame) {
            unreachable!("room was checked: {frame:?}");
        }
        taken
    }
}

impl Handoff {
    /// Packets that `source` gave to this worker and that still wait in their ring. For checks that
    /// frames are conserved; only exact while neither of the two workers turns.
    #[must_use]
    pub fn waiting_from(&self, source: WorkerId) -> usize {
        let incoming = self.from.get(usize::from(source.0));
        incoming.and_then(Option::as_ref).map_or(0, |incoming| incoming.packets.slots())
    }

    /// The worker whose packets are taken first when packets are taken next.
    #[must_use]
    pub fn first_source(&self) -> WorkerId {
        let workers = self.from.len().max(1);
        #[expect(clippy::cast_possible_truncation, reason = "at most 256 workers")]
        WorkerId((self.turns % workers) as u8)
    }

    /// Frames of this worker that are in rings: in packets it gave that nobody has taken yet, and
    /// those owners gave back that it has not collected yet. For checks that frames are conserved;
    /// only exact while no other worker turns.
    #[must_use]
    pub fn frames_away(&self) -> usize {
        let given = |packets: &Producer<Packet>| packets.buffer().capacity() - packets.slots();
        self.to
            .iter()
            .flatten()
            .map(|outgoing| given(&outgoing.packets) + outgoing.frames.slots())
            .sum()
    }
}

impl Drop for Handoff {
    /// Tokens in the rings are let go: their region lives as long as the process.
    fn drop(&mut self) {
        for incoming in self.from.iter_mut().flatten() {
            while let Ok(packet) = incoming.packets.pop() {
                std::mem::forget(packet);
            }
        }
        for outgoing in self.to.iter_mut().flatten() {
            while let Ok(frame) = outgoing.frames.pop() {
                std::mem::forget(frame);
            }
        }
    }
}

impl std::fmt::Debug for Handoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handoff").field("workers", &self.to.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use culvert_frame::MemIo;
    use culvert_frame::Port;

    use super::*;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self) {}
    }

    fn pair(capacity: usize) -> (Handoff, Handoff) {
        let mut mesh = Handoff::mesh(&[Arc::new(NoWake), Arc::new(NoWake)], capacity).into_iter();
        (mesh.next().unwrap(), mesh.next().unwrap())
    }

    /// Packets arrive in order, and both workers have as many frames as before.
    #[test]
    fn swaps_frames_and_keeps_order() {
        let (mut source, mut owner) = pair(8);
        let (mut source_io, mut owner_io) = (MemIo::new(8), MemIo::new(8));
        for number in 0u8..5 {
            let frame = source_io.take_free().unwrap();
            let packet = frame.with_contents(Port(0), &[number]).unwrap();
            assert!(source.give(WorkerId(1), packet).is_ok());
        }
        assert!(owner.is_waiting());
        assert_eq!((owner.waiting_from(WorkerId(0)), source.frames_away()), (5, 5));
        let mut batch = Batch::new();
        assert_eq!(owner.take(&mut owner_io, &mut batch), 0);
        assert_eq!((owner.waiting_from(WorkerId(0)), source.frames_away()), (0, 5));
        let numbers: Vec<u8> = batch.iter().map(|packet| packet.data()[0]).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        batch.drain(..).for_each(|packet| owner_io.recycle(packet.into_free()));
        source.collect(&mut source_io);
        assert_eq!(source.frames_away(), 0);
        assert_eq!((source_io.free_frames(), owner_io.free_frames()), (8, 8));
        // Frames have changed owner; let go of both in peace.
        forget_frames(source_io);
        forget_frames(owner_io);
    }

    /// A full ring gives the packet back, and without a free frame nothing is taken.
    #[test]
    fn bounds() {
        let (mut source, mut owner) = pair(2);
        let (mut source_io, mut owner_io) = (MemIo::new(4), MemIo::new(1));
        for round in 0..3 {
            let frame = source_io.take_free().unwrap();
            let packet = frame.with_contents(Port(0), b"x").unwrap();
            match source.give(WorkerId(1), packet) {
                Ok(()) => assert!(round < 2),
                Err(packet) => {
                    assert_eq!(round, 2);
                    source_io.recycle(packet.into_free());
                }
            }
        }
        let mut batch = Batch::new();
        assert_eq!(owner.take(&mut owner_io, &mut batch), 0);
        assert_eq!(batch.len(), 1, "one free frame, one packet");
        batch.drain(..).for_each(|packet| owner_io.recycle(packet.into_free()));
        source.collect(&mut source_io);
        forget_frames(source_io);
        forget_frames(owner_io);
    }

    /// Packets in runs are exchanged for runs; without a free one the packet is dropped and its run
    /// goes back, and small packets behind it are taken all the same.
    #[test]
    fn swaps_runs() {
        let (mut source, mut owner) = pair(8);
        let (mut source_io, mut owner_io) = (MemIo::with_runs(2, 3), MemIo::with_runs(3, 1));
        for number in 0..4_u8 {
            let frame = if number < 3 { source_io.take_run() } else { source_io.take_free() };
            let packet = frame.unwrap().with_contents(Port(0), &[number]).unwrap();
            assert!(source.give(WorkerId(1), packet).is_ok());
        }
        let mut batch = Batch::new();
        assert_eq!(owner.take(&mut owner_io, &mut batch), 2, "one run, three such packets");
        let numbers: Vec<u8> = batch.iter().map(|packet| packet.data()[0]).collect();
        assert_eq!(numbers, [0, 3]);
        batch.drain(..).for_each(|packet| owner_io.recycle(packet.into_free()));
        source.collect(&mut source_io);
        let free = |io: &MemIo| (io.free_frames(), io.free_runs());
        assert_eq!((free(&source_io), free(&owner_io)), ((2, 3), (3, 1)));
        forget_frames(source_io);
        forget_frames(owner_io);
    }

    fn forget_frames(mut io: MemIo) {
        while let Some(frame) = io.take_free().or_else(|| io.take_run()) {
            std::mem::forget(frame);
        }
    }
}
