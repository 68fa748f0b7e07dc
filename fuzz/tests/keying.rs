//! Requests of IKE daemons, some of them damaged, in any order, with what workers say between them:
//! against a data plane that takes notes.

#[path = "../../crates/keying/tests/service/lab.rs"]
#[allow(dead_code, reason = "tests of the service need more of it")]
mod lab;
#[path = "../../crates/keying/tests/service/plane.rs"]
#[allow(dead_code, reason = "tests of the service need more of it")]
mod plane;
#[path = "../../crates/keying/tests/service/words.rs"]
mod words;

use std::sync::LazyLock;

use culvert_control::ControlError;
use culvert_esp::lifetime::ExpiryKind;
use culvert_fuzz::changed;
use culvert_fuzz::target;
use culvert_keying::Policies;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_keying::journal;
use culvert_keying::service::Asker;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::message::messages;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::Template;
use culvert_xfrm::replay::Replay;
use culvert_xfrm::replay::ReplayEsn;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaInfo;

use crate::lab::*;

/// Octets of one step: what, and how it is changed.
const STEP: usize = 12;

fn bodies() -> Vec<Body> {
    let mut bodies = Vec::new();
    for spi in 0x1000..0x1003 {
        for ends in [IN, OUT, "203.0.113.1 203.0.113.2"] {
            let sa = info(ends, spi);
            let transport = SaInfo { mode: Mode::TRANSPORT, ..sa };
            let old = Replay { oseq: 7, seq: 9, bitmap: 5 };
            let ring = ReplayEsn { seq: 70, replay_window: 64, bitmap: vec![0; 2], oseq: 3 };
            let plain = SaInfo { replay_window: 0, ..sa };
            let ae = AeId { sa_id: id(&sa), ..AeId::default() };
            let set = |attribute| Body::NewAe(ae, Attributes(vec![attribute]));
            bodies.extend([allocate(sa), new(sa, 1), new(transport, 3), update(sa, 2)]);
            bodies.extend([get(&sa), delete(&sa), Body::GetAe(ae, none())]);
            bodies.extend([new_with(plain, vec![Attribute::ReplayEsn(ring.clone())])]);
            bodies.extend([set(Attribute::Replay(old)), set(Attribute::ReplayEsn(ring))]);
            bodies.push(Body::Expire(Expire { state: sa, hard: 1 }, none()));
        }
    }
    for (text, dir, ends) in
        [(NETWORKS, Direction::OUT, OUT), (BACK, Direction::IN, IN), (BACK, Direction::FORWARD, IN)]
    {
        let info = policy(text, dir);
        let tunnel = template(ends);
        let transport = Template { mode: Mode::TRANSPORT, ..tunnel };
        bodies.extend([protect(info, vec![tunnel]), protect(info, vec![transport])]);
        bodies.extend([protect(info, vec![tunnel, transport]), Body::UpdatePolicy(info, none())]);
        bodies.push(protect(info, vec![Template { optional: 1, ..transport }]));
        let id = PolicyId { sel: info.sel, index: 0, dir };
        bodies.extend([Body::GetPolicy(id, none()), Body::DeletePolicy(id, none())]);
        let new = template("192.0.2.1 198.51.100.9");
        let change = Migrate {
            old_daddr: tunnel.id.daddr,
            old_saddr: tunnel.saddr,
            new_daddr: new.id.daddr,
            new_saddr: new.saddr,
            proto: 50,
            mode: Mode::TUNNEL,
            old_family: tunnel.family,
            new_family: tunnel.family,
            ..Migrate::default()
        };
        bodies.push(Body::Migrate(id, Attributes(vec![Attribute::Migrate(vec![change])])));
    }
    bodies.extend([Body::FlushSa(SaFlush::default(), none()), Body::FlushPolicy(none())]);
    bodies.extend([Body::DumpSa(none()), Body::DumpPolicy(none()), Body::GetSadInfo(0)]);
    bodies
}

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let octets = |body| Message { flags: 0x105, seq: 1, port: 0, body }.to_octets().to_vec();
    bodies().into_iter().map(octets).collect()
});

/// Asks, and reads what is listed. Not `Lab::ask`: a damaged request may have no answer.
fn ask(lab: &mut Lab, datagram: &[u8]) {
    for frame in messages(datagram).filter_map(Result::ok) {
        let Lab { service, plane, now } = lab;
        let answers = service.request(plane, Asker::default(), &frame, *now);
        if let Some(mut dump) = answers.dump {
            while !service.next_of_dump(plane, &mut dump).is_empty() {}
        }
    }
}

/// One step of whoever has a say: the first octet tells who.
fn step(lab: &mut Lab, octets: &[u8; STEP]) {
    let [who, rest @ ..] = octets;
    let number = usize::from(rest[0]);
    let handle = lab.plane.specs.keys().nth(number % lab.plane.specs.len().max(1)).copied();
    match (*who, handle) {
        (0..8, Some(handle)) => lab.expires(handle, ExpiryKind::Soft),
        (8..16, Some(handle)) => lab.expires(handle, ExpiryKind::Hard),
        (16..24, _) => lab.tick(number.try_into().expect("an octet")),
        (24..32, _) => {
            let refusal = |_| Some(ControlError::KeyInUse);
            lab.plane.refusals = (0..number % 4).map(refusal).collect();
        }
        (32..40, _) => {
            let groups: Vec<_> = lab.plane.bundles.iter().flat_map(|(_, list)| list).collect();
            let group = groups.first().map_or(culvert_spd::Group(rest[0].into()), |group| **group);
            lab.wants(group, packet());
        }
        (40..44, _) => lab.service.remind(&mut lab.plane),
        _ => {
            let mut datagram = changed(&FRAMES, rest);
            let len = u32::try_from(datagram.len()).expect("a short datagram");
            if let Some(field) = datagram.get_mut(..4) {
                field.copy_from_slice(&len.to_ne_bytes());
            }
            ask(lab, &datagram);
        }
    }
    lab.service.settle(&mut lab.plane);
    lab.assert_whole();
}

/// Whatever is asked: nothing panics, every index leads somewhere, the data plane has the SAs that
/// are known here and no others, a journal of it all leads to the same policies, and a flush leaves
/// nothing.
#[test]
fn keying_requests() {
    target!().for_each(|input: &[u8]| {
        let mut lab = Lab::new();
        let mut written = Vec::new();
        for octets in input.as_chunks::<STEP>().0 {
            step(&mut lab, octets);
            let entries = lab.events();
            written.extend(entries.iter().filter_map(journal::entry).flat_map(|one| one.to_vec()));
        }
        let (_, policies) = lab.service.counts();
        let mut lost = Vec::new();
        let whole = lab.service.journal();
        for octets in [&written, &*whole] {
            let mut again = Service::new(Policies::new(), Scope::default());
            again.restore(octets, lab.now);
            assert_eq!(again.counts(), (0, policies));
            lost.push(again.lost());
        }
        assert_eq!(lost[0], lost[1]);
        lab.ok(Body::FlushSa(SaFlush::default(), none()));
        assert_eq!((lab.count(), lab.plane.specs.len()), (0, 0));
    });
}
