//! One SA over several workers: its owner lends packets to workers that have nothing to do.
//!
//! An SA lives in one worker, which is what makes sequence numbers and the replay decision exact
//! without locks, and what bounds a single SA to one core. Of what the owner does, only pass 2 is
//! long, and it needs neither number nor window: only the packet, the key and the high half of its
//! number. So passes 1 and 3 stay with the owner, in order, and pass 2 is shared out:
//!
//! 1. the owner moves the last packets of its batch into chunks, and these onto its desk:
//!    as many as helpers took lately, and one chunk more;
//! 2. any worker of the crew that is between two steps of its turn takes chunks from desks of
//!    others, the last one first, seals or opens them, and puts them back;
//! 3. the owner does the packets it kept, then takes what still lies on its desk, the first chunk
//!    first, so that it never waits for somebody to begin; then it waits for chunks that are in the
//!    hands of others;
//! 4. every packet is at its place in the batch again, with its status, and pass 3 begins.
//!
//! So a slow helper makes an owner wait, for one chunk at most, and cannot reorder anything: order
//! is that of the batch. A packet that is lent leaves a vacant token behind; the token itself is
//! moved, so at no time do two workers have one frame. The key is shared for reading; the owner
//! keeps a reference while packets are away, so helpers never free one.
//!
//! Chunks are made at the start and go round: nothing is allocated here, and there is no lock: a
//! place on the desk is one word that is exchanged. Owner and helpers begin at different ends, so
//! that the lines of cache they both write are few.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Release;

use arrayvec::ArrayVec;
use crossbeam::atomic::AtomicCell;
use crossbeam::utils::CachePadded;
use culvert_aead::Aead;
use culvert_aead::Op;
use culvert_aead::Status;
use culvert_frame::BATCH;
use culvert_frame::Packet;
use culvert_frame::prefetch_to_write;

use crate::handoff::Wake;

/// Packets of a chunk at most: few, since the owner may have to wait for one chunk.
const CHUNK: usize = 8;

/// When packets are lent: to move their lines of cache to another core and back costs time as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lending {
    /// Octets that the packets of a batch must have on average.
    pub packet_octets: usize,
    /// Octets behind which a chunk takes no further packet. A batch of less than two such chunks is
    /// not shared out.
    pub chunk_octets: usize,
}

impl Lending {
    /// For packets of so many octets on average.
    #[must_use]
    pub fn from_octets(packet_octets: usize) -> Lending {
        Lending { packet_octets, chunk_octets: 10 * 1024 }
    }
}

/// Looks at the desks of others that an idle worker takes before its next turn.
const LOOKS: usize = 16;

/// One worker's end of a crew.
pub struct Crew<K> {
    me: usize,
    lending: Lending,
    desks: Arc<[Desk<K>]>,
    /// What of each desk was seen and done.
    seen: Vec<usize>,
    wakers: Vec<Arc<dyn Wake>>,
    spare: ArrayVec<Box<Chunk<K>>, BATCH>,
    /// The chunk that is being filled.
    open: Option<Box<Chunk<K>>>,
    /// Chunks of this batch on the desk, and the number of the batch.
    put: usize,
    batch: usize,
    /// Chunks that helpers have put back, ever.
    returned: usize,
    /// How often this worker has looked for what was not there.
    rounds: u32,
    pace: Option<Pace>,
    /// Octets that helpers took lately, and a chunk more.
    appetite: usize,
    /// Packets that helpers did, ever.
    helped: u64,
}

/// What happens where helpers may act.
type Pace = Box<dyn FnMut() + Send>;

/// Where an owner and its helpers exchange chunks.
struct Desk<K> {
    /// The number of the batch, and of its chunks so far ([`pack`]): changes when there may be
    /// something to do.
    put: CachePadded<AtomicUsize>,
    /// Chunks that helpers have put back, ever.
    returned: CachePadded<AtomicUsize>,
    places: Box<[CachePadded<Place<K>>]>,
}

/// One place on a desk.
struct Place<K> {
    todo: AtomicCell<Option<Box<Chunk<K>>>>,
    done: AtomicCell<Option<Box<Chunk<K>>>>,
}

