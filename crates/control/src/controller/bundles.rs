//! Groups whose SAs are applied to one packet, and therefore live on one worker.
//!
//! A bundle (RFC 2401 section 4.3) is an ordered list of groups under a group of its own, which
//! policies name. A worker applies all its SAs in one go, so they have one *home*; inbound SAs that
//! must be reached through others ([`Receiving::within`](culvert_engine::options::Receiving)) have
//! one as well.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use culvert_engine::Location;
use culvert_engine::WorkerId;
use culvert_engine::tables::BUNDLE_MAX;
use culvert_engine::tables::Bundle;
use culvert_engine::tables::Members;
use culvert_spd::Group;

use crate::controller::ControlError;
use crate::sa::Direction;

/// The bundles, and which groups must share a worker: outbound ones of a bundle, inbound ones that
/// are reached through each other.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    parts: BTreeMap<Group, Vec<Group>>,
    /// The bundles that each part is in.
    around: HashMap<Group, Vec<Group>>,
    outbound: Homes,
    nested: BTreeSet<(Group, Group)>,
    inbound: Homes,
}

/// Groups that have SAs of a direction, and the worker of the latest of each.
pub(super) type Residents = BTreeMap<Group, WorkerId>;

/// Which groups share a worker, and which.
#[derive(Debug, Default)]
struct Homes {
    /// Groups that share a worker point to one of them.
    leaders: HashMap<Group, Group>,
    /// The workers of leaders, from their first SA on.
    workers: HashMap<Group, WorkerId>,
}

impl Homes {
    /// Of groups that share workers, by pairs.
    fn new(
        pairs: impl Iterator<Item = (Group, Group)>,
        residents: &Residents,
    ) -> Result<Homes, ControlError> {
        let mut homes = Homes::default();
        pairs.for_each(|(one, other)| homes.unite(one, other));
        residents.iter().try_for_each(|(&group, &worker)| homes.settle(group, worker))?;
        Ok(homes)
    }

    fn leader(&self, group: Group) -> Group {
        self.leaders.get(&group).copied().unwrap_or(group)
    }

    /// Makes two groups share a worker, before any has one.
    fn unite(&mut self, one: Group, other: Group) {
        let (a, b) = (self.leader(one), self.leader(other));
        self.leaders.values_mut().filter(|leader| **leader == b).for_each(|leader| *leader = a);
        self.leaders.extend([(a, a), (b, a)]);
    }

    /// SAs of a group live on a worker.
    fn settle(&mut self, group: Group, worker: WorkerId) -> Result<(), ControlError> {
        let Some(&leader) = self.leaders.get(&group) else {
            return Ok(());
        };
        match *self.workers.entry(leader).or_insert(worker) {
            home if home == worker => Ok(()),
            _ => Err(ControlError::Apart(leader, group)),
        }
    }
}

impl Bundles {
    /// Makes `bundle` mean the SAs of `parts`, innermost first, and no longer what it meant before.
    /// An error changes nothing.
    pub(super) fn define(
        &mut self,
        bundle: Group,
        parts: &[Group],
        residents: &Residents,
    ) -> Result<(), ControlError> {
        let is_bundle = |group: &Group| *group == bundle || self.parts.contains_key(group);
        if !(1..=BUNDLE_MAX).contains(&parts.len()) || parts.iter().any(is_bundle) {
            return Err(ControlError::Bundle(bundle, BUNDLE_MAX));
        }
        let before = self.set_parts(bundle, Some(parts.to_vec()));
        match Homes::new(self.pairs(), residents) {
            Ok(homes) => {
                self.outbound = homes;
                Ok(())
            }
            Err(error) => {
                self.set_parts(bundle, before);
                Err(error)
            }
        }
    }

    /// Makes a group mean no bundle any more; false when it meant none.
    pub(super) fn remove(&mut self, bundle: Group, residents: &Residents) -> bool {
        if self.set_parts(bundle, None).is_none() {
            return false;
        }
        // Less has to share a worker than before. If what is left is apart, it comes together with
        // its next SAs.
        self.outbound = Homes::new(self.pairs(), residents).unwrap_or_default();
        true
    }

    /// True when it is known that inbound SAs of one group are reached through those of another.
    pub(super) fn is_nested(&self, inner: Group, outer: Group) -> bool {
        self.nested.contains(&(inner, outer))
    }

