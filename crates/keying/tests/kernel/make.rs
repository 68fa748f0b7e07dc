//! Requests in few words.

use std::net::IpAddr;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::lifetime::INFINITE;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::XfrmId;
use culvert_xfrm::selector::Selector;

pub(crate) fn none() -> Attributes {
    Attributes::default()
}

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
    let (saddr, daddr) = (Address::from(saddr), Address::from(daddr));
    Selector { saddr, daddr, prefixlen_s, prefixlen_d, family, ..Selector::default() }
}

pub(crate) fn policy(text: &str, dir: Direction, priority: u32) -> PolicyInfo {
    let limits = Limits {
        soft_bytes: INFINITE,
        hard_bytes: INFINITE,
        soft_packets: INFINITE,
        hard_packets: INFINITE,
        ..Limits::default()
    };
    let action = Action::ALLOW;
    PolicyInfo { sel: selector(text), limits, priority, dir, action, ..PolicyInfo::default() }
}

pub(crate) fn by_selector(info: &PolicyInfo) -> PolicyId {
    PolicyId { sel: info.sel, index: 0, dir: info.dir }
}

pub(crate) fn by_index(index: u32, dir: Direction) -> PolicyId {
    PolicyId { index, dir, ..PolicyId::default() }
}

/// A tunnel of ESP, "SOURCE DESTINATION".
pub(crate) fn template(text: &str, reqid: u32) -> Template {
    let (source, destination) = text.split_once(' ').expect("two addresses");
    let [saddr, daddr]: [IpAddr; 2] =
        [source, destination].map(|text| text.parse().expect("an address"));
    Template {
        id: XfrmId { daddr: daddr.into(), proto: sa::ESP, ..XfrmId::default() },
        family: Family::of(saddr),
        saddr: saddr.into(),
        reqid,
        mode: Mode::TUNNEL,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..Template::default()
    }
}

pub(crate) fn tunnel() -> Attribute {
    Attribute::Templates(vec![template("192.0.2.1 192.0.2.2", 1)])
}
