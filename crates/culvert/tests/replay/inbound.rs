//! From ESP to plaintext (RFC 4303 section 3.4): replays, forgeries, trailers, and what may come
//! out of an SA.

use culvert_aead::Algorithm;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_wire::ip;

use crate::packets::LOW;
use crate::packets::Sa;
use crate::packets::changed;
use crate::packets::config;
use crate::packets::config_with;
use crate::packets::forged;
use crate::packets::forwarded;
use crate::packets::numbered;
use crate::packets::policy;
use crate::packets::text;
use crate::packets::unwrapped;
use crate::pcap;
use crate::support::Run;
use crate::support::replay;
use crate::support::replay_at;

/// A run over packets that arrive on the unprotected side.
#[track_caller]
fn receive(sa: &Sa, packets: &[Vec<u8>]) -> Run {
    replay(&config(std::slice::from_ref(sa)), &[], packets)
}

/// Whatever bit of an ESP packet is changed, it is refused: the SPI finds no SA, all the rest fails
/// the integrity check, and the genuine packet is accepted afterwards. // I03 I05 I06 I07 I12 I17
#[test]
fn every_changed_bit_is_refused() {
    let raw = Sa { sequence: 1 << 20, ..Sa::inbound() };
    let udp = Sa { esn: true, six: true, encapsulated: true, ..raw.clone() };
    for sa in [raw, udp] {
        // Flips of the number are far above and far below it, and no number seen.
        let seq = (1 << 21) + (1 << 19);
        let genuine = numbered(&sa, seq);
        let esp_len = sa.seal(seq, &text(&sa.plain(false, seq).packet(), 4)).len();
        let esp_at = genuine.len() - esp_len;
        let mut packets = Vec::new();
        let mut expected = Vec::new();
        for (at, bit) in (0..esp_len).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut packet = genuine.clone();
            packet[esp_at + at] ^= 1 << bit;
            let low: [u8; 4] = packet[esp_at + 4..esp_at + 8].try_into().unwrap();
            let old = u32::from_be_bytes(low) <= 1 << 20 && !sa.esn;
            packets.push(packet);
            expected.push(match at {
                0..4 => "no_sa",
                _ if old => "replay",
                _ => "icv",
            });
        }
        packets.push(genuine);
        expected.push("forward");
        let run = receive(&sa, &packets);
        assert_eq!(run.outcomes(), expected);
        assert_eq!(run.report.sas[0].sequence, seq);
    }
}

/// A number is accepted once; what was seen is dropped before its ICV is looked at.
/// // I05 I08 M07
#[test]
fn a_number_is_accepted_once() {
    for esn in [false, true] {
        let sa = Sa { esn, ..Sa::inbound() };
        let order = [1_u64, 1, 3, 2, 3, 2, 1, 40, 4, 40];
        let mut packets: Vec<_> = order.map(|seq| numbered(&sa, seq)).to_vec();
        packets.push(forged(&numbered(&sa, 3)));
        packets.push(forged(&numbered(&sa, 5)));
        let (new, seen) = ("forward", "replay");
        let run = receive(&sa, &packets);
        let accepted = [new, seen, new, new, seen, seen, seen, new, new, seen, seen, "icv"];
        assert_eq!(run.outcomes(), accepted);
        assert_eq!(run.report.sas[0].packets, 5);
    }
}

/// The window is exact at its lower edge, whatever its size, and refuses what is older. // I09
#[test]
fn the_window_has_an_exact_edge() {
    for window in [64_u64, 65, 100, 127, 1024, 65536] {
        for esn in [false, true] {
            let sa = Sa { esn, window: u32::try_from(window).unwrap(), ..Sa::inbound() };
            let top = 200_000;
            let edge = top - window + 1;
            let order = [top, edge - 1, edge, edge + 1, edge, top + 1, edge + 1, edge, edge + 2];
            let packets = order.map(|seq| numbered(&sa, seq));
            let (new, old) = ("forward", if esn { "icv" } else { "replay" });
            let seen = "replay";
            let run = receive(&sa, &packets);
            // With ESN a number left of the window is taken for one of the next 2^32.
            let expected = [new, old, new, new, seen, new, seen, old, new];
            assert_eq!(run.outcomes(), expected, "window {window}, ESN {esn}");
        }
    }
}

