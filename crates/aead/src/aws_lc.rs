//! Keys of AWS-LC, the C library of Amazon, which the crate `aws-lc-rs` builds.
//!
//! For AES-GCM with IV and a 16-octet ICV, on any CPU that the library has code for. It is other
//! people's code through and through, and so the second one that ours is compared with in tests.
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
use crate::algorithm::SALT_LEN;
use crate::one_by_one::OneByOne;
use crate::port::Aad;
use crate::port::ICV_LEN;
use crate::port::nonce_of;
use crate::port::split;

/// Octets of text that are copied on the stack: as many as the largest packet has.
const COPIED: usize = 10_240;

/// The context of one SA, wiped on drop.
pub struct AwsLcKey {
    cipher: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl AwsLcKey {
    /// The context of a key, which has the length of `size`.
    pub(crate) fn new(size: AesSize, key: &[u8], salt: [u8; SALT_LEN]) -> AwsLcKey {
        let method = match size {
            AesSize::Aes128 => &aead::AES_128_GCM,
            AesSize::Aes192 => &aead::AES_192_GCM,
            AesSize::Aes256 => &aead::AES_256_GCM,
        };
        let key = UnboundKey::new(method, key).expect("the length was checked");
        AwsLcKey { cipher: LessSafeKey::new(key), salt }
    }

    /// [`Aead::seal_general`](crate::Aead::seal_general).
    pub(crate) fn seal_general(&self, nonce: &[u8; 12], aad: &[u8], text_and_icv: &mut [u8]) {
        let (text, icv) = text_and_icv.split_last_chunk_mut().expect("room for the ICV");
        self.seal_text(*nonce, aad, text, icv);
    }

    /// [`Aead::open_general`](crate::Aead::open_general).
    pub(crate) fn open_general(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        let parts = text_and_icv.split_last_chunk_mut();
        parts.is_some_and(|(text, icv)| self.open_text(*nonce, aad, text, icv))
    }

    fn seal_text(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.cipher.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text);
        let tag = sealed.expect("a packet is far shorter than the limit of GCM, 64 GiB");
        icv.copy_from_slice(tag.as_ref());
    }

    fn open_text(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
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

impl OneByOne for AwsLcKey {
    fn seal(&self, esn_high: Option<u32>, esp: &mut [u8]) {
        let (header, text, icv) = split(esp).expect("room for header and ICV");
        let aad = Aad::of(header, esn_high);
        self.seal_text(nonce_of(self.salt, header), aad.as_bytes(), text, icv);
    }

    fn open(&self, esn_high: Option<u32>, esp: &mut [u8]) -> bool {
        split(esp).is_some_and(|(header, text, icv)| {
            let aad = Aad::of(header, esn_high);
            self.open_text(nonce_of(self.salt, header), aad.as_bytes(), text, icv)
        })
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
