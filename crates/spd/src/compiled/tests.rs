use std::ops::RangeInclusive;
use std::sync::Arc;

use culvert_wire::ip::Addresses;
use proptest::prelude::*;

use super::*;
use crate::Action;
use crate::AddressRange;
use crate::AddressSelector;
use crate::Group;
use crate::Pfp;
use crate::PortSelector;
use crate::Upper;
use crate::address::address;

/// Few addresses, at the places where arithmetic could go wrong, in both families.
fn number(is_v4: bool) -> impl Strategy<Value = u128> {
    let bits = if is_v4 { 32 } else { 128 };
    let max = u128::MAX >> (128 - bits);
    prop_oneof![
        4 => (0u128..24).boxed(),
        2 => (0u128..16).prop_map(move |number| number << (bits - 4)).boxed(),
        1 => (0u128..4).prop_map(move |number| max - number).boxed(),
        1 => any::<u128>().prop_map(move |number| number & max).boxed(),
    ]
}

fn range(is_v4: bool) -> impl Strategy<Value = AddressRange> {
    let range = move |a: u128, b: u128| {
        AddressRange::new(address(is_v4, a.min(b)), address(is_v4, a.max(b))).unwrap()
    };
    let bits: u8 = if is_v4 { 32 } else { 128 };
    prop_oneof![
        (number(is_v4), number(is_v4)).prop_map(move |(a, b)| range(a, b)).boxed(),
        (number(is_v4), 0..=bits)
            .prop_map(move |(a, len)| { ipnet::IpNet::new(address(is_v4, a), len).unwrap().into() })
            .boxed(),
    ]
}

fn addresses(is_v4: bool) -> impl Strategy<Value = AddressSelector> {
    let ranges = prop::collection::vec(range(is_v4), 1..4).prop_map(AddressSelector::Ranges);
    prop_oneof![1 => Just(AddressSelector::Any).boxed(), 4 => ranges.boxed()]
}

const PORTS: [u16; 8] = [0, 1, 79, 80, 81, 4500, 65534, 65535];

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![3 => prop::sample::select(&PORTS[..]), 1 => any::<u16>()]
}

fn port_range() -> impl Strategy<Value = RangeInclusive<u16>> {
    (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b))
}

fn ports() -> impl Strategy<Value = PortSelector> {
    let ranges = prop::collection::vec(port_range(), 1..4).prop_map(PortSelector::Ranges);
    prop_oneof![Just(PortSelector::Any).boxed(), ranges.boxed()]
}

