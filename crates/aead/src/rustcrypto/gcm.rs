//! AES-GCM in the forms that the `aes-gcm` crate has not: ICVs of 8 octets, and GMAC over pieces.
//!
//! Put together as SP 800-38D section 7 says from the crates `aes`, `ctr` and `ghash`, which
//! `aes-gcm` is made of too: J0 is the nonce and a counter of one; the text is encrypted from a
//! counter of two; the ICV is GHASH over AAD, ciphertext and their lengths, added to the encrypted
//! J0, and cut.

use aes::Aes128Enc;
use aes::Aes192Enc;
use aes::Aes256Enc;
use aes::Block;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::BlockSizeUser;
use aes::cipher::InnerIvInit;
use aes::cipher::KeyInit;
use aes::cipher::StreamCipherCore;
use aes::cipher::consts::U16;
use ctr::CtrCore;
use ctr::flavors::Ctr32BE;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroize;

use crate::algorithm::AesSize;
use crate::algorithm::BLOCK_LEN;
use crate::rustcrypto::tag::Tag;

/// The context of a key.
pub(super) struct Gcm {
    aes: AesEnc,
    /// Keyed, and nothing hashed yet.
    ghash: GHash,
}

/// AES, encryption alone.
enum AesEnc {
    Aes128(Aes128Enc),
    Aes192(Aes192Enc),
    Aes256(Aes256Enc),
}

impl Gcm {
    /// Expands `key`.
    ///
    /// # Panics
    /// When it has not the length of `size`.
    pub(super) fn new(size: AesSize, key: &[u8]) -> Gcm {
        let aes = AesEnc::new(size, key);
        let mut hash_key = Block::default();
        aes.encrypt(&mut hash_key);
        let ghash = GHash::new(&hash_key);
        hash_key.as_mut_slice().zeroize();
        Gcm { aes, ghash }
    }

    /// Encrypts `text` in place, and says its ICV.
    pub(super) fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Tag {
        self.aes.crypt(nonce, text);
        self.tag(nonce, aad, text)
    }

    /// Decrypts `text` in place if `icv` is right, else leaves it.
    pub(super) fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        let authentic = self.tag(nonce, aad, text).is(icv);
        if authentic {
            self.aes.crypt(nonce, text);
        }
        authentic
    }

    /// GMAC of `pieces`, one behind the other.
    pub(super) fn mac(&self, nonce: &[u8; 12], pieces: &[&[u8]]) -> Tag {
        let mut hash = Hash::new(&self.ghash);
        pieces.iter().for_each(|piece| hash.add(piece));
        self.finish(nonce, hash, pieces.iter().map(|piece| piece.len()).sum(), 0)
    }

    /// The ICV of ciphertext.
    fn tag(&self, nonce: &[u8; 12], aad: &[u8], text: &[u8]) -> Tag {
        let mut hash = Hash::new(&self.ghash);
        hash.add(aad);
        hash.fill_block();
        hash.add(text);
        self.finish(nonce, hash, aad.len(), text.len())
    }

    fn finish(&self, nonce: &[u8; 12], mut hash: Hash, aad_len: usize, text_len: usize) -> Tag {
        hash.fill_block();
        hash.add(&(aad_len as u64 * 8).to_be_bytes());
        hash.add(&(text_len as u64 * 8).to_be_bytes());
        let mut tag = counter_block(nonce, 1);
        self.aes.encrypt(&mut tag);
        for (octet, hashed) in tag.iter_mut().zip(hash.ghash.finalize()) {
            *octet ^= hashed;
        }
        Tag::of(&tag)
    }
}

impl AesEnc {
    fn new(size: AesSize, key: &[u8]) -> AesEnc {
        const LENGTH: &str = "the length of key material was checked";
        match size {
            AesSize::Aes128 => AesEnc::Aes128(Aes128Enc::new_from_slice(key).expect(LENGTH)),
            AesSize::Aes192 => AesEnc::Aes192(Aes192Enc::new_from_slice(key).expect(LENGTH)),
            AesSize::Aes256 => AesEnc::Aes256(Aes256Enc::new_from_slice(key).expect(LENGTH)),
        }
    }

    fn encrypt(&self, block: &mut Block) {
        match self {
            AesEnc::Aes128(aes) => aes.encrypt_block(block),
            AesEnc::Aes192(aes) => aes.encrypt_block(block),
            AesEnc::Aes256(aes) => aes.encrypt_block(block),
        }
    }

    /// Adds the keystream, which encrypts and decrypts.
    fn crypt(&self, nonce: &[u8; 12], text: &mut [u8]) {
        match self {
            AesEnc::Aes128(aes) => crypt(aes, nonce, text),
            AesEnc::Aes192(aes) => crypt(aes, nonce, text),
            AesEnc::Aes256(aes) => crypt(aes, nonce, text),
        }
    }
}

fn crypt<A>(aes: &A, nonce: &[u8; 12], text: &mut [u8])
where
    A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    CtrCore::<&A, Ctr32BE>::inner_iv_init(aes, &counter_block(nonce, 2))
        .apply_keystream_partial(text.into());
}

fn counter_block(nonce: &[u8; 12], counter: u32) -> Block {
    let mut block = Block::default();
    block[..12].copy_from_slice(nonce);
    block[12..].copy_from_slice(&counter.to_be_bytes());
    block
}

/// GHASH over octets that come in pieces of any length.
struct Hash {
    ghash: GHash,
    /// The start of a block, of which the rest has not come.
    started: Block,
    started_len: usize,
}

impl Hash {
    fn new(keyed: &GHash) -> Hash {
        Hash { ghash: keyed.clone(), started: Block::default(), started_len: 0 }
    }

    fn add(&mut self, mut piece: &[u8]) {
        if self.started_len > 0 {
            let (now, later) = piece.split_at(piece.len().min(BLOCK_LEN - self.started_len));
            self.started[self.started_len..][..now.len()].copy_from_slice(now);
            self.started_len += now.len();
            if self.started_len < BLOCK_LEN {
                return;
            }
            self.fill_block();
            piece = later;
        }
        let (blocks, rest) = Block::slice_as_chunks(piece);
        self.ghash.update(blocks);
        self.started[..rest.len()].copy_from_slice(rest);
        self.started_len = rest.len();
    }

    /// Hashes a started block, with zeroes in the place of what is missing.
    fn fill_block(&mut self) {
        if self.started_len > 0 {
            self.started[self.started_len..].fill(0);
            self.ghash.update(std::slice::from_ref(&self.started));
            self.started_len = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// Pieces are one string, wherever they are cut.
    #[test]
    fn pieces_are_one_string() {
        let gcm = Gcm::new(AesSize::Aes128, &[1; 16]);
        let octets: Vec<u8> = (0..100).collect();
        let mut whole = [0; 16];
        gcm.mac(&[2; 12], &[&octets]).write(&mut whole);
        for first in 0..=octets.len() {
            for second in (first..=octets.len()).step_by(7) {
                let pieces = [&octets[..first], &octets[first..second], &octets[second..]];
                assert!(gcm.mac(&[2; 12], &pieces).is(&whole), "{first}, {second}");
            }
        }
    }

    /// The "zeroize" feature of `aes` is on: without it this does not compile. `ghash` says nothing
    /// of that kind, but `aes-gcm`, which is of the same features, does.
    #[test]
    fn gcm_contexts_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Aes128Enc>();
        wiped::<Aes192Enc>();
        wiped::<Aes256Enc>();
    }
}
