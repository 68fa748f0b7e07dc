//! What an attacker, or an unlucky peer, may try on all ways through the engine together: lengths
//! that lie, layers that do not fit, SPIs that collide, and frames at the ends of their room.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::next_hop::Route;
use culvert_esp::Mode;
use culvert_esp::tfc::TfcPadding;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::Policy;
use culvert_spd::Selector;

use crate::ah;
use crate::bundles::Layer;
use crate::bundles::Nest;
use crate::bundles::nest;
use crate::packets;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::TestGateway;
use crate::support::assert_dropped_only;
use crate::support::assert_frames_conserved;
use crate::support::changed;
use crate::support::fates;
use crate::support::gateway;
use crate::support::gateway_with;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::through;
use crate::support::through_at;

const SECOND: u64 = 1_000_000_000;

const ESP: Algorithm = Algorithm::NullSha256;
const AH: Algorithm = Algorithm::AhSha256;

/// ESP and AH tunnels between the same endpoints with the same SPIs, for two pairs of networks.
fn colliding() -> Scenario {
    let esp = Tunnel::ordinary(0).with_algorithm(ESP);
    let ah = Tunnel::ordinary(1).with_algorithm(AH);
    Scenario::quiet(vec![esp.clone(), Tunnel { outer: esp.outer, spi: esp.spi, ..ah }])
}

/// A packet between hosts of tunnel `index`.
fn plain_of(index: u8) -> Vec<u8> {
    let hosts = (Scenario::host(A, index, false, 5), Scenario::host(B, index, false, 5));
    let plain = packet(hosts, 17, &packets::udp(hosts, 900));
    with(&plain, 6, &[0x40])
}

/// I04, P24: ESP and AH have SPIs of their own: of two SAs with one SPI and the same endpoints each
/// gets its packets, and an error about one of them lowers the path MTU of that one.
#[test]
fn one_spi_for_esp_and_ah() {
    let scenario = colliding();
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let router = (IpAddr::from([192, 0, 2, 99]), scenario.tunnels[0].outer[A]);
    for (index, protocol) in [(0, Protocol::Esp), (1, Protocol::Ah)] {
        let sent = one(&mut a, (A, LAN), &plain_of(index));
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain_of(index))));
        let mtu = 1300 + u16::from(index);
        let quoted = &sent[..20 + 12];
        let error = packets::icmp(router, [3, 4], mtu.into(), quoted);
        let fate = none(&mut a, (A, WAN), &packet(router, 1, &error));
        assert_eq!(fate, Fate::Drop(DropReason::PathMtu), "{protocol:?}");
        let found = a.samples().find(|sample| !sample.inbound && sample.protocol == protocol);
        assert_eq!(found.unwrap().path_mtu, Some(mtu), "{protocol:?}");
    }
}

/// The audit records since the last time: reason, SPI, number, source.
fn records(gateway: &mut TestGateway) -> Vec<(DropReason, Option<u32>, Option<u64>, IpAddr)> {
    let records = notices(gateway).into_iter().filter_map(|notice| match notice {
        Notice::Audit(record) => Some((record.reason, record.spi, record.seq, record.source)),
        _ => None,
    });
    records.collect()
}

/// I11, P28: of what is refused inside another SA, the SA it was for is named and counts it; the
/// other does not.
#[test]
fn inner_refusals_are_the_inner_sas() {
    let layers = [(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)];
    let nest = nest(&layers, false);
    let mut a = nest.gateway(A);
    let sent = one(&mut a, (A, LAN), &nest.plain());
    // The same inner packet in a new outer one.
    let mut later = nest.clone();
    later.scenario.tunnels[1].start[A] = 7;
    let again = one(&mut later.gateway(A), (A, LAN), &nest.plain());
    let mut b = nest.gateway(B);
    one(&mut b, (B, WAN), &sent);
    assert_eq!(none(&mut b, (B, WAN), &again), Fate::Drop(DropReason::Replay));
    let spi = nest.scenario.tunnels[0].spi[A].value();
    let seen = b.workers[0].last_verdicts()[0];
    assert_eq!((seen.spi, seen.seq), (Some(spi), Some(1)));
    for sample in b.samples().filter(|sample| sample.inbound) {
        let dropped: u64 = sample.dropped.iter().sum();
        assert_eq!(dropped, u64::from(sample.spi == spi), "SPI {:#x}", sample.spi);
    }
    let source = nest.scenario.tunnels[0].outer[A];
    assert_eq!(records(&mut b), [(DropReason::Replay, Some(spi), Some(1), source)]);
    assert_dropped_only(&b.counters(), DropReason::Replay, 1);
}

