//! A provider around a provider that panics when a nonce or an IV is used twice under one key.
//!
//! AES-GCM, GMAC and ChaCha20-Poly1305 lose all they promise when a (key, nonce) pair seals two
//! packets (RFC 4106 section 9), and no test of the packets alone would show it; CBC shows equal
//! starts of texts when an IV comes twice. So tests and the simulator run over this one. HMAC alone
//! has no nonce, and nothing is written down for it. A clone shares the ledger: give one clone to
//! every worker, and to both gateways. Keys are identified by their octets, so that two SAs that
//! share key material by mistake are caught as well.
//!
//! The ledger grows by every packet and is searched under a lock: not for production.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use zeroize::Zeroizing;

use crate::ah::ICV_FIELD_AT;
use crate::algorithm::Algorithm;
use crate::algorithm::Method;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::keymat::Parts;
use crate::port::Aead;
use crate::port::AhOp;
use crate::port::IV_AT;
use crate::port::KeyError;
use crate::port::Op;
use crate::port::SEQ_AT;
use crate::port::Status;

/// `P`, with every nonce it seals with written down.
#[derive(Clone, Default)]
pub struct Audit<P> {
    inner: P,
    ledger: Arc<Mutex<Ledger>>,
}

/// A key of `P`, and which entry of the ledger it writes to.
pub struct AuditKey<K> {
    inner: K,
    ledger: Arc<Mutex<Ledger>>,
    key_index: usize,
    algorithm: Algorithm,
    salt: [u8; SALT_LEN],
}

/// What must not come twice under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nonce {
    /// Salt and counter.
    Counter([u8; 12]),
    /// The IV of CBC.
    Iv([u8; 16]),
}

impl Nonce {
    fn of_counter(salt: [u8; SALT_LEN], counter: &[u8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..SALT_LEN].copy_from_slice(&salt);
        nonce[SALT_LEN..].copy_from_slice(counter);
        Nonce::Counter(nonce)
    }
}

/// All keys seen, and all nonces sealed with, by index of the key.
#[derive(Default)]
struct Ledger {
    keys: Vec<Zeroizing<Vec<u8>>>,
    sealed: BTreeSet<(usize, Nonce)>,
}

impl<P> Audit<P> {
    /// Audits `inner` in a new, empty ledger.
    pub fn new(inner: P) -> Audit<P> {
        Audit { inner, ledger: Arc::default() }
    }

    /// Number of distinct (key, nonce) pairs sealed with, over all clones.
    #[must_use]
    pub fn sealed(&self) -> usize {
        lock(&self.ledger).sealed.len()
    }

    /// Writes down that `key` seals with `nonce`.
    fn record<K>(&self, key: &AuditKey<K>, nonce: Nonce) {
        assert!(Arc::ptr_eq(&self.ledger, &key.ledger), "the key belongs to another audit");
        let fresh = lock(&self.ledger).sealed.insert((key.key_index, nonce));
        // Outside the lock, so that a test that expects the panic can go on with the ledger.
        assert!(fresh, "nonce reuse: key {} has sealed with {nonce:02x?}", key.key_index);
    }
}

impl<K> Op<'_, AuditKey<K>> {
    /// The nonce of a packet that is to be sealed; `None` where there is none, or where the
    /// provider makes it.
    fn nonce(&self) -> Option<Nonce> {
        let algorithm = self.key.algorithm;
        assert!(self.esp.len() >= algorithm.min_esp_len(), "room for header and ICV");
        let (high, low) = (self.esn_high.unwrap_or(0).to_be_bytes(), &self.esp[SEQ_AT..IV_AT]);
        match algorithm.method() {
            Method::Gcm(..) | Method::ChaCha | Method::Gmac(_) => {
                Some(Nonce::of_counter(self.key.salt, &self.esp[IV_AT..algorithm.text_at()]))
            }
            Method::GcmImplicit(_) | Method::ChaChaImplicit => {
                Some(Nonce::of_counter(self.key.salt, &[&high, low].concat()))
            }
            Method::Cbc(..) | Method::Hmac(_) => None,
        }
    }

    /// The IV of a sealed packet, of CBC.
    fn iv(&self) -> Option<Nonce> {
        match self.key.algorithm.method() {
            Method::Cbc(..) => self.esp[IV_AT..].first_chunk().copied().map(Nonce::Iv),
            _ => None,
        }
    }
}

