//! The control socket: XFRM messages over SOCK_SEQPACKET, one datagram of netlink a record.
//!
//! Clients are IKE daemons behind `culvert exec`, `ip xfrm` behind it, and culvert's own commands.
//! Two messages are private, and no daemon sees them:
//!
//! | type | body | meaning |
//! |---|---|---|
//! | 0xf000 HELLO | u32 version | answered with the version spoken here |
//! | 0xf001 BIND | u32 port, u32 groups, u32 options | what `bind` would have said; not answered |
//!
//! Options may be missing: bit 0 is `NETLINK_CAP_ACK`, bit 1 `NETLINK_EXT_ACK`.
//!
//! What a client asks for is done in its order, and all that clients asked for in one go is settled
//! once; only then do answers leave. A client that does not read its answers is not read from. One
//! that does not read its events loses them, and is told again which SAs need a successor once it
//! has caught up. Nothing here waits for a client.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use culvert_keying::Asker;
use culvert_keying::DataPlane;
use culvert_keying::Dump;
use culvert_keying::Service;
use culvert_xfrm::Message;
use culvert_xfrm::answer::Wanted;
use culvert_xfrm::event::Groups;
use culvert_xfrm::message;
use culvert_xfrm::message::Frame;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::unistd::geteuid;
use rustix::io::Errno;
use rustix::net;
use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use tracing::debug;
use tracing::warn;
use zeroize::Zeroize;
use zeroize::Zeroizing;

use super::journal::JournalFile;

/// Version of the private messages.
pub const VERSION: u32 = 1;
/// Type of HELLO.
pub const HELLO: u16 = culvert_launch::KIND_PRIVATE;
/// Type of BIND.
pub const BIND: u16 = culvert_launch::KIND_BIND;

/// Connections that wait to be taken.
const BACKLOG: i32 = 64;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Most clients.
const CLIENTS_MAX: usize = 256;

/// Largest datagram that is read, in octets.
const DATAGRAM_MAX: usize = 1 << 16;

/// Datagrams read from one client before others have their turn: all are settled together.
const TURN_MAX: usize = 256;

/// Octets of answers that wait for a client until it is read from no more.
const ANSWERS_MAX: usize = 256 << 10;

/// Octets that wait for a client until it loses events.
const EVENTS_MAX: usize = 1 << 20;

/// Octets of listed messages that go into one datagram: strongSwan reads no more than 4096.
const LISTED_MAX: usize = 3800;

type Datagram = Zeroizing<Vec<u8>>;

/// The socket, and who is connected to it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: OwnedFd,
    path: PathBuf,
    clients: Vec<Client>,
    /// The datagram that was read last, wiped.
    buffer: Zeroizing<Vec<u8>>,
}

#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    asker: Asker,
    groups: u32,
    queue: VecDeque<Datagram>,
    /// Octets in the queue.
    queued: usize,
    /// Listings that it asked for, the first on its way.
    dumps: VecDeque<Dump>,
    /// Events were lost.
    has_missed: bool,
    is_gone: bool,
}

