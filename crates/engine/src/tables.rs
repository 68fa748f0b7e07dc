//! SAs in their slots.
//!
//! A worker's table has a fixed number of slots; control puts SAs into them by command. Where an SA
//! lives is published to all workers, so that any of them can find the owner: see
//! [`snapshot`](crate::snapshot).

use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_aead::Protocol;
use culvert_aead::prefetch::prefetch;
use culvert_aead::prefetch::prefetch_start;
use culvert_esp::Expiry;
use culvert_esp::Head;
use culvert_esp::InboundSa;
use culvert_esp::Lifetime;
use culvert_esp::Mode;
use culvert_esp::OutboundSa;
use culvert_esp::tfc::TfcPadding;
use culvert_frame::Port;
use culvert_frame::SlabBox;
use culvert_spd::Group;
use culvert_spd::Selector;
use culvert_wire::ethernet;
use culvert_wire::ethernet::ETHER_TYPE_IPV4;

use crate::fate::DropReason;
use crate::ids::WorkerId;
use crate::mailbox::Peer;
use crate::memo::Memo;
use crate::next_hop::NextHop;
use crate::options::Mss;
use crate::options::Receiving;
use crate::options::Sending;
use crate::path_mtu::PathMtu;

/// Most SAs of a bundle: the most that are applied to one packet.
pub const BUNDLE_MAX: usize = 4;

/// Where an SA lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Its slot in that worker's table of its direction.
    pub slot: u32,
}

/// A [`Location`], or none, as one number, which stays in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) const NONE: Place = Place(u64::MAX);

    #[inline(always)]
    pub(crate) fn of(location: Location) -> Place {
        Place(u64::from(location.worker.0) << 32 | u64::from(location.slot))
    }

    #[inline(always)]
    pub(crate) fn location(self) -> Option<Location> {
        #[expect(clippy::cast_possible_truncation, reason = "halves of the number")]
        let (worker, slot) = (WorkerId((self.0 >> 32) as u8), self.0 as u32);
        (self != Place::NONE).then_some(Location { worker, slot })
    }
}

/// Outbound SAs applied to one packet, innermost first: one, or an SA bundle (RFC 2401 section
/// 4.3). All of them live on one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The worker that owns all of them.
    pub worker: WorkerId,
    len: u8,
    slots: [u32; BUNDLE_MAX],
}

impl Bundle {
    /// A bundle of one SA.
    #[must_use]
    pub fn of(location: Location) -> Bundle {
        let mut slots = [0; BUNDLE_MAX];
        slots[0] = location.slot;
        Bundle { worker: location.worker, len: 1, slots }
    }

    /// A bundle with one more SA around it; `None` when that lives on another worker, or the bundle
    /// is as long as it may be.
    #[must_use]
    pub fn and(mut self, outer: Location) -> Option<Bundle> {
        let len = usize::from(self.len);
        if outer.worker != self.worker || len == BUNDLE_MAX {
            return None;
        }
        self.slots[len] = outer.slot;
        self.len += 1;
        Some(self)
    }

    /// Slots of its SAs at the worker.
    #[inline]
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        &self.slots[..usize::from(self.len)]
    }
}

/// The outbound SAs of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// For every worker that has none of its own: the fallback of RFC 9611 section 2.
    pub shared: Option<Bundle>,
    /// Those of single workers (RFC 9611).
    pub own: Vec<Bundle>,
}

impl Members {
    /// A group with one SA for all workers.
    #[must_use]
    pub fn shared(location: Location) -> Members {
        Members { shared: Some(Bundle::of(location)), own: Vec::new() }
    }

    /// The SAs that a worker's packets take, and whether it lacks some of its own while other
    /// workers have them. What another worker `handed_over` is here for those that serve all.
    #[inline]
    #[must_use]
    pub fn of(&self, worker: WorkerId, handed_over: bool) -> (Option<Bundle>, bool) {
        if self.own.is_empty() {
            return (self.shared, false);
        }
        if let Some(shared) = self.shared
            && handed_over
            && shared.worker == worker
        {
            return (self.shared, false);
        }
        match self.own.iter().find(|bundle| bundle.worker == worker) {
            Some(&bundle) => (Some(bundle), false),
            None => (self.shared, true),
        }
    }
}

