//! The boxes of one address family, by the blocks their addresses lie in.

use rustc_hash::FxHashMap;

use crate::address::last_of_block;
use crate::compiled::axis::Axis;
use crate::compiled::axis::Span;
use crate::compiled::region::DESTINATION;
use crate::compiled::region::Point;
use crate::compiled::region::Region;
use crate::compiled::region::SOURCE;
use crate::compiled::region::Word;
use crate::compiled::region::space;
use crate::compiled::tree::Forest;
use crate::compiled::tree::Tree;

/// Pairs of block sizes that are all probed, at most; if there are more, axes tell which.
const SPACES_MAX: usize = 16;

/// The boxes of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Table<W> {
    /// Pairs of block sizes, in the order of their first policies.
    spaces: Box<[Space]>,
    /// Sources and destinations, when there are many spaces.
    axes: Option<[Axis<W>; 2]>,
    pairs: FxHashMap<Key<W>, Pair>,
    forest: Forest<W>,
}

/// The pairs of blocks of the same two sizes.
#[derive(Clone, Copy, Debug)]
struct Space {
    source_host: u32,
    destination_host: u32,
    /// The first policy of them.
    first: u32,
}

/// A pair of blocks: where they start, and both sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key<W> {
    source: W,
    destination: W,
    hosts: u32,
}

/// The boxes of a pair of blocks.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// The first policy of them.
    first: u32,
    tree: Tree,
}

impl<W: Word> Key<W> {
    #[inline]
    fn new(source: W, source_host: u32, destination: W, destination_host: u32) -> Key<W> {
        Key { source, destination, hosts: source_host << 8 | destination_host }
    }

    /// Sizes of the source and of the destination block, as powers of two.
    fn hosts(&self) -> (u32, u32) {
        (self.hosts >> 8, self.hosts & 0xff)
    }

    /// The part of the space that lies in these blocks.
    fn room(&self) -> (Point<W>, Point<W>) {
        let (mut low, mut high) = space();
        let (source_host, destination_host) = self.hosts();
        for (axis, start, host) in
            [(SOURCE, self.source, source_host), (DESTINATION, self.destination, destination_host)]
        {
            (low[axis], high[axis]) = (start, W::cut(start.into() | last_of_block(host)));
        }
        (low, high)
    }
}

impl<W: Word> Table<W> {
    /// The table of boxes which stand in the order of their policies.
    pub(super) fn new(regions: &[Region<W>]) -> Table<W> {
        Table::with_spaces(regions, SPACES_MAX)
    }

    /// The same; axes are there when there are more than `spaces_max` spaces.
    pub(super) fn with_spaces(regions: &[Region<W>], spaces_max: usize) -> Table<W> {
        let mut places: Vec<(Key<W>, u32)> = Vec::with_capacity(regions.len());
        for (index, region) in (0u32..).zip(regions) {
            for to in covering(region, DESTINATION) {
                for from in covering(region, SOURCE) {
                    let (source, destination) = (W::cut(from.start), W::cut(to.start));
                    places.push((Key::new(source, from.host, destination, to.host), index));
                }
            }
        }
        places.sort_unstable();
        let mut forest = Forest::default();
        let mut pairs = FxHashMap::default();
        let mut spaces: FxHashMap<u32, u32> = FxHashMap::default();
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let (key, head) = group[0];
            let boxes = group.iter().map(|&(_, index)| index).collect();
            let tree = forest.plant(regions, boxes, key.room());
            let first = regions[head as usize].policy;
            pairs.insert(key, Pair { first, tree });
            spaces.entry(key.hosts).and_modify(|space| *space = first.min(*space)).or_insert(first);
        }
        forest.shrink();
        let axes = spaces.len() > spaces_max;
        let axes = axes.then(|| [axis(regions, SOURCE), axis(regions, DESTINATION)]);
        let mut spaces: Box<[Space]> = spaces
            .into_iter()
            .map(|(hosts, first)| Space {
                source_host: hosts >> 8,
                destination_host: hosts & 0xff,
                first,
            })
            .collect();
        spaces.sort_unstable_by_key(|space| space.first);
        Table { spaces, axes, pairs, forest }
    }

    /// The box of the first policy that has one which holds the point and of which `agrees` says
    /// true.
    #[inline]
    pub(super) fn find(
        &self,
        point: &Point<W>,
        agrees: impl Fn(&Region<W>) -> bool,
    ) -> Option<&Region<W>> {
        match &self.axes {
            None => self.find_by_spaces(point, agrees),
            Some(axes) => self.find_by_axes(axes, point, agrees),
        }
    }

    #[inline]
    fn find_by_spaces(
        &self,
        point: &Point<W>,
        agrees: impl Fn(&Region<W>) -> bool,
    ) -> Option<&Region<W>> {
        let mut found = None;
        for space in &self.spaces {
            if before(found) <= space.first {
                break;
            }
            let source = point[SOURCE].floor(space.source_host);
            let destination = point[DESTINATION].floor(space.destination_host);
            let key = Key::new(source, space.source_host, destination, space.destination_host);
            found = self.probe(&key, point, before(found), &agrees).or(found);
        }
        found
    }

    fn find_by_axes(
        &self,
        [source, destination]: &[Axis<W>; 2],
        point: &Point<W>,
        agrees: impl Fn(&Region<W>) -> bool,
    ) -> Option<&Region<W>> {
        let mut found = None;
        let nearest = source.find(point[SOURCE]);
        let mut to = destination.find(point[DESTINATION]);
        while let Some(to_block) = to.filter(|block| block.first < before(found)) {
            let mut from = nearest;
            while let Some(from_block) = from.filter(|block| block.first < before(found)) {
                if to_block.may_meet(from_block, before(found)) {
                    let (from, to) = (from_block, to_block);
                    let key = Key::new(from.start, from.host, to.start, to.host);
                    found = self.probe(&key, point, before(found), &agrees).or(found);
                }
                from = source.around(from_block);
            }
            to = destination.around(to_block);
        }
        found
    }

    /// The box of a pair of blocks, of a policy before `best`.
    #[inline]
    fn probe(
        &self,
        key: &Key<W>,
        point: &Point<W>,
        best: u32,
        agrees: impl Fn(&Region<W>) -> bool,
    ) -> Option<&Region<W>> {
        let pair = self.pairs.get(key).filter(|pair| pair.first < best)?;
        self.forest.find(pair.tree, point, best, agrees)
    }

    /// How many boxes there are, copies included.
    #[cfg(test)]
    pub(super) fn copies(&self) -> usize {
        self.forest.copies()
    }
}

/// The blocks that cover a box on one axis.
fn covering<W: Word>(region: &Region<W>, axis: usize) -> impl Iterator<Item = Span> + use<W> {
    Span::covering(region.low[axis].into(), region.high[axis].into())
}

/// The policy before which another would have to stand to matter.
#[inline]
fn before<W>(found: Option<&Region<W>>) -> u32 {
    found.map_or(u32::MAX, |region| region.policy)
}

/// The axis of the blocks of all boxes.
fn axis<W: Word>(regions: &[Region<W>], axis: usize) -> Axis<W> {
    let mut places: Vec<(Span, u32)> = regions
        .iter()
        .flat_map(|region| covering(region, axis).map(|span| (span, region.policy)))
        .collect();
    places.sort_unstable();
    let (mut spans, mut own) = (Vec::new(), Vec::new());
    for group in places.chunk_by(|a, b| a.0 == b.0) {
        spans.push(group[0].0);
        own.push((group[0].1, group[group.len() - 1].1));
    }
    Axis::new(&spans, &own)
}
