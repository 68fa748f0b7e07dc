//! An engine that keeps SAs and policies in lists, answers as the kernel does, and can be made to
//! fall silent or to die.

use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use culvert_launch::KIND_BIND;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::answer;
use culvert_xfrm::answer::Wanted;
use culvert_xfrm::header::Flags;
use culvert_xfrm::header::Kind;
use culvert_xfrm::message::Frame;
use culvert_xfrm::message::messages;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::sa::SaInfo;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::Backlog;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::bind;
use nix::sys::socket::listen;
use nix::sys::socket::recv;
use nix::sys::socket::send;
use nix::sys::socket::socket;

/// Longest wait for something that takes milliseconds.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// What an engine knows, and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sas: Vec<(SaInfo, Attributes)>,
    pub(crate) policies: Vec<(PolicyInfo, Attributes)>,
    /// Port and groups of each BIND, in order.
    pub(crate) binds: Vec<(u32, u32)>,
    /// Kinds of requests, in order.
    pub(crate) requests: Vec<Kind>,
    /// Take requests and answer none.
    pub(crate) silent: bool,
    /// Take nothing from connections.
    pub(crate) stuck: bool,
    /// Connections there are.
    pub(crate) connections: usize,
    events: Vec<(u32, Vec<u8>)>,
    stop: bool,
}

/// An engine that listens. It dies when dropped: its socket's path and all connections go.
pub(crate) struct Engine {
    pub(crate) path: PathBuf,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct Connection {
    fd: OwnedFd,
    port: u32,
    groups: u32,
}

impl Engine {
    pub(crate) fn start(path: &Path) -> Engine {
        let kind = SockType::SeqPacket;
        let listener = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(64).unwrap()).unwrap();
        // Of records, not of a stream; to accept is the same.
        let listener = UnixListener::from(listener);
        let state = Arc::new(Mutex::new(State::default()));
        let thread = {
            let state = Arc::clone(&state);
            thread::spawn(move || serve(&listener, &state))
        };
        Engine { path: path.to_owned(), state, thread: Some(thread) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Sends an event to all who joined one of these groups.
    pub(crate) fn tell(&self, groups: u32, body: Body) {
        let octets = Message { flags: 0, seq: 0, port: 0, body }.to_octets().to_vec();
        self.state().events.push((groups, octets));
    }

    /// Waits for a BIND with these groups.
    pub(crate) fn await_groups(&self, groups: u32) {
        eventually("a BIND", || self.state().binds.iter().any(|bind| bind.1 == groups));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.state().stop = true;
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(listener: &UnixListener, state: &Mutex<State>) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut polled = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let stuck = state.lock().unwrap().stuck;
        if !stuck {
            let fds = connections.iter().map(|connection| connection.fd.as_fd());
            polled.extend(fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        poll(&mut polled, PollTimeout::from(5u8)).unwrap();
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
        let mut state = state.lock().unwrap();
        if state.stop {
            return;
        }
        let mut at = 0;
        connections.retain_mut(|connection| {
            at += 1;
            !ready.get(at).is_some_and(|ready| *ready) || take(connection, &mut state)
        });
        if ready[0] {
            let (stream, _) = listener.accept().unwrap();
            connections.push(Connection { fd: stream.into(), port: 0, groups: 0 });
        }
        state.connections = connections.len();
        for (groups, octets) in std::mem::take(&mut state.events) {
            for connection in connections.iter().filter(|one| one.groups & groups != 0) {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                let _ = send(connection.fd.as_raw_fd(), &octets, flags);
            }
        }
    }
}

/// Takes a datagram; false at the end of the connection.
fn take(connection: &mut Connection, state: &mut State) -> bool {
    let mut buffer = vec![0; 1 << 20];
    let Ok(len @ 1..) = recv(connection.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else {
        return false;
    };
    for frame in messages(&buffer[..len]) {
        let frame = frame.expect("a message");
        if frame.header.kind == Kind(KIND_BIND) {
            let number = |at| u32::from_ne_bytes(frame.octets[at..at + 4].try_into().unwrap());
            (connection.port, connection.groups) = (number(16), number(20));
            state.binds.push((connection.port, connection.groups));
            continue;
        }
        state.requests.push(frame.header.kind);
        if !state.silent {
            for answer in answers(&frame, connection.port, state) {
                let octets = answer.to_octets();
                let flags = MsgFlags::MSG_NOSIGNAL;
                let _ = send(connection.fd.as_raw_fd(), &octets, flags);
            }
        }
    }
    true
}

fn answers(frame: &Frame, port: u32, state: &mut State) -> Vec<Message> {
    let seq = frame.header.seq;
    match outcome(frame, state) {
        Err(errno) => vec![answer::refuse(frame, port, errno, Vec::new(), Wanted::default())],
        Ok(bodies) if frame.header.is_dump() => {
            let one = |body| Message { flags: Flags::MULTI, seq, port, body };
            let done = answer::done(&frame.header, port);
            bodies.into_iter().map(one).chain([done]).collect()
        }
        Ok(bodies) => {
            let one = |body| Message { flags: 0, seq, port, body };
            let ack = frame.header.wants_ack().then(|| answer::acknowledge(&frame.header, port));
            bodies.into_iter().map(one).chain(ack).collect()
        }
    }
}

fn outcome(frame: &Frame, state: &mut State) -> Result<Vec<Body>, Errno> {
    let message = Message::parse(frame.octets).map_err(|malformed| malformed.errno)?;
    let State { sas, policies, .. } = state;
    Ok(match message.body {
        Body::NewSa(sa, _) if sas.iter().any(|(other, _)| other.id == sa.id) => {
            return Err(Errno::EEXIST);
        }
        Body::NewSa(sa, list) => {
            sas.push((sa, list));
            Vec::new()
        }
        Body::DeleteSa(id, _) => {
            let is_it = |(sa, _): &(SaInfo, _)| sa.id.spi == id.spi;
            sas.remove(sas.iter().position(is_it).ok_or(Errno::ESRCH)?);
            Vec::new()
        }
        Body::DumpSa(_) => sas.iter().cloned().map(|(sa, list)| Body::NewSa(sa, list)).collect(),
        Body::FlushSa(..) => {
            sas.clear();
            Vec::new()
        }
        Body::NewPolicy(policy, list) => {
            policies.push((policy, list));
            Vec::new()
        }
        Body::DumpPolicy(_) => {
            policies.iter().cloned().map(|(policy, list)| Body::NewPolicy(policy, list)).collect()
        }
        Body::GetSadInfo(flags) => vec![Body::NewSadInfo(flags, Vec::new())],
        _ => return Err(Errno::EOPNOTSUPP),
    })
}
