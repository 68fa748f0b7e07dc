//! A direct-mapped cache of exact matches in front of a slower lookup.
//!
//! One slot per hash: a newer key displaces an older one, so the cache never grows and needs no
//! eviction. It is emptied whenever what it answers for changes, so it is always equal to the
//! lookup behind it.

use culvert_spd::Flow;
use culvert_spd::Upper;
use culvert_wire::ip;

/// The cache. `SLOTS` is a power of two.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    slots: Box<[Option<(K, V)>]>,
}

/// A key that knows its own hash: quick, and good enough to spread over the slots.
pub(crate) trait Key: Copy + Eq {
    fn hash(&self) -> u64;
}

/// Odd numbers without a pattern: the fractions of the square roots of 2, 3 and 5.
const MIX: [u64; 3] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b];

#[inline]
fn fold(address: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    let halves = (address as u64, (address >> 64) as u64);
    halves.0 ^ halves.1.rotate_left(23)
}

/// A flow, or its addresses alone, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    source: u128,
    destination: u128,
    /// Family, protocol, and which field of that protocol has which value.
    rest: u64,
}

impl FlowKey {
    /// For policies that look at addresses only.
    #[inline]
    pub(crate) fn of_addresses(addresses: &ip::Addresses) -> FlowKey {
        let ip::Addresses { is_v4, source, destination } = *addresses;
        FlowKey { source, destination, rest: u64::from(is_v4) }
    }

    /// For all policies.
    pub(crate) fn of(flow: &Flow) -> FlowKey {
        let (kind, value) = match flow.upper {
            Upper::None => (0, 0),
            Upper::Opaque => (1, 0),
            Upper::Ports { source, destination } => {
                (2, u64::from(source) << 16 | u64::from(destination))
            }
            Upper::Icmp(value) => (3, u64::from(value)),
            Upper::Mobility(value) => (4, u64::from(value)),
        };
        let key = FlowKey::of_addresses(&flow.addresses);
        let upper = value << 16 | u64::from(flow.protocol) << 8 | kind << 1;
        FlowKey { rest: key.rest | upper, ..key }
    }
}

impl Key for FlowKey {
    #[inline]
    fn hash(&self) -> u64 {
        (fold(self.source) ^ self.rest)
            .wrapping_mul(MIX[0])
            .wrapping_add(fold(self.destination).wrapping_mul(MIX[1]))
            .wrapping_add(self.rest.wrapping_mul(MIX[2]))
    }
}

/// Family and destination.
impl Key for (bool, u128) {
    #[inline]
    fn hash(&self) -> u64 {
        fold(self.1).wrapping_mul(MIX[0])
    }
}

impl<K: Key, V: Copy> Cache<K, V> {
    /// An empty cache with `slots` slots.
    ///
    /// # Panics
    /// When `slots` is not a power of two.
    pub(crate) fn new(slots: usize) -> Cache<K, V> {
        assert!(slots.is_power_of_two(), "masks select the slot");
        Cache { slots: vec![None; slots].into() }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// The value of `key`: the cached one, or what `look_up` finds, which is then cached.
    #[inline]
    pub(crate) fn get_or(&mut self, key: K, look_up: impl FnOnce() -> V) -> V {
        let index = (key.hash() >> 40) as usize & (self.slots.len() - 1);
        match self.slots[index] {
            Some((cached, value)) if cached == key => value,
            _ => {
                let value = look_up();
                self.slots[index] = Some((key, value));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let flows: Vec<Flow> = [6, 17]
            .into_iter()
            .flat_map(|protocol| uppers.map(|upper| Flow { addresses, protocol, upper }))
            .chain([ip::Addresses { is_v4: false, ..addresses }].map(|addresses| Flow {
                addresses,
                protocol: 6,
                upper: Upper::None,
            }))
            .collect();
        for (at, flow) in flows.iter().enumerate() {
            for other in &flows[at + 1..] {
                assert_ne!(FlowKey::of(flow), FlowKey::of(other), "{flow:?} {other:?}");
            }
        }
    }

    /// Answers are those of the lookup, asked once while the key stays, and again after a clear.
    #[test]
    fn equals_the_lookup() {
        let mut cache: Cache<(bool, u128), u64> = Cache::new(16);
        for key in 0..1000u64 {
            let value = key * 3;
            let key = (true, u128::from(key));
            assert_eq!(cache.get_or(key, || value), value);
            assert_eq!(cache.get_or(key, || unreachable!("cached")), value);
        }
        cache.clear();
        assert_eq!(cache.get_or((true, 999), || 7), 7);
    }
}
