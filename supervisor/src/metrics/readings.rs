//! The few figures that the status page plots, out of what is added up. Reads no clock and does no IO, as all of this
//! module; what is not reported (yet) reads as nothing.

use std::collections::BTreeMap;

use super::Metrics;
use super::totals::{AllSeries, Buckets, Series, Total, add};

const CONNECTIONS: &str = "holdfast_connections_active";
const TUNNELS: &str = "holdfast_tunnels_active";
const BYTES: &str = "holdfast_tunnels_bytes_total";
const REQUESTS: &str = "holdfast_requests_total";
const PAUSES: &str = "holdfast_handover_pause_seconds";
const ENDED: &str = "holdfast_tunnels_closed_total";

const SHOWN: [&str; 6] = [CONNECTIONS, TUNNELS, BYTES, REQUESTS, PAUSES, ENDED];

/// What is added up at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Readings {
    /// Client connections that are open.
    pub(crate) connections: f64,
    /// Tunnels that are open.
    pub(crate) tunnels: f64,
    /// Bytes that tunnels have carried from clients, ever.
    pub(crate) bytes_in: u64,
    /// Bytes that tunnels have carried to clients, ever.
    pub(crate) bytes_out: u64,
    /// Requests that were answered, ever.
    pub(crate) requests: u64,
    /// Tunnels that ended, ever, by cause.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Handovers by how long the tunnel stood still, ever.
    pub(crate) pauses: Pauses,
}

/// Counts by bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pauses {
    /// Upper bounds, ascending, seconds.
    pub(crate) bounds: Vec<f64>,
    /// Not cumulative; one more than bounds.
    pub(crate) counts: Vec<u64>,
}

impl Metrics {
    /// The figures of this moment.
    pub(crate) fn readings(&self) -> Readings {
        let mut sum = AllSeries::new();
        {
            let state = self.state();
            let parts = state.totals.living.values().chain(state.totals.pages.values());
            for (series, total) in parts.chain([&state.totals.base]).flatten() {
                if SHOWN.contains(&series.name) {
                    add(&mut sum, series, total);
                }
            }
        }
        let mut readings = Readings::default();
        for (series, total) in &sum {
            readings.take(series, total);
        }
        readings
    }
}

impl Readings {
    fn take(&mut self, series: &Series, total: &Total) {
        let label = series.values.first().map(String::as_str);
        match (series.name, total) {
            (ENDED, Total::Counter(value)) => {
                *self.ended.entry(label.unwrap_or_default().to_owned()).or_default() += value;
            }
            (CONNECTIONS, Total::Gauge(value)) => self.connections += value,
            (TUNNELS, Total::Gauge(value)) => self.tunnels += value,
            (BYTES, Total::Counter(value)) if label == Some("in") => self.bytes_in += value,
            (BYTES, Total::Counter(value)) => self.bytes_out += value,
            (REQUESTS, Total::Counter(value)) => self.requests += value,
            (PAUSES, Total::Histogram(Buckets { bounds, counts, .. })) => {
                self.pauses = Pauses { bounds: bounds.clone(), counts: counts.clone() };
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "tests")]
    use super::*;
    use holdfast_proto::control::{
        Histogram, Label, PageReport, Sample, WorkerReport, sample::Value,
    };
    use holdfast_proto::process::ProcessId;

    fn sample(name: &str, labels: &[(&str, &str)], value: Value) -> Sample {
        let label = |it: &(&str, &str)| Label { key: it.0.into(), value: it.1.into() };
        Sample { name: name.into(), labels: labels.iter().map(label).collect(), value: Some(value) }
    }

    #[test]
    fn two_listeners_are_added_up_and_the_dead_stay_counted() {
        let metrics = Metrics::new();
        assert_eq!(metrics.readings(), Readings::default());
        let bytes = |way, count| sample(BYTES, &[("direction", way)], Value::Counter(count));
        let paused = |counts: [u64; 3]| {
            let (bounds, counts, sum) = (vec![0.001, 0.01], counts.to_vec(), 0.0);
            sample(PAUSES, &[], Value::Histogram(Histogram { bounds, counts, sum }))
        };
        let ended = |count| sample(ENDED, &[("cause", "client")], Value::Counter(count));
        let report = |page, requests, counts| WorkerReport {
            tunnels_active: 3,
            connections_active: 4,
            samples: vec![sample(REQUESTS, &[("code_class", "2xx")], Value::Counter(requests))],
            pages: vec![PageReport {
                page,
                samples: vec![bytes("in", 10), bytes("out", 100), paused(counts), ended(requests)],
            }],
            ..WorkerReport::default()
        };
        let process = |pid| ProcessId { pid, start_time: 1 };
        metrics.report(process(1), "127.0.0.1:80", report(1, 5, [1, 0, 0]));
        metrics.report(process(2), "127.0.0.1:81", report(2, 6, [0, 2, 1]));
        let both = metrics.readings();
        assert_eq!((both.connections, both.tunnels, both.requests), (8.0, 6.0, 11));
        assert_eq!((both.bytes_in, both.bytes_out), (20, 200));
        assert_eq!(both.ended, BTreeMap::from([("client".to_owned(), 11)]));
        assert_eq!(both.pauses, Pauses { bounds: vec![0.001, 0.01], counts: vec![1, 2, 1] });
        metrics.ended(process(1));
        metrics.closed("127.0.0.1:80");
        let one = metrics.readings();
        assert_eq!((one.connections, one.tunnels, one.requests), (4.0, 3.0, 11));
        assert_eq!((one.bytes_in, one.pauses, one.ended), (20, both.pauses, both.ended));
    }
}
