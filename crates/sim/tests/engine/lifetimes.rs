//! Lifetimes of SAs: in time, octets and packets, soft and hard.

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_esp::Expiry;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_esp::lifetime::ExpiryCause;
use culvert_esp::lifetime::ExpiryKind;
use culvert_esp::lifetime::Limits;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Group;

use crate::packets;
use crate::packets::packet;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
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
const NONE: Limits = Limits { seconds: None, used_seconds: None, bytes: None, packets: None };

fn scenario(algorithm: Algorithm) -> Scenario {
    Scenario::quiet(vec![Tunnel::ordinary(0).with_algorithm(algorithm)])
}

fn limited(scenario: &Scenario, side: usize, soft: Limits, hard: Limits) -> TestGateway {
    changed(scenario, side, |config| {
        let lifetime = Lifetime::new(soft, hard).unwrap();
        config.sas.iter_mut().for_each(|sa| sa.lifetime = lifetime);
    })
}

/// A packet of 28 octets and `len` from a host of A to one of B.
fn plain(len: usize) -> Vec<u8> {
    let addresses = (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5));
    packet(addresses, 17, &packets::udp(addresses, len))
}

/// What expired since the last time: inbound or not, SPI, what.
fn expired(gateway: &mut TestGateway) -> Vec<(bool, u32, ExpiryKind, ExpiryCause)> {
    let notices = notices(gateway).into_iter();
    let expired = notices.filter_map(|notice| match notice {
        Notice::Expire { inbound, spi, expiry: Expiry { kind, cause }, .. } => {
            Some((inbound, spi, kind, cause))
        }
        _ => None,
    });
    expired.collect()
}

