//! Packets larger than a frame, in runs of frames.

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::options::Fragmentation;
use culvert_esp::Mode;
use culvert_frame::FRAME_SIZE;
use culvert_frame::HEADROOM;
use culvert_frame::MAX_SINGLE_FRAME;
use culvert_frame::PacketIo;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::plain::Plain;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;

use crate::support::A;
use crate::support::B;
use crate::support::assert_dropped_only;
use crate::support::assert_frames_conserved;
use crate::support::changed;
use crate::support::encapsulate;
use crate::support::from_host;
use crate::support::gateway;
use crate::support::plain;
use crate::support::to_host;
use crate::support::turn;
use crate::support::turn_all;

/// One tunnel over links of an MTU of 9000, and workers with as many runs.
fn jumbo(tunnel: Tunnel, runs: usize) -> Scenario {
    Scenario { wan_mtu: 9000, lan_mtu: 9000, runs, ..Scenario::quiet(vec![tunnel]) }
}

/// A packet of `len` octets in all.
fn of_len(six: bool, id: u64, len: usize) -> Plain {
    let small = plain(A, six, id);
    let payload_len = len - (small.len() - small.payload_len);
    Plain { payload_len, ..small }
}

/// Packets of all sizes up to an MTU of 9000 go through two gateways unchanged: whatever the
/// algorithm, over both families, raw and in UDP, at the sizes where a frame ends as well.
#[test]
fn large_packets_of_all_algorithms() {
    let frame = FRAME_SIZE - HEADROOM;
    let edges = [MAX_SINGLE_FRAME - 14, frame - 14, 2 * FRAME_SIZE, 4 * FRAME_SIZE];
    let sizes = edges.into_iter().flat_map(|edge| edge - 80..edge + 2).chain([1400, 8800]);
    let sizes: Vec<usize> = sizes.collect();
    for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
        for (six, udp) in [(false, false), (true, false), (false, true), (true, true)] {
            let is_ah = Algorithm::ALL_AH.contains(&algorithm);
            if udp && is_ah {
                continue;
            }
            let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_outer(six);
            let scenario = jumbo(if udp { tunnel.with_udp() } else { tunnel }, 1);
            let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
            for (id, &len) in (1..).zip(&sizes) {
                let plain = of_len(six, id, len);
                let sealed = encapsulate(&mut a, A, &plain);
                let delivered = turn(&mut b, 0, WAN, &[&sealed]);
                assert_eq!(delivered, [to_host(B, &plain)], "{algorithm}, {len} octets");
            }
            assert_frames_conserved(&mut a, &scenario);
            assert_frames_conserved(&mut b, &scenario);
            assert_eq!(a.workers[0].io_mut().free_runs(), 1);
        }
    }
}

/// In transport mode, too, where headers move instead of the packet's ends.
#[test]
fn large_packets_in_transport_mode() {
    for algorithm in [Algorithm::Aes128Gcm16, Algorithm::AhSha256] {
        let tunnel = Tunnel::ordinary(0).with_algorithm(algorithm).with_mode(Mode::Transport);
        let scenario = jumbo(tunnel, 2);
        let outer = scenario.tunnels[0].outer;
        let (mut a, mut b) = (gateway(&scenario, A), gateway(&scenario, B));
        for (id, len) in (1..).zip([1500, 1530, 1800, 8900]) {
            let plain = of_len(false, id, len);
            let plain = Plain { source: outer[A], destination: outer[B], ..plain };
            let sealed = encapsulate(&mut a, A, &plain);
            assert_eq!(turn(&mut b, 0, WAN, &[&sealed]), [to_host(B, &plain)], "{len} octets");
        }
        assert_frames_conserved(&mut a, &scenario);
    }
}

