//! [`Service`]: the databases, and what each request does to them.
//!
//! Requests are answered as the kernel would. An answer must not leave before
//! [`settle`](Service::settle) has returned: then all workers do what was asked, an inbound SA
//! takes packets, and no worker sends by a policy or an SA that is gone.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use culvert_control::Direction;
use culvert_spd::Group;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::answer;
use culvert_xfrm::answer::Detail;
use culvert_xfrm::answer::Wanted;
use culvert_xfrm::event::Groups as Listeners;
use culvert_xfrm::header::KIND_MIN;
use culvert_xfrm::header::Kind;
use culvert_xfrm::info::HashSize;
use culvert_xfrm::info::SadAttribute;
use culvert_xfrm::message::Frame;
use culvert_xfrm::policy::Direction as PolicyDirection;

use crate::dump::Dump;
use crate::journal::Lost;
use crate::numbers::Numbers;
use crate::plan;
use crate::plan::Plan;
use crate::plan::Source;
use crate::plan::Want;
use crate::plane::DataPlane;
use crate::policies::Event;
use crate::policies::Policies;
use crate::policies::Policy;
use crate::refusal::Refusal;
use crate::sas::Name;
use crate::sas::SaNumber;
use crate::sas::Sas;
use crate::selector;

/// Seconds that a larval SA waits for its keys, as strongSwan sets it in the kernel.
pub const ACQUIRE_SECS: u64 = 165;

/// What the journal must hear of.
const JOURNALLED: u32 = Listeners::SA | Listeners::POLICY | Listeners::EXPIRE;

/// What of the databases is for the packets of this gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The mark that all packets have.
    pub mark: u32,
    /// The XFRM interface that they pass; 0 for none.
    pub if_id: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Port of its socket.
    pub port: u32,
    /// What it wants to know of errors.
    pub wanted: Wanted,
    /// It is culvert's own: listings say which direction SAs have here, where nobody said it.
    pub is_ours: bool,
}

/// What a request led to.
#[derive(Debug, Default)]
pub struct Answers {
    /// What to send back, in this order.
    pub messages: Vec<Message>,
    /// A listing that follows, with the rest of its request's answers.
    pub dump: Option<Dump>,
}

/// What a request that is no dump led to: an answer, but for an acknowledgement.
pub(crate) type Done = Result<Option<Body>, Refusal>;

/// The databases of a gateway.
#[derive(Debug)]
pub struct Service {
    pub(crate) sas: Sas,
    pub(crate) policies: Policies,
    pub(crate) plan: Plan,
    pub(crate) scope: Scope,
    /// SAs by the groups that they are in.
    pub(crate) members: BTreeMap<Group, Numbers>,
    /// Policies to ask for by the groups that have no SA.
    pub(crate) wants: HashMap<Group, Vec<Want>>,
    /// Groups by the policies that name them.
    pub(crate) named: HashMap<u32, Vec<Group>>,
    /// Groups that are several SAs.
    chains: HashSet<Group>,
    /// What is to be told.
    pub(crate) events: Vec<Event>,
    /// The policies that the data plane has.
    planned: Option<u64>,
    /// SAs have changed that policies depend on.
    pub(crate) is_stale: bool,
    /// Groups to which somebody listens.
    pub(crate) listening: u32,
    /// Those of them to which somebody else than the journal does.
    pub(crate) heard: u32,
    /// SAs of before the start.
    pub(crate) lost: Lost,
}

impl Service {
    /// Empty databases. What packets without a policy do is `policies`' to say.
    #[must_use]
    pub fn new(policies: Policies, scope: Scope) -> Service {
        Service {
            sas: Sas::default(),
            policies,
            plan: Plan::default(),
            scope,
            members: BTreeMap::new(),
            wants: HashMap::new(),
            named: HashMap::new(),
            chains: HashSet::new(),
            events: Vec::new(),
            planned: None,
            is_stale: false,
            listening: JOURNALLED,
            heard: 0,
            lost: Lost::default(),
        }
    }

