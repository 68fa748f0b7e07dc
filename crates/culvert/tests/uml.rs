//! Culvert against the ESP of a real Linux kernel: User-Mode Linux, by `scripts/uml-peer`.
//!
//! ```text
//!   host-a        gw                       guest (its own kernel)
//!   eth0 ------- lan0 wan0 ==== ESP ==== vec0 | lo
//!   10.1.0.2  10.1.0.1  10.9.0.1     10.9.0.2 | 192.168.100.1
//!   fd01::2    fd01::1  fd09::1       fd09::2 | fd0a::1
//! ```
//!
//! Needs root and the package user-mode-linux; skips itself loudly without.

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::End;
use culvert::lab::Link;
use culvert::lab::Namespaces;
use culvert::lab::Ns;
use culvert::lab::sites::Gateway;
use tempfile::TempDir;

use support::CULVERT;
use support::assert_balanced;
use support::namespaces;
use support::ping;

/// The kernel, as its package installs it.
const LINUX: &str = "/usr/bin/linux.uml";

/// Addresses of the guest behind its end of the tunnel, IPv4 and IPv6.
const INNER: [&str; 2] = ["192.168.100.1", "fd0a::1"];
/// Addresses of the host behind culvert.
const HOST: [&str; 2] = ["10.1.0.2", "fd01::2"];
/// Tunnel endpoints: the gateway, the guest.
const ENDS: [[&str; 2]; 2] = [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]];
/// SPIs from and to the gateway.
const SPIS: [u32; 2] = [0x1001, 0x2001];
/// With ESN, the last number used: the second packet is beyond 2^32 - 1.
const LAST: u32 = 0xffff_fffe;
/// Pings of one kind.
const PINGS: u16 = 5;

/// A form of SA.
#[derive(Clone, Copy, Debug)]
struct Form {
    outer_v6: bool,
    encapsulated: bool,
    key_octets: usize,
    esn: bool,
    /// Makes its keys different from those of other forms.
    number: u8,
}

/// A guest that is halted on drop.
struct Guest {
    wire: Ns,
    directory: TempDir,
}

impl Guest {
    /// Boots it; its wire ends in `wire` as `peer0`.
    fn boot(wire: &Ns) -> Guest {
        let directory = tempfile::tempdir().expect("directory");
        let guest = Guest { wire: wire.clone(), directory };
        guest.script(&["up"]);
        guest
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/uml-peer");
        let mut command = Command::new(script);
        command.args(arguments).env("NS", self.wire.name());
        command.env("RUN", self.directory.path().join("guest")).env("TIMEOUT", "20");
        command
    }

    fn script(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("scripts/uml-peer");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "uml-peer {arguments:?}: {said}{error}");
        said
    }

    /// Runs a shell command in the guest.
    fn exec(&self, command: &str) -> String {
        self.script(&["exec", command])
    }

    /// Sends echo requests from the guest; returns how many were answered.
    fn ping(&self, destination: &str) -> usize {
        let (family, kind, reply) =
            if destination.contains(':') { (10, 128, 129) } else { (2, 8, 0) };
        let said = self
            .exec(&format!("exec perl -e '{PING}' {family} {destination} {kind} {reply} {PINGS}"));
        said.trim().strip_prefix("answers ").and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Its end of the tunnel.
    fn configure(&self, form: Form, keys: &[String; 2]) {
        let [ours, theirs] = ENDS[usize::from(form.outer_v6)];
        let mut script = "set -e; ip xfrm state flush; ip xfrm policy flush; ".to_owned();
        let states = [(theirs, ours, SPIS[1], &keys[1]), (ours, theirs, SPIS[0], &keys[0])];
        for (source, destination, spi, key) in states {
            let (window, flag, number) = if form.esn {
                (128, "flag esn af-unspec", format!("replay-seq {LAST:#x} replay-oseq {LAST:#x}"))
            } else {
                (32, "flag af-unspec", String::new())
            };
            let encap = if form.encapsulated { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
            write!(
                script,
                "ip xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid 1 \
                 mode tunnel replay-window {window} {number} {flag} \
                 aead 'rfc4106(gcm(aes))' 0x{key} 128 {encap}; "
            )
            .expect("text");
        }
        for (family, inner) in INNER.into_iter().enumerate() {
            let host = ["10.1.0.0/24", "fd01::/64"][family];
            for (source, destination, from, to, direction) in
                [(inner, host, theirs, ours, "out"), (host, inner, ours, theirs, "in")]
            {
                write!(
                    script,
                    "ip xfrm policy add src {source} dst {destination} dir {direction} \
                     tmpl src {from} dst {to} proto esp reqid 1 mode tunnel; "
                )
                .expect("text");
            }
            let version = if family == 0 { 4 } else { 6 };
            write!(script, "ip -{version} route replace {host} dev vec0 src {inner}; ")
                .expect("text");
        }
        self.exec(&script);
    }

    /// What its kernel counted: packets of each SA, and errors of any kind as text, where none is
    /// good.
    fn counters(&self) -> (Vec<u64>, String) {
        let shown = self.exec("ip -s xfrm state; awk '$2 > 0' /proc/net/xfrm_stat");
        let packets = shown.lines().filter_map(|line| {
            let (_, rest) = line.trim().split_once("(bytes), ")?;
            rest.split_once("(packets)")?.0.parse().ok()
        });
        let none = "replay-window 0 replay 0 failed 0";
        let is_error = |line: &&str| {
            line.starts_with("Xfrm") || line.contains("failed") && !line.contains(none)
        };
        (packets.collect(), shown.lines().filter(is_error).collect())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).status();
    }
}

