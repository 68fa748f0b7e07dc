//! What the live tests share: a laboratory with two gateways, and a peer who holds a key and makes
//! any ESP packet he likes.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use culvert::lab::Cancel;
use culvert::lab::Namespaces;
use culvert::lab::Ns;
use culvert::lab::Ping;
use culvert::lab::sites::Gateway;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert::lab::sites::Sites;
use culvert::report::CounterReport;
use culvert::run::RunReport;
use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::ICV_LEN;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::RustCrypto;
use culvert_aead::RustCryptoKey;
use culvert_wire::ethernet::Mac;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;

/// The program under test.
pub(crate) const CULVERT: &str = env!("CARGO_BIN_EXE_culvert");

/// Longest wait for something that takes milliseconds.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Two sites and the namespaces they are made of.
pub(crate) struct Lab {
    pub(crate) sites: Sites,
    pub(crate) namespaces: Namespaces,
}

/// Namespaces, or `None`, said loudly, where that is not possible.
pub(crate) fn namespaces() -> Option<Namespaces> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return None;
    }
    Some(Namespaces::new(&Cancel::new()).expect("namespaces"))
}

impl Lab {
    /// Two sites, or `None`, said loudly, where that is not possible.
    pub(crate) fn new(plan: &Plan) -> Option<Lab> {
        let mut namespaces = namespaces()?;
        let sites = Sites::new(&mut namespaces, plan).expect("sites");
        Some(Lab { sites, namespaces })
    }

    /// Both gateways, ready.
    pub(crate) fn start(&mut self) -> [Gateway; 2] {
        self.sites.start(&mut self.namespaces, Path::new(CULVERT)).expect("gateways")
    }

    /// A gateway in one namespace, ready.
    pub(crate) fn start_one(&mut self, ns: &Ns, config: &Path) -> Gateway {
        let gateway = self.launch(ns, config);
        gateway.wait_ready().expect("ready");
        gateway
    }

    /// A gateway that may fail to start.
    pub(crate) fn launch(&mut self, ns: &Ns, config: &Path) -> Gateway {
        Gateway::start(&mut self.namespaces, ns, Path::new(CULVERT), config).expect("start")
    }

    /// Starts a gateway that must refuse to run; returns what it said.
    pub(crate) fn refusal(&mut self, ns: &Ns, config: &Path) -> String {
        let gateway = self.launch(ns, config);
        let status = gateway.process().wait(LONG).expect("wait").expect("it must end by itself");
        assert!(!status.success(), "{status}: {}", gateway.log());
        // Its last words may still be on their way.
        until("last words", || gateway.says("culvert: "));
        gateway.log()
    }

    /// Both families, both directions: nothing is lost.
    pub(crate) fn ping_all(&self, count: u16) {
        ping(&self.sites.host_a, HOST_B, count);
        ping(&self.sites.host_b, HOST_A, count);
    }

    /// Adds to the configuration of gateway b.
    pub(crate) fn append_to_b(&self, text: &str) {
        let path = &self.sites.configs[1];
        let old = std::fs::read_to_string(path).expect("configuration");
        std::fs::write(path, old + text).expect("configuration");
    }
}

/// Pings that all come back, once and whole.
pub(crate) fn ping(from: &Ns, destinations: [&str; 2], count: u16) {
    for destination in destinations {
        let destination = destination.parse().expect("an address");
        let report = Ping { count, ..Ping::new(destination) }.run(from).expect("ping");
        let outcome = (report.received, report.surplus, report.corrupt);
        assert_eq!(outcome, (u64::from(count), 0, 0), "{}: ping {destination}", from.name());
    }
}

/// Waits until `done` says true.
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(Cancel::new().wait(LONG, done).expect("nobody cancels"), "no {what} after {LONG:?}");
}

/// Lets packets under way arrive.
pub(crate) fn settle() {
    thread::sleep(Duration::from_millis(200));
}

