//! Requests about SAs, in few words and by chance.

use std::net::IpAddr;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Secret;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::algorithm::Algorithm;
use culvert_xfrm::algorithm::Auth;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::header::Flags;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::replay::Replay;
use culvert_xfrm::replay::ReplayEsn;
use culvert_xfrm::sa;
use culvert_xfrm::sa::AddressFilter;
use culvert_xfrm::sa::Encap;
use culvert_xfrm::sa::EncapType;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SpiRequest;
use culvert_xfrm::sa::XfrmId;

use crate::make::none;
use crate::random::Chance;
use crate::sa_lab::DRAWN_FROM;
use crate::sa_lab::SaLab;

/// An SA of ESP in tunnel mode, "SOURCE DESTINATION".
pub(crate) fn info(text: &str, spi: u32, reqid: u32) -> SaInfo {
    let (source, destination) = text.split_once(' ').expect("two addresses");
    let [saddr, daddr]: [IpAddr; 2] =
        [source, destination].map(|text| text.parse().expect("an address"));
    SaInfo {
        id: XfrmId { daddr: daddr.into(), spi: Spi(spi), proto: sa::ESP },
        saddr: saddr.into(),
        limits: Limits::UNLIMITED,
        reqid,
        family: Family::of(saddr),
        mode: Mode::TUNNEL,
        ..SaInfo::default()
    }
}

/// How requests name an SA.
pub(crate) fn id(info: &SaInfo) -> SaId {
    let SaInfo { id, family, .. } = *info;
    SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto }
}

/// ALLOCSPI in a range.
pub(crate) fn allocate(info: SaInfo, min: u32, max: u32, list: Vec<Attribute>) -> Body {
    Body::AllocateSpi(SpiRequest { info, min, max }, Attributes(list))
}

/// A mark.
pub(crate) fn mark(value: u32, mask: u32) -> Attribute {
    Attribute::Mark(Mark { value, mask })
}

pub(crate) fn dump(list: Vec<Attribute>) -> Body {
    Body::DumpSa(Attributes(list))
}

