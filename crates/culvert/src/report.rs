//! What commands report in JSON: SAs and drop reasons, in the field's words.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::tables::SaSample;
use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::config::Config;

/// What one SA did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaReport {
    /// Its name in the configuration.
    pub name: Option<String>,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Its SPI.
    pub spi: u32,
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of ESP text of those.
    pub bytes: u64,
    /// Highest number accepted, or last number used.
    pub sequence: u64,
    /// Its packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Packet counts of a worker, or of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterReport {
    /// Packets received from ports.
    pub received: u64,
    /// Packets taken over from other workers.
    pub taken: u64,
    /// Held packets that got their final fate.
    pub released: u64,
    /// Packets sent, sealed or opened.
    pub forwarded: u64,
    /// Packets sent in clear.
    pub bypassed: u64,
    /// Packets given to other workers.
    pub handed_off: u64,
    /// Packets put on hold.
    pub held: u64,
    /// Packets that belong to the kernel's stack.
    pub punted: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl From<&Counters> for CounterReport {
    fn from(counters: &Counters) -> CounterReport {
        CounterReport {
            received: counters.received,
            taken: counters.taken,
            released: counters.released,
            forwarded: counters.forwarded,
            bypassed: counters.bypassed,
            handed_off: counters.handed_off,
            held: counters.held,
            punted: counters.punted,
            dropped: counters.dropped_total(),
            drops: reasons(&counters.dropped),
        }
    }
}

/// Reports of SAs in the order of the configuration.
#[must_use]
pub fn sa_reports(config: &Config, samples: &[SaSample]) -> Vec<SaReport> {
    let of = |sa: &config::Sa| {
        let inbound = sa.direction == config::Direction::Inbound;
        let is_of_sa = |sample: &&SaSample| {
            let key = (sample.spi, sample.inbound, sample.destination);
            key == (sa.spi, inbound, sa.destination)
        };
        let sample = samples.iter().find(is_of_sa)?;
        Some(SaReport {
            name: sa.name.clone(),
            direction: if inbound { "inbound" } else { "outbound" }.to_owned(),
            spi: sa.spi,
            packets: sample.packets,
            bytes: sample.bytes,
            sequence: sample.sequence,
            drops: reasons(&sample.dropped),
        })
    };
    config.sas.iter().filter_map(of).collect()
}

/// The reasons that occurred, by name.
#[must_use]
pub fn reasons(dropped: &[u64; DropReason::COUNT]) -> BTreeMap<String, u64> {
    let occurred = DropReason::ALL.iter().zip(dropped).filter(|&(_, &count)| count > 0);
    occurred.map(|(reason, &count)| (reason.name().to_owned(), count)).collect()
}

/// Writes a report as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
