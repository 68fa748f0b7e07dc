//! One socket of the program, and its connection to the engine.
//!
//! The program holds one end of a pair of sockets, and this is the other: it never closes first, so
//! the program never sees an end of file, a hang-up, or a broken pipe, whatever becomes of the
//! engine. The connection is made when there is a request to send, and by the supervisor for those
//! that wait for events.
//!
//! At most one datagram is held in each direction. What is not yet held stays in the queues of the
//! kernel, and when those are full it is the sender who waits.
//!
//! What the engine took and did not answer, and what could not be sent, is answered here with
//! ENETDOWN. Nothing is ever sent twice.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use culvert_xfrm::Errno as XfrmErrno;
use culvert_xfrm::Message;
use culvert_xfrm::answer::ErrorMessage;
use culvert_xfrm::header::Header;
use culvert_xfrm::message::Body;
use culvert_xfrm::message::messages;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
use nix::sys::socket::send;
use zeroize::Zeroize as _;
use zeroize::Zeroizing;

use crate::bound::Bound;
use crate::engine::Engine;
use crate::engine::KIND_PRIVATE;
use crate::engine::QUEUE_LEN;
use crate::engine::bind_message;
use crate::log::Log;
use crate::waiting::Waiting;

/// How long a request waits for an engine that has no room for connections, or a program that has
/// closed its socket waits for its last request.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often such an engine is tried.
const RETRY: Duration = Duration::from_millis(20);

/// Connections that may break under one request.
const TRIES_MAX: u32 = 3;

/// Datagrams of a socket in one turn.
const ROUNDS_MAX: u32 = 64;

/// What a turn needs besides the socket.
pub(crate) struct Turn<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) now: Instant,
    /// Where a datagram is read; wiped after each.
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) log: Log,
}

/// Room for one datagram.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer(vec![0; QUEUE_LEN])
    }

    /// Reads one datagram, and says whether it was longer than the room for it.
    fn read(&mut self, socket: &OwnedFd) -> nix::Result<(Zeroizing<Vec<u8>>, bool)> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let len = recv(socket.as_raw_fd(), &mut self.0, flags)?;
        let kept = &mut self.0[..len.min(QUEUE_LEN)];
        let datagram = Zeroizing::new(kept.to_vec());
        kept.zeroize();
        Ok((datagram, len > QUEUE_LEN))
    }
}

/// A datagram that waits for the engine.
struct Held {
    octets: Zeroizing<Vec<u8>>,
    since: Instant,
    tries: u32,
}

/// What a poll is to report; nothing where it is not to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) program: Option<PollFlags>,
    pub(crate) engine: Option<PollFlags>,
}

/// One socket of the program.
pub(crate) struct Link {
    /// Number of the program's end, by which its descriptors are known.
    pub(crate) inode: u64,
    /// Who made it.
    pub(crate) process: u32,
    pub(crate) bound: Bound,
    program: OwnedFd,
    engine: Option<OwnedFd>,
    /// The engine does not know yet what the socket is bound to.
    bind_due: bool,
    /// The connection takes no more, but answers may be in it.
    broken: bool,
    request: Option<Held>,
    answer: Option<Zeroizing<Vec<u8>>>,
    /// Requests to refuse.
    owed: VecDeque<(Header, XfrmErrno)>,
    waiting: Waiting,
    /// The program will send no more.
    deaf: bool,
    /// The program has closed its end, all copies of it.
    ended: bool,
}

impl Link {
    /// A new socket, whose other end the program gets.
    pub(crate) fn new(program: OwnedFd, inode: u64, process: u32) -> Link {
        Link {
            inode,
            process,
            bound: Bound::default(),
            program,
            engine: None,
            bind_due: false,
            broken: false,
            request: None,
            answer: None,
            owed: VecDeque::new(),
            waiting: Waiting::default(),
            deaf: false,
            ended: false,
        }
    }

    pub(crate) fn program(&self) -> &OwnedFd {
        &self.program
    }

    pub(crate) fn engine(&self) -> Option<&OwnedFd> {
        self.engine.as_ref()
    }

    /// The engine is to be told what the socket is bound to.
    pub(crate) fn rebound(&mut self) {
        self.bind_due = self.engine.is_some();
    }

