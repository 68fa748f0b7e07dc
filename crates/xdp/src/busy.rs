//! Busy polling: the worker runs the driver's receive code itself, by calls of its own, instead of
//! waiting until an interrupt has the kernel run it (`SO_PREFER_BUSY_POLL`, Linux 5.11).
//!
//! The kernel polls by number: a socket knows the NAPI instance of its queue, or it does not, and
//! then its calls poll nothing. It is told of it, up to Linux 6.12, by the first packet, and later
//! when it is bound, if the driver has told the kernel which instance serves the queue; veth has
//! not. So the kernel is asked at the start and once more with the first packet, and a socket that
//! has none by then makes no calls: its worker just looks at the rings.
//!
//! In the driver, interrupts stay off between polls only with `napi_defer_hard_irqs` and
//! `gro_flush_timeout` of the interface. They are the operator's, as they concern all its queues
//! and outlive the process: here they are only looked at.

use std::fs;
use std::os::fd::BorrowedFd;

use crate::interface::Interface;
use crate::socket::OpenError;
use crate::socket::get;
use crate::socket::set;
use crate::socket::step;

/// `SO_BUSY_POLL` in microseconds. It must not be zero, and is not waited for: calls of AF_XDP do
/// not go on polling.
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
    /// Sets the options: one call polls `budget` packets at most, and once more as many.
    fn set(fd: BorrowedFd<'_>, budget: u16) -> Result<BusyPoll, OpenError> {
        let options = [
            ("SO_PREFER_BUSY_POLL", libc::SO_PREFER_BUSY_POLL, 1),
            ("SO_BUSY_POLL", libc::SO_BUSY_POLL, MICROSECONDS),
            ("SO_BUSY_POLL_BUDGET", libc::SO_BUSY_POLL_BUDGET, u32::from(budget)),
        ];
        for (name, option, value) in options {
            set(fd, libc::SOL_SOCKET, option, &value).map_err(step(name))?;
        }
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

/// Has the socket of a queue of `interface` poll its driver from now on, or says why it cannot:
/// then the worker looks at the rings without a pause all the same.
pub(crate) fn start(
    fd: BorrowedFd<'_>,
    interface: &Interface,
    queue: usize,
    budget: u16,
) -> BusyPoll {
    let name = interface.name();
    let busy_poll = BusyPoll::set(fd, budget).unwrap_or_else(|OpenError { step, source }| {
        tracing::warn!(
            interface = name,
            queue,
            error = %source,
            "busy_poll: the kernel refuses {step}: the worker looks for packets without a pause, \
             but does not run the driver"
        );
        BusyPoll::Rings
    });
    if busy_poll == BusyPoll::Unknown {
        tracing::warn!(
            interface = name,
            queue,
            "busy_poll: the kernel names no NAPI instance of this queue yet (the driver does not \
             tell it, or the kernel learns it with the first packet): without one, the worker \
             looks for packets without a pause, but does not run the driver"
        );
    }
    if busy_poll != BusyPoll::Rings && queue == 0 {
        warn_of_interrupts(interface);
    }
    busy_poll
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
            "busy_poll: interrupts go on beside calls that run the driver; run: \
             echo 2 > /sys/class/net/{name}/napi_defer_hard_irqs; \
             echo 200000 > /sys/class/net/{name}/gro_flush_timeout"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    /// The kernel has what was set; it does not tell the budget. A socket that has received nothing
    /// knows no NAPI instance.
    #[test]
    fn sets_the_options() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: busy polling needs root");
            return;
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(BusyPoll::set(socket.as_fd(), 48).unwrap(), BusyPoll::Unknown);
        for (option, expected) in
            [(libc::SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, MICROSECONDS)]
        {
            let mut value = 0_u32;
            get(socket.as_fd(), libc::SOL_SOCKET, option, &mut value).unwrap();
            assert_eq!(value, expected);
        }
        assert_eq!(BusyPoll::learn(socket.as_fd()), BusyPoll::Rings);
    }

    /// Which option was refused is said.
    #[test]
    fn a_refusal_names_the_option() {
        let no_socket = File::open("/dev/null").unwrap();
        let error = BusyPoll::set(no_socket.as_fd(), 64).unwrap_err();
        assert_eq!(error.step, "SO_PREFER_BUSY_POLL");
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
