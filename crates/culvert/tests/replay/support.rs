//! Running the program, and what holds in every run.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_ETHERNET;
use crate::pcap::LINK_RAW;
use crate::pcap::Timed;

/// What every run writes.
pub(crate) const OUTPUTS: [&str; 6] =
    ["protected-out", "unprotected-out", "report", "verdicts", "audit", "events"];

/// One line of the verdicts file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    pub(crate) port: String,
    pub(crate) index: usize,
    pub(crate) fate: String,
    pub(crate) reason: Option<String>,
    pub(crate) spi: Option<u32>,
    pub(crate) seq: Option<u64>,
    #[serde(default)]
    pub(crate) more: BTreeMap<String, u64>,
}

impl Verdict {
    /// The reason of a drop, or the fate of what was not dropped.
    pub(crate) fn outcome(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.fate)
    }
}

/// The totals.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) packets: u64,
    pub(crate) fates: BTreeMap<String, u64>,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) more: BTreeMap<String, u64>,
    pub(crate) sas: Vec<SaReport>,
}

/// The totals of one SA.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaReport {
    pub(crate) name: Option<String>,
    pub(crate) direction: String,
    pub(crate) protocol: String,
    pub(crate) spi: u32,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) sequence: u64,
    pub(crate) last_used_ns: Option<u64>,
    pub(crate) lost: u64,
    pub(crate) reorder_depth: u64,
    pub(crate) padding_wrong: u64,
    pub(crate) path_mtu: Option<u16>,
    pub(crate) drops: BTreeMap<String, u64>,
}

/// A run to be made: files and options.
pub(crate) struct Invocation {
    pub(crate) folder: TempDir,
    /// Runs instead of the program, with the program and its arguments as arguments.
    pub(crate) wrapper: Vec<String>,
    pub(crate) program: PathBuf,
    pub(crate) link: Option<&'static str>,
    pub(crate) mtu: Option<u16>,
}

/// What a run left behind, octet for octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) protected_out: Vec<u8>,
    pub(crate) unprotected_out: Vec<u8>,
    pub(crate) report: Vec<u8>,
    pub(crate) verdicts: Vec<u8>,
    pub(crate) audit: Vec<u8>,
    pub(crate) events: Vec<u8>,
}

/// What a run left behind, understood.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) protected: Vec<Timed>,
    pub(crate) unprotected: Vec<Timed>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) report: Report,
    pub(crate) audit: Vec<Value>,
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Invocation {
    /// A run over a configuration, without inputs yet.
    pub(crate) fn new(config: &str) -> Invocation {
        let invocation = Invocation {
            folder: TempDir::with_prefix("culvert-replay-").unwrap(),
            wrapper: Vec::new(),
            program: env!("CARGO_BIN_EXE_culvert").into(),
            link: None,
            mtu: None,
        };
        invocation.put("gw.toml", config.as_bytes());
        invocation
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an input: `protected-in`, `unprotected-in`, or anything else.
    pub(crate) fn put(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    /// Runs the program over the inputs there are, with all outputs.
    pub(crate) fn run(&self) -> Output {
        let mut words = self.wrapper.clone();
        words.push(self.program.to_str().unwrap().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("replay").arg("--config").arg(self.path("gw.toml"));
        for input in ["protected-in", "unprotected-in"] {
            if self.path(input).exists() {
                command.arg(format!("--{input}")).arg(self.path(input));
            }
        }
        for output in OUTPUTS {
            command.arg(format!("--{output}")).arg(self.path(output));
        }
        command.args(self.link.iter().flat_map(|link| ["--link", link]));
        command.args(self.mtu.iter().flat_map(|mtu| ["--mtu".to_owned(), mtu.to_string()]));
        command.output().expect("the program can be run")
    }

    /// Runs it and expects that it succeeds.
    #[track_caller]
    pub(crate) fn files(&self) -> Files {
        self.files_and_stderr().0
    }

    #[track_caller]
    fn files_and_stderr(&self) -> (Files, String) {
        let output = self.run();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}: {stderr}", output.status);
        assert!(output.stdout.is_empty(), "totals are in a file");
        let read = |name: &str| std::fs::read(self.path(name)).unwrap();
        let files = Files {
            protected_out: read("protected-out"),
            unprotected_out: read("unprotected-out"),
            report: read("report"),
            verdicts: read("verdicts"),
            audit: read("audit"),
            events: read("events"),
        };
        (files, stderr)
    }

    /// Runs it, expects that it succeeds, and checks what holds in every run.
    #[track_caller]
    pub(crate) fn checked(&self) -> Run {
        let (files, stderr) = self.files_and_stderr();
        let link = if self.link == Some("raw") { LINK_RAW } else { LINK_ETHERNET };
        let run = understand(&files, link, stderr);
        check_totals(&run);
        run
    }

    /// Runs it, expects that it fails with one line on standard error, and returns the line.
    #[track_caller]
    pub(crate) fn refusal(&self) -> String {
        let output = self.run();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty());
        let line = stderr.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "one line: {line}");
        line.to_owned()
    }
}

