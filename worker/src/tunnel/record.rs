//! What a tunnel's thread and everybody else share about it: its facts, its counters and its deadlines.
//!
//! All of it is atomic; the thread never waits for those who list or close.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_proto::control;

use super::{Cause, TunnelFacts, TunnelId};

/// No deadline. Later than any other.
const NEVER: u64 = u64::MAX;

/// Milliseconds since the engine started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

/// One live tunnel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: TunnelId,
    pub(super) facts: TunnelFacts,
    /// Index of the thread that runs it.
    pub(super) thread: usize,
    pub(super) opened_ms: u64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// When a byte moved last.
    pub(super) moved_ms: AtomicU64,
    /// `ms << 8 | cause`, so that the least is the earliest. Never taken back.
    stop: AtomicU64,
    /// Set while the backend is not configured.
    retire_ms: AtomicU64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now_ms(self) -> u64 {
        self.at_ms(Instant::now())
    }

    /// An instant on this clock; what lies before its start is its start.
    pub(super) fn at_ms(self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0).as_millis()).unwrap_or(NEVER)
    }
}

impl Record {
    pub(super) fn new(id: TunnelId, facts: TunnelFacts, thread: usize, now_ms: u64) -> Self {
        Self {
            id,
            facts,
            thread,
            opened_ms: now_ms,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            moved_ms: AtomicU64::new(now_ms),
            stop: AtomicU64::new(NEVER),
            retire_ms: AtomicU64::new(NEVER),
        }
    }

    /// Sets a deadline; an earlier one stays.
    pub(super) fn stop_at(&self, at_ms: u64, cause: Cause) {
        // 2^56 milliseconds are two million years.
        self.stop.fetch_min((at_ms.min(NEVER >> 9) << 8) | cause as u64, Ordering::Relaxed);
    }

    /// Starts the time that is left without the backend, unless it runs already; or stops it.
    pub(super) fn retire_at(&self, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.retire_ms.fetch_min(at_ms, Ordering::Relaxed),
            None => self.retire_ms.swap(NEVER, Ordering::Relaxed),
        };
    }

    /// The next deadline as of now, and what it means.
    pub(super) fn due(&self) -> (u64, Cause) {
        let stop = self.stop.load(Ordering::Relaxed);
        let code = usize::try_from(stop & 0xff).unwrap_or_default();
        let cause = Cause::ALL.get(code).copied().unwrap_or(Cause::Lost);
        let stop = if stop == NEVER { NEVER } else { stop >> 8 };
        let retire = self.retire_ms.load(Ordering::Relaxed);
        let idle = match u64::try_from(self.facts.idle_timeout.as_millis()) {
            Ok(limit @ 1..) => self.moved_ms.load(Ordering::Relaxed).saturating_add(limit),
            Ok(0) | Err(_) => NEVER,
        };
        let mut due = (stop, cause);
        for other in [(retire, Cause::BackendRemoved), (idle, Cause::Idle)] {
            if other.0 < due.0 {
                due = other;
            }
        }
        due
    }

    pub(super) fn backend(&self) -> String {
        let TunnelFacts { backend, backend_port, .. } = &self.facts;
        if backend.contains(':') {
            format!("[{backend}]:{backend_port}")
        } else {
            format!("{backend}:{backend_port}")
        }
    }

    /// The tunnel as operators see it.
    pub(super) fn describe(&self, now_ms: u64) -> control::Tunnel {
        let facts = &self.facts;
        control::Tunnel {
            id: self.id,
            site: facts.site.to_string(),
            pool: facts.pool.to_string(),
            settings: facts.settings.to_string(),
            backend: self.backend(),
            client: facts.client.to_string(),
            opened_unix_ms: unix_ms(facts.opened),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            idle_ms: now_ms.saturating_sub(self.moved_ms.load(Ordering::Relaxed)),
            trace_id: facts.trace_id.to_string(),
        }
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