/// Packets of one owner, all to be sealed or all to be opened.
struct Chunk<K> {
    seals: bool,
    octets: usize,
    /// Packets, each with its key; `None` when that is the key of the packet before.
    items: ArrayVec<(Lent, Option<Arc<K>>), CHUNK>,
    statuses: [Status; CHUNK],
}

/// A packet that is lent, and what pass 2 needs of it.
pub(crate) struct Lent {
    packet: Packet,
    /// High half of its number.
    esn_high: Option<u32>,
    /// Where ESP starts and ends.
    start: u16,
    end: u16,
    /// Its place among the jobs of the batch.
    job: u8,
}

impl Lent {
    /// A packet with its place among the jobs, and where ESP starts and ends.
    #[expect(clippy::cast_possible_truncation, reason = "offsets in a frame, jobs of a batch")]
    pub(crate) fn new(
        packet: Packet,
        job: usize,
        (start, end): (usize, usize),
        esn_high: Option<u32>,
    ) -> Lent {
        Lent { packet, esn_high, start: start as u16, end: end as u16, job: job as u8 }
    }
}

const _: () = assert!(BATCH <= 256, "a place in a batch fits in an octet");

impl<K: Send + Sync + 'static> Crew<K> {
    /// A crew of as many workers as there are wakers.
    #[must_use]
    pub fn of(wakers: &[Arc<dyn Wake>], lending: Lending) -> Vec<Crew<K>> {
        let desks: Arc<[Desk<K>]> = wakers.iter().map(|_| Desk::new()).collect();
        let others = |me: usize| {
            let all = wakers.iter().enumerate();
            all.filter(|&(other, _)| other != me).map(|(_, wake)| Arc::clone(wake)).collect()
        };
        (0..wakers.len())
            .map(|me| Crew {
                me,
                lending,
                desks: Arc::clone(&desks),
                seen: vec![0; wakers.len()],
                wakers: others(me),
                spare: (0..BATCH).map(|_| Box::new(Chunk::new())).collect(),
                open: None,
                put: 0,
                batch: 0,
                returned: 0,
                rounds: 0,
                pace: None,
                appetite: lending.chunk_octets,
                helped: 0,
            })
            .collect()
    }

    /// Calls `pace` whenever an owner could let helpers act: before each chunk it takes itself, and
    /// when it would only wait. So a simulator, which has but one thread, lets helpers act in an
    /// order of its own.
    pub fn set_pace(&mut self, pace: impl FnMut() + Send + 'static) {
        self.pace = Some(Box::new(pace));
    }

    /// Packets that others have done for this worker.
    #[must_use]
    pub fn helped(&self) -> u64 {
        self.helped
    }

    /// True when chunks of another worker may wait for a helper.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let desks = self.desks.iter().zip(&self.seen).enumerate();
        let news = |(owner, (desk, seen)): (usize, (&Desk<K>, &usize))| {
            owner != self.me && desk.put.load(Acquire) != *seen
        };
        desks.into_iter().any(news)
    }

    /// Works for others while there is something to do. Returns the packets done.
    #[inline]
    pub(crate) fn help<A: Aead<Key = K>>(&mut self, aead: &mut A) -> usize {
        let mut done = 0;
        while let Some((owner, place, mut chunk)) = self.take() {
            chunk.crypt_from_afar(aead);
            done += chunk.items.len();
            self.desks[owner].give_back(place, chunk);
        }
        done
    }

    /// [`help`](Self::help), after a short wait if need be: for a worker that has nothing to do.
    #[inline]
    pub(crate) fn help_idly<A: Aead<Key = K>>(&mut self, aead: &mut A) -> usize {
        for _ in 0..LOOKS {
            if self.is_waiting() {
                return self.help(aead);
            }
            std::hint::spin_loop();
        }
        0
    }

    /// How many of the last packets of a batch are to be lent, given the octets of each; one
    /// without octets cannot be.
    pub(crate) fn share(
        &self,
        octets: impl DoubleEndedIterator<Item = Option<usize>> + Clone,
    ) -> usize {
        let (mut packets, mut total) = (0, 0);
        for octets in octets.clone() {
            let Some(octets) = octets else { return 0 };
            packets += 1;
            total += octets;
        }
        let Lending { packet_octets, chunk_octets } = self.lending;
        if total < 2 * chunk_octets || total < packets * packet_octets {
            return 0;
        }
        let helpers = self.wakers.len();
        let most = self.appetite.min(total / (helpers + 1) * helpers);
        let mut lent = 0;
        let is_within = |octets: &usize| {
            lent += octets;
            lent <= most
        };
        octets.rev().flatten().take_while(is_within).count()
    }

    /// Takes a packet of the batch; all of them to be sealed, or all to be opened.
    #[inline]
    pub(crate) fn lend(&mut self, seals: bool, lent: Lent, key: &Arc<K>) {
        let mut chunk = match self.open.take() {
            Some(chunk) => chunk,
            None => self.spare.pop().expect("a chunk for each packet of a batch"),
        };
        chunk.seals = seals;
        chunk.octets += lent.packet.len();
        let known = chunk.items.iter().rev().find_map(|(_, key)| key.as_ref());
        let is_same = known.is_some_and(|known| Arc::ptr_eq(known, key));
        chunk.items.push((lent, (!is_same).then(|| Arc::clone(key))));
        if chunk.items.is_full() || chunk.octets >= self.lending.chunk_octets {
            self.put(chunk);
        } else {
            self.open = Some(chunk);
        }
    }

    /// All that is to be lent has been.
    pub(crate) fn post(&mut self) {
        if let Some(chunk) = self.open.take() {
            self.put(chunk);
        }
        self.wakers.iter().for_each(|other| other.wake());
    }

    /// Sees to it that all that was lent is done; `back` gets each packet with its job and status.
    pub(crate) fn finish<A: Aead<Key = K>>(
        &mut self,
        aead: &mut A,
        mut back: impl FnMut(Packet, usize, Status),
    ) {
        let desks = Arc::clone(&self.desks);
        let desk = &desks[self.me];
        let put = std::mem::take(&mut self.put);
        self.batch = self.batch.wrapping_add(1);
        let mut away: ArrayVec<usize, BATCH> = ArrayVec::new();
        for place in 0..put {
            self.pace.iter_mut().for_each(|pace| pace());
            match desk.places[place].todo.take() {
                Some(mut chunk) => {
                    chunk.crypt(aead);
                    self.unpack(chunk, &mut back);
                }
                None => away.push(place),
            }
        }
        let mut helped = 0;
        while !away.is_empty() {
            if desk.returned.load(Acquire) == self.returned {
                self.pause();
                continue;
            }
            away.retain(|place| {
                let done = desk.places[*place].done.take();
                self.returned = self.returned.wrapping_add(usize::from(done.is_some()));
                let Some(chunk) = done else { return true };
                chunk.items.iter().for_each(|(lent, _)| lent.packet.prefetch_header());
                helped += chunk.octets;
                self.helped += chunk.items.len() as u64;
                self.unpack(chunk, &mut back);
                false
            });
        }
        self.appetite = helped + self.lending.chunk_octets;
    }

    /// Takes a chunk from the desk of another worker.
    fn take(&mut self) -> Option<(usize, usize, Box<Chunk<K>>)> {
        for (owner, (desk, seen)) in self.desks.iter().zip(&mut self.seen).enumerate() {
            let put = desk.put.load(Acquire);
            if owner == self.me || put == *seen {
                continue;
            }
            let all = desk.places[..count(put)].iter().enumerate().rev();
            let mut taken = all.filter_map(|(place, at)| Some((place, at.todo.take()?)));
            if let Some((place, chunk)) = taken.next() {
                return Some((owner, place, chunk));
            }
            *seen = put;
        }
        None
    }

    fn put(&mut self, chunk: Box<Chunk<K>>) {
        let desk = &self.desks[self.me];
        desk.places[self.put].todo.store(Some(chunk));
        self.put += 1;
        desk.put.store(pack(self.batch, self.put), Release);
    }

    /// Waits a moment; now and then it lets others run who may share this core.
    fn pause(&mut self) {
        if let Some(pace) = &mut self.pace {
            return pace();
        }
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(1024) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }

    fn unpack(&mut self, mut chunk: Box<Chunk<K>>, back: &mut impl FnMut(Packet, usize, Status)) {
        let Chunk { items, statuses, octets, .. } = &mut *chunk;
        for ((Lent { packet, job, .. }, _), status) in items.drain(..).zip(statuses) {
            back(packet, usize::from(job), std::mem::take(status));
        }
        *octets = 0;
        self.spare.push(chunk);
    }
}

