//! Audit records (RFC 4301 section 5, RFC 4303 sections 3.4 and 4): who sent what that was refused;
//! and what IKE may tell the sender of it.
//!
//! Every refused packet is counted exactly, by reason, per worker and per SA. Records of them are
//! for a log: which reasons have any is an option, their rate is limited, and how many were not
//! written is counted as well. What comes from the protected side has a rate of its own, so that a
//! host there cannot hide who attacks from outside, nor the other way round. The time of a record
//! is the worker's clock; control, which has a calendar, translates it.
//!
//! Notices for IKE do not depend on records: each kind has its switch and its rate.

use std::net::IpAddr;

use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_esp::Mode;
use culvert_spd::Flow;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;

use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::mailbox::Notice;
use crate::mailbox::PacketStart;
use crate::options::Options;
use crate::plane::Plane;

/// Records a worker may write in a row, and in a second.
pub const RATE: u32 = 100;

/// One refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Time of the worker's clock, in nanoseconds.
    pub at: u64,
    /// Why it was refused.
    pub reason: DropReason,
    /// True for a packet from the unprotected side.
    pub inbound: bool,
    /// Slot of its SA at the worker, in the table of its direction; `None` without one.
    pub slot: Option<u32>,
    /// ESP or AH; `None` for plaintext that has no SA.
    pub protocol: Option<Protocol>,
    /// SPI of the packet; `None` for plaintext that has no SA.
    pub spi: Option<u32>,
    /// Sequence number, with ESN the whole one as far as it is known; where numbers are used up,
    /// the last one.
    pub seq: Option<u64>,
    /// Source address: the outer one if there are two.
    pub source: IpAddr,
    /// Destination address, as the source.
    pub destination: IpAddr,
    /// Flow label, for IPv6.
    pub flow_label: Option<u32>,
    /// What policy sees of the plaintext: the packet itself, or what came out of its SA and does
    /// not belong there. `None` for what was not opened, or for which there was no number left.
    pub flow: Option<Flow>,
    /// Records of the same direction not written since the last one.
    pub suppressed: u64,
}

/// A packet that came out of an SA which does not admit it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mismatch {
    pub(crate) flow: Flow,
    pub(crate) inner: ip::Packet,
    pub(crate) start: PacketStart,
}

/// Acquires that a worker asks for in a second at most.
const ACQUIRE_RATE: u32 = 100;

/// ICMP errors that a worker tells control of in a second at most.
const ICMP_ERROR_RATE: u32 = 10;

/// The limits of what packets can make a worker tell control.
#[derive(Debug)]
pub(crate) struct Limits {
    inbound: Limiter,
    outbound: Limiter,
    invalid_spi: Limiter,
    invalid_selectors: Limiter,
    pub(crate) acquires: Limiter,
    pub(crate) icmp_errors: Limiter,
}

impl Limits {
    pub(crate) fn new(options: &Options) -> Limits {
        let (audit, notices) = (options.audit.rate, options.notices.rate);
        Limits {
            inbound: Limiter::new(audit),
            outbound: Limiter::new(audit),
            invalid_spi: Limiter::new(notices),
            invalid_selectors: Limiter::new(notices),
            acquires: Limiter::new(ACQUIRE_RATE),
            icmp_errors: Limiter::new(ICMP_ERROR_RATE),
        }
    }
}

impl<A: Aead> Plane<A> {
    /// Tells control of something, if its limiter allows. The notice is made with how many were not
    /// told since the last one; if the queue is full, it is not told either.
    pub(crate) fn tell_within(
        &mut self,
        limiter: fn(&mut Limits) -> &mut Limiter,
        notice: impl FnOnce(u64) -> Notice,
    ) {
        let Some(suppressed) = limiter(&mut self.limits).take(self.now) else {
            return;
        };
        if !self.tell(notice(suppressed)) {
            limiter(&mut self.limits).give_back(suppressed);
        }
    }

    /// Tells of a packet from the unprotected side that was refused as it came. The verdict gets
    /// the whole number of a replay with ESN (RFC 4303 section 3.4.3).
    #[cold]
    pub(crate) fn audit_received(&mut self, verdict: &mut Verdict, data: &[u8]) {
        if let Ok(link) = ethernet::parse(data) {
            self.audit_unopened(verdict, data, link.payload_at);
        }
    }

    /// Tells of a packet that was refused after its SA was found; its outer IP header stands at
    /// `ip_at`, but for transport mode only until it was taken apart.
    #[cold]
    pub(crate) fn audit_opened(&mut self, verdict: &Verdict, slot: u32, data: &[u8], ip_at: usize) {
        let (flow, moved) = match self.mismatch.take() {
            Some(Mismatch { flow, inner, start }) => {
                self.tell_invalid_selectors(slot, start);
                (Some(flow), Some(inner))
            }
            None => (None, None),
        };
        let Some(entry) = self.inbound.at(slot) else {
            return;
        };
        let (protocol, mode) = (entry.protocol, entry.mode);
        let moved = moved.filter(|_| mode == Mode::Transport);
        if let Some(header) = moved.or_else(|| ip::parse(data.get(ip_at..)?).ok()) {
            self.record(true, verdict, (Some(slot), Some(protocol)), &header, flow);
        }
    }

