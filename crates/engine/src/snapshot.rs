//! [`Snapshot`]: what a worker knows of policies, and of where SAs are.
//!
//! Each worker has its own, and all have the same once they have taken up what control published:
//! [`Change`]s, in one order for all. A change is of one SPI, group or sender, however many there
//! are, so that an SA comes and goes in the same time with ten others as with a hundred thousand.
//! Only when a table has no room left it comes whole.
//!
//! What a change replaces takes its place, and goes back to control in it: a worker frees nothing.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_aead::Protocol;
use culvert_spd::Compiled;
use culvert_spd::Group;

use crate::directory::Directory;
use crate::directory::Found;
use crate::directory::Key;
use crate::fixed_map::FixedMap;
use crate::tables::Bundle;
use crate::tables::Location;
use crate::tables::Members;

/// What errors name an outbound SA by: protocol, SPI and outer destination.
pub type Sender = (Protocol, u32, IpAddr);

/// What all workers need to find SAs: policies, inbound SAs by SPI, outbound SAs by group.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Policies.
    pub spd: Arc<Compiled>,
    /// Inbound SAs.
    pub directory: Directory,
    /// The outbound SAs of each group.
    pub groups: FixedMap<Group, Members>,
    /// Outbound SAs of more than one group: for what an SA sends by itself.
    pub bundles: Arc<[Bundle]>,
    /// Outbound SAs in use: for errors that name them.
    pub senders: FixedMap<Sender, Location>,
}

/// Something that is different from now on.
#[derive(Clone, Debug)]
pub enum Change {
    /// The policies.
    Policies(Arc<Compiled>),
    /// The inbound SAs of an SPI.
    Inbound(Key, Option<Found>),
    /// The outbound SAs of a group.
    Group(Group, Option<Members>),
    /// Where the outbound SA is that errors name so.
    Sender(Sender, Option<Location>),
    /// Outbound SAs of more than one group.
    Bundles(Arc<[Bundle]>),
    /// All inbound SAs.
    Directory(Box<Directory>),
    /// The SAs of all groups.
    Groups(Box<FixedMap<Group, Members>>),
    /// All senders.
    Senders(Box<FixedMap<Sender, Location>>),
}

impl Snapshot {
    /// Takes a change up, which is what was there before then.
    pub fn apply(&mut self, change: &mut Change) {
        match change {
            Change::Policies(policies) => std::mem::swap(&mut self.spd, policies),
            Change::Inbound(key, found) => self.directory.set(*key, found),
            Change::Group(group, members) => set(&mut self.groups, *group, members),
            Change::Sender(sender, location) => set(&mut self.senders, *sender, location),
            Change::Bundles(bundles) => std::mem::swap(&mut self.bundles, bundles),
            Change::Directory(directory) => std::mem::swap(&mut self.directory, directory),
            Change::Groups(groups) => std::mem::swap(&mut self.groups, groups),
            Change::Senders(senders) => std::mem::swap(&mut self.senders, senders),
        }
    }
}

fn set<K: Copy + Eq + std::hash::Hash, V>(map: &mut FixedMap<K, V>, key: K, value: &mut Option<V>) {
    *value = match value.take() {
        Some(new) => map.put(key, new),
        None => map.take(&key),
    };
}
