//! What a program sees of its sockets, and what it cannot do to the launcher.

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

/// Sockets have the names that netlink sockets have, and datagrams come from port 0.
#[test]
fn addresses_look_like_those_of_netlink() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
a, b, c = xfrm(), xfrm(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK), xfrm()
assert a.getsockname() == (0, 0), a.getsockname()
a.bind((0, 0xc3))
assert a.getsockname() == (os.getpid(), 0xc3), a.getsockname()
b.bind((0, 0))
assert b.getsockname()[0] not in (0, os.getpid())
try:
    c.bind((os.getpid(), 0))
    raise SystemExit("two sockets with a port")
except OSError as error:
    assert error.errno == errno.EADDRINUSE, error
a.close()
c.bind((os.getpid(), 0))
assert not os.get_blocking(b.fileno()) and not os.get_inheritable(b.fileno())
c.connect((0, 0))
assert ask(c, flush(1)) == 0
c.send(flush(2))
address, length = ctypes.create_string_buffer(64), ctypes.c_uint32(64)
buffer = ctypes.create_string_buffer(4096)
assert libc.recvfrom(c.fileno(), buffer, 4096, 0, address, ctypes.byref(length)) == 36
assert length.value == 12 and address.raw[4:8] == bytes(4), address.raw[:12]
# To the kernel's address, as libnetlink sends it.
to = struct.pack("=HHII", 16, 0, 0, 0)
assert libc.sendto(c.fileno(), flush(3), 20, 0, to, 12) == 20
assert c.recv(100, socket.MSG_PEEK) == c.recv(100)
"#,
    ));
    assert_eq!(engine.state().requests, [Kind::FLUSHSA; 3]);
}

/// Groups are joined at bind and one by one, and the engine knows.
#[test]
fn groups_are_told_to_the_engine() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
s = xfrm()
s.bind((0, 3))
for option in (10, 11, 12):
    s.setsockopt(270, option, 1)
assert ask(s, flush(1)) == 0
s.setsockopt(270, 1, 8)
s.setsockopt(270, 2, 1)
assert s.getsockname()[1] == 0x82
assert ask(s, flush(2)) == 0
"#,
    ));
    let binds: Vec<u32> = engine.state().binds.iter().map(|bind| bind.1).collect();
    assert_eq!((binds.first(), binds.last()), (Some(&3), Some(&0x82)));
}

/// Copies of a socket, and those of children, are the same socket.
#[test]
fn copies_and_children_share_a_socket() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
s = xfrm()
copy = socket.socket(fileno=os.dup(s.fileno()))
s.close()
if os.fork() == 0:
    copy.bind((0, 2))
    os._exit(ask(copy, flush(1)))
assert os.wait()[1] == 0
assert copy.getsockname() == (os.getpid(), 2), copy.getsockname()
assert ask(copy, flush(2)) == 0
child = os.fork()
if child == 0:
    own = xfrm()
    own.bind((0, 0))
    assert own.getsockname()[0] == os.getpid()
    os._exit(ask(own, flush(3)))
assert os.wait()[1] == 0
"#,
    ));
    assert_eq!(engine.state().requests, [Kind::FLUSHSA; 3]);
    eventually("connections end", || engine.state().connections == 0);
}

/// Options that would let the kernel take part in IPsec are not set, and say that they were.
#[test]
fn the_kernel_is_kept_out_of_ike_sockets() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    succeed(place.script(
        r#"
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("127.0.0.1", 0))
u.setsockopt(17, 100, 2)
assert u.getsockopt(17, 100) == 0, "ESP in UDP would go to the kernel"
u.setsockopt(0, 17, bytes(168))
v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
v.setsockopt(41, 35, bytes(168))
# Others work as ever.
u.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
assert u.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
route.bind((0, 0))
assert route.getsockname()[0] != 0
t = socket.socket()
t.bind(("127.0.0.1", 0))
t.listen()
socket.create_connection(t.getsockname()).close()
assert libc.syscall(425, 1, 0) == -1 and ctypes.get_errno() == errno.ENOSYS
"#,
    ));
}

