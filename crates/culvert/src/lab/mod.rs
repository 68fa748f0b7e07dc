//! A laboratory in network namespaces: what the demonstration, the benchmarks over veth and the
//! live tests share. It needs root, and the command `ip`; only [`sites`] knows culvert.
//!
//! - [`namespaces`]: [`Namespaces`], which exist for the life of a value, and the processes inside.
//! - [`link`]: veth pairs, and a [`Wire`] between two gateways on which everything can be seen.
//! - [`offload`]: offloads of an interface turned off, as `ethtool -K` would.
//! - [`capture`]: [`Capture`], which counts and keeps the frames of an interface, and injects some.
//! - [`ike`]: IKE daemons as distributions ship them, and networks for them.
//! - [`sites`]: two sites with a gateway each.
//! - [`traffic`]: [`Ping`], [`UdpStream`], [`TcpTransfer`], which end in bounded time.
//!
//! Everything long asks a [`Cancel`] now and then; it is set by Ctrl-C, and then the error unwinds
//! the stack, which removes what was made.

pub mod capture;
pub mod ike;
pub mod link;
pub mod namespaces;
pub mod offload;
pub mod sites;
pub mod traffic;

pub use capture::Capture;
pub use capture::Captured;
pub use capture::Class;
pub use capture::Counts;
pub use link::End;
pub use link::Link;
pub use link::Wire;
pub use namespaces::Cancel;
pub use namespaces::InterfaceCounters;
pub use namespaces::Namespaces;
pub use namespaces::Ns;
pub use namespaces::Process;
pub use traffic::Ping;
pub use traffic::PingReport;
pub use traffic::TcpReport;
pub use traffic::TcpTransfer;
pub use traffic::UdpReport;
pub use traffic::UdpStream;
