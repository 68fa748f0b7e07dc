//! ESP and AH to plaintext (RFC 4303 and 4302 section 3.4), a batch at a time, in three passes.
//!
//! 1. *classify*: parse the outer headers, find the SA, check the sequence number against its
//!    window. Nothing here is trusted, and nothing of the SA changes.
//! 2. *crypt*: verify and decrypt all that are left, whatever their SAs, in one call.
//! 3. *finish*: accept the number (once), strip the trailer, check the inner packet against policy,
//!    decrement its TTL, and put the Ethernet header of its next hop in front.
//!
//! What comes out of an SA and is for another SA again goes round once more: a bundle, a tunnel in
//! a tunnel. The payload is never copied: the packet's ends move inside its frame.

use std::ops::Range;

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_aead::Op;
use culvert_aead::Protocol;
use culvert_aead::Status;
use culvert_esp::Candidate;
use culvert_esp::Expiry;
use culvert_esp::Mode;
use culvert_esp::ecn;
use culvert_esp::ecn::DscpPolicy;
use culvert_esp::trailer;
use culvert_esp::trailer::PaddingCheck;
use culvert_esp::trailer::TrailerError;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Action;
use culvert_spd::Group;
use culvert_wire::Malformed;
use culvert_wire::esp;
use culvert_wire::esp::FragmentOf;
use culvert_wire::esp::Spot;
use culvert_wire::esp::Unprotected;
use culvert_wire::ethernet;
use culvert_wire::ip;
use culvert_wire::ipv4;
use culvert_wire::ipv6;
use culvert_wire::udp;

use crate::audit::Mismatch;
use crate::crew::Lent;
use crate::directory::Directory;
use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::headers;
use crate::icmp;
use crate::mailbox::Notice;
use crate::mailbox::PacketStart;
use crate::mailbox::Peer;
use crate::next_hop::Resolution;
use crate::plane::Plane;
use crate::plane::Sent;
use crate::plane::Stop;
use crate::plane::Way;
use crate::plane::put_link_header;
use crate::reassembly;
use crate::tables::BUNDLE_MAX;
use crate::tables::InboundEntry;
use crate::tables::Location;
use crate::tables::Place;

/// A packet that goes on to pass 2, with its number.
struct Job {
    candidate: Candidate,
    site: Site,
}

/// What pass 1 found out about a packet.
#[derive(Clone, Copy)]
struct Site {
    spot: Spot,
    slot: u32,
    index: u8,
    is_ah: bool,
    /// It came from another address or port than its peer is known to have.
    moved: bool,
    /// Tried with another high half of its number already.
    retried: bool,
}

impl Site {
    #[inline(always)]
    fn index(&self) -> usize {
        usize::from(self.index)
    }

    #[inline(always)]
    fn ip_at(&self) -> usize {
        usize::from(self.spot.ip_at)
    }

    #[inline(always)]
    fn esp_at(&self) -> usize {
        usize::from(self.spot.esp_at)
    }

    #[inline(always)]
    fn esp_end(&self) -> usize {
        usize::from(self.spot.end)
    }
}

type Jobs = ArrayVec<Job, BATCH>;

/// What becomes of a packet that came out of an SA and is for another: a job of the next round, or
/// a verdict.
struct Onward<'a> {
    jobs: &'a mut Jobs,
    verdict: &'a mut Verdict,
}

/// Runs a batch from the unprotected side; one verdict is appended for each packet, in order.
pub(crate) fn run<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
) {
    let mut jobs = Jobs::new();
    classify(plane, packets, verdicts, &mut jobs);
    for round in 1.. {
        let mut statuses = [const { Status::Pending }; BATCH];
        crypt(plane, packets, &jobs, &mut statuses);
        let mut again = Jobs::new();
        finish_all(plane, packets, verdicts, (&jobs, statuses), &mut again);
        if again.is_empty() {
            return;
        }
        for job in &again {
            let index = job.site.index();
            let verdict = &mut verdicts[index];
            if round > BUNDLE_MAX {
                verdict.fate = Fate::Drop(DropReason::Nesting);
                note_drop(plane, &job.site, DropReason::Nesting, verdict, &packets[index]);
            } else {
                verdict.spi = plane.inbound.at(job.site.slot).map(|entry| entry.sa.spi().value());
                verdict.seq = Some(job.candidate.seq());
            }
        }
        if round > BUNDLE_MAX {
            return;
        }
        jobs = again;
    }
}

/// Pass 3. Jobs of the next round are added to `again`.
#[inline(never)]
fn finish_all<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut [Verdict],
    (jobs, statuses): (&Jobs, [Status; BATCH]),
    again: &mut Jobs,
) {
    for (job, status) in jobs.iter().zip(statuses) {
        let index = job.site.index();
        let (packet, verdict) = (&mut packets[index], &mut verdicts[index]);
        let onward = Onward { jobs: again, verdict };
        let Some(fate) = finish(plane, packet, job, status, onward) else {
            continue;
        };
        verdict.fate = fate;
        if let Fate::Drop(reason) = fate {
            note_drop(plane, &job.site, reason, verdict, packet);
        }
    }
}

