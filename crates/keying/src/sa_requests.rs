//! What requests about SAs do.

use std::collections::btree_map::Entry;

use culvert_control::ControlError;
use culvert_control::Direction;
use culvert_control::SaSpec;
use culvert_engine::Peer;
use culvert_spd::Group;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Family;
use culvert_xfrm::event::AeFlags;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::event::Groups as Listeners;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlags;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SpiRequest;
use culvert_xfrm::selector::Selector;

use crate::algorithms;
use crate::listing;
use crate::listing::Truth;
use crate::plan;
use crate::plane::DataPlane;
use crate::policies::Event;
use crate::refusal::Refusal;
use crate::sas;
use crate::sas::Installed;
use crate::sas::Sa;
use crate::sas::SaNumber;
use crate::sas::Stage;
use crate::sas::Wanted;
use crate::sas::looked_for;
use crate::service::ACQUIRE_SECS;
use crate::service::Asker;
use crate::service::Service;
use crate::spec;
use crate::spec::Groups;

type Done<T = ()> = Result<T, Refusal>;

/// Most octets of unknown attributes that are kept of an SA, their headers included, so that an
/// answer has less than 4096 octets ([`culvert_xfrm::message::ANSWER_LEN_MAX`]).
const UNKNOWN_OCTETS_MAX: usize = 1024;

/// `XFRM_OFFLOAD_PACKET`.
const OFFLOAD_PACKET: u8 = 4;

impl Service {
    /// NEWSA: an SA with keys. A larval one that was wanted like this is not wanted any more.
    pub(crate) fn new_sa(
        &mut self,
        plane: &mut impl DataPlane,
        info: &SaInfo,
        attributes: Attributes,
        now: u64,
    ) -> Done {
        let (mark, like) = (looked_for(&attributes), wanted(info, &attributes));
        let sa = made(info, attributes, now)?;
        let name = sa.name();
        if name.is_some_and(|name| self.sas.find(name, mark).is_some()) {
            return Err(Refusal { text: "the SA exists".to_owned(), ..Errno::EEXIST.into() });
        }
        let of_acquire = self.sas.of_acquire(info.seq).filter(|&number| {
            self.sas.get(number).is_some_and(|larval| {
                (larval.info.id.proto, larval.info.id.daddr) == (info.id.proto, info.id.daddr)
            })
        });
        let wanted = of_acquire.or_else(|| self.sas.find_wanted(&like));
        let number = self.install(plane, sa, None, now)?;
        if let Some(wanted) = wanted {
            self.sas.remove(wanted);
        }
        self.forget_lost(name);
        self.tell_sa(number, Body::NewSa);
        Ok(())
    }

    /// UPDSA: keys for a larval SA, other limits and ports for another.
    pub(crate) fn update_sa(
        &mut self,
        plane: &mut impl DataPlane,
        info: &SaInfo,
        attributes: Attributes,
        now: u64,
    ) -> Done {
        let mark = looked_for(&attributes);
        let sa = made(info, attributes, now)?;
        let number = self.find(sa.name(), mark)?;
        let is_larval = self.sas.is_larval(number);
        let before = self.sas.get(number).and_then(|sa| sa.attributes.direction());
        let after = sa.attributes.direction();
        if before != after && !(is_larval && after.is_none()) {
            return Err(Refusal::new(Errno::ESRCH, "the direction that the SA has"));
        }
        let number = if is_larval {
            let installed = self.install(plane, sa, Some(Direction::Inbound), now)?;
            self.sas.remove(number);
            installed
        } else {
            self.change(plane, number, &sa)?;
            number
        };
        self.tell_sa(number, Body::UpdateSa);
        Ok(())
    }

