//! Fragments of ESP and AH, put aside until the whole packet is there (RFC 4303 section 3.4.1:
//! reassembly comes before ESP).
//!
//! The table is bounded in packets, fragments and time: at most [`DATAGRAMS_MAX`] packets of
//! [`FRAGMENTS_MAX`] fragments, so at most their product of frames, and [`AGE_NS`]. When it is full
//! the oldest packet goes: an attacker who sends first fragments costs his share and no more.
//! Fragments that overlap make the whole packet invalid (RFC 5722); an exact double is left out.

use arrayvec::ArrayVec;
use culvert_frame::MAX_JUMBO_FRAME;
use culvert_frame::MAX_LINK_FRAME;
use culvert_frame::Packet;
use culvert_frame::PacketIo;
use culvert_wire::esp::FragmentOf;
use culvert_wire::fragment;
use culvert_wire::ip;

use crate::fate::DropReason;
use crate::ids::WorkerId;

/// Packets in the table at most.
pub const DATAGRAMS_MAX: usize = 16;
/// Fragments of one packet at most.
pub const FRAGMENTS_MAX: usize = 8;
/// How long the table waits for the rest of a packet, in nanoseconds.
pub const AGE_NS: u64 = 15_000_000_000;

const ECN_MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

/// The worker, of so many, at which the fragments of a packet meet.
#[must_use]
pub fn worker_of(fragment: &FragmentOf, workers: u8) -> WorkerId {
    let ip::Addresses { source, destination, .. } = fragment.addresses;
    #[expect(clippy::cast_possible_truncation, reason = "any mixture of bits will do")]
    let mixed = (source ^ source >> 64 ^ destination ^ destination >> 64) as u64;
    let hash = (mixed ^ u64::from(fragment.id)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    #[expect(clippy::cast_possible_truncation, reason = "less than the number of workers")]
    WorkerId((hash % u64::from(workers.max(1))) as u8)
}

/// What becomes of a fragment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It waits.
    Kept,
    /// The whole packet is there.
    Whole(Packet),
    /// It is dropped.
    Dropped(Packet, DropReason),
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: ArrayVec<Datagram, DATAGRAMS_MAX>,
    /// Packets that are no longer waited for, and why; to be taken at once.
    discarded: ArrayVec<(Packet, Option<DropReason>), { DATAGRAMS_MAX * FRAGMENTS_MAX }>,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    until: u64,
    fragments: ArrayVec<(Packet, FragmentOf), FRAGMENTS_MAX>,
}

type Key = (ip::Addresses, u8, u32);

impl Reassembly {
    /// Frames in the table.
    pub(crate) fn frames(&self) -> usize {
        let of_datagrams = self.datagrams.iter().map(|datagram| datagram.fragments.len());
        of_datagrams.sum::<usize>() + self.discarded.len()
    }

    /// Takes in a fragment. Frames that are no longer needed, and fragments that are given up, come
    /// out of [`discarded`](Self::discarded).
    pub(crate) fn push(
        &mut self,
        packet: Packet,
        fragment: FragmentOf,
        now: u64,
        io: &mut impl PacketIo,
    ) -> Outcome {
        let key = (fragment.addresses, fragment.protocol, fragment.id);
        let at = match self.datagrams.iter().position(|datagram| datagram.key == key) {
            Some(at) => at,
            None => self.begin(key, now),
        };
        let datagram = &mut self.datagrams[at];
        let span = |of: &FragmentOf| of.offset..of.offset + of.len();
        let new = span(&fragment);
        let mut others = datagram.fragments.iter().map(|(_, other)| (span(other), other.more));
        if others.any(|(span, more)| (span, more) == (new.clone(), fragment.more)) {
            return Outcome::Dropped(packet, DropReason::Reassembly);
        }
        if datagram.contradicts(&fragment) || datagram.fragments.is_full() {
            self.give_up(at, DropReason::Reassembly);
            return Outcome::Dropped(packet, DropReason::Reassembly);
        }
        let place = datagram.fragments.partition_point(|(_, other)| other.offset < new.start);
        datagram.fragments.insert(place, (packet, fragment));
        if !datagram.is_whole() {
            return Outcome::Kept;
        }
        let datagram = self.datagrams.remove(at);
        self.join(datagram, io)
    }

    /// Gives up what has waited too long.
    pub(crate) fn age(&mut self, now: u64) {
        while let Some(at) = self.datagrams.iter().position(|datagram| datagram.until <= now) {
            self.give_up(at, DropReason::ReassemblyTimeout);
        }
    }

    /// A packet that is not waited for any longer, and why; `None` as the reason of a fragment
    /// whose octets are in a whole packet now.
    pub(crate) fn discarded(&mut self) -> Option<(Packet, Option<DropReason>)> {
        self.discarded.pop()
    }

