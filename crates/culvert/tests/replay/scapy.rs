//! Against scapy, which shares no code with the program: it decrypts what we seal, and we decrypt
//! what it seals.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use culvert_aead::Algorithm;
use culvert_wire::ip;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::packets::INBOUND;
use crate::packets::OUTBOUND;
use crate::packets::Sa;
use crate::packets::config;
use crate::packets::forwarded;
use crate::packets::next_header;
use crate::packets::unwrapped;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_ETHERNET;
use crate::pcap::LINK_RAW;
use crate::support::Invocation;
use crate::support::script;

const PYTHON: &str = "/usr/bin/python3";

/// Algorithms of the hot path; the others are in [`matrix`](crate::matrix).
const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

/// Packets of each SA.
const COUNT: usize = 24;

/// The last number used before a run that crosses 2^32 in its middle.
const NEAR_BOUNDARY: u64 = (1 << 32) - 12;

/// Runs the oracle many times in one interpreter, as starting it takes longer than its work. On
/// standard input: a list of pairs, each a list of arguments and the file for standard output.
const DRIVER: &str = "
import contextlib, importlib.machinery, importlib.util, json, sys
loader = importlib.machinery.SourceFileLoader('oracle', sys.argv[1])
oracle = importlib.util.module_from_spec(importlib.util.spec_from_loader('oracle', loader))
sys.dont_write_bytecode = True
loader.exec_module(oracle)
for words, out in json.load(sys.stdin):
    sys.argv = ['scapy-oracle'] + words
    with open(out, 'w') as file, contextlib.redirect_stdout(file):
        oracle.main()
";

/// Arguments, and the file for what is printed.
type Job = (Vec<String>, String);

/// One line of what the oracle decrypted.
#[derive(Debug, Deserialize)]
struct Decrypted {
    seq: u64,
    next_header: u8,
    pad_length: usize,
    inner: String,
    outer: Outer,
}

#[derive(Debug, Deserialize)]
struct Outer {
    dscp: u8,
    ecn: u8,
    ttl: u8,
    df: Option<bool>,
    udp: Option<Udp>,
}

#[derive(Debug, Deserialize)]
struct Udp {
    checksum: String,
}

/// True when scapy is there; else says loudly that the test is skipped.
pub(crate) fn is_here() -> bool {
    let probe = "import scapy.layers.ipsec, cryptography";
    let here = Command::new(PYTHON).args(["-c", probe]).stderr(Stdio::null()).status();
    let here = here.is_ok_and(|status| status.success());
    if !here {
        eprintln!(
            "*** SKIPPED: {PYTHON} lacks scapy or cryptography: NOTHING was compared with scapy ***"
        );
    }
    here
}

#[track_caller]
fn oracle(jobs: &[Job]) {
    let child = Command::new(PYTHON)
        .args(["-c", DRIVER])
        .arg(script("scapy-oracle"))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.as_ref().unwrap(), jobs).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every form of SA in one direction: outer family, UDP, key size; no ESN, ESN, and ESN across the
/// boundary.
fn forms(direction: &'static str) -> Vec<Sa> {
    let mut sas = Vec::new();
    for six in [false, true] {
        for encapsulated in [false, true] {
            for algorithm in ALGORITHMS {
                for (esn, sequence) in [(false, 0), (true, 0), (true, NEAR_BOUNDARY)] {
                    let net = u16::try_from(sas.len()).unwrap();
                    let base = if direction == OUTBOUND { Sa::outbound() } else { Sa::inbound() };
                    let spi = base.spi + 0x1_0000 * u32::from(net);
                    sas.push(Sa { net, spi, six, encapsulated, algorithm, esn, sequence, ..base });
                }
            }
        }
    }
    sas
}

/// The SA as a job of the oracle describes it.
fn description(sa: &Sa) -> Value {
    let (source, destination) = sa.outer();
    let ports = json!({"source_port": 4500, "destination_port": 4500});
    json!({
        "algorithm": sa.algorithm.keyword(),
        "key": hex::encode(sa.keymat()),
        "spi": sa.spi,
        "source": source,
        "destination": destination,
        "encapsulation": if sa.encapsulated { ports } else { Value::Null },
        "esn": sa.esn,
        "sequence": sa.sequence + 1,
    })
}

