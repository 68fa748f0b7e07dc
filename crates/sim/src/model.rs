//! What must happen: a slow, naive model of both gateways, step by step beside them.
//!
//! The model sees every frame that is put into a worker's queue, and from the lengths of the rings
//! between workers it knows in which order an SA's owner meets its packets. For each it says what
//! must become of it. It never decrypts: it knows which sequence number carries which plaintext,
//! because it also watched the sender. Its replay window is a set of all numbers ever accepted.
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
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Side;
use culvert_engine::WorkerId;
use culvert_engine::tables::SaSample;
use culvert_frame::BATCH;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Spd;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;

use crate::Gateway;
use crate::plain::Plain;
use crate::plain::find_id;
use crate::plain::link_frame;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::Tunnel;
use crate::scenario::WAN;
use crate::scenario::gateway_mac;
use crate::scenario::host_mac;

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

/// Both gateways.
pub(crate) struct Model<'a> {
    scenario: &'a Scenario,
    ends: [End; 2],
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
    senders: BTreeMap<u8, Sender>,
    receivers: BTreeMap<u32, Receiver>,
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
    spi: u32,
    owner: WorkerId,
    last: u64,
    made: u64,
    dropped: u64,
    /// By low half of the number. A run is far too short for one to come twice.
    spent: BTreeMap<u32, Spent>,
}

/// A number that was spent on a plaintext, and the ESP packet once it was seen.
struct Spent {
    seq: u64,
    id: u64,
    esp: Option<Vec<u8>>,
}

/// An inbound SA.
struct Receiver {
    tunnel: u8,
    owner: WorkerId,
    window: NaiveWindow,
    accepted: u64,
    dropped: u64,
}

/// The definition of the replay window, without any cleverness.
struct NaiveWindow {
    start: u64,
    top: u64,
    size: u64,
    seen: BTreeSet<u64>,
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
    fn accept(&mut self, seq: u64) -> bool {
        let inside = seq > self.top || self.top - seq < self.size;
        if seq <= self.start || !inside || !self.seen.insert(seq) {
            return false;
        }
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
    pub(crate) fn new<A: Aead>(scenario: &'a Scenario, gateways: &[Gateway<A>; 2]) -> Model<'a> {
        let [one, two] = gateways;
        Model {
            scenario,
            ends: [End::new(scenario, 0, one), End::new(scenario, 1, two)],
            plains: BTreeMap::new(),
            missing: BTreeSet::new(),
        }
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

    /// Receivers that went across the boundary at 2^32.
    pub(crate) fn crossings(&self) -> usize {
        let receivers = self.ends.iter().flat_map(|end| end.receivers.values());
        let crossed = |w: &NaiveWindow| w.start < 1 << 32 && w.top >= 1 << 32;
        receivers.filter(|receiver| crossed(&receiver.window)).count()
    }

    /// A frame was put into a worker's queue.
    pub(crate) fn arrived(&mut self, end: usize, worker: usize, port: Port, frame: &[u8]) {
        let side = usize::from(port == LAN);
        self.ends[end].queues[worker][side].push_back(frame.into());
    }

    /// A worker of gateway `end` turned; `before` and `after` are its rings around that.
    pub(crate) fn turned(
        &mut self,
        end: usize,
        id: WorkerId,
        before: &Rings,
        after: &Rings,
    ) -> Checked<()> {
        let worker = usize::from(id.0);
        for (side, from) in SIDES.into_iter().enumerate() {
            let mut frames = Vec::new();
            let sources = self.ends[end].queues.len();
            let first = usize::from(before.first[side].0);
            for source in (first..sources).chain(0..first) {
                let taken = before.waiting[side][source] - after.waiting[side][source];
                let ring = &mut self.ends[end].rings[side][source][worker];
                frames.extend(ring.drain(..taken));
            }
            self.ends[end].counters.taken += frames.len() as u64;
            let queue = &mut self.ends[end].queues[worker][side];
            let received = queue.len().min(BATCH);
            frames.extend(queue.drain(..received));
            self.ends[end].counters.received += received as u64;
            for frame in frames {
                let outcome = match from {
                    Side::Unprotected => self.inbound(end, id, &frame)?,
                    Side::Protected => self.outbound(end, id, &frame)?,
                };
                self.settle(end, id, side, frame, &outcome, after)?;
            }
            for (owner, &given) in after.given[side].iter().enumerate() {
                let modelled = self.ends[end].rings[side][worker][owner].len();
                if modelled != given {
                    return Err(format!("ring to {owner}: {given} packets, not {modelled}"));
                }
            }
        }
        Ok(())
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
                } else if ring.len() < self.scenario.handoff_capacity {
                    return Err(format!("no handoff to {owner}, though its ring has room"));
                } else {
                    counters.dropped[DropReason::HandoffFull as usize] += 1;
                }
            }
            Outcome::Drop(reason) => {
                counters.dropped[reason as usize] += 1;
                if let Some(id) = find_id(&frame) {
                    self.missing.remove(&id);
                }
            }
            Outcome::Punt => counters.punted += 1,
            Outcome::Sent => this.sendable += 1,
        }
        Ok(())
    }

