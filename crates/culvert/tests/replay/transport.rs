//! Transport mode (RFC 4303 section 3.1.1): where the ESP header goes, and what a NAT does to it.

use std::net::IpAddr;

use culvert_sim::plain::ip_packet;
use culvert_wire::checksum;
use culvert_wire::ip;

use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::config;
use crate::packets::config_with;
use crate::packets::forwarded;
use crate::packets::policy;
use crate::packets::text;
use crate::packets::with_tos;
use crate::support::replay;

fn there() -> Sa {
    Sa { transport: true, ..Sa::outbound() }
}

fn back() -> Sa {
    Sa { transport: true, ..Sa::inbound() }
}

/// E10 E18 E19: over IPv6 the ESP header goes behind hop-by-hop options and routing headers, and in
/// front of the destination options behind them; the receiver puts all back.
#[test]
fn extension_headers_stay_where_they_are() {
    let hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 0, 253, 0, 0, 0, 0, 0];
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let payload = [[0, 7, 0, 9, 0, 16, 0, 0], [0x55; 8]].concat();
    let sa = Sa { six: true, ..there() };
    let (source, destination) = sa.inner(true);
    let plain =
        ip_packet(source, destination, 0, &[&hop[..], &routing, &options, &payload].concat());
    let run = replay(&config(std::slice::from_ref(&sa)), std::slice::from_ref(&plain), &[]);
    run.assert_all("forward");
    let sealed = &run.sealed()[0];
    assert_eq!(sealed[6], 0, "hop-by-hop options first");
    assert_eq!((sealed[40], sealed[48]), (43, 50), "then routing, then ESP");
    assert_eq!(sealed[49..56], routing[1..]);
    assert_eq!(sa.algorithm.text_at() % 8, 0, "what is protected starts at a multiple of 8");
    let inside = sa.open(1, &sealed[56..]);
    let (protected, trailer) = inside.split_at(8 + payload.len());
    assert_eq!(protected, [&options[..], &payload].concat());
    assert_eq!(trailer[trailer.len() - 1], 60, "destination options are next");

    let far = Sa { six: true, ..back() };
    let (source, destination) = far.inner(true);
    let sealed = {
        let esp = far.seal(1, &text(&[&options[..], &payload].concat(), 60));
        let hop = [43, 0, 1, 4, 0, 0, 0, 0];
        let routing = [50, 0, 253, 0, 0, 0, 0, 0];
        ip_packet(source, destination, 0, &[&hop[..], &routing, &esp].concat())
    };
    let run = replay(&config(std::slice::from_ref(&far)), &[], &[sealed]);
    run.assert_all("forward");
    let plain =
        ip_packet(source, destination, 0, &[&hop[..], &routing, &options, &payload].concat());
    assert_eq!(run.opened(), [forwarded(&plain)]);
}

/// E10 E20: over IPv4 options stay in the header; length, protocol and checksum follow.
#[test]
fn the_ipv4_header_follows() {
    let sa = there();
    let plain = sa.plain(false, 1).packet();
    let with_options =
        crate::packets::changed(&[&plain[..20], &[1; 4], &plain[20..]].concat(), |packet| {
            packet[0] = 0x46;
            packet[3] += 4;
        });
    let run = replay(&config(std::slice::from_ref(&sa)), &[plain.clone(), with_options], &[]);
    run.assert_all("forward");
    for (sealed, at) in run.sealed().iter().zip([20, 24]) {
        let parsed = ip::parse(sealed).unwrap();
        assert_eq!((parsed.upper_at(), parsed.total_len()), (at, sealed.len()));
        assert_eq!((sealed[9], checksum::internet(&sealed[..at])), (50, 0));
    }
    assert_eq!(sa.open(1, &run.sealed()[0][20..])[..plain.len() - 20], plain[20..]);
}

