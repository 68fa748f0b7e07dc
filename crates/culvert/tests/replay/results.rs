//! Verdicts, totals, repeatability, and what bad input is answered with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::packets::Sa;
use crate::packets::config;
use crate::packets::config_with;
use crate::packets::policy;
use crate::pcap;
use crate::pcap::Form;
use crate::pcap::LINK_ETHERNET;
use crate::pcap::LINK_RAW;
use crate::pcap::Timed;
use crate::support::Invocation;
use crate::support::OUTPUTS;
use crate::support::Report;

/// A user without any rights, by number.
const NOBODY: &str = "65534";

/// Some packets of every fate, on both sides at the same times.
fn mixture() -> Invocation {
    let out = Sa { sequence: 9, ..Sa::outbound() };
    let back = Sa::inbound();
    let bypass = policy("outbound", "10.1.0.9", "10.2.0.0/24", "bypass", None);
    let sas = [out.clone(), back.clone()];
    let invocation = Invocation::new(&config_with(&bypass, &sas));
    let mut clear = out.plain(false, 3);
    clear.source = "10.1.0.9".parse().unwrap();
    let mut elsewhere = out.plain(false, 4);
    elsewhere.destination = "10.9.0.9".parse().unwrap();
    let mut last_hop = out.plain(false, 5);
    last_hop.ttl = 1;
    let plain = [out.plain(false, 1), out.plain(true, 2), clear, elsewhere, last_hop];
    let plain = plain.map(|plain| plain.packet());
    let genuine = back.packet(4, &back.plain(false, 1).packet());
    let mut forged = back.packet(5, &back.plain(false, 1).packet());
    *forged.last_mut().unwrap() ^= 1;
    let stranger = Sa { spi: 0x666, ..back.clone() }.packet(1, &plain[0]);
    let esp = [genuine.clone(), genuine, forged, stranger, plain[0].clone()];
    let form = Form::of(LINK_RAW);
    invocation.put("protected-in", &form.file(&pcap::timed(&plain)));
    invocation.put("unprotected-in", &form.file(&pcap::timed(&esp)));
    invocation
}

