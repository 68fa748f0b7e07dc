//! What becomes of a packet: exactly one [`Fate`], and for drops one [`DropReason`].

use std::fmt;

use culvert_frame::Port;

use crate::ids::WorkerId;

/// The outcome of one packet at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent out of a port, sealed or opened.
    Forward(Port),
    /// Sent out of a port in clear, because policy says BYPASS.
    Bypass(Port),
    /// Given to the worker that owns its SA, where it gets its final fate.
    Handoff(WorkerId),
    /// Finished, but its next hop is not resolved yet, or not begun, as it waits for an SA; it gets
    /// its final fate on release.
    Held,
    /// A fragment that waits for the others; the whole packet gets its own fate.
    Reassembling,
    /// Replaced by fragments, each of which gets its own fate.
    Split,
    /// Sent by the gateway itself: an ICMP error or a NAT keepalive.
    Answer(Port),
    /// Not ours to process: it belongs to the kernel's stack.
    Punt,
    /// Dropped and counted.
    Drop(DropReason),
}

/// The fate of a packet with the SA it concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What became of the packet.
    pub fate: Fate,
    /// SPI of the ESP packet received or made; `None` when it never came so far.
    pub spi: Option<u32>,
    /// Sequence number (with ESN the whole one, as far as it is known) of the ESP packet.
    pub seq: Option<u64>,
}

impl Verdict {
    pub(crate) const fn new(fate: Fate) -> Verdict {
        Verdict { fate, spi: None, seq: None }
    }
}

impl DropReason {
    /// True when RFC 4301, 4302 or 4303 ask for an audit record of such a drop: RFC 4303 section 4,
    /// RFC 4301 sections 5.1.1 (the last three) and 5.2.
    #[must_use]
    pub const fn is_auditable(self) -> bool {
        matches!(
            self,
            DropReason::NoSa
                | DropReason::Truncated
                | DropReason::Fragment
                | DropReason::Replay
                | DropReason::Icv
                | DropReason::Trailer
                | DropReason::NextHeader
                | DropReason::Selector
                | DropReason::Bundle
                | DropReason::Plaintext
                | DropReason::SequenceExhausted
                | DropReason::IcmpUnmapped
                | DropReason::NoPolicy
                | DropReason::Discard
                | DropReason::NoOutboundSa
        )
    }
}

/// Some reasons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DropReasons(u64);

const _: () = assert!(DropReason::COUNT <= u64::BITS as usize);

impl DropReasons {
    /// No reason.
    pub const NONE: DropReasons = DropReasons(0);

    /// All that are [auditable](DropReason::is_auditable).
    pub const AUDITABLE: DropReasons = {
        let (mut reasons, mut at) = (DropReasons::NONE, 0);
        while at < DropReason::COUNT {
            let reason = DropReason::ALL[at];
            if reason.is_auditable() {
                reasons = reasons.with(reason);
            }
            at += 1;
        }
        reasons
    };

    /// These and one more.
    #[must_use]
    pub const fn with(self, reason: DropReason) -> DropReasons {
        DropReasons(self.0 | 1 << reason as u8)
    }

    /// True when it is one of these.
    #[must_use]
    pub const fn contains(self, reason: DropReason) -> bool {
        self.0 & 1 << reason as u8 != 0
    }
}

