//! Requests in few words.

use std::net::IpAddr;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::address::Family;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::XfrmId;

use crate::words::selector;

pub(crate) fn none() -> Attributes {
    Attributes::default()
}

pub(crate) fn policy(text: &str, dir: Direction, priority: u32) -> PolicyInfo {
    let (limits, action) = (Limits::UNLIMITED, Action::ALLOW);
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
