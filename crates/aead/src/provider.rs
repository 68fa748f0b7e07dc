//! The provider of the machine at hand: chosen when the program starts, by what the CPU can do.
//!
//! A provider that needs special instructions is taken only if the CPU has them and if it passes
//! the self test. A CPU, hypervisor or compiler that makes it go wrong then costs speed and not
//! packets, and whoever starts the program is told why. The portable one has to pass as well.
//!
//! The choice is made once for a batch, not for a packet: a [`ProviderKey`] is in line, whatever
//! provider it is for, and the providers find theirs in it while they work on the batch.

use std::fmt;
use std::sync::OnceLock;

use thiserror::Error;
#[cfg(target_arch = "x86_64")]
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
#[cfg(any(target_arch = "x86_64", feature = "aws-lc"))]
use crate::algorithm::Method;
#[cfg(feature = "aws-lc")]
use crate::aws_lc::AwsLcKey;
use crate::keymat::Keymat;
#[cfg(any(target_arch = "x86_64", feature = "aws-lc"))]
use crate::keymat::Parts;
use crate::one_by_one::OneByOne;
use crate::one_by_one::open_each;
use crate::one_by_one::seal_each;
use crate::port::Aead;
use crate::port::AhOp;
#[cfg(any(target_arch = "x86_64", feature = "aws-lc"))]
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
#[cfg(target_arch = "x86_64")]
use crate::port::TEXT_AT;
use crate::prefetch::prefetch;
use crate::rustcrypto::RustCrypto;
use crate::rustcrypto::RustCryptoKey;
use crate::self_test::SelfTestError;
use crate::self_test::self_test;
#[cfg(target_arch = "x86_64")]
use crate::vaes::KernelKey;
#[cfg(target_arch = "x86_64")]
use crate::vaes::Vaes;
#[cfg(target_arch = "x86_64")]
use crate::x86::AesNi;
#[cfg(target_arch = "x86_64")]
use crate::x86::Kernels;
#[cfg(target_arch = "x86_64")]
use crate::x86::VaesAvx2;
#[cfg(target_arch = "x86_64")]
use crate::x86::instructions::Instructions;
#[cfg(target_arch = "x86_64")]
use crate::x86::schedule;

/// One of the providers of this crate, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub enum Provider {
    /// AVX-512 with VAES and VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Vaes(Vaes),
    /// AVX2 with VAES and VPCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    VaesAvx2(VaesAvx2),
    /// AES-NI with PCLMULQDQ and AVX.
    #[cfg(target_arch = "x86_64")]
    AesNi(AesNi),
    /// AWS-LC, in C.
    #[cfg(feature = "aws-lc")]
    AwsLc,
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
    /// For the kernels of this crate, all of them.
    #[cfg(target_arch = "x86_64")]
    Kernel(KernelKey),
    /// For [`Provider::AwsLc`].
    #[cfg(feature = "aws-lc")]
    AwsLc(Box<AwsLcKey>),
    /// For [`Provider::RustCrypto`], and for what the kernels of others are not for. Boxed: so the
    /// choice is a niche of the other context, in a line that each packet of that needs anyway.
    RustCrypto(Box<RustCryptoKey>),
}

/// A provider, why this one, and why none of those that are faster.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What was chosen.
    pub provider: Provider,
    /// Why, in words for a log.
    pub reason: String,
    /// What would have been preferred, fastest first.
    pub passed_over: Vec<PassedOver>,
}

/// A provider that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub name: &'static str,
    /// Why not.
    pub reason: Unusable,
}

/// A provider, usable or not.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// One of [`Provider::NAMES`].
    pub name: &'static str,
    /// The provider, tested; or why not.
    pub provider: Result<Provider, Unusable>,
}

