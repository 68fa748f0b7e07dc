//! Plaintext to ESP and AH (RFC 4303 and 4302 section 3.3), a batch at a time, top to bottom.
//!
//! 1. *look*: read the headers of all packets, and ask for what the cache knows of their flows.
//! 2. *find*: the SA of each flow; ask for it.
//! 3. *wrap*: spend a sequence number and write all headers around the packet: trailer and room for
//!    the ICV behind, link, outer IP (and UDP) and ESP header and IV in front.
//! 4. *crypt*: seal all of them, whatever their SAs, in one call.
//!
//! The first two go some packets ahead of the third, so that what they ask for is there when it is
//! needed. What is not ordinary goes through `encapsulate` in step 3, packet by packet, and is
//! finished behind step 4. A number that was spent is never given back: a packet that fails later
//! leaves a gap, which receivers allow. The payload is never copied: the packet's ends move in its
//! frame.

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_aead::Op;
use culvert_esp::Expiry;
use culvert_esp::Layout;
use culvert_esp::head::ESP_AT;
use culvert_esp::head::HEAD_LEN;
use culvert_esp::template::Inherited;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Flow;
use culvert_wire::checksum;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;

use crate::crew::Lent;
use crate::encapsulate::Job;
use crate::encapsulate::Jobs;
use crate::encapsulate::Shape;
use crate::encapsulate::classify;
use crate::encapsulate::finish;
use crate::encapsulate::onward;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::flows::FlowKey;
use crate::mailbox::Notice;
use crate::plane::Plane;
use crate::tables;
use crate::tables::OutboundEntry;

/// What pass 2 has to seal of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Seal {
    /// [`NO_SLOT`] for nothing.
    slot: u32,
    esp_at: u16,
    esn_high: Option<u32>,
}

pub(crate) type Seals = [Seal; BATCH];

impl Seal {
    pub(crate) const NONE: Seal = Seal { slot: NO_SLOT, esp_at: 0, esn_high: None };

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a frame is small")]
    fn new(slot: u32, esp_at: usize, esn_high: Option<u32>) -> Seal {
        Seal { slot, esp_at: esp_at as u16, esn_high }
    }

    /// Nothing for AH, whose ICV covers what pass 3 does.
    pub(crate) fn of(job: &Job) -> Seal {
        match job.shape {
            Shape::Ah => Seal::NONE,
            Shape::Tunnel | Shape::Transport { .. } => {
                Seal::new(job.slot, job.esp_at, job.esn_high)
            }
        }
    }
}

/// What a look at the headers of a packet shows.
#[derive(Clone, Copy)]
struct Seen {
    kind: Kind,
    /// Which of the runs it is in.
    run: u8,
    /// The sender may have left its checksum to hardware.
    completes_checksum: bool,
    /// Where the IP packet starts, and its length.
    at: u8,
    len: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    /// Not for us, or no IP packet: [`classify`] says what.
    Other,
}

impl Seen {
    const OTHER: Seen =
        Seen { kind: Kind::Other, run: 0, completes_checksum: false, at: 0, len: 0 };
}

/// Packets of one flow, one after the other, but for [other](Kind::Other) ones between.
struct Run {
    key: FlowKey,
    /// Where the cache has the flow.
    flow_at: usize,
    /// The first packet.
    index: usize,
}

type Runs = ArrayVec<Run, BATCH>;

/// How many packets are looked at ahead of those that are wrapped: what was asked for takes as long
/// to come as some packets take, and headers of more frames than this do not stay in the nearest
/// cache, where they compete for the same few places.
const AHEAD: usize = 8;

/// The slot of a packet that is not for one SA alone.
const NO_SLOT: u32 = u32::MAX;

