//! The one place of this crate where a number becomes an owned descriptor.
#![allow(unsafe_code, reason = "accept4 hands out a raw number; AsyncFd asks for a promise")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockFlag, accept4};
use tokio::io::unix::AsyncFd;

/// Takes the next connection, close-on-exec and non-blocking.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just made this descriptor and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor for as long as it lives, and AsyncFd owns it from here on.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
