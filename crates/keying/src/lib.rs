//! What IKE daemons tell the engine: SAs and policies as the kernel's XFRM keeps them. No I/O; time
//! comes in as an argument.
//!
//! - [`policies`]: [`Policies`], the policy database.
//! - [`selector`]: selectors of XFRM as selectors of the engine.

#![forbid(unsafe_code)]

pub mod policies;
pub mod selector;

pub use policies::Policies;