/// A gateway whose innermost SA of a bundle has something changed.
fn innermost(
    nest: &Nest,
    side: usize,
    change: impl Fn(&mut culvert_engine::options::Sending),
) -> TestGateway {
    changed(&nest.scenario, side, |config| {
        nest.configure(config);
        let inner = config.sas.iter_mut().filter(|sa| sa.group.0 == 0);
        inner.for_each(|sa| change(&mut sa.sending));
    })
}

/// E12, P28: padding for secrecy leaves room for what the other SAs of the bundle add.
#[test]
fn padding_for_secrecy_in_a_bundle() {
    let layers: [Vec<Layer>; 3] = [
        vec![(true, Mode::Tunnel, ESP), (true, Mode::Transport, AH)],
        vec![(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)],
        vec![(true, Mode::Tunnel, Algorithm::Aes128CbcSha256), (false, Mode::Tunnel, AH)],
    ];
    for (layers, six) in layers.into_iter().flat_map(|l| [(l.clone(), false), (l, true)]) {
        let nest = nest(&layers, six);
        let mut a = innermost(&nest, A, |sending| sending.tfc = TfcPadding::Mtu);
        let mut b = nest.gateway(B);
        let plain = nest.plain();
        let plain = if six { plain } else { with(&plain, 6, &[0x40]) };
        let sent = one(&mut a, (A, LAN), &plain);
        assert!((1500 - 40..=1500).contains(&sent.len()), "{} octets", sent.len());
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&plain)));
    }
}

/// E11, I15, P28: a dummy of an SA in a bundle gets the SAs around it, too; the receiver drops it
/// for no other reason than that it is one.
#[test]
fn dummies_in_a_bundle() {
    let layers: [Vec<Layer>; 2] = [
        vec![(true, Mode::Transport, ESP), (true, Mode::Transport, AH)],
        vec![(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)],
    ];
    for layers in layers {
        let nest = nest(&layers, false);
        let mut a = innermost(&nest, A, |sending| sending.dummy_interval = Some(SECOND));
        let mut b = nest.gateway(B);
        let sent: Vec<_> =
            (1..=20).flat_map(|now| through_at(&mut a, (A, LAN), &[], now * SECOND)).collect();
        assert!(sent.len() > 10, "{} dummies", sent.len());
        for packet in &sent {
            assert!(packet.len() <= 1500);
            assert_eq!(none(&mut b, (B, WAN), packet), Fate::Drop(DropReason::Dummy));
        }
        assert_dropped_only(&b.counters(), DropReason::Dummy, sent.len() as u64);
        assert_eq!(a.counters().made, sent.len() as u64);
    }
}

/// E11: a dummy that does not fit is given up, and nothing of it falls upon the next packet, which
/// is opened like any other.
#[test]
fn dummies_of_a_path_too_narrow() {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::Aes128CbcSha512).with_udp();
    let scenario = Scenario { wan_mtu: 80, ..Scenario::quiet(vec![tunnel]) };
    let mut a = changed(&scenario, A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.sending.dummy_interval = Some(SECOND));
    });
    let mut b = gateway(&Scenario::quiet(scenario.tunnels.clone()), B);
    let hosts = (Scenario::host(B, 0, false, 5), Scenario::host(A, 0, false, 5));
    let plain = packet(hosts, 17, &packets::udp(hosts, 64));
    for now in 1..=5 {
        assert_eq!(through_at(&mut a, (A, LAN), &[], now * SECOND), [[0; 0]; 0]);
        let sent = one(&mut b, (B, LAN), &plain);
        let delivered = through_at(&mut a, (A, WAN), &[&sent], now * SECOND);
        assert_eq!(delivered, [hop(&hop(&plain))], "{:?}", fates(&a));
    }
    assert_dropped_only(&a.counters(), DropReason::TooBig, 5);
    assert_frames_conserved(&mut a, &scenario);
}

