//! Attributes: what follows the fixed part of a message, in its order, the unknown included.
//!
//! As in the kernel, the last one of a kind counts, one that is too short is refused (ERANGE), and
//! octets behind what one needs are not looked at. Other than in the kernel, what is no attribute
//! behind the last one is refused unless it is zero.

use crate::address::Address;
use crate::algorithm::Aead;
use crate::algorithm::Algorithm;
use crate::algorithm::Auth;
use crate::error::Errno;
use crate::error::Expected;
use crate::error::Malformed;
use crate::lifetime::Usage;
use crate::migrate::KmAddress;
use crate::migrate::Migrate;
use crate::octets::Field;
use crate::octets::Reader;
use crate::octets::Writer;
use crate::octets::aligned;
use crate::policy::PolicyInfo;
use crate::policy::PolicyType;
use crate::policy::Template;
use crate::replay::Replay;
use crate::replay::ReplayEsn;
use crate::sa::AddressFilter;
use crate::sa::Encap;
use crate::sa::Mark;
use crate::sa::Offload;
use crate::sa::SaDirection;
use crate::sa::SaInfo;
use crate::sa::SecurityContext;
use crate::secret::Secret;

/// Most attributes of a message. There are 42 kinds.
pub const ATTRIBUTES_MAX: usize = 256;

/// Octets of length and kind.
pub(crate) const HEADER_LEN: usize = 4;

/// What of an attribute's type is its kind; the two bits above say "nested" and "network order".
const KIND_MASK: u16 = 0x3fff;

/// Why an attribute's value is wrong, before its name and place are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    expected: Expected,
    errno: Errno,
}

impl Fault {
    pub(crate) const fn short(len: usize) -> Fault {
        Fault { expected: Expected::Octets(len), errno: Errno::ERANGE }
    }

    pub(crate) const fn value(expected: &'static str, errno: Errno) -> Fault {
        Fault { expected: Expected::Text(expected), errno }
    }
}

/// Value of an attribute.
pub(crate) trait Payload: Sized {
    /// Reads the value that `octets` begin with.
    fn parse(octets: &[u8]) -> Result<Self, Fault>;

    /// Appends the value.
    fn write(&self, writer: &mut Writer);
}

impl<T: Field> Payload for T {
    fn parse(octets: &[u8]) -> Result<T, Fault> {
        let short = Fault::short(T::LEN);
        let octets = octets.get(..T::LEN).ok_or(short)?;
        T::read(&mut Reader::new(octets)).ok_or(short)
    }

    fn write(&self, writer: &mut Writer) {
        writer.record(self);
    }
}

/// Records that are much larger than most values.
macro_rules! boxed {
    ($($record:ty)*) => {$(
        impl Payload for Box<$record> {
            fn parse(octets: &[u8]) -> Result<Box<$record>, Fault> {
                Payload::parse(octets).map(Box::new)
            }

            fn write(&self, writer: &mut Writer) {
                writer.record(&**self);
            }
        }
    )*};
}

boxed!(SaInfo PolicyInfo);

/// Records one behind the other, one at least.
fn parse_records<T: Field>(octets: &[u8], max: usize, expected: &'static str) -> RecordsOf<T> {
    let invalid = Fault::value(expected, Errno::EINVAL);
    if octets.len() < T::LEN {
        return Err(Fault::short(T::LEN));
    }
    if !octets.len().is_multiple_of(T::LEN) || octets.len() / T::LEN > max {
        return Err(invalid);
    }
    octets.chunks(T::LEN).map(|octets| T::read(&mut Reader::new(octets)).ok_or(invalid)).collect()
}

type RecordsOf<T> = Result<Vec<T>, Fault>;

/// Most templates of a policy, and most changes of one MIGRATE (`XFRM_MAX_DEPTH`).
pub const DEPTH_MAX: usize = 6;

impl Payload for Vec<Template> {
    fn parse(octets: &[u8]) -> Result<Vec<Template>, Fault> {
        parse_records(octets, DEPTH_MAX, "one to six templates")
    }

    fn write(&self, writer: &mut Writer) {
        self.iter().for_each(|template| writer.record(template));
    }
}

impl Payload for Vec<Migrate> {
    fn parse(octets: &[u8]) -> Result<Vec<Migrate>, Fault> {
        parse_records(octets, DEPTH_MAX, "one to six changes of addresses")
    }

    fn write(&self, writer: &mut Writer) {
        self.iter().for_each(|change| writer.record(change));
    }
}

