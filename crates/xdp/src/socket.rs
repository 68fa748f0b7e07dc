//! One AF_XDP socket: registered memory, four rings, one queue of one interface.
//!
//! Tokens go in and tokens come out; descriptors exist only between the rings and this file. The
//! whole region is the UMEM. The first socket of a gateway registers it, all others bind with
//! `XDP_SHARED_UMEM`, so that a frame received by one socket can be sent by any other.
//!
//! # Why adopting frames here is sound
//!
//! A socket writes an offset to its fill or TX ring only by consuming a token, and the kernel
//! gives each offset back once: through the RX ring (fill) or the completion ring (TX). The kernel
//! is trusted in that, as it is trusted with the memory itself. It is not trusted, as a bug there
//! would become a wild pointer here, in the offsets and lengths: one that is no frame of the
//! region is counted (`bad_descriptors`), never becomes a token, and its frame is lost.
//!
//! A packet of several descriptors (`XDP_PKT_CONTD`) is gathered into a run on receipt, by copying,
//! and its frames are free at once. A packet in a run is sent as one descriptor for each frame, all
//! of them or none; the pool knows which the kernel still has, so a run is adopted once, after the
//! last of them ([`Pool`]).
//!
//! Frames in the kernel when a socket is closed are lost with it; the region is never unmapped, so
//! nothing dangles. The mode of `XDP_OPTIONS` (zero-copy or copy) is fixed by `bind`.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use culvert_frame::Batch;
use culvert_frame::FRAME_SIZE;
use culvert_frame::HEADROOM;
use culvert_frame::MAX_JUMBO_FRAME;
use culvert_frame::MAX_SINGLE_FRAME;
use culvert_frame::Packet;
use culvert_frame::Port;
use culvert_frame::Region;

use crate::busy::BusyPoll;
use crate::pool::Completed;
use crate::pool::Pool;
use crate::ring::Completion;
use crate::ring::Consumer;
use crate::ring::Descriptor;
use crate::ring::Fill;
use crate::ring::Layout;
use crate::ring::Mapping;
use crate::ring::Producer;
use crate::ring::Rx;
use crate::ring::Tx;

/// Socket option of Linux 6.17: frames that one `sendto` may send in copy mode (32 without it).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Kicks that achieve nothing before the rest is left to a later turn.
const MAX_FUTILE_KICKS: u32 = 8;

/// Shortest frame the kernel is given: an Ethernet header.
const MIN_FRAME: usize = 14;

#[expect(clippy::cast_possible_truncation, reason = "a frame is a few thousand bytes")]
const CHUNK_SIZE: u32 = FRAME_SIZE as u32;

#[expect(clippy::cast_possible_truncation, reason = "HEADROOM is smaller than a frame")]
const RUN_START: u16 = HEADROOM as u16;

#[expect(clippy::cast_possible_truncation, reason = "address families are small numbers")]
const FAMILY: u16 = libc::AF_XDP as u16;

/// How a socket that registers the UMEM binds; the sockets that share it follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindMode {
    /// Zero-copy where the driver can, else copy.
    Auto,
    /// Copy.
    Copy,
    /// Zero-copy, or an error.
    ZeroCopy,
}

/// What a socket is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) region: &'static Region,
    pub(crate) port: Port,
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    /// Slots of each ring, a power of two.
    pub(crate) ring_size: u32,
    /// Frames that one `sendto` may send in copy mode.
    pub(crate) tx_budget: u32,
    /// Used by the socket that registers the UMEM.
    pub(crate) mode: BindMode,
    /// Whether packets may take several descriptors; the same for all sockets.
    pub(crate) jumbo: bool,
}

/// The step that failed while a socket was made, and why.
#[derive(Debug)]
pub(crate) struct OpenError {
    pub(crate) step: &'static str,
    pub(crate) source: io::Error,
}

/// What the kernel counted for a socket (`XDP_STATISTICS`), in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelStatistics {
    /// Received frames dropped for other reasons than a full RX ring (too long for a frame).
    pub rx_dropped: u64,
    /// Impossible offsets in the fill ring.
    pub rx_invalid_descriptors: u64,
    /// Impossible descriptors in the TX ring.
    pub tx_invalid_descriptors: u64,
    /// Received frames dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Received frames dropped because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Times the kernel found the TX ring empty.
    pub tx_ring_empty: u64,
}

/// What a socket did, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketCounters {
    pub(crate) bad_descriptors: u64,
    pub(crate) unsendable: u64,
    pub(crate) tx_kicks: u64,
    pub(crate) rx_kicks: u64,
    pub(crate) busy_polls: u64,
    pub(crate) no_run: u64,
    pub(crate) too_long: u64,
}

/// A received packet of several descriptors, as far as it has come.
#[derive(Debug)]
enum Gathering {
    /// No packet has begun.
    Idle,
    /// So much of it is there.
    Into(Packet),
    /// It is dropped, and the rest of it with it.
    Dropping,
}

