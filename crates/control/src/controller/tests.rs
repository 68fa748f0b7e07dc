//! The controller with real workers, which turn when a test says so.

mod epochs;
mod many;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use culvert_aead::AhOp;
use culvert_aead::Algorithm;
use culvert_aead::KeyError;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::RustCrypto;
use culvert_aead::Status;
use culvert_engine::Handoff;
use culvert_engine::Worker;
use culvert_engine::WorkerConfig;
use culvert_engine::mailbox::Peer;
use culvert_engine::mailbox::mailbox;
use culvert_engine::options::Options;
use culvert_engine::options::Sending;
use culvert_engine::tables::Members;
use culvert_esp::Encapsulation;
use culvert_esp::Spi;
use culvert_esp::WindowState;
use culvert_esp::template::FamilyMismatch;
use culvert_frame::MemIo;

use super::*;
use crate::sa::SaSpec;
use crate::sequence_store::Fingerprint;

struct NobodySleeps;

impl Wake for NobodySleeps {
    fn wake(&self) {}
}

/// A provider whose keys say when they are gone.
#[derive(Clone, Default)]
struct Watched(Arc<()>);

impl Aead for Watched {
    type Key = Arc<()>;

    fn name(&self) -> &'static str {
        "watched"
    }

    fn key(&self, _: Algorithm, _: &Keymat) -> Result<Arc<()>, KeyError> {
        Ok(Arc::clone(&self.0))
    }

    fn prefetch(&self, _: &Arc<()>, _: usize) {}

    fn seal(&mut self, _: &mut [Op<'_, Arc<()>>]) {
        unreachable!("no packets")
    }

    fn open(&mut self, _: &mut [Op<'_, Arc<()>>], _: &mut [Status]) {
        unreachable!("no packets")
    }

    fn seal_ah(&mut self, _: AhOp<'_, Arc<()>>) {
        unreachable!("no packets")
    }

    fn open_ah(&mut self, _: AhOp<'_, Arc<()>>) -> Status {
        unreachable!("no packets")
    }

    fn seal_general(&mut self, _: &Arc<()>, _: &[u8; 12], _: &[u8], _: &mut [u8]) {
        unreachable!("no packets")
    }

    fn open_general(&mut self, _: &Arc<()>, _: &[u8; 12], _: &[u8], _: &mut [u8]) -> bool {
        unreachable!("no packets")
    }
}

/// A controller with its workers.
struct Lab<A: Aead> {
    controller: Controller<A>,
    workers: Vec<Worker<A, MemIo>>,
}

impl<A: Aead + Clone> Lab<A> {
    fn new(aead: &A, workers: u8, slots: usize, store: Option<SequenceStore>) -> Lab<A> {
        let (mut handles, mut made) = (Vec::new(), Vec::new());
        for id in 0..workers {
            let (worker_end, mailbox) = mailbox(64);
            let config = WorkerConfig {
                id: WorkerId(id),
                ports: Vec::new(),
                slots,
                options: Options::default(),
            };
            let (one, other) = (Handoff::none(), Handoff::none());
            let worker = Worker::new(&config, aead.clone(), MemIo::new(1), worker_end, one, other);
            let wake = Arc::new(NobodySleeps);
            handles.push(WorkerHandle { mailbox, wake, counters: worker.shared_counters() });
            made.push(worker);
        }
        Lab { controller: Controller::new(aead.clone(), handles, slots, store), workers: made }
    }

    /// Polls, and lets some workers turn.
    fn step(&mut self, awake: &[usize]) {
        self.controller.poll().unwrap();
        for &index in awake {
            self.workers[index].turn(0);
        }
        self.controller.poll().unwrap();
        self.check_single_owner();
    }

    fn settle(&mut self) {
        let all: Vec<usize> = (0..self.workers.len()).collect();
        for _ in 0..100 {
            if self.controller.is_idle() {
                return;
            }
            self.step(&all);
        }
        panic!("control does not come to rest");
    }

    /// Where SAs with this SPI are: worker, last number, destination.
    fn places(&self, spi: u32) -> Vec<(usize, u64, IpAddr)> {
        let of = |(index, worker): (usize, &Worker<A, MemIo>)| {
            let samples = worker.samples().filter(|sample| sample.spi == spi);
            samples.map(|sample| (index, sample.sequence, sample.destination)).collect::<Vec<_>>()
        };
        self.workers.iter().enumerate().flat_map(of).collect()
    }

    /// No SA is in two places.
    fn check_single_owner(&self) {
        for sample in self.workers.iter().flat_map(Worker::samples) {
            let of_record = |record: &Record| {
                let inbound = record.direction == Direction::Inbound;
                (record.spi, inbound) == (sample.spi, sample.inbound)
            };
            let sas = self.controller.records.values().filter(|record| of_record(record)).count();
            let all = self.workers.iter().flat_map(Worker::samples);
            let places = all.filter(|s| (s.spi, s.inbound) == (sample.spi, sample.inbound)).count();
            assert!(places <= sas, "SPI {:#x} is in {places} places", sample.spi);
        }
    }
}

fn lab(workers: u8, slots: usize) -> Lab<RustCrypto> {
    Lab::new(&RustCrypto, workers, slots, None)
}

fn stored(directory: &Path) -> Lab<RustCrypto> {
    let store = SequenceStore::open(directory).unwrap();
    Lab::new(&RustCrypto, 2, 4, Some(store))
}

fn outbound(spi: u32) -> SaSpec {
    sa(Direction::Outbound, spi)
}

fn inbound(spi: u32) -> SaSpec {
    sa(Direction::Inbound, spi)
}

/// An SA of group 0 with a key of its own.
fn sa(direction: Direction, spi: u32) -> SaSpec {
    let addresses = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mut octets = vec![7; 20];
    octets[..4].copy_from_slice(&spi.to_be_bytes());
    let key = (Algorithm::Aes128Gcm16, Keymat::new(octets));
    SaSpec::new(direction, Spi::new(spi).unwrap(), addresses, key, Group(0))
}

fn with_esn(spec: SaSpec, esn: bool) -> SaSpec {
    SaSpec { esn, ..spec }
}

fn mark(controller: &Controller<RustCrypto>, spec: &SaSpec) -> u64 {
    controller.leases.store().unwrap().high_water(&Fingerprint::of(&spec.keymat)).unwrap()
}

/// E21, G02: a start leases numbers before any is used, and a crash costs just those.
#[test]
fn a_crash_costs_one_lease() {
    let directory = tempfile::tempdir().unwrap();
    for crashes in 1..4 {
        let mut lab = stored(directory.path());
        lab.controller.add_sa(&outbound(0x1001)).unwrap();
        assert_eq!(mark(&lab.controller, &outbound(0x1001)), crashes * LEASE);
    }
}

/// E21: an orderly stop records what was used, and the next start goes on from there; so does an
/// SA that is removed and comes again.
#[test]
fn an_orderly_stop_wastes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = stored(directory.path());
    let id = first.controller.add_sa(&outbound(0x1001)).unwrap();
    first.settle();
    let location = first.controller.location(id).unwrap();
    assert_eq!(first.controller.leased().collect::<Vec<_>>(), [location]);
    first.controller.record_last([(location, 17)]).unwrap();
    drop(first);
    let mut second = stored(directory.path());
    let id = second.controller.add_sa(&outbound(0x1001)).unwrap();
    assert_eq!(mark(&second.controller, &outbound(0x1001)), 17 + LEASE);
    second.settle();
    second.controller.remove_sa(id).unwrap();
    second.settle();
    assert_eq!(mark(&second.controller, &outbound(0x1001)), 17);
    second.controller.add_sa(&outbound(0x1001)).unwrap();
    second.settle();
    assert_eq!(second.places(0x1001)[0].1, 17);
}

