//! Engines that are absent, die, and come back.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::time::Duration;
use std::time::Instant;

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::event::PolicyExpire;
use culvert_xfrm::header::Kind;
use culvert_xfrm::policy::PolicyInfo;

use crate::engine::Engine;
use crate::engine::eventually;
use crate::program::Place;
use crate::program::finish;
use crate::program::succeed;

/// Without an engine, requests fail at once, lists among them, and nothing reaches the kernel.
#[test]
fn without_an_engine_requests_fail_at_once() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let allocate = [
        "ip",
        "xfrm",
        "state",
        "allocspi",
        "src",
        "192.0.2.1",
        "dst",
        "192.0.2.2",
        "proto",
        "esp",
        "mode",
        "tunnel",
    ];
    for command in [&["ip", "xfrm", "state"][..], &["ip", "xfrm", "state", "flush"], &allocate] {
        let start = Instant::now();
        let (status, _, stderr) = finish(place.command(command));
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_ne!(status, 0);
        assert!(stderr.contains("Network is down"), "{stderr}");
        assert!(stderr.contains("no engine at"), "{stderr}");
    }
}

/// With an engine required, nothing is started without it; with one that comes in time, it is.
#[test]
fn an_engine_may_be_required_and_waited_for() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let with = |options: &[&str]| {
        let mut command = place.command(&["sh", "-c", "echo started"]);
        let rest: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = std::process::Command::new(crate::program::CULVERT);
        command.arg("exec").args(options).args(&rest[1..]);
        command
    };
    let (status, stdout, stderr) = finish(with(&["--require-engine"]));
    assert_eq!((status, stdout.as_str()), (125, ""));
    let path = place.socket();
    let said = format!("culvert exec: no engine at {}: No such file or directory", path.display());
    assert_eq!(stderr.trim(), said);
    let waiting = with(&["--require-engine", "--wait", "10"]);
    let waiting = std::thread::spawn(|| succeed(waiting));
    std::thread::sleep(Duration::from_millis(200));
    let _engine = Engine::start(&path);
    assert_eq!(waiting.join().unwrap().trim(), "started");
}

/// A script, line by line.
struct Dialogue {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Dialogue {
    fn new(mut child: Child) -> Dialogue {
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Dialogue { child, input, output }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Every request that an engine took and did not answer is answered when it dies, in order, lists
/// and single questions alike.
#[test]
fn requests_in_flight_are_answered_when_the_engine_dies() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    engine.state().silent = true;
    let mut program = Dialogue::new(place.dialogue(
        r#"
s = xfrm()
s.bind((0, 0))
s.send(flush(1))
s.send(message(GETSA, 2, REQUEST | DUMP, b""))
s.send(message(GETSADINFO, 3, REQUEST, bytes(4)))
s.send(flush(4) + message(DELSA, 5))
s.settimeout(5)
for seq in (1, 2, 3, 4, 5):
    answer = s.recv(4096)
    assert status(answer, seq) == errno.ENETDOWN
    assert header(answer)[4] == os.getpid() and struct.unpack_from("=IHHI", answer, 20)[3] == seq
say("answered")
s.settimeout(0.2)
try:
    raise SystemExit(s.recv(4096))
except TimeoutError:
    pass
# Nobody is there.
s.settimeout(5)
assert ask(s, flush(6)) == errno.ENETDOWN
s.send(message(GETSA, 7, REQUEST | DUMP, b""))
assert status(s.recv(4096), 7) == errno.ENETDOWN
say("down")
hear()
assert ask(s, flush(8)) == 0
"#,
    ));
    eventually("requests", || engine.state().requests.len() == 5);
    drop(engine);
    assert_eq!(program.hear(), "answered");
    assert_eq!(program.hear(), "down");
    let engine = Engine::start(&place.socket());
    program.say("again");
    program.end();
    assert_eq!(engine.state().requests, [Kind::FLUSHSA]);
}

/// Poll and epoll see neither hang-up nor readiness when the engine dies, and events arrive at the
/// same descriptor after it is back: port and groups are told to it again.
#[test]
fn a_restart_is_invisible_to_poll_and_epoll() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let mut engine = Engine::start(&place.socket());
    let mut program = Dialogue::new(place.dialogue(
        r#"
s = xfrm()
s.bind((0, 0x3))
p, e, edge = select.poll(), select.epoll(), select.epoll()
everything = select.POLLIN | select.POLLPRI | select.POLLRDHUP
p.register(s, everything)
e.register(s, select.EPOLLIN | select.EPOLLRDHUP)
edge.register(s, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
edge.poll(0)
say("ready")
while hear() == "quiet?":
    say([p.poll(0), e.poll(0), edge.poll(0)])
    assert hear() == "event?"
    assert e.poll(5) == [(s.fileno(), select.EPOLLIN)]
    assert p.poll(0) == [(s.fileno(), select.POLLIN)]
    assert edge.poll(0) == [(s.fileno(), select.EPOLLIN)]
    say(header(s.recv(4096))[1])
"#,
    ));
    assert_eq!(program.hear(), "ready");
    let port = program.child.id();
    let policy = PolicyInfo::read(&[0; PolicyInfo::LEN]).unwrap();
    for _ in 0..3 {
        engine.await_groups(3);
        assert_eq!(engine.state().binds, [(port, 3)]);
        drop(engine);
        std::thread::sleep(Duration::from_millis(150));
        program.say("quiet?");
        assert_eq!(program.hear(), "[[], [], []]");
        engine = Engine::start(&place.socket());
        engine.await_groups(3);
        let expire = PolicyExpire { policy, hard: 0 };
        engine.tell(2, Body::PolicyExpire(expire, Attributes::default()));
        program.say("event?");
        assert_eq!(program.hear(), Kind::POLEXPIRE.0.to_string());
    }
    program.say("end");
    program.end();
}

/// An engine that takes connections and drops them at once is as good as none.
#[test]
fn an_engine_that_drops_connections_is_none() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let mut program = Dialogue::new(place.dialogue(
        r#"
s = xfrm()
s.settimeout(5)
hear()
for seq in range(1, 20):
    assert ask(s, flush(seq)) == errno.ENETDOWN
"#,
    ));
    let listener = refusing(&place);
    program.say("now");
    program.end();
    drop(listener);
}

/// A listener that closes every connection, after what it was sent or before.
fn refusing(place: &Place) -> std::os::unix::net::UnixListener {
    use nix::sys::socket as net;
    use std::os::fd::AsRawFd as _;
    let kind = net::SockType::SeqPacket;
    let flags = net::SockFlag::SOCK_CLOEXEC;
    let fd = net::socket(net::AddressFamily::Unix, kind, flags, None).unwrap();
    let address = net::UnixAddr::new(&place.socket()).unwrap();
    net::bind(fd.as_raw_fd(), &address).unwrap();
    net::listen(&fd, net::Backlog::new(8).unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::from(fd);
    let accepting = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for (turn, connection) in accepting.incoming().enumerate() {
            if turn % 2 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(connection);
        }
    });
    listener
}
