//! Checked views of packets over bytes. No I/O, no allocation, no state.
//!
//! - [`ethernet`]: the Ethernet header with at most one VLAN tag, and [`ethernet::Mac`].
//! - [`ipv4`]: the IPv4 header, its checksum, and the changes forwarding makes to it.
//! - [`ipv6`]: the IPv6 fixed header, and the changes forwarding makes to it.
//! - [`ip`]: either family behind one type, and protocol numbers.
//! - [`udp`]: the UDP header.
//! - [`esp`]: the ESP header, and what a frame on the unprotected side is.
//! - [`checksum`]: the Internet checksum: whole, incremental, and completed.
//! - [`malformed`]: [`Malformed`], why bytes are not what they claim to be.
//!
//! A parser checks lengths once and returns plain values and offsets that lie inside the bytes it
//! was given; it never panics and never believes a length field it has not compared. Functions that
//! write say in their documentation how much room they need, and panic without it: the caller made
//! that room, so its absence is our error and never a peer's.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod malformed;
pub mod udp;

pub use malformed::Malformed;