/// E21: numbers beyond 2^32 were used with ESN; without it the key is refused, and the mark stays
/// for the day ESN is on again.
#[test]
fn the_mark_never_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = stored(directory.path());
    let used = (1 << 32) + 5_000_000;
    let spec = outbound(0x1001);
    let store = lab.controller.leases.store().unwrap();
    store.record(&Fingerprint::of(&spec.keymat), used).unwrap();
    let error = lab.controller.add_sa(&spec).unwrap_err();
    assert!(matches!(error, ControlError::UsedUp { used: u, .. } if u == used), "{error}");
    assert_eq!(mark(&lab.controller, &spec), used);
    lab.controller.add_sa(&with_esn(spec.clone(), true)).unwrap();
    assert_eq!(mark(&lab.controller, &spec), used + LEASE);
}

/// E03: near the end of the number space the lease ends with it.
#[test]
fn a_lease_ends_with_the_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = stored(directory.path());
    let end = u64::from(u32::MAX);
    let spec = SaSpec { sequence: end - 10, ..outbound(0x1001) };
    let id = lab.controller.add_sa(&spec).unwrap();
    assert_eq!(mark(&lab.controller, &spec), end);
    lab.settle();
    lab.controller.leases.ask(id, end - 5);
    lab.controller.poll().unwrap();
    assert_eq!(mark(&lab.controller, &spec), end);
    let location = lab.controller.location(id).unwrap();
    lab.controller.record_last([(location, end)]).unwrap();
}

/// E21: a lease that cannot be written stops its own SA only, and is tried again.
#[test]
fn a_failing_lease_blocks_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = stored(directory.path());
    let specs = [0x1001, 0x1002, 0x1003].map(outbound);
    let ids = [0, 1, 2].map(|index| lab.controller.add_sa(&specs[index]).unwrap());
    lab.settle();
    let store = lab.controller.leases.store().unwrap();
    let obstacle = store.path(&Fingerprint::of(&specs[0].keymat)).with_extension("new");
    fs::create_dir(&obstacle).unwrap();
    for id in ids {
        lab.controller.leases.ask(id, LEASE / 2 + 3);
    }
    let marks = |lab: &Lab<RustCrypto>| [0, 1, 2].map(|at| mark(&lab.controller, &specs[at]));
    let next = LEASE / 2 + 3 + LEASE;
    for _ in 0..2 {
        assert!(matches!(lab.controller.poll(), Err(ControlError::Store(_))));
        assert_eq!(marks(&lab), [LEASE, next, next]);
    }
    fs::remove_dir(&obstacle).unwrap();
    lab.controller.poll().unwrap();
    assert_eq!(marks(&lab), [next; 3]);
}