/// Makes the oracle draw packets of both families for each SA, as raw captures, and seal those of
/// inbound SAs.
fn draw(folder: &Path, sas: &[Sa]) {
    let path = |name: String| folder.join(name).to_str().unwrap().to_owned();
    let mut jobs: Vec<Job> = Vec::new();
    for sa in sas {
        let (net, direction) = (sa.net, sa.direction);
        let plain = path(format!("plain-{direction}-{net}"));
        let (source, destination) = sa.networks(false);
        let (source6, destination6) = sa.networks(true);
        let words = format!(
            "plain --seed {} --count {COUNT} --source {source} --destination {destination} \
             --source6 {source6} --destination6 {destination6} --link raw --out {plain}",
            sa.spi
        );
        let words = words.split(' ').map(str::to_owned).collect();
        jobs.push((words, "/dev/null".to_owned()));
        if direction == INBOUND {
            let job = json!({"sa": description(sa), "plain": plain});
            let file = path(format!("job-{net}"));
            std::fs::write(&file, job.to_string()).unwrap();
            let sealed = path(format!("sealed-{net}"));
            jobs.push((vec!["encrypt".to_owned(), file, sealed], "/dev/null".to_owned()));
        }
    }
    oracle(&jobs);
}

fn capture(folder: &Path, name: &str) -> Vec<Vec<u8>> {
    pcap::untimed(&pcap::read(&std::fs::read(folder.join(name)).unwrap()).1)
}

/// Packets with a bit flipped in each octet from the sequence number to the end of the ICV. The
/// number never becomes one that was seen: all of its flips but the last move it far away.
fn damaged(frame: &[u8]) -> Vec<Vec<u8>> {
    const LINK: usize = 14;
    let esp_len = unwrapped(&frame[LINK..]).1.len();
    let esp_at = frame.len() - esp_len;
    let flip = |at: usize| {
        let bit = match at {
            4..7 => 7,
            7 => 1,
            _ => at % 8,
        };
        let mut frame = frame.to_vec();
        frame[esp_at + at] ^= 1 << bit;
        frame
    };
    (4..esp_len).map(flip).collect()
}

