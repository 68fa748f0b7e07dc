//! What must happen: a slow, naive model of the gateways, step by step beside them.
//!
//! The model sees every frame that is put into a worker's queue, and from the lengths of the rings
//! between workers it knows in which order an SA's owner meets its packets. For each it says what
//! must become of it. It never decrypts: it knows which sequence number carries which plaintext,
//! because it also watched the sender. Its replay window is a set of all numbers ever accepted.
//!
//! Which SAs are where is not its business: it reads that from the snapshot that the worker uses,
//! and other checks see to it that no SA is in two places. What an SA has done is its business,
//! wherever the SA has been.
//!
//! After every turn the gateway's counters and each SA's state must be exactly what the model says.
//! Three reasons depend on what the model does not follow (room in transmit rings, neighbours);
//! their sum must be what is missing. An ESN receiver may refuse an old packet as a replay or, when
//! it guesses a later number, for its ICV; so those two reasons are one here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Peer;
use culvert_engine::next_hop::Resolution;
use culvert_engine::tables::SaSample;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_frame::BATCH;
use culvert_frame::MemIo;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Spd;
use culvert_spd::Upper;
use culvert_wire::checksum;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ip::Addresses;

use crate::Gateway;
use crate::plain::Plain;
use crate::plain::find_id;
use crate::plain::link_frame;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::WAN_MTUS;
use crate::scenario::gateway_mac;
use crate::scenario::host_mac;
use crate::tunnel::Tunnel;

/// A frame in some queue.
type Frame = Rc<[u8]>;

/// What the model says, or that something else happened: a sentence for the report.
pub(crate) type Checked<T> = Result<T, String>;

/// Lengths of the rings between one worker and the others, by side and by the other worker.
#[derive(Clone, Debug)]
pub(crate) struct Rings {
    /// Packets that wait for this worker.
    waiting: [Vec<usize>; 2],
    /// Packets of this worker that wait for others.
    given: [Vec<usize>; 2],
    /// From whom this worker takes first.
    first: [WorkerId; 2],
}

/// The two sides in the order in which a worker's turn serves them.
const SIDES: [Side; 2] = [Side::Unprotected, Side::Protected];

/// All gateways.
pub(crate) struct Model<'a> {
    scenario: &'a Scenario,
    ends: Vec<End>,
    plains: BTreeMap<u64, Plain>,
    /// Plaintexts that were sent and neither delivered nor dropped for a reason of their own.
    missing: BTreeSet<u64>,
}

/// One gateway.
struct End {
    queues: Vec<[VecDeque<Frame>; 2]>,
    /// By side, source and owner.
    rings: [Vec<Vec<VecDeque<Frame>>>; 2],
    spd: Spd,
    /// By SPI.
    senders: BTreeMap<u32, Sender>,
    /// By SPI.
    receivers: BTreeMap<u32, Receiver>,
    /// Where packets of a group may go: where its peer is said to be, or was seen by an authentic
    /// packet that was the newest.
    peers: BTreeMap<u8, BTreeSet<(IpAddr, u16)>>,
    counters: Counters,
    /// Packets that must be sent, now or when the next hop is resolved, if there is room.
    sendable: u64,
    /// What must come out of the LAN port, by number of the plaintext.
    deliveries: BTreeMap<u64, Frame>,
    /// What must come out of the WAN port in clear.
    bypasses: BTreeMap<u64, Frame>,
}

/// An outbound SA.
struct Sender {
    tunnel: Rc<Tunnel>,
    side: usize,
    last: u64,
    made: u64,
    dropped: u64,
    /// By low half of the number. A run is far too short for one to come twice.
    spent: BTreeMap<u32, Spent>,
}

/// A number that was spent on a plaintext, and the packet once it was seen.
struct Spent {
    seq: u64,
    id: u64,
    sealed: Option<Sealed>,
}

/// What an ICV covers, seen on the wire.
#[derive(PartialEq, Eq)]
struct Sealed {
    /// From the first octet of ESP or AH to the last one.
    octets: Vec<u8>,
    /// With AH: what of the IP header may not change.
    header: Vec<u8>,
}

/// An inbound SA.
struct Receiver {
    tunnel: Rc<Tunnel>,
    /// The side that sends.
    sender: usize,
    window: NaiveWindow,
    accepted: u64,
    dropped: u64,
    /// It was at its end when the batch began.
    was_expired: bool,
}

/// The definition of the replay window, without any cleverness.
struct NaiveWindow {
    start: u64,
    top: u64,
    size: u64,
    seen: BTreeSet<u64>,
    /// The highest number, and those accepted since, when a batch began.
    batch: (u64, BTreeSet<u64>),
}

/// What must become of a frame at a worker.
enum Outcome {
    Handoff(WorkerId),
    Drop(DropReason),
    Punt,
    /// Sent, if there is room.
    Sent,
}

impl NaiveWindow {
    fn new(start: u64, size: u32) -> NaiveWindow {
        let (size, seen) = (size.into(), BTreeSet::new());
        NaiveWindow { start, top: start, size, seen, batch: (start, BTreeSet::new()) }
    }

