//! What the XDP program attracts against what the engine sees in the same frame.

mod packets;

use culvert_fuzz::changed;
use culvert_fuzz::repair;
use culvert_fuzz::target;
use culvert_steer::PrefixValue;
use culvert_steer::Prefixes;
use culvert_steer::Recent;
use culvert_steer::header::EXTENSION_HEADERS_MAX;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;

/// No destination is protected, or every one is.
struct Everywhere(Option<PrefixValue>);

impl Prefixes for Everywhere {
    fn match4(&self, _: [u8; 4]) -> Option<PrefixValue> {
        self.0
    }

    fn match6(&self, _: [u8; 16]) -> Option<PrefixValue> {
        self.0
    }
}

/// U04, U05: what the engine takes for IPsec is attracted, IKE and keepalives are not. Fragments
/// that do not name ESP or AH, and runts that may be IKE's, are for the XDP program to judge.
#[test]
fn steering_agrees_with_the_engine() {
    target!().for_each(|input: &[u8]| {
        let mut frame = changed(packets::frames(), input);
        if input.last().is_none_or(|octet| octet % 4 != 0) {
            repair(&mut frame, 14);
        }
        let frame = frame.as_slice();
        let decide = |protected| {
            let prefixes = Everywhere(protected);
            culvert_steer::unprotected(frame, &prefixes, &mut Recent::<4>::new()).redirect()
        };
        let attracted = decide(None);
        _ = culvert_steer::protected(frame, &Everywhere(Some(PrefixValue::protected(0))));
        assert!(!attracted || decide(Some(PrefixValue::own(32))));
        let Ok(class) = esp::classify(frame) else {
            return;
        };
        match class {
            Unprotected::Esp(outer) | Unprotected::Ah(outer) => {
                // An extension header has 8 octets at least, and a few of them are followed.
                let len = outer.esp_at - outer.ip_at;
                assert!(attracted || len > 40 + 8 * EXTENSION_HEADERS_MAX);
            }
            Unprotected::Fragment(part) => {
                assert!(attracted || !matches!(part.protocol, 50 | 51));
            }
            Unprotected::Ike | Unprotected::Keepalive => assert!(!attracted),
            _ => {}
        }
    });
}
