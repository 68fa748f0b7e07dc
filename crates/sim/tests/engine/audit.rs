//! Audit records: what is in them, how many are written, and that all are counted.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::AuditRecord;
use culvert_engine::DropReason;
use culvert_engine::Notice;
use culvert_engine::audit::RATE;
use culvert_esp::Mode;
use culvert_sim::gateway::Room;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
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
            // What is outside the window has no whole number: only the half on the wire is known.
            let seq = if reason == DropReason::Replay { seq & 0xffff_ffff } else { seq };
            let expected = AuditRecord {
                at: NOW,
                reason,
                spi: Some(spi),
                seq: Some(seq),
                source: tunnel.outer[A],
                destination: tunnel.outer[B],
                flow_label: six.then_some(0xa_bcde),
                suppressed: 0,
            };
            assert_eq!(records(&mut b), [expected]);
        }
    }
}

/// P11, P29: plaintext that policy protects: a record without SPI and number.
#[test]
fn plaintext_record() {
    let tunnel = tunnel(false, false);
    let mut b = gateway(&Scenario::quiet(vec![tunnel]), B);
    let source = Scenario::host(A, 0, false, 5);
    assert!(through_at(&mut b, (B, WAN), &[&inner(source)], NOW).is_empty());
    let expected = AuditRecord {
        at: NOW,
        reason: DropReason::Plaintext,
        spi: None,
        seq: None,
        source,
        destination: Scenario::host(B, 0, false, 5),
        flow_label: None,
        suppressed: 0,
    };
    assert_eq!(records(&mut b), [expected]);
}

/// E04, E03: the attempt to go beyond the last number is audited, in both modes and protocols: SPI,
/// time, source, destination, and the flow label of IPv6.
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
            spi: Some(tunnel.spi[A].value()),
            seq: None,
            source: addresses.0,
            destination: addresses.1,
            flow_label: six.then_some(0xa_bcde),
            suppressed: 0,
        };
        assert_eq!(records(&mut a), [expected], "{mode:?} {six} {algorithm}");
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
