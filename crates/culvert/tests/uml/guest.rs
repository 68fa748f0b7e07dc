//! The guest: its shell, and its end of the SAs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use culvert::lab::Ns;
use tempfile::TempDir;

use crate::case::Case;
use crate::case::ENDS;
use crate::case::HOST_NETS;
use crate::case::LAST;
use crate::case::Sa;

/// A guest that is halted on drop.
pub(crate) struct Guest {
    pub(crate) wire: Ns,
    pub(crate) directory: TempDir,
}

/// What its kernel counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets of each SA, by SPI.
    pub(crate) packets: BTreeMap<u32, u64>,
    /// Errors of SAs: where there are none, nothing.
    pub(crate) errors: String,
    /// Errors of the machine since it runs.
    pub(crate) xfrm: String,
}

impl Guest {
    /// Boots it; its wire ends in `wire` as `peer0`.
    pub(crate) fn boot(wire: &Ns) -> Guest {
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

    pub(crate) fn script(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("scripts/uml-peer");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "uml-peer {arguments:?}: {said}{error}");
        said
    }

    /// Runs a shell command in the guest.
    pub(crate) fn exec(&self, command: &str) -> String {
        self.script(&["exec", command])
    }

    /// Sends `count` echo requests from the guest; returns how many were answered.
    pub(crate) fn ping(&self, destination: &str, count: u16) -> usize {
        let (family, kind, reply) =
            if destination.contains(':') { (10, 128, 129) } else { (2, 8, 0) };
        let said = self
            .exec(&format!("exec perl -e '{PING}' {family} {destination} {kind} {reply} {count}"));
        said.trim().strip_prefix("answers ").and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Its SAs, policies and routes.
    pub(crate) fn configure(&self, case: &Case, sas: &[Sa]) {
        let mut script = "set -e; ip xfrm state flush; ip xfrm policy flush; ".to_owned();
        for sa in sas {
            let mut flags = Vec::new();
            let (mut window, mut number) = (32, String::new());
            if case.esn {
                (window, number) = (128, format!("replay-seq {LAST:#x} replay-oseq {LAST:#x}"));
                flags.push("esn");
            }
            if !case.is_transport() {
                flags.push("af-unspec");
            }
            if sa.protocol == "ah" && !sa.source.contains(':') {
                // By itself Linux aligns AH to 8 octets in IPv4, too, which RFC 4302 section
                // 3.3.3.2.1 has for IPv6 only.
                flags.push("align4");
            }
            let flags = match flags.len() {
                0 => String::new(),
                _ => format!("flag {}", flags.join(" ")),
            };
            let encap = if case.encapsulated { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
            let mode = case.mode();
            let Sa { source, destination, protocol, spi, .. } = sa;
            write!(
                script,
                "ip xfrm state add src {source} dst {destination} proto {protocol} spi {spi:#x} \
                 reqid 1 mode {mode} replay-window {window} {number} {flags} {} {encap}; ",
                sa.linux_algorithm(),
            )
            .expect("text");
        }
        for family in case.families() {
            let (guest, host) = (case.guest_address(family), HOST_NETS[family]);
            let templates = |outbound: bool| {
                let of = sas.iter().filter(|sa| sa.families.contains(&family));
                let of = of.filter(|sa| sa.to_guest != outbound);
                of.map(|sa| {
                    let Sa { source, destination, protocol, .. } = sa;
                    let mode = case.mode();
                    format!(
                        "tmpl src {source} dst {destination} proto {protocol} reqid 1 mode {mode} "
                    )
                })
                .collect::<String>()
            };
            if case.encapsulated && case.is_transport() {
                // What is around ESP has the same addresses, and must get to its socket.
                write!(
                    script,
                    "ip xfrm policy add src {host} dst {guest} proto udp dport 4500 dir in \
                     priority 1; "
                )
                .expect("text");
            }
            let (out, into) = (templates(true), templates(false));
            let route = match case.is_transport() {
                true => format!("via {}", ENDS[family][0]),
                false => format!("dev vec0 src {guest}"),
            };
            write!(
                script,
                "ip xfrm policy add src {guest} dst {host} dir out priority 2 {out}; \
                 ip xfrm policy add src {host} dst {guest} dir in priority 2 {into}; \
                 ip route replace {host} {route}; ",
            )
            .expect("text");
        }
        self.exec(&script);
    }

    pub(crate) fn counted(&self) -> Counted {
        let shown = self.exec("ip -s xfrm state; echo =; awk '$2 > 0' /proc/net/xfrm_stat");
        let (states, xfrm) = shown.split_once("=\n").expect("two parts");
        let mut counted = Counted {
            packets: BTreeMap::new(),
            errors: String::new(),
            xfrm: xfrm.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let mut spi = 0;
        for line in states.lines().map(str::trim) {
            if let Some((_, rest)) = line.split_once(" spi 0x") {
                spi = u32::from_str_radix(&rest[..8], 16).expect("an SPI");
            } else if let Some((_, rest)) = line.split_once("(bytes), ") {
                // The first such line has the limits.
                if let Ok(packets) = rest.trim_end_matches("(packets)").parse() {
                    counted.packets.insert(spi, packets);
                }
            } else if line.contains("failed") && !line.contains("replay-window 0 replay 0 failed 0")
            {
                counted.errors += line;
            }
        }
        counted
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