/// Counts a drop for its SA, and writes its audit record.
#[cold]
fn note_drop<A: Aead>(
    plane: &mut Plane<A>,
    site: &Site,
    reason: DropReason,
    verdict: &Verdict,
    packet: &Packet,
) {
    if let Some(entry) = plane.inbound.at_mut(site.slot) {
        entry.dropped[reason as usize] += 1;
    }
    if reason.is_auditable() {
        plane.audit_opened(verdict, site.slot, packet.data(), site.ip_at());
    }
}

/// Pass 1, in three steps, as what each of them reads may be in no near cache, and is asked for by
/// the one before:
///
/// 1. read the headers of all packets;
/// 2. find their SAs;
/// 3. check each packet against its SA.
fn classify<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
    jobs: &mut Jobs,
) {
    // Filled in where they lie: to move them would cost more than to make them.
    let (mut seen, mut runs) = (ArrayVec::<Seen, BATCH>::new(), Runs::new());
    seen.extend(packets.iter().map(|_| Seen { spot: Spot::default(), run: 0 }));
    survey(plane, packets, &mut seen, &mut runs);
    let mut found = [Place::NONE; BATCH];
    find(plane, packets, (&seen, &runs), &mut found);
    let found = &found[..runs.len()];
    verdicts.extend(packets.iter().map(|_| Verdict::new(Fate::Held)));
    check(plane, packets, (&seen, found), verdicts, jobs);
}

/// What a look at the headers of a packet shows.
#[derive(Clone, Copy)]
struct Seen {
    spot: Spot,
    /// The number of its run, from 1; 0 for what is not plain ESP to this station.
    run: u8,
}

/// The first packet of each run: packets of one SA, one after the other, but for other than plain
/// ESP between; in IPv6 one.
type Runs = ArrayVec<u8, BATCH>;
type Places = [Place; BATCH];

/// How many packets ahead headers are asked for: those of more frames do not stay in the nearest
/// cache, where they compete for the same few places.
const AHEAD: usize = 8;

/// Step 1: where ESP is. Where the directory has its SA is asked for. The steps are functions so
/// that each loop has all registers.
#[inline(never)]
#[expect(clippy::cast_possible_truncation, reason = "a batch is small")]
fn survey<A: Aead>(plane: &Plane<A>, packets: &[Packet], all_seen: &mut [Seen], runs: &mut Runs) {
    packets.iter().take(AHEAD).for_each(Packet::prefetch_header);
    // Those of the run; without addresses it ends with its first packet.
    let (mut spi, mut addresses) = (0, 0);
    for (index, (packet, seen)) in packets.iter().zip(all_seen).enumerate() {
        if let Some(later) = packets.get(index + AHEAD) {
            later.prefetch_header();
        }
        if !plane.is_addressed_to_us(packet) {
            continue;
        }
        let data = packet.data();
        let ends = if let Some((spot, ends)) = Spot::find_raw_v4(data) {
            seen.spot = spot;
            u64::from_ne_bytes(ends)
        } else if let Some(spot) = Spot::find(data) {
            seen.spot = spot;
            spot.addresses_v4(data).map_or(0, |ends| u64::from_ne_bytes(*ends))
        } else {
            continue;
        };
        if seen.spot.spi != spi || ends != addresses || ends == 0 {
            (spi, addresses) = (seen.spot.spi, ends);
            plane.snapshot.directory.prefetch(Protocol::Esp, spi);
            runs.push(index as u8);
        }
        seen.run = runs.len() as u8;
    }
}

/// Step 2: whose packets they are. What these need of their SAs is asked for, but for the keys:
/// those of a whole batch would push each other out of the nearest cache, so the AEAD asks for them
/// a few packets ahead.
#[inline(never)]
fn find<A: Aead>(
    plane: &Plane<A>,
    packets: &[Packet],
    (seen, runs): (&[Seen], &Runs),
    found: &mut Places,
) {
    let directory = &plane.snapshot.directory;
    for (&index, place) in runs.iter().zip(&mut *found) {
        let (packet, Seen { spot, .. }) = (&packets[usize::from(index)], &seen[usize::from(index)]);
        *place = match spot.addresses_v4(packet.data()) {
            Some(&ends) => directory.find_v4(Protocol::Esp, spot.spi, ends),
            None => find_v6(directory, packet, spot),
        };
    }
    for (&index, place) in runs.iter().zip(found) {
        if let Some(location) = place.location()
            && location.worker == plane.id
            && let Some(entry) = plane.inbound.at(location.slot)
        {
            entry.prefetch(seen[usize::from(index)].spot.encapsulated);
        }
    }
}

/// The SA of a packet behind an IPv6 header.
#[inline(never)]
fn find_v6(directory: &Directory, packet: &Packet, spot: &Spot) -> Place {
    let (source, destination) = spot.addresses(packet.data());
    let found = directory.find(Protocol::Esp, spot.spi, source, destination);
    found.map_or(Place::NONE, Place::of)
}

/// Step 3: what becomes a job.
#[inline(never)]
fn check<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    (seen, found): (&[Seen], &[Place]),
    verdicts: &mut [Verdict],
    jobs: &mut Jobs,
) {
    let all = packets.iter_mut().zip(seen).zip(verdicts);
    for (index, ((packet, Seen { spot, run }), verdict)) in all.enumerate() {
        let admitted = match found.get(usize::from(*run).wrapping_sub(1)) {
            Some(&found) => {
                let data = packet.data();
                let arrival = Arrival { protocol: Protocol::Esp, spot, data, within: None };
                admit(plane, index, arrival, found.location(), verdict, jobs)
            }
            None => unusual(plane, packet, index, verdict, jobs),
        };
        if let Err(fate) = admitted {
            refuse(plane, packet, None, fate, verdict);
        }
    }
}

