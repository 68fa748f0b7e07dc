//! Frames seen on an interface: counted by class, the first ones kept, and frames sent from there.
//!
//! What crosses the wire between two gateways is the proof that nothing leaves in the clear. The
//! witness therefore classifies frames by itself and shares no parser with the engine.
//!
//! It is an AF_PACKET socket and its thread. It sees what passes the packet taps of the interface,
//! in both directions, not what it injects itself; see [`link`](super::link) for where such a tap
//! sees everything. The kernel takes a VLAN tag off before a tap sees the frame. When frames come
//! faster than the thread reads, the socket's buffer overflows, and [`Captured::missed`] says so.

use std::ops::Index;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockType;
use nix::sys::socket::setsockopt;
use nix::sys::socket::socket;
use nix::sys::socket::sockopt::RcvBufForce;
use pnet_datalink::Channel;
use pnet_datalink::Config;
use pnet_datalink::DataLinkReceiver;
use pnet_datalink::DataLinkSender;

use super::namespaces::InterfaceCounters;
use super::namespaces::Ns;

/// Longest frame that is read whole: a segmentation super-frame.
const FRAME_MAX: usize = 66_000;

/// Socket buffer, for bursts while the thread does not run.
const SOCKET_BUFFER: usize = 64 << 20;

/// How often the thread looks whether to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// How long after the last frame a capture goes on, so that frames under way are seen.
const SETTLE: Duration = Duration::from_millis(50);

/// What a frame is, as far as the wire between two gateways is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// ESP directly in IPv4.
    Esp4,
    /// ESP directly in IPv6.
    Esp6,
    /// UDP from or to port 4500, over IPv4 or IPv6, but for IKE.
    Udp4500,
    /// UDP from or to port 500, or port 4500 with the non-ESP marker (RFC 3948 section 2.2).
    Ike,
    /// Address resolution of IPv4.
    Arp,
    /// Neighbour and router discovery of IPv6 (RFC 4861).
    Neighbour,
    /// Multicast listener discovery (RFC 3810), which every IPv6 host speaks.
    Mld,
    /// ICMP errors that quote ESP or IKE: a kernel sends them about what nobody takes.
    Error,
    /// Anything else. Between gateways this would be a leak.
    Other,
}

impl Class {
    /// All, in the order of their discriminants.
    pub const ALL: [Class; 9] = [
        Class::Esp4,
        Class::Esp6,
        Class::Udp4500,
        Class::Ike,
        Class::Arp,
        Class::Neighbour,
        Class::Mld,
        Class::Error,
        Class::Other,
    ];

    /// Looks at an Ethernet frame with at most one VLAN tag.
    #[must_use]
    pub fn of(frame: &[u8]) -> Class {
        classify(frame).unwrap_or(Class::Other)
    }

    /// What to call it in print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Esp4 => "ESP over IPv4",
            Class::Esp6 => "ESP over IPv6",
            Class::Udp4500 => "UDP port 4500",
            Class::Ike => "IKE",
            Class::Arp => "ARP",
            Class::Neighbour => "neighbour discovery",
            Class::Mld => "multicast listener discovery",
            Class::Error => "ICMP errors about IPsec",
            Class::Other => "other",
        }
    }
}

/// Frames by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_class: [u64; Class::ALL.len()],
    /// Bytes of all frames.
    pub bytes: u64,
}

impl Counts {
    /// All frames.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_class.iter().sum()
    }

    /// ESP in all forms.
    #[must_use]
    pub fn esp(&self) -> u64 {
        self[Class::Esp4] + self[Class::Esp6] + self[Class::Udp4500]
    }

    /// Classes that occurred, with their number of frames.
    pub fn iter(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        Class::ALL.into_iter().map(|class| (class, self[class])).filter(|(_, count)| *count > 0)
    }
}

impl Index<Class> for Counts {
    type Output = u64;

    fn index(&self, class: Class) -> &u64 {
        &self.by_class[class as usize]
    }
}

/// A capture under way. It ends with [`Capture::stop`], or on drop.
pub struct Capture {
    ns: Ns,
    interface: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    sender: Box<dyn DataLinkSender>,
    before: InterfaceCounters,
    injected: u64,
}

