//! Hostile clients of the control socket: whatever they send, and however slowly they read, the
//! server answers others, does not grow, and does not panic.
//!
//! `CULVERT_CONTROL_FRAMES` says how many mutated frames are sent: 20,000 unless it is set.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::Message;
use culvert_xfrm::address::Family;
use culvert_xfrm::event::AeId;
use culvert_xfrm::event::Expire;
use culvert_xfrm::header::Flags;
use culvert_xfrm::message;
use culvert_xfrm::policy::Defaults;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use culvert_xfrm::sa;
use culvert_xfrm::sa::Mode;
use culvert_xfrm::sa::SaDirection;
use culvert_xfrm::sa::SaFlush;
use culvert_xfrm::sa::SpiRequest;
use culvert_xfrm::selector::Selector;

use crate::culvert;
use crate::raw::Raw;
use crate::raw::errno;
use crate::raw::new_sa;
use crate::raw::sa_id;
use crate::server::Server;

const OUT: SaDirection = SaDirection::OUT;
const IN: SaDirection = SaDirection::IN;

/// Octets by which the process may grow over frames of all kinds.
const GROWTH_MAX: usize = 16 << 20;

/// Octets by which it may grow for what waits for two clients, a little more than 1 MiB.
const WAITING_MAX: usize = 8 << 20;

/// Bursts while clients do not read: events of more than 20 MiB.
const ROUNDS: u32 = 40;

/// SAs of a burst.
const BURST: u32 = 1000;

/// Octets of memory in use.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

fn flush(raw: &mut Raw) {
    assert_eq!(errno(&raw.ask(Body::FlushSa(SaFlush { proto: 0 }, Attributes::default()))), None);
    assert_eq!(errno(&raw.ask(Body::FlushPolicy(Attributes::default()))), None);
}

/// SPIs of the SAs of a listing, each of which is there once.
fn spis(bodies: &[Body]) -> BTreeSet<u32> {
    let spi = |body: &Body| match body {
        Body::NewSa(info, _) => Some(info.id.spi.0),
        Body::Done(_) => None,
        other => panic!("{other:?}"),
    };
    let all: Vec<u32> = bodies.iter().filter_map(spi).collect();
    let set: BTreeSet<u32> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len());
    set
}

/// Sends all requests, then reads the answers: acknowledgements.
fn burst(raw: &mut Raw, bodies: impl Iterator<Item = Body>) {
    let mut count = 0;
    for body in bodies {
        let request = raw.request(Flags::ACK, body);
        raw.send(&request);
        count += 1;
    }
    for _ in 0..count {
        assert_eq!(errno(&raw.answers()), None);
    }
}

fn list(raw: &mut Raw) -> BTreeSet<u32> {
    let request = raw.request(Flags::DUMP, Body::DumpSa(Attributes::default()));
    raw.send(&request);
    spis(&raw.answers())
}

/// Every kind of request, as it should be, and a few events.
fn requests(raw: &mut Raw) -> Vec<Vec<u8>> {
    let none = Attributes::default;
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address").into();
    let sel = Selector {
        saddr: ip("10.1.0.0"),
        daddr: ip("10.2.0.0"),
        prefixlen_s: 16,
        prefixlen_d: 16,
        family: Family::INET,
        ..Selector::default()
    };
    let template = Template {
        id: sa::XfrmId { daddr: ip("192.0.2.2"), proto: sa::ESP, ..sa::XfrmId::default() },
        family: Family::INET,
        saddr: ip("192.0.2.1"),
        reqid: 1,
        mode: Mode::TUNNEL,
        ..Template::default()
    };
    let protect = Attributes(vec![Attribute::Templates(vec![template])]);
    let mut policy = PolicyInfo { sel, ..PolicyInfo::default() };
    policy.dir.0 = 1;
    let policy_id = PolicyId { sel, dir: policy.dir, index: 0 };
    let (Body::NewSa(outbound, keys), Body::NewSa(inbound, inbound_keys)) =
        (new_sa(0x501, OUT), new_sa(0x502, IN))
    else {
        unreachable!("both make SAs")
    };
    let expire = Expire { state: outbound, hard: 1 };
    let spi_request = SpiRequest { info: inbound, min: 0x600, max: 0x6ff };
    let ae = AeId { sa_id: sa_id(0x501, OUT), ..AeId::default() };
    let number = Attribute::Replay(culvert_xfrm::replay::Replay { oseq: 9, seq: 9, bitmap: 1 });
    let bodies = [
        Body::NewSa(outbound, keys.clone()),
        Body::NewSa(inbound, inbound_keys),
        Body::UpdateSa(outbound, keys),
        Body::GetSa(sa_id(0x501, OUT), none()),
        Body::AllocateSpi(spi_request, none()),
        Body::NewPolicy(policy, protect.clone()),
        Body::UpdatePolicy(policy, protect),
        Body::GetPolicy(policy_id, none()),
        Body::GetAe(ae, none()),
        Body::NewAe(ae, Attributes(vec![number])),
        Body::Migrate(policy_id, none()),
        Body::Expire(expire, none()),
        Body::GetSadInfo(0),
        Body::GetSpdInfo(0),
        Body::GetDefault(Defaults::default(), none()),
        Body::SetDefault(Defaults::default(), none()),
        Body::DeleteSa(sa_id(0x501, OUT), none()),
        Body::DeletePolicy(policy_id, none()),
        Body::FlushSa(SaFlush { proto: 0 }, none()),
        Body::FlushPolicy(none()),
    ];
    let ack = Flags::ACK | Flags::REPLACE;
    let mut all: Vec<Vec<u8>> = bodies.into_iter().map(|body| raw.request(ack, body)).collect();
    for body in [Body::DumpSa(none()), Body::DumpPolicy(none())] {
        all.push(raw.request(Flags::DUMP, body));
    }
    // HELLO, and BIND to all groups.
    for (kind, body) in [(0xf000_u16, &[1_u32][..]), (0xf001, &[7, 0xff, 3])] {
        let len = u32::try_from(16 + 4 * body.len()).expect("few");
        let mut octets = len.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        octets.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        all.push(octets);
    }
    all
}

