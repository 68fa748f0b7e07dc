//! [`SlabBox`]: a box whose place lies among others of its kind, in huge pages where there are any.
//!
//! Ten thousand SAs that the allocator puts into pages of 4 KiB are more pages than the CPU
//! remembers translations of, and each packet is for another one. Here values of one size lie side
//! by side in *chunks*: the first is a few ordinary pages, for a gateway with a few SAs, those that
//! follow are some megabytes each. A place that is given back is the next one taken. Chunks are
//! never given back: so much memory as was once in use stays. What is large by itself, a table of
//! ten thousand SAs, has pages of its own, and these are given back.
//!
//! A place is whole cache lines, so that two workers never write to the same one, and an odd number
//! of them (or of what its contents are aligned to): the same field of many values is then in all
//! sets of a cache, where with an even number it would be in half of them, or fewer.
//!
//! The places of the whole program are behind one lock, which is taken to make and to drop a box
//! and at no other time: the control thread makes and drops SAs, workers hold and move them.
//!
//! # Why the unsafe code here is sound
//!
//! A place is a `&'static mut` slice that is cut off a chunk once, so that no two overlap. It is
//! either in `Slab::free` or in the hands of one box, whose clone has another. A box is made of a
//! place that has room and alignment for its contents, which are written before the box exists and
//! dropped with it, and only then is the place a slice again. Contents know their size and
//! alignment, from which follow those of the place, and whether it has pages of its own: these are
//! the box's alone from when they are allocated to when they are freed.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ops::DerefMut;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::memory;

/// Octets of the first chunk of a slab at least, and of each chunk at most; the one behind is so
/// many times as large.
const CHUNK_MIN: usize = 32 << 10;
const CHUNK_MAX: usize = 4 << 20;
const GROWTH: usize = 16;

/// What chunks are aligned to.
const CHUNK_ALIGN: usize = memory::PAGE;

/// Octets of contents that have pages of their own, at least.
const LARGE: usize = 16 << 10;

const _: () = assert!(LARGE + 2 * CHUNK_ALIGN <= CHUNK_MIN, "any place fits into any chunk");

/// Octets of a cache line.
const LINE: usize = 64;

/// A value, or a slice, of its own in memory shared by such values, and the only way to it.
pub struct SlabBox<T: ?Sized> {
    contents: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: a box owns its contents, as `Box` does. Why not safe: `NonNull` is not `Send`.
unsafe impl<T: Send + ?Sized> Send for SlabBox<T> {}
// SAFETY: as above; `&SlabBox<T>` gives `&T` and nothing else.
unsafe impl<T: Sync + ?Sized> Sync for SlabBox<T> {}

/// Memory for one value or slice.
type Place = &'static mut [MaybeUninit<u8>];

/// Places of one size and alignment.
#[derive(Default)]
struct Slab {
    /// Given back, the latest last.
    free: Vec<Place>,
    /// What no place was cut off yet of the latest chunk.
    rest: Place,
    /// Octets of that chunk.
    chunk: usize,
}

/// All slabs of the program, by alignment and by octets from place to place.
static SLABS: Mutex<BTreeMap<Kind, Slab>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    align: usize,
    stride: usize,
}

impl Kind {
    const fn of(contents: Layout) -> Kind {
        let align = if contents.align() < LINE { LINE } else { contents.align() };
        Kind { align, stride: (contents.size().div_ceil(align) | 1) * align }
    }
}

impl Slab {
    fn take(&mut self, stride: usize) -> Place {
        if let Some(place) = self.free.pop() {
            return place;
        }
        if self.rest.len() < stride {
            // What is left over is too small for anything.
            self.chunk = (self.chunk * GROWTH).clamp(CHUNK_MIN, CHUNK_MAX);
            self.rest = leak(self.chunk);
        }
        let (place, rest) = std::mem::take(&mut self.rest).split_at_mut(stride);
        self.rest = rest;
        place
    }
}

fn leak(len: usize) -> Place {
    let base = memory::allocate(len);
    // SAFETY: so many octets are there, for ever, and nobody else knows of them. Why not safe: they
    // come as an address.
    unsafe { std::slice::from_raw_parts_mut(base.cast().as_ptr(), len) }
}

