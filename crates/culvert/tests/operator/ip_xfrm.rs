//! One script of `ip xfrm`, to the real kernel in a namespace of its own and under `culvert exec`:
//! the same exit codes, the same complaints, the same listings.
//!
//! What differs is said with the commands, and of words in [`in_words`]. SAs with keys are not
//! among them, since kernels without ESP refuse them.

use std::fmt::Write as _;
use std::process::Command;
use std::process::Output;

use nix::unistd::Uid;

use crate::CULVERT;
use crate::server::Server;

/// Commands behind `ip xfrm`, one a line. A `#` begins what is said of them.
const SCRIPT: &str = include_str!("ip_xfrm.txt");

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
