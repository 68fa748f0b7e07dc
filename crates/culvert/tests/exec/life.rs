//! Signals, exit status, and the processes and files that are left.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::engine::eventually;
use crate::program::Place;
use crate::program::finish;
use crate::program::succeed;

/// Whether a process is there, and not dead.
fn is_alive(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// The exit status is the command's own, or says why there was none.
#[test]
fn the_exit_status_is_the_commands() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let status = |command: &[&str]| finish(place.command(command)).0;
    assert_eq!(status(&["sh", "-c", "exit 0"]), 0);
    assert_eq!(status(&["sh", "-c", "exit 37"]), 37);
    assert_eq!(status(&["/no/such/program"]), 127);
    assert_eq!(status(&["/dev/null"]), 126);
    let mut killed = place.command(&["sh", "-c", "kill -USR1 $$"]);
    assert_eq!(killed.status().unwrap().signal(), Some(10));
}

/// The command is the process that was started: it gets the signals, it has the terminal and the
/// parent, it has no child but its own, and no descriptor of the launcher. So it may tell systemd
/// that it is ready.
#[test]
fn the_command_is_the_process_that_was_started() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let path = place.directory().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = place.script(
        r#"
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), os.environ["NOTIFY_SOCKET"])
children = [p for p in os.listdir("/proc") if p.isdigit()]
def parent(p):
    try: return int(open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[1])
    except OSError: return 0
say(os.getppid(), os.getpgrp(), [p for p in children if parent(p) == os.getpid()])
say([fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
     and os.readlink(f"/proc/self/fd/{fd}").startswith("anon_inode")])
for name in ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT"):
    number = getattr(signal, "SIG" + name)
    signal.signal(number, lambda number, frame: say(signal.Signals(number).name))
say("ready")
while True:
    signal.pause()
"#,
    );
    command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let process = Pid::from_raw(child.id().try_into().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut buffer = [0; 100];
    let len = notify.recv(&mut buffer).unwrap();
    let notice = String::from_utf8_lossy(&buffer[..len]).into_owned();
    assert_eq!(notice, format!("READY=1\nMAINPID={process}"));
    let group = nix::unistd::getpgrp();
    assert_eq!(lines.next().unwrap(), format!("{} {group} []", std::process::id()));
    assert_eq!(lines.next().unwrap(), "[]");
    assert_eq!(lines.next().unwrap(), "ready");
    for signal in [
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        kill(process, signal).unwrap();
        assert_eq!(lines.next().unwrap(), signal.as_str());
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Reads the number of the supervisor, and that of the guard, from a command that prints the first.
fn processes(line: &str) -> (i32, i32) {
    let supervisor: i32 = line.trim().parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let guard = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap();
    (supervisor, guard.parse().unwrap())
}

/// Supervisor and guard end after the command, also when that is killed.
#[test]
fn nothing_is_left_after_the_command() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let mut command = place.command(&["sh", "-c", "echo $CULVERT_EXEC; exec sleep 100"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (supervisor, guard) = processes(&line);
    assert!(is_alive(supervisor) && is_alive(guard));
    // Signals for all processes of a service are for the command.
    for process in [supervisor, guard] {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            kill(Pid::from_raw(process), signal).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(is_alive(supervisor) && is_alive(guard));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("both end", || !is_alive(supervisor) && !is_alive(guard));
}

/// A script of `sh` that runs, and its lines, one by one.
fn started(place: &Place, script: &str) -> (Child, impl FnMut() -> String) {
    let mut command = place.command(&["sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let line = move || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    (child, line)
}

/// When the supervisor is killed, so is everything that ran under it: the command, which ignores
/// polite signals here, and what it left behind.
#[test]
fn without_a_supervisor_the_command_is_ended() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let script =
        "setsid sleep 101 & echo $CULVERT_EXEC; echo $!; trap '' TERM; sleep 102; sleep 103";
    let (mut child, mut line) = started(&place, script);
    let (supervisor, guard) = processes(&line());
    let left: i32 = line().trim().parse().unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(start.elapsed() < Duration::from_secs(6));
    eventually("all end", || !is_alive(left) && !is_alive(guard));
}

/// So is what the command begins when it is told to end.
#[test]
fn what_begins_meanwhile_is_ended_too() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let script = "trap 'setsid sleep 104 & echo $!' TERM; echo $CULVERT_EXEC; \
                  while :; do sleep 0.1; done";
    let (mut child, mut line) = started(&place, script);
    let (supervisor, guard) = processes(&line());
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    let begun: i32 = line().trim().parse().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    eventually("all end", || !is_alive(begun) && !is_alive(guard));
}

/// A daemon that puts itself into the background is served on, and whoever waits for the end of
/// what it wrote does not wait for the launcher.
#[test]
fn daemons_in_the_background_are_served() {
    let Some(place) = Place::for_programs(&["python3"]) else { return };
    let engine = Engine::start(&place.socket());
    let (status, stdout, stderr) = finish(place.script(
        r#"
s = xfrm()
if os.fork(): os._exit(3)
os.setsid()
for fd in (0, 1, 2): os.dup2(os.open("/dev/null", os.O_RDWR), fd)
time.sleep(0.5)
s.bind((0, 0x40))
assert ask(s, flush(1)) == 0
time.sleep(0.2)
"#,
    ));
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (3, "", ""));
    assert!(engine.state().requests.is_empty(), "the output ended with the command");
    eventually("a request", || engine.state().requests.len() == 1);
    assert_eq!(engine.state().binds.last().unwrap().1, 0x40);
    eventually("the end", || engine.state().connections == 0);
}

/// A launcher under a launcher says that this is not possible.
#[test]
fn launchers_do_not_nest() {
    let Some(place) = Place::for_programs(&["sh"]) else { return };
    let (status, _, stderr) =
        finish(place.command(&[crate::program::CULVERT, "exec", "--", "sh", "-c", "exit 0"]));
    assert_eq!(status, 125);
    assert!(stderr.contains("supervised already"), "{stderr}");
}

/// The socket of the engine may be named by the environment.
#[test]
fn the_environment_names_the_socket() {
    let Some(place) = Place::for_programs(&["ip"]) else { return };
    let engine = Engine::start(&place.socket());
    let mut command = std::process::Command::new(crate::program::CULVERT);
    command.args(["exec", "ip", "xfrm", "state", "flush"]);
    command.env("CULVERT_XFRM_SOCKET", place.socket());
    succeed(command);
    assert_eq!(engine.state().requests.len(), 1);
}