/// A packet that goes no further than pass 1; its IP header stands at `at`, if not behind an
/// Ethernet header.
#[cold]
fn refuse<A: Aead>(
    plane: &mut Plane<A>,
    packet: &Packet,
    at: Option<usize>,
    fate: Fate,
    verdict: &mut Verdict,
) {
    verdict.fate = fate;
    if let Fate::Drop(reason) = fate
        && reason.is_auditable()
    {
        match at {
            Some(at) => plane.audit_unopened(verdict, packet.data(), at),
            None => plane.audit_received(verdict, packet.data()),
        }
    }
}

/// A packet that is for an SA.
struct Arrival<'a> {
    protocol: Protocol,
    spot: &'a Spot,
    data: &'a [u8],
    /// The group of the SA in whose bundle it was found.
    within: Option<Group>,
}

/// [`admit`] for a packet whose SA is still to be found.
#[cold]
fn find_and_admit<A: Aead>(
    plane: &mut Plane<A>,
    index: usize,
    arrival: Arrival<'_>,
    verdict: &mut Verdict,
    jobs: &mut Jobs,
) -> Result<(), Fate> {
    let (source, destination) = arrival.spot.addresses(arrival.data);
    let directory = &plane.snapshot.directory;
    let found = directory.find(arrival.protocol, arrival.spot.spi, source, destination);
    admit(plane, index, arrival, found, verdict, jobs)
}

/// Checks length and number of a packet against the SA found for it, and adds a job, or says what
/// becomes of the packet.
#[inline(always)]
fn admit<A: Aead>(
    plane: &mut Plane<A>,
    index: usize,
    Arrival { protocol, spot, data, within }: Arrival<'_>,
    found: Option<Location>,
    verdict: &mut Verdict,
    jobs: &mut Jobs,
) -> Result<(), Fate> {
    verdict.spi = Some(spot.spi);
    verdict.seq = Some(u64::from(spot.seq));
    let Some(mut location) = found else {
        return Err(Fate::Drop(DropReason::NoSa));
    };
    if location.worker != plane.id {
        location = plane.place(true, location, plane.handed_over);
        if location.worker != plane.id {
            return Err(Fate::Handoff(location.worker));
        }
    }
    let Some(entry) = plane.inbound.at_mut(location.slot) else {
        return Err(gone(plane, location));
    };
    if !entry.sa.is_named(protocol, spot.spi) {
        return Err(Fate::Drop(DropReason::NoSa));
    }
    if entry.sa.is_expired() {
        return Err(turned_away(entry, DropReason::Expired));
    }
    if !entry.is_within(within) {
        return Err(turned_away(entry, DropReason::Bundle));
    }
    if !fits(entry.sa.layout(), usize::from(spot.end - spot.esp_at)) {
        return Err(turned_away(entry, DropReason::Truncated));
    }
    let Ok(candidate) = entry.sa.precheck(spot.seq) else {
        return Err(turned_away(entry, DropReason::Replay));
    };
    verdict.seq = Some(candidate.seq());
    let moved = spot.encapsulated && has_moved(entry, spot, data);
    #[expect(clippy::cast_possible_truncation, reason = "a batch is smaller")]
    let index = index as u8;
    let is_ah = protocol == Protocol::Ah;
    let site = Site { spot: *spot, slot: location.slot, index, is_ah, moved, retried: false };
    jobs.push(Job { candidate, site });
    Ok(())
}

/// What becomes of a packet whose SA is not in its slot.
#[cold]
fn gone<A: Aead>(plane: &Plane<A>, location: Location) -> Fate {
    match plane.place(true, location, plane.handed_over).worker {
        worker if worker != plane.id => Fate::Handoff(worker),
        _ => Fate::Drop(DropReason::NoSa),
    }
}

/// Counts a packet that an SA does not take.
#[cold]
fn turned_away<K>(entry: &mut InboundEntry<K>, reason: DropReason) -> Fate {
    entry.dropped[reason as usize] += 1;
    Fate::Drop(reason)
}

/// True when a packet in UDP came from elsewhere than the peer is known to be.
#[inline(never)]
fn has_moved<K>(entry: &InboundEntry<K>, spot: &Spot, data: &[u8]) -> bool {
    entry.peer.is_some_and(|peer| peer != peer_of(spot, data))
}

/// Whether a packet of an SA can be so long, from the SPI or the AH header: the text of ESP is a
/// whole number of blocks.
#[inline(always)]
fn fits(layout: culvert_esp::Layout, len: usize) -> bool {
    match layout.protocol {
        Protocol::Esp => layout.text_len(len).is_some(),
        Protocol::Ah => len >= layout.min_len(),
    }
}

fn peer_of(spot: &Spot, data: &[u8]) -> Peer {
    Peer { address: spot.addresses(data).0, port: spot.source_port(data) }
}

