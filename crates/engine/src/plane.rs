//! [`Plane`]: what the passes work with, apart from I/O.

use std::sync::Arc;

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_frame::BATCH;
use culvert_frame::MAX_PORTS;
use culvert_frame::Packet;
use culvert_frame::Port;
use culvert_frame::SlabBox;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Match;
use culvert_spd::Upper;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::icmp::ErrorKind;
use culvert_wire::ip;

use crate::audit::Limits;
use crate::audit::Mismatch;
use crate::awaiting::AWAITING_MAX;
use crate::awaiting::Awaiting;
use crate::cache::Cache;
use crate::crew::Crew;
use crate::fate::DropReason;
use crate::fate::Fate;
use crate::flows::FlowCache;
use crate::flows::FlowKey;
use crate::flows::Known;
use crate::ids::Side;
use crate::ids::WorkerId;
use crate::inbound;
use crate::inspection::Inspection;
use crate::mailbox::Command;
use crate::mailbox::Event;
use crate::mailbox::Limit;
use crate::mailbox::Notice;
use crate::mailbox::Recipient;
use crate::mailbox::WorkerEnd;
use crate::memo::Memos;
use crate::moves::Move;
use crate::moves::Moves;
use crate::next_hop::NextHop;
use crate::next_hop::NextHops;
use crate::next_hop::Resolution;
use crate::options::Options;
use crate::outbound;
use crate::snapshot::Change;
use crate::snapshot::Snapshot;
use crate::tables::Bundle;
use crate::tables::InboundEntry;
use crate::tables::Location;
use crate::tables::OutboundEntry;
use crate::tables::Table;
use crate::worker::PortConfig;
use crate::worker::WorkerConfig;

/// Slots of the next hop cache.
const CACHE_SLOTS: usize = 4096;

/// Tables, lookups and caches of a worker.
pub(crate) struct Plane<A: Aead> {
    pub(crate) id: WorkerId,
    pub(crate) ports: [Option<PortConfig>; MAX_PORTS],
    pub(crate) options: Options,
    pub(crate) aead: A,
    /// Who helps this worker, and whom it helps.
    pub(crate) crew: Option<Box<Crew<A::Key>>>,
    pub(crate) inbound: Table<InboundEntry<A::Key>>,
    pub(crate) outbound: Table<OutboundEntry<A::Key>>,
    pub(crate) snapshot: Snapshot,
    /// Some policy of the snapshot looks beyond addresses.
    pub(crate) looks_at_upper: bool,
    pub(crate) next_hops: Arc<NextHops>,
    /// Counts the changes of policies and of next hops, from 1: what memos say is of one of these.
    pub(crate) generation: u32,
    pub(crate) memos: Memos,
    /// Inbound SAs that were here so far, each of which has had a number.
    numbered: u32,
    /// Counts the snapshots of next hops seen, so that an SA knows whether its cached one is old.
    pub(crate) next_hop_generation: u64,
    /// Packets of all SAs that know their next hop have [common](tables::Shape::Common) headers.
    pub(crate) all_common: bool,
    pub(crate) outbound_flows: FlowCache,
    pub(crate) inbound_flows: FlowCache,
    pub(crate) hops: Cache<(bool, u128), Resolution>,
    /// SAs that left and came lately.
    pub(crate) moves: Moves,
    pub(crate) events: WorkerEnd<A::Key>,
    /// Time of this turn, in nanoseconds.
    pub(crate) now: u64,
    /// The batch was received by another worker.
    pub(crate) handed_over: bool,
    /// What is to be done about packets of the batch besides their fates, by index.
    pub(crate) extras: ArrayVec<(usize, Extra), BATCH>,
    /// The packet that was just found not to belong into its SA.
    pub(crate) mismatch: Option<Mismatch>,
    /// Packets that wait for an SA.
    pub(crate) awaiting: Awaiting,
    /// The snapshot is new to packets that wait for SAs.
    pub(crate) is_news: bool,
    /// The batch has waited for SAs: it neither waits nor asks again.
    pub(crate) has_waited: bool,
    /// How often control is told what packets cause.
    pub(crate) limits: Limits,
    pub(crate) ids: Identifications,
    fragments: u32,
}

/// IPv4 identifications: no two workers give the same until all were given (RFC 6864 section 4.1).
pub(crate) struct Identifications {
    next: u16,
    /// Workers of the gateway, or as many more as make a power of two.
    stride: u16,
}

