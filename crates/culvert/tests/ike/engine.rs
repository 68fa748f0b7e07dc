//! culvert at both ends, under strongSwan: what strongSwan's own user space cannot do, and what
//! happens when an engine dies.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use culvert::lab::Class;
use culvert::lab::ike::Action;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Charon;
use culvert::lab::ike::Child;
use culvert::lab::ike::Connection;
use culvert::lab::ike::Engine;
use culvert::lab::ike::IkeSa;
use culvert::lab::ike::Ipsec;
use culvert::lab::ike::Mode;
use culvert::lab::ike::Protocol;
use culvert::lab::ike::networks::IDS;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use nix::sys::signal::Signal;

use crate::bench::Bench;
use crate::bench::KEEP;
use crate::bench::NEGOTIATION;
use crate::bench::assert_no_nonce_twice;
use crate::bench::assert_nothing_clear;
use crate::bench::down;
use crate::bench::ends;
use crate::bench::the_child;
use crate::bench::under_load;
use crate::bench::up;
use crate::support::BpfFs;
use crate::support::CULVERT;

/// How long tunnels may take to come back by themselves.
const RECOVERY: Duration = Duration::from_secs(30);

/// The other frames of a capture are all AH (protocol 51) of either family.
fn assert_only_ah(frames: &[Vec<u8>]) {
    let mut seen = 0;
    for frame in frames.iter().filter(|frame| Class::of(frame) == Class::Other) {
        let protocol = if frame[12..14] == [0x08, 0x00] { frame[14 + 9] } else { frame[14 + 6] };
        assert_eq!(protocol, 51, "{frame:02x?}");
        seen += 1;
    }
    assert!(seen > 0, "no AH");
}

/// Replay windows of the SAs of gateway a.
fn windows(bench: &Bench) -> Vec<u64> {
    let socket = bench.networks.directory_of(0).join("xfrm.sock");
    let arguments = format!("sa list --json --socket {}", socket.display());
    let listed = crate::support::run(&bench.networks.gateways[0], CULVERT, &arguments);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let sas = listed.as_array().or_else(|| listed["sas"].as_array()).expect("SAs").clone();
    sas.iter().filter_map(|sa| sa["replay_window"].as_u64()).collect()
}

/// M08: Tunnels with extended sequence numbers, a window of 4096, AES-GMAC and AH carry both
/// families both ways, over IPv4 and IPv6.
#[test]
fn forms() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert; 2])) else { return };
    let esp = |proposal: &str, window| Child {
        proposal: proposal.to_owned(),
        replay_window: window,
        ..Child::default()
    };
    let ah = |proposal| Child { protocol: Protocol::Ah, ..esp(proposal, None) };
    let forms = [
        (esp("aes128gcm16-esn", Some(4096)), false, "AES_GCM_16 128"),
        (esp("aes256gcm16-esn", Some(1024)), true, "AES_GCM_16 256"),
        (esp("aes128gmac", None), false, "NULL_AES_GMAC 128"),
        (esp("aes256-sha512-esn", None), true, "AES_CBC 256 HMAC_SHA2_512_256"),
        (ah("sha256"), false, "HMAC_SHA2_256_128"),
        (ah("sha512-esn"), true, "HMAC_SHA2_512_256"),
    ];
    let mut stations = None;
    for (number, (form, outer_v6, named)) in forms.into_iter().enumerate() {
        let connection = bench.networks.tunnel(outer_v6).with_children(|child| {
            let (local_ts, remote_ts) = (child.local_ts.clone(), child.remote_ts.clone());
            *child = Child { local_ts, remote_ts, ..form.clone() };
        });
        let peer = bench.networks.peer_of(&connection, None);
        let connections = [connection, peer];
        match &stations {
            None => stations = Some(bench.start(connections)),
            Some(stations) => bench.load(stations, connections),
        }
        let stations = stations.as_ref().expect("started");
        let capture = bench.capture(KEEP);
        up(stations, number % 2);
        let child = the_child(&stations[0]);
        assert_eq!((child.algorithms.as_str(), child.encap), (named, false));
        assert_eq!(child.esn, form.proposal.ends_with("-esn"), "{child:?}");
        if let Some(window) = form.replay_window {
            assert!(windows(&bench).contains(&window.into()), "{window}: {:?}", windows(&bench));
        }
        bench.ping_all(3);
        bench.transfer(1000, [0, 1]);
        down(stations, 1 - number % 2);
        let captured = capture.stop().expect("capture");
        if form.protocol == Protocol::Ah {
            assert_only_ah(&captured.frames);
        } else {
            assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
            assert_no_nonce_twice(&captured);
        }
    }
}