/// Runs a batch from the protected side; one verdict is appended for each packet, in order.
pub(crate) fn run<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
) {
    // One by one: several at once would be made elsewhere and moved.
    let mut all_seen = [Seen::OTHER; BATCH];
    let mut runs = Runs::new();
    let mut slots = [NO_SLOT; BATCH];
    let mut seals = [Seal::NONE; BATCH];
    let mut jobs = Jobs::new();
    let (mut wrapped, mut ahead, mut found) = (0, 0, 0);
    packets.iter().take(AHEAD).for_each(Packet::prefetch_header);
    while wrapped < packets.len() {
        let ready = ahead;
        ahead = (ahead + AHEAD).min(packets.len());
        let next = (ahead + AHEAD).min(packets.len());
        packets[ahead..next].iter().for_each(Packet::prefetch_header);
        let some = packets[ready..ahead].iter().zip(&mut all_seen[ready..ahead]);
        for (index, (packet, seen)) in (ready..).zip(some) {
            look(plane, packet, index, seen, &mut runs);
        }
        for (run, slot) in runs[found..].iter().zip(&mut slots[found..]) {
            *slot = find(plane, run, packets);
            fetch(plane, *slot);
        }
        found = runs.len();
        for index in wrapped..ready {
            let (packet, seen, seal) = (&mut packets[index], &all_seen[index], &mut seals[index]);
            let slot = slots[usize::from(seen.run) % BATCH];
            // The families are kept apart, so that headers stay in registers.
            let is_sealed = match seen.kind {
                Kind::V4 => wrap::<A, true>(plane, packet, (seen, slot), seal, verdicts),
                Kind::V6 => wrap::<A, false>(plane, packet, (seen, slot), seal, verdicts),
                Kind::Other => false,
            };
            if !is_sealed {
                apart(plane, packet, index, (seal, verdicts), &mut jobs);
            }
        }
        wrapped = ready;
    }
    crypt(plane, packets, &seals);
    if !jobs.is_empty() {
        finish_all(plane, packets, verdicts, jobs);
    }
}

/// Reads the headers of a packet, and asks for what the cache knows of its flow if it is not that
/// of the packet before. What is not for us, or no IP packet, is left [other](Kind::Other).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a batch is small, and so is a frame")]
fn look<A: Aead>(
    plane: &Plane<A>,
    packet: &Packet,
    index: usize,
    seen: &mut Seen,
    runs: &mut Runs,
) {
    let Some(port) = plane.port_of(packet) else {
        return;
    };
    let Some((ether_type, at)) = ethernet::payload(packet.data()) else {
        return;
    };
    let data = &packet.data()[at..];
    // The families are kept apart, so that headers stay in registers.
    match ether_type {
        ethernet::ETHER_TYPE_IPV4 => match ipv4::look_bare(data) {
            Some((len, addresses)) if !plane.looks_at_upper => {
                note_run(plane, FlowKey::between_v4(addresses), index, runs);
                (seen.kind, seen.len) = (Kind::V4, len);
            }
            _ => match look_again(plane, data, index, runs) {
                Some(found) => (seen.kind, seen.len) = found,
                None => return,
            },
        },
        ethernet::ETHER_TYPE_IPV6 => {
            let Ok(inner) = ipv6::parse(data) else {
                return;
            };
            match plane.looks_at_upper {
                false => note_run(plane, FlowKey::of_v6(&inner), index, runs),
                true => note_whole_run(plane, (data, &ip::Packet::V6(inner)), index, runs),
            }
            (seen.kind, seen.len) = (Kind::V6, (ipv6::HEADER_LEN + inner.payload_len) as u16);
        }
        _ => return,
    }
    seen.at = at as u8;
    seen.run = (runs.len() - 1) as u8;
    seen.completes_checksum = port.completes_checksums;
}

/// The rest of [`look`] for IPv4: headers with options, and where policies look at more than
/// addresses. What it is, and its length.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "a frame is small")]
fn look_again<A: Aead>(
    plane: &Plane<A>,
    data: &[u8],
    index: usize,
    runs: &mut Runs,
) -> Option<(Kind, u16)> {
    let inner = ipv4::parse(data).ok()?;
    match plane.looks_at_upper {
        false => note_run(plane, FlowKey::of_v4(&inner), index, runs),
        true => note_whole_run(plane, (data, &ip::Packet::V4(inner)), index, runs),
    }
    Some((Kind::V4, inner.total_len as u16))
}

/// Takes down the flow of a packet if it begins a run.
#[inline(always)]
fn note_run<A: Aead>(plane: &Plane<A>, key: FlowKey, index: usize, runs: &mut Runs) {
    if runs.last().is_none_or(|run| run.key != key) {
        let flow_at = plane.outbound_flows.ask(&key);
        runs.push(Run { key, flow_at, index });
    }
}

