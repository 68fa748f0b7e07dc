//! What must happen: a slow, naive model of the gateways, step by step beside them.
//!
//! The model sees every frame that is put into a worker's queue, and from the lengths of the rings
//! between workers it knows in which order an SA's owner meets its packets. For each it says what
//! must become of it. It never decrypts: it knows which sequence number carries which plaintext,
//! because it also watched the sender. Its replay window is a set of all numbers ever accepted.
//!
//! Which SAs are where is not its business: it reads that from the snapshot that the worker uses,
//! and other checks see to it that no SA is in two places; it looks for a packet's SA there in its
//! own way. What an SA has done is its business, wherever the SA has been.
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
use culvert_aead::Protocol;
use culvert_engine::Counters;
use culvert_engine::DropReason;
use culvert_engine::Location;
use culvert_engine::Side;
use culvert_engine::Worker;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Peer;
use culvert_engine::next_hop::Resolution;
use culvert_engine::options::Lookup;
use culvert_engine::path_mtu;
use culvert_engine::reassembly;
use culvert_engine::tables::SaSample;
use culvert_esp::Mode;
use culvert_esp::Spi;
use culvert_esp::tfc::TfcPadding;
use culvert_frame::BATCH;
use culvert_frame::MemIo;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Policy;
use culvert_spd::Spd;
use culvert_wire::esp;
use culvert_wire::esp::FragmentOf;
use culvert_wire::esp::IcmpError;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::icmp::Reported;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;

use self::fragments::Piles;
use self::fragments::Pushed;
use self::packet::adopt;
use self::packet::content_len;
use self::packet::destination_port;
use self::packet::encapsulated_elsewhere;
use self::packet::finish_header;
use self::packet::finish_udp;
use self::packet::flow;
use self::packet::is_fragment;
use self::packet::is_keepalive;
use self::packet::merge_ecn;
use self::packet::on_link;
use self::sa::Content;
use self::sa::NaiveWindow;
use self::sa::Receiver;
use self::sa::Sealed;
use self::sa::Sender;
use self::sa::Sending;
use self::sa::Spent;
use self::sa::covered;
use self::sa::is_whole;
use crate::Gateway;
use crate::coverage::Coverage;
use crate::coverage::Happening;
use crate::plain::Plain;
use crate::plain::find_id;
use crate::scenario::LAN;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::WAN_MTUS;
use crate::scenario::gateway_mac;
use crate::tunnel::Tunnel;

pub(crate) mod fragments;
mod life;
mod lookup;
mod packet;
mod sa;
mod size;

/// A frame in some queue.
#[derive(Clone, Debug)]
struct Frame {
    octets: Rc<[u8]>,
    /// The number of the plaintext, if it holds one in clear.
    id: Option<u64>,
}

/// How often a worker looks at its timers, in nanoseconds.
const TICK_NS: u64 = 100_000_000;

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
    /// Plaintexts that were sent and neither delivered nor dropped for a reason of their own, with
    /// the octets of their IP payload that are missing.
    missing: BTreeMap<u64, usize>,
    now: u64,
    /// Packets sealed by algorithms whose nonces are written down, by gateways that are no more.
    sealed_before: u64,
    pub(crate) coverage: Coverage,
}

/// One gateway.
struct End {
    queues: Vec<[VecDeque<Frame>; 2]>,
    /// By worker: fragments put aside, and when its timers are due.
    piles: Vec<Piles>,
    ticks: Vec<u64>,
    /// What was made in this batch, and is processed after it.
    made: Vec<Frame>,
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
    /// What must come out of the LAN port, and the number of the plaintext.
    deliveries: BTreeMap<Rc<[u8]>, u64>,
    /// What must come out of the WAN port in clear.
    bypasses: BTreeMap<u64, Rc<[u8]>>,
    /// Keepalives that must come out of the WAN port.
    keepalives: u64,
    /// It has fragmented sealed packets: some fragments of one may have had no room.
    has_split: bool,
}

