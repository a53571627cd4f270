//! A table joined with health: who may get new work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use holdfast_proto::control as wire;

use super::Table;
use crate::pool::rotation::{Picks, Preference, Rotation};
use crate::pool::{Backend, Binding};

/// What a request is served by, from its first byte to its last.
#[derive(Debug)]
pub struct Serving {
    /// The revision in force.
    pub table: Arc<Table>,
    /// Version of the health that it was joined with; 0 before the first.
    pub health_version: u64,
    rotations: Vec<Rotation>,
}

/// The one place that says what is served now.
#[derive(Debug)]
pub struct Current {
    serving: ArcSwap<Serving>,
    /// Health as last told; a table and health come on the same stream, but each is joined with the other's latest.
    health: Mutex<wire::HealthSnapshot>,
    /// A tunnel was led to a backend that is drained or may be gone, since somebody has asked.
    lingered: AtomicBool,
}

// === impl Serving ===

impl Serving {
    fn join(table: Arc<Table>, health: &wire::HealthSnapshot) -> Self {
        let targets = health.targets.iter().filter_map(|it| Some((named(it.key.as_ref()?), it)));
        let known: HashMap<_, _> = targets.collect();
        let rotations = table.bindings.iter().map(|binding| rotation(binding, &known)).collect();
        Self { table, health_version: health.version, rotations }
    }

    /// Whether a backend of a binding gets new work, and not only the clients whose cookies name it.
    pub fn is_in_rotation(&self, binding: usize, backend: &Backend) -> bool {
        self.rotations.get(binding).is_some_and(|rotation| rotation.has(backend))
    }

    /// Whether a backend of a binding gets the clients whose cookies name it.
    pub fn takes_cookies_to(&self, binding: usize, backend: &Backend) -> bool {
        self.rotations.get(binding).is_some_and(|rotation| rotation.takes_cookies_to(backend))
    }

    /// The backends to try for a request of a binding, the one whose turn it is first.
    pub fn candidates(&self, binding: usize, preference: &Preference<'_>) -> Picks<'_> {
        match (self.table.bindings.get(binding), self.rotations.get(binding)) {
            (Some(binding), Some(rotation)) => rotation.picks(&binding.cursor, preference),
            _ => Picks::none(),
        }
    }
}

/// What health goes by: pool, settings, address and port.
type Name<'a> = (&'a str, &'a str, &'a str, u32);

fn named(key: &wire::TargetKey) -> Name<'_> {
    (&key.pool, &key.settings, &key.address, key.port)
}

fn rotation<'a>(binding: &'a Binding, known: &HashMap<Name<'a>, &wire::TargetHealth>) -> Rotation {
    let health = |backend: &'a Arc<Backend>| {
        let name = (&*backend.pool, &*binding.settings, &*backend.address, backend.port.into());
        known.get(&name).copied()
    };
    let in_rotation = |backend: &'a Arc<Backend>| health(backend).is_some_and(|it| it.in_rotation);
    // Out of rotation by an operator's wish, and not because it does not answer.
    let lingers = |backend: &'a Arc<Backend>| {
        health(backend).is_some_and(|it| it.drained && it.state() == wire::HealthState::Healthy)
    };
    let lingering = binding.backends.iter().filter(|it| lingers(it)).cloned().collect();
    let members = binding.weighted().filter(|(backend, _)| in_rotation(backend));
    let members = members.map(|(backend, weight)| (Arc::clone(backend), weight));
    Rotation::new(binding.algorithm(), members, lingering)
}

// === impl Current ===

impl Current {
    /// Nothing yet: no site, no health.
    pub fn new() -> Self {
        let health = wire::HealthSnapshot::default();
        let serving = Serving::join(Arc::new(Table::empty()), &health);
        Self {
            serving: ArcSwap::from_pointee(serving),
            health: Mutex::new(health),
            lingered: AtomicBool::new(false),
        }
    }

    /// What is served now.
    pub fn load(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// Whether that is what is served now.
    pub fn is(&self, serving: &Serving) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.serving.load()), serving)
    }

    /// Says that a tunnel was opened to a backend that is out of rotation: its time runs already. Or to one that may be,
    /// since it was chosen.
    pub fn note_lingering(&self) {
        self.lingered.store(true, Ordering::Relaxed);
    }

    /// Whether anybody has said so since this was asked last.
    pub fn take_lingering(&self) -> bool {
        self.lingered.swap(false, Ordering::Relaxed)
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
