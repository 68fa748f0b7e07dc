//! Selectors: what policies and SAs see of a packet, and what does not pass them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use culvert_aead::Algorithm;
use culvert_engine::DropReason;
use culvert_engine::Fate;
use culvert_engine::Notice;
use culvert_sim::gateway::GatewayConfig;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_spd::Action;
use culvert_spd::AddressSelector;
use culvert_spd::DefaultAction;
use culvert_spd::Group;
use culvert_spd::Pfp;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::Upper;
use culvert_spd::UpperSelector;

use crate::packets;
use crate::packets::hop;
use crate::packets::null_esp;
use crate::packets::packet;
use crate::packets::packet_with;
use crate::packets::with;
use crate::support::A;
use crate::support::B;
use crate::support::TestGateway;
use crate::support::changed;
use crate::support::gateway;
use crate::support::none;
use crate::support::notices;
use crate::support::one;
use crate::support::ordinary;
use crate::support::through;

const PROTECT: Action = Action::Protect(Group(0));
const NO_POLICY: Fate = Fate::Drop(DropReason::NoPolicy);

fn hosts(six: bool) -> (IpAddr, IpAddr) {
    (Scenario::host(A, 0, six, 5), Scenario::host(B, 0, six, 5))
}

fn upper(protocol: u8, upper: UpperSelector) -> Selector {
    Selector::new(AddressSelector::Any, AddressSelector::Any, Some(protocol), upper).unwrap()
}

fn to_ports(ports: RangeInclusive<u16>) -> UpperSelector {
    let destination = PortSelector::Ranges(vec![ports]);
    UpperSelector::Ports { source: PortSelector::Any, destination }
}

/// A with one outbound policy and no other.
fn only(selector: Selector) -> TestGateway {
    changed(&ordinary(), A, |config| config.spd.outbound = vec![Policy::new(selector, PROTECT)])
}

fn tcp_to(port: u16) -> Vec<u8> {
    let mut segment = packets::tcp(hosts(false), 16, &[], &[1; 8]);
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    packet(hosts(false), 6, &segment)
}

/// P05: a policy with a protocol and nothing else admits that protocol only.
#[test]
fn protocol_alone() {
    let mut a = only(upper(6, UpperSelector::Any));
    one(&mut a, (A, LAN), &tcp_to(80));
    let udp = packet(hosts(false), 17, &packets::udp(hosts(false), 8));
    assert_eq!(none(&mut a, (A, LAN), &udp), NO_POLICY);
    one(&mut a, (A, LAN), &tcp_to(81));
}

/// P05: port ranges are exact at both ends, through the cache too.
#[test]
fn ports() {
    let mut a = only(upper(6, to_ports(80..=88)));
    for _ in 0..2 {
        for port in [0, 79, 80, 84, 88, 89, 0xffff] {
            let sent = through(&mut a, (A, LAN), &[&tcp_to(port)]).len();
            assert_eq!(sent, usize::from((80..=88).contains(&port)), "port {port}");
        }
    }
}

/// P05, P06: ICMP type and code are one number, type * 256 + code, of both families.
#[test]
fn icmp_type_and_code() {
    for (six, protocol) in [(false, 1), (true, 58)] {
        let mut a = only(upper(protocol, UpperSelector::Icmp(0x0803..=0x0a01)));
        for (kind, admitted) in
            [([8, 2], false), ([8, 3], true), ([9, 255], true), ([10, 1], true), ([10, 2], false)]
        {
            let message = packets::icmp(hosts(six), kind, 0, &[1; 8]);
            let plain = packet(hosts(six), protocol, &message);
            let sent = through(&mut a, (A, LAN), &[&plain]).len();
            assert_eq!(sent, usize::from(admitted), "{kind:?}");
        }
    }
}

