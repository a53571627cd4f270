//! Every figure of the gateway as one Prometheus exposition; the workers' counters outlive the workers.
//!
//! A worker reports totals of its own life. Here they are added up over all incarnations: what a living one last said,
//! plus a base into which the last word of each ended one was folded. So a counter never goes back, while gauges
//! go with their process. The counters can be saved as text, from which the next supervisor goes on. Names come from a
//! fixed table and label values are counted, so nothing that a worker sends can make the exposition grow without bound.
//! This module reads no clock and does no IO.
//!
//! ```text
//! report(7) ──> living[7] ──┐ ended(7): folded
//! report(8) ──> living[8]   └─> base
//! render():   base + living[…] + the supervisor's own
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_proto::admin::PoolHealth;
use holdfast_proto::control::{ProberReport, Sample, WorkerReport, WorkerState};
use holdfast_proto::process::ProcessId;

use crate::vault::Holdings;

mod exposition;
mod readings;
mod saved;
mod table;
mod totals;

pub(crate) use readings::{Pauses, Readings};
pub use saved::SavedError;
use table::Reporter;
use totals::{Life, Totals};

/// All metrics of this gateway. Shared by reference between tasks.
#[derive(Default)]
pub struct Metrics {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    totals: Totals,
    figures: Figures,
}

/// The supervisor's own gauges: replaced as a whole, so that those of a removed pool vanish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The revision in force; 0 before the first.
    pub revision: u64,
    /// Hosts by pool and backend settings.
    pub pools: Vec<PoolHosts>,
    /// What the vault holds.
    pub vault: Holdings,
    /// Each listener's workers.
    pub workers: Vec<WorkerGroup>,
    /// A prober is connected.
    pub prober_up: bool,
    /// How many problems operators are told of.
    pub problems: u64,
    /// Names of certificates, and when each ends, in seconds of Unix time.
    pub certificates: Vec<(String, i64)>,
}

/// The workers of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerGroup {
    /// The listener.
    pub listener: String,
    /// How many there are, in the order of [`WorkerGroup::STATES`].
    pub by_state: [u64; WorkerGroup::STATES.len()],
    /// The newest one's.
    pub generation: u64,
}

/// How many hosts of a pool are up under one set of backend settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolHosts {
    /// The pool.
    pub pool: String,
    /// The backend settings.
    pub settings: String,
    /// Hosts that pass their probes.
    pub healthy: u64,
    /// Hosts that do not.
    pub unhealthy: u64,
}

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathCause {
    /// It was told to: stopped, replaced, or its listener was removed.
    Planned,
    /// It exited by itself.
    Exited,
    /// A signal of its own making: a crash.
    Crashed,
    /// SIGKILL, from outside or by the kernel's OOM killer.
    Killed,
    /// It never came so far as to serve.
    NeverServed,
}

// === impl PoolHosts ===

impl From<&PoolHealth> for PoolHosts {
    fn from(pool: &PoolHealth) -> Self {
        let count = |state: &str| {
            let hosts = pool.backends.iter().filter(|backend| backend.state == state);
            hosts.count() as u64
        };
        Self {
            pool: pool.pool.clone(),
            settings: pool.settings.clone(),
            healthy: count("Healthy"),
            unhealthy: count("Unhealthy"),
        }
    }
}

// === impl WorkerGroup ===

impl WorkerGroup {
    /// What a worker may be doing.
    pub const STATES: [&str; 3] = ["starting", "serving", "draining"];

    /// Counts these workers, each by its generation and what it does.
    pub fn count(listener: String, workers: impl Iterator<Item = (u64, WorkerState)>) -> Self {
        let mut group = Self { listener, by_state: [0; 3], generation: 0 };
        let [starting, serving, draining] = &mut group.by_state;
        for (generation, state) in workers {
            group.generation = group.generation.max(generation);
            match state {
                WorkerState::Unspecified | WorkerState::Starting => *starting += 1,
                WorkerState::Serving => *serving += 1,
                WorkerState::Draining => *draining += 1,
            }
        }
        group
    }
}

// === impl DeathCause ===

