//! Which inbound SA a packet is for (RFC 4303 section 2.1, RFC 4301 section 4.1).
//!
//! Several SAs may have one SPI when their destinations, or destinations and sources, tell them
//! apart, and ESP and AH have SPIs of their own. The longest match wins: SPI, destination and
//! source; then SPI and destination; then SPI.
//!
//! Nearly every SPI is that of one SA, whose source does not matter: such an SA takes 32 octets in
//! line, two to a cache line. What is different lies aside.
//!
//! Control has the directory of record, and makes room in it. Each worker has a copy, which it
//! brings up to date by what control [says](Directory::at) of single SPIs.

use std::net::IpAddr;

use culvert_aead::Protocol;
use thiserror::Error;

use crate::fixed_map::FixedMap;
use crate::ids::WorkerId;
use crate::options::Lookup;
use crate::tables::Location;
use crate::tables::Place;

/// The inbound SAs of a gateway by protocol and SPI.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_spi: FixedMap<Key, First>,
    /// Of SPIs of several SAs, and of SAs that look at sources: the longest match first.
    aside: FixedMap<Key, Box<[Entry]>>,
}

/// What SAs are looked up by first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    spi: u32,
    protocol: Protocol,
}

/// The SA of an SPI, as far as it is in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct First {
    destination: [u64; 2],
    slot: u32,
    worker: WorkerId,
    wants: Wants,
}

const _: () = assert!(size_of::<Option<(Key, First)>>() == 32, "two to a cache line");

/// What a packet must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// The SPI.
    Spi,
    /// This destination as well.
    V4,
    V6,
    /// What lies aside says so.
    Aside,
}

/// What a directory has of one SPI.
#[derive(Clone, Debug)]
pub struct Found {
    first: First,
    aside: Box<[Entry]>,
}

/// An SA, and what a packet must have to be for it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    destination: Option<IpAddr>,
    source: Option<IpAddr>,
    location: Location,
}

/// An SA of a directory: what a packet must have to be for it, and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// ESP or AH.
    pub protocol: Protocol,
    /// SPI.
    pub spi: u32,
    /// Outer destination address, if that takes part.
    pub destination: Option<IpAddr>,
    /// Outer source address, if that takes part.
    pub source: Option<IpAddr>,
    /// Where it lives.
    pub location: Location,
}

/// An SA that the directory has a place for already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("inbound SPI {0:#x} is in use")]
pub struct SpiInUse(pub u32);

impl Key {
    /// Of an SA.
    #[must_use]
    pub fn new(protocol: Protocol, spi: u32) -> Key {
        Key { spi, protocol }
    }
}

impl Entry {
    fn new(lookup: Lookup, source: IpAddr, destination: IpAddr, location: Location) -> Entry {
        Entry {
            destination: (lookup != Lookup::Spi).then_some(destination),
            source: (lookup == Lookup::SpiDestinationSource).then_some(source),
            location,
        }
    }

    fn matches(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.destination.is_none_or(|wanted| wanted == destination)
            && self.source.is_none_or(|wanted| wanted == source)
    }

    fn is_same(&self, other: &Entry) -> bool {
        (self.destination, self.source) == (other.destination, other.source)
    }

    fn len(&self) -> usize {
        usize::from(self.destination.is_some()) + usize::from(self.source.is_some())
    }
}

/// An address as it is compared in line.
#[inline(always)]
fn words(address: IpAddr) -> (Wants, [u64; 2]) {
    match address {
        IpAddr::V4(address) => (Wants::V4, [0, u64::from(address.to_bits())]),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
            let halves = [(bits >> 64) as u64, bits as u64];
            (Wants::V6, halves)
        }
    }
}

impl First {
    /// An SA in line; nothing for one that must lie aside.
    fn of(entry: &Entry) -> Option<First> {
        let Location { worker, slot } = entry.location;
        let (wants, destination) = match (entry.destination, entry.source) {
            (_, Some(_)) => return None,
            (Some(destination), None) => words(destination),
            (None, None) => (Wants::Spi, [0; 2]),
        };
        Some(First { destination, slot, worker, wants })
    }

