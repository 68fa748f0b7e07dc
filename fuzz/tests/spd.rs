//! The compiled policies against a search of the list from its head.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use culvert_fuzz::Draft;
use culvert_fuzz::target;
use culvert_spd::Action;
use culvert_spd::AddressRange;
use culvert_spd::AddressSelector;
use culvert_spd::DefaultAction;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::PortSelector;
use culvert_spd::Selector;
use culvert_spd::Spd;
use culvert_spd::Upper;
use culvert_spd::UpperSelector;
use culvert_wire::ip::Addresses;

/// Most policies of one input, and packets.
const POLICIES_MAX: usize = 24;
const FLOWS_MAX: usize = 16;

/// Protocols with ports, with a type, with neither.
const PROTOCOLS: [u8; 7] = [6, 17, 1, 58, 135, 50, 132];

/// An address of a family: few, so that ranges often meet, and some at the edges.
fn address(draft: &mut Draft<'_>, is_v4: bool) -> IpAddr {
    let (high, low) = (draft.octet(), draft.octet());
    if is_v4 {
        return Ipv4Addr::from_octets([high & 0xc0, 0, high & 1, low]).into();
    }
    let mut octets = [0; 16];
    (octets[0], octets[8], octets[15]) = (high & 0xc0, high & 1, low);
    Ipv6Addr::from(octets).into()
}

fn range(draft: &mut Draft<'_>, is_v4: bool) -> Option<AddressRange> {
    let (one, other) = (address(draft, is_v4), address(draft, is_v4));
    AddressRange::new(one.min(other), one.max(other)).ok()
}

fn addresses(draft: &mut Draft<'_>, is_v4: bool) -> AddressSelector {
    match draft.below(4) {
        0 => AddressSelector::Any,
        count => AddressSelector::Ranges((0..count).filter_map(|_| range(draft, is_v4)).collect()),
    }
}

/// Mostly small numbers, for those of packets are, too.
fn numbers(draft: &mut Draft<'_>) -> RangeInclusive<u16> {
    let (start, len) = (draft.below(32), draft.below(16));
    let end = if len == 15 { u16::MAX } else { u16::from(start) + u16::from(len) };
    u16::from(start)..=end
}

fn ports(draft: &mut Draft<'_>) -> PortSelector {
    match draft.below(3) {
        0 => PortSelector::Any,
        count => PortSelector::Ranges((0..count).map(|_| numbers(draft)).collect()),
    }
}

fn selector(draft: &mut Draft<'_>) -> Option<Selector> {
    let form = draft.octet();
    let is_v4 = form & 1 == 0;
    let (source, destination) = (addresses(draft, is_v4), addresses(draft, is_v4));
    let protocol = PROTOCOLS.get(usize::from(draft.below(10))).copied();
    let upper = match (draft.below(5), protocol) {
        (0, _) | (_, None) => UpperSelector::Any,
        (1, _) => UpperSelector::Opaque,
        (_, Some(1 | 58)) => UpperSelector::Icmp(numbers(draft)),
        (_, Some(135)) => UpperSelector::Mobility(draft.below(4)..=4 + draft.below(4)),
        _ => UpperSelector::Ports { source: ports(draft), destination: ports(draft) },
    };
    let selector = Selector::new(source, destination, protocol, upper).ok()?;
    Some(selector.with_fragments_too(form & 2 != 0))
}

fn policy(draft: &mut Draft<'_>) -> Option<Policy> {
    let action = match draft.below(4) {
        0 => Action::Bypass,
        1 => Action::Discard,
        group => Action::Protect(Group(group.into())),
    };
    Some(Policy::new(selector(draft)?, action))
}

fn flow(draft: &mut Draft<'_>) -> Flow {
    let is_v4 = draft.flag();
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let (source, destination) = (address(draft, is_v4), address(draft, is_v4));
    let addresses = Addresses { is_v4, source: number(source), destination: number(destination) };
    let protocol = PROTOCOLS.get(usize::from(draft.below(8))).copied().unwrap_or(253);
    let upper = match (draft.below(6), protocol) {
        (0, _) => Upper::Opaque,
        (_, 1 | 58) => Upper::Icmp(draft.below(64).into()),
        (_, 135) => Upper::Mobility(draft.below(9)),
        (_, 6 | 17 | 132) => {
            Upper::Ports { source: draft.below(64).into(), destination: draft.below(64).into() }
        }
        _ => Upper::None,
    };
    Flow { addresses, protocol, upper }
}

/// P01, P03, P05, P08: for any policies and any packet the compiled list answers what a search of
/// the list does.
#[test]
fn compiled_policies_equal_the_list() {
    target!().for_each(|input: &[u8]| {
        let mut draft = Draft(input);
        let count = usize::from(draft.octet()) % POLICIES_MAX;
        let default = if draft.flag() { DefaultAction::Bypass } else { DefaultAction::Discard };
        let mut policies: Vec<Policy> = (0..count).filter_map(|_| policy(&mut draft)).collect();
        let inbound = policies.split_off(policies.len() / 2);
        let spd = Spd { outbound: policies, inbound, default };
        let compiled = spd.compile();
        for _ in 0..FLOWS_MAX {
            let flow = flow(&mut draft);
            assert_eq!(compiled.outbound(&flow), spd.search_outbound(&flow), "{flow:?} {spd:?}");
            assert_eq!(compiled.inbound(&flow), spd.search_inbound(&flow), "{flow:?} {spd:?}");
        }
    });
}
