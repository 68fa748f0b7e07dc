//! Bounds-checked access to the bytes of a frame.
//!
//! The kernel program implements [`View`] over the raw packet pointers, user space over `[u8]`.
//! There is one required method, so there is one place where bounds are checked: the form that the
//! BPF verifier wants to see (offset plus constant size compared with the end) in the kernel, a
//! slice look-up in user space. Offsets that a frame does not have give `None`, never a panic.

/// A frame that can be read at an offset.
pub trait View {
    /// The `N` octets at offset `at`; `None` when the frame ends before them.
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// The octet at offset `at`.
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        self.octets::<1>(at).map(|[octet]| octet)
    }

    /// The 16-bit number in network order at offset `at`.
    #[inline(always)]
    fn be16(&self, at: usize) -> Option<u16> {
        self.octets(at).map(u16::from_be_bytes)
    }

    /// The 32-bit number in network order at offset `at`.
    #[inline(always)]
    fn be32(&self, at: usize) -> Option<u32> {
        self.octets(at).map(u32::from_be_bytes)
    }
}

impl View for [u8] {
    #[inline]
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads inside the frame give network order; reads that leave it, by any distance, give none.
    #[test]
    fn reads_are_checked() {
        let frame: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(frame.u8(4), Some(5));
        assert_eq!(frame.be16(3), Some(0x0405));
        assert_eq!(frame.be32(1), Some(0x0203_0405));
        assert_eq!(frame.octets(0), Some([1, 2, 3, 4, 5]));
        assert_eq!(frame.u8(5), None);
        assert_eq!(frame.be16(4), None);
        assert_eq!(frame.be32(2), None);
        assert_eq!(frame.be32(usize::MAX), None);
        assert_eq!(frame.octets::<16>(0), None);
    }
}
