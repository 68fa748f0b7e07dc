//! Gateways without a network: for the simulator, pcap replay, benches and tests.
//!
//! - [`gateway`]: [`Gateway`], controller and workers over in-memory I/O, stepped by hand.
//! - [`simulation`]: [`run`], two gateways with everything between them, from one seed.
//! - [`scenario`]: what a seed draws: tunnels, gateways, faults.
//! - [`model`]: what must happen, said by a slow and naive copy of both gateways.
//! - [`wire`]: the network between gateways, which loses and damages.
//! - [`attacker`]: somebody on that network without keys.
//! - [`plain`]: plaintext packets whose every octet follows from a number.
//! - [`random`]: the generator all chance comes from.

#![forbid(unsafe_code)]

pub mod attacker;
pub mod gateway;
pub mod model;
pub mod plain;
pub mod random;
pub mod scenario;
pub mod simulation;
pub mod wire;

pub use gateway::FramePool;
pub use gateway::Gateway;
pub use simulation::Failure;
pub use simulation::Report;
pub use simulation::run;
pub use simulation::run_in;
