//! Two networks whose gateways run strongSwan, and what is asked of them again and again.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use culvert::lab::Capture;
use culvert::lab::Captured;
use culvert::lab::Class;
use culvert::lab::Namespaces;
use culvert::lab::Ping;
use culvert::lab::TcpTransfer;
use culvert::lab::UdpReport;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Charon;
use culvert::lab::ike::ChildSa;
use culvert::lab::ike::Connection;
use culvert::lab::ike::Engine;
use culvert::lab::ike::IkeSa;
use culvert::lab::ike::Networks;
use culvert::lab::ike::Station;
use culvert::lab::ike::charon;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;

use crate::support;
use crate::support::CULVERT;

/// How long a negotiation may take.
pub(crate) const NEGOTIATION: Duration = Duration::from_secs(10);

/// Who does the work of IPsec, at gateway a and at gateway b.
pub(crate) type Ends = [Backend; 2];

/// Datagrams a second of a steady stream, each way.
const RATE: u32 = 500;

/// Namespaces where these ends can run, or `None`, said loudly.
pub(crate) fn namespaces(ends: Ends) -> Option<Namespaces> {
    if let Some(package) = charon::missing() {
        eprintln!("SKIPPED: strongSwan is not installed here: package {package}");
        return None;
    }
    if ends.contains(&Backend::Culvert) && !culvert_has_exec() {
        eprintln!("SKIPPED: this culvert takes no SAs from IKE");
        return None;
    }
    support::namespaces()
}

/// Whether the program has the command that starts a daemon.
fn culvert_has_exec() -> bool {
    let mut command = std::process::Command::new(CULVERT);
    command.args(["exec", "--help"]).output().is_ok_and(|output| output.status.success())
}

/// The ends of a test, unless the environment has others.
pub(crate) fn ends(usual: Ends) -> Ends {
    let Ok(words) = std::env::var("CULVERT_IKE_ENDS") else { return usual };
    let ends = words.split(',').map(|word| match word {
        "culvert" => Backend::Culvert,
        "libipsec" => Backend::Libipsec,
        "kernel" => Backend::Kernel,
        other => panic!("CULVERT_IKE_ENDS: {other}: expected culvert, libipsec or kernel"),
    });
    ends.collect::<Vec<_>>().try_into().expect("CULVERT_IKE_ENDS: two of them")
}

/// Two networks whose gateways run strongSwan.
pub(crate) struct Bench {
    pub(crate) networks: Networks,
    pub(crate) ends: Ends,
    pub(crate) namespaces: Namespaces,
}

impl Bench {
    /// Networks without daemons, or `None`, said loudly.
    pub(crate) fn new(ends: Ends) -> Option<Bench> {
        Bench::with_queues(ends, 1)
    }

    /// The same, the gateways' interfaces with so many queues.
    pub(crate) fn with_queues(ends: Ends, queues: u32) -> Option<Bench> {
        let mut namespaces = namespaces(ends)?;
        let networks = Networks::new(&mut namespaces, queues).expect("networks");
        Some(Bench { networks, ends, namespaces })
    }

    /// The same, gateway a behind a NAT.
    pub(crate) fn with_nat(ends: Ends) -> Option<Bench> {
        let mut namespaces = namespaces(ends)?;
        let networks = Networks::with_nat(&mut namespaces, 1).expect("networks");
        Some(Bench { networks, ends, namespaces })
    }

    /// Starts both gateways, each with one connection.
    pub(crate) fn start(&mut self, connections: [Connection; 2]) -> [Station; 2] {
        self.start_with(&Engine::new(Path::new(CULVERT)), connections)
    }

    /// Starts both gateways, with a configuration of culvert.
    pub(crate) fn start_with(
        &mut self,
        engine: &Engine<'_>,
        connections: [Connection; 2],
    ) -> [Station; 2] {
        let [a, b] = connections;
        [self.start_one(0, engine, a), self.start_one(1, engine, b)]
    }

