//! The SA database of record, as the kernel's: SAs by name, and *larval* ones, which have an SPI or
//! are wanted but have no keys yet.
//!
//! A name is destination, SPI and protocol; marks may tell several with one name apart. An SA has
//! no direction of its own here: what it is for on the data plane says [`Installed`].

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::IpAddr;

use culvert_control::Direction;
use culvert_control::SaId as Handle;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Errno;
use culvert_xfrm::address::Address;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mark;
use culvert_xfrm::sa::SaInfo;

use crate::numbers::Numbers;

/// Most SAs, larval ones included.
pub(crate) const SAS_MAX: usize = 1 << 20;

/// Tries to find a free SPI in a range.
const SPI_TRIES: u32 = 1 << 12;

/// Number of an SA of the database; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SaNumber(pub(crate) u64);

/// How packets and requests name an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) destination: IpAddr,
    pub(crate) spi: u32,
    pub(crate) proto: u8,
}

/// Whole words, of which a hash has fewer than of fields.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Name { destination, spi, proto } = *self;
        hash_address(destination, state);
        state.write_u64(u64::from(spi) << 8 | u64::from(proto));
    }
}

/// An address; one of IPv4 as the address of IPv6 that stands for it, which hardly any SA has.
pub(crate) fn hash_address(address: IpAddr, state: &mut impl Hasher) {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    state.write(&bits.to_ne_bytes());
}

/// What an SA is on the data plane. One whose direction nothing tells is there in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) inbound: Option<Handle>,
    pub(crate) outbound: Option<Handle>,
}

impl Installed {
    pub(crate) fn directions(self) -> impl Iterator<Item = Direction> {
        let inbound = self.inbound.map(|_| Direction::Inbound);
        inbound.into_iter().chain(self.outbound.map(|_| Direction::Outbound))
    }

    pub(crate) fn handles(self) -> impl Iterator<Item = Handle> {
        self.inbound.into_iter().chain(self.outbound)
    }
}

/// How far an SA has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Without keys, until this second.
    Larval { until: u64 },
    /// With keys.
    Valid,
}

/// An SA.
#[derive(Clone, Debug)]
pub(crate) struct Sa {
    pub(crate) info: SaInfo,
    pub(crate) attributes: Attributes,
    pub(crate) stage: Stage,
    pub(crate) installed: Installed,
    /// A soft limit was reached and told.
    pub(crate) is_dying: bool,
}

impl Sa {
    pub(crate) fn name(&self) -> Option<Name> {
        name(self.info.id.daddr, self.info.id.spi, self.info.id.proto, self.info.family)
    }

    pub(crate) fn source(&self) -> Option<IpAddr> {
        self.info.saddr.ip(self.info.family)
    }

    pub(crate) fn mark(&self) -> Mark {
        self.attributes.mark().copied().unwrap_or_default()
    }

    pub(crate) fn if_id(&self) -> u32 {
        self.attributes.if_id().copied().unwrap_or(0)
    }

    fn is_larval(&self) -> bool {
        matches!(self.stage, Stage::Larval { .. })
    }
}

/// A name; nothing for a family without addresses.
pub(crate) fn name(daddr: Address, spi: Spi, proto: u8, family: Family) -> Option<Name> {
    Some(Name { destination: daddr.ip(family)?, spi: spi.0, proto })
}

/// The mark that a request looks for, as the kernel computes it.
pub(crate) fn looked_for(attributes: &Attributes) -> u32 {
    attributes.mark().map_or(0, |mark| mark.value & mark.mask)
}

/// What an SA that is wanted is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) info: SaInfo,
    pub(crate) mark: Mark,
    pub(crate) if_id: u32,
}

/// The database.
#[derive(Debug, Default)]
pub(crate) struct Sas {
    /// In boxes, as numbers only rise: nodes of a map that grows at its end are half empty.
    sas: BTreeMap<SaNumber, Box<Sa>>,
    by_name: HashMap<Name, Numbers>,
    /// How many SAs have an SPI, by protocol.
    spis: HashMap<(u32, u8), usize>,
    /// In order, as handles rise with their SAs: the next one is beside the last.
    by_handle: BTreeMap<Handle, SaNumber>,
    /// Larval SAs by what they are for: few, and looked at with each new SA.
    larval: BTreeMap<SaNumber, u64>,
    last: u64,
    last_acquire: u32,
}

impl Sas {
    pub(crate) fn len(&self) -> usize {
        self.sas.len()
    }

    pub(crate) fn get(&self, number: SaNumber) -> Option<&Sa> {
        self.sas.get(&number).map(|sa| &**sa)
    }

    pub(crate) fn get_mut(&mut self, number: SaNumber) -> Option<&mut Sa> {
        self.sas.get_mut(&number).map(|sa| &mut **sa)
    }

