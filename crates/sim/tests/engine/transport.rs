//! Transport mode: every octet of it, over both families, raw and through a NAT.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_esp::Mode;
use culvert_esp::tfc::TfcPadding;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::changed;
use crate::support::gateway;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::sample;
use crate::support::through;
use crate::support::through_at;

/// An SA in transport mode between two hosts behind the gateways.
fn between_hosts(algorithm: Algorithm, six: bool) -> Tunnel {
    let outer = [A, B].map(|side| Scenario::host(side, 0, six, 5));
    let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_mode(Mode::Transport);
    Tunnel { outer, ..tunnel }
}

fn addresses(tunnel: &Tunnel) -> (IpAddr, IpAddr) {
    (tunnel.outer[A], tunnel.outer[B])
}

/// The ESP of `null-sha256` that A sends.
fn esp(tunnel: &Tunnel, seq: u32, payload: &[u8], next_header: u8) -> Vec<u8> {
    let high = tunnel.esn.then_some(0);
    null_esp((tunnel.spi[A].value(), &tunnel.keymat[A]), seq, high, (payload, next_header))
}

/// E07, E08, E10, E14, E15, E20: octets of transport mode ESP over IPv4, with and without options
/// and ESN: the header keeps all but protocol, length, TTL and checksum, and the packet comes out
/// as it went in.
#[test]
fn v4_octets() {
    for (esn, options) in [(false, vec![]), (true, vec![]), (false, vec![7, 7, 4, 0, 0, 0, 0, 0])] {
        let tunnel = Tunnel { esn, ..between_hosts(Algorithm::NullSha256, false) };
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        for (seq, len) in (1..).zip(0..9) {
            let segment = packets::udp(addresses(&tunnel), len);
            let plain = packet_with(addresses(&tunnel), &options, 17, &segment);
            let plain = with(&plain, 1, &[0xb9]);
            let sent = one(&mut a, (A, LAN), &plain);
            let esp = esp(&tunnel, seq, &segment, 17);
            let mut expected = packet_with(addresses(&tunnel), &options, 50, &esp);
            expected = hop(&with(&expected, 1, &[0xb9]));
            assert_eq!(sent, expected, "{len} octets");
            assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)), "{len} octets");
        }
    }
}

/// The options headers of IPv6: 8 octets, PadN of 4.
fn options(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A routing header of type 4 that has no segments left.
fn routing(next: u8) -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&[next, 2, 4, 0]);
    header
}

/// A fragment header of a packet that is whole.
fn atomic(next: u8) -> [u8; 8] {
    [next, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd]
}

/// First header; what stands before ESP, announcing what is inside; the same announcing ESP; what
/// is inside, and its octets in front of UDP.
type Chain = (u8, Vec<u8>, Vec<u8>, u8, Vec<u8>);

/// E18, E10: over IPv6 ESP stands behind hop-by-hop, routing and fragment headers, behind
/// destination options that precede one of them, and before those that do not.
#[test]
fn v6_extension_headers() {
    let tunnel = between_hosts(Algorithm::NullSha256, true);
    let udp = packets::udp(addresses(&tunnel), 33);
    let cases: [Chain; 6] = [
        (17, vec![], vec![], 17, vec![]),
        (0, options(17).into(), options(50).into(), 17, vec![]),
        (
            0,
            [&options(43)[..], &routing(17)].concat(),
            [&options(43)[..], &routing(50)].concat(),
            17,
            vec![],
        ),
        (60, vec![], vec![], 60, options(17).into()),
        (
            60,
            [&options(43)[..], &routing(60)].concat(),
            [&options(43)[..], &routing(50)].concat(),
            60,
            options(17).into(),
        ),
        (44, atomic(17).into(), atomic(50).into(), 17, vec![]),
    ];
    for (seq, (first, before, before_esp, inside, extra)) in (1..).zip(cases) {
        // A packet that says it is a fragment, but is whole, is put together at the receiver.
        let is_atomic = first == 44;
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let payload = [&extra[..], &udp].concat();
        let plain = packet_with(addresses(&tunnel), &before, first, &payload);
        let sent = one(&mut a, (A, LAN), &plain);
        let first_of_esp = if before.is_empty() { 50 } else { first };
        let esp = esp(&tunnel, 1, &payload, inside);
        let expected = hop(&packet_with(addresses(&tunnel), &before_esp, first_of_esp, &esp));
        assert_eq!(sent, expected, "case {seq}");
        let received = one(&mut b, (B, WAN), &sent);
        if !is_atomic {
            assert_eq!(received, hop(&hop(&plain)), "case {seq}");
        } else {
            assert!(received.ends_with(&udp));
        }
    }
}

