//! `culvert bench`: figures that anyone can reproduce.
//!
//! - [`engine`]: the worker's turn over memory, on one pinned core.
//! - [`veth`]: encrypted forwarding against plain forwarding over AF_XDP.

pub mod engine;
mod turns;
pub mod veth;
