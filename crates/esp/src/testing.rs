//! What tests need of cryptography.

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::RustCrypto;
use culvert_aead::Status;
use culvert_aead::Verified;

/// Proof of authenticity, as only a provider can make it.
pub(crate) fn proof() -> Verified {
    let mut aead = RustCrypto;
    let key = aead.key(Algorithm::Aes128Gcm16, &Keymat::new(vec![7; 20])).expect("20 octets");
    let mut esp = [0; 36];
    aead.seal(&mut [Op { key: &key, esn_high: None, esp: &mut esp }]);
    let mut statuses = [Status::Pending];
    aead.open(&mut [Op { key: &key, esn_high: None, esp: &mut esp }], &mut statuses);
    match statuses {
        [Status::Authentic(proof)] => proof,
        [status] => panic!("sealed a moment ago, and now {status:?}"),
    }
}