/// E17, A07: transport mode of ESP, raw or in UDP, or of AH is never applied to a fragment of
/// either family, first or not; each is an audit event.
#[test]
fn fragments_are_refused() {
    for six in [false, true] {
        let esp = between_hosts(Algorithm::NullSha256, six);
        for tunnel in [esp.clone(), esp.with_udp(), between_hosts(Algorithm::AhSha256, six)] {
            let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
            for offset in [[0x20, 0], [0, 5], [0x20, 5]] {
                let fragment = fragment_of(addresses(&tunnel), offset);
                let fate = none(&mut a, (A, LAN), &fragment);
                assert_eq!(fate, Fate::Drop(DropReason::Fragment), "{six} {offset:?}");
                assert!(matches!(notices(&mut a)[..], [Notice::Audit(_)]));
            }
            assert_eq!(sample(&a, false).sequence, 0, "no number is spent");
            let udp = packets::udp(addresses(&tunnel), 32);
            one(&mut a, (A, LAN), &packet(addresses(&tunnel), 17, &udp));
        }
    }
}

/// A fragment of UDP with flags and offset as IPv4 has them.
fn fragment_of(addresses: (IpAddr, IpAddr), offset: [u8; 2]) -> Vec<u8> {
    let udp = packets::udp(addresses, 32);
    if addresses.0.is_ipv4() {
        return with(&packet(addresses, 17, &udp), 6, &offset);
    }
    let place = u16::from(offset[1]) << 3 | u16::from(offset[0] >> 5);
    let [high, low] = place.to_be_bytes();
    packet_with(addresses, &[17, 0, high, low, 0, 0, 0, 1], 44, &udp)
}

/// P26: transport mode is for traffic between its own endpoints.
#[test]
fn only_between_the_endpoints() {
    // P26
    let tunnel = between_hosts(Algorithm::NullSha256, false);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let mut a = changed(&scenario, A, |config| {
        let action = config.spd.outbound.last().unwrap().action;
        let any = culvert_spd::Policy::new(culvert_spd::Selector::ANY, action);
        config.spd.outbound.push(any);
    });
    let stranger = (Scenario::host(A, 0, false, 6), tunnel.outer[B]);
    let fate = none(&mut a, (A, LAN), &packet(stranger, 17, &packets::udp(stranger, 8)));
    assert_eq!(fate, Fate::Drop(DropReason::Selector));
}

/// P14: whatever became of DSCP and ECN on the way, the packet is accepted, and forwarded so.
#[test]
fn dscp_is_no_part_of_the_sa() {
    for algorithm in [Algorithm::NullSha256, Algorithm::AhSha256] {
        for six in [false, true] {
            let tunnel = between_hosts(algorithm, six);
            let scenario = Scenario::quiet(vec![tunnel.clone()]);
            let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
            let plain = packet(addresses(&tunnel), 17, &packets::udp(addresses(&tunnel), 9));
            for tos in [0x00, 0x01, 0x2d, 0xb8, 0xff] {
                let set = |packet: &[u8]| match six {
                    false => with(packet, 1, &[tos]),
                    true => with(packet, 0, &[0x60 | tos >> 4, tos << 4]),
                };
                let sent = one(&mut a, (A, LAN), &plain);
                assert_eq!(one(&mut b, (B, WAN), &set(&sent)), set(&hop(&hop(&plain))));
            }
        }
    }
}

/// The packet as a NAT sends it: from another address and port.
fn translated(packet: &[u8], address: [u8; 4], port: u16) -> Vec<u8> {
    let packet = with(packet, 12, &address);
    with(&packet, 20, &port.to_be_bytes())
}

/// U01, U02, U08: transport mode in UDP through a NAT: the datagram goes from and to port 4500 with
/// checksum 0; the receiver makes checksums of TCP and UDP follow the address that the NAT changed,
/// leaves a UDP checksum of zero alone, and ICMP, which has none of the kind.
#[test]
fn checksums_follow_a_nat() {
    let nat = [198, 18, 0, 1];
    let tunnel = between_hosts(Algorithm::NullSha256, false).with_udp();
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let mut a = gateway(&scenario, A);
    // B knows its peer by the address of the NAT.
    let seen = Tunnel { outer: [nat.into(), tunnel.outer[B]], ..tunnel.clone() }.with_udp();
    let mut b = changed(&Scenario::quiet(vec![seen]), B, |config| {
        for sa in &mut config.sas {
            sa.receiving.original = Some(addresses(&tunnel));
        }
    });
    let real = addresses(&tunnel);
    let now = (nat.into(), real.1);
    let no_sum = |mut datagram: Vec<u8>| {
        datagram[6..8].fill(0);
        datagram
    };
    let segments = [
        (17, packets::udp(real, 20), packets::udp(now, 20)),
        (6, packets::tcp(real, 2, &[], &[]), packets::tcp(now, 2, &[], &[])),
        (17, no_sum(packets::udp(real, 21)), no_sum(packets::udp(real, 21))),
        (1, packets::icmp(real, [8, 0], 7, &[1; 9]), packets::icmp(real, [8, 0], 7, &[1; 9])),
    ];
    for (seq, (protocol, before, after)) in (1..).zip(segments) {
        let sent = one(&mut a, (A, LAN), &packet(real, protocol, &before));
        let esp = esp(&tunnel, seq, &before, protocol);
        let len = u16::try_from(8 + esp.len()).unwrap().to_be_bytes();
        let udp = [&[0x11, 0x94, 0x11, 0x94, len[0], len[1], 0, 0], &esp[..]].concat();
        assert_eq!(sent, hop(&packet(real, 17, &udp)));
        let received = one(&mut b, (B, WAN), &translated(&sent, nat, 61000));
        assert_eq!(received, hop(&hop(&packet(now, protocol, &after))), "protocol {protocol}");
    }
}

