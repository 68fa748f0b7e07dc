//! The provider of the machine at hand: chosen when the program starts, by what the CPU can do.
//!
//! A provider that needs special instructions is taken only if the CPU has them and if it passes a
//! self test: answers known from elsewhere, then a comparison with the portable provider over
//! texts of many lengths, then forged packets. A CPU, hypervisor or compiler that makes it go wrong
//! then costs speed and not packets, and whoever starts the program is told why.
//!
//! The choice is made once for a batch, not for a packet: a [`ProviderKey`] is in line, whatever
//! provider it is for, and the providers find theirs in it while they work on the batch.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "the self test is for the providers of special CPUs")
)]

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::Holds;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::TEXT_AT;
use crate::prefetch::prefetch;
use crate::rustcrypto::RustCrypto;
use crate::rustcrypto::RustCryptoKey;
#[cfg(target_arch = "x86_64")]
use crate::vaes::Vaes;
#[cfg(target_arch = "x86_64")]
use crate::vaes::VaesKey;

/// One of the providers of this crate, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub enum Provider {
    /// AVX-512 with VAES and VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Vaes(Vaes),
    /// Any CPU.
    RustCrypto(RustCrypto),
}

/// The context of one SA, of the provider that made it; wiped on drop.
#[derive(Debug)]
pub enum ProviderKey {
    /// See [`Provider::Vaes`].
    #[cfg(target_arch = "x86_64")]
    Vaes(VaesKey),
    /// See [`Provider::RustCrypto`].
    RustCrypto(RustCryptoKey),
}

/// A provider, and why this one.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What was chosen.
    pub provider: Provider,
    /// Why, in words for a log.
    pub reason: String,
}

/// Why there is no provider of a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// There is none, on any machine.
    #[error("provider \"{name}\": expected one of {}", Provider::NAMES.join(", "))]
    Unknown {
        /// What was given, cut to a printable length.
        name: String,
    },
    /// Not on this machine.
    #[error("provider \"{name}\": not on this machine: {reason}")]
    Unavailable {
        /// What was given.
        name: &'static str,
        /// What is missing or wrong.
        reason: String,
    },
}

/// How much of an unknown name an error repeats.
const NAME_SHOWN: usize = 40;

impl Provider {
    /// Every name [`Provider::named`] knows, fastest first.
    pub const NAMES: [&'static str; 2] = ["vaes", "rustcrypto"];

    /// The fastest provider that this machine runs and that passes its self test.
    #[must_use]
    pub fn best() -> Selection {
        Provider::preferred(Provider::vaes())
    }

    /// The provider of a name, one of [`Provider::NAMES`].
    ///
    /// # Errors
    /// [`ProviderError`] when there is none, or when it does not run here or fails its self test.
    pub fn named(name: &str) -> Result<Provider, ProviderError> {
        match name {
            "vaes" => Provider::vaes()
                .map_err(|reason| ProviderError::Unavailable { name: "vaes", reason }),
            "rustcrypto" => Ok(Provider::RustCrypto(RustCrypto)),
            _ => Err(ProviderError::Unknown { name: name.chars().take(NAME_SHOWN).collect() }),
        }
    }

    /// `fast`, or the portable one with the reason there is no fast one.
    fn preferred(fast: Result<Provider, String>) -> Selection {
        match fast {
            Ok(provider) => {
                let reason = format!("{}: on this CPU, self test passed", provider.name());
                Selection { provider, reason }
            }
            Err(reason) => {
                let provider = Provider::RustCrypto(RustCrypto);
                Selection { provider, reason: format!("{}: {reason}", provider.name()) }
            }
        }
    }

    /// The VAES provider, tested; or why not.
    #[cfg(target_arch = "x86_64")]
    fn vaes() -> Result<Provider, String> {
        let Some(vaes) = Vaes::detect() else {
            return Err(format!("the CPU lacks {}", Vaes::missing().join(", ")));
        };
        let mut provider = Provider::Vaes(vaes);
        self_test(&mut provider).map_err(|error| error.to_string())?;
        Ok(provider)
    }

    /// The VAES provider, tested; or why not.
    #[cfg(not(target_arch = "x86_64"))]
    fn vaes() -> Result<Provider, String> {
        Err("vaes-avx512 needs an x86-64 CPU".to_owned())
    }
}

impl Aead for Provider {
    type Key = ProviderKey;

