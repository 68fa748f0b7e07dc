//! A batch of packets of any SAs and sizes, sorted for the kernels.
//!
//! Short packets are told apart by key size and number of vectors, and those of a kind are worked
//! on four at once (`sorted`, `short`). What is left over, one to three of a kind, and longer
//! packets run one by one (`kernel`), and keys of other algorithms are left to the portable
//! provider.
//!
//! Where all packets are alike, as those of one busy stream are, there is nothing to sort, and they
//! are taken as they came; many longer ones have kernels of their own (`stream`). Looking whether
//! they are alike costs less than sorting, and ends at the second packet if that is for another SA.

use crate::port::ICV_LEN;
use crate::port::Op;
use crate::port::Status;
use crate::provider::ProviderKey;
use crate::vaes::ahead::Ahead;
use crate::vaes::kernel::Tail;
use crate::vaes::short;
use crate::vaes::short::FOUR;
use crate::vaes::sorted::ALONE;
use crate::vaes::sorted::OfAKind;
use crate::vaes::sorted::SORTED;
use crate::vaes::sorted::Slot;
use crate::vaes::sorted::Sorted;
use crate::vaes::sorted::kind;
use crate::vaes::stream;
use crate::vaes::unsorted::AHEAD;
use crate::vaes::unsorted::Alike;
use crate::vaes::unsorted::Singly;
use crate::vaes::unsorted::are_alike;
use crate::x86::block::store_block;
use crate::x86::schedule::KEYS_128;
use crate::x86::schedule::KEYS_192;
use crate::x86::schedule::KEYS_256;

/// Calls the function of `short` for a kind with what gives its packets.
macro_rules! short {
    ($function:ident, $kind:expr, $fours:expr) => {
        match $kind {
            0x11 => short::$function::<KEYS_128, 1, _>($fours),
            0x12 => short::$function::<KEYS_128, 2, _>($fours),
            0x13 => short::$function::<KEYS_128, 3, _>($fours),
            0x14 => short::$function::<KEYS_128, 4, _>($fours),
            0x15 => short::$function::<KEYS_128, 5, _>($fours),
            0x21 => short::$function::<KEYS_192, 1, _>($fours),
            0x22 => short::$function::<KEYS_192, 2, _>($fours),
            0x23 => short::$function::<KEYS_192, 3, _>($fours),
            0x24 => short::$function::<KEYS_192, 4, _>($fours),
            0x25 => short::$function::<KEYS_192, 5, _>($fours),
            0x31 => short::$function::<KEYS_256, 1, _>($fours),
            0x32 => short::$function::<KEYS_256, 2, _>($fours),
            0x33 => short::$function::<KEYS_256, 3, _>($fours),
            0x34 => short::$function::<KEYS_256, 4, _>($fours),
            0x35 => short::$function::<KEYS_256, 5, _>($fours),
            _ => unreachable!("a kind is a key size and one to five vectors"),
        }
    };
}

