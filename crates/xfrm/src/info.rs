//! Sizes of the databases, and the lengths of prefixes from which policies are hashed.

use crate::attribute::attributes;
use crate::octets::record;

record! {
    /// `struct xfrmu_sadhinfo`, `struct xfrmu_spdhinfo`: a hash table.
    pub struct HashSize: 8 {
        /// Buckets.
        pub count: u32,
        /// Most buckets.
        pub max: u32,
    }
}

record! {
    /// `struct xfrmu_spdinfo`: policies by direction.
    pub struct PolicyCounts: 24 {
        /// For this machine.
        pub inbound: u32,
        /// That leave.
        pub outbound: u32,
        /// That go on.
        pub forward: u32,
        /// Of sockets, for this machine.
        pub socket_inbound: u32,
        /// Of sockets, that leave.
        pub socket_outbound: u32,
        /// Of sockets, that go on.
        pub socket_forward: u32,
    }
}

record! {
    /// `struct xfrmu_spdhthresh`: bits of prefix from which policies are hashed.
    pub struct HashThreshold: 2 {
        /// Of the local network.
        pub local_bits: u8,
        /// Of the remote network.
        pub remote_bits: u8,
    }
}

attributes! {
    /// An attribute of the answer to GETSADINFO.
    pub enum SadAttribute {
        /// SAs that there are.
        Count(u32) = 1 "XFRMA_SAD_CNT",
        /// Their hash table.
        Hash(HashSize) = 2 "XFRMA_SAD_HINFO",
    }
}

attributes! {
    /// An attribute of the answer to GETSPDINFO, or of NEWSPDINFO.
    pub enum SpdAttribute {
        /// Policies that there are.
        Counts(PolicyCounts) = 1 "XFRMA_SPD_INFO",
        /// Their hash table.
        Hash(HashSize) = 2 "XFRMA_SPD_HINFO",
        /// Prefixes from which IPv4 policies are hashed.
        Ipv4Threshold(HashThreshold) = 3 "XFRMA_SPD_IPV4_HTHRESH",
        /// Prefixes from which IPv6 policies are hashed.
        Ipv6Threshold(HashThreshold) = 4 "XFRMA_SPD_IPV6_HTHRESH",
    }
}
