//! Network namespaces that exist for the life of a value.
//!
//! A [`Namespaces`] removes on drop what it made: first the processes started in its namespaces
//! (SIGTERM, a bounded wait, SIGKILL), then the namespaces, and the kernel removes their
//! interfaces. A drop also happens when an error or a panic unwinds the stack, and Ctrl-C becomes
//! an error: [`Cancel::on_signals`] sets a flag, and whatever is under way asks it and returns. So
//! the rule for a `main` is to hold the `Namespaces` in a function which returns `Result`, and to
//! call `std::process::exit` only after that function.
//!
//! A process which is killed cannot clean up. Names carry its process id, `cv12345-0-gw-a`, so that
//! [`Namespaces::sweep`] finds and removes what dead processes left behind.
//!
//! A namespace is entered by a thread, never by the process: [`Ns::run`] starts a thread for its
//! closure. Child processes enter theirs by `ip netns exec`, which also shows them its `/sys`.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::ChildStderr;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nix::unistd::geteuid;

/// Where `ip netns` keeps names.
const NETNS_DIRECTORY: &str = "/run/netns";

/// First letters of every name.
const PREFIX: &str = "cv";

/// How long processes may take to stop before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// IPv6 addresses usable at once, and no traffic nobody asked for.
const QUICK_IPV6: [(&str, &str); 3] =
    [("accept_dad", "0"), ("router_solicitations", "0"), ("accept_ra", "0")];

/// Distinguishes the values of one process.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// The wish to stop, shared by everything that takes time.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that only [`Cancel::set`] sets.
    #[must_use]
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// One that SIGINT, SIGTERM and SIGHUP set. They do nothing else from then on.
    ///
    /// # Errors
    /// When the kernel refuses a signal handler.
    pub fn on_signals() -> Result<Cancel> {
        let cancel = Cancel::new();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signal_hook::flag::register(signal as i32, Arc::clone(&cancel.0))
                .with_context(|| format!("cannot handle {signal}"))?;
        }
        Ok(cancel)
    }

    /// Asks everything to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error when it is time to stop.
    ///
    /// # Errors
    /// "interrupted".
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps, and returns early with an error when it is time to stop.
    ///
    /// # Errors
    /// "interrupted".
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        self.wait(duration, || false).map(|_| ())
    }

    /// Waits until `done` says true, or `timeout` passes; returns what it said last.
    ///
    /// # Errors
    /// "interrupted".
    pub fn wait(&self, timeout: Duration, mut done: impl FnMut() -> bool) -> Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            if done() {
                return Ok(true);
            }
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::sleep(left.min(POLL));
        }
    }
}

/// Network namespaces and the processes in them, removed on drop.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    cancel: Cancel,
    made: Vec<Ns>,
    processes: Vec<Process>,
}

impl Namespaces {
    /// No namespace yet. Removes what dead processes left behind.
    ///
    /// # Errors
    /// Without root.
    pub fn new(cancel: &Cancel) -> Result<Namespaces> {
        if !geteuid().is_root() {
            bail!("network namespaces need root");
        }
        Namespaces::sweep()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{serial}-", std::process::id());
        Ok(Namespaces { prefix, cancel: cancel.clone(), made: Vec::new(), processes: Vec::new() })
    }

