//! Programs under the launcher.

use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use tempfile::TempDir;

/// The launcher.
pub(crate) const CULVERT: &str = env!("CARGO_BIN_EXE_culvert");

/// What every script begins with.
const PRELUDE: &str = include_str!("prelude.py");

/// A place for an engine's socket.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    /// A place, unless one of these programs is missing, which is said loudly.
    pub(crate) fn for_programs(programs: &[&str]) -> Option<Place> {
        for program in programs {
            let probe = Command::new(program)
                .arg("--help")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if probe.is_err() {
                eprintln!("SKIPPED: this test needs {program}");
                return None;
            }
        }
        Some(Place { directory: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("xfrm.sock")
    }

    /// A command under the launcher.
    pub(crate) fn command(&self, command: &[&str]) -> Command {
        let mut launched = Command::new(CULVERT);
        launched.args(["exec", "--socket"]).arg(self.socket()).arg("--").args(command);
        launched.env_remove("CULVERT_XFRM_SOCKET");
        launched
    }

    /// A script of Python under the launcher.
    pub(crate) fn script(&self, script: &str) -> Command {
        self.command(&["python3", "-c", &format!("{PRELUDE}\n{script}")])
    }

    /// A script that talks to the test.
    pub(crate) fn dialogue(&self, script: &str) -> Child {
        let mut command = self.script(script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// Runs it to its end.
pub(crate) fn finish(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |octets| String::from_utf8_lossy(octets).into_owned();
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

/// Runs a script that must succeed, and shows what it printed.
pub(crate) fn succeed(command: Command) -> String {
    let (status, stdout, stderr) = finish(command);
    assert_eq!(status, 0, "{stdout}{stderr}");
    stdout
}
