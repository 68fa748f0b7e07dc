//! An ICV that was computed, on the stack.

use ctutils::CtEq;

/// Octets of the longest ICV.
const LONGEST: usize = 32;

/// An ICV, possibly longer than what is sent of it.
pub(super) struct Tag([u8; LONGEST]);

impl Tag {
    /// The first octets of `octets`, as many as there is room for.
    pub(super) fn of(octets: &[u8]) -> Tag {
        let mut tag = [0; LONGEST];
        let len = octets.len().min(LONGEST);
        tag[..len].copy_from_slice(&octets[..len]);
        Tag(tag)
    }

    /// Fills `icv`, which is no longer than the tag.
    pub(super) fn write(&self, icv: &mut [u8]) {
        icv.copy_from_slice(&self.0[..icv.len()]);
    }

    /// Whether `icv` is the start of the tag, found out in a time that depends on its length only.
    pub(super) fn is(&self, icv: &[u8]) -> bool {
        self.0[..icv.len()].ct_eq(icv).to_bool()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every octet that is sent counts, and none behind.
    #[test]
    fn every_octet_counts() {
        let tag = Tag::of(&[7; 64]);
        for len in [8, 12, 16, 24, 32] {
            let mut icv = vec![0; len];
            tag.write(&mut icv);
            assert_eq!(icv, vec![7; len]);
            assert!(tag.is(&icv));
            for bit in 0..len * 8 {
                icv[bit / 8] ^= 1 << (bit % 8);
                assert!(!tag.is(&icv), "{len} octets, bit {bit}");
                icv[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
