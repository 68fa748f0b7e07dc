//! What belongs to the kernel's stack reaches it over the same interfaces.

use std::net::UdpSocket;
use std::time::Duration;

use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::TcpTransfer;
use culvert::lab::sites::Plan;

use crate::support::Lab;
use crate::support::assert_balanced;
use crate::support::ping;
use crate::support::until;

/// TCP and pings to the gateway's own addresses on both sides, as a login needs them.
fn reach_gateway(lab: &Lab) {
    let sites = &lab.sites;
    let cases: [(&Ns, &Ns, [&str; 2]); 3] = [
        (&sites.gw_a, &sites.gw_b, ["192.0.2.2", "2001:db8::2"]),
        (&sites.host_b, &sites.gw_b, ["10.2.0.1", "fd02::1"]),
        (&sites.gw_b, &sites.gw_a, ["192.0.2.1", "2001:db8::1"]),
    ];
    for (from, to, destinations) in cases {
        ping(from, destinations, 3);
        for destination in destinations {
            let address = format!("{}:22", bracketed(destination)).parse().expect("an address");
            let report = TcpTransfer::new(address, 1_000_000).run(from, to).expect("TCP");
            assert!(report.is_intact(), "{report:?}");
        }
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Whether a datagram from gateway a reaches a socket on gateway b.
fn reaches_socket(from: &Ns, socket: &UdpSocket, data: &[u8]) -> bool {
    let to = socket.local_addr().expect("address");
    let sender = from.run(|| UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }));
    let sender = sender.expect("namespace").expect("socket");
    assert_eq!(sender.send_to(data, to).expect("send"), data.len());
    let mut buffer = [0; 2000];
    socket.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *data)
}

/// The machine stays reachable over the interfaces culvert runs on, IKE and keepalives reach their
/// socket, and what looks like ESP in UDP does not.
#[test]
fn keeps_its_own_traffic() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let [a, b] = lab.start();
    reach_gateway(&lab);
    let marked = [&[0; 4][..], b"IKE_SA_INIT, or so"].concat();
    let esp = [&[0, 0, 0x77, 0x77][..], &[1; 60]].concat();
    for host in ["192.0.2.2", "[2001:db8::2]"] {
        let bind = |port: u16| {
            let socket = lab.sites.gw_b.run(|| UdpSocket::bind(format!("{host}:{port}")));
            let socket = socket.expect("namespace").expect("socket");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("timeout");
            socket
        };
        let (ike, natt) = (bind(500), bind(4500));
        let from = &lab.sites.gw_a;
        assert!(reaches_socket(from, &ike, b"IKE_SA_INIT without a marker"), "{host}");
        assert!(reaches_socket(from, &natt, &marked), "{host}");
        assert!(reaches_socket(from, &natt, &[0; 4]), "{host}: a marker alone");
        assert!(reaches_socket(from, &natt, &[0xff]), "{host}: keepalive");
        assert!(!reaches_socket(from, &natt, &esp), "{host}: ESP is the engine's");
    }
    lab.ping_all(3);
    drop(a);
    let report = b.stop().expect("report");
    let wan = report.ports.iter().find(|port| port.interface == "wan0").expect("wan0");
    let seen = ["ike", "keepalive", "udp_esp4", "udp_esp6"].map(|class| wan.steering[class]);
    assert_eq!(seen, [4, 2, 1, 1], "{:?}", wan.steering);
    assert_eq!(report.totals.drops.get("no_sa"), Some(&2), "{:?}", report.totals);
    assert_eq!((report.totals.punted, report.totals.dropped), (0, 2), "{:?}", report.totals);
}

/// A tunnel for everything leaves the gateway its own addresses, those that it gets later too, and
/// what hosts need to find it.
#[test]
fn keeps_its_own_addresses_under_a_tunnel_for_everything() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let path = &lab.sites.configs[1];
    let mut config = std::fs::read_to_string(path).expect("configuration");
    for narrow in ["10.1.0.0/24", "fd01::/64"] {
        let (from, to) = (format!("destination = \"{narrow}\""), "destination = \"any\"");
        assert!(config.contains(&from));
        config = config.replace(&from, to);
    }
    std::fs::write(path, config).expect("configuration");
    let [a, b] = lab.start();
    lab.sites.host_b.ip("neigh flush all").expect("flush");
    lab.ping_all(3);
    reach_gateway(&lab);
    lab.sites.gw_b.ip("address add 10.2.0.77/24 dev lan0").expect("address");
    let new = Ping {
        count: 1,
        timeout: Duration::from_millis(200),
        ..Ping::new("10.2.0.77".parse().expect("an address"))
    };
    until("new address", || new.run(&lab.sites.host_b).expect("ping").received == 1);
    ping(&lab.sites.host_b, ["10.2.0.77", "10.2.0.1"], 5);
    drop(a);
    assert_balanced(&b.stop().expect("report"));
}
