//! Outbound sequence numbers on disk, written ahead.
//!
//! A key that outlives the process (a key in a file) must never see a sequence number twice, for
//! the IV is derived from it (RFC 4106 section 2). So numbers are leased: the store writes a
//! *ceiling*, waits until it is on disk, and only then may numbers up to it be used. After a crash
//! the next process starts above the last ceiling; after an orderly stop above the last number.
//!
//! There is one file for each key, named after a hash of it, so that an SA that is renamed or gets
//! another SPI does not start again. The directory is locked: two processes with the same state
//! would both believe to be the only one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use culvert_aead::Keymat;
use sha2::Digest;
use sha2::Sha256;

use crate::state_directory::StateDirectory;
use crate::state_directory::User;

/// Separates this use of the hash from all others.
const DOMAIN: &[u8] = b"culvert sequence store v1";

/// Identity of a key in the store: a hash, which says nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of key and salt.
    #[must_use]
    pub fn of(keymat: &Keymat) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(keymat.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        Fingerprint(digest.first_chunk().copied().expect("it is longer"))
    }
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be read or written.
    #[error("state directory: cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "state directory {0} is in use by another process: two senders with one key would reuse \
         nonces"
    )]
    Locked(PathBuf),
    /// A file does not contain a sequence number.
    #[error("state file {0}: expected one decimal sequence number")]
    Corrupt(PathBuf),
    /// The file of epochs does not contain one.
    #[error("state file {0}: expected one decimal epoch, less than 2^24")]
    CorruptEpoch(PathBuf),
    /// Every epoch was taken: no key that was negotiated before may be used any more.
    #[error(
        "state file {0}: all epochs are used up, 2^24 - 1 of them: expected a new state directory, \
         and new keys for all SAs"
    )]
    EpochsUsedUp(PathBuf),
}

/// The store: an open, locked directory, or for the simulator something in memory.
#[derive(Debug)]
pub struct SequenceStore(Place);

#[derive(Debug)]
enum Place {
    Directory(StateDirectory),
    Memory(Marks),
}

/// The marks of a gateway in memory: clones share them, so they outlive it as files would.
#[derive(Clone, Debug, Default)]
pub struct Marks(Arc<Mutex<BTreeMap<Fingerprint, u64>>>);

impl Marks {
    /// A mark is written whole or not at all.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SequenceStore {
    /// Opens and locks the store, making the directory if it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made, written or locked.
    pub fn open(directory: &Path) -> Result<SequenceStore, StoreError> {
        let directory = StateDirectory::open(directory, User::Sequences)?;
        Ok(SequenceStore(Place::Directory(directory)))
    }

    /// A store whose marks last as long as `marks` do: for gateways in memory only, as nothing is
    /// on disk.
    #[must_use]
    pub fn in_memory(marks: Marks) -> SequenceStore {
        SequenceStore(Place::Memory(marks))
    }

    /// The highest number that may have been used with this key; 0 when none is known.
    ///
    /// # Errors
    /// When the file exists and cannot be read, or is no number: starting at 0 would be wrong.
    pub fn high_water(&self, key: &Fingerprint) -> Result<u64, StoreError> {
        match &self.0 {
            Place::Directory(directory) => {
                let name = name(key);
                let Some(text) = directory.read(&name)? else {
                    return Ok(0);
                };
                text.trim_end().parse().map_err(|_| StoreError::Corrupt(directory.file(&name)))
            }
            Place::Memory(marks) => Ok(marks.lock().get(key).copied().unwrap_or(0)),
        }
    }

    /// Records that numbers up to `number` may be used from now on, or were used. When this
    /// returns, it is on disk.
    ///
    /// # Errors
    /// When it cannot be written; no number above the old mark may be used then.
    pub fn record(&self, key: &Fingerprint, number: u64) -> Result<(), StoreError> {
        match &self.0 {
            Place::Directory(directory) => directory.write(&name(key), &format!("{number}\n")),
            Place::Memory(marks) => {
                marks.lock().insert(*key, number);
                Ok(())
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn path(&self, key: &Fingerprint) -> PathBuf {
        match &self.0 {
            Place::Directory(directory) => directory.file(&name(key)),
            Place::Memory(_) => panic!("there is no file"),
        }
    }
}

/// The file with the mark of a key.
fn name(key: &Fingerprint) -> String {
    format!("{}.sequence", hex::encode(key.0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn keymat(octet: u8) -> Keymat {
        Keymat::new(vec![octet; 20])
    }

    /// A mark survives, keys are told apart, and the key itself is nowhere in the directory.
    #[test]
    fn marks_survive() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (Fingerprint::of(&keymat(0xab)), Fingerprint::of(&keymat(2)));
        {
            let store = SequenceStore::open(directory.path()).unwrap();
            assert_eq!(store.high_water(&one).unwrap(), 0);
            store.record(&one, 17).unwrap();
            store.record(&one, u64::MAX).unwrap();
        }
        let store = SequenceStore::open(directory.path()).unwrap();
        assert_eq!(store.high_water(&one).unwrap(), u64::MAX);
        assert_eq!(store.high_water(&two).unwrap(), 0);
        for entry in fs::read_dir(directory.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("abababab"), "{name}");
        }
    }

    /// A second process is refused while the first lives.
    #[test]
    fn directory_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let first = SequenceStore::open(directory.path()).unwrap();
        let second = SequenceStore::open(directory.path());
        assert!(matches!(second, Err(StoreError::Locked(_))), "{second:?}");
        drop(first);
        SequenceStore::open(directory.path()).unwrap();
    }

    /// A damaged file is an error, not a zero.
    #[test]
    fn damage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let key = Fingerprint::of(&keymat(1));
        let store = SequenceStore::open(directory.path()).unwrap();
        fs::write(store.path(&key), "twelve").unwrap();
        assert!(matches!(store.high_water(&key), Err(StoreError::Corrupt(_))));
        fs::write(store.path(&key), "").unwrap();
        assert!(matches!(store.high_water(&key), Err(StoreError::Corrupt(_))));
    }

    /// A directory that cannot be made is refused with its name.
    #[test]
    fn unusable_directory_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = SequenceStore::open(&file.path().join("state")).unwrap_err();
        assert!(error.to_string().contains("cannot make"), "{error}");
    }
}
