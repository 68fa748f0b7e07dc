//! Packets of several keys in one batch, nearly all of a size: kernels that work on several at once
//! may take the key, nonce or hash of one for another's, which packets of one key do not show.

use super::SelfTestError;
use super::sample;
use super::sample_esn;
use crate::algorithm::Algorithm;
use crate::algorithm::Protocol;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::Op;
use crate::port::Status;
use crate::rustcrypto::RustCrypto;

/// Packets of a batch.
const PACKETS: u8 = 9;

/// Octets of text of the longest.
const LONGEST: u16 = 340;

/// Which packet of a batch is forged.
const FORGED: usize = 2;

/// Batches of one algorithm of ESP, against the portable provider.
pub(super) fn compare<P: Aead>(
    provider: &mut P,
    algorithm: Algorithm,
) -> Result<(), SelfTestError> {
    let portable = keys(&RustCrypto, algorithm);
    let keys = keys(provider, algorithm);
    for first in (0..LONGEST).step_by(usize::from(PACKETS)) {
        let name = provider.name();
        let wrong = |wrong| {
            let (provider, protocol) = (name, Protocol::Esp);
            Err(SelfTestError { provider, protocol, algorithm, number: first, wrong })
        };
        let plain: Vec<_> =
            (first..first + u16::from(PACKETS)).map(|len| sample(algorithm, len)).collect();
        let mut expected = plain.clone();
        RustCrypto.seal(&mut ops(&portable, first, &mut expected));
        let mut packets = plain.clone();
        provider.seal(&mut ops(&keys, first, &mut packets));
        if packets != expected {
            return wrong("a batch, sealed unlike the portable one");
        }
        *packets[FORGED].last_mut().expect("an ICV") ^= 1;
        let mut statuses = [const { Status::Pending }; PACKETS as usize];
        provider.open(&mut ops(&keys, first, &mut packets), &mut statuses);
        for (at, status) in statuses.iter().enumerate() {
            let text = algorithm.text_at()..plain[at].len() - algorithm.icv_len();
            let [opened, plain, sealed] =
                [&packets[at], &plain[at], &expected[at]].map(|octets| &octets[text.clone()]);
            match (status, at == FORGED) {
                (Status::Authentic(_), false) if opened == plain => {}
                (Status::Forged, true) if opened == sealed => {}
                _ => return wrong("a batch, not opened as it was sealed"),
            }
        }
    }
    Ok(())
}

fn keys<P: Aead>(provider: &P, algorithm: Algorithm) -> Vec<P::Key> {
    let keymat = |number: u8| {
        let octets = (0_u8..).map(|at| at.wrapping_mul(7).wrapping_add(number * 29));
        Keymat::new(octets.take(algorithm.keymat_len()).collect())
    };
    let key = |number| provider.key(algorithm, &keymat(number)).expect("of the right length");
    (0..PACKETS).map(key).collect()
}

fn ops<'a, K>(keys: &'a [K], first: u16, packets: &'a mut [Vec<u8>]) -> Vec<Op<'a, K>> {
    let parts = keys.iter().zip(first..).zip(packets);
    parts.map(|((key, number), esp)| Op { key, esn_high: sample_esn(number), esp }).collect()
}
