//! Policies whose time is over (`xfrm_policy_timer`).

use culvert_xfrm::Body;
use culvert_xfrm::event::Groups;
use culvert_xfrm::event::PolicyExpire;
use culvert_xfrm::policy::PolicyInfo;

use crate::policies::Event;
use crate::policies::Policies;
use crate::policies::Policy;

/// Seconds until a soft limit is told again (`XFRM_KM_TIMEOUT`).
const AGAIN_SECS: u64 = 30;

/// What is due of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It is gone.
    Hard,
    /// To be looked at again then; `soft` if it is to be replaced.
    Later { soft: bool, at: u64 },
}

/// What is due at `now`. Limits of use count from the last use, or from when it was made.
fn due(info: &PolicyInfo, now: u64) -> Due {
    let limits = &info.limits;
    let made = info.usage.add_time;
    let used = if info.usage.use_time == 0 { made } else { info.usage.use_time };
    let ends = |from: u64, secs: u64| (secs != 0).then(|| from.saturating_add(secs));
    let hard = [ends(made, limits.hard_age_secs), ends(used, limits.hard_use_secs)];
    if hard.iter().flatten().any(|at| *at <= now) {
        return Due::Hard;
    }
    let soft = [ends(made, limits.soft_age_secs), ends(used, limits.soft_use_secs)];
    let is_over = |at: &u64| *at <= now;
    let again = now.saturating_add(AGAIN_SECS);
    let later = soft.iter().flatten().map(|at| if is_over(at) { again } else { *at });
    let at = later.chain(hard.into_iter().flatten()).min().unwrap_or(u64::MAX);
    Due::Later { soft: soft.iter().flatten().any(is_over), at }
}

/// POLEXPIRE.
pub(super) fn event(policy: &Policy, is_hard: bool) -> Event {
    let expire = PolicyExpire { policy: *policy.info(), hard: u8::from(is_hard) };
    Event { groups: Groups::EXPIRE, body: Body::PolicyExpire(expire, policy.attributes()) }
}

impl Policies {
    /// When [`Policies::tick`] is due next, in seconds since 1970.
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Deletes policies past their hard limits at `now`, in seconds since 1970. What to announce;
    /// soft limits are told every 30 seconds.
    pub fn tick(&mut self, now: u64) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((at, index)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let policy = self.policies.get_mut(&index).expect("deadlines go with their policies");
            match due(policy.info(), now) {
                Due::Hard => {
                    events.push(event(policy, true));
                    self.remove(index);
                }
                Due::Later { soft, at: next } => {
                    if soft {
                        events.push(event(policy, false));
                    }
                    // A clock that stands still must not keep us here.
                    let next = next.max(now.saturating_add(1));
                    policy.wakes(Some(next));
                    self.deadlines.remove(&(at, index));
                    self.deadlines.insert((next, index));
                }
            }
        }
        events
    }
}
