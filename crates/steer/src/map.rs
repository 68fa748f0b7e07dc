//! Names and sizes of what the XDP object holds: the contract between the kernel program and its
//! loader.
//!
//! | map | kind | key | value |
//! |---|---|---|---|
//! | [`XSKS`] | XSKMAP | receive queue, u32 | socket |
//! | [`PREFIXES4`] | LPM trie | length in bits, 4 octets of address | `PrefixValue`, u32 |
//! | [`PREFIXES6`] | LPM trie | length in bits, 16 octets of address | `PrefixValue`, u32 |
//! | [`PLAIN4`] | LPM trie | length in bits, 4 octets of address | `PrefixValue`, u32 |
//! | [`PLAIN6`] | LPM trie | length in bits, 16 octets of address | `PrefixValue`, u32 |
//! | [`FRAGMENTS`] | LRU hash map | [`FragmentKey`](crate::FragmentKey), 40 octets | u32, 1 |
//! | [`COUNTERS`] | per-CPU array | receive queue, u32 | [`SLOTS`](crate::counter::SLOTS) × u64 |
//!
//! Numbers are in the machine's order, addresses in network order.

/// Receive queues a steering program serves. Frames of queues beyond are not counted, and those
/// for the engine are dropped.
pub const MAX_QUEUES: u32 = 64;

/// Prefixes per address family; the tries take memory for what is stored only.
pub const MAX_PREFIXES: u32 = 65_536;

/// Map of the `AF_XDP` sockets.
pub const XSKS: &str = "XSKS";

/// Datagrams whose fragments are on their way to the engine at one time; the map has the memory for
/// all of them from the start (2 MB, about).
pub const MAX_FRAGMENTS: u32 = 16_384;

/// Map of the IPv4 prefixes that outbound policy protects.
pub const PREFIXES4: &str = "PREFIXES4";

/// Map of the IPv6 prefixes that outbound policy protects.
pub const PREFIXES6: &str = "PREFIXES6";

/// Map of the IPv4 prefixes that inbound policy protects.
pub const PLAIN4: &str = "PLAIN4";

/// Map of the IPv6 prefixes that inbound policy protects.
pub const PLAIN6: &str = "PLAIN6";

/// Map of the datagrams whose fragments are the engine's.
pub const FRAGMENTS: &str = "FRAGMENTS";

/// Map of the counter rows.
pub const COUNTERS: &str = "COUNTERS";

/// Program for interfaces on the unprotected side.
pub const STEER_UNPROTECTED: &str = "steer_unprotected";

/// Program for interfaces on the protected side.
pub const STEER_PROTECTED: &str = "steer_protected";

/// [`STEER_UNPROTECTED`] for frames of several buffers.
pub const STEER_UNPROTECTED_FRAGS: &str = "steer_unprotected_frags";

/// [`STEER_PROTECTED`] for frames of several buffers.
pub const STEER_PROTECTED_FRAGS: &str = "steer_protected_frags";

/// Program that leaves every frame to the kernel: a veth interface takes redirected frames only
/// when some XDP program is attached to it.
pub const PASS: &str = "pass";

/// Program that sends every frame back out of its interface: the traffic generator of benches.
pub const REFLECT: &str = "reflect";

/// Program that counts and drops every frame: the traffic sink of benches.
pub const DISCARD: &str = "discard";
