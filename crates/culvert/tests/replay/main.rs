//! `culvert replay` as its users run it: the built program over capture files.
//!
//! Each test makes captures, runs the program once or a few times over many packets, and compares
//! what came out with what had to. Every run is also checked for what holds in all of them: one
//! verdict for each input packet, in order, and totals that are the sums of the verdicts
//! ([`support`]). `E01` and the like are statements of the RFCs, numbered in the project's list of
//! duties: E for ESP outbound and I for ESP inbound (RFC 4303), A for AH (RFC 4302), G for
//! algorithms, C for ECN (RFC 6040), P for processing (RFC 4301), U for UDP encapsulation (RFC
//! 3948), M for several SAs of one peer (RFC 9611) and others.
//!
//! - `matrix`: all protocols, modes, families and algorithms, both ways against scapy.
//! - `scapy`: both directions against scapy, in all forms of SA.
//! - `worked_example`: one packet spelled out.
//! - `outbound`: sequence numbers, padding, outer headers, policy.
//! - `inbound`: replays, forgeries, trailers, what may come out of an SA.
//! - `transport`: where the ESP header goes in transport mode, and NAT.
//! - `bundles`: transport mode, AH, and several SAs around one packet.
//! - `selectors`: which packets policies and SAs are about; SAs that are asked for.
//! - `headers`: what a tunnel does to DSCP, ECN, DF, TTL and flow label; padding against traffic
//!   analysis.
//! - `congestion`: ECN through a tunnel.
//! - `sizes`: path MTU, fragments, reassembly.
//! - `timers`: lifetimes, keepalives, dummies.
//! - `records`: audit records, and events for IKE.
//! - `encapsulation`: ESP, IKE, keepalives and runts on port 4500.
//! - `captures`: forms of capture files, links, and the order of packets.
//! - `results`: verdicts, totals, repeatability, and what a bad input is answered with.
//! - `fuzz`: random and damaged frames and files.
//! - `documentation`: the example of `docs/replay.md`.

mod bundles;
mod captures;
mod congestion;
mod documentation;
mod encapsulation;
mod fuzz;
mod headers;
mod inbound;
mod matrix;
mod outbound;
mod packets;
mod pcap;
mod records;
mod results;
mod scapy;
mod selectors;
mod sizes;
mod support;
mod timers;
mod transport;
mod worked_example;