    /// A batch begins: its packets are all looked at before the first is accepted.
    fn begin(&mut self) {
        self.batch = (self.top, BTreeSet::new());
    }

    /// What the batch began with has no place for this number.
    fn refuses(&self, seq: u64) -> bool {
        let (top, fresh) = &self.batch;
        let inside = seq > *top || top - seq < self.size;
        seq <= self.start || !inside || (self.seen.contains(&seq) && !fresh.contains(&seq))
    }

    fn accept(&mut self, seq: u64) -> bool {
        let inside = seq > self.top || self.top - seq < self.size;
        if seq <= self.start || !inside || !self.seen.insert(seq) {
            return false;
        }
        self.batch.1.insert(seq);
        self.top = self.top.max(seq);
        true
    }
}

impl Rings {
    /// The rings of worker `id` now.
    pub(crate) fn of<A: Aead>(gateway: &Gateway<A>, id: WorkerId) -> Rings {
        let workers = || (0u8..).map(WorkerId).zip(&gateway.workers);
        let this = &gateway.workers[usize::from(id.0)];
        Rings {
            waiting: SIDES
                .map(|side| workers().map(|(other, _)| this.waiting_from(side, other)).collect()),
            first: SIDES.map(|side| this.first_source(side)),
            given: SIDES
                .map(|side| workers().map(|(_, other)| other.waiting_from(side, id)).collect()),
        }
    }
}

