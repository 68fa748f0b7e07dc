//! [`Client`]: one conversation with the control socket of a gateway that runs.
//!
//! Whatever is at the other end, nothing here waits for ever: each answer must come within a time,
//! and a whole listing within ten times that and a number of messages.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use culvert_xfrm::Body;
use culvert_xfrm::Malformed;
use culvert_xfrm::Message;
use culvert_xfrm::answer::Detail;
use culvert_xfrm::header::Flags;
use culvert_xfrm::header::Header;
use culvert_xfrm::message;
use rustix::io::Errno;
use rustix::net;
use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use rustix::net::sockopt::Timeout;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::run::socket::BIND;
use crate::run::socket::HELLO;
use crate::run::socket::VERSION;

/// Longest answer, in octets: one datagram.
const DATAGRAM_MAX: usize = 1 << 16;

/// Most messages that answer one request; there are at most 2^20 SAs, and as many policies.
const MESSAGES_MAX: usize = (1 << 20) + (1 << 16);

/// How many times longer than one answer a whole listing may take.
const LISTING_PATIENCE: u32 = 10;

/// `NETLINK_CAP_ACK` and `NETLINK_EXT_ACK` in BIND: no request comes back, and words do.
const OPTIONS: u32 = 0b11;

/// Why there is no answer, or none of the kind that was hoped for.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error(
        "there is no control socket {}: `culvert run` makes it when its configuration has a \
         [control] section", .0.display()
    )]
    Missing(PathBuf),
    #[error("nobody listens at {}: the gateway that made it has ended", .0.display())]
    Ended(PathBuf),
    #[error("{}: {}: root may, and the user that runs the gateway", .0.display(), errno(*.1))]
    Denied(PathBuf, i32),
    #[error("{}: {}", .0.display(), errno(*.1))]
    Socket(PathBuf, i32),
    #[error(
        "the gateway closed the connection: it turns away other users, and clients beyond its \
         256th"
    )]
    Closed,
    #[error("no answer within {} seconds", .0.as_secs_f64())]
    Late(Duration),
    #[error("the answer does not end")]
    Endless,
    #[error("the answer is not one: {0}")]
    Malformed(#[from] Malformed),
    #[error("the answer is not one: {0}")]
    Odd(&'static str),
    #[error("the gateway speaks version {0} of the private messages, this program {VERSION}")]
    Version(u32),
    #[error("{}", refusal(*.errno, .text.as_deref()))]
    Refused { errno: i32, text: Option<String> },
}

/// An error number by name and in words.
pub(crate) fn errno(number: i32) -> String {
    let errno = nix::errno::Errno::from_raw(number);
    match errno {
        nix::errno::Errno::UnknownErrno => format!("errno {number}"),
        errno => format!("{} ({errno:?})", errno.desc().to_lowercase()),
    }
}

fn refusal(number: i32, text: Option<&str>) -> String {
    let errno = nix::errno::Errno::from_raw(number);
    match text.filter(|text| !text.starts_with("errno ")) {
        Some(text) => format!("refused: {text} ({errno:?})"),
        None => format!("refused: {}", self::errno(number)),
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    fd: OwnedFd,
    path: PathBuf,
    timeout: Duration,
    seq: u32,
}

impl Client {
    /// Connects, and makes sure that a gateway is at the other end. Each answer must come within
    /// `timeout`.
    pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<Client, ClientError> {
        let socket = |error: Errno| failed(path, error);
        let address = SocketAddrUnix::new(path).map_err(socket)?;
        let flags = SocketFlags::CLOEXEC;
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let fd = fd.map_err(socket)?;
        for which in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&fd, which, Some(timeout)).map_err(socket)?;
        }
        net::connect(&fd, &address).map_err(|error| match error {
            Errno::AGAIN => ClientError::Late(timeout),
            error => failed(path, error),
        })?;
        let mut client = Client { fd, path: path.to_owned(), timeout, seq: 0 };
        client.greet()?;
        Ok(client)
    }

    /// Process of the gateway.
    pub(crate) fn pid(&self) -> Option<i32> {
        sockopt::socket_peercred(&self.fd).ok().map(|peer| peer.pid.as_raw_nonzero().get())
    }

    fn greet(&mut self) -> Result<(), ClientError> {
        self.send(&private(HELLO, &[VERSION]))?;
        self.send(&private(BIND, &[0, 0, OPTIONS]))?;
        let mut buffer = Zeroizing::new(vec![0; DATAGRAM_MAX]);
        let answer = self.receive(&mut buffer)?;
        let version = answer.get(Header::LEN..).and_then(|body| body.first_chunk());
        let header = Header::read(answer);
        match (header, version) {
            (Some(header), Some(version)) if header.kind.0 == HELLO => {
                let version = u32::from_ne_bytes(*version);
                if version == VERSION { Ok(()) } else { Err(ClientError::Version(version)) }
            }
            _ => Err(ClientError::Odd("no greeting")),
        }
    }

    /// Asks for one thing; what is answered beside the acknowledgement.
    pub(crate) fn ask(&mut self, body: Body) -> Result<Option<Body>, ClientError> {
        let mut answer = None;
        self.converse(body, Flags::REQUEST | Flags::ACK, |body| {
            let is_first = answer.is_none();
            answer = Some(body);
            if is_first { Ok(()) } else { Err(ClientError::Odd("several for one request")) }
        })?;
        Ok(answer)
    }

    /// Asks for all there are, one after the other.
    pub(crate) fn list(
        &mut self,
        body: Body,
        mut each: impl FnMut(Body),
    ) -> Result<(), ClientError> {
        self.converse(body, Flags::REQUEST | Flags::DUMP, |body| {
            each(body);
            Ok(())
        })
    }

    /// Sends a request, and takes what comes until the last of its answers.
    fn converse(
        &mut self,
        body: Body,
        flags: u16,
        mut each: impl FnMut(Body) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.seq += 1;
        let request = Message { flags, seq: self.seq, port: 0, body };
        self.send(&request.to_octets())?;
        let is_listing = flags & Flags::DUMP != 0;
        let deadline = Instant::now() + self.timeout * LISTING_PATIENCE;
        let mut buffer = Zeroizing::new(vec![0; DATAGRAM_MAX]);
        let mut count = 0;
        loop {
            let datagram = self.receive(&mut buffer)?;
            for frame in message::messages(datagram) {
                let answer = Message::parse(frame?.octets)?;
                if answer.seq != self.seq {
                    return Err(ClientError::Odd("it belongs to another request"));
                }
                count += 1;
                match answer.body {
                    Body::Error(error) => return ended(error.errno, error.details),
                    Body::Done(done) if is_listing => return ended(done.errno, done.details),
                    Body::Noop => {}
                    body => each(body)?,
                }
                if count > MESSAGES_MAX {
                    return Err(ClientError::Endless);
                }
            }
            if Instant::now() > deadline {
                return Err(ClientError::Endless);
            }
        }
    }

    fn send(&self, octets: &[u8]) -> Result<(), ClientError> {
        match net::send(&self.fd, octets, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// The next datagram; an empty one is the end.
    fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], ClientError> {
        let (_, len) = loop {
            match net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.lost(error)),
                Ok(received) => break received,
            }
        };
        match len {
            0 => Err(ClientError::Closed),
            len => buffer.get(..len).ok_or(ClientError::Odd("it is longer than 64 KiB")),
        }
    }

    fn lost(&self, error: Errno) -> ClientError {
        match error {
            Errno::AGAIN => ClientError::Late(self.timeout),
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ClientError::Closed,
            error => failed(&self.path, error),
        }
    }
}

fn failed(path: &Path, error: Errno) -> ClientError {
    let number = error.raw_os_error();
    match io::Error::from(error).kind() {
        io::ErrorKind::NotFound => ClientError::Missing(path.to_owned()),
        io::ErrorKind::ConnectionRefused => ClientError::Ended(path.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned(), number),
        _ => ClientError::Socket(path.to_owned(), number),
    }
}

fn ended(errno: Option<culvert_xfrm::Errno>, details: Vec<Detail>) -> Result<(), ClientError> {
    let text = details.into_iter().find_map(|detail| match detail {
        // Nothing that a terminal would do something at.
        Detail::Text(text) => Some(text.replace(char::is_control, " ")),
        _ => None,
    });
    errno.map_or(Ok(()), |errno| Err(ClientError::Refused { errno: errno.0, text }))
}

/// A message that is culvert's own.
fn private(kind: u16, numbers: &[u32]) -> Vec<u8> {
    let len = Header::LEN + 4 * numbers.len();
    let mut octets = u32::try_from(len).unwrap_or(0).to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(Flags::REQUEST.to_ne_bytes());
    octets.extend([0; 8]);
    octets.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    octets
}
