//! One SA and one packet: everything RFC 4303 says about a single security association.
//!
//! Reads no clock, no randomness, does no I/O.
//!
//! - [`spi`]: the index of an SA, chosen by its receiver.
//! - [`replay`]: the exact anti-replay window, 32-bit and extended sequence numbers.
//! - [`seq`]: outbound sequence numbers, each spent once.
//! - [`inbound`]: [`InboundSa`]: check a number, accept an authentic packet.
//! - [`outbound`]: [`OutboundSa`]: spend a number, write header and trailer.
//! - [`trailer`]: padding, pad length and next header.
//! - [`template`]: the outer IP and UDP headers of a tunnel.
//! - [`ecn`]: explicit congestion notification through a tunnel.

#![forbid(unsafe_code)]

pub mod ecn;
pub mod inbound;
pub mod outbound;
pub mod replay;
pub mod seq;
pub mod spi;
pub mod template;
pub mod trailer;

pub use inbound::InboundSa;
pub use outbound::OutboundSa;
pub use replay::Candidate;
pub use replay::ReplayError;
pub use replay::Window;
pub use seq::SeqError;
pub use seq::SeqNo;
pub use spi::Spi;
pub use template::Encapsulation;
pub use template::Template;
