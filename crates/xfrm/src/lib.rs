//! Messages of `NETLINK_XFRM`, read and written as the kernel and IKE daemons exchange them. No
//! I/O, no state.
//!
//! - [`message`]: [`Message`], every message there is, and [`message::messages`] of a datagram.
//! - [`header`]: the header that they all begin with, its kinds and flags.
//! - [`attribute`]: what follows the fixed part, in its order, the unknown included.
//! - [`algorithm`]: algorithms by name, and [`algorithm::Key`].
//! - [`replay`]: sequence numbers and replay windows, of 32 bits and of more.
//! - [`sa`]: SAs, their names, and requests for an SPI.
//! - [`policy`]: policies, their names, their templates, and the default policies.
//! - [`event`]: what the kernel tells of itself: expiry, acquire, mapping, report.
//! - [`migrate`]: new addresses for SAs and policies.
//! - [`info`]: sizes of the databases.
//! - [`answer`]: acknowledgements, errors, and the end of a dump.
//! - [`check`]: what the kernel asks of a request beyond its layout.
//! - [`selector`], [`lifetime`], [`address`]: the pieces of them.
//! - [`error`]: [`Malformed`], why octets are not what they claim to be, and [`Errno`].
//! - [`secret`]: [`Secret`], octets that are wiped and never shown.
//! - `octets`: C's layout of records, once.
//!
//! Numbers are in the order of the machine but for SPIs, ports and their masks, which are in the
//! network's; layouts are those of `linux/xfrm.h` on 64-bit machines. Records are plain values
//! whose codes may be any number, since those of tomorrow must pass as well; [`check`] is where the
//! values of a request are refused. Everything here takes octets of anybody: nothing panics on
//! them, and nothing allocates more than a small multiple of their number.

#![forbid(unsafe_code)]

mod octets;

pub mod address;
pub mod algorithm;
pub mod answer;
pub mod attribute;
pub mod check;
pub mod error;
pub mod event;
pub mod header;
pub mod info;
pub mod lifetime;
pub mod message;
pub mod migrate;
pub mod policy;
pub mod replay;
pub mod sa;
pub mod secret;
pub mod selector;

pub use attribute::Attribute;
pub use attribute::Attributes;
pub use error::Errno;
pub use error::Malformed;
pub use message::Body;
pub use message::Message;
pub use secret::Secret;
