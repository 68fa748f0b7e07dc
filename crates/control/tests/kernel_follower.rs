//! The follower against a real kernel: what `ip` changes in a namespace shows in the snapshots.
//!
//! Each test has two namespaces of its own, a gateway and a peer, with two cables in between:
//! `lan0` to `lan1` and `wan0` to `wan1`. They go away with the test. Needs root; without it every
//! test says that it was skipped.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::sched::CloneFlags;
use nix::sched::setns;

use culvert_control::kernel::Follower;
use culvert_control::kernel::KernelError;
use culvert_engine::next_hop::NextHop;
use culvert_engine::next_hop::NextHops;
use culvert_engine::next_hop::Resolution;
use culvert_engine::next_hop::Target;
use culvert_frame::Port;
use culvert_wire::ethernet::Mac;

const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces, deleted on drop.
struct Lab {
    gateway: String,
    peer: String,
}

impl Lab {
    /// Both namespaces with both cables, all up; `None`, said loudly, without root.
    fn new() -> Option<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root, to make network namespaces");
            return None;
        }
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { gateway: format!("cvkern-g-{id}"), peer: format!("cvkern-p-{id}") };
        for name in [&lab.gateway, &lab.peer] {
            run(&["netns", "add", name]);
        }
        for (ours, theirs) in [("lan0", "lan1"), ("wan0", "wan1")] {
            lab.gateway(&format!(
                "link add {ours} type veth peer name {theirs} netns {}",
                lab.peer
            ));
            lab.gateway(&format!("link set {ours} up"));
            lab.peer(&format!("link set {theirs} up"));
        }
        lab.gateway("link set lo up");
        Some(lab)
    }

    /// Runs `ip` in the gateway.
    fn gateway(&self, command: &str) {
        let mut arguments = vec!["-n", &self.gateway];
        arguments.extend(command.split_whitespace());
        run(&arguments);
    }

    /// Runs `ip` in the peer.
    fn peer(&self, command: &str) {
        let mut arguments = vec!["-n", &self.peer];
        arguments.extend(command.split_whitespace());
        run(&arguments);
    }

    /// Runs many lines of `ip` in the gateway; those that fail are passed over.
    fn batch(&self, lines: &str) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.gateway, "-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        ip.wait().unwrap();
    }

    /// True when the kernel can make VLAN devices.
    fn has_vlans(&self) -> bool {
        self.batch("link add link wan0 name probe type vlan id 99\n");
        let mut delete = Command::new("ip");
        delete.args(["-n", &self.gateway, "link", "del", "probe"]).stderr(Stdio::null());
        delete.status().unwrap().success()
    }

    /// Runs `body` on a thread that is in the gateway.
    fn run(&self, body: impl FnOnce() + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.gateway)).unwrap();
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                body();
            });
            inside.join()
        });
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.gateway, &self.peer] {
            _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn run(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn open() -> Follower {
    Follower::open(&[("lan0".into(), Port(0)), ("wan0".into(), Port(1))]).unwrap()
}

fn resolve(next_hops: &NextHops, destination: &str) -> Resolution {
    next_hops.resolve(destination.parse().unwrap())
}

/// Follows until a destination resolves as `expected` says; fails when it does not in time.
fn follow(follower: &mut Follower, destination: &str, expected: impl Fn(Resolution) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = resolve(&follower.snapshot(), destination);
    while !expected(last) {
        assert!(Instant::now() < deadline, "{destination} stays {last:?}");
        let mut wait = [PollFd::new(follower.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut wait, PollTimeout::from(50u16)).unwrap();
        if follower.poll().unwrap() {
            last = resolve(&follower.snapshot(), destination);
        }
    }
}

fn is(expected: Resolution) -> impl Fn(Resolution) -> bool {
    move |found| found == expected
}

fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap()
}

fn target(interface: &str, address: &str) -> Target {
    Target { interface: index(interface), address: address.parse().unwrap() }
}

fn unresolved(interface: &str, address: &str) -> Resolution {
    Resolution::Unresolved(target(interface, address))
}

fn reaches(mac: &'static str) -> impl Fn(Resolution) -> bool {
    let mac: Mac = mac.parse().unwrap();
    move |found| matches!(found, Resolution::Reachable(hop) if hop.destination == mac)
}

/// An interface that does not exist is an error that names it.
#[test]
fn missing_interface() {
    let Some(lab) = Lab::new() else { return };
    lab.run(|| {
        let error = Follower::open(&[("lan7".into(), Port(0))]).unwrap_err();
        assert!(matches!(&error, KernelError::NoInterface(name) if name == "lan7"), "{error}");
    });
}

/// What stands in the kernel at the start is there at once, without a change announced.
#[test]
fn reads_what_is_there() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("link set lan0 address 02:00:00:00:00:01 mtu 1400");
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.gateway("addr add 2001:db8:1::1/64 dev lan0 nodad");
    lab.gateway("route add default via 10.1.0.254");
    lab.gateway("neigh add 10.1.0.254 lladdr 02:00:00:00:00:fe dev lan0");
    lab.run(|| {
        let follower = open();
        let next_hops = follower.snapshot();
        let expected = Resolution::Reachable(NextHop {
            port: Port(0),
            vlan: None,
            source: "02:00:00:00:00:01".parse().unwrap(),
            destination: "02:00:00:00:00:fe".parse().unwrap(),
            mtu: 1400,
        });
        assert_eq!(resolve(&next_hops, "198.51.100.1"), expected);
        assert_eq!(resolve(&next_hops, "10.1.0.1"), Resolution::Local);
        assert_eq!(resolve(&next_hops, "2001:db8:1::1"), Resolution::Local);
        assert_eq!(resolve(&next_hops, "10.1.0.255"), Resolution::NoRoute, "broadcast");
        assert_eq!(resolve(&next_hops, "2001:db8:1::2"), unresolved("lan0", "2001:db8:1::2"));
        assert_eq!(resolve(&next_hops, "2001:db8:2::1"), Resolution::NoRoute);
        assert_eq!(follower.counters().malformed, 0);
    });
}

/// Addresses are followed, in both families, with the routes the kernel makes of them.
#[test]
fn follows_addresses() {
    let Some(lab) = Lab::new() else { return };
    lab.run(|| {
        let mut follower = open();
        for (address, ours, other) in [
            ("10.1.0.1/24", "10.1.0.1", "10.1.0.2"),
            ("2001:db8:1::1/64", "2001:db8:1::1", "2001:db8:1::2"),
        ] {
            lab.gateway(&format!("addr add {address} dev lan0 nodad"));
            follow(&mut follower, ours, is(Resolution::Local));
            follow(&mut follower, other, is(unresolved("lan0", other)));
            lab.gateway(&format!("addr del {address} dev lan0"));
            follow(&mut follower, ours, is(Resolution::NoRoute));
            follow(&mut follower, other, is(Resolution::NoRoute));
        }
        assert_eq!(follower.counters().malformed, 0);
    });
}

/// Routes of every kind are followed through add, replace, change and delete.
#[test]
fn follows_routes() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.gateway("addr add 192.0.2.1/24 dev wan0");
    lab.gateway("addr add 2001:db8:1::1/64 dev lan0 nodad");
    lab.run(|| {
        let mut follower = open();
        let lan = || unresolved("lan0", "10.1.0.254");
        let wan = || unresolved("wan0", "192.0.2.254");
        let steps = [
            ("route add 10.2.0.0/16 via 192.0.2.254", wan()),
            ("route add 10.2.0.0/16 via 10.1.0.254 metric 50", wan()),
            ("route del 10.2.0.0/16 via 192.0.2.254", lan()),
            ("route add 10.2.3.0/24 dev wan0", unresolved("wan0", "10.2.3.4")),
            ("route replace 10.2.3.0/24 via 10.1.0.254", lan()),
            ("route change 10.2.3.0/24 via inet6 fe80::9 dev wan0", unresolved("wan0", "fe80::9")),
            ("route replace blackhole 10.2.3.4", Resolution::NoRoute),
            ("route replace unreachable 10.2.3.4", Resolution::NoRoute),
            ("route del unreachable 10.2.3.4", unresolved("wan0", "fe80::9")),
            ("route replace 10.2.3.0/24 nexthop via 10.1.0.254 nexthop via 192.0.2.254", lan()),
            ("link set lan0 down", wan()),
            ("link set lan0 up", lan()),
            ("route del 10.2.3.0/24", Resolution::NoRoute),
            ("route add 10.2.3.0/24 via 192.0.2.254 table 77", Resolution::NoRoute),
            ("nexthop add id 5 via 192.0.2.254 dev wan0", Resolution::NoRoute),
            ("route add 10.2.3.0/24 nhid 5", wan()),
            ("nexthop replace id 5 via 192.0.2.253 dev wan0", unresolved("wan0", "192.0.2.253")),
            ("nexthop del id 5", Resolution::NoRoute),
        ];
        for (command, expected) in steps {
            println!("{command}");
            lab.gateway(command);
            follow(&mut follower, "10.2.3.4", is(expected));
        }
        for (command, expected) in [
            ("-6 route add 2001:db8:2::/48 via fe80::7 dev wan0", unresolved("wan0", "fe80::7")),
            ("-6 route append 2001:db8:2::/48 via fe80::8 dev wan0", unresolved("wan0", "fe80::7")),
            ("-6 route del 2001:db8:2::/48 via fe80::7 dev wan0", unresolved("wan0", "fe80::8")),
            ("-6 route replace 2001:db8:2::/48 dev wan0", unresolved("wan0", "2001:db8:2::1")),
            ("-6 route replace blackhole 2001:db8:2::/48", Resolution::NoRoute),
            ("-6 route flush 2001:db8:2::/48", Resolution::NoRoute),
        ] {
            println!("{command}");
            lab.gateway(command);
            follow(&mut follower, "2001:db8:2::1", is(expected));
        }
        assert_eq!(follower.counters().malformed, 0);
    });
}

