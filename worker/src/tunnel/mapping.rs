//! The one place where shared memory becomes a reference.
//!
//! What is mapped consists of atomics only, so other processes may write to it at any time; a `&mut` into it must
//! never exist.
#![allow(unsafe_code, reason = "mmap, and the reference that it gives")]

use std::fmt;
use std::io;
use std::ops::Deref;
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

impl<T: Shared> Mapping<T> {
    /// Maps the start of `fd`, which must have been checked to be sealed and large enough.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // Looked at again here, since everything below hangs on it: a short file would kill whoever touches its end.
        let seals = rustix::fs::fcntl_get_seals(fd)?;
        let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or_default();
        if !seals.contains(rustix::fs::SealFlags::SHRINK) || size < size_of::<T>() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of anybody.
        let base =
            unsafe { mmap(ptr::null_mut(), size_of::<T>(), protection, MapFlags::SHARED, fd, 0) }?;
        let Some(address) = NonNull::new(base.cast::<T>()) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let mapping = Self(address);
        // SAFETY: the range is the mapping made above; the advice changes core dumps only.
        unsafe { madvise(base, size_of::<T>(), Advice::LinuxDontDump) }?;
        Ok(mapping)
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
        // SAFETY: this is the mapping made in `new`, and all references into it borrow from `self`.
        if let Err(error) = unsafe { munmap(self.0.as_ptr().cast(), size_of::<T>()) } {
            tracing::error!(%error, "shared memory stays mapped");
        }
    }
}

impl<T: Shared> fmt::Debug for Mapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mapping").field(&self.0).finish()
    }
}
