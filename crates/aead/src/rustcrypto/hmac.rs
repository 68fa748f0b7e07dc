//! HMAC-SHA-256-128, HMAC-SHA-384-192 and HMAC-SHA-512-256 (RFC 4868), by the crates `hmac` and
//! `sha2`.

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Sha256;
use sha2::Sha384;
use sha2::Sha512;

use crate::algorithm::Sha2;
use crate::rustcrypto::tag::Tag;

/// The context of a key: the hash with the key's two blocks absorbed, cloned for each packet.
pub(super) enum HmacSha2 {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl HmacSha2 {
    /// Absorbs `key`, of any length.
    pub(super) fn new(sha2: Sha2, key: &[u8]) -> HmacSha2 {
        const LENGTH: &str = "HMAC takes keys of any length";
        match sha2 {
            Sha2::Sha256 => HmacSha2::Sha256(Hmac::new_from_slice(key).expect(LENGTH)),
            Sha2::Sha384 => HmacSha2::Sha384(Hmac::new_from_slice(key).expect(LENGTH)),
            Sha2::Sha512 => HmacSha2::Sha512(Hmac::new_from_slice(key).expect(LENGTH)),
        }
    }

    /// HMAC of `pieces`, one behind the other.
    pub(super) fn mac(&self, pieces: &[&[u8]]) -> Tag {
        match self {
            HmacSha2::Sha256(keyed) => tag(keyed, pieces),
            HmacSha2::Sha384(keyed) => tag(keyed, pieces),
            HmacSha2::Sha512(keyed) => tag(keyed, pieces),
        }
    }
}

fn tag<M: Mac + Clone>(keyed: &M, pieces: &[&[u8]]) -> Tag {
    let mut mac = keyed.clone();
    pieces.iter().for_each(|piece| mac.update(piece));
    Tag::of(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// The "zeroize" feature of `sha2` is on: without it this does not compile. A context of `hmac`
    /// is two of the hash and a buffer, which is of packets and not of the key.
    #[test]
    fn hmac_contexts_are_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Sha256>();
        wiped::<Sha384>();
        wiped::<Sha512>();
    }
}