/// A gateway whose packets pass an XFRM interface uses the SAs and policies of its identifier, and
/// those of another are for no packets.
#[test]
fn interface_identifiers() {
    let Some(mut bench) = Bench::new([Backend::Culvert; 2]) else { return };
    let connections = |bench: &Bench, if_id| {
        let connection = Connection { if_id, ..bench.networks.tunnel(false) };
        let peer = bench.networks.peer_of(&connection, None);
        [connection, peer]
    };
    let engine = Engine { more: "if_id = 42", ..Engine::new(Path::new(CULVERT)) };
    let stations = bench.start_with(&engine, connections(&bench, Some(42)));
    let capture = bench.capture(0);
    up(&stations, 0);
    bench.ping_all(3);
    down(&stations, 0);
    bench.load(&stations, connections(&bench, Some(43)));
    up(&stations, 0);
    bench.ping_nobody();
    assert_nothing_clear(capture);
}

/// Hosts that speak IKE for themselves have the gateways before them do IPsec in transport mode,
/// with ESP and with AH: the addresses on the wire are those of the hosts.
#[test]
fn transport_mode() {
    let Some(mut bench) = Bench::new([Backend::Culvert; 2]) else { return };
    bench.networks.hosts_speak_ike().expect("routes");
    let hosts = [HOST_A[0], HOST_B[0]];
    let child = |name: &str, protocol, proposal: &str| Child {
        name: name.to_owned(),
        protocol,
        proposal: proposal.to_owned(),
        mode: Mode::Transport,
        ..Child::default()
    };
    // IKE itself passes the gateways in clear.
    let bypass = Child {
        name: "ike".to_owned(),
        mode: Mode::Pass,
        local_ts: vec![format!("{}[udp/500]", hosts[0])],
        remote_ts: vec![format!("{}[udp/500]", hosts[1])],
        start_action: Action::Trap,
        ..Child::default()
    };
    // One at a time: by its selectors a daemon could not tell which one its peer means.
    let connections = |child| {
        let connection = Connection {
            local_address: hosts[0].to_owned(),
            remote_address: hosts[1].to_owned(),
            local_id: IDS[0].to_owned(),
            remote_id: IDS[1].to_owned(),
            children: vec![bypass.clone(), child],
            ..Connection::default()
        };
        [connection.clone(), connection.mirrored()]
    };
    let forms =
        [child("esp", Protocol::Esp, "aes128gcm16-esn"), child("ah", Protocol::Ah, "sha256")];
    let engine = Engine::new(Path::new(CULVERT));
    let mut charons = Vec::new();
    for site in [0, 1] {
        engine.start(&mut bench.namespaces, &bench.networks, site).expect("engine");
        let ipsec = Ipsec::Netlink { launcher: engine.launcher(&bench.networks, site) };
        let directory = bench.networks.directory_of(site).join("strongswan");
        let host = bench.networks.hosts[site].clone();
        let namespaces = &mut bench.namespaces;
        let charon = Charon::start(namespaces, &host, &directory, &ipsec, &[]);
        charons.push(charon.expect("strongSwan"));
    }
    for form in forms {
        for (charon, connection) in charons.iter().zip(connections(form.clone())) {
            charon.load(&[connection]).expect("connection");
        }
        let name = form.name.as_str();
        let capture = bench.capture(KEEP);
        charons[0].initiate(name, NEGOTIATION).expect("initiate");
        let children = charons[1].installed(name).expect("SAs");
        assert!(children.len() == 1 && children[0].mode == "TRANSPORT", "{children:?}");
        for (from, to) in [(0, 1), (1, 0)] {
            crate::support::ping(&bench.networks.hosts[from], [hosts[to]; 2], 3);
        }
        charons[1].terminate_child(name).expect("terminate");
        let captured = capture.stop().expect("capture");
        if name == "ah" {
            assert_only_ah(&captured.frames);
        } else {
            assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
            assert!(captured.counts[Class::Esp4] >= 12, "{:?}", captured.counts);
        }
    }
}

/// Has the kernel of gateway a forward, and know the way.
fn open_gateway(bench: &Bench) {
    bench.networks.forward(0).expect("forwarding");
    for route in ["route add default via 192.0.2.2", "-6 route add default via 2001:db8::2"] {
        bench.networks.gateways[0].ip(route).expect("route");
    }
}

