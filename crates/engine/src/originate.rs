//! Packets the gateway makes itself: fragments, ICMP errors, NAT keepalives, dummies.
//!
//! Each takes a free frame of the worker's, is counted as made, and gets a fate of its own.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use culvert_aead::Aead;
use culvert_aead::Protocol;
use culvert_esp::template::Inherited;
use culvert_frame::HEADROOM;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_spd::Action;
use culvert_wire::ethernet;
use culvert_wire::ethernet::Mac;
use culvert_wire::fragment;
use culvert_wire::icmp;
use culvert_wire::icmp::ErrorKind;
use culvert_wire::ip;

use crate::encapsulate;
use crate::fate::DropReason;
use crate::fate::Fate;
use crate::ids::Side;
use crate::inbound;
use crate::mailbox::Notice;
use crate::next_hop::NextHop;
use crate::next_hop::Resolution;
use crate::outbound;
use crate::plane::Answer;
use crate::plane::Back;
use crate::plane::Plane;
use crate::plane::put_link_header;
use crate::worker::Worker;

/// How often timers are looked at, in nanoseconds.
pub(crate) const TICK_NS: u64 = 100_000_000;

/// Source of ICMP errors of a gateway without an IPv4 address (RFC 7600 section 4.8).
const DUMMY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// The whole payload of a NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: u8 = 0xff;

const KEEPALIVE_TTL: u8 = 64;

/// An empty packet in a free frame.
fn empty<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, port: Port) -> Option<Packet> {
    with_room(worker, port, 0)
}

/// An empty packet that may become `len` octets long, in a run if it takes one.
fn with_room<A: Aead, Io: PacketIo>(
    worker: &mut Worker<A, Io>,
    port: Port,
    len: usize,
) -> Option<Packet> {
    let frame = worker.io.take_room(len)?;
    #[expect(clippy::cast_possible_truncation, reason = "HEADROOM is smaller than a frame")]
    let packet = frame.into_packet(HEADROOM as u16, 0, port);
    if packet.tailroom() < len {
        worker.io.recycle(packet.into_free());
        return None;
    }
    Some(packet)
}

/// Sends an ICMP error about the packet at `answer.at` of a frame, if that is wanted, due, and
/// there is a frame for it: back out of the port it came in on, or as policy says.
pub(crate) fn answer<A: Aead, Io: PacketIo>(
    worker: &mut Worker<A, Io>,
    about: &Packet,
    answer: Answer,
) {
    let options = worker.plane.options.icmp;
    let wanted = match answer.kind {
        ErrorKind::TooBig { .. } => options.too_big,
        ErrorKind::TimeExceeded => options.time_exceeded,
        ErrorKind::Prohibited | ErrorKind::Unreachable => options.prohibited,
    };
    let offending = &about.data()[answer.at..];
    let source: Option<IpAddr> = match ip::parse(offending) {
        Ok(ip::Packet::V4(_)) => Some(options.source_v4.unwrap_or(DUMMY_ADDRESS).into()),
        Ok(ip::Packet::V6(_)) => options.source_v6.map(IpAddr::from),
        Err(_) => None,
    };
    let Some(source) = source.filter(|_| wanted) else {
        return;
    };
    let Some(mut packet) = empty(worker, about.port()) else {
        return;
    };
    let room = packet.tailroom();
    let written =
        packet.append(room).and_then(|out| icmp::error(out, answer.kind, source, offending));
    let now = worker.plane.now;
    let len = written.filter(|_| worker.icmp.take(now).is_some());
    let Some(len) = len else {
        return worker.io.recycle(packet.into_free());
    };
    let kept = packet.truncate(len);
    assert!(kept.is_some(), "it was written into this frame");
    let is_framed = match answer.back {
        Back::ThroughPolicy if may_leave_in_clear(worker, &packet) => false,
        Back::ThroughPolicy => return process_as_plaintext(worker, packet),
        Back::OutOfItsPort => reply_header(&mut packet, about),
        Back::ByRoute(side) => return answer_by_route(worker, packet, side),
    };
    match is_framed {
        true => {
            worker.counters.made += 1;
            let port = packet.port();
            worker.send(packet, Fate::Answer(port));
        }
        false => worker.io.recycle(packet.into_free()),
    }
}

/// True when policy has an answer leave in clear. It quotes what came out of an SA, which nobody
/// outside may see.
fn may_leave_in_clear<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, packet: &Packet) -> bool {
    let parsed = ip::parse(packet.data()).expect("we wrote it");
    worker.plane.outbound_policy(packet.data(), &parsed).action == Some(Action::Bypass)
}

