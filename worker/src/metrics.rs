//! What this worker counts about connections and HTTP, as totals of this process's life.
//!
//! The supervisor adds up the generations, so a figure here must never go back. Labels come only from the
//! configuration or from a closed set, never from a client. Tunnels are counted by their own registry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::control::{Histogram, Label, Sample, sample::Value};

mod refusals;
mod timing;
mod traffic;
mod unsecured;

use crate::fault::FaultKind;
use refusals::Refusals;
use timing::Timing;
use traffic::Traffic;
pub(crate) use traffic::{Over, PairFigures, SiteFigures};
use unsecured::Handshakes;
pub(crate) use unsecured::Unsecured;

/// Label values of `holdfast_requests_total`, in the order of the counters.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// This process's counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [AtomicU64; CLASSES.len()],
    refusals: Refusals,
    traffic: Traffic,
    connections_accepted: AtomicU64,
    connections_active: AtomicU64,
    handshakes: Handshakes,
    round_trip: Timing,
    overdrawn: AtomicU64,
    pools: Mutex<BTreeMap<String, PoolCounters>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct PoolCounters {
    connect_failures: u64,
    retries: u64,
}

/// Counts one client connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ActiveConnection(Arc<Metrics>);

// === impl Metrics ===

impl Metrics {
    /// Counts a request by the status that its client was told.
    pub(crate) fn count_request(&self, status: http::StatusCode) {
        if let Some(counter) = self.requests.get(class_of(status)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts a request that was answered with a fault.
    pub(crate) fn count_refusal(&self, kind: FaultKind) {
        self.refusals.count(kind);
    }

    /// Counts a client connection until the guard is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> ActiveConnection {
        self.connections_accepted.fetch_add(1, Relaxed);
        self.connections_active.fetch_add(1, Relaxed);
        ActiveConnection(self.clone())
    }

    /// Counts a connection that was cut off because its client overdrew a budget of HTTP/2.
    pub(crate) fn count_overdrawn(&self) {
        self.overdrawn.fetch_add(1, Relaxed);
    }

    /// Client connections that speak HTTP now.
    pub(crate) fn connections_active(&self) -> u64 {
        self.connections_active.load(Relaxed)
    }

    /// A backend of `pool` could not be dialled.
    pub(crate) fn count_connect_failure(&self, pool: &str) {
        self.pool(pool, |counters| counters.connect_failures += 1);
    }

    /// A request to `pool` was sent again, on another connection or to another backend.
    pub(crate) fn count_retry(&self, pool: &str) {
        self.pool(pool, |counters| counters.retries += 1);
    }

    /// Counts a client connection whose TLS never came about.
    pub(crate) fn count_unsecured(&self, why: Unsecured) {
        self.handshakes.count(why);
    }

    /// How long a client's kernel takes to answer, as seen when its connection was opened.
    pub(crate) fn observe_round_trip(&self, taken: Duration) {
        self.round_trip.observe(taken);
    }

    /// The figures of a pool with certain settings.
    pub(crate) fn pair(&self, pool: &Arc<str>, settings: &Arc<str>) -> Arc<PairFigures> {
        self.traffic.pair(pool, settings)
    }

    /// The figures of a site.
    pub(crate) fn site(&self, name: &Arc<str>) -> Arc<SiteFigures> {
        self.traffic.site(name)
    }

    /// The figures of requests that no site has taken.
    pub(crate) fn no_site(&self) -> Arc<SiteFigures> {
        self.traffic.no_site()
    }

    /// Every series, for the report.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let classes = CLASSES.iter().zip(&self.requests).map(|(class, requests)| {
            counter("holdfast_requests_total", &[("code_class", class)], requests.load(Relaxed))
        });
        let mut samples: Vec<_> = classes.collect();
        samples.extend(self.refusals.samples());
        samples.extend(self.traffic.samples());
        samples.extend(self.handshakes.samples());
        samples.push(self.round_trip.sample("holdfast_client_rtt_seconds", &[]));
        let accepted = self.connections_accepted.load(Relaxed);
        samples.push(counter("holdfast_connections_accepted_total", &[], accepted));
        samples.push(gauge("holdfast_connections_active", &[], self.connections_active()));
        let overdrawn = self.overdrawn.load(Relaxed);
        samples.push(counter("holdfast_http2_connections_cut_off_total", &[], overdrawn));
        for (pool, counters) in self.pools().iter() {
            let labels = [("pool", pool.as_str())];
            let failures = counters.connect_failures;
            samples.push(counter("holdfast_backend_connect_failures_total", &labels, failures));
            samples.push(counter("holdfast_backend_retries_total", &labels, counters.retries));
        }
        samples
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, PoolCounters>> {
        // Counters stay counters when a thread died while it held them.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, pool: &str, change: impl FnOnce(&mut PoolCounters)) {
        let mut pools = self.pools();
        match pools.get_mut(pool) {
            Some(counters) => change(counters),
            None => change(pools.entry(pool.to_owned()).or_default()),
        }
    }
}

