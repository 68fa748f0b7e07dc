//! The matrix: every protocol, mode, family pair, algorithm, encapsulation and size of sequence
//! number, both ways against an independent witness, each with damaged packets.
//!
//! The witness is scapy; what it lacks is filled in by a few classes over python3-cryptography
//! (`matrix/witness.py`), and every test prints for which cases, and why. A group is one run of the
//! program with as many SAs as it has cases. Numbers of cases are asserted, so none can be lost.
//!
//! - [`case`]: the cases, their SAs and policies.
//! - [`witness`]: the process that speaks for scapy.
//! - [`mutable`]: which header fields AH covers, bit by bit and option by option.
//! - [`chains`]: IPv6 extension headers.
//! - [`bundles`]: AH around ESP, SAs inside tunnels, and the worked example.
//! - [`padding`]: every length of padding, and padding for secrecy.

mod bundles;
mod case;
mod chains;
mod mutable;
mod padding;
mod witness;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use culvert_aead::Protocol;
use culvert_wire::ip;

use self::case::Case;
use self::case::Way;
use self::witness::Facts;
use self::witness::Witness;
use self::witness::octets;
use crate::packets::forwarded;
use crate::packets::next_header;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_RAW;
use crate::support::Invocation;
use crate::support::Run;

/// Payloads of the packets of a case: every remainder of the padding comes up in each algorithm.
fn sizes(case: &Case) -> Vec<usize> {
    let number = usize::from(case.number);
    vec![number % 16, (number * 5 + 7) % 64, 64 + number % 32]
}

/// Runs the program over raw packets on one side.
#[track_caller]
fn run(config: &str, input: &str, packets: &[Vec<u8>]) -> Run {
    let mut invocation = Invocation::new(config);
    invocation.link = Some("raw");
    invocation.put(input, &Form::of(LINK_RAW).file(&pcap::timed(packets)));
    invocation.checked()
}

/// Says of how many cases scapy alone was the witness, and which others had help.
#[track_caller]
fn report_gaps<'a>(
    cases: &[Case],
    gaps: impl Iterator<Item = Option<&'a str>>,
    alone: usize,
    helped: [usize; 4],
) {
    let mut found: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    let mut scapy_alone = 0;
    for (case, gap) in cases.iter().zip(gaps) {
        match gap {
            Some(gap) => found.entry(gap).or_default().push(case),
            None => scapy_alone += 1,
        }
    }
    eprintln!("{} cases; scapy alone: {scapy_alone}; with help:", cases.len());
    for (gap, cases) in &found {
        eprintln!("  {gap}: {} cases", cases.len());
        for case in cases {
            eprintln!("    {}", case.name());
        }
    }
    const GAPS: [&str; 4] = ["AES-GCM with", "AES-GMAC", "ESN with", "implicit IV"];
    let count = |gap: &&str| {
        let of_gap =
            |(name, cases): (&&str, &Vec<&Case>)| name.starts_with(*gap).then_some(cases.len());
        found.iter().find_map(of_gap).unwrap_or(0)
    };
    let counts: Vec<usize> = GAPS.iter().map(count).collect();
    assert_eq!((scapy_alone, &counts[..]), (alone, &helped[..]), "in the order {GAPS:?}");
    assert_eq!(scapy_alone + counts.iter().sum::<usize>(), cases.len(), "no other gaps");
}

/// culvert seals packets of every case, the witness opens them; returns the gaps.
fn we_seal(cases: &[Case]) -> Option<Vec<Option<String>>> {
    let mut witness = Witness::start()?;
    let plain = witness.plain(cases, Way::Out, sizes);
    let run = run(&case::config(cases, Way::Out), "protected-in", &plain.concat());
    let mut sent = run.unprotected.iter().map(|(_, packet)| packet.clone());
    let mut verdicts = run.verdicts.iter();
    let mut packets = Vec::new();
    for (case, plain) in cases.iter().zip(&plain) {
        for number in case.numbers(plain.len()) {
            let verdict = verdicts.next().unwrap();
            assert_eq!(verdict.outcome(), "forward", "{verdict:?} of {}", case.name());
            let expected = (Some(case.spi(Way::Out)), Some(number));
            assert_eq!((verdict.spi, verdict.seq), expected, "{}", case.name());
        }
        packets.push(sent.by_ref().take(plain.len()).collect());
    }
    assert!(verdicts.next().is_none() && sent.next().is_none());
    let sealed: Vec<Vec<Vec<u8>>> = plain
        .iter()
        .map(|packets| packets.iter().map(|packet| forwarded(packet)).collect())
        .collect();
    let opened = witness.open(cases, &packets, &sealed);
    for ((case, plain), opened) in cases.iter().zip(&sealed).zip(&opened) {
        assert_eq!(opened.unnoticed, [""; 0], "damage to {} was not noticed", case.name());
        assert_eq!(opened.found.len(), plain.len());
        for (plain, facts) in plain.iter().zip(&opened.found) {
            check(case, plain, facts);
        }
        let ivs: BTreeSet<&str> = opened.found.iter().map(|facts| facts.iv.as_str()).collect();
        let expected = if case.algorithm.iv_len() == 0 { 1 } else { plain.len() };
        assert_eq!(ivs.len(), expected, "IVs of {}", case.name());
    }
    Some(opened.into_iter().map(|opened| opened.gap).collect())
}

