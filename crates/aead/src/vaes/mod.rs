//! The provider for CPUs with AVX-512, VAES and VPCLMULQDQ: four blocks of AES or GHASH in one
//! instruction.
//!
//! The first such CPUs are Intel's Ice Lake and AMD's Zen 4. A value of [`Vaes`] is the proof that
//! the CPU has the instructions, as [`Vaes::detect`] is the only way to one; all unsafe calls into
//! code that needs them rest on that.
//!
//! - `batch`: a batch of any packets, sorted for the kernels.
//! - `short`: four short packets at once.
//! - `kernel`: one packet of any length; the essay on what all the kernels do.
//! - `math`: what they are made of: the field of GHASH, the start of AES, loads and stores.
//! - `key`: the context of an SA.
//!
//! The kernels are for AES-GCM with IV and a 16-octet ICV. Keys of all other algorithms are those
//! of the portable provider, which works on their packets, in the same batch.

#![expect(unsafe_code, reason = "only run-time detection knows that the CPU has the instructions")]

mod batch;
mod kernel;
mod key;
mod math;
mod short;
mod sorted;

use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::algorithm::Method;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::Holds;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::Status;
use crate::port::TEXT_AT;
use crate::prefetch::prefetch;
use crate::provider::ProviderKey;
use crate::rustcrypto::RustCrypto;
use crate::vaes::kernel::Tail;
use crate::x86::block::store_block;
use crate::x86::schedule;

pub use key::VaesKey;

/// AES-GCM with AVX-512, VAES and VPCLMULQDQ. That there is one says that the CPU has them.
#[derive(Clone, Copy, Debug)]
pub struct Vaes(());

/// The instruction sets the kernels are compiled for, besides those these imply.
macro_rules! missing_features {
    ($($feature:tt)*) => {
        [$(($feature, is_x86_feature_detected!($feature))),*]
            .into_iter()
            .filter_map(|(feature, detected)| (!detected).then_some(feature))
    };
}

impl Vaes {
    /// The provider, if the CPU has the instructions and the operating system saves the registers.
    #[must_use]
    pub fn detect() -> Option<Vaes> {
        Vaes::missing().is_empty().then_some(Vaes(()))
    }

    /// The instruction sets the provider needs that this machine has not.
    #[must_use]
    pub fn missing() -> Vec<&'static str> {
        missing_features!(
            "avx512f" "avx512bw" "avx512vl" "bmi2" "vaes" "vpclmulqdq" "aes" "pclmulqdq"
        )
        .collect()
    }
}

impl Aead for Vaes {
    type Key = ProviderKey;

    fn name(&self) -> &'static str {
        "vaes-avx512"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<ProviderKey, KeyError> {
        let Method::Gcm(size, ICV_LEN) = algorithm.method() else {
            return ProviderKey::portable(algorithm, keymat);
        };
        let parts = keymat.parts(algorithm)?;
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        Ok(ProviderKey::Vaes(unsafe { schedule::context(size, parts.key, parts.salt) }))
    }

    /// Asks for the whole context, without a look at which it is: that would have to wait for it.
    /// Not needed ahead of [`Aead::seal`] and [`Aead::open`], which do the same for the packets of
    /// their batch.
    #[inline]
    fn prefetch(&self, key: &ProviderKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, ProviderKey>]) {
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { batch::seal(ops) }
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { batch::open(ops, statuses) }
    }

    fn seal_ah(&mut self, op: AhOp<'_, ProviderKey>) {
        RustCrypto.seal_ah(op.portable());
    }

    fn open_ah(&mut self, op: AhOp<'_, ProviderKey>) -> Status {
        RustCrypto.open_ah(op.portable())
    }

    /// In a copy that has a header in front of the text, as the kernels want it.
    fn seal_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        let key = match key {
            ProviderKey::Vaes(key) => key,
            other => {
                return RustCrypto.seal_general(other.held(), nonce, aad, text_and_icv);
            }
        };
        assert!(text_and_icv.len() >= ICV_LEN, "room for the ICV");
        let mut packet = behind_a_header(text_and_icv);
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { seal_one_general(key, nonce, aad, &mut packet) };
        text_and_icv.copy_from_slice(&packet[TEXT_AT..]);
    }

    /// In a copy that has a header in front of the text, as the kernels want it.
    fn open_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        let key = match key {
            ProviderKey::Vaes(key) => key,
            other => {
                return RustCrypto.open_general(other.held(), nonce, aad, text_and_icv);
            }
        };
        if text_and_icv.len() < ICV_LEN {
            return false;
        }
        let mut packet = behind_a_header(text_and_icv);
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        let authentic = unsafe { open_one_general(key, nonce, aad, &mut packet) };
        text_and_icv.copy_from_slice(&packet[TEXT_AT..]);
        authentic
    }
}

fn behind_a_header(text_and_icv: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&[0; TEXT_AT], text_and_icv].concat())
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn seal_one_general(key: &VaesKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) {
    let mut tail = Tail::new();
    key.seal(key.start_general(nonce, aad), packet, &mut tail);
    store_block(packet.last_chunk_mut().expect("room for the ICV"), tail.icv());
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn open_one_general(key: &VaesKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) -> bool {
    key.open(key.start_general(nonce, aad), packet)
}