/// I13 I14 I15: ends that are wrong have their reasons in transport mode too, raw and in UDP, over
/// both families; a dummy is no error, and its number counts.
#[test]
fn wrong_trailers_have_their_reasons_in_transport_mode() {
    for (six, encapsulated) in [(false, false), (false, true), (true, false), (true, true)] {
        let sa = Sa { six, encapsulated, ..back() };
        let plain = sa.plain(six, 1).packet();
        let payload = &plain[if six { 40 } else { 20 }..];
        let end = |payload: &[u8], end: &[u8]| [payload, end].concat();
        assert_eq!(payload.len() % 4, 0, "padding of 2, 6, ...");
        let cases = [
            (text(payload, 17), "forward"),
            (end(payload, &[1, 2, 3, 4, 5, 6, 6, 17]), "forward"),
            (end(payload, &[1, 2, 3, 4, 5, 7, 6, 17]), "padding"),
            (end(payload, &[1, 2, 255, 17]), "trailer"),
            (end(&[], &[1, 2, 3, 17]), "trailer"),
            (text(payload, 59), "dummy"),
            (text(&[0xa5; 30], 59), "dummy"),
        ];
        let sealed = cases.iter().zip(1..).map(|((text, _), seq)| sa.with_text(seq, text));
        let run = replay(&config(std::slice::from_ref(&sa)), &[], &sealed.collect::<Vec<_>>());
        assert_eq!(run.outcomes(), cases.each_ref().map(|&(_, outcome)| outcome));
        let totals = &run.report.sas[0];
        assert_eq!((totals.packets, totals.sequence), (7, 7));
        let recorded: Vec<_> = run.audit.iter().map(|record| &record["reason"]).collect();
        assert_eq!(recorded, ["trailer", "trailer"]);
    }
}

/// P14: the DSCP is no part of what an SA is checked against.
#[test]
fn dscp_does_not_matter() {
    let sa = back();
    let plain = sa.plain(false, 1).packet();
    let packets: Vec<_> = (0..64)
        .map(|dscp| with_tos(&sa.transported(dscp + 1, &plain), u8::try_from(dscp << 2).unwrap()))
        .collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &[], &packets);
    run.assert_all("forward");
}

/// The checksum of a TCP or UDP packet between two addresses.
fn transport_checksum(packet: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        panic!("IPv4")
    };
    let len = u16::try_from(packet.len() - 20).unwrap();
    let pseudo = checksum::pseudo_header_v4(source, destination, packet[9], len);
    !checksum::add(pseudo, checksum::sum(&packet[20..]))
}

/// U08: through a NAT, TCP and UDP checksums are those of the peer's own addresses, and are
/// corrected for those the packet has; a UDP checksum of zero stays.
#[test]
fn checksums_are_corrected_behind_a_nat() {
    let original: IpAddr = [172, 16, 0, 99].into();
    let sa = Sa { encapsulated: true, ..back() };
    let (source, destination) = sa.outer();
    let line = format!("original_source = '{original}'");
    let config = config(&[sa.clone().with(&line)]);
    let made = |protocol: u8, at: usize, zero: bool| {
        let mut payload = vec![0x11; 41];
        payload[at..at + 2].fill(0);
        let mut packet = ip_packet(source, destination, protocol, &payload);
        if !zero {
            let sum = transport_checksum(&packet, original, destination);
            packet[20 + at..22 + at].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    };
    let packets = [made(6, 16, false), made(17, 6, false), made(17, 6, true)];
    let sealed: Vec<_> =
        packets.iter().zip(1..).map(|(packet, seq)| sa.transported(seq, packet)).collect();
    let run = replay(&config, &[], &sealed);
    run.assert_all("forward");
    let opened = run.opened();
    for packet in &opened[..2] {
        assert_eq!(transport_checksum(packet, source, destination), 0, "it verifies now");
    }
    assert_eq!(opened[2][26..28], [0, 0]);
    assert_eq!(opened[0][20..36], packets[0][20..36], "and nothing else is changed");
}

/// P26: a gateway applies transport mode to packets between the very ends of the SA, and to no
/// others, whatever policy says.
#[test]
fn transport_mode_is_for_its_own_ends() {
    for six in [false, true] {
        let sa = Sa { six, ..there() };
        let any = policy(OUTBOUND, "any", "any", "protect", Some(&sa.name()));
        let (source, destination) = sa.inner(six);
        let neighbour = sa.networks(six).0;
        assert_eq!(neighbour, source.to_string());
        let other: IpAddr = if six { "fd01::6" } else { "10.1.0.6" }.parse().unwrap();
        let packet = |from, to| ip_packet(from, to, 17, &[7; 24]);
        let packets =
            [packet(source, destination), packet(other, destination), packet(source, other)];
        let run = replay(&config_with(&any, std::slice::from_ref(&sa)), &packets, &[]);
        assert_eq!(run.outcomes(), ["forward", "selector", "selector"], "{six}");
    }
}