    /// Inbound SAs of one group are reached through those of another.
    pub(super) fn nest(
        &mut self,
        inner: Group,
        outer: Group,
        residents: &Residents,
    ) -> Result<(), ControlError> {
        if !self.nested.insert((inner, outer)) {
            return Ok(());
        }
        let homes = Homes::new(self.nested.iter().copied(), residents);
        self.inbound = homes.inspect_err(|_| _ = self.nested.remove(&(inner, outer)))?;
        Ok(())
    }

    /// Groups of bundles that share a worker.
    fn pairs(&self) -> impl Iterator<Item = (Group, Group)> {
        self.parts.values().flat_map(|parts| parts.iter().map(|&part| (parts[0], part)))
    }

    fn homes(&self, direction: Direction) -> &Homes {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// The worker that SAs of a group must live on, if they share one with others'.
    pub(super) fn home(&self, direction: Direction, group: Group) -> Option<WorkerId> {
        let homes = self.homes(direction);
        homes.workers.get(homes.leaders.get(&group)?).copied()
    }

    /// True when SAs of a group share a worker with those of others.
    pub(super) fn is_bundled(&self, direction: Direction, group: Group) -> bool {
        self.homes(direction).leaders.contains_key(&group)
    }

    /// An SA of a group lives on this worker: others of its bundles will, too.
    pub(super) fn settle(&mut self, direction: Direction, group: Group, worker: WorkerId) {
        let settled = match direction {
            Direction::Inbound => self.inbound.settle(group, worker),
            Direction::Outbound => self.outbound.settle(group, worker),
        };
        debug_assert!(settled.is_ok(), "SAs are put where their group is at home");
    }

    /// The groups that mean bundles.
    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.parts.keys().copied()
    }

    /// The bundles that a group is part of.
    pub(super) fn around(&self, part: Group) -> &[Group] {
        self.around.get(&part).map_or(&[], Vec::as_slice)
    }

    /// The bundle that a group means, out of the SAs of its parts; nothing if one has none.
    pub(super) fn assemble(
        &self,
        bundle: Group,
        groups: &impl Fn(Group) -> Option<Members>,
    ) -> Option<Members> {
        let parts = self.parts.get(&bundle)?;
        let members: Vec<Members> =
            parts.iter().map(|&part| groups(part)).collect::<Option<_>>()?;
        let shared: Option<Vec<Bundle>> = members.iter().map(|members| members.shared).collect();
        let shared = shared.and_then(|bundles| joined(&bundles));
        let owners = members.iter().flat_map(|members| &members.own).map(|own| own.worker);
        let own = owners.filter_map(|worker| own_of(&members, worker)).collect();
        Some(without_doubles(Members { shared, own }))
    }

