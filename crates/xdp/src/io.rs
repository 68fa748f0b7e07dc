//! [`XdpIo`]: packets of one worker, over its queue of every port.
//!
//! # Where a worker's frames are
//!
//! ```text
//!            refill                       (kernel receives)
//! free list ───────► fill ring of a port ───────────────► RX ring ─► recv ─► Packet
//!     ▲                                                                        │ in place
//!     └── completion ring ◄─────────────────────────────── TX ring ◄─ send ◄───┘
//!           reap             (kernel sends)                of any port
//! ```
//!
//! A frame received on one port leaves on another in the same buffer: all sockets share one UMEM.
//! A packet larger than a frame is gathered into a run on receipt, out of frames that are free
//! again at once, and leaves frame by frame; the run comes back when the last of them does.
//! The free list has room for every frame of the region from the start, so nothing is allocated
//! later. Fill rings are kept as full as possible, but for a small reserve that
//! [`PacketIo::take_free`] may give away for hand-offs, and no port's ring takes more than its
//! share, so that a busy port cannot starve another.
//!
//! # System calls
//!
//! One kick for many packets: in copy mode `sendto` is where the sending happens, and its fixed
//! cost (the call, and code of the kernel's that has to come back into the caches) is shared. While
//! a receive ring fills whole batches, packets to send are gathered for `GATHER_TURNS`; as soon
//! as none does, everything is sent at once, so that a packet waits for another only when more are
//! there than the worker can handle, and never long. Receiving makes no call while packets keep
//! coming, unless the driver asks for one (need-wakeup).
//!
//! With busy polling ([`crate::gateway::Config::busy_poll`]) a worker never sleeps: where a port
//! has no packet, its driver is run by a call, and asked again.
//!
//! What this file does not do: it never waits for room (a batch that does not fit after a bounded
//! number of tries stays with the caller), and it does not look into packets.

use std::hint;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrayvec::ArrayVec;

use culvert_frame::BATCH;
use culvert_frame::Batch;
use culvert_frame::FreeFrame;
use culvert_frame::MAX_PORTS;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_frame::Region;

use crate::pool::Pool;
use crate::socket::Socket;
use crate::wake::Sleeper;
use crate::wake::Slept;
use crate::wake::Waker;

/// Most times one `send` fills the TX ring and kicks before it leaves the rest to the caller.
const SEND_ATTEMPTS: u32 = 4;

/// Turns whose packets are sent together while there is a backlog.
const GATHER_TURNS: u32 = 4;

/// Fewer missing frames than this do not start a refill, unless a ring is half empty.
const REFILL_BATCH: usize = 32;

/// Frames kept out of the fill rings, at most.
const MAX_RESERVE: usize = 4 * BATCH;

/// Longest sleep while packets wait to be sent or fill rings wait for frames being sent.
const IMPATIENT: Duration = Duration::from_millis(1);

/// What a worker's I/O did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Packets received.
    pub received: u64,
    /// Packets handed to the kernel to send.
    pub sent: u64,
    /// Packets that stayed with the caller of `send`, as the TX ring stayed full.
    pub not_accepted: u64,
    /// Packets shorter than an Ethernet header, which cannot be sent.
    pub unsendable: u64,
    /// Impossible descriptors from the kernel; each has lost a frame.
    pub bad_descriptors: u64,
    /// System calls that told the kernel to send.
    pub tx_kicks: u64,
    /// System calls that told a driver of new frames to receive into.
    pub rx_kicks: u64,
    /// System calls that ran a driver, with busy polling: to see whether there are packets.
    pub busy_polls: u64,
    /// System calls that waited for a packet or somebody's call: times the worker slept.
    pub polls: u64,
    /// System calls that took note of having been woken by another thread.
    pub wakes: u64,
    /// Received packets of several buffers that were dropped, as no run was free.
    pub no_run: u64,
    /// Received packets of several buffers that were dropped, as they were longer than a run holds.
    pub too_long: u64,
}

impl IoCounters {
    /// System calls made, of whatever kind.
    #[must_use]
    pub fn syscalls(&self) -> u64 {
        self.tx_kicks + self.rx_kicks + self.busy_polls + self.polls + self.wakes
    }
}

