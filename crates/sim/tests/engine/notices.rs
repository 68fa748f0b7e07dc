//! What IKE is told of single packets, and what an operator is: data, rates, switches.

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_control::Direction;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::options::NoticeOptions;
use culvert_esp::Mode;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::packet;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::gateway;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::through_at;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 7 * SECOND;

/// What IKE was told.
fn for_ike(gateway: &mut TestGateway) -> Vec<Notice> {
    let told = notices(gateway).into_iter();
    told.filter(|notice| !matches!(notice, Notice::Audit(_))).collect()
}

/// B, with its notices changed.
fn telling(scenario: &Scenario, change: impl FnOnce(&mut NoticeOptions)) -> TestGateway {
    changed(scenario, B, |config| change(&mut config.options.notices))
}

/// U14: a packet without an SA is answered by nothing on the wire; IKE hears of its protocol, SPI
/// and addresses, and of the port if it was encapsulated, at a bounded rate and with what was left
/// out; or not at all.
#[test]
fn unknown_spis_are_news() {
    for (six, algorithm, udp) in [
        (false, Algorithm::Aes128Gcm16, false),
        (true, Algorithm::Aes128Gcm16, false),
        (false, Algorithm::Aes128Gcm16, true),
        (true, Algorithm::AhSha256, false),
    ] {
        let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_outer(six);
        let tunnel = if udp { tunnel.with_udp() } else { tunnel };
        let scenario = Scenario::quiet(vec![tunnel.clone()]);
        let hosts = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
        let plain = packet(hosts, 17, &packets::udp(hosts, 8));
        let sent = one(&mut gateway(&scenario, A), (A, LAN), &plain);
        let spi = tunnel.spi[A].value();
        let before = if algorithm.protocol() == Protocol::Ah { 4 } else { 0 };
        let at = if six { 40 } else { 20 } + if udp { 8 } else { before };
        assert_eq!(sent[at..at + 4], spi.to_be_bytes());
        let stray = with(&sent, at, &[0xee]);
        let mut b = gateway(&scenario, B);
        for _ in 0..50 {
            assert!(through_at(&mut b, (B, WAN), &[&stray], NOW).is_empty());
        }
        assert!(through_at(&mut b, (B, WAN), &[&stray], NOW + SECOND).is_empty());
        let notice = |suppressed| Notice::InvalidSpi {
            protocol: if udp { Protocol::Esp } else { tunnel.protocol() },
            spi: 0xee00_0000 | spi & 0xff_ffff,
            source: tunnel.outer[A],
            port: udp.then_some(4500),
            destination: tunnel.outer[B],
            suppressed,
        };
        let told = for_ike(&mut b);
        assert_eq!(told, [vec![notice(0); 10], vec![notice(40)]].concat());
        assert_eq!(b.counters().dropped(DropReason::NoSa), 51);
        let mut silent = telling(&scenario, |notices| notices.invalid_spi = false);
        assert_eq!(none(&mut silent, (B, WAN), &stray), Fate::Drop(DropReason::NoSa));
        assert_eq!(for_ike(&mut silent), []);
    }
}

