//! Asking for a value to be fetched into the cache, ahead of its use.
//!
//! A key context spans several cache lines and, with thousands of SAs, is seldom in a near cache:
//! fetching it while other packets are worked on hides most of that time.

#![expect(unsafe_code, reason = "there is no safe form of the prefetch instruction")]

use std::ops::Range;

use crate::port::Op;

/// How many packets ahead a key is asked for: four of the smallest take several times as long as a
/// read from memory.
const AHEAD: usize = 4;

/// Octets of a cache line, on the machines where it matters.
pub(crate) const LINE: usize = 64;

/// Asks for every line of `value`. Returns at once; does nothing where there is no such
/// instruction.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of every x86-64. Why not safe: the compiler wants that said for each
    // call into a function with a target feature.
    unsafe {
        prefetch_sse(value, size_of::<T>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for the first `LINES` lines of `value`: all that is needed of something larger.
#[inline(always)]
pub fn prefetch_start<const LINES: usize, T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of every x86-64. Why not safe: the compiler wants that said for each
    // call into a function with a target feature.
    unsafe {
        prefetch_sse(value, LINES * LINE);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks for some lines of the cache, counted from the one where `value` points to.
#[inline(always)]
pub(crate) fn prefetch_lines<T>(value: *const T, lines: Range<usize>) {
    let start = value.cast::<u8>();
    for line in lines {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of every x86-64, and the instruction neither reads what the program
        // can observe nor faults. Why not safe: the compiler wants that said for each call into a
        // function with a target feature.
        unsafe {
            use std::arch::x86_64::_MM_HINT_T0;
            use std::arch::x86_64::_mm_prefetch;
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(LINE * line).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, line);
    }
}

/// The instruction reads nothing that the program can observe and never faults, so that the
/// intrinsic itself is safe.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse")]
#[inline]
fn prefetch_sse<T>(value: &T, octets: usize) {
    use std::arch::x86_64::_MM_HINT_T0;
    use std::arch::x86_64::_mm_prefetch;
    for at in (0..octets).step_by(LINE) {
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().wrapping_add(at));
    }
}

/// Asks for the keys of the first packets of a batch.
#[inline(always)]
pub(crate) fn prefetch_first<K>(ops: &[Op<'_, K>]) {
    for op in ops.iter().take(AHEAD) {
        prefetch(op.key);
    }
}

/// Asks for the text of the packet after `at`, which another core or a device may have written, and
/// for the key of the packet [`AHEAD`] of it, unless that is the one in use.
#[inline(always)]
pub(crate) fn prefetch_later<K>(ops: &[Op<'_, K>], at: usize) {
    if let Some(next) = ops.get(at + 1) {
        next.esp.chunks(LINE).for_each(|line| prefetch(&line[0]));
    }
    if let Some(later) = ops.get(at + AHEAD)
        && !std::ptr::eq(later.key, ops[at].key)
    {
        prefetch(later.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of any size, also none, may be asked for; they are unchanged.
    #[test]
    fn values_are_unchanged() {
        let value = [7_u8; 1000];
        prefetch(&value);
        prefetch(&());
        prefetch_start::<4, _>(&value);
        prefetch_start::<4, _>(&());
        assert_eq!(value, [7; 1000]);
    }
}
