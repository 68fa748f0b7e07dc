//! The pure decision: the table of fixtures, and agreement with a reference that was written
//! without looking at the implementation's structure, on bytes that resemble frames and on bytes
//! that do not.

mod fixtures;

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use culvert_steer::Class;
use culvert_steer::Decision;
use fixtures::Side;

fn decide(side: Side, frame: &[u8]) -> Decision {
    match side {
        Side::Unprotected => culvert_steer::unprotected(frame),
        Side::Protected | Side::ProtectedAll => culvert_steer::protected(frame, &side.table()),
    }
}

/// Every fixture gets its class and goes where it must.
#[test]
fn fixtures_get_their_class() {
    for case in fixtures::cases() {
        let decision = decide(case.side, &case.frame);
        assert_eq!(decision.class, case.class, "{}", case.name);
        assert_eq!(decision.redirect(), case.to_engine, "{}", case.name);
    }
}

/// The table has a case for every class, and its names are distinct.
#[test]
fn fixtures_cover_every_class() {
    let cases = fixtures::cases();
    for class in Class::ALL {
        assert!(cases.iter().any(|case| case.class == class), "{}", class.name());
    }
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
}

/// Every truncation of every fixture, on every side, agrees with the reference.
#[test]
fn truncations_agree_with_the_reference() {
    for case in fixtures::cases() {
        for length in 0..=case.frame.len() {
            let frame = &case.frame[..length];
            for side in Side::ALL {
                let class = decide(side, frame).class;
                assert_eq!(class, reference(side, frame), "{} at {length}", case.name);
            }
        }
    }
}

/// A cut frame may only lose its class to `Short`, or to a shorter view of the same decision.
#[test]
fn truncation_never_attracts_a_frame() {
    for case in
        fixtures::cases().iter().filter(|case| !case.to_engine && case.class != Class::Short)
    {
        for length in 0..case.frame.len() {
            assert!(!decide(case.side, &case.frame[..length]).redirect(), "{}", case.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No bytes make the decision panic, and it agrees with the reference.
    #[test]
    fn arbitrary_bytes_agree(frame in vec(any::<u8>(), 0..128)) {
        for side in Side::ALL {
            prop_assert_eq!(decide(side, &frame).class, reference(side, &frame));
        }
    }

    /// Fixtures with octets changed and the end cut off or extended agree, too.
    #[test]
    fn mutated_fixtures_agree(
        chosen in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        length in 0_usize..140,
    ) {
        let cases = fixtures::cases();
        let mut frame = cases[chosen.index(cases.len())].frame.clone();
        for (at, octet) in changes {
            let at = at.index(frame.len());
            frame[at] = octet;
        }
        if length < 120 {
            frame.resize(length, 0xa5);
        }
        for side in Side::ALL {
            prop_assert_eq!(decide(side, &frame).class, reference(side, &frame));
        }
    }
}

/// The decision once more: the octets are taken off the front, one header after the other.
fn reference(side: Side, frame: &[u8]) -> Class {
    reference_or_short(side, frame).unwrap_or(Class::Short)
}

fn reference_or_short(side: Side, frame: &[u8]) -> Option<Class> {
    let (mac_and_type, mut rest) = frame.split_at_checked(14)?;
    let mut kind = [mac_and_type[12], mac_and_type[13]];
    if kind == [0x81, 0x00] {
        let (tag, behind) = rest.split_at_checked(4)?;
        kind = [tag[2], tag[3]];
        rest = behind;
    }
    let is_v4 = match kind {
        [0x08, 0x00] => true,
        [0x86, 0xdd] => false,
        _ => return Some(Class::Other),
    };
    let first = *rest.first()?;
    let valid = if is_v4 { (0x45..=0x4f).contains(&first) } else { first & 0xf0 == 0x60 };
    if !valid {
        return Some(Class::Malformed);
    }
    match (side, is_v4) {
        (Side::Unprotected, true) => reference_outer4(rest),
        (Side::Unprotected, false) => reference_outer6(rest),
        (_, true) => Some(reference_inner4(side, rest.get(16..20)?)),
        (_, false) => Some(reference_inner6(side, rest.get(24..40)?)),
    }
}

fn reference_outer4(packet: &[u8]) -> Option<Class> {
    let more = *packet.get(6)? & 0x20 != 0;
    let offset = u32::from(packet[6] & 0x1f) << 8 | u32::from(*packet.get(7)?);
    if more || offset > 0 {
        return Some(Class::Fragment);
    }
    match *packet.get(9)? {
        50 => Some(Class::Esp4),
        17 => {
            let words = usize::from(packet[0] - 0x40);
            reference_udp(packet.get(words * 4..)?, Class::UdpEsp4)
        }
        _ => Some(Class::Other),
    }
}

fn reference_outer6(packet: &[u8]) -> Option<Class> {
    match *packet.get(6)? {
        50 => Some(Class::Esp6),
        44 => Some(Class::Fragment),
        17 => reference_udp(packet.get(40..)?, Class::UdpEsp6),
        _ => Some(Class::Other),
    }
}

fn reference_udp(datagram: &[u8], esp: Class) -> Option<Class> {
    if datagram.get(2..4)? != 4500_u16.to_be_bytes() {
        return Some(Class::Other);
    }
    let length = datagram.get(4..6)?;
    let length = usize::from(length[0]) * 256 + usize::from(length[1]);
    let payload = |count: usize| datagram.get(8..8 + count);
    Some(match length {
        0..8 => Class::Malformed,
        8 => Class::Runt,
        9 if payload(1)? == [0xff] => Class::Keepalive,
        9..12 => Class::Runt,
        _ if payload(4)? == [0; 4] => Class::Ike,
        12..16 => Class::Runt,
        _ => esp,
    })
}

fn reference_inner4(side: Side, destination: &[u8]) -> Class {
    let special = match destination {
        [255, 255, 255, 255] => 32,
        [first, ..] if first & 0xf0 == 0xe0 => 4,
        [169, 254, _, _] => 16,
        _ => 0,
    };
    match side.table().longest(destination) {
        Some(value) if !value.is_exception() && value.bits() >= special => Class::Protected4,
        _ => Class::NotProtected,
    }
}

fn reference_inner6(side: Side, destination: &[u8]) -> Class {
    let start = u16::from_be_bytes([destination[0], destination[1]]);
    let special = match start {
        0xff00.. => 8,
        0xfe80..0xfec0 => 10,
        _ => 0,
    };
    match side.table().longest(destination) {
        Some(value) if !value.is_exception() && value.bits() >= special => Class::Protected6,
        _ => Class::NotProtected,
    }
}