/// Sends an answer to a packet that has no Ethernet header any more, if the way back to its source
/// is known and leads out of the side it came from.
fn answer_by_route<A: Aead, Io: PacketIo>(
    worker: &mut Worker<A, Io>,
    mut packet: Packet,
    side: Side,
) {
    if let Some(Resolution::Reachable(hop)) = worker.plane.resolve_packet(&packet)
        && worker.plane.is_protected(hop.port) == (side == Side::Protected)
        && put_link_header(&mut packet, &hop)
    {
        worker.counters.made += 1;
        return worker.send(packet, Fate::Answer(hop.port));
    }
    worker.io.recycle(packet.into_free());
}

/// Puts the Ethernet header of `about` in front of `packet`, its addresses exchanged.
fn reply_header(packet: &mut Packet, about: &Packet) -> bool {
    let Ok(link) = ethernet::parse(about.data()) else {
        return false;
    };
    // There is no error about what was sent to all stations of a link (RFC 1122 section 3.2.2).
    if is_group(link.destination) || is_group(link.source) {
        return false;
    }
    let Some(out) = packet.prepend(ethernet::header_len(link.vlan)) else {
        return false;
    };
    ethernet::emit(out, link.source, link.destination, link.vlan, link.ether_type);
    true
}

fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 != 0
}

/// Processes an IP packet of our own like one from the protected side.
fn process_as_plaintext<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, packet: Packet) {
    let first = worker.plane.first_port(Side::Protected);
    let Some((port, mac)) = first.filter(|_| !worker.made.is_full()) else {
        return worker.io.recycle(packet.into_free());
    };
    let mut packet = packet.moved_to(port);
    let len = packet.len();
    match crate::headers::reframe(&mut packet, 0, len, mac) {
        true => worker.made.push((Side::Protected, packet)),
        false => worker.io.recycle(packet.into_free()),
    }
}

/// Makes fragments of at most `mtu` octets of the packet at `at` of a frame; each is processed like
/// a packet of its own from the protected side (RFC 4303 section 3.3.4).
pub(crate) fn split_inner<A: Aead, Io: PacketIo>(
    worker: &mut Worker<A, Io>,
    whole: &Packet,
    at: usize,
    mtu: usize,
) -> Fate {
    let header = &whole.data()[..at];
    let Some(parsed) = ip::parse(&whole.data()[at..]).ok() else {
        return Fate::Drop(DropReason::Malformed);
    };
    let bytes = &whole.data()[at..at + parsed.total_len()];
    let Ok(pieces) = fragment::pieces(bytes, &parsed, mtu, 0) else {
        return Fate::Drop(DropReason::TooBig);
    };
    if worker.made.remaining_capacity() < pieces.clone().count() {
        return Fate::Drop(DropReason::NoFrame);
    }
    let begun = worker.made.len();
    for piece in pieces {
        let len = at + piece.total_len();
        let made = with_room(worker, whole.port(), len).and_then(|mut packet| {
            let out = packet.append(len)?;
            out[..at].copy_from_slice(header);
            fragment::write_piece(&mut out[at..], bytes, &piece);
            Some(packet)
        });
        match made {
            Some(packet) => worker.made.push((Side::Protected, packet)),
            // All fragments or none.
            None => {
                while worker.made.len() > begun {
                    let (_, packet) = worker.made.pop().expect("there is one");
                    worker.io.recycle(packet.into_free());
                }
                return Fate::Drop(DropReason::NoFrame);
            }
        }
    }
    Fate::Split
}

/// Sends a packet that starts at its IP header in fragments of at most `mtu` octets, each with the
/// fate of the whole.
pub(crate) fn split_outer<A: Aead, Io: PacketIo>(
    worker: &mut Worker<A, Io>,
    whole: &Packet,
    (hop, mtu): (&NextHop, usize),
    fate: Fate,
) -> Fate {
    let bytes = whole.data();
    let Ok(parsed) = ip::parse(bytes) else {
        return Fate::Drop(DropReason::Malformed);
    };
    let id = worker.plane.fragment_id();
    let Ok(pieces) = fragment::pieces(bytes, &parsed, mtu, id) else {
        return Fate::Drop(DropReason::TooBig);
    };
    for piece in pieces {
        let made = with_room(worker, hop.port, piece.total_len()).and_then(|mut packet| {
            let out = packet.append(piece.total_len())?;
            fragment::write_piece(out, bytes, &piece);
            put_link_header(&mut packet, hop).then_some(packet)
        });
        match made {
            Some(packet) => {
                worker.counters.made += 1;
                worker.send(packet, fate);
            }
            // What was sent is lost to the receiver; it gives the rest up.
            None => return Fate::Drop(DropReason::NoFrame),
        }
    }
    Fate::Split
}