/// The kind of packets that are alike, or too few to be told apart, the whole fours of them, and
/// the others. Nothing is for `short` if that is not its kind.
#[inline(always)]
fn fours_alike<'a, 'b>(
    ops: &'b mut [Op<'a, ProviderKey>],
) -> (u8, &'b mut [Op<'a, ProviderKey>], &'b mut [Op<'a, ProviderKey>]) {
    let kind = ops.first().map_or(ALONE, kind);
    let fours = if kind == ALONE { 0 } else { ops.len() / FOUR * FOUR };
    let (fours, others) = ops.split_at_mut(fours);
    (kind, fours, others)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn seal(ops: &mut [Op<'_, ProviderKey>]) {
    let mut unfinished = Unfinished { tail: Tail::new(), icv: None };
    for ops in ops.chunks_mut(SORTED) {
        if ops.len() < FOUR || are_alike(ops) {
            let (kind, fours, others) = fours_alike(ops);
            if !fours.is_empty() {
                short!(seal, kind, Alike::new(fours));
            }
            match stream::key_of(others) {
                Some(key) => stream::seal(key, others),
                None => Singly::new(others).for_each(|next| seal_one(next, &mut unfinished)),
            }
            continue;
        }
        let mut sorted = Sorted::new(ops);
        while let Some((kind, fours)) = sorted.next() {
            let (fours, others) = sorted.order[..sorted.count].split_at(fours);
            if !fours.is_empty() {
                short!(seal, kind, OfAKind::new(&mut sorted.slots, fours));
            }
            for (at, packet) in others.iter().enumerate() {
                seal_one(take(&mut sorted.slots, *packet, others, at), &mut unfinished);
            }
        }
    }
    if let Some(place) = unfinished.icv {
        store_block(place, unfinished.tail.icv());
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
pub(super) fn open(ops: &mut [Op<'_, ProviderKey>], statuses: &mut [Status]) {
    for (ops, statuses) in ops.chunks_mut(SORTED).zip(statuses.chunks_mut(SORTED)) {
        if ops.len() < FOUR || are_alike(ops) {
            let (kind, fours, others) = fours_alike(ops);
            let (statuses, statuses_of_others) = statuses.split_at_mut(fours.len());
            if !fours.is_empty() {
                let authentic = short!(open, kind, Alike::new(fours));
                for (at, status) in statuses.iter_mut().enumerate() {
                    *status = Status::of(authentic >> at & 1 != 0);
                }
            }
            match stream::key_of(others) {
                Some(key) => stream::open(key, others, statuses_of_others),
                None => {
                    for (next, status) in Singly::new(others).zip(statuses_of_others) {
                        *status = Status::of(open_one(next));
                    }
                }
            }
            continue;
        }
        let mut sorted = Sorted::new(ops);
        while let Some((kind, fours)) = sorted.next() {
            let (fours, others) = sorted.order[..sorted.count].split_at(fours);
            if !fours.is_empty() {
                let authentic = short!(open, kind, OfAKind::new(&mut sorted.slots, fours));
                for (at, packet) in fours.iter().enumerate() {
                    statuses[usize::from(*packet)] = Status::of(authentic >> at & 1 != 0);
                }
            }
            for (at, packet) in others.iter().enumerate() {
                let authentic = open_one(take(&mut sorted.slots, *packet, others, at));
                statuses[usize::from(*packet)] = Status::of(authentic);
            }
        }
    }
}

/// Takes a packet of those that run one by one, number `at` of `order`, with what is to be asked
/// for meanwhile: the one [`AHEAD`] of it. At the start those before that are asked for at once.
#[inline(always)]
fn take<'a, 'b>(
    slots: &mut [Slot<'a, 'b>; SORTED],
    packet: u8,
    order: &[u8],
    at: usize,
) -> (&'b mut Op<'a, ProviderKey>, Ahead) {
    let op = slots[usize::from(packet)].take().expect("a packet has one turn");
    let ahead = |at: usize| {
        let later = order.get(at).and_then(|&later| slots[usize::from(later)].as_ref());
        later.map_or(Ahead::NONE, |later| Ahead::of(later, op.key))
    };
    if at == 0 {
        (1..AHEAD).for_each(|at| ahead(at).ask());
    }
    (op, ahead(at + AHEAD))
}

/// The packet that was sealed last of those that run one by one, and has no ICV yet: it is made
/// with the next one.
struct Unfinished<'a, 'b> {
    tail: Tail<'a>,
    /// Where it goes.
    icv: Option<&'b mut [u8; ICV_LEN]>,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn seal_one<'a, 'b>(
    (op, ahead): (&'b mut Op<'a, ProviderKey>, Ahead),
    unfinished: &mut Unfinished<'a, 'b>,
) {
    match op.key {
        ProviderKey::Kernel(key) => {
            let start =
                key.start(op.esp.first_chunk().expect("room for header and ICV"), op.esn_high);
            let icv = key.seal(start, op.esp, &mut unfinished.tail, ahead);
            let place = op.esp.last_chunk_mut().expect("room for header and ICV");
            if let Some(before) = unfinished.icv.replace(place) {
                store_block(before, icv);
            }
        }
        other => {
            ahead.ask();
            other.seal_portable(op.esn_high, op.esp);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2,vaes,vpclmulqdq")]
#[inline]
fn open_one((op, ahead): (&mut Op<'_, ProviderKey>, Ahead)) -> bool {
    match op.key {
        ProviderKey::Kernel(key) => match op.esp.first_chunk() {
            Some(start) => key.open(key.start(start, op.esn_high), op.esp, ahead),
            None => false,
        },
        other => {
            ahead.ask();
            other.open_portable(op.esn_high, op.esp)
        }
    }
}
