//! What all workers are told: policies, and which SAs are where.
//!
//! Workers have a copy each of one [`Snapshot`]; control has the first, and says what changes in
//! it, some changes at a time. Each of these *editions* has a number, and all workers take them up
//! in the same order, so "all workers know it" is one number: that of the last edition which the
//! slowest of them has taken up.
//!
//! What changes while an edition is on its way is gathered for the next one. Policies wait for the
//! SAs that were added before them, so that those are found when the policies come into force; SAs
//! wait for nothing but their own worker.

use std::collections::VecDeque;
use std::sync::Arc;

use culvert_aead::Aead;
use culvert_engine::Change;
use culvert_engine::Command;
use culvert_engine::Location;
use culvert_engine::Snapshot;
use culvert_engine::directory::Key;
use culvert_engine::snapshot::Sender;
use culvert_engine::tables::Bundle;
use culvert_engine::tables::Members;
use culvert_spd::Compiled;
use culvert_spd::Group;
use culvert_spd::Spd;
use rustc_hash::FxHashMap;

use super::Controller;
use super::SaId;
use super::record::Record;
use super::standing::Role;
use super::standing::Standing;
use crate::sa::Direction;

/// Changes of an edition: what a worker takes up without keeping packets waiting.
const CHANGES_MAX: usize = 64;

/// Editions on their way at a time.
const EDITIONS_MAX: usize = 8;

/// What was published, and what is to be.
#[derive(Debug)]
pub(super) struct Publication {
    /// What workers have when they have taken up everything that was said.
    said: Snapshot,
    /// Outbound SAs in use by group.
    standing: FxHashMap<Group, Standing>,
    /// Other SAs with the name of a sender.
    rivals: FxHashMap<Sender, Vec<Location>>,
    /// Policies that wait for the SAs before this one.
    policies: Option<(Arc<Compiled>, SaId)>,
    /// Bundles may be others now.
    bundles_changed: bool,
    /// Editions to come.
    drafts: VecDeque<Draft>,
    /// Lists for changes to come.
    spare: Vec<Vec<Change>>,
    /// SAs that wait for the editions on their way, the oldest first.
    sent: VecDeque<Vec<SaId>>,
    /// The last edition that was sent.
    edition: u64,
    /// The last one that each worker has taken up, and the last that all have.
    taken_by: Vec<u64>,
    taken: u64,
}

/// An edition to come.
#[derive(Debug)]
struct Draft {
    changes: Vec<Change>,
    concerns: Vec<SaId>,
}

impl Publication {
    pub(super) fn new(workers: usize) -> Publication {
        Publication {
            said: Snapshot::default(),
            standing: FxHashMap::default(),
            rivals: FxHashMap::default(),
            policies: None,
            bundles_changed: false,
            drafts: VecDeque::new(),
            spare: Vec::new(),
            sent: VecDeque::new(),
            edition: 0,
            taken_by: vec![0; workers],
            taken: 0,
        }
    }

    /// The last edition that all workers have taken up; 0 for none.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// A worker has taken up the next edition. The SAs that waited for all to do so.
    pub(super) fn taken_once(&mut self, worker: usize) -> Vec<SaId> {
        self.taken_by[worker] += 1;
        let by_all = self.taken_by.iter().copied().min().unwrap_or(0);
        if by_all == self.taken {
            return Vec::new();
        }
        // Each worker takes them up one by one.
        self.taken = by_all;
        self.sent.pop_front().expect("an edition that was sent is taken up")
    }

    pub(super) fn is_idle(&self) -> bool {
        self.drafts.is_empty()
            && self.sent.is_empty()
            && self.policies.is_none()
            && !self.bundles_changed
    }

    /// The SA that packets of a group take at a worker without one of its own.
    pub(super) fn latest(&self, group: Group) -> Option<SaId> {
        self.standing.get(&group)?.latest()
    }

