//! What all workers are told: policies, and which SAs are where.
//!
//! Requests are gathered: a snapshot is made when the one before has been taken up everywhere, and
//! every SA that was being installed when it became due has arrived. So an SA and the policy that
//! needs it are published together, and a stream of new SAs cannot put off those that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use culvert_aead::Aead;
use culvert_engine::Command;
use culvert_engine::Snapshot;
use culvert_engine::directory::Directory;
use culvert_engine::tables::Bundle;
use culvert_engine::tables::Members;
use culvert_spd::Compiled;
use culvert_spd::Group;
use culvert_spd::Spd;

use super::Controller;
use super::Record;
use super::SaId;
use super::Stage;
use crate::sa::Direction;

/// The snapshots that were published, and what the next one waits for.
#[derive(Debug, Default)]
pub(super) struct Publication {
    policies: Arc<Compiled>,
    /// Policies for the next snapshot, and the first SA that they need not wait for.
    draft: Option<(Arc<Compiled>, SaId)>,
    is_due: bool,
    /// The first SA that the next snapshot need not wait for, once that is fixed.
    barrier: Option<SaId>,
    generation: u64,
    /// Workers that have not taken up the last snapshot yet.
    untaken: usize,
}

impl Publication {
    /// Something changed that workers must know.
    pub(super) fn ask(&mut self) {
        self.is_due = true;
    }

    /// The last snapshot that all workers have taken up; 0 for none.
    pub(super) fn taken(&self) -> u64 {
        self.generation - u64::from(self.untaken > 0)
    }

    /// A worker has taken up the last snapshot; true when it was the last one to.
    pub(super) fn taken_once(&mut self) -> bool {
        self.untaken -= 1;
        self.untaken == 0
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_due && self.untaken == 0
    }
}

impl<A: Aead> Controller<A> {
    /// Replaces the policies, together with the SAs added before.
    pub fn set_policies(&mut self, spd: &Spd) {
        self.publication.draft = Some((Arc::new(spd.compile()), SaId(self.next_id)));
        self.publication.ask();
    }

    pub(super) fn publish_if_due(&mut self) {
        if !self.publication.is_due || self.publication.untaken > 0 {
            return;
        }
        let barrier = *self.publication.barrier.get_or_insert(SaId(self.next_id));
        if self.is_installing_before(barrier) {
            return;
        }
        if let Some((policies, barrier)) = self.publication.draft.take() {
            if self.is_installing_before(barrier) {
                self.publication.draft = Some((policies, barrier));
            } else {
                self.publication.policies = policies;
            }
        }
        self.publish();
    }

    fn is_installing_before(&self, barrier: SaId) -> bool {
        let mut waiting = self.busy.range(..barrier);
        waiting.any(|id| self.records.get(id).is_some_and(|sa| sa.stage == Stage::Installing))
    }

    fn publish(&mut self) {
        let publication = &mut self.publication;
        publication.generation += 1;
        publication.is_due = publication.draft.is_some();
        publication.barrier = None;
        publication.untaken = self.workers.len();
        let snapshot = Arc::new(self.snapshot());
        let generation = self.publication.generation;
        let named = self.records.values_mut().filter(|record| record.is_named_now());
        named.for_each(|record| record.name(generation));
        for worker in &mut self.workers {
            worker.backlog.push_back(Command::Snapshot(Arc::clone(&snapshot)));
        }
        self.settle_moves();
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot =
            Snapshot { spd: Arc::clone(&self.publication.policies), ..Snapshot::default() };
        let mut latest: BTreeMap<Group, Vec<&Record>> = BTreeMap::new();
        let mut aliases: BTreeMap<Group, Vec<&Record>> = BTreeMap::new();
        for record in self.records.values().filter(|record| record.is_named_now()) {
            if record.direction == Direction::Inbound {
                name_inbound(&mut snapshot.directory, record);
                continue;
            }
            if record.is_ready {
                let sender = (record.protocol, record.spi, record.destination);
                snapshot.senders.insert(sender, record.location);
                latest.entry(record.group).or_default().push(record);
                if let Some(alias) = record.alias {
                    aliases.entry(alias).or_default().push(record);
                }
            }
        }
        for (group, mut records) in latest {
            records.sort_by_key(|record| record.order);
            snapshot.groups.insert(group, members(&records));
        }
        for (group, records) in aliases {
            let latest = records.iter().max_by_key(|record| record.order);
            let members = latest.map(|record| Members::shared(record.location));
            snapshot.groups.extend(members.map(|members| (group, members)));
        }
        let bundles = self.bundles.assemble(&|group| snapshot.groups.get(&group).cloned());
        let all = bundles.iter().flat_map(|(_, members)| members.shared.iter().chain(&members.own));
        snapshot.bundles = all.filter(|bundle| bundle.slots().len() > 1).copied().collect();
        snapshot.groups.extend(bundles);
        snapshot
    }

    /// The SA that the next snapshot gives packets of a group.
    pub(super) fn latest(&self, group: Group) -> Option<SaId> {
        let mut best: Option<(&SaId, &Record)> = None;
        for (id, record) in &self.records {
            let serves =
                record.group == group && record.resource.is_none() || record.alias == Some(group);
            if serves
                && record.is_named_now()
                && record.is_ready
                && best.is_none_or(|(_, best)| best.order < record.order)
            {
                best = Some((id, record));
            }
        }
        best.map(|(&id, _)| id)
    }
}

fn name_inbound(directory: &mut Directory, record: &Record) {
    let addresses = (record.source, record.destination);
    let sa = (record.protocol, record.spi);
    let named = directory.insert(sa, record.lookup, addresses, record.location);
    assert!(named.is_ok(), "SAs that the same packets would find were refused");
}

/// Of a group's SAs, oldest first, the latest for all and the latest of each worker's own.
fn members(records: &[&Record]) -> Members {
    let mut members = Members::default();
    for record in records {
        let bundle = Bundle::of(record.location);
        if record.resource.is_none() {
            members.shared = Some(bundle);
        } else {
            members.own.retain(|own| own.worker != bundle.worker);
            members.own.push(bundle);
        }
    }
    members
}
