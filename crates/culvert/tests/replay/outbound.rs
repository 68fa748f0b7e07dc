//! From plaintext to ESP (RFC 4303 section 3.3): numbers, padding, outer headers, policy.

use std::collections::HashSet;

use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_wire::ip;

use crate::packets::LOW;
use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::changed;
use crate::packets::config;
use crate::packets::config_with;
use crate::packets::forwarded;
use crate::packets::next_header;
use crate::packets::policy;
use crate::packets::unwrapped;
use crate::packets::with_tos;
use crate::pcap;
use crate::support::replay;

/// ESP header: the low half of the number, which stands on the wire.
fn number(esp: &[u8]) -> u64 {
    u32::from_be_bytes(esp[4..8].try_into().unwrap()).into()
}

fn iv(esp: &[u8]) -> [u8; 8] {
    esp[8..16].try_into().unwrap()
}

/// The first packet of an SA carries 1 and the next ones 1 more each, or go on from where the
/// configuration says; no IV occurs twice. // E01 E02 E21 G02 M08
#[test]
fn numbers_count_up() {
    for (esn, sequence) in [(false, 0), (true, 0), (false, 77), (true, 1 << 40)] {
        let sa = Sa { esn, sequence, ..Sa::outbound() };
        let packets: Vec<_> = (0..100).map(|id| sa.plain(id % 2 == 1, id).packet()).collect();
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        run.assert_all("forward");
        let mut ivs = HashSet::new();
        let sent = run.unprotected.iter().zip(&run.verdicts).zip(&packets);
        for (((_, sent), verdict), plain) in sent {
            let (_, esp) = unwrapped(sent);
            let seq = verdict.seq.unwrap();
            assert_eq!(number(esp), seq & LOW);
            assert!(ivs.insert(iv(esp)), "an IV occurs twice");
            assert!(sa.open(seq, esp).starts_with(&forwarded(plain)));
        }
        let numbers = run.verdicts.iter().map(|verdict| verdict.seq.unwrap());
        assert!(numbers.eq(sequence + 1..=sequence + 100));
        assert_eq!((run.report.sas[0].packets, run.report.sas[0].sequence), (100, sequence + 100));
    }
}

