//! A batch of packets of any SAs and sizes, sorted for the kernels.
//!
//! Short packets are told apart by key size and number of vectors, and those of a kind are worked
//! on four at once (`short`). What is left over, one to three of a kind, and longer packets run
//! one by one (`kernel`), and keys of other algorithms are left to the portable provider. Sorting
//! needs one look at each key, in a line that its packet needs anyway, and which is asked for ahead
//! for the whole batch. Nothing is allocated: a kind is a set of bits in one word.

use std::arch::x86_64::*;

use crate::algorithm::AesSize;
use crate::port::ICV_LEN;
use crate::port::MIN_ESP_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::port::Verified;
use crate::prefetch::prefetch_lines;
use crate::provider::ProviderKey;
use crate::vaes::kernel::Tail;
use crate::vaes::key::VaesKey;
use crate::vaes::math;
use crate::vaes::math::TAIL_LEN;
use crate::vaes::math::VECTOR;
use crate::vaes::short;
use crate::vaes::short::FOUR;
use crate::x86::block::BLOCK;
use crate::x86::block::store_block;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;

/// Packets that are sorted at once: a bit of a word, an octet of a vector each.
const SORTED: usize = 64;

/// Packets that run one by one, because of their length or key.
const ALONE: u8 = 0;

/// How many packets ahead a key is asked for that is to be looked at.
const LOOK_AHEAD: usize = 16;

/// The order of the batch.
const AS_THEY_CAME: [u8; SORTED] = {
    let mut order = [0; SORTED];
    let mut at = 0;
    while at < SORTED {
        #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
        let packet = at as u8;
        order[at] = packet;
        at += 1;
    }
    order
};

/// How many packets ahead those are prepared that run one by one.
const AHEAD: usize = 2;

