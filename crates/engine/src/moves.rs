//! SAs that move between workers under load.
//!
//! Packets find their SA by a snapshot, which all workers have only a while after an SA has moved.
//! So an SA moves like this:
//!
//! 1. its owner passes the entry, with its counter or window, straight into the mailbox of the next
//!    owner, and from then on hands over every packet that still comes for the old place;
//! 2. the next owner looks into its mailbox before packets handed over, so the entry is there
//!    before any packet that follows it. It takes what is handed over for the old place as its own;
//!    what it receives itself goes by the old owner as before, behind what went there already;
//! 3. control publishes the new place, and tells both to forget the old one.
//!
//! So no packet misses the SA, while rings have room, and no moment has two owners. Packets of one
//! source keep their order but for one moment: what is handed directly to the new owner, when its
//! source learns of the new place, may overtake what is still on its way by the old one.

use arrayvec::ArrayVec;

use crate::ids::WorkerId;
use crate::tables::Location;

/// Moves that may be under way to and from one worker. Control sees to it.
pub const MOVES_MAX: usize = 32;

/// What one worker knows of SAs that have left and come lately.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    left: ArrayVec<Move, MOVES_MAX>,
    came: ArrayVec<Move, MOVES_MAX>,
}

/// An SA that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// True for an inbound SA.
    pub inbound: bool,
    /// Where it was.
    pub from: Location,
    /// Where it is.
    pub to: Location,
}

impl Moves {
    /// True when something can be moved away from here.
    pub(crate) fn has_room(&self) -> bool {
        !self.left.is_full()
    }

    pub(crate) fn leave(&mut self, moved: Move) {
        self.left.push(moved);
    }

    pub(crate) fn come(&mut self, moved: Move) {
        self.came.push(moved);
    }

    /// Everybody knows the new place.
    pub(crate) fn settle(&mut self, moved: &Move) {
        self.left.retain(|other| other != moved);
        self.came.retain(|other| other != moved);
    }

    /// Where an SA went that was here, in a slot that is empty now.
    #[cold]
    pub(crate) fn left(&self, inbound: bool, from: Location) -> Option<WorkerId> {
        let mut left = self.left.iter();
        let moved = left.find(|moved| (moved.inbound, moved.from) == (inbound, from))?;
        Some(moved.to.worker)
    }

    /// The slot here of an SA that was elsewhere.
    #[cold]
    pub(crate) fn came(&self, inbound: bool, from: Location) -> Option<u32> {
        let mut came = self.came.iter();
        let moved = came.find(|moved| (moved.inbound, moved.from) == (inbound, from))?;
        Some(moved.to.slot)
    }
}
