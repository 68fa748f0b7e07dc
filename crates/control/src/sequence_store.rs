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
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use culvert_aead::Keymat;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use sha2::Digest;
use sha2::Sha256;

/// Separates this use of the hash from all others.
const DOMAIN: &[u8] = b"culvert sequence store v1";

/// Identity of a key in the store: a hash, which says nothing about the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of key and salt.
    #[must_use]
    pub fn of(keymat: &Keymat) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(keymat.as_bytes());
        Fingerprint(hex::encode(&hash.finalize()[..16]))
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
}

/// The store: an open, locked directory, or for the simulator something in memory.
#[derive(Debug)]
pub struct SequenceStore(Place);

#[derive(Debug)]
enum Place {
    Directory(Directory),
    Memory(Marks),
}

#[derive(Debug)]
struct Directory {
    directory: PathBuf,
    handle: File,
    _lock: Flock<File>,
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
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { action, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make", directory))?;
        let lock_path = directory.join("lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(StoreError::Locked(directory.to_owned()));
            }
            Err((_, errno)) => return Err(failed("lock", &lock_path)(errno.into())),
        };
        let handle = File::open(directory).map_err(failed("open", directory))?;
        // The directory may be new: a mark in it is on disk only when its own name is.
        let parent = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(failed("sync", parent))?;
        let directory = directory.to_owned();
        Ok(SequenceStore(Place::Directory(Directory { directory, handle, _lock: lock })))
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
            Place::Directory(directory) => directory.high_water(key),
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
            Place::Directory(directory) => directory.record(key, number),
            Place::Memory(marks) => {
                marks.lock().insert(key.clone(), number);
                Ok(())
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn path(&self, key: &Fingerprint) -> PathBuf {
        match &self.0 {
            Place::Directory(directory) => directory.path(key),
            Place::Memory(_) => panic!("there is no file"),
        }
    }
}

impl Directory {
    fn high_water(&self, key: &Fingerprint) -> Result<u64, StoreError> {
        let path = self.path(key);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => {
                return Err(StoreError::Io { action: "read", path, source });
            }
        };
        text.trim_end().parse().map_err(|_| StoreError::Corrupt(path))
    }

    fn record(&self, key: &Fingerprint, number: u64) -> Result<(), StoreError> {
        let path = self.path(key);
        let temporary = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            writeln!(file, "{number}")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            self.handle.sync_all()
        };
        write().map_err(|source| StoreError::Io { action: "write", path: path.clone(), source })
    }

    fn path(&self, key: &Fingerprint) -> PathBuf {
        self.directory.join(format!("{}.sequence", key.0))
    }
}

#[cfg(test)]
mod tests {
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