impl Identifications {
    /// The next one.
    #[inline(always)]
    pub(crate) fn current(&self) -> u16 {
        self.next
    }

    /// The next one was used.
    #[inline(always)]
    pub(crate) fn advance(&mut self) {
        self.next = self.next.wrapping_add(self.stride);
    }
}

/// What is to be done about a packet besides its fate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extra {
    /// Its source is sent an ICMP error.
    Answer(Answer),
    /// It is replaced by fragments, which go through policy like packets of their own. It starts at
    /// an offset of the frame, and fragments have so many octets at most.
    SplitInner { at: usize, mtu: usize },
    /// It is sent in fragments that fit this next hop, with the fate of the whole.
    SplitOuter { hop: NextHop, mtu: usize, fate: Fate },
    /// It waits for an SA of this group.
    Await(Group),
}

/// An ICMP error to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) kind: ErrorKind,
    /// Where the packet it is about starts in the frame.
    pub(crate) at: usize,
    pub(crate) back: Back,
}

/// How an answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// Out of the port that the packet came in on, in an Ethernet header like the packet's.
    OutOfItsPort,
    /// By the route to the source, on this side.
    ByRoute(Side),
    /// Through an SA, as policy says.
    ThroughPolicy,
}

impl<A: Aead> Plane<A> {
    pub(crate) fn new(config: &WorkerConfig, aead: A, mailbox: WorkerEnd<A::Key>) -> Plane<A> {
        assert!(config.ports.len() <= MAX_PORTS, "at most {MAX_PORTS} ports");
        let mut ports = [None; MAX_PORTS];
        ports.iter_mut().zip(&config.ports).for_each(|(port, &config)| *port = Some(config));
        Plane {
            id: config.id,
            ports,
            options: config.options,
            aead,
            crew: None,
            inbound: Table::new(config.slots),
            outbound: Table::new(config.slots),
            snapshot: Snapshot::default(),
            looks_at_upper: false,
            is_news: false,
            next_hops: Arc::default(),
            generation: 1,
            memos: Memos::new(config.slots),
            numbered: 0,
            next_hop_generation: 1,
            all_common: true,
            outbound_flows: FlowCache::new(config.slots),
            inbound_flows: FlowCache::new(config.slots),
            hops: Cache::new(CACHE_SLOTS),
            moves: Moves::default(),
            events: mailbox,
            now: 0,
            handed_over: false,
            extras: ArrayVec::new(),
            mismatch: None,
            awaiting: Awaiting::default(),
            has_waited: false,
            limits: Limits::new(&config.options),
            ids: Identifications {
                next: u16::from(config.id.0),
                stride: u16::from(config.options.workers).next_power_of_two(),
            },
            fragments: u32::from(config.id.0),
        }
    }

    /// The next IPv4 identification.
    #[inline]
    pub(crate) fn identification(&mut self) -> u16 {
        let id = self.ids.current();
        self.ids.advance();
        id
    }

    /// The next identification of an IPv6 packet that is sent in fragments.
    pub(crate) fn fragment_id(&mut self) -> u32 {
        self.fragments = self.fragments.wrapping_add(u32::from(self.options.workers.max(1)));
        self.fragments
    }

    /// What policies see of a packet.
    #[inline(always)]
    pub(crate) fn flow(&self, packet: &[u8], parsed: &ip::Packet) -> Flow {
        match self.looks_at_upper {
            false => between(parsed.addresses()),
            true => whole_flow(packet, parsed),
        }
    }

    /// The outbound policy for a packet, cached.
    #[inline]
    pub(crate) fn outbound_policy(&mut self, packet: &[u8], parsed: &ip::Packet) -> Match {
        let flow = self.flow(packet, parsed);
        let key = FlowKey::of(&flow);
        let known = self.outbound_flows.get(&key);
        known.unwrap_or_else(|| self.learn_outbound(&key, &flow)).matched
    }

    /// The inbound policy for a packet, cached.
    #[inline(always)]
    pub(crate) fn inbound_policy(&mut self, packet: &[u8], parsed: &ip::Packet) -> Match {
        let flow = self.flow(packet, parsed);
        let key = FlowKey::of(&flow);
        let known = self.inbound_flows.get(&key);
        known.unwrap_or_else(|| self.learn_inbound(&key, &flow)).matched
    }