/// An inbound SA in its slot. In the order of memory: what every packet needs comes first, and of
/// that two lines that are fetched as a pair.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct InboundEntry<K> {
    pub(crate) memo: Memo,
    /// The SA.
    pub sa: InboundSa<K>,
    /// Its key once more, for workers that [help](crate::crew); without one none does.
    pub lent_key: Option<Arc<K>>,
    /// ESP or AH.
    pub protocol: Protocol,
    /// What of a packet it protects.
    pub mode: Mode,
    /// The group that inbound policies must name for what comes out of the SA.
    pub group: Group,
    /// How it treats packets.
    pub receiving: Receiving,
    /// What may come out of it, whatever policies say; empty for no restriction.
    pub selectors: Vec<Selector>,
    /// Where the peer's encapsulated packets come from, as last reported.
    pub peer: Option<Peer>,
    /// Packets accepted although their padding was not the default one.
    pub padding_wrong: u64,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Its lifetime, which begins when a worker gets it.
    pub lifetime: Lifetime,
    pub(crate) started: bool,
    /// A limit that was reached, and that control has not heard of yet.
    pub(crate) untold: Option<Expiry>,
    pub(crate) ecn_told: bool,
}

impl<K> InboundEntry<K> {
    /// An entry without history, of a tunnel mode ESP SA.
    #[must_use]
    pub fn new(sa: InboundSa<K>, group: Group) -> InboundEntry<K> {
        InboundEntry {
            memo: Memo::NONE,
            sa,
            lent_key: None,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            group,
            receiving: Receiving::default(),
            selectors: Vec::new(),
            peer: None,
            padding_wrong: 0,
            dropped: [0; DropReason::COUNT],
            lifetime: Lifetime::UNLIMITED,
            started: false,
            untold: None,
            ecn_told: false,
        }
    }
}

impl<K> InboundEntry<K> {
    /// Begins its lifetime, if it has not begun: an SA that moves between workers keeps its own.
    pub(crate) fn start(&mut self, now: u64, number: u32) {
        // What it knew was of another worker's tables.
        self.memo = Memo::of(self, number);
        if !std::mem::replace(&mut self.started, true) {
            self.sa.usage_mut().start(self.lifetime, now);
        }
    }

    /// True when packets are to reach it through the SA of this group, its place in a bundle, or by
    /// themselves.
    #[inline(always)]
    pub(crate) fn is_within(&self, group: Option<Group>) -> bool {
        if self.memo.is_plain { group.is_none() } else { self.receiving.within == group }
    }

    /// Asks for what a packet from a peer needs of it, but for the key, to be fetched into the
    /// cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self, encapsulated: bool) {
        prefetch(&self.memo);
        self.sa.prefetch();
        if encapsulated {
            prefetch(&self.peer);
        }
    }
}

/// An outbound SA in its slot. What each packet needs comes first: a line that is only read, with
/// what depends on the next hop, and the first line of the SA, which is written. The two are
/// fetched as a pair.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct OutboundEntry<K> {
    /// The headers of [common](Shape::Common) packets.
    pub(crate) head: Head,
    /// Most octets of an IP packet to the next hop.
    pub(crate) mtu: u16,
    /// The port to it.
    pub(crate) port: Port,
    pub(crate) shape: Shape,
    /// The next hops that all of this was made of.
    pub(crate) next_hop_generation: u64,
    /// The SA.
    pub sa: OutboundSa<K>,
    pub(crate) next_hop: Option<NextHop>,
    pub(crate) path_mtu: PathMtu,
    /// Its key once more, for workers that [help](crate::crew); without one none does.
    pub lent_key: Option<Arc<K>>,
    /// ESP or AH.
    pub protocol: Protocol,
    /// What of a packet it protects.
    pub mode: Mode,
    /// How it treats packets.
    pub sending: Sending,
    /// Numbers left in the lease at which control is asked for the next one; 0 for no lease.
    pub lease_low: u64,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Its lifetime, which begins when a worker gets it.
    pub lifetime: Lifetime,
    pub(crate) started: bool,
    /// A limit that was reached, and that control has not heard of yet.
    pub(crate) untold: Option<Expiry>,
    pub(crate) lease_asked: bool,
    /// When a packet last left through it, and when the last dummy did; of the tick's clock.
    pub(crate) sent_at: u64,
    pub(crate) dummy_at: u64,
}

