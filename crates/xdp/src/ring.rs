//! The four rings of an AF_XDP socket, as typed producers and consumers over shared memory.
//!
//! A ring is an array of `capacity` slots (a power of two) and two free-running 32-bit indices. The
//! producer writes slots and then its index; the consumer reads slots and then writes its own. We
//! produce into the fill and TX rings and consume from the completion and RX rings; the kernel
//! holds the other end of each.
//!
//! # Why the unsafe code here is sound
//!
//! - `Ring::new` checks that indices, flags and slots lie inside the mapping and are aligned; the
//!   mapping lives as long as the ring (`Arc<Mapping>`).
//! - A slot belongs to the producer from the moment the consumer's index has passed it until the
//!   producer's index has, and to the consumer otherwise. The index stores release and the index
//!   loads acquire, so slot contents are ordered by them. There is one producer and one consumer a
//!   ring (the contract of `new`), and slots are plain numbers, valid for any bits.
//! - An index from the other side that claims more than the ring holds is not believed: it counts
//!   as "nothing there".
//!
//! Each batch costs one acquire load at most (none while the cached copy suffices) and one release
//! store. What the descriptors mean, and whether they are possible, is `socket`'s business.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// Slot of the RX and TX rings: offset into the UMEM, length, options.
pub(crate) type Descriptor = libc::xdp_desc;

/// Offsets of frames the kernel may receive into.
pub(crate) type Fill = Producer<u64>;

/// Offsets of frames that were sent.
pub(crate) type Completion = Consumer<u64>;

/// Received packets.
pub(crate) type Rx = Consumer<Descriptor>;

/// Packets to send.
pub(crate) type Tx = Producer<Descriptor>;

/// Where the parts of a ring lie in its mapping, in bytes, and how many slots it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    pub(crate) flags: usize,
    pub(crate) slots: usize,
    pub(crate) capacity: u32,
}

/// Shared memory, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; access goes through rings, which have their own argument.
// Why not safe: `NonNull` is neither `Send` nor `Sync`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a socket's ring at the page offset that names the ring.
    pub(crate) fn of_socket(
        socket: BorrowedFd<'_>,
        offset: libc::off_t,
        len: usize,
    ) -> io::Result<Mapping> {
        Mapping::map(libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset, len)
    }

    /// Maps `len` zeroed bytes of anonymous memory, to run a ring without a kernel behind it.
    #[cfg(test)]
    pub(crate) fn anonymous(len: usize) -> io::Result<Mapping> {
        Mapping::map(libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0, len)
    }

    fn map(
        flags: libc::c_int,
        fd: libc::c_int,
        at: libc::off_t,
        len: usize,
    ) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is requested, so no existing mapping is touched. Why not safe: the
        // rings are the kernel's memory, and mmap is the only way to them.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd, at) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapping { base, len })
    }

    /// Pointer to `count` values of `T` at `offset`, when they lie inside and are aligned.
    fn at<T>(&self, offset: usize, count: usize) -> io::Result<NonNull<T>> {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        let inside = end.is_some_and(|end| end <= self.len);
        if !inside || !offset.is_multiple_of(align_of::<T>()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "impossible ring layout"));
        }
        // SAFETY: `offset` is inside the mapping. Why not safe: pointer arithmetic.
        Ok(unsafe { self.base.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and the last ring over it is gone.
        // Why not safe: unmapping memory never is.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What both ends share: the addresses of a ring's parts.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    capacity: u32,
    _mapping: Arc<Mapping>,
    _slots: PhantomData<T>,
}

// SAFETY: one end of a ring is used by one thread at a time (its methods take `&mut self` where
// they touch slots), and moving it moves that role. Why not safe: `NonNull` is not `Send`.
unsafe impl<T: Copy + Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn new(mapping: &Arc<Mapping>, layout: Layout) -> io::Result<Ring<T>> {
        if !layout.capacity.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "ring size not a power of 2"));
        }
        Ok(Ring {
            producer: mapping.at(layout.producer, 1)?,
            consumer: mapping.at(layout.consumer, 1)?,
            flags: mapping.at(layout.flags, 1)?,
            slots: mapping.at(layout.slots, layout.capacity as usize)?,
            capacity: layout.capacity,
            _mapping: Arc::clone(mapping),
            _slots: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: checked by `new` to lie inside the mapping, which `self` keeps alive; the kernel
        // accesses it atomically too. Why not safe: the memory is shared with the kernel.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: masking keeps the slot below `capacity`, and all of them lie inside the mapping.
        // Why not safe: pointer arithmetic.
        unsafe { self.slots.add((index & (self.capacity - 1)) as usize) }
    }

    /// Slots between the two indices; an impossible distance counts as `impossible`.
    fn distance(&self, produced: u32, consumed: u32, impossible: u32) -> u32 {
        let distance = produced.wrapping_sub(consumed);
        if distance <= self.capacity { distance } else { impossible }
    }
}