impl fmt::Debug for DropReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = DropReason::ALL.iter().filter(|&&reason| self.contains(reason));
        f.debug_set().entries(reasons).finish()
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped. The list is closed; `docs/counters.md` says more on each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The name that counters and verdicts carry.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// An Ethernet, IP, UDP, ESP or AH header contradicts itself or the length of the frame.
    Malformed = "malformed",
    /// The frame is addressed to another station of the link.
    OtherHost = "other_host",
    /// A datagram to port 4500 too short for ESP that is no keepalive (RFC 3948 section 2.2).
    Runt = "runt",
    /// A NAT keepalive: not an error (RFC 3948 section 4).
    Keepalive = "keepalive",
    /// No inbound SA has this protocol, SPI and destination (RFC 4303 section 3.4.2).
    NoSa = "no_sa",
    /// The packet is too short for its SA's IV and ICV, or not a multiple of its block length.
    Truncated = "truncated",
    /// A fragment where only a whole packet may be: before a transport mode SA, or ESP that was not
    /// reassembled (RFC 4303 sections 3.3.4 and 3.4.1).
    Fragment = "fragment",
    /// The sequence number was seen before or lies left of the window (RFC 4303 section 3.4.3).
    Replay = "replay",
    /// The integrity check failed (RFC 4303 section 3.4.4).
    Icv = "icv",
    /// The pad length is larger than the text (RFC 4303 section 2.5).
    Trailer = "trailer",
    /// The padding is not 1, 2, 3, .. (RFC 4303 section 2.4).
    Padding = "padding",
    /// A dummy packet, next header 59: not an error (RFC 4303 section 2.6).
    Dummy = "dummy",
    /// The next header is not allowed in a tunnel (RFC 4301 section 5.2).
    NextHeader = "next_header",
    /// The decrypted packet is not a well-formed IP packet of the family announced.
    InnerMalformed = "inner_malformed",
    /// Neither the SA nor a policy lets this packet through the SA (RFC 4301 section 5.2).
    Selector = "selector",
    /// The SA was not reached through the SA that its bundle puts around it.
    Bundle = "bundle",
    /// More SAs are nested in one packet than a gateway unpacks.
    Nesting = "nesting",
    /// Policy protects what came in clear (RFC 4301 section 5.2).
    Plaintext = "plaintext",
    /// Congestion was marked on a packet that cannot carry the mark (RFC 6040 section 4.2).
    Ecn = "ecn",
    /// The TTL or hop limit does not allow another hop.
    Ttl = "ttl",
    /// No policy matches (RFC 4301 section 4.4.1).
    NoPolicy = "no_policy",
    /// The matching policy says DISCARD.
    Discard = "discard",
    /// The policy names a group that has no outbound SA.
    NoOutboundSa = "no_outbound_sa",
    /// The hard lifetime of the SA is over (RFC 4301 section 4.4.2.1).
    Expired = "expired",
    /// All sequence numbers of the SA are used (RFC 4303 section 3.3.3).
    SequenceExhausted = "sequence_exhausted",
    /// The sequence numbers leased on disk are used; the next lease is not written yet.
    SequenceLease = "sequence_lease",
    /// The packet does not fit the path and may not be fragmented (RFC 4301 section 8.2).
    TooBig = "too_big",
    /// The frame has no room left for the headers or the trailer.
    NoRoom = "no_room",
    /// No free frame for fragments, or no run for a large packet of another worker.
    NoFrame = "no_frame",
    /// Fragments that overlap, contradict each other, or make more than a frame holds.
    Reassembly = "reassembly",
    /// Fragments given up for newer ones: the table was full.
    ReassemblyFull = "reassembly_full",
    /// Fragments whose rest did not come in time.
    ReassemblyTimeout = "reassembly_timeout",
    /// An ICMP error about a packet of ours, taken note of: not an error (RFC 4301 section 8.2).
    PathMtu = "path_mtu",
    /// An ICMP error that is not plausible, or not to be believed (RFC 4301 section 6.1).
    IcmpError = "icmp_error",
    /// An ICMP error about a packet of ours that control was told of: not an error (RFC 4301
    /// section 6.1.1).
    IcmpNoted = "icmp_noted",
    /// An ICMP error that no policy names and that no SA carries, for there is none for what would
    /// answer the packet it encloses (RFC 4301 section 6.2).
    IcmpUnmapped = "icmp_unmapped",
    /// The kernel has no usable route to the destination through a port of this gateway.
    NoRoute = "no_route",
    /// The route of a decrypted packet leads back out of the unprotected side, in clear.
    WrongSide = "wrong_side",
    /// The destination is this machine itself.
    Local = "local",
    /// The queue for unresolved next hops is full.
    HoldFull = "hold_full",
    /// The next hop was not resolved in time.
    HoldTimeout = "hold_timeout",
    /// The ring to the worker that owns the SA is full.
    HandoffFull = "handoff_full",
    /// The transmit ring stayed full.
    TxFull = "tx_full",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Numbers index counters, and names are distinct.
    #[test]
    fn reasons_are_numbered_and_named() {
        assert!(DropReason::ALL.iter().enumerate().all(|(i, &reason)| reason as usize == i));
        let names: HashSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
    }

    /// A set has what was put in, and Debug says what.
    #[test]
    fn reasons_make_sets() {
        let some = DropReasons::NONE.with(DropReason::Malformed).with(DropReason::TxFull);
        let of = |reasons: DropReasons| {
            DropReason::ALL.iter().copied().filter(|&reason| reasons.contains(reason)).collect()
        };
        let members: Vec<DropReason> = of(some);
        assert_eq!(members, [DropReason::Malformed, DropReason::TxFull]);
        assert_eq!(format!("{some:?}"), "{Malformed, TxFull}");
        let audited: Vec<DropReason> = of(DropReasons::AUDITABLE);
        assert!(audited.iter().all(|reason| reason.is_auditable()));
        assert_eq!(audited.len(), 15);
    }

    /// Every reason has its sentence in the documentation, which says whether it is audited.
    #[test]
    fn every_reason_is_documented() {
        let doc = include_str!("../../../docs/counters.md");
        for reason in DropReason::ALL {
            let mark = if reason.is_auditable() { " A" } else { "" };
            let row = format!("| `{}`{mark} | ", reason.name());
            assert!(doc.contains(&row), "docs/counters.md has no row {row}");
        }
    }
}
