//! Answers trapped calls, and turns the sockets: one thread, one loop, nothing that waits but the
//! poll.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::bind;
use nix::sys::socket::socketpair;
use nix::sys::stat::fstat;

use crate::bound::ADDRESS_LEN;
use crate::bound::Address;
use crate::engine::Engine;
use crate::engine::enlarge;
use crate::link::Buffer;
use crate::link::Link;
use crate::link::Turn;
use crate::listener::Answer;
use crate::listener::Listener;
use crate::listener::Trap;
use crate::log::Log;
use crate::memory;

/// Most sockets at a time, over all processes.
const LINKS_MAX: usize = 1024;

/// Trapped calls answered before sockets are turned again.
const TRAPS_MAX: u32 = 64;

/// Most octets of any address (`struct sockaddr_storage`).
const ADDRESS_LEN_MAX: usize = 128;

/// Ports that are given away after a process has its own number already, downwards, as the kernel
/// does.
const PORT_TOP: u32 = 0xffff_f000;

/// Answers trapped calls, and turns the sockets.
pub(crate) struct Supervisor {
    listener: Listener,
    engine: Engine,
    links: Vec<Link>,
    names: Names,
    next_port: u32,
    buffer: Buffer,
    log: Log,
}

/// What a poll tells the loop, other than of the sockets.
struct Events {
    /// There are trapped calls.
    traps: bool,
    /// No process is left that could make any.
    all_gone: bool,
    /// The program itself has ended.
    program_gone: bool,
}

impl Supervisor {
    pub(crate) fn new(listener: Listener, engine: Engine, log: Log) -> Supervisor {
        Supervisor {
            listener,
            engine,
            links: Vec::new(),
            names: Names { process: std::process::id(), next: 0 },
            next_port: PORT_TOP,
            buffer: Buffer::new(),
            log,
        }
    }

    /// Serves until no process is left under the filter. `program` is the program itself; after it
    /// `quiet` is called once: whatever waits for the end of its output shall not wait for
    /// processes that it left behind.
    pub(crate) fn run(&mut self, program: OwnedFd, quiet: impl FnOnce()) -> nix::Result<()> {
        let mut program = Some((program, quiet));
        loop {
            let events = self.poll(program.as_ref().map(|(program, _)| program))?;
            self.turn();
            if events.traps {
                self.answer_traps()?;
                self.turn();
            }
            if events.program_gone
                && let Some((_, quiet)) = program.take()
            {
                quiet();
            }
            if events.all_gone && !events.traps {
                self.turn();
                return Ok(());
            }
        }
    }

    fn poll(&self, program: Option<&OwnedFd>) -> nix::Result<Events> {
        let mut polled = vec![PollFd::new(self.listener.fd(), PollFlags::POLLIN)];
        polled.extend(program.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        for link in &self.links {
            let interest = link.interest();
            let program = interest.program.map(|flags| PollFd::new(link.program().as_fd(), flags));
            polled.extend(program);
            if let (Some(engine), Some(flags)) = (link.engine(), interest.engine) {
                polled.push(PollFd::new(engine.as_fd(), flags));
            }
        }
        match poll(&mut polled, self.timeout(Instant::now())) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(reason) => return Err(reason),
        }
        let happened =
            |at: usize, what| polled[at].revents().unwrap_or(PollFlags::empty()).intersects(what);
        Ok(Events {
            traps: happened(0, PollFlags::POLLIN),
            all_gone: happened(0, PollFlags::POLLHUP | PollFlags::POLLERR),
            program_gone: program.is_some() && happened(1, PollFlags::POLLIN),
        })
    }

    /// Until when to wait if nothing happens.
    fn timeout(&self, now: Instant) -> PollTimeout {
        let links = self.links.iter().filter_map(|link| link.deadline(now));
        let misses = self.links.iter().any(Link::misses_engine);
        let search = misses.then(|| self.engine.next().unwrap_or(now));
        let Some(next) = links.chain(search).min() else {
            return PollTimeout::NONE;
        };
        // One more, or the time would not have come yet.
        let wait = next.saturating_duration_since(now).as_millis() + 1;
        PollTimeout::from(u16::try_from(wait).unwrap_or(u16::MAX))
    }

