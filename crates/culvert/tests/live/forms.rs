//! Forms other than an ESP tunnel: transport mode, AH, keepalives. Culvert is a bump in the wire:
//! the ends of a transport mode SA are the hosts behind it.

use std::thread;
use std::time::Duration;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::TcpTransfer;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert::run::RunReport;
use culvert_wire::ip;

use crate::support::Lab;
use crate::support::assert_balanced;

/// Octets of Ethernet and IPv4 headers.
const HEADERS: usize = 34;

/// A transfer in each family, one each way.
fn transfer(lab: &Lab) {
    let (a, b) = (&lab.sites.host_a, &lab.sites.host_b);
    for (from, to, destination) in [(a, b, HOST_B[0]), (b, a, HOST_A[1])] {
        let address = std::net::SocketAddr::new(destination.parse().expect("an address"), 7001);
        let report = TcpTransfer::new(address, 1_000_000).run(from, to).expect("TCP");
        assert!(report.is_intact(), "{report:?}");
    }
}

/// Pings and TCP in a form whose packets `is_of` knows by family, protocol and addresses.
fn check(lab: &mut Lab, plan: &Plan, is_ours: impl Fn(&[u8]) -> bool) {
    lab.sites.configure(plan).expect("configure");
    let gateways = lab.start();
    let wire = &lab.sites.wire;
    let capture = Capture::start(&wire.ns, wire.right, 4096).expect("capture");
    lab.ping_all(3);
    transfer(lab);
    let captured = capture.stop().expect("capture");
    let quiet = [Class::Arp, Class::Neighbour, Class::Mld];
    let strange = captured.frames.iter().filter(|frame| !quiet.contains(&Class::of(frame)));
    let strange: Vec<_> = strange.filter(|frame| !is_ours(frame)).collect();
    assert!(strange.is_empty(), "{plan:?}: {} frames: {:02x?}", strange.len(), strange[0]);
    assert!(captured.frames.iter().any(|frame| is_ours(frame)), "{plan:?}");
    for gateway in gateways {
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert_eq!(report.totals.dropped, 0, "{plan:?}: {:?}", report.totals);
        assert!(report.sas.iter().all(|sa| sa.packets > 10), "{plan:?}: {:?}", report.sas);
    }
}

/// True for a frame with this protocol between two addresses, in any direction.
fn is_between(frame: &[u8], protocol: u8, ends: [&str; 2]) -> bool {
    let Ok(packet) = ip::parse(&frame[14..]) else { return false };
    let found = match &packet {
        ip::Packet::V4(header) => {
            (header.protocol, header.source.into(), header.destination.into())
        }
        ip::Packet::V6(header) => {
            (header.next_header, header.source.into(), header.destination.into())
        }
    };
    let [a, b]: [std::net::IpAddr; 2] = ends.map(|end| end.parse().expect("an address"));
    [(protocol, a, b), (protocol, b, a)].contains(&found)
}

/// P26, E10: transport mode between the hosts, both families, raw and in UDP: the packets on
/// the wire have the hosts' addresses, and protocol 50 or UDP.
#[test]
fn transport_mode() {
    let plan = Plan { transport: true, ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    for (encapsulated, protocol) in [(false, 50), (true, 17)] {
        let plan = Plan { encapsulated, ..plan.clone() };
        check(&mut lab, &plan, |frame| {
            let families = [[HOST_A[0], HOST_B[0]], [HOST_A[1], HOST_B[1]]];
            families.iter().any(|&ends| is_between(frame, protocol, ends))
        });
    }
}

/// A07, A08: AH in tunnel mode between the gateways, over IPv4 and IPv6.
#[test]
fn ah_tunnel() {
    let plan = Plan { ah: true, algorithm: ("sha256", 32), ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    for (outer_v6, ends) in
        [(false, ["192.0.2.1", "192.0.2.2"]), (true, ["2001:db8::1", "2001:db8::2"])]
    {
        let plan = Plan { outer_v6, ..plan.clone() };
        check(&mut lab, &plan, |frame| is_between(frame, 51, ends));
    }
}

/// A07, A08: AH in transport mode between the hosts, both families, HMAC and GMAC.
#[test]
fn ah_transport() {
    let plan = Plan { ah: true, transport: true, ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    for algorithm in [("sha512", 64), ("aes128gmac", 20)] {
        let plan = Plan { algorithm, ..plan.clone() };
        check(&mut lab, &plan, |frame| {
            let families = [[HOST_A[0], HOST_B[0]], [HOST_A[1], HOST_B[1]]];
            families.iter().any(|&ends| is_between(frame, 51, ends))
        });
    }
}

/// U05, U06: an idle gateway behind a NAT sends keepalives, one octet 0xff from port to port; its
/// peer leaves them to the kernel, counted, and answers nothing.
#[test]
fn keepalives() {
    let plan = Plan {
        encapsulated: true,
        sa_lines: ["behind_nat = true\nkeepalive = 0.3\n", ""],
        ..Plan::default()
    };
    let Some(mut lab) = Lab::new(&plan) else { return };
    let [a, b] = lab.start();
    lab.ping_all(1);
    let wire = &lab.sites.wire;
    let capture = Capture::start(&wire.ns, wire.right, 4096).expect("capture");
    thread::sleep(Duration::from_secs(2));
    let captured = capture.stop().expect("capture");
    let ports = [4500u16.to_be_bytes(), 4500u16.to_be_bytes()].concat();
    let is_keepalive = |frame: &&Vec<u8>| {
        frame[HEADERS..HEADERS + 4] == ports
            && frame[HEADERS + 4..HEADERS + 9] == [0, 9, 0, 0, 0xff]
    };
    let udp = captured.frames.iter().filter(|frame| Class::of(frame) == Class::Udp4500);
    let (keepalives, others): (Vec<_>, Vec<_>) = udp.partition(is_keepalive);
    assert!((8..=14).contains(&keepalives.len()), "{} in 2 s, each way", keepalives.len());
    assert!(others.is_empty(), "{others:02x?}");
    let [a, b] = [a, b].map(|gateway| gateway.stop().expect("report"));
    for (report, peer) in [(&a, &b), (&b, &a)] {
        assert_balanced(report);
        assert!(report.totals.answered >= 4, "{:?}", report.totals);
        assert_eq!(report.totals.dropped, 0, "{:?}", report.totals);
        let seen = steered(report, "wan0", "keepalive");
        assert!(seen >= 4 && seen <= peer.totals.answered, "{seen}: {:?}", peer.totals);
    }
}

/// Frames of a class that an interface counted.
fn steered(report: &RunReport, interface: &str, class: &str) -> u64 {
    let port = report.ports.iter().find(|port| port.interface == interface).expect("port");
    port.steering.get(class).copied().unwrap_or(0)
}
