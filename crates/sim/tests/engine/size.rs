//! Size: what the path carries, who is told, fragments before and after ESP, padding and dummies.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::options::Fragmentation;
use culvert_engine::options::Mss;
use culvert_engine::path_mtu::AGE_NS;
use culvert_engine::reassembly::DATAGRAMS_MAX;
use culvert_engine::reassembly::FRAGMENTS_MAX;
use culvert_esp::Mode;
use culvert_esp::template::Df;
use culvert_esp::tfc::TfcPadding;
use culvert_esp::trailer::PaddingCheck;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::AddressSelector;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;

use crate::packets;
use crate::packets::hmac_sha256;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::arriving;
use crate::support::assert_frames_conserved;
use crate::support::changed;
use crate::support::fates;
use crate::support::gateway;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::sample;
use crate::support::through;
use crate::support::through_at;
use crate::support::turn_all;

const SECOND: u64 = 1_000_000_000;
const US_V4: [u8; 4] = [10, 1, 0, 254];
const US_V6: &str = "2001:db8:a1::fe";

fn hosts(six: bool) -> (IpAddr, IpAddr) {
    (Scenario::host(A, 0, six, 5), Scenario::host(B, 0, six, 5))
}

fn addresses(tunnel: &Tunnel) -> (IpAddr, IpAddr) {
    (tunnel.outer[A], tunnel.outer[B])
}

/// A tunnel over a wire with this MTU.
fn narrow(tunnel: Tunnel, wan_mtu: u16) -> Scenario {
    Scenario { wan_mtu, ..Scenario::quiet(vec![tunnel]) }
}

/// One gateway that answers with ICMP errors.
fn answering(
    scenario: &Scenario,
    side: usize,
    change: impl FnOnce(&mut GatewayConfig),
) -> TestGateway {
    changed(scenario, side, |config| {
        config.options.icmp.rate = 100;
        config.options.icmp.source_v4 = Some(US_V4.into());
        config.options.icmp.source_v6 = Some(US_V6.parse().unwrap());
        change(config);
    })
}

/// A packet of `len` octets in all; over IPv4 DF as said.
fn sized(six: bool, len: usize, df: bool) -> Vec<u8> {
    let header = if six { 48 } else { 28 };
    let plain = packet(hosts(six), 17, &packets::udp(hosts(six), len - header));
    if six { plain } else { with(&plain, 6, &[if df { 0x40 } else { 0 }]) }
}

/// The error that says what fits, as it must be: type, code, checksum, MTU, and as much of the
/// packet as 576 octets over IPv4 and 1280 over IPv6 allow.
fn too_big(about: &[u8], mtu: usize) -> Vec<u8> {
    let six = about[0] >> 4 == 6;
    let mtu = u32::try_from(mtu).unwrap();
    let to = hosts(six).0;
    if six {
        let between = (US_V6.parse().unwrap(), to);
        let quoted = &about[..about.len().min(1280 - 48)];
        return packet(between, 58, &packets::icmp(between, [2, 0], mtu, quoted));
    }
    let between = (IpAddr::from(US_V4), to);
    let quoted = &about[..about.len().min(576 - 28)];
    let error = packet(between, 1, &packets::icmp(between, [3, 4], mtu, quoted));
    with(&with(&error, 1, &[0xc0]), 4, &[0, 0, 0x40])
}

/// P23: the MTU that a host is told is exactly right, for every algorithm and pair of families, raw
/// and in UDP: a packet of so many octets passes and fills the path as far as padding lets it, and
/// one octet more is answered again.
#[test]
fn the_mtu_told_is_exact() {
    for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
        for (six, inner_six, udp) in (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0)) {
            let is_ah = Algorithm::ALL_AH.contains(&algorithm);
            if udp && is_ah {
                continue;
            }
            let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_outer(six);
            let tunnel = if udp { tunnel.with_udp() } else { tunnel };
            // The end of the text falls on every place of a word.
            for wan_mtu in 1444..1448 {
                check_mtu_told(&tunnel, inner_six, wan_mtu);
            }
        }
    }
}

