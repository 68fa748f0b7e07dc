//! What AH covers of the headers in front of it: each bit, each option, and source routes.

use culvert_aead::Algorithm;

use super::case;
use super::case::Case;
use super::case::Way;
use super::run;
use super::witness::Witness;
use super::witness::octets;
use crate::packets::changed;
use crate::packets::forwarded;
use crate::packets::with_tos;

/// What has to become of a packet in which one bit was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bit {
    /// Routers may change it.
    Mutable,
    /// The ICV covers it.
    Covered,
    /// Without it, it is not an AH packet of this SA any more, whatever its ICV.
    Identity,
}

/// RFC 4302 section 3.3.3.1 and the format of AH. Bit 0 is the least significant of its octet.
fn class(six: bool, octet: usize, bit: usize) -> Bit {
    let ah_at = if six { 40 } else { 20 };
    if octet >= ah_at {
        return match octet - ah_at {
            // The length of the header; the SPI.
            1 | 4..8 => Bit::Identity,
            _ => Bit::Covered,
        };
    }
    match (six, octet, bit) {
        // DSCP and ECN; reserved flag, don't fragment; TTL.
        (false, 1 | 8, _) | (false, 6, 6..) => Bit::Mutable,
        // Identification; source.
        (false, 4 | 5 | 12..16, _) | (true, 8..24, _) => Bit::Covered,
        // Traffic class, flow label; hop limit.
        (true, 0, ..4) | (true, 1..4 | 7, _) => Bit::Mutable,
        // Version and lengths, more fragments and offset, protocol, destination.
        _ => Bit::Identity,
    }
}

fn flipped(packet: &[u8], octet: usize, bit: usize) -> Vec<u8> {
    changed(packet, |packet| packet[octet] ^= 1 << bit)
}

/// A01, A02, A03, A04, I06, I12: every bit of an AH packet in turn, in both families and modes. If
/// a router may change it, the packet comes out as scapy has it; if the ICV covers it, the packet
/// is dropped for that, and scapy drops it too; else it is no packet of the SA. None of them
/// disturbs the genuine packet.
#[test]
fn every_bit_of_an_ah_packet() {
    let Some(mut witness) = Witness::start() else { return };
    let mut cases = Vec::new();
    for six in [false, true] {
        let number = |mode: u16| mode + if six { 3 } else { 1 };
        cases.push(Case::tunnel(number(0), Algorithm::AhSha256, six));
        cases.push(Case::transport(number(1), Algorithm::AhSha256, six));
    }
    let mut input = Vec::new();
    let mut expected = Vec::new();
    let mut delivered = Vec::new();
    for case in &cases {
        for (packet, outcome, inner) in bits_of(&mut witness, case) {
            input.push(packet);
            expected.push((case.name(), outcome));
            delivered.extend(inner);
        }
    }
    let run = run(&case::config(&cases, Way::In), "unprotected-in", &input);
    let mut counts = [0; 3];
    for (verdict, (name, what)) in run.verdicts.iter().zip(&expected) {
        match what.1 {
            Bit::Mutable => assert_eq!(verdict.outcome(), "forward", "{what:?} of {name}"),
            Bit::Covered => assert_eq!(verdict.outcome(), "icv", "{what:?} of {name}"),
            Bit::Identity => {
                let passed = matches!(verdict.outcome(), "forward" | "bypass");
                assert!(!passed, "{what:?}: {verdict:?} of {name}");
            }
        }
        counts[what.1 as usize] += 1;
    }
    // The genuine packets are among the first. In IPv4 8 + 8 + 2 bits, in IPv6 8 + 20 + 8.
    assert_eq!(counts[0], 2 * (18 + 1) + 2 * (36 + 1));
    let packets: Vec<Vec<u8>> = run.protected.into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(packets, delivered);
}

type Changed = (Vec<u8>, ((usize, usize), Bit), Option<Vec<u8>>);