/// P05: the type of a mobility header.
#[test]
fn mobility_type() {
    let mut a = only(upper(135, UpperSelector::Mobility(5..=6)));
    for (kind, admitted) in [(4, false), (5, true), (6, true), (7, false)] {
        let plain = packet(hosts(true), 135, &[59, 1, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(through(&mut a, (A, LAN), &[&plain]).len(), usize::from(admitted), "{kind}");
    }
}

/// The non-first fragment of UDP of a family.
fn later_fragment(six: bool) -> Vec<u8> {
    match six {
        false => with(&packet(hosts(six), 17, &[0xaa; 16]), 6, &[0, 5]),
        true => packet_with(hosts(six), &[17, 0, 0, 40, 0, 0, 0, 9], 44, &[0xaa; 16]),
    }
}

/// P05, P08, U15, P22: a fragment that is not the first has no ports: a policy with ANY ports
/// admits it, and so does OPAQUE, or one that says so; one with a range of ports does not, nor does
/// OPAQUE admit what shows its ports. In a tunnel fragments are carried as they are.
#[test]
fn later_fragments() {
    for six in [false, true] {
        let whole = packet(hosts(six), 17, &packets::udp(hosts(six), 8));
        let cases = [
            (upper(17, UpperSelector::Any), true, true),
            (upper(17, UpperSelector::Opaque), true, false),
            (upper(17, to_ports(4000..=4001)), false, true),
            (upper(17, to_ports(4000..=4001)).with_fragments_too(true), true, true),
            (upper(17, to_ports(80..=80)).with_fragments_too(true), true, false),
            (upper(6, UpperSelector::Any), false, false),
        ];
        for (case, (selector, later, first)) in (1..).zip(cases) {
            let mut a = only(selector);
            let mut b = gateway(&ordinary(), B);
            let sent = through(&mut a, (A, LAN), &[&later_fragment(six)]);
            assert_eq!(sent.len(), usize::from(later), "case {case}, six {six}");
            for packet in sent {
                let carried = one(&mut b, (B, WAN), &packet);
                assert_eq!(carried, hop(&hop(&later_fragment(six))));
            }
            assert_eq!(through(&mut a, (A, LAN), &[&whole]).len(), usize::from(first), "{case}");
        }
    }
}

/// A tunnel whose packets can be made by hand, B's end of it, and how to make one.
fn receiver(change: impl FnOnce(&mut GatewayConfig)) -> (Tunnel, TestGateway) {
    let tunnel = Tunnel::ordinary(0).with_algorithm(Algorithm::NullSha256);
    let scenario = Scenario::quiet(vec![tunnel.clone()]);
    (tunnel, changed(&scenario, B, change))
}

fn sealed(tunnel: &Tunnel, seq: u32, inner: &[u8]) -> Vec<u8> {
    let next = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let esp = null_esp((tunnel.spi[A].value(), &tunnel.keymat[A]), seq, None, (inner, next));
    packet((tunnel.outer[A], tunnel.outer[B]), 50, &esp)
}

/// P09: an authentic packet whose inner source, destination, or port is not one of the SA's
/// own selectors is dropped, although a policy would admit it; so is one whom no policy admits. The
/// SA counts them, and its number is spent.
#[test]
fn the_very_sa_is_checked() {
    let source = culvert_spd::AddressRange::from(hosts(false).0);
    let own = Selector::new(source.into(), AddressSelector::Any, Some(17), to_ports(4001..=4001));
    let (tunnel, mut b) = receiver(|config| {
        for sa in &mut config.sas {
            sa.selectors = vec![own.clone().unwrap()];
        }
    });
    let selector = Fate::Drop(DropReason::Selector);
    let good = packet(hosts(false), 17, &packets::udp(hosts(false), 8));
    let neighbour = (Scenario::host(A, 0, false, 6), hosts(false).1);
    let cases = [
        packet(neighbour, 17, &packets::udp(neighbour, 8)),
        with(&good, 22, &[0x0f, 0xa2]),
        packet(hosts(false), 6, &packets::tcp(hosts(false), 16, &[], &[])),
        packet(
            (Scenario::foreign_host(A, false), hosts(false).1),
            17,
            &packets::udp(hosts(false), 8),
        ),
    ];
    for (seq, inner) in (1..).zip(&cases) {
        assert_eq!(none(&mut b, (B, WAN), &sealed(&tunnel, seq, inner)), selector, "{seq}");
    }
    assert_eq!(one(&mut b, (B, WAN), &sealed(&tunnel, 5, &good)), hop(&good));
    let sample = crate::support::sample(&b, true);
    assert_eq!(sample.dropped[DropReason::Selector as usize], 4);
    assert_eq!((sample.sequence, sample.packets), (5, 5));
    assert_eq!(none(&mut b, (B, WAN), &sealed(&tunnel, 2, &good)), Fate::Drop(DropReason::Replay));
}

/// P09, P29: each such packet is counted, and recorded within the rate.
#[test]
fn refused_selectors_are_news() {
    let (tunnel, mut b) = receiver(|_| {});
    let foreign = (Scenario::foreign_host(A, false), hosts(false).1);
    let inner = packet(foreign, 17, &packets::udp(foreign, 8));
    for seq in 1..=300 {
        none(&mut b, (B, WAN), &sealed(&tunnel, seq, &inner));
    }
    let records: Vec<_> = notices(&mut b)
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::Audit(record) => Some((record.reason, record.spi, record.seq)),
            _ => None,
        })
        .collect();
    let spi = Some(tunnel.spi[A].value());
    let expected = (1..=100).map(|seq| (DropReason::Selector, spi, Some(seq)));
    assert_eq!(records, expected.collect::<Vec<_>>());
    assert_eq!(b.counters().dropped(DropReason::Selector), 300);
}