    /// All SAs, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (SaNumber, &Sa)> {
        self.sas.iter().map(|(&number, sa)| (number, &**sa))
    }

    /// The SAs older than another, the youngest first, as the kernel lists them.
    pub(crate) fn before(&self, number: SaNumber) -> impl Iterator<Item = (SaNumber, &Sa)> {
        self.sas.range(..number).rev().map(|(&number, sa)| (number, &**sa))
    }

    /// The SA with this name that packets with this mark find: of several the latest.
    pub(crate) fn find(&self, name: Name, mark: u32) -> Option<SaNumber> {
        let numbers = self.by_name.get(&name)?;
        let matches = |number: &&SaNumber| {
            let of_sa = self.sas[number].mark();
            mark & of_sa.mask == of_sa.value
        };
        numbers.as_slice().iter().rev().find(matches).copied()
    }

    /// The SAs with this name, oldest first.
    pub(crate) fn named(&self, name: Name) -> &[SaNumber] {
        self.by_name.get(&name).map_or(&[], Numbers::as_slice)
    }

    /// The SA that is this on the data plane.
    pub(crate) fn of_handle(&self, handle: Handle) -> Option<SaNumber> {
        self.by_handle.get(&handle).copied()
    }

    /// Adds an SA.
    ///
    /// # Errors
    /// ENOBUFS when there are too many.
    pub(crate) fn insert(&mut self, sa: Sa) -> Result<SaNumber, Errno> {
        if self.sas.len() >= SAS_MAX {
            return Err(Errno::ENOBUFS);
        }
        self.last += 1;
        let number = SaNumber(self.last);
        if let Stage::Larval { until } = sa.stage {
            self.larval.insert(number, until);
        }
        self.by_handle.extend(sa.installed.handles().map(|handle| (handle, number)));
        self.index(number, sa.name());
        self.sas.insert(number, Box::new(sa));
        Ok(number)
    }

    /// Takes an SA out.
    pub(crate) fn remove(&mut self, number: SaNumber) -> Option<Sa> {
        let sa = self.sas.remove(&number)?;
        self.larval.remove(&number);
        sa.installed.handles().for_each(|handle| {
            self.by_handle.remove(&handle);
        });
        if sa.info.id.spi.0 != 0
            && let Some(name) = sa.name()
        {
            self.forget(name, number);
        }
        Some(*sa)
    }

    fn index(&mut self, number: SaNumber, name: Option<Name>) {
        if let Some(name) = name.filter(|name| name.spi != 0) {
            self.by_name.entry(name).or_default().push(number);
            *self.spis.entry((name.spi, name.proto)).or_default() += 1;
        }
    }

    fn forget(&mut self, name: Name, number: SaNumber) {
        if let Entry::Occupied(mut numbers) = self.by_name.entry(name)
            && numbers.get_mut().remove(number)
        {
            numbers.remove();
        }
        if let Entry::Occupied(mut count) = self.spis.entry((name.spi, name.proto)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// The latest larval SA without an SPI that is like this, on whichever interface
    /// (`__find_acq_core`).
    pub(crate) fn find_wanted(&self, wanted: &Wanted) -> Option<SaNumber> {
        let is_like = |number: &&SaNumber| {
            let sa = &self.sas[number];
            let (ours, theirs) = (&sa.info, &wanted.info);
            ours.id.spi.0 == 0
                && (ours.reqid, ours.mode, ours.id.proto, ours.family)
                    == (theirs.reqid, theirs.mode, theirs.id.proto, theirs.family)
                && (ours.id.daddr, ours.saddr) == (theirs.id.daddr, theirs.saddr)
                && wanted.mark.value & wanted.mark.mask & sa.mark().mask == sa.mark().value
        };
        self.larval.keys().rev().find(is_like).copied()
    }

    /// The larval SA that was asked for under this number.
    pub(crate) fn of_acquire(&self, seq: u32) -> Option<SaNumber> {
        let mut larval = self.larval.keys().rev();
        larval.find(|number| seq != 0 && self.sas[number].info.seq == seq).copied()
    }

    /// Makes a larval SA that waits until a second.
    ///
    /// # Errors
    /// ENOBUFS when there are too many.
    pub(crate) fn want(
        &mut self,
        wanted: &Wanted,
        now: u64,
        until: u64,
    ) -> Result<SaNumber, Errno> {
        let theirs = &wanted.info;
        let mut info = SaInfo {
            saddr: theirs.saddr,
            reqid: theirs.reqid,
            mode: theirs.mode,
            family: theirs.family,
            seq: theirs.seq,
            ..SaInfo::default()
        };
        info.id.daddr = theirs.id.daddr;
        info.id.proto = theirs.id.proto;
        info.sel = theirs.sel;
        info.limits = Limits {
            soft_bytes: u64::MAX,
            hard_bytes: u64::MAX,
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            hard_age_secs: until - now,
            ..Limits::default()
        };
        info.usage.add_time = now;
        let mut attributes = Vec::new();
        if wanted.mark != Mark::default() {
            attributes.push(Attribute::Mark(wanted.mark));
        }
        if wanted.if_id != 0 {
            attributes.push(Attribute::IfId(wanted.if_id));
        }
        self.insert(Sa {
            info,
            attributes: Attributes(attributes),
            stage: Stage::Larval { until },
            installed: Installed::default(),
            is_dying: false,
        })
    }

    /// Gives a larval SA an SPI from a range that no other SA of its protocol has, wherever that
    /// leads to: so Linux since 6.17.
    ///
    /// # Errors
    /// ENOENT when none is free.
    pub(crate) fn allocate_spi(
        &mut self,
        number: SaNumber,
        (min, max): (u32, u32),
        random: &mut dyn FnMut() -> u32,
    ) -> Result<(), Errno> {
        let sa = self.sas.get(&number).ok_or(Errno::ESRCH)?;
        if sa.info.id.spi.0 != 0 {
            return Ok(());
        }
        let proto = sa.info.id.proto;
        let is_free = |spi: u32| spi != 0 && !self.spis.contains_key(&(spi, proto));
        let span = u64::from(max - min) + 1;
        let drawn = (0..span.min(u64::from(SPI_TRIES))).map(|_| {
            let offset = u64::from(random()) % span;
            u32::try_from(u64::from(min) + offset).unwrap_or(max)
        });
        // In a narrow range each is looked at; in a wide one some are.
        let one_by_one = min..=max.min(min.saturating_add(SPI_TRIES));
        let spi = drawn.chain(one_by_one).find(|&spi| is_free(spi)).ok_or(Errno::ENOENT)?;
        let sa = self.sas.get_mut(&number).expect("it was just there");
        sa.info.id.spi = Spi(spi);
        let name = sa.name();
        self.index(number, name);
        Ok(())
    }

    /// A number for an ACQUIRE, never 0.
    pub(crate) fn next_acquire(&mut self) -> u32 {
        self.last_acquire = self.last_acquire.wrapping_add(1).max(1);
        self.last_acquire
    }

    /// Larval SAs whose time is over.
    pub(crate) fn overdue(&self, now: u64) -> Vec<SaNumber> {
        let over = self.larval.iter().filter(|(_, until)| **until <= now);
        over.map(|(&number, _)| number).collect()
    }

    /// True for a larval SA.
    pub(crate) fn is_larval(&self, number: SaNumber) -> bool {
        self.get(number).is_some_and(Sa::is_larval)
    }

    /// SAs of a protocol, where 0 and 255 mean all of IPsec.
    pub(crate) fn of_proto(&self, proto: u8) -> Vec<SaNumber> {
        let of_proto = self.sas.iter().filter(|(_, sa)| is_of_proto(sa, proto));
        of_proto.map(|(&number, _)| number).collect()
    }
}

impl Sas {
    /// What is wrong, if anything is: see [`Service::inconsistency`].
    ///
    /// [`Service::inconsistency`]: crate::Service::inconsistency
    pub(crate) fn inconsistency(&self) -> Option<String> {
        let mut named = 0;
        for (number, sa) in &self.sas {
            let name = sa.name().filter(|name| name.spi != 0);
            named += usize::from(name.is_some());
            let numbers = name.and_then(|name| self.by_name.get(&name));
            if name.is_some() && !numbers.is_some_and(|numbers| numbers.as_slice().contains(number))
            {
                return Some(format!("{number:?} is not found by its name"));
            }
            let until = match sa.stage {
                Stage::Larval { until } => Some(until),
                Stage::Valid => None,
            };
            if self.larval.get(number) != until.as_ref() {
                return Some(format!("{number:?}: larval until {until:?}"));
            }
            if sa.installed.handles().any(|handle| self.of_handle(handle) != Some(*number)) {
                return Some(format!("{number:?} is not found by its handle"));
            }
        }
        let handles = self.sas.values().flat_map(|sa| sa.installed.handles()).count();
        let counts = [
            (self.by_name.values().map(|numbers| numbers.as_slice().len()).sum::<usize>(), named),
            (self.spis.values().sum(), named),
            (self.by_handle.len(), handles),
            (self.larval.len(), self.sas.values().filter(|sa| sa.is_larval()).count()),
        ];
        let differ = counts.iter().any(|(found, expected)| found != expected);
        differ.then(|| format!("names, SPIs, handles, larval SAs: {counts:?}"))
    }
}

/// True for an SA of a protocol, where 0 and 255 mean all of IPsec.
pub(crate) fn is_of_proto(sa: &Sa, proto: u8) -> bool {
    [0, sa::ANY_PROTO, sa.info.id.proto].contains(&proto)
}