/// What a capture saw.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Frames by class.
    pub counts: Counts,
    /// The first frames.
    pub frames: Vec<Vec<u8>>,
    /// Frames that the interface counted and the capture did not see. Frames that pass while a
    /// capture starts or stops make it a few more.
    pub missed: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counts: Counts,
    frames: Vec<Vec<u8>>,
    keep: usize,
    failure: Option<String>,
}

impl Capture {
    /// Starts to capture. The first `keep` frames are kept, all are counted.
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses the socket.
    pub fn start(ns: &Ns, interface: &str, keep: usize) -> Result<Capture> {
        let (sender, receiver) = ns
            .run(|| open(interface))?
            .with_context(|| format!("{}: cannot capture on {interface}", ns.name()))?;
        let before = ns.counters(interface)?;
        let shared = Arc::new(Shared::default());
        shared.lock().keep = keep;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || read(receiver, &of_thread))
            .context("cannot start the capture thread")?;
        Ok(Capture {
            ns: ns.clone(),
            interface: interface.to_owned(),
            shared,
            thread: Some(thread),
            sender,
            before,
            injected: 0,
        })
    }

    /// Sends an Ethernet frame out of the interface, to whoever is at its other end.
    ///
    /// # Errors
    /// When the kernel refuses it: too long, or the interface is down.
    pub fn inject(&mut self, frame: &[u8]) -> Result<()> {
        self.sender
            .send_to(frame, None)
            .context("the capture cannot send")?
            .with_context(|| format!("{}: cannot send {} bytes", self.interface, frame.len()))?;
        self.injected += 1;
        Ok(())
    }

    /// Frames by class, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// The kept frames of one class, so far.
    #[must_use]
    pub fn frames(&self, class: Class) -> Vec<Vec<u8>> {
        let seen = self.shared.lock();
        seen.frames.iter().filter(|frame| Class::of(frame) == class).cloned().collect()
    }

    /// Forgets the kept frames, so that the next ones are kept.
    pub fn forget(&mut self) {
        self.shared.lock().frames.clear();
    }

    /// Waits until the counts satisfy `enough`; false when `timeout` passes before.
    ///
    /// # Errors
    /// "interrupted".
    pub fn wait(&self, timeout: Duration, enough: impl Fn(&Counts) -> bool) -> Result<bool> {
        self.ns.cancel().wait(timeout, || enough(&self.counts()))
    }

    /// Ends the capture once the wire is quiet for a moment, at most a second.
    ///
    /// # Errors
    /// When the socket failed while capturing.
    pub fn stop(mut self) -> Result<Captured> {
        for _ in 0..20 {
            let before = self.counts();
            thread::sleep(SETTLE);
            if self.counts() == before {
                break;
            }
        }
        let after = self.ns.counters(&self.interface)?;
        self.end();
        let mut seen = self.shared.lock();
        if let Some(failure) = &seen.failure {
            bail!("{}: {}: {failure}", self.ns.name(), self.interface);
        }
        let on_wire = (after.rx_packets + after.tx_packets)
            .saturating_sub(self.before.rx_packets + self.before.tx_packets + self.injected);
        Ok(Captured {
            counts: seen.counts,
            frames: std::mem::take(&mut seen.frames),
            missed: on_wire.saturating_sub(seen.counts.total()),
        })
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A packet socket on an interface of the calling thread's namespace: what is written leaves it,
/// and what passes its packet taps can be read.
///
/// # Errors
/// When there is no such interface, or the kernel refuses the socket.
pub fn socket_on(interface: &str) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let bound = socket.try_clone()?;
    // For its binding alone: nix makes no address of an interface.
    drop(channel_over(socket, interface)?);
    Ok(bound)
}

/// Both directions of an interface of the calling thread's namespace.
fn open(interface: &str) -> Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    // Without a protocol it receives nothing until it is bound to the interface, so that no frame
    // of another one is counted.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)?;
    channel_over(socket, interface)
}