    /// Starts one gateway.
    pub(crate) fn start_one(
        &mut self,
        site: usize,
        engine: &Engine<'_>,
        connection: Connection,
    ) -> Station {
        let how = (self.ends[site], engine);
        let namespaces = &mut self.namespaces;
        let station = Station::start(namespaces, &self.networks, site, how, &[connection]);
        station.expect("gateway")
    }

    /// Loads other connections into running gateways.
    pub(crate) fn load(&self, stations: &[Station; 2], connections: [Connection; 2]) {
        for (station, connection) in stations.iter().zip(connections) {
            station.charon.load(&[connection]).expect("connection");
        }
    }

    /// Both families, both directions: nothing is lost.
    pub(crate) fn ping_all(&self, count: u16) {
        support::ping(&self.networks.hosts[0], HOST_B, count);
        support::ping(&self.networks.hosts[1], HOST_A, count);
    }

    /// Nobody answers, from a to b and back.
    pub(crate) fn ping_nobody(&self) {
        let [a, b] = &self.networks.hosts;
        for (from, destination) in [(a, HOST_B[0]), (b, HOST_A[1])] {
            let ping = Ping { count: 3, timeout: Duration::from_millis(200), ..echo(destination) };
            let report = ping.run(from).expect("ping");
            assert_eq!(report.received, 0, "{destination} answers");
        }
    }

    /// Kilobytes over TCP, from a to b and back, the way back in the last family.
    pub(crate) fn transfer(&self, kilobytes: u64, families: [usize; 2]) {
        let [a, b] = &self.networks.hosts;
        let there = (a, b, at(HOST_B[families[0]], 7001));
        let back = (b, a, at(HOST_A[families[1]], 7002));
        for (from, to, destination) in [there, back] {
            let bytes = kilobytes * 1000;
            let report = TcpTransfer::new(destination, bytes).run(from, to).expect("TCP");
            assert!(report.is_intact() && report.bytes == bytes, "{report:?}");
        }
    }

    /// Watches the wire.
    pub(crate) fn capture(&self, keep: usize) -> Capture {
        let wire = &self.networks.wire;
        Capture::start(&wire.ns, wire.right, keep).expect("capture")
    }
}

/// Does something while datagrams flow both ways at a steady rate; returns what arrived at b and
/// at a.
pub(crate) fn under_load<T>(
    networks: &Networks,
    action: impl FnOnce() -> T,
) -> (T, [UdpReport; 2]) {
    networks.under_load(RATE, action).expect("streams")
}

/// Frames that a capture keeps for [`assert_no_nonce_twice`].
pub(crate) const KEEP: usize = 1 << 20;

/// Every datagram arrived, once, in order, whole.
pub(crate) fn assert_no_loss(reports: &[UdpReport; 2]) {
    for report in reports {
        assert!(report.sent > 0, "{report:?}");
        let outcome = (report.received, report.duplicates, report.corrupt);
        assert_eq!(outcome, (report.sent, 0, 0), "{report:?}");
    }
}

/// What a wire between gateways may show, besides ESP: IKE, and what neighbours say to each other.
pub(crate) fn assert_nothing_clear(capture: Capture) {
    let counts = capture.stop().expect("capture").counts;
    assert_eq!(counts[Class::Other], 0, "{counts:?}");
    assert!(counts.esp() > 0, "{counts:?}");
}

/// Echo requests to a host.
pub(crate) fn echo(host: &str) -> Ping {
    Ping::new(host.parse().expect("an address"))
}

/// An address and a port.
pub(crate) fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

/// The pairs of a key and an IV that packets on the wire used: an SPI, whatever the destination,
/// for a peer that moves keeps its keys; and the octets after the sequence number. Every frame was
/// kept. With counter modes a pair that comes twice is the end of
/// all secrecy (RFC 4106 section 2).
pub(crate) fn assert_no_nonce_twice(captured: &Captured) {
    let Captured { counts, frames, missed, .. } = captured;
    assert_eq!((*missed, frames.len() as u64), (0, counts.total()), "all frames were kept");
    let mut seen = HashSet::new();
    let mut audited = 0;
    for frame in frames {
        let Some(esp) = esp_of(frame) else { continue };
        let (spi, rest) = esp.split_at(4);
        let fresh = seen.insert((spi.to_vec(), rest[4..12].to_vec()));
        assert!(fresh, "an IV came twice: {frame:02x?}");
        audited += 1;
    }
    assert!(audited > 0, "no ESP was audited");
}