/// A run over raw IP packets, of which those of the protected side come first.
#[track_caller]
pub(crate) fn replay(config: &str, protected: &[Vec<u8>], unprotected: &[Vec<u8>]) -> Run {
    replay_over(None, config, protected, unprotected)
}

/// The same over links of some MTU.
#[track_caller]
pub(crate) fn replay_over(
    mtu: Option<u16>,
    config: &str,
    protected: &[Vec<u8>],
    unprotected: &[Vec<u8>],
) -> Run {
    let mut invocation = Invocation::new(config);
    invocation.link = Some("raw");
    invocation.mtu = mtu;
    let form = Form::of(LINK_RAW);
    let both = pcap::timed(&[protected, unprotected].concat());
    let (first, second) = both.split_at(protected.len());
    invocation.put("protected-in", &form.file(first));
    invocation.put("unprotected-in", &form.file(second));
    let run = invocation.checked();
    let ports = run.verdicts.iter().map(|verdict| (verdict.port.as_str(), verdict.index));
    let expected = (0..protected.len()).map(|index| ("protected", index));
    let expected = expected.chain((0..unprotected.len()).map(|index| ("unprotected", index)));
    assert!(ports.eq(expected), "one verdict for each packet, in order");
    run
}

/// A run over raw IP packets at their own times, merged.
#[track_caller]
pub(crate) fn replay_at(config: &str, protected: &[Timed], unprotected: &[Timed]) -> Run {
    let mut invocation = Invocation::new(config);
    invocation.link = Some("raw");
    invocation.put("protected-in", &Form::of(LINK_RAW).file(protected));
    invocation.put("unprotected-in", &Form::of(LINK_RAW).file(unprotected));
    invocation.checked()
}

impl Run {
    /// What left on the unprotected side.
    pub(crate) fn sealed(&self) -> Vec<Vec<u8>> {
        pcap::untimed(&self.unprotected)
    }

    /// What left on the protected side.
    pub(crate) fn opened(&self) -> Vec<Vec<u8>> {
        pcap::untimed(&self.protected)
    }

    /// The outcome of each packet in turn: a reason, or `forward`, `bypass`, `punt`.
    pub(crate) fn outcomes(&self) -> Vec<&str> {
        self.verdicts.iter().map(Verdict::outcome).collect()
    }

    /// Every packet had this outcome.
    #[track_caller]
    pub(crate) fn assert_all(&self, outcome: &str) {
        for verdict in &self.verdicts {
            assert_eq!(verdict.outcome(), outcome, "{verdict:?}");
        }
    }
}