/// Links that go down or away take their routes with them, though the kernel does not say so.
#[test]
fn follows_links() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.gateway("addr add 192.0.2.1/24 dev wan0");
    lab.gateway("route add 10.1.0.0/16 via 192.0.2.254");
    lab.run(|| {
        // Else an IPv6 route that goes away with the link makes everything be read again.
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let mut follower = open();
        follow(&mut follower, "10.1.0.9", is(unresolved("lan0", "10.1.0.9")));
        lab.gateway("link set lan0 down");
        follow(&mut follower, "10.1.0.9", is(unresolved("wan0", "192.0.2.254")));
        lab.gateway("link set lan0 up");
        follow(&mut follower, "10.1.0.9", is(unresolved("lan0", "10.1.0.9")));
        lab.peer("link set lan1 down");
        follow(&mut follower, "10.1.0.9", is(Resolution::NoRoute));
        lab.peer("link set lan1 up");
        follow(&mut follower, "10.1.0.9", is(unresolved("lan0", "10.1.0.9")));
        lab.gateway("link del lan0");
        follow(&mut follower, "10.1.0.9", is(unresolved("wan0", "192.0.2.254")));
    });
}

/// A neighbour nobody knows is resolved on demand, by ARP and by neighbour discovery, and is asked
/// for at most once a second.
#[test]
fn resolves_neighbours() {
    let Some(lab) = Lab::new() else { return };
    for (address, peer) in [("10.1.0.1/24", "10.1.0.2/24"), ("2001:db8::1/64", "2001:db8::2/64")] {
        lab.gateway(&format!("addr add {address} dev lan0 nodad"));
        lab.peer(&format!("addr add {peer} dev lan1 nodad"));
    }
    lab.peer("link set lan1 address 02:00:00:00:00:02");
    lab.run(|| {
        let mut follower = open();
        for (seconds, address) in [(0, "10.1.0.2"), (9, "2001:db8::2")] {
            let now = Duration::from_secs(seconds);
            let asked_for = target("lan0", address);
            assert_eq!(resolve(&follower.snapshot(), address), Resolution::Unresolved(asked_for));
            assert!(follower.resolve(asked_for, now));
            assert!(!follower.resolve(asked_for, now + Duration::from_millis(999)));
            follow(&mut follower, address, reaches("02:00:00:00:00:02"));
            assert!(follower.resolve(asked_for, now + Duration::from_secs(1)));
        }
        let nobody = target("lan0", "10.1.0.77");
        assert!(follower.resolve(nobody, Duration::from_secs(20)));
        thread::sleep(Duration::from_millis(100));
        follower.poll().unwrap();
        assert_eq!(
            resolve(&follower.snapshot(), "10.1.0.77"),
            Resolution::Unresolved(nobody),
            "being resolved is not resolved"
        );
        let loopback = target("lo", "10.1.0.2");
        assert!(!follower.resolve(loopback, Duration::from_secs(30)), "not a link of ours");
        let counters = follower.counters();
        assert_eq!((counters.asked, counters.refused, counters.malformed), (5, 0, 0));
    });
}

