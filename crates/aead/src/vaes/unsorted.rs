//! Packets as they came, with those that come next asked for to be in the cache.

use crate::port::Op;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::key::KernelKey;
use crate::vaes::math::VECTOR;
use crate::vaes::short;
use crate::vaes::short::FOUR;
use crate::vaes::short::Fours;
use crate::vaes::sorted::FOURS_AHEAD;
use crate::x86::block::BLOCK;
use crate::x86::schedule::KEYS_256;

/// How many packets ahead those are prepared that run one by one.
pub(super) const AHEAD: usize = 2;

/// Whether the packets have the same key, length and upper half of the number.
#[inline(always)]
pub(super) fn are_alike(ops: &[Op<'_, ProviderKey>]) -> bool {
    let [first, others @ ..] = ops else { return true };
    others.iter().all(|op| {
        std::ptr::eq(op.key, first.key)
            && op.esp.len() == first.esp.len()
            && op.esn_high == first.esn_high
    })
}

/// Packets that run one by one, as they came.
pub(super) struct Singly<'a, 'b> {
    left: &'b mut [Op<'a, ProviderKey>],
}

impl<'a, 'b> Singly<'a, 'b> {
    pub(super) fn new(ops: &'b mut [Op<'a, ProviderKey>]) -> Singly<'a, 'b> {
        for (op, next) in ops.iter().zip(ops.iter().skip(1)).take(AHEAD - 1) {
            prefetch(next, op.key);
        }
        Singly { left: ops }
    }
}

impl<'a, 'b> Iterator for Singly<'a, 'b> {
    type Item = &'b mut Op<'a, ProviderKey>;

    #[inline(always)]
    fn next(&mut self) -> Option<&'b mut Op<'a, ProviderKey>> {
        let (op, left) = std::mem::take(&mut self.left).split_first_mut()?;
        self.left = left;
        if let Some(later) = self.left.get(AHEAD - 1) {
            prefetch(later, op.key);
        }
        Some(op)
    }
}

/// Asks for text and key of a packet; not for a key that is at hand.
#[inline(always)]
pub(super) fn prefetch(op: &Op<'_, ProviderKey>, at_hand: &ProviderKey) {
    if !std::ptr::eq(op.key, at_hand) {
        prefetch_lines(op.key, KernelKey::lines(KEYS_256, op.esp.len() / BLOCK));
    }
    prefetch_lines(op.esp.as_ptr(), 0..op.esp.len().div_ceil(VECTOR));
}

/// Packets of one SA and one length, as they came: what a busy stream is made of.
pub(super) struct Alike<'a, 'b> {
    left: &'b mut [[Op<'a, ProviderKey>; FOUR]],
}

impl<'a, 'b> Alike<'a, 'b> {
    pub(super) fn new(ops: &'b mut [Op<'a, ProviderKey>]) -> Alike<'a, 'b> {
        Alike { left: ops.as_chunks_mut().0 }
    }
}

impl<'a, 'b> Fours<'a, 'b> for Alike<'a, 'b> {
    const ALIKE: bool = true;

    #[inline(always)]
    fn next<const KEYS: usize, const VECTORS: usize>(
        &mut self,
    ) -> Option<[&'b mut Op<'a, ProviderKey>; FOUR]> {
        let ([a, b, c, d], left) = std::mem::take(&mut self.left).split_first_mut()?;
        self.left = left;
        if let Some(four) = self.left.get(FOURS_AHEAD - 1) {
            four.iter().for_each(short::prefetch_text::<VECTORS>);
        }
        Some([a, b, c, d])
    }
}
