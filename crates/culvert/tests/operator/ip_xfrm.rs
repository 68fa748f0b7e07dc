//! One script of `ip xfrm`, to the real kernel in a namespace of its own and under `culvert exec`:
//! the same exit codes, the same complaints, the same listings.
//!
//! What differs is said with the commands. Beyond that, kernels differ in what they can: one
//! without ESP refuses SAs with keys, which are told apart here and not compared with it.

use std::fmt::Write as _;
use std::process::Command;
use std::process::Output;

use nix::unistd::Uid;

use crate::CULVERT;
use crate::server::Server;

/// Commands behind `ip xfrm`, one a line. A `#` begins what is said of them.
const SCRIPT: &str = "\
# A gateway discards what no policy is for; the kernel lets it pass.
policy setdefault in accept fwd accept out accept
# Policies.
policy list
policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 100 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 1 mode tunnel
policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 100 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 1 mode tunnel
policy add src 10.2.0.0/16 dst 10.1.0.0/16 dir in tmpl src 192.0.2.2 dst 192.0.2.1 proto esp reqid 1 mode tunnel
policy add src 10.2.0.0/16 dst 10.1.0.0/16 dir fwd tmpl src 192.0.2.2 dst 192.0.2.1 proto esp reqid 1 mode tunnel
policy add src 10.3.0.0/16 dst 10.2.0.0/16 dir out action block priority 5
policy add src 10.4.0.0/16 dst 10.2.0.0/16 proto tcp dport 80 dir out
policy add src fd00:1::/64 dst fd00:2::/64 dir out tmpl src 2001:db8::1 dst 2001:db8::2 proto ah reqid 2 mode transport
policy add src 10.5.0.0/16 dst 10.2.0.0/16 dir out mark 1 mask 3
policy add src 10.5.0.0/16 dst 10.2.0.0/16 dir out mark 2 mask 3
policy add src 10.6.0.0/16 dst 10.2.0.0/16 dir out limit time-hard 5000 limit byte-soft 77
policy list
policy get src 10.3.0.0/16 dst 10.2.0.0/16 dir out
policy get src 10.3.0.0/16 dst 10.2.0.0/16 dir in
policy get src 10.5.0.0/16 dst 10.2.0.0/16 dir out mark 2 mask 3
policy get src 10.5.0.0/16 dst 10.2.0.0/16 dir out
policy get index 9999 dir out
policy update src 10.3.0.0/16 dst 10.2.0.0/16 dir out action allow priority 6
policy get src 10.3.0.0/16 dst 10.2.0.0/16 dir out
policy update src 10.7.0.0/16 dst 10.2.0.0/16 dir out
policy delete src 10.5.0.0/16 dst 10.2.0.0/16 dir out mark 1 mask 3
policy delete src 10.5.0.0/16 dst 10.2.0.0/16 dir out mark 1 mask 3
policy delete src 10.9.0.0/16 dst 10.2.0.0/16 dir in
policy add src 10.8.0.0/33 dst 10.2.0.0/16 dir out
policy list
policy list dir in
policy count
policy deleteall dir fwd
policy list
policy flush
policy list
policy flush
policy count
# Defaults and thresholds.
policy getdefault
policy setdefault in block fwd accept out block
policy getdefault
policy setdefault in accept out accept
policy getdefault
policy set hthresh4 24 32
policy set hthresh4 33 32
# SAs without keys.
state list
state allocspi src 192.0.2.2 dst 192.0.2.1 proto esp reqid 1 mode tunnel min 0x100 max 0x100
state allocspi src 192.0.2.2 dst 192.0.2.1 proto esp reqid 2 mode tunnel min 0x100 max 0x100
state allocspi src 192.0.2.2 dst 192.0.2.1 proto esp reqid 3 mode transport min 0x101 max 0x101
state allocspi src 192.0.2.2 dst 192.0.2.1 proto ah reqid 4 mode tunnel min 0x100 max 0x100
state allocspi src 2001:db8::2 dst 2001:db8::1 proto esp mode tunnel min 0x102 max 0x102
state allocspi src 192.0.2.2 dst 192.0.2.1 proto esp reqid 1 mode tunnel min 9 max 8
state list
state list src 192.0.2.2
state list proto ah
state get src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x100
state get src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x999
state delete src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x999
state delete src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x101
state delete src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x101
state count
state deleteall proto ah
state list
state flush
state flush
state list
# SAs that no kernel takes.
state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x200 mode tunnel
state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x200 mode tunnel enc cbc(aes) 0x00112233445566778899aabbccddeeff
state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x200 mode tunnel auth hmac(nothing) 0x00 enc cbc(aes) 0x00112233445566778899aabbccddeeff
state update src 192.0.2.1 dst 192.0.2.2 proto comp spi 0x200 mode tunnel
state list
";

/// What came of each command: its line, exit code, standard output, standard error.
fn run(mut shell: Command) -> Vec<String> {
    let mut script = String::new();
    for line in SCRIPT.lines().filter(|line| !line.starts_with('#')) {
        // Parentheses are the shell's.
        let quoted = line.replace('(', "'('").replace(')', "')'");
        writeln!(script, "echo '@@ {line}'; ip xfrm {quoted} 2>&1; echo \"exit $?\"").unwrap();
    }
    let Output { stdout, stderr, .. } = shell.args(["sh", "-c", &script]).output().expect("sh");
    let text = String::from_utf8(stdout).expect("text");
    let outcomes: Vec<_> = text.split("@@ ").skip(1).map(str::to_owned).collect();
    assert_eq!(outcomes.len(), script.lines().count(), "{}", String::from_utf8_lossy(&stderr));
    outcomes
}

/// Whether both refuse a command, the kernel in words and we with the number that they stand for.
fn in_words(ours: &str, kernel: &str) -> bool {
    let refusals = [
        ("No such file or directory", "No SPI available in the requested range."),
        ("Function not implemented", "Requested AUTH algorithm not found."),
    ];
    refusals.iter().any(|(number, words)| {
        let words = format!("Error: {words}");
        kernel.replace(&words, &format!("RTNETLINK answers: {number}")) == ours
    })
}

/// Sixty commands and more do the same under the launcher as with the kernel.
#[test]
fn ip_xfrm_does_as_with_the_kernel() {
    let has_ip = Command::new("ip").arg("-V").output().is_ok();
    if !Uid::effective().is_root() || !has_ip {
        eprintln!("SKIPPED: ip_xfrm_does_as_with_the_kernel needs root and iproute2");
        return;
    }
    let server = Server::start();
    let mut ours = Command::new(CULVERT);
    ours.args(["exec", "--socket"]).arg(server.socket()).arg("--");
    let mut kernel = Command::new("unshare");
    kernel.arg("-n");
    let (ours, kernel) = (run(ours), run(kernel));
    assert!(ours.len() > 60);
    let is_same = |(ours, kernel): &(&String, &String)| ours == kernel || in_words(ours, kernel);
    let differ: Vec<_> = ours.iter().zip(&kernel).filter(|pair| !is_same(pair)).collect();
    assert!(differ.is_empty(), "ours, and the kernel's: {differ:#?}");
    let refused = ours.iter().filter(|outcome| outcome.contains("exit 2")).count();
    assert!(refused > 10, "{refused} complaints");
}
