//! Traffic of all kinds arrives, whole, in order, and only ESP crosses the wire.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::Counts;
use culvert::lab::TcpTransfer;
use culvert::lab::UdpStream;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert::report::CounterReport;
use culvert::run::RunReport;
use culvert_sim::plain::Plain;
use culvert_sim::plain::find_id;
use culvert_sim::plain::ip_packet;
use culvert_sim::plain::link_frame;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::udp;

use crate::support::Lab;
use crate::support::Peer;
use crate::support::assert_balanced;
use crate::support::mac;
use crate::support::ping;
use crate::support::settle;
use crate::support::text;

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

/// Sends this many megabytes from a to b, over IPv4 and back over IPv6.
fn transfer(lab: &Lab, megabytes: u64) {
    let (a, b) = (&lab.sites.host_a, &lab.sites.host_b);
    for (from, to, destination) in [(a, b, at(HOST_B[0], 7001)), (b, a, at(HOST_A[1], 7002))] {
        let bytes = megabytes * 1_000_000;
        let report = TcpTransfer::new(destination, bytes).run(from, to).expect("TCP");
        assert!(report.is_intact() && report.bytes == bytes, "{report:?}");
    }
}

/// Streams of datagrams side by side, one flow each: all arrive, once, in order.
fn streams(lab: &Lab, flows: u16, rate_pps: u32, count: u64) {
    thread::scope(|scope| {
        for flow in 0..flows {
            scope.spawn(move || {
                let destination = at(HOST_B[usize::from(flow % 2)], 7100 + flow);
                let stream =
                    UdpStream { rate_pps, count, size: 300, ..UdpStream::new(destination) };
                let report = stream.run(&lab.sites.host_a, &lab.sites.host_b).expect("UDP");
                let outcome =
                    (report.received, report.duplicates, report.reordered, report.corrupt);
                assert_eq!(outcome, (count, 0, 0, 0), "flow {flow}");
            });
        }
    });
}

/// Only ESP of the kind expected, and what neighbours say to each other.
fn assert_only_esp(counts: &Counts, esp: Class) {
    assert!(counts[esp] > 0, "{counts:?}");
    for (class, count) in counts.iter() {
        let expected = class == esp || matches!(class, Class::Arp | Class::Neighbour | Class::Mld);
        assert!(expected, "{count} frames of class {}", class.name());
    }
}

/// What a burst of TCP may lose to a full ring is sent again; nothing else may be lost.
fn assert_dropped_only_in_bursts(report: &RunReport) {
    let lost: Vec<_> = report.totals.drops.keys().map(String::as_str).collect();
    let expected = |reason: &&str| matches!(*reason, "tx_full" | "handoff_full");
    assert!(lost.iter().all(expected), "{:?}", report.totals);
}

fn everything(plan: &Plan, megabytes: u64, mode: &str) {
    let Some(mut lab) = Lab::new(plan) else { return };
    let gateways = lab.start();
    let capture = Capture::start(&lab.sites.wire.ns, lab.sites.wire.right, 0).expect("capture");
    lab.ping_all(20);
    streams(&lab, 1, 5000, 10_000);
    transfer(&lab, megabytes);
    lab.ping_all(5);
    assert_only_esp(&capture.stop().expect("capture").counts, Class::Esp4);
    for gateway in gateways {
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert_dropped_only_in_bursts(&report);
        assert_eq!(report.workers.len(), plan.workers as usize);
        assert!(report.ports.iter().all(|port| port.mode == mode), "{:?}", report.ports);
        assert!(report.sas.iter().all(|sa| sa.packets > 1000), "{:?}", report.sas);
        assert_eq!(report.totals.forwarded, report.sas.iter().map(|sa| sa.packets).sum::<u64>());
    }
}

/// One worker: pings of both families without loss, datagrams in order, 100 MB of TCP intact each
/// way.
#[test]
fn with_one_worker() {
    everything(&Plan { mode: "native", ..Plan::default() }, 100, "native");
}

/// Two workers on two queues carry the same.
#[test]
fn with_two_workers() {
    everything(&Plan { workers: 2, mode: "native", ..Plan::default() }, 100, "native");
}

/// Generic XDP carries the same, from hosts that send whole packets.
#[test]
fn in_generic_mode() {
    let plan = Plan { mode: "generic", offloads: false, ..Plan::default() };
    everything(&plan, 10, "generic");
}

