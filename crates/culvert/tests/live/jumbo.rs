//! Frames larger than a buffer: links of an MTU of 9000, and an ESP tunnel that carries them whole.

use std::net::SocketAddr;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::Ping;
use culvert::lab::TcpTransfer;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;

use crate::support::Lab;
use crate::support::assert_balanced;

fn plan() -> Plan {
    Plan { jumbo: true, ..Plan::default() }
}

/// Pings of all sizes and TCP, both families, both ways, between hosts that send 8940 octets at a
/// time: everything arrives whole and in single ESP packets, and nothing is dropped.
fn check(plan: &Plan) {
    let Some(mut lab) = Lab::new(plan) else { return };
    let gateways = lab.start();
    lab.ping_all(1);
    let wire = &lab.sites.wire;
    let capture = Capture::start(&wire.ns, wire.right, 4096).expect("capture");
    let (a, b) = (&lab.sites.host_a, &lab.sites.host_b);
    for (from, hosts) in [(a, HOST_B), (b, HOST_A)] {
        for host in hosts {
            for size in [56, 1400, 1472, 1700, 1760, 3000, 8880] {
                let ping = Ping::new(host.parse().expect("an address"));
                let report = Ping { size, count: 3, ..ping }.run(from).expect("ping");
                assert_eq!((report.received, report.corrupt), (3, 0), "{host}, {size} octets");
            }
        }
    }
    for (from, to, destination) in [(a, b, HOST_B[0]), (b, a, HOST_A[1])] {
        let address = SocketAddr::new(destination.parse().expect("an address"), 7001);
        let report = TcpTransfer::new(address, 4_000_000).run(from, to).expect("TCP");
        assert!(report.is_intact(), "{report:?}");
    }
    let captured = capture.stop().expect("capture");
    let esp: Vec<_> =
        captured.frames.iter().filter(|frame| Class::of(frame) == Class::Esp4).collect();
    assert!(esp.iter().all(|frame| frame[20] & 0x3f == 0 && frame[21] == 0), "no fragments");
    // 8880 octets of payload, 8 of ICMP and 20 or 40 of IP, in 20 + 8 + 8 + 2 + 16 and padding.
    let large = esp.iter().filter(|frame| frame.len() > 8900).count();
    assert!(large >= 24, "{large} of {}", esp.len());
    for gateway in gateways {
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert_eq!(report.totals.dropped, 0, "{:?}", report.totals);
        assert!(report.io.iter().all(|io| (io.no_run, io.too_long) == (0, 0)), "{:?}", report.io);
        let received: u64 = report.io.iter().map(|io| io.received).sum();
        assert_eq!(received, report.totals.received);
    }
}

/// Native XDP, one worker.
#[test]
fn jumbo_frames_through_a_tunnel() {
    check(&plan());
}

/// Generic XDP, whose veth peers must not send more than the MTU at once.
#[test]
fn jumbo_frames_over_generic_xdp() {
    check(&Plan { mode: "generic", offloads: false, ..plan() });
}

/// Two workers, which hand large packets over to each other.
#[test]
fn jumbo_frames_between_workers() {
    check(&Plan { workers: 2, ..plan() });
}

/// Without `jumbo` such links are refused, and the message says what helps.
#[test]
fn large_links_are_refused_without_jumbo() {
    let Some(mut lab) = Lab::new(&plan()) else { return };
    lab.sites.configure(&Plan::default()).expect("configure");
    let (gateway, config) = (lab.sites.gw_a.clone(), lab.sites.configs[0].clone());
    let said = lab.refusal(&gateway, &config);
    assert!(said.contains("its MTU is 8940, but a packet buffer of 2048 bytes takes"), "{said}");
    assert!(said.contains("or set jumbo = true"), "{said}");
}
