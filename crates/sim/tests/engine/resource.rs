//! SAs of single workers (RFC 9611): each worker sends with its own, the fallback serves the rest.

use std::net::IpAddr;

use culvert_control::Direction;
use culvert_engine::Notice;
use culvert_engine::WorkerId;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::packets;
use crate::packets::hop;
use crate::packets::packet;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::arriving;
use crate::support::gateway;
use crate::support::notices;
use crate::support::turn_all;

const WORKERS: usize = 3;

/// A fallback, and SAs of workers 0 and 1, all of one group; worker 2 has none of its own.
fn scenario() -> Scenario {
    let of = |index: u8, resource: Option<u8>| {
        let tunnel = Tunnel::ordinary(index);
        let outer = Tunnel::ordinary(0).outer;
        Tunnel { index: 0, outer, resource: [resource.map(WorkerId); 2], ..tunnel }
    };
    let tunnels = vec![of(0, None), of(1, Some(0)), of(2, Some(1))];
    Scenario { workers: vec![WORKERS; 2], frames: 64, ..Scenario::quiet(tunnels) }
}

fn hosts() -> (IpAddr, IpAddr) {
    (Scenario::host(A, 0, false, 5), Scenario::host(B, 0, false, 5))
}

fn plain() -> Vec<u8> {
    packet(hosts(), 17, &packets::udp(hosts(), 12))
}

/// What comes of a packet that arrives at a worker, and the SPI it was sent with.
fn send(a: &mut TestGateway, worker: usize) -> (u32, Vec<u8>) {
    let frame = arriving(A, LAN, &plain());
    assert!(a.workers[worker].io_mut().inject(LAN, &frame));
    let mut sent = turn_all(a, 0);
    sent.extend(turn_all(a, 0));
    assert_eq!(sent.len(), 1, "{:?}", a.counters());
    let spi = u32::from_be_bytes(*sent[0][34..].first_chunk().unwrap());
    (spi, sent.remove(0))
}

/// M01, M02, M04: a worker with an SA of its own uses it, without a handoff; one without takes the
/// fallback and asks for its own, saying which worker it is; any worker of the receiver takes all.
#[test]
fn own_and_fallback() {
    let scenario = scenario();
    let spi = |index: usize| scenario.tunnels[index].spi[A].value();
    let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
    let expected = [spi(1), spi(2), spi(0)];
    for round in 0..3 {
        for (worker, &expected) in expected.iter().enumerate() {
            let (used, frame) = send(&mut a, worker);
            assert_eq!(used, expected, "worker {worker}");
            let at = (worker + round) % WORKERS;
            assert!(b.workers[at].io_mut().inject(WAN, &frame));
            let mut delivered = turn_all(&mut b, 0);
            delivered.extend(turn_all(&mut b, 0));
            assert_eq!(delivered.len(), 1);
            assert_eq!(delivered[0][14..], hop(&hop(&plain())));
        }
        if round == 0 {
            let lacking: Vec<_> = notices(&mut a)
                .into_iter()
                .filter_map(|notice| match notice {
                    Notice::Acquire { resource, .. } => Some(resource),
                    _ => None,
                })
                .collect();
            assert_eq!(lacking, [Some(WorkerId(2))]);
        }
    }
    assert_eq!(b.counters().dropped_total() + a.counters().dropped_total(), 0);
}

/// M02, M05: when a worker's own SA goes away under load, its packets take the fallback, none is
/// lost, and the other workers' SAs are not disturbed.
#[test]
fn an_own_sa_goes_away() {
    let scenario = scenario();
    let spi = |index: usize| scenario.tunnels[index].spi[A].value();
    let mut a = gateway(&scenario, A);
    assert_eq!(send(&mut a, 1).0, spi(2));
    let id = a.controller.find(Direction::Outbound, spi(2)).unwrap();
    a.controller.remove_sa(id).unwrap();
    let mut used = Vec::new();
    // Packets come while control is at it.
    for _ in 0..6 {
        a.controller.poll().unwrap();
        used.push(send(&mut a, 1).0);
        assert_eq!(send(&mut a, 0).0, spi(1));
    }
    assert_eq!(used.last(), Some(&spi(0)));
    assert!(used.is_sorted_by(|before, _| before == &spi(2) || before == &spi(0)));
    assert_eq!(a.counters().dropped_total(), 0);
}