/// How much of a packet's headers is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// ESP in tunnel mode, nothing is to be done to packets but to seal them, and headers are
    /// [`Layout::COMMON`] behind an IPv4 header without UDP.
    Common,
    /// The same with other headers, all of which can be written before a packet is sealed.
    Plain,
    /// Anything else.
    Any,
}

const _: () = assert!(offset_of!(OutboundEntry<()>, sa) == 64, "the first line");

/// Lines of an outbound entry that a [common](Shape::Common) packet needs, its key apart, and that
/// a [plain](Shape::Plain) one needs besides its next hop.
const COMMON_LINES: usize = 2;
const PLAIN_LINES: usize = 4;

impl<K> OutboundEntry<K> {
    /// An entry without history, of a tunnel mode ESP SA.
    #[must_use]
    pub fn new(sa: OutboundSa<K>, lease_low: u64) -> OutboundEntry<K> {
        OutboundEntry {
            sa,
            lent_key: None,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            sending: Sending::default(),
            lease_low,
            dropped: [0; DropReason::COUNT],
            lifetime: Lifetime::UNLIMITED,
            started: false,
            untold: None,
            path_mtu: PathMtu::default(),
            head: Head::NONE,
            mtu: 0,
            port: Port(0),
            shape: Shape::Any,
            lease_asked: false,
            next_hop: None,
            next_hop_generation: 0,
            sent_at: 0,
            dummy_at: 0,
        }
    }
}

impl<K> OutboundEntry<K> {
    /// Begins its lifetime, if it has not begun: an SA that moves between workers keeps its own.
    pub(crate) fn start(&mut self, now: u64) {
        self.sa.sequence.set_margin(self.lease_low);
        // The cached next hop was of another worker's tables.
        self.next_hop_generation = 0;
        if !std::mem::replace(&mut self.started, true) {
            self.sa.usage_mut().start(self.lifetime, now);
            (self.sent_at, self.dummy_at) = (now, now);
        }
    }

    /// Sends to this next hop until there are others than those of `generation`.
    pub(crate) fn lead_to(&mut self, hop: NextHop, generation: u64) {
        let is_plain = (self.protocol, self.mode) == (Protocol::Esp, Mode::Tunnel)
            && (self.sending.mss, self.sending.tfc) == (Mss::Off, TfcPadding::Off)
            && !self.sa.template.covers_payload();
        let head = hop.vlan.is_none().then(|| {
            let mut link = [0; ethernet::HEADER_LEN];
            ethernet::emit(&mut link, hop.destination, hop.source, None, ETHER_TYPE_IPV4);
            Head::of(&self.sa, link)
        });
        (self.shape, self.head) = match (is_plain, head.flatten()) {
            (true, Some(head)) => (Shape::Common, head),
            (true, None) => (Shape::Plain, Head::NONE),
            (false, _) => (Shape::Any, Head::NONE),
        };
        (self.next_hop, self.port, self.next_hop_generation) = (Some(hop), hop.port, generation);
        self.set_mtu();
    }

