//! Tests of the conversion. Packets meet the same selectors as in the kernel: `tests/kernel.rs`.

use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_wire::ip::Addresses;
use proptest::prelude::*;

use super::*;

/// All packets of IPv4 between two networks.
fn base() -> XfrmSelector {
    let [saddr, daddr] = [[10, 1, 7, 7], [10, 2, 0, 0]].map(|ip| IpAddr::from(ip).into());
    let (prefixlen_s, prefixlen_d) = (16, 15);
    let family = Family::INET;
    XfrmSelector { saddr, daddr, prefixlen_s, prefixlen_d, family, ..XfrmSelector::default() }
}

/// With a protocol, and value and mask of both ports.
fn ports(proto: u8, source: (u16, u16), destination: (u16, u16)) -> XfrmSelector {
    XfrmSelector {
        proto,
        sport: Port(source.0),
        sport_mask: Port(source.1),
        dport: Port(destination.0),
        dport_mask: Port(destination.1),
        ..base()
    }
}

fn flow(protocol: u8, upper: Upper) -> Flow {
    let addresses = Addresses { is_v4: true, source: 0x0a01_0001, destination: 0x0a02_0001 };
    Flow { addresses, protocol, upper }
}

fn admits(selector: &XfrmSelector, flow: &Flow) -> bool {
    convert(selector).expect("selectors").iter().any(|selector| selector.matches(flow))
}

