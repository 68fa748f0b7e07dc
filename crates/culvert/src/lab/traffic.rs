//! Traffic between namespaces, measured: echo requests, a paced stream of datagrams, a transfer.
//!
//! Sender and receiver are threads of this process, each inside its namespace, so that one clock
//! times both ends and nothing has to be installed. Every run ends: what does not arrive in time is
//! lost, and a transfer that stalls is an error. Nothing here is fast enough to find the limit of a
//! gateway; it shows that packets arrive, whole, once, and how long they take.

use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use hdrhistogram::Histogram;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockProtocol;
use nix::sys::socket::SockType;
use nix::sys::socket::setsockopt;
use nix::sys::socket::socket;
use nix::sys::socket::sockopt::RcvBufForce;
use sha2::Digest;
use sha2::Sha256;

use super::namespaces::Cancel;
use super::namespaces::Ns;

/// How long a blocking call may block before it looks at the clock and the flag.
const TICK: Duration = Duration::from_millis(50);

/// Longest latency told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Most datagrams of one stream, which bounds the memory that remembers them.
const COUNT_MAX: u64 = 1 << 28;

/// Bytes of the number and the time that each datagram starts with.
const STAMP_LEN: usize = 16;

/// Socket buffer of a receiver, for bursts while its thread does not run.
const SOCKET_BUFFER: usize = 16 << 20;

/// Echo requests, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// Who is to answer.
    pub destination: IpAddr,
    /// How many.
    pub count: u16,
    /// Least time from one to the next.
    pub interval: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Bytes of data in each.
    pub size: usize,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered in time, with the right data.
    pub received: u64,
    /// Answers to requests answered before, or too late.
    pub surplus: u64,
    /// Answers with wrong data.
    pub corrupt: u64,
    /// Round trips, in nanoseconds.
    pub rtt: Histogram<u64>,
}

impl PingReport {
    /// Requests without an answer, of 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        loss(self.sent, self.received)
    }
}

impl Ping {
    /// Ten in a tenth of a second, with the usual 56 bytes.
    #[must_use]
    pub fn new(destination: IpAddr) -> Ping {
        Ping {
            destination,
            count: 10,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            size: 56,
        }
    }

    /// Sends them and waits for the answers.
    ///
    /// # Errors
    /// When the kernel has no route, or "interrupted". A lost packet is no error.
    pub fn run(&self, from: &Ns) -> Result<PingReport> {
        from.run(|| self.run_here(from.cancel()))?
            .with_context(|| format!("{}: ping {}", from.name(), self.destination))
    }

    fn run_here(&self, cancel: &Cancel) -> Result<PingReport> {
        let socket = self.socket()?;
        let mut report =
            PingReport { sent: 0, received: 0, surplus: 0, corrupt: 0, rtt: histogram() };
        let data: Vec<u8> = (0..=u8::MAX).cycle().take(self.size).collect();
        let kind = if self.destination.is_ipv4() { 8 } else { 128 };
        for number in 1..=self.count {
            cancel.check()?;
            let start = Instant::now();
            // The kernel fills in the checksum and the identifier.
            let mut request = vec![kind, 0, 0, 0, 0, 0];
            request.extend(number.to_be_bytes());
            request.extend(&data);
            report.sent += 1;
            match socket.send(&request) {
                Ok(_) => {}
                Err(error) if is_loss(&error) => continue,
                Err(error) => return Err(error.into()),
            }
            self.await_answer(&socket, number, start, &data, &mut report)?;
            if number < self.count {
                cancel.sleep(self.interval.saturating_sub(start.elapsed()))?;
            }
        }
        Ok(report)
    }

