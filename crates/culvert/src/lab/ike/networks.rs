//! Two networks, each behind a gateway where an IKE daemon runs, and a wire between the gateways.
//!
//! ```text
//!   host-a        gw-a                  wire               gw-b        host-b
//!   eth0 ------- lan0 wan0 --- left [br0] right --- wan0 lan0 ------- eth0
//!   10.1.0.2   10.1.0.1  192.0.2.1          192.0.2.2  10.2.0.1   10.2.0.2
//!   fd01::2    fd01::1   2001:db8::1      2001:db8::2  fd02::1     fd02::2
//! ```
//!
//! With a NAT, gateway a is at 10.9.0.2, and a router takes the place at the wire's left end, whose
//! mapping [`Networks::remap`] changes in mid-stream:
//!
//! ```text
//!   gw-a            nat                   wire
//!   wan0 -------- lan0 wan0 --- left [br0] right --- ...
//!   10.9.0.2  10.9.0.1  192.0.2.1, 192.0.2.7
//! ```

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use tempfile::TempDir;

use super::connection::Auth;
use super::connection::Child;
use super::connection::Connection;
use crate::lab::End;
use crate::lab::Link;
use crate::lab::Namespaces;
use crate::lab::Ns;
use crate::lab::UdpReport;
use crate::lab::UdpStream;
use crate::lab::Wire;
use crate::lab::namespaces::is_dead;
use crate::lab::sites::HOST_A;
use crate::lab::sites::HOST_B;

/// MTU of the hosts' links: what a tunnel adds fits in the wire's 1500.
const SITE_MTU: u32 = 1400;

/// How long a stream flows before something happens and after it, and how long its last datagrams
/// may be under way.
const MARGIN: Duration = Duration::from_millis(300);

/// First letters of directories; the process id of the maker follows.
const PREFIX: &str = "culvert-ike-";

/// Most datagrams of a stream.
const STREAM_MAX: u64 = 1 << 24;

/// Networks behind the gateways, IPv4 and IPv6, a then b.
pub const NETS: [[&str; 2]; 2] = [["10.1.0.0/24", "fd01::/64"], ["10.2.0.0/24", "fd02::/64"]];

