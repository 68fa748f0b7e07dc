//! SAs in their slots, and the snapshot in which every worker finds them.
//!
//! A worker's table has a fixed number of slots; control puts SAs into them by command. Where an SA
//! lives is published to all workers as a [`Snapshot`], so that any of them can find the owner.

use std::net::IpAddr;

use culvert_esp::InboundSa;
use culvert_esp::OutboundSa;
use culvert_spd::Compiled;
use culvert_spd::Group;
use rustc_hash::FxHashMap;

use crate::fate::DropReason;
use crate::next_hop::NextHop;
use crate::worker::WorkerId;

/// Where an SA lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Its slot in that worker's table of its direction.
    pub slot: u32,
}

/// What all workers need to find SAs: policies, inbound SAs by SPI, outbound SAs by group.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Policies.
    pub spd: Compiled,
    /// Inbound SAs by SPI.
    pub directory: FxHashMap<u32, Location>,
    /// The outbound SA of each group.
    pub groups: FxHashMap<Group, Location>,
}

/// An inbound SA in its slot.
#[derive(Debug)]
pub struct InboundEntry<K> {
    /// The SA.
    pub sa: InboundSa<K>,
    /// The group that inbound policies must name for what comes out of the SA.
    pub group: Group,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

impl<K> InboundEntry<K> {
    /// An entry without history.
    #[must_use]
    pub fn new(sa: InboundSa<K>, group: Group) -> InboundEntry<K> {
        InboundEntry { sa, group, dropped: [0; DropReason::COUNT] }
    }
}

/// An outbound SA in its slot.
#[derive(Debug)]
pub struct OutboundEntry<K> {
    /// The SA.
    pub sa: OutboundSa<K>,
    /// Numbers left in the lease at which control is asked for the next one; 0 for no lease.
    pub lease_low: u64,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    pub(crate) lease_asked: bool,
    pub(crate) next_hop: Option<NextHop>,
    pub(crate) next_hop_generation: u64,
}

impl<K> OutboundEntry<K> {
    /// An entry without history.
    #[must_use]
    pub fn new(sa: OutboundSa<K>, lease_low: u64) -> OutboundEntry<K> {
        OutboundEntry {
            sa,
            lease_low,
            dropped: [0; DropReason::COUNT],
            lease_asked: false,
            next_hop: None,
            next_hop_generation: 0,
        }
    }
}

/// What one SA did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaSample {
    /// Its SPI.
    pub spi: u32,
    /// True for inbound.
    pub inbound: bool,
    /// Destination of its outer header: SPIs of outbound SAs are unique for each destination only.
    pub destination: IpAddr,
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of ESP text of those.
    pub bytes: u64,
    /// Highest number accepted, or last number used.
    pub sequence: u64,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

/// The SAs of one worker, by slot.
#[derive(Debug)]
pub(crate) struct Table<E> {
    slots: Vec<Option<Box<E>>>,
}

impl<E> Table<E> {
    pub(crate) fn new(slots: usize) -> Table<E> {
        Table { slots: std::iter::repeat_with(|| None).take(slots).collect() }
    }

    #[inline]
    pub(crate) fn at(&self, slot: u32) -> Option<&E> {
        self.slots.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut E> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Puts an entry into a slot and returns what was there.
    ///
    /// # Panics
    /// When there is no such slot: control knows the size of the table.
    pub(crate) fn replace(&mut self, slot: u32, entry: Option<Box<E>>) -> Option<Box<E>> {
        std::mem::replace(&mut self.slots[slot as usize], entry)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }
}

impl<K> Table<InboundEntry<K>> {
    pub(crate) fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.entries().map(|entry| {
            let (packets, bytes) = entry.sa.usage();
            SaSample {
                spi: entry.sa.spi().value(),
                inbound: true,
                destination: entry.sa.destination(),
                packets,
                bytes,
                sequence: entry.sa.highest(),
                dropped: entry.dropped,
            }
        })
    }
}

impl<K> Table<OutboundEntry<K>> {
    pub(crate) fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.entries().map(|entry| {
            let (packets, bytes) = entry.sa.usage();
            SaSample {
                spi: entry.sa.spi().value(),
                inbound: false,
                destination: entry.sa.template.destination(),
                packets,
                bytes,
                sequence: entry.sa.sequence.last(),
                dropped: entry.dropped,
            }
        })
    }
}
