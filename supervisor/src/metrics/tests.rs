//! Figures over generations, and the exposition's form.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::float_cmp, reason = "tests")]
use super::*;
use std::collections::BTreeMap;

use holdfast_proto::control::{Histogram, Label as WireLabel, PageReport, Sample, sample::Value};

mod labels;

fn sample(name: &str, labels: &[(&str, &str)], value: Value) -> Sample {
    let label = |(key, value): &(&str, &str)| WireLabel {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    Sample { name: name.into(), labels: labels.iter().map(label).collect(), value: Some(value) }
}

fn opened(count: u64) -> Sample {
    sample("holdfast_tunnels_opened_total", &[], Value::Counter(count))
}

fn duration(bounds: &[f64], counts: &[u64], sum: f64) -> Sample {
    let histogram = Histogram { bounds: bounds.to_vec(), counts: counts.to_vec(), sum };
    sample("holdfast_tunnels_duration_seconds", &[], Value::Histogram(histogram))
}

fn report(tunnels_active: u64, samples: Vec<Sample>) -> WorkerReport {
    let connections_active = tunnels_active;
    WorkerReport { tunnels_active, connections_active, samples, ..WorkerReport::default() }
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 7 }
}

fn page_report(page: u64, samples: Vec<Sample>) -> WorkerReport {
    WorkerReport { pages: vec![PageReport { page, samples }], ..WorkerReport::default() }
}

/// What the next supervisor knows.
fn next(metrics: &Metrics) -> Metrics {
    let next = Metrics::new();
    next.recall(&metrics.render_and_save().1).unwrap();
    next
}

/// Every line of the exposition by its name and labels, after checking its form.
fn scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.render();
    let mut lines = BTreeMap::new();
    let mut declared = std::collections::BTreeSet::new();
    let mut helped = std::collections::BTreeSet::new();
    let mut family = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(declared.insert(name.to_owned()), "twice: {line}");
            assert!(helped.contains(name), "no help: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            name.clone_into(&mut family);
        } else {
            assert!(line.starts_with(&family), "{line} is not under {family}");
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(lines.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    lines
}

#[test]
fn counters_outlive_generations_and_gauges_do_not() {
    let metrics = Metrics::new();
    metrics.report(process(1), "a:80", report(5, vec![opened(10)]));
    metrics.report(process(2), "b:80", report(2, vec![opened(3)]));
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 13.0);
    assert_eq!(lines["holdfast_tunnels_active"], 7.0);
    assert_eq!(lines["holdfast_connections_active{listener=\"a:80\"}"], 5.0);
    metrics.ended(process(1));
    metrics.report(process(1), "a:80", report(5, vec![opened(11)]));
    metrics.ended(process(1));
    metrics.report(process(3), "a:80", report(1, vec![opened(1)]));
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 14.0);
    assert_eq!(lines["holdfast_tunnels_active"], 3.0);
    metrics.ended(process(2));
    metrics.ended(process(3));
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 14.0);
    assert_eq!(lines["holdfast_tunnels_active"], 0.0);
    assert!(!lines.contains_key("holdfast_connections_active{listener=\"a:80\"}"));
}

#[test]
fn a_smaller_total_does_not_take_a_counter_back() {
    let metrics = Metrics::new();
    metrics.report(process(1), "a", report(0, vec![opened(10)]));
    metrics.report(process(1), "a", report(0, vec![opened(4)]));
    metrics.report(process(1), "a", report(0, vec![]));
    assert_eq!(scrape(&metrics)["holdfast_tunnels_opened_total"], 10.0);
}

#[test]
fn histograms_cumulate_and_add_up() {
    let metrics = Metrics::new();
    metrics.report(process(1), "a", report(0, vec![duration(&[1.0, 10.0], &[1, 2, 3], 50.5)]));
    metrics.ended(process(1));
    metrics.report(process(2), "a", report(0, vec![duration(&[0.5, 5.0], &[1, 1, 1], 20.0)]));
    metrics.report(process(2), "a", report(0, vec![duration(&[0.5, 6.0], &[9, 9, 9], 90.0)]));
    let lines = scrape(&metrics);
    let name = "holdfast_tunnels_duration_seconds";
    assert_eq!(lines[&format!("{name}_bucket{{le=\"1\"}}")], 2.0);
    assert_eq!(lines[&format!("{name}_bucket{{le=\"10\"}}")], 5.0);
    assert_eq!(lines[&format!("{name}_bucket{{le=\"+Inf\"}}")], 9.0);
    assert_eq!(lines[&format!("{name}_count")], 9.0);
    assert_eq!(lines[&format!("{name}_sum")], 70.5);
    assert_eq!(lines["holdfast_samples_refused_total"], 1.0);
}

