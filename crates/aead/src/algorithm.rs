//! Which AES-GCM: the key size, and the lengths ESP needs to know (RFC 4106).
//!
//! The names are strongSwan's proposal keywords, so that a configuration can be compared line by
//! line with the peer's. Only the 16-octet ICV is offered: RFC 4106 section 6 makes 8 and 12
//! optional and forbids all others.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// AES-GCM with a 16-octet ICV, by key size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// AES-128-GCM, `aes128gcm16`.
    Aes128Gcm16,
    /// AES-192-GCM, `aes192gcm16`.
    Aes192Gcm16,
    /// AES-256-GCM, `aes256gcm16`.
    Aes256Gcm16,
}

/// A keyword that names no algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("algorithm \"{keyword}\": expected one of aes128gcm16, aes192gcm16, aes256gcm16")]
pub struct AlgorithmError {
    /// What was given, cut to a printable length.
    keyword: String,
}

/// Octets of salt at the end of the KEYMAT (RFC 4106 section 8.1).
pub(crate) const SALT_LEN: usize = 4;

/// How much of an unknown keyword an error repeats.
const KEYWORD_SHOWN: usize = 40;

impl Algorithm {
    /// Every algorithm, smallest key first.
    pub const ALL: [Algorithm; 3] =
        [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm16, Algorithm::Aes256Gcm16];

    /// Octets of AES key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Algorithm::Aes128Gcm16 => 16,
            Algorithm::Aes192Gcm16 => 24,
            Algorithm::Aes256Gcm16 => 32,
        }
    }

    /// Octets of KEYMAT: the key, then 4 of salt (RFC 4106 section 8.1).
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.key_len() + SALT_LEN
    }

    /// Octets of IV on the wire (RFC 4106 section 3).
    #[must_use]
    pub const fn iv_len(self) -> usize {
        8
    }

    /// Octets of ICV (RFC 4106 section 6).
    #[must_use]
    pub const fn icv_len(self) -> usize {
        crate::port::ICV_LEN
    }

    /// Octets to a multiple of which text is padded. GCM itself works on single octets; this is
    /// the alignment of the ESP trailer (RFC 4303 section 2.4, RFC 4106 section 3).
    #[must_use]
    pub const fn block_len(self) -> usize {
        4
    }

    /// strongSwan's keyword.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Algorithm::Aes128Gcm16 => "aes128gcm16",
            Algorithm::Aes192Gcm16 => "aes192gcm16",
            Algorithm::Aes256Gcm16 => "aes256gcm16",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.keyword())
    }
}

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(keyword: &str) -> Result<Algorithm, AlgorithmError> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.keyword() == keyword).ok_or_else(
            || AlgorithmError { keyword: keyword.chars().take(KEYWORD_SHOWN).collect() },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Display and FromStr are inverse over all algorithms.
    #[test]
    fn keywords_round_trip() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
    }

    /// The lengths are those of RFC 4106 sections 3, 6 and 8.1. // G01 G04
    #[test]
    fn lengths_are_the_rfc_s() {
        let keymats = Algorithm::ALL.map(Algorithm::keymat_len);
        assert_eq!(keymats, [20, 28, 36]);
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.iv_len(), 8);
            assert_eq!(algorithm.icv_len(), 16);
            assert_eq!(algorithm.block_len(), 4);
        }
    }

    /// An unknown keyword is repeated and every known one is listed; short ICVs are refused. // G04
    #[test]
    fn an_unknown_keyword_names_itself_and_the_choice() {
        let error = "aes128gcm8".parse::<Algorithm>().unwrap_err().to_string();
        assert!(error.contains("\"aes128gcm8\""), "{error}");
        for algorithm in Algorithm::ALL {
            assert!(error.contains(algorithm.keyword()), "{error}");
        }
        assert!("x".repeat(9000).parse::<Algorithm>().unwrap_err().to_string().len() < 200);
        assert!("AES128GCM16".parse::<Algorithm>().is_err());
    }
}