/// The lines of the verdicts file, as they are written.
#[test]
fn verdicts_are_lines_of_json() {
    let files = mixture().files();
    let expected = r#"
{"port":"protected","index":0,"fate":"forward","reason":null,"spi":4097,"seq":10}
{"port":"unprotected","index":0,"fate":"forward","reason":null,"spi":8193,"seq":4}
{"port":"protected","index":1,"fate":"forward","reason":null,"spi":4097,"seq":11}
{"port":"unprotected","index":1,"fate":"drop","reason":"replay","spi":8193,"seq":4}
{"port":"protected","index":2,"fate":"bypass","reason":null,"spi":null,"seq":null}
{"port":"unprotected","index":2,"fate":"drop","reason":"icv","spi":8193,"seq":5}
{"port":"protected","index":3,"fate":"punt","reason":null,"spi":null,"seq":null}
{"port":"unprotected","index":3,"fate":"drop","reason":"no_sa","spi":1638,"seq":1}
{"port":"protected","index":4,"fate":"drop","reason":"ttl","spi":4097,"seq":null,"more":@}
{"port":"unprotected","index":4,"fate":"punt","reason":null,"spi":null,"seq":null}
"#;
    let expected = expected.trim_start().replace('@', r#"{"answer":1}"#);
    assert_eq!(String::from_utf8(files.verdicts).unwrap(), expected);
}

/// The totals of the same run: by fate, by reason, and for each SA in the order of the
/// configuration.
#[test]
fn totals_are_those_of_the_verdicts() {
    let run = mixture().checked();
    let start = u64::try_from(pcap::START.as_nanos()).unwrap();
    let expected = serde_json::json!({
        "packets": 10,
        "fates": {"bypass": 1, "drop": 4, "forward": 3, "punt": 2},
        "drops": {"icv": 1, "no_sa": 1, "replay": 1, "ttl": 1},
        "more": {"answer": 1},
        "sas": [
            {
                "name": "outbound-0", "direction": "outbound", "protocol": "esp", "spi": 4097,
                "packets": 2, "bytes": (20 + 8 + 64 + 4) + (40 + 8 + 64 + 4), "sequence": 11,
                "last_used_ns": start + 100_000, "lost": 0, "reorder_depth": 0,
                "padding_wrong": 0, "path_mtu": null, "drops": {"ttl": 1},
            },
            {
                "name": "inbound-0", "direction": "inbound", "protocol": "esp", "spi": 8193,
                "packets": 1, "bytes": 20 + 8 + 64 + 4, "sequence": 4,
                "last_used_ns": start, "lost": 0, "reorder_depth": 0,
                "padding_wrong": 0, "path_mtu": null, "drops": {"icv": 1, "replay": 1},
            },
        ],
    });
    assert_eq!(run.report, serde_json::from_value(expected).unwrap());
}

/// M06: two peers may have chosen one SPI: each outbound SA has its own totals.
#[test]
fn outbound_sas_with_one_spi_are_told_apart() {
    let first = Sa::outbound();
    let second = Sa { net: 1, six: true, ..first.clone() };
    let invocation = Invocation::new(&config(&[first, second.clone()]));
    let packets: Vec<_> = (0..5).map(|id| second.plain(false, id).packet()).collect();
    invocation.put("protected-in", &Form::of(LINK_RAW).file(&pcap::timed(&packets)));
    let report: Report = serde_json::from_slice(&invocation.files().report).unwrap();
    let packets: Vec<_> = report.sas.iter().map(|sa| (sa.name.as_deref(), sa.packets)).collect();
    assert_eq!(packets, [(Some("outbound-0"), 0), (Some("outbound-1"), 5)]);
}

/// Without a file for them, totals go to standard output, the same as in a file.
#[test]
fn totals_go_to_standard_output() {
    let invocation = mixture();
    let files = invocation.files();
    let output = Command::new(&invocation.program)
        .arg("replay")
        .args(["--config".as_ref(), invocation.path("gw.toml").as_os_str()])
        .args(["--protected-in".as_ref(), invocation.path("protected-in").as_os_str()])
        .args(["--unprotected-in".as_ref(), invocation.path("unprotected-in").as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, files.report);
}

/// The same input gives the same octets, in every file.
#[test]
fn the_same_input_gives_the_same_output() {
    let invocation = mixture();
    let first = invocation.files();
    for _ in 0..5 {
        assert!(invocation.files() == first);
        assert!(mixture().files() == first);
    }
}

/// No privileges are needed: the same output as a user who has none.
#[test]
fn an_ordinary_user_may_replay() {
    let mut invocation = mixture();
    let expected = invocation.files();
    if nix::unistd::geteuid().is_root() {
        // The user may not reach the folder the program was built in.
        let program = invocation.path("culvert");
        std::fs::copy(&invocation.program, &program).unwrap();
        invocation.program = program;
        for name in OUTPUTS {
            std::fs::remove_file(invocation.path(name)).unwrap();
        }
        for path in [invocation.folder.path().to_owned(), invocation.path("gw.toml")] {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        let user = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
        let caps =
            ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"];
        invocation.wrapper =
            ["setpriv"].iter().chain(&user).chain(&caps).map(|&w| w.into()).collect();
    }
    assert!(invocation.files() == expected);
}

/// An invocation with a valid configuration.
fn any() -> Invocation {
    Invocation::new(&config(&[Sa::outbound(), Sa::inbound()]))
}

fn three() -> Vec<Timed> {
    let sa = Sa::outbound();
    pcap::timed(&[1, 2, 3].map(|id| sa.plain(false, id).packet()))
}

/// What is no capture, or one of another link type, is refused by name with what was expected.
#[test]
fn files_that_are_no_captures_are_refused() {
    let pcap = Form::of(LINK_RAW).file(&three());
    let pcapng = pcap::pcapng(101, true, &three());
    let wifi = Form::of(105).file(&three());
    let cooked = pcap::pcapng(113, true, &three());
    let other = "expected a pcap or pcapng file";
    let ends = "the file ends where more octets were expected";
    let mut backwards = pcapng.clone();
    backwards[8] = 0;
    let cases: [(&str, &[u8], &str); 10] = [
        ("text", b"not a capture, but some text that somebody wrote\n", other),
        ("gzip", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0], other),
        ("nothing", b"", other),
        ("three octets", &pcap[..3], other),
        ("pcap, header", &pcap[..23], ends),
        ("pcapng, header", &pcapng[..20], ends),
        ("pcapng, magic", &backwards, "SectionHeaderBlock: invalid magic number"),
        ("wifi", &wifi, "link type IEEE802_11: expected Ethernet or raw IP"),
        ("cooked", &cooked, "packet 0: link type LINUX_SLL: expected Ethernet or raw IP"),
        ("pcap, packet", &pcap[..pcap.len() - 1], &format!("packet 2: {ends}")),
    ];
    for (case, file, expected) in cases {
        for name in ["protected-in", "unprotected-in"] {
            let invocation = any();
            invocation.put(name, file);
            let path = invocation.path(name);
            let line = format!("culvert: {}: {expected}", path.display());
            assert_eq!(invocation.refusal(), line, "{case}");
        }
    }
}

/// Wherever a capture breaks off it is refused, unless that is between two packets, and what came
/// before is in the outputs.
#[test]
fn captures_that_break_off_are_refused() {
    let packets = three();
    let record = 16 + packets[0].1.len();
    for at in [25, 39, 40, 24 + record - 1, 24 + record + 8, 24 + 3 * record - 1] {
        let invocation = any();
        invocation.put("protected-in", &Form::of(LINK_RAW).file(&packets)[..at]);
        let line = invocation.refusal();
        let whole = (at - 24) / record;
        let ends = format!("packet {whole}: the file ends where more octets were expected");
        assert!(line.ends_with(&ends), "{line}");
        let lines = std::fs::read_to_string(invocation.path("verdicts")).unwrap().lines().count();
        assert_eq!(lines, whole);
    }
}

/// A packet that says it has more octets than any file is no reason to ask for memory.
#[test]
fn absurd_lengths_are_refused() {
    for len in [9_000_000, u32::MAX] {
        let mut file = Form::of(LINK_RAW).file(&three());
        file[32..36].copy_from_slice(&len.to_le_bytes());
        let invocation = any();
        invocation.put("protected-in", &file);
        assert!(invocation.refusal().contains("protected-in: packet 0: the file ends"));
    }
}

/// Files that are missing, cannot be written or are named twice are refused; nothing is
/// overwritten that is read.
#[test]
fn paths_are_checked_before_the_first_packet() {
    let good = Form::of(LINK_RAW).file(&three());
    let run = |arguments: &[(&str, &str)]| {
        let invocation = any();
        invocation.put("in", &good);
        let mut command = Command::new(&invocation.program);
        command.current_dir(invocation.folder.path()).arg("replay");
        arguments.iter().for_each(|(option, value)| _ = command.args([option, value]));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(std::fs::read(invocation.path("in")).unwrap(), good, "the input is untouched");
        assert!(!invocation.path("v").exists() || arguments.len() > 3, "nothing was done");
        String::from_utf8(output.stderr).unwrap()
    };
    let config = ("--config", "gw.toml");
    let input = ("--protected-in", "in");
    let twice = "expected a file that nothing else is read from or written to\n";
    assert_eq!(
        run(&[config]),
        "culvert: nothing to replay: expected --protected-in, --unprotected-in or both\n"
    );
    assert_eq!(
        run(&[config, ("--protected-in", "no.pcap")]),
        "culvert: no.pcap: cannot open: No such file or directory (os error 2)\n"
    );
    assert!(run(&[("--config", "no.toml"), input]).contains("no.toml"));
    assert_eq!(run(&[config, input, ("--unprotected-out", "in")]), format!("culvert: in: {twice}"));
    assert_eq!(run(&[config, input, ("--report", "./in")]), format!("culvert: ./in: {twice}"));
    assert_eq!(
        run(&[config, input, ("--verdicts", "gw.toml")]),
        format!("culvert: gw.toml: {twice}")
    );
    let both = [config, input, ("--verdicts", "v"), ("--report", "v")];
    assert_eq!(run(&both), format!("culvert: v: {twice}"));
    let nowhere = run(&[config, input, ("--protected-out", "no/such")]);
    assert_eq!(nowhere, "culvert: cannot create no/such: No such file or directory (os error 2)\n");
}

/// A capture may come through a pipe.
#[test]
fn pipes_are_read() {
    let invocation = any();
    let frames = three().into_iter().map(|(at, data)| (at, crate::packets::framed(&data, None)));
    let frames: Vec<_> = frames.collect();
    invocation.put("in", &Form::of(LINK_ETHERNET).file(&frames));
    let input = std::fs::File::open(invocation.path("in")).unwrap();
    let cat = Command::new("cat").stdin(input).stdout(std::process::Stdio::piped()).spawn();
    let mut cat = cat.unwrap();
    let output = Command::new(&invocation.program)
        .args(["replay".as_ref(), "--config".as_ref(), invocation.path("gw.toml").as_os_str()])
        .args(["--protected-in", "/dev/stdin"])
        .stdin(cat.stdout.take().unwrap())
        .output()
        .unwrap();
    cat.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.fates["forward"], 3);
}

/// E06 G04 G05 G11 G12: what must not be is refused before any packet is looked at, and why is
/// said: reserved SPIs, manual keys, weak algorithms, other lengths of ICVs, no integrity.
#[test]
fn what_must_not_be_configured_is_refused() {
    let good = config(&[Sa::outbound()]);
    let algorithm = "algorithm = \"aes128gcm16\"";
    let reserved = "RFC 4303 section 2.1 reserves 0 to 255";
    let mut cases = vec![
        ("spi = \"0x1001\"", "spi = 0".to_owned(), reserved),
        ("spi = \"0x1001\"", "spi = 255".to_owned(), reserved),
        ("static_keys = true", "static_keys = false".to_owned(), "RFC 4106 section 2"),
    ];
    for (keyword, reason) in [
        ("des", "RFC 8221 section 5"),
        ("3des-sha256", "RFC 8221 section 5"),
        ("aes128-md5", "RFC 8221 section 6"),
        ("aes128gcm10", "RFC 4106 section 6"),
        ("aes128gcm8", "RFC 4106 section 6"),
        ("aes128", "encryption without integrity"),
        ("null", "neither encryption nor integrity"),
        ("null-null", "neither encryption nor integrity"),
    ] {
        cases.push((algorithm, format!("algorithm = \"{keyword}\""), reason));
    }
    for (from, to, reason) in cases {
        assert!(good.contains(from), "{from}");
        let invocation = Invocation::new(&good.replace(from, &to));
        invocation.put("protected-in", &Form::of(LINK_RAW).file(&three()));
        let line = invocation.refusal();
        assert!(line.contains(reason), "{to}: {line}");
        let written = std::fs::read(invocation.path("unprotected-out")).unwrap_or_default();
        assert!(written.is_empty(), "{to}: nothing is sent");
    }
}

/// Times beyond what a pcap can say are an error, not a panic.
#[test]
fn times_beyond_a_capture_are_refused() {
    let late = vec![(Duration::from_secs(1 << 33), three()[0].1.clone())];
    let invocation = any();
    invocation.put("protected-in", &pcap::pcapng(101, true, &late));
    let line = invocation.refusal();
    let path = invocation.path("unprotected-out");
    assert!(line.starts_with(&format!("culvert: cannot write {}", path.display())), "{line}");
    assert!(Path::new(&path).exists());
}