impl<'a> Model<'a> {
    /// A model of gateways that have just been made.
    pub(crate) fn new(scenario: &'a Scenario) -> Model<'a> {
        let ends = (0..scenario.gateways()).map(|end| End::new(scenario, end)).collect();
        let mut model = Model { scenario, ends, plains: BTreeMap::new(), missing: BTreeSet::new() };
        scenario.tunnels.iter().for_each(|tunnel| model.add(tunnel));
        model
    }

    /// There may be SAs of `tunnel` from now on.
    pub(crate) fn add(&mut self, tunnel: &Tunnel) {
        let tunnel = Rc::new(tunnel.clone());
        for side in 0..2 {
            let end = &mut self.ends[tunnel.ends[side]];
            let (spi, peer_spi) = (tunnel.spi[side].value(), tunnel.spi[1 - side].value());
            end.senders.insert(spi, Sender::new(&tunnel, side));
            end.receivers.insert(peer_spi, Receiver::new(&tunnel, 1 - side));
            if let Some(seen_at) = tunnel.seen_at {
                let Peer { address, port } = seen_at[1 - side];
                end.peers.entry(tunnel.index).or_default().insert((address, port));
            }
        }
    }

    /// An inbound SA has accepted something.
    pub(crate) fn has_received(&self, end: usize, spi: Spi) -> bool {
        self.ends[end].receivers.get(&spi.value()).is_some_and(|receiver| receiver.accepted > 0)
    }

    /// The peer that sends with an inbound SA may be behind a NAT that forgets.
    pub(crate) fn may_move(&self, end: usize, spi: u32) -> bool {
        self.ends[end].receivers.get(&spi).is_some_and(|receiver| receiver.sender == 0)
    }

    /// A host sends `plain`.
    pub(crate) fn sent(&mut self, plain: Plain) {
        self.plains.insert(plain.id, plain);
        self.missing.insert(plain.id);
    }

    /// Plaintexts that should have arrived and did not, from number `first` on.
    pub(crate) fn missing(&self, first: u64) -> impl Iterator<Item = &u64> {
        self.missing.range(first..)
    }

    /// Packets sealed by algorithms whose nonces are written down.
    pub(crate) fn sealed(&self) -> u64 {
        let senders = self.ends.iter().flat_map(|end| end.senders.values());
        senders.filter(|sender| has_nonce(sender.tunnel.algorithm)).map(|sender| sender.made).sum()
    }

    /// Receivers that went across the boundary at 2^32.
    pub(crate) fn crossings(&self) -> usize {
        let receivers = self.ends.iter().flat_map(|end| end.receivers.values());
        let crossed = |w: &NaiveWindow| w.start < 1 << 32 && w.top >= 1 << 32;
        receivers.filter(|receiver| crossed(&receiver.window)).count()
    }

    /// Receivers whose peer was seen elsewhere than before.
    pub(crate) fn moved_peers(&self) -> usize {
        let ends = self.ends.iter().flat_map(|end| end.peers.values());
        ends.map(|peers| peers.len() - 1).sum()
    }

    /// A frame was put into a worker's queue.
    pub(crate) fn arrived(&mut self, end: usize, worker: usize, port: Port, frame: &[u8]) {
        let side = usize::from(port == LAN);
        self.ends[end].queues[worker][side].push_back(frame.into());
    }

    /// A worker of gateway `end` turned; `before` and `after` are its rings around that.
    pub(crate) fn turned<A: Aead>(
        &mut self,
        end: usize,
        worker: &Worker<A, MemIo>,
        id: WorkerId,
        (before, after): (&Rings, &Rings),
    ) -> Checked<()> {
        let index = usize::from(id.0);
        for (side, from) in SIDES.into_iter().enumerate() {
            let batches = self.batches(end, index, side, (before, after));
            for (handed_over, frames) in [true, false].into_iter().zip(batches) {
                self.begin(end);
                for frame in frames {
                    let outcome = match from {
                        Side::Unprotected => self.inbound(end, (worker, id), &frame)?,
                        Side::Protected => self.outbound(end, (worker, id, handed_over), &frame)?,
                    };
                    self.settle(end, id, side, frame, &outcome, after)?;
                }
            }
            for (owner, &given) in after.given[side].iter().enumerate() {
                let modelled = self.ends[end].rings[side][index][owner].len();
                if modelled != given {
                    return Err(format!("ring to {owner}: {given} packets, not {modelled}"));
                }
            }
        }
        Ok(())
    }

    /// What a worker took of one side: from other workers, then from its port.
    fn batches(
        &mut self,
        end: usize,
        worker: usize,
        side: usize,
        (before, after): (&Rings, &Rings),
    ) -> [Vec<Frame>; 2] {
        let end = &mut self.ends[end];
        let mut given = Vec::new();
        let sources = end.queues.len();
        let first = usize::from(before.first[side].0);
        for source in (first..sources).chain(0..first) {
            let taken = before.waiting[side][source] - after.waiting[side][source];
            given.extend(end.rings[side][source][worker].drain(..taken));
        }
        end.counters.taken += given.len() as u64;
        let queue = &mut end.queues[worker][side];
        let received: Vec<Frame> = queue.drain(..queue.len().min(BATCH)).collect();
        end.counters.received += received.len() as u64;
        [given, received]
    }

    /// A batch begins.
    fn begin(&mut self, end: usize) {
        for receiver in self.ends[end].receivers.values_mut() {
            receiver.was_expired = receiver.is_expired();
            receiver.window.begin();
        }
    }

    /// Counts what became of a frame.
    fn settle(
        &mut self,
        end: usize,
        id: WorkerId,
        side: usize,
        frame: Frame,
        outcome: &Outcome,
        after: &Rings,
    ) -> Checked<()> {
        let this = &mut self.ends[end];
        let counters = &mut this.counters;
        match *outcome {
            Outcome::Handoff(owner) => {
                let owner = usize::from(owner.0);
                let ring = &mut this.rings[side][usize::from(id.0)][owner];
                // Nobody takes from the ring during this turn: what it holds now is what fitted.
                if ring.len() < after.given[side][owner] {
                    ring.push_back(frame);
                    counters.handed_off += 1;
                } else if ring.len() < self.scenario.room.handoff {
                    return Err(format!("no handoff to {owner}, though its ring has room"));
                } else {
                    counters.dropped[DropReason::HandoffFull as usize] += 1;
                }
            }
            Outcome::Drop(reason) => {
                counters.dropped[reason as usize] += 1;
                // A lost packet without SA is lost, not refused.
                if SIDES[side] == Side::Protected
                    && reason != DropReason::NoOutboundSa
                    && let Some(id) = find_id(&frame)
                {
                    self.missing.remove(&id);
                }
            }
            Outcome::Punt => counters.punted += 1,
            Outcome::Sent => this.sendable += 1,
        }
        Ok(())
    }

    /// What must become of a frame from the wire.
    fn inbound<A: Aead>(
        &mut self,
        end: usize,
        (worker, id): (&Worker<A, MemIo>, WorkerId),
        frame: &[u8],
    ) -> Checked<Outcome> {
        if self.is_for_another(end, WAN, frame) {
            return Ok(Outcome::Drop(DropReason::OtherHost));
        }
        let (protocol, outer) = match esp::classify(frame) {
            Ok(Unprotected::Esp(outer)) => (Protocol::Esp, outer),
            Ok(Unprotected::Ah(outer)) => (Protocol::Ah, outer),
            Ok(Unprotected::Runt) => return Ok(Outcome::Drop(DropReason::Runt)),
            Ok(Unprotected::Keepalive) => return Ok(Outcome::Drop(DropReason::Keepalive)),
            Ok(Unprotected::Plain(packet)) => {
                let flow = flow(packet.source(), packet.destination());
                return Ok(Outcome::Drop(match first_match(&self.ends[end].spd.inbound, &flow) {
                    Some(Action::Protect(_)) => DropReason::Plaintext,
                    Some(_) => return Err("an inbound policy that protects nothing".into()),
                    None => DropReason::NoPolicy,
                }));
            }
            Ok(Unprotected::Fragment(_) | Unprotected::IcmpError(_)) => {
                return Err("a fragment or an ICMP error that nobody sent".into());
            }
            Ok(_) => return Ok(Outcome::Punt),
            Err(_) => return Ok(Outcome::Drop(DropReason::Malformed)),
        };
        let directory = &worker.snapshot().directory;
        let found = directory.find(protocol, outer.spi, outer.source, outer.destination);
        let Some(location) = found else {
            return Ok(Outcome::Drop(DropReason::NoSa));
        };
        if location.worker != id {
            return Ok(Outcome::Handoff(location.worker));
        }
        if worker.spi_at(true, location.slot) != Some(outer.spi) {
            return Ok(Outcome::Drop(DropReason::NoSa));
        }
        let outcome = self.received(end, (protocol, &outer), frame)?;
        if let (Outcome::Drop(_), Some(receiver)) =
            (&outcome, self.ends[end].receivers.get_mut(&outer.spi))
        {
            receiver.dropped += 1;
        }
        Ok(outcome)
    }

    /// What must become of an ESP or AH packet at the owner of its SA.
    fn received(
        &mut self,
        end: usize,
        (protocol, outer): (Protocol, &Outer),
        frame: &[u8],
    ) -> Checked<Outcome> {
        let receiver = self.ends[end].receivers.get(&outer.spi).ok_or("no receiver")?;
        let (tunnel, sending) = (Rc::clone(&receiver.tunnel), receiver.sender);
        if tunnel.protocol() != protocol || tunnel.outer[1 - sending] != outer.destination {
            return Err(format!("a packet to {} found an SA that is not its", outer.destination));
        }
        if receiver.was_expired {
            return Ok(Outcome::Drop(DropReason::Expired));
        }
        if !is_whole(tunnel.algorithm, outer.end - outer.esp_at) {
            return Ok(Outcome::Drop(DropReason::Truncated));
        }
        let sender = self.ends[tunnel.ends[sending]].senders.get(&outer.spi);
        let spent = sender.ok_or("no such sender")?.spent.get(&outer.seq);
        let arrived = Sealed::of(protocol, outer, frame);
        let Some(spent) = spent.filter(|spent| spent.sealed.as_ref() == Some(&arrived)) else {
            return Ok(Outcome::Drop(DropReason::Icv));
        };
        let (seq, id) = (spent.seq, spent.id);
        let here = &mut self.ends[end];
        let receiver = here.receivers.get_mut(&outer.spi).ok_or("no receiver")?;
        let is_newest = seq > receiver.window.top;
        if receiver.window.refuses(seq) {
            return Ok(Outcome::Drop(DropReason::Replay));
        }
        if receiver.is_expired() {
            return Ok(Outcome::Drop(DropReason::Expired));
        }
        if !receiver.window.accept(seq) {
            return Ok(Outcome::Drop(DropReason::Replay));
        }
        receiver.accepted += 1;
        // U10, U11: nothing else than this moves a peer.
        if outer.encapsulated && is_newest && tunnel.seen_at.is_some() {
            let from = (outer.source, outer.source_port);
            here.peers.entry(tunnel.index).or_default().insert(from);
        }
        self.unpacked(end, &tunnel, id, outer, frame)
    }

    /// What must become of plaintext that came out of an SA.
    fn unpacked(
        &mut self,
        end: usize,
        tunnel: &Tunnel,
        id: u64,
        outer: &Outer,
        frame: &[u8],
    ) -> Checked<Outcome> {
        let plain = *self.plains.get(&id).ok_or("no such plaintext")?;
        let mut packet = plain.packet();
        let mut header = ip::parse(&packet).map_err(|_| "no plaintext")?;
        // The sender has decremented it once.
        let mut ttl = plain.ttl - 1;
        let mut tos = plain.tos;
        let is_tunnel = tunnel.mode == Mode::Tunnel;
        if !is_tunnel {
            // The header is that of the packet itself, and has come as it is.
            header = ip::parse(&frame[outer.ip_at..]).map_err(|_| "no header")?;
            (ttl, tos) = (header.ttl(), header.tos());
            adopt(&mut packet, &frame[outer.ip_at..]);
        }
        let flow = flow(header.source(), header.destination());
        let expected = Action::Protect(Group(tunnel.index.into()));
        let drop = |reason| Ok(Outcome::Drop(reason));
        let here = &mut self.ends[end];
        if first_match(&here.spd.inbound, &flow) != Some(expected) {
            self.missing.remove(&id);
            return drop(DropReason::Selector);
        }
        if is_tunnel {
            let Some(ecn) = merge_ecn(tos & 3, outer.tos & 3) else {
                self.missing.remove(&id);
                return drop(DropReason::Ecn);
            };
            tos = tos & !3 | ecn;
        }
        if ttl <= 1 {
            self.missing.remove(&id);
            return drop(DropReason::Ttl);
        }
        finish_header(&mut packet, tos, ttl - 1);
        let frame = on_link(self.scenario, end, LAN, &packet);
        here.deliveries.insert(id, frame.into());
        Ok(Outcome::Sent)
    }

    /// What must become of a frame from the hosts.
    fn outbound<A: Aead>(
        &mut self,
        end: usize,
        (worker, id, handed_over): (&Worker<A, MemIo>, WorkerId, bool),
        frame: &[u8],
    ) -> Checked<Outcome> {
        if self.is_for_another(end, LAN, frame) {
            return Ok(Outcome::Drop(DropReason::OtherHost));
        }
        let Ok(link) = ethernet::parse(frame) else {
            return Ok(Outcome::Drop(DropReason::Malformed));
        };
        if ![ethernet::ETHER_TYPE_IPV4, ethernet::ETHER_TYPE_IPV6].contains(&link.ether_type) {
            return Ok(Outcome::Punt);
        }
        let Ok(packet) = ip::parse(&frame[link.payload_at..]) else {
            return Ok(Outcome::Drop(DropReason::Malformed));
        };
        let this = &mut self.ends[end];
        let flow = flow(packet.source(), packet.destination());
        let group = match first_match(&this.spd.outbound, &flow) {
            Some(Action::Protect(group)) => group,
            Some(Action::Bypass) => {
                let mtu = mtu(worker, packet.destination());
                return self.bypass((end, mtu), frame, &packet);
            }
            Some(Action::Discard) => return Ok(Outcome::Drop(DropReason::Discard)),
            None => return Ok(Outcome::Drop(DropReason::NoPolicy)),
        };
        let members = worker.snapshot().groups.get(&group);
        let Some(bundle) = members.and_then(|members| members.of(id, handed_over).0) else {
            return Ok(Outcome::Drop(DropReason::NoOutboundSa));
        };
        if bundle.worker != id {
            return Ok(Outcome::Handoff(bundle.worker));
        }
        let Some(spi) = worker.spi_at(false, bundle.slots()[0]) else {
            return Ok(Outcome::Drop(DropReason::NoOutboundSa));
        };
        let sender = this.senders.get_mut(&spi).ok_or("an SA of nobody")?;
        if Group(sender.tunnel.index.into()) != group {
            return Err(format!("SA {spi:#x} is not of {group:?}"));
        }
        let id = find_id(frame).ok_or("a packet without number")?;
        let mtu = mtu(worker, sender.tunnel.outer[1 - sender.side]);
        let outcome = sender.send(mtu, id, &packet);
        if matches!(outcome, Outcome::Drop(_)) {
            sender.dropped += 1;
        }
        Ok(outcome)
    }

    fn bypass(
        &mut self,
        (end, mtu): (usize, usize),
        frame: &[u8],
        packet: &ip::Packet,
    ) -> Checked<Outcome> {
        if packet.ttl() <= 1 {
            return Ok(Outcome::Drop(DropReason::Ttl));
        }
        if packet.total_len() > mtu {
            return Ok(Outcome::Drop(DropReason::TooBig));
        }
        let id = find_id(frame).ok_or("a packet without number")?;
        let plain = self.plains.get(&id).ok_or("no such plaintext")?;
        let sent = Plain { ttl: plain.ttl - 1, ..*plain }.packet();
        let frame = on_link(self.scenario, end, WAN, &sent);
        self.ends[end].bypasses.insert(id, frame.into());
        Ok(Outcome::Sent)
    }

    /// A frame came out of a gateway's LAN port.
    pub(crate) fn delivered(&mut self, end: usize, frame: &[u8]) -> Checked<()> {
        let id = find_id(frame).ok_or("a frame without number was delivered")?;
        let Some(expected) = self.ends[end].deliveries.remove(&id) else {
            return Err(format!("packet {id} was delivered twice, or never accepted"));
        };
        if expected[..] != *frame {
            return Err(format!("packet {id} was delivered changed"));
        }
        self.missing.remove(&id);
        Ok(())
    }

    /// A frame came out of a gateway's WAN port.
    pub(crate) fn emitted(&mut self, end: usize, frame: &[u8]) -> Checked<()> {
        let (protocol, outer) = match esp::classify(frame) {
            Ok(Unprotected::Esp(outer)) => (Protocol::Esp, outer),
            Ok(Unprotected::Ah(outer)) => (Protocol::Ah, outer),
            Ok(_) => return self.emitted_in_clear(end, frame),
            // An encapsulated packet to where a NAT has the peer looks like any datagram.
            Err(_) => return Err("something malformed was sent".into()),
        };
        self.emitted_sealed(end, protocol, &outer, frame)
    }

    fn emitted_in_clear(&mut self, end: usize, frame: &[u8]) -> Checked<()> {
        let id = find_id(frame);
        let expected = id.and_then(|id| self.ends[end].bypasses.remove(&id));
        match (id, expected, encapsulated_elsewhere(frame)) {
            (Some(id), Some(expected), _) if expected[..] == *frame => {
                self.missing.remove(&id);
                Ok(())
            }
            (_, None, Some(outer)) => self.emitted_sealed(end, Protocol::Esp, &outer, frame),
            _ => Err(format!("packet {id:?} was sent in clear")),
        }
    }

    fn emitted_sealed(
        &mut self,
        end: usize,
        protocol: Protocol,
        outer: &Outer,
        frame: &[u8],
    ) -> Checked<()> {
        let this = &mut self.ends[end];
        let sender = this.senders.get_mut(&outer.spi).ok_or("an SPI of nobody was sent")?;
        let tunnel = Rc::clone(&sender.tunnel);
        let link = ethernet::parse(frame).map_err(|_| "no Ethernet header")?;
        let station = self.scenario.next_station(end);
        if (link.destination, link.vlan) != (station, self.scenario.wan_vlan) {
            return Err("ESP was sent to somebody else".into());
        }
        let is_right = outer.source == tunnel.outer[sender.side] && protocol == tunnel.protocol();
        if !is_right || outer.encapsulated != tunnel.seen_at.is_some() {
            return Err("ESP was sent in a wrong shape".into());
        }
        // U10, U11: only where the peer is, or has proved to be.
        let to = (outer.destination, destination_port(outer, frame));
        let is_known = match tunnel.seen_at {
            None => outer.destination == tunnel.outer[1 - sender.side],
            Some(_) => this.peers.get(&tunnel.index).is_some_and(|peers| peers.contains(&to)),
        };
        if !is_known {
            return Err(format!("ESP was sent to {to:?}, where the peer never was"));
        }
        if frame.len() - link.payload_at > usize::from(WAN_MTUS[0]) {
            return Err("ESP larger than the MTU was sent".into());
        }
        let spent = sender.spent.get_mut(&outer.seq);
        let spent = spent.ok_or("ESP with a number that was not spent")?;
        if spent.sealed.is_some() {
            return Err(format!("number {} was sent twice", spent.seq));
        }
        spent.sealed = Some(Sealed::of(protocol, outer, frame));
        Ok(())
    }

    /// Compares a gateway with its model.
    pub(crate) fn compare<A: Aead>(&self, end: usize, gateway: &Gateway<A>) -> Checked<()> {
        let this = &self.ends[end];
        let (actual, expected) = (gateway.counters(), &this.counters);
        let refused = |c: &Counters| c.dropped(DropReason::Replay) + c.dropped(DropReason::Icv);
        let scalars = |c: &Counters| (c.received, c.taken, c.handed_off, c.punted, refused(c));
        if scalars(&actual) != scalars(expected) {
            return Err(format!("counters {actual:?}, expected {expected:?}"));
        }
        for &reason in DropReason::ALL.iter().filter(|&&r| is_exact(r)) {
            let (actual, expected) = (actual.dropped(reason), expected.dropped(reason));
            if actual != expected {
                return Err(format!("{actual} packets dropped as {reason}, not {expected}"));
            }
        }
        let held: usize = gateway.workers.iter().map(|worker| worker.held()).sum();
        let sent = actual.forwarded + actual.bypassed + lost_to_room(&actual) + held as u64;
        if sent != this.sendable {
            return Err(format!(
                "{sent} packets sent, held or without room, not {}",
                this.sendable
            ));
        }
        gateway.samples().try_for_each(|sample| this.agrees(&sample))
    }

    /// When a gateway is at rest, what the model still waits for is what had no room.
    pub(crate) fn at_rest<A: Aead>(&self, end: usize, gateway: &Gateway<A>) -> Checked<()> {
        let this = &self.ends[end];
        let unseen = |sender: &Sender| sender.spent.values().filter(|s| s.sealed.is_none()).count();
        let unsent: usize = this.senders.values().map(unseen).sum();
        let waiting = (this.deliveries.len() + this.bypasses.len() + unsent) as u64;
        let lost = lost_to_room(&gateway.counters());
        if waiting != lost {
            return Err(format!("{waiting} packets never left, {lost} had no room"));
        }
        Ok(())
    }

    fn is_for_another(&self, end: usize, port: Port, frame: &[u8]) -> bool {
        self.scenario.filters_mac && frame.get(..6) != Some(&gateway_mac(end, port).0)
    }
}

impl End {
    fn new(scenario: &Scenario, end: usize) -> End {
        let workers = scenario.workers[end];
        End {
            queues: vec![Default::default(); workers],
            rings: [(); 2].map(|()| vec![vec![VecDeque::new(); workers]; workers]),
            spd: scenario.policies(end),
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            peers: BTreeMap::new(),
            counters: Counters::default(),
            sendable: 0,
            deliveries: BTreeMap::new(),
            bypasses: BTreeMap::new(),
        }
    }