/// A protocol and what may be asked of it.
fn upper() -> impl Strategy<Value = (Option<u8>, UpperSelector)> {
    let protocol = prop::option::of(prop::sample::select(&[1u8, 6, 17, 50, 58, 135][..]));
    let tcp = prop::sample::select(&[6u8, 17][..]);
    let icmp = prop::sample::select(&[1u8, 58][..]);
    let mobility = |(a, b): (u8, u8)| UpperSelector::Mobility(a.min(b)..=a.max(b));
    prop_oneof![
        protocol.clone().prop_map(|protocol| (protocol, UpperSelector::Any)),
        protocol.prop_map(|protocol| (protocol, UpperSelector::Opaque)),
        (tcp, ports(), ports()).prop_map(|(protocol, source, destination)| {
            (Some(protocol), UpperSelector::Ports { source, destination })
        }),
        (icmp, port_range())
            .prop_map(|(protocol, range)| (Some(protocol), UpperSelector::Icmp(range))),
        (0u8..4, 0u8..4).prop_map(move |pair| (Some(135), mobility(pair))),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    any::<bool>()
        .prop_flat_map(|is_v4| (addresses(is_v4), addresses(is_v4), upper(), any::<bool>()))
        .prop_map(|(source, destination, (protocol, upper), fragments_too)| {
            let selector = Selector::new(source, destination, protocol, upper).unwrap();
            selector.with_fragments_too(fragments_too)
        })
}

fn policies(max: usize) -> impl Strategy<Value = Vec<Policy>> {
    let policy = (selector(), 0u32..5).prop_map(|(selector, action)| {
        let action = match action {
            0 => Action::Bypass,
            1 => Action::Discard,
            group => Action::Protect(Group(group)),
        };
        Policy::new(selector, action)
    });
    prop::collection::vec(policy, 0..max)
}

/// Any packet, also such as no parser makes: ICMP fields in TCP, and so on.
fn flow() -> impl Strategy<Value = Flow> {
    let upper = prop_oneof![
        4 => (port(), port())
            .prop_map(|(source, destination)| Upper::Ports { source, destination }),
        2 => port().prop_map(Upper::Icmp),
        1 => (0u8..5).prop_map(Upper::Mobility),
        1 => Just(Upper::None),
        1 => Just(Upper::Opaque),
    ];
    let protocol = prop::sample::select(&[0u8, 1, 6, 17, 50, 58, 135, 255][..]);
    any::<bool>().prop_flat_map(|is_v4| (Just(is_v4), number(is_v4), number(is_v4))).prop_flat_map(
        move |(is_v4, source, destination)| {
            let addresses = Addresses { is_v4, source, destination };
            (Just(addresses), protocol.clone(), upper.clone())
                .prop_map(|(addresses, protocol, upper)| Flow { addresses, protocol, upper })
        },
    )
}

fn default() -> impl Strategy<Value = DefaultAction> {
    prop::sample::select(&[DefaultAction::Discard, DefaultAction::Bypass][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// P01, P03, P05, P06, P08, U15: the compiled lists are equal to a search of the lists in
    /// order, with all kinds of selectors and all kinds of packets.
    #[test]
    fn equals_the_list(
        outbound in policies(24),
        inbound in policies(4),
        default in default(),
        flows in prop::collection::vec(flow(), 16),
    ) {
        let spd = Spd { outbound, inbound, default };
        let compiled = spd.compile();
        for flow in &flows {
            prop_assert_eq!(compiled.outbound(flow), spd.search_outbound(flow));
            prop_assert_eq!(compiled.inbound(flow), spd.search_inbound(flow));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// P01, P03: long lists in which many policies share their addresses, so that cuts are made.
    #[test]
    fn long_lists_equal_the_list(
        long in policies(400),
        flows in prop::collection::vec(flow(), 64),
    ) {
        // The same policies once more with addresses of few kinds.
        let alike = |policy: &Policy| {
            let selector = policy.selector.clone();
            Policy::new(Selector { source: AddressSelector::Any, ..selector }, policy.action)
        };
        let outbound = long.iter().map(alike).chain(long.iter().cloned()).collect();
        let ports_only = |policy: &Policy| {
            let destination = AddressSelector::Any;
            let selector = policy.selector.clone();
            Policy { selector: Selector { destination, ..selector }, ..alike(policy) }
        };
        let inbound = long.iter().map(ports_only).collect();
        let spd = Spd { outbound, inbound, ..Spd::default() };
        let compiled = spd.compile();
        for flow in &flows {
            prop_assert_eq!(compiled.outbound(flow), spd.search_outbound(flow));
            prop_assert_eq!(compiled.inbound(flow), spd.search_inbound(flow));
        }
    }

    /// P05: lists too long for a box of each combination give the same answers.
    #[test]
    fn coarse_boxes_equal_the_list(
        selectors in prop::collection::vec(selector(), 1..20),
        allowance in 1usize..4,
        flows in prop::collection::vec(flow(), 64),
    ) {
        for (position, selector) in (0u32..).zip(&selectors) {
            let policy = &Policy::new(selector.clone(), Action::Discard);
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            let exact = region::extend(&mut v4, policy, position, allowance, 0)
                & region::extend(&mut v6, policy, position, allowance, 0);
            prop_assert!(v4.len() <= allowance && v6.len() <= allowance);
            let coarse = if exact { Vec::new() } else { vec![selector.clone()] };
            let list = List {
                v4: Table::new(&v4),
                v6: Table::new(&v6),
                coarse: coarse.into(),
                default: DefaultAction::Discard,
            };
            for flow in &flows {
                let found = list.find(flow).policy;
                prop_assert_eq!(found, selector.matches(flow).then_some(position));
            }
        }
    }

    /// P01, P03: both ways to find the pairs of blocks give the answers of the list.
    #[test]
    fn spaces_and_axes_equal_the_list(
        policies in policies(60),
        flows in prop::collection::vec(flow(), 64),
    ) {
        let spd = Spd { outbound: policies, ..Spd::default() };
        let list = List::new(&spd.outbound, DefaultAction::Discard);
        prop_assert!(list.coarse.is_empty());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (position, policy) in (0u32..).zip(&spd.outbound) {
            region::extend::<u32>(&mut v4, policy, position, usize::MAX, 0);
            region::extend::<u128>(&mut v6, policy, position, usize::MAX, 0);
        }
        for spaces_max in [0, usize::MAX] {
            let (v4, v6) =
                (Table::with_spaces(&v4, spaces_max), Table::with_spaces(&v6, spaces_max));
            let list = List { v4, v6, ..list.clone() };
            for flow in &flows {
                prop_assert_eq!(list.find(flow), spd.search_outbound(flow));
            }
        }
    }
}

fn ports_policy(protocol: u8, source: PortSelector, destination: PortSelector) -> Policy {
    let upper = UpperSelector::Ports { source, destination };
    let any = AddressSelector::Any;
    let selector = Selector::new(any.clone(), any, Some(protocol), upper).unwrap();
    Policy::new(selector, Action::Bypass)
}

fn ports_flow(source: u16, destination: u16) -> Flow {
    let addresses = Addresses { is_v4: true, source: 1, destination: 2 };
    Flow { addresses, protocol: 6, upper: Upper::Ports { source, destination } }
}

/// P03: each of 60,000 policies that differ in a port only is found, behind ten that overlap all.
#[test]
fn ports_are_separated() {
    let wide = (0u16..10).map(|n| ports_policy(17, (n..=60_000).into(), (n..=60_000).into()));
    let narrow = (0..60_000).map(|port| ports_policy(6, PortSelector::Any, port.into()));
    let spd = Spd { outbound: wide.chain(narrow).collect(), ..Spd::default() };
    let compiled = spd.compile();
    for port in (0..60_000).step_by(7) {
        let found = compiled.outbound(&ports_flow(9, port)).policy;
        assert_eq!(found, Some(u32::from(port) + 10));
    }
    assert_eq!(compiled.outbound(&ports_flow(9, 60_000)).policy, None);
}

/// Memory stays within what the module promises where cuts cannot separate: half of the policies
/// are for one source port and all destination ports, half the other way round.
#[test]
fn copies_are_bounded() {
    let stripes = |n: u16| {
        let one = PortSelector::from(n);
        let (source, destination) =
            if n.is_multiple_of(2) { (one, PortSelector::Any) } else { (PortSelector::Any, one) };
        ports_policy(6, source, destination)
    };
    let outbound: Vec<Policy> = (0..5000).map(stripes).collect();
    let spd = Spd { outbound, ..Spd::default() };
    let compiled = spd.compile();
    assert!(compiled.outbound.v4.copies() <= 3 * 5000, "{}", compiled.outbound.v4.copies());
    for (source, destination) in [(4, 7), (8, 7), (7, 8), (1, 1), (4998, 4999), (9000, 9000)] {
        let flow = ports_flow(source, destination);
        assert_eq!(compiled.outbound(&flow), spd.search_outbound(&flow));
    }
}

/// Policies behind one that admits all they do take no room in a row.
#[test]
fn hidden_policies_are_forgotten() {
    let everything = Policy::new(Selector::ANY, Action::Discard);
    let spd = Spd { outbound: vec![everything; 1000], ..Spd::default() };
    assert_eq!(spd.compile().outbound.v4.copies(), 1);
}

/// P07: the engine may look at addresses alone only when neither selectors nor flags ask for more.
#[test]
fn says_what_it_looks_at() {
    let looks = |policy: Policy| {
        let compiled = Spd { inbound: vec![policy], ..Spd::default() }.compile();
        (compiled.is_address_only(), compiled.looks_at_upper())
    };
    let any = || Policy::new(Selector::ANY, Action::Bypass);
    let pfp = |pfp| Policy { pfp, ..any() };
    let protocol = Selector { protocol: Some(6), ..Selector::ANY };
    assert_eq!(looks(any()), (true, false));
    assert_eq!(looks(pfp(Pfp { source: true, destination: true, ..Pfp::NONE })), (true, false));
    assert_eq!(looks(Policy::new(protocol, Action::Bypass)), (false, false));
    assert_eq!(looks(pfp(Pfp { protocol: true, ..Pfp::NONE })), (false, false));
    assert_eq!(looks(pfp(Pfp { destination_port: true, ..Pfp::NONE })), (false, true));
    assert_eq!(looks(ports_policy(6, 80.into(), PortSelector::Any)), (false, true));
    let none = Spd::default().compile();
    assert!(none.is_address_only() && !none.looks_at_upper());
}

/// Threads share one compiled list.
#[test]
fn is_shared_by_threads() {
    let spd = Spd { outbound: vec![ports_policy(6, 80.into(), 80.into())], ..Spd::default() };
    let compiled = Arc::new(spd.compile());
    let there = Arc::clone(&compiled);
    let found = std::thread::spawn(move || there.outbound(&ports_flow(80, 80))).join().unwrap();
    assert_eq!(found, compiled.outbound(&ports_flow(80, 80)));
    assert_eq!(found.policy, Some(0));
}
