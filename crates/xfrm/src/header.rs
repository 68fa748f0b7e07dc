//! The header that every message begins with.

use crate::octets::code;
use crate::octets::record;

/// Lowest kind that is not netlink's own (`NLMSG_MIN_TYPE`).
pub const KIND_MIN: u16 = 0x10;

code! {
    /// Kind of a message.
    pub struct Kind(u16) {
        /// Nothing.
        NOOP = 1,
        /// An acknowledgement or an error.
        ERROR = 2,
        /// The end of a dump.
        DONE = 3,
        /// Something was lost.
        OVERRUN = 4,
        /// Make an SA; here is one.
        NEWSA = 0x10,
        /// Delete an SA.
        DELSA = 0x11,
        /// Show an SA, or all.
        GETSA = 0x12,
        /// Make a policy; here is one.
        NEWPOLICY = 0x13,
        /// Delete a policy.
        DELPOLICY = 0x14,
        /// Show a policy, or all.
        GETPOLICY = 0x15,
        /// Reserve an SPI.
        ALLOCSPI = 0x16,
        /// An SA is wanted.
        ACQUIRE = 0x17,
        /// An SA expired.
        EXPIRE = 0x18,
        /// Make or change a policy.
        UPDPOLICY = 0x19,
        /// Fill in or change an SA.
        UPDSA = 0x1a,
        /// A policy expired.
        POLEXPIRE = 0x1b,
        /// Delete all SAs.
        FLUSHSA = 0x1c,
        /// Delete all policies.
        FLUSHPOLICY = 0x1d,
        /// Set numbers of an SA; here they are.
        NEWAE = 0x1e,
        /// Show numbers of an SA.
        GETAE = 0x1f,
        /// A report of Mobile IPv6.
        REPORT = 0x20,
        /// Change addresses.
        MIGRATE = 0x21,
        /// Sizes of the SAD.
        NEWSADINFO = 0x22,
        /// Show sizes of the SAD.
        GETSADINFO = 0x23,
        /// Sizes of the SPD; set thresholds.
        NEWSPDINFO = 0x24,
        /// Show sizes of the SPD.
        GETSPDINFO = 0x25,
        /// A peer's address or port was mapped anew.
        MAPPING = 0x26,
        /// Set the default policies.
        SETDEFAULT = 0x27,
        /// Show the default policies; here they are.
        GETDEFAULT = 0x28,
    }
}

impl Kind {
    /// Whether it is for all SAs or policies at once when [`Flags::DUMP`] is set.
    #[must_use]
    pub fn can_dump(self) -> bool {
        matches!(self, Kind::GETSA | Kind::GETPOLICY)
    }
}

/// Bits of [`Header::flags`].
#[derive(Clone, Copy, Debug)]
pub struct Flags;

impl Flags {
    /// It asks for something.
    pub const REQUEST: u16 = 1;
    /// One of several, up to DONE.
    pub const MULTI: u16 = 2;
    /// An answer is wanted even where all went well.
    pub const ACK: u16 = 4;
    /// All there are. Either bit is enough.
    pub const DUMP: u16 = 0x300;
    /// What exists may be replaced. The same bit as one of [`Flags::DUMP`].
    pub const REPLACE: u16 = 0x100;
    /// An error repeats the header of its request alone.
    pub const CAPPED: u16 = 0x100;
    /// An error is followed by attributes.
    pub const ACK_TLVS: u16 = 0x200;
}

record! {
    /// `struct nlmsghdr`.
    pub struct Header: 16 {
        /// Octets of the message, this header included.
        pub len: u32,
        /// What it is.
        pub kind: Kind,
        /// Bits of [`Flags`].
        pub flags: u16,
        /// Number of the request, which its answers repeat.
        pub seq: u32,
        /// Port of the socket that asks or is answered; 0 from the kernel to many.
        pub port: u32,
    }
}

impl Header {
    /// Whether it asks for something that is not netlink's own.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.flags & Flags::REQUEST != 0 && self.kind.0 >= KIND_MIN
    }

    /// Whether it asks for all SAs or policies.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.kind.can_dump() && self.flags & Flags::REQUEST != 0 && self.flags & Flags::DUMP != 0
    }

    /// Whether an answer is wanted even where all went well.
    #[must_use]
    pub fn wants_ack(&self) -> bool {
        self.flags & Flags::ACK != 0
    }
}
