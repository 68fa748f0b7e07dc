//! New addresses for SAs and policies (MOBIKE, RFC 4555).

use crate::address::Address;
use crate::address::Family;
use crate::octets::record;
use crate::sa::Mode;

record! {
    /// `struct xfrm_user_migrate`: SAs and templates that get new addresses.
    pub struct Migrate: 76 {
        /// Destination so far.
        pub old_daddr: Address,
        /// Source so far.
        pub old_saddr: Address,
        /// Destination from now on.
        pub new_daddr: Address,
        /// Source from now on.
        pub new_saddr: Address,
        /// Protocol of the SAs.
        pub proto: u8,
        /// Their mode.
        pub mode: Mode,
        /// Zero.
        pub reserved: u16,
        /// Their reqid.
        pub reqid: u32,
        /// Family of the addresses so far.
        pub old_family: Family,
        /// Family of the addresses from now on.
        pub new_family: Family,
    }
}

record! {
    /// `struct xfrm_user_kmaddress`: addresses that IKE uses from now on.
    pub struct KmAddress: 40 {
        /// Ours.
        pub local: Address,
        /// The peer's.
        pub remote: Address,
        /// Zero.
        pub reserved: u32,
        /// Family of both.
        pub family: Family,
    }
}
