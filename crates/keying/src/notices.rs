//! What happens without a request: packets that want an SA, limits that are reached, peers that
//! move, and time that goes by.

use culvert_control::News;
use culvert_engine::Notice;
use culvert_engine::Peer;
use culvert_esp::lifetime::ExpiryKind;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Port;
use culvert_xfrm::event::Acquire;
use culvert_xfrm::event::Groups as Listeners;
use culvert_xfrm::event::Mapping;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyType;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;
use culvert_xfrm::selector::Selector;

use crate::listing;
use crate::listing::Truth;
use crate::numbers::Numbers;
use crate::plan::Want;
use crate::plane::DataPlane;
use crate::sas::SaNumber;
use crate::sas::Wanted;
use crate::selector;
use crate::service::ACQUIRE_SECS;
use crate::service::Service;

impl Service {
    /// What a worker said, at `now` in seconds since 1970.
    pub fn notice(&mut self, plane: &mut impl DataPlane, news: &News, now: u64) {
        let number = news.sa.and_then(|handle| self.sas.of_handle(handle));
        match (news.notice, number) {
            (Notice::Acquire { group, flow, resource: None, .. }, _) => {
                self.acquire(group, &flow, now);
            }
            (Notice::Expire { expiry, .. }, Some(number)) => {
                let hard = expiry.kind == ExpiryKind::Hard;
                let is_told = self
                    .sas
                    .get_mut(number)
                    .is_some_and(|sa| std::mem::replace(&mut sa.is_dying, true));
                if hard || !is_told {
                    self.expire(plane, number, hard);
                }
            }
            (Notice::Mapping { new, .. }, Some(number)) => self.mapped(number, new),
            _ => {}
        }
    }

    /// A packet has no SA: IKE is asked for one, once, and again only when it did not come in time.
    fn acquire(&mut self, group: Group, flow: &Flow, now: u64) {
        if self.listening & Listeners::ACQUIRE == 0 {
            return;
        }
        let packet = listing::selector_of(flow);
        let wants = self.wants.get(&group).into_iter().flatten().copied();
        let mut lacking = wants.filter(|want| !self.members.contains_key(&want.group));
        let Some(want) = lacking.find(|want| self.is_about(*want, flow)) else {
            return;
        };
        let Some((acquire, list)) = self.acquire_message(want, packet) else {
            return;
        };
        let (mut info, policy) = (SaInfo::default(), acquire.policy);
        info.id = acquire.id;
        info.saddr = acquire.saddr;
        info.sel = packet;
        let Some(template) = self
            .policies
            .by_index(policy.index)
            .and_then(|policy| policy.templates().get(want.template).copied())
        else {
            return;
        };
        (info.reqid, info.mode, info.family) = (template.reqid, template.mode, template.family);
        let mark = list.mark().copied().unwrap_or(Mark::default());
        let wanted = Wanted { info, mark, if_id: list.if_id().copied().unwrap_or(0) };
        if self.sas.find_wanted(&wanted).is_some() {
            return;
        }
        let seq = self.sas.next_acquire();
        let wanted = Wanted { info: SaInfo { seq, ..info }, ..wanted };
        if let Ok(number) = self.sas.want(&wanted, now, now + ACQUIRE_SECS) {
            if let Some(sa) = self.sas.get_mut(number) {
                sa.attributes.0.push(Attribute::Direction(SaDirection::OUT));
            }
            self.tell(Listeners::ACQUIRE, || Body::Acquire(Acquire { seq, ..acquire }, list));
        }
    }

    fn is_about(&self, want: Want, flow: &Flow) -> bool {
        self.policies.by_index(want.policy).is_some_and(|policy| {
            let selectors = selector::convert(&policy.info().sel);
            selectors.is_ok_and(|list| list.iter().any(|selector| selector.matches(flow)))
        })
    }

