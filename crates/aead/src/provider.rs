//! The provider of the machine at hand: chosen when the program starts, by what the CPU can do.
//!
//! A provider that needs special instructions is taken only if the CPU has them and if it passes
//! the self test. A CPU, hypervisor or compiler that makes it go wrong then costs speed and not
//! packets, and whoever starts the program is told why. The portable one has to pass as well.
//!
//! The choice is made once for a batch, not for a packet: a [`ProviderKey`] is in line, whatever
//! provider it is for, and the providers find theirs in it while they work on the batch.

use std::sync::OnceLock;

use thiserror::Error;

use crate::algorithm::Algorithm;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::Holds;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::prefetch::prefetch;
use crate::rustcrypto::RustCrypto;
use crate::rustcrypto::RustCryptoKey;
use crate::self_test::SelfTestError;
use crate::self_test::self_test;
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

/// The context of one SA; wiped on drop.
#[derive(Debug)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(clippy::large_enum_variant, reason = "in line, as a read more for each packet shows")
)]
pub enum ProviderKey {
    /// For the kernels of [`Provider::Vaes`].
    #[cfg(target_arch = "x86_64")]
    Vaes(VaesKey),
    /// For [`Provider::RustCrypto`], and for what the kernels of others are not for. Boxed: so the
    /// choice is a niche of the other context, in a line that each packet of that needs anyway.
    RustCrypto(Box<RustCryptoKey>),
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
    ///
    /// # Panics
    /// When none passes: then this machine computes wrongly, and no packet of it could be trusted.
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
            "rustcrypto" => Provider::portable()
                .map_err(|reason| ProviderError::Unavailable { name: "rustcrypto", reason }),
            _ => Err(ProviderError::Unknown { name: name.chars().take(NAME_SHOWN).collect() }),
        }
    }

    /// Answers known from elsewhere, round trips and forged packets, for every algorithm of ESP and
    /// AH. [`Provider::best`] and [`Provider::named`] have done it.
    ///
    /// # Errors
    /// [`SelfTestError`] with the first packet that went wrong.
    pub fn self_test_all(&mut self) -> Result<(), SelfTestError> {
        self_test(self)
    }

    /// The portable provider, tested; or why not.
    fn portable() -> Result<Provider, String> {
        static TESTED: OnceLock<Result<(), SelfTestError>> = OnceLock::new();
        Provider::RustCrypto(RustCrypto).tested(&TESTED)
    }

    /// The provider, if it passes the self test, which is made once: it takes a moment.
    fn tested(mut self, tested: &OnceLock<Result<(), SelfTestError>>) -> Result<Provider, String> {
        match tested.get_or_init(|| self.self_test_all()) {
            Ok(()) => Ok(self),
            Err(error) => Err(error.to_string()),
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
                let provider = Provider::portable()
                    .unwrap_or_else(|wrong| panic!("no provider can be used: {reason}; {wrong}"));
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
        static TESTED: OnceLock<Result<(), SelfTestError>> = OnceLock::new();
        Provider::Vaes(vaes).tested(&TESTED)
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
            Provider::Vaes(vaes) => vaes.key(algorithm, keymat)?,
            Provider::RustCrypto(rustcrypto) => {
                ProviderKey::RustCrypto(Box::new(rustcrypto.key(algorithm, keymat)?))
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
            Provider::Vaes(vaes) => vaes.seal(ops),
            Provider::RustCrypto(rustcrypto) => rustcrypto.seal_held(ops),
        }
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(vaes) => vaes.open(ops, statuses),
            Provider::RustCrypto(rustcrypto) => rustcrypto.open_held(ops, statuses),
        }
    }

    fn seal_ah(&mut self, op: AhOp<'_, ProviderKey>) {
        RustCrypto.seal_ah(op.portable());
    }

    fn open_ah(&mut self, op: AhOp<'_, ProviderKey>) -> Status {
        RustCrypto.open_ah(op.portable())
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
            Provider::Vaes(vaes) => vaes.seal_general(key, nonce, aad, text_and_icv),
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
            Provider::Vaes(vaes) => vaes.open_general(key, nonce, aad, text_and_icv),
            Provider::RustCrypto(rustcrypto) => {
                rustcrypto.open_general(key.held(), nonce, aad, text_and_icv)
            }
        }
    }
}

impl<'a> AhOp<'a, ProviderKey> {
    /// The packet for the portable provider, which is the one that has AH.
    ///
    /// # Panics
    /// When the key is for the kernels of another, and so for ESP: our own error.
    pub(crate) fn portable(self) -> AhOp<'a, RustCryptoKey> {
        let AhOp { key, esn_high, header, ah } = self;
        match key {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Vaes(_) => panic!("the key of an ESP SA"),
            ProviderKey::RustCrypto(key) => AhOp { key, esn_high, header, ah },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_test::sample;
    use crate::self_test::sample_keymat;

    const ALGORITHM: Algorithm = Algorithm::Aes128Gcm16;

    fn sample_key(provider: Provider) -> ProviderKey {
        provider.key(ALGORITHM, &sample_keymat(ALGORITHM)).unwrap()
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
        let Ok(vaes) = Provider::named("vaes") else {
            panic!("SKIPPED: the key belongs to another provider");
        };
        let (key, mut esp) = (sample_key(vaes), sample(ALGORITHM, 4));
        let ops = &mut [Op { key: &key, esn_high: None, esp: &mut esp }];
        Provider::RustCrypto(RustCrypto).seal(ops);
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
        let key = sample_key(Provider::RustCrypto(RustCrypto));
        assert_eq!(format!("{key:?}"), "RustCrypto(RustCryptoKey(..))");
    }
}
