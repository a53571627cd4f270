//! How far a direction has come, by the kernel's own counters: what its target has accepted, what was consumed of its
//! source.
//!
//! They are exact in every state but for FINs, each of which counts as a byte, on both sides, as soon as it is sent or
//! has arrived. A received one is told from the state and taken out; behind an own one, nothing is left to compute.
//! Urgent bytes are counted right only with `SO_OOBINLINE`. `SO_ERROR` must never be read here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{ipproto, sockopt};
use thiserror::Error;

use super::arena::CARRY;

mod kernel;
#[cfg(test)]
mod tests;
mod trial;

use kernel::Queue;

/// How often the counters may change between two looks. Each look takes microseconds, and a peer's bytes come in
/// bursts with gaps.
const LOOKS: u32 = 1000;

/// States of `include/net/tcp_states.h`.
pub(super) mod state {
    pub(in crate::tunnel) const FIN_WAIT1: u8 = 4;
    pub(in crate::tunnel) const FIN_WAIT2: u8 = 5;
    pub(in crate::tunnel) const TIME_WAIT: u8 = 6;
    pub(in crate::tunnel) const CLOSE: u8 = 7;
    pub(in crate::tunnel) const CLOSE_WAIT: u8 = 8;
    pub(in crate::tunnel) const LAST_ACK: u8 = 9;
    pub(in crate::tunnel) const CLOSING: u8 = 11;
}

/// The counters of one socket at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Bytes that have arrived in order, the peer's FIN included.
    pub(super) received: u64,
    /// Bytes that the peer has acknowledged, an own FIN (and the opener's SYN) included.
    pub(super) acked: u64,
    /// Arrived and not read; the FIN not included.
    pub(super) in_queue: u64,
    /// Sent and not acknowledged, an own FIN included.
    pub(super) out_queue: u64,
    /// By `include/net/tcp_states.h`.
    pub(super) state: u8,
    /// How long ago data arrived last.
    pub(super) last_data_recv_ms: u32,
}

/// The counters of a leg when its tunnel began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Baseline {
    /// [`Snapshot::consumed`] then.
    pub(super) received: u64,
    /// [`Snapshot::accepted`] then.
    pub(super) accepted: u64,
}

/// The baselines of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bases {
    /// The source's.
    pub(super) received: u64,
    /// The target's.
    pub(super) accepted: u64,
}

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The target has got its FIN, or is gone.
    Done,
    /// So much of the prelude was sent, and nothing behind it.
    Prelude {
        /// Bytes of it.
        sent: u64,
    },
    /// The prelude is through.
    Stream {
        /// Bytes of the source that the target has accepted.
        moved: u64,
        /// The first bytes of the source's queue: the target has them already.
        discard: u64,
        /// The last bytes that were taken of the source: the target has not got them yet.
        owed: u64,
    },
}

/// The counters of a tunnel make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{what}: the source {source_now:?} and the target {target_now:?} began at {bases:?} with a prelude of {prelude_len}"
)]
pub(super) struct Impossible {
    what: &'static str,
    source_now: Snapshot,
    target_now: Snapshot,
    bases: Bases,
    prelude_len: u64,
}

/// Bytes that a peer has been sent and has not acknowledged, an own FIN included.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u64> {
    kernel::queued(fd, Queue::Out)
}

/// How long a TCP socket's peer takes to answer, as its kernel has smoothed it; `None` where it has not seen that, or
/// the socket is of another kind.
pub(crate) fn round_trip(socket: &impl AsFd) -> Option<Duration> {
    let micros = kernel::info(socket.as_fd()).ok()?.round_trip_us;
    (micros != 0).then(|| Duration::from_micros(micros.into()))
}

// === impl Snapshot ===

impl Snapshot {
    /// Reads the counters. They come by several calls, so they are read until nothing has moved in between.
    ///
    /// Exact only while nobody else reads from or writes to the socket.
    pub(super) fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let mut before = kernel::info(fd)?;
        for _ in 0..LOOKS {
            let in_queue = kernel::queued(fd, Queue::In)?;
            let out_queue = kernel::queued(fd, Queue::Out)?;
            let after = kernel::info(fd)?;
            let figures = |info: kernel::Info| (info.state, info.bytes_acked, info.bytes_received);
            if figures(before) == figures(after) {
                return Ok(Self {
                    received: after.bytes_received,
                    acked: after.bytes_acked,
                    in_queue,
                    out_queue,
                    state: after.state,
                    last_data_recv_ms: after.last_data_recv_ms,
                });
            }
            before = after;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a socket's counters do not hold still"))
    }

