//! Runs a program so that its sockets of `NETLINK_XFRM` lead to culvert and not to the kernel.
//!
//! - [`mod@launch`]: [`launch()`], which puts the filter in place and becomes the program.
//! - [`error`]: why it did not.
//! - `filter`: which system calls are trapped, which refused, and which pretend to succeed.
//! - `listener`: seccomp's notifications.
//! - `memory`: what a trapped call points at.
//! - `supervisor`: answers trapped calls, and turns the sockets; one thread, one loop.
//! - `link`: one socket of the program, and its connection to the engine.
//! - `waiting`: requests whose answers have not come.
//! - `bound`: what a netlink socket is bound to.
//! - `engine`: how to reach the engine, and what is told to it alone.
//! - `guard`: ends the program if the supervisor is killed.
//! - `log`: lines for the operator.
//!
//! There are three processes. The one that called [`launch()`] becomes the program, so its number,
//! its parent, its exit status, its signals and its terminal are those of the program itself, and
//! `Type=notify`, watchdogs and PID files work as ever. The *supervisor* answers the trapped calls
//! of the program and of everything it starts; it ends after the last of them. The *guard* does
//! nothing but wait for the supervisor: were that killed, the program's sockets would be dead.

#![deny(unsafe_op_in_unsafe_fn)]

mod bound;
mod engine;
mod filter;
mod guard;
mod link;
mod listener;
mod log;
mod memory;
mod supervisor;
mod waiting;

pub mod error;
pub mod launch;

pub use engine::KIND_BIND;
pub use engine::KIND_PRIVATE;
pub use error::Error;
pub use launch::Options;
pub use launch::launch;
