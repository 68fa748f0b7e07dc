//! [`Worker`]: one pinned thread's state, and its turn.
//!
//! A turn is bounded work: commands, housekeeping of the I/O, packets whose next hop was resolved,
//! packets handed over, one batch from each port, and sending. Every packet that comes in leaves
//! the turn with exactly one fate, which is asserted each time.
//!
//! Everything here is owned by the worker. Other threads reach it through rings only: commands and
//! events ([`crate::mailbox`]), packets of other workers ([`crate::handoff`]), counters
//! ([`SharedCounters`]).

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_frame::BATCH;
use culvert_frame::Batch;
use culvert_frame::MAX_PORTS;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::ip;

use crate::cache::Cache;
use crate::counters::Counters;
use crate::counters::SharedCounters;
use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::handoff::Handoff;
use crate::hold::Hold;
use crate::inbound;
use crate::mailbox::Command;
use crate::mailbox::Event;
use crate::mailbox::WorkerEnd;
use crate::next_hop::NextHop;
use crate::next_hop::NextHops;
use crate::next_hop::Resolution;
use crate::outbound;
use crate::tables::InboundEntry;
use crate::tables::OutboundEntry;
use crate::tables::SaSample;
use crate::tables::Snapshot;
use crate::tables::Table;

/// Slots of the flow cache and of the next hop cache.
const CACHE_SLOTS: usize = 4096;

/// Index of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

/// The side of the boundary a port lies on (RFC 4301 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Plaintext.
    Protected,
    /// ESP.
    Unprotected,
}

/// What the engine must know about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Side it lies on.
    pub side: Side,
    /// Its own address; frames for other stations are dropped, but for addresses that links of the
    /// snapshot have on this port. `None` accepts all.
    pub mac: Option<Mac>,
    /// Senders on this link may leave TCP and UDP checksums partial, as a veth peer does.
    pub completes_checksums: bool,
}

/// What a worker is made with.
#[derive(Debug)]
pub struct WorkerConfig {
    /// Its index.
    pub id: WorkerId,
    /// Its ports, by number.
    pub ports: Vec<PortConfig>,
    /// Slots for SAs, each direction.
    pub slots: usize,
}

/// What the passes work with: tables, lookups and caches, apart from I/O.
pub(crate) struct Plane<A: Aead> {
    pub(crate) id: WorkerId,
    pub(crate) ports: [Option<PortConfig>; MAX_PORTS],
    pub(crate) aead: A,
    pub(crate) inbound: Table<InboundEntry<A::Key>>,
    pub(crate) outbound: Table<OutboundEntry<A::Key>>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) next_hops: Arc<NextHops>,
    /// Counts the snapshots of next hops seen, so that an SA knows whether its cached one is old.
    pub(crate) next_hop_generation: u64,
    pub(crate) outbound_flows: Cache<ip::Addresses, Option<Action>>,
    pub(crate) inbound_flows: Cache<ip::Addresses, Option<Action>>,
    pub(crate) hops: Cache<(bool, u128), Resolution>,
    pub(crate) events: WorkerEnd<A::Key>,
}

/// One worker: its I/O, its SAs and its turn.
pub struct Worker<A: Aead, Io: PacketIo> {
    plane: Plane<A>,
    io: Io,
    inbound_handoff: Handoff,
    outbound_handoff: Handoff,
    hold: Hold,
    /// The next hops that packets on hold were last tried with.
    hold_generation: u64,
    counters: Counters,
    shared: Arc<SharedCounters>,
    batch: Batch,
    verdicts: ArrayVec<Verdict, BATCH>,
    outbox: [Outbox; MAX_PORTS],
}

/// Packets about to be sent out of one port.
#[derive(Debug, Default)]
struct Outbox {
    packets: Batch,
    fates: ArrayVec<Fate, BATCH>,
}

impl<A: Aead, Io: PacketIo> Worker<A, Io> {
    /// A worker without SAs.
    ///
    /// # Panics
    /// When the configuration has more than [`MAX_PORTS`] ports.
    #[must_use]
    pub fn new(
        config: &WorkerConfig,
        aead: A,
        io: Io,
        mailbox: WorkerEnd<A::Key>,
        inbound_handoff: Handoff,
        outbound_handoff: Handoff,
    ) -> Worker<A, Io> {
        assert!(config.ports.len() <= MAX_PORTS, "at most {MAX_PORTS} ports");
        let mut ports = [None; MAX_PORTS];
        ports.iter_mut().zip(&config.ports).for_each(|(port, &config)| *port = Some(config));
        let plane = Plane {
            id: config.id,
            ports,
            aead,
            inbound: Table::new(config.slots),
            outbound: Table::new(config.slots),
            snapshot: Arc::default(),
            next_hops: Arc::default(),
            next_hop_generation: 1,
            outbound_flows: Cache::new(CACHE_SLOTS),
            inbound_flows: Cache::new(CACHE_SLOTS),
            hops: Cache::new(CACHE_SLOTS),
            events: mailbox,
        };
        Worker {
            plane,
            io,
            inbound_handoff,
            outbound_handoff,
            hold: Hold::default(),
            hold_generation: 0,
            counters: Counters::default(),
            shared: Arc::default(),
            batch: Batch::new(),
            verdicts: ArrayVec::new(),
            outbox: Default::default(),
        }
    }