    /// Counts answers until that of `number` came or its time is over.
    fn await_answer(
        &self,
        socket: &UdpSocket,
        number: u16,
        start: Instant,
        data: &[u8],
        report: &mut PingReport,
    ) -> Result<()> {
        let mut answer = vec![0; self.size + 64];
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv(&mut answer) {
                Ok(length) => length,
                Err(error) if is_patience(&error) => continue,
                // The answer may be that there is no way.
                Err(error) if is_loss(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let rtt = start.elapsed();
            let answer = &answer[..length];
            if answer.get(6..8) != Some(&number.to_be_bytes()) {
                report.surplus += 1;
            } else if answer.get(8..) != Some(data) {
                report.corrupt += 1;
            } else {
                report.received += 1;
                report.rtt.saturating_record(nanoseconds(rtt));
                return Ok(());
            }
        }
    }

    /// A socket for echo requests only; the kernel gives it the answers to its own.
    fn socket(&self) -> Result<UdpSocket> {
        let (family, protocol) = match self.destination {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        // The standard library knows no other socket of datagrams; the calls are the same.
        let socket = UdpSocket::from(socket);
        socket.connect(SocketAddr::new(self.destination, 0))?;
        Ok(socket)
    }
}

/// A stream of datagrams at an even rate.
#[derive(Clone, Copy, Debug)]
pub struct UdpStream {
    /// Address and port of the receiver.
    pub destination: SocketAddr,
    /// Datagrams a second.
    pub rate_pps: u32,
    /// How many.
    pub count: u64,
    /// Bytes of data in each, at least 16.
    pub size: usize,
    /// How long after the last datagram was sent another may arrive.
    pub drain: Duration,
}

/// What arrived.
#[derive(Clone, Debug)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams that arrived whole.
    pub received: u64,
    /// Datagrams that had arrived before.
    pub duplicates: u64,
    /// Datagrams that arrived after one which was sent later.
    pub reordered: u64,
    /// Datagrams that arrived with wrong data.
    pub corrupt: u64,
    /// From the first to the last datagram sent.
    pub duration: Duration,
    /// From the sender's call to the receiver's, one way, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl UdpReport {
    /// Datagrams that did not arrive, of 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        loss(self.sent, self.received)
    }
}

impl UdpStream {
    /// 1000 datagrams of 1000 bytes in a second.
    #[must_use]
    pub fn new(destination: SocketAddr) -> UdpStream {
        UdpStream {
            destination,
            rate_pps: 1000,
            count: 1000,
            size: 1000,
            drain: Duration::from_secs(1),
        }
    }

    /// Sends them and counts what arrives.
    ///
    /// # Errors
    /// When a socket cannot be opened, or the kernel has no route, or "interrupted". A lost
    /// datagram is no error.
    pub fn run(&self, from: &Ns, to: &Ns) -> Result<UdpReport> {
        self.run_while(from, to, || true)
    }

    /// Sends them, but for those that are not sent yet when `go_on` says false, and counts what
    /// arrives.
    ///
    /// # Errors
    /// As [`UdpStream::run`].
    pub fn run_while(
        &self,
        from: &Ns,
        to: &Ns,
        go_on: impl Fn() -> bool + Sync,
    ) -> Result<UdpReport> {
        if self.size < STAMP_LEN || self.count > COUNT_MAX || self.rate_pps == 0 {
            bail!("{self:?}: expected size >= {STAMP_LEN}, count <= {COUNT_MAX}, rate_pps > 0");
        }
        let receiver = to
            .run(|| self.receiver())?
            .with_context(|| format!("{}: cannot receive at {}", to.name(), self.destination))?;
        let origin = Instant::now();
        let sending = AtomicBool::new(true);
        thread::scope(|scope| {
            let inbound = scope.spawn(|| self.receive(&receiver, origin, &sending, to.cancel()));
            let sent = from.run(|| self.send(origin, from.cancel(), &go_on));
            sending.store(false, Ordering::Release);
            let received = inbound.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (sent, duration) = sent?
                .with_context(|| format!("{}: cannot send to {}", from.name(), self.destination))?;
            let report = received.with_context(|| format!("{}: cannot receive", to.name()))?;
            Ok(UdpReport { sent, duration, ..report })
        })
    }

    fn receiver(&self) -> Result<UdpSocket> {
        let socket = UdpSocket::bind(self.destination)?;
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(socket)
    }