/// An attribute of a kind that is not known here. Its value may be a key, for all we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its type as it stands there, flags included.
    pub kind: u16,
    /// Its value.
    pub octets: Secret,
}

/// An attribute of any of the three sets.
pub(crate) trait Tlv: Sized {
    fn parse(kind: u16, octets: &[u8]) -> Result<Self, (&'static str, Fault)>;

    fn kind(&self) -> u16;

    fn write_value(&self, writer: &mut Writer);
}

/// A set of attributes by number and name.
macro_rules! attributes {
    (
        $(#[$meta:meta])*
        pub enum $set:ident {
            $($(#[$variant_meta:meta])* $variant:ident($type:ty) = $kind:literal $name:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $set {
            $($(#[$variant_meta])* $variant($type),)*
            /// Of a kind that is not known here.
            Unknown($crate::attribute::Unknown),
        }

        impl $crate::attribute::Tlv for $set {
            fn parse(
                kind: u16,
                octets: &[u8],
            ) -> Result<$set, (&'static str, $crate::attribute::Fault)> {
                match $crate::attribute::known(kind) {
                    $($kind => $crate::attribute::Payload::parse(octets)
                        .map($set::$variant)
                        .map_err(|fault| ($name, fault)),)*
                    _ => {
                        let octets = octets.into();
                        Ok($set::Unknown($crate::attribute::Unknown { kind, octets }))
                    }
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    $($set::$variant(_) => $kind,)*
                    $set::Unknown(unknown) => unknown.kind,
                }
            }

            fn write_value(&self, writer: &mut $crate::octets::Writer) {
                match self {
                    $($set::$variant(value) => {
                        $crate::attribute::Payload::write(value, writer);
                    })*
                    $set::Unknown(unknown) => writer.put(unknown.octets.octets()),
                }
            }
        }

        impl $set {
            /// Its name in `linux/xfrm.h`.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $($set::$variant(_) => $name,)*
                    $set::Unknown(_) => "unknown",
                }
            }
        }
    };
}
pub(crate) use attributes;

/// The kind without flags.
pub(crate) fn known(kind: u16) -> u16 {
    kind & KIND_MASK
}

attributes! {
    /// An attribute of an SA, a policy, or a message about them.
    pub enum Attribute {
        /// Integrity with the truncation that the kernel has for it.
        AlgAuth(Algorithm) = 1 "XFRMA_ALG_AUTH",
        /// Encryption.
        AlgCrypt(Algorithm) = 2 "XFRMA_ALG_CRYPT",
        /// Compression.
        AlgComp(Algorithm) = 3 "XFRMA_ALG_COMP",
        /// UDP around ESP.
        Encap(Encap) = 4 "XFRMA_ENCAP",
        /// Templates of a policy, in the order in which SAs are applied to what is sent.
        Templates(Vec<Template>) = 5 "XFRMA_TMPL",
        /// The SA that was deleted.
        Sa(Box<SaInfo>) = 6 "XFRMA_SA",
        /// The policy that was deleted.
        Policy(Box<PolicyInfo>) = 7 "XFRMA_POLICY",
        /// A label.
        SecurityContext(SecurityContext) = 8 "XFRMA_SEC_CTX",
        /// What was used so far.
        Usage(Usage) = 9 "XFRMA_LTIME_VAL",
        /// Sequence numbers of 32 bits.
        Replay(Replay) = 10 "XFRMA_REPLAY_VAL",
        /// Packets after which an SA tells of itself.
        ReplayThreshold(u32) = 11 "XFRMA_REPLAY_THRESH",
        /// Tenths of a second after which an SA tells of itself.
        TimerThreshold(u32) = 12 "XFRMA_ETIMER_THRESH",
        /// Source address of the SA that is meant.
        SourceAddress(Address) = 13 "XFRMA_SRCADDR",
        /// Care-of address of Mobile IPv6.
        CareOfAddress(Address) = 14 "XFRMA_COADDR",
        /// When the SA was last used, in seconds since 1970.
        LastUsed(u64) = 15 "XFRMA_LASTUSED",
        /// Which of the policy databases is meant.
        PolicyType(PolicyType) = 16 "XFRMA_POLICY_TYPE",
        /// Changes of addresses.
        Migrate(Vec<Migrate>) = 17 "XFRMA_MIGRATE",
        /// Encryption and integrity in one.
        AlgAead(Aead) = 18 "XFRMA_ALG_AEAD",
        /// Addresses that IKE uses after a change of addresses.
        KmAddress(KmAddress) = 19 "XFRMA_KMADDRESS",
        /// Integrity.
        AlgAuthTrunc(Auth) = 20 "XFRMA_ALG_AUTH_TRUNC",
        /// Mark of packets that the SA or policy is for.
        Mark(Mark) = 21 "XFRMA_MARK",
        /// Octets up to which packets are padded (RFC 4303 section 2.7).
        TfcPadding(u32) = 22 "XFRMA_TFCPAD",
        /// Sequence numbers of 64 bits, or a window of more than 32.
        ReplayEsn(ReplayEsn) = 23 "XFRMA_REPLAY_ESN_VAL",
        /// Bits of [`crate::sa::ExtraFlags`].
        ExtraFlags(u32) = 24 "XFRMA_SA_EXTRA_FLAGS",
        /// Protocol of the SAs that a dump is to list; 0 for any.
        Proto(u8) = 25 "XFRMA_PROTO",
        /// Addresses of the SAs that a dump is to list.
        AddressFilter(AddressFilter) = 26 "XFRMA_ADDRESS_FILTER",
        /// Interface that is to do the work.
        Offload(Offload) = 28 "XFRMA_OFFLOAD_DEV",
        /// Mark that packets get.
        SetMark(u32) = 29 "XFRMA_SET_MARK",
        /// Bits of the mark that packets get.
        SetMarkMask(u32) = 30 "XFRMA_SET_MARK_MASK",
        /// XFRM interface that the SA or policy belongs to.
        IfId(u32) = 31 "XFRMA_IF_ID",
        /// Seconds between two MAPPING messages about an SA.
        MappingThreshold(u32) = 32 "XFRMA_MTIMER_THRESH",
        /// Whether the SA receives or sends.
        Direction(SaDirection) = 33 "XFRMA_SA_DIR",
        /// Seconds between keepalives that the kernel sends.
        NatKeepalive(u32) = 34 "XFRMA_NAT_KEEPALIVE_INTERVAL",
        /// Processor that the SA is for (RFC 9611).
        Cpu(u32) = 35 "XFRMA_SA_PCPU",
        /// IP-TFS: microseconds until a missing packet is given up.
        IptfsDropTime(u32) = 36 "XFRMA_IPTFS_DROP_TIME",
        /// IP-TFS: packets that may arrive out of order.
        IptfsReorderWindow(u16) = 37 "XFRMA_IPTFS_REORDER_WINDOW",
        /// IP-TFS: packets are not fragmented.
        IptfsDontFragment(()) = 38 "XFRMA_IPTFS_DONT_FRAG",
        /// IP-TFS: microseconds that a packet waits for others.
        IptfsInitDelay(u32) = 39 "XFRMA_IPTFS_INIT_DELAY",
        /// IP-TFS: octets that wait at most.
        IptfsMaxQueue(u32) = 40 "XFRMA_IPTFS_MAX_QSIZE",
        /// IP-TFS: octets of a packet.
        IptfsPacketSize(u32) = 41 "XFRMA_IPTFS_PKT_SIZE",
    }
}

/// Attributes in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(
    /// The attributes.
    pub Vec<Attribute>,
);

/// Value of the last attribute of a kind, as the kernel takes it.
macro_rules! last {
    ($($(#[$meta:meta])* $name:ident: $variant:ident($type:ty),)*) => {
        impl Attributes {
            $($(#[$meta])*
            #[must_use]
            pub fn $name(&self) -> Option<&$type> {
                self.0.iter().rev().find_map(|attribute| match attribute {
                    Attribute::$variant(value) => Some(value),
                    _ => None,
                })
            })*
        }
    };
}

last! {
    /// Integrity with the truncation that the kernel has for it.
    alg_auth: AlgAuth(Algorithm),
    /// Encryption.
    alg_crypt: AlgCrypt(Algorithm),
    /// Compression.
    alg_comp: AlgComp(Algorithm),
    /// Encryption and integrity in one.
    alg_aead: AlgAead(Aead),
    /// Integrity.
    alg_auth_trunc: AlgAuthTrunc(Auth),
    /// UDP around ESP.
    encap: Encap(Encap),
    /// Templates of a policy.
    templates: Templates(Vec<Template>),
    /// What was used so far.
    usage: Usage(Usage),
    /// Sequence numbers of 32 bits.
    replay: Replay(Replay),
    /// Sequence numbers of 64 bits, or a window of more than 32.
    replay_esn: ReplayEsn(ReplayEsn),
    /// Packets after which an SA tells of itself.
    replay_threshold: ReplayThreshold(u32),
    /// Tenths of a second after which an SA tells of itself.
    timer_threshold: TimerThreshold(u32),
    /// Source address of the SA that is meant.
    source_address: SourceAddress(Address),
    /// Care-of address of Mobile IPv6.
    care_of_address: CareOfAddress(Address),
    /// When the SA was last used, in seconds since 1970.
    last_used: LastUsed(u64),
    /// Which of the policy databases is meant.
    policy_type: PolicyType(PolicyType),
    /// Changes of addresses.
    migrate: Migrate(Vec<Migrate>),
    /// Mark of packets that the SA or policy is for.
    mark: Mark(Mark),
    /// XFRM interface that the SA or policy belongs to.
    if_id: IfId(u32),
    /// Octets up to which packets are padded.
    tfc_padding: TfcPadding(u32),
    /// Bits of [`crate::sa::ExtraFlags`].
    extra_flags: ExtraFlags(u32),
    /// Whether the SA receives or sends.
    direction: Direction(SaDirection),
    /// Seconds between two MAPPING messages about an SA.
    mapping_threshold: MappingThreshold(u32),
    /// Seconds between keepalives.
    nat_keepalive: NatKeepalive(u32),
    /// Protocol of the SAs that a dump is to list.
    proto: Proto(u8),
    /// Addresses of the SAs that a dump is to list.
    address_filter: AddressFilter(AddressFilter),
}

/// What to do about octets that are no attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They are refused unless they are zero.
    Refuse,
    /// The list ends there. So the kernel does, and dumps need it: some begin with a record of
    /// routing instead.
    Ignore,
}

/// Reads the attributes from `at` to the end of `message`.
pub(crate) fn parse<A: Tlv>(message: &[u8], at: usize, rest: Rest) -> Result<Vec<A>, Malformed> {
    // No more room than they need: they may stay for as long as an SA does.
    let mut list = Vec::with_capacity(count(message, at));
    let mut at = at;
    while let Some(octets) = message.get(at..).filter(|octets| !octets.is_empty()) {
        let Some((kind, value)) = split(octets) else {
            if rest == Rest::Refuse && octets.iter().any(|octet| *octet != 0) {
                let what = "the length of an attribute that lies inside the message";
                return Err(Malformed::value("nla_len", what).placed(at));
            }
            break;
        };
        if list.len() == ATTRIBUTES_MAX {
            return Err(Malformed::value("nlattr", "at most 256 attributes").placed(at));
        }
        let attribute = A::parse(kind, value).map_err(|(field, fault)| {
            let Fault { expected, errno } = fault;
            Malformed { field, expected, errno, at: None }.placed(at)
        })?;
        list.push(attribute);
        at += aligned(HEADER_LEN + value.len(), 4);
    }
    Ok(list)
}

/// How many attributes there are from `at` on.
fn count(message: &[u8], mut at: usize) -> usize {
    let mut next = || {
        let (_, value) = split(message.get(at..)?)?;
        at += aligned(HEADER_LEN + value.len(), 4);
        Some(())
    };
    (0..ATTRIBUTES_MAX).map_while(|_| next()).count()
}

/// Type and value of the attribute that `octets` begin with.
pub(crate) fn split(octets: &[u8]) -> Option<(u16, &[u8])> {
    let [len_low, len_high, kind_low, kind_high] = *octets.first_chunk()?;
    let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
    let value = octets.get(HEADER_LEN..len)?;
    Some((u16::from_ne_bytes([kind_low, kind_high]), value))
}

/// Appends the attributes, padded.
pub(crate) fn write<A: Tlv>(list: &[A], writer: &mut Writer) {
    for attribute in list {
        write_one(attribute.kind(), writer, |writer| attribute.write_value(writer));
    }
}

/// Appends one attribute, whose value `value` writes.
pub(crate) fn write_one(kind: u16, writer: &mut Writer, value: impl FnOnce(&mut Writer)) {
    let at = writer.len();
    writer.put(&[0; 2]);
    writer.put(&kind.to_ne_bytes());
    value(writer);
    let len = u16::try_from(writer.len() - at).expect("an attribute of less than 64 KiB");
    writer.patch(at, len.to_ne_bytes());
    writer.align(4);
}
