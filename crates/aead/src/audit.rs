//! A provider around a provider that panics when a nonce is used twice under one key.
//!
//! AES-GCM loses confidentiality and authenticity when a (key, nonce) pair seals two packets (RFC
//! 4106 section 9), and no test of the packets alone would show it. So tests and the simulator run
//! over this one. A clone shares the ledger: give one clone to every worker, and to both gateways.
//! Keys are identified by their octets, so that two SAs that share key material by mistake are
//! caught as well.
//!
//! The ledger grows by every packet and is searched under a lock: not for production.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::algorithm::SALT_LEN;
use crate::keymat::Keymat;
use crate::port::Aead;
use crate::port::KeyError;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::port::nonce_of;
use crate::port::split;

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
    salt: [u8; SALT_LEN],
}

/// All keys seen, and all nonces sealed with, by index of the key.
#[derive(Default)]
struct Ledger {
    keys: Vec<Zeroizing<Vec<u8>>>,
    sealed: BTreeSet<(usize, [u8; 12])>,
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
    fn record<K>(&self, key: &AuditKey<K>, nonce: [u8; 12]) {
        assert!(Arc::ptr_eq(&self.ledger, &key.ledger), "the key belongs to another audit");
        let fresh = lock(&self.ledger).sealed.insert((key.key_index, nonce));
        // Outside the lock, so that a test that expects the panic can go on with the ledger.
        assert!(
            fresh,
            "nonce reuse: key {} has sealed with IV {:02x?}",
            key.key_index,
            &nonce[4..]
        );
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
        let (key, salt) = keymat.split().expect("the provider accepted the length");
        let mut ledger = lock(&self.ledger);
        let known = ledger.keys.iter().position(|known| known[..] == *key);
        let key_index = known.unwrap_or_else(|| {
            ledger.keys.push(Zeroizing::new(key.to_vec()));
            ledger.keys.len() - 1
        });
        Ok(AuditKey { inner, ledger: Arc::clone(&self.ledger), key_index, salt })
    }

    fn prefetch(&self, key: &Self::Key, len: usize) {
        self.inner.prefetch(&key.inner, len);
    }

    fn seal(&mut self, ops: &mut [Op<'_, Self::Key>]) {
        for op in &mut *ops {
            assert!(op.esp.len() >= MIN_ESP_LEN, "room for header and ICV");
            let (header, ..) = split(op.esp).expect("the length was checked");
            let nonce = nonce_of(op.key.salt, header);
            self.record(op.key, nonce);
        }
        self.inner.seal(&mut inner_ops(ops));
    }

    fn open(&mut self, ops: &mut [Op<'_, Self::Key>], statuses: &mut [Status]) {
        self.inner.open(&mut inner_ops(ops), statuses);
    }

    fn seal_general(
        &mut self,
        key: &Self::Key,
        nonce: &[u8; 12],
        aad: &[u8],
        text_and_icv: &mut [u8],
    ) {
        self.record(key, *nonce);
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