/// P23, P28: the path of a bundle is that of its outermost SA: what is learned of that is told to
/// hosts, and what then fits goes whole.
#[test]
fn path_mtu_of_a_bundle() {
    let layers: [Vec<Layer>; 2] = [
        vec![(true, Mode::Transport, ESP), (true, Mode::Transport, AH)],
        vec![(true, Mode::Tunnel, ESP), (false, Mode::Tunnel, ESP)],
    ];
    for layers in layers {
        let nest = nest(&layers, false);
        let mut a = changed(&nest.scenario, A, |config| {
            nest.configure(config);
            config.options.icmp.rate = 100;
        });
        let sized = |len| with(&packet(nest.hosts, 17, &packets::udp(nest.hosts, len)), 6, &[0x40]);
        let sent = one(&mut a, (A, LAN), &sized(1300));
        let [_, outer] = &nest.scenario.tunnels[..] else { unreachable!("two SAs") };
        let router = (IpAddr::from([192, 0, 2, 99]), outer.outer[A]);
        let error = packets::icmp(router, [3, 4], 1200, &sent[..32]);
        let fate = none(&mut a, (A, WAN), &packet(router, 1, &error));
        assert_eq!(fate, Fate::Drop(DropReason::PathMtu));
        let answer = one(&mut a, (A, LAN), &sized(1300));
        assert_eq!(answer[20..22], [3, 4], "{:?}", fates(&a));
        let told = usize::from(u16::from_be_bytes([answer[26], answer[27]]));
        let sent = one(&mut a, (A, LAN), &sized(told - 28));
        assert!((1197..=1200).contains(&sent.len()), "{} octets", sent.len());
    }
}

/// P11: what policy lets by, and what is for the gateway itself, is the stack's with any TTL: no
/// hop is left to count.
#[test]
fn ttl_of_what_is_for_the_gateway() {
    let scenario = Scenario::quiet(vec![Tunnel::ordinary(0)]);
    for action in [Some(Action::Bypass), None] {
        let mut next_hops = scenario.next_hops(B, KNOWN);
        let us = scenario.tunnels[0].outer[B];
        next_hops.insert_route(us.into(), Route::Local);
        let mut b = gateway_with(&scenario, B, next_hops, |config| {
            let policy = action.map(|action| Policy::new(Selector::ANY, action));
            config.spd.inbound = policy.into_iter().collect();
            config.options.icmp.rate = 100;
        });
        for ttl in [64, 1, 0] {
            let peer = scenario.tunnels[0].outer[A];
            let plain = with(&packet((peer, us), 17, &packets::udp((peer, us), 8)), 8, &[ttl]);
            assert_eq!(none(&mut b, (B, WAN), &plain), Fate::Punt, "{action:?}, {ttl}");
        }
    }
}

/// Ways to protect packets between the two hosts, by name: layers, and whether in UDP.
fn ways() -> Vec<(String, Nest)> {
    let of_hosts = |mode, algorithm| (true, mode, algorithm);
    let gateways = |algorithm| (false, Mode::Tunnel, algorithm);
    let gcm = Algorithm::Aes128Gcm16;
    let layers: [(Vec<Layer>, bool); 7] = [
        (vec![gateways(gcm)], false),
        (vec![gateways(Algorithm::Aes128CbcSha256)], true),
        (vec![gateways(AH)], false),
        (vec![of_hosts(Mode::Transport, gcm)], false),
        (vec![of_hosts(Mode::Transport, ESP)], true),
        (vec![of_hosts(Mode::Transport, AH)], false),
        (vec![of_hosts(Mode::Transport, ESP), of_hosts(Mode::Transport, AH), gateways(gcm)], false),
    ];
    let mut ways = Vec::new();
    for ((layers, udp), six) in layers.into_iter().flat_map(|l| [(l.clone(), false), (l, true)]) {
        let mut nest = nest(&layers, six);
        if udp {
            let first = nest.scenario.tunnels[0].clone();
            nest.scenario.tunnels[0] = first.with_udp();
        }
        ways.push((format!("{layers:?}, IPv6 {six}, UDP {udp}"), nest));
    }
    ways
}

