//! What the XDP program attracts against what the engine sees in the same frame.

mod packets;

use std::net::IpAddr;

use culvert_fuzz::changed;
use culvert_fuzz::repair;
use culvert_fuzz::target;
use culvert_steer::Class;
use culvert_steer::PrefixValue;
use culvert_steer::Prefixes;
use culvert_steer::Recent;
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::extension;
use culvert_wire::icmp::Reported;
use culvert_wire::ip;

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

/// The class that steering has to find where no destination is protected and nothing was
/// remembered, for what the engine finds; `None` where the two may differ:
///
/// - of fragments of UDP, and those with destination options, the engine learns more when they are
///   put together;
/// - an ICMP error is steered by less than the engine looks at, and the kernel keeps those that
///   tell no path MTU;
/// - a packet that a routing header sends on is plaintext to the engine, which gets it.
fn expected(class: &Unprotected) -> Option<Class> {
    let six = |address: IpAddr| address.is_ipv6();
    Some(match class {
        Unprotected::Esp(outer) if outer.encapsulated && six(outer.source) => Class::UdpEsp6,
        Unprotected::Esp(outer) if outer.encapsulated => Class::UdpEsp4,
        Unprotected::Esp(outer) if six(outer.source) => Class::Esp6,
        Unprotected::Esp(_) => Class::Esp4,
        Unprotected::Ah(outer) if six(outer.source) => Class::Ah6,
        Unprotected::Ah(_) => Class::Ah4,
        Unprotected::Keepalive => Class::Keepalive,
        Unprotected::Ike => Class::Ike,
        Unprotected::Runt => Class::Runt,
        Unprotected::Fragment(part) if matches!(part.protocol, 50 | 51) => Class::IpsecFragment,
        Unprotected::Fragment(part) if part.protocol == 17 && part.offset > 0 => Class::Fragment,
        Unprotected::IcmpError(error) if matches!(error.reported, Reported::TooBig { .. }) => {
            let sent = error.ports.is_none_or(|(source, _)| source == esp::NAT_TRAVERSAL_PORT);
            return sent.then_some(Class::IcmpError);
        }
        Unprotected::Other => Class::Other,
        _ => return None,
    })
}

/// True for an IPv6 packet that has extension headers.
fn has_extensions(packet: &ip::Packet) -> bool {
    matches!(packet, ip::Packet::V6(header) if extension::is_extension(header.next_header))
}

/// U04, U05: steering and the engine find the same in a frame, class by class; what the engine
/// takes for plaintext is not taken for IPsec.
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
            culvert_steer::unprotected(frame, &prefixes, &mut Recent::<4>::new())
        };
        let found = decide(None);
        _ = culvert_steer::protected(frame, &Everywhere(Some(PrefixValue::protected(0))));
        assert!(!found.redirect() || decide(Some(PrefixValue::own(32))).redirect());
        let Ok(class) = esp::classify(frame) else {
            return;
        };
        if let Some(expected) = expected(&class) {
            assert_eq!(found.class, expected, "{class:?}: {frame:02x?}");
        }
        match class {
            Unprotected::Fragment(part) => {
                let fragment = matches!(found.class, Class::IpsecFragment | Class::Fragment);
                assert!(fragment || found.class == Class::Short, "{part:?}: {frame:02x?}");
            }
            Unprotected::Plain(packet) if !has_extensions(&packet) => {
                let ours = found.redirect() && found.class != Class::IcmpError;
                assert!(!ours, "{:?}: {frame:02x?}", found.class);
                assert!(!matches!(found.class, Class::Ike | Class::Keepalive));
                // Whatever it is: where policy protects its destination, the engine judges it.
                assert!(decide(Some(PrefixValue::protected(32))).redirect());
            }
            _ => {}
        }
    });
}
