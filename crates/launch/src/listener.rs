//! Seccomp's notifications: installing the filter, and taking and answering trapped calls.
//!
//! The kernel is trusted to write what its interface says (`seccomp_unotify(2)`); the process that
//! was trapped is not trusted in anything.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;

use crate::filter;

/// Puts the filter in force for this thread and all that it starts, for good.
///
/// Without the capability `CAP_SYS_ADMIN` the thread gives up, for good, what set-user-ID programs
/// would give it (`PR_SET_NO_NEW_PRIVS`), which the kernel asks for in that case.
pub(crate) fn install() -> nix::Result<OwnedFd> {
    let mut program = filter::program();
    let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let basic = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // With this one, a signal does not break off a call that was taken.
    let flags = basic | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match seccomp(flags, &program) {
        Err(Errno::EACCES) => set_no_new_privs().and_then(|()| seccomp(flags, &program)),
        other => other,
    }
    .or_else(|reason| match reason {
        // Linux before 5.19.
        Errno::EINVAL => seccomp(basic, &program),
        reason => Err(reason),
    })
}

fn seccomp(flags: libc::c_ulong, program: &libc::sock_fprog) -> nix::Result<OwnedFd> {
    // SAFETY: `program` points at as many instructions as it says, in a vector of the caller that
    // outlives the call, and the kernel copies them. Not safe: there is no safe interface to
    // seccomp among our dependencies.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(program),
        )
    };
    let fd = Errno::result(result)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows of it. Not safe: it
    // comes as a number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A trapped call. The thread that made it waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    id: u64,
    /// The thread, or 0 where its number cannot be seen from here.
    pub(crate) thread: i32,
    pub(crate) call: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

/// What a trapped call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel does it.
    Continue,
    /// It was done here, and returns 0.
    Done,
    /// It fails.
    Fails(Errno),
}

/// Where trapped calls come from.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Takes the descriptor that [`install`] made, and makes sure that the kernel can do all that
    /// is needed (Linux 5.14): `EINVAL` if not.
    pub(crate) fn new(fd: OwnedFd) -> nix::Result<Listener> {
        let listener = Listener(fd);
        let flags = flags(libc::SECCOMP_ADDFD_FLAG_SEND);
        let none = libc::seccomp_notif_addfd { id: 0, flags, srcfd: 0, newfd: 0, newfd_flags: 0 };
        match listener.add(none) {
            Err(Errno::ENOENT) | Ok(()) => Ok(listener),
            Err(reason) => Err(reason),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }

    /// Takes a trapped call that a poll has told of; none if its thread is gone.
    pub(crate) fn receive(&self) -> nix::Result<Option<Trap>> {
        let mut taken = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the request says that the kernel writes a `seccomp_notif`, there is room for
        // one, and it is all zeros, as the kernel asks for. Not safe: an ioctl.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, taken.as_mut_ptr())
        };
        match Errno::result(result) {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => return Ok(None),
            Err(reason) => return Err(reason),
        }
        // SAFETY: it was zeros before, which are a value of this type, numbers alone, and the
        // kernel has written it. Not safe: the compiler does not know that.
        let taken = unsafe { taken.assume_init() };
        Ok(Some(Trap {
            id: taken.id,
            thread: i32::try_from(taken.pid).unwrap_or(0),
            call: taken.data.nr.into(),
            arguments: taken.data.args,
        }))
    }

    /// Whether the thread still waits. If not, another thread may have its number by now.
    pub(crate) fn is_waiting(&self, trap: &Trap) -> bool {
        // SAFETY: the request says that the kernel reads a number of 64 bits, which is there. Not
        // safe: an ioctl.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                std::ptr::from_ref(&trap.id),
            )
        };
        result == 0
    }

    /// Answers a call. A thread that is gone by now needs none.
    pub(crate) fn answer(&self, trap: &Trap, answer: Answer) {
        let mut response = libc::seccomp_notif_resp { id: trap.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Continue => response.flags = flags(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
            Answer::Done => {}
            Answer::Fails(errno) => response.error = -(errno as i32),
        }
        // SAFETY: the request says that the kernel reads a `seccomp_notif_resp`, which is there.
        // Not safe: an ioctl. Its result is of no use: the only failure is a thread that is gone.
        let _ = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                std::ptr::from_mut(&mut response),
            )
        };
    }

    /// Answers a call with a descriptor of its own for `file`.
    ///
    /// # Errors
    /// The call has not been answered then.
    pub(crate) fn answer_with(
        &self,
        trap: &Trap,
        file: &OwnedFd,
        close_on_exec: bool,
    ) -> nix::Result<()> {
        let srcfd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
        let newfd_flags = if close_on_exec { flags(libc::O_CLOEXEC) } else { 0 };
        let flags = flags(libc::SECCOMP_ADDFD_FLAG_SEND);
        self.add(libc::seccomp_notif_addfd { id: trap.id, flags, srcfd, newfd: 0, newfd_flags })
    }

    fn add(&self, added: libc::seccomp_notif_addfd) -> nix::Result<()> {
        // SAFETY: the request says that the kernel reads a `seccomp_notif_addfd`, which is there.
        // Not safe: an ioctl.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                std::ptr::from_ref(&added),
            )
        };
        Errno::result(result).map(drop)
    }
}

/// Flags in 32 bits, which all are.
fn flags<T: TryInto<u32>>(flags: T) -> u32 {
    flags.try_into().unwrap_or_else(|_| unreachable!("flags of 32 bits"))
}
