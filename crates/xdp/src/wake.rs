//! Waking a worker that sleeps in `PacketIo::wait`, without losing a wake-up and without a system
//! call while it is awake.
//!
//! # The protocol
//!
//! Whoever has work for a worker first publishes it (a mailbox, a hand-off ring), then calls
//! [`Waker::wake`]. A worker that is about to sleep first says so, then looks for work once more.
//!
//! ```text
//! waker                                   sleeper
//! W1  publish work                        S1  sleeping = true
//!     fence(SeqCst)                           fence(SeqCst)
//! W2  if sleeping { write eventfd }       S2  if no work { poll(sockets, eventfd) }
//! ```
//!
//! The two fences are totally ordered. If the waker's comes first, S2 sees the work of W1. If the
//! sleeper's comes first, W2 sees `sleeping` and writes the eventfd, which `poll` reports at once
//! even when it starts later. So at least one of them notices; with weaker orderings a processor
//! may delay S1 (or W1) past the look at the other side, both look too early, and the worker sleeps
//! beside its work until the timeout.
//!
//! The waker takes `sleeping` down (`swap`), so that of many wakers only one makes the system call.
//! A wake-up that arrives when the sleeper has already found work stays in the eventfd and makes
//! its next sleep return at once: a wake-up may come for nothing, never too late.

use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::ppoll;
use nix::sys::eventfd::EfdFlags;
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use culvert_frame::MAX_PORTS;

/// Wakes one worker; clones may be used from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

/// The sleeping side, owned by the worker's I/O.
#[derive(Debug)]
pub(crate) struct Sleeper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: EventFd,
    sleeping: AtomicBool,
}

/// What a sleep was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// None: there was work after all.
    Not,
    /// It ended by a packet, a signal or the timeout.
    Till,
    /// Somebody ended it.
    Woken,
}

impl Waker {
    /// Makes the worker's `wait` return, now or the next time it is about to sleep. Work published
    /// before the call is seen by the worker; a worker that is awake costs one fence and one load.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed)
            && self.shared.sleeping.swap(false, Ordering::Relaxed)
        {
            // It fails only when the counter would overflow, and then it is readable already.
            let _ = self.shared.event.write(1);
        }
    }
}

