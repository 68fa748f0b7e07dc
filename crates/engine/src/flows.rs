//! What policy said of flows seen before: an exact-match cache, one cache line for a packet.
//!
//! A set is one line. It holds two flows of IPv4 or one of IPv6; a newer flow displaces an older
//! one, so the cache never grows and needs no eviction. It is emptied whenever what it answers for
//! changes, by counting a generation up, so it is always equal to the lookup behind it.
//!
//! ```text
//! word   0            1     2        3       4          5     6        7
//! IPv4   tag, slot    rest  address  answer  tag, slot  rest  address  answer
//! IPv6   tag, slot    rest  address  answer  0          address ...
//! ```

use std::net::Ipv4Addr;

use culvert_aead::prefetch::prefetch;
use culvert_frame::SlabBox;
use culvert_spd::Action;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Match;
use culvert_spd::Upper;
use culvert_wire::ip;
use culvert_wire::ipv4::Ipv4;
use culvert_wire::ipv6::Ipv6;

/// Words of a set: one line.
const WORDS: usize = 8;
/// Where the second flow of a set stands.
const SECOND: usize = 4;

/// Sets there are at least and at most.
const SETS_MIN: usize = 1 << 11;
const SETS_MAX: usize = 1 << 17;

/// Stands for no slot and for no policy.
const NONE: u32 = u32::MAX;

/// Odd numbers without a pattern: the fractions of the square roots of 2 and 3.
const MIX: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// The cache.
pub(crate) struct FlowCache {
    /// Zeroes until they are used, so that memory is not taken before.
    words: SlabBox<[u64]>,
    /// Sets are numbered by the highest bits of a hash: all but so many.
    shift: u32,
    /// Entries of other generations are empty; 0 is never in use.
    generation: u32,
}

/// A flow, or its addresses alone, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowKey {
    V4 { addresses: u64, rest: u64 },
    V6 { addresses: [u64; 4], rest: u64 },
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) matched: Match,
    /// The slot here of the one SA that its packets take, when that is so simple.
    pub(crate) slot: Option<u32>,
}

/// What of a flow is no address: family, protocol, and which field of that has which value.
#[inline(always)]
fn rest(flow: &Flow) -> u64 {
    let (kind, value) = match flow.upper {
        Upper::None => (0, 0),
        Upper::Opaque => (1, 0),
        Upper::Ports { source, destination } => {
            (2, u64::from(source) << 16 | u64::from(destination))
        }
        Upper::Icmp(value) => (3, u64::from(value)),
        Upper::Mobility(value) => (4, u64::from(value)),
    };
    value << 16 | u64::from(flow.protocol) << 8 | kind << 1 | u64::from(flow.addresses.is_v4)
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
#[inline(always)]
fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

impl FlowKey {
    /// That of the addresses of a packet alone.
    #[inline(always)]
    pub(crate) fn of_v4(packet: &Ipv4) -> FlowKey {
        let [source, destination] = [packet.source, packet.destination].map(Ipv4Addr::to_bits);
        FlowKey::between_v4(u64::from(source) << 32 | u64::from(destination))
    }

    /// That of addresses alone, the source in the upper half.
    #[inline(always)]
    pub(crate) fn between_v4(addresses: u64) -> FlowKey {
        FlowKey::V4 { addresses, rest: 1 }
    }

    /// That of the addresses of a packet alone.
    #[inline(always)]
    pub(crate) fn of_v6(packet: &Ipv6) -> FlowKey {
        let [[a, b], [c, d]] =
            [packet.source, packet.destination].map(|address| halves(address.to_bits()));
        FlowKey::V6 { addresses: [a, b, c, d], rest: 0 }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "addresses of IPv4 have 32 bits")]
    pub(crate) fn of(flow: &Flow) -> FlowKey {
        let ip::Addresses { is_v4, source, destination } = flow.addresses;
        let rest = rest(flow);
        if is_v4 {
            FlowKey::V4 { addresses: (source as u64) << 32 | destination as u64, rest }
        } else {
            let ([a, b], [c, d]) = (halves(source), halves(destination));
            FlowKey::V6 { addresses: [a, b, c, d], rest }
        }
    }

    #[inline(always)]
    fn hash(&self) -> u64 {
        match *self {
            FlowKey::V4 { addresses, rest } => {
                (addresses ^ rest.wrapping_mul(MIX[1])).wrapping_mul(MIX[0])
            }
            FlowKey::V6 { addresses, rest } => addresses
                .into_iter()
                .fold(rest, |hash, word| (hash.rotate_left(29) ^ word).wrapping_mul(MIX[0])),
        }
    }
}

impl FlowCache {
    /// An empty cache for the flows of `count` SAs or more.
    pub(crate) fn new(count: usize) -> FlowCache {
        let sets = (2 * count).next_power_of_two().clamp(SETS_MIN, SETS_MAX);
        let words = SlabBox::from_fn(sets * WORDS, |_| 0);
        FlowCache { words, shift: u64::BITS - sets.ilog2(), generation: 1 }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.generation += 1;
        if self.generation > u32::MAX >> 2 {
            self.words.fill(0);
            self.generation = 1;
        }
    }