    /// Limits and ports of an SA that works; keys and numbers stay as they are.
    fn change(&mut self, plane: &mut impl DataPlane, number: SaNumber, to: &Sa) -> Done {
        let missing = || Refusal::missing(Errno::ESRCH, "SA");
        let sa = self.sas.get_mut(number).ok_or_else(missing)?;
        let encap = |sa: &Sa| sa.attributes.encap().copied();
        match (encap(sa), encap(to)) {
            (Some(old), Some(new)) if old.kind == new.kind => {
                let peer = sa.info.id.daddr.ip(sa.info.family);
                if let (Some(handle), Some(address)) = (sa.installed.outbound, peer)
                    && old.dport != new.dport
                {
                    plane.set_peer(handle, Peer { address, port: new.dport.0 })?;
                }
                replace(&mut sa.attributes, Attribute::Encap(new));
            }
            (None, None) => {}
            _ => return Err(Refusal::new(Errno::EINVAL, "XFRMA_ENCAP as the SA has it")),
        }
        sa.info.limits = to.info.limits;
        sa.is_dying = false;
        // What workers count, they count from when the SA came to be here.
        let since = sa.info.usage.add_time;
        let lifetime = spec::lifetime(&sa.info.limits, &spec::base(sa), since);
        sa.installed.handles().try_for_each(|handle| plane.set_lifetime(handle, lifetime))?;
        Ok(())
    }

    /// Puts an SA on the data plane and into the database.
    pub(crate) fn install(
        &mut self,
        plane: &mut impl DataPlane,
        mut sa: Sa,
        known: Option<Direction>,
        now: u64,
    ) -> Done<SaNumber> {
        let (mut installed, mut groups) = (Installed::default(), [None; 4]);
        let directions = self.directions(plane, &sa, known);
        for (at, direction) in directions.into_iter().flatten().enumerate() {
            let kind = plan::kind(&sa, direction)
                .ok_or_else(|| Refusal::new(Errno::EAFNOSUPPORT, "IPv4 or IPv6"))?;
            let (group, alias) = self.plan.groups_of(kind, sa.info.id.spi.0);
            groups[2 * at..][..2].copy_from_slice(&[Some(group), alias]);
            let added =
                add(plane, |epoch| spec::spec(&sa, direction, Groups { group, alias }, epoch, now));
            let handle = match added {
                Ok(handle) => handle,
                Err(refusal) => {
                    installed.handles().for_each(|handle| plane.remove(handle));
                    return Err(refusal);
                }
            };
            match direction {
                Direction::Inbound => installed.inbound = Some(handle),
                Direction::Outbound => installed.outbound = Some(handle),
            }
        }
        sa.installed = installed;
        let number = self.sas.insert(sa).inspect_err(|_| {
            installed.handles().for_each(|handle| plane.remove(handle));
        })?;
        for group in groups.into_iter().flatten() {
            self.members.entry(group).or_default().push(number);
        }
        self.is_stale |= self.policies.depend_on_sas();
        Ok(number)
    }

    /// The directions of an SA: what it says, or else what its addresses say, or else what is known
    /// of it; without any of these, both, as in the kernel. None for one that packets of this
    /// gateway never meet.
    fn directions(
        &self,
        plane: &impl DataPlane,
        sa: &Sa,
        known: Option<Direction>,
    ) -> [Option<Direction>; 2] {
        let mark = sa.mark();
        if self.scope.mark & mark.mask != mark.value || sa.if_id() != self.scope.if_id {
            let (mark, if_id) = (mark.value, sa.if_id());
            tracing::warn!(mark, if_id, "an SA for packets that this gateway does not have");
            return [None; 2];
        }
        let said = match sa.attributes.direction() {
            Some(&SaDirection::IN) => Some(Direction::Inbound),
            Some(&SaDirection::OUT) => Some(Direction::Outbound),
            _ => None,
        };
        let is_own = |address: Option<std::net::IpAddr>| address.is_some_and(|a| plane.is_own(a));
        let by_address = match (is_own(sa.source()), is_own(sa.info.id.daddr.ip(sa.info.family))) {
            (true, false) => Some(Direction::Outbound),
            (false, true) => Some(Direction::Inbound),
            _ => None,
        };
        match said.or(by_address).or(known) {
            Some(direction) => [Some(direction), None],
            None => [Some(Direction::Inbound), Some(Direction::Outbound)],
        }
    }