/// The packets for a case: those that must not pass, those that must, and the genuine one.
fn bits_of(witness: &mut Witness, case: &Case) -> Vec<Changed> {
    let plain = witness.plain(std::slice::from_ref(case), Way::In, |_| vec![4]).remove(0).remove(0);
    // No bit of the outer ECN changes what is inside, and no bit of the TTL uses it up.
    let plain = with_tos(&plain, 0);
    let ttl_at = if case.inner_six { 7 } else { 8 };
    let plain = changed(&plain, |packet| packet[ttl_at] = 0x55);
    // One packet for what may change, and one for each of those changes, under other numbers.
    let sealed = witness.seal(std::slice::from_ref(case), &[vec![plain.clone(); 40]]);
    let sealed = octets(sealed.into_iter().next().unwrap().sealed);
    // Of number 3 no bit makes a number that was seen, or 0.
    let (genuine, mut fresh) = (&sealed[2], sealed[3..].iter());
    let mut found: Vec<((usize, usize), Bit, Vec<u8>)> = Vec::new();
    for octet in 0..genuine.len() {
        // The IPv4 checksum follows from the rest.
        for bit in (0..8).filter(|_| case.outer_six || !(10..12).contains(&octet)) {
            let class = class(case.outer_six, octet, bit);
            let base = if class == Bit::Mutable { fresh.next().unwrap() } else { genuine };
            found.push(((octet, bit), class, flipped(base, octet, bit)));
        }
    }
    found.sort_by_key(|(_, class, _)| *class == Bit::Mutable);
    found.push(((0, 0), Bit::Mutable, genuine.clone()));
    let packets: Vec<Vec<u8>> = found.iter().map(|(_, _, packet)| packet.clone()).collect();
    let judged = witness.judge(case, Way::In, &packets, &vec![0; packets.len()]);
    let changed = |((place, class, packet), judged): ((_, Bit, Vec<u8>), Option<Vec<u8>>)| {
        // scapy takes fragments for whole packets.
        let more_fragments = place == (6, 5) && !case.outer_six;
        let name = case.name();
        assert_eq!(
            judged.is_some(),
            class == Bit::Mutable || more_fragments,
            "{place:?} of {name}"
        );
        let inner = judged.filter(|_| class == Bit::Mutable).map(|inner| {
            assert!(!case.is_tunnel || inner == plain, "{place:?} of {name}");
            forwarded(&inner)
        });
        (packet, (place, class), inner)
    };
    found.into_iter().zip(judged).map(changed).collect()
}

/// A02: a reserved field that is not 0 is no reason to drop a packet, but the ICV covers it.
#[test]
fn ah_reserved_field_is_ignored_and_covered() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, false);
    let plain = witness.plain(std::slice::from_ref(&case), Way::In, |_| vec![9]).remove(0);
    let mut sa = case.description(Way::In);
    sa["reserved"] = 0xbeef.into();
    let sealed = witness.seal_as(&sa, &plain, &[1]).remove(0);
    assert_eq!(sealed[22..24], [0xbe, 0xef]);
    let cleared = changed(&sealed, |packet| packet[22..24].fill(0));
    let run = run(&case::config(&[case], Way::In), "unprotected-in", &[cleared, sealed]);
    assert_eq!(run.outcomes(), ["icv", "forward"]);
    assert_eq!(run.protected[0].1, forwarded(&plain[0]));
}

/// IPv4 options, and which of their octets may change on the way.
struct Options {
    octets: &'static [u8],
    mutable: &'static [usize],
    covered: &'static [usize],
}

/// RFC 4302 appendix A1.
const OPTIONS: [Options; 10] = [
    // No operation and end.
    Options { octets: &[1, 1, 1, 0], mutable: &[], covered: &[2] },
    // Router alert.
    Options { octets: &[0x94, 4, 0, 0], mutable: &[], covered: &[2, 3] },
    // Security, extended security, commercial security.
    Options { octets: &[0x82, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0], mutable: &[], covered: &[2, 10] },
    Options { octets: &[0x85, 4, 1, 2], mutable: &[], covered: &[2, 3] },
    Options { octets: &[0x86, 8, 1, 2, 3, 4, 5, 6], mutable: &[], covered: &[2, 7] },
    // Record route.
    Options { octets: &[7, 7, 4, 0, 0, 0, 0, 0], mutable: &[2, 3, 6], covered: &[] },
    // Time stamp.
    Options { octets: &[0x44, 8, 5, 0, 1, 2, 3, 4], mutable: &[2, 3, 4, 7], covered: &[] },
    // Loose source route, used up.
    Options { octets: &[0x83, 7, 8, 192, 0, 2, 9, 0], mutable: &[3, 6], covered: &[] },
    // An option that nobody knows.
    Options { octets: &[0x99, 4, 0xaa, 0xbb], mutable: &[2, 3], covered: &[] },
    // Several.
    Options {
        octets: &[0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0, 0x82, 4, 6, 6],
        mutable: &[8, 11],
        covered: &[2, 14, 15],
    },
];