    /// One turn at time `now`, in nanoseconds of any monotonic clock. Returns the number of packets
    /// it handled.
    ///
    /// # Panics
    /// When a packet got no fate, or two: our own error.
    pub fn turn(&mut self, now: u64) -> usize {
        self.apply_commands();
        self.io.service();
        self.inbound_handoff.collect(&mut self.io);
        self.outbound_handoff.collect(&mut self.io);
        let mut handled = self.release_held(now);
        handled += self.take_handed_over(Side::Unprotected, now);
        handled += self.receive(Side::Unprotected, now);
        handled += self.take_handed_over(Side::Protected, now);
        handled += self.receive(Side::Protected, now);
        if handled > 0 {
            self.inbound_handoff.wake_owners();
            self.outbound_handoff.wake_owners();
            assert!(self.counters.balanced(), "a packet has no fate: {:?}", self.counters);
            self.shared.store(&self.counters);
        }
        handled
    }

    /// Blocks until there may be something to do, at most `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        let Worker { plane, io, inbound_handoff, outbound_handoff, .. } = self;
        let ready = || {
            !plane.events.is_empty()
                || inbound_handoff.is_waiting()
                || outbound_handoff.is_waiting()
        };
        io.wait(timeout, &ready);
    }

    /// Counters for other threads to read.
    #[must_use]
    pub fn shared_counters(&self) -> Arc<SharedCounters> {
        Arc::clone(&self.shared)
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The verdicts of the last batch, in its order.
    #[must_use]
    pub fn last_verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// What each SA here did.
    pub fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.plane.inbound.samples().chain(self.plane.outbound.samples())
    }

    /// The last sequence number used by the outbound SA in a slot.
    #[must_use]
    pub fn last_used(&self, slot: u32) -> Option<u64> {
        self.plane.outbound.at(slot).map(|entry| entry.sa.sequence.last())
    }

    /// Packets on hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.hold.len()
    }

    /// Packets from `source` that wait to be taken over from its queue of that side.
    #[must_use]
    pub fn waiting_from(&self, side: Side, source: WorkerId) -> usize {
        match side {
            Side::Unprotected => self.inbound_handoff.waiting_from(source),
            Side::Protected => self.outbound_handoff.waiting_from(source),
        }
    }

    /// The worker whose packets of that side the next turn takes over first.
    #[must_use]
    pub fn first_source(&self, side: Side) -> WorkerId {
        match side {
            Side::Unprotected => self.inbound_handoff.first_source(),
            Side::Protected => self.outbound_handoff.first_source(),
        }
    }

    /// Frames of this worker outside its I/O: on hold, and in rings between workers. With those in
    /// the I/O they are as many as at the start, between any two turns.
    #[must_use]
    pub fn frames_outside_io(&self) -> usize {
        self.hold.len() + self.inbound_handoff.frames_away() + self.outbound_handoff.frames_away()
    }

    /// The I/O, for whoever plays the outside world.
    pub fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Packets this worker gave away and packets it was given are in rings between workers; true
    /// when something still waits for this one.
    #[must_use]
    pub fn is_handed_anything(&self) -> bool {
        self.inbound_handoff.is_waiting() || self.outbound_handoff.is_waiting()
    }

    fn apply_commands(&mut self) {
        let plane = &mut self.plane;
        while let Some(command) = plane.events.command() {
            let answer = match command {
                Command::Inbound(slot, entry) => {
                    Event::Inbound(slot, plane.inbound.replace(slot, entry))
                }
                Command::Outbound(slot, entry) => {
                    Event::Outbound(slot, plane.outbound.replace(slot, entry))
                }
                Command::Snapshot(snapshot) => {
                    plane.outbound_flows.clear();
                    plane.inbound_flows.clear();
                    Event::Snapshot(std::mem::replace(&mut plane.snapshot, snapshot))
                }
                Command::NextHops(next_hops) => {
                    plane.hops.clear();
                    plane.next_hop_generation += 1;
                    Event::NextHops(std::mem::replace(&mut plane.next_hops, next_hops))
                }
                Command::Lease { slot, ceiling } => {
                    if let Some(entry) = plane.outbound.at_mut(slot) {
                        entry.sa.sequence.set_ceiling(ceiling);
                        entry.lease_asked = false;
                    }
                    Event::Leased(slot)
                }
                Command::Sample(mut samples) => {
                    let room = samples.capacity() - samples.len();
                    let all = plane.inbound.samples().chain(plane.outbound.samples());
                    samples.extend(all.take(room));
                    Event::Sample(samples)
                }
            };
            plane.events.answer(answer);
        }
    }

    fn take_handed_over(&mut self, side: Side, now: u64) -> usize {
        let handoff = match side {
            Side::Unprotected => &mut self.inbound_handoff,
            Side::Protected => &mut self.outbound_handoff,
        };
        handoff.take(&mut self.io, &mut self.batch);
        self.counters.taken += self.batch.len() as u64;
        self.process(side, now)
    }

    fn receive(&mut self, side: Side, now: u64) -> usize {
        let mut handled = 0;
        for number in 0..MAX_PORTS {
            let Some(config) = self.plane.ports[number] else {
                break;
            };
            if config.side != side {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "MAX_PORTS is small")]
            self.io.recv(Port(number as u8), &mut self.batch);
            self.counters.received += self.batch.len() as u64;
            handled += self.process(side, now);
        }
        handled
    }

    /// Runs the batch through its three passes and gives each packet the fate they decided.
    fn process(&mut self, side: Side, now: u64) -> usize {
        let handled = self.batch.len();
        if handled == 0 {
            return 0;
        }
        self.verdicts.clear();
        self.batch.iter().for_each(Packet::prefetch_header);
        match side {
            Side::Unprotected => {
                inbound::run(&mut self.plane, &mut self.batch, &mut self.verdicts);
            }
            Side::Protected => {
                outbound::run(&mut self.plane, &mut self.batch, &mut self.verdicts);
            }
        }
        assert_eq!(self.verdicts.len(), handled, "one verdict for each packet");
        let mut batch = std::mem::take(&mut self.batch);
        for (index, packet) in batch.drain(..).enumerate() {
            let verdict = self.verdicts[index];
            self.verdicts[index].fate = self.dispatch(side, packet, &verdict, now);
        }
        self.batch = batch;
        self.flush();
        handled
    }

    /// Moves a packet to where its fate says, and returns the fate it really met.
    #[inline]
    fn dispatch(&mut self, side: Side, packet: Packet, verdict: &Verdict, now: u64) -> Fate {
        let fate = verdict.fate;
        let (fate, rest) = match fate {
            Fate::Forward(port) | Fate::Bypass(port) => {
                // Counted when the port has accepted it.
                let outbox = &mut self.outbox[usize::from(port.0)];
                outbox.packets.push(packet);
                outbox.fates.push(fate);
                return fate;
            }
            Fate::Handoff(owner) => {
                let handoff = match side {
                    Side::Unprotected => &mut self.inbound_handoff,
                    Side::Protected => &mut self.outbound_handoff,
                };
                match handoff.give(owner, packet) {
                    Ok(()) => (fate, None),
                    Err(packet) => (Fate::Drop(DropReason::HandoffFull), Some(packet)),
                }
            }
            // Only a packet that policy bypasses is held without ever having had an SA.
            Fate::Held => self.put_on_hold((side, verdict.spi.is_none()), packet, now),
            Fate::Punt | Fate::Drop(_) => (fate, Some(packet)),
        };
        if let Some(packet) = rest {
            self.io.recycle(packet.into_free());
        }
        self.counters.record(fate);
        fate
    }

    fn put_on_hold(
        &mut self,
        origin: (Side, bool),
        packet: Packet,
        now: u64,
    ) -> (Fate, Option<Packet>) {
        let Some(Resolution::Unresolved(target)) = self.plane.resolve_packet(&packet) else {
            return (Fate::Drop(DropReason::NoRoute), Some(packet));
        };
        match self.hold.push(packet, origin, target, now) {
            Ok(first) => {
                if first {
                    self.plane.events.tell(Event::Resolve(target));
                }
                (Fate::Held, None)
            }
            Err(packet) => {
                if self.hold.asks_for_more(now) {
                    self.plane.events.tell(Event::Resolve(target));
                }
                (Fate::Drop(DropReason::HoldFull), Some(packet))
            }
        }
    }

    /// Sends held packets whose next hop is known by now, and drops those that waited too long.
    fn release_held(&mut self, now: u64) -> usize {
        if self.hold.is_empty() {
            return 0;
        }
        let mut released = 0;
        while let Some(packet) = self.hold.pop_expired(now) {
            self.counters.released += 1;
            released += 1;
            self.counters.record(Fate::Drop(DropReason::HoldTimeout));
            self.io.recycle(packet.into_free());
        }
        for target in self.hold.due(now) {
            self.plane.events.tell(Event::Resolve(target));
        }
        // While the kernel's tables stay the same, so does the answer.
        if self.hold_generation != self.plane.next_hop_generation {
            self.hold_generation = self.plane.next_hop_generation;
            released += self.retry_held(now);
        }
        released
    }

    /// Tries all held packets with the next hops of now.
    fn retry_held(&mut self, now: u64) -> usize {
        let mut released = 0;
        for _ in 0..self.hold.len() {
            let Some(mut held) = self.hold.pop() else {
                break;
            };
            let decrypted = held.origin == Side::Unprotected;
            let fate = match self.plane.resolve_packet(&held.packet) {
                Some(Resolution::Unresolved(target)) => {
                    held.target = target;
                    self.hold.put_back(held);
                    continue;
                }
                Some(Resolution::Reachable(hop))
                    if decrypted && !self.plane.is_protected(hop.port) =>
                {
                    Fate::Drop(DropReason::WrongSide)
                }
                Some(Resolution::Reachable(hop)) if held.packet.len() > usize::from(hop.mtu) => {
                    Fate::Drop(DropReason::TooBig)
                }
                Some(Resolution::Reachable(hop)) => match put_link_header(&mut held.packet, &hop) {
                    Fate::Forward(port) if held.in_clear => Fate::Bypass(port),
                    fate => fate,
                },
                _ => Fate::Drop(DropReason::NoRoute),
            };
            self.counters.released += 1;
            released += 1;
            self.dispatch(held.origin, held.packet, &Verdict::new(fate), now);
        }
        self.flush();
        released
    }

    /// Sends every outbox; what a port does not accept is dropped.
    fn flush(&mut self) {
        for (number, outbox) in self.outbox.iter_mut().enumerate() {
            let offered = outbox.packets.len();
            if offered == 0 {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "MAX_PORTS is small")]
            self.io.send(Port(number as u8), &mut outbox.packets);
            let accepted = offered - outbox.packets.len();
            outbox.fates[..accepted].iter().for_each(|&fate| self.counters.record(fate));
            for packet in outbox.packets.drain(..) {
                self.counters.record(Fate::Drop(DropReason::TxFull));
                self.io.recycle(packet.into_free());
            }
            outbox.fates.clear();
        }
    }
}