/// P10, P09: a packet that does not belong into its SA is news for IKE, which may send
/// INVALID_SELECTORS: with the SPI, and the start of the packet as the data of the notification.
/// The rate is bounded, and it can be switched off.
#[test]
fn wrong_selectors_are_news() {
    let modes = [Mode::Tunnel, Mode::Transport];
    for (mode, six) in modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let hosts = [A, B].map(|side| Scenario::host(side, 0, six, 5));
        let mut tunnel = Tunnel::ordinary(0).with_outer(six).with_mode(mode);
        if mode == Mode::Transport {
            tunnel.outer = hosts;
        }
        let scenario = Scenario { frames: 8, ..Scenario::quiet(vec![tunnel.clone()]) };
        let plain = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 60));
        let mut a = gateway(&scenario, A);
        let mut b = changed(&scenario, B, |config| config.spd.inbound.clear());
        let mut silent = changed(&scenario, B, |config| {
            config.spd.inbound.clear();
            config.options.notices.invalid_selectors = false;
        });
        for index in 0..31 {
            let sent = one(&mut a, (A, LAN), &plain);
            let now = if index < 30 { NOW } else { NOW + SECOND };
            assert!(through_at(&mut b, (B, WAN), &[&sent], now).is_empty());
            assert!(through_at(&mut silent, (B, WAN), &[&sent], now).is_empty());
        }
        let told = for_ike(&mut b);
        assert_eq!(told.len(), 11, "{mode:?} {six}");
        for (index, notice) in told.iter().enumerate() {
            let &Notice::InvalidSelectors { slot, spi, packet, suppressed } = notice else {
                panic!("{notice:?}");
            };
            assert_eq!((slot, spi), (0, tunnel.spi[A].value()));
            assert_eq!(suppressed, if index < 10 { 0 } else { 20 });
            let start = packet.octets();
            assert_eq!(start.len(), 68);
            // As ICMP quotes it: the header, and what is behind it.
            let header = if six { 40 } else { 20 };
            assert_eq!(start[header..], plain[header..68]);
            let addresses = if six { 8..40 } else { 12..20 };
            assert_eq!(start[addresses.clone()], plain[addresses]);
        }
        assert_eq!(for_ike(&mut silent), []);
        assert_eq!(silent.counters().dropped(DropReason::Selector), 31);
    }
}

/// C07: unusual combinations of ECN fields can be kept quiet; what becomes of the packets stays.
#[test]
fn unusual_ecn_can_be_kept_quiet() {
    let tunnel = Tunnel::ordinary(0);
    let scenario = Scenario::quiet(vec![tunnel]);
    let hosts = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
    let plain = packet(hosts, 17, &packets::udp(hosts, 8));
    let mut a = gateway(&scenario, A);
    let mut b = gateway(&scenario, B);
    let mut silent = telling(&scenario, |notices| notices.unusual_ecn = false);
    for (outer, forwarded) in [(1, true), (2, true), (3, false)] {
        let sent = with(&one(&mut a, (A, LAN), &plain), 1, &[outer]);
        for b in [&mut b, &mut silent] {
            assert_eq!(through_at(b, (B, WAN), &[&sent], NOW).len(), usize::from(forwarded));
        }
    }
    assert!(matches!(for_ike(&mut b)[..], [Notice::UnusualEcn { .. }]));
    assert_eq!(for_ike(&mut silent), []);
}

/// U16: the SAs of single CPUs come from a port each; that is no new place of the peer, in whatever
/// order their packets come.
#[test]
fn sas_from_ports_of_their_own_have_not_moved() {
    let ports = [4500u16, 4501, 61000];
    let tunnels: Vec<Tunnel> = (0u8..3)
        .map(|index| {
            let outer = Tunnel::ordinary(0).outer;
            Tunnel { index: 0, outer, ..Tunnel::ordinary(index) }.with_udp()
        })
        .collect();
    let hosts = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
    let plain = packet(hosts, 17, &packets::udp(hosts, 8));
    let mut b = changed(&Scenario::quiet(tunnels.clone()), B, |config| {
        for (sa, port) in
            config.sas.iter_mut().filter(|sa| sa.direction == Direction::Inbound).zip(ports)
        {
            let known = sa.encapsulation.as_mut().unwrap();
            known.source_port = port;
        }
    });
    let mut senders: Vec<_> =
        tunnels.iter().map(|tunnel| gateway(&Scenario::quiet(vec![tunnel.clone()]), A)).collect();
    for round in 0..3 {
        for which in 0..3 {
            let which = (which + round) % 3;
            let sent = one(&mut senders[which], (A, LAN), &plain);
            let sent = with(&sent, 20, &ports[which].to_be_bytes());
            assert_eq!(one(&mut b, (B, WAN), &sent).len(), plain.len());
        }
    }
    assert_eq!(for_ike(&mut b), []);
    // The same SA from the port of another one has moved.
    let sent = one(&mut senders[0], (A, LAN), &plain);
    one(&mut b, (B, WAN), &with(&sent, 20, &ports[1].to_be_bytes()));
    assert!(matches!(for_ike(&mut b)[..], [Notice::Mapping { .. }]));
}
