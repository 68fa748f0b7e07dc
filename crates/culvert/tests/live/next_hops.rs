//! Neighbours that are unknown, silent, or change.

use std::net::IpAddr;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use culvert::lab::Ping;
use culvert::lab::UdpStream;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert_engine::hold::HELD_MAX;

use crate::support::Lab;
use crate::support::assert_balanced;
use crate::support::ping;
use crate::support::until;

fn host_b() -> IpAddr {
    HOST_B[0].parse().expect("an address")
}

/// The very first packets, of which no gateway knows the neighbour, are held and delivered.
#[test]
fn nothing_is_lost_from_a_cold_start() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    for ns in [&lab.sites.gw_a, &lab.sites.gw_b] {
        ns.ip("neigh flush all").expect("flush");
    }
    ping(&lab.sites.host_a, HOST_B, 1);
    ping(&lab.sites.host_b, HOST_A, 1);
    for gateway in [a, b] {
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert!(report.totals.held >= 1, "{:?}", report.totals);
        let totals = (report.totals.released, report.totals.forwarded, report.totals.dropped);
        assert_eq!(totals, (report.totals.held, 8, 0), "{:?}", report.totals);
    }
}

/// A stream goes on to a host that gets another MAC address and says so, as hosts do when a
/// redundant partner takes over: only what is under way in that moment is lost.
#[test]
fn a_neighbour_changes_its_address() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let host = lab.sites.host_b.clone();
    host.sysctl("net.ipv4.conf.eth0.arp_notify", "1").expect("arp_notify");
    // Linux believes no second announcement within a second of the first.
    lab.sites.gw_b.sysctl("net.ipv4.neigh.lan0.locktime", "0").expect("locktime");
    let [a, b] = lab.start();
    lab.ping_all(3);
    let stream = UdpStream {
        count: 3000,
        size: 300,
        ..UdpStream::new(format!("{}:7000", HOST_B[0]).parse().expect("an address"))
    };
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(1500));
            host.ip("link set eth0 address 02:00:00:00:be:ef").expect("address");
        });
        stream.run(&lab.sites.host_a, &host).expect("stream")
    });
    assert!(report.received >= 2500 && report.corrupt == 0, "{report:?}");
    ping(&lab.sites.host_a, [HOST_B[0]; 2], 10);
    for gateway in [a, b] {
        assert_balanced(&gateway.stop().expect("report"));
    }
}

/// The gateway's own interface gets another MAC address: traffic goes on, both ways.
#[test]
fn the_own_address_changes() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    lab.ping_all(3);
    lab.sites.gw_b.ip("link set lan0 address 02:00:00:00:ca:fe").expect("address");
    lab.sites.gw_b.ip("link set wan0 address 02:00:00:00:ca:ff").expect("address");
    for ns in [&lab.sites.host_b, &lab.sites.gw_a] {
        ns.ip("neigh flush all").expect("flush");
    }
    until("traffic with the new addresses", || {
        let one = Ping { count: 1, ..Ping::new(host_b()) };
        one.run(&lab.sites.host_a).is_ok_and(|report| report.received == 1)
    });
    ping(&lab.sites.host_a, HOST_B, 5);
    ping(&lab.sites.host_b, HOST_A, 5);
    for gateway in [a, b] {
        assert_balanced(&gateway.stop().expect("report"));
    }
}

/// An interface that is removed ends the gateway with an error that names it.
#[test]
fn a_removed_interface_ends_the_gateway() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    lab.sites.gw_a.ip("link del lan0").expect("del");
    until("end of the gateway", || !a.is_running());
    assert!(a.says("interface lan0 was removed"), "{}", a.log());
    assert_balanced(&b.stop().expect("report"));
}

/// Packets to neighbours that never answer are held for three seconds and in bounded number; the
/// rest are counted, and traffic to others goes on meanwhile.
#[test]
fn silent_neighbours() {
    const SILENT: u64 = 6;
    const EACH: u64 = 50;
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    lab.ping_all(3);
    let socket = lab.sites.host_a.run(|| UdpSocket::bind("0.0.0.0:0"));
    let socket = socket.expect("namespace").expect("socket");
    for _ in 0..EACH {
        for host in 0..SILENT {
            socket.send_to(b"hello?", format!("10.2.0.{}:9", 100 + host)).expect("send");
        }
    }
    lab.ping_all(10);
    thread::sleep(Duration::from_millis(3500));
    lab.ping_all(3);
    a.stop().expect("report");
    let report = b.stop().expect("report");
    assert_balanced(&report);
    assert_eq!(report.totals.held, report.totals.released, "{:?}", report.totals);
    let (held, full) = (report.totals.drops["hold_timeout"], report.totals.drops["hold_full"]);
    assert!(held > 0 && held <= HELD_MAX as u64, "{:?}", report.totals);
    assert_eq!(held + full, SILENT * EACH, "{:?}", report.totals);
    assert_eq!(report.totals.dropped, SILENT * EACH, "{:?}", report.totals);
}

/// Interfaces go down and up again, one with another MTU: packets that do not fit any more are
/// counted, and the others arrive again.
#[test]
fn links_go_and_come_back() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    lab.ping_all(3);
    for ns in [&lab.sites.gw_a, &lab.sites.gw_b] {
        for interface in ["lan0", "wan0"] {
            ns.ip(&format!("link set {interface} down")).expect("down");
            ns.ip(&format!("link set {interface} up")).expect("up");
        }
    }
    // The kernel forgets IPv6 addresses of an interface that goes down.
    let far = Ping { count: 1, timeout: Duration::from_millis(200), ..Ping::new(host_b()) };
    until("way", || far.run(&lab.sites.host_a).is_ok_and(|report| report.received == 1));
    ping(&lab.sites.host_a, [HOST_B[0]; 2], 10);
    lab.sites.gw_a.ip("link set wan0 mtu 1000").expect("mtu");
    let large = Ping { size: 1000, ..far };
    until("limit", || large.run(&lab.sites.host_a).is_ok_and(|report| report.received == 0));
    ping(&lab.sites.host_a, [HOST_B[0]; 2], 10);
    let report = a.stop().expect("report");
    assert_balanced(&report);
    assert!(report.totals.drops["too_big"] > 0, "{:?}", report.totals);
    assert_balanced(&b.stop().expect("report"));
}

/// A neighbour that is silent for longer than packets are held is found once it speaks, although
/// packets for it never cease to come.
#[test]
fn a_silent_neighbour_comes_back() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    ping(&lab.sites.host_b, [HOST_A[0]; 2], 3);
    lab.sites.host_b.sysctl("net.ipv4.conf.eth0.arp_ignore", "8").expect("arp_ignore");
    lab.sites.gw_b.ip("neigh flush all").expect("flush");
    let far = Ping { count: 1, timeout: Duration::from_millis(100), ..Ping::new(host_b()) };
    let answered = || far.run(&lab.sites.host_a).expect("ping").received == 1;
    let silence = Instant::now();
    while silence.elapsed() < Duration::from_millis(4500) {
        assert!(!answered(), "it is silent");
    }
    lab.sites.host_b.sysctl("net.ipv4.conf.eth0.arp_ignore", "0").expect("arp_ignore");
    until("answer", answered);
    ping(&lab.sites.host_a, [HOST_B[0]; 2], 10);
    assert_eq!(a.stop().expect("report").totals.dropped, 0);
    let report = b.stop().expect("report");
    assert_balanced(&report);
    assert!(report.totals.drops["hold_timeout"] > 5, "{:?}", report.totals);
}