    /// Turns all sockets, forgets those that are finished, and looks for the engine.
    fn turn(&mut self) {
        let now = Instant::now();
        for at in 0..self.links.len() {
            if self.links[at].needs_port() {
                let port = self.free_port(self.links[at].process);
                self.links[at].bound.port = port;
            }
            let mut turn =
                Turn { engine: &mut self.engine, now, buffer: &mut self.buffer, log: self.log };
            self.links[at].turn(&mut turn);
        }
        self.links.retain(|link| !link.is_finished());
        self.find_engine(now);
    }

    /// Connects the sockets that wait for events.
    fn find_engine(&mut self, now: Instant) {
        if !self.engine.is_due(now) {
            return;
        }
        for link in self.links.iter_mut().filter(|link| link.misses_engine()) {
            match self.engine.dial() {
                Ok(engine) => {
                    link.connected(engine);
                    self.log.detail(format_args!("socket {}: connected", link.inode));
                }
                Err(_) => {
                    self.engine.missed(now);
                    break;
                }
            }
        }
    }

    fn answer_traps(&mut self) -> nix::Result<()> {
        for _ in 0..TRAPS_MAX {
            if let Some(trap) = self.listener.receive()? {
                self.answer(&trap);
            }
            let mut polled = [PollFd::new(self.listener.fd(), PollFlags::POLLIN)];
            let more = poll(&mut polled, PollTimeout::ZERO);
            if more.is_err() || polled[0].any() != Some(true) {
                break;
            }
        }
        Ok(())
    }

    fn answer(&mut self, trap: &Trap) {
        let answer = if trap.call == libc::SYS_socket {
            match self.make_socket(trap) {
                Ok(()) => return,
                Err(errno) => Answer::Fails(errno),
            }
        } else if let Some(at) = self.find(trap) {
            match self.call(trap, at) {
                Ok(()) => Answer::Done,
                Err(errno) => Answer::Fails(errno),
            }
        } else {
            Answer::Continue
        };
        self.listener.answer(trap, answer);
        if answer != Answer::Continue {
            let Trap { thread, call, arguments, .. } = trap;
            let (first, second) = (arguments[0], arguments[1]);
            self.log.detail(format_args!(
                "thread {thread}: call {call} ({first}, {second:#x}): {answer:?}"
            ));
        }
    }

    /// The socket that a trapped call is for, if it is one of ours. It is known by its number, so
    /// copies and those of other processes are found as well.
    fn find(&self, trap: &Trap) -> Option<usize> {
        // The kernel looks at 32 bits of a descriptor.
        let fd = trap.arguments[0] & u64::from(u32::MAX);
        let file = fs::metadata(format!("/proc/{}/fd/{fd}", trap.thread)).ok()?;
        let is_same = |link: &Link| link.inode == file.ino();
        let at = self.links.iter().position(is_same).filter(|_| file.file_type().is_socket())?;
        self.listener.is_waiting(trap).then_some(at)
    }