    /// Asks for what a packet needs of it, but for the key, to be fetched into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self, is_common: bool) {
        if is_common {
            prefetch_start::<COMMON_LINES, _>(self);
        } else {
            prefetch_start::<PLAIN_LINES, _>(self);
            prefetch(&self.next_hop);
        }
    }

    /// Follows the next hop, or what was learned of the path.
    pub(crate) fn set_mtu(&mut self) {
        self.mtu = self.next_hop.map_or(0, |hop| self.path_mtu.limit(hop.mtu));
    }

    /// Sends to another peer from now on. An address of the other family changes nothing.
    pub(crate) fn retarget(&mut self, peer: Peer) {
        if self.sa.template.retarget(peer.address, peer.port).is_ok() {
            self.next_hop = None;
            self.next_hop_generation = 0;
            self.path_mtu = PathMtu::default();
        }
    }
}

/// What one SA did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaSample {
    /// Its SPI.
    pub spi: u32,
    /// True for inbound.
    pub inbound: bool,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Destination of its outer header: SPIs of outbound SAs are unique for each destination only.
    pub destination: IpAddr,
    /// Packets accepted or made.
    pub packets: u64,
    /// Octets of ESP text of those; of whole packets with AH.
    pub bytes: u64,
    /// When a packet last used it, in nanoseconds of the worker's clock; exact to a turn.
    pub last_used: Option<u64>,
    /// Numbers that never came before the window left them behind; inbound only.
    pub lost: u64,
    /// How far behind the highest number a packet was at most; inbound only.
    pub reorder_depth: u64,
    /// Packets accepted with padding that is not the default one; inbound only.
    pub padding_wrong: u64,
    /// The path MTU learned; outbound only.
    pub path_mtu: Option<u16>,
    /// Highest number accepted, or last number used.
    pub sequence: u64,
    /// Its packets dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

/// The SAs of one worker, by slot.
#[derive(Debug)]
pub(crate) struct Table<E> {
    slots: Vec<Option<SlabBox<E>>>,
}

impl<E> Table<E> {
    pub(crate) fn new(slots: usize) -> Table<E> {
        Table { slots: std::iter::repeat_with(|| None).take(slots).collect() }
    }

    #[inline]
    pub(crate) fn at(&self, slot: u32) -> Option<&E> {
        self.slots.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut E> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Puts an entry into a slot and returns what was there.
    ///
    /// # Panics
    /// When there is no such slot: control knows the size of the table.
    pub(crate) fn replace(&mut self, slot: u32, entry: Option<SlabBox<E>>) -> Option<SlabBox<E>> {
        std::mem::replace(&mut self.slots[slot as usize], entry)
    }

    /// Slots there are, used or not.
    #[expect(clippy::cast_possible_truncation, reason = "slots are numbered by u32")]
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }
}

impl<K> Table<InboundEntry<K>> {
    pub(crate) fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.entries().map(|entry| {
            let usage = entry.sa.usage();
            SaSample {
                spi: entry.sa.spi().value(),
                inbound: true,
                destination: entry.sa.destination(),
                protocol: entry.protocol,
                packets: usage.packets(),
                bytes: usage.bytes(),
                last_used: usage.last_used_ns(),
                sequence: entry.sa.highest(),
                lost: entry.sa.window().lost(),
                reorder_depth: entry.sa.window().reorder_depth(),
                padding_wrong: entry.padding_wrong,
                path_mtu: None,
                dropped: entry.dropped,
            }
        })
    }
}

impl<K> Table<OutboundEntry<K>> {
    pub(crate) fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.entries().map(|entry| {
            let usage = entry.sa.usage();
            SaSample {
                spi: entry.sa.spi().value(),
                inbound: false,
                destination: entry.sa.template.destination(),
                protocol: entry.protocol,
                packets: usage.packets(),
                bytes: usage.bytes(),
                last_used: usage.last_used_ns(),
                sequence: entry.sa.sequence.last(),
                lost: 0,
                reorder_depth: 0,
                padding_wrong: 0,
                path_mtu: entry.path_mtu.learned(),
                dropped: entry.dropped,
            }
        })
    }
}
