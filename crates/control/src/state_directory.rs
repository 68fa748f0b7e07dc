//! The directory of what must outlive the process, locked so that no two processes believe to be
//! the only one. In one process each user of it may have it once, all under one lock.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use nix::fcntl::Flock;
use nix::fcntl::FlockArg;

use crate::sequence_store::StoreError;

/// Who keeps something in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Sequences,
    Epochs,
}

/// The directory, for one user.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    handle: File,
    /// What the lock goes by.
    key: PathBuf,
    user: User,
}

/// A lock of this process, and those who share it.
#[derive(Debug)]
struct Held {
    _lock: Flock<File>,
    users: Vec<User>,
}

/// The locks of this process: the kernel does not tell one user of a process from another.
static HELD: Mutex<BTreeMap<PathBuf, Held>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<PathBuf, Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path: path.clone(), source }
}

impl StateDirectory {
    /// Opens and locks a directory, making it if it does not exist.
    pub(crate) fn open(directory: &Path, user: User) -> Result<StateDirectory, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed("make", directory))?;
        let handle = File::open(directory).map_err(failed("open", directory))?;
        let key = directory.canonicalize().map_err(failed("open", directory))?;
        let mut held = held();
        if let Some(held) = held.get_mut(&key) {
            if held.users.contains(&user) {
                return Err(StoreError::Locked(directory.to_owned()));
            }
            held.users.push(user);
        } else {
            let lock = lock(directory)?;
            held.insert(key.clone(), Held { _lock: lock, users: vec![user] });
        }
        drop(held);
        let opened = StateDirectory { path: directory.to_owned(), handle, key, user };
        // The directory may be new: a file in it is on disk only when its own name is.
        let parent = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(failed("sync", parent))?;
        Ok(opened)
    }

    /// Where a file of the directory is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What a file says; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Makes a file say something else: all of it or nothing. When this returns, it is on disk.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.file(name);
        let temporary = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            self.handle.sync_all()
        };
        write().map_err(failed("write", &path))
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, StoreError> {
    let path = directory.join("lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StoreError::Locked(directory.to_owned())),
        Err((_, errno)) => Err(failed("lock", &path)(errno.into())),
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        let mut held = held();
        if let Some(lock) = held.get_mut(&self.key) {
            lock.users.retain(|&user| user != self.user);
            if lock.users.is_empty() {
                held.remove(&self.key);
            }
        }
    }
}
