//! Kernels for CPUs with AVX-512, VAES and VPCLMULQDQ: four blocks of AES or GHASH in one
//! instruction.
//!
//! The first such CPUs are Intel's Ice Lake and AMD's Zen 4.
//!
//! - `batch`: a batch of any packets, given to the kernels; `sorted` by kind or `unsorted`.
//! - `short`: four short packets at once.
//! - `stream`: many longer packets of one SA and one length.
//! - `kernel`: one packet of any length; the essay on what all the kernels do.
//! - `math`: what they are made of: the field of GHASH, the start of AES, loads and stores.
//! - `ahead`: what later packets need, asked for in between.
//! - `key`: the context of an SA.

#![expect(unsafe_code, reason = "only run-time detection knows that the CPU has the instructions")]

mod ahead;
mod batch;
mod kernel;
mod key;
mod math;
mod short;
mod sorted;
mod stream;
mod unsorted;

use crate::port::Op;
use crate::port::Status;
use crate::provider::ProviderKey;
use crate::vaes::ahead::Ahead;
use crate::vaes::kernel::Tail;
use crate::x86::Kernels;
use crate::x86::block::store_block;
use crate::x86::instructions::instructions;

pub use key::KernelKey;

/// AES-GCM with AVX-512, VAES and VPCLMULQDQ. That there is one says that the CPU has them.
#[derive(Clone, Copy, Debug)]
pub struct Vaes(());

instructions!(
    Vaes, "vaes-avx512":
    "avx512f" "avx512bw" "avx512vl" "avx" "bmi2" "vaes" "vpclmulqdq" "aes" "pclmulqdq"
);

impl Kernels for Vaes {
    fn seal(self, ops: &mut [Op<'_, ProviderKey>]) {
        // SAFETY: `self` says that the CPU has the features. Why not safe: they are known at run
        // time only.
        unsafe { batch::seal(ops) }
    }

    fn open(self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        // SAFETY: as in `seal`. Why not safe: as there.
        unsafe { batch::open(ops, statuses) }
    }

    fn seal_general(self, key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) {
        // SAFETY: as in `seal`. Why not safe: as there.
        unsafe { seal_general(key, nonce, aad, packet) }
    }

    fn open_general(
        self,
        key: &KernelKey,
        nonce: &[u8; 12],
        aad: &[u8],
        packet: &mut [u8],
    ) -> bool {
        // SAFETY: as in `seal`. Why not safe: as there.
        unsafe { open_general(key, nonce, aad, packet) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn seal_general(key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) {
    let mut tail = Tail::new();
    key.seal(key.start_general(nonce, aad), packet, &mut tail, Ahead::NONE);
    store_block(packet.last_chunk_mut().expect("room for the ICV"), tail.icv());
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
fn open_general(key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) -> bool {
    key.open(key.start_general(nonce, aad), packet, Ahead::NONE)
}
