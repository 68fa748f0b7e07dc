//! The provider for CPUs with AVX-512, VAES and VPCLMULQDQ: four blocks of AES or GHASH in one
//! instruction.
//!
//! The first such CPUs are Intel's Ice Lake and AMD's Zen 4. A value of [`Vaes`] is the proof that
//! the CPU has the instructions, as [`Vaes::detect`] is the only way to one; all unsafe calls into
//! code that needs them rest on that.
//!
//! - `kernel`: AES-GCM of one packet, the mathematics and the loads and stores.
//! - `key`: the context of an SA.
//!
//! The ICV is verified before anything is decrypted, so that a forged text stays ciphertext.
//! Packets are worked on one at a time, in order; key contexts are fetched some packets ahead.

#![expect(unsafe_code, reason = "only run-time detection knows that the CPU has the instructions")]

mod kernel;
mod key;

use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::Holds;
use crate::port::ICV_LEN;
use crate::port::KeyError;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::port::TEXT_AT;
use crate::port::Verified;
use crate::prefetch::prefetch;
use crate::prefetch::prefetch_first;
use crate::prefetch::prefetch_later;

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

    /// [`Aead::seal`] for all keys that hold one of this provider's.
    pub(crate) fn seal_held<K: Holds<VaesKey>>(self, ops: &mut [Op<'_, K>]) {
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { seal_batch(ops) }
    }

    /// [`Aead::open`] for all keys that hold one of this provider's.
    pub(crate) fn open_held<K: Holds<VaesKey>>(
        self,
        ops: &mut [Op<'_, K>],
        statuses: &mut [Status],
    ) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { open_batch(ops, statuses) }
    }
}

impl Aead for Vaes {
    type Key = VaesKey;

    fn name(&self) -> &'static str {
        "vaes-avx512"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<VaesKey, KeyError> {
        let wrong_length =
            || KeyError { algorithm, expected: algorithm.keymat_len(), given: keymat.len() };
        let (key, salt) = keymat.split().ok_or_else(wrong_length)?;
        if key.len() != algorithm.key_len() {
            return Err(wrong_length());
        }
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        Ok(unsafe { VaesKey::new(algorithm, key, salt) })
    }

    /// Asks for the whole context. Not needed ahead of [`Aead::seal`] and [`Aead::open`], which do
    /// the same for the packets of their batch.
    #[inline]
    fn prefetch(&self, key: &VaesKey, _len: usize) {
        prefetch(key);
    }

    fn seal(&mut self, ops: &mut [Op<'_, VaesKey>]) {
        self.seal_held(ops);
    }

    fn open(&mut self, ops: &mut [Op<'_, VaesKey>], statuses: &mut [Status]) {
        self.open_held(ops, statuses);
    }

    /// In a copy that has a header in front of the text, as the kernels want it.
    fn seal_general(
        &mut self,
        key: &VaesKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
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
        key: &VaesKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
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
fn seal_batch<K: Holds<VaesKey>>(ops: &mut [Op<'_, K>]) {
    prefetch_first(ops);
    for at in 0..ops.len() {
        prefetch_later(ops, at);
        let op = &mut ops[at];
        assert!(op.esp.len() >= MIN_ESP_LEN, "room for header and ICV");
        let header = op.esp.first_chunk().expect("the length was checked");
        let key = op.key.held();
        key.seal(key.start(header, op.esn_high), op.esp);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn open_batch<K: Holds<VaesKey>>(ops: &mut [Op<'_, K>], statuses: &mut [Status]) {
    prefetch_first(ops);
    for (at, status) in (0..ops.len()).zip(statuses) {
        prefetch_later(ops, at);
        *status = open_one(&mut ops[at]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn open_one<K: Holds<VaesKey>>(op: &mut Op<'_, K>) -> Status {
    let Some(header) = op.esp.first_chunk() else {
        return Status::Forged;
    };
    if op.esp.len() < MIN_ESP_LEN {
        return Status::Forged;
    }
    let key = op.key.held();
    match key.open(key.start(header, op.esn_high), op.esp) {
        true => Status::Authentic(Verified::new()),
        false => Status::Forged,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn seal_one_general(key: &VaesKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) {
    key.seal(key.start_general(nonce, aad), packet);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn open_one_general(key: &VaesKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) -> bool {
    key.open(key.start_general(nonce, aad), packet)
}
