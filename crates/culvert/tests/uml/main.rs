//! Culvert against the IPsec of a real Linux kernel: User-Mode Linux, by `scripts/uml-peer`.
//!
//! ```text
//!   host-a        gw                       guest (its own kernel)
//!   eth0 ------- lan0 wan0 ==== ESP ==== vec0 | lo
//!   10.1.0.2  10.1.0.1  10.9.0.1     10.9.0.2 | 192.168.100.1
//!   fd01::2    fd01::1  fd09::1       fd09::2 | fd0a::1
//! ```
//!
//! A tunnel is between culvert and the guest; transport mode between host and guest, and culvert is
//! a bump in the wire.
//!
//! - [`case`]: forms of SAs, and what both ends are configured with.
//! - [`guest`]: the guest.
//!
//! Needs root and the package user-mode-linux; skips itself loudly without.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod guest;

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::End;
use culvert::lab::Link;
use culvert::lab::Namespaces;
use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::sites::Gateway;
use culvert_wire::ip;

use case::CBC;
use case::CHACHA;
use case::Case;
use case::ENDS;
use case::ESP;
use case::Form;
use case::GCM_128;
use case::GCM_256;
use case::HOST;
use case::INNER;
use case::LAST;
use case::NULL;
use guest::Guest;
use support::CULVERT;
use support::assert_balanced;
use support::namespaces;
use support::settle;

/// The kernel, as its package installs it.
const LINUX: &str = "/usr/bin/linux.uml";
/// Pings of one kind.
const PINGS: u16 = 3;
/// Where the guest sends back what it gets.
const ECHO_PORT: u16 = 7;
/// Octets of a transfer, each way.
const TRANSFER: usize = 200_000;

/// A host, the gateway, and the guest on its wire.
struct Net {
    guest: Guest,
    host: Ns,
    gateway: Ns,
    namespaces: Namespaces,
    /// Cases so far.
    cases: u8,
}

impl Net {
    /// `None`, said loudly, where that is not possible.
    fn new() -> Option<Net> {
        if !Path::new(LINUX).exists() {
            eprintln!("SKIPPED: {LINUX} is missing: apt-get install user-mode-linux kmod");
            return None;
        }
        let mut namespaces = namespaces()?;
        let mut add = |name| namespaces.add(name).expect("namespace");
        let (host, gateway, wire) = (add("host"), add("gw"), add("uml"));
        let site = Link { mtu: 1400, ..Link::default() };
        let lan0 = End::new(&gateway, "lan0", &["10.1.0.1/24", "fd01::1/64"]);
        let eth0 = End::new(&host, "eth0", &["10.1.0.2/24", "fd01::2/64"]);
        site.connect(&eth0, &lan0).expect("link");
        host.ip("route add default via 10.1.0.1").expect("route");
        host.ip("-6 route add default via fd01::1").expect("route");
        let guest = Guest::boot(&wire);
        wire.ip(&format!("link set peer0 netns {} name wan0", gateway.name())).expect("move");
        for address in ["10.9.0.1/24", "fd09::1/64 nodad"] {
            gateway.ip(&format!("address add {address} dev wan0")).expect("address");
        }
        gateway.ip("link set wan0 up").expect("up");
        for inner in INNER {
            let gate = if inner.contains(':') { ENDS[1][1] } else { ENDS[0][1] };
            gateway.ip(&format!("route add {inner} via {gate}")).expect("route");
        }
        guest.exec(&format!(
            "set -e; ip addr add 10.9.0.2/24 dev vec0; ip addr add fd09::2/64 dev vec0 nodad; \
             ip addr add {}/32 dev lo; ip addr add {}/128 dev lo",
            INNER[0], INNER[1]
        ));
        guest.script(&["natt"]);
        guest.script(&["echo", &ECHO_PORT.to_string()]);
        Some(Net { guest, host, gateway, namespaces, cases: 0 })
    }

    fn start(&mut self, config: &Path) -> Gateway {
        let gateway =
            Gateway::start(&mut self.namespaces, &self.gateway, Path::new(CULVERT), config);
        let gateway = gateway.expect("start");
        gateway.wait_ready().expect("ready");
        gateway
    }

    /// A case of this form.
    fn case(&mut self, form: Form) -> Case {
        self.cases += 1;
        let number = self.cases;
        let algorithm = GCM_128;
        Case { number, form, algorithm, outer_v6: false, encapsulated: false, esn: false }
    }

    /// Pings both ways and TCP in one case: no ping is lost, nobody counts an error or more than
    /// was sent, and nothing else crosses the wire.
    fn check(&mut self, case: &Case) {
        let sas = case.sas();
        self.guest.configure(case, &sas);
        let directory = self.guest.directory.path();
        let path = directory.join("gw.toml");
        std::fs::write(&path, case.config(directory, &sas)).expect("configuration");
        let before = self.guest.counted().xfrm;
        let gateway = self.start(&path);
        let capture = Capture::start(&self.guest.wire, "uml0", 4096).expect("capture");
        let guest = [case.guest_address(0), case.guest_address(1)];
        let answered = self.pings(guest);
        let all = answered == [u64::from(PINGS); 4];
        if all {
            guest.into_iter().for_each(|guest| transfer(&self.host, guest));
        }
        settle();
        let counted = self.guest.counted();
        let frames = capture.stop().expect("capture").frames;
        let report = gateway.stop().expect("report");
        assert!(all, "{case:?}: {answered:?} answered; guest: {counted:?}; culvert: {report:?}");
        assert_eq!((counted.errors.as_str(), &counted.xfrm), ("", &before), "{case:?}");
        assert_protected(case, &frames);
        assert_balanced(&report);
        assert_eq!(report.totals.dropped, 0, "{case:?}: {report:?}");
        let ours: BTreeMap<u32, u64> = report.sas.iter().map(|sa| (sa.spi, sa.packets)).collect();
        assert_eq!(counted.packets.len(), ours.len(), "{case:?}: {counted:?}");
        for sa in &sas {
            // The wire of the guest may lose some of a burst of TCP, which are sent again.
            let (ours, theirs) = (ours[&sa.spi], counted.packets[&sa.spi]);
            let (sent, arrived) = if sa.to_guest { (ours, theirs) } else { (theirs, ours) };
            assert!(arrived <= sent, "{case:?}: {}: {arrived} of {sent}", sa.name());
        }
        assert!(ours.values().all(|&packets| packets > 100), "{case:?}: {ours:?}");
        if case.esn {
            let beyond = u64::from(LAST) + 100;
            assert!(report.sas.iter().all(|sa| sa.sequence > beyond), "{:?}", report.sas);
        }
    }

