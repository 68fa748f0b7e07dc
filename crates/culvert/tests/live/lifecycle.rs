//! Start, stop, refusals, and death.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::UdpStream;
use culvert::lab::sites::Gateway;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use nix::sys::signal::Signal;

use crate::support::LONG;
use crate::support::Lab;
use crate::support::assert_balanced;
use crate::support::run;
use crate::support::until;

/// What an operator could have set, and a gateway could have changed: flags, MTU, queues, the XDP
/// program, and offloads.
fn state(ns: &Ns, interface: &str) -> String {
    let link = ns.ip(&format!("-d link show dev {interface}")).expect("link");
    link + &run(ns, "ethtool", &format!("-k {interface}"))
}

fn states(lab: &Lab) -> Vec<String> {
    let gateways = [&lab.sites.gw_a, &lab.sites.gw_b];
    gateways.iter().flat_map(|ns| ["lan0", "wan0"].map(|name| state(ns, name))).collect()
}

/// The kernel lets go of a program a little after it was detached.
fn assert_restored(lab: &Lab, before: &[String]) {
    let is_gone = || !states(lab).concat().contains("xdp");
    until("interface without XDP", is_gone);
    assert_eq!(states(lab), before);
}

fn has_ethtool() -> bool {
    let found = std::process::Command::new("ethtool").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: this test looks at offloads and needs ethtool");
    }
    found
}

fn stops_on(signal: Signal, mode: &'static str) {
    let plan = Plan { mode, offloads: mode == "native", ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan).filter(|_| has_ethtool()) else { return };
    let before = states(&lab);
    let gateways = lab.start();
    assert_ne!(states(&lab), before, "a program is attached");
    lab.ping_all(3);
    for gateway in gateways {
        gateway.process().signal(signal);
        let status = gateway.process().wait(LONG).expect("wait").expect("it ends");
        assert!(status.success(), "{signal}: {status}: {}", gateway.log());
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert_eq!((report.totals.forwarded, report.totals.dropped), (24, 0));
    }
    assert_restored(&lab, &before);
    // And again, over interfaces that are as good as new.
    drop(lab.start());
}

/// SIGTERM stops a gateway in an orderly way: exit code 0, a report, interfaces as found.
#[test]
fn stops_on_sigterm() {
    stops_on(Signal::SIGTERM, "native");
}

/// So does SIGINT, also in generic mode, which turns off more offloads.
#[test]
fn stops_on_sigint() {
    stops_on(Signal::SIGINT, "generic");
}

/// A stop in the middle of traffic, on two workers that hand packets over to each other, is as
/// orderly.
#[test]
fn stops_under_load() {
    let plan = Plan { workers: 2, ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan).filter(|_| has_ethtool()) else { return };
    let before = states(&lab);
    for _ in 0..3 {
        let gateways = lab.start();
        thread::scope(|scope| {
            for port in 7000..7008 {
                let destination = SocketAddr::new("10.2.0.2".parse().expect("address"), port);
                let (a, b) = (&lab.sites.host_a, &lab.sites.host_b);
                let stream =
                    UdpStream { rate_pps: 4000, count: 4000, ..UdpStream::new(destination) };
                scope.spawn(move || stream.run(a, b).expect("stream"));
            }
            thread::sleep(Duration::from_millis(300));
            for gateway in gateways {
                let report = gateway.stop().expect("report");
                assert_balanced(&report);
                assert!(report.totals.forwarded > 100, "{:?}", report.totals);
            }
        });
        assert_restored(&lab, &before);
    }
}