    /// What must become of a frame from the wire.
    fn inbound(&mut self, end: usize, id: WorkerId, frame: &[u8]) -> Checked<Outcome> {
        if self.is_for_another(end, WAN, frame) {
            return Ok(Outcome::Drop(DropReason::OtherHost));
        }
        let outer = match esp::classify(frame) {
            Ok(Unprotected::Esp(outer)) => outer,
            Ok(Unprotected::Runt) => return Ok(Outcome::Drop(DropReason::Runt)),
            Ok(_) => return Ok(Outcome::Punt),
            Err(_) => return Ok(Outcome::Drop(DropReason::Malformed)),
        };
        let Some(receiver) = self.ends[end].receivers.get(&outer.spi) else {
            return Ok(Outcome::Drop(DropReason::NoSa));
        };
        if receiver.owner != id {
            return Ok(Outcome::Handoff(receiver.owner));
        }
        let tunnel = tunnel(self.scenario, receiver.tunnel);
        if tunnel.outer[end] != outer.destination {
            return Ok(Outcome::Drop(DropReason::NoSa));
        }
        let outcome = self.received(end, tunnel, &outer, frame)?;
        if let (Outcome::Drop(_), Some(receiver)) =
            (&outcome, self.ends[end].receivers.get_mut(&outer.spi))
        {
            receiver.dropped += 1;
        }
        Ok(outcome)
    }

    /// What must become of an ESP packet at the owner of its SA.
    fn received(
        &mut self,
        end: usize,
        tunnel: &Tunnel,
        outer: &Outer,
        frame: &[u8],
    ) -> Checked<Outcome> {
        let esp = &frame[outer.esp_at..outer.end];
        // SPI, number, IV, at least 4 octets of text, ICV; text ends on 4 octets.
        if esp.len() < 36 || !esp.len().is_multiple_of(4) {
            return Ok(Outcome::Drop(DropReason::Truncated));
        }
        let [here, there] = match &mut self.ends {
            [one, two] if end == 0 => [one, two],
            [one, two] => [two, one],
        };
        let sender = there.senders.get(&tunnel.index).ok_or("no such sender")?;
        let genuine = sender.spent.get(&outer.seq).filter(|spent| {
            let made = spent.esp.as_deref();
            made == Some(esp)
        });
        let Some(spent) = genuine else {
            return Ok(Outcome::Drop(DropReason::Icv));
        };
        let receiver = here.receivers.get_mut(&outer.spi).ok_or("no receiver")?;
        if !receiver.window.accept(spent.seq) {
            return Ok(Outcome::Drop(DropReason::Replay));
        }
        receiver.accepted += 1;
        let plain = self.plains.get(&spent.id).ok_or("no such plaintext")?;
        let flow = flow(plain.source, plain.destination);
        if first_match(&here.spd.inbound, &flow)
            != Some(Action::Protect(Group(tunnel.index.into())))
        {
            self.missing.remove(&plain.id);
            return Ok(Outcome::Drop(DropReason::Selector));
        }
        let Some(ecn) = merge_ecn(plain.tos & 3, outer.tos & 3) else {
            self.missing.remove(&plain.id);
            return Ok(Outcome::Drop(DropReason::Ecn));
        };
        // The sender has decremented it once.
        if plain.ttl <= 2 {
            self.missing.remove(&plain.id);
            return Ok(Outcome::Drop(DropReason::Ttl));
        }
        let delivered = Plain { ttl: plain.ttl - 2, tos: plain.tos & !3 | ecn, ..*plain };
        let frame = on_link(self.scenario, end, LAN, &delivered);
        here.deliveries.insert(plain.id, frame.into());
        Ok(Outcome::Sent)
    }