#[test]
fn what_is_unknown_or_malformed_is_refused_and_counted() {
    let requests = "holdfast_requests_total";
    let long = "x".repeat(257);
    let bad = vec![
        sample("holdfast_surprise_total", &[], Value::Counter(1)),
        sample("holdfast_tunnels_opened_total", &[], Value::Gauge(1.0)),
        sample("holdfast_tunnels_opened_total", &[("client", "1.2.3.4")], Value::Counter(1)),
        sample(requests, &[], Value::Counter(1)),
        sample(requests, &[("class", "2xx")], Value::Counter(1)),
        sample(requests, &[("code_class", &long)], Value::Counter(1)),
        sample("holdfast_tunnels_unprotected", &[], Value::Gauge(f64::NAN)),
        Sample { value: None, ..opened(1) },
        duration(&[1.0], &[1], 1.0),
        duration(&[2.0, 1.0], &[1, 1, 1], 1.0),
        duration(&[f64::INFINITY], &[1, 1], 1.0),
        duration(&[1.0], &[1, 1], f64::NAN),
    ];
    let count = bad.len();
    let metrics = Metrics::new();
    metrics.report(process(1), "a", report(0, bad));
    let lines = scrape(&metrics);
    #[allow(clippy::cast_precision_loss, reason = "a dozen")]
    let expected = count as f64;
    assert_eq!(lines["holdfast_samples_refused_total"], expected);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 0.0);
    assert!(!lines.keys().any(|line| line.contains("surprise") || line.contains("1.2.3.4")));
}

#[test]
fn series_are_bounded() {
    let metrics = Metrics::new();
    let pools = (0..1100).map(|n| {
        let pool = format!("pool{n}");
        sample("holdfast_backend_retries_total", &[("pool", &pool)], Value::Counter(1))
    });
    metrics.report(process(1), "a", report(0, pools.collect()));
    let lines = scrape(&metrics);
    let count = lines.keys().filter(|line| line.starts_with("holdfast_backend_retries")).count();
    assert_eq!(count, 1000);
    assert_eq!(lines["holdfast_samples_refused_total"], 100.0);
}

#[test]
fn labels_are_the_tables_and_escaped() {
    let metrics = Metrics::new();
    let requests =
        |labels: &[(&str, &str)]| sample("holdfast_requests_total", labels, Value::Counter(2));
    metrics.report(process(1), "[::]:80", report(0, vec![requests(&[("code_class", "2xx")])]));
    metrics.report(
        process(2),
        "a",
        report(0, vec![requests(&[("code_class", "a\"b\nc"), ("listener", "lie")])]),
    );
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_requests_total{listener=\"[::]:80\",code_class=\"2xx\"}"], 2.0);
    assert_eq!(lines["holdfast_requests_total{listener=\"a\",code_class=\"a\\\"b\\nc\"}"], 2.0);
}

#[test]
fn the_supervisors_own_figures_are_there() {
    let metrics = Metrics::new();
    assert_eq!(scrape(&metrics)["holdfast_tunnels_lost_total"], 0.0);
    metrics.worker_died("a:80", DeathCause::Killed);
    metrics.worker_died("a:80", DeathCause::Killed);
    metrics.reload_refused();
    let pool = |name: &str| PoolHosts {
        pool: name.into(),
        settings: "s".into(),
        healthy: 2,
        unhealthy: 1,
    };
    metrics.set_figures(Figures {
        revision: 7,
        pools: vec![pool("p"), pool("q")],
        ..Figures::default()
    });
    metrics.set_figures(Figures { revision: 8, pools: vec![pool("p")], ..Figures::default() });
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_worker_deaths_total{listener=\"a:80\",cause=\"killed\"}"], 2.0);
    assert_eq!(lines["holdfast_reloads_refused_total"], 1.0);
    assert_eq!(lines["holdfast_revision"], 8.0);
    assert_eq!(lines["holdfast_healthy_hosts{pool=\"p\",settings=\"s\"}"], 2.0);
    assert_eq!(lines["holdfast_unhealthy_hosts{pool=\"p\",settings=\"s\"}"], 1.0);
    assert!(!lines.keys().any(|line| line.contains("\"q\"")));
    let build = format!("holdfast_build_info{{version=\"{}\"}}", holdfast_proto::VERSION);
    assert_eq!(lines[&build], 1.0);
}