/// Octets that may be a key.
pub(crate) fn key(octets: usize) -> Key {
    Key::new(Secret::new(vec![0x5a; octets]))
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

const ENDS: [&str; 4] = [
    "192.0.2.2 192.0.2.1",
    "192.0.2.1 192.0.2.2",
    "192.0.2.3 192.0.2.1",
    "2001:db8::2 2001:db8::1",
];

const ENCAPS: [EncapType; 3] = [EncapType::ESP_IN_UDP, EncapType::NON_IKE, EncapType(9)];

fn any_info(chance: &mut Chance) -> SaInfo {
    let spi = chance.of(&[0x100, 0x101, 0x102, 0x1000, 0, 5]);
    let mut info = info(chance.of(&ENDS), spi, chance.of(&[0, 1, 2]));
    info.mode = chance.of(&[Mode::TUNNEL, Mode::TUNNEL, Mode::TRANSPORT, Mode::BEET]);
    match chance.below(30) {
        0 => info.id.proto = sa::AH,
        1 => info.id.proto = chance.of(&[0, 43, 60, 255, 108]),
        2 => info.mode = Mode(chance.of(&[2, 3, 5, 6])),
        3 => info.id.daddr = Address::default(),
        4 => info.seq = chance.of(&[0, 1, 77]),
        5 => (info.sel.prefixlen_d, info.sel.family) = (chance.of(&[32, 33, 129]), Family::INET),
        6..9 => info.flags = chance.of(&[1, 2, 4, 8, 16, 32, 64, 128]),
        9 => info.replay_window = 32,
        _ => {}
    }
    info
}

/// Mark and interface, seldom.
fn name_attributes(chance: &mut Chance) -> Vec<Attribute> {
    let mut list = Vec::new();
    if chance.once_in(4) {
        let (value, mask) = chance.of(&[(1, 1), (1, 3), (2, 3), (0, 0), (4, 3), (0, 1)]);
        list.push(mark(value, mask));
    }
    if chance.once_in(6) {
        list.push(Attribute::IfId(chance.of(&[0, 1, 2])));
    }
    if chance.once_in(6) {
        list.push(Attribute::Direction(chance.of(&[
            SaDirection::IN,
            SaDirection::OUT,
            SaDirection(3),
            SaDirection(0),
        ])));
    }
    list
}

/// Attributes of an SA with keys, which may be wrong.
fn key_attributes(chance: &mut Chance) -> Vec<Attribute> {
    let mut list = name_attributes(chance);
    let hash = chance.of(&["hmac(sha256)", "sha256", "hmac(nothing)"]);
    let auth = Auth { name: name(hash), trunc_bits: chance.of(&[128, 96, 0, 512]), key: key(32) };
    let cipher = Algorithm { name: name("cbc(aes)"), key: key(chance.of(&[16, 32])) };
    if !chance.once_in(6) {
        list.push(Attribute::AlgAuthTrunc(auth));
    }
    if !chance.once_in(6) {
        list.push(Attribute::AlgCrypt(cipher.clone()));
    }
    match chance.below(20) {
        0 => list.push(Attribute::AlgComp(Algorithm { name: name("deflate"), key: key(0) })),
        1 => list.push(Attribute::TfcPadding(100)),
        2..7 => {
            let bitmap = vec![chance.of(&[0, 0, 1]); chance.below(3)];
            let replay_window = chance.of(&[0, 32, 33, 64, 65]);
            let (seq, oseq) = (chance.of(&[0, 0, 1, 1 << 32]), chance.of(&[0, 0, 1, 1 << 32]));
            list.push(Attribute::ReplayEsn(ReplayEsn { oseq, seq, replay_window, bitmap }));
        }
        7..9 => {
            let (seq, oseq, bitmap) = (chance.below(2), chance.below(2), chance.below(2));
            let [oseq, seq, bitmap] = [oseq, seq, bitmap].map(|of| u32::try_from(of).unwrap_or(0));
            list.push(Attribute::Replay(Replay { oseq, seq, bitmap }));
        }
        9..11 => list.push(Attribute::ExtraFlags(chance.of(&[0, 1, 2, 3]))),
        11 => list.push(Attribute::NatKeepalive(20)),
        12 => list.push(Attribute::SetMark(1)),
        13 => list.push(Attribute::SetMarkMask(1)),
        14 => list.push(Attribute::Encap(Encap { kind: chance.of(&ENCAPS), ..Encap::default() })),
        15 => list.push(Attribute::MappingThreshold(3)),
        16 => list.push(Attribute::AlgAuth(cipher)),
        _ => {}
    }
    list
}

fn any_id(chance: &mut Chance) -> SaId {
    let mut id = id(&any_info(chance));
    if chance.once_in(15) {
        id.family = Family(chance.of(&[0, 7, 10, 2]));
    }
    id
}

fn ae(chance: &mut Chance) -> (Body, u16) {
    let id = AeId { sa_id: any_id(chance), flags: chance.of(&[0, 1, 2, 9]), ..AeId::default() };
    if !chance.once_in(3) {
        return (Body::GetAe(id, Attributes(name_attributes(chance))), Flags::ACK);
    }
    let mut list = name_attributes(chance);
    match chance.below(4) {
        0 => list.push(Attribute::Replay(Replay { oseq: 5, ..Replay::default() })),
        1 => list.push(Attribute::Usage(Usage::default())),
        2 => list.push(Attribute::ReplayThreshold(5)),
        _ => {}
    }
    (Body::NewAe(id, Attributes(list)), chance.of(&[Flags::ACK, Flags::ACK | Flags::REPLACE]))
}

fn range(chance: &mut Chance) -> (u32, u32) {
    let far = (DRAWN_FROM, u32::MAX);
    chance.of(&[(0x100, 0x100), (0x101, 0x101), (0x102, 0x102), (0x1000, 0x1000), (5, 4), far])
}

fn any_dump(chance: &mut Chance) -> Body {
    let mut list = Vec::new();
    if chance.once_in(4) {
        list.push(Attribute::Proto(chance.of(&[0, 50, 51, 255, 9])));
    }
    if chance.once_in(4) {
        let info = any_info(chance);
        let (prefixlen_s, prefixlen_d) =
            (chance.of(&[0, 24, 31, 32, 33, 128]), chance.of(&[0, 30, 31, 32, 127, 129]));
        let (saddr, daddr, family) = (info.saddr, info.id.daddr, info.family);
        let filter = AddressFilter { saddr, daddr, family, prefixlen_s, prefixlen_d };
        list.push(Attribute::AddressFilter(filter));
    }
    dump(list)
}

fn request(chance: &mut Chance) -> (Body, u16) {
    let body = match chance.below(100) {
        0..35 => {
            let (min, max) = range(chance);
            allocate(any_info(chance), min, max, name_attributes(chance))
        }
        35..50 => Body::DeleteSa(any_id(chance), Attributes(name_attributes(chance))),
        50..62 => Body::GetSa(any_id(chance), Attributes(name_attributes(chance))),
        62..75 => return ae(chance),
        75..80 => {
            let expire = Expire { state: any_info(chance), hard: chance.of(&[0, 1]) };
            Body::Expire(expire, Attributes(name_attributes(chance)))
        }
        80..82 => Body::FlushSa(SaFlush { proto: chance.of(&[0, 50, 51, 255, 9]) }, none()),
        82..89 => Body::NewSa(any_info(chance), Attributes(key_attributes(chance))),
        89..93 => Body::UpdateSa(any_info(chance), Attributes(key_attributes(chance))),
        93..95 => Body::GetSadInfo(3),
        _ => return (any_dump(chance), Flags::DUMP),
    };
    (body, Flags::ACK)
}

/// What a kernel without ESP says where one with it would go on.
fn is_of_kernel(errno: Option<Errno>) -> bool {
    errno.is_some_and(|errno| [Errno::EPROTONOSUPPORT, Errno::ENOSYS].contains(&errno))
}

/// What SAs of either direction may have, and what not.
pub(crate) fn directions(lab: &mut SaLab) {
    let auth = Auth { name: name("hmac(sha256)"), trunc_bits: 128, key: key(32) };
    let cipher = Algorithm { name: name("cbc(aes)"), key: key(16) };
    let esn = |oseq, seq, replay_window, bit| {
        let bitmap = if bit == 9 { Vec::new() } else { vec![bit, 0] };
        Attribute::ReplayEsn(ReplayEsn { oseq, seq, replay_window, bitmap })
    };
    let old = |oseq, seq, bitmap| Attribute::Replay(Replay { oseq, seq, bitmap });
    let lists = [
        vec![],
        vec![esn(0, 0, 0, 0)],
        vec![esn(0, 0, 0, 9)],
        vec![esn(7, 0, 0, 9)],
        vec![esn(7 << 32, 0, 0, 9)],
        vec![esn(0, 7, 0, 9)],
        vec![esn(0, 0, 1, 0)],
        vec![esn(0, 0, 64, 0)],
        vec![esn(1, 0, 0, 0)],
        vec![esn(1 << 32, 0, 0, 0)],
        vec![esn(0, 1, 0, 0)],
        vec![esn(0, 1 << 32, 0, 0)],
        vec![esn(0, 0, 0, 1)],
        vec![old(0, 0, 0)],
        vec![old(1, 0, 0)],
        vec![old(0, 1, 0)],
        vec![old(0, 0, 1)],
        vec![Attribute::ExtraFlags(1)],
        vec![Attribute::ExtraFlags(2)],
        vec![Attribute::ExtraFlags(4)],
        vec![Attribute::NatKeepalive(20)],
        vec![Attribute::Encap(Encap { kind: EncapType::ESP_IN_UDP, ..Encap::default() })],
        vec![
            Attribute::Encap(Encap { kind: EncapType::ESP_IN_UDP, ..Encap::default() }),
            Attribute::MappingThreshold(4),
            Attribute::NatKeepalive(20),
        ],
        vec![Attribute::Usage(Usage::default())],
        vec![Attribute::TfcPadding(3)],
        vec![Attribute::IfId(3), Attribute::SetMark(3)],
    ];
    for direction in [None, Some(SaDirection::IN), Some(SaDirection::OUT)] {
        for flags in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
            for (list, replay_window) in lists.iter().flat_map(|list| [(list, 0), (list, 32)]) {
                let mut sa = info(ENDS[0], 0x1234, 1);
                (sa.flags, sa.replay_window) = (flags, replay_window);
                let mut list = list.clone();
                list.extend(direction.map(Attribute::Direction));
                list.push(Attribute::AlgAuthTrunc(auth.clone()));
                list.push(Attribute::AlgCrypt(cipher.clone()));
                lab.name = format!("{direction:?}, flags {flags}, {replay_window}, {list:?}");
                lab.ask_if(&Body::NewSa(sa, Attributes(list)), |errno| !is_of_kernel(errno));
            }
        }
    }
}

/// So many requests; a list of some length comes about.
pub(crate) fn requests(lab: &mut SaLab, seed: u64, count: usize) {
    let mut chance = Chance::new(seed);
    let mut most = 0;
    for number in 0..count {
        lab.name = format!("seed {seed}, request {number}");
        let (body, flags) = request(&mut chance);
        if matches!(body, Body::NewSa(..) | Body::UpdateSa(..)) {
            lab.ask_if(&body, |errno| !is_of_kernel(errno));
        } else {
            lab.ask_with(&body, flags);
        }
        if number % 10 == 0 {
            most = most.max(lab.ask(&dump(Vec::new())).answers.len());
        }
    }
    assert!(most > 3, "at most {most} SAs");
}