/// Why a provider cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unusable {
    /// The CPU has not these instruction sets, or the operating system does not save their
    /// registers.
    #[error("the CPU lacks {}", .0.join(", "))]
    Lacks(Vec<&'static str>),
    /// It is for another kind of CPU.
    #[error("it needs an x86-64 CPU")]
    OtherCpu,
    /// It is not part of this program.
    #[error("it needs a build with the feature {0}")]
    NotBuilt(&'static str),
    /// It goes wrong.
    #[error(transparent)]
    Wrong(SelfTestError),
}

/// Why there is no provider of a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// There is none, on any machine.
    #[error(
        "provider \"{name}\": expected {}, or one of {}", Provider::AUTO, Provider::NAMES.join(", ")
    )]
    Unknown {
        /// What was given, cut to a printable length.
        name: String,
    },
    /// Not on this machine.
    #[error(
        "provider \"{name}\": not on this machine: {reason}; expected {}, or one of {}",
        Provider::AUTO,
        Provider::NAMES.join(", ")
    )]
    Unavailable {
        /// What was given.
        name: &'static str,
        /// What is missing or wrong.
        reason: Unusable,
    },
}

impl ProviderError {
    /// Whether the provider runs here and goes wrong.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self, ProviderError::Unavailable { reason: Unusable::Wrong(_), .. })
    }
}

/// How much of an unknown name an error repeats.
const NAME_SHOWN: usize = 40;

