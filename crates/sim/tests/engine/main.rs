//! The engine over in-memory I/O: every way through it, one packet at a time.
//!
//! - `round_trip`: all families, encapsulations, key sizes and sequence numbers, without a copy.
//! - `workers`: packets that arrive at a worker that does not own their SA; duplicates.
//! - `drop_reasons`: one test for each reason to drop a packet, which drops for no other.
//! - `hostile`: malformed and hostile frames, each counted as what it is.
//! - `policy`: bypass, discard, first match, what may come out of an SA, unresolved next hops.
//! - `sequence`: the last sequence numbers of an SA, and the boundary at 2^32.

mod drop_reasons;
mod hostile;
mod policy;
mod round_trip;
mod sequence;
mod support;
mod workers;
