//! Why a gateway could not be opened.

use std::io;
use std::path::PathBuf;

use culvert_frame::FRAME_SIZE;
use culvert_frame::RUN_FRAMES;

use crate::interface::MAX_JUMBO_MTU;
use crate::interface::MAX_MTU;
use crate::program;
use crate::program::Mode;

/// Why a gateway could not be opened. Messages name the interface and, where one helps, the command
/// to run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for something impossible.
    #[error("{field}: expected {expected}, found {found}")]
    Config {
        /// What the value is called.
        field: &'static str,
        /// What is possible.
        expected: String,
        /// What was asked for.
        found: String,
    },
    /// No interface has this name in the network namespace of the calling thread.
    #[error("interface {interface}: no such network interface (ip link shows those there are)")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The kernel did not answer a question about the interface.
    #[error("interface {interface}: cannot read its {what}: {source}")]
    Inspect {
        /// Its name.
        interface: String,
        /// What was asked.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Frames of this MTU do not fit into a packet buffer.
    #[error(
        "interface {interface}: its MTU is {mtu}, but a packet buffer of {FRAME_SIZE} bytes takes \
         at most {MAX_MTU}; run: ip link set dev {interface} mtu 1500, or set jumbo = true"
    )]
    Mtu {
        /// Its name.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
    },
    /// Frames of this MTU do not fit into as many packet buffers as one packet may take.
    #[error(
        "interface {interface}: its MTU is {mtu}, but a packet takes at most {RUN_FRAMES} buffers, \
         which is an MTU of {MAX_JUMBO_MTU}; run: ip link set dev {interface} mtu 9000"
    )]
    JumboMtu {
        /// Its name.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
    },
    /// Some worker would have no queue.
    #[error(
        "interface {interface}: {workers} workers need as many queues, but it has {rx} receive \
         and {tx} transmit queues; use fewer workers, or run: {command}"
    )]
    TooFewQueues {
        /// Its name.
        interface: String,
        /// Receive queues in use.
        rx: usize,
        /// Transmit queues in use.
        tx: usize,
        /// Workers asked for.
        workers: usize,
        /// What gives the interface more queues.
        command: String,
    },
    /// Packets of some queue would pass by the gateway, in clear.
    #[error(
        "interface {interface}: it has {rx} receive queues for {workers} workers, and packets of \
         the others would pass by the gateway; use more workers, or run: {command}"
    )]
    TooManyQueues {
        /// Its name.
        interface: String,
        /// Receive queues in use.
        rx: usize,
        /// Workers asked for.
        workers: usize,
        /// What leaves the interface as many queues as there are workers.
        command: String,
    },
    /// An offload that changes packets before the gateway sees them cannot be turned off.
    #[error(
        "interface {interface}: {feature} is on, which {effect}, and it could not be turned off \
         ({reason}); run: ethtool -K {interface} {option} off"
    )]
    Offload {
        /// Its name.
        interface: String,
        /// The kernel's name of the offload.
        feature: &'static str,
        /// The name that `ethtool -K` takes.
        option: &'static str,
        /// What it does to packets.
        effect: &'static str,
        /// Why it stayed on.
        reason: String,
    },
    /// The XDP program could not be loaded or attached, or refused a socket.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// A socket could not be made.
    #[error("interface {interface}, queue {queue}: AF_XDP {step} failed: {source}{hint}")]
    Socket {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
        /// The step that failed.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
        /// What it usually means, with a separator in front; may be empty.
        hint: &'static str,
    },
    /// Programs cannot be pinned in this directory.
    #[error(
        "{} is not on a BPF file system, where programs can be pinned: \
         mount -t bpf bpf /sys/fs/bpf",
        directory.display()
    )]
    NotPinnable {
        /// The directory.
        directory: PathBuf,
    },
    /// Another process has the directory of pins.
    #[error(
        "another gateway runs with its pins in {}: stop it, or use another directory",
        directory.display()
    )]
    PinsInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The program that is pinned runs in another mode than is asked for, and changing it would
    /// leave the interface open for a moment.
    #[error(
        "interface {interface} is closed by a program in {mode} mode, which is not what is asked \
         for: run `culvert release` first, which opens it"
    )]
    PinnedMode {
        /// Its name.
        interface: String,
        /// The mode of the program.
        mode: Mode,
    },
    /// A pin could not be made, found or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    Pin {
        /// What was to be done.
        action: &'static str,
        /// The pin, or the directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The descriptor that wakes a worker could not be made.
    #[error("cannot make an eventfd: {0}")]
    Wake(io::Error),
}
