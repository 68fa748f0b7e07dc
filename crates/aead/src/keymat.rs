//! Key material: key, then that of integrity, then salt, as RFC 7296 section 2.17 and RFC 4106
//! section 8.1 order them.
//!
//! The octets are wiped when the value is dropped, and neither `Debug` nor any error shows them.
//! Whether the length fits an algorithm is checked where the key is made,
//! [`Aead::key`](crate::Aead::key).

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::algorithm::SALT_LEN;
use crate::port::KeyError;

/// Key, integrity key, salt, each as far as the algorithm has one. Any length; wiped on drop.
#[derive(Clone)]
pub struct Keymat {
    octets: Zeroizing<Vec<u8>>,
    iv_base: u64,
}

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
        Keymat { octets: Zeroizing::new(octets), iv_base: 0 }
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
        Ok(Keymat { octets, iv_base: 0 })
    }

    /// The same for a sender whose IVs are not made of sequence numbers alone: where the provider
    /// makes the IV (of CBC, and of GMAC in AH), the bits of `iv_base` are added to the 64-bit
    /// number that it makes it of. Two contexts of a key with different bases have no IV in common
    /// while sequence numbers have none of the bits of a base.
    #[must_use]
    pub fn with_iv_base(mut self, iv_base: u64) -> Keymat {
        self.iv_base = iv_base;
        self
    }

    /// What is added to sequence numbers in IVs that the provider makes; 0 for nothing.
    pub(crate) fn iv_base(&self) -> u64 {
        self.iv_base
    }

    /// Octets of all parts together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// The parts that `algorithm` makes of it.
    pub(crate) fn parts(&self, algorithm: Algorithm) -> Result<Parts<'_>, KeyError> {
        let expected = algorithm.keymat_len();
        if self.len() != expected {
            return Err(KeyError { algorithm, expected, given: self.len() });
        }
        let (key, rest) = self.octets.split_at(algorithm.key_len());
        let (integrity_key, salt) = rest.split_at(algorithm.integrity_key_len());
        // All of it or nothing is there.
        let salt = salt.first_chunk().copied().unwrap_or_default();
        Ok(Parts { key, integrity_key, salt })
    }
}

/// Key material, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// For AES or ChaCha20; empty without.
    pub(crate) key: &'a [u8],
    /// For HMAC; empty without.
    pub(crate) integrity_key: &'a [u8],
    /// Zeroes without.
    pub(crate) salt: [u8; SALT_LEN],
}

/// Value of an ASCII hexadecimal digit.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Looks at every octet whatever the first difference: this is for configuration checks, and
/// should nevertheless not tell how much of a guess was right. Keys are equal whatever their IVs.
impl PartialEq for Keymat {
    fn eq(&self, other: &Keymat) -> bool {
        let pairs = self.octets.iter().zip(other.octets.iter());
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

    /// G01: key first, then that of integrity, and the salt is the last four octets.
    #[test]
    fn parts_are_in_order() {
        let keymat = Keymat::new((0..20).collect());
        let parts = keymat.parts(Algorithm::Aes128Gcm16).unwrap();
        assert_eq!((parts.key.len(), parts.integrity_key.len()), (16, 0));
        assert_eq!(parts.salt, [16, 17, 18, 19]);

        let keymat = Keymat::new((0..48).collect());
        let parts = keymat.parts(Algorithm::Aes128CbcSha256).unwrap();
        assert_eq!((parts.key.len(), parts.key[15]), (16, 15));
        assert_eq!((parts.integrity_key.len(), parts.integrity_key[0]), (32, 16));
        assert_eq!(parts.salt, [0; 4]);

        let all = Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH);
        for algorithm in all {
            let expected = algorithm.keymat_len();
            for given in [0, 3, expected - 1, expected + 1] {
                let error = Keymat::new(vec![7; given]).parts(algorithm).err();
                assert_eq!(error, Some(KeyError { algorithm, expected, given }));
            }
        }
    }
}
