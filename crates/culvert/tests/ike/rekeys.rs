//! New keys under a steady stream: nothing is lost, and no old SA stays behind.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use culvert::lab::Class;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Engine;
use culvert::lab::ike::IkeSa;
use culvert::lab::ike::Station;

use crate::bench::Bench;
use crate::bench::KEEP;
use crate::bench::NEGOTIATION;
use crate::bench::assert_no_loss;
use crate::bench::assert_no_nonce_twice;
use crate::bench::ends;
use crate::bench::rekey;
use crate::bench::under_load;
use crate::bench::until_no_orphans;
use crate::bench::up;
use crate::support::CULVERT;

/// U12, U13, M09: Child SAs are rekeyed from either end and from both at once, and the IKE SA is
/// rekeyed from either end: no datagram is lost in either direction, and each end has one Child SA
/// in the end.
#[test]
fn by_either_end_and_by_both() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert, Backend::Libipsec])) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let stations = bench.start([connection, peer]);
    up(&stations, 0);
    let capture = bench.capture(KEEP);
    let ((), reports) = under_load(&bench.networks, || {
        for initiator in [0, 1] {
            rekey(&stations, initiator);
        }
        for Station { charon, .. } in &stations {
            charon.rekey_child("net").expect("rekey");
        }
        for initiator in [0, 1] {
            let charon = &stations[initiator].charon;
            let before = charon.list_sas().expect("SAs");
            charon.rekey_ike("net").expect("rekey");
            let rekeyed = |sas: &[IkeSa]| {
                let new =
                    |sa: &IkeSa| before.iter().all(|old| old.initiator_spi != sa.initiator_spi);
                sas.iter().any(|sa| sa.state == "ESTABLISHED" && new(sa))
            };
            charon.wait_sas("new IKE SA", NEGOTIATION, rekeyed).expect("rekey");
        }
        until_no_orphans(&stations);
    });
    assert_no_loss(&reports);
    let captured = capture.stop().expect("capture");
    assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
    assert_no_nonce_twice(&captured);
    bench.ping_all(3);
}

/// U12, M09: 200 rekeys one after the other under load, culvert with two workers at both ends:
/// nothing is lost, no IV is used twice with a key, and no SA is left behind.
#[test]
fn two_hundred_in_a_row() {
    let Some(mut bench) = Bench::with_queues(ends([Backend::Culvert; 2]), 2) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let engine = Engine { workers: 2, ..Engine::new(Path::new(CULVERT)) };
    let stations = bench.start_with(&engine, [connection, peer]);
    up(&stations, 0);
    let capture = bench.capture(KEEP);
    let ((), reports) = under_load(&bench.networks, || {
        let start = Instant::now();
        for number in 0..200 {
            rekey(&stations, number % 2);
        }
        println!("200 rekeys in {:?}", start.elapsed());
    });
    println!("{} and {} datagrams meanwhile", reports[0].sent, reports[1].sent);
    assert_no_loss(&reports);
    let captured = capture.stop().expect("capture");
    assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
    assert_no_nonce_twice(&captured);
    until_no_orphans(&stations);
}

/// P15, P17: Lifetimes in octets and in packets rekey under load, again and again, and nothing is
/// lost: the engine counts, and tells the daemon in time.
#[test]
fn by_octets_and_by_packets() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert; 2])) else { return };
    // At 500 datagrams of 200 octets a second, each way: after about a second.
    let limits: [(u64, u64); 2] = [(150_000, 0), (0, 700)];
    let connections = limits.map(|(bytes, packets)| {
        let connection = bench.networks.tunnel(false).with_children(|child| {
            child.rekey_bytes = bytes;
            child.rekey_packets = packets;
            // Late enough that a slow machine does not run into it.
            child.more = vec![
                format!("life_bytes = {}", bytes * 4),
                format!("rand_bytes = {}", bytes / 10),
                format!("life_packets = {}", packets * 4),
                format!("rand_packets = {}", packets / 10),
            ];
        });
        let peer = bench.networks.peer_of(&connection, None);
        // One end watches, so that no rekey meets another one.
        let peer = peer.with_children(|child| {
            (child.rekey_bytes, child.rekey_packets) = (0, 0);
            child.more.clear();
        });
        [connection, peer]
    });
    let stations = bench.start(connections[0].clone());
    for (connections, limit) in connections.into_iter().zip(limits) {
        bench.load(&stations, connections);
        up(&stations, 0);
        let begun = stations[0].charon.said("establishing CHILD_SA net");
        let ((), reports) =
            under_load(&bench.networks, || std::thread::sleep(Duration::from_secs(5)));
        assert_no_loss(&reports);
        let rekeys = stations[0].charon.said("establishing CHILD_SA net") - begun;
        assert!((2..=10).contains(&rekeys), "{rekeys} rekeys by {limit:?}");
        crate::bench::down(&stations, 0);
    }
}