/// Two outbound SAs with one key would share nonces: refused, also after the first is gone.
#[test]
fn a_key_seals_for_one_sa_only() {
    let mut lab = lab(2, 4);
    let id = lab.controller.add_sa(&outbound(0x1001)).unwrap();
    let same = SaSpec { spi: Spi::new(0x2002).unwrap(), ..outbound(0x1001) };
    assert!(matches!(lab.controller.add_sa(&same), Err(ControlError::KeyInUse)));
    lab.settle();
    lab.controller.remove_sa(id).unwrap();
    lab.settle();
    assert!(matches!(lab.controller.add_sa(&same), Err(ControlError::KeyInUse)));
    lab.controller.add_sa(&SaSpec { direction: Direction::Inbound, ..same }).unwrap();
}

/// An SA that is removed leaves its worker only when no worker looks for it any more, and its slot
/// goes to another one only then.
#[test]
fn removal_waits_for_every_worker() {
    let mut lab = lab(2, 1);
    let ids = [0x1001, 0x1002].map(|spi| lab.controller.add_sa(&inbound(spi)).unwrap());
    lab.settle();
    let owner = usize::from(lab.controller.location(ids[0]).unwrap().worker.0);
    lab.controller.remove_sa(ids[0]).unwrap();
    for _ in 0..5 {
        lab.step(&[owner]);
        assert_eq!(lab.places(0x1001).len(), 1, "the other worker may still look for it");
        let full = lab.controller.add_sa(&inbound(0x1003));
        assert!(matches!(full, Err(ControlError::Full(1))));
    }
    assert!(matches!(lab.controller.remove_sa(ids[0]), Err(ControlError::UnknownSa(_))));
    lab.settle();
    assert_eq!((lab.places(0x1001).len(), lab.places(0x1002).len()), (0, 1));
    let next = lab.controller.add_sa(&inbound(0x1003)).unwrap();
    lab.settle();
    assert_eq!(usize::from(lab.controller.location(next).unwrap().worker.0), owner);
    assert_eq!(lab.controller.ids().collect::<Vec<_>>(), [ids[1], next]);
}

/// The key of an SA that is gone is dropped by control, and by nobody later.
#[test]
fn a_removed_key_is_dropped() {
    let aead = Watched::default();
    let mut lab = Lab::new(&aead, 1, 4, None);
    let made = Arc::strong_count(&aead.0);
    let ids = [inbound(0x1001), outbound(0x1002)].map(|sa| lab.controller.add_sa(&sa).unwrap());
    lab.settle();
    assert_eq!(Arc::strong_count(&aead.0), made + 2);
    lab.controller.remove_sa(ids[0]).unwrap();
    lab.settle();
    assert_eq!(Arc::strong_count(&aead.0), made + 1);
    lab.controller.remove_sa(ids[1]).unwrap();
    lab.settle();
    assert_eq!(Arc::strong_count(&aead.0), made);
}

/// U12, U13, M09: the new outbound SA takes packets once every worker knows the new inbound one,
/// the old outbound SA goes once every worker knows the new one, the old inbound SA stays; numbers
/// start again.
#[test]
fn rekeying_makes_before_it_breaks() {
    let mut lab = lab(2, 8);
    let old_in = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    let spec = SaSpec { sequence: 4711, ..outbound(0x2001) };
    let old_out = lab.controller.add_sa(&spec).unwrap();
    lab.settle();
    assert_eq!(lab.controller.current(Group(0)), Some(old_out));
    let rekeyed = lab.controller.rekey(old_out, &inbound(0x1002), &outbound(0x2002));
    let (new_in, new_out) = rekeyed.unwrap();
    let owner = usize::from(lab.controller.records[&new_in].location.worker.0);
    for _ in 0..5 {
        // One worker has not taken up where the new inbound SA is.
        lab.step(&[owner]);
        assert_eq!(lab.controller.current(Group(0)), Some(old_out));
    }
    let mut seen = Vec::new();
    while !lab.controller.is_idle() {
        let known = lab.controller.is_known(new_in);
        let moved = lab.controller.current(Group(0)) == Some(new_out);
        let old_there = !lab.places(0x2001).is_empty();
        assert!(known || !moved, "outbound has moved before inbound is known");
        assert!(moved || old_there, "the old SA went before the new one took over");
        seen.push((known, moved, old_there));
        lab.step(&[0]);
        lab.step(&[1]);
    }
    assert!(seen.contains(&(true, true, true)), "{seen:?}");
    assert_eq!(lab.places(0x2001).len(), 0);
    assert_eq!((lab.places(0x1001).len(), lab.places(0x2002)[0].1), (1, 0));
    lab.controller.remove_sa(old_in).unwrap();
    lab.settle();
    assert_eq!(lab.controller.ids().collect::<Vec<_>>(), [new_in, new_out]);
}

/// U13: a responder's new outbound SA waits until it is activated.
#[test]
fn a_standby_sa_waits() {
    let mut lab = lab(1, 8);
    let old = lab.controller.add_sa(&outbound(0x2001)).unwrap();
    let new = lab.controller.add_standby(&outbound(0x2002)).unwrap();
    lab.settle();
    assert_eq!(lab.controller.current(Group(0)), Some(old));
    assert_eq!(lab.places(0x2002).len(), 1);
    lab.controller.activate(new, Some(old)).unwrap();
    lab.settle();
    assert_eq!(lab.controller.current(Group(0)), Some(new));
    assert_eq!(lab.controller.ids().collect::<Vec<_>>(), [new]);
    let inbound = lab.controller.add_standby(&inbound(0x1001));
    assert!(matches!(inbound, Err(ControlError::Inbound(_))));
}