    fn begin_draft(&mut self) {
        let fresh = || Vec::with_capacity(CHANGES_MAX);
        let changes = self.spare.pop().unwrap_or_else(fresh);
        self.drafts.push_back(Draft { changes, concerns: Vec::with_capacity(CHANGES_MAX) });
    }

    /// What an edition replaced is dropped, and its list is kept for another one.
    pub(super) fn take_back(&mut self, mut changes: Vec<Change>) {
        changes.clear();
        if self.spare.len() < EDITIONS_MAX {
            self.spare.push(changes);
        }
    }

    fn say(&mut self, change: Change) {
        if self.drafts.back().is_none_or(|draft| draft.changes.len() >= CHANGES_MAX) {
            self.begin_draft();
        }
        self.drafts.back_mut().expect("it was just there").changes.push(change);
    }

    /// The edition with the last change that was said, if that is still to be sent, else the next
    /// one: when all workers have taken that up, SA `id` is looked at.
    fn concerns(&mut self, id: SaId) -> u64 {
        if self.drafts.is_empty() {
            self.begin_draft();
        }
        self.drafts.back_mut().expect("it was just there").concerns.push(id);
        self.edition + self.drafts.len() as u64
    }

    /// Names an inbound SA. The edition that does.
    fn name_inbound(&mut self, id: SaId, record: &Record) -> u64 {
        let directory = &mut self.said.directory;
        let room = directory.capacity();
        let sa = (record.protocol, record.spi);
        let addresses = (record.source, record.destination);
        let named = directory.insert(sa, record.lookup, addresses, record.location);
        assert!(named.is_ok(), "SAs that the same packets would find were refused");
        let change = match directory.capacity() == room {
            true => at_spi(&self.said, record),
            false => Change::Directory(Box::new(directory.clone())),
        };
        self.say(change);
        self.concerns(id)
    }

    /// Names an inbound SA no more. The edition that does not.
    fn forget_inbound(&mut self, id: SaId, record: &Record) -> u64 {
        let Record { protocol, spi, location, .. } = *record;
        let removed = self.said.directory.remove(protocol, spi, location);
        assert!(removed, "an SA that was named is there");
        let change = at_spi(&self.said, record);
        self.say(change);
        self.concerns(id)
    }

    /// Names an inbound SA at another place. The edition that does.
    fn move_inbound(&mut self, id: SaId, record: &Record, from: Location) -> u64 {
        let Record { protocol, spi, location, .. } = *record;
        let moved = self.said.directory.relocate(protocol, spi, from, location);
        assert!(moved, "an SA that was named is there");
        let change = at_spi(&self.said, record);
        self.say(change);
        self.concerns(id)
    }

    /// Gives packets of its groups to an outbound SA.
    fn name_outbound(&mut self, id: SaId, record: &Record) {
        let role = if record.resource.is_some() { Role::Own } else { Role::Shared };
        let serving = (record.order, id, record.location);
        self.standing.entry(record.group).or_default().join(role, serving);
        if let Some(alias) = record.alias {
            self.standing.entry(alias).or_default().join(Role::Alias, serving);
        }
    }

    /// Errors name an outbound SA so from now on.
    fn name_sender(&mut self, record: &Record) {
        let sender = record.sender();
        let before = self.said.senders.get(&sender).copied();
        if before == Some(record.location) {
            return;
        }
        if let Some(rival) = before {
            self.rivals.entry(sender).or_default().push(rival);
        }
        self.set_sender(sender, Some(record.location));
    }

    /// Gives an outbound SA no packets of its groups any more.
    fn forget_outbound(&mut self, record: &Record) {
        for group in record.groups() {
            if let Some(standing) = self.standing.get_mut(&group) {
                standing.quit(record.order);
                if standing.is_empty() {
                    self.standing.remove(&group);
                }
            }
        }
    }

