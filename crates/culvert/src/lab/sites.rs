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
use std::net::IpAddr;
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

/// Addresses of the hosts, IPv4 and IPv6.
pub const HOST_A: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Addresses of the hosts, IPv4 and IPv6.
pub const HOST_B: [&str; 2] = ["10.2.0.2", "fd02::2"];

/// How the sites are connected.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tunnel endpoints are IPv6.
    pub outer_v6: bool,
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
    /// Hosts leave checksums and segmentation to their link, as they do by default. In generic mode
    /// their segments reach the gateway uncut, longer than any frame.
    pub offloads: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            outer_v6: false,
            encapsulated: false,
            algorithm: ("aes128gcm16", 20),
            esn: true,
            workers: 1,
            mode: "auto",
            offloads: true,
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
        let site = Link { mtu: SITE_MTU, queues: plan.workers, offloads: plan.offloads };
        site.connect(
            &End::new(&host_a, "eth0", &["10.1.0.2/24", "fd01::2/64"]),
            &End::new(&gw_a, "lan0", &["10.1.0.1/24", "fd01::1/64"]),
        )?;
        site.connect(
            &End::new(&host_b, "eth0", &["10.2.0.2/24", "fd02::2/64"]),
            &End::new(&gw_b, "lan0", &["10.2.0.1/24", "fd02::1/64"]),
        )?;
        let wan = Link { mtu: 1500, queues: plan.workers, offloads: true };
        let wire = wan.wire(
            &End::new(&gw_a, "wan0", &["192.0.2.1/24", "2001:db8::1/64"]),
            &End::new(&gw_b, "wan0", &["192.0.2.2/24", "2001:db8::2/64"]),
            &middle,
        )?;
        for (host, v4, v6) in [(&host_a, "10.1.0.1", "fd01::1"), (&host_b, "10.2.0.1", "fd02::1")] {
            host.ip(&format!("route add default via {v4}"))?;
            host.ip(&format!("-6 route add default via {v6}"))?;
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

fn write_configs(directory: &Path, plan: &Plan) -> Result<[PathBuf; 2]> {
    let (to_b, to_a) = (random_key(plan.algorithm.1)?, random_key(plan.algorithm.1)?);
    let ends: [IpAddr; 2] = if plan.outer_v6 {
        ["2001:db8::1".parse()?, "2001:db8::2".parse()?]
    } else {
        ["192.0.2.1".parse()?, "192.0.2.2".parse()?]
    };
    let a = config(directory, plan, "a", [ends[0], ends[1]], [(0x1001, &to_b), (0x2001, &to_a)])?;
    let b = config(directory, plan, "b", [ends[1], ends[0]], [(0x2001, &to_a), (0x1001, &to_b)])?;
    let write = |name: &str, text: String| -> Result<PathBuf> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    };
    Ok([write("gw-a.toml", a)?, write("gw-b.toml", b)?])
}

/// Configuration of one gateway: `ends` and `sas` are ours, then theirs.
fn config(
    directory: &Path,
    plan: &Plan,
    site: &str,
    ends: [IpAddr; 2],
    sas: [(u32, &String); 2],
) -> Result<String> {
    let (ours, theirs) = if site == "a" { (1, 2) } else { (2, 1) };
    let mut text = format!(
        "state_directory = \"{}\"\n\
         [interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\nmode = \"{}\"\n\
         [workers]\ncount = {}\n\
         [lab]\nstatic_keys = true\n",
        directory.join(format!("state-{site}")).display(),
        plan.mode,
        plan.workers,
    );
    for (index, (direction, name)) in [("outbound", "out"), ("inbound", "in")].iter().enumerate() {
        let (source, destination) = (ends[index], ends[1 - index]);
        let (spi, key) = sas[index];
        write!(
            text,
            "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = \"{spi:#x}\"\n\
             mode = \"tunnel\"\nsource = \"{source}\"\ndestination = \"{destination}\"\n\
             algorithm = \"{}\"\nkey = \"{key}\"\nesn = {}\nreplay_window = 1024\n",
            plan.algorithm.0, plan.esn,
        )?;
        if plan.encapsulated {
            text += "encapsulation = { source_port = 4500, destination_port = 4500 }\n";
        }
        let (from, to) = if index == 0 { (ours, theirs) } else { (theirs, ours) };
        for (source, destination) in [
            (format!("10.{from}.0.0/24"), format!("10.{to}.0.0/24")),
            (format!("fd0{from}::/64"), format!("fd0{to}::/64")),
        ] {
            write!(
                text,
                "[[policy]]\ndirection = \"{direction}\"\nsource = \"{source}\"\n\
                 destination = \"{destination}\"\naction = \"protect\"\nsa = \"{name}\"\n",
            )?;
        }
    }
    Ok(text)
}