fn check_mtu_told(tunnel: &Tunnel, inner_six: bool, wan_mtu: u16) {
    let algorithm = tunnel.algorithm;
    let is_ah = Algorithm::ALL_AH.contains(&algorithm);
    let scenario = Scenario { frames: 4, ..narrow(tunnel.clone(), wan_mtu) };
    let mut a = answering(&scenario, A, |_| {});
    let large = sized(inner_six, 1500, true);
    let answer = one(&mut a, (A, LAN), &large);
    let at = if inner_six { 44 } else { 24 };
    let mtu = u32::from_be_bytes(*answer[at..].first_chunk().unwrap()) as usize;
    assert_eq!(answer, too_big(&large, mtu), "{algorithm}");
    let sent = one(&mut a, (A, LAN), &sized(inner_six, mtu, true)).len();
    let block = if is_ah { 1 } else { algorithm.block_len() };
    let most = usize::from(wan_mtu);
    assert!(sent <= most && sent + block > most, "{algorithm}: {sent} of {most}");
    let more = sized(inner_six, mtu + 1, true);
    assert_eq!(one(&mut a, (A, LAN), &more), too_big(&more, mtu), "{algorithm}");
}

/// P23: in transport mode, and through a bundle of two, it is exact as well.
#[test]
fn the_mtu_told_is_exact_in_transport_mode_and_bundles() {
    for (six, bundled) in [(false, false), (true, false), (false, true), (true, true)] {
        let transport = |index, algorithm| {
            let outer = [hosts(six).0, hosts(six).1];
            let tunnel = Tunnel::ordinary(index).with_algorithm(algorithm);
            Tunnel { outer, ..tunnel.with_mode(Mode::Transport) }
        };
        let mut tunnels = vec![transport(0, Algorithm::Aes128CbcSha256)];
        if bundled {
            tunnels.push(transport(1, Algorithm::AhSha384));
        }
        let scenario = Scenario { wan_mtu: 1399, ..Scenario::quiet(tunnels) };
        let mut a = answering(&scenario, A, |config| {
            if bundled {
                config.bundles = vec![(Group(9), vec![Group(0), Group(1)])];
                let any = culvert_spd::Selector::ANY;
                let action = culvert_spd::Action::Protect(Group(9));
                config.spd.outbound = vec![culvert_spd::Policy::new(any, action)];
            }
            // Over IPv6 only the host, as the source of the packet, fragments it.
            config.sas.iter_mut().for_each(|sa| sa.sending.fragmentation = Fragmentation::Before);
        });
        let large = sized(six, 1500, true);
        let answer = one(&mut a, (A, LAN), &large);
        let at = if six { 44 } else { 24 };
        let mtu = u32::from_be_bytes(*answer[at..].first_chunk().unwrap()) as usize;
        assert_eq!(answer, too_big(&large, mtu));
        let sent = one(&mut a, (A, LAN), &sized(six, mtu, true));
        assert!(sent.len() <= 1399 && sent.len() + 16 > 1399, "{}", sent.len());
        let more = sized(six, mtu + 1, true);
        assert_eq!(one(&mut a, (A, LAN), &more), too_big(&more, mtu));
    }
}

/// P23, P12: errors keep to their rate, all kinds together; packets are dropped all the same.
#[test]
fn errors_are_limited() {
    let scenario = narrow(Tunnel::ordinary(0), 1400);
    let mut a = answering(&scenario, A, |config| config.options.icmp.prohibited = true);
    let large = sized(false, 1500, true);
    let send = |a: &mut TestGateway, count: usize, now| -> usize {
        (0..count).map(|_| through_at(a, (A, LAN), &[&large], now).len()).sum()
    };
    assert_eq!(send(&mut a, 300, SECOND), 100);
    assert_eq!(send(&mut a, 50, 2 * SECOND - SECOND / 2), 50);
    assert_eq!(send(&mut a, 300, 60 * SECOND), 100);
    assert_eq!(a.counters().answered, 250);
    assert_eq!(a.counters().dropped(DropReason::TooBig), 650);
}

/// P12: what policy discards is answered, if that is switched on, with 3/13 or 1/1; what has no SA
/// with 3/1 or 1/3; switched off, which is the default, with nothing.
#[test]
fn refusals_are_answered() {
    for (six, has_sa, kind) in [
        (false, true, [3, 13]),
        (true, true, [1, 1]),
        (false, false, [3, 1]),
        (true, false, [1, 3]),
    ] {
        let scenario = Scenario::quiet(vec![Tunnel::ordinary(0)]);
        let group = |config: &mut GatewayConfig| {
            if !has_sa {
                config.sas.iter_mut().for_each(|sa| sa.group = Group(99));
            }
        };
        let destination = match (has_sa, six) {
            (true, false) => "203.0.113.7".parse().unwrap(),
            (true, true) => "3fff:d::7".parse().unwrap(),
            (false, six) => hosts(six).1,
        };
        let pair = (hosts(six).0, destination);
        let plain = packet(pair, 17, &packets::udp(pair, 30));
        let mut silent = answering(&scenario, A, group);
        assert!(matches!(none(&mut silent, (A, LAN), &plain), Fate::Drop(_)));
        let mut a = answering(&scenario, A, |config| {
            group(config);
            config.options.icmp.prohibited = true;
        });
        let answer = one(&mut a, (A, LAN), &plain);
        let us: IpAddr = if six { US_V6.parse().unwrap() } else { US_V4.into() };
        let between = (us, hosts(six).0);
        let message = packets::icmp(between, kind, 0, &plain);
        let expected = packet(between, if six { 58 } else { 1 }, &message);
        let expected = match six {
            true => expected,
            false => with(&with(&expected, 1, &[0xc0]), 4, &[0, 0, 0x40]),
        };
        assert_eq!(answer, expected, "{kind:?}");
    }
}

