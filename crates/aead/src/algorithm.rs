//! Which algorithm, and the lengths that ESP and AH need to know of it.
//!
//! The names are strongSwan's proposal keywords, so that a configuration can be compared line by
//! line with the peer's; `iiv` at the end of one is our own, for the implicit IV of RFC 8750. Which
//! keywords are refused, and why, is in [`keyword`](crate::keyword).
//!
//! | keywords | RFC | on the wire behind SPI and sequence number |
//! |---|---|---|
//! | `aes*gcm16`, `gcm12`, `gcm8` | 4106 | IV (8), encrypted text, ICV (16, 12, 8) |
//! | `chacha20poly1305` | 7634 | IV (8), encrypted text, ICV (16) |
//! | `aes*gcm16iiv`, `chacha20poly1305iiv` | 8750 | encrypted text, ICV (16) |
//! | `aes*-sha256`, `-sha384`, `-sha512` | 3602, 4868 | IV (16), blocks of 16, ICV (16, 24, 32) |
//! | `aes*gmac` | 4543 | IV (8), text, ICV (16) |
//! | `null-sha256`, `-sha384`, `-sha512` | 2410, 4868 | text, ICV (16, 24, 32) |
//! | AH: `sha256`, `sha384`, `sha512` | 4868 | ICV (16, 24, 32) |
//! | AH: `aes*gmac` | 4543 | IV (8), ICV (16), both in the ICV field |

use std::fmt;

/// Which of the two protocols of IPsec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Encapsulating Security Payload, RFC 4303.
    #[default]
    Esp,
    /// Authentication Header, RFC 4302.
    Ah,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Esp => "ESP",
            Protocol::Ah => "AH",
        })
    }
}

/// The size of an AES key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AesSize {
    Aes128,
    Aes192,
    Aes256,
}

impl AesSize {
    const fn key_len(self) -> usize {
        match self {
            AesSize::Aes128 => 16,
            AesSize::Aes192 => 24,
            AesSize::Aes256 => 32,
        }
    }
}

/// A member of SHA-2, for HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sha2 {
    Sha256,
    Sha384,
    Sha512,
}

impl Sha2 {
    /// Octets of digest, which is the length of the key too (RFC 4868 section 2.1.1). The ICV is
    /// half of it (RFC 4868 section 2.3).
    const fn digest_len(self) -> usize {
        match self {
            Sha2::Sha256 => 32,
            Sha2::Sha384 => 48,
            Sha2::Sha512 => 64,
        }
    }
}

/// How an algorithm works: what all else follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// AES-GCM with so many octets of ICV.
    Gcm(AesSize, usize),
    /// AES-GCM, its IV implied by the sequence number.
    GcmImplicit(AesSize),
    /// ChaCha20-Poly1305.
    ChaCha,
    /// ChaCha20-Poly1305, its IV implied by the sequence number.
    ChaChaImplicit,
    /// AES-CBC, then HMAC.
    Cbc(AesSize, Sha2),
    /// AES-GMAC, for ESP and AH.
    Gmac(AesSize),
    /// HMAC alone, for ESP and AH.
    Hmac(Sha2),
}

/// Octets of salt at the end of the KEYMAT (RFC 4106 section 8.1, 4543 section 5.4, 7634 section
/// 2).
pub(crate) const SALT_LEN: usize = 4;

/// Octets of a counter as IV on the wire.
pub(crate) const COUNTER_IV_LEN: usize = 8;

/// Octets of a block of AES.
pub(crate) const BLOCK_LEN: usize = 16;

/// Octets in front of the IV: SPI and sequence number.
pub(crate) const ESP_HEADER_LEN: usize = 8;

/// The enumeration and its table, which cannot disagree as each line makes both.
macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident = $protocol:ident $keyword:literal $method:expr;)*) => {
        /// An algorithm, or a pair of them, for ESP or AH.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Algorithm {
            $($(#[$doc])* $variant,)*
        }

        /// Protocol, keyword and method by algorithm.
        const TABLE: &[(Protocol, &str, Method)] = {
            use AesSize::*;
            use Method::*;
            use Sha2::*;
            &[$((Protocol::$protocol, $keyword, $method),)*]
        };

        const EVERY: &[Algorithm] = &[$(Algorithm::$variant,)*];
    };
}