    /// Takes down, for the SA in a slot, that policy admits packets between the addresses of
    /// `inner` and that they go to `hop`.
    pub(crate) fn remember(&mut self, slot: u32, inner: &[u8], parsed: &ip::Packet, hop: &NextHop) {
        let Some(entry) = self.inbound.at_mut(slot).filter(|entry| entry.memo.is_plain) else {
            return;
        };
        if self.looks_at_upper {
            return;
        }
        let tag = entry.memo.tag(self.generation);
        let memo = match entry.memo.is_fresh(tag) {
            false => &mut entry.memo,
            true => self.memos.place(inner, parsed),
        };
        memo.remember(tag, inner, parsed, hop);
    }

    /// A number for an inbound SA that comes here.
    pub(crate) fn number(&mut self) -> u32 {
        self.numbered = self.numbered.wrapping_add(1);
        if self.numbered == 0 {
            self.forget_memos();
        }
        self.numbered
    }

    /// Policies or next hops have changed: what memos say is no longer believed.
    pub(crate) fn forget_memos(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.generation = 1;
            self.memos.clear();
            for slot in 0..self.inbound.slots() {
                if let Some(entry) = self.inbound.at_mut(slot) {
                    entry.memo.forget();
                }
            }
        }
    }

    #[cold]
    pub(crate) fn learn_outbound(&mut self, key: &FlowKey, flow: &Flow) -> Known {
        let matched = self.snapshot.spd.outbound(flow);
        let known = Known { matched, slot: self.only_slot(matched.action) };
        let lacks_sa = match matched.action {
            Some(Action::Protect(group)) => !self.snapshot.groups.contains_key(&group),
            _ => false,
        };
        if !lacks_sa {
            self.outbound_flows.put(key, &known);
        }
        known
    }

    #[cold]
    fn learn_inbound(&mut self, key: &FlowKey, flow: &Flow) -> Known {
        let known = Known { matched: self.snapshot.spd.inbound(flow), slot: None };
        self.inbound_flows.put(key, &known);
        known
    }

    /// The slot of the one SA here that what a policy protects takes, whether or not another worker
    /// hands it over.
    fn only_slot(&self, action: Option<Action>) -> Option<u32> {
        let Some(Action::Protect(group)) = action else {
            return None;
        };
        let members = self.snapshot.groups.get(&group)?;
        let (bundle, lacks_own) = members.of(self.id, false);
        let bundle = bundle.filter(|bundle| bundle.worker == self.id && !lacks_own)?;
        let &[slot] = bundle.slots() else {
            return None;
        };
        (members.of(self.id, true) == (Some(bundle), false)).then_some(slot)
    }

    /// Takes up what is different from now on; returns what was there before.
    pub(crate) fn change(&mut self, mut changes: Vec<Change>) -> Vec<Change> {
        for change in &mut changes {
            self.snapshot.apply(change);
            match change {
                Change::Policies(_) => {
                    self.outbound_flows.clear();
                    self.inbound_flows.clear();
                    self.forget_memos();
                    self.looks_at_upper = !self.snapshot.spd.is_address_only();
                }
                // Flows of a group that had no SA are not kept.
                Change::Group(_, Some(_)) | Change::Groups(_) => self.outbound_flows.clear(),
                _ => {}
            }
        }
        self.is_news = true;
        changes
    }

    /// Where the SA is that was to be at a place: somewhere else while it moves.
    #[cold]
    pub(crate) fn place(&self, inbound: bool, at: Location, handed_over: bool) -> Location {
        let Location { worker, slot } = at;
        if worker != self.id {
            // What this worker received itself goes behind what it has sent there before.
            let came = self.moves.came(inbound, at).filter(|_| handed_over);
            return came.map_or(at, |slot| Location { worker: self.id, slot });
        }
        let is_here = match inbound {
            true => self.inbound.at(slot).is_some(),
            false => self.outbound.at(slot).is_some(),
        };
        let left = self.moves.left(inbound, at).filter(|_| !is_here);
        left.map_or(at, |worker| Location { worker, slot })
    }

    /// A bundle, if it is of this worker; else its packets are handed over.
    pub(crate) fn bundle_here(&self, bundle: Bundle) -> Result<Bundle, Fate> {
        // SAs of longer bundles stay where they are.
        let place = match *bundle.slots() {
            [slot] => {
                let at = Location { worker: bundle.worker, slot };
                self.place(false, at, self.handed_over)
            }
            _ if bundle.worker == self.id => return Ok(bundle),
            _ => return Err(Fate::Handoff(bundle.worker)),
        };
        match place.worker == self.id {
            true => Ok(Bundle::of(place)),
            false => Err(Fate::Handoff(place.worker)),
        }
    }

    /// Takes over an inbound SA that another worker has passed on.
    pub(crate) fn adopt_inbound(
        &mut self,
        moved: Move,
        mut entry: SlabBox<InboundEntry<A::Key>>,
    ) -> Event<A::Key> {
        entry.start(self.now, self.number());
        self.moves.come(moved);
        let slot = moved.to.slot;
        Event::Inbound(slot, self.inbound.replace(slot, Some(entry)))
    }

    /// Takes over an outbound SA that another worker has passed on.
    pub(crate) fn adopt_outbound(
        &mut self,
        moved: Move,
        mut entry: SlabBox<OutboundEntry<A::Key>>,
    ) -> Event<A::Key> {
        entry.start(self.now);
        self.moves.come(moved);
        let slot = moved.to.slot;
        Event::Outbound(slot, self.outbound.replace(slot, Some(entry)))
    }

    /// Passes an SA on to another worker; false, and it stays, when there is no room.
    pub(crate) fn pass(&mut self, moved: Move, to: &Recipient<A::Key>) -> bool {
        let slot = moved.from.slot;
        if !self.moves.has_room() {
            return false;
        }
        let command = match moved.inbound {
            true => {
                self.inbound.replace(slot, None).map(|entry| Command::AdoptInbound(moved, entry))
            }
            false => {
                self.outbound.replace(slot, None).map(|entry| Command::AdoptOutbound(moved, entry))
            }
        };
        match to.send(command.expect("control knows who is in a slot")) {
            Ok(()) => {
                self.moves.leave(moved);
                true
            }
            Err(Command::AdoptInbound(_, entry)) => {
                self.inbound.replace(slot, Some(entry));
                false
            }
            Err(Command::AdoptOutbound(_, entry)) => {
                self.outbound.replace(slot, Some(entry));
                false
            }
            Err(_) => unreachable!("what was sent comes back"),
        }
    }

    /// Gives the SA in a slot other limits, and tells control what they make due.
    #[cold]
    pub(crate) fn limit(&mut self, Limit { inbound, slot, lifetime }: Limit) {
        let now = self.now;
        if inbound {
            let Some(entry) = self.inbound.at_mut(slot) else { return };
            entry.lifetime = lifetime;
            entry.sa.usage_mut().set_lifetime(lifetime, now);
            let spi = entry.sa.spi().value();
            if let Some(expiry) = entry.sa.due(now) {
                inbound::tell_expiry(self, slot, spi, expiry);
            }
        } else {
            let Some(entry) = self.outbound.at_mut(slot) else { return };
            entry.lifetime = lifetime;
            entry.sa.usage_mut().set_lifetime(lifetime, now);
            outbound::expire(self, slot);
        }
    }

    /// Fills in what the SA in a slot did; nothing when there is none.
    #[cold]
    pub(crate) fn inspect(&self, mut inspection: Box<Inspection>) -> Box<Inspection> {
        let slot = inspection.slot;
        match inspection.inbound {
            true => self.inbound.at(slot).into_iter().for_each(|sa| inspection.fill_inbound(sa)),
            false => self.outbound.at(slot).into_iter().for_each(|sa| inspection.fill_outbound(sa)),
        }
        inspection
    }

    /// The next hop for a packet, cached.
    #[inline]
    pub(crate) fn resolve(&mut self, packet: &ip::Packet) -> Resolution {
        let next_hops = &self.next_hops;
        let ip::Addresses { is_v4, destination, .. } = packet.addresses();
        self.hops.get_or((is_v4, destination), || next_hops.resolve(packet.destination()))
    }

    /// The next hop for a packet that starts at its IP header.
    pub(crate) fn resolve_packet(&self, packet: &Packet) -> Option<Resolution> {
        let parsed = ip::parse(packet.data()).ok()?;
        Some(self.next_hops.resolve(parsed.destination()))
    }

    /// True when a port lies on the protected side.
    #[inline]
    pub(crate) fn is_protected(&self, port: Port) -> bool {
        let config = self.ports.get(usize::from(port.0)).copied().flatten();
        config.is_some_and(|config| config.side == Side::Protected)
    }

    /// The first port of a side, and its address.
    pub(crate) fn first_port(&self, side: Side) -> Option<(Port, Option<Mac>)> {
        let mut ports = (0u8..).zip(&self.ports).filter_map(|(at, port)| Some((at, (*port)?)));
        ports.find(|(_, config)| config.side == side).map(|(at, config)| (Port(at), config.mac))
    }

    /// What stands between a frame and its processing: is it for this station?
    #[inline]
    pub(crate) fn is_addressed_to_us(&self, packet: &Packet) -> bool {
        self.port_of(packet).is_some()
    }

    /// The port that a packet came in on, if it is for this station.
    #[inline(always)]
    pub(crate) fn port_of(&self, packet: &Packet) -> Option<&PortConfig> {
        let config = self.ports[usize::from(packet.port().0)].as_ref()?;
        let Some(mac) = config.mac else {
            return Some(config);
        };
        // The address may change while the gateway runs, and VLAN devices may have their own.
        let &destination = packet.data().first_chunk()?;
        let ours =
            destination == mac.0 || self.next_hops.is_station(packet.port(), Mac(destination));
        ours.then_some(config)
    }

    /// Notes what is to be done about the packet at `index` besides its fate.
    pub(crate) fn note(&mut self, index: usize, extra: Extra) {
        // One for each packet of a batch at most, so there is room.
        let full = self.extras.try_push((index, extra)).is_err();
        debug_assert!(!full, "more than one extra for a packet");
    }

    /// Notes that the packet at `index` waits for an SA of a group; false when it may not, or there
    /// is no room.
    #[cold]
    pub(crate) fn awaits_sa(&mut self, index: usize, group: Group) -> bool {
        let noted = |wanted: Option<Group>| {
            let extras = self.extras.iter().map(|(_, extra)| extra);
            let waits = |extra: &&Extra| match extra {
                Extra::Await(other) => wanted.is_none_or(|group| group == *other),
                _ => false,
            };
            extras.filter(waits).count()
        };
        let of_group = self.awaiting.of_group(group) + noted(Some(group));
        let waits = !self.has_waited
            && of_group < usize::from(self.options.acquire_hold)
            && self.awaiting.len() + noted(None) < AWAITING_MAX;
        if waits {
            self.note(index, Extra::Await(group));
        }
        waits
    }

    /// True when policy has an SA for a packet as it came in.
    pub(crate) fn finds_sa(&self, packet: &Packet) -> bool {
        let action = ethernet::parse(packet.data()).ok().and_then(|link| {
            let inner = &packet.data()[link.payload_at..];
            let flow = Flow::of(inner, &ip::parse(inner).ok()?);
            self.snapshot.spd.outbound(&flow).action
        });
        let Some(Action::Protect(group)) = action else {
            return false;
        };
        let members = self.snapshot.groups.get(&group);
        members.is_some_and(|members| members.of(self.id, self.handed_over).0.is_some())
    }

    /// What is to be done about the packet at `index` besides its fate.
    #[inline]
    pub(crate) fn take_extra(&mut self, index: usize) -> Option<Extra> {
        if self.extras.is_empty() {
            return None;
        }
        let at = self.extras.iter().position(|&(noted, _)| noted == index)?;
        Some(self.extras.swap_remove(at).1)
    }

    /// Tells control; false when the queue is full.
    pub(crate) fn tell(&mut self, notice: Notice) -> bool {
        self.events.tell(Event::Notice(notice))
    }

    /// Asks control for an SA, within the rate.
    #[cold]
    pub(crate) fn acquire(
        &mut self,
        packet: &[u8],
        parsed: &ip::Packet,
        (policy, group): (u32, culvert_spd::Group),
        resource: Option<WorkerId>,
    ) {
        self.tell_within(
            |limits| &mut limits.acquires,
            |_| Notice::Acquire { policy, group, flow: Flow::of(packet, parsed), resource },
        );
    }
}

