//! SAs with keys: found, changed, expired, mapped, flushed; and those that packets never meet.

use culvert_control::Direction as Way;
use culvert_engine::Notice;
use culvert_engine::Peer;
use culvert_esp::lifetime::ExpiryKind;
use culvert_keying::Report;
use culvert_keying::Scope;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Port;
use culvert_xfrm::event::Expire;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::sa::Encap;
use culvert_xfrm::sa::EncapType;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaInfo;

use crate::lab::*;
use crate::plane::Call;

fn encap(sport: u16, dport: u16) -> Attribute {
    let (sport, dport) = (Port(sport), Port(dport));
    Attribute::Encap(Encap { kind: EncapType::ESP_IN_UDP, sport, dport, ..Encap::default() })
}

/// Errors have the kernel's numbers, each request with its own.
#[test]
fn what_is_missing() {
    let mut lab = Lab::new();
    let sa = info(IN, 0x1000);
    assert_eq!(lab.refused(get(&sa)), Errno::ESRCH);
    assert_eq!(lab.refused(delete(&sa)), Errno::ESRCH);
    assert_eq!(lab.refused(update(sa, 1)), Errno::ESRCH);
    let expire = |hard| Body::Expire(Expire { state: sa, hard }, none());
    assert_eq!(lab.refused(expire(1)), Errno::ENOENT);
    lab.ok(allocate(sa));
    assert_eq!(lab.refused(expire(1)), Errno::EINVAL, "without keys");
    lab.ok(update(sa, 1));
    lab.told();
    lab.ok(expire(0));
    lab.ok(expire(1));
    let told = lab.told();
    let [Body::Expire(soft, _), Body::Expire(hard, _)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((soft.hard, hard.hard, lab.count()), (0, 1, 0));
}

/// UPDSA of an SA with keys changes limits and ports; its key and numbers stay, and it is not
/// installed anew.
#[test]
fn an_update_changes_limits_and_ports_alone() {
    let mut lab = Lab::new();
    let sa = info(OUT, 0x2000);
    let with = |sa: SaInfo, octet, ports| {
        Body::UpdateSa(sa, Attributes(vec![key(octet), encap(4500, ports)]))
    };
    lab.ok(new_with(sa, vec![encap(4500, 4500)]));
    let (handle, _) = lab.plane.only(Way::Outbound);
    lab.calls();
    let limits =
        Limits { soft_bytes: 1000, hard_bytes: 2000, hard_age_secs: 60, ..Limits::UNLIMITED };
    lab.now += 10;
    lab.ok(with(SaInfo { limits, ..sa }, 9, 1234));
    let (same, spec) = lab.plane.only(Way::Outbound);
    assert_eq!((same, spec.lifetime.hard().bytes), (handle, Some(2000)));
    assert_eq!(spec.lifetime.soft().bytes, Some(1000));
    assert_eq!(spec.lifetime.hard().seconds, Some(60), "workers count from when it was made");
    let peer = Peer { address: PEER.parse().expect("an address"), port: 1234 };
    let calls = lab.calls();
    assert_eq!(calls[0], Call::Peer(handle, peer));
    assert!(!calls.iter().any(|call| matches!(call, Call::Add(_) | Call::Remove(_))));
    let answer = lab.ok(get(&sa));
    let [Body::NewSa(info, list)] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!(info.limits, limits);
    assert_eq!(list.alg_aead().map(|aead| aead.key.octets()[0]), Some(0), "the key stays");
    assert_eq!(list.encap().map(|encap| encap.dport.0), Some(1234));
    assert_eq!(lab.refused(update(sa, 1)), Errno::EINVAL, "without ports");
    assert_eq!(lab.refused(with(sa, 9, 500)), Errno::EINVAL, "the port of IKE");
    let answer = lab.ok(get(&sa));
    let [Body::NewSa(info, _)] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!(info.limits, limits, "refused means unchanged");
}

/// An SA that goes on where another ended has what is left of the limits, after an update too.
#[test]
fn limits_count_from_the_beginning() {
    let mut lab = Lab::new();
    let limits = Limits { hard_bytes: 1000, hard_age_secs: 100, ..Limits::UNLIMITED };
    let sa = SaInfo { limits, ..info(OUT, 0x2000) };
    let usage = Usage { bytes: 400, packets: 4, add_time: lab.now - 30, use_time: 0 };
    lab.ok(new_with(sa, vec![Attribute::Usage(usage)]));
    let hard = |lab: &Lab| lab.plane.only(Way::Outbound).1.lifetime.hard();
    assert_eq!((hard(&lab).seconds, hard(&lab).bytes), (Some(70), Some(600)));
    lab.now += 20;
    lab.ok(update(sa, 0));
    assert_eq!((hard(&lab).seconds, hard(&lab).bytes), (Some(70), Some(600)));
}

/// P17: A soft limit is told once, until limits are set anew; a hard one ends the SA.
#[test]
fn limits_are_told_once() {
    let mut lab = Lab::new();
    let limits = Limits { soft_bytes: 1000, hard_bytes: 2000, ..Limits::UNLIMITED };
    let sa = SaInfo { limits, ..info(OUT, 0x2000) };
    lab.ok(new(sa, 1));
    let (handle, _) = lab.plane.only(Way::Outbound);
    let report = Report { packets: 3, bytes: 1100, sequence: 3, ..Report::default() };
    lab.plane.reports.insert(handle, report);
    lab.told();
    lab.expires(handle, ExpiryKind::Soft);
    lab.expires(handle, ExpiryKind::Soft);
    let told = lab.told();
    let [Body::Expire(expire, _)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((expire.hard, expire.state.usage.bytes, expire.state.reqid), (0, 1100, 1));
    lab.service.remind(&mut lab.plane);
    assert_eq!(lab.told().len(), 1, "who may have missed it is reminded");
    lab.ok(update(sa, 1));
    lab.told();
    lab.expires(handle, ExpiryKind::Soft);
    assert_eq!(lab.told().len(), 1);
    lab.expires(handle, ExpiryKind::Hard);
    let told = lab.told();
    let [Body::Expire(expire, _)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((expire.hard, lab.count(), lab.plane.specs.len()), (1, 0, 0));
    lab.expires(handle, ExpiryKind::Hard);
    assert_eq!(lab.told(), []);
}

/// A soft EXPIRE of a client does not make us silent when the limit itself is reached.
#[test]
fn a_clients_expire_is_not_a_limit() {
    let mut lab = Lab::new();
    lab.ok(new(info(OUT, 0x2000), 1));
    let (handle, _) = lab.plane.only(Way::Outbound);
    lab.ok(Body::Expire(Expire { state: info(OUT, 0x2000), hard: 0 }, none()));
    lab.told();
    lab.expires(handle, ExpiryKind::Soft);
    assert_eq!(lab.told().len(), 1);
}

/// U10: An authentic packet from elsewhere is told to IKE, if the SA is encapsulated.
#[test]
fn a_mapping_is_told() {
    let mut lab = Lab::new();
    lab.ok(new_with(info(IN, 0x1000), vec![encap(4500, 4500)]));
    let (handle, _) = lab.plane.only(Way::Inbound);
    lab.told();
    let peer = |text: &str, port| Peer { address: text.parse().expect("an address"), port };
    let (old, new) = (peer(PEER, 4500), peer("198.51.100.7", 31000));
    lab.notice(Some(handle), Notice::Mapping { slot: 0, spi: 0x1000, old, new });
    let told = lab.told();
    let [Body::Mapping(mapping, _)] = told.as_slice() else { panic!("{told:?}") };
    let old_ip: std::net::IpAddr = PEER.parse().expect("an address");
    assert_eq!((mapping.old_saddr, mapping.old_sport.0), (old_ip.into(), 4500));
    assert_eq!((mapping.new_saddr, mapping.new_sport.0), (new.address.into(), 31000));
    assert_eq!((mapping.id, mapping.reqid), (id(&info(IN, 0x1000)), 1));
}

/// What an SA is for says its direction, or else its addresses, or else it is for both.
#[test]
fn directions_follow_addresses() {
    let mut lab = Lab::new();
    lab.ok(new(info(IN, 0x1000), 1));
    lab.ok(new(info(OUT, 0x2000), 2));
    assert_eq!(lab.plane.spis(Way::Inbound), [0x1000]);
    assert_eq!(lab.plane.spis(Way::Outbound), [0x2000]);
    lab.ok(new(info("203.0.113.1 203.0.113.2", 0x3000), 3));
    assert_eq!(lab.plane.spis(Way::Inbound), [0x1000, 0x3000]);
    assert_eq!(lab.plane.spis(Way::Outbound), [0x2000, 0x3000]);
    lab.ok(allocate(info(OUT, 0x4000)));
    lab.ok(update(info(OUT, 0x4000), 4));
    assert_eq!(lab.plane.spis(Way::Outbound), [0x2000, 0x3000, 0x4000]);
    lab.ok(allocate(info("203.0.113.1 203.0.113.2", 0x5000)));
    lab.ok(update(info("203.0.113.1 203.0.113.2", 0x5000), 5));
    assert_eq!(lab.plane.spis(Way::Inbound), [0x1000, 0x3000, 0x5000], "what had an SPI receives");
    assert_eq!(lab.plane.spis(Way::Outbound), [0x2000, 0x3000, 0x4000]);
}

/// SAs for other marks or interfaces are kept and found by them, and not installed.
#[test]
fn what_is_out_of_scope_is_kept() {
    let mut lab = Lab::with_scope(Scope { mark: 0x11, if_id: 0 });
    let mark = |value, mask| Attribute::Mark(Mark { value, mask });
    let sa = info(IN, 0x1000);
    lab.ok(new_with(sa, vec![mark(0x20, 0xff)]));
    lab.ok(new_with(SaInfo { reqid: 2, ..sa }, vec![mark(0x11, 0xff)]));
    lab.ok(new_with(info(IN, 0x1001), vec![Attribute::IfId(4)]));
    assert_eq!((lab.count(), lab.plane.spis(Way::Inbound)), (3, vec![0x1000]));
    let by = |value| Body::GetSa(id(&sa), Attributes(vec![mark(value, 0xff)]));
    let reqid = |answer: Vec<Body>| match answer.as_slice() {
        [Body::NewSa(info, _)] => info.reqid,
        other => panic!("{other:?}"),
    };
    assert_eq!(reqid(lab.ok(by(0x20))), 1);
    assert_eq!(reqid(lab.ok(by(0x11))), 2);
    assert_eq!(lab.refused(by(0x30)), Errno::ESRCH);
    assert_eq!(lab.refused(get(&sa)), Errno::ESRCH);
    lab.ok(new_with(SaInfo { reqid: 3, ..sa }, vec![mark(0, 1)]));
    assert_eq!(reqid(lab.ok(by(0x20))), 3, "the latest that fits, as in the kernel");
}

/// FLUSHSA takes all away, and is told if there were any.
#[test]
fn a_flush_leaves_nothing() {
    let mut lab = Lab::new();
    tunnel_policies(&mut lab);
    for spi in 0x1000..0x1010 {
        lab.ok(new(info(IN, spi), spi.to_le_bytes()[0]));
        lab.ok(new(info(OUT, spi), spi.to_le_bytes()[0] | 0x80));
    }
    assert_eq!(lab.plane.specs.len(), 32);
    lab.ok(Body::FlushSa(SaFlush { proto: 51 }, none()));
    assert_eq!(lab.count(), 32, "not of AH");
    lab.ok(Body::FlushSa(SaFlush { proto: 255 }, none()));
    assert_eq!((lab.count(), lab.plane.specs.len()), (0, 0));
    assert_eq!(lab.sends(&packet()), None);
}

/// What the data plane refuses leaves nothing behind, in whichever direction.
#[test]
fn a_refused_sa_leaves_nothing() {
    let mut lab = Lab::new();
    let full = || Some(culvert_control::ControlError::Full(4));
    let both = info("203.0.113.1 203.0.113.2", 0x3000);
    lab.plane.refusals = vec![full(), None];
    assert_eq!(lab.refused(new(both, 1)), Errno::ENOBUFS, "the second direction");
    assert_eq!((lab.count(), lab.plane.specs.len(), lab.told().len()), (0, 0, 0));
    lab.ok(allocate(info(IN, 0x1000)));
    lab.plane.refusals = vec![full()];
    assert_eq!(lab.refused(update(info(IN, 0x1000), 1)), Errno::ENOBUFS);
    assert_eq!(lab.count(), 1, "still larval");
    lab.ok(update(info(IN, 0x1000), 1));
}

/// Answers have less than 4096 octets, whatever unknown attributes were sent.
#[test]
fn answers_are_short() {
    let mut lab = Lab::new();
    let unknown = |kind| {
        let octets = vec![7; 300].as_slice().into();
        Attribute::Unknown(culvert_xfrm::attribute::Unknown { kind, octets })
    };
    lab.ok(new_with(info(IN, 0x1000), (100..130).map(unknown).collect()));
    let answer = lab.ok(get(&info(IN, 0x1000))).remove(0);
    let message = culvert_xfrm::Message { flags: 0, seq: 0, port: 0, body: answer };
    let len = message.to_octets().len();
    assert!((900..culvert_xfrm::message::ANSWER_LEN_MAX).contains(&len), "{len}");
}