/// What must become of a frame at a worker.
enum Outcome {
    Handoff(WorkerId),
    Drop(DropReason),
    Punt,
    /// Sent, if there is room.
    Sent,
    /// Waits for other fragments, or was the last of them.
    Aside,
    /// Replaced by these.
    Split(Vec<Frame>),
    /// Sent in so many fragments, if there is room.
    SentIn(usize),
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
        let ends = (0..scenario.gateways()).map(|end| End::new(scenario, end, 0)).collect();
        let mut model = Model {
            scenario,
            ends,
            missing: BTreeMap::new(),
            now: 0,
            sealed_before: 0,
            coverage: Coverage::default(),
        };
        scenario.tunnels.iter().for_each(|tunnel| model.add(tunnel));
        for end in &mut model.ends {
            end.senders.values_mut().for_each(|sender| sender.begin(0));
            end.receivers.values_mut().for_each(|receiver| _ = receiver.life.begin(0));
        }
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
        self.ends[end].receivers.get(&spi.value()).is_some_and(|r| r.life.packets > 0)
    }

    /// The peer that sends with an inbound SA may be behind a NAT that forgets.
    pub(crate) fn may_move(&self, end: usize, spi: u32) -> bool {
        self.ends[end].receivers.get(&spi).is_some_and(|receiver| receiver.sender == 0)
    }

    /// Fragments that wait at a worker.
    pub(crate) fn aside(&self, end: usize, worker: usize) -> usize {
        self.ends[end].piles[worker].len()
    }

    /// A host sends `plain`.
    pub(crate) fn sent(&mut self, plain: &Plain) {
        let header = if plain.source.is_ipv4() { 20 } else { 40 };
        self.missing.insert(plain.id, plain.len() - header);
    }

    /// Plaintexts that should have arrived and did not, from number `first` on.
    pub(crate) fn missing(&self, first: u64) -> impl Iterator<Item = &u64> {
        self.missing.range(first..).map(|(id, _)| id)
    }

    /// Packets sealed by algorithms whose nonces are written down.
    pub(crate) fn sealed(&self) -> u64 {
        let senders = self.ends.iter().flat_map(|end| end.senders.values());
        let of_now: u64 = senders.map(Sender::nonces).sum();
        self.sealed_before + of_now
    }

    /// The last number that an outbound SA of gateway `end` has used; 0 for none.
    pub(crate) fn last_number(&self, end: usize, spi: Spi) -> u64 {
        self.ends[end].senders.get(&spi.value()).map_or(0, |sender| sender.last)
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

    /// A frame was put into a worker's queue; `id` is the number of the plaintext in it.
    pub(crate) fn arrived(
        &mut self,
        (end, worker): (usize, usize),
        port: Port,
        frame: &[u8],
        id: Option<u64>,
    ) {
        let side = usize::from(port == LAN);
        let frame = Frame { octets: frame.into(), id };
        self.ends[end].queues[worker][side].push_back(frame);
    }

    /// A gateway has stopped without warning, and begun again as `gateway`: what it had in its
    /// queues is lost, its receivers know nothing. Its senders go on above all numbers they may
    /// have used.
    pub(crate) fn restarted<A: Aead>(
        &mut self,
        end: usize,
        gateway: &Gateway<A>,
        now: u64,
    ) -> Checked<()> {
        let fresh = End::new(self.scenario, end, now);
        let End { senders, receivers, peers, .. } = std::mem::replace(&mut self.ends[end], fresh);
        let this = &mut self.ends[end];
        (this.senders, this.receivers, this.peers) = (senders, receivers, peers);
        self.sealed_before += this.senders.values().map(Sender::nonces).sum::<u64>();
        for sender in this.senders.values_mut() {
            let (tunnel, side) = (Rc::clone(&sender.tunnel), sender.side);
            let before = std::mem::replace(sender, Sender::new(&tunnel, side));
            sender.last = before.last;
            sender.spent = before.spent;
            sender.spent.retain(|_, spent| spent.sealed.is_some());
        }
        for receiver in this.receivers.values_mut() {
            let (tunnel, sender) = (Rc::clone(&receiver.tunnel), receiver.sender);
            *receiver = Receiver::new(&tunnel, sender);
        }
        for sample in gateway.samples() {
            if sample.inbound {
                let receiver = this.receivers.get_mut(&sample.spi).ok_or("no receiver")?;
                receiver.life.begin(now);
                continue;
            }
            let sender = this.senders.get_mut(&sample.spi).ok_or("no sender")?;
            if sample.sequence < sender.last {
                let (new, old) = (sample.sequence, sender.last);
                return Err(format!("after a restart numbers go on at {new}, used were {old}"));
            }
            sender.last = sample.sequence;
            sender.begin(now);
        }
        Ok(())
    }

    /// A worker of gateway `end` turned at time `now`; `before` and `after` are its rings around
    /// that.
    pub(crate) fn turned<A: Aead>(
        &mut self,
        end: usize,
        worker: &Worker<A, MemIo>,
        id: WorkerId,
        (before, after): (&Rings, &Rings),
        now: u64,
    ) -> Checked<()> {
        self.now = now;
        let index = usize::from(id.0);
        let ticks = self.tick(end, worker, index)?;
        for (side, from) in SIDES.into_iter().enumerate() {
            let batches = self.batches(end, index, side, (before, after));
            for (handed_over, mut frames) in [true, false].into_iter().zip(batches) {
                while !frames.is_empty() {
                    self.serve(end, (worker, id, handed_over), from, &frames, after)?;
                    let made = &mut self.ends[end].made;
                    frames = made.drain(..made.len().min(BATCH)).collect();
                    self.ends[end].counters.made += frames.len() as u64;
                }
            }
            if from == Side::Unprotected {
                self.learn(end, worker, ticks)?;
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

    /// A batch of one side.
    fn serve<A: Aead>(
        &mut self,
        end: usize,
        (worker, id, handed_over): (&Worker<A, MemIo>, WorkerId, bool),
        from: Side,
        frames: &[Frame],
        after: &Rings,
    ) -> Checked<()> {
        self.begin(end);
        for frame in frames {
            let outcome = match from {
                Side::Unprotected => self.inbound(end, (worker, id, handed_over), frame)?,
                Side::Protected => self.outbound(end, (worker, id, handed_over), frame)?,
            };
            let side = usize::from(from == Side::Protected);
            self.settle(end, id, side, frame, outcome, after)?;
        }
        Ok(())
    }

    /// What is due at the start of a turn; true when timers were looked at.
    fn tick<A: Aead>(
        &mut self,
        end: usize,
        worker: &Worker<A, MemIo>,
        index: usize,
    ) -> Checked<bool> {
        let (now, this) = (self.now, &mut self.ends[end]);
        let ticks = now >= this.ticks[index];
        if ticks {
            this.ticks[index] = now + TICK_NS;
            let mut gone = Vec::new();
            this.piles[index].age(now, &mut gone);
            this.count_gone(&gone);
        }
        for sample in worker.samples() {
            if sample.inbound {
                let receiver = this.receivers.get_mut(&sample.spi).ok_or("no receiver")?;
                receiver.life.begin(now);
                if ticks {
                    receiver.life.look(now);
                }
                continue;
            }
            let sender = this.senders.get_mut(&sample.spi).ok_or("no sender")?;
            sender.begin(now);
            if !ticks {
                continue;
            }
            let was_over = sender.life.is_over;
            sender.life.look(now);
            if sender.life.is_over && !was_over {
                self.coverage.note(Happening::EndInTime);
            }
            let hop = worker.next_hops().resolve(sample.destination);
            let is_reachable = matches!(hop, Resolution::Reachable(_));
            if sender.wants_keepalive(now) && is_reachable {
                self.coverage.note(Happening::Keepalive);
                this.counters.made += 1;
                this.sendable += 1;
                this.keepalives += 1;
            }
            // One on standby sends none, as its peer may not be ready (RFC 7296 section 2.8).
            let named = (sample.protocol, sample.spi, sample.destination);
            let is_in_use = worker.snapshot().senders.contains_key(&named);
            if sender.wants_dummy(now) && is_in_use {
                self.coverage.note(Happening::Dummy);
                this.counters.made += 1;
                match sender.spend(Content::Dummy, 0, now) {
                    Some(reason) => this.counters.dropped[reason as usize] += 1,
                    None if is_reachable => this.sendable += 1,
                    // It is not held, and its number is gone.
                    None => {
                        this.counters.dropped[DropReason::NoRoute as usize] += 1;
                        sender.forget_last();
                    }
                }
            }
        }
        Ok(ticks)
    }

    /// What path MTUs may be believed after this turn, and are (RFC 4301 section 8.2.1).
    fn learn<A: Aead>(
        &mut self,
        end: usize,
        worker: &Worker<A, MemIo>,
        ticks: bool,
    ) -> Checked<()> {
        let now = self.now;
        for sample in worker.samples().filter(|sample| !sample.inbound) {
            let sender = self.ends[end].senders.get_mut(&sample.spi).ok_or("no sender")?;
            let known = sender.path_mtu.filter(|&(_, until)| !ticks || now < until);
            let told = std::mem::take(&mut sender.told);
            let is_retargeted = sender.tunnel.seen_at.is_some();
            sender.path_mtu = match (sample.path_mtu, known) {
                (None, None) => None,
                (None, Some(_)) if is_retargeted => None,
                (Some(mtu), Some((old, until))) if mtu == old => Some((mtu, until)),
                (Some(mtu), _)
                    if told.contains(&mtu)
                        && (is_retargeted || known.is_none_or(|(old, _)| mtu < old)) =>
                {
                    self.coverage.note(Happening::PathMtuLearned);
                    Some((mtu, now + path_mtu::AGE_NS))
                }
                (believed, _) => {
                    return Err(format!(
                        "SA {:#x} believes in a path MTU of {believed:?}, it had {known:?} and \
                         was told {told:?}",
                        sample.spi
                    ));
                }
            };
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
            receiver.was_expired = receiver.life.is_over;
            receiver.window.begin();
        }
    }

    /// Counts what became of a frame.
    fn settle(
        &mut self,
        end: usize,
        id: WorkerId,
        side: usize,
        frame: &Frame,
        outcome: Outcome,
        after: &Rings,
    ) -> Checked<()> {
        let this = &mut self.ends[end];
        let counters = &mut this.counters;
        match outcome {
            Outcome::Handoff(owner) => {
                let owner = usize::from(owner.0);
                let ring = &mut this.rings[side][usize::from(id.0)][owner];
                // Nobody takes from the ring during this turn: what it holds now is what fitted.
                if ring.len() < after.given[side][owner] {
                    ring.push_back(frame.clone());
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
                    && let Some(id) = frame.id
                {
                    self.missing.remove(&id);
                }
            }
            Outcome::Punt => counters.punted += 1,
            Outcome::Sent => this.sendable += 1,
            Outcome::Aside => counters.reassembling += 1,
            Outcome::Split(pieces) => {
                self.coverage.note(Happening::SplitInside);
                counters.split += 1;
                this.made.extend(pieces);
            }
            Outcome::SentIn(pieces) => {
                self.coverage.note(Happening::SplitOutside);
                counters.split += 1;
                counters.made += pieces as u64;
                this.sendable += pieces as u64;
                this.has_split = true;
            }
        }
        Ok(())
    }

    /// What must become of a frame from the wire.
    fn inbound<A: Aead>(
        &mut self,
        end: usize,
        (worker, id, handed_over): (&Worker<A, MemIo>, WorkerId, bool),
        frame: &Frame,
    ) -> Checked<Outcome> {
        let octets = &frame.octets;
        let frame = &octets[..];
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
            Ok(Unprotected::Fragment(of)) => return Ok(self.fragment(end, id, of, octets)),
            Ok(Unprotected::IcmpError(error)) => {
                return Ok(self.path_error(end, (worker, id), &error));
            }
            Ok(_) => return Ok(Outcome::Punt),
            Err(_) => return Ok(Outcome::Drop(DropReason::Malformed)),
        };
        let found = lookup::inbound(&worker.snapshot().directory, protocol, &outer);
        let Some(location) = found else {
            return Ok(Outcome::Drop(DropReason::NoSa));
        };
        let location = worker.place(true, location, handed_over);
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

    /// What must become of a fragment: those of a packet meet at one worker.
    fn fragment(&mut self, end: usize, id: WorkerId, of: FragmentOf, octets: &Rc<[u8]>) -> Outcome {
        let this = &mut self.ends[end];
        let workers = u8::try_from(this.queues.len()).expect("few");
        let owner = reassembly::worker_of(&of, workers);
        if owner != id {
            return Outcome::Handoff(owner);
        }
        let mut gone = Vec::new();
        let pushed = this.piles[usize::from(id.0)].push(of, octets, self.now, &mut gone);
        this.count_gone(&gone);
        match pushed {
            Pushed::Kept => Outcome::Aside,
            Pushed::Dropped => Outcome::Drop(DropReason::Reassembly),
            Pushed::Whole(whole, _) => {
                self.coverage.note(Happening::Reassembled);
                this.made.push(Frame { octets: whole.into(), id: None });
                Outcome::Aside
            }
        }
    }

    /// What must become of an ICMP error: one about a number that one of our SAs has just used may
    /// be believed, never below what every path carries (RFC 791, RFC 8200 section 5).
    fn path_error<A: Aead>(
        &mut self,
        end: usize,
        (worker, id): (&Worker<A, MemIo>, WorkerId),
        error: &IcmpError,
    ) -> Outcome {
        let implausible = Outcome::Drop(DropReason::IcmpError);
        let (Some(spi), Some(seq), Reported::TooBig { mtu }) =
            (error.spi, error.seq, error.reported)
        else {
            return implausible;
        };
        let mut senders = worker.snapshot().senders.iter();
        let protocol = if error.protocol == ip::PROTOCOL_AH { Protocol::Ah } else { Protocol::Esp };
        let found = senders.find(|&(&key, _)| key == (protocol, spi, error.destination));
        let Some((_, location)) = found else {
            return implausible;
        };
        if location.worker != id {
            return Outcome::Handoff(location.worker);
        }
        let here = worker.spi_at(false, location.slot) == Some(spi);
        let Some(sender) = self.ends[end].senders.get_mut(&spi).filter(|_| here) else {
            return implausible;
        };
        // Behind the last number, modulo 2^32.
        let behind = (sender.last % (1 << 32) + (1 << 32) - u64::from(seq)) % (1 << 32);
        if behind >= path_mtu::RECENT.min(sender.last) {
            return implausible;
        }
        let mtu = match error.destination {
            IpAddr::V4(_) if mtu == 0 => plateau_below(error.len),
            // Less than every link carries is not heeded (RFC 8201 section 4).
            IpAddr::V6(_) if mtu < 1280 => return implausible,
            _ => mtu,
        };
        let least = if error.destination.is_ipv4() { 576 } else { 1280 };
        sender.told.push(u16::try_from(mtu).unwrap_or(u16::MAX).max(least));
        self.coverage.note(Happening::TooBigTold);
        Outcome::Drop(DropReason::PathMtu)
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
        let is_home = tunnel.outer[1 - sending] == outer.destination;
        if tunnel.protocol() != protocol || !(is_home || tunnel.lookup == Lookup::Spi) {
            return Err(format!("a packet to {} found an SA that is not its", outer.destination));
        }
        if receiver.was_expired {
            self.refuse_late(end, outer);
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
        let (seq, content) = (spent.seq, spent.content.clone());
        let here = &mut self.ends[end];
        let receiver = here.receivers.get_mut(&outer.spi).ok_or("no receiver")?;
        let is_newest = seq > receiver.window.top;
        if receiver.window.refuses(seq) {
            return Ok(Outcome::Drop(DropReason::Replay));
        }
        if receiver.life.is_over {
            self.refuse_late(end, outer);
            return Ok(Outcome::Drop(DropReason::Expired));
        }
        if !receiver.window.accept(seq) {
            return Ok(Outcome::Drop(DropReason::Replay));
        }
        receiver.life.count(covered(tunnel.algorithm, outer), self.now);
        // U10, U11: nothing else than this moves a peer.
        if outer.encapsulated && is_newest && tunnel.seen_at.is_some() {
            let from = (outer.source, outer.source_port);
            here.peers.entry(tunnel.index).or_default().insert(from);
        }
        match content {
            Content::Packet(packet, id) => self.unpacked(end, &tunnel, (&packet, id), outer, frame),
            Content::Dummy => Ok(Outcome::Drop(DropReason::Dummy)),
        }
    }

    /// A packet came after the time of its SA: that is no loss.
    fn refuse_late(&mut self, end: usize, outer: &Outer) {
        let Some(receiver) = self.ends[end].receivers.get(&outer.spi) else { return };
        let from = receiver.tunnel.ends[receiver.sender];
        let of_time = receiver.tunnel.seconds_max.is_some();
        let sender = self.ends[from].senders.get(&outer.spi).filter(|_| of_time);
        let spent = sender.and_then(|sender| sender.spent.get(&outer.seq));
        if let Some(Spent { content: Content::Packet(_, id), .. }) = spent {
            self.missing.remove(id);
        }
    }

    /// What must become of plaintext that came out of an SA.
    fn unpacked(
        &mut self,
        end: usize,
        tunnel: &Tunnel,
        (packet, id): (&[u8], u64),
        outer: &Outer,
        frame: &[u8],
    ) -> Checked<Outcome> {
        let mut packet = packet.to_vec();
        let mut header = ip::parse(&packet).map_err(|_| "no plaintext")?;
        // The sender has decremented it once.
        let mut ttl = header.ttl() - 1;
        let mut tos = header.tos();
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
        // RFC 3948 section 3.1.2: the checksum is right for the addresses as they came.
        if !is_tunnel && outer.encapsulated {
            finish_udp(&mut packet);
        }
        let frame = on_link(self.scenario, end, LAN, &packet);
        here.deliveries.insert(frame.into(), id);
        let padded = tunnel.tfc != TfcPadding::Off;
        let happened = [
            (Happening::TransportNat, !is_tunnel && tunnel.seen_at.is_some()),
            (Happening::Padded, padded),
            (Happening::FragmentDelivered, is_fragment(&packet)),
            (Happening::FoundBySpi, tunnel.lookup == Lookup::Spi),
            (Happening::FoundBySource, tunnel.lookup == Lookup::SpiDestinationSource),
        ];
        happened.iter().filter(|(_, yes)| *yes).for_each(|&(what, _)| self.coverage.note(what));
        Ok(Outcome::Sent)
    }

    /// What must become of a frame from the hosts.
    fn outbound<A: Aead>(
        &mut self,
        end: usize,
        (worker, id, handed_over): (&Worker<A, MemIo>, WorkerId, bool),
        queued: &Frame,
    ) -> Checked<Outcome> {
        let frame = &queued.octets[..];
        if self.is_for_another(end, LAN, frame) {
            return Ok(Outcome::Drop(DropReason::OtherHost));
        }
        let Ok(link) = ethernet::parse(frame) else {
            return Ok(Outcome::Drop(DropReason::Malformed));
        };
        if ![ethernet::ETHER_TYPE_IPV4, ethernet::ETHER_TYPE_IPV6].contains(&link.ether_type) {
            return Ok(Outcome::Punt);
        }
        let Some(packet) = of_family(&frame[link.payload_at..], link.ether_type) else {
            return Ok(Outcome::Drop(DropReason::Malformed));
        };
        let this = &mut self.ends[end];
        let flow = flow(packet.source(), packet.destination());
        let group = match first_match(&this.spd.outbound, &flow) {
            Some(Action::Protect(group)) => group,
            Some(Action::Bypass) => {
                let mtu = mtu(worker, packet.destination());
                return self.bypass((end, mtu), queued, link.payload_at, &packet);
            }
            Some(Action::Discard) => return Ok(Outcome::Drop(DropReason::Discard)),
            None => return Ok(Outcome::Drop(DropReason::NoPolicy)),
        };
        let members = worker.snapshot().groups.get(&group);
        let bundle = members.and_then(|members| lookup::outbound(members, id, handed_over));
        let Some(bundle) = bundle else {
            return Ok(Outcome::Drop(DropReason::NoOutboundSa));
        };
        let location = Location { worker: bundle.worker, slot: bundle.slots()[0] };
        let location = worker.place(false, location, handed_over);
        if location.worker != id {
            return Ok(Outcome::Handoff(location.worker));
        }
        let Some(spi) = worker.spi_at(false, location.slot) else {
            return Ok(Outcome::Drop(DropReason::NoOutboundSa));
        };
        let sender = this.senders.get_mut(&spi).ok_or("an SA of nobody")?;
        if Group(sender.tunnel.index.into()) != group {
            return Err(format!("SA {spi:#x} is not of {group:?}"));
        }
        let id = queued.id.ok_or("a packet without number")?;
        let hop_mtu = mtu(worker, sender.tunnel.outer[1 - sender.side]);
        let sealed = (&frame[link.payload_at..][..packet.total_len()], &packet, id);
        let is_transport = sender.tunnel.mode == Mode::Transport;
        let endpoint = if is_transport { endpoint(worker, spi) } else { None };
        let outcome = match sender.send(hop_mtu, sealed, endpoint, self.now) {
            Sending::Split(mtu) => Outcome::Split(split(queued, link.payload_at, sealed.0, mtu)),
            Sending::Sent(1) => Outcome::Sent,
            Sending::Sent(pieces) => Outcome::SentIn(pieces),
            Sending::Drop(reason) => {
                sender.dropped += 1;
                Outcome::Drop(reason)
            }
        };
        let is_by_bytes = sender.tunnel.bytes_max.is_some_and(|max| sender.life.bytes >= max);
        if is_by_bytes && matches!(outcome, Outcome::Drop(DropReason::Expired)) {
            self.coverage.note(Happening::EndInBytes);
        }
        Ok(outcome)
    }

    fn bypass(
        &mut self,
        (end, mtu): (usize, usize),
        frame: &Frame,
        at: usize,
        packet: &ip::Packet,
    ) -> Checked<Outcome> {
        if packet.ttl() <= 1 {
            return Ok(Outcome::Drop(DropReason::Ttl));
        }
        if packet.total_len() > mtu {
            return Ok(Outcome::Drop(DropReason::TooBig));
        }
        let id = frame.id.ok_or("a packet without number")?;
        let mut sent = frame.octets[at..][..packet.total_len()].to_vec();
        finish_header(&mut sent, packet.tos(), packet.ttl() - 1);
        let frame = on_link(self.scenario, end, WAN, &sent);
        self.ends[end].bypasses.insert(id, frame.into());
        Ok(Outcome::Sent)
    }

    /// A frame came out of a gateway's LAN port.
    pub(crate) fn delivered(&mut self, end: usize, frame: &[u8]) -> Checked<()> {
        let Some(id) = self.ends[end].deliveries.remove(frame) else {
            let id = find_id(frame);
            let mut expected = self.ends[end].deliveries.iter();
            let due = expected.find(|&(_, &due)| Some(due) == id).map(|(due, _)| due);
            return Err(match due {
                Some(due) => {
                    let at = due.iter().zip(frame).position(|(due, is)| due != is);
                    format!("packet {id:?} was delivered changed at octet {at:?}")
                }
                None => format!("packet {id:?} was delivered twice, or never accepted"),
            });
        };
        if let Some(octets) = self.missing.get_mut(&id) {
            *octets = octets.saturating_sub(content_len(frame));
            if *octets == 0 {
                self.missing.remove(&id);
            }
        }
        Ok(())
    }

    /// A frame came out of a gateway's WAN port.
    /// It was whole again, if it came in fragments, the largest of so many octets.
    pub(crate) fn emitted(
        &mut self,
        end: usize,
        frame: &[u8],
        fragment_max: Option<usize>,
    ) -> Checked<()> {
        let link = ethernet::parse(frame).map_err(|_| "no Ethernet header")?;
        let len = fragment_max.unwrap_or(frame.len() - link.payload_at);
        if len > usize::from(WAN_MTUS[0]) {
            return Err("more was sent than a link carries".into());
        }
        let (protocol, outer) = match esp::classify(frame) {
            Ok(Unprotected::Esp(outer)) => (Protocol::Esp, outer),
            Ok(Unprotected::Ah(outer)) => (Protocol::Ah, outer),
            Ok(_) if is_keepalive(frame) => {
                let this = &mut self.ends[end];
                let left = this.keepalives.checked_sub(1);
                this.keepalives = left.ok_or("a keepalive that was not due was sent")?;
                return Ok(());
            }
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
        let held: usize = gateway.workers.iter().map(|worker| worker.held()).sum();
        // What was held and is no longer was released as well.
        let released = actual.released - (actual.held - held as u64);
        let scalars = |c: &Counters, released| {
            let came = (c.received, c.taken, c.made, released);
            (came, c.handed_off, c.punted, c.split, c.reassembling, refused(c))
        };
        if scalars(&actual, released) != scalars(expected, expected.released) {
            return Err(format!("counters {actual:?}, expected {expected:?}"));
        }
        for &reason in DropReason::ALL.iter().filter(|&&r| is_exact(r)) {
            let (actual, expected) = (actual.dropped(reason), expected.dropped(reason));
            if actual != expected {
                return Err(format!("{actual} packets dropped as {reason}, not {expected}"));
            }
        }
        let left = actual.forwarded + actual.bypassed + actual.answered;
        let sent = left + lost_to_room(&actual) + held as u64;
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
        let packets = this.deliveries.len() + this.bypasses.len() + unsent;
        let waiting = packets as u64 + this.keepalives;
        let lost = lost_to_room(&gateway.counters());
        // Of one that was fragmented, several fragments may have had no room.
        if waiting != lost && !(this.has_split && waiting < lost) {
            return Err(format!("{waiting} packets never left, {lost} had no room"));
        }
        Ok(())
    }

    fn is_for_another(&self, end: usize, port: Port, frame: &[u8]) -> bool {
        self.scenario.filters_mac && frame.get(..6) != Some(&gateway_mac(end, port).0)
    }
}

impl End {
    /// A gateway that begins at time `now`.
    fn new(scenario: &Scenario, end: usize, now: u64) -> End {
        let workers = scenario.workers[end];
        End {
            queues: vec![Default::default(); workers],
            piles: vec![Piles::default(); workers],
            ticks: vec![now + TICK_NS; workers],
            made: Vec::new(),
            rings: [(); 2].map(|()| vec![vec![VecDeque::new(); workers]; workers]),
            spd: scenario.policies(end),
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            peers: BTreeMap::new(),
            counters: Counters::default(),
            sendable: 0,
            deliveries: BTreeMap::new(),
            bypasses: BTreeMap::new(),
            keepalives: 0,
            has_split: false,
        }
    }

    /// Counts fragments that are waited for no longer.
    fn count_gone(&mut self, gone: &[DropReason]) {
        self.counters.released += gone.len() as u64;
        gone.iter().for_each(|&reason| self.counters.dropped[reason as usize] += 1);
    }

    fn agrees(&self, sample: &SaSample) -> Checked<()> {
        let (life, number, dropped, is_exact) = if sample.inbound {
            let receiver = self.receivers.get(&sample.spi).ok_or("no receiver")?;
            (&receiver.life, receiver.window.top, receiver.dropped, true)
        } else {
            let sender = self.senders.get(&sample.spi).ok_or("no sender")?;
            (&sender.life, sender.last, sender.dropped, sender.tunnel.has_plain_lengths())
        };
        if is_exact && sample.bytes != life.bytes {
            let (spi, bytes) = (sample.spi, life.bytes);
            return Err(format!("SA {spi:#x}: {} octets, not {bytes}", sample.bytes));
        }
        let expected = (life.packets, number, dropped);
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

/// Frames with fragments of at most `mtu` octets of the packet that stands at `at` of a frame.
fn split(frame: &Frame, at: usize, packet: &[u8], mtu: usize) -> Vec<Frame> {
    let header = &frame.octets[..at];
    let pieces = fragments::split_v4(packet, mtu);
    let octets = pieces.iter().map(|piece| [header, piece].concat().into());
    octets.map(|octets| Frame { octets, id: frame.id }).collect()
}

/// Where the outbound SA with an SPI sends now.
fn endpoint<A: Aead>(worker: &Worker<A, MemIo>, spi: u32) -> Option<IpAddr> {
    let mut samples = worker.samples();
    let sample = samples.find(|sample| !sample.inbound && sample.spi == spi)?;
    Some(sample.destination)
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

/// An IP packet of the family that its Ethernet header says (RFC 894, RFC 2464 section 3).
fn of_family(packet: &[u8], ether_type: u16) -> Option<ip::Packet> {
    match ether_type {
        ethernet::ETHER_TYPE_IPV4 => ipv4::parse(packet).map(ip::Packet::V4).ok(),
        _ => ipv6::parse(packet).map(ip::Packet::V6).ok(),
    }
}

/// The MTU that a router may have meant which says none: the next of those that links have
/// (RFC 1191 section 7.1).
fn plateau_below(len: usize) -> u32 {
    let plateaus = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296];
    plateaus.into_iter().find(|&mtu| mtu < len).map_or(68, |mtu| u32::try_from(mtu).unwrap_or(68))
}
