//! The checked-in XDP object in the kernel: fixtures through `BPF_PROG_TEST_RUN`, agreement with
//! the pure decision, prefix maps, attaching and detaching.
//!
//! Needs root (CAP_BPF and CAP_NET_ADMIN; CAP_SYS_ADMIN for the one test with a network
//! namespace). Without, each test says on standard error that it was skipped, and passes.

#[path = "../../steer/tests/fixtures/mod.rs"]
mod fixtures;

use std::fs;
use std::io;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sched::unshare;

use culvert_steer::Class;
use culvert_steer::Counter;
use culvert_xdp::program::Action;
use culvert_xdp::program::Error;
use culvert_xdp::program::Mode;
use culvert_xdp::program::Prefix;
use culvert_xdp::program::Role;
use culvert_xdp::program::Steer;
use fixtures::Case;
use fixtures::Memory;
use fixtures::Side;

/// The kernel's least length for a test run.
const ETHERNET: usize = 14;

/// Every fixture, with and without a socket on its queue: action, class, and outcome.
#[test]
fn fixtures_in_the_kernel() {
    if skipped("fixtures_in_the_kernel") {
        return;
    }
    for socket in [None, Some(unbound_socket())] {
        let mut kernel = Kernel::load(socket.as_ref());
        for case in fixtures::cases() {
            for frame in &case.before {
                let _ = kernel.run(case.side, frame);
            }
            let (action, counted) = kernel.run(case.side, &case.frame);
            let class = Counter::Class(case.class);
            let (expected, outcome) = match (case.to_engine, socket.is_some()) {
                (false, _) => (Action::Pass, None),
                (true, false) => (Action::Drop, Some(Counter::NoSocket)),
                (true, true) => (Action::Redirect, Some(Counter::Redirected)),
            };
            assert_eq!(action, expected, "{}, socket {}", case.name, socket.is_some());
            let expected: Vec<_> = [Some(class), outcome].into_iter().flatten().collect();
            assert_eq!(counted, expected, "{}, socket {}", case.name, socket.is_some());
        }
    }
}

/// Every truncation of every fixture gets the class from the kernel that the pure decision gives.
#[test]
fn truncations_in_the_kernel() {
    if skipped("truncations_in_the_kernel") {
        return;
    }
    let mut kernel = Kernel::load(None);
    for case in fixtures::cases() {
        for length in ETHERNET..case.frame.len() {
            kernel.agrees(&case, &case.frame[..length]);
        }
    }
}

/// Fixtures with one octet changed in several ways get the class of the pure decision.
#[test]
fn changed_octets_in_the_kernel() {
    if skipped("changed_octets_in_the_kernel") {
        return;
    }
    let mut kernel = Kernel::load(None);
    for case in fixtures::cases() {
        for at in ETHERNET - 2..case.frame.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut frame = case.frame.clone();
                frame[at] ^= change;
                kernel.agrees(&case, &frame);
            }
        }
    }
}

/// Without a socket, before it is there and when it is closed again, what is for the engine is
/// dropped; queues beyond the map are refused.
#[test]
fn sockets_come_and_go() {
    if skipped("sockets_come_and_go") {
        return;
    }
    let mut steer = Steer::load(Role::Unprotected).unwrap();
    let frame = fixture("esp in v4");
    let socket = unbound_socket();
    assert!(matches!(steer.set_socket(64, &socket), Err(Error::QueueTooLarge { queue: 64 })));
    steer.set_socket(63, &socket).unwrap();
    assert_eq!(steer.decide(&frame).unwrap(), Action::Drop);
    steer.set_socket(0, &socket).unwrap();
    assert_eq!(steer.decide(&frame).unwrap(), Action::Redirect);
    drop(socket);
    assert_eq!(steer.decide(&frame).unwrap(), Action::Drop);
    let no_socket = fs::File::open("/dev/null").unwrap();
    assert!(matches!(steer.set_socket(0, no_socket), Err(Error::Map { .. })));
}

