//! Frame tokens: [`FreeFrame`] (no contents) and [`Packet`] (contents).
//!
//! # Why the unsafe code here is sound
//!
//! A token is the only way to reach the bytes of its frame. `Region::leak` mints one token per
//! frame, once. Tokens are neither `Clone` nor `Copy`, and turning one into the other consumes it,
//! so at any moment each frame has at most one token, or none while the kernel holds it. Whoever
//! has the token (or a `&mut` to it) therefore has exclusive access to the `frames * FRAME_SIZE`
//! bytes at `base` (a run is minted as one token, and never divided). The mapping is never freed.
//! `start + len <= frames * FRAME_SIZE` is an invariant of `Packet`, checked by every method that
//! moves either end. A vacant token has no frames, so by that invariant no bytes; its base, which
//! dangles, is never read, and it cannot become a `FreeFrame`.
//!
//! A token that is dropped instead of recycled is a frame lost for ever: debug builds panic, so
//! that tests find it; release builds lose the one frame.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::io::Port;
use crate::region::FRAME_SIZE;
use crate::region::HEADROOM;

/// A frame, or a run of frames, without contents.
#[derive(Debug)]
pub struct FreeFrame {
    base: NonNull<u8>,
    frames: u8,
}

/// A frame (or a run) with contents: `len` bytes at offset `start`, received on (or made for)
/// `port`.
#[derive(Debug)]
pub struct Packet {
    base: NonNull<u8>,
    start: u16,
    len: u16,
    port: Port,
    frames: u8,
}

const _: () = assert!(size_of::<Packet>() == 16);

// SAFETY: a token owns its frame exclusively (see the module text); moving it to another thread
// moves that ownership. Why not safe: `NonNull` is not `Send`.
unsafe impl Send for FreeFrame {}
// SAFETY: as for `FreeFrame`.
unsafe impl Send for Packet {}

impl FreeFrame {
    /// # Safety
    /// `base` is the start of a frame (or of a run of `frames` frames) of a leaked region, and no
    /// other token for any of it exists.
    pub(crate) unsafe fn from_base(base: NonNull<u8>, frames: u8) -> FreeFrame {
        FreeFrame { base, frames }
    }

    pub(crate) fn into_base(self) -> NonNull<u8> {
        ManuallyDrop::new(self).base
    }

    /// True for a run of frames.
    #[inline]
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.frames > 1
    }

    /// Turns the frame into a packet of `len` bytes at `start`; what they hold is left over.
    ///
    /// # Panics
    /// When `start + len` exceeds the frame: our own error, never a peer's.
    #[must_use]
    pub fn into_packet(self, start: u16, len: u16, port: Port) -> Packet {
        let frames = self.frames;
        let room = usize::from(frames) * FRAME_SIZE;
        assert!(usize::from(start) + usize::from(len) <= room, "packet leaves its frame");
        Packet { base: self.into_base(), start, len, port, frames }
    }

    /// Copies `contents` into the frame behind the usual headroom; gives the frame back when it is
    /// too small for them.
    ///
    /// # Errors
    /// The frame itself, when `contents` do not fit behind [`HEADROOM`].
    pub fn with_contents(self, port: Port, contents: &[u8]) -> Result<Packet, FreeFrame> {
        let room = usize::from(self.frames) * FRAME_SIZE;
        let Some(len) =
            u16::try_from(contents.len()).ok().filter(|&len| HEADROOM + usize::from(len) <= room)
        else {
            return Err(self);
        };
        #[expect(clippy::cast_possible_truncation, reason = "HEADROOM < FRAME_SIZE <= u16::MAX")]
        let mut packet = self.into_packet(HEADROOM as u16, len, port);
        packet.data_mut().copy_from_slice(contents);
        Ok(packet)
    }
}

impl Packet {
    pub(crate) fn into_parts(self) -> (NonNull<u8>, u16, u16) {
        let this = ManuallyDrop::new(self);
        assert!(this.frames > 0, "a packet that was taken out has no frame");
        (this.base, this.start, this.len)
    }

