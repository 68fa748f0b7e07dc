//! What policies become on the data plane.

use culvert_control::Direction as Way;
use culvert_keying::Report;
use culvert_spd::Action as Means;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Spi;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;

use crate::lab::*;
use crate::words::selector;

/// The first policy that admits a packet decides; blocks, passes and defaults are what they say.
#[test]
fn policies_in_their_order() {
    let mut lab = Lab::new();
    assert_eq!(lab.means(&packet()), None, "not yet settled");
    tunnel_policies(&mut lab);
    let group = lab.group(&packet());
    let block =
        PolicyInfo { action: Action::BLOCK, priority: 50, ..policy(NETWORKS, Direction::OUT) };
    let mut narrow = block;
    (narrow.sel.proto, narrow.sel.dport.0, narrow.sel.dport_mask.0) = (17, 53, 0xffff);
    lab.ok(protect(narrow, vec![template(OUT)]));
    assert_eq!(lab.means(&packet()), Some(Means::Discard));
    let other = udp("10.1.0.5 10.2.0.5", 5000, 54);
    assert_eq!(lab.means(&other), Some(Means::Protect(group)));
    let pass = PolicyInfo { action: Action::ALLOW, ..narrow };
    lab.ok(Body::UpdatePolicy(pass, none()));
    assert_eq!(lab.means(&packet()), Some(Means::Bypass));
    lab.ok(Body::DeletePolicy(PolicyId { sel: pass.sel, index: 0, dir: pass.dir }, none()));
    assert_eq!(lab.group(&packet()), group);
    let elsewhere = udp("10.5.0.5 10.6.0.5", 1, 2);
    assert_eq!(lab.means(&elsewhere), Some(Means::Bypass));
    let block = DefaultAction::BLOCK;
    let defaults = Defaults { inbound: block, forward: block, outbound: block };
    lab.ok(Body::SetDefault(defaults, none()));
    assert_eq!(lab.means(&elsewhere), None);
    lab.ok(Body::FlushPolicy(none()));
    assert_eq!((lab.means(&packet()), lab.plane.spd.inbound.len()), (None, 0));
}

/// Policies for other marks and interfaces are kept and not for packets of this gateway.
#[test]
fn policies_of_others() {
    let mut lab = Lab::new();
    let block = PolicyInfo { action: Action::BLOCK, ..policy(NETWORKS, Direction::OUT) };
    let marked = Attribute::Mark(Mark { value: 1, mask: 1 });
    lab.ok(Body::NewPolicy(block, Attributes(vec![marked])));
    lab.ok(Body::NewPolicy(block, Attributes(vec![Attribute::IfId(1)])));
    assert_eq!(lab.service.counts().1, 2);
    assert_eq!(lab.means(&packet()), Some(Means::Bypass));
    let mut sel = block.sel;
    sel.ifindex = 2;
    let bound = PolicyInfo { sel, ..block };
    assert_eq!(lab.refused(Body::NewPolicy(bound, none())), Errno::EOPNOTSUPP);
}

/// A template with an SPI means that SA alone, whichever is the latest.
#[test]
fn a_template_may_name_an_sa() {
    let mut lab = Lab::new();
    let named = Template { id: XfrmId { spi: Spi(0x2000), ..template(OUT).id }, ..template(OUT) };
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![named]));
    lab.ok(new(info(OUT, 0x2000), 1));
    lab.ok(new(info(OUT, 0x2001), 2));
    assert_eq!(lab.sends(&packet()), Some(0x2000));
    lab.ok(delete(&info(OUT, 0x2000)));
    assert_eq!(lab.sends(&packet()), None);
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![template(OUT)]));
    assert_eq!(lab.sends(&packet()), Some(0x2001));
}