    fn location(&self) -> Location {
        Location { worker: self.worker, slot: self.slot }
    }

    /// The other way round.
    fn entry(&self) -> Entry {
        let [high, low] = self.destination;
        let destination = match self.wants {
            Wants::Spi | Wants::Aside => None,
            #[expect(clippy::cast_possible_truncation, reason = "it was an IPv4 address")]
            Wants::V4 => Some(IpAddr::from((low as u32).to_be_bytes())),
            Wants::V6 => {
                Some(IpAddr::from((u128::from(high) << 64 | u128::from(low)).to_be_bytes()))
            }
        };
        Entry { destination, source: None, location: self.location() }
    }
}

impl Found {
    /// Of SAs in any order; nothing without any.
    fn of(mut entries: Vec<Entry>) -> Option<Found> {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.len()));
        let head = entries.first()?;
        if let (Some(first), 1) = (First::of(head), entries.len()) {
            return Some(Found { first, aside: Box::default() });
        }
        let Location { worker, slot } = head.location;
        let first = First { destination: [0; 2], slot, worker, wants: Wants::Aside };
        Some(Found { first, aside: entries.into() })
    }

    fn entries(&self) -> Vec<Entry> {
        match self.first.wants {
            Wants::Aside => self.aside.to_vec(),
            _ => vec![self.first.entry()],
        }
    }
}

impl Directory {
    /// Adds an SA, and makes room for it.
    ///
    /// # Errors
    /// When there is one that the same packets would find.
    pub fn insert(
        &mut self,
        (protocol, spi): (Protocol, u32),
        lookup: Lookup,
        (source, destination): (IpAddr, IpAddr),
        location: Location,
    ) -> Result<(), SpiInUse> {
        let entry = Entry::new(lookup, source, destination, location);
        let key = Key { spi, protocol };
        self.by_spi.make_room();
        if let (false, Some(first)) = (self.by_spi.contains_key(&key), First::of(&entry)) {
            self.by_spi.put(key, first);
            return Ok(());
        }
        let mut entries = self.at(key).map_or_else(Vec::new, |found| found.entries());
        if entries.iter().any(|other| other.is_same(&entry)) {
            return Err(SpiInUse(spi));
        }
        entries.push(entry);
        self.aside.make_room();
        self.set(key, &mut Found::of(entries));
        Ok(())
    }

    /// Takes the SA at `location` out; false when it is not there.
    pub fn remove(&mut self, protocol: Protocol, spi: u32, location: Location) -> bool {
        let key = Key { spi, protocol };
        let mut entries = self.at(key).map_or_else(Vec::new, |found| found.entries());
        let Some(at) = entries.iter().position(|entry| entry.location == location) else {
            return false;
        };
        entries.remove(at);
        self.set(key, &mut Found::of(entries));
        true
    }

    /// Moves the SA at one location to another; false when it is not there.
    pub fn relocate(&mut self, protocol: Protocol, spi: u32, from: Location, to: Location) -> bool {
        let key = Key { spi, protocol };
        let mut entries = self.at(key).map_or_else(Vec::new, |found| found.entries());
        let mut moved = entries.iter_mut().filter(|entry| entry.location == from);
        let is_there = moved.next().map(|entry| entry.location = to).is_some();
        if is_there {
            self.set(key, &mut Found::of(entries));
        }
        is_there
    }

    /// What there is of an SPI.
    #[must_use]
    pub fn at(&self, key: Key) -> Option<Found> {
        let first = *self.by_spi.get(&key)?;
        let aside = match first.wants {
            Wants::Aside => self.aside.get(&key).cloned().unwrap_or_default(),
            _ => Box::default(),
        };
        Some(Found { first, aside })
    }

