//! The region: one contiguous, page-aligned mapping of equal frames, leaked on purpose.
//!
//! Behind the frames may lie *runs*, of [`RUN_FRAMES`] frames each: one token holds a whole run, so
//! that a packet larger than a frame is contiguous like any other. The kernel never receives into
//! runs, and sends them frame by frame ([`Region::release_parts`]).
//!
//! Static allocation after start removes the only lifetime question a packet could raise ("may it
//! outlive its memory?"), and lets every AF_XDP socket of the process register the same UMEM.
//! A region mints each of its frames exactly once.

use std::ptr::NonNull;

use crate::io::Port;
use crate::memory;
use crate::memory::Pages;
use crate::token::FreeFrame;
use crate::token::Packet;

/// Size of one frame in bytes: an AF_XDP chunk in aligned mode.
pub const FRAME_SIZE: usize = 2048;

/// Bytes the kernel leaves free in front of a received packet (`XDP_PACKET_HEADROOM`).
/// In-memory and pcap I/O place packets at the same offset, so that they exercise the same bounds.
pub const HEADROOM: usize = 256;

/// Growth at the front in a tunnel of AES-GCM: IPv6 (40), UDP (8), ESP header (8), IV (8) and one
/// VLAN tag (4) when an untagged packet leaves through a tagged next hop. Other algorithms and SA
/// bundles take more of the headroom; what finds none left is a counted drop.
pub const MAX_HEAD_GROWTH: usize = 40 + 8 + 8 + 8 + 4;

/// Growth at the back with AES-GCM: padding to 4 octets (3), pad length and next header (2), ICV
/// (16). Longer tails fit behind what the MTU of the way out leaves; else it is a counted drop.
pub const MAX_TAIL_GROWTH: usize = 3 + 2 + 16;

/// Longest Ethernet frame a port may deliver: what is left of a frame after the kernel's headroom
/// and the largest growth at the back.
pub const MAX_LINK_FRAME: usize = FRAME_SIZE - HEADROOM - MAX_TAIL_GROWTH;

/// Frames of one run.
pub const RUN_FRAMES: usize = 5;

/// Size of one run in bytes.
pub const RUN_SIZE: usize = RUN_FRAMES * FRAME_SIZE;

/// Longest Ethernet frame a port may deliver where there are runs: [`MAX_LINK_FRAME`] of a run.
pub const MAX_JUMBO_FRAME: usize = RUN_SIZE - HEADROOM - MAX_TAIL_GROWTH;

/// Longest packet that a single frame is chosen for where there are runs. Behind it is room for the
/// tail of any algorithm, although the MTU of the way out is no limit then.
pub const MAX_SINGLE_FRAME: usize = 1536;

/// Ethernet MTU plus header and one VLAN tag.
const STANDARD_LINK_FRAME: usize = 1500 + 14 + 4;

#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const RUN: u8 = RUN_FRAMES as u8;

const _: () = assert!(FRAME_SIZE.is_power_of_two(), "address masks recover the frame");
const _: () = assert!(HEADROOM >= MAX_HEAD_GROWTH, "any packet can be encapsulated in place");
const _: () = assert!(MAX_LINK_FRAME >= STANDARD_LINK_FRAME + MAX_HEAD_GROWTH);
const _: () = assert!(RUN_SIZE <= u16::MAX as usize, "offsets in a run fit in 16 bits");
const _: () = assert!(RUN_FRAMES <= 8, "a mask of the frames of a run fits in 8 bits");
const _: () = assert!(MAX_JUMBO_FRAME >= 9000 + 14 + 4, "the usual jumbo MTU works");
const _: () = assert!(MAX_SINGLE_FRAME >= STANDARD_LINK_FRAME, "only large packets need runs");
const _: () = assert!(FRAME_SIZE <= 4096, "memory is aligned to a page");