/// A successor that goes before it has taken over leaves the old SA in service.
#[test]
fn a_lost_successor_changes_nothing() {
    let mut lab = lab(2, 8);
    let old = lab.controller.add_sa(&outbound(0x2001)).unwrap();
    lab.settle();
    let (new_in, new_out) = lab.controller.rekey(old, &inbound(0x1002), &outbound(0x2002)).unwrap();
    lab.controller.remove_sa(new_out).unwrap();
    lab.controller.remove_sa(new_in).unwrap();
    lab.settle();
    assert_eq!(lab.controller.current(Group(0)), Some(old));
    assert_eq!(lab.controller.ids().collect::<Vec<_>>(), [old]);
    // One that cannot be made at all leaves nothing behind.
    let failed = lab.controller.rekey(old, &inbound(0x1003), &outbound(0x2001));
    assert!(matches!(failed, Err(ControlError::KeyInUse)));
    lab.settle();
    assert_eq!(lab.controller.ids().collect::<Vec<_>>(), [old]);
}

/// E02: an SA moves to another worker with its counter; no moment has two owners, and the old slot
/// stays empty while any worker may look there.
#[test]
fn migration_moves_the_counter() {
    let mut lab = lab(2, 1);
    let spec = SaSpec { sequence: 4711, ..outbound(0x2001) };
    let id = lab.controller.add_sa(&spec).unwrap();
    lab.settle();
    let from = lab.controller.location(id).unwrap();
    let to = WorkerId(1 - from.worker.0);
    let (old, new) = (usize::from(from.worker.0), usize::from(to.0));
    lab.controller.migrate_sa(id, to).unwrap();
    assert!(matches!(lab.controller.migrate_sa(id, to), Err(ControlError::Moving(_))));
    assert_eq!(lab.controller.location(id), None);
    lab.step(&[new]);
    assert_eq!(lab.places(0x2001)[0].0, old, "not before the old owner has let go");
    lab.step(&[old]);
    assert_eq!(lab.places(0x2001), [], "in the mailbox of the new one");
    let (inbound, moves) = (false, [true, false].map(|given| (given, from)));
    let places = moves.map(|(given, at)| lab.workers[old].place(inbound, at, given).worker);
    assert_eq!(places, [to; 2], "the old owner hands on");
    lab.step(&[new]);
    assert_eq!(lab.places(0x2001), [(new, 4711, spec.destination)]);
    let places = moves.map(|(given, at)| lab.workers[new].place(inbound, at, given).worker);
    assert_eq!(places, [to, from.worker], "the new one takes what was handed on, and that only");
    lab.step(&[new]);
    let full = lab.controller.add_sa(&outbound(0x2002));
    assert!(matches!(full, Err(ControlError::Full(1))), "the old worker may look there");
    lab.settle();
    let other = lab.controller.add_sa(&outbound(0x2002)).unwrap();
    lab.settle();
    assert_eq!(lab.controller.location(other), Some(from));
    let places = moves.map(|(given, at)| lab.workers[new].place(inbound, at, given));
    assert_eq!(places, [from; 2], "the move is forgotten");
    let gone = lab.controller.migrate_sa(id, WorkerId(9));
    assert!(matches!(gone, Err(ControlError::UnknownWorker(_))));
}

/// Rules of NICs learn where inbound SAs of ESP come to live, move, and that they are gone.
#[test]
fn places_are_told() {
    let mut lab = lab(2, 2);
    lab.controller.follow_placements();
    let id = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    lab.controller.add_sa(&outbound(0x2001)).unwrap();
    lab.controller.add_sa(&encapsulated(inbound(0x1002))).unwrap();
    lab.settle();
    let at = lab.controller.location(id).unwrap().worker;
    let place = |worker| {
        let (spi, destination) = (0x1001, inbound(0x1001).destination);
        Placement { id, spi, destination, worker }
    };
    assert_eq!(lab.controller.take_placements(), [place(Some(at))]);
    let to = WorkerId(1 - at.0);
    lab.controller.migrate_sa(id, to).unwrap();
    lab.settle();
    assert_eq!(lab.controller.take_placements(), [place(Some(to))]);
    lab.controller.remove_sa(id).unwrap();
    lab.settle();
    assert_eq!(lab.controller.take_placements(), [place(None)]);
}

/// What is removed on its way to another worker arrives nowhere, and both slots are free.
#[test]
fn removal_during_migration() {
    let mut lab = lab(2, 1);
    let id = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    lab.settle();
    let from = lab.controller.location(id).unwrap().worker;
    lab.controller.migrate_sa(id, WorkerId(1 - from.0)).unwrap();
    lab.controller.remove_sa(id).unwrap();
    let again = lab.controller.add_sa(&inbound(0x1001));
    assert!(matches!(again, Err(ControlError::Full(_))), "the SPI is free, the slots are not");
    lab.settle();
    assert_eq!((lab.places(0x1001).len(), lab.controller.ids().count()), (0, 0));
    for spi in [0x1001, 0x1002] {
        lab.controller.add_sa(&inbound(spi)).unwrap();
    }
}

