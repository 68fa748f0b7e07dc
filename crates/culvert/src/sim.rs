//! `culvert sim`: the simulator, for anyone.
//!
//! Each seed is a run of its own: gateways, tunnels, faults and attacks follow from it and from
//! nothing else. A seed that fails here fails everywhere, each time.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use culvert_sim::Plan;
use culvert_sim::run_all;

use crate::cli::SimArgs;

/// Seeds between two lines that say how far it is.
const PROGRESS: u64 = 500;

/// Runs the seeds, says what they came to, and fails if one of them did.
///
/// # Errors
/// When a check failed in some run; how to run that seed again is on standard output.
pub fn run(args: &SimArgs) -> anyhow::Result<()> {
    let jobs = args.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let plan = Plan { first: args.first_seed, seeds: args.seeds, jobs };
    let start = Instant::now();
    let summary = run_all(plan, &|done| {
        if done.is_multiple_of(PROGRESS) && done < plan.seeds {
            println!("{done} of {} seeds", plan.seeds);
        }
    });
    println!("{summary}");
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", pace(summary.passed + summary.failures.len() as u64, jobs, seconds));
    for failure in &summary.failures {
        println!("Again: culvert sim --first-seed {} --seeds 1", failure.seed);
    }
    if let Some(first) = summary.failures.first() {
        bail!("{} seeds failed; first: {first}", summary.failures.len());
    }
    Ok(())
}

fn pace(seeds: u64, jobs: usize, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = Duration::from_secs_f64(seconds * jobs as f64 / (seeds.max(1) as f64));
    format!("{seconds:.1} s on {jobs} threads, {} ms a seed and thread", each.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few seeds pass.
    #[test]
    fn seeds_pass() {
        run(&SimArgs { seeds: 3, first_seed: 7, jobs: Some(2) }).unwrap();
        assert_eq!(pace(100, 2, 10.0), "10.0 s on 2 threads, 200 ms a seed and thread");
    }
}