/// A bound socket and its rings.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    region: &'static Region,
    port: Port,
    zero_copy: bool,
    jumbo: bool,
    busy_poll: BusyPoll,
    gathering: Gathering,
    fill: Fill,
    completion: Completion,
    rx: Rx,
    tx: Tx,
    /// Frames given to the fill ring and not received yet.
    receiving: u32,
    /// Frames given to the TX ring and not completed yet.
    sending: u32,
    counters: SocketCounters,
}

impl Socket {
    /// Makes and binds a socket: the first of a region registers it as UMEM, every other shares it
    /// with `first` (and inherits its mode).
    pub(crate) fn open(options: &Options, first: Option<&Socket>) -> Result<Socket, OpenError> {
        let fd = socket().map_err(step("socket"))?;
        if first.is_none() {
            register(fd.as_fd(), options.region).map_err(step("XDP_UMEM_REG"))?;
        }
        let [fill, completion, rx, tx] = map_rings(fd.as_fd(), options.ring_size)?;
        // Kernels before 6.17 do not know it; the EAGAIN loop of `kick_tx` suffices there.
        if let Err(error) = set_option(fd.as_fd(), XDP_MAX_TX_SKB_BUDGET, &options.tx_budget) {
            tracing::debug!(%error, "XDP_MAX_TX_SKB_BUDGET not accepted");
        }
        bind(fd.as_fd(), options, first).map_err(step("bind"))?;
        let zero_copy = zero_copy(fd.as_fd()).map_err(step("XDP_OPTIONS"))?;
        // SAFETY: the rings of a fresh socket, each with one end here and the other in the kernel,
        // which follows the protocol. Why not safe: nobody can check the kernel.
        let rings = unsafe {
            (
                Producer::new(&fill.0, fill.1),
                Consumer::new(&completion.0, completion.1),
                Consumer::new(&rx.0, rx.1),
                Producer::new(&tx.0, tx.1),
            )
        };
        Ok(Socket {
            fd: Arc::new(fd),
            region: options.region,
            port: options.port,
            zero_copy,
            jumbo: options.jumbo,
            busy_poll: BusyPoll::Off,
            gathering: Gathering::Idle,
            fill: rings.0.map_err(step("fill ring"))?,
            completion: rings.1.map_err(step("completion ring"))?,
            rx: rings.2.map_err(step("RX ring"))?,
            tx: rings.3.map_err(step("TX ring"))?,
            receiving: 0,
            sending: 0,
            counters: SocketCounters::default(),
        })
    }

    /// The descriptor, for the XSKMAP and for statistics.
    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    pub(crate) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    pub(crate) fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// Frames in the fill ring, the RX ring, or between.
    pub(crate) fn receiving(&self) -> u32 {
        self.receiving
    }

    /// Frames in the TX ring, the completion ring, or between.
    pub(crate) fn sending(&self) -> u32 {
        self.sending
    }

    /// Appends received packets to `batch`, at most its spare capacity.
    pub(crate) fn receive(&mut self, batch: &mut Batch, pool: &mut Pool) {
        let Socket { region, port, jumbo, gathering, counters, .. } = self;
        let count = self.rx.consume(spare(batch), |descriptor: Descriptor| {
            // SAFETY: its frame went into the fill ring as a token, and the kernel returned it
            // through the RX ring (module text). Why not safe: nobody can check the kernel.
            let packet = unsafe { region.adopt_packet(descriptor.addr, descriptor.len, *port) };
            if *jumbo && gathering.concerns(&descriptor) {
                let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
                batch.extend(gathering.add((packet, more), *port, pool, counters));
                return;
            }
            match packet {
                Some(packet) => batch.push(packet),
                None => counters.bad_descriptors += 1,
            }
        });
        self.receiving = self.receiving.saturating_sub(count);
        if self.busy_poll == BusyPoll::Unknown && count > 0 {
            self.busy_poll = BusyPoll::learn(self.fd.as_fd());
        }
    }

    /// Has its driver polled from now on, or not.
    pub(crate) fn poll_busily(&mut self, busy_poll: BusyPoll) {
        self.busy_poll = busy_poll;
    }