/// A lease that is granted while the SA is on its way arrives with it.
#[test]
fn a_lease_follows_its_sa() {
    let directory = tempfile::tempdir().unwrap();
    let mut lab = stored(directory.path());
    let id = lab.controller.add_sa(&outbound(0x2001)).unwrap();
    lab.settle();
    let to = WorkerId(1 - lab.controller.location(id).unwrap().worker.0);
    lab.controller.migrate_sa(id, to).unwrap();
    lab.controller.leases.ask(id, 5);
    lab.settle();
    let location = lab.controller.location(id).unwrap();
    assert_eq!((location.worker, lab.controller.leases.ceiling(id)), (to, Some(LEASE + 5)));
    lab.controller.record_last([(location, LEASE + 5)]).unwrap();
}

fn encapsulated(spec: SaSpec) -> SaSpec {
    let ports = Encapsulation { source_port: 4500, destination_port: 4500 };
    SaSpec { encapsulation: Some(ports), ..spec }
}

/// U10: an outbound SA is sent elsewhere, at once or, while it is on its way, on arrival.
#[test]
fn packets_follow_the_peer() {
    let mut lab = lab(2, 8);
    let incoming = lab.controller.add_sa(&encapsulated(inbound(0x1001))).unwrap();
    let id = lab.controller.add_sa(&encapsulated(outbound(0x2001))).unwrap();
    let plain = lab.controller.add_sa(&outbound(0x2002)).unwrap();
    lab.settle();
    let old = Peer { address: "192.0.2.2".parse().unwrap(), port: 4500 };
    let new = Peer { address: "198.51.100.7".parse().unwrap(), port: 61000 };
    assert_eq!(lab.controller.follow_mapping(incoming, old, new).unwrap(), 1);
    lab.settle();
    assert_eq!(lab.places(0x2001)[0].2, new.address);
    assert_eq!(lab.places(0x2002)[0].2, old.address, "the other one is not encapsulated");
    let to = WorkerId(1 - lab.controller.location(id).unwrap().worker.0);
    lab.controller.migrate_sa(id, to).unwrap();
    lab.controller.retarget(id, old).unwrap();
    lab.settle();
    assert_eq!(lab.places(0x2001), [(usize::from(to.0), 0, old.address)]);
    let six = Peer { address: "2001:db8::7".parse().unwrap(), port: 4500 };
    let error = lab.controller.retarget(plain, six);
    assert!(matches!(error, Err(ControlError::Endpoints(FamilyMismatch(..)))));
    assert!(matches!(lab.controller.retarget(incoming, old), Err(ControlError::Inbound(_))));
}

/// U10: what IKE learns of a peer moves all SAs of its path; those made then share it.
#[test]
fn a_path_moves_as_one() {
    let mut lab = lab(1, 8);
    let home = inbound(0x1001);
    let from_peer = SaSpec { source: home.destination, destination: home.source, ..home };
    let first = lab.controller.add_sa(&encapsulated(from_peer)).unwrap();
    lab.controller.add_sa(&encapsulated(outbound(0x2001))).unwrap();
    let new = Peer { address: "198.51.100.7".parse().unwrap(), port: 61000 };
    lab.controller.move_peer(first, new).unwrap();
    let ports = Some(Encapsulation { source_port: 4500, destination_port: 61000 });
    let spec = SaSpec { destination: new.address, encapsulation: ports, ..outbound(0x2002) };
    lab.controller.add_sa(&spec).unwrap();
    lab.settle();
    assert_eq!(lab.places(0x2001)[0].2, new.address);
    let newer = Peer { address: "198.51.100.8".parse().unwrap(), port: 61001 };
    assert_eq!(lab.controller.follow_mapping(first, new, newer).unwrap(), 2);
    lab.settle();
    assert_eq!([0x2001, 0x2002].map(|spi| lab.places(spi)[0].2), [newer.address; 2]);
}

/// M02, M05: SAs of single workers live there and nowhere else, beside one for all others.
#[test]
fn resource_sas_are_bound() {
    let mut lab = lab(3, 2);
    let fallback = lab.controller.add_sa(&outbound(0x2001)).unwrap();
    let bound = |worker, spi| SaSpec { resource: Some(WorkerId(worker)), ..outbound(spi) };
    let own = [1, 2]
        .map(|worker| lab.controller.add_sa(&bound(worker, 0x2001 + u32::from(worker))).unwrap());
    lab.settle();
    assert_eq!(lab.controller.current(Group(0)), Some(fallback));
    for (id, worker) in own.into_iter().zip([1, 2]) {
        assert_eq!(lab.controller.location(id).unwrap().worker, WorkerId(worker));
        assert!(matches!(lab.controller.migrate_sa(id, WorkerId(0)), Err(ControlError::Bound(_))));
    }
    let members =
        |lab: &Lab<RustCrypto>| lab.controller.snapshot().groups.get(&Group(0)).unwrap().clone();
    assert_eq!(members(&lab).own.len(), 2);
    lab.controller.remove_sa(own[0]).unwrap();
    lab.settle();
    let left = members(&lab);
    assert_eq!((left.own.len(), left.shared.is_some()), (1, true));
    assert_eq!(lab.places(0x2003)[0].0, 2);
    let nowhere = lab.controller.add_sa(&bound(3, 0x2009));
    assert!(matches!(nowhere, Err(ControlError::UnknownWorker(_))));
}

