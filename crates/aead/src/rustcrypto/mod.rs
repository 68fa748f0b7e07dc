//! The portable provider: crates of the RustCrypto project, on any CPU.
//!
//! Safe Rust and well reviewed, so also what faster providers are compared with. The crates find
//! AES, VAES, carry-less multiply and SHA instructions at run time and have constant-time code for
//! CPUs without. The ICV is verified before anything is decrypted, so that a forged text stays
//! ciphertext. Their "zeroize" features wipe contexts when they are dropped, and the copies of them
//! that are made for a packet.
//!
//! - here: AES-GCM with IV and a 16-octet ICV, by `aes-gcm`, its context in line.
//! - `suite`: all other algorithms, and AH.
//! - `gcm`, `cbc`, `hmac`: the pieces of those.
//! - `tag`: an ICV to be written or compared.
//!
//! Packets are worked on one at a time.

mod cbc;
mod gcm;
mod hmac;
mod suite;
mod tag;

use std::fmt;

use aes_gcm::AeadInOut;
use aes_gcm::AesGcm;
use aes_gcm::KeyInit;
use aes_gcm::aes::Aes128Enc;
use aes_gcm::aes::Aes192Enc;
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use zeroize::Zeroize;

use crate::algorithm::AesSize;
use crate::algorithm::Algorithm;
use crate::algorithm::Method;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::one_by_one::OneByOne;
use crate::one_by_one::open_each;
use crate::one_by_one::seal_each;
use crate::port::Aad;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::nonce_of;
use crate::port::split;
use crate::prefetch::LINE;
use crate::prefetch::prefetch;
use crate::rustcrypto::suite::Suite;

/// All algorithms, by the crates of RustCrypto.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

/// The context of one SA, wiped on drop. It starts on a cache line, so that it spans as few as it
/// can.
#[repr(align(64))]
pub struct RustCryptoKey {
    cipher: Cipher,
    salt: [u8; SALT_LEN],
}

const _: () = assert!(align_of::<RustCryptoKey>() == LINE);

impl Aead for RustCrypto {
    type Key = RustCryptoKey;

    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<RustCryptoKey, KeyError> {
        let parts = keymat.parts(algorithm)?;
        let cipher = match algorithm.method() {
            Method::Gcm(size, ICV_LEN) => Cipher::new(size, parts.key),
            _ => Cipher::Suite(Box::new(Suite::new(algorithm, keymat, parts))),
        };
        Ok(RustCryptoKey { cipher, salt: parts.salt })
    }

    /// Asks for the whole context: every packet needs all of it. Not needed ahead of
    /// [`Aead::seal`] and [`Aead::open`], which do the same for the packets of their batch.
    #[inline]
    fn prefetch(&self, key: &RustCryptoKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, RustCryptoKey>]) {
        seal_each(ops);
    }

    fn open(&mut self, ops: &mut [Op<'_, RustCryptoKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        open_each(ops, statuses);
    }

    fn seal_ah(&mut self, op: AhOp<'_, RustCryptoKey>) {
        op.key.suite().seal_ah(op.key.salt, op);
    }

    fn open_ah(&mut self, op: AhOp<'_, RustCryptoKey>) -> Status {
        Status::of(op.key.suite().open_ah(op.key.salt, op))
    }

    fn seal_general(
        &mut self,
        key: &RustCryptoKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        if let Cipher::Suite(suite) = &key.cipher {
            return suite.seal_general(nonce, aad, text_and_icv);
        }
        let (text, icv) = text_and_icv.split_last_chunk_mut().expect("room for the ICV");
        *icv = key.cipher.seal(nonce, aad, text);
    }

    fn open_general(
        &mut self,
        key: &RustCryptoKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        if let Cipher::Suite(suite) = &key.cipher {
            return suite.open_general(nonce, aad, text_and_icv);
        }
        match text_and_icv.split_last_chunk_mut() {
            None => false,
            Some((text, icv)) => key.cipher.open(nonce, aad, text, icv),
        }
    }
}

