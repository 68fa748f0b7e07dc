//! From XFRM policies to the lists that the data plane searches.
//!
//! A policy does not name SAs but describes them, by *templates*: protocol, mode, reqid, addresses,
//! sometimes an SPI. SAs that one description fits are a *kind*, and each kind is a group of the
//! data plane, which uses the latest of it. An SPI in a template makes a kind of one SA.
//!
//! Packets on their way through the gateway meet the policies `out`, and `fwd` when they came out
//! of an SA or in clear; those of `in` that `fwd` does not have are behind them, for transport
//! mode, which has none of `fwd`, but for those that let pass in clear: these are for this machine.
//! What `fwd` blocks is not sent either, as the kernel asks `fwd` of all that it forwards.
//!
//! A template of transport mode has no addresses: they are the packet's. So its policy becomes one
//! for each pair of addresses that there are SAs for, and a last one that has none and asks for it.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::IpAddr;

use culvert_control::Direction;
use culvert_spd::Action;
use culvert_spd::AddressRange;
use culvert_spd::AddressSelector;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_xfrm::policy;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa::Mode;

use crate::sas;
use crate::sas::Name;
use crate::sas::Sa;
use crate::selector;

/// Source and destination.
type Pair = (IpAddr, IpAddr);

/// SAs that a template may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    direction: Direction,
    proto: u8,
    mode: u8,
    reqid: u32,
    /// Inbound in tunnel mode only the source counts.
    source: IpAddr,
    destination: Option<IpAddr>,
    spi: Option<u32>,
}

/// What has a group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    Kind(Kind),
    /// Several, one around the other.
    Chain(Vec<Group>),
    /// SAs of a policy, by its index, that no description is good enough for.
    Unknown(u32),
}

/// A policy of the database, as the plan needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) info: &'a PolicyInfo,
    pub(crate) templates: &'a [Template],
}

/// Which policy and template a group without an SA is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Index of the policy.
    pub(crate) policy: u32,
    /// Which of its templates.
    pub(crate) template: usize,
    /// The group of the SA that is wanted.
    pub(crate) group: Group,
}

/// What the data plane is to do.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) spd: Spd,
    pub(crate) bundles: Vec<(Group, Vec<Group>)>,
    /// Whom to ask for when a group has no SA; in the order of the policies.
    pub(crate) wants: HashMap<Group, Vec<Want>>,
}

/// The groups that were given numbers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    groups: HashMap<Named, Group>,
    last: u32,
    /// How many of them are kinds of one SA: policies ask for few, if any.
    single: usize,
    /// Those of one SA that were numbered since somebody asked.
    fresh: Vec<(Kind, Group)>,
}

/// Which SAs there are, for policies that depend on it.
#[derive(Debug, Default)]
struct Present {
    kinds: HashSet<Kind>,
    /// Addresses of those in transport mode, by direction, protocol and reqid.
    pairs: HashMap<(Direction, u8, u32), Vec<Pair>>,
}

impl Present {
    fn of<'a>(sas: impl Iterator<Item = &'a Sa>) -> Present {
        let mut present = Present::default();
        for sa in sas {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let is_there = match direction {
                    Direction::Inbound => sa.installed.inbound.is_some(),
                    Direction::Outbound => sa.installed.outbound.is_some(),
                };
                let Some(kind) = kind(sa, direction).filter(|_| is_there) else {
                    continue;
                };
                present.kinds.insert(kind);
                present.kinds.insert(Kind { spi: Some(sa.info.id.spi.0), ..kind });
                if sa.info.mode == Mode::TRANSPORT
                    && let Some(destination) = kind.destination
                {
                    let of = (direction, kind.proto, kind.reqid);
                    let pairs = present.pairs.entry(of).or_default();
                    if !pairs.contains(&(kind.source, destination)) {
                        pairs.push((kind.source, destination));
                    }
                }
            }
        }
        present
    }
}

/// The kind of an SA in a direction; nothing for addresses of no family.
pub(crate) fn kind(sa: &Sa, direction: Direction) -> Option<Kind> {
    let destination = sa.info.id.daddr.ip(sa.info.family)?;
    let is_tunnel = sa.info.mode == Mode::TUNNEL;
    let source_only = is_tunnel && direction == Direction::Inbound;
    Some(Kind {
        direction,
        proto: sa.info.id.proto,
        mode: sa.info.mode.0,
        reqid: sa.info.reqid,
        source: sa.source()?,
        destination: (!source_only).then_some(destination),
        spi: None,
    })
}

/// Whole words, of which a hash has fewer than of fields.
impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Kind { direction, proto, mode, reqid, source, destination, spi } = *self;
        let word = u64::from(reqid) << 32 | u64::from(proto) << 8 | u64::from(mode);
        state.write_u64(word | u64::from(direction == Direction::Inbound) << 16);
        sas::hash_address(source, state);
        if let Some(destination) = destination {
            sas::hash_address(destination, state);
        }
        if let Some(spi) = spi {
            state.write_u32(spi);
        }
    }
}