algorithms! {
    /// AES-128-GCM, `aes128gcm16`.
    Aes128Gcm16 = Esp "aes128gcm16" Gcm(Aes128, 16);
    /// AES-192-GCM, `aes192gcm16`.
    Aes192Gcm16 = Esp "aes192gcm16" Gcm(Aes192, 16);
    /// AES-256-GCM, `aes256gcm16`.
    Aes256Gcm16 = Esp "aes256gcm16" Gcm(Aes256, 16);
    /// AES-128-GCM with an ICV of 12 octets, `aes128gcm12`.
    Aes128Gcm12 = Esp "aes128gcm12" Gcm(Aes128, 12);
    /// AES-192-GCM with an ICV of 12 octets, `aes192gcm12`.
    Aes192Gcm12 = Esp "aes192gcm12" Gcm(Aes192, 12);
    /// AES-256-GCM with an ICV of 12 octets, `aes256gcm12`.
    Aes256Gcm12 = Esp "aes256gcm12" Gcm(Aes256, 12);
    /// AES-128-GCM with an ICV of 8 octets, `aes128gcm8`.
    Aes128Gcm8 = Esp "aes128gcm8" Gcm(Aes128, 8);
    /// AES-192-GCM with an ICV of 8 octets, `aes192gcm8`.
    Aes192Gcm8 = Esp "aes192gcm8" Gcm(Aes192, 8);
    /// AES-256-GCM with an ICV of 8 octets, `aes256gcm8`.
    Aes256Gcm8 = Esp "aes256gcm8" Gcm(Aes256, 8);
    /// ChaCha20-Poly1305, `chacha20poly1305`.
    ChaCha20Poly1305 = Esp "chacha20poly1305" ChaCha;
    /// AES-128-GCM with implicit IV, `aes128gcm16iiv`.
    Aes128Gcm16Iiv = Esp "aes128gcm16iiv" GcmImplicit(Aes128);
    /// AES-192-GCM with implicit IV, `aes192gcm16iiv`.
    Aes192Gcm16Iiv = Esp "aes192gcm16iiv" GcmImplicit(Aes192);
    /// AES-256-GCM with implicit IV, `aes256gcm16iiv`.
    Aes256Gcm16Iiv = Esp "aes256gcm16iiv" GcmImplicit(Aes256);
    /// ChaCha20-Poly1305 with implicit IV, `chacha20poly1305iiv`.
    ChaCha20Poly1305Iiv = Esp "chacha20poly1305iiv" ChaChaImplicit;
    /// AES-128-CBC, then HMAC-SHA-256-128, `aes128-sha256`.
    Aes128CbcSha256 = Esp "aes128-sha256" Cbc(Aes128, Sha256);
    /// AES-192-CBC, then HMAC-SHA-256-128, `aes192-sha256`.
    Aes192CbcSha256 = Esp "aes192-sha256" Cbc(Aes192, Sha256);
    /// AES-256-CBC, then HMAC-SHA-256-128, `aes256-sha256`.
    Aes256CbcSha256 = Esp "aes256-sha256" Cbc(Aes256, Sha256);
    /// AES-128-CBC, then HMAC-SHA-384-192, `aes128-sha384`.
    Aes128CbcSha384 = Esp "aes128-sha384" Cbc(Aes128, Sha384);
    /// AES-192-CBC, then HMAC-SHA-384-192, `aes192-sha384`.
    Aes192CbcSha384 = Esp "aes192-sha384" Cbc(Aes192, Sha384);
    /// AES-256-CBC, then HMAC-SHA-384-192, `aes256-sha384`.
    Aes256CbcSha384 = Esp "aes256-sha384" Cbc(Aes256, Sha384);
    /// AES-128-CBC, then HMAC-SHA-512-256, `aes128-sha512`.
    Aes128CbcSha512 = Esp "aes128-sha512" Cbc(Aes128, Sha512);
    /// AES-192-CBC, then HMAC-SHA-512-256, `aes192-sha512`.
    Aes192CbcSha512 = Esp "aes192-sha512" Cbc(Aes192, Sha512);
    /// AES-256-CBC, then HMAC-SHA-512-256, `aes256-sha512`.
    Aes256CbcSha512 = Esp "aes256-sha512" Cbc(Aes256, Sha512);
    /// No encryption, AES-128-GMAC, `aes128gmac`.
    Aes128Gmac = Esp "aes128gmac" Gmac(Aes128);
    /// No encryption, AES-192-GMAC, `aes192gmac`.
    Aes192Gmac = Esp "aes192gmac" Gmac(Aes192);
    /// No encryption, AES-256-GMAC, `aes256gmac`.
    Aes256Gmac = Esp "aes256gmac" Gmac(Aes256);
    /// No encryption, HMAC-SHA-256-128, `null-sha256`.
    NullSha256 = Esp "null-sha256" Hmac(Sha256);
    /// No encryption, HMAC-SHA-384-192, `null-sha384`.
    NullSha384 = Esp "null-sha384" Hmac(Sha384);
    /// No encryption, HMAC-SHA-512-256, `null-sha512`.
    NullSha512 = Esp "null-sha512" Hmac(Sha512);
    /// AH with HMAC-SHA-256-128, `sha256`.
    AhSha256 = Ah "sha256" Hmac(Sha256);
    /// AH with HMAC-SHA-384-192, `sha384`.
    AhSha384 = Ah "sha384" Hmac(Sha384);
    /// AH with HMAC-SHA-512-256, `sha512`.
    AhSha512 = Ah "sha512" Hmac(Sha512);
    /// AH with AES-128-GMAC, `aes128gmac`.
    AhAes128Gmac = Ah "aes128gmac" Gmac(Aes128);
    /// AH with AES-192-GMAC, `aes192gmac`.
    AhAes192Gmac = Ah "aes192gmac" Gmac(Aes192);
    /// AH with AES-256-GMAC, `aes256gmac`.
    AhAes256Gmac = Ah "aes256gmac" Gmac(Aes256);
}

