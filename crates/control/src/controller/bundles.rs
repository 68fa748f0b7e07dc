//! Groups whose SAs are applied to one packet, and therefore live on one worker.
//!
//! A bundle (RFC 2401 section 4.3) is an ordered list of groups under a group of its own, which
//! policies name. A worker applies all its SAs in one go, so they have one *home*; inbound SAs that
//! must be reached through others ([`Receiving::within`](culvert_engine::options::Receiving)) have
//! one as well.

use std::collections::BTreeMap;
use std::collections::HashMap;

use culvert_engine::Location;
use culvert_engine::WorkerId;
use culvert_engine::tables::BUNDLE_MAX;
use culvert_engine::tables::Bundle;
use culvert_engine::tables::Members;
use culvert_spd::Group;

use crate::controller::ControlError;

/// The bundles, and which groups must share a worker.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    parts: BTreeMap<Group, Vec<Group>>,
    /// Groups that share a worker point to one of them.
    leaders: HashMap<Group, Group>,
    /// The workers of leaders, from their first SA on.
    homes: HashMap<Group, WorkerId>,
}

impl Bundles {
    /// Makes `bundle` mean the SAs of `parts`, innermost first.
    pub(super) fn define(&mut self, bundle: Group, parts: &[Group]) -> Result<(), ControlError> {
        let is_bundle = |group: &Group| *group == bundle || self.parts.contains_key(group);
        if !(1..=BUNDLE_MAX).contains(&parts.len()) || parts.iter().any(is_bundle) {
            return Err(ControlError::Bundle(bundle, BUNDLE_MAX));
        }
        for &part in parts {
            self.join(parts[0], part)?;
        }
        self.parts.insert(bundle, parts.to_vec());
        Ok(())
    }

    /// Gives two groups one home.
    pub(super) fn join(&mut self, one: Group, other: Group) -> Result<(), ControlError> {
        let (a, b) = (self.leader(one), self.leader(other));
        if a == b {
            self.leaders.insert(a, a);
            return Ok(());
        }
        match (self.homes.get(&a).copied(), self.homes.remove(&b)) {
            (Some(home), Some(away)) if home != away => {
                self.homes.insert(b, away);
                return Err(ControlError::Apart(one, other));
            }
            (None, Some(home)) => _ = self.homes.insert(a, home),
            _ => {}
        }
        self.leaders.values_mut().filter(|leader| **leader == b).for_each(|leader| *leader = a);
        self.leaders.extend([(a, a), (b, a)]);
        Ok(())
    }

    /// The worker that SAs of a group must live on, if they share one with others'.
    pub(super) fn home(&self, group: Group) -> Option<WorkerId> {
        self.homes.get(self.leaders.get(&group)?).copied()
    }

    /// True when SAs of a group share a worker with those of others.
    pub(super) fn is_bundled(&self, group: Group) -> bool {
        self.leaders.contains_key(&group)
    }

    /// An SA of a group lives on this worker: others of its bundles will, too.
    pub(super) fn settle(&mut self, group: Group, worker: WorkerId) {
        if let Some(&leader) = self.leaders.get(&group) {
            self.homes.entry(leader).or_insert(worker);
        }
    }

    /// Bundles out of the SAs of their groups. One that lacks an SA has none.
    pub(super) fn assemble(
        &self,
        groups: &impl Fn(Group) -> Option<Members>,
    ) -> Vec<(Group, Members)> {
        let assemble = |parts: &[Group]| {
            let members: Vec<Members> =
                parts.iter().map(|&part| groups(part)).collect::<Option<_>>()?;
            let shared: Option<Vec<Bundle>> =
                members.iter().map(|members| members.shared).collect();
            let shared = shared.and_then(|bundles| joined(&bundles));
            let owners = members.iter().flat_map(|members| &members.own).map(|own| own.worker);
            let own = owners.filter_map(|worker| own_of(&members, worker)).collect();
            Some(without_doubles(Members { shared, own }))
        };
        let bundles = self.parts.iter();
        bundles.filter_map(|(&group, parts)| Some((group, assemble(parts)?))).collect()
    }

    fn leader(&self, group: Group) -> Group {
        self.leaders.get(&group).copied().unwrap_or(group)
    }
}

/// One bundle after the other, if they are on one worker.
fn joined(bundles: &[Bundle]) -> Option<Bundle> {
    let (&first, outer) = bundles.split_first()?;
    let mut locations = outer.iter().flat_map(|bundle| {
        bundle.slots().iter().map(|&slot| Location { worker: bundle.worker, slot })
    });
    locations.try_fold(first, Bundle::and)
}

/// The bundle of what a worker has of its own, and of shared SAs that live there.
fn own_of(members: &[Members], worker: WorkerId) -> Option<Bundle> {
    let part = |members: &Members| {
        let mut bundles = members.own.iter().chain(&members.shared);
        bundles.find(|bundle| bundle.worker == worker).copied()
    };
    let bundles: Option<Vec<Bundle>> = members.iter().map(part).collect();
    joined(&bundles?)
}

fn without_doubles(mut members: Members) -> Members {
    members.own.sort_by_key(|bundle| bundle.worker);
    members.own.dedup_by_key(|bundle| bundle.worker);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(worker: u8, slot: u32) -> Location {
        Location { worker: WorkerId(worker), slot }
    }

    /// Groups of a bundle have one home, that of the first SA; bundles of bundles are refused.
    #[test]
    fn bundled_groups_share_a_home() {
        let mut bundles = Bundles::default();
        let [a, b, c, d] = [1, 2, 3, 4].map(Group);
        bundles.define(Group(10), &[a, b]).unwrap();
        assert!(bundles.is_bundled(a) && !bundles.is_bundled(c));
        bundles.settle(b, WorkerId(3));
        bundles.settle(c, WorkerId(1));
        assert_eq!((bundles.home(a), bundles.home(c)), (Some(WorkerId(3)), None));
        bundles.define(Group(11), &[c, b]).unwrap();
        assert_eq!(bundles.home(c), Some(WorkerId(3)));
        bundles.define(Group(12), &[d]).unwrap();
        bundles.settle(d, WorkerId(0));
        assert!(matches!(bundles.join(a, d), Err(ControlError::Apart(..))));
        assert_eq!((bundles.home(a), bundles.home(d)), (Some(WorkerId(3)), Some(WorkerId(0))));
        for parts in [vec![], vec![Group(10)], vec![Group(13)], vec![a; BUNDLE_MAX + 1]] {
            let error = bundles.define(Group(13), &parts);
            assert!(matches!(error, Err(ControlError::Bundle(..))), "{parts:?}");
        }
    }

    /// P28: a bundle is the SAs of its groups in order; it has none while one of them lacks its SA.
    #[test]
    fn bundles_are_put_together() {
        let mut bundles = Bundles::default();
        bundles.define(Group(10), &[Group(1), Group(2)]).unwrap();
        let shared = |slot| Members::shared(at(0, slot));
        let whole = bundles.assemble(&|group| Some(shared(7 + group.0)));
        let expected = Bundle::of(at(0, 8)).and(at(0, 9)).unwrap();
        let members = Members { shared: Some(expected), own: Vec::new() };
        assert_eq!(whole, [(Group(10), members)]);
        let lacking = bundles.assemble(&|group| (group == Group(1)).then(|| shared(1)));
        assert!(lacking.is_empty());
        let own = |group: Group| Members { own: vec![Bundle::of(at(0, group.0))], ..shared(5) };
        let whole = bundles.assemble(&|group| Some(own(group)));
        assert_eq!(whole[0].1.own[0].slots(), [1, 2]);
    }
}