/// What policies see of a packet that look at more than addresses.
#[inline(never)]
fn whole_flow(packet: &[u8], parsed: &ip::Packet) -> Flow {
    Flow::of(packet, parsed)
}

/// What policies that look at addresses only see of a packet.
#[inline(always)]
fn between(addresses: ip::Addresses) -> Flow {
    Flow { addresses, protocol: 0, upper: Upper::None }
}

/// Why a packet does not go on.
pub(crate) enum Stop {
    Drop(DropReason),
    /// Dropped, and its source is told why.
    Tell(DropReason, ErrorKind),
}

/// Where a forwarded packet goes.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// Its next hop; `None` when that must be resolved first.
    pub(crate) hop: Option<NextHop>,
    /// It does not fit, and may be fragmented.
    pub(crate) splits: bool,
}

impl<A: Aead> Plane<A> {
    /// What forwarding asks of an IP packet: another hop in its TTL, a route out of the right side,
    /// a link that carries it (RFC 1812 section 5.2, RFC 8200 section 5).
    #[inline]
    pub(crate) fn way(&mut self, packet: &ip::Packet, decrypted: bool) -> Result<Way, Stop> {
        let resolution = self.resolve(packet);
        // What is for this machine makes no hop more.
        if packet.ttl() <= 1 && resolution != Resolution::Local {
            return Err(Stop::Tell(DropReason::Ttl, ErrorKind::TimeExceeded));
        }
        match resolution {
            Resolution::Reachable(hop) if decrypted && !self.is_protected(hop.port) => {
                Err(Stop::Drop(DropReason::WrongSide))
            }
            Resolution::Reachable(hop) => {
                let splits = packet.total_len() > usize::from(hop.mtu);
                if splits && !may_be_fragmented(packet) {
                    let kind = ErrorKind::TooBig { mtu: u32::from(hop.mtu) };
                    return Err(Stop::Tell(DropReason::TooBig, kind));
                }
                Ok(Way { hop: Some(hop), splits })
            }
            Resolution::Unresolved(_) => Ok(Way { hop: None, splits: false }),
            Resolution::Local => Err(Stop::Drop(DropReason::Local)),
            Resolution::NoRoute => Err(Stop::Drop(DropReason::NoRoute)),
        }
    }