/// Prefixes and exceptions are replaced as sets, and a refused set changes nothing.
#[test]
fn prefixes_are_replaced() {
    if skipped("prefixes_are_replaced") {
        return;
    }
    let mut steer = Steer::load(Role::Protected).unwrap();
    let frames = [fixture("v4 hit"), fixture("v4 exception"), fixture("v6 hit")];
    let classes = |steer: &mut Steer| frames.each_ref().map(|frame| counted_class(steer, frame));
    let (hit4, hit6, miss) = (Class::Protected4, Class::Protected6, Class::NotProtected);

    assert_eq!(classes(&mut steer), [miss, miss, miss]);
    steer.set_prefixes(&[prefix("10.2.99.99", 16), prefix("2001:db8:2::", 48)]).unwrap();
    assert_eq!(classes(&mut steer), [hit4, hit4, hit6]);
    steer.set_exceptions(&[prefix("10.2.0.1", 32)]).unwrap();
    assert_eq!(classes(&mut steer), [hit4, miss, hit6]);
    assert!(steer.set_prefixes(&[prefix("10.9.0.0", 16), prefix("10.2.0.0", 33)]).is_err());
    assert_eq!(classes(&mut steer), [hit4, miss, hit6]);
    steer.set_prefixes(&[prefix("10.2.3.4", 32), prefix("10.2.0.1", 32)]).unwrap();
    assert_eq!(classes(&mut steer), [hit4, miss, miss]);
    steer.set_exceptions(&[]).unwrap();
    assert_eq!(classes(&mut steer), [hit4, hit4, miss]);
    steer.set_prefixes(&[]).unwrap();
    assert_eq!(classes(&mut steer), [miss, miss, miss]);
}

/// Prefixes, exceptions and own addresses of the unprotected side are sets of their own.
#[test]
fn unprotected_prefixes_are_replaced() {
    if skipped("unprotected_prefixes_are_replaced") {
        return;
    }
    let mut steer = Steer::load(Role::Unprotected).unwrap();
    let names = ["plain v4 tcp", "own address, tcp", "own address, ike", "plain v6 tcp"];
    let frames = names.map(fixture);
    let classes = |steer: &mut Steer| frames.each_ref().map(|frame| counted_class(steer, frame));
    let (plain4, plain6, other, ike) = (Class::Plain4, Class::Plain6, Class::Other, Class::Ike);
    let own: [IpAddr; 1] = ["10.2.0.1".parse().unwrap()];

    steer.set_prefixes(&[prefix("10.2.0.0", 16)]).unwrap();
    assert_eq!(classes(&mut steer), [other, other, ike, other]);
    steer.set_own_addresses(&own).unwrap();
    assert_eq!(classes(&mut steer), [other, other, ike, other]);
    steer.set_unprotected_prefixes(&[prefix("10.2.0.0", 16), prefix("::", 0)]).unwrap();
    assert_eq!(classes(&mut steer), [plain4, plain4, ike, plain6]);
    steer.set_own_addresses(&[]).unwrap();
    assert_eq!(classes(&mut steer), [plain4, plain4, plain4, plain6]);
    steer.set_unprotected_exceptions(&[prefix("10.2.0.1", 32)]).unwrap();
    assert_eq!(classes(&mut steer), [plain4, other, ike, plain6]);
    steer.set_own_addresses(&own).unwrap();
    assert_eq!(classes(&mut steer), [plain4, other, ike, plain6]);
    assert!(steer.set_unprotected_prefixes(&[prefix("::", 129)]).is_err());
    steer.set_unprotected_prefixes(&[]).unwrap();
    assert_eq!(classes(&mut steer), [other, other, ike, other]);
}

/// When everything is taken, what no prefix holds is the engine's on both sides, link-local
/// addresses of IPv4 included; own and broadcast addresses, and what is not forwarded by its
/// nature, stay with the kernel.
#[test]
fn everything_is_taken_in_the_kernel() {
    if skipped("everything_is_taken_in_the_kernel") {
        return;
    }
    let to = |destination: [u8; 4]| {
        let mut frame = fixture("v4 hit");
        frame[30..34].copy_from_slice(&destination);
        frame
    };
    let anywhere = [to([198, 51, 100, 7]), to([169, 254, 7, 7]), fixture("v6 hit")];
    let ours = [to([192, 0, 2, 1]), to([192, 0, 2, 255])];
    let special = [to([224, 0, 0, 5]), to([255; 4])];
    let addresses = |texts: &[&str]| -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let own = addresses(&["192.0.2.1"]);
    for (role, taken, left) in [
        (Role::Protected, [Class::Protected4, Class::Protected6], Class::NotProtected),
        (Role::Unprotected, [Class::Plain4, Class::Plain6], Class::Other),
    ] {
        let mut steer = Steer::load(role).unwrap();
        steer.set_exceptions(&[prefix("192.0.2.1", 32)]).unwrap();
        steer.set_own_addresses(&own).unwrap();
        let all = anywhere.iter().chain(&ours).chain(&special);
        assert!(all.clone().all(|frame| steer.decide(frame).unwrap() == Action::Pass), "{role:?}");
        steer.set_everything(Some(&addresses(&["192.0.2.255"]))).unwrap();
        let classes = anywhere.each_ref().map(|frame| counted_class(&mut steer, frame));
        assert_eq!(classes, [taken[0], taken[0], taken[1]], "{role:?}");
        for frame in &anywhere {
            assert_eq!(steer.decide(frame).unwrap(), Action::Drop, "{role:?}");
        }
        for frame in ours.iter().chain(&special) {
            assert_eq!(counted_class(&mut steer, frame), left, "{role:?}");
        }
        steer.set_everything(None).unwrap();
        assert!(all.clone().all(|frame| steer.decide(frame).unwrap() == Action::Pass), "{role:?}");
    }
}