/// With ESN the last number is 2^64-1, and none comes after it. // E03
#[test]
fn the_last_extended_number_is_the_last() {
    let sa = Sa { esn: true, sequence: u64::MAX - 2, ..Sa::outbound() };
    let packets: Vec<_> = (0..4).map(|id| sa.plain(false, id).packet()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    let exhausted = "sequence_exhausted";
    assert_eq!(run.outcomes(), ["forward", "forward", exhausted, exhausted]);
    assert_eq!(run.verdicts[1].seq, Some(u64::MAX));
    let (_, esp) = unwrapped(&run.unprotected[1].1);
    assert_eq!(number(esp), LOW);
    sa.open(u64::MAX, esp);
}

/// After number 2^32-1 an SA without ESN sends no more, and never starts again. // E03 M07
#[test]
fn the_last_number_is_the_last() {
    let sa = Sa { sequence: LOW - 1, ..Sa::outbound() };
    let packets: Vec<_> = (0..5).map(|id| sa.plain(false, id).packet()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    let exhausted = "sequence_exhausted";
    assert_eq!(run.outcomes(), ["forward", exhausted, exhausted, exhausted, exhausted]);
    assert_eq!(run.verdicts[0].seq, Some(LOW));
    assert!(run.verdicts[1..].iter().all(|v| (v.spi, v.seq) == (Some(sa.spi), None)));
    let totals = &run.report.sas[0];
    assert_eq!((totals.packets, totals.sequence, totals.drops[exhausted]), (1, LOW, 4));
    let run = replay(&config(&[Sa { sequence: LOW, ..sa }]), &packets, &[]);
    run.assert_all(exhausted);
}

/// E05: without anti-replay the counter does not start again either, as IVs would repeat.
#[test]
fn without_anti_replay_the_last_number_is_the_last() {
    let sa = Sa { sequence: LOW - 1, ..Sa::outbound() }.with("replay_window = 0");
    let packets: Vec<_> = (0..3).map(|id| sa.plain(false, id).packet()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    assert_eq!(run.outcomes(), ["forward", "sequence_exhausted", "sequence_exhausted"]);
}

/// With ESN the number goes on beyond 2^32: the wire carries the low half, the ICV covers all of
/// it. // E02 E03 G03 I18 M07
#[test]
fn extended_numbers_cross_the_boundary() {
    let sa = Sa { esn: true, sequence: LOW - 2, ..Sa::outbound() };
    let packets: Vec<_> = (0..5).map(|id| sa.plain(true, id).packet()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    run.assert_all("forward");
    for ((_, sent), seq) in run.unprotected.iter().zip(LOW - 1..) {
        let (_, esp) = unwrapped(sent);
        assert_eq!((number(esp), iv(esp)), (seq & LOW, seq.to_be_bytes()));
        sa.open(seq, esp);
    }
    let low: Vec<_> = run.unprotected.iter().map(|(_, sent)| number(unwrapped(sent).1)).collect();
    assert_eq!(low, [0xffff_fffe, 0xffff_ffff, 0, 1, 2]);
}

/// Packets of every size: padding is 1, 2, 3 and no more than ends the trailer on 4 octets, the
/// next header names the inner family, and the outer lengths are right. // E07 E08 E09 E10 E14 E20
#[test]
fn every_size_is_padded_as_it_must() {
    let sas = [Sa::outbound(), Sa { six: true, encapsulated: true, ..Sa::outbound() }];
    for sa in sas {
        for six in [false, true] {
            let plain = sa.plain(six, 1);
            let sizes = 16..=1490 - plain.len() + plain.payload_len;
            let packets: Vec<_> =
                sizes.map(|payload_len| Plain { payload_len, ..plain }.packet()).collect();
            let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
            run.assert_all("forward");
            for (((_, sent), plain), seq) in run.unprotected.iter().zip(&packets).zip(1..) {
                let (outer, esp) = unwrapped(sent);
                assert_eq!((outer.source(), outer.destination()), sa.outer());
                assert_eq!(esp.len() % 4, 0);
                let text = sa.open(seq, esp);
                let (inner, trailer) = text.split_at(plain.len());
                let pad_len = (plain.len() + 2).wrapping_neg() % 4;
                let mut expected = [1, 2, 3][..pad_len].to_vec();
                expected.extend([u8::try_from(pad_len).unwrap(), next_header(plain)]);
                assert_eq!(trailer, expected);
                assert_eq!(inner, forwarded(plain));
            }
        }
    }
}

/// The outer header inherits DSCP, ECN and don't fragment, and nothing else: its TTL, flow label
/// and identification are its own. // C01 P18 P20
#[test]
fn outer_headers_inherit_what_they_should() {
    for outer_six in [false, true] {
        let sa = Sa { six: outer_six, ..Sa::outbound() };
        for six in [false, true] {
            let mut packets = Vec::new();
            for tos in 0..=255 {
                let dont_fragment = tos % 2 == 0;
                let ttl = tos.max(2);
                let plain = Plain { tos, ttl, dont_fragment, ..sa.plain(six, tos.into()) };
                packets.push(plain.packet());
            }
            let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
            run.assert_all("forward");
            let mut identifications = HashSet::new();
            for ((_, sent), tos) in run.unprotected.iter().zip(0..=255) {
                match unwrapped(sent).0 {
                    ip::Packet::V4(outer) => {
                        assert_eq!((outer.tos, outer.ttl, outer.header_len), (tos, 64, 20));
                        assert_eq!(outer.dont_fragment, six || tos % 2 == 0);
                        assert!(!outer.is_fragment());
                        assert!(identifications.insert(outer.id), "identification occurs twice");
                    }
                    ip::Packet::V6(outer) => {
                        assert_eq!((outer.traffic_class, outer.hop_limit), (tos, 64));
                        let flow_label = [sent[1] & 0xf, sent[2], sent[3]];
                        assert_eq!(flow_label, [0; 3]);
                    }
                }
            }
        }
    }
}

/// The inner TTL is decremented once, its checksum follows, and what would reach 0 is not
/// forwarded. // P19
#[test]
fn the_inner_ttl_is_decremented() {
    let sa = Sa::outbound();
    for six in [false, true] {
        let packets: Vec<_> =
            (0..=255).map(|ttl| Plain { ttl, ..sa.plain(six, 1) }.packet()).collect();
        let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
        assert_eq!(run.outcomes()[..2], ["ttl", "ttl"]);
        assert!(run.outcomes()[2..].iter().all(|&outcome| outcome == "forward"));
        for (((_, sent), plain), seq) in run.unprotected.iter().zip(&packets[2..]).zip(1..) {
            assert!(sa.open(seq, unwrapped(sent).1).starts_with(&forwarded(plain)));
        }
    }
}

/// Options and extension headers of the inner packet stay inside, fragments are carried like other
/// packets, and link padding is not. // P18 P20 P22
#[test]
fn unusual_inner_packets_are_carried_whole() {
    let sa = Sa::outbound();
    let (source, destination) = sa.inner(false);
    let plain = ip_packet(source, destination, ip::PROTOCOL_UDP, &[7; 40]);
    let options = changed(&[&plain[..20], &[1; 8], &plain[20..]].concat(), |packet| {
        packet[0] = 0x47;
        packet[3] += 8;
    });
    let first = changed(&plain, |packet| packet[6] = 0x20);
    let later = changed(&plain, |packet| packet[6..8].copy_from_slice(&[0x00, 0x05]));
    let (source, destination) = sa.inner(true);
    let hop_by_hop =
        ip_packet(source, destination, 0, &[[17, 0, 1, 4, 0, 0, 0, 0], [7; 8]].concat());
    let fragment =
        ip_packet(source, destination, 44, &[[17, 0, 0, 1, 0, 0, 0, 9], [7; 8]].concat());
    let packets = [options, first, later, hop_by_hop, fragment];
    let padded: Vec<_> = packets.iter().map(|packet| [packet, &[0xee; 9][..]].concat()).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &padded, &[]);
    run.assert_all("forward");
    for (((_, sent), plain), seq) in run.unprotected.iter().zip(&packets).zip(1..) {
        let (outer, esp) = unwrapped(sent);
        assert_eq!(outer.upper_at(), 20, "no options outside");
        let text = sa.open(seq, esp);
        assert!(text.starts_with(&forwarded(plain)));
        assert!(text.len() < plain.len() + 6, "no link padding inside");
    }
}

/// Policies are tried in order and the first that matches decides; what none matches is dropped.
/// // P01 P02 P03
#[test]
fn the_first_policy_that_matches_decides() {
    let sa = Sa::outbound();
    let (net, remote) = ("10.1.0.0/24", "10.2.0.0/24");
    let first = [
        policy("outbound", "10.1.0.7", remote, "bypass", None),
        policy("outbound", net, "10.2.0.8", "discard", None),
        policy("outbound", "10.1.0.9", "10.2.0.8", "bypass", None),
    ];
    let config = config_with(&first.concat(), std::slice::from_ref(&sa));
    let from = |source: [u8; 4], destination: [u8; 4]| {
        Plain::new(source.into(), destination.into(), 1).packet()
    };
    let cases = [
        (from([10, 1, 0, 5], [10, 2, 0, 5]), "forward"),
        (from([10, 1, 0, 7], [10, 2, 0, 5]), "bypass"),
        (from([10, 1, 0, 7], [10, 2, 0, 8]), "bypass"),
        (from([10, 1, 0, 5], [10, 2, 0, 8]), "discard"),
        (from([10, 1, 0, 9], [10, 2, 0, 8]), "discard"),
        (from([10, 9, 0, 5], [10, 2, 0, 5]), "no_policy"),
        (from([10, 1, 0, 5], [10, 9, 0, 5]), "punt"),
    ];
    let packets: Vec<_> = cases.iter().map(|(packet, _)| packet.clone()).collect();
    let run = replay(&config, &packets, &[]);
    assert_eq!(run.outcomes(), cases.map(|(_, outcome)| outcome));
    let sent = pcap::untimed(&run.unprotected);
    assert_eq!(sent[1..], [forwarded(&packets[1]), forwarded(&packets[2])], "in clear");
    assert!(run.protected.is_empty());
    let bare = run.verdicts.iter().filter(|verdict| verdict.outcome() != "forward");
    assert!(bare.into_iter().all(|verdict| (verdict.spi, verdict.seq) == (None, None)));
}

/// A packet that does not fit is dropped and costs no number; the longest that fits is sent.
#[test]
fn too_long_packets_are_dropped() {
    let sa = Sa { six: true, encapsulated: true, ..Sa::outbound() };
    let plain = sa.plain(true, 1);
    let of_len = |len: usize| {
        let payload_len = len - (plain.len() - plain.payload_len);
        Plain { payload_len, ..plain }.packet()
    };
    // 1600 octets less 40 + 8 + 16 of headers, trailer of 2 and ICV.
    let packets = [1519, 1518, 1600, 1700, 9000, 1518].map(of_len);
    let run = replay(&config(&[sa]), &packets, &[]);
    let big = "too_big";
    assert_eq!(run.outcomes(), [big, "forward", big, big, big, "forward"]);
    let numbers: Vec<_> = run.verdicts.iter().filter_map(|verdict| verdict.seq).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(run.unprotected[0].1.len(), 1600);
}

/// The same packet with every TOS leaves the SA's totals exact: octets count what is encrypted,
/// padding included. // P16
#[test]
fn octets_are_those_that_are_encrypted() {
    let sa = Sa::outbound();
    let packet = Plain { payload_len: 17, ..sa.plain(false, 1) }.packet();
    let packets: Vec<_> = (0..10).map(|tos| with_tos(&packet, tos)).collect();
    let run = replay(&config(std::slice::from_ref(&sa)), &packets, &[]);
    assert_eq!(packet.len(), 45);
    assert_eq!(run.report.sas[0].bytes, 10 * 48, "45 + padding of 1 + 2");
    assert_eq!(run.report.sas[0].name.as_deref(), Some("outbound-0"));
}

/// An SA for a single worker (RFC 9611) is used by that worker, which is the first here; one for
/// another is not, and the SA for all takes its place. // M02
#[test]
fn workers_have_sas_of_their_own() {
    let run = |resource: Option<u8>| {
        let of = |spi, lines: &str| Sa { spi, ..Sa::outbound() }.with(lines);
        let all = of(0x1001, "group = 'both'");
        let lines = resource.map(|worker| format!("group = 'both'\nresource = {worker}"));
        let own = of(0x1002, lines.as_deref().unwrap_or("group = 'other'"));
        let sas = all.toml() + &own.toml().replace(&own.name(), "own");
        let head = "[interfaces]\nprotected = ['lan0']\nunprotected = ['wan0']\n[workers]\n\
                    count = 4\n[lab]\nstatic_keys = true\n";
        let through = policy(OUTBOUND, "10.1.0.0/24", "10.2.0.0/24", "protect", Some("both"));
        let plain = all.plain(false, 1).packet();
        let run = replay(&[head, &sas, &through].concat(), &[plain.clone(), plain], &[]);
        run.assert_all("forward");
        run.verdicts.iter().map(|verdict| verdict.spi.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(Some(0)), [0x1002; 2]);
    assert_eq!(run(Some(3)), [0x1001; 2]);
    assert_eq!(run(None), [0x1001; 2], "no worker has one");
}
