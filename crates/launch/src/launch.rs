//! Puts the filter in place, starts the supervisor and its guard, and becomes the program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::exit;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use nix::sys::signal::SigSet;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::recv;
use nix::sys::socket::recvmsg;
use nix::sys::socket::send;
use nix::sys::socket::sendmsg;
use nix::sys::socket::socketpair;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use nix::unistd::Pid;
use nix::unistd::fork;
use nix::unistd::getpid;

use crate::engine::Engine;
use crate::error::Error;
use crate::error::during;
use crate::guard;
use crate::listener;
use crate::listener::Listener;
use crate::log::Log;
use crate::supervisor::Supervisor;

/// How often an engine is looked for that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// How to launch a program.
#[derive(Clone, Debug)]
pub struct Options {
    /// The socket of the engine.
    pub socket: PathBuf,
    /// Do not launch it without an engine.
    pub require_engine: bool,
    /// How long to wait for the engine first. Without [`Options::require_engine`] the program is
    /// launched after that all the same.
    pub wait: Duration,
    /// Say what happens, on standard error.
    pub verbose: bool,
}

/// Becomes `program`, with its XFRM sockets and those of all that it starts leading to the engine.
/// The calling process must have one thread.
///
/// # Errors
/// When that did not succeed. The process should end then, with [`Error::exit_status`]: it may have
/// the filter already.
pub fn launch(
    options: &Options,
    program: &OsString,
    arguments: &[OsString],
) -> Result<Infallible, Error> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(Error::Threads);
    }
    let no_path = |_| Error::Path { path: options.socket.clone() };
    let path = std::path::absolute(&options.socket)
        .map_err(|_| Error::Path { path: options.socket.clone() })?;
    let log = Log { verbose: options.verbose };
    let engine = Engine::at(&path, log).map_err(no_path)?;
    look_for(&engine, &path, options)?;

    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(during("cannot make a pair of sockets"))?;
    let this = guard::open(getpid()).map_err(during("cannot open this process"))?;
    let first = fork_here().map_err(during("cannot fork"))?;
    let ForkResult::Parent { child: first } = first else {
        drop(ours);
        detach(this, theirs, engine, log);
    };
    drop(theirs);
    // The first child only starts the guard and ends, so that the program has no child that it did
    // not make.
    waitpid(first, None).map_err(during("cannot wait for a child"))?;

    let supervisor = trap(&ours).map_err(|reason| match reason {
        Errno::EBUSY => Error::Nested,
        reason => Error::System { what: "cannot trap system calls (Linux 5.14 is needed)", reason },
    })?;
    log.detail(format_args!("supervisor is process {supervisor}"));
    let mut command = Command::new(program);
    command.args(arguments).env(guard::MARK, supervisor.to_string());
    let reason = command.exec();
    Err(Error::Execute { program: program.clone(), reason })
}

/// Makes sure that there is an engine, if there has to be one.
fn look_for(engine: &Engine, path: &Path, options: &Options) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        // An engine that is busy is one.
        match engine.connect() {
            Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
            Err(_) if start.elapsed() < options.wait => std::thread::sleep(LOOK),
            Err(reason) if options.require_engine => {
                return Err(Error::NoEngine { path: path.to_owned(), reason });
            }
            Err(_) => return Ok(()),
        }
    }
}

/// Two processes from one.
fn fork_here() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread, so the child has all there is, no lock that another
    // thread would hold among it. Not safe: that is for the caller to know.
    unsafe { fork() }
}

