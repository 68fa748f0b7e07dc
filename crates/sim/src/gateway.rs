//! A whole gateway in memory: the real controller and the real workers, stepped by hand on one
//! thread. Only I/O and time are replaced.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use culvert_aead::Aead;
use culvert_control::ControlError;
use culvert_control::Controller;
use culvert_control::SaSpec;
use culvert_control::SequenceStore;
use culvert_control::WorkerHandle;
use culvert_control::sequence_store::Marks;
use culvert_engine::Counters;
use culvert_engine::Crew;
use culvert_engine::Handoff;
use culvert_engine::NextHops;
use culvert_engine::Options;
use culvert_engine::PortConfig;
use culvert_engine::Worker;
use culvert_engine::WorkerConfig;
use culvert_engine::WorkerId;
use culvert_engine::crew::Helper;
use culvert_engine::crew::Lending;
use culvert_engine::handoff::Wake;
use culvert_engine::mailbox::mailbox;
use culvert_engine::tables::SaSample;
use culvert_frame::Batch;
use culvert_frame::FreeFrame;
use culvert_frame::MemIo;
use culvert_frame::PacketIo;
use culvert_frame::Port;
use culvert_frame::Region;
use culvert_spd::Group;
use culvert_spd::Spd;

use crate::random::Random;

/// Packets a ring between workers holds, unless something else is asked for.
const HANDOFF_CAPACITY: usize = 256;

/// Commands a mailbox holds, unless something else is asked for.
const MAILBOX_CAPACITY: usize = 256;

/// Turns that settle anything: commands are bounded by the mailbox, which is emptied each turn.
const SETTLE_TURNS_MAX: usize = 1 << 20;

/// What a gateway is made of.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// Number of workers.
    pub workers: usize,
    /// Frames of each worker.
    pub frames: usize,
    /// Runs of frames of each worker, for packets larger than a frame.
    pub runs: usize,
    /// Ports, the same for all workers.
    pub ports: Vec<PortConfig>,
    /// SA bundles: a group, and those of its SAs, innermost first.
    pub bundles: Vec<(Group, Vec<Group>)>,
    /// SAs in the order of installation.
    pub sas: Vec<SaSpec>,
    /// Policies.
    pub spd: Spd,
    /// What the gateway does beyond its SAs; the number of workers is filled in.
    pub options: Options,
    /// Where outbound sequence numbers are leased, if they are.
    pub marks: Option<Marks>,
    /// Time at which it begins, in nanoseconds.
    pub started_at: u64,
    /// Workers help one another, with every SA of ESP.
    pub spread: Option<Spread>,
}

/// How workers help one another.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// When packets are lent.
    pub lending: Lending,
    /// Helpers besides the workers, which act while a worker turns, in an order drawn from a seed.
    pub helpers: Option<(usize, u64)>,
}

impl Spread {
    /// The ends of the workers.
    fn crew<A: Aead + Clone + Send + 'static>(
        &self,
        wakers: &[Arc<dyn Wake>],
        aead: &A,
    ) -> Vec<Crew<A::Key>> {
        let Some((count, seed)) = self.helpers else {
            return Crew::of(wakers, self.lending);
        };
        let nobody = (0..count).map(|_| Arc::new(NobodySleeps) as Arc<dyn Wake>);
        let all: Vec<Arc<dyn Wake>> = wakers.iter().cloned().chain(nobody).collect();
        let mut ends = Crew::of(&all, self.lending);
        let helpers = ends.split_off(wakers.len()).into_iter();
        let helpers: Vec<Helper<A>> = helpers.map(|end| Helper::new(end, aead.clone())).collect();
        let helpers = Arc::new(Mutex::new((helpers, Random::new(seed))));
        for end in &mut ends {
            let helpers = Arc::clone(&helpers);
            end.set_pace(move || {
                let mut helpers = helpers.lock().unwrap_or_else(PoisonError::into_inner);
                let (helpers, random) = &mut *helpers;
                for _ in 0..random.below(8) {
                    let helper = random.index(helpers.len());
                    helpers[helper].step();
                }
            });
        }
        ends
    }
}