#[track_caller]
fn understand(files: &Files, link: u32, stderr: String) -> Run {
    let capture = |file: &[u8]| {
        let (found, packets) = pcap::read(file);
        assert_eq!(found, link, "link type of an output");
        packets
    };
    let lines = std::str::from_utf8(&files.verdicts).unwrap().lines();
    let values = |file: &[u8]| -> Vec<Value> {
        let lines = std::str::from_utf8(file).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    Run {
        protected: capture(&files.protected_out),
        unprotected: capture(&files.unprotected_out),
        verdicts: lines.map(|line| serde_json::from_str(line).expect(line)).collect(),
        report: serde_json::from_slice(&files.report).unwrap(),
        audit: values(&files.audit),
        events: values(&files.events),
        stderr,
    }
}

/// The totals are the sums of the verdicts, the outputs have as many packets as were sent, and each
/// SA has as many as carry its SPI.
#[track_caller]
fn check_totals(run: &Run) {
    let report = &run.report;
    let mut fates: BTreeMap<String, u64> = BTreeMap::new();
    let mut drops: BTreeMap<String, u64> = BTreeMap::new();
    for verdict in &run.verdicts {
        *fates.entry(verdict.fate.clone()).or_default() += 1;
        assert_eq!(verdict.reason.is_some(), verdict.fate == "drop", "{verdict:?}");
        if let Some(reason) = &verdict.reason {
            *drops.entry(reason.clone()).or_default() += 1;
        }
    }
    assert_eq!((&report.fates, &report.drops), (&fates, &drops));
    assert_eq!(report.packets, count(run.verdicts.len()));
    assert_eq!(report.fates.values().sum::<u64>(), report.packets);
    assert_eq!(report.drops.values().sum::<u64>(), fates.get("drop").copied().unwrap_or(0));
    let sent = |fates: &BTreeMap<String, u64>| -> u64 {
        ["forward", "bypass", "answer"].iter().filter_map(|fate| fates.get(*fate)).sum()
    };
    let sent = sent(&fates) + sent(&report.more);
    assert_eq!(count(run.protected.len() + run.unprotected.len()), sent, "all that was sent");
    for verdict in &run.verdicts {
        for (outcome, count) in &verdict.more {
            assert!(report.more.get(outcome).is_some_and(|total| total >= count), "{verdict:?}");
        }
    }
    if report.more.keys().any(|outcome| outcome != "answer") {
        return;
    }
    for sa in report.sas.iter().filter(|sa| is_alone(report, sa)) {
        let (mut accepted, mut dropped) = (0, BTreeMap::new());
        for verdict in run.verdicts.iter().filter(|verdict| is_of(sa, verdict)) {
            let Some(reason) = &verdict.reason else {
                accepted += 1;
                continue;
            };
            *dropped.entry(reason.clone()).or_default() += 1;
            // Before the packet is made no number is spent on it.
            let before = ["truncated", "replay", "icv", "expired", "bundle"];
            let counted = sa.direction == "inbound" && !before.contains(&reason.as_str());
            accepted += u64::from(counted);
        }
        assert_eq!((sa.packets, &sa.drops), (accepted, &dropped), "{sa:?}");
    }
}

/// True for an SA that packets can be told to have come to: no other has its SPI, and none is
/// around one packet with it ("bound").
fn is_alone(report: &Report, sa: &SaReport) -> bool {
    let alike = report.sas.iter().filter(|other| other.spi == sa.spi).count();
    let bundled = sa.name.as_deref().is_some_and(|name| name.starts_with("bound-"));
    alike == 1 && !bundled
}

/// True for the verdict on a packet that came to an SA.
fn is_of(sa: &SaReport, verdict: &Verdict) -> bool {
    let port = if sa.direction == "inbound" { "unprotected" } else { "protected" };
    let found = verdict.reason.as_deref() != Some("no_sa");
    verdict.port == port && verdict.spi == Some(sa.spi) && found
}

pub(crate) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap()
}

/// A file of the checkout.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}
