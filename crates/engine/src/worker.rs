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
use culvert_wire::esp;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet::Mac;
use culvert_wire::icmp::ErrorKind;
use culvert_wire::ip;

use crate::audit::Limiter;
use crate::counters::Counters;
use crate::counters::SharedCounters;
use crate::crew::Crew;
use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::handoff::Handoff;
use crate::hold::Held;
use crate::hold::Hold;
use crate::ids::Side;
use crate::ids::WorkerId;
use crate::inbound;
use crate::mailbox::Command;
use crate::mailbox::Event;
use crate::mailbox::WorkerEnd;
use crate::next_hop::NextHop;
use crate::next_hop::NextHops;
use crate::next_hop::Resolution;
use crate::options::Options;
use crate::originate;
use crate::outbound;
use crate::plane::Answer;
use crate::plane::Back;
use crate::plane::Extra;
use crate::plane::Plane;
use crate::plane::may_be_fragmented;
use crate::plane::put_link_header;
use crate::reassembly::Outcome;
use crate::reassembly::Reassembly;
use crate::snapshot::Snapshot;
use crate::tables::Location;
use crate::tables::SaSample;

/// Packets that may wait in a turn to be processed like received ones: fragments of a whole batch.
const MADE_MAX: usize = 4 * BATCH;

/// Commands taken up in a turn: packets must not wait for many SAs that come at once.
const COMMANDS_MAX: usize = 16;

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
    /// What the gateway does beyond its SAs.
    pub options: Options,
}