/// Algorithms of ESP, which stand first.
const ESP_COUNT: usize = 29;

const AH_COUNT: usize = 6;

const _: () = assert!(EVERY.len() == ESP_COUNT + AH_COUNT && TABLE.len() == EVERY.len());

impl Algorithm {
    /// Every algorithm of ESP.
    pub const ALL: [Algorithm; ESP_COUNT] = {
        let (esp, _) = EVERY.split_first_chunk().expect("so many");
        *esp
    };

    /// Every algorithm of AH.
    pub const ALL_AH: [Algorithm; AH_COUNT] = {
        let (_, ah) = EVERY.split_last_chunk().expect("so many");
        *ah
    };

    const fn line(self) -> &'static (Protocol, &'static str, Method) {
        &TABLE[self as usize]
    }

    pub(crate) const fn method(self) -> Method {
        self.line().2
    }

    /// Every algorithm of a protocol.
    #[must_use]
    pub const fn all_of(protocol: Protocol) -> &'static [Algorithm] {
        match protocol {
            Protocol::Esp => &Algorithm::ALL,
            Protocol::Ah => &Algorithm::ALL_AH,
        }
    }

    /// Which protocol it is for.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        self.line().0
    }

    /// strongSwan's keyword, unique among the algorithms of a protocol.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        self.line().1
    }

    /// Octets of key for AES or ChaCha20; 0 for HMAC alone.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self.method() {
            Method::Gcm(size, _)
            | Method::GcmImplicit(size)
            | Method::Cbc(size, _)
            | Method::Gmac(size) => size.key_len(),
            Method::ChaCha | Method::ChaChaImplicit => 32,
            Method::Hmac(_) => 0,
        }
    }

    /// Octets of key for HMAC (RFC 4868 section 2.1.1); 0 where integrity needs none of its own.
    #[must_use]
    pub const fn integrity_key_len(self) -> usize {
        match self.method() {
            Method::Cbc(_, sha2) | Method::Hmac(sha2) => sha2.digest_len(),
            _ => 0,
        }
    }

    /// Octets of salt in each nonce (RFC 4106 section 4); 0 where there is no nonce.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        if self.uses_counter_iv() { SALT_LEN } else { 0 }
    }

    /// Octets of KEYMAT: the key, then that of integrity (RFC 7296 section 2.17), then the salt
    /// (RFC 4106 section 8.1).
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.key_len() + self.integrity_key_len() + self.salt_len()
    }

    /// What KEYMAT is made of, for messages: "16 octets of key, then 4 of salt".
    #[must_use]
    pub fn keymat_parts(self) -> impl fmt::Display {
        KeymatParts(self)
    }

    /// Octets of IV on the wire: 8 for a counter, 16 for CBC, none where the sequence number
    /// implies it or nothing needs it. That of AH is part of its ICV field.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self.method() {
            Method::Gcm(..) | Method::ChaCha | Method::Gmac(_) => COUNTER_IV_LEN,
            Method::Cbc(..) => BLOCK_LEN,
            Method::GcmImplicit(_) | Method::ChaChaImplicit | Method::Hmac(_) => 0,
        }
    }

    /// Octets of ICV (RFC 4106 section 6, 4868 section 2.3, 4543 section 3.4, 7634 section 2).
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self.method() {
            Method::Gcm(_, icv_len) => icv_len,
            Method::Cbc(_, sha2) | Method::Hmac(sha2) => sha2.digest_len() / 2,
            _ => 16,
        }
    }

    /// Octets of the ICV field of AH (RFC 4302 section 2.6) without the padding behind it: IV and
    /// ICV for GMAC (RFC 4543 section 4), ICV for HMAC. Of no use for ESP.
    #[must_use]
    pub const fn ah_icv_field_len(self) -> usize {
        self.iv_len() + self.icv_len()
    }

    /// Octets to a multiple of which text is padded: the block of the cipher, and at least 4, the
    /// alignment of the ESP trailer (RFC 4303 section 2.4).
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self.method() {
            Method::Cbc(..) => BLOCK_LEN,
            _ => 4,
        }
    }

    /// Where the text of an ESP packet starts, in octets from the SPI.
    #[must_use]
    pub const fn text_at(self) -> usize {
        ESP_HEADER_LEN + self.iv_len()
    }

    /// Octets of an ESP packet with empty text: less cannot be authentic.
    #[must_use]
    pub const fn min_esp_len(self) -> usize {
        self.text_at() + self.icv_len()
    }

    /// Whether the text cannot be read on the way.
    #[must_use]
    pub const fn is_encrypting(self) -> bool {
        !matches!(self.method(), Method::Gmac(_) | Method::Hmac(_))
    }

    /// Whether the nonce is the salt and a counter: the 64-bit sequence number. With an IV on the
    /// wire ([`Algorithm::iv_len`] 8) the counter is what stands there.
    #[must_use]
    pub const fn uses_counter_iv(self) -> bool {
        !matches!(self.method(), Method::Cbc(..) | Method::Hmac(_))
    }

    /// Whether the IV is implied by the sequence number (RFC 8750).
    #[must_use]
    pub const fn has_implicit_iv(self) -> bool {
        matches!(self.method(), Method::GcmImplicit(_) | Method::ChaChaImplicit)
    }

    /// Whether the ICV is shorter than the algorithm could make it: of AES-GCM 8 or 12 octets,
    /// which RFC 4106 section 6 makes optional.
    #[must_use]
    pub const fn has_short_icv(self) -> bool {
        matches!(self.method(), Method::Gcm(_, 8 | 12))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.keyword())
    }
}

