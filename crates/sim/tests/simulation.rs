//! The simulation over many seeds.
//!
//! `CULVERT_SIM_SEEDS=100000` runs more of them, `CULVERT_SIM_SEED=17` one, and tells about it.

use std::env;
use std::thread;

use culvert_sim::Failure;
use culvert_sim::FramePool;
use culvert_sim::Report;
use culvert_sim::run_in;
use culvert_sim::simulation::FRAMES_MAX;

/// Seeds in every test run.
const SEEDS: u64 = 300;

/// Failures to wait for before giving up.
const FAILURES_MAX: usize = 5;

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// Runs every `threads`-th seed, starting with `first`.
fn run_some(first: u64, threads: u64, seeds: u64) -> Vec<Result<Report, Failure>> {
    let mut pool = FramePool::new(FRAMES_MAX);
    let mut results = Vec::new();
    let mut failures = 0;
    for seed in (first..seeds).step_by(usize::try_from(threads).unwrap()) {
        let result = run_in(&mut pool, seed);
        if result.is_err() {
            failures += 1;
            pool = FramePool::new(FRAMES_MAX);
        }
        results.push(result);
        if failures == FAILURES_MAX {
            break;
        }
    }
    results
}

/// Nothing is accepted twice, nothing reused, no frame lost, and nothing dropped without a reason,
/// for every seed; and all seeds together do what they are for.
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
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let results: Vec<_> = thread::scope(|scope| {
        let spawn = |first| scope.spawn(move || run_some(first, threads, seeds));
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    for failure in &failures {
        println!("{failure}; CULVERT_SIM_SEED={} runs it alone", failure.seed);
    }
    assert!(failures.is_empty(), "{} seeds failed; first: {}", failures.len(), failures[0]);
    let reports: Vec<_> = results.into_iter().flatten().collect();
    assert_eq!(reports.len() as u64, seeds);
    if seeds >= SEEDS {
        check_coverage(&reports);
    }
}

/// Seeds that never meet a fault prove nothing about it.
fn check_coverage(reports: &[Report]) {
    use culvert_engine::DropReason::*;
    let sum = |what: &dyn Fn(&Report) -> u64| reports.iter().map(what).sum::<u64>();
    println!(
        "{} seeds, {} packets sent, {} delivered, {} replays, {} forgeries",
        reports.len(),
        sum(&|r| r.sent),
        sum(&|r| r.delivered),
        sum(&|r| r.attacks.replays),
        sum(&|r| r.attacks.forgeries),
    );
    let quiet = reports.iter().filter(|report| report.quiet).count();
    assert!(quiet * 50 > reports.len(), "only {quiet} runs without faults");
    for reason in [
        Malformed,
        OtherHost,
        Runt,
        NoSa,
        Truncated,
        Replay,
        Icv,
        Selector,
        Ecn,
        Ttl,
        NoPolicy,
        Discard,
        SequenceExhausted,
        TooBig,
        HoldFull,
        HoldTimeout,
        HandoffFull,
        TxFull,
    ] {
        let dropped = sum(&|r| r.counters.dropped(reason));
        println!("{dropped} dropped as {reason}");
        assert!(dropped > 10, "{dropped} packets dropped as {reason} in all runs");
    }
    assert!(sum(&|r| r.crossings as u64) > 20 && sum(&|r| r.overruns) > 100);
    assert!(sum(&|r| r.counters.handed_off) > 1000);
    assert!(sum(&|r| r.counters.held) > 100);
    assert!(sum(&|r| r.counters.bypassed) > 100);
    assert!(sum(&|r| r.damage.lost) > 100 && sum(&|r| r.damage.duplicated) > 100);
    assert!(sum(&|r| r.damage.flipped) > 100 && sum(&|r| r.damage.truncated) > 100);
}
