//! A batch of packets of any SAs and sizes, sorted by what `short` runs four at a time of.
//!
//! Sorting needs one look at each key, in a line that its packet needs anyway, and which is asked
//! for first for the whole batch. Nothing is allocated: a kind is an octet of a vector, and its
//! packets are bits of a word.

use std::arch::x86_64::*;

use crate::algorithm::AesSize;
use crate::port::ICV_LEN;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::key::KernelKey;
use crate::vaes::math;
use crate::vaes::math::TAIL_LEN;
use crate::vaes::math::VECTOR;
use crate::vaes::short;
use crate::vaes::short::FOUR;
use crate::vaes::short::Fours;

/// Packets that are sorted at once: a bit of a word, an octet of a vector each.
pub(super) const SORTED: usize = 64;

/// Packets that run one by one, because of their length or key.
pub(super) const ALONE: u8 = 0;

/// The order of the batch.
const AS_THEY_CAME: [u8; SORTED] = {
    let mut order = [0; SORTED];
    let mut at = 0;
    while at < SORTED {
        #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
        let packet = at as u8;
        order[at] = packet;
        at += 1;
    }
    order
};

/// How many fours ahead those are prepared that run four at a time.
pub(super) const FOURS_AHEAD: usize = 2;

/// A key size in the upper half of an octet, a number of vectors in the lower; or [`ALONE`].
#[inline(always)]
pub(super) fn kind(op: &Op<'_, ProviderKey>) -> u8 {
    let ProviderKey::Kernel(key) = op.key else {
        return ALONE;
    };
    if op.esp.len() < MIN_ESP_LEN || op.esp.len() > TAIL_LEN + ICV_LEN {
        return ALONE;
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most five")]
    let vectors = (op.esp.len() - ICV_LEN).div_ceil(VECTOR) as u8;
    vectors
        | match key.size() {
            AesSize::Aes128 => 0x10,
            AesSize::Aes192 => 0x20,
            AesSize::Aes256 => 0x30,
        }
}

/// A packet, until it is its turn.
pub(super) type Slot<'a, 'b> = Option<&'b mut Op<'a, ProviderKey>>;

/// Packets of one kind out of a batch.
pub(super) struct OfAKind<'a, 'b, 'c> {
    slots: &'c mut [Slot<'a, 'b>; SORTED],
    /// Which, from `at` on.
    order: &'c [[u8; FOUR]],
    at: usize,
    /// Whose key is at hand.
    first: *const ProviderKey,
}

impl<'a, 'b, 'c> OfAKind<'a, 'b, 'c> {
    pub(super) fn new(
        slots: &'c mut [Slot<'a, 'b>; SORTED],
        order: &'c [u8],
    ) -> OfAKind<'a, 'b, 'c> {
        let order = order.as_chunks().0;
        OfAKind { slots, order, at: 0, first: std::ptr::null() }
    }

    /// Asks for keys and texts.
    #[inline(always)]
    fn prefetch<const KEYS: usize, const VECTORS: usize>(&self, four: usize) {
        for &packet in self.order.get(four).into_iter().flatten() {
            if let Some(op) = &self.slots[usize::from(packet)] {
                // The one SA of a stream is not asked for again and again.
                if !std::ptr::eq(op.key, self.first) {
                    short::prefetch_key::<KEYS, VECTORS>(op);
                }
                short::prefetch_text::<VECTORS>(op);
            }
        }
    }
}

impl<'a, 'b> Fours<'a, 'b> for OfAKind<'a, 'b, '_> {
    const ALIKE: bool = false;

    #[inline(always)]
    fn next<const KEYS: usize, const VECTORS: usize>(
        &mut self,
    ) -> Option<[&'b mut Op<'a, ProviderKey>; FOUR]> {
        let [a, b, c, d] = *self.order.get(self.at)?;
        if self.at == 0 {
            self.first = std::ptr::from_ref(
                self.slots[usize::from(a)].as_deref().expect("a packet has one turn").key,
            );
            (1..FOURS_AHEAD).for_each(|four| self.prefetch::<KEYS, VECTORS>(four));
        }
        self.prefetch::<KEYS, VECTORS>(self.at + FOURS_AHEAD);
        self.at += 1;
        let [a, b, c, d] = [usize::from(a), usize::from(b), usize::from(c), usize::from(d)];
        let slots = &mut *self.slots;
        let mut take = |at: usize| slots[at].take().expect("a packet has one turn");
        Some([take(a), take(b), take(c), take(d)])
    }
}

/// A batch, by kind.
pub(super) struct Sorted<'a, 'b> {
    pub(super) slots: [Slot<'a, 'b>; SORTED],
    kinds: [u8; SORTED],
    /// Whether there is but one.
    is_uniform: bool,
    pub(super) count: usize,
    /// Which packets are not taken yet, the first of the batch in the lowest bit.
    left: u64,
    pub(super) order: [u8; SORTED],
}

impl<'a, 'b> Sorted<'a, 'b> {
    /// Of one to [`SORTED`] packets.
    #[inline(always)]
    pub(super) fn new(ops: &'b mut [Op<'a, ProviderKey>]) -> Sorted<'a, 'b> {
        let count = ops.len();
        let mut sorted = Sorted {
            slots: [const { None }; SORTED],
            kinds: [ALONE; SORTED],
            is_uniform: true,
            count,
            left: u64::MAX >> (SORTED - count),
            order: AS_THEY_CAME,
        };
        for op in &*ops {
            prefetch_lines(op.key, KernelKey::line_of_size());
        }
        let first = kind(&ops[0]);
        let mut different = 0;
        let places = sorted.slots.iter_mut().zip(&mut sorted.kinds);
        for (op, (slot, its_kind)) in ops.iter_mut().zip(places) {
            *its_kind = kind(op);
            different |= *its_kind ^ first;
            *slot = Some(op);
        }
        sorted.is_uniform = different == 0;
        sorted
    }

    /// The next kind, its packets, and how many of these are for `short`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u8, usize)> {
        if self.left == 0 {
            return None;
        }
        let kind = self.kinds[self.left.trailing_zeros() as usize];
        if self.is_uniform {
            self.left = 0;
        } else {
            let all = _mm512_set1_epi8(kind.cast_signed());
            let mut of_kind = self.left & _mm512_cmpeq_epi8_mask(math::load(&self.kinds), all);
            self.left &= !of_kind;
            self.count = 0;
            while of_kind != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
                let packet = of_kind.trailing_zeros() as u8;
                self.order[self.count] = packet;
                self.count += 1;
                of_kind &= of_kind - 1;
            }
        }
        Some((kind, if kind == ALONE { 0 } else { self.count / FOUR * FOUR }))
    }
}
