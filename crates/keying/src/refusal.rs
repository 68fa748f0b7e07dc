//! Why a request is refused: the kernel's number, and words for whoever asked for them.

use std::fmt;

use culvert_control::ControlError;
use culvert_xfrm::Errno;
use culvert_xfrm::Malformed;

use crate::selector::Unsupported;

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the kernel would answer.
    pub errno: Errno,
    /// What went wrong, for people.
    pub text: String,
    /// Where the attribute begins that is wrong, in octets from the request's first.
    pub at: Option<u32>,
}

impl Refusal {
    pub(crate) fn new(errno: Errno, expected: &str) -> Refusal {
        Refusal { errno, text: format!("expected {expected}"), at: None }
    }

    pub(crate) fn unsupported_algorithm(what: &str) -> Refusal {
        Refusal { errno: Errno::ENOSYS, text: format!("{what} is not supported"), at: None }
    }

    /// Nothing is there that the request names.
    pub(crate) fn missing(errno: Errno, what: &str) -> Refusal {
        Refusal { errno, text: format!("there is no such {what}"), at: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.errno)
    }
}

impl std::error::Error for Refusal {}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Refusal {
        Refusal { errno: malformed.errno, text: malformed.to_string(), at: malformed.at }
    }
}

/// A number alone.
impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, text: errno.to_string(), at: None }
    }
}

/// What the data plane does not take.
impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Refusal {
        let errno = match error {
            ControlError::DuplicateSpi(_) | ControlError::KeyInUse => Errno::EEXIST,
            ControlError::Full(_) => Errno::ENOBUFS,
            ControlError::Endpoints(_) => Errno::EAFNOSUPPORT,
            ControlError::UnknownSa(_) => Errno::ESRCH,
            _ => Errno::EINVAL,
        };
        Refusal { errno, text: error.to_string(), at: None }
    }
}

/// What the engine has no selector for.
impl From<Unsupported> for Refusal {
    fn from(unsupported: Unsupported) -> Refusal {
        Refusal { errno: unsupported.errno(), text: unsupported.to_string(), at: None }
    }
}
