//! A laboratory of network namespaces: a gateway with a host on each side.
//!
//! ```text
//! host a: lan1 ═══ lan0 [gateway] wan0 ═══ wan1 :host b
//! ```
//!
//! Names are unique to the process and the test; everything is removed when the laboratory is
//! dropped, also by a failing test.

use std::fs;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::panic;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sched::CloneFlags;
use nix::sched::setns;

/// True when namespaces cannot be made; says so.
pub(crate) fn skip() -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return false;
    }
    eprintln!("SKIPPED: this test makes network namespaces and needs root");
    true
}

/// The three namespaces.
pub(crate) struct Lab {
    gateway: String,
    a: String,
    b: String,
}

impl Lab {
    /// Namespaces joined by veth pairs with `queues` queues each way at every end.
    pub(crate) fn new(queues: usize) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("cvx{}-{count}{part}", std::process::id());
        let lab = Lab { gateway: name("g"), a: name("a"), b: name("b") };
        for namespace in lab.namespaces() {
            run(&format!("ip netns add {namespace}"));
            // Neighbour and router discovery would mix with the test's packets.
            within(namespace, || {
                for scope in ["all", "default"] {
                    let knob = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                    fs::write(knob, "1").unwrap();
                }
            });
        }
        for (host, near, far) in [(&lab.a, "lan0", "lan1"), (&lab.b, "wan0", "wan1")] {
            let (gateway, many) =
                (&lab.gateway, format!("numrxqueues {queues} numtxqueues {queues}"));
            run(&format!(
                "ip link add {near} netns {gateway} {many} type veth peer name {far} netns {host} \
                 {many}"
            ));
            run(&format!("ip -n {gateway} link set {near} up"));
            run(&format!("ip -n {host} link set {far} up"));
        }
        lab
    }

    /// Runs `body` inside the gateway.
    pub(crate) fn at_gateway<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        within(&self.gateway, body)
    }

    /// A packet socket on `lan1` of host a.
    pub(crate) fn host_a(&self) -> Host {
        within(&self.a, || Host::open("lan1"))
    }

    /// A packet socket on `wan1` of host b.
    pub(crate) fn host_b(&self) -> Host {
        within(&self.b, || Host::open("wan1"))
    }

    /// Runs a command in the gateway and returns what it prints.
    pub(crate) fn gateway_runs(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.gateway))
    }

    /// Runs a command in host a and returns what it prints.
    pub(crate) fn host_a_runs(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.a))
    }

    /// Runs a command in host b and returns what it prints.
    pub(crate) fn host_b_runs(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.b))
    }

    fn namespaces(&self) -> [&str; 3] {
        [&self.gateway, &self.a, &self.b]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces() {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// Runs a command line; panics with its output when it fails.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}` failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn within<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    let inside = move || {
        setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
        body()
    };
    let result = thread::scope(|scope| scope.spawn(inside).join());
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// A host: a packet socket on its one interface.
pub(crate) struct Host {
    socket: OwnedFd,
}

impl Host {
    fn open(interface: &str) -> Host {
        let protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let (kind, flags) = (libc::SOCK_RAW, libc::SOCK_CLOEXEC);
        // SAFETY: no memory is passed, and the descriptor is fresh.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind | flags, i32::from(protocol));
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all-zero bits are valid for this structure of numbers.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = protocol;
        let index = nix::net::if_::if_nametoindex(interface).unwrap();
        address.sll_ifindex = i32::try_from(index).unwrap();
        let length = u32::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address is live and of this length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let room = 256 << 20;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &room)
            .unwrap();
        Host { socket }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = nix::unistd::write(&self.socket, frame).unwrap();
        assert_eq!(sent, frame.len());
    }

    /// Receives a frame, waiting at most `timeout`.
    pub(crate) fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        use nix::poll::PollFd;
        use nix::poll::PollFlags;
        use nix::poll::PollTimeout;
        use std::os::fd::AsFd;

        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap();
        if nix::poll::poll(&mut polled, timeout).unwrap() == 0 {
            return None;
        }
        let mut frame = vec![0; 65536];
        let length = nix::unistd::read(&self.socket, &mut frame).unwrap();
        frame.truncate(length);
        Some(frame)
    }

    /// Receives frames until there are `count`, or none came for two seconds.
    pub(crate) fn receive_all(&self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            match self.receive(Duration::from_secs(2)) {
                Some(frame) => frames.push(frame),
                None => break,
            }
        }
        frames
    }
}

/// Repeats `body` until it says it is done; panics after ten seconds.
pub(crate) fn until(what: &str, mut body: impl FnMut() -> bool) {
    let start = Instant::now();
    while !body() {
        assert!(start.elapsed() < Duration::from_secs(10), "timed out: {what}");
        thread::yield_now();
    }
}

/// A number that a frame carries, to tell it from the others.
pub(crate) fn number_of(frame: &[u8]) -> u32 {
    let last = frame.last_chunk().expect("a frame of the test");
    u32::from_be_bytes(*last)
}

/// UDP in IPv4 to a protected prefix, `size` bytes of Ethernet frame that end in `number`. The
/// source port is the `flow`.
pub(crate) fn udp_frame(flow: u16, number: u32, size: usize) -> Vec<u8> {
    let mut frame = ipv4(17, [10, 1, 0, 1], [10, 2, 0, 1], size);
    frame[34..36].copy_from_slice(&flow.to_be_bytes());
    frame[36..38].copy_from_slice(&7_u16.to_be_bytes());
    let length = u16::try_from(size - 34).unwrap();
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    frame[size - 4..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// ESP in IPv4, `size` bytes of Ethernet frame that end in `number`.
pub(crate) fn esp_frame(number: u32, size: usize) -> Vec<u8> {
    let mut frame = ipv4(50, [192, 0, 2, 2], [192, 0, 2, 1], size);
    frame[34..38].copy_from_slice(&0x1001_u32.to_be_bytes());
    frame[38..42].copy_from_slice(&number.to_be_bytes());
    frame[size - 4..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The frame with a VLAN tag.
pub(crate) fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 5]);
    frame
}

fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], size: usize) -> Vec<u8> {
    let mut frame = vec![0; size];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    let length = u16::try_from(size - 14).unwrap();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[22] = 64;
    frame[23] = protocol;
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}
