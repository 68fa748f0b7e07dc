//! No sequence number is used twice, whatever happens to the process (RFC 4106 section 2; E21).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;

use culvert::lab::Capture;
use culvert::lab::Class;
use culvert::lab::sites::HOST_A;
use culvert::lab::sites::HOST_B;
use culvert::lab::sites::Plan;
use culvert_control::controller::LEASE;
use nix::sys::signal::Signal;

use crate::support::LONG;
use crate::support::Lab;
use crate::support::ping;

/// SPIs of a's and b's outbound SA.
const SPIS: [u32; 2] = [0x1001, 0x2001];

/// Sequence numbers on the wire, by SPI, in their order.
type Seen = BTreeMap<u32, Vec<u32>>;

/// Runs both gateways once, sends pings, ends the gateways with this signal.
fn run_once(lab: &mut Lab, signal: Signal) -> Seen {
    let gateways = lab.start();
    let wire = &lab.sites.wire;
    let capture = Capture::start(&wire.ns, wire.right, 10_000).expect("capture");
    ping(&lab.sites.host_a, HOST_B, 10);
    ping(&lab.sites.host_b, HOST_A, 10);
    for gateway in gateways {
        gateway.process().signal(signal);
        gateway.process().wait(LONG).expect("wait").expect("it ends");
    }
    let captured = capture.stop().expect("capture");
    assert_eq!((captured.counts[Class::Esp4], captured.missed), (80, 0));
    let mut seen = Seen::new();
    for frame in captured.frames.iter().filter(|frame| Class::of(frame) == Class::Esp4) {
        let word = |at: usize| frame[at..].first_chunk().map(|&word| u32::from_be_bytes(word));
        let (spi, seq) = (word(34).expect("an SPI"), word(38).expect("a number"));
        seen.entry(spi).or_default().push(seq);
    }
    seen
}

/// Numbers continue behind the last one used after an orderly stop, behind the lease after SIGKILL,
/// always by one, and no pair of SPI and number is ever seen twice. // E21 G02
#[test]
fn numbers_survive_the_process() {
    let plan = Plan { esn: false, ..Plan::default() };
    let Some(mut lab) = Lab::new(&plan) else { return };
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGKILL];
    let runs: Vec<Seen> = signals.into_iter().map(|signal| run_once(&mut lab, signal)).collect();
    let lease = u32::try_from(LEASE).expect("small");
    for spi in SPIS {
        // E01, E02: from 1 on, in steps of 1; a killed process may have used all of its lease.
        let mut first = 1;
        let mut all = BTreeSet::new();
        for (run, signal) in runs.iter().zip(signals) {
            let expected: Vec<u32> = (first..first + 40).collect();
            assert_eq!(run[&spi], expected, "{spi:#x} until {signal}");
            assert!(run[&spi].iter().all(|&number| all.insert(number)), "{spi:#x}");
            first += if signal == Signal::SIGKILL { lease } else { 40 };
        }
    }
}

/// A gateway that cannot record its numbers does not start: the directory cannot be made, is in use
/// by another process, or its file is damaged.
#[test]
fn refuses_to_start_without_state() {
    let Some(mut lab) = Lab::new(&Plan::default()) else { return };
    let config = fs::read_to_string(&lab.sites.configs[0]).expect("configuration");
    let state = lab.sites.directory().join("state-a");
    let elsewhere = |directory: &str| config.replace(&state.display().to_string(), directory);
    let path = lab.sites.directory().join("other.toml");
    let ns = lab.sites.gw_a.clone();

    for directory in ["/proc/culvert", "/dev/null/state"] {
        fs::write(&path, elsewhere(directory)).expect("configuration");
        let said = lab.refusal(&ns, &path);
        assert!(said.contains("cannot make") && said.contains("reuse nonces"), "{said}");
    }

    let [a, b] = lab.start();
    // In another namespace, where the interfaces are free.
    let other = lab.sites.gw_b.clone();
    b.stop().expect("report");
    fs::write(&path, &config).expect("configuration");
    let said = lab.refusal(&other, &path);
    assert!(said.contains("is in use by another process"), "{said}");
    a.stop().expect("report");

    let files = fs::read_dir(&state).expect("state").flatten().map(|entry| entry.path());
    let records: Vec<_> = files.filter(|file| file.extension().is_some()).collect();
    assert_eq!(records.len(), 1, "one outbound SA");
    fs::write(&records[0], "4O").expect("damage");
    let said = lab.refusal(&ns, &path);
    assert!(said.contains("expected one decimal sequence number"), "{said}");
    assert!(!lab.sites.gw_a.ip("-d link").expect("link").contains("xdp"));
}
