//! What replay says about the packets: one line each, and totals.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write;

use anyhow::Context;
use culvert_engine::Fate;
use culvert_engine::Side;
use culvert_engine::Verdict;
use culvert_engine::tables::SaSample;
use serde::Serialize;

use crate::config::Config;
use crate::report;
use crate::report::SaReport;

/// One line of the verdicts file.
#[derive(Debug, Serialize)]
pub(super) struct VerdictLine {
    port: &'static str,
    index: u64,
    fate: &'static str,
    reason: Option<&'static str>,
    spi: Option<u32>,
    seq: Option<u64>,
}

impl VerdictLine {
    pub(super) fn new(side: Side, index: u64, verdict: &Verdict) -> VerdictLine {
        let (fate, reason) = words(verdict.fate);
        VerdictLine {
            port: match side {
                Side::Protected => "protected",
                Side::Unprotected => "unprotected",
            },
            index,
            fate,
            reason,
            spi: verdict.spi,
            seq: verdict.seq,
        }
    }
}

/// The words for a fate. One worker has nobody to hand packets to, and everything resolves.
fn words(fate: Fate) -> (&'static str, Option<&'static str>) {
    match fate {
        Fate::Forward(_) => ("forward", None),
        Fate::Bypass(_) => ("bypass", None),
        Fate::Punt => ("punt", None),
        Fate::Drop(reason) => ("drop", Some(reason.name())),
        Fate::Handoff(_) | Fate::Held => unreachable!("replay has one worker and all next hops"),
    }
}

/// The verdicts file.
pub(super) struct VerdictWriter {
    file: BufWriter<File>,
}

impl VerdictWriter {
    pub(super) fn new(file: File) -> VerdictWriter {
        VerdictWriter { file: BufWriter::new(file) }
    }

    pub(super) fn write(&mut self, line: &VerdictLine) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.file, line).context("cannot write verdicts")?;
        self.file.write_all(b"\n").context("cannot write verdicts")
    }

    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().context("cannot write verdicts")
    }
}

/// Totals.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    packets: u64,
    fates: BTreeMap<&'static str, u64>,
    drops: BTreeMap<&'static str, u64>,
    sas: Vec<SaReport>,
}

impl Report {
    pub(super) fn count(&mut self, verdict: &Verdict) {
        let (fate, reason) = words(verdict.fate);
        self.packets += 1;
        *self.fates.entry(fate).or_default() += 1;
        if let Some(reason) = reason {
            *self.drops.entry(reason).or_default() += 1;
        }
    }

    pub(super) fn add_sas(&mut self, config: &Config, samples: &[SaSample]) {
        self.sas = report::sa_reports(config, samples);
    }
}