/// An engine that is killed under load and started again: nothing leaves in clear, no IV is used
/// twice with a key, and the tunnels come back by themselves.
#[test]
fn killed_under_load() {
    let ends = ends([Backend::Culvert; 2]);
    if ends[0] != Backend::Culvert {
        eprintln!("SKIPPED: there is no engine to kill");
        return;
    }
    let Some(mut bench) = Bench::new(ends) else { return };
    let mut connection = bench.networks.tunnel(false).with_children(|child| {
        child.start_action = Action::Trap;
        child.dpd_action = Action::Trap;
        child.close_action = Action::Trap;
    });
    connection.dpd_delay = Duration::from_secs(2);
    let peer = bench.networks.peer_of(&connection, None);
    // Gateway a would forward in clear, were it not for culvert.
    let bpf = BpfFs::new(bench.networks.directory());
    let closed = format!("pin = \"{}\"", bpf.pins("a"));
    let engine = Engine { interfaces: &closed, ..Engine::new(Path::new(CULVERT)) };
    open_gateway(&bench);
    let a = bench.start_one(0, &engine, connection);
    let b = bench.start_one(1, &Engine::new(Path::new(CULVERT)), peer);
    let stations = [a, b];
    up(&stations, 0);
    bench.ping_all(3);
    let capture = bench.capture(KEEP);
    let killed = stations[0].engine.as_ref().expect("culvert at a");
    let (outage, reports) = under_load(&bench.networks, || {
        killed.process().signal(Signal::SIGKILL);
        killed.process().wait(NEGOTIATION).expect("wait").expect("it is dead");
        // Long enough for packets to come when nobody is there.
        std::thread::sleep(Duration::from_secs(1));
        let start = Instant::now();
        let again = engine.start(&mut bench.namespaces, &bench.networks, 0).expect("again");
        let answers = || {
            let ping = culvert::lab::Ping { count: 1, ..crate::bench::echo("10.2.0.2") };
            ping.run(&bench.networks.hosts[0]).is_ok_and(|report| report.received == 1)
        };
        let back = bench.networks.hosts[0].cancel().wait(RECOVERY, answers).expect("wait");
        assert!(back, "no answer in {RECOVERY:?}: {}", stations[0].charon.log());
        let outage = start.elapsed();
        drop(again);
        outage
    });
    let lost = reports.map(|report| report.sent - report.received);
    println!("tunnels were back {outage:?} after the start; {lost:?} datagrams lost");
    bench.ping_all(3);
    let captured = capture.stop().expect("capture");
    assert_eq!(captured.counts[Class::Other], 0, "{:?}", captured.counts);
    assert_no_nonce_twice(&captured);
    for station in &stations {
        let one = |sas: &[IkeSa]| sas.len() == 1 && sas[0].installed("net").count() == 1;
        station.charon.wait_sas("one tunnel", RECOVERY, one).expect("no orphans");
    }
}

/// Nothing leaves in clear: not before there is a daemon, nor before the first SA, nor between two,
/// nor when the daemon dies and comes again, nor after everything was flushed, nor when the engine
/// stops.
#[test]
fn nothing_leaves_in_clear() {
    let Some(mut bench) = Bench::new([Backend::Culvert, Backend::Libipsec]) else { return };
    // Gateway a would forward in clear, were it not for culvert.
    let bpf = BpfFs::new(bench.networks.directory());
    let closed = format!("pin = \"{}\"", bpf.pins("a"));
    let engine = Engine { interfaces: &closed, ..Engine::new(Path::new(CULVERT)) };
    let connection = bench.networks.tunnel(false);
    let peer = bench.networks.peer_of(&connection, None);
    let connection = connection.with_children(|child| child.start_action = Action::Trap);
    let capture = bench.capture(0);
    let clear = |step: &str| {
        assert_eq!(capture.counts()[Class::Other], 0, "{step}: {:?}", capture.counts());
    };
    let gateway = engine.start(&mut bench.namespaces, &bench.networks, 0).expect("engine");
    open_gateway(&bench);
    bench.ping_nobody();
    clear("without a daemon");
    let launcher = engine.launcher(&bench.networks, 0);
    let ipsec = Ipsec::Netlink { launcher: launcher.clone() };
    let directory = bench.networks.directory_of(0).join("strongswan");
    let ns = bench.networks.gateways[0].clone();
    let connections = [connection];
    let mut charon = || {
        let namespaces = &mut bench.namespaces;
        Charon::start(namespaces, &ns, &directory, &ipsec, &connections).expect("strongSwan")
    };
    let a = charon();
    bench.ping_nobody();
    clear("without a peer");
    let b = bench.start_one(1, &engine, peer);
    a.initiate("net", NEGOTIATION).expect("initiate");
    bench.ping_all(3);
    a.terminate_ike("net").expect("terminate");
    b.charon.wait_sas("end of all SAs", NEGOTIATION, <[_]>::is_empty).expect("gone");
    clear("after the end of the SAs");
    a.initiate("net", NEGOTIATION).expect("initiate");
    a.kill().expect("kill");
    culvert::lab::Ping { count: 3, ..crate::bench::echo(HOST_B[0]) }
        .run(&bench.networks.hosts[0])
        .expect("ping");
    clear("after the death of the daemon");
    let namespaces = &mut bench.namespaces;
    let a = Charon::start(namespaces, &ns, &directory, &ipsec, &connections).expect("strongSwan");
    a.initiate("net", NEGOTIATION).expect("initiate");
    bench.ping_all(3);
    for what in ["state", "policy"] {
        let arguments = format!("{} ip xfrm {what} flush", launcher[1..].join(" "));
        crate::support::run(&ns, CULVERT, &arguments);
        bench.ping_nobody();
        clear("after a flush");
    }
    gateway.stop().expect("report");
    bench.ping_nobody();
    clear("after the end of the engine");
}

