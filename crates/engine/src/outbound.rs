//! Plaintext to ESP (RFC 4303 section 3.3), a batch at a time, in three flat passes.
//!
//! 1. *classify*: parse the packet, ask policy, find the SA and its next hop, spend a sequence
//!    number, and make room: trailer and ICV behind, ESP header and IV in front.
//! 2. *crypt*: seal all of them, whatever their SAs, in one call.
//! 3. *finish*: outer IP (and UDP) header from the SA's template, Ethernet header of the next hop.
//!
//! A number that was spent is never given back: a packet that fails later leaves a gap, which
//! receivers allow. The payload is never copied: the packet's ends move inside its frame.

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_aead::ICV_LEN;
use culvert_aead::Op;
use culvert_aead::TEXT_AT;
use culvert_esp::OutboundSa;
use culvert_esp::SeqError;
use culvert_esp::template::Inherited;
use culvert_esp::trailer;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ip;

use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::mailbox::Event;
use crate::next_hop::Resolution;
use crate::worker::Plane;
use crate::worker::put_link_header;

/// What pass 1 found out about a packet that goes on to pass 2.
struct Job {
    index: usize,
    slot: u32,
    esn_high: Option<u32>,
    inherited: Inherited,
    /// The SA knows its next hop.
    reachable: bool,
}

type Jobs = ArrayVec<Job, BATCH>;

/// Runs a batch from the protected side; one verdict is appended for each packet, in order.
pub(crate) fn run<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
) {
    let mut jobs = Jobs::new();
    for (index, packet) in packets.iter_mut().enumerate() {
        let mut verdict = Verdict::new(Fate::Held);
        if let Err(fate) = classify(plane, packet, index, &mut verdict, &mut jobs) {
            verdict.fate = fate;
        }
        verdicts.push(verdict);
    }
    crypt(plane, packets, &jobs);
    for job in jobs {
        verdicts[job.index].fate = finish(plane, &mut packets[job.index], &job);
    }
}

/// Pass 1, for one packet: it adds a job, or says what becomes of the packet.
#[inline]
fn classify<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    verdict: &mut Verdict,
    jobs: &mut Jobs,
) -> Result<(), Fate> {
    if !plane.is_addressed_to_us(packet) {
        return Err(Fate::Drop(DropReason::OtherHost));
    }
    let malformed = |_| Fate::Drop(DropReason::Malformed);
    let link = ethernet::parse(packet.data()).map_err(malformed)?;
    if !matches!(link.ether_type, ethernet::ETHER_TYPE_IPV4 | ethernet::ETHER_TYPE_IPV6) {
        return Err(Fate::Punt);
    }
    let inner = ip::parse(&packet.data()[link.payload_at..]).map_err(malformed)?;
    let spd = &plane.snapshot.spd;
    let action = plane.outbound_flows.get_or(inner.addresses(), |_| {
        spd.outbound(&Flow { source: inner.source(), destination: inner.destination() })
    });
    let group = match action {
        Some(Action::Protect(group)) => group,
        Some(Action::Bypass) => return Err(bypass(plane, packet, &inner, link.payload_at)),
        Some(Action::Discard) => return Err(Fate::Drop(DropReason::Discard)),
        None => return Err(Fate::Drop(DropReason::NoPolicy)),
    };
    let Some(&location) = plane.snapshot.groups.get(&group) else {
        return Err(Fate::Drop(DropReason::NoOutboundSa));
    };
    if location.worker != plane.id {
        return Err(Fate::Handoff(location.worker));
    }
    let slot = location.slot;
    match encapsulate(plane, packet, &inner, link.payload_at, slot, verdict) {
        Ok((esn_high, inherited, reachable)) => {
            jobs.push(Job { index, slot, esn_high, inherited, reachable });
            Ok(())
        }
        Err(reason) => {
            if let Some(entry) = plane.outbound.at_mut(slot) {
                entry.dropped[reason as usize] += 1;
            }
            Err(Fate::Drop(reason))
        }
    }
}

