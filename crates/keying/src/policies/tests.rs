//! Tests of the policy database that need no kernel. What it does as the kernel is tested against
//! that, in `tests/kernel.rs`.

use culvert_xfrm::Message;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::attribute::Unknown;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::message::ANSWER_LEN_MAX;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::Offload;
use culvert_xfrm::sa::SecurityContext;
use culvert_xfrm::selector::Selector;

use super::*;

const NOW: u64 = 1_700_000_000;

fn none() -> Attributes {
    Attributes::default()
}

/// A policy for packets to 10.x.y.0/24.
fn info(number: u32, dir: Direction) -> PolicyInfo {
    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number << 8));
    let daddr = std::net::IpAddr::from(ip).into();
    let sel = Selector { daddr, prefixlen_d: 24, family: Family::INET, ..Selector::default() };
    PolicyInfo { sel, dir, priority: 100, ..PolicyInfo::default() }
}

fn id(info: &PolicyInfo) -> PolicyId {
    PolicyId { sel: info.sel, index: 0, dir: info.dir }
}

fn indices(policies: &Policies, dir: Direction) -> Vec<u32> {
    policies.ordered(dir).map(|policy| policy.info().index).collect()
}

/// Every index leads to every policy, and to nothing else.
fn assert_whole(policies: &Policies) {
    let lens = [policies.names.len(), policies.ages.len(), policies.counts().iter().sum()];
    assert_eq!(lens, [policies.len(); 3]);
    for (index, policy) in &policies.policies {
        assert_eq!(policy.info().index, *index);
        assert_eq!(policies.names[policy.key()], *index);
        assert_eq!(policies.ages[&policy.age()], *index);
        let place = (policy.info().priority, policy.place());
        assert_eq!(policies.order[policy.list()][&place], *index);
        let deadline = policy.wakes_at().map(|at| policies.deadlines.contains(&(at, *index)));
        assert_eq!(deadline, policy.has_limits().then_some(true));
    }
    let with_limits = policies.policies.values().filter(|policy| policy.has_limits()).count();
    assert_eq!(policies.deadlines.len(), with_limits);
}

/// Many policies are made, found by name and by index, and deleted; each takes no longer than with
/// few, or this would not end.
#[test]
fn many_policies_are_found() {
    let mut policies = Policies::new();
    let infos: Vec<_> = (0..60_000).map(|number| info(number, Direction::OUT)).collect();
    for info in &infos {
        policies.add(info, &none(), NOW).expect("a new policy");
    }
    assert_eq!(policies.counts(), [0, 60_000, 0]);
    assert_eq!(policies.list(None).count(), 60_000);
    for info in &infos {
        let Ok(Body::NewPolicy(found, _)) = policies.get(&id(info), &none()) else {
            panic!("NEWPOLICY")
        };
        let by_index = PolicyId { index: found.index, dir: info.dir, ..PolicyId::default() };
        assert_eq!(policies.delete(&by_index, &none()).map(|event| event.groups), Ok(8));
    }
    assert!(policies.is_empty());
    assert_whole(&policies);
}

/// A listing that is interrupted goes on where it was, without what was made or deleted meanwhile.
#[test]
fn listings_go_on() {
    let mut policies = Policies::new();
    let infos: Vec<_> = (0..10).map(|number| info(number, Direction::IN)).collect();
    for info in &infos {
        policies.add(info, &none(), NOW).expect("a new policy");
    }
    let seen = |(cursor, body)| match body {
        Body::NewPolicy(info, _) => (cursor, info.sel),
        _ => panic!("NEWPOLICY"),
    };
    let first: Vec<_> = policies.list(None).take(4).map(seen).collect();
    assert_eq!(
        first.iter().map(|(_, sel)| *sel).collect::<Vec<_>>(),
        [9, 8, 7, 6].map(|at| infos[at].sel)
    );
    policies.add(&info(99, Direction::IN), &none(), NOW).expect("a new policy");
    policies.delete(&id(&infos[6]), &none()).expect("it is there");
    policies.delete(&id(&infos[4]), &none()).expect("it is there");
    policies.update(&infos[2], &none(), NOW).expect("it is there");
    let (cursor, _) = first[3];
    let rest: Vec<_> = policies.list(Some(cursor)).map(seen).map(|(_, sel)| sel).collect();
    assert_eq!(rest, [5, 3, 1, 0].map(|at| infos[at].sel));
    assert_whole(&policies);
}

/// No more than the limit; what exists may still be replaced.
#[test]
fn policies_are_limited() {
    let mut policies = Policies { most: 3, ..Policies::new() };
    for number in 0..3 {
        policies.add(&info(number, Direction::IN), &none(), NOW).expect("room");
    }
    let more = info(3, Direction::IN);
    assert_eq!(policies.add(&more, &none(), NOW), Err(Errno::ENOMEM));
    assert_eq!(policies.update(&more, &none(), NOW), Err(Errno::ENOMEM));
    assert!(policies.update(&info(2, Direction::IN), &none(), NOW).is_ok());
    policies.flush().expect("something was there");
    assert!(policies.add(&more, &none(), NOW).is_ok());
    assert_whole(&policies);
    assert_eq!(Policies::new().most, POLICIES_MAX);
}