    /// `socket`: the program gets one end of a pair.
    fn make_socket(&mut self, trap: &Trap) -> Result<(), Errno> {
        let kind = int(trap.arguments[1]);
        let known = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        if ![libc::SOCK_RAW, libc::SOCK_DGRAM].contains(&(kind & !known)) {
            return Err(Errno::ESOCKTNOSUPPORT);
        } else if self.links.len() >= LINKS_MAX {
            return Err(Errno::ENFILE);
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        enlarge(&ours);
        enlarge(&theirs);
        self.names.name(&ours)?;
        if kind & libc::SOCK_NONBLOCK != 0 {
            use nix::fcntl::FcntlArg;
            nix::fcntl::fcntl(&theirs, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        }
        let inode = fstat(&theirs)?.st_ino;
        let process = process_of(trap.thread);
        self.listener.answer_with(trap, &theirs, kind & libc::SOCK_CLOEXEC != 0)?;
        self.links.push(Link::new(ours, inode, process));
        self.log.detail(format_args!("process {process}: a socket ({inode})"));
        Ok(())
    }

    /// A call for one of our sockets.
    fn call(&mut self, trap: &Trap, at: usize) -> Result<(), Errno> {
        let [_, second, third, fourth, fifth, _] = trap.arguments;
        let thread = trap.thread;
        match trap.call {
            libc::SYS_getsockname => self.show_name(thread, at, second, third),
            libc::SYS_bind => self.bind(at, read_address(thread, second, third)?),
            libc::SYS_connect => {
                let address = read_address(thread, second, third)?;
                let port = self.free_port(self.links[at].process);
                self.rebind(at, |link| link.bound.connect(address, || port))
            }
            libc::SYS_setsockopt => {
                let has_value = usize::try_from(int(fifth)).map_err(|_| Errno::EINVAL)? >= 4;
                let value = if has_value { memory::read(thread, fourth)? } else { [0; 4] };
                let value = u32::from_ne_bytes(value);
                self.rebind(at, |link| link.bound.set_option(int(third), value))
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// `bind`.
    fn bind(&mut self, at: usize, address: Address) -> Result<(), Errno> {
        let port = self.free_port(self.links[at].process);
        let others = self.links.iter().filter(|link| !link.is_ended());
        let taken: Vec<u32> = others.map(|link| link.bound.port).collect();
        self.rebind(at, |link| link.bound.bind(address, || port, |port| taken.contains(&port)))
    }

    /// Changes what a socket is bound to, and lets the engine know.
    fn rebind<E>(
        &mut self,
        at: usize,
        change: impl FnOnce(&mut Link) -> Result<(), E>,
    ) -> Result<(), E> {
        let link = &mut self.links[at];
        let before = link.bound;
        change(link)?;
        if link.bound != before {
            link.rebound();
            let crate::bound::Bound { port, groups } = link.bound;
            let inode = link.inode;
            self.log.detail(format_args!("socket {inode}: port {port}, groups {groups:#x}"));
        }
        Ok(())
    }

    /// `getsockname`: as much of the name as there is room for, and how long it is.
    fn show_name(&self, thread: i32, at: usize, to: u64, len_at: u64) -> Result<(), Errno> {
        let room = i32::from_ne_bytes(memory::read(thread, len_at)?);
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        let name = self.links[at].bound.address().to_octets();
        memory::write(thread, to, &name[..room.min(ADDRESS_LEN)])?;
        let len = u32::try_from(ADDRESS_LEN).map_err(|_| Errno::EINVAL)?;
        memory::write(thread, len_at, &len.to_ne_bytes())
    }

    /// A port that no socket has: the number of the process if that is free.
    fn free_port(&mut self, process: u32) -> u32 {
        let is_taken =
            |port: u32| self.links.iter().any(|link| link.bound.port == port && !link.is_ended());
        if process != 0 && !is_taken(process) {
            return process;
        }
        let mut port = self.next_port;
        while is_taken(port) {
            port = if port > PORT_TOP / 2 { port - 1 } else { PORT_TOP };
        }
        self.next_port = if port > PORT_TOP / 2 { port - 1 } else { PORT_TOP };
        port
    }
}

/// An argument that is an `int`, which has 32 bits: the kernel ignores the others.
fn int(argument: u64) -> i32 {
    let low = argument & u64::from(u32::MAX);
    u32::try_from(low).unwrap_or(0).cast_signed()
}

/// The address that a call points at.
fn read_address(thread: i32, at: u64, len: u64) -> Result<Address, Errno> {
    let len = usize::try_from(int(len)).map_err(|_| Errno::EINVAL)?;
    if !(ADDRESS_LEN..=ADDRESS_LEN_MAX).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let octets: [u8; ADDRESS_LEN] = memory::read(thread, at)?;
    Address::read(&octets).ok_or(Errno::EINVAL)
}

/// The process that a thread belongs to; the thread itself where that cannot be seen.
fn process_of(thread: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let process = line.and_then(|number| number.trim().parse().ok());
    process.or(u32::try_from(thread).ok()).unwrap_or(0)
}

/// Names for our ends of the pairs.
///
/// Programs look at the address that a datagram comes from: 12 octets, as those of the kernel have,
/// and the number 0 at the fifth. So each of our ends is bound to an abstract name that looks like
/// that: the family, the zero of an abstract name, a letter, four zeros, and four octets that make
/// it unique. Programs that look at the family see that of Unix sockets.
struct Names {
    process: u32,
    next: u32,
}

impl Names {
    /// Tried before giving up. Another launcher may have had the same numbers.
    const TRIES: u32 = 1000;

    fn name(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        use std::os::fd::AsRawFd as _;
        for _ in 0..Names::TRIES {
            self.next = self.next.wrapping_add(1);
            let unique = (self.process << 12 ^ self.next).to_ne_bytes();
            let mut name = [b'x', 0, 0, 0, 0, 0, 0, 0, 0];
            name[5..].copy_from_slice(&unique);
            match bind(socket.as_raw_fd(), &UnixAddr::new_abstract(&name)?) {
                Err(Errno::EADDRINUSE) => {}
                other => return other,
            }
        }
        Err(Errno::EADDRINUSE)
    }
}