    /// Whether the program has closed it.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended || reports(&self.program, libc::POLLHUP)
    }

    /// Whether nothing is left to do for it.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended && self.request.is_none()
    }

    /// Whether it waits for events, and there is nobody who could send them.
    pub(crate) fn misses_engine(&self) -> bool {
        self.engine.is_none() && self.bound.groups != 0 && !self.ended
    }

    /// Whether a request has to go out first under a port, and there is none.
    pub(crate) fn needs_port(&self) -> bool {
        self.request.is_some() && self.bound.port == 0
    }

    /// When it is to be turned though nothing happens.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let held = self.request.as_ref()?;
        match self.engine {
            None => Some(now + RETRY),
            Some(_) if self.ended => Some(held.since + PATIENCE),
            Some(_) => None,
        }
    }

    /// What to poll for. A hang-up is always reported, so a descriptor that nothing can be done
    /// with now is left out.
    pub(crate) fn interest(&self) -> Interest {
        let flags = |read, write| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, read);
            flags.set(PollFlags::POLLOUT, write);
            flags
        };
        let has_answer = self.answer.is_some() || !self.owed.is_empty();
        let program = flags(self.may_read_program(), has_answer);
        let has_request = self.bind_due || self.request.is_some();
        let engine = flags(self.may_read_engine(), has_request);
        let is_useful = |flags: &PollFlags| !flags.is_empty();
        Interest {
            program: Some(program).filter(|flags| !self.ended && (self.deaf || is_useful(flags))),
            engine: Some(engine)
                .filter(|flags| self.engine.is_some() && !self.broken && is_useful(flags)),
        }
    }

    fn may_read_program(&self) -> bool {
        let is_free = self.request.is_none() && self.owed.is_empty();
        is_free && !self.deaf && !self.ended && self.waiting.has_room()
    }

    fn may_read_engine(&self) -> bool {
        self.answer.is_none() && self.owed.is_empty()
    }

    /// Takes a connection that was made for it.
    pub(crate) fn connected(&mut self, engine: OwnedFd) {
        self.engine = Some(engine);
        self.bind_due = true;
        self.broken = false;
    }

    /// Moves what can be moved, in both directions.
    pub(crate) fn turn(&mut self, turn: &mut Turn) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.send_to_program();
            moved |= self.read_engine(turn);
            moved |= self.send_to_engine(turn);
            moved |= self.read_program(turn);
            if !moved {
                break;
            }
        }
    }

    fn send_to_program(&mut self) -> bool {
        if self.answer.is_none() {
            let port = self.bound.port;
            self.answer =
                self.owed.pop_front().map(|(request, errno)| refusal(request, errno, port));
        }
        let Some(answer) = &self.answer else {
            return false;
        };
        match push(&self.program, answer) {
            Err(Errno::EAGAIN) => return false,
            Ok(()) | Err(Errno::EMSGSIZE) => self.answer = None,
            Err(_) => self.end(),
        }
        true
    }

    /// The program has closed the socket. A request that it sent before is sent all the same.
    fn end(&mut self) {
        self.ended = true;
        self.answer = None;
        self.owed.clear();
    }

    fn read_engine(&mut self, turn: &mut Turn) -> bool {
        let Some(engine) = self.engine.as_ref().filter(|_| self.may_read_engine()) else {
            return false;
        };
        match turn.buffer.read(engine) {
            Ok((_, true)) => self.lose(turn.log, "sent too much at once"),
            Ok((datagram, false)) if !datagram.is_empty() => {
                self.waiting.received(&datagram, self.bound.port);
                if !is_private(&datagram) && !self.ended {
                    self.answer = Some(datagram);
                }
            }
            // A record of no octets looks like the end, but is not.
            Ok(_) if !reports(engine, libc::POLLHUP | libc::POLLRDHUP) => {}
            // The connection was closed with requests unread; answers may precede that.
            Err(Errno::ECONNRESET) => {}
            Err(Errno::EAGAIN) if !self.broken => return false,
            Ok(_) | Err(_) => self.lose(turn.log, "is gone"),
        }
        true
    }

    /// The connection is no more: nobody answers what was sent.
    fn lose(&mut self, log: Log, why: &str) {
        log.detail(format_args!("socket {}: the engine {why}", self.inode));
        self.engine = None;
        self.broken = false;
        self.bind_due = false;
        let lost = self.waiting.take().map(|request| (request, XfrmErrno::ENETDOWN));
        if self.ended {
            lost.for_each(drop);
        } else {
            self.owed.extend(lost);
        }
    }

    fn send_to_engine(&mut self, turn: &mut Turn) -> bool {
        let Some(engine) = &self.engine else {
            return self.request.is_some() && self.dial(turn);
        };
        if self.broken {
            return false;
        }
        let sent = if self.bind_due {
            push(engine, &bind_message(self.bound))
        } else if let Some(held) = &self.request {
            push(engine, &held.octets)
        } else {
            return false;
        };
        match sent {
            Ok(()) if self.bind_due => self.bind_due = false,
            Ok(()) => {
                if let Some(held) = self.request.take() {
                    self.waiting.sent(&held.octets);
                }
            }
            Err(Errno::EAGAIN) => {
                let is_late = |held: &mut Held| held.since + PATIENCE <= turn.now;
                return self.ended && self.request.take_if(is_late).is_some();
            }
            Err(Errno::EMSGSIZE) => self.refuse_held(XfrmErrno::ENOBUFS),
            Err(_) => {
                self.broken = true;
                if self.request.as_ref().is_some_and(|held| held.tries >= TRIES_MAX) {
                    self.refuse_held(XfrmErrno::ENETDOWN);
                }
            }
        }
        true
    }

    /// Connects for the request that is held, or refuses it.
    fn dial(&mut self, turn: &mut Turn) -> bool {
        let Some(held) = &mut self.request else {
            return false;
        };
        match turn.engine.dial() {
            Ok(engine) => {
                held.tries += 1;
                self.connected(engine);
            }
            Err(Errno::EAGAIN) if turn.now < held.since + PATIENCE => return false,
            Err(_) => self.refuse_held(XfrmErrno::ENETDOWN),
        }
        true
    }

    fn refuse_held(&mut self, errno: XfrmErrno) {
        if let Some(held) = self.request.take() {
            self.refuse(&held.octets, errno);
        }
    }

    fn refuse(&mut self, datagram: &[u8], errno: XfrmErrno) {
        let headers = messages(datagram).map_while(Result::ok).map(|frame| frame.header);
        self.owed.extend(headers.filter(Header::is_request).map(|header| (header, errno)));
    }

    fn read_program(&mut self, turn: &mut Turn) -> bool {
        if self.deaf && !self.ended && reports(&self.program, libc::POLLHUP) {
            self.end();
        } else if !self.may_read_program() {
            return false;
        }
        match turn.buffer.read(&self.program) {
            Ok((datagram, false)) if !datagram.is_empty() => self.admit(datagram, turn.now),
            Ok((datagram, true)) => {
                let header = Header::read(&datagram).filter(Header::is_request);
                self.owed.extend(header.map(|header| (header, XfrmErrno::ENOBUFS)));
            }
            Ok(_) if reports(&self.program, libc::POLLHUP) => self.end(),
            Ok(_) => self.deaf = reports(&self.program, libc::POLLRDHUP),
            Err(Errno::EAGAIN) => return false,
            Err(Errno::ECONNRESET) => {}
            Err(_) => self.end(),
        }
        true
    }

    /// Holds what the program sent. As the kernel does, messages behind octets that are none are
    /// ignored. Kinds that are between launcher and engine are none that the kernel knows.
    fn admit(&mut self, mut octets: Zeroizing<Vec<u8>>, now: Instant) {
        let frames = messages(&octets).map_while(Result::ok);
        let (mut len, mut is_private) = (0usize, false);
        for frame in frames {
            len = len.next_multiple_of(4) + frame.octets.len();
            is_private |= frame.header.kind.0 >= KIND_PRIVATE;
        }
        if is_private {
            self.refuse(&octets, XfrmErrno::EINVAL);
        } else if len > 0 {
            octets.truncate(len);
            self.request = Some(Held { octets, since: now, tries: 0 });
        }
    }
}

/// Whether a socket is in one of these states.
fn reports(socket: &OwnedFd, states: libc::c_short) -> bool {
    let mut polled = libc::pollfd { fd: socket.as_raw_fd(), events: states, revents: 0 };
    // SAFETY: `polled` is one record, as the call is told, and lives until it returns, which is at
    // once. Not safe: `nix` has no `POLLRDHUP`.
    let count = unsafe { libc::poll(&raw mut polled, 1, 0) };
    count > 0 && polled.revents & states != 0
}

/// Sends one datagram, whole or not at all.
fn push(socket: &OwnedFd, octets: &[u8]) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), octets, flags).map(drop)
}

fn is_private(datagram: &[u8]) -> bool {
    Header::read(datagram).is_some_and(|header| header.kind.0 >= KIND_PRIVATE)
}

/// What the kernel would say of this request, had it come to this error. It repeats the header
/// alone.
fn refusal(request: Header, errno: XfrmErrno, port: u32) -> Zeroizing<Vec<u8>> {
    let error = ErrorMessage { errno: Some(errno), request, rest: None, details: Vec::new() };
    Message { flags: 0, seq: request.seq, port, body: Body::Error(error) }.to_octets()
}
