//! Steering: which frames of an interface the engine gets, and which stay with the kernel.
//!
//! - [`decision`]: [`unprotected()`] and [`protected()`], the XDP program's decision as pure
//!   functions.
//! - [`view`]: [`View`], bounds-checked access to a frame, in the kernel and over `&[u8]`.
//! - [`prefixes`]: [`Prefixes`], the look-up of protected destinations, and [`PrefixValue`].
//! - [`counter`]: [`Counter`], the slots of the per-queue counters, with their names.
//! - [`map`]: names and sizes of the maps, programs of the object.

#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod decision;
pub mod map;
pub mod prefixes;
pub mod view;

pub use counter::Counter;
pub use decision::Class;
pub use decision::Decision;
pub use decision::protected;
pub use decision::unprotected;
pub use prefixes::PrefixValue;
pub use prefixes::Prefixes;
pub use view::View;