/// P19: a TTL that ends is answered, outbound to the host, inbound through the tunnel if policy has
/// a way for it.
#[test]
fn ended_ttls_are_answered() {
    let scenario = Scenario::quiet(vec![Tunnel::ordinary(0)]);
    let mut a = answering(&scenario, A, |_| {});
    let last = with(&sized(false, 60, true), 8, &[1]);
    let answer = one(&mut a, (A, LAN), &last);
    let between = (IpAddr::from(US_V4), hosts(false).0);
    let expected = packet(between, 1, &packets::icmp(between, [11, 0], 0, &last));
    assert_eq!(answer, with(&with(&expected, 1, &[0xc0]), 4, &[0, 0, 0x40]));
    // Inbound: with one hop more A forwards it, and B is where it ends.
    let mut b = answering(&scenario, B, |config| {
        config.options.icmp.source_v4 = Some([10, 2, 0, 254].into());
    });
    let sent = one(&mut a, (A, LAN), &with(&sized(false, 60, true), 8, &[2]));
    let back = one(&mut b, (B, WAN), &sent);
    let told = one(&mut a, (A, WAN), &back);
    assert_eq!((told[9], &told[12..22]), (1, &[10, 2, 0, 254, 10, 1, 0, 5, 11, 0][..]));
}

/// The packet that fragments make, by RFC 791: they must fit without gap or overlap.
fn joined(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut fragments = fragments.to_vec();
    let place = |fragment: &[u8]| u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff;
    fragments.sort_by_key(|fragment| place(fragment));
    let mut whole = fragments[0][..20].to_vec();
    for (index, fragment) in fragments.iter().enumerate() {
        assert_eq!(usize::from(place(fragment)) * 8, whole.len() - 20);
        assert_eq!(packets::internet(&fragment[..20]), 0);
        assert_eq!(fragment[6] & 0x20 == 0, index + 1 == fragments.len(), "more fragments");
        assert_eq!(usize::from(u16::from_be_bytes([fragment[2], fragment[3]])), fragment.len());
        assert_eq!(fragment[4..6], fragments[0][4..6], "one identification");
        whole.extend(&fragment[20..]);
    }
    let [high, low] = u16::try_from(whole.len()).unwrap().to_be_bytes();
    let whole = with(&whole, 2, &[high, low]);
    with(&whole, 6, &[0, 0])
}

/// P22, P23, E16: IPv4 without DF that does not fit is fragmented before ESP; each fragment is a
/// packet of its own to the SA, and together they are what was sent.
#[test]
fn fragments_before_esp() {
    for six in [false, true] {
        let tunnel = Tunnel::ordinary(0).with_outer(six);
        let scenario = narrow(tunnel, 700);
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let plain = sized(false, 1500, false);
        let sent = through(&mut a, (A, LAN), &[&plain]);
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|packet| packet.len() <= 700));
        assert_eq!(sample(&a, false).sequence, 3, "each has its number");
        let sent: Vec<&[u8]> = sent.iter().rev().map(Vec::as_slice).collect();
        let came = through(&mut b, (B, WAN), &sent);
        assert_eq!(joined(&came), hop(&hop(&plain)));
        // What is a fragment already is fragmented further.
        let fragment = with(&plain, 6, &[0x20, 0x64]);
        let sent = through(&mut a, (A, LAN), &[&fragment]);
        assert_eq!(sent.len(), 3);
        assert_eq!(a.counters().split, 2);
        assert_frames_conserved(&mut a, &scenario);
    }
}

