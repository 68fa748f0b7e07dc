//! Which inbound SA a packet is for (RFC 4303 section 2.1, RFC 4301 section 4.1).
//!
//! Several SAs may have one SPI when their destinations, or destinations and sources, tell them
//! apart, and ESP and AH have SPIs of their own. The longest match wins: SPI, destination and
//! source; then SPI and destination; then SPI.

use std::net::IpAddr;

use culvert_aead::Protocol;
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::options::Lookup;
use crate::tables::Location;

/// The inbound SAs of a gateway by protocol and SPI.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_spi: FxHashMap<u64, Found>,
}

/// The SAs of one protocol and SPI, longest match first.
#[derive(Clone, Debug)]
struct Found {
    first: Entry,
    others: Vec<Entry>,
}

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

impl Entry {
    fn new(lookup: Lookup, source: IpAddr, destination: IpAddr, location: Location) -> Entry {
        Entry {
            destination: (lookup != Lookup::Spi).then_some(destination),
            source: (lookup == Lookup::SpiDestinationSource).then_some(source),
            location,
        }
    }

    #[inline]
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

fn key(protocol: Protocol, spi: u32) -> u64 {
    u64::from(spi) | u64::from(protocol == Protocol::Ah) << 32
}

impl Directory {
    /// Adds an SA.
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
        let Some(found) = self.by_spi.get_mut(&key(protocol, spi)) else {
            let found = Found { first: entry, others: Vec::new() };
            self.by_spi.insert(key(protocol, spi), found);
            return Ok(());
        };
        if found.first.is_same(&entry) || found.others.iter().any(|other| other.is_same(&entry)) {
            return Err(SpiInUse(spi));
        }
        found.others.push(entry);
        found.sort();
        Ok(())
    }

    /// Takes the SA at `location` out; false when it is not there.
    pub fn remove(&mut self, protocol: Protocol, spi: u32, location: Location) -> bool {
        let Some(found) = self.by_spi.get_mut(&key(protocol, spi)) else {
            return false;
        };
        if let Some(at) = found.others.iter().position(|entry| entry.location == location) {
            found.others.remove(at);
            return true;
        }
        if found.first.location != location {
            return false;
        }
        if found.others.is_empty() {
            self.by_spi.remove(&key(protocol, spi));
        } else {
            found.first = found.others.remove(0);
        }
        true
    }

    /// Moves the SA at one location to another; false when it is not there.
    pub fn relocate(&mut self, protocol: Protocol, spi: u32, from: Location, to: Location) -> bool {
        let Some(found) = self.by_spi.get_mut(&key(protocol, spi)) else {
            return false;
        };
        let all = std::iter::once(&mut found.first).chain(&mut found.others);
        let mut moved = all.filter(|entry| entry.location == from);
        moved.next().map(|entry| entry.location = to).is_some()
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
        let found = self.by_spi.get(&key(protocol, spi))?;
        if found.first.matches(source, destination) {
            return Some(found.first.location);
        }
        found.other(source, destination)
    }
}

impl Directory {
    /// All SAs, in no order: for whoever wants to see what is there, not for packets.
    pub fn list(&self) -> impl Iterator<Item = Listed> {
        self.by_spi.iter().flat_map(|(&key, found)| {
            let protocol = if key >> 32 == 0 { Protocol::Esp } else { Protocol::Ah };
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is the SPI")]
            let spi = key as u32;
            std::iter::once(&found.first).chain(&found.others).map(move |entry| {
                let Entry { destination, source, location } = *entry;
                Listed { protocol, spi, destination, source, location }
            })
        })
    }
}

impl Found {
    #[cold]
    fn other(&self, source: IpAddr, destination: IpAddr) -> Option<Location> {
        let mut others = self.others.iter();
        others.find(|entry| entry.matches(source, destination)).map(|entry| entry.location)
    }

    fn sort(&mut self) {
        self.others.push(self.first);
        self.others.sort_by_key(|entry| std::cmp::Reverse(entry.len()));
        self.first = self.others.remove(0);
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
            }
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