/// 1000 tunnels between two strongSwans: how long they take to come up, how long to rekey, and how
/// much memory they take. `cargo test -p culvert --test ike -- --ignored --nocapture` shows it.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_tunnels() {
    const TUNNELS: usize = 1000;
    const BATCH: usize = 25;
    const PATIENCE: Duration = Duration::from_secs(60);
    // strongSwan's own user space wants an address of its own in each selector.
    let Some(mut bench) = Bench::new([Backend::Culvert; 2]) else { return };
    let connection = |number: usize| {
        let mut connection = bench.networks.tunnel(false);
        connection.name = format!("t{number}");
        connection.local_id = format!("t{number}.{}", IDS[0]);
        connection.remote_id = format!("t{number}.{}", IDS[1]);
        connection.with_children(|child| {
            child.name = format!("t{number}");
            // The first one carries what the hosts say.
            let (net, host) = (number / 200, number % 200 + 2);
            child.local_ts = vec![format!("10.1.{net}.{host}/32")];
            child.remote_ts = vec![format!("10.2.{net}.{host}/32")];
        })
    };
    let connections: Vec<_> = (0..TUNNELS).map(connection).collect();
    let peers: Vec<_> = connections.iter().map(|c| bench.networks.peer_of(c, None)).collect();
    let stations = bench.start([connections[0].clone(), peers[0].clone()]);
    let [a, b] = [&stations[0].charon, &stations[1].charon];
    a.load(&connections).expect("connections");
    b.load(&peers).expect("connections");
    let memory = |when: &str| {
        for (station, name) in stations.iter().zip(["a", "b"]) {
            let engine = station.engine.as_ref().map(|engine| resident(engine.process().id()));
            println!("{when}: gateway {name}: engine {engine:?} KiB");
        }
    };
    memory("before");
    let [host_a, cancel] = [&bench.networks.hosts[0]; 2];
    // The daemon gives a peer up that takes 7 s to answer, so not all at once; and to list a
    // thousand SAs is work for it too.
    let all = |what: &str, words: &str, begin: &dyn Fn(&str)| {
        let start = Instant::now();
        for (number, batch) in connections.chunks(BATCH).enumerate() {
            batch.iter().for_each(|connection| begin(&connection.name));
            let up = || a.said(words) >= TUNNELS.min((number + 1) * BATCH);
            assert!(cancel.cancel().wait(PATIENCE, up).expect("wait"), "{what}: batch {number}");
        }
        println!("{what}: {TUNNELS} in {:?}", start.elapsed());
        memory(what);
        let sas = a.list_sas().expect("SAs");
        let installed = sas.iter().flat_map(|sa| &sa.children).filter(|c| c.state == "INSTALLED");
        assert!(installed.count() >= TUNNELS, "{what}");
        crate::support::ping(host_a, [HOST_B[0]; 2], 3);
    };
    all("tunnels", "[IKE] CHILD_SA", &|name| a.begin(name).expect("begin"));
    all("rekeys", "outbound CHILD_SA", &|name| a.rekey_child(name).expect("rekey"));
}

/// Resident memory of a process, in KiB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