/// [`note_run`] where policies look at more than addresses.
#[inline(never)]
fn note_whole_run<A: Aead>(
    plane: &Plane<A>,
    (data, inner): (&[u8], &ip::Packet),
    index: usize,
    runs: &mut Runs,
) {
    note_run(plane, FlowKey::of(&Flow::of(data, inner)), index, runs);
}

/// The slot of the SA that policy gives a run to, if it is one SA of this worker.
#[inline(always)]
fn find<A: Aead>(plane: &mut Plane<A>, run: &Run, packets: &[Packet]) -> u32 {
    let known = match run.key {
        FlowKey::V4 { .. } => plane.outbound_flows.slot(run.flow_at, &run.key),
        FlowKey::V6 { .. } => plane.outbound_flows.slot(run.flow_at, &run.key),
    };
    match known {
        Some(slot) => slot,
        None => learn(plane, run, &packets[run.index]),
    }
}

/// Asks policy about a flow that the cache does not know.
#[cold]
fn learn<A: Aead>(plane: &mut Plane<A>, run: &Run, packet: &Packet) -> u32 {
    let flow = ethernet::payload(packet.data()).and_then(|(_, at)| {
        let data = &packet.data()[at..];
        Some(plane.flow(data, &ip::parse(data).ok()?))
    });
    let known = flow.map(|flow| plane.learn_outbound(&run.key, &flow));
    known.and_then(|known| known.slot).unwrap_or(NO_SLOT)
}

/// Asks for the SA in a slot to be fetched into the cache, but for its key: the AEAD asks for keys
/// while it works on other packets, and those of a whole batch would push each other, and the
/// packets, out of the nearest cache.
#[inline(always)]
fn fetch<A: Aead>(plane: &Plane<A>, slot: u32) {
    if let Some(entry) = plane.outbound.at(slot) {
        entry.prefetch(plane.all_common);
    }
}

/// The ordinary case, from the packet as it came to one that only has to be sealed: one SA, ESP in
/// tunnel mode without options, that knows its next hop and has numbers left, and a packet that
/// fits. False, and nothing has changed, when anything is different: then [`classify`] finds out
/// what.
#[inline(always)]
fn wrap<A: Aead, const IS_V4: bool>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    (seen, slot): (&Seen, u32),
    seal: &mut Seal,
    verdicts: &mut ArrayVec<Verdict, BATCH>,
) -> bool {
    let Some(entry) = plane.outbound.at_mut(slot) else {
        return false;
    };
    if entry.next_hop_generation != plane.next_hop_generation || entry.sa.is_expired() {
        return false;
    }
    let id = plane.ids.current();
    let wrapped = match entry.shape {
        tables::Shape::Common => wrap_commonly::<A::Key, IS_V4>(entry, packet, seen, id),
        tables::Shape::Plain => wrap_plainly::<A::Key, IS_V4>(entry, packet, seen, id),
        tables::Shape::Any => None,
    };
    let Some(Wrapped { esp_at, esn_high, spi, seq, text_len }) = wrapped else {
        return false;
    };
    plane.ids.advance();
    *seal = Seal::new(slot, esp_at, esn_high);
    let (fate, spi) = (Fate::Forward(entry.port), Some(spi));
    verdicts.push(Verdict { fate, spi, seq: Some(seq) });
    entry.sa.usage_mut().touch(plane.now);
    // Its number was quiet, so there is no news of numbers.
    if entry.sa.count(text_len) {
        expire(plane, slot);
    }
    true
}

/// A packet that has all its headers.
struct Wrapped {
    esp_at: usize,
    esn_high: Option<u32>,
    spi: u32,
    seq: u64,
    text_len: usize,
}