    /// Makes a namespace with its loopback up. `name` is short, like "gw-a"; the kernel's name gets
    /// a unique prefix.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn add(&mut self, name: &str) -> Result<Ns> {
        self.cancel.check()?;
        let ns = Ns { name: format!("{}{name}", self.prefix).into(), cancel: self.cancel.clone() };
        ip(&format!("netns add {}", ns.name))?;
        // Remembered before anything else can fail.
        self.made.push(ns.clone());
        ns.run(quick_ipv6)??;
        // Any group may send ICMP echo requests without a raw socket, as `traffic` does.
        ns.sysctl("net.ipv4.ping_group_range", "0 2147483647")?;
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Starts a process made by [`Ns::command`]. Its handle can be cloned; it is stopped when this
    /// value is dropped, at the latest.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, mut command: Command) -> Result<Process> {
        self.cancel.check()?;
        let words = words_of(&command);
        // A group of its own: Ctrl-C in a terminal reaches us, and we stop it in our order.
        let child =
            command.process_group(0).spawn().with_context(|| format!("cannot start: {words}"))?;
        let process = Process { id: child.id(), child: Arc::new(Mutex::new(child)), words };
        self.processes.push(process.clone());
        Ok(process)
    }

    /// Removes namespaces whose maker is dead, and ends the processes in them. Returns how many
    /// namespaces there were.
    ///
    /// # Errors
    /// When the names of namespaces cannot be read.
    pub fn sweep() -> Result<usize> {
        if !Path::new(NETNS_DIRECTORY).exists() {
            return Ok(0);
        }
        let mut swept = 0;
        for entry in std::fs::read_dir(NETNS_DIRECTORY).context(NETNS_DIRECTORY)? {
            let name = entry.context(NETNS_DIRECTORY)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if maker(name).is_some_and(is_dead) {
                remove(name);
                swept += 1;
            }
        }
        Ok(swept)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for process in &self.processes {
            process.signal(Signal::SIGTERM);
        }
        let end = Instant::now() + STOP_GRACE;
        for process in &self.processes {
            let left = end.saturating_duration_since(Instant::now());
            if let Err(error) = process.stop(left) {
                eprintln!("culvert: {error:#}");
            }
        }
        for ns in self.made.iter().rev() {
            remove(&ns.name);
        }
    }
}

/// A network namespace. A handle: cloning it is cheap, dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Ns {
    name: Arc<str>,
    cancel: Cancel,
}

/// Counters of an interface, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames received and not delivered.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Frames not sent.
    pub tx_dropped: u64,
}

impl Ns {
    /// The kernel's name, for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The flag that ends what is under way.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Runs a closure on a new thread inside the namespace and returns its value. Sockets it opens
    /// stay in the namespace wherever they go.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When the closure does.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(&self.name, closure)
    }

    /// Runs `ip` inside the namespace, its arguments separated by spaces, and returns what it said.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Sets a kernel parameter of the namespace, named as `sysctl` does.
    ///
    /// # Errors
    /// When the kernel does not know it, or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))?
            .with_context(|| format!("{}: cannot set {key} to {value}", self.name))
    }

    /// A command to run inside the namespace, for [`Namespaces::spawn`], or to wait for.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Counters of an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn counters(&self, interface: &str) -> Result<InterfaceCounters> {
        // "/proc/net" would be that of the whole process.
        let table = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        parse_counters(&table, interface)
            .with_context(|| format!("{}: no interface {interface}", self.name))
    }
}

/// A process inside a namespace. Clones are of the same process.
#[derive(Clone, Debug)]
pub struct Process {
    id: u32,
    child: Arc<Mutex<Child>>,
    words: String,
}

