//! `culvert release`: opens interfaces that a gateway which no longer runs has left closed.

use anyhow::Context;
use culvert_xdp::Released;
use tracing::info;

use crate::cli::ReleaseArgs;
use crate::config::Config;
use crate::run;

/// Runs the command.
///
/// # Errors
/// When the gateway still runs, or a pin cannot be removed, with a message for the operator.
pub fn release(args: &ReleaseArgs) -> anyhow::Result<()> {
    run::init_logging();
    let directory = match &args.config {
        Some(path) => Config::load(path)?
            .interfaces
            .pin
            .context("the configuration pins nothing: interfaces.pin is not set")?,
        None => args.directory.clone(),
    };
    let released = culvert_xdp::release(&directory)?;
    if released.is_empty() {
        info!(directory = %directory.display(), "nothing was closed");
    }
    for Released { interface, dropped } in released {
        info!(interface, dropped, "open: the kernel gets everything");
    }
    Ok(())
}
