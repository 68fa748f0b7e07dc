//! `culvert exec`: becomes a program whose XFRM sockets lead to culvert.

use std::process::exit;
use std::time::Duration;

use culvert_launch::Options;
use culvert_launch::launch;

use crate::cli::ExecArgs;

/// Becomes the command. When it cannot, the exit status is 127 if there is no such program, 126 if
/// it cannot be executed, and 125 for all else.
///
/// # Errors
/// Never: failures are printed here, since they have exit statuses of their own.
pub fn run(args: ExecArgs) -> anyhow::Result<()> {
    let ExecArgs { socket, require_engine, wait, verbose, mut command } = args;
    let wait = Duration::from_secs(wait.into());
    let options = Options { socket, require_engine, wait, verbose };
    let program = command.remove(0);
    let Err(error) = launch(&options, &program, &command);
    eprintln!("culvert exec: {error}");
    exit(error.exit_status().into());
}
