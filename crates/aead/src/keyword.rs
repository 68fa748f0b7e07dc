//! From a keyword to an algorithm, or to the reason there is none.
//!
//! What is refused is refused by name, so that who copies a peer's proposal is told what is wrong
//! with it: RFC 8221 says which algorithms must not or should not be used, RFC 4106 which lengths
//! of ICV there are, and RFC 4301 that nothing is encrypted without integrity.

use std::str::FromStr;

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::algorithm::Protocol;

/// A keyword that names no algorithm that is offered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AlgorithmError {
    /// Nobody knows it, or at least culvert does not.
    #[error("algorithm \"{keyword}\": expected {}", Algorithm::expected(*.protocol))]
    Unknown {
        /// What was given, cut to a printable length.
        keyword: String,
        /// What it was given for.
        protocol: Protocol,
    },
    /// It belongs to the other protocol.
    #[error(
        "algorithm \"{keyword}\" is for {}, not for {protocol}: expected {}",
        .algorithm.protocol(), Algorithm::expected(*.protocol)
    )]
    OtherProtocol {
        /// What was given.
        keyword: &'static str,
        /// What it names.
        algorithm: Algorithm,
        /// What it was given for.
        protocol: Protocol,
    },
    /// It is known, and not offered on purpose.
    #[error(
        "algorithm \"{keyword}\" is refused, {reason}: expected {}",
        Algorithm::expected(*.protocol)
    )]
    Refused {
        /// What was given, cut to a printable length.
        keyword: String,
        /// Why.
        reason: Refusal,
        /// What it was given for.
        protocol: Protocol,
    },
}

/// Why a keyword is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// DES.
    #[error("the key of DES, 56 bits, can be searched (RFC 8221 section 5)")]
    Des,
    /// Triple DES.
    #[error("the blocks of 3DES, 64 bits, repeat too soon (RFC 8221 section 5)")]
    TripleDes,
    /// Blowfish, CAST or IDEA.
    #[error("its blocks of 64 bits repeat too soon (RFC 8221 section 5)")]
    SmallBlock,
    /// HMAC-MD5.
    #[error("MD5 is broken (RFC 8221 section 6)")]
    Md5,
    /// HMAC-SHA-1.
    #[error("SHA-1 is broken (RFC 8221 section 6 keeps it for old peers only)")]
    Sha1,
    /// Encryption alone.
    #[error("encryption without integrity protects nothing (RFC 4303 section 1, 8221 section 4)")]
    NoIntegrity,
    /// Neither encryption nor integrity.
    #[error("it has neither encryption nor integrity (RFC 4301 section 4.2, RFC 4303 section 3.2)")]
    Nothing,
    /// AES-GCM with an ICV that does not exist.
    #[error("an ICV of AES-GCM has 16, 12 or 8 octets (RFC 4106 section 6)")]
    GcmIcvLength,
    /// HMAC-SHA-2 cut to another length than half of it.
    #[error("the ICV of HMAC-SHA-2 has half the length of the hash (RFC 4868 section 2.3)")]
    HmacIcvLength,
    /// An AEAD with another algorithm for integrity.
    #[error("an algorithm that has integrity of its own takes no other (RFC 7296 section 3.3)")]
    SecondIntegrity,
}

/// How much of an unknown keyword an error repeats.
const KEYWORD_SHOWN: usize = 40;

/// Alternatives in braces, as in a shell: the whole list is long.
const EXPECTED_ESP: &str = "one of aes{128,192,256}gcm{16,12,8}, chacha20poly1305, \
     aes{128,192,256}gcm16iiv, chacha20poly1305iiv, aes{128,192,256}-sha{256,384,512}, \
     aes{128,192,256}gmac, null-sha{256,384,512}";

const EXPECTED_AH: &str = "one of sha{256,384,512}, aes{128,192,256}gmac";

impl Algorithm {
    /// The algorithm of a protocol that a keyword names.
    ///
    /// # Errors
    /// [`AlgorithmError`] with the reason when there is none.
    pub fn parse(protocol: Protocol, keyword: &str) -> Result<Algorithm, AlgorithmError> {
        let named = |protocol| {
            let all = Algorithm::all_of(protocol).iter().copied();
            all.into_iter().find(|algorithm: &Algorithm| algorithm.keyword() == keyword)
        };
        if let Some(algorithm) = named(protocol) {
            return Ok(algorithm);
        }
        let other = match protocol {
            Protocol::Esp => Protocol::Ah,
            Protocol::Ah => Protocol::Esp,
        };
        if let Some(algorithm) = named(other) {
            let keyword = algorithm.keyword();
            return Err(AlgorithmError::OtherProtocol { keyword, algorithm, protocol });
        }
        let shown = keyword.chars().take(KEYWORD_SHOWN).collect();
        Err(match refusal(&keyword.to_ascii_lowercase()) {
            Some(reason) => AlgorithmError::Refused { keyword: shown, reason, protocol },
            None => AlgorithmError::Unknown { keyword: shown, protocol },
        })
    }