    /// A bundle has other parts than before.
    fn set_parts(&mut self, bundle: Group, parts: Option<Vec<Group>>) -> Option<Vec<Group>> {
        for part in parts.iter().flatten() {
            self.around.entry(*part).or_default().push(bundle);
        }
        let before = match parts {
            Some(parts) => self.parts.insert(bundle, parts),
            None => self.parts.remove(&bundle),
        };
        for part in before.iter().flatten() {
            if let Some(around) = self.around.get_mut(part)
                && let Some(at) = around.iter().position(|&other| other == bundle)
            {
                around.remove(at);
                if around.is_empty() {
                    self.around.remove(part);
                }
            }
        }
        before
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

    const OUT: Direction = Direction::Outbound;

    fn at(worker: u8, slot: u32) -> Location {
        Location { worker: WorkerId(worker), slot }
    }

    /// Groups of a bundle have one home, that of the first SA; bundles of bundles are refused.
    #[test]
    fn bundled_groups_share_a_home() {
        let mut bundles = Bundles::default();
        let [a, b, c, d] = [1, 2, 3, 4].map(Group);
        let home = |bundles: &Bundles, group| bundles.home(OUT, group).map(|worker| worker.0);
        bundles.define(Group(10), &[a, b], &Residents::new()).unwrap();
        assert!(bundles.is_bundled(OUT, a) && !bundles.is_bundled(OUT, c));
        bundles.settle(OUT, b, WorkerId(3));
        bundles.settle(OUT, c, WorkerId(1));
        assert_eq!((home(&bundles, a), home(&bundles, c)), (Some(3), None));
        let residents = Residents::from([(b, WorkerId(3)), (d, WorkerId(0))]);
        bundles.define(Group(11), &[c, b], &residents).unwrap();
        assert_eq!(home(&bundles, c), Some(3));
        bundles.define(Group(12), &[d], &residents).unwrap();
        let apart = bundles.define(Group(12), &[d, a], &residents);
        assert!(matches!(apart, Err(ControlError::Apart(..))));
        assert_eq!((home(&bundles, a), home(&bundles, d)), (Some(3), Some(0)));
        for parts in [vec![], vec![Group(10)], vec![Group(13)], vec![a; BUNDLE_MAX + 1]] {
            let error = bundles.define(Group(13), &parts, &residents);
            assert!(matches!(error, Err(ControlError::Bundle(..))), "{parts:?}");
        }
    }

    /// A bundle that goes, or means something else, binds its groups no longer; what others bind
    /// stays bound; and what cannot be changes nothing.
    #[test]
    fn bundles_go() {
        let mut bundles = Bundles::default();
        let [a, b, c] = [1, 2, 3].map(Group);
        let residents = Residents::from([(a, WorkerId(1)), (b, WorkerId(1)), (c, WorkerId(2))]);
        let bound = |bundles: &Bundles| [a, b, c].map(|group| bundles.is_bundled(OUT, group));
        bundles.define(Group(10), &[a, b], &residents).unwrap();
        bundles.define(Group(11), &[b], &residents).unwrap();
        let apart = bundles.define(Group(11), &[b, c], &residents);
        assert!(matches!(apart, Err(ControlError::Apart(..))));
        assert_eq!((bound(&bundles), &bundles.parts[&Group(11)]), ([true, true, false], &vec![b]));
        bundles.define(Group(10), &[c], &residents).unwrap();
        assert_eq!(bound(&bundles), [false, true, true]);
        assert!(bundles.remove(Group(10), &residents) && !bundles.remove(Group(10), &residents));
        assert_eq!(bound(&bundles), [false, true, false]);
    }

    /// Inbound SAs that are nested have one home, whatever outbound ones of their groups do.
    #[test]
    fn nested_groups_share_a_home() {
        let mut bundles = Bundles::default();
        let [a, b, c] = [1, 2, 3].map(Group);
        let residents = Residents::from([(b, WorkerId(2)), (c, WorkerId(3))]);
        bundles.nest(a, b, &residents).unwrap();
        let apart = bundles.nest(a, c, &residents);
        assert!(matches!(apart, Err(ControlError::Apart(..))));
        assert_eq!(bundles.home(Direction::Inbound, a), Some(WorkerId(2)));
        assert!(!bundles.is_bundled(OUT, a) && !bundles.is_bundled(Direction::Inbound, c));
    }

    /// P28: a bundle is the SAs of its groups in order; it has none while one of them lacks its SA.
    #[test]
    fn bundles_are_put_together() {
        let mut bundles = Bundles::default();
        bundles.define(Group(10), &[Group(1), Group(2)], &Residents::new()).unwrap();
        let shared = |slot| Members::shared(at(0, slot));
        let whole = bundles.assemble(Group(10), &|group| Some(shared(7 + group.0)));
        let expected = Bundle::of(at(0, 8)).and(at(0, 9)).unwrap();
        let members = Members { shared: Some(expected), own: Vec::new() };
        assert_eq!(whole, Some(members));
        assert_eq!(bundles.assemble(Group(1), &|_| Some(shared(1))), None, "it means no bundle");
        assert_eq!(bundles.around(Group(2)), [Group(10)]);
        let lacking = bundles.assemble(Group(10), &|group| (group == Group(1)).then(|| shared(1)));
        assert_eq!(lacking, None);
        let own = |group: Group| Members { own: vec![Bundle::of(at(0, group.0))], ..shared(5) };
        let whole = bundles.assemble(Group(10), &|group| Some(own(group))).unwrap();
        assert_eq!(whole.own[0].slots(), [1, 2]);
        bundles.remove(Group(10), &Residents::new());
        assert!(bundles.around(Group(2)).is_empty());
    }
}
