//! Two sites, each behind a gateway, with a wire between the gateways.
//!
//! ```text
//!   host-a        gw-a                  wire               gw-b        host-b
//!   eth0 ------- lan0 wan0 --- left [br0] right --- wan0 lan0 ------- eth0
//!   10.1.0.2   10.1.0.1  192.0.2.1          192.0.2.2  10.2.0.1   10.2.0.2
//!   fd01::2    fd01::1   2001:db8::1      2001:db8::2  fd02::1     fd02::2
//! ```
//!
//! The gateways do not forward in their kernels, so what arrives came through culvert. Keys are
//! random, made here, and live in files that only root reads, in a directory that is removed with
//! the sites.

use std::fmt::Write as _;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use tempfile::TempDir;

use super::End;
use super::Link;
use super::Namespaces;
use super::Ns;
use super::Process;
use super::Wire;

/// How long a gateway may take until it is ready, and to stop.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(15);

/// MTU of the sites' links: what the tunnel adds fits in the wire's 1500.
const SITE_MTU: u32 = 1400;
const JUMBO_SITE_MTU: u32 = 8940;

/// Addresses of the hosts, IPv4 and IPv6.
pub const HOST_A: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Addresses of the hosts, IPv4 and IPv6.
pub const HOST_B: [&str; 2] = ["10.2.0.2", "fd02::2"];

/// How the sites are connected.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tunnel endpoints are IPv6.
    pub outer_v6: bool,
    /// Hosts of the two sites in transport mode, an SA for each family, instead of a tunnel between
    /// the gateways.
    pub transport: bool,
    /// AH instead of ESP; the algorithm is then one of AH.
    pub ah: bool,
    /// UDP encapsulation on port 4500.
    pub encapsulated: bool,
    /// Algorithm keyword and octets of key and salt.
    pub algorithm: (&'static str, usize),
    /// Extended sequence numbers.
    pub esn: bool,
    /// Workers of each gateway, and queues of its interfaces.
    pub workers: u32,
    /// Where the XDP program runs: `auto`, `native` or `generic`.
    pub mode: &'static str,
    /// More lines of the configuration, for outbound and for inbound SAs.
    pub sa_lines: [&'static str; 2],
    /// Hosts leave checksums and segmentation to their link, as they do by default. In generic mode
    /// their segments reach the gateway uncut, longer than any frame.
    pub offloads: bool,
    /// Links of an MTU of 9000, and gateways that take frames larger than a buffer.
    pub jumbo: bool,
    /// Whether workers of the gateways never sleep.
    pub busy_poll: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            outer_v6: false,
            transport: false,
            ah: false,
            encapsulated: false,
            algorithm: ("aes128gcm16", 20),
            esn: true,
            workers: 1,
            mode: "auto",
            sa_lines: [""; 2],
            offloads: true,
            jumbo: false,
            busy_poll: false,
        }
    }
}

/// The sites, up and connected, without gateways running.
#[derive(Debug)]
pub struct Sites {
    /// Hosts.
    pub host_a: Ns,
    /// Hosts.
    pub host_b: Ns,
    /// Gateways.
    pub gw_a: Ns,
    /// Gateways.
    pub gw_b: Ns,
    /// What is between the gateways.
    pub wire: Wire,
    /// Configuration of the gateways, a then b.
    pub configs: [PathBuf; 2],
    directory: TempDir,
}

