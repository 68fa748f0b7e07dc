//! Many seeds on some threads, and what they came to in all.
//!
//! Seeds are independent of each other: which thread runs which, and in which order, changes
//! nothing.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use culvert_engine::Counters;

use crate::attacker::Attacks;
use crate::coverage::Coverage;
use crate::coverage::Happening;
use crate::gateway::FramePool;
use crate::simulation::FRAMES_MAX;
use crate::simulation::Failure;
use crate::simulation::Report;
use crate::simulation::run_in;
use crate::wire::Damage;

/// Failures to wait for before giving up.
const FAILURES_MAX: usize = 5;

/// Which seeds to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Threads to run them on; at least 1.
    pub jobs: usize,
}

/// What all runs together came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that passed.
    pub passed: u64,
    /// Runs that failed, by seed. After some of them no more seeds are begun.
    pub failures: Vec<Failure>,
    /// Runs without any fault.
    pub quiet: u64,
    /// Packets that hosts sent.
    pub sent: u64,
    /// Packets that came out at the hosts of the other side.
    pub delivered: u64,
    /// Frames that found no room in a receive queue.
    pub overruns: u64,
    /// SAs with ESN whose receiver went across the boundary at 2^32.
    pub crossings: u64,
    /// Tunnels rekeyed.
    pub rekeyed: u64,
    /// SAs that moved to another worker.
    pub migrated: u64,
    /// Times a NAT forgot its mapping.
    pub rebound: u64,
    /// Peers that were seen elsewhere than before.
    pub moved_peers: u64,
    /// Packets lost, doubled, damaged on the wire.
    pub damage: Damage,
    /// What attackers did.
    pub attacks: Attacks,
    /// The counters of all gateways.
    pub counters: Counters,
    /// What else happened.
    pub coverage: Coverage,
}

impl Summary {
    fn add(&mut self, result: Result<Report, Failure>) {
        let report = match result {
            Ok(report) => report,
            Err(failure) => return self.failures.push(failure),
        };
        self.passed += 1;
        self.quiet += u64::from(report.quiet);
        self.sent += report.sent;
        self.delivered += report.delivered;
        self.overruns += report.overruns;
        self.crossings += report.crossings as u64;
        self.rekeyed += report.rekeyed;
        self.migrated += report.migrated;
        self.rebound += report.rebound;
        self.moved_peers += report.moved_peers as u64;
        self.damage = self.damage.plus(&report.damage);
        self.attacks = self.attacks.plus(&report.attacks);
        self.counters = self.counters.plus(&report.counters);
        self.coverage = self.coverage.plus(&report.coverage);
    }
}

/// Runs all seeds of a plan, or fewer when some fail. `progress` is told after each one how many
/// are done, on whichever thread that was.
///
/// # Panics
/// When a thread does, which only a failing `progress` can cause.
pub fn run_all(plan: Plan, progress: &(dyn Fn(u64) + Sync)) -> Summary {
    let summary = Mutex::new(Summary::default());
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let gives_up = AtomicBool::new(false);
    let work = || {
        let mut pool = FramePool::new(FRAMES_MAX);
        while !gives_up.load(Relaxed) {
            let index = begun.fetch_add(1, Relaxed);
            if index >= plan.seeds {
                break;
            }
            let result = run_in(&mut pool, plan.first.wrapping_add(index));
            if result.is_err() {
                // A run that failed keeps its frames.
                pool = FramePool::new(FRAMES_MAX);
            }
            let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
            summary.add(result);
            gives_up.fetch_or(summary.failures.len() >= FAILURES_MAX, Relaxed);
            drop(summary);
            progress(1 + done.fetch_add(1, Relaxed));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("runs catch their panics"));
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}

impl fmt::Display for Summary {
    /// A few lines, the failures first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        let Summary { passed, failures, quiet, sent, delivered, damage, attacks, .. } = self;
        let failed = failures.len();
        writeln!(f, "{passed} seeds passed, {quiet} of them without faults; {failed} failed")?;
        let Attacks { replays, forgeries, errors, garbage } = attacks;
        writeln!(
            f,
            "{sent} packets sent, {delivered} delivered, {} lost on the wire, {} dropped",
            damage.lost,
            self.counters.dropped_total(),
        )?;
        writeln!(
            f,
            "{replays} replays, {forgeries} forgeries, {errors} false errors, {garbage} frames of \
             garbage"
        )?;
        let of = |what| self.coverage.count(what);
        writeln!(
            f,
            "{} packets fragmented, {} put together, {} restarts, {} changes of MTUs",
            self.counters.split,
            of(Happening::Reassembled),
            of(Happening::Restart),
            of(Happening::MtuChange) + of(Happening::PathChange),
        )?;
        write!(
            f,
            "{} rekeyings, {} migrations, {} mappings lost, {} peers followed",
            self.rekeyed, self.migrated, self.rebound, self.moved_peers,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum is the same on any number of threads.
    #[test]
    fn threads_do_not_matter() {
        let plan = Plan { first: 40, seeds: 6, jobs: 1 };
        let one = run_all(plan, &|_| {});
        let progress = AtomicU64::new(0);
        let three =
            run_all(Plan { jobs: 3, ..plan }, &|done| _ = progress.fetch_max(done, Relaxed));
        assert_eq!((&one, progress.into_inner()), (&three, 6));
        assert_eq!(one.passed, 6, "{one}");
    }
}