/// A panic never leaves the ledger half written, so a poisoned lock is as good as a clean one.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same packets under the inner provider's keys.
fn inner_ops<'a, K>(ops: &'a mut [Op<'_, AuditKey<K>>]) -> Vec<Op<'a, K>> {
    ops.iter_mut()
        .map(|op| Op { key: &op.key.inner, esn_high: op.esn_high, esp: &mut *op.esp })
        .collect()
}

impl<P: fmt::Debug> fmt::Debug for Audit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealed = self.sealed();
        f.debug_struct("Audit").field("inner", &self.inner).field("sealed", &sealed).finish()
    }
}

impl<K> fmt::Debug for AuditKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(..)")
    }
}

impl<P: Aead> Aead for Audit<P> {
    type Key = AuditKey<P::Key>;

    fn name(&self) -> &'static str {
        "audit"
    }

    fn key(&self, algorithm: Algorithm, keymat: &Keymat) -> Result<Self::Key, KeyError> {
        let inner = self.inner.key(algorithm, keymat)?;
        let Parts { key, salt, .. } = keymat.parts(algorithm)?;
        let mut ledger = lock(&self.ledger);
        let known = ledger.keys.iter().position(|known| known[..] == *key);
        let key_index = known.unwrap_or_else(|| {
            ledger.keys.push(Zeroizing::new(key.to_vec()));
            ledger.keys.len() - 1
        });
        Ok(AuditKey { inner, ledger: Arc::clone(&self.ledger), key_index, algorithm, salt })
    }

    fn prefetch(&self, key: &Self::Key, len: usize) {
        self.inner.prefetch(&key.inner, len);
    }

    fn seal(&mut self, ops: &mut [Op<'_, Self::Key>]) {
        for op in &*ops {
            op.nonce().into_iter().for_each(|nonce| self.record(op.key, nonce));
        }
        self.inner.seal(&mut inner_ops(ops));
        for op in &*ops {
            op.iv().into_iter().for_each(|iv| self.record(op.key, iv));
        }
    }

    fn open(&mut self, ops: &mut [Op<'_, Self::Key>], statuses: &mut [Status]) {
        self.inner.open(&mut inner_ops(ops), statuses);
    }

    fn seal_ah(&mut self, op: AhOp<'_, Self::Key>) {
        let AhOp { key, esn_high, header, ah } = op;
        self.inner.seal_ah(AhOp { key: &key.inner, esn_high, header, ah: &mut *ah });
        if key.algorithm.uses_counter_iv() {
            let iv = &ah[ICV_FIELD_AT..][..key.algorithm.iv_len()];
            self.record(key, Nonce::of_counter(key.salt, iv));
        }
    }

    fn open_ah(&mut self, op: AhOp<'_, Self::Key>) -> Status {
        let AhOp { key, esn_high, header, ah } = op;
        self.inner.open_ah(AhOp { key: &key.inner, esn_high, header, ah })
    }

    fn seal_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        if key.algorithm.uses_counter_iv() {
            self.record(key, Nonce::Counter(*nonce));
        }
        self.inner.seal_general(&key.inner, nonce, aad, text_and_icv);
    }

    fn open_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) -> bool {
        self.inner.open_general(&key.inner, nonce, aad, text_and_icv)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    use super::*;
    use crate::RustCrypto;

    const ALGORITHM: Algorithm = Algorithm::Aes128Gcm16;

    type Key = AuditKey<<RustCrypto as Aead>::Key>;

    /// 36 octets, header and ICV included, with `iv`.
    fn packet(iv: u64) -> [u8; 36] {
        let mut esp = [0; 36];
        esp[8..16].copy_from_slice(&iv.to_be_bytes());
        esp
    }

    fn key(audit: &Audit<RustCrypto>, key: u8, salt: u8) -> Key {
        let keymat = [[key; 16].as_slice(), &[salt; 4]].concat();
        audit.key(ALGORITHM, &Keymat::new(keymat)).unwrap()
    }

    fn seal(audit: &mut Audit<RustCrypto>, key: &Key, iv: u64) {
        audit.seal(&mut [Op { key, esn_high: None, esp: &mut packet(iv) }]);
    }

    fn panics(f: impl FnOnce()) -> bool {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(()) => false,
            Err(panic) => {
                let message = panic.downcast_ref::<String>().expect("a formatted message");
                assert!(message.starts_with("nonce reuse"), "{message}");
                true
            }
        }
    }

    /// Fresh nonces pass and are counted once each; a second use panics. // E21
    #[test]
    fn reuse_panics() {
        let mut audit = Audit::new(RustCrypto);
        let key = key(&audit, 1, 1);
        for iv in 0..100 {
            seal(&mut audit, &key, iv);
        }
        assert_eq!(audit.sealed(), 100);
        for iv in [0, 50, 99] {
            assert!(panics(|| seal(&mut audit, &key, iv)));
        }
        assert_eq!(audit.sealed(), 100);
        seal(&mut audit, &key, 100);
    }

    /// Two packets of one batch with the same IV are a reuse.
    #[test]
    fn reuse_inside_a_batch_panics() {
        let mut audit = Audit::new(RustCrypto);
        let key = key(&audit, 1, 1);
        let mut packets = [packet(1), packet(2), packet(1)];
        let mut ops: Vec<_> =
            packets.iter_mut().map(|esp| Op { key: &key, esn_high: None, esp }).collect();
        assert!(panics(|| audit.seal(&mut ops)));
    }

    /// Clones share the ledger, and a key is its octets: two gateways that were given the same key
    /// material are caught. // E21
    #[test]
    fn reuse_across_clones_and_key_objects_panics() {
        let mut here = Audit::new(RustCrypto);
        let mut there = here.clone();
        let (ours, theirs) = (key(&here, 1, 1), key(&there, 1, 1));
        seal(&mut here, &ours, 7);
        assert!(panics(|| seal(&mut there, &theirs, 7)));
        assert_eq!((here.sealed(), there.sealed()), (1, 1));
    }

    /// Another key, or another salt, makes another nonce or another key of it; a new audit starts
    /// empty.
    #[test]
    fn other_keys_and_salts_are_no_reuse() {
        let mut audit = Audit::new(RustCrypto);
        for (octet, salt) in [(1, 1), (2, 1), (1, 2)] {
            let key = key(&audit, octet, salt);
            seal(&mut audit, &key, 7);
        }
        assert_eq!(audit.sealed(), 3);
        assert_eq!(Audit::new(RustCrypto).sealed(), 0);
    }

    /// The general entry writes to the same ledger.
    #[test]
    fn the_general_entry_is_audited() {
        let mut audit = Audit::new(RustCrypto);
        let key = key(&audit, 1, 1);
        seal(&mut audit, &key, 7);
        let mut nonce = [1; 12];
        nonce[4..].copy_from_slice(&7_u64.to_be_bytes());
        assert!(panics(|| audit.seal_general(&key, &nonce, b"", &mut [0; 16])));
    }

    /// Whether the same number panics when it is sealed again, with and without high half, and
    /// neither another number nor another high half does.
    fn second_seals_panic(algorithm: Algorithm) -> bool {
        let mut audit = Audit::new(RustCrypto);
        let keymat = Keymat::new(vec![3; algorithm.keymat_len()]);
        let key = audit.key(algorithm, &keymat).unwrap();
        let mut seal = |seq: u8, esn_high: Option<u32>| {
            let mut packet = [0; 80];
            packet[7] = seq;
            // The IV of those that have a counter there.
            packet[8..12].copy_from_slice(&esn_high.unwrap_or(0).to_be_bytes());
            packet[15] = seq;
            let end = algorithm.text_at() + 16 + algorithm.icv_len();
            audit.seal(&mut [Op { key: &key, esn_high, esp: &mut packet[..end] }]);
        };
        seal(1, None);
        seal(2, None);
        seal(1, Some(1));
        panics(|| seal(2, None)) && panics(|| seal(1, Some(1)))
    }

    /// E21: whatever has a nonce or an IV is audited, also where it is implied or the provider's;
    /// HMAC alone may seal a packet twice.
    #[test]
    fn every_algorithm_with_a_nonce_is_audited() {
        for algorithm in Algorithm::ALL {
            let has_nonce = !matches!(algorithm.method(), Method::Hmac(_));
            assert_eq!(second_seals_panic(algorithm), has_nonce, "{algorithm}");
        }
    }

    /// E21: GMAC in AH is audited, with the extended sequence number; HMAC is not.
    #[test]
    fn ah_is_audited() {
        for algorithm in Algorithm::ALL_AH {
            let mut audit = Audit::new(RustCrypto);
            let keymat = Keymat::new(vec![3; algorithm.keymat_len()]);
            let key = audit.key(algorithm, &keymat).unwrap();
            let mut seal = |seq: u8, esn_high: Option<u32>| {
                let len = 12 + algorithm.ah_icv_field_len();
                let mut ah = vec![0; len];
                ah[1] = u8::try_from(len / 4 - 2).unwrap();
                ah[11] = seq;
                audit.seal_ah(AhOp { key: &key, esn_high, header: &[0; 20], ah: &mut ah });
            };
            seal(1, None);
            seal(2, None);
            seal(1, Some(1));
            let has_nonce = algorithm.uses_counter_iv();
            assert_eq!(panics(|| seal(1, Some(1))), has_nonce, "{algorithm}");
            assert_eq!(audit.sealed(), if has_nonce { 3 } else { 0 });
        }
    }

    /// E21, G02: IVs that a provider makes differ by their base, for the same number; whoever opens
    /// packets knows nothing of bases; and without another base it is the same IV again.
    #[test]
    fn bases_keep_ivs_apart() {
        let has_made_iv = |algorithm: &Algorithm| matches!(algorithm.method(), Method::Cbc(..));
        for algorithm in Algorithm::ALL.into_iter().filter(has_made_iv) {
            let mut audit = Audit::new(RustCrypto);
            let keymat = Keymat::new(vec![3; algorithm.keymat_len()]);
            let plain = audit.key(algorithm, &keymat).unwrap();
            let mut packet = vec![0; algorithm.text_at() + 16 + algorithm.icv_len()];
            let mut seal = |base: u64| {
                let key = audit.key(algorithm, &keymat.clone().with_iv_base(base)).unwrap();
                packet[7] = 9;
                audit.seal(&mut [Op { key: &key, esn_high: Some(1), esp: &mut packet }]);
                let mut statuses = [Status::Pending];
                let esp = &mut packet[..];
                audit.open(&mut [Op { key: &plain, esn_high: Some(1), esp }], &mut statuses);
                matches!(statuses, [Status::Authentic(_)])
            };
            assert!([0, 1 << 40, 2 << 40, 3 << 40].into_iter().all(&mut seal), "{algorithm}");
            assert!(panics(|| _ = seal(2 << 40)), "{algorithm}");
        }
    }

    /// E21, G02: the IV of GMAC in AH is the base and the extended number.
    #[test]
    fn bases_stand_in_the_ivs_of_ah() {
        let algorithm = Algorithm::AhAes128Gmac;
        let mut audit = Audit::new(RustCrypto);
        let keymat = Keymat::new(vec![3; algorithm.keymat_len()]).with_iv_base(0xabcdef << 40);
        let key = audit.key(algorithm, &keymat).unwrap();
        let mut ah = vec![0; 12 + algorithm.ah_icv_field_len()];
        ah[1] = u8::try_from(ah.len() / 4 - 2).unwrap();
        ah[8..12].copy_from_slice(&[1, 2, 3, 4]);
        audit.seal_ah(AhOp { key: &key, esn_high: Some(0x55), header: &[0; 20], ah: &mut ah });
        assert_eq!(ah[12..20], [0xab, 0xcd, 0xef, 0x55, 1, 2, 3, 4]);
    }

    /// E21: one AES key for GCM and GMAC is one key.
    #[test]
    fn reuse_across_algorithms_panics() {
        let mut audit = Audit::new(RustCrypto);
        let keymat = Keymat::new(vec![3; 20]);
        let gcm = audit.key(Algorithm::Aes128Gcm8, &keymat).unwrap();
        let gmac = audit.key(Algorithm::Aes128Gmac, &keymat).unwrap();
        seal(&mut audit, &gcm, 7);
        assert!(panics(|| seal(&mut audit, &gmac, 7)));
    }

    /// Opening the same packet again is no reuse.
    #[test]
    fn opening_is_not_audited() {
        let mut audit = Audit::new(RustCrypto);
        let key = key(&audit, 1, 1);
        let mut sealed = packet(7);
        audit.seal(&mut [Op { key: &key, esn_high: None, esp: &mut sealed }]);
        for _ in 0..2 {
            let mut statuses = [Status::Pending];
            let mut esp = sealed;
            audit.open(&mut [Op { key: &key, esn_high: None, esp: &mut esp }], &mut statuses);
            assert!(matches!(statuses, [Status::Authentic(_)]));
        }
        assert_eq!(audit.sealed(), 1);
    }

    /// A key must have been made by the audit that uses it, or reuse would go unseen.
    #[test]
    #[should_panic(expected = "the key belongs to another audit")]
    fn keys_of_another_audit_are_refused() {
        let key = key(&Audit::new(RustCrypto), 1, 1);
        seal(&mut Audit::new(RustCrypto), &key, 7);
    }

    /// No key octet in any Debug.
    #[test]
    fn debug_is_redacted() {
        let audit = Audit::new(RustCrypto);
        assert_eq!(format!("{:?}", key(&audit, 0xab, 1)), "AuditKey(..)");
        assert_eq!(format!("{audit:?}"), "Audit { inner: RustCrypto, sealed: 0 }");
    }
}
