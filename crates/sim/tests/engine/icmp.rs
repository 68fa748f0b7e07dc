//! ICMP errors: through SAs by what they enclose (RFC 4301 section 6.2), about packets of ours
//! (sections 6.1.1 and 8.2.1), and those that the gateway sends, to whom it may.

use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_engine::options::Accepted;
use culvert_engine::options::IcmpKind;
use culvert_esp::Mode;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::plain::link_frame;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;
use culvert_spd::Action;
use culvert_spd::AddressSelector;
use culvert_spd::DefaultAction;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::UpperSelector;

use crate::packets;
use crate::packets::hop;
use crate::packets::packet;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::KNOWN;
use crate::support::LINK;
use crate::support::TestGateway;
use crate::support::arriving;
use crate::support::changed;
use crate::support::ether_type;
use crate::support::fates;
use crate::support::gateway;
use crate::support::gateway_with;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::ordinary;
use crate::support::sample;
use crate::support::through;
use crate::support::turn;

const UNMAPPED: Fate = Fate::Drop(DropReason::IcmpUnmapped);
const IMPLAUSIBLE: Fate = Fate::Drop(DropReason::IcmpError);
const NOTED: Fate = Fate::Drop(DropReason::IcmpNoted);

fn hosts(six: bool) -> (IpAddr, IpAddr) {
    (Scenario::host(A, 0, six, 5), Scenario::host(B, 0, six, 5))
}

/// A router behind A, whose address no policy names.
fn router(six: bool) -> IpAddr {
    if six { "2001:db8:ffff::1" } else { "172.16.0.1" }.parse().unwrap()
}

/// ICMP of a type and code from a router behind A, that encloses a packet.
fn message(to: IpAddr, kind: [u8; 2], enclosed: &[u8]) -> Vec<u8> {
    let between = (router(to.is_ipv6()), to);
    let protocol = if to.is_ipv6() { 58 } else { 1 };
    packet(between, protocol, &packets::icmp(between, kind, 0, enclosed))
}

/// Unreachable, to the sender of the UDP packet that it encloses.
fn unreachable(about: (IpAddr, IpAddr)) -> Vec<u8> {
    let kind = if about.0.is_ipv6() { [1, 0] } else { [3, 1] };
    message(about.0, kind, &packet(about, 17, &packets::udp(about, 20)))
}

fn reversed((one, other): (IpAddr, IpAddr)) -> (IpAddr, IpAddr) {
    (other, one)
}

/// P25: an error of a router that no policy names takes the SA of the return traffic, and the other
/// gateway delivers it as it is.
#[test]
fn errors_go_by_the_sa_of_the_return_traffic() {
    for six in [false, true] {
        let (mut a, mut b) = (gateway(&ordinary(), A), gateway(&ordinary(), B));
        let error = unreachable(reversed(hosts(six)));
        let sealed = one(&mut a, (A, LAN), &error);
        assert_eq!(sample(&a, false).packets, 1);
        assert_eq!(one(&mut b, (B, WAN), &sealed), hop(&hop(&error)));
        assert_eq!(notices(&mut a), []);
    }
}

/// P25: ports are exchanged too, where policy looks at them; at a worker that does not own the SA
/// the error is handed to the one that does.
#[test]
fn errors_go_by_the_ports_that_they_enclose() {
    let ports = |port| PortSelector::Ranges(vec![port..=port]);
    let between = |source, destination| {
        let upper = UpperSelector::Ports { source: ports(source), destination: ports(destination) };
        Selector::new(AddressSelector::Any, AddressSelector::Any, Some(17), upper).unwrap()
    };
    let error = unreachable(reversed(hosts(false)));
    // The enclosed packet goes from 4000 to 4001.
    for (source, destination, fate) in
        [(4001, 4000, None), (4000, 4001, Some(UNMAPPED)), (4001, 4001, Some(UNMAPPED))]
    {
        let scenario = Scenario { workers: vec![2, 1], ..ordinary() };
        let mut a = changed(&scenario, A, |config| {
            let policy = Policy::new(between(source, destination), Action::Protect(Group(0)));
            config.spd.outbound = vec![policy];
        });
        for worker in [0, 1] {
            let sent = turn(&mut a, worker, LAN, &[&arriving(A, LAN, &error)]);
            let later = crate::support::turn_all(&mut a, 0);
            assert_eq!(sent.len() + later.len(), usize::from(fate.is_none()), "{source} {worker}");
        }
        let handed: u64 = a.counters().handed_off;
        assert_eq!(handed, u64::from(fate.is_none()));
        let unmapped = a.counters().dropped(DropReason::IcmpUnmapped);
        assert_eq!(unmapped, if fate.is_some() { 2 } else { 0 });
    }
}