/// Spends a sequence number of the SA in `slot` on a packet and makes it the ESP packet that pass 2
/// seals: from the SPI to the room for the ICV. Returns the high half of the number, what the outer
/// header inherits, and whether the next hop is known.
#[inline]
fn encapsulate<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    inner: &ip::Packet,
    inner_at: usize,
    slot: u32,
    verdict: &mut Verdict,
) -> Result<(Option<u32>, Inherited, bool), DropReason> {
    let completes =
        plane.ports[usize::from(packet.port().0)].is_some_and(|config| config.completes_checksums);
    let link_mtu = next_hop(plane, slot)?;
    let entry = plane.outbound.at_mut(slot).ok_or(DropReason::NoOutboundSa)?;
    verdict.spi = Some(entry.sa.spi().value());
    if inner.ttl() <= 1 {
        return Err(DropReason::Ttl);
    }
    let inner_len = inner.total_len();
    if link_mtu.is_some_and(|mtu| entry.sa.outer_len(inner_len) > mtu) {
        return Err(DropReason::TooBig);
    }

    let trimmed = packet.trim_front(inner_at).and_then(|()| packet.truncate(inner_len));
    assert!(trimmed.is_some(), "the packet was parsed inside this frame");
    let data = packet.data_mut();
    if completes {
        checksum::complete_partial(data, inner);
    }
    ip::decrement_ttl(data, inner);
    let (next_header, dont_fragment) = match inner {
        ip::Packet::V4(inner) => (ip::PROTOCOL_IPIP, inner.dont_fragment),
        ip::Packet::V6(_) => (ip::PROTOCOL_IPV6, true),
    };

    let tail_len = OutboundSa::<A::Key>::tail_len(inner_len);
    if packet.headroom() < TEXT_AT + entry.sa.template.len() + ethernet::HEADER_LEN {
        return Err(DropReason::NoRoom);
    }
    let tail = packet.append(tail_len).ok_or(DropReason::NoRoom)?;
    trailer::emit(&mut tail[..tail_len - ICV_LEN], next_header);
    let seq = spend(entry, &mut plane.events, slot)?;
    verdict.seq = Some(seq.value());
    let head = packet.prepend(TEXT_AT).and_then(|head| head.try_into().ok());
    let head = head.expect("headroom was checked");
    let esn_high = entry.sa.write_header(head, seq, inner_len + tail_len - ICV_LEN);
    let inherited = Inherited { tos: inner.tos(), dont_fragment };
    Ok((esn_high, inherited, link_mtu.is_some()))
}

/// Spends a sequence number, and asks for the next lease in time.
#[inline]
fn spend<K>(
    entry: &mut crate::tables::OutboundEntry<K>,
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
fn next_hop<A: Aead>(plane: &mut Plane<A>, slot: u32) -> Result<Option<usize>, DropReason> {
    let entry = plane.outbound.at_mut(slot).ok_or(DropReason::NoOutboundSa)?;
    if entry.next_hop_generation == plane.next_hop_generation {
        return Ok(entry.next_hop.as_ref().map(|hop| usize::from(hop.mtu)));
    }
    let hop = match plane.next_hops.resolve(entry.sa.template.destination()) {
        Resolution::Reachable(hop) => hop,
        Resolution::Unresolved(_) => return Ok(None),
        Resolution::Local => return Err(DropReason::Local),
        Resolution::NoRoute => return Err(DropReason::NoRoute),
    };
    entry.next_hop = Some(hop);
    entry.next_hop_generation = plane.next_hop_generation;
    Ok(Some(usize::from(hop.mtu)))
}

/// Forwards a packet in clear, as policy says.
fn bypass<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    inner: &ip::Packet,
    inner_at: usize,
) -> Fate {
    if inner.ttl() <= 1 {
        return Fate::Drop(DropReason::Ttl);
    }
    let hop = match plane.resolve(inner) {
        Resolution::Reachable(hop) if inner.total_len() > usize::from(hop.mtu) => {
            return Fate::Drop(DropReason::TooBig);
        }
        Resolution::Reachable(hop) => Some(hop),
        Resolution::Unresolved(_) => None,
        Resolution::Local => return Fate::Drop(DropReason::Local),
        Resolution::NoRoute => return Fate::Drop(DropReason::NoRoute),
    };
    let completes =
        plane.ports[usize::from(packet.port().0)].is_some_and(|config| config.completes_checksums);
    let trimmed = packet.trim_front(inner_at).and_then(|()| packet.truncate(inner.total_len()));
    assert!(trimmed.is_some(), "the packet was parsed inside this frame");
    if completes {
        checksum::complete_partial(packet.data_mut(), inner);
    }
    ip::decrement_ttl(packet.data_mut(), inner);
    let Some(hop) = hop else { return Fate::Held };
    match put_link_header(packet, &hop) {
        Fate::Forward(port) => Fate::Bypass(port),
        fate => fate,
    }
}

/// Pass 2.
fn crypt<A: Aead>(plane: &mut Plane<A>, packets: &mut [Packet], jobs: &Jobs) {
    let mut ops: ArrayVec<Op<'_, A::Key>, BATCH> = ArrayVec::new();
    let mut next = jobs.iter().peekable();
    for (index, packet) in packets.iter_mut().enumerate() {
        let Some(job) = next.next_if(|job| job.index == index) else {
            continue;
        };
        let entry = plane.outbound.at(job.slot).expect("classify found the SA in this slot");
        ops.push(Op { key: entry.sa.key(), esn_high: job.esn_high, esp: packet.data_mut() });
    }
    plane.aead.seal(&mut ops);
}

/// Pass 3, for one packet: outer headers, then the link header if the next hop is known.
#[inline]
fn finish<A: Aead>(plane: &mut Plane<A>, packet: &mut Packet, job: &Job) -> Fate {
    let entry = plane.outbound.at_mut(job.slot).expect("classify found the SA in this slot");
    let template = &mut entry.sa.template;
    let head = packet.prepend(template.len());
    assert!(head.is_some(), "headroom was checked");
    template.apply(packet.data_mut(), job.inherited);
    match &entry.next_hop {
        Some(hop) if job.reachable => put_link_header(packet, hop),
        _ => Fate::Held,
    }
}
