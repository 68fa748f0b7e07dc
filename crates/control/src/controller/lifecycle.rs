//! How SAs come, change and go.

use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_engine::AuditRecord;
use culvert_engine::Command;
use culvert_engine::Event;
use culvert_engine::Location;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Limit;
use culvert_engine::mailbox::Notice;
use culvert_engine::mailbox::Peer;
use culvert_esp::Lifetime;
use culvert_esp::template::FamilyMismatch;
use culvert_spd::Group;

use super::ControlError;
use super::Controller;
use super::NEWS_MAX;
use super::News;
use super::SaId;
use super::bundles::Residents;
use super::record::Entry;
use super::record::Record;
use super::record::Stage;
use super::slots::Slots;
use crate::sa::Direction;
use crate::sa::SaSpec;

/// Commands that make it worth to wake a worker before [`Controller::poll`] is called.
const SENT_EARLY: usize = 8;

/// SAs on their way up to which commands are sent early: their answers leave room for what workers
/// have to say besides.
const ON_THEIR_WAY: usize = 512;

/// UDP port of IKE without NAT traversal.
const IKE_PORT: u16 = 500;

impl<A: Aead> Controller<A> {
    /// Installs an SA, on the worker that owns the fewest of its direction unless it is bound to
    /// one, and publishes it once that worker has confirmed. An outbound SA takes over from those
    /// its group has already.
    ///
    /// # Errors
    /// When the SA is impossible; nothing is installed then.
    pub fn add_sa(&mut self, spec: &SaSpec) -> Result<SaId, ControlError> {
        if let (Direction::Inbound, Some(outer)) = (spec.direction, spec.receiving.within)
            && !self.bundles.is_nested(spec.group, outer)
        {
            let residents = self.residents(Direction::Inbound);
            self.bundles.nest(spec.group, outer, &residents)?;
        }
        let id = SaId(self.next_id);
        let location = self.place(id, spec)?;
        let entry = match self.claim(spec, location).and_then(|()| self.entry(id, spec)) {
            Ok(entry) => entry,
            Err(error) => {
                self.disclaim(
                    spec.direction,
                    (spec.algorithm.protocol(), spec.spi.value()),
                    location,
                );
                self.slots_at(location, spec.direction).leave(location.slot, None);
                return Err(error);
            }
        };
        self.next_id += 1;
        self.orders += 1;
        if spec.resource.is_none() {
            for group in spec.groups() {
                self.bundles.settle(spec.direction, group, location.worker);
            }
        }
        self.command(location.worker, entry.put(location.slot));
        self.records.insert(id, Box::new(Record::new(spec, location, self.orders)));
        self.installing.insert(id);
        // Workers begin while control makes the next ones.
        let worker = &mut self.workers[usize::from(location.worker.0)];
        if worker.backlog.len() >= SENT_EARLY && self.installing.len() <= ON_THEIR_WAY {
            worker.send_backlog();
        }
        Ok(id)
    }

    /// Installs an outbound SA that takes no packets until it is [activated](Self::activate): the
    /// responder of a rekeying does not know yet whether its peer is ready (RFC 7296 section 2.8).
    ///
    /// # Errors
    /// As [`add_sa`](Self::add_sa), and when the SA is inbound.
    pub fn add_standby(&mut self, spec: &SaSpec) -> Result<SaId, ControlError> {
        if spec.direction == Direction::Inbound {
            return Err(ControlError::Inbound(SaId(self.next_id)));
        }
        let id = self.add_sa(spec)?;
        self.records.get_mut(&id).expect("it was just added").is_standby = true;
        Ok(id)
    }

    /// Gives packets of its group to an outbound SA from now on. The SA `old` that it replaces, if
    /// any, goes once all workers know that.
    ///
    /// # Errors
    /// When there is no such outbound SA.
    pub fn activate(&mut self, id: SaId, old: Option<SaId>) -> Result<(), ControlError> {
        self.outbound_mut(id)?;
        if let Some(old) = old {
            self.outbound_mut(old)?.until = Some(id);
            self.due.push(old);
        }
        self.orders += 1;
        let order = self.orders;
        self.rename(id, |record| (record.is_standby, record.order) = (false, order));
        self.due.push(id);
        Ok(())
    }

