//! Every figure of the gateway as one Prometheus exposition; the workers' counters outlive the workers.
//!
//! A worker reports totals of its own life. Here they are added up over all incarnations: what a living one last said,
//! plus a base into which the last word of each ended one was folded. So a counter never goes back, while gauges
//! go with their process. Names come from a fixed table and label values are counted, so nothing that a worker
//! sends can make the exposition grow without bound. This module reads no clock and does no IO.
//!
//! ```text
//! report(7) ──> living[7] ──┐ ended(7): folded
//! report(8) ──> living[8]   └─> base
//! render():   base + living[…] + the supervisor's own
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_proto::admin::PoolHealth;
use holdfast_proto::control::WorkerReport;
use metrics::{Label, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::vault::Holdings;

mod exposition;
mod table;
mod totals;

use totals::Totals;

/// All metrics of this gateway. Shared by reference between tasks.
pub struct Metrics {
    /// The supervisor's own counters; by the `metrics` macros.
    own: PrometheusRecorder,
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

// === impl DeathCause ===

impl DeathCause {
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

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing has been counted yet.
    pub fn new() -> Self {
        let own = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&own, || {
            describe_counter!(
                "holdfast_worker_deaths_total",
                "Worker processes that ended, by listener and cause."
            );
            describe_counter!(
                "holdfast_reloads_refused_total",
                "Configurations that were refused; what ran went on."
            );
            describe_counter!(
                "holdfast_samples_refused_total",
                "Figures of workers that were unknown, malformed or too many."
            );
            describe_gauge!("holdfast_build_info", "Version of the supervisor; the value is 1.");
            counter!("holdfast_reloads_refused_total").absolute(0);
            counter!("holdfast_samples_refused_total").absolute(0);
            gauge!("holdfast_build_info", "version" => holdfast_proto::VERSION).set(1.0);
        });
        Self { own, state: Mutex::default() }
    }

    /// Takes in what a worker says. `incarnation` is never given twice. What is not in the table, malformed, or one
    /// series too many is left out and counted.
    pub fn report(&self, incarnation: u64, listener: &str, report: WorkerReport) {
        let refused = self.state().totals.report(incarnation, listener, report);
        if refused > 0 {
            tracing::debug!(incarnation, listener, refused, "samples left out");
            with_local_recorder(&self.own, || {
                counter!("holdfast_samples_refused_total").increment(refused);
            });
        }
    }

    /// The worker is gone: its counters stay, its gauges go. A report of it that comes later is ignored.
    pub fn ended(&self, incarnation: u64) {
        self.state().totals.ended(incarnation);
    }

    /// A listener's last worker is gone: the totals of its life stay.
    pub fn closed(&self, listener: &str) {
        self.state().totals.closed(listener);
    }

    /// Replaces the supervisor's own gauges.
    pub fn set_figures(&self, figures: Figures) {
        self.state().figures = figures;
    }

    /// Counts the end of a worker process.
    pub fn worker_died(&self, listener: &str, cause: DeathCause) {
        let labels =
            vec![Label::new("listener", listener.to_owned()), Label::new("cause", cause.label())];
        with_local_recorder(&self.own, || {
            counter!("holdfast_worker_deaths_total", labels).increment(1);
        });
    }

    /// Counts a configuration that was refused.
    pub fn reload_refused(&self) {
        with_local_recorder(&self.own, || counter!("holdfast_reloads_refused_total").increment(1));
    }

    /// The whole exposition, in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        let (series, figures) = {
            let state = self.state();
            (state.totals.sum(), state.figures.clone())
        };
        let own = self.own.handle();
        own.run_upkeep(); // publishes the descriptions
        let mut text = own.render();
        exposition::write_figures(&mut text, &figures);
        exposition::write_series(&mut text, &series);
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the totals valid at each step, so a thread that died inside harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
