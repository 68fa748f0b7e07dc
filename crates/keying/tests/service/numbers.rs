//! Sequence numbers and windows: GETAE, NEWAE, and SAs that are made anew.

use culvert_control::ControlError;
use culvert_control::Direction as Way;
use culvert_esp::WindowState;
use culvert_keying::Report;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::event::AeFlags;
use culvert_xfrm::event::AeId;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::replay::Replay;
use culvert_xfrm::replay::ReplayEsn;
use culvert_xfrm::sa::SaFlags;
use culvert_xfrm::sa::SaInfo;

use crate::lab::*;
use crate::plane::Call;
use crate::words::selector;

fn ae(info: &SaInfo, flags: u32) -> AeId {
    AeId { sa_id: id(info), flags, ..AeId::default() }
}

fn numbers(lab: &mut Lab, info: &SaInfo) -> Attributes {
    let answer = lab.ok(Body::GetAe(ae(info, AeFlags::REPLAY_VALUE), none()));
    match answer.as_slice() {
        [Body::NewAe(_, list)] => list.clone(),
        other => panic!("{other:?}"),
    }
}

/// GETAE says what workers say, in the form in which the SA was made.
#[test]
fn numbers_are_the_workers() {
    let mut lab = Lab::new();
    let (inbound, outbound) = (info(IN, 0x1000), info(OUT, 0x2000));
    lab.ok(new(inbound, 1));
    lab.ok(new(outbound, 2));
    let (handle, _) = lab.plane.only(Way::Outbound);
    let report = Report { packets: 7, bytes: 700, sequence: 0x1_0000_0007, ..Report::default() };
    lab.plane.reports.insert(handle, report);
    let (handle, _) = lab.plane.only(Way::Inbound);
    let window = WindowState::from_fn(40, 64, |number| number != 39);
    let report = Report { packets: 3, sequence: 40, window: Some(window), ..Report::default() };
    lab.plane.reports.insert(handle, report);
    let list = numbers(&mut lab, &outbound);
    assert_eq!(list.replay(), Some(&Replay { oseq: 7, seq: 0, bitmap: 0 }));
    assert_eq!(list.usage().map(|usage| (usage.packets, usage.bytes)), Some((7, 700)));
    let list = numbers(&mut lab, &inbound);
    assert_eq!(list.replay(), Some(&Replay { oseq: 0, seq: 40, bitmap: !2 }));
}

/// A window of more than 32 numbers is a ring, as in the kernel: number n is bit (n - 1) % size.
#[test]
fn large_windows_are_rings() {
    let mut lab = Lab::new();
    let sa = SaInfo { flags: SaFlags::ESN, replay_window: 0, ..info(IN, 0x1000) };
    let ring = ReplayEsn { replay_window: 96, bitmap: vec![0; 3], ..ReplayEsn::default() };
    lab.ok(new_with(sa, vec![Attribute::ReplayEsn(ring.clone())]));
    let (handle, spec) = lab.plane.only(Way::Inbound);
    assert!(spec.esn && spec.replay_window == 96);
    let top = (1 << 32) + 5;
    let window = WindowState::from_fn(top, 96, |number| number == top || number == top - 1);
    let report = Report { sequence: top, window: Some(window), ..Report::default() };
    lab.plane.reports.insert(handle, report);
    // (2^32 + 4) % 96 is 68: bits 67 and 68.
    let expected = vec![0, 0, 0b1_1000];
    let list = numbers(&mut lab, &sa);
    let replay = list.replay_esn().expect("a ring");
    assert_eq!((replay.seq, &replay.bitmap), (top, &expected));
    lab.ok(delete(&sa));
    lab.ok(new_with(sa, vec![Attribute::ReplayEsn(replay.clone())]));
    let (_, spec) = lab.plane.only(Way::Inbound);
    let window = spec.window.as_ref().expect("a window");
    let seen = |number| window.was_seen(number);
    assert!(seen(top) && seen(top - 1) && !seen(top - 2) && !seen(top - 95) && seen(top - 96));
}