/// Puts the filter in place, and hands its listener to the supervisor, whose number is returned.
fn trap(supervisor: &OwnedFd) -> nix::Result<Pid> {
    let listener = listener::install()?;
    let fds = [listener.as_raw_fd()];
    let message = [IoSlice::new(&[0])];
    let control = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(supervisor.as_raw_fd(), &message, &control, flags, None)?;
    drop(listener);
    let mut ready = [0; 8];
    let len = recv(supervisor.as_raw_fd(), &mut ready, MsgFlags::empty())?;
    let [number, errno] =
        [&ready[..4], &ready[4..]].map(|octets| octets.try_into().map_or(0, i32::from_ne_bytes));
    match (len, errno) {
        (8, 0) => {}
        (8, errno) => return Err(Errno::from_raw(errno)),
        _ => return Err(Errno::ECHILD),
    }
    // Where only ancestors may look at a process's memory (Yama), this lets the supervisor. Where
    // that does not exist, it is not needed.
    let tracer = libc::c_ulong::try_from(number).unwrap_or(0);
    // SAFETY: the call takes numbers and touches no memory. Not safe: `nix` does not have it.
    let _ = unsafe { libc::prctl(libc::PR_SET_PTRACER, tracer, 0, 0, 0) };
    Ok(Pid::from_raw(number))
}

/// The first child, the guard, and the supervisor.
fn detach(program: OwnedFd, launcher: OwnedFd, engine: Engine, log: Log) -> ! {
    match fork_here() {
        Ok(ForkResult::Child) => {}
        Ok(ForkResult::Parent { .. }) => exit(0),
        Err(_) => exit(1),
    }
    settle(c"culvert-guard", &[&program, &launcher]);
    match fork_here() {
        Ok(ForkResult::Child) => supervise(program, launcher, engine, log),
        Ok(ForkResult::Parent { child }) => {
            drop(launcher);
            guard::watch(child, &program, log, be_quiet);
            exit(0);
        }
        Err(_) => exit(1),
    }
}

fn supervise(program: OwnedFd, launcher: OwnedFd, engine: Engine, log: Log) -> ! {
    let _ = prctl::set_name(c"culvert-xfrm");
    let Some(fd) = receive_listener(&launcher) else {
        // The launcher has ended before it could send it, and has said why.
        exit(0);
    };
    let listener = Listener::new(fd);
    let errno = listener.as_ref().err().map_or(0, |errno| *errno as i32);
    let mut ready = [0; 8];
    ready[..4].copy_from_slice(&getpid().as_raw().to_ne_bytes());
    ready[4..].copy_from_slice(&errno.to_ne_bytes());
    let _ = send(launcher.as_raw_fd(), &ready, MsgFlags::MSG_NOSIGNAL);
    drop(launcher);
    let Ok(listener) = listener else {
        exit(0);
    };
    match Supervisor::new(listener, engine, log).run(program, be_quiet) {
        Ok(()) => exit(0),
        Err(reason) => {
            log.say(format_args!("cannot serve XFRM sockets: {}", reason.desc()));
            exit(1);
        }
    }
}

fn receive_listener(launcher: &OwnedFd) -> Option<OwnedFd> {
    let mut octet = [0];
    let mut message = [IoSliceMut::new(&mut octet)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(launcher.as_raw_fd(), &mut message, Some(&mut control), flags);
    let received = received.ok()?;
    let fd = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    })?;
    // SAFETY: the message has just brought this descriptor, and nobody else knows of it. Not safe:
    // it comes as a number.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Leaves what the program was started from: its session and terminal, its directory, its input and
/// output, and all that it has open but `kept` and standard error. Signals for a whole group, of a
/// terminal or of a service, are for the program: it is up to that to end.
fn settle(name: &std::ffi::CStr, kept: &[&OwnedFd]) {
    let _ = prctl::set_name(name);
    let _ = SigSet::all().thread_block();
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir("/");
    if let Some(null) = null() {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
    close_all_but(kept);
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Says nothing more.
fn be_quiet() {
    if let Some(null) = null() {
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

fn null() -> Option<OwnedFd> {
    nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).ok()
}

fn close_all_but(kept: &[&OwnedFd]) {
    let numbers = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<i32> = numbers
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && kept.iter().all(|kept| kept.as_fd().as_raw_fd() != *fd))
        .collect();
    for fd in numbers {
        // SAFETY: this process has just been forked and never returns to what had these
        // descriptors, so nobody uses them. Not safe: they come as numbers. The one of the
        // directory that was read is closed already, which is no error that matters.
        let _ = unsafe { libc::close(fd) };
    }
}
