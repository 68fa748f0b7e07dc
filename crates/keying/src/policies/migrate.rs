//! New addresses for the templates of a policy (`xfrm_policy_migrate`).

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::event::Groups;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyType;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::selector::Selector;

use crate::policies::Event;
use crate::policies::Policies;

/// What MIGRATE comes to, before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    index: u32,
    templates: Vec<Template>,
    event: Event,
}

impl Migration {
    /// The policy's index.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

impl Policies {
    /// MIGRATE, as far as policies are concerned: what it comes to, for [`Policies::migrate`] after
    /// the SAs got their new addresses. Nothing is changed yet.
    ///
    /// The policy is the first in order that has the selector, direction and interface that are
    /// named; without a protocol, the first that has the networks. The mark is not looked at.
    /// (Linux since 6.12 takes the first that a packet from the one network's first address to the
    /// other's would meet, which may be another.)
    ///
    /// # Errors
    /// EINVAL for a new address that is zero, a family that is neither IPv4 nor IPv6 (the kernel
    /// takes it for IPv4), or two changes for the same; ENOENT without such a
    /// policy; ENODATA if none of its templates is concerned.
    pub fn migration(&self, id: &PolicyId, attributes: &Attributes) -> Result<Migration, Errno> {
        let changes = attributes.migrate().map(Vec::as_slice).unwrap_or_default();
        check(changes)?;
        let if_id = attributes.if_id().copied().unwrap_or_default();
        let is_named = |sel: &Selector| {
            if id.sel.proto == 0 { networks(sel) == networks(&id.sel) } else { *sel == id.sel }
        };
        let mut ordered = self.ordered(id.dir);
        let policy = ordered.find(|one| one.if_id() == if_id && is_named(&one.info().sel));
        let policy = policy.ok_or(Errno::ENOENT)?;
        let mut templates = policy.templates().to_vec();
        let mut concerned = false;
        for template in &mut templates {
            for change in changes {
                concerned |= apply(change, template);
            }
        }
        if !concerned {
            return Err(Errno::ENODATA);
        }
        let event = event(id, changes, attributes);
        Ok(Migration { index: policy.info().index, templates, event })
    }

    /// Does what [`Policies::migration`] found, if the policy is still there. What to announce.
    pub fn migrate(&mut self, migration: Migration) -> Event {
        let Migration { index, templates, event } = migration;
        if let Some(policy) = self.policies.get_mut(&index) {
            policy.asks_for(templates);
            self.generation += 1;
        }
        event
    }
}

/// Every change leads somewhere, and no two begin at the same.
fn check(changes: &[Migrate]) -> Result<(), Errno> {
    let begins = |change: &Migrate| {
        let Migrate { old_daddr, old_saddr, proto, mode, reqid, old_family, .. } = *change;
        (old_daddr, old_saddr, proto, mode, reqid, old_family)
    };
    let is_zero = |address: Address, family| is_same(address, Address::default(), family);
    for (at, change) in changes.iter().enumerate() {
        let family = change.new_family;
        let is_twice = changes[..at].iter().any(|other| begins(other) == begins(change));
        let is_known = |family: Family| family.prefix_bits_max().is_some();
        if !is_known(family) || !is_known(change.old_family) {
            return Err(Errno::EINVAL);
        }
        if is_twice || is_zero(change.new_daddr, family) || is_zero(change.new_saddr, family) {
            return Err(Errno::EINVAL);
        }
    }
    if changes.is_empty() { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Whether two addresses of a family are the same; never, of another family.
fn is_same(one: Address, other: Address, family: Family) -> bool {
    one.ip(family).is_some_and(|ip| other.ip(family) == Some(ip))
}

/// What the kernel compares of a selector without a protocol.
fn networks(sel: &Selector) -> (Family, Address, Address, u8, u8) {
    (sel.family, sel.daddr, sel.saddr, sel.prefixlen_d, sel.prefixlen_s)
}

/// Changes a template if it is concerned; whether it is. Those of transport mode have no addresses.
fn apply(change: &Migrate, template: &mut Template) -> bool {
    let same = template.mode == change.mode
        && template.id.proto == change.proto
        && (change.reqid == 0 || change.reqid == template.reqid);
    let family = change.old_family;
    let begins = is_same(template.id.daddr, change.old_daddr, family)
        && is_same(template.saddr, change.old_saddr, family);
    let tunnels = matches!(template.mode, Mode::TUNNEL | Mode::BEET | Mode::IPTFS);
    if same && tunnels && begins {
        template.id.daddr = change.new_daddr;
        template.saddr = change.new_saddr;
        template.family = change.new_family;
    }
    same && (template.mode == Mode::TRANSPORT || tunnels && begins)
}

/// MIGRATE: each change is an attribute of its own.
fn event(id: &PolicyId, changes: &[Migrate], attributes: &Attributes) -> Event {
    let of = |wanted: fn(&Attribute) -> bool| attributes.0.iter().rfind(|one| wanted(one)).cloned();
    let mut list = Vec::new();
    list.extend(of(|one| matches!(one, Attribute::KmAddress(_))));
    list.extend(of(|one| matches!(one, Attribute::Encap(_))));
    list.push(Attribute::PolicyType(PolicyType::default()));
    let change = |change: &Migrate| Attribute::Migrate(vec![Migrate { reserved: 0, ..*change }]);
    list.extend(changes.iter().map(change));
    let body = Body::Migrate(PolicyId { index: 0, ..*id }, Attributes(list));
    Event { groups: Groups::MIGRATE, body }
}