impl DeathCause {
    const ALL: [Self; 5] =
        [Self::Planned, Self::Exited, Self::Crashed, Self::Killed, Self::NeverServed];

    fn label(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Exited => "exited",
            Self::Crashed => "crashed",
            Self::Killed => "killed",
            Self::NeverServed => "never_served",
        }
    }
}

// === impl Metrics ===

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Nothing has been counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on from what an earlier supervisor has saved.
    ///
    /// # Errors
    /// The text is none of ours; nothing is changed then.
    pub fn recall(&self, text: &str) -> Result<(), SavedError> {
        self.state().totals = saved::read(text)?;
        Ok(())
    }

    /// Only these processes of an earlier supervisor have lived on, and serve these listeners.
    pub fn keep_only(&self, processes: &[ProcessId], listeners: &[String]) {
        let lives: Vec<_> = processes.iter().map(|process| life(*process)).collect();
        self.state().totals.keep_only(&lives, listeners);
    }

    /// Takes in what a worker says. What is not in the table, malformed, or one series too many is left out and counted.
    pub fn report(&self, process: ProcessId, listener: &str, report: WorkerReport) {
        let mut state = self.state();
        let refused = state.totals.report(life(process), listener, report);
        state.note_refused(refused);
        // There from the start: the first death is seen as an increase only of a series that was there before.
        for cause in DeathCause::ALL {
            let labels = vec![listener.to_owned(), cause.label().to_owned()];
            state.totals.count(table::WORKER_DEATHS, labels, 0);
        }
    }

    /// Takes in what the prober says.
    pub fn prober_reported(&self, process: ProcessId, report: ProberReport) {
        self.said(process, Reporter::Prober, report.samples);
    }

    /// Takes in what this process says of itself.
    pub fn supervisor_said(&self, process: ProcessId, samples: Vec<Sample>) {
        self.said(process, Reporter::Supervisor, samples);
    }

    fn said(&self, process: ProcessId, who: Reporter<'_>, samples: Vec<Sample>) {
        let mut state = self.state();
        let refused = state.totals.said(life(process), who, samples);
        state.note_refused(refused);
    }

    /// The worker or prober is gone: its counters stay, its gauges go. A report of it that comes later is ignored.
    pub fn ended(&self, process: ProcessId) {
        self.state().totals.ended(life(process));
    }

    /// A listener's last worker is gone, and the vault has forgotten its page: the totals of its life stay.
    pub fn closed(&self, listener: &str) {
        self.state().totals.closed(listener);
    }

    /// Replaces the supervisor's own gauges.
    pub fn set_figures(&self, figures: Figures) {
        self.state().figures = figures;
    }

    /// Counts the end of a worker process.
    pub fn worker_died(&self, listener: &str, cause: DeathCause) {
        let labels = vec![listener.to_owned(), cause.label().to_owned()];
        self.state().totals.count(table::WORKER_DEATHS, labels, 1);
    }

    /// Counts a revision that was put in force.
    pub fn revision_applied(&self) {
        self.state().totals.count(table::REVISIONS_APPLIED, Vec::new(), 1);
    }

    /// Counts a configuration that was refused.
    pub fn reload_refused(&self) {
        self.state().totals.count(table::RELOADS_REFUSED, Vec::new(), 1);
    }

    /// The whole exposition, in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        self.render_and_save().0
    }

    /// The exposition, and the counters in it as text for the next supervisor.
    pub fn render_and_save(&self) -> (String, String) {
        let (series, figures, saved) = {
            let state = self.state();
            (state.totals.sum(), state.figures.clone(), saved::write(&state.totals))
        };
        let mut text = String::new();
        exposition::write_figures(&mut text, &figures);
        exposition::write_series(&mut text, &series);
        (text, saved)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the totals valid at each step, so a thread that died inside harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn note_refused(&mut self, samples: u64) {
        if samples > 0 {
            self.totals.count(table::SAMPLES_REFUSED, Vec::new(), samples);
        }
    }
}

fn life(process: ProcessId) -> Life {
    (process.pid, process.start_time)
}

#[cfg(test)]
mod tests;
