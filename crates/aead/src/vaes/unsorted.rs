//! Packets as they came, with those that come next asked for to be in the cache.

use crate::port::Op;
use crate::provider::ProviderKey;
use crate::vaes::ahead::Ahead;
use crate::vaes::short;
use crate::vaes::short::FOUR;
use crate::vaes::short::Fours;
use crate::vaes::sorted::FOURS_AHEAD;

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
            Ahead::of(next, op.key).ask();
        }
        Singly { left: ops }
    }
}

impl<'a, 'b> Iterator for Singly<'a, 'b> {
    type Item = (&'b mut Op<'a, ProviderKey>, Ahead);

    #[inline(always)]
    fn next(&mut self) -> Option<(&'b mut Op<'a, ProviderKey>, Ahead)> {
        let (op, left) = std::mem::take(&mut self.left).split_first_mut()?;
        self.left = left;
        let ahead = self.left.get(AHEAD - 1).map_or(Ahead::NONE, |later| Ahead::of(later, op.key));
        Some((op, ahead))
    }
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
