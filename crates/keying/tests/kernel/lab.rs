//! One request, two databases: the kernel's in a namespace of its own, and ours.

use std::process::Command;
use std::time::SystemTime;

use culvert_keying::Policies;
use culvert_keying::policies::Reply;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::event::Groups;
use culvert_xfrm::header::Flags;
use culvert_xfrm::info::SpdAttribute;
use culvert_xfrm::lifetime::Usage;
use culvert_xfrm::message::messages;
use culvert_xfrm::policy::PolicyInfo;
use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_XFRM;
use nix::libc::MSG_DONTWAIT;
use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::unistd::Uid;

/// What a request led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) errno: Option<Errno>,
    pub(crate) answers: Vec<Body>,
    pub(crate) events: Vec<Body>,
}

/// Whether tests against the kernel cannot run here; says so.
pub(crate) fn skipped(test: &str) -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("SKIPPED: {test} needs root, for a network namespace");
    }
    !is_root
}

/// Runs `test` in a network namespace that goes away with its thread.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {words}");
}

/// The kernel's database, in the namespace of the thread that made it.
pub(crate) struct Kernel {
    requests: Socket,
    announced: Socket,
    normal: fn(Body) -> Body,
}

impl Kernel {
    /// Hears these groups; `normal` takes from messages what differs from ours.
    pub(crate) fn new(groups: &[u32], normal: fn(Body) -> Body) -> Kernel {
        let open = || {
            let mut socket = Socket::new(NETLINK_XFRM).expect("a socket of XFRM");
            socket.bind_auto().expect("an address");
            socket.connect(&SocketAddr::new(0, 0)).expect("the kernel");
            socket
        };
        let (requests, announced) = (open(), open());
        for group in groups {
            announced.add_membership(*group).expect("membership");
        }
        Kernel { requests, announced, normal }
    }

    /// What comes of a request.
    pub(crate) fn ask(&mut self, octets: &[u8]) -> Outcome {
        self.requests.send(octets, 0).expect("sent");
        let mut outcome = Outcome::default();
        'answers: loop {
            let (datagram, _) = self.requests.recv_from_full().expect("an answer");
            for frame in messages(&datagram) {
                let message = Message::parse(frame.expect("a message").octets).expect("XFRM");
                match message.body {
                    Body::Error(error) => {
                        outcome.errno = error.errno;
                        break 'answers;
                    }
                    Body::Done(done) => {
                        outcome.errno = done.errno;
                        break 'answers;
                    }
                    body => outcome.answers.push((self.normal)(body)),
                }
            }
        }
        outcome.events = self.events();
        outcome
    }

    /// What it announced meanwhile.
    pub(crate) fn events(&mut self) -> Vec<Body> {
        let mut events = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len) = self.announced.recv(&mut &mut buffer[..], MSG_DONTWAIT) {
            for frame in messages(&buffer[..len]) {
                let message = Message::parse(frame.expect("a message").octets).expect("XFRM");
                events.push((self.normal)(message.body));
            }
        }
        events
    }
}