impl<A: Aead> Plane<A> {
    /// The next hop for a packet, cached.
    #[inline]
    pub(crate) fn resolve(&mut self, packet: &ip::Packet) -> Resolution {
        let next_hops = &self.next_hops;
        let ip::Addresses { is_v4, destination, .. } = packet.addresses();
        self.hops.get_or((is_v4, destination), |_| next_hops.resolve(packet.destination()))
    }

    /// The next hop for a packet that starts at its IP header.
    fn resolve_packet(&mut self, packet: &Packet) -> Option<Resolution> {
        let parsed = ip::parse(packet.data()).ok()?;
        Some(self.next_hops.resolve(parsed.destination()))
    }

    /// True when a port lies on the protected side.
    #[inline]
    pub(crate) fn is_protected(&self, port: Port) -> bool {
        let config = self.ports.get(usize::from(port.0)).copied().flatten();
        config.is_some_and(|config| config.side == Side::Protected)
    }

    /// What stands between a frame and its processing: is it for this station?
    #[inline]
    pub(crate) fn is_addressed_to_us(&self, packet: &Packet) -> bool {
        let Some(config) = self.ports[usize::from(packet.port().0)] else {
            return false;
        };
        let Some(mac) = config.mac else {
            return true;
        };
        // The address may change while the gateway runs, and VLAN devices may have their own.
        packet.data().first_chunk().is_some_and(|&destination| {
            destination == mac.0 || self.next_hops.is_station(packet.port(), Mac(destination))
        })
    }
}

/// Puts an Ethernet header in front of a packet that starts at its IP header.
#[inline]
pub(crate) fn put_link_header(packet: &mut Packet, hop: &NextHop) -> Fate {
    let ether_type = match packet.data().first() {
        Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    };
    let Some(out) = packet.prepend(ethernet::header_len(hop.vlan)) else {
        return Fate::Drop(DropReason::NoRoom);
    };
    ethernet::emit(out, hop.destination, hop.source, hop.vlan, ether_type);
    Fate::Forward(hop.port)
}

impl<A: Aead, Io: PacketIo> std::fmt::Debug for Worker<A, Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.plane.id)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
