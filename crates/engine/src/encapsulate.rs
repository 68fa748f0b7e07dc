//! Outbound packets of every kind: any protocol and mode, bundles, packets that are too long, next
//! hops that are not known, ICMP errors, dummies; and those that are not protected.
//!
//! The ordinary ones, which are nearly all, never come here (`outbound`). The passes are the same:
//! [`classify`] makes a packet what can be sealed, [`finish`] adds what comes in front of that. A
//! packet for an SA bundle goes round once more for each SA of it, the innermost first.

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_esp::Mode;
use culvert_esp::SeqError;
use culvert_esp::template::Inherited;
use culvert_esp::tfc;
use culvert_esp::tfc::TfcPadding;
use culvert_esp::trailer;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Action;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::extension;
use culvert_wire::icmp::ErrorKind;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::udp;

use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::headers;
use crate::icmp;
use crate::mailbox::Event;
use crate::next_hop::Resolution;
use crate::options::Mss;
use crate::outbound::Seal;
use crate::outbound::crypt;
use crate::outbound::expire;
use crate::plane::Extra;
use crate::plane::Plane;
use crate::plane::Sent;
use crate::plane::Stop;
use crate::plane::may_be_fragmented;
use crate::plane::put_link_header;
use crate::size;
use crate::size::Fit;
use crate::tables;
use crate::tables::Bundle;
use crate::tables::Location;
use crate::tables::OutboundEntry;

/// TTL that a dummy packet has, for an SA that copies it.
const DUMMY_TTL: u8 = 64;

/// What pass 1 found out about a packet that goes on to pass 2.
pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) slot: u32,
    pub(crate) esn_high: Option<u32>,
    inherited: Inherited,
    /// Where ESP or AH starts, in a packet that for a tunnel of ESP starts there.
    pub(crate) esp_at: usize,
    pub(crate) shape: Shape,
    /// Octets of an outer packet that the path carries; `None` when the next hop is not known yet.
    path_mtu: Option<usize>,
    /// The SAs of the packet that are not applied when this one is.
    further: Option<Further>,
}

/// What of a bundle is left.
#[derive(Clone, Copy)]
pub(crate) struct Further {
    bundle: Bundle,
    applied: usize,
    is_small_v6: bool,
}

/// What pass 3 has to add.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The outer headers.
    Tunnel,
    /// Nothing: headers are in place. UDP may lie in front of ESP.
    Transport { encapsulated: bool },
    /// The ICV; headers are in place.
    Ah,
}

pub(crate) type Jobs = ArrayVec<Job, BATCH>;

/// Pass 1 for one packet of any kind: what is to be sealed, or what becomes of the packet.
pub(crate) fn classify<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    verdict: &mut Verdict,
) -> Result<Job, Fate> {
    if !plane.is_addressed_to_us(packet) {
        return Err(Fate::Drop(DropReason::OtherHost));
    }
    let malformed = |_| Fate::Drop(DropReason::Malformed);
    let link = ethernet::parse(packet.data()).map_err(malformed)?;
    let at = link.payload_at;
    let data = &packet.data()[at..];
    let inner = match link.ether_type {
        ethernet::ETHER_TYPE_IPV4 => ip::Packet::V4(ipv4::parse(data).map_err(malformed)?),
        ethernet::ETHER_TYPE_IPV6 => ip::Packet::V6(ipv6::parse(data).map_err(malformed)?),
        _ => return Err(Fate::Punt),
    };
    protect(plane, packet, (&inner, at), index, verdict)
}