/// E12: traffic flow padding would not be told from payload that has no length of its own: TCP is
/// sent as it is.
#[test]
fn no_secret_padding_behind_tcp() {
    let tunnel = between_hosts(Algorithm::NullSha256, false);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let mut a = changed(&scenario, A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.sending.tfc = TfcPadding::To(500));
    });
    let segment = packets::tcp(addresses(&tunnel), 16, &[], &[5; 40]);
    let sent = one(&mut a, (A, LAN), &packet(addresses(&tunnel), 6, &segment));
    let esp = esp(&tunnel, 1, &segment, 6);
    assert_eq!(sent, hop(&packet(addresses(&tunnel), 50, &esp)));
}

/// E08, E10, A01, A05, A08, P26: every algorithm of both protocols in transport mode, over both
/// families, with and without ESN, raw and in UDP: what goes in comes out, ESP is whole words, and
/// AH is a multiple of 4 octets over IPv4 and of 8 over IPv6, as its length field says.
#[test]
fn every_algorithm() {
    for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
        for (six, esn, udp) in (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0)) {
            if udp && algorithm.protocol() == Protocol::Ah {
                continue;
            }
            let tunnel = Tunnel { esn, ..between_hosts(algorithm, six) };
            let tunnel = if udp { tunnel.with_udp() } else { tunnel };
            let scenario = Scenario { frames: 8, ..Scenario::quiet(vec![tunnel.clone()]) };
            let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
            for len in [0, 1, 7, 64, 700] {
                let segment = packets::udp(addresses(&tunnel), len);
                let plain = packet(addresses(&tunnel), 17, &segment);
                let sent = one(&mut a, (A, LAN), &plain);
                let headers = if six { 40 } else { 20 } + if udp { 8 } else { 0 };
                match algorithm.protocol() {
                    Protocol::Esp => assert_eq!((sent.len() - headers) % 4, 0),
                    Protocol::Ah => {
                        let ah_len = (usize::from(sent[headers + 1]) + 2) * 4;
                        assert_eq!(ah_len % if six { 8 } else { 4 }, 0, "{algorithm}");
                        assert_eq!(sent[headers + ah_len..], segment);
                    }
                }
                assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)), "{algorithm} {len}");
            }
            assert!(through(&mut b, (B, WAN), &[]).is_empty());
            assert_eq!(b.counters().dropped_total(), 0);
        }
    }
}

/// E11, I15: dummies in transport mode, over both families, raw and in UDP: they are sent between
/// the endpoints, and the receiver drops them without an error, and counts their numbers.
#[test]
fn dummies_in_transport_mode() {
    const SECOND: u64 = 1_000_000_000;
    for (six, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let tunnel = between_hosts(Algorithm::NullSha256, six);
        let tunnel = if udp { tunnel.with_udp() } else { tunnel };
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let mut a = changed(&scenario, A, |config| {
            config.sas.iter_mut().for_each(|sa| sa.sending.dummy_interval = Some(SECOND));
        });
        let mut b = gateway(&scenario, B);
        let mut count = 0;
        for second in 1..=10 {
            for dummy in through_at(&mut a, (A, LAN), &[], second * SECOND) {
                let end = dummy.len() - 16;
                assert_eq!(dummy[end - 1], 59, "the next header says so");
                assert_eq!(none(&mut b, (B, WAN), &dummy), Fate::Drop(DropReason::Dummy));
                count += 1;
            }
        }
        assert!((8..=10).contains(&count), "{count} dummies");
        assert_eq!((sample(&b, true).packets, sample(&b, true).sequence), (count, count));
        assert_eq!(notices(&mut b), [], "no error");
    }
}
