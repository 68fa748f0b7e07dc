//! Port 4500: ESP in UDP, IKE, keepalives and runts (RFC 3948).

use std::net::IpAddr;

use culvert_sim::plain::ip_packet;
use culvert_wire::checksum;
use culvert_wire::ip;

use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::config;
use crate::packets::datagram;
use crate::packets::policy;
use crate::packets::text;
use crate::packets::unwrapped;
use crate::support::Run;
use crate::support::replay;

fn encapsulated(six: bool) -> Sa {
    Sa { six, encapsulated: true, ..Sa::inbound() }
}

#[track_caller]
fn receive(sa: &Sa, packets: &[Vec<u8>]) -> Run {
    replay(&config(std::slice::from_ref(sa)), &[], packets)
}

/// An IP packet of the SA's endpoints around a datagram.
fn around(sa: &Sa, datagram: &[u8]) -> Vec<u8> {
    let (source, destination) = sa.outer();
    ip_packet(source, destination, ip::PROTOCOL_UDP, datagram)
}

/// The right checksum of a datagram between the endpoints.
fn right_checksum(sa: &Sa, datagram: &[u8]) -> u16 {
    let len = u16::try_from(datagram.len()).unwrap();
    let pseudo = match sa.outer() {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum::pseudo_header_v4(source, destination, ip::PROTOCOL_UDP, len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::pseudo_header_v6(source, destination, ip::PROTOCOL_UDP, len.into())
        }
        _ => panic!("endpoints of one family"),
    };
    match !checksum::add(pseudo, checksum::sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    }
}

/// The datagram without a checksum, with the right one, and with a wrong one.
fn with_checksums(sa: &Sa, datagram: &[u8]) -> [Vec<u8>; 3] {
    let right = right_checksum(sa, datagram);
    [0, right, right ^ 0x0101].map(|sum| {
        let mut datagram = datagram.to_vec();
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        around(sa, &datagram)
    })
}

/// Sent over IPv4 the checksum is zero, over IPv6 it is right; ports and length are those of the
/// SA and the packet. // U01 U02
#[test]
fn checksums_as_sent() {
    for six in [false, true] {
        let sa = Sa { six, encapsulated: true, ..Sa::outbound() };
        let packets: Vec<_> = (0..50).map(|id| sa.plain(id % 2 == 1, id).packet()).collect();
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        run.assert_all("forward");
        for (_, sent) in &run.unprotected {
            let (outer, _) = unwrapped(sent);
            let datagram = &sent[outer.upper_at()..];
            assert_eq!(datagram[..4], [0x11, 0x94, 0x11, 0x94]);
            let len = u16::try_from(datagram.len()).unwrap();
            assert_eq!(datagram[4..6], len.to_be_bytes());
            let mut blank = datagram.to_vec();
            blank[6..8].fill(0);
            let expected = if six { right_checksum(&sa, &blank) } else { 0 };
            assert_eq!(datagram[6..8], expected.to_be_bytes());
        }
    }
}

/// ESP is accepted and IKE recognised whatever the UDP checksum says. // U03 U04
#[test]
fn received_checksums_do_not_matter() {
    for six in [false, true] {
        let sa = encapsulated(six);
        let mut packets = Vec::new();
        for seq in 1..=3 {
            let esp = sa.seal(seq, &text(&sa.plain(six, 1).packet(), if six { 41 } else { 4 }));
            let all = with_checksums(&sa, &datagram(4500, &esp));
            packets.push(all[usize::try_from(seq).unwrap() - 1].clone());
        }
        let ike = [&[0; 4][..], &[0x11; 40]].concat();
        packets.extend(with_checksums(&sa, &datagram(4500, &ike)));
        let run = receive(&sa, &packets);
        let (esp, ike) = ("forward", "punt");
        assert_eq!(run.outcomes(), [esp, esp, esp, ike, ike, ike]);
    }
}