/// What would be for more packets than it says is refused, and not even found.
#[test]
fn labels_and_offloads_are_refused() {
    let mut policies = Policies::new();
    let info = info(1, Direction::OUT);
    let label = Attributes(vec![Attribute::SecurityContext(SecurityContext::default())]);
    assert_eq!(policies.add(&info, &label, NOW), Err(Errno::EOPNOTSUPP));
    assert_eq!(policies.update(&info, &label, NOW), Err(Errno::EOPNOTSUPP));
    let offload = Attributes(vec![Attribute::Offload(Offload { ifindex: 1, flags: 4 })]);
    assert_eq!(policies.add(&info, &offload, NOW), Err(Errno::EINVAL));
    policies.add(&info, &none(), NOW).expect("a new policy");
    assert_eq!(policies.get(&id(&info), &label), Err(Errno::ENOENT));
    assert_eq!(policies.delete(&id(&info), &label), Err(Errno::ENOENT));
    assert_eq!(policies.len(), 1);
}

/// Requests that no check has seen are refused as well.
#[test]
fn unchecked_requests_are_refused() {
    let mut policies = Policies::new();
    for (dir, index) in [(3, 0), (255, 0), (0, 4), (1, 13), (1, 8), (2, u32::MAX)] {
        let info = PolicyInfo { index, ..info(1, Direction(dir)) };
        assert_eq!(policies.add(&info, &none(), NOW), Err(Errno::EINVAL), "{dir} {index}");
        assert_eq!(policies.get(&id(&info), &none()), Err(Errno::ENOENT));
    }
    assert_eq!(policies.ordered(Direction(200)).count(), 0);
}

/// Attributes that are not known are returned behind the others, as many as an answer has room for.
#[test]
fn unknown_attributes_are_kept() {
    let mut policies = Policies::new();
    let info = info(1, Direction::OUT);
    let unknown = |kind, len| {
        let octets = vec![7; len];
        Attribute::Unknown(Unknown { kind, octets: octets.as_slice().into() })
    };
    let mark = Attribute::Mark(Mark { value: 1, mask: 3 });
    let templates = Attribute::Templates(vec![Template::default(); 6]);
    let kind = Attribute::PolicyType(PolicyType::default());
    let (small, large) = (unknown(77, 5), unknown(79, 1000));
    let list = vec![small.clone(), unknown(78, 2000), mark.clone(), templates, large.clone()];
    policies.add(&info, &Attributes(list.clone()), NOW).expect("a new policy");
    let body = policies.get(&id(&info), &Attributes(vec![mark.clone()])).expect("it is there");
    let Body::NewPolicy(_, shown) = &body else { panic!("NEWPOLICY") };
    assert_eq!(shown.0[1..], [kind, mark, small, large]);
    let octets = Message { flags: 0, seq: 1, port: 2, body: body.clone() }.to_octets();
    assert!(octets.len() <= ANSWER_LEN_MAX, "{}", octets.len());
    // A template of no family has that of the selector.
    let family = |attribute: &Attribute| match attribute {
        Attribute::Templates(list) => list[5].family,
        _ => panic!("templates"),
    };
    assert_eq!(family(&shown.0[0]), Family::INET);
}

fn limited(number: u32, limits: Limits) -> PolicyInfo {
    PolicyInfo { limits, ..info(number, Direction::OUT) }
}

/// Number of the policy, and whether it is gone.
fn expired(policies: &mut Policies, now: u64) -> Vec<(u32, u8)> {
    let events = policies.tick(now).into_iter().map(|event| match event.body {
        Body::PolicyExpire(expire, _) => (expire.policy.index, expire.hard),
        body => panic!("{body:?}"),
    });
    let events = events.collect();
    assert_whole(policies);
    events
}

/// Soft limits are told when they are reached and every 30 seconds from then on; at hard limits a
/// policy is gone. Limits of use count from the last use.
#[test]
fn policies_expire() {
    let mut policies = Policies::new();
    let limits = Limits { soft_age_secs: 10, hard_age_secs: 50, ..Limits::default() };
    policies.add(&limited(1, limits), &none(), NOW).expect("a new policy");
    let limits = Limits { hard_use_secs: 20, ..Limits::default() };
    policies.add(&limited(2, limits), &none(), NOW).expect("a new policy");
    let limits = Limits { soft_use_secs: 15, hard_age_secs: u64::MAX, ..Limits::default() };
    policies.add(&limited(3, limits), &none(), NOW).expect("a new policy");
    policies.add(&info(4, Direction::OUT), &none(), NOW).expect("a new policy");
    assert_eq!(indices(&policies, Direction::OUT), [1, 9, 17, 25]);
    assert_eq!(policies.next_tick(), Some(NOW + 1));
    let mut told = Vec::new();
    for secs in 0..=80 {
        if secs == 12 {
            policies.used(9, NOW + 12);
            policies.used(17, NOW + 12);
        }
        let events = expired(&mut policies, NOW + secs);
        told.extend(events.into_iter().map(|(index, hard)| (secs, index, hard)));
    }
    let expected = [(10, 1, 0), (27, 17, 0), (32, 9, 1), (40, 1, 0), (50, 1, 1), (57, 17, 0)];
    assert_eq!(told, expected);
    assert_eq!(indices(&policies, Direction::OUT), [17, 25]);
    // Whoever looks too late is told once, and a clock that stands still keeps nobody.
    assert_eq!(expired(&mut policies, NOW + 100_000), [(17, 0)]);
    assert_eq!(expired(&mut policies, NOW + 100_000), []);
    assert_eq!(expired(&mut policies, u64::MAX), [(17, 1)]);
    assert_eq!(policies.next_tick(), None);
}