    /// The contents.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: this token owns the frame and the range lies inside it (module text).
        // Why not safe: the bytes belong to a leaked mapping shared with the kernel.
        unsafe {
            let start = self.base.as_ptr().add(usize::from(self.start));
            std::slice::from_raw_parts(start, usize::from(self.len))
        }
    }

    /// The contents, to change in place.
    #[inline]
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `data`, and `&mut self` makes the access exclusive.
        unsafe {
            let start = self.base.as_ptr().add(usize::from(self.start));
            std::slice::from_raw_parts_mut(start, usize::from(self.len))
        }
    }

    /// Asks for the first lines of the contents, and the one in front of them, to be fetched into
    /// the cache, ahead of their use: what another core or a device has just written is in no near
    /// one.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::_MM_HINT_T0;
            use std::arch::x86_64::_mm_prefetch;
            let start = self.base.as_ptr().wrapping_add(usize::from(self.start));
            // SAFETY: SSE is part of every x86-64, and the hint reads nothing that a program can
            // observe and never faults, wherever it points. Why not safe: there is no safe form of
            // the instruction.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_sub(64).cast());
                _mm_prefetch::<_MM_HINT_T0>(start.cast());
                _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64).cast());
            }
        }
    }

    /// Takes the packet out and leaves a vacant token in its place: one without a frame, empty and
    /// without room, that can be dropped but not recycled. For packets of a batch that somebody
    /// else works on for a while.
    #[inline]
    #[must_use = "the packet must come back, or its frame go to a free list"]
    pub fn take_out(&mut self) -> Packet {
        let vacant =
            Packet { base: NonNull::dangling(), start: 0, len: 0, port: self.port, frames: 0 };
        std::mem::replace(self, vacant)
    }

    /// Length of the contents in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True when there are no contents.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Port the packet came in on.
    #[inline]
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// The packet as if it had come in on another port.
    #[inline]
    #[must_use]
    pub fn moved_to(self, port: Port) -> Packet {
        let mut packet = self;
        packet.port = port;
        packet
    }

    /// Bytes free in front of the contents.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// True when the packet is in a run of frames.
    #[inline]
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.frames > 1
    }

    /// Frames that the contents reach into, of those of the run.
    #[inline]
    #[must_use]
    pub fn parts(&self) -> usize {
        let end = usize::from(self.start) + usize::from(self.len);
        end.div_ceil(FRAME_SIZE) - (usize::from(self.start) / FRAME_SIZE).min(end / FRAME_SIZE)
    }

    /// Bytes of the frame or run.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        usize::from(self.frames) * FRAME_SIZE
    }

    /// Bytes free behind the contents.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.capacity() - usize::from(self.start) - usize::from(self.len)
    }

    /// Grows the contents by `count` bytes at the front and returns the new bytes; `None` (and no
    /// change) when the headroom is smaller.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let moved = u16::try_from(count).ok()?;
        self.start = self.start.checked_sub(moved)?;
        self.len += moved;
        Some(&mut self.data_mut()[..count])
    }

    /// Grows the contents by `count` bytes at the back and returns the new bytes; `None` (and no
    /// change) when the tailroom is smaller.
    #[inline]
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = self.len();
        self.len += u16::try_from(count).ok()?;
        Some(&mut self.data_mut()[old..])
    }

    /// Lets the contents be the `len` bytes at `start` of the frame, whatever they hold: both ends
    /// move in one step. `None` (and no change) when that is beyond the frame.
    #[inline(always)]
    pub fn span(&mut self, start: usize, len: usize) -> Option<&mut [u8]> {
        if start > self.capacity() || len > self.capacity() - start {
            return None;
        }
        self.start = u16::try_from(start).ok()?;
        self.len = u16::try_from(len).ok()?;
        Some(self.data_mut())
    }

    /// Removes `count` bytes at the front; `None` (and no change) when there are fewer.
    #[inline]
    pub fn trim_front(&mut self, count: usize) -> Option<()> {
        let count = u16::try_from(count).ok()?;
        self.len = self.len.checked_sub(count)?;
        self.start += count;
        Some(())
    }

    /// Shortens the contents to `len` bytes; `None` (and no change) when there are fewer.
    #[inline]
    pub fn truncate(&mut self, len: usize) -> Option<()> {
        let len = u16::try_from(len).ok()?;
        if len > self.len {
            return None;
        }
        self.len = len;
        Some(())
    }

    /// Gives up the contents.
    #[inline]
    #[must_use = "the frame must go back to a free list"]
    pub fn into_free(self) -> FreeFrame {
        let frames = self.frames;
        FreeFrame { base: self.into_parts().0, frames }
    }
}

