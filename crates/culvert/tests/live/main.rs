//! The program `culvert`, live: two gateways in network namespaces, AF_XDP over veth, and hosts
//! behind them that know nothing of it. Needs root; skips itself loudly without.
//!
//! - [`calls`]: system calls, under load and without.
//! - [`carry`]: traffic of all kinds arrives, whole, in order, and only ESP crosses the wire.
//! - [`closed`]: nothing leaves in clear, however a gateway ends.
//! - [`forms`]: transport mode, AH, NAT keepalives.
//! - [`hostile`]: what must not arrive is counted, and harms nobody.
//! - [`jumbo`]: frames larger than a buffer.
//! - [`lifecycle`]: start, stop, refusals, and death.
//! - [`next_hops`]: neighbours that are unknown, silent, or change.
//! - [`path`]: packets that do not fit, and fragments.
//! - [`sequence`]: no sequence number is used twice, whatever happens to the process.
//! - [`stack`]: what belongs to the kernel's stack reaches it over the same interfaces.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod carry;
mod closed;
mod forms;
mod hostile;
mod jumbo;
mod lifecycle;
mod next_hops;
mod path;
mod sequence;
mod stack;
