//! The policy database, as `net/xfrm/xfrm_policy.c` and `xfrm_user.c` of Linux 6.12 and later have
//! it: what exists, in which order it is tried and listed, what each request answers and announces.
//!
//! A policy is named by its direction, selector, mark and interface; or by its index, whose low
//! three bits are the direction, always with the same mark and interface. Of a mark, value and
//! mask count; bits of the value behind the mask are gone when the policy is made. Only the main
//! database is there; that of Mobile IPv6 (`XFRM_POLICY_TYPE_SUB`) is refused by
//! [`Message::check`].
//!
//! Requests must have passed [`Message::check`]: what the kernel refuses before it looks at the
//! database is refused there. Nothing here panics without it.
//!
//! Where this differs from the kernel:
//! - Unknown attributes of NEWPOLICY and UPDPOLICY are kept and returned, behind the others.
//! - Labels (`XFRMA_SEC_CTX`) are refused: a policy that ignored them would be for more packets
//!   than it says. Interfaces that are to do the work (`XFRMA_OFFLOAD_DEV`) are refused as by a
//!   kernel whose interfaces cannot.
//! - An index with the bit of socket policies is refused.
//! - A limit of more seconds than the clock can count is none; the kernel's sum wraps around.
//! - There are at most [`POLICIES_MAX`] policies.
//!
//! [`Message::check`]: culvert_xfrm::Message::check

mod expiry;
mod migrate;
mod policy;
mod request;
mod settings;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::event::Groups;
use culvert_xfrm::event::PolicyExpire;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::PolicyType;

use self::policy::Key;
use self::settings::Settings;

pub use self::migrate::Migration;
pub use self::policy::Policy;
pub use self::request::Reply;

/// Most policies there can be.
pub const POLICIES_MAX: usize = 1 << 20;

/// Directions there are.
const DIRECTIONS: usize = 3;

/// Something to tell those who listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Bits of [`Groups`]: who is told.
    pub groups: u32,
    /// What they are told.
    pub body: Body,
}

/// A place in the listing of all policies, which stays valid while policies come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

/// The policy database.
#[derive(Debug)]
pub struct Policies {
    /// By index.
    policies: HashMap<u32, Policy>,
    /// Index by name.
    names: HashMap<Key, u32>,
    /// Policies of which it depends on SAs what they mean.
    dependent: usize,
    /// Index by priority and place, of each direction.
    order: [BTreeMap<(u32, u64), u32>; DIRECTIONS],
    /// Index by age; the youngest is listed first.
    ages: BTreeMap<u64, u32>,
    /// When to look at the limits of which policy.
    deadlines: BTreeSet<(u64, u32)>,
    /// Policies that were made so far.
    made: u64,
    /// Number from which the next index is made, a multiple of 8.
    next_index: u32,
    /// Changes so far.
    generation: u64,
    /// Most policies there can be.
    most: usize,
    settings: Settings,
}

impl Default for Policies {
    fn default() -> Policies {
        Policies {
            policies: HashMap::new(),
            names: HashMap::new(),
            dependent: 0,
            order: Default::default(),
            ages: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            made: 0,
            next_index: 0,
            generation: 0,
            most: POLICIES_MAX,
            settings: Settings::default(),
        }
    }
}

impl Policies {
    /// No policies; packets that no policy is for pass.
    #[must_use]
    pub fn new() -> Policies {
        Policies::default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// A number that changes whenever policies or defaults do.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The policy with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Policy> {
        self.policies.get(&index)
    }

    /// The policies of a direction in the order in which they are tried: by priority, the lowest
    /// number first; of the same priority the oldest first. A policy that is replaced by one of the
    /// same priority keeps its place; of another priority it is the last of those.
    ///
    /// The kernel does the same as long as policies share a list. Two that overlap and are on
    /// different lists, since they have prefixes of different lengths, go by age there, and a
    /// replaced policy counts as new.
    pub fn ordered(&self, dir: Direction) -> impl Iterator<Item = &Policy> {
        let list = self.order.get(usize::from(dir.0));
        list.into_iter().flat_map(BTreeMap::values).map(|index| &self.policies[index])
    }

