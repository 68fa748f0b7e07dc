//! ESP to plaintext (RFC 4303 section 3.4), a batch at a time, in three flat passes.
//!
//! 1. *classify*: parse the outer headers, find the SA, check the sequence number against its
//!    window. Nothing here is trusted, and nothing of the SA changes.
//! 2. *crypt*: verify and decrypt all that are left, whatever their SAs, in one call.
//! 3. *finish*: accept the number (once), strip the trailer, check the inner packet against policy,
//!    decrement its TTL, and put the Ethernet header of its next hop in front.
//!
//! The payload is never copied: the packet's ends move inside its frame.

use arrayvec::ArrayVec;
use culvert_aead::Aead;
use culvert_aead::ICV_LEN;
use culvert_aead::Op;
use culvert_aead::Status;
use culvert_aead::TEXT_AT;
use culvert_esp::Candidate;
use culvert_esp::ecn;
use culvert_esp::trailer;
use culvert_esp::trailer::TrailerError;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;
use culvert_wire::ip;

use crate::fate::DropReason;
use crate::fate::Fate;
use crate::fate::Verdict;
use crate::next_hop::Resolution;
use crate::worker::Plane;
use crate::worker::put_link_header;

/// Shortest ESP packet: header, IV, pad length, next header and 2 octets of padding, ICV.
const LEN_MIN: usize = TEXT_AT + 4 + ICV_LEN;

/// What pass 1 found out about a packet that goes on to pass 2.
struct Job {
    index: usize,
    slot: u32,
    candidate: Candidate,
    esp_at: usize,
    esp_end: usize,
    outer_tos: u8,
}

type Jobs = ArrayVec<Job, BATCH>;

/// Runs a batch from the unprotected side; one verdict is appended for each packet, in order.
pub(crate) fn run<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
) {
    let mut jobs = Jobs::new();
    let mut statuses = [const { Status::Pending }; BATCH];
    classify(plane, packets, verdicts, &mut jobs);
    crypt(plane, packets, &jobs, &mut statuses);
    for (job, status) in jobs.drain(..).zip(statuses) {
        let (index, slot) = (job.index, job.slot);
        let fate = finish(plane, &mut packets[index], job, status);
        if let (Fate::Drop(reason), Some(entry)) = (fate, plane.inbound.at_mut(slot)) {
            entry.dropped[reason as usize] += 1;
        }
        verdicts[index].fate = fate;
    }
}

/// Pass 1.
fn classify<A: Aead>(
    plane: &mut Plane<A>,
    packets: &[Packet],
    verdicts: &mut ArrayVec<Verdict, BATCH>,
    jobs: &mut Jobs,
) {
    for (index, packet) in packets.iter().enumerate() {
        let mut verdict = Verdict::new(Fate::Punt);
        if plane.is_addressed_to_us(packet) {
            match esp::classify(packet.data()) {
                Ok(Unprotected::Esp(outer)) => {
                    verdict.spi = Some(outer.spi);
                    verdict.seq = Some(u64::from(outer.seq));
                    match admit(plane, index, &outer) {
                        Ok(job) => {
                            verdict.seq = Some(job.candidate.seq());
                            jobs.push(job);
                        }
                        Err(fate) => verdict.fate = fate,
                    }
                }
                Ok(Unprotected::Runt) => verdict.fate = Fate::Drop(DropReason::Runt),
                // Keepalives, IKE, fragments to be reassembled and all else are the stack's.
                Ok(_) => {}
                Err(_) => verdict.fate = Fate::Drop(DropReason::Malformed),
            }
        } else {
            verdict.fate = Fate::Drop(DropReason::OtherHost);
        }
        verdicts.push(verdict);
    }
}

/// Finds the SA of a packet and checks its length and number.
#[inline]
fn admit<A: Aead>(plane: &mut Plane<A>, index: usize, outer: &Outer) -> Result<Job, Fate> {
    let Some(&location) = plane.snapshot.directory.get(&outer.spi) else {
        return Err(Fate::Drop(DropReason::NoSa));
    };
    if location.worker != plane.id {
        return Err(Fate::Handoff(location.worker));
    }
    let Some(entry) = plane.inbound.at_mut(location.slot) else {
        return Err(Fate::Drop(DropReason::NoSa));
    };
    if entry.sa.spi().value() != outer.spi || entry.sa.destination() != outer.destination {
        return Err(Fate::Drop(DropReason::NoSa));
    }
    let len = outer.end - outer.esp_at;
    if len < LEN_MIN || !len.is_multiple_of(trailer::ALIGNMENT) {
        entry.dropped[DropReason::Truncated as usize] += 1;
        return Err(Fate::Drop(DropReason::Truncated));
    }
    match entry.sa.precheck(outer.seq) {
        Ok(candidate) => Ok(Job {
            index,
            slot: location.slot,
            candidate,
            esp_at: outer.esp_at,
            esp_end: outer.end,
            outer_tos: outer.tos,
        }),
        Err(_) => {
            entry.dropped[DropReason::Replay as usize] += 1;
            Err(Fate::Drop(DropReason::Replay))
        }
    }
}

