//! [`Gateway`]: controller, steering and routes, as the databases of [`culvert_keying`] see them.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use culvert_aead::Provider;
use culvert_control::ControlError;
use culvert_control::Controller;
use culvert_control::Epochs;
use culvert_control::News;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_engine::DropReason;
use culvert_engine::Inspection;
use culvert_engine::Peer;
use culvert_esp::Lifetime;
use culvert_keying::DataPlane;
use culvert_keying::Report;
use culvert_spd::Group;
use culvert_spd::Spd;
use culvert_xdp::SidePrefixes;
use tracing::error;

use super::rules::Rules;
use crate::assembly;

/// How long workers may take for what they were asked.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How often control looks whether they did.
const SETTLE_POLL: Duration = Duration::from_micros(30);

/// How long it looks without a pause first: workers that are awake answer within a turn.
const SETTLE_SPIN: Duration = Duration::from_micros(100);

/// What policies have steered to workers, from either side.
pub(super) fn prefixes(spd: &Spd) -> SidePrefixes {
    SidePrefixes {
        protected: assembly::protected_prefixes(spd),
        unprotected: assembly::unprotected_prefixes(spd),
    }
}

/// The gateway.
pub(super) struct Gateway {
    pub(super) controller: Controller<Provider>,
    pub(super) control: culvert_xdp::Control,
    epochs: Option<Epochs>,
    own: HashSet<IpAddr>,
    bundles: BTreeMap<Group, Vec<Group>>,
    /// The XDP program takes everything, whatever policies say.
    takes_all: bool,
    /// What is steered, and what is to be once workers know the policies.
    prefixes: SidePrefixes,
    next_prefixes: Option<SidePrefixes>,
    /// When the workers' clock began.
    start: SystemTime,
    news: Vec<News>,
    news_lost: u64,
    pub(super) rules: Rules,
}

impl Gateway {
    /// A gateway that steers `prefixes` and whose workers' clock began at `start`. SAs that IKE
    /// adds have an epoch of `epochs`.
    pub(super) fn new(
        controller: Controller<Provider>,
        control: culvert_xdp::Control,
        epochs: Option<Epochs>,
        (takes_all, prefixes): (bool, SidePrefixes),
        start: SystemTime,
    ) -> Gateway {
        Gateway {
            controller,
            control,
            epochs,
            own: HashSet::new(),
            bundles: BTreeMap::new(),
            takes_all,
            prefixes,
            next_prefixes: None,
            start,
            news: Vec::new(),
            news_lost: 0,
            rules: Rules::default(),
        }
    }

    /// These are the gateway's own addresses, and broadcasts on its links, from now on: what comes
    /// for them is the kernel's.
    ///
    /// # Errors
    /// When the XDP program cannot be told.
    pub(super) fn set_own(&mut self, own: &[IpAddr], broadcasts: &[IpAddr]) -> anyhow::Result<()> {
        self.own = own.iter().copied().collect();
        self.control.set_own_addresses(own)?;
        Ok(self.control.set_broadcasts(broadcasts)?)
    }

    /// Moves commands and events, and keeps the news.
    pub(super) fn poll(&mut self) -> Result<(), ControlError> {
        let result = self.controller.poll();
        let (news, lost) = self.controller.take_news();
        self.news.extend(news);
        self.news_lost += lost;
        self.rules.follow(&self.control, self.controller.take_placements());
        result
    }

    /// What happened since the last call, and how much more.
    pub(super) fn take_news(&mut self) -> (Vec<News>, u64) {
        (std::mem::take(&mut self.news), std::mem::take(&mut self.news_lost))
    }

    /// Waits until something holds; false when it takes too long.
    fn wait_until(&mut self, mut holds: impl FnMut(&mut Gateway) -> bool) -> bool {
        let start = Instant::now();
        loop {
            let result = self.poll();
            if holds(self) {
                return true;
            }
            if let Err(error) = result {
                error!("{error}");
            }
            match start.elapsed() {
                waited if waited >= SETTLE_MAX => return false,
                waited if waited >= SETTLE_SPIN => thread::sleep(SETTLE_POLL),
                _ => thread::yield_now(),
            }
        }
    }

    fn steer(&mut self, prefixes: SidePrefixes) {
        if prefixes == self.prefixes {
            return;
        }
        match self.control.set_prefixes(&prefixes) {
            Ok(()) => self.prefixes = prefixes,
            Err(error) => error!(%error, "what policies protect is not steered"),
        }
    }

