//! A gateway with an IKE daemon: who does the work of IPsec there, and the daemon.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;

use super::charon::Charon;
use super::charon::Ipsec;
use super::connection::Connection;
use super::networks::Networks;
use crate::lab::Namespaces;
use crate::lab::sites::Gateway;

/// Who does the work of IPsec on a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `culvert run`, for a daemon started by `culvert exec`.
    Culvert,
    /// strongSwan itself, in user space: see [`Ipsec::Libipsec`].
    Libipsec,
    /// The kernel, where it has ESP.
    Kernel,
}

/// How `culvert run` is to run for a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'a> {
    /// The program.
    pub culvert: &'a Path,
    /// Workers, and queues of its interfaces.
    pub workers: u32,
    /// More lines of the configuration, from the top level on.
    pub top: &'a str,
    /// More lines of its table `interfaces`.
    pub interfaces: &'a str,
    /// More lines of its table `control`, and whatever tables come after it.
    pub more: &'a str,
}

impl<'a> Engine<'a> {
    /// One worker, nothing special.
    #[must_use]
    pub fn new(culvert: &'a Path) -> Engine<'a> {
        Engine { culvert, workers: 1, top: "", interfaces: "", more: "" }
    }

    /// Writes the configuration of a gateway and returns its path.
    fn configure(&self, directory: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("culvert.toml");
        let text = format!(
            "state_directory = \"{}\"\n{}\n\
             [interfaces]\nprotected = [\"lan0\"]\nunprotected = [\"wan0\"]\n{}\n\
             [workers]\ncount = {}\n\
             [control]\nsocket = \"{}\"\n{}\n",
            directory.join("state").display(),
            self.top,
            self.interfaces,
            self.workers,
            socket(directory).display(),
            self.more,
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts it on a gateway and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start(
        &self,
        namespaces: &mut Namespaces,
        networks: &Networks,
        site: usize,
    ) -> Result<Gateway> {
        let config = self.configure(&networks.directory_of(site))?;
        let gateway = Gateway::start(namespaces, &networks.gateways[site], self.culvert, &config)?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// The words that start a daemon of a gateway so that it finds the engine.
    #[must_use]
    pub fn launcher(&self, networks: &Networks, site: usize) -> Vec<String> {
        let socket = socket(&networks.directory_of(site)).display().to_string();
        let culvert = self.culvert.display().to_string();
        ["exec", "--socket", &socket, "--"].into_iter().fold(vec![culvert], |mut words, word| {
            words.push(word.to_owned());
            words
        })
    }
}

/// Where the engine of a gateway listens.
fn socket(directory: &Path) -> PathBuf {
    directory.join("xfrm.sock")
}

/// A gateway with strongSwan.
#[derive(Debug)]
pub struct Station {
    /// Its daemon.
    pub charon: Charon,
    /// Its engine, when that is culvert.
    pub engine: Option<Gateway>,
}

impl Station {
    /// Starts what a gateway needs, the engine first.
    ///
    /// # Errors
    /// When something does not start, with what it said.
    pub fn start(
        namespaces: &mut Namespaces,
        networks: &Networks,
        site: usize,
        (backend, engine): (Backend, &Engine<'_>),
        connections: &[Connection],
    ) -> Result<Station> {
        let (ipsec, engine) = match backend {
            Backend::Culvert => {
                let launcher = engine.launcher(networks, site);
                (Ipsec::Netlink { launcher }, Some(engine.start(namespaces, networks, site)?))
            }
            Backend::Libipsec => {
                networks.forward(site)?;
                (Ipsec::Libipsec, None)
            }
            Backend::Kernel => {
                networks.forward(site)?;
                (Ipsec::Netlink { launcher: Vec::new() }, None)
            }
        };
        let directory = networks.directory_of(site).join("strongswan");
        let ns = &networks.gateways[site];
        let charon = Charon::start(namespaces, ns, &directory, &ipsec, connections)?;
        Ok(Station { charon, engine })
    }

    /// Stops the daemon, then the engine, whose report is returned.
    ///
    /// # Errors
    /// When one does not end well, with what it said.
    pub fn stop(self) -> Result<Option<crate::run::RunReport>> {
        self.charon.stop()?;
        self.engine.map(Gateway::stop).transpose()
    }
}
