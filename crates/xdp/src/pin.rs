//! Pins: XDP programs that stay on their interfaces when the process ends, however it ends.
//!
//! A file in a directory of the BPF file system holds the link of one interface, so that its
//! program goes on without the process: with no socket it drops what is for the engine. The next
//! gateway finds the pin and replaces the program in one step ([`Steer::take_over`]).
//!
//! The name of a pin says all that the next process needs: `4026531840-3-n5` is the network
//! namespace (the inode of `/proc/self/ns/net`), the index of the interface in it, the mode
//! (`n`ative or `g`eneric), and in hexadecimal which offloads were turned off. A pin whose
//! interface is gone holds a link without one, and is removed.
//!
//! The directory belongs to one gateway at a time, which locks it.
//!
//! [`Steer::take_over`]: crate::program::Steer::take_over

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use aya::maps::Map;
use aya::maps::MapData;
use aya::maps::MapType;
use aya::maps::PerCpuArray;
use aya::programs::links::FdLink;
use aya::programs::links::PinnedLink;
use aya::programs::loaded_programs;
use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::fcntl::FlockArg;
use nix::net::if_::if_indextoname;
use nix::sys::statfs::BPF_FS_MAGIC;
use nix::sys::statfs::statfs;

use culvert_steer::Counter;
use culvert_steer::counter::SLOTS;

use crate::error::Error;
use crate::interface::Interface;
use crate::program::Mode;

/// Directory of pins, unless configured.
pub const PIN_DIRECTORY: &str = "/sys/fs/bpf/culvert";

/// A process that was killed lets go of the lock a little later.
const LOCK_RETRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// The command of bpf(2) that opens a pinned object.
const BPF_OBJ_GET: libc::c_int = 7;

/// The pins of a gateway, and the right to change them.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
    namespace: u64,
    _lock: Flock<File>,
}

/// An interface that was released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its name.
    pub interface: String,
    /// Frames for the engine that were dropped there for want of a socket, since the gateway that
    /// ran last began.
    pub dropped: u64,
}

/// What the name of a pin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The network namespace of the interface.
    pub(crate) namespace: u64,
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// Where the program runs.
    pub(crate) mode: Mode,
    /// Offloads that were turned off, see [`Interface::turned_off`].
    pub(crate) offloads: u8,
}

impl fmt::Display for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Native => 'n',
            Mode::Generic => 'g',
        };
        write!(formatter, "{}-{}-{mode}{:x}", self.namespace, self.ifindex, self.offloads)
    }
}

impl FromStr for Pin {
    type Err = ();

    fn from_str(name: &str) -> Result<Pin, ()> {
        let parse = || {
            let mut parts = name.splitn(3, '-');
            let namespace = parts.next()?.parse().ok()?;
            let ifindex = parts.next()?.parse().ok()?;
            let last = parts.next()?;
            let (mode, offloads) = match (last.strip_prefix('n'), last.strip_prefix('g')) {
                (Some(offloads), _) => (Mode::Native, offloads),
                (_, Some(offloads)) => (Mode::Generic, offloads),
                _ => return None,
            };
            let offloads = u8::from_str_radix(offloads, 16).ok()?;
            Some(Pin { namespace, ifindex, mode, offloads })
        };
        // Only names as they are written here.
        parse().filter(|pin| pin.to_string() == name).ok_or(())
    }
}

impl Pins {
    /// Opens the directory, made if it is missing, and locks it.
    ///
    /// # Errors
    /// [`Error::NotPinnable`] when it is on another file system, [`Error::PinsInUse`] when another
    /// process has it, or [`Error::Pin`].
    pub(crate) fn open(directory: &Path) -> Result<Pins, Error> {
        let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let kind = statfs(there).map_err(|errno| failed("look at", there, errno.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NotPinnable { directory: directory.to_owned() });
        }
        let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        make.map_err(|source| failed("make", directory, source))?;
        let lock = lock(directory)?;
        Ok(Pins { directory: directory.to_owned(), namespace: this_namespace()?, _lock: lock })
    }

