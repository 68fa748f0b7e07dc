//! SAs that come, change and go while packets flow: rekeying, resource SAs, moving peers.

use culvert_aead::Audit;
use culvert_aead::Provider;
use culvert_control::Direction;
use culvert_control::SaId;
use culvert_control::SaSpec;
use culvert_engine::DropReason;
use culvert_engine::WorkerId;
use culvert_engine::mailbox::Notice;
use culvert_engine::mailbox::Peer;
use culvert_frame::Port;
use culvert_sim::FramePool;
use culvert_sim::Gateway;
use culvert_sim::gateway::Room;
use culvert_sim::plain::Plain;
use culvert_sim::plain::find_id;
use culvert_sim::provider::provider;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;
use culvert_wire::esp;
use culvert_wire::esp::Outer;
use culvert_wire::esp::Unprotected;

const A: usize = 0;
const B: usize = 1;

/// Two gateways with room for more SAs than they start with.
struct Pair {
    gateways: [Gateway<Audit<Provider>>; 2],
    next_id: u64,
    now: u64,
}

impl Pair {
    fn new(workers: usize, tunnels: Vec<Tunnel>) -> Pair {
        let scenario = Scenario { workers: vec![workers; 2], ..Scenario::quiet(tunnels) };
        let audit = Audit::new(provider());
        let gateway = |side| {
            let config = scenario.gateway(side);
            let mut pool = FramePool::of(&config);
            let room = Room { spare_slots: 16, ..Room::default() };
            let next_hops = scenario.next_hops(side, [true; 4]);
            Gateway::in_pool(&config, &audit, next_hops, &mut pool, room).unwrap()
        };
        Pair { gateways: [gateway(A), gateway(B)], next_id: 1, now: 0 }
    }

    /// A host of `side` sends a packet through tunnel 0; it arrives at one of the workers.
    fn send(&mut self, side: usize, worker: usize) -> u64 {
        let host = |side| Scenario::host(side, 0, false, 5);
        let plain = Plain::new(host(side), host(1 - side), self.next_id);
        let frame = plain.frame(gateway_mac(side, LAN), host_mac(side), None);
        self.inject(side, worker, LAN, &frame);
        self.next_id += 1;
        plain.id
    }

    fn inject(&mut self, side: usize, worker: usize, port: Port, frame: &[u8]) {
        assert!(self.gateways[side].workers[worker].io_mut().inject(port, frame));
    }

    /// Lets every worker of a gateway turn until nothing waits, and returns what it sent.
    fn turn(&mut self, side: usize, port: Port) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..3 {
            for worker in &mut self.gateways[side].workers {
                worker.turn(self.now);
                sent.extend(std::iter::from_fn(|| worker.io_mut().take_sent_bytes(port)));
            }
        }
        sent
    }

    /// Packets of `side` go through both gateways; the numbers of those that arrive.
    fn carry(&mut self, side: usize) -> Vec<u64> {
        let frames = self.turn(side, WAN);
        let workers = self.gateways[1 - side].workers.len();
        for (index, frame) in frames.iter().enumerate() {
            self.inject(1 - side, index % workers, WAN, frame);
        }
        let delivered = self.turn(1 - side, LAN);
        delivered.iter().map(|frame| find_id(frame).unwrap()).collect()
    }

    fn control(&mut self, side: usize) -> &mut culvert_control::Controller<Audit<Provider>> {
        &mut self.gateways[side].controller
    }

    fn settle(&mut self) {
        self.gateways.iter_mut().for_each(|gateway| gateway.settle().unwrap());
    }

    fn outbound(&mut self, side: usize, tunnel: &Tunnel) -> SaId {
        self.control(side).find(Direction::Outbound, tunnel.spi[side].value()).unwrap()
    }

    fn dropped(&self, side: usize, reason: DropReason) -> u64 {
        self.gateways[side].counters().dropped(reason)
    }

    fn dropped_total(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.counters().dropped_total()).sum()
    }

    fn mappings(&mut self, side: usize) -> Vec<(SaId, Peer, Peer)> {
        let news = self.control(side).take_news().0.into_iter();
        let mapping = |news: culvert_control::News| match news.notice {
            Notice::Mapping { old, new, .. } => Some((news.sa.unwrap(), old, new)),
            _ => None,
        };
        news.filter_map(mapping).collect()
    }
}

