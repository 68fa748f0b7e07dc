//! Every algorithm but AES-GCM with a 16-octet ICV and IV: what of a packet goes where.
//!
//! Contexts are boxed, as they differ in size, and none of these algorithms is fast enough for one
//! dependent read to show.

use chacha20poly1305::AeadInOut;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::KeyInit;

use crate::ah::AhParts;
use crate::ah::AhShape;
use crate::algorithm::Algorithm;
use crate::algorithm::BLOCK_LEN;
use crate::algorithm::ESP_HEADER_LEN;
use crate::algorithm::Method;
use crate::algorithm::Protocol;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::keymat::Parts;
use crate::port::Aad;
use crate::port::AhOp;
use crate::port::SEQ_AT;
use crate::rustcrypto::cbc::Cbc;
use crate::rustcrypto::gcm::Gcm;
use crate::rustcrypto::hmac::HmacSha2;
use crate::rustcrypto::tag::Tag;

/// The context of an SA but for its salt.
pub(super) struct Suite {
    algorithm: Algorithm,
    /// Stands in IVs that are made here beside the sequence number.
    iv_base: u64,
    ciphers: Ciphers,
}

#[expect(clippy::large_enum_variant, reason = "a suite is boxed as a whole, once an SA")]
enum Ciphers {
    Gcm(Gcm),
    ChaCha(ChaCha20Poly1305),
    Cbc(Cbc, HmacSha2),
    Gmac(Gcm),
    Hmac(HmacSha2),
}

/// An ESP packet, taken apart.
struct EspParts<'a> {
    header: &'a [u8; ESP_HEADER_LEN],
    iv: &'a mut [u8],
    text: &'a mut [u8],
    icv: &'a mut [u8],
    esn_high: Option<u32>,
}

/// In the place of an ICV field: as long as the longest.
const ZEROES: [u8; 32] = [0; 32];

const KEY_OF_AH: &str = "the key of an AH SA";
const KEY_OF_ESP: &str = "the key of an ESP SA";
const NO_NONCE: &str = "CBC has no nonce";

impl Suite {
    /// Expands key material that has the length of the algorithm's.
    pub(super) fn new(algorithm: Algorithm, keymat: &Keymat, parts: Parts<'_>) -> Suite {
        let ciphers = match algorithm.method() {
            Method::Gcm(size, _) | Method::GcmImplicit(size) => {
                Ciphers::Gcm(Gcm::new(size, parts.key))
            }
            Method::ChaCha | Method::ChaChaImplicit => Ciphers::ChaCha(
                ChaCha20Poly1305::new_from_slice(parts.key).expect("the length was checked"),
            ),
            Method::Cbc(size, sha2) => Ciphers::Cbc(
                Cbc::new(size, parts.key, keymat.as_bytes()),
                HmacSha2::new(sha2, parts.integrity_key),
            ),
            Method::Gmac(size) => Ciphers::Gmac(Gcm::new(size, parts.key)),
            Method::Hmac(sha2) => Ciphers::Hmac(HmacSha2::new(sha2, parts.integrity_key)),
        };
        Suite { algorithm, iv_base: keymat.iv_base(), ciphers }
    }

    /// One packet of [`Aead::seal`](crate::Aead::seal).
    pub(super) fn seal(&self, salt: [u8; SALT_LEN], esn_high: Option<u32>, esp: &mut [u8]) {
        let esp = self.split(esn_high, esp).expect("room for header, IV and ICV");
        match &self.ciphers {
            Ciphers::Gcm(gcm) => {
                let (nonce, aad) = (esp.nonce(salt), Aad::of(esp.header, esn_high));
                gcm.seal(&nonce, aad.as_bytes(), esp.text).write(esp.icv);
            }
            Ciphers::ChaCha(chacha) => {
                let (nonce, aad) = (esp.nonce(salt), Aad::of(esp.header, esn_high));
                seal_chacha(chacha, &nonce, aad.as_bytes(), esp.text, esp.icv);
            }
            Ciphers::Cbc(cbc, hmac) => {
                let iv = cbc.iv(self.iv_base | esp.sequence());
                esp.iv.copy_from_slice(&iv);
                cbc.encrypt(&iv, esp.text);
                hmac.mac(&esp.hmac_pieces(&esp.high())).write(esp.icv);
            }
            Ciphers::Gmac(gcm) => esp.gmac(gcm, salt).write(esp.icv),
            Ciphers::Hmac(hmac) => hmac.mac(&esp.hmac_pieces(&esp.high())).write(esp.icv),
        }
    }

