//! The databases over a data plane that takes notes, and requests in few words.

use std::net::IpAddr;

use culvert_control::News;
use culvert_engine::Notice;
use culvert_engine::ids::WorkerId;
use culvert_esp::lifetime::Expiry;
use culvert_esp::lifetime::ExpiryCause;
use culvert_esp::lifetime::ExpiryKind;
use culvert_keying::Policies;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_keying::policies::Event;
use culvert_keying::service::Asker;
use culvert_spd::Action as Means;
use culvert_spd::Flow;
use culvert_spd::Group;
use culvert_spd::Upper;
use culvert_wire::ip::Addresses;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Errno;
use culvert_xfrm::Message;
use culvert_xfrm::Secret;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::algorithm::Aead;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::header::Flags;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::message::messages;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaId;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::SpiRequest;
use culvert_xfrm::sa::XfrmId;

use crate::plane::Call;
use crate::plane::Notes;
use crate::words::selector;

/// This gateway, and its peer.
pub(crate) const US: &str = "192.0.2.1";
pub(crate) const PEER: &str = "192.0.2.2";
/// From the peer, and to it.
pub(crate) const IN: &str = "192.0.2.2 192.0.2.1";
pub(crate) const OUT: &str = "192.0.2.1 192.0.2.2";

pub(crate) struct Lab {
    pub(crate) service: Service,
    pub(crate) plane: Notes,
    pub(crate) now: u64,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::with_scope(Scope::default())
    }

    pub(crate) fn with_scope(scope: Scope) -> Lab {
        let mut service = Service::new(Policies::new(), scope);
        service.set_listening(u32::MAX);
        Lab { service, plane: Notes::with_addresses(&[US]), now: 1_700_000_000 }
    }

    /// Asks, waits until it is done, and expects the databases to agree.
    pub(crate) fn ask(&mut self, body: Body) -> Result<Vec<Body>, Errno> {
        let replaces = matches!(body, Body::NewAe(..));
        let is_dump = matches!(body, Body::DumpSa(_) | Body::DumpPolicy(_));
        let flags = if is_dump { Flags::DUMP } else { Flags::ACK };
        let flags = Flags::REQUEST | flags | if replaces { Flags::REPLACE } else { 0 };
        let octets = Message { flags, seq: 9, port: 0, body }.to_octets();
        let frame = messages(&octets).next().expect("a message").expect("a message");
        let asker = Asker { port: 77, ..Asker::default() };
        let answers = self.service.request(&mut self.plane, asker, &frame, self.now);
        assert!(self.service.settle(&mut self.plane));
        self.assert_whole();
        let mut list = answers.messages;
        if let Some(mut dump) = answers.dump {
            loop {
                let next = self.service.next_of_dump(&mut self.plane, &mut dump);
                if next.is_empty() {
                    break;
                }
                list.extend(next);
            }
        }
        assert!(list.iter().all(|message| (message.seq, message.port) == (9, 77)));
        let errno = match list.pop().expect("an answer").body {
            Body::Error(error) => error.errno,
            Body::Done(done) => done.errno,
            body => panic!("{body:?} is no end"),
        };
        errno.map_or(Ok(list.into_iter().map(|message| message.body).collect()), Err)
    }

    pub(crate) fn assert_whole(&self) {
        let handles = self.plane.specs.keys().copied().collect();
        assert_eq!(self.service.inconsistency(&handles), None);
    }

    /// Asks for something that is done.
    pub(crate) fn ok(&mut self, body: Body) -> Vec<Body> {
        let text = format!("{body:?}");
        self.ask(body).unwrap_or_else(|errno| panic!("{errno}: {text}"))
    }

    /// Asks for something that is refused.
    pub(crate) fn refused(&mut self, body: Body) -> Errno {
        let text = format!("{body:?}");
        self.ask(body).expect_err(&text)
    }

    /// What was told since the last time, but for the journal alone.
    pub(crate) fn told(&mut self) -> Vec<Body> {
        self.events().into_iter().filter(|event| event.groups != 0).map(|one| one.body).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        self.service.take_events()
    }

    pub(crate) fn calls(&mut self) -> Vec<Call> {
        self.plane.take_calls()
    }

    /// A worker says this of an SA.
    pub(crate) fn notice(&mut self, sa: Option<culvert_control::SaId>, notice: Notice) {
        let news = News { worker: WorkerId(0), sa, notice };
        self.service.notice(&mut self.plane, &news, self.now);
        self.service.settle(&mut self.plane);
        self.assert_whole();
    }

    /// A limit of an SA is reached.
    pub(crate) fn expires(&mut self, sa: culvert_control::SaId, kind: ExpiryKind) {
        let expiry = Expiry { kind, cause: ExpiryCause::Bytes };
        self.notice(Some(sa), Notice::Expire { inbound: false, slot: 0, spi: 0, expiry });
    }

    /// A packet wants an SA of a group.
    pub(crate) fn wants(&mut self, group: Group, flow: Flow) {
        self.notice(None, Notice::Acquire { policy: 0, group, flow, resource: None });
    }

    pub(crate) fn tick(&mut self, seconds: u64) {
        self.now += seconds;
        self.service.tick(&mut self.plane, self.now);
        self.service.settle(&mut self.plane);
        self.assert_whole();
    }

    /// SAs, larval ones included.
    pub(crate) fn count(&self) -> usize {
        self.service.counts().0
    }

    /// What the first outbound policy that admits a packet does.
    pub(crate) fn means(&self, flow: &Flow) -> Option<Means> {
        let list = &self.plane.spd.outbound;
        list.iter().find(|policy| policy.selector.matches(flow)).map(|policy| policy.action)
    }

    /// The group that a packet goes to.
    pub(crate) fn group(&self, flow: &Flow) -> Group {
        match self.means(flow) {
            Some(Means::Protect(group)) => group,
            other => panic!("{flow:?}: {other:?}"),
        }
    }

    /// The SPI that a packet is sent with.
    pub(crate) fn sends(&self, flow: &Flow) -> Option<u32> {
        self.plane.sends(self.group(flow)).map(|(_, spec)| spec.spi.value())
    }
}