// === impl ActiveConnection ===

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.connections_active.fetch_sub(1, Relaxed);
    }
}

/// The place of a status among the classes.
fn class_of(status: http::StatusCode) -> usize {
    usize::from(status.as_u16() / 100).saturating_sub(1)
}

/// One series of a counter.
pub(crate) fn counter(name: &str, labels: &[(&str, &str)], value: u64) -> Sample {
    sample(name, labels, Value::Counter(value))
}

/// One series of a gauge.
pub(crate) fn gauge(name: &str, labels: &[(&str, &str)], value: u64) -> Sample {
    #[allow(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
    sample(name, labels, Value::Gauge(value as f64))
}

/// One histogram without labels; `counts` are not cumulative and one more than `bounds`.
pub(crate) fn histogram(name: &str, bounds: Vec<f64>, counts: Vec<u64>, sum: f64) -> Sample {
    sample(name, &[], Value::Histogram(Histogram { bounds, counts, sum }))
}

fn sample(name: &str, labels: &[(&str, &str)], value: Value) -> Sample {
    let label =
        |&(key, value): &(&str, &str)| Label { key: key.to_owned(), value: value.to_owned() };
    Sample { name: name.to_owned(), labels: labels.iter().map(label).collect(), value: Some(value) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn value(metrics: &Metrics, name: &str, label: &str) -> Option<Value> {
        let wanted = |s: &Sample| s.name == name && s.labels.iter().all(|l| l.value == label);
        metrics.samples().into_iter().find(wanted).and_then(|s| s.value)
    }

    #[test]
    fn requests_are_counted_by_class() {
        let metrics = Metrics::default();
        metrics.count_request(http::StatusCode::NOT_FOUND);
        metrics.count_request(http::StatusCode::REQUEST_TIMEOUT);
        metrics.count_request(http::StatusCode::SWITCHING_PROTOCOLS);
        let name = "holdfast_requests_total";
        assert_eq!(value(&metrics, name, "4xx"), Some(Value::Counter(2)));
        assert_eq!(value(&metrics, name, "1xx"), Some(Value::Counter(1)));
        assert_eq!(value(&metrics, name, "5xx"), Some(Value::Counter(0)));
    }

    #[test]
    fn a_connection_counts_while_it_lives() {
        let metrics = Arc::new(Metrics::default());
        let one = metrics.connection();
        let two = metrics.connection();
        drop(one);
        assert_eq!(metrics.connections_active(), 1);
        drop(two);
        assert_eq!(metrics.connections_active(), 0);
    }

    #[test]
    fn pools_appear_when_something_happened_to_them() {
        let metrics = Metrics::default();
        let name = "holdfast_backend_retries_total";
        assert_eq!(value(&metrics, name, "chat"), None);
        metrics.count_connect_failure("chat");
        metrics.count_retry("chat");
        metrics.count_retry("chat");
        assert_eq!(value(&metrics, name, "chat"), Some(Value::Counter(2)));
    }
}