    /// Replaces the outbound SA `old` and adds its new inbound twin, make before break: the new
    /// outbound SA takes packets once all workers know the inbound one, and `old` goes once they
    /// know the new outbound one. The old inbound SA stays until it is [removed](Self::remove_sa):
    /// the peer may still send with it (RFC 7296 section 2.8). Returns the new inbound and the new
    /// outbound SA.
    ///
    /// # Errors
    /// When one of them is impossible; nothing is installed then.
    pub fn rekey(
        &mut self,
        old: SaId,
        inbound: &SaSpec,
        outbound: &SaSpec,
    ) -> Result<(SaId, SaId), ControlError> {
        self.outbound_mut(old)?;
        let inbound = self.add_sa(inbound)?;
        let added = self.add_sa(outbound);
        let outbound = match added {
            Ok(outbound) => outbound,
            Err(error) => {
                self.remove_sa(inbound)?;
                return Err(error);
            }
        };
        self.record_mut(outbound)?.after = Some(inbound);
        self.record_mut(old)?.until = Some(outbound);
        self.due.push(old);
        Ok((inbound, outbound))
    }

    /// Removes an SA: no worker looks for it any more, then its key is wiped, then its place is
    /// free. Other SAs do not notice.
    ///
    /// # Errors
    /// When there is no such SA.
    pub fn remove_sa(&mut self, id: SaId) -> Result<(), ControlError> {
        self.record_mut(id)?;
        self.doom(id);
        Ok(())
    }

    /// Gives an SA other limits. What it did counts against them, from when it was made or first
    /// used; an event that was told is told again only if its new limit is still to be reached.
    ///
    /// # Errors
    /// When there is no such SA.
    pub fn set_lifetime(&mut self, id: SaId, lifetime: Lifetime) -> Result<(), ControlError> {
        let record = self.record_mut(id)?;
        let (inbound, location) = (record.direction == Direction::Inbound, record.location);
        // On its way, it gets them when it is back here.
        if record.stage.is_on_its_way() {
            record.lifetime = Some(Box::new(lifetime));
            return Ok(());
        }
        let Location { worker, slot } = location;
        let limit = Limit { inbound, slot, lifetime };
        self.command(worker, Command::Limit(Box::new(limit)));
        Ok(())
    }

    /// Sends the packets of an outbound SA to another address and, if it is encapsulated, port.
    ///
    /// # Errors
    /// When there is no such outbound SA, the address is of another family, or the port is IKE's.
    pub fn retarget(&mut self, id: SaId, peer: Peer) -> Result<(), ControlError> {
        check_port(peer.port)?;
        let record = self.outbound_mut(id)?;
        let source = record.source;
        if source.is_ipv4() != peer.address.is_ipv4() {
            return Err(FamilyMismatch(source, peer.address).into());
        }
        self.set_peer(id, peer);
        Ok(())
    }

    /// Makes an outbound SA the one and only member of a second group, in the place of any that it
    /// had: for policies that name this very SA.
    ///
    /// # Errors
    /// When there is no such outbound SA, or SAs of that group live on another worker.
    pub fn set_alias(&mut self, id: SaId, alias: Group) -> Result<(), ControlError> {
        let record = self.outbound_mut(id)?;
        let Record { group, alias: before, resource, .. } = *record;
        let worker = record.worker();
        if resource.is_none() {
            let home = self.bundles.home(Direction::Outbound, alias);
            if home.is_some_and(|home| home != worker) {
                return Err(ControlError::Apart(group, alias));
            }
            self.bundles.settle(Direction::Outbound, alias, worker);
        }
        self.rename(id, |record| record.alias = Some(alias));
        if let Some(before) = before.filter(|&before| before != alias) {
            self.restate_group(before);
        }
        Ok(())
    }

