//! Tunnels in every form that two daemons can agree on: each carries pings of both families, and
//! TCP both ways, and nothing is seen in clear between the gateways.

use culvert::lab::ike::Auth;
use culvert::lab::ike::Authority;
use culvert::lab::ike::Backend;
use culvert::lab::ike::Connection;
use culvert::lab::ike::IkeSa;
use culvert::lab::ike::Station;
use culvert::lab::ike::Version;
use culvert::lab::ike::networks::IDS;
use culvert::lab::ike::networks::NETS;

use crate::bench::Bench;
use crate::bench::Ends;
use crate::bench::NEGOTIATION;
use crate::bench::assert_nothing_clear;
use crate::bench::down;
use crate::bench::ends;
use crate::bench::the_child;
use crate::bench::up;

/// Kilobytes of each transfer.
const KILOBYTES: u64 = 300;

/// A form, and how the daemon must name its algorithms.
struct Form {
    proposal: &'static str,
    outer_v6: bool,
    certificates: bool,
    named: &'static str,
}

const fn form(proposal: &'static str, outer_v6: bool, named: &'static str) -> Form {
    Form { proposal, outer_v6, certificates: false, named }
}

/// The connections of both ends for a form.
fn connections(bench: &Bench, form: &Form, authority: &Authority) -> [Connection; 2] {
    let mut connection = bench.networks.tunnel(form.outer_v6).with_children(|child| {
        form.proposal.clone_into(&mut child.proposal);
    });
    let [own, peers] = IDS.map(|id| {
        form.certificates
            .then(|| Auth::Certificate(Box::new(authority.certify(id).expect("certificate"))))
    });
    connection.auth = own.unwrap_or(connection.auth);
    let peer = bench.networks.peer_of(&connection, peers);
    [connection, peer]
}

/// Brings each form up, from either end in turn, sends traffic, and takes it down from the other.
fn carry(ends: Ends, forms: &[Form]) {
    let Some(mut bench) = Bench::new(ends) else { return };
    let authority = Authority::new(bench.networks.directory()).expect("authority");
    let mut stations: Option<[Station; 2]> = None;
    let capture = bench.capture(0);
    for (number, form) in forms.iter().enumerate() {
        let connections = connections(&bench, form, &authority);
        match &stations {
            None => stations = Some(bench.start(connections)),
            Some(stations) => bench.load(stations, connections),
        }
        let stations = stations.as_ref().expect("started");
        up(stations, number % 2);
        let child = the_child(&stations[0]);
        assert_eq!(child.algorithms, form.named);
        assert_eq!((child.local_ts.len(), child.remote_ts.len()), (2, 2), "{child:?}");
        bench.ping_all(3);
        bench.transfer(KILOBYTES, [0, 1]);
        let [received, sent] = [the_child(&stations[0]).usage.0, the_child(&stations[0]).usage.1];
        assert!(received.bytes > KILOBYTES * 1000 && sent.bytes > KILOBYTES * 1000, "{child:?}");
        down(stations, 1 - number % 2);
    }
    assert_nothing_clear(capture);
    for station in stations.into_iter().flatten() {
        station.stop().expect("stop");
    }
}

/// IKEv2 with a shared secret: AES-GCM, ChaCha20-Poly1305, and AES-CBC with HMAC-SHA-256, over IPv4
/// and IPv6.
#[test]
fn ikev2_with_psk() {
    let forms = [
        form("aes128gcm16", false, "AES_GCM_16 128"),
        form("aes256gcm16", true, "AES_GCM_16 256"),
        form("chacha20poly1305", false, "CHACHA20_POLY1305"),
        form("chacha20poly1305", true, "CHACHA20_POLY1305"),
        form("aes128-sha256", false, "AES_CBC 128 HMAC_SHA2_256_128"),
        form("aes256-sha256", true, "AES_CBC 256 HMAC_SHA2_256_128"),
    ];
    carry(ends([Backend::Culvert, Backend::Libipsec]), &forms);
}

/// IKEv2 with certificates, over IPv4 and IPv6.
#[test]
fn ikev2_with_certificates() {
    let forms =
        [form("aes256gcm16", false, "AES_GCM_16 256"), form("aes128gcm16", true, "AES_GCM_16 128")];
    let forms = forms.map(|form| Form { certificates: true, ..form });
    carry(ends([Backend::Culvert, Backend::Libipsec]), &forms);
}

/// IKEv1, main mode and aggressive mode, then quick mode for each family.
#[test]
fn ikev1() {
    let Some(mut bench) = Bench::new(ends([Backend::Culvert, Backend::Libipsec])) else { return };
    let connection = |version| {
        let mut connection = bench.networks.tunnel(false);
        connection.version = version;
        let both = connection.children.pop().expect("a child");
        for (family, name) in ["net", "net6"].into_iter().enumerate() {
            let mut child = both.clone();
            name.clone_into(&mut child.name);
            child.local_ts = vec![NETS[0][family].to_owned()];
            child.remote_ts = vec![NETS[1][family].to_owned()];
            connection.children.push(child);
        }
        let peer = bench.networks.peer_of(&connection, None);
        [connection, peer]
    };
    let forms = [Version::Main, Version::Aggressive].map(connection);
    let capture = bench.capture(0);
    let stations = bench.start(forms[0].clone());
    for (number, form) in forms.into_iter().enumerate() {
        bench.load(&stations, form);
        up(&stations, number);
        stations[1 - number].charon.initiate("net6", NEGOTIATION).expect("initiate");
        let both = |sas: &[IkeSa]| {
            let installed = |name| sas.iter().any(|sa| sa.installed(name).next().is_some());
            installed("net") && installed("net6")
        };
        for Station { charon, .. } in &stations {
            let sas = charon.wait_sas("both Child SAs", NEGOTIATION, both).expect("SAs");
            assert!(sas.len() == 1 && sas[0].version == 1, "{sas:#?}");
        }
        bench.ping_all(3);
        bench.transfer(KILOBYTES, [0, 1]);
        down(&stations, number);
    }
    let [a, b] = &stations;
    for charon in [&a.charon, &b.charon] {
        for mode in ["Main Mode", "Aggressive Mode"] {
            assert!(charon.said(mode) > 0, "no {mode} in {}", charon.log());
        }
    }
    assert_nothing_clear(capture);
}
