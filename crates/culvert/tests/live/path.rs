//! Packets that do not fit: hosts learn what fits, and what is fragmented arrives.

use std::net::UdpSocket;

use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::TcpTransfer;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;

use crate::support::Lab;
use crate::support::assert_balanced;
use crate::support::until;

/// Two sites whose own links carry as much as the wire, so that nothing full fits the tunnel.
fn tight(plan: &Plan) -> Option<Lab> {
    let lab = Lab::new(plan)?;
    let sites = &lab.sites;
    for (ns, interface) in [
        (&sites.host_a, "eth0"),
        (&sites.gw_a, "lan0"),
        (&sites.gw_b, "lan0"),
        (&sites.host_b, "eth0"),
    ] {
        ns.ip(&format!("link set {interface} mtu 1500")).expect("mtu");
    }
    Some(lab)
}

/// What the kernel of a host knows about the path.
fn learned(host: &Ns, destination: &str) -> Option<u16> {
    let shown = host.ip(&format!("route get {destination}")).expect("route");
    shown.split_once(" mtu ")?.1.split_whitespace().next()?.parse().ok()
}

/// Sends datagrams that fill the link, until the kernel knows better.
fn learn(host: &Ns, destination: &str) -> u16 {
    let any = if destination.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = host.run(|| UdpSocket::bind(any)).expect("namespace").expect("socket");
    let to = std::net::SocketAddr::new(destination.parse().expect("an address"), 9);
    let full = if to.is_ipv4() { 1472 } else { 1452 };
    until("path MTU", || {
        // The kernel refuses it itself once it knows.
        let _ = socket.send_to(&vec![7; full], to);
        learned(host, destination).is_some()
    });
    learned(host, destination).expect("it was there")
}

/// P23: a packet with DF that does not fit is answered by ICMP, IPv4 3/4 and IPv6 2, with the MTU
/// that is left inside; the host's kernel believes it, and packets of just that size pass.
///
/// With AES-GCM over IPv4, 1500 octets less 20 of IPv4, 8 of ESP, 8 of IV and 16 of ICV leave 1448,
/// of which the trailer takes 2, and the text ends on a multiple of 4.
#[test]
fn a_host_learns_what_fits() {
    let Some(mut lab) = tight(&Plan::default()) else { return };
    for (plan, inside) in [
        (Plan::default(), 1446),
        (Plan { outer_v6: true, ..Plan::default() }, 1426),
        (Plan { encapsulated: true, ..Plan::default() }, 1438),
    ] {
        lab.sites.configure(&plan).expect("configure");
        let gateways = lab.start();
        let host = lab.sites.host_a.clone();
        host.ip("route flush cache").expect("flush");
        host.ip("-6 route flush cache").expect("flush");
        for (destination, header) in [(HOST_B[0], 20 + 8), (HOST_B[1], 40 + 8)] {
            assert_eq!(learn(&host, destination), inside, "{plan:?}: {destination}");
            let ping = Ping::new(destination.parse().expect("an address"));
            let size = usize::from(inside) - header;
            let report = Ping { size, count: 3, ..ping }.run(&host).expect("ping");
            assert_eq!(report.received, 3, "{plan:?}: {destination}");
        }
        let [a, b] = gateways.map(|gateway| gateway.stop().expect("report"));
        assert_balanced(&a);
        assert!(a.totals.answered >= 2, "{:?}", a.totals);
        // One that waited for a neighbour is dropped without an answer.
        assert!(a.totals.drops["too_big"] >= a.totals.answered, "{:?}", a.totals);
        assert_eq!(a.totals.drops.len(), 1, "{:?}", a.totals);
        assert_eq!(b.totals.dropped, 0, "{:?}", b.totals);
    }
}

/// P23: TCP finds out by itself, both families, both ways.
#[test]
fn tcp_finds_what_fits() {
    let Some(mut lab) = tight(&Plan::default()) else { return };
    let gateways = lab.start();
    let (a, b) = (&lab.sites.host_a, &lab.sites.host_b);
    for (from, to, destination) in [(a, b, HOST_B[0]), (b, a, HOST_A[1])] {
        let address = std::net::SocketAddr::new(destination.parse().expect("an address"), 7001);
        let report = TcpTransfer::new(address, 1_000_000).run(from, to).expect("TCP");
        assert!(report.is_intact(), "{report:?}");
    }
    for gateway in gateways {
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert!(report.totals.drops["too_big"] > 0, "{:?}", report.totals);
    }
}

/// E16, I02: what is fragmented behind ESP is reassembled before it, raw and in UDP, over IPv4 and
/// IPv6, on one worker and on two.
#[test]
fn fragments_of_esp_are_reassembled() {
    for workers in [1, 2] {
        let lines = "fragmentation = \"after\"\n";
        let v4_lines = "fragmentation = \"after\"\ndf = \"clear\"\n";
        let plan = Plan { workers, ..Plan::default() };
        let Some(mut lab) = tight(&plan) else { return };
        for (outer_v6, encapsulated) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let sa_lines = [if outer_v6 { lines } else { v4_lines }, ""];
            let plan = Plan { outer_v6, encapsulated, sa_lines, ..plan.clone() };
            lab.sites.configure(&plan).expect("configure");
            let gateways = lab.start();
            // Neighbours are known then: what waits for one is not fragmented.
            lab.ping_all(1);
            let mut answered = Vec::new();
            for (from, hosts) in [(&lab.sites.host_a, HOST_B), (&lab.sites.host_b, HOST_A)] {
                for (host, size) in hosts.into_iter().zip([1472, 1452]) {
                    let ping = Ping::new(host.parse().expect("an address"));
                    let report = Ping { size, count: 4, ..ping }.run(from).expect("ping");
                    answered.push((report.received, report.corrupt));
                }
            }
            let reports = gateways.map(|gateway| gateway.stop().expect("report"));
            assert_eq!(answered, [(4, 0); 4], "{plan:?}: {reports:?}");
            for report in reports {
                assert_balanced(&report);
                let totals = &report.totals;
                assert_eq!(totals.dropped, 0, "{plan:?}: {totals:?}");
                assert_eq!((totals.split, totals.reassembling), (16, 32), "{plan:?}: {totals:?}");
                assert!(report.sas.iter().all(|sa| sa.packets == 20), "{:?}", report.sas);
            }
        }
    }
}
