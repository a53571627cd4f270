//! When an HTTP/2 connection has waited long enough, from what can be seen of it. Pure: no IO, no timer.

use std::time::Duration;

use tokio::time::Instant;

use super::LEAVING;
use crate::http::clock::{Observation, STALL};
use crate::snapshot::Limits;

/// Between two requests (Azure: 180 s, fixed).
const IDLE: Duration = Duration::from_secs(180);

/// Why a connection is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing was asked.
    Idle,
    /// It has nothing to do, and does not go.
    Left,
    /// The client takes nothing at all.
    Stalled,
}

/// Knows since when a connection has been in its phase.
#[derive(Debug)]
pub(super) struct Clock {
    /// Until the first request.
    first: Duration,
    fresh: bool,
    leaving: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Whatever comes or goes without a request: a PING and its answer are no reason to stay.
    /// But while it leaves, what it is still sent counts: the end of its last answer may wait in h2.
    Idle {
        since: Instant,
        written: u64,
    },
    Busy,
    Writing {
        since: Instant,
        written: u64,
    },
}

// === impl Clock ===

impl Clock {
    /// For a connection accepted at `now`.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let phase = Phase::Idle { since: now, written: 0 };
        Self { first: limits.header_timeout, fresh: true, leaving: false, phase }
    }

    /// Until when to wait, and what it means when nothing has changed by then. The time is only asked for if something has.
    /// `leaving`: it has been told to go.
    pub(super) fn deadline(
        &mut self,
        seen: Observation,
        leaving: bool,
        now: impl Fn() -> Instant,
    ) -> Option<(Instant, Expiry)> {
        self.phase = self.next(seen, &now);
        if leaving
            && !std::mem::replace(&mut self.leaving, true)
            && let Phase::Idle { since, written } = &mut self.phase
        {
            // The GOAWAY is no answer.
            (*since, *written) = (now(), seen.written);
        }
        match self.phase {
            Phase::Writing { since, .. } => Some((since + STALL, Expiry::Stalled)),
            Phase::Busy => {
                self.fresh = false;
                None
            }
            Phase::Idle { since, .. } if leaving => Some((since + LEAVING, Expiry::Left)),
            Phase::Idle { since, .. } if self.fresh => Some((since + self.first, Expiry::Idle)),
            Phase::Idle { since, .. } => Some((since + IDLE, Expiry::Idle)),
        }
    }

    fn next(&self, seen: Observation, now: impl Fn() -> Instant) -> Phase {
        match self.phase {
            Phase::Writing { since, written } if !seen.flushed && written == seen.written => {
                Phase::Writing { since, written }
            }
            _ if !seen.flushed => Phase::Writing { since: now(), written: seen.written },
            _ if seen.busy => Phase::Busy,
            Phase::Idle { written, .. } if self.leaving && written != seen.written => {
                Phase::Idle { since: now(), written: seen.written }
            }
            Phase::Idle { since, written } => Phase::Idle { since, written },
            Phase::Busy | Phase::Writing { .. } => {
                Phase::Idle { since: now(), written: seen.written }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::snapshot::Table;

    const SECOND: Duration = Duration::from_secs(1);
    const QUIET: Observation = Observation { read: 0, written: 0, flushed: true, busy: false };

    fn clock(now: Instant) -> Clock {
        let mut limits = Table::empty().limits;
        limits.header_timeout = 60 * SECOND;
        Clock::new(&limits, now)
    }

    #[tokio::test]
    async fn who_asks_nothing_has_the_time_of_a_request_and_then_a_pause() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.deadline(QUIET, false, || now), Some((now + 60 * SECOND, Expiry::Idle)));
        let busy = Observation { busy: true, read: 9, ..QUIET };
        assert_eq!(clock.deadline(busy, false, || now), None);
        let then = now + 100 * SECOND;
        let done = Observation { written: 50, ..QUIET };
        assert_eq!(clock.deadline(done, false, || then), Some((then + IDLE, Expiry::Idle)));
        let pinged = Observation { read: 5000, written: 4000, ..QUIET };
        let later = then + 10 * SECOND;
        assert_eq!(clock.deadline(pinged, false, || later), Some((then + IDLE, Expiry::Idle)));
    }

    #[tokio::test]
    async fn who_was_told_to_go_has_little_time_once_there_is_nothing_to_do() {
        let now = Instant::now();
        let mut clock = clock(now);
        let busy = Observation { busy: true, ..QUIET };
        assert_eq!(clock.deadline(busy, true, || now), None);
        let then = now + 100 * SECOND;
        assert_eq!(clock.deadline(QUIET, true, || then), Some((then + LEAVING, Expiry::Left)));
        // The end of an answer is still on its way.
        let (sent, later) = (Observation { written: 9, ..QUIET }, then + 4 * SECOND);
        assert_eq!(clock.deadline(sent, true, || later), Some((later + LEAVING, Expiry::Left)));
        let last = later + SECOND;
        assert_eq!(clock.deadline(sent, true, || last), Some((later + LEAVING, Expiry::Left)));
    }

    #[tokio::test]
    async fn what_tells_a_client_to_go_puts_its_end_not_off() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.deadline(QUIET, false, || now), Some((now + 60 * SECOND, Expiry::Idle)));
        let (told, then) = (Observation { written: 50, ..QUIET }, now + 60 * SECOND);
        assert_eq!(clock.deadline(told, true, || then), Some((then + LEAVING, Expiry::Left)));
        let later = then + LEAVING;
        assert_eq!(clock.deadline(told, true, || later), Some((later, Expiry::Left)));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_stalls() {
        let now = Instant::now();
        let mut clock = clock(now);
        let stuck = Observation { flushed: false, written: 3, busy: true, ..QUIET };
        assert_eq!(clock.deadline(stuck, false, || now), Some((now + STALL, Expiry::Stalled)));
        let then = now + 59 * SECOND;
        assert_eq!(clock.deadline(stuck, false, || then), Some((now + STALL, Expiry::Stalled)));
    }
}