/// Binds the socket to the interface.
fn channel_over(
    socket: OwnedFd,
    interface: &str,
) -> Result<(Box<dyn DataLinkSender>, Box<dyn DataLinkReceiver>)> {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|candidate| candidate.name == interface)
        .context("no such interface")?;
    let config = Config {
        read_buffer_size: FRAME_MAX,
        read_timeout: Some(READ_TIMEOUT),
        socket_fd: Some(socket.into_raw_fd()),
        ..Config::default()
    };
    match pnet_datalink::channel(&interface, config)? {
        Channel::Ethernet(sender, receiver) => Ok((sender, receiver)),
        _ => bail!("not an Ethernet interface"),
    }
}

/// The thread: reads until told to stop.
fn read(mut receiver: Box<dyn DataLinkReceiver>, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        match receiver.next() {
            Ok(frame) => shared.lock().add(frame),
            Err(error) if is_patience(&error) => {}
            Err(error) => {
                shared.lock().failure = Some(error.to_string());
                return;
            }
        }
    }
}

/// Whether an error of a read means no more than that there is nothing yet.
fn is_patience(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Seen {
    fn add(&mut self, frame: &[u8]) {
        self.counts.by_class[Class::of(frame) as usize] += 1;
        self.counts.bytes += frame.len() as u64;
        if self.frames.len() < self.keep {
            self.frames.push(frame.to_vec());
        }
    }
}

/// `None` for frames that end too early.
fn classify(frame: &[u8]) -> Option<Class> {
    let (mut kind, mut packet) = (frame.get(12..14)?, frame.get(14..)?);
    if kind == [0x81, 0x00] {
        (kind, packet) = (packet.get(2..4)?, packet.get(4..)?);
    }
    match kind {
        [0x08, 0x06] => Some(Class::Arp),
        [0x08, 0x00] => four(packet),
        [0x86, 0xdd] => six(packet),
        _ => None,
    }
}

fn four(packet: &[u8]) -> Option<Class> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    // A fragment but the first has no header behind that of IP.
    let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
    let payload = packet.get(header_len..)?;
    match (packet.get(9)?, payload.first()?) {
        (50, _) => Some(Class::Esp4),
        (17, _) if offset == 0 => udp(payload),
        (1, 3 | 11 | 12) => error(payload.get(8..)?, four),
        _ => None,
    }
}

fn six(packet: &[u8]) -> Option<Class> {
    let (mut next, mut payload) = (*packet.get(6)?, packet.get(40..)?);
    // Multicast listener discovery comes behind a hop-by-hop header (RFC 3810 section 5).
    if next == 0 {
        let length = 8 + usize::from(*payload.get(1)?) * 8;
        (next, payload) = (*payload.first()?, payload.get(length..)?);
    }
    match (next, payload.first()?) {
        (50, _) => Some(Class::Esp6),
        (17, _) => udp(payload),
        (58, 133..=137) => Some(Class::Neighbour),
        (58, 130..=132 | 143) => Some(Class::Mld),
        (58, 1..=4) => error(payload.get(8..)?, six),
        _ => None,
    }
}

/// An error about a packet of this family.
fn error(quoted: &[u8], of: impl Fn(&[u8]) -> Option<Class>) -> Option<Class> {
    let about = [Class::Esp4, Class::Esp6, Class::Udp4500, Class::Ike];
    of(quoted).filter(|class| about.contains(class)).map(|_| Class::Error)
}

