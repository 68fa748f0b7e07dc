//! Why octets are not what they claim to be, and the number that the kernel would answer.

use std::fmt;

use thiserror::Error;

/// An error number of Linux, positive. Those below have the same number on x86-64 and on arm64.
///
/// There is no EBUSY on purpose: strongSwan asks again at once, without end, when it gets that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Errno = Errno(1);
    /// No such policy; no SPI is left.
    pub const ENOENT: Errno = Errno(2);
    /// No such SA.
    pub const ESRCH: Errno = Errno(3);
    /// Out of memory.
    pub const ENOMEM: Errno = Errno(12);
    /// The SA or the policy exists.
    pub const EEXIST: Errno = Errno(17);
    /// A value that cannot be.
    pub const EINVAL: Errno = Errno(22);
    /// An attribute that is too short, or a number out of its range.
    pub const ERANGE: Errno = Errno(34);
    /// No such algorithm.
    pub const ENOSYS: Errno = Errno(38);
    /// Nothing that is concerned.
    pub const ENODATA: Errno = Errno(61);
    /// No such protocol.
    pub const EPROTONOSUPPORT: Errno = Errno(93);
    /// Known, and not supported.
    pub const EOPNOTSUPP: Errno = Errno(95);
    /// No such family of addresses.
    pub const EAFNOSUPPORT: Errno = Errno(97);
    /// Nobody is there who could answer.
    pub const ENETDOWN: Errno = Errno(100);
    /// A queue is full.
    pub const ENOBUFS: Errno = Errno(105);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// Why octets are not the message that they claim to be, or not one that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field}: expected {expected}")]
pub struct Malformed {
    /// The field or attribute, by its name in `linux/xfrm.h` or `linux/netlink.h`.
    pub field: &'static str,
    /// What it should have been.
    pub expected: Expected,
    /// What the kernel answers to it.
    pub errno: Errno,
    /// Where the attribute begins that is wrong, in octets from the message's first.
    pub at: Option<u32>,
}

impl Malformed {
    /// A value that cannot be: EINVAL.
    pub(crate) const fn value(field: &'static str, expected: &'static str) -> Malformed {
        let expected = Expected::Text(expected);
        Malformed { field, expected, errno: Errno::EINVAL, at: None }
    }

    /// Too few octets: EINVAL.
    pub(crate) const fn short(field: &'static str, len: usize) -> Malformed {
        Malformed { field, expected: Expected::Octets(len), errno: Errno::EINVAL, at: None }
    }

    /// The same for the attribute at this place.
    pub(crate) fn placed(self, at: usize) -> Malformed {
        Malformed { at: u32::try_from(at).ok(), ..self }
    }
}

/// What should have been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// At least as many octets.
    Octets(usize),
    /// What the text says.
    Text(&'static str),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Expected::Octets(len) => write!(f, "at least {len} octets"),
            Expected::Text(text) => f.write_str(text),
        }
    }
}
