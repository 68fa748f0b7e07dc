//! Batches of one packet.

use culvert_aead::Aead;
use culvert_aead::Op;
use culvert_aead::Status;

pub(crate) fn seal_one<P: Aead>(
    provider: &mut P,
    key: &P::Key,
    esn_high: Option<u32>,
    esp: &mut [u8],
) {
    provider.seal(&mut [Op { key, esn_high, esp }]);
}

pub(crate) fn is_authentic(status: &Status) -> bool {
    match status {
        Status::Authentic(_) => true,
        Status::Forged => false,
        Status::Pending => panic!("a packet was not processed"),
    }
}

pub(crate) fn open_one<P: Aead>(
    provider: &mut P,
    key: &P::Key,
    esn_high: Option<u32>,
    esp: &mut [u8],
) -> bool {
    let mut statuses = [Status::Pending];
    provider.open(&mut [Op { key, esn_high, esp }], &mut statuses);
    is_authentic(&statuses[0])
}
