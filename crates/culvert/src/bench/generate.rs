//! `culvert bench generate`: the kernel sends one packet again and again, as fast as it can.
//!
//! The packets of `bench veth`, for other forwarders on the same topology (`scripts/compare-dpdk`).
//! They leave the interface by XDP's redirect, so the driver at the other end of a veth receives
//! them as it would from a wire.

use anyhow::Result;
use culvert_xdp::Mode;
use culvert_xdp::Role;
use culvert_xdp::Steer;

use super::engine;
use super::rig;
use crate::cli::GenerateArgs;
use crate::lab::Cancel;

/// Packets the kernel generates in one call; setting one up takes some milliseconds.
const GENERATE: u32 = 1 << 17;

/// Runs the command until a signal comes.
///
/// # Errors
/// When the interface does not exist or takes no XDP program.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let cancel = Cancel::on_signals()?;
    engine::pin(args.core)?;
    let frame = rig::plain_frame(args.size);
    let mut steer = Steer::load(Role::Reflect)?;
    steer.attach(&args.interface, Mode::Native)?;
    while !cancel.is_set() {
        steer.generate(&args.interface, &frame, GENERATE)?;
    }
    Ok(())
}
