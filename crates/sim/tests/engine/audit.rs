//! Audit records: what is in them, how many are written, and that all are counted.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_engine::AuditRecord;
use culvert_engine::DropReason;
use culvert_engine::DropReasons;
use culvert_engine::Notice;
use culvert_engine::audit::RATE;
use culvert_esp::Mode;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::gateway::Room;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::AddressRange;
use culvert_spd::AddressSelector;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;

use crate::packets;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::gateway;
use crate::support::notices;
use crate::support::through_at;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 7 * SECOND + 5;

fn tunnel(six: bool, esn: bool) -> Tunnel {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256).with_outer(six);
    Tunnel { esn, ..tunnel }
}

fn records(gateway: &mut TestGateway) -> Vec<AuditRecord> {
    let notices = notices(gateway).into_iter();
    let audits = notices.filter_map(|notice| match notice {
        Notice::Audit(record) => Some(record),
        _ => None,
    });
    audits.collect()
}

/// The packet of A's around ESP with this number; over IPv6 with a flow label.
fn outer(tunnel: &Tunnel, esp: &[u8]) -> Vec<u8> {
    let packet = packet((tunnel.outer[A], tunnel.outer[B]), 50, esp);
    if tunnel.outer[A].is_ipv6() { with(&packet, 1, &[0x0a, 0xbc, 0xde]) } else { packet }
}

fn esp(tunnel: &Tunnel, seq: u64, content: (&[u8], u8)) -> Vec<u8> {
    let high = tunnel.esn.then_some((seq >> 32) as u32);
    let low = u32::try_from(seq & 0xffff_ffff).unwrap();
    outer(tunnel, &null_esp((tunnel.spi[A].value(), &tunnel.keymat[A]), low, high, content))
}

fn inner(source: IpAddr) -> Vec<u8> {
    let addresses = (source, Scenario::host(B, 0, source.is_ipv6(), 5));
    packet(addresses, 17, &packets::udp(addresses, 8))
}

/// I03, I11, I12, I23, P09: each refused packet has its record: time, reason, SPI, source,
/// destination, number (with ESN all of it), and over IPv6 the flow label.
#[test]
fn inbound_records() {
    for (six, esn) in [(false, false), (true, false), (false, true), (true, true)] {
        let start = if esn { 5 << 32 } else { 0 };
        let tunnel = Tunnel { start: [start; 2], ..tunnel(six, esn) };
        let mut b = gateway(&Scenario::quiet(vec![tunnel.clone()]), B);
        let good = inner(Scenario::host(A, 0, false, 5));
        let foreign = inner([192, 0, 2, 77].into());
        let spi = tunnel.spi[A].value();
        let mut unknown = esp(&tunnel, start + 3, (&good, 4));
        let spi_at = unknown.len() - 16 - 4 - good.len() - 8;
        assert_eq!(unknown[spi_at..spi_at + 4], spi.to_be_bytes());
        unknown[spi_at] = 0xee;
        let mut forged = esp(&tunnel, start + 4, (&good, 4));
        *forged.last_mut().unwrap() ^= 1;
        let once = esp(&tunnel, start + 9, (&good, 4));
        assert_eq!(through_at(&mut b, (B, WAN), &[&once], 1).len(), 1);
        let other = 0xee00_0000 | spi;
        let unknown_seq = 3; // Without its SA nobody knows the high half.
        let cases = [
            (unknown, DropReason::NoSa, other, unknown_seq),
            (forged, DropReason::Icv, spi, start + 4),
            (once, DropReason::Replay, spi, start + 9),
            (esp(&tunnel, start + 10, (&good[..6], 6)), DropReason::NextHeader, spi, start + 10),
            (esp(&tunnel, start + 11, (&foreign, 4)), DropReason::Selector, spi, start + 11),
        ];
        for (packet, reason, spi, seq) in cases {
            assert!(through_at(&mut b, (B, WAN), &[&packet], NOW).is_empty(), "{reason}");
            assert_eq!(b.workers[0].last_verdicts()[0].seq, Some(seq), "the verdict knows it too");
            let expected = AuditRecord {
                at: NOW,
                reason,
                inbound: true,
                slot: (reason != DropReason::NoSa).then_some(0),
                protocol: Some(Protocol::Esp),
                spi: Some(spi),
                seq: Some(seq),
                source: tunnel.outer[A],
                destination: tunnel.outer[B],
                flow_label: six.then_some(0xa_bcde),
                flow: (reason == DropReason::Selector).then(|| seen(&foreign)),
                suppressed: 0,
            };
            assert_eq!(records(&mut b), [expected]);
        }
    }
}

