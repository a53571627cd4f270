//! The system calls of the relay, each with the flags that it must never be made without.
//!
//! Every call passes `MSG_DONTWAIT`: `O_NONBLOCK` belongs to the open file, which others may share. `SO_ERROR` is
//! never read: reading clears it, and whoever looks next mistakes a reset for an end.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

/// Looks at what has arrived, without taking it. Zero: the peer has ended.
pub(super) fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry(|| rustix::net::recv(fd, &mut *buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT))
        .map(|(count, _)| count)
}

/// Takes bytes that have been looked at; `seen` is only measured, never written.
pub(super) fn discard(fd: BorrowedFd<'_>, seen: &mut [u8]) -> Result<usize, Errno> {
    retry(|| rustix::net::recv(fd, &mut *seen, RecvFlags::TRUNC | RecvFlags::DONTWAIT))
        .map(|(_, count)| count)
}

/// Takes what has arrived.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry(|| rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT)).map(|(count, _)| count)
}

/// Hands bytes to the peer's send queue.
pub(super) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    retry(|| rustix::net::send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
}

/// [`send`] of several pieces.
pub(super) fn send_all(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry(|| rustix::net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), flags))
}

/// Passes on an end: FIN after everything sent. A leg that is already gone is noticed elsewhere.
pub(super) fn finish(fd: BorrowedFd<'_>) {
    if let Err(error) = rustix::net::shutdown(fd, Shutdown::Write) {
        tracing::debug!(%error, "a leg was gone before its FIN");
    }
}

/// Resets a connection at once, whoever else holds a duplicate of the socket.
pub(super) fn abort(fd: BorrowedFd<'_>) {
    let outcome = sockopt::set_socket_linger(fd, Some(Duration::ZERO))
        .and_then(|()| rustix::net::connect_unspec(fd));
    if let Err(error) = outcome {
        tracing::debug!(%error, "a leg could not be reset");
    }
}

/// What a leg that poll reports an error on has died of. Consumes the error: only for a leg that is at its end.
pub(super) fn epitaph(fd: BorrowedFd<'_>) -> Option<Errno> {
    send(fd, &[]).err()
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}