/// Asks policy about a packet, and gives it to its SA.
fn protect<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    (inner, at): (&ip::Packet, usize),
    index: usize,
    verdict: &mut Verdict,
) -> Result<Job, Fate> {
    let matched = plane.outbound_policy(&packet.data()[at..], inner);
    let group = match matched.action {
        Some(Action::Protect(group)) => group,
        Some(Action::Bypass) => return Err(bypass(plane, packet, index, (at, inner))),
        Some(Action::Discard) => return Err(refuse(plane, packet, index, at, DropReason::Discard)),
        None => return unmatched(plane, packet, index, (*inner, at), verdict),
    };
    let (bundle, lacks_own) = match plane.snapshot.groups.get(&group) {
        Some(members) => members.of(plane.id, plane.handed_over),
        None => (None, false),
    };
    if (bundle.is_none() || lacks_own) && !plane.has_waited {
        let resource = lacks_own.then_some(plane.id);
        let policy = (matched.policy.unwrap_or(u32::MAX), group);
        plane.acquire(&packet.data()[at..], inner, policy, resource);
    }
    let Some(bundle) = bundle else {
        return Err(match plane.awaits_sa(index, group) {
            true => Fate::Held,
            false => refuse(plane, packet, index, at, DropReason::NoOutboundSa),
        });
    };
    let bundle = plane.bundle_here(bundle)?;
    let place = Place { index, applied: 0, is_small_v6: false };
    encapsulate(plane, packet, inner, at, (&bundle, place), verdict)
}

/// Drops what policy does not let through; its source may be told, and the audit is (RFC 4301
/// section 5.1.1).
#[cold]
fn refuse<A: Aead>(
    plane: &mut Plane<A>,
    packet: &Packet,
    index: usize,
    at: usize,
    reason: DropReason,
) -> Fate {
    plane.audit_sent(&Verdict::new(Fate::Drop(reason)), None, packet.data(), at);
    let kind = match reason {
        DropReason::NoOutboundSa => ErrorKind::Unreachable,
        _ => ErrorKind::Prohibited,
    };
    Fate::Drop(plane.stop(index, Stop::Tell(reason, kind), at, false))
}

/// What no policy matches is dropped, but for an ICMP error: that goes by the SA which carries what
/// would answer the packet it encloses, if there is one; none is asked for (RFC 4301 section 6.2).
#[cold]
fn unmatched<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    (inner, at): (ip::Packet, usize),
    verdict: &mut Verdict,
) -> Result<Job, Fate> {
    let Some(flow) = icmp::return_flow(&packet.data()[at..], &inner) else {
        return Err(refuse(plane, packet, index, at, DropReason::NoPolicy));
    };
    let bundle = match plane.snapshot.spd.outbound(&flow).action {
        Some(Action::Protect(group)) => plane.snapshot.groups.get(&group),
        _ => None,
    };
    let Some(bundle) = bundle.and_then(|members| members.of(plane.id, plane.handed_over).0) else {
        let fate = Fate::Drop(DropReason::IcmpUnmapped);
        plane.audit_sent(&Verdict { fate, ..*verdict }, None, packet.data(), at);
        return Err(fate);
    };
    let bundle = plane.bundle_here(bundle)?;
    let place = Place { index, applied: 0, is_small_v6: false };
    encapsulate(plane, packet, &inner, at, (&bundle, place), verdict)
}

/// Which packet of the batch, and how far it came through its bundle.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    applied: usize,
    /// It holds a packet that every IPv6 path carries, and goes out in fragments if need be.
    is_small_v6: bool,
}

/// Applies the next SA of a bundle to the packet at `at` of the frame: spends a sequence number and
/// makes the packet what pass 2 seals. The fate is an error only when the packet goes no further.
#[cold]
fn encapsulate<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    inner: &ip::Packet,
    at: usize,
    (bundle, place): (&Bundle, Place),
    verdict: &mut Verdict,
) -> Result<Job, Fate> {
    let slot = bundle.slots()[place.applied];
    let stopped = match prepare(plane, packet, inner, at, (bundle, place), verdict) {
        Ok(job) => return Ok(job),
        Err(stop) => stop,
    };
    let reason = match stopped {
        Stopped::Split { mtu } => {
            // No fragment shows enough for that.
            if completes_checksums(plane, packet) {
                checksum::complete_partial(&mut packet.data_mut()[at..], inner);
            }
            plane.note(place.index, Extra::SplitInner { at, mtu });
            return Err(Fate::Split);
        }
        // Once an SA was applied, the packet is ours, and its source has nothing to be told.
        Stopped::Stop(Stop::Tell(reason, _)) if place.applied > 0 => reason,
        Stopped::Stop(stop) => plane.stop(place.index, stop, at, false),
    };
    if let Some(entry) = plane.outbound.at_mut(slot) {
        entry.dropped[reason as usize] += 1;
        if entry.sa.is_due() {
            expire(plane, slot);
        }
    }
    if reason.is_auditable() {
        let verdict = Verdict { fate: Fate::Drop(reason), ..*verdict };
        // Once it has its SA, the frame is cut down to the packet.
        let at = if reason == DropReason::NoOutboundSa { at } else { 0 };
        plane.audit_sent(&verdict, Some(slot), packet.data(), at);
    }
    Err(Fate::Drop(reason))
}