impl Kind {
    /// The name of the only outbound SA that it means; nothing for others.
    pub(crate) fn name(&self) -> Option<Name> {
        let Kind { direction, proto, destination, spi, .. } = *self;
        let (destination, spi) = (destination?, spi?);
        let name = Name { destination, spi, proto };
        (direction == Direction::Outbound).then_some(name)
    }

    /// Of these SAs, the one with an SPI.
    pub(crate) fn of_one(self, spi: u32) -> Kind {
        Kind { spi: Some(spi), ..self }
    }

    /// The kind that it is one SA of.
    pub(crate) fn of_several(self) -> Kind {
        Kind { spi: None, ..self }
    }
}

impl Plan {
    /// The group of an SA's kind, and outbound, where a policy asks for one SA, of its own.
    pub(crate) fn groups_of(&mut self, kind: Kind, spi: u32) -> (Group, Option<Group>) {
        let own = (kind.direction == Direction::Outbound).then(|| kind.of_one(spi));
        let own = own.and_then(|own| self.group(&own));
        (self.number(Named::Kind(kind)), own)
    }

    /// Kinds of one outbound SA each that policies asked for, since the last call, for the first
    /// time: an SA that is there has to be told.
    pub(crate) fn take_fresh(&mut self) -> Vec<(Kind, Group)> {
        std::mem::take(&mut self.fresh)
    }

    fn number(&mut self, named: Named) -> Group {
        let Plan { last, fresh, single, groups } = self;
        match groups.entry(named) {
            Entry::Occupied(group) => *group.get(),
            Entry::Vacant(place) => {
                *last += 1;
                if let &Named::Kind(kind) = place.key()
                    && kind.spi.is_some()
                {
                    *single += 1;
                    fresh.push((kind, Group(*last)));
                }
                *place.insert(Group(*last))
            }
        }
    }

    /// What policies mean while these SAs are there, if it depends on them.
    pub(crate) fn outcome<'a>(
        &mut self,
        out: impl Iterator<Item = Source<'a>>,
        forward: impl Iterator<Item = Source<'a>>,
        inbound: impl Iterator<Item = Source<'a>>,
        defaults: &Defaults,
        (depends, sas): (bool, impl Iterator<Item = &'a Sa>),
    ) -> Outcome {
        let present = if depends { Present::of(sas) } else { Present::default() };
        let mut outcome = Outcome::default();
        let forward: Vec<Source<'a>> = forward.collect();
        // What is not forwarded is not sent either.
        let blocked = forward.iter().filter(|source| source.info.action == policy::Action::BLOCK);
        for source in blocked.copied().chain(out) {
            let list = self.policies(source, Direction::Outbound, &present, &mut outcome);
            outcome.spd.outbound.extend(list);
        }
        let forwarded: HashSet<_> = forward.iter().map(|source| key(source.info)).collect();
        // Behind them, whatever their priority; those that let pass in clear are for this machine.
        let behind = inbound.filter(|source| {
            let is_clear =
                source.templates.is_empty() && source.info.action != policy::Action::BLOCK;
            !is_clear && !forwarded.contains(&key(source.info))
        });
        for source in forward.iter().copied().chain(behind) {
            let list = self.policies(source, Direction::Inbound, &present, &mut outcome);
            outcome.spd.inbound.extend(list);
        }
        let pass = || Policy::new(Selector::ANY, Action::Bypass);
        if [defaults.outbound, defaults.forward] == [DefaultAction::ACCEPT; 2] {
            outcome.spd.outbound.push(pass());
        }
        if defaults.forward == DefaultAction::ACCEPT {
            outcome.spd.inbound.push(pass());
        }
        outcome
    }

    /// What one policy becomes.
    fn policies(
        &mut self,
        source: Source<'_>,
        direction: Direction,
        present: &Present,
        outcome: &mut Outcome,
    ) -> Vec<Policy> {
        let info = source.info;
        let is_block = info.action == policy::Action::BLOCK;
        // What cannot be said was refused; if it could not be, nothing may pass by it.
        let Ok(selectors) = selector::convert(&info.sel) else {
            return vec![Policy::new(Selector::ANY, Action::Discard)];
        };
        let hosts = selectors.first().and_then(hosts);
        let is_open = source.templates.iter().any(|template| is_open(template, hosts));
        let mut list = Vec::new();
        if is_open && !is_block {
            for pair in self.pairs(source, direction, present) {
                let action = self.action(source, direction, Some(pair), present, outcome);
                let narrow = selectors.iter().filter_map(|selector| narrowed(selector, pair));
                list.extend(narrow.map(|selector| Policy::new(selector, action)));
            }
        }
        let action = match is_block {
            true => Action::Discard,
            false => self.action(source, direction, hosts, present, outcome),
        };
        list.extend(selectors.into_iter().map(|selector| Policy::new(selector, action)));
        list
    }

