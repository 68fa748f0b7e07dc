//! The security policy database (RFC 4301 section 4.4.1): ordered policies, first match wins.
//!
//! Outbound policies say what becomes of a plaintext packet. Inbound policies bind what may come
//! out of an SA: after decryption the packet must match an inbound policy that names the SA's
//! [`Group`] (RFC 4301 section 5.2). What no policy matches is discarded, unless the
//! [`DefaultAction`] says otherwise.
//!
//! A policy names a group of SAs, not an SA: a rekey replaces members and leaves policies alone.
//!
//! Reads no clock, does no I/O. [`Spd`] is the list of record; [`compiled`] is what packets meet.

#![forbid(unsafe_code)]

pub mod address;
pub mod compiled;
pub mod pfp;
pub mod policy;
pub mod selector;
pub mod upper;

pub use culvert_wire::flow::Flow;
pub use culvert_wire::flow::Upper;

pub use crate::address::AddressRange;
pub use crate::address::AddressSelector;
pub use crate::address::RangeError;
pub use crate::compiled::Compiled;
pub use crate::pfp::Pfp;
pub use crate::policy::Action;
pub use crate::policy::DefaultAction;
pub use crate::policy::Group;
pub use crate::policy::Match;
pub use crate::policy::Policy;
pub use crate::policy::Spd;
pub use crate::selector::Field;
pub use crate::selector::Selector;
pub use crate::selector::SelectorError;
pub use crate::upper::PortSelector;
pub use crate::upper::UpperSelector;