    /// Follows the peer of an inbound SA that reported a new mapping (RFC 7296 section 2.23): all
    /// encapsulated SAs that share its path, which are those of its group whose peer was at the
    /// same place as its own, now or at first. Outbound ones send to the new place. Inbound ones
    /// take the peer to be there, too, and report what comes from elsewhere: so a peer that one SA
    /// was wrong about, because somebody else was quicker with an authentic packet, is put right by
    /// the next packet of any of them. Returns how many outbound SAs there are.
    ///
    /// # Errors
    /// When there is no such inbound SA, or the new port is IKE's.
    pub fn follow_mapping(
        &mut self,
        inbound: SaId,
        old: Peer,
        new: Peer,
    ) -> Result<usize, ControlError> {
        check_port(new.port)?;
        let record = self.record_mut(inbound)?;
        let Record { group, origin, .. } = *record;
        // Where control took it to be may differ from what its worker knew.
        let known = record.peer;
        // The reporter is told as well: it may have been told otherwise since it reported.
        let shares_path = |record: &Record| {
            record.group == group
                && record.origin.is_some()
                && (record.peer == known || record.peer == Some(old) || record.origin == origin)
                && !record.is_doomed
        };
        let followers: Vec<(SaId, Direction)> = self
            .records
            .iter()
            .filter(|&(_, record)| shares_path(record))
            .map(|(&id, record)| (id, record.direction))
            .collect();
        followers.iter().for_each(|&(id, _)| self.set_peer(id, new));
        let outbound = |&&(_, direction): &&(SaId, Direction)| direction == Direction::Outbound;
        Ok(followers.iter().filter(outbound).count())
    }

    /// Moves an encapsulated SA and all that share its path, as IKE learned that their peer is
    /// somewhere else. SAs that are added with the new place belong to that path.
    ///
    /// # Errors
    /// When there is no such SA, or the new port is IKE's.
    pub fn move_peer(&mut self, id: SaId, new: Peer) -> Result<(), ControlError> {
        if let Some(old) = self.record_mut(id)?.peer {
            self.follow_mapping(id, old, new)?;
        }
        Ok(())
    }

    /// Makes a group mean an SA bundle: the SAs of `parts`, innermost first, all on one worker, and
    /// no longer the bundle that it meant before. SAs that are added later find their worker; those
    /// that are there must share one, or be [moved](Self::migrate_sa) first.
    ///
    /// # Errors
    /// When that is no bundle, or SAs of its parts live on different workers. Then the group means
    /// what it meant before.
    pub fn set_bundle(&mut self, bundle: Group, parts: &[Group]) -> Result<(), ControlError> {
        let residents = self.residents(Direction::Outbound);
        self.bundles.define(bundle, parts, &residents)?;
        self.bundle_changed(bundle);
        Ok(())
    }

    /// Makes a group mean no SA bundle any more. Its SAs stay, and are bound to their worker no
    /// longer. Returns false when it meant none.
    pub fn remove_group_bundle(&mut self, bundle: Group) -> bool {
        let residents = self.residents(Direction::Outbound);
        let was_there = self.bundles.remove(bundle, &residents);
        if was_there {
            self.bundle_changed(bundle);
        }
        was_there
    }

    /// The groups with SAs of a direction, and the worker of the latest of each; those of single
    /// workers are where they must be.
    fn residents(&self, direction: Direction) -> Residents {
        let mut serving: Vec<&Record> = self.records.values().map(|record| &**record).collect();
        serving.retain(|record| {
            record.direction == direction && record.resource.is_none() && !record.is_doomed
        });
        serving.sort_by_key(|record| record.order);
        let of_one = |record: &Record| {
            let worker = record.worker();
            record.groups().map(move |group| (group, worker))
        };
        serving.into_iter().flat_map(of_one).collect()
    }

    /// What a worker said.
    pub(super) fn handle(
        &mut self,
        index: usize,
        event: Event<A::Key>,
    ) -> Result<(), ControlError> {
        match event {
            Event::Inbound(slot, entry) => {
                self.answered(index, Direction::Inbound, slot, entry.map(Entry::Inbound))?;
            }
            Event::Outbound(slot, entry) => {
                self.answered(index, Direction::Outbound, slot, entry.map(Entry::Outbound))?;
            }
            // What is replaced is dropped here, on the control thread.
            Event::Changed(changes) => {
                self.publication.take_back(changes);
                let concerned = self.publication.taken_once(index);
                if !concerned.is_empty() {
                    self.forget();
                }
                concerned.into_iter().for_each(|id| self.taken_up(id));
            }
            Event::Left(moved, has_left) => self.left(moved, has_left),
            Event::Settled(_) => {}
            Event::NextHops(_) => self.untaken_next_hops -= 1,
            Event::Leased(_) | Event::Retargeted(_) | Event::Limited(_) => {}
            Event::Sample(samples) => {
                self.samples.extend(samples);
                self.samples_due -= 1;
            }
            Event::Inspected(inspection) => self.inspected(index, *inspection),
            Event::Resolve(target) => self.resolve.push(target),
            Event::Notice(notice) => self.note(index, notice),
            Event::LeaseLow { slot, last } => {
                if let Some(id) = self.workers[index].outbound.owner(slot) {
                    self.leases.ask(id, last);
                }
            }
        }
        Ok(())
    }

