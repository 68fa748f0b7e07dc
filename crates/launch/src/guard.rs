//! Ends the program if the supervisor is killed.
//!
//! Without its supervisor, a program's sockets are at their end and its trapped calls fail, for
//! good. Many a daemon would spin. So a process waits for the supervisor, and if that did not end
//! as it should, it ends whatever ran under it: politely, and three seconds later by force.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::log::Log;

/// What marks processes that run under a launcher: the number of its supervisor.
pub(crate) const MARK: &str = "CULVERT_EXEC";

/// How long processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// How long a process that was killed may take to be gone, until it is looked at again.
const KILLED: Duration = Duration::from_millis(100);

/// How often processes are looked for that should be gone.
const ROUNDS: usize = 20;

/// A process, whatever becomes of its number.
pub(crate) fn open(process: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory. Not safe: there is no safe
    // interface to it among our dependencies.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows of it. Not safe: it
    // comes as a number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to a process, if it still is.
fn signal(process: &OwnedFd, signal: libc::c_int) {
    let fd = process.as_raw_fd();
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes numbers, and a pointer that may be null. Not safe: there is no safe
    // interface to it among our dependencies. A process that is gone needs no signal.
    let _ = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
}

/// Whether a process has ended, waiting for that so long.
fn has_ended(process: &OwnedFd, wait: Duration) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let wait = PollTimeout::from(u16::try_from(wait.as_millis()).unwrap_or(u16::MAX));
    matches!(poll(&mut polled, wait), Ok(1))
}

/// Waits for `supervisor`, a child. `quiet` is called once when `program` has ended.
pub(crate) fn watch(supervisor: Pid, program: &OwnedFd, log: Log, quiet: impl FnOnce()) {
    let mut quiet = Some(quiet);
    if let Ok(fd) = open(supervisor) {
        loop {
            let mut polled = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            if quiet.is_some() {
                polled.push(PollFd::new(program.as_fd(), PollFlags::POLLIN));
            }
            let _ = poll(&mut polled, PollTimeout::NONE);
            if polled.get(1).is_some_and(|program| program.any() == Some(true))
                && let Some(quiet) = quiet.take()
            {
                quiet();
            }
            if polled[0].any() == Some(true) {
                break;
            }
        }
    }
    match waitpid(supervisor, None) {
        Ok(WaitStatus::Exited(_, 0)) => {}
        status => {
            log.say(format_args!(
                "the supervisor of XFRM sockets has ended ({}); ending the program",
                describe(&status)
            ));
            end(supervisor, program);
        }
    }
}

fn describe(status: &nix::Result<WaitStatus>) -> String {
    match status {
        Ok(WaitStatus::Exited(_, status)) => format!("exit status {status}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => signal.to_string(),
        other => format!("{other:?}"),
    }
}

/// Ends `program` and all processes that have the mark of `supervisor`.
fn end(supervisor: Pid, program: &OwnedFd) {
    let marked = marked(supervisor);
    let all = || std::iter::once(program).chain(&marked);
    all().for_each(|process| signal(process, libc::SIGTERM));
    // One that is stopped would not notice.
    all().for_each(|process| signal(process, libc::SIGCONT));
    let start = Instant::now();
    for process in all() {
        has_ended(process, GRACE.saturating_sub(start.elapsed()));
    }
    signal(program, libc::SIGKILL);
    // Looked for anew: one that began meanwhile, or that was between two programs and showed no
    // environment, was not seen before.
    for _ in 0..ROUNDS {
        let left = self::marked(supervisor);
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|process| signal(process, libc::SIGKILL));
        left.iter().for_each(|process| _ = has_ended(process, KILLED));
    }
}

/// The processes whose environment has the mark.
fn marked(supervisor: Pid) -> Vec<OwnedFd> {
    let mark = format!("{MARK}={supervisor}");
    let numbers = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        entry.ok()?.file_name().to_str()?.parse::<i32>().ok().map(Pid::from_raw)
    });
    let mut marked = Vec::new();
    for process in numbers.filter(|process| *process != Pid::this()) {
        // Opened before it is looked at, so that it is the one that was looked at.
        if let Ok(fd) = open(process)
            && let Ok(environment) = fs::read(format!("/proc/{process}/environ"))
            && environment.split(|octet| *octet == 0).any(|entry| entry == mark.as_bytes())
        {
            marked.push(fd);
        }
    }
    marked
}