    /// What must become of a frame from the hosts.
    fn outbound(&mut self, end: usize, id: WorkerId, frame: &[u8]) -> Checked<Outcome> {
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
            Some(Action::Bypass) => return self.bypass(end, frame, &packet),
            Some(Action::Discard) => return Ok(Outcome::Drop(DropReason::Discard)),
            None => return Ok(Outcome::Drop(DropReason::NoPolicy)),
        };
        let index = u8::try_from(group.0).map_err(|_| "a group beyond the tunnels")?;
        let Some(sender) = this.senders.get_mut(&index) else {
            return Ok(Outcome::Drop(DropReason::NoOutboundSa));
        };
        if sender.owner != id {
            return Ok(Outcome::Handoff(sender.owner));
        }
        let id = find_id(frame).ok_or("a packet without number")?;
        let tunnel = tunnel(self.scenario, index);
        let outcome = sender.send(tunnel, self.scenario.wan_mtu, id, &packet);
        if matches!(outcome, Outcome::Drop(_)) {
            sender.dropped += 1;
        }
        Ok(outcome)
    }

    fn bypass(&mut self, end: usize, frame: &[u8], packet: &ip::Packet) -> Checked<Outcome> {
        if packet.ttl() <= 1 {
            return Ok(Outcome::Drop(DropReason::Ttl));
        }
        if packet.total_len() > usize::from(self.scenario.wan_mtu) {
            return Ok(Outcome::Drop(DropReason::TooBig));
        }
        let id = find_id(frame).ok_or("a packet without number")?;
        let plain = self.plains.get(&id).ok_or("no such plaintext")?;
        let sent = Plain { ttl: plain.ttl - 1, ..*plain };
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
        if let Some(id) = find_id(frame) {
            let expected = self.ends[end].bypasses.remove(&id);
            self.missing.remove(&id);
            return match expected {
                Some(expected) if expected[..] == *frame => Ok(()),
                _ => Err(format!("packet {id} was sent in clear")),
            };
        }
        let Ok(Unprotected::Esp(outer)) = esp::classify(frame) else {
            return Err("something that is not ESP was sent".into());
        };
        let is_owner = |tunnel: &&Tunnel| tunnel.spi[end].value() == outer.spi;
        let tunnel = self.scenario.tunnels.iter().find(is_owner);
        let tunnel = tunnel.ok_or("ESP with an SPI of nobody was sent")?;
        let link = ethernet::parse(frame).map_err(|_| "no Ethernet header")?;
        let peer = gateway_mac(1 - end, WAN);
        if (link.destination, link.vlan) != (peer, self.scenario.wan_vlan) {
            return Err("ESP was sent to somebody else".into());
        }
        let ports = tunnel.encapsulation[end].map_or(0, |ports| ports.source_port);
        let endpoints = (tunnel.outer[end], tunnel.outer[1 - end], ports);
        if (outer.source, outer.destination, outer.source_port) != endpoints {
            return Err("ESP was sent between the wrong endpoints".into());
        }
        if frame.len() - link.payload_at > usize::from(self.scenario.wan_mtu) {
            return Err("ESP larger than the MTU was sent".into());
        }
        let sender = self.ends[end].senders.get_mut(&tunnel.index);
        let spent = sender.and_then(|sender| sender.spent.get_mut(&outer.seq));
        let spent = spent.ok_or("ESP with a number that was not spent")?;
        if spent.esp.is_some() {
            return Err(format!("number {} was sent twice", spent.seq));
        }
        spent.esp = Some(frame[outer.esp_at..outer.end].to_vec());
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
        let unseen = |sender: &Sender| sender.spent.values().filter(|s| s.esp.is_none()).count();
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
    fn new<A: Aead>(scenario: &Scenario, side: usize, gateway: &Gateway<A>) -> End {
        let workers = gateway.workers.len();
        let owner = |spi: u32, inbound: bool| {
            let has = |sample: SaSample| sample.spi == spi && sample.inbound == inbound;
            let owner = (0u8..).zip(&gateway.workers).find(|(_, worker)| worker.samples().any(has));
            WorkerId(owner.expect("every SA has an owner").0)
        };
        let sender = |tunnel: &Tunnel| Sender {
            spi: tunnel.spi[side].value(),
            owner: owner(tunnel.spi[side].value(), false),
            last: tunnel.start[side],
            made: 0,
            dropped: 0,
            spent: BTreeMap::new(),
        };
        let receiver = |tunnel: &Tunnel| Receiver {
            tunnel: tunnel.index,
            owner: owner(tunnel.spi[1 - side].value(), true),
            window: NaiveWindow {
                start: tunnel.start[1 - side],
                top: tunnel.start[1 - side],
                size: tunnel.window[1 - side].into(),
                seen: BTreeSet::new(),
            },
            accepted: 0,
            dropped: 0,
        };
        let tunnels = || scenario.tunnels.iter();
        End {
            queues: vec![Default::default(); workers],
            rings: [(); 2].map(|()| vec![vec![VecDeque::new(); workers]; workers]),
            spd: scenario.policies(side),
            senders: tunnels().map(|t| (t.index, sender(t))).collect(),
            receivers: tunnels().map(|t| (t.spi[1 - side].value(), receiver(t))).collect(),
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
            let sender = self.senders.values().find(|s| s.spi == sample.spi);
            let sender = sender.ok_or("no sender")?;
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
    /// What must become of a packet at the owner of the SA it needs.
    fn send(&mut self, tunnel: &Tunnel, mtu: u16, id: u64, packet: &ip::Packet) -> Outcome {
        if packet.ttl() <= 1 {
            return Outcome::Drop(DropReason::Ttl);
        }
        let ip = if tunnel.outer[0].is_ipv4() { 20 } else { 40 };
        let udp = if tunnel.encapsulation[0].is_some() { 8 } else { 0 };
        // Payload, pad length and next header end on 4 octets; SPI, number, IV and ICV around.
        let esp = 16 + (packet.total_len() + 2).next_multiple_of(4) + 16;
        if ip + udp + esp > usize::from(mtu) {
            return Outcome::Drop(DropReason::TooBig);
        }
        let end = if tunnel.esn { u64::MAX } else { u64::from(u32::MAX) };
        if self.last == end {
            return Outcome::Drop(DropReason::SequenceExhausted);
        }
        self.last += 1;
        self.made += 1;
        let spent = Spent { seq: self.last, id, esp: None };
        #[expect(clippy::cast_possible_truncation, reason = "the half on the wire")]
        let before = self.spent.insert(self.last as u32, spent);
        assert!(before.is_none(), "a run is shorter than 2^32 packets");
        Outcome::Sent
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

fn flow(source: IpAddr, destination: IpAddr) -> Flow {
    Flow { source, destination }
}

fn tunnel(scenario: &Scenario, index: u8) -> &Tunnel {
    let tunnel = scenario.tunnels.iter().find(|tunnel| tunnel.index == index);
    tunnel.expect("senders and receivers are made of tunnels")
}

/// The frame in which gateway `end` sends a packet out of a port, without padding.
fn on_link(scenario: &Scenario, end: usize, port: Port, plain: &Plain) -> Vec<u8> {
    let (to, vlan) = match port {
        LAN => (host_mac(end), scenario.lan_vlan),
        _ => (gateway_mac(1 - end, WAN), scenario.wan_vlan),
    };
    let ether_type = match plain.source {
        IpAddr::V4(_) => ethernet::ETHER_TYPE_IPV4,
        IpAddr::V6(_) => ethernet::ETHER_TYPE_IPV6,
    };
    link_frame(to, gateway_mac(end, port), vlan, ether_type, &plain.packet())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive window does what RFC 4303 section 3.4.3 says, at its edges.
    #[test]
    fn naive_window() {
        let seen = BTreeSet::new();
        let mut window = NaiveWindow { start: 10, top: 10, size: 64, seen };
        assert!(!window.accept(0) && !window.accept(10) && window.accept(11));
        assert!(window.accept(100) && !window.accept(100));
        assert!(!window.accept(36) && window.accept(37));
    }

    /// The table of this model is the one the engine uses, written down a second time.
    #[test]
    fn ecn_table() {
        for (inner, outer) in (0..4).flat_map(|inner| (0..4).map(move |outer| (inner, outer))) {
            assert_eq!(merge_ecn(inner, outer), culvert_esp::ecn::decapsulate(inner, outer));
        }
    }
}
