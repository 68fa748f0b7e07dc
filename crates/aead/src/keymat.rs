//! Key material: the AES key followed by four octets of salt, as RFC 4106 section 8.1 orders it.
//!
//! The octets are wiped when the value is dropped, and neither `Debug` nor any error shows them.
//! Whether the length fits an algorithm is checked where the key is made,
//! [`Aead::key`](crate::Aead::key).

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::algorithm::SALT_LEN;

/// Key, then salt. Any length; wiped on drop.
#[derive(Clone)]
pub struct Keymat(Zeroizing<Vec<u8>>);

/// Why a text is not the hexadecimal form of key material. Shows none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeymatError {
    /// Half an octet is missing.
    #[error("key: expected an even number of hexadecimal digits, got {digits}")]
    OddLength {
        /// Digits given.
        digits: usize,
    },
    /// Something else than `0-9a-fA-F`.
    #[error("key: expected only hexadecimal digits, but octet {position} of the text is not one")]
    NotHex {
        /// Which octet of the text, counted from 1.
        position: usize,
    },
}

impl Keymat {
    /// Takes over `octets`. The vector is wiped on drop; copies the caller made are not.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Keymat {
        Keymat(Zeroizing::new(octets))
    }

    /// Reads hexadecimal digits, two an octet, nothing between them.
    ///
    /// # Errors
    /// [`KeymatError`] for an odd number of digits or a character that is none.
    pub fn from_hex(digits: &str) -> Result<Keymat, KeymatError> {
        let digits = digits.as_bytes();
        if let Some(at) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(KeymatError::NotHex { position: at + 1 });
        }
        if !digits.len().is_multiple_of(2) {
            return Err(KeymatError::OddLength { digits: digits.len() });
        }
        // Reserved in full: a vector that grows leaves unwiped copies behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        octets.extend(digits.chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])));
        Ok(Keymat(octets))
    }

    /// Octets of key and salt together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Key and salt apart; `None` when there is no room for a salt.
    pub(crate) fn split(&self) -> Option<(&[u8], [u8; SALT_LEN])> {
        let (key, salt) = self.0.split_last_chunk::<SALT_LEN>()?;
        Some((key, *salt))
    }
}

/// Value of an ASCII hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Looks at every octet whatever the first difference: this is for configuration checks, and
/// should nevertheless not tell how much of a guess was right.
impl PartialEq for Keymat {
    fn eq(&self, other: &Keymat) -> bool {
        let pairs = self.0.iter().zip(other.0.iter());
        self.len() == other.len() && pairs.fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl Eq for Keymat {}

impl fmt::Debug for Keymat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keymat(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hexadecimal of either case reads back as the same octets.
        #[test]
        fn hex_round_trips(octets: Vec<u8>, upper: bool) {
            let mut digits = hex::encode(&octets);
            if upper {
                digits.make_ascii_uppercase();
            }
            let keymat = Keymat::from_hex(&digits).unwrap();
            prop_assert_eq!(keymat.as_bytes(), &octets[..]);
            prop_assert_eq!(keymat, Keymat::new(octets));
        }

        /// No text makes the reader panic, and it agrees with the `hex` crate on what is valid.
        #[test]
        fn any_text_is_accepted_or_refused(text: String) {
            prop_assert_eq!(Keymat::from_hex(&text).is_ok(), hex::decode(&text).is_ok());
        }
    }

    /// An error says where and how many, never what.
    #[test]
    fn errors_show_no_key() {
        let error = Keymat::from_hex("00112z44").unwrap_err();
        assert_eq!(error, KeymatError::NotHex { position: 6 });
        assert!(!error.to_string().contains("112"));
        assert_eq!(Keymat::from_hex("abc"), Err(KeymatError::OddLength { digits: 3 }));
        assert!(Keymat::from_hex("0x00").is_err());
    }

    /// Debug is redacted.
    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Keymat::new(vec![0xab; 20])), "Keymat(..)");
    }

    /// Equality looks at every octet and at the length.
    #[test]
    fn equality_is_of_all_octets() {
        let keymat = Keymat::new(vec![7; 20]);
        for at in 0..20 {
            let mut other = vec![7; 20];
            other[at] ^= 1;
            assert_ne!(keymat, Keymat::new(other));
        }
        assert_ne!(keymat, Keymat::new(vec![7; 19]));
        assert_eq!(keymat, keymat.clone());
    }

    /// The salt is the last four octets. // G01
    #[test]
    fn salt_is_last() {
        let keymat = Keymat::new((0..20).collect());
        let (key, salt) = keymat.split().unwrap();
        assert_eq!((key.len(), salt), (16, [16, 17, 18, 19]));
        assert!(Keymat::new(vec![0; 3]).split().is_none());
    }
}