    /// Does what a message asks for, at `now` in seconds since 1970.
    pub fn request(
        &mut self,
        plane: &mut impl DataPlane,
        asker: Asker,
        frame: &Frame<'_>,
        now: u64,
    ) -> Answers {
        let header = &frame.header;
        let acknowledged = |answers: &mut Answers| {
            if header.wants_ack() {
                answers.messages.push(answer::acknowledge(header, asker.port));
            }
        };
        // Nearly always there is one.
        let mut answers = Answers { messages: Vec::with_capacity(1), dump: None };
        if !header.is_request() || header.kind.0 < KIND_MIN {
            acknowledged(&mut answers);
            return answers;
        }
        let parsed = Message::parse(frame.octets);
        let checked = parsed.and_then(|message| message.check().map(|()| message));
        let done = match checked {
            Ok(Message { body: Body::DumpSa(which), .. }) => {
                answers.dump = Some(Dump::sas(*header, asker, &which));
                return answers;
            }
            Ok(Message { body: Body::DumpPolicy(_), .. }) => {
                answers.dump = Some(Dump::policies(*header, asker));
                return answers;
            }
            // Their attributes become those of an SA.
            Ok(Message { body: Body::NewSa(info, list), .. }) => {
                self.new_sa(plane, &info, list, now).map(|()| None)
            }
            Ok(Message { body: Body::UpdateSa(info, list), .. }) => {
                self.update_sa(plane, &info, list, now).map(|()| None)
            }
            Ok(Message { body, .. }) => self.dispatch(plane, asker, &body, now),
            Err(malformed) => Err(malformed.into()),
        };
        match done {
            Ok(body) => {
                answers.messages.extend(body.map(|body| Message {
                    flags: 0,
                    seq: header.seq,
                    port: asker.port,
                    body,
                }));
                acknowledged(&mut answers);
            }
            Err(refusal) => {
                if is_work(header.kind) && !EXPECTED.contains(&refusal.errno) {
                    tracing::warn!(request = ?header.kind, "refused: {}", refusal.text);
                }
                let text = std::iter::once(Detail::Text(refusal.text));
                let details = text.chain(refusal.at.map(Detail::Offset)).collect();
                let Asker { port, wanted, .. } = asker;
                let error = answer::refuse(frame, port, refusal.errno, details, wanted);
                answers.messages.push(error);
            }
        }
        answers
    }

    fn dispatch(
        &mut self,
        plane: &mut impl DataPlane,
        asker: Asker,
        body: &Body,
        now: u64,
    ) -> Done {
        let done = |()| None;
        match body {
            Body::DeleteSa(id, list) => self.delete_sa(plane, id, list).map(done),
            Body::GetSa(id, list) => self.get_sa(plane, asker, id, list).map(Some),
            Body::FlushSa(which, _) => {
                self.flush_sas(plane, *which);
                Ok(None)
            }
            Body::AllocateSpi(request, list) => {
                self.allocate_spi(plane, request, list, now).map(Some)
            }
            Body::GetAe(id, list) => self.get_numbers(plane, id, list).map(Some),
            Body::NewAe(id, list) => self.set_numbers(plane, id, list, now).map(done),
            Body::Expire(expire, list) => self.expire_sa(plane, expire, list).map(done),
            Body::Migrate(id, list) => self.migrate(plane, id, list, now).map(done),
            Body::GetSadInfo(flags) => Ok(Some(self.sad_info(*flags))),
            Body::NewPolicy(info, _) | Body::UpdatePolicy(info, _) => {
                selector::convert(&info.sel)?;
                self.policy_request(body, now)
            }
            Body::GetPolicy(id, list) => {
                self.note_policy_use(plane, id, list);
                self.policy_request(body, now)
            }
            Body::Acquire(..) => {
                Err(Refusal::new(Errno::EOPNOTSUPP, "no requests for SAs from user space"))
            }
            _ => self.policy_request(body, now),
        }
    }

    fn policy_request(&mut self, body: &Body, now: u64) -> Done {
        let Some(reply) = self.policies.request(body, now) else {
            return Err(Refusal::new(Errno::EINVAL, "a request"));
        };
        let reply = reply?;
        self.events.extend(reply.event);
        Ok(reply.answer)
    }

    /// Makes workers do what was asked for, and waits until they do; false when one does not.
    /// Policies are put together anew if need be.
    pub fn settle(&mut self, plane: &mut impl DataPlane) -> bool {
        let generation = self.policies.generation();
        if self.is_stale || self.planned != Some(generation) {
            self.put_together(plane);
            self.planned = Some(generation);
            self.is_stale = false;
        }
        self.tidy();
        plane.settle()
    }

