//! Busy polling: the worker runs the driver's receive code itself, by calls of its own, instead of
//! waiting until an interrupt has the kernel run it (`SO_PREFER_BUSY_POLL`, Linux 5.11).
//!
//! The kernel polls by number: a socket knows the NAPI instance of its queue, or it does not, and
//! then its calls poll nothing. Which it is depends on kernel and driver: some kernels take the
//! number from the first packet, others, as 6.18, look it up when a zero-copy socket is bound and
//! leave sockets that copy without. So it is asked at the start and once more with the first
//! packet, and a socket that has none by then makes no calls: its worker just looks at the rings.
//!
//! In the driver, interrupts stay off between polls only with `napi_defer_hard_irqs` and
//! `gro_flush_timeout` of the interface. They are the operator's, as they concern all its queues
//! and outlive the process: here they are only looked at.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use crate::interface::Interface;
use crate::socket::Socket;
use crate::socket::get;
use crate::socket::set;

/// `SO_BUSY_POLL` in microseconds. It must not be zero, and is not waited for: calls of AF_XDP poll
/// once.
const MICROSECONDS: u32 = 20;

/// Whether a socket polls its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusyPoll {
    /// Not asked for: the worker sleeps when there is nothing to do.
    Off,
    /// Until the first packet tells.
    Unknown,
    /// Its calls run the driver.
    Driver,
    /// The driver runs by itself, and the worker looks at the rings without a pause.
    Rings,
}

impl BusyPoll {
    /// Sets the options: one call polls at most `budget` packets.
    ///
    /// # Errors
    /// When the kernel refuses one of them.
    pub(crate) fn set(fd: BorrowedFd<'_>, budget: u16) -> io::Result<BusyPoll> {
        set(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1_u32)?;
        set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &MICROSECONDS)?;
        set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &u32::from(budget))?;
        Ok(if has_napi(fd) { BusyPoll::Driver } else { BusyPoll::Unknown })
    }

    /// What it is once the socket has received a packet.
    #[cold]
    pub(crate) fn learn(fd: BorrowedFd<'_>) -> BusyPoll {
        if has_napi(fd) { BusyPoll::Driver } else { BusyPoll::Rings }
    }
}

/// Whether the kernel knows which NAPI instance the socket's calls are to poll.
fn has_napi(fd: BorrowedFd<'_>) -> bool {
    let mut id = 0_u32;
    get(fd, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID, &mut id).is_ok() && id > 0
}

/// Whether a socket has the options; the kernel does not tell its budget.
pub(crate) fn is_on(fd: BorrowedFd<'_>) -> bool {
    [libc::SO_PREFER_BUSY_POLL, libc::SO_BUSY_POLL].into_iter().all(|name| {
        let mut value = 0_u32;
        get(fd, libc::SOL_SOCKET, name, &mut value).is_ok() && value > 0
    })
}

/// Makes a socket of `interface` poll, or says why it cannot.
pub(crate) fn start(socket: &mut Socket, interface: &Interface, queue: usize, budget: u16) {
    let name = interface.name();
    match socket.poll_busily(budget) {
        Ok(BusyPoll::Driver) => warn_of_interrupts(interface),
        Ok(_) => tracing::warn!(
            interface = name,
            queue,
            "busy_poll: the kernel names no NAPI instance of this queue (some kernels do with the \
             first packet, some for zero-copy sockets only): until it does, the worker looks for \
             packets without a pause, but does not run the driver"
        ),
        Err(error) => tracing::warn!(
            interface = name,
            queue,
            %error,
            "busy_poll: the kernel refuses SO_PREFER_BUSY_POLL (Linux 5.11 has it): the worker \
             looks for packets without a pause, but does not run the driver"
        ),
    }
}

/// Says what leaves the driver its interrupts, if sysfs is that of this network namespace.
fn warn_of_interrupts(interface: &Interface) {
    let name = interface.name();
    let knob = |knob: &str| fs::read_to_string(format!("/sys/class/net/{name}/{knob}")).ok();
    let is_zero = |value: Option<String>| value.is_some_and(|value| value.trim() == "0");
    if knob("ifindex").is_none_or(|shown| shown.trim() != interface.ifindex().to_string()) {
        return;
    }
    if is_zero(knob("napi_defer_hard_irqs")) || is_zero(knob("gro_flush_timeout")) {
        tracing::warn!(
            interface = name,
            "busy_poll: interrupts go on beside it; run: \
             echo 2 > /sys/class/net/{name}/napi_defer_hard_irqs; \
             echo 200000 > /sys/class/net/{name}/gro_flush_timeout"
        );
    }
}