    fn agrees(&self, sample: &SaSample) -> Checked<()> {
        let expected = if sample.inbound {
            let receiver = self.receivers.get(&sample.spi).ok_or("no receiver")?;
            (receiver.accepted, receiver.window.top, receiver.dropped)
        } else {
            let sender = self.senders.get(&sample.spi).ok_or("no sender")?;
            (sender.made, sender.last, sender.dropped)
        };
        let actual = (sample.packets, sample.sequence, sample.dropped.iter().sum::<u64>());
        if actual == expected {
            return Ok(());
        }
        let (spi, inbound) = (sample.spi, sample.inbound);
        Err(format!(
            "SA {spi:#x} (inbound: {inbound}): (packets, sequence, drops) are {actual:?}, \
             not {expected:?}"
        ))
    }
}

impl Sender {
    fn new(tunnel: &Rc<Tunnel>, side: usize) -> Sender {
        Sender {
            tunnel: Rc::clone(tunnel),
            side,
            last: tunnel.start[side],
            made: 0,
            dropped: 0,
            spent: BTreeMap::new(),
        }
    }

    /// What must become of a packet at the owner of the SA it needs.
    fn send(&mut self, mtu: usize, id: u64, packet: &ip::Packet) -> Outcome {
        let tunnel = &self.tunnel;
        if tunnel.packets_max.is_some_and(|max| self.made >= max) {
            return Outcome::Drop(DropReason::Expired);
        }
        if packet.ttl() <= 1 {
            return Outcome::Drop(DropReason::Ttl);
        }
        if sealed_len(tunnel, packet) > mtu {
            return Outcome::Drop(DropReason::TooBig);
        }
        let end = if tunnel.esn { u64::MAX } else { u64::from(u32::MAX) };
        if self.last == end {
            return Outcome::Drop(DropReason::SequenceExhausted);
        }
        self.last += 1;
        self.made += 1;
        let spent = Spent { seq: self.last, id, sealed: None };
        #[expect(clippy::cast_possible_truncation, reason = "the half on the wire")]
        let before = self.spent.insert(self.last as u32, spent);
        assert!(before.is_none(), "a run is shorter than 2^32 packets");
        Outcome::Sent
    }
}

impl Receiver {
    fn new(tunnel: &Rc<Tunnel>, sender: usize) -> Receiver {
        Receiver {
            tunnel: Rc::clone(tunnel),
            sender,
            window: NaiveWindow::new(tunnel.start[sender], tunnel.window[sender]),
            accepted: 0,
            dropped: 0,
            was_expired: false,
        }
    }
}

impl Receiver {
    /// It has accepted as many packets as it may.
    fn is_expired(&self) -> bool {
        self.tunnel.packets_max.is_some_and(|max| self.accepted >= max)
    }
}

impl Sealed {
    fn of(protocol: Protocol, outer: &Outer, frame: &[u8]) -> Sealed {
        let octets = frame[outer.esp_at..outer.end].to_vec();
        let header = match protocol {
            Protocol::Esp => Vec::new(),
            Protocol::Ah => immutable(&frame[outer.ip_at..outer.esp_at]),
        };
        Sealed { octets, header }
    }
}

/// RFC 4302 sections 3.3.3.1.1 and 3.3.3.1.2, for headers without options: what is not mutable.
fn immutable(header: &[u8]) -> Vec<u8> {
    let mut kept = header.to_vec();
    if header[0] >> 4 == 4 {
        // TOS, flags and offset, TTL, checksum.
        for at in [1, 6, 7, 8, 10, 11] {
            kept[at] = 0;
        }
    } else {
        // Traffic class and flow label, hop limit.
        kept[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        kept[7] = 0;
    }
    kept
}

/// Octets of ESP or AH that make at least an empty packet and whole blocks.
fn is_whole(algorithm: Algorithm, len: usize) -> bool {
    if algorithm.protocol() == Protocol::Ah {
        return len >= 12 + algorithm.ah_icv_field_len();
    }
    let around = 8 + algorithm.iv_len() + algorithm.icv_len();
    let text = len.saturating_sub(around);
    text >= algorithm.block_len() && text.is_multiple_of(algorithm.block_len())
}

/// Octets of the IP packet that carries a packet through an SA.
fn sealed_len(tunnel: &Tunnel, packet: &ip::Packet) -> usize {
    let algorithm = tunnel.algorithm;
    let header_len = |is_v4: bool| if is_v4 { 20 } else { 40 };
    let is_v4 = tunnel.outer[0].is_ipv4();
    // What is protected: the whole packet, or what follows its header.
    let payload = match tunnel.mode {
        Mode::Tunnel => packet.total_len(),
        Mode::Transport => packet.total_len() - header_len(is_v4),
    };
    let udp = if tunnel.seen_at.is_some() { 8 } else { 0 };
    let sealed = match algorithm.protocol() {
        Protocol::Ah => {
            let unit = if is_v4 { 4 } else { 8 };
            payload + (12 + algorithm.ah_icv_field_len()).next_multiple_of(unit)
        }
        // Payload, pad length and next header end on a block; SPI, number, IV and ICV around.
        Protocol::Esp => {
            let text = (payload + 2).next_multiple_of(algorithm.block_len());
            8 + algorithm.iv_len() + text + algorithm.icv_len()
        }
    };
    header_len(is_v4) + udp + sealed
}

/// True for algorithms that must not see a nonce or an IV twice: all but HMAC alone.
fn has_nonce(algorithm: Algorithm) -> bool {
    let is_hmac =
        algorithm.keyword().starts_with("null-") || algorithm.keyword().starts_with("sha");
    !is_hmac
}

/// The UDP destination port of an encapsulated packet; 0 for none.
fn destination_port(outer: &Outer, frame: &[u8]) -> u16 {
    if !outer.encapsulated {
        return 0;
    }
    u16::from_be_bytes([frame[outer.esp_at - 6], frame[outer.esp_at - 5]])
}

/// ESP in a datagram to a port that is not 4500: to a peer behind a NAT.
fn encapsulated_elsewhere(frame: &[u8]) -> Option<Outer> {
    let at = ethernet::parse(frame).ok()?.payload_at;
    let packet = ip::parse(&frame[at..]).ok()?;
    if packet.protocol() != ip::PROTOCOL_UDP {
        return None;
    }
    let port_at = at + packet.upper_at() + 2;
    let mut frame = frame.to_vec();
    frame[port_at..port_at + 2].copy_from_slice(&esp::NAT_TRAVERSAL_PORT.to_be_bytes());
    match esp::classify(&frame) {
        Ok(Unprotected::Esp(outer)) => Some(outer),
        _ => None,
    }
}

/// Octets of a packet that the link to a destination carries; no limit before it is resolved.
fn mtu<A: Aead>(worker: &Worker<A, MemIo>, destination: IpAddr) -> usize {
    match worker.next_hops().resolve(destination) {
        Resolution::Reachable(hop) => hop.mtu.into(),
        _ => usize::MAX,
    }
}

/// Reasons that depend on the packets alone.
fn is_exact(reason: DropReason) -> bool {
    !matches!(
        reason,
        DropReason::Replay
            | DropReason::Icv
            | DropReason::TxFull
            | DropReason::HoldFull
            | DropReason::HoldTimeout
    )
}

/// Packets that were finished and had nowhere to go.
pub(crate) fn lost_to_room(counters: &Counters) -> u64 {
    [DropReason::TxFull, DropReason::HoldFull, DropReason::HoldTimeout]
        .map(|reason| counters.dropped(reason))
        .iter()
        .sum()
}

/// The first policy of a list that matches.
fn first_match(policies: &[Policy], flow: &Flow) -> Option<Action> {
    let mut matching = policies.iter().filter(|policy| policy.selector.matches(flow));
    matching.next().map(|policy| policy.action)
}

/// The table of RFC 6040 section 4.2.
fn merge_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NONE: Option<u8> = None;
    [
        [Some(0), Some(0), Some(0), NONE],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ][usize::from(inner)][usize::from(outer)]
}

/// What policies that name addresses only look at.
fn flow(source: IpAddr, destination: IpAddr) -> Flow {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let addresses =
        Addresses { is_v4: source.is_ipv4(), source: bits(source), destination: bits(destination) };
    Flow { addresses, protocol: 0, upper: Upper::None }
}

/// Gives a packet the fields of another header of its family that routers may change, and its
/// addresses.
fn adopt(packet: &mut [u8], header: &[u8]) {
    if packet[0] >> 4 == 4 {
        packet[12..20].copy_from_slice(&header[12..20]);
    } else {
        packet[..4].copy_from_slice(&header[..4]);
        packet[8..40].copy_from_slice(&header[8..40]);
    }
}

/// Puts TOS and TTL into a packet.
fn finish_header(packet: &mut [u8], tos: u8, ttl: u8) {
    if packet[0] >> 4 == 4 {
        (packet[1], packet[8]) = (tos, ttl);
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[0] = 0x60 | tos >> 4;
        packet[1] = packet[1] & 0x0f | tos << 4;
        packet[7] = ttl;
    }
}

/// The frame in which gateway `end` sends a packet out of a port, without padding.
fn on_link(scenario: &Scenario, end: usize, port: Port, packet: &[u8]) -> Vec<u8> {
    let (to, vlan) = match port {
        LAN => (host_mac(end), scenario.lan_vlan),
        _ => (scenario.next_station(end), scenario.wan_vlan),
    };
    let ether_type = match packet[0] >> 4 {
        4 => ethernet::ETHER_TYPE_IPV4,
        _ => ethernet::ETHER_TYPE_IPV6,
    };
    link_frame(to, gateway_mac(end, port), vlan, ether_type, packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive window does what RFC 4303 section 3.4.3 says, at its edges.
    #[test]
    fn naive_window() {
        let mut window = NaiveWindow::new(10, 64);
        assert!(!window.accept(0) && !window.accept(10) && window.accept(11));
        assert!(window.accept(100) && !window.accept(100));
        assert!(!window.accept(36) && window.accept(37));
        assert!(window.refuses(10) && !window.refuses(37) && !window.refuses(36));
        window.begin();
        assert!(window.refuses(37) && window.refuses(36) && !window.refuses(38));
    }

    /// The table of this model is the one the engine uses, written down a second time.
    #[test]
    fn ecn_table() {
        for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
            assert_eq!(merge_ecn(inner, outer), culvert_esp::ecn::decapsulate(inner, outer).ecn);
        }
    }
}
