//! What is told about single SAs: on request, and at their end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use culvert_aead::Aead;
use culvert_engine::Command;
use culvert_engine::Inspection;
use culvert_engine::Location;
use culvert_esp::WindowState;

use super::ControlError;
use super::Controller;
use super::SaId;
use super::record::Entry;
use crate::sa::Direction;

/// Answers, and SAs that are gone, which are kept until they are taken.
const KEPT_MAX: usize = 4096;

/// An SA that is gone, as it was at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The SA.
    pub id: SaId,
    /// Its direction.
    pub direction: Direction,
    /// Its SPI.
    pub spi: u32,
    /// Last number used, or highest number accepted.
    pub sequence: u64,
    /// What the window of an inbound SA has seen.
    pub window: Option<WindowState>,
    /// Packets made or accepted.
    pub packets: u64,
    /// Octets of ESP text of those; of whole packets with AH.
    pub bytes: u64,
}

/// Answers that nobody has taken yet, and SAs that are gone.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    answers: BTreeMap<SaId, Inspection>,
    /// Asked for while the SA was between two workers.
    deferred: BTreeSet<SaId>,
    retired: VecDeque<Retired>,
}

impl Inspections {
    fn answer(&mut self, id: SaId, inspection: Inspection) {
        self.answers.insert(id, inspection);
        if self.answers.len() > KEPT_MAX {
            self.answers.pop_first();
        }
    }
}

impl<A: Aead> Controller<A> {
    /// Asks what an SA did and has seen;
    /// [`take_inspection`](Self::take_inspection) has the answer after a later
    /// [`poll`](Self::poll).
    ///
    /// # Errors
    /// When there is no such SA.
    pub fn inspect(&mut self, id: SaId) -> Result<(), ControlError> {
        let record = self.record_mut(id)?;
        let Location { worker, slot } = record.location;
        if record.stage.is_on_its_way() {
            self.inspections.deferred.insert(id);
            return Ok(());
        }
        let (inbound, window) = (record.direction == Direction::Inbound, record.replay_window);
        let inspection = Inspection::new(inbound, slot, window);
        self.command(worker, Command::Inspect(Box::new(inspection)));
        Ok(())
    }

    /// The answer to [`inspect`](Self::inspect), once it is there; that of an SA that went
    /// meanwhile, too. Of answers that nobody takes, those about the oldest SAs are lost.
    pub fn take_inspection(&mut self, id: SaId) -> Option<Inspection> {
        self.inspections.answers.remove(&id)
    }

    /// The SAs that are gone since the last call, in the order in which they went. Of those that
    /// nobody takes, the oldest are lost.
    pub fn take_retired(&mut self) -> Vec<Retired> {
        self.inspections.retired.drain(..).collect()
    }

    /// A worker has answered.
    pub(super) fn inspected(&mut self, index: usize, inspection: Inspection) {
        let worker = &self.workers[index];
        let slots = if inspection.inbound { &worker.inbound } else { &worker.outbound };
        // An SA gives its slot up only after all that was asked about it.
        if let Some(id) = slots.owner(inspection.slot) {
            self.inspections.answer(id, inspection);
        }
    }

    /// An SA is at a worker again: what was asked meanwhile is asked now.
    pub(super) fn inspect_deferred(&mut self, id: SaId) {
        if self.inspections.deferred.remove(&id) {
            let asked = self.inspect(id);
            debug_assert!(asked.is_ok(), "an SA that is to go is sent nowhere");
        }
    }

    /// An SA is gone: `entry` is what is left of it.
    pub(super) fn retire(&mut self, id: SaId, spi: u32, entry: &Entry<A::Key>) -> Inspection {
        let (direction, last) = match entry {
            Entry::Inbound(entry) => {
                let mut last = Inspection::new(true, 0, 0);
                last.window = Some(entry.sa.window().state());
                last.fill_inbound(entry);
                (Direction::Inbound, last)
            }
            Entry::Outbound(entry) => {
                let mut last = Inspection::new(false, 0, 0);
                last.fill_outbound(entry);
                (Direction::Outbound, last)
            }
        };
        let Inspection { sequence, packets, bytes, .. } = last;
        let window = last.window.clone();
        let inspections = &mut self.inspections;
        if inspections.deferred.remove(&id) {
            inspections.answer(id, last.clone());
        }
        if inspections.retired.len() == KEPT_MAX {
            inspections.retired.pop_front();
        }
        let retired = Retired { id, direction, spi, sequence, window, packets, bytes };
        inspections.retired.push_back(retired);
        last
    }
}
