//! `culvert replay`: the very same engine over capture files, without privileges.
//!
//! Both inputs are merged by timestamp, which is also the only clock. Each packet first meets the
//! decision of the XDP program ([`culvert_steer`]), then, if that takes it, the worker's turn.
//! Neighbours are synthetic: everything resolves.
//!
//! Replay starts sequence numbers where the configuration says, each time it runs: that makes it
//! repeatable, and it means that what it writes must never be sent under a key that is in use.

mod link;
mod next_hops;
mod outputs;
mod pcapng;
mod reader;
mod report;
mod steering;
mod writer;

use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use culvert_aead::Provider;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Verdict;
use culvert_engine::tables::SaSample;
use culvert_frame::Port;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;

use crate::assembly;
use crate::cli::ReplayArgs;
use crate::config::Config;

use self::outputs::Outputs;
use self::reader::Captured;
use self::reader::Reader;
use self::report::Report;
use self::report::VerdictLine;
use self::steering::Steering;

const PROTECTED: Port = Port(0);
const UNPROTECTED: Port = Port(1);

/// Frames of the one worker: one packet is under way at a time.
const FRAMES: usize = 8;

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or is not what it should be.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    if args.protected_in.is_none() && args.unprotected_in.is_none() {
        bail!("nothing to replay: expected --protected-in, --unprotected-in or both");
    }
    let config = Config::load(&args.config)?;
    let mut gateway = gateway(&config)?;
    let steering = Steering::new(&assembly::protected_prefixes(&assembly::spd(&config)));
    let mut protected = args.protected_in.as_deref().map(Reader::open).transpose()?;
    let mut unprotected = args.unprotected_in.as_deref().map(Reader::open).transpose()?;
    let mut outputs = Outputs::create(args)?;
    let mut report = Report::default();
    let mut clock = Duration::ZERO;
    while let Some((side, captured)) = next(&mut protected, &mut unprotected)? {
        // The clock of a worker never goes back, whatever a capture says.
        clock = clock.max(captured.timestamp);
        let verdict = step(&mut gateway, &steering, side, &captured.frame, clock);
        report.count(&verdict);
        outputs.verdict(&VerdictLine::new(side, captured.index, &verdict))?;
        drain(&mut gateway, &mut outputs, captured.timestamp)?;
    }
    for remark in [&protected, &unprotected].into_iter().flatten().filter_map(Reader::remark) {
        eprintln!("culvert: {remark}");
    }
    let samples: Vec<SaSample> = gateway.samples().collect();
    report.add_sas(&config, &samples);
    outputs.finish(&report)
}

fn gateway(config: &Config) -> anyhow::Result<Gateway<Provider>> {
    let port = |side| PortConfig { side, mac: None, completes_checksums: false };
    let spd = assembly::spd(config);
    let sas = assembly::sas(config)?;
    let next_hops = next_hops::synthetic(&sas, &spd);
    let gateway = GatewayConfig {
        workers: 1,
        frames: FRAMES,
        ports: vec![port(Side::Protected), port(Side::Unprotected)],
        sas,
        spd,
    };
    Gateway::new(&gateway, &Provider::best().provider, next_hops).context("cannot install the SAs")
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

/// One packet through steering and the worker.
fn step(
    gateway: &mut Gateway<Provider>,
    steering: &Steering,
    side: Side,
    frame: &[u8],
    clock: Duration,
) -> Verdict {
    let verdict = |fate| Verdict { fate, spi: None, seq: None };
    if !steering.takes(side, frame) {
        return verdict(Fate::Punt);
    }
    let port = match side {
        Side::Protected => PROTECTED,
        Side::Unprotected => UNPROTECTED,
    };
    let worker = &mut gateway.workers[0];
    assert_eq!(worker.io_mut().free_frames(), FRAMES, "every packet gives its frame back");
    if !worker.io_mut().inject(port, frame) {
        return verdict(Fate::Drop(DropReason::TooBig));
    }
    let now = u64::try_from(clock.as_nanos()).unwrap_or(u64::MAX);
    worker.turn(now);
    worker.last_verdicts()[0]
}

/// Writes what the worker sent.
fn drain(
    gateway: &mut Gateway<Provider>,
    outputs: &mut Outputs,
    timestamp: Duration,
) -> anyhow::Result<()> {
    let io = gateway.workers[0].io_mut();
    for (port, side) in [(PROTECTED, Side::Protected), (UNPROTECTED, Side::Unprotected)] {
        while let Some(frame) = io.take_sent_bytes(port) {
            outputs.frame(side, timestamp, &frame)?;
        }
    }
    Ok(())
}
