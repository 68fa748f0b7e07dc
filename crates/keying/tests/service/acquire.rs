//! Packets without an SA.

use culvert_spd::Upper;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::event::Acquire;
use culvert_xfrm::event::Groups;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;

use crate::lab::*;
use crate::words::selector;

fn asked(lab: &mut Lab) -> Vec<(Acquire, Attributes)> {
    let told = lab.told().into_iter().map(|body| match body {
        Body::Acquire(acquire, list) => (acquire, list),
        body => panic!("{body:?}"),
    });
    told.collect()
}

fn trap(lab: &mut Lab) -> culvert_spd::Group {
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![template(OUT)]));
    lab.told();
    lab.group(&packet())
}

/// IKE is asked once, with the packet, the policy and the template; again when no SA came in time.
#[test]
fn ike_is_asked_once() {
    let mut lab = Lab::new();
    let group = trap(&mut lab);
    lab.wants(group, packet());
    lab.wants(group, udp("10.1.0.6 10.2.0.7", 1, 2));
    let asked_for = asked(&mut lab);
    let [(acquire, list)] = asked_for.as_slice() else { panic!("{asked_for:?}") };
    let wanted = template(OUT);
    assert_eq!((acquire.id, acquire.saddr), (wanted.id, wanted.saddr));
    assert_eq!((acquire.aalgos, acquire.ealgos, acquire.calgos), (u32::MAX, u32::MAX, u32::MAX));
    assert_eq!((acquire.policy.sel, acquire.policy.priority), (selector(NETWORKS), 100));
    assert_ne!(acquire.policy.index, 0);
    let mut sel = selector("10.1.0.5/32 10.2.0.5/32");
    (sel.sport.0, sel.dport.0, sel.proto) = (5000, 53, 17);
    (sel.sport_mask.0, sel.dport_mask.0) = (0xffff, 0xffff);
    assert_eq!(acquire.sel, sel);
    assert_eq!(list.templates(), Some(&vec![wanted]));
    assert_eq!(lab.count(), 1, "a larval SA");
    lab.tick(164);
    lab.wants(group, packet());
    assert_eq!(asked(&mut lab), []);
    lab.tick(1);
    assert_eq!(lab.count(), 0);
    assert_eq!(lab.told().len(), 1, "EXPIRE");
    lab.wants(group, packet());
    let again = asked(&mut lab);
    let [(second, _)] = again.as_slice() else { panic!("{again:?}") };
    assert!(second.seq > acquire.seq && acquire.seq > 0);
}

/// The SA that was wanted is not wanted any more when it comes, with the number of the request or
/// without.
#[test]
fn the_wanted_sa_comes() {
    for by_number in [true, false] {
        let mut lab = Lab::new();
        let group = trap(&mut lab);
        lab.wants(group, packet());
        let (acquire, _) = asked(&mut lab).remove(0);
        let seq = if by_number { acquire.seq } else { 0 };
        let reqid = if by_number { 99 } else { 1 };
        lab.ok(allocate(info(IN, 0x1000)));
        assert_eq!(lab.count(), 2);
        lab.ok(update(info(IN, 0x1000), 1));
        lab.ok(new(SaInfo { seq, reqid, ..info(OUT, 0x2000) }, 2));
        assert_eq!(lab.count(), 2, "by number: {by_number}");
        assert_eq!(lab.sends(&packet()), (!by_number).then_some(0x2000));
    }
}

/// Nobody is asked while nobody listens, and nothing is kept of it.
#[test]
fn nobody_listens() {
    let mut lab = Lab::new();
    let group = trap(&mut lab);
    lab.service.set_listening(Groups::EXPIRE);
    lab.wants(group, packet());
    assert_eq!((lab.told(), lab.count()), (vec![], 0));
    lab.service.set_listening(Groups::ACQUIRE);
    lab.wants(group, packet());
    assert_eq!((asked(&mut lab).len(), lab.count()), (1, 1));
}