impl Provider {
    /// Every name [`Provider::named`] knows, fastest first.
    pub const NAMES: [&'static str; 5] =
        ["vaes-avx512", "vaes-avx2", "aes-ni", "aws-lc-rs", "rustcrypto"];

    /// What [`Provider::selected`] takes for [`Provider::best`].
    pub const AUTO: &'static str = "auto";

    /// The fastest provider that this machine runs and that passes its self test.
    ///
    /// # Panics
    /// When none passes: then this machine computes wrongly, and no packet of it could be trusted.
    #[must_use]
    pub fn best() -> Selection {
        first_usable(Provider::candidates())
    }

    /// The provider of a name, one of [`Provider::NAMES`].
    ///
    /// # Errors
    /// [`ProviderError`] when there is none, or when it does not run here or fails its self test.
    pub fn named(name: &str) -> Result<Provider, ProviderError> {
        let Some(name) = Provider::NAMES.into_iter().find(|known| *known == name) else {
            return Err(ProviderError::Unknown { name: name.chars().take(NAME_SHOWN).collect() });
        };
        Provider::candidate(name).map_err(|reason| ProviderError::Unavailable { name, reason })
    }

    /// The provider of a name, or the best for [`Provider::AUTO`].
    ///
    /// # Errors
    /// As of [`Provider::named`].
    pub fn selected(name: &str) -> Result<Selection, ProviderError> {
        if name == Provider::AUTO {
            return Ok(Provider::best());
        }
        let provider = Provider::named(name)?;
        let reason = format!("{name}: asked for, self test passed");
        Ok(Selection { provider, reason, passed_over: Vec::new() })
    }

    /// All providers, fastest first, each tested when it is asked for.
    pub fn candidates() -> impl Iterator<Item = Candidate> {
        let of = |name| Candidate { name, provider: Provider::candidate(name) };
        Provider::NAMES.into_iter().map(of)
    }

    /// Answers known from elsewhere, round trips and forged packets, for every algorithm of ESP and
    /// AH. [`Provider::best`] and [`Provider::named`] have done it.
    ///
    /// # Errors
    /// [`SelfTestError`] with the first packet that went wrong.
    pub fn self_test_all(&mut self) -> Result<(), SelfTestError> {
        self_test(self)
    }

    /// The provider of one of [`Provider::NAMES`], tested once: it takes a moment.
    fn candidate(name: &'static str) -> Result<Provider, Unusable> {
        static TESTED: [OnceLock<Result<(), SelfTestError>>; Provider::NAMES.len()] =
            [const { OnceLock::new() }; Provider::NAMES.len()];
        let mut provider = Provider::detected(name)?;
        let at = Provider::NAMES.iter().position(|known| *known == name).expect("a known name");
        match TESTED[at].get_or_init(|| provider.self_test_all()) {
            Ok(()) => Ok(provider),
            Err(error) => Err(Unusable::Wrong(error.clone())),
        }
    }

    /// The provider of one of [`Provider::NAMES`], if it runs here.
    fn detected(name: &'static str) -> Result<Provider, Unusable> {
        match name {
            #[cfg(target_arch = "x86_64")]
            Vaes::NAME => with_instructions(Provider::Vaes),
            #[cfg(target_arch = "x86_64")]
            VaesAvx2::NAME => with_instructions(Provider::VaesAvx2),
            #[cfg(target_arch = "x86_64")]
            AesNi::NAME => with_instructions(Provider::AesNi),
            #[cfg(feature = "aws-lc")]
            "aws-lc-rs" => Ok(Provider::AwsLc),
            #[cfg(not(feature = "aws-lc"))]
            "aws-lc-rs" => Err(Unusable::NotBuilt("aws-lc")),
            "rustcrypto" => Ok(Provider::RustCrypto(RustCrypto)),
            _ => Err(Unusable::OtherCpu),
        }
    }
}

/// A provider that is kernels, if the CPU has the instructions.
#[cfg(target_arch = "x86_64")]
fn with_instructions<K: Instructions>(provider: fn(K) -> Provider) -> Result<Provider, Unusable> {
    K::detect().map(provider).ok_or_else(|| Unusable::Lacks(K::missing()))
}

/// The first that can be used, and why not those before it.
fn first_usable(candidates: impl Iterator<Item = Candidate>) -> Selection {
    let mut passed_over = Vec::new();
    for Candidate { name, provider } in candidates {
        match provider {
            Ok(provider) => {
                let why = if passed_over.is_empty() { "the fastest" } else { "the fastest here" };
                let reason = format!("{name}: {why}, self test passed");
                return Selection { provider, reason, passed_over };
            }
            Err(reason) => passed_over.push(PassedOver { name, reason }),
        }
    }
    let all: Vec<String> = passed_over.iter().map(PassedOver::to_string).collect();
    panic!("no provider can be used: {}", all.join("; "));
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// An expression of whichever kernels a provider is, or another one. Each provider is named: one
/// more does not compile before somebody has thought of it.
macro_rules! with_kernels {
    ($provider:expr, $kernels:ident => $body:expr, _ => $other:expr) => {
        match $provider {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes($kernels) => $body,
            #[cfg(target_arch = "x86_64")]
            Provider::VaesAvx2($kernels) => $body,
            #[cfg(target_arch = "x86_64")]
            Provider::AesNi($kernels) => $body,
            #[cfg(feature = "aws-lc")]
            Provider::AwsLc => $other,
            Provider::RustCrypto(_) => $other,
        }
    };
}

impl Aead for Provider {
    type Key = ProviderKey;

    fn name(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Provider::Vaes(_) => Vaes::NAME,
            #[cfg(target_arch = "x86_64")]
            Provider::VaesAvx2(_) => VaesAvx2::NAME,
            #[cfg(target_arch = "x86_64")]
            Provider::AesNi(_) => AesNi::NAME,
            #[cfg(feature = "aws-lc")]
            Provider::AwsLc => "aws-lc-rs",
            Provider::RustCrypto(portable) => portable.name(),
        }
    }

    /// The portable provider's, for an algorithm that there is nothing else for.
    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<ProviderKey, KeyError> {
        #[cfg(any(target_arch = "x86_64", feature = "aws-lc"))]
        if let Method::Gcm(size, ICV_LEN) = algorithm.method() {
            let Parts { key, salt, .. } = keymat.parts(algorithm)?;
            match self {
                #[cfg(target_arch = "x86_64")]
                Provider::Vaes(_) | Provider::VaesAvx2(_) | Provider::AesNi(_) => {
                    return Ok(ProviderKey::Kernel(schedule::context(size, key, salt)));
                }
                #[cfg(feature = "aws-lc")]
                Provider::AwsLc => {
                    return Ok(ProviderKey::AwsLc(Box::new(AwsLcKey::new(size, key, salt))));
                }
                Provider::RustCrypto(_) => {}
            }
        }
        Ok(ProviderKey::RustCrypto(Box::new(RustCrypto.key(algorithm, keymat)?)))
    }

    /// Asks for the whole context, without a look at whose it is: that would have to wait for it.
    /// Not needed ahead of [`Aead::seal`] and [`Aead::open`], which do the same for the packets of
    /// their batch.
    #[inline]
    fn prefetch(&self, key: &ProviderKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, ProviderKey>]) {
        with_kernels!(self, kernels => kernels.seal(ops), _ => seal_each(ops));
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        with_kernels!(
            self,
            kernels => kernels.open(ops, statuses),
            _ => open_each(ops, statuses)
        );
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
        match key {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Kernel(key) => {
                assert!(text_and_icv.len() >= ICV_LEN, "room for the ICV");
                behind_a_header(text_and_icv, |packet| {
                    with_kernels!(
                        self,
                        kernels => kernels.seal_general(key, nonce, aad, packet),
                        _ => other_provider()
                    );
                });
            }
            #[cfg(feature = "aws-lc")]
            ProviderKey::AwsLc(key) => key.seal_general(nonce, aad, text_and_icv),
            ProviderKey::RustCrypto(key) => RustCrypto.seal_general(key, nonce, aad, text_and_icv),
        }
    }

