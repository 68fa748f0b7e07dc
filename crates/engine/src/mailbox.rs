//! Commands from and events to the control thread.
//!
//! One bounded queue each way. SAs and tables are *moved*: into the worker by a command, back
//! out by an event when they are replaced, so that the worker neither allocates nor frees. A
//! command is only taken while the event queue has room for its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam::queue::ArrayQueue;

use culvert_aead::Protocol;
use culvert_esp::Expiry;
use culvert_esp::Lifetime;
use culvert_frame::SlabBox;
use culvert_spd::Flow;
use culvert_spd::Group;

use crate::audit::AuditRecord;
use crate::handoff::Wake;
use crate::ids::WorkerId;
use crate::inspection::Inspection;
use crate::moves::Move;
use crate::next_hop::NextHops;
use crate::next_hop::Target;
use crate::snapshot::Change;
use crate::tables::InboundEntry;
use crate::tables::OutboundEntry;
use crate::tables::SaSample;

/// Places kept free in the event queue for answers to commands.
const RESERVED: usize = 16;

/// What control asks of a worker. Each is answered by an event, in order.
pub enum Command<K> {
    /// Put an inbound SA into a slot. Answer: [`Event::Inbound`] with what was there.
    Inbound(u32, Option<SlabBox<InboundEntry<K>>>),
    /// Put an outbound SA into a slot. Answer: [`Event::Outbound`] with what was there.
    Outbound(u32, Option<SlabBox<OutboundEntry<K>>>),
    /// Pass the SA in a slot on to another worker. Answer: [`Event::Left`].
    Pass(Move, Recipient<K>),
    /// An inbound SA comes from another worker. Answer: [`Event::Inbound`].
    AdoptInbound(Move, SlabBox<InboundEntry<K>>),
    /// An outbound SA comes from another worker. Answer: [`Event::Outbound`].
    AdoptOutbound(Move, SlabBox<OutboundEntry<K>>),
    /// Everybody knows the new place of this SA. Answer: [`Event::Settled`].
    Settle(Move),
    /// Take up what is different from now on, in this order. Answer: [`Event::Changed`] with what
    /// was there before.
    Change(Vec<Change>),
    /// Use these next hops from now on. Answer: [`Event::NextHops`] with the old ones.
    NextHops(Arc<NextHops>),
    /// The outbound SA in this slot may use numbers up to the ceiling. Answer: [`Event::Leased`].
    Lease {
        /// Slot of the outbound SA.
        slot: u32,
        /// Highest number it may use.
        ceiling: u64,
    },
    /// The peer of the SA in this slot is at another address and port: an outbound SA sends there
    /// from now on, an inbound one reports when packets come from elsewhere (RFC 7296 section
    /// 2.23). Answer: [`Event::Retargeted`].
    Retarget {
        /// True for an inbound SA.
        inbound: bool,
        /// Slot of the SA.
        slot: u32,
        /// The peer's new address and port.
        peer: Peer,
    },
    /// The SA in a slot has other limits from now on. Answer: [`Event::Limited`].
    Limit(Box<Limit>),
    /// Fill in what each SA did, as far as the capacity goes. Answer: [`Event::Sample`].
    Sample(Vec<SaSample>),
    /// Fill in what the SA in a slot did and has seen. Answer: [`Event::Inspected`].
    Inspect(Box<Inspection>),
}

/// What a worker tells control.
pub enum Event<K> {
    /// What an inbound slot held before.
    Inbound(u32, Option<SlabBox<InboundEntry<K>>>),
    /// What an outbound slot held before; its sequence numbers up to `last` are used.
    Outbound(u32, Option<SlabBox<OutboundEntry<K>>>),
    /// An SA has been passed on; or it has not, as there was no room, and is still here.
    Left(Move, bool),
    /// A move is forgotten here.
    Settled(Move),
    /// What is no longer used here.
    Changed(Vec<Change>),
    /// The next hops that are no longer used here.
    NextHops(Arc<NextHops>),
    /// The new ceiling is in force.
    Leased(u32),
    /// The new peer is in force.
    Retargeted(u32),
    /// The new limits are in force.
    Limited(Box<Limit>),
    /// What each SA did.
    Sample(Vec<SaSample>),
    /// What one SA did and has seen.
    Inspected(Box<Inspection>),
    /// Something happened that IKE or a log wants to know. May be lost when the queue is full.
    Notice(Notice),
    /// A packet waits for this neighbour. May be lost when the queue is full.
    Resolve(Target),
    /// The lease of the outbound SA in this slot runs low; `last` was used. May be lost.
    LeaseLow {
        /// Slot of the outbound SA.
        slot: u32,
        /// Last number used.
        last: u64,
    },
}

