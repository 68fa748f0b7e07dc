//! What replay says about the packets: one line each, and totals.

use std::collections::BTreeMap;

use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Side;
use culvert_engine::Verdict;
use culvert_engine::tables::SaSample;
use serde::Serialize;

use crate::config::Config;
use crate::report;
use crate::report::SaReport;

/// How many packets had which outcome: a fate, or the reason of a drop.
pub(super) type Outcomes = BTreeMap<&'static str, u64>;

/// One line of the verdicts file.
#[derive(Debug, Serialize)]
pub(super) struct VerdictLine {
    port: &'static str,
    index: u64,
    fate: &'static str,
    reason: Option<&'static str>,
    spi: Option<u32>,
    seq: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    more: Outcomes,
}

impl VerdictLine {
    pub(super) fn new(side: Side, index: u64, verdict: &Verdict, more: &Outcomes) -> VerdictLine {
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
            more: more.clone(),
        }
    }
}

/// The words for a fate. One worker has nobody to hand packets to, and everything resolves.
fn words(fate: Fate) -> (&'static str, Option<&'static str>) {
    match fate {
        Fate::Forward(_) => ("forward", None),
        Fate::Bypass(_) => ("bypass", None),
        Fate::Answer(_) => ("answer", None),
        Fate::Reassembling => ("reassembling", None),
        Fate::Split => ("split", None),
        Fate::Punt => ("punt", None),
        Fate::Drop(reason) => ("drop", Some(reason.name())),
        Fate::Handoff(_) | Fate::Held => unreachable!("replay has one worker and all next hops"),
    }
}

/// What a turn did beyond the verdict on its packet: fates of packets that were made, and of
/// fragments that were given up.
pub(super) fn more(before: &Counters, after: &Counters, verdict: Option<&Verdict>) -> Outcomes {
    let fates = |counters: &Counters| {
        [
            ("forward", counters.forwarded),
            ("bypass", counters.bypassed),
            ("answer", counters.answered),
            ("reassembling", counters.reassembling),
            ("split", counters.split),
            ("punt", counters.punted),
        ]
    };
    let mut more = Outcomes::new();
    for ((word, before), (_, after)) in fates(before).into_iter().zip(fates(after)) {
        more.insert(word, after - before);
    }
    let reasons = DropReason::ALL.iter().map(|reason| reason.name());
    for ((reason, before), after) in reasons.zip(before.dropped).zip(after.dropped) {
        more.insert(reason, after - before);
    }
    if let Some(verdict) = verdict {
        let (fate, reason) = words(verdict.fate);
        let own = more.get_mut(reason.unwrap_or(fate));
        *own.expect("every outcome is in the list") -= 1;
    }
    more.retain(|_, count| *count > 0);
    more
}

/// Totals.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    packets: u64,
    fates: Outcomes,
    drops: Outcomes,
    more: Outcomes,
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

    pub(super) fn count_more(&mut self, more: &Outcomes) {
        for (outcome, count) in more {
            *self.more.entry(outcome).or_default() += count;
        }
    }

    /// Adds what the SAs did; `start` is the time of the capture at which their clock was zero.
    pub(super) fn add_sas(&mut self, config: &Config, samples: &[SaSample], start: u64) {
        self.sas = report::sa_reports(config, samples);
        for sa in &mut self.sas {
            sa.last_used_ns = sa.last_used_ns.map(|at| at.saturating_add(start));
        }
    }
}
