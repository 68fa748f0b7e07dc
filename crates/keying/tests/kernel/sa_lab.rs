//! One request, two databases of SAs: the kernel's in a namespace of its own, and ours.

use std::time::Duration;

use culvert_control::News;
use culvert_engine::Notice;
use culvert_engine::ids::WorkerId;
use culvert_keying::Policies;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_keying::service::Asker;
use culvert_spd::Action;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::address::Spi;
use culvert_xfrm::header::Flags;
use culvert_xfrm::info::SadAttribute;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::message::messages;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::selector::Selector;

use crate::lab::Kernel;
use crate::lab::Outcome;
use crate::lab::now;
use crate::lab::read_back;
use crate::packets::Packet;
use crate::plane::Notes;

/// Both databases.
pub(crate) struct SaLab {
    kernel: Kernel,
    pub(crate) ours: Service,
    pub(crate) plane: Notes,
    seq: u32,
    /// What the current request is called.
    pub(crate) name: String,
}

impl SaLab {
    pub(crate) fn new() -> SaLab {
        let kernel = Kernel::new(&[1, 2, 3, 4, 5, 6, 7, 8], normal);
        // As strongSwan does.
        std::fs::write("/proc/sys/net/core/xfrm_acq_expires", "165").expect("a setting");
        let mut ours = Service::new(Policies::new(), Scope::default());
        ours.set_listening(u32::MAX);
        let plane = Notes::with_addresses(&["192.0.2.1", "2001:db8::1"]);
        SaLab { kernel, ours, plane, seq: 0, name: String::new() }
    }

    /// Asks both; they agree on what comes of it but for SPIs that were drawn.
    pub(crate) fn ask(&mut self, body: &Body) -> Outcome {
        let is_dump = matches!(body, Body::DumpSa(_) | Body::DumpPolicy(_));
        self.ask_with(body, if is_dump { Flags::DUMP } else { Flags::ACK })
    }

    /// The same with these flags.
    pub(crate) fn ask_with(&mut self, body: &Body, flags: u16) -> Outcome {
        self.seq += 1;
        let (seq, body) = (self.seq, body.clone());
        let octets = Message { flags: Flags::REQUEST | flags, seq, port: 0, body }.to_octets();
        self.ask_octets(&octets)
    }

    /// The same of octets.
    pub(crate) fn ask_octets(&mut self, octets: &[u8]) -> Outcome {
        let kernel = self.kernel.ask(octets);
        let ours = self.ask_ours(octets);
        assert_same(&self.name, &ours, &kernel, octets);
        kernel
    }

    /// Asks both, whatever they answer.
    pub(crate) fn ask_unlike(&mut self, body: &Body) {
        let flags = Flags::REQUEST | Flags::ACK;
        let octets = Message { flags, seq: 1, port: 0, body: body.clone() }.to_octets();
        self.kernel.ask(&octets);
        self.ask_ours(&octets);
    }

    /// The same; us only if `is_shared` says so of what the kernel answered.
    pub(crate) fn ask_if(&mut self, body: &Body, is_shared: impl Fn(Option<Errno>) -> bool) {
        self.seq += 1;
        let flags = Flags::REQUEST | Flags::ACK;
        let octets = Message { flags, seq: self.seq, port: 0, body: body.clone() }.to_octets();
        let kernel = self.kernel.ask(&octets);
        if is_shared(kernel.errno) {
            let ours = self.ask_ours(&octets);
            assert_same(&self.name, &ours, &kernel, &octets);
        } else {
            let checked = Message::parse(&octets).and_then(|message| message.check());
            let text = checked.map_or_else(|malformed| malformed.to_string(), |()| String::new());
            // The kernel looks at that later.
            let is_later = text.ends_with("has room for") || text.starts_with("xfrm_id");
            assert!(text.is_empty() || is_later, "{}: {text}: {body:?}", self.name);
        }
    }

    /// A packet leaves that has no SA: both tell the same.
    pub(crate) fn acquire(&mut self, packet: &Packet) -> Vec<Body> {
        packet.send();
        let kernel = self.kernel.events();
        let flow = packet.flow();
        let list = &self.plane.spd.outbound;
        let policy = list.iter().find(|policy| policy.selector.matches(&flow)).expect("a policy");
        let groups = match policy.action {
            Action::Protect(group) => {
                let bundle = self.plane.bundles.iter().find(|(bundle, _)| *bundle == group);
                bundle.map_or(vec![group], |(_, groups)| groups.clone())
            }
            other => panic!("{other:?}"),
        };
        let notice = Notice::Acquire { policy: 0, group: groups[0], flow, resource: None };
        let news = News { worker: WorkerId(0), sa: None, notice };
        self.ours.notice(&mut self.plane, &news, now());
        assert_eq!(self.our_events(), kernel, "{}", self.name);
        kernel
    }

