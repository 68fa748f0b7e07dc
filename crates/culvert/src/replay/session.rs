//! One gateway, and what becomes of the packets it is given.

use std::time::Duration;

use anyhow::Context;
use culvert_aead::Provider;
use culvert_control::SaSpec;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::PortConfig;
use culvert_engine::Side;
use culvert_engine::Verdict;
use culvert_engine::tables::SaSample;
use culvert_sim::Gateway;
use culvert_sim::gateway::GatewayConfig;
use culvert_spd::Spd;

use crate::assembly;
use crate::assembly::SaWords;
use crate::config::Config;

use super::PROTECTED;
use super::UNPROTECTED;
use super::clock::Clock;
use super::news;
use super::news::Sas;
use super::next_hops;
use super::outputs::Outputs;
use super::reader::Captured;
use super::report;
use super::report::Outcomes;
use super::report::Report;
use super::report::VerdictLine;
use super::steering::Steering;

/// Frames of the one worker: one packet is under way at a time, with what is made of it, beside
/// fragments that wait for others.
const FRAMES: usize = 1024;

/// Runs of frames for packets larger than one, where the configuration allows those.
const RUNS: usize = 160;

/// A gateway in memory, its clock, and its totals.
pub(super) struct Session {
    gateway: Gateway<Provider>,
    spd: Spd,
    sas: Sas,
    steering: Steering,
    clock: Clock,
    report: Report,
    /// Frames and runs of the worker.
    frames: usize,
}

impl Session {
    /// The gateway of a configuration with an AEAD provider, on links of one MTU.
    ///
    /// # Errors
    /// When an SA is impossible.
    pub(super) fn new(config: &Config, aead: &Provider, mtu: u16) -> anyhow::Result<Session> {
        let port = |side| PortConfig { side, mac: None, completes_checksums: false };
        let spd = assembly::spd(config);
        // The one worker has no use for what is bound to others (RFC 9611).
        let ours = |sa: &SaSpec| sa.resource.is_none_or(|worker| worker.0 == 0);
        let (sas, words): (Vec<SaSpec>, Vec<SaWords>) = assembly::sas(config)?
            .into_iter()
            .zip(assembly::words(config))
            .filter(|(sa, _)| ours(sa))
            .unzip();
        let next_hops = next_hops::synthetic(&sas, &spd, mtu);
        let steering = Steering::new(&sas, &spd, config.interfaces.take);
        let runs = if config.interfaces.jumbo { RUNS } else { 0 };
        let gateway = GatewayConfig {
            workers: 1,
            frames: FRAMES,
            runs,
            ports: vec![port(Side::Protected), port(Side::Unprotected)],
            bundles: assembly::bundles(config),
            sas,
            spd: spd.clone(),
            options: assembly::options(config),
            marks: None,
            started_at: 0,
            spread: None,
        };
        let gateway = Gateway::new(&gateway, aead, next_hops).context("cannot install the SAs")?;
        let (clock, report) = (Clock::default(), Report::default());
        let sas = gateway.controller.ids().zip(words).collect();
        Ok(Session { gateway, spd, sas, steering, clock, report, frames: FRAMES + runs })
    }

    /// Lets time pass until a packet comes.
    ///
    /// # Errors
    /// When what happens meanwhile cannot be written.
    pub(super) fn pass_time(
        &mut self,
        until: Duration,
        outputs: &mut Outputs,
    ) -> anyhow::Result<()> {
        for now in self.clock.steps_to(until) {
            self.clock.set(now);
            let more = self.turn(|_| {});
            self.report.count_more(&more.1);
            self.drain(self.clock.timestamp(), outputs)?;
        }
        Ok(())
    }

    /// Takes one packet through steering and the worker.
    ///
    /// # Errors
    /// When what becomes of it cannot be written.
    pub(super) fn take(
        &mut self,
        side: Side,
        captured: &Captured,
        outputs: &mut Outputs,
    ) -> anyhow::Result<()> {
        self.clock.follow(captured.timestamp);
        let (verdict, more) = self.process(side, &captured.frame);
        self.report.count(&verdict);
        self.report.count_more(&more);
        outputs.verdict(&VerdictLine::new(side, captured.index, &verdict, &more))?;
        self.drain(captured.timestamp, outputs)
    }

    /// The totals.
    pub(super) fn report(mut self, config: &Config) -> Report {
        let samples: Vec<SaSample> = self.gateway.samples().collect();
        self.report.add_sas(config, &samples, self.clock.start_ns());
        self.report
    }

    fn process(&mut self, side: Side, frame: &[u8]) -> (Verdict, Outcomes) {
        let verdict = |fate| (Verdict { fate, spi: None, seq: None }, Outcomes::new());
        if !self.steering.takes(side, frame) {
            return verdict(Fate::Punt);
        }
        let port = match side {
            Side::Protected => PROTECTED,
            Side::Unprotected => UNPROTECTED,
        };
        let mut fits = false;
        let (found, more) = self.turn(|gateway| {
            fits = gateway.workers[0].io_mut().inject(port, frame);
        });
        match found {
            Some(found) if fits => (found, more),
            _ => verdict(Fate::Drop(DropReason::TooBig)),
        }
    }

    /// One turn of the worker: the verdict on a packet that was put in, if one was, and what else
    /// became of others.
    fn turn(&mut self, put: impl FnOnce(&mut Gateway<Provider>)) -> (Option<Verdict>, Outcomes) {
        let worker = &mut self.gateway.workers[0];
        let frames = worker.io_mut().held_frames() + worker.frames_outside_io();
        assert_eq!(frames, self.frames, "every packet gives its frame back");
        let before = *worker.counters();
        put(&mut self.gateway);
        let worker = &mut self.gateway.workers[0];
        worker.turn(self.clock.now());
        let after = worker.counters();
        let came = after.received > before.received;
        let verdict = came.then(|| worker.last_verdicts()[0]);
        (verdict, report::more(&before, after, verdict.as_ref()))
    }

    /// Writes what the worker sent and told.
    fn drain(&mut self, timestamp: Duration, outputs: &mut Outputs) -> anyhow::Result<()> {
        let io = self.gateway.workers[0].io_mut();
        for (port, side) in [(PROTECTED, Side::Protected), (UNPROTECTED, Side::Unprotected)] {
            while let Some(frame) = io.take_sent_bytes(port) {
                outputs.frame(side, timestamp, &frame)?;
            }
        }
        self.gateway.controller.poll()?;
        let (news, _) = self.gateway.controller.take_news();
        let start = self.clock.start_ns();
        let now = start.saturating_add(self.clock.now());
        for news in news {
            outputs.news(&news::line(&news, now, start, (&self.spd, &self.sas)))?;
        }
        Ok(())
    }
}