    /// NEWPOLICY at `now`, in seconds since 1970: makes a policy. What to announce.
    ///
    /// # Errors
    /// EEXIST if there is one of this name; EOPNOTSUPP for a label; EINVAL for an interface that is
    /// to do the work, or an index of another direction; ENOMEM at [`POLICIES_MAX`].
    pub fn add(
        &mut self,
        info: &PolicyInfo,
        attributes: &Attributes,
        now: u64,
    ) -> Result<Event, Errno> {
        if self.names.contains_key(&Key::of_policy(info, attributes)) {
            return Err(Errno::EEXIST);
        }
        let policy = self.put(info, attributes, now)?;
        let body = Body::NewPolicy(*policy.info(), policy.attributes());
        Ok(Event { groups: Groups::POLICY, body })
    }

    /// UPDPOLICY at `now`, in seconds since 1970: makes a policy or replaces that of its name,
    /// which keeps its index. What to announce.
    ///
    /// # Errors
    /// As [`Policies::add`], without EEXIST.
    pub fn update(
        &mut self,
        info: &PolicyInfo,
        attributes: &Attributes,
        now: u64,
    ) -> Result<Event, Errno> {
        let policy = self.put(info, attributes, now)?;
        let body = Body::UpdatePolicy(*policy.info(), policy.attributes());
        Ok(Event { groups: Groups::POLICY, body })
    }

    /// GETPOLICY for one: the answer.
    ///
    /// # Errors
    /// ENOENT.
    pub fn get(&self, id: &PolicyId, attributes: &Attributes) -> Result<Body, Errno> {
        Ok(self.policies[&self.find(id, attributes)?].body())
    }

    /// DELPOLICY: deletes a policy. What to announce.
    ///
    /// # Errors
    /// ENOENT.
    pub fn delete(&mut self, id: &PolicyId, attributes: &Attributes) -> Result<Event, Errno> {
        let policy = self.remove(self.find(id, attributes)?);
        let dir = policy.info().dir;
        let name = if id.index == 0 {
            PolicyId { sel: policy.info().sel, index: 0, dir }
        } else {
            PolicyId { index: policy.info().index, dir, ..PolicyId::default() }
        };
        let mut list = vec![Attribute::Policy(Box::new(*policy.info()))];
        list.extend(policy.attributes().0);
        let body = Body::DeletePolicy(name, Attributes(list));
        Ok(Event { groups: Groups::POLICY, body })
    }

    /// FLUSHPOLICY: deletes all. What to announce, if there were any.
    pub fn flush(&mut self) -> Option<Event> {
        if self.is_empty() {
            return None;
        }
        self.policies.clear();
        self.dependent = 0;
        self.names.clear();
        self.order.iter_mut().for_each(BTreeMap::clear);
        self.ages.clear();
        self.deadlines.clear();
        self.generation += 1;
        let kind = Attribute::PolicyType(PolicyType::default());
        let body = Body::FlushPolicy(Attributes(vec![kind]));
        Some(Event { groups: Groups::POLICY, body })
    }

    /// GETPOLICY for all: the answers, the youngest policy first, each with its place. A listing
    /// goes on `behind` the place that was seen last; policies that were made since are not listed.
    pub fn list(&self, behind: Option<Cursor>) -> impl Iterator<Item = (Cursor, Body)> {
        let below = behind.map_or(u64::MAX, |Cursor(age)| age);
        let rest = self.ages.range(..below).rev();
        rest.map(|(age, index)| (Cursor(*age), self.policies[index].body()))
    }

