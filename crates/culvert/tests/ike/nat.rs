//! A NAT between the gateways, whose mapping changes in mid-stream.

use std::time::Duration;

use culvert::lab::Class;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Station;
use culvert::lab::ike::networks::NAT;

use crate::bench::Bench;
use crate::bench::Ends;
use crate::bench::KEEP;
use crate::bench::assert_no_nonce_twice;
use crate::bench::ends;
use crate::bench::the_child;
use crate::bench::under_load;
use crate::bench::up;

/// What strongSwan says when the engine tells it of a new mapping.
const MAPPING: &str = "NAT mappings of";

/// Datagrams that may be lost when a mapping changes: half a second's.
const LOST_MAX: u64 = 250;

/// The address and port from which gateway b has the packets of gateway a.
fn seen_by_b(b: &Station) -> (String, u64) {
    b.charon.list_sas().expect("SAs")[0].remote.clone()
}

/// Whatever changes, the IKE SA stays the same one; both directions go on soon; the daemon is told
/// once of each change; and no IV comes twice with a key, although SAs are deleted and added again.
fn mapping_changes(ends: Ends) {
    let Some(mut bench) = Bench::with_nat(ends) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let stations = bench.start([connection, peer]);
    let capture = bench.capture(KEEP);
    up(&stations, 0);
    let [a, b] = &stations;
    let [at_a, at_b] = [a, b].map(|station| station.charon.list_sas().expect("SAs").remove(0));
    assert!(at_a.nat.0 && at_b.nat.1, "both know of the NAT: {at_a:#?} {at_b:#?}");
    assert!(the_child(b).encap);
    let (address, port) = seen_by_b(b);
    assert!(address == NAT[0] && (21_000..22_000).contains(&port), "{address}:{port}");
    bench.ping_all(3);
    // Another port at the same address, then another address.
    for (change, address) in NAT.into_iter().enumerate() {
        let before = b.charon.said(MAPPING);
        let (first, reports) = bench.under_remap(address);
        for (report, direction) in reports.iter().zip(["a to b", "b to a"]) {
            let lost = report.sent - report.received;
            println!("change {change}: {lost} of {} lost from {direction}", report.sent);
            assert!(lost <= LOST_MAX && report.corrupt == 0, "{direction}: {report:?}");
        }
        let (seen, port) = seen_by_b(b);
        let range = u64::from(first)..u64::from(first) + 1000;
        assert!(seen == address && range.contains(&port), "{seen}:{port}");
        assert_eq!(b.charon.said(MAPPING) - before, 1, "{}", b.charon.log());
        bench.ping_all(3);
    }
    for (station, before) in [(a, at_a), (b, at_b)] {
        let now = station.charon.list_sas().expect("SAs").remove(0);
        assert_eq!(now.initiator_spi, before.initiator_spi);
        assert_eq!(now.children[0].spis, before.children[0].spis);
    }
    let captured = capture.stop().expect("capture");
    assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
    assert_no_nonce_twice(&captured);
}

impl Bench {
    /// Changes the NAT's mapping in the middle of a stream both ways; returns the first port.
    fn under_remap(&mut self, address: &str) -> (u16, [culvert::lab::UdpReport; 2]) {
        let (first, networks) = (std::cell::Cell::new(0), &self.networks);
        let ((), reports) = under_load(&self.networks, || {
            std::thread::sleep(Duration::from_millis(500));
            first.set(networks.remap(address).expect("remap"));
            std::thread::sleep(Duration::from_millis(1500));
        });
        (first.get(), reports)
    }
}

/// U10: strongSwan's user space behind the NAT, culvert before it.
#[test]
fn mapping_changes_of_a_stranger() {
    let ends = ends([Backend::Libipsec, Backend::Culvert]);
    if ends[1] == Backend::Libipsec {
        eprintln!("SKIPPED: strongSwan's user space does not follow a peer whose address changes");
        return;
    }
    mapping_changes(ends);
}

/// U10: culvert at both ends.
#[test]
fn mapping_changes_of_culvert() {
    let ends = ends([Backend::Culvert, Backend::Culvert]);
    if ends[1] == Backend::Libipsec {
        eprintln!("SKIPPED: strongSwan's user space does not follow a peer whose address changes");
        return;
    }
    mapping_changes(ends);
}

/// The laboratory's NAT: two stock strongSwans agree through it, and when the mapping changes, what
/// gateway a sends has another port and another address on the wire.
#[test]
fn the_nat_changes_its_mapping() {
    let Some(mut bench) = Bench::with_nat([Backend::Libipsec; 2]) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let stations = bench.start([connection, peer]);
    up(&stations, 0);
    bench.ping_all(3);
    let (address, port) = seen_by_b(&stations[1]);
    assert!(address == NAT[0] && (21_000..22_000).contains(&port), "{address}:{port}");
    let capture = bench.capture(1000);
    let first = bench.networks.remap(NAT[1]).expect("remap");
    let ping = culvert::lab::Ping {
        timeout: Duration::from_millis(100),
        ..crate::bench::echo("10.2.0.2")
    };
    ping.run(&bench.networks.hosts[0]).expect("ping");
    let from_a = |frame: &Vec<u8>| {
        let port = u16::from_be_bytes([frame[34], frame[35]]);
        frame[26..30] == [192, 0, 2, 7] && (first..first + 1000).contains(&port)
    };
    let frames = capture.frames(Class::Udp4500);
    assert!(frames.iter().filter(|frame| from_a(frame)).count() >= 10, "{frames:02x?}");
}