/// Zero is no number, and all up to where the configuration starts counts as seen. // I10
#[test]
fn zero_and_the_past_are_never_accepted() {
    let sa = Sa::inbound();
    let run = receive(&sa, &[0, 1, 0].map(|seq| numbered(&sa, seq)));
    assert_eq!(run.outcomes(), ["replay", "forward", "replay"]);
    let sa = Sa { sequence: 500, ..sa };
    let run = receive(&sa, &[500, 499, 437, 1, 501].map(|seq| numbered(&sa, seq)));
    assert_eq!(run.outcomes(), ["replay", "replay", "replay", "replay", "forward"]);
}

/// A forged high number does not move the window: genuine low ones still pass. // I07
#[test]
fn forgeries_do_not_move_the_window() {
    for esn in [false, true] {
        let sa = Sa { esn, ..Sa::inbound() };
        let packets = [
            numbered(&sa, 10),
            forged(&numbered(&sa, 100_000)),
            forged(&numbered(&sa, LOW)),
            numbered(&sa, 9),
            numbered(&sa, 11),
        ];
        let run = receive(&sa, &packets);
        assert_eq!(run.outcomes(), ["forward", "icv", "icv", "forward", "forward"]);
        assert_eq!(run.report.sas[0].sequence, 11);
    }
}

/// Gaps of any size are accepted: a sender may skip; with ESN across 2^32 too. // I22
#[test]
fn jumps_are_accepted() {
    let sa = Sa { esn: true, ..Sa::inbound() };
    let order = [1, 1 << 31, LOW, (3 << 31) + 7, (1 << 33) - 1];
    receive(&sa, &order.map(|seq| numbered(&sa, seq))).assert_all("forward");
    let sa = Sa::inbound();
    let order = [1, 1 << 31, LOW, LOW - 63, LOW - 64];
    let run = receive(&sa, &order.map(|seq| numbered(&sa, seq)));
    assert_eq!(run.outcomes(), ["forward", "forward", "forward", "forward", "replay"]);
}

/// ESN: the high half is inferred from the window, in order and out of order over 2^32; a packet
/// sealed with another high half fails the integrity check. // I18 G03 M07
#[test]
fn the_high_half_is_inferred() {
    let boundary = 1 << 32;
    let sa = Sa { esn: true, sequence: boundary - 10, ..Sa::inbound() };
    let order = [boundary - 2, boundary + 1, boundary, boundary - 1, boundary, boundary + 40];
    let mut packets: Vec<_> = order.map(|seq| numbered(&sa, seq)).to_vec();
    packets.push(numbered(&sa, 2));
    packets.push(numbered(&sa, boundary + 2));
    packets.push(numbered(&sa, boundary - 3));
    let run = receive(&sa, &packets);
    let new = "forward";
    assert_eq!(run.outcomes(), [new, new, new, new, "replay", new, "icv", new, new]);
    // A replay is known by its whole number, too.
    let numbers: Vec<_> = run.verdicts[..6].iter().map(|verdict| verdict.seq.unwrap()).collect();
    assert_eq!(numbers, order);
    assert_eq!(run.report.sas[0].sequence, boundary + 40);
}

/// ESN: after a loss of 2^32 packets and more, all that comes looks forged, until from the 64th in
/// a row a packet now and then is tried further up, and the SA goes on from there. Forgeries,
/// however many, move nothing and hold up nothing. // I18 I19
#[test]
fn a_long_loss_is_recovered_from() {
    for algorithm in [Algorithm::Aes128Gcm16, Algorithm::Aes256CbcSha512] {
        let sa = Sa { esn: true, sequence: 1000, algorithm, ..Sa::inbound() };
        for subspaces in 1..=3 {
            let first = (subspaces << 32) + 2000;
            let packets: Vec<_> = (first..first + 200).map(|seq| numbered(&sa, seq)).collect();
            let run = receive(&sa, &packets);
            let outcomes = run.outcomes();
            let lost = outcomes.iter().position(|&outcome| outcome == "forward").unwrap();
            assert!((63..64 + 3 * 16).contains(&lost), "{lost} packets");
            assert!(outcomes[..lost].iter().all(|&outcome| outcome == "icv"));
            assert!(outcomes[lost..].iter().all(|&outcome| outcome == "forward"));
            assert_eq!(run.report.sas[0].sequence, first + 199);
        }
        // Forged packets far up, and among them one that is genuine, a little above the window.
        let genuine = [1001, 1500, 1499];
        let forged: Vec<_> = (0..300).map(|seq| forged(&numbered(&sa, (2 << 32) + seq))).collect();
        let mut packets = forged.clone();
        packets.insert(0, numbered(&sa, genuine[0]));
        packets.insert(150, numbered(&sa, genuine[1]));
        packets.push(numbered(&sa, genuine[2]));
        let run = receive(&sa, &packets);
        let passed = (0..packets.len()).filter(|&at| run.outcomes()[at] == "forward");
        assert_eq!(passed.collect::<Vec<_>>(), [0, 150, 302]);
        assert_eq!((run.report.sas[0].sequence, run.report.sas[0].packets), (1500, 3));
    }
}

