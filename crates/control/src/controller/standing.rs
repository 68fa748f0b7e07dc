//! [`Standing`]: the outbound SAs of a group that take packets, and which of them does.

use std::collections::VecDeque;

use culvert_engine::Location;
use culvert_engine::tables::Bundle;
use culvert_engine::tables::Members;

use crate::controller::SaId;

/// An SA: the latest order of those that serve the same takes the packets.
type Serving = (u64, SaId, Location);

/// Whom an SA serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// All workers.
    Shared,
    /// Its own worker alone (RFC 9611).
    Own,
    /// It has the group for itself.
    Alias,
}

/// The SAs of a group. One, which is what nearly every group has, takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Standing {
    sole: Option<(Role, Serving)>,
    /// Several, or those that are left of them.
    lists: Option<Box<Lists>>,
}

/// Each list by order.
#[derive(Debug, Default)]
struct Lists {
    shared: VecDeque<Serving>,
    own: VecDeque<Serving>,
    aliases: VecDeque<Serving>,
}

impl Standing {
    pub(super) fn is_empty(&self) -> bool {
        self.sole.is_none() && self.lists.as_ref().is_none_or(|lists| lists.is_empty())
    }

    /// An SA joins.
    pub(super) fn join(&mut self, role: Role, serving: Serving) {
        if self.is_empty() {
            self.sole = Some((role, serving));
            return;
        }
        let lists = self.lists.get_or_insert_default();
        for (role, serving) in self.sole.take().into_iter().chain([(role, serving)]) {
            insert(lists.of(role), serving);
        }
    }

    /// The SA of this order takes packets no more.
    pub(super) fn quit(&mut self, order: u64) {
        self.sole.take_if(|(_, serving)| serving.0 == order);
        if let Some(lists) = &mut self.lists {
            lists.quit(order);
        }
    }

    /// The SA for workers without one of their own.
    pub(super) fn latest(&self) -> Option<SaId> {
        let serving = match (&self.sole, &self.lists) {
            (Some((Role::Own, _)), _) | (None, None) => None,
            (Some((_, serving)), _) => Some(serving),
            (None, Some(lists)) => lists.latest(),
        };
        serving.map(|&(_, id, _)| id)
    }

    /// What workers are told: of those for all the latest, and the latest of each worker's own.
    pub(super) fn members(&self) -> Option<Members> {
        match (&self.sole, &self.lists) {
            (&Some((Role::Own, (_, _, location))), _) => {
                Some(Members { shared: None, own: vec![Bundle::of(location)] })
            }
            (&Some((_, (_, _, location))), _) => Some(Members::shared(location)),
            (None, lists) => lists.as_ref()?.members(),
        }
    }
}

impl Lists {
    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.own.is_empty() && self.aliases.is_empty()
    }

    fn of(&mut self, role: Role) -> &mut VecDeque<Serving> {
        match role {
            Role::Shared => &mut self.shared,
            Role::Own => &mut self.own,
            Role::Alias => &mut self.aliases,
        }
    }

    fn quit(&mut self, order: u64) {
        for list in [&mut self.shared, &mut self.own, &mut self.aliases] {
            let at = list.partition_point(|other| other.0 < order);
            if list.get(at).is_some_and(|other| other.0 == order) {
                list.remove(at);
            }
        }
    }

    fn latest(&self) -> Option<&Serving> {
        let latest = [self.shared.back(), self.aliases.back()];
        latest.into_iter().flatten().max_by_key(|serving| serving.0)
    }

    fn members(&self) -> Option<Members> {
        if let Some(&(_, _, location)) = self.aliases.back() {
            return Some(Members::shared(location));
        }
        if self.is_empty() {
            return None;
        }
        let shared = self.shared.back().map(|&(_, _, location)| Bundle::of(location));
        let mut members = Members { shared, own: Vec::new() };
        for &(_, _, location) in &self.own {
            members.own.retain(|own| own.worker != location.worker);
            members.own.push(Bundle::of(location));
        }
        Some(members)
    }
}

fn insert(list: &mut VecDeque<Serving>, serving: Serving) {
    let at = list.partition_point(|other| other.0 < serving.0);
    list.insert(at, serving);
}

#[cfg(test)]
mod tests {
    use culvert_engine::WorkerId;

    use super::*;

    fn serving(order: u64) -> Serving {
        let slot = u32::try_from(order).unwrap();
        (order, SaId(order), Location { worker: WorkerId(u8::from(order % 2 == 1)), slot })
    }

    /// The latest takes the packets, in whatever order SAs come and go; each worker has the latest
    /// of its own; and an SA that has the group for itself has it.
    #[test]
    fn the_latest_serves() {
        let mut standing = Standing::default();
        for order in [5, 3, 9, 7] {
            standing.join(Role::Shared, serving(order));
        }
        let slot = |standing: &Standing| {
            standing.members().and_then(|members| Some(members.shared?.slots()[0]))
        };
        assert_eq!((slot(&standing), standing.latest()), (Some(9), Some(SaId(9))));
        for (gone, left) in [(9, Some(7)), (3, Some(7)), (7, Some(5)), (4, Some(5)), (5, None)] {
            standing.quit(gone);
            assert_eq!(slot(&standing), left);
        }
        assert!(standing.is_empty() && standing.members().is_none());
        for order in [12, 10, 11, 13, 15] {
            standing.join(Role::Own, serving(order));
        }
        let own = |standing: &Standing| -> Vec<u32> {
            standing.members().unwrap().own.iter().map(|bundle| bundle.slots()[0]).collect()
        };
        assert_eq!((own(&standing), standing.latest()), (vec![12, 15], None));
        standing.quit(12);
        assert_eq!(own(&standing), [10, 15]);
        standing.join(Role::Alias, serving(2));
        assert_eq!((slot(&standing), own(&standing)), (Some(2), vec![]));
    }
}