/// Only the ports of IKE and of UDP-encapsulated ESP are known here.
fn udp(header: &[u8]) -> Option<Class> {
    let (source, destination) = (header.get(0..2)?, header.get(2..4)?);
    let between = |port: u16| [source, destination].contains(&port.to_be_bytes().as_slice());
    let marked = header.get(8..12).is_some_and(|marker| marker == [0; 4]);
    match (between(500), between(4500)) {
        (true, _) => Some(Class::Ike),
        (_, true) if marked => Some(Class::Ike),
        (_, true) => Some(Class::Udp4500),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::link::End;
    use crate::lab::link::Link;
    use crate::lab::namespaces::tests::laboratory;

    /// An Ethernet frame around an IPv4 packet of this protocol.
    fn four(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]);
        frame.extend([0; 10]);
        frame.extend(payload);
        frame
    }

    /// An Ethernet frame around an IPv6 packet with this next header.
    fn six(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next_header, 64]);
        frame.extend([0; 32]);
        frame.extend(payload);
        frame
    }

    /// Each class is recognised, with and without a VLAN tag, and nothing else is.
    #[test]
    fn frames_are_classified() {
        let natt = [0x11, 0x94, 0x30, 0x39, 0, 8, 0, 0];
        let dns = [0x30, 0x39, 0, 53, 0, 8, 0, 0];
        let ike = [0x01, 0xf4, 0x30, 0x39, 0, 8, 0, 0];
        let marked = [0x30, 0x39, 0x11, 0x94, 0, 12, 0, 0, 0, 0, 0, 0];
        let keepalive = [0x30, 0x39, 0x11, 0x94, 0, 9, 0, 0, 0xff];
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        let mut fragment = four(17, &natt);
        fragment[14 + 7] = 1;
        let about = |quoted: Vec<u8>| [&[3, 2, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat();
        let too_big = |quoted: Vec<u8>| [&[2, 0, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat();
        let hop_by_hop = [58, 0, 5, 2, 0, 0, 1, 0, 143, 0];
        let cases = [
            (four(50, &[1]), Class::Esp4),
            (six(50, &[1]), Class::Esp6),
            (four(17, &natt), Class::Udp4500),
            (six(17, &natt), Class::Udp4500),
            (four(17, &ike), Class::Ike),
            (six(17, &marked), Class::Ike),
            (four(17, &keepalive), Class::Udp4500),
            (arp, Class::Arp),
            (six(58, &[135]), Class::Neighbour),
            (six(58, &[136]), Class::Neighbour),
            (six(0, &hop_by_hop), Class::Mld),
            (four(1, &about(four(50, &[1]))), Class::Error),
            (four(1, &about(four(17, &ike))), Class::Error),
            (six(58, &too_big(six(50, &[1]))), Class::Error),
            (four(1, &about(four(17, &dns))), Class::Other),
            (four(17, &dns), Class::Other),
            (fragment, Class::Other),
            (six(58, &[128]), Class::Other),
            (four(1, &[8]), Class::Other),
            (four(6, &natt), Class::Other),
        ];
        for (frame, class) in cases {
            assert_eq!(Class::of(&frame), class, "{frame:02x?}");
            let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
            assert_eq!(Class::of(&tagged), class, "tagged {frame:02x?}");
            // Shorter ones are something or other, and no panic.
            for length in 0..frame.len() {
                let _ = Class::of(&frame[..length]);
            }
        }
    }

    /// What is injected at one end of a wire is seen once at both ports of its bridge, whole, and
    /// nothing else is there.
    #[test]
    fn a_wire_shows_each_frame_once() {
        let Some(mut lab) = laboratory() else { return };
        let (a, b) = (lab.add("gw-a").expect("a"), lab.add("gw-b").expect("b"));
        let middle = lab.add("wire").expect("wire");
        let left = End::new(&a, "wan0", &["192.0.2.1/24", "2001:db8::1/64"]);
        let right = End::new(&b, "wan0", &["192.0.2.2/24", "2001:db8::2/64"]);
        let wire = Link::default().wire(&left, &right, &middle).expect("wire");
        let mut at_a = Capture::start(&a, "wan0", 0).expect("a");
        let at_left = Capture::start(&wire.ns, wire.left, 1000).expect("left");
        let at_right = Capture::start(&wire.ns, wire.right, 1000).expect("right");
        let mut frame = four(50, &[7; 1000]);
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        for _ in 0..100 {
            at_a.inject(&frame).expect("inject");
        }
        let all = |counts: &Counts| counts[Class::Esp4] == 100;
        assert!(at_right.wait(Duration::from_secs(5), all).expect("wait"));
        let (left, right) = (at_left.stop().expect("left"), at_right.stop().expect("right"));
        for captured in [&left, &right] {
            assert_eq!(captured.counts.esp(), 100, "{:?}", captured.counts);
            // The ends may still say which multicast groups they listen to.
            assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
            assert!(captured.frames.contains(&frame));
            assert_eq!(captured.missed, 0);
        }
        assert_eq!(at_a.counts().esp(), 0, "a capture does not see what it injects");
    }
}
