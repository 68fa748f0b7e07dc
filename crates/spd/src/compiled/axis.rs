//! The blocks of addresses on one axis, and the chain of those around an address.
//!
//! A filter: it knows which pairs of blocks around a packet may have a policy at all.

use crate::address::last_of_block;
use crate::compiled::region::Word;

/// No block.
const NONE: u32 = u32::MAX;

/// Slots that narrow a search down, at most.
const SLOTS_MAX: usize = 1 << 16;

/// Aligned blocks, and which of them is the smallest around an address.
///
/// The ends of all blocks cut the addresses into intervals, each of which knows the smallest block
/// around it. They are sorted; slots of equal width say between which of them to search.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis<W> {
    /// First address of the interval, and a copy of the smallest block around it.
    intervals: Vec<(W, Block<W>)>,
    /// Of each slot, the interval that holds its first address; last, the last interval.
    slots: Vec<u32>,
    /// First address of the first slot: where the second interval begins.
    base: W,
    /// Addresses of a slot, as a power of two.
    shift: u32,
    blocks: Vec<Block<W>>,
}

/// What a lookup has to know of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<W> {
    /// Its first address.
    pub(super) start: W,
    /// Its addresses, as a power of two.
    pub(super) host: u32,
    /// Number of the next larger block around it, or [`NONE`].
    parent: u32,
    /// The first policy of this block and of those around it.
    pub(super) first: u32,
    /// The first and the last policy of this very block.
    pub(super) own: (u32, u32),
}

impl<W: Word> Block<W> {
    /// True when a policy before `best` may have boxes in this block and in the `other`, each being
    /// the very block: the pair need not be looked up otherwise.
    #[inline]
    pub(super) fn may_meet(&self, other: &Block<W>, best: u32) -> bool {
        let first = self.own.0.max(other.own.0);
        first <= self.own.1.min(other.own.1) && first < best
    }
}

/// An aligned block of 2^`host` addresses from `start`, in the order of nesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u128,
    pub(super) host: u32,
}

impl PartialOrd for Span {
    fn partial_cmp(&self, other: &Span) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Span {
    /// A block stands before those within it.
    fn cmp(&self, other: &Span) -> std::cmp::Ordering {
        self.start.cmp(&other.start).then(other.host.cmp(&self.host))
    }
}

impl Span {
    /// The one or two blocks, each less than twice as long as the range, that cover it.
    pub(super) fn covering(start: u128, end: u128) -> impl Iterator<Item = Span> + Clone {
        let host = u128::BITS - (end - start).leading_zeros();
        let first = Span { start: start & !last_of_block(host), host };
        let second = Span { start: end & !last_of_block(host), host };
        std::iter::once(first).chain((second != first).then_some(second))
    }

    /// First and last address.
    pub(super) fn ends(self) -> (u128, u128) {
        (self.start, self.start | last_of_block(self.host))
    }
}

impl<W: Word> Axis<W> {
    /// The axis with these blocks, sorted and each once, which are numbered in that order; and
    /// with the first and last policy of each.
    pub(super) fn new(spans: &[Span], own: &[(u32, u32)]) -> Axis<W> {
        let last = u128::MAX >> (u128::BITS - W::BITS);
        // Where no block is, no policy is.
        let nowhere = Block {
            start: W::from(0),
            host: W::BITS,
            parent: NONE,
            first: u32::MAX,
            own: (u32::MAX, 0),
        };
        let mut intervals = vec![(W::from(0), nowhere)];
        let mut begin = |start: u128, block: Block<W>| {
            let start = W::cut(start);
            match intervals.last_mut() {
                Some(interval) if interval.0 == start => interval.1 = block,
                _ => intervals.push((start, block)),
            }
        };
        let mut blocks = Vec::with_capacity(spans.len());
        // The blocks that are not over yet, each within the one before: last address and number.
        let mut open: Vec<(u128, u32)> = Vec::new();
        for ((number, span), &own) in (0u32..).zip(spans).zip(own) {
            let (start, end) = span.ends();
            while let Some((over, _)) = open.pop_if(|(end, _)| *end < start) {
                begin(over + 1, open.last().map_or(nowhere, |open| blocks[open.1 as usize]));
            }
            let parent = open.last().map_or(NONE, |open| open.1);
            let around = blocks.get(parent as usize).unwrap_or(&nowhere);
            let first = own.0.min(around.first);
            let block = Block { start: W::cut(start), host: span.host, parent, first, own };
            blocks.push(block);
            begin(start, block);
            open.push((end, number));
        }
        while let Some((over, _)) = open.pop() {
            if over < last {
                begin(over + 1, open.last().map_or(nowhere, |open| blocks[open.1 as usize]));
            }
        }
        let (slots, base, shift) = slots(&intervals);
        Axis { intervals, slots, base, shift, blocks }
    }

    /// The smallest block around the address; where there is none, one without policies.
    #[inline]
    pub(super) fn find(&self, address: W) -> Option<&Block<W>> {
        let last_slot = self.slots.len().checked_sub(2)?;
        if address < self.base {
            return self.intervals.first().map(|(_, block)| block);
        }
        let slot = address.steps(self.base, self.shift).min(last_slot);
        let (from, to) = (self.slots[slot] as usize, self.slots[slot + 1] as usize);
        let behind = self.intervals[from + 1..=to].partition_point(|&(start, _)| start <= address);
        Some(&self.intervals[from + behind].1)
    }

    /// The next larger block around a block.
    #[inline]
    pub(super) fn around(&self, block: &Block<W>) -> Option<&Block<W>> {
        self.blocks.get(block.parent as usize)
    }
}

/// Slots over the intervals, the first address of the first, and the width as a power of two.
fn slots<W: Word>(intervals: &[(W, Block<W>)]) -> (Vec<u32>, W, u32) {
    let base = intervals.get(1).map_or(W::from(0), |&(start, _)| start);
    let span: u128 = intervals.last().map_or(0, |&(last, _)| last.into() - base.into());
    let wanted = intervals.len().next_power_of_two().clamp(2, SLOTS_MAX);
    let shift = (u128::BITS - span.leading_zeros()).saturating_sub(wanted.ilog2());
    let index = |index: usize| u32::try_from(index).expect("two intervals for each block");
    let mut slots = Vec::new();
    let mut interval = 0;
    for slot in 0..=span >> shift {
        let start = W::cut(base.into() + (slot << shift));
        interval += intervals[interval + 1..].partition_point(|&(first, _)| first <= start);
        slots.push(index(interval));
    }
    slots.push(index(intervals.len() - 1));
    (slots, base, shift)
}