/// The headers of a packet that the witness opened are those that were due.
#[track_caller]
fn check(case: &Case, plain: &[u8], facts: &Facts) {
    let name = case.name();
    let inner = ip::parse(plain).unwrap();
    let (next, payload_len) = match case.is_tunnel {
        true => (next_header(plain), plain.len()),
        false => (inner.protocol(), plain.len() - inner.upper_at()),
    };
    assert_eq!(facts.next_header, next, "{name}");
    assert_eq!(facts.tos, inner.tos(), "{name}");
    assert_eq!(facts.ttl, if case.is_tunnel { 64 } else { inner.ttl() }, "{name}");
    let dont_fragment = match inner {
        ip::Packet::V4(inner) => inner.dont_fragment,
        ip::Packet::V6(_) => true,
    };
    assert_eq!(facts.df, (!case.outer_six).then_some(dont_fragment), "{name}");
    assert_eq!(facts.header_length, if case.outer_six { 40 } else { 20 }, "{name}");
    let checksum = if case.outer_six { "ok" } else { "zero" };
    assert_eq!(facts.udp.as_deref(), case.encapsulated.then_some(checksum), "{name}");
    let algorithm = case.algorithm;
    match algorithm.protocol() {
        Protocol::Esp => {
            // What is behind the IV is aligned to 8 octets of ESP, so also in IPv6.
            let iv_len = facts.iv.len() / 2;
            assert!(iv_len == algorithm.iv_len() && iv_len.is_multiple_of(8), "{name}");
            let pad_len = (payload_len + 2).wrapping_neg() % algorithm.block_len();
            assert_eq!(facts.pad_length, Some(pad_len), "{name}");
            assert_eq!(facts.icv_length, algorithm.icv_len(), "{name}");
        }
        Protocol::Ah => {
            // RFC 4302 section 2.2, with the padding of section 3.3.3.2.1.
            let words = match (facts.icv_length, case.outer_six) {
                (16, false) => 5,
                (16, true) => 6,
                (24, false) => 7,
                (24, true) => 8,
                (32, false) => 9,
                (32, true) => 10,
                other => panic!("{other:?}"),
            };
            assert_eq!((facts.payload_length, facts.reserved), (Some(words), Some(0)), "{name}");
        }
    }
}

/// The witness seals packets of every case, culvert opens them; returns the gaps. In front of them
/// are damaged copies, each of which is dropped for its ICV and disturbs nothing; behind them, and
/// dropped as replays, are the packets once more.
fn scapy_seals(cases: &[Case]) -> Option<Vec<Option<String>>> {
    let mut witness = Witness::start()?;
    let plain = witness.plain(cases, Way::In, sizes);
    let sealed = witness.seal(cases, &plain);
    let mut input = Vec::new();
    let mut expected = Vec::new();
    let mut gaps = Vec::new();
    for (case, answer) in cases.iter().zip(sealed) {
        let covered_parts = match case.algorithm.protocol() {
            // Number, text, pad length, next header, and the ICV twice; where there is one, the IV.
            Protocol::Esp => 6 + usize::from(case.algorithm.iv_len() > 0),
            // Source, next header, reserved, number, payload, and the ICV twice; in IPv4 the
            // identification, in IPv6 the padding of the ICV.
            Protocol::Ah => 8,
        };
        assert_eq!(answer.damaged.len(), covered_parts, "{}", case.name());
        for (what, packet) in answer.damaged {
            input.push(packet.0);
            expected.push((case, "icv", what));
        }
        let sealed = octets(answer.sealed);
        for (outcome, copies) in [("forward", sealed.clone()), ("replay", sealed)] {
            expected.extend(copies.iter().map(|_| (case, outcome, String::new())));
            input.extend(copies);
        }
        gaps.push(answer.gap);
    }
    let run = run(&case::config(cases, Way::In), "unprotected-in", &input);
    assert_eq!(run.verdicts.len(), expected.len());
    for (verdict, (case, outcome, what)) in run.verdicts.iter().zip(&expected) {
        let name = case.name();
        assert_eq!(verdict.outcome(), *outcome, "{what}: {verdict:?} of {name}");
        assert_eq!(verdict.spi, Some(case.spi(Way::In)), "{what}: {verdict:?} of {name}");
    }
    let mut delivered = run.protected.iter().map(|(_, packet)| packet);
    for (case, plain) in cases.iter().zip(&plain) {
        for plain in plain {
            assert_eq!(delivered.next(), Some(&forwarded(plain)), "{}", case.name());
        }
    }
    assert!(delivered.next().is_none(), "nothing else came out");
    Some(gaps)
}

