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
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;

use crate::ah;
use crate::bundles::Layer;
use crate::bundles::Nest;
use crate::bundles::nest;
use crate::packets;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::TestGateway;
use crate::support::arriving;
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
use crate::support::turn;

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

/// I11, P28: of what is refused inside another SA, the SA it was for is named and counts it, and the
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

/// P11: what policy lets by, and what is for the gateway itself, is the stack's whatever its TTL: no
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