/// P11, P29: plaintext that policy protects, or that no policy is for: a record without SPI and
/// number, but with what policy sees of the packet.
#[test]
fn plaintext_record() {
    let tunnel = tunnel(false, false);
    let mut b = gateway(&Scenario::quiet(vec![tunnel]), B);
    for (six, foreign) in [(false, false), (true, false), (false, true), (true, true)] {
        let (source, reason) = match foreign {
            false => (Scenario::host(A, 0, six, 5), DropReason::Plaintext),
            true => (stranger(six), DropReason::NoPolicy),
        };
        let plain = inner(source);
        let plain = if six { with(&plain, 1, &[0x0a, 0xbc, 0xde]) } else { plain };
        assert!(through_at(&mut b, (B, WAN), &[&plain], NOW).is_empty());
        let expected = AuditRecord {
            at: NOW,
            reason,
            inbound: true,
            slot: None,
            protocol: None,
            spi: None,
            seq: None,
            source,
            destination: Scenario::host(B, 0, six, 5),
            flow_label: six.then_some(0xa_bcde),
            flow: Some(seen(&plain)),
            suppressed: 0,
        };
        assert_eq!(records(&mut b), [expected]);
    }
}

/// E04, E03: the attempt to go beyond the last number is audited, in both modes and protocols: SPI,
/// time, source, destination, the number that cannot be passed, and the flow label of IPv6.
#[test]
fn overflow_record() {
    for (mode, six, algorithm) in [
        (Mode::Tunnel, false, Algorithm::Aes128Gcm16),
        (Mode::Tunnel, true, Algorithm::Aes128Gcm16),
        (Mode::Tunnel, true, Algorithm::AhSha256),
        (Mode::Tunnel, false, Algorithm::AhSha256),
        (Mode::Transport, true, Algorithm::Aes128Gcm16),
        (Mode::Transport, false, Algorithm::AhSha256),
    ] {
        let hosts = [A, B].map(|side| Scenario::host(side, 0, six, 5));
        let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_outer(six);
        let mut tunnel = Tunnel { start: [u32::MAX.into(); 2], ..tunnel.with_mode(mode) };
        if mode == Mode::Transport {
            tunnel.outer = hosts;
        }
        let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
        let addresses = (hosts[A], hosts[B]);
        let mut plain = packet(addresses, 17, &packets::udp(addresses, 8));
        if six {
            plain = with(&plain, 1, &[0x0a, 0xbc, 0xde]);
        }
        assert!(through_at(&mut a, (A, LAN), &[&plain], NOW).is_empty());
        let expected = AuditRecord {
            at: NOW,
            reason: DropReason::SequenceExhausted,
            inbound: false,
            slot: Some(0),
            protocol: Some(tunnel.protocol()),
            spi: Some(tunnel.spi[A].value()),
            seq: Some(u32::MAX.into()),
            source: addresses.0,
            destination: addresses.1,
            flow_label: six.then_some(0xa_bcde),
            flow: None,
            suppressed: 0,
        };
        assert_eq!(records(&mut a), [expected], "{mode:?} {six} {algorithm}");
    }
}

/// A host that no policy knows.
fn stranger(six: bool) -> IpAddr {
    if six { "2001:db8:77::1".parse().unwrap() } else { [192, 0, 2, 77].into() }
}

/// What policy sees of a packet.
fn seen(packet: &[u8]) -> Flow {
    Flow::of(packet, &culvert_wire::ip::parse(packet).unwrap())
}