impl Process {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The pipe from its standard output, once, if it was made with one.
    #[must_use]
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        self.lock().stdout.take()
    }

    /// The pipe from its standard error, once, if it was made with one.
    #[must_use]
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.lock().stderr.take()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.lock();
        // Only while it is ours: after a successful wait the number may be somebody else's.
        if matches!(child.try_wait(), Ok(None))
            && let Ok(id) = i32::try_from(self.id)
        {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// Waits until it ends, at most `timeout`; `None` when it still runs.
    ///
    /// # Errors
    /// When the kernel does not know it.
    pub fn wait(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + timeout;
        loop {
            let status = self.lock().try_wait().with_context(|| self.words.clone())?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Stops it: SIGTERM, at most `grace`, then SIGKILL.
    ///
    /// # Errors
    /// When it does not end even then.
    pub fn stop(&self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if let Some(status) = self.wait(grace)? {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL);
        self.wait(STOP_GRACE)?.with_context(|| format!("does not end: {}", self.words))
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a closure on a new thread inside the named network namespace and returns its value.
///
/// # Errors
/// When the namespace cannot be entered.
///
/// # Panics
/// When the closure does.
pub fn run_in<T: Send>(ns: &str, closure: impl FnOnce() -> T + Send) -> Result<T> {
    let path = format!("{NETNS_DIRECTORY}/{ns}");
    let file = File::open(&path).with_context(|| path.clone())?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || -> Result<T> {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter {path}"))?;
            Ok(closure())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `ip` in the namespace of this process, its arguments separated by spaces.
///
/// # Errors
/// When it fails, with its words.
pub fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        // Ctrl-C in a terminal must not hit the commands that clean up.
        .process_group(0)
        .output()
        .context("cannot run ip (package iproute2)")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("ip {arguments}: {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sets what new interfaces of the calling thread's namespace start with.
fn quick_ipv6() -> Result<()> {
    for scope in ["all", "default"] {
        for (key, value) in QUICK_IPV6 {
            let path = format!("/proc/sys/net/ipv6/conf/{scope}/{key}");
            std::fs::write(&path, value).with_context(|| path.clone())?;
        }
    }
    Ok(())
}

/// Ends the processes of a namespace and removes it. Errors are said, not returned: cleaning up
/// goes on.
fn remove(name: &str) {
    for id in processes_in(name) {
        let _ = kill(id, Signal::SIGKILL);
    }
    let removed = ip(&format!("netns del {name}"));
    // Two who sweep at once may both try.
    if let Err(error) = removed
        && Path::new(NETNS_DIRECTORY).join(name).exists()
    {
        eprintln!("culvert: {error:#}");
    }
}

/// The processes, but for this one, whose network namespace this is.
fn processes_in(name: &str) -> Vec<Pid> {
    ip(&format!("netns pids {name}"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .map(Pid::from_raw)
        .filter(|id| *id != Pid::this())
        .collect()
}

/// The process id in the name of a namespace, when it is one of ours.
fn maker(name: &str) -> Option<i32> {
    let (id, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (serial, _) = rest.split_once('-')?;
    serial.parse::<u32>().ok()?;
    id.parse().ok().filter(|id| *id > 0)
}

/// Whether no process has this id.
pub(super) fn is_dead(id: i32) -> bool {
    kill(Pid::from_raw(id), None) == Err(Errno::ESRCH)
}

/// A command as one would type it.
fn words_of(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The line of one interface in `/proc/net/dev`.
fn parse_counters(table: &str, interface: &str) -> Option<InterfaceCounters> {
    let line = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    Some(InterfaceCounters {
        rx_packets: *numbers.get(1)?,
        rx_dropped: *numbers.get(3)?,
        tx_packets: *numbers.get(9)?,
        tx_dropped: *numbers.get(11)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Namespaces for a test, or `None`, said loudly, where that is not possible.
    pub(crate) fn laboratory() -> Option<Namespaces> {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: this test needs root");
            return None;
        }
        Some(Namespaces::new(&Cancel::new()).expect("namespaces"))
    }

    fn exists(name: &str) -> bool {
        Path::new(NETNS_DIRECTORY).join(name).exists()
    }

    /// Only names of our form have a maker.
    #[test]
    fn maker_of_names() {
        assert_eq!(maker("cv12345-0-gw-a"), Some(12345));
        assert_eq!(maker("cv12345-12-x"), Some(12345));
        for other in ["cv12345", "cv-0-a", "cv12-a-b", "vpn12-0-a", "cvx-0-a", "cv0-0-a", ""] {
            assert_eq!(maker(other), None, "{other}");
        }
    }

    /// Counters of the right interface and the right columns.
    #[test]
    fn counters_are_parsed() {
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
                     lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                     wan0: 100 20 0 3 0 0 0 0 400 50 0 6 0 0 0 0\n";
        let counters = parse_counters(table, "wan0").expect("wan0");
        assert_eq!((counters.rx_packets, counters.rx_dropped), (20, 3));
        assert_eq!((counters.tx_packets, counters.tx_dropped), (50, 6));
        assert_eq!(parse_counters(table, "wan"), None);
    }

    /// A closure runs in its namespace, the caller stays where it is, and drop removes all.
    #[test]
    fn a_namespace_is_entered_and_removed() {
        let Some(mut lab) = laboratory() else { return };
        let ns = lab.add("alone").expect("add");
        let inside = ns.run(|| std::fs::read_link("/proc/thread-self/ns/net")).expect("run");
        let outside = std::fs::read_link("/proc/thread-self/ns/net").expect("outside");
        assert_ne!(inside.expect("inside"), outside);
        assert!(ns.ip("link show lo").expect("lo").contains("UP"));
        ns.counters("lo").expect("counters");
        let error = ns.ip("link show nothing").expect_err("no such interface").to_string();
        assert!(error.contains("link show nothing") && error.contains("does not exist"), "{error}");
        drop(lab);
        assert!(!exists(ns.name()));
        assert!(ns.run(|| ()).is_err());
    }

    /// Drop stops processes, also one that ignores SIGTERM, and one that a process left behind.
    #[test]
    fn processes_are_stopped() {
        let Some(mut lab) = laboratory() else { return };
        let ns = lab.add("busy").expect("add");
        let start = |lab: &mut Namespaces, script: &str| {
            let mut command = ns.command("sh");
            command.args(["-c", script]);
            lab.spawn(command).expect("spawn")
        };
        let polite = start(&mut lab, "exec sleep 1000");
        start(&mut lab, "sleep 1000 & exit 0");
        let stubborn = start(&mut lab, "trap '' TERM; while :; do sleep 0.05; done");
        assert_eq!(polite.wait(Duration::from_millis(200)).expect("wait"), None);
        let status = stubborn.stop(Duration::from_millis(100)).expect("stop");
        assert!(!status.success());
        let left = processes_in(ns.name());
        assert!(left.len() >= 2, "{left:?}");
        drop(lab);
        assert!(!exists(ns.name()));
        for id in left {
            let gone = || kill(id, None) == Err(Errno::ESRCH) || is_zombie(id);
            assert!(Cancel::new().wait(STOP_GRACE, gone).expect("wait"), "{id} lives");
        }
        assert!(polite.wait(Duration::ZERO).expect("wait").is_some());
    }

    /// What has ended and has no parent who asks.
    fn is_zombie(id: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    }

    /// A panic removes namespaces too.
    #[test]
    fn a_panic_cleans_up() {
        let Some(mut lab) = laboratory() else { return };
        let ns = lab.add("doomed").expect("add");
        let name = ns.name().to_owned();
        let outcome = thread::spawn(move || {
            let _lab = lab;
            ns.run(|| panic!("expected by this test")).expect("run");
        });
        assert!(outcome.join().is_err());
        assert!(!exists(&name));
    }

    /// What a killed process left is swept, with its processes; what a live one has is not.
    #[test]
    fn dead_makers_are_swept() {
        let Some(mut lab) = laboratory() else { return };
        let ours = lab.add("alive").expect("add");
        // Alive until its namespace is complete: other tests sweep as well.
        let mut maker = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let name = format!("{PREFIX}{}-0-left", maker.id());
        ip(&format!("netns add {name}")).expect("add");
        let mut orphan = Command::new("ip")
            .args(["netns", "exec", &name, "sleep", "1000"])
            .spawn()
            .expect("spawn");
        let there = || !processes_in(&name).is_empty();
        assert!(Cancel::new().wait(STOP_GRACE, there).expect("wait"));
        Namespaces::sweep().expect("sweep");
        assert!(exists(&name), "its maker lives");
        maker.kill().expect("kill");
        maker.wait().expect("wait");
        Namespaces::sweep().expect("sweep");
        let gone = || !exists(&name);
        assert!(Cancel::new().wait(STOP_GRACE, gone).expect("wait") && exists(ours.name()));
        assert!(!orphan.wait().expect("wait").success());
    }

    /// A signal sets the flag and everything that waits returns.
    #[test]
    fn a_signal_cancels() {
        let cancel = Cancel::on_signals().expect("handlers");
        assert!(cancel.sleep(Duration::from_millis(1)).is_ok());
        signal_hook::low_level::raise(Signal::SIGHUP as i32).expect("raise");
        assert!(cancel.is_set());
        let error = cancel.sleep(Duration::from_secs(60)).expect_err("cancelled");
        assert_eq!(error.to_string(), "interrupted");
    }
}
