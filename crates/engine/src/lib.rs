//! The worker: one run-to-completion loop that owns its SAs and turns packets into fates.
//!
//! Reads no clock, no randomness and no environment, starts no thread; time is an argument.
//!
//! - [`worker`]: [`Worker`], its turn from top to bottom.
//! - [`inbound`]: ESP to plaintext, in three passes.
//! - [`outbound`]: plaintext to ESP, in three passes.
//! - [`fate`]: what can become of a packet, and every reason to drop one.
//! - [`counters`]: how many packets met which fate.
//! - [`tables`]: SAs in their slots, and the snapshot that finds them.
//! - [`next_hop`]: routes, neighbours and links, as the kernel knows them.
//! - [`handoff`]: packets of an SA that another worker owns.
//! - [`hold`]: packets that wait for a neighbour to be resolved.
//! - [`mailbox`]: commands from and events to the control thread.
//! - [`cache`]: exact-match caches in front of slower lookups.

#![forbid(unsafe_code)]

pub mod cache;
pub mod counters;
pub mod fate;
pub mod handoff;
pub mod hold;
pub mod inbound;
pub mod mailbox;
pub mod next_hop;
pub mod outbound;
pub mod tables;
pub mod worker;

pub use counters::Counters;
pub use counters::SharedCounters;
pub use fate::DropReason;
pub use fate::Fate;
pub use fate::Verdict;
pub use handoff::Handoff;
pub use mailbox::Command;
pub use mailbox::Event;
pub use next_hop::NextHop;
pub use next_hop::NextHops;
pub use tables::InboundEntry;
pub use tables::Location;
pub use tables::OutboundEntry;
pub use tables::Snapshot;
pub use worker::PortConfig;
pub use worker::Side;
pub use worker::Worker;
pub use worker::WorkerConfig;
pub use worker::WorkerId;