/// NEWAE sets numbers of the form that the SA has, and no others; what it cannot set leaves the SA
/// as it was.
#[test]
fn numbers_are_set() {
    let mut lab = Lab::new();
    let sa = info(OUT, 0x2000);
    lab.ok(new(sa, 2));
    let set = |list: Vec<Attribute>| Body::NewAe(ae(&sa, 0), Attributes(list));
    let old = |oseq| Attribute::Replay(Replay { oseq, seq: 0, bitmap: 0 });
    lab.told();
    lab.ok(set(vec![old(500)]));
    assert_eq!(lab.plane.only(Way::Outbound).1.sequence, 500);
    let told = lab.told();
    let [Body::NewAe(id, list)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((id.flags, list.replay().map(|of| of.oseq)), (AeFlags::BY_UPDATE, Some(500)));
    let huge = ReplayEsn { oseq: 9, replay_window: u32::MAX, bitmap: vec![], ..Default::default() };
    lab.ok(set(vec![Attribute::ReplayEsn(huge.clone())]));
    assert_eq!(lab.plane.only(Way::Outbound).1.sequence, 500, "an SA without a ring");
    let used_up = ControlError::UsedUp { used: 1 << 40, end: 1 << 40 };
    lab.plane.refusals = vec![Some(used_up)];
    assert_eq!(lab.refused(set(vec![old(u32::MAX)])), Errno::EINVAL);
    assert_eq!((lab.count(), lab.plane.only(Way::Outbound).1.sequence), (1, 500));
    let ring = ReplayEsn { replay_window: 64, bitmap: vec![0; 2], ..ReplayEsn::default() };
    let inbound = SaInfo { replay_window: 0, ..info(IN, 0x1000) };
    lab.ok(new_with(inbound, vec![Attribute::ReplayEsn(ring.clone())]));
    let refused = [
        ReplayEsn { bitmap: vec![0; 3], ..ring.clone() },
        ReplayEsn { replay_window: 65, ..ring.clone() },
        huge,
    ];
    for replay in refused {
        let list = Attributes(vec![Attribute::ReplayEsn(replay)]);
        assert_eq!(lab.refused(Body::NewAe(ae(&inbound, 0), list)), Errno::EINVAL);
    }
    lab.told();
    lab.ok(allocate(info(IN, 0x1001)));
    let list = Attributes(vec![Attribute::Usage(Usage::default())]);
    assert_eq!(lab.refused(Body::NewAe(ae(&info(IN, 0x1001), 0), list)), Errno::EINVAL);
}

/// An SA that can neither be made anew nor stay has expired: IKE is told, and the journal.
#[test]
fn what_cannot_come_back_has_expired() {
    let mut lab = Lab::new();
    let sa = info(OUT, 0x2000);
    lab.ok(new(sa, 2));
    lab.told();
    let full = || Some(ControlError::Full(1));
    lab.plane.refusals = vec![full(), full()];
    let list = Attributes(vec![Attribute::Usage(Usage::default())]);
    assert_eq!(lab.refused(Body::NewAe(ae(&sa, 0), list)), Errno::ENOBUFS);
    let told = lab.told();
    let [Body::Expire(expire, _)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((expire.hard, expire.state.id, lab.count()), (1, sa.id, 0));
}

/// What strongSwan does when an address or a port changes: it blocks, waits, reads the SA and its
/// numbers, deletes it, and adds it again with another address. Key and numbers go on.
#[test]
fn an_sa_moves_with_its_numbers() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    let (inbound, outbound) = (info(IN, 0x1000), info(OUT, 0x2000));
    lab.ok(new(inbound, 1));
    lab.ok(new(outbound, 2));
    lab.calls();
    let block = PolicyInfo { action: Action::BLOCK, ..policy(NETWORKS, Direction::OUT) };
    lab.ok(protect(block, vec![template(OUT)]));
    assert_eq!(lab.calls(), [Call::Policies, Call::Settle], "no packets from the answer on");
    assert_eq!(lab.means(&packet()), Some(culvert_spd::Action::Discard));
    let (handle, _) = lab.plane.only(Way::Outbound);
    lab.plane.reports.insert(handle, Report { sequence: 77, packets: 77, ..Report::default() });
    let (handle, _) = lab.plane.only(Way::Inbound);
    let window = WindowState::from_fn(50, 64, |number| number % 2 == 0);
    let report = Report { sequence: 50, window: Some(window), ..Report::default() };
    lab.plane.reports.insert(handle, report);
    for (sa, new_ends) in
        [(outbound, "192.0.2.1 198.51.100.9"), (inbound, "198.51.100.9 192.0.2.1")]
    {
        let answer = lab.ok(get(&sa));
        let [Body::NewSa(_, keys)] = answer.as_slice() else { panic!("{answer:?}") };
        let list = numbers(&mut lab, &sa);
        lab.ok(delete(&sa));
        let aead = keys.alg_aead().cloned().expect("a key");
        let numbers = list
            .0
            .into_iter()
            .filter(|attribute| matches!(attribute, Attribute::Replay(_) | Attribute::Usage(_)));
        let mut attributes = vec![Attribute::AlgAead(aead)];
        attributes.extend(numbers);
        lab.ok(Body::NewSa(info(new_ends, sa.id.spi.0), Attributes(attributes)));
    }
    let there = template("192.0.2.1 198.51.100.9");
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![there]));
    let (_, spec) = lab.plane.only(Way::Outbound);
    assert_eq!((spec.sequence, spec.spi.value()), (77, 0x2000));
    assert_eq!(spec.keymat.as_bytes(), [2; 20]);
    assert_eq!(lab.sends(&packet()), Some(0x2000));
    let (_, spec) = lab.plane.only(Way::Inbound);
    let window = spec.window.as_ref().expect("a window");
    assert!(window.was_seen(50) && !window.was_seen(49) && window.was_seen(18));
    assert_eq!((lab.count(), lab.service.lost()), (2, 0));
}