/// In transport mode the addresses are the packet's, and each pair of hosts asks for itself.
#[test]
fn hosts_ask_for_themselves() {
    let mut lab = Lab::new();
    let transport = Template {
        mode: Mode::TRANSPORT,
        id: XfrmId { proto: sa::ESP, ..XfrmId::default() },
        saddr: Default::default(),
        ..template(OUT)
    };
    lab.ok(protect(policy("192.0.2.1/32 0.0.0.0/0", Direction::OUT), vec![transport]));
    lab.told();
    let flows = [udp("192.0.2.1 192.0.2.2", 1, 2), udp("192.0.2.1 192.0.2.3", 1, 2)];
    for flow in flows {
        let group = lab.group(&flow);
        lab.wants(group, flow);
        lab.wants(group, flow);
    }
    let list = asked(&mut lab);
    let ends: Vec<_> = list.iter().map(|(acquire, _)| (acquire.saddr, acquire.id.daddr)).collect();
    let host = |text: &str| text.parse::<std::net::IpAddr>().expect("an address").into();
    let us = host("192.0.2.1");
    assert_eq!(ends, [(us, host("192.0.2.2")), (us, host("192.0.2.3"))]);
    let sa = SaInfo { mode: Mode::TRANSPORT, ..info(OUT, 0x2000) };
    lab.ok(new(sa, 1));
    assert_eq!((lab.count(), lab.sends(&flows[0]), lab.sends(&flows[1])), (2, Some(0x2000), None));
    lab.ok(delete(&sa));
    assert_eq!(lab.sends(&flows[0]), None);
    let group = lab.group(&flows[0]);
    lab.told();
    lab.wants(group, flows[0]);
    assert_eq!(asked(&mut lab).len(), 1);
}

/// Marks and interfaces of a policy are told, and all its templates; ports of protocols that have
/// none are 0 and count.
#[test]
fn all_of_a_policy_is_told() {
    let scope = culvert_keying::Scope { mark: 3, if_id: 5 };
    let mut lab = Lab::with_scope(scope);
    let inner = Template { reqid: 2, ..template(OUT) };
    let outer = Template {
        mode: Mode::TRANSPORT,
        id: XfrmId { proto: sa::AH, ..XfrmId::default() },
        saddr: Default::default(),
        reqid: 3,
        ..template(OUT)
    };
    let info = PolicyInfo { priority: 7, ..policy(NETWORKS, Direction::OUT) };
    let list = vec![
        Attribute::Templates(vec![inner, outer]),
        Attribute::Mark(Mark { value: 3, mask: 7 }),
        Attribute::IfId(5),
    ];
    lab.ok(Body::UpdatePolicy(info, Attributes(list)));
    lab.told();
    let mut flow = packet();
    (flow.protocol, flow.upper) = (50, Upper::None);
    let bundle = lab.group(&flow);
    let groups = lab.plane.bundles.iter().find(|(group, _)| *group == bundle).expect("a bundle");
    for group in groups.1.clone() {
        lab.wants(group, flow);
    }
    let list = asked(&mut lab);
    let [(first, of_first), (second, of_second)] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(of_first, of_second);
    assert_eq!(of_first.templates(), Some(&vec![inner, outer]));
    assert_eq!(of_first.mark(), Some(&Mark { value: 3, mask: 7 }));
    assert_eq!(of_first.if_id(), Some(&5));
    assert_eq!((first.id.proto, second.id.proto), (sa::ESP, sa::AH));
    assert_eq!(
        (second.id.daddr, second.saddr),
        (inner.id.daddr, inner.saddr),
        "outside the tunnel"
    );
    assert_eq!((first.sel.sport.0, first.sel.sport_mask.0, first.sel.proto), (0, 0xffff, 50));
}

/// Policies that ask for the same SAs one around the other: each of them is asked for.
#[test]
fn bundles_of_two_policies_are_wanted() {
    let outer = Template {
        mode: Mode::TRANSPORT,
        id: XfrmId { proto: sa::AH, ..XfrmId::default() },
        saddr: Default::default(),
        ..template(OUT)
    };
    for networks in ["10.7.0.0/16 10.8.0.0/16", NETWORKS] {
        let mut lab = Lab::new();
        let list = Attributes(vec![Attribute::Templates(vec![template(OUT), outer])]);
        for (priority, selector) in [(1, NETWORKS), (2, "10.7.0.0/16 10.8.0.0/16")] {
            let info = PolicyInfo { priority, ..policy(selector, Direction::OUT) };
            lab.ok(Body::NewPolicy(info, list.clone()));
        }
        lab.told();
        let flow = match networks {
            NETWORKS => packet(),
            _ => udp("10.7.0.5 10.8.0.5", 1, 2),
        };
        let bundle = lab.group(&flow);
        lab.wants(bundle, flow);
        let list = asked(&mut lab);
        let [(acquire, _)] = list.as_slice() else { panic!("{networks}: {list:?}") };
        let meant = policy(networks, Direction::OUT).sel;
        assert_eq!((acquire.id.proto, acquire.policy.sel.saddr), (sa::ESP, meant.saddr));
    }
}