/// A key size in the upper half of an octet, a number of vectors in the lower; or [`ALONE`].
#[inline(always)]
fn kind(op: &Op<'_, ProviderKey>) -> u8 {
    let ProviderKey::Vaes(key) = op.key else {
        return ALONE;
    };
    if op.esp.len() < MIN_ESP_LEN || op.esp.len() > TAIL_LEN + ICV_LEN {
        return ALONE;
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most five")]
    let vectors = (op.esp.len() - ICV_LEN).div_ceil(VECTOR) as u8;
    vectors
        | match key.size() {
            AesSize::Aes128 => 0x10,
            AesSize::Aes192 => 0x20,
            AesSize::Aes256 => 0x30,
        }
}

/// Calls the function of `short` for a kind.
macro_rules! short {
    ($kind:expr, $function:ident, $arguments:tt) => {
        match $kind {
            0x11 => short::$function::<KEYS_128, 1> $arguments,
            0x12 => short::$function::<KEYS_128, 2> $arguments,
            0x13 => short::$function::<KEYS_128, 3> $arguments,
            0x14 => short::$function::<KEYS_128, 4> $arguments,
            0x15 => short::$function::<KEYS_128, 5> $arguments,
            0x21 => short::$function::<KEYS_192, 1> $arguments,
            0x22 => short::$function::<KEYS_192, 2> $arguments,
            0x23 => short::$function::<KEYS_192, 3> $arguments,
            0x24 => short::$function::<KEYS_192, 4> $arguments,
            0x25 => short::$function::<KEYS_192, 5> $arguments,
            0x31 => short::$function::<KEYS_256, 1> $arguments,
            0x32 => short::$function::<KEYS_256, 2> $arguments,
            0x33 => short::$function::<KEYS_256, 3> $arguments,
            0x34 => short::$function::<KEYS_256, 4> $arguments,
            0x35 => short::$function::<KEYS_256, 5> $arguments,
            _ => unreachable!("a kind is a key size and one to five vectors"),
        }
    };
}

/// Packets of a kind, in the order of the batch.
struct Sorted {
    kinds: [u8; SORTED],
    /// Whether there is but one.
    is_uniform: bool,
    count: usize,
    /// Which packets are not taken yet, the first of the batch in the lowest bit.
    left: u64,
    order: [u8; SORTED],
}

impl Sorted {
    /// Of one to [`SORTED`] packets.
    #[inline(always)]
    fn new(ops: &[Op<'_, ProviderKey>]) -> Sorted {
        for op in ops.iter().take(LOOK_AHEAD) {
            prefetch_lines(op.key, VaesKey::line_of_size());
        }
        let mut kinds = [ALONE; SORTED];
        let first = kind(&ops[0]);
        let mut different = 0;
        for (at, (slot, op)) in kinds.iter_mut().zip(ops).enumerate() {
            if let Some(later) = ops.get(at + LOOK_AHEAD) {
                prefetch_lines(later.key, VaesKey::line_of_size());
            }
            *slot = kind(op);
            different |= *slot ^ first;
        }
        Sorted {
            kinds,
            is_uniform: different == 0,
            count: ops.len(),
            left: u64::MAX >> (SORTED - ops.len()),
            order: AS_THEY_CAME,
        }
    }

    /// The next kind and its packets.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
    #[inline]
    fn next(&mut self) -> Option<(u8, &[u8])> {
        if self.left == 0 {
            return None;
        }
        let kind = self.kinds[self.left.trailing_zeros() as usize];
        if self.is_uniform {
            self.left = 0;
            return Some((kind, &self.order[..self.count]));
        }
        let all = _mm512_set1_epi8(kind.cast_signed());
        let mut of_kind = self.left & _mm512_cmpeq_epi8_mask(math::load(&self.kinds), all);
        self.left &= !of_kind;
        let mut count = 0;
        while of_kind != 0 {
            #[expect(clippy::cast_possible_truncation, reason = "at most 63")]
            let packet = of_kind.trailing_zeros() as u8;
            self.order[count] = packet;
            count += 1;
            of_kind &= of_kind - 1;
        }
        Some((kind, &self.order[..count]))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn seal(ops: &mut [Op<'_, ProviderKey>]) {
    for ops in ops.chunks_mut(SORTED) {
        let mut sorted = Sorted::new(ops);
        let mut unfinished = Unfinished { tail: Tail::new(), packet: None };
        while let Some((kind, order)) = sorted.next() {
            let (fours, others) = match kind {
                ALONE => order.split_at(0),
                _ => order.split_at(order.len() / FOUR * FOUR),
            };
            if !fours.is_empty() {
                short!(kind, seal, (ops, fours));
            }
            for (at, packet) in others.iter().enumerate() {
                prefetch_alone(ops, others, at);
                seal_one(ops, *packet, &mut unfinished);
            }
        }
        if let Some(packet) = unfinished.packet {
            write_icv(&mut ops[usize::from(packet)], unfinished.tail.icv());
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn open(ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
    for (ops, statuses) in ops.chunks_mut(SORTED).zip(statuses.chunks_mut(SORTED)) {
        let mut sorted = Sorted::new(ops);
        while let Some((kind, order)) = sorted.next() {
            let (fours, others) = match kind {
                ALONE => order.split_at(0),
                _ => order.split_at(order.len() / FOUR * FOUR),
            };
            if !fours.is_empty() {
                short!(kind, open, (ops, fours, statuses));
            }
            for (at, packet) in others.iter().enumerate() {
                prefetch_alone(ops, others, at);
                statuses[usize::from(*packet)] = match open_one(&mut ops[usize::from(*packet)]) {
                    true => Status::Authentic(Verified::new()),
                    false => Status::Forged,
                };
            }
        }
    }
}

/// Asks for key and text of the packet [`AHEAD`] of number `at` in `order`, at the start for those
/// before it, too.
#[inline(always)]
fn prefetch_alone(ops: &[Op<'_, ProviderKey>], order: &[u8], at: usize) {
    let first = if at == 0 { 1 } else { at + AHEAD };
    for later in order.iter().take(at + AHEAD + 1).skip(first) {
        let op = &ops[usize::from(*later)];
        if !std::ptr::eq(op.key, ops[usize::from(order[at])].key) {
            prefetch_lines(op.key, VaesKey::lines(KEYS_256, op.esp.len() / BLOCK));
        }
        prefetch_lines(op.esp.as_ptr(), 0..op.esp.len().div_ceil(VECTOR));
    }
}

/// The packet that was sealed last of those that run one by one, and has no ICV yet: it is made
/// with the next one.
struct Unfinished<'a> {
    tail: Tail<'a>,
    packet: Option<u8>,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn seal_one<'a>(ops: &mut [Op<'a, ProviderKey>], packet: u8, unfinished: &mut Unfinished<'a>) {
    let op = &mut ops[usize::from(packet)];
    match op.key {
        ProviderKey::Vaes(key) => {
            let start =
                key.start(op.esp.first_chunk().expect("room for header and ICV"), op.esn_high);
            let icv = key.seal(start, op.esp, &mut unfinished.tail);
            if let Some(before) = unfinished.packet.replace(packet) {
                write_icv(&mut ops[usize::from(before)], icv);
            }
        }
        other => other.seal_portable(op.esn_high, op.esp),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn write_icv(op: &mut Op<'_, ProviderKey>, icv: __m128i) {
    store_block(op.esp.last_chunk_mut().expect("room for the ICV"), icv);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn open_one(op: &mut Op<'_, ProviderKey>) -> bool {
    match op.key {
        ProviderKey::Vaes(key) => match op.esp.first_chunk() {
            Some(start) => key.open(key.start(start, op.esn_high), op.esp),
            None => false,
        },
        other => other.open_portable(op.esn_high, op.esp),
    }
}
