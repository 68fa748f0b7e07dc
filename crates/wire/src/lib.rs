//! Checked views of packets over bytes. No I/O, no allocation, no state.
//!
//! - [`ethernet`]: the Ethernet header with at most one VLAN tag, and [`ethernet::Mac`].
//! - [`ipv4`]: the IPv4 header, its checksum, and the changes forwarding makes to it.
//! - [`ipv6`]: the IPv6 fixed header, and the changes forwarding makes to it.
//! - [`ip`]: either family behind one type, and protocol numbers.
//! - [`extension`]: the IPv6 extension headers, and where a transport mode header goes.
//! - [`flow`]: what policy can see of a packet.
//! - [`udp`]: the UDP header.
//! - [`tcp`]: the maximum segment size in a SYN.
//! - [`icmp`]: ICMP errors, written and read.
//! - [`esp`]: the ESP header, and what a packet on the unprotected side is.
//! - [`ah`]: the AH header, and what its ICV covers of the headers before it.
//! - [`fragment`]: fragmentation, and the header work of reassembly.
//! - [`checksum`]: the Internet checksum: whole, incremental, completed, and moved to addresses.
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

pub mod ah;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod extension;
pub mod flow;
pub mod fragment;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod malformed;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod udp;

pub use malformed::Malformed;
