//! IKE daemons as distributions ship them, live: two networks in network namespaces, whose gateways
//! run strongSwan or Libreswan, and one or both of them over culvert. Needs root and the packages;
//! skips itself loudly without.
//!
//! Each witness is a function of who does the work of IPsec at either end. What a witness shows of
//! culvert it must show of strongSwan's own user space as well, where that can do it: so that the
//! laboratory is known to be sound, `CULVERT_IKE_ENDS=libipsec,libipsec` runs the witnesses so.
//!
//! - [`engine`]: culvert at both ends, and the death of an engine.
//! - [`laboratory`]: two stock strongSwans, without culvert.
//! - [`libreswan`]: Libreswan over culvert.
//! - [`life`]: dead peers, deletion, policies that wait for a packet, virtual addresses.
//! - [`nat`]: a NAT whose mapping changes.
//! - [`rekeys`]: new keys under load.
//! - [`tunnels`]: every form that two daemons can agree on.

#[path = "../support/mod.rs"]
mod support;

mod bench;

mod engine;
mod laboratory;
mod libreswan;
mod life;
mod nat;
mod rekeys;
mod tunnels;