/// The memory of fragments holds as many datagrams as it says, and forgets old ones for new ones.
#[test]
fn fragments_are_remembered_and_evicted() {
    if skipped("fragments_are_remembered_and_evicted") {
        return;
    }
    let mut steer = Steer::load(Role::Unprotected).unwrap();
    let names = ["v6 first fragment of udp esp", "v6 last fragment of unknown udp"];
    let [first, last] = names.map(|name| {
        let template = fixture(name);
        move |id: u32| {
            let mut frame = template.clone();
            frame[14 + 40 + 4..14 + 40 + 8].copy_from_slice(&id.to_be_bytes());
            frame
        }
    });
    for id in 0..100 {
        assert_eq!(counted_class(&mut steer, &first(id)), Class::IpsecFragment);
    }
    for id in 0..100 {
        assert_eq!(counted_class(&mut steer, &last(id)), Class::IpsecFragment, "{id}");
    }
    assert_eq!(counted_class(&mut steer, &last(100)), Class::Fragment);
    let many = 2 * culvert_steer::map::MAX_FRAGMENTS;
    for id in 100..many {
        steer.decide(&first(id)).unwrap();
    }
    assert_eq!(counted_class(&mut steer, &last(many - 1)), Class::IpsecFragment);
    assert_eq!(counted_class(&mut steer, &last(0)), Class::Fragment);
}

/// The programs for laboratories pass, reflect, and count what they drop.
#[test]
fn helpers_do_what_they_say() {
    if skipped("helpers_do_what_they_say") {
        return;
    }
    let frame = fixture("esp in v4");
    for (role, action, discarded) in [
        (Role::Pass, Action::Pass, 0),
        (Role::Reflect, Action::Transmit, 0),
        (Role::Discard, Action::Drop, 1),
    ] {
        let mut steer = Steer::load(role).unwrap();
        assert_eq!(steer.decide(&frame).unwrap(), action);
        let row = steer.counters(1).unwrap()[0];
        assert_eq!(row[Counter::Discarded], discarded);
        assert_eq!(row.iter().map(|(_, count)| count).sum::<u64>(), discarded);
    }
}

/// On real interfaces: modes, refusal of a second program with advice, detaching on drop, and
/// generated frames arriving at a sink.
#[test]
fn attaching_in_a_namespace() {
    if skipped("attaching_in_a_namespace") {
        return;
    }
    // The namespace belongs to this thread and goes away with it.
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add near numrxqueues 1 type veth peer name far numrxqueues 1");
        ip("link set near up");
        ip("link set far up");
        second_programs_are_refused();
        drop_detaches();
        generated_frames_arrive();
        large_mtu_is_explained();
    });
    thread.join().unwrap();
}

fn second_programs_are_refused() {
    for (mode, other) in [(Mode::Native, Mode::Generic), (Mode::Generic, Mode::Native)] {
        let mut first = Steer::load(Role::Unprotected).unwrap();
        let mut second = Steer::load(Role::Protected).unwrap();
        assert!(matches!(first.attach("none", mode), Err(Error::NoInterface { .. })));
        first.attach("near", mode).unwrap();
        assert!(matches!(first.attach("far", mode), Err(Error::Attached { .. })));
        for mode in [mode, other] {
            let error = second.attach("near", mode).unwrap_err();
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            assert!(error.to_string().contains("`ip link set dev near xdp off`"), "{error}");
        }
        first.detach().unwrap();
        second.attach("near", other).unwrap();
    }
}

fn drop_detaches() {
    let mut steer = Steer::load(Role::Unprotected).unwrap();
    steer.attach("near", Mode::Native).unwrap();
    assert!(ip("link show dev near").contains("prog/xdp"));
    drop(steer);
    assert!(!ip("link show dev near").contains("xdp"));
}