/// P22, E16: fragments that are larger than a frame themselves are made in runs, before ESP and
/// after it. Where runs are lacking the packet is dropped and counted, and nothing is lost.
#[test]
fn large_fragments() {
    for (fragmentation, runs) in
        [(Fragmentation::Before, 5), (Fragmentation::After, 5), (Fragmentation::Before, 2)]
    {
        let scenario = Scenario { wan_mtu: 4000, ..jumbo(Tunnel::ordinary(0), runs) };
        let change = |config: &mut GatewayConfig| {
            let sas = config.sas.iter_mut();
            sas.for_each(|sa| sa.sending.fragmentation = fragmentation);
        };
        let mut a = changed(&scenario, A, change);
        let mut b = gateway(&Scenario { runs: 5, ..scenario.clone() }, B);
        let plain = Plain { dont_fragment: false, ..of_len(false, 7, 9000) };
        let sealed = turn(&mut a, 0, LAN, &[&from_host(A, &plain)]);
        assert_frames_conserved(&mut a, &scenario);
        assert_eq!(a.workers[0].io_mut().free_runs(), runs);
        if runs < 5 {
            assert_eq!(sealed.len(), 0);
            assert_dropped_only(&a.counters(), DropReason::NoFrame, 1);
            continue;
        }
        assert_eq!(sealed.len(), 3, "3976, 3976 and 1048 octets of payload, or so");
        assert!(sealed.iter().all(|frame| frame.len() <= 4014));
        let sealed: Vec<_> = sealed.iter().map(Vec::as_slice).collect();
        let delivered = turn(&mut b, 0, WAN, &sealed);
        let octets: usize = delivered.iter().map(|frame| frame.len() - 34).sum();
        assert_eq!(octets, 9000 - 20);
        match fragmentation {
            Fragmentation::After => assert_eq!(delivered, [to_host(B, &plain)]),
            _ => assert_eq!(delivered.len(), 3),
        }
    }
}

/// I01, I02: fragments of ESP make a packet larger than a frame again, in a run; without one it is
/// dropped and counted.
#[test]
fn large_packets_are_put_together() {
    for (runs, six, udp) in [(1, false, false), (1, true, true), (0, false, false)] {
        let tunnel = Tunnel::ordinary(0).with_outer(six);
        let tunnel = if udp { tunnel.with_udp() } else { tunnel };
        let scenario = Scenario { wan_mtu: 1500, ..jumbo(tunnel, 2) };
        let mut a = changed(&scenario, A, |config| {
            let sas = config.sas.iter_mut();
            sas.for_each(|sa| sa.sending.fragmentation = Fragmentation::After);
        });
        let receiving = Scenario { runs, ..scenario.clone() };
        let mut b = gateway(&receiving, B);
        let plain = Plain { dont_fragment: false, ..of_len(false, 7, 8950) };
        let mut sealed = turn(&mut a, 0, LAN, &[&from_host(A, &plain)]);
        assert_eq!(sealed.len(), 7);
        sealed.reverse();
        let sealed: Vec<_> = sealed.iter().map(Vec::as_slice).collect();
        let delivered = turn(&mut b, 0, WAN, &sealed);
        if runs == 0 {
            assert_eq!(delivered.len(), 0);
            assert_dropped_only(&b.counters(), DropReason::Reassembly, 7);
        } else {
            assert_eq!(delivered, [to_host(B, &plain)]);
        }
        assert_frames_conserved(&mut a, &scenario);
        assert_frames_conserved(&mut b, &receiving);
    }
}

/// Packets in runs are handed over to the worker that owns their SA, which gives a run back for
/// each; one for which it has none is dropped and counted there, and small ones behind it pass.
#[test]
fn large_packets_are_handed_over() {
    let scenario = Scenario { workers: vec![2; 2], ..jumbo(Tunnel::ordinary(0), 3) };
    let mut a = gateway(&scenario, A);
    let owns = a.workers[0].samples().any(|sample| !sample.inbound);
    let (owner, other) = if owns { (0, 1) } else { (1, 0) };
    let frames: Vec<_> = (1..=4)
        .map(|id| from_host(A, &of_len(false, id, if id < 4 { 8000 } else { 100 })))
        .collect();
    for round in 1..=3 {
        for frame in &frames {
            assert!(a.workers[other].io_mut().inject(LAN, frame));
        }
        a.workers[other].turn(0);
        // The owner's ports hold all but `round` of its runs.
        let io = a.workers[owner].io_mut();
        let held: Vec<_> = (round..3).filter_map(|_| io.take_run()).collect();
        a.workers[owner].turn(0);
        let io = a.workers[owner].io_mut();
        let sent: Vec<_> = std::iter::from_fn(|| io.take_sent_bytes(WAN)).collect();
        held.into_iter().for_each(|run| io.recycle(run));
        assert_eq!(sent.len(), round + 1);
        turn_all(&mut a, 0);
        assert_frames_conserved(&mut a, &scenario);
        for worker in &mut a.workers {
            assert_eq!(worker.io_mut().free_runs(), 3);
        }
    }
    let counters = a.workers[owner].counters();
    assert_eq!((counters.taken, counters.forwarded), (12, 9));
    assert_dropped_only(counters, DropReason::NoFrame, 3);
}