/// Outer IPv4 and IPv6, raw and in UDP, two key sizes, with and without ESN: pings of both inner
/// families are never lost, and the wire carries ESP of that kind only.
#[test]
fn in_every_form() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    for form in 0..16 {
        let [outer_v6, encapsulated, long_key, esn] = [1, 2, 4, 8].map(|bit| form & bit != 0);
        let algorithm = if long_key { ("aes256gcm16", 36) } else { ("aes128gcm16", 20) };
        let plan = Plan { outer_v6, encapsulated, algorithm, esn, ..Plan::default() };
        lab.sites.configure(&plan).expect("configure");
        let gateways = lab.start();
        let wire = &lab.sites.wire;
        let capture = Capture::start(&wire.ns, wire.left, 0).expect("capture");
        lab.ping_all(3);
        let class = match (encapsulated, outer_v6) {
            (true, _) => Class::Udp4500,
            (false, true) => Class::Esp6,
            (false, false) => Class::Esp4,
        };
        assert_only_esp(&capture.stop().expect("capture").counts, class);
        for gateway in gateways {
            let report = gateway.stop().expect("report");
            let CounterReport { forwarded, dropped, .. } = report.totals;
            assert_eq!((forwarded, dropped), (24, 0), "{plan:?}: {:?}", report.totals);
            let redirected: u64 = report.ports.iter().map(|port| port.steering["redirected"]).sum();
            assert_eq!(redirected, report.totals.received, "{plan:?}");
        }
    }
}

/// Packets of one SA that arrive on both queues all get to its owner, and those of a flow stay in
/// order, outbound and inbound.
#[test]
fn handed_over_between_workers() {
    const FLOWS: u64 = 64;
    const COUNT: u64 = 4000;
    let plan = Plan { workers: 2, ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    lab.append_to_b(&Peer::sa());
    lab.append_to_b(
        "[[policy]]\ndirection = \"inbound\"\nsource = \"10.3.0.0/24\"\n\
         destination = \"10.2.0.0/24\"\naction = \"protect\"\nsa = \"insider\"\n",
    );
    let [a, b] = lab.start();
    lab.ping_all(5);
    streams(&lab, 24, 250, 500);

    // A peer behind a NAT that changes its port all the time: the queue follows the port.
    let arrived = thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&lab, COUNT));
        settle();
        send_from_many_ports(&lab, FLOWS, COUNT);
        receiver.join().expect("receiver")
    });
    assert_eq!(arrived.len() as u64, COUNT);
    for flow in 0..FLOWS {
        let of_flow = arrived.iter().filter(|&id| id % FLOWS == flow);
        assert!(of_flow.is_sorted(), "flow {flow}");
    }

    let reports = [a, b].map(|gateway| gateway.stop().expect("report"));
    for report in &reports {
        assert_balanced(report);
        let CounterReport { handed_off, taken, dropped, .. } = report.totals;
        assert!(handed_off >= 500 && handed_off == taken && dropped == 0, "{:?}", report.totals);
        assert!(report.workers.iter().all(|worker| worker.received >= 500), "{report:?}");
    }
    let [_, b] = reports;
    let insider = b.sas.iter().find(|sa| sa.name.as_deref() == Some("insider"));
    assert_eq!(insider.map(|sa| sa.packets), Some(COUNT));
}

/// Numbers of the datagrams that arrive at host b, in order of arrival.
fn receive(lab: &Lab, count: u64) -> Vec<u64> {
    let socket = lab.sites.host_b.run(|| UdpSocket::bind((HOST_B[0], 4001)));
    let socket = socket.expect("namespace").expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    let mut buffer = [0; 2000];
    let mut arrived = Vec::new();
    while (arrived.len() as u64) < count
        && let Ok(length) = socket.recv(&mut buffer)
    {
        arrived.push(find_id(&buffer[..length]).expect("a number"));
    }
    arrived
}

/// Sends packets of the insider's SA to gateway b, in UDP from as many ports as there are flows.
fn send_from_many_ports(lab: &Lab, flows: u64, count: u64) {
    let wire = &lab.sites.wire;
    let mut capture = Capture::start(&wire.ns, wire.right, 0).expect("capture");
    let (to, from) = (mac(&lab.sites.gw_b, "wan0"), mac(&lab.sites.gw_a, "wan0"));
    let address = |text: &str| text.parse().expect("an address");
    let mut peer = Peer::new();
    for id in 0..count {
        let plain = Plain::new(address("10.3.0.9"), address(HOST_B[0]), id).packet();
        let esp = peer.seal(&text(&plain, ip::PROTOCOL_IPIP));
        let mut datagram = vec![0; udp::HEADER_LEN];
        let length = u16::try_from(datagram.len() + esp.len()).expect("short");
        let port = 20_000 + u16::try_from(id % flows).expect("few flows");
        udp::emit(&mut datagram, port, 4500, length, 0);
        datagram.extend(esp);
        let packet =
            ip_packet(address("192.0.2.1"), address("192.0.2.2"), ip::PROTOCOL_UDP, &datagram);
        let frame = link_frame(to, from, None, ethernet::ETHER_TYPE_IPV4, &packet);
        capture.inject(&frame).expect("inject");
        if id % 32 == 31 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    ping(&lab.sites.host_a, HOST_B, 1);
}
