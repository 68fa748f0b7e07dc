//! What an inbound SA knows of the flow whose packet came out of it last: it serves that flow only,
//! and not beyond a change of policies or next hops.

use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_sim::plain::Plain;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::WAN;
use culvert_wire::ip;

use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::TestGateway;
use crate::support::fates;
use crate::support::gateway;
use crate::support::ordinary;
use crate::support::plain;
use crate::support::sealed;
use crate::support::text;
use crate::support::to_host;
use crate::support::turn;

/// Gives a packet to `b` through its SA; what comes out, and its fate.
fn open(
    scenario: &Scenario,
    b: &mut TestGateway,
    (seq, plain): (u64, &Plain),
) -> (Vec<Vec<u8>>, Fate) {
    let family = if plain.source.is_ipv4() { ip::PROTOCOL_IPIP } else { ip::PROTOCOL_IPV6 };
    let frame = sealed(scenario, A, seq, &text(&plain.packet(), family));
    (turn(b, 0, WAN, &[&frame]), fates(b)[0])
}

/// P01: policies that no longer admit a flow stop it at its next packet, and those that admit it
/// again let it through.
#[test]
fn policies_that_change_are_heard() {
    for six in [false, true] {
        let scenario = ordinary();
        let mut b = gateway(&scenario, B);
        let plain = plain(A, six, 7);
        for seq in [1, 2] {
            // It was made here, and so has one hop behind it and not two.
            let sent = Plain { ttl: plain.ttl + 1, ..plain };
            let expected = (vec![to_host(B, &sent)], Fate::Forward(LAN));
            assert_eq!(open(&scenario, &mut b, (seq, &plain)), expected);
        }
        let mut spd = scenario.policies(B);
        spd.inbound.clear();
        for (seq, spd, admitted) in [(3, &spd, false), (4, &scenario.policies(B), true)] {
            b.controller.set_policies(spd);
            b.settle().unwrap();
            let fate = match admitted {
                true => Fate::Forward(LAN),
                false => Fate::Drop(DropReason::Selector),
            };
            assert_eq!(open(&scenario, &mut b, (seq, &plain)).1, fate, "IPv6 {six}");
        }
    }
}

/// A host whose neighbour entry goes is waited for, although the flow had its link header.
#[test]
fn next_hops_that_change_are_heard() {
    for six in [false, true] {
        let scenario = ordinary();
        let mut b = gateway(&scenario, B);
        let plain = plain(A, six, 7);
        let known = [(1, KNOWN, 1), (2, KNOWN, 1), (3, [false; 4], 0), (4, KNOWN, 2)];
        for (seq, known, sent) in known {
            b.controller.set_next_hops(scenario.next_hops(B, known));
            b.settle().unwrap();
            let (frames, _) = open(&scenario, &mut b, (seq, &plain));
            let held = usize::from(seq == 3);
            assert_eq!((frames.len(), b.workers[0].held()), (sent, held), "IPv6 {six}");
        }
    }
}

/// P09: packets of other addresses, either of them, are none of the flow, and those of the flow
/// that are unusual are treated as ever.
#[test]
fn nothing_else_is_let_through() {
    for six in [false, true] {
        let scenario = ordinary();
        let mut b = gateway(&scenario, B);
        let plain = plain(A, six, 7);
        let foreign = |side| Scenario::foreign_host(side, six);
        let cases = [
            (plain, Fate::Forward(LAN)),
            (plain, Fate::Forward(LAN)),
            (Plain { source: foreign(A), ..plain }, Fate::Drop(DropReason::Selector)),
            (Plain { destination: foreign(B), ..plain }, Fate::Drop(DropReason::Selector)),
            (Plain { ttl: 1, ..plain }, Fate::Drop(DropReason::Ttl)),
            (Plain { payload_len: 1600, ..plain }, Fate::Drop(DropReason::TooBig)),
            (plain, Fate::Forward(LAN)),
        ];
        for (seq, (plain, fate)) in (1..).zip(&cases) {
            assert_eq!(open(&scenario, &mut b, (seq, plain)).1, *fate, "IPv6 {six}, {seq}");
        }
    }
}