/// The packet with options behind its header.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], options, &packet[20..]].concat();
    let len = u16::try_from(packet.len()).unwrap();
    packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    changed(&packet, |_| {})
}

/// A packet of each of the options in turn.
fn packets_with_options(witness: &mut Witness, case: &Case, way: Way) -> Vec<Vec<u8>> {
    let plain = witness.plain(std::slice::from_ref(case), way, |_| vec![20]).remove(0).remove(0);
    OPTIONS.iter().map(|options| with_options(&plain, options.octets)).collect()
}

/// A03: culvert seals packets with IPv4 options; scapy opens them, also when a router has changed
/// what it may, but not when anything else was changed.
#[test]
fn ah_with_ipv4_options_sealed_by_culvert() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, false);
    let plain = packets_with_options(&mut witness, &case, Way::Out);
    let run = run(&case::config(std::slice::from_ref(&case), Way::Out), "protected-in", &plain);
    run.assert_all("forward");
    for (((_, packet), plain), options) in run.unprotected.iter().zip(&plain).zip(&OPTIONS) {
        let flip = |at: &usize| flipped(packet, 20 + at, 6);
        let mutable: Vec<Vec<u8>> = options.mutable.iter().map(flip).collect();
        let covered: Vec<Vec<u8>> = options.covered.iter().map(flip).collect();
        let packets = [vec![packet.clone()], mutable, covered].concat();
        let judged = witness.judge(&case, Way::Out, &packets, &vec![0; packets.len()]);
        let (pass, drop) = judged.split_at(1 + options.mutable.len());
        let name = hex::encode(options.octets);
        assert_eq!(pass[0], Some(forwarded(plain)), "{name}");
        for (judged, at) in pass[1..].iter().zip(options.mutable) {
            assert_eq!(*judged, Some(flipped(&forwarded(plain), 20 + at, 6)), "{at} of {name}");
        }
        assert!(drop.iter().all(Option::is_none), "{name}");
    }
}

/// A03: the other way: what a router may change in an option comes out changed, any other change is
/// noticed.
#[test]
fn ah_with_ipv4_options_sealed_by_scapy() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, false);
    let plain = packets_with_options(&mut witness, &case, Way::In);
    // Under a number of its own for each that passes.
    let copies =
        |(plain, options): (&Vec<u8>, &Options)| vec![plain.clone(); 1 + options.mutable.len()];
    let all: Vec<Vec<u8>> = plain.iter().zip(&OPTIONS).flat_map(copies).collect();
    let sealed = witness.seal(std::slice::from_ref(&case), &[all]).remove(0);
    let mut sealed = octets(sealed.sealed).into_iter();
    let (mut input, mut outcomes, mut delivered) = (Vec::new(), Vec::new(), Vec::new());
    for (plain, options) in plain.iter().zip(&OPTIONS) {
        let genuine = sealed.next().unwrap();
        for at in options.covered {
            input.push(flipped(&genuine, 20 + at, 6));
            outcomes.push("icv");
        }
        input.push(genuine);
        delivered.push(forwarded(plain));
        for at in options.mutable {
            input.push(flipped(&sealed.next().unwrap(), 20 + at, 6));
            delivered.push(flipped(&forwarded(plain), 20 + at, 6));
        }
        outcomes.resize(input.len(), "forward");
    }
    let run = run(&case::config(&[case], Way::In), "unprotected-in", &input);
    assert_eq!(run.outcomes(), outcomes);
    let packets: Vec<Vec<u8>> = run.protected.into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(packets, delivered);
}

/// The last stop of each route.
const FINAL_V4: [u8; 4] = [192, 0, 2, 9];
const FINAL_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// A03: culvert seals a packet with a loose source route; behind its last router the destination is
/// the one at the end of the route, and scapy finds it authentic.
#[test]
fn ah_covers_ipv4_source_routes_as_they_arrive() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, false);
    let plain = witness.plain(std::slice::from_ref(&case), Way::Out, |_| vec![20]).remove(0);
    let [a, b, c, d] = FINAL_V4;
    let sent = with_options(&plain[0], &[0x83, 7, 4, a, b, c, d, 0]);
    let run = run(&case::config(std::slice::from_ref(&case), Way::Out), "protected-in", &[sent]);
    run.assert_all("forward");
    let sealed = &run.unprotected[0].1;
    let arrived = changed(sealed, |packet| {
        packet[22] = 8;
        let (first, last) = (packet[16..20].to_vec(), packet[23..27].to_vec());
        packet[16..20].copy_from_slice(&last);
        packet[23..27].copy_from_slice(&first);
    });
    let judged = witness.judge(&case, Way::Out, &[sealed.clone(), arrived], &[0, 0]);
    assert!(judged[0].is_none(), "as it was sent it is not what arrives");
    assert!(judged[1].is_some(), "the ICV is that of the packet that arrives");
}

