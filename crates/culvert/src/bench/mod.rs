//! `culvert bench`: figures that anyone can reproduce.
//!
//! - [`engine`]: the worker's turn over memory, on pinned cores.
//! - [`aead`]: sealing and opening alone.
//! - [`control`]: SAs that come and go while packets flow, by calls and by XFRM `messages`.
//! - [`veth`]: encrypted forwarding against plain forwarding over AF_XDP.
//! - [`latency`]: how long an idle gateway takes for a packet.
//! - [`generate`]: its packets, for other forwarders.

pub mod aead;
pub mod control;
pub mod engine;
pub mod generate;
pub mod latency;
mod messages;
mod rig;
mod turns;
pub mod veth;
