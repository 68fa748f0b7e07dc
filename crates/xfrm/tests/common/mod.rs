//! Recorded frames, and messages of every kind with any values.

#![allow(dead_code, reason = "each test uses some of it")]

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::Secret;
use culvert_xfrm::address::Address;
use culvert_xfrm::algorithm::Aead;
use culvert_xfrm::algorithm::Algorithm;
use culvert_xfrm::algorithm::Auth;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::attribute::Unknown;
use culvert_xfrm::event::Acquire;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::event::Mapping;
use culvert_xfrm::event::PolicyExpire;
use culvert_xfrm::event::Report;
use culvert_xfrm::info::HashSize;
use culvert_xfrm::info::HashThreshold;
use culvert_xfrm::info::PolicyCounts;
use culvert_xfrm::info::SadAttribute;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::migrate::KmAddress;
use culvert_xfrm::migrate::Migrate;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::PolicyType;
use culvert_xfrm::policy::Template;
use culvert_xfrm::replay::Replay;
use culvert_xfrm::replay::ReplayEsn;
use culvert_xfrm::sa::AddressFilter;
use culvert_xfrm::sa::Encap;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::Offload;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SecurityContext;
use culvert_xfrm::sa::SpiRequest;
use proptest::array::uniform16;
use proptest::collection::vec;
use proptest::prelude::*;

/// A recorded frame.
pub(crate) struct Recorded {
    /// Which command it belongs to.
    pub(crate) name: String,
    /// Whether it asks.
    pub(crate) is_request: bool,
    /// Its octets.
    pub(crate) octets: Vec<u8>,
}

/// What iproute2 and the kernel said to each other.
pub(crate) fn recorded() -> Vec<Recorded> {
    let lines = include_str!("../frames/iproute2.txt").lines();
    let frames = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().expect("a word");
        let (name, direction) = (word(), word());
        let octets = hex::decode(word()).expect("hexadecimal digits");
        Recorded { name, is_request: direction == ">", octets }
    });
    frames.collect()
}

/// The request or the last answer of a command.
pub(crate) fn frame(name: &str, is_request: bool) -> Vec<u8> {
    let matches = |frame: &Recorded| frame.name == name && frame.is_request == is_request;
    recorded().into_iter().find(matches).expect("a recorded frame").octets
}

/// Requests that the kernel refuses: errno, octets, what is wrong.
pub(crate) fn refused() -> Vec<(i32, Vec<u8>, &'static str)> {
    let lines = include_str!("../frames/refused.txt").lines();
    let frames = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("a word");
        let errno = word().parse().expect("a number");
        (errno, hex::decode(word()).expect("hexadecimal digits"), word())
    });
    frames.collect()
}

/// Any value of a record: any octets are one.
macro_rules! any_of {
    ($type:ty) => {
        vec(any::<u8>(), <$type>::LEN)
            .prop_map(|octets| <$type>::read(&octets).expect("as many octets as it has"))
    };
}

fn key() -> impl Strategy<Value = Key> {
    vec(any::<u8>(), 0..80).prop_map(|octets| Key::new(Secret::new(octets)))
}

fn name() -> impl Strategy<Value = Name> {
    "[!-~]{1,63}".prop_map(|text| Name::new(&text).expect("a name"))
}

fn address() -> impl Strategy<Value = Address> {
    uniform16(any::<u8>()).prop_map(Address)
}

fn algorithms() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        (name(), key()).prop_map(|(name, key)| Attribute::AlgAuth(Algorithm { name, key })),
        (name(), key()).prop_map(|(name, key)| Attribute::AlgCrypt(Algorithm { name, key })),
        (name(), key()).prop_map(|(name, key)| Attribute::AlgComp(Algorithm { name, key })),
        (name(), any::<u32>(), key()).prop_map(|(name, icv_bits, key)| Attribute::AlgAead(Aead {
            name,
            icv_bits,
            key
        })),
        (name(), any::<u32>(), key()).prop_map(|(name, trunc_bits, key)| {
            Attribute::AlgAuthTrunc(Auth { name, trunc_bits, key })
        }),
    ]
}

fn records() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        any_of!(Encap).prop_map(Attribute::Encap),
        vec(any_of!(Template), 1..=6).prop_map(Attribute::Templates),
        any_of!(SaInfo).prop_map(Box::new).prop_map(Attribute::Sa),
        any_of!(PolicyInfo).prop_map(Box::new).prop_map(Attribute::Policy),
        any_of!(Usage).prop_map(Attribute::Usage),
        any_of!(Replay).prop_map(Attribute::Replay),
        address().prop_map(Attribute::SourceAddress),
        address().prop_map(Attribute::CareOfAddress),
        any_of!(PolicyType).prop_map(Attribute::PolicyType),
        vec(any_of!(Migrate), 1..=6).prop_map(Attribute::Migrate),
        any_of!(KmAddress).prop_map(Attribute::KmAddress),
        any_of!(Mark).prop_map(Attribute::Mark),
        any_of!(AddressFilter).prop_map(Attribute::AddressFilter),
        any_of!(Offload).prop_map(Attribute::Offload),
    ]
}

