//! One live tunnel as this process knows it: its facts, its two sockets, and its cell in the arena, which holds all
//! that a successor needs.
//!
//! Counters, deadlines and marks live in the cell, as atomics; the tunnel's thread never waits for those who list or
//! close. Nothing here moves a byte.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_proto::control;

use super::arena::{Cell, ends};
use super::leg::Side;
use super::leg_end::LegEnd;
use super::pin::Pin;
use super::slot::Slot;
use super::{Cause, TunnelFacts, TunnelId};
use crate::load::{self, Held};

/// No deadline. Later than any other.
pub(super) const NEVER: u64 = u64::MAX;

/// A peer counts silence from when it has the last byte, which is later than we count from: an end is never early for it.
const IDLE_SLACK_MS: u64 = 50;

/// The kernel's monotonic clock: the same for every process, so that deadlines outlive the one that set them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock;

/// One live tunnel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: TunnelId,
    pub(super) facts: TunnelFacts,
    /// Index of the thread that runs it.
    pub(super) thread: usize,
    /// Why it cannot move to another process, if it cannot.
    pub(super) pinned: Option<Pin>,
    pub(super) slot: Slot,
    /// Its backend has it in hand for as long as it is one of this process's.
    pub(super) held: Held,
    client: Arc<OwnedFd>,
    backend: Arc<OwnedFd>,
    /// The vault holds its sockets.
    protected: AtomicBool,
    /// The vault was told of it; changes under the outbox's lock.
    offered: AtomicBool,
    /// Nobody may tell the vault of it any more; changes under the outbox's lock.
    released: AtomicBool,
}

// === impl Clock ===

impl Clock {
    pub(super) fn now_ms(self) -> u64 {
        self.now_us() / 1000
    }