/// What is not plain ESP, or not for this station.
#[cold]
fn unusual<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    verdict: &mut Verdict,
    jobs: &mut Jobs,
) -> Result<(), Fate> {
    if !plane.is_addressed_to_us(packet) {
        return Err(Fate::Drop(DropReason::OtherHost));
    }
    let class = esp::classify(packet.data());
    let Some((protocol, spot)) = for_an_sa(&class) else {
        return Err(unprotected(plane, packet, index, class));
    };
    let arrival = Arrival { protocol, spot: &spot, data: packet.data(), within: None };
    find_and_admit(plane, index, arrival, verdict, jobs)
}

/// Protocol and place of what is ESP or AH.
fn for_an_sa(class: &Result<Unprotected, Malformed>) -> Option<(Protocol, Spot)> {
    match class {
        Ok(Unprotected::Esp(outer)) => Some((Protocol::Esp, outer.spot()?)),
        Ok(Unprotected::Ah(outer)) => Some((Protocol::Ah, outer.spot()?)),
        _ => None,
    }
}

/// The fate of what is neither ESP nor AH.
fn unprotected<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    class: Result<Unprotected, Malformed>,
) -> Fate {
    match class {
        Ok(Unprotected::Runt) => Fate::Drop(DropReason::Runt),
        Ok(Unprotected::Keepalive) => Fate::Drop(DropReason::Keepalive),
        Ok(Unprotected::Fragment(of)) => match reassembly::worker_of(&of, plane.options.workers) {
            worker if worker == plane.id => Fate::Reassembling,
            worker => Fate::Handoff(worker),
        },
        Ok(Unprotected::IcmpError(error)) => icmp_error(plane, packet, index, &error),
        Ok(Unprotected::Plain(parsed)) => plaintext(plane, packet, index, &parsed),
        // IKE and what is not IP are the stack's.
        Ok(_) => Fate::Punt,
        Err(_) => Fate::Drop(DropReason::Malformed),
    }
}

/// An ICMP error about ESP or AH: about a packet of ours, or under way to others, like other
/// plaintext, if a policy names it.
fn icmp_error<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    error: &esp::IcmpError,
) -> Fate {
    if let icmp::Received::Done(fate) = icmp::received(plane, error) {
        return fate;
    }
    let data = &packet.data()[error.ip_at..];
    match ip::parse(data) {
        Ok(parsed) if plane.inbound_policy(data, &parsed).action.is_some() => {
            plaintext(plane, packet, index, &parsed)
        }
        _ => Fate::Drop(DropReason::IcmpError),
    }
}

/// Plaintext from the unprotected side: what policy protects must not come in clear (RFC 4301
/// section 5.2).
fn plaintext<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    parsed: &ip::Packet,
) -> Fate {
    let at = ethernet::parse(packet.data()).map_or(0, |link| link.payload_at);
    let matched = plane.inbound_policy(&packet.data()[at..], parsed);
    match matched.action {
        Some(Action::Protect(_)) => Fate::Drop(DropReason::Plaintext),
        Some(Action::Discard) => Fate::Drop(DropReason::Discard),
        // What is for the gateway itself is the stack's, unless a policy says otherwise.
        None if plane.resolve(parsed) == Resolution::Local => Fate::Punt,
        None => Fate::Drop(DropReason::NoPolicy),
        Some(Action::Bypass) => {
            let way = match plane.way(parsed, true) {
                Ok(way) => way,
                Err(Stop::Drop(DropReason::Local)) => return Fate::Punt,
                Err(stop) => return Fate::Drop(plane.stop(index, stop, at, false)),
            };
            headers::keep(packet, at, parsed.total_len());
            ip::decrement_ttl(packet.data_mut(), parsed);
            plane.send(index, packet, way, Sent::InClear)
        }
    }
}

/// Pass 2: `statuses[i]` becomes the answer for `jobs[i]`.
#[inline(never)]
fn crypt<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    jobs: &Jobs,
    statuses: &mut [Status; BATCH],
) {
    let own = if plane.crew.is_some() { lend(plane, packets, jobs) } else { jobs.len() };
    let mut ops: ArrayVec<Op<'_, A::Key>, BATCH> = ArrayVec::new();
    // Jobs are in the order of their packets.
    let (mut rest, mut passed) = (packets.iter_mut(), 0);
    for Job { candidate, site } in &jobs[..own] {
        let packet = rest.nth(site.index() - passed).expect("a job has a packet");
        passed = site.index() + 1;
        if site.is_ah {
            continue;
        }
        let entry = plane.inbound.at(site.slot).expect("classify found the SA in this slot");
        ops.push(Op {
            key: entry.sa.key(),
            esn_high: candidate.esn_high(),
            esp: &mut packet.data_mut()[site.esp_at()..site.esp_end()],
        });
    }
    plane.aead.open(&mut ops, statuses);
    let of_esp = ops.len();
    if own < jobs.len() {
        drop(ops);
        take_back(plane, packets, jobs, statuses);
    } else if of_esp < jobs.len() {
        drop(ops);
        crypt_ah(plane, packets, jobs, statuses, of_esp);
    }
}