/// Our end of a ring that we write.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    produced: u32,
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// Nobody else produces into this ring, and the other end follows the protocol of the module.
    pub(crate) unsafe fn new(mapping: &Arc<Mapping>, layout: Layout) -> io::Result<Self> {
        let ring = Ring::new(mapping, layout)?;
        let produced = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Acquire);
        Ok(Producer { ring, produced, consumed })
    }

    /// How many of `want` items fit now.
    #[inline]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        if self.cached_room() < want {
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
        }
        self.cached_room().min(want)
    }

    /// Writes and publishes `items`, and returns how many. Items beyond the room last asked for by
    /// [`room`](Self::room) are not taken from the iterator.
    #[inline]
    pub(crate) fn produce(&mut self, items: impl Iterator<Item = T>) -> u32 {
        let start = self.produced;
        for item in items.take(self.cached_room() as usize) {
            // SAFETY: the slot lies between the two indices, so it is ours (module text).
            // Why not safe: the memory is shared with the kernel.
            unsafe { self.ring.slot(self.produced).write(item) };
            self.produced = self.produced.wrapping_add(1);
        }
        let count = self.produced.wrapping_sub(start);
        if count > 0 {
            self.ring.producer().store(self.produced, Ordering::Release);
        }
        count
    }

    /// Items the other end has not taken yet.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.ring.distance(self.produced, self.consumed, self.ring.capacity)
    }

    /// True when the kernel waits for a system call before it looks at the ring again.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    fn cached_room(&self) -> u32 {
        let used = self.ring.distance(self.produced, self.consumed, self.ring.capacity);
        self.ring.capacity - used
    }
}

/// Our end of a ring that we read.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    produced: u32,
    consumed: u32,
}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// Nobody else consumes from this ring, and the other end follows the protocol of the module.
    pub(crate) unsafe fn new(mapping: &Arc<Mapping>, layout: Layout) -> io::Result<Self> {
        let ring = Ring::new(mapping, layout)?;
        let consumed = ring.consumer().load(Ordering::Relaxed);
        let produced = ring.producer().load(Ordering::Acquire);
        Ok(Consumer { ring, produced, consumed })
    }

    /// Reads at most `max` items, gives their slots back, and returns how many there were.
    #[inline]
    pub(crate) fn consume(&mut self, max: u32, mut each: impl FnMut(T)) -> u32 {
        if self.cached_available() == 0 {
            self.produced = self.ring.producer().load(Ordering::Acquire);
        }
        let count = self.cached_available().min(max);
        for _ in 0..count {
            // SAFETY: the slot lies between the two indices, so it is ours (module text).
            // Why not safe: the memory is shared with the kernel.
            each(unsafe { self.ring.slot(self.consumed).read() });
            self.consumed = self.consumed.wrapping_add(1);
        }
        if count > 0 {
            self.ring.consumer().store(self.consumed, Ordering::Release);
        }
        count
    }

    fn cached_available(&self) -> u32 {
        self.ring.distance(self.produced, self.consumed, 0)
    }
}

