//! `culvert replay`: the very same engine over capture files, without privileges.
//!
//! Both inputs are merged by timestamp, which is also the only clock. Each packet first meets the
//! decision of the XDP program ([`culvert_steer`]), then, if that takes it, the worker's turn.
//! Between packets the worker has turns for its timers. Neighbours are synthetic: everything
//! resolves.
//!
//! Replay starts sequence numbers where the configuration says, each time it runs: that makes it
//! repeatable, and it means that what it writes must never be sent under a key that is in use.

mod clock;
mod json_lines;
mod link;
mod news;
mod next_hops;
mod outputs;
mod pcapng;
mod reader;
mod report;
mod session;
mod steering;
mod writer;

use std::time::Duration;

use anyhow::bail;
use culvert_aead::Provider;
use culvert_engine::Side;
use culvert_frame::Port;

use crate::cli::ReplayArgs;
use crate::config::Config;

use self::outputs::Outputs;
use self::reader::Captured;
use self::reader::Reader;
use self::session::Session;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or is not what it should be.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    if args.protected_in.is_none() && args.unprotected_in.is_none() {
        bail!("nothing to replay: expected --protected-in, --unprotected-in or both");
    }
    let config = Config::load(&args.config)?;
    let aead = Provider::selected(&args.provider)?.provider;
    let mut session = Session::new(&config, &aead, args.mtu)?;
    let mut protected = args.protected_in.as_deref().map(Reader::open).transpose()?;
    let mut unprotected = args.unprotected_in.as_deref().map(Reader::open).transpose()?;
    let mut outputs = Outputs::create(args)?;
    while let Some((side, captured)) = next(&mut protected, &mut unprotected)? {
        session.pass_time(captured.timestamp, &mut outputs)?;
        session.take(side, &captured, &mut outputs)?;
    }
    for remark in [&protected, &unprotected].into_iter().flatten().filter_map(Reader::remark) {
        eprintln!("culvert: {remark}");
    }
    outputs.finish(&session.report(&config))
}

/// The packet with the lowest timestamp; at equal times the protected side goes first.
fn next(
    protected: &mut Option<Reader>,
    unprotected: &mut Option<Reader>,
) -> anyhow::Result<Option<(Side, Captured)>> {
    let peek = |reader: &mut Option<Reader>| -> anyhow::Result<Option<Duration>> {
        reader.as_mut().map_or(Ok(None), Reader::peek_timestamp)
    };
    let (side, reader) = match (peek(protected)?, peek(unprotected)?) {
        (None, None) => return Ok(None),
        (Some(here), Some(there)) if here <= there => (Side::Protected, protected),
        (Some(_), None) => (Side::Protected, protected),
        (_, Some(_)) => (Side::Unprotected, unprotected),
    };
    let captured = reader.as_mut().and_then(Reader::take);
    Ok(captured.map(|captured| (side, captured)))
}
