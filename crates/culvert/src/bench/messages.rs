//! The same as [`control`](super::control), by XFRM messages.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use anyhow::Context;
use anyhow::ensure;
use culvert_control::ControlError;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_engine::Peer;
use culvert_esp::Lifetime;
use culvert_keying::Asker;
use culvert_keying::DataPlane;
use culvert_keying::Policies;
use culvert_keying::Report;
use culvert_keying::Scope;
use culvert_keying::Service;
use culvert_spd::Group;
use culvert_spd::Spd;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::Secret;
use culvert_xfrm::address::Family;
use culvert_xfrm::address::Spi;
use culvert_xfrm::algorithm::Aead;
use culvert_xfrm::algorithm::Key;
use culvert_xfrm::algorithm::Name;
use culvert_xfrm::header::Flags;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::message;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaInfo;
use culvert_xfrm::sa::XfrmId;
use culvert_xfrm::selector::Selector;

use super::control::Bench;
use super::control::key_octets;

/// Messages that are settled together, as the control socket reads them.
const BATCH: usize = 64;

/// This gateway; peers have an address each.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FIRST_PEER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const FIRST_SPI: u32 = 0x80_0000;

/// SAs of as many peers come and go, then policies come.
pub(super) fn measure(bench: &mut Bench, sas: u32, policies: u32) -> anyhow::Result<()> {
    let mut service = Service::new(Policies::new(), Scope::default());
    let both = |number| [true, false].map(|inbound| info(number, inbound));
    let numbers = 0..sas;
    let new =
        numbers.clone().flat_map(both).map(|info| Body::NewSa(info, Attributes(vec![key(&info)])));
    ask(bench, &mut service, ("NEWSA messages", new))?;
    let delete = numbers.flat_map(both).map(|SaInfo { id, family, .. }| {
        let id = sa::SaId { daddr: id.daddr, spi: id.spi, family, proto: id.proto };
        Body::DeleteSa(id, Attributes::default())
    });
    ask(bench, &mut service, ("DELSA messages", delete))?;
    let new = (0..policies).map(|number| {
        Body::NewPolicy(
            policy(number),
            Attributes(vec![Attribute::Templates(vec![template(number)])]),
        )
    });
    ask(bench, &mut service, ("NEWPOLICY messages", new))
}

/// Asks for all of this, and waits until it is done.
fn ask(
    bench: &mut Bench,
    service: &mut Service,
    (what, bodies): (&'static str, impl Iterator<Item = Body>),
) -> anyhow::Result<()> {
    let octets = |body| {
        let flags = Flags::REQUEST | Flags::ACK;
        Message { flags, seq: 1, port: 0, body }.to_octets()
    };
    let datagrams: Vec<_> = bodies.map(octets).collect();
    let started = bench.begin();
    let mut plane = InMemory(bench);
    for batch in datagrams.chunks(BATCH) {
        for datagram in batch {
            let frame = message::messages(datagram).next().context("a message")?;
            let frame = frame.map_err(|_| anyhow::anyhow!("a message that is none"))?;
            let answers = service.request(&mut plane, Asker::default(), &frame, 1_700_000_000);
            let done = answers.messages.iter().any(|message| match &message.body {
                Body::Error(error) => error.errno.is_none(),
                _ => false,
            });
            ensure!(done, "{what}: {:?}", answers.messages);
        }
        ensure!(service.settle(&mut plane), "{what}: not settled");
        drop(service.take_events());
    }
    bench.end(what, u32::try_from(datagrams.len())?, &started);
    Ok(())
}

/// The controller of the bench, as the databases see it.
struct InMemory<'a>(&'a mut Bench);

impl DataPlane for InMemory<'_> {
    fn add(&mut self, spec: &SaSpec) -> Result<SaId, ControlError> {
        self.0.controller.add_sa(spec)
    }

    fn remove(&mut self, handle: SaId) {
        let _ = self.0.controller.remove_sa(handle);
    }

    fn set_lifetime(&mut self, handle: SaId, lifetime: Lifetime) -> Result<(), ControlError> {
        self.0.controller.set_lifetime(handle, lifetime)
    }

    fn set_peer(&mut self, handle: SaId, peer: Peer) -> Result<(), ControlError> {
        self.0.controller.retarget(handle, peer)
    }

    fn set_alias(&mut self, handle: SaId, alias: Group) -> Result<(), ControlError> {
        self.0.controller.set_alias(handle, alias)
    }

    fn set_policies(
        &mut self,
        spd: &Spd,
        bundles: &[(Group, Vec<Group>)],
    ) -> Result<(), ControlError> {
        assert!(bundles.is_empty(), "these policies have one template");
        // Those that packets take meanwhile stay.
        std::hint::black_box(spd.compile());
        Ok(())
    }

    fn settle(&mut self) -> bool {
        self.0.settle().is_ok()
    }

    fn inspect(&mut self, handles: &[SaId]) -> Vec<Option<Report>> {
        handles.iter().map(|_| None).collect()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address == NEAR
    }

    fn epoch(&mut self, next: bool) -> Result<u64, ControlError> {
        self.0.epoch += u64::from(next);
        Ok(self.0.epoch)
    }

    fn random(&mut self) -> u32 {
        0
    }
}

fn peer(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(FIRST_PEER) + number).into()
}

fn ends(number: u32, inbound: bool) -> (IpAddr, IpAddr) {
    let (near, far) = (NEAR.into(), peer(number));
    if inbound { (far, near) } else { (near, far) }
}

/// An SA of ESP in tunnel mode.
fn info(number: u32, inbound: bool) -> SaInfo {
    let (source, destination) = ends(number, inbound);
    SaInfo {
        id: XfrmId { daddr: destination.into(), spi: Spi(FIRST_SPI + number), proto: sa::ESP },
        saddr: source.into(),
        limits: Limits::UNLIMITED,
        reqid: number + 1,
        family: Family::of(source),
        mode: Mode::TUNNEL,
        replay_window: 32,
        ..SaInfo::default()
    }
}

fn key(info: &SaInfo) -> Attribute {
    let inbound = info.id.daddr == IpAddr::from(NEAR).into();
    let key = Key::new(Secret::new(key_octets(info.id.spi.0, inbound)));
    let name = Name::new("rfc4106(gcm(aes))").expect("a name");
    Attribute::AlgAead(Aead { name, icv_bits: 128, key })
}

/// From everywhere to a peer.
fn policy(number: u32) -> PolicyInfo {
    let sel = Selector {
        daddr: peer(number).into(),
        prefixlen_d: 32,
        family: Family::of(peer(number)),
        ..Selector::default()
    };
    PolicyInfo {
        sel,
        limits: Limits::UNLIMITED,
        priority: 100,
        dir: Direction::OUT,
        action: Action::ALLOW,
        ..PolicyInfo::default()
    }
}

fn template(number: u32) -> Template {
    let (source, destination) = ends(number, false);
    Template {
        id: XfrmId { daddr: destination.into(), proto: sa::ESP, ..XfrmId::default() },
        family: Family::of(source),
        saddr: source.into(),
        reqid: number + 1,
        mode: Mode::TUNNEL,
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
        ..Template::default()
    }
}
