//! `culvert bench`: figures that anyone can reproduce.
//!
//! - [`engine`]: the worker's turn over memory, on pinned cores.
//! - [`aead`]: sealing and opening alone.
//! - [`veth`]: encrypted forwarding against plain forwarding over AF_XDP.
//! - [`generate`]: its packets, for other forwarders.

pub mod aead;
pub mod engine;
pub mod generate;
mod rig;
mod turns;
pub mod veth;