pub(crate) fn none() -> Attributes {
    Attributes::default()
}

fn ends(text: &str) -> (IpAddr, IpAddr) {
    let (source, destination) = text.split_once(' ').expect("two addresses");
    (source.parse().expect("an address"), destination.parse().expect("an address"))
}

/// An SA of ESP in tunnel mode with reqid 1.
pub(crate) fn info(text: &str, spi: u32) -> SaInfo {
    let (source, destination) = ends(text);
    SaInfo {
        id: XfrmId { daddr: destination.into(), spi: Spi(spi), proto: sa::ESP },
        saddr: source.into(),
        limits: Limits::UNLIMITED,
        reqid: 1,
        family: Family::of(source),
        mode: Mode::TUNNEL,
        replay_window: 32,
        ..SaInfo::default()
    }
}

/// AES-GCM with a key made of this octet.
pub(crate) fn key(octet: u8) -> Attribute {
    let key = Key::new(Secret::new(vec![octet; 20]));
    let name = Name::new("rfc4106(gcm(aes))").expect("a name");
    Attribute::AlgAead(Aead { name, icv_bits: 128, key })
}

pub(crate) fn id(info: &SaInfo) -> SaId {
    let SaInfo { id, family, .. } = *info;
    SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto }
}

pub(crate) fn new(info: SaInfo, octet: u8) -> Body {
    Body::NewSa(info, Attributes(vec![key(octet)]))
}

pub(crate) fn new_with(info: SaInfo, mut list: Vec<Attribute>) -> Body {
    list.push(key(info.id.spi.0.to_le_bytes()[0]));
    Body::NewSa(info, Attributes(list))
}

pub(crate) fn update(info: SaInfo, octet: u8) -> Body {
    Body::UpdateSa(info, Attributes(vec![key(octet)]))
}

pub(crate) fn delete(info: &SaInfo) -> Body {
    Body::DeleteSa(id(info), none())
}

pub(crate) fn get(info: &SaInfo) -> Body {
    Body::GetSa(id(info), none())
}

/// ALLOCSPI for this SPI.
pub(crate) fn allocate(info: SaInfo) -> Body {
    let spi = info.id.spi.0;
    Body::AllocateSpi(SpiRequest { info, min: spi, max: spi }, none())
}

/// The network behind us, and that behind the peer.
pub(crate) const NETWORKS: &str = "10.1.0.0/16 10.2.0.0/16";
pub(crate) const BACK: &str = "10.2.0.0/16 10.1.0.0/16";

pub(crate) fn policy(text: &str, dir: Direction) -> PolicyInfo {
    let action = Action::ALLOW;
    let sel = selector(text);
    PolicyInfo {
        sel,
        limits: Limits::UNLIMITED,
        priority: 100,
        dir,
        action,
        ..PolicyInfo::default()
    }
}

/// A tunnel of ESP with reqid 1.
pub(crate) fn template(text: &str) -> Template {
    let (source, destination) = ends(text);
    Template {
        id: XfrmId { daddr: destination.into(), proto: sa::ESP, ..XfrmId::default() },
        family: Family::of(source),
        saddr: source.into(),
        reqid: 1,
        mode: Mode::TUNNEL,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..Template::default()
    }
}

pub(crate) fn protect(info: PolicyInfo, templates: Vec<Template>) -> Body {
    Body::UpdatePolicy(info, Attributes(vec![Attribute::Templates(templates)]))
}

/// The policies of a tunnel between the networks.
pub(crate) fn tunnel_policies(lab: &mut Lab) {
    lab.ok(protect(policy(NETWORKS, Direction::OUT), vec![template(OUT)]));
    lab.ok(protect(policy(BACK, Direction::IN), vec![template(IN)]));
    lab.ok(protect(policy(BACK, Direction::FORWARD), vec![template(IN)]));
}

/// UDP between two hosts.
pub(crate) fn udp(text: &str, source: u16, destination: u16) -> Flow {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let (from, to) = ends(text);
    let addresses =
        Addresses { is_v4: from.is_ipv4(), source: number(from), destination: number(to) };
    Flow { addresses, protocol: 17, upper: Upper::Ports { source, destination } }
}

/// From the network behind us to that behind the peer.
pub(crate) fn packet() -> Flow {
    udp("10.1.0.5 10.2.0.5", 5000, 53)
}