/// I03, I11, I12, P09, P29, A07: of every kind of SA, ESP and AH, tunnel and transport, over IPv4
/// and IPv6, with and without ESN, each event has its data, the whole number among them.
#[test]
fn records_of_every_kind_of_sa() {
    let modes = [Mode::Tunnel, Mode::Transport];
    let algorithms = [Algorithm::Aes128Gcm16, Algorithm::NullSha256, Algorithm::AhSha256];
    for (mode, algorithm) in modes.into_iter().flat_map(|mode| algorithms.map(|a| (mode, a))) {
        for (six, esn) in [(false, false), (true, false), (false, true), (true, true)] {
            let hosts = [A, B].map(|side| Scenario::host(side, 0, six, 5));
            let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_outer(six);
            let start = if esn { 5 << 32 } else { 0 };
            let mut tunnel = Tunnel { start: [start; 2], esn, ..tunnel.with_mode(mode) };
            if mode == Mode::Transport {
                tunnel.outer = hosts;
            }
            let scenario = Scenario { frames: 8, ..Scenario::quiet(vec![tunnel.clone()]) };
            let mut a = gateway(&scenario, A);
            let mut b = gateway(&scenario, B);
            let plain = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 8));
            let sent: Vec<_> = (0..3)
                .map(|_| through_at(&mut a, (A, LAN), &[&plain], 1).remove(0))
                .map(|sent| if six { with(&sent, 1, &[0x0a, 0xbc, 0xde]) } else { sent })
                .collect();
            assert_eq!(through_at(&mut b, (B, WAN), &[&sent[0]], 1).len(), 1);
            let spi = tunnel.spi[A].value();
            let at = if six { 40 } else { 20 }
                + if algorithm.protocol() == Protocol::Ah { 4 } else { 0 };
            assert_eq!(sent[1][at..at + 4], spi.to_be_bytes());
            let unknown = with(&sent[1], at, &[0xee]);
            let mut forged = sent[2].clone();
            *forged.last_mut().unwrap() ^= 1;
            let low = (start + 2) & 0xffff_ffff;
            let other = 0xee00_0000 | spi & 0xff_ffff;
            let mut cases = vec![
                (unknown, DropReason::NoSa, other, low),
                (forged, DropReason::Icv, spi, start + 3),
                (sent[0].clone(), DropReason::Replay, spi, start + 1),
            ];
            let mut strict = changed(&scenario, B, |config| config.spd.inbound.clear());
            cases.push((sent[1].clone(), DropReason::Selector, spi, start + 2));
            for (sent, reason, spi, seq) in cases {
                let is_mismatch = reason == DropReason::Selector;
                let b = if is_mismatch { &mut strict } else { &mut b };
                assert!(through_at(b, (B, WAN), &[&sent], NOW).is_empty(), "{reason}");
                let [record] = records(b)[..] else { panic!("one record of {reason}") };
                let expected = AuditRecord {
                    at: NOW,
                    reason,
                    inbound: true,
                    slot: (reason != DropReason::NoSa).then_some(0),
                    protocol: Some(tunnel.protocol()),
                    spi: Some(spi),
                    seq: Some(seq),
                    source: tunnel.outer[A],
                    destination: tunnel.outer[B],
                    flow_label: six.then_some(0xa_bcde),
                    flow: record.flow,
                    suppressed: 0,
                };
                assert_eq!(record, expected, "{mode:?} {algorithm} {six} {esn}");
                assert_eq!(record.flow.is_some(), is_mismatch);
                let flow = seen(&plain);
                assert!(record.flow.is_none_or(|seen| seen == flow), "{:?}", record.flow);
            }
        }
    }
}

/// I11, P28: in a bundle it is the inner SA whose number came twice: its record has that SA's SPI
/// and number.
#[test]
fn the_record_of_a_nested_replay() {
    let hosts = [A, B].map(|side| Scenario::host(side, 0, false, 5));
    let algorithms = [Algorithm::NullSha256, Algorithm::AhSha256];
    let nest = |around: u64| -> Scenario {
        let tunnels = (0u8..).zip(algorithms).map(|(index, algorithm)| {
            let start = if index == 1 { around } else { 0 };
            let tunnel = Tunnel::ordinary(index).with_algorithm(algorithm);
            Tunnel { outer: hosts, start: [start; 2], ..tunnel.with_mode(Mode::Transport) }
        });
        Scenario::quiet(tunnels.collect())
    };
    let gateway = |around: u64, side: usize| {
        changed(&nest(around), side, |config| {
            config.bundles = vec![(Group(90), vec![Group(0), Group(1)])];
            config.sas.iter_mut().filter(|sa| sa.group == Group(0)).for_each(|sa| {
                sa.receiving.within = Some(Group(1));
            });
            let any = |group| vec![Policy::new(Selector::ANY, Action::Protect(group))];
            (config.spd.outbound, config.spd.inbound) = (any(Group(90)), any(Group(0)));
        })
    };
    let plain = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 8));
    // Two senders whose inner SA is at the same number.
    let sent =
        [0, 10].map(|around| through_at(&mut gateway(around, A), (A, LAN), &[&plain], 1).remove(0));
    let mut b = gateway(0, B);
    assert_eq!(through_at(&mut b, (B, WAN), &[&sent[0]], 1).len(), 1);
    assert!(through_at(&mut b, (B, WAN), &[&sent[1]], NOW).is_empty());
    let [record] = records(&mut b)[..] else { panic!("one record") };
    let inner = nest(0).tunnels[0].spi[A].value();
    assert_eq!((record.reason, record.protocol), (DropReason::Replay, Some(Protocol::Esp)));
    assert_eq!((record.spi, record.seq), (Some(inner), Some(1)));
    assert_eq!((record.source, record.destination), (hosts[A], hosts[B]));
}

