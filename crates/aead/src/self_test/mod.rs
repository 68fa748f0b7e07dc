//! What a provider must get right before it is used: answers that were computed elsewhere, then a
//! comparison with the portable provider over texts of many lengths, then forged packets, then
//! batches of several keys. For every algorithm, as a CPU, a hypervisor or a compiler may go wrong
//! in one alone.

mod batches;
mod known;

use std::ops::Range;

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::algorithm::BLOCK_LEN;
use crate::algorithm::Method;
use crate::algorithm::Protocol;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::ICV_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::rustcrypto::RustCrypto;
use known::AH_NUMBERS;
use known::ESP_NUMBERS;
use known::KNOWN_AH;
use known::KNOWN_ESP;

/// What a provider got wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("self test of {provider}: {protocol} with {algorithm}, packet {number}: {wrong}")]
pub struct SelfTestError {
    provider: &'static str,
    protocol: Protocol,
    algorithm: Algorithm,
    number: u16,
    wrong: &'static str,
}

/// Texts to compare with the portable provider, where others have kernels of their own: every way
/// to end a group of blocks.
const COMPARED: Range<u16> = 0..700;

/// Longer ones, by blocks: groups of every size, one and several, with tails of every length.
const COMPARED_LONG: Range<u16> = 700..2700;

/// The same for algorithms that all providers leave to the portable one.
const SHARED: Range<u16> = 0..40;

/// Seals and opens packets whose outcome is known, of ESP and AH.
pub(crate) fn self_test<P: Aead>(provider: &mut P) -> Result<(), SelfTestError> {
    for (algorithm, known) in Algorithm::ALL.into_iter().zip(KNOWN_ESP) {
        let mut bench = Bench::new(provider, algorithm);
        for (number, icv) in ESP_NUMBERS.into_iter().zip(known) {
            bench.known(number, icv)?;
        }
        let has_kernels = matches!(algorithm.method(), Method::Gcm(_, ICV_LEN));
        let compared = if has_kernels { COMPARED } else { SHARED };
        compared.into_iter().try_for_each(|number| bench.compare(number))?;
        if has_kernels {
            COMPARED_LONG.step_by(BLOCK_LEN).try_for_each(|number| bench.compare(number))?;
            batches::compare(provider, algorithm)?;
        }
    }
    for (algorithm, known) in Algorithm::ALL_AH.into_iter().zip(KNOWN_AH) {
        let mut bench = Bench::new(provider, algorithm);
        for (number, icv) in AH_NUMBERS.into_iter().zip(known) {
            bench.known(number, icv)?;
        }
        SHARED.into_iter().try_for_each(|number| bench.compare(number))?;
    }
    Ok(())
}

/// A provider with the key of an algorithm, and the portable one with the same.
struct Bench<'a, P: Aead> {
    provider: &'a mut P,
    algorithm: Algorithm,
    key: P::Key,
    portable: <RustCrypto as Aead>::Key,
}