/// P08, P22: where policy looks at ports, which fragments but the first do not show, a packet is
/// not fragmented before ESP: they would be another policy's, and could leave in clear. The outer
/// packet is fragmented, or, where its DF says no, the source is told.
#[test]
fn no_fragment_escapes_the_policy_of_the_whole() {
    let clear: IpAddr = "198.51.100.9".parse().unwrap();
    let between = (hosts(false).0, clear);
    for df in [Df::Copy, Df::Set] {
        let scenario = narrow(Tunnel::ordinary(0), 700);
        let mut a = answering(&scenario, A, |config| {
            config.sas.iter_mut().for_each(|sa| sa.header.df = df);
            let ports = PortSelector::Ranges(vec![4001..=4001]);
            let upper = UpperSelector::Ports { source: PortSelector::Any, destination: ports };
            let any = AddressSelector::Any;
            let to_port = Selector::new(any.clone(), any, Some(17), upper).unwrap();
            let policy = Policy::new(to_port, Action::Protect(Group(0)));
            config.spd.outbound.insert(0, policy);
        });
        let plain = packet(between, 17, &packets::udp(between, 1472));
        let sent = through(&mut a, (A, LAN), &[&plain]);
        assert_eq!(a.counters().bypassed, 0, "nothing of it leaves in clear");
        if df == Df::Set {
            assert_eq!(fates(&a), [Fate::Drop(DropReason::TooBig)]);
            assert_eq!(sent.len(), 1, "the error to its source");
            continue;
        }
        assert_eq!(sample(&a, false).packets, 1, "sealed whole");
        assert_eq!(joined(&sent)[9], 50, "fragments of ESP");
    }
}

/// P22: a checksum that a sender on the link left to hardware is completed before the packet is
/// made into fragments, of which no one is enough for it.
#[test]
fn fragments_have_the_checksum_of_the_whole() {
    let scenario = Scenario { completes_checksums: true, ..narrow(Tunnel::ordinary(0), 700) };
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let plain = sized(false, 1500, false);
    // The sum of the pseudo-header alone, not complemented.
    let pseudo = [&plain[12..20], &[0, 17], &plain[24..26]].concat();
    let partial = with(&plain, 26, &(!packets::internet(&pseudo)).to_be_bytes());
    let sent = through(&mut a, (A, LAN), &[&partial]);
    assert_eq!(sent.len(), 3);
    let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
    let came = through(&mut b, (B, WAN), &sent);
    assert_eq!(joined(&came), hop(&hop(&plain)));
}

/// A sends large packets in fragments of the outer packet, B puts them together.
fn fragmenting(six: bool, udp: bool, wan_mtu: u16) -> (Scenario, TestGateway, TestGateway) {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256).with_outer(six);
    let tunnel = if udp { tunnel.with_udp() } else { tunnel };
    let scenario = narrow(tunnel, wan_mtu);
    let a = changed(&scenario, A, |config| {
        for sa in &mut config.sas {
            sa.sending.fragmentation = Fragmentation::After;
            sa.header.df = Df::Clear;
        }
    });
    let b = gateway(&scenario, B);
    (scenario, a, b)
}

/// E16, I02, I01: the outer packet is fragmented behind ESP; the receiver puts it together, raw and
/// in UDP, over both families, in any order, with copies of fragments among them, and only the
/// whole packet is decrypted, once.
#[test]
fn fragments_behind_esp() {
    for (six, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (scenario, mut a, mut b) = fragmenting(six, udp, 640);
            let plain = sized(false, 1500, true);
            let sent = through(&mut a, (A, LAN), &[&plain]);
            assert_eq!(sent.len(), 3, "{six} {udp}");
            assert!(sent.iter().all(|packet| packet.len() <= 640));
            assert_eq!(sample(&a, false).sequence, 1, "one number");
            if !six {
                let whole = joined(&sent);
                let esp = &whole[20 + if udp { 8 } else { 0 }..];
                let sa = (scenario.tunnels[0].spi[A].value(), &scenario.tunnels[0].keymat[A]);
                assert_eq!(esp, null_esp(sa, 1, None, (&hop(&plain), 4)));
            }
            let [first, second, last] = order.map(|at| &sent[at][..]);
            assert!(through(&mut b, (B, WAN), &[first]).is_empty());
            assert!(through(&mut b, (B, WAN), &[first, second, second]).is_empty());
            assert_eq!(sample(&b, true).packets, 0, "I01: no part is decrypted");
            assert_eq!(through(&mut b, (B, WAN), &[last]), [hop(&hop(&plain))]);
            assert_eq!(sample(&b, true).packets, 1);
            assert_frames_conserved(&mut b, &scenario);
        }
    }
}

