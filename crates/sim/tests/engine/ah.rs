//! AH: every octet of it in both modes and over both families, what it covers, and what it does
//! not.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_esp::Mode;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::hmac_sha256;
use crate::packets::hop;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::gateway;
use crate::support::none;
use crate::support::one;
use crate::support::sample;
use crate::support::through;

/// AH of `sha256` between two hosts behind the gateways, or between the gateways.
pub(crate) fn tunnel(mode: Mode, six: bool) -> Tunnel {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::AhSha256).with_mode(mode);
    match mode {
        Mode::Tunnel => tunnel.with_outer(six),
        Mode::Transport => {
            let outer = [A, B].map(|side| Scenario::host(side, 0, six, 5));
            Tunnel { outer, ..tunnel }
        }
    }
}

fn addresses(tunnel: &Tunnel) -> (IpAddr, IpAddr) {
    (tunnel.outer[A], tunnel.outer[B])
}

/// What a header without options looks like to the ICV (RFC 4302 section 3.3.3.1).
fn covered(header: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    match header[0] >> 4 {
        4 => {
            header[1] = 0;
            header[6..9].fill(0);
            header[10..12].fill(0);
        }
        _ => {
            header[0] = 0x60;
            header[1..4].fill(0);
            header[7] = 0;
        }
    }
    header
}

/// An AH packet: `header` as it is sent, `covered` as the ICV sees it, and what AH protects.
fn ah_packet(
    (spi, keymat): (u32, &Keymat),
    (seq, esn_high): (u32, Option<u32>),
    (header, covered): (&[u8], &[u8]),
    (next_header, payload): (u8, &[u8]),
) -> Vec<u8> {
    let field = if header[0] >> 4 == 4 { 16 } else { 20 };
    let words = (12 + field) / 4 - 2;
    let mut ah = vec![next_header, words, 0, 0];
    ah.extend(spi.to_be_bytes());
    ah.extend(seq.to_be_bytes());
    ah.extend(vec![0; field.into()]);
    let high = esn_high.map(u32::to_be_bytes);
    let high = high.as_ref().map_or(&[][..], |high| high);
    let icv = hmac_sha256(keymat, &[covered, &ah, payload, high]);
    ah[12..28].copy_from_slice(&icv);
    [header, &ah, payload].concat()
}

/// The AH packet around `payload` with the header that it has on the wire.
pub(crate) fn sent(tunnel: &Tunnel, seq: u64, wire: &[u8], content: (u8, &[u8])) -> Vec<u8> {
    let header_len = if wire[0] >> 4 == 4 { 20 } else { 40 };
    let header = &wire[..header_len];
    let high = tunnel.esn.then_some((seq >> 32) as u32);
    let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
    let low = u32::try_from(seq & 0xffff_ffff).unwrap();
    ah_packet(sa, (low, high), (header, &covered(header)), content)
}

/// A01, A02, A05, A06, A08: octets of AH in transport mode over both families, with ESN and
/// without: payload length 5 in IPv4 and 6 in IPv6, reserved zero, the ICV over what does not
/// change.
#[test]
fn transport_octets() {
    for (six, start, esn) in [
        (false, 0, false),
        (true, 0, false),
        (false, u64::from(u32::MAX), true),
        (true, 7 << 32, true),
    ] {
        let tunnel = Tunnel { esn, start: [start; 2], ..tunnel(Mode::Transport, six) };
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        for (seq, len) in (start + 1..).zip([0, 1, 2, 3, 500]) {
            let segment = packets::udp(addresses(&tunnel), len);
            let plain = packet(addresses(&tunnel), 17, &segment);
            let room = vec![0; segment.len() + if six { 32 } else { 28 }];
            let wire = hop(&packet(addresses(&tunnel), 51, &room));
            let expected = sent(&tunnel, seq, &wire, (17, &segment));
            let made = one(&mut a, (A, LAN), &plain);
            assert_eq!(made, expected, "{len} octets, IPv6 {six}");
            assert_eq!(one(&mut b, (B, WAN), &made), hop(&hop(&plain)), "{len} octets");
        }
    }
}

