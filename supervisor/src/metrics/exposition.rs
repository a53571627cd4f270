//! Series as Prometheus text. Counters and gauges go through the exporter; histograms, which arrive already bucketed
//! and which the exporter can only observe value by value, and counters of time, which are no whole numbers, are written
//! here by the same format.
//!
//! Two label values that differ are two series: the exporter takes a backslash that is followed by another one, by a quote
//! or by a line's end for escaped already, so that it never gets a single one of a value's own ([`plain`]).

use std::fmt::Write;

use metrics::{Label, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::formatting::{
    sanitize_label_value, write_help_line, write_type_line,
};

use super::table::{self, Definition, Kind};
use super::totals::{AllSeries, Buckets, Series, Total};
use super::{Figures, WorkerGroup};

/// Appends the supervisor's gauges. A recorder of their own each time: what is not set again is gone.
pub(super) fn write_figures(text: &mut String, figures: &Figures) {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        set_processes(figures);
        describe_gauge!("holdfast_revision", "Revision of the configuration in force.");
        describe_gauge!("holdfast_healthy_hosts", "Backends that pass their probes.");
        describe_gauge!("holdfast_unhealthy_hosts", "Backends that fail their probes.");
        describe_gauge!("holdfast_vault_tunnels", "Tunnels that the vault holds.");
        describe_gauge!(
            "holdfast_vault_descriptors_left",
            "Descriptors that may still be deposited; a tunnel takes two."
        );
        describe_gauge!("holdfast_build_info", "Version of the supervisor; the value is 1.");
        let version = label("version", holdfast_proto::VERSION);
        gauge!("holdfast_build_info", vec![version]).set(1.0);
        gauge!("holdfast_revision").set(precise(figures.revision));
        for (listener, tunnels) in &figures.vault.tunnels {
            let listener = label("listener", &listener.to_string());
            gauge!("holdfast_vault_tunnels", vec![listener]).set(precise(*tunnels as u64));
        }
        let left = figures.vault.descriptors_left as u64;
        gauge!("holdfast_vault_descriptors_left").set(precise(left));
        for pool in &figures.pools {
            let labels = vec![label("pool", &pool.pool), label("settings", &pool.settings)];
            gauge!("holdfast_healthy_hosts", labels.clone()).set(precise(pool.healthy));
            gauge!("holdfast_unhealthy_hosts", labels).set(precise(pool.unhealthy));
        }
    });
    let handle = recorder.handle();
    handle.run_upkeep(); // publishes the descriptions
    text.push_str(&handle.render());
}

fn set_processes(figures: &Figures) {
    describe_gauge!("holdfast_workers", "Worker processes, by listener and state.");
    describe_gauge!("holdfast_worker_generation", "The newest worker's generation, by listener.");
    describe_gauge!("holdfast_prober_up", "Whether a prober is connected.");
    describe_gauge!("holdfast_problems", "Problems that `holdfast status` tells of.");
    describe_gauge!(
        "holdfast_certificate_expiry_timestamp_seconds",
        "When a certificate that clients are shown is no longer valid, as Unix time."
    );
    for group in &figures.workers {
        let listener = label("listener", &group.listener);
        for (state, count) in WorkerGroup::STATES.into_iter().zip(group.by_state) {
            let labels = vec![listener.clone(), label("state", state)];
            gauge!("holdfast_workers", labels).set(precise(count));
        }
        gauge!("holdfast_worker_generation", vec![listener]).set(precise(group.generation));
    }
    gauge!("holdfast_prober_up").set(precise(figures.prober_up.into()));
    gauge!("holdfast_problems").set(precise(figures.problems));
    for (certificate, expires) in &figures.certificates {
        let labels = vec![label("certificate", certificate)];
        #[allow(clippy::cast_precision_loss, reason = "no calendar comes near 2^52 seconds")]
        gauge!("holdfast_certificate_expiry_timestamp_seconds", labels).set(*expires as f64);
    }
}

