//! Epochs on disk: every start of the process takes a number that no start before it had.
//!
//! Keys that IKE negotiated are many and live shortly; a mark on disk for each
//! ([`SequenceStore`](crate::SequenceStore)) would cost a write and a wait at every rekeying. But
//! they may outlive the process, for an IKE daemon that finds the engine started again installs
//! what it has. So the high 24 bits of their IVs are an *epoch*, taken from disk at every start: a
//! key that is installed again has other IVs than before, whatever its sequence numbers are.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use culvert_esp::outbound::EPOCHS;

use crate::sequence_store::StoreError;
use crate::state_directory::StateDirectory;
use crate::state_directory::User;

/// Name of the file with the last epoch that was taken.
const FILE: &str = "epoch";

/// The epochs of a state directory, or for the simulator of something in memory.
#[derive(Debug)]
pub struct Epochs {
    place: Place,
    current: u64,
}

#[derive(Debug)]
enum Place {
    Directory(StateDirectory),
    Memory(LastEpoch),
}

/// The last epoch of a gateway in memory: clones share it, so it outlives it as a file would.
#[derive(Clone, Debug, Default)]
pub struct LastEpoch(Arc<Mutex<u64>>);

impl Epochs {
    /// Opens and locks the directory, together with a
    /// [`SequenceStore`](crate::SequenceStore) of this process, and takes the next epoch.
    ///
    /// # Errors
    /// When the directory cannot be made, written or locked, what it says is no epoch, or all
    /// 2^24 - 1 epochs were taken.
    pub fn open(directory: &Path) -> Result<Epochs, StoreError> {
        let directory = StateDirectory::open(directory, User::Epochs)?;
        let current = match directory.read(FILE)? {
            None => 0,
            Some(text) => {
                let corrupt = || StoreError::CorruptEpoch(directory.file(FILE));
                let epoch = text.trim_end().parse().ok();
                epoch.filter(|&epoch| epoch < EPOCHS).ok_or_else(corrupt)?
            }
        };
        let mut epochs = Epochs { place: Place::Directory(directory), current };
        epochs.next()?;
        Ok(epochs)
    }

    /// Epochs that last as long as `last` does, for gateways in memory only.
    ///
    /// # Errors
    /// When all 2^24 - 1 epochs were taken.
    pub fn in_memory(last: LastEpoch) -> Result<Epochs, StoreError> {
        let current = *last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut epochs = Epochs { place: Place::Memory(last), current };
        epochs.next()?;
        Ok(epochs)
    }

    /// The epoch that was taken last: no other process has it, or ever had.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Takes the next epoch. When this returns it, it is on disk that it was taken.
    ///
    /// # Errors
    /// When it cannot be written, or all 2^24 - 1 epochs were taken; the current one stays.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not fail")]
    pub fn next(&mut self) -> Result<u64, StoreError> {
        let next = self.current + 1;
        if next >= EPOCHS {
            return Err(StoreError::EpochsUsedUp(self.path()));
        }
        match &self.place {
            Place::Directory(directory) => directory.write(FILE, &format!("{next}\n"))?,
            Place::Memory(last) => *last.0.lock().unwrap_or_else(PoisonError::into_inner) = next,
        }
        self.current = next;
        Ok(next)
    }

    fn path(&self) -> PathBuf {
        match &self.place {
            Place::Directory(directory) => directory.file(FILE),
            Place::Memory(_) => PathBuf::from(FILE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::SequenceStore;

    /// E21, G02: no start has the epoch of one before it, nor has any call; and each is on disk
    /// when it is handed out.
    #[test]
    fn no_epoch_comes_twice() {
        let directory = tempfile::tempdir().unwrap();
        let on_disk = || fs::read_to_string(directory.path().join(FILE)).unwrap();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let mut epochs = Epochs::open(directory.path()).unwrap();
            taken.push(epochs.current());
            assert_eq!(on_disk(), format!("{}\n", epochs.current()));
            taken.push(epochs.next().unwrap());
            assert_eq!(on_disk(), format!("{}\n", epochs.current()));
        }
        assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
    }

    /// E21: an epoch that cannot be written is not handed out.
    #[test]
    fn an_epoch_that_is_not_on_disk_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut epochs = Epochs::open(directory.path()).unwrap();
        let obstacle = directory.path().join(FILE).with_extension("new");
        fs::create_dir(&obstacle).unwrap();
        assert!(matches!(epochs.next(), Err(StoreError::Io { .. })));
        assert_eq!(epochs.current(), 1);
        drop(epochs);
        assert!(Epochs::open(directory.path()).is_err());
        fs::remove_dir(&obstacle).unwrap();
        assert_eq!(Epochs::open(directory.path()).unwrap().current(), 2);
    }

    /// One process has sequence numbers and epochs in one directory, each once; no other process
    /// has either while it has one of them.
    #[test]
    fn one_lock_for_both() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (store, epochs) = (SequenceStore::open(path).unwrap(), Epochs::open(path).unwrap());
        assert!(matches!(Epochs::open(path), Err(StoreError::Locked(_))));
        assert!(matches!(SequenceStore::open(path), Err(StoreError::Locked(_))));
        let is_locked = || {
            let file = fs::File::open(path.join("lock")).unwrap();
            nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_err()
        };
        drop(store);
        assert!(is_locked());
        let store = SequenceStore::open(path).unwrap();
        drop(epochs);
        assert!(is_locked());
        drop(store);
        assert!(!is_locked());
        assert_eq!(Epochs::open(path).unwrap().current(), 2);
    }

    /// The last epoch is taken; then there is no other, and the error says so.
    #[test]
    fn epochs_end() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), format!("{}\n", EPOCHS - 2)).unwrap();
        let mut epochs = Epochs::open(directory.path()).unwrap();
        assert_eq!(epochs.current(), 0xff_ffff);
        assert!(epochs.next().unwrap_err().to_string().contains("are used up"));
        drop(epochs);
        assert!(matches!(Epochs::open(directory.path()), Err(StoreError::EpochsUsedUp(_))));
    }

    /// A damaged file is an error, not a first start.
    #[test]
    fn damage_is_no_first_epoch() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "one", "-1", "16777216", "1 2"] {
            fs::write(directory.path().join(FILE), text).unwrap();
            let opened = Epochs::open(directory.path());
            assert!(matches!(opened, Err(StoreError::CorruptEpoch(_))), "{text}");
        }
    }
}