/// Another pair of SAs of group 0.
fn pair(number: u8) -> Tunnel {
    let tunnel = Tunnel::ordinary(number);
    Tunnel { index: 0, outer: Tunnel::ordinary(0).outer, ..tunnel }
}

fn outer(frame: &[u8]) -> Outer {
    match esp::classify(frame) {
        Ok(Unprotected::Esp(outer)) => outer,
        other => panic!("{other:?}"),
    }
}

/// U12, U13, M09: ten rekeyings while packets flow in both directions, each worker turning when it
/// likes: every packet arrives once, none is dropped, and each new SA starts with number 1.
#[test]
fn rekeying_under_load_loses_nothing() {
    let mut pair_of = Pair::new(2, vec![pair(0)]);
    let mut old = pair(0);
    let mut first_numbers = Vec::new();
    for number in 1..=10 {
        let new = pair(number);
        let responder = pair_of.control(B);
        responder.add_sa(&new.sa(B, A)).unwrap();
        let standby = responder.add_standby(&new.sa(B, B)).unwrap();
        let (mut stage, mut seen) = (0, Vec::new());
        for step in 0..60 {
            let (worker, side) = (step % 2, step / 2 % 2);
            let sent = pair_of.send(side, worker);
            let mut delivered = pair_of.carry(side);
            seen.extend(pair_of.turn(1 - side, WAN));
            assert_eq!((delivered.pop(), delivered.len()), (Some(sent), 0), "step {step}");
            for side in [A, B] {
                pair_of.control(side).poll().unwrap();
            }
            let from = (pair_of.control(A), &old);
            match (step, stage) {
                (5, 0) => {
                    let id = from.0.find(Direction::Outbound, from.1.spi[A].value()).unwrap();
                    from.0.rekey(id, &new.sa(A, B), &new.sa(A, A)).unwrap();
                    stage = 1;
                }
                (20, 1) => {
                    let id = pair_of.outbound(B, &old);
                    pair_of.control(B).activate(standby, Some(id)).unwrap();
                    stage = 2;
                }
                (40, 2) => {
                    for side in [A, B] {
                        let spi = old.spi[1 - side].value();
                        let id = pair_of.control(side).find(Direction::Inbound, spi).unwrap();
                        pair_of.control(side).remove_sa(id).unwrap();
                    }
                    stage = 3;
                }
                _ => {}
            }
        }
        assert_eq!(stage, 3);
        for side in [A, B] {
            let ids: Vec<SaId> = pair_of.control(side).ids().collect();
            assert_eq!(ids.len(), 2, "the old pair is gone");
            let current = pair_of.control(side).current(culvert_spd::Group(0));
            assert_eq!(current, Some(pair_of.outbound(side, &new)));
            let samples = pair_of.gateways[side].samples().find(|sample| !sample.inbound);
            let sample = samples.unwrap();
            first_numbers.push(sample.sequence - sample.packets);
        }
        old = new;
    }
    assert_eq!(pair_of.dropped_total(), 0);
    assert_eq!(first_numbers, [0; 20], "numbers start again");
}

/// P13, M01: eight pairs of SAs with the same selectors live side by side; any of them, arriving at
/// any worker, is as good as the others.
#[test]
fn parallel_sas_are_equal() {
    let pairs: Vec<Tunnel> = (0..8).map(pair).collect();
    let mut lab = Pair::new(4, pairs.clone());
    let mut spis = Vec::new();
    for tunnel in &pairs {
        let id = lab.outbound(A, tunnel);
        lab.control(A).activate(id, None).unwrap();
        lab.settle();
        let sent: Vec<u64> = (0..4).map(|worker| lab.send(A, worker)).collect();
        let frames = lab.turn(A, WAN);
        spis.extend(frames.iter().map(|frame| outer(frame).spi));
        for (worker, frame) in frames.iter().enumerate() {
            lab.inject(B, worker, WAN, frame);
        }
        let delivered = lab.turn(B, LAN);
        let mut delivered: Vec<u64> =
            delivered.iter().map(|frame| find_id(frame).unwrap()).collect();
        delivered.sort_unstable();
        assert_eq!(delivered, sent);
    }
    let expected: Vec<u32> = pairs.iter().flat_map(|tunnel| [tunnel.spi[A].value(); 4]).collect();
    assert_eq!((spis, lab.dropped_total()), (expected, 0));
}