    /// Errors no longer name an outbound SA so.
    fn forget_sender(&mut self, sender: Sender, location: Location) {
        let mut rivals = self.rivals.remove(&sender).unwrap_or_default();
        if self.said.senders.get(&sender) == Some(&location) {
            let next = rivals.pop();
            self.set_sender(sender, next);
        } else {
            rivals.retain(|rival| *rival != location);
        }
        if !rivals.is_empty() {
            self.rivals.insert(sender, rivals);
        }
    }

    fn set_sender(&mut self, sender: Sender, location: Option<Location>) {
        let senders = &mut self.said.senders;
        let grown = location.is_some() && senders.make_room();
        let change = Change::Sender(sender, location);
        self.said.apply(&mut change.clone());
        let all = |said: &Snapshot| Change::Senders(Box::new(said.senders.clone()));
        let change = if grown { all(&self.said) } else { change };
        self.say(change);
    }

    /// Says what a group means now, if that is something else than before; false when it is not.
    fn set_group(&mut self, group: Group, members: Option<Members>) -> bool {
        if self.said.groups.get(&group) == members.as_ref() {
            return false;
        }
        let grown = members.is_some() && self.said.groups.make_room();
        let change = Change::Group(group, members);
        self.said.apply(&mut change.clone());
        let all = |said: &Snapshot| Change::Groups(Box::new(said.groups.clone()));
        let change = if grown { all(&self.said) } else { change };
        self.say(change);
        true
    }
}

/// What there is now of the SPI of an SA.
fn at_spi(said: &Snapshot, record: &Record) -> Change {
    let key = Key::new(record.protocol, record.spi);
    Change::Inbound(key, said.directory.at(key))
}

impl<A: Aead> Controller<A> {
    /// Replaces the policies, once the SAs added before are known.
    pub fn set_policies(&mut self, spd: &Spd) {
        self.publication.policies = Some((Arc::new(spd.compile()), SaId(self.next_id)));
    }

    pub(super) fn publish_if_due(&mut self) {
        let publication = &mut self.publication;
        let barrier = publication.policies.as_ref().map(|&(_, barrier)| barrier);
        let is_late = |barrier: SaId| self.installing.range(..barrier).next().is_some();
        if barrier.is_some_and(|barrier| !is_late(barrier))
            && let Some((policies, _)) = publication.policies.take()
        {
            publication.said.spd = Arc::clone(&policies);
            publication.say(Change::Policies(policies));
        }
        self.list_bundles();
        while self.publication.sent.len() < EDITIONS_MAX {
            // One that is not full waits for more while others are on their way.
            let is_first = self.publication.sent.is_empty();
            let is_worth_it = |draft: &&Draft| is_first || draft.changes.len() >= CHANGES_MAX;
            if self.publication.drafts.front().filter(is_worth_it).is_none() {
                return;
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        let publication = &mut self.publication;
        let Some(Draft { changes, concerns }) = publication.drafts.pop_front() else {
            return;
        };
        publication.edition += 1;
        publication.sent.push_back(concerns);
        if let Some((last, others)) = self.workers.split_last_mut() {
            for worker in others {
                worker.backlog.push_back(Command::Change(changes.clone()));
            }
            last.backlog.push_back(Command::Change(changes));
        }
        self.settle_moves(self.publication.edition);
    }

    /// An SA is in its slot: packets that are to find it find it there from now on.
    pub(super) fn name(&mut self, id: SaId) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        match record.direction {
            Direction::Inbound => {
                record.is_listed = true;
                record.named = Some(self.publication.name_inbound(id, record));
            }
            // Without packets there is nothing to know of it.
            Direction::Outbound if !record.is_ready => {
                record.named = Some(self.publication.taken());
            }
            Direction::Outbound => {
                record.is_listed = true;
                self.publication.name_outbound(id, record);
                self.publication.name_sender(record);
                let edition = self.restate(id);
                if let Some(record) = self.records.get_mut(&id) {
                    record.named = Some(edition);
                    record.took_over.get_or_insert(edition);
                }
            }
        }
    }

    /// Nobody is to look for an SA any more. The edition that says so, if any has named it.
    pub(super) fn unname(&mut self, id: SaId) -> Option<u64> {
        let record = self.records.get_mut(&id).filter(|record| record.is_listed)?;
        record.is_listed = false;
        match record.direction {
            Direction::Inbound => Some(self.publication.forget_inbound(id, record)),
            Direction::Outbound => {
                self.publication.forget_outbound(record);
                self.publication.forget_sender(record.sender(), record.location);
                Some(self.restate(id))
            }
        }
    }

    /// Changes what an outbound SA is found by. Its groups are never without it.
    pub(super) fn rename(&mut self, id: SaId, change: impl FnOnce(&mut Record)) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        if !record.is_listed {
            return change(record);
        }
        let (sender, location) = (record.sender(), record.location);
        self.publication.forget_outbound(record);
        change(record);
        self.publication.name_outbound(id, record);
        if (sender, location) != (record.sender(), record.location) {
            self.publication.forget_sender(sender, location);
            self.publication.name_sender(record);
        }
        self.restate(id);
    }