/// Pass 2.
fn crypt<A: Aead>(
    plane: &mut Plane<A>,
    packets: &mut [Packet],
    jobs: &Jobs,
    statuses: &mut [Status],
) {
    let mut ops: ArrayVec<Op<'_, A::Key>, BATCH> = ArrayVec::new();
    let mut next = jobs.iter().peekable();
    for (index, packet) in packets.iter_mut().enumerate() {
        let Some(job) = next.next_if(|job| job.index == index) else {
            continue;
        };
        let entry = plane.inbound.at(job.slot).expect("classify found the SA in this slot");
        ops.push(Op {
            key: entry.sa.key(),
            esn_high: job.candidate.esn_high(),
            esp: &mut packet.data_mut()[job.esp_at..job.esp_end],
        });
    }
    plane.aead.open(&mut ops, statuses);
}

/// Pass 3, for one packet:
///
/// 1. the ICV must have been right, and the number still new;
/// 2. strip the trailer and parse the inner packet;
/// 3. the packet must be one that may come out of this SA (RFC 4301 section 5.2);
/// 4. merge ECN, decrement the TTL;
/// 5. find the next hop, trim the packet, put the Ethernet header in front.
#[inline]
fn finish<A: Aead>(plane: &mut Plane<A>, packet: &mut Packet, job: Job, status: Status) -> Fate {
    let Status::Authentic(proof) = status else {
        return Fate::Drop(DropReason::Icv);
    };
    let text_at = job.esp_at + TEXT_AT;
    let text_end = job.esp_end - ICV_LEN;
    let entry = plane.inbound.at_mut(job.slot).expect("classify found the SA in this slot");
    if entry.sa.commit(job.candidate, proof, text_end - text_at).is_err() {
        return Fate::Drop(DropReason::Replay);
    }
    let group = entry.group;

    let inner = match inner_packet(&packet.data()[text_at..text_end]) {
        Ok(inner) => inner,
        Err(reason) => return Fate::Drop(reason),
    };
    if !admits(plane, group, &inner) {
        return Fate::Drop(DropReason::Selector);
    }
    let Some(ecn) = ecn::decapsulate(inner.tos(), job.outer_tos) else {
        return Fate::Drop(DropReason::Ecn);
    };
    if inner.ttl() <= 1 {
        return Fate::Drop(DropReason::Ttl);
    }
    let resolution = plane.resolve(&inner);
    let hop = match resolution {
        Resolution::Reachable(hop) if !plane.is_protected(hop.port) => {
            return Fate::Drop(DropReason::WrongSide);
        }
        Resolution::Reachable(hop) if inner.total_len() > usize::from(hop.mtu) => {
            return Fate::Drop(DropReason::TooBig);
        }
        Resolution::Reachable(hop) => Some(hop),
        Resolution::Unresolved(_) => None,
        Resolution::Local => return Fate::Drop(DropReason::Local),
        Resolution::NoRoute => return Fate::Drop(DropReason::NoRoute),
    };

    let trimmed = packet.trim_front(text_at).and_then(|()| packet.truncate(inner.total_len()));
    assert!(trimmed.is_some(), "the inner packet was parsed inside this frame");
    let data = packet.data_mut();
    ip::decrement_ttl(data, &inner);
    if ecn != inner.tos() & ecn::MASK {
        ip::set_tos(data, &inner, (inner.tos() & !ecn::MASK) | ecn);
    }
    match hop {
        Some(hop) => put_link_header(packet, &hop),
        None => Fate::Held,
    }
}

/// Strips the trailer of decrypted text and parses the packet inside. What follows that packet is
/// traffic flow confidentiality padding and is ignored (RFC 4303 section 2.7).
#[inline]
fn inner_packet(text: &[u8]) -> Result<ip::Packet, DropReason> {
    let (payload_len, next_header) = trailer::strip(text).map_err(|error| match error {
        TrailerError::PadLength => DropReason::Trailer,
        TrailerError::Padding => DropReason::Padding,
    })?;
    let family = match next_header {
        ip::PROTOCOL_IPIP => 4,
        ip::PROTOCOL_IPV6 => 6,
        ip::PROTOCOL_NO_NEXT => return Err(DropReason::Dummy),
        _ => return Err(DropReason::NextHeader),
    };
    let inner = ip::parse(&text[..payload_len]).map_err(|_| DropReason::InnerMalformed)?;
    match (&inner, family) {
        (ip::Packet::V4(_), 4) | (ip::Packet::V6(_), 6) => Ok(inner),
        _ => Err(DropReason::InnerMalformed),
    }
}

/// True when the first inbound policy that matches names the group of the very SA.
#[inline]
fn admits<A: Aead>(plane: &mut Plane<A>, group: Group, inner: &ip::Packet) -> bool {
    let spd = &plane.snapshot.spd;
    let action = plane.inbound_flows.get_or(inner.addresses(), |_| {
        spd.inbound(&Flow { source: inner.source(), destination: inner.destination() })
    });
    action == Some(Action::Protect(group))
}
