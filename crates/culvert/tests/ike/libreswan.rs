//! Stock Libreswan over culvert, against strongSwan and against itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use culvert::lab::Ping;
use culvert::lab::UdpReport;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Connection;
use culvert::lab::ike::Engine;
use culvert::lab::ike::Pluto;
use culvert::lab::ike::pluto;
use culvert::lab::sites::Gateway;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;

use crate::bench::Bench;
use crate::bench::assert_no_loss;
use crate::bench::assert_nothing_clear;
use crate::bench::echo;
use crate::bench::the_child;
use crate::bench::under_load;
use crate::support;
use crate::support::CULVERT;

/// Where `scripts/libreswan` unpacks it.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/libreswan");

/// Of so many datagrams one may come for an SPI without a key: how long Libreswan takes to install
/// one is up to the machine.
const EARLY: u64 = 3;

/// Where Libreswan is, or `None`, said loudly.
fn root() -> Option<PathBuf> {
    let root = pluto::find(Path::new(UNPACKED));
    if root.is_none() {
        eprintln!("SKIPPED: Libreswan is not here: scripts/libreswan unpacks it");
    }
    root
}

/// Starts culvert and Libreswan on a gateway.
fn start(bench: &mut Bench, root: &Path, site: usize, connection: &Connection) -> (Pluto, Gateway) {
    let engine = Engine::new(Path::new(CULVERT));
    let gateway = engine.start(&mut bench.namespaces, &bench.networks, site).expect("engine");
    let launcher = engine.launcher(&bench.networks, site);
    let directory = bench.networks.directory_of(site).join("libreswan");
    let ns = &bench.networks.gateways[site];
    let (namespaces, connections) = (&mut bench.namespaces, std::slice::from_ref(connection));
    let pluto = Pluto::start(namespaces, ns, (root, &directory), &launcher, connections);
    (pluto.expect("Libreswan"), gateway)
}

/// A tunnel for IPv4: Libreswan has one selector for each side.
fn tunnel(bench: &Bench, proposal: &str) -> Connection {
    bench.networks.tunnel(false).with_children(|child| {
        child.local_ts.truncate(1);
        child.remote_ts.truncate(1);
        proposal.clone_into(&mut child.proposal);
    })
}

/// IPv4 in both directions: nothing is lost.
fn ping_both(bench: &Bench) {
    support::ping(&bench.networks.hosts[0], [HOST_B[0]; 2], 3);
    support::ping(&bench.networks.hosts[1], [HOST_A[0]; 2], 3);
}

/// What Libreswan at a does: a tunnel that carries traffic both ways, counters, rekeys of the Child
/// SA and of the IKE SA under load, whose outcome is returned, an end, and another beginning.
fn lives(bench: &Bench, a: &Pluto) -> [UdpReport; 2] {
    let capture = bench.capture(0);
    a.initiate("net").expect("initiate");
    ping_both(bench);
    bench.transfer(300, [0, 0]);
    let traffic = a.traffic("net").expect("traffic");
    let carried =
        traffic.iter().any(|of| of.inbound_bytes > 300_000 && of.outbound_bytes > 300_000);
    assert!(carried, "{traffic:?}");
    let ((), reports) = under_load(&bench.networks, || {
        for _ in 0..3 {
            a.rekey_child("net").expect("rekey");
            std::thread::sleep(Duration::from_millis(500));
        }
        a.rekey_ike("net").expect("rekey");
        // The old Child SA goes a second after its successor came.
        std::thread::sleep(Duration::from_millis(1500));
    });
    // It leaves a policy that waits for a packet.
    a.terminate("net").expect("terminate");
    let ping = Ping { count: 3, timeout: Duration::from_secs(5), ..echo(HOST_B[0]) };
    let report = ping.run(&bench.networks.hosts[0]).expect("ping");
    assert_eq!((report.received, report.surplus), (3, 0), "{}", a.log());
    a.terminate("net").expect("terminate");
    a.whack(&["--unroute", "--name", "net"]).expect("unroute");
    bench.ping_nobody();
    a.initiate("net").expect("initiate");
    ping_both(bench);
    assert_nothing_clear(capture);
    reports
}

/// Stops an engine; returns what it dropped.
fn stop(gateway: Gateway) -> BTreeMap<String, u64> {
    let drops = gateway.stop().expect("report").totals.drops;
    println!("dropped: {drops:?}");
    drops
}

/// Against strongSwan's own user space, with UDP encapsulation.
#[test]
fn against_strongswan() {
    let Some(root) = root() else { return };
    let Some(mut bench) = Bench::new([Backend::Culvert, Backend::Libipsec]) else { return };
    let mut connection = tunnel(&bench, "aes128gcm16");
    let peer = bench.networks.peer_of(&connection, None);
    connection.encap = true;
    let (a, engine) = start(&mut bench, &root, 0, &connection);
    let b = bench.start_one(1, &Engine::new(Path::new(CULVERT)), peer);
    let reports = lives(&bench, &a);
    assert!(the_child(&b).encap);
    a.stop().expect("stop");
    stop(engine);
    assert_no_loss(&reports);
}

/// Against itself, both ends over culvert, in ESP without UDP, with extended sequence numbers. What
/// is lost in a rekey is lost by Libreswan: as the responder it sends with the new SA before the
/// initiator could install its own end, so that packets come for an SPI without a key. The kernel
/// drops them too.
#[test]
fn against_itself() {
    let Some(root) = root() else { return };
    let Some(mut bench) = Bench::new([Backend::Culvert; 2]) else { return };
    let connection = tunnel(&bench, "aes256gcm16-esn");
    let peer = bench.networks.peer_of(&connection, None);
    let (a, engine_a) = start(&mut bench, &root, 0, &connection);
    let (b, engine_b) = start(&mut bench, &root, 1, &peer);
    let reports = lives(&bench, &a);
    let traffic = b.traffic("net").expect("traffic");
    assert!(traffic.iter().any(|of| of.inbound_bytes > 0 && of.outbound_bytes > 0), "{traffic:?}");
    a.stop().expect("stop");
    b.stop().expect("stop");
    let early = stop(engine_a).get("no_sa").copied().unwrap_or(0);
    stop(engine_b);
    let [there, back] = reports;
    assert_eq!((there.received, there.duplicates), (there.sent, 0), "{there:?}");
    assert_eq!((back.received + early, back.duplicates), (back.sent, 0), "{back:?}");
    assert!(EARLY * early <= back.sent, "{early} packets came before their SA: {back:?}");
}
