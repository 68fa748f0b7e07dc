//! Memory of fragmented datagrams: how the later fragments of a datagram follow the first one.
//!
//! Only the first fragment of a UDP datagram tells its port. What it is gets remembered under the
//! [`FragmentKey`] that the receiver of the datagram would reassemble it by, and the later
//! fragments are looked up by the same key. The kernel program keeps the keys in a map that evicts
//! the least recently used, user space in a [`Recent`]; the decision is the same function over
//! both.
//!
//! A fragment that comes before the first one of its datagram is unknown, and so is one whose key
//! was evicted by others: both stay with the kernel, and the datagram is lost.

/// What fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5). No padding, as it
/// is a key of a kernel map, and in words that are not filled by a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentKey {
    /// Upper and lower half of the address; an IPv4 address is in the lower half.
    source: [u64; 2],
    /// As the source.
    destination: [u64; 2],
    id: u32,
    family: u32,
}

impl FragmentKey {
    /// Key of a UDP datagram in IPv4; addresses in network order, an identification of 16 bits.
    #[must_use]
    #[inline(always)]
    pub const fn v4(source: [u8; 4], destination: [u8; 4], id: u32) -> FragmentKey {
        FragmentKey {
            source: [0, u32::from_be_bytes(source) as u64],
            destination: [0, u32::from_be_bytes(destination) as u64],
            id,
            family: 4,
        }
    }

    /// Key of a packet in IPv6; addresses in network order.
    #[must_use]
    #[inline(always)]
    pub const fn v6(source: [u8; 16], destination: [u8; 16], id: u32) -> FragmentKey {
        FragmentKey { source: halves(source), destination: halves(destination), id, family: 6 }
    }
}

#[inline(always)]
const fn halves(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = address;
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
}

/// Datagrams that the engine gets, of which more fragments are to come.
pub trait Fragments {
    /// The fragments of this datagram are the engine's from now on.
    fn remember(&mut self, key: &FragmentKey);

    /// They are not: a datagram has begun that stays with the kernel, under a key that may have
    /// been another datagram's.
    fn forget(&mut self, key: &FragmentKey);

    /// True when the datagram was remembered, and neither forgotten nor evicted since.
    fn knows(&self, key: &FragmentKey) -> bool;
}

/// The last `N` datagrams remembered; allocates nothing.
#[derive(Clone, Debug)]
pub struct Recent<const N: usize> {
    keys: [Option<FragmentKey>; N],
    next: usize,
}

impl<const N: usize> Recent<N> {
    /// An empty memory.
    #[must_use]
    pub const fn new() -> Recent<N> {
        Recent { keys: [None; N], next: 0 }
    }
}

impl<const N: usize> Default for Recent<N> {
    fn default() -> Recent<N> {
        Recent::new()
    }
}

impl<const N: usize> Fragments for Recent<N> {
    fn remember(&mut self, key: &FragmentKey) {
        if self.knows(key) {
            return;
        }
        if let Some(place) = self.keys.get_mut(self.next) {
            *place = Some(*key);
            self.next = (self.next + 1) % N;
        }
    }

    fn forget(&mut self, key: &FragmentKey) {
        for place in &mut self.keys {
            if place.as_ref() == Some(key) {
                *place = None;
            }
        }
    }

    fn knows(&self, key: &FragmentKey) -> bool {
        self.keys.iter().flatten().any(|known| known == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> FragmentKey {
        FragmentKey::v4([192, 0, 2, 1], [192, 0, 2, 2], id)
    }

    /// A key is 40 octets, all of them its fields', and each field tells datagrams apart.
    #[test]
    fn keys_are_distinct_without_padding() {
        assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 + 4);
        let v6 = |change: usize| {
            let mut addresses = [[1; 16], [2; 16]];
            if let Some(octet) = addresses.as_flattened_mut().get_mut(change) {
                *octet ^= 0x80;
            }
            FragmentKey::v6(addresses[0], addresses[1], 7)
        };
        let plain = v6(usize::MAX);
        assert_eq!(plain, v6(32));
        for octet in 0..32 {
            assert_ne!(plain, v6(octet), "octet {octet}");
        }
        let v4 = FragmentKey::v4([0, 0, 0, 1], [0, 0, 0, 2], 7);
        let one = |last| {
            let mut address = [0; 16];
            address[15] = last;
            address
        };
        assert_ne!(v4, FragmentKey::v6(one(1), one(2), 7));
        assert_ne!(v4, FragmentKey::v4([0, 0, 0, 1], [0, 0, 0, 2], 8));
        assert_ne!(v4, FragmentKey::v4([0, 0, 0, 2], [0, 0, 0, 1], 7));
    }

    /// A memory of two keeps the last two, each once, and forgets what it is told to.
    #[test]
    fn the_oldest_makes_room() {
        let mut recent = Recent::<2>::new();
        let known = |recent: &Recent<2>| [1, 2, 3].map(|id| recent.knows(&key(id)));
        assert_eq!(known(&recent), [false, false, false]);
        recent.remember(&key(1));
        recent.remember(&key(2));
        recent.remember(&key(2));
        assert_eq!(known(&recent), [true, true, false]);
        recent.remember(&key(3));
        assert_eq!(known(&recent), [false, true, true]);
        recent.forget(&key(2));
        assert_eq!(known(&recent), [false, false, true]);
    }

    /// A memory without room knows nothing, and does not mind.
    #[test]
    fn no_room_is_no_memory() {
        let mut recent = Recent::<0>::default();
        recent.remember(&key(1));
        assert!(!recent.knows(&key(1)));
    }
}
