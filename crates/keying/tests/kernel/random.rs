//! Requests by chance, from few values, so that they meet.

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::address::Family;
use culvert_xfrm::attribute::Unknown;
use culvert_xfrm::event::PolicyExpire;
use culvert_xfrm::info::HashThreshold;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::PolicyType;
use culvert_xfrm::policy::Share;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;

use crate::lab::Lab;
use crate::make::none;
use crate::make::policy;
use crate::make::template;

/// Marsaglia's xorshift.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("64 bits") % end
    }

    pub(crate) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

const NETWORKS: [&str; 9] = [
    "10.0.0.0/8 10.0.0.0/8",
    "10.1.0.0/16 10.2.0.0/16",
    "10.1.1.0/24 10.2.1.0/24",
    "10.1.1.1/32 10.2.1.1/32",
    "0.0.0.0/0 10.2.0.0/16",
    "10.1.0.0/16 0.0.0.0/0",
    "0.0.0.0/0 0.0.0.0/0",
    "fd00:1::/64 fd00:2::/64",
    "fd00:1::1/128 fd00:2::1/128",
];

fn direction(chance: &mut Chance) -> Direction {
    let known = [Direction::IN, Direction::OUT, Direction::FORWARD];
    if chance.once_in(60) { Direction(chance.of(&[3, 4, 255])) } else { chance.of(&known) }
}

fn index(chance: &mut Chance, dir: Direction) -> u32 {
    let index = chance.of(&[8, 16, 24, 32, 40, 80, 160, 800]);
    let low = if chance.once_in(10) { 0 } else { u32::from(dir.0 & 3) };
    index | low
}

fn info(chance: &mut Chance) -> PolicyInfo {
    let dir = direction(chance);
    let mut info = policy(chance.of(&NETWORKS), dir, chance.of(&[0, 1, 1, 1, 2, u32::MAX]));
    info.sel.proto = chance.of(&[0, 0, 0, 6, 17]);
    if chance.once_in(8) {
        info.index = index(chance, dir);
    }
    if chance.once_in(10) {
        info.action = chance.of(&[Action::BLOCK, Action::BLOCK, Action(2)]);
    }
    match chance.below(80) {
        0 => info.sel.prefixlen_s = 33,
        1 => info.sel.prefixlen_d = 129,
        2 => info.sel.family = chance.of(&[Family::UNSPEC, Family(4)]),
        3 => info.share = chance.of(&[Share::USER, Share(4)]),
        4 => info.flags = 3,
        5 => info.limits.hard_age_secs = 100_000,
        _ => {}
    }
    info
}

/// Mark and interface, seldom.
fn name(chance: &mut Chance) -> Vec<Attribute> {
    let mut list = Vec::new();
    if chance.once_in(4) {
        let (value, mask) = chance.of(&[(1, 1), (1, 3), (2, 3), (0, 0), (4, 3)]);
        list.push(Attribute::Mark(Mark { value, mask }));
    }
    if chance.once_in(6) {
        list.push(Attribute::IfId(chance.of(&[0, 1, 2])));
    }
    match chance.below(40) {
        0 => list.push(Attribute::PolicyType(PolicyType::default())),
        1 => {
            let kind = chance.of(&[2, 255]);
            list.push(Attribute::PolicyType(PolicyType { kind, ..PolicyType::default() }));
        }
        2 => list.push(Attribute::Direction(SaDirection::OUT)),
        3 => list.push(Attribute::Cpu(0)),
        4 => list.push(Attribute::Usage(Usage::default())),
        _ => {}
    }
    list
}

fn attributes(chance: &mut Chance) -> Attributes {
    let mut list = Vec::new();
    if !chance.once_in(3) {
        let mut templates = Vec::new();
        let most = if chance.once_in(10) { 7 } else { 2 };
        for _ in 0..=chance.below(most) {
            let ends = ["192.0.2.1 192.0.2.2", "2001:db8::1 2001:db8::2"];
            let mut template = template(chance.of(&ends), chance.of(&[0, 1, 2]));
            match chance.below(12) {
                0 => template.mode = Mode(chance.of(&[0, 2, 4, 5, 6])),
                1 => template.family = Family::UNSPEC,
                2 => template.optional = 1,
                3 => template.id.proto = chance.of(&[51, 108, 0, 255]),
                _ => {}
            }
            templates.push(template);
        }
        list.push(Attribute::Templates(templates));
    }
    list.extend(name(chance));
    if chance.once_in(10) {
        list.push(Attribute::Unknown(Unknown { kind: 99, octets: [1, 2, 3].as_slice().into() }));
    }
    Attributes(list)
}

fn id(chance: &mut Chance) -> PolicyId {
    let PolicyInfo { sel, dir, .. } = info(chance);
    let index = if chance.once_in(3) { index(chance, dir) } else { 0 };
    PolicyId { sel, index, dir }
}

fn setting(chance: &mut Chance) -> Body {
    let action = |chance: &mut Chance| DefaultAction(chance.of(&[0, 1, 2, 3]));
    let bits = |chance: &mut Chance| chance.of(&[0, 8, 16, 24, 32, 33, 128, 129]);
    match chance.below(4) {
        0 => Body::GetDefault(Defaults::default(), none()),
        1 => {
            let (inbound, forward) = (action(chance), action(chance));
            Body::SetDefault(Defaults { inbound, forward, outbound: action(chance) }, none())
        }
        2 => {
            let (local_bits, remote_bits) = (bits(chance), bits(chance));
            let threshold = HashThreshold { local_bits, remote_bits };
            let is_four = chance.once_in(2);
            let of =
                if is_four { SpdAttribute::Ipv4Threshold } else { SpdAttribute::Ipv6Threshold };
            Body::NewSpdInfo(0, vec![of(threshold)])
        }
        _ => Body::GetSpdInfo(5),
    }
}

fn request(chance: &mut Chance) -> Body {
    match chance.below(100) {
        0..30 => Body::NewPolicy(info(chance), attributes(chance)),
        30..55 => Body::UpdatePolicy(info(chance), attributes(chance)),
        55..70 => Body::DeletePolicy(id(chance), Attributes(name(chance))),
        70..85 => Body::GetPolicy(id(chance), Attributes(name(chance))),
        85..89 => {
            let mut policy = info(chance);
            let PolicyId { index, .. } = id(chance);
            policy.index = if chance.once_in(2) { 0 } else { index };
            let expire = PolicyExpire { policy, hard: chance.of(&[0, 1, 2]) };
            Body::PolicyExpire(expire, Attributes(name(chance)))
        }
        89..91 if chance.once_in(4) => Body::FlushPolicy(Attributes(name(chance))),
        91..96 => setting(chance),
        _ => Body::DumpPolicy(none()),
    }
}

/// So many requests; a list of some length comes about.
pub(crate) fn requests(lab: &mut Lab, seed: u64, count: usize) {
    let mut chance = Chance::new(seed);
    let mut most = 0;
    for number in 0..count {
        lab.name = format!("seed {seed}, request {number}");
        lab.ask(&request(&mut chance));
        if number % 10 == 0 {
            most = most.max(lab.ask(&Body::DumpPolicy(none())).answers.len());
        }
    }
    assert!(most > 10, "at most {most} policies");
}
