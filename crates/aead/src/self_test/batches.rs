//! Packets of several keys in one batch, nearly all of a size: kernels that work on several at once
//! may take the key, nonce or hash of one for another's, which packets of one key do not show. And
//! packets of one key and one length, for which there are kernels as well.

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

/// Packets of a longer stream, for kernels that want many.
const STREAM: usize = 32;

/// Octets of text that such a stream's packets end before: all that Ethernet's have, and more.
const STREAM_LEN: u16 = 1600;

/// Which packet of a batch is forged.
const FORGED: usize = 2;

/// Batches of one algorithm of ESP, against the portable provider.
pub(super) fn compare<P: Aead>(
    provider: &mut P,
    algorithm: Algorithm,
) -> Result<(), SelfTestError> {
    let portable = keys(&RustCrypto, algorithm);
    let keys = keys(provider, algorithm);
    let mut compare = |keys: &[P::Key], portable: &[_], numbers: &[u16]| {
        compare_one(provider, algorithm, (keys, portable), numbers)
    };
    for first in (0..LONGEST).step_by(usize::from(PACKETS)) {
        let numbers: Vec<u16> = (first..).take(usize::from(PACKETS)).collect();
        compare(&keys, &portable, &numbers)?;
    }
    // Those of one SA and one length: of vectors of 64 octets any number, and a part.
    let mut alike = |number, count| compare(&keys[..1], &portable[..1], &vec![number; count]);
    (0..LONGEST).try_for_each(|number| alike(number, usize::from(PACKETS)))?;
    (LONGEST..STREAM_LEN).step_by(61).try_for_each(|number| alike(number, STREAM))
}

/// One batch of packets that take keys in turn; of each its number, which is the length of its
/// text, and what the upper half of its sequence number comes from.
fn compare_one<P: Aead>(
    provider: &mut P,
    algorithm: Algorithm,
    (keys, portable): (&[P::Key], &[<RustCrypto as Aead>::Key]),
    numbers: &[u16],
) -> Result<(), SelfTestError> {
    let name = provider.name();
    let wrong = |wrong| {
        let (provider, protocol, number) = (name, Protocol::Esp, numbers[0]);
        Err(SelfTestError { provider, protocol, algorithm, number, wrong })
    };
    let mut plain: Vec<_> = numbers.iter().map(|&len| sample(algorithm, len)).collect();
    for (at, packet) in plain.iter_mut().enumerate() {
        // Of one SA no two have the same IV.
        packet[algorithm.text_at() - 1] ^= at.to_le_bytes()[0];
    }
    let mut expected = plain.clone();
    for op in ops(portable, numbers, &mut expected) {
        RustCrypto.seal(&mut [op]);
    }
    let mut packets = plain.clone();
    provider.seal(&mut ops(keys, numbers, &mut packets));
    if packets != expected {
        return wrong("a batch, sealed unlike the portable one");
    }
    *packets[FORGED].last_mut().expect("an ICV") ^= 1;
    let mut statuses: Vec<_> = numbers.iter().map(|_| Status::Pending).collect();
    provider.open(&mut ops(keys, numbers, &mut packets), &mut statuses);
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

fn ops<'a, K>(keys: &'a [K], numbers: &[u16], packets: &'a mut [Vec<u8>]) -> Vec<Op<'a, K>> {
    let parts = keys.iter().cycle().zip(numbers).zip(packets);
    parts.map(|((key, &number), esp)| Op { key, esn_high: sample_esn(number), esp }).collect()
}