/// Echo requests over a raw socket, with what every Debian has: arguments are address family,
/// destination, the ICMP types of request and reply, and how many.
const PING: &str = r#"use Socket qw(:all);
    my ($family, $to, $type, $reply, $count) = @ARGV;
    socket(my $s, $family, SOCK_RAW, $family == AF_INET ? 1 : 58) or die $!;
    my $address = $family == AF_INET ? sockaddr_in(0, inet_pton($family, $to))
                                     : sockaddr_in6(0, inet_pton($family, $to));
    my $got = 0;
    for my $n (1 .. $count) {
      my $packet = pack("CCnnn", $type, 0, 0, 77, $n) . "culvert" x (3 * $n);
      substr($packet, 2, 2) = pack("n", sum($packet)) if $family == AF_INET;
      send($s, $packet, 0, $address) or die $!;
      my $end = time + 3;
      while (time < $end) {
        my $bits = ""; vec($bits, fileno($s), 1) = 1;
        select($bits, undef, undef, 1) or next;
        recv($s, my $answer, 2000, 0);
        substr($answer, 0, 20) = "" if $family == AF_INET;
        my ($t, undef, undef, $id, $seq) = unpack("CCnnn", $answer);
        next unless $t == $reply && $id == 77 && $seq == $n;
        $got++ if substr($answer, 8) eq "culvert" x (3 * $n); last;
      }
    }
    print "answers $got\n";
    sub sum { my $t = 0; $t += $_ for unpack("n*", $_[0] . "\0");
      $t = ($t & 0xffff) + ($t >> 16) while $t >> 16; return ~$t & 0xffff; }"#;

/// Configuration of the gateway.
fn config(directory: &Path, form: Form, keys: &[String; 2]) -> String {
    let [ours, theirs] = ENDS[usize::from(form.outer_v6)];
    let mut text = format!(
        "state_directory = \"{}\"\n[interfaces]\nprotected = [\"lan0\"]\n\
         unprotected = [\"wan0\"]\nmode = \"native\"\n[lab]\nstatic_keys = true\n",
        directory.join("state").display()
    );
    let directions = [("outbound", ours, theirs), ("inbound", theirs, ours)];
    for (index, (direction, source, destination)) in directions.into_iter().enumerate() {
        write!(
            text,
            "[[sa]]\nname = \"{direction}\"\ndirection = \"{direction}\"\nspi = {}\n\
             source = \"{source}\"\ndestination = \"{destination}\"\n\
             algorithm = \"aes{}gcm16\"\nkey = \"{}\"\nesn = {}\nsequence = {}\n",
            SPIS[index],
            form.key_octets * 8,
            keys[index],
            form.esn,
            if form.esn { LAST } else { 0 },
        )
        .expect("text");
        if form.encapsulated {
            text += "encapsulation = { source_port = 4500, destination_port = 4500 }\n";
        }
        for family in 0..2 {
            let (host, inner) = (["10.1.0.0/24", "fd01::/64"][family], INNER[family]);
            let (source, destination) = if index == 0 { (host, inner) } else { (inner, host) };
            write!(
                text,
                "[[policy]]\ndirection = \"{direction}\"\nsource = \"{source}\"\n\
                 destination = \"{destination}\"\naction = \"protect\"\nsa = \"{direction}\"\n"
            )
            .expect("text");
        }
    }
    text
}

/// A host, the gateway, and the guest on its wire.
struct Net {
    guest: Guest,
    host: Ns,
    gateway: Ns,
    namespaces: Namespaces,
}

