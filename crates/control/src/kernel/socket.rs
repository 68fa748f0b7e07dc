//! The two netlink sockets: one that announcements arrive at, one for listings.
//!
//! Announcements must not get between the parts of a listing, hence two. Requests to resolve a
//! neighbour go out of the first, so that a refusal is read along with the announcements.
//!
//! Only datagrams of the kernel itself are read; what cannot be parsed is reported and skipped.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkBuffer;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkExtentMask;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc::MSG_DONTWAIT;
use nix::libc::MSG_TRUNC;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use nix::sys::time::TimeVal;

use super::KernelError;
use super::table::Outcome;

/// Multicast groups: link, neigh, ipv4 and ipv6 ifaddr, ipv4 and ipv6 route
/// (`enum rtnetlink_groups` of linux/rtnetlink.h).
const GROUPS: [u32; 6] = [1, 3, 5, 9, 7, 11];
/// Nexthop objects; Linux before 5.3 has neither the group nor the objects.
const GROUP_NEXTHOP: u32 = 32;
/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP`.
const NEXTHOP_MESSAGES: [u16; 2] = [104, 105];

/// Larger than any netlink message of the kernel.
const DATAGRAM_MAX: usize = 256 * 1024;
/// Announcements the kernel may queue for us, in octets.
const QUEUE_OCTETS: usize = 8 * 1024 * 1024;
/// Seconds to wait for the next part of a listing, before the kernel is taken to have failed.
const DUMP_TIMEOUT_S: i64 = 10;

/// What [`Events::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// No announcement waits.
    Nothing,
    /// Announcements were lost, because we read too slowly.
    Lost,
    /// A datagram, to be read by [`Events::messages`].
    Datagram,
}

/// A message, and what matters of its netlink header.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) payload: NetlinkPayload<RouteNetlinkMessage>,
    pub(super) flags: u16,
    sequence: u32,
}

/// The socket at which announcements arrive.
#[derive(Debug)]
pub(super) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
    len: usize,
}

impl Events {
    /// Subscribes.
    pub(super) fn open() -> Result<Events, KernelError> {
        let socket = open_socket()?;
        // More than the system-wide limit needs a privilege; without it the queue stays short, and
        // losses are noticed.
        if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_OCTETS).is_err() {
            _ = setsockopt(&socket, sockopt::RcvBuf, &QUEUE_OCTETS);
        }
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("subscribe"))?;
        }
        _ = socket.add_membership(GROUP_NEXTHOP);
        Ok(Events { socket, buffer: vec![0; DATAGRAM_MAX], len: 0 })
    }

    /// Reads one datagram if there is one.
    pub(super) fn receive(&mut self) -> Result<Event, KernelError> {
        self.len = 0;
        match receive(&self.socket, &mut self.buffer, MSG_DONTWAIT) {
            Ok(len) => {
                self.len = len;
                Ok(Event::Datagram)
            }
            Err(Errno::EAGAIN) => Ok(Event::Nothing),
            Err(Errno::ENOBUFS | Errno::EMSGSIZE) => Ok(Event::Lost),
            Err(error) => Err(failed("receive")(error.into())),
        }
    }

    /// The messages of the datagram just received, or what to do instead of reading one.
    pub(super) fn messages(&self) -> impl Iterator<Item = Result<Message, Outcome>> {
        split(&self.buffer[..self.len])
    }

    /// Sends a request; refusals arrive among the announcements.
    pub(super) fn send(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        send(&self.socket, request, flags, 0)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A table to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Links,
    Addresses,
    Routes(AddressFamily),
    Neighbours(AddressFamily),
}

impl Dump {
    /// Everything, in the order in which it must be read.
    pub(super) const ALL: [Dump; 6] = [
        Dump::Links,
        Dump::Addresses,
        Dump::Routes(AddressFamily::Inet),
        Dump::Routes(AddressFamily::Inet6),
        Dump::Neighbours(AddressFamily::Inet),
        Dump::Neighbours(AddressFamily::Inet6),
    ];

    fn name(self) -> &'static str {
        match self {
            Dump::Links => "links",
            Dump::Addresses => "addresses",
            Dump::Routes(_) => "routes",
            Dump::Neighbours(_) => "neighbours",
        }
    }

    fn request(self) -> RouteNetlinkMessage {
        match self {
            Dump::Links => {
                let mut request = LinkMessage::default();
                request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                RouteNetlinkMessage::GetLink(request)
            }
            Dump::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            Dump::Routes(family) => {
                let mut request = RouteMessage::default();
                request.header.address_family = family;
                RouteNetlinkMessage::GetRoute(request)
            }
            Dump::Neighbours(family) => {
                let mut request = NeighbourMessage::default();
                request.header.family = family;
                RouteNetlinkMessage::GetNeighbour(request)
            }
        }
    }

    /// A kernel without a family answers a request for it with those it has.
    fn asked_for(self, message: &RouteNetlinkMessage) -> bool {
        match (self, message) {
            (Dump::Routes(family), RouteNetlinkMessage::NewRoute(route)) => {
                route.header.address_family == family
            }
            (Dump::Neighbours(family), RouteNetlinkMessage::NewNeighbour(neighbour)) => {
                neighbour.header.family == family
            }
            _ => true,
        }
    }
}

