//! Offloads of an interface turned off, as `ethtool -K` does, by the kernel's ethtool netlink
//! family: a machine need not have that command, and no ioctl means no unsafe code.
//!
//! One request and its acknowledgement, encoded by hand; the numbers are those of
//! `linux/genetlink.h` and `linux/ethtool_netlink.h`.

use std::os::fd::AsRawFd;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::NetlinkAddr;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockProtocol;
use nix::sys::socket::SockType;
use nix::sys::socket::recv;
use nix::sys::socket::sendto;
use nix::sys::socket::socket;

use super::namespaces::Ns;

/// What makes a sender hand over packets without checksums, or many packets as one.
pub const OF_SENDERS: [&str; 7] = [
    "tx-checksum-ip-generic",
    "tx-checksum-sctp",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-generic-segmentation",
];

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER_LEN: usize = 20;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Turns off features of an interface, by the names of `ethtool -k` or the kernel's.
///
/// # Errors
/// When the interface or a feature is unknown.
pub fn turn_off(ns: &Ns, interface: &str, features: &[&str]) -> Result<()> {
    ns.run(|| turn_off_here(interface, features))?
        .with_context(|| format!("{}: {interface}: cannot turn off {features:?}", ns.name()))
}

/// In the namespace of the calling thread.
fn turn_off_here(interface: &str, features: &[&str]) -> Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let reply = ask(&socket, &message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name))?;
    let family = find(&reply, CTRL_ATTR_FAMILY_ID)
        .and_then(|value| value.first_chunk())
        .map(|value| u16::from_ne_bytes(*value))
        .context("the kernel does not know the ethtool netlink family")?;
    // A bit that is named without a value is to be off; bits not named stay as they are.
    let bits: Vec<u8> = features
        .iter()
        .flat_map(|feature| {
            nested(ETHTOOL_A_BITSET_BITS_BIT, &text(ETHTOOL_A_BITSET_BIT_NAME, feature))
        })
        .collect();
    let header = nested(ETHTOOL_A_FEATURES_HEADER, &text(ETHTOOL_A_HEADER_DEV_NAME, interface));
    let wanted = nested(ETHTOOL_A_FEATURES_WANTED, &nested(ETHTOOL_A_BITSET_BITS, &bits));
    ask(&socket, &message(family, ETHTOOL_MSG_FEATURES_SET, &[header, wanted].concat()))?;
    Ok(())
}

/// Sends a request and reads until its acknowledgement; returns the attributes of the last reply.
fn ask(socket: &impl AsRawFd, request: &[u8]) -> Result<Vec<u8>> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), request, &kernel, MsgFlags::empty())?;
    let mut reply = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = split_message(rest) {
            if kind == NLMSG_ERROR {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 {
                    bail!(Errno::from_raw(-code));
                }
                return Ok(reply);
            }
            // Behind the generic netlink header.
            reply = body.get(4..).unwrap_or_default().to_vec();
            rest = next;
        }
    }
}

/// Type and body of the first message, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of an attribute.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// A generic netlink request that is acknowledged.
fn message(family: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_LEN + attributes.len()).expect("small requests");
    let mut message = Vec::with_capacity(HEADER_LEN + attributes.len());
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("small attributes");
    let mut attribute = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    attribute.extend(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(usize::from(length).next_multiple_of(4), 0);
    attribute
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::capture::Capture;
    use crate::lab::capture::Class;
    use crate::lab::link::End;
    use crate::lab::link::Link;
    use crate::lab::namespaces::tests::laboratory;
    use crate::lab::traffic::UdpStream;

    /// The checksum of a captured IPv4 UDP datagram with its pseudo header: 0 when it is right.
    fn udp_checksum(frame: &[u8]) -> u16 {
        let datagram = &frame[34..];
        let mut bytes = [&frame[26..34], &[0, 17], &frame[38..40], datagram].concat();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum = words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded")
    }

    /// A veth leaves checksums to the other end, until its offloads are turned off. Unknown
    /// features and unknown interfaces are refused.
    #[test]
    fn veth_offloads_are_turned_off() {
        let Some(mut lab) = laboratory() else { return };
        let (a, b) = (lab.add("a").expect("a"), lab.add("b").expect("b"));
        let left = End::new(&a, "lan0", &["10.1.0.1/24"]);
        let right = End::new(&b, "lan1", &["10.1.0.2/24"]);
        Link::default().connect(&left, &right).expect("connect");
        let right_checksums = || {
            let capture = Capture::start(&b, "lan1", 1000).expect("capture");
            let destination = "10.1.0.2:9000".parse().expect("an address");
            let stream = UdpStream { count: 10, ..UdpStream::new(destination) };
            assert_eq!(stream.run(&a, &b).expect("stream").received, 10);
            assert!(
                capture.wait(Duration::from_secs(5), |counts| counts.total() >= 10).expect("wait")
            );
            let frames = capture.frames(Class::Other);
            frames.iter().filter(|frame| frame[23] == 17 && udp_checksum(frame) == 0).count()
        };
        assert_eq!(right_checksums(), 0);
        turn_off(&a, "lan0", &OF_SENDERS).expect("turn off");
        assert_eq!(right_checksums(), 10);
        let error = turn_off(&a, "lan0", &["tx-wings"]).expect_err("no such feature");
        assert!(format!("{error:#}").contains("tx-wings"), "{error:#}");
        let error = turn_off(&a, "lan7", &OF_SENDERS).expect_err("no such interface");
        assert!(format!("{error:#}").contains("ENODEV"), "{error:#}");
    }
}
