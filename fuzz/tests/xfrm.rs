//! Messages of `NETLINK_XFRM`, mostly changed from what iproute2 and the kernel sent.

use std::sync::LazyLock;

use culvert_fuzz::changed;
use culvert_fuzz::target;
use culvert_xfrm::Message;
use culvert_xfrm::message::messages;

/// Recorded frames, of which the file says which command they belong to.
static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let lines = include_str!("../../crates/xfrm/tests/frames/iproute2.txt").lines();
    let frames = lines.filter(|line| !line.starts_with('#'));
    let octets = frames.filter_map(|line| line.rsplit(' ').next());
    octets.map(|octets| hex::decode(octets).expect("hexadecimal digits")).collect()
});

/// The length of the first message, so that a change to it gets further than that.
fn repair(datagram: &mut [u8]) {
    let len = u32::try_from(datagram.len()).expect("a short datagram");
    if let Some(field) = datagram.get_mut(..4) {
        field.copy_from_slice(&len.to_ne_bytes());
    }
}

/// Messages lie inside the datagram; what is read is written, in few octets, and read as the same;
/// errors lie inside the message.
#[test]
fn xfrm_messages() {
    target!().for_each(|input: &[u8]| {
        let mut datagram = changed(&FRAMES, input);
        if input.last().is_none_or(|octet| octet % 4 != 0) {
            repair(&mut datagram);
        }
        for frame in messages(&datagram).filter_map(Result::ok) {
            assert!((16..=datagram.len()).contains(&frame.octets.len()));
            match Message::parse(frame.octets) {
                Ok(message) => {
                    let _ = message.check();
                    let written = message.to_octets();
                    // Bitmaps that were left away: of an attribute of 28 octets up to 540.
                    assert!(written.len() <= 20 * frame.octets.len());
                    let mut again = Message::parse(&written).expect("what was written");
                    again.flags = message.flags;
                    assert_eq!(again, message);
                }
                Err(malformed) => {
                    let at = malformed.at.map_or(0, |at| at as usize);
                    assert!(at < frame.octets.len());
                }
            }
        }
    });
}
