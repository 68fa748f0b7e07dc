//! The process that speaks for scapy: `witness.py`, asked over its standard input.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use super::case::Case;
use super::case::Way;
use crate::scapy;
use crate::support::script;

/// The distribution's, which has scapy.
const PYTHON: &str = "/usr/bin/python3";

/// Octets as hexadecimal digits in JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hex(pub(super) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(digits: String) -> Result<Hex, hex::FromHexError> {
        hex::decode(digits).map(Hex)
    }
}

/// What the witness sealed for one case.
#[derive(Debug, Deserialize)]
pub(super) struct Sealed {
    /// Why scapy alone could not; none if it did.
    pub(super) gap: Option<String>,
    pub(super) sealed: Vec<Hex>,
    /// What was changed, and the first packet with a bit of that changed.
    pub(super) damaged: Vec<(String, Hex)>,
}

/// What the witness found in culvert's packets of one case, all of which were right.
#[derive(Debug, Deserialize)]
pub(super) struct Opened {
    pub(super) gap: Option<String>,
    pub(super) found: Vec<Facts>,
    /// Changes that the witness did not notice.
    pub(super) unnoticed: Vec<String>,
}

/// What is left to judge about a packet that the witness opened and could seal again to the very
/// same octets.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Don't fragment; none in IPv6.
    pub(super) df: Option<bool>,
    pub(super) iv: String,
    /// How the UDP checksum was: `zero` or `ok`.
    pub(super) udp: Option<String>,
    pub(super) icv_length: usize,
    /// Octets in front of ESP or AH, UDP apart.
    pub(super) header_length: usize,
    pub(super) next_header: u8,
    /// Of ESP.
    pub(super) pad_length: Option<usize>,
    /// Of AH.
    pub(super) payload_length: Option<usize>,
    pub(super) reserved: Option<u16>,
}

/// A running witness.
pub(super) struct Witness {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Witness {
    /// Starts it; `None`, said loudly, where there is no scapy.
    pub(super) fn start() -> Option<Witness> {
        if !scapy::is_here() {
            return None;
        }
        let program = "tests/replay/matrix/witness.py";
        let mut child = Command::new(PYTHON)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(program))
            .arg(script("scapy-oracle"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Witness { child, input, output })
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &str, cases: &[Value]) -> Vec<T> {
        let request = json!({"do": request, "cases": cases});
        writeln!(self.input, "{request}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the witness stopped; what it says is on standard error");
        let answers: Vec<T> = serde_json::from_str(&line).unwrap();
        assert_eq!(answers.len(), cases.len(), "an answer for each case");
        answers
    }

    /// Draws packets for each case, with payloads of these octets.
    pub(super) fn plain(
        &mut self,
        cases: &[Case],
        way: Way,
        sizes: impl Fn(&Case) -> Vec<usize>,
    ) -> Vec<Vec<Vec<u8>>> {
        let request = |case: &Case| {
            let (source, destination) = case.inner(way);
            json!({"source": source, "destination": destination, "seed": case.spi(way),
                   "sizes": sizes(case)})
        };
        let requests: Vec<Value> = cases.iter().map(request).collect();
        let answers: Vec<Vec<Hex>> = self.ask("plain", &requests);
        answers.into_iter().map(octets).collect()
    }

    /// Seals packets of each case, under the numbers of its inbound SA.
    pub(super) fn seal(&mut self, cases: &[Case], packets: &[Vec<Vec<u8>>]) -> Vec<Sealed> {
        let request = |(case, packets): (&Case, &Vec<Vec<u8>>)| {
            described(case.description(Way::In), packets, &case.numbers(packets.len()))
        };
        let requests: Vec<Value> = cases.iter().zip(packets).map(request).collect();
        self.ask("seal", &requests)
    }

    /// Opens packets of each case's outbound SA, which must be exactly those that `plain`, as it
    /// was when it was sealed, has to become.
    pub(super) fn open(
        &mut self,
        cases: &[Case],
        packets: &[Vec<Vec<u8>>],
        plain: &[Vec<Vec<u8>>],
    ) -> Vec<Opened> {
        let mut requests = Vec::new();
        for ((case, packets), plain) in cases.iter().zip(packets).zip(plain) {
            let numbers = case.numbers(packets.len());
            let mut request = described(case.description(Way::Out), packets, &numbers);
            request["plain"] = plain.iter().map(hex::encode).collect();
            requests.push(request);
        }
        self.ask("open", &requests)
    }

    /// What scapy takes out of each packet of a case, `None` for those that are not authentic to
    /// it.
    pub(super) fn judge(
        &mut self,
        case: &Case,
        way: Way,
        packets: &[Vec<u8>],
        numbers: &[u64],
    ) -> Vec<Option<Vec<u8>>> {
        self.judge_as(&case.description(way), packets, numbers)
    }

    /// The same of an SA that is no case.
    pub(super) fn judge_as(
        &mut self,
        sa: &Value,
        packets: &[Vec<u8>],
        numbers: &[u64],
    ) -> Vec<Option<Vec<u8>>> {
        let request = described(sa.clone(), packets, numbers);
        let mut answers: Vec<Vec<Option<Hex>>> = self.ask("judge", &[request]);
        let answers = answers.remove(0).into_iter();
        answers.map(|answer| answer.map(|Hex(octets)| octets)).collect()
    }

    /// Seals packets of an SA that is no case.
    pub(super) fn seal_as(
        &mut self,
        sa: &Value,
        packets: &[Vec<u8>],
        numbers: &[u64],
    ) -> Vec<Vec<u8>> {
        let request = described(sa.clone(), packets, numbers);
        let mut answers: Vec<Sealed> = self.ask("seal", &[request]);
        octets(answers.remove(0).sealed)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn described(sa: Value, packets: &[Vec<u8>], numbers: &[u64]) -> Value {
    assert_eq!(packets.len(), numbers.len());
    let mut request = sa;
    request["packets"] = packets.iter().map(hex::encode).collect();
    request["numbers"] = numbers.into();
    request
}

/// Octets without the mark of how they came.
pub(super) fn octets(packets: Vec<Hex>) -> Vec<Vec<u8>> {
    packets.into_iter().map(|Hex(octets)| octets).collect()
}
