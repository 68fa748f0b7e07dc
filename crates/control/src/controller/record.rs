//! What control knows about an installed SA.

use std::fmt;
use std::net::IpAddr;

use culvert_aead::Protocol;
use culvert_engine::Command;
use culvert_engine::InboundEntry;
use culvert_engine::Location;
use culvert_engine::OutboundEntry;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Peer;
use culvert_engine::options::Lookup;
use culvert_engine::snapshot::Sender;
use culvert_esp::Lifetime;
use culvert_frame::SlabBox;
use culvert_spd::Group;

use crate::sa::Direction;
use crate::sa::SaSpec;

/// Identity of an SA for as long as its controller lives; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaId(pub(crate) u64);

impl SaId {
    /// An identity that no controller gave, for what stands in for one.
    #[must_use]
    pub fn stand_in(number: u64) -> SaId {
        SaId(number)
    }
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An SA on its way between control and a worker.
pub(super) enum Entry<K> {
    Inbound(SlabBox<InboundEntry<K>>),
    Outbound(SlabBox<OutboundEntry<K>>),
}

impl<K> Entry<K> {
    /// The command that puts it into a slot.
    pub(super) fn put(self, slot: u32) -> Command<K> {
        match self {
            Entry::Inbound(entry) => Command::Inbound(slot, Some(entry)),
            Entry::Outbound(entry) => Command::Outbound(slot, Some(entry)),
        }
    }
}

/// Where an SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Moved to its slot, whose worker has not confirmed it yet.
    Installing,
    /// In its slot.
    Installed,
    /// Passed on by its worker to another place.
    Moving(Location),
    /// Asked back from its slot, for good.
    Leaving,
}

impl Stage {
    /// True when no worker can be told anything about it.
    pub(super) fn is_on_its_way(self) -> bool {
        matches!(self, Stage::Moving(_) | Stage::Leaving)
    }
}

/// An SA of record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    pub(super) spi: u32,
    pub(super) lookup: Lookup,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Where the peer of an encapsulated SA is.
    pub(super) peer: Option<Peer>,
    /// Where the peer of an encapsulated SA was when it was made: SAs for which that is equal share
    /// a path.
    pub(super) origin: Option<Peer>,
    pub(super) group: Group,
    /// Of an outbound SA: a group that it has for itself.
    pub(super) alias: Option<Group>,
    pub(super) resource: Option<WorkerId>,
    pub(super) replay_window: u32,
    pub(super) location: Location,
    pub(super) stage: Stage,
    /// Limits that it got while it was on its way: large, and seldom there.
    pub(super) lifetime: Option<Box<Lifetime>>,
    /// It is to go away.
    pub(super) is_doomed: bool,
    /// Of an outbound SA: takes no packets, though nothing keeps it from that but its owner's will.
    pub(super) is_standby: bool,
    /// Of an outbound SA: takes no packets before all workers know this inbound SA.
    pub(super) after: Option<SaId>,
    /// Goes away once all workers know this successor.
    pub(super) until: Option<SaId>,
    /// Of an outbound SA: the latest of those of a group that are ready takes the packets.
    pub(super) order: u64,
    pub(super) is_ready: bool,
    /// Packets find it, or will when the last edition is taken up.
    pub(super) is_listed: bool,
    /// The edition that names its present location.
    pub(super) named: Option<u64>,
    /// The first edition that gives it packets.
    pub(super) took_over: Option<u64>,
    /// The edition that names its present location no more.
    pub(super) forgotten: Option<u64>,
}

impl Record {
    pub(super) fn new(spec: &SaSpec, location: Location, order: u64) -> Record {
        let origin = spec.encapsulation.map(|ports| match spec.direction {
            Direction::Inbound => Peer { address: spec.source, port: ports.source_port },
            Direction::Outbound => Peer { address: spec.destination, port: ports.destination_port },
        });
        Record {
            direction: spec.direction,
            protocol: spec.algorithm.protocol(),
            spi: spec.spi.value(),
            lookup: spec.lookup,
            source: spec.source,
            destination: spec.destination,
            peer: origin,
            origin,
            group: spec.group,
            alias: spec.groups().nth(1),
            resource: spec.resource,
            replay_window: spec.replay_window,
            location,
            stage: Stage::Installing,
            lifetime: None,
            is_doomed: false,
            is_standby: false,
            after: None,
            until: None,
            order,
            is_ready: false,
            is_listed: false,
            named: None,
            took_over: None,
            forgotten: None,
        }
    }

    /// The groups that it is a member of.
    pub(super) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        [Some(self.group), self.alias].into_iter().flatten()
    }

    /// The worker that has it, or is about to.
    pub(super) fn worker(&self) -> WorkerId {
        match self.stage {
            Stage::Moving(next) => next.worker,
            _ => self.location.worker,
        }
    }

    /// What errors name an outbound SA by.
    pub(super) fn sender(&self) -> Sender {
        (self.protocol, self.spi, self.destination)
    }

    /// All workers know where it is.
    pub(super) fn is_known(&self, taken: u64) -> bool {
        self.named.is_some_and(|edition| edition <= taken)
    }

    /// All workers give it packets.
    pub(super) fn has_taken_over(&self, taken: u64) -> bool {
        self.took_over.is_some_and(|edition| edition <= taken)
    }
}