/// One mapping of `frames * FRAME_SIZE + runs * RUN_SIZE` bytes.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    frames: usize,
    runs: usize,
}

/// What one descriptor of the kernel names of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Offset into the region; start and end lie in the same frame.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// True when another part of the same packet follows.
    pub more: bool,
}

/// The parts of a packet that was given away, in order.
#[derive(Clone, Debug)]
#[must_use = "parts that are dropped are lost"]
pub struct Parts {
    offset: u64,
    left: usize,
}

impl Parts {
    /// Where the next part begins, as an offset into the region.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.left == 0 {
            return None;
        }
        let offset = self.offset;
        #[expect(clippy::cast_possible_truncation, reason = "less than FRAME_SIZE")]
        let in_frame = FRAME_SIZE - offset as usize % FRAME_SIZE;
        let len = self.left.min(in_frame);
        self.offset += len as u64;
        self.left -= len;
        #[expect(clippy::cast_possible_truncation, reason = "at most FRAME_SIZE")]
        let part = Part { offset, len: len as u32, more: self.left > 0 };
        Some(part)
    }
}

// SAFETY: a `Region` is an address and a length; all access to its bytes goes through tokens, which
// have their own argument. Why not safe: `NonNull` is not `Send`/`Sync` by default.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` offers no access to the bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Allocates and leaks a region of `frames` zeroed frames and mints every one of them.
    ///
    /// # Panics
    /// When `frames` is zero or the size overflows; aborts when memory is exhausted.
    #[must_use]
    pub fn leak(frames: usize) -> (&'static Region, Vec<FreeFrame>) {
        Region::leak_with_runs(frames, 0)
    }

    /// As [`leak`](Self::leak), with `runs` runs, which follow the frames in what is minted.
    ///
    /// # Panics
    /// As for [`leak`](Self::leak).
    #[must_use]
    pub fn leak_with_runs(frames: usize, runs: usize) -> (&'static Region, Vec<FreeFrame>) {
        assert!(frames > 0, "a region holds at least one frame");
        let bytes = runs.checked_mul(RUN_FRAMES).and_then(|more| more.checked_add(frames));
        let bytes = bytes.and_then(|all| all.checked_mul(FRAME_SIZE));
        let bytes = bytes.expect("region size overflows");
        let base = memory::allocate(bytes);
        let region: &'static Region = Box::leak(Box::new(Region { base, frames, runs }));
        let singles = (0..frames)
            // SAFETY: each frame is minted here once, and nowhere else while it is held outside
            // the kernel. Why not safe: the compiler cannot see that indices are distinct frames.
            .map(|i| unsafe { FreeFrame::from_base(region.base.add(i * FRAME_SIZE), 1) });
        // SAFETY: as above; runs lie behind the frames and do not overlap.
        let runs = (0..runs).map(|i| unsafe { FreeFrame::from_base(region.run(i), RUN) });
        let minted = singles.chain(runs).collect();
        (region, minted)
    }

    /// Number of runs in the region.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Number of frames in the region, those in runs not counted.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames * FRAME_SIZE + self.runs * RUN_SIZE
    }

    /// A region is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The pages it is made of, once they are in use; `None` when the kernel does not tell.
    #[must_use]
    pub fn pages(&self) -> Option<Pages> {
        memory::pages_at(self.base.as_ptr() as usize)
    }

    /// Address of the first byte, for registering the region as a UMEM.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Gives a free frame away (to the kernel's fill ring) as an offset into the region.
    #[must_use = "a frame whose offset is dropped is lost"]
    pub fn release_free(&self, frame: FreeFrame) -> u64 {
        self.offset(frame.into_base().as_ptr())
    }

    /// Gives a packet away (to the kernel's TX ring) as its offset and length.
    #[must_use = "a packet whose descriptor is dropped is lost"]
    pub fn release_packet(&self, packet: Packet) -> (u64, u32) {
        let (base, start, len) = packet.into_parts();
        (self.offset(base.as_ptr()) + u64::from(start), u32::from(len))
    }

    /// Gives a packet of any size away (to the kernel's TX ring) as its parts, each in one frame;
    /// an empty packet has none, and is lost.
    pub fn release_parts(&self, packet: Packet) -> Parts {
        let left = packet.len();
        let (offset, _) = self.release_packet(packet);
        Parts { offset, left }
    }

    /// The run that an offset lies in, and the frame in it; `None` when it lies in no run.
    #[must_use]
    pub fn run_at(&self, offset: u64) -> Option<(usize, usize)> {
        let offset = usize::try_from(offset).ok().filter(|&offset| offset < self.len())?;
        let in_runs = offset.checked_sub(self.frames * FRAME_SIZE)?;
        Some((in_runs / RUN_SIZE, in_runs % RUN_SIZE / FRAME_SIZE))
    }

    /// Takes a run back from the kernel; `None` when there is no such run.
    ///
    /// # Safety
    /// The run must have been released before and not taken back since, and the kernel must have
    /// returned every part of it through the completion ring.
    #[must_use]
    pub unsafe fn adopt_run(&self, run: usize) -> Option<FreeFrame> {
        // SAFETY: the caller guarantees that nobody else holds the run.
        (run < self.runs).then(|| unsafe { FreeFrame::from_base(self.run(run), RUN) })
    }

    /// Takes a frame back from the kernel by any offset inside it; `None` when it lies outside, or
    /// in a run.
    ///
    /// # Safety
    /// The frame must have been released before and not taken back since, and the kernel must have
    /// returned it through the completion ring (or never have consumed it).
    #[must_use]
    pub unsafe fn adopt_free(&self, offset: u64) -> Option<FreeFrame> {
        let (base, _) = self.locate(offset)?;
        // SAFETY: the caller guarantees that nobody else holds the frame.
        Some(unsafe { FreeFrame::from_base(base, 1) })
    }

    /// Takes a received packet from the kernel; `None` when it does not lie inside one frame that
    /// belongs to no run.
    ///
    /// # Safety
    /// The frame must have been released before and not taken back since, and the kernel must have
    /// returned it through an RX ring.
    #[must_use]
    pub unsafe fn adopt_packet(&self, offset: u64, len: u32, port: Port) -> Option<Packet> {
        let (base, start) = self.locate(offset)?;
        let len = u16::try_from(len).ok()?;
        if usize::from(start) + usize::from(len) > FRAME_SIZE {
            return None;
        }
        // SAFETY: the caller guarantees that nobody else holds the frame; bounds were checked.
        Some(unsafe { FreeFrame::from_base(base, 1) }.into_packet(start, len, port))
    }

    fn offset(&self, ptr: *mut u8) -> u64 {
        let offset = (ptr as usize).wrapping_sub(self.base.as_ptr() as usize);
        assert!(offset < self.len(), "a frame was released to a region it does not belong to");
        offset as u64
    }

    /// Start of a run that exists.
    fn run(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.runs, "there is no such run");
        // SAFETY: inside the mapping, as the index is. Why not safe: pointer arithmetic.
        unsafe { self.base.add(self.frames * FRAME_SIZE + index * RUN_SIZE) }
    }

    fn locate(&self, offset: u64) -> Option<(NonNull<u8>, u16)> {
        let end = self.frames * FRAME_SIZE;
        let offset = usize::try_from(offset).ok().filter(|&offset| offset < end)?;
        let start = u16::try_from(offset % FRAME_SIZE).ok()?;
        // SAFETY: `offset` is inside the mapping. Why not safe: pointer arithmetic.
        let base = unsafe { self.base.add(offset - usize::from(start)) };
        Some((base, start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every frame is minted once, at distinct, frame-aligned offsets.
    #[test]
    fn mints_each_frame_once() {
        let (region, frames) = Region::leak(5);
        let mut offsets: Vec<u64> = frames.into_iter().map(|f| region.release_free(f)).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 2048, 4096, 6144, 8192]);
    }

    /// A descriptor survives the way to the kernel and back, with its start moved.
    #[test]
    fn packet_round_trip_through_descriptor() {
        let (region, mut frames) = Region::leak(2);
        let mut packet = frames.pop().unwrap().with_contents(Port(1), b"hello").unwrap();
        packet.prepend(3).unwrap().copy_from_slice(b"abc");
        let (offset, len) = region.release_packet(packet);
        assert_eq!((offset, len), (2048 + 256 - 3, 8));
        // SAFETY: the packet was just released.
        let packet = unsafe { region.adopt_packet(offset, len, Port(0)) }.unwrap();
        assert_eq!(packet.data(), b"abchello");
        let _ = region.release_free(packet.into_free());
        frames.into_iter().for_each(|f| _ = region.release_free(f));
    }

    /// A packet in a run leaves in parts that cover it, none across a frame's border, and each part
    /// leads back to its run.
    #[test]
    fn a_run_leaves_in_parts() {
        let (region, mut minted) = Region::leak_with_runs(3, 2);
        assert_eq!((region.frames(), region.runs(), region.len()), (3, 2, 3 * 2048 + 2 * 10240));
        let run = minted.pop().unwrap();
        assert!(run.is_run() && !minted[2].is_run());
        let mut packet = run.with_contents(Port(0), &[7; 9000]).unwrap();
        packet.prepend(36).unwrap();
        let base = 3 * 2048 + 10240;
        let parts: Vec<Part> = region.release_parts(packet).collect();
        let part = |at: u64, len, more| Part { offset: base + at, len, more };
        let expected = [
            part(220, 1828, true),
            part(2048, 2048, true),
            part(4096, 2048, true),
            part(6144, 2048, true),
            part(8192, 1064, false),
        ];
        assert_eq!(parts, expected);
        for (frame, part) in parts.iter().enumerate() {
            assert_eq!(region.run_at(part.offset), Some((1, frame)));
        }
        assert_eq!((region.run_at(base - 1), region.run_at(3 * 2048 - 1)), (Some((0, 4)), None));
        assert_eq!(region.run_at(base + 10240), None);
        // SAFETY: the run was just released; of the others no token is made.
        let run = unsafe {
            assert!(region.adopt_free(base).is_none() && region.adopt_run(2).is_none());
            assert!(region.adopt_packet(base + 256, 60, Port(0)).is_none());
            region.adopt_run(1).unwrap()
        };
        minted.push(run);
        minted.into_iter().for_each(|frame| _ = region.release_free(frame));
    }

    /// A packet that ends where a frame ends has no empty part behind it.
    #[test]
    fn parts_end_with_the_packet() {
        let (region, mut minted) = Region::leak_with_runs(1, 1);
        let packet = minted.pop().unwrap().into_packet(2048, 2048, Port(0));
        let parts: Vec<Part> = region.release_parts(packet).collect();
        assert_eq!(parts, [Part { offset: 4096, len: 2048, more: false }]);
        let _ = region.release_free(minted.pop().unwrap());
    }

    /// Impossible descriptors from the other side of a ring are refused, not believed.
    #[test]
    fn refuses_descriptors_outside() {
        let (region, frames) = Region::leak(2);
        frames.into_iter().for_each(|f| _ = region.release_free(f));
        // SAFETY: all frames were released; none of these calls yields a token.
        unsafe {
            assert!(region.adopt_free(4096).is_none());
            assert!(region.adopt_free(u64::MAX).is_none());
            assert!(region.adopt_packet(4096, 1, Port(0)).is_none());
            assert!(region.adopt_packet(256, 1793, Port(0)).is_none());
            assert!(region.adopt_packet(0, u32::MAX, Port(0)).is_none());
        }
    }
}
