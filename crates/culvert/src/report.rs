//! What commands report in JSON: SAs and drop reasons, in the field's words.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
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
    /// `esp` or `ah`.
    pub protocol: String,
    /// Its SPI.
    pub spi: u32,
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of ESP text of those; of whole packets with AH.
    pub bytes: u64,
    /// Highest number accepted, or last number used.
    pub sequence: u64,
    /// When a packet last used it, in nanoseconds of the worker's clock.
    pub last_used_ns: Option<u64>,
    /// Inbound: numbers that never came before the window left them behind.
    pub lost: u64,
    /// Inbound: how far behind the highest number a packet was at most.
    pub reorder_depth: u64,
    /// Inbound: packets accepted with padding that is not 1, 2, 3, ..
    pub padding_wrong: u64,
    /// Outbound: the path MTU learned.
    pub path_mtu: Option<u16>,
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
    /// Held packets, and fragments put aside, that got their final fate.
    pub released: u64,
    /// Packets made here: fragments, reassembled packets, ICMP errors, keepalives, dummies.
    pub made: u64,
    /// Packets sent, sealed or opened.
    pub forwarded: u64,
    /// Packets sent in clear.
    pub bypassed: u64,
    /// Packets given to other workers.
    pub handed_off: u64,
    /// Packets put on hold.
    pub held: u64,
    /// Fragments put aside until the others come.
    pub reassembling: u64,
    /// Packets replaced by their fragments.
    pub split: u64,
    /// ICMP errors and NAT keepalives sent.
    pub answered: u64,
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
            made: counters.made,
            forwarded: counters.forwarded,
            bypassed: counters.bypassed,
            handed_off: counters.handed_off,
            held: counters.held,
            reassembling: counters.reassembling,
            split: counters.split,
            answered: counters.answered,
            punted: counters.punted,
            dropped: counters.dropped_total(),
            drops: reasons(&counters.dropped),
        }
    }
}

/// Reports of SAs in the order of the configuration. Where SAs have protocol, SPI and destination
/// in common, their samples are taken in that order, too.
#[must_use]
pub fn sa_reports(config: &Config, samples: &[SaSample]) -> Vec<SaReport> {
    let mut by_key: HashMap<_, VecDeque<&SaSample>> = HashMap::new();
    for sample in samples {
        let key = (sample.protocol, sample.spi, sample.inbound, sample.destination);
        by_key.entry(key).or_default().push_back(sample);
    }
    let of = |sa: &config::Sa| {
        let inbound = sa.direction == config::Direction::Inbound;
        let key = (sa.algorithm.protocol(), sa.spi, inbound, sa.destination);
        let sample = by_key.get_mut(&key).and_then(VecDeque::pop_front)?;
        Some(sa_report(sa, sample))
    };
    config.sas.iter().filter_map(of).collect()
}

fn sa_report(sa: &config::Sa, sample: &SaSample) -> SaReport {
    SaReport {
        name: sa.name.clone(),
        direction: sa.direction.to_string(),
        protocol: sa.algorithm.protocol().to_string().to_lowercase(),
        spi: sa.spi,
        packets: sample.packets,
        bytes: sample.bytes,
        sequence: sample.sequence,
        last_used_ns: sample.last_used,
        lost: sample.lost,
        reorder_depth: sample.reorder_depth,
        padding_wrong: sample.padding_wrong,
        path_mtu: sample.path_mtu,
        drops: reasons(&sample.dropped),
    }
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