impl Net {
    /// `None`, said loudly, where that is not possible.
    fn new() -> Option<Net> {
        if !Path::new(LINUX).exists() {
            eprintln!("SKIPPED: {LINUX} is missing: apt-get install user-mode-linux kmod");
            return None;
        }
        let mut namespaces = namespaces()?;
        let mut add = |name| namespaces.add(name).expect("namespace");
        let (host, gateway, wire) = (add("host"), add("gw"), add("uml"));
        let site = Link { mtu: 1400, ..Link::default() };
        let lan0 = End::new(&gateway, "lan0", &["10.1.0.1/24", "fd01::1/64"]);
        let eth0 = End::new(&host, "eth0", &["10.1.0.2/24", "fd01::2/64"]);
        site.connect(&eth0, &lan0).expect("link");
        host.ip("route add default via 10.1.0.1").expect("route");
        host.ip("-6 route add default via fd01::1").expect("route");
        let guest = Guest::boot(&wire);
        wire.ip(&format!("link set peer0 netns {} name wan0", gateway.name())).expect("move");
        for address in ["10.9.0.1/24", "fd09::1/64 nodad"] {
            gateway.ip(&format!("address add {address} dev wan0")).expect("address");
        }
        gateway.ip("link set wan0 up").expect("up");
        for inner in INNER {
            let gate = if inner.contains(':') { ENDS[1][1] } else { ENDS[0][1] };
            gateway.ip(&format!("route add {inner} via {gate}")).expect("route");
        }
        guest.exec(&format!(
            "set -e; ip addr add 10.9.0.2/24 dev vec0; ip addr add fd09::2/64 dev vec0 nodad; \
             ip addr add {}/32 dev lo; ip addr add {}/128 dev lo",
            INNER[0], INNER[1]
        ));
        guest.script(&["natt"]);
        Some(Net { guest, host, gateway, namespaces })
    }

    fn start(&mut self, config: &Path) -> Gateway {
        let gateway =
            Gateway::start(&mut self.namespaces, &self.gateway, Path::new(CULVERT), config);
        let gateway = gateway.expect("start");
        gateway.wait_ready().expect("ready");
        gateway
    }

    /// Pings both ways in one form; nothing is lost and nobody counts an error.
    fn check(&mut self, form: Form, config_path: &PathBuf) {
        let keys = [0x5a, 0xa5].map(|seed| {
            let octets = (0..form.key_octets + 4).map(|n| u8::try_from(n).expect("short"));
            let octets: Vec<u8> = octets.map(|n| n.wrapping_mul(seed) ^ form.number).collect();
            hex::encode(octets)
        });
        self.guest.configure(form, &keys);
        let text = config(self.guest.directory.path(), form, &keys);
        std::fs::write(config_path, text).expect("configuration");
        let gateway = self.start(config_path);
        let capture = Capture::start(&self.guest.wire, "uml0", 0).expect("capture");
        ping(&self.host, INNER, PINGS);
        for host in HOST {
            assert_eq!(self.guest.ping(host), usize::from(PINGS), "{form:?}: guest to {host}");
        }
        let counts = capture.stop().expect("capture").counts;
        let report = gateway.stop().expect("report");
        assert_balanced(&report);
        let each_way = u64::from(PINGS) * 4;
        assert_eq!((report.totals.forwarded, report.totals.dropped), (2 * each_way, 0), "{form:?}");
        assert!(report.ports.iter().all(|port| port.mode == "native"), "{:?}", report.ports);
        if form.esn {
            let last = report.sas.iter().map(|sa| sa.sequence).collect::<Vec<_>>();
            assert_eq!(last, [u64::from(LAST) + each_way; 2], "beyond 2^32");
        }
        let expected = (vec![each_way; 2], String::new());
        assert_eq!(self.guest.counters(), expected, "{form:?}");
        assert_eq!(counts[Class::Other], 0, "{form:?}: {counts:?}");
        assert_eq!(counts.esp(), 2 * each_way, "{form:?}: {counts:?}");
    }
}

/// Both inner families, both ways, AES-128 and AES-256, raw ESP and in UDP, over IPv4 and IPv6,
/// with ESN across 2^32 and without: no ping is lost and the Linux kernel counts no error.
#[test]
fn linux_understands_us_and_we_understand_linux() {
    let Some(mut net) = Net::new() else { return };
    let path = net.guest.directory.path().join("gw.toml");
    let forms = [
        (false, false, 16, true),
        (false, false, 32, true),
        (false, true, 16, true),
        (false, true, 32, true),
        (false, false, 16, false),
        (true, false, 32, true),
        (true, true, 16, false),
    ];
    for (number, (outer_v6, encapsulated, key_octets, esn)) in (0..).zip(forms) {
        net.check(Form { outer_v6, encapsulated, key_octets, esn, number }, &path);
    }
}