/// What a program sends that is not a request is treated as the kernel does, and what only the
/// launcher may say does not reach the engine.
#[test]
fn only_requests_reach_the_engine() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
s = xfrm()
s.send(b"")
s.send(b"short")
s.send(struct.pack("=IHHII", 4000, FLUSHSA, 5, 1, 0))
assert ask(s, message(0xf001, 2, body=struct.pack("=II", 1, 0xff))) == errno.EINVAL
# A whole message, and half of one behind it.
assert ask(s, flush(3) + flush(4)[:12]) == 0
# Two requests in a datagram have two answers.
s.send(flush(5) + flush(6))
assert [status(s.recv(4096), seq) for seq in (5, 6)] == [0, 0]
# More than fits.
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
try:
    s.send(message(FLUSHSA, 7, body=bytes(300_000)))
    assert status(s.recv(4096), 7) == errno.ENOBUFS
except OSError as error:
    assert error.errno in (errno.EMSGSIZE, errno.ENOBUFS), error
assert ask(s, flush(8)) == 0
s.shutdown(socket.SHUT_WR)
"#,
    ));
    assert_eq!(engine.state().requests, [Kind::FLUSHSA; 4]);
    assert!(engine.state().binds.iter().all(|bind| bind.1 == 0));
}

/// Pointers that lead nowhere are an error of the call, and of nothing else.
#[test]
fn garbage_is_an_error_of_the_call() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let _engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
s = xfrm()
fd = s.fileno()
def fails(number, call, *arguments):
    ctypes.set_errno(0)
    assert call(*arguments) == -1 and ctypes.get_errno() == number, (arguments, ctypes.get_errno())
P = ctypes.c_void_p
length = ctypes.c_uint32(12)
for pointer in (0, 1, 0x7fff_ffff_f000, 2**64 - 4, 2**63):
    fails(errno.EFAULT, libc.bind, fd, P(pointer), 12)
    fails(errno.EFAULT, libc.connect, fd, P(pointer), 12)
    fails(errno.EFAULT, libc.getsockname, fd, P(pointer), ctypes.byref(length))
    fails(errno.EFAULT, libc.getsockname, fd, ctypes.byref(length), P(pointer))
    fails(errno.EFAULT, libc.setsockopt, fd, 270, 1, P(pointer), 4)
name = struct.pack("=HHII", 16, 0, 0, 1)
for size in (0, 11, 129, -1, -2**31):
    fails(errno.EINVAL, libc.bind, fd, name, size)
fails(errno.EINVAL, libc.bind, fd, struct.pack("=HHII", 1, 0, 0, 0), 12)
fails(errno.EINVAL, libc.setsockopt, fd, 270, 1, struct.pack("=I", 99), 4)
fails(errno.ENOPROTOOPT, libc.setsockopt, fd, 270, -1, struct.pack("=I", 1), 4)
fails(errno.EINVAL, libc.getsockname, fd, name, struct.pack("=i", -1))
for other in (-1, 9999, 2**31 - 1):
    fails(errno.EBADF, libc.bind, other, name, 12)
fails(errno.ESOCKTNOSUPPORT, libc.socket, 16, 1, 6)
room = ctypes.c_uint32(5)
short = ctypes.create_string_buffer(b"\xff" * 12, 12)
assert libc.getsockname(fd, short, ctypes.byref(room)) == 0
assert room.value == 12 and short.raw == b"\x10\0\0\0\0" + b"\xff" * 7, short.raw
assert ask(s, flush(1)) == 0
"#,
    ));
}

/// Threads that open, bind and close the same descriptors against each other, and processes that
/// die in the middle of a call, do no harm to others.
#[test]
fn racing_threads_do_no_harm() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    let stdout = succeed(place.script(
        r#"
stop = time.monotonic() + 1.5
name = struct.pack("=HHII", 16, 0, 0, 3)
def race():
    while time.monotonic() < stop:
        fd = libc.socket(16, 3, 6)
        libc.bind(fd, name, 12)
        libc.send(fd, flush(1), 20, 0x40)
        libc.close(fd + int.from_bytes(os.urandom(1), "little") % 3 - 1 if fd > 12 else fd)
        libc.close(fd)
keep = xfrm()
os.dup2(keep.fileno(), 900)
threads = [threading.Thread(target=race) for _ in range(4)]
for thread in threads: thread.start()
while time.monotonic() < stop:
    child = os.fork()
    if child == 0:
        while True:
            fd = libc.socket(16, 3, 6)
            libc.bind(fd, name, 12)
            libc.close(fd)
    time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
for thread in threads: thread.join()
keep = socket.socket(fileno=900)
assert ask(keep, flush(2)) == 0
os.closerange(3, 800)
say("alive")
"#,
    ));
    assert_eq!(stdout.trim(), "alive");
    eventually("connections end", || engine.state().connections == 0);
}