/// Addresses of the gateways on the wire, IPv4 and IPv6, a then b.
pub const GATEWAYS: [[&str; 2]; 2] = [["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]];

/// Address of gateway a behind a NAT.
pub const BEHIND_NAT: &str = "10.9.0.2";

/// Addresses that the NAT has on the wire.
pub const NAT: [&str; 2] = ["192.0.2.1", "192.0.2.7"];

/// Identities of the gateways.
pub const IDS: [&str; 2] = ["gw-a.lab.test", "gw-b.lab.test"];

/// The networks, up and connected, without daemons running.
#[derive(Debug)]
pub struct Networks {
    /// Hosts, a then b.
    pub hosts: [Ns; 2],
    /// Gateways, a then b.
    pub gateways: [Ns; 2],
    /// The router with a NAT, if there is one.
    pub nat: Option<Ns>,
    /// What is between the gateways.
    pub wire: Wire,
    mappings: AtomicU16,
    directory: TempDir,
}

impl Networks {
    /// Makes the networks, with links of this many queues.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn new(namespaces: &mut Namespaces, queues: u32) -> Result<Networks> {
        Networks::make(namespaces, queues, false)
    }

    /// Makes the networks with gateway a behind a NAT.
    ///
    /// # Errors
    /// When `ip` or `nft` (package nftables) fails, with its words.
    pub fn with_nat(namespaces: &mut Namespaces, queues: u32) -> Result<Networks> {
        let networks = Networks::make(namespaces, queues, true)?;
        networks.remap(NAT[0])?;
        Ok(networks)
    }

    fn make(namespaces: &mut Namespaces, queues: u32, with_nat: bool) -> Result<Networks> {
        let mut add = |name| namespaces.add(name);
        let hosts = [add("host-a")?, add("host-b")?];
        let gateways = [add("gw-a")?, add("gw-b")?];
        let middle = add("wire")?;
        let nat = with_nat.then(|| add("nat")).transpose()?;
        let site = Link { mtu: SITE_MTU, queues, offloads: true };
        for (number, (host, gateway)) in hosts.iter().zip(&gateways).enumerate() {
            let number = number + 1;
            let address =
                |last| [format!("10.{number}.0.{last}/24"), format!("fd0{number}::{last}/64")];
            let (of_host, of_gateway) = (address(2), address(1));
            site.connect(
                &End::new(host, "eth0", &[&of_host[0], &of_host[1]]),
                &End::new(gateway, "lan0", &[&of_gateway[0], &of_gateway[1]]),
            )?;
            host.ip(&format!("route add default via 10.{number}.0.1"))?;
            host.ip(&format!("-6 route add default via fd0{number}::1"))?;
        }
        let wan = Link { queues, ..Link::default() };
        let left = nat.as_ref().unwrap_or(&gateways[0]);
        let wire = wan.wire(
            &End::new(left, "wan0", &["192.0.2.1/24", "2001:db8::1/64"]),
            &End::new(&gateways[1], "wan0", &["192.0.2.2/24", "2001:db8::2/64"]),
            &middle,
        )?;
        if let Some(nat) = &nat {
            wan.connect(
                &End::new(&gateways[0], "wan0", &["10.9.0.2/24"]),
                &End::new(nat, "lan0", &["10.9.0.1/24"]),
            )?;
            nat.ip("address add 192.0.2.7/24 dev wan0")?;
            nat.sysctl("net.ipv4.ip_forward", "1")?;
            gateways[0].ip("route add default via 10.9.0.1")?;
        }
        sweep_directories()?;
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        Ok(Networks { hosts, gateways, nat, wire, mappings: AtomicU16::new(0), directory })
    }

    /// Gives all that comes from behind the NAT another address on the wire, and other ports, from
    /// now on. What comes to the old ones is dropped. Returns the first of the 1000 ports.
    ///
    /// # Errors
    /// When `nft` fails, with its words, or there is no NAT.
    pub fn remap(&self, address: &str) -> Result<u16> {
        let nat = self.nat.as_ref().context("there is no NAT")?;
        let zone = 1 + self.mappings.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + zone * 1000;
        // In another zone the kernel knows none of the connections it knew.
        let rules = format!(
            "table ip lab\ndelete table ip lab\ntable ip lab {{\n\
             chain zone {{ type filter hook prerouting priority raw; ct zone set {zone}; }}\n\
             chain out {{ type nat hook postrouting priority srcnat;\n\
             oifname \"wan0\" ip protocol udp snat to {address}:{port}-{last} random\n\
             oifname \"wan0\" snat to {address}; }}\n\
             chain own {{ type filter hook input priority filter; ip protocol udp drop; }}\n}}\n",
            last = port + 999,
        );
        nft(nat, &rules)?;
        Ok(port)
    }

    /// Has the kernel of a gateway forward, for a daemon whose packets go through it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forward(&self, site: usize) -> Result<()> {
        let gateway = &self.gateways[site];
        gateway.sysctl("net.ipv4.ip_forward", "1")?;
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Has hosts speak IKE for themselves, past the gateways: these know the way to the other
    /// network, and their kernels forward IKE and nothing else.
    ///
    /// # Errors
    /// When `ip` or `nft` fails, with its words.
    pub fn hosts_speak_ike(&self) -> Result<()> {
        for (site, gateway) in self.gateways.iter().enumerate() {
            let other = 1 - site;
            for (flag, family) in [("", 0), ("-6", 1)] {
                let (net, via) = (NETS[other][family], GATEWAYS[other][family]);
                gateway.ip(&format!("{flag} route add {net} via {via}"))?;
            }
            nft(
                gateway,
                "table inet lab { chain through {\n\
                 type filter hook forward priority filter; policy drop;\n\
                 udp dport { 500, 4500 } accept; udp sport { 500, 4500 } accept; }\n}\n",
            )?;
            self.forward(site)?;
        }
        Ok(())
    }

    /// A tunnel between the gateways for the networks behind them, both families in one Child SA
    /// named `net`, as gateway a sees it. Behind a NAT, gateway a has its private address.
    #[must_use]
    pub fn tunnel(&self, outer_v6: bool) -> Connection {
        let family = usize::from(outer_v6);
        let behind_nat = self.nat.is_some();
        let texts = |nets: [&str; 2]| nets.map(str::to_owned).to_vec();
        Connection {
            local_address: if behind_nat { BEHIND_NAT } else { GATEWAYS[0][family] }.to_owned(),
            remote_address: GATEWAYS[1][family].to_owned(),
            local_id: IDS[0].to_owned(),
            remote_id: IDS[1].to_owned(),
            children: vec![Child {
                local_ts: texts(NETS[0]),
                remote_ts: texts(NETS[1]),
                ..Child::default()
            }],
            ..Connection::default()
        }
    }

    /// What gateway b must know of a connection of gateway a: the same from the other side. Behind
    /// a NAT, gateway a comes from anywhere. `own` is how gateway b proves who it is, when it does
    /// not use the same secret.
    #[must_use]
    pub fn peer_of(&self, connection: &Connection, own: Option<Auth>) -> Connection {
        let mut peer = connection.mirrored();
        if self.nat.is_some() {
            peer.remote_address = "%any".to_owned();
        }
        if let Some(own) = own {
            peer.auth = own;
        }
        peer
    }

    /// Does something while datagrams flow between the hosts, both ways, over IPv4, at a steady
    /// rate (each way, a second), from before it begins until after it ends; returns what arrived
    /// at b and at a.
    ///
    /// # Errors
    /// When a stream cannot flow: a lost datagram is no error.
    pub fn under_load<T>(
        &self,
        rate_pps: u32,
        action: impl FnOnce() -> T,
    ) -> Result<(T, [UdpReport; 2])> {
        let [a, b] = &self.hosts;
        let over = AtomicBool::new(false);
        let go_on = || !over.load(Ordering::Relaxed);
        let stream = |host: &str| -> Result<UdpStream> {
            Ok(UdpStream {
                rate_pps,
                count: STREAM_MAX,
                size: 200,
                drain: MARGIN,
                ..UdpStream::new(SocketAddr::new(host.parse()?, 7100))
            })
        };
        let (to_b, to_a) = (stream(HOST_B[0])?, stream(HOST_A[0])?);
        thread::scope(|scope| {
            let there = scope.spawn(|| to_b.run_while(a, b, go_on));
            let back = scope.spawn(|| to_a.run_while(b, a, go_on));
            // Also when the action panics: the scope waits for the streams.
            let end = Over(&over);
            thread::sleep(MARGIN);
            let outcome = action();
            thread::sleep(MARGIN);
            drop(end);
            let [there, back] = [there, back].map(|stream| {
                stream.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            Ok((outcome, [there?, back?]))
        })
    }

    /// A directory that is removed with the networks.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of what runs on a gateway.
    #[must_use]
    pub fn directory_of(&self, site: usize) -> PathBuf {
        self.directory.path().join(["gw-a", "gw-b"][site])
    }
}

/// Removes directories whose makers are dead: a process which is killed cannot clean up.
fn sweep_directories() -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let maker = rest.and_then(|rest| rest.split_once('-')?.0.parse().ok());
        if maker.is_some_and(is_dead) {
            // Two who sweep at once may both try.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Sets its flag when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has the packet filter of a namespace take rules.
fn nft(ns: &Ns, rules: &str) -> Result<()> {
    let mut command = ns.command("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run nft (package nftables)")?;
    child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