/// Why a packet gets no SA applied.
enum Stopped {
    Stop(Stop),
    /// It must be fragmented first.
    Split {
        mtu: usize,
    },
}

impl From<DropReason> for Stopped {
    fn from(reason: DropReason) -> Stopped {
        Stopped::Stop(Stop::Drop(reason))
    }
}

/// True when the sender of a packet may have left its checksum to hardware.
#[inline]
pub(crate) fn completes_checksums<A: Aead>(plane: &Plane<A>, packet: &Packet) -> bool {
    plane.ports[usize::from(packet.port().0)].is_some_and(|config| config.completes_checksums)
}

#[inline]
fn prepare<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    inner: &ip::Packet,
    at: usize,
    (bundle, place): (&Bundle, Place),
    verdict: &mut Verdict,
) -> Result<Job, Stopped> {
    let slot = bundle.slots()[place.applied];
    let completes = completes_checksums(plane, packet);
    let path_mtu = path_mtu(plane, bundle, slot)?;
    let entry = plane.outbound.at_mut(slot).ok_or(DropReason::NoOutboundSa)?;
    verdict.spi = Some(entry.sa.spi().value());
    verdict.seq = None;
    if entry.sa.is_expired() {
        return Err(DropReason::Expired.into());
    }
    let first = place.applied == 0;
    if first && inner.ttl() <= 1 {
        let exceeded = Stop::Tell(DropReason::Ttl, ErrorKind::TimeExceeded);
        return Err(Stopped::Stop(exceeded));
    }
    let (protocol, mode) = (entry.protocol, entry.mode);
    let is_plain_tunnel = (protocol, mode) == (Protocol::Esp, Mode::Tunnel);
    let mut is_small_v6 = place.is_small_v6;
    if let Some(mtu) = path_mtu
        && first
        && (bundle.slots().len() > 1
            || !is_plain_tunnel
            || entry.sa.outer_len(inner.total_len()) > mtu)
    {
        let is_minimum = size::is_v6_minimum(inner);
        let packet = (&packet.data()[at..], inner, inherited(inner, is_minimum));
        is_small_v6 = judge_size(plane, bundle, packet, mtu)? && is_minimum;
    }
    headers::keep(packet, at, inner.total_len());
    let data = packet.data_mut();
    if first {
        if completes {
            checksum::complete_partial(data, inner);
        }
        ip::decrement_ttl(data, inner);
        let entry = plane.outbound.at(slot).ok_or(DropReason::NoOutboundSa)?;
        if entry.sending.mss != Mss::Off {
            size::clamp_mss(plane, bundle, data, inner, path_mtu);
        }
    }
    let inherited = inherited(inner, is_small_v6);
    let around = &bundle.slots()[place.applied + 1..];
    let spec = Spec { slot, inner, around, path_mtu, inherited };
    let made = apply(plane, packet, &spec, verdict, (protocol, mode))?;
    let Made { esn_high, inherited, esp_at, shape } = made;
    let (index, applied) = (place.index, place.applied + 1);
    let more = bundle.slots().len() > applied;
    let further = more.then_some(Further { bundle: *bundle, applied, is_small_v6 });
    Ok(Job { index, slot, esn_high, inherited, esp_at, shape, path_mtu, further })
}

/// True for a packet that is to be fragmented outside; it may have to be fragmented first, or is
/// too big.
#[cold]
fn judge_size<A: Aead>(
    plane: &Plane<A>,
    bundle: &Bundle,
    packet: (&[u8], &ip::Packet, Inherited),
    mtu: usize,
) -> Result<bool, Stopped> {
    match size::judge(plane, bundle, packet, mtu)? {
        Fit::Whole => Ok(false),
        Fit::Outside => Ok(true),
        Fit::Split { mtu } => Err(Stopped::Split { mtu }),
        Fit::TooBig { mtu } => {
            let kind = ErrorKind::TooBig { mtu };
            Err(Stopped::Stop(Stop::Tell(DropReason::TooBig, kind)))
        }
    }
}