/// M02, M04, M05: each worker uses its own SA; when that goes under load, its packets take the one
/// for all, nothing is lost, the others notice nothing, and control is asked for a new one.
#[test]
fn a_fallback_serves_when_an_own_sa_goes() {
    let own = |number: u8| {
        let resource = [Some(WorkerId(number)); 2];
        Tunnel { resource, ..pair(number) }
    };
    let mut lab = Pair::new(3, vec![pair(0), own(1), own(2)]);
    let spi_of = |lab: &mut Pair, worker| {
        let sent = lab.send(A, worker);
        let frames = lab.turn(A, WAN);
        let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
        lab.inject(B, 0, WAN, frame);
        let delivered = lab.turn(B, LAN);
        assert_eq!((delivered.len(), find_id(&delivered[0])), (1, Some(sent)));
        outer(frame).spi
    };
    let [all, one, two] = [pair(0), own(1), own(2)].map(|tunnel| tunnel.spi[A].value());
    assert_eq!([0, 1, 2].map(|worker| spi_of(&mut lab, worker)), [all, one, two]);
    let (_, _) = lab.control(A).take_news();
    let id = lab.outbound(A, &own(1));
    lab.control(A).remove_sa(id).unwrap();
    for _ in 0..10 {
        let spis = [0, 1, 2].map(|worker| spi_of(&mut lab, worker));
        assert!(spis == [all, one, two] || spis == [all, all, two], "{spis:x?}");
        lab.control(A).poll().unwrap();
    }
    assert_eq!([0, 1, 2].map(|worker| spi_of(&mut lab, worker)), [all, all, two]);
    assert!(lab.control(A).is_idle());
    assert_eq!(lab.dropped_total(), 0);
    lab.control(A).poll().unwrap();
    let asked = lab
        .control(A)
        .take_news()
        .0
        .into_iter()
        .any(|news| matches!(news.notice, Notice::Acquire { resource: Some(WorkerId(1)), .. }));
    assert!(asked, "control is told which worker lacks its SA");
}