    fn name(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.name(),
            Provider::RustCrypto(rustcrypto) => rustcrypto.name(),
        }
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<ProviderKey, KeyError> {
        Ok(match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => ProviderKey::Vaes(vaes.key(algorithm, keymat)?),
            Provider::RustCrypto(rustcrypto) => {
                ProviderKey::RustCrypto(rustcrypto.key(algorithm, keymat)?)
            }
        })
    }

    /// Asks for the whole context, without a look at whose it is: that would have to wait for it.
    #[inline]
    fn prefetch(&self, key: &ProviderKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, ProviderKey>]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.seal_held(ops),
            Provider::RustCrypto(rustcrypto) => rustcrypto.seal_held(ops),
        }
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.open_held(ops, statuses),
            Provider::RustCrypto(rustcrypto) => rustcrypto.open_held(ops, statuses),
        }
    }

    fn seal_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.seal_general(key.held(), nonce, aad, text_and_icv),
            Provider::RustCrypto(rustcrypto) => {
                rustcrypto.seal_general(key.held(), nonce, aad, text_and_icv);
            }
        }
    }

    fn open_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.open_general(key.held(), nonce, aad, text_and_icv),
            Provider::RustCrypto(rustcrypto) => {
                rustcrypto.open_general(key.held(), nonce, aad, text_and_icv)
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Holds<VaesKey> for ProviderKey {
    #[inline(always)]
    fn held(&self) -> &VaesKey {
        match self {
            ProviderKey::Vaes(key) => key,
            ProviderKey::RustCrypto(_) => other_provider(),
        }
    }
}

impl Holds<RustCryptoKey> for ProviderKey {
    #[inline(always)]
    fn held(&self) -> &RustCryptoKey {
        match self {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Vaes(_) => other_provider(),
            ProviderKey::RustCrypto(key) => key,
        }
    }
}

/// A key is handed to the provider that made it.
#[cold]
fn other_provider() -> ! {
    panic!("the key belongs to another provider");
}

/// What a provider got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("self test of {provider}: {algorithm}, {len} octets of text: {wrong}")]
struct SelfTestError {
    provider: &'static str,
    algorithm: Algorithm,
    len: usize,
    wrong: &'static str,
}

/// Length of the text, and its ICVs under AES-128, 192 and 256, computed with OpenSSL. Key octets
/// are `7 i + 1`, text octets `31 i + length`, salt a0a1a2a3, SPI c0ffee01, IV and sequence number
/// the length; for odd lengths ESN with high half `length ^ deadbeef`.
const KNOWN_ICVS: [(u16, [u128; 3]); 3] = [
    (
        17,
        [
            0x9ae4_7c98_ff58_721b_e8ea_3dee_8f8a_682d,
            0xfe0b_adaa_149b_675d_9b01_b8cf_2297_41f3,
            0x60b3_dbaf_0b7a_bbcd_0f27_cf49_78ef_a9a0,
        ],
    ),
    (
        513,
        [
            0xce32_cdcc_0daa_cc29_1c78_1718_aced_9279,
            0x37f3_60a5_08ac_685c_0983_7ce2_308b_308b,
            0x64cf_59aa_371a_4f62_3ca5_d3ad_7fa5_a3fe,
        ],
    ),
    (
        1420,
        [
            0x4c78_520d_2ab8_2813_005e_9f31_c1b8_afb3,
            0x7452_de27_b42b_3164_6b24_038c_2e87_8eb6,
            0xfaa7_301c_a7bc_7552_b068_d853_51d7_69d1,
        ],
    ),
];

/// Texts to compare with the portable provider: every way to end a group of blocks.
const COMPARED: std::ops::Range<u16> = 0..700;

/// Seals and opens packets whose outcome is known.
fn self_test<P: Aead>(provider: &mut P) -> Result<(), SelfTestError> {
    for algorithm in Algorithm::ALL {
        for (len, icvs) in KNOWN_ICVS {
            let icv = icvs[usize::from(algorithm as u8)].to_be_bytes();
            let sealed = seal_sample(provider, algorithm, len);
            if !sealed.ends_with(&icv) {
                return Err(wrong(provider, algorithm, len, "the ICV is not the known one"));
            }
        }
        for len in COMPARED {
            let sealed = seal_sample(provider, algorithm, len);
            if sealed != seal_sample(&mut RustCrypto, algorithm, len) {
                return Err(wrong(provider, algorithm, len, "sealed unlike the portable one"));
            }
            let mut opened = sealed.clone();
            let authentic = open_sample(provider, algorithm, &mut opened);
            let text = TEXT_AT..sealed.len() - ICV_LEN;
            if !authentic || opened[text.clone()] != sample(len)[text] {
                return Err(wrong(provider, algorithm, len, "did not open what it sealed"));
            }
            let mut forged = sealed;
            let at = usize::from(len) * 7 % forged.len();
            forged[at] ^= 1 << (len % 8);
            if open_sample(provider, algorithm, &mut forged) {
                return Err(wrong(provider, algorithm, len, "opened a forged packet"));
            }
        }
    }
    Ok(())
}

fn wrong<P: Aead>(
    provider: &P,
    algorithm: Algorithm,
    len: u16,
    wrong: &'static str,
) -> SelfTestError {
    SelfTestError { provider: provider.name(), algorithm, len: len.into(), wrong }
}

/// The packet [`KNOWN_ICVS`] describes, to be sealed.
fn sample(len: u16) -> Vec<u8> {
    let low_octet = |number: usize| number.to_le_bytes()[0];
    let mut esp = [0xc0, 0xff, 0xee, 0x01].to_vec();
    esp.extend(u32::from(len).to_be_bytes());
    esp.extend(u64::from(len).to_be_bytes());
    esp.extend((0..usize::from(len)).map(|at| low_octet(at * 31 + usize::from(len))));
    esp.extend([0; ICV_LEN]);
    esp
}

fn sample_key<P: Aead>(provider: &P, algorithm: Algorithm) -> P::Key {
    let octets = (0_u8..).map(|at| at.wrapping_mul(7).wrapping_add(1)).take(algorithm.key_len());
    let keymat = Keymat::new(octets.chain([0xa0, 0xa1, 0xa2, 0xa3]).collect());
    provider.key(algorithm, &keymat).expect("key material of the right length")
}

/// For packets of an odd number of octets.
fn sample_esn(esp: &[u8]) -> Option<u32> {
    let len = u32::try_from(esp.len() - TEXT_AT - ICV_LEN).expect("a packet is short");
    (len % 2 == 1).then_some(len ^ 0xdead_beef)
}

fn seal_sample<P: Aead>(provider: &mut P, algorithm: Algorithm, len: u16) -> Vec<u8> {
    let key = sample_key(provider, algorithm);
    let mut esp = sample(len);
    let esn_high = sample_esn(&esp);
    provider.seal(&mut [Op { key: &key, esn_high, esp: &mut esp }]);
    esp
}

fn open_sample<P: Aead>(provider: &mut P, algorithm: Algorithm, esp: &mut [u8]) -> bool {
    let key = sample_key(provider, algorithm);
    let esn_high = sample_esn(esp);
    let mut statuses = [Status::Pending];
    provider.open(&mut [Op { key: &key, esn_high, esp }], &mut statuses);
    matches!(statuses, [Status::Authentic(_)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A provider that goes wrong in one way.
    struct Broken {
        /// Changes a sealed packet.
        after_seal: fn(&mut [u8]),
        /// Changes a packet that is to be opened, after its authenticity was found out.
        after_open: fn(&mut [u8], &mut Status),
    }

    const SOUND: Broken = Broken { after_seal: |_| (), after_open: |_, _| () };

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
            }
        }

        fn open(&mut self, ops: &mut [Op<'_, RustCryptoKey>], statuses: &mut [Status]) {
            RustCrypto.open(ops, statuses);
            for (op, status) in ops.iter_mut().zip(statuses) {
                (self.after_open)(op.esp, status);
            }
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

    /// The self test passes a sound provider and finds one that goes wrong in one length alone, in
    /// the ICV, in the text, in what it accepts and in what it refuses.
    #[test]
    fn the_self_test_finds_what_is_wrong() {
        assert_eq!(self_test(&mut { SOUND }), Ok(()));
        let seal = |after_seal| Broken { after_seal, ..SOUND };
        let open = |after_open| Broken { after_open, ..SOUND };
        let cases = [
            (seal(|esp| *esp.last_mut().unwrap() ^= 1), "the ICV is not the known one"),
            (
                seal(|esp| {
                    if esp.len() == 300 {
                        esp[TEXT_AT] ^= 1;
                    }
                }),
                "sealed unlike the portable one",
            ),
            (
                open(|esp, _| {
                    if esp.len() == 300 {
                        esp[TEXT_AT] ^= 1;
                    }
                }),
                "did not open what it sealed",
            ),
            (open(|_, status| *status = Status::Forged), "did not open what it sealed"),
            (
                open(|_, status| *status = Status::Authentic(crate::Verified::new())),
                "opened a forged packet",
            ),
        ];
        for (mut broken, expected) in cases {
            assert_eq!(self_test(&mut broken).unwrap_err().wrong, expected);
        }
    }

    /// Every provider the machine has passes, the best is one of them, and says why.
    #[test]
    fn the_best_is_the_fastest_that_runs() {
        let best = Provider::best();
        println!("{}", best.reason);
        assert!(best.reason.starts_with(best.provider.name()), "{}", best.reason);
        match Provider::named("vaes") {
            Ok(vaes) => assert_eq!(best.provider.name(), vaes.name()),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                assert_eq!(best.provider.name(), "rustcrypto");
            }
        }
    }

    /// Without a fast provider there is the portable one, and the reason names what is missing.
    #[test]
    fn the_portable_one_is_the_fallback() {
        let selection = Provider::preferred(Err("the CPU lacks vaes".to_owned()));
        assert_eq!(selection.provider.name(), "rustcrypto");
        assert_eq!(selection.reason, "rustcrypto: the CPU lacks vaes");
    }

    /// Names lead to providers; an unknown one is repeated, cut, and the known ones are listed.
    #[test]
    fn names() {
        assert_eq!(Provider::named("rustcrypto").unwrap().name(), "rustcrypto");
        match Provider::named("vaes") {
            Ok(provider) => assert_eq!(provider.name(), "vaes-avx512"),
            Err(error) => assert!(error.to_string().contains("not on this machine"), "{error}"),
        }
        let error = Provider::named(&"openssl".repeat(99)).unwrap_err().to_string();
        assert!(error.contains("openssl") && error.len() < 120, "{error}");
        assert!(error.ends_with("expected one of vaes, rustcrypto"), "{error}");
    }

    /// A key of another provider is our own error, not a wrong answer.
    #[cfg(target_arch = "x86_64")]
    #[test]
    #[should_panic(expected = "the key belongs to another provider")]
    fn keys_of_another_provider_are_refused() {
        let Ok(mut vaes) = Provider::named("vaes") else {
            panic!("SKIPPED: the key belongs to another provider");
        };
        let key = sample_key(&Provider::RustCrypto(RustCrypto), Algorithm::Aes128Gcm16);
        vaes.seal(&mut [Op { key: &key, esn_high: None, esp: &mut sample(4) }]);
    }

    /// One line of cache more than the larger context would be wasted on the choice.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_choice_costs_no_room() {
        assert_eq!(size_of::<ProviderKey>(), size_of::<VaesKey>());
    }

    /// No key octet in Debug.
    #[test]
    fn debug_is_redacted() {
        let key = sample_key(&Provider::RustCrypto(RustCrypto), Algorithm::Aes128Gcm16);
        assert_eq!(format!("{key:?}"), "RustCrypto(RustCryptoKey(..))");
    }
}