/// What an SA is applied to.
struct Spec<'a> {
    slot: u32,
    inner: &'a ip::Packet,
    /// The SAs that are still to be applied after this one.
    around: &'a [u32],
    path_mtu: Option<usize>,
    inherited: Inherited,
}

/// What pass 2 and 3 must know of a packet.
struct Made {
    esn_high: Option<u32>,
    inherited: Inherited,
    esp_at: usize,
    shape: Shape,
}

/// What the outer header takes from the packet.
#[inline]
fn inherited(inner: &ip::Packet, is_small_v6: bool) -> Inherited {
    let dont_fragment = match inner {
        ip::Packet::V4(inner) => inner.dont_fragment,
        ip::Packet::V6(_) => !is_small_v6,
    };
    Inherited { tos: inner.tos(), dont_fragment, ttl: inner.ttl().saturating_sub(1) }
}

#[inline]
fn tunnel_protocol(inner: &ip::Packet) -> u8 {
    match inner {
        ip::Packet::V4(_) => ip::PROTOCOL_IPIP,
        ip::Packet::V6(_) => ip::PROTOCOL_IPV6,
    }
}

/// ESP in tunnel mode: header and IV in front of the packet, padding, trailer and room for the ICV
/// behind it. The outer headers come in pass 3.
#[inline]
fn tunnel<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    spec: &Spec<'_>,
    verdict: &mut Verdict,
) -> Result<Made, DropReason> {
    let mtu = spec.path_mtu.map(|mtu| size::room_within(plane, spec.slot, spec.around, mtu));
    let entry = plane.outbound.at_mut(spec.slot).ok_or(DropReason::NoOutboundSa)?;
    let layout = entry.sa.layout();
    let text_at = usize::from(layout.text_at);
    if packet.headroom() < text_at + entry.sa.template.len() + ethernet::HEADER_LEN {
        return Err(DropReason::NoRoom);
    }
    if entry.sending.tfc != TfcPadding::Off {
        pad_for_secrecy(entry, packet, mtu)?;
    }
    let tail_len = layout.tail_len(packet.len());
    let icv_len = usize::from(layout.icv_len);
    let tail = packet.append(tail_len).ok_or(DropReason::NoRoom)?;
    trailer::emit(&mut tail[..tail_len - icv_len], tunnel_protocol(spec.inner));
    let text_len = packet.len() - icv_len;
    let seq = spend(entry, &mut plane.events, spec.slot)?;
    verdict.seq = Some(seq.value());
    let head = packet.prepend(text_at).expect("headroom was checked");
    let esn_high = entry.sa.write_header(head, seq);
    entry.sa.count(text_len);
    Ok(Made { esn_high, inherited: spec.inherited, esp_at: 0, shape: Shape::Tunnel })
}

/// Traffic flow confidentiality padding: behind the packet, whose length field tells it apart
/// (RFC 4303 section 2.7).
#[cold]
fn pad_for_secrecy<K>(
    entry: &OutboundEntry<K>,
    packet: &mut Packet,
    path_mtu: Option<usize>,
) -> Result<(), DropReason> {
    let carried = path_mtu.and_then(|mtu| entry.sa.payload_len_max(mtu)).unwrap_or(packet.len());
    let room = packet.len() + packet.tailroom();
    let most =
        carried.min(room.saturating_sub(entry.sa.layout().tail_len(0) + trailer::PAD_LEN_MAX));
    let padded = entry.sending.tfc.padded_len(packet.len(), most);
    let added = padded - packet.len();
    packet.append(added).ok_or(DropReason::NoRoom)?.fill(0);
    Ok(())
}

