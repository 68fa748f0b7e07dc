//! [`Inspection`]: the truth about one SA, as its worker has it.

use culvert_esp::Usage;
use culvert_esp::WindowState;

use crate::fate::DropReason;
use crate::tables::InboundEntry;
use crate::tables::OutboundEntry;

/// What an SA did and has seen. It is made where memory may be allocated, and filled in by the
/// worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// True for an inbound SA.
    pub inbound: bool,
    /// Its slot at the worker.
    pub slot: u32,
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of ESP text of those; of whole packets with AH.
    pub bytes: u64,
    /// When a packet first used it, in nanoseconds of the worker's clock; exact to a turn.
    pub first_used: Option<u64>,
    /// When a packet last used it.
    pub last_used: Option<u64>,
    /// A hard limit of its lifetime is reached.
    pub is_expired: bool,
    /// Highest number accepted, or last number used.
    pub sequence: u64,
    /// What the window has seen; of an inbound SA.
    pub window: Option<WindowState>,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

impl Inspection {
    /// One to be filled in, with room for an inbound SA's window of `window` packets.
    #[must_use]
    pub fn new(inbound: bool, slot: u32, window: u32) -> Inspection {
        Inspection {
            inbound,
            slot,
            packets: 0,
            bytes: 0,
            first_used: None,
            last_used: None,
            is_expired: false,
            sequence: 0,
            window: inbound.then(|| WindowState::with_room(window)),
            dropped: [0; DropReason::COUNT],
        }
    }

    /// Fills in what is known of an inbound SA; allocates nothing.
    pub fn fill_inbound<K>(&mut self, entry: &InboundEntry<K>) {
        self.fill_usage(entry.sa.usage());
        self.sequence = entry.sa.highest();
        self.dropped = entry.dropped;
        if let Some(window) = &mut self.window {
            entry.sa.window().write_state(window);
        }
    }

    /// Fills in what is known of an outbound SA; allocates nothing.
    pub fn fill_outbound<K>(&mut self, entry: &OutboundEntry<K>) {
        self.fill_usage(entry.sa.usage());
        self.sequence = entry.sa.sequence.last();
        self.dropped = entry.dropped;
    }

    fn fill_usage(&mut self, usage: &Usage) {
        (self.packets, self.bytes) = (usage.packets(), usage.bytes());
        (self.first_used, self.last_used) = (usage.first_used_ns(), usage.last_used_ns());
        self.is_expired = usage.is_expired();
    }
}