/// The same when the SA was there before the policy, or comes again after it; SAs with its SPI to
/// another peer, or of another kind, are not meant.
#[test]
fn a_template_may_name_an_sa_that_is_there() {
    let mut lab = Lab::new();
    let others = [
        info("192.0.2.1 192.0.2.3", 0x2000),
        SaInfo { reqid: 2, ..info("192.0.2.9 192.0.2.2", 0x2002) },
    ];
    lab.ok(new(info(OUT, 0x2000), 1));
    lab.ok(new(info(OUT, 0x2001), 2));
    for (other, key) in others.into_iter().zip(3..) {
        lab.ok(new(other, key));
    }
    let named = |spi| Template { id: XfrmId { spi, ..template(OUT).id }, ..template(OUT) };
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![named(Spi(0x2000))]));
    assert_eq!(lab.sends(&packet()), Some(0x2000));
    lab.ok(delete(&info(OUT, 0x2000)));
    assert_eq!(lab.sends(&packet()), None);
    lab.ok(new(info(OUT, 0x2000), 1));
    assert_eq!(lab.sends(&packet()), Some(0x2000));
    let update = |spi| {
        let list = Attributes(vec![Attribute::Templates(vec![named(spi)])]);
        Body::UpdatePolicy(policy(NETWORKS, Direction::OUT), list)
    };
    for (spi, sends) in [(0x2001, Some(0x2001)), (0x2002, None), (0x2000, Some(0x2000))] {
        lab.ok(update(Spi(spi)));
        assert_eq!(lab.sends(&packet()), sends);
    }
}

/// SAs are told apart by reqid, mode, protocol and addresses.
#[test]
fn what_a_template_means() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    let others = [
        SaInfo { reqid: 2, ..info(OUT, 0x2001) },
        SaInfo { mode: Mode::TRANSPORT, ..info(OUT, 0x2002) },
        info("192.0.2.1 192.0.2.3", 0x2003),
        info("192.0.2.9 192.0.2.2", 0x2004),
    ];
    for other in others {
        lab.ok(new(other, other.id.spi.0.to_le_bytes()[0]));
        assert_eq!(lab.sends(&packet()), None, "{other:?}");
    }
    lab.ok(new(info(OUT, 0x2000), 9));
    assert_eq!(lab.sends(&packet()), Some(0x2000));
}

/// Inbound, the policies `fwd` count, and those of `in` behind them that `fwd` has not.
#[test]
fn forward_comes_before_in() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    lab.ok(new(info(IN, 0x1000), 1));
    let (_, spec) = lab.plane.only(Way::Inbound);
    let group = spec.group;
    let means: Vec<_> = lab.plane.spd.inbound.iter().map(|policy| policy.action).collect();
    assert_eq!(means, [Means::Protect(group), Means::Bypass], "once, and the default");
    let own = PolicyInfo { priority: 1, ..policy("10.2.0.0/16 192.0.2.1/32", Direction::IN) };
    lab.ok(protect(own, vec![template(IN)]));
    let means: Vec<_> = lab.plane.spd.inbound.iter().map(|policy| policy.action).collect();
    assert_eq!(means, [Means::Protect(group), Means::Protect(group), Means::Bypass]);
    // What `in` blocks comes behind as well, however early; what it lets pass is for this machine.
    let sel = policy("0.0.0.0/0 0.0.0.0/0", Direction::IN);
    lab.ok(Body::NewPolicy(PolicyInfo { priority: 0, ..sel }, none()));
    let means = |lab: &Lab| -> Vec<Means> {
        lab.plane.spd.inbound.iter().map(|policy| policy.action).collect()
    };
    assert_eq!(means(&lab).len(), 3);
    let block = PolicyInfo { action: Action::BLOCK, ..sel };
    lab.ok(Body::UpdatePolicy(PolicyInfo { priority: 0, ..block }, none()));
    assert_eq!(means(&lab)[..2], [Means::Protect(group), Means::Discard]);
}

