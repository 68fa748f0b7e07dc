//! The wire: the network between the gateways, which routes, translates, loses, doubles, delays and
//! damages.

use std::cmp::Ordering;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use culvert_wire::ethernet;
use culvert_wire::fragment;
use culvert_wire::icmp;
use culvert_wire::icmp::ErrorKind;
use culvert_wire::ip;

use crate::coverage::Coverage;
use crate::coverage::Happening;
use crate::nat::Router;
use crate::plain::link_frame;
use crate::random::Random;
use crate::scenario::Faults;
use crate::scenario::PATH_MTUS;
use crate::scenario::ROUTER_MAC;
use crate::scenario::Scenario;
use crate::scenario::WAN;
use crate::scenario::gateway_mac;

/// Time every frame is on its way.
const DELAY_NS: u64 = 20_000;

/// Least MTU of a path over IPv6 (RFC 8200 section 5).
const PATH_MTU_MIN_V6: u16 = 1280;

/// What the wire did to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Frames lost.
    pub lost: u64,
    /// Frames that came twice.
    pub duplicated: u64,
    /// Frames that came late.
    pub delayed: u64,
    /// Frames in which bits flipped.
    pub flipped: u64,
    /// Frames cut short.
    pub truncated: u64,
    /// Frames marked with congestion.
    pub marked: u64,
    /// Frames to an address that nobody has, or no longer.
    pub strayed: u64,
    /// Packets that were too big for the path.
    pub too_big: u64,
}

impl Damage {
    /// The damage of two wires together.
    #[must_use]
    pub fn plus(&self, other: &Damage) -> Damage {
        Damage {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            delayed: self.delayed + other.delayed,
            flipped: self.flipped + other.flipped,
            truncated: self.truncated + other.truncated,
            marked: self.marked + other.marked,
            strayed: self.strayed + other.strayed,
            too_big: self.too_big + other.too_big,
        }
    }
}

/// The wire, all ways.
pub(crate) struct Wire {
    random: Random,
    faults: Faults,
    vlan: Option<u16>,
    /// MTU of the path between gateways.
    mtu: u16,
    pub(crate) router: Router,
    in_flight: BinaryHeap<Reverse<Flight>>,
    carried: u64,
    pub(crate) damage: Damage,
    pub(crate) coverage: Coverage,
}

/// A packet of a gateway.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) frame: Vec<u8>,
    /// Octets of its largest fragment, if it came in fragments.
    pub(crate) fragment_max: Option<usize>,
}

/// A frame on its way. Frames with the same time arrive in the order in which they were sent.
struct Flight {
    due: u64,
    order: u64,
    to: usize,
    frame: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(random: Random, scenario: &Scenario) -> Wire {
        Wire {
            random,
            faults: scenario.faults.clone(),
            vlan: scenario.wan_vlan,
            mtu: PATH_MTUS[0],
            router: Router::new(scenario),
            in_flight: BinaryHeap::new(),
            carried: 0,
            damage: Damage::default(),
            coverage: Coverage::default(),
        }
    }

    /// From now on everything arrives.
    pub(crate) fn calm(&mut self) {
        self.faults = Faults::default();
        self.mtu = PATH_MTUS[0];
    }

    /// The path may carry more or less from now on.
    pub(crate) fn change(&mut self) {
        if self.random.chance(self.faults.path_changes) {
            self.mtu = self.random.pick(&PATH_MTUS);
            self.coverage.note(Happening::PathChange);
        }
    }

    /// Takes a packet of gateway `from`. Returns the gateway it is for, and the frames as whoever
    /// listens on the wire sees them; `None` when it goes nowhere.
    pub(crate) fn carry(
        &mut self,
        now: u64,
        from: usize,
        sent: Sent,
    ) -> Option<(usize, Vec<Vec<u8>>)> {
        let Sent { mut frame, fragment_max } = sent;
        let at = ethernet::parse(&frame).ok()?.payload_at;
        let parsed = ip::parse(&frame[at..]).ok()?;
        let (limit, may_split) = match parsed {
            ip::Packet::V4(header) => (usize::from(self.mtu), !header.dont_fragment),
            ip::Packet::V6(_) => (usize::from(self.mtu.max(PATH_MTU_MIN_V6)), false),
        };
        let len = fragment_max.unwrap_or(parsed.total_len());
        if len > limit && !may_split {
            self.damage.too_big += 1;
            self.tell(now, &frame[at..], limit);
            return None;
        }
        if len > limit {
            self.coverage.note(Happening::RouterFragmented);
        }
        let Some(to) = self.router.route(from, &mut frame) else {
            self.damage.strayed += 1;
            return None;
        };
        let fragments = match fragment_max.is_some() || len > limit {
            true => self.split(&frame, at, len.min(limit)),
            false => vec![frame],
        };
        fragments.iter().for_each(|frame| self.convey(now, to, frame.clone()));
        Some((to, fragments))
    }

    /// Frames with fragments of at most `mtu` octets of the packet at `at` of a frame.
    fn split(&mut self, frame: &[u8], at: usize, mtu: usize) -> Vec<Vec<u8>> {
        let (header, packet) = frame.split_at(at);
        let Ok(parsed) = ip::parse(packet) else { return Vec::new() };
        #[expect(clippy::cast_possible_truncation, reason = "any will do")]
        let id = self.random.next() as u32;
        let Ok(pieces) = fragment::pieces(packet, &parsed, mtu, id) else {
            return Vec::new();
        };
        let framed = pieces.map(|piece| {
            let mut out = header.to_vec();
            out.resize(at + piece.total_len(), 0);
            fragment::write_piece(&mut out[at..], packet, &piece);
            out
        });
        framed.collect()
    }

