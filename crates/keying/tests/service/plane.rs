//! A data plane that only takes notes, and says what it is told to.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;

use culvert_control::ControlError;
use culvert_control::Direction;
use culvert_control::SaId as Handle;
use culvert_control::SaSpec;
use culvert_engine::Peer;
use culvert_engine::directory::SpiInUse;
use culvert_esp::Lifetime;
use culvert_keying::DataPlane;
use culvert_keying::Report;
use culvert_spd::Group;
use culvert_spd::Spd;

/// What a data plane was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    /// To install an SA.
    Add(Handle),
    /// To remove one.
    Remove(Handle),
    /// To change limits.
    Limits(Handle, Lifetime),
    /// To send to another port.
    Peer(Handle, Peer),
    /// To take policies.
    Policies,
    /// To wait for its workers.
    Settle,
}

/// A data plane without workers.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The SAs that it has, by age.
    pub(crate) specs: BTreeMap<Handle, SaSpec>,
    /// What it says of them.
    pub(crate) reports: BTreeMap<Handle, Report>,
    /// What it was asked, oldest first.
    pub(crate) calls: Vec<Call>,
    /// Its policies.
    pub(crate) spd: Spd,
    /// Its groups of several SAs.
    pub(crate) bundles: Vec<(Group, Vec<Group>)>,
    /// Its addresses.
    pub(crate) own: BTreeSet<IpAddr>,
    /// The epoch of SAs that are added.
    pub(crate) epoch: u64,
    /// Errors of the next installations, the last first.
    pub(crate) refusals: Vec<Option<ControlError>>,
    last: u64,
    random: u32,
}

impl Notes {
    /// One that has these addresses.
    pub(crate) fn with_addresses(own: &[&str]) -> Notes {
        let own = own.iter().map(|text| text.parse().expect("an address")).collect();
        Notes { own, epoch: 1, ..Notes::default() }
    }

    /// What it was asked since the last time.
    pub(crate) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// The SA that packets of a group are sent with: the latest.
    pub(crate) fn sends(&self, group: Group) -> Option<(Handle, &SaSpec)> {
        let is_of = |spec: &SaSpec| {
            spec.direction == Direction::Outbound
                && (spec.group == group || spec.alias == Some(group))
        };
        let mut latest = self.specs.iter().rev();
        latest.find(|(_, spec)| is_of(spec)).map(|(handle, spec)| (*handle, spec))
    }

    /// SPIs of the SAs that it has, by direction and age.
    pub(crate) fn spis(&self, direction: Direction) -> Vec<u32> {
        let specs = self.specs.values().filter(|spec| spec.direction == direction);
        specs.map(|spec| spec.spi.value()).collect()
    }

    /// The only SA of a direction.
    pub(crate) fn only(&self, direction: Direction) -> (Handle, &SaSpec) {
        let mut specs = self.specs.iter().filter(|(_, spec)| spec.direction == direction);
        let (handle, spec) = specs.next().expect("an SA");
        assert!(specs.next().is_none(), "several SAs");
        (*handle, spec)
    }
}

impl DataPlane for Notes {
    fn add(&mut self, spec: &SaSpec) -> Result<Handle, ControlError> {
        if let Some(Some(error)) = self.refusals.pop() {
            return Err(error);
        }
        let clashes = |other: &SaSpec| {
            let inbound = Direction::Inbound;
            (other.direction, spec.direction) == (inbound, inbound)
                && (other.spi, other.destination) == (spec.spi, spec.destination)
        };
        if self.specs.values().any(clashes) {
            return Err(SpiInUse(spec.spi.value()).into());
        }
        self.last += 1;
        let handle = Handle::stand_in(self.last);
        self.specs.insert(handle, spec.clone());
        self.calls.push(Call::Add(handle));
        Ok(handle)
    }

    fn remove(&mut self, handle: Handle) {
        assert!(self.specs.remove(&handle).is_some(), "an SA that is not there is removed");
        self.calls.push(Call::Remove(handle));
    }

    fn set_lifetime(&mut self, handle: Handle, lifetime: Lifetime) -> Result<(), ControlError> {
        let spec = self.specs.get_mut(&handle).ok_or(ControlError::UnknownSa(handle))?;
        spec.lifetime = lifetime;
        self.calls.push(Call::Limits(handle, lifetime));
        Ok(())
    }

    fn set_peer(&mut self, handle: Handle, peer: Peer) -> Result<(), ControlError> {
        assert!(self.specs.contains_key(&handle), "an SA that is not there changes");
        if peer.port == 500 {
            return Err(ControlError::IkePort);
        }
        self.calls.push(Call::Peer(handle, peer));
        Ok(())
    }

    fn set_alias(&mut self, handle: Handle, alias: Group) -> Result<(), ControlError> {
        let spec = self.specs.get_mut(&handle).ok_or(ControlError::UnknownSa(handle))?;
        assert_eq!((spec.direction, spec.alias), (Direction::Outbound, None), "said once");
        spec.alias = Some(alias);
        Ok(())
    }

    fn set_policies(
        &mut self,
        spd: &Spd,
        bundles: &[(Group, Vec<Group>)],
    ) -> Result<(), ControlError> {
        self.spd = spd.clone();
        self.bundles = bundles.to_vec();
        self.calls.push(Call::Policies);
        Ok(())
    }

    fn settle(&mut self) -> bool {
        self.calls.push(Call::Settle);
        true
    }

    fn inspect(&mut self, handles: &[Handle]) -> Vec<Option<Report>> {
        let report = |handle: &Handle| {
            let spec = self.specs.get(handle)?;
            let fresh = Report { sequence: spec.sequence, ..Report::default() };
            Some(self.reports.get(handle).cloned().unwrap_or(fresh))
        };
        handles.iter().map(report).collect()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    fn epoch(&mut self, next: bool) -> Result<u64, ControlError> {
        self.epoch += u64::from(next);
        Ok(self.epoch)
    }

    fn random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random ^ self.random >> 13
    }
}