/// Numbers that differ each time, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most.max(1) as u64).expect("small")
    }

    /// One of `of`, or two of them in one datagram, with damage; a tenth have none.
    fn mutate(&mut self, of: &[Vec<u8>]) -> Vec<u8> {
        let mut octets = of[self.below(of.len())].clone();
        if self.below(8) == 0 {
            octets.extend(&of[self.below(of.len())]);
        }
        let damages = if self.below(10) == 0 { 0 } else { 1 + self.below(6) };
        for _ in 0..damages {
            let at = self.below(octets.len());
            let value = [0, 1, 0x7f, 0x80, 0xff, self.below(256)][self.below(6)].to_le_bytes()[0];
            match self.below(6) {
                0 => octets.truncate(at.max(1)),
                1 => octets.extend(std::iter::repeat_n(value, self.below(64))),
                2 => octets.insert(at, value),
                // Attributes begin at multiples of four with their length.
                3 => octets[at & !3] = value,
                _ => octets[at] = value,
            }
            if self.below(3) > 0 && octets.len() >= 4 {
                let len = u32::try_from(octets.len()).expect("short");
                octets[..4].copy_from_slice(&len.to_ne_bytes());
            }
        }
        octets
    }
}

/// Mutated frames, many: nobody panics, nothing leaks, and the next client is served.
#[test]
fn mutated_frames() {
    let frames = std::env::var("CULVERT_CONTROL_FRAMES");
    let frames = frames.map_or(20_000, |frames| frames.parse().expect("a number of frames"));
    let server = Server::start();
    let mut sane = Raw::connect(&server.socket());
    let good = requests(&mut sane);
    let mut random = Random(0x5eed);
    let mut answers = 0;
    let mut early = None;
    let mut raw = Raw::connect(&server.socket());
    for number in 0..frames {
        raw.send(&random.mutate(&good));
        answers += raw.drain();
        if number % 1000 == 999 {
            flush(&mut sane);
            early = early.or((number * 10 >= frames).then(resident));
        }
        if number % 5000 == 4999 {
            raw = Raw::connect(&server.socket());
        }
    }
    drop(raw);
    flush(&mut sane);
    let early = early.expect("at least 1000 frames");
    let growth = resident().saturating_sub(early);
    eprintln!("{frames} frames, {answers} answers, {} KiB more", growth / 1024);
    assert!(growth < GROWTH_MAX, "{growth} octets more");
    assert!(answers > frames / 4, "{answers}");
    assert_eq!(errno(&sane.ask(new_sa(0x1001, OUT))), None);
    assert_eq!(list(&mut sane), BTreeSet::from([0x1001]));
    let status = culvert(&server.socket(), "status --json").json();
    assert_eq!(status["sas"]["valid"], 1);
}

/// A burst of SAs as fast as they can be sent, answers read afterwards: all are there, listed and
/// deleted.
#[test]
fn a_burst_of_sas() {
    let server = Server::start();
    let mut raw = Raw::connect(&server.socket());
    let all: BTreeSet<u32> = (0x1000..0x1000 + BURST).collect();
    let begun = Instant::now();
    let direction = |spi| if spi % 2 == 0 { OUT } else { IN };
    burst(&mut raw, all.iter().map(|&spi| new_sa(spi, direction(spi))));
    eprintln!("{BURST} SAs in {:?}", begun.elapsed());
    assert_eq!(list(&mut raw), all);
    let listed = culvert(&server.socket(), "sa list --json").json();
    assert_eq!(listed.as_array().map(Vec::len), Some(BURST as usize));
    let id = |spi| Body::DeleteSa(sa_id(spi, direction(spi)), Attributes::default());
    burst(&mut raw, all.iter().map(|&spi| id(spi)));
    assert_eq!(list(&mut raw), BTreeSet::new());
}