/// Applies an SA of any kind. In transport mode, and for AH, the headers are put in place now.
fn apply<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    spec: &Spec<'_>,
    verdict: &mut Verdict,
    (protocol, mode): (Protocol, Mode),
) -> Result<Made, DropReason> {
    let made = match (protocol, mode) {
        (Protocol::Esp, Mode::Tunnel) => tunnel(plane, packet, spec, verdict),
        (Protocol::Esp, Mode::Transport) => transport(plane, packet, spec, verdict),
        (Protocol::Ah, Mode::Tunnel) => ah_tunnel(plane, packet, spec, verdict),
        (Protocol::Ah, Mode::Transport) => ah_transport(plane, packet, spec, verdict),
    }?;
    let now = plane.now;
    if let Some(entry) = plane.outbound.at_mut(spec.slot) {
        entry.sa.usage_mut().touch(now);
        if entry.sa.is_due() {
            expire(plane, spec.slot);
        }
    }
    Ok(made)
}

/// Where a transport mode header goes. Never into a fragment (RFC 4303 section 3.3.4), and only
/// into packets between the SA's own endpoints (RFC 4301 section 4.1).
fn insertion<K>(
    entry: &OutboundEntry<K>,
    packet: &Packet,
    inner: &ip::Packet,
) -> Result<extension::Insertion, DropReason> {
    let insertion =
        extension::insertion(packet.data(), inner).map_err(|_| DropReason::Malformed)?;
    if insertion.is_fragment {
        return Err(DropReason::Fragment);
    }
    let endpoints = (entry.sa.template.source(), entry.sa.template.destination());
    if endpoints != (inner.source(), inner.destination()) {
        return Err(DropReason::Selector);
    }
    Ok(insertion)
}

fn transport<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    spec: &Spec<'_>,
    verdict: &mut Verdict,
) -> Result<Made, DropReason> {
    let entry = plane.outbound.at_mut(spec.slot).ok_or(DropReason::NoOutboundSa)?;
    let insertion = insertion(entry, packet, spec.inner)?;
    let layout = entry.sa.layout();
    let (text_at, icv_len) = (usize::from(layout.text_at), usize::from(layout.icv_len));
    let encapsulation = entry.sa.template.encapsulation();
    let udp_len = if encapsulation.is_some() { udp::HEADER_LEN } else { 0 };
    let payload_len = packet.len() - insertion.insert_at;
    let tail_len = layout.tail_len(payload_len);
    let tail = packet.append(tail_len).ok_or(DropReason::NoRoom)?;
    trailer::emit(&mut tail[..tail_len - icv_len], insertion.insert_protocol);
    let text_len = payload_len + tail_len - icv_len;
    if !headers::open_gap(packet, insertion.insert_at, udp_len + text_at) {
        return Err(DropReason::NoRoom);
    }
    let seq = spend(entry, &mut plane.events, spec.slot)?;
    verdict.seq = Some(seq.value());
    let data = packet.data_mut();
    let protocol = if encapsulation.is_some() { ip::PROTOCOL_UDP } else { ip::PROTOCOL_ESP };
    headers::announce(data, spec.inner, insertion.announced_at, protocol);
    let esp_at = insertion.insert_at + udp_len;
    let esn_high = entry.sa.write_header(&mut data[esp_at..esp_at + text_at], seq);
    entry.sa.count(text_len);
    let shape = Shape::Transport { encapsulated: encapsulation.is_some() };
    Ok(Made { esn_high, inherited: spec.inherited, esp_at, shape })
}

fn ah_transport<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    spec: &Spec<'_>,
    verdict: &mut Verdict,
) -> Result<Made, DropReason> {
    let whole = headers::drop_fragment_header(packet, spec.inner);
    let inner = whole.as_ref().unwrap_or(spec.inner);
    let entry = plane.outbound.at_mut(spec.slot).ok_or(DropReason::NoOutboundSa)?;
    let insertion = insertion(entry, packet, inner)?;
    let ah_len = entry.sa.layout().header_len(matches!(inner, ip::Packet::V4(_)));
    if !headers::open_gap(packet, insertion.insert_at, ah_len) {
        return Err(DropReason::NoRoom);
    }
    let seq = spend(entry, &mut plane.events, spec.slot)?;
    verdict.seq = Some(seq.value());
    let data = packet.data_mut();
    headers::announce(data, inner, insertion.announced_at, ip::PROTOCOL_AH);
    let (len, esp_at) = (data.len(), insertion.insert_at);
    let header = &mut data[esp_at..esp_at + ah_len];
    let esn_high = entry.sa.write_ah(header, insertion.insert_protocol, seq, len);
    Ok(Made { esn_high, inherited: spec.inherited, esp_at, shape: Shape::Ah })
}

