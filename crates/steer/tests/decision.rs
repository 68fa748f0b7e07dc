//! The pure decision: the table of fixtures, and agreement with a reference that was written
//! without looking at the implementation's structure, on bytes that resemble frames and on bytes
//! that do not.

mod fixtures;
mod reference;

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use culvert_steer::Class;
use culvert_steer::Counter;
use fixtures::Case;
use fixtures::Memory;
use fixtures::Side;

/// The memory of a side that received these frames.
fn remembering(case: &Case) -> Memory {
    let mut memory = Memory::default();
    for frame in &case.before {
        let _ = case.side.decide(frame, &mut memory);
    }
    memory
}

/// Every fixture gets its class and goes where it must.
#[test]
fn fixtures_get_their_class() {
    for case in fixtures::cases() {
        let decision = case.side.decide(&case.frame, &mut remembering(&case));
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

/// Every counter has its row in the document, with where its frames go, and there is no other row.
#[test]
fn counters_are_documented() {
    let document = include_str!("../../../docs/counters.md");
    let (_, section) = document.split_once("\n## Steering\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for counter in Counter::ALL {
        let target = match counter {
            Counter::Class(class) if class.is_for_engine() => "engine",
            Counter::Class(_) => "kernel",
            _ => "",
        };
        let row = format!("\n| `{}` | {target} | ", counter.name()).replace("|  |", "| |");
        assert_eq!(section.matches(&row).count(), 1, "{}", counter.name());
    }
    assert_eq!(section.matches("\n| `").count(), Counter::ALL.len());
}

/// The fixtures that a statement is about: each is there with this class.
fn assert_classes(expected: &[(&str, Class)]) {
    let cases = fixtures::cases();
    for (name, class) in expected {
        let case = cases.iter().find(|case| case.name == *name).expect(name);
        let decision = case.side.decide(&case.frame, &mut remembering(case));
        assert_eq!(decision.class, *class, "{name}");
    }
}

/// U03: with UDP checksum 0, right or wrong, IKE stays with the kernel and ESP is the engine's.
#[test]
fn udp_checksums_do_not_steer() {
    assert!(!Class::Ike.is_for_engine());
    assert!(Class::UdpEsp4.is_for_engine() && Class::UdpEsp6.is_for_engine());
    assert_classes(&[
        ("ike in v4, checksum 0", Class::Ike),
        ("ike in v4, checksum right", Class::Ike),
        ("ike in v4, checksum wrong", Class::Ike),
        ("ike in v6, checksum 0", Class::Ike),
        ("ike in v6, checksum right", Class::Ike),
        ("ike in v6, checksum wrong", Class::Ike),
        ("udp esp in v4, checksum 0", Class::UdpEsp4),
        ("udp esp in v4, checksum right", Class::UdpEsp4),
        ("udp esp in v4, checksum wrong", Class::UdpEsp4),
        ("udp esp in v6, checksum 0", Class::UdpEsp6),
        ("udp esp in v6, checksum right", Class::UdpEsp6),
        ("udp esp in v6, checksum wrong", Class::UdpEsp6),
    ]);
}

/// U04: the non-ESP marker is what tells IKE from ESP, behind extension headers and in first
/// fragments as well.
#[test]
fn the_marker_keeps_ike_with_the_kernel() {
    assert!(!Class::Ike.is_for_engine() && !Class::Fragment.is_for_engine());
    assert_classes(&[
        ("ike in v4", Class::Ike),
        ("ike in v6", Class::Ike),
        ("ike, marker only", Class::Ike),
        ("v6 hop-by-hop, ike", Class::Ike),
        ("own address of policy, ike", Class::Ike),
        ("first fragment of ike", Class::Fragment),
        ("last fragment of ike", Class::Fragment),
        ("v6 first fragment of ike", Class::Fragment),
        ("udp esp in v4", Class::UdpEsp4),
        ("udp esp in v6", Class::UdpEsp6),
        ("four octets", Class::Runt),
        ("last fragment of udp esp", Class::IpsecFragment),
    ]);
}

/// U05: the one octet 0xFF is a keepalive, and never the engine's business.
#[test]
fn keepalives_stay_with_the_kernel() {
    assert!(!Class::Keepalive.is_for_engine());
    assert_classes(&[
        ("keepalive in v4", Class::Keepalive),
        ("keepalive in v4, padded", Class::Keepalive),
        ("keepalive in v6", Class::Keepalive),
        ("keepalive, checksum right", Class::Keepalive),
        ("keepalive, checksum wrong", Class::Keepalive),
        ("own address, keepalive", Class::Keepalive),
        ("one octet, no keepalive", Class::Runt),
        ("two octets 0xff", Class::Runt),
    ]);
}

/// P11: plaintext to a destination that inbound policy protects does not pass by the engine,
/// whatever it carries and however it is cut; what is addressed elsewhere does.
#[test]
fn plaintext_to_protected_destinations_is_the_engines() {
    let inbound = [Side::UnprotectedSome, Side::UnprotectedAll];
    let inside4 = [10, 2, 3, 4];
    let inside6 = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
    for case in fixtures::cases() {
        let (at, destination) = match case.frame.get(12..15) {
            Some([8, 0, 0x45..=0x4f]) => (30, &inside4[..]),
            Some([0x86, 0xdd, 0x60..=0x6f]) => (38, &inside6[..]),
            _ => continue,
        };
        let mut frame = case.frame.clone();
        let Some(field) = frame.get_mut(at..at + destination.len()) else { continue };
        field.copy_from_slice(destination);
        for length in at + destination.len()..=frame.len() {
            for side in inbound {
                let decision = side.decide(&frame[..length], &mut Memory::default());
                assert!(decision.redirect(), "{} at {length}, {side:?}", case.name);
            }
        }
    }
    assert_classes(&[
        ("plain v4 tcp", Class::Plain4),
        ("plain v4 ike", Class::Plain4),
        ("plain v4 last fragment", Class::Plain4),
        ("plain v6 behind nine headers", Class::Plain6),
        ("plain v4 elsewhere", Class::Other),
        ("plain v6 elsewhere", Class::Other),
    ]);
}

/// Asserts that the decision on `side` and the reference agree about the frame after others.
fn assert_agree(side: Side, before: &[Vec<u8>], frame: &[u8]) {
    let mut memory = Memory::default();
    let mut known = BTreeSet::new();
    for (number, frame) in before.iter().map(Vec::as_slice).chain([frame]).enumerate() {
        let class = side.decide(frame, &mut memory).class;
        let expected = reference::class(side, frame, &mut known);
        assert_eq!(class, expected, "{side:?}, frame {number}: {frame:02x?}");
    }
}

/// Every truncation of every fixture, on every side, agrees with the reference.
#[test]
fn truncations_agree_with_the_reference() {
    for case in fixtures::cases() {
        for length in 0..=case.frame.len() {
            for side in Side::ALL {
                assert_agree(side, &case.before, &case.frame[..length]);
            }
        }
    }
}

/// A cut frame may only lose its class to `Short`, or to a shorter view of the same decision.
/// Under inbound policy it may lose what made it IKE, and a quotation its marker.
#[test]
fn truncation_never_attracts_a_frame() {
    let stays = |case: &Case| {
        !case.to_engine
            && case.class != Class::Short
            && !matches!(case.side, Side::UnprotectedSome | Side::UnprotectedAll)
            && !case.name.contains("too big about ike")
    };
    for case in fixtures::cases().into_iter().filter(stays) {
        for length in 0..case.frame.len() {
            let decision = case.side.decide(&case.frame[..length], &mut remembering(&case));
            assert!(!decision.redirect(), "{}", case.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No bytes make the decision panic, and it agrees with the reference.
    #[test]
    fn arbitrary_bytes_agree(frame in vec(any::<u8>(), 0..128)) {
        for side in Side::ALL {
            assert_agree(side, &[], &frame);
        }
    }

    /// Fixtures with octets changed and the end cut off or extended agree, too.
    #[test]
    fn mutated_fixtures_agree(
        chosen in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        length in 0_usize..240,
    ) {
        let cases = fixtures::cases();
        let Case { before, mut frame, .. } = cases[chosen.index(cases.len())].clone();
        for (at, octet) in changes {
            let at = at.index(frame.len());
            frame[at] = octet;
        }
        if length < 120 {
            frame.resize(length, 0xa5);
        }
        for side in Side::ALL {
            assert_agree(side, &before, &frame);
        }
    }
}
