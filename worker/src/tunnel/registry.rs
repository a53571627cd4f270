//! The live tunnels of a worker, by id, and what they add up to: shared by the engine's threads and their front.
//!
//! Nothing here waits; no code that can panic runs under a lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::record::{Clock, Record};
use super::totals::Totals;
use super::{Cause, TunnelId};

/// What the threads share.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) clock: Clock,
    live: Mutex<HashMap<TunnelId, Arc<Record>>>,
    totals: Mutex<Totals>,
    /// Notified when the last live tunnel has ended.
    pub(super) emptied: Notify,
    opened: AtomicU64,
    pub(super) turns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::start(),
            live: Mutex::default(),
            totals: Mutex::default(),
            emptied: Notify::new(),
            opened: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(super) fn count_bytes(&self, [inward, outward]: [u64; 2]) {
        self.bytes_in.fetch_add(inward, Ordering::Relaxed);
        self.bytes_out.fetch_add(outward, Ordering::Relaxed);
    }

    /// Takes an ended tunnel out, counts it and says so.
    pub(super) fn end(&self, record: &Record, cause: Cause) {
        let duration_ms = self.clock.now_ms().saturating_sub(record.opened_ms);
        let duration = Duration::from_millis(duration_ms);
        tracing::info!(
            tunnel = record.id,
            cause = cause.as_str(),
            bytes_in = record.bytes_in.load(Ordering::Relaxed),
            bytes_out = record.bytes_out.load(Ordering::Relaxed),
            duration_ms,
            site = &*record.facts.site,
            pool = &*record.facts.pool,
            backend = record.backend(),
            client = %record.facts.client,
            trace_id = &*record.facts.trace_id,
            "tunnel ended"
        );
        // Counted before it is gone, so that who has seen it go also sees it counted.
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).count_end(cause, duration);
        let empty = {
            let mut live = self.live();
            live.remove(&record.id);
            live.is_empty()
        };
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Figures since the start.
    pub(super) fn totals(&self) -> Totals {
        let closed = self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Totals {
            opened: self.opened.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            ..closed
        }
    }

    pub(super) fn count_opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn live(&self) -> MutexGuard<'_, HashMap<TunnelId, Arc<Record>>> {
        // No code that can panic runs under the lock.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn snapshot(&self) -> Vec<Arc<Record>> {
        self.live().values().cloned().collect()
    }
}