    #[inline(always)]
    fn at(&self, key: &FlowKey) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "fewer sets than that")]
        let set = (key.hash() >> self.shift) as usize;
        set * WORDS
    }

    /// Where what is known of a flow stands; asked for, to be in the cache soon.
    #[inline(always)]
    pub(crate) fn ask(&self, key: &FlowKey) -> usize {
        let at = self.at(key);
        if let Some(word) = self.words.get(at) {
            prefetch(word);
        }
        at
    }

    #[inline(always)]
    fn set(&self, at: usize) -> &[u64; WORDS] {
        self.words[at..].first_chunk().expect("a set is whole")
    }

    #[inline(always)]
    fn is_fresh(&self, tag: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "the other half is the slot")]
        let low = tag as u32;
        low >> 2 == self.generation
    }

    /// Which of the two flows of a set it is.
    #[inline(always)]
    fn way(&self, set: &[u64; WORDS], key: &FlowKey) -> Option<usize> {
        match *key {
            FlowKey::V4 { addresses, rest } => {
                let is = |way: usize| {
                    let found = [set[way + 1], set[way + 2]] == [rest, addresses];
                    found & self.is_fresh(set[way])
                };
                if is(0) { Some(0) } else { is(SECOND).then_some(SECOND) }
            }
            FlowKey::V6 { addresses: [a, b, c, d], rest } => {
                let found = [set[1], set[2], set[5], set[6], set[7]] == [rest, a, b, c, d];
                (found & self.is_fresh(set[0])).then_some(0)
            }
        }
    }

    /// The slot of a flow that is known, of which [`ask`](Self::ask) said that it stands `at`. The
    /// slot is beyond all slots when there is no single SA.
    #[inline(always)]
    pub(crate) fn slot(&self, at: usize, key: &FlowKey) -> Option<u32> {
        let set = self.set(at);
        let way = self.way(set, key)?;
        Some((set[way] >> 32) as u32)
    }

    /// What is known of a flow.
    #[inline]
    pub(crate) fn get(&self, key: &FlowKey) -> Option<Known> {
        let set = self.set(self.at(key));
        let way = self.way(set, key)?;
        let [tag, answer] = [set[way], set[way + 3]];
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        let [slot, group, policy] = [(tag >> 32) as u32, (answer >> 32) as u32, answer as u32];
        let action = match tag & 3 {
            0 => None,
            1 => Some(Action::Bypass),
            2 => Some(Action::Discard),
            _ => Some(Action::Protect(Group(group))),
        };
        let some = |number| (number != NONE).then_some(number);
        Some(Known { matched: Match { action, policy: some(policy) }, slot: some(slot) })
    }

    /// Keeps what is known of a flow.
    pub(crate) fn put(&mut self, key: &FlowKey, known: &Known) {
        let (kind, group) = match known.matched.action {
            None => (0, 0),
            Some(Action::Bypass) => (1, 0),
            Some(Action::Discard) => (2, 0),
            Some(Action::Protect(Group(group))) => (3, group),
        };
        let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let tag = join(known.slot.unwrap_or(NONE), self.generation << 2 | kind);
        let answer = join(group, known.matched.policy.unwrap_or(NONE));
        let at = self.at(key);
        let is_free = |word: usize| !self.is_fresh(self.words[at + word]);
        let is_v6 = !is_free(0) && self.words[at + 1] & 1 == 0;
        let way = match (is_free(0) || is_v6, is_free(SECOND)) {
            (true, _) => 0,
            (false, true) => SECOND,
            (false, false) if key.hash() & 1 == 0 => 0,
            (false, false) => SECOND,
        };
        let set = &mut self.words[at..at + WORDS];
        match *key {
            FlowKey::V4 { addresses, rest } => {
                if is_v6 {
                    set[SECOND] = 0;
                }
                set[way..way + 4].copy_from_slice(&[tag, rest, addresses, answer]);
            }
            FlowKey::V6 { addresses: [a, b, c, d], rest } => {
                set.copy_from_slice(&[tag, rest, a, answer, 0, b, c, d]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::ipv4;

    use super::*;

    fn flow(is_v4: bool, number: u32) -> Flow {
        let (source, destination) = (u128::from(number), u128::from(!number));
        let addresses = ip::Addresses { is_v4, source, destination };
        Flow { addresses, protocol: 0, upper: Upper::None }
    }

    fn known(number: u32) -> Known {
        let action = match number % 4 {
            0 => None,
            1 => Some(Action::Bypass),
            2 => Some(Action::Discard),
            _ => Some(Action::Protect(Group(number))),
        };
        let policy = (!number.is_multiple_of(5)).then_some(number);
        let slot = (!number.is_multiple_of(3)).then_some(number);
        Known { matched: Match { action, policy }, slot }
    }

    /// Flows that differ in anything have keys that differ.
    #[test]
    fn keys_are_distinct() {
        let addresses = ip::Addresses { is_v4: true, source: 1, destination: 2 };
        let uppers = [
            Upper::None,
            Upper::Opaque,
            Upper::Ports { source: 0, destination: 0 },
            Upper::Ports { source: 0, destination: 1 },
            Upper::Ports { source: 1, destination: 0 },
            Upper::Icmp(0),
            Upper::Icmp(1),
            Upper::Mobility(0),
            Upper::Mobility(1),
        ];
        let mut flows: Vec<Flow> = [6, 17]
            .into_iter()
            .flat_map(|protocol| uppers.map(|upper| Flow { addresses, protocol, upper }))
            .collect();
        for (source, destination) in [(1, 2), (2, 1), (1 << 64 | 1, 2), (1, 1 << 64 | 2)] {
            let addresses = ip::Addresses { is_v4: false, source, destination };
            flows.push(Flow { addresses, protocol: 6, upper: Upper::None });
        }
        for (at, flow) in flows.iter().enumerate() {
            for other in &flows[at + 1..] {
                assert_ne!(FlowKey::of(flow), FlowKey::of(other), "{flow:?} {other:?}");
            }
        }
    }

    /// Addresses alone make the same key either way.
    #[test]
    fn keys_of_addresses() {
        for packet in [&packet_v4()[..], &packet_v6()[..]] {
            let parsed = ip::parse(packet).unwrap();
            let flow = Flow { addresses: parsed.addresses(), protocol: 0, upper: Upper::None };
            let key = match parsed {
                ip::Packet::V4(header) => FlowKey::of_v4(&header),
                ip::Packet::V6(header) => FlowKey::of_v6(&header),
            };
            assert_eq!(key, FlowKey::of(&flow));
        }
    }

    fn packet_v4() -> [u8; 20] {
        let mut packet = [0; 20];
        let header = ipv4::Header {
            tos: 0,
            total_len: 20,
            id: 1,
            dont_fragment: true,
            ttl: 9,
            protocol: 17,
            source: [10, 1, 2, 3].into(),
            destination: [10, 4, 5, 6].into(),
        };
        ipv4::emit(&mut packet, &header);
        packet
    }

    fn packet_v6() -> [u8; 40] {
        let mut packet = std::array::from_fn(|at| at.to_le_bytes()[0]);
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 59, 9]);
        packet
    }

    /// What was kept comes back whole, or, displaced by others, not at all; and nothing after a
    /// clear. Both families share the sets.
    #[test]
    fn equals_what_was_kept() {
        let mut cache = FlowCache::new(1);
        for round in 0..2 {
            let mut kept = [0; 2];
            for number in 0..20_000 {
                for is_v4 in [true, false] {
                    let key = FlowKey::of(&flow(is_v4, number));
                    assert_eq!(cache.get(&key), None, "{number}, round {round}");
                    cache.put(&key, &known(number));
                    assert_eq!(cache.get(&key), Some(known(number)));
                    let slot = known(number).slot.unwrap_or(u32::MAX);
                    assert_eq!(cache.slot(cache.ask(&key), &key), Some(slot));
                }
            }
            for number in 0..20_000 {
                for is_v4 in [true, false] {
                    if let Some(found) = cache.get(&FlowKey::of(&flow(is_v4, number))) {
                        assert_eq!(found, known(number), "{number}, round {round}");
                        kept[usize::from(is_v4)] += 1;
                    }
                }
            }
            assert!(kept.iter().all(|&kept| kept > SETS_MIN / 4), "{kept:?}");
            cache.clear();
        }
    }

    /// Of as many flows as it is made for, nearly all stay.
    #[test]
    fn holds_what_it_is_made_for() {
        let mut cache = FlowCache::new(10_000);
        let keys: Vec<FlowKey> = (0..10_000)
            .map(|number| {
                let (source, destination) = (0x0a01_0001, 0x0a80_0000 + number);
                let addresses = ip::Addresses { is_v4: true, source, destination };
                FlowKey::of(&Flow { addresses, protocol: 0, upper: Upper::None })
            })
            .collect();
        keys.iter().for_each(|key| cache.put(key, &known(1)));
        let kept = keys.iter().filter(|key| cache.get(key).is_some()).count();
        assert!(kept > 9_800, "{kept}");
    }

    /// A set is one line of the cache.
    #[test]
    fn sets_are_lines() {
        let cache = FlowCache::new(1);
        for number in 0..100 {
            let at = cache.ask(&FlowKey::of(&flow(true, number)));
            assert_eq!(cache.words[at..].as_ptr().align_offset(64), 0);
        }
    }

    /// When generations have been used up, none comes back.
    #[test]
    fn generations_do_not_come_back() {
        let mut cache = FlowCache::new(1);
        let key = FlowKey::of(&flow(true, 7));
        cache.clear();
        cache.put(&key, &known(7));
        cache.generation = u32::MAX >> 2;
        cache.clear();
        cache.clear();
        assert_eq!((cache.generation, cache.get(&key)), (2, None));
    }
}
