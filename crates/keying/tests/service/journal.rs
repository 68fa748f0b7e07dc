//! What survives the process.

use culvert_keying::Policies;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_keying::journal::entry;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::event::Expire;
use culvert_xfrm::event::Groups;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaId;

use crate::lab::*;

const DISCARD: Defaults = Defaults {
    inbound: DefaultAction::BLOCK,
    forward: DefaultAction::BLOCK,
    outbound: DefaultAction::BLOCK,
};

/// The journal that events make.
fn written(lab: &mut Lab) -> Vec<u8> {
    let events = lab.events();
    events.iter().filter_map(entry).flat_map(|entry| entry.to_vec()).collect()
}

fn restored(journal: &[u8]) -> Lab {
    let mut lab = Lab::new();
    // The default is not in the journal: it comes from the configuration.
    let mut policies = Policies::new();
    policies.set_defaults(&DISCARD);
    lab.service = Service::new(policies, Scope::default());
    lab.service.set_listening(u32::MAX);
    lab.service.restore(journal, lab.now);
    lab.service.settle(&mut lab.plane);
    lab.assert_whole();
    lab
}

fn policies(lab: &mut Lab) -> Vec<Body> {
    lab.ok(Body::DumpPolicy(none()))
}

fn expired(lab: &mut Lab) -> Vec<u32> {
    lab.service.tell_lost();
    let told = lab.told().into_iter().map(|body| match body {
        Body::Expire(Expire { state, hard: 1 }, _) => state.id.spi.0,
        body => panic!("{body:?}"),
    });
    told.collect()
}

fn busy() -> Lab {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    let marked = Attributes(vec![Attribute::Mark(Mark { value: 1, mask: 3 })]);
    let other = policy("10.9.0.0/16 10.8.0.0/16", Direction::OUT);
    lab.ok(Body::NewPolicy(other, marked.clone()));
    lab.ok(Body::NewPolicy(policy("10.7.0.0/16 10.8.0.0/16", Direction::OUT), none()));
    lab.ok(Body::NewPolicy(PolicyInfo { index: 81, ..other }, none()));
    lab.ok(Body::DeletePolicy(PolicyId { sel: other.sel, index: 0, dir: other.dir }, marked));
    let gone = PolicyId { index: 81, dir: Direction::OUT, ..PolicyId::default() };
    lab.ok(Body::DeletePolicy(gone, none()));
    lab.ok(Body::SetDefault(DISCARD, none()));
    for spi in 0x1000..0x1004 {
        lab.ok(allocate(info(IN, spi)));
        lab.ok(update(info(IN, spi), 0xa5));
        lab.ok(new(info(OUT, spi), 0xa6));
    }
    lab.ok(allocate(info(IN, 0x1500)));
    lab.ok(delete(&info(IN, 0x1001)));
    let state = info(OUT, 0x1002);
    lab.ok(Body::Expire(Expire { state, hard: 0 }, none()));
    lab.ok(Body::Expire(Expire { state, hard: 1 }, none()));
    lab
}

/// Policies are in force as before; SAs that are gone with the process are told of once. What the
/// events make and what is written at once lead to the same. No key is in either.
#[test]
fn a_restart_keeps_policies() {
    let mut lab = busy();
    let before = policies(&mut lab);
    assert_eq!(before.len(), 4);
    let journals = [written(&mut lab), lab.service.journal().to_vec()];
    for journal in journals {
        for octet in [0xa5, 0xa6] {
            assert!(!journal.windows(8).any(|octets| octets == [octet; 8]), "a key");
        }
        let mut after = restored(&journal);
        assert_eq!(policies(&mut after), before);
        assert_eq!(after.plane.spd.outbound, lab.plane.spd.outbound);
        assert_eq!((after.count(), after.service.lost()), (0, 6));
        let again = after.service.journal().to_vec();
        let mut spis = expired(&mut after);
        spis.sort_unstable();
        assert_eq!(spis, [0x1000, 0x1000, 0x1001, 0x1002, 0x1003, 0x1003]);
        assert_eq!(expired(&mut after), [], "once");
        let mut twice = restored(&again);
        assert_eq!((policies(&mut twice), twice.service.lost()), (before.clone(), 6));
    }
}

/// What is made anew, deleted or flushed after the start has not expired.
#[test]
fn what_came_back_is_not_told() {
    let mut lab = busy();
    let journal = written(&mut lab);
    let mut after = restored(&journal);
    after.ok(new(info(IN, 0x1000), 1));
    after.refused(delete(&info(OUT, 0x1000)));
    after.told();
    let mut spis = expired(&mut after);
    spis.sort_unstable();
    assert_eq!(spis, [0x1001, 0x1002, 0x1003, 0x1003]);
    let mut after = restored(&journal);
    after.ok(Body::FlushSa(SaFlush::default(), none()));
    after.told();
    assert_eq!(expired(&mut after), []);
}

/// A journal may end anywhere, or be none: nothing panics, and what stands before counts.
#[test]
fn a_journal_may_be_cut_off() {
    let mut lab = busy();
    let journal = written(&mut lab);
    let mut most = 0;
    for end in (0..journal.len()).step_by(13) {
        let after = restored(&journal[..end]);
        let (_, count) = after.service.counts();
        most = most.max(count);
    }
    assert!(most >= 4);
    let mut changed = journal.clone();
    for at in (0..changed.len()).step_by(7) {
        changed[at] ^= 0xff;
        restored(&changed);
    }
}

/// What only tells of something is not written, and deletion without the SA's attributes.
#[test]
fn entries_are_short() {
    let mut lab = Lab::new();
    lab.ok(new(info(IN, 0x1000), 0xa5));
    lab.ok(delete(&info(IN, 0x1000)));
    let entries: Vec<_> = lab.events().iter().filter_map(entry).map(|entry| entry.len()).collect();
    assert_eq!(entries, [16 + 224, 16 + 24]);
    let id = SaId::default();
    let event = |body| culvert_keying::policies::Event { groups: 4, body };
    assert!(entry(&event(Body::GetSa(id, none()))).is_none());
}

/// Whoever listens from after a request on hears nothing of it: half of it would be worse.
#[test]
fn who_comes_later_hears_nothing() {
    let mut lab = Lab::new();
    lab.service.set_listening(0);
    lab.ok(new(info(OUT, 0x2000), 1));
    lab.ok(delete(&info(OUT, 0x2000)));
    lab.service.add_listening(Groups::SA);
    for event in lab.events() {
        let lists = match &event.body {
            Body::NewSa(_, list) | Body::DeleteSa(_, list) => list.0.len(),
            body => panic!("{body:?}"),
        };
        assert!(event.groups & Groups::SA == 0 || lists > 0, "{event:?}");
    }
}
