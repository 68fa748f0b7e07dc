//! Selectors: which packets a policy or an SA is for.

use crate::address::Address;
use crate::address::Family;
use crate::address::Port;
use crate::octets::record;

record! {
    /// `struct xfrm_selector`: which packets a policy or an SA is for.
    pub struct Selector: 56 {
        /// Destination network.
        pub daddr: Address,
        /// Source network.
        pub saddr: Address,
        /// Destination port.
        pub dport: Port,
        /// Bits of the destination port that count; 0 for any port.
        pub dport_mask: Port,
        /// Source port.
        pub sport: Port,
        /// Bits of the source port that count; 0 for any port.
        pub sport_mask: Port,
        /// Family of both networks.
        pub family: Family,
        /// Bits of the destination network.
        pub prefixlen_d: u8,
        /// Bits of the source network.
        pub prefixlen_s: u8,
        /// Protocol above IP; 0 for any.
        pub proto: u8,
        /// Interface; 0 for any.
        pub ifindex: i32,
        /// User whose socket sends; 0 for any.
        pub user: u32,
    }
}
