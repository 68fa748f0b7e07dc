//! Congestion notification and DSCP on the way out of a tunnel (RFC 6040, RFC 4301 section
//! 5.1.2.1).
//!
//! Encapsulation is the [template](crate::template)'s. Decapsulation merges outer and inner ECN as
//! the table in RFC 6040 section 4.2 says, and keeps the inner DSCP unless told otherwise.

/// The two ECN bits of a TOS or traffic class octet.
pub const MASK: u8 = 0b11;

/// Not ECN-capable transport.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable transport, codepoint 1.
pub const ECT1: u8 = 0b01;
/// ECN-capable transport, codepoint 0.
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// What leaving a tunnel does to a packet's ECN field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decap {
    /// The ECN field of the forwarded packet; `None` when the packet must be dropped: congestion
    /// was marked on the way, and the inner transport cannot understand the mark.
    pub ecn: Option<u8>,
    /// The combination is one that no known sender makes (marked in RFC 6040 figure 4): to be
    /// logged once for the SA.
    pub alarm: bool,
}

/// Merges the ECN fields of both headers (RFC 6040 section 4.2).
///
/// Both arguments may be whole TOS octets; only their ECN bits count.
#[inline]
#[must_use]
pub fn decapsulate(inner: u8, outer: u8) -> Decap {
    let (ecn, alarm) = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => (None, true),
        (NOT_ECT, outer) => (Some(NOT_ECT), outer != NOT_ECT),
        (CE, outer) => (Some(CE), outer == ECT1),
        (_, CE) => (Some(CE), false),
        (ECT0, ECT1) => (Some(ECT1), false),
        (inner, outer) => (Some(inner), inner == ECT1 && outer == ECT0),
    };
    Decap { ecn, alarm }
}

/// Whose DSCP the forwarded packet has (RFC 4301 section 5.1.2.1 note 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DscpPolicy {
    /// Its own.
    #[default]
    KeepInner,
    /// That of the outer header.
    CopyOuter,
}

/// The TOS octet of the forwarded packet, whose ECN field [`decapsulate`] found.
#[inline]
#[must_use]
pub fn forwarded_tos(inner: u8, outer: u8, ecn: u8, dscp: DscpPolicy) -> u8 {
    let dscp = match dscp {
        DscpPolicy::KeepInner => inner,
        DscpPolicy::CopyOuter => outer,
    };
    dscp & !MASK | ecn & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C03, C04, C05, C06, C07: the whole table of RFC 6040 section 4.2, rows by inner field; the
    /// combinations that it marks are those that raise an alarm.
    #[test]
    fn table() {
        let columns = [NOT_ECT, ECT0, ECT1, CE];
        let drop = (None, true);
        let quiet = |ecn| (Some(ecn), false);
        let alarm = |ecn| (Some(ecn), true);
        let rows = [
            (NOT_ECT, [quiet(NOT_ECT), alarm(NOT_ECT), alarm(NOT_ECT), drop]),
            (ECT0, [quiet(ECT0), quiet(ECT0), quiet(ECT1), quiet(CE)]),
            (ECT1, [quiet(ECT1), alarm(ECT1), quiet(ECT1), quiet(CE)]),
            (CE, [quiet(CE), quiet(CE), alarm(CE), quiet(CE)]),
        ];
        for (inner, expected) in rows {
            for (outer, (ecn, alarm)) in columns.into_iter().zip(expected) {
                let expected = Decap { ecn, alarm };
                assert_eq!(decapsulate(inner, outer), expected, "{inner:02b} in {outer:02b}");
                assert_eq!(decapsulate(inner | 0xb8, outer | 0x20), expected);
            }
        }
    }

    /// P21: the forwarded DSCP is the inner one unless the outer one is asked for; ECN is the
    /// merged field either way.
    #[test]
    fn dscp() {
        for inner in 0..=255u8 {
            for outer in [0x00, 0x2d, 0xb9, 0xff] {
                let kept = forwarded_tos(inner, outer, CE, DscpPolicy::KeepInner);
                assert_eq!((kept >> 2, kept & MASK), (inner >> 2, CE));
                let copied = forwarded_tos(inner, outer, ECT1, DscpPolicy::CopyOuter);
                assert_eq!((copied >> 2, copied & MASK), (outer >> 2, ECT1));
            }
        }
        assert_eq!(DscpPolicy::default(), DscpPolicy::KeepInner);
    }
}
