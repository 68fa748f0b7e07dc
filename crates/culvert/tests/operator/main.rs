//! The control socket as operators, and whoever else can reach it, use it; and the commands of
//! operators against gateways that are none. Needs no root.
//!
//! The server is the real one, over a real controller and worker in memory ([`server`]).
//!
//! - `sas`, `policies`, `status`: the commands.
//! - `servers`: hostile answers to them.
//! - `clients`: hostile clients of the server: mutated frames, such that do not read, many.

mod clients;
mod ip_xfrm;
mod policies;
mod raw;
mod sas;
mod server;
mod servers;
mod status;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

/// The program under test.
const CULVERT: &str = env!("CARGO_BIN_EXE_culvert");

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Said {
    /// Its standard output, which is JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.error);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    /// Its standard output, after success.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.error);
        &self.out
    }

    /// What it complained of, after failure.
    pub(crate) fn complaint(&self) -> &str {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.error);
        assert!(!self.error.contains("panicked"), "{}", self.error);
        &self.error
    }
}

/// Runs the program with these arguments, and text on its standard input.
pub(crate) fn culvert_with(socket: &Path, arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(CULVERT)
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("culvert");
    // It may end before it has read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("output");
    let text = |octets| String::from_utf8(octets).expect("text");
    Said { code: status.code(), out: text(stdout), error: text(stderr) }
}

/// Runs the program with these words.
pub(crate) fn culvert(socket: &Path, words: &str) -> Said {
    culvert_with(socket, &words.split_whitespace().collect::<Vec<&str>>(), "")
}
