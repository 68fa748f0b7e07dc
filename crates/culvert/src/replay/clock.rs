//! The clock of the worker: it begins just before the first packet and follows the captures.

use std::time::Duration;

/// How often the worker looks at its timers between packets, in nanoseconds.
const STEP_NS: u64 = 100_000_000;

/// Most steps between two packets: an hour. What is due later in a longer pause is done at its end.
const STEPS_MAX: u64 = 36_000;

/// Time of the captures, and of the worker.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Time of the captures at which the worker's clock was zero.
    start: Option<Duration>,
    now: u64,
}

impl Clock {
    /// The worker's time, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Where the worker's clock began, in nanoseconds of the captures.
    pub(super) fn start_ns(&self) -> u64 {
        nanoseconds(self.start.unwrap_or_default())
    }

    /// The time of the captures that is now.
    pub(super) fn timestamp(&self) -> Duration {
        self.start.unwrap_or_default() + Duration::from_nanos(self.now)
    }

    /// The times at which the worker looks at its timers before a packet with this timestamp.
    pub(super) fn steps_to(&self, timestamp: Duration) -> impl Iterator<Item = u64> + use<> {
        let (now, end) = (self.now, self.of(timestamp));
        let steps = (end.saturating_sub(now) / STEP_NS).min(STEPS_MAX);
        (1..=steps).map(move |step| now + step * STEP_NS).filter(move |&at| at < end)
    }

    /// Goes on to a worker's time, and never back.
    pub(super) fn set(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Goes on to a packet's time, and never back, whatever a capture says. The first packet starts
    /// the clock, one nanosecond before it: zero is no time for the engine.
    pub(super) fn follow(&mut self, timestamp: Duration) {
        self.start.get_or_insert(timestamp.saturating_sub(Duration::from_nanos(1)));
        self.set(self.of(timestamp));
    }

    fn of(&self, timestamp: Duration) -> u64 {
        nanoseconds(timestamp.saturating_sub(self.start.unwrap_or(timestamp)))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first packet is at zero; time goes on in steps, and never back.
    #[test]
    fn time_goes_on_in_steps() {
        let mut clock = Clock::default();
        let at = |ms| Duration::from_secs(1_700_000_000) + Duration::from_millis(ms);
        assert_eq!(clock.steps_to(at(0)).count(), 0);
        clock.follow(at(0));
        assert_eq!((clock.now(), clock.timestamp()), (1, at(0)));
        let steps: Vec<u64> = clock.steps_to(at(250)).collect();
        assert_eq!(steps, [1 + STEP_NS, 1 + 2 * STEP_NS]);
        assert_eq!(clock.steps_to(at(100)).count(), 0, "the packet's turn is enough");
        clock.follow(at(250));
        clock.follow(at(10));
        assert_eq!((clock.now(), clock.timestamp()), (250_000_001, at(250)));
        assert_eq!(clock.steps_to(at(10)).count(), 0);
        assert_eq!(clock.steps_to(Duration::MAX).count(), 36_000);
        clock.follow(Duration::MAX);
        assert_eq!(clock.steps_to(Duration::MAX).count(), 0);
    }
}
