//! Large pieces of memory, in huge pages where there are any.
//!
//! A worker goes through megabytes of packets in a few milliseconds. In pages of 4 KiB nearly each
//! of them costs a walk of the page tables, and in a virtual machine that is a walk of two; a huge
//! page covers a thousand frames. Three things are tried: pages that the administrator has set
//! aside (`vm.nr_hugepages`), then ordinary memory which the kernel is asked to make of huge pages
//! (`MADV_HUGEPAGE`, most kernels do), then what there is.
//!
//! # Why the unsafe code here is sound
//!
//! New mappings at addresses that the kernel chooses: they touch nothing else. What is unmapped is
//! what nobody knows of: ends of a mapping before it is handed out, and what its owner gives back.

use std::alloc::Layout;
use std::alloc::alloc_zeroed;
use std::alloc::dealloc;
use std::alloc::handle_alloc_error;
use std::fmt;
use std::ptr;
use std::ptr::NonNull;

/// What all of it is aligned to.
pub(crate) const PAGE: usize = 4096;

/// Size of a huge page; less memory than half of that is not worth one.
const HUGE_PAGE: usize = 2 << 20;
const WORTH_HUGE: usize = HUGE_PAGE / 2;

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

/// Zeroed memory of `len` octets, aligned to a page. Aborts when memory is exhausted.
pub(crate) fn allocate(len: usize) -> NonNull<u8> {
    let layout = layout(len);
    let memory = match layout.align() {
        // SAFETY: the layout has a non-zero size. Why not safe: no safe API gives page alignment.
        PAGE => NonNull::new(unsafe { alloc_zeroed(layout) }),
        _ => map_reserved(layout.size())
            .or_else(|| map_transparent(layout.size()))
            .or_else(|| map(layout.size(), 0)),
    };
    memory.unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives back what [`allocate`] returned.
///
/// # Safety
/// It is of this length, and nobody uses it from now on.
pub(crate) unsafe fn free(memory: NonNull<u8>, len: usize) {
    let layout = layout(len);
    match layout.align() {
        // SAFETY: it comes from the allocator, with this layout. Why not safe: it is an address.
        PAGE => unsafe { dealloc(memory.as_ptr(), layout) },
        // SAFETY: it is a mapping of this length. Why not safe: it is an address.
        _ => unsafe { unmap(memory, layout.size()) },
    }
}

/// What is allocated for `len` octets: huge pages, or pages of the usual size.
fn layout(len: usize) -> Layout {
    assert!(len > 0, "there is no memory of no size");
    let page = if len < WORTH_HUGE { PAGE } else { HUGE_PAGE };
    let size = len.checked_next_multiple_of(page).expect("a possible size");
    Layout::from_size_align(size, page).expect("a possible size")
}

/// Memory of huge pages that were set aside, if there are enough of them.
fn map_reserved(len: usize) -> Option<NonNull<u8>> {
    map(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
}

/// Memory that begins where a huge page may, and which the kernel was asked to make of those.
fn map_transparent(len: usize) -> Option<NonNull<u8>> {
    let all = map(len.checked_add(HUGE_PAGE)?, 0)?;
    let before = all.as_ptr().align_offset(HUGE_PAGE);
    // SAFETY: less than a huge page is before it, and the rest of one behind, by which the mapping
    // is longer. Why not safe: pointer arithmetic.
    let (base, end) = unsafe { (all.add(before), all.add(before + len)) };
    // SAFETY: the ends of our mapping, which nobody has seen. Why not safe: they are addresses.
    unsafe {
        unmap(all, before);
        unmap(end, HUGE_PAGE - before);
    }
    // SAFETY: inside the mapping, and the advice changes no contents. Why not safe: there is no
    // safe form. Where it fails, pages have the usual size.
    let _ = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    Some(base)
}

/// Takes memory out of the address space. Should the kernel refuse, it stays, and is nobody's.
///
/// # Safety
/// It is mapped by [`map`], and nobody uses it from now on.
unsafe fn unmap(memory: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: as the caller says. Why not safe: it is an address.
        let _ = unsafe { libc::munmap(memory.as_ptr().cast(), len) };
    }
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

    /// Memory of any size is zeroed and aligned, that of some megabytes to a huge page, and it is
    /// gone when it was given back.
    #[test]
    fn memory_is_zeroed_and_aligned() {
        let sizes = [1, 5000, WORTH_HUGE - 1, WORTH_HUGE, HUGE_PAGE, 2 * HUGE_PAGE + 1];
        for len in sizes.into_iter().chain(sizes) {
            let base = allocate(len);
            let align = if len < WORTH_HUGE { PAGE } else { HUGE_PAGE };
            assert_eq!(base.as_ptr().align_offset(align), 0, "{len}");
            // SAFETY: as long as it was asked for, and nobody else knows it.
            let memory = unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) };
            assert!(memory.iter().all(|&octet| octet == 0));
            memory.fill(1);
            assert!(pages_at(base.as_ptr().addr()).is_some(), "{len}");
            // SAFETY: nobody uses it any more.
            unsafe { free(base, len) };
        }
    }

    /// What is given back leaves the address space: a gigabyte passes through a few megabytes.
    #[test]
    fn memory_is_given_back() {
        let size = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').next().unwrap().parse::<usize>().unwrap() * PAGE
        };
        let before = size();
        for _ in 0..128 {
            let base = allocate(8 << 20);
            // SAFETY: nobody uses it.
            unsafe { free(base, 8 << 20) };
        }
        // Other tests run at the same time.
        assert!(size() < before + (512 << 20));
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