/// Lends the last packets to other workers, if that pays; returns how many jobs are left.
#[inline(never)]
fn lend<A: Aead>(plane: &mut Plane<A>, packets: &mut [Packet], jobs: &Jobs) -> usize {
    let Plane { crew: Some(crew), inbound, .. } = plane else { return jobs.len() };
    let key = |job: &Job| inbound.at(job.site.slot).and_then(|entry| entry.lent_key.as_ref());
    let octets = |job: &Job| {
        key(job).filter(|_| !job.site.is_ah).map(|_| job.site.esp_end() - job.site.esp_at())
    };
    let left = jobs.len() - crew.share(jobs.iter().map(octets));
    for (at, job) in jobs.iter().enumerate().skip(left) {
        let key = key(job).expect("those without are not lent");
        let packet = packets[job.site.index()].take_out();
        let esp = (job.site.esp_at(), job.site.esp_end());
        crew.lend(false, Lent::new(packet, at, esp, job.candidate.esn_high()), key);
    }
    if left < jobs.len() {
        crew.post();
    }
    left
}

/// Takes back what was lent.
#[inline(never)]
fn take_back<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    jobs: &Jobs,
    statuses: &mut [Status; BATCH],
) {
    let Plane { crew: Some(crew), aead, .. } = plane else { return };
    crew.finish(aead, |packet, at, status| {
        packets[jobs[at].site.index()] = packet;
        statuses[at] = status;
    });
}

/// Pass 2 for AH, whose answers go between those for ESP.
#[cold]
fn crypt_ah<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    jobs: &Jobs,
    statuses: &mut [Status; BATCH],
    mut of_esp: usize,
) {
    for (at, Job { candidate, site }) in jobs.iter().enumerate().rev() {
        if !site.is_ah {
            of_esp -= 1;
            statuses.swap(at, of_esp);
            continue;
        }
        let entry = plane.inbound.at(site.slot).expect("classify found the SA in this slot");
        let packet = &mut packets[site.index()].data_mut()[site.ip_at()..site.esp_end()];
        let (key, esn_high) = (entry.sa.key(), candidate.esn_high());
        let ah_at = site.esp_at() - site.ip_at();
        statuses[at] = headers::open_ah(&mut plane.aead, key, esn_high, packet, ah_at);
    }
}

/// How an SA treats what comes out of it: read once for each packet.
#[derive(Clone, Copy)]
struct Nature {
    group: Group,
    dscp: DscpPolicy,
    /// It has selectors of its own.
    selects: bool,
    is_tunnel: bool,
    padding: PaddingCheck,
}

impl Nature {
    #[inline(always)]
    fn of<K>(entry: &InboundEntry<K>) -> Nature {
        Nature {
            group: entry.group,
            dscp: entry.receiving.dscp,
            selects: !entry.selectors.is_empty(),
            is_tunnel: entry.mode == Mode::Tunnel,
            padding: entry.receiving.padding,
        }
    }
}

/// Pass 3, for one packet:
///
/// 1. the ICV must have been right, and the number still new;
/// 2. strip the trailer and parse the inner packet;
/// 3. the packet must be one that may come out of this SA (RFC 4301 section 5.2);
/// 4. merge ECN, decrement the TTL;
/// 5. find the next hop, trim the packet, put the Ethernet header in front.
///
/// None when it goes onward: there is another SA to apply, or the same one once more. The families
/// of inner packets are kept apart to the end, and what is unusual is not in line, so that headers
/// stay in registers.
#[inline(always)]
fn finish<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    Job { candidate, site }: &Job,
    status: Status,
    onward: Onward<'_>,
) -> Option<Fate> {
    let mut entry = plane.inbound.at_mut(site.slot).expect("classify found the SA in this slot");
    let Status::Authentic(proof) = status else {
        return forged(entry, candidate, site, onward);
    };
    // A packet before it in the batch may have been the last one.
    if entry.sa.is_expired() {
        return Some(Fate::Drop(DropReason::Expired));
    }
    let layout = entry.sa.layout();
    let covered = match site.is_ah {
        true => site.ip_at()..site.esp_end(),
        false => {
            let text_at = site.esp_at() + usize::from(layout.text_at);
            text_at..site.esp_end() - usize::from(layout.icv_len)
        }
    };
    let highest = entry.sa.highest();
    let Ok(seq) = entry.sa.commit(*candidate, proof, covered.len()) else {
        return Some(Fate::Drop(DropReason::Replay));
    };
    entry.sa.usage_mut().touch(plane.now);
    if entry.sa.is_due() || (site.moved && seq > highest) {
        news(plane, packet, site, seq > highest);
        entry = plane.inbound.at_mut(site.slot).expect("classify found the SA in this slot");
    }
    if !entry.memo.is_plain {
        return finish_unusual(plane, packet, site, covered, onward);
    }
    let text = &packet.data()[covered.clone()];
    let Ok(trailer) = trailer::strip(text, PaddingCheck::Strict) else {
        return finish_unusual(plane, packet, site, covered, onward);
    };
    let content = (trailer.next_header, covered.start..covered.start + trailer.payload_len);
    let tag = entry.memo.tag(plane.generation);
    match entry.memo.forward(&plane.memos, tag, packet, site.spot.tos, content) {
        Some(port) => Some(Fate::Forward(port)),
        None => finish_unusual(plane, packet, site, covered, onward),
    }
}