fn ah_tunnel<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    spec: &Spec<'_>,
    verdict: &mut Verdict,
) -> Result<Made, DropReason> {
    let id = plane.identification();
    let entry = plane.outbound.at_mut(spec.slot).ok_or(DropReason::NoOutboundSa)?;
    let esp_at = entry.sa.template.len();
    let ah_len = entry.sa.layout().header_len(entry.sa.template.is_v4());
    if packet.headroom() < ah_len + esp_at + ethernet::HEADER_LEN {
        return Err(DropReason::NoRoom);
    }
    let seq = spend(entry, &mut plane.events, spec.slot)?;
    verdict.seq = Some(seq.value());
    let head = packet.prepend(ah_len + esp_at);
    assert!(head.is_some(), "headroom was checked");
    let inherited = spec.inherited;
    let data = packet.data_mut();
    let len = data.len();
    let header = &mut data[esp_at..esp_at + ah_len];
    let esn_high = entry.sa.write_ah(header, tunnel_protocol(spec.inner), seq, len);
    entry.sa.template.apply(data, inherited, id);
    Ok(Made { esn_high, inherited, esp_at, shape: Shape::Ah })
}

/// Spends a sequence number, and asks for the next lease in time.
#[inline]
fn spend<K>(
    entry: &mut OutboundEntry<K>,
    events: &mut crate::mailbox::WorkerEnd<K>,
    slot: u32,
) -> Result<culvert_esp::SeqNo, DropReason> {
    let sequence = &mut entry.sa.sequence;
    let spent = sequence.next_seq();
    let low = sequence.remaining() < entry.lease_low && sequence.can_grow();
    if low && !entry.lease_asked {
        entry.lease_asked = events.tell(Event::LeaseLow { slot, last: sequence.last() });
    }
    spent.map_err(|error| match error {
        SeqError::Exhausted => DropReason::SequenceExhausted,
        SeqError::Lease => DropReason::SequenceLease,
    })
}

/// Sees to it that the SA in `slot` has its next hop, which it keeps while the kernel's tables stay
/// the same. Returns the MTU of the link, or `None` when the next hop must be resolved first.
#[inline]
fn next_hop<A: Aead>(plane: &mut Plane<A>, slot: u32) -> Result<Option<u16>, DropReason> {
    let entry = plane.outbound.at_mut(slot).ok_or(DropReason::NoOutboundSa)?;
    if entry.next_hop_generation == plane.next_hop_generation {
        return Ok(entry.next_hop.map(|hop| hop.mtu));
    }
    let hop = match plane.next_hops.resolve(entry.sa.template.destination()) {
        Resolution::Reachable(hop) => hop,
        Resolution::Unresolved(_) => return Ok(None),
        Resolution::Local => return Err(DropReason::Local),
        Resolution::NoRoute => return Err(DropReason::NoRoute),
    };
    entry.lead_to(hop, plane.next_hop_generation);
    plane.all_common &= entry.shape == tables::Shape::Common;
    Ok(Some(hop.mtu))
}

/// What the path of a bundle carries, for its SA in `slot`: packets go to where the last one sends
/// them, and none may be larger than what was learned of the way of either. `None` when the next
/// hop must be resolved first.
#[inline]
fn path_mtu<A: Aead>(
    plane: &mut Plane<A>,
    bundle: &Bundle,
    slot: u32,
) -> Result<Option<usize>, DropReason> {
    let last = bundle.slots().last().copied().unwrap_or(slot);
    let Some(link) = next_hop(plane, last)? else {
        return Ok(None);
    };
    let limit = |slot, mtu| plane.outbound.at(slot).map_or(mtu, |entry| entry.path_mtu.limit(mtu));
    Ok(Some(usize::from(limit(slot, limit(last, link)))))
}