/// Where the frames (or the runs) of a worker are; the sum changes only by what its caller holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCount {
    /// On the free list.
    pub free: usize,
    /// In the fill and RX rings; a run: filled with the beginning of a packet.
    pub receiving: usize,
    /// In the TX and completion rings.
    pub sending: usize,
}

impl FrameCount {
    /// Frames held in any form.
    #[must_use]
    pub fn total(self) -> usize {
        self.free + self.receiving + self.sending
    }
}

/// Packet I/O of one worker over AF_XDP. Made by [`open`](crate::gateway::open), then moved to the
/// worker's thread.
#[derive(Debug)]
pub struct XdpIo {
    region: &'static Region,
    queues: ArrayVec<Socket, MAX_PORTS>,
    pool: Pool,
    reserve: usize,
    fill_target: usize,
    /// Ports whose last batch was full, a bit each: more packets wait there.
    backlog: u32,
    /// Turns since everything was sent.
    gathered: u32,
    sleeper: Sleeper,
    counters: IoCounters,
    published: Arc<PublishedCounters>,
}

impl XdpIo {
    /// I/O over one socket a port, in the order of the ports, with `frames` (and runs) to start
    /// with; fills the fill rings.
    pub(crate) fn new(
        region: &'static Region,
        queues: ArrayVec<Socket, MAX_PORTS>,
        frames: Vec<FreeFrame>,
        ring_size: usize,
        sleeper: Sleeper,
    ) -> XdpIo {
        let pool = Pool::new(region, frames);
        let reserve = MAX_RESERVE.min(pool.frames.len() / 4);
        let share = (pool.frames.len() - reserve) / queues.len().max(1);
        let mut io = XdpIo {
            region,
            queues,
            pool,
            reserve,
            fill_target: share.min(ring_size),
            backlog: 0,
            gathered: 0,
            sleeper,
            counters: IoCounters::default(),
            published: Arc::default(),
        };
        io.refill();
        io
    }

    /// Wakes this worker out of [`PacketIo::wait`], from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.sleeper.waker()
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> IoCounters {
        let mut counters = self.counters;
        for socket in &self.queues {
            let of_socket = socket.counters();
            counters.bad_descriptors += of_socket.bad_descriptors;
            counters.unsendable += of_socket.unsendable;
            counters.tx_kicks += of_socket.tx_kicks;
            counters.rx_kicks += of_socket.rx_kicks;
            counters.busy_polls += of_socket.busy_polls;
            counters.no_run += of_socket.no_run;
            counters.too_long += of_socket.too_long;
        }
        counters
    }

    /// Where the frames are, those in runs not counted.
    #[must_use]
    pub fn frames(&self) -> FrameCount {
        let sum = |of: fn(&Socket) -> u32| -> usize {
            self.queues.iter().map(|socket| of(socket) as usize).sum()
        };
        FrameCount {
            free: self.pool.frames.len(),
            receiving: sum(Socket::receiving),
            sending: sum(Socket::sending).saturating_sub(self.pool.sending().1),
        }
    }

    /// Where the runs are.
    #[must_use]
    pub fn runs(&self) -> FrameCount {
        FrameCount {
            free: self.pool.runs.len(),
            receiving: self.queues.iter().map(Socket::gathering).sum(),
            sending: self.pool.sending().0,
        }
    }

    /// Counters that other threads may read.
    pub(crate) fn published(&self) -> &Arc<PublishedCounters> {
        &self.published
    }

    /// Tops up the fill rings from the free list; when it cannot fill all of them, each port gets
    /// in proportion to what it misses.
    fn refill(&mut self) {
        let target = self.fill_target;
        let missing = |socket: &Socket| {
            let missing = target.saturating_sub(socket.receiving() as usize);
            let worth_it = missing >= REFILL_BATCH || missing > target / 2;
            if worth_it { missing } else { 0 }
        };
        let total: usize = self.queues.iter().map(missing).sum();
        let spare = self.pool.frames.len().saturating_sub(self.reserve).min(total);
        for socket in &mut self.queues {
            let share = missing(socket) * spare / total.max(1);
            if share > 0 {
                socket.refill(&mut self.pool, share);
            }
            socket.kick_rx();
        }
    }