/// P25: an ICMP error out of a tunnel, from a router that no selector names, passes unless that is
/// switched off, if the packet it encloses is one of the SA's traffic in the other direction.
#[test]
fn enclosed_errors() {
    for six in [false, true] {
        let (host_a, host_b) = hosts(six);
        let router: IpAddr = if six { "2001:db8:ffff::1" } else { "172.16.0.1" }.parse().unwrap();
        let protocol = if six { 58 } else { 1 };
        let kind = if six { [1, 0] } else { [3, 1] };
        let error = |about: (IpAddr, IpAddr)| {
            let enclosed = packet(about, 17, &packets::udp(about, 20));
            packet((router, host_b), protocol, &packets::icmp((router, host_b), kind, 0, &enclosed))
        };
        let selector = Fate::Drop(DropReason::Selector);
        let (tunnel, mut strict) = receiver(|config| {
            config.sas.iter_mut().for_each(|sa| sa.receiving.enclosed_errors = false);
        });
        let ours = error((host_b, host_a));
        assert_eq!(none(&mut strict, (B, WAN), &sealed(&tunnel, 1, &ours)), selector);
        let (tunnel, mut b) = receiver(|_| {});
        assert_eq!(one(&mut b, (B, WAN), &sealed(&tunnel, 1, &ours)), hop(&ours));
        let foreign = Scenario::foreign_host(A, six);
        let reversed = error((host_a, host_b));
        for (seq, bad) in (2..).zip([error((host_b, foreign)), error((foreign, host_b)), reversed])
        {
            assert_eq!(none(&mut b, (B, WAN), &sealed(&tunnel, seq, &bad)), selector, "{seq}");
        }
        // An echo request is no error, whatever it holds.
        let enclosed = packet((host_b, host_a), 17, &packets::udp((host_b, host_a), 20));
        let echo =
            packets::icmp((router, host_b), if six { [128, 0] } else { [8, 0] }, 0, &enclosed);
        let echo = packet((router, host_b), protocol, &echo);
        assert_eq!(none(&mut b, (B, WAN), &sealed(&tunnel, 9, &echo)), selector);
    }
}

/// P13, M01: eight SAs with equal selectors live side by side, each with its own window; packets of
/// all of them are taken in any order.
#[test]
fn eight_parallel_sas() {
    let scenarios: Vec<Scenario> = (0..8u8)
        .map(|index| {
            let tunnel = Tunnel::ordinary(index).with_algorithm(Algorithm::NullSha256);
            Scenario::quiet(vec![Tunnel { index: 0, outer: Tunnel::ordinary(0).outer, ..tunnel }])
        })
        .collect();
    let tunnels: Vec<Tunnel> = scenarios.iter().map(|s| s.tunnels[0].clone()).collect();
    let mut b = gateway(&Scenario::quiet(tunnels.clone()), B);
    let good = packet(hosts(false), 17, &packets::udp(hosts(false), 8));
    for seq in [1, 3, 2] {
        for tunnel in tunnels.iter().rev() {
            assert_eq!(one(&mut b, (B, WAN), &sealed(tunnel, seq, &good)), hop(&good));
        }
    }
    let inbound: Vec<_> = b.samples().filter(|sample| sample.inbound).collect();
    assert_eq!(inbound.len(), 8);
    assert!(inbound.iter().all(|sample| (sample.packets, sample.sequence) == (3, 3)));
}