    /// Takes what has waited for a step one step further.
    pub(super) fn advance(&mut self) {
        while let Some(id) = self.due.pop() {
            self.relieve(id);
            self.make_ready(id);
        }
    }

    /// All workers have taken up an edition that is about an SA.
    fn taken_up(&mut self, id: SaId) {
        let taken = self.publication.taken();
        if let Some(record) = self.records.get(&id)
            && (record.is_doomed, record.stage) == (true, Stage::Installed)
            && record.forgotten.is_some_and(|edition| edition <= taken)
        {
            self.call_back(id);
        }
        self.wake(id);
    }

    /// SAs that wait for this one are looked at again.
    fn wake(&mut self, id: SaId) {
        if !self.waiting.is_empty()
            && let Some(waiting) = self.waiting.remove(&id)
        {
            self.due.extend(waiting);
        }
    }

    /// Writes the leases that are due and tells the workers.
    pub(super) fn extend_leases(&mut self) -> Result<(), ControlError> {
        let (extended, result) = self.leases.extend();
        for (id, ceiling) in extended {
            let Some(record) = self.records.get(&id) else { continue };
            // On its way, it gets the new ceiling when it is back here.
            if !record.stage.is_on_its_way() {
                let Location { worker, slot } = record.location;
                self.command(worker, Command::Lease { slot, ceiling });
            }
        }
        result
    }

    /// Gives an outbound SA its packets, once its twin is known.
    fn make_ready(&mut self, id: SaId) {
        let taken = self.publication.taken();
        let Some(record) = self.records.get(&id) else {
            return;
        };
        let may_be = record.direction == Direction::Outbound
            && record.stage == Stage::Installed
            && !(record.is_ready || record.is_standby || record.is_doomed);
        if !may_be {
            return;
        }
        let twin = record.after.and_then(|after| Some((after, self.records.get(&after)?)));
        if let Some((after, _)) = twin.filter(|(_, twin)| !twin.is_known(taken)) {
            self.waiting.entry(after).or_default().push(id);
            return;
        }
        self.records.get_mut(&id).expect("it was just there").is_ready = true;
        self.name(id);
    }

    /// Dooms an SA whose successor has taken over.
    fn relieve(&mut self, id: SaId) {
        let taken = self.publication.taken();
        let Some(until) = self.records.get(&id).and_then(|record| record.until) else {
            return;
        };
        let has_taken_over = match self.records.get(&until) {
            Some(successor) if !successor.has_taken_over(taken) => {
                self.waiting.entry(until).or_default().push(id);
                return;
            }
            successor => successor.is_some(),
        };
        // A successor that went away before it took over leaves the old SA where it is.
        let record = self.records.get_mut(&id).expect("it was just there");
        record.until = None;
        if has_taken_over && !record.is_doomed {
            self.doom(id);
        }
    }

    /// The SA is to go away.
    fn doom(&mut self, id: SaId) {
        let record = self.records.get_mut(&id).expect("only SAs of record are doomed");
        record.is_doomed = true;
        let (sa, location) = ((record.protocol, record.spi), record.location);
        let (direction, stage) = (record.direction, record.stage);
        self.disclaim(direction, sa, location);
        // On its way, it goes when it is there.
        if stage == Stage::Installed {
            self.dismiss(id);
        }
    }