/// Every packet has one fate, and the workers add up to the totals.
pub(crate) fn assert_balanced(report: &RunReport) {
    for counters in report.workers.iter().chain([&report.totals]) {
        let CounterReport { received, taken, released, made, .. } = counters;
        let CounterReport { forwarded, bypassed, answered, handed_off, .. } = counters;
        let CounterReport { held, reassembling, split, punted, dropped, .. } = counters;
        let sent = forwarded + bypassed + answered + handed_off;
        let aside = held + reassembling + split + punted;
        assert_eq!(received + taken + released + made, sent + aside + dropped, "{counters:?}");
        assert_eq!(counters.drops.values().sum::<u64>(), *dropped, "{counters:?}");
    }
    let received = report.workers.iter().map(|worker| worker.received).sum::<u64>();
    assert_eq!(received, report.totals.received);
}

/// Runs a command in a namespace; returns what it said, after success.
pub(crate) fn run(ns: &Ns, program: &str, arguments: &str) -> String {
    let mut command: Command = ns.command(program);
    let output = command.args(arguments.split_whitespace()).output().expect(program);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}{error}");
    said
}

/// The MAC address of an interface.
pub(crate) fn mac(ns: &Ns, interface: &str) -> Mac {
    let shown = ns.ip(&format!("-o link show dev {interface}")).expect("link");
    let text = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let octets = text.expect("an Ethernet address").split(':');
    let octets: Vec<u8> = octets.map(|octet| u8::from_str_radix(octet, 16).expect("hex")).collect();
    Mac(octets.try_into().expect("six octets"))
}

/// A peer with a key, who need not keep to any rule.
pub(crate) struct Peer {
    aead: RustCrypto,
    key: RustCryptoKey,
    spi: u32,
    next: u32,
}

impl Peer {
    /// SPI and key of [`Peer::new`].
    pub(crate) const SPI: u32 = 0x3001;
    /// Key and salt, in hex.
    pub(crate) const KEY: &str = "4bd6a1c1a9cd1f2e8f3f0c5d7e6b9a8040414243";

    /// A peer whose SA gateway b knows as "insider", by [`Peer::sa`].
    pub(crate) fn new() -> Peer {
        let aead = RustCrypto;
        let keymat = Keymat::from_hex(Self::KEY).expect("hex");
        let key = aead.key(Algorithm::Aes128Gcm16, &keymat).expect("a key");
        Peer { aead, key, spi: Self::SPI, next: 1 }
    }

    /// The SA for the configuration of the gateway at 192.0.2.2.
    pub(crate) fn sa() -> String {
        format!(
            "[[sa]]\nname = \"insider\"\ndirection = \"inbound\"\nspi = {}\n\
             source = \"192.0.2.1\"\ndestination = \"192.0.2.2\"\n\
             algorithm = \"aes128gcm16\"\nkey = \"{}\"\nreplay_window = 1024\n",
            Self::SPI,
            Self::KEY,
        )
    }

    /// The next packet, authentic, around any text: SPI to ICV.
    pub(crate) fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.next += 1;
        self.seal_as(self.next - 1, text)
    }

    /// An authentic packet with this number.
    pub(crate) fn seal_as(&mut self, seq: u32, text: &[u8]) -> Vec<u8> {
        let mut esp = Vec::with_capacity(text.len() + 32);
        esp.extend(self.spi.to_be_bytes());
        esp.extend(seq.to_be_bytes());
        esp.extend(u64::from(seq).to_be_bytes());
        esp.extend(text);
        esp.extend([0; ICV_LEN]);
        let op = Op { key: &self.key, esn_high: None, esp: &mut esp };
        self.aead.seal(&mut [op]);
        esp
    }
}

/// What ESP encrypts: the packet, padding 1, 2, 3, its length, and the next header.
pub(crate) fn text(packet: &[u8], next_header: u8) -> Vec<u8> {
    let mut text = packet.to_vec();
    let pad = (4 - (packet.len() + 2) % 4) % 4;
    text.extend((1u8..).take(pad));
    text.extend([u8::try_from(pad).expect("below 4"), next_header]);
    text
}

/// A BPF file system of its own.
pub(crate) struct BpfFs(PathBuf);

impl BpfFs {
    pub(crate) fn new(directory: &Path) -> BpfFs {
        let path = directory.join("bpf");
        std::fs::create_dir(&path).expect("directory");
        let (kind, none) = (Some("bpf"), None::<&str>);
        mount(kind, &path, kind, MsFlags::empty(), none).expect("BPF file system");
        BpfFs(path)
    }

    /// Where a gateway pins.
    pub(crate) fn pins(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // All pins vanish with it.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
