//! What two IKE daemons are to agree on, and how strongSwan is told: `swanctl.conf`.

use std::fmt::Write as _;
use std::time::Duration;

use super::pki::Certificate;

/// Version of IKE, and of version 1 the mode of phase 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// IKEv1, main mode (RFC 2409 section 5).
    Main,
    /// IKEv1, aggressive mode.
    Aggressive,
    /// IKEv2 (RFC 7296).
    #[default]
    Two,
}

/// How the ends prove who they are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// By a secret that both have.
    Psk(String),
    /// By certificates of one authority. This end's certificate comes with its key.
    Certificate(Box<Certificate>),
}

/// Protocol of a Child SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// ESP.
    #[default]
    Esp,
    /// AH.
    Ah,
}

/// What becomes of the packets that a child selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They go through a tunnel.
    #[default]
    Tunnel,
    /// They go in transport mode.
    Transport,
    /// They go in clear: there is no SA, only policies. It takes [`Action::Trap`] to install them.
    Pass,
    /// They go nowhere, likewise.
    Drop,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::Tunnel => "tunnel",
            Mode::Transport => "transport",
            Mode::Pass => "pass",
            Mode::Drop => "drop",
        }
    }
}

/// What happens when a connection is loaded, or a Child SA ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// Policies are installed, whose first packet brings the Child SA up.
    Trap,
    /// The Child SA is brought up.
    Start,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::Trap => "trap",
            Action::Start => "start",
        }
    }
}

/// An IKE SA to be, as one of its ends sees it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Version of IKE.
    pub version: Version,
    /// Own address, or `%any`.
    pub local_address: String,
    /// The peer's address, or `%any`.
    pub remote_address: String,
    /// Own identity.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// How the ends prove who they are.
    pub auth: Auth,
    /// Proposal for the IKE SA.
    pub proposal: String,
    /// When to negotiate the IKE SA anew; never when zero.
    pub rekey_time: Duration,
    /// How long the peer may be silent before it is asked whether it lives; for ever when zero.
    pub dpd_delay: Duration,
    /// Addresses may change (RFC 4555).
    pub mobike: bool,
    /// UDP encapsulation even without a NAT.
    pub encap: bool,
    /// Virtual addresses to ask for, like `0.0.0.0`.
    pub vips: Vec<String>,
    /// Virtual addresses to give out, like `10.3.0.0/24`.
    pub pools: Vec<String>,
    /// Identifier of interface for all children (XFRM interfaces).
    pub if_id: Option<u32>,
    /// More lines of the connection's section.
    pub more: Vec<String>,
    /// Its Child SAs.
    pub children: Vec<Child>,
}