/// P07: what control is asked for tells the policy and all that the packet shows, so that an SA can
/// take its selector from the packet.
#[test]
fn acquires_show_the_packet() {
    let pfp = Pfp { source: true, destination_port: true, ..Pfp::NONE };
    let selector = upper(6, to_ports(1..=1000));
    let mut a = changed(&ordinary(), A, |config| {
        let policy = Policy { selector: selector.clone(), action: Action::Protect(Group(7)), pfp };
        config.spd.outbound.insert(0, policy);
    });
    assert_eq!(none(&mut a, (A, LAN), &tcp_to(80)), Fate::Drop(DropReason::NoOutboundSa));
    let [Notice::Acquire { policy: 0, group: Group(7), flow, resource: None }, Notice::Audit(_)] =
        notices(&mut a)[..]
    else {
        panic!("one acquire");
    };
    assert_eq!(flow.protocol, 6);
    assert_eq!(flow.upper, Upper::Ports { source: 5000, destination: 80 });
    let narrowed = selector.narrowed(pfp, &flow).unwrap();
    let flow_of =
        |packet: &[u8]| culvert_spd::Flow::of(packet, &culvert_wire::ip::parse(packet).unwrap());
    assert!(narrowed.matches(&flow_of(&tcp_to(80))));
    assert!(!narrowed.matches(&flow_of(&tcp_to(81))));
    assert!(!narrowed.matches(&flow_of(&with(&tcp_to(80), 12, &[10, 1, 0, 6]))));
}

/// P07: acquires keep to a rate, however many packets ask.
#[test]
fn acquires_are_limited() {
    let mut a = changed(&ordinary(), A, |config| {
        config.sas.iter_mut().for_each(|sa| sa.group = Group(99));
    });
    let plain = packet(hosts(false), 17, &packets::udp(hosts(false), 8));
    for _ in 0..4 {
        assert!(through(&mut a, (A, LAN), &[&plain[..]; 64]).is_empty());
    }
    let asked = notices(&mut a).into_iter().filter(|n| matches!(n, Notice::Acquire { .. })).count();
    assert_eq!(asked, 100);
}

/// P01, P02, P03: where the default is switched to bypass, what no policy admits passes in clear
/// both ways, and what a policy discards or protects does not.
#[test]
fn default_bypass() {
    let default =
        |side| changed(&ordinary(), side, |config| config.spd.default = DefaultAction::Bypass);
    let (mut a, mut b) = (default(A), default(B));
    let unknown = (hosts(false).0, IpAddr::from([192, 0, 2, 77]));
    let plain = packet(unknown, 17, &packets::udp(unknown, 8));
    assert_eq!(one(&mut a, (A, LAN), &plain), hop(&plain));
    assert_eq!(a.counters().bypassed, 1);
    let discarded = (hosts(false).0, IpAddr::from([203, 0, 113, 1]));
    let fate = none(&mut a, (A, LAN), &packet(discarded, 17, &packets::udp(discarded, 8)));
    assert_eq!(fate, Fate::Drop(DropReason::Discard));
    let inbound = (IpAddr::from([192, 0, 2, 77]), hosts(false).1);
    let plain = packet(inbound, 17, &packets::udp(inbound, 8));
    assert_eq!(one(&mut b, (B, WAN), &plain), hop(&plain));
    let protected = packet(hosts(false), 17, &packets::udp(hosts(false), 8));
    assert_eq!(none(&mut b, (B, WAN), &protected), Fate::Drop(DropReason::Plaintext));
    // Without the switch the default is to discard, both ways.
    let (mut a, mut b) = (gateway(&ordinary(), A), gateway(&ordinary(), B));
    assert_eq!(none(&mut a, (A, LAN), &packet(unknown, 17, &packets::udp(unknown, 8))), NO_POLICY);
    assert_eq!(none(&mut b, (B, WAN), &plain), NO_POLICY);
}