    /// DELSA.
    pub(crate) fn delete_sa(
        &mut self,
        plane: &mut impl DataPlane,
        id: &SaId,
        attributes: &Attributes,
    ) -> Done {
        let number = self.find_named(id, attributes).inspect_err(|_| {
            self.forget_lost(sas::name(id.daddr, id.spi, id.proto, id.family));
        })?;
        // What it did is asked for when somebody wants to know: that takes a turn of its worker.
        let truth = match self.heard & Listeners::SA {
            0 => None,
            _ => Some(self.truth(plane, number)),
        };
        if let Some(sa) = self.take_out(plane, number) {
            self.tell(Listeners::SA, || match truth {
                None => Body::DeleteSa(listing::id(&sa), Attributes::default()),
                Some(truth) => listing::deleted(&sa, &truth),
            });
        }
        Ok(())
    }

    fn find_id(&self, id: &SaId, attributes: &Attributes) -> Done<SaNumber> {
        let name = sas::name(id.daddr, id.spi, id.proto, id.family);
        self.find(name, looked_for(attributes))
    }

    /// The same where SAs of Mobile IPv6 may be named, by both addresses. There are none.
    fn find_named(&self, id: &SaId, attributes: &Attributes) -> Done<SaNumber> {
        let has_spi = [sa::ESP, sa::AH, sa::IPCOMP, sa::ANY_PROTO].contains(&id.proto);
        if !has_spi && attributes.source_address().is_none() {
            return Err(Refusal::new(Errno::EINVAL, "XFRMA_SRCADDR"));
        }
        self.find_id(id, attributes)
    }

    /// Takes an SA off the data plane and out of the database.
    pub(crate) fn take_out(&mut self, plane: &mut impl DataPlane, number: SaNumber) -> Option<Sa> {
        self.is_stale |= self.policies.depend_on_sas();
        let sa = self.sas.remove(number)?;
        sa.installed.handles().for_each(|handle| plane.remove(handle));
        for group in self.groups_of(&sa) {
            if let Entry::Occupied(mut members) = self.members.entry(group)
                && members.get_mut().remove(number)
            {
                members.remove();
            }
        }
        Some(sa)
    }

    /// The groups that an SA is in.
    fn groups_of(&mut self, sa: &Sa) -> Vec<Group> {
        let mut groups = Vec::new();
        for direction in sa.installed.directions() {
            if let Some(kind) = plan::kind(sa, direction) {
                let (group, own) = self.plan.groups_of(kind, sa.info.id.spi.0);
                groups.push(group);
                groups.extend(own);
            }
        }
        groups
    }

    /// GETSA for one.
    pub(crate) fn get_sa(
        &mut self,
        plane: &mut impl DataPlane,
        asker: Asker,
        id: &SaId,
        attributes: &Attributes,
    ) -> Done<Body> {
        let number = self.find_named(id, attributes)?;
        let truth = self.truth(plane, number);
        let sa = self.sas.get(number).ok_or_else(|| Refusal::missing(Errno::ESRCH, "SA"))?;
        Ok(listing::listed_to(asker.is_ours, sa, &truth))
    }

    /// FLUSHSA.
    pub(crate) fn flush_sas(&mut self, plane: &mut impl DataPlane, which: SaFlush) {
        self.forget_lost_of(which.proto);
        let numbers = self.sas.of_proto(which.proto);
        if numbers.is_empty() {
            return;
        }
        for number in numbers {
            self.take_out(plane, number);
        }
        self.tell(Listeners::SA, || Body::FlushSa(which, Attributes::default()));
    }

