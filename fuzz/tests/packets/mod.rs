//! Genuine packets that inputs change.

use std::net::IpAddr;
use std::sync::LazyLock;

use culvert_wire::icmp;
use culvert_wire::icmp::ErrorKind;

/// Frames of the unprotected side: ESP, ESP in UDP, IKE, keepalives, fragments, other things.
#[allow(dead_code)]
pub(crate) fn frames() -> &'static [Vec<u8>] {
    static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let mut frames: Vec<Vec<u8>> = ip().iter().map(|packet| framed(packet, None)).collect();
        frames.push(framed(&v4(50, 0, &esp()), Some(7)));
        frames.push(framed(&v6(17, &udp(4500, &esp())), Some(4095)));
        frames
    });
    &FRAMES
}

/// IP packets of both families, whole and in fragments, with options and extension headers.
#[allow(dead_code)]
pub(crate) fn ip() -> &'static [Vec<u8>] {
    static IP: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let tcp = [&[0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 0][..], &[0; 4]];
        let tcp = [&tcp.concat()[..], &[2, 4, 5, 180]].concat();
        let hop_by_hop = [50, 0, 5, 2, 0, 0, 1, 0];
        let fragment = [50, 0, 0, 1, 0, 0, 0, 9];
        let later = [17, 0, 0x05, 0xb0, 0, 0, 0, 9];
        let routing = [51, 2, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        vec![
            v4(50, 0, &esp()),
            v6(50, &esp()),
            v4(17, 0, &udp(4500, &esp())),
            v6(17, &udp(4500, &esp())),
            v4(17, 0, &udp(4500, &[0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])),
            v4(17, 0, &udp(4500, &[0xff])),
            v4(17, 0, &udp(4500, &[1, 2, 3, 4, 5])),
            v6(17, &udp(4500, &[0, 0, 0, 0, 1])),
            v4(17, 0, &udp(53, &[7; 20])),
            v4(6, 0, &tcp),
            v6(6, &tcp),
            v4(51, 0, &ah(4)),
            v6(51, &ah(41)),
            v4(50, 0x2000, &esp()),
            v4(50, 0x00b9, &esp()),
            v4(17, 0x2000, &udp(4500, &esp())),
            v6(44, &[&fragment[..], &esp()].concat()),
            v6(44, &[&later[..], &[7; 16]].concat()),
            v6(0, &[&hop_by_hop[..], &esp()].concat()),
            v6(43, &[&routing[..], &ah(6)].concat()),
            v6(60, &[&hop_by_hop[..], &esp()].concat()),
            with_options(&[7, 7, 4, 0, 0, 0, 0, 0, 148, 4, 0, 0]),
            bad_error(3, 4),
            too_big(&v4(50, 0, &esp())),
            too_big(&v4(17, 0, &udp(4500, &esp()))),
            too_big(&v6(51, &ah(6))),
            too_big(&v6(0, &[&hop_by_hop[..], &esp()].concat())),
            too_big(&v6(17, &udp(4500, &esp()))),
            v6(58, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &v6(50, &esp())].concat()),
            v4(1, 0, &[8, 0, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9]),
            v4(4, 0, &v4(17, 0, &udp(53, &[1; 12]))),
        ]
    });
    &IP
}

/// UDP datagrams.
#[allow(dead_code)]
pub(crate) fn datagrams() -> &'static [Vec<u8>] {
    static DATAGRAMS: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| vec![udp(4500, &esp()), udp(53, &[]), udp(4500, &[0xff])]);
    &DATAGRAMS
}

fn esp() -> Vec<u8> {
    [&0xaabb_ccdd_u32.to_be_bytes()[..], &42_u32.to_be_bytes(), &[0x5a; 48]].concat()
}

fn ah(next: u8) -> Vec<u8> {
    let header = [next, 4, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 42];
    [&header[..], &[0x5a; 12], &[9; 24]].concat()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("a short payload");
    let port = port.to_be_bytes();
    [&port[..], &port, &len.to_be_bytes(), &[0, 0], payload].concat()
}

fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [len, fragment] =
        [u16::try_from(20 + payload.len()).unwrap(), fragment].map(u16::to_be_bytes);
    let header = [0x45, 0, len[0], len[1], 0, 9, fragment[0], fragment[1], 64, protocol, 0, 0];
    let mut packet = [&header[..], &[192, 168, 1, 1], &[192, 168, 2, 1], payload].concat();
    culvert_fuzz::repair(&mut packet, 0);
    packet
}

/// A datagram with IP options; their length is a multiple of 4.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut packet = v4(17, 0, &[options, &udp(53, &[3; 8])].concat());
    packet[0] += u8::try_from(options.len() / 4).unwrap();
    culvert_fuzz::repair(&mut packet, 0);
    packet
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let header = [0x60, 0, 0, 0, len[0], len[1], next, 64];
    [&header[..], &address(1), &address(2), payload].concat()
}

/// An ICMP error with a right checksum: `offending`, which this machine sent, was too big.
fn too_big(offending: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1280];
    let router = match offending[0] >> 4 {
        4 => IpAddr::from([192, 0, 2, 254]),
        _ => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe]),
    };
    let len = icmp::error(&mut out, ErrorKind::TooBig { mtu: 1400 }, router, offending);
    out.truncate(len.expect("an error about it may be sent"));
    out
}

/// An ICMP error without checksum that quotes ESP which this machine sent.
fn bad_error(kind: u8, code: u8) -> Vec<u8> {
    v4(1, 0, &[&[kind, code, 0, 0, 0, 0, 5, 0][..], &v4(50, 0, &esp())[..36]].concat())
}

/// An Ethernet frame, with a VLAN tag when `vlan` says so.
fn framed(packet: &[u8], vlan: Option<u16>) -> Vec<u8> {
    let link = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let tag = vlan.map_or(vec![], |vlan| [[0x81, 0], vlan.to_be_bytes()].concat());
    let kind = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&link[..], &tag, &kind, packet].concat()
}