    /// Bytes handed to the socket. An own FIN counts, so ask [`Self::own_fin`] first.
    pub(super) fn accepted(&self) -> u64 {
        self.acked.saturating_add(self.out_queue)
    }

    /// Bytes read from the socket. `reset_seen`: the peer has reset the connection, so a closed state is no proof of
    /// its FIN.
    ///
    /// A reset that came behind a FIN leaves this one byte too high: nothing tells the two apart any more.
    pub(super) fn consumed(&self, reset_seen: bool) -> u64 {
        let fin = match self.state {
            state::TIME_WAIT | state::CLOSE_WAIT | state::LAST_ACK | state::CLOSING => 1,
            state::CLOSE if !reset_seen => 1,
            _ => 0,
        };
        self.received.saturating_sub(self.in_queue).saturating_sub(fin)
    }

    /// Whether we have sent a FIN, or the connection is gone.
    pub(super) fn own_fin(&self) -> bool {
        matches!(
            self.state,
            state::FIN_WAIT1
                | state::FIN_WAIT2
                | state::TIME_WAIT
                | state::CLOSE
                | state::LAST_ACK
                | state::CLOSING
        )
    }

    /// The baseline of a leg that is as in this snapshot.
    pub(super) fn baseline(&self) -> Baseline {
        Baseline { received: self.consumed(false), accepted: self.accepted() }
    }
}

/// Computes how far a direction has come. `kept`: from which byte of the source on there are bytes in the carry slot, which the
/// target may have got meanwhile.
pub(super) fn progress(
    source: &Snapshot,
    target: &Snapshot,
    bases: Bases,
    prelude_len: u64,
    kept: Option<u64>,
    source_reset_seen: bool,
) -> Result<Progress, Impossible> {
    if target.own_fin() {
        return Ok(Progress::Done);
    }
    let impossible =
        |what| Impossible { what, source_now: *source, target_now: *target, bases, prelude_len };
    let accepted = target
        .accepted()
        .checked_sub(bases.accepted)
        .ok_or(impossible("the target has accepted less than at the start"))?;
    let consumed = source
        .consumed(source_reset_seen)
        .checked_sub(bases.received)
        .ok_or(impossible("less of the source was consumed than at the start"))?;
    // A FIN before a reset is counted, and cannot be told.
    let doubt = u64::from(source_reset_seen && source.state == state::CLOSE);
    let Some(moved) = accepted.checked_sub(prelude_len).filter(|_| accepted >= prelude_len) else {
        return if consumed > doubt {
            Err(impossible("bytes were consumed before the prelude was sent"))
        } else {
            Ok(Progress::Prelude { sent: accepted })
        };
    };
    if consumed > moved.saturating_add(doubt) {
        return if kept.is_some_and(|from| from <= moved && consumed - from <= CARRY as u64) {
            Ok(Progress::Stream { moved, discard: 0, owed: consumed - moved })
        } else {
            Err(impossible("more was consumed than sent"))
        };
    }
    let discard = moved.saturating_sub(consumed);
    if discard > source.in_queue {
        return Err(impossible("more was sent than has arrived"));
    }
    Ok(Progress::Stream { moved, discard, owed: 0 })
}

/// Whether this kernel counts as tunnels need it, by trial. Says so where it does not.
pub(super) fn are_trusted() -> bool {
    let trial = trial::conclusive(trial::self_test);
    if let Err(error) = &trial {
        let error: &dyn std::error::Error = error;
        tracing::error!(
            error,
            "this kernel's counters do not behave: tunnels drain, they do not move"
        );
    }
    trial.is_ok()
}

/// Whether this is TCP itself: the counters of a multipath connection are those of one of its paths.
pub(super) fn is_plain_tcp(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_protocol(fd)? == Some(ipproto::TCP))
}
