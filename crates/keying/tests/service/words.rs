//! Values from words.

use std::net::IpAddr;

use culvert_xfrm::address::Family;
use culvert_xfrm::selector::Selector;

/// "SOURCE/BITS DESTINATION/BITS".
pub(crate) fn selector(text: &str) -> Selector {
    let (source, destination) = text.split_once(' ').expect("two networks");
    let network = |text: &str| {
        let (ip, bits) = text.split_once('/').expect("a network");
        let ip: IpAddr = ip.parse().expect("an address");
        (ip, bits.parse().expect("bits"))
    };
    let ((saddr, prefixlen_s), (daddr, prefixlen_d)) = (network(source), network(destination));
    let family = Family::of(saddr);
    let (saddr, daddr) = (saddr.into(), daddr.into());
    Selector { saddr, daddr, prefixlen_s, prefixlen_d, family, ..Selector::default() }
}