/// Authentic packets with a wrong end: each is dropped for its reason, and its number is used.
/// // I13 I14 I15 I23
#[test]
fn wrong_trailers_have_their_reasons() {
    let sa = Sa::inbound();
    let inner = sa.plain(false, 1).packet();
    let inner6 = sa.plain(true, 1).packet();
    let end = |payload: &[u8], end: &[u8]| [payload, end].concat();
    let mut garbage = inner.clone();
    garbage[0] = 0x55;
    let cases = [
        (text(&inner, 4), "forward"),
        (end(&inner, &[1, 2, 2, 4]), "forward"),
        (end(&inner, &[0, 0, 2, 4]), "padding"),
        (end(&inner, &[2, 1, 2, 4]), "padding"),
        (end(&inner, &[1, 2, 255, 4]), "trailer"),
        (end(&[0; 10], &[11, 4]), "trailer"),
        (end(&[1, 2], &[2, 4]), "inner_malformed"),
        (text(&inner, 59), "dummy"),
        (text(&[0xa5; 44], 59), "dummy"),
        (text(&inner, 6), "next_header"),
        (text(&inner, 17), "next_header"),
        (text(&inner, 50), "next_header"),
        (text(&inner, 0), "next_header"),
        (text(&inner, 255), "next_header"),
        (text(&inner, 41), "inner_malformed"),
        (text(&inner6, 4), "inner_malformed"),
        (text(&inner[..40], 4), "inner_malformed"),
        (text(&garbage, 4), "inner_malformed"),
        (text(&inner6, 41), "forward"),
    ];
    let sealed = cases.iter().zip(1..).map(|((text, _), seq)| sa.with_text(seq, text));
    let mut packets: Vec<_> = sealed.collect();
    packets.extend(packets.clone());
    let mut expected = cases.iter().map(|&(_, outcome)| outcome).collect::<Vec<_>>();
    expected.extend(["replay"; 19]);
    let run = receive(&sa, &packets);
    assert_eq!(run.outcomes(), expected);
    let totals = &run.report.sas[0];
    assert_eq!((totals.packets, totals.drops["dummy"]), (19, 2), "authentic, and counted as such");
    let octets: usize = cases.iter().map(|(text, _)| text.len()).sum();
    assert_eq!(totals.bytes, crate::support::count(octets));
}

/// Octets between the inner packet and the padding are traffic flow confidentiality padding: they
/// are dropped, the packet is not. // I16 E13
#[test]
fn tfc_padding_is_dropped() {
    for outer_six in [false, true] {
        let sa = Sa { six: outer_six, ..Sa::inbound() };
        let mut packets = Vec::new();
        let mut expected = Vec::new();
        for (six, len) in [1, 2, 3, 4, 100, 1000].into_iter().flat_map(|l| [(false, l), (true, l)])
        {
            let inner = sa.plain(six, 1).packet();
            let text = text(&[&inner[..], &vec![0x5a; len]].concat(), if six { 41 } else { 4 });
            packets.push(sa.with_text(u64::try_from(packets.len() + 1).unwrap(), &text));
            expected.push(forwarded(&inner));
        }
        let run = receive(&sa, &packets);
        assert_eq!(pcap::untimed(&run.protected), expected);
    }
}

