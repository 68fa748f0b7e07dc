//! Messages of any values, and octets of anybody.

mod common;

use culvert_xfrm::Errno;
use culvert_xfrm::Malformed;
use culvert_xfrm::Message;
use culvert_xfrm::Secret;
use culvert_xfrm::attribute::ATTRIBUTES_MAX;
use culvert_xfrm::error::Expected;
use culvert_xfrm::message::messages;
use proptest::prelude::*;

proptest! {
    /// What is written is read again as it was.
    #[test]
    fn any_message_is_read_as_written(message in common::message()) {
        let octets = message.to_octets();
        prop_assert!(octets.len().is_multiple_of(4));
        prop_assert_eq!(Message::parse(&octets), Ok(message));
    }

    /// Whatever a change makes of a frame, it is read or refused, and what is read is written and
    /// read as the same.
    #[test]
    fn changed_frames_are_read_or_refused(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut octets = pick.get(&common::recorded()).octets.clone();
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Ok(message) = Message::parse(&octets) {
            let _ = message.check();
            let written = message.to_octets();
            let mut again = Message::parse(&written).expect("what was written is a message");
            again.flags = message.flags;
            prop_assert_eq!(again, message);
        }
    }
}

/// Every frame cut at every octet: refused as it is; and with a length that is right for what is
/// left, read or refused.
#[test]
fn frames_cut_short_are_refused() {
    for frame in common::recorded() {
        for len in 0..frame.octets.len() {
            let mut octets = frame.octets[..len].to_vec();
            let result = Message::parse(&octets);
            let malformed = result.expect_err("a length beyond the end");
            assert_eq!(malformed.errno, Errno::EINVAL);
            if let Some(field) = octets.get_mut(..4) {
                field.copy_from_slice(&u32::try_from(len).expect("short").to_ne_bytes());
            }
            if let Ok(message) = Message::parse(&octets) {
                let _ = message.check();
                assert!(Message::parse(&message.to_octets()).is_ok());
            }
        }
    }
}

/// A frame cut inside its last attribute is refused, and the error says where.
#[test]
fn errors_say_where() {
    let mut octets = common::frame("newsa", true);
    let len = octets.len() - 1;
    octets.truncate(len);
    octets[..4].copy_from_slice(&u32::try_from(len).expect("short").to_ne_bytes());
    let malformed = Message::parse(&octets).expect_err("cut short");
    assert_eq!((malformed.field, malformed.at), ("nla_len", Some(16 + 224)));
    let expected = "nla_len: expected the length of an attribute that lies inside the message";
    assert_eq!(malformed.to_string(), expected);
    // The key says that it has one octet more than there are.
    let mut octets = common::frame("newsa", true);
    octets[16 + 224 + 4 + 64] += 8;
    let malformed = Message::parse(&octets).expect_err("a longer key");
    assert_eq!((malformed.field, malformed.at), ("XFRMA_ALG_AEAD", Some(16 + 224)));
    // A record that ends early.
    let short = [20, 0, 0, 0, 0x12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (field, expected) = ("xfrm_usersa_id", Expected::Octets(24));
    let malformed = Malformed { field, expected, errno: Errno::EINVAL, at: None };
    assert_eq!(Message::parse(&short), Err(malformed));
    assert_eq!(malformed.to_string(), "xfrm_usersa_id: expected at least 24 octets");
}

/// As many attributes as may be, and one more; zeros behind the last are padding, others are not.
#[test]
fn attributes_have_an_end() {
    let flush = |tail: &[u8]| {
        let len = u32::try_from(16 + tail.len()).expect("short").to_ne_bytes();
        let header = [len, [0x1d, 0, 5, 0], [7, 0, 0, 0], [0; 4]].concat();
        Message::parse(&[&header, tail].concat()).map_err(|malformed| malformed.at)
    };
    let one = [4, 0, 99, 0];
    assert!(flush(&one.repeat(ATTRIBUTES_MAX)).is_ok());
    let at = u32::try_from(16 + 4 * ATTRIBUTES_MAX).expect("short");
    assert_eq!(flush(&one.repeat(ATTRIBUTES_MAX + 1)), Err(Some(at)));
    assert!(flush(&[4, 0, 99, 0, 0, 0, 0, 0]).is_ok());
    assert!(flush(&[4, 0, 99, 0, 0, 0]).is_ok());
    assert_eq!(flush(&[4, 0, 99, 0, 3, 0, 0, 0]), Err(Some(20)));
    assert_eq!(flush(&[4, 0, 99, 0, 9, 0, 0, 0, 0, 0, 0, 0]), Err(Some(20)));
}

/// Several messages of a datagram, then one that is none.
#[test]
fn datagrams_hold_messages() {
    let names = ["flushsa", "getdef", "newpol"];
    let mut datagram = Vec::new();
    for name in names {
        datagram.extend(common::frame(name, true));
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }
    let kinds = |datagram: &[u8]| -> Vec<_> {
        messages(datagram).map(|frame| frame.map(|frame| frame.header.kind.0).ok()).collect()
    };
    let whole = vec![Some(0x1c), Some(0x28), Some(0x13)];
    assert_eq!(kinds(&datagram), whole);
    let last = datagram.len() - 1;
    assert_eq!(kinds(&datagram[..last]), [Some(0x1c), Some(0x28), None]);
    datagram.extend([15, 0, 0, 0]);
    assert_eq!(kinds(&datagram), [whole, vec![None]].concat());
    assert_eq!(kinds(&[]), []);
}

/// Whatever holds a key shows its length alone.
#[test]
fn keys_are_not_shown() {
    for name in ["newsa", "newsa6"] {
        for is_request in [true, false] {
            let message = Message::parse(&common::frame(name, is_request)).expect("a message");
            let shown = format!("{message:?}");
            assert!(!shown.contains("16, 17, 18, 19"), "{shown}");
            assert!(!shown.contains("17, 34, 51"), "{shown}");
            assert!(shown.contains("octets)"), "{shown}");
        }
    }
    assert_eq!(format!("{:?}", Secret::new(vec![7; 9])), "Secret(9 octets)");
}
