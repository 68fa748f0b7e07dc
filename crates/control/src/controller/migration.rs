//! How SAs move between workers: [`culvert_engine::moves`] says how packets find them meanwhile.
//!
//! The old owner confirms that it has passed the SA on, behind all else that it said of it; the new
//! one that it has come. When both have, an edition names the new place, and behind that edition
//! both are told to forget the move.

use std::sync::Arc;

use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_engine::Command;
use culvert_engine::Location;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Limit;
use culvert_engine::moves::MOVES_MAX;
use culvert_engine::moves::Move;

use super::ControlError;
use super::Controller;
use super::Placement;
use super::SaId;
use super::record::Stage;
use crate::sa::Direction;

/// A move that not everybody knows of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    id: SaId,
    moved: Move,
    has_left: bool,
    has_come: bool,
    /// The edition that names the new place, once both have confirmed.
    edition: Option<u64>,
}

impl<A: Aead> Controller<A> {
    /// Moves an SA to another worker, with its counter or window. Its packets go on meanwhile, over
    /// the old owner, and none is lost while rings between workers have room.
    ///
    /// # Errors
    /// When there is no such SA or worker, the worker has no room, the SA is bound to where it is,
    /// or is not at rest, or too many others are not.
    pub fn migrate_sa(&mut self, id: SaId, worker: WorkerId) -> Result<(), ControlError> {
        let record = self.records.get(&id).filter(|record| !record.is_doomed);
        let record = record.ok_or(ControlError::UnknownSa(id))?;
        let is_moving = self.migrations.iter().any(|migration| migration.id == id);
        if record.stage != Stage::Installed || is_moving || self.migrations.len() == MOVES_MAX {
            return Err(ControlError::Moving(id));
        }
        let is_bundled = |group| self.bundles.is_bundled(record.direction, group);
        if record.resource.is_some() || record.groups().any(is_bundled) {
            return Err(ControlError::Bound(id));
        }
        let (direction, from) = (record.direction, record.location);
        if from.worker == worker {
            return Ok(());
        }
        let target = self.workers.get_mut(usize::from(worker.0));
        let target = target.ok_or(ControlError::UnknownWorker(worker))?;
        let slot = target.slots(direction).take(id).ok_or(ControlError::Full(self.slots))?;
        let to = Location { worker, slot };
        let moved = Move { inbound: direction == Direction::Inbound, from, to };
        self.record_mut(id)?.stage = Stage::Moving(to);
        self.migrations.push(Migration {
            id,
            moved,
            has_left: false,
            has_come: false,
            edition: None,
        });
        self.pass(moved);
        Ok(())
    }

    fn pass(&mut self, moved: Move) {
        let handle = &self.workers[usize::from(moved.to.worker.0)].handle;
        let recipient = handle.mailbox.recipient(Arc::clone(&handle.wake));
        self.command(moved.from.worker, Command::Pass(moved, recipient));
    }

    /// A worker has passed an SA on, or is to try again.
    pub(super) fn left(&mut self, moved: Move, has_left: bool) {
        if !has_left {
            return self.pass(moved);
        }
        let migration = self.migrations.iter_mut().find(|migration| migration.moved == moved);
        let migration = migration.expect("only SAs that move are passed on");
        migration.has_left = true;
        let id = migration.id;
        self.complete(id);
    }

    /// An SA that moves has come to its new worker.
    pub(super) fn arrived(&mut self, id: SaId) {
        let mut migrations = self.migrations.iter_mut();
        let migration = migrations.find(|migration| migration.id == id && !migration.has_come);
        migration.expect("only SAs that move come from a worker").has_come = true;
        self.complete(id);
    }

    /// Once both workers have confirmed, the SA is at its new place; and what was said while it was
    /// on its way is said.
    fn complete(&mut self, id: SaId) {
        let done = |migration: &&Migration| migration.has_left && migration.has_come;
        let mut migrations = self.migrations.iter();
        let Some(Migration { moved, .. }) =
            migrations.find(|migration| migration.id == id).filter(done).copied()
        else {
            return;
        };
        let Move { inbound, from, to } = moved;
        // Until then, packets on their way to the old slot must find it empty.
        let edition = self.relocate(id, to);
        let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        self.slots_at(from, direction).leave(from.slot, Some(edition));
        for migration in self.migrations.iter_mut().filter(|migration| migration.id == id) {
            migration.edition = Some(edition);
        }
        let record = self.records.get_mut(&id).expect("SAs that move are of record");
        record.stage = Stage::Installed;
        let (peer, lifetime, is_doomed) = (record.peer, record.lifetime.take(), record.is_doomed);
        // One that is to go away has no claim any more.
        if inbound && !is_doomed {
            self.claims.relocate(record.protocol, record.spi, from, to);
        }
        self.note_place(id, true);
        let Location { worker, slot } = to;
        if let Some(peer) = peer {
            self.command(worker, Command::Retarget { inbound, slot, peer });
        }
        if let Some(lifetime) = lifetime {
            let limit = Limit { inbound, slot, lifetime: *lifetime };
            self.command(worker, Command::Limit(Box::new(limit)));
        }
        if !inbound && let Some(ceiling) = self.leases.ceiling(id) {
            self.command(worker, Command::Lease { slot, ceiling });
        }
        // One that is to go away is asked when it goes.
        match is_doomed {
            true => self.dismiss(id),
            false => self.inspect_deferred(id),
        }
        // What it waits for may have come meanwhile.
        self.due.push(id);
    }

    /// Notes where an SA lives, or that it is gone.
    pub(super) fn note_place(&mut self, id: SaId, is_there: bool) {
        let (Some(placements), Some(record)) = (&mut self.placements, self.records.get(&id)) else {
            return;
        };
        let is_inbound_esp =
            (record.direction, record.protocol) == (Direction::Inbound, Protocol::Esp);
        if is_inbound_esp && record.origin.is_none() {
            let worker = is_there.then_some(record.location.worker);
            let (spi, destination) = (record.spi, record.destination);
            placements.push(Placement { id, spi, destination, worker });
        }
    }

    /// An edition is on its way: behind it, the old places are forgotten of which it names the new
    /// ones.
    pub(super) fn settle_moves(&mut self, sent: u64) {
        let is_done = |migration: &mut Migration| migration.edition.is_some_and(|e| e <= sent);
        let done: Vec<Migration> = self.migrations.extract_if(.., is_done).collect();
        for Migration { moved, .. } in done {
            self.command(moved.from.worker, Command::Settle(moved));
            self.command(moved.to.worker, Command::Settle(moved));
        }
    }
}
