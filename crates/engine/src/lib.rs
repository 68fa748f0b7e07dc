//! The worker: one run-to-completion loop that owns its SAs and turns packets into fates.
//!
//! Reads no clock, no randomness and no environment, starts no thread; time is an argument.
//!
//! - [`worker`]: [`Worker`], its turn from top to bottom.
//! - [`inbound`]: ESP and AH to plaintext, in three passes.
//! - [`outbound`]: plaintext to ESP and AH, a batch at a time.
//! - `encapsulate`: outbound packets of every kind, one at a time.
//! - `plane`: tables, lookups and caches that the passes share.
//! - `headers`: headers that move inside a frame: AH, transport mode.
//! - `icmp`: ICMP errors, about our packets and through SAs.
//! - `size`: how long SAs make a packet, and what becomes of one too long.
//! - `originate`: packets the gateway makes itself.
//! - [`reassembly`]: fragments from the unprotected side.
//! - [`path_mtu`]: what the path of an SA carries.
//! - [`fate`]: what can become of a packet, and every reason to drop one.
//! - [`counters`]: how many packets met which fate.
//! - [`audit`]: records of refused packets.
//! - [`options`]: how an SA treats packets.
//! - [`tables`]: SAs in their slots.
//! - [`snapshot`]: policies, and where SAs are.
//! - [`fixed_map`]: tables that workers read and control makes room in.
//! - [`directory`]: which inbound SA a packet is for.
//! - [`moves`]: SAs that move between workers.
//! - [`next_hop`]: routes, neighbours and links, as the kernel knows them.
//! - [`crew`]: one SA over several workers.
//! - [`handoff`]: packets of an SA that another worker owns.
//! - [`hold`]: packets that wait for a neighbour to be resolved.
//! - [`inspection`]: the truth about one SA.
//! - [`awaiting`]: packets that wait for their policy's first SA.
//! - `memo`: what an inbound SA knows of the flow it last carried.
//! - [`mailbox`]: commands from and events to the control thread.
//! - `cache`: an exact-match cache in front of a slower lookup.
//! - `flows`: what policy said of flows seen before.
//! - [`ids`]: workers and sides.

#![forbid(unsafe_code)]

pub mod audit;
pub mod awaiting;
mod cache;
pub mod counters;
pub mod crew;
pub mod directory;
mod encapsulate;
pub mod fate;
pub mod fixed_map;
mod flows;
pub mod handoff;
mod headers;
pub mod hold;
mod icmp;
pub mod ids;
pub mod inbound;
pub mod inspection;
pub mod mailbox;
mod memo;
pub mod moves;
pub mod next_hop;
pub mod options;
mod originate;
pub mod outbound;
pub mod path_mtu;
mod plane;
pub mod reassembly;
mod size;
pub mod snapshot;
pub mod tables;
pub mod worker;

pub use audit::AuditRecord;
pub use counters::Counters;
pub use counters::SharedCounters;
pub use crew::Crew;
pub use fate::DropReason;
pub use fate::DropReasons;
pub use fate::Fate;
pub use fate::Verdict;
pub use handoff::Handoff;
pub use ids::Side;
pub use ids::WorkerId;
pub use inspection::Inspection;
pub use mailbox::Command;
pub use mailbox::Event;
pub use mailbox::Notice;
pub use mailbox::Peer;
pub use next_hop::NextHop;
pub use next_hop::NextHops;
pub use options::Options;
pub use snapshot::Change;
pub use snapshot::Snapshot;
pub use tables::Bundle;
pub use tables::InboundEntry;
pub use tables::Location;
pub use tables::Members;
pub use tables::OutboundEntry;
pub use worker::PortConfig;
pub use worker::Worker;
pub use worker::WorkerConfig;