/// I02, C05: congestion marked on one of the fragments is marked on the packet (RFC 3168 section
/// 5.3), in whichever fragment.
#[test]
fn congestion_on_a_fragment() {
    for six in [false, true] {
        for marked in 0..2 {
            let (_, mut a, mut b) = fragmenting(six, false, 1280);
            let plain = with(&sized(false, 1500, true), 1, &[2]);
            let mut sent = through(&mut a, (A, LAN), &[&plain]);
            assert_eq!(sent.len(), 2);
            sent[marked] = match six {
                false => with(&sent[marked], 1, &[3]),
                true => with(&sent[marked], 1, &[0x30]),
            };
            let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
            assert_eq!(through(&mut b, (B, WAN), &sent), [with(&hop(&hop(&plain)), 1, &[3])]);
        }
    }
}

/// I02: no mark is put on a packet one of whose fragments says that it cannot carry it: it is
/// dropped (RFC 3168 section 5.3).
#[test]
fn congestion_beside_a_fragment_that_knows_none() {
    for marked in 0..2 {
        let (scenario, mut a, mut b) = fragmenting(false, false, 1280);
        let plain = with(&sized(false, 1500, true), 1, &[2]);
        let mut sent = through(&mut a, (A, LAN), &[&plain]);
        sent[marked] = with(&sent[marked], 1, &[3]);
        sent[1 - marked] = with(&sent[1 - marked], 1, &[0]);
        let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        assert_eq!(through(&mut b, (B, WAN), &sent), [[0; 0]; 0]);
        assert_eq!(b.counters().dropped(DropReason::Reassembly), 2);
        assert_frames_conserved(&mut b, &scenario);
    }
}

/// I01, I02: a flood of first fragments takes no more frames than the table has places for, each
/// one too many is counted, and packets that are no fragments pass meanwhile; what waits too long
/// is dropped.
#[test]
fn reassembly_memory_is_bounded() {
    let (scenario, mut a, mut b) = fragmenting(false, false, 640);
    let whole = one(&mut a, (A, LAN), &sized(false, 100, true));
    let bound = DATAGRAMS_MAX * FRAGMENTS_MAX;
    let outer = scenario.tunnels[0].outer;
    let piece = |id: u16, place: u16| {
        let fragment = packet((outer[A], outer[B]), 50, &[7; 64]);
        let [id_high, id_low] = id.to_be_bytes();
        let [high, low] = (0x2000 | (place * 8)).to_be_bytes();
        with(&fragment, 4, &[id_high, id_low, high, low])
    };
    let mut sent = 0;
    for id in 0..100 {
        for place in 0..10 {
            assert!(through(&mut b, (B, WAN), &[&piece(id, place)]).is_empty());
            sent += 1;
            let outside = b.workers[0].frames_outside_io();
            assert!(outside <= bound, "{outside} frames");
        }
    }
    assert_eq!(one(&mut b, (B, WAN), &whole).len(), 100);
    assert_frames_conserved(&mut b, &scenario);
    turn_all(&mut b, 3600 * SECOND);
    assert_eq!(b.workers[0].frames_outside_io(), 0);
    assert_eq!(b.counters().dropped_total(), sent, "each has its fate");
}

/// P23: an IPv6 packet of 1280 octets or less, which every path must carry, goes through a narrow
/// one in fragments of the outer packet; a larger one is answered with 1280.
#[test]
fn small_v6_over_a_narrow_path() {
    for (six, wan_mtu) in [(false, 1280), (true, 1280), (false, 576)] {
        let scenario = narrow(Tunnel::ordinary(0).with_outer(six), wan_mtu);
        let mut a = answering(&scenario, A, |_| {});
        let mut b = gateway(&scenario, B);
        let plain = sized(true, 1280, true);
        let sent = through(&mut a, (A, LAN), &[&plain]);
        assert!(sent.len() > 1 && sent.iter().all(|packet| packet.len() <= usize::from(wan_mtu)));
        let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        assert_eq!(through(&mut b, (B, WAN), &sent), [hop(&hop(&plain))]);
        let large = sized(true, 1281, true);
        assert_eq!(one(&mut a, (A, LAN), &large), too_big(&large, 1280));
    }
}

/// P23, P28: a small IPv6 packet in two tunnels, the outer one over IPv4, goes in fragments of the
/// outermost packet.
#[test]
fn small_v6_in_two_tunnels() {
    for wan_mtu in [576, 1280] {
        let six = Tunnel::ordinary(0).with_outer(true);
        let scenario = Scenario { wan_mtu, ..Scenario::quiet(vec![six, Tunnel::ordinary(1)]) };
        let bundled = |config: &mut GatewayConfig| {
            config.bundles = vec![(Group(9), vec![Group(0), Group(1)])];
            for sa in &mut config.sas {
                sa.receiving.within = (sa.group == Group(0)).then_some(Group(1));
            }
            let policy = |group| {
                let action = culvert_spd::Action::Protect(Group(group));
                vec![culvert_spd::Policy::new(culvert_spd::Selector::ANY, action)]
            };
            (config.spd.outbound, config.spd.inbound) = (policy(9), policy(0));
        };
        let mut a = changed(&scenario, A, bundled);
        let mut b = changed(&scenario, B, bundled);
        let plain = sized(true, 1280, true);
        let sent = through(&mut a, (A, LAN), &[&plain]);
        assert!(sent.len() > 1, "{:?}", fates(&a));
        assert!(sent.iter().all(|packet| packet.len() <= usize::from(wan_mtu)));
        let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        assert_eq!(through(&mut b, (B, WAN), &sent), [hop(&hop(&plain))]);
    }
}