thread_local! {
    static MOVES: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread took a place or gave one back. No allocator sees that, and a worker does
/// neither between its start and its end.
#[must_use]
pub fn moves() -> u64 {
    MOVES.get()
}

/// Room for contents of this kind, aligned for them.
fn take(contents: Layout) -> NonNull<u8> {
    let _ = MOVES.try_with(|moves| moves.set(moves.get() + 1));
    assert!(contents.align() <= CHUNK_ALIGN, "pages are aligned enough");
    if contents.size() >= LARGE {
        return memory::allocate(contents.size());
    }
    let kind = Kind::of(contents);
    NonNull::from(slabs().entry(kind).or_default().take(kind.stride)).cast()
}

/// # Safety
/// It is what [`take`] returned for contents of this kind, and there are none in it any more.
unsafe fn give_back(room: NonNull<u8>, contents: Layout) {
    // A box that outlives what is local to its thread is not counted.
    let _ = MOVES.try_with(|moves| moves.set(moves.get() + 1));
    if contents.size() >= LARGE {
        // SAFETY: it was allocated with this size, and is nobody's. Why not safe: it is an address.
        return unsafe { memory::free(room, contents.size()) };
    }
    let kind = Kind::of(contents);
    // SAFETY: a place of this kind, which is nobody's. Why not safe: it is an address.
    let place = unsafe { std::slice::from_raw_parts_mut(room.cast().as_ptr(), kind.stride) };
    slabs().entry(kind).or_default().free.push(place);
}

/// Nothing panics while it has the lock, but for an allocator that has nothing left.
fn slabs() -> MutexGuard<'static, BTreeMap<Kind, Slab>> {
    SLABS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> SlabBox<T> {
    /// Moves a value to a place of its own. Aborts when memory is exhausted.
    #[must_use]
    pub fn new(value: T) -> SlabBox<T> {
        let contents = take(Layout::new::<T>()).cast::<T>();
        // SAFETY: there is room for a `T`, and nobody else has it. Why not safe: no safe API makes
        // a `T` in memory that was something else before.
        unsafe { contents.write(value) };
        SlabBox { contents, owns: PhantomData }
    }
}

impl<T> SlabBox<[T]> {
    /// A slice of so many values, each made of its index. Aborts when memory is exhausted.
    ///
    /// # Panics
    /// When that is no possible length.
    #[must_use]
    pub fn from_fn(len: usize, mut value: impl FnMut(usize) -> T) -> SlabBox<[T]> {
        let first = take(Layout::array::<T>(len).expect("a possible length")).cast::<T>();
        for index in 0..len {
            // Should this panic, the place is lost with what is in it.
            let value = value(index);
            // SAFETY: there is room for `len` of `T`, and nobody else has it. Why not safe: as in
            // `new`.
            unsafe { first.add(index).write(value) };
        }
        SlabBox { contents: NonNull::slice_from_raw_parts(first, len), owns: PhantomData }
    }
}

impl<T: Clone> Clone for SlabBox<[T]> {
    fn clone(&self) -> SlabBox<[T]> {
        SlabBox::from_fn(self.len(), |index| self[index].clone())
    }
}

impl<T: ?Sized> Drop for SlabBox<T> {
    fn drop(&mut self) {
        let layout = Layout::for_value::<T>(self);
        // SAFETY: there is a value since the box was made, and nobody has it when that goes; what
        // it was in was taken for its layout. Why not safe: memory outlives the value.
        unsafe {
            self.contents.drop_in_place();
            give_back(self.contents.cast(), layout);
        }
    }
}

impl<T: ?Sized> Deref for SlabBox<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: it has a value, which it owns. Why not safe: as for `Box` of the library.
        unsafe { self.contents.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for SlabBox<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut` of the box is that of its value. Why not safe: as above.
        unsafe { self.contents.as_mut() }
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for SlabBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    const _: () = assert!(size_of::<Option<SlabBox<u64>>>() == size_of::<usize>(), "a niche");

    fn address<T: ?Sized>(value: &SlabBox<T>) -> usize {
        std::ptr::from_ref::<T>(value).addr()
    }

    /// Values stay what they are, each by itself, over several chunks, in whatever order they go.
    #[test]
    fn values_are_apart() {
        #[repr(align(128))]
        struct Value([u32; 320]);
        // 7 chunks: of 32 KiB, 512 KiB, and 4 MiB each.
        let count = (16 << 20) / size_of::<Value>();
        let value = |number| SlabBox::new(Value([u32::try_from(number).unwrap(); 320]));
        let mut kept: Vec<(usize, SlabBox<Value>)> = (0..count).map(|n| (n, value(n))).collect();
        for round in 1..4 {
            // Every so many-th goes, and others come instead.
            kept.retain(|(number, _)| number % (round + 2) != 0);
            kept.extend((kept.len()..count).map(|n| (n + round * count, value(n + round * count))));
            kept.iter_mut().for_each(|(_, value)| value.0[319] += 1);
        }
        let mut places: Vec<usize> = kept.iter().map(|(_, value)| address(value)).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= size_of::<Value>()));
        assert!(places.iter().all(|place| place.is_multiple_of(128)));
        for (number, value) in &kept {
            assert!(value.0[..319].iter().all(|&n| n as usize == *number), "{number}");
        }
    }

    /// What is dropped is dropped once, wherever that is, and its place is the next one taken.
    #[test]
    fn places_come_back() {
        // Of a kind of its own, so that no other test takes its places.
        #[repr(align(256))]
        struct Counted(Arc<AtomicUsize>, [u8; 777]);
        impl Drop for Counted {
            fn drop(&mut self) {
                assert_eq!(self.1, [7; 777]);
                self.0.fetch_add(1, Relaxed);
            }
        }
        let drops = Arc::new(AtomicUsize::new(0));
        let make = || SlabBox::new(Counted(Arc::clone(&drops), [7; 777]));
        let first: Vec<_> = (0..1000).map(|_| make()).collect();
        let mut places: Vec<usize> = first.iter().map(address).collect();
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert_eq!(drops.load(Relaxed), 1000);
        let second: Vec<_> = (0..1000).map(|_| make()).collect();
        let mut again: Vec<usize> = second.iter().map(address).collect();
        places.sort_unstable();
        again.sort_unstable();
        assert_eq!(places, again);
        drop(second);
        assert_eq!(drops.load(Relaxed), 2000);
    }

    /// A place is an odd number of lines, or of what its contents are aligned to.
    #[test]
    fn kinds_are_by_size_and_alignment() {
        let kind = |size, align| {
            let Kind { align, stride } = Kind::of(Layout::from_size_align(size, align).unwrap());
            (align, stride)
        };
        let of_lines = [0, 1, 64, 65, 128, 1408, 1472].map(|size| kind(size, 8));
        let strides = [1, 1, 1, 3, 3, 23, 23].map(|lines| (64, lines * 64));
        assert_eq!(of_lines, strides);
        assert_eq!(
            [128, 256, 1408, 1536].map(|size| kind(size, 128)),
            [1, 3, 11, 13].map(|n| (128, n * 128))
        );
        assert_eq!([4096, 8192].map(|size| kind(size, 4096)), [1, 3].map(|n| (4096, n * 4096)));
    }

    /// Slices of any length are what they were filled with, each by itself, empty ones too.
    #[test]
    fn slices_of_any_length() {
        for _ in 0..2 {
            let mut all: Vec<_> =
                (0..200).map(|len| (len, SlabBox::from_fn(len, |_| len))).collect();
            for (len, slice) in &mut all {
                assert_eq!(**slice, *vec![*len; *len]);
                slice.fill(0);
            }
        }
    }

    /// What is large has pages of its own.
    #[test]
    fn large_contents() {
        for len in [LARGE - 1, LARGE, LARGE + 1, 1 << 20, (4 << 20) + 1] {
            let slices = [1, 2, 3].map(|octet| SlabBox::from_fn(len, |_| octet));
            let copies = slices.clone();
            for (octet, slice) in (1_u8..).zip(slices.iter().chain(&copies)) {
                assert!(slice.iter().all(|&found| found == (octet - 1) % 3 + 1));
                assert!(address(slice).is_multiple_of(memory::PAGE) || len < LARGE);
            }
        }
        let table: SlabBox<[Option<Arc<()>>]> = SlabBox::from_fn(LARGE, |_| None);
        let value = Arc::new(());
        let mut copy = table.clone();
        copy[LARGE - 1] = Some(Arc::clone(&value));
        drop((table, copy));
        assert_eq!(Arc::strong_count(&value), 1, "what was in it is dropped");
    }
}
