//! The live tunnels of a worker, by id, and what they share: the arena, the tally, what goes to the vault.
//!
//! Nothing here waits; no code that can panic runs under a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_proto::failpoint;
use tokio::sync::Notify;

use super::arena::{Arena, Cell, Owner, ends};
use super::leg_end::LegEnd;
use super::outbox::Outbox;
use super::record::{Clock, Record};
use super::relay::Over;
use super::tally::Tally;
use super::{Cause, TunnelFacts, TunnelId};
use crate::access_log::{AccessLog, Line, TunnelEnd};

/// What the threads share.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) generation: u64,
    pub(super) clock: Clock,
    pub(super) arena: Arc<Arena>,
    pub(super) tally: Arc<Tally>,
    pub(super) outbox: Outbox,
    pub(super) log: OnceLock<Arc<AccessLog>>,
    live: Mutex<HashMap<TunnelId, Arc<Record>>>,
    /// Notified when the last live tunnel has ended.
    pub(super) emptied: Notify,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(generation: u64, arena: Arc<Arena>, tally: Arc<Tally>) -> Self {
        Self {
            generation,
            clock: Clock,
            arena,
            tally,
            outbox: Outbox::default(),
            log: OnceLock::new(),
            live: Mutex::default(),
            emptied: Notify::new(),
        }
    }

    /// Writes down that a tunnel ends, and how. False: it is another process's.
    pub(super) fn begin_end(&self, record: &Record, over: Over) -> bool {
        let (owned, ending) = (Owner::owned(self.generation), Owner::ending(self.generation));
        record.cell().decide(over.cause);
        if !over.is_orderly() {
            record.mark(ends::ABRUPT);
        }
        record.cell().swap_owner(owned, ending)
    }

    /// Takes an ended tunnel out, counts it and says so.
    pub(super) fn end(&self, record: &Record, cause: Cause) {
        let cell = record.cell();
        if !record.is_marked(ends::COUNTED) {
            let duration = record.age(self.clock.now_ms());
            let [bytes_in, bytes_out] = cell.bytes();
            let [client_end, backend_end] = LegEnd::both(cell, cause).map(LegEnd::as_str);
            tracing::info!(
                tunnel = record.id,
                cause = cause.as_str(),
                client_end,
                backend_end,
                bytes_in,
                bytes_out,
                duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                site = &*record.facts.site,
                pool = &*record.facts.pool,
                backend = record.backend(),
                client = %record.facts.client,
                trace_id = &*record.facts.trace_id,
                "tunnel ended"
            );
            failpoint!("end.told");
            // Marked first: one that dies in between leaves a count too few, never one too many.
            record.mark(ends::COUNTED);
            self.log_end(record.id, &record.facts, cell, cause, duration);
            // Counted before it is gone, so that who has seen it go also sees it counted.
            self.tally.count_end(cause, duration);
        }
        failpoint!("end.counted");
        self.leave(record);
    }

    /// The line of its end, if its opening has one. What is counted as ended has been logged, or never will be.
    pub(super) fn log_end(
        &self,
        id: TunnelId,
        facts: &TunnelFacts,
        cell: &Cell,
        cause: Cause,
        duration: Duration,
    ) {
        if let Some(log) = self.log.get().filter(|_| facts.logged) {
            log.write(Line::TunnelEnd(Box::new(TunnelEnd {
                at: SystemTime::now(),
                id,
                client: facts.client,
                site: facts.site.clone(),
                pool: facts.pool.clone(),
                settings: facts.settings.clone(),
                backend: facts.backend_label(),
                transaction: facts.trace_id.clone(),
                cause: cause.as_str(),
                leg_ends: LegEnd::both(cell, cause).map(LegEnd::as_str),
                bytes: cell.bytes(),
                duration,
            })));
        }
    }

    /// Takes out a tunnel that never came about, or has ended: the vault lets go of it, its cell is free.
    pub(super) fn leave(&self, record: &Record) {
        self.take_out(record);
        record.slot.free();
        failpoint!("end.freed");
        self.outbox.release(record);
    }

    /// Takes out a tunnel that is another process's now: nothing of it is touched.
    pub(super) fn forget(&self, record: &Record) {
        self.take_out(record);
    }

    fn take_out(&self, record: &Record) {
        record.held.end();
        let empty = {
            let mut live = self.live();
            // One that has come back meanwhile has another record here.
            if live.get(&record.id).is_some_and(|found| std::ptr::eq(Arc::as_ptr(found), record)) {
                live.remove(&record.id);
            }
            live.is_empty()
        };
        if empty {
            self.emptied.notify_waiters();
        }
    }

    pub(super) fn live(&self) -> MutexGuard<'_, HashMap<TunnelId, Arc<Record>>> {
        // No code that can panic runs under the lock.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn snapshot(&self) -> Vec<Arc<Record>> {
        self.live().values().cloned().collect()
    }
}