    /// True when sleeping long would leave work undone that only this worker can do.
    fn is_impatient(&mut self) -> bool {
        let target = self.fill_target;
        self.queues.iter_mut().any(|socket| {
            let starving = socket.receiving() as usize <= target / 2;
            socket.sending() > 0 && (starving || socket.unsent() > 0)
        })
    }
}

impl PacketIo for XdpIo {
    fn recv(&mut self, port: Port, batch: &mut Batch) {
        let before = batch.len();
        let socket = &mut self.queues[usize::from(port.0)];
        socket.receive(batch, &mut self.pool);
        if batch.len() == before && socket.poll_driver() {
            socket.receive(batch, &mut self.pool);
        }
        self.counters.received += (batch.len() - before) as u64;
        let bit = 1 << port.0;
        self.backlog = if batch.is_full() { self.backlog | bit } else { self.backlog & !bit };
    }

    fn send(&mut self, port: Port, batch: &mut Batch) {
        if batch.is_empty() {
            return;
        }
        let socket = &mut self.queues[usize::from(port.0)];
        let (offered, in_frames) = (batch.len(), socket.counters().unsendable);
        for _ in 0..SEND_ATTEMPTS {
            socket.enqueue(batch, &mut self.pool);
            if self.backlog == 0 || !batch.is_empty() {
                socket.kick_tx(&mut self.pool);
            }
            if batch.is_empty() {
                break;
            }
            socket.reap(&mut self.pool);
        }
        let unsendable = socket.counters().unsendable - in_frames;
        self.counters.sent += (offered - batch.len()) as u64 - unsendable;
        self.counters.not_accepted += batch.len() as u64;
    }

    fn recycle(&mut self, frame: FreeFrame) {
        self.pool.put(frame);
    }

    fn take_free(&mut self) -> Option<FreeFrame> {
        self.pool.frames.pop()
    }

    fn take_run(&mut self) -> Option<FreeFrame> {
        self.pool.runs.pop()
    }

    fn service(&mut self) {
        self.gathered += 1;
        let is_due = self.backlog == 0 || self.gathered >= GATHER_TURNS;
        if is_due {
            self.gathered = 0;
        }
        for socket in self.queues.iter_mut().filter(|socket| socket.sending() > 0) {
            socket.reap(&mut self.pool);
            if is_due {
                socket.kick_tx(&mut self.pool);
            }
        }
        self.refill();
        self.published.store(&self.counters());
    }

    fn wait(&mut self, timeout: Duration, ready: &dyn Fn() -> bool) {
        if self.queues.iter().any(Socket::is_busy) {
            hint::spin_loop();
            return;
        }
        let timeout = if self.is_impatient() { timeout.min(IMPATIENT) } else { timeout };
        // Polling a socket also wakes its driver and sends what is left in its TX ring.
        let sockets = self.queues.iter().map(AsFd::as_fd);
        let slept = self.sleeper.sleep(sockets, timeout, ready);
        self.counters.polls += u64::from(slept != Slept::Not);
        self.counters.wakes += u64::from(slept == Slept::Woken);
    }
}

impl Drop for XdpIo {
    fn drop(&mut self) {
        self.queues.iter_mut().for_each(|socket| socket.kick_tx(&mut self.pool));
        self.pool.release(self.region);
    }
}

/// The counters as last published by the worker, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct PublishedCounters([AtomicU64; 12]);