/// An error of a router on the outer path about A's packet, as that router received it.
fn path_error(about: &[u8], mtu: u32) -> Vec<u8> {
    let six = about[0] >> 4 == 6;
    if six {
        let to = IpAddr::from(<[u8; 16]>::try_from(&about[8..24]).unwrap());
        let between = ("2001:db8:ff::99".parse().unwrap(), to);
        let quoted = &about[..about.len().min(1232)];
        return packet(between, 58, &packets::icmp(between, [2, 0], mtu, quoted));
    }
    let to = IpAddr::from(<[u8; 4]>::try_from(&about[12..16]).unwrap());
    let between = (IpAddr::from([192, 0, 2, 99]), to);
    packet(between, 1, &packets::icmp(between, [3, 4], mtu, &about[..28]))
}

fn learned(a: &mut TestGateway) -> Vec<Option<u16>> {
    let notices = notices(a).into_iter();
    let learned = notices.filter_map(|notice| match notice {
        Notice::PathMtu { mtu, .. } => Some(mtu),
        _ => None,
    });
    learned.collect()
}

/// P23, P24: what a router says of an ESP packet of ours is learned, told to control and to hosts,
/// not below the floor of the family, not upwards, and forgotten after ten minutes.
#[test]
fn path_mtu_is_learned_and_aged() {
    for (six, floor) in [(false, 576), (true, 1280)] {
        let scenario = narrow(Tunnel::ordinary(0).with_outer(six), 1500);
        let mut a = answering(&scenario, A, |_| {});
        let plain = sized(false, 1400, true);
        let sent = one(&mut a, (A, LAN), &plain);
        assert_eq!(learned(&mut a), []);
        let least = if six { 1280 } else { 68 };
        for (said, believed) in
            [(1400, Some(1400)), (1450, None), (1400, None), (least, Some(floor))]
        {
            let fate = none(&mut a, (A, WAN), &path_error(&sent, said));
            assert_eq!(fate, Fate::Drop(DropReason::PathMtu));
            let expected: Vec<_> = believed.iter().map(|&mtu| Some(mtu)).collect();
            assert_eq!(learned(&mut a), expected, "{said}");
        }
        assert_eq!(sample(&a, false).path_mtu, Some(floor));
        let answer = one(&mut a, (A, LAN), &plain);
        let told = usize::from(u16::from_be_bytes([answer[26], answer[27]]));
        let fits = one(&mut a, (A, LAN), &sized(false, told, true));
        assert!(fits.len() <= usize::from(floor) && fits.len() + 4 > usize::from(floor));
        through_at(&mut a, (A, LAN), &[], AGE_NS - 1);
        assert_eq!(learned(&mut a), []);
        through_at(&mut a, (A, LAN), &[], AGE_NS + SECOND);
        assert_eq!(learned(&mut a), [None]);
        assert_eq!(one(&mut a, (A, LAN), &plain).len(), sent.len());
    }
}

/// P24: an error is not believed that names another SPI or a number that was not used, that has a
/// wrong checksum or another type, or when such errors are not to be trusted.
#[test]
fn implausible_errors() {
    let scenario = narrow(Tunnel::ordinary(0), 1500);
    let mut a = gateway(&scenario, A);
    let sent = one(&mut a, (A, LAN), &sized(false, 1400, true));
    let error = path_error(&sent, 1000);
    let about = |at: usize, octet: u8| path_error(&with(&sent, at, &[octet]), 1000);
    let implausible = Fate::Drop(DropReason::IcmpError);
    // SPI, number, destination.
    for bad in [about(20, 0xee), about(27, 2), about(27, 0), about(24, 0x80), about(19, 99)] {
        assert_eq!(none(&mut a, (A, WAN), &bad), implausible);
    }
    let quench = {
        let between = (IpAddr::from([192, 0, 2, 99]), scenario.tunnels[0].outer[A]);
        packet(between, 1, &packets::icmp(between, [4, 0], 0, &sent[..28]))
    };
    assert_eq!(none(&mut a, (A, WAN), &quench), implausible);
    let mut forged = error.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_ne!(none(&mut a, (A, WAN), &forged), Fate::Drop(DropReason::PathMtu));
    assert_eq!(sample(&a, false).path_mtu, None);
    assert_eq!(none(&mut a, (A, WAN), &error), Fate::Drop(DropReason::PathMtu));
    let mut wary = changed(&scenario, A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.sending.trusts_icmp = false);
    });
    let sent = one(&mut wary, (A, LAN), &sized(false, 1400, true));
    assert_eq!(none(&mut wary, (A, WAN), &path_error(&sent, 1000)), implausible);
    assert_eq!(sample(&wary, false).path_mtu, None);
}

