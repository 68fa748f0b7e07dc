//! How to reach the engine, and what is told to it alone.
//!
//! A connection carries netlink datagrams unchanged, one in a record, in both directions. Kinds of
//! messages from [`KIND_PRIVATE`] on are between launcher and engine: a program neither sends nor
//! gets them.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::UnixAddr;
use nix::sys::socket::connect;
use nix::sys::socket::socket;

use crate::bound::Bound;
use crate::log::Log;

/// First kind of message that is between launcher and engine.
pub const KIND_PRIVATE: u16 = 0xf000;

/// BIND, to the engine: the socket's port, and its groups as bits, two numbers of 32 bits. It is
/// the first message of a connection, and comes again when they change. There is no answer.
pub const KIND_BIND: u16 = 0xf001;

/// Octets asked for in the queues of all sockets.
pub(crate) const QUEUE_LEN: usize = 256 * 1024;

/// How long to wait before the engine is looked for again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// BIND, as octets.
pub(crate) fn bind_message(bound: Bound) -> [u8; 24] {
    let mut octets = [0; 24];
    octets[..4].copy_from_slice(&24u32.to_ne_bytes());
    octets[4..6].copy_from_slice(&KIND_BIND.to_ne_bytes());
    octets[12..16].copy_from_slice(&bound.port.to_ne_bytes());
    octets[16..20].copy_from_slice(&bound.port.to_ne_bytes());
    octets[20..].copy_from_slice(&bound.groups.to_ne_bytes());
    octets
}

/// Where the engine is, and when to look for it again.
#[derive(Debug)]
pub(crate) struct Engine {
    address: UnixAddr,
    log: Log,
    /// What was last said about it.
    is_there: Option<bool>,
    pause: Duration,
    next: Option<Instant>,
}

impl Engine {
    /// The engine that listens at `path`.
    pub(crate) fn at(path: &Path, log: Log) -> nix::Result<Engine> {
        let address = UnixAddr::new(path)?;
        Ok(Engine { address, log, is_there: None, pause: PAUSE_MIN, next: None })
    }

    /// A new connection. It never waits: `EAGAIN` when the engine has too many that it has not
    /// accepted.
    pub(crate) fn connect(&self) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(socket.as_raw_fd(), &self.address)?;
        enlarge(&socket);
        Ok(socket)
    }

    /// The same, and tells the operator when it is there or gone.
    pub(crate) fn dial(&mut self) -> nix::Result<OwnedFd> {
        let dialled = self.connect();
        match &dialled {
            Ok(_) => {
                if self.is_there == Some(false) {
                    self.log.say(format_args!("the engine is there"));
                }
                self.is_there = Some(true);
                self.pause = PAUSE_MIN;
                self.next = None;
            }
            Err(Errno::EAGAIN) => {}
            Err(reason) => {
                if self.is_there != Some(false) {
                    let path = self.address.path().unwrap_or(Path::new(""));
                    let (path, reason) = (path.display(), reason.desc());
                    self.log.say(format_args!("no engine at {path}: {reason}"));
                }
                self.is_there = Some(false);
            }
        }
        dialled
    }

    /// Whether it is time to look for the engine without being asked to.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// When that will be.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// It is not: pauses get longer.
    pub(crate) fn missed(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }
}

/// Asks for longer queues. Those of the system will do if that is refused.
pub(crate) fn enlarge(socket: &OwnedFd) {
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::SndBuf;
    use nix::sys::socket::sockopt::SndBufForce;
    if setsockopt(socket, SndBufForce, &QUEUE_LEN).is_err() {
        let _ = setsockopt(socket, SndBuf, &QUEUE_LEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses double up to a second.
    #[test]
    fn pauses_are_bounded() {
        let log = Log { verbose: false };
        let mut engine = Engine::at(Path::new("/nowhere/at/all"), log).unwrap();
        let start = Instant::now();
        assert!(engine.is_due(start));
        assert_eq!(engine.dial().unwrap_err(), Errno::ENOENT);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            engine.missed(start);
            pauses.push(engine.next().unwrap().duration_since(start).as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(!engine.is_due(start + Duration::from_millis(999)));
        assert!(engine.is_due(start + Duration::from_secs(1)));
    }

    /// BIND as its receiver reads it.
    #[test]
    fn bind_has_port_and_groups() {
        let octets = bind_message(Bound { port: 0x0102_0304, groups: 0xc3 });
        let header = culvert_xfrm::header::Header::read(&octets).unwrap();
        assert_eq!((header.len, header.kind.0, header.seq), (24, 0xf001, 0));
        assert_eq!(octets[16..], [4, 3, 2, 1, 0xc3, 0, 0, 0]);
    }
}
