//! Which worker, and which side.

/// Index of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// The side of the boundary a port lies on (RFC 4301 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Plaintext.
    Protected,
    /// ESP and AH.
    Unprotected,
}
