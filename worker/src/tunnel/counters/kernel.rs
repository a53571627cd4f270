//! The kernel's figures of one TCP socket, as its calls give them: two questions that no safe crate asks.
#![allow(unsafe_code, reason = "getsockopt(TCP_INFO) and ioctl(SIOCINQ, SIOCOUTQ)")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// The part of `struct tcp_info` that is read: up to and with `tcpi_bytes_received`, there since Linux 4.1.
const LENGTH: usize = 136;

/// What is read of `struct tcp_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) state: u8,
    pub(super) last_data_recv_ms: u32,
    /// 0: never measured.
    pub(super) round_trip_us: u32,
    pub(super) bytes_acked: u64,
    pub(super) bytes_received: u64,
}

/// A queue of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Queue {
    /// Arrived and not read.
    In,
    /// Sent by us, and not acknowledged by the peer.
    Out,
}

/// `getsockopt(TCP_INFO)`.
pub(super) fn info(fd: BorrowedFd<'_>) -> io::Result<Info> {
    let mut bytes = [0_u8; LENGTH];
    let mut length = libc::socklen_t::try_from(LENGTH).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `bytes`, and the new length to `length`; both outlive the
    // call.
    let outcome = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(length) != Ok(LENGTH) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "TCP_INFO has no byte counters"));
    }
    Ok(Info::parse(&bytes))
}

/// How many bytes are in a queue.
pub(super) fn queued(fd: BorrowedFd<'_>, queue: Queue) -> io::Result<u64> {
    let request = match queue {
        Queue::In => libc::FIONREAD,
        Queue::Out => libc::TIOCOUTQ,
    };
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int, to `count`, which outlives the call.
    let outcome = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut count) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(count).map_err(|_| io::Error::other("a queue of negative length"))
}

impl Info {
    /// By the offsets of the kernel's ABI: fields are only ever added at the end.
    fn parse(bytes: &[u8; LENGTH]) -> Self {
        let [state, ..] = *bytes;
        Self {
            state,
            last_data_recv_ms: u32::from_ne_bytes(take(bytes, 52)),
            round_trip_us: u32::from_ne_bytes(take(bytes, 68)),
            bytes_acked: u64::from_ne_bytes(take(bytes, 120)),
            bytes_received: u64::from_ne_bytes(take(bytes, 128)),
        }
    }
}

/// `N` bytes from an offset; zeroes where there are none.
fn take<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}
