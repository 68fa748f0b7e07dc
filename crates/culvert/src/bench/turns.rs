//! What many timed turns say about the cost of a packet, on a machine that others use as well.
//!
//! A turn of one batch takes some microseconds, and what disturbs it (another process on the core,
//! an interrupt, a slow second of the host) takes much longer. So most turns are undisturbed, and
//! their *median* stands still where the mean wanders. A host that is slow for seconds is met by
//! several rounds with other measurements in between, of which again the median counts.

use serde::Serialize;

/// Ticks of the turns of one round, each of the same number of packets.
#[derive(Debug, Default)]
pub(super) struct Turns {
    ticks: Vec<u64>,
}

impl Turns {
    /// Adds the ticks of one turn.
    pub(super) fn record(&mut self, ticks: u64) {
        self.ticks.push(ticks);
    }

    /// What the turns say, each having been of `packets` packets.
    ///
    /// # Panics
    /// When there was no turn, or it had no packet.
    pub(super) fn round(mut self, packets: usize) -> Round {
        assert!(packets > 0, "a turn without packets has no cost of one");
        self.ticks.sort_unstable();
        let count = self.ticks.len();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let of_a_packet = |ticks: u64, turns: usize| ticks as f64 / (turns * packets) as f64;
        Round {
            turns: count,
            median: of_a_packet(self.ticks[count / 2], 1),
            best: of_a_packet(self.ticks[0], 1),
            mean: of_a_packet(self.ticks.iter().sum(), count),
        }
    }
}

/// TSC ticks a packet in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Turns in the round.
    pub turns: usize,
    /// Median over its turns.
    pub median: f64,
    /// Its fastest turn.
    pub best: f64,
    /// Mean over its turns, what disturbed them included.
    pub mean: f64,
}

impl Round {
    /// What rounds of several workers at the same time say together: packets of all by ticks of
    /// all, that is, harmonic means.
    ///
    /// # Panics
    /// When there are none.
    pub(super) fn together(rounds: &[Round]) -> Round {
        assert!(!rounds.is_empty(), "no worker, no round");
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let count = rounds.len() as f64;
        let harmonic = |figure: fn(&Round) -> f64| {
            count / rounds.iter().map(|round| figure(round).recip()).sum::<f64>()
        };
        Round {
            turns: rounds.iter().map(|round| round.turns).sum(),
            median: harmonic(|round| round.median),
            best: harmonic(|round| round.best),
            mean: harmonic(|round| round.mean),
        }
    }
}

/// The median of some figures.
///
/// # Panics
/// When there are none.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One turn that was disturbed moves the mean and leaves the median alone.
    #[test]
    fn median_ignores_what_disturbs() {
        let mut turns = Turns::default();
        [640, 704, 768, 6400, 700].into_iter().for_each(|ticks| turns.record(ticks));
        let round = turns.round(64);
        assert_eq!((round.turns, round.median, round.best), (5, 11.0, 10.0));
        assert!((round.mean - 9212.0 / 320.0).abs() < 1e-9, "{}", round.mean);
    }

    /// A worker that takes three times as long adds a third of the other's rate.
    #[test]
    fn workers_together() {
        let round = |cycles| Round { turns: 1, median: cycles, best: cycles, mean: cycles };
        let both = Round::together(&[round(100.0), round(300.0)]);
        assert_eq!(both.turns, 2);
        assert!((2.0 / both.median - (1.0 / 100.0 + 1.0 / 300.0)).abs() < 1e-12);
    }

    /// The median of figures in any order.
    #[test]
    fn median_of_figures() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }
}
