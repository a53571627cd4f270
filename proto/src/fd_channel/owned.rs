//! The one place of this crate where a number becomes an owned descriptor.
#![allow(
    unsafe_code,
    reason = "accept4 and SCM_RIGHTS hand out raw numbers; AsyncFd asks for a promise"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{SockFlag, accept4};
use tokio::io::unix::AsyncFd;

/// Takes the next connection, close-on-exec and non-blocking.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just made this descriptor and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Owns what a packet brought.
pub(super) fn adopt(received: Vec<RawFd>) -> Vec<OwnedFd> {
    received
        .into_iter()
        // SAFETY: the kernel installed these in this process for this packet, and each is listed once.
        .map(|raw| unsafe { OwnedFd::from_raw_fd(raw) })
        .collect()
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor for as long as it lives, and AsyncFd owns it from here on.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
