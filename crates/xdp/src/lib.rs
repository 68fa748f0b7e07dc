//! AF_XDP: from interface names to packets of the engine.
//!
//! - [`gateway`]: [`open`], which checks interfaces, attaches programs and makes the sockets, and
//!   [`Control`], what the control thread keeps.
//! - [`io`]: [`XdpIo`], packet I/O of one worker over its queue of every port.
//! - [`wake`]: [`Waker`], which wakes a sleeping worker.
//! - [`program`]: [`Steer`], the XDP program of one interface, its prefixes and counters.
//! - [`interface`]: [`Interface`], its preconditions and offloads.
//! - [`error`]: [`Error`], why a gateway could not be opened.
//! - `socket`: one AF_XDP socket; tokens go in and come out.
//! - `pool`: frames and runs that are free, and runs that are being sent.
//! - `ring`: the four rings of a socket over shared memory.
//! - `busy`: whether a worker runs the driver itself.
//! - `ethtool`: the ioctl part of `interface`.
//! - `rules`: which queue gets the packets of an SA.
//!
//! Unsafe code is in `socket.rs`, `ring.rs` and `ethtool.rs` only; the argument for it stands at
//! the top of each.

mod busy;
pub mod error;
mod ethtool;
pub mod gateway;
pub mod interface;
pub mod io;
pub mod pin;
mod pool;
pub mod program;
mod ring;
mod rules;
mod socket;
pub mod wake;

pub use error::Error;
pub use gateway::Config;
pub use gateway::Control;
pub use gateway::CopyChoice;
pub use gateway::Gateway;
pub use gateway::ModeChoice;
pub use gateway::PortConfig;
pub use gateway::PortControl;
pub use gateway::Side;
pub use gateway::SidePrefixes;
pub use gateway::open;
pub use gateway::prepare;
pub use interface::Interface;
pub use io::FrameCount;
pub use io::IoCounters;
pub use io::XdpIo;
pub use pin::PIN_DIRECTORY;
pub use pin::Released;
pub use pin::release;
pub use program::Mode;
pub use program::Role;
pub use program::Steer;
pub use socket::KernelStatistics;
pub use wake::Waker;