/// An IPv6 packet with a routing header of type 0 and one segment left, and how it arrives.
fn routed(packet: &[u8], last: [u8; 16]) -> Vec<u8> {
    let mut packet =
        [&packet[..40], &[packet[6], 2, 0, 1, 0, 0, 0, 0], &last, &packet[40..]].concat();
    packet[6] = 43;
    let len = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

fn arrived(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let (first, last) = (packet[24..40].to_vec(), packet[48..64].to_vec());
    packet[24..40].copy_from_slice(&last);
    packet[48..64].copy_from_slice(&first);
    packet[43] = 0;
    packet
}

/// A04: the same with an IPv6 routing header, both ways.
#[test]
fn ah_covers_ipv6_routing_headers_as_they_arrive() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, true);
    let plain = witness.plain(std::slice::from_ref(&case), Way::Out, |_| vec![20]).remove(0);
    let sent = routed(&plain[0], FINAL_V6);
    let out = run(&case::config(std::slice::from_ref(&case), Way::Out), "protected-in", &[sent]);
    out.assert_all("forward");
    let sealed = &out.unprotected[0].1;
    let judged = witness.judge(&case, Way::Out, &[sealed.clone(), arrived(sealed)], &[0, 0]);
    assert!(judged[0].is_none(), "as it was sent it is not what arrives");
    assert!(judged[1].is_some(), "the ICV is that of the packet that arrives");

    let plain = witness.plain(std::slice::from_ref(&case), Way::In, |_| vec![20]).remove(0);
    // It is on its way to another node, behind which is the gateway.
    let mut first = plain[0].clone();
    first[24..40].copy_from_slice(&FINAL_V6);
    let last = plain[0][24..40].try_into().unwrap();
    let sent = routed(&first, last);
    let sealed = witness.seal(std::slice::from_ref(&case), &[vec![sent.clone()]]).remove(0);
    let packets = [arrived(&sealed.sealed[0].0)];
    let run = run(&case::config(&[case], Way::In), "unprotected-in", &packets);
    run.assert_all("forward");
    assert_eq!(run.protected[0].1, forwarded(&arrived(&sent)));
}

/// The packet with a fragment header that says it is whole, behind its IPv6 header.
fn left_over(packet: &[u8]) -> Vec<u8> {
    let header = [packet[6], 0, 0, 0, 0xde, 0xad, 0xbe, 0xef];
    let mut packet = [&packet[..40], &header, &packet[40..]].concat();
    packet[6] = 44;
    let len = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

/// A04: a fragment header that was left on a whole packet is no part of what AH covers, both ways:
/// culvert seals such a packet without it, and scapy opens that; of what scapy sealed without one,
/// culvert takes it out again.
#[test]
fn ah_leaves_out_a_left_over_fragment_header() {
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::transport(1, Algorithm::AhSha256, true);
    let plain = witness.plain(std::slice::from_ref(&case), Way::Out, |_| vec![20]).remove(0);
    let config = case::config(std::slice::from_ref(&case), Way::Out);
    let out = run(&config, "protected-in", &[left_over(&plain[0])]);
    out.assert_all("forward");
    let judged = witness.judge(&case, Way::Out, &[out.unprotected[0].1.clone()], &[0]);
    assert_eq!(judged, [Some(forwarded(&plain[0]))]);

    let plain = witness.plain(std::slice::from_ref(&case), Way::In, |_| vec![20]).remove(0);
    let sealed = witness.seal(std::slice::from_ref(&case), std::slice::from_ref(&plain)).remove(0);
    let sealed = octets(sealed.sealed).remove(0);
    let bent = changed(&left_over(&sealed), |packet| packet[40 + 8 + 12] ^= 1);
    let run = run(&case::config(&[case], Way::In), "unprotected-in", &[bent, left_over(&sealed)]);
    let delivered: Vec<_> = run.protected.into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(delivered, [forwarded(&plain[0])]);
    assert_eq!(run.report.more.get("icv"), Some(&1));
}