/// See [`Algorithm::keymat_parts`].
struct KeymatParts(Algorithm);

impl fmt::Display for KeymatParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.0.key_len(), "of key"),
            (self.0.integrity_key_len(), "of integrity key"),
            (self.0.salt_len(), "of salt"),
        ];
        let mut unit = "octets ";
        for (len, name) in parts.into_iter().filter(|&(len, _)| len > 0) {
            let then = if unit.is_empty() { ", then " } else { "" };
            write!(f, "{then}{len} {unit}{name}")?;
            unit = "";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> impl Iterator<Item = Algorithm> {
        EVERY.iter().copied()
    }

    /// Display and parsing are inverse over all algorithms of each protocol.
    #[test]
    fn keywords_round_trip() {
        for protocol in [Protocol::Esp, Protocol::Ah] {
            for &algorithm in Algorithm::all_of(protocol) {
                assert_eq!(algorithm.protocol(), protocol);
                assert_eq!(Algorithm::parse(protocol, &algorithm.to_string()), Ok(algorithm));
            }
        }
        assert_eq!("aes256gcm16".parse(), Ok(Algorithm::Aes256Gcm16));
    }

    /// G10: what RFC 8221 sections 5 and 6 ask for is there; CCM is for small devices only.
    #[test]
    fn what_rfc_8221_asks_for_is_there() {
        let must = ["null-sha256", "aes128-sha256", "aes256-sha256", "aes128gcm16", "aes256gcm16"];
        let should = ["chacha20poly1305", "aes256-sha512", "null-sha512", "aes128gmac"];
        for keyword in must.into_iter().chain(should) {
            assert!(Algorithm::parse(Protocol::Esp, keyword).is_ok(), "{keyword}");
        }
        for keyword in ["sha256", "sha512", "aes128gmac", "aes256gmac"] {
            assert!(Algorithm::parse(Protocol::Ah, keyword).is_ok(), "{keyword}");
        }
    }

    /// G01, G04: the lengths of AES-GCM are those of RFC 4106 sections 3, 6 and 8.1; G07, G08:
    /// those of ChaCha20-Poly1305 of RFC 7634 section 2, and implicit IVs take no room.
    #[test]
    fn lengths_of_aeads_are_the_rfc_s() {
        let keymats = [Algorithm::Aes128Gcm16, Algorithm::Aes192Gcm8, Algorithm::Aes256Gcm12]
            .map(Algorithm::keymat_len);
        assert_eq!(keymats, [20, 28, 36]);
        let shape = |algorithm: Algorithm| {
            (algorithm.text_at(), algorithm.icv_len(), algorithm.min_esp_len())
        };
        assert_eq!(shape(Algorithm::Aes128Gcm16), (16, 16, 32));
        assert_eq!(shape(Algorithm::Aes128Gcm12), (16, 12, 28));
        assert_eq!(shape(Algorithm::Aes128Gcm8), (16, 8, 24));
        assert_eq!(shape(Algorithm::ChaCha20Poly1305), (16, 16, 32));
        assert_eq!(Algorithm::ChaCha20Poly1305.keymat_len(), 36);
        assert_eq!(shape(Algorithm::Aes256Gcm16Iiv), (8, 16, 24));
        assert_eq!(shape(Algorithm::ChaCha20Poly1305Iiv), (8, 16, 24));
        let short = every().filter(|algorithm| algorithm.has_short_icv());
        assert!(short.map(Algorithm::icv_len).eq([12, 12, 12, 8, 8, 8]));
    }

    /// The lengths of HMAC are those of RFC 4868 section 2.3, of CBC those of RFC 3602 section 2,
    /// and of GMAC those of RFC 4543 (G06).
    #[test]
    fn lengths_of_pairs_are_the_rfc_s() {
        let cbc = Algorithm::Aes256CbcSha384;
        assert_eq!((cbc.key_len(), cbc.integrity_key_len(), cbc.salt_len()), (32, 48, 0));
        assert_eq!((cbc.iv_len(), cbc.icv_len(), cbc.block_len(), cbc.text_at()), (16, 24, 16, 24));
        let icvs = [Algorithm::NullSha256, Algorithm::AhSha384, Algorithm::Aes128CbcSha512]
            .map(|algorithm| (algorithm.integrity_key_len(), algorithm.icv_len()));
        assert_eq!(icvs, [(32, 16), (48, 24), (64, 32)]);
        let null = Algorithm::NullSha256;
        assert_eq!((null.key_len(), null.text_at(), null.block_len()), (0, 8, 4));
        let gmac = Algorithm::AhAes192Gmac;
        assert_eq!((gmac.keymat_len(), gmac.ah_icv_field_len()), (28, 24));
        assert_eq!(Algorithm::AhSha512.ah_icv_field_len(), 32);
    }

    /// Relations that hold over the whole table: a salt with every counter, which stands in an IV
    /// of 8 octets or is implied; blocks with CBC alone; and what does not encrypt says so.
    #[test]
    fn the_table_is_consistent() {
        for algorithm in every() {
            let counter = algorithm.uses_counter_iv();
            assert_eq!(algorithm.salt_len(), if counter { 4 } else { 0 }, "{algorithm}");
            assert_eq!(algorithm.iv_len() == 8, counter && !algorithm.has_implicit_iv());
            assert_eq!(algorithm.block_len() == 16, algorithm.iv_len() == 16);
            assert!(algorithm.keymat_len() >= 20 && algorithm.icv_len().is_multiple_of(4));
            let keyword = algorithm.keyword();
            let is_plain = keyword.starts_with("null")
                || keyword.starts_with("sha")
                || keyword.ends_with("gmac");
            assert_eq!(algorithm.is_encrypting(), !is_plain, "{algorithm}");
        }
    }

    /// Messages name the parts in the order they are in.
    #[test]
    fn keymat_parts_are_named() {
        let parts = |algorithm: Algorithm| algorithm.keymat_parts().to_string();
        assert_eq!(parts(Algorithm::Aes128Gcm16), "16 octets of key, then 4 of salt");
        assert_eq!(parts(Algorithm::Aes256CbcSha512), "32 octets of key, then 64 of integrity key");
        assert_eq!(parts(Algorithm::AhSha256), "32 octets of integrity key");
    }
}