#[test]
fn the_next_supervisor_goes_on_from_what_was_exposed() {
    let metrics = Metrics::new();
    let requests =
        |value| sample("holdfast_requests_total", &[("code_class", "2xx")], Value::Counter(value));
    metrics.report(process(1), "a", report(1, vec![requests(5), duration(&[0.1], &[1, 2], 0.3)]));
    metrics.report(process(2), "a", report(1, vec![requests(7), duration(&[0.1], &[2, 1], 0.7)]));
    metrics.report(process(1), "a", page_report(9, vec![opened(4)]));
    metrics.ended(process(1));
    metrics.worker_died("a", DeathCause::Killed);
    let counters = |metrics: &Metrics| {
        let lines = scrape(metrics).into_iter();
        let is_gauge = |line: &str| line.contains("active") || line.contains("unprotected");
        lines.filter(|(line, _)| !is_gauge(line)).collect::<Vec<_>>()
    };
    let before = counters(&metrics);
    let second = next(&metrics);
    assert_eq!(counters(&second), before);
    // One lives: what it says next replaces what it said, and so does the page.
    second.keep_only(&[process(2)], &["a".to_owned()]);
    assert_eq!(counters(&second), before);
    second.report(process(2), "a", report(1, vec![requests(8)]));
    second.report(process(2), "a", page_report(9, vec![opened(5)]));
    let lines = scrape(&second);
    assert_eq!(lines["holdfast_requests_total{listener=\"a\",code_class=\"2xx\"}"], 13.0);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 5.0);
    // None lives: a new page begins at zero, and all of it counts.
    let third = next(&second);
    third.keep_only(&[], &[]);
    third.report(process(3), "a", page_report(10, vec![opened(1)]));
    assert_eq!(scrape(&third)["holdfast_tunnels_opened_total"], 6.0);
    third.ended(process(3));
    third.closed("a");
    assert_eq!(scrape(&next(&third))["holdfast_tunnels_opened_total"], 6.0);
}

#[test]
fn workers_that_overtake_each_other_on_one_page_take_nothing_back() {
    let metrics = Metrics::new();
    metrics.report(process(2), "a", page_report(9, vec![duration(&[1.0], &[2, 5], 9.0)]));
    metrics.report(process(1), "a", page_report(9, vec![duration(&[1.0], &[3, 4], 8.0)]));
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_tunnels_duration_seconds_bucket{le=\"1\"}"], 3.0);
    assert_eq!(lines["holdfast_tunnels_duration_seconds_count"], 8.0);
    assert_eq!(lines["holdfast_tunnels_duration_seconds_sum"], 9.0);
    assert_eq!(lines["holdfast_samples_refused_total"], 0.0);
}

