//! The one place where shared memory becomes a reference.
//!
//! What processes share at once consists of atomics only, so that others may write to it at any time; a `&mut` into that must
//! never exist. A [`Window`] is one thread's own, and others look at its part of the file only when its process is gone.
#![allow(unsafe_code, reason = "mmap, and the reference that it gives")]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::arena::layout::Layout;
use super::tally::page::Page;

/// What may be mapped.
///
/// # Safety
/// The type is `#[repr(C)]` of atomics only, without padding: any bytes are a value of it, and they may change under
/// a shared reference at any time. Its alignment is at most a page's.
pub(super) unsafe trait Shared: Sync {}

// SAFETY: atomics only, padding spelt out; pinned by the tests of `layout`.
unsafe impl Shared for Layout {}
// SAFETY: atomics only, padding spelt out; pinned by the tests of `tally`.
unsafe impl Shared for Page {}

/// The start of a file, mapped for as long as this lives.
pub(super) struct Mapping<T: Shared>(NonNull<T>);

// SAFETY: the mapping belongs to no thread, and what it gives out is `&T` with `T: Sync`.
unsafe impl<T: Shared> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapping<T> {}

/// A part of a file that this process alone maps, and one thread writes to.
pub(super) struct Window {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to no thread; what it gives out are borrows of the one owner.
unsafe impl Send for Window {}

impl<T: Shared> Mapping<T> {
    /// Maps the start of `fd`, which must have been checked to be sealed and large enough.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(map(fd, 0, size_of::<T>())?.cast()))
    }
}

impl Window {
    /// Maps a part of `fd` that nobody else maps or writes to as long as this lives.
    pub(super) fn new(fd: BorrowedFd<'_>, from: u64, length: usize) -> io::Result<Self> {
        Ok(Self { address: map(fd, from, length)?, length })
    }
}

/// Maps a part of a file that is there and stays.
fn map(fd: BorrowedFd<'_>, from: u64, length: usize) -> io::Result<NonNull<u8>> {
    // Looked at again here, since everything hangs on it: a short file would kill whoever touches its end.
    let seals = rustix::fs::fcntl_get_seals(fd)?;
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or_default();
    let end = from.checked_add(length as u64).filter(|end| *end <= size);
    if !seals.contains(rustix::fs::SealFlags::SHRINK) || end.is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of anybody.
    let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, fd, from) }?;
    // SAFETY: the range is the mapping made above; the advice changes core dumps only.
    let advised = unsafe { madvise(base, length, Advice::LinuxDontDump) };
    match NonNull::new(base.cast::<u8>()) {
        Some(address) if advised.is_ok() => Ok(address),
        _ => {
            unmap(base, length);
            advised?;
            Err(io::ErrorKind::AddrNotAvailable.into())
        }
    }
}

/// Ends a mapping of [`map`], to which no reference is left.
fn unmap(base: *mut std::ffi::c_void, length: usize) {
    // SAFETY: the callers own the mapping, and all references into it borrow from them.
    if let Err(error) = unsafe { munmap(base, length) } {
        tracing::error!(%error, "shared memory stays mapped");
    }
}

impl<T: Shared> Deref for Mapping<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the range is mapped until drop, page-aligned, backed by a file that cannot shrink, and `Shared` says
        // that any bytes that others put there are a `T`.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Shared> Drop for Mapping<T> {
    fn drop(&mut self) {
        unmap(self.0.as_ptr().cast(), size_of::<T>());
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until drop, backed by a file that cannot shrink; nobody else writes there.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }
}

impl DerefMut for Window {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else reads there while this process lives.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        unmap(self.address.as_ptr().cast(), self.length);
    }
}

impl<T: Shared> fmt::Debug for Mapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mapping").field(&self.0).finish()
    }
}