/// A ring over plain memory, to play the kernel in tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    const SLOTS_AT: usize = 192;

    pub(crate) fn layout(capacity: u32) -> Layout {
        Layout { producer: 0, consumer: 64, flags: 128, slots: SLOTS_AT, capacity }
    }

    pub(crate) fn memory(capacity: u32) -> Arc<Mapping> {
        Arc::new(Mapping::anonymous(SLOTS_AT + capacity as usize * 16).unwrap())
    }

    /// Has the other end make a system call whenever it wrote something.
    pub(crate) fn ask_for_wakeups<T>(consumer: &Consumer<T>) {
        // SAFETY: checked to lie inside the mapping, and accessed atomically by both ends.
        let flags = unsafe { consumer.ring.flags.as_ref() };
        flags.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    }

    /// Both ends of one ring.
    pub(crate) fn pair<T: Copy>(capacity: u32) -> (Producer<T>, Consumer<T>) {
        ends(&memory(capacity), capacity)
    }

    /// Both ends over `memory`, which nobody else uses.
    pub(crate) fn ends<T: Copy>(
        memory: &Arc<Mapping>,
        capacity: u32,
    ) -> (Producer<T>, Consumer<T>) {
        // SAFETY: one producer and one consumer, both made here.
        unsafe {
            let producer = Producer::new(memory, layout(capacity)).unwrap();
            let consumer = Consumer::new(memory, layout(capacity)).unwrap();
            (producer, consumer)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::fake::ends;
    use super::fake::layout;
    use super::fake::memory;
    use super::*;

    /// Both ends of one ring, with the indices started at `start` to reach the wrap.
    fn pair(capacity: u32, start: u32) -> (Producer<u64>, Consumer<u64>, Arc<Mapping>) {
        let memory = memory(capacity);
        for offset in [0, 64] {
            // SAFETY: nobody else uses the fresh mapping yet.
            unsafe { memory.at::<u32>(offset, 1).unwrap().write(start) };
        }
        let (producer, consumer) = ends(&memory, capacity);
        (producer, consumer, memory)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Produce(u32),
        Consume(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![(0..40_u32).prop_map(Step::Produce), (0..40_u32).prop_map(Step::Consume),];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// A ring behaves like a bounded queue, also when its indices wrap around.
        #[test]
        fn is_a_bounded_queue(
            steps in steps(),
            bits in 0..6_u32,
            start in prop_oneof![Just(0), any::<u32>(), Just(u32::MAX - 20)],
        ) {
            let capacity = 1 << bits;
            let (mut producer, mut consumer, _memory) = pair(capacity, start);
            let mut oracle = VecDeque::new();
            let mut next = 0_u64;
            for step in steps {
                match step {
                    Step::Produce(want) => {
                        let space = capacity - u32::try_from(oracle.len()).unwrap();
                        let room = producer.room(want);
                        prop_assert_eq!(room, want.min(space));
                        let items = next..next + u64::from(room);
                        oracle.extend(items.clone());
                        next = items.end;
                        prop_assert_eq!(producer.produce(items), room);
                    }
                    Step::Consume(max) => {
                        let before = oracle.len();
                        let mut wrong = 0;
                        let count = consumer.consume(max, |item| {
                            wrong += u32::from(oracle.pop_front() != Some(item));
                        });
                        prop_assert_eq!(wrong, 0);
                        prop_assert_eq!(count as usize, before - oracle.len());
                        prop_assert!(count > 0 || before == 0 || max == 0);
                    }
                }
                prop_assert_eq!(producer.pending() as usize, oracle.len());
            }
        }
    }

    /// Items cross threads in order and complete: the release and acquire pairs hold.
    #[test]
    fn crosses_threads_in_order() {
        const ITEMS: u64 = 200_000;
        let (mut producer, mut consumer, _memory) = pair(64, u32::MAX - 1000);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                while next < ITEMS {
                    let room = u64::from(producer.room(16)).min(ITEMS - next);
                    next += u64::from(producer.produce(next..next + room));
                    if room == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < ITEMS {
                let count = consumer.consume(24, |item| {
                    assert_eq!(item, expected);
                    expected += 1;
                });
                if count == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }

    /// More items than room are left in the iterator, and the ring stays intact.
    #[test]
    fn produce_stops_at_the_room() {
        let (mut producer, mut consumer, _memory) = pair(4, 0);
        let mut items = 0..10;
        assert_eq!(producer.produce(&mut items), 4);
        assert_eq!(items.next(), Some(4));
        let mut got = Vec::new();
        assert_eq!(consumer.consume(u32::MAX, |item| got.push(item)), 4);
        assert_eq!(got, [0, 1, 2, 3]);
    }

    /// An index that claims more than the ring holds yields no room and no items.
    #[test]
    fn impossible_indices_are_not_believed() {
        let (mut producer, mut consumer, memory) = pair(4, 0);
        // SAFETY: both ends are on this thread.
        unsafe { memory.at::<u32>(0, 1).unwrap().write(5) };
        assert_eq!(consumer.consume(8, |_| panic!("an item out of nothing")), 0);
        assert_eq!(producer.room(1), 1);
        // SAFETY: as above.
        unsafe { memory.at::<u32>(64, 1).unwrap().write(1) };
        assert_eq!(producer.room(4), 4, "the cached index is enough");
        assert_eq!((producer.room(5), producer.pending()), (0, 4));
    }

    /// The flag is read live, and only its own bit counts.
    #[test]
    fn sees_the_need_wakeup_flag() {
        let (producer, _consumer, memory) = pair(4, 0);
        for (flags, expected) in [(0, false), (1, true), (2, false), (3, true)] {
            // SAFETY: both ends are on this thread.
            unsafe { memory.at::<u32>(128, 1).unwrap().write(flags) };
            assert_eq!(producer.needs_wakeup(), expected);
        }
    }

    /// Layouts that leave the mapping, are misaligned, or not a power of two are refused.
    #[test]
    fn refuses_impossible_layouts() {
        let memory = memory(8);
        let good = layout(8);
        let bad = [
            Layout { capacity: 0, ..good },
            Layout { capacity: 6, ..good },
            Layout { capacity: 1 << 31, ..good },
            Layout { producer: good.slots + 128, ..good },
            Layout { consumer: usize::MAX, ..good },
            Layout { flags: 130, ..good },
            Layout { slots: good.slots + 8, ..good },
        ];
        for layout in bad {
            // SAFETY: no second end exists.
            let refused = unsafe { Producer::<Descriptor>::new(&memory, layout) };
            assert!(refused.is_err(), "{layout:?}");
        }
        // SAFETY: as above.
        assert!(unsafe { Producer::<Descriptor>::new(&memory, good) }.is_ok());
    }
}
