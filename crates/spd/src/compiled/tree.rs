//! Boxes that lie in the same pair of blocks, separated by cuts.
//!
//! A few boxes are a row to be compared one after the other, in the order of policies. Many are cut
//! in two at a place on one axis, those on both sides of it copied, and so on. Boxes behind one
//! that covers all of what a cut has left can never be met and are forgotten.

use crate::compiled::region::AXES;
use crate::compiled::region::Point;
use crate::compiled::region::Region;
use crate::compiled::region::Word;

/// Boxes that are not worth a cut.
const ROW: usize = 8;
/// Copies of boxes that cuts may make, for each box there was.
const SPARE: usize = 2;
/// Boxes looked at, about, to choose where to cut.
const SAMPLE: usize = 512;

/// All rows and cuts.
#[derive(Clone, Debug)]
pub(super) struct Forest<W> {
    regions: Vec<Region<W>>,
    cuts: Vec<Cut<W>>,
}

/// Where to go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tree {
    /// A row of boxes.
    Row { start: u32, len: u32 },
    /// A cut, by number.
    Cut(u32),
}

/// Points below `at` on the axis go on at `below`, the others at `above`.
#[derive(Clone, Copy, Debug)]
struct Cut<W> {
    axis: usize,
    at: W,
    below: Tree,
    above: Tree,
}

/// A corner and the one opposite.
type Room<W> = (Point<W>, Point<W>);

impl<W> Default for Forest<W> {
    fn default() -> Forest<W> {
        Forest { regions: Vec::new(), cuts: Vec::new() }
    }
}

impl<W: Word> Forest<W> {
    /// A tree of the boxes `picked` from all `regions`, for points in a room.
    pub(super) fn plant(&mut self, regions: &[Region<W>], picked: Vec<u32>, room: Room<W>) -> Tree {
        let spare = picked.len() * SPARE;
        self.grow(regions, picked, room, spare)
    }

    /// No more trees follow.
    pub(super) fn shrink(&mut self) {
        self.regions.shrink_to_fit();
        self.cuts.shrink_to_fit();
    }

    /// How many boxes there are, copies included.
    #[cfg(test)]
    pub(super) fn copies(&self) -> usize {
        self.regions.len()
    }

    /// As [`plant`](Self::plant), with `spare` copies to make at most. A cut leaves at most three
    /// quarters on each side, which bounds the depth.
    fn grow(
        &mut self,
        regions: &[Region<W>],
        mut picked: Vec<u32>,
        room: Room<W>,
        spare: usize,
    ) -> Tree {
        let all = |index: &u32| &regions[*index as usize];
        if let Some(last) = picked.iter().position(|index| all(index).covers(&room.0, &room.1)) {
            picked.truncate(last + 1);
        }
        let cut = if picked.len() <= ROW { None } else { choose(regions, &picked, &room) };
        let Some((axis, at, copies)) = cut.filter(|&(_, _, copies)| copies <= spare) else {
            return self.row(picked.iter().map(all));
        };
        let below: Vec<u32> =
            picked.iter().copied().filter(|index| all(index).low[axis] < at).collect();
        let above: Vec<u32> =
            picked.iter().copied().filter(|index| all(index).high[axis] >= at).collect();
        drop(picked);
        let spare = spare - copies;
        let share = spare * below.len() / (below.len() + above.len()).max(1);
        let (mut left, mut right) = (room, room);
        left.1[axis] = W::cut(at.into() - 1);
        right.0[axis] = at;
        let number = self.cuts.len();
        let nowhere = Tree::Row { start: 0, len: 0 };
        self.cuts.push(Cut { axis, at, below: nowhere, above: nowhere });
        self.cuts[number].below = self.grow(regions, below, left, share);
        self.cuts[number].above = self.grow(regions, above, right, spare - share);
        Tree::Cut(count(number))
    }

    fn row<'a>(&mut self, row: impl Iterator<Item = &'a Region<W>>) -> Tree
    where
        W: 'a,
    {
        let start = self.regions.len();
        self.regions.extend(row);
        Tree::Row { start: count(start), len: count(self.regions.len() - start) }
    }

    /// The first box of a policy before `best` which holds the point and of which `agrees` says
    /// true.
    #[inline]
    pub(super) fn find(
        &self,
        mut tree: Tree,
        point: &Point<W>,
        best: u32,
        agrees: impl Fn(&Region<W>) -> bool,
    ) -> Option<&Region<W>> {
        let (start, len) = loop {
            match tree {
                Tree::Row { start, len } => break (start as usize, len as usize),
                Tree::Cut(number) => {
                    let cut = &self.cuts[number as usize];
                    tree = if point[cut.axis] < cut.at { cut.below } else { cut.above };
                }
            }
        };
        let row = &self.regions[start..start + len];
        row.iter()
            .take_while(|region| region.policy < best)
            .find(|region| region.holds(point) && agrees(region))
    }
}

/// The best cut: its axis, its place and how many boxes lie on both sides of it. `None` when each
/// leaves more than three quarters of the boxes on one side.
fn choose<W: Word>(
    regions: &[Region<W>],
    picked: &[u32],
    room: &Room<W>,
) -> Option<(usize, W, usize)> {
    let all = || picked.iter().map(|&index| &regions[index as usize]);
    let mut best = None;
    let mut most = picked.len() - picked.len() / 4;
    for axis in 0..AXES {
        let (low, high) = (room.0[axis], room.1[axis]);
        // Boxes begin at the place of a cut or end before it.
        let mut places: Vec<W> = all()
            .step_by(picked.len().div_ceil(SAMPLE))
            .flat_map(|region| {
                let begins = (low < region.low[axis]).then_some(region.low[axis]);
                let ends = (region.high[axis] < high)
                    .then(|| W::cut(region.high[axis].into() + 1))
                    .filter(|&end| low < end);
                begins.into_iter().chain(ends)
            })
            .collect();
        if places.is_empty() {
            continue;
        }
        let middle = places.len() / 2;
        let at = *places.select_nth_unstable(middle).1;
        let below = all().filter(|region| region.low[axis] < at).count();
        let above = all().filter(|region| at <= region.high[axis]).count();
        let worse = below.max(above);
        if worse < most {
            most = worse;
            best = Some((axis, at, (below + above).saturating_sub(picked.len())));
        }
    }
    best
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("far fewer boxes than numbers")
}