/// How much room a gateway has for what is on its way.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Packets each ring between workers holds.
    pub handoff: usize,
    /// Commands each mailbox holds.
    pub mailbox: usize,
    /// Slots for SAs beside those it starts with, each worker and direction.
    pub spare_slots: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { handoff: HANDOFF_CAPACITY, mailbox: MAILBOX_CAPACITY, spare_slots: 0 }
    }
}

/// A gateway in memory.
#[derive(Debug)]
pub struct Gateway<A: Aead> {
    /// Control.
    pub controller: Controller<A>,
    /// Workers, by number.
    pub workers: Vec<Worker<A, MemIo>>,
}

/// Frames for gateways that come and go: a region is leaked, so a program that makes thousands of
/// gateways has their frames from one.
#[derive(Debug)]
pub struct FramePool {
    region: &'static Region,
    free: Vec<FreeFrame>,
    runs: Vec<FreeFrame>,
}

impl FramePool {
    /// A pool of `frames` frames in a region of its own.
    ///
    /// # Panics
    /// When `frames` is zero.
    #[must_use]
    pub fn new(frames: usize) -> FramePool {
        FramePool::with_runs(frames, 0)
    }

    /// A pool of `frames` frames and `runs` runs in a region of its own.
    ///
    /// # Panics
    /// When `frames` is zero.
    #[must_use]
    pub fn with_runs(frames: usize, runs: usize) -> FramePool {
        let (region, mut free) = Region::leak_with_runs(frames, runs);
        let runs = free.split_off(frames);
        FramePool { region, free, runs }
    }

    /// A pool for one gateway.
    ///
    /// # Panics
    /// When the gateway has no worker or no frame.
    #[must_use]
    pub fn of(config: &GatewayConfig) -> FramePool {
        FramePool::with_runs(config.workers * config.frames, config.workers * config.runs)
    }

    /// Frames that no gateway has.
    #[must_use]
    pub fn free_frames(&self) -> usize {
        self.free.len()
    }

    fn take(&mut self, frames: usize, runs: usize) -> Vec<FreeFrame> {
        let take = |of: &mut Vec<FreeFrame>, count| {
            let rest = of.len().checked_sub(count);
            of.split_off(rest.expect("the pool has frames for this gateway"))
        };
        let mut taken = take(&mut self.free, frames);
        taken.extend(take(&mut self.runs, runs));
        taken
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        let all = self.free.drain(..).chain(self.runs.drain(..));
        all.for_each(|frame| _ = self.region.release_free(frame));
    }
}

struct NobodySleeps;

impl Wake for NobodySleeps {
    fn wake(&self) {}
}

