//! Which policy a packet meets: in the kernel by its time of use, here by order and selector.

use std::net::IpAddr;
use std::net::SocketAddrV4;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use culvert_keying::policies::Policy;
use culvert_keying::selector::convert;
use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_wire::ip::Addresses;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Port;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::sa::Mark;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockFlag;
use nix::sys::socket::SockProtocol;
use nix::sys::socket::SockType;
use nix::sys::socket::SockaddrIn;
use nix::sys::socket::bind;
use nix::sys::socket::sendto;
use nix::sys::socket::setsockopt;
use nix::sys::socket::socket;
use nix::sys::socket::sockopt;

use crate::lab::Lab;
use crate::lab::ip;
use crate::make::none;
use crate::make::policy;
use crate::random::Chance;

const SOURCES: [&str; 4] = ["10.1.1.1", "10.1.1.2", "10.1.2.1", "10.3.0.1"];
const DESTINATIONS: [&str; 4] = ["10.2.1.1", "10.2.1.2", "10.2.2.1", "10.4.0.1"];
const SOURCES6: [&str; 2] = ["fd00:1::1", "fd00:1:0:1::1"];
const DESTINATIONS6: [&str; 2] = ["fd00:2::1", "fd00:2:0:1::1"];

const NETWORKS: [&str; 15] = [
    "0.0.0.0/0 0.0.0.0/0",
    "0.0.0.0/0 10.2.0.0/16",
    "0.0.0.0/0 10.2.1.1/32",
    "10.1.0.0/16 0.0.0.0/0",
    "10.1.1.0/24 0.0.0.0/0",
    "10.1.1.1/32 10.2.1.1/32",
    "10.1.1.2/32 10.2.1.2/32",
    "10.1.0.0/16 10.2.0.0/16",
    "10.1.1.0/24 10.2.1.0/24",
    "10.0.0.0/8 10.2.1.0/30",
    "10.1.1.3/31 10.2.1.3/31",
    "0.0.0.0/0 fd00:2::/32",
    "fd00:1::/32 fd00:2::/32",
    "fd00:1::/64 fd00:2::/64",
    "fd00:1::1/128 fd00:2::1/128",
];

/// Addresses that packets go from, and a way for them.
pub(crate) fn set_up() {
    ip("link add p0 type veth peer name p1");
    for address in SOURCES {
        ip(&format!("address add {address}/8 dev p0"));
    }
    for address in SOURCES6 {
        ip(&format!("address add {address}/16 dev p0 nodad"));
    }
    ip("link set p0 up");
    ip("link set p1 up");
    for address in DESTINATIONS.iter().chain(&DESTINATIONS6) {
        ip(&format!("neigh add {address} lladdr 02:00:00:00:00:01 dev p0 nud permanent"));
    }
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) upper: Upper,
    pub(crate) mark: u32,
}

impl Packet {
    /// UDP.
    pub(crate) fn udp(source: &str, destination: &str, ports: (u16, u16)) -> Packet {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an ip"));
        let upper = Upper::Ports { source: ports.0, destination: ports.1 };
        Packet { source, destination, upper, mark: 0 }
    }

    pub(crate) fn flow(&self) -> Flow {
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let (source, destination) = (number(self.source), number(self.destination));
        let addresses = Addresses { is_v4: self.source.is_ipv4(), source, destination };
        let protocol = if matches!(self.upper, Upper::Icmp(_)) { 1 } else { 17 };
        Flow { addresses, protocol, upper: self.upper }
    }

    /// Sends it; whether a policy lets it pass.
    pub(crate) fn send(&self) -> bool {
        match (self.upper, self.source, self.destination) {
            (Upper::Ports { source, destination }, ..) => {
                let socket = UdpSocket::bind((self.source, source)).expect("a free port");
                setsockopt(&socket, sockopt::Mark, &self.mark).expect("a mark");
                socket.send_to(b"x", (self.destination, destination)).is_ok()
            }
            (Upper::Icmp(number), IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (kind, protocol) = (SockType::Raw, SockProtocol::Icmp);
                let socket = socket(AddressFamily::Inet, kind, SockFlag::empty(), protocol);
                let socket = socket.expect("a raw socket");
                let address = |ip| SockaddrIn::from(SocketAddrV4::new(ip, 0));
                setsockopt(&socket, sockopt::Mark, &self.mark).expect("a mark");
                let fd = socket.as_raw_fd();
                bind(fd, &address(source)).expect("an address of ours");
                let [message_type, code] = number.to_be_bytes();
                let octets = [message_type, code, 0, 0, 0, 0, 0, 0];
                sendto(fd, &octets, &address(destination), MsgFlags::empty()).is_ok()
            }
            _ => panic!("no such packet"),
        }
    }
}

