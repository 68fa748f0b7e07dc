//! [`Raw`]: a client that sends any octets, and reads when it likes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::Secret;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::algorithm::Aead;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::header::Flags;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::message;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlags;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;
use rustix::net;
use rustix::net::AddressFamily;
use rustix::net::RecvFlags;
use rustix::net::SendFlags;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use rustix::net::sockopt;
use rustix::net::sockopt::Timeout;

/// Longest wait for an answer that takes milliseconds.
const LONG: Duration = Duration::from_secs(30);

/// A connection.
pub(crate) struct Raw {
    pub(crate) fd: OwnedFd,
    seq: u32,
}

pub(crate) fn seqpacket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket")
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Raw {
        let fd = seqpacket();
        for which in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&fd, which, Some(LONG)).expect("a timeout");
        }
        net::connect(&fd, &SocketAddrUnix::new(path).expect("a path")).expect("connected");
        Raw { fd, seq: 0 }
    }

    pub(crate) fn send(&self, octets: &[u8]) {
        net::send(&self.fd, octets, SendFlags::NOSIGNAL).expect("sent");
    }

    /// False when there is no room, or nobody.
    pub(crate) fn try_send(&self, octets: &[u8]) -> bool {
        net::send(&self.fd, octets, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
    }

    /// The next datagram; nothing when the connection was closed.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        let (_, len) = net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()).ok()?;
        buffer.truncate(len);
        (len > 0).then_some(buffer)
    }

    /// Reads what is there.
    pub(crate) fn drain(&self) -> usize {
        let mut buffer = vec![0; 1 << 16];
        let mut count = 0;
        while let Ok((_, 1..)) = net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
            count += 1;
        }
        count
    }

    /// The octets of a request, with a number of its own.
    pub(crate) fn request(&mut self, flags: u16, body: Body) -> Vec<u8> {
        self.seq += 1;
        let flags = Flags::REQUEST | flags;
        Message { flags, seq: self.seq, port: 0, body }.to_octets().to_vec()
    }

    /// Asks, and waits for the last answer; all of them.
    pub(crate) fn ask(&mut self, body: Body) -> Vec<Body> {
        let request = self.request(Flags::ACK, body);
        self.send(&request);
        self.answers()
    }

    /// Answers up to the last one.
    pub(crate) fn answers(&self) -> Vec<Body> {
        let mut bodies = Vec::new();
        loop {
            let datagram = self.receive().expect("an answer");
            for frame in message::messages(&datagram) {
                let octets = frame.expect("a message").octets;
                let body = Message::parse(octets).expect("a message").body;
                let is_last = matches!(body, Body::Error(_) | Body::Done(_));
                bodies.push(body);
                if is_last {
                    return bodies;
                }
            }
        }
    }
}

/// What a request was answered with: nothing for an acknowledgement.
pub(crate) fn errno(answers: &[Body]) -> Option<i32> {
    match answers.last() {
        Some(Body::Error(error)) => error.errno.map(|errno| errno.0),
        other => panic!("{other:?}"),
    }
}

/// An SA of AES-GCM with an SPI, from the gateway to 192.0.2.2 or back.
pub(crate) fn new_sa(spi: u32, direction: SaDirection) -> Body {
    let ends = ["192.0.2.1", "192.0.2.2"].map(|end| {
        let ip: std::net::IpAddr = end.parse().expect("an address");
        ip.into()
    });
    let [saddr, daddr] = if direction == SaDirection::OUT { ends } else { [ends[1], ends[0]] };
    let info = SaInfo {
        id: XfrmId { daddr, spi: Spi(spi), proto: sa::ESP },
        saddr,
        limits: Limits::UNLIMITED,
        reqid: 1,
        family: Family::INET,
        mode: Mode::TUNNEL,
        flags: SaFlags::AF_UNSPEC,
        replay_window: if direction == SaDirection::OUT { 0 } else { 32 },
        ..SaInfo::default()
    };
    // A key of its own: none may be used twice.
    let mut key = vec![0x5a; 20];
    key[..4].copy_from_slice(&spi.to_be_bytes());
    let name = Name::new("rfc4106(gcm(aes))").expect("a name");
    let aead = Aead { name, icv_bits: 128, key: Key::new(Secret::new(key)) };
    let list = vec![Attribute::AlgAead(aead), Attribute::Direction(direction)];
    Body::NewSa(info, Attributes(list))
}

/// How requests name that SA.
pub(crate) fn sa_id(spi: u32, direction: SaDirection) -> SaId {
    let Body::NewSa(info, _) = new_sa(spi, direction) else {
        unreachable!("it makes SAs");
    };
    SaId { daddr: info.id.daddr, spi: info.id.spi, family: info.family, proto: info.id.proto }
}