    /// Which keywords [`Algorithm::parse`] takes, for messages.
    #[must_use]
    pub const fn expected(protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Esp => EXPECTED_ESP,
            Protocol::Ah => EXPECTED_AH,
        }
    }
}

/// Of ESP. See [`Algorithm::parse`].
impl FromStr for Algorithm {
    type Err = AlgorithmError;

    fn from_str(keyword: &str) -> Result<Algorithm, AlgorithmError> {
        Algorithm::parse(Protocol::Esp, keyword)
    }
}

/// Why a lower-case keyword that names no algorithm is refused; `None` when it is just unknown.
fn refusal(keyword: &str) -> Option<Refusal> {
    let keyword = keyword.trim_start_matches("hmac-");
    let words = || keyword.split(['-', '_', '/', '+', '!']).filter(|word| !word.is_empty());
    words().find_map(refused_word).or_else(|| refused_pair(words))
}

/// A word that is refused whatever stands beside it.
fn refused_word(word: &str) -> Option<Refusal> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| word.starts_with(prefix));
    if starts(&["3des", "tripledes"]) {
        return Some(Refusal::TripleDes);
    }
    if starts(&["des"]) {
        return Some(Refusal::Des);
    }
    if starts(&["blowfish", "cast", "idea", "rc5"]) {
        return Some(Refusal::SmallBlock);
    }
    if starts(&["md5"]) {
        return Some(Refusal::Md5);
    }
    if word == "sha" || word == "sha1" {
        return Some(Refusal::Sha1);
    }
    let (_, icv) = word.strip_prefix("aes")?.split_once("gcm")?;
    // Bits are a spelling of their own, and not a wrong length.
    let is_length =
        icv.parse::<u8>().is_ok() && !matches!(icv, "8" | "12" | "16" | "64" | "96" | "128");
    is_length.then_some(Refusal::GcmIcvLength)
}