/// Appends what is added up.
pub(super) fn write_series(text: &mut String, series: &AllSeries) {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        for definition in table::all() {
            match definition.kind {
                Kind::Counter => describe_counter!(definition.name, definition.help),
                Kind::Gauge => describe_gauge!(definition.name, definition.help),
                Kind::Seconds | Kind::Histogram => {}
            }
        }
        for (series, total) in series.iter().filter(|(series, _)| !is_time(series)) {
            match total {
                Total::Counter(value) => counter!(series.name, labels_of(series)).absolute(*value),
                Total::Gauge(value) => gauge!(series.name, labels_of(series)).set(*value),
                Total::Histogram(_) => {}
            }
        }
    });
    let handle = recorder.handle();
    handle.run_upkeep();
    text.push_str(&handle.render());
    for definition in table::all() {
        match definition.kind {
            Kind::Histogram => write_histograms(text, definition, series),
            Kind::Seconds => write_times(text, definition, series),
            Kind::Counter | Kind::Gauge => {}
        }
    }
}

fn labels_of(series: &Series) -> Vec<Label> {
    let definition = table::all().find(|definition| definition.name == series.name);
    let keys = definition.map(|definition| definition.labels).unwrap_or_default();
    keys.iter().zip(&series.values).map(|(key, value)| label(key, value)).collect()
}

/// A label for the exporter, which escapes its value.
fn label(key: &'static str, value: &str) -> Label {
    Label::new(key, plain(value))
}

/// A value that the exporter takes as it is: each of its backslashes comes out as one that is escaped.
fn plain(value: &str) -> String {
    value.replace('\\', r"\\")
}

fn is_time(series: &Series) -> bool {
    table::all().any(|it| it.name == series.name && it.kind == Kind::Seconds)
}

fn label_texts(definition: &Definition, series: &Series) -> Vec<String> {
    let labels = definition.labels.iter().zip(&series.values);
    labels
        .map(|(key, value)| format!("{key}=\"{}\"", sanitize_label_value(&plain(value))))
        .collect()
}

fn write_times(text: &mut String, definition: &Definition, all: &AllSeries) {
    let mut lines = all
        .iter()
        .filter(|(series, _)| series.name == definition.name)
        .filter_map(|(series, total)| match total {
            Total::Counter(micros) => Some((series, *micros)),
            _ => None,
        })
        .peekable();
    if lines.peek().is_none() {
        return;
    }
    write_help_line(text, definition.name, None, None, definition.help);
    write_type_line(text, definition.name, None, None, "counter");
    for (series, micros) in lines {
        let labels = label_texts(definition, series).join(",");
        // Writing to a String cannot fail.
        writeln!(text, "{}{{{labels}}} {}", definition.name, precise(micros) / 1e6)
            .unwrap_or_default();
    }
    text.push('\n');
}

fn write_histograms(text: &mut String, definition: &Definition, all: &AllSeries) {
    let mut histograms = all
        .iter()
        .filter(|(series, _)| series.name == definition.name)
        .filter_map(|(series, total)| match total {
            Total::Histogram(histogram) => Some((series, histogram)),
            _ => None,
        })
        .peekable();
    if histograms.peek().is_none() {
        return;
    }
    write_help_line(text, definition.name, None, None, definition.help);
    write_type_line(text, definition.name, None, None, "histogram");
    for (series, histogram) in histograms {
        let labels = label_texts(definition, series);
        // Writing to a String cannot fail.
        write_histogram(text, definition.name, &labels, histogram).unwrap_or_default();
    }
    text.push('\n');
}

fn write_histogram(
    text: &mut String,
    name: &str,
    labels: &[String],
    histogram: &Buckets,
) -> std::fmt::Result {
    let comma: String = labels.iter().flat_map(|label| [label.as_str(), ","]).collect();
    let mut count = 0_u64;
    let bounds = histogram.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, more) in bounds.zip(&histogram.counts) {
        count = count.saturating_add(*more);
        writeln!(text, "{name}_bucket{{{comma}le=\"{bound}\"}} {count}")?;
    }
    let braced =
        if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    writeln!(text, "{name}_sum{braced} {}", precise(histogram.sum_us) / 1e6)?;
    writeln!(text, "{name}_count{braced} {count}")
}

#[allow(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn precise(value: u64) -> f64 {
    value as f64
}