    /// Tells of a packet from the protected side, at `at`, that was refused before or, with a slot,
    /// by its SA.
    #[cold]
    pub(crate) fn audit_sent(
        &mut self,
        verdict: &Verdict,
        slot: Option<u32>,
        data: &[u8],
        at: usize,
    ) {
        let Some((packet, header)) = data.get(at..).and_then(|p| Some((p, ip::parse(p).ok()?)))
        else {
            return;
        };
        let entry = slot.and_then(|slot| self.outbound.at(slot));
        let mut verdict = *verdict;
        let is_used_up = verdict.fate == Fate::Drop(DropReason::SequenceExhausted);
        if is_used_up {
            verdict.seq = entry.map(|entry| entry.sa.sequence.last());
        }
        let protocol = entry.map(|entry| entry.protocol);
        // Where numbers are used up, a header may stand in front of what policy saw.
        let flow = (!is_used_up).then(|| Flow::of(packet, &header));
        self.record(false, &verdict, (slot, protocol), &header, flow);
    }

    /// Tells of a packet at `at`, with ESP, AH or neither, that no SA has opened.
    #[cold]
    pub(crate) fn audit_unopened(&mut self, verdict: &mut Verdict, data: &[u8], at: usize) {
        let Some((packet, header)) = data.get(at..).and_then(|p| Some((p, ip::parse(p).ok()?)))
        else {
            return;
        };
        let (protocol, outer) = match esp::classify_packet(data, at) {
            Ok(Unprotected::Esp(outer)) => (Protocol::Esp, outer),
            Ok(Unprotected::Ah(outer)) => (Protocol::Ah, outer),
            _ => {
                let flow = Some(Flow::of(packet, &header));
                return self.record(true, verdict, (None, None), &header, flow);
            }
        };
        let slot = self.slot_of(protocol, &outer);
        let entry = slot.and_then(|slot| self.inbound.at(slot));
        if let (Some(entry), Fate::Drop(DropReason::Replay)) = (entry, verdict.fate) {
            verdict.seq = entry.sa.window().inferred(outer.seq).or(verdict.seq);
        }
        if verdict.fate == Fate::Drop(DropReason::NoSa) {
            self.tell_invalid_spi(protocol, &outer);
        }
        self.record(true, verdict, (slot, Some(protocol)), &header, None);
    }

    /// The slot of the SA that a packet finds, if it is here.
    fn slot_of(&self, protocol: Protocol, outer: &Outer) -> Option<u32> {
        let directory = &self.snapshot.directory;
        let found = directory.find(protocol, outer.spi, outer.source, outer.destination)?;
        let entry = self.inbound.at(found.slot).filter(|_| found.worker == self.id)?;
        let is_it = entry.sa.spi().value() == outer.spi && entry.protocol == protocol;
        is_it.then_some(found.slot)
    }

    /// Writes the record of a dropped packet, if its reason has any and the rate allows.
    fn record(
        &mut self,
        inbound: bool,
        verdict: &Verdict,
        (slot, protocol): (Option<u32>, Option<Protocol>),
        header: &ip::Packet,
        flow: Option<Flow>,
    ) {
        let Fate::Drop(reason) = verdict.fate else {
            return;
        };
        if !self.options.audit.reasons.contains(reason) {
            return;
        }
        let at = self.now;
        let limiter: fn(&mut Limits) -> &mut Limiter = match inbound {
            true => |limits| &mut limits.inbound,
            false => |limits| &mut limits.outbound,
        };
        self.tell_within(limiter, |suppressed| {
            Notice::Audit(AuditRecord {
                at,
                reason,
                inbound,
                slot,
                protocol,
                spi: verdict.spi,
                seq: verdict.seq,
                source: header.source(),
                destination: header.destination(),
                flow_label: match header {
                    ip::Packet::V4(_) => None,
                    ip::Packet::V6(header) => Some(header.flow_label),
                },
                flow,
                suppressed,
            })
        });
    }

    /// Tells IKE of a packet without an SA, within the rate, if it wants to know.
    fn tell_invalid_spi(&mut self, protocol: Protocol, outer: &Outer) {
        if !self.options.notices.invalid_spi {
            return;
        }
        self.tell_within(
            |limits| &mut limits.invalid_spi,
            |suppressed| Notice::InvalidSpi {
                protocol,
                spi: outer.spi,
                source: outer.source,
                port: outer.encapsulated.then_some(outer.source_port),
                destination: outer.destination,
                suppressed,
            },
        );
    }

    /// Tells IKE of a packet that its SA does not admit, within the rate, if it wants to know.
    fn tell_invalid_selectors(&mut self, slot: u32, packet: PacketStart) {
        let Some(entry) = self.inbound.at(slot).filter(|_| self.options.notices.invalid_selectors)
        else {
            return;
        };
        let spi = entry.sa.spi().value();
        self.tell_within(
            |limits| &mut limits.invalid_selectors,
            |suppressed| Notice::InvalidSelectors { slot, spi, packet, suppressed },
        );
    }
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