/// Asserts the number of cases of a group, and of those in which scapy had no help and had it.
fn tally(cases: &[Case], gaps: Option<Vec<Option<String>>>, alone: usize, helped: [usize; 4]) {
    let Some(gaps) = gaps else { return };
    assert_eq!(gaps.len(), cases.len());
    report_gaps(cases, gaps.iter().map(Option::as_deref), alone, helped);
}

/// Every algorithm of ESP in tunnels of all four family pairs, raw and in UDP, with and without
/// ESN: culvert's packets are octet for octet those of the witness, which opens them and notices
/// every damage.
///
/// P26, P27: ESP, in tunnel mode.
/// E01, M08: the first number is 1. E07, E08, E09: padding is 1, 2, 3, and as short as alignment
/// allows. E10: next header 4 and 41. E14: the ICV is right over all. E15: with ESN and an HMAC the
/// high half is covered and not sent. E19: text is aligned to 8 octets. E20: protocol, length and
/// checksum of the outer header. G01, G03, G06, G07, G08: nonces and covered octets of each
/// algorithm. G04: ICVs of AES-GCM with 16, 12 and 8 octets. P18: outer DSCP, ECN, DF, TTL. U01,
/// U02: ports, and the checksum zero in IPv4.
#[test]
fn esp_tunnel_sealed_by_culvert() {
    let cases = case::all(Protocol::Esp, true);
    assert_eq!(cases.len(), 464);
    tally(&cases, we_seal(&cases), 160, [96, 48, 96, 64]);
}

/// The same cases the other way.
///
/// P26, P27: ESP, in tunnel mode.
/// I06, I12: a bit changed in number, IV, text, trailer or ICV: dropped for its ICV, counted once,
/// nothing delivered. I07: a forged number far ahead moves no window. I18: numbers run across
/// 2^32. E15, G01, G03, G04, G06, G07, G08: nonces, covered octets, lengths. U01: ESP in UDP.
#[test]
fn esp_tunnel_sealed_by_scapy() {
    let cases = case::all(Protocol::Esp, true);
    assert_eq!(cases.len(), 464);
    tally(&cases, scapy_seals(&cases), 160, [96, 48, 96, 64]);
}

/// Every algorithm of ESP in transport mode, as in tunnel mode.
///
/// P26: transport mode.
/// E10: the next header is the upper protocol. E20: protocol, length and checksum of the header
/// that stays. E07, E08, E09, E14, E15, E19, G01, G03, G06, G07, G08, U01, U02: as there.
#[test]
fn esp_transport_sealed_by_culvert() {
    let cases = case::all(Protocol::Esp, false);
    assert_eq!(cases.len(), 232);
    tally(&cases, we_seal(&cases), 80, [48, 24, 48, 32]);
}

/// P26, I06, I12, I07, I18, E15, G01, G03, G06, G07, G08: transport mode, the other way.
#[test]
fn esp_transport_sealed_by_scapy() {
    let cases = case::all(Protocol::Esp, false);
    assert_eq!(cases.len(), 232);
    tally(&cases, scapy_seals(&cases), 80, [48, 24, 48, 32]);
}

/// Every algorithm of AH in tunnels of all four family pairs, with and without ESN: octet for octet
/// the packets of the witness.
///
/// P27: AH, too.
/// A01: payload length. A02: reserved is 0. A03, A04: the ICV is right over both headers. A05: the
/// header is as long as 4 octets ask for, 8 in IPv6. A06: the high half is covered and not sent.
#[test]
fn ah_tunnel_sealed_by_culvert() {
    let cases = case::all(Protocol::Ah, true);
    assert_eq!(cases.len(), 48);
    tally(&cases, we_seal(&cases), 24, [0, 24, 0, 0]);
}

/// P27: AH, too.
/// A02, A03, A04, A05, A06: AH in tunnels, the other way; a bit changed in an immutable header
/// field, the header, its padding, the payload or the ICV: dropped for its ICV. A07: replays too.
#[test]
fn ah_tunnel_sealed_by_scapy() {
    let cases = case::all(Protocol::Ah, true);
    assert_eq!(cases.len(), 48);
    tally(&cases, scapy_seals(&cases), 24, [0, 24, 0, 0]);
}

/// A01, A02, A03, A04, A05, A06: AH in transport mode, octet for octet as the witness has it.
#[test]
fn ah_transport_sealed_by_culvert() {
    let cases = case::all(Protocol::Ah, false);
    assert_eq!(cases.len(), 24);
    tally(&cases, we_seal(&cases), 12, [0, 12, 0, 0]);
}

/// A02, A03, A04, A05, A06, A07: AH in transport mode, the other way.
#[test]
fn ah_transport_sealed_by_scapy() {
    let cases = case::all(Protocol::Ah, false);
    assert_eq!(cases.len(), 24);
    tally(&cases, scapy_seals(&cases), 12, [0, 12, 0, 0]);
}