/// Sends a packet: both databases apply the same policy to it. Its index.
pub(crate) fn send(lab: &mut Lab, packet: &Packet) -> Option<u32> {
    let used = |lab: &mut Lab| -> Vec<PolicyInfo> {
        let answers = lab.kernel_list();
        answers.into_iter().filter(|info| info.usage.use_time != 0).collect()
    };
    assert!(used(lab).is_empty(), "{}: used before", lab.name);
    let passed = packet.send();
    let kernel = used(lab);
    let mut ordered = lab.ours.ordered(Direction::OUT);
    let ours = ordered.find(|policy| admits(policy, packet)).map(|policy| *policy.info());
    let indices: Vec<_> = kernel.iter().map(|info| info.index).collect();
    let expected: Vec<_> = ours.iter().map(|info| info.index).collect();
    assert_eq!(expected, indices, "{}: ours, the kernel's: {packet:?}", lab.name);
    let is_blocked = ours.is_some_and(|info| info.action == Action::BLOCK);
    assert_eq!(passed, !is_blocked, "{}: {packet:?}", lab.name);
    expected.first().copied()
}

fn admits(policy: &Policy, packet: &Packet) -> bool {
    let mark = policy.mark();
    let selectors = convert(&policy.info().sel).expect("selectors of the engine");
    let is_marked = packet.mark & mark.mask == mark.value && policy.if_id() == 0;
    is_marked && selectors.iter().any(|selector| selector.matches(&packet.flow()))
}

fn info(chance: &mut Chance) -> PolicyInfo {
    let text = chance.of(&NETWORKS);
    let mut info = policy(text, Direction::OUT, chance.of(&[0, 1, 1, 1, 2]));
    info.action = chance.of(&[Action::ALLOW, Action::BLOCK]);
    info.sel.proto = chance.of(&[0, 0, 17, 17, 17, 1, 1, 6, 50]);
    if info.sel.proto == 1 && info.sel.family.0 == 10 {
        info.sel.proto = 17;
    }
    let port = |chance: &mut Chance| {
        let masks = [0, 0, 0xffff, 0xfffe, 0xfff0, 0x0001, 0xff01, 0x0ff0, 0x8000, 0xff00, 0x2000];
        (Port(chance.of(&[5000, 5001, 53, 8, 3, 1, 0, 256])), Port(chance.of(&masks)))
    };
    if info.sel.proto != 0 && !chance.once_in(3) {
        (info.sel.sport, info.sel.sport_mask) = port(chance);
        (info.sel.dport, info.sel.dport_mask) = port(chance);
    }
    info
}

fn packet(chance: &mut Chance) -> Packet {
    let is_four = !chance.once_in(4);
    let (source, destination) = if is_four {
        (chance.of(&SOURCES), chance.of(&DESTINATIONS))
    } else {
        (chance.of(&SOURCES6), chance.of(&DESTINATIONS6))
    };
    let ports = (chance.of(&[5000, 5001, 5016]), chance.of(&[53, 5000, 256, 769]));
    let mut packet = Packet::udp(source, destination, ports);
    packet.mark = chance.of(&[0, 0, 1, 3]);
    if is_four && chance.once_in(3) {
        let number = chance.of(&[8, 3, 0, 11]) * 256 + chance.of(&[0, 1, 3]);
        packet.upper = Upper::Icmp(number);
    }
    packet
}

/// Some policies, and a packet, so often. How many packets met one.
pub(crate) fn meet(lab: &mut Lab, seed: u64, count: usize) -> usize {
    let mut chance = Chance::new(seed);
    let mut met = 0;
    for number in 0..count {
        lab.name = format!("seed {seed}, packet {number}");
        for _ in 0..chance.below(20) {
            let mut list = Vec::new();
            if chance.once_in(5) {
                let (value, mask) = chance.of(&[(1, 1), (1, 3), (3, 3), (0, 2)]);
                list.push(Attribute::Mark(Mark { value, mask }));
            }
            if chance.once_in(20) {
                list.push(Attribute::IfId(1));
            }
            let info = info(&mut chance);
            // What needs too many ranges is refused by the engine.
            if convert(&info.sel).is_ok() {
                lab.ask(&Body::NewPolicy(info, Attributes(list)));
            }
        }
        met += usize::from(send(lab, &packet(&mut chance)).is_some());
        lab.ask(&Body::FlushPolicy(none()));
    }
    met
}