/// P25: where no SA carries the return traffic the error is dropped and audited, and no SA is asked
/// for, be it that no policy matches, that there is no SA, or that the traffic goes in clear.
#[test]
fn errors_without_an_sa_are_audited() {
    for six in [false, true] {
        let (ours, theirs) = hosts(six);
        let clear: IpAddr = if six { "3fff:b::9" } else { "198.51.100.9" }.parse().unwrap();
        let unknown: IpAddr = if six { "2001:db8:b2:77::1" } else { "10.2.77.1" }.parse().unwrap();
        let mut a = gateway(&ordinary(), A);
        let without = |config: &mut GatewayConfig| {
            config.sas.iter_mut().for_each(|sa| sa.group = Group(99));
        };
        let mut lacking = changed(&ordinary(), A, without);
        // What goes to `clear` in clear has a policy of its own.
        let cases =
            [(false, (theirs, router(six))), (false, (unknown, ours)), (true, (theirs, ours))];
        for (lacks_sa, about) in cases {
            let gateway = if lacks_sa { &mut lacking } else { &mut a };
            let error = unreachable(about);
            assert_eq!(none(gateway, (A, LAN), &error), UNMAPPED, "{about:?}");
            let [Notice::Audit(record)] = notices(gateway)[..] else { panic!("one record") };
            assert_eq!(record.reason, DropReason::IcmpUnmapped);
            assert_eq!((record.source, record.destination), (router(six), about.0));
            assert_eq!((record.spi, record.seq), (None, None));
        }
        let bypassed = unreachable((clear, ours));
        assert_eq!(one(&mut a, (A, LAN), &bypassed), hop(&bypassed));
    }
}