    /// How many echo requests were answered: to the guest, and from it, both families.
    fn pings(&self, guest: [&str; 2]) -> [u64; 4] {
        let from_host = guest.map(|guest| {
            let ping = Ping { count: PINGS, ..Ping::new(guest.parse().expect("an address")) };
            ping.run(&self.host).expect("ping").received
        });
        let from_guest = HOST.map(|host| self.guest.ping(host, PINGS) as u64);
        [from_host[0], from_host[1], from_guest[0], from_guest[1]]
    }
}

/// Sends octets to the guest, which sends them back.
fn transfer(host: &Ns, destination: &str) {
    let to = SocketAddr::new(destination.parse().expect("an address"), ECHO_PORT);
    let limit = Duration::from_secs(10);
    let stream = host.run(|| TcpStream::connect_timeout(&to, limit)).expect("namespace");
    let mut stream = stream.expect("connection");
    stream.set_read_timeout(Some(limit)).expect("timeout");
    stream.set_write_timeout(Some(limit)).expect("timeout");
    let sent: Vec<u8> = (0..TRANSFER).map(|at| (at * at / 251).to_le_bytes()[0]).collect();
    let mut back = Vec::new();
    thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("clone");
        let sent = &sent;
        scope.spawn(move || {
            writer.write_all(sent).expect("write");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        stream.read_to_end(&mut back).expect("read");
    });
    assert!(back == sent, "{destination}: {} octets came back", back.len());
}

/// All packets on the wire have the protocol of the case, but for what neighbours say.
fn assert_protected(case: &Case, frames: &[Vec<u8>]) {
    let protocol = |frame: &[u8]| match ip::parse(&frame[14..]) {
        Ok(ip::Packet::V4(header)) => Some(header.protocol),
        Ok(ip::Packet::V6(header)) => Some(header.next_header),
        Err(_) => None,
    };
    let quiet = [Class::Arp, Class::Neighbour, Class::Mld];
    let packets: Vec<_> =
        frames.iter().filter(|frame| !quiet.contains(&Class::of(frame))).collect();
    assert!(packets.len() > 200, "{case:?}: {} packets", packets.len());
    for frame in packets {
        assert_eq!(protocol(frame), Some(case.outer_protocol()), "{case:?}: {frame:02x?}");
    }
}

/// G10, P27: ESP tunnels, every algorithm that Linux has too, over IPv4 and IPv6.
#[test]
fn linux_esp_tunnel() {
    let Some(mut net) = Net::new() else { return };
    for (index, algorithm) in ESP.into_iter().enumerate() {
        let case = net.case(Form::EspTunnel);
        net.check(&Case { algorithm, outer_v6: index % 2 == 1, ..case });
        let case = net.case(Form::EspTunnel);
        net.check(&Case { algorithm, outer_v6: index % 2 == 0, esn: true, ..case });
    }
}

/// G10, P26, E10: ESP in transport mode, every algorithm that Linux has too, IPv4 and IPv6.
#[test]
fn linux_esp_transport() {
    let Some(mut net) = Net::new() else { return };
    for (algorithm, esn) in ESP.into_iter().zip([false, true, false, true, false]) {
        let case = net.case(Form::EspTransport);
        net.check(&Case { algorithm, esn, ..case });
    }
}

/// U01: ESP in UDP, tunnels over IPv4 and IPv6, and transport mode of both.
#[test]
fn linux_udp_encapsulation() {
    let Some(mut net) = Net::new() else { return };
    let forms = [
        (Form::EspTunnel, false, GCM_256),
        (Form::EspTunnel, true, CHACHA),
        (Form::EspTransport, false, CBC),
        (Form::EspTransport, false, NULL),
    ];
    for (form, outer_v6, algorithm) in forms {
        let case = net.case(form);
        net.check(&Case { outer_v6, algorithm, encapsulated: true, ..case });
    }
}

/// P27, A01, A03, A04, A05, A06, A07: AH, tunnels over IPv4 and IPv6 and transport mode of both,
/// with ESN across 2^32 and without.
#[test]
fn linux_ah() {
    let Some(mut net) = Net::new() else { return };
    let forms = [
        (Form::AhTunnel, false, false),
        (Form::AhTunnel, true, true),
        (Form::AhTransport, false, false),
        (Form::AhTransport, false, true),
    ];
    for (form, outer_v6, esn) in forms {
        let case = net.case(form);
        net.check(&Case { outer_v6, esn, ..case });
    }
}

/// P28: AH around ESP, both in transport mode, as RFC 2401 section 4.3 has it.
#[test]
fn linux_ah_around_esp() {
    let Some(mut net) = Net::new() else { return };
    for algorithm in [GCM_128, CBC, NULL] {
        let case = net.case(Form::AhAroundEsp);
        net.check(&Case { algorithm, ..case });
    }
}