    /// The fate of a stopped packet; its source is told if that is due.
    pub(crate) fn stop(
        &mut self,
        index: usize,
        stop: Stop,
        at: usize,
        through_policy: bool,
    ) -> DropReason {
        match stop {
            Stop::Drop(reason) => reason,
            Stop::Tell(reason, kind) => {
                let back = if through_policy { Back::ThroughPolicy } else { Back::OutOfItsPort };
                self.note(index, Extra::Answer(Answer { kind, at, back }));
                reason
            }
        }
    }

    /// The fate of a finished packet that starts at its IP header.
    #[inline]
    pub(crate) fn send(&mut self, index: usize, packet: &mut Packet, way: Way, fate: Sent) -> Fate {
        let Some(hop) = way.hop else {
            return Fate::Held;
        };
        if way.splits {
            let mtu = usize::from(hop.mtu);
            self.note(index, Extra::SplitOuter { hop, mtu, fate: fate.out_of(hop.port) });
            return Fate::Split;
        }
        match put_link_header(packet, &hop) {
            true => fate.out_of(hop.port),
            false => Fate::Drop(DropReason::NoRoom),
        }
    }
}

/// How a packet leaves.
#[derive(Clone, Copy)]
pub(crate) enum Sent {
    Protected,
    InClear,
}

impl Sent {
    #[inline]
    pub(crate) fn out_of(self, port: Port) -> Fate {
        match self {
            Sent::Protected => Fate::Forward(port),
            Sent::InClear => Fate::Bypass(port),
        }
    }
}

/// IPv4 without DF: any router may fragment it.
#[inline]
pub(crate) fn may_be_fragmented(packet: &ip::Packet) -> bool {
    matches!(packet, ip::Packet::V4(header) if !header.dont_fragment)
}

/// Puts an Ethernet header in front of a packet that starts at its IP header; false when there is
/// no room.
#[inline]
pub(crate) fn put_link_header(packet: &mut Packet, hop: &NextHop) -> bool {
    let ether_type = match packet.data().first() {
        Some(first) if first >> 4 == 6 => ethernet::ETHER_TYPE_IPV6,
        _ => ethernet::ETHER_TYPE_IPV4,
    };
    let Some(out) = packet.prepend(ethernet::header_len(hop.vlan)) else {
        return false;
    };
    ethernet::emit(out, hop.destination, hop.source, hop.vlan, ether_type);
    true
}