/// P28: the SAs of a bundle are put on one worker, in the order in which they are applied.
#[test]
fn a_bundle_lives_on_one_worker() {
    let mut lab = lab(3, 4);
    lab.controller.set_bundle(Group(10), &[Group(1), Group(2)]).unwrap();
    let of = |group, spi| SaSpec { group: Group(group), ..outbound(spi) };
    lab.controller.add_sa(&of(2, 0x2002)).unwrap();
    lab.controller.add_sa(&of(3, 0x2003)).unwrap();
    lab.settle();
    assert!(!lab.controller.snapshot().groups.contains_key(&Group(10)), "an SA is missing");
    let inner = lab.controller.add_sa(&of(1, 0x2001)).unwrap();
    lab.settle();
    let place = |spi| lab.places(spi)[0].0;
    assert_eq!(place(0x2001), place(0x2002));
    assert_ne!(place(0x2003), place(0x2002));
    let bundle = lab.controller.snapshot().groups.get(&Group(10)).unwrap().shared.unwrap();
    assert_eq!((usize::from(bundle.worker.0), bundle.slots()), (place(0x2001), &[1, 0][..]));
    let other = WorkerId(u8::from(bundle.worker.0 == 0));
    assert!(matches!(lab.controller.migrate_sa(inner, other), Err(ControlError::Bound(_))));
}

/// U12, U13: policies that name an SA by its SPI find it under a group of its own, beside the group
/// of them all. When it is rekeyed, each keeps its own for as long as it lives: there is no moment
/// in which a policy that names either finds nothing.
#[test]
fn an_alias_names_one_sa() {
    let mut lab = lab(2, 8);
    let named = |alias, spi| SaSpec { alias: Some(Group(alias)), ..outbound(spi) };
    let old = lab.controller.add_sa(&named(11, 0x2001)).unwrap();
    let bound = SaSpec { resource: Some(WorkerId(1)), ..named(13, 0x2003) };
    let own = lab.controller.add_sa(&bound).unwrap();
    lab.settle();
    let of = |lab: &Lab<RustCrypto>, group| lab.controller.current(Group(group));
    assert_eq!(
        [0, 11, 13, 12].map(|group| of(&lab, group)),
        [Some(old), Some(old), Some(own), None]
    );
    let at = lab.controller.location(own).unwrap();
    let snapshot = lab.controller.snapshot();
    assert_eq!(snapshot.groups.get(&Group(13)), Some(&Members::shared(at)), "also for others");
    let twin = SaSpec { alias: Some(Group(99)), ..inbound(0x1002) };
    let (_, new) = lab.controller.rekey(old, &twin, &named(12, 0x2002)).unwrap();
    let mut seen = BTreeSet::new();
    while !lab.controller.is_idle() {
        let named = [0, 11, 12, 99].map(|group| of(&lab, group));
        let is_old_named = lab.controller.records.contains_key(&old) && named[1] == Some(old);
        assert!(named[2] == Some(new) || is_old_named, "policies of both must never fail");
        seen.insert(named);
        lab.step(&[0]);
        lab.step(&[1]);
    }
    let steps = [[Some(old), Some(old), None, None], [Some(new), Some(old), Some(new), None]];
    assert!(steps.iter().all(|step| seen.contains(step)), "{seen:?}");
    assert_eq!([0, 11, 12].map(|group| of(&lab, group)), [Some(new), None, Some(new)]);
}

/// An SA that is there gets an alias, or another one, and is what its group means as well; not if a
/// bundle wants the group on another worker, and not if it is inbound.
#[test]
fn an_alias_may_come_later() {
    let mut lab = lab(2, 8);
    let ids = [0x2001, 0x2002].map(|spi| lab.controller.add_sa(&outbound(spi)).unwrap());
    let incoming = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    // While it is on its way, and once it is there.
    lab.controller.set_alias(ids[0], Group(11)).unwrap();
    lab.settle();
    lab.controller.set_alias(ids[1], Group(12)).unwrap();
    lab.settle();
    let of =
        |lab: &Lab<RustCrypto>| [0, 11, 12, 13].map(|group| lab.controller.current(Group(group)));
    assert_eq!(of(&lab), [Some(ids[1]), Some(ids[0]), Some(ids[1]), None]);
    let known = lab.controller.snapshot().groups.len();
    lab.controller.set_alias(ids[1], Group(13)).unwrap();
    lab.settle();
    assert_eq!(of(&lab), [Some(ids[1]), Some(ids[0]), None, Some(ids[1])]);
    assert_eq!(lab.controller.snapshot().groups.len(), known);
    let home = lab.controller.location(ids[0]).unwrap().worker;
    assert_ne!(lab.controller.location(ids[1]).unwrap().worker, home);
    lab.controller.set_bundle(Group(10), &[Group(11), Group(14)]).unwrap();
    let apart = lab.controller.set_alias(ids[1], Group(14));
    assert!(matches!(apart, Err(ControlError::Apart(..))), "{apart:?}");
    lab.settle();
    assert_eq!(of(&lab), [Some(ids[1]), Some(ids[0]), None, Some(ids[1])]);
    let refused = lab.controller.set_alias(incoming, Group(15));
    assert!(matches!(refused, Err(ControlError::Inbound(_))), "{refused:?}");
}