/// Too short for IV and ICV, or not a multiple of 4 octets: dropped before any cryptography.
#[test]
fn cut_packets_are_truncated() {
    let sa = Sa::inbound();
    let esp = sa.seal(1, &text(&sa.plain(false, 1).packet(), 4));
    let lengths: Vec<usize> = (0..esp.len()).collect();
    let packets: Vec<_> = lengths.iter().map(|&len| sa.wrap(&esp[..len])).collect();
    let run = receive(&sa, &packets);
    for (outcome, len) in run.outcomes().into_iter().zip(lengths) {
        let expected = match len {
            0..8 => "malformed",
            8..36 => "truncated",
            _ if len % 4 != 0 => "truncated",
            _ => "icv",
        };
        assert_eq!(outcome, expected, "{len} octets");
    }
}

/// What comes out of an SA must be what policy lets out of that very SA. // P01 P09 P11
#[test]
fn only_what_belongs_into_an_sa_comes_out() {
    let sa = Sa::inbound();
    let other = Sa { net: 1, spi: 0x2002, ..Sa::inbound() };
    let discard = policy("inbound", "10.2.0.66", "10.1.0.0/24", "discard", None);
    let bypass = policy("inbound", "10.2.0.67", "10.1.0.0/24", "bypass", None);
    let config = config_with(&(discard + &bypass), &[sa.clone(), other.clone()]);
    let inner = |source: [u8; 4], destination: [u8; 4]| {
        Plain::new(source.into(), destination.into(), 1).packet()
    };
    let ours = inner([10, 2, 0, 5], [10, 1, 0, 5]);
    let theirs = other.plain(false, 1).packet();
    let cases = [
        (sa.packet(1, &ours), "forward"),
        (sa.packet(2, &theirs), "selector"),
        (other.packet(1, &theirs), "forward"),
        (other.packet(2, &ours), "selector"),
        (sa.packet(3, &inner([10, 9, 0, 5], [10, 1, 0, 5])), "selector"),
        (sa.packet(4, &inner([10, 2, 0, 5], [10, 9, 0, 5])), "selector"),
        (sa.packet(5, &inner([10, 2, 0, 66], [10, 1, 0, 5])), "selector"),
        (sa.packet(6, &inner([10, 2, 0, 67], [10, 1, 0, 5])), "selector"),
        (sa.packet(7, &other.plain(true, 1).packet()), "selector"),
        (sa.packet(8, &sa.plain(true, 1).packet()), "forward"),
        // In clear, what must come through an SA is dropped.
        (ours, "plaintext"),
    ];
    let packets: Vec<_> = cases.iter().map(|(packet, _)| packet.clone()).collect();
    let run = replay(&config, &[], &packets);
    assert_eq!(run.outcomes(), cases.map(|(_, outcome)| outcome));
    assert_eq!(run.protected.len(), 3);
    assert!(run.unprotected.is_empty());
}

/// An SPI that no SA has, or one of ours at another address: dropped, with SPI and number in the
/// verdict. Outbound SAs receive nothing. // I03
#[test]
fn packets_without_an_sa_are_dropped() {
    let sa = Sa::inbound();
    let outbound = Sa::outbound();
    let stranger = Sa { spi: 0x0666, ..sa.clone() };
    let (source, _) = sa.outer();
    let esp = sa.seal(1, &text(&sa.plain(false, 1).packet(), 4));
    let elsewhere = ip_packet(source, "192.0.2.77".parse().unwrap(), ip::PROTOCOL_ESP, &esp);
    let six = Sa { six: true, ..sa.clone() }.wrap(&esp);
    let reserved = [0, 1, 255].map(|spi| Sa { spi, ..sa.clone() });
    let mut packets = vec![numbered(&stranger, 7), elsewhere, six];
    packets.push(numbered(&Sa { spi: outbound.spi, ..sa.clone() }, 1));
    packets.extend(reserved.iter().map(|sa| numbered(sa, 1)));
    let run = replay(&config(&[sa.clone(), outbound]), &[], &packets);
    run.assert_all("no_sa");
    assert_eq!((run.verdicts[0].spi, run.verdicts[0].seq), (Some(0x0666), Some(7)));
    assert!(run.report.sas.iter().all(|totals| totals.packets == 0 && totals.drops.is_empty()));
}