    fn open_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        match key {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Kernel(_) if text_and_icv.len() < ICV_LEN => false,
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Kernel(key) => behind_a_header(text_and_icv, |packet| {
                with_kernels!(
                    self,
                    kernels => kernels.open_general(key, nonce, aad, packet),
                    _ => other_provider()
                )
            }),
            #[cfg(feature = "aws-lc")]
            ProviderKey::AwsLc(key) => key.open_general(nonce, aad, text_and_icv),
            ProviderKey::RustCrypto(key) => RustCrypto.open_general(key, nonce, aad, text_and_icv),
        }
    }
}

/// What `work` says of a copy that has a header in front of the text, as the kernels want it; what
/// it makes of text and ICV is copied back.
#[cfg(target_arch = "x86_64")]
fn behind_a_header<T>(text_and_icv: &mut [u8], work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut packet = Zeroizing::new([&[0; TEXT_AT], &*text_and_icv].concat());
    let done = work(&mut packet);
    text_and_icv.copy_from_slice(&packet[TEXT_AT..]);
    done
}

impl OneByOne for ProviderKey {
    #[inline(always)]
    fn seal(&self, esn_high: Option<u32>, esp: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Kernel(_) => other_provider(),
            #[cfg(feature = "aws-lc")]
            ProviderKey::AwsLc(key) => key.seal(esn_high, esp),
            ProviderKey::RustCrypto(key) => key.seal(esn_high, esp),
        }
    }

    #[inline(always)]
    fn open(&self, esn_high: Option<u32>, esp: &mut [u8]) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            ProviderKey::Kernel(_) => other_provider(),
            #[cfg(feature = "aws-lc")]
            ProviderKey::AwsLc(key) => key.open(esn_high, esp),
            ProviderKey::RustCrypto(key) => key.open(esn_high, esp),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl ProviderKey {
    /// A packet of [`Aead::seal`] that kernels are not for. A call, so that the loop over a batch
    /// stays small.
    #[inline(never)]
    pub(crate) fn seal_portable(&self, esn_high: Option<u32>, esp: &mut [u8]) {
        self.seal(esn_high, esp);
    }

    /// A packet of [`Aead::open`], likewise.
    #[inline(never)]
    pub(crate) fn open_portable(&self, esn_high: Option<u32>, esp: &mut [u8]) -> bool {
        self.open(esn_high, esp)
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
            ProviderKey::RustCrypto(key) => AhOp { key, esn_high, header, ah },
            #[cfg(any(target_arch = "x86_64", feature = "aws-lc"))]
            _ => panic!("the key of an ESP SA"),
        }
    }
}