    fn send(
        &self,
        origin: Instant,
        cancel: &Cancel,
        go_on: &(impl Fn() -> bool + Sync),
    ) -> Result<(u64, Duration)> {
        let any: IpAddr = match self.destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(self.destination)?;
        let mut datagram = self.template();
        let start = Instant::now();
        for number in 0..self.count {
            let due = Duration::from_nanos(number * 1_000_000_000 / u64::from(self.rate_pps));
            // A late datagram is sent at once, so the rate holds on average.
            let early = due.saturating_sub(start.elapsed());
            if !early.is_zero() {
                thread::sleep(early);
            }
            if number % 64 == 0 {
                cancel.check()?;
            }
            if !go_on() {
                return Ok((number, start.elapsed()));
            }
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            datagram[8..STAMP_LEN].copy_from_slice(&nanoseconds(origin.elapsed()).to_be_bytes());
            match socket.send(&datagram) {
                Ok(_) => {}
                Err(error) if is_loss(&error) || is_patience(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((self.count, start.elapsed()))
    }

    /// Receives until everything came, or `drain` after the sender is done nothing comes any more.
    fn receive(
        &self,
        socket: &UdpSocket,
        origin: Instant,
        sending: &AtomicBool,
        cancel: &Cancel,
    ) -> Result<UdpReport> {
        let template = self.template();
        let mut arrivals = Arrivals::new(self.count);
        let mut buffer = vec![0; self.size + 1];
        let mut latest = Instant::now();
        loop {
            cancel.check()?;
            if sending.load(Ordering::Acquire) {
                latest = Instant::now();
            }
            // When all are there, a duplicate may still be on its way; not for as long.
            let complete = arrivals.report.received == self.count;
            let patience = if complete { TICK.min(self.drain) } else { self.drain };
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let now = nanoseconds(origin.elapsed());
                    latest = Instant::now();
                    arrivals.add(&buffer[..length], &template, now);
                }
                Err(error) if is_patience(&error) => {
                    if latest.elapsed() >= patience {
                        return Ok(arrivals.report);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A datagram; number and time are to be filled in.
    fn template(&self) -> Vec<u8> {
        let mut datagram = vec![0; STAMP_LEN];
        datagram.extend((0..=u8::MAX).cycle().take(self.size.saturating_sub(STAMP_LEN)));
        datagram
    }
}

/// What a receiver remembers of a stream.
struct Arrivals {
    report: UdpReport,
    seen: Vec<u64>,
    count: u64,
    next: u64,
}

impl Arrivals {
    fn new(count: u64) -> Arrivals {
        let words = usize::try_from(count.div_ceil(64)).expect("bounded by COUNT_MAX");
        let report = UdpReport {
            sent: 0,
            received: 0,
            duplicates: 0,
            reordered: 0,
            corrupt: 0,
            duration: Duration::ZERO,
            latency: histogram(),
        };
        Arrivals { report, seen: vec![0; words], count, next: 0 }
    }

    /// Counts one datagram, `now` in nanoseconds of the sender's clock.
    fn add(&mut self, datagram: &[u8], template: &[u8], now: u64) {
        let stamps = datagram.first_chunk().zip(datagram.get(8..).and_then(<[u8]>::first_chunk));
        let whole = datagram.get(STAMP_LEN..) == template.get(STAMP_LEN..);
        let Some((number, sent)) = stamps.filter(|_| whole) else {
            self.report.corrupt += 1;
            return;
        };
        let (number, sent) = (u64::from_be_bytes(*number), u64::from_be_bytes(*sent));
        if number >= self.count || sent > now {
            self.report.corrupt += 1;
            return;
        }
        let word = usize::try_from(number / 64).expect("bounded by COUNT_MAX");
        let bit = 1 << (number % 64);
        if self.seen[word] & bit != 0 {
            self.report.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.report.received += 1;
        self.report.reordered += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
        self.report.latency.saturating_record(now - sent);
    }
}

/// Bytes over one connection.
#[derive(Clone, Copy, Debug)]
pub struct TcpTransfer {
    /// Address and port of the receiver.
    pub destination: SocketAddr,
    /// How many.
    pub bytes: u64,
    /// When to give up.
    pub timeout: Duration,
}

/// A transfer that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpReport {
    /// Bytes received.
    pub bytes: u64,
    /// SHA-256 of the bytes sent, in hex.
    pub sha256_sent: String,
    /// SHA-256 of the bytes received, in hex.
    pub sha256_received: String,
    /// From the connect to the last byte received.
    pub duration: Duration,
}

impl TcpReport {
    /// Whether what was received is what was sent.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.sha256_sent == self.sha256_received
    }

    /// Bits of data a second.
    #[must_use]
    pub fn bits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
        let bits = self.bytes as f64 * 8.0;
        bits / self.duration.as_secs_f64()
    }
}

impl TcpTransfer {
    /// This many bytes, in a minute at most.
    #[must_use]
    pub fn new(destination: SocketAddr, bytes: u64) -> TcpTransfer {
        TcpTransfer { destination, bytes, timeout: Duration::from_secs(60) }
    }

    /// Listens, connects and sends. The bytes are pseudorandom, so that none can take another's
    /// place.
    ///
    /// # Errors
    /// When it is not over in time, when it breaks, or "interrupted".
    pub fn run(&self, from: &Ns, to: &Ns) -> Result<TcpReport> {
        let context =
            || format!("TCP from {} to {} at {}", from.name(), to.name(), self.destination);
        let deadline = Deadline {
            end: Instant::now() + self.timeout,
            cancel: from.cancel(),
            abandoned: AtomicBool::new(false),
        };
        let listener = to
            .run(|| TcpListener::bind(self.destination))?
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(context)?;
        thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&listener, &deadline));
            let start = Instant::now();
            let sent = from.run(|| self.send(&deadline)).flatten();
            // Then nobody will come any more.
            deadline.abandoned.store(sent.is_err(), Ordering::Relaxed);
            let received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (sent, received) {
                (Ok(sha256_sent), Ok((bytes, sha256_received, end))) => {
                    Ok(TcpReport { bytes, sha256_sent, sha256_received, duration: end - start })
                }
                (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
                (Err(at_sender), Err(at_receiver)) => {
                    Err(anyhow!("sender: {at_sender:#}; receiver: {at_receiver:#}"))
                }
            }
        })
        .with_context(context)
    }

    fn send(&self, deadline: &Deadline<'_>) -> Result<String> {
        let mut stream = self.connect(deadline)?;
        stream.set_write_timeout(Some(TICK))?;
        let mut hash = Sha256::new();
        let mut random = 0;
        let mut chunk = vec![0; 64 << 10];
        let mut left = self.bytes;
        while left > 0 {
            for octets in chunk.chunks_exact_mut(8) {
                octets.copy_from_slice(&split_mix(&mut random).to_le_bytes());
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            hash.update(&chunk[..length]);
            let mut rest = &chunk[..length];
            while !rest.is_empty() {
                match stream.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if is_patience(&error) => {}
                    Err(error) => return Err(error).context("cannot send"),
                }
                deadline.check()?;
            }
            left -= length as u64;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Connects in slices of time, so that the flag is seen.
    fn connect(&self, deadline: &Deadline<'_>) -> Result<TcpStream> {
        loop {
            deadline.check()?;
            match TcpStream::connect_timeout(&self.destination, Duration::from_secs(2)) {
                Ok(stream) => return Ok(stream),
                Err(error) if is_patience(&error) || is_loss(&error) => thread::sleep(TICK),
                Err(error) => return Err(error).context("cannot connect"),
            }
        }
    }
}

/// The receiving end: bytes, their hash, and when the last one was there.
fn receive(listener: &TcpListener, deadline: &Deadline<'_>) -> Result<(u64, String, Instant)> {
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if is_patience(&error) => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error).context("cannot accept"),
        }
        deadline.check()?;
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut chunk = vec![0; 256 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok((bytes, hex::encode(hash.finalize()), Instant::now())),
            Ok(length) => {
                hash.update(&chunk[..length]);
                bytes += length as u64;
            }
            Err(error) if is_patience(&error) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
        deadline.check()?;
    }
}

/// When a run has to be over.
struct Deadline<'a> {
    end: Instant,
    cancel: &'a Cancel,
    /// The sender has given up.
    abandoned: AtomicBool,
}