/// Both databases.
pub(crate) struct Lab {
    pub(crate) kernel: Kernel,
    pub(crate) ours: Policies,
    seq: u32,
    /// What the current request is called.
    pub(crate) name: String,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let kernel = Kernel::new(&[2, 4, 7], normal);
        Lab { kernel, ours: Policies::new(), seq: 0, name: String::new() }
    }

    /// Asks both; they agree on what comes of it.
    pub(crate) fn ask(&mut self, body: &Body) -> Outcome {
        self.seq += 1;
        let (seq, body) = (self.seq, body.clone());
        let is_dump = matches!(body, Body::DumpPolicy(_));
        let flags = Flags::REQUEST | if is_dump { Flags::DUMP } else { Flags::ACK };
        let octets = Message { flags, seq, port: 0, body }.to_octets();
        self.ask_octets(&octets)
    }

    /// The same of octets.
    pub(crate) fn ask_octets(&mut self, octets: &[u8]) -> Outcome {
        let kernel = self.kernel.ask(octets);
        let ours = self.ask_ours(octets);
        if ours != kernel {
            let request = Message::parse(octets);
            let texts = (format!("{ours:#?}"), format!("{kernel:#?}"));
            let lines =
                texts.0.lines().zip(texts.1.lines()).filter(|(ours, kernel)| ours != kernel);
            let lines: Vec<_> = lines.take(20).collect();
            let lens =
                [&ours, &kernel].map(|outcome| (outcome.answers.len(), outcome.events.len()));
            panic!("{}: ours, and the kernel's: {lens:?} {lines:#?}\n{request:?}", self.name);
        }
        kernel
    }

    /// The kernel's policies as they are listed.
    pub(crate) fn kernel_list(&mut self) -> Vec<PolicyInfo> {
        let body = Body::DumpPolicy(Attributes::default());
        let octets = Message { flags: Flags::REQUEST | Flags::DUMP, seq: 1, port: 0, body };
        let answers = self.kernel.ask(&octets.to_octets()).answers.into_iter();
        let infos = answers.map(|body| match body {
            Body::NewPolicy(info, _) => info,
            body => panic!("{body:?}"),
        });
        infos.collect()
    }

    /// What we announce as time goes by.
    pub(crate) fn tick(&mut self) -> Vec<Body> {
        self.ours.tick(now()).into_iter().map(|event| rewritten(event.body)).collect()
    }

    fn ask_ours(&mut self, octets: &[u8]) -> Outcome {
        let refused = |errno| Outcome { errno: Some(errno), ..Outcome::default() };
        let message = match Message::parse(octets) {
            Ok(message) => message,
            Err(malformed) => return refused(malformed.errno),
        };
        if let Err(malformed) = message.check() {
            return refused(malformed.errno);
        }
        if let Body::DumpPolicy(_) = message.body {
            let answers = self.ours.list(None).map(|(_, body)| normal(body)).collect();
            return Outcome { answers, ..Outcome::default() };
        }
        let reply = if let Body::Migrate(id, attributes) = &message.body {
            let migration = self.ours.migration(id, attributes);
            let event = migration.map(|migration| self.ours.migrate(migration));
            event.map(|event| Reply { answer: None, event: Some(event) })
        } else {
            self.ours.request(&message.body, now()).expect("a request about policies")
        };
        match reply {
            Ok(reply) => {
                let event = reply.event.inspect(|event| {
                    let groups = match event.body {
                        Body::PolicyExpire(..) => Groups::EXPIRE,
                        Body::Migrate(..) => Groups::MIGRATE,
                        _ => Groups::POLICY,
                    };
                    assert_eq!(event.groups, groups);
                });
                Outcome {
                    errno: None,
                    answers: reply.answer.into_iter().map(rewritten).collect(),
                    events: event.into_iter().map(|event| rewritten(event.body)).collect(),
                }
            }
            Err(errno) => refused(errno),
        }
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// What a client would read of it.
pub(crate) fn read_back(body: Body) -> Body {
    let octets = Message { flags: 0, seq: 0, port: 0, body }.to_octets();
    Message::parse(&octets).expect("what was written").body
}

fn rewritten(body: Body) -> Body {
    normal(read_back(body))
}

/// Without what differs: times, attributes that the kernel does not keep, the size of its table.
fn normal(body: Body) -> Body {
    let timeless = |info: PolicyInfo| {
        let used = u64::from(info.usage.use_time != 0);
        let usage = Usage { add_time: 0, use_time: used, ..info.usage };
        PolicyInfo { usage, ..info }
    };
    let known = |list: Attributes| {
        let list = list.0.into_iter().filter_map(|attribute| match attribute {
            Attribute::Unknown(_) => None,
            Attribute::Policy(info) => Some(Attribute::Policy(Box::new(timeless(*info)))),
            attribute => Some(attribute),
        });
        Attributes(list.collect())
    };
    match body {
        Body::NewPolicy(info, list) => Body::NewPolicy(timeless(info), known(list)),
        Body::UpdatePolicy(info, list) => Body::UpdatePolicy(timeless(info), known(list)),
        Body::DeletePolicy(id, list) => Body::DeletePolicy(id, known(list)),
        Body::PolicyExpire(mut expire, list) => {
            expire.policy = timeless(expire.policy);
            Body::PolicyExpire(expire, known(list))
        }
        Body::NewSpdInfo(flags, mut list) => {
            for attribute in &mut list {
                if let SpdAttribute::Hash(hash) = attribute {
                    hash.count = 0;
                }
            }
            Body::NewSpdInfo(flags, list)
        }
        body => body,
    }
}