    fn acquire_message(&self, want: Want, packet: Selector) -> Option<(Acquire, Attributes)> {
        let policy = self.policies.by_index(want.policy)?;
        let template = policy.templates().get(want.template)?;
        let said = |address: Address, or: Address| {
            if address == Address::default() { or } else { address }
        };
        // Outside of a tunnel, the addresses are the tunnel's.
        let (mut saddr, mut daddr) = (packet.saddr, packet.daddr);
        for inner in &policy.templates()[..want.template] {
            if [Mode::TUNNEL, Mode::BEET, Mode::IPTFS].contains(&inner.mode) {
                (saddr, daddr) = (said(inner.saddr, saddr), said(inner.id.daddr, daddr));
            }
        }
        let id = XfrmId { daddr: said(template.id.daddr, daddr), ..template.id };
        let saddr = said(template.saddr, saddr);
        let acquire = Acquire {
            id,
            saddr,
            sel: packet,
            policy: *policy.info(),
            aalgos: template.aalgos,
            ealgos: template.ealgos,
            calgos: template.calgos,
            seq: 0,
        };
        let mut list = vec![
            Attribute::Templates(policy.templates().to_vec()),
            Attribute::PolicyType(PolicyType::default()),
        ];
        if policy.mark() != Mark::default() {
            list.push(Attribute::Mark(policy.mark()));
        }
        if policy.if_id() != 0 {
            list.push(Attribute::IfId(policy.if_id()));
        }
        Some((acquire, Attributes(list)))
    }

    /// Authentic packets of an SA come from somewhere else: IKE decides what that means (RFC 7296
    /// section 2.23).
    fn mapped(&mut self, number: SaNumber, new: Peer) {
        let Some(sa) = self.sas.get(number) else {
            return;
        };
        let Some(encap) = sa.attributes.encap() else {
            return;
        };
        let mapping = Mapping {
            id: listing::id(sa),
            reqid: sa.info.reqid,
            old_saddr: sa.info.saddr,
            new_saddr: Address::from(new.address),
            old_sport: encap.sport,
            new_sport: Port(new.port),
        };
        self.tell(Listeners::MAPPING, || Body::Mapping(mapping, Attributes::default()));
    }

    /// Lets time go by: larval SAs and policies whose time is over go. Call it about once a second.
    pub fn tick(&mut self, plane: &mut impl DataPlane, now: u64) {
        for number in self.sas.overdue(now) {
            let Some(sa) = self.take_out(plane, number) else {
                continue;
            };
            self.tell(Listeners::EXPIRE, || listing::expired(&sa, &Truth::default(), true));
        }
        let events = self.policies.tick(now);
        self.events.extend(events);
    }

    /// Says again which SAs need a successor, to listeners that may have missed it.
    pub fn remind(&mut self, plane: &mut impl DataPlane) {
        let dying: Vec<SaNumber> =
            self.sas.iter().filter(|(_, sa)| sa.is_dying).map(|(number, _)| number).collect();
        let truths = self.truths(plane, &dying);
        for (number, truth) in dying.into_iter().zip(truths) {
            if let Some(sa) = self.sas.get(number).cloned() {
                self.tell(Listeners::EXPIRE, || listing::expired(&sa, &truth, false));
            }
        }
    }

    /// Writes into a policy when packets last used it.
    pub(crate) fn note_policy_use(
        &mut self,
        plane: &mut impl DataPlane,
        id: &PolicyId,
        attributes: &Attributes,
    ) {
        if let Ok(index) = self.policies.find(id, attributes) {
            self.note_use(plane, &[index]);
        }
    }

    /// Writes into policies when packets last used them, which is when they used one of the SAs
    /// that the policies mean.
    pub(crate) fn note_use(&mut self, plane: &mut impl DataPlane, policies: &[u32]) {
        let members = |index: &u32| -> Vec<SaNumber> {
            let groups = self.named.get(index).into_iter().flatten();
            let members = groups.filter_map(|group| self.members.get(group));
            members.flat_map(Numbers::as_slice).copied().collect()
        };
        let of_each: Vec<Vec<SaNumber>> = policies.iter().map(members).collect();
        let all: Vec<SaNumber> = of_each.iter().flatten().copied().collect();
        let mut truths = self.truths(plane, &all).into_iter();
        for (index, members) in policies.iter().zip(&of_each) {
            let used = truths.by_ref().take(members.len()).filter_map(|truth| truth.last_used());
            if let Some(at) = used.max() {
                self.policies.used(*index, at);
            }
        }
    }
}