fn numbers() -> impl Strategy<Value = Attribute> {
    any::<u32>().prop_flat_map(|n| {
        prop_oneof![
            Just(Attribute::ReplayThreshold(n)),
            Just(Attribute::TimerThreshold(n)),
            Just(Attribute::LastUsed(u64::from(n) << 20)),
            Just(Attribute::TfcPadding(n)),
            Just(Attribute::ExtraFlags(n)),
            Just(Attribute::Proto(n.to_ne_bytes()[0])),
            Just(Attribute::SetMark(n)),
            Just(Attribute::SetMarkMask(n)),
            Just(Attribute::IfId(n)),
            Just(Attribute::MappingThreshold(n)),
            Just(Attribute::Direction(SaDirection(n.to_ne_bytes()[0]))),
            Just(Attribute::NatKeepalive(n)),
            Just(Attribute::Cpu(n)),
        ]
    })
}

fn iptfs() -> impl Strategy<Value = Attribute> {
    any::<u16>().prop_flat_map(|n| {
        prop_oneof![
            Just(Attribute::IptfsDropTime(n.into())),
            Just(Attribute::IptfsReorderWindow(n)),
            Just(Attribute::IptfsDontFragment(())),
            Just(Attribute::IptfsInitDelay(n.into())),
            Just(Attribute::IptfsMaxQueue(n.into())),
            Just(Attribute::IptfsPacketSize(n.into())),
        ]
    })
}

fn others() -> impl Strategy<Value = Attribute> {
    let esn = (any::<u64>(), any::<u64>(), any::<u32>(), vec(any::<u32>(), 0..=128));
    let label = (any::<u16>(), any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..50));
    // Kinds that have no meaning: none, padding, and those of tomorrow.
    let kind = prop_oneof![Just(0), Just(27), 42u16..0x4000, 0x802au16..0xc000];
    prop_oneof![
        esn.prop_map(|(oseq, seq, replay_window, bitmap)| {
            Attribute::ReplayEsn(ReplayEsn { oseq, seq, replay_window, bitmap })
        }),
        label.prop_map(|(exttype, alg, doi, text)| {
            let text = Secret::new(text);
            Attribute::SecurityContext(SecurityContext { exttype, alg, doi, text })
        }),
        (kind, vec(any::<u8>(), 0..50)).prop_map(|(kind, octets)| {
            Attribute::Unknown(Unknown { kind, octets: Secret::new(octets) })
        }),
    ]
}

/// Any attributes in any order.
pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    let one = prop_oneof![algorithms(), records(), numbers(), iptfs(), others()];
    vec(one, 0..6).prop_map(Attributes)
}

macro_rules! body_of {
    ($variant:ident($type:ty)) => {
        (any_of!($type), attributes())
            .prop_map(|(record, attributes)| Body::$variant(record, attributes))
            .boxed()
    };
}

fn info() -> BoxedStrategy<Body> {
    let sad = prop_oneof![
        any::<u32>().prop_map(SadAttribute::Count),
        any_of!(HashSize).prop_map(SadAttribute::Hash),
    ];
    let spd = prop_oneof![
        any_of!(PolicyCounts).prop_map(SpdAttribute::Counts),
        any_of!(HashSize).prop_map(SpdAttribute::Hash),
        any_of!(HashThreshold).prop_map(SpdAttribute::Ipv4Threshold),
        any_of!(HashThreshold).prop_map(SpdAttribute::Ipv6Threshold),
    ];
    prop_oneof![
        any::<u32>().prop_map(Body::GetSadInfo),
        any::<u32>().prop_map(Body::GetSpdInfo),
        (any::<u32>(), vec(sad, 0..4)).prop_map(|(flags, list)| Body::NewSadInfo(flags, list)),
        (any::<u32>(), vec(spd, 0..5)).prop_map(|(flags, list)| Body::NewSpdInfo(flags, list)),
        attributes().prop_map(Body::FlushPolicy),
        attributes().prop_map(Body::DumpSa),
        attributes().prop_map(Body::DumpPolicy),
    ]
    .boxed()
}

/// Any message but answers without a body of XFRM.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    let body = proptest::strategy::Union::new([
        body_of!(NewSa(SaInfo)),
        body_of!(UpdateSa(SaInfo)),
        body_of!(DeleteSa(SaId)),
        body_of!(GetSa(SaId)),
        body_of!(FlushSa(SaFlush)),
        body_of!(AllocateSpi(SpiRequest)),
        body_of!(NewPolicy(PolicyInfo)),
        body_of!(UpdatePolicy(PolicyInfo)),
        body_of!(DeletePolicy(PolicyId)),
        body_of!(GetPolicy(PolicyId)),
        body_of!(NewAe(AeId)),
        body_of!(GetAe(AeId)),
        body_of!(Migrate(PolicyId)),
        body_of!(SetDefault(Defaults)),
        body_of!(GetDefault(Defaults)),
        body_of!(Acquire(Acquire)),
        body_of!(Expire(Expire)),
        body_of!(PolicyExpire(PolicyExpire)),
        body_of!(Mapping(Mapping)),
        body_of!(Report(Report)),
        info(),
        info(),
    ]);
    (any::<u32>(), any::<u32>(), body).prop_map(|(seq, port, body)| {
        let flags = match body {
            Body::DumpSa(_) | Body::DumpPolicy(_) => 0x301,
            _ => 5,
        };
        Message { flags, seq, port, body }
    })
}