/// Prefixes count as far as their lengths go, and only for their family.
#[test]
fn prefixes_are_networks() {
    let [selector] = &convert(&base()).expect("a selector")[..] else { panic!("one selector") };
    let shown = |addresses: &AddressSelector| {
        let texts = addresses.prefixes().into_iter().map(|net| net.to_string());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(shown(selector.source()), ["10.1.0.0/16"]);
    assert_eq!(shown(selector.destination()), ["10.2.0.0/15"]);
    assert_eq!((selector.protocol(), selector.is_address_only()), (None, true));
    let six = XfrmSelector { family: Family::INET6, prefixlen_s: 128, prefixlen_d: 0, ..base() };
    let [selector] = &convert(&six).expect("a selector")[..] else { panic!("one selector") };
    assert_eq!(shown(selector.destination()), ["::/0"]);
    assert!(!selector.matches(&flow(17, Upper::None)));
    let all = XfrmSelector { prefixlen_s: 0, prefixlen_d: 0, ..base() };
    let [selector] = &convert(&all).expect("a selector")[..] else { panic!("one selector") };
    assert_eq!(shown(selector.source()), ["0.0.0.0/0"]);
}

/// An SA's selector of no family is for both, and has no prefixes.
#[test]
fn selectors_of_no_family() {
    let any = XfrmSelector { proto: 50, ..XfrmSelector::default() };
    let [selector] = &convert(&any).expect("a selector")[..] else { panic!("one selector") };
    assert_eq!((selector.source(), selector.protocol()), (&AddressSelector::Any, Some(50)));
    let prefix = XfrmSelector { family: Family::UNSPEC, ..base() };
    assert_eq!(convert(&prefix), Err(Unsupported::Family));
}

/// What the engine cannot do is refused, with a number that says so.
#[test]
fn refusals_have_reasons() {
    let cases = [
        (XfrmSelector { ifindex: 3, ..base() }, Unsupported::Interface),
        (XfrmSelector { family: Family(7), ..base() }, Unsupported::Family),
        (XfrmSelector { prefixlen_d: 33, ..base() }, Unsupported::Prefix),
        (ports(0, (80, 0xffff), (0, 0)), Unsupported::Protocol),
        (ports(GRE, (0, 0), (1, 0xffff)), Unsupported::Key),
        (ports(6, (0, 0x8000), (1, 0x0001)), Unsupported::Ranges),
        (ports(1, (0, 0x0001), (1, 0x00f9)), Unsupported::Ranges),
    ];
    for (selector, reason) in cases {
        assert_eq!(convert(&selector), Err(reason));
        let is_invalid = matches!(reason, Unsupported::Family | Unsupported::Prefix);
        let errno = if is_invalid { Errno::EINVAL } else { Errno::EOPNOTSUPP };
        assert_eq!(reason.errno(), errno);
        assert!(reason.to_string().starts_with("xfrm_selector."));
    }
    // The kernel does not look at the user.
    assert_eq!(convert(&XfrmSelector { user: 1000, ..base() }), convert(&base()));
}

/// A mask that begins with ones is one range; a hole doubles the ranges; 256 are the most.
#[test]
fn masks_are_ranges() {
    let ranges = |value, mask| Masked::new(Port(value), Port(mask)).ranges();
    assert_eq!(ranges(443, 0xffff), Ok(vec![443..=443]));
    assert_eq!(ranges(0x1234, 0xff00), Ok(vec![0x1200..=0x12ff]));
    assert_eq!(ranges(5, 0), Ok(vec![0..=0xffff]));
    assert_eq!(ranges(0x8001, 0xbfff), Ok(vec![0x8001..=0x8001, 0xc001..=0xc001]));
    assert_eq!(ranges(0, 0x7f00), Ok(vec![0..=0xff, 0x8000..=0x80ff]));
    assert_eq!(ranges(1, 0x00ff).map(|ranges| ranges.len()), Ok(256));
    assert_eq!(ranges(1, 0x007f), Err(Unsupported::Ranges));
}

/// ICMP has its type in place of the source port, its code in place of the destination port.
#[test]
fn icmp_has_types_and_codes() {
    let number = |message_type: u16, code: u16| Upper::Icmp(message_type * 256 + code);
    let echo = ports(1, (8, 0xffff), (0, 0));
    assert!(admits(&echo, &flow(1, number(8, 0))) && admits(&echo, &flow(1, number(8, 255))));
    assert!(!admits(&echo, &flow(1, number(9, 0))));
    let code = ports(1, (0, 0), (3, 0xffff));
    assert_eq!(convert(&code).map(|list| list.len()), Ok(256));
    assert!(admits(&code, &flow(1, number(77, 3))) && !admits(&code, &flow(1, number(77, 4))));
    // No type is as large.
    assert_eq!(convert(&ports(58, (0x0108, 0xffff), (0, 0))), Ok(vec![]));
}

/// Mobility headers have their type in place of the source port, and no other port.
#[test]
fn mobility_has_types() {
    let update = ports(MOBILITY, (5, 0xffff), (0, 0));
    assert!(admits(&update, &flow(MOBILITY, Upper::Mobility(5))));
    assert!(!admits(&update, &flow(MOBILITY, Upper::Mobility(6))));
    assert_eq!(convert(&ports(MOBILITY, (5, 0xffff), (1, 0xffff))), Ok(vec![]));
}

/// Protocols without ports have ports 0.
#[test]
fn other_protocols_have_ports_0() {
    let zero = ports(89, (0, 0xffff), (0, 0xff));
    assert!(admits(&zero, &flow(89, Upper::None)));
    assert_eq!(convert(&ports(89, (1, 0xffff), (0, 0))), Ok(vec![]));
}

/// P08: fragments have ports 0: they are admitted by what admits these, as by the kernel.
#[test]
fn fragments_have_ports_0() {
    let cases = [
        (ports(17, (0, 0), (0, 0)), true),
        (ports(17, (0, 0), (53, 0xffff)), false),
        (ports(17, (53, 0xffff), (0, 0)), false),
        (ports(17, (0, 0xff00), (0, 0)), true),
        (ports(17, (0, 0xff00), (0x8000, 0x8000)), false),
        (ports(1, (0, 0xffff), (0, 0xffff)), true),
        (ports(1, (8, 0xffff), (0, 0)), false),
    ];
    for (selector, is_admitted) in cases {
        assert_eq!(admits(&selector, &flow(selector.proto, Upper::Opaque)), is_admitted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Ranges are in order, do not touch, and hold what agrees under the mask.
    #[test]
    fn ranges_hold_what_agrees(value: u16, mask: u16) {
        let Ok(ranges) = Masked::new(Port(value), Port(mask)).ranges() else {
            let free = (!mask).count_ones() - mask.trailing_zeros().min(16);
            prop_assert!(free > 8);
            return Ok(());
        };
        for pair in ranges.windows(2) {
            prop_assert!(u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start()));
        }
        let held: usize = ranges.iter().map(|range| range.clone().count()).sum();
        prop_assert_eq!(held, 1 << (16 - mask.count_ones()));
        let agrees = |port: u16| (port ^ value) & mask == 0;
        prop_assert!(ranges.iter().all(|range| agrees(*range.start()) && agrees(*range.end())));
    }

    /// Ports and types are admitted if the kernel's comparison says so.
    #[test]
    fn packets_are_admitted_as_by_the_kernel(
        proto in prop::sample::select(vec![1u8, 6, 17, 58, 132, 135]),
        values: (u16, u16),
        masks in (prop::sample::select(MASKS.to_vec()), prop::sample::select(MASKS.to_vec())),
        seen: (u16, u16),
        flips: (u16, u16),
    ) {
        let selector = ports(proto, (values.0, masks.0), (values.1, masks.1));
        // Half of the packets are near.
        let seen = if flips.0 & 1 == 0 { seen } else { (values.0 ^ flips.0 & 0x10, values.1) };
        let (seen, upper) = match proto {
            1 | 58 => {
                let seen = (seen.0 & 0xff, seen.1 & 0xff);
                (seen, Upper::Icmp(seen.0 * 256 + seen.1))
            }
            135 => ((seen.0 & 0xff, 0), Upper::Mobility(seen.0.to_be_bytes()[1])),
            _ => (seen, Upper::Ports { source: seen.0, destination: seen.1 }),
        };
        let Ok(list) = convert(&selector) else { return Ok(()) };
        let agrees = |seen: u16, value: u16, mask: u16| (seen ^ value) & mask == 0;
        let expected = agrees(seen.0, values.0, masks.0) && agrees(seen.1, values.1, masks.1);
        let admitted = list.iter().filter(|one| one.matches(&flow(proto, upper))).count();
        prop_assert_eq!(admitted, usize::from(expected));
    }
}

/// Masks of ports, of types, and of neither.
const MASKS: [u16; 10] =
    [0, 0xffff, 0xfffe, 0xfff0, 0xff00, 0x00ff, 0x0ff0, 0x8000, 0x00f0, 0xfeff];