    /// Forgets groups that nothing is in or names, when there are many.
    fn tidy(&mut self) {
        if self.plan.len() > 1024 + 4 * (self.members.len() + self.wants.len()) {
            let in_use = self.members.keys().chain(self.wants.keys()).chain(&self.chains);
            self.plan.tidy(&in_use.copied().collect());
        }
    }

    fn put_together(&mut self, plane: &mut impl DataPlane) {
        let Service { policies, plan, sas, scope, .. } = self;
        let source = |dir| {
            let scope = *scope;
            policies
                .ordered(dir)
                .filter(move |policy| is_for(scope, policy))
                .map(|policy| Source { info: policy.info(), templates: policy.templates() })
        };
        let outcome = plan.outcome(
            source(PolicyDirection::OUT),
            source(PolicyDirection::FORWARD),
            source(PolicyDirection::IN),
            &policies.defaults(),
            (policies.depend_on_sas(), sas.iter().map(|(_, sa)| sa)),
        );
        for (kind, group) in plan.take_fresh() {
            self.join(plane, kind, group);
        }
        if let Err(error) = plane.set_policies(&outcome.spd, &outcome.bundles) {
            tracing::warn!(%error, "policies with several templates have no SA");
        }
        self.wants = outcome.wants;
        self.named.clear();
        for (&group, wants) in &self.wants {
            for want in wants {
                self.named.entry(want.policy).or_default().push(group);
            }
        }
        self.chains = outcome.bundles.into_iter().map(|(group, _)| group).collect();
    }

    /// A policy asks for one SA for the first time: one that it means is in this group from now on.
    fn join(&mut self, plane: &mut impl DataPlane, kind: plan::Kind, group: Group) {
        let numbers = kind.name().map_or(&[][..], |name| self.sas.named(name));
        for &number in numbers {
            let Some(sa) = self.sas.get(number) else { continue };
            let is_it = plan::kind(sa, Direction::Outbound) == Some(kind.of_several());
            if let Some(handle) = sa.installed.outbound.filter(|_| is_it) {
                self.members.entry(group).or_default().push(number);
                if let Err(error) = plane.set_alias(handle, group) {
                    tracing::warn!(%error, "a policy that names an SA by its SPI does not have it");
                }
            }
        }
    }

    /// What there is to tell, oldest first. Of SAs that nobody but the journal hears of, attributes
    /// are not among it.
    pub fn take_events(&mut self) -> Vec<Event> {
        // The next ones will be about as many.
        let next = Vec::with_capacity(self.events.len());
        std::mem::replace(&mut self.events, next)
    }

    /// Somebody listens to these groups, and nobody to others; the journal hears of SAs and
    /// policies in any case.
    pub fn set_listening(&mut self, groups: u32) {
        self.listening = groups | JOURNALLED;
        self.heard = groups;
    }

    /// Somebody listens to these groups as well from now on.
    pub fn add_listening(&mut self, groups: u32) {
        self.set_listening(self.heard | groups);
    }

    /// How many SAs there are, larval ones included, and how many policies.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.sas.len(), self.policies.len())
    }

    /// The SA with this name, for packets with this mark.
    pub(crate) fn find(&self, name: Option<Name>, mark: u32) -> Result<SaNumber, Refusal> {
        let found = name.and_then(|name| self.sas.find(name, mark));
        found.ok_or_else(|| Refusal::missing(Errno::ESRCH, "SA"))
    }

    fn sad_info(&self, flags: u32) -> Body {
        let count = u32::try_from(self.sas.len()).unwrap_or(u32::MAX);
        let buckets = count.next_power_of_two().max(8);
        let hash = HashSize { count: buckets, max: 1 << 20 };
        Body::NewSadInfo(flags, vec![SadAttribute::Count(count), SadAttribute::Hash(hash)])
    }
}

/// Refusals that IKE daemons and scripts count on.
const EXPECTED: [Errno; 3] = [Errno::EEXIST, Errno::ENOENT, Errno::ESRCH];

/// True for a request that an operator will want to know the refusal of.
fn is_work(kind: Kind) -> bool {
    [Kind::NEWSA, Kind::UPDSA, Kind::NEWPOLICY, Kind::UPDPOLICY].contains(&kind)
}

/// True for a policy that packets of this gateway meet.
fn is_for(scope: Scope, policy: &Policy) -> bool {
    let mark = policy.mark();
    scope.mark & mark.mask == mark.value & mark.mask && policy.if_id() == scope.if_id
}