/// The rest of [`finish`] for all but another packet of a flow.
#[inline(never)]
fn finish_unusual<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    covered: Range<usize>,
    onward: Onward<'_>,
) -> Option<Fate> {
    let entry = plane.inbound.at(site.slot).expect("classify found the SA in this slot");
    let nature = Nature::of(entry);
    if site.is_ah {
        return finish_ah(plane, packet, site, nature, onward);
    }
    let trailer = match trailer::strip(&packet.data()[covered.clone()], nature.padding) {
        Ok(trailer) => trailer,
        Err(TrailerError::PadLength) => return Some(Fate::Drop(DropReason::Trailer)),
        Err(TrailerError::Padding) => return Some(Fate::Drop(DropReason::Padding)),
    };
    if trailer.padding_wrong {
        count_wrong_padding(plane, site);
    }
    if trailer.next_header == ip::PROTOCOL_NO_NEXT {
        return Some(Fate::Drop(DropReason::Dummy));
    }
    let end = covered.start + trailer.payload_len;
    unwrap(plane, packet, site, nature, (trailer.next_header, covered.start..end), onward)
}

/// A packet whose ICV is wrong. It may be worth another try.
#[cold]
fn forged<K>(
    entry: &mut InboundEntry<K>,
    candidate: &Candidate,
    site: &Site,
    onward: Onward<'_>,
) -> Option<Fate> {
    match entry.sa.failed(candidate) {
        Some(candidate) if !site.retried => {
            onward.jobs.push(Job { candidate, site: Site { retried: true, ..*site } });
            None
        }
        _ => Some(Fate::Drop(DropReason::Icv)),
    }
}

#[cold]
fn count_wrong_padding<A: Aead>(plane: &mut Plane<A>, site: &Site) {
    if let Some(entry) = plane.inbound.at_mut(site.slot) {
        entry.padding_wrong += 1;
    }
}

/// [`finish`] for AH.
#[cold]
fn finish_ah<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    nature: Nature,
    onward: Onward<'_>,
) -> Option<Fate> {
    let ah = &packet.data()[site.esp_at()..site.esp_end()];
    match headers::ah_content(ah, site.esp_at(), site.esp_end()) {
        Ok((protocol, at, end)) => unwrap(plane, packet, site, nature, (protocol, at..end), onward),
        Err(reason) => Some(Fate::Drop(reason)),
    }
}

/// Takes a packet out of what an SA protected, a `protocol` at `content` of the frame. What follows
/// a packet in a tunnel is traffic flow confidentiality padding and is ignored (RFC 4303 section
/// 2.7).
#[inline(always)]
fn unwrap<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    nature: Nature,
    (protocol, content): (u8, Range<usize>),
    onward: Onward<'_>,
) -> Option<Fate> {
    if !nature.is_tunnel {
        return unwrap_transport(plane, packet, site, nature, (protocol, content), onward);
    }
    let at = content.start;
    let inner = &packet.data()[content];
    match protocol {
        ip::PROTOCOL_IPIP => match ipv4::parse(inner) {
            Ok(inner) => emerge(plane, packet, site, (nature, at, &ip::Packet::V4(inner)), onward),
            Err(_) => Some(Fate::Drop(DropReason::InnerMalformed)),
        },
        ip::PROTOCOL_IPV6 => match ipv6::parse(inner) {
            Ok(inner) => emerge(plane, packet, site, (nature, at, &ip::Packet::V6(inner)), onward),
            Err(_) => Some(Fate::Drop(DropReason::InnerMalformed)),
        },
        _ => Some(Fate::Drop(DropReason::NextHeader)),
    }
}

/// [`unwrap`] in transport mode: puts the headers of the packet in front of what was protected.
#[cold]
fn unwrap_transport<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    nature: Nature,
    content: (u8, Range<usize>),
    onward: Onward<'_>,
) -> Option<Fate> {
    let entry = plane.inbound.at(site.slot).expect("classify found the SA in this slot");
    let original = entry.receiving.original.filter(|_| site.spot.encapsulated);
    let header_end = site.esp_at() - if site.spot.encapsulated { udp::HEADER_LEN } else { 0 };
    let outer = site.ip_at()..header_end;
    match headers::unwrap_transport(packet.data_mut(), outer, content, original) {
        Ok((at, inner)) => emerge(plane, packet, site, (nature, at, &inner), onward),
        Err(reason) => Some(Fate::Drop(reason)),
    }
}

/// What came out of an SA: a packet to be delivered, or one for an SA again.
#[inline(always)]
fn emerge<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    (nature, at, inner): (Nature, usize, &ip::Packet),
    mut onward: Onward<'_>,
) -> Option<Fate> {
    if headers::may_be_nested(&packet.data()[at..], inner)
        && let Some(nested) = nested(plane, packet, site, (nature, at, *inner), &mut onward)
    {
        return nested;
    }
    Some(deliver(plane, packet, site, (nature, at, inner)))
}