/// P25: an error that goes elsewhere than to the sender of what it encloses, one about an error,
/// one that is damaged, and what is no error, are packets like others.
#[test]
fn what_is_no_right_error_is_not_mapped() {
    for six in [false, true] {
        let (ours, theirs) = hosts(six);
        let mut a = gateway(&ordinary(), A);
        let about = packet((theirs, ours), 17, &packets::udp((theirs, ours), 20));
        let (kind, echo) = if six { ([1, 0], [128, 0]) } else { ([3, 1], [8, 0]) };
        let elsewhere = Scenario::host(B, 0, six, 6);
        let mut damaged = message(theirs, kind, &about);
        *damaged.last_mut().unwrap() ^= 1;
        let within = message(ours, kind, &about);
        let source = if six { 8..24 } else { 12..16 };
        let octets: Vec<u8> = match theirs {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let about_error = message(theirs, kind, &with(&within, source.start, &octets));
        let cut = message(theirs, kind, &about[..12]);
        for wrong in [
            message(elsewhere, kind, &about),
            about_error,
            damaged,
            message(theirs, echo, &about),
            cut,
            message(theirs, kind, &[]),
        ] {
            assert_eq!(none(&mut a, (A, LAN), &wrong), Fate::Drop(DropReason::NoPolicy));
        }
        one(&mut a, (A, LAN), &message(theirs, kind, &about));
    }
}

/// P25, P02: a policy that names the error decides: it discards, or protects without a look at what
/// the error encloses, in both directions.
#[test]
fn policies_that_name_errors_decide() {
    let icmp = |action| {
        let (any, errors) = (AddressSelector::Any, UpperSelector::Icmp(0x0300..=0x03ff));
        Policy::new(Selector::new(any.clone(), any, Some(1), errors).unwrap(), action)
    };
    let ours = unreachable(reversed(hosts(false)));
    let foreign = unreachable((hosts(false).1, router(false)));
    let gateways = |action| {
        [A, B].map(|side| {
            changed(&ordinary(), side, |config| {
                config.spd.outbound.insert(0, icmp(action));
                config.spd.inbound.insert(0, icmp(action));
            })
        })
    };
    let [mut a, mut b] = gateways(Action::Discard);
    assert_eq!(none(&mut a, (A, LAN), &ours), Fate::Drop(DropReason::Discard));
    let mut plain = gateway(&ordinary(), A);
    let sealed = one(&mut plain, (A, LAN), &ours);
    assert_eq!(none(&mut b, (B, WAN), &sealed), Fate::Drop(DropReason::Selector));
    let [mut a, mut b] = gateways(Action::Protect(Group(0)));
    for error in [&ours, &foreign] {
        let sealed = one(&mut a, (A, LAN), error);
        assert_eq!(one(&mut b, (B, WAN), &sealed), hop(&hop(error)));
    }
}

/// P25: an error out of an SA is let through to nobody but the sender of what it encloses, and not
/// at all when it is about an error.
#[test]
fn errors_to_others_are_not_let_out() {
    for six in [false, true] {
        let (ours, theirs) = hosts(six);
        let mut a = changed(&ordinary(), A, |config| {
            let any = Policy::new(Selector::ANY, Action::Protect(Group(0)));
            config.spd.outbound = vec![any];
        });
        let mut b = gateway(&ordinary(), B);
        let about = packet((theirs, ours), 17, &packets::udp((theirs, ours), 20));
        let kind = if six { [1, 0] } else { [3, 1] };
        let elsewhere = Scenario::host(B, 0, six, 6);
        let to = |to: IpAddr| message(to, kind, &about);
        let twice = message(theirs, kind, &message(theirs, kind, &about));
        for wrong in [to(elsewhere), to(Scenario::foreign_host(B, six)), twice] {
            let sealed = one(&mut a, (A, LAN), &wrong);
            assert_eq!(none(&mut b, (B, WAN), &sealed), Fate::Drop(DropReason::Selector));
            let records = notices(&mut b);
            let audited = |notice: &&Notice| matches!(notice, Notice::Audit(_));
            assert_eq!(records.iter().filter(audited).count(), 1, "{records:?}");
        }
        let sealed = one(&mut a, (A, LAN), &to(theirs));
        assert_eq!(one(&mut b, (B, WAN), &sealed), hop(&hop(&to(theirs))));
    }
}

/// A gateway that answers, from an address that is not in the tunnel.
fn answering(side: usize, change: impl FnOnce(&mut GatewayConfig)) -> TestGateway {
    changed(&ordinary(), side, |config| {
        config.options.icmp.rate = 100;
        change(config);
    })
}

/// P25, P19: an answer of a gateway without an address of its own (RFC 7600) takes the SA of the
/// return traffic as well.
#[test]
fn answers_go_by_the_sa_of_the_return_traffic() {
    let (mut a, mut b) = (answering(A, |_| {}), answering(B, |_| {}));
    let plain = with(&packet(hosts(false), 17, &packets::udp(hosts(false), 30)), 8, &[2]);
    let sealed = one(&mut a, (A, LAN), &plain);
    let back = one(&mut b, (B, WAN), &sealed);
    assert_eq!(b.counters().dropped(DropReason::Ttl), 1);
    assert_eq!(back[9], 50, "it is sealed");
    let told = one(&mut a, (A, WAN), &back);
    assert_eq!((&told[12..20], &told[20..22]), (&[192, 0, 0, 8, 10, 1, 0, 5][..], &[11, 0][..]));
}

/// An answer quotes what came out of an SA: it never leaves in clear, whatever policy says of the
/// address that it comes from.
#[test]
fn answers_about_decrypted_packets_never_leave_in_clear() {
    let mut a = answering(A, |_| {});
    let mut b = answering(B, |config| config.spd.default = DefaultAction::Bypass);
    let plain = with(&packet(hosts(false), 17, &packets::udp(hosts(false), 30)), 8, &[2]);
    let sealed = one(&mut a, (A, LAN), &plain);
    assert_eq!(none(&mut b, (B, WAN), &sealed), Fate::Drop(DropReason::Ttl));
    assert_eq!((b.counters().made, b.counters().bypassed), (0, 0));
}

/// There is no error about a frame to all stations of a link, nor to a group (RFC 1122 section
/// 3.2.2).
#[test]
fn frames_to_groups_are_not_answered() {
    let mut a = answering(A, |config| config.ports.iter_mut().for_each(|port| port.mac = None));
    let ended = with(&packet(hosts(false), 17, &packets::udp(hosts(false), 30)), 8, &[1]);
    let group = culvert_wire::ethernet::Mac([1, 0, 0x5e, 0, 0, 5]);
    let all = culvert_wire::ethernet::Mac([0xff; 6]);
    let (us, host) = (gateway_mac(A, LAN), host_mac(A));
    for (to, from, answers) in
        [(us, host, 1), (all, host, 0), (group, host, 0), (us, all, 0), (us, group, 0)]
    {
        let frame = link_frame(to, from, None, ether_type(&ended), &ended);
        assert_eq!(turn(&mut a, 0, LAN, &[&frame]).len(), answers, "{to:?} {from:?}");
        assert_eq!(fates(&a), [Fate::Drop(DropReason::Ttl)]);
    }
}

/// Packets that waited for a neighbour, and then do not fit its link, are answered: through the SA
/// they came from, or in clear as they came.
#[test]
fn held_packets_that_do_not_fit_are_answered() {
    for six in [false, true] {
        let mut scenario = ordinary();
        scenario.wan_mtu = 1280;
        let here = hosts(six).0;
        let us: IpAddr = if six { "2001:db8:a1::fe" } else { "10.1.0.254" }.parse().unwrap();
        let options = |config: &mut GatewayConfig| {
            config.options.icmp.rate = 100;
            config.options.icmp.source_v4 = Some([10, 1, 0, 254].into());
            config.options.icmp.source_v6 = Some("2001:db8:a1::fe".parse().unwrap());
        };
        let clear: IpAddr = if six { "3fff:b::9" } else { "198.51.100.9" }.parse().unwrap();
        let pair = (here, clear);
        let plain = packet(pair, 17, &packets::udp(pair, 1300));
        let plain = if six { plain } else { with(&plain, 6, &[0x40]) };
        let nobody = scenario.next_hops(A, [true, true, false, false]);
        let mut a = gateway_with(&scenario, A, nobody, options);
        assert_eq!(none(&mut a, (A, LAN), &plain), Fate::Held);
        a.controller.set_next_hops(scenario.next_hops(A, KNOWN));
        let mut sent = Vec::new();
        for _ in 0..4 {
            a.controller.poll().unwrap();
            sent.extend(crate::support::turn_all(&mut a, 0));
        }
        assert_eq!(sent.len(), 1);
        let kind: &[u8] = if six { &[2, 0] } else { &[3, 4] };
        let answer = &sent[0][LINK..];
        let (source, at) = if six { (8..40, 40) } else { (12..20, 20) };
        let expected = packet((us, here), 17, &[]);
        assert_eq!((&answer[source.clone()], &answer[at..at + 2]), (&expected[source], kind));
        assert_eq!(a.counters().dropped(DropReason::TooBig), 1);
    }
}

/// An unauthenticated error about one of A's packets, from a router on the path.
fn path_error(about: &[u8], kind: [u8; 2], word: u32) -> Vec<u8> {
    let (to, from): (IpAddr, IpAddr) = if about[0] >> 4 == 6 {
        let to = <[u8; 16]>::try_from(&about[8..24]).unwrap();
        (to.into(), "2001:db8:ff::99".parse().unwrap())
    } else {
        (<[u8; 4]>::try_from(&about[12..16]).unwrap().into(), [192, 0, 2, 99].into())
    };
    let quoted = &about[..about.len().min(if to.is_ipv6() { 80 } else { 40 })];
    let protocol = if to.is_ipv6() { 58 } else { 1 };
    packet((from, to), protocol, &packets::icmp((from, to), kind, word, quoted))
}

fn large(six: bool) -> Vec<u8> {
    let plain = packet(hosts(six), 17, &packets::udp(hosts(six), 1350));
    if six { plain } else { with(&plain, 6, &[0x40]) }
}

/// P24: each kind of errors about our packets is accepted or rejected by itself; what is accepted
/// lowers the path MTU, or is told to control, at a bounded rate, and changes nothing.
#[test]
fn kinds_of_errors_are_accepted_by_configuration() {
    let kinds = [
        (IcmpKind::PacketTooBig, [3, 4], [2, 0]),
        (IcmpKind::DestinationUnreachable, [3, 3], [1, 4]),
        (IcmpKind::TimeExceeded, [11, 1], [3, 0]),
        (IcmpKind::ParameterProblem, [12, 0], [4, 1]),
    ];
    for six in [false, true] {
        let scenario = Scenario::quiet(vec![Tunnel::ordinary(0).with_outer(six)]);
        for (accepted, v4, v6) in kinds {
            let mut a = changed(&scenario, A, |config| {
                config.options.icmp.accepted = Accepted::NONE.and(accepted);
            });
            let sent = one(&mut a, (A, LAN), &large(false));
            for (kind, other_v4, other_v6) in kinds {
                let icmp = if six { other_v6 } else { other_v4 };
                let fate = none(&mut a, (A, WAN), &path_error(&sent, icmp, 1300));
                let expected = match kind == accepted {
                    false => IMPLAUSIBLE,
                    true if kind == IcmpKind::PacketTooBig => Fate::Drop(DropReason::PathMtu),
                    true => NOTED,
                };
                assert_eq!(fate, expected, "{accepted:?} {icmp:?}");
            }
            let spi = scenario.tunnels[0].spi[A].value();
            let reporter: IpAddr =
                if six { "2001:db8:ff::99" } else { "192.0.2.99" }.parse().unwrap();
            let told = match accepted {
                IcmpKind::PacketTooBig => Notice::PathMtu { slot: 0, spi, mtu: Some(1300) },
                _ => Notice::IcmpError { slot: 0, spi, reporter, kind: if six { v6 } else { v4 } },
            };
            assert_eq!(notices(&mut a), [told]);
            let mtu = (accepted == IcmpKind::PacketTooBig).then_some(1300);
            assert_eq!(sample(&a, false).path_mtu, mtu);
        }
        let mut a = gateway(&scenario, A);
        let sent = one(&mut a, (A, LAN), &large(false));
        let error = path_error(&sent, if six { [1, 0] } else { [3, 0] }, 0);
        (0..50).for_each(|_| assert_eq!(none(&mut a, (A, WAN), &error), NOTED));
        assert_eq!(notices(&mut a).len(), 10, "a bounded rate");
        // Source quench is never heeded (RFC 6633 section 3).
        if !six {
            assert_eq!(none(&mut a, (A, WAN), &path_error(&sent, [4, 0], 0)), IMPLAUSIBLE);
        }
    }
}

/// P24: the least path MTU that is believed can be set for each SA; without one it is 576 over
/// IPv4. Over IPv6 an error that says less than 1280 is not heeded at all (RFC 8201 section 4), and
/// over IPv4 one that says nothing means the next of the usual MTUs (RFC 1191 section 5).
#[test]
fn path_mtus_have_a_floor() {
    for (six, floor, said, believed) in [
        (false, None, 68, Some(576)),
        (false, None, 1, Some(576)),
        (false, None, 0, Some(1006)),
        (false, Some(300), 68, Some(300)),
        (false, Some(1400), 68, Some(1400)),
        (false, Some(1400), 0, Some(1400)),
        (true, None, 1280, Some(1280)),
        (true, None, 1279, None),
        (true, None, 68, None),
        (true, None, 0, None),
        (true, Some(1380), 1280, Some(1380)),
    ] {
        let scenario = Scenario::quiet(vec![Tunnel::ordinary(0).with_outer(six)]);
        let mut a = changed(&scenario, A, |config| {
            config.sas.iter_mut().for_each(|sa| sa.sending.path_mtu_floor = floor);
        });
        let sent = one(&mut a, (A, LAN), &large(false));
        let error = path_error(&sent, if six { [2, 0] } else { [3, 4] }, said);
        let fate = none(&mut a, (A, WAN), &error);
        let noted = Fate::Drop(DropReason::PathMtu);
        assert_eq!(fate, if believed.is_some() { noted } else { IMPLAUSIBLE }, "{six} {said}");
        assert_eq!(sample(&a, false).path_mtu, believed, "{six} {said}");
    }
}

/// P24: an error about AH says nothing of an ESP SA with the same SPI.
#[test]
fn errors_name_the_protocol() {
    let mut a = gateway(&ordinary(), A);
    let sent = one(&mut a, (A, LAN), &large(false));
    let ah = [&[50, 5, 0, 0][..], &sent[20..28], &[0; 16]].concat();
    let about = with(&sent, 9, &[51]);
    let error = path_error(&[&about[..20], &ah].concat(), [3, 4], 1300);
    assert_eq!(none(&mut a, (A, WAN), &error), IMPLAUSIBLE);
    assert_eq!(
        none(&mut a, (A, WAN), &path_error(&sent, [3, 4], 1300)),
        Fate::Drop(DropReason::PathMtu)
    );
}

/// P24: errors about IPsec of others, under way through the gateway in clear, go as policy says.
#[test]
fn errors_in_transit_go_as_policy_says() {
    for six in [false, true] {
        let far: IpAddr = if six { "3fff:b::9" } else { "198.51.100.9" }.parse().unwrap();
        let host = hosts(six).0;
        let esp = packet((host, far), 50, &[7; 60]);
        let error = path_error(&esp, if six { [2, 0] } else { [3, 4] }, 1300);
        let mut strict = gateway(&ordinary(), A);
        assert_eq!(none(&mut strict, (A, WAN), &error), IMPLAUSIBLE);
        let policy = |action| {
            changed(&ordinary(), A, |config| {
                config.spd.inbound.insert(0, Policy::new(Selector::ANY, action));
            })
        };
        let mut a = policy(Action::Bypass);
        assert_eq!(one(&mut a, (A, WAN), &error), hop(&error));
        assert_eq!(a.counters().bypassed, 1);
        for (action, reason) in [
            (Action::Protect(Group(0)), DropReason::Plaintext),
            (Action::Discard, DropReason::Discard),
        ] {
            assert_eq!(none(&mut policy(action), (A, WAN), &error), Fate::Drop(reason));
        }
    }
}

/// P23, P28: an error names the outermost SA of a bundle: what its path carries counts for packets
/// of the bundle, and the host is told what is left inside.
#[test]
fn bundles_keep_to_the_path_of_the_outermost_sa() {
    let sa = |index, algorithm| Tunnel::ordinary(index).with_algorithm(algorithm);
    let esp = sa(0, Algorithm::NullSha256);
    let ah = Tunnel { outer: esp.outer, ..sa(1, Algorithm::AhSha256).with_mode(Mode::Transport) };
    let scenario = Scenario::quiet(vec![esp, ah]);
    let mut a = changed(&scenario, A, |config| {
        config.options.icmp.rate = 100;
        config.bundles = vec![(Group(9), vec![Group(0), Group(1)])];
        let any = Policy::new(Selector::ANY, Action::Protect(Group(9)));
        config.spd.outbound = vec![any];
    });
    let sent = one(&mut a, (A, LAN), &large(false));
    assert_eq!(sent[9], 51, "AH is around it");
    let error = path_error(&sent, [3, 4], 1300);
    assert_eq!(none(&mut a, (A, WAN), &error), Fate::Drop(DropReason::PathMtu));
    let answer = one(&mut a, (A, LAN), &large(false));
    let told = usize::from(u16::from_be_bytes([answer[26], answer[27]]));
    let fitting = packet(hosts(false), 17, &packets::udp(hosts(false), told - 28));
    let fitting = one(&mut a, (A, LAN), &with(&fitting, 6, &[0x40]));
    assert!(fitting.len() <= 1300 && fitting.len() + 4 > 1300, "{}", fitting.len());
}

/// P23: in transport mode over IPv6 the host is the source of the packet: one that does not fit is
/// answered, and only one of 1280 octets or less, which the host cannot make smaller, goes in
/// fragments.
#[test]
fn transport_mode_over_v6_is_answered() {
    let ends = [hosts(true).0, hosts(true).1];
    let tunnel = Tunnel { outer: ends, ..Tunnel::ordinary(0).with_mode(Mode::Transport) };
    let scenario = Scenario { wan_mtu: 1400, ..Scenario::quiet(vec![tunnel]) };
    let mut a = changed(&scenario, A, |config| {
        config.options.icmp.rate = 100;
        config.options.icmp.source_v6 = Some("2001:db8:a1::fe".parse().unwrap());
    });
    let sized = |len: usize| packet(hosts(true), 17, &packets::udp(hosts(true), len - 48));
    let answer = one(&mut a, (A, LAN), &sized(1390));
    assert_eq!(answer[40..42], [2, 0]);
    let told = u32::from_be_bytes(*answer[44..48].first_chunk().unwrap()) as usize;
    let sent = one(&mut a, (A, LAN), &sized(told));
    assert!(sent.len() <= 1400 && sent.len() + 4 > 1400, "{}", sent.len());
    // Where 1280 octets do not fit either.
    let narrow = Scenario { wan_mtu: 1280, ..scenario };
    let mut a = gateway(&narrow, A);
    let sent = through(&mut a, (A, LAN), &[&sized(1280)]);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|packet| packet.len() <= 1280 && packet[6] == 44));
}