/// E12, E13, I16: padding for secrecy stands behind the inner packet, whose length stays, and
/// before the padding of ESP; the receiver cuts it off. As long as asked, or as the path carries.
#[test]
fn padding_for_secrecy() {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let scenario = narrow(tunnel.clone(), 1400);
    let mut b = gateway(&scenario, B);
    let with_padding = |tfc| {
        changed(&scenario, A, |config| config.sas.iter_mut().for_each(|sa| sa.sending.tfc = tfc))
    };
    let mut to = with_padding(TfcPadding::To(301));
    for (seq, len) in (1..).zip([60, 300, 301, 302, 900]) {
        let plain = sized(false, len, true);
        let sent = one(&mut to, (A, LAN), &plain);
        let mut payload = hop(&plain);
        payload.resize(len.max(301), 0);
        let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
        assert_eq!(sent[20..], null_esp(sa, seq, None, (&payload, 4)));
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)));
    }
    let mut full = with_padding(TfcPadding::Mtu);
    for (len, six) in [(60, false), (60, true), (1200, false)] {
        let sent = one(&mut full, (A, LAN), &sized(six, len, true));
        assert!(sent.len() <= 1400 && sent.len() > 1396, "{}", sent.len());
    }
}

/// The text of `null-sha256` in a packet of A's over IPv4, which must be authentic.
fn text<'a>(tunnel: &Tunnel, packet: &'a [u8]) -> &'a [u8] {
    let (covered, icv) = packet[20..].split_at(packet.len() - 20 - 16);
    assert_eq!(icv, hmac_sha256(&tunnel.keymat[A], &[covered]));
    &covered[8..]
}

/// E11, I15: dummies leave on time, with next header 59, default padding, lengths and content that
/// differ; the receiver drops them without an error, and counts number, packet and octets.
#[test]
fn dummies() {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let scenario = narrow(tunnel.clone(), 1400);
    let mut b = gateway(&scenario, B);
    let mut a = changed(&scenario, A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.sending.dummy_interval = Some(5 * SECOND));
    });
    let mut texts = Vec::new();
    for second in 1..=60 {
        for packet in through_at(&mut a, (A, LAN), &[], second * SECOND) {
            assert_eq!(packets::internet(&packet[..20]), 0);
            assert!(packet.len() <= 1400);
            texts.push(text(&tunnel, &packet).to_vec());
            let dummy = none(&mut b, (B, WAN), &packet);
            assert_eq!(dummy, Fate::Drop(DropReason::Dummy));
        }
    }
    assert!((10..=12).contains(&texts.len()), "{} dummies", texts.len());
    for text in &texts {
        let [.., pad_len, next_header] = text[..] else { panic!("a trailer") };
        let padding = &text[text.len() - 2 - usize::from(pad_len)..text.len() - 2];
        assert_eq!((next_header, padding), (59, &[1, 2, 3][..pad_len.into()]));
        assert_eq!(texts.iter().filter(|other| other[..16] == text[..16]).count(), 1);
    }
    let lengths: std::collections::HashSet<_> = texts.iter().map(Vec::len).collect();
    assert!(lengths.len() > texts.len() / 2, "{lengths:?}");
    let (count, octets) = (texts.len() as u64, texts.iter().map(Vec::len).sum::<usize>() as u64);
    for (gateway, inbound) in [(&a, false), (&b, true)] {
        let sample = sample(gateway, inbound);
        assert_eq!((sample.packets, sample.sequence, sample.bytes), (count, count, octets));
    }
    assert_eq!(notices(&mut b), [], "no audit record");
}

