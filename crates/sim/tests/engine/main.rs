//! The engine over in-memory I/O: every way through it, one packet at a time.
//!
//! - `round_trip`: all families, encapsulations, key sizes and sequence numbers, without a copy.
//! - `transport`: every octet of transport mode, extension headers, checksums behind a NAT.
//! - `ah`: every octet of AH, what it covers and what may change on the way.
//! - `attack`: what an attacker may try on all of these together.
//! - `bundles`: AH and ESP on one packet, tunnels in tunnels, in the right order.
//! - `header_duties`: what outer headers take from inner ones, and what comes back.
//! - `size`: path MTU, ICMP errors, fragments before and behind ESP, padding, dummies, MSS.
//! - `icmp`: ICMP errors through SAs, about packets of ours, and from the gateway.
//! - `first_packets`: packets that come before their SA.
//! - `inspection`: what control is told about an SA.
//! - `jumbo`: packets larger than a frame, in runs of frames.
//! - `nat`: raw and encapsulated, keepalives, peers that move.
//! - `lifetimes`: soft and hard, in time, octets and packets.
//! - `selectors`: what policies and SAs see of a packet, and what SAs control is asked for.
//! - `audit`: records of refused packets, limited and counted.
//! - `resource`: SAs of single workers, and the fallback.
//! - `workers`: packets that arrive at a worker that does not own their SA; duplicates.
//! - `drop_reasons`: one test for each reason to drop a packet, which drops for no other.
//! - `hostile`: malformed and hostile frames, each counted as what it is.
//! - `policy`: bypass, discard, first match, what may come out of an SA, unresolved next hops.
//! - `sequence`: the last sequence numbers of an SA, the boundary at 2^32, jumps and long losses.
//! - `packets`: packets made octet by octet, to compare with.

mod ah;
mod attack;
mod audit;
mod bundles;
mod crew;
mod drop_reasons;
mod first_packets;
mod header_duties;
mod hostile;
mod icmp;
mod inspection;
mod jumbo;
mod lifetimes;
mod memos;
mod moves;
mod nat;
mod notices;
mod packets;
mod policy;
mod resource;
mod round_trip;
mod selectors;
mod sequence;
mod size;
mod support;
mod transport;
mod workers;
