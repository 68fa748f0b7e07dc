//! Selectors as boxes, packets as points, in a space of five axes.
//!
//! The last two axes are ports, source and destination. What else there is above IP lies beyond all
//! ports, each at a place of its own: OPAQUE and "nothing" on both, ICMP and mobility types on the
//! first axis and a mark on the second.

use std::fmt::Debug;
use std::hash::Hash;
use std::num::NonZeroU32;

use crate::Action;
use crate::AddressSelector;
use crate::Flow;
use crate::Policy;
use crate::PortSelector;
use crate::Selector;
use crate::Upper;
use crate::UpperSelector;

/// Number of axes.
pub(super) const AXES: usize = 5;
pub(super) const SOURCE: usize = 0;
pub(super) const DESTINATION: usize = 1;

const PORT_MAX: u32 = 0xffff;
const OPAQUE: u32 = PORT_MAX + 1;
const NOTHING: u32 = PORT_MAX + 2;
const ICMP: u32 = PORT_MAX + 3;
const MOBILITY: u32 = PORT_MAX + 4;
const LAST: u32 = MOBILITY;

/// A coordinate: 32 bits in the space of IPv4, 128 in that of IPv6.
pub(super) trait Word: Copy + Ord + Hash + Debug + Default + From<u32> + Into<u128> {
    /// Bits of an address.
    const BITS: u32;
    /// True for IPv4.
    const IS_V4: bool;

    /// The same number; the largest one when it does not fit, which no address of the family does.
    fn cut(number: u128) -> Self;

    /// The start of the block of 2^`host` addresses around this one.
    fn floor(self, host: u32) -> Self;

    /// `(self - base) >> shift`, or `usize::MAX` when that is more. `self` is not below `base`.
    fn steps(self, base: Self, shift: u32) -> usize;
}

impl Word for u32 {
    const BITS: u32 = 32;
    const IS_V4: bool = true;

    #[inline]
    fn cut(number: u128) -> u32 {
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    #[inline]
    fn floor(self, host: u32) -> u32 {
        self & u32::MAX.checked_shl(host).unwrap_or(0)
    }

    #[inline]
    fn steps(self, base: u32, shift: u32) -> usize {
        ((self - base) >> shift) as usize
    }
}

impl Word for u128 {
    const BITS: u32 = 128;
    const IS_V4: bool = false;

    #[inline]
    fn cut(number: u128) -> u128 {
        number
    }

    #[inline]
    fn floor(self, host: u32) -> u128 {
        self & u128::MAX.checked_shl(host).unwrap_or(0)
    }

    #[inline]
    fn steps(self, base: u128, shift: u32) -> usize {
        usize::try_from((self - base) >> shift).unwrap_or(usize::MAX)
    }
}

/// A packet.
pub(super) type Point<W> = [W; AXES];

/// A box, both ends included on each axis, and the policy it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region<W> {
    pub(super) low: Point<W>,
    pub(super) high: Point<W>,
    /// Position of the policy in its list.
    pub(super) policy: u32,
    pub(super) action: Action,
    /// When the box is more than the selector: 1 + the place of the selector among such ones.
    pub(super) coarse: Option<NonZeroU32>,
}

const _: () = assert!(size_of::<Region<u32>>() == 56);

impl<W: Word> Region<W> {
    #[inline]
    pub(super) fn holds(&self, point: &Point<W>) -> bool {
        // Without a branch for each axis.
        (0..AXES).fold(true, |inside, axis| {
            inside & (self.low[axis] <= point[axis]) & (point[axis] <= self.high[axis])
        })
    }

    /// True when no packet within `low` and `high` gets past this box.
    pub(super) fn covers(&self, low: &Point<W>, high: &Point<W>) -> bool {
        self.coarse.is_none() && self.holds(low) && self.holds(high)
    }
}

/// Where a packet lies.
#[inline]
pub(super) fn point<W: Word>(flow: &Flow) -> Point<W> {
    let (first, second) = match flow.upper {
        Upper::Ports { source, destination } => (source.into(), destination.into()),
        Upper::Icmp(number) => (number.into(), ICMP),
        Upper::Mobility(number) => (number.into(), MOBILITY),
        Upper::None => (NOTHING, NOTHING),
        Upper::Opaque => (OPAQUE, OPAQUE),
    };
    [
        W::cut(flow.addresses.source),
        W::cut(flow.addresses.destination),
        u32::from(flow.protocol).into(),
        W::from(first),
        W::from(second),
    ]
}