    /// A worker's time in seconds since 1970.
    fn unix(&self, ns: u64) -> u64 {
        let at = self.start + Duration::from_nanos(ns);
        at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn report(&self, inspection: Inspection) -> Report {
        let dropped = |reason: DropReason| inspection.dropped[reason as usize];
        Report {
            packets: inspection.packets,
            bytes: inspection.bytes,
            first_used: inspection.first_used.map(|ns| self.unix(ns)),
            last_used: inspection.last_used.map(|ns| self.unix(ns)),
            sequence: inspection.sequence,
            refused: [0, dropped(DropReason::Replay), dropped(DropReason::Icv)],
            window: inspection.window,
        }
    }
}

impl DataPlane for Gateway {
    fn add(&mut self, spec: &SaSpec) -> Result<SaId, ControlError> {
        self.controller.add_sa(spec)
    }

    fn remove(&mut self, handle: SaId) {
        // One that is gone already needs no removal.
        let _ = self.controller.remove_sa(handle);
    }

    fn set_lifetime(&mut self, handle: SaId, lifetime: Lifetime) -> Result<(), ControlError> {
        self.controller.set_lifetime(handle, lifetime)
    }

    fn set_peer(&mut self, handle: SaId, peer: Peer) -> Result<(), ControlError> {
        self.controller.retarget(handle, peer)
    }

    fn set_alias(&mut self, handle: SaId, alias: Group) -> Result<(), ControlError> {
        self.controller.set_alias(handle, alias)
    }

    fn set_policies(
        &mut self,
        spd: &Spd,
        bundles: &[(Group, Vec<Group>)],
    ) -> Result<(), ControlError> {
        let mut result = Ok(());
        let wanted: BTreeMap<Group, Vec<Group>> = bundles.iter().cloned().collect();
        let gone: Vec<Group> =
            self.bundles.keys().filter(|group| !wanted.contains_key(group)).copied().collect();
        for group in gone {
            self.controller.remove_group_bundle(group);
            self.bundles.remove(&group);
        }
        for (group, parts) in wanted {
            if self.bundles.get(&group) != Some(&parts) {
                let set = self.controller.set_bundle(group, &parts);
                if set.is_ok() {
                    self.bundles.insert(group, parts);
                }
                result = result.and(set);
            }
        }
        self.controller.set_policies(spd);
        if self.takes_all {
            return result;
        }
        // Until workers know the new policies, what old and new ones protect is steered to them.
        let next = prefixes(spd);
        let both = |one: &[(IpAddr, u8)], other: &[(IpAddr, u8)]| {
            let mut all = [one, other].concat();
            all.sort_unstable();
            all.dedup();
            all
        };
        self.steer(SidePrefixes {
            protected: both(&self.prefixes.protected, &next.protected),
            unprotected: both(&self.prefixes.unprotected, &next.unprotected),
        });
        self.next_prefixes = Some(next);
        result
    }

    fn settle(&mut self) -> bool {
        let is_idle = self.wait_until(|gateway| gateway.controller.is_idle());
        if is_idle && let Some(next) = self.next_prefixes.take() {
            self.steer(next);
        }
        is_idle
    }

    fn inspect(&mut self, handles: &[SaId]) -> Vec<Option<Report>> {
        // Each is asked once, however often it is named; an answer that came too late is not this
        // one's.
        let mut waiting: Vec<SaId> = handles.to_vec();
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|&handle| {
            self.controller.take_inspection(handle);
            self.controller.inspect(handle).is_ok()
        });
        let mut found: BTreeMap<SaId, Inspection> = BTreeMap::new();
        self.wait_until(|gateway| {
            waiting.retain(|&handle| match gateway.controller.take_inspection(handle) {
                Some(inspection) => {
                    found.insert(handle, inspection);
                    false
                }
                None => true,
            });
            waiting.is_empty()
        });
        let report = |handle: &SaId| found.get(handle).cloned().map(|found| self.report(found));
        handles.iter().map(report).collect()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    fn epoch(&mut self, next: bool) -> Result<u64, ControlError> {
        match &mut self.epochs {
            Some(epochs) if next => Ok(epochs.next()?),
            Some(epochs) => Ok(epochs.current()),
            None => Ok(0),
        }
    }

    fn random(&mut self) -> u32 {
        let mut octets = [0; 4];
        // Without randomness SPIs are predictable, which is no secret anyway.
        let _ = getrandom::fill(&mut octets);
        u32::from_ne_bytes(octets)
    }
}
