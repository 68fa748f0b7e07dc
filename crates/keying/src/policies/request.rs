//! Requests about policies, told apart.

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;

use crate::policies::Event;
use crate::policies::Policies;

/// What a request led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// What to answer, an acknowledgement apart.
    pub answer: Option<Body>,
    /// What to announce.
    pub event: Option<Event>,
}

impl Policies {
    /// Does what a request asks for, at `now` in seconds since 1970; nothing if it is not about
    /// policies. Dumps are answered by [`Policies::list`]; ACQUIRE and MIGRATE are not for us
    /// alone, see [`Policies::migration`].
    ///
    /// # Errors
    /// What to answer instead.
    pub fn request(&mut self, body: &Body, now: u64) -> Option<Result<Reply, Errno>> {
        let event = |event| Reply { answer: None, event };
        let answer = |body| Reply { answer: Some(body), event: None };
        let some = |result: Result<Event, Errno>| result.map(|told| event(Some(told)));
        Some(match body {
            Body::NewPolicy(info, attributes) => some(self.add(info, attributes, now)),
            Body::UpdatePolicy(info, attributes) => some(self.update(info, attributes, now)),
            Body::DeletePolicy(id, attributes) => some(self.delete(id, attributes)),
            Body::GetPolicy(id, attributes) => self.get(id, attributes).map(answer),
            Body::FlushPolicy(_) => Ok(event(self.flush())),
            Body::PolicyExpire(expire, attributes) => some(self.expire(expire, attributes)),
            Body::GetSpdInfo(flags) => Ok(answer(self.info(*flags))),
            Body::NewSpdInfo(_, list) => self.set_info(list).map(|()| Reply::default()),
            Body::SetDefault(wanted, _) => Ok(event(Some(self.set_defaults(wanted)))),
            Body::GetDefault(..) => {
                Ok(answer(Body::GetDefault(self.defaults(), Attributes::default())))
            }
            _ => return None,
        })
    }
}