/// IKE is what starts with the non-ESP marker, and goes to the kernel with everything that is not
/// for port 4500. // U04
#[test]
fn what_is_not_esp_is_left_to_the_kernel() {
    let sa = encapsulated(false);
    let esp = sa.seal(1, &text(&sa.plain(false, 1).packet(), 4));
    let mut to_500 = datagram(500, &esp);
    to_500[2..4].copy_from_slice(&500_u16.to_be_bytes());
    let mut from_4500 = datagram(4500, &esp);
    from_4500[2..4].copy_from_slice(&4501_u16.to_be_bytes());
    let marker = |len: usize| datagram(500, &vec![0; len]);
    let packets = [to_500, from_4500, marker(4), marker(7), marker(8), marker(400)];
    let run = receive(&sa, &packets.map(|datagram| around(&sa, &datagram)));
    run.assert_all("punt");
    assert_eq!(run.report.sas[0].packets, 0);
}

/// A keepalive is one octet 0xFF: no error, and nothing of an SA changes. // U05
#[test]
fn keepalives_are_no_error() {
    for six in [false, true] {
        let sa = encapsulated(six);
        let run = receive(&sa, &[around(&sa, &datagram(61234, &[0xff]))]);
        run.assert_all("punt");
        assert!(run.report.drops.is_empty());
        assert_eq!((run.report.sas[0].packets, run.report.sas[0].sequence), (0, 0));
    }
}

/// What is too short for ESP and no keepalive is dropped as a runt. // U07
#[test]
fn runts_are_dropped() {
    let sa = encapsulated(false);
    let mut payloads: Vec<Vec<u8>> = (0..8).map(|len| vec![0x77; len]).collect();
    payloads.push(vec![0xff, 0xff]);
    payloads.push(vec![0xfe]);
    payloads.push(vec![0]);
    payloads.push(vec![0; 3]);
    let packets: Vec<_> =
        payloads.iter().map(|payload| around(&sa, &datagram(4500, payload))).collect();
    receive(&sa, &packets).assert_all("runt");
}

/// An SA accepts its packets raw and in UDP, from any port, however it is configured to send.
/// // U09
#[test]
fn raw_and_encapsulated_are_accepted_for_one_sa() {
    for six in [false, true] {
        let udp = encapsulated(six);
        let raw = Sa { encapsulated: false, ..udp.clone() };
        for configured in [&udp, &raw] {
            let plain = udp.plain(six, 1).packet();
            let esp = udp.seal(3, &text(&plain, if six { 41 } else { 4 }));
            let packets = [
                udp.packet(1, &plain),
                raw.packet(2, &plain),
                around(&udp, &datagram(61234, &esp)),
            ];
            let run = receive(configured, &packets);
            run.assert_all("forward");
            assert_eq!(run.protected.len(), 3);
        }
    }
}

/// A UDP length that contradicts the packet makes ESP malformed; octets behind the datagram are not
/// part of it.
#[test]
fn udp_lengths_are_checked() {
    let sa = encapsulated(false);
    let esp = sa.seal(1, &text(&sa.plain(false, 1).packet(), 4));
    let mut long = datagram(4500, &esp);
    long[5] += 1;
    let trailing = [datagram(4500, &esp), vec![0xaa; 5]].concat();
    let run = receive(&sa, &[around(&sa, &long), around(&sa, &trailing)]);
    assert_eq!(run.outcomes(), ["malformed", "forward"]);
}

/// What two clients behind one NAT have: a network that each is at, lines of the policies, and a
/// packet of each in clear.
struct Clients {
    transport: bool,
    nets: [u16; 2],
    lines: [&'static str; 2],
    packets: [(u8, u16); 2],
}

impl Clients {
    fn sas(&self, base: Sa) -> [Sa; 2] {
        [0, 1].map(|at: u8| {
            let (spi, net) = (base.spi + u32::from(at), self.nets[usize::from(at)]);
            Sa { spi, net, transport: self.transport, encapsulated: true, ..base.clone() }
        })
    }

