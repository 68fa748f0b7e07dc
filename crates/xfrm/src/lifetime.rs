//! Lifetimes: what may be used, and what was.

use crate::octets::record;

/// A limit that is none.
pub const INFINITE: u64 = u64::MAX;

record! {
    /// `struct xfrm_lifetime_cfg`: when to replace (soft) and when to stop (hard).
    ///
    /// Octets and packets are unlimited at [`INFINITE`], seconds at 0. IKE daemons compute soft
    /// limits from infinite ones: a soft limit above the hard one is none.
    pub struct Limits: 64 {
        /// Octets.
        pub soft_bytes: u64,
        /// Octets.
        pub hard_bytes: u64,
        /// Packets.
        pub soft_packets: u64,
        /// Packets.
        pub hard_packets: u64,
        /// Seconds since it was made.
        pub soft_age_secs: u64,
        /// Seconds since it was made.
        pub hard_age_secs: u64,
        /// Seconds since it was first used.
        pub soft_use_secs: u64,
        /// Seconds since it was first used.
        pub hard_use_secs: u64,
    }
}

impl Limits {
    /// No limits at all.
    pub const UNLIMITED: Limits = Limits {
        soft_bytes: INFINITE,
        hard_bytes: INFINITE,
        soft_packets: INFINITE,
        hard_packets: INFINITE,
        soft_age_secs: 0,
        hard_age_secs: 0,
        soft_use_secs: 0,
        hard_use_secs: 0,
    };
}

record! {
    /// `struct xfrm_lifetime_cur`: what was used so far.
    pub struct Usage: 32 {
        /// Octets.
        pub bytes: u64,
        /// Packets.
        pub packets: u64,
        /// When it was made, in seconds since 1970.
        pub add_time: u64,
        /// When it was first used, of a policy last; in seconds since 1970, 0 for never.
        pub use_time: u64,
    }
}
