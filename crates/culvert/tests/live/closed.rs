//! Fail closed: what is culvert's never leaves in clear, on machines whose kernels forward, however
//! the gateway ends and while it starts.

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use culvert::lab::Cancel;
use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::sites::Gateway;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use nix::sys::signal::Signal;

use crate::support::BpfFs;
use crate::support::CULVERT;
use crate::support::LONG;
use crate::support::Lab;
use crate::support::ping;
use crate::support::run;
use crate::support::settle;
use crate::support::until;

/// Where the hosts send to, from a and from b: the other site, and what no policy covers.
const DESTINATIONS: [[&str; 5]; 2] = [
    [HOST_B[0], HOST_B[1], "198.51.100.7", "2001:db8:77::7", "169.254.7.7"],
    [HOST_A[0], HOST_A[1], "198.51.100.8", "2001:db8:77::8", "169.254.8.8"],
];
/// The first of these that no policy covers.
const UNCOVERED: usize = 2;

/// Packets by the site that sent them, and by destination.
type Leaks = [[usize; 5]; 2];

/// Frames kept by the witness on the wire.
const KEEP: usize = 1_000_000;

/// Two sites with gateways whose kernels forward everything to each other, and a witness on the
/// wire.
struct Open {
    capture: Capture,
    bpf: BpfFs,
    lab: Lab,
}

impl Open {
    /// Gateways with these lines in `[interfaces]`; `PINS` becomes a directory of their own.
    fn new(plan: &Plan, lines: &str) -> Option<Open> {
        let lab = Lab::new(plan)?;
        let bpf = BpfFs::new(lab.sites.directory());
        for (name, config) in ["a", "b"].iter().zip(&lab.sites.configs) {
            let text = std::fs::read_to_string(config).expect("configuration");
            let with = format!("[interfaces]\n{}", lines.replace("PINS", &bpf.pins(name)));
            std::fs::write(config, text.replace("[interfaces]\n", &with)).expect("configuration");
        }
        let ends = [(&lab.sites.gw_a, 2), (&lab.sites.gw_b, 1)];
        for ((ns, other), theirs) in ends.into_iter().zip(DESTINATIONS.iter().rev()) {
            ns.sysctl("net.ipv4.ip_forward", "1").expect("forwarding");
            ns.sysctl("net.ipv6.conf.all.forwarding", "1").expect("forwarding");
            ns.ip(&format!("route add default via 192.0.2.{other}")).expect("route");
            ns.ip(&format!("route add 169.254.0.0/16 via 192.0.2.{other}")).expect("route");
            ns.ip(&format!("-6 route add default via 2001:db8::{other}")).expect("route");
            // They end here.
            for address in &theirs[UNCOVERED..] {
                ns.ip(&format!("route add blackhole {address}")).expect("route");
            }
        }
        let wire = &lab.sites.wire;
        let capture = Capture::start(&wire.ns, wire.left, KEEP).expect("capture");
        Some(Open { capture, bpf, lab })
    }

    /// Packets seen in clear on the wire, from a then b, to each destination.
    fn leaks(&self) -> Leaks {
        let frames = self.capture.frames(Class::Other);
        let seen = |mark: [u8; 8]| {
            frames.iter().filter(|frame| frame.windows(8).any(|octets| octets == mark)).count()
        };
        [0, 1].map(|site| [0, 1, 2, 3, 4].map(|destination| seen(mark(site, destination))))
    }