/// P29, P12, I01: what the protected side sends and policy refuses is recorded with the reason, the
/// time and what policy sees; and a fragment for transport mode with its SA. A flood of it hides
/// nothing that comes from outside.
#[test]
fn records_of_what_is_not_sent() {
    for six in [false, true] {
        let tunnel = tunnel(six, false);
        let host = Scenario::host(A, 0, six, 5);
        let to =
            |destination| packet((host, destination), 17, &packets::udp((host, destination), 8));
        let discards = |config: &mut GatewayConfig| {
            let selector = Selector::new(
                AddressSelector::Any,
                AddressSelector::from(AddressRange::from(stranger(six))),
                None,
                UpperSelector::Any,
            );
            let discard = Policy::new(selector.unwrap(), Action::Discard);
            config.spd.outbound.insert(0, discard);
            config.sas.iter_mut().for_each(|sa| sa.group = Group(99));
        };
        let scenario = Scenario { frames: 128, ..Scenario::quiet(vec![tunnel]) };
        let nobody = if six { "2001:db8:78::1".parse().unwrap() } else { [192, 0, 2, 78].into() };
        let mut a = changed(&scenario, A, discards);
        for (destination, reason) in [
            (stranger(six), DropReason::Discard),
            (nobody, DropReason::NoPolicy),
            (Scenario::host(B, 0, six, 5), DropReason::NoOutboundSa),
        ] {
            let plain = to(destination);
            assert!(through_at(&mut a, (A, LAN), &[&plain], NOW).is_empty());
            let expected = AuditRecord {
                at: NOW,
                reason,
                inbound: false,
                slot: None,
                protocol: None,
                spi: None,
                seq: None,
                source: host,
                destination,
                flow_label: six.then_some(0),
                flow: Some(seen(&plain)),
                suppressed: 0,
            };
            assert_eq!(records(&mut a), [expected]);
        }
        let plain = to(nobody);
        for _ in 0..4 {
            assert!(through_at(&mut a, (A, LAN), &[&plain[..]; 64], NOW).is_empty());
        }
        assert_eq!(records(&mut a).len(), RATE as usize - 3, "three are written already");
        let stray = packet((stranger(six), host), 17, &packets::udp((stranger(six), host), 8));
        assert!(through_at(&mut a, (A, WAN), &[&stray], NOW).is_empty());
        let outside = records(&mut a);
        assert_eq!((outside.len(), outside[0].suppressed), (1, 0));
    }
}

/// P29, E17: a fragment offered to transport mode: a record with the SPI of its SA.
#[test]
fn records_of_fragments() {
    for algorithm in [Algorithm::NullSha256, Algorithm::AhSha256] {
        let hosts = [A, B].map(|side| Scenario::host(side, 0, false, 5));
        let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_mode(Mode::Transport);
        let tunnel = Tunnel { outer: hosts, ..tunnel };
        let mut a = gateway(&Scenario::quiet(vec![tunnel.clone()]), A);
        let whole = packet((hosts[A], hosts[B]), 17, &packets::udp((hosts[A], hosts[B]), 32));
        let fragment = with(&whole, 6, &[0x20, 0]);
        assert!(through_at(&mut a, (A, LAN), &[&fragment], NOW).is_empty());
        let [record] = records(&mut a)[..] else { panic!("one record") };
        assert_eq!((record.at, record.reason), (NOW, DropReason::Fragment));
        assert_eq!((record.spi, record.slot), (Some(tunnel.spi[A].value()), Some(0)));
        assert_eq!((record.source, record.destination), (hosts[A], hosts[B]));
        assert_eq!((record.protocol, record.inbound), (Some(tunnel.protocol()), false));
    }
}