/// Asks for octets to be fetched into the cache, to be written: those of a packet that another core
/// has worked on.
#[inline]
pub fn prefetch_to_write(octets: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in octets.chunks(64) {
        // SAFETY: the hint reads and writes nothing that a program can observe, and a CPU without
        // the instruction ignores it. Why not safe: there is no safe form of it.
        unsafe {
            use std::arch::x86_64::_MM_HINT_ET0;
            use std::arch::x86_64::_mm_prefetch;
            _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = octets;
}

fn dropped(what: &str) {
    if cfg!(debug_assertions) && !std::thread::panicking() {
        panic!("{what} was dropped instead of recycled");
    }
}

impl Drop for FreeFrame {
    fn drop(&mut self) {
        dropped("a free frame");
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        if self.frames > 0 {
            dropped("a packet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::RUN_SIZE;
    use crate::region::Region;

    fn packet(contents: &[u8]) -> (&'static Region, Packet) {
        let (region, mut frames) = Region::leak(1);
        (region, frames.pop().unwrap().with_contents(Port(3), contents).unwrap())
    }

    /// Both ends move as asked and the bytes in between stay where they are.
    #[test]
    fn ends_move_and_bytes_stay() {
        let (region, mut packet) = packet(b"payload");
        let address = packet.data().as_ptr();
        packet.prepend(2).unwrap().copy_from_slice(b"<<");
        packet.append(2).unwrap().copy_from_slice(b">>");
        assert_eq!(packet.data(), b"<<payload>>");
        packet.trim_front(2).unwrap();
        packet.truncate(7).unwrap();
        assert_eq!(packet.data(), b"payload");
        assert_eq!(packet.data().as_ptr(), address);
        assert_eq!(packet.port(), Port(3));
        let _ = region.release_free(packet.into_free());
    }

    /// Growth beyond the frame and shrinking below nothing are refused without a change.
    #[test]
    fn bounds_are_refused() {
        let (region, mut packet) = packet(b"abc");
        assert!(packet.prepend(HEADROOM + 1).is_none());
        assert!(packet.append(FRAME_SIZE - HEADROOM - 2).is_none());
        assert!(packet.append(usize::MAX).is_none());
        assert!(packet.trim_front(4).is_none());
        assert!(packet.truncate(4).is_none());
        assert_eq!(packet.data(), b"abc");
        assert!(packet.prepend(HEADROOM).is_some());
        assert!(packet.append(FRAME_SIZE - HEADROOM - 3).is_some());
        assert_eq!(packet.len(), FRAME_SIZE);
        let _ = region.release_free(packet.into_free());
    }

    /// Both ends move at once, outwards and inwards, and never beyond the frame.
    #[test]
    fn spans() {
        let (region, mut packet) = packet(b"abc");
        let address = packet.data().as_ptr();
        packet.span(HEADROOM - 2, 7).unwrap().fill(b'-');
        packet.span(HEADROOM, 2).unwrap().copy_from_slice(b"xy");
        assert_eq!((packet.data(), packet.data().as_ptr()), (&b"xy"[..], address));
        packet.span(HEADROOM - 2, 7).unwrap();
        assert_eq!(packet.data(), b"--xy---");
        for (start, len) in [(0, FRAME_SIZE + 1), (1, FRAME_SIZE), (FRAME_SIZE + 1, 0)] {
            assert!(packet.span(start, len).is_none(), "{start} {len}");
        }
        assert!(packet.span(usize::MAX, 1).is_none() && packet.span(1, usize::MAX).is_none());
        assert_eq!(packet.data(), b"--xy---");
        assert_eq!(packet.span(0, FRAME_SIZE).map(|all| all.len()), Some(FRAME_SIZE));
        let _ = region.release_free(packet.into_free());
    }

    /// Contents larger than a frame give the frame back.
    #[test]
    fn contents_too_large_give_the_frame_back() {
        let (region, mut frames) = Region::leak(1);
        let frame = frames.pop().unwrap().with_contents(Port(0), &[0; 1793]).unwrap_err();
        let packet = frame.with_contents(Port(0), &[0; 1792]).unwrap();
        let _ = region.release_free(packet.into_free());
    }

    /// A packet in a run has the room of all its frames, is contiguous, and stays a run when its
    /// contents are given up.
    #[test]
    fn a_run_is_one_packet() {
        let (region, mut minted) = Region::leak_with_runs(1, 1);
        let run = minted.pop().unwrap();
        let run = run.with_contents(Port(0), &[0; RUN_SIZE - HEADROOM + 1]).unwrap_err();
        let contents: Vec<u8> = (0..=255).cycle().take(9000).collect();
        let mut packet = run.with_contents(Port(0), &contents).unwrap();
        assert_eq!(packet.data(), contents);
        assert_eq!((packet.capacity(), packet.tailroom()), (10240, 10240 - 256 - 9000));
        assert!(packet.is_run() && packet.append(10240 - 256 - 9000 + 1).is_none());
        assert_eq!(packet.append(984).map(|tail| tail.len()), Some(984));
        assert_eq!(packet.parts(), 5);
        let spans = [(0, 1), (1792, 1), (1793, 2), (2049, 2), (9984, 5)];
        for (len, parts) in spans {
            let mut other = packet;
            other = other.into_free().into_packet(256, len, Port(0));
            assert_eq!(other.parts(), parts, "{len} octets");
            packet = other;
        }
        let free = packet.into_free();
        assert!(free.is_run());
        let _ = region.release_free(free);
        let _ = region.release_free(minted.pop().unwrap());
    }

    /// A vacant token has neither contents nor room, and is dropped in peace.
    #[test]
    fn taken_out_and_put_back() {
        let (region, mut place) = packet(b"abc");
        let packet = place.take_out();
        assert_eq!((packet.data(), place.data()), (&b"abc"[..], &b""[..]));
        assert_eq!((place.headroom(), place.tailroom(), place.capacity()), (0, 0, 0));
        assert!(place.prepend(1).is_none() && place.append(1).is_none());
        place = packet;
        assert_eq!(place.data(), b"abc");
        let _ = region.release_free(place.into_free());
    }

    /// A vacant token is never recycled, in release builds neither.
    #[test]
    #[should_panic(expected = "has no frame")]
    fn a_vacant_token_is_no_frame() {
        let (_, mut place) = packet(b"abc");
        std::mem::forget(place.take_out());
        std::mem::forget(place.into_free());
    }

    /// A dropped token is found in debug builds.
    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "dropped instead of recycled")]
    fn dropping_a_token_panics() {
        drop(Region::leak(1).1.pop());
    }
}