/// A gateway on interfaces that another one has is refused, and the other one goes on; so is one
/// whose interface does not exist, or has another number of queues.
#[test]
fn refuses_taken_interfaces() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    let directory = lab.sites.directory().to_owned();
    let config = std::fs::read_to_string(&lab.sites.configs[0]).expect("configuration");
    let config = config.replace("state-a", "state-of-the-second");
    let ns = lab.sites.gw_a.clone();
    let mut refusal = |name: &str, config: String| {
        let path = directory.join(name);
        std::fs::write(&path, config).expect("configuration");
        lab.refusal(&ns, &path)
    };
    let said = refusal("second.toml", config.clone());
    assert!(said.contains("another XDP program is attached to lan0"), "{said}");
    let said = refusal("missing.toml", config.replace("lan0", "lan7"));
    assert!(said.contains("interface lan7: no such network interface"), "{said}");
    let said = refusal("queues.toml", config.replace("count = 1", "count = 2"));
    assert!(said.contains("interface lan0 has 1 receive queues: expected 2"), "{said}");
    assert!(said.contains("ethtool -L lan0 rx 2 tx 2"), "{said}");
    lab.ping_all(3);
    for gateway in [a, b] {
        assert_eq!(gateway.stop().expect("report").totals.dropped, 0);
    }
}

/// Whether ESP in UDP reaches the kernel's socket at gateway b: true only when nobody takes it.
fn esp_reaches_kernel(lab: &Lab) -> bool {
    let socket = lab.sites.gw_b.run(|| UdpSocket::bind("192.0.2.2:4500"));
    let socket = socket.expect("namespace").expect("socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let sender = lab.sites.gw_a.run(|| UdpSocket::bind("0.0.0.0:0")).expect("namespace");
    let esp = [&[0, 0, 0x77, 0x77][..], &[1; 60]].concat();
    sender.expect("socket").send_to(&esp, "192.0.2.2:4500").expect("send");
    let mut buffer = [0; 100];
    socket.recv(&mut buffer).is_ok_and(|length| buffer[..length] == esp)
}

fn kill(gateway: &Gateway) {
    gateway.process().signal(Signal::SIGKILL);
    gateway.process().wait(LONG).expect("wait").expect("it ends");
}

/// While a gateway runs, ESP is its own; before, after a stop, and after SIGKILL the kernel gets
/// everything. A killed gateway starts again at once.
#[test]
fn the_kernel_gets_everything_without_it() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    assert!(esp_reaches_kernel(&lab));
    let [a, b] = lab.start();
    assert!(!esp_reaches_kernel(&lab));
    lab.ping_all(3);
    kill(&b);
    until("interface without XDP", || !lab.sites.gw_b.ip("-d link").expect("link").contains("xdp"));
    assert!(esp_reaches_kernel(&lab));
    let (ns, config) = (lab.sites.gw_b.clone(), lab.sites.configs[1].clone());
    let b = lab.start_one(&ns, &config);
    assert!(!esp_reaches_kernel(&lab));
    lab.ping_all(3);
    b.stop().expect("report");
    assert!(esp_reaches_kernel(&lab));
    a.stop().expect("report");
}

/// P15, P17: at the soft limit of an SA the log says that it needs a successor, once; at the hard
/// one it ends, and its packets are counted.
#[test]
fn limits_of_an_sa_are_told() {
    let limits = "soft_lifetime = { packets = 5 }\nhard_lifetime = { packets = 8 }\n";
    let plan = Plan { sa_lines: [limits, ""], ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    let [a, b] = lab.start();
    let ping = Ping {
        timeout: Duration::from_millis(100),
        ..Ping::new(HOST_B[0].parse().expect("an address"))
    };
    assert_eq!(ping.run(&lab.sites.host_a).expect("ping").received, 8);
    until("end", || a.says("SA ended") && b.says("SA ended"));
    for gateway in [&a, &b] {
        let log = gateway.log();
        for line in ["SA needs a successor", "SA ended"] {
            assert_eq!(log.matches(line).count(), 1, "{log}");
        }
        assert!(log.contains("cause=\"packets\"") && log.contains("name=\"out\""), "{log}");
    }
    let [a, b] = [a, b].map(|gateway| gateway.stop().expect("report"));
    assert_balanced(&a);
    assert_eq!((a.totals.dropped, a.totals.drops.get("expired")), (2, Some(&2)), "{:?}", a.totals);
    assert_eq!(b.totals.dropped, 0, "{:?}", b.totals);
}