    /// A router tells the gateway that sent a packet what the path carries; of a NAT, nobody hears
    /// what is behind it.
    fn tell(&mut self, now: u64, packet: &[u8], mtu: usize) {
        let Ok(parsed) = ip::parse(packet) else { return };
        if let Some(to) = self.router.in_the_open(parsed.source())
            && let Some(frame) = too_big(packet, to, self.vlan, mtu)
        {
            self.launch(now + DELAY_NS, to, frame);
        }
    }

    /// Carries a frame to gateway `to`, or not.
    fn convey(&mut self, now: u64, to: usize, mut frame: Vec<u8>) {
        if self.random.chance(self.faults.loss) {
            self.damage.lost += 1;
            return;
        }
        if self.random.chance(self.faults.duplication) {
            self.damage.duplicated += 1;
            let due = now + DELAY_NS + self.late();
            self.launch(due, to, frame.clone());
        }
        self.harm(&mut frame);
        let mut due = now + DELAY_NS;
        if self.random.chance(self.faults.reordering) {
            self.damage.delayed += 1;
            due += self.late();
        }
        self.launch(due, to, frame);
    }

    /// The next frame that has arrived by now, and at which gateway.
    pub(crate) fn arrived(&mut self, now: u64) -> Option<(usize, Vec<u8>)> {
        let Reverse(first) = self.in_flight.peek()?;
        if first.due > now {
            return None;
        }
        let Reverse(flight) = self.in_flight.pop()?;
        Some((flight.to, flight.frame))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn late(&mut self) -> u64 {
        self.random.below(self.faults.delay_ns_max.max(1))
    }

    fn launch(&mut self, due: u64, to: usize, frame: Vec<u8>) {
        self.carried += 1;
        let order = self.carried;
        self.in_flight.push(Reverse(Flight { due, order, to, frame }));
    }

    fn harm(&mut self, frame: &mut Vec<u8>) {
        if self.random.chance(self.faults.congestion) && mark_congestion(frame) {
            self.damage.marked += 1;
        }
        if self.random.chance(self.faults.bit_flips) {
            self.damage.flipped += 1;
            flip_bits(&mut self.random, frame);
        }
        if self.random.chance(self.faults.truncation) {
            self.damage.truncated += 1;
            frame.truncate(self.random.index(frame.len()));
        }
    }
}

/// The frame in which a router tells gateway `to` that the path carries `mtu` octets and not its
/// packet (RFC 1191 section 4, RFC 4443 section 3.2); `None` when it must not tell.
pub(crate) fn too_big(packet: &[u8], to: usize, vlan: Option<u16>, mtu: usize) -> Option<Vec<u8>> {
    let (router, ether_type): (IpAddr, u16) = match packet.first()? >> 4 {
        4 => (Ipv4Addr::new(192, 0, 2, 254).into(), ethernet::ETHER_TYPE_IPV4),
        _ => {
            let router = Ipv6Addr::new(0x2001, 0xdb8, 0xfff, 0, 0, 0, 0, 1);
            (router.into(), ethernet::ETHER_TYPE_IPV6)
        }
    };
    let kind = ErrorKind::TooBig { mtu: u32::try_from(mtu).ok()? };
    let mut out = vec![0; 1280];
    let len = icmp::error(&mut out, kind, router, packet)?;
    Some(link_frame(gateway_mac(to, WAN), ROUTER_MAC, vlan, ether_type, &out[..len]))
}

/// Flips one to three bits.
pub(crate) fn flip_bits(random: &mut Random, frame: &mut [u8]) {
    for _ in 0..random.between(1, 3) {
        let at = random.index(frame.len());
        frame[at] ^= 1 << random.below(8);
    }
}

/// Sets the ECN field of the outer header to CE, as a router with a long queue does.
fn mark_congestion(frame: &mut [u8]) -> bool {
    let Ok(link) = ethernet::parse(frame) else {
        return false;
    };
    let packet = &mut frame[link.payload_at..];
    match ip::parse(packet) {
        Ok(parsed) => {
            ip::set_tos(packet, &parsed, parsed.tos() | 3);
            true
        }
        Err(_) => false,
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Flight) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Flight) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Flight) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(faults: Faults) -> Scenario {
        Scenario { faults, ..Scenario::quiet(Vec::new()) }
    }

    /// Without faults everything arrives unchanged, in order, not before its time.
    #[test]
    fn calm_wire_keeps_order() {
        let mut wire = Wire::new(Random::new(1), &scenario(Faults::default()));
        (0..9).for_each(|octet| wire.convey(0, 1, vec![octet; 60]));
        assert!(wire.arrived(DELAY_NS - 1).is_none());
        for octet in 0..9 {
            assert_eq!(wire.arrived(DELAY_NS), Some((1, vec![octet; 60])));
        }
        assert!(wire.is_empty());
        assert_eq!(wire.damage, Damage::default());
    }

    /// Each fault happens about as often as it should.
    #[test]
    fn faults_happen() {
        let half = Faults {
            loss: 500,
            duplication: 500,
            reordering: 500,
            bit_flips: 500,
            truncation: 500,
            delay_ns_max: 1000,
            ..Faults::default()
        };
        let mut wire = Wire::new(Random::new(1), &scenario(half));
        (0..2000).for_each(|_| wire.convey(0, 0, vec![0; 100]));
        let Damage { lost, duplicated, delayed, flipped, truncated, .. } = wire.damage;
        assert!((900..1100).contains(&lost), "{lost} lost");
        for count in [duplicated, delayed, flipped, truncated] {
            assert!((400..600).contains(&count), "{count}");
        }
    }
}