/// Forwards a packet in clear, as policy says.
fn bypass<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    (at, inner): (usize, &ip::Packet),
) -> Fate {
    let way = match plane.way(inner, false) {
        Ok(way) => way,
        Err(stop) => return Fate::Drop(plane.stop(index, stop, at, false)),
    };
    let completes = completes_checksums(plane, packet);
    headers::keep(packet, at, inner.total_len());
    if completes {
        checksum::complete_partial(packet.data_mut(), inner);
    }
    ip::decrement_ttl(packet.data_mut(), inner);
    plane.send(index, packet, way, Sent::InClear)
}

/// Pass 3, for one packet: outer headers, then the link header if the next hop is known. An error
/// is what is left of the packet's bundle, when it has more SAs to apply.
pub(crate) fn finish<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    job: &Job,
) -> Result<Fate, Further> {
    if job.shape != Shape::Tunnel || job.further.is_some() {
        return finish_unusual(plane, packet, job);
    }
    add_outer_headers(plane, packet, job);
    Ok(leave(plane, packet, job))
}

/// Puts the outer headers of a tunnel in front.
fn add_outer_headers<A: Aead>(plane: &mut Plane<A>, packet: &mut Packet, job: &Job) {
    let id = plane.identification();
    let entry = plane.outbound.at(job.slot).expect("classify found the SA in this slot");
    let template = &entry.sa.template;
    let head = packet.prepend(template.len());
    assert!(head.is_some(), "headroom was checked");
    template.apply(packet.data_mut(), job.inherited, id);
}

/// The fate of a packet that has all its SAs: out of the port of its next hop, if that is known.
fn leave<A: Aead>(plane: &mut Plane<A>, packet: &mut Packet, job: &Job) -> Fate {
    let entry = plane.outbound.at(job.slot).expect("classify found the SA in this slot");
    let (Some(hop), Some(mtu)) = (entry.next_hop, job.path_mtu) else {
        return Fate::Held;
    };
    if packet.len() > mtu {
        return split_outside(plane, packet, job, (hop, mtu));
    }
    match put_link_header(packet, &hop) {
        true => Fate::Forward(hop.port),
        false => refuse_sealed(plane, job, DropReason::NoRoom),
    }
}

/// A packet that was sealed, and cannot leave.
#[cold]
fn refuse_sealed<A: Aead>(plane: &mut Plane<A>, job: &Job, reason: DropReason) -> Fate {
    if let Some(entry) = plane.outbound.at_mut(job.slot) {
        entry.dropped[reason as usize] += 1;
    }
    Fate::Drop(reason)
}

/// [`finish`] for AH, transport mode, and bundles.
#[cold]
fn finish_unusual<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    job: &Job,
) -> Result<Fate, Further> {
    match job.shape {
        Shape::Tunnel => add_outer_headers(plane, packet, job),
        Shape::Transport { encapsulated: false } => {}
        Shape::Transport { encapsulated: true } => {
            let entry = plane.outbound.at(job.slot).expect("classify found the SA in this slot");
            let at = job.esp_at - udp::HEADER_LEN;
            entry.sa.template.apply_udp(&mut packet.data_mut()[at..]);
        }
        Shape::Ah => {
            let entry = plane.outbound.at(job.slot).expect("classify found the SA in this slot");
            let (key, esn_high) = (entry.sa.key(), job.esn_high);
            let data = packet.data_mut();
            if !headers::seal_ah(&mut plane.aead, key, esn_high, data, job.esp_at) {
                return Ok(refuse_sealed(plane, job, DropReason::Malformed));
            }
        }
    }
    match job.further {
        Some(further) => Err(further),
        None => Ok(leave(plane, packet, job)),
    }
}

#[cold]
fn split_outside<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    job: &Job,
    (hop, mtu): (crate::next_hop::NextHop, usize),
) -> Fate {
    match ip::parse(packet.data()) {
        Ok(outer @ ip::Packet::V4(_)) if !may_be_fragmented(&outer) => {
            refuse_sealed(plane, job, DropReason::TooBig)
        }
        Ok(_) => {
            let fate = Fate::Forward(hop.port);
            plane.note(job.index, Extra::SplitOuter { hop, mtu, fate });
            Fate::Split
        }
        Err(_) => refuse_sealed(plane, job, DropReason::Malformed),
    }
}

