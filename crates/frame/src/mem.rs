//! [`MemIo`]: packets in queues. Tests, benches, pcap replay and the simulator use it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::io::Batch;
use crate::io::MAX_PORTS;
use crate::io::PacketIo;
use crate::io::Port;
use crate::region::Region;
use crate::token::FreeFrame;
use crate::token::Packet;

/// In-memory packet I/O: what the test puts into a port's receive queue comes out of `recv`, and
/// what the worker sends is kept until the test takes it.
#[derive(Debug)]
pub struct MemIo {
    region: &'static Region,
    free: Vec<FreeFrame>,
    runs: Vec<FreeFrame>,
    received: [VecDeque<Packet>; MAX_PORTS],
    sent: [VecDeque<Packet>; MAX_PORTS],
    send_limit: usize,
}

impl MemIo {
    /// I/O with `frames` frames of its own.
    ///
    /// # Panics
    /// When `frames` is zero.
    #[must_use]
    pub fn new(frames: usize) -> MemIo {
        MemIo::with_runs(frames, 0)
    }

    /// I/O with `frames` frames and `runs` runs of its own.
    ///
    /// # Panics
    /// When `frames` is zero.
    #[must_use]
    pub fn with_runs(frames: usize, runs: usize) -> MemIo {
        let (region, free) = Region::leak_with_runs(frames, runs);
        MemIo::with_frames(region, free)
    }

    /// I/O over some of the frames and runs of a region (workers that hand packets over share one).
    #[must_use]
    pub fn with_frames(region: &'static Region, free: Vec<FreeFrame>) -> MemIo {
        let (runs, free) = free.into_iter().partition(FreeFrame::is_run);
        MemIo {
            region,
            free,
            runs,
            received: Default::default(),
            sent: Default::default(),
            send_limit: usize::MAX,
        }
    }

    /// Queues a copy of `contents` as received on `port`, in a run when they are large and one is
    /// free; false when nothing is free that they fit into.
    pub fn inject(&mut self, port: Port, contents: &[u8]) -> bool {
        let Some(frame) = self.take_room(contents.len()) else {
            return false;
        };
        match frame.with_contents(port, contents) {
            Ok(packet) => {
                self.received[usize::from(port.0)].push_back(packet);
                true
            }
            Err(frame) => {
                self.recycle(frame);
                false
            }
        }
    }

    /// Queues a packet as received on the port it carries, without a copy.
    pub fn inject_packet(&mut self, packet: Packet) {
        self.received[usize::from(packet.port().0)].push_back(packet);
    }

    /// The oldest packet sent out of `port`; the caller recycles it.
    pub fn take_sent(&mut self, port: Port) -> Option<Packet> {
        self.sent[usize::from(port.0)].pop_front()
    }

    /// Like [`take_sent`](Self::take_sent), as bytes; the frame is recycled.
    pub fn take_sent_bytes(&mut self, port: Port) -> Option<Vec<u8>> {
        let packet = self.take_sent(port)?;
        let bytes = packet.data().to_vec();
        self.recycle(packet.into_free());
        Some(bytes)
    }

    /// Limits how many packets a port's send queue accepts, to play a full TX ring.
    pub fn limit_sends(&mut self, packets: usize) {
        self.send_limit = packets;
    }

    /// Frames on the free list.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.free.len()
    }

    /// Runs on the free list.
    #[must_use]
    pub fn free_runs(&self) -> usize {
        self.runs.len()
    }

    /// Frames and runs held here in any form: free, received and not yet read, sent and not yet
    /// taken.
    #[must_use]
    pub fn held_frames(&self) -> usize {
        let queued = |queues: &[VecDeque<Packet>]| queues.iter().map(VecDeque::len).sum::<usize>();
        self.free.len() + self.runs.len() + queued(&self.received) + queued(&self.sent)
    }
}

impl PacketIo for MemIo {
    fn recv(&mut self, port: Port, batch: &mut Batch) {
        // Packet by packet, as descriptors come out of a ring; faster than a drain of the queue.
        let queue = &mut self.received[usize::from(port.0)];
        while !batch.is_full()
            && let Some(packet) = queue.pop_front()
        {
            batch.push(packet);
        }
    }

    fn send(&mut self, port: Port, batch: &mut Batch) {
        let queue = &mut self.sent[usize::from(port.0)];
        let room = self.send_limit.saturating_sub(queue.len());
        let count = batch.len().min(room);
        batch.drain(..count).for_each(|packet| queue.push_back(packet));
    }

    fn recycle(&mut self, frame: FreeFrame) {
        match frame.is_run() {
            true => self.runs.push(frame),
            false => self.free.push(frame),
        }
    }

    fn take_free(&mut self) -> Option<FreeFrame> {
        self.free.pop()
    }

    fn take_run(&mut self) -> Option<FreeFrame> {
        self.runs.pop()
    }

    fn service(&mut self) {}

    fn wait(&mut self, _timeout: Duration, _ready: &dyn Fn() -> bool) {}
}

impl Drop for MemIo {
    fn drop(&mut self) {
        let region = self.region;
        self.free
            .drain(..)
            .chain(self.runs.drain(..))
            .for_each(|frame| _ = region.release_free(frame));
        for queue in self.received.iter_mut().chain(&mut self.sent) {
            queue.drain(..).for_each(|packet| _ = region.release_packet(packet));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames are conserved through inject, receive, send and recycle.
    #[test]
    fn conserves_frames() {
        let mut io = MemIo::new(3);
        assert!(io.inject(Port(0), b"one") && io.inject(Port(0), b"two"));
        let mut batch = Batch::new();
        io.recv(Port(0), &mut batch);
        assert_eq!(batch.len(), 2);
        io.limit_sends(1);
        io.send(Port(1), &mut batch);
        assert_eq!(batch.len(), 1, "the second was not accepted");
        io.recycle(batch.pop().unwrap().into_free());
        assert_eq!(io.take_sent_bytes(Port(1)).unwrap(), b"one");
        assert_eq!((io.free_frames(), io.held_frames()), (3, 3));
    }

    /// Large contents take a run, and come back as one.
    #[test]
    fn large_contents_take_a_run() {
        let mut io = MemIo::with_runs(1, 1);
        assert!(io.inject(Port(0), &[3; 9000]));
        assert_eq!((io.free_frames(), io.free_runs(), io.held_frames()), (1, 0, 2));
        assert!(!io.inject(Port(0), &[4; 1793]), "no run, and too large for a frame");
        let mut batch = Batch::new();
        io.recv(Port(0), &mut batch);
        io.send(Port(1), &mut batch);
        assert_eq!(io.take_sent_bytes(Port(1)).unwrap(), [3; 9000]);
        assert_eq!((io.free_frames(), io.free_runs()), (1, 1));
        assert!(io.inject(Port(0), &[4; 1536]));
        assert_eq!((io.free_frames(), io.free_runs()), (0, 1), "small contents take a frame");
    }

    /// Without a free frame nothing is injected.
    #[test]
    fn inject_needs_a_frame() {
        let mut io = MemIo::new(1);
        assert!(io.inject(Port(0), b"one") && !io.inject(Port(0), b"two"));
    }
}