/// P29: audit can be off, or on for some reasons; counters do not care, and IKE is told all the
/// same.
#[test]
fn audit_can_be_switched() {
    let tunnel = tunnel(false, false);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    for (reasons, expected) in [
        (DropReasons::NONE, 0),
        (DropReasons::NONE.with(DropReason::Replay), 0),
        (DropReasons::NONE.with(DropReason::Icv), 1),
        (DropReasons::AUDITABLE, 2),
    ] {
        let mut b = changed(&scenario, B, |config| config.options.audit.reasons = reasons);
        let good = inner(Scenario::host(A, 0, false, 5));
        let mut forged = esp(&tunnel, 4, (&good, 4));
        *forged.last_mut().unwrap() ^= 1;
        let foreign = inner(stranger(false));
        let foreign = esp(&tunnel, 5, (&foreign, 4));
        assert!(through_at(&mut b, (B, WAN), &[&forged, &foreign], NOW).is_empty());
        let told = notices(&mut b);
        let is_record = |notice: &&Notice| matches!(notice, Notice::Audit(_));
        assert_eq!(told.iter().filter(is_record).count(), expected, "{reasons:?}");
        let for_ike = |notice: &&Notice| matches!(notice, Notice::InvalidSelectors { .. });
        assert_eq!(told.iter().filter(for_ike).count(), 1);
        let counters = b.counters();
        let dropped =
            [DropReason::Icv, DropReason::Selector].map(|reason| counters.dropped(reason));
        assert_eq!(dropped, [1, 1]);
    }
}

/// `count` forged packets in turns of 64, at one time.
fn flood(b: &mut TestGateway, tunnel: &Tunnel, count: u64, now: u64) {
    let good = inner(Scenario::host(A, 0, false, 5));
    let mut forged = esp(tunnel, 4, (&good, 4));
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..count / 64 {
        assert!(through_at(b, (B, WAN), &[&forged[..]; 64], now).is_empty());
    }
    for _ in 0..count % 64 {
        assert!(through_at(b, (B, WAN), &[&forged], now).is_empty());
    }
}

/// P29, I12: of a flood, each packet is counted, RATE records are written and no more, and the next
/// one that is written says how many were not.
#[test]
fn a_flood_is_limited_and_counted() {
    let tunnel = tunnel(false, false);
    let mut b = gateway(&Scenario::quiet(vec![tunnel.clone()]), B);
    flood(&mut b, &tunnel, 1000, NOW);
    let written = records(&mut b);
    assert_eq!(written.len(), RATE as usize);
    assert!(written.iter().all(|record| record.suppressed == 0));
    assert_eq!(b.counters().dropped(DropReason::Icv), 1000);
    // A second later there are as many again, and none for free after an hour.
    flood(&mut b, &tunnel, 1, NOW + SECOND);
    assert_eq!(records(&mut b)[0].suppressed, 1000 - u64::from(RATE));
    flood(&mut b, &tunnel, 500, NOW + 3600 * SECOND);
    let written = records(&mut b);
    assert_eq!(written.len(), RATE as usize);
    flood(&mut b, &tunnel, 1, NOW + 3601 * SECOND);
    assert_eq!(records(&mut b)[0].suppressed, 500 - u64::from(RATE));
    assert_eq!(b.counters().dropped(DropReason::Icv), 1502);
}

/// P29: records that find no room on their way to control count as not written.
#[test]
fn a_full_queue_loses_no_count() {
    let tunnel = tunnel(false, false);
    let room = Room { mailbox: 1, ..Room::default() };
    let scenario = Scenario { room, ..Scenario::quiet(vec![tunnel.clone()]) };
    let mut b = gateway(&scenario, B);
    flood(&mut b, &tunnel, 90, NOW);
    let written = records(&mut b);
    assert!((1..90).contains(&written.len()), "{} records", written.len());
    flood(&mut b, &tunnel, 1, NOW + SECOND);
    let next = records(&mut b);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].suppressed + written.len() as u64, 90);
}