impl Sleeper {
    pub(crate) fn new() -> io::Result<Sleeper> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags)?;
        Ok(Sleeper { shared: Arc::new(Shared { event, sleeping: AtomicBool::new(false) }) })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker { shared: Arc::clone(&self.shared) }
    }

    /// Blocks until one of `sockets` is readable, the worker is woken, or `timeout` passed; returns
    /// at once when `ready` says so. A signal ends the sleep too.
    pub(crate) fn sleep<'fd>(
        &self,
        sockets: impl Iterator<Item = BorrowedFd<'fd>>,
        timeout: Duration,
        ready: &dyn Fn() -> bool,
    ) -> Slept {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = if ready() { Slept::Not } else { self.block(sockets, timeout) };
        self.shared.sleeping.store(false, Ordering::Relaxed);
        slept
    }

    fn block<'fd>(
        &self,
        sockets: impl Iterator<Item = BorrowedFd<'fd>>,
        timeout: Duration,
    ) -> Slept {
        let mut polled: ArrayVec<PollFd<'_>, { MAX_PORTS + 1 }> = ArrayVec::new();
        polled.push(PollFd::new(self.shared.event.as_fd(), PollFlags::POLLIN));
        polled.extend(sockets.take(MAX_PORTS).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // An error (a signal) ends the sleep like a wake-up for nothing.
        let _ = ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None);
        if !polled[0].any().unwrap_or(true) {
            return Slept::Till;
        }
        let _ = self.shared.event.read();
        Slept::Woken
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::iter;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A sleeping worker is woken long before its timeout.
    #[test]
    fn wakes_a_sleeper() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                waker.wake();
            });
            let slept = sleeper.sleep(iter::empty(), LONG, &|| false);
            assert_eq!(slept, Slept::Woken);
        });
        assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    }

    /// Work seen by the last look prevents the sleep.
    #[test]
    fn does_not_sleep_when_ready() {
        let sleeper = Sleeper::new().unwrap();
        let start = Instant::now();
        assert_eq!(sleeper.sleep(iter::empty(), LONG, &|| true), Slept::Not);
        assert!(start.elapsed() < LONG / 2);
    }

    /// A wake-up that arrives between the last look and the poll ends the poll at once.
    #[test]
    fn a_wake_before_the_poll_is_kept() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        let start = Instant::now();
        let look = || {
            waker.wake();
            false
        };
        sleeper.sleep(iter::empty(), LONG, &look);
        assert!(start.elapsed() < LONG / 2);
    }

    /// Without a reason the timeout ends the sleep, and a used-up wake-up does not count twice.
    #[test]
    fn times_out() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        sleeper.sleep(iter::empty(), LONG, &|| {
            waker.wake();
            false
        });
        let start = Instant::now();
        let slept = sleeper.sleep(iter::empty(), Duration::from_millis(30), &|| false);
        assert_eq!(slept, Slept::Till);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    /// An awake worker costs the waker no system call: its eventfd stays empty.
    #[test]
    fn waking_an_awake_worker_writes_nothing() {
        let sleeper = Sleeper::new().unwrap();
        sleeper.waker().wake();
        assert!(sleeper.shared.event.read().is_err());
    }

    /// Two threads publish work for each other and sleep in between, with jitter that makes the
    /// last look of one meet the wake-up of the other: not one wake-up is lost in many rounds (a
    /// lost one would cost a whole timeout).
    #[test]
    fn loses_no_wake_up() {
        const ROUNDS: u64 = 100_000;
        let (ping, pong) = (AtomicU64::new(0), AtomicU64::new(0));
        let (left, right) = (Sleeper::new().unwrap(), Sleeper::new().unwrap());
        let (wake_left, wake_right) = (left.waker(), right.waker());
        let start = Instant::now();
        let wait_for = |sleeper: &Sleeper, counter: &AtomicU64, value: u64| {
            while counter.load(Ordering::Relaxed) < value {
                let ready = || counter.load(Ordering::Relaxed) >= value;
                sleeper.sleep(iter::empty(), LONG, &ready);
            }
        };
        let jitter = |round: u64| (0..round % 64).for_each(|_| std::hint::spin_loop());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for(&right, &ping, round);
                    pong.store(round, Ordering::Relaxed);
                    wake_left.wake();
                }
            });
            for round in 1..=ROUNDS {
                jitter(round);
                ping.store(round, Ordering::Relaxed);
                wake_right.wake();
                wait_for(&left, &pong, round);
            }
        });
        assert!(start.elapsed() < LONG, "a wake-up was lost: {:?}", start.elapsed());
    }

    /// Publishing and falling asleep at the same moment, again and again: the sleeper sees the
    /// work, or the waker sees the sleeper. Without the fences both look too early now and then.
    #[test]
    fn one_side_always_notices() {
        const ROUNDS: u64 = 100_000;
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        let (work, started, finished) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let mut missed = 0;
        let reach = |counter: &AtomicU64, value: u64| {
            let mut spins = 0_u64;
            while counter.load(Ordering::Acquire) < value {
                spins += 1;
                if spins.is_multiple_of(1000) {
                    std::thread::yield_now();
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    reach(&started, round);
                    work.store(round, Ordering::Relaxed);
                    waker.wake();
                    finished.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                let seen = Cell::new(false);
                started.store(round, Ordering::Release);
                (0..round % 32).for_each(|_| std::hint::spin_loop());
                sleeper.sleep(iter::empty(), LONG, &|| {
                    seen.set(work.load(Ordering::Relaxed) == round);
                    // Falling asleep takes until the waker has had its look.
                    reach(&finished, round);
                    true
                });
                let woken = sleeper.shared.event.read().is_ok();
                missed += u64::from(!seen.get() && !woken);
            }
        });
        assert_eq!(missed, 0, "rounds in which both looked too early, of {ROUNDS}");
    }
}