impl<'a, P: Aead> Bench<'a, P> {
    fn new(provider: &'a mut P, algorithm: Algorithm) -> Bench<'a, P> {
        let keymat = sample_keymat(algorithm);
        let key = provider.key(algorithm, &keymat).expect("key material of the right length");
        let portable = RustCrypto.key(algorithm, &keymat).expect("the same length");
        Bench { provider, algorithm, key, portable }
    }

    /// A packet whose ICV is known.
    fn known(&mut self, number: u16, icv: u128) -> Result<(), SelfTestError> {
        let sealed = self.seal(number);
        let at = icv_at(self.algorithm, &sealed);
        let len = self.algorithm.icv_len().min(16);
        match sealed[at..][..len] == icv.to_be_bytes()[..len] {
            true => Ok(()),
            false => Err(self.wrong(number, "the ICV is not the known one")),
        }
    }

    /// A packet that the portable provider knows, that opens, and that does not when it is forged.
    fn compare(&mut self, number: u16) -> Result<(), SelfTestError> {
        let sealed = self.seal(number);
        let mut expected = sample(self.algorithm, number);
        seal(&mut RustCrypto, self.algorithm, &self.portable, number, &mut expected);
        if sealed != expected {
            return Err(self.wrong(number, "sealed unlike the portable one"));
        }
        let mut opened = sealed.clone();
        let (plain, end) = (sample(self.algorithm, number), icv_at(self.algorithm, &sealed));
        let text = match self.algorithm.protocol() {
            Protocol::Esp => self.algorithm.text_at()..end,
            Protocol::Ah => 0..self.algorithm.ah_icv_field_len().min(12),
        };
        if !self.open(number, &mut opened) || opened[text.clone()] != plain[text] {
            return Err(self.wrong(number, "did not open what it sealed"));
        }
        let mut forged = sealed;
        let at = usize::from(number) * 7 % forged.len();
        forged[at] ^= 1 << (number % 8);
        let arrived = forged.clone();
        if self.open(number, &mut forged) {
            return Err(self.wrong(number, "opened a forged packet"));
        }
        match forged == arrived {
            true => Ok(()),
            false => Err(self.wrong(number, "changed a forged packet")),
        }
    }

    fn seal(&mut self, number: u16) -> Vec<u8> {
        let mut packet = sample(self.algorithm, number);
        seal(self.provider, self.algorithm, &self.key, number, &mut packet);
        packet
    }

    fn open(&mut self, number: u16, packet: &mut [u8]) -> bool {
        let (key, esn_high) = (&self.key, sample_esn(number));
        let mut statuses = [Status::Pending];
        match self.algorithm.protocol() {
            Protocol::Esp => {
                self.provider.open(&mut [Op { key, esn_high, esp: packet }], &mut statuses);
            }
            Protocol::Ah => {
                let header = &sample_header();
                statuses = [self.provider.open_ah(AhOp { key, esn_high, header, ah: packet })];
            }
        }
        matches!(statuses, [Status::Authentic(_)])
    }

    fn wrong(&self, number: u16, wrong: &'static str) -> SelfTestError {
        let algorithm = self.algorithm;
        let (provider, protocol) = (self.provider.name(), algorithm.protocol());
        SelfTestError { provider, protocol, algorithm, number, wrong }
    }
}

fn seal<P: Aead>(
    provider: &mut P,
    algorithm: Algorithm,
    key: &P::Key,
    number: u16,
    packet: &mut [u8],
) {
    let esn_high = sample_esn(number);
    match algorithm.protocol() {
        Protocol::Esp => provider.seal(&mut [Op { key, esn_high, esp: packet }]),
        Protocol::Ah => {
            let header = &sample_header();
            provider.seal_ah(AhOp { key, esn_high, header, ah: packet });
        }
    }
}

/// An error to be shown.
#[cfg(test)]
pub(crate) fn sample_error() -> SelfTestError {
    Bench::new(&mut RustCrypto, Algorithm::Aes128Gcm16).wrong(3, "opened a forged packet")
}

/// What [`known`] says of keys.
pub(crate) fn sample_keymat(algorithm: Algorithm) -> Keymat {
    let octets = (0_u8..).map(|at| at.wrapping_mul(7).wrapping_add(1));
    let keys = octets.take(algorithm.key_len() + algorithm.integrity_key_len());
    let salt = [0xa0, 0xa1, 0xa2, 0xa3].into_iter().take(algorithm.salt_len());
    Keymat::new(keys.chain(salt).collect())
}

/// The packet that [`known`] describes, to be sealed: of AH what follows the IP header.
pub(crate) fn sample(algorithm: Algorithm, number: u16) -> Vec<u8> {
    let low_octet = |number: usize| number.to_le_bytes()[0];
    let text = |len| (0..len).map(move |at| low_octet(at * 31 + usize::from(number)));
    let (spi, seq) = ([0xc0, 0xff, 0xee, 0x01], u32::from(number).to_be_bytes());
    let len = usize::from(number);
    match algorithm.protocol() {
        Protocol::Esp => {
            let mut esp = [spi, seq].concat();
            esp.extend(u64::from(number).to_be_bytes());
            esp.resize(algorithm.text_at(), 0);
            let whole_blocks = if algorithm.block_len() == 16 { 16 } else { 1 };
            esp.extend(text(len.next_multiple_of(whole_blocks)));
            esp.resize(esp.len() + algorithm.icv_len(), 0);
            esp
        }
        Protocol::Ah => {
            let unpadded = 12 + algorithm.ah_icv_field_len();
            let header_len = unpadded.next_multiple_of(if number % 2 == 1 { 8 } else { 4 });
            let mut ah = vec![4, low_octet(header_len / 4 - 2), 0, 0];
            ah.extend([spi, seq].concat());
            ah.resize(unpadded, 0);
            ah.resize(header_len, 0xee);
            ah.extend(text(len));
            ah
        }
    }
}

/// Where the ICV of a packet starts.
fn icv_at(algorithm: Algorithm, packet: &[u8]) -> usize {
    match algorithm.protocol() {
        Protocol::Esp => packet.len() - algorithm.icv_len(),
        Protocol::Ah => 12 + algorithm.iv_len(),
    }
}

/// What is in front of AH.
fn sample_header() -> [u8; 20] {
    std::array::from_fn(|at| (at * 5 + 3).to_le_bytes()[0])
}

/// For odd numbers.
fn sample_esn(number: u16) -> Option<u32> {
    (number % 2 == 1).then_some(u32::from(number) ^ 0xdead_beef)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keymat::Keymat;
    use crate::port::KeyError;
    use crate::rustcrypto::RustCryptoKey;

    /// A provider that goes wrong in one way.
    struct Broken {
        /// Changes a sealed packet.
        after_seal: fn(&mut [u8]),
        /// Changes a packet that is to be opened, after its authenticity was found out.
        after_open: fn(&mut [u8], &mut Status),
        /// Changes a sealed AH packet.
        after_seal_ah: fn(&mut [u8]),
        /// Changes what an AH packet was found to be.
        after_open_ah: fn(&mut Status),
        /// A sealed packet that is changed, and where.
        spoiled: (Vec<u8>, usize),
    }

    const SOUND: Broken = Broken {
        after_seal: |_| (),
        after_open: |_, _| (),
        after_seal_ah: |_| (),
        after_open_ah: |_| (),
        spoiled: (Vec::new(), 0),
    };

    impl Aead for Broken {
        type Key = RustCryptoKey;

        fn name(&self) -> &'static str {
            "broken"
        }

        fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<RustCryptoKey, KeyError> {
            RustCrypto.key(algorithm, keymat)
        }

        fn prefetch(&self, _: &RustCryptoKey, _: usize) {}

        fn seal(&mut self, ops: &mut [Op<'_, RustCryptoKey>]) {
            RustCrypto.seal(ops);
            for op in ops {
                (self.after_seal)(op.esp);
                if op.esp == self.spoiled.0 {
                    op.esp[self.spoiled.1] ^= 1;
                }
            }
        }

        fn open(&mut self, ops: &mut [Op<'_, RustCryptoKey>], statuses: &mut [Status]) {
            RustCrypto.open(ops, statuses);
            for (op, status) in ops.iter_mut().zip(statuses) {
                (self.after_open)(op.esp, status);
            }
        }

        fn seal_ah(&mut self, op: AhOp<'_, RustCryptoKey>) {
            let AhOp { key, esn_high, header, ah } = op;
            RustCrypto.seal_ah(AhOp { key, esn_high, header, ah });
            (self.after_seal_ah)(ah);
            if ah == self.spoiled.0 {
                ah[self.spoiled.1] ^= 1;
            }
        }

        fn open_ah(&mut self, op: AhOp<'_, RustCryptoKey>) -> Status {
            let mut status = RustCrypto.open_ah(op);
            (self.after_open_ah)(&mut status);
            status
        }

        fn seal_general(&mut self, _: &RustCryptoKey, _: &[u8; 12], _: &[u8], _: &mut [u8]) {}

        fn open_general(
            &mut self,
            _: &RustCryptoKey,
            _: &[u8; 12],
            _: &[u8],
            _: &mut [u8],
        ) -> bool {
            false
        }
    }

    const AUTHENTIC: Status = Status::Authentic(crate::Verified::new());

    /// E15, A06, G03, G06, G07, G08: packets of every algorithm of ESP and AH, with extended
    /// sequence numbers and without, have the ICVs that were computed elsewhere.
    #[test]
    fn the_portable_provider_meets_the_known_icvs() {
        assert_eq!(self_test(&mut RustCrypto), Ok(()));
    }

    /// G10: the self test passes a sound provider and finds one that goes wrong in one length or
    /// one algorithm alone, in the ICV, in the text, in what it accepts, in what it refuses and in
    /// what it leaves behind.
    #[test]
    fn the_self_test_finds_what_is_wrong() {
        assert_eq!(self_test(&mut { SOUND }), Ok(()));
        let seal = |after_seal| Broken { after_seal, ..SOUND };
        let open = |after_open| Broken { after_open, ..SOUND };
        let seal_ah = |after_seal_ah| Broken { after_seal_ah, ..SOUND };
        let open_ah = |after_open_ah| Broken { after_open_ah, ..SOUND };
        let cases = [
            (seal(|esp| *esp.last_mut().unwrap() ^= 1), "the ICV is not the known one"),
            (
                seal(|esp| {
                    if esp.len() == 300 {
                        esp[20] ^= 1;
                    }
                }),
                "sealed unlike the portable one",
            ),
            (
                open(|esp, _| {
                    if esp.len() == 300 {
                        esp[20] ^= 1;
                    }
                }),
                "did not open what it sealed",
            ),
            (open(|_, status| *status = Status::Forged), "did not open what it sealed"),
            (open(|_, status| *status = AUTHENTIC), "opened a forged packet"),
            (
                open(|esp, status| {
                    if matches!(status, Status::Forged) {
                        esp.fill(0);
                    }
                }),
                "changed a forged packet",
            ),
            (seal_ah(|ah| ah[20] ^= 1), "the ICV is not the known one"),
            (open_ah(|status| *status = Status::Forged), "did not open what it sealed"),
            (open_ah(|status| *status = AUTHENTIC), "opened a forged packet"),
        ];
        for (mut broken, expected) in cases {
            assert_eq!(self_test(&mut broken).unwrap_err().wrong, expected);
        }
    }

    /// G10: a provider that is wrong in one algorithm alone, whichever, does not pass: here one
    /// that spoils one packet.
    #[test]
    fn the_self_test_tries_every_algorithm() {
        let esp = Algorithm::ALL.into_iter().map(|algorithm| (algorithm, 1420));
        let ah = Algorithm::ALL_AH.into_iter().map(|algorithm| (algorithm, 512));
        for (algorithm, number) in esp.chain(ah) {
            let packet = Bench::new(&mut RustCrypto, algorithm).seal(number);
            let at = icv_at(algorithm, &packet);
            let spoiled = (packet, at);
            let error = self_test(&mut Broken { spoiled, ..SOUND }).unwrap_err();
            assert_eq!((error.algorithm, error.number), (algorithm, number));
            let protocol = algorithm.protocol();
            let place = format!("broken: {protocol} with {algorithm}, packet {number}: the ICV");
            assert!(error.to_string().contains(&place), "{error}");
        }
    }
}