    /// Makes an SPI mean this; `found` holds what has to be freed then. There must be room.
    pub(crate) fn set(&mut self, key: Key, found: &mut Option<Found>) {
        match found {
            None => {
                let first = self.by_spi.take(&key);
                let aside = self.aside.take(&key).unwrap_or_default();
                *found = first.map(|first| Found { first, aside });
            }
            Some(Found { first, aside }) => {
                self.by_spi.put(key, *first);
                let old = match first.wants {
                    Wants::Aside => self.aside.put(key, std::mem::take(aside)),
                    _ => self.aside.take(&key),
                };
                *aside = old.unwrap_or_default();
            }
        }
    }

    /// SAs that there may be without another table.
    #[must_use]
    pub fn capacity(&self) -> (usize, usize) {
        (self.by_spi.capacity(), self.aside.capacity())
    }

    /// Octets of memory of the tables.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.by_spi.octets() + self.aside.octets()
    }

    /// Asks for what a packet with this SPI looks at first to be fetched into the cache.
    #[inline(always)]
    pub fn prefetch(&self, protocol: Protocol, spi: u32) {
        self.by_spi.prefetch(&Key { spi, protocol });
    }

    /// The SA of a packet.
    #[inline(always)]
    #[must_use]
    pub fn find(
        &self,
        protocol: Protocol,
        spi: u32,
        source: IpAddr,
        destination: IpAddr,
    ) -> Option<Location> {
        let key = Key { spi, protocol };
        let first = self.by_spi.get(&key)?;
        let is_it = match first.wants {
            Wants::Spi => true,
            Wants::V4 | Wants::V6 => (first.wants, first.destination) == words(destination),
            Wants::Aside => return self.find_aside(key, source, destination),
        };
        is_it.then(|| first.location())
    }

    /// The same behind an IPv4 header, whose addresses are `ends`: as they stand there, for an
    /// address that is taken apart is put together again octet by octet.
    #[inline(always)]
    #[must_use]
    pub(crate) fn find_v4(&self, protocol: Protocol, spi: u32, ends: [u8; 8]) -> Place {
        let key = Key { spi, protocol };
        let Some(first) = self.by_spi.get(&key) else {
            return Place::NONE;
        };
        let destination = u64::from_be_bytes(ends) & u64::from(u32::MAX);
        match first.wants {
            Wants::Spi => Place::of(first.location()),
            Wants::V4 if first.destination[1] == destination => Place::of(first.location()),
            Wants::V4 | Wants::V6 => Place::NONE,
            Wants::Aside => self.find_v4_aside(key, ends),
        }
    }

    #[cold]
    fn find_v4_aside(&self, key: Key, [s0, s1, s2, s3, d0, d1, d2, d3]: [u8; 8]) -> Place {
        let [source, destination] = [[s0, s1, s2, s3], [d0, d1, d2, d3]].map(IpAddr::from);
        self.find_aside(key, source, destination).map_or(Place::NONE, Place::of)
    }

    #[cold]
    fn find_aside(&self, key: Key, source: IpAddr, destination: IpAddr) -> Option<Location> {
        let mut entries = self.aside.get(&key)?.iter();
        entries.find(|entry| entry.matches(source, destination)).map(|entry| entry.location)
    }
}