/// Tells control of a limit that was reached, or of a peer that moved.
#[cold]
fn news<A: Aead>(plane: &mut Plane<A>, packet: &Packet, site: &Site, newest: bool) {
    let now = plane.now;
    let slot = site.slot;
    let listens = plane.events.listens();
    let Some(entry) = plane.inbound.at_mut(slot) else {
        return;
    };
    let spi = entry.sa.spi().value();
    let expiry = entry.sa.due(now);
    // A peer that control does not hear of now moves with the next packet.
    if site.moved
        && newest
        && listens
        && let Some(old) = entry.peer
    {
        let new = peer_of(&site.spot, packet.data());
        // Several packets of a batch may have moved.
        if new != old {
            entry.peer = Some(new);
            plane.tell(Notice::Mapping { slot, spi, old, new });
        }
    }
    if let Some(expiry) = expiry {
        tell_expiry(plane, slot, spi, expiry);
    }
}

/// Tells control of a limit that was reached, now or, if it does not listen, at a later tick.
pub(crate) fn tell_expiry<A: Aead>(plane: &mut Plane<A>, slot: u32, spi: u32, expiry: Expiry) {
    let told = plane.tell(Notice::Expire { inbound: true, slot, spi, expiry });
    if let Some(entry) = plane.inbound.at_mut(slot) {
        entry.untold = (!told).then_some(expiry);
    }
}

/// What came out of an SA is for an SA again: if one of ours has its SPI, the packet goes round
/// once more, or has its fate. `None` when it is an ordinary packet.
#[cold]
fn nested<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    (nature, at, inner): (Nature, usize, ip::Packet),
    onward: &mut Onward<'_>,
) -> Option<Option<Fate>> {
    let class = esp::classify_packet(packet.data(), at);
    if let Ok(Unprotected::Fragment(fragment)) = class {
        return nested_fragment(plane, packet, site, (nature, &inner, &fragment)).map(Some);
    }
    let (protocol, mut spot) = for_an_sa(&class)?;
    let (source, destination) = (inner.source(), inner.destination());
    let found = plane.snapshot.directory.find(protocol, spot.spi, source, destination)?;
    let found = plane.place(true, found, plane.handed_over);
    let here = found.worker == plane.id;
    // A bundle lives on one worker; only what is no bundle may be nested in SAs of two.
    let within = plane.inbound.at(found.slot).filter(|_| here).and_then(|e| e.receiving.within);
    if within != Some(nature.group)
        && !admits(plane, site.slot, nature, &packet.data()[at..], &inner)
    {
        return Some(Some(Fate::Drop(DropReason::Selector)));
    }
    let Some(tos) = merged_tos(plane, site, nature, inner.tos()) else {
        return Some(Some(Fate::Drop(DropReason::Ecn)));
    };
    if tos != inner.tos() {
        spot.tos = tos;
        ip::set_tos(&mut packet.data_mut()[at..], &inner, tos);
    }
    if !here {
        let mac = plane.ports[usize::from(packet.port().0)].and_then(|config| config.mac);
        let framed = headers::reframe(packet, at, inner.total_len(), mac);
        return Some(Some(match framed {
            true => Fate::Handoff(found.worker),
            false => Fate::Drop(DropReason::NoRoom),
        }));
    }
    let within = within.filter(|&around| around == nature.group);
    let Onward { jobs, verdict } = onward;
    let arrival = Arrival { protocol, spot: &spot, data: packet.data(), within };
    if let Err(fate) = admit(plane, site.index(), arrival, Some(found), verdict, jobs) {
        refuse(plane, packet, Some(at), fate, verdict);
    }
    Some(None)
}

/// What came out of an SA is a fragment for one of our SAs, which take whole packets only (RFC 4303
/// section 3.4.1), and fragments are put together on the way in, not here. The first fragment shows
/// its SPI; later ones cannot be told, and go where their addresses say.
#[cold]
fn nested_fragment<A: Aead>(
    plane: &mut Plane<A>,
    packet: &Packet,
    site: &Site,
    (nature, inner, fragment): (Nature, &ip::Packet, &FragmentOf),
) -> Option<Fate> {
    let data = packet.data();
    let (protocol, spi) = first_spi(data, fragment)?;
    let (source, destination) = (inner.source(), inner.destination());
    let found = plane.snapshot.directory.find(protocol, spi, source, destination)?;
    let entry = plane.inbound.at(found.slot).filter(|_| found.worker == plane.id);
    let is_bundled = entry.is_some_and(|entry| entry.receiving.within == Some(nature.group));
    let reason =
        match is_bundled || admits(plane, site.slot, nature, &data[fragment.ip_at..], inner) {
            true => DropReason::Fragment,
            false => DropReason::Selector,
        };
    Some(Fate::Drop(reason))
}

/// Protocol and SPI of the packet that a first fragment begins.
fn first_spi(data: &[u8], fragment: &FragmentOf) -> Option<(Protocol, u32)> {
    let first = data.get(fragment.payload_at..fragment.end).filter(|_| fragment.offset == 0)?;
    let (protocol, spi_at) = match fragment.protocol {
        ip::PROTOCOL_ESP => (Protocol::Esp, 0),
        ip::PROTOCOL_AH => (Protocol::Ah, 4),
        ip::PROTOCOL_UDP if first.get(2..4)? == esp::NAT_TRAVERSAL_PORT.to_be_bytes() => {
            (Protocol::Esp, udp::HEADER_LEN)
        }
        _ => return None,
    };
    let spi = first.get(spi_at..)?.first_chunk()?;
    Some((protocol, u32::from_be_bytes(*spi)))
}

