//! Which faults a run has, and how often.
//!
//! Swarm style: a run has some faults and not others, because a fault that is always present hides
//! what only shows without it. About one run in eight has none at all, and must lose nothing.

use crate::random::Random;

/// Which faults exist, and how often. Rates are in 1000.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Frames lost on the wire.
    pub loss: u64,
    /// Frames that arrive twice.
    pub duplication: u64,
    /// Frames that arrive late.
    pub reordering: u64,
    /// How late, in nanoseconds, at most.
    pub delay_ns_max: u64,
    /// Frames in which bits flip.
    pub bit_flips: u64,
    /// Frames that are cut short.
    pub truncation: u64,
    /// Frames whose outer header is marked with congestion.
    pub congestion: u64,
    /// Recorded frames sent again, for each step.
    pub replay: u64,
    /// Forgeries made of recorded frames, for each step.
    pub forgery: u64,
    /// Frames that never were anything, for each step.
    pub garbage: u64,
    /// Packets whose queue has nothing to do with their flow.
    pub reshuffle: u64,
    /// Turns at which a worker's transmit rings are nearly full.
    pub full_tx: u64,
    /// Turns after which a worker stands still for a while.
    pub stalls: u64,
    /// Steps after which control stands still for a while.
    pub control_stalls: u64,
    /// Steps at which time jumps ahead by seconds.
    pub clock_jumps: u64,
    /// Steps at which neighbours are forgotten.
    pub neighbours: u64,
    /// Steps at which the same policies are published again.
    pub republish: u64,
    /// Steps at which an SA moves to another worker.
    pub migration: u64,
    /// Steps at which a NAT in front of a gateway forgets its mapping.
    pub rebinding: u64,
    /// Steps at which the MTU of a gateway's link to the wire changes.
    pub mtu_changes: u64,
    /// Steps at which the MTU of the path behind that changes.
    pub path_changes: u64,
    /// Steps at which a gateway stops without warning and begins again.
    pub restarts: u64,
    /// Rings between workers, and mailboxes, hold a few things only.
    pub small_rings: bool,
}

impl Faults {
    /// Every fault is there or not, and seldom or often.
    pub(crate) fn draw(random: &mut Random) -> Faults {
        if random.chance(125) {
            return Faults::default();
        }
        let rate = |random: &mut Random| match random.chance(500) {
            true => random.pick(&[5, 20, 80, 250]),
            false => 0,
        };
        Faults {
            loss: rate(random),
            duplication: rate(random),
            reordering: rate(random),
            delay_ns_max: random.pick(&[50_000, 200_000, 2_000_000]),
            bit_flips: rate(random),
            truncation: rate(random),
            congestion: rate(random),
            replay: 4 * rate(random),
            forgery: 2 * rate(random),
            garbage: 2 * rate(random),
            reshuffle: 4 * rate(random),
            full_tx: rate(random),
            stalls: rate(random),
            control_stalls: rate(random) / 4,
            clock_jumps: rate(random),
            neighbours: rate(random),
            republish: rate(random),
            migration: 2 * rate(random),
            rebinding: rate(random) / 2,
            mtu_changes: rate(random),
            path_changes: rate(random),
            restarts: rate(random),
            small_rings: random.chance(300),
        }
    }

    /// True when there is no fault at all.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let rates = [
            self.loss,
            self.duplication,
            self.reordering,
            self.bit_flips,
            self.truncation,
            self.congestion,
            self.replay,
            self.forgery,
            self.garbage,
            self.reshuffle,
            self.full_tx,
            self.stalls,
            self.control_stalls,
            self.clock_jumps,
            self.neighbours,
            self.republish,
            self.migration,
            self.rebinding,
            self.mtu_changes,
            self.path_changes,
            self.restarts,
        ];
        rates.iter().all(|&rate| rate == 0) && !self.small_rings
    }
}
