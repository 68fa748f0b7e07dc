//! What IKE daemons tell the engine: SAs and policies as the kernel's XFRM keeps them. No I/O; time
//! comes in as an argument.
//!
//! - [`service`]: [`Service`], the databases, and what each request does to them.
//! - [`plane`]: [`DataPlane`], what they need of the gateway.
//! - [`policies`]: [`Policies`], the policy database.
//! - [`selector`]: selectors of XFRM as selectors of the engine.
//! - [`refusal`]: [`Refusal`], why a request is refused.
//! - [`dump`]: [`Dump`], a listing on its way.
//! - [`journal`]: what survives the process.
//! - [`algorithms`]: algorithms by the kernel's names, and by ours.
//! - `sas`: the SA database; `sa_requests`: what requests do to it; `listing`: SAs as answers show
//!   them; `notices`: what happens without a request.
//! - `consistency`: whether the databases agree with themselves, for tests.
//! - `plan`: from policies to the lists that workers search; `spec`, `replay`: from an SA of XFRM
//!   to one that workers take.

#![forbid(unsafe_code)]

pub mod algorithms;
mod consistency;
pub mod dump;
pub mod journal;
mod listing;
mod notices;
mod numbers;
mod plan;
pub mod plane;
pub mod policies;
pub mod refusal;
mod replay;
mod sa_requests;
mod sas;
pub mod selector;
pub mod service;
mod spec;

pub use dump::Dump;
pub use plane::DataPlane;
pub use plane::Report;
pub use policies::Policies;
pub use refusal::Refusal;
pub use service::Answers;
pub use service::Asker;
pub use service::Scope;
pub use service::Service;