    /// Sees to it that nobody looks for a doomed SA any more, and then asks for it.
    pub(super) fn dismiss(&mut self, id: SaId) {
        let forgotten = self.unname(id);
        match forgotten {
            None => self.call_back(id),
            Some(_) => {
                self.records.get_mut(&id).expect("it was just there").forgotten = forgotten;
            }
        }
    }

    /// Asks the worker for the entry of an SA.
    fn call_back(&mut self, id: SaId) {
        let record = self.records.get_mut(&id).expect("only SAs of record are called back");
        record.stage = Stage::Leaving;
        let Location { worker, slot } = record.location;
        let command = match record.direction {
            Direction::Inbound => Command::Inbound(slot, None),
            Direction::Outbound => Command::Outbound(slot, None),
        };
        self.command(worker, command);
        self.leaving += 1;
    }

    /// A worker has put an SA into its slot, or has given up what was there.
    fn answered(
        &mut self,
        index: usize,
        direction: Direction,
        slot: u32,
        entry: Option<Entry<A::Key>>,
    ) -> Result<(), ControlError> {
        let owner = self.workers[index].slots(direction).owner(slot);
        let id = owner.expect("answers are about slots that SAs have");
        let record = self.records.get_mut(&id).expect("slots belong to SAs of record");
        match (record.stage, entry) {
            (Stage::Installing, None) => {
                record.stage = Stage::Installed;
                let is_doomed = record.is_doomed;
                self.installing.remove(&id);
                match is_doomed {
                    true => self.dismiss(id),
                    false => {
                        self.name(id);
                        self.make_ready(id);
                    }
                }
                self.wake(id);
                self.note_place(id, true);
                Ok(())
            }
            (Stage::Moving(_), None) => {
                self.arrived(id);
                Ok(())
            }
            (Stage::Leaving, Some(entry)) => self.came_back(id, entry),
            (stage, entry) => {
                panic!("slot {slot} answered with an entry: {}, in {stage:?}", entry.is_some())
            }
        }
    }

    /// An SA has left its slot for good.
    fn came_back(&mut self, id: SaId, entry: Entry<A::Key>) -> Result<(), ControlError> {
        self.note_place(id, false);
        let record = self.records.remove(&id).expect("slots belong to SAs of record");
        self.leaving -= 1;
        self.wake(id);
        let slot = record.location.slot;
        self.slots_at(record.location, record.direction).leave(slot, None);
        let last = self.retire(id, record.spi, &entry);
        match record.direction {
            Direction::Inbound => {
                self.leases.end_receiving(id, last.window.as_ref());
                Ok(())
            }
            Direction::Outbound => self.leases.end(id, last.sequence),
        }
    }

    /// The peer of an SA is somewhere else.
    fn set_peer(&mut self, id: SaId, peer: Peer) {
        let record = self.records.get_mut(&id).expect("only SAs of record have peers");
        record.peer = Some(peer);
        let inbound = record.direction == Direction::Inbound;
        if !inbound && record.destination != peer.address {
            // Errors name it by its new destination from now on.
            self.rename(id, |record| record.destination = peer.address);
        }
        let record = self.records.get_mut(&id).expect("it was just there");
        // On its way, it gets its new peer when it is back here.
        if !record.stage.is_on_its_way() {
            let Location { worker, slot } = record.location;
            self.command(worker, Command::Retarget { inbound, slot, peer });
        }
    }

    /// All workers have taken up an edition.
    fn forget(&mut self) {
        let taken = self.publication.taken();
        for worker in &mut self.workers {
            worker.inbound.release(taken);
            worker.outbound.release(taken);
        }
    }

