//! Libreswan as its distribution ships it, in a namespace, with all its files in one directory.
//!
//! Its package cannot be installed beside strongSwan's, so it runs from wherever it was unpacked:
//! see `scripts/libreswan`. It has no user space of its own for IPsec and speaks NETLINK_XFRM to
//! whoever answers.

use std::fmt::Write as _;
use std::fs::File;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::connection::Action;
use super::connection::Auth;
use super::connection::Child;
use super::connection::Connection;
use super::connection::Mode;
use super::connection::Protocol;
use super::connection::Version;
use crate::lab::Namespaces;
use crate::lab::Ns;
use crate::lab::Process;

/// How long an answer that needs no peer may take.
const PROMPT: Duration = Duration::from_secs(10);

/// How long the daemon may take to start, and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Proposals in strongSwan's words and in Libreswan's.
const PROPOSALS: [(&str, &str); 7] = [
    ("aes128-sha256-x25519", "aes128-sha2_256-dh31"),
    ("aes128-sha256-modp2048", "aes128-sha2_256-dh14"),
    ("aes128gcm16", "aes_gcm128"),
    ("aes256gcm16", "aes_gcm256"),
    ("aes128-sha256", "aes128-sha2_256"),
    ("chacha20poly1305", "chacha20_poly1305"),
    ("sha256", "sha2_256"),
];

/// What Libreswan counted of a Child SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Octets received.
    pub inbound_bytes: u64,
    /// Octets sent.
    pub outbound_bytes: u64,
}

/// A running daemon. It is stopped with its namespaces, at the latest.
#[derive(Debug)]
pub struct Pluto {
    ns: Ns,
    root: PathBuf,
    directory: PathBuf,
    process: Process,
}

impl Pluto {
    /// Starts a daemon that lies under `root`, by the words of `launcher`, with its files in
    /// `directory`, which is made; waits until it listens, and loads connections.
    ///
    /// # Errors
    /// When it does not start, or refuses a connection, with what it said.
    pub fn start(
        namespaces: &mut Namespaces,
        ns: &Ns,
        (root, directory): (&Path, &Path),
        launcher: &[String],
        connections: &[Connection],
    ) -> Result<Pluto> {
        for part in ["nss", "run"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        write_configuration(directory, connections)?;
        make_database(root, &directory.join("nss"))?;
        // It looks for a helper in /usr/libexec. The mount is seen by this command alone.
        let mut command = ns.command("sh");
        command.args(["-c", "mount --bind \"$0\" /usr/libexec && exec \"$@\""]);
        command.arg(root.join("usr/libexec")).args(launcher);
        command.arg(root.join("usr/libexec/ipsec/pluto"));
        command.args(["--nofork", "--stderrlog", "--config"]).arg(directory.join("ipsec.conf"));
        command.arg("--secretsfile").arg(directory.join("ipsec.secrets"));
        command.arg("--nssdir").arg(directory.join("nss"));
        command.arg("--rundir").arg(directory.join("run"));
        let log = File::create(directory.join("pluto.log"))?;
        command.env("LD_LIBRARY_PATH", libraries(root));
        command.stdout(log.try_clone()?).stderr(log);
        let process = namespaces.spawn(command)?;
        let (root, directory) = (root.to_owned(), directory.to_owned());
        let pluto = Pluto { ns: ns.clone(), root, directory, process };
        pluto.wait_ready()?;
        for Connection { name, children, .. } in connections {
            pluto.run("addconn", &["--config", &pluto.file("ipsec.conf"), name])?;
            if children.iter().any(|child| child.start_action == Action::Trap) {
                pluto.whack(&["--route", "--name", name])?;
            }
        }
        Ok(pluto)
    }

    fn wait_ready(&self) -> Result<()> {
        let mut listens = false;
        let ended = || !matches!(self.process.wait(Duration::ZERO), Ok(None));
        self.ns.cancel().wait(START_TIMEOUT, || {
            listens = self.whack(&["--listen"]).is_ok();
            listens || ended()
        })?;
        if !listens {
            bail!("Libreswan in {}: {}", self.ns.name(), self.log());
        }
        Ok(())
    }

    /// Brings a connection up and waits until it is.
    ///
    /// # Errors
    /// When it is not up in time, with the daemon's words.
    pub fn initiate(&self, connection: &str) -> Result<String> {
        self.whack(&["--initiate", "--name", connection])
    }

    /// Rekeys the Child SA of a connection.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn rekey_child(&self, connection: &str) -> Result<String> {
        self.whack(&["--rekey-ipsec", "--name", connection])
    }

