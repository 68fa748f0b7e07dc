//! Many SAs: what workers find while they come and go.

use std::collections::BTreeMap;

use culvert_aead::Protocol;

use super::*;

/// SAs of each direction; 100000 take a while with these tests' optimisation.
fn many() -> u32 {
    std::env::var("CULVERT_MANY_SAS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

fn watched(workers: u8, slots: usize) -> Lab<Watched> {
    Lab::new(&Watched::default(), workers, slots, None)
}

impl Lab<Watched> {
    /// Where a worker finds an inbound SA, if it is there.
    fn finds(&self, worker: usize, spi: u32) -> Option<Location> {
        let directory = &self.workers[worker].snapshot().directory;
        let (from, to) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        directory.find(Protocol::Esp, spi, from, to)
    }

    /// The SPI that packets of a group leave with by what a worker knows.
    fn sends(&self, worker: usize, group: u32) -> Option<Option<u32>> {
        let members = self.workers[worker].snapshot().groups.get(&Group(group))?;
        let bundle = members.of(WorkerId(u8::try_from(worker).unwrap()), false).0?;
        let owner = &self.workers[usize::from(bundle.worker.0)];
        Some(owner.spi_at(false, bundle.slots()[0]))
    }

    /// Lets control and some workers go on without the checks of each step.
    fn go(&mut self, awake: &[usize]) {
        self.controller.poll().unwrap();
        awake.iter().for_each(|&index| _ = self.workers[index].turn(0));
    }

    fn settle_all(&mut self) {
        for _ in 0..1_000_000 {
            if self.controller.is_idle() {
                return;
            }
            let all: Vec<usize> = (0..self.workers.len()).collect();
            self.go(&all);
        }
        panic!("control does not come to rest");
    }
}

fn in_group(spec: SaSpec, group: u32) -> SaSpec {
    SaSpec { group: Group(group), ..spec }
}

/// While SAs come and go without end, one worker slower than the other, an SA that is known is
/// found by all, and what is found is that SA or nothing: never another one in its slot.
#[test]
fn what_is_found_is_what_was_looked_for() {
    let many = many();
    let mut lab = watched(2, many as usize + 8);
    let mut there: BTreeMap<u32, SaId> = BTreeMap::new();
    let mut seen = [0usize; 2];
    for round in 0..many {
        let spi = 0x1000 + round;
        there.insert(spi, lab.controller.add_sa(&inbound(spi)).unwrap());
        if round % 3 == 2 {
            let (spi, id) = there.pop_first().unwrap();
            lab.controller.remove_sa(id).unwrap();
            assert!(!there.contains_key(&spi));
        }
        lab.go(if round % 4 == 0 { &[0, 1] } else { &[0] });
        for spi in (0x1000..=spi).rev().take(64) {
            for worker in [0, 1] {
                let Some(Location { worker: owner, slot }) = lab.finds(worker, spi) else {
                    let known = there.get(&spi).is_some_and(|&id| lab.controller.is_known(id));
                    assert!(!known, "SPI {spi:#x} is known, and worker {worker} finds nothing");
                    continue;
                };
                let at = lab.workers[usize::from(owner.0)].spi_at(true, slot);
                assert_eq!(at, Some(spi), "worker {worker} finds the SA before its owner has it");
                seen[worker] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen > 0));
    lab.settle_all();
    for spi in 0x1000..0x1000 + many {
        for worker in [0, 1] {
            assert_eq!(lab.finds(worker, spi).is_some(), there.contains_key(&spi), "{spi:#x}");
        }
    }
    let ids: Vec<SaId> = lab.controller.ids().collect();
    ids.into_iter().for_each(|id| lab.controller.remove_sa(id).unwrap());
    lab.settle_all();
    assert!(lab.workers.iter().all(|worker| worker.snapshot().directory.list().next().is_none()));
    assert_eq!(lab.workers.iter().map(|worker| worker.samples().count()).sum::<usize>(), 0);
}

/// Make before break, for as many groups as there are SAs: from when its first SA is known to when
/// its last one goes, a group has an SA at each worker, and that is in its slot.
#[test]
fn groups_are_never_without_an_sa() {
    let many = many().min(20_000);
    let mut lab = watched(2, 2 * many as usize);
    let of = |group: u32, turn: u32| 0x1000 * (turn + 1) * 0x100 + group;
    let mut ids: Vec<SaId> = (0..many)
        .map(|group| lab.controller.add_sa(&in_group(outbound(of(group, 0)), group)).unwrap())
        .collect();
    lab.settle_all();
    for turn in 1..3 {
        for group in 0..many {
            let [incoming, outgoing] = [inbound(of(group, turn)), outbound(of(group, turn))];
            let specs = [incoming, outgoing].map(|spec| in_group(spec, group));
            let (_, new) = lab.controller.rekey(ids[group as usize], &specs[0], &specs[1]).unwrap();
            ids[group as usize] = new;
            if group % 16 == 0 {
                lab.go(&[usize::from(group % 32 == 0)]);
                for near in group.saturating_sub(32)..(group + 8).min(many) {
                    for worker in [0, 1] {
                        let spi = lab.sends(worker, near).flatten();
                        let either = [of(near, turn), of(near, turn - 1)];
                        assert!(spi.is_some_and(|spi| either.contains(&spi)), "{near}: {spi:x?}");
                    }
                }
            }
        }
        lab.settle_all();
        for group in 0..many {
            assert_eq!(lab.sends(1, group), Some(Some(of(group, turn))));
        }
    }
}

/// A change costs workers what changed: what they are told of one SA among many is a few changes,
/// and the table as a whole only when it has no room.
#[test]
fn one_among_many_costs_as_much_as_one_alone() {
    let many = many();
    let mut lab = watched(1, many as usize + 16);
    for spi in 0..many {
        lab.controller.add_sa(&inbound(0x1000 + spi)).unwrap();
    }
    lab.settle_all();
    let room = lab.workers[0].snapshot().directory.capacity().0;
    assert!(room >= many as usize && room <= 4 * many as usize);
    // Each of these needs a turn to arrive, one to be named, and one to be known.
    for spi in 0..8 {
        let id = lab.controller.add_sa(&inbound(0x900_0000 + spi)).unwrap();
        let turns = (1..).find(|_| {
            lab.go(&[0]);
            lab.controller.poll().unwrap();
            lab.controller.is_known(id)
        });
        assert_eq!(turns, Some(2));
    }
}

/// An error names an SA by its SPI and where it leads. Of two with one name, one is found for as
/// long as either is there.
#[test]
fn rivals_for_a_name_follow_each_other() {
    let mut lab = watched(2, 8);
    let other_key = |octet: u8| {
        let mut spec = outbound(0x2001);
        spec.keymat = Keymat::new(vec![octet; 20]);
        spec
    };
    // The one that came last is found first.
    let ids = [1, 2, 3].map(|octet| {
        let id = lab.controller.add_sa(&other_key(octet)).unwrap();
        lab.settle();
        id
    });
    let named = |lab: &Lab<Watched>| {
        let name = (Protocol::Esp, 0x2001, "192.0.2.2".parse().unwrap());
        lab.workers[0].snapshot().senders.get(&name).copied()
    };
    let places = ids.map(|id| lab.controller.location(id).unwrap());
    assert_eq!(named(&lab), Some(places[2]));
    lab.controller.remove_sa(ids[0]).unwrap();
    lab.settle();
    assert_eq!(named(&lab), Some(places[2]));
    lab.controller.remove_sa(ids[2]).unwrap();
    lab.settle();
    assert_eq!(named(&lab), Some(places[1]));
    lab.controller.remove_sa(ids[1]).unwrap();
    lab.settle();
    assert_eq!(named(&lab), None);
}

/// A second group that comes later says nothing new of who has a name, be it the older or the
/// younger of two that goes first.
#[test]
fn a_second_group_leaves_no_stale_sender() {
    for later_first in [true, false] {
        let mut lab = watched(2, 8);
        let ids = [1, 2].map(|octet| {
            let mut spec = outbound(0x2001);
            spec.keymat = Keymat::new(vec![octet; 20]);
            let id = lab.controller.add_sa(&spec).unwrap();
            lab.settle();
            id
        });
        lab.controller.set_alias(ids[0], Group(11)).unwrap();
        lab.settle();
        let order = if later_first { [ids[1], ids[0]] } else { ids };
        for id in order {
            lab.controller.remove_sa(id).unwrap();
            lab.settle();
        }
        let name = (Protocol::Esp, 0x2001, "192.0.2.2".parse().unwrap());
        let left = lab.workers[0].snapshot().senders.get(&name).copied();
        assert_eq!(left, None, "later first {later_first}");
    }
}
