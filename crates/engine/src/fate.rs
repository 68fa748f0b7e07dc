//! What becomes of a packet: exactly one [`Fate`], and for drops one [`DropReason`].

use std::fmt;

use culvert_frame::Port;

use crate::worker::WorkerId;

/// The outcome of one packet at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent out of a port, sealed or opened.
    Forward(Port),
    /// Sent out of a port in clear, because policy says BYPASS.
    Bypass(Port),
    /// Given to the worker that owns its SA, where it gets its final fate.
    Handoff(WorkerId),
    /// Finished, but its next hop is not resolved yet; it gets its final fate on release.
    Held,
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
    /// An Ethernet, IP, UDP or ESP header contradicts itself or the length of the frame.
    Malformed = "malformed",
    /// The frame is addressed to another station of the link.
    OtherHost = "other_host",
    /// A datagram to port 4500 too short for ESP that is no keepalive (RFC 3948 section 2.2).
    Runt = "runt",
    /// No inbound SA has this SPI and destination (RFC 4303 section 3.4.2).
    NoSa = "no_sa",
    /// The ESP packet is too short for its SA's IV and ICV, or not a multiple of 4 octets.
    Truncated = "truncated",
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
    /// No inbound policy lets this packet come out of this SA (RFC 4301 section 5.2).
    Selector = "selector",
    /// Congestion was marked on a packet that cannot carry the mark (RFC 6040 section 4.2).
    Ecn = "ecn",
    /// The TTL or hop limit does not allow another hop.
    Ttl = "ttl",
    /// No outbound policy matches (RFC 4301 section 4.4.1).
    NoPolicy = "no_policy",
    /// The matching policy says DISCARD.
    Discard = "discard",
    /// The policy names a group that has no outbound SA.
    NoOutboundSa = "no_outbound_sa",
    /// All sequence numbers of the SA are used (RFC 4303 section 3.3.3).
    SequenceExhausted = "sequence_exhausted",
    /// The sequence numbers leased on disk are used; the next lease is not written yet.
    SequenceLease = "sequence_lease",
    /// The packet would not fit the MTU of the link it must leave through.
    TooBig = "too_big",
    /// The frame has no room left for the headers or the trailer.
    NoRoom = "no_room",
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

    /// Every reason has its sentence in the documentation.
    #[test]
    fn every_reason_is_documented() {
        let doc = include_str!("../../../docs/counters.md");
        for reason in DropReason::ALL {
            let row = format!("| `{}` | ", reason.name());
            assert!(doc.contains(&row), "docs/counters.md has no row for {reason}");
        }
    }
}
