//! Everything that is not done per packet: SAs and policies of record, where they live, what the
//! kernel knows about next hops, and sequence numbers on disk.
//!
//! - [`controller`]: [`Controller`], which installs SAs on workers and publishes where they are.
//! - [`epochs`]: a number of its own for each start of the process.
//! - [`kernel`]: routes, neighbours and links, read and followed by netlink.
//! - [`sa`]: what is known about an SA before it exists.
//! - [`sequence_store`]: outbound sequence numbers, written ahead.
//! - `state_directory`: where these and epochs are, under one lock.

#![forbid(unsafe_code)]

pub mod controller;
pub mod epochs;
pub mod kernel;
pub mod sa;
pub mod sequence_store;
mod state_directory;

pub use controller::ControlError;
pub use controller::Controller;
pub use controller::News;
pub use controller::Placement;
pub use controller::Retired;
pub use controller::SaId;
pub use controller::WorkerHandle;
pub use epochs::Epochs;
pub use sa::Direction;
pub use sa::SaSpec;
pub use sequence_store::SequenceStore;
pub use sequence_store::StoreError;