    /// Rekeys the IKE SA of a connection.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn rekey_ike(&self, connection: &str) -> Result<String> {
        self.whack(&["--rekey-ike", "--name", connection])
    }

    /// Deletes the SAs of a connection.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn terminate(&self, connection: &str) -> Result<String> {
        self.whack(&["--terminate", "--name", connection])
    }

    /// What it counted of each Child SA of a connection.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn traffic(&self, connection: &str) -> Result<Vec<Traffic>> {
        let said = self.whack(&["--trafficstatus", "--name", connection])?;
        let lines = said.lines().filter(|line| line.contains("inBytes="));
        Ok(lines
            .map(|line| Traffic {
                inbound_bytes: number(line, "inBytes="),
                outbound_bytes: number(line, "outBytes="),
            })
            .collect())
    }

    /// What it says of its states.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn status(&self) -> Result<String> {
        self.whack(&["--showstates"])
    }

    /// Asks the daemon, as the command `ipsec whack` does, and returns what it said.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn whack(&self, arguments: &[&str]) -> Result<String> {
        self.run("whack", arguments)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let path = self.root.join("usr/libexec/ipsec").join(program);
        let output = Command::new("timeout")
            .arg((PROMPT * 2).as_secs().to_string())
            .arg(path)
            .args(["--ctlsocket", &self.file("run/pluto.ctl")])
            .args(arguments)
            .env("LD_LIBRARY_PATH", libraries(&self.root))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?}: {said}{error}");
        Ok(said)
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.join("pluto.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until its log has these words more than `before` times.
    ///
    /// # Errors
    /// When that does not come in time.
    pub fn wait_said(&self, words: &str, before: usize, timeout: Duration) -> Result<()> {
        let said = || self.log().matches(words).count() > before;
        let came = self.ns.cancel().wait(timeout, said)?;
        ensure!(came, "{}: no \"{words}\" in {timeout:?}: {}", self.ns.name(), self.log());
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it: it deletes its SAs and tells its peers.
    ///
    /// # Errors
    /// When it does not end by itself.
    pub fn stop(self) -> Result<()> {
        self.whack(&["--shutdown"])?;
        let status = self.process.wait(START_TIMEOUT)?;
        let status = status.with_context(|| format!("Libreswan does not end: {}", self.log()))?;
        ensure!(status.success(), "Libreswan in {}: {status}: {}", self.ns.name(), self.log());
        Ok(())
    }
}

/// Where Libreswan lies: unpacked in a directory, or installed.
#[must_use]
pub fn find(unpacked: &Path) -> Option<PathBuf> {
    let roots = [unpacked, Path::new("/")];
    roots.into_iter().find(|root| root.join("usr/libexec/ipsec/pluto").exists()).map(Path::to_owned)
}

/// Directories of libraries that were unpacked with it.
fn libraries(root: &Path) -> String {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let directory = |part: &str| root.join(part).join(&triplet).display().to_string();
    [directory("usr/lib"), directory("lib")].join(":")
}

/// Makes the empty database of keys and certificates without which Libreswan does not start.
fn make_database(root: &Path, directory: &Path) -> Result<()> {
    let output = Command::new(root.join("usr/bin/certutil"))
        .args(["-N", "--empty-password", "-d", &format!("sql:{}", directory.display())])
        .env("LD_LIBRARY_PATH", libraries(root))
        .stdin(Stdio::null())
        .output()
        .context("cannot run certutil (package libnss3-tools)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "certutil: {}: {said}", output.status);
    Ok(())
}

fn number(line: &str, key: &str) -> u64 {
    let digits = line.split(key).nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

fn write_configuration(directory: &Path, connections: &[Connection]) -> Result<()> {
    let mut conf = format!("config setup\n  dumpdir={}\n", directory.join("run").display());
    let mut secrets = String::new();
    for connection in connections {
        conf += &section(connection)?;
        if let Auth::Psk(secret) = &connection.auth {
            let (local, remote) = (&connection.local_id, &connection.remote_id);
            writeln!(secrets, "@{local} @{remote} : PSK \"{secret}\"")?;
        }
    }
    std::fs::write(directory.join("ipsec.conf"), conf)?;
    let path = directory.join("ipsec.secrets");
    std::fs::write(&path, secrets)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(())
}

/// A connection with its first child, in the words of `ipsec.conf`.
fn section(connection: &Connection) -> Result<String> {
    let Connection { name, local_address, remote_address, local_id, remote_id, .. } = connection;
    let child = connection.children.first().context("a connection without a child")?;
    let mut lines = vec![
        format!("left={local_address}"),
        format!("right={remote_address}"),
        format!("leftid=@{local_id}"),
        format!("rightid=@{remote_id}"),
        format!("ike={}", translated(&connection.proposal)?),
        format!("ikev2={}", if connection.version == Version::Two { "insist" } else { "no" }),
        format!("aggressive={}", yes(connection.version == Version::Aggressive)),
        format!("mobike={}", yes(connection.mobike)),
        format!("encapsulation={}", if connection.encap { "yes" } else { "auto" }),
        "leftupdown=/bin/true".to_owned(),
        "pfs=no".to_owned(),
        // Loaded by us, once: not by the daemon as well.
        "auto=ignore".to_owned(),
    ];
    match &connection.auth {
        Auth::Psk(_) => lines.push("authby=secret".to_owned()),
        Auth::Certificate(_) => bail!("Libreswan's certificates would have to lie in NSS"),
    }
    if !connection.dpd_delay.is_zero() {
        let delay = connection.dpd_delay.as_secs();
        lines.push(format!("dpddelay={delay}"));
        lines.push(format!("dpdtimeout={}", delay * 4));
        lines.push("dpdaction=restart".to_owned());
    }
    lines.extend(of_child(child)?);
    lines.extend(connection.more.iter().cloned());
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    Ok(format!("conn {name}\n{lines}"))
}

fn of_child(child: &Child) -> Result<Vec<String>> {
    let (proposal, esn) = match child.proposal.strip_suffix("-esn") {
        Some(proposal) => (proposal, "yes"),
        None => (child.proposal.as_str(), "no"),
    };
    let protocol = match child.protocol {
        Protocol::Esp => "esp",
        Protocol::Ah => "ah",
    };
    let transport = child.mode == Mode::Transport;
    let mut lines = vec![
        format!("phase2={protocol}"),
        format!("phase2alg={}", translated(proposal)?),
        format!("esn={esn}"),
        format!("type={}", if transport { "transport" } else { "tunnel" }),
    ];
    if !transport {
        for (side, selectors) in [("left", &child.local_ts), ("right", &child.remote_ts)] {
            let [selector] = selectors.as_slice() else {
                bail!("Libreswan has one selector for each side, not {selectors:?}");
            };
            lines.push(format!("{side}subnet={selector}"));
        }
    }
    lines.extend(child.replay_window.map(|window| format!("replay-window={window}")));
    if !child.rekey_time.is_zero() {
        // It rekeys a margin before the end, which may not be below 540 s by default.
        lines.push(format!("salifetime={}", child.rekey_time.as_secs() + 5));
        lines.push("rekeymargin=5".to_owned());
        lines.push("rekeyfuzz=0%".to_owned());
    }
    lines.extend(child.reqid.map(|reqid| format!("reqid={reqid}")));
    lines.extend(child.more.iter().cloned());
    Ok(lines)
}

fn translated(proposal: &str) -> Result<&'static str> {
    let found = PROPOSALS.iter().find(|(of_strongswan, _)| *of_strongswan == proposal);
    found.map(|(_, words)| *words).with_context(|| format!("{proposal} in Libreswan's words"))
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}