/// P28: a bundle may mean something else later, and go; SAs that are there are no obstacle when
/// they share a worker, or are moved to one first. An alias may be part of a bundle.
#[test]
fn bundles_change_and_go() {
    let mut lab = lab(2, 8);
    let of = |group, spi| SaSpec { group: Group(group), ..outbound(spi) };
    let ids = [(1, 0x2001), (2, 0x2002)].map(|(group, spi)| {
        let spec = SaSpec { alias: Some(Group(group + 100)), ..of(group, spi) };
        lab.controller.add_sa(&spec).unwrap()
    });
    lab.settle();
    let parts = [Group(101), Group(2)];
    let apart = lab.controller.set_bundle(Group(10), &parts);
    assert!(matches!(apart, Err(ControlError::Apart(..))), "{apart:?}");
    let home = lab.controller.location(ids[0]).unwrap().worker;
    lab.controller.migrate_sa(ids[1], home).unwrap();
    lab.controller.set_bundle(Group(10), &parts).unwrap();
    lab.settle();
    let slots = |lab: &Lab<RustCrypto>, group| {
        let members = lab.controller.snapshot().groups.get(&Group(group)).cloned();
        members.and_then(|members| members.shared).map(|bundle| bundle.slots().to_vec())
    };
    assert_eq!(slots(&lab, 10).map(|slots| slots.len()), Some(2));
    let away = WorkerId(1 - home.0);
    assert!(matches!(lab.controller.migrate_sa(ids[0], away), Err(ControlError::Bound(_))));
    lab.controller.add_sa(&of(1, 0x2003)).unwrap();
    lab.controller.add_sa(&of(3, 0x2004)).unwrap();
    lab.controller.set_bundle(Group(10), &[Group(1)]).unwrap();
    lab.settle();
    assert_eq!(slots(&lab, 10), slots(&lab, 1));
    assert!(lab.controller.remove_group_bundle(Group(10)));
    assert!(!lab.controller.remove_group_bundle(Group(10)));
    lab.settle();
    assert_eq!((slots(&lab, 10), slots(&lab, 1).is_some()), (None, true));
    lab.controller.migrate_sa(ids[0], away).unwrap();
    lab.settle();
    assert_eq!(lab.controller.location(ids[0]).unwrap().worker, away);
}

/// An SA is told about wherever it is: at its worker, on its way to another, and on its way out;
/// others are not.
#[test]
fn an_sa_is_inspected_wherever_it_is() {
    let mut lab = lab(2, 8);
    let out = lab.controller.add_sa(&SaSpec { sequence: 4711, ..outbound(0x2001) }).unwrap();
    let of_twelve = SaSpec { sequence: 12, replay_window: 128, ..inbound(0x1001) };
    let incoming = lab.controller.add_sa(&of_twelve).unwrap();
    for id in [out, incoming] {
        lab.controller.inspect(id).unwrap();
        assert_eq!(lab.controller.take_inspection(id), None);
    }
    lab.settle();
    let seen = lab.controller.take_inspection(out).unwrap();
    let used = (seen.first_used, seen.last_used, seen.packets, seen.bytes);
    assert_eq!(
        (seen.inbound, seen.sequence, seen.window, used),
        (false, 4711, None, (None, None, 0, 0))
    );
    let window = lab.controller.take_inspection(incoming).unwrap().window.unwrap();
    assert_eq!((window.top(), window.size(), window.was_seen(12)), (12, 128, true));
    assert_eq!(lab.controller.take_inspection(incoming), None, "it is told once");
    let to = WorkerId(1 - lab.controller.location(out).unwrap().worker.0);
    lab.controller.migrate_sa(out, to).unwrap();
    lab.controller.inspect(out).unwrap();
    lab.settle();
    assert_eq!(lab.controller.take_inspection(out).unwrap().sequence, 4711);
    lab.controller.migrate_sa(out, WorkerId(1 - to.0)).unwrap();
    lab.controller.inspect(out).unwrap();
    lab.controller.remove_sa(out).unwrap();
    assert!(matches!(lab.controller.inspect(out), Err(ControlError::UnknownSa(_))));
    lab.settle();
    assert_eq!(lab.controller.take_inspection(out).unwrap().sequence, 4711);
}

/// What is left of an SA that went is told once; what nobody takes does not pile up.
#[test]
fn the_retired_are_told() {
    let mut lab = lab(1, 4);
    let ids = [SaSpec { sequence: 4711, ..outbound(0x2001) }, inbound(0x1001)]
        .map(|spec| lab.controller.add_sa(&spec).unwrap());
    lab.settle();
    assert_eq!(lab.controller.take_retired(), []);
    ids.iter().for_each(|&id| lab.controller.remove_sa(id).unwrap());
    lab.settle();
    let mut retired = lab.controller.take_retired();
    retired.sort_by_key(|retired| retired.id);
    let told: Vec<_> =
        retired.iter().map(|sa| (sa.id, sa.direction, sa.spi, sa.sequence)).collect();
    let expected =
        [(ids[0], Direction::Outbound, 0x2001, 4711), (ids[1], Direction::Inbound, 0x1001, 0)];
    assert_eq!(told, expected);
    let window = retired[1].window.as_ref().unwrap();
    assert_eq!((window.top(), window.size(), retired[0].window.is_none()), (0, 1024, true));
    assert_eq!(lab.controller.take_retired(), []);
}

