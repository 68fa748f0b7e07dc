//! What a worker asks of the outside world: batches of packets in and out of ports.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::region::MAX_SINGLE_FRAME;
use crate::token::FreeFrame;
use crate::token::Packet;

/// Most packets one step of a worker's turn handles.
pub const BATCH: usize = 64;

/// Most ports one gateway has.
pub const MAX_PORTS: usize = 8;

/// A batch of owned packets.
pub type Batch = ArrayVec<Packet, BATCH>;

/// Index of a port (an interface); which side it lies on is the engine's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub u8);

/// Packet I/O of one worker: its queue of every port, and the frames it owns.
///
/// Static dispatch: one implementation a worker. All methods return at once but [`wait`].
///
/// [`wait`]: PacketIo::wait
pub trait PacketIo {
    /// Appends received packets of `port` to `batch`, at most its spare capacity.
    fn recv(&mut self, port: Port, batch: &mut Batch);

    /// Takes packets from the front of `batch` and sends them out of `port`, in order. What is left
    /// in the batch was not accepted (the ring stayed full) and is still the caller's.
    fn send(&mut self, port: Port, batch: &mut Batch);

    /// Takes a frame back into the free list.
    fn recycle(&mut self, frame: FreeFrame);

    /// Gives a frame out of the free list, for a handoff swap.
    fn take_free(&mut self) -> Option<FreeFrame>;

    /// Gives a run of frames out of the free ones, for a packet larger than a frame; never where
    /// there are no runs.
    fn take_run(&mut self) -> Option<FreeFrame> {
        None
    }

    /// Gives out a frame or a run, whichever suits a packet of `len` octets best.
    fn take_room(&mut self, len: usize) -> Option<FreeFrame> {
        let run = if len > MAX_SINGLE_FRAME { self.take_run() } else { None };
        run.or_else(|| self.take_free())
    }

    /// Housekeeping, once a turn: frames that were sent come back, receive rings are refilled.
    fn service(&mut self);

    /// Blocks until a packet may have arrived, somebody woke the worker, or `timeout` passed.
    /// `ready` is asked once more after wake-ups are armed, and true returns at once: that closes
    /// the race with work published just before.
    fn wait(&mut self, timeout: Duration, ready: &dyn Fn() -> bool);
}
