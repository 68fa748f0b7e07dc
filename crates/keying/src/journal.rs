//! What survives the process: policies, and which SAs there were, without their keys.
//!
//! The journal is the events of the databases one behind the other, as messages; the default
//! policies are not among them, as the configuration has a say about these. After a start they are
//! read again: policies are in force at once, so that nothing they protect leaves in clear while
//! IKE does not know yet. SAs are gone, and with them what was received and sent: whoever listens
//! is told that they expired, and negotiates new ones with fresh keys.

use std::collections::BTreeMap;

use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::event::Expire;
use culvert_xfrm::event::Groups as Listeners;
use culvert_xfrm::message;
use culvert_xfrm::sa;
use culvert_xfrm::sa::SaInfo;
use zeroize::Zeroizing;

use crate::policies::Event;
use crate::sas;
use crate::sas::Name;
use crate::sas::Stage;
use crate::service::Service;

/// SAs of before the start that are told of at a time.
const LOST_AT_ONCE: usize = 1000;

/// SAs that there were before the start.
#[derive(Debug, Default)]
pub(crate) struct Lost(BTreeMap<Name, SaInfo>);

fn name(info: &SaInfo) -> Option<Name> {
    sas::name(info.id.daddr, info.id.spi, info.id.proto, info.family)
}

fn message(body: Body) -> Zeroizing<Vec<u8>> {
    Message { flags: 0, seq: 0, port: 0, body }.to_octets()
}

/// What the journal keeps of an event; nothing for one that changes nothing. No keys are in it.
#[must_use]
pub fn entry(event: &Event) -> Option<Zeroizing<Vec<u8>>> {
    let none = Attributes::default;
    let body = match &event.body {
        Body::NewPolicy(..)
        | Body::UpdatePolicy(..)
        | Body::DeletePolicy(..)
        | Body::FlushPolicy(_)
        | Body::PolicyExpire(..)
        | Body::FlushSa(..) => event.body.clone(),
        Body::NewSa(info, _) | Body::UpdateSa(info, _) => Body::NewSa(*info, none()),
        Body::DeleteSa(id, _) => Body::DeleteSa(*id, none()),
        Body::Expire(expire, _) if expire.hard != 0 => Body::Expire(*expire, none()),
        _ => return None,
    };
    Some(message(body))
}

impl Service {
    /// Does again what a journal says, at `now` in seconds since 1970. What is no journal, or its
    /// end was cut off, is ignored from there on.
    pub fn restore(&mut self, journal: &[u8], now: u64) {
        for frame in message::messages(journal) {
            let Some(message) = frame.ok().and_then(|frame| Message::parse(frame.octets).ok())
            else {
                return;
            };
            self.restore_one(message.body, now);
        }
    }

    fn restore_one(&mut self, body: Body, now: u64) {
        let lost = &mut self.lost.0;
        match body {
            Body::NewSa(info, _) => lost.extend(name(&info).map(|name| (name, info))),
            Body::DeleteSa(id, _) => {
                let name = sas::name(id.daddr, id.spi, id.proto, id.family);
                name.map(|name| lost.remove(&name));
            }
            Body::Expire(Expire { state, .. }, _) => {
                name(&state).map(|name| lost.remove(&name));
            }
            Body::FlushSa(which, _) => self.forget_lost_of(which.proto),
            Body::NewPolicy(info, list) | Body::UpdatePolicy(info, list) => {
                // An index of the kernel's own is made anew.
                let _ = self.policies.update(&info, &list, now);
            }
            body => {
                let _ = self.policies.request(&body, now);
            }
        }
    }

    /// A journal of what there is now.
    #[must_use]
    pub fn journal(&self) -> Zeroizing<Vec<u8>> {
        let lost = self.lost.0.values().copied();
        let valid = self.sas.iter().filter(|(_, sa)| sa.stage == Stage::Valid);
        let sas = lost.chain(valid.map(|(_, sa)| sa.info));
        let sas = sas.map(|info| Body::NewSa(info, Attributes::default()));
        let mut policies: Vec<Body> = self.policies.list(None).map(|(_, body)| body).collect();
        // The youngest is listed first.
        policies.reverse();
        let mut journal = Zeroizing::new(Vec::new());
        for body in policies.into_iter().chain(sas) {
            journal.extend_from_slice(&message(body));
        }
        journal
    }

    /// Tells whoever listens that SAs of before the start expired: some of them, so that there is
    /// room for what is told; the others with the next call.
    pub fn tell_lost(&mut self) {
        for _ in 0..LOST_AT_ONCE {
            let Some((_, info)) = self.lost.0.pop_first() else {
                return;
            };
            let expire = Expire { state: info, hard: 1 };
            let body = Body::Expire(expire, Attributes::default());
            self.events.push(Event { groups: Listeners::EXPIRE, body });
        }
    }

    /// Whoever listens needs not be told of an SA of before the start: it was made anew, or
    /// deleted.
    pub(crate) fn forget_lost(&mut self, name: Option<Name>) {
        name.map(|name| self.lost.0.remove(&name));
    }

    /// The same of all SAs of a protocol.
    pub(crate) fn forget_lost_of(&mut self, proto: u8) {
        let all = [0, sa::ANY_PROTO].contains(&proto);
        self.lost.0.retain(|name, _| !all && name.proto != proto);
    }

    /// How many SAs there were before the start that nobody was told of yet.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost.0.len()
    }
}