/// A receiver that takes the same packet as often as it comes.
fn forgetful(nest: &Nest) -> TestGateway {
    changed(&nest.scenario, B, |config| {
        nest.configure(config);
        config.sas.iter_mut().for_each(|sa| sa.replay_window = 0);
    })
}

/// What B delivers of packets that arrive in batches.
fn delivered(b: &mut TestGateway, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let batches = packets.chunks(48).map(|batch| batch.iter().map(Vec::as_slice).collect());
    batches.flat_map(|batch: Vec<&[u8]>| through(b, (B, WAN), &batch)).collect()
}

/// The first `len` octets of a packet, with lengths of IP and UDP that say so.
fn cut(packet: &[u8], len: usize) -> Vec<u8> {
    let mut cut = packet[..len].to_vec();
    let is_v4 = packet[0] >> 4 == 4;
    let (at, header, protocol_at) = if is_v4 { (2, 20, 9) } else { (4, 40, 6) };
    if len < header {
        return cut;
    }
    let said = u16::try_from(if is_v4 { len } else { len - header }).unwrap();
    cut[at..at + 2].copy_from_slice(&said.to_be_bytes());
    if packet[protocol_at] == 17 && len >= header + 8 {
        let said = u16::try_from(len - header).unwrap();
        cut[header + 4..header + 6].copy_from_slice(&said.to_be_bytes());
    }
    with(&cut, 0, &[packet[0]])
}

/// I03, I06, A07: a packet that ends too early, wherever, comes to nothing, whether its lengths say
/// so or not, and does no harm to the whole one.
#[test]
fn packets_cut_at_every_octet() {
    for (name, nest) in ways() {
        let (mut a, mut b) = (nest.gateway(A), nest.gateway(B));
        let sent = one(&mut a, (A, LAN), &nest.plain());
        let short = (1..sent.len()).map(|len| sent[..len].to_vec());
        let cut = (1..sent.len()).map(|len| cut(&sent, len));
        let all: Vec<_> = short.chain(cut).collect();
        assert_eq!(delivered(&mut b, &all), [[0; 0]; 0], "{name}");
        assert_eq!(one(&mut b, (B, WAN), &sent), hop(&hop(&nest.plain())), "{name}");
        assert_frames_conserved(&mut b, &nest.scenario);
        assert_eq!(b.counters().received, all.len() as u64 + 1);
    }
}

/// I06, A03, A04: every octet of the headers with every value: what comes out is what went in, but
/// for the fields of the IP header that nothing protects.
#[test]
fn headers_with_every_value() {
    for (name, nest) in ways() {
        let mut a = nest.gateway(A);
        let mut b = forgetful(&nest);
        let plain = nest.plain();
        let sent = one(&mut a, (A, LAN), &plain);
        let header = if plain[0] >> 4 == 4 { 20 } else { 40 };
        let mut forged = Vec::new();
        for at in 0..header + 40 {
            forged.extend((0..=255).map(|octet| with(&sent, at, &[octet])));
        }
        let found = delivered(&mut b, &forged);
        assert!(found.len() >= 40, "the genuine one comes out each time: {name}");
        let inner = &nest.scenario.tunnels[0];
        let through_nat = inner.mode == Mode::Transport && inner.seen_at.is_some();
        for packet in &found {
            // The checksum follows the addresses, which nothing protects (RFC 3948 section 3.1.2).
            let expected = match through_nat {
                true => with(&plain, header + 6, &packet[header + 6..header + 8]),
                false => plain.clone(),
            };
            assert_eq!(packet[header..], expected[header..], "{name}");
        }
        assert_frames_conserved(&mut b, &nest.scenario);
    }
}