/// What is due at the SAs of a worker: the ends of their lifetimes, keepalives, dummies, path MTUs
/// to be forgotten. Returns the number of packets made.
pub(crate) fn tick<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, now: u64) -> usize {
    let mut made = 0;
    for slot in 0..worker.plane.inbound.slots() {
        let Some(entry) = worker.plane.inbound.at_mut(slot) else {
            continue;
        };
        let spi = entry.sa.spi().value();
        // A limit in time holds whether or not control has heard of the one before it.
        let is_late = entry.sa.usage().is_late(now);
        let expiry = if is_late { entry.sa.due(now) } else { None };
        if let Some(expiry) = expiry.or(entry.untold) {
            inbound::tell_expiry(&mut worker.plane, slot, spi, expiry);
        }
    }
    for slot in 0..worker.plane.outbound.slots() {
        made += tick_outbound(worker, slot, now);
    }
    made
}

fn tick_outbound<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, slot: u32, now: u64) -> usize {
    let Some(entry) = worker.plane.outbound.at_mut(slot) else {
        return 0;
    };
    let spi = entry.sa.spi().value();
    // A limit in time holds whether or not control has heard of the one before it.
    let is_late = entry.sa.usage().is_late(now);
    let expiry = if is_late { entry.sa.due(now) } else { None };
    let expiry = expiry.or(entry.untold);
    let aged = entry.path_mtu.age(now);
    if aged {
        entry.set_mtu();
    }
    let sent_at = entry.sa.usage().last_used_ns().unwrap_or(0).max(entry.sent_at);
    let idle = |interval: Option<u64>, since: u64| {
        interval.is_some_and(|interval| now.saturating_sub(since) >= interval)
    };
    let wants_keepalive =
        idle(entry.sending.keepalive, sent_at) && entry.sa.template.encapsulation().is_some();
    // AH has none, whatever its options say.
    let wants_dummy =
        idle(entry.sending.dummy_interval, entry.dummy_at) && entry.protocol == Protocol::Esp;
    if wants_keepalive {
        entry.sent_at = now;
    }
    if wants_dummy {
        entry.dummy_at = now;
    }
    if let Some(expiry) = expiry {
        outbound::tell_expiry(&mut worker.plane, slot, spi, expiry);
    }
    if aged {
        worker.plane.tell(Notice::PathMtu { slot, spi, mtu: None });
    }
    let kept = wants_keepalive && keepalive(worker, slot);
    let padded = wants_dummy && sends(&worker.plane, slot) && dummy(worker, slot);
    usize::from(kept) + usize::from(padded)
}

/// True when the SA in `slot` is in use: one on standby sends nothing, as its peer may not be ready
/// to receive (RFC 7296 section 2.8).
fn sends<A: Aead>(plane: &Plane<A>, slot: u32) -> bool {
    plane.outbound.at(slot).is_some_and(|entry| {
        let sender = (entry.protocol, entry.sa.spi().value(), entry.sa.template.destination());
        plane.snapshot.senders.contains_key(&sender)
    })
}

/// Sends a NAT keepalive on the path of an SA (RFC 3948 section 4), if its next hop is known.
fn keepalive<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, slot: u32) -> bool {
    let Some(entry) = worker.plane.outbound.at(slot) else {
        return false;
    };
    let destination = entry.sa.template.destination();
    let Resolution::Reachable(hop) = worker.plane.next_hops.resolve(destination) else {
        return false;
    };
    let Some(mut packet) = empty(worker, hop.port) else {
        return false;
    };
    let id = worker.plane.identification();
    let written = worker.plane.outbound.at_mut(slot).is_some_and(|entry| {
        let template = &mut entry.sa.template;
        let Some(out) = packet.append(template.len() + 1) else {
            return false;
        };
        out[template.len()] = KEEPALIVE;
        let inherited = Inherited { tos: 0, dont_fragment: false, ttl: KEEPALIVE_TTL };
        template.apply(out, inherited, id);
        true
    });
    if !written || !put_link_header(&mut packet, &hop) {
        worker.io.recycle(packet.into_free());
        return false;
    }
    worker.counters.made += 1;
    worker.send(packet, Fate::Answer(hop.port));
    true
}

/// Sends a dummy packet through an SA (RFC 4303 section 2.6).
fn dummy<A: Aead, Io: PacketIo>(worker: &mut Worker<A, Io>, slot: u32) -> bool {
    let Some((port, _)) = worker.plane.first_port(Side::Unprotected) else {
        return false;
    };
    let Some(mut packet) = empty(worker, port) else {
        return false;
    };
    worker.counters.made += 1;
    match encapsulate::dummy(&mut worker.plane, &mut packet, slot) {
        fate @ Fate::Forward(_) => worker.send(packet, fate),
        fate => {
            worker.io.recycle(packet.into_free());
            // Nothing of it is left for a packet of the next batch.
            worker.plane.take_extra(0);
            // A dummy is not worth waiting for a neighbour.
            let reason = match fate {
                Fate::Drop(reason) => reason,
                _ => DropReason::NoRoute,
            };
            worker.counters.record(Fate::Drop(reason));
        }
    }
    true
}