impl Sites {
    /// Makes the sites.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn new(namespaces: &mut Namespaces, plan: &Plan) -> Result<Sites> {
        let mut add = |name| namespaces.add(name);
        let (host_a, gw_a, middle) = (add("host-a")?, add("gw-a")?, add("wire")?);
        let (gw_b, host_b) = (add("gw-b")?, add("host-b")?);
        let (site_mtu, wire_mtu) =
            if plan.jumbo { (JUMBO_SITE_MTU, 9000) } else { (SITE_MTU, 1500) };
        let site = Link { mtu: site_mtu, queues: plan.workers, offloads: plan.offloads };
        site.connect(
            &End::new(&host_a, "eth0", &["10.1.0.2/24", "fd01::2/64"]),
            &End::new(&gw_a, "lan0", &["10.1.0.1/24", "fd01::1/64"]),
        )?;
        site.connect(
            &End::new(&host_b, "eth0", &["10.2.0.2/24", "fd02::2/64"]),
            &End::new(&gw_b, "lan0", &["10.2.0.1/24", "fd02::1/64"]),
        )?;
        let wan = Link { mtu: wire_mtu, queues: plan.workers, offloads: true };
        let wire = wan.wire(
            &End::new(&gw_a, "wan0", &["192.0.2.1/24", "2001:db8::1/64"]),
            &End::new(&gw_b, "wan0", &["192.0.2.2/24", "2001:db8::2/64"]),
            &middle,
        )?;
        for (host, v4, v6) in [(&host_a, "10.1.0.1", "fd01::1"), (&host_b, "10.2.0.1", "fd02::1")] {
            host.ip(&format!("route add default via {v4}"))?;
            host.ip(&format!("-6 route add default via {v6}"))?;
        }
        if plan.transport {
            // The gateways are no longer the ends: what is for the other site passes them.
            for (gateway, theirs, far) in [(&gw_a, 2, 2), (&gw_b, 1, 1)] {
                gateway.ip(&format!("route add 10.{theirs}.0.0/24 via 192.0.2.{far}"))?;
                gateway.ip(&format!("route add fd0{theirs}::/64 via 2001:db8::{far}"))?;
            }
        }
        let directory = tempfile::Builder::new().prefix("culvert-lab-").tempdir()?;
        let configs = write_configs(directory.path(), plan)?;
        Ok(Sites { host_a, host_b, gw_a, gw_b, wire, configs, directory })
    }

    /// Starts both gateways and waits until they are ready; a then b.
    ///
    /// # Errors
    /// When one does not start, with what it said.
    pub fn start(&self, namespaces: &mut Namespaces, culvert: &Path) -> Result<[Gateway; 2]> {
        let a = Gateway::start(namespaces, &self.gw_a, culvert, &self.configs[0])?;
        let b = Gateway::start(namespaces, &self.gw_b, culvert, &self.configs[1])?;
        a.wait_ready()?;
        b.wait_ready()?;
        Ok([a, b])
    }

    /// Writes the configurations anew, with new keys, for gateways that start from now on. Queues
    /// and offloads of the links stay as they are.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn configure(&mut self, plan: &Plan) -> Result<()> {
        self.configs = write_configs(self.directory.path(), plan)?;
        Ok(())
    }

    /// A directory that is removed with the sites.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A `culvert run` in a namespace.
#[derive(Debug)]
pub struct Gateway {
    ns: Ns,
    process: Process,
    log: Arc<Mutex<String>>,
    report: PathBuf,
}

impl Gateway {
    /// Starts the program `culvert` with a configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        namespaces: &mut Namespaces,
        ns: &Ns,
        culvert: &Path,
        config: &Path,
    ) -> Result<Gateway> {
        let report = config.with_extension("report.json");
        let mut command = ns.command(culvert);
        command.arg("run").arg("--config").arg(config).arg("--report").arg(&report);
        command.stderr(Stdio::piped());
        let process = namespaces.spawn(command)?;
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = process.take_stderr().context("the gateway has no standard error")?;
        let of_thread = Arc::clone(&log);
        thread::Builder::new()
            .name("gateway-log".to_owned())
            .spawn(move || collect(stderr, &of_thread))?;
        Ok(Gateway { ns: ns.clone(), process, log, report })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends before, or takes too long, with what it said.
    pub fn wait_ready(&self) -> Result<()> {
        let done = || self.says("gateway ready") || !self.is_running();
        let ready = self.ns.cancel().wait(GATEWAY_TIMEOUT, done)? && self.says("gateway ready");
        if !ready {
            bail!("gateway in {} is not ready: {}", self.ns.name(), self.log());
        }
        Ok(())
    }

    /// Whether its log has a line that contains these words.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.process.wait(Duration::ZERO), Ok(None))
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it in an orderly way and returns its report.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn stop(self) -> Result<crate::run::RunReport> {
        let status = self.process.stop(GATEWAY_TIMEOUT)?;
        if !status.success() {
            bail!("gateway in {} failed ({status}): {}", self.ns.name(), self.log());
        }
        let text = std::fs::read_to_string(&self.report).context("report of the gateway")?;
        serde_json::from_str(&text).context("report of the gateway")
    }
}

