//! Why a program was not launched.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why a program was not launched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket, and somebody had to.
    #[error("no engine at {}: {}", path.display(), reason.desc())]
    NoEngine {
        /// The socket.
        path: PathBuf,
        /// What connecting to it said.
        reason: Errno,
    },
    /// The path of the socket is too long for one.
    #[error("{}: no path of a socket", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The calling process has several threads, so it cannot be forked.
    #[error("a process of several threads cannot launch a program")]
    Threads,
    /// The program runs under another listener already, perhaps another launcher.
    #[error("system calls are supervised already (nested launchers are not possible)")]
    Nested,
    /// A system call failed.
    #[error("{what}: {}", reason.desc())]
    System {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        reason: Errno,
    },
    /// The program could not be executed.
    #[error("{}: {reason}", program.display())]
    Execute {
        /// The program.
        program: OsString,
        /// Why.
        reason: io::Error,
    },
}

impl Error {
    /// The exit status for it, as `env` and `nohup` have them: 127 when there is no such program,
    /// 126 when it cannot be executed, 125 for all else.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Execute { reason, .. } if reason.kind() == io::ErrorKind::NotFound => 127,
            Error::Execute { .. } => 126,
            _ => 125,
        }
    }
}

/// Names what was tried.
pub(crate) fn during(what: &'static str) -> impl Fn(Errno) -> Error {
    move |reason| Error::System { what, reason }
}