    /// Sends all the time while `body` runs.
    fn under_traffic(&mut self, body: impl FnOnce(&mut Open)) {
        let stop = AtomicBool::new(false);
        let hosts = [self.lab.sites.host_a.clone(), self.lab.sites.host_b.clone()];
        thread::scope(|scope| {
            for (site, host) in hosts.iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || send(site, host, stop));
            }
            let _stop = StopOnDrop(&stop);
            body(self);
        });
    }

    fn start(&mut self, site: usize) -> Gateway {
        let ns = [&self.lab.sites.gw_a, &self.lab.sites.gw_b][site].clone();
        let config = self.lab.sites.configs[site].clone();
        self.lab.start_one(&ns, &config)
    }

    /// Packets seen in clear once those on their way are through, and no more come of those that
    /// `part` looks at.
    fn leaks_until_now<T: PartialEq>(&self, part: impl Fn(&Leaks) -> T) -> Leaks {
        let mut leaks = self.leaks();
        until("end of packets in clear", || {
            let before = std::mem::replace(&mut leaks, {
                settle();
                self.leaks()
            });
            part(&before) == part(&leaks)
        });
        leaks
    }

    /// Asserts that for a while nothing more is seen in clear than was before.
    fn assert_closed(&self, before: &Leaks, when: &str) {
        settle();
        assert_eq!(self.leaks(), *before, "{when}");
    }

    /// Waits until everything is seen in clear that site `site` sends.
    fn until_open(&self, site: usize, before: &Leaks) {
        let mut leaks = *before;
        let all = || {
            leaks = self.leaks();
            leaks[site].iter().zip(before[site]).all(|(now, before)| *now > before)
        };
        let open = Cancel::new().wait(LONG, all).expect("nobody cancels");
        assert!(open, "not all packets of {site} in clear: {before:?}, then {leaks:?}");
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the packets of a host to a destination consist of.
fn mark(site: usize, destination: usize) -> [u8; 8] {
    let octet = |number: usize| b'0' + u8::try_from(number).expect("a digit");
    [b'c', b'l', b'e', b'a', b'r', octet(site), octet(destination), b'!']
}

/// Sends to all destinations until told to stop, packets and such that are fragmented.
fn send(site: usize, host: &Ns, stop: &AtomicBool) {
    let bind = |address: &'static str| {
        host.run(move || UdpSocket::bind(address)).expect("namespace").expect("socket")
    };
    let sockets = [bind("0.0.0.0:0"), bind("[::]:0")];
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        for (number, address) in DESTINATIONS[site].iter().enumerate() {
            let to = SocketAddr::new(address.parse().expect("an address"), 9);
            let length = if round.is_multiple_of(4) { 250 } else { 10 };
            let data = mark(site, number).repeat(length);
            // Errors are those that ICMP told.
            let _ = sockets[usize::from(to.is_ipv6())].send_to(&data, to);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn kill(gateway: &Gateway) {
    gateway.process().signal(Signal::SIGKILL);
    gateway.process().wait(LONG).expect("wait").expect("it ends");
}

fn never_in_clear(mode: &'static str) {
    let plan = Plan { mode, offloads: mode == "native", ..Plan::default() };
    let lines = "take = \"all\"\npin = \"PINS\"\n";
    let Some(mut open) = Open::new(&plan, lines) else { return };
    open.under_traffic(|open| {
        let nothing = [[0; 5]; 2];
        open.until_open(0, &nothing);
        open.until_open(1, &nothing);
        let (a, b) = (open.start(0), open.start(1));
        assert!(!a.says("is on:"), "no warning of forwarding: {}", a.log());
        let before = open.leaks_until_now(|leaks| *leaks);
        open.lab.ping_all(3);
        open.assert_closed(&before, "both run");

        kill(&a);
        open.assert_closed(&before, "a was killed");
        // Its own addresses are there all the same.
        ping(&open.lab.sites.host_a, ["10.1.0.1", "fd01::1"], 2);
        ping(&open.lab.sites.gw_b, ["192.0.2.1", "2001:db8::1"], 2);
        let a = open.start(0);
        assert!(a.says("taken over from an earlier gateway"), "{}", a.log());
        open.lab.ping_all(3);
        open.assert_closed(&before, "a runs again");

        assert!(a.stop().expect("report").totals.forwarded > 0);
        open.assert_closed(&before, "a was stopped");
        let config = std::fs::read_to_string(&open.lab.sites.configs[0]).expect("configuration");
        let broken = open.lab.sites.directory().join("broken.toml");
        let elsewhere = config.replace("/state-a", "/broken.toml/state");
        std::fs::write(&broken, elsewhere).expect("configuration");
        let ns = open.lab.sites.gw_a.clone();
        open.lab.refusal(&ns, &broken);
        open.assert_closed(&before, "a was refused");

        kill(&b);
        open.assert_closed(&before, "b was killed, too");
        let (a, b) = (open.start(0), open.start(1));
        open.lab.ping_all(3);
        open.assert_closed(&before, "both run again");
        let (pins, ns) = (open.bpf.pins("a"), open.lab.sites.gw_a.clone());
        let mut release = ns.command(CULVERT);
        let output = release.args(["release", "--directory", &pins]).output().expect("release");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("another gateway runs"), "{said}");
        drop((a.stop().expect("report"), b.stop().expect("report")));
        open.assert_closed(&before, "both were stopped");

        run(&ns, CULVERT, &format!("release --directory {pins}"));
        open.until_open(0, &before);
        assert!(!Path::new(&pins).exists(), "the directory goes with the pins");
        assert_eq!(open.leaks()[1], before[1], "b is closed");
    });
}

/// P03: with `take = "all"` and pins no packet is seen in clear on the wire from the first start
/// on: not while gateways run, after SIGKILL, after a stop, after a start that failed, nor during
/// any start, whether policies cover its destination or not. `culvert release` opens the gateway.
#[test]
fn nothing_leaves_in_clear_from_the_first_start_on() {
    never_in_clear("native");
}

/// P03: the same where XDP runs in the kernel's stack.
#[test]
fn nothing_leaves_in_clear_in_generic_mode() {
    never_in_clear("generic");
}

/// Without a pin, the kernel forwards again what culvert took once it is gone, whether it was
/// killed or stopped; while it runs and starts again over itself, it does not.
#[test]
fn without_a_pin_the_kernel_forwards_after_the_end() {
    let Some(mut open) = Open::new(&Plan::default(), "take = \"all\"\n") else { return };
    open.under_traffic(|open| {
        let (a, b) = (open.start(0), open.start(1));
        let warning = "net.ipv4.ip_forward is on: before culvert starts and after it ends";
        assert!(a.says(warning), "{}", a.log());
        let before = open.leaks_until_now(|leaks| *leaks);
        open.lab.ping_all(3);
        open.assert_closed(&before, "both run");
        kill(&a);
        open.until_open(0, &before);
        b.stop().expect("report");
        open.until_open(1, &before);
    });
}

/// P03: with a pin and `take = "policies"` what policies protect never leaves in clear; what no
/// policy covers the kernel forwards all the time, and a warning says so. With `on_stop = "open"`
/// a stop opens the gateway, and SIGKILL does not.
#[test]
fn what_no_policy_covers_is_the_kernels() {
    let lines = "pin = \"PINS\"\non_stop = \"open\"\n";
    let Some(mut open) = Open::new(&Plan::default(), lines) else { return };
    open.under_traffic(|open| {
        let (a, b) = (open.start(0), open.start(1));
        let warning = "is on: the kernel forwards in clear what no policy's destination covers";
        assert!(a.says(warning), "{}", a.log());
        let covered = |leaks: Leaks| leaks.map(|site| [site[0], site[1]]);
        let before = open.leaks_until_now(|leaks| covered(*leaks));
        for killed in [false, true] {
            if killed {
                kill(&a);
            }
            let now = open.leaks();
            let uncovered = |leaks: &Leaks| leaks[0][UNCOVERED..].to_vec();
            until("packets that no policy covers", || {
                uncovered(&open.leaks()).iter().zip(uncovered(&now)).all(|(new, old)| *new > old)
            });
            assert_eq!(covered(open.leaks()), covered(before), "killed: {killed}");
        }
        b.stop().expect("report");
        open.until_open(1, &before);
        assert_eq!(covered(open.leaks())[0], covered(before)[0]);
        let a = open.start(0);
        a.stop().expect("report");
        open.until_open(0, &before);
    });
}

/// The machine stays reachable over its interfaces while gateways start, die, stop, and are
/// released: its own addresses are known before a program is attached.
#[test]
fn the_machine_stays_reachable_all_the_time() {
    let lines = "take = \"all\"\npin = \"PINS\"\n";
    let Some(mut open) = Open::new(&Plan::default(), lines) else { return };
    let stop = AtomicBool::new(false);
    let sites = [
        (open.lab.sites.host_a.clone(), ["10.1.0.1", "fd01::1"]),
        (open.lab.sites.gw_b.clone(), ["192.0.2.1", "2001:db8::1"]),
    ];
    let mut lost = Vec::new();
    thread::scope(|scope| {
        let mut pings = Vec::new();
        for (from, to) in &sites {
            for address in to {
                let stop = &stop;
                pings.push(scope.spawn(move || lost_pings(from, address, stop)));
            }
        }
        let _stop = StopOnDrop(&stop);
        let a = open.start(0);
        kill(&a);
        let a = open.start(0);
        a.stop().expect("report");
        settle();
        let a = open.start(0);
        a.stop().expect("report");
        let (ns, pins) = (open.lab.sites.gw_a.clone(), open.bpf.pins("a"));
        run(&ns, CULVERT, &format!("release --directory {pins}"));
        settle();
        stop.store(true, Ordering::Relaxed);
        lost.extend(pings.into_iter().map(|ping| ping.join().expect("pings")));
    });
    // Attaching and detaching resets the queues of a veth, and what is in them may be lost.
    assert!(lost.iter().all(|&(sent, lost)| sent > 50 && lost <= 2), "{lost:?}");
}

/// Pings one after the other until told to stop: how many there were, and how many were lost.
fn lost_pings(from: &Ns, address: &str, stop: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut lost) = (0, 0);
    let timeout = Duration::from_millis(300);
    while !stop.load(Ordering::Relaxed) {
        let ping = Ping { count: 10, timeout, ..Ping::new(address.parse().expect("an address")) };
        let report = ping.run(from).expect("ping");
        sent += report.sent;
        lost += report.sent - report.received;
    }
    (sent, lost)
}
