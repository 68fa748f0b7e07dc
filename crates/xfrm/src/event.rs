//! What the kernel tells of itself: expiry, acquire, mapping, report, and numbers of SAs. It goes
//! to those who listen to the [`Groups`] concerned.

use crate::address::Address;
use crate::address::Port;
use crate::octets::record;
use crate::policy::PolicyInfo;
use crate::sa::SaId;
use crate::sa::SaInfo;
use crate::sa::XfrmId;
use crate::selector::Selector;

/// Groups of listeners, as the bits that `bind` is given.
#[derive(Clone, Copy, Debug)]
pub struct Groups;

impl Groups {
    /// SAs are wanted.
    pub const ACQUIRE: u32 = 1;
    /// SAs and policies expired.
    pub const EXPIRE: u32 = 1 << 1;
    /// SAs were made, changed, deleted.
    pub const SA: u32 = 1 << 2;
    /// Policies were made, changed, deleted.
    pub const POLICY: u32 = 1 << 3;
    /// Numbers of SAs advanced.
    pub const AEVENTS: u32 = 1 << 4;
    /// Reports of Mobile IPv6.
    pub const REPORT: u32 = 1 << 5;
    /// SAs and policies got new addresses.
    pub const MIGRATE: u32 = 1 << 6;
    /// A peer's address or port was mapped anew.
    pub const MAPPING: u32 = 1 << 7;
}

record! {
    /// `struct xfrm_user_expire`: an SA expired.
    pub struct Expire: 232 {
        /// The SA.
        pub state: SaInfo,
        /// 1 if it is gone, 0 if it is to be replaced.
        pub hard: u8,
    }
}

record! {
    /// `struct xfrm_user_polexpire`: a policy expired.
    pub struct PolicyExpire: 176 {
        /// The policy.
        pub policy: PolicyInfo,
        /// 1 if it is gone, 0 if it is to be replaced.
        pub hard: u8,
    }
}

record! {
    /// `struct xfrm_user_acquire`: a packet wants an SA that is not there.
    pub struct Acquire: 280 {
        /// Destination and protocol of the SA.
        pub id: XfrmId,
        /// Its source.
        pub saddr: Address,
        /// The packet.
        pub sel: Selector,
        /// The policy that asks for it.
        pub policy: PolicyInfo,
        /// Algorithms of integrity that may be used, as bits.
        pub aalgos: u32,
        /// Algorithms of encryption that may be used, as bits.
        pub ealgos: u32,
        /// Algorithms of compression that may be used, as bits.
        pub calgos: u32,
        /// Number of this request, for [`SaInfo::seq`].
        pub seq: u32,
    }
}

record! {
    /// `struct xfrm_user_mapping`: authentic packets of an SA come from another address or port.
    pub struct Mapping: 64 {
        /// The SA.
        pub id: SaId,
        /// Its reqid.
        pub reqid: u32,
        /// Source so far.
        pub old_saddr: Address,
        /// Source now.
        pub new_saddr: Address,
        /// Source port so far.
        pub old_sport: Port,
        /// Source port now.
        pub new_sport: Port,
    }
}

record! {
    /// `struct xfrm_user_report`: a packet of Mobile IPv6 that no policy allows.
    pub struct Report: 60 {
        /// Its extension header.
        pub proto: u8,
        /// The packet.
        pub sel: Selector,
    }
}

/// Bits of [`AeId::flags`].
#[derive(Clone, Copy, Debug)]
pub struct AeFlags;

impl AeFlags {
    /// The threshold of packets is wanted.
    pub const REPLAY_THRESHOLD: u32 = 1;
    /// Sequence numbers are wanted, or there.
    pub const REPLAY_VALUE: u32 = 2;
    /// What was used is wanted, or there.
    pub const LIFETIME_VALUE: u32 = 4;
    /// The threshold of time is wanted.
    pub const TIMER_THRESHOLD: u32 = 8;
    /// Told because of the threshold of packets.
    pub const BY_REPLAY: u32 = 16;
    /// Told because of the threshold of time.
    pub const BY_TIMER: u32 = 32;
    /// Told because somebody set it.
    pub const BY_UPDATE: u32 = 64;
}

record! {
    /// `struct xfrm_aevent_id`: numbers of which SA, and which of them.
    pub struct AeId: 48 {
        /// The SA.
        pub sa_id: SaId,
        /// Its source.
        pub saddr: Address,
        /// Bits of [`AeFlags`].
        pub flags: u32,
        /// Its reqid.
        pub reqid: u32,
    }
}