/// Puts all headers around a packet at once where they are drawn beforehand.
#[inline(always)]
fn wrap_commonly<K, const IS_V4: bool>(
    entry: &mut OutboundEntry<K>,
    packet: &mut Packet,
    seen: &Seen,
    id: u16,
) -> Option<Wrapped> {
    let (at, inner_len) = (usize::from(seen.at), usize::from(seen.len));
    let inherited = inherited_from::<IS_V4>(packet.data().get(at..)?.first_chunk()?);
    let len = HEAD_LEN + inner_len + Layout::COMMON.tail_len(inner_len);
    let total = len - ethernet::HEADER_LEN;
    let start = (packet.headroom() + at).checked_sub(HEAD_LEN)?;
    let sequence = &mut entry.sa.sequence;
    if inherited.ttl == 0 || total > usize::from(entry.mtu) || !sequence.is_quiet() {
        return None;
    }
    let data = packet.span(start, len)?;
    // Nothing fails from here on: all that could was looked at.
    let seq = sequence.next_quiet()?;
    let (head, inner) = data.split_first_chunk_mut()?;
    let text_len = finish_inner::<IS_V4>(inner, seen, Layout::COMMON);
    let (number, spi) = (seq.value(), entry.head.spi());
    #[expect(clippy::cast_possible_truncation, reason = "within the MTU")]
    let esn_high = entry.head.write(head, total as u16, (inherited, id), seq);
    Some(Wrapped { esp_at: ESP_AT, esn_high, spi, seq: number, text_len })
}

/// Puts all headers around a packet, whatever their lengths.
#[inline(always)]
fn wrap_plainly<K, const IS_V4: bool>(
    entry: &mut OutboundEntry<K>,
    packet: &mut Packet,
    seen: &Seen,
    id: u16,
) -> Option<Wrapped> {
    let (sa, hop) = (&mut entry.sa, entry.next_hop.as_ref()?);
    let (at, inner_len) = (usize::from(seen.at), usize::from(seen.len));
    let inherited = inherited_from::<IS_V4>(packet.data().get(at..)?.first_chunk()?);
    let layout = sa.layout();
    let text_at = usize::from(layout.text_at);
    let (link_len, outer_len) = (ethernet::header_len(hop.vlan), sa.template.len());
    let head_len = link_len + outer_len + text_at;
    let len = head_len + inner_len + layout.tail_len(inner_len);
    let start = (packet.headroom() + at).checked_sub(head_len)?;
    if inherited.ttl == 0 || len - link_len > usize::from(entry.mtu) || !sa.sequence.is_quiet() {
        return None;
    }
    let data = packet.span(start, len)?;
    // Nothing fails from here on: all that could was looked at.
    let seq = sa.sequence.next_quiet()?;
    let (link, outer) = data.split_at_mut(link_len);
    ethernet::emit(link, hop.destination, hop.source, hop.vlan, sa.template.ether_type());
    let (esp, inner) = outer[outer_len..].split_at_mut(text_at);
    let text_len = finish_inner::<IS_V4>(inner, seen, layout);
    let (number, spi) = (seq.value(), sa.spi().value());
    let esn_high = sa.write_header(esp, seq);
    sa.template.apply(outer, inherited, id);
    Some(Wrapped { esp_at: link_len + outer_len, esn_high, spi, seq: number, text_len })
}

/// Does to the packet inside what forwarding asks for, and writes what stands behind it; returns
/// the length of the text.
#[inline(always)]
fn finish_inner<const IS_V4: bool>(inner: &mut [u8], seen: &Seen, layout: Layout) -> usize {
    let len = usize::from(seen.len);
    if seen.completes_checksum {
        complete_checksum(&mut inner[..len]);
    }
    match IS_V4 {
        true => ipv4::decrement_ttl(inner),
        false => ipv6::decrement_hop_limit(inner),
    }
    let protocol = if IS_V4 { ip::PROTOCOL_IPIP } else { ip::PROTOCOL_IPV6 };
    len + layout.put_tail(&mut inner[len..], protocol)
}

/// What the outer header takes from a packet whose header begins so.
#[inline(always)]
fn inherited_from<const IS_V4: bool>(header: &[u8; ipv4::HEADER_LEN]) -> Inherited {
    let (tos, dont_fragment, ttl) = match IS_V4 {
        true => (header[1], header[6] & 0x40 != 0, header[8]),
        false => (header[0] << 4 | header[1] >> 4, true, header[7]),
    };
    Inherited { tos, dont_fragment, ttl: ttl.saturating_sub(1) }
}

/// Completes a checksum that the sender may have left to hardware.
#[inline(never)]
fn complete_checksum(packet: &mut [u8]) {
    if let Ok(parsed) = ip::parse(packet) {
        checksum::complete_partial(packet, &parsed);
    }
}

