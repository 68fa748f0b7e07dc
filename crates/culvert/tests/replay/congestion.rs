//! ECN out of a tunnel (RFC 6040 section 4.2).

use culvert_sim::plain::Plain;

use crate::packets::Sa;
use crate::packets::config;
use crate::packets::forwarded;
use crate::packets::with_tos;
use crate::support::replay;

const NOT_ECT: u8 = 0;
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// Columns of the table: the outer field.
const OUTER: [u8; 4] = [NOT_ECT, ECT0, ECT1, CE];

/// Rows: the inner field, and what is forwarded; `None` where the packet is dropped.
const TABLE: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
    (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

/// The whole table in all four pairs of families. The inner DSCP stays whatever the outer one is,
/// and the inner header checksum is right. // C03 C04 C05 C06 C08 P21
#[test]
fn outer_congestion_marks_come_through() {
    for outer_six in [false, true] {
        for six in [false, true] {
            let sa = Sa { six: outer_six, ..Sa::inbound() };
            let dscp = 0b1011_1000;
            let mut packets = Vec::new();
            let mut outcomes = Vec::new();
            let mut expected = Vec::new();
            for (inner, row) in TABLE {
                for (outer, result) in OUTER.into_iter().zip(row) {
                    let plain = |ecn| Plain { tos: dscp | ecn, ..sa.plain(six, 1) }.packet();
                    let seq = u64::try_from(packets.len() + 1).unwrap();
                    packets.push(with_tos(&sa.packet(seq, &plain(inner)), 0b0010_1000 | outer));
                    outcomes.push(if result.is_some() { "forward" } else { "ecn" });
                    expected.extend(result.map(|ecn| forwarded(&plain(ecn))));
                }
            }
            let run = replay(&config(&[sa]), &[], &packets);
            assert_eq!(run.outcomes(), outcomes);
            let sent: Vec<_> = run.protected.into_iter().map(|(_, packet)| packet).collect();
            assert_eq!(sent, expected, "outer IPv6 {outer_six}, inner IPv6 {six}");
        }
    }
}