/// Clients that never read: one asks, one listens to all events. Others are answered at once, and
/// what waits for those is bounded.
#[test]
fn clients_that_never_read() {
    let server = Server::start();
    let socket = server.socket();
    let mut raw = Raw::connect(&socket);
    let mut asker = Raw::connect(&socket);
    let listener = Raw::connect(&socket);
    let bind = requests(&mut raw).pop().expect("BIND is the last");
    listener.send(&bind);
    for spi in 0x1000..0x1000 + BURST {
        raw.ask(new_sa(spi, OUT));
    }
    let before = resident();
    let mut asked = 0;
    let mut refused = 0;
    while refused < 20 {
        let dump = asker.request(Flags::DUMP, Body::DumpSa(Attributes::default()));
        if asker.try_send(&dump) {
            asked += 1;
        } else {
            refused += 1;
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(asked > 10, "{asked}");
    let update = |spi| match new_sa(spi, OUT) {
        Body::NewSa(info, list) => Body::UpdateSa(info, list),
        _ => unreachable!("it makes SAs"),
    };
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        burst(&mut raw, (0x1000..0x1000 + BURST).map(update));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let growth = resident().saturating_sub(before);
    eprintln!("{asked} listings asked for, {} KiB more", growth / 1024);
    assert!(growth < WAITING_MAX, "{growth} octets more");
    // They may still change their mind: the listing goes on where it stood, and events are there.
    assert!(asker.answers().len() > 64);
    assert!(listener.drain() > 100);
    assert_eq!(list(&mut raw).len(), BURST as usize);
}

/// A client that reads a listing slowly, while SAs come and go: it gets each that stayed, once, and
/// others are served meanwhile.
#[test]
fn a_slow_listing() {
    let server = Server::start();
    let mut raw = Raw::connect(&server.socket());
    for spi in 0x1000..0x1000 + BURST {
        raw.ask(new_sa(spi, IN));
    }
    let mut slow = Raw::connect(&server.socket());
    let dump = slow.request(Flags::DUMP, Body::DumpSa(Attributes::default()));
    slow.send(&dump);
    let (mut bodies, mut spi) = (Vec::new(), 0x1000);
    while !matches!(bodies.last(), Some(Body::Done(_))) {
        let datagram = slow.receive().expect("an answer");
        assert!(datagram.len() <= 4096, "strongSwan reads no more");
        for frame in message::messages(&datagram) {
            let message = Message::parse(frame.expect("a message").octets).expect("a message");
            bodies.push(message.body);
        }
        // Odd ones go, others come, while the listing waits.
        let begun = Instant::now();
        if spi < 0x1000 + BURST {
            let id = sa_id(spi + 1, IN);
            assert_eq!(errno(&raw.ask(Body::DeleteSa(id, Attributes::default()))), None);
            assert_eq!(errno(&raw.ask(new_sa(spi + 0x10000, IN))), None);
            spi += 2;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(3));
    }
    let listed = spis(&bodies);
    let stayed: BTreeSet<u32> = (0x1000..0x1000 + BURST).step_by(2).collect();
    assert!(listed.is_superset(&stayed), "{:?}", stayed.difference(&listed));
    let second = list(&mut raw);
    assert_eq!(second.len(), BURST as usize);
    assert!(second.is_superset(&stayed) && !second.contains(&0x1001));
}

/// More clients than are taken: those beyond the most are turned away, the others served, and there
/// is room again once they are gone.
#[test]
fn three_hundred_clients() {
    let server = Server::start();
    let mut clients: Vec<Raw> = (0..300).map(|_| Raw::connect(&server.socket())).collect();
    let mut served = 0;
    for (spi, client) in (0x1000..).zip(&mut clients) {
        let request = client.request(Flags::ACK, new_sa(spi, OUT));
        if client.try_send(&request) && client.receive().is_some() {
            served += 1;
        }
    }
    assert_eq!(served, 256);
    let said = culvert(&server.socket(), "status");
    assert!(said.complaint().contains("closed the connection"), "{}", said.error);
    drop(clients);
    let status = || culvert(&server.socket(), "status --json");
    let deadline = Instant::now() + Duration::from_secs(10);
    while status().code != Some(0) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status().json()["sas"]["valid"], 256);
}
