//! SAs on both sides: what they have sent and accepted, and what they must do with the next packet.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use culvert_aead::Algorithm;
use culvert_aead::Protocol;
use culvert_engine::DropReason;
use culvert_esp::Mode;
use culvert_wire::esp::Outer;
use culvert_wire::ip;

use super::life::Life;
use super::size;
use super::size::Size;
use crate::tunnel::Tunnel;

/// An outbound SA.
pub(super) struct Sender {
    pub(super) tunnel: Rc<Tunnel>,
    pub(super) side: usize,
    pub(super) last: u64,
    pub(super) life: Life,
    pub(super) dropped: u64,
    /// The path MTU it believes, and until when.
    pub(super) path_mtu: Option<(u16, u64)>,
    /// What it could have believed in this turn.
    pub(super) told: Vec<u16>,
    /// When a packet or keepalive was sent, and a dummy made.
    pub(super) sent_at: u64,
    pub(super) dummy_at: u64,
    /// By low half of the number. A run is far too short for one to come twice.
    pub(super) spent: BTreeMap<u32, Spent>,
}

/// A number that was spent, and the packet once it was seen.
pub(super) struct Spent {
    pub(super) seq: u64,
    pub(super) content: Content,
    pub(super) sealed: Option<Sealed>,
}

/// What is in a packet.
#[derive(Clone)]
pub(super) enum Content {
    /// The packet as it came, and the number of the plaintext.
    Packet(Rc<[u8]>, u64),
    Dummy,
}

/// What an ICV covers, seen on the wire.
#[derive(PartialEq, Eq)]
pub(super) struct Sealed {
    /// From the first octet of ESP or AH to the last one.
    pub(super) octets: Vec<u8>,
    /// With AH: what of the IP header may not change.
    pub(super) header: Vec<u8>,
}

/// An inbound SA.
pub(super) struct Receiver {
    pub(super) tunnel: Rc<Tunnel>,
    /// The side that sends.
    pub(super) sender: usize,
    pub(super) window: NaiveWindow,
    pub(super) life: Life,
    pub(super) dropped: u64,
    /// It was at its end when the batch began.
    pub(super) was_expired: bool,
}

/// The definition of the replay window, without any cleverness.
pub(super) struct NaiveWindow {
    pub(super) start: u64,
    pub(super) top: u64,
    pub(super) size: u64,
    pub(super) seen: BTreeSet<u64>,
    /// The highest number, and those accepted since, when a batch began.
    pub(super) batch: (u64, BTreeSet<u64>),
}

impl NaiveWindow {
    pub(super) fn new(start: u64, size: u32) -> NaiveWindow {
        let (size, seen) = (size.into(), BTreeSet::new());
        NaiveWindow { start, top: start, size, seen, batch: (start, BTreeSet::new()) }
    }

    /// A batch begins: its packets are all looked at before the first is accepted.
    pub(super) fn begin(&mut self) {
        self.batch = (self.top, BTreeSet::new());
    }

    /// What the batch began with has no place for this number.
    pub(super) fn refuses(&self, seq: u64) -> bool {
        let (top, fresh) = &self.batch;
        let inside = seq > *top || top - seq < self.size;
        seq <= self.start || !inside || (self.seen.contains(&seq) && !fresh.contains(&seq))
    }

    pub(super) fn accept(&mut self, seq: u64) -> bool {
        let inside = seq > self.top || self.top - seq < self.size;
        if seq <= self.start || !inside || !self.seen.insert(seq) {
            return false;
        }
        self.batch.1.insert(seq);
        self.top = self.top.max(seq);
        true
    }
}

impl Sender {
    pub(super) fn new(tunnel: &Rc<Tunnel>, side: usize) -> Sender {
        Sender {
            tunnel: Rc::clone(tunnel),
            side,
            last: tunnel.start[side],
            life: Life::new(tunnel.limits()),
            dropped: 0,
            path_mtu: None,
            told: Vec::new(),
            sent_at: 0,
            dummy_at: 0,
            spent: BTreeMap::new(),
        }
    }

    /// A worker has it, perhaps since now.
    pub(super) fn begin(&mut self, now: u64) {
        if self.life.begin(now) {
            (self.sent_at, self.dummy_at) = (now, now);
        }
    }

    /// Nonces it has used since its gateway began.
    pub(super) fn nonces(&self) -> u64 {
        if has_nonce(self.tunnel.algorithm) { self.life.packets } else { 0 }
    }

    /// RFC 3948 section 4: nothing was sent for a while.
    pub(super) fn wants_keepalive(&mut self, now: u64) -> bool {
        let interval = self.tunnel.keepalive.filter(|_| self.tunnel.seen_at.is_some());
        let wants = interval.is_some_and(|interval| now - self.sent_at >= interval);
        if wants {
            self.sent_at = now;
        }
        wants
    }

    pub(super) fn wants_dummy(&mut self, now: u64) -> bool {
        let interval = self.tunnel.dummy_interval;
        let wants = interval.is_some_and(|interval| now - self.dummy_at >= interval);
        if wants {
            self.dummy_at = now;
        }
        wants
    }