impl Directory {
    /// All SAs, in no order: for whoever wants to see what is there, not for packets.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.by_spi.iter().flat_map(|(&key, &first)| {
            let aside = self.aside.get(&key).cloned().unwrap_or_default();
            Found { first, aside }.entries().into_iter().map(move |entry| {
                let Entry { destination, source, location } = entry;
                let Key { spi, protocol } = key;
                Listed { protocol, spi, destination, source, location }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::WorkerId;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn location(slot: u32) -> Location {
        Location { worker: WorkerId(0), slot }
    }

    fn lookups() -> impl Strategy<Value = Lookup> {
        prop_oneof![
            Just(Lookup::Spi),
            Just(Lookup::SpiDestination),
            Just(Lookup::SpiDestinationSource)
        ]
    }

    type Sa = (bool, u32, Lookup, u8, u8);

    /// The definition: of all SAs that match, the one with the most addresses.
    fn search(sas: &[(Sa, u32)], ah: bool, spi: u32, source: u8, destination: u8) -> Option<u32> {
        let matches = |&&((of_ah, of_spi, lookup, from, to), _): &&(Sa, u32)| {
            (of_ah, of_spi) == (ah, spi)
                && (lookup == Lookup::Spi || to == destination)
                && (lookup != Lookup::SpiDestinationSource || from == source)
        };
        sas.iter().filter(matches).max_by_key(|((_, _, lookup, ..), _)| *lookup).map(|sa| sa.1)
    }

    proptest! {
        /// I04: the longest match wins, whatever the order in which SAs come and go.
        #[test]
        fn equals_the_definition(
            sas in proptest::collection::vec(
                (any::<bool>(), 0u32..2, lookups(), 0u8..3, 0u8..3), 0..12),
            gone in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let mut directory = Directory::default();
            let mut known: Vec<(Sa, u32)> = Vec::new();
            let of = |ah| if ah { Protocol::Ah } else { Protocol::Esp };
            for (slot, &sa) in (0..).zip(&sas) {
                let (ah, spi, lookup, from, to) = sa;
                let addresses = (address(from), address(to));
                if directory.insert((of(ah), spi), lookup, addresses, location(slot)).is_ok() {
                    known.push((sa, slot));
                }
            }
            let mut gone = gone.into_iter();
            known.retain(|&((ah, spi, ..), slot)| {
                let stays = !gone.next().unwrap();
                stays || !directory.remove(of(ah), spi, location(slot))
            });
            let mut listed: Vec<u32> = directory.list().map(|sa| sa.location.slot).collect();
            listed.sort_unstable();
            prop_assert_eq!(listed, known.iter().map(|&(_, slot)| slot).collect::<Vec<u32>>());
            let ends = (0u8..3).flat_map(|from| (0u8..3).map(move |to| (from, to)));
            let all = [(false, 0), (false, 1), (true, 0), (true, 1)];
            for ((ah, spi), (from, to)) in
                all.into_iter().flat_map(|sa| ends.clone().map(move |ends| (sa, ends)))
            {
                let found = directory.find(of(ah), spi, address(from), address(to));
                let expected = search(&known, ah, spi, from, to).map(location);
                prop_assert_eq!(found, expected);
                let ends = [[192, 0, 2, from], [192, 0, 2, to]].concat().try_into().unwrap();
                prop_assert_eq!(directory.find_v4(of(ah), spi, ends).location(), expected);
            }
        }
    }

    /// An address of IPv6 is none of IPv4 that has the same low bits.
    #[test]
    fn families_are_told_apart() {
        let (v4, v6) = (address(7), IpAddr::from(0xc000_0207_u128.to_be_bytes()));
        for (of_sa, is_found) in [(v4, true), (v6, false)] {
            let mut directory = Directory::default();
            let sa = (Protocol::Esp, 1);
            let lookup = Lookup::SpiDestination;
            directory.insert(sa, lookup, (of_sa, of_sa), location(3)).unwrap();
            let found = directory.find_v4(Protocol::Esp, 1, [192, 0, 2, 7, 192, 0, 2, 7]);
            assert_eq!(found.location(), is_found.then_some(location(3)));
            assert_eq!(directory.find(Protocol::Esp, 1, v4, v4).is_some(), is_found);
        }
    }

    /// Two SAs that the same packets would find cannot be told apart; ESP and AH can.
    #[test]
    fn doubles_are_refused() {
        let mut directory = Directory::default();
        let addresses = (address(1), address(2));
        let mut insert = |protocol, lookup, slot| {
            directory.insert((protocol, 0x1001), lookup, addresses, location(slot))
        };
        assert_eq!(insert(Protocol::Esp, Lookup::SpiDestination, 0), Ok(()));
        assert_eq!(insert(Protocol::Esp, Lookup::SpiDestination, 1), Err(SpiInUse(0x1001)));
        assert_eq!(insert(Protocol::Esp, Lookup::Spi, 2), Ok(()));
        assert_eq!(insert(Protocol::Ah, Lookup::SpiDestination, 3), Ok(()));
    }
}
