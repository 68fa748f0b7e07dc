//! System calls: few when there is much to do, and few when there is nothing.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert::run::IoReport;
use nix::sys::signal::Signal;

use crate::support::Lab;
use crate::support::assert_balanced;
use crate::support::settle;

/// A little less than a receive ring holds.
const BACKLOG: u64 = 1900;

fn calls(io: &IoReport) -> u64 {
    io.tx_kicks + io.rx_kicks + io.busy_polls + io.polls + io.wakes
}

/// A worker that finds a backlog receives without system calls and sends many packets with one: of
/// all calls of the gateway's life, most are those of its pings.
#[test]
fn a_backlog_takes_few() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    lab.ping_all(1);
    a.process().signal(Signal::SIGSTOP);
    let send = || {
        let socket = UdpSocket::bind("10.1.0.2:0").expect("socket");
        let packet = [7; 100];
        (0..BACKLOG).filter(|_| socket.send_to(&packet, (HOST_B[0], 7000)).is_ok()).count()
    };
    let sent = lab.sites.host_a.run(send).expect("namespace");
    a.process().signal(Signal::SIGCONT);
    settle();
    let report = a.stop().expect("report");
    assert_balanced(&report);
    assert!(report.totals.forwarded >= sent as u64, "{sent} sent: {:?}", report.totals);
    assert_eq!(report.totals.dropped, 0, "{:?}", report.totals);
    let io = &report.io[0];
    assert!(calls(io) < BACKLOG / 8, "{io:?}");
    assert!(io.tx_kicks < BACKLOG / 32, "{io:?}");
    drop(b.stop());
}

/// Without traffic a worker wakes up ten times a second, for its timers, and whenever control calls
/// it: it uses next to no processor time.
#[test]
fn idleness_takes_few() {
    let Some(mut lab) = Lab::new(&Plan { workers: 2, ..Plan::default() }) else { return };
    let start = Instant::now();
    let gateways = lab.start();
    lab.ping_all(1);
    thread::sleep(Duration::from_secs(2));
    for gateway in gateways {
        let report = gateway.stop().expect("report");
        let timers = 20 * (start.elapsed().as_secs() + 1);
        assert_eq!(report.io.len(), 2);
        for io in &report.io {
            assert!(io.polls <= timers + io.received + io.wakes, "{io:?} in {:?}", start.elapsed());
            assert!(io.wakes < 100, "control has little to say: {io:?}");
            assert!(io.tx_kicks <= io.sent, "{io:?}");
            assert_eq!(io.rx_kicks, 0, "no driver asked: {io:?}");
        }
    }
}

/// With `busy_poll` workers forward as ever and never sleep, so that nobody has to wake them.
#[test]
fn busy_polling_takes_no_sleep() {
    let Some(mut lab) = Lab::new(&Plan { busy_poll: true, ..Plan::default() }) else { return };
    let gateways = lab.start();
    lab.ping_all(3);
    for gateway in gateways {
        assert!(gateway.says("busy_poll: the kernel names no NAPI instance"), "{}", gateway.log());
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        assert!(report.totals.forwarded > 0, "{:?}", report.totals);
        let io = &report.io[0];
        assert_eq!((io.polls, io.wakes), (0, 0), "{io:?}");
    }
}