/// I01 I02: a fragment of ESP never gets to an SA: it waits for the others, and is given up after a
/// while.
#[test]
fn fragments_wait_for_the_others() {
    let sa = Sa::inbound();
    let packet = numbered(&sa, 1);
    let first = changed(&packet, |packet| packet[6] = 0x20);
    let later = changed(&packet, |packet| packet[6..8].copy_from_slice(&[0, 99]));
    let times = [0, 1, 20_000];
    let at = |ms| pcap::START + std::time::Duration::from_millis(ms);
    let packets: Vec<_> = times.map(at).into_iter().zip([first, later, packet]).collect();
    let run = replay_at(&config(std::slice::from_ref(&sa)), &[], &packets);
    assert_eq!(run.outcomes(), ["reassembling", "reassembling", "forward"]);
    assert_eq!(run.report.more["reassembly_timeout"], 2);
    assert_eq!(run.protected.len(), 1);
}

/// A packet that came through the tunnel is forwarded with its TTL decremented; one that must not
/// go further is dropped after its number was used. // P19
#[test]
fn the_inner_ttl_is_decremented() {
    let sa = Sa { window: 1024, ..Sa::inbound() };
    for six in [false, true] {
        let plain = |ttl| Plain { ttl, ..sa.plain(six, 1) }.packet();
        let packets: Vec<_> =
            (0..=255).map(|ttl| sa.packet(u64::from(ttl) + 1, &plain(ttl))).collect();
        let run = receive(&sa, &packets);
        assert_eq!(run.outcomes()[..2], ["ttl", "ttl"]);
        let expected: Vec<_> = (2..=255).map(|ttl| forwarded(&plain(ttl))).collect();
        assert_eq!(pcap::untimed(&run.protected), expected);
    }
}

/// A minimal peer (RFC 9333): its numbers are the time, its SPI is the lowest there is, it pads no
/// more than it must and sends no dummies; its packets are taken once each. // M06 I22
#[test]
fn a_minimal_peer_is_understood() {
    let sa = Sa { spi: 0x100, ..Sa::inbound() };
    // Seconds of an afternoon with nothing to say for an hour, and then of another year.
    let clock = [54_000, 54_001, 54_003, 57_600, 57_601, 57_600, 31_593_601, 54_003];
    let packets: Vec<_> = clock.iter().map(|&seq| numbered(&sa, seq)).collect();
    let run = receive(&sa, &packets);
    let (yes, no) = ("forward", "replay");
    assert_eq!(run.outcomes(), [yes, yes, yes, yes, yes, no, yes, no]);
}

/// Whether numbers have 64 bits is for each SA to say, and those of a new one begin at 0: the first
/// packet is number 1, and its high half 0. // M08
#[test]
fn extended_numbers_are_for_each_sa() {
    let with = Sa { esn: true, ..Sa::inbound() };
    let without = Sa { net: 1, spi: 0x2002, ..Sa::inbound() };
    let elsewhere = |sa: &Sa, esn: bool| numbered(&Sa { esn, ..sa.clone() }, 2);
    let packets = [
        numbered(&with, 1),
        numbered(&without, 1),
        elsewhere(&with, false),
        elsewhere(&without, true),
        numbered(&with, 1 << 32 | 2),
        numbered(&with, 2),
        numbered(&without, 2),
    ];
    let run = replay(&config(&[with.clone(), without.clone()]), &[], &packets);
    let (yes, icv) = ("forward", "icv");
    assert_eq!(run.outcomes(), [yes, yes, icv, icv, icv, yes, yes]);
    let back = |sa: &Sa, net, spi| {
        let Sa { esn, .. } = *sa;
        Sa { esn, net, spi, sequence: u64::from(u32::MAX), ..Sa::outbound() }
    };
    let (with, without) = (back(&with, 0, 0x1001), back(&without, 1, 0x1002));
    let packets = [with.plain(false, 1).packet(), without.plain(false, 1).packet()];
    let run = replay(&config(&[with.clone(), without]), &packets, &[]);
    assert_eq!(run.outcomes(), ["forward", "sequence_exhausted"]);
    with.open(1 << 32, unwrapped(&run.sealed()[0]).1);
}
