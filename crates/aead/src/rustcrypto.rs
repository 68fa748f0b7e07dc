//! The portable provider: the `aes-gcm` crate.

use std::fmt;

use aes_gcm::AeadInOut;
use aes_gcm::AesGcm;
use aes_gcm::KeyInit;
use aes_gcm::aes::Aes128Enc;
use aes_gcm::aes::Aes192Enc;
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;

use crate::algorithm::Algorithm;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::port::Aad;
use crate::port::Aead;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::Verified;
use crate::port::nonce_of;
use crate::port::split;
use crate::prefetch::prefetch;

/// AES-GCM by the `aes-gcm` crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

/// The context of one SA. Wiped on drop.
#[repr(align(64))]
pub struct RustCryptoKey {
    cipher: Cipher,
    salt: [u8; SALT_LEN],
}

enum Cipher {
    Aes128(AesGcm<Aes128Enc, U12>),
    Aes192(AesGcm<Aes192Enc, U12>),
    Aes256(AesGcm<Aes256Enc, U12>),
}

impl Drop for RustCryptoKey {
    fn drop(&mut self) {
        // The cipher wipes itself (feature "zeroize" of aes-gcm).
        zeroize::Zeroize::zeroize(&mut self.salt);
    }
}

impl fmt::Debug for RustCryptoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RustCryptoKey(..)")
    }
}

impl Cipher {
    #[inline(always)]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        fn run<C: AeadInOut<NonceSize = U12>>(
            cipher: &C,
            nonce: &[u8; 12],
            aad: &[u8],
            text: &mut [u8],
        ) -> [u8; ICV_LEN] {
            let tag = cipher
                .encrypt_inout_detached(nonce.into(), aad, text.into())
                .expect("a packet is shorter than the limit of GCM, 64 GiB");
            let mut icv = [0; ICV_LEN];
            icv.copy_from_slice(&tag);
            icv
        }
        match self {
            Cipher::Aes128(cipher) => run(cipher, nonce, aad, text),
            Cipher::Aes192(cipher) => run(cipher, nonce, aad, text),
            Cipher::Aes256(cipher) => run(cipher, nonce, aad, text),
        }
    }

    #[inline(always)]
    fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        match self {
            Cipher::Aes128(cipher) => cipher
                .decrypt_inout_detached(nonce.into(), aad, text.into(), icv.into())
                .is_ok(),
            Cipher::Aes192(cipher) => cipher
                .decrypt_inout_detached(nonce.into(), aad, text.into(), icv.into())
                .is_ok(),
            Cipher::Aes256(cipher) => cipher
                .decrypt_inout_detached(nonce.into(), aad, text.into(), icv.into())
                .is_ok(),
        }
    }
}

impl Aead for RustCrypto {
    type Key = RustCryptoKey;

    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<RustCryptoKey, KeyError> {
        let wrong_length = || KeyError {
            algorithm,
            expected: algorithm.keymat_len(),
            given: keymat.len(),
        };
        let (key, salt) = keymat.split().ok_or_else(wrong_length)?;
        let cipher = match algorithm {
            Algorithm::Aes128Gcm16 => AesGcm::new_from_slice(key).map(Cipher::Aes128),
            Algorithm::Aes192Gcm16 => AesGcm::new_from_slice(key).map(Cipher::Aes192),
            Algorithm::Aes256Gcm16 => AesGcm::new_from_slice(key).map(Cipher::Aes256),
        };
        Ok(RustCryptoKey {
            cipher: cipher.map_err(|_| wrong_length())?,
            salt,
        })
    }

    /// Every packet needs the whole context: it is small.
    #[inline]
    fn prefetch(&self, key: &RustCryptoKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, RustCryptoKey>]) {
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let (header, text, icv) = split(op.esp).expect("room for header and ICV");
            let nonce = nonce_of(op.key.salt, header);
            let aad = Aad::of(header, op.esn_high);
            *icv = op.key.cipher.seal(&nonce, aad.as_bytes(), text);
        }
    }

    fn open(&mut self, ops: &mut [Op<'_, RustCryptoKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            statuses[at] = match split(op.esp) {
                None => Status::Forged,
                Some((header, text, icv)) => {
                    let nonce = nonce_of(op.key.salt, header);
                    let aad = Aad::of(header, op.esn_high);
                    match op.key.cipher.open(&nonce, aad.as_bytes(), text, icv) {
                        true => Status::Authentic(Verified::new()),
                        false => Status::Forged,
                    }
                }
            };
        }
    }

    fn seal_general(
        &mut self,
        key: &RustCryptoKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        let (text, icv) = text_and_icv
            .split_last_chunk_mut::<ICV_LEN>()
            .expect("room for the ICV");
        *icv = key.cipher.seal(nonce, aad, text);
    }

    fn open_general(
        &mut self,
        key: &RustCryptoKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        match text_and_icv.split_last_chunk_mut::<ICV_LEN>() {
            None => false,
            Some((text, icv)) => key.cipher.open(nonce, aad, text, icv),
        }
    }
}

/// How many packets ahead key contexts are fetched: a packet takes longer than a fetch from memory
/// takes for each of its lines, so a few are enough.
const AHEAD: usize = 4;

/// Asks for the keys of the first packets of a batch.
#[inline(always)]
fn prefetch_first(ops: &[Op<'_, RustCryptoKey>]) {
    for op in ops.iter().take(AHEAD) {
        prefetch(op.key);
    }
}

/// Asks for the key of the packet that comes [`AHEAD`] after `at`, when it is another one.
#[inline(always)]
fn prefetch_later(ops: &[Op<'_, RustCryptoKey>], at: usize) {
    if let Some(later) = ops.get(at + AHEAD)
        && !std::ptr::eq(later.key, ops[at].key)
    {
        prefetch(later.key);
    }
}