    /// The pin of an interface of this network namespace.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub(crate) fn find(&self, ifindex: u32) -> Result<Option<(Pin, PathBuf)>, Error> {
        let all = self.all()?;
        Ok(all
            .into_iter()
            .find(|(pin, _)| (pin.namespace, pin.ifindex) == (self.namespace, ifindex)))
    }

    /// Where a pin of an interface of this network namespace belongs.
    pub(crate) fn path(&self, ifindex: u32, mode: Mode, offloads: u8) -> PathBuf {
        let pin = Pin { namespace: self.namespace, ifindex, mode, offloads };
        self.directory.join(pin.to_string())
    }

    /// Gives a pin another name.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        fs::rename(from, to).map_err(|source| failed("rename", from, source))
    }

    /// Removes the pins whose interface is gone, and warns of those of interfaces of this network
    /// namespace that are not `wanted`: they stay closed.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub(crate) fn sweep(&self, wanted: &[u32]) -> Result<(), Error> {
        for (pin, path) in self.all()? {
            if self.remove_if_stale(&pin, &path)? {
                continue;
            }
            if pin.namespace == self.namespace && !wanted.contains(&pin.ifindex) {
                let name = if_indextoname(pin.ifindex).unwrap_or_default();
                tracing::warn!(
                    interface = %name.to_string_lossy(),
                    "closed by an earlier gateway and not this one's: `culvert release` opens it",
                );
            }
        }
        Ok(())
    }

    /// True when the interface of the pin was gone, and now the pin is, too.
    fn remove_if_stale(&self, pin: &Pin, path: &Path) -> Result<bool, Error> {
        if link_ifindex(path)? == Some(pin.ifindex) {
            return Ok(false);
        }
        fs::remove_file(path).map_err(|source| failed("remove", path, source))?;
        tracing::info!(path = %path.display(), "removed the pin of an interface that is gone");
        Ok(true)
    }

    fn all(&self) -> Result<Vec<(Pin, PathBuf)>, Error> {
        let unreadable = |source| failed("read", &self.directory, source);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if let Some(Ok(pin)) = entry.file_name().to_str().map(Pin::from_str) {
                all.push((pin, entry.path()));
            }
        }
        Ok(all)
    }
}

/// Detaches the programs that a gateway which no longer runs has left on interfaces of the calling
/// thread's network namespace, and sets their offloads back as it found them. Returns the
/// interfaces; none when there is no such directory.
///
/// # Errors
/// [`Error::PinsInUse`] when the gateway runs, or as for opening one.
pub fn release(directory: &Path) -> Result<Vec<Released>, Error> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let pins = Pins::open(directory)?;
    let mut released = Vec::new();
    let mut others = 0;
    for (pin, path) in pins.all()? {
        if pins.remove_if_stale(&pin, &path)? {
            continue;
        }
        if pin.namespace != pins.namespace {
            others += 1;
            continue;
        }
        let name = if_indextoname(pin.ifindex).unwrap_or_default().to_string_lossy().into_owned();
        let dropped = no_socket(&path).unwrap_or_default();
        fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?;
        let mut interface = Interface::inspect(&name)?;
        interface.was_turned_off(pin.offloads);
        interface.restore();
        released.push(Released { interface: name, dropped });
    }
    if others == 0 {
        // Whatever else lies there is not ours.
        let _ = fs::remove_dir(directory);
    } else {
        tracing::warn!(others, "pins of other network namespaces stay");
    }
    Ok(released)
}

fn lock(directory: &Path) -> Result<Flock<File>, Error> {
    let mut file = File::open(directory).map_err(|source| failed("open", directory, source))?;
    for attempt in 0.. {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if attempt < LOCK_RETRIES => file = back,
            Err((_, Errno::EWOULDBLOCK)) => break,
            Err((_, errno)) => return Err(failed("lock", directory, errno.into())),
        }
        thread::sleep(LOCK_PAUSE);
    }
    Err(Error::PinsInUse { directory: directory.to_owned() })
}

