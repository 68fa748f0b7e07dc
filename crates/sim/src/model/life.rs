//! What of an SA's lifetime is used up (RFC 4301 section 4.4.2.1), by adding up.

use culvert_esp::Limits;

const SECOND_NS: u64 = 1_000_000_000;

/// The lifetime of an SA.
#[derive(Debug)]
pub(super) struct Life {
    soft: Limits,
    hard: Limits,
    /// When a worker got the SA.
    began: Option<u64>,
    /// Packets made or accepted.
    pub(super) packets: u64,
    /// Octets of them that the algorithm worked on.
    pub(super) bytes: u64,
    /// The soft limit was noticed.
    is_late: bool,
    /// The hard limit was noticed: no more packets.
    pub(super) is_over: bool,
}

impl Life {
    pub(super) fn new((soft, hard): (Limits, Limits)) -> Life {
        Life { soft, hard, began: None, packets: 0, bytes: 0, is_late: false, is_over: false }
    }

    /// A worker has it, perhaps since now. True when that is new.
    pub(super) fn begin(&mut self, now: u64) -> bool {
        let is_new = self.began.is_none();
        self.began = self.began.or(Some(now));
        is_new
    }

    /// A packet was made or accepted. Counts are looked at with each one; and who looks at them
    /// because they have reached something sees the time as well.
    pub(super) fn count(&mut self, octets: usize, now: u64) {
        self.packets += 1;
        self.bytes += octets as u64;
        self.is_over |= self.is_counted_out(&self.hard);
        if self.is_over || (!self.is_late && self.is_counted_out(&self.soft)) {
            self.look(now);
        }
    }

    /// Somebody looks at the clock.
    pub(super) fn look(&mut self, now: u64) {
        let is_past = |limits: &Limits| {
            let began = self.began.unwrap_or(now);
            limits.seconds.is_some_and(|seconds| now >= began + seconds * SECOND_NS)
        };
        self.is_late |= is_past(&self.soft) || self.is_counted_out(&self.soft);
        self.is_over |= is_past(&self.hard);
    }

    fn is_counted_out(&self, limits: &Limits) -> bool {
        limits.packets.is_some_and(|most| self.packets >= most)
            || limits.bytes.is_some_and(|most| self.bytes >= most)
    }
}