/// The number of a batch and of its chunks in one word.
fn pack(batch: usize, chunks: usize) -> usize {
    batch << 8 | chunks
}

/// The number of chunks in such a word.
fn count(packed: usize) -> usize {
    packed & 0xff
}

impl<K> Desk<K> {
    fn new() -> Desk<K> {
        let place = || Place { todo: AtomicCell::new(None), done: AtomicCell::new(None) };
        Desk {
            put: CachePadded::new(AtomicUsize::new(0)),
            returned: CachePadded::new(AtomicUsize::new(0)),
            places: (0..BATCH).map(|_| CachePadded::new(place())).collect(),
        }
    }

    fn give_back(&self, place: usize, chunk: Box<Chunk<K>>) {
        self.places[place].done.store(Some(chunk));
        self.returned.fetch_add(1, Release);
    }
}

impl<K> Chunk<K> {
    fn new() -> Chunk<K> {
        let statuses = [const { Status::Pending }; CHUNK];
        Chunk { seals: false, octets: 0, items: ArrayVec::new(), statuses }
    }

    /// Pass 2 for its packets.
    fn crypt<A: Aead<Key = K>>(&mut self, aead: &mut A) {
        self.crypt_in_steps(aead, CHUNK);
    }

    /// The same for packets that are in the cache of another core: while one is worked on, the next
    /// one is fetched.
    fn crypt_from_afar<A: Aead<Key = K>>(&mut self, aead: &mut A) {
        self.items.iter().take(2).for_each(|(lent, _)| prefetch_to_write(lent.packet.data()));
        self.crypt_in_steps(aead, 1);
    }