/// Hundreds of sockets leave nothing behind in the supervisor.
#[test]
fn closed_sockets_leave_nothing_behind() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    succeed(place.script(
        r#"
supervisor = f"/proc/{os.environ['CULVERT_EXEC']}"
def count():
    return len(os.listdir(supervisor + "/fd")), len(os.listdir(supervisor + "/task"))
before = count()
assert before[1] == 1, before
for turn in range(4):
    sockets = [xfrm() for _ in range(50)]
    for s in sockets:
        s.bind((0, 1))
        assert ask(s, flush(1)) == 0
    assert count()[0] >= before[0] + 50
    for s in sockets: s.close()
for _ in range(200):
    if count() == before: break
    time.sleep(0.01)
assert count() == before, (before, count())
"#,
    ));
    assert_eq!(engine.state().requests.len(), 200);
}

/// A program that does not read its events costs the launcher one of them, not memory.
#[test]
fn events_that_nobody_reads_are_not_hoarded() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    let mut program = place.dialogue(
        r#"
s = xfrm()
s.bind((0, 2))
say("bound")
assert hear() == "read"
size = os.stat(f"/proc/{os.environ['CULVERT_EXEC']}/statm")
pages = int(open(f"/proc/{os.environ['CULVERT_EXEC']}/statm").read().split()[1])
assert pages < 16384, pages
s.settimeout(5)
first = s.recv(4096)
assert header(first)[1] == 0x1b, first
say("read")
"#,
    );
    engine.await_groups(2);
    let policy = PolicyInfo::read(&[0; PolicyInfo::LEN]).unwrap();
    for _ in 0..20_000 {
        let event = PolicyExpire { policy, hard: 0 };
        engine.tell(2, Body::PolicyExpire(event, Attributes::default()));
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    use std::io::Write as _;
    program.stdin.take().unwrap().write_all(b"read\n").unwrap();
    // An engine that waits for its subscribers stops being read here; end it first.
    drop(engine);
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Requests that the engine does not take make the program wait, and arrive later.
#[test]
fn a_slow_engine_gets_all_requests() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    engine.state().stuck = true;
    let mut command = place.script(
        r#"
s = xfrm()
def later():
    time.sleep(0.5)
    say("late")
threading.Thread(target=later).start()
count = 3000
def send():
    for seq in range(1, count + 1): s.send(flush(seq))
sender = threading.Thread(target=send)
sender.start()
for seq in range(1, count + 1): assert status(s.recv(4096), seq) == 0
sender.join()
"#,
    );
    let program = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    engine.state().stuck = false;
    assert!(program.wait_with_output().unwrap().status.success());
    assert_eq!(engine.state().requests.len(), 3000);
}

/// A program of 32 bits cannot get a socket of the kernel's XFRM.
#[test]
fn programs_of_32_bits_get_no_socket() {
    let Some(place) = Place::for_programs(&["gcc"]) else { return };
    let source = place.directory().join("old.c");
    let program = place.directory().join("old");
    // The old way into the kernel, which programs of 64 bits have as well.
    let text = r#"
int main(void) {
    long direct, call;
    static unsigned arguments[3] = { 16, 3, 6 };
    if (sizeof(void *) == 8 && (unsigned long)arguments >> 32) return 9;
    __asm__ volatile ("int $0x80" : "=a"(direct) : "a"(359), "b"(16), "c"(3), "d"(6) : "memory");
    __asm__ volatile ("int $0x80" : "=a"(call) : "a"(102), "b"(1), "c"(arguments) : "memory");
    return (int)direct == -97 && (int)call == -97 ? 0 : 1;
}
"#;
    std::fs::write(&source, text).unwrap();
    let build = std::process::Command::new("gcc")
        .args(["-no-pie", "-fno-pie", "-o"])
        .args([&program, &source])
        .output()
        .unwrap();
    if !build.status.success() {
        eprintln!("SKIPPED: this machine has no 32-bit calls: {build:?}");
        return;
    }
    let (status, _, stderr) = finish(place.command(&[program.to_str().unwrap()]));
    if status == 139 || status == -1 {
        eprintln!("SKIPPED: this kernel has no 32-bit calls");
        return;
    }
    assert_eq!(status, 0, "{stderr}");
}