/// Checks a packet that came out of its last SA, and makes it ready to be sent.
#[inline(always)]
fn deliver<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    site: &Site,
    (nature, at, inner): (Nature, usize, &ip::Packet),
) -> Fate {
    let data = &packet.data()[at..];
    let matched = plane.inbound_policy(data, inner);
    let is_of_group = matched.action == Some(Action::Protect(nature.group)) && !nature.selects;
    if !is_of_group && !admits_slowly(plane, site.slot, data, inner, matched.action) {
        return Fate::Drop(DropReason::Selector);
    }
    let Some(tos) = merged_tos(plane, site, nature, inner.tos()) else {
        return Fate::Drop(DropReason::Ecn);
    };
    let Resolution::Reachable(hop) = plane.resolve(inner) else {
        return deliver_unusually(plane, packet, site.index(), (at, inner, tos));
    };
    let fits = inner.total_len() <= usize::from(hop.mtu);
    if inner.ttl() <= 1 || !fits || !plane.is_protected(hop.port) {
        return deliver_unusually(plane, packet, site.index(), (at, inner, tos));
    }
    if is_of_group {
        plane.remember(site.slot, &packet.data()[at..], inner, &hop);
    }
    release(packet, at, inner, tos);
    match put_link_header(packet, &hop) {
        true => Fate::Forward(hop.port),
        false => Fate::Drop(DropReason::NoRoom),
    }
}

/// The TOS of a packet that had `tos` inside its SA; `None` for congestion it cannot tell of.
#[inline(always)]
fn merged_tos<A: Aead>(plane: &mut Plane<A>, site: &Site, nature: Nature, tos: u8) -> Option<u8> {
    if !nature.is_tunnel {
        return Some(tos);
    }
    let decap = ecn::decapsulate(tos, site.spot.tos);
    if decap.alarm {
        tell_of_ecn(plane, site.slot);
    }
    Some(ecn::forwarded_tos(tos, site.spot.tos, decap.ecn?, nature.dscp))
}

/// Makes a frame hold the packet that came out, changed as forwarding changes it.
#[inline(always)]
fn release(packet: &mut Packet, at: usize, inner: &ip::Packet, tos: u8) {
    headers::keep(packet, at, inner.total_len());
    let data = packet.data_mut();
    ip::decrement_ttl(data, inner);
    if tos != inner.tos() {
        ip::set_tos(data, inner, tos);
    }
}

/// What cannot simply be sent: it must not, does not fit, or its next hop is not known.
#[cold]
fn deliver_unusually<A: Aead>(
    plane: &mut Plane<A>,
    packet: &mut Packet,
    index: usize,
    (at, inner, tos): (usize, &ip::Packet, u8),
) -> Fate {
    let way: Way = match plane.way(inner, true) {
        Ok(way) => way,
        Err(stop) => return Fate::Drop(plane.stop(index, stop, at, true)),
    };
    release(packet, at, inner, tos);
    plane.send(index, packet, way, Sent::Protected)
}

/// Tells control of a combination of ECN fields that nobody should make, once for each SA, unless
/// that is not wanted.
#[cold]
fn tell_of_ecn<A: Aead>(plane: &mut Plane<A>, slot: u32) {
    if plane.options.notices.unusual_ecn
        && let Some(entry) = plane.inbound.at_mut(slot)
        && !entry.ecn_told
    {
        entry.ecn_told = true;
        let spi = entry.sa.spi().value();
        plane.tell(Notice::UnusualEcn { slot, spi });
    }
}

/// True when the packet may come out of this very SA: the first inbound policy that matches names
/// its group, and its own selectors match (RFC 4301 section 5.2).
#[inline(always)]
fn admits<A: Aead>(
    plane: &mut Plane<A>,
    slot: u32,
    nature: Nature,
    data: &[u8],
    inner: &ip::Packet,
) -> bool {
    let matched = plane.inbound_policy(data, inner);
    if matched.action == Some(Action::Protect(nature.group)) && !nature.selects {
        return true;
    }
    admits_slowly(plane, slot, data, inner, matched.action)
}

#[cold]
fn admits_slowly<A: Aead>(
    plane: &mut Plane<A>,
    slot: u32,
    data: &[u8],
    inner: &ip::Packet,
    action: Option<Action>,
) -> bool {
    let Some(entry) = plane.inbound.at(slot) else {
        return false;
    };
    let of = |flow: &culvert_spd::Flow, action: Option<Action>| {
        action == Some(Action::Protect(entry.group))
            && (entry.selectors.is_empty()
                || entry.selectors.iter().any(|selector| selector.matches(flow)))
    };
    if of(&culvert_spd::Flow::of(data, inner), action) {
        return true;
    }
    // An error about the SA's traffic may come from any router (section 6.2). What policy discards
    // by name stays discarded.
    if entry.receiving.enclosed_errors
        && action != Some(Action::Discard)
        && let Some(flow) = icmp::return_flow(data, inner)
        && of(&flow, plane.snapshot.spd.inbound(&flow).action)
    {
        return true;
    }
    let start = PacketStart::of(&data[..data.len().min(inner.total_len())]);
    let flow = culvert_spd::Flow::of(data, inner);
    plane.mismatch = Some(Mismatch { flow, inner: *inner, start });
    false
}