    /// Whether its worker is to look for packets without a pause.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy_poll != BusyPoll::Off
    }

    /// Runs the driver, if this socket does that: packets that are there enter the RX ring.
    #[inline]
    pub(crate) fn poll_driver(&mut self) -> bool {
        let polls = self.busy_poll == BusyPoll::Driver;
        if polls {
            self.counters.busy_polls += 1;
            self.recvfrom();
        }
        polls
    }

    /// Packets of which only the beginning was received: one or none, and it is in a run.
    pub(crate) fn gathering(&self) -> usize {
        usize::from(matches!(self.gathering, Gathering::Into(_)))
    }

    /// Moves at most `max` frames from the pool to the fill ring.
    pub(crate) fn refill(&mut self, pool: &mut Pool, max: usize) {
        let (region, free) = (self.region, &mut pool.frames);
        let want = u32::try_from(free.len().min(max)).unwrap_or(u32::MAX);
        let room = self.fill.room(want) as usize;
        let frames = free.drain(free.len() - room..);
        self.receiving += self.fill.produce(frames.map(|frame| region.release_free(frame)));
    }

    /// Wakes the driver when it waits for frames to receive into.
    pub(crate) fn kick_rx(&mut self) {
        if !self.fill.needs_wakeup() {
            return;
        }
        self.counters.rx_kicks += 1;
        self.recvfrom();
    }

    /// Lets the driver look at the rings. Errors (an interface that is down) leave what is to be
    /// done to the next turn, which tries again.
    fn recvfrom(&self) {
        // SAFETY: no buffer is passed. Why not safe: a null buffer is how the kernel spells "just
        // look at the rings", and no safe wrapper can pass it.
        unsafe {
            let fd = self.fd.as_raw_fd();
            let null = ptr::null_mut();
            libc::recvfrom(fd, null, 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut());
        }
    }

    /// Moves packets from the front of `batch` to the TX ring, as many as fit. Packets that are no
    /// Ethernet frame would be lost in the kernel; they are counted and go to the pool.
    pub(crate) fn enqueue(&mut self, batch: &mut Batch, pool: &mut Pool) {
        if self.jumbo && batch.iter().any(Packet::is_run) {
            return self.enqueue_parts(batch, pool);
        }
        let (region, counters) = (self.region, &mut self.counters);
        let want = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = self.tx.room(want) as usize;
        let descriptors = batch.drain(..room).filter_map(|packet: Packet| {
            if packet.len() < MIN_FRAME {
                counters.unsendable += 1;
                pool.put(packet.into_free());
                return None;
            }
            let (addr, len) = region.release_packet(packet);
            Some(Descriptor { addr, len, options: 0 })
        });
        self.sending += self.tx.produce(descriptors);
    }

    /// [`enqueue`](Self::enqueue) for a batch with packets in runs: each takes as many slots as it
    /// has parts, all or none.
    #[cold]
    fn enqueue_parts(&mut self, batch: &mut Batch, pool: &mut Pool) {
        let (region, counters) = (self.region, &mut self.counters);
        let want: usize = batch.iter().map(Packet::parts).sum();
        let room = self.tx.room(u32::try_from(want).unwrap_or(u32::MAX)) as usize;
        let mut taken = 0;
        let fits = |packet: &&Packet| {
            taken += packet.parts();
            taken <= room
        };
        let count = batch.iter().take_while(fits).count();
        let parts = batch.drain(..count).filter_map(|packet: Packet| {
            if packet.len() < MIN_FRAME {
                counters.unsendable += 1;
                pool.put(packet.into_free());
                return None;
            }
            let count = packet.parts();
            let parts = region.release_parts(packet);
            if let Some(at) = region.run_at(parts.offset()) {
                pool.begin(at, count);
            }
            Some(parts)
        });
        let descriptors = parts.flatten().map(|part| Descriptor {
            addr: part.offset,
            len: part.len,
            options: if part.more { libc::XDP_PKT_CONTD } else { 0 },
        });
        self.sending += self.tx.produce(descriptors);
    }

    /// Tells the kernel to send, until it took everything or cannot take more now. What it leaves
    /// stays in the TX ring; the next kick continues there.
    ///
    /// In copy mode one call sends a limited number of frames and then fails with EAGAIN (also when
    /// the completion ring is full), and with EBUSY when the device dropped one: each time the call
    /// is repeated while it makes progress. In zero-copy mode the driver takes them by itself, one
    /// call wakes it.
    pub(crate) fn kick_tx(&mut self, pool: &mut Pool) {
        // The driver raises need-wakeup, then looks at the ring once more; this side publishes the
        // packets, then looks at need-wakeup. The fence keeps the two from missing each other.
        fence(Ordering::SeqCst);
        let mut futile = 0;
        let mut pending = self.tx.pending();
        while pending > 0 && futile < MAX_FUTILE_KICKS && self.tx.needs_wakeup() {
            self.counters.tx_kicks += 1;
            let result = self.sendto();
            match result.map_err(|error| error.raw_os_error()) {
                Ok(()) if self.zero_copy => return,
                Ok(()) | Err(Some(libc::EAGAIN | libc::EBUSY)) => {}
                // ENOBUFS, ENOMEM: no memory now. ENETDOWN, ENXIO: no interface now.
                Err(_) => return,
            }
            let left = self.tx.pending();
            futile = if left < pending { 0 } else { futile + 1 };
            pending = left;
            if pending > 0 {
                self.reap(pool);
            }
        }
    }

    /// Moves frames that were sent to the pool.
    pub(crate) fn reap(&mut self, pool: &mut Pool) {
        let region = self.region;
        let mut bad = 0;
        let count = self.completion.consume(u32::MAX, |offset| {
            // SAFETY: its frame went into the TX ring as a token, and the kernel returned it
            // through the completion ring (module text). Why not safe: as in `receive`.
            match unsafe { region.adopt_free(offset) } {
                Some(frame) => pool.frames.push(frame),
                None => bad += u64::from(!complete_part(region, offset, pool)),
            }
        });
        self.counters.bad_descriptors += bad;
        self.sending = self.sending.saturating_sub(count);
    }

    /// Packets in the TX ring that the kernel has not taken.
    pub(crate) fn unsent(&mut self) -> u32 {
        self.tx.pending()
    }

    fn sendto(&self) -> io::Result<()> {
        // SAFETY: no buffer and no address are passed. Why not safe: as in `recvfrom`.
        let result = unsafe {
            let fd = self.fd.as_raw_fd();
            libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Gathering {
    /// True for a descriptor that is not a whole packet, or one with little room behind it.
    #[inline]
    fn concerns(&self, descriptor: &Descriptor) -> bool {
        descriptor.options & libc::XDP_PKT_CONTD != 0
            || descriptor.len as usize > MAX_SINGLE_FRAME
            || !matches!(self, Gathering::Idle)
    }

    /// Adds what one descriptor named, `None` when that was impossible, and whether more of the
    /// packet follows; returns the packet when it is complete. Its frame goes to the pool.
    #[cold]
    fn add(
        &mut self,
        (piece, more): (Option<Packet>, bool),
        port: Port,
        pool: &mut Pool,
        counters: &mut SocketCounters,
    ) -> Option<Packet> {
        let whole = match (std::mem::replace(self, Gathering::Dropping), &piece) {
            (Gathering::Into(packet), _) => Some(packet),
            (Gathering::Dropping, _) | (Gathering::Idle, None) => None,
            (Gathering::Idle, Some(_)) => match pool.runs.pop() {
                Some(run) => Some(run.into_packet(RUN_START, 0, port)),
                // It stays where it is, with less room behind it.
                None if !more => {
                    *self = Gathering::Idle;
                    return piece;
                }
                None => {
                    counters.no_run += 1;
                    None
                }
            },
        };
        let whole = whole.and_then(|packet| extend(packet, piece.as_ref(), pool, counters));
        match piece {
            Some(piece) => pool.put(piece.into_free()),
            None => counters.bad_descriptors += 1,
        }
        *self = match (whole, more) {
            (Some(packet), true) => Gathering::Into(packet),
            (None, true) => Gathering::Dropping,
            (whole, false) => {
                *self = Gathering::Idle;
                return whole;
            }
        };
        None
    }
}

/// Copies a piece behind `whole`. Without a piece, or when it is too much, the run goes back to the
/// pool.
fn extend(
    mut whole: Packet,
    piece: Option<&Packet>,
    pool: &mut Pool,
    counters: &mut SocketCounters,
) -> Option<Packet> {
    if let Some(piece) = piece
        && whole.len() + piece.len() <= MAX_JUMBO_FRAME
        && let Some(room) = whole.append(piece.len())
    {
        room.copy_from_slice(piece.data());
        return Some(whole);
    }
    counters.too_long += u64::from(piece.is_some());
    pool.put(whole.into_free());
    None
}

/// Takes in the completion of an offset that is in no frame of its own; false when it is in no run
/// that is being sent either.
#[cold]
fn complete_part(region: &Region, offset: u64, pool: &mut Pool) -> bool {
    match region.run_at(offset).map_or(Completed::Impossible, |at| pool.complete(at)) {
        Completed::Part => true,
        Completed::Run(run) => {
            // SAFETY: it went into the TX ring as a token, and the kernel has returned each of its
            // parts (module text). Why not safe: as in `receive`.
            let run = unsafe { region.adopt_run(run) };
            pool.runs.extend(run);
            true
        }
        Completed::Impossible => false,
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Gathering::Into(packet) = std::mem::replace(&mut self.gathering, Gathering::Idle) {
            let _ = self.region.release_packet(packet);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads the kernel's statistics of the socket `fd`.
pub(crate) fn kernel_statistics(fd: BorrowedFd<'_>) -> io::Result<KernelStatistics> {
    let mut raw = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    option(fd, libc::XDP_STATISTICS, &mut raw)?;
    Ok(KernelStatistics {
        rx_dropped: raw.rx_dropped,
        rx_invalid_descriptors: raw.rx_invalid_descs,
        tx_invalid_descriptors: raw.tx_invalid_descs,
        rx_ring_full: raw.rx_ring_full,
        fill_ring_empty: raw.rx_fill_ring_empty_descs,
        tx_ring_empty: raw.tx_ring_empty_descs,
    })
}

/// Names the step of an error.
pub(crate) fn step(step: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError { step, source }
}

fn spare(batch: &Batch) -> u32 {
    u32::try_from(batch.remaining_capacity()).unwrap_or(u32::MAX)
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed. Why not safe: nix has no AF_XDP address family.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns. Why not safe: numbers are not owners.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn register(fd: BorrowedFd<'_>, region: &'static Region) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: region.base() as u64,
        len: region.len() as u64,
        chunk_size: CHUNK_SIZE,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::XDP_UMEM_REG, &registration)
}

type MappedRing = (Arc<Mapping>, Layout);

/// Sizes and maps the fill, completion, RX and TX rings, in this order.
fn map_rings(fd: BorrowedFd<'_>, capacity: u32) -> Result<[MappedRing; 4], OpenError> {
    for (name, what) in [
        (libc::XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING"),
        (libc::XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING"),
        (libc::XDP_RX_RING, "XDP_RX_RING"),
        (libc::XDP_TX_RING, "XDP_TX_RING"),
    ] {
        set_option(fd, name, &capacity).map_err(step(what))?;
    }
    let zero = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut at = libc::xdp_mmap_offsets { rx: zero, tx: zero, fr: zero, cr: zero };
    option(fd, libc::XDP_MMAP_OFFSETS, &mut at).map_err(step("XDP_MMAP_OFFSETS"))?;
    let map = |page: u64, parts: libc::xdp_ring_offset, slot: usize| {
        map_ring(fd, page, parts, slot, capacity).map_err(step("mmap of a ring"))
    };
    let descriptor = size_of::<Descriptor>();
    Ok([
        map(libc::XDP_UMEM_PGOFF_FILL_RING, at.fr, size_of::<u64>())?,
        map(libc::XDP_UMEM_PGOFF_COMPLETION_RING, at.cr, size_of::<u64>())?,
        map(const { libc::XDP_PGOFF_RX_RING as u64 }, at.rx, descriptor)?,
        map(const { libc::XDP_PGOFF_TX_RING as u64 }, at.tx, descriptor)?,
    ])
}

fn map_ring(
    fd: BorrowedFd<'_>,
    page: u64,
    parts: libc::xdp_ring_offset,
    slot: usize,
    capacity: u32,
) -> io::Result<MappedRing> {
    let number = |value: u64| usize::try_from(value).map_err(io::Error::other);
    let layout = Layout {
        producer: number(parts.producer)?,
        consumer: number(parts.consumer)?,
        flags: number(parts.flags)?,
        slots: number(parts.desc)?,
        capacity,
    };
    let page = libc::off_t::try_from(page).map_err(io::Error::other)?;
    let len = layout.slots + capacity as usize * slot;
    Ok((Arc::new(Mapping::of_socket(fd, page, len)?), layout))
}

fn bind(fd: BorrowedFd<'_>, options: &Options, first: Option<&Socket>) -> io::Result<()> {
    let mode = match options.mode {
        BindMode::Auto => 0,
        BindMode::Copy => libc::XDP_COPY,
        BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    let mode = if options.jumbo { mode | libc::XDP_USE_SG } else { mode };
    let (flags, shared) = match first {
        // Flags of a shared UMEM are those of its first socket; naming them again is an error.
        Some(first) => (libc::XDP_SHARED_UMEM, first.fd.as_raw_fd()),
        None => (libc::XDP_USE_NEED_WAKEUP | mode, 0),
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: FAMILY,
        sxdp_flags: flags,
        sxdp_ifindex: options.ifindex,
        sxdp_queue_id: options.queue,
        sxdp_shared_umem_fd: u32::try_from(shared).map_err(io::Error::other)?,
    };
    let len = length_of::<libc::sockaddr_xdp>();
    // SAFETY: the address is a live sockaddr_xdp of the length given. Why not safe: nix has no
    // such address.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    option(fd, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// A plain structure of numbers of the AF_XDP interface.
///
/// # Safety
/// Any bits are valid, and there is no padding that the kernel would be shown.
pub(crate) unsafe trait Plain {}

// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: numbers, no padding.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: numbers, no padding.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: numbers, no padding.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: a number.
unsafe impl Plain for libc::xdp_options {}

/// Length of an argument of a system call.
#[expect(clippy::cast_possible_truncation, reason = "arguments are a few dozen bytes")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn set_option<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    set(fd, libc::SOL_XDP, name, value)
}

/// Sets an option of any level.
pub(crate) fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = length_of::<T>();
    let value: *const T = value;
    // SAFETY: `value` is live and of length `len`. Why not safe: nix has no options of AF_XDP.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn option<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int, value: &mut T) -> io::Result<()> {
    get(fd, libc::SOL_XDP, name, value)
}

/// Reads an option of any level.
pub(crate) fn get<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut T,
) -> io::Result<()> {
    let mut len = length_of::<T>();
    let value: *mut T = value;
    // SAFETY: `value` is live, `len` its length, and any bits written are valid for `T`.
    // Why not safe: nix has no options of AF_XDP.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.cast(), &mut len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket whose kernel is a test.
#[cfg(test)]
pub(crate) mod fake {
    use std::fs::File;

    use super::*;
    use crate::ring::fake::pair;

    /// The other ends of a socket's rings.
    pub(crate) struct Kernel {
        pub(crate) fill: Consumer<u64>,
        pub(crate) completion: Producer<u64>,
        pub(crate) rx: Producer<Descriptor>,
        pub(crate) tx: Consumer<Descriptor>,
    }

    /// A socket over plain memory, and its kernel. System calls on it fail.
    pub(crate) fn socket(region: &'static Region, port: Port, ring_size: u32) -> (Socket, Kernel) {
        let jumbo = region.runs() > 0;
        let (fill, kernel_fill) = pair(ring_size);
        let (kernel_completion, completion) = pair(ring_size);
        let (kernel_rx, rx) = pair(ring_size);
        let (tx, kernel_tx) = pair(ring_size);
        let kernel = Kernel {
            fill: kernel_fill,
            completion: kernel_completion,
            rx: kernel_rx,
            tx: kernel_tx,
        };
        let socket = Socket {
            fd: Arc::new(File::open("/dev/null").unwrap().into()),
            region,
            port,
            zero_copy: false,
            jumbo,
            busy_poll: BusyPoll::Off,
            gathering: Gathering::Idle,
            fill,
            completion,
            rx,
            tx,
            receiving: 0,
            sending: 0,
            counters: SocketCounters::default(),
        };
        (socket, kernel)
    }
}

#[cfg(test)]
mod tests {
    use culvert_frame::BATCH;
    use culvert_frame::FreeFrame;
    use culvert_frame::RUN_SIZE;

    use super::fake::Kernel;
    use super::*;

    fn descriptor(addr: u64, len: u32) -> Descriptor {
        Descriptor { addr, len, options: 0 }
    }

    fn release(region: &Region, free: Vec<FreeFrame>) {
        free.into_iter().for_each(|frame| _ = region.release_free(frame));
    }

    fn pool(frames: usize, runs: usize) -> (&'static Region, Pool) {
        let (region, minted) = Region::leak_with_runs(frames, runs);
        (region, Pool::new(region, minted))
    }

    /// Impossible descriptors of received packets are counted and skipped; those between them
    /// arrive.
    #[test]
    fn impossible_received_descriptors_are_counted() {
        let (region, mut free) = pool(4, 0);
        let (mut socket, mut kernel) = fake::socket(region, Port(2), 8);
        socket.refill(&mut free, 4);
        let mut given = Vec::new();
        kernel.fill.consume(8, |offset| given.push(offset));
        let good = [descriptor(given[0] + 256, 60), descriptor(given[1] + 300, 1748)];
        let bad = [
            descriptor(region.len() as u64, 60),
            descriptor(u64::MAX, 60),
            descriptor(given[2] + 256, 1793),
            descriptor(given[3], u32::MAX),
        ];
        kernel.rx.produce([bad[0], good[0], bad[1], bad[2], good[1], bad[3]].into_iter());
        let mut batch = Batch::new();
        socket.receive(&mut batch, &mut free);
        assert_eq!(batch.iter().map(Packet::len).collect::<Vec<_>>(), [60, 1748]);
        assert!(batch.iter().all(|packet| packet.port() == Port(2)));
        assert_eq!(socket.counters().bad_descriptors, 4);
        release(region, batch.into_iter().map(Packet::into_free).collect());
        free.release(region);
    }

    /// Impossible offsets of sent frames are counted and skipped.
    #[test]
    fn impossible_completions_are_counted() {
        let (region, mut free) = pool(2, 0);
        let (mut socket, mut kernel) = fake::socket(region, Port(0), 8);
        let mut batch = Batch::new();
        batch.push(free.frames.pop().unwrap().with_contents(Port(0), &[1; 60]).unwrap());
        socket.enqueue(&mut batch, &mut free);
        assert_eq!((socket.sending(), free.frames.len()), (1, 1));
        let mut sent = Vec::new();
        kernel.tx.consume(8, |descriptor| sent.push((descriptor.addr, descriptor.len)));
        assert_eq!(sent, [(2048 + 256, 60)]);
        kernel.completion.produce([4096, sent[0].0, u64::MAX].into_iter());
        socket.reap(&mut free);
        assert_eq!((free.frames.len(), socket.counters().bad_descriptors), (2, 2));
        assert_eq!(socket.sending(), 0);
        free.release(region);
    }

    /// Packets that are no Ethernet frame never reach the kernel, wherever they stand in a batch.
    #[test]
    fn runts_are_recycled() {
        let (region, mut free) = pool(5, 0);
        let (mut socket, mut kernel) = fake::socket(region, Port(0), 4);
        let mut batch = Batch::new();
        for len in [13, 14, 0, 60, 1] {
            let frame = free.frames.pop().unwrap();
            batch.push(frame.with_contents(Port(0), &[0; 60][..len]).unwrap());
        }
        socket.enqueue(&mut batch, &mut free);
        assert_eq!((batch.len(), free.frames.len()), (1, 2), "four slots were looked for");
        socket.enqueue(&mut batch, &mut free);
        assert_eq!((batch.len(), free.frames.len(), socket.counters().unsendable), (0, 3, 3));
        let mut lengths = Vec::new();
        kernel.tx.consume(8, |descriptor| lengths.push(descriptor.len));
        assert_eq!(lengths, [14, 60]);
        free.release(region);
    }

    /// Chains of `lengths` in frames the kernel was given, each filled with its number.
    fn chain(given: &mut Vec<u64>, region: &Region, lengths: &[u32]) -> Vec<Descriptor> {
        let last = lengths.len() - 1;
        let piece = |(number, &len): (usize, &u32)| {
            let addr = given.pop().unwrap() + 256;
            let at = region.base().wrapping_add(usize::try_from(addr).unwrap());
            // SAFETY: the test is the kernel, which owns the frame.
            unsafe { at.write_bytes(u8::try_from(number).unwrap(), len as usize) };
            let options = if number < last { libc::XDP_PKT_CONTD } else { 0 };
            Descriptor { addr, len, options }
        };
        lengths.iter().enumerate().map(piece).collect()
    }

    /// A socket whose kernel was given all frames, and their offsets.
    fn given(frames: usize, runs: usize) -> (&'static Region, Pool, Socket, Kernel, Vec<u64>) {
        let (region, mut pool) = pool(frames, runs);
        let (mut socket, mut kernel) = fake::socket(region, Port(1), 64);
        socket.refill(&mut pool, frames);
        let mut given = Vec::new();
        kernel.fill.consume(64, |offset| given.push(offset));
        (region, pool, socket, kernel, given)
    }

    /// Packets of several descriptors come out whole and in order among others, each in a run with
    /// the usual room in front, also when only part of their descriptors is read at a time; their
    /// frames are free at once.
    #[test]
    fn chains_are_gathered() {
        let (region, mut pool, mut socket, mut kernel, mut given) = given(24, 3);
        let whole = [1792, 1792, 1792, 1792, 1792, 54];
        for lengths in [&[60][..], &whole, &[1518], &[1792, 1], &[1537]] {
            kernel.rx.produce(chain(&mut given, region, lengths).into_iter());
        }
        let mut batch = Batch::new();
        for _ in 0..BATCH - 3 {
            batch.push(FreeFrame::into_packet(stray(), 0, 0, Port(0)));
        }
        socket.receive(&mut batch, &mut pool);
        assert_eq!((batch.len(), socket.gathering()), (BATCH - 2, 1), "two pieces of six");
        batch.drain(..BATCH - 3).for_each(std::mem::forget);
        socket.receive(&mut batch, &mut pool);
        let lengths: Vec<usize> = batch.iter().map(Packet::len).collect();
        assert_eq!(lengths, [60, 9014, 1518, 1793, 1537]);
        let runs: Vec<bool> = batch.iter().map(Packet::is_run).collect();
        assert_eq!(runs, [false, true, false, true, true]);
        assert!(batch.iter().all(|packet| packet.headroom() == 256 && packet.port() == Port(1)));
        let pieces = (0_u8..).zip(whole).flat_map(|(number, len)| vec![number; len as usize]);
        assert!(batch[1].data().iter().copied().eq(pieces));
        assert_eq!((pool.frames.len(), pool.runs.len(), socket.gathering()), (9, 0, 0));
        assert_eq!((socket.receiving(), socket.counters().no_run), (24 - 11, 0));
        batch.drain(..).for_each(|packet| pool.put(packet.into_free()));
        assert_eq!((pool.frames.len(), pool.runs.len()), (11, 3));
        pool.release(region);
    }

    fn stray() -> FreeFrame {
        Region::leak(1).1.pop().unwrap()
    }

    /// Without a free run a chain is dropped and counted, all of it and nothing else, and a packet
    /// that is one descriptor stays in its frame; what is longer than a run, or has an impossible
    /// piece, is dropped as well. No frame and no run is lost.
    #[test]
    fn chains_that_cannot_be_gathered_are_counted() {
        let (region, mut pool, mut socket, mut kernel, mut given) = given(40, 1);
        let run = pool.runs.pop().unwrap();
        for lengths in [&[1792, 1792, 500][..], &[1600], &[60]] {
            kernel.rx.produce(chain(&mut given, region, lengths).into_iter());
        }
        let mut batch = Batch::new();
        socket.receive(&mut batch, &mut pool);
        assert_eq!(batch.iter().map(Packet::len).collect::<Vec<_>>(), [1600, 60]);
        assert!(!batch[0].is_run());
        assert_eq!((socket.counters().no_run, pool.frames.len()), (1, 3));
        batch.drain(..).for_each(|packet| pool.put(packet.into_free()));
        pool.put(run);

        let most = [1792, 1792, 1792, 1792, 1792, 1003];
        let more = [1792, 1792, 1792, 1792, 1792, 1004];
        let beyond = [1792; 8];
        for lengths in [&more[..], &beyond, &most] {
            kernel.rx.produce(chain(&mut given, region, lengths).into_iter());
        }
        let mut wrong = chain(&mut given, region, &[1792, 1792, 9]);
        wrong[1].addr = u64::MAX;
        socket.receive(&mut batch, &mut pool);
        assert_eq!(batch.iter().map(Packet::len).collect::<Vec<_>>(), [9963]);
        assert_eq!((socket.counters().too_long, pool.frames.len()), (2, 5 + 20));
        batch.drain(..).for_each(|packet| pool.put(packet.into_free()));
        kernel.rx.produce(wrong.into_iter());
        kernel.rx.produce(chain(&mut given, region, &[70]).into_iter());
        socket.receive(&mut batch, &mut pool);
        assert_eq!(batch.iter().map(Packet::len).collect::<Vec<_>>(), [70]);
        assert_eq!(socket.counters().bad_descriptors, 1);
        batch.drain(..).for_each(|packet| pool.put(packet.into_free()));
        assert_eq!((pool.frames.len(), pool.runs.len()), (28, 1));
        assert_eq!(socket.receiving(), 40 - 29);
        pool.release(region);
    }

    /// A packet in a run leaves as a chain that the kernel can check: no part crosses a frame, and
    /// all but the last say that more follows. All of it enters the ring or nothing, in order, and
    /// the run is free when the kernel has given every part back.
    #[test]
    fn runs_leave_as_chains() {
        let (region, mut pool) = pool(4, 2);
        let (mut socket, mut kernel) = fake::socket(region, Port(0), 8);
        let mut batch = Batch::new();
        let mut push = |pool: &mut Pool, len: usize| {
            let frame = if len > 2000 { pool.runs.pop() } else { pool.frames.pop() };
            batch.push(frame.unwrap().with_contents(Port(0), &vec![5; len]).unwrap());
        };
        [100, 9000, 3000, 60, 13].into_iter().for_each(|len| push(&mut pool, len));
        socket.enqueue(&mut batch, &mut pool);
        assert_eq!(batch.iter().map(Packet::len).collect::<Vec<_>>(), [60, 13], "8 slots");
        assert_eq!((socket.sending(), pool.sending()), (8, (2, 7)));
        let mut sent: Vec<Descriptor> = Vec::new();
        kernel.tx.consume(8, |descriptor| sent.push(descriptor));
        let more = libc::XDP_PKT_CONTD;
        let shape: Vec<_> = sent.iter().map(|part| (part.len, part.options)).collect();
        let first = [(100, 0)];
        let second = [(1792, more), (2048, more), (2048, more), (2048, more), (1064, 0)];
        assert_eq!(shape, [&first[..], &second, &[(1792, more), (1208, 0)]].concat());
        for part in &sent {
            assert_eq!(part.addr / 2048, (part.addr + u64::from(part.len) - 1) / 2048);
        }
        let region_end = (4 * 2048 + 2 * RUN_SIZE) as u64;
        assert!(sent.iter().all(|part| part.addr + u64::from(part.len) <= region_end));
        let offsets = |range: std::ops::Range<usize>| sent[range].iter().map(|part| part.addr);
        kernel.completion.produce(offsets(0..5));
        socket.reap(&mut pool);
        assert_eq!((pool.runs.len(), pool.sending()), (0, (2, 3)));
        kernel.completion.produce(offsets(5..7));
        socket.reap(&mut pool);
        assert_eq!((pool.runs.len(), pool.sending()), (1, (1, 1)));
        assert_eq!(kernel.completion.room(8), 8);
        kernel.completion.produce(offsets(6..8));
        socket.reap(&mut pool);
        assert_eq!((pool.runs.len(), pool.sending()), (2, (0, 0)));
        assert_eq!(socket.counters().bad_descriptors, 1, "one part came twice");
        socket.enqueue(&mut batch, &mut pool);
        assert_eq!((batch.len(), socket.counters().unsendable), (0, 1));
        kernel.tx.consume(8, |descriptor| sent.push(descriptor));
        kernel.completion.produce([sent.last().unwrap().addr].into_iter());
        socket.reap(&mut pool);
        assert_eq!((pool.frames.len(), pool.runs.len()), (4, 2));
        pool.release(region);
    }
}