    /// POLEXPIRE of a client: tells those who listen that a policy expired, and deletes it if that
    /// is `hard`. What to announce.
    ///
    /// # Errors
    /// ENOENT.
    pub fn expire(
        &mut self,
        expire: &PolicyExpire,
        attributes: &Attributes,
    ) -> Result<Event, Errno> {
        let PolicyInfo { sel, index, dir, .. } = expire.policy;
        let index = self.find(&PolicyId { sel, index, dir }, attributes)?;
        let is_hard = expire.hard != 0;
        let event = expiry::event(&self.policies[&index], is_hard);
        if is_hard {
            self.remove(index);
        }
        Ok(event)
    }

    /// Notes that packets used a policy, in seconds since 1970.
    pub fn used(&mut self, index: u32, at: u64) {
        if let Some(policy) = self.policies.get_mut(&index) {
            policy.used(at);
        }
    }

    /// True when what some policy means depends on the SAs that there are: it has a template of
    /// transport mode, whose addresses are the packet's, or one that packets may do without.
    pub(crate) fn depend_on_sas(&self) -> bool {
        self.dependent > 0
    }

    /// Index of the policy that is meant.
    pub(crate) fn find(&self, id: &PolicyId, attributes: &Attributes) -> Result<u32, Errno> {
        let is_labelled = attributes.0.iter().any(policy::is_label);
        let key = Key::of_id(id, attributes);
        let index = if id.index == 0 {
            self.names.get(&key).filter(|_| !is_labelled).copied()
        } else {
            let policy = self.policies.get(&id.index);
            let named = policy.filter(|policy| policy.key().agrees(&key));
            named.map(|policy| policy.info().index)
        };
        index.ok_or(Errno::ENOENT)
    }

    /// Makes a policy or replaces that of its name.
    fn put(
        &mut self,
        info: &PolicyInfo,
        attributes: &Attributes,
        now: u64,
    ) -> Result<&Policy, Errno> {
        let mut policy = Policy::new(info, attributes, now)?;
        let replaced = self.names.get(policy.key()).copied();
        if replaced.is_none() && self.len() >= self.most {
            return Err(Errno::ENOMEM);
        }
        let index = replaced.unwrap_or_else(|| self.free_index(info));
        self.made += 1;
        let place = replaced.map(|index| self.remove(index));
        let place = place.filter(|old| old.info().priority == info.priority);
        let place = place.map_or(self.made, |old| old.place());
        policy.placed(index, place, self.made);
        self.names.insert(*policy.key(), index);
        self.dependent += usize::from(policy.depends_on_sas());
        self.order[policy.list()].insert((info.priority, place), index);
        self.ages.insert(self.made, index);
        if policy.has_limits() {
            self.deadlines.insert((now.saturating_add(1), index));
            policy.wakes(Some(now.saturating_add(1)));
        }
        self.generation += 1;
        Ok(self.policies.entry(index).insert_entry(policy).into_mut())
    }

    /// An index that is free: that of the request, else the next.
    fn free_index(&mut self, info: &PolicyInfo) -> u32 {
        let mut wanted = info.index;
        loop {
            if wanted == 0 {
                wanted = self.next_index | u32::from(info.dir.0);
                self.next_index = self.next_index.wrapping_add(8);
            }
            // 0 says "any".
            let index = if wanted == 0 { 8 } else { wanted };
            if !self.policies.contains_key(&index) {
                return index;
            }
            wanted = 0;
        }
    }

    fn remove(&mut self, index: u32) -> Policy {
        let policy = self.policies.remove(&index).expect("a policy that was found");
        self.names.remove(policy.key());
        self.dependent -= usize::from(policy.depends_on_sas());
        self.order[policy.list()].remove(&(policy.info().priority, policy.place()));
        self.ages.remove(&policy.age());
        if let Some(at) = policy.wakes_at() {
            self.deadlines.remove(&(at, index));
        }
        self.generation += 1;
        policy
    }
}

#[cfg(test)]
mod tests;