/// More than a fixed number of different neighbours a second are not asked for.
#[test]
fn asks_for_a_bounded_number() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/16 dev lan0");
    lab.run(|| {
        let mut follower = open();
        let mut ask = |seconds, hosts: std::ops::Range<u8>| {
            let now = Duration::from_secs(seconds);
            let mut asked = 0;
            for (third, fourth) in (2..5).flat_map(|third| hosts.clone().map(move |n| (third, n))) {
                let address = IpAddr::from([10, 1, third, fourth]);
                let target = Target { interface: index("lan0"), address };
                asked += usize::from(follower.resolve(target, now));
            }
            asked
        };
        assert_eq!(ask(0, 0..200), culvert_control::kernel::MAX_ASKED);
        assert_eq!(ask(1, 0..10), 30);
    });
}

/// A neighbour's new MAC address is seen: when the kernel is told, and when a neighbour that fell
/// silent is checked by a refresh, found gone, and resolved again.
#[test]
fn follows_a_changed_mac_address() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.peer("addr add 10.1.0.2/24 dev lan1");
    lab.peer("link set lan1 address 02:00:00:00:00:02");
    lab.run(|| {
        for (setting, value) in [
            ("base_reachable_time_ms", "100"),
            ("delay_first_probe_time", "0"),
            ("retrans_time_ms", "50"),
        ] {
            fs::write(format!("/proc/sys/net/ipv4/neigh/lan0/{setting}"), value).unwrap();
        }
        let mut follower = open();
        let asked_for = target("lan0", "10.1.0.2");
        follower.resolve(asked_for, Duration::ZERO);
        follow(&mut follower, "10.1.0.2", reaches("02:00:00:00:00:02"));
        // By then the neighbour is stale; the kernel leaves it at that.
        thread::sleep(Duration::from_millis(500));

        lab.peer("link set lan1 address 02:00:00:00:00:03");
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut now = Duration::from_secs(1);
        while !matches!(resolve(&follower.snapshot(), "10.1.0.2"), Resolution::Unresolved(_)) {
            assert!(Instant::now() < deadline, "never found gone");
            follower.refresh(now);
            now += Duration::from_secs(5);
            thread::sleep(Duration::from_millis(50));
            follower.poll().unwrap();
        }
        follower.resolve(asked_for, now);
        follow(&mut follower, "10.1.0.2", reaches("02:00:00:00:00:03"));

        lab.gateway("neigh replace 10.1.0.2 lladdr 02:00:00:00:00:04 dev lan0 nud permanent");
        follow(&mut follower, "10.1.0.2", reaches("02:00:00:00:00:04"));
        lab.gateway("neigh del 10.1.0.2 dev lan0");
        follow(&mut follower, "10.1.0.2", is(unresolved("lan0", "10.1.0.2")));
    });
}

