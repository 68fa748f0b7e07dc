//! The portable provider: the `aes-gcm` crate, on any CPU.
//!
//! Safe Rust and well reviewed, so also what faster providers are compared with. `aes-gcm` finds
//! AES, VAES and carry-less multiply instructions at run time and has constant-time code for CPUs
//! without; it verifies the ICV before it decrypts, so that a forged text stays ciphertext. Its
//! "zeroize" feature wipes contexts when they are dropped, and the copies of the hash key it makes
//! for each packet.
//!
//! Packets are worked on one at a time, in order. What the batch is good for: key contexts are
//! fetched some packets ahead, since with thousands of SAs they are in no near cache.

use std::fmt;

use aes_gcm::AeadInOut;
use aes_gcm::AesGcm;
use aes_gcm::KeyInit;
use aes_gcm::aes::Aes128Enc;
use aes_gcm::aes::Aes192Enc;
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use zeroize::Zeroize;

use crate::algorithm::Algorithm;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::port::Aad;
use crate::port::Aead;
use crate::port::Holds;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::Verified;
use crate::port::nonce_of;
use crate::port::split;
use crate::prefetch::LINE;
use crate::prefetch::prefetch;
use crate::prefetch::prefetch_first;
use crate::prefetch::prefetch_later;

/// AES-GCM by the `aes-gcm` crate.
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

impl RustCrypto {
    /// [`Aead::seal`] for all keys that hold one of this provider's.
    pub(crate) fn seal_held<K: Holds<RustCryptoKey>>(self, ops: &mut [Op<'_, K>]) {
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let key = op.key.held();
            let (header, text, icv) = split(op.esp).expect("room for header and ICV");
            let nonce = nonce_of(key.salt, header);
            let aad = Aad::of(header, op.esn_high);
            *icv = key.cipher.seal(&nonce, aad.as_bytes(), text);
        }
    }

    /// [`Aead::open`] for all keys that hold one of this provider's.
    pub(crate) fn open_held<K: Holds<RustCryptoKey>>(
        self,
        ops: &mut [Op<'_, K>],
        statuses: &mut [Status],
    ) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            statuses[at] = open_one(&mut ops[at]);
        }
    }
}

impl Aead for RustCrypto {
    type Key = RustCryptoKey;

    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<RustCryptoKey, KeyError> {
        let wrong_length =
            || KeyError { algorithm, expected: algorithm.keymat_len(), given: keymat.len() };
        let (key, salt) = keymat.split().ok_or_else(wrong_length)?;
        let cipher = Cipher::new(algorithm, key).ok_or_else(wrong_length)?;
        Ok(RustCryptoKey { cipher, salt })
    }

    /// Asks for the whole context: every packet needs all of it. Not needed ahead of
    /// [`Aead::seal`] and [`Aead::open`], which do the same for the packets of their batch.
    #[inline]
    fn prefetch(&self, key: &RustCryptoKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, RustCryptoKey>]) {
        self.seal_held(ops);
    }

    fn open(&mut self, ops: &mut [Op<'_, RustCryptoKey>], statuses: &mut [Status]) {
        self.open_held(ops, statuses);
    }

    fn seal_general(
        &mut self,
        key: &RustCryptoKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
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
        match text_and_icv.split_last_chunk_mut() {
            None => false,
            Some((text, icv)) => key.cipher.open(nonce, aad, text, icv),
        }
    }
}

#[inline(always)]
fn open_one<K: Holds<RustCryptoKey>>(op: &mut Op<'_, K>) -> Status {
    let key = op.key.held();
    let Some((header, text, icv)) = split(op.esp) else {
        return Status::Forged;
    };
    let nonce = nonce_of(key.salt, header);
    let aad = Aad::of(header, op.esn_high);
    match key.cipher.open(&nonce, aad.as_bytes(), text, icv) {
        true => Status::Authentic(Verified::new()),
        false => Status::Forged,
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

/// In line and not boxed: a box would be one more dependent read. GCM never decrypts with AES, so
/// the contexts hold the encryption key schedule alone.
enum Cipher {
    Aes128(Gcm<Aes128Enc>),
    Aes192(Gcm<Aes192Enc>),
    Aes256(Gcm<Aes256Enc>),
}

impl Cipher {
    /// `None` when the key has not the length of the algorithm's.
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Cipher> {
        match algorithm {
            Algorithm::Aes128Gcm16 => Gcm::new_from_slice(key).map(Cipher::Aes128),
            Algorithm::Aes192Gcm16 => Gcm::new_from_slice(key).map(Cipher::Aes192),
            Algorithm::Aes256Gcm16 => Gcm::new_from_slice(key).map(Cipher::Aes256),
        }
        .ok()
    }

    #[inline(always)]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        let (nonce, text) = (nonce.into(), text.into());
        let icv = match self {
            Cipher::Aes128(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
            Cipher::Aes192(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
            Cipher::Aes256(gcm) => gcm.encrypt_inout_detached(nonce, aad, text),
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