/// The worker that an SA is passed on to.
pub struct Recipient<K> {
    commands: Arc<ArrayQueue<Command<K>>>,
    adoptions: Arc<AtomicUsize>,
    wake: Arc<dyn Wake>,
}

impl<K> Recipient<K> {
    /// Gives it a command; gives that back when there is no room.
    pub(crate) fn send(&self, command: Command<K>) -> Result<(), Command<K>> {
        self.adoptions.fetch_add(1, Relaxed);
        // The queue puts these in order.
        self.commands.push(command).inspect_err(|_| _ = self.adoptions.fetch_sub(1, Relaxed))?;
        self.wake.wake();
        Ok(())
    }
}

/// Other limits for an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// True for an inbound SA.
    pub inbound: bool,
    /// Slot of the SA.
    pub slot: u32,
    /// Its limits.
    pub lifetime: Lifetime,
}

/// Where a peer's encapsulated packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Its UDP port.
    pub port: u16,
}

/// News for IKE, an operator, or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An SA reached a soft or hard limit of its lifetime (RFC 4301 section 4.4.2.1).
    Expire {
        /// True for an inbound SA.
        inbound: bool,
        /// Its slot at the worker.
        slot: u32,
        /// Its SPI.
        spi: u32,
        /// What was reached.
        expiry: Expiry,
    },
    /// The peer of an inbound SA sends from another address or port: an authentic packet, newer
    /// than all others, said so (RFC 7296 section 2.23).
    Mapping {
        /// Slot of the inbound SA.
        slot: u32,
        /// Its SPI.
        spi: u32,
        /// Where packets came from before.
        old: Peer,
        /// Where they come from now.
        new: Peer,
    },
    /// A policy has no SA for a packet (RFC 4301 section 4.4.1.1).
    Acquire {
        /// The policy, by its place in the outbound list.
        policy: u32,
        /// The group it names.
        group: Group,
        /// What the packet was.
        flow: Flow,
        /// The worker that lacks an SA of its own (RFC 9611); `None` when there is none at all.
        resource: Option<WorkerId>,
    },
    /// A packet was refused.
    Audit(AuditRecord),
    /// A packet came that no SA is for: IKE may notify its sender (RFC 7296 section 1.5), within
    /// the rate of [`NoticeOptions`](crate::options::NoticeOptions).
    InvalidSpi {
        /// ESP or AH.
        protocol: Protocol,
        /// SPI of the packet.
        spi: u32,
        /// Source address of the packet.
        source: IpAddr,
        /// Its UDP source port, if it was encapsulated.
        port: Option<u16>,
        /// Destination address of the packet.
        destination: IpAddr,
        /// Notices not given since the last one.
        suppressed: u64,
    },
    /// A packet came out of an SA that does not admit it: IKE should be able to notify the peer
    /// (RFC 4301 section 5.2), within the same rate.
    InvalidSelectors {
        /// Slot of the inbound SA.
        slot: u32,
        /// Its SPI.
        spi: u32,
        /// How the packet begins, for the data of the notification (RFC 7296 section 3.10.1).
        packet: PacketStart,
        /// Notices not given since the last one.
        suppressed: u64,
    },
    /// A combination of ECN fields came out of this SA that nobody should make; said once for each
    /// SA (RFC 6040 section 4.2).
    UnusualEcn {
        /// Slot of the inbound SA.
        slot: u32,
        /// Its SPI.
        spi: u32,
    },
    /// An ICMP error about a packet of an outbound SA came, unauthenticated, that says something
    /// else than a path MTU (RFC 4301 section 6).
    IcmpError {
        /// Slot of the outbound SA.
        slot: u32,
        /// Its SPI.
        spi: u32,
        /// Who sent the error.
        reporter: IpAddr,
        /// ICMP type and code.
        kind: [u8; 2],
    },
    /// The path of an outbound SA carries less than before, or more.
    PathMtu {
        /// Slot of the outbound SA.
        slot: u32,
        /// Its SPI.
        spi: u32,
        /// Octets of an outer packet; `None` when what was learned has aged.
        mtu: Option<u16>,
    },
}

/// Octets of a packet that a notice quotes: the longest IPv4 header and 8 octets behind it, as in
/// ICMP messages (RFC 792); of IPv6, 28 octets behind its header.
const QUOTED: usize = 68;

/// How a packet begins, from its IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketStart {
    octets: [u8; QUOTED],
    len: u8,
}