/// Stale neighbours are checked again in rounds, and not in between.
#[test]
fn refreshes_in_rounds() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    for host in 2..5 {
        lab.gateway(&format!(
            "neigh add 10.1.0.{host} lladdr 02:00:00:00:00:02 dev lan0 nud {}",
            if host == 4 { "permanent" } else { "stale" }
        ));
    }
    lab.run(|| {
        let mut follower = open();
        follower.refresh(Duration::from_secs(100));
        assert_eq!(follower.counters().asked, 2, "two are stale");
        follower.refresh(Duration::from_secs(114));
        assert_eq!(follower.counters().asked, 2, "the round is not over");
        follower.refresh(Duration::from_secs(115));
        assert_eq!(follower.counters().asked, 4, "the next round");
        follower.poll().unwrap();
        assert_eq!(follower.counters().refused, 0);
    });
}

/// A VLAN device on one of our interfaces leaves by its port with its tag, as soon as it exists.
#[test]
fn follows_vlan_devices() {
    let Some(lab) = Lab::new() else { return };
    if !lab.has_vlans() {
        eprintln!("SKIPPED: this kernel has no VLAN devices (8021q)");
        return;
    }
    lab.peer("link add link wan1 name wan1.12 type vlan id 12");
    lab.peer("link set wan1 address 02:00:00:00:00:12");
    lab.peer("link set wan1.12 address 02:00:00:00:00:12 up");
    lab.peer("addr add 10.12.0.2/24 dev wan1.12");
    lab.run(|| {
        let mut follower = open();
        lab.gateway("link add link wan0 name tagged type vlan id 12");
        lab.gateway("link set tagged up");
        lab.gateway("addr add 10.12.0.1/24 dev tagged");
        follow(&mut follower, "10.12.0.2", |found| matches!(found, Resolution::Unresolved(_)));
        assert!(follower.resolve(target("tagged", "10.12.0.2"), Duration::ZERO));
        follow(&mut follower, "10.12.0.2", reaches("02:00:00:00:00:12"));
        let Resolution::Reachable(hop) = resolve(&follower.snapshot(), "10.12.0.2") else {
            unreachable!("it was reached");
        };
        assert_eq!((hop.port, hop.vlan, hop.mtu), (Port(1), Some(12), 1500));
        lab.gateway("link set wan0 down");
        follow(&mut follower, "10.12.0.2", is(Resolution::NoRoute));
        assert_eq!(follower.counters().malformed, 0);
    });
}

