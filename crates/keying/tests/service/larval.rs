//! ALLOCSPI, and SAs that wait for their keys.

use culvert_control::Direction as Way;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SpiRequest;

use crate::lab::*;

/// A larval SA is not on the data plane; it goes after 165 seconds, and who listens is told once.
#[test]
fn a_larval_sa_times_out() {
    let mut lab = Lab::new();
    let answer = lab.ok(allocate(info(IN, 0x1000)));
    let [Body::NewSa(sa, _)] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!((sa.id.spi.0, sa.limits.hard_age_secs), (0x1000, 165));
    assert!(lab.plane.specs.is_empty());
    assert_eq!(lab.told(), []);
    lab.tick(164);
    assert_eq!((lab.count(), lab.told()), (1, vec![]));
    lab.tick(1);
    let told = lab.told();
    let [Body::Expire(expire, _)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((expire.hard, expire.state.id.spi.0, lab.count()), (1, 0x1000, 0));
    assert_eq!(lab.refused(update(info(IN, 0x1000), 1)), Errno::ESRCH);
    lab.tick(1000);
    assert_eq!(lab.told(), []);
}

/// UPDSA gives a larval SA its keys; NEWSA does not, nor for one that has them.
#[test]
fn keys_come_by_updsa() {
    let mut lab = Lab::new();
    let sa = info(IN, 0x1000);
    lab.ok(allocate(sa));
    assert_eq!(lab.refused(new(sa, 1)), Errno::EEXIST);
    lab.ok(update(sa, 1));
    let (_, spec) = lab.plane.only(Way::Inbound);
    assert_eq!((spec.spi.value(), spec.replay_window), (0x1000, 64));
    assert_eq!(lab.count(), 1);
    lab.tick(1000);
    assert_eq!(lab.count(), 1, "with keys it stays");
    assert_eq!(lab.refused(new(sa, 2)), Errno::EEXIST);
    let told = lab.told();
    assert!(matches!(told.as_slice(), [Body::UpdateSa(..)]), "{told:?}");
    lab.ok(delete(&sa));
    assert_eq!((lab.count(), lab.plane.specs.len()), (0, 0));
}

/// What a larval SA said of its direction is what its keys must say.
#[test]
fn the_direction_stays() {
    let mut lab = Lab::new();
    let sa = info(IN, 0x1000);
    let direction = |direction| Attribute::Direction(direction);
    let request = SpiRequest { info: sa, min: 0x1000, max: 0x1000 };
    let list = Attributes(vec![direction(SaDirection::IN)]);
    lab.ok(Body::AllocateSpi(request, list));
    let sa = SaInfo { replay_window: 0, ..sa };
    let list = |way| Attributes(vec![direction(way), key(1)]);
    assert_eq!(lab.refused(Body::UpdateSa(sa, list(SaDirection::OUT))), Errno::ESRCH);
    lab.ok(Body::UpdateSa(sa, list(SaDirection::IN)));
    assert_eq!(lab.refused(Body::UpdateSa(sa, list(SaDirection::OUT))), Errno::ESRCH);
    assert_eq!(lab.refused(update(sa, 1)), Errno::ESRCH);
    lab.ok(Body::UpdateSa(sa, list(SaDirection::IN)));
}

/// An SPI is given once; a range that is used up is ENOENT, and the request stays as in the kernel.
#[test]
fn spis_are_given_once() {
    let mut lab = Lab::new();
    let mut spis = Vec::new();
    for reqid in 0..16 {
        let info = SaInfo { reqid, ..info(IN, 0) };
        let request = SpiRequest { info, min: 0x100, max: 0x10f };
        let answer = lab.ok(Body::AllocateSpi(request, none()));
        let [Body::NewSa(sa, _)] = answer.as_slice() else { panic!("{answer:?}") };
        spis.push(sa.id.spi.0);
    }
    spis.sort_unstable();
    assert_eq!(spis, (0x100..0x110).collect::<Vec<_>>());
    let last = Body::AllocateSpi(
        SpiRequest { info: SaInfo { reqid: 99, ..info(IN, 0) }, min: 0x100, max: 0x10f },
        none(),
    );
    assert_eq!(lab.refused(last.clone()), Errno::ENOENT);
    assert_eq!(lab.count(), 17);
    lab.ok(delete(&info(IN, 0x104)));
    let answer = lab.ok(last);
    let [Body::NewSa(sa, _)] = answer.as_slice() else { panic!("{answer:?}") };
    assert_eq!((sa.id.spi.0, lab.count()), (0x104, 16), "the one that waited has it now");
    lab.ok(Body::FlushSa(SaFlush::default(), none()));
    assert_eq!(lab.count(), 0);
    let flushes = lab.told().into_iter().filter(|body| matches!(body, Body::FlushSa(..))).count();
    lab.ok(Body::FlushSa(SaFlush::default(), none()));
    assert_eq!((flushes, lab.told()), (1, vec![]));
}