/// Words that are refused together, or because they stand alone.
fn refused_pair<'a, W: Iterator<Item = &'a str>>(words: impl Fn() -> W) -> Option<Refusal> {
    let is_nothing = |word: &str| matches!(word, "null" | "none");
    let is_hash = |word: &str| matches!(word, "sha256" | "sha384" | "sha512");
    let first = words().next()?;
    let second = words().nth(1);
    if is_nothing(first) && words().all(is_nothing) {
        return Some(Refusal::Nothing);
    }
    if let Some(at) = words().position(is_hash)
        && let Some(bits) = words().nth(at + 1).and_then(|word| word.parse::<u16>().ok())
    {
        let hash = words().nth(at)?.trim_start_matches("sha").parse::<u16>().ok()?;
        return (bits != hash / 2).then_some(Refusal::HmacIcvLength);
    }
    let has_integrity =
        first.contains("gcm") || first.contains("gmac") || first.starts_with("chacha20poly1305");
    if has_integrity {
        return second.is_some_and(|word| !is_nothing(word)).then_some(Refusal::SecondIntegrity);
    }
    let is_cipher = ["aes", "camellia", "serpent", "twofish", "chacha20"]
        .iter()
        .any(|cipher| first.starts_with(cipher))
        && !["ccm", "cmac", "xcbc"].iter().any(|mode| first.contains(mode));
    (is_cipher && second.is_none_or(is_nothing)).then_some(Refusal::NoIntegrity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(protocol: Protocol, keyword: &str) -> Option<Refusal> {
        match Algorithm::parse(protocol, keyword).unwrap_err() {
            AlgorithmError::Refused { reason, .. } => Some(reason),
            AlgorithmError::Unknown { .. } | AlgorithmError::OtherProtocol { .. } => None,
        }
    }

    /// Keywords of ESP that are refused.
    const REFUSED: [(&str, Refusal); 29] = [
        ("des", Refusal::Des),
        ("des-md5", Refusal::Des),
        ("3des", Refusal::TripleDes),
        ("3des-sha256", Refusal::TripleDes),
        ("blowfish256", Refusal::SmallBlock),
        ("cast128-sha1", Refusal::SmallBlock),
        ("aes128-md5", Refusal::Md5),
        ("aes128-sha1", Refusal::Sha1),
        ("aes256-sha", Refusal::Sha1),
        ("null-sha1_160", Refusal::Sha1),
        ("aes128", Refusal::NoIntegrity),
        ("aes", Refusal::NoIntegrity),
        ("AES256", Refusal::NoIntegrity),
        ("aes256ctr", Refusal::NoIntegrity),
        ("aes128-none", Refusal::NoIntegrity),
        ("aes128-null", Refusal::NoIntegrity),
        ("camellia128", Refusal::NoIntegrity),
        ("null", Refusal::Nothing),
        ("none", Refusal::Nothing),
        ("null-null", Refusal::Nothing),
        ("null-none", Refusal::Nothing),
        ("aes128gcm13", Refusal::GcmIcvLength),
        ("aes256gcm4", Refusal::GcmIcvLength),
        ("aes128gcm10", Refusal::GcmIcvLength),
        ("sha256_96", Refusal::HmacIcvLength),
        ("aes128-sha256_96", Refusal::HmacIcvLength),
        ("null-sha512_128", Refusal::HmacIcvLength),
        ("aes128gcm16-sha256", Refusal::SecondIntegrity),
        ("chacha20poly1305-sha512", Refusal::SecondIntegrity),
    ];

    /// G04, G11, G12: what must not be used is refused by name, each with its reason.
    #[test]
    fn what_must_not_be_used_is_refused_with_a_reason() {
        for (keyword, reason) in REFUSED {
            assert_eq!(refused(Protocol::Esp, keyword), Some(reason), "{keyword}");
            let error = keyword.parse::<Algorithm>().unwrap_err().to_string();
            let start = format!("algorithm \"{keyword}\" is refused, {reason}: expected one of");
            assert!(error.starts_with(&start), "{error}");
        }
        let of_ah = [
            ("md5", Refusal::Md5),
            ("sha1", Refusal::Sha1),
            ("hmac-sha1", Refusal::Sha1),
            ("sha512_512", Refusal::HmacIcvLength),
            ("null", Refusal::Nothing),
        ];
        for (keyword, reason) in of_ah {
            assert_eq!(refused(Protocol::Ah, keyword), Some(reason), "{keyword}");
        }
    }

    /// G04, G12: whatever there is has integrity, and an ICV of 16 octets or more but for the two
    /// shorter ones of AES-GCM that RFC 4106 section 6 allows.
    #[test]
    fn every_algorithm_has_integrity() {
        for algorithm in Algorithm::ALL.into_iter().chain(Algorithm::ALL_AH) {
            let short = matches!(algorithm.icv_len(), 8 | 12);
            assert!(short || algorithm.icv_len() >= 16);
            assert_eq!(short, algorithm.has_short_icv(), "{algorithm}");
        }
    }

    /// A keyword that is just unknown is repeated, cut, and the choice is listed.
    #[test]
    fn an_unknown_keyword_names_itself_and_the_choice() {
        for keyword in ["", "aes128ccm16", "aes128gcm", "aes128gcm128", "AES128GCM16", "sm4gcm16"] {
            assert_eq!(refused(Protocol::Esp, keyword), None, "{keyword}");
            let error = keyword.parse::<Algorithm>().unwrap_err().to_string();
            let start = format!("algorithm \"{keyword}\": expected one of aes{{128,192,256}}gcm");
            assert!(error.starts_with(&start), "{error}");
        }
        assert!("x".repeat(9000).parse::<Algorithm>().unwrap_err().to_string().len() < 400);
        assert!("aes128gcm9".repeat(900).parse::<Algorithm>().is_err());
    }

    /// A keyword of the other protocol is told from an unknown one, both ways.
    #[test]
    fn keywords_of_the_other_protocol_say_so() {
        let error = Algorithm::parse(Protocol::Esp, "sha256").unwrap_err().to_string();
        assert!(error.starts_with("algorithm \"sha256\" is for AH, not for ESP: "), "{error}");
        let error = Algorithm::parse(Protocol::Ah, "aes128gcm16").unwrap_err().to_string();
        assert!(error.starts_with("algorithm \"aes128gcm16\" is for ESP, not for AH: "), "{error}");
        // GMAC is for both.
        assert_eq!(Algorithm::parse(Protocol::Ah, "aes128gmac"), Ok(Algorithm::AhAes128Gmac));
        assert_eq!(Algorithm::parse(Protocol::Esp, "aes128gmac"), Ok(Algorithm::Aes128Gmac));
    }

    /// Every alternative of a text with braces, as a shell expands it.
    fn expand(text: &str) -> Vec<String> {
        let Some((before, rest)) = text.split_once('{') else {
            return vec![text.to_owned()];
        };
        let (choices, after) = rest.split_once('}').unwrap();
        let after = &expand(after);
        let pairs =
            choices.split(',').flat_map(|choice| after.iter().map(move |end| (choice, end)));
        pairs.map(|(choice, end)| format!("{before}{choice}{end}")).collect()
    }

    /// The list in messages is the list of algorithms.
    #[test]
    fn what_is_expected_is_what_there_is() {
        for protocol in [Protocol::Esp, Protocol::Ah] {
            let text = Algorithm::expected(protocol).strip_prefix("one of ").unwrap();
            // A comma alone parts alternatives, one with a space keywords.
            let mut expected: Vec<_> = text.split(", ").flat_map(expand).collect();
            let all = Algorithm::all_of(protocol).iter();
            let mut keywords: Vec<_> = all.map(|algorithm| algorithm.to_string()).collect();
            expected.sort();
            keywords.sort();
            assert_eq!(expected, keywords);
        }
    }
}
