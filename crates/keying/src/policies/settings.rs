//! Sizes, thresholds, and what becomes of packets that no policy is for.

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::event::Groups;
use culvert_xfrm::info::HashSize;
use culvert_xfrm::info::HashThreshold;
use culvert_xfrm::info::PolicyCounts;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::policy::DefaultAction;
use culvert_xfrm::policy::Defaults;

use crate::policies::Event;
use crate::policies::POLICIES_MAX;
use crate::policies::Policies;

/// Smallest mask of the kernel's table of indices.
const MASK_MIN: usize = 7;

/// What SETDEFAULT and NEWSPDINFO set.
#[derive(Debug)]
pub(super) struct Settings {
    defaults: Defaults,
    ipv4: HashThreshold,
    ipv6: HashThreshold,
}

impl Default for Settings {
    fn default() -> Settings {
        let all = |bits| HashThreshold { local_bits: bits, remote_bits: bits };
        let accept = DefaultAction::ACCEPT;
        let defaults = Defaults { inbound: accept, forward: accept, outbound: accept };
        Settings { defaults, ipv4: all(32), ipv6: all(128) }
    }
}

impl Policies {
    /// How many there are of each direction: in, out, forward.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        self.order.each_ref().map(std::collections::BTreeMap::len)
    }

    /// GETSPDINFO with these flags: the answer. The table is as large as the kernel's, but for
    /// that growing a little later.
    #[must_use]
    pub fn info(&self, flags: u32) -> Body {
        let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let [inbound, outbound, forward] = self.counts().map(number);
        let counts = PolicyCounts { inbound, outbound, forward, ..PolicyCounts::default() };
        let mask = (self.len() + 1).next_power_of_two().clamp(MASK_MIN + 1, POLICIES_MAX) - 1;
        let hash = HashSize { count: number(mask), max: number(POLICIES_MAX) };
        let Settings { ipv4, ipv6, .. } = self.settings;
        let list = vec![
            SpdAttribute::Counts(counts),
            SpdAttribute::Hash(hash),
            SpdAttribute::Ipv4Threshold(ipv4),
            SpdAttribute::Ipv6Threshold(ipv6),
        ];
        Body::NewSpdInfo(flags, list)
    }

    /// NEWSPDINFO: sets thresholds. They change nothing here but the answer.
    ///
    /// # Errors
    /// EINVAL for more bits than addresses have.
    pub fn set_info(&mut self, attributes: &[SpdAttribute]) -> Result<(), Errno> {
        let Settings { mut ipv4, mut ipv6, .. } = self.settings;
        for attribute in attributes {
            match attribute {
                SpdAttribute::Ipv4Threshold(threshold) => ipv4 = *threshold,
                SpdAttribute::Ipv6Threshold(threshold) => ipv6 = *threshold,
                _ => {}
            }
        }
        let fits = |of: HashThreshold, bits| of.local_bits <= bits && of.remote_bits <= bits;
        if !fits(ipv4, 32) || !fits(ipv6, 128) {
            return Err(Errno::EINVAL);
        }
        (self.settings.ipv4, self.settings.ipv6) = (ipv4, ipv6);
        Ok(())
    }

    /// What becomes of packets that no policy is for.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        self.settings.defaults
    }

    /// SETDEFAULT: what is neither BLOCK nor ACCEPT stays as it was. What to announce.
    pub fn set_defaults(&mut self, wanted: &Defaults) -> Event {
        let set = |now: &mut DefaultAction, to: DefaultAction| {
            if matches!(to, DefaultAction::BLOCK | DefaultAction::ACCEPT) {
                *now = to;
            }
        };
        let before = self.defaults();
        let defaults = &mut self.settings.defaults;
        set(&mut defaults.inbound, wanted.inbound);
        set(&mut defaults.forward, wanted.forward);
        set(&mut defaults.outbound, wanted.outbound);
        if self.defaults() != before {
            self.generation += 1;
        }
        let body = Body::GetDefault(self.defaults(), Attributes::default());
        Event { groups: Groups::POLICY, body }
    }
}
