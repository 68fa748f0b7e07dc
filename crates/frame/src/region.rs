//! The region: one contiguous, page-aligned mapping of equal frames, leaked on purpose.
//!
//! Static allocation after start removes the only lifetime question a packet could raise ("may it
//! outlive its memory?"), and lets every AF_XDP socket of the process register the same UMEM.
//! A region mints each of its frames exactly once.

use std::alloc::Layout;
use std::alloc::alloc_zeroed;
use std::alloc::handle_alloc_error;
use std::ptr::NonNull;

use crate::io::Port;
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

/// Ethernet MTU plus header and one VLAN tag.
const STANDARD_LINK_FRAME: usize = 1500 + 14 + 4;

const PAGE: usize = 4096;

const _: () = assert!(FRAME_SIZE.is_power_of_two(), "address masks recover the frame");
const _: () = assert!(HEADROOM >= MAX_HEAD_GROWTH, "any packet can be encapsulated in place");
const _: () = assert!(MAX_LINK_FRAME >= STANDARD_LINK_FRAME + MAX_HEAD_GROWTH);
const _: () = assert!(FRAME_SIZE <= u16::MAX as usize, "offsets in a frame fit in 16 bits");
const _: () = assert!(PAGE.is_multiple_of(FRAME_SIZE));

/// One mapping of `frames * FRAME_SIZE` bytes.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    frames: usize,
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
        assert!(frames > 0, "a region holds at least one frame");
        let bytes = frames.checked_mul(FRAME_SIZE).expect("region size overflows");
        let layout = Layout::from_size_align(bytes.next_multiple_of(PAGE), PAGE).expect("layout");
        // SAFETY: the layout has a non-zero size. Why not safe: no safe API gives page alignment.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        let region: &'static Region = Box::leak(Box::new(Region { base, frames }));
        let minted = (0..frames)
            // SAFETY: each frame is minted here once, and nowhere else while it is held outside
            // the kernel. Why not safe: the compiler cannot see that indices are distinct frames.
            .map(|i| unsafe { FreeFrame::from_base(region.base.add(i * FRAME_SIZE)) })
            .collect();
        (region, minted)
    }

    /// Number of frames in the region.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames * FRAME_SIZE
    }

    /// A region is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
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

    /// Takes a frame back from the kernel by any offset inside it; `None` when it lies outside.
    ///
    /// # Safety
    /// The frame must have been released before and not taken back since, and the kernel must have
    /// returned it through the completion ring (or never have consumed it).
    #[must_use]
    pub unsafe fn adopt_free(&self, offset: u64) -> Option<FreeFrame> {
        let (base, _) = self.locate(offset)?;
        // SAFETY: the caller guarantees that nobody else holds the frame.
        Some(unsafe { FreeFrame::from_base(base) })
    }

    /// Takes a received packet from the kernel; `None` when it does not lie inside one frame.
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
        Some(unsafe { FreeFrame::from_base(base) }.into_packet(start, len, port))
    }

    fn offset(&self, ptr: *mut u8) -> u64 {
        let offset = (ptr as usize).wrapping_sub(self.base.as_ptr() as usize);
        assert!(offset < self.len(), "a frame was released to a region it does not belong to");
        offset as u64
    }

    fn locate(&self, offset: u64) -> Option<(NonNull<u8>, u16)> {
        let offset = usize::try_from(offset).ok().filter(|&o| o < self.len())?;
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
