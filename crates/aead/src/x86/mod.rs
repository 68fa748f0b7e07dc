//! Kernels for x86-64 CPUs without AVX-512: one, in vectors of one block or of two.
//!
//! [`AesNi`] runs on Intel's Sandy Bridge of 2011 and AMD's Bulldozer and on what came later,
//! [`VaesAvx2`] on AMD's Zen 3 and Intel's Alder Lake and later.
//!
//! - `kernel`: AES-GCM of one packet.
//! - `vector`: what the kernel asks of a CPU.
//! - `instructions`: which of them the CPU has.
//! - `start`, `schedule`, `block`: nonce and AAD, the schedule of a key, and single blocks; the
//!   AVX-512 kernel uses them too, and all three have the same context of an SA.

#![expect(unsafe_code, reason = "only run-time detection knows that the CPU has the instructions")]

pub(crate) mod block;
pub(crate) mod instructions;
pub(crate) mod kernel;
pub(crate) mod schedule;
pub(crate) mod start;
mod vector;

use crate::algorithm::AesSize;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::prefetch::prefetch_first;
use crate::prefetch::prefetch_later;
use crate::provider::ProviderKey;
use crate::vaes::KernelKey;
use crate::x86::instructions::Instructions;
use crate::x86::kernel::Schedule;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;
use crate::x86::start::Start;
use crate::x86::vector::Vectors;
use crate::x86::vector::Work;
use crate::x86::vector::Xmm;
use crate::x86::vector::Ymm;

/// AES-GCM with AES-NI, PCLMULQDQ and AVX.
pub type AesNi = Xmm;

/// AES-GCM with AVX2, VAES and VPCLMULQDQ.
pub type VaesAvx2 = Ymm;

/// What [`Provider`](crate::Provider) asks of kernels. They are for AES-GCM with IV and a 16-octet
/// ICV, and leave packets of other keys to the portable provider, in the same batch.
pub(crate) trait Kernels: Instructions {
    /// [`Aead::seal`](crate::Aead::seal).
    fn seal(self, ops: &mut [Op<'_, ProviderKey>]);

    /// [`Aead::open`](crate::Aead::open), with a status for each packet.
    fn open(self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]);

    /// Seals `packet`: 16 octets that do not count, text, and room for the ICV.
    fn seal_general(self, key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]);

    /// Opens what [`Kernels::seal_general`] sealed, if it is authentic.
    fn open_general(self, key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8])
    -> bool;
}

impl<V: Vectors> Kernels for V {
    fn seal(self, ops: &mut [Op<'_, ProviderKey>]) {
        self.run(Seal(ops));
    }

    fn open(self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        self.run(Open(ops, statuses));
    }

    fn seal_general(self, key: &KernelKey, nonce: &[u8; 12], aad: &[u8], packet: &mut [u8]) {
        self.run(General { key, nonce, aad, packet, seals: true });
    }

    fn open_general(
        self,
        key: &KernelKey,
        nonce: &[u8; 12],
        aad: &[u8],
        packet: &mut [u8],
    ) -> bool {
        self.run(General { key, nonce, aad, packet, seals: false })
    }
}

/// [`Kernels::seal`].
struct Seal<'a, 'b>(&'a mut [Op<'b, ProviderKey>]);

impl<V: Vectors> Work<V> for Seal<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, vectors: V) {
        let Seal(ops) = self;
        prefetch_first(ops);
        for at in 0..ops.len() {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let ProviderKey::Kernel(key) = op.key else {
                op.key.seal_portable(op.esn_high, op.esp);
                continue;
            };
            assert!(op.esp.len() >= MIN_ESP_LEN, "room for header and ICV");
            let header = op.esp.first_chunk().expect("the length was checked");
            seal(vectors, key, Start::of(key.salt, header, op.esn_high), op.esp);
        }
    }
}

/// [`Kernels::open`].
struct Open<'a, 'b>(&'a mut [Op<'b, ProviderKey>], &'a mut [Status]);

impl<V: Vectors> Work<V> for Open<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self, vectors: V) {
        let Open(ops, statuses) = self;
        prefetch_first(ops);
        for (at, status) in (0..ops.len()).zip(statuses) {
            prefetch_later(ops, at);
            let op = &mut ops[at];
            let is_authentic = match (op.key, op.esp.first_chunk()) {
                (ProviderKey::Kernel(key), Some(header)) if op.esp.len() >= MIN_ESP_LEN => {
                    open(vectors, key, Start::of(key.salt, header, op.esn_high), op.esp)
                }
                (ProviderKey::Kernel(_), _) => false,
                (other, _) => other.open_portable(op.esn_high, op.esp),
            };
            *status = Status::of(is_authentic);
        }
    }
}

/// [`Kernels::seal_general`] and [`Kernels::open_general`]: true for what is sealed.
struct General<'a> {
    key: &'a KernelKey,
    nonce: &'a [u8; 12],
    aad: &'a [u8],
    packet: &'a mut [u8],
    seals: bool,
}

impl<V: Vectors> Work<V> for General<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self, vectors: V) -> bool {
        let General { key, nonce, aad, packet, seals } = self;
        let hashed = kernel::absorb(vectors, &key.powers, aad);
        let start = Start::general(nonce, hashed, aad.len());
        match seals {
            true => {
                seal(vectors, key, start, packet);
                true
            }
            false => open(vectors, key, start, packet),
        }
    }
}

/// Seals one packet, which has at least header and ICV (else: panics).
#[inline(always)]
fn seal<V: Vectors>(v: V, key: &KernelKey, start: Start, packet: &mut [u8]) {
    match key.size {
        AesSize::Aes128 => kernel::seal::<V, KEYS_128>(v, &parts(key), start, packet),
        AesSize::Aes192 => kernel::seal::<V, KEYS_192>(v, &parts(key), start, packet),
        AesSize::Aes256 => kernel::seal::<V, KEYS_256>(v, &parts(key), start, packet),
    }
}

/// Verifies one packet, which has at least header and ICV, and decrypts it if authentic.
#[inline(always)]
fn open<V: Vectors>(v: V, key: &KernelKey, start: Start, packet: &mut [u8]) -> bool {
    match key.size {
        AesSize::Aes128 => kernel::open::<V, KEYS_128>(v, &parts(key), start, packet),
        AesSize::Aes192 => kernel::open::<V, KEYS_192>(v, &parts(key), start, packet),
        AesSize::Aes256 => kernel::open::<V, KEYS_256>(v, &parts(key), start, packet),
    }
}

#[inline(always)]
fn parts<const KEYS: usize>(key: &KernelKey) -> Schedule<'_, KEYS> {
    Schedule { powers: &key.powers, round_keys: key.keys() }
}
