//! Gateways without a network: for the simulator, pcap replay, benches and tests.
//!
//! - [`gateway`]: [`Gateway`], controller and workers over in-memory I/O, stepped by hand.

#![forbid(unsafe_code)]

pub mod gateway;

pub use gateway::Gateway;