    #[expect(
        clippy::unused_self,
        reason = "there is one such clock, and it is asked for by its name"
    )]
    pub(super) fn now_us(self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000)
    }

    /// An instant on this clock; what is past is now.
    pub(super) fn at_ms(self, at: Instant) -> u64 {
        let left = at.saturating_duration_since(Instant::now()).as_millis();
        self.now_ms().saturating_add(u64::try_from(left).unwrap_or(NEVER))
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(
        id: TunnelId,
        facts: TunnelFacts,
        thread: usize,
        pinned: Option<Pin>,
        slot: Slot,
        [client, backend]: [Arc<OwnedFd>; 2],
    ) -> Self {
        let [protected, offered, released] = [(); 3].map(|()| AtomicBool::new(false));
        Self {
            id,
            held: load::of(&facts.backend, facts.backend_port).hold(),
            facts,
            thread,
            pinned,
            slot,
            client,
            backend,
            protected,
            offered,
            released,
        }
    }

    pub(super) fn cell(&self) -> &Cell {
        &self.slot
    }

    /// Both legs are plain TCP with counters that can be trusted: it can move to another process.
    pub(super) const fn is_portable(&self) -> bool {
        self.pinned.is_none()
    }

    /// The sockets, client's first.
    pub(super) fn sockets(&self) -> [&Arc<OwnedFd>; 2] {
        [&self.client, &self.backend]
    }

    pub(super) fn is_protected(&self) -> bool {
        self.protected.load(Ordering::Relaxed)
    }

    /// Notes whether the vault holds it.
    pub(super) fn protect(&self, held: bool) {
        self.protected.store(held, Ordering::Relaxed);
        if held {
            self.note_offered();
            self.mark(ends::PROTECTED);
        }
    }

    pub(super) fn note_offered(&self) {
        self.offered.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    pub(super) fn note_released(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    pub(super) fn mark(&self, flag: u64) {
        self.cell().set_ends(flag);
    }

    pub(super) fn is_marked(&self, flag: u64) -> bool {
        self.cell().has_ends(flag)
    }

    /// Which side ended first, as a cause.
    pub(super) fn first_end(&self) -> Option<Cause> {
        if self.is_marked(ends::FIRST_END_CLIENT) {
            let truncated = self.is_marked(ends::CLIENT_TRUNCATED);
            Some(if truncated { Cause::Truncated } else { Cause::Client })
        } else if self.is_marked(ends::FIRST_END_BACKEND) {
            let truncated = self.is_marked(ends::BACKEND_TRUNCATED);
            Some(if truncated { Cause::Truncated } else { Cause::Backend })
        } else {
            None
        }
    }

    /// Notes that a side has ended; the first one is the cause of the tunnel's end.
    pub(super) fn note_end(&self, side: Side, truncated: bool) {
        let (end, cut) = match side {
            Side::Client => (ends::FIRST_END_CLIENT, ends::CLIENT_TRUNCATED),
            Side::Backend => (ends::FIRST_END_BACKEND, ends::BACKEND_TRUNCATED),
        };
        if truncated {
            self.mark(cut);
        }
        if self.first_end().is_none() {
            self.mark(end);
        }
    }

    pub(super) fn count_moved(&self, moved: [u64; 2], now_ms: u64) {
        let cell = self.cell();
        cell.add_bytes(moved);
        cell.moved_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Sets a deadline; an earlier one stays.
    pub(super) fn stop_at(&self, at_ms: u64, cause: Cause) {
        // 2^56 milliseconds are two million years.
        let stop = (at_ms.min(NEVER >> 9) << 8) | cause as u64;
        self.cell().stop.fetch_min(stop, Ordering::Relaxed);
    }

    /// Starts the time that is left without the backend, unless it runs already; or stops it.
    pub(super) fn retire_at(&self, at_ms: Option<u64>) {
        let retire = &self.cell().retire_ms;
        match at_ms {
            Some(at_ms) => retire.fetch_min(at_ms, Ordering::Relaxed),
            None => retire.swap(NEVER, Ordering::Relaxed),
        };
    }

    /// The next deadline as of now, and what it means.
    pub(super) fn due(&self) -> (u64, Cause) {
        let cell = self.cell();
        let stop = cell.stop.load(Ordering::Relaxed);
        let cause = Cause::from_code(stop & 0xff);
        let stop = if stop == NEVER { NEVER } else { stop >> 8 };
        let retire = cell.retire_ms.load(Ordering::Relaxed);
        let idle = match cell.idle_timeout_ms.load(Ordering::Relaxed) {
            0 => NEVER,
            limit => cell.moved_ms.load(Ordering::Relaxed).saturating_add(limit + IDLE_SLACK_MS),
        };
        let mut due = (stop, cause);
        for other in [(retire, Cause::BackendRemoved), (idle, Cause::Idle)] {
            if other.0 < due.0 {
                due = other;
            }
        }
        due
    }

    /// How long it has been open.
    pub(super) fn age(&self, now_ms: u64) -> Duration {
        let opened_ms = self.cell().opened_mono_ms.load(Ordering::Relaxed);
        Duration::from_millis(now_ms.saturating_sub(opened_ms))
    }

    pub(super) fn backend(&self) -> String {
        self.facts.backend_label()
    }

    /// The tunnel as operators see it.
    pub(super) fn describe(&self, now_ms: u64) -> control::Tunnel {
        let (facts, cell) = (&self.facts, self.cell());
        let [bytes_in, bytes_out] = cell.bytes();
        // It has not ended: no cause says what a leg broke by.
        let [client_end, backend_end] =
            LegEnd::both(cell, Cause::Lost).map(|end| end.as_str().to_owned());
        control::Tunnel {
            id: self.id,
            site: facts.site.to_string(),
            pool: facts.pool.to_string(),
            settings: facts.settings.to_string(),
            backend: self.backend(),
            client: facts.client.to_string(),
            opened_unix_ms: unix_ms(facts.opened),
            bytes_in,
            bytes_out,
            idle_ms: now_ms.saturating_sub(cell.moved_ms.load(Ordering::Relaxed)),
            trace_id: facts.trace_id.to_string(),
            pinned: self.pinned.map_or_else(String::new, |pin| pin.as_str().to_owned()),
            client_end,
            backend_end,
        }
    }
}

/// A wall-clock time as the arena keeps it.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