impl<A: Aead + Clone + Send + 'static> Gateway<A> {
    /// Builds the gateway and installs everything; when this returns, workers know it all.
    ///
    /// # Errors
    /// When an SA is impossible.
    pub fn new(
        config: &GatewayConfig,
        aead: &A,
        next_hops: NextHops,
    ) -> Result<Gateway<A>, ControlError> {
        let mut pool = FramePool::of(config);
        Gateway::in_pool(config, aead, next_hops, &mut pool, Room::default())
    }

    /// Like [`new`](Self::new), with frames from `pool`, and so much room for what is on its way.
    ///
    /// # Errors
    /// When an SA is impossible.
    ///
    /// # Panics
    /// When the pool has too few frames.
    pub fn in_pool(
        config: &GatewayConfig,
        aead: &A,
        next_hops: NextHops,
        pool: &mut FramePool,
        room: Room,
    ) -> Result<Gateway<A>, ControlError> {
        let slots = config.sas.len().max(1) + room.spare_slots;
        let wakers: Vec<Arc<dyn Wake>> =
            (0..config.workers).map(|_| Arc::new(NobodySleeps) as Arc<dyn Wake>).collect();
        let inbound = Handoff::mesh(&wakers, room.handoff);
        let outbound = Handoff::mesh(&wakers, room.handoff);
        let mut workers: Vec<Worker<A, MemIo>> = Vec::with_capacity(config.workers);
        let mut handles = Vec::with_capacity(config.workers);
        for ((id, inbound), outbound) in (0u8..).zip(inbound).zip(outbound) {
            let (worker_end, control_end) = mailbox(room.mailbox);
            let io = MemIo::with_frames(pool.region, pool.take(config.frames, config.runs));
            let count = u8::try_from(config.workers).expect("at most 255 workers");
            let options = Options { workers: count, ..config.options };
            let ports = config.ports.clone();
            let worker_config = WorkerConfig { id: WorkerId(id), ports, slots, options };
            let worker =
                Worker::new(&worker_config, aead.clone(), io, worker_end, inbound, outbound);
            handles.push(WorkerHandle {
                mailbox: control_end,
                wake: Arc::new(NobodySleeps),
                counters: worker.shared_counters(),
            });
            workers.push(worker);
        }
        let store = config.marks.clone().map(SequenceStore::in_memory);
        let mut controller = Controller::new(aead.clone(), handles, slots, store);
        if let Some(spread) = &config.spread {
            controller.set_lending(true);
            let ends = spread.crew(&wakers, aead);
            workers.iter_mut().zip(ends).for_each(|(worker, crew)| worker.join(crew));
        }
        for (bundle, parts) in &config.bundles {
            controller.set_bundle(*bundle, parts)?;
        }
        for sa in &config.sas {
            controller.add_sa(sa)?;
        }
        controller.set_policies(&config.spd);
        controller.set_next_hops(next_hops);
        let mut gateway = Gateway { controller, workers };
        gateway.settle_at(config.started_at)?;
        Ok(gateway)
    }
}

impl<A: Aead> Gateway<A> {
    /// Turns controller and workers, at time 0 and without packets, until control has nothing left
    /// to say.
    ///
    /// # Errors
    /// What [`Controller::poll`] reports.
    ///
    /// # Panics
    /// When it does not come to rest: our own error.
    pub fn settle(&mut self) -> Result<(), ControlError> {
        self.settle_at(0)
    }

    fn settle_at(&mut self, now: u64) -> Result<(), ControlError> {
        for _ in 0..SETTLE_TURNS_MAX {
            self.controller.poll()?;
            if self.controller.is_idle() {
                self.workers.iter_mut().for_each(|worker| _ = worker.turn(now));
                return self.controller.poll();
            }
            self.workers.iter_mut().for_each(|worker| _ = worker.turn(now));
        }
        panic!("control does not come to rest");
    }

    /// Frames that are neither free nor in the queues of ports: on hold, fragments, on their way
    /// between workers.
    #[must_use]
    pub fn frames_inside(&self) -> usize {
        self.workers.iter().map(Worker::frames_outside_io).sum()
    }

    /// Loses whatever is in the queues of ports, as a gateway does that stops. False, and nothing
    /// is lost, while something is elsewhere: on hold, or on its way between workers.
    pub fn lose_queues(&mut self, ports: &[Port]) -> bool {
        if self.workers.iter().any(|worker| worker.frames_outside_io() > 0) {
            return false;
        }
        let mut batch = Batch::new();
        for worker in &mut self.workers {
            let io = worker.io_mut();
            for &port in ports {
                io.recv(port, &mut batch);
                while !batch.is_empty() {
                    batch.drain(..).for_each(|packet| io.recycle(packet.into_free()));
                    io.recv(port, &mut batch);
                }
                while io.take_sent_bytes(port).is_some() {}
            }
        }
        true
    }

    /// Gives the free frames of all workers back to the pool they came from. Frames in use are
    /// lost to it.
    pub fn dissolve(mut self, pool: &mut FramePool) {
        for worker in &mut self.workers {
            let io = worker.io_mut();
            pool.free.extend(std::iter::from_fn(|| io.take_free()));
            pool.runs.extend(std::iter::from_fn(|| io.take_run()));
        }
    }

    /// The counters of all workers together.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let zero = Counters::default();
        self.workers.iter().fold(zero, |sum, worker| sum.plus(worker.counters()))
    }

    /// What each SA did.
    pub fn samples(&self) -> impl Iterator<Item = SaSample> {
        self.workers.iter().flat_map(Worker::samples)
    }
}