impl PacketStart {
    /// The start of a packet.
    #[must_use]
    pub fn of(packet: &[u8]) -> PacketStart {
        let mut octets = [0; QUOTED];
        let len = packet.len().min(QUOTED);
        octets[..len].copy_from_slice(&packet[..len]);
        #[expect(clippy::cast_possible_truncation, reason = "at most QUOTED")]
        PacketStart { octets, len: len as u8 }
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// The worker's end.
pub struct WorkerEnd<K> {
    commands: Arc<ArrayQueue<Command<K>>>,
    events: Arc<ArrayQueue<Event<K>>>,
    /// SAs from other workers among the commands.
    adoptions: Arc<AtomicUsize>,
}

/// Control's end.
pub struct ControlEnd<K> {
    commands: Arc<ArrayQueue<Command<K>>>,
    events: Arc<ArrayQueue<Event<K>>>,
    adoptions: Arc<AtomicUsize>,
}

/// Makes a mailbox with room for `capacity` commands and as many events.
#[must_use]
pub fn mailbox<K>(capacity: usize) -> (WorkerEnd<K>, ControlEnd<K>) {
    let commands = Arc::new(ArrayQueue::new(capacity.max(1)));
    let events = Arc::new(ArrayQueue::new(capacity + 2 * RESERVED));
    let adoptions = Arc::default();
    let control = ControlEnd {
        commands: Arc::clone(&commands),
        events: Arc::clone(&events),
        adoptions: Arc::clone(&adoptions),
    };
    (WorkerEnd { commands, events, adoptions }, control)
}

impl<K> WorkerEnd<K> {
    /// The next command, if there is one and its answer has room.
    #[inline]
    pub(crate) fn command(&mut self) -> Option<Command<K>> {
        if self.commands.is_empty() || self.events.len() == self.events.capacity() {
            return None;
        }
        let command = self.commands.pop()?;
        if matches!(command, Command::AdoptInbound(..) | Command::AdoptOutbound(..)) {
            self.adoptions.fetch_sub(1, Relaxed);
        }
        Some(command)
    }

    /// True when an SA from another worker is among the commands: packets that follow it, handed
    /// over, must find it.
    pub(crate) fn brings_sa(&self) -> bool {
        self.adoptions.load(Relaxed) > 0
    }

    /// Answers a command. There is room: [`command`](Self::command) saw to that.
    pub(crate) fn answer(&mut self, event: Event<K>) {
        let full = self.events.push(event).is_err();
        assert!(!full, "an answer has no room in the event queue");
    }

    /// Tells control something that may be lost; false when it was.
    pub(crate) fn tell(&mut self, event: Event<K>) -> bool {
        self.listens() && self.events.push(event).is_ok()
    }

    /// True when something told now is not lost.
    pub(crate) fn listens(&self) -> bool {
        self.events.len() + RESERVED < self.events.capacity()
    }

    /// True when no command waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl<K> ControlEnd<K> {
    /// Sends a command; gives it back when the queue is full.
    ///
    /// # Errors
    /// The command itself, when the worker has not caught up.
    pub fn send(&self, command: Command<K>) -> Result<(), Command<K>> {
        self.commands.push(command)
    }

    /// This worker, for another one to pass an SA on to.
    #[must_use]
    pub fn recipient(&self, wake: Arc<dyn Wake>) -> Recipient<K> {
        let (commands, adoptions) = (Arc::clone(&self.commands), Arc::clone(&self.adoptions));
        Recipient { commands, adoptions, wake }
    }

    /// The next event.
    #[must_use]
    pub fn event(&self) -> Option<Event<K>> {
        self.events.pop()
    }
}

impl<K> std::fmt::Debug for WorkerEnd<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerEnd").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

impl<K> std::fmt::Debug for ControlEnd<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlEnd").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events that may be lost never take the room of answers, and no command is taken without.
    #[test]
    fn answers_always_have_room() {
        let (mut worker, control) = mailbox::<()>(64);
        let target = Target { interface: 1, address: "192.0.2.1".parse().unwrap() };
        let told = (0..1000).filter(|_| worker.tell(Event::Resolve(target))).count();
        assert_eq!(told, 64 + RESERVED);
        for _ in 0..64 {
            control.send(Command::Sample(Vec::new())).ok().unwrap();
        }
        assert!(control.send(Command::Sample(Vec::new())).is_err(), "the queue is bounded");
        let mut answered = 0;
        while let Some(Command::Sample(samples)) = worker.command() {
            worker.answer(Event::Sample(samples));
            answered += 1;
        }
        assert_eq!(answered, RESERVED, "a command without room for its answer stays");
        assert!(!worker.is_empty());
    }
}
