//! Memory that is allocated once, in huge pages where there are any.
//!
//! A worker goes through megabytes of packets in a few milliseconds. In pages of 4 KiB nearly each
//! of them costs a walk of the page tables, and in a virtual machine that is a walk of two; a huge
//! page covers a thousand frames. Three things are tried: pages that the administrator has set
//! aside (`vm.nr_hugepages`), then ordinary memory which the kernel is asked to make of huge pages
//! (`MADV_HUGEPAGE`, most kernels do), then what there is.
//!
//! # Why the unsafe code here is sound
//!
//! New mappings at addresses that the kernel chooses, never unmapped: they touch nothing else.

use std::alloc::Layout;
use std::alloc::alloc_zeroed;
use std::alloc::handle_alloc_error;
use std::fmt;
use std::ptr;
use std::ptr::NonNull;

const PAGE: usize = 4096;

/// Size of a huge page; less memory than that is not worth one.
const HUGE_PAGE: usize = 2 << 20;

/// What kind of pages memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages that were set aside.
    Reserved,
    /// Huge pages that the kernel put together when it was asked for them, at least in part.
    Transparent,
    /// Pages of the usual size.
    Ordinary,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pages::Reserved => "huge, reserved",
            Pages::Transparent => "huge, transparent",
            Pages::Ordinary => "ordinary",
        })
    }
}

/// Zeroed memory of `len` octets, aligned to a page and never given back. Aborts when memory is
/// exhausted.
pub(crate) fn leak(len: usize) -> NonNull<u8> {
    let huge = len.checked_next_multiple_of(HUGE_PAGE).filter(|_| len >= HUGE_PAGE);
    let mapped = huge.and_then(|len| map_reserved(len).or_else(|| map_transparent(len)));
    mapped.unwrap_or_else(|| {
        let layout =
            Layout::from_size_align(len.next_multiple_of(PAGE), PAGE).expect("a possible size");
        assert!(len > 0, "there is no memory of no size");
        // SAFETY: the layout has a non-zero size. Why not safe: no safe API gives page alignment.
        let base = unsafe { alloc_zeroed(layout) };
        NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout))
    })
}

/// Memory of huge pages that were set aside, if there are enough of them.
fn map_reserved(len: usize) -> Option<NonNull<u8>> {
    map(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
}

/// Memory that begins where a huge page may, and which the kernel was asked to make of those.
fn map_transparent(len: usize) -> Option<NonNull<u8>> {
    // The surplus is never touched, so that it is no memory.
    let base = map(len.checked_add(HUGE_PAGE)?, 0)?;
    let surplus = base.as_ptr().align_offset(HUGE_PAGE);
    // SAFETY: less than a huge page, which the mapping is longer. Why not safe: pointer arithmetic.
    let base = unsafe { base.add(surplus) };
    // SAFETY: inside the mapping, and the advice changes no contents. Why not safe: there is no
    // safe form. Where it fails, pages have the usual size.
    let _ = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    Some(base)
}

fn map(len: usize, flags: libc::c_int) -> Option<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: no address is requested, so that no existing mapping is touched. Why not safe: the
    // standard library has no huge pages.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if base == libc::MAP_FAILED { None } else { NonNull::new(base.cast()) }
}

/// The pages that memory at `address` is made of now, as the kernel tells; `None` when it does not.
pub(crate) fn pages_at(address: usize) -> Option<Pages> {
    find_pages(&std::fs::read_to_string("/proc/self/smaps").ok()?, address)
}

/// Looks an address up in the text of `/proc/PID/smaps`.
fn find_pages(smaps: &str, address: usize) -> Option<Pages> {
    let mut fields = smaps.lines().skip_while(|line| !holds(line, address)).skip(1);
    let mut kilobytes = |name: &str| {
        let field = fields.find_map(|line| line.strip_prefix(name))?;
        field.trim().strip_suffix(" kB")?.parse::<usize>().ok()
    };
    let page = kilobytes("KernelPageSize:")?;
    let transparent = kilobytes("AnonHugePages:")?;
    Some(match (page * 1024 >= HUGE_PAGE, transparent) {
        (true, _) => Pages::Reserved,
        (false, 0) => Pages::Ordinary,
        (false, _) => Pages::Transparent,
    })
}

/// True for the first line of a mapping, `START-END PERMISSIONS ...`, that holds an address.
fn holds(line: &str, address: usize) -> bool {
    let range = line.split(' ').next().and_then(|range| range.split_once('-'));
    let number = |text| usize::from_str_radix(text, 16).ok();
    range
        .and_then(|(start, end)| Some(number(start)?..number(end)?))
        .is_some_and(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of any size is zeroed and aligned, that of some megabytes to a huge page.
    #[test]
    fn memory_is_zeroed_and_aligned() {
        for len in [1, 5000, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE + 1] {
            let base = leak(len);
            let align = if len < HUGE_PAGE { PAGE } else { HUGE_PAGE };
            assert_eq!(base.as_ptr().align_offset(align), 0, "{len}");
            // SAFETY: as long as it was asked for, and nobody else knows it.
            let memory = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) };
            assert!(memory.iter().all(|&octet| octet == 0));
            memory.fill(1);
            assert!(pages_at(base.as_ptr() as usize).is_some(), "{len}");
        }
    }

    const SMAPS: &str = "\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
KernelPageSize:        4 kB
AnonHugePages:      4096 kB
7f0000400000-7f0000800000 rw-p 00000000 00:10 77   /anon_hugepage (deleted)
KernelPageSize:     2048 kB
AnonHugePages:         0 kB
7ffc00000000-7ffc00020000 rw-p 00000000 00:00 0    [stack]
KernelPageSize:        4 kB
AnonHugePages:         0 kB
";

    /// The kernel's words about a mapping are understood, whichever of them it is.
    #[test]
    fn pages_are_found() {
        let found = |address| find_pages(SMAPS, address);
        assert_eq!(found(0x7f00_0000_0000), Some(Pages::Transparent));
        assert_eq!(found(0x7f00_003f_ffff), Some(Pages::Transparent));
        assert_eq!(found(0x7f00_0040_0000), Some(Pages::Reserved));
        assert_eq!(found(0x7ffc_0001_0000), Some(Pages::Ordinary));
        assert_eq!(found(0x7ffc_0002_0000), None);
        assert_eq!(found(0), None);
    }
}
