//! Criterion benches of the pieces a packet meets: `cargo bench -p culvert-benches`.
//!
//! The whole worker turn is measured by `culvert bench engine`, forwarding over AF_XDP by
//! `culvert bench veth`.

#![forbid(unsafe_code)]
