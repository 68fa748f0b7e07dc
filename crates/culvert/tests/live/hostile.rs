//! What must not arrive is counted under its own reason, and harms nobody.
//!
//! The attacker sits on the wire between the gateways, and on the plaintext network of gateway b.
//! Besides, there is an insider: a peer with a key, whose packets are authentic and wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use culvert::lab::Capture;
use culvert::lab::sites::Gateway;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert::run::RunReport;
use culvert_sim::plain::Plain;
use culvert_sim::plain::ip_packet;
use culvert_sim::plain::link_frame;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;
use culvert_wire::udp;

use crate::support::Lab;
use crate::support::Peer;
use crate::support::assert_balanced;
use crate::support::mac;
use crate::support::settle;
use crate::support::text;

/// Octets of an untagged Ethernet header.
const LINK: usize = 14;
/// Octets of an IPv4 header without options.
const IPV4: usize = 20;

const INSIDER: &str = "10.3.0.9";
const INSIDER_V6: &str = "fd03::9";

/// Where a frame must be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    /// By the engine, under this reason.
    Drop(&'static str),
    /// By the engine, as put aside until the rest comes; and then under this reason, if any.
    Aside(Option<&'static str>),
    /// By the XDP program, under this class; it goes to the kernel.
    Kernel(&'static str),
}

use Counted::Aside;
use Counted::Drop;
use Counted::Kernel;

/// A frame with a name and where it must be counted.
type Hostile = (&'static str, Vec<u8>, Counted);

/// Who is who on the two links of gateway b.
struct Stations {
    wan: Mac,
    lan: Mac,
    gw_a: Mac,
    host_b: Mac,
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `frame` with octets at `at` replaced.
fn with(mut frame: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

/// An IPv4 frame with the header checksum that is right for what the header says.
fn summed(frame: Vec<u8>) -> Vec<u8> {
    let frame = with(frame, LINK + 10, &[0, 0]);
    let end = (LINK + usize::from(frame[LINK] & 15) * 4).min(frame.len());
    let sum = checksum::internet(&frame[LINK..end]);
    with(frame, LINK + 10, &sum.to_be_bytes())
}

fn datagram(port: u16, length: u16, data: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::emit(&mut datagram, 4500, port, length, 0);
    datagram.extend(data);
    datagram
}

impl Stations {
    fn of(lab: &Lab) -> Stations {
        Stations {
            wan: mac(&lab.sites.gw_b, "wan0"),
            lan: mac(&lab.sites.gw_b, "lan0"),
            gw_a: mac(&lab.sites.gw_a, "wan0"),
            host_b: mac(&lab.sites.host_b, "eth0"),
        }
    }

    /// A frame from gateway a to gateway b.
    fn wire(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let packet = ip_packet(address("192.0.2.1"), address("192.0.2.2"), protocol, payload);
        link_frame(self.wan, self.gw_a, None, ethernet::ETHER_TYPE_IPV4, &packet)
    }

    /// The same over IPv6.
    fn wire_v6(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let packet = ip_packet(address("2001:db8::1"), address("2001:db8::2"), protocol, payload);
        link_frame(self.wan, self.gw_a, None, ethernet::ETHER_TYPE_IPV6, &packet)
    }

    fn esp(&self, esp: &[u8]) -> Vec<u8> {
        self.wire(ip::PROTOCOL_ESP, esp)
    }

    fn natt(&self, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(udp::HEADER_LEN + data.len()).expect("short");
        self.wire(ip::PROTOCOL_UDP, &datagram(4500, length, data))
    }

    /// A frame from host b to gateway b.
    fn host(&self, source: &str, destination: &str, ttl: u8) -> Vec<u8> {
        let plain = Plain { ttl, ..Plain::new(address(source), address(destination), 1) };
        plain.frame(self.lan, self.host_b, None)
    }

    /// Outer headers that contradict themselves or the frame.
    fn outer_headers(&self) -> Vec<Hostile> {
        let sealed = self.esp(&Peer::new().seal_as(9000, &text(&[1; 40], ip::PROTOCOL_IPIP)));
        let v6 = self.wire_v6(ip::PROTOCOL_ESP, &[7; 60]);
        let udp = |length, data: &[u8]| self.wire(ip::PROTOCOL_UDP, &datagram(4500, length, data));
        let malformed = Drop("malformed");
        vec![
            ("wrong header checksum", with(sealed.clone(), LINK + 10, &[0xde, 0xad]), malformed),
            (
                "packet longer than its frame",
                summed(with(sealed.clone(), LINK + 2, &[0x04, 0])),
                malformed,
            ),
            (
                "packet shorter than its header",
                summed(with(sealed.clone(), LINK + 2, &[0, 19])),
                malformed,
            ),
            (
                "header longer than its packet",
                summed(with(self.esp(&[2; 24]), LINK, &[0x4f])),
                malformed,
            ),
            ("frame cut in the middle", sealed[..60].to_vec(), malformed),
            ("seven octets of ESP", self.esp(&[1; 7]), malformed),
            ("no octet of ESP", self.esp(&[]), malformed),
            ("IPv6 payload beyond the frame", with(v6, LINK + 4, &[0xff, 0xff]), malformed),
            ("UDP length beyond the packet", udp(100, &[1; 40]), malformed),
            ("UDP length below its header", udp(7, &[1; 40]), malformed),
            ("version 5", with(sealed.clone(), LINK, &[0x55]), Kernel("malformed")),
            ("header of four words", with(sealed.clone(), LINK, &[0x44]), Kernel("malformed")),
            ("half an IPv4 header", sealed[..LINK + 7].to_vec(), Kernel("short")),
            ("another station", with(sealed.clone(), 5, &[!self.wan.0[5]]), Drop("other_host")),
            ("broadcast", with(sealed, 0, &[0xff; 6]), Drop("other_host")),
        ]
    }

    /// Sound outer headers around what is no ESP, or no ESP of ours.
    fn not_ours(&self) -> Vec<Hostile> {
        let sealed = self.esp(&Peer::new().seal_as(9001, &text(&[1; 40], ip::PROTOCOL_IPIP)));
        let spi = |spi: u32, rest: usize| [&spi.to_be_bytes()[..], &vec![1; rest]].concat();
        let other = summed(with(sealed.clone(), LINK + 16, &[192, 0, 2, 77]));
        vec![
            ("empty datagram to 4500", self.natt(&[]), Drop("runt")),
            ("runt of one octet", self.natt(&[0xfe]), Drop("runt")),
            ("runt of seven octets", self.natt(&[0xff; 7]), Drop("runt")),
            ("SPI of nobody", self.esp(&spi(0xdead_beef, 60)), Drop("no_sa")),
            ("SPI of nobody in UDP", self.natt(&spi(0xdead_beef, 60)), Drop("no_sa")),
            ("SPI 0", self.esp(&spi(0, 60)), Drop("no_sa")),
            ("our SPI to another address", other, Drop("no_sa")),
            ("our SPI over IPv6", self.wire_v6(50, &spi(Peer::SPI, 60)), Drop("no_sa")),
            ("too short for IV and ICV", self.esp(&spi(Peer::SPI, 16)), Drop("truncated")),
            ("not a multiple of 4", self.esp(&spi(Peer::SPI, 61)), Drop("truncated")),
            ("keepalive", self.natt(&[0xff]), Kernel("keepalive")),
            ("IKE", self.natt(&[0; 40]), Kernel("ike")),
        ]
    }

    /// Fragments whose rest never comes, or contradicts them (I01, I02).
    fn fragments(&self) -> Vec<Hostile> {
        let fragment = |id: u8, place: [u8; 2], len| {
            let frame = with(self.esp(&vec![id; len]), LINK + 4, &[0, id]);
            summed(with(frame, LINK + 6, &place))
        };
        let udp = |place: &[u8]| summed(with(self.wire(17, &[4; 24]), LINK + 6, place));
        vec![
            ("first fragment", fragment(1, [0x20, 0], 64), Aside(None)),
            ("the same again", fragment(1, [0x20, 0], 64), Drop("reassembly")),
            ("later fragment", fragment(2, [0, 9], 40), Aside(None)),
            ("fragment that is overlapped", fragment(3, [0x20, 0], 64), Aside(Some("reassembly"))),
            ("fragment that overlaps", fragment(3, [0x20, 4], 64), Drop("reassembly")),
            ("fragment of no whole words", fragment(4, [0x20, 0], 63), Drop("malformed")),
            ("fragment beyond 65535", fragment(5, [0x1f, 0xff], 64), Drop("malformed")),
            ("IPv6 fragment", self.wire_v6(44, &[50; 60]), Aside(None)),
            ("later fragment of some UDP", udp(&[0, 9]), Kernel("fragment")),
        ]
    }

    /// In clear to what policy protects (P11).
    fn in_clear(&self) -> Vec<Hostile> {
        let clear = |source: &str, destination: &str, ether_type| {
            let packet = Plain::new(address(source), address(destination), 1).packet();
            link_frame(self.wan, self.gw_a, None, ether_type, &packet)
        };
        let (v4, v6) = (ethernet::ETHER_TYPE_IPV4, ethernet::ETHER_TYPE_IPV6);
        vec![
            ("a's address in clear", clear(HOST_A[0], HOST_B[0], v4), Drop("plaintext")),
            ("a's IPv6 address in clear", clear(HOST_A[1], HOST_B[1], v6), Drop("plaintext")),
            ("a stranger in clear", clear("10.77.0.1", HOST_B[0], v4), Drop("no_policy")),
        ]
    }

    /// ESP to our SA that is not, or no longer, authentic.
    fn forged(&self, peer: &mut Peer) -> Vec<Hostile> {
        let inner = Plain::new(address(INSIDER), address("10.2.0.100"), 1).packet();
        let text = text(&inner, ip::PROTOCOL_IPIP);
        let good = self.esp(&peer.seal_as(5000, &text));
        let (seq, last) = (LINK + IPV4 + 4, good.len() - 1);
        let flipped = |at: usize| with(good.clone(), at, &[!good[at]]);
        let zero = self.esp(&peer.seal_as(0, &text));
        vec![
            ("flipped bits in the text", flipped(seq + 20), Drop("icv")), // I12
            ("flipped bits in the IV", flipped(seq + 4), Drop("icv")),
            ("flipped bits in the ICV", flipped(last), Drop("icv")),
            ("another number", with(good.clone(), seq, &[0, 0, 0x14, 0]), Drop("icv")),
            ("number zero", zero, Drop("replay")), // I10
        ]
    }

    /// Authentic packets that must not come out. Each has its own number.
    fn insider(&self, peer: &mut Peer) -> Vec<Hostile> {
        let plain = |from: &str, to: &str| Plain::new(address(from), address(to), 1);
        let good = plain(INSIDER, HOST_B[0]);
        let good_v6 = plain(INSIDER_V6, HOST_B[1]);
        let mut seal = |packet: Vec<u8>| self.esp(&peer.seal(&text(&packet, ip::PROTOCOL_IPIP)));
        let mut cases = vec![
            (
                "inner checksum wrong",
                seal(with(good.packet(), 10, &[1, 1])),
                Drop("inner_malformed"),
            ),
            ("inner packet cut", seal(good.packet()[..60].to_vec()), Drop("inner_malformed")),
            ("no inner packet", seal(vec![]), Drop("inner_malformed")),
            ("IPv6 announced as IPv4", seal(good_v6.packet()), Drop("inner_malformed")),
            ("a's addresses", seal(plain(HOST_A[0], HOST_B[0]).packet()), Drop("selector")), // P09
            ("another network", seal(plain(INSIDER, "10.9.0.1").packet()), Drop("selector")),
            ("TTL 1", seal(Plain { ttl: 1, ..good }.packet()), Drop("ttl")),
            ("TTL 0", seal(Plain { ttl: 0, ..good }.packet()), Drop("ttl")),
            ("to the gateway itself", seal(plain(INSIDER, "10.2.0.1").packet()), Drop("local")),
            ("back to the wire", seal(plain(INSIDER, "192.0.2.1").packet()), Drop("wrong_side")),
            ("nowhere", seal(plain(INSIDER, "203.0.113.1").packet()), Drop("no_route")),
            (
                "larger than the link",
                seal(Plain { payload_len: 1390, ..good }.packet()),
                Drop("too_big"),
            ),
        ];
        let congested = seal(good.packet());
        let congested = summed(with(congested, LINK + 1, &[3]));
        cases.push(("congestion on a packet without ECN", congested, Drop("ecn")));
        let mut seal = |text: &[u8]| self.esp(&peer.seal(text));
        let six = text(&Plain { ttl: 1, ..good_v6 }.packet(), ip::PROTOCOL_IPV6);
        let padded = [&good.packet()[..], &[1, 2, 9, 3, ip::PROTOCOL_IPIP]].concat();
        cases.extend([
            ("hop limit 1", seal(&six), Drop("ttl")),
            ("pad length beyond the text", seal(&[0, 0, 255, 4]), Drop("trailer")), // I14
            ("padding 1, 2, 9", seal(&aligned(padded)), Drop("padding")),           // I13
            ("dummy packet", seal(&text(&[7; 40], 59)), Drop("dummy")),             // I15
            ("TCP in a tunnel", seal(&text(&[7; 40], 6)), Drop("next_header")),     // I23
        ]);
        let last = cases.last().map(|(_, frame, _)| frame.clone()).expect("some");
        cases.push(("the same again", last, Drop("replay"))); // I05
        cases
    }

    /// From the plaintext network.
    fn plaintext(&self) -> Vec<Hostile> {
        let good = self.host(HOST_B[0], HOST_A[0], 64);
        let cut = good[..LINK + 40].to_vec();
        let v6 = self.host(HOST_B[1], HOST_A[1], 64);
        vec![
            ("TTL 1", self.host(HOST_B[0], HOST_A[0], 1), Drop("ttl")),
            ("hop limit 1", self.host(HOST_B[1], HOST_A[1], 1), Drop("ttl")),
            ("nobody's source", self.host("10.77.0.1", HOST_A[0], 64), Drop("no_policy")),
            ("a discarded flow", self.host(HOST_B[0], "10.4.0.1", 64), Drop("discard")),
            ("wrong header checksum", with(good.clone(), LINK + 10, &[1, 1]), Drop("malformed")),
            ("cut", cut, Drop("malformed")),
            ("IPv6 beyond the frame", with(v6, LINK + 4, &[0xff, 0xff]), Drop("malformed")),
            ("another station", with(good.clone(), 5, &[!self.lan.0[5]]), Drop("other_host")),
            ("version 6 as IPv4", with(good.clone(), LINK, &[0x65]), Kernel("malformed")),
            ("half a header", good[..LINK + 7].to_vec(), Kernel("short")),
        ]
    }
}

/// `text` moved to a multiple of 4 octets by what a packet may have behind it (I16).
fn aligned(mut text: Vec<u8>) -> Vec<u8> {
    let tail = text.split_off(text.len() - 5);
    while !(text.len() + tail.len()).is_multiple_of(4) {
        text.push(0);
    }
    text.extend(tail);
    text
}

/// Memory of a process that is in use, in KiB.
fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process().id()));
    let status = status.expect("status of the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn insider_policies() -> String {
    let inbound = [
        ("10.3.0.0/24", "10.2.0.0/24"),
        ("10.3.0.0/24", "192.0.2.0/24"),
        ("10.3.0.0/24", "203.0.113.0/24"),
        ("fd03::/64", "fd02::/64"),
    ];
    let mut text = Peer::sa();
    for (source, destination) in inbound {
        text += &format!(
            "[[policy]]\ndirection = \"inbound\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\naction = \"protect\"\nsa = \"insider\"\n"
        );
    }
    text + "[[policy]]\ndirection = \"outbound\"\nsource = \"10.2.0.0/24\"\n\
            destination = \"10.4.0.0/24\"\naction = \"discard\"\n"
}

fn inject(capture: &mut Capture, cases: &[Hostile]) {
    for (name, frame, _) in cases {
        capture.inject(frame).expect(name);
    }
}

/// The counts that the gateway reports are those expected, and no other.
fn assert_counted(report: &RunReport, wan: &[Hostile], lan: &[Hostile]) {
    let mut drops = BTreeMap::new();
    for (_, _, counted) in wan.iter().chain(lan) {
        if let Drop(reason) | Aside(Some(reason)) = counted {
            *drops.entry((*reason).to_owned()).or_default() += 1;
        }
    }
    // The insider's packets that do not fit, or may go no further, are answered; but no policy lets
    // anything go to him, and no SA carries what he sends.
    let answered = ["TTL 1", "TTL 0", "larger than the link", "hop limit 1"];
    *drops.entry("icmp_unmapped".to_owned()).or_default() += answered.len() as u64;
    assert_eq!(report.totals.drops, drops);
    let aside = wan.iter().filter(|case| matches!(case.2, Aside(_))).count() as u64;
    assert_eq!(report.totals.reassembling, aside);
    for (interface, cases) in [("lan0", lan), ("wan0", wan)] {
        let port = report.ports.iter().find(|port| port.interface == interface).expect("port");
        for class in ["malformed", "short", "fragment", "keepalive", "ike"] {
            let expected = cases.iter().filter(|case| case.2 == Kernel(class)).count() as u64;
            let counted = port.steering.get(class).copied().unwrap_or(0);
            assert_eq!(counted, expected, "{interface}: {class}: {:?}", port.steering);
        }
    }
    let insider = report.sas.iter().find(|sa| sa.name.as_deref() == Some("insider"));
    let of_sa = &insider.expect("insider").drops;
    for reason in ["icv", "replay", "truncated", "trailer", "padding", "dummy", "selector"] {
        assert_eq!(of_sa.get(reason), drops.get(reason), "{reason}");
    }
}

/// Everything on the wire, in the order in which it is to be sent.
fn all(stations: &Stations, peer: &mut Peer) -> Vec<Hostile> {
    let mut wan = stations.outer_headers();
    wan.extend(stations.not_ours());
    wan.extend(stations.fragments());
    wan.extend(stations.in_clear());
    wan.extend(stations.forged(peer));
    wan.extend(stations.insider(peer));
    wan
}

/// I01, I03, I10, I12, I13, I14, I15, I23, P09, P11, U07: more than fifty malformed or hostile
/// frames from both sides are each counted under their reason, and traffic flows before and after.
#[test]
fn each_is_counted() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    lab.append_to_b(&insider_policies());
    let [a, b] = lab.start();
    lab.ping_all(3);
    let stations = Stations::of(&lab);
    let mut peer = Peer::new();
    let wan = all(&stations, &mut peer);
    let lan = stations.plaintext();
    assert!(wan.len() + lan.len() > 50);
    let wire = &lab.sites.wire;
    let mut on_wire = Capture::start(&wire.ns, wire.right, 0).expect("capture");
    let mut on_lan = Capture::start(&lab.sites.host_b, "eth0", 0).expect("capture");
    inject(&mut on_wire, &wan);
    inject(&mut on_lan, &lan);
    settle();
    lab.ping_all(3);
    // I03, I11, I12, P29: the log has a record of each kind that is audited.
    for reason in ["no_sa", "replay", "icv", "trailer", "next_header", "selector", "plaintext"] {
        assert!(b.says(&format!("reason=\"{reason}\"")), "{reason}: {}", b.log());
    }
    let totals = a.stop().expect("report").totals;
    assert_eq!(totals.dropped, 0, "{totals:?}");
    let report = b.stop().expect("report");
    assert_balanced(&report);
    assert_counted(&report, &wan, &lan);
}

/// A hundred thousand hostile frames leave the process alive, no larger than before, and at work.
#[test]
fn a_flood_leaves_no_trace() {
    const FRAMES: usize = 100_000;
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    lab.append_to_b(&insider_policies());
    let [a, b] = lab.start();
    lab.ping_all(3);
    let stations = Stations::of(&lab);
    let mut peer = Peer::new();
    let wan = all(&stations, &mut peer);
    let wire = &lab.sites.wire;
    let mut on_wire = Capture::start(&wire.ns, wire.right, 0).expect("capture");
    for _ in 0..20 {
        inject(&mut on_wire, &wan);
    }
    settle();
    let before = resident_kib(&b);
    for _ in 0..FRAMES.div_ceil(wan.len()) {
        inject(&mut on_wire, &wan);
    }
    settle();
    let after = resident_kib(&b);
    assert!(after <= before + 128, "{before} KiB before, {after} KiB after {FRAMES} frames");
    lab.ping_all(5);
    a.stop().expect("report");
    let report = b.stop().expect("report");
    assert_balanced(&report);
    let dropped = usize::try_from(report.totals.dropped).expect("a count");
    assert!(dropped > FRAMES / 4, "{:?}", report.totals);
}