/// A03: options that say nothing of where they end leave nothing to compute an ICV over; the packet
/// is dropped, and counted for its SA.
#[test]
fn options_without_end_are_not_sent() {
    let tunnel = tunnel(Mode::Transport, false);
    let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
    let plain = packet(addresses(&tunnel), 17, &packets::udp(addresses(&tunnel), 20));
    let mut wrong = plain.clone();
    wrong.splice(20..20, [7, 1, 0, 0]);
    wrong[0] = 0x46;
    let len = u16::try_from(wrong.len()).unwrap();
    wrong[2..4].copy_from_slice(&len.to_be_bytes());
    wrong[10..12].fill(0);
    let sum = culvert_wire::checksum::internet(&wrong[..24]);
    wrong[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(none(&mut a, (A, LAN), &wrong), Fate::Drop(DropReason::Malformed));
    assert_eq!(sample(&a, false).dropped[DropReason::Malformed as usize], 1);
    one(&mut a, (A, LAN), &plain);
}

/// A01, A03, A04, A05: octets of AH in tunnel mode, in all four pairs of families.
#[test]
fn tunnel_octets() {
    for (six, inner_six) in [(false, false), (false, true), (true, false), (true, true)] {
        let tunnel = tunnel(Mode::Tunnel, six);
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let hosts = (Scenario::host(A, 0, inner_six, 5), Scenario::host(B, 0, inner_six, 5));
        let plain = packet(hosts, 17, &packets::udp(hosts, 77));
        let inner = hop(&plain);
        let room = vec![0; inner.len() + if six { 32 } else { 28 }];
        let mut wire = packet(addresses(&tunnel), 51, &room);
        let made = one(&mut a, (A, LAN), &plain);
        if !six {
            // DF as the inner packet has it, or set; identification as the worker numbers them.
            let flags = if inner_six { 0x40 } else { 0 };
            wire = with(&wire, 4, &[made[4], made[5], flags]);
        }
        let next = if inner_six { 41 } else { 4 };
        assert_eq!(made, sent(&tunnel, 1, &wire, (next, &inner)), "{inner_six} in {six}");
        assert_eq!(one(&mut b, (B, WAN), &made), hop(&inner));
    }
}

/// A receiver without a window, so that one packet can come often; and a packet for it.
fn receiver(six: bool) -> (TestGateway, Vec<u8>) {
    let scenario = Scenario::quiet(vec![tunnel(Mode::Transport, six)]);
    let b = changed(&scenario, B, |config| {
        config.sas.iter_mut().for_each(|sa| sa.replay_window = 0);
    });
    let addresses = addresses(&scenario.tunnels[0]);
    let plain = packet(addresses, 17, &packets::udp(addresses, 8));
    let plain = with(&plain, if six { 7 } else { 8 }, &[0x5a]);
    let mut a = gateway(&scenario, A);
    let made = one(&mut a, (A, LAN), &plain);
    (b, made)
}

/// A03, A02: of an IPv4 packet, bit by bit: a change of DSCP, ECN, DF, the reserved flag, or TTL is
/// not noticed; a change of anything else is, reserved field and padding of AH included.
#[test]
fn each_bit_over_v4() {
    let (mut b, packet) = receiver(false);
    for bit in 0..packet.len() * 8 {
        let (at, mask) = (bit / 8, 0x80u8 >> (bit % 8));
        if matches!(at, 10 | 11) {
            // The header checksum is zero to the ICV, and checked by every router.
            continue;
        }
        let bent = with(&packet, at, &[packet[at] ^ mask]);
        let frame = crate::support::arriving(B, WAN, &bent);
        let delivered = crate::support::turn(&mut b, 0, WAN, &[&frame]);
        let mutable = at == 1 || at == 8 || (at == 6 && mask >= 0x40);
        assert_eq!(delivered.len(), usize::from(mutable), "octet {at}, bit {mask:#x}");
    }
    assert_eq!(through(&mut b, (B, WAN), &[&packet]).len(), 1);
    let icv = b.counters().dropped(DropReason::Icv);
    // ID, source, AH without next header's place in the lookup (SPI) and length, payload.
    assert!(icv >= u64::try_from((packet.len() - 20 - 8) * 8).unwrap(), "{icv}");
}

/// A04, A02: of an IPv6 packet, bit by bit: a change of traffic class, flow label or hop limit is
/// not noticed; a change of anything else is.
#[test]
fn each_bit_over_v6() {
    let (mut b, packet) = receiver(true);
    for bit in 0..packet.len() * 8 {
        let (at, mask) = (bit / 8, 0x80u8 >> (bit % 8));
        let mut bent = packet.clone();
        bent[at] ^= mask;
        let frame = crate::support::on_wire(A, &bent);
        let delivered = crate::support::turn(&mut b, 0, WAN, &[&frame]);
        let mutable = matches!(at, 1..=3 | 7) || (at == 0 && mask < 0x10);
        assert_eq!(delivered.len(), usize::from(mutable), "octet {at}, bit {mask:#x}");
    }
    assert_eq!(through(&mut b, (B, WAN), &[&packet]).len(), 1);
}

/// A03: options of IPv4 are covered by their own rule: NOP, end, and router alert as they are;
/// record route, timestamp, and those unknown as zeroes, type and length too.
#[test]
fn options_over_v4() {
    let tunnel = tunnel(Mode::Transport, false);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let options = [1, 148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 30, 4, 9, 9];
    let seen = [1, 148, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let segment = packets::udp(addresses(&tunnel), 10);
    let plain = packet_with(addresses(&tunnel), &options, 17, &segment);
    let room = vec![0; segment.len() + 28];
    let wire = hop(&packet_with(addresses(&tunnel), &options, 51, &room));
    let covered = [&covered(&wire[..20])[..], &seen].concat();
    let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
    let expected = ah_packet(sa, (1, None), (&wire[..36], &covered), (17, &segment));
    let made = one(&mut a, (A, LAN), &plain);
    assert_eq!(made, expected);
    // A router on the way records itself.
    let recorded = with(&made, 20 + 5 + 2, &[8, 192, 0, 2, 254]);
    let expected = hop(&hop(&with(&plain, 20 + 5 + 2, &[8, 192, 0, 2, 254])));
    assert_eq!(one(&mut b, (B, WAN), &recorded), expected);
}

/// A04: options of IPv6 whose type says that they may change are covered as zeroes, the others as
/// they are.
#[test]
fn options_over_v6() {
    let tunnel = tunnel(Mode::Transport, true);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let segment = packets::udp(addresses(&tunnel), 10);
    // Types 0x3e, which may change, and 0x1e, which may not.
    let options = |next| [next, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 4, 5, 6, 7, 8, 1, 0];
    let mut seen = options(51);
    seen[4..8].fill(0);
    let plain = packet_with(addresses(&tunnel), &options(17), 0, &segment);
    let room = vec![0; segment.len() + 32];
    let wire = hop(&packet_with(addresses(&tunnel), &options(51), 0, &room));
    let covered = [&covered(&wire[..40])[..], &seen].concat();
    let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
    let expected = ah_packet(sa, (1, None), (&wire[..56], &covered), (17, &segment));
    let made = one(&mut a, (A, LAN), &plain);
    assert_eq!(made, expected);
    let second = one(&mut a, (A, LAN), &plain);
    let changed = with(&second, 40 + 8 + 2, &[0xff]);
    assert_eq!(none(&mut b, (B, WAN), &changed), Fate::Drop(DropReason::Icv));
    let changed = with(&made, 40 + 4, &[0xff]);
    let expected = hop(&hop(&with(&plain, 40 + 4, &[0xff])));
    assert_eq!(one(&mut b, (B, WAN), &changed), expected);
}

/// The fragment header of a packet that is whole (RFC 6946).
fn atomic(next: u8) -> [u8; 8] {
    [next, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd]
}

/// A04: a fragment header on a whole packet is taken out before AH goes in: the ICV covers neither
/// it nor its length, and the header before it announces AH; octet by octet, alone, behind
/// hop-by-hop options, and before destination options, which AH protects.
#[test]
fn left_over_fragment_header_is_removed_before_ah() {
    let tunnel = tunnel(Mode::Transport, true);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let segment = packets::udp(addresses(&tunnel), 10);
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    // First header and headers of the packet; the same without the fragment header; first header
    // and headers in front of AH; first header and headers behind it.
    let cases: [[(u8, Vec<u8>); 4]; 3] = [
        [(44, atomic(17).into()), (17, vec![]), (51, vec![]), (17, vec![])],
        [
            (0, [options(44), atomic(17)].concat()),
            (0, options(17).into()),
            (0, options(51).into()),
            (17, vec![]),
        ],
        [
            (44, [atomic(60), options(17)].concat()),
            (60, options(17).into()),
            (51, vec![]),
            (60, options(17).into()),
        ],
    ];
    for (seq, [before, without, in_front, behind]) in (1..).zip(cases) {
        let plain = packet_with(addresses(&tunnel), &before.1, before.0, &segment);
        let payload = [&behind.1[..], &segment].concat();
        let room = vec![0; payload.len() + 32];
        let wire = hop(&packet_with(addresses(&tunnel), &in_front.1, in_front.0, &room));
        let len = 40 + in_front.1.len();
        let seen = [&covered(&wire[..40]), &wire[40..len]].concat();
        let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
        let expected = ah_packet(sa, (seq, None), (&wire[..len], &seen), (behind.0, &payload));
        let made = one(&mut a, (A, LAN), &plain);
        assert_eq!(made, expected, "case {seq}");
        let whole = packet_with(addresses(&tunnel), &without.1, without.0, &segment);
        assert_eq!(one(&mut b, (B, WAN), &made), hop(&hop(&whole)), "case {seq}");
    }
    // A fragment that is not whole is refused, first or not, as it was.
    for place in [1, 8, 9] {
        let header = [17, 0, 0, place, 0, 0, 0, 1];
        let fragment = packet_with(addresses(&tunnel), &header, 44, &segment[..16]);
        let refused = Fate::Drop(DropReason::Fragment);
        assert_eq!(none(&mut a, (A, LAN), &fragment), refused, "{place}");
    }
}

/// A04: a fragment header that somebody left on a whole packet in front of AH is taken out before
/// the ICV is verified; so it is between other headers. It protects nothing: a packet that differs
/// elsewhere is forged.
#[test]
fn left_over_fragment_header_is_skipped_before_the_icv() {
    let tunnel = tunnel(Mode::Transport, true);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let segment = packets::udp(addresses(&tunnel), 10);
    for (first, headers) in [(17, vec![]), (0, options(17).to_vec())] {
        let plain = packet_with(addresses(&tunnel), &headers, first, &segment);
        let made = one(&mut a, (A, LAN), &plain);
        let ah_at = 40 + headers.len();
        let announced_at = if headers.is_empty() { 6 } else { 40 };
        let mut left = [&made[..ah_at], &atomic(51), &made[ah_at..]].concat();
        left[announced_at] = 44;
        let len = u16::try_from(left.len() - 40).unwrap().to_be_bytes();
        left[4..6].copy_from_slice(&len);
        for at in [8, ah_at + 8 + 2, ah_at + 8 + 12, left.len() - 1] {
            let mut forged = left.clone();
            forged[at] ^= 1;
            assert!(through(&mut b, (B, WAN), &[&forged]).is_empty(), "octet {at}");
        }
        assert_eq!(through(&mut b, (B, WAN), &[&left]), [hop(&hop(&plain))]);
    }
    let counters = b.counters();
    assert_eq!((counters.dropped(DropReason::Icv), counters.dropped_total()), (8, 8));
}

/// A05: over IPv4 some peers pad AH to 8 octets; its length says so, and the ICV covers that,
/// whatever that is. Padding that no alignment asks for is refused.
#[test]
fn padding_to_eight_octets_over_v4() {
    let tunnel = tunnel(Mode::Transport, false);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let mut b = gateway(&scenario, B);
    let segment = packets::udp(addresses(&tunnel), 10);
    let padded = |seq: u8, padding: &[u8]| {
        let words = u8::try_from((28 + padding.len()) / 4 - 2).unwrap();
        let spi = tunnel.spi[A].value().to_be_bytes();
        let fixed = [&[17, words, 0, 0][..], &spi, &[0, 0, 0, seq]].concat();
        let ah = [&fixed[..], &[0; 16], padding, &segment].concat();
        let made = packet(addresses(&tunnel), 51, &ah);
        let icv = hmac_sha256(&tunnel.keymat[A], &[&covered(&made[..20]), &made[20..]]);
        with(&made, 20 + 12, &icv)
    };
    let plain = packet(addresses(&tunnel), 17, &segment);
    for (seq, padding) in (1..).zip([[0; 4], [0xff, 1, 2, 3]]) {
        let made = padded(seq, &padding);
        assert_eq!(made[21], 6);
        let bent = with(&made, 20 + 28, &[made[48] ^ 0x40]);
        assert_eq!(none(&mut b, (B, WAN), &bent), Fate::Drop(DropReason::Icv));
        assert_eq!(one(&mut b, (B, WAN), &made), hop(&plain), "{padding:?}");
    }
    assert_eq!(one(&mut b, (B, WAN), &padded(3, &[])), hop(&plain));
    assert_eq!(none(&mut b, (B, WAN), &padded(4, &[0; 8])), Fate::Drop(DropReason::Icv));
}

/// A07, I10, I11: the rules for numbers are those of ESP: once each, none left of the window, not
/// 0.
#[test]
fn numbers_as_in_esp() {
    let mut tunnel = tunnel(Mode::Transport, false);
    tunnel.window = [64; 2];
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let mut b = gateway(&scenario, B);
    let segment = packets::udp(addresses(&tunnel), 0);
    let wire = packet(addresses(&tunnel), 51, &vec![0; segment.len() + 28]);
    let with_number = |seq| sent(&tunnel, seq, &wire, (17, &segment));
    let mut accepted = Vec::new();
    for seq in [1, 1, 100, 36, 37, 37, 0, 99, 1] {
        let delivered = through(&mut b, (B, WAN), &[&with_number(seq)]);
        accepted.extend(delivered.iter().map(|_| seq));
    }
    assert_eq!(accepted, [1, 100, 37, 99]);
    assert_eq!(b.counters().dropped(DropReason::Replay), 5);
    assert_eq!(sample(&b, true).sequence, 100);
}

/// A07, E03: the last number of AH is 2^32 - 1 without ESN; there is none after it.
#[test]
fn the_last_number_of_ah() {
    let start = u64::from(u32::MAX) - 1;
    let tunnel = Tunnel { start: [start; 2], ..tunnel(Mode::Transport, false) };
    let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
    let plain = packet(addresses(&tunnel), 17, &packets::udp(addresses(&tunnel), 0));
    assert_eq!(one(&mut a, (A, LAN), &plain)[28..32], [0xff; 4]);
    assert_eq!(none(&mut a, (A, LAN), &plain), Fate::Drop(DropReason::SequenceExhausted));
}

/// A07, I02: fragments of AH are put together before anything is verified, over both families.
#[test]
fn fragments_are_put_together_first() {
    for six in [false, true] {
        let tunnel = tunnel(Mode::Transport, six);
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let plain = packet(addresses(&tunnel), 17, &packets::udp(addresses(&tunnel), 100));
        let whole = one(&mut a, (A, LAN), &plain);
        let payload = &whole[if six { 40 } else { 20 }..];
        let piece = |octets: &[u8], offset: u16, more: bool| {
            let piece = match six {
                true => {
                    let [high, low] = (offset | u16::from(more)).to_be_bytes();
                    let header = [51, 0, high, low, 0, 0, 7, 7];
                    packet_with(addresses(&tunnel), &header, 44, octets)
                }
                false => {
                    let [high, low] = ((offset / 8) | (u16::from(more) << 13)).to_be_bytes();
                    let piece = packet(addresses(&tunnel), 51, octets);
                    with(&piece, 4, &[whole[4], whole[5], high, low])
                }
            };
            with(&piece, if six { 7 } else { 8 }, &[63])
        };
        let (first, rest) = (piece(&payload[..64], 0, true), piece(&payload[64..], 64, false));
        assert!(through(&mut b, (B, WAN), &[&rest]).is_empty());
        assert_eq!(sample(&b, true).packets, 0);
        assert_eq!(through(&mut b, (B, WAN), &[&first]), [hop(&hop(&plain))], "IPv6 {six}");
    }
}

/// I23, A07: what comes out of an AH tunnel must be an IP packet of the family that its next header
/// says, as with ESP.
#[test]
fn only_ip_comes_out_of_a_tunnel() {
    for six in [false, true] {
        let tunnel = tunnel(Mode::Tunnel, six);
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let mut b = gateway(&scenario, B);
        let hosts = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
        let inner = packet(hosts, 17, &packets::udp(hosts, 20));
        let room = vec![0; inner.len() + if six { 32 } else { 28 }];
        let wire = packet(addresses(&tunnel), 51, &room);
        for (seq, next, reason) in [
            (1, 6, DropReason::NextHeader),
            (2, 17, DropReason::NextHeader),
            (3, 41, DropReason::InnerMalformed),
        ] {
            let fate = none(&mut b, (B, WAN), &sent(&tunnel, seq, &wire, (next, &inner)));
            assert_eq!(fate, Fate::Drop(reason), "{next}");
        }
        let good = sent(&tunnel, 4, &wire, (4, &inner));
        assert_eq!(one(&mut b, (B, WAN), &good), hop(&inner));
    }
}

/// A07, I03, I04: SAs of AH and of ESP may have one SPI: each packet finds the one of its protocol,
/// and where that has none it is dropped.
#[test]
fn each_protocol_has_its_spis() {
    let esp = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let ah = Tunnel { spi: esp.spi, ..Tunnel::ordinary(1).with_algorithm(Algorithm::AhSha256) };
    let ah = Tunnel { outer: esp.outer, ..ah };
    let both = Scenario::quiet(vec![esp.clone(), ah.clone()]);
    let (mut a, mut b) = (gateway(&both, A), gateway(&both, B));
    let plain = |net| {
        let hosts = (Scenario::host(A, net, false, 5), Scenario::host(B, net, false, 5));
        packet(hosts, 17, &packets::udp(hosts, 20))
    };
    let sent = [0, 1].map(|net| one(&mut a, (A, LAN), &plain(net)));
    assert_eq!(sent.each_ref().map(|packet| packet[9]), [50, 51]);
    assert_eq!(sent[0][20..24], sent[1][24..28], "one SPI");
    for (net, sent) in (0..).zip(&sent) {
        assert_eq!(one(&mut b, (B, WAN), sent), hop(&hop(&plain(net))));
    }
    for (known, unknown) in [(&esp, &sent[1]), (&ah, &sent[0])] {
        let mut b = gateway(&Scenario::quiet(vec![known.clone()]), B);
        assert_eq!(none(&mut b, (B, WAN), unknown), Fate::Drop(DropReason::NoSa));
    }
}