/// A policy that is replaced is as new: its limits count from then on.
#[test]
fn replaced_policies_live_anew() {
    let mut policies = Policies::new();
    let limits = Limits { hard_age_secs: 10, hard_bytes: INFINITE, ..Limits::default() };
    let info = limited(1, limits);
    policies.add(&info, &none(), NOW).expect("a new policy");
    policies.used(1, NOW + 3);
    assert_eq!(policies.by_index(1).map(|policy| policy.info().usage.use_time), Some(NOW + 3));
    policies.update(&info, &none(), NOW + 8).expect("it is there");
    let usage = policies.by_index(1).expect("the same index").info().usage;
    assert_eq!((usage.add_time, usage.use_time), (NOW + 8, 0));
    assert_eq!(expired(&mut policies, NOW + 17), []);
    policies.update(&PolicyInfo { limits: Limits::default(), ..info }, &none(), NOW).expect("same");
    assert_eq!(policies.next_tick(), None);
    assert_eq!(expired(&mut policies, NOW + 1000), []);
}

/// Whatever may change what packets meet changes the generation, and nothing else does.
#[test]
fn generations_tell_of_changes() {
    let mut policies = Policies::new();
    let info = info(1, Direction::OUT);
    let mut last = policies.generation();
    let mut changed = |policies: &Policies| {
        std::mem::replace(&mut last, policies.generation()) != policies.generation()
    };
    policies.add(&info, &none(), NOW).expect("a new policy");
    assert!(changed(&policies));
    policies.add(&info, &none(), NOW).expect_err("it exists");
    policies.get(&id(&info), &none()).expect("it is there");
    policies.used(1, NOW);
    policies.tick(NOW + 5);
    assert!(!changed(&policies));
    policies.update(&info, &none(), NOW).expect("it is there");
    assert!(changed(&policies));
    policies.set_defaults(&Defaults::default());
    assert!(!changed(&policies));
    policies.set_defaults(&Defaults { outbound: DefaultAction::BLOCK, ..Defaults::default() });
    assert!(changed(&policies));
    policies.delete(&id(&info), &none()).expect("it is there");
    assert!(changed(&policies));
    assert_eq!(policies.flush(), None);
    assert!(!changed(&policies));
}

/// What a migration comes to is found before anything is changed; a policy that is gone by then
/// stays gone.
#[test]
fn migrations_have_two_steps() {
    let mut policies = Policies::new();
    let info = info(1, Direction::OUT);
    let [a, b, c] = [1, 2, 3].map(|last| std::net::IpAddr::from([192, 0, 2, last]).into());
    let mut template = Template { saddr: a, mode: Mode::TUNNEL, ..Template::default() };
    template.id.daddr = b;
    let list = Attributes(vec![Attribute::Templates(vec![template])]);
    policies.add(&info, &list, NOW).expect("a new policy");
    let change = Migrate {
        old_saddr: a,
        old_daddr: b,
        new_saddr: c,
        new_daddr: b,
        mode: Mode::TUNNEL,
        old_family: Family::INET,
        new_family: Family::INET,
        ..Migrate::default()
    };
    let asked = |change| Attributes(vec![Attribute::Migrate(vec![change])]);
    let migration = policies.migration(&id(&info), &asked(change)).expect("it is concerned");
    let saddr = |policies: &Policies| policies.by_index(1).map(|one| one.templates()[0].saddr);
    assert_eq!(saddr(&policies), Some(a));
    let generation = policies.generation();
    assert_eq!(policies.migrate(migration.clone()).groups, Groups::MIGRATE);
    assert_eq!(saddr(&policies), Some(c));
    assert_ne!(policies.generation(), generation);
    policies.flush().expect("something was there");
    policies.migrate(migration);
    assert!(policies.is_empty());
    for change in [
        Migrate { new_family: Family(7), ..change },
        Migrate { old_family: Family::UNSPEC, ..change },
        Migrate { new_saddr: Address::default(), ..change },
    ] {
        assert_eq!(policies.migration(&id(&info), &asked(change)), Err(Errno::EINVAL));
    }
    assert_eq!(policies.migration(&id(&info), &none()), Err(Errno::EINVAL));
    assert_eq!(policies.migration(&id(&info), &asked(change)), Err(Errno::ENOENT));
}
