//! Real IKE daemons in a laboratory, as distributions ship them, each with its files in a directory
//! of the laboratory.
//!
//! - [`charon`]: [`Charon`], strongSwan's daemon.
//! - [`connection`]: [`Connection`], what two daemons are to agree on.
//! - [`networks`]: [`Networks`], two networks with a gateway each, and perhaps a NAT between them.
//! - [`pki`]: [`Authority`], which certifies.
//! - [`pluto`]: [`Pluto`], Libreswan's daemon.
//! - [`sa`]: [`IkeSa`] and [`ChildSa`], what a daemon says of them.
//! - [`station`]: [`Station`], a gateway with strongSwan and whoever does the work of IPsec.
//! - [`vici`]: strongSwan's control protocol.

pub mod charon;
pub mod connection;
pub mod networks;
pub mod pki;
pub mod pluto;
pub mod sa;
pub mod station;
pub mod vici;

pub use charon::Charon;
pub use charon::Ipsec;
pub use connection::Action;
pub use connection::Auth;
pub use connection::Child;
pub use connection::Connection;
pub use connection::Mode;
pub use connection::Protocol;
pub use connection::Version;
pub use networks::Networks;
pub use pki::Authority;
pub use pluto::Pluto;
pub use sa::ChildSa;
pub use sa::IkeSa;
pub use station::Backend;
pub use station::Engine;
pub use station::Station;