    /// One packet of [`Aead::open`](crate::Aead::open): whether it is authentic.
    pub(super) fn open(&self, salt: [u8; SALT_LEN], esn_high: Option<u32>, esp: &mut [u8]) -> bool {
        let Some(esp) = self.split(esn_high, esp) else {
            return false;
        };
        match &self.ciphers {
            Ciphers::Gcm(gcm) => {
                let (nonce, aad) = (esp.nonce(salt), Aad::of(esp.header, esn_high));
                gcm.open(&nonce, aad.as_bytes(), esp.text, esp.icv)
            }
            Ciphers::ChaCha(chacha) => {
                let (nonce, aad) = (esp.nonce(salt), Aad::of(esp.header, esn_high));
                open_chacha(chacha, &nonce, aad.as_bytes(), esp.text, esp.icv)
            }
            Ciphers::Cbc(cbc, hmac) => {
                let Some(iv) = esp.iv.first_chunk() else {
                    return false;
                };
                let authentic = esp.text.len().is_multiple_of(BLOCK_LEN)
                    && hmac.mac(&esp.hmac_pieces(&esp.high())).is(esp.icv);
                if authentic {
                    cbc.decrypt(iv, esp.text);
                }
                authentic
            }
            Ciphers::Gmac(gcm) => esp.gmac(gcm, salt).is(esp.icv),
            Ciphers::Hmac(hmac) => hmac.mac(&esp.hmac_pieces(&esp.high())).is(esp.icv),
        }
    }

    /// [`Aead::seal_ah`](crate::Aead::seal_ah).
    pub(super) fn seal_ah<K>(&self, salt: [u8; SALT_LEN], mut op: AhOp<'_, K>) {
        assert_eq!(self.algorithm.protocol(), Protocol::Ah, "{KEY_OF_ESP}");
        let esn_high = op.esn_high;
        let ah = AhShape::of(self.algorithm).split(&mut op).expect("the length of the header");
        let (iv, icv) = ah.field.split_at_mut(self.algorithm.iv_len());
        // Without IV there is nothing to copy to.
        iv.copy_from_slice(&(self.iv_base | ah.sequence).to_be_bytes()[..iv.len()]);
        self.tag_of_ah(salt, esn_high, iv, [ah.before[0], ah.before[1], ah.after]).write(icv);
    }

    /// [`Aead::open_ah`](crate::Aead::open_ah): whether the packet is authentic.
    pub(super) fn open_ah<K>(&self, salt: [u8; SALT_LEN], mut op: AhOp<'_, K>) -> bool {
        assert_eq!(self.algorithm.protocol(), Protocol::Ah, "{KEY_OF_ESP}");
        let esn_high = op.esn_high;
        let Some(ah) = AhShape::of(self.algorithm).split(&mut op) else {
            return false;
        };
        let AhParts { before: [header, fixed], after, .. } = ah;
        let (iv, icv) = ah.field.split_at(self.algorithm.iv_len());
        self.tag_of_ah(salt, esn_high, iv, [header, fixed, after]).is(icv)
    }

    /// The ICV of an AH packet: of the header in front, AH up to the ICV field, zeroes for that,
    /// what is behind, and the high half of the sequence number.
    fn tag_of_ah(
        &self,
        salt: [u8; SALT_LEN],
        esn_high: Option<u32>,
        iv: &[u8],
        [header, fixed, after]: [&[u8]; 3],
    ) -> Tag {
        let field = &ZEROES[..self.algorithm.ah_icv_field_len()];
        let high = esn_high.map(u32::to_be_bytes);
        let pieces = [header, fixed, field, after, high.as_ref().map_or(&[], |high| &high[..])];
        match &self.ciphers {
            Ciphers::Gmac(gcm) => gcm.mac(&nonce(salt, iv), &pieces),
            Ciphers::Hmac(hmac) => hmac.mac(&pieces),
            Ciphers::Gcm(_) | Ciphers::ChaCha(_) | Ciphers::Cbc(..) => panic!("{KEY_OF_ESP}"),
        }
    }

    /// [`Aead::seal_general`](crate::Aead::seal_general).
    pub(super) fn seal_general(&self, nonce: &[u8; 12], aad: &[u8], text_and_icv: &mut [u8]) {
        let (text, icv) = self.split_general(text_and_icv).expect("room for the ICV");
        match &self.ciphers {
            Ciphers::Gcm(gcm) => gcm.seal(nonce, aad, text).write(icv),
            Ciphers::ChaCha(chacha) => seal_chacha(chacha, nonce, aad, text, icv),
            Ciphers::Gmac(gcm) => gcm.mac(nonce, &[aad, text]).write(icv),
            Ciphers::Hmac(hmac) => hmac.mac(&[aad, text]).write(icv),
            Ciphers::Cbc(..) => panic!("{NO_NONCE}"),
        }
    }

