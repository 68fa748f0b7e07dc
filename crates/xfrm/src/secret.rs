//! Octets that are wiped when dropped, and never shown.

use std::fmt;

use zeroize::Zeroizing;

/// Octets that may be key material: wiped when dropped, only their number in `Debug`.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `octets`; copies that the caller made are the caller's.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(octets))
    }

    /// The octets themselves.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Secret {
        Secret::new(octets.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}

impl Eq for Secret {}

/// Looks at all octets, however early they differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let differ = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).fold(0, differ) == 0
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Equal by value, shown by length, and wiped by their type.
    #[test]
    fn secrets_are_not_shown() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        let secret = Secret::from(&[0xab, 0xcd][..]);
        wiped(&secret.0);
        assert_eq!(format!("{secret:?}"), "Secret(2 octets)");
        assert_eq!(secret, secret.clone());
        assert_ne!(secret, Secret::from(&[0xab, 0xcc][..]));
        assert_ne!(secret, Secret::from(&[0xab][..]));
    }
}
