//! Another codec, `netlink-packet-xfrm`, finds the same in the same octets.

mod common;

use std::collections::BTreeMap;
use std::panic;

use culvert_xfrm::header::Kind;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_xfrm::XfrmMessage;
use proptest::strategy::Strategy as _;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// What the other one writes after it has read `octets`; nothing where it refuses or panics, as it
/// does with lengths that are no multiple of four, and with dumps.
fn rewritten(octets: &[u8]) -> Option<Vec<u8>> {
    let rewrite = || {
        let message = NetlinkMessage::<XfrmMessage>::deserialize(octets).ok()?;
        let mut written = vec![0; message.buffer_len()];
        message.serialize(&mut written);
        Some(written)
    };
    panic::catch_unwind(rewrite).ok().flatten()
}

/// Of any messages, those that the other codec can handle are written by it as they were, and there
/// are some of every kind but three.
#[test]
fn another_codec_agrees() {
    panic::set_hook(Box::new(|_| {}));
    let mut runner = TestRunner::deterministic();
    let mut agreed = BTreeMap::<Kind, u32>::new();
    for _ in 0..1500 {
        let message = common::message().new_tree(&mut runner).expect("a message").current();
        let octets = message.to_octets();
        let Some(mut written) = rewritten(&octets) else {
            continue;
        };
        // The other one leaves away padding at the end.
        written.resize(octets.len(), 0);
        assert_eq!(hex::encode(&written[16..]), hex::encode(&octets[16..]), "{message:?}");
        *agreed.entry(message.body.kind()).or_default() += 1;
    }
    let kinds = (0x10..=0x28).map(Kind).filter(|kind| !agreed.contains_key(kind));
    let never = [Kind::FLUSHSA, Kind::SETDEFAULT, Kind::GETDEFAULT];
    assert_eq!(kinds.collect::<Vec<_>>(), never);
}
