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

    /// The median of figures in any order.
    #[test]
    fn median_of_figures() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }
}