/// The ESP packet of a frame, raw or in UDP, from the SPI on.
fn esp_of(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let (protocol, payload) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let length = usize::from(packet.first()? & 0x0f) * 4;
            (*packet.get(9)?, packet.get(length..)?)
        }
        [0x86, 0xdd] => (*packet.get(6)?, packet.get(40..)?),
        _ => return None,
    };
    let esp = match (protocol, Class::of(frame)) {
        (50, _) => payload,
        (17, Class::Udp4500) => payload.get(8..)?,
        _ => return None,
    };
    // A keepalive is shorter.
    (esp.len() >= 32).then_some(esp)
}

/// Brings up the Child SA `net` from one end, and sees it at both.
pub(crate) fn up(stations: &[Station; 2], initiator: usize) {
    stations[initiator].charon.initiate("net", NEGOTIATION).expect("initiate");
    // With IKEv1 the initiator says the last word, and is done before the responder.
    let installed = |sas: &[IkeSa]| sas.iter().any(|sa| sa.installed("net").next().is_some());
    let responder = &stations[1 - initiator].charon;
    responder.wait_sas("Child SA", NEGOTIATION, installed).expect("responder");
    let [a, b] = [0, 1].map(|site| the_child(&stations[site]).spis);
    assert_eq!((a.0, a.1), (b.1, b.0), "both ends have the same two SAs");
}

/// Deletes everything from one end, and sees that nothing is left at both.
pub(crate) fn down(stations: &[Station; 2], terminator: usize) {
    stations[terminator].charon.terminate_ike("net").expect("terminate");
    for Station { charon, .. } in stations {
        charon.wait_sas("end of all SAs", NEGOTIATION, <[_]>::is_empty).expect("down");
    }
    // A daemon forgets its SAs a moment before it takes them from its engine.
    std::thread::sleep(Duration::from_millis(300));
}

/// Rekeys the Child SA `net` from one end, and waits until both use the new one.
pub(crate) fn rekey(stations: &[Station; 2], initiator: usize) {
    let charons = [&stations[0].charon, &stations[1].charon];
    let newest = |charon: &Charon| charon.installed("net").expect("SAs").pop().expect("an SA");
    let before = newest(charons[initiator]);
    charons[initiator].rekey_child("net").expect("rekey");
    for (site, charon) in charons.into_iter().enumerate() {
        let new = |child: &ChildSa| {
            let spi = if site == initiator { &child.spis.0 } else { &child.spis.1 };
            child.name == "net" && child.state == "INSTALLED" && *spi != before.spis.0
        };
        let rekeyed = |sas: &[IkeSa]| {
            let newest = sas.iter().flat_map(|sa| sa.installed("net")).max_by_key(|c| c.unique_id);
            newest.is_some_and(new)
        };
        charon.wait_sas("new Child SA", NEGOTIATION, rekeyed).expect("rekey");
    }
}

/// Waits until each end has one IKE SA with one Child SA `net`, the same ones at both.
pub(crate) fn until_no_orphans(stations: &[Station; 2]) {
    let single = |sas: &[IkeSa]| sas.len() == 1 && sas[0].children.len() == 1;
    let [a, b] = stations.each_ref().map(|station| {
        let sas = station.charon.wait_sas("end of old SAs", NEGOTIATION, single).expect("SAs");
        sas.into_iter().next().expect("one")
    });
    assert_eq!(a.initiator_spi, b.initiator_spi);
    let [spis_a, spis_b] = [&a, &b].map(|sa| sa.children[0].spis.clone());
    assert_eq!((spis_a.0, spis_a.1), (spis_b.1, spis_b.0));
}

/// The Child SA `net` that carries traffic, the only one.
pub(crate) fn the_child(station: &Station) -> ChildSa {
    let children = station.charon.installed("net").expect("SAs");
    assert_eq!(children.len(), 1, "{children:#?}");
    children.into_iter().next().expect("one")
}