impl OneByOne for RustCryptoKey {
    #[inline(always)]
    fn seal(&self, esn_high: Option<u32>, esp: &mut [u8]) {
        if let Cipher::Suite(suite) = &self.cipher {
            return suite.seal(self.salt, esn_high, esp);
        }
        let (header, text, icv) = split(esp).expect("room for header and ICV");
        let nonce = nonce_of(self.salt, header);
        let aad = Aad::of(header, esn_high);
        *icv = self.cipher.seal(&nonce, aad.as_bytes(), text);
    }

    #[inline(always)]
    fn open(&self, esn_high: Option<u32>, esp: &mut [u8]) -> bool {
        if let Cipher::Suite(suite) = &self.cipher {
            return suite.open(self.salt, esn_high, esp);
        }
        let Some((header, text, icv)) = split(esp) else {
            return false;
        };
        let nonce = nonce_of(self.salt, header);
        let aad = Aad::of(header, esn_high);
        self.cipher.open(&nonce, aad.as_bytes(), text, icv)
    }
}

impl RustCryptoKey {
    /// Of the algorithms, those of AH are among the ones that have a suite.
    fn suite(&self) -> &Suite {
        match &self.cipher {
            Cipher::Suite(suite) => suite,
            _ => panic!("the key of an ESP SA"),
        }
    }
}

impl Drop for RustCryptoKey {
    fn drop(&mut self) {
        // The cipher wipes itself.
        self.salt.zeroize();
    }
}

impl fmt::Debug for RustCryptoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustCryptoKey(..)")
    }
}

type Gcm<Aes> = AesGcm<Aes, U12>;

/// AES-GCM in line and not boxed: a box would be one more dependent read. GCM never decrypts with
/// AES, so the contexts hold the encryption key schedule alone.
enum Cipher {
    Aes128(Gcm<Aes128Enc>),
    Aes192(Gcm<Aes192Enc>),
    Aes256(Gcm<Aes256Enc>),
    /// Everything else, which has functions of its own.
    Suite(Box<Suite>),
}

const NOT_GCM: &str = "a suite was looked for first";

impl Cipher {
    /// # Panics
    /// When the key has not the length of `size`.
    fn new(size: AesSize, key: &[u8]) -> Cipher {
        match size {
            AesSize::Aes128 => Gcm::new_from_slice(key).map(Cipher::Aes128),
            AesSize::Aes192 => Gcm::new_from_slice(key).map(Cipher::Aes192),
            AesSize::Aes256 => Gcm::new_from_slice(key).map(Cipher::Aes256),
        }
        .expect("the length of key material was checked")
    }

    #[inline(always)]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        let (nonce, text) = (nonce.into(), text.into());
        let icv = match self {
            Cipher::Aes128(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
            Cipher::Aes192(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
            Cipher::Aes256(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
            Cipher::Suite(_) => unreachable!("{NOT_GCM}"),
        };
        icv.expect("a packet is far shorter than the limit of GCM, 64 GiB").into()
    }

    #[inline(always)]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        let (nonce, text, icv) = (nonce.into(), text.into(), icv.into());
        match self {
            Cipher::Aes128(gcm) => gcm.decrypt_inout_detached(nonce, aad, text, icv),
            Cipher::Aes192(gcm) => gcm.decrypt_inout_detached(nonce, aad, text, icv),
            Cipher::Aes256(gcm) => gcm.decrypt_inout_detached(nonce, aad, text, icv),
            Cipher::Suite(_) => unreachable!("{NOT_GCM}"),
        }
        .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::consts::U16;
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// No key octet in Debug.
    #[test]
    fn debug_is_redacted() {
        let keymat = Keymat::new(vec![0xab; 20]);
        let key = RustCrypto.key(Algorithm::Aes128Gcm16, &keymat).unwrap();
        assert_eq!(format!("{key:?}"), "RustCryptoKey(..)");
    }

    /// The "zeroize" feature of `aes-gcm` is on: without it this does not compile.
    #[test]
    fn contexts_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<AesGcm<Aes128Enc, U12, U16>>();
        wiped::<AesGcm<Aes192Enc, U12, U16>>();
        wiped::<AesGcm<Aes256Enc, U12, U16>>();
    }
}