    /// ALLOCSPI: an SPI, kept for as long as keys may take to come.
    pub(crate) fn allocate_spi(
        &mut self,
        plane: &mut impl DataPlane,
        request: &SpiRequest,
        attributes: &Attributes,
        now: u64,
    ) -> Done<Body> {
        let SpiRequest { info, min, max } = request;
        if info.id.daddr.ip(info.family).is_none() {
            return Err(Refusal::new(Errno::EINVAL, "xfrm_usersa_info.family: IPv4 or IPv6"));
        }
        let of_acquire = self.sas.of_acquire(info.seq).filter(|&number| {
            self.sas.get(number).is_some_and(|larval| larval.info.id.daddr == info.id.daddr)
        });
        let like = wanted(info, attributes);
        let sel = of_hosts(info);
        let like = Wanted { info: SaInfo { seq: 0, sel, ..like.info }, ..like };
        let found = of_acquire.or_else(|| self.sas.find_wanted(&like));
        let number = match found {
            Some(number) => number,
            None => self.sas.want(&like, now, now + ACQUIRE_SECS)?,
        };
        self.sas.allocate_spi(number, (*min, *max), &mut || plane.random())?;
        let sa = self.sas.get_mut(number).ok_or(Errno::ESRCH)?;
        if let Some(direction) = attributes.direction() {
            sa.attributes.0.retain(|attribute| !matches!(attribute, Attribute::Direction(_)));
            sa.attributes.0.push(Attribute::Direction(*direction));
        }
        Ok(listing::listed(sa, &Truth::default()))
    }

    /// GETAE: sequence numbers and what was used.
    pub(crate) fn get_numbers(
        &mut self,
        plane: &mut impl DataPlane,
        id: &AeId,
        attributes: &Attributes,
    ) -> Done<Body> {
        let number = self.find_id(&id.sa_id, attributes)?;
        let truth = self.truth(plane, number);
        let sa = self.sas.get(number).ok_or(Errno::ESRCH)?;
        Ok(listing::numbers(sa, &truth, id.flags))
    }

    /// NEWAE: other numbers for an SA. It is made anew with them; what it has sent it never sends
    /// again, and what it has received it never accepts again, whatever they say.
    pub(crate) fn set_numbers(
        &mut self,
        plane: &mut impl DataPlane,
        id: &AeId,
        attributes: &Attributes,
        now: u64,
    ) -> Done {
        let number = self.find_id(&id.sa_id, attributes)?;
        if self.sas.is_larval(number) {
            return Err(Refusal::new(Errno::EINVAL, "an SA with keys"));
        }
        let truth = self.truth(plane, number);
        let mut sa = self.sas.get(number).cloned().ok_or(Errno::ESRCH)?;
        let has_ring = sa.attributes.replay_esn().is_some();
        if let (Some(own), Some(new)) = (sa.attributes.replay_esn(), attributes.replay_esn()) {
            let words = new.bitmap.len();
            let fits = u64::from(new.replay_window) <= 32 * u64::try_from(words).unwrap_or(0);
            if words != own.bitmap.len() || !fits {
                let what = "XFRMA_REPLAY_ESN_VAL with a bitmap as large as the SA's";
                return Err(Refusal::new(Errno::EINVAL, what));
            }
        }
        let usage = attributes.usage().copied().unwrap_or(listing::usage(&sa, &truth));
        keep_numbers(&mut sa, &truth);
        for attribute in &attributes.0 {
            let is_set = match attribute {
                Attribute::Replay(_) => !has_ring,
                Attribute::ReplayEsn(_) => has_ring,
                Attribute::ReplayThreshold(_) | Attribute::TimerThreshold(_) => true,
                _ => false,
            };
            if is_set {
                replace(&mut sa.attributes, attribute.clone());
            }
        }
        replace(&mut sa.attributes, Attribute::Usage(usage));
        self.make_anew(plane, number, sa, now)?;
        if self.listening & Listeners::AEVENTS != 0
            && let Some(number) = self.find_id(&id.sa_id, attributes).ok()
            && let Some(sa) = self.sas.get(number)
        {
            let body = listing::numbers(sa, &Truth::default(), AeFlags::BY_UPDATE);
            self.tell(Listeners::AEVENTS, || body);
        }
        Ok(())
    }

