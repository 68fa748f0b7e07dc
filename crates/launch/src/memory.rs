//! What a trapped call points at, in the memory of the process that made it.
//!
//! Any number may be there instead of a pointer: the kernel says `EFAULT` then, and so does the
//! call. A process that changes its memory meanwhile fools itself alone, as what is read here is
//! read once and checked after that.

use std::io::IoSlice;
use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::RemoteIoVec;
use nix::sys::uio::process_vm_readv;
use nix::sys::uio::process_vm_writev;
use nix::unistd::Pid;

fn remote(address: u64, len: usize) -> Result<[RemoteIoVec; 1], Errno> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    Ok([RemoteIoVec { base, len }])
}

/// Reads so many octets.
pub(crate) fn read<const N: usize>(thread: i32, address: u64) -> Result<[u8; N], Errno> {
    let mut octets = [0; N];
    let mut local = [IoSliceMut::new(&mut octets)];
    let len = process_vm_readv(Pid::from_raw(thread), &mut local, &remote(address, N)?)?;
    if len == N { Ok(octets) } else { Err(Errno::EFAULT) }
}

/// Writes all of these octets.
pub(crate) fn write(thread: i32, address: u64, octets: &[u8]) -> Result<(), Errno> {
    if octets.is_empty() {
        return Ok(());
    }
    let local = [IoSlice::new(octets)];
    let remote = remote(address, octets.len())?;
    let len = process_vm_writev(Pid::from_raw(thread), &local, &remote)?;
    if len == octets.len() { Ok(()) } else { Err(Errno::EFAULT) }
}