impl Deadline<'_> {
    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if Instant::now() >= self.end {
            bail!("not over in time");
        }
        if self.abandoned.load(Ordering::Relaxed) {
            bail!("nobody sends any more");
        }
        Ok(())
    }
}

/// The next number of a pseudorandom sequence (SplitMix64).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether an error means no more than that nothing happened yet.
fn is_patience(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether an error is the network's answer, or a full queue: the packet is lost.
fn is_loss(error: &std::io::Error) -> bool {
    use nix::libc;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable)
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds are right")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn loss(sent: u64, received: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share to print")]
    let (sent, received) = (sent.max(1) as f64, received as f64);
    1.0 - received / sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::capture::Capture;
    use crate::lab::capture::Class;
    use crate::lab::link::End;
    use crate::lab::link::Link;
    use crate::lab::namespaces::Namespaces;
    use crate::lab::namespaces::tests::laboratory;

    /// Two namespaces and a veth pair.
    fn pair() -> Option<(Namespaces, Ns, Ns)> {
        let mut lab = laboratory()?;
        let (a, b) = (lab.add("a").expect("a"), lab.add("b").expect("b"));
        Link::default()
            .connect(
                &End::new(&a, "eth", &["10.1.0.1/24", "fd01::1/64"]),
                &End::new(&b, "eth", &["10.1.0.2/24", "fd01::2/64"]),
            )
            .expect("connect");
        Some((lab, a, b))
    }

    fn far(version: u8) -> IpAddr {
        let text = if version == 4 { "10.1.0.2" } else { "fd01::2" };
        text.parse().expect("an address")
    }

    /// Pings of both families and all sizes come back, and the capture counts each of them.
    #[test]
    fn pings_come_back() {
        let Some((_lab, a, b)) = pair() else { return };
        let capture = Capture::start(&b, "eth", 10).expect("capture");
        let start = Instant::now();
        for version in [4, 6] {
            for size in [0, 56, 1400] {
                let ping = Ping { size, ..Ping::new(far(version)) };
                let report = ping.run(&a).expect("ping");
                assert_eq!((report.sent, report.received), (10, 10), "IPv{version} {size}");
                assert_eq!((report.surplus, report.corrupt, report.rtt.len()), (0, 0, 10));
            }
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let captured = capture.stop().expect("stop");
        assert_eq!(captured.counts[Class::Other], 2 * 2 * 3 * 10, "{:?}", captured.counts);
        assert!(captured.counts[Class::Arp] >= 2);
        assert_eq!((captured.missed, captured.frames.len()), (0, 10));
    }

    /// Loss is counted, not waited for without end; no route is an error.
    #[test]
    fn pings_get_lost() {
        let Some((_lab, a, b)) = pair() else { return };
        b.sysctl("net.ipv4.icmp_echo_ignore_all", "1").expect("sysctl");
        let ping = Ping { count: 3, timeout: Duration::from_millis(50), ..Ping::new(far(4)) };
        let report = ping.run(&a).expect("ping");
        assert_eq!((report.sent, report.received), (3, 0));
        assert!((report.loss() - 1.0).abs() < f64::EPSILON);
        let nowhere = Ping::new("192.0.2.77".parse().expect("an address"));
        let error = format!("{:#}", nowhere.run(&a).expect_err("no route"));
        assert!(error.contains("192.0.2.77") && error.contains("unreachable"), "{error}");
    }

    /// A stream arrives whole and once, at its rate, with one latency for each datagram.
    #[test]
    fn a_stream_arrives() {
        let Some((_lab, a, b)) = pair() else { return };
        for version in [4, 6] {
            let destination = SocketAddr::new(far(version), 9000);
            let stream = UdpStream { rate_pps: 5000, count: 2000, ..UdpStream::new(destination) };
            let report = stream.run(&a, &b).expect("stream");
            assert_eq!((report.sent, report.received), (2000, 2000), "IPv{version}");
            assert_eq!((report.duplicates, report.reordered, report.corrupt), (0, 0, 0));
            assert_eq!(report.latency.len(), 2000);
            assert!(report.duration >= Duration::from_millis(390), "{:?}", report.duration);
            assert!(report.latency.min() > 0 && report.latency.value_at_quantile(0.5) < 10_000_000);
        }
    }

    /// A stream over a dead link ends, and everything is lost.
    #[test]
    fn a_stream_gets_lost() {
        let Some((_lab, a, b)) = pair() else { return };
        b.ip("link set eth down").expect("down");
        let destination = SocketAddr::new(far(4), 9000);
        let drain = Duration::from_millis(100);
        let stream = UdpStream { count: 100, drain, ..UdpStream::new(destination) };
        let report = stream.run(&a, &b).expect("stream");
        assert_eq!((report.sent, report.received), (100, 0));
        assert!((report.loss() - 1.0).abs() < f64::EPSILON);
    }

    /// Duplicates, late ones and damage are told apart.
    #[test]
    fn arrivals_are_told_apart() {
        let stream =
            UdpStream { size: 20, ..UdpStream::new("10.0.0.1:1".parse().expect("address")) };
        let template = stream.template();
        let mut arrivals = Arrivals::new(100);
        let mut arrive = |number: u64, damage: &dyn Fn(&mut Vec<u8>)| {
            let mut datagram = template.clone();
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            datagram[8..16].copy_from_slice(&5_u64.to_be_bytes());
            damage(&mut datagram);
            arrivals.add(&datagram, &template, 12);
        };
        for number in [0, 2, 1, 2, 99] {
            arrive(number, &|_| {});
        }
        arrive(100, &|_| {});
        arrive(3, &|datagram| datagram[19] ^= 1);
        arrive(3, &|datagram| datagram.truncate(15));
        arrive(3, &|datagram| datagram.push(0));
        let report = arrivals.report;
        assert_eq!((report.received, report.duplicates), (4, 1));
        assert_eq!((report.reordered, report.corrupt), (1, 4));
        assert_eq!((report.latency.len(), report.latency.max()), (4, 7));
    }

    /// Ten megabytes arrive intact over both families.
    #[test]
    fn a_transfer_is_intact() {
        let Some((_lab, a, b)) = pair() else { return };
        for version in [4, 6] {
            let destination = SocketAddr::new(far(version), 9001);
            let report = TcpTransfer::new(destination, 10_000_001).run(&a, &b).expect("transfer");
            assert_eq!(report.bytes, 10_000_001);
            assert!(report.is_intact() && report.bits_per_second() > 1e6, "{report:?}");
        }
    }

    /// A transfer over a broken link ends in time with an error, and an interrupt ends it at once.
    #[test]
    fn a_transfer_gives_up() {
        let Some((_lab, a, b)) = pair() else { return };
        let destination = SocketAddr::new(far(4), 9002);
        let transfer = TcpTransfer {
            timeout: Duration::from_secs(30),
            ..TcpTransfer::new(destination, 1 << 40)
        };
        let start = Instant::now();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(200));
                a.cancel().set();
            });
            transfer.run(&a, &b).expect_err("interrupted")
        });
        assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

        let Some((_lab, a, b)) = pair() else { return };
        let short = TcpTransfer { timeout: Duration::from_millis(300), ..transfer };
        let error = short.run(&a, &b).expect_err("too much for the time");
        assert!(format!("{error:#}").contains("not over in time"), "{error:#}");
    }
}