#[test]
fn processes_add_up_by_what_they_are_and_their_time_outlives_them() {
    let usage = |process: &str, cpu_us: u64, bytes: f64| {
        let labels = [("process", process)];
        vec![
            sample("holdfast_process_cpu_seconds_total", &labels, Value::Counter(cpu_us)),
            sample("holdfast_process_resident_memory_bytes", &labels, Value::Gauge(bytes)),
        ]
    };
    let metrics = Metrics::new();
    metrics.report(process(1), "a", report(0, usage("worker", 1_500_000, 10.0)));
    metrics.report(process(2), "a", report(0, usage("worker", 250_000, 20.0)));
    metrics.prober_reported(process(3), ProberReport { samples: usage("prober", 10_000, 5.0) });
    metrics.supervisor_said(process(4), usage("supervisor", 20_000, 7.0));
    let lines = scrape(&metrics);
    let cpu = |lines: &BTreeMap<String, f64>, process: &str, listener: &str| {
        let labels = format!("process=\"{process}\",listener=\"{listener}\"");
        lines[&format!("holdfast_process_cpu_seconds_total{{{labels}}}")]
    };
    assert_eq!(cpu(&lines, "worker", "a"), 1.75);
    assert_eq!((cpu(&lines, "prober", ""), cpu(&lines, "supervisor", "")), (0.01, 0.02));
    let memory = "holdfast_process_resident_memory_bytes{process=\"worker\",listener=\"a\"}";
    assert_eq!(lines[memory], 30.0);
    metrics.ended(process(1));
    metrics.ended(process(3));
    metrics.prober_reported(process(5), ProberReport { samples: usage("prober", 10_000, 5.0) });
    let second = next(&metrics);
    // This supervisor is another process than the first one.
    second.keep_only(&[process(2), process(5), process(6)], &["a".to_owned()]);
    second.supervisor_said(process(6), usage("supervisor", 10_000, 7.0));
    let lines = scrape(&second);
    assert_eq!(cpu(&lines, "worker", "a"), 1.75);
    assert_eq!((cpu(&lines, "prober", ""), cpu(&lines, "supervisor", "")), (0.02, 0.03));
    assert!(!lines.contains_key(memory), "nobody has said so yet");
}

#[test]
fn who_is_no_worker_reports_no_workers_figures() {
    let metrics = Metrics::new();
    let probes = [("pool", "p"), ("settings", "s"), ("outcome", "passed")];
    let probes = sample("holdfast_probes_total", &probes, Value::Counter(3));
    metrics.report(process(1), "a", report(0, vec![probes.clone()]));
    metrics.prober_reported(process(2), ProberReport { samples: vec![opened(5), probes] });
    let lines = scrape(&metrics);
    assert_eq!(lines["holdfast_samples_refused_total"], 2.0);
    assert_eq!(lines["holdfast_tunnels_opened_total"], 0.0);
    let passed = "holdfast_probes_total{pool=\"p\",settings=\"s\",outcome=\"passed\"}";
    assert_eq!(lines[passed], 3.0);
}

#[test]
fn workers_are_counted_by_what_they_do() {
    use WorkerState::{Draining, Serving, Starting};
    let workers = [(4, Draining), (7, Starting), (6, Serving), (5, Draining)];
    let group = WorkerGroup::count("a:80".into(), workers.into_iter());
    let metrics = Metrics::new();
    let certificates = vec![("web".to_owned(), 1_900_000_000)];
    let workers = vec![group];
    metrics.set_figures(Figures { workers, certificates, prober_up: true, ..Figures::default() });
    let lines = scrape(&metrics);
    for (state, count) in [("starting", 1.0), ("serving", 1.0), ("draining", 2.0)] {
        let series = format!("holdfast_workers{{listener=\"a:80\",state=\"{state}\"}}");
        assert_eq!(lines[&series], count, "{state}");
    }
    assert_eq!(lines["holdfast_worker_generation{listener=\"a:80\"}"], 7.0);
    assert_eq!(lines["holdfast_prober_up"], 1.0);
    let expiry = "holdfast_certificate_expiry_timestamp_seconds{certificate=\"web\"}";
    assert_eq!(lines[expiry], 1_900_000_000.0);
}

/// A listener that was never worth a death is there nevertheless, so that its first one is an increase.
#[test]
fn a_workers_death_is_counted_from_zero() {
    let metrics = Metrics::new();
    metrics.report(process(1), "a:80", report(0, vec![]));
    for cause in ["planned", "exited", "crashed", "killed", "never_served"] {
        let series = format!("holdfast_worker_deaths_total{{listener=\"a:80\",cause=\"{cause}\"}}");
        assert_eq!(scrape(&metrics)[&series], 0.0, "{cause}");
    }
}

/// The names in a text that look like metrics.
fn names(text: &str) -> std::collections::BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.split(|c: char| !is_name(c)).filter(|name| name.starts_with("holdfast_"));
    names
        .map(|name| {
            let ends = ["_bucket", "_count", "_sum"].iter();
            let mut bare = ends.filter_map(|end| name.strip_suffix(end));
            bare.find(|it| is_histogram(it)).unwrap_or(name)
        })
        .collect()
}

