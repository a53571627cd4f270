//! Verdicts in, health snapshots out: the table of [`crate::health`] between the prober's stream and the workers'.
//!
//! Health reaches workers only once it is complete, or once the bounded wait for the first verdicts is over; a prober
//! that dies changes nothing here. A backend that turns healthy or unhealthy is logged here, once, and nowhere else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::admin::PoolHealth;
use holdfast_proto::backend_name::endpoint;
use holdfast_proto::control::{HealthSnapshot, Target, TargetKey, TargetSet, Verdict};
use tokio::sync::watch;

use crate::health::{DrainedBackend, HealthTable, Turn};

/// Targets, verdicts and what follows from them.
#[derive(Debug)]
pub struct HealthBoard {
    table: Mutex<HealthTable>,
    health: watch::Sender<Option<Arc<HealthSnapshot>>>,
    targets: watch::Sender<Arc<TargetSet>>,
    changed: watch::Sender<u64>,
}

/// Pools that keep a number of backends in rotation whatever the probes say: (pool, settings, minServers).
pub type MinServers = Vec<(String, String, u32)>;

impl Default for HealthBoard {
    fn default() -> Self {
        Self {
            table: Mutex::new(HealthTable::new()),
            health: watch::Sender::new(None),
            targets: watch::Sender::new(Arc::default()),
            changed: watch::Sender::new(0),
        }
    }
}

impl HealthBoard {
    /// What is to be probed from now on. Verdicts of targets that stay are kept.
    pub fn set_targets(&self, targets: Vec<Target>, min_servers: MinServers) {
        self.update(|table| {
            table.set_targets(targets, min_servers);
            true
        });
        let targets = self.table().targets_with_known();
        self.targets.send_modify(|set| {
            *set = Arc::new(TargetSet { version: set.version + 1, targets });
        });
    }

    /// A check's outcome.
    pub fn verdict(&self, verdict: Verdict) {
        self.update(|table| table.verdict(verdict));
    }

    /// What a worker was told by an earlier supervisor: it stands where nothing is known yet.
    pub fn recall(&self, told: &HealthSnapshot) {
        self.update(|table| table.recall(told));
    }

    /// Workers will say that; until all have, what they may have been told already is not logged as a turn.
    pub fn begin_recalling(&self) {
        self.table().begin_recalling();
    }

    /// All have, or will not.
    pub fn end_recalling(&self) {
        self.update(|table| {
            table.end_recalling();
            false
        });
    }

    /// Which backends operators took out of rotation.
    pub fn set_drained(&self, drained: &[DrainedBackend]) {
        self.update(|table| {
            table.set_drained(drained);
            true
        });
    }

    /// Waits until every one of `targets` has a verdict, for at most `patience`; then health is published whatever is missing.
    pub async fn first_verdicts(&self, targets: &[TargetKey], patience: Duration) {
        let mut bell = self.changed.subscribe();
        let complete = bell.wait_for(|_| !self.table().missing(targets));
        if tokio::time::timeout(patience, complete).await.is_err() {
            tracing::warn!(
                ?patience,
                "some backends have no verdict yet; they stay out of rotation until then"
            );
        }
        self.publish();
    }

    /// Those of `targets` that were not probed until now.
    pub fn unknown(&self, targets: &[Target]) -> Vec<TargetKey> {
        let set = self.targets.borrow();
        let known: HashSet<_> =
            set.targets.iter().filter_map(|target| target.key.as_ref()).map(text).collect();
        targets
            .iter()
            .filter_map(|target| target.key.as_ref())
            .filter(|key| !known.contains(&text(key)))
            .cloned()
            .collect()
    }

    /// Waits until health was published for the first time.
    pub async fn published(&self) {
        // The sender lives as long as self.
        drop(self.health.subscribe().wait_for(Option::is_some).await);
    }

    /// Whether health was published.
    pub fn is_published(&self) -> bool {
        self.health.borrow().is_some()
    }

    /// For the workers' streams: latest wins.
    pub fn watch_health(&self) -> watch::Receiver<Option<Arc<HealthSnapshot>>> {
        self.health.subscribe()
    }

    /// For the prober's stream: latest wins.
    pub fn watch_targets(&self) -> watch::Receiver<Arc<TargetSet>> {
        self.targets.subscribe()
    }

    /// The targets now, each with the last verdict known, for a prober that dials.
    pub fn targets_with_known(&self) -> TargetSet {
        TargetSet {
            version: self.targets.borrow().version,
            targets: self.table().targets_with_known(),
        }
    }

    /// Rings whenever the report changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// For people.
    pub fn report(&self) -> Vec<PoolHealth> {
        self.table().report()
    }

    fn update(&self, change: impl FnOnce(&mut HealthTable) -> bool) {
        let changed = {
            let mut table = self.table();
            let changed = change(&mut table);
            // Under the lock, so that lines come in the order of the verdicts.
            table.take_turns().iter().for_each(log);
            changed
        };
        if !changed {
            return;
        }
        if self.is_published() {
            self.publish();
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn publish(&self) {
        // Taken under the table's lock, so that an older snapshot never follows a newer one.
        let table = self.table();
        self.health.send_replace(Some(Arc::new(table.snapshot())));
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HealthTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(turn: &Turn) {
    let TargetKey { pool, settings, address, port } = &turn.key;
    let backend = endpoint(address, *port);
    let reason = turn.reason.as_str();
    if turn.is_healthy {
        tracing::info!(pool, settings, backend, reason, "a backend is healthy again");
    } else {
        tracing::warn!(pool, settings, backend, reason, "a backend is unhealthy");
    }
}

fn text(key: &TargetKey) -> (String, String, String, u32) {
    (key.pool.clone(), key.settings.clone(), key.address.clone(), key.port)
}