/// Contents that no honest peer protects: chains of headers that lie, SAs of ours in them,
/// fragments, and all that ends too early.
fn nonsense(spi: u32) -> Vec<Vec<u8>> {
    let spi = spi.to_be_bytes();
    let mut contents = vec![
        vec![],
        vec![0],
        vec![17, 0, 1, 4, 0, 0, 0, 0],
        vec![43, 255, 0, 255, 0, 0, 0, 0],
        vec![17, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3],
        vec![17, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3],
        vec![44, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3],
        [&spi[..], &[0, 0, 0xff, 0], &[7; 40]].concat(),
        [&[17, 5, 0, 0], &spi[..], &[0, 0, 0xff, 0], &[7; 40]].concat(),
        [&[17, 255, 0, 0], &spi[..], &[0, 0, 0xff, 0], &[7; 40]].concat(),
        [&[17, 148, 17, 148, 0, 48, 0, 0], &spi[..], &[0, 0, 0xff, 0], &[7; 32]].concat(),
        vec![17, 148, 17, 148, 0, 9, 0, 0, 0xff],
        vec![17, 148, 17, 148, 0xff, 0xff, 0, 0, 1, 2, 3, 4],
        vec![3, 4, 0, 0, 0, 0, 5, 0, 0x45, 0, 0, 60],
        vec![0x45, 0, 0xff, 0xff, 0, 0, 0, 0, 1, 50, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4],
        vec![0x4f; 60],
        vec![0x6f; 60],
        vec![0xff; 200],
    ];
    let chain = [0, 0, 43, 0, 60, 0, 44].iter().flat_map(|next| [*next, 0, 0, 0, 0, 0, 0, 0]);
    contents.push(chain.collect());
    contents
}

/// I14, I23, P09: whatever a peer with valid keys puts into an SA, under any next header, stops
/// nothing; what comes out is a whole packet between the addresses that the SA is for.
#[test]
fn authentic_nonsense() {
    for (mode, six) in
        [Mode::Tunnel, Mode::Transport].into_iter().flat_map(|m| [(m, false), (m, true)])
    {
        for algorithm in [ESP, AH] {
            let tunnel = Tunnel { algorithm, ..ah::tunnel(mode, six) };
            let scenario = Scenario::quiet(vec![tunnel.clone()]);
            let mut b = gateway(&scenario, B);
            let ends = (tunnel.outer[A], tunnel.outer[B]);
            let contents = nonsense(tunnel.spi[A].value());
            let all =
                contents.iter().flat_map(|content| (0..=255).map(move |next| (next, content)));
            let packets = (1..).zip(all).map(|(seq, (next, content))| {
                if algorithm == ESP {
                    let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
                    return packet(ends, 50, &null_esp(sa, seq, None, (content, next)));
                }
                let room = vec![0; content.len() + if six { 32 } else { 28 }];
                ah::sent(&tunnel, seq.into(), &packet(ends, 51, &room), (next, content))
            });
            let packets: Vec<Vec<u8>> = packets.collect();
            let found = delivered(&mut b, &packets);
            assert_eq!(found.is_empty(), mode == Mode::Tunnel, "{mode:?} {six} {algorithm}");
            for packet in found {
                let parsed = culvert_wire::ip::parse(&packet).unwrap();
                assert_eq!((parsed.source(), parsed.destination()), ends);
                assert_eq!(parsed.total_len(), packet.len());
            }
            let (counters, inbound) = (b.counters(), b.samples().find(|sample| sample.inbound));
            // Of what it takes for packets of the same SA inside.
            assert!(counters.dropped(DropReason::Icv) < 5);
            assert!(inbound.unwrap().packets >= packets.len() as u64, "each is authentic");
            assert_frames_conserved(&mut b, &scenario);
        }
    }
}

/// I06, I08, A07: batches of ESP and AH in any order, some of them forged, twice, or nobody's:
/// each packet gets the verdict that is its own.
#[test]
fn esp_and_ah_in_one_batch() {
    let scenario = colliding();
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let mut state = 1_u32;
    let mut draw = |bound: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % bound
    };
    for _ in 0..60 {
        let (mut batch, mut expected): (Vec<Vec<u8>>, Vec<Fate>) = (Vec::new(), Vec::new());
        while batch.len() < 60 {
            let index = u8::try_from(draw(2)).unwrap();
            let sent = one(&mut a, (A, LAN), &plain_of(index));
            let (packet, fate) = match draw(6) {
                0 => (with(&sent, 200, &[sent[200] ^ 1]), Fate::Drop(DropReason::Icv)),
                1 => (with(&sent, 9, &[6]), Fate::Drop(DropReason::NoPolicy)),
                2 => {
                    batch.push(sent.clone());
                    expected.push(Fate::Forward(LAN));
                    (sent, Fate::Drop(DropReason::Replay))
                }
                _ => (sent, Fate::Forward(LAN)),
            };
            batch.push(packet);
            expected.push(fate);
        }
        let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        let forwarded = expected.iter().filter(|fate| matches!(fate, Fate::Forward(_))).count();
        assert_eq!(through(&mut b, (B, WAN), &batch).len(), forwarded);
        assert_eq!(fates(&b), expected);
    }
}