/// A Child SA to be.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Proposal; `-esn` at its end asks for extended sequence numbers.
    pub proposal: String,
    /// What becomes of the packets.
    pub mode: Mode,
    /// Own traffic selectors.
    pub local_ts: Vec<String>,
    /// The peer's traffic selectors.
    pub remote_ts: Vec<String>,
    /// What to do when it is loaded.
    pub start_action: Action,
    /// What to do when the peer is dead.
    pub dpd_action: Action,
    /// What to do when the peer deletes it.
    pub close_action: Action,
    /// When to rekey; never when zero.
    pub rekey_time: Duration,
    /// After how many octets to rekey; never when zero.
    pub rekey_bytes: u64,
    /// After how many packets to rekey; never when zero.
    pub rekey_packets: u64,
    /// Replay window, in packets; the daemon's default when absent.
    pub replay_window: Option<u32>,
    /// Mark of policies and SAs, inbound and outbound.
    pub mark: Option<u32>,
    /// Number that ties policies to SAs; the daemon counts when absent.
    pub reqid: Option<u32>,
    /// DF of the inner packet is copied to the outer one (RFC 4301 section 8.1).
    pub copy_df: bool,
    /// Lengthen packets to this size, or to the MTU ("mtu").
    pub tfc_padding: Option<String>,
    /// More lines of the child's section.
    pub more: Vec<String>,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection {
            name: "net".to_owned(),
            version: Version::Two,
            local_address: "%any".to_owned(),
            remote_address: "%any".to_owned(),
            local_id: String::new(),
            remote_id: String::new(),
            auth: Auth::Psk("a secret of the laboratory".to_owned()),
            proposal: "aes128-sha256-x25519".to_owned(),
            rekey_time: Duration::ZERO,
            dpd_delay: Duration::ZERO,
            mobike: false,
            encap: false,
            vips: Vec::new(),
            pools: Vec::new(),
            if_id: None,
            more: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl Default for Child {
    fn default() -> Child {
        Child {
            name: "net".to_owned(),
            protocol: Protocol::Esp,
            proposal: "aes128gcm16".to_owned(),
            mode: Mode::Tunnel,
            local_ts: vec!["dynamic".to_owned()],
            remote_ts: vec!["dynamic".to_owned()],
            start_action: Action::None,
            dpd_action: Action::None,
            close_action: Action::None,
            rekey_time: Duration::ZERO,
            rekey_bytes: 0,
            rekey_packets: 0,
            replay_window: None,
            mark: None,
            reqid: None,
            copy_df: true,
            tfc_padding: None,
            more: Vec::new(),
        }
    }
}

impl Connection {
    /// What the other end has to be told.
    #[must_use]
    pub fn mirrored(&self) -> Connection {
        let mut peer = self.clone();
        std::mem::swap(&mut peer.local_address, &mut peer.remote_address);
        std::mem::swap(&mut peer.local_id, &mut peer.remote_id);
        for child in &mut peer.children {
            std::mem::swap(&mut child.local_ts, &mut child.remote_ts);
        }
        peer
    }

    /// The same with children of this change.
    #[must_use]
    pub fn with_children(mut self, mut change: impl FnMut(&mut Child)) -> Connection {
        self.children.iter_mut().for_each(&mut change);
        self
    }

    /// Its section of `connections`.
    pub(super) fn section(&self) -> String {
        let mut text = format!("  {} {{\n", self.name);
        let version = if self.version == Version::Two { 2 } else { 1 };
        let mut lines = vec![
            format!("version = {version}"),
            format!("local_addrs = {}", self.local_address),
            format!("remote_addrs = {}", self.remote_address),
            format!("proposals = {}", self.proposal),
            format!("rekey_time = {}", self.rekey_time.as_secs()),
            format!("dpd_delay = {}", self.dpd_delay.as_secs()),
            format!("mobike = {}", yes(self.mobike)),
            format!("encap = {}", yes(self.encap)),
        ];
        if self.version == Version::Aggressive {
            lines.push("aggressive = yes".to_owned());
        }
        if !self.vips.is_empty() {
            lines.push(format!("vips = {}", self.vips.join(",")));
        }
        if !self.pools.is_empty() {
            let names: Vec<_> = (0..self.pools.len()).map(|n| self.pool_name(n)).collect();
            lines.push(format!("pools = {}", names.join(",")));
        }
        if let Some(if_id) = self.if_id {
            lines.push(format!("if_id_in = {if_id}"));
            lines.push(format!("if_id_out = {if_id}"));
        }
        lines.extend(self.more.iter().cloned());
        for line in lines {
            writeln!(text, "    {line}").expect("a string takes all");
        }
        let auth = match &self.auth {
            Auth::Psk(_) => "auth = psk".to_owned(),
            Auth::Certificate(_) => "auth = pubkey".to_owned(),
        };
        let certs = match &self.auth {
            Auth::Psk(_) => String::new(),
            Auth::Certificate(own) => format!("      certs = {}.pem\n", own.name),
        };
        write!(
            text,
            "    local {{\n      {auth}\n      id = {}\n{certs}    }}\n    remote {{\n      \
             {auth}\n      id = {}\n    }}\n    children {{\n",
            self.local_id, self.remote_id,
        )
        .expect("a string takes all");
        text.extend(self.children.iter().map(Child::section));
        text + "    }\n  }\n"
    }

    /// Its sections of `secrets`.
    pub(super) fn secrets(&self) -> String {
        match &self.auth {
            Auth::Psk(secret) => format!(
                "  ike-{} {{\n    id-a = {}\n    id-b = {}\n    secret = \"{secret}\"\n  }}\n",
                self.name, self.local_id, self.remote_id,
            ),
            Auth::Certificate(_) => String::new(),
        }
    }

    /// Its sections of `pools`.
    pub(super) fn pool_sections(&self) -> String {
        let section = |(number, addresses): (usize, &String)| {
            format!("  {} {{\n    addrs = {addresses}\n  }}\n", self.pool_name(number))
        };
        self.pools.iter().enumerate().map(section).collect()
    }

    fn pool_name(&self, number: usize) -> String {
        format!("{}-pool-{number}", self.name)
    }
}

impl Child {
    fn section(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Esp => "esp",
            Protocol::Ah => "ah",
        };
        let mut lines = vec![
            format!("{protocol}_proposals = {}", self.proposal),
            format!("mode = {}", self.mode.word()),
            format!("local_ts = {}", self.local_ts.join(",")),
            format!("remote_ts = {}", self.remote_ts.join(",")),
            format!("start_action = {}", self.start_action.word()),
            format!("close_action = {}", self.close_action.word()),
            format!("rekey_time = {}", self.rekey_time.as_secs()),
            format!("rekey_bytes = {}", self.rekey_bytes),
            format!("rekey_packets = {}", self.rekey_packets),
            format!("copy_df = {}", yes(self.copy_df)),
        ];
        let dpd_action = match self.dpd_action {
            Action::None => "clear",
            Action::Trap => "trap",
            Action::Start => "restart",
        };
        lines.push(format!("dpd_action = {dpd_action}"));
        let numbers = [
            ("replay_window", self.replay_window),
            ("mark_in", self.mark),
            ("mark_out", self.mark),
            ("reqid", self.reqid),
        ];
        for (key, number) in numbers {
            lines.extend(number.map(|number| format!("{key} = {number}")));
        }
        lines.extend(self.tfc_padding.as_ref().map(|size| format!("tfc_padding = {size}")));
        lines.extend(self.more.iter().cloned());
        let lines: String = lines.iter().map(|line| format!("        {line}\n")).collect();
        format!("      {} {{\n{lines}      }}\n", self.name)
    }
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}
