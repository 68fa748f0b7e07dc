//! Authenticated encryption of ESP packets, a batch at a time.
//!
//! - [`port`]: the trait [`Aead`], what it works on ([`Op`]), and what it answers ([`Status`]).
//! - [`algorithm`]: [`Algorithm`], the AES-GCM variants and their lengths.
//! - [`keymat`]: [`Keymat`], key and salt as IKE or a configuration file hands them over.
//! - [`rustcrypto`]: [`RustCrypto`], the portable provider.
//! - `vaes`: `Vaes`, the provider for x86-64 with AVX-512, VAES and VPCLMULQDQ.
//! - [`audit`]: [`Audit`], a provider around a provider that panics on nonce reuse, for tests.
//! - [`provider`]: [`Provider`], the fastest of them that the machine at hand runs.
//! - `prefetch`: asking for a key ahead of its use.
//!
//! Unsafe code is in `prefetch` and `vaes` alone.

#![deny(unsafe_code)]

pub mod algorithm;
pub mod audit;
pub mod keymat;
pub mod port;
mod prefetch;
pub mod provider;
pub mod rustcrypto;
#[cfg(target_arch = "x86_64")]
pub mod vaes;

pub use algorithm::Algorithm;
pub use algorithm::AlgorithmError;
pub use audit::Audit;
pub use audit::AuditKey;
pub use keymat::Keymat;
pub use keymat::KeymatError;
pub use port::Aead;
pub use port::ICV_LEN;
pub use port::IV_AT;
pub use port::KeyError;
pub use port::MIN_ESP_LEN;
pub use port::Op;
pub use port::SEQ_AT;
pub use port::Status;
pub use port::TEXT_AT;
pub use port::Verified;
pub use provider::Provider;
pub use provider::ProviderError;
pub use provider::ProviderKey;
pub use provider::Selection;
pub use rustcrypto::RustCrypto;
pub use rustcrypto::RustCryptoKey;
#[cfg(target_arch = "x86_64")]
pub use vaes::Vaes;
#[cfg(target_arch = "x86_64")]
pub use vaes::VaesKey;