/// A key of kernels is handed to kernels.
#[cfg(target_arch = "x86_64")]
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

    /// The best is the first that can be used, and says why.
    #[test]
    fn the_best_is_the_fastest_that_runs() {
        let best = Provider::best();
        println!("{}", best.reason);
        let usable = Provider::candidates().find(|candidate| candidate.provider.is_ok()).unwrap();
        assert_eq!(best.provider.name(), usable.name);
        assert!(best.reason.starts_with(usable.name), "{}", best.reason);
        let at = Provider::NAMES.iter().position(|name| *name == usable.name).unwrap();
        let passed_over: Vec<&str> = best.passed_over.iter().map(|passed| passed.name).collect();
        assert_eq!(passed_over, Provider::NAMES[..at]);
    }

    /// Every provider that this CPU runs passes its self test.
    #[test]
    fn all_that_run_pass() {
        for Candidate { name, provider } in Provider::candidates() {
            match provider {
                Ok(provider) => assert_eq!(provider.name(), name),
                Err(Unusable::Wrong(error)) => panic!("{error}"),
                Err(lacking) => eprintln!("SKIPPED {name}: {lacking}"),
            }
        }
    }

    /// Without fast providers the next in the list is taken, and it is said of each what is
    /// missing or wrong.
    #[test]
    fn the_next_is_the_fallback() {
        let wrong = crate::self_test::sample_error();
        let portable = Provider::RustCrypto(RustCrypto);
        let candidates = [
            ("vaes-avx512", Err(Unusable::Lacks(vec!["avx512f", "vaes"]))),
            ("aes-ni", Err(Unusable::Wrong(wrong.clone()))),
            ("aws-lc-rs", Err(Unusable::NotBuilt("aws-lc"))),
            ("rustcrypto", Ok(portable)),
        ];
        let candidates = candidates.map(|(name, provider)| Candidate { name, provider });
        let selection = first_usable(candidates.into_iter());
        assert_eq!(selection.provider.name(), "rustcrypto");
        assert_eq!(selection.reason, "rustcrypto: the fastest here, self test passed");
        let passed_over: Vec<String> =
            selection.passed_over.iter().map(PassedOver::to_string).collect();
        let expected = [
            "vaes-avx512: the CPU lacks avx512f, vaes".to_owned(),
            format!("aes-ni: {wrong}"),
            "aws-lc-rs: it needs a build with the feature aws-lc".to_owned(),
        ];
        assert_eq!(passed_over, expected);
    }

    /// Names lead to providers; an unknown one is repeated, cut, and the known ones are listed.
    #[test]
    fn names() {
        for name in Provider::NAMES {
            match Provider::selected(name) {
                Ok(selection) => {
                    assert_eq!(selection.provider.name(), name);
                    assert!(selection.reason.contains("asked for"), "{}", selection.reason);
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains("not on this machine: "), "{error}");
                    assert!(error.ends_with("aes-ni, aws-lc-rs, rustcrypto"), "{error}");
                }
            }
        }
        let auto = Provider::selected("auto").unwrap();
        assert_eq!(auto.provider.name(), Provider::best().provider.name());
        let error = Provider::named(&"openssl".repeat(99)).unwrap_err().to_string();
        assert!(error.contains("openssl") && error.len() < 160, "{error}");
        let known =
            "expected auto, or one of vaes-avx512, vaes-avx2, aes-ni, aws-lc-rs, rustcrypto";
        assert!(error.ends_with(known), "{error}");
    }

    /// A key of another provider is our own error, not a wrong answer.
    #[cfg(target_arch = "x86_64")]
    #[test]
    #[should_panic(expected = "the key belongs to another provider")]
    fn keys_of_another_provider_are_refused() {
        let Ok(aes_ni) = Provider::named("aes-ni") else {
            panic!("SKIPPED: the key belongs to another provider");
        };
        let (key, mut esp) = (sample_key(aes_ni), sample(ALGORITHM, 4));
        let ops = &mut [Op { key: &key, esn_high: None, esp: &mut esp }];
        Provider::RustCrypto(RustCrypto).seal(ops);
    }

    /// One line of cache more than the larger context would be wasted on the choice.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_choice_costs_no_room() {
        assert_eq!(size_of::<ProviderKey>(), size_of::<KernelKey>());
    }

    /// No key octet in Debug.
    #[test]
    fn debug_is_redacted() {
        let key = sample_key(Provider::RustCrypto(RustCrypto));
        assert_eq!(format!("{key:?}"), "RustCrypto(RustCryptoKey(..))");
    }
}