    /// SAs of one direction, and for each client a policy, in the order of the clients.
    fn config(&self, base: &Sa) -> String {
        let mut text = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[lab]\n\
                        static_keys = true\n"
            .to_owned();
        for ((sa, lines), client) in self.sas(base.clone()).iter().zip(self.lines).zip(0..) {
            let (source, destination) = sa.networks(false);
            let name = format!("client-{client}");
            let outside = format!("destination_port = {}", 61000 + client);
            let toml = sa.toml().replace(&sa.name(), &name);
            text += &match base.direction {
                OUTBOUND => toml.replace("destination_port = 4500", &outside),
                _ => toml,
            };
            text += &policy(base.direction, &source, &destination, "protect", Some(&name));
            text += &format!("{lines}\n");
        }
        text
    }

    /// A packet of an SA's networks with the protocol and port of a client.
    fn plain(&self, sa: &Sa, client: usize) -> Vec<u8> {
        let ((source, destination), (protocol, port)) = (sa.inner(false), self.packets[client]);
        let ports = if sa.direction == OUTBOUND { [port, 9] } else { [9, port] };
        let start = ports.map(u16::to_be_bytes).concat();
        ip_packet(source, destination, protocol, &[&start[..], &[0; 20]].concat())
    }

    /// What becomes of a packet of each client, then of each client's packet sent by the other, and
    /// where the answers go: SPI and port.
    fn run(&self) -> (Vec<String>, Vec<(u32, u16)>) {
        let sas = self.sas(Sa::inbound());
        let sealed = |by: usize, of: usize, seq: u64| {
            let plain = self.plain(&sas[of], of);
            let sealed = |sa: &Sa| match self.transport {
                true => sa.transported(seq, &plain),
                false => sa.packet(seq, &plain),
            };
            sealed(&sas[by])
        };
        let packets = [sealed(0, 0, 1), sealed(1, 1, 1), sealed(0, 1, 2), sealed(1, 0, 2)];
        let run = replay(&self.config(&Sa::inbound()), &[], &packets);
        let outcomes = run.outcomes().into_iter().map(str::to_owned).collect();
        let back = self.sas(Sa::outbound());
        let answers = [0, 1].map(|client| self.plain(&back[client], client));
        let run = replay(&self.config(&Sa::outbound()), &answers, &[]);
        let sent = run.unprotected.iter().map(|(_, packet)| {
            let port = u16::from_be_bytes([packet[22], packet[23]]);
            (u32::from_be_bytes(*packet[28..].first_chunk().unwrap()), port)
        });
        (outcomes, sent.collect())
    }
}

/// U09c: two clients behind one NAT, in a tunnel at addresses of their own or both at the same one
/// (RFC 3948 section 5.1), in transport mode with selectors of their own or both with the same
/// (section 5.2): never does one get or send what is the other's; of two that are alike the first
/// in the order of policies is served and the other's packets are refused.
#[test]
fn two_clients_behind_one_nat_are_not_confused() {
    const UDP_ONLY: &str = "protocol = 'udp'";
    const TCP_ONLY: &str = "protocol = 'tcp'";
    let (dns, web) = ((17, 53), (6, 80));
    let (yes, no) = ("forward", "selector");
    let (first, second) = ((0x1001, 61000), (0x1002, 61001));
    for transport in [false, true] {
        let apart = if transport { [0, 0] } else { [0, 1] };
        let lines = if transport { [UDP_ONLY, TCP_ONLY] } else { ["", ""] };
        let distinct = Clients { transport, nets: apart, lines, packets: [dns, web] };
        let (outcomes, answers) = distinct.run();
        assert_eq!(outcomes, [yes, yes, no, no], "transport {transport}");
        assert_eq!(answers, [first, second], "transport {transport}");
        let lines = [UDP_ONLY; 2];
        let alike = Clients { transport, nets: [0, 0], lines, packets: [dns, dns] };
        let (outcomes, answers) = alike.run();
        assert_eq!(outcomes, [yes, no, yes, no], "transport {transport}");
        assert_eq!(answers, [first, first], "transport {transport}");
    }
}