    pub(super) fn note(&mut self, index: usize, notice: Notice) {
        let state = &self.workers[index];
        let sa = match notice {
            Notice::Expire { inbound: false, slot, .. }
            | Notice::IcmpError { slot, .. }
            | Notice::PathMtu { slot, .. } => state.outbound.owner(slot),
            Notice::Expire { slot, .. }
            | Notice::Mapping { slot, .. }
            | Notice::InvalidSelectors { slot, .. }
            | Notice::UnusualEcn { slot, .. } => state.inbound.owner(slot),
            Notice::Audit(AuditRecord { inbound, slot: Some(slot), .. }) => {
                let slots = if inbound { &state.inbound } else { &state.outbound };
                slots.owner(slot)
            }
            Notice::Acquire { .. } | Notice::InvalidSpi { .. } | Notice::Audit(_) => None,
        };
        if self.news.len() >= NEWS_MAX {
            // IKE waits for some of them; others are only good to know.
            let minor = self.news.iter().position(|news| is_minor(&news.notice)).unwrap_or(0);
            self.news.remove(minor);
            self.news_lost += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 256 workers")]
        self.news.push_back(News { worker: WorkerId(index as u8), sa, notice });
    }

    /// A slot for a new SA.
    fn place(&mut self, id: SaId, spec: &SaSpec) -> Result<Location, ControlError> {
        let bound = spec.resource.map_or_else(|| self.home(spec), |worker| Ok(Some(worker)))?;
        let direction = spec.direction;
        let mut choice = None;
        for (index, state) in (0u8..).zip(&mut self.workers) {
            let worker = WorkerId(index);
            let slots = state.slots(direction);
            let used = slots.used();
            let fits = slots.has_room() && bound.is_none_or(|bound| bound == worker);
            if fits && choice.is_none_or(|(_, fewest)| used < fewest) {
                choice = Some((worker, used));
            }
        }
        if let Some(bound) = bound
            && usize::from(bound.0) >= self.workers.len()
        {
            return Err(ControlError::UnknownWorker(bound));
        }
        let (worker, _) = choice.ok_or(ControlError::Full(self.slots))?;
        let slot = self.workers[usize::from(worker.0)].slots(direction).take(id);
        Ok(Location { worker, slot: slot.expect("a worker with room was chosen") })
    }

    /// The worker that an SA must live on because of its bundles.
    fn home(&self, spec: &SaSpec) -> Result<Option<WorkerId>, ControlError> {
        let home = |group| Some((group, self.bundles.home(spec.direction, group)?));
        let mut homes = spec.groups().filter_map(home);
        let first = homes.next();
        match (first, homes.next()) {
            (Some((group, home)), Some((alias, other))) if home != other => {
                Err(ControlError::Apart(group, alias))
            }
            _ => Ok(first.map(|(_, home)| home)),
        }
    }

    /// Refuses an inbound SA whose packets would find another one.
    fn claim(&mut self, spec: &SaSpec, location: Location) -> Result<(), ControlError> {
        if spec.direction == Direction::Outbound {
            return Ok(());
        }
        let sa = (spec.algorithm.protocol(), spec.spi.value());
        let addresses = (spec.source, spec.destination);
        Ok(self.claims.insert(sa, spec.lookup, addresses, location)?)
    }

    /// Another inbound SA may have the SPI from now on.
    fn disclaim(&mut self, direction: Direction, (protocol, spi): (Protocol, u32), at: Location) {
        if direction == Direction::Inbound {
            self.claims.remove(protocol, spi, at);
        }
    }

    pub(super) fn command(&mut self, worker: WorkerId, command: Command<A::Key>) {
        self.workers[usize::from(worker.0)].backlog.push_back(command);
    }

    pub(super) fn slots_at(&mut self, location: Location, direction: Direction) -> &mut Slots {
        self.workers[usize::from(location.worker.0)].slots(direction)
    }

    pub(super) fn record_mut(&mut self, id: SaId) -> Result<&mut Record, ControlError> {
        let record = self.records.get_mut(&id).filter(|record| !record.is_doomed);
        record.map(|record| &mut **record).ok_or(ControlError::UnknownSa(id))
    }

    fn outbound_mut(&mut self, id: SaId) -> Result<&mut Record, ControlError> {
        let record = self.record_mut(id)?;
        match record.direction {
            Direction::Outbound => Ok(record),
            Direction::Inbound => Err(ControlError::Inbound(id)),
        }
    }
}

/// True for what nobody waits for.
fn is_minor(notice: &Notice) -> bool {
    let major =
        matches!(notice, Notice::Expire { .. } | Notice::Acquire { .. } | Notice::Mapping { .. });
    !major
}

/// ESP is never encapsulated on the port of IKE (RFC 7296 section 2.23).
pub(super) fn check_port(port: u16) -> Result<(), ControlError> {
    if port == IKE_PORT { Err(ControlError::IkePort) } else { Ok(()) }
}
