//! Fragments, made and put together by the book (RFC 791 section 3.2, RFC 8200 section 4.5), and
//! the table in which a worker waits for them, with its bounds.

use std::rc::Rc;

use culvert_engine::DropReason;
use culvert_engine::reassembly::AGE_NS;
use culvert_engine::reassembly::DATAGRAMS_MAX;
use culvert_engine::reassembly::FRAGMENTS_MAX;
use culvert_frame::MAX_LINK_FRAME;
use culvert_wire::checksum;
use culvert_wire::esp::FragmentOf;

/// Some fragments of a packet, with the frames they came in.
#[derive(Clone, Debug)]
struct Pile {
    until: u64,
    pieces: Vec<(FragmentOf, Rc<[u8]>)>,
}

/// What becomes of a fragment.
pub(crate) enum Pushed {
    Kept,
    Dropped,
    /// It was the last one. The frame of the whole packet, and the octets of the largest fragment.
    Whole(Vec<u8>, usize),
}

/// Packets of which fragments are there, the oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piles {
    piles: Vec<Pile>,
}

impl Piles {
    /// Takes in a fragment. Reasons for which others are given up are put into `gone`.
    pub(crate) fn push(
        &mut self,
        of: FragmentOf,
        octets: &Rc<[u8]>,
        now: u64,
        gone: &mut Vec<DropReason>,
    ) -> Pushed {
        let known = self.piles.iter().position(|pile| is_of_one(&pile.pieces[0].0, &of));
        let Some(at) = known else {
            if self.piles.len() == DATAGRAMS_MAX {
                self.give_up(0, DropReason::ReassemblyFull, gone);
            }
            let pile = Pile { until: now + AGE_NS, pieces: vec![(of, Rc::clone(octets))] };
            self.piles.push(pile);
            return self.join(self.piles.len() - 1, gone);
        };
        let pieces = &mut self.piles[at].pieces;
        let what = |of: &FragmentOf| (of.offset, of.len(), of.more);
        if pieces.iter().any(|(other, _)| what(other) == what(&of)) {
            return Pushed::Dropped;
        }
        if pieces.len() == FRAGMENTS_MAX || pieces.iter().any(|(other, _)| contradict(other, &of)) {
            self.give_up(at, DropReason::Reassembly, gone);
            return Pushed::Dropped;
        }
        pieces.push((of, Rc::clone(octets)));
        pieces.sort_by_key(|(of, _)| of.offset);
        self.join(at, gone)
    }

    /// Gives up what has waited too long.
    pub(crate) fn age(&mut self, now: u64, gone: &mut Vec<DropReason>) {
        while let Some(at) = self.piles.iter().position(|pile| pile.until <= now) {
            self.give_up(at, DropReason::ReassemblyTimeout, gone);
        }
    }

    /// Fragments that wait.
    pub(crate) fn len(&self) -> usize {
        self.piles.iter().map(|pile| pile.pieces.len()).sum()
    }

    fn give_up(&mut self, at: usize, reason: DropReason, gone: &mut Vec<DropReason>) {
        let pile = self.piles.remove(at);
        gone.extend(pile.pieces.iter().map(|_| reason));
    }

    fn join(&mut self, at: usize, gone: &mut Vec<DropReason>) -> Pushed {
        let pieces = &self.piles[at].pieces;
        let mut next = 0;
        for (of, _) in pieces {
            if of.offset != next {
                return Pushed::Kept;
            }
            next += of.len();
        }
        if pieces.last().is_some_and(|(of, _)| of.more) {
            return Pushed::Kept;
        }
        let pieces = self.piles.remove(at).pieces;
        let rest: usize = pieces[1..].iter().map(|(of, _)| of.len()).sum();
        // RFC 3168 section 5.3: a mark, and a fragment that knows none.
        let has = |ecn| pieces.iter().any(|(of, _)| of.tos & 3 == ecn);
        if pieces[0].0.end + rest > MAX_LINK_FRAME || has(3) && has(0) {
            gone.extend(pieces[1..].iter().map(|_| DropReason::Reassembly));
            return Pushed::Dropped;
        }
        let largest = pieces.iter().map(|(of, _)| of.end - of.ip_at).max();
        Pushed::Whole(whole(&pieces), largest.unwrap_or(0))
    }
}

/// Source, destination, protocol and identification are the same.
fn is_of_one(one: &FragmentOf, other: &FragmentOf) -> bool {
    (one.addresses, one.protocol, one.id) == (other.addresses, other.protocol, other.id)
}

/// RFC 5722: they overlap, or one goes on where the other says the packet ends.
fn contradict(one: &FragmentOf, other: &FragmentOf) -> bool {
    let end = |of: &FragmentOf| of.offset + of.len();
    let overlap = one.offset < end(other) && other.offset < end(one);
    let beyond = |last: &FragmentOf, of: &FragmentOf| !last.more && end(of) > end(last);
    overlap || beyond(one, other) || beyond(other, one) || (!one.more && !other.more)
}

/// The frame of the whole packet, out of all its fragments in order.
fn whole(pieces: &[(FragmentOf, Rc<[u8]>)]) -> Vec<u8> {
    let (first, octets) = &pieces[0];
    let mut frame = octets[..first.payload_at].to_vec();
    let mut tos = first.tos;
    for (of, octets) in pieces {
        frame.extend_from_slice(&octets[of.payload_at..of.end]);
        // RFC 3168 section 5.3.
        if of.tos & 3 == 3 {
            tos |= 3;
        }
    }
    let ip_at = first.ip_at;
    if let Some(at) = first.fragment_header_at {
        frame[ip_at + 6] = frame[at];
        frame.drain(at..at + 8);
        let len = u16::try_from(frame.len() - ip_at - 40).expect("a packet");
        frame[ip_at] = 0x60 | tos >> 4;
        frame[ip_at + 1] = frame[ip_at + 1] & 0x0f | tos << 4;
        frame[ip_at + 4..ip_at + 6].copy_from_slice(&len.to_be_bytes());
    } else {
        let len = u16::try_from(frame.len() - ip_at).expect("a packet");
        let header = &mut frame[ip_at..first.payload_at];
        header[1] = tos;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        header[6..8].fill(0);
        finish_v4(header);
    }
    frame
}

/// Fragments of at most `mtu` octets of an IPv4 packet without options, which may be one itself.
pub(super) fn split_v4(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let (base, more) = (flags & 0x1fff, flags & 0x2000 != 0);
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let left = payload.len() - at;
        let is_last = left <= mtu - 20;
        let len = if is_last { left } else { (mtu - 20) / 8 * 8 };
        let mut piece = header.to_vec();
        let total = u16::try_from(20 + len).expect("a packet");
        piece[2..4].copy_from_slice(&total.to_be_bytes());
        let offset = base + u16::try_from(at / 8).expect("a packet");
        let flags = offset | if more || !is_last { 0x2000 } else { 0 };
        piece[6..8].copy_from_slice(&flags.to_be_bytes());
        finish_v4(&mut piece);
        piece.extend_from_slice(&payload[at..at + len]);
        pieces.push(piece);
        at += len;
    }
    pieces
}

/// Puts the checksum of an IPv4 header right.
fn finish_v4(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum::internet(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}