/// Sends `frame` as from another address and port.
fn from_elsewhere(frame: &[u8], peer: Peer) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let std::net::IpAddr::V4(address) = peer.address else { panic!("IPv4") };
    frame[26..30].copy_from_slice(&address.octets());
    frame[34..36].copy_from_slice(&peer.port.to_be_bytes());
    frame[24..26].fill(0);
    let sum = culvert_wire::checksum::internet(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// U10, U11: packets go to where an authentic and newest packet came from; a replay, a forgery, and
/// an authentic packet that is late do not move the peer.
#[test]
fn a_peer_is_followed_but_no_attacker() {
    let tunnel = pair(0).with_udp();
    let mut lab = Pair::new(1, vec![tunnel.clone()]);
    let peer = |last: u8, port| Peer { address: [198, 51, 100, last].into(), port };
    let packet = |lab: &mut Pair| {
        lab.send(A, 0);
        lab.turn(A, WAN).remove(0)
    };
    let [late, seen, new, next] = [0; 4].map(|_| packet(&mut lab));
    lab.inject(B, 0, WAN, &seen);
    let mut forged = from_elsewhere(&new, peer(66, 1));
    *forged.last_mut().unwrap() ^= 1;
    let hostile = [from_elsewhere(&seen, peer(66, 2)), forged, from_elsewhere(&late, peer(66, 3))];
    for frame in &hostile {
        lab.inject(B, 0, WAN, frame);
        lab.turn(B, LAN);
        lab.control(B).poll().unwrap();
        assert_eq!(lab.mappings(B), []);
    }
    assert_eq!((lab.dropped(B, DropReason::Replay), lab.dropped(B, DropReason::Icv)), (1, 1));
    lab.inject(B, 0, WAN, &from_elsewhere(&new, peer(7, 61_000)));
    lab.turn(B, LAN);
    lab.control(B).poll().unwrap();
    let mappings = lab.mappings(B);
    let old = Peer { address: tunnel.outer[A], port: 4500 };
    let [(id, was, now)] = mappings[..] else { panic!("{mappings:?}") };
    assert_eq!((was, now), (old, peer(7, 61_000)));
    assert_eq!(lab.control(B).follow_mapping(id, was, now).unwrap(), 1);
    lab.settle();
    lab.send(B, 0);
    let answer = lab.turn(B, WAN).remove(0);
    assert_eq!(answer[30..34], [198, 51, 100, 7]);
    assert_eq!(answer[36..38], 61_000u16.to_be_bytes());
    // And home again.
    lab.inject(B, 0, WAN, &next);
    lab.turn(B, LAN);
    lab.control(B).poll().unwrap();
    assert_eq!(lab.mappings(B), [(id, peer(7, 61_000), old)]);
}

/// U10: a peer that one SA was wrong about is put right by a packet of any SA of its path.
#[test]
fn sas_of_a_path_move_together() {
    let (first, second) = (pair(0).with_udp(), pair(1).with_udp());
    let mut lab = Pair::new(2, vec![first.clone(), second.clone()]);
    let wrong = Peer { address: [198, 51, 100, 66].into(), port: 1 };
    let id = lab.outbound(A, &first);
    lab.control(A).activate(id, None).unwrap();
    lab.settle();
    lab.send(A, 0);
    let captured = lab.turn(A, WAN).remove(0);
    assert_eq!(outer(&captured).spi, first.spi[A].value());
    // Somebody was quicker with a packet of the first SA; peers use the second one by now.
    let id = lab.outbound(A, &second);
    lab.control(A).activate(id, None).unwrap();
    lab.settle();
    lab.inject(B, 0, WAN, &from_elsewhere(&captured, wrong));
    for _ in 0..3 {
        lab.turn(B, LAN);
        lab.control(B).poll().unwrap();
        for (id, old, new) in lab.mappings(B) {
            assert_eq!((new, lab.control(B).follow_mapping(id, old, new).unwrap()), (wrong, 2));
        }
    }
    lab.settle();
    lab.send(A, 0);
    assert_eq!(lab.carry(A).len(), 1);
    lab.control(B).poll().unwrap();
    let home = Peer { address: first.outer[A], port: 4500 };
    let mappings = lab.mappings(B);
    let [(id, old, new)] = mappings[..] else { panic!("{mappings:?}") };
    assert_eq!((old, new), (wrong, home));
    lab.control(B).follow_mapping(id, old, new).unwrap();
    lab.settle();
    lab.send(B, 0);
    assert_eq!(outer(&lab.turn(B, WAN)[0]).destination, home.address);
}

/// P29: of a flood of refused packets every one is counted; records are fewer, and say how many
/// were not written.
#[test]
fn audit_records_are_limited_and_counted() {
    const FLOOD: u64 = 5000;
    let mut lab = Pair::new(1, vec![pair(0)]);
    let mut frame = {
        lab.send(A, 0);
        lab.turn(A, WAN).remove(0)
    };
    frame[34..38].copy_from_slice(&0x0bad_0bad_u32.to_be_bytes());
    let (mut records, mut suppressed) = (0, 0);
    for number in 0..FLOOD {
        lab.now += 1_000_000;
        lab.inject(B, 0, WAN, &frame);
        lab.turn(B, LAN);
        lab.control(B).poll().unwrap();
        for news in lab.control(B).take_news().0 {
            let Notice::Audit(record) = news.notice else { continue };
            assert_eq!((record.reason, record.spi), (DropReason::NoSa, Some(0x0bad_0bad)));
            records += 1;
            suppressed += record.suppressed;
        }
        assert_eq!(lab.dropped(B, DropReason::NoSa), number + 1);
    }
    // A second's worth at once, then as many a second for five seconds.
    assert!((500..=620).contains(&records), "{records} records");
    assert!(records + suppressed <= FLOOD && records + suppressed > FLOOD - 20);
}

/// U13: the responder of a rekeying goes on with the old outbound SA while its peer has not used
/// the new one. The first authentic packet there, a dummy will do, shows in what the new inbound SA
/// counts, and with that control moves; a forged one does not show.
#[test]
fn a_responder_waits_for_its_peer() {
    let mut lab = Pair::new(1, vec![pair(0)]);
    let (old, new) = (pair(0), pair(1));
    lab.control(B).add_sa(&new.sa(B, A)).unwrap();
    let standby = lab.control(B).add_standby(&new.sa(B, B)).unwrap();
    lab.settle();
    let used = |lab: &Pair| {
        let mut samples = lab.gateways[B].samples();
        let new = samples.find(|sample| sample.inbound && sample.spi == new.spi[A].value());
        new.unwrap().packets
    };
    let answers_by = |lab: &mut Pair| {
        lab.send(B, 0);
        outer(&lab.turn(B, WAN)[0]).spi
    };
    lab.send(A, 0);
    assert_eq!(lab.carry(A).len(), 1);
    assert_eq!((used(&lab), answers_by(&mut lab)), (0, old.spi[B].value()));
    // The initiator has its response, and sends a dummy by the new SA.
    let mut spec = new.sa(A, A);
    spec.sending.dummy_interval = Some(1_000_000_000);
    let id = lab.outbound(A, &old);
    lab.control(A).rekey(id, &new.sa(A, B), &spec).unwrap();
    lab.settle();
    let dummy = (1..10).find_map(|second| {
        lab.now = second * 1_000_000_000;
        lab.turn(A, WAN).pop()
    });
    let dummy = dummy.expect("a dummy");
    assert_eq!(outer(&dummy).spi, new.spi[A].value());
    let mut forged = dummy.clone();
    *forged.last_mut().unwrap() ^= 1;
    lab.inject(B, 0, WAN, &forged);
    lab.turn(B, LAN);
    assert_eq!((used(&lab), answers_by(&mut lab)), (0, old.spi[B].value()));
    lab.inject(B, 0, WAN, &dummy);
    assert_eq!(lab.turn(B, LAN), [[0; 0]; 0]);
    assert_eq!((used(&lab), answers_by(&mut lab)), (1, old.spi[B].value()));
    let old_id = lab.outbound(B, &old);
    lab.control(B).activate(standby, Some(old_id)).unwrap();
    lab.settle();
    assert_eq!(answers_by(&mut lab), new.spi[B].value());
    assert!(lab.control(B).find(Direction::Outbound, old.spi[B].value()).is_none());
}

/// U13, E11: an SA on standby sends no dummies either: its peer may not be ready to receive them.
#[test]
fn a_standby_sa_sends_no_dummies() {
    let mut lab = Pair::new(1, vec![pair(0)]);
    let new = pair(1);
    let mut spec = new.sa(B, B);
    spec.sending.dummy_interval = Some(1_000_000_000);
    let standby = lab.control(B).add_standby(&spec).unwrap();
    lab.settle();
    let dummies = |lab: &mut Pair, seconds: std::ops::Range<u64>| -> usize {
        let count = |second: u64| {
            lab.now = second * 1_000_000_000;
            lab.turn(B, WAN).len()
        };
        seconds.map(count).sum()
    };
    assert_eq!(dummies(&mut lab, 1..10), 0);
    let old = lab.outbound(B, &pair(0));
    lab.control(B).activate(standby, Some(old)).unwrap();
    lab.settle();
    assert!(dummies(&mut lab, 10..20) >= 8);
}

/// U10: a spec of an outbound SA goes to where its peer is seen.
#[test]
fn specs_name_the_peer_behind_its_nat() {
    let peer = Peer { address: [198, 51, 100, 7].into(), port: 61_000 };
    let tunnel = pair(0).with_udp();
    let home = Peer { address: tunnel.outer[B], port: 4500 };
    let tunnel = Tunnel { seen_at: Some([peer, home]), ..tunnel };
    let ports = |spec: &SaSpec| spec.encapsulation.map(|p| (p.source_port, p.destination_port));
    let (to, from) = (tunnel.sa(B, B), tunnel.sa(B, A));
    assert_eq!((to.destination, ports(&to)), (peer.address, Some((4500, 61_000))));
    assert_eq!((from.source, ports(&from)), (peer.address, Some((61_000, 4500))));
    assert_eq!(tunnel.sa(A, A).source, tunnel.outer[A], "who is behind a NAT does not know it");
}
