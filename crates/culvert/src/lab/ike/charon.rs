//! strongSwan as its distribution ships it, in a namespace, with all its files in one directory.
//!
//! It is the daemon `charon-systemd`, which runs without systemd as well. Its configuration is
//! `swanctl.conf`, read by `swanctl` as an operator would have it; everything else is asked over
//! [`vici`](super::vici).

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
use nix::sys::signal::Signal;

use super::connection::Auth;
use super::connection::Connection;
use super::sa::ChildSa;
use super::sa::IkeSa;
use super::vici::Section;
use super::vici::Vici;
use crate::lab::Namespaces;
use crate::lab::Ns;
use crate::lab::Process;

/// Where the distributions have the daemon.
const PROGRAM: &str = "/usr/sbin/charon-systemd";

/// How long an answer that needs no peer may take.
const PROMPT: Duration = Duration::from_secs(10);

/// How long `swanctl` may take, also to load a thousand connections.
const SWANCTL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the daemon may take to start, and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Who does the work of IPsec for a daemon.
#[derive(Clone, Debug)]
pub enum Ipsec {
    /// Whoever answers on sockets of NETLINK_XFRM: the kernel, or, when the daemon is started by
    /// this command, whom the command put there.
    Netlink {
        /// Words in front of the daemon's own; none for the kernel.
        launcher: Vec<String>,
    },
    /// strongSwan itself, in user space: tunnels of ESP in UDP only, without extended sequence
    /// numbers. The packets go through a TUN interface, so the kernel must forward.
    Libipsec,
}

/// A running daemon. It is stopped with its namespaces, at the latest.
#[derive(Debug)]
pub struct Charon {
    ns: Ns,
    directory: PathBuf,
    process: Process,
}

/// Why strongSwan cannot run here, if so.
#[must_use]
pub fn missing() -> Option<&'static str> {
    let packages = [
        (PROGRAM, "charon-systemd"),
        ("/usr/sbin/swanctl", "strongswan-swanctl"),
        ("/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"),
        ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
        ("/usr/bin/openssl", "openssl"),
    ];
    packages.iter().find(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package)
}

impl Charon {
    /// Starts a daemon whose files lie in `directory`, which is made; waits until it answers, and
    /// loads connections.
    ///
    /// # Errors
    /// When it does not start, or refuses a connection, with what it said.
    pub fn start(
        namespaces: &mut Namespaces,
        ns: &Ns,
        directory: &Path,
        ipsec: &Ipsec,
        connections: &[Connection],
    ) -> Result<Charon> {
        std::fs::create_dir_all(directory)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        for old in ["charon.log", "charon.vici"] {
            let _ = std::fs::remove_file(directory.join(old));
        }
        std::fs::write(directory.join("strongswan.conf"), settings(directory, ipsec))?;
        let mut command = match ipsec {
            Ipsec::Netlink { launcher } if !launcher.is_empty() => {
                let mut command = ns.command(&launcher[0]);
                command.args(&launcher[1..]).arg(PROGRAM);
                command
            }
            _ => ns.command(PROGRAM),
        };
        let output = File::create(directory.join("output"))?;
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        command.stdout(output.try_clone()?).stderr(output);
        let process = namespaces.spawn(command)?;
        let charon = Charon { ns: ns.clone(), directory: directory.to_owned(), process };
        charon.wait_ready()?;
        charon.load(connections)?;
        Ok(charon)
    }

    fn wait_ready(&self) -> Result<()> {
        let answers = || self.call("version", &Section::default(), PROMPT).is_ok();
        let ended = || !matches!(self.process.wait(Duration::ZERO), Ok(None));
        self.ns.cancel().wait(START_TIMEOUT, || ended() || answers())?;
        if !answers() {
            let output = std::fs::read_to_string(self.directory.join("output"));
            bail!("strongSwan in {}: {}{}", self.ns.name(), output.unwrap_or_default(), self.log());
        }
        Ok(())
    }

