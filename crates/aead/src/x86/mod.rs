//! Providers for x86-64 CPUs without AVX-512: one kernel, in vectors of one block or of two.
//!
//! [`AesNi`] runs on Intel's Sandy Bridge of 2011 and AMD's Bulldozer and on what came later,
//! [`VaesAvx2`] on AMD's Zen 3 and Intel's Alder Lake and later. A value of either is the proof
//! that the CPU has the instructions.
//!
//! - `kernel`: AES-GCM of one packet.
//! - `vector`: what the kernel asks of a CPU.
//! - `start`, `schedule`, `block`: nonce and AAD, the schedule of a key, and single blocks; the
//!   AVX-512 kernel uses them too, and all three have the same context of an SA.
//!
//! The kernel is for AES-GCM with IV and a 16-octet ICV. Keys of all other algorithms are those of
//! the portable provider, which works on their packets, in the same batch.

#![expect(unsafe_code, reason = "only run-time detection knows that the CPU has the instructions")]

pub(crate) mod block;
pub(crate) mod kernel;
pub(crate) mod schedule;
pub(crate) mod start;
mod vector;

use zeroize::Zeroizing;

use crate::algorithm::AesSize;
use crate::algorithm::Algorithm;
use crate::algorithm::Method;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::AhOp;
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
use crate::provider::ProviderKey;
use crate::rustcrypto::RustCrypto;
use crate::vaes::VaesKey;
use crate::x86::kernel::Schedule;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;
use crate::x86::start::Start;
use crate::x86::vector::Vectors;
use crate::x86::vector::Work;
use crate::x86::vector::Xmm;
use crate::x86::vector::Ymm;

/// AES-GCM with the vectors `V`.
#[derive(Clone, Copy, Debug)]
pub struct Kernels<V>(V);

/// AES-GCM with AES-NI, PCLMULQDQ and AVX.
pub type AesNi = Kernels<Xmm>;

/// AES-GCM with AVX2, VAES and VPCLMULQDQ.
pub type VaesAvx2 = Kernels<Ymm>;

impl<V: Vectors> Kernels<V> {
    /// The provider, if the CPU has the instructions and the operating system saves the registers.
    #[must_use]
    pub fn detect() -> Option<Kernels<V>> {
        V::detect().map(Kernels)
    }

    /// The instruction sets the provider needs that this machine has not.
    #[must_use]
    pub fn missing() -> Vec<&'static str> {
        V::missing()
    }
}

impl<V: Vectors + 'static> Aead for Kernels<V> {
    type Key = ProviderKey;

    fn name(&self) -> &'static str {
        V::NAME
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<ProviderKey, KeyError> {
        let Method::Gcm(size, ICV_LEN) = algorithm.method() else {
            return ProviderKey::portable(algorithm, keymat);
        };
        let parts = keymat.parts(algorithm)?;
        // SAFETY: both kinds of vectors say that the CPU has AES-NI, PCLMULQDQ and AVX. Why not
        // safe: that is known at run time only.
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
        self.0.run(Seal(ops));
    }

    fn open(&mut self, ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
        assert!(statuses.len() >= ops.len(), "a status for each packet");
        self.0.run(Open(ops, statuses));
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
        let key = match key {
            ProviderKey::Vaes(key) => key,
            other => return RustCrypto.seal_general(other.held(), nonce, aad, text_and_icv),
        };
        assert!(text_and_icv.len() >= ICV_LEN, "room for the ICV");
        General { key, nonce, aad, text_and_icv, seals: true }.run(self.0);
    }

    fn open_general(
        &mut self,
        key: &ProviderKey,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        let key = match key {
            ProviderKey::Vaes(key) => key,
            other => return RustCrypto.open_general(other.held(), nonce, aad, text_and_icv),
        };
        text_and_icv.len() >= ICV_LEN
            && General { key, nonce, aad, text_and_icv, seals: false }.run(self.0)
    }
}

/// [`Aead::seal`].
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
            let ProviderKey::Vaes(key) = op.key else {
                op.key.seal_portable(op.esn_high, op.esp);
                continue;
            };
            assert!(op.esp.len() >= MIN_ESP_LEN, "room for header and ICV");
            let header = op.esp.first_chunk().expect("the length was checked");
            seal(vectors, key, Start::of(key.salt, header, op.esn_high), op.esp);
        }
    }
}

/// [`Aead::open`].
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
            let authentic = match (op.key, op.esp.first_chunk()) {
                (ProviderKey::Vaes(key), Some(header)) if op.esp.len() >= MIN_ESP_LEN => {
                    open(vectors, key, Start::of(key.salt, header, op.esn_high), op.esp)
                }
                (ProviderKey::Vaes(_), _) => false,
                (other, _) => other.open_portable(op.esn_high, op.esp),
            };
            *status = match authentic {
                true => Status::Authentic(Verified::new()),
                false => Status::Forged,
            };
        }
    }
}

/// [`Aead::seal_general`] and [`Aead::open_general`].
struct General<'a> {
    key: &'a VaesKey,
    nonce: &'a [u8; 12],
    aad: &'a [u8],
    text_and_icv: &'a mut [u8],
    seals: bool,
}

impl General<'_> {
    /// In a copy that has a header in front of the text, as the kernels want it.
    fn run<V: Vectors>(self, vectors: V) -> bool {
        let General { key, nonce, aad, text_and_icv, seals } = self;
        let mut packet = Zeroizing::new([&[0; TEXT_AT], &*text_and_icv].concat());
        let done = vectors.run(One { key, nonce, aad, packet: &mut packet, seals });
        text_and_icv.copy_from_slice(&packet[TEXT_AT..]);
        done
    }
}

/// A packet with any nonce and AAD.
struct One<'a> {
    key: &'a VaesKey,
    nonce: &'a [u8; 12],
    aad: &'a [u8],
    packet: &'a mut [u8],
    seals: bool,
}

impl<V: Vectors> Work<V> for One<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self, vectors: V) -> bool {
        let One { key, nonce, aad, packet, seals } = self;
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
fn seal<V: Vectors>(v: V, key: &VaesKey, start: Start, packet: &mut [u8]) {
    match key.size {
        AesSize::Aes128 => kernel::seal::<V, KEYS_128>(v, &parts(key), start, packet),
        AesSize::Aes192 => kernel::seal::<V, KEYS_192>(v, &parts(key), start, packet),
        AesSize::Aes256 => kernel::seal::<V, KEYS_256>(v, &parts(key), start, packet),
    }
}

/// Verifies one packet, which has at least header and ICV, and decrypts it if authentic.
#[inline(always)]
fn open<V: Vectors>(v: V, key: &VaesKey, start: Start, packet: &mut [u8]) -> bool {
    match key.size {
        AesSize::Aes128 => kernel::open::<V, KEYS_128>(v, &parts(key), start, packet),
        AesSize::Aes192 => kernel::open::<V, KEYS_192>(v, &parts(key), start, packet),
        AesSize::Aes256 => kernel::open::<V, KEYS_256>(v, &parts(key), start, packet),
    }
}

#[inline(always)]
fn parts<const KEYS: usize>(key: &VaesKey) -> Schedule<'_, KEYS> {
    Schedule { powers: &key.powers, round_keys: key.keys() }
}
