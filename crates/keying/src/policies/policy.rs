//! One policy.

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Family;
use culvert_xfrm::attribute::Unknown;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::PolicyType;
use culvert_xfrm::policy::Share;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::selector::Selector;

use crate::policies::DIRECTIONS;

/// Most octets of unknown attributes that are kept of a policy, their headers included. With six
/// templates an answer has less than 4096 octets ([`culvert_xfrm::message::ANSWER_LEN_MAX`]).
const UNKNOWN_OCTETS_MAX: usize = 1024;

/// What names a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    selector: Selector,
    dir: Direction,
    mark: Mark,
    if_id: u32,
}

impl Key {
    /// What a request that only names a policy means. Its mark is taken as it is.
    pub(super) fn of_id(id: &PolicyId, attributes: &Attributes) -> Key {
        let mark = attributes.mark().copied().unwrap_or_default();
        let if_id = attributes.if_id().copied().unwrap_or_default();
        Key { selector: id.sel, dir: id.dir, mark, if_id }
    }

    /// The name of the policy that a request makes. Bits of its mark behind the mask are gone.
    pub(super) fn of_policy(info: &PolicyInfo, attributes: &Attributes) -> Key {
        let id = PolicyId { sel: info.sel, index: 0, dir: info.dir };
        let key = Key::of_id(&id, attributes);
        let mark = Mark { value: key.mark.value & key.mark.mask, ..key.mark };
        Key { mark, ..key }
    }

    /// Whether all but the selector is the same.
    pub(super) fn agrees(&self, other: &Key) -> bool {
        Key { selector: other.selector, ..*self } == *other
    }
}

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    info: PolicyInfo,
    templates: Vec<Template>,
    key: Key,
    unknown: Vec<Unknown>,
    /// Where it stands among those of its priority.
    place: u64,
    /// When it was made, counted in policies.
    age: u64,
    /// When to look at its limits.
    wakes_at: Option<u64>,
}

impl Policy {
    /// The policy of a request, not yet with an index.
    pub(super) fn new(
        info: &PolicyInfo,
        attributes: &Attributes,
        now: u64,
    ) -> Result<Policy, Errno> {
        if attributes.0.iter().any(is_label) {
            return Err(Errno::EOPNOTSUPP);
        }
        let is_offload = |attribute: &Attribute| matches!(attribute, Attribute::Offload(_));
        let is_of_socket = info.index & 4 != 0;
        let has_list = usize::from(info.dir.0) < DIRECTIONS;
        let agrees = info.index == 0 || info.index & 3 == u32::from(info.dir.0);
        if attributes.0.iter().any(is_offload) || is_of_socket || !has_list || !agrees {
            return Err(Errno::EINVAL);
        }
        let usage = Usage { add_time: now, ..Usage::default() };
        let unsaid = |template: &Template| template.family == Family::UNSPEC;
        let mut templates = attributes.templates().cloned().unwrap_or_default();
        for template in templates.iter_mut().filter(|template| unsaid(template)) {
            template.family = info.sel.family;
        }
        Ok(Policy {
            info: PolicyInfo { usage, share: Share::ANY, ..*info },
            templates,
            key: Key::of_policy(info, attributes),
            unknown: unknown(attributes),
            place: 0,
            age: 0,
            wakes_at: None,
        })
    }

    /// What is shown of it but for attributes.
    #[must_use]
    pub fn info(&self) -> &PolicyInfo {
        &self.info
    }

    /// The SAs that it asks for, in the order in which they are applied to what is sent.
    #[must_use]
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Mark of the packets that it is for.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.key.mark
    }

    /// XFRM interface that it belongs to; 0 for none.
    #[must_use]
    pub fn if_id(&self) -> u32 {
        self.key.if_id
    }

    /// Its attributes in the kernel's order, then those that are not known here.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let mut list = Vec::new();
        if !self.templates.is_empty() {
            list.push(Attribute::Templates(self.templates.clone()));
        }
        list.push(Attribute::PolicyType(PolicyType::default()));
        if self.mark() != Mark::default() {
            list.push(Attribute::Mark(self.mark()));
        }
        if self.if_id() != 0 {
            list.push(Attribute::IfId(self.if_id()));
        }
        list.extend(self.unknown.iter().cloned().map(Attribute::Unknown));
        Attributes(list)
    }

    /// NEWPOLICY, as an answer.
    pub(super) fn body(&self) -> Body {
        Body::NewPolicy(self.info, self.attributes())
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Number of its direction's list.
    pub(super) fn list(&self) -> usize {
        usize::from(self.info.dir.0)
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    pub(super) fn age(&self) -> u64 {
        self.age
    }

    pub(super) fn wakes_at(&self) -> Option<u64> {
        self.wakes_at
    }

    pub(super) fn wakes(&mut self, at: Option<u64>) {
        self.wakes_at = at;
    }

    pub(super) fn placed(&mut self, index: u32, place: u64, age: u64) {
        self.info.index = index;
        self.place = place;
        self.age = age;
    }

    /// Whether SAs decide what it means: it has a template of transport mode, whose addresses are
    /// the packet's, and is not for two hosts alone; or one that packets may do without.
    pub(super) fn depends_on_sas(&self) -> bool {
        let sel = &self.info.sel;
        let whole = sel.family.prefix_bits_max();
        let is_of_hosts = [sel.prefixlen_s, sel.prefixlen_d].map(Some) == [whole; 2];
        let is_open = |one: &Template| one.mode == Mode::TRANSPORT && !is_of_hosts;
        let depends = |one: &Template| is_open(one) || one.optional != 0;
        self.templates.iter().any(depends)
    }

    pub(super) fn asks_for(&mut self, templates: Vec<Template>) {
        self.templates = templates;
    }

    pub(super) fn used(&mut self, at: u64) {
        self.info.usage.use_time = at;
    }

    /// Whether time can make it expire.
    pub(super) fn has_limits(&self) -> bool {
        let limits = &self.info.limits;
        let age = limits.soft_age_secs != 0 || limits.hard_age_secs != 0;
        age || limits.soft_use_secs != 0 || limits.hard_use_secs != 0
    }
}

/// Whether an attribute is a label.
pub(super) fn is_label(attribute: &Attribute) -> bool {
    matches!(attribute, Attribute::SecurityContext(_))
}

/// The unknown attributes, as far as there is room.
fn unknown(attributes: &Attributes) -> Vec<Unknown> {
    let mut room = UNKNOWN_OCTETS_MAX;
    let mut kept = Vec::new();
    for attribute in &attributes.0 {
        let Attribute::Unknown(unknown) = attribute else { continue };
        let len = 4 + unknown.octets.octets().len().next_multiple_of(4);
        let Some(left) = room.checked_sub(len) else { continue };
        room = left;
        kept.push(unknown.clone());
    }
    kept
}
