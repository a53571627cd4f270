//! When a client connection has waited long enough, from what can be seen of it. Pure: no IO, no timer.

use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::Limits;

/// Longest time that a client may take nothing of an answer (nginx's `send_timeout`).
pub(super) const STALL: Duration = Duration::from_secs(60);

/// What can be seen of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// Bytes read so far.
    pub(super) read: u64,
    /// Bytes written so far.
    pub(super) written: u64,
    /// Whether everything written has been taken by the socket.
    pub(super) flushed: bool,
    /// Whether a request is being answered.
    pub(super) busy: bool,
}

/// Why a connection is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing was asked.
    Idle,
    /// A request began and did not end.
    Head,
    /// The client does not take its answer.
    Stalled,
}

/// Knows since when a connection has been in its phase.
#[derive(Debug)]
pub(super) struct Clock {
    header: Duration,
    keep_alive: Duration,
    fresh: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle { since: Instant, read: u64 },
    Head { since: Instant },
    Busy,
    Writing { since: Instant, written: u64 },
}

// === impl Clock ===

impl Clock {
    /// For a connection accepted at `now`.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            header: limits.header_timeout,
            keep_alive: limits.keep_alive_timeout,
            fresh: true,
            phase: Phase::Idle { since: now, read: 0 },
        }
    }

    /// Until when to wait, and what it means when nothing has changed by then. The time is only asked for if something has.
    pub(super) fn deadline(
        &mut self,
        seen: Observation,
        now: impl FnOnce() -> Instant,
    ) -> Option<(Instant, Expiry)> {
        self.phase = self.next(seen, now);
        match self.phase {
            Phase::Writing { since, .. } => Some((since + STALL, Expiry::Stalled)),
            Phase::Busy => {
                self.fresh = false;
                None
            }
            // A client that has never asked anything gets the time of a request, not of a pause.
            Phase::Idle { since, .. } => {
                let patience = if self.fresh { self.header } else { self.keep_alive };
                Some((since + patience, Expiry::Idle))
            }
            Phase::Head { since } => Some((since + self.header, Expiry::Head)),
        }
    }

    fn next(&self, seen: Observation, now: impl FnOnce() -> Instant) -> Phase {
        match self.phase {
            Phase::Writing { since, written } if !seen.flushed && written == seen.written => {
                Phase::Writing { since, written }
            }
            _ if !seen.flushed => Phase::Writing { since: now(), written: seen.written },
            _ if seen.busy => Phase::Busy,
            Phase::Head { since } => Phase::Head { since },
            Phase::Idle { read, .. } if seen.read > read => Phase::Head { since: now() },
            Phase::Idle { since, read } => Phase::Idle { since, read },
            Phase::Busy | Phase::Writing { .. } => Phase::Idle { since: now(), read: seen.read },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Table;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: Observation = Observation { read: 0, written: 0, flushed: true, busy: false };

    fn clock(now: Instant) -> Clock {
        let mut limits = Table::empty().limits;
        (limits.header_timeout, limits.keep_alive_timeout) = (60 * SECOND, 75 * SECOND);
        Clock::new(&limits, now)
    }

    #[tokio::test]
    async fn a_head_has_its_time_from_its_first_byte() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.deadline(QUIET, || now), Some((now + 60 * SECOND, Expiry::Idle)));
        let begun = Observation { read: 3, ..QUIET };
        let then = now + 5 * SECOND;
        assert_eq!(clock.deadline(begun, || then), Some((then + 60 * SECOND, Expiry::Head)));
        let more = Observation { read: 9, ..QUIET };
        assert_eq!(
            clock.deadline(more, || then + SECOND),
            Some((then + 60 * SECOND, Expiry::Head))
        );
    }

    #[tokio::test]
    async fn a_request_has_no_deadline_here_and_keep_alive_begins_after_it() {
        let now = Instant::now();
        let mut clock = clock(now);
        let busy = Observation { read: 40, busy: true, ..QUIET };
        assert_eq!(clock.deadline(busy, || now), None);
        let done = Observation { read: 40, written: 90, ..QUIET };
        let then = now + 9 * SECOND;
        assert_eq!(clock.deadline(done, || then), Some((then + 75 * SECOND, Expiry::Idle)));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_stalls_and_each_byte_taken_counts() {
        let now = Instant::now();
        let mut clock = clock(now);
        let stuck = Observation { written: 10, flushed: false, busy: true, read: 40 };
        assert_eq!(clock.deadline(stuck, || now), Some((now + STALL, Expiry::Stalled)));
        let then = now + 50 * SECOND;
        assert_eq!(clock.deadline(stuck, || then), Some((now + STALL, Expiry::Stalled)));
        let moved = Observation { written: 11, ..stuck };
        assert_eq!(clock.deadline(moved, || then), Some((then + STALL, Expiry::Stalled)));
    }
}
