//! Providers that work on a batch packet by packet, in order. What the batch is good for: key
//! contexts are fetched some packets ahead, since with thousands of SAs they are in no near cache.

use crate::port::Op;
use crate::port::Status;
use crate::prefetch::prefetch_first;
use crate::prefetch::prefetch_later;

/// A key that is used on one packet at a time.
pub(crate) trait OneByOne {
    /// One packet of [`Aead::seal`](crate::Aead::seal).
    fn seal(&self, esn_high: Option<u32>, esp: &mut [u8]);

    /// One packet of [`Aead::open`](crate::Aead::open): whether it is authentic.
    fn open(&self, esn_high: Option<u32>, esp: &mut [u8]) -> bool;
}

/// [`Aead::seal`](crate::Aead::seal), packet by packet.
pub(crate) fn seal_each<K: OneByOne>(ops: &mut [Op<'_, K>]) {
    prefetch_first(ops);
    for at in 0..ops.len() {
        prefetch_later(ops, at);
        let op = &mut ops[at];
        op.key.seal(op.esn_high, op.esp);
    }
}

/// [`Aead::open`](crate::Aead::open), packet by packet.
pub(crate) fn open_each<K: OneByOne>(ops: &mut [Op<'_, K>], statuses: &mut [Status]) {
    prefetch_first(ops);
    for (at, status) in (0..ops.len()).zip(statuses) {
        prefetch_later(ops, at);
        let op = &mut ops[at];
        *status = Status::of(op.key.open(op.esn_high, op.esp));
    }
}