/// Frames that the program of a pinned link dropped for want of a socket since it was loaded;
/// `None` when that cannot be found out, as with a program of another version.
pub(crate) fn no_socket(path: &Path) -> Option<u64> {
    let link = FdLink::from(PinnedLink::from_pin(path).ok()?);
    let id = link.info().ok()?.program_id();
    let program = loaded_programs().flatten().find(|program| program.id() == id)?;
    let maps = program.map_ids().ok()??;
    let counters = maps.into_iter().find_map(|id| {
        let map = MapData::from_id(id).ok()?;
        let is_array = map.info().ok()?.map_type().ok()? == MapType::PerCpuArray;
        is_array.then_some(map)
    })?;
    let rows = PerCpuArray::<MapData, [u64; SLOTS]>::try_from(Map::PerCpuArray(counters)).ok()?;
    let row = |queue| rows.get(&queue, 0).ok();
    let dropped = (0..rows.len())
        .filter_map(row)
        .map(|row| row.iter().map(|cpu| cpu[Counter::NoSocket.slot()]).fold(0, u64::wrapping_add));
    Some(dropped.fold(0, u64::wrapping_add))
}

/// The inode that identifies the calling thread's network namespace while it exists.
fn this_namespace() -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let path = Path::new("/proc/thread-self/ns/net");
    let found = fs::metadata(path).map_err(|source| failed("look at", path, source))?;
    Ok(found.ino())
}

/// The interface that a pinned link is attached to; `None` when it is gone, or no XDP link.
fn link_ifindex(path: &Path) -> Result<Option<u32>, Error> {
    let link = open_pinned(path).map_err(|source| failed("open", path, source))?;
    let info = format!("/proc/thread-self/fdinfo/{}", link.as_raw_fd());
    let text = fs::read_to_string(&info).map_err(|source| failed("look at", path, source))?;
    Ok(ifindex_of(&text))
}

/// What `/proc/self/fdinfo` says of an XDP link: 0 when its interface is gone.
fn ifindex_of(fdinfo: &str) -> Option<u32> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("ifindex:"));
    line?.trim().parse().ok().filter(|index| *index != 0)
}

/// Opens what is pinned at `path`.
fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that this command reads.
    #[repr(C)]
    struct Attributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let (address, length) = (&raw const attributes, size_of::<Attributes>());
    // SAFETY: `attributes` lives until the call returns, has the length that is told, and the path
    // in it ends with a zero. Why not safe: no crate offers this call and the descriptor.
    let opened = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, address, length) };
    let descriptor = Errno::result(opened)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel just opened this descriptor for us and nobody else has it. Why not safe:
    // it came as a number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Pin { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name says what it was made of, and names that were not made here say nothing.
    #[test]
    fn names_of_pins() {
        for (mode, offloads, name) in
            [(Mode::Native, 0, "4026531840-3-n0"), (Mode::Generic, 15, "4026531840-3-gf")]
        {
            let pin = Pin { namespace: 4_026_531_840, ifindex: 3, mode, offloads };
            assert_eq!(pin.to_string(), name);
            assert_eq!(name.parse(), Ok(pin));
        }
        for other in
            ["", "1-2", "1-2-x0", "1-2-n", "1-2-n100", "01-2-n0", "1-2-nF", "a-2-n0", "1-2-n0-"]
        {
            assert_eq!(other.parse::<Pin>(), Err(()), "{other}");
        }
    }

    /// The kernel says 0 of an interface that is gone, and nothing of other objects.
    #[test]
    fn interfaces_of_links() {
        let info = |index| format!("pos:\t0\nlink_type:\txdp\nprog_id:\t9\nifindex:\t{index}\n");
        assert_eq!(ifindex_of(&info(7)), Some(7));
        assert_eq!(ifindex_of(&info(0)), None);
        assert_eq!(ifindex_of("pos:\t0\nmap_id:\t7\n"), None);
    }

    /// A directory of another file system is refused and left as it was.
    #[test]
    fn only_the_bpf_file_system_will_do() {
        let directory = std::env::temp_dir().join(format!("culvert-pins-{}", std::process::id()));
        let error = Pins::open(&directory).unwrap_err();
        assert!(matches!(error, Error::NotPinnable { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
        assert!(!directory.exists());
    }
}
