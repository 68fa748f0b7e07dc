//! The life of SAs: dead peers, deletion, policies that wait for a packet, and virtual addresses.

use std::time::Duration;

use culvert::lab::Class;
use culvert::lab::TcpTransfer;
use culvert::lab::ike::Action;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Connection;
use culvert::lab::ike::IkeSa;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use nix::sys::signal::Signal;

use crate::bench::Bench;
use crate::bench::NEGOTIATION;
use crate::bench::assert_no_loss;
use crate::bench::assert_nothing_clear;
use crate::bench::at;
use crate::bench::down;
use crate::bench::echo;
use crate::bench::ends;
use crate::bench::the_child;
use crate::bench::under_load;
use crate::bench::up;
use crate::support;

/// What strongSwan says when it asks a silent peer whether it lives.
const DPD: &str = "sending DPD request";

/// A daemon does not ask a peer whose packets arrive whether it lives; it asks when they stop; and
/// it gives up a peer who died, after which nothing leaves.
#[test]
fn dead_peers() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert, Backend::Libipsec])) else { return };
    let mut connection = bench.networks.tunnel(false);
    connection.dpd_delay = Duration::from_secs(2);
    let mut peer = bench.networks.peer_of(&connection, None);
    // Its questions would be signs of life.
    peer.dpd_delay = Duration::ZERO;
    let stations = bench.start([connection, peer]);
    up(&stations, 0);
    let [a, b] = stations;
    let capture = bench.capture(0);
    let ((), reports) = under_load(&bench.networks, || {
        std::thread::sleep(Duration::from_millis(5500));
        assert_eq!(a.charon.said(DPD), 0, "{}", a.charon.log());
    });
    assert_no_loss(&reports);
    a.charon.wait_said(DPD, 0, NEGOTIATION).expect("a question to a silent peer");
    a.charon.wait_said(DPD, 1, NEGOTIATION).expect("and another");
    assert_eq!(a.charon.list_sas().expect("SAs").len(), 1, "it answered");
    // Not killed: its kernel would say that nobody listens any more.
    b.charon.process().signal(Signal::SIGSTOP);
    let patience = Duration::from_secs(15);
    a.charon.wait_sas("end of the peer's SAs", patience, <[_]>::is_empty).expect("given up");
    bench.ping_nobody();
    assert_nothing_clear(capture);
    b.charon.kill().expect("kill");
}

/// A Child SA, and an IKE SA with its Child SA, are deleted by either end: then nothing passes, and
/// nothing leaves in clear; brought up again by either end, all passes.
#[test]
fn delete_and_begin_again() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert, Backend::Libipsec])) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let stations = bench.start([connection, peer]);
    let capture = bench.capture(0);
    bench.ping_nobody();
    for round in [0, 1] {
        up(&stations, round);
        bench.ping_all(3);
        stations[1 - round].charon.terminate_child("net").expect("terminate");
        for station in &stations {
            let gone = |sas: &[IkeSa]| sas.len() == 1 && sas[0].children.is_empty();
            station.charon.wait_sas("end of the Child SA", NEGOTIATION, gone).expect("gone");
        }
        bench.ping_nobody();
        up(&stations, 1 - round);
        bench.ping_all(3);
        down(&stations, round);
        bench.ping_nobody();
    }
    assert_nothing_clear(capture);
    for station in stations {
        station.stop().expect("stop");
    }
}

/// A policy that waits has the first packet bring the SAs up, and that packet arrives; one packet
/// or many, the daemon is asked once. After the peer deleted them the next packet brings them up
/// again. Packets that wait for a dead peer are never sent.
#[test]
fn a_packet_brings_it_up() {
    let ends = ends([Backend::Culvert, Backend::Libipsec]);
    if ends[0] == Backend::Libipsec {
        eprintln!("SKIPPED: strongSwan's user space asks for no SA");
        return;
    }
    let Some(mut bench) = Bench::new(ends) else { return };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let connection = connection.with_children(|child| child.start_action = Action::Trap);
    let stations = bench.start([connection, peer]);
    let [a, b] = &stations;
    let capture = bench.capture(0);
    for (round, destination) in HOST_B.into_iter().enumerate() {
        let ping = culvert::lab::Ping { count: 5, timeout: NEGOTIATION, ..echo(destination) };
        let report = ping.run(&bench.networks.hosts[0]).expect("ping");
        assert_eq!((report.received, report.surplus), (5, 0), "{}", a.charon.log());
        the_child(a);
        assert_eq!(a.charon.said("creating acquire job"), round + 1, "{}", a.charon.log());
        bench.ping_all(3);
        down(&stations, 1);
    }
    // Many packets of many flows at once.
    let acquired = a.charon.said("creating acquire job");
    std::thread::scope(|scope| {
        for flow in 0..8 {
            let host = &bench.networks.hosts[0];
            let destination = HOST_B[flow % 2];
            let ping = culvert::lab::Ping { count: 3, timeout: NEGOTIATION, ..echo(destination) };
            scope.spawn(move || ping.run(host).expect("ping"));
        }
    });
    let acquired = a.charon.said("creating acquire job") - acquired;
    assert!((1..=8).contains(&acquired), "{acquired}: {}", a.charon.log());
    the_child(a);
    bench.ping_all(3);
    down(&stations, 1);
    b.charon.process().signal(Signal::SIGSTOP);
    bench.ping_nobody();
    b.charon.process().signal(Signal::SIGCONT);
    assert_nothing_clear(capture);
}

/// Remote access: gateway a gives the client at b an address of each family out of a pool, and host
/// a and the client reach each other, by these addresses alone.
#[test]
fn virtual_addresses() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert, Backend::Libipsec])) else { return };
    let dynamic = || vec!["dynamic".to_owned()];
    let gateway = bench.networks.tunnel(false);
    let client = bench.networks.peer_of(&gateway, None);
    let gateway = Connection {
        pools: ["10.3.0.0/24", "fd03::/120"].map(str::to_owned).to_vec(),
        ..gateway.with_children(|child| child.remote_ts = dynamic())
    };
    let client = Connection {
        vips: ["0.0.0.0", "::"].map(str::to_owned).to_vec(),
        ..client.with_children(|child| child.local_ts = dynamic())
    };
    let stations = bench.start([gateway, client]);
    let capture = bench.capture(0);
    up(&stations, 1);
    let vips = stations[1].charon.list_sas().expect("SAs")[0].local_vips.clone();
    let vips: [String; 2] = vips.try_into().expect("one of each family");
    assert!(vips[0].starts_with("10.3.0.") && vips[1].starts_with("fd03::"), "{vips:?}");
    let (host, client) = (&bench.networks.hosts[0], &bench.networks.gateways[1]);
    support::ping(client, HOST_A, 5);
    support::ping(host, [&vips[0], &vips[1]], 5);
    for (from, to, destination) in [(client, host, HOST_A[0]), (host, client, &vips[1])] {
        let report = TcpTransfer::new(at(destination, 7001), 300_000).run(from, to).expect("TCP");
        assert!(report.is_intact(), "{report:?}");
    }
    let counts = capture.counts();
    assert!(counts[Class::Other] == 0, "{counts:?}");
    down(&stations, 1);
    bench.ping_nobody();
    assert_nothing_clear(capture);
}