/// MIGRATE: policies and SAs get new addresses, keys and numbers go on; the journal hears of both.
#[test]
fn addresses_migrate() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    let sa = info(OUT, 0x2000);
    lab.ok(new(sa, 2));
    lab.ok(new_with(info(OUT, 0x2001), vec![Attribute::IfId(7)]));
    let (handle, _) = lab.plane.only(Way::Outbound);
    lab.plane.reports.insert(handle, Report { sequence: 12, ..Report::default() });
    let new = template("192.0.2.1 198.51.100.9");
    let change = Migrate {
        old_daddr: sa.id.daddr,
        old_saddr: sa.saddr,
        new_daddr: new.id.daddr,
        new_saddr: new.saddr,
        proto: 50,
        mode: sa.mode,
        reqid: 1,
        old_family: sa.family,
        new_family: sa.family,
        ..Migrate::default()
    };
    let sel = selector(NETWORKS);
    let id = PolicyId { sel, index: 0, dir: Direction::OUT };
    let list = Attributes(vec![Attribute::Migrate(vec![change])]);
    lab.events();
    lab.ok(Body::Migrate(id, list.clone()));
    let (_, spec) = lab.plane.only(Way::Outbound);
    assert_eq!((spec.sequence, spec.destination.to_string().as_str()), (12, "198.51.100.9"));
    assert_eq!(lab.sends(&packet()), Some(0x2000));
    let events = lab.events();
    let kinds: Vec<_> = events.iter().map(|event| (event.groups, event.body.kind().0)).collect();
    assert!(kinds.contains(&(0x40, 0x21)), "{kinds:?}");
    let journal: Vec<_> =
        events.iter().filter_map(culvert_keying::journal::entry).map(|entry| entry[4]).collect();
    assert!(journal.starts_with(&[0x11, 0x10]), "the old SA is gone, the new one is there");
    assert_eq!(journal.last(), Some(&0x19), "and the policy");
    assert_eq!(lab.refused(Body::Migrate(id, list)), Errno::ENODATA);
}
