//! For tests: whether the databases agree with themselves and with the data plane.

use std::collections::BTreeSet;

use culvert_control::Direction;
use culvert_control::SaId as Handle;

use crate::plan;
use crate::service::Service;

impl Service {
    /// What is wrong, if anything is: an index that leads to nothing, an SA that none leads to, one
    /// of the data plane (`handles`) that is not known here, or the other way round.
    #[must_use]
    pub fn inconsistency(&self, handles: &BTreeSet<Handle>) -> Option<String> {
        let known: BTreeSet<Handle> =
            self.sas.iter().flat_map(|(_, sa)| sa.installed.handles()).collect();
        if known != *handles {
            return Some(format!("installed {handles:?}, known {known:?}"));
        }
        for (group, members) in &self.members {
            let members = members.as_slice();
            let is_gone = members.iter().any(|member| self.sas.get(*member).is_none());
            if is_gone || members.is_empty() {
                return Some(format!("group {group:?} has members that are gone: {members:?}"));
            }
        }
        for (number, sa) in self.sas.iter() {
            for direction in sa.installed.directions() {
                let is_in = |group| {
                    let members = self.members.get(&group);
                    members.is_some_and(|members| members.as_slice().contains(&number))
                };
                let kind = plan::kind(sa, direction);
                let own = kind.map(|kind| kind.of_one(sa.info.id.spi.0));
                let own = own.filter(|_| direction == Direction::Outbound);
                if !kind.and_then(|kind| self.plan.group(&kind)).is_some_and(is_in) {
                    return Some(format!("{number:?} is in no group"));
                }
                if !own.and_then(|own| self.plan.group(&own)).is_none_or(is_in) {
                    return Some(format!("{number:?} is not in the group of its SPI"));
                }
            }
        }
        self.sas.inconsistency()
    }
}
