//! In steady state a worker's turn neither allocates nor frees.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;
use std::net::IpAddr;

use culvert_aead::Algorithm;
use culvert_aead::Provider;
use culvert_esp::Mode;
use culvert_frame::PacketIo;
use culvert_frame::slab;
use culvert_sim::Gateway;
use culvert_sim::plain::Plain;
use culvert_sim::provider::provider;
use culvert_sim::scenario::LAN;
use culvert_sim::scenario::Scenario;
use culvert_sim::scenario::Tunnel;
use culvert_sim::scenario::WAN;
use culvert_sim::scenario::gateway_mac;
use culvert_sim::scenario::host_mac;

/// Full batches sent through both gateways while every allocation is counted.
const BATCHES: u64 = 15_000;
/// Packets sent one at a time after those.
const SINGLES: u64 = 50_000;
const PACKETS: u64 = BATCHES * 64 + SINGLES;
const _: () = assert!(PACKETS >= 1_000_000);
/// Batches before that, until queues have the room they need.
const WARM_UP_BATCHES: u64 = 32;
/// Turns without any packet.
const IDLE_TURNS: u64 = 100_000;

/// The system's allocator, which counts what this thread asks of it while it is told to.
struct Counting;

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if COUNTS.get() {
        COUNTED.set(COUNTED.get() + 1);
    }
}

// SAFETY: every call is passed on to `System` unchanged; counting touches thread-local cells that
// need neither memory nor a destructor. Why not safe: the trait is not.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations, frees and reallocations that `work` did, and places of slabs that it took or gave
/// back.
fn counted<T>(work: impl FnOnce() -> T) -> u64 {
    let before = COUNTED.get() + slab::moves();
    COUNTS.set(true);
    work();
    COUNTS.set(false);
    COUNTED.get() + slab::moves() - before
}

fn host(side: usize, index: u8, six: bool) -> IpAddr {
    Scenario::host(side, index, six, 5)
}

/// Two gateways with two workers each, so that half of the packets is handed over.
struct Bench {
    gateways: [Gateway<Provider>; 2],
    frames: Vec<Vec<u8>>,
    allocations: u64,
    delivered: u64,
}

impl Bench {
    fn new() -> Bench {
        let tunnels = vec![
            Tunnel::ordinary(0),
            Tunnel { esn: true, ..Tunnel::ordinary(1) }.with_outer(true).with_udp(),
            Tunnel { outer: [0, 1].map(|side| host(side, 2, false)), ..Tunnel::ordinary(2) }
                .with_mode(Mode::Transport),
            Tunnel::ordinary(3).with_algorithm(Algorithm::AhAes128Gmac),
        ];
        let scenario = Scenario { workers: vec![2; 2], ..Scenario::quiet(tunnels) };
        let gateway = |side| {
            let next_hops = scenario.next_hops(side, [true; 4]);
            Gateway::new(&scenario.gateway(side), &provider(), next_hops).unwrap()
        };
        let frame = |id: u64| {
            let index = u8::try_from(id % 4).unwrap();
            let host = |side| host(side, index, id.is_multiple_of(3) && index != 2);
            let plain = Plain::new(host(0), host(1), id);
            plain.frame(gateway_mac(0, LAN), host_mac(0), None)
        };
        Bench {
            gateways: [gateway(0), gateway(1)],
            frames: (0..64).map(frame).collect(),
            allocations: 0,
            delivered: 0,
        }
    }

    /// Sends `batch` packets through both gateways; only the workers' turns are counted.
    fn pass(&mut self, batch: usize) {
        let [a, b] = &mut self.gateways;
        for (index, frame) in self.frames[..batch].iter().enumerate() {
            assert!(a.workers[index / 2 % 2].io_mut().inject(LAN, frame));
        }
        for _ in 0..2 {
            self.allocations += turn_all(a);
        }
        let mut worker = 0;
        for sender in &mut a.workers {
            while let Some(packet) = sender.io_mut().take_sent(WAN) {
                assert!(b.workers[worker].io_mut().inject(WAN, packet.data()));
                sender.io_mut().recycle(packet.into_free());
                worker = 1 - worker;
            }
        }
        for _ in 0..2 {
            self.allocations += turn_all(b);
        }
        for receiver in &mut b.workers {
            while let Some(packet) = receiver.io_mut().take_sent(LAN) {
                receiver.io_mut().recycle(packet.into_free());
                self.delivered += 1;
            }
        }
    }
}

fn turn_all(gateway: &mut Gateway<Provider>) -> u64 {
    let turns = gateway.workers.iter_mut().map(|worker| counted(|| worker.turn(0)));
    turns.sum()
}

/// A million packets in ESP tunnels raw and in UDP, ESP in transport mode, and AH; in full batches
/// and one by one, outbound and inbound, at their SA's worker and handed over, turns without
/// packets, and inspections of all SAs: not one allocation, and not one free.
#[test]
fn steady_state_allocates_nothing() {
    assert_eq!(counted(|| drop(vec![1])), 2, "the allocator counts");
    let mut bench = Bench::new();
    (0..WARM_UP_BATCHES).for_each(|_| bench.pass(64));
    bench.allocations = 0;
    let first = bench.delivered;
    (0..BATCHES).for_each(|_| bench.pass(64));
    (0..SINGLES).for_each(|_| bench.pass(1));
    assert_eq!(bench.delivered - first, PACKETS);
    for gateway in &mut bench.gateways {
        let ids: Vec<_> = gateway.controller.ids().collect();
        ids.iter().for_each(|&id| gateway.controller.inspect(id).unwrap());
        gateway.controller.poll().unwrap();
        bench.allocations += turn_all(gateway);
        gateway.controller.poll().unwrap();
        assert!(ids.iter().all(|&id| gateway.controller.take_inspection(id).is_some()));
    }
    for _ in 0..IDLE_TURNS {
        bench.allocations += turn_all(&mut bench.gateways[0]);
    }
    assert_eq!(bench.allocations, 0);
    let [a, b] = &bench.gateways;
    let handed_off = [a.counters().handed_off, b.counters().handed_off];
    assert!(handed_off.iter().all(|&packets| packets > PACKETS / 4), "{handed_off:?}");
    assert_eq!(a.counters().dropped_total() + b.counters().dropped_total(), 0);
}
