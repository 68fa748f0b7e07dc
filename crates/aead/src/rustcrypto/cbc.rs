//! AES-CBC (RFC 3602), by the crates `aes` and `cbc`, and the IVs for it.

use aes::Aes128;
use aes::Aes192;
use aes::Aes256;
use aes::Aes256Enc;
use aes::Block;
use aes::cipher::BlockCipherEncrypt;
use aes::cipher::BlockModeDecrypt;
use aes::cipher::BlockModeEncrypt;
use aes::cipher::InnerIvInit;
use aes::cipher::KeyInit;
use cbc::Decryptor;
use cbc::Encryptor;
use hmac::Hmac;
use hmac::Mac;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::algorithm::AesSize;
use crate::algorithm::BLOCK_LEN;

/// What tells the key of the IVs from other values that may one day be derived from KEYMAT.
const IV_LABEL: &[u8] = b"culvert: key of the IVs of AES-CBC";

/// The context of a key.
pub(super) struct Cbc {
    aes: Aes,
    /// Encrypts sequence numbers to IVs.
    iv: Aes256Enc,
}

/// AES in both directions, as a context does not know which it is for.
enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cbc {
    /// Expands `key`, and derives the key of the IVs from all of `keymat`.
    ///
    /// # Panics
    /// When `key` has not the length of `size`.
    pub(super) fn new(size: AesSize, key: &[u8], keymat: &[u8]) -> Cbc {
        const LENGTH: &str = "the length of key material was checked";
        let aes = match size {
            AesSize::Aes128 => Aes::Aes128(Aes128::new_from_slice(key).expect(LENGTH)),
            AesSize::Aes192 => Aes::Aes192(Aes192::new_from_slice(key).expect(LENGTH)),
            AesSize::Aes256 => Aes::Aes256(Aes256::new_from_slice(key).expect(LENGTH)),
        };
        let mut hmac = Hmac::<Sha256>::new_from_slice(keymat).expect("keys of any length");
        hmac.update(IV_LABEL);
        let mut iv_key = hmac.finalize().into_bytes();
        let iv = Aes256Enc::new(&iv_key);
        iv_key.as_mut_slice().zeroize();
        Cbc { aes, iv }
    }

    /// The IV of a packet: nobody without the key can tell it in advance, and no two sequence
    /// numbers have the same.
    pub(super) fn iv(&self, sequence: u64) -> [u8; BLOCK_LEN] {
        let mut block = Block::from(u128::from(sequence).to_be_bytes());
        self.iv.encrypt_block(&mut block);
        block.into()
    }

    /// Encrypts `text`, whole blocks, in place.
    ///
    /// # Panics
    /// When there is a part of a block.
    pub(super) fn encrypt(&self, iv: &[u8; BLOCK_LEN], text: &mut [u8]) {
        let (blocks, iv) = (whole_blocks(text), iv.into());
        match &self.aes {
            Aes::Aes128(aes) => Encryptor::inner_iv_init(aes, iv).encrypt_blocks(blocks),
            Aes::Aes192(aes) => Encryptor::inner_iv_init(aes, iv).encrypt_blocks(blocks),
            Aes::Aes256(aes) => Encryptor::inner_iv_init(aes, iv).encrypt_blocks(blocks),
        }
    }

    /// Decrypts `text`, whole blocks, in place.
    ///
    /// # Panics
    /// When there is a part of a block.
    pub(super) fn decrypt(&self, iv: &[u8; BLOCK_LEN], text: &mut [u8]) {
        let (blocks, iv) = (whole_blocks(text), iv.into());
        match &self.aes {
            Aes::Aes128(aes) => Decryptor::inner_iv_init(aes, iv).decrypt_blocks(blocks),
            Aes::Aes192(aes) => Decryptor::inner_iv_init(aes, iv).decrypt_blocks(blocks),
            Aes::Aes256(aes) => Decryptor::inner_iv_init(aes, iv).decrypt_blocks(blocks),
        }
    }
}

fn whole_blocks(text: &mut [u8]) -> &mut [Block] {
    let (blocks, rest) = Block::slice_as_chunks_mut(text);
    assert!(rest.is_empty(), "text of CBC is whole blocks");
    blocks
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// E21: IVs of a key are all distinct, those of another key are others, and they do not show
    /// the number: of the bits of IVs of consecutive numbers about half differ, and so do those of
    /// consecutive IVs, at every place.
    #[test]
    fn ivs_are_distinct_and_unpredictable() {
        let cbc = Cbc::new(AesSize::Aes128, &[1; 16], &[1; 48]);
        let other = Cbc::new(AesSize::Aes128, &[1; 16], &[2; 48]);
        let numbers = (0..4096).chain(u64::from(u32::MAX) - 2000..u64::from(u32::MAX) + 2000);
        let ivs: Vec<_> = numbers.clone().map(|number| cbc.iv(number)).collect();
        let distinct: HashSet<_> =
            ivs.iter().copied().chain(numbers.map(|n| other.iv(n))).collect();
        assert_eq!(distinct.len(), 2 * ivs.len());

        let mut changes = [0_usize; 128];
        for pair in ivs.windows(2) {
            let difference = u128::from_be_bytes(pair[0]) ^ u128::from_be_bytes(pair[1]);
            (0..128).for_each(|bit| changes[bit] += usize::from(difference >> bit & 1 == 1));
        }
        // Six standard deviations of a fair coin, thrown 8095 times.
        assert!(changes.iter().all(|count| (3778..=4317).contains(count)), "{changes:?}");
    }

    /// The key of the IVs is not the key of the text, and depends on every octet of KEYMAT.
    #[test]
    fn the_key_of_ivs_is_derived_from_all_of_keymat() {
        let iv = Cbc::new(AesSize::Aes256, &[1; 32], &[1; 64]).iv(0);
        let mut zero = Block::default();
        Aes256::new(&[1; 32].into()).encrypt_block(&mut zero);
        assert_ne!(iv, <[u8; 16]>::from(zero));
        for at in 0..64 {
            let mut keymat = [1; 64];
            keymat[at] = 0;
            assert_ne!(iv, Cbc::new(AesSize::Aes256, &[1; 32], &keymat).iv(0), "{at}");
        }
    }

    /// The "zeroize" features of `aes` and `cbc` are on: without them this does not compile.
    #[test]
    fn cbc_contexts_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Aes128>();
        wiped::<Aes192>();
        wiped::<Aes256>();
        wiped::<Aes256Enc>();
        wiped::<Encryptor<Aes128>>();
        wiped::<Decryptor<Aes128>>();
    }
}