/// I13: padding that is not 1, 2, 3, .. is an error, or counted, or not looked at.
#[test]
fn padding_checks() {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    let inner = sized(false, 61, true);
    let esp = |seq: u8, padding: &[u8]| {
        let spi = tunnel.spi[A].value().to_be_bytes();
        let pad_len = [u8::try_from(padding.len()).unwrap(), 4];
        let covered = [&spi[..], &[0, 0, 0, seq], &inner, padding, &pad_len].concat();
        let icv = hmac_sha256(&tunnel.keymat[A], &[&covered]);
        packet(addresses(&tunnel), 50, &[&covered[..], &icv].concat())
    };
    for (padding, wrong, delivered) in [
        (PaddingCheck::Strict, 0, [true, false, false]),
        (PaddingCheck::Count, 2, [true, true, true]),
        (PaddingCheck::Off, 0, [true, true, true]),
    ] {
        let mut b = changed(&scenario, B, |config| {
            config.sas.iter_mut().for_each(|sa| sa.receiving.padding = padding);
        });
        let cases = [&[1u8][..], &[0], &[1, 2, 3, 4, 6]];
        for (seq, (octets, passes)) in (1..).zip(cases.into_iter().zip(delivered)) {
            let came = through(&mut b, (B, WAN), &[&esp(seq, octets)]);
            assert_eq!(came.len(), usize::from(passes), "{padding:?} {octets:?}");
        }
        assert_eq!(sample(&b, true).padding_wrong, wrong);
    }
}

/// The maximum segment size that a SYN announces behind A, and whether its checksum is right.
fn announced(a: &mut TestGateway, tunnel: &Tunnel, (six, options): (bool, &[u8]), mss: u16) -> u16 {
    let [high, low] = mss.to_be_bytes();
    let segment = packets::tcp(hosts(six), 2, &[2, 4, high, low, 1, 1, 1, 0], &[]);
    let syn = packet_with(hosts(six), options, 6, &segment);
    let sent = one(a, (A, LAN), &syn);
    let at = if six { 40 } else { 20 } + options.len();
    let inner = text(tunnel, &sent);
    let segment = &inner[at..at + 28];
    assert_eq!(packets::transport_sum(hosts(six), 6, segment), 0, "the checksum is right");
    u16::from_be_bytes([segment[22], segment[23]])
}

/// The MSS of a SYN is lowered to what fits the path with all headers, or to a number; never
/// raised; a full segment of that size then just fits.
#[test]
fn mss_is_clamped() {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let scenario = narrow(tunnel.clone(), 1400);
    let with_mss = |mss| {
        changed(&scenario, A, |config| config.sas.iter_mut().for_each(|sa| sa.sending.mss = mss))
    };
    // 20 outer, 8 ESP, 16 ICV, 2 trailer; text a multiple of 4.
    let inner = (1400 - 20 - 8 - 16) / 4 * 4 - 2;
    let mut auto = with_mss(Mss::Auto);
    assert_eq!(announced(&mut auto, &tunnel, (false, &[]), 1460), inner - 40);
    assert_eq!(announced(&mut auto, &tunnel, (true, &[]), 1440), inner - 60);
    assert_eq!(announced(&mut auto, &tunnel, (false, &[]), 536), 536);
    let sent = one(&mut auto, (A, LAN), &sized(false, inner.into(), true));
    assert_eq!(sent.len(), 1400);
    let mut to = with_mss(Mss::To(1200));
    assert_eq!(announced(&mut to, &tunnel, (false, &[]), 1460), 1200);
    assert_eq!(announced(&mut to, &tunnel, (true, &[]), 1460), 1200);
    assert_eq!(announced(&mut to, &tunnel, (false, &[1, 1, 1, 1]), 1460), 1200);
    assert_eq!(announced(&mut to, &tunnel, (false, &[]), 1199), 1199);
    let mut off = with_mss(Mss::Off);
    assert_eq!(announced(&mut off, &tunnel, (false, &[]), 1460), 1460);
}

/// P22: fragments of all kinds go through a tunnel as they are, and in clear fragments of a
/// bypassed packet leave by the link's MTU.
#[test]
fn bypassed_packets_are_fragmented() {
    let scenario = narrow(Tunnel::ordinary(0), 700);
    let mut a = answering(&scenario, A, |_| {});
    let pair = (hosts(false).0, IpAddr::from([198, 51, 100, 9]));
    let plain = packet(pair, 17, &packets::udp(pair, 1400));
    let sent = through(&mut a, (A, LAN), &[&plain]);
    assert_eq!((sent.len(), fates(&a)), (3, vec![Fate::Split]));
    assert_eq!(joined(&sent), hop(&plain));
    let firm = with(&plain, 6, &[0x40]);
    let answer = one(&mut a, (A, LAN), &firm);
    assert_eq!(answer, too_big(&firm, 700));
    assert_eq!(arriving(A, LAN, &firm).len(), firm.len() + 14);
}