/// Announcements lost because nobody read them are noticed, and everything is read again.
#[test]
fn recovers_from_an_overrun() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.run(|| {
        let mut follower = open();
        let mut lines = String::new();
        for number in 0..60_000u32 {
            let [_, _, third, fourth] = number.to_be_bytes();
            lines += &format!("route add 10.77.{third}.{fourth} via 10.1.0.254\n");
        }
        lab.batch(&lines);
        follow(&mut follower, "10.77.234.95", is(unresolved("lan0", "10.1.0.254")));
        assert!(
            follower.counters().overruns > 0,
            "the queue was long enough: {:?}",
            follower.counters()
        );
        follow(&mut follower, "10.77.0.0", is(unresolved("lan0", "10.1.0.254")));
        assert_eq!(follower.counters().malformed, 0);
    });
}

/// After any sequence of changes the follower knows the same as one that reads the kernel afresh.
#[test]
fn equals_a_fresh_reader() {
    let Some(lab) = Lab::new() else { return };
    lab.gateway("addr add 10.1.0.1/24 dev lan0");
    lab.gateway("addr add 192.0.2.1/24 dev wan0");
    lab.run(|| {
        let mut follower = open();
        let mut random = Random(20);
        for round in 0..120 {
            let commands: Vec<String> =
                (0..1 + random.below(6)).map(|_| random.command()).collect();
            lab.batch(&commands.join("\n"));
            let deadline = Instant::now() + PATIENCE;
            loop {
                follower.poll().unwrap();
                let (known, fresh) = (follower.snapshot(), open().snapshot());
                let differs = probes().find(|&probe| known.resolve(probe) != fresh.resolve(probe));
                let Some(probe) = differs else { break };
                assert!(
                    Instant::now() < deadline,
                    "round {round}, {commands:?}: {probe} is {:?}, we say {:?}",
                    fresh.resolve(probe),
                    known.resolve(probe)
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        let counters = follower.counters();
        println!("{counters:?}");
        assert_eq!((counters.malformed, counters.overruns), (0, 0));
    });
}

/// Destinations that the random commands make a difference to.
fn probes() -> impl Iterator<Item = IpAddr> {
    [
        "10.1.0.1",
        "10.1.0.2",
        "10.1.0.255",
        "192.0.2.1",
        "192.0.2.9",
        "10.2.0.1",
        "10.2.1.1",
        "10.3.0.1",
        "10.4.0.1",
        "198.51.100.1",
        "2001:db8:1::1",
        "2001:db8:1::2",
        "2001:db8:2::1",
        "2001:db8:2:1::1",
        "2001:db9::1",
    ]
    .into_iter()
    .map(|probe| probe.parse().unwrap())
}

/// A small generator of `ip` commands, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.below(choices.len())]
    }

    fn command(&mut self) -> String {
        let metric = self.pick(&["", "", " metric 7", " metric 9"]);
        let verb = self.pick(&["add", "replace", "append", "prepend", "change", "del", "del"]);
        match self.below(10) {
            0..4 => {
                let prefix = self.pick(&["10.2.0.0/16", "10.2.1.0/24", "10.3.0.0/16", "default"]);
                let hop = self.pick(&[
                    "via 10.1.0.2",
                    "via 192.0.2.9",
                    "dev lan0",
                    "dev wan0",
                    "via inet6 fe80::5 dev wan0",
                    "nexthop via 10.1.0.3 nexthop via 192.0.2.8",
                    "nexthop via 192.0.2.7 nexthop via 10.1.0.3",
                    "via 192.0.2.9 src 10.1.0.1",
                ]);
                format!("route {verb} {prefix} {hop}{metric}")
            }
            4..7 => {
                let prefix = self.pick(&["2001:db8:2::/48", "2001:db8:2:1::/64", "default"]);
                let hop = self.pick(&[
                    "via fe80::1 dev lan0",
                    "via fe80::2 dev wan0",
                    "dev lan0",
                    "dev wan0",
                    "nexthop via fe80::1 dev lan0 nexthop via fe80::2 dev wan0",
                ]);
                format!("-6 route {verb} {prefix} {hop}{metric}")
            }
            7 => {
                let verb = self.pick(&["add", "del"]);
                let address = self.pick(&["10.1.0.1/24 dev lan0", "192.0.2.1/24 dev wan0"]);
                let other = self.pick(&["2001:db8:1::1/64 dev lan0 nodad", "10.4.0.1/24 dev wan0"]);
                format!("addr {verb} {}", if self.below(2) == 0 { address } else { other })
            }
            8 => {
                let kind = self.pick(&["blackhole", "unreachable", "prohibit", "throw"]);
                format!("route {verb} {kind} 10.2.1.0/24{metric}")
            }
            _ => format!(
                "link set {} {}",
                self.pick(&["lan0", "wan0"]),
                self.pick(&["up", "up", "down"])
            ),
        }
    }
}