/// What `fwd` blocks, by a policy or by default, is not sent: the kernel asks it of all that it
/// forwards, whichever way.
#[test]
fn what_is_not_forwarded_is_not_sent() {
    let mut lab = Lab::new();
    let block = PolicyInfo { action: Action::BLOCK, ..policy(NETWORKS, Direction::FORWARD) };
    lab.ok(Body::NewPolicy(block, none()));
    assert_eq!(lab.means(&packet()), Some(Means::Discard));
    lab.ok(Body::FlushPolicy(none()));
    assert_eq!(lab.means(&packet()), Some(Means::Bypass));
    let forward = Defaults { forward: DefaultAction::BLOCK, ..Defaults::default() };
    lab.ok(Body::SetDefault(forward, none()));
    assert_eq!(lab.means(&packet()), None);
}

/// Several templates are a bundle when sent; when received, such packets are dropped for now.
#[test]
fn several_templates_are_a_bundle() {
    let mut lab = Lab::new();
    let ah = |text| Template {
        mode: Mode::TRANSPORT,
        id: XfrmId { proto: sa::AH, ..XfrmId::default() },
        ..template(text)
    };
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![template(OUT), ah(OUT)]));
    lab.ok(protect(policy(BACK, Direction::FORWARD), vec![template(IN), ah(IN)]));
    lab.ok(new(info(OUT, 0x2000), 1));
    let bundle = lab.group(&packet());
    let (_, groups) = &lab.plane.bundles[0];
    assert_eq!((lab.plane.bundles[0].0, groups.len()), (bundle, 2));
    let (_, inner) = lab.plane.sends(groups[0]).expect("the inner SA");
    assert_eq!(inner.spi.value(), 0x2000);
    assert!(lab.plane.sends(groups[1]).is_none());
    assert_eq!(lab.plane.spd.inbound[0].action, Means::Discard);
    lab.ok(Body::FlushPolicy(none()));
    assert!(lab.plane.bundles.is_empty());
}

/// A template that packets may do without is asked of them once there is such an SA.
#[test]
fn optional_templates() {
    let mut lab = Lab::new();
    let optional = Template { optional: 1, ..template(IN) };
    lab.ok(protect(policy(BACK, Direction::FORWARD), vec![optional]));
    assert_eq!(lab.plane.spd.inbound[0].action, Means::Bypass);
    let sa = info(IN, 0x1000);
    lab.ok(new(sa, 1));
    assert!(matches!(lab.plane.spd.inbound[0].action, Means::Protect(_)));
    lab.ok(delete(&sa));
    assert_eq!(lab.plane.spd.inbound[0].action, Means::Bypass);
}

/// A policy was last used when the last of its SAs was: DPD lives on that.
#[test]
fn policies_are_used_with_their_sas() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    lab.ok(new(info(OUT, 0x2000), 1));
    lab.ok(new(info(OUT, 0x2001), 2));
    let used = |lab: &mut Lab| {
        let id = PolicyId { sel: selector(NETWORKS), index: 0, dir: Direction::OUT };
        let answer = lab.ok(Body::GetPolicy(id, none()));
        let [Body::NewPolicy(info, _)] = answer.as_slice() else { panic!("{answer:?}") };
        info.usage.use_time
    };
    assert_eq!(used(&mut lab), 0);
    let handles: Vec<_> = lab.plane.specs.keys().copied().collect();
    for (handle, at) in handles.into_iter().zip([1_700_000_050, 1_700_000_020]) {
        let report = Report { last_used: Some(at), first_used: Some(at), ..Report::default() };
        lab.plane.reports.insert(handle, report);
    }
    assert_eq!(used(&mut lab), 1_700_000_050);
    let listed = lab.ok(Body::DumpPolicy(none()));
    let times = listed.iter().map(|body| match body {
        Body::NewPolicy(info, _) => info.usage.use_time,
        body => panic!("{body:?}"),
    });
    assert_eq!(times.collect::<Vec<_>>(), [0, 0, 1_700_000_050]);
    let answer = lab.ok(get(&info(OUT, 0x2000)));
    let [Body::NewSa(sa, list)] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!((sa.usage.use_time, list.last_used()), (1_700_000_050, Some(&1_700_000_050)));
}
