//! The simulation over many seeds.
//!
//! `CULVERT_SIM_SEEDS=100000` runs more of them, `CULVERT_SIM_SEED=17` one, and tells about it; so
//! does `culvert sim --first-seed 17 --seeds 1`.

use std::env;
use std::thread;

use culvert_sim::Plan;
use culvert_sim::Summary;
use culvert_sim::coverage::Happening;

/// Seeds in every test run.
const SEEDS: u64 = 300;

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// Times that each fault and feature occurs in all of them at least.
const TIMES: u64 = 20;

/// E02, E21, I08, P01, P13, P15, P16, P22, P23, P24, U08, U10, U11, U12, U13, M01, M05: nothing is
/// accepted twice, nothing reused, restarts included, no frame lost, nothing dropped without a
/// reason, nothing believed that must not be, and nothing lost once faults stop, for every seed;
/// and all seeds together do what they are for.
#[test]
fn seeds() {
    if let Some(seed) = variable("CULVERT_SIM_SEED") {
        match culvert_sim::run(seed) {
            Ok(report) => println!("{report}\n{report:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let seeds = variable("CULVERT_SIM_SEEDS").unwrap_or(SEEDS);
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let summary = culvert_sim::run_all(Plan { first: 0, seeds, jobs }, &|_| {});
    println!("{summary}");
    let failures = &summary.failures;
    assert!(failures.is_empty(), "{} seeds failed; first: {}", failures.len(), failures[0]);
    assert_eq!(summary.passed, seeds);
    if seeds >= SEEDS {
        check_coverage(&summary);
    }
}

/// Seeds that never meet a fault prove nothing about it.
fn check_coverage(summary: &Summary) {
    use culvert_engine::DropReason::*;
    assert!(summary.quiet * 50 > summary.passed, "only {} runs without faults", summary.quiet);
    for reason in [
        Malformed,
        OtherHost,
        Runt,
        Keepalive,
        NoSa,
        Truncated,
        Replay,
        Icv,
        Selector,
        Plaintext,
        Ecn,
        Ttl,
        NoPolicy,
        Discard,
        Expired,
        SequenceExhausted,
        TooBig,
        HoldFull,
        HoldTimeout,
        HandoffFull,
        TxFull,
        IcmpError,
        PathMtu,
        Reassembly,
        ReassemblyTimeout,
        Dummy,
    ] {
        let dropped = summary.counters.dropped(reason);
        println!("{dropped} dropped as {reason}");
        assert!(dropped > 10, "{dropped} packets dropped as {reason} in all runs");
    }
    let Summary { crossings, overruns, rekeyed, migrated, rebound, moved_peers, .. } = *summary;
    assert!(crossings > 20 && overruns > 100, "{crossings} crossings, {overruns} overruns");
    assert!(rekeyed > 300 && migrated > 300, "{rekeyed} rekeyings, {migrated} migrations");
    assert!(rebound > 50 && moved_peers > 50, "{rebound} mappings lost, {moved_peers} followed");
    let counters = &summary.counters;
    assert!(counters.handed_off > 1000 && counters.held > 100 && counters.bypassed > 100);
    for what in Happening::ALL {
        let count = summary.coverage.count(what);
        println!("{count} {}", what.text());
        assert!(count >= TIMES, "only {count} {} in all runs", what.text());
    }
    let attacks = &summary.attacks;
    assert!(attacks.replays > 100 && attacks.forgeries > 100 && attacks.garbage > 100);
    let damage = &summary.damage;
    assert!(damage.delayed > 100 && damage.marked > 100 && damage.too_big > 100);
    assert!(damage.lost > 100 && damage.duplicated > 100 && damage.strayed > 100);
    assert!(damage.flipped > 100 && damage.truncated > 100);
}
