//! Names and sizes of what the XDP object holds: the contract between the kernel program and its
//! loader.
//!
//! | map | kind | key | value |
//! |---|---|---|---|
//! | [`XSKS`] | XSKMAP | receive queue, u32 | socket |
//! | [`PREFIXES4`] | LPM trie | length in bits, 4 octets of address | `PrefixValue`, u32 |
//! | [`PREFIXES6`] | LPM trie | length in bits, 16 octets of address | `PrefixValue`, u32 |
//! | [`COUNTERS`] | per-CPU array | receive queue, u32 | [`SLOTS`](crate::counter::SLOTS) × u64 |
//!
//! Numbers are in the machine's order, addresses in network order.

/// Receive queues a steering program serves. Frames of queues beyond stay with the kernel and are
/// not counted.
pub const MAX_QUEUES: u32 = 64;

/// Prefixes per address family; the tries take memory for what is stored only.
pub const MAX_PREFIXES: u32 = 65_536;

/// Map of the `AF_XDP` sockets.
pub const XSKS: &str = "XSKS";

/// Map of the protected IPv4 prefixes.
pub const PREFIXES4: &str = "PREFIXES4";

/// Map of the protected IPv6 prefixes.
pub const PREFIXES6: &str = "PREFIXES6";

/// Map of the counter rows.
pub const COUNTERS: &str = "COUNTERS";

/// Program for interfaces on the unprotected side.
pub const STEER_UNPROTECTED: &str = "steer_unprotected";

/// Program for interfaces on the protected side.
pub const STEER_PROTECTED: &str = "steer_protected";

/// Program that leaves every frame to the kernel: a veth interface takes redirected frames only
/// when some XDP program is attached to it.
pub const PASS: &str = "pass";

/// Program that sends every frame back out of its interface: the traffic generator of benches.
pub const REFLECT: &str = "reflect";

/// Program that counts and drops every frame: the traffic sink of benches.
pub const DISCARD: &str = "discard";
