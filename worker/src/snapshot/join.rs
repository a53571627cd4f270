//! A table joined with health: who may get new work.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use holdfast_proto::control as wire;

use super::Table;
use crate::pool::rotation::Picks;
use crate::pool::{Backend, Binding};

/// What a request is served by, from its first byte to its last.
#[derive(Debug)]
pub struct Serving {
    /// The revision in force.
    pub table: Arc<Table>,
    /// Version of the health that it was joined with; 0 before the first.
    pub health_version: u64,
    candidates: Vec<Arc<[Arc<Backend>]>>,
}

/// The one place that says what is served now.
#[derive(Debug)]
pub struct Current {
    serving: ArcSwap<Serving>,
    /// Health as last told; a table and health come on the same stream, but each is joined with the other's latest.
    health: Mutex<wire::HealthSnapshot>,
}

// === impl Serving ===

impl Serving {
    fn join(table: Arc<Table>, health: &wire::HealthSnapshot) -> Self {
        let in_rotation: HashSet<(&str, &str, &str, u32)> = health
            .targets
            .iter()
            .filter(|target| target.in_rotation)
            .filter_map(|target| target.key.as_ref())
            .map(|key| (&*key.pool, &*key.settings, &*key.address, key.port))
            .collect();
        let candidates = table
            .bindings
            .iter()
            .map(|binding| {
                let takes_work = |backend: &&Arc<Backend>| {
                    let Binding { pool, settings, .. } = binding.as_ref();
                    let port = u32::from(backend.port);
                    in_rotation.contains(&(pool, settings, &backend.address, port))
                };
                binding.backends.iter().filter(takes_work).map(Arc::clone).collect()
            })
            .collect();
        Self { table, health_version: health.version, candidates }
    }

    /// The backends in rotation of a binding, the one whose turn it is first; takes a turn.
    pub fn candidates(&self, binding: usize) -> Picks {
        match (self.table.bindings.get(binding), self.candidates.get(binding)) {
            (Some(binding), Some(backends)) => Picks::new(Arc::clone(backends), &binding.cursor),
            _ => Picks::none(),
        }
    }
}

// === impl Current ===

impl Current {
    /// Nothing yet: no site, no health.
    pub fn new() -> Self {
        let health = wire::HealthSnapshot::default();
        let serving = Serving::join(Arc::new(Table::empty()), &health);
        Self { serving: ArcSwap::from_pointee(serving), health: Mutex::new(health) }
    }

    /// What is served now.
    pub fn load(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// Serves another table from now on.
    pub fn install_table(&self, table: Table) {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        self.serving.store(Arc::new(Serving::join(Arc::new(table), &health)));
    }

    /// Serves by other health from now on.
    pub fn install_health(&self, latest: wire::HealthSnapshot) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::clone(&self.serving.load().table);
        self.serving.store(Arc::new(Serving::join(table, &latest)));
        *health = latest;
    }
}

impl Default for Current {
    fn default() -> Self {
        Self::new()
    }
}