    /// Takes an SA away and puts another in its place, whose keys may be the same. If that is
    /// impossible, it stays as it was; if that is impossible too, it has expired.
    fn make_anew(
        &mut self,
        plane: &mut impl DataPlane,
        number: SaNumber,
        sa: Sa,
        now: u64,
    ) -> Done<SaNumber> {
        let direction = match sa.installed {
            Installed { inbound: Some(_), outbound: None } => Some(Direction::Inbound),
            Installed { inbound: None, outbound: Some(_) } => Some(Direction::Outbound),
            _ => None,
        };
        let mut old = self.take_out(plane, number).ok_or(Errno::ESRCH)?;
        let refusal =
            match self.install(plane, Sa { installed: Installed::default(), ..sa }, direction, now)
            {
                Ok(number) => return Ok(number),
                Err(refusal) => refusal,
            };
        old.installed = Installed::default();
        if self.install(plane, old.clone(), direction, now).is_err() {
            self.tell(Listeners::EXPIRE, || listing::expired(&old, &Truth::default(), true));
        }
        Err(refusal)
    }

    /// EXPIRE from a client: an SA is treated as if it had expired.
    pub(crate) fn expire_sa(
        &mut self,
        plane: &mut impl DataPlane,
        expire: &Expire,
        attributes: &Attributes,
    ) -> Done {
        let SaInfo { id, family, .. } = expire.state;
        let id = SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto };
        let missing = |_| Refusal::missing(Errno::ENOENT, "SA");
        let number = self.find_id(&id, attributes).map_err(missing)?;
        if self.sas.is_larval(number) {
            return Err(Refusal::new(Errno::EINVAL, "an SA with keys"));
        }
        self.expire(plane, number, expire.hard != 0);
        Ok(())
    }

    /// An SA has reached a limit: those who listen are told, and it goes if it was the hard one.
    pub(crate) fn expire(&mut self, plane: &mut impl DataPlane, number: SaNumber, hard: bool) {
        let truth = self.truth(plane, number);
        let Some(sa) = self.sas.get(number).cloned() else {
            return;
        };
        self.tell(Listeners::EXPIRE, || listing::expired(&sa, &truth, hard));
        if hard {
            self.take_out(plane, number);
        }
    }

    /// MIGRATE: a policy and its SAs get new addresses.
    pub(crate) fn migrate(
        &mut self,
        plane: &mut impl DataPlane,
        id: &PolicyId,
        attributes: &Attributes,
        now: u64,
    ) -> Done {
        let migration = self.policies.migration(id, attributes)?;
        for change in attributes.migrate().into_iter().flatten() {
            self.migrate_sas(plane, change, attributes, now)?;
        }
        let index = migration.index();
        let event = self.policies.migrate(migration);
        self.events.push(event);
        // Nobody listens to this but the journal.
        if let Some(policy) = self.policies.by_index(index) {
            let body = Body::UpdatePolicy(*policy.info(), policy.attributes());
            self.events.push(Event { groups: 0, body });
        }
        Ok(())
    }

    fn migrate_sas(
        &mut self,
        plane: &mut impl DataPlane,
        change: &Migrate,
        attributes: &Attributes,
        now: u64,
    ) -> Done {
        let if_id = attributes.if_id().copied().filter(|&if_id| if_id != 0);
        let is_meant = |sa: &Sa| {
            let info = &sa.info;
            (info.id.proto, info.mode, info.family)
                == (change.proto, change.mode, change.old_family)
                && (change.reqid == 0 || change.reqid == info.reqid)
                && (info.id.daddr, info.saddr) == (change.old_daddr, change.old_saddr)
                && if_id.is_none_or(|if_id| if_id == sa.if_id())
                && sa.stage == Stage::Valid
        };
        let meant: Vec<SaNumber> =
            self.sas.iter().filter(|(_, sa)| is_meant(sa)).map(|(number, _)| number).collect();
        for number in meant {
            let truth = self.truth(plane, number);
            let Some(mut sa) = self.sas.get(number).cloned() else {
                continue;
            };
            keep_numbers(&mut sa, &truth);
            let usage = listing::usage(&sa, &truth);
            replace(&mut sa.attributes, Attribute::Usage(usage));
            if let Some(encap) = attributes.encap() {
                replace(&mut sa.attributes, Attribute::Encap(*encap));
            }
            sa.info.id.daddr = change.new_daddr;
            sa.info.saddr = change.new_saddr;
            sa.info.family = change.new_family;
            let old = self.sas.get(number).map(listing::id);
            let new = self.make_anew(plane, number, sa, now)?;
            // Nobody listens to this but the journal.
            let gone = old.map(|id| Body::DeleteSa(id, Attributes::default()));
            let here = self.sas.get(new).map(|sa| Body::NewSa(sa.info, Attributes::default()));
            let bodies = gone.into_iter().chain(here);
            self.events.extend(bodies.map(|body| Event { groups: 0, body }));
        }
        Ok(())
    }

    /// What workers say of an SA.
    pub(crate) fn truth(&self, plane: &mut impl DataPlane, number: SaNumber) -> Truth {
        self.truths(plane, &[number]).pop().unwrap_or_default()
    }

    /// What workers say of SAs, in their order.
    pub(crate) fn truths(&self, plane: &mut impl DataPlane, numbers: &[SaNumber]) -> Vec<Truth> {
        let installed = |number: &SaNumber| {
            self.sas.get(*number).map_or(Installed::default(), |sa| sa.installed)
        };
        let all: Vec<Installed> = numbers.iter().map(installed).collect();
        let handles: Vec<_> = all.iter().flat_map(|installed| installed.handles()).collect();
        let mut reports = plane.inspect(&handles).into_iter();
        let mut next = |is_there: bool| if is_there { reports.next().flatten() } else { None };
        let truth = |installed: &Installed| Truth {
            inbound: next(installed.inbound.is_some()),
            outbound: next(installed.outbound.is_some()),
        };
        all.iter().map(truth).collect()
    }

    fn tell_sa(&mut self, number: SaNumber, body: fn(SaInfo, Attributes) -> Body) {
        if let Some(sa) = self.sas.get(number) {
            let truth = Truth::default();
            // The journal has no keys.
            let list = match self.heard & Listeners::SA {
                0 => Attributes::default(),
                _ => listing::attributes(sa, &truth),
            };
            let body = body(listing::info(sa, &truth), list);
            self.tell(Listeners::SA, || body);
        }
    }

    /// Tells those who listen, if anybody does.
    pub(crate) fn tell(&mut self, groups: u32, body: impl FnOnce() -> Body) {
        if self.listening & groups != 0 {
            // Who comes to listen later hears nothing of it, as it may lack what only they ask for.
            let groups = groups & self.heard;
            self.events.push(Event { groups, body: body() });
        }
    }
}