    /// What must become of a packet at the owner of the SA it needs, which sends to `endpoint`.
    pub(super) fn send(
        &mut self,
        link_mtu: usize,
        (octets, packet, id): (&[u8], &ip::Packet, u64),
        endpoint: Option<IpAddr>,
        now: u64,
    ) -> Sending {
        if self.life.is_over {
            return Sending::Drop(DropReason::Expired);
        }
        if packet.ttl() <= 1 {
            return Sending::Drop(DropReason::Ttl);
        }
        let mtu = self.path_mtu.map_or(link_mtu, |(mtu, _)| link_mtu.min(mtu.into()));
        // Nothing is known of a path whose next hop is not.
        let mtu = if link_mtu == usize::MAX { usize::MAX } else { mtu };
        let pieces = match size::judge(&self.tunnel, packet, mtu) {
            Size::Fits => 1,
            Size::Outside(pieces) => pieces,
            Size::Inside(mtu) => return Sending::Split(mtu),
            Size::TooBig => return Sending::Drop(DropReason::TooBig),
        };
        // RFC 4301 section 4.1: transport mode is for packets between its endpoints.
        if self.tunnel.mode == Mode::Transport && endpoint != Some(packet.destination()) {
            return Sending::Drop(DropReason::Selector);
        }
        let content = Content::Packet(octets.into(), id);
        match self.spend(content, size::worked_on(&self.tunnel, packet.total_len()), now) {
            Some(reason) => Sending::Drop(reason),
            None => {
                self.sent_at = now;
                Sending::Sent(pieces)
            }
        }
    }

    /// Spends a number, or says why not.
    pub(super) fn spend(
        &mut self,
        content: Content,
        octets: usize,
        now: u64,
    ) -> Option<DropReason> {
        if self.life.is_over {
            return Some(DropReason::Expired);
        }
        if self.last == self.tunnel.last_number(self.side) {
            return Some(DropReason::SequenceExhausted);
        }
        self.last += 1;
        self.life.count(octets, now);
        let spent = Spent { seq: self.last, content, sealed: None };
        #[expect(clippy::cast_possible_truncation, reason = "the half on the wire")]
        let before = self.spent.insert(self.last as u32, spent);
        assert!(before.is_none(), "a run is shorter than 2^32 packets");
        None
    }

    /// The last number is in no packet.
    pub(super) fn forget_last(&mut self) {
        #[expect(clippy::cast_possible_truncation, reason = "the half on the wire")]
        self.spent.remove(&(self.last as u32));
    }
}

/// What must become of a packet at an outbound SA.
pub(super) enum Sending {
    /// Sealed, and sent in so many fragments.
    Sent(usize),
    /// Fragments of so many octets are to be made first.
    Split(usize),
    Drop(DropReason),
}

impl Receiver {
    pub(super) fn new(tunnel: &Rc<Tunnel>, sender: usize) -> Receiver {
        Receiver {
            tunnel: Rc::clone(tunnel),
            sender,
            window: NaiveWindow::new(tunnel.start[sender], tunnel.window[sender]),
            life: Life::new(tunnel.limits()),
            dropped: 0,
            was_expired: false,
        }
    }
}

impl Sealed {
    pub(super) fn of(protocol: Protocol, outer: &Outer, frame: &[u8]) -> Sealed {
        let octets = frame[outer.esp_at..outer.end].to_vec();
        let header = match protocol {
            Protocol::Esp => Vec::new(),
            Protocol::Ah => immutable(&frame[outer.ip_at..outer.esp_at]),
        };
        Sealed { octets, header }
    }
}

/// RFC 4302 sections 3.3.3.1.1 and 3.3.3.1.2, for headers without options: what is not mutable.
pub(super) fn immutable(header: &[u8]) -> Vec<u8> {
    let mut kept = header.to_vec();
    if header[0] >> 4 == 4 {
        // TOS, flags and offset, TTL, checksum.
        for at in [1, 6, 7, 8, 10, 11] {
            kept[at] = 0;
        }
    } else {
        // Traffic class and flow label, hop limit.
        kept[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        kept[7] = 0;
    }
    kept
}

/// Octets of ESP or AH that make at least an empty packet and whole blocks.
pub(super) fn is_whole(algorithm: Algorithm, len: usize) -> bool {
    if algorithm.protocol() == Protocol::Ah {
        return len >= 12 + algorithm.ah_icv_field_len();
    }
    let around = 8 + algorithm.iv_len() + algorithm.icv_len();
    let text = len.saturating_sub(around);
    text >= algorithm.block_len() && text.is_multiple_of(algorithm.block_len())
}

/// Octets of a packet that its algorithm works on.
pub(super) fn covered(algorithm: Algorithm, outer: &Outer) -> usize {
    match algorithm.protocol() {
        Protocol::Ah => outer.end - outer.ip_at,
        Protocol::Esp => outer.end - outer.esp_at - 8 - algorithm.iv_len() - algorithm.icv_len(),
    }
}

/// True for algorithms that must not see a nonce or an IV twice: all but HMAC alone.
pub(super) fn has_nonce(algorithm: Algorithm) -> bool {
    let is_hmac =
        algorithm.keyword().starts_with("null-") || algorithm.keyword().starts_with("sha");
    !is_hmac
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive window does what RFC 4303 section 3.4.3 says, at its edges.
    #[test]
    fn naive_window() {
        let mut window = NaiveWindow::new(10, 64);
        assert!(!window.accept(0) && !window.accept(10) && window.accept(11));
        assert!(window.accept(100) && !window.accept(100));
        assert!(!window.accept(36) && window.accept(37));
        assert!(window.refuses(10) && !window.refuses(37) && !window.refuses(36));
        window.begin();
        assert!(window.refuses(37) && window.refuses(36) && !window.refuses(38));
    }
}