/// The whole space.
pub(super) fn space<W: Word>() -> (Point<W>, Point<W>) {
    let max = W::cut(u128::MAX);
    ([W::from(0); AXES], [max, max, W::from(0xff), W::from(LAST), W::from(LAST)])
}

/// Appends the boxes of the policy at a `position`, those of the family of `W`, at most
/// `allowance`.
///
/// False when that is too few: the boxes are then more than the selector, and their `coarse` is
/// `next` + 1.
pub(super) fn extend<W: Word>(
    regions: &mut Vec<Region<W>>,
    policy: &Policy,
    position: u32,
    allowance: usize,
    next: u32,
) -> bool {
    let selector = &policy.selector;
    let mut sources = addresses::<W>(selector.source());
    let mut destinations = addresses::<W>(selector.destination());
    let mut uppers = uppers(selector);
    let mut coarse = None;
    for step in 0..3 {
        if sources.len().saturating_mul(destinations.len()).saturating_mul(uppers.len())
            <= allowance
        {
            break;
        }
        coarse = NonZeroU32::new(next + 1);
        match step {
            0 => uppers = vec![hull(uppers)],
            1 => sources = vec![hull(sources.into_iter().map(|pair| [pair]))[0]],
            _ => destinations = vec![hull(destinations.into_iter().map(|pair| [pair]))[0]],
        }
    }
    let protocols = selector.protocol().map_or((0, 0xff), |one| (one.into(), one.into()));
    let (low, high) = (W::from(protocols.0), W::from(protocols.1));
    for source in &sources {
        for to in &destinations {
            for [first, second] in &uppers {
                let (first, second) = (first.map(W::from), second.map(W::from));
                regions.push(Region {
                    low: [source[0], to[0], low, first[0], second[0]],
                    high: [source[1], to[1], high, first[1], second[1]],
                    policy: position,
                    action: policy.action,
                    coarse,
                });
            }
        }
    }
    coarse.is_none()
}

/// Low and high end on one axis.
type Ends<T> = [T; 2];

/// The smallest ends, axis by axis, around all of `parts`, of which there is at least one.
fn hull<T: Copy + Ord, const N: usize>(
    parts: impl IntoIterator<Item = [Ends<T>; N]>,
) -> [Ends<T>; N] {
    let around = |mut hull: [Ends<T>; N], part: [Ends<T>; N]| {
        for (hull, part) in hull.iter_mut().zip(part) {
            *hull = [hull[0].min(part[0]), hull[1].max(part[1])];
        }
        hull
    };
    parts.into_iter().reduce(around).expect("more parts than an allowance")
}

/// The ranges of the family of `W`.
fn addresses<W: Word>(selector: &AddressSelector) -> Vec<Ends<W>> {
    match selector {
        AddressSelector::Any => vec![[W::from(0), W::cut(u128::MAX)]],
        AddressSelector::Ranges(ranges) => ranges
            .iter()
            .filter(|range| range.is_v4 == W::IS_V4)
            .map(|range| [W::cut(range.start), W::cut(range.end)])
            .collect(),
    }
}

/// The ends on the two axes above the protocol.
fn uppers(selector: &Selector) -> Vec<[Ends<u32>; 2]> {
    const OPAQUE_ONLY: [Ends<u32>; 2] = [[OPAQUE, OPAQUE]; 2];
    let mut shown = match selector.upper() {
        UpperSelector::Any => return vec![[[0, LAST]; 2]],
        UpperSelector::Opaque => return vec![OPAQUE_ONLY],
        UpperSelector::Icmp(range) => {
            vec![[[u32::from(*range.start()), u32::from(*range.end())], [ICMP; 2]]]
        }
        UpperSelector::Mobility(range) => {
            vec![[[u32::from(*range.start()), u32::from(*range.end())], [MOBILITY; 2]]]
        }
        UpperSelector::Ports { source, destination } => {
            let destinations = ports(destination);
            let pairs = |from| destinations.iter().map(move |&to| [from, to]);
            ports(source).into_iter().flat_map(pairs).collect()
        }
    };
    if selector.fragments_too() {
        shown.push(OPAQUE_ONLY);
    }
    shown
}

fn ports(selector: &PortSelector) -> Vec<Ends<u32>> {
    match selector {
        PortSelector::Any => vec![[0, PORT_MAX]],
        PortSelector::Ranges(ranges) => {
            ranges.iter().map(|range| [(*range.start()).into(), (*range.end()).into()]).collect()
        }
    }
}