/// Adds an SA, and does what is in its way: an older one with its key that is not gone yet, an
/// epoch that is over.
fn add(
    plane: &mut impl DataPlane,
    spec: impl Fn(u64) -> Done<SaSpec>,
) -> Done<culvert_control::SaId> {
    let epoch = plane.epoch(false)?;
    let error = match plane.add(&spec(epoch)?) {
        Ok(handle) => return Ok(handle),
        Err(error) => error,
    };
    match error {
        ControlError::KeyInUse | ControlError::DuplicateSpi(_) => {
            plane.settle();
            let epoch = plane.epoch(false)?;
            Ok(plane.add(&spec(epoch)?)?)
        }
        ControlError::EpochUsedUp { .. } => {
            let epoch = plane.epoch(true)?;
            Ok(plane.add(&spec(epoch)?)?)
        }
        error => Err(error.into()),
    }
}

/// An SA with keys, as a request describes it.
///
/// # Errors
/// EOPNOTSUPP for a label, since an SA that ignored it would be for more packets than it says;
/// EINVAL for IP-TFS, and for an interface that is to do all the work, as from a kernel without
/// either. An interface that is to do the cryptography alone is ignored, as by such a kernel.
fn made(info: &SaInfo, attributes: Attributes, now: u64) -> Done<Sa> {
    let has = |is_meant: fn(&Attribute) -> bool| attributes.0.iter().any(is_meant);
    if has(|attribute| matches!(attribute, Attribute::SecurityContext(_))) {
        return Err(Refusal::new(Errno::EOPNOTSUPP, "no XFRMA_SEC_CTX"));
    }
    let is_packet = |attribute: &Attribute| match attribute {
        Attribute::Offload(offload) => offload.flags & OFFLOAD_PACKET != 0,
        _ => false,
    };
    if info.mode == Mode::IPTFS {
        return Err(Refusal::new(Errno::EINVAL, "no IP-TFS"));
    }
    if has(is_packet) {
        return Err(Refusal::new(Errno::EINVAL, "no XFRMA_OFFLOAD_DEV"));
    }
    algorithms::find(info.id.proto, &attributes)?;
    let mut info = *info;
    if info.flags & SaFlags::AF_UNSPEC == 0 && info.sel.family == Family::UNSPEC {
        info.sel.family = info.family;
    }
    info.usage = culvert_xfrm::lifetime::Usage { add_time: now, ..Default::default() };
    info.drops = culvert_xfrm::sa::Drops::default();
    info.replay_window = info.replay_window.min(32);
    Ok(Sa {
        info,
        attributes: kept(attributes),
        stage: Stage::Valid,
        installed: Installed::default(),
        is_dying: false,
    })
}