    /// Larval SAs time out, here after as long as the kernel was told.
    pub(crate) fn time_out(&mut self, kernel: Duration) -> Vec<Body> {
        std::thread::sleep(kernel);
        let kernel = self.kernel.events();
        self.ours.tick(&mut self.plane, now() + 165);
        let of_kernel = |body: Body| match body {
            Body::Expire(mut expire, list) => {
                expire.state.limits.hard_age_secs = 165;
                Body::Expire(expire, list)
            }
            body => body,
        };
        let mut events: Vec<Body> = kernel.into_iter().map(of_kernel).collect();
        let mut ours = self.our_events();
        let by_name = |event: &Body| format!("{event:?}");
        events.sort_by_key(by_name);
        ours.sort_by_key(by_name);
        assert_eq!(ours, events, "{}", self.name);
        events
    }

    fn ask_ours(&mut self, octets: &[u8]) -> Outcome {
        let frame = messages(octets).next().expect("a message").expect("a message");
        let answers = self.ours.request(&mut self.plane, Asker::default(), &frame, now());
        self.ours.settle(&mut self.plane);
        let mut list = answers.messages;
        if let Some(mut dump) = answers.dump {
            loop {
                let next = self.ours.next_of_dump(&mut self.plane, &mut dump);
                if next.is_empty() {
                    break;
                }
                list.extend(next);
            }
        }
        let mut outcome = Outcome::default();
        let last = list.pop().expect("an answer").body;
        outcome.answers = list.into_iter().map(|message| rewritten(message.body)).collect();
        match last {
            Body::Error(error) => outcome.errno = error.errno,
            Body::Done(done) => outcome.errno = done.errno,
            body => panic!("{body:?} is no end"),
        }
        outcome.events = self.our_events();
        outcome
    }

    /// What we announced meanwhile, to anybody but the journal.
    pub(crate) fn our_events(&mut self) -> Vec<Body> {
        let told = self.ours.take_events().into_iter().filter(|event| event.groups != 0);
        told.map(|event| rewritten(event.body)).collect()
    }
}

/// Compares two outcomes, and shows where they differ.
pub(crate) fn assert_same(name: &str, ours: &Outcome, kernel: &Outcome, octets: &[u8]) {
    if ours == kernel {
        return;
    }
    let request = Message::parse(octets);
    let errnos = [ours, kernel].map(|outcome| outcome.errno);
    let missing = |one: &Outcome, other: &Outcome| {
        let bodies = one.answers.iter().chain(&one.events);
        let others: Vec<_> = other.answers.iter().chain(&other.events).collect();
        let lines = bodies.filter(|body| !others.contains(body));
        lines.map(|body| format!("{body:?}")).collect::<Vec<_>>()
    };
    let (more, less) = (missing(ours, kernel), missing(kernel, ours));
    panic!("{name}: {errnos:?}\nours alone: {more:#?}\nthe kernel's alone: {less:#?}\n{request:?}");
}

fn rewritten(body: Body) -> Body {
    normal(read_back(body))
}

/// SPIs from here on are drawn, and differ.
pub(crate) const DRAWN_FROM: u32 = 0x0100_0000;

/// Without what differs: times, SPIs that were drawn, the size of the table.
fn normal(body: Body) -> Body {
    let info = |info: SaInfo| {
        let add_time = u64::from(info.usage.add_time != 0);
        let mut id = info.id;
        if id.spi.0 >= DRAWN_FROM {
            id.spi = Spi(DRAWN_FROM);
        }
        // Those of ACQUIRE count for themselves.
        let seq = u32::from(info.seq != 0);
        // The kernel's packets leave by an interface.
        let sel = Selector { ifindex: 0, ..info.sel };
        SaInfo { usage: Usage { add_time, ..info.usage }, id, seq, sel, ..info }
    };
    let known = |list: Attributes| {
        let of = |attribute| match attribute {
            Attribute::Unknown(_) => None,
            Attribute::Usage(usage) => {
                let add_time = u64::from(usage.add_time != 0);
                Some(Attribute::Usage(Usage { add_time, ..usage }))
            }
            Attribute::Sa(sa) => Some(Attribute::Sa(Box::new(info(*sa)))),
            attribute => Some(attribute),
        };
        Attributes(list.0.into_iter().filter_map(of).collect())
    };
    match body {
        Body::NewSa(sa, list) => Body::NewSa(info(sa), known(list)),
        Body::UpdateSa(sa, list) => Body::UpdateSa(info(sa), known(list)),
        Body::DeleteSa(mut id, list) => {
            if id.spi.0 >= DRAWN_FROM {
                id.spi = Spi(DRAWN_FROM);
            }
            Body::DeleteSa(id, known(list))
        }
        Body::NewSadInfo(flags, mut list) => {
            for attribute in &mut list {
                // It grows some time after there is reason to.
                if let SadAttribute::Hash(hash) = attribute {
                    hash.count = u32::from(hash.count.is_power_of_two());
                }
            }
            Body::NewSadInfo(flags, list)
        }
        Body::NewAe(id, list) => Body::NewAe(id, known(list)),
        Body::Expire(mut expire, list) => {
            expire.state = info(expire.state);
            Body::Expire(expire, known(list))
        }
        Body::Acquire(mut acquire, list) => {
            acquire.policy.usage = Usage::default();
            acquire.sel.ifindex = 0;
            acquire.seq = u32::from(acquire.seq != 0);
            Body::Acquire(acquire, known(list))
        }
        body => body,
    }
}
