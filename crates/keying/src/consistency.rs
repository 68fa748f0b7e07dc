//! For tests: whether the databases agree with themselves and with the data plane.

use std::collections::BTreeSet;

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
                let group = plan::kind(sa, direction).and_then(|kind| self.plan.group(&kind));
                let members = group.and_then(|group| self.members.get(&group));
                if !members.is_some_and(|members| members.as_slice().contains(&number)) {
                    return Some(format!("{number:?} is in no group"));
                }
            }
        }
        self.sas.inconsistency()
    }
}