    /// [`Aead::open_general`](crate::Aead::open_general).
    pub(super) fn open_general(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        let Some((text, icv)) = self.split_general(text_and_icv) else {
            return false;
        };
        match &self.ciphers {
            Ciphers::Gcm(gcm) => gcm.open(nonce, aad, text, icv),
            Ciphers::ChaCha(chacha) => open_chacha(chacha, nonce, aad, text, icv),
            Ciphers::Gmac(gcm) => gcm.mac(nonce, &[aad, text]).is(icv),
            Ciphers::Hmac(hmac) => hmac.mac(&[aad, text]).is(icv),
            Ciphers::Cbc(..) => panic!("{NO_NONCE}"),
        }
    }

    /// `None` for a packet that is too short.
    fn split<'a>(&self, esn_high: Option<u32>, esp: &'a mut [u8]) -> Option<EspParts<'a>> {
        assert_eq!(self.algorithm.protocol(), Protocol::Esp, "{KEY_OF_AH}");
        let (header, rest) = esp.split_first_chunk_mut()?;
        let (iv, rest) = rest.split_at_mut_checked(self.algorithm.iv_len())?;
        let (text, icv) = self.split_general(rest)?;
        Some(EspParts { header, iv, text, icv, esn_high })
    }

    fn split_general<'a>(&self, octets: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let text_len = octets.len().checked_sub(self.algorithm.icv_len())?;
        octets.split_at_mut_checked(text_len)
    }
}

impl EspParts<'_> {
    /// In full: high half and the one sent.
    fn sequence(&self) -> u64 {
        let [.., a, b, c, d] = *self.header;
        u64::from(self.esn_high.unwrap_or(0)) << 32 | u64::from(u32::from_be_bytes([a, b, c, d]))
    }

    /// Salt and IV (RFC 4106 section 4), or salt and sequence number (RFC 8750 section 4).
    fn nonce(&self, salt: [u8; SALT_LEN]) -> [u8; 12] {
        match self.iv.is_empty() {
            false => nonce(salt, self.iv),
            true => nonce(salt, &self.sequence().to_be_bytes()),
        }
    }

    /// The high half as octets; none without.
    fn high(&self) -> High {
        High(self.esn_high.map(u32::to_be_bytes))
    }

    /// GMAC covers the IV too (RFC 4543 section 3.3).
    fn gmac(&self, gcm: &Gcm, salt: [u8; SALT_LEN]) -> Tag {
        let (spi, seq) = self.header.split_at(SEQ_AT);
        gcm.mac(&self.nonce(salt), &[spi, self.high().as_bytes(), seq, self.iv, self.text])
    }

    /// What HMAC covers: the high half is behind all else (RFC 4303 section 2.2.1).
    fn hmac_pieces<'a>(&'a self, high: &'a High) -> [&'a [u8]; 4] {
        [self.header, self.iv, self.text, high.as_bytes()]
    }
}

/// The high half of a sequence number, if there is one.
struct High(Option<[u8; 4]>);

impl High {
    fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |octets| octets)
    }
}

/// `iv` has 8 octets.
fn nonce(salt: [u8; SALT_LEN], iv: &[u8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..SALT_LEN].copy_from_slice(&salt);
    nonce[SALT_LEN..].copy_from_slice(iv);
    nonce
}

fn seal_chacha(
    chacha: &ChaCha20Poly1305,
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    icv: &mut [u8],
) {
    let tag = chacha.encrypt_inout_detached(nonce.into(), aad, text.into());
    icv.copy_from_slice(&tag.expect("a packet is far shorter than the limit, 256 GiB"));
}

/// The crate verifies before it decrypts.
fn open_chacha(
    chacha: &ChaCha20Poly1305,
    nonce: &[u8; 12],
    aad: &[u8],
    text: &mut [u8],
    icv: &[u8],
) -> bool {
    let Ok(icv) = icv.try_into() else {
        return false;
    };
    chacha.decrypt_inout_detached(nonce.into(), aad, text.into(), icv).is_ok()
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// The "zeroize" feature of `chacha20poly1305` is on: without it this does not compile.
    #[test]
    fn chacha_contexts_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<ChaCha20Poly1305>();
    }

    /// The zeroes reach over the longest ICV field.
    #[test]
    fn zeroes_reach_over_every_icv_field() {
        let longest = Algorithm::ALL_AH.into_iter().map(Algorithm::ah_icv_field_len).max();
        assert_eq!(longest, Some(ZEROES.len()));
    }
}
