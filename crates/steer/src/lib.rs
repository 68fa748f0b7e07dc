//! Steering: which frames of an interface the engine gets, and which stay with the kernel.
//!
//! - [`class`]: [`Class`], what frames are told apart.
//! - [`decision`]: [`unprotected()`] and [`protected()`], the XDP program's decision as pure
//!   functions.
//! - [`fragments`]: [`Fragments`], the memory of datagrams whose fragments are on their way.
//! - [`view`]: [`View`], bounds-checked access to a frame, in the kernel and over `&[u8]`.
//! - [`prefixes`]: [`Prefixes`], the look-up of protected destinations, and [`PrefixValue`].
//! - [`counter`]: [`Counter`], the slots of the per-queue counters, with their names.
//! - [`map`]: names and sizes of the maps, programs of the object.
//! - [`header`]: network headers, and how far extension headers are followed.
//! - `outer`, `icmp`: classes of the unprotected side. `inner`: of the protected side.

#![no_std]
#![forbid(unsafe_code)]

pub mod class;
pub mod counter;
pub mod decision;
pub mod fragments;
pub mod header;
mod icmp;
mod inner;
pub mod map;
mod outer;
pub mod prefixes;
pub mod view;

pub use class::Class;
pub use counter::Counter;
pub use decision::Decision;
pub use decision::protected;
pub use decision::unprotected;
pub use fragments::FragmentKey;
pub use fragments::Fragments;
pub use fragments::Recent;
pub use prefixes::PrefixValue;
pub use prefixes::Prefixes;
pub use view::View;