fn is_histogram(name: &str) -> bool {
    table::all().any(|it| it.name == name && it.kind == table::Kind::Histogram)
}

#[test]
fn the_documents_dashboard_and_alerts_know_every_metric_and_no_other() {
    let mut text = String::new();
    let pools =
        vec![PoolHosts { pool: "p".into(), settings: "s".into(), healthy: 1, unhealthy: 0 }];
    let mut vault = Holdings::default();
    vault.tunnels.insert("127.0.0.1:80".parse().unwrap(), 1);
    let workers = vec![WorkerGroup::count("a".into(), std::iter::empty())];
    let certificates = vec![("c".to_owned(), 0)];
    let figures = Figures { pools, vault, workers, certificates, ..Figures::default() };
    exposition::write_figures(&mut text, &figures);
    let own = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let all: std::collections::BTreeSet<_> = table::all().map(|it| it.name).chain(own).collect();
    let documents = include_str!("../../../docs/metrics.md");
    let rows: String = documents.lines().filter(|line| line.starts_with("| `holdfast_")).collect();
    let cells = rows.split("| `").filter_map(|cell| cell.split('`').next());
    let rows: std::collections::BTreeSet<_> =
        cells.filter(|it| it.starts_with("holdfast_")).collect();
    assert_eq!(rows, all, "rows of docs/metrics.md, and what there is");
    for used in [
        documents,
        include_str!("../../../docs/monitoring/dashboard.json"),
        include_str!("../../../docs/monitoring/alerts.yml"),
        include_str!("../../../docs/monitoring/alerts_test.yml"),
    ] {
        let unknown: Vec<_> = names(used).into_iter().filter(|name| !all.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

/// No counter ever falls or vanishes, whatever dies in which order.
#[test]
fn whatever_dies_no_counter_goes_back() {
    use std::collections::BTreeSet;
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut metrics = Metrics::new();
    let mut living: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut born, mut page, mut counted) = (0, 1, 0_u64);
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..3000 {
        match random(10) {
            0 => {
                born += 1;
                if living.is_empty() {
                    (page, counted) = (page + 1, 0);
                }
                living.insert(born, 0);
            }
            1..=5 => {
                let Some((pid, said)) = living.iter_mut().nth(random(3).try_into().unwrap()) else {
                    continue;
                };
                *said += random(5);
                counted += random(5);
                let connects = sample(
                    "holdfast_backend_retries_total",
                    &[("pool", "p")],
                    Value::Counter(*said),
                );
                #[allow(clippy::cast_precision_loss, reason = "small")]
                let seconds = counted as f64 * 0.1;
                let pages = vec![opened(counted), duration(&[0.3], &[counted, *said], seconds)];
                let mut report = report(1, vec![connects]);
                report.pages = vec![PageReport { page, samples: pages }];
                metrics.report(process(*pid), "a", report);
            }
            6 => {
                let Some((pid, _)) = living.pop_first() else { continue };
                metrics.ended(process(pid));
                metrics.worker_died("a", DeathCause::Killed);
                if living.is_empty() {
                    metrics.closed("a");
                }
            }
            7 => {
                // The supervisor dies, and sometimes workers while it is away.
                metrics = next(&metrics);
                let dead: BTreeSet<u32> =
                    living.keys().copied().filter(|_| random(3) == 0).collect();
                living.retain(|pid, _| !dead.contains(pid));
                let left: Vec<_> = living.keys().map(|pid| process(*pid)).collect();
                let listeners = if left.is_empty() { vec![] } else { vec!["a".to_owned()] };
                metrics.keep_only(&left, &listeners);
            }
            _ => {}
        }
        let now = scrape(&metrics);
        let counters = now.into_iter().filter(|(line, _)| {
            ["_total", "_bucket", "_sum", "_count"].iter().any(|end| line.contains(end))
        });
        let now: BTreeMap<_, _> = counters.collect();
        for (line, before) in &last {
            assert!(now.get(line).is_some_and(|after| after >= before), "{line}: {before}");
        }
        last = now;
    }
}