    fn crypt_in_steps<A: Aead<Key = K>>(&mut self, aead: &mut A, step: usize) {
        let mut ops: ArrayVec<Op<'_, K>, CHUNK> = ArrayVec::new();
        let mut current = None;
        for (Lent { packet, esn_high, start, end, .. }, key) in &mut self.items {
            current = key.as_deref().or(current);
            let key = current.expect("the first packet of a chunk has its key");
            let esp = &mut packet.data_mut()[usize::from(*start)..usize::from(*end)];
            ops.push(Op { key, esn_high: *esn_high, esp });
        }
        let mut statuses = &mut self.statuses[..];
        let mut ops = &mut ops[..];
        while !ops.is_empty() {
            let (now, later) = ops.split_at_mut(step.min(ops.len()));
            if let Some(Op { esp, .. }) = later.get(1) {
                prefetch_to_write(esp);
            }
            let (answers, rest) = statuses.split_at_mut(now.len());
            match self.seals {
                true => aead.seal(now),
                false => aead.open(now, answers),
            }
            (ops, statuses) = (later, rest);
        }
    }
}

/// A member of a crew that owns nothing, and takes one step at a time: for tests and the simulator,
/// where it is called by [`Crew::set_pace`].
pub struct Helper<A: Aead> {
    crew: Crew<A::Key>,
    aead: A,
    stage: Stage<A::Key>,
}

/// How far a helper is.
enum Stage<K> {
    Idle,
    Taken(usize, usize, Box<Chunk<K>>),
    Done(usize, usize, Box<Chunk<K>>),
}

impl<A: Aead> Helper<A> {
    /// A helper with this end.
    #[must_use]
    pub fn new(crew: Crew<A::Key>, aead: A) -> Helper<A> {
        Helper { crew, aead, stage: Stage::Idle }
    }

    /// Takes a chunk, or does it, or gives it back; false when there was nothing to take.
    pub fn step(&mut self) -> bool {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => match self.crew.take() {
                Some((owner, place, chunk)) => Stage::Taken(owner, place, chunk),
                None => return false,
            },
            Stage::Taken(owner, place, mut chunk) => {
                chunk.crypt_from_afar(&mut self.aead);
                Stage::Done(owner, place, chunk)
            }
            Stage::Done(owner, place, chunk) => {
                self.crew.desks[owner].give_back(place, chunk);
                Stage::Idle
            }
        };
        true
    }
}

impl<K> std::fmt::Debug for Crew<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("me", &self.me).finish_non_exhaustive()
    }
}

impl<A: Aead> std::fmt::Debug for Helper<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helper").field("crew", &self.crew).finish_non_exhaustive()
    }
}
