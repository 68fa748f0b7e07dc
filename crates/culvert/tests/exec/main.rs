//! `culvert exec`: real programs, and hostile ones, whose XFRM sockets lead to an engine that is a
//! thread of the test.
//!
//! - [`engine`]: that engine.
//! - [`program`]: programs under the launcher.
//! - [`tools`]: `ip xfrm`.
//! - [`sockets`]: what a program sees of its sockets, and what it cannot do to the launcher.
//! - [`restarts`]: engines that are absent, die, and come back.
//! - [`life`]: signals, exit status, processes and files that are left.
//!
//! Tests need `ip` or `python3`, and skip themselves loudly without. They do not need root.

mod engine;
mod life;
mod program;
mod restarts;
mod sockets;
mod tools;