/// P28: an SA that a peer nests in itself ends: each layer counts once, and more layers than a
/// gateway unpacks are refused.
#[test]
fn an_sa_nested_in_itself() {
    let tunnel = Tunnel { algorithm: ESP, ..ah::tunnel(Mode::Transport, false) };
    let ends = (tunnel.outer[A], tunnel.outer[B]);
    let sa = (tunnel.spi[A].value(), &tunnel.keymat[A]);
    let segment = packets::udp(ends, 16);
    for layers in 1..=30_u32 {
        let mut b = gateway(&Scenario::quiet(vec![tunnel.clone()]), B);
        let (mut content, mut next) = (segment.clone(), 17);
        for seq in 1..=layers {
            (content, next) = (null_esp(sa, seq, None, (&content, next)), 50);
        }
        let sent = packet(ends, 50, &content);
        let found = through(&mut b, (B, WAN), &[&sent]);
        let expected = if layers <= 5 { vec![hop(&packet(ends, 17, &segment))] } else { vec![] };
        assert_eq!(found, expected, "{layers} layers: {:?}", fates(&b));
        let opened = b.samples().find(|sample| sample.inbound).unwrap().packets;
        assert_eq!(opened, u64::from(layers.min(5)));
        if layers > 5 {
            assert_dropped_only(&b.counters(), DropReason::Nesting, 1);
        }
        // The same number inside and outside is a replay.
        let inside = null_esp(sa, 100, None, (&segment, 17));
        let twice = packet(ends, 50, &null_esp(sa, 100, None, (&inside, 50)));
        assert_eq!(none(&mut b, (B, WAN), &twice), Fate::Drop(DropReason::Replay));
    }
}

/// I03, I06: what a gateway sent is nothing it takes back: not at its peer's address, and, where
/// both directions have one SPI that finds the SA alone, not under the other direction's key.
#[test]
fn own_packets_come_back() {
    for (name, nest) in ways() {
        let sent = one(&mut nest.gateway(A), (A, LAN), &nest.plain());
        let mut a = nest.gateway(A);
        assert_eq!(none(&mut a, (A, WAN), &sent), Fate::Drop(DropReason::NoSa), "{name}");
        let mut same = nest.clone();
        same.scenario.tunnels.iter_mut().for_each(|tunnel| tunnel.spi[B] = tunnel.spi[A]);
        let mut a = changed(&same.scenario, A, |config| {
            same.configure(config);
            let inbound = config.sas.iter_mut();
            inbound.for_each(|sa| sa.lookup = culvert_engine::options::Lookup::Spi);
        });
        assert_eq!(none(&mut a, (A, WAN), &sent), Fate::Drop(DropReason::Icv), "{name}");
    }
}

/// A packet as large as a frame, or nearly, leaves whole or is dropped for want of room, in every
/// way that there is; nothing is cut off and no frame is lost.
#[test]
fn packets_as_large_as_a_frame() {
    for (name, mut nest) in ways() {
        nest.scenario.wan_mtu = 9000;
        let header = if nest.hosts.0.is_ipv4() { 28 } else { 48 };
        let mut a = nest.gateway(A);
        let mut whole = 0;
        for len in 1600..=1778 {
            let plain = packet(nest.hosts, 17, &packets::udp(nest.hosts, len - header));
            let sent = through(&mut a, (A, LAN), &[&plain]);
            match fates(&a)[0] {
                Fate::Forward(_) => {
                    assert_eq!(sent.len(), 1);
                    assert!(sent[0].len() > plain.len());
                    whole += 1;
                }
                fate => assert_eq!(fate, Fate::Drop(DropReason::NoRoom), "{len}: {name}"),
            }
        }
        assert!(whole > 80, "{whole}: {name}");
        assert_frames_conserved(&mut a, &nest.scenario);
    }
}
