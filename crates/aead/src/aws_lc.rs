//! The provider around AWS-LC, the C library of Amazon, which the crate `aws-lc-rs` builds.
//!
//! For AES-GCM with IV and a 16-octet ICV, on any CPU that the library has code for. It is other
//! people's code through and through, and so the second one that ours is compared with in tests.
//! Keys of all other algorithms are those of the portable provider, in the same batch.
//!
//! The library overwrites a text that it finds forged. So the ciphertext is copied before it is
//! opened, and put back.
//!
//! A context lies on the library's heap, which wipes what it frees.

use std::fmt;

use arrayvec::ArrayVec;
use aws_lc_rs::aead;
use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::UnboundKey;
use zeroize::Zeroize;

use crate::algorithm::AesSize;
use crate::algorithm::Algorithm;
use crate::algorithm::Method;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::port::Aad;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::Holds;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::Verified;
use crate::port::nonce_of;
use crate::port::split;
use crate::prefetch::prefetch;
use crate::prefetch::prefetch_first;
use crate::prefetch::prefetch_later;
use crate::provider::ProviderKey;
use crate::rustcrypto::RustCrypto;

/// Octets of text that are copied on the stack: as many as the largest packet has.
const COPIED: usize = 10_240;

/// AES-GCM by AWS-LC.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

/// The context of one SA, wiped on drop.
pub struct AwsLcKey {
    cipher: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl AwsLcKey {
    fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.cipher.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text);
        let tag = sealed.expect("a packet is far shorter than the limit of GCM, 64 GiB");
        icv.copy_from_slice(tag.as_ref());
    }

    fn open(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        let mut near = ArrayVec::<u8, COPIED>::new();
        // Longer ones are no packets.
        let far = match near.try_extend_from_slice(text) {
            Ok(()) => Vec::new(),
            Err(_) => text.to_vec(),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.cipher.open_in_place_separate_tag(nonce, aead::Aad::from(aad), icv, text);
        if opened.is_ok() {
            return true;
        }
        text.copy_from_slice(if far.is_empty() { &near } else { &far });
        false
    }
}

impl Aead for AwsLc {
    type Key = ProviderKey;

    fn name(&self) -> &'static str {
        "aws-lc-rs"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<ProviderKey, KeyError> {
        let Method::Gcm(size, ICV_LEN) = algorithm.method() else {
            return ProviderKey::portable(algorithm, keymat);
        };
        let parts = keymat.parts(algorithm)?;
        let method = match size {
            AesSize::Aes128 => &aead::AES_128_GCM,
            AesSize::Aes192 => &aead::AES_192_GCM,
            AesSize::Aes256 => &aead::AES_256_GCM,
        };
        let key = UnboundKey::new(method, parts.key).expect("the length was checked");
        let context = AwsLcKey { cipher: LessSafeKey::new(key), salt: parts.salt };
        Ok(ProviderKey::AwsLc(Box::new(context)))
    }

    /// Not needed ahead of [`Aead::seal`] and [`Aead::open`], which do the same for the packets of
    /// their batch.
    #[inline]
    fn prefetch(&self, key: &ProviderKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, ProviderKey>]) {
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let ProviderKey::AwsLc(key) = op.key else {
                op.key.seal_portable(op.esn_high, op.esp);
                continue;
            };
            let (header, text, icv) = split(op.esp).expect("room for header and ICV");
            let aad = Aad::of(header, op.esn_high);
            key.seal(nonce_of(key.salt, header), aad.as_bytes(), text, icv);
        }
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        prefetch_first(ops);
        for (at, status) in (0..ops.len()).zip(statuses) {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let authentic = match op.key {
                ProviderKey::AwsLc(key) => split(op.esp).is_some_and(|(header, text, icv)| {
                    let aad = Aad::of(header, op.esn_high);
                    key.open(nonce_of(key.salt, header), aad.as_bytes(), text, icv)
                }),
                other => other.open_portable(op.esn_high, op.esp),
            };
            *status = match authentic {
                true => Status::Authentic(Verified::new()),
                false => Status::Forged,
            };
        }
    }

    fn seal_ah(&mut self, op: AhOp<'_, ProviderKey>) {
        RustCrypto.seal_ah(op.portable());
    }

    fn open_ah(&mut self, op: AhOp<'_, ProviderKey>) -> Status {
        RustCrypto.open_ah(op.portable())
    }

    fn seal_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        let ProviderKey::AwsLc(key) = key else {
            return RustCrypto.seal_general(key.held(), nonce, aad, text_and_icv);
        };
        let (text, icv) = text_and_icv.split_last_chunk_mut().expect("room for the ICV");
        key.seal(*nonce, aad, text, icv);
    }

    fn open_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        let ProviderKey::AwsLc(key) = key else {
            return RustCrypto.open_general(key.held(), nonce, aad, text_and_icv);
        };
        match text_and_icv.split_last_chunk_mut() {
            None => false,
            Some((text, icv)) => key.open(*nonce, aad, text, icv),
        }
    }
}

impl Drop for AwsLcKey {
    fn drop(&mut self) {
        // The library wipes the rest.
        self.salt.zeroize();
    }
}

impl fmt::Debug for AwsLcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsLcKey(..)")
    }
}