fn collect(stderr: impl Read, log: &Mutex<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

/// Random key and salt, in hex.
pub(crate) fn random_key(octets: usize) -> Result<String> {
    let mut key = vec![0; octets];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(hex::encode(key))
}

/// Ends and keys of an SA in each direction: of site a, of site b; to b, to a.
struct Pair {
    ends: [&'static str; 2],
    keys: [String; 2],
    /// What policies put into it: the families of these numbers.
    families: &'static [usize],
}

fn pairs(plan: &Plan) -> Result<Vec<Pair>> {
    let pair = |ends, families| -> Result<Pair> {
        let keys = [random_key(plan.algorithm.1)?, random_key(plan.algorithm.1)?];
        Ok(Pair { ends, keys, families })
    };
    Ok(match (plan.transport, plan.outer_v6) {
        (true, _) => {
            vec![pair([HOST_A[0], HOST_B[0]], &[0])?, pair([HOST_A[1], HOST_B[1]], &[1])?]
        }
        (false, true) => vec![pair(["2001:db8::1", "2001:db8::2"], &[0, 1])?],
        (false, false) => vec![pair(["192.0.2.1", "192.0.2.2"], &[0, 1])?],
    })
}

fn write_configs(directory: &Path, plan: &Plan) -> Result<[PathBuf; 2]> {
    let pairs = pairs(plan)?;
    let write = |name: &str, text: String| -> Result<PathBuf> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    };
    Ok([
        write("gw-a.toml", config(directory, plan, 0, &pairs)?)?,
        write("gw-b.toml", config(directory, plan, 1, &pairs)?)?,
    ])
}

/// Configuration of the gateway of site 0 or 1.
fn config(directory: &Path, plan: &Plan, site: usize, pairs: &[Pair]) -> Result<String> {
    let mut text = format!(
        "state_directory = \"{}\"\n\
         [interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\nmode = \"{}\"\n\
         jumbo = {}\n[workers]\ncount = {}\n{}\
         [lab]\nstatic_keys = true\n",
        directory.join(format!("state-{}", ["a", "b"][site])).display(),
        plan.mode,
        plan.jumbo,
        plan.workers,
        if plan.busy_poll { "busy_poll = 64\n" } else { "" },
    );
    for (number, pair) in pairs.iter().enumerate() {
        for (from, to) in [(site, 1 - site), (1 - site, site)] {
            write_sa(&mut text, plan, (number, pair), (from, to), from == site)?;
        }
    }
    Ok(text)
}

/// The SA of a pair from one site to the other, and the policies that use it.
fn write_sa(
    text: &mut String,
    plan: &Plan,
    (number, pair): (usize, &Pair),
    (from, to): (usize, usize),
    outbound: bool,
) -> Result<()> {
    let (direction, name) = if outbound { ("outbound", "out") } else { ("inbound", "in") };
    let name = ["", "-v6"].map(|suffix| format!("{name}{suffix}"))[number].clone();
    let spi = [0x1001, 0x2001][from] + number;
    write!(
        text,
        "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = \"{spi:#x}\"\n\
         protocol = \"{}\"\nmode = \"{}\"\nsource = \"{}\"\ndestination = \"{}\"\n\
         algorithm = \"{}\"\nkey = \"{}\"\nesn = {}\nreplay_window = 1024\n",
        if plan.ah { "ah" } else { "esp" },
        if plan.transport { "transport" } else { "tunnel" },
        pair.ends[from],
        pair.ends[to],
        plan.algorithm.0,
        pair.keys[from],
        plan.esn,
    )?;
    if plan.encapsulated {
        *text += "encapsulation = { source_port = 4500, destination_port = 4500 }\n";
    }
    *text += plan.sa_lines[usize::from(!outbound)];
    for &family in pair.families {
        let net = |site: usize| match family {
            0 => format!("10.{}.0.0/24", site + 1),
            _ => format!("fd0{}::/64", site + 1),
        };
        write!(
            text,
            "[[policy]]\ndirection = \"{direction}\"\nsource = \"{}\"\n\
             destination = \"{}\"\naction = \"protect\"\nsa = \"{name}\"\n",
            net(from),
            net(to),
        )?;
    }
    Ok(())
}