/// What is not the [ordinary case](wrap).
#[inline(never)]
fn apart<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    (seal, verdicts): (&mut Seal, &mut ArrayVec<Verdict, BATCH>),
    jobs: &mut Jobs,
) {
    let mut verdict = Verdict::new(Fate::Held);
    match classify(plane, packet, index, &mut verdict) {
        Ok(job) => {
            *seal = Seal::of(&job);
            jobs.push(job);
        }
        Err(fate) => verdict.fate = fate,
    }
    verdicts.push(verdict);
}

/// Pass 3 for what was set apart, and all passes again for those that have more SAs to go through.
#[inline(never)]
fn finish_all<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut [Verdict],
    mut jobs: Jobs,
) {
    while !jobs.is_empty() {
        let (mut seals, mut again) = ([Seal::NONE; BATCH], Jobs::new());
        for job in jobs {
            let (packet, verdict) = (&mut packets[job.index], &mut verdicts[job.index]);
            let fate = match finish(plane, packet, &job) {
                Ok(fate) => fate,
                Err(further) => match onward(plane, packet, job.index, further, verdict) {
                    Ok(job) => {
                        seals[job.index] = Seal::of(&job);
                        again.push(job);
                        continue;
                    }
                    Err(fate) => fate,
                },
            };
            verdict.fate = fate;
        }
        crypt(plane, packets, &seals);
        jobs = again;
    }
}

/// Seals what has its headers.
pub(crate) fn crypt<A: Aead>(plane: &mut Plane<A>, packets: &mut [Packet], seals: &Seals) {
    let seals = &seals[..packets.len()];
    let own = if plane.crew.is_some() { lend(plane, packets, seals) } else { seals.len() };
    let mut ops: ArrayVec<Op<'_, A::Key>, BATCH> = ArrayVec::new();
    for (packet, seal) in packets.iter_mut().zip(&seals[..own]) {
        if seal.slot != NO_SLOT {
            let entry = plane.outbound.at(seal.slot).expect("classify found the SA in this slot");
            let esp = &mut packet.data_mut()[usize::from(seal.esp_at)..];
            ops.push(Op { key: entry.sa.key(), esn_high: seal.esn_high, esp });
        }
    }
    plane.aead.seal(&mut ops);
    drop(ops);
    if own < seals.len()
        && let Plane { crew: Some(crew), aead, .. } = plane
    {
        crew.finish(aead, |packet, at, _| packets[at] = packet);
    }
}

/// Lends the last packets to other workers, if that pays; returns how many are left.
#[inline(never)]
fn lend<A: Aead>(plane: &mut Plane<A>, packets: &mut [Packet], seals: &[Seal]) -> usize {
    let Plane { crew: Some(crew), outbound, .. } = plane else { return seals.len() };
    let key = |seal: &Seal| outbound.at(seal.slot).and_then(|entry| entry.lent_key.as_ref());
    let octets = |(seal, packet): (&Seal, &Packet)| {
        key(seal).map(|_| packet.len() - usize::from(seal.esp_at))
    };
    let left = seals.len() - crew.share(seals.iter().zip(packets.iter()).map(octets));
    for (at, seal) in seals.iter().enumerate().skip(left) {
        let key = key(seal).expect("those without are not lent");
        let packet = packets[at].take_out();
        let esp = (usize::from(seal.esp_at), packet.len());
        crew.lend(true, Lent::new(packet, at, esp, seal.esn_high), key);
    }
    if left < seals.len() {
        crew.post();
    }
    left
}

/// Tells control of a limit that was reached.
#[cold]
pub(crate) fn expire<A: Aead>(plane: &mut Plane<A>, slot: u32) {
    let now = plane.now;
    let Some(entry) = plane.outbound.at_mut(slot) else {
        return;
    };
    let spi = entry.sa.spi().value();
    if let Some(expiry) = entry.sa.due(now) {
        tell_expiry(plane, slot, spi, expiry);
    }
}

/// Tells control of a limit that was reached, now or, if it does not listen, at a later tick.
pub(crate) fn tell_expiry<A: Aead>(plane: &mut Plane<A>, slot: u32, spi: u32, expiry: Expiry) {
    let told = plane.tell(Notice::Expire { inbound: false, slot, spi, expiry });
    if let Some(entry) = plane.outbound.at_mut(slot) {
        entry.untold = (!told).then_some(expiry);
    }
}