/// I04, P13: an SPI may come again for other destinations; two SAs that the same packets would find
/// are refused, until the first one goes.
#[test]
fn an_spi_is_claimed_once() {
    let mut lab = lab(1, 8);
    let id = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    let elsewhere = SaSpec { destination: "192.0.2.3".parse().unwrap(), ..inbound(0x1001) };
    lab.controller.add_sa(&elsewhere).unwrap();
    let error = lab.controller.add_sa(&inbound(0x1001));
    assert!(matches!(error, Err(ControlError::DuplicateSpi(_))));
    lab.controller.remove_sa(id).unwrap();
    let again = lab.controller.add_sa(&inbound(0x1001)).unwrap();
    lab.settle();
    assert_eq!(lab.controller.find(Direction::Inbound, 0x1001), Some(again));
    assert_eq!(lab.places(0x1001).len(), 2);
}

/// I21, A06: without a window there is nothing to tell the halves of extended numbers by, neither
/// in ESP nor in AH.
#[test]
fn esn_needs_a_window() {
    let mut lab = lab(1, 2);
    let algorithm = Algorithm::AhSha256;
    let ah = SaSpec { algorithm, keymat: Keymat::new(vec![9; 32]), ..inbound(0x1002) };
    for spec in [inbound(0x1001), ah] {
        let spec = SaSpec { replay_window: 0, esn: true, ..spec };
        assert!(matches!(lab.controller.add_sa(&spec), Err(ControlError::EsnWithoutWindow)));
        lab.controller.add_sa(&SaSpec { esn: false, ..spec }).unwrap();
    }
}

/// SAs that come without end do not put off those that have arrived.
#[test]
fn a_storm_does_not_starve_publication() {
    let mut lab = lab(2, 64);
    let first = lab.controller.add_sa(&inbound(0x1000)).unwrap();
    for spi in 0x1001..0x1020 {
        lab.step(&[0, 1]);
        lab.controller.add_sa(&inbound(spi)).unwrap();
    }
    assert!(lab.controller.is_known(first));
    lab.settle();
    assert!(lab.controller.ids().all(|id| lab.controller.is_known(id)));
}

/// News name the SA that had the slot, and are bounded.
#[test]
fn news_name_their_sa() {
    let mut lab = lab(1, 4);
    let ids = [inbound(0x1001), outbound(0x2001)].map(|sa| lab.controller.add_sa(&sa).unwrap());
    lab.settle();
    let peer = Peer { address: "192.0.2.2".parse().unwrap(), port: 1 };
    let mapping = Notice::Mapping { slot: 0, spi: 0x1001, old: peer, new: peer };
    let path = Notice::PathMtu { slot: 0, spi: 0x2001, mtu: None };
    lab.controller.note(0, mapping);
    lab.controller.note(0, path);
    let (news, lost) = lab.controller.take_news();
    let named: Vec<_> = news.iter().map(|news| (news.sa, news.notice)).collect();
    assert_eq!(named, [(Some(ids[0]), mapping), (Some(ids[1]), path)]);
    assert_eq!(lost, 0);
    (0..NEWS_MAX + 3).for_each(|_| lab.controller.note(0, path));
    let (news, lost) = lab.controller.take_news();
    assert_eq!((news.len(), lost), (NEWS_MAX, 3));
}

/// U09b: no packet is ever encapsulated on port 500: neither by an SA that is added so, nor by one
/// whose peer is said to be there.
#[test]
fn nothing_is_encapsulated_on_port_500() {
    let mut lab = lab(1, 8);
    for (source_port, destination_port) in [(500, 4500), (4500, 500)] {
        let ports = Some(Encapsulation { source_port, destination_port });
        for spec in [inbound(0x1001), outbound(0x2001)] {
            let added = lab.controller.add_sa(&SaSpec { encapsulation: ports, ..spec });
            assert!(matches!(added, Err(ControlError::IkePort)));
        }
    }
    let incoming = lab.controller.add_sa(&encapsulated(inbound(0x1001))).unwrap();
    let id = lab.controller.add_sa(&encapsulated(outbound(0x2001))).unwrap();
    lab.settle();
    let old = Peer { address: "192.0.2.2".parse().unwrap(), port: 4500 };
    let ike = Peer { address: "198.51.100.7".parse().unwrap(), port: 500 };
    assert!(matches!(lab.controller.retarget(id, ike), Err(ControlError::IkePort)));
    let followed = lab.controller.follow_mapping(incoming, old, ike);
    assert!(matches!(followed, Err(ControlError::IkePort)));
    assert!(matches!(lab.controller.move_peer(incoming, ike), Err(ControlError::IkePort)));
    lab.settle();
    assert_eq!(lab.places(0x2001)[0].2, old.address, "it stays where it was");
}

/// AH has no dummy packets.
#[test]
fn ah_has_no_dummies() {
    let mut lab = lab(1, 8);
    let sending = Sending { dummy_interval: Some(1), ..Sending::default() };
    let algorithm = Algorithm::AhSha256;
    let keymat = Keymat::new(vec![7; algorithm.keymat_len()]);
    let spec = SaSpec { algorithm, keymat, sending, ..outbound(0x2001) };
    assert!(matches!(lab.controller.add_sa(&spec), Err(ControlError::DummiesOfAh)));
    let quiet = SaSpec { sending: Sending::default(), ..spec };
    lab.controller.add_sa(&quiet).unwrap();
}