    fn begin(&mut self, key: Key, now: u64) -> usize {
        if self.datagrams.is_full() {
            // They are in the order in which they began.
            self.give_up(0, DropReason::ReassemblyFull);
        }
        let until = now.saturating_add(AGE_NS);
        self.datagrams.push(Datagram { key, until, fragments: ArrayVec::new() });
        self.datagrams.len() - 1
    }

    fn give_up(&mut self, at: usize, reason: DropReason) {
        let datagram = self.datagrams.remove(at);
        self.discarded
            .extend(datagram.fragments.into_iter().map(|(packet, _)| (packet, Some(reason))));
    }

    /// Copies the payloads behind that of the first fragment, in a run where a frame is too small.
    fn join(&mut self, mut datagram: Datagram, io: &mut impl PacketIo) -> Outcome {
        let (mut whole, first) = datagram.fragments.remove(0);
        let rest: usize = datagram.fragments.iter().map(|(_, of)| of.len()).sum();
        let mut tos = first.tos;
        let len = first.end + rest;
        if len > MAX_LINK_FRAME && len <= MAX_JUMBO_FRAME && !whole.is_run() {
            whole = moved_to_run(whole, io);
        }
        let most = if whole.is_run() { MAX_JUMBO_FRAME } else { MAX_LINK_FRAME };
        let mut joined = len <= most && whole.truncate(first.end).is_some();
        let is_any = |ecn| {
            let mut all = datagram.fragments.iter().map(|(_, of)| of.tos);
            first.tos & ECN_MASK == ecn || all.any(|tos| tos & ECN_MASK == ecn)
        };
        // Congestion marked on one fragment is marked on the whole, unless another cannot carry the
        // mark (RFC 3168 section 5.3).
        if is_any(CE) {
            tos |= CE;
            joined &= !is_any(NOT_ECT);
        }
        for (packet, of) in &datagram.fragments {
            joined = joined
                && whole.append(of.len()).is_some_and(|room| {
                    room.copy_from_slice(&packet.data()[of.payload_at..of.end]);
                    true
                });
        }
        let made = joined && finish(&mut whole, first.ip_at, tos);
        let reason = (!made).then_some(DropReason::Reassembly);
        let rest = datagram.fragments.into_iter().map(|(packet, _)| (packet, reason));
        self.discarded.extend(rest);
        match reason {
            None => Outcome::Whole(whole),
            Some(reason) => Outcome::Dropped(whole, reason),
        }
    }
}

/// The packet in a run of frames, if one is free.
fn moved_to_run(packet: Packet, io: &mut impl PacketIo) -> Packet {
    let Some(run) = io.take_run() else {
        return packet;
    };
    match run.with_contents(packet.port(), packet.data()) {
        Ok(moved) => {
            io.recycle(packet.into_free());
            moved
        }
        Err(run) => {
            io.recycle(run);
            packet
        }
    }
}

/// Makes the headers those of a whole packet.
fn finish(whole: &mut Packet, ip_at: usize, tos: u8) -> bool {
    let data = whole.data_mut();
    let Ok(start) = fragment::finish_reassembly(&mut data[ip_at..]) else {
        return false;
    };
    // The Ethernet header moves up to where the packet starts now.
    data.copy_within(..ip_at, start);
    if whole.trim_front(start).is_none() {
        return false;
    }
    let data = &mut whole.data_mut()[ip_at..];
    match ip::parse(data) {
        Ok(parsed) if parsed.tos() != tos => ip::set_tos(data, &parsed, tos),
        Ok(_) => {}
        Err(_) => return false,
    }
    true
}

impl Datagram {
    /// True when a fragment overlaps one that is there, ends the packet elsewhere than another, or
    /// reaches beyond its end (RFC 5722, RFC 8200 section 4.5).
    fn contradicts(&self, new: &FragmentOf) -> bool {
        let end = new.offset + new.len();
        self.fragments.iter().any(|(_, other)| {
            let other_end = other.offset + other.len();
            let overlaps = new.offset < other_end && other.offset < end;
            let beyond = (!other.more && end > other_end) || (!new.more && other_end > end);
            overlaps || beyond || (!other.more && !new.more)
        })
    }

    fn is_whole(&self) -> bool {
        let mut next = 0;
        for (_, of) in &self.fragments {
            if of.offset != next {
                return false;
            }
            next += of.len();
        }
        self.fragments.last().is_some_and(|(_, of)| !of.more)
    }
}

impl Drop for Reassembly {
    /// Tokens are let go: their region lives as long as the process.
    fn drop(&mut self) {
        for datagram in self.datagrams.drain(..) {
            datagram.fragments.into_iter().for_each(|(packet, _)| std::mem::forget(packet));
        }
        self.discarded.drain(..).for_each(|(packet, _)| std::mem::forget(packet));
    }
}