/// Where in their concatenation the parts lie.
fn ranges(parts: &[Vec<Vec<u8>>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let range = |part: &Vec<Vec<u8>>| {
        let start = end;
        end += part.len();
        start..end
    };
    parts.iter().map(range).collect()
}

/// Scapy's ESP comes out as it went in but for one hop; damaged copies sent before do not disturb,
/// and copies sent after are replays. I05 I06 I07 I12 I18 G01 G03
#[test]
fn scapy_seals_and_we_open() {
    if !is_here() {
        return;
    }
    let sas = forms(INBOUND);
    let mut invocation = Invocation::new(&config(&sas));
    invocation.link = Some("raw");
    let folder = invocation.folder.path().to_owned();
    draw(&folder, &sas);
    let part = |sa: &Sa| {
        let sealed = capture(&folder, &format!("sealed-{}", sa.net));
        [damaged(&sealed[0]), sealed.clone(), sealed].concat()
    };
    let parts: Vec<_> = sas.iter().map(part).collect();
    let frames = pcap::timed(&parts.concat());
    invocation.put("unprotected-in", &Form::of(LINK_ETHERNET).file(&frames));
    let run = invocation.checked();

    let mut sent = run.protected.iter().map(|(_, packet)| packet);
    for (sa, range) in sas.iter().zip(ranges(&parts)) {
        let (damaged, whole) = run.verdicts[range.clone()].split_at(range.len() - 2 * COUNT);
        assert!(damaged.len() >= 60 && damaged.iter().all(|v| v.outcome() == "icv"), "{sa:?}");
        let (first, again) = whole.split_at(COUNT);
        for (copies, outcome) in [(first, "forward"), (again, "replay")] {
            assert!(copies.iter().all(|v| v.outcome() == outcome), "{copies:?} of {sa:?}");
        }
        let numbers = first.iter().map(|verdict| (verdict.spi, verdict.seq));
        assert!(numbers.eq((sa.sequence + 1..).take(COUNT).map(|n| (Some(sa.spi), Some(n)))));
        for plain in capture(&folder, &format!("plain-inbound-{}", sa.net)) {
            assert_eq!(sent.next(), Some(&forwarded(&plain)), "of {sa:?}");
        }
    }
    assert!(sent.next().is_none());
}

/// What we seal, scapy decrypts, and it finds nothing wrong: numbers from the first on, default
/// padding and as little as possible, next header, outer headers.
/// C01 E01 E02 E07 E08 E10 E14 E20 G01 G03 M08 P18 U01 U02
#[test]
fn we_seal_and_scapy_opens() {
    if !is_here() {
        return;
    }
    let sas = forms(OUTBOUND);
    let invocation = Invocation::new(&config(&sas));
    let folder = invocation.folder.path().to_owned();
    draw(&folder, &sas);
    let plain = |sa: &Sa| capture(&folder, &format!("plain-outbound-{}", sa.net));
    let parts: Vec<_> = sas.iter().map(plain).collect();
    let packets = pcap::timed(&parts.concat());
    invocation.put("protected-in", &Form::of(LINK_RAW).file(&packets));
    let run = invocation.checked();
    run.assert_all("forward");

    let mut jobs: Vec<Job> = Vec::new();
    for (sa, range) in sas.iter().zip(ranges(&parts)) {
        let path = |name: &str| invocation.path(&format!("{name}-{}", sa.net));
        let text = |name: &str| path(name).to_str().unwrap().to_owned();
        std::fs::write(path("job"), json!({"sa": description(sa)}).to_string()).unwrap();
        let sealed = Form::of(LINK_ETHERNET).file(&run.unprotected[range.clone()]);
        std::fs::write(path("sealed"), sealed).unwrap();
        jobs.push((vec!["decrypt".to_owned(), text("job"), text("sealed")], text("opened")));
    }
    oracle(&jobs);
    for ((sa, range), plain) in sas.iter().zip(ranges(&parts)).zip(&parts) {
        let opened = std::fs::read_to_string(invocation.path(&format!("opened-{}", sa.net)));
        let opened = opened.unwrap();
        let opened: Vec<Decrypted> =
            opened.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(opened.len(), COUNT, "{sa:?}");
        let verdicts = &run.verdicts[range];
        for (((packet, plain), seq), verdict) in
            opened.iter().zip(plain).zip(sa.sequence + 1..).zip(verdicts)
        {
            assert_eq!((packet.seq, verdict.seq, verdict.spi), (seq, Some(seq), Some(sa.spi)));
            check_opened(sa, packet, plain);
        }
    }
}

/// What scapy found is the packet that was sent, in the headers that were due.
#[track_caller]
fn check_opened(sa: &Sa, opened: &Decrypted, plain: &[u8]) {
    assert_eq!(opened.inner, hex::encode(forwarded(plain)), "{sa:?}");
    assert_eq!(opened.next_header, next_header(plain));
    assert_eq!(opened.pad_length, (plain.len() + 2).wrapping_neg() % 4);
    let inner = ip::parse(plain).unwrap();
    assert_eq!(opened.outer.dscp << 2 | opened.outer.ecn, inner.tos());
    assert_eq!(opened.outer.ttl, 64);
    let dont_fragment = match inner {
        ip::Packet::V4(inner) => inner.dont_fragment,
        ip::Packet::V6(_) => true,
    };
    assert_eq!(opened.outer.df, (!sa.six).then_some(dont_fragment));
    let checksum = opened.outer.udp.as_ref().map(|udp| udp.checksum.as_str());
    let expected = if sa.six { "ok" } else { "zero" };
    assert_eq!(checksum, sa.encapsulated.then_some(expected));
}
