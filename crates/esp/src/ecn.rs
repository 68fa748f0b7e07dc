//! Explicit congestion notification through a tunnel (RFC 6040, RFC 4301 section 5.1.2.1).
//!
//! Encapsulation copies the field (normal mode). Decapsulation merges outer and inner as the table
//! in RFC 6040 section 4.2 says.

/// The two ECN bits of a TOS or traffic class octet.
pub const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT1: u8 = 0b01;
const ECT0: u8 = 0b10;
const CE: u8 = 0b11;

/// The ECN field of the forwarded packet; `None` when the packet must be dropped: congestion was
/// marked on the way, and the inner transport cannot understand the mark.
///
/// Both arguments may be whole TOS octets; only their ECN bits count.
#[inline]
#[must_use]
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) | (CE, _) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C03 to C06: the whole table of RFC 6040 section 4.2, rows by inner field.
    #[test]
    fn table() {
        let columns = [NOT_ECT, ECT0, ECT1, CE];
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in columns.into_iter().zip(expected) {
                assert_eq!(decapsulate(inner, outer), expected, "{inner:02b} in {outer:02b}");
                assert_eq!(decapsulate(inner | 0xb8, outer | 0x20), expected);
            }
        }
    }
}