impl ControlSocket {
    /// Makes the socket, which nobody but root, or whoever runs this, may connect to. What a dead
    /// process left there is replaced.
    ///
    /// # Errors
    /// When it cannot be made, or somebody listens there.
    pub(super) fn open(path: &Path) -> anyhow::Result<ControlSocket> {
        let name = path.display();
        if let Some(directory) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.with_context(|| format!("control socket: cannot make {}", directory.display()))?;
        }
        let address = SocketAddrUnix::new(path)
            .with_context(|| format!("control socket: {name} is no name for a socket"))?;
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                bail!("control socket: {name} is there, and no socket");
            }
            let probe = seqpacket()?;
            if net::connect(&probe, &address).is_ok() {
                bail!("control socket: another process listens at {name}");
            }
            fs::remove_file(path)
                .with_context(|| format!("control socket: cannot replace {name}"))?;
        }
        let listener = seqpacket()?;
        let listen = || -> io::Result<()> {
            net::bind(&listener, &address)?;
            // Nobody can connect before the socket listens.
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(net::listen(&listener, BACKLOG)?)
        };
        listen().with_context(|| format!("control socket: cannot listen at {name}"))?;
        let buffer = Zeroizing::new(vec![0; DATAGRAM_MAX]);
        Ok(ControlSocket { listener, path: path.to_owned(), clients: Vec::new(), buffer })
    }

    /// What to wait for.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let clients =
            self.clients.iter().map(|client| PollFd::new(client.fd.as_fd(), client.interest()));
        std::iter::once(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN))
            .chain(clients)
            .collect()
    }

    /// Serves everybody once: takes new clients, requests and what is to be told, settles, and
    /// sends what there is room for. True when there is more to do at once.
    pub(super) fn serve(
        &mut self,
        service: &mut Service,
        plane: &mut impl DataPlane,
        journal: &mut JournalFile,
        now: u64,
    ) -> bool {
        self.accept();
        let mut is_busy = false;
        for client in &mut self.clients {
            is_busy |= client.read(&mut self.buffer, service, plane, now);
        }
        let listening = self.clients.iter().fold(0, |all, client| all | client.groups);
        service.set_listening(listening);
        // Whoever listens to everything only watches: a daemon does not.
        let listens =
            |client: &&Client| client.groups & Groups::EXPIRE != 0 && client.groups != u32::MAX;
        let mut daemons = self.clients.iter().filter(listens).peekable();
        if daemons.peek().is_some() && daemons.all(|client| client.queued < EVENTS_MAX / 2) {
            service.tell_lost();
        }
        if !service.settle(plane) {
            // No answer leaves before it is true.
            warn!("a worker takes long to do what IKE asked for");
            return true;
        }
        let events = service.take_events();
        journal.note(&events, service);
        for event in events.iter().filter(|event| listening & event.groups != 0) {
            let message = Message { flags: 0, seq: 0, port: 0, body: event.body.clone() };
            let octets = message.to_octets();
            let listeners = self.clients.iter_mut();
            for client in listeners.filter(|client| client.groups & event.groups != 0) {
                client.tell(&octets);
            }
        }
        for client in &mut self.clients {
            is_busy |= client.write(service, plane);
        }
        self.clients.retain(|client| !client.is_gone);
        is_busy
    }

    fn accept(&mut self) {
        while let Ok(fd) = net::accept_with(&self.listener, FLAGS) {
            let user = sockopt::socket_peercred(&fd).map(|peer| peer.uid.as_raw());
            let is_allowed = user.is_ok_and(|user| user == 0 || user == geteuid().as_raw());
            if !is_allowed {
                warn!("control socket: a client of another user was turned away");
                continue;
            }
            if self.clients.len() >= CLIENTS_MAX {
                warn!(most = CLIENTS_MAX, "control socket: too many clients");
                continue;
            }
            self.clients.push(Client::new(fd));
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Client {
    fn new(fd: OwnedFd) -> Client {
        Client {
            fd,
            asker: Asker::default(),
            groups: 0,
            queue: VecDeque::new(),
            queued: 0,
            dumps: VecDeque::new(),
            has_missed: false,
            is_gone: false,
        }
    }

    /// It is read from: what it asked before is answered, or as good as.
    fn is_heard(&self) -> bool {
        self.queued < ANSWERS_MAX && self.dumps.is_empty()
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::POLLIN, self.is_heard());
        interest.set(PollFlags::POLLOUT, !self.queue.is_empty() || !self.dumps.is_empty());
        interest
    }

    /// Takes its requests, a turn's worth; true when there may be more.
    fn read(
        &mut self,
        buffer: &mut [u8],
        service: &mut Service,
        plane: &mut impl DataPlane,
        now: u64,
    ) -> bool {
        for _ in 0..TURN_MAX {
            if !self.is_heard() {
                return false;
            }
            match net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((0, _)) => self.is_gone = true,
                Ok((_, len)) if len > DATAGRAM_MAX => {
                    buffer.zeroize();
                    debug!(len, "a datagram is too long");
                }
                Ok((len, _)) => {
                    self.datagram(service, plane, &buffer[..len], now);
                    buffer[..len].zeroize();
                }
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(_) => self.is_gone = true,
            }
            if self.is_gone {
                return false;
            }
        }
        true
    }

    fn datagram(
        &mut self,
        service: &mut Service,
        plane: &mut impl DataPlane,
        datagram: &[u8],
        now: u64,
    ) {
        for frame in message::messages(datagram) {
            let Ok(frame) = frame else {
                debug!("a datagram that is no netlink");
                return;
            };
            if self.is_private(&frame) {
                service.add_listening(self.groups);
                continue;
            }
            let answers = service.request(plane, self.asker, &frame, now);
            for message in &answers.messages {
                self.push(message.to_octets());
            }
            self.dumps.extend(answers.dump);
        }
    }

    /// Takes a message that is ours alone.
    fn is_private(&mut self, frame: &Frame<'_>) -> bool {
        let number = |at: usize| {
            let octets = frame.octets.get(at..at + 4)?;
            Some(u32::from_ne_bytes(octets.try_into().ok()?))
        };
        match frame.header.kind.0 {
            HELLO => {
                self.asker.is_ours = true;
                let mut answer = frame.octets.get(..16).unwrap_or_default().to_vec();
                answer[..4].copy_from_slice(&20_u32.to_ne_bytes());
                answer.extend(VERSION.to_ne_bytes());
                self.push(Zeroizing::new(answer));
                true
            }
            BIND => {
                if let (Some(port), Some(groups)) = (number(16), number(20)) {
                    (self.asker.port, self.groups) = (port, groups);
                    let options = number(24).unwrap_or(0);
                    let (capped, details) = (options & 1 != 0, options & 2 != 0);
                    self.asker.wanted = Wanted { capped, details };
                }
                true
            }
            _ => false,
        }
    }

    fn push(&mut self, datagram: Datagram) {
        self.queued += datagram.len();
        self.queue.push_back(datagram);
    }

    fn tell(&mut self, event: &Datagram) {
        if self.queued + event.len() > EVENTS_MAX {
            self.has_missed = true;
        } else {
            self.push(event.clone());
        }
    }

    /// Sends what there is room for; true when there is more.
    fn write(&mut self, service: &mut Service, plane: &mut impl DataPlane) -> bool {
        let mut has_listed = false;
        loop {
            while let Some(datagram) = self.queue.front() {
                match net::send(&self.fd, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(_) => {
                        self.queued -= datagram.len();
                        self.queue.pop_front();
                    }
                    Err(Errno::AGAIN) => return false,
                    Err(Errno::INTR) => {}
                    Err(_) => {
                        self.is_gone = true;
                        return false;
                    }
                }
            }
            if std::mem::take(&mut self.has_missed) {
                service.remind(plane);
                return true;
            }
            if has_listed {
                return true;
            }
            let Some(mut dump) = self.dumps.pop_front() else {
                return false;
            };
            has_listed = true;
            let messages = service.next_of_dump(plane, &mut dump);
            if !messages.is_empty() {
                self.dumps.push_front(dump);
            }
            self.push_listed(&messages);
        }
    }

    /// Several messages of a listing go into one datagram.
    fn push_listed(&mut self, messages: &[Message]) {
        let mut datagram = Zeroizing::new(Vec::with_capacity(DATAGRAM_MAX));
        for message in messages {
            let octets = message.to_octets();
            if !datagram.is_empty() && datagram.len() + octets.len() > LISTED_MAX {
                let whole = std::mem::replace(
                    &mut datagram,
                    Zeroizing::new(Vec::with_capacity(DATAGRAM_MAX)),
                );
                self.push(whole);
            }
            datagram.extend_from_slice(&octets);
        }
        if !datagram.is_empty() {
            self.push(datagram);
        }
    }
}

fn seqpacket() -> anyhow::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
        .context("control socket: cannot make a socket")
}