fn generated_frames_arrive() {
    let frame = fixture("udp to 500");
    let mut sink = Steer::load(Role::Discard).unwrap();
    sink.attach("far", Mode::Native).unwrap();
    let before = sink.counters(1).unwrap()[0][Counter::Discarded];
    Steer::load(Role::Reflect).unwrap().generate("near", &frame, 1000).unwrap();
    let arrived = || sink.counters(1).unwrap()[0][Counter::Discarded] - before;
    for _ in 0..100 {
        if arrived() >= 1000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(arrived() >= 1000, "{} of 1000 frames arrived", arrived());
}

fn large_mtu_is_explained() {
    ip("link set near mtu 9000");
    ip("link set far mtu 9000");
    let mut steer = Steer::load(Role::Unprotected).unwrap();
    let error = steer.attach("near", Mode::Native).unwrap_err();
    assert!(matches!(error, Error::MtuTooLarge { .. }), "{error}");
    steer.attach("near", Mode::Generic).unwrap();
}

/// One loaded program for each side, with what the pure decision remembers of the same frames.
struct Kernel([(Steer, Memory); Side::ALL.len()]);

impl Kernel {
    fn load(socket: Option<&OwnedFd>) -> Kernel {
        Kernel(Side::ALL.map(|side| {
            let mut steer = if side.is_protected() {
                let mut steer = Steer::load(Role::Protected).unwrap();
                steer.set_prefixes(&side.protected()).unwrap();
                steer.set_exceptions(&side.exceptions()).unwrap();
                steer
            } else {
                let mut steer = Steer::load(Role::Unprotected).unwrap();
                let own: Vec<IpAddr> = side.own().into_iter().map(|(address, _)| address).collect();
                // An own address that nothing protects is nothing special.
                let others = ["192.0.2.2".parse().unwrap(), "2001:db8:9::2".parse().unwrap()];
                let own =
                    if side == Side::UnprotectedAll { own } else { [own, others.into()].concat() };
                steer.set_own_addresses(&own).unwrap();
                steer.set_unprotected_prefixes(&side.protected()).unwrap();
                steer.set_unprotected_exceptions(&side.exceptions()).unwrap();
                steer
            };
            if let Some(socket) = socket {
                steer.set_socket(0, socket).unwrap();
            }
            (steer, Memory::default())
        }))
    }

    fn side(&mut self, side: Side) -> &mut (Steer, Memory) {
        let index = Side::ALL.iter().position(|other| *other == side).unwrap();
        &mut self.0[index]
    }

    /// What the program of `side` does with `frame`, and which counters grew, by one each.
    fn run(&mut self, side: Side, frame: &[u8]) -> (Action, Vec<Counter>) {
        let (steer, _) = self.side(side);
        let before = steer.counters(1).unwrap()[0];
        let action = steer.decide(frame).unwrap();
        let after = steer.counters(1).unwrap()[0];
        let grown = after.iter().filter(|(counter, value)| {
            let growth = value - before[*counter];
            assert!(growth <= 1, "{} grew by {growth}", counter.name());
            growth == 1
        });
        (action, grown.map(|(counter, _)| counter).collect())
    }

    /// Asserts that the program (without a socket) and the pure decision agree about `frame` of
    /// a case, after the frames that come before it.
    fn agrees(&mut self, case: &Case, frame: &[u8]) {
        for frame in case.before.iter().map(Vec::as_slice).chain([frame]) {
            let (_, memory) = self.side(case.side);
            let decision = case.side.decide(frame, memory);
            let mut expected = vec![Counter::Class(decision.class)];
            let mut expected_action = Action::Pass;
            if decision.redirect() {
                expected.push(Counter::NoSocket);
                expected_action = Action::Drop;
            }
            let (action, counted) = self.run(case.side, frame);
            let name = case.name;
            assert_eq!((action, counted), (expected_action, expected), "{name}: {frame:02x?}");
        }
    }
}

/// The class under which the program counts the frame.
fn counted_class(steer: &mut Steer, frame: &[u8]) -> Class {
    let before = steer.counters(1).unwrap()[0];
    steer.decide(frame).unwrap();
    let after = steer.counters(1).unwrap()[0];
    let grown = |class: &Class| after[Counter::Class(*class)] > before[Counter::Class(*class)];
    Class::ALL.into_iter().find(grown).unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    fixtures::cases().into_iter().find(|case| case.name == name).unwrap().frame
}

fn prefix(address: &str, bits: u8) -> Prefix {
    (address.parse::<IpAddr>().unwrap(), bits)
}

/// An `AF_XDP` socket; unbound, it is enough for the socket map and for the action.
fn unbound_socket() -> OwnedFd {
    // SAFETY: the call takes numbers only. Why not safe: nix does not know the address family.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just opened this descriptor for us and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(socket) }
}

/// Runs `ip` in the calling thread's network namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "ip {arguments}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// True, and said loudly, when the process may not load XDP programs.
fn skipped(test: &str) -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_BPF: u64 = 1 << 39;
    let needed = CAP_BPF | CAP_NET_ADMIN | CAP_SYS_ADMIN;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    if u64::from_str_radix(effective.trim(), 16).unwrap() & needed == needed {
        return false;
    }
    // The stream itself, as the test harness keeps what the printing macros write.
    let text = format!("\n*** SKIPPED {test}: it needs root to load XDP programs ***\n");
    io::stderr().write_all(text.as_bytes()).unwrap();
    true
}
