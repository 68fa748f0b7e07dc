//! Gateways without a network: for the simulator, pcap replay, benches and tests.
//!
//! - [`gateway`]: [`Gateway`], controller and workers over in-memory I/O, stepped by hand.
//! - [`simulation`]: [`run`], some gateways with everything between them, from one seed.
//! - [`seeds`]: many seeds on some threads, and what they came to in all.
//! - [`scenario`]: what a seed draws: tunnels, gateways, faults.
//! - [`tunnel`]: a pair of SAs, and what replaces it.
//! - [`faults`]: which faults a run has.
//! - [`model`]: what must happen, said by a slow and naive copy of the gateways.
//! - [`keeper`]: whoever rekeys the tunnels.
//! - [`coverage`]: what happened, and how often.
//! - [`wire`]: the network between gateways, which loses and damages.
//! - [`nat`]: its router, and the NAT in front of every gateway.
//! - [`attacker`]: somebody on that network without keys.
//! - [`plain`]: plaintext packets whose every octet follows from a number.
//! - [`provider`]: which provider of cryptography they use.
//! - [`random`]: the generator all chance comes from.

#![forbid(unsafe_code)]

pub mod attacker;
pub mod coverage;
pub mod faults;
pub mod gateway;
pub mod keeper;
pub mod model;
pub mod nat;
pub mod plain;
pub mod provider;
pub mod random;
pub mod scenario;
pub mod seeds;
pub mod simulation;
pub mod tunnel;
pub mod wire;

pub use gateway::FramePool;
pub use gateway::Gateway;
pub use seeds::Plan;
pub use seeds::Summary;
pub use seeds::run_all;
pub use simulation::Failure;
pub use simulation::Report;
pub use simulation::run;
pub use simulation::run_in;