    /// An SA is in another slot. The edition that says so, or the next one.
    pub(super) fn relocate(&mut self, id: SaId, to: Location) -> u64 {
        let Some(record) = self.records.get_mut(&id) else {
            return self.publication.taken();
        };
        let edition = if record.direction == Direction::Inbound && record.is_listed {
            let from = std::mem::replace(&mut record.location, to);
            self.publication.move_inbound(id, record, from)
        } else {
            self.rename(id, |record| record.location = to);
            self.publication.concerns(id)
        };
        if let Some(record) = self.records.get_mut(&id) {
            record.named = Some(edition);
        }
        edition
    }

    /// Says what the groups of an outbound SA mean now. The edition that does.
    fn restate(&mut self, id: SaId) -> u64 {
        let groups = self.records.get(&id).map(|record| record.groups());
        groups.into_iter().flatten().for_each(|group| self.restate_group(group));
        self.publication.concerns(id)
    }

    /// Says what a group means now, and the bundles that it is part of.
    pub(super) fn restate_group(&mut self, group: Group) {
        let members = self.members(group);
        if self.publication.set_group(group, members) {
            let around: Vec<Group> = self.bundles.around(group).to_vec();
            for bundle in around {
                let members = self.members(bundle);
                self.publication.set_group(bundle, members);
                self.publication.bundles_changed = true;
            }
        }
    }

    /// What a group means: a bundle, or the SAs in it.
    fn members(&self, group: Group) -> Option<Members> {
        let groups = &self.publication.said.groups;
        let bundle = self.bundles.assemble(group, &|part| groups.get(&part).cloned());
        let standing = || self.publication.standing.get(&group).and_then(Standing::members);
        bundle.or_else(standing)
    }

    /// A group means another bundle now, or none.
    pub(super) fn bundle_changed(&mut self, bundle: Group) {
        self.restate_group(bundle);
        self.publication.bundles_changed = true;
    }

    /// Says which bundles there are of more than one SA, if they may be others than before.
    fn list_bundles(&mut self) {
        if !std::mem::take(&mut self.publication.bundles_changed) {
            return;
        }
        let groups = &self.publication.said.groups;
        let members = self.bundles.groups().filter_map(|group| groups.get(&group));
        let all = members.flat_map(|members| members.shared.iter().chain(&members.own));
        let bundles: Arc<[Bundle]> =
            all.filter(|bundle| bundle.slots().len() > 1).copied().collect();
        if bundles != self.publication.said.bundles {
            self.publication.said.bundles = Arc::clone(&bundles);
            self.publication.say(Change::Bundles(bundles));
        }
    }

    /// What workers have once they have taken up everything that was said.
    #[cfg(test)]
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.publication.said
    }
}