impl PublishedCounters {
    fn store(&self, counters: &IoCounters) {
        let IoCounters {
            received,
            sent,
            not_accepted,
            unsendable,
            bad_descriptors,
            tx_kicks,
            rx_kicks,
            busy_polls,
            polls,
            wakes,
            no_run,
            too_long,
        } = *counters;
        let values = [
            received,
            sent,
            not_accepted,
            unsendable,
            bad_descriptors,
            tx_kicks,
            rx_kicks,
            busy_polls,
            polls,
            wakes,
            no_run,
            too_long,
        ];
        for (slot, value) in self.0.iter().zip(values) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// Each counter is exact; they may be of two neighbouring moments.
    pub(crate) fn load(&self) -> IoCounters {
        let [
            received,
            sent,
            not_accepted,
            unsendable,
            bad_descriptors,
            tx_kicks,
            rx_kicks,
            busy_polls,
            polls,
            wakes,
            no_run,
            too_long,
        ] = &self.0;
        let load = |slot: &AtomicU64| slot.load(Ordering::Relaxed);
        IoCounters {
            received: load(received),
            sent: load(sent),
            not_accepted: load(not_accepted),
            unsendable: load(unsendable),
            bad_descriptors: load(bad_descriptors),
            tx_kicks: load(tx_kicks),
            rx_kicks: load(rx_kicks),
            busy_polls: load(busy_polls),
            polls: load(polls),
            wakes: load(wakes),
            no_run: load(no_run),
            too_long: load(too_long),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::busy::BusyPoll;
    use crate::ring::Descriptor;
    use crate::ring::fake::ask_for_wakeups;
    use crate::socket::fake;
    use crate::socket::fake::Kernel;

    const PORTS: usize = 2;

    /// I/O of `frames` frames over two ports whose kernels are the test.
    fn rig(frames: usize, ring_size: u32) -> (XdpIo, Vec<Kernel>) {
        rig_with_runs(frames, 0, ring_size)
    }

    fn rig_with_runs(frames: usize, runs: usize, ring_size: u32) -> (XdpIo, Vec<Kernel>) {
        let (region, minted) = Region::leak_with_runs(frames, runs);
        let (mut queues, mut kernels) = (ArrayVec::new(), Vec::new());
        for port in 0..PORTS {
            let port = Port(u8::try_from(port).unwrap());
            let (socket, kernel) = fake::socket(region, port, ring_size);
            queues.push(socket);
            kernels.push(kernel);
        }
        let sleeper = Sleeper::new().unwrap();
        (XdpIo::new(region, queues, minted, ring_size as usize, sleeper), kernels)
    }

    /// The kernel receives at most `count` packets; returns how many.
    fn arrive(kernel: &mut Kernel, count: u32) -> u32 {
        let room = kernel.rx.room(count);
        let mut filled = Vec::new();
        kernel.fill.consume(room, |offset| filled.push(offset));
        let descriptors =
            filled.into_iter().map(|offset| Descriptor { addr: offset + 256, len: 60, options: 0 });
        kernel.rx.produce(descriptors)
    }

    /// The kernel receives a packet of `pieces` buffers, unless a ring has too little for it.
    fn arrive_in_pieces(kernel: &mut Kernel, pieces: u32) {
        if kernel.rx.room(pieces) < pieces {
            return;
        }
        let mut filled = Vec::new();
        kernel.fill.consume(pieces, |offset| filled.push(offset));
        let last = filled.len().saturating_sub(1);
        let descriptors = filled.into_iter().enumerate().map(|(piece, offset)| Descriptor {
            addr: offset + 256,
            len: 1792,
            options: if piece < last { libc::XDP_PKT_CONTD } else { 0 },
        });
        kernel.rx.produce(descriptors);
    }

    /// The kernel sends at most `count` packets.
    fn depart(kernel: &mut Kernel, count: u32) {
        let room = kernel.completion.room(count);
        let mut sent = Vec::new();
        kernel.tx.consume(room, |descriptor| sent.push(descriptor.addr));
        kernel.completion.produce(sent.into_iter());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(usize, u32),
        ArriveInPieces(usize, u32),
        Depart(usize, u32),
        Forward(usize),
        Drop(usize),
        TakeFree,
        Service,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let port = 0..PORTS;
        let step = prop_oneof![
            (port.clone(), 0..80_u32).prop_map(|(port, count)| Step::Arrive(port, count)),
            (port.clone(), 1..8_u32).prop_map(|(port, pieces)| Step::ArriveInPieces(port, pieces)),
            (port.clone(), 0..80_u32).prop_map(|(port, count)| Step::Depart(port, count)),
            port.clone().prop_map(Step::Forward),
            port.prop_map(Step::Drop),
            Just(Step::TakeFree),
            Just(Step::Service),
        ];
        proptest::collection::vec(step, 0..150)
    }

    fn port(index: usize) -> Port {
        Port(u8::try_from(index).unwrap())
    }

    proptest! {
        /// Whatever arrives, leaves, is dropped or borrowed, in any order: frames are conserved,
        /// none exists twice, and the rings give all of them back in the end. So are runs.
        #[test]
        fn frames_are_conserved(
            steps in steps(),
            frames in 320..700_usize,
            runs in 0..12_usize,
            bits in 6..8_u32,
        ) {
            let (mut io, mut kernels) = rig_with_runs(frames, runs, 1 << bits);
            let mut batch = Batch::new();
            let mut borrowed = Vec::new();
            for step in steps {
                match step {
                    Step::Arrive(port, count) => { arrive(&mut kernels[port], count); }
                    Step::ArriveInPieces(port, pieces) if runs > 0 => {
                        arrive_in_pieces(&mut kernels[port], pieces);
                    }
                    Step::ArriveInPieces(..) => {}
                    Step::Depart(port, count) => depart(&mut kernels[port], count),
                    Step::Forward(from) => {
                        io.recv(port(from), &mut batch);
                        io.send(port(PORTS - 1 - from), &mut batch);
                    }
                    Step::Drop(from) => {
                        io.recv(port(from), &mut batch);
                        batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
                    }
                    Step::TakeFree => borrowed.extend(io.take_free()),
                    Step::Service => io.service(),
                }
                let held_runs = batch.iter().filter(|packet| packet.is_run()).count();
                let held = batch.len() - held_runs + borrowed.len();
                prop_assert_eq!(io.frames().total() + held, frames);
                prop_assert_eq!(io.runs().total() + held_runs, runs);
                prop_assert!(io.pool.frames.capacity() >= frames, "no allocation later");
                prop_assert!(io.pool.runs.capacity() >= runs, "no allocation later");
            }
            batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
            borrowed.into_iter().for_each(|frame| io.recycle(frame));
            // Everything in the rings arrives or departs; each round empties some ring.
            for _ in 0..8 {
                for (from, kernel) in kernels.iter_mut().enumerate() {
                    arrive(kernel, u32::MAX);
                    depart(kernel, u32::MAX);
                    io.queues[from].reap(&mut io.pool);
                    while io.queues[from].receiving() > 0 {
                        io.recv(port(from), &mut batch);
                        if batch.is_empty() {
                            break;
                        }
                        batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
                    }
                }
            }
            prop_assert_eq!(io.frames(), FrameCount { free: frames, receiving: 0, sending: 0 });
            prop_assert_eq!(io.runs(), FrameCount { free: runs, receiving: 0, sending: 0 });
            let (region, free) = (io.region, io.pool.frames.drain(..));
            let free = free.chain(io.pool.runs.drain(..));
            let mut offsets: Vec<u64> = free.map(|frame| region.release_free(frame)).collect();
            offsets.sort_unstable();
            let minted = (0..frames as u64).map(|frame| frame * 2048);
            let behind = frames as u64 * 2048;
            let minted = minted.chain((0..runs as u64).map(|run| behind + run * 10240));
            prop_assert!(offsets.into_iter().eq(minted));
            prop_assert_eq!(io.counters().bad_descriptors, 0);
        }
    }

    /// A worker with frames to spare fills every ring; one without shares them fairly and keeps a
    /// reserve for hand-offs; frames that come back go where they are missing.
    #[test]
    fn fill_rings_share_the_frames() {
        let (io, _kernels) = rig(1024, 128);
        assert_eq!(io.frames(), FrameCount { free: 1024 - 256, receiving: 256, sending: 0 });
        let (mut io, mut kernels) = rig(320, 128);
        assert_eq!(io.frames(), FrameCount { free: 80, receiving: 240, sending: 0 });
        let received = arrive(&mut kernels[0], u32::MAX);
        assert_eq!(received, 120, "half of what can be spared");
        let mut batch = Batch::new();
        io.recv(Port(0), &mut batch);
        io.service();
        assert_eq!(io.frames().free, 80, "held packets leave less to refill with");
        batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
        io.service();
        assert_eq!((io.frames().free, io.frames().receiving), (80, 240));
        assert_eq!(io.queues[1].receiving(), 120);
    }

    /// A batch that finds no room stays with the caller, in order, and is counted.
    #[test]
    fn a_full_ring_leaves_the_batch() {
        let (mut io, mut kernels) = rig(512, 64);
        let mut batch = Batch::new();
        for number in 0..100_u8 {
            if batch.is_full() {
                io.send(Port(1), &mut batch);
            }
            let frame = io.take_free().unwrap();
            batch.push(frame.with_contents(Port(0), &[number; 60]).unwrap());
        }
        io.send(Port(1), &mut batch);
        assert_eq!((batch.len(), batch[0].data()[0]), (36, 64));
        assert_eq!((io.counters().sent, io.counters().not_accepted), (64, 36));
        depart(&mut kernels[1], 20);
        io.send(Port(1), &mut batch);
        assert_eq!((batch.len(), batch[0].data()[0]), (16, 84));
        batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
    }

    /// One turn of a forwarder from port 0 to port 1; the system calls made so far.
    fn turn(io: &mut XdpIo) -> u64 {
        let mut batch = Batch::new();
        io.service();
        io.recv(Port(0), &mut batch);
        io.send(Port(1), &mut batch);
        assert!(batch.is_empty());
        io.counters().syscalls()
    }

    /// While batches are full their packets are sent together, those of some turns with one call; a
    /// batch that is not full is sent at once, and what was gathered with it.
    #[test]
    fn a_backlog_is_sent_together() {
        let (mut io, mut kernels) = rig(2048, 1024);
        ask_for_wakeups(&kernels[1].tx);
        arrive(&mut kernels[0], 10);
        assert_eq!(turn(&mut io), 1, "no backlog");
        depart(&mut kernels[1], 10);
        arrive(&mut kernels[0], 64 * 9 + 7);
        let calls: Vec<u64> = (0..8).map(|_| turn(&mut io)).collect();
        assert_eq!(calls, [1, 1, 1, 1, 2, 2, 2, 2]);
        depart(&mut kernels[1], 7 * 64);
        assert_eq!(turn(&mut io), 3, "those of the eighth turn were left");
        assert_eq!(turn(&mut io), 4, "the rest is less than a batch");
        (0..2).for_each(|_| depart(&mut kernels[1], 1024));
        assert_eq!(turn(&mut io), 4, "nothing is left to send");
        assert_eq!(io.counters().sent, 10 + 64 * 9 + 7);
        assert_eq!(io.frames().sending, 0);
    }

    /// A backlog that ends with a full batch keeps nothing back either, whether there is another
    /// turn or not.
    #[test]
    fn nothing_is_kept_back() {
        let (mut io, mut kernels) = rig(512, 128);
        ask_for_wakeups(&kernels[1].tx);
        arrive(&mut kernels[0], 64);
        assert_eq!(turn(&mut io), 0, "more may wait");
        assert_eq!(turn(&mut io), 0, "there is no more");
        assert_eq!(turn(&mut io), 1);
    }

    /// With busy polling the driver of a port is run when the port has no packet, and only then,
    /// and a worker never sleeps.
    #[test]
    fn runs_the_driver_of_an_empty_port() {
        let (mut io, mut kernels) = rig(512, 128);
        io.queues[1].poll_busily(BusyPoll::Driver);
        let mut batch = Batch::new();
        let mut polls = |io: &mut XdpIo, from: u8| {
            io.recv(Port(from), &mut batch);
            batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
            (io.counters().received, io.counters().busy_polls)
        };
        assert_eq!(polls(&mut io, 1), (0, 1));
        assert_eq!(polls(&mut io, 0), (0, 1), "this port does not");
        arrive(&mut kernels[1], 70);
        assert_eq!(polls(&mut io, 1), (64, 1));
        assert_eq!(polls(&mut io, 1), (70, 1));
        assert_eq!(polls(&mut io, 1), (70, 2));
        io.wait(Duration::MAX, &|| false);
        assert_eq!((io.counters().polls, io.counters().syscalls()), (0, 2));
    }

    /// What is published is what is read, field by field.
    #[test]
    fn counters_survive_publishing() {
        let counters = IoCounters {
            received: 1,
            sent: 2,
            not_accepted: 3,
            unsendable: 4,
            bad_descriptors: 5,
            tx_kicks: 6,
            rx_kicks: 7,
            busy_polls: 8,
            polls: 9,
            wakes: 10,
            no_run: 11,
            too_long: 12,
        };
        let published = PublishedCounters::default();
        published.store(&counters);
        assert_eq!(published.load(), counters);
    }

    /// The I/O moves to its worker's thread.
    #[test]
    fn is_send() {
        fn assert_send<T: Send>() {}
        assert_send::<XdpIo>();
        assert_send::<Waker>();
    }
}
