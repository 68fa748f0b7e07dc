//! `culvert replay` as its users run it: the built program over capture files.
//!
//! Each test makes captures, runs the program once or a few times over many packets, and compares
//! what came out with what had to. Every run is also checked for what holds in all of them: one
//! verdict for each input packet, in order, and totals that are the sums of the verdicts
//! ([`support`]). `E01` and the like are statements of the RFCs, numbered in the project's list of
//! duties: E for ESP outbound and I for ESP inbound (RFC 4303), C for ECN (RFC 6040), P for
//! processing (RFC 4301), U for UDP encapsulation (RFC 3948).
//!
//! - `scapy`: both directions against scapy, in all forms of SA.
//! - `outbound`: sequence numbers, padding, outer headers, policy.
//! - `inbound`: replays, forgeries, trailers, what may come out of an SA.
//! - `congestion`: ECN through a tunnel.
//! - `encapsulation`: ESP, IKE, keepalives and runts on port 4500.
//! - `captures`: forms of capture files, links, and the order of packets.
//! - `results`: verdicts, totals, repeatability, and what a bad input is answered with.
//! - `fuzz`: random and damaged frames and files.
//! - `documentation`: the example of `docs/replay.md`.

mod captures;
mod congestion;
mod documentation;
mod encapsulation;
mod fuzz;
mod inbound;
mod outbound;
mod packets;
mod pcap;
mod results;
mod scapy;
mod support;
