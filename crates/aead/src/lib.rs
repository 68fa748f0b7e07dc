//! Encryption and integrity of ESP and AH packets, a batch at a time.
//!
//! - [`port`]: the trait [`Aead`], what it works on ([`Op`], [`AhOp`]), and what it answers
//!   ([`Status`]).
//! - [`algorithm`]: [`Algorithm`], what there is for ESP and AH ([`Protocol`]), and its lengths.
//! - [`keyword`]: from a keyword to an algorithm, or why not.
//! - [`keymat`]: [`Keymat`], keys and salt as IKE or a configuration file hands them over.
//! - `ah`: the shape of an AH packet.
//! - [`rustcrypto`]: [`RustCrypto`], the portable provider.
//! - `vaes`: `Vaes`, kernels for x86-64 with AVX-512, VAES and VPCLMULQDQ.
//! - `x86`: `VaesAvx2` and `AesNi`, kernels for x86-64 without AVX-512.
//! - `aws_lc`: `AwsLcKey`, keys of a library in C, with the feature `aws-lc`.
//! - `one_by_one`: batches for providers that have no use for them.
//! - [`audit`]: [`Audit`], a provider around a provider that panics on nonce reuse, for tests.
//! - [`provider`]: [`Provider`], any of them, and the fastest that the machine at hand runs.
//! - [`self_test`]: what a provider must get right before it is used.
//! - [`prefetch`]: asking for a value ahead of its use.
//!
//! Unsafe code is in `prefetch`, `vaes` and `x86` alone.

#![deny(unsafe_code)]

mod ah;
pub mod algorithm;
pub mod audit;
#[cfg(feature = "aws-lc")]
pub mod aws_lc;
pub mod keymat;
pub mod keyword;
mod one_by_one;
pub mod port;
pub mod prefetch;
pub mod provider;
pub mod rustcrypto;
pub mod self_test;
#[cfg(target_arch = "x86_64")]
pub mod vaes;
#[cfg(target_arch = "x86_64")]
pub mod x86;

pub use algorithm::Algorithm;
pub use algorithm::Protocol;
pub use audit::Audit;
pub use audit::AuditKey;
#[cfg(feature = "aws-lc")]
pub use aws_lc::AwsLcKey;
pub use keymat::Keymat;
pub use keymat::KeymatError;
pub use keyword::AlgorithmError;
pub use keyword::Refusal;
pub use port::Aead;
pub use port::AhOp;
pub use port::ICV_LEN;
pub use port::IV_AT;
pub use port::KeyError;
pub use port::MIN_ESP_LEN;
pub use port::Op;
pub use port::SEQ_AT;
pub use port::Status;
pub use port::TEXT_AT;
pub use port::Verified;
pub use provider::Candidate;
pub use provider::PassedOver;
pub use provider::Provider;
pub use provider::ProviderError;
pub use provider::ProviderKey;
pub use provider::Selection;
pub use provider::Unusable;
pub use rustcrypto::RustCrypto;
pub use rustcrypto::RustCryptoKey;
pub use self_test::SelfTestError;
#[cfg(target_arch = "x86_64")]
pub use vaes::KernelKey;
#[cfg(target_arch = "x86_64")]
pub use vaes::Vaes;
#[cfg(target_arch = "x86_64")]
pub use x86::AesNi;
#[cfg(target_arch = "x86_64")]
pub use x86::VaesAvx2;