/// The socket for listings.
#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> Result<Requests, KernelError> {
        let socket = open_socket()?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(DUMP_TIMEOUT_S, 0))
            .map_err(|error| failed("set a timeout")(error.into()))?;
        Ok(Requests { socket, buffer: vec![0; DATAGRAM_MAX], sequence: 0 })
    }

    /// Lists a table and hands out its entries, `None` for one that cannot be parsed; false when
    /// the table changed meanwhile and the listing may lack entries.
    pub(super) fn dump(
        &mut self,
        dump: Dump,
        mut each: impl FnMut(Option<RouteNetlinkMessage>),
    ) -> Result<bool, KernelError> {
        let refused = |error| KernelError::Dump { what: dump.name(), error };
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, dump.request(), NLM_F_DUMP, self.sequence).map_err(refused)?;
        let mut complete = true;
        loop {
            let len = match receive(&self.socket, &mut self.buffer, 0) {
                Ok(len) => len,
                Err(error) => return Err(refused(error.into())),
            };
            for message in split(&self.buffer[..len]) {
                let Ok(Message { payload, flags, sequence }) = message else {
                    each(None);
                    continue;
                };
                if sequence != self.sequence {
                    // Left over from a listing that failed half way.
                    continue;
                }
                complete &= flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) if dump.asked_for(&message) => {
                        each(Some(message));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Done(_) => return Ok(complete),
                    NetlinkPayload::Error(answer) => return Err(refused(answer.to_io())),
                    _ => {}
                }
            }
        }
    }
}

fn open_socket() -> Result<Socket, KernelError> {
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
    socket.bind_auto().map_err(failed("bind"))?;
    Ok(socket)
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    move |error| KernelError::Socket { operation, error }
}

/// Receives one datagram of the kernel and returns its length.
fn receive(socket: &Socket, buffer: &mut [u8], flags: i32) -> Result<usize, Errno> {
    loop {
        match socket.recv_from(&mut &mut *buffer, flags | MSG_TRUNC) {
            Ok((_, sender)) if sender.port_number() != 0 => {}
            Ok((len, _)) if len > buffer.len() => return Err(Errno::EMSGSIZE),
            Ok((len, _)) => return Ok(len),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::EINTR => {}
                errno => return Err(errno),
            },
        }
    }
}

fn send(
    socket: &Socket,
    request: RouteNetlinkMessage,
    flags: u16,
    sequence: u32,
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(|_| ())
}

/// The messages of a datagram. A length that cannot be ends it.
fn split(mut datagram: &[u8]) -> impl Iterator<Item = Result<Message, Outcome>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Ok(header) = NetlinkBuffer::new_checked(datagram) else {
            datagram = &[];
            return Some(Err(Outcome::Malformed));
        };
        let len = header.length() as usize;
        let (kind, flags, sequence) =
            (header.message_type(), header.flags(), header.sequence_number());
        let message = &datagram[..len];
        datagram = &datagram[len.next_multiple_of(4).min(datagram.len())..];
        if NEXTHOP_MESSAGES.contains(&kind) {
            return Some(Err(Outcome::Reread));
        }
        Some(match NetlinkMessage::deserialize(message) {
            Ok(message) => Ok(Message { payload: message.payload, flags, sequence }),
            Err(_) => Err(Outcome::Malformed),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An octet string of a header and a payload; `len` is what the header claims.
    fn message(kind: u16, len: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn outcomes(datagram: &[u8]) -> Vec<Result<u32, Outcome>> {
        split(datagram).map(|message| message.map(|message| message.sequence)).collect()
    }

    /// A message that does not parse is skipped, and the one behind it is read.
    #[test]
    fn skips_what_does_not_parse() {
        let link = [0; 16];
        let mut datagram = message(16, 16 + 3, &[1, 2, 3]);
        datagram.push(0);
        datagram.extend(message(16, 16 + 16, &link));
        assert_eq!(outcomes(&datagram), [Err(Outcome::Malformed), Ok(7)]);
    }

    /// Lengths shorter than a header or longer than the datagram end it, without a panic.
    #[test]
    fn impossible_lengths_end_the_datagram() {
        for len in [0, 1, 15, 33, u32::MAX] {
            let datagram = message(16, len, &[0; 16]);
            assert_eq!(outcomes(&datagram), [Err(Outcome::Malformed)], "length {len}");
        }
        assert_eq!(outcomes(&[1, 2, 3]), [Err(Outcome::Malformed)]);
        assert_eq!(outcomes(&[]), []);
    }

    /// Announcements of nexthop objects are not parsed; they make the tables be read again.
    #[test]
    fn nexthop_objects_make_us_read_again() {
        for kind in NEXTHOP_MESSAGES {
            assert_eq!(outcomes(&message(kind, 16, &[])), [Err(Outcome::Reread)]);
        }
    }

    /// Garbage of any shape is skipped without a panic.
    #[test]
    fn garbage_does_not_panic() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        for round in 0..20_000u32 {
            let payload: Vec<u8> = (0..round % 96).map(|_| random()).collect();
            let len = u32::try_from(16 + payload.len()).unwrap();
            for kind in [16, 17, 20, 21, 24, 25, 28, 29, 2, 3] {
                split(&message(kind, len, &payload)).for_each(drop);
            }
        }
    }
}