/// Algorithm and mode; octets of payload, and octets counted.
type Counts = (Algorithm, Mode, &'static [(usize, u64)]);

/// P16: the octets counted are those of ESP text: payload, padding, pad length, next header; IV and
/// ICV are not; of AH, the whole packet. Both ends count the same.
#[test]
fn octets_are_exact() {
    let cases: [Counts; 5] = [
        // 28 octets and the payload, 2, up to 4.
        (Algorithm::Aes128Gcm16, Mode::Tunnel, &[(0, 32), (2, 32), (3, 36), (100, 132)]),
        (Algorithm::NullSha256, Mode::Tunnel, &[(0, 32), (2, 32), (3, 36)]),
        // Up to 16.
        (Algorithm::Aes128CbcSha256, Mode::Tunnel, &[(0, 32), (2, 32), (3, 48)]),
        // 20 octets and 28 of AH around 28.
        (Algorithm::AhSha256, Mode::Tunnel, &[(0, 76), (3, 79)]),
        // 8 octets of UDP, 2, up to 4.
        (Algorithm::Aes128Gcm16, Mode::Transport, &[(0, 12), (2, 12), (3, 16)]),
    ];
    for (algorithm, mode, packets) in cases {
        let mut scenario = scenario(algorithm);
        scenario.tunnels[0].mode = mode;
        if mode == Mode::Transport {
            scenario.tunnels[0].outer = [A, B].map(|side| Scenario::host(side, 0, false, 5));
        }
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        let mut total = 0;
        for (count, &(len, octets)) in (1..).zip(packets) {
            let sent = one(&mut a, (A, LAN), &plain(len));
            one(&mut b, (B, WAN), &sent);
            total += octets;
            for (gateway, inbound) in [(&a, false), (&b, true)] {
                let sample = sample(gateway, inbound);
                assert_eq!((sample.packets, sample.bytes), (count, total), "{algorithm} {len}");
            }
        }
    }
}

/// P15, P17: soft limits in packets and octets are told once and stop nothing; hard ones are told
/// once, and nothing passes after them, in both directions.
#[test]
fn soft_then_hard() {
    let packets = |packets| Limits { packets: Some(packets), ..NONE };
    // Each packet below has 32 octets of text.
    let bytes = |packets: u64| Limits { bytes: Some(packets * 32), ..NONE };
    for (soft, hard, cause) in [
        (packets(3), packets(5), ExpiryCause::Packets),
        (bytes(3), bytes(5), ExpiryCause::Bytes),
        (Limits { bytes: Some(3 * 32 - 31), ..packets(1000) }, bytes(5), ExpiryCause::Bytes),
    ] {
        let scenario = scenario(Algorithm::Aes128Gcm16);
        let spi = scenario.tunnels[0].spi[A].value();
        let mut free = gateway(&scenario, A);
        let sent: Vec<_> = (0..8).map(|_| one(&mut free, (A, LAN), &plain(0))).collect();
        let mut a = limited(&scenario, A, soft, hard);
        let mut b = limited(&scenario, B, soft, hard);
        for number in 1..=8usize {
            let before = number <= 5;
            assert_eq!(through(&mut a, (A, LAN), &[&plain(0)]).len(), usize::from(before));
            let delivered = through(&mut b, (B, WAN), &[&sent[number - 1]]).len();
            assert_eq!(delivered, usize::from(before), "packet {number}");
            if !before {
                assert_eq!(fates(&a), [Fate::Drop(DropReason::Expired)]);
                assert_eq!(fates(&b), [Fate::Drop(DropReason::Expired)]);
            }
            for (gateway, inbound) in [(&mut a, false), (&mut b, true)] {
                let expected = match number {
                    3 => vec![(inbound, spi, ExpiryKind::Soft, cause)],
                    5 => vec![(inbound, spi, ExpiryKind::Hard, cause)],
                    _ => vec![],
                };
                assert_eq!(expired(gateway), expected, "packet {number}");
            }
        }
    }
}

/// P15: several packets of one batch do not slip past a hard limit together.
#[test]
fn a_batch_ends_at_the_limit() {
    let hard = Limits { packets: Some(3), ..NONE };
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let mut free = gateway(&scenario, A);
    let sent: Vec<_> = (0..8).map(|_| one(&mut free, (A, LAN), &plain(0))).collect();
    let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
    let mut a = limited(&scenario, A, NONE, hard);
    let mut b = limited(&scenario, B, NONE, hard);
    assert_eq!(through(&mut a, (A, LAN), &[&plain(0)[..]; 8]).len(), 3);
    assert_eq!(through(&mut b, (B, WAN), &sent).len(), 3);
    assert_eq!(b.counters().dropped(DropReason::Expired), 5);
}

/// P15: what is forged, seen before, or left of the window wears nothing out.
#[test]
fn only_authentic_packets_count() {
    let hard = Limits { packets: Some(3), bytes: Some(100), ..NONE };
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let mut a = gateway(&scenario, A);
    let mut b = limited(&scenario, B, NONE, hard);
    let first = one(&mut a, (A, LAN), &plain(0));
    one(&mut b, (B, WAN), &first);
    let second = one(&mut a, (A, LAN), &plain(0));
    let mut forged = second.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..50 {
        none(&mut b, (B, WAN), &forged);
        none(&mut b, (B, WAN), &first);
    }
    let sample = sample(&b, true);
    assert_eq!((sample.packets, sample.bytes), (1, 32));
    one(&mut b, (B, WAN), &second);
    assert!(expired(&mut b).is_empty());
}

/// P15, P17: limits in time are told by the clock, without any packet; the first limit rules.
#[test]
fn time_passes_without_packets() {
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let spi = scenario.tunnels[0].spi.map(|spi| spi.value());
    let seconds = |seconds| Limits { seconds: Some(seconds), ..NONE };
    let hard = Limits { packets: Some(1_000_000), ..seconds(20) };
    let mut a = limited(&scenario, A, seconds(10), hard);
    let at = |a: &mut TestGateway, now| {
        let sent = through_at(a, (A, LAN), &[&plain(0)], now).len();
        (sent, expired(a))
    };
    let both = |kind| {
        let time = ExpiryCause::Time;
        vec![(true, spi[B], kind, time), (false, spi[A], kind, time)]
    };
    assert_eq!(at(&mut a, 10 * SECOND - 1), (1, vec![]));
    assert!(through_at(&mut a, (A, LAN), &[], 10 * SECOND + SECOND / 5).is_empty());
    assert_eq!(expired(&mut a), both(ExpiryKind::Soft));
    assert_eq!(at(&mut a, 20 * SECOND - 1), (1, vec![]));
    assert!(through_at(&mut a, (A, LAN), &[], 20 * SECOND + SECOND / 5).is_empty());
    assert_eq!(expired(&mut a), both(ExpiryKind::Hard));
    assert_eq!(at(&mut a, 21 * SECOND), (0, vec![]));
    assert_eq!(fates(&a), [Fate::Drop(DropReason::Expired)]);
}

/// P15, P17: a hard limit in time holds though control has stopped listening before it could be
/// told of the soft one.
#[test]
fn a_limit_in_time_holds_though_control_is_deaf() {
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let seconds = |seconds| Limits { seconds: Some(seconds), ..NONE };
    let mut a = gateway(&scenario, A);
    let mut b = limited(&scenario, B, seconds(10), seconds(20));
    let [first, second] = [0; 2].map(|_| one(&mut a, (A, LAN), &plain(0)));
    let mut unknown = first.clone();
    unknown[20..24].copy_from_slice(&[0x77; 4]);
    // Audit records fill the queue to control, which takes none of them.
    for second in 1..10 {
        for _ in 0..120 {
            through_at(&mut b, (B, WAN), &[&unknown], second * SECOND);
        }
    }
    through_at(&mut b, (B, WAN), &[], 11 * SECOND);
    assert_eq!(through_at(&mut b, (B, WAN), &[&first], 19 * SECOND).len(), 1);
    through_at(&mut b, (B, WAN), &[], 21 * SECOND);
    assert!(through_at(&mut b, (B, WAN), &[&second], 21 * SECOND).is_empty());
    assert_eq!(fates(&b), [Fate::Drop(DropReason::Expired)]);
    let back = (Scenario::host(B, 0, false, 5), Scenario::host(A, 0, false, 5));
    let answer = packet(back, 17, &packets::udp(back, 0));
    assert!(through_at(&mut b, (B, LAN), &[&answer], 21 * SECOND).is_empty());
    assert_eq!(fates(&b), [Fate::Drop(DropReason::Expired)]);
}

/// P15, P17: an SA gets other limits while it lives: at its worker at once, or when it has come to
/// another; its counts go on, and control is told of what the new limits make due.
#[test]
fn limits_change_while_an_sa_lives() {
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let mut a = limited(&scenario, A, NONE, NONE);
    let packets = |packets| Limits { packets: Some(packets), ..NONE };
    let id = a.controller.current(Group(0)).unwrap();
    let limit = |a: &mut TestGateway, soft, hard| {
        let lifetime = Lifetime::new(packets(soft), packets(hard)).unwrap();
        a.controller.set_lifetime(id, lifetime).unwrap();
        a.controller.poll().unwrap();
        turn_all(a, 0);
        expired(a).into_iter().map(|(_, _, kind, _)| kind).collect::<Vec<_>>()
    };
    (0..3).for_each(|id| _ = one(&mut a, (A, LAN), &plain(id)));
    assert_eq!(limit(&mut a, 4, 9), []);
    one(&mut a, (A, LAN), &plain(3));
    assert_eq!(expired(&mut a).len(), 1);
    assert_eq!(limit(&mut a, 4, 8), [], "that was told");
    assert_eq!(limit(&mut a, 5, 8), []);
    one(&mut a, (A, LAN), &plain(4));
    assert_eq!(expired(&mut a).len(), 1, "the new limit was not reached yet");
    assert_eq!(limit(&mut a, 1, 2), [ExpiryKind::Hard], "without another packet");
    assert_eq!(none(&mut a, (A, LAN), &plain(5)), Fate::Drop(DropReason::Expired));
    assert_eq!(limit(&mut a, 6, 7), []);
    one(&mut a, (A, LAN), &plain(6));
    assert_eq!(expired(&mut a).len(), 1);
    assert_eq!(sample(&a, false).packets, 6);
}

/// P15: when an SA was last used is the time of the turn of its last packet, in and out; a forged
/// packet is no use.
#[test]
fn last_use() {
    let scenario = scenario(Algorithm::Aes128Gcm16);
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    assert_eq!(sample(&a, false).last_used, None);
    let sent = through_at(&mut a, (A, LAN), &[&plain(0)], 5 * SECOND).remove(0);
    through_at(&mut a, (A, LAN), &[], 9 * SECOND);
    assert_eq!(sample(&a, false).last_used, Some(5 * SECOND));
    assert_eq!(sample(&a, true).last_used, None);
    let mut forged = sent.clone();
    *forged.last_mut().unwrap() ^= 1;
    through_at(&mut b, (B, WAN), &[&forged], 6 * SECOND);
    assert_eq!(sample(&b, true).last_used, None);
    through_at(&mut b, (B, WAN), &[&sent], 7 * SECOND);
    assert_eq!(sample(&b, true).last_used, Some(7 * SECOND));
}