    /// The pairs of addresses that SAs of a policy's first template have.
    fn pairs(&self, source: Source<'_>, direction: Direction, present: &Present) -> Vec<Pair> {
        let template = source.templates.iter().find(|template| is_open(template, None));
        let pairs = template.and_then(|template| {
            present.pairs.get(&(direction, template.id.proto, template.reqid))
        });
        pairs.cloned().unwrap_or_default()
    }

    /// What happens to packets between these hosts, where that is known.
    fn action(
        &mut self,
        source: Source<'_>,
        direction: Direction,
        hosts: Option<Pair>,
        present: &Present,
        outcome: &mut Outcome,
    ) -> Action {
        let mut around = hosts;
        let mut groups = Vec::new();
        let mut wants = Vec::new();
        for (at, template) in source.templates.iter().enumerate() {
            let kind = kind_of_template(template, direction, around);
            if template.mode != Mode::TRANSPORT {
                around = addresses(template, source.info);
            }
            if template.optional != 0 && !kind.is_some_and(|kind| present.kinds.contains(&kind)) {
                continue;
            }
            let named = kind.map_or(Named::Unknown(source.info.index), Named::Kind);
            let group = self.number(named);
            let want = Want { policy: source.info.index, template: at, group };
            outcome.wants.entry(group).or_default().push(want);
            wants.push(want);
            groups.push(group);
        }
        match (groups.as_slice(), direction) {
            ([], _) => Action::Bypass,
            (&[group], _) => Action::Protect(group),
            (_, Direction::Outbound) => {
                let chain = self.number(Named::Chain(groups.clone()));
                outcome.wants.entry(chain).or_default().extend(wants);
                outcome.bundles.push((chain, groups));
                Action::Protect(chain)
            }
            // That all of them were applied, in this order, the data plane cannot tell yet.
            (_, Direction::Inbound) => Action::Discard,
        }
    }

    /// The group of a kind, if it has one.
    pub(crate) fn group(&self, kind: &Kind) -> Option<Group> {
        if kind.spi.is_some() && self.single == 0 {
            return None;
        }
        self.groups.get(&Named::Kind(*kind)).copied()
    }

    /// Forgets groups that neither SAs nor policies have any more.
    pub(crate) fn tidy(&mut self, in_use: &HashSet<Group>) {
        self.groups.retain(|_, group| in_use.contains(group));
        let is_single = |named: &&Named| matches!(named, Named::Kind(Kind { spi: Some(_), .. }));
        self.single = self.groups.keys().filter(is_single).count();
    }

    /// How many groups have a number.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }
}

/// What makes two policies of different directions the same.
fn key(info: &PolicyInfo) -> (culvert_xfrm::selector::Selector, u8) {
    (info.sel, info.action.0)
}

/// True for a template whose SA depends on the packet.
fn is_open(template: &Template, hosts: Option<Pair>) -> bool {
    template.mode == Mode::TRANSPORT && hosts.is_none()
}

/// Outer addresses of a tunnel's template.
fn addresses(template: &Template, info: &PolicyInfo) -> Option<Pair> {
    let unsaid = template.family.prefix_bits_max().is_none();
    let family = if unsaid { info.sel.family } else { template.family };
    Some((template.saddr.ip(family)?, template.id.daddr.ip(family)?))
}

fn kind_of_template(
    template: &Template,
    direction: Direction,
    hosts: Option<Pair>,
) -> Option<Kind> {
    let (source, destination) = match template.mode {
        Mode::TRANSPORT => hosts?,
        _ => (template.saddr.ip(template.family)?, template.id.daddr.ip(template.family)?),
    };
    let source_only = template.mode == Mode::TUNNEL && direction == Direction::Inbound;
    let spi = template.id.spi.0;
    Some(Kind {
        direction,
        proto: template.id.proto,
        mode: template.mode.0,
        reqid: template.reqid,
        source,
        destination: (!source_only).then_some(destination),
        spi: (spi != 0).then_some(spi),
    })
}

/// Source and destination of a selector of two hosts.
fn hosts(selector: &Selector) -> Option<Pair> {
    Some((host(selector.source())?, host(selector.destination())?))
}

fn host(addresses: &AddressSelector) -> Option<IpAddr> {
    match addresses {
        AddressSelector::Ranges(ranges) => match ranges.as_slice() {
            [range] if range.start() == range.end() => Some(range.start()),
            _ => None,
        },
        AddressSelector::Any => None,
    }
}

/// A selector for two hosts; nothing when it does not admit them.
fn narrowed(selector: &Selector, (source, destination): Pair) -> Option<Selector> {
    let admits = |addresses: &AddressSelector, host: IpAddr| match host {
        IpAddr::V4(host) => addresses.contains(true, host.to_bits().into()),
        IpAddr::V6(host) => addresses.contains(false, host.to_bits()),
    };
    if !admits(selector.source(), source) || !admits(selector.destination(), destination) {
        return None;
    }
    Selector::new(
        AddressRange::from(source).into(),
        AddressRange::from(destination).into(),
        selector.protocol(),
        selector.upper().clone(),
    )
    .ok()
    .map(|narrow| narrow.with_fragments_too(selector.fragments_too()))
}