/// Applies the next SA of a bundle to a packet that the one before has finished.
#[cold]
pub(crate) fn onward<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    further: Further,
    verdict: &mut Verdict,
) -> Result<Job, Fate> {
    let parsed = ip::parse(packet.data()).map_err(|_| Fate::Drop(DropReason::Malformed))?;
    let Further { applied, is_small_v6, .. } = further;
    let place = Place { index, applied, is_small_v6 };
    encapsulate(plane, packet, &parsed, 0, (&further.bundle, place), verdict)
}

/// Makes a dummy packet (RFC 4303 section 2.6) out of an empty one, with the SAs around its own,
/// and says what becomes of it.
pub(crate) fn dummy<A: Aead>(plane: &mut Plane<A>, packet: &mut Packet, slot: u32) -> Fate {
    let mut job = match dummy_job(plane, packet, slot) {
        Ok(job) => job,
        Err(reason) => return Fate::Drop(reason),
    };
    loop {
        let mut seals = [Seal::NONE; BATCH];
        seals[0] = Seal::of(&job);
        crypt(plane, std::slice::from_mut(packet), &seals);
        let further = match finish(plane, packet, &job) {
            Ok(fate) => return fate,
            Err(further) => further,
        };
        let mut verdict = Verdict::new(Fate::Held);
        job = match onward(plane, packet, 0, further, &mut verdict) {
            Ok(job) => job,
            Err(fate) => return fate,
        };
    }
}

/// The SA in `slot` with those around it in its bundle; alone when it is in none.
fn bundle_of<A: Aead>(plane: &Plane<A>, slot: u32) -> (Bundle, usize) {
    let here = plane.snapshot.bundles.iter().filter(|bundle| bundle.worker == plane.id);
    let mut places = here.filter_map(|bundle| {
        Some((*bundle, bundle.slots().iter().position(|&member| member == slot)?))
    });
    let alone = Bundle::of(Location { worker: plane.id, slot });
    places.next().unwrap_or((alone, 0))
}

fn dummy_job<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    slot: u32,
) -> Result<Job, DropReason> {
    let (bundle, place) = bundle_of(plane, slot);
    let around = &bundle.slots()[place + 1..];
    let path_mtu = path_mtu(plane, &bundle, slot)?;
    let mtu = path_mtu.map(|mtu| size::room_within(plane, slot, around, mtu));
    let entry = plane.outbound.at_mut(slot).ok_or(DropReason::NoOutboundSa)?;
    if entry.sa.is_expired() {
        return Err(DropReason::Expired);
    }
    let layout = entry.sa.layout();
    let (seed, number) = (u64::from(entry.sa.spi().value()), entry.sa.sequence.last());
    let most = match mtu {
        Some(mtu) => entry.sa.payload_len_max(mtu).ok_or(DropReason::TooBig)?,
        None => 0,
    };
    let room = packet.tailroom().saturating_sub(layout.tail_len(0) + trailer::PAD_LEN_MAX);
    let payload = tfc::dummy_len(seed, number, most.min(room));
    tfc::fill_dummy(packet.append(payload).ok_or(DropReason::NoRoom)?, seed, number);
    let (tail_len, icv_len) = (layout.tail_len(payload), usize::from(layout.icv_len));
    let tail = packet.append(tail_len).ok_or(DropReason::NoRoom)?;
    trailer::emit(&mut tail[..tail_len - icv_len], tfc::NEXT_HEADER_DUMMY);
    let text_len = packet.len() - icv_len;
    let seq = spend(entry, &mut plane.events, slot)?;
    let head = packet.prepend(usize::from(layout.text_at)).ok_or(DropReason::NoRoom)?;
    let esn_high = entry.sa.write_header(head, seq);
    entry.sa.count(text_len);
    if entry.sa.is_due() {
        expire(plane, slot);
    }
    let inherited = Inherited { tos: 0, dont_fragment: false, ttl: DUMMY_TTL };
    let applied = place + 1;
    let further =
        (applied < bundle.slots().len()).then_some(Further { bundle, applied, is_small_v6: false });
    let shape = Shape::Tunnel;
    Ok(Job { index: 0, slot, esn_high, inherited, esp_at: 0, shape, path_mtu, further })
}
