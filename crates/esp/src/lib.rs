//! One SA and one packet: everything RFC 4303 and 4302 say about a single security association.
//!
//! Reads no clock, no randomness, does no I/O.
//!
//! - [`spi`]: the index of an SA, chosen by its receiver.
//! - [`layout`]: where an algorithm puts things in a packet.
//! - [`replay`]: the exact anti-replay window, 32-bit and extended sequence numbers.
//! - [`seq`]: outbound sequence numbers, each spent once.
//! - [`lifetime`]: soft and hard limits in time, octets and packets, and what was used.
//! - [`inbound`]: [`InboundSa`]: check a number, accept an authentic packet.
//! - [`outbound`]: [`OutboundSa`]: spend a number, write header and trailer.
//! - [`window_state`]: what an anti-replay window has seen, apart from its SA.
//! - [`trailer`]: padding, pad length and next header.
//! - [`tfc`]: padding and dummy packets that hide how much is sent.
//! - [`template`]: the outer IP and UDP headers of a tunnel.
//! - [`head`]: [`Head`]: all headers in front of a common packet, drawn beforehand.
//! - [`ecn`]: congestion notification and DSCP on the way out of a tunnel.

#![forbid(unsafe_code)]

pub mod ecn;
pub mod head;
pub mod inbound;
pub mod layout;
pub mod lifetime;
pub mod outbound;
pub mod replay;
pub mod seq;
pub mod spi;
pub mod template;
#[cfg(test)]
mod testing;
pub mod tfc;
pub mod trailer;
pub mod window_state;

pub use culvert_aead::Protocol;
pub use head::Head;
pub use inbound::InboundSa;
pub use layout::Layout;
pub use lifetime::Expiry;
pub use lifetime::Lifetime;
pub use lifetime::Limits;
pub use lifetime::Usage;
pub use outbound::OutboundSa;
pub use replay::Candidate;
pub use replay::ReplayError;
pub use replay::Window;
pub use seq::SeqError;
pub use seq::SeqNo;
pub use spi::Spi;
pub use template::Encapsulation;
pub use template::HeaderOptions;
pub use template::Template;
pub use trailer::PaddingCheck;
pub use window_state::WindowState;

/// What an SA protects (RFC 4301 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A whole IP packet, behind outer headers of our own.
    #[default]
    Tunnel,
    /// The upper layer of a packet, behind the packet's own IP header.
    Transport,
}