    /// Replaces all connections, secrets and pools.
    ///
    /// # Errors
    /// When one is refused, with the daemon's words.
    pub fn load(&self, connections: &[Connection]) -> Result<()> {
        let directory = self.directory.join("swanctl");
        let each =
            |of: fn(&Connection) -> String| -> String { connections.iter().map(of).collect() };
        let text = format!(
            "connections {{\n{}}}\nsecrets {{\n{}}}\npools {{\n{}}}\n",
            each(Connection::section),
            each(Connection::secrets),
            each(Connection::pool_sections),
        );
        for part in ["x509", "x509ca", "private"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        std::fs::write(directory.join("swanctl.conf"), text)?;
        for connection in connections {
            if let Auth::Certificate(own) = &connection.auth {
                let copy = |from: &Path, to: &str| std::fs::copy(from, directory.join(to));
                copy(&own.certificate, &format!("x509/{}.pem", own.name))?;
                copy(&own.key, &format!("private/{}.key", own.name))?;
                copy(&own.authority, "x509ca/authority.pem")?;
            }
        }
        self.swanctl(&["--load-all", "--noprompt"]).map(|_| ())
    }

    /// Runs `swanctl` as an operator would, and returns what it said.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("timeout")
            .args([&SWANCTL_TIMEOUT.as_secs().to_string(), "swanctl"])
            .args(arguments)
            .args(["--uri", &format!("unix://{}", self.socket().display())])
            .env("SWANCTL_DIR", self.directory.join("swanctl"))
            .env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"))
            .stdin(Stdio::null())
            .output()
            .context("cannot run swanctl (package strongswan-swanctl)")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "swanctl {arguments:?}: {said}{error}");
        Ok(said)
    }

    /// Brings up a Child SA, with its IKE SA when there is none.
    ///
    /// # Errors
    /// When it is not up in time, with the daemon's words.
    pub fn initiate(&self, child: &str, timeout: Duration) -> Result<()> {
        let milliseconds = timeout.as_millis().to_string();
        let message = Section::of(&[("child", child), ("timeout", &milliseconds)]);
        let outcome = self.call("initiate", &message, timeout + PROMPT).map(|_| ());
        outcome.with_context(|| self.last_words())
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Begins to bring up a Child SA. Returns at once.
    ///
    /// # Errors
    /// When there is no such configuration.
    pub fn begin(&self, child: &str) -> Result<()> {
        let message = Section::of(&[("child", child), ("timeout", "-1")]);
        self.call("initiate", &message, PROMPT).map(|_| ())
    }

    /// Begins to rekey all Child SAs of this name. Returns at once.
    ///
    /// # Errors
    /// When there is none.
    pub fn rekey_child(&self, child: &str) -> Result<()> {
        self.call("rekey", &Section::of(&[("child", child)]), PROMPT).map(|_| ())
    }

    /// Begins to rekey all IKE SAs of a connection. Returns at once.
    ///
    /// # Errors
    /// When there is none.
    pub fn rekey_ike(&self, connection: &str) -> Result<()> {
        self.call("rekey", &Section::of(&[("ike", connection)]), PROMPT).map(|_| ())
    }

    /// Deletes the Child SAs of a name, and tells the peer.
    ///
    /// # Errors
    /// When there is none, or the peer does not answer in time.
    pub fn terminate_child(&self, child: &str) -> Result<()> {
        self.terminate("child", child)
    }

    /// Deletes the IKE SAs of a connection with all their children, and tells the peer.
    ///
    /// # Errors
    /// When there is none, or the peer does not answer in time.
    pub fn terminate_ike(&self, connection: &str) -> Result<()> {
        self.terminate("ike", connection)
    }

    fn terminate(&self, what: &str, name: &str) -> Result<()> {
        let milliseconds = PROMPT.as_millis().to_string();
        let message = Section::of(&[(what, name), ("timeout", &milliseconds)]);
        self.call("terminate", &message, PROMPT * 2).map(|_| ())
    }

    /// All SAs.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn list_sas(&self) -> Result<Vec<IkeSa>> {
        let vici = Vici::connect(&self.socket(), PROMPT)?;
        let events = vici.stream("list-sas", "list-sa", &Section::default())?;
        Ok(events.iter().flat_map(IkeSa::read).collect())
    }

    /// The Child SAs of a name that carry traffic, of all IKE SAs, the oldest first.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn installed(&self, child: &str) -> Result<Vec<ChildSa>> {
        let sas = self.list_sas()?;
        let mut children: Vec<_> = sas.iter().flat_map(|sa| sa.installed(child)).cloned().collect();
        children.sort_by_key(|child| child.unique_id);
        Ok(children)
    }

    /// Waits until `done` says true of all SAs; an error names `what` and lists the SAs.
    ///
    /// # Errors
    /// When that does not come in time, or the daemon does not answer.
    pub fn wait_sas(
        &self,
        what: &str,
        timeout: Duration,
        mut done: impl FnMut(&[IkeSa]) -> bool,
    ) -> Result<Vec<IkeSa>> {
        let mut sas = Vec::new();
        let mut look = || -> Result<bool> {
            sas = self.list_sas()?;
            Ok(done(&sas))
        };
        let came = self.ns.cancel().wait(timeout, || look().unwrap_or(false))?;
        ensure!(came, "{}: no {what} in {timeout:?}: {sas:#?}\n{}", self.ns.name(), self.log());
        Ok(sas)
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.join("charon.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// How often its log has these words.
    #[must_use]
    pub fn said(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Waits until its log has these words more than `before` times.
    ///
    /// # Errors
    /// When that does not come in time.
    pub fn wait_said(&self, words: &str, before: usize, timeout: Duration) -> Result<()> {
        let said = self.ns.cancel().wait(timeout, || self.said(words) > before)?;
        ensure!(said, "{}: no \"{words}\" in {timeout:?}: {}", self.ns.name(), self.log());
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.process.wait(Duration::ZERO), Ok(None))
    }

    /// Where it runs.
    #[must_use]
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// Kills it: it says no farewell to its peers.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(self) -> Result<()> {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(STOP_TIMEOUT)?.context("strongSwan does not end")?;
        Ok(())
    }

    /// Stops it: it deletes its SAs and tells its peers.
    ///
    /// # Errors
    /// When it does not end by itself.
    pub fn stop(self) -> Result<()> {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(STOP_TIMEOUT)?;
        let status = status.with_context(|| format!("strongSwan does not end: {}", self.log()))?;
        ensure!(status.success(), "strongSwan in {}: {status}: {}", self.ns.name(), self.log());
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("charon.vici")
    }

    fn call(&self, command: &str, message: &Section, timeout: Duration) -> Result<Section> {
        Vici::connect(&self.socket(), timeout)?
            .call(command, message)
            .with_context(|| format!("strongSwan in {}", self.ns.name()))
    }
}

/// `strongswan.conf`: nothing is read or written outside the directory.
fn settings(directory: &Path, ipsec: &Ipsec) -> String {
    let (backend, routes) = match ipsec {
        // A route to the other network would carry the gateway's own packets past the engine.
        Ipsec::Netlink { .. } => ("kernel-netlink", "no"),
        Ipsec::Libipsec => ("kernel-libipsec kernel-netlink", "yes"),
    };
    include_str!("strongswan.conf")
        .replace("@DIRECTORY@", &directory.display().to_string())
        .replace("@IPSEC@", backend)
        .replace("@ROUTES@", routes)
}