/// The selector that the kernel gives an SA before it has keys.
fn of_hosts(info: &SaInfo) -> Selector {
    let bits = info.family.prefix_bits_max().unwrap_or(0);
    let (daddr, saddr) = (info.id.daddr, info.saddr);
    Selector { daddr, saddr, prefixlen_d: bits, prefixlen_s: bits, ..Selector::default() }
}

/// What is kept of attributes: no interface, and of unknown ones as much as an answer has room for.
fn kept(mut attributes: Attributes) -> Attributes {
    let (mut room, count) = (UNKNOWN_OCTETS_MAX, attributes.0.len());
    attributes.0.retain(|attribute| {
        let Attribute::Unknown(unknown) = attribute else {
            return !matches!(attribute, Attribute::Offload(_));
        };
        let left = room.checked_sub(4 + unknown.octets.octets().len().next_multiple_of(4));
        room = left.unwrap_or(room);
        left.is_some()
    });
    if attributes.0.len() < count {
        attributes.0.shrink_to_fit();
    }
    attributes
}

fn wanted(info: &SaInfo, attributes: &Attributes) -> Wanted {
    let mark = attributes.mark().map_or(Mark::default(), |mark| *mark);
    Wanted { info: *info, mark, if_id: attributes.if_id().copied().unwrap_or(0) }
}

/// The numbers that an SA has come to, as its own.
fn keep_numbers(sa: &mut Sa, truth: &Truth) {
    if let Body::NewAe(_, list) = listing::numbers(sa, truth, 0) {
        for attribute in list.0 {
            if matches!(attribute, Attribute::Replay(_) | Attribute::ReplayEsn(_)) {
                replace(&mut sa.attributes, attribute);
            }
        }
    }
}

/// Puts an attribute in the place of others of its kind.
fn replace(attributes: &mut Attributes, with: Attribute) {
    let kind = std::mem::discriminant(&with);
    attributes.0.retain(|attribute| std::mem::discriminant(attribute) != kind);
    attributes.0.push(with);
}
