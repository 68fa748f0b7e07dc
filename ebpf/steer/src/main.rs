//! The XDP programs: the kernel's side of steering.
//!
//! A steering program asks [`culvert_steer`] for its decision about the frame, counts it under its
//! class, and gives frames for the engine to the `AF_XDP` socket of the queue they arrived on.
//! Everything else is `XDP_PASS`. A frame for the engine whose queue has no socket, as before the
//! engine runs and after it died, is dropped and counted: passed on, the kernel might forward in
//! clear what policy protects. No other frame is dropped here, and none is changed.
//!
//! Each steering program is there twice: a program that is loaded for frames of several buffers
//! (`xdp.frags`) makes drivers deliver such frames, which not every gateway wants. Both read the
//! same: headers lie in the first buffer, and what does not counts as absent.
//!
//! `pass`, `reflect` and `discard` are helpers for laboratories and benches
//! ([`culvert_steer::map`]).
//!
//! Counter rows are per CPU and only this program writes them, so a plain addition suffices. On a
//! PREEMPT_RT kernel a program may be preempted by another one on the same CPU and an addition be
//! lost; nothing but a statistic depends on it.

#![no_std]
#![no_main]
// Inline assembly for BPF, for one empty line of it: see `opaque`.
#![feature(asm_experimental_arch)]

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::macros::map;
use aya_ebpf::macros::xdp;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::maps::XskMap;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;

use culvert_steer::Counter;
use culvert_steer::Decision;
use culvert_steer::FragmentKey;
use culvert_steer::Fragments;
use culvert_steer::PrefixValue;
use culvert_steer::Prefixes;
use culvert_steer::View;
use culvert_steer::counter::SLOTS;
use culvert_steer::map::MAX_FRAGMENTS;
use culvert_steer::map::MAX_PREFIXES;
use culvert_steer::map::MAX_QUEUES;

#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

#[map]
static PREFIXES4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[map]
static PREFIXES6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[map]
static PLAIN4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[map]
static PLAIN6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_PREFIXES, 0);

#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u32> = LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);

#[map]
static COUNTERS: PerCpuArray<[u64; SLOTS]> = PerCpuArray::with_max_entries(MAX_QUEUES, 0);

/// Steers an interface on the unprotected side.
#[xdp]
pub fn steer_unprotected(context: XdpContext) -> u32 {
    unprotected(&context)
}

/// [`steer_unprotected`] for frames of several buffers.
#[xdp(frags)]
pub fn steer_unprotected_frags(context: XdpContext) -> u32 {
    unprotected(&context)
}

/// Steers an interface on the protected side.
#[xdp]
pub fn steer_protected(context: XdpContext) -> u32 {
    protected(&context)
}

/// [`steer_protected`] for frames of several buffers.
#[xdp(frags)]
pub fn steer_protected_frags(context: XdpContext) -> u32 {
    protected(&context)
}

/// Leaves every frame to the kernel.
#[xdp]
pub fn pass(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// Sends every frame back out of its interface.
#[xdp]
pub fn reflect(_context: XdpContext) -> u32 {
    XDP_TX
}

/// Counts and drops every frame.
#[xdp]
pub fn discard(context: XdpContext) -> u32 {
    count(&context, [Counter::Discarded]);
    XDP_DROP
}

#[inline(always)]
fn unprotected(context: &XdpContext) -> u32 {
    let inbound = Tries(&PLAIN4, &PLAIN6);
    carry_out(context, culvert_steer::unprotected(&Frame(context), &inbound, &mut Datagrams))
}

#[inline(always)]
fn protected(context: &XdpContext) -> u32 {
    let outbound = Tries(&PREFIXES4, &PREFIXES6);
    carry_out(context, culvert_steer::protected(&Frame(context), &outbound))
}

/// Counts the frame under its class, and redirects it if that is the decision; without a socket it
/// is dropped.
#[inline(always)]
fn carry_out(context: &XdpContext, decision: Decision) -> u32 {
    let class = Counter::Class(decision.class);
    if !decision.redirect() {
        count(context, [class]);
        return XDP_PASS;
    }
    // The action in the flags is what the helper answers when the queue has no socket.
    match XSKS.redirect(context.rx_queue_index(), XDP_DROP.into()) {
        Ok(action) => {
            count(context, [class, Counter::Redirected]);
            action
        }
        Err(action) => {
            count(context, [class, Counter::NoSocket]);
            action
        }
    }
}

/// Adds one to each of `counters` in the row of the frame's queue.
#[inline(always)]
fn count<const N: usize>(context: &XdpContext, counters: [Counter; N]) {
    let Some(row) = COUNTERS.get_ptr_mut(context.rx_queue_index()) else {
        return;
    };
    // SAFETY: the helper answers this CPU's row of the map, SLOTS aligned numbers that stay valid
    // while the program runs, and nothing else writes it meanwhile (module text).
    // Why not safe: the row belongs to the kernel.
    let row = unsafe { &mut *row };
    for counter in counters {
        if let Some(slot) = row.get_mut(counter.slot()) {
            *slot = slot.wrapping_add(1);
        }
    }
}

/// The first buffer of a frame, read within its bounds; most frames have no other.
struct Frame<'a>(&'a XdpContext);

impl View for Frame<'_> {
    #[inline(always)]
    fn octets<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = opaque(self.0.data() + at);
        if start + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the comparison shows that the N octets lie within the frame, and the verifier
        // refuses the program unless it can prove the same. An array of octets needs no alignment.
        // Why not safe: the frame belongs to the kernel, known by two addresses only.
        Some(unsafe { *(start as *const [u8; N]) })
    }
}

/// The address itself, of which the compiler knows nothing any more.
///
/// The verifier accepts a read when the program compared the very same pointer, plus a constant
/// that is not zero, with the end of the frame. Left alone, LLVM compares one sum and reads at
/// another, and turns `start + 1 > end` into `start >= end`, which teaches the verifier nothing.
#[inline(always)]
fn opaque(mut address: usize) -> usize {
    // SAFETY: no instruction is executed and no memory touched.
    // Why not safe: only assembly hides a value from the optimiser without a trip through memory.
    unsafe { asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack)) };
    address
}

/// The prefix maps of one side.
struct Tries(&'static LpmTrie<[u8; 4], u32>, &'static LpmTrie<[u8; 16], u32>);

impl Prefixes for Tries {
    #[inline(always)]
    fn match4(&self, destination: [u8; 4]) -> Option<PrefixValue> {
        self.0.get(Key::new(32, destination)).copied().map(PrefixValue::from_raw)
    }

    #[inline(always)]
    fn match6(&self, destination: [u8; 16]) -> Option<PrefixValue> {
        self.1.get(Key::new(128, destination)).copied().map(PrefixValue::from_raw)
    }
}

/// The map of datagrams whose fragments are the engine's.
struct Datagrams;

impl Fragments for Datagrams {
    /// A datagram that the map has no room for is not remembered, and its fragments are lost.
    #[inline(always)]
    fn remember(&mut self, key: &FragmentKey) {
        let _ = FRAGMENTS.insert(key, 1, 0);
    }

    #[inline(always)]
    fn forget(&mut self, key: &FragmentKey) {
        let _ = FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn knows(&self, key: &FragmentKey) -> bool {
        FRAGMENTS.get_ptr(key).is_some()
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics: the object would not load with a loop that the verifier can reach.
    loop {}
}

/// The kernel asks for a licence it knows; none of the helpers used demands the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"MIT\0";
