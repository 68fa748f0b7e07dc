//! Audit records (RFC 4301 section 5, RFC 4303 section 3.4): who sent what that was refused.
//!
//! Every refused packet is counted exactly, by reason, per worker and per SA. Records of them are
//! for a log: their rate is limited, and how many were not written is counted as well. The time of
//! a record is the worker's clock; control, which has a calendar, translates it.

use std::net::IpAddr;

use crate::fate::DropReason;

/// Records a worker may write in a row, and in a second.
pub const RATE: u32 = 100;

/// One refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Time of the worker's clock, in nanoseconds.
    pub at: u64,
    /// Why it was refused.
    pub reason: DropReason,
    /// SPI of the packet; `None` for plaintext.
    pub spi: Option<u32>,
    /// Sequence number, with ESN the whole one as far as it is known.
    pub seq: Option<u64>,
    /// Source address: the outer one if there are two.
    pub source: IpAddr,
    /// Destination address, as the source.
    pub destination: IpAddr,
    /// Flow label, for IPv6.
    pub flow_label: Option<u32>,
    /// Records not written since the last one.
    pub suppressed: u64,
}

/// A token bucket: `RATE` in a row, refilled at `RATE` a second.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: u32,
    tokens: u32,
    refilled: u64,
    suppressed: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Limiter {
    pub(crate) fn new(rate: u32) -> Limiter {
        Limiter { rate, tokens: rate, refilled: 0, suppressed: 0 }
    }

    /// Takes a token, and says how many askers got none since the last that did.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let interval = SECOND / u64::from(self.rate.max(1));
        let due = now.saturating_sub(self.refilled) / interval;
        if due > 0 {
            let room = u64::from(self.rate - self.tokens);
            #[expect(clippy::cast_possible_truncation, reason = "at most the rate")]
            let added = due.min(room) as u32;
            self.tokens += added;
            self.refilled += due * interval;
        }
        if self.tokens == 0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Gives a token back: what it was taken for did not happen, nor did what was not told before.
    pub(crate) fn give_back(&mut self, suppressed: u64) {
        self.tokens += 1;
        self.suppressed += suppressed + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P29: a flood gets its rate and not more, and who got nothing is counted exactly.
    #[test]
    fn limiter_is_exact() {
        let mut limiter = Limiter::new(10);
        let start = 5 * SECOND;
        let granted = (0..1000).filter(|_| limiter.take(start).is_some()).count();
        assert_eq!(granted, 10);
        assert_eq!(limiter.take(start + SECOND / 10), Some(990));
        assert_eq!(limiter.take(start + SECOND / 10), None);
        assert_eq!(limiter.take(start + 100 * SECOND), Some(1));
        let more = (0..100).filter(|_| limiter.take(start + 100 * SECOND).is_some()).count();
        assert_eq!(more, 9, "tokens do not pile up");
        let mut limiter = Limiter::new(1);
        let suppressed = limiter.take(0).unwrap();
        limiter.give_back(suppressed);
        assert_eq!(limiter.take(0), Some(1));
    }

    /// No rate: nothing is ever granted, and all of it is counted.
    #[test]
    fn rate_zero_is_silence() {
        let mut limiter = Limiter::new(0);
        assert!((0..100).all(|second| limiter.take(second * SECOND).is_none()));
        assert_eq!(limiter.suppressed, 100);
    }
}