/// One worker: its I/O, its SAs and its turn.
pub struct Worker<A: Aead, Io: PacketIo> {
    pub(crate) plane: Plane<A>,
    pub(crate) io: Io,
    inbound_handoff: Handoff,
    outbound_handoff: Handoff,
    hold: Hold,
    /// The next hops that packets on hold were last tried with.
    hold_generation: u64,
    reassembly: Reassembly,
    pub(crate) counters: Counters,
    shared: Arc<SharedCounters>,
    batch: Batch,
    verdicts: ArrayVec<Verdict, BATCH>,
    /// Packets made here that are still to be processed, and the side they seem to come from.
    pub(crate) made: ArrayVec<(Side, Packet), MADE_MAX>,
    outbox: [Outbox; MAX_PORTS],
    pub(crate) icmp: Limiter,
    /// When the timers are looked at next.
    pub(crate) tick_at: u64,
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
        let plane = Plane::new(config, aead, mailbox);
        Worker {
            plane,
            io,
            inbound_handoff,
            outbound_handoff,
            hold: Hold::default(),
            hold_generation: 0,
            reassembly: Reassembly::default(),
            counters: Counters::default(),
            shared: Arc::default(),
            batch: Batch::new(),
            verdicts: ArrayVec::new(),
            made: ArrayVec::new(),
            outbox: Default::default(),
            icmp: Limiter::new(config.options.icmp.rate),
            tick_at: 0,
        }
    }

    /// One turn at time `now`, in nanoseconds of any monotonic clock. Returns the number of packets
    /// it handled.
    ///
    /// # Panics
    /// When a packet got no fate, or two: our own error.
    pub fn turn(&mut self, now: u64) -> usize {
        self.plane.now = now;
        self.apply_commands();
        self.io.service();
        self.inbound_handoff.collect(&mut self.io);
        self.outbound_handoff.collect(&mut self.io);
        let helped = self.help();
        let mut handled = self.release_held(now);
        handled += self.release_awaiting(now);
        handled += self.tick(now);
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
        handled + helped + if handled > 0 { self.help() } else { self.help_idly() }
    }

    /// Makes it one of a crew: it helps others, and they help with SAs that lend their keys.
    pub fn join(&mut self, crew: Crew<A::Key>) {
        self.plane.crew = Some(Box::new(crew));
    }

    /// Packets whose pass 2 other workers did.
    #[must_use]
    pub fn helped(&self) -> u64 {
        self.plane.crew.as_ref().map_or(0, |crew| crew.helped())
    }

    /// Works for other workers; returns how many of their packets were done.
    #[inline]
    fn help(&mut self) -> usize {
        let Plane { crew, aead, .. } = &mut self.plane;
        crew.as_mut().map_or(0, |crew| crew.help(aead))
    }

    /// The same when there is nothing else to do.
    #[inline]
    fn help_idly(&mut self) -> usize {
        let Plane { crew, aead, .. } = &mut self.plane;
        crew.as_mut().map_or(0, |crew| crew.help_idly(aead))
    }

    /// Blocks until there may be something to do, at most `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        let Worker { plane, io, inbound_handoff, outbound_handoff, .. } = self;
        let ready = || {
            !plane.events.is_empty()
                || plane.crew.as_ref().is_some_and(|crew| crew.is_waiting())
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

    /// The SPI of the SA in a slot of a direction.
    #[must_use]
    pub fn spi_at(&self, inbound: bool, slot: u32) -> Option<u32> {
        let spi = match inbound {
            true => self.plane.inbound.at(slot)?.sa.spi(),
            false => self.plane.outbound.at(slot)?.sa.spi(),
        };
        Some(spi.value())
    }

    /// Where the SA is that a snapshot says is at a place, for packets that were handed over or
    /// not; differs while an SA moves.
    #[must_use]
    pub fn place(&self, inbound: bool, at: Location, handed_over: bool) -> Location {
        self.plane.place(inbound, at, handed_over)
    }

    /// The snapshot in use.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.plane.snapshot
    }

    /// The next hops in use.
    #[must_use]
    pub fn next_hops(&self) -> &NextHops {
        &self.plane.next_hops
    }

    /// Packets on hold: for their next hop, or for an SA.
    #[must_use]
    pub fn held(&self) -> usize {
        self.hold.len() + self.plane.awaiting.len()
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

    /// Frames of this worker outside its I/O: on hold, among fragments, and in rings between
    /// workers. With those in the I/O they are as many as at the start, between any two turns.
    #[must_use]
    pub fn frames_outside_io(&self) -> usize {
        let away = self.inbound_handoff.frames_away() + self.outbound_handoff.frames_away();
        self.hold.len() + self.plane.awaiting.len() + self.reassembly.frames() + away
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
        let mut taken = 0;
        while taken < COMMANDS_MAX || plane.events.brings_sa() {
            let Some(command) = plane.events.command() else { return };
            taken += 1;
            let answer = match command {
                Command::Inbound(slot, mut entry) => {
                    if let Some(entry) = &mut entry {
                        entry.start(plane.now, plane.number());
                    }
                    Event::Inbound(slot, plane.inbound.replace(slot, entry))
                }
                Command::Outbound(slot, mut entry) => {
                    if let Some(entry) = &mut entry {
                        entry.start(plane.now);
                    }
                    Event::Outbound(slot, plane.outbound.replace(slot, entry))
                }
                Command::Pass(moved, to) => Event::Left(moved, plane.pass(moved, &to)),
                Command::AdoptInbound(moved, entry) => plane.adopt_inbound(moved, entry),
                Command::AdoptOutbound(moved, entry) => plane.adopt_outbound(moved, entry),
                Command::Settle(moved) => {
                    plane.moves.settle(&moved);
                    Event::Settled(moved)
                }
                Command::Change(changes) => Event::Changed(plane.change(changes)),
                Command::NextHops(next_hops) => {
                    plane.hops.clear();
                    plane.next_hop_generation += 1;
                    plane.all_common = true;
                    plane.forget_memos();
                    Event::NextHops(std::mem::replace(&mut plane.next_hops, next_hops))
                }
                Command::Lease { slot, ceiling } => {
                    if let Some(entry) = plane.outbound.at_mut(slot) {
                        entry.sa.sequence.set_ceiling(ceiling);
                        entry.lease_asked = false;
                    }
                    Event::Leased(slot)
                }
                Command::Retarget { inbound: true, slot, peer } => {
                    if let Some(entry) = plane.inbound.at_mut(slot) {
                        entry.peer = Some(peer);
                    }
                    Event::Retargeted(slot)
                }
                Command::Retarget { inbound: false, slot, peer } => {
                    if let Some(entry) = plane.outbound.at_mut(slot) {
                        entry.retarget(peer);
                    }
                    Event::Retargeted(slot)
                }
                Command::Limit(limit) => {
                    plane.limit(*limit);
                    Event::Limited(limit)
                }
                Command::Sample(mut samples) => {
                    let room = samples.capacity() - samples.len();
                    let all = plane.inbound.samples().chain(plane.outbound.samples());
                    samples.extend(all.take(room));
                    Event::Sample(samples)
                }
                Command::Inspect(inspection) => Event::Inspected(plane.inspect(inspection)),
            };
            plane.events.answer(answer);
        }
    }

    fn take_handed_over(&mut self, side: Side, now: u64) -> usize {
        let handoff = match side {
            Side::Unprotected => &mut self.inbound_handoff,
            Side::Protected => &mut self.outbound_handoff,
        };
        let dropped = handoff.take(&mut self.io, &mut self.batch);
        self.counters.taken += (self.batch.len() + dropped) as u64;
        (0..dropped).for_each(|_| self.counters.record(Fate::Drop(DropReason::NoFrame)));
        if !self.batch.is_empty() {
            // An SA that was passed on came before packets that follow it.
            self.apply_commands();
        }
        self.plane.handed_over = true;
        let handled = self.process(side, now);
        self.plane.handed_over = false;
        handled + dropped
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

    /// Runs the batch through its three passes and gives each packet the fate they decided, and
    /// then the packets that were made of them.
    fn process(&mut self, side: Side, now: u64) -> usize {
        let mut handled = self.batch.len();
        if handled == 0 {
            return 0;
        }
        self.run_batch(side, now);
        if !self.made.is_empty() {
            handled += self.process_made(now);
        }
        handled
    }

    fn run_batch(&mut self, side: Side, now: u64) {
        let handled = self.batch.len();
        self.verdicts.clear();
        match side {
            Side::Unprotected => {
                inbound::run(&mut self.plane, &mut self.batch, &mut self.verdicts);
            }
            Side::Protected => {
                outbound::run(&mut self.plane, &mut self.batch, &mut self.verdicts);
            }
        }
        assert_eq!(self.verdicts.len(), handled, "one verdict for each packet");
        match self.common_way() {
            Some((port, fate)) => self.send_batch(port, fate),
            None => self.dispatch_all(side, now),
        }
    }

    /// Where all packets of the batch go, if they go the same way and nothing goes before them.
    #[inline]
    fn common_way(&self) -> Option<(Port, Fate)> {
        let fate = self.verdicts.first()?.fate;
        let (Fate::Forward(port) | Fate::Bypass(port)) = fate else {
            return None;
        };
        let common = self.plane.extras.is_empty()
            && self.outbox[usize::from(port.0)].packets.is_empty()
            && self.verdicts.iter().all(|verdict| verdict.fate == fate);
        common.then_some((port, fate))
    }

    /// Sends the whole batch out of one port.
    #[inline]
    fn send_batch(&mut self, port: Port, fate: Fate) {
        let offered = self.batch.len();
        self.io.send(port, &mut self.batch);
        self.counters.record_all(fate, offered - self.batch.len());
        for packet in self.batch.drain(..) {
            self.counters.record(Fate::Drop(DropReason::TxFull));
            self.io.recycle(packet.into_free());
        }
    }

    /// Gives each packet of the batch the fate that was decided.
    fn dispatch_all(&mut self, side: Side, now: u64) {
        let mut batch = std::mem::take(&mut self.batch);
        for (index, packet) in batch.drain(..).enumerate() {
            let verdict = self.verdicts[index];
            let extra = self.plane.take_extra(index);
            let fate = match extra {
                None => self.dispatch(side, packet, &verdict, now),
                Some(extra) => self.dispatch_with(side, packet, &verdict, extra, now),
            };
            self.verdicts[index].fate = fate;
        }
        self.batch = batch;
        self.flush();
    }

    /// Processes packets made here, until no more come of them. The verdicts of the batch they came
    /// of stay.
    #[cold]
    pub(crate) fn process_made(&mut self, now: u64) -> usize {
        let verdicts = std::mem::take(&mut self.verdicts);
        let mut handled = 0;
        while let Some(&(side, _)) = self.made.first() {
            let of_side = self.made.iter().take_while(|(other, _)| *other == side).count();
            let count = of_side.min(BATCH);
            self.batch.extend(self.made.drain(..count).map(|(_, packet)| packet));
            self.counters.made += count as u64;
            handled += count;
            self.run_batch(side, now);
        }
        self.verdicts = verdicts;
        handled
    }

    /// Like [`dispatch`](Self::dispatch), for a packet that something else is to be done about.
    #[cold]
    fn dispatch_with(
        &mut self,
        side: Side,
        packet: Packet,
        verdict: &Verdict,
        extra: Extra,
        now: u64,
    ) -> Fate {
        match extra {
            Extra::Await(group) => {
                self.plane.awaiting.push(packet, group, now);
                self.counters.record(Fate::Held);
                Fate::Held
            }
            Extra::Answer(answer) => {
                originate::answer(self, &packet, answer);
                self.dispatch(side, packet, verdict, now)
            }
            Extra::SplitInner { at, mtu } => {
                let fate = originate::split_inner(self, &packet, at, mtu);
                self.dispatch(side, packet, &Verdict { fate, ..*verdict }, now)
            }
            Extra::SplitOuter { hop, mtu, fate } => {
                let fate = originate::split_outer(self, &packet, (&hop, mtu), fate);
                self.dispatch(side, packet, &Verdict { fate, ..*verdict }, now)
            }
        }
    }

    /// Moves a packet to where its fate says, and returns the fate it really met.
    #[inline]
    fn dispatch(&mut self, side: Side, packet: Packet, verdict: &Verdict, now: u64) -> Fate {
        let fate = verdict.fate;
        let (fate, rest) = match fate {
            Fate::Forward(_) | Fate::Bypass(_) | Fate::Answer(_) => {
                self.send(packet, fate);
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
            Fate::Reassembling => self.put_aside(packet, now),
            Fate::Punt | Fate::Split | Fate::Drop(_) => (fate, Some(packet)),
        };
        if let Some(packet) = rest {
            self.io.recycle(packet.into_free());
        }
        self.counters.record(fate);
        fate
    }

    /// Puts a packet into the outbox of the port its fate names. It is counted when the port has
    /// accepted it.
    #[inline(always)]
    pub(crate) fn send(&mut self, packet: Packet, fate: Fate) {
        let (Fate::Forward(port) | Fate::Bypass(port) | Fate::Answer(port)) = fate else {
            unreachable!("only these fates have a port");
        };
        if self.outbox[usize::from(port.0)].packets.is_full() {
            self.flush();
        }
        let outbox = &mut self.outbox[usize::from(port.0)];
        outbox.packets.push(packet);
        outbox.fates.push(fate);
    }

    /// Puts a fragment aside until the others come; the whole packet is processed like a received
    /// one.
    #[cold]
    fn put_aside(&mut self, packet: Packet, now: u64) -> (Fate, Option<Packet>) {
        let Ok(Unprotected::Fragment(fragment)) = esp::classify(packet.data()) else {
            return (Fate::Drop(DropReason::Malformed), Some(packet));
        };
        let outcome = match self.reassembly.push(packet, fragment, now, &mut self.io) {
            Outcome::Kept => (Fate::Reassembling, None),
            Outcome::Dropped(packet, reason) => (Fate::Drop(reason), Some(packet)),
            Outcome::Whole(packet) => match self.made.try_push((Side::Unprotected, packet)) {
                Ok(()) => (Fate::Reassembling, None),
                Err(full) => (Fate::Drop(DropReason::NoRoom), Some(full.element().1)),
            },
        };
        self.discard_fragments();
        outcome
    }

    /// Counts and recycles fragments that are no longer waited for.
    fn discard_fragments(&mut self) -> usize {
        let mut released = 0;
        while let Some((packet, reason)) = self.reassembly.discarded() {
            self.io.recycle(packet.into_free());
            if let Some(reason) = reason {
                released += 1;
                self.counters.released += 1;
                self.counters.record(Fate::Drop(reason));
            }
        }
        released
    }

    /// Looks at the timers, some times a second: lifetimes, keepalives, dummies, what has aged.
    fn tick(&mut self, now: u64) -> usize {
        if now < self.tick_at {
            return 0;
        }
        self.tick_at = now.saturating_add(originate::TICK_NS);
        self.reassembly.age(now);
        let mut handled = self.discard_fragments();
        handled += originate::tick(self, now);
        self.flush();
        handled
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

    /// Sends packets through outbound again that have an SA by now, or have waited too long for
    /// one: those are dropped as they would have been at first.
    fn release_awaiting(&mut self, now: u64) -> usize {
        if self.plane.awaiting.is_empty() {
            return 0;
        }
        let mut awaiting = std::mem::take(&mut self.plane.awaiting);
        let is_news = std::mem::take(&mut self.plane.is_news);
        while let Some(packet) = awaiting.pop(now, |packet| is_news && self.plane.finds_sa(packet))
        {
            self.batch.push(packet);
        }
        self.plane.awaiting = awaiting;
        self.counters.released += self.batch.len() as u64;
        self.plane.has_waited = true;
        let handled = self.process(Side::Protected, now);
        self.plane.has_waited = false;
        handled
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
                Some(Resolution::Reachable(hop)) => {
                    let fate = match held.in_clear {
                        true => Fate::Bypass(hop.port),
                        false => Fate::Forward(hop.port),
                    };
                    let is_sealed = held.origin == Side::Protected && !held.in_clear;
                    match self.finish_held(&mut held.packet, &hop, fate, is_sealed) {
                        Ok(fate) => fate,
                        Err(splits) => {
                            let mtu = usize::from(hop.mtu);
                            match splits {
                                true => {
                                    originate::split_outer(self, &held.packet, (&hop, mtu), fate)
                                }
                                false => self.refuse_held(&held, hop.mtu),
                            }
                        }
                    }
                }
                _ => Fate::Drop(DropReason::NoRoute),
            };
            self.counters.released += 1;
            released += 1;
            self.dispatch(held.origin, held.packet, &Verdict::new(fate), now);
        }
        self.flush();
        if !self.made.is_empty() {
            released += self.process_made(now);
        }
        released
    }

    /// Drops a held packet that does not fit, and tells its source. That of a sealed packet is told
    /// when it sends the next one, for which the path is known.
    fn refuse_held(&mut self, held: &Held, mtu: u16) -> Fate {
        let back = match (held.origin, held.in_clear) {
            (Side::Unprotected, false) => Some(Back::ThroughPolicy),
            (side, true) => Some(Back::ByRoute(side)),
            (Side::Protected, false) => None,
        };
        if let Some(back) = back {
            let kind = ErrorKind::TooBig { mtu: u32::from(mtu) };
            originate::answer(self, &held.packet, Answer { kind, at: 0, back });
        }
        Fate::Drop(DropReason::TooBig)
    }

    /// The fate of a held packet whose next hop is known; an error when it does not fit, with
    /// whether it may be fragmented: IPv4 without DF, and over IPv6 what the gateway sealed, as it
    /// is the source of that.
    fn finish_held(
        &self,
        packet: &mut Packet,
        hop: &NextHop,
        fate: Fate,
        is_sealed: bool,
    ) -> Result<Fate, bool> {
        if packet.len() > usize::from(hop.mtu) {
            return Err(match ip::parse(packet.data()) {
                Ok(ip::Packet::V6(_)) => is_sealed,
                Ok(parsed) => may_be_fragmented(&parsed),
                Err(_) => false,
            });
        }
        match put_link_header(packet, hop) {
            true => Ok(fate),
            false => Ok(Fate::Drop(DropReason::NoRoom)),
        }
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

impl<A: Aead, Io: PacketIo> std::fmt::Debug for Worker<A, Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.plane.id)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
