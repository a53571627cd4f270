//! A real Prometheus: what it makes of the exposition, of the alert rules, and of every question of the dashboard.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Backend, Certificate, Connection, Document, Gateway, Patience, WebSocket, directory,
    eventually, free_port, get, kill9, scale, tools, words,
};

/// Generations of workers that the long test goes through.
const GENERATIONS: u32 = 20;

fn monitoring(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name)
}

/// A Prometheus that asks a gateway every second; it ends with this value.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(gateway: &Gateway) -> Self {
        let port = free_port();
        let rules = fs::copy(monitoring("alerts.yml"), gateway.path().join("alerts.yml"));
        rules.unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "holdfast",
                "static_configs": [{"targets": [format!("127.0.0.1:{}", gateway.status_port())]}]}],
        });
        // JSON is YAML.
        let config = gateway.write("prometheus.yml", &config.to_string());
        let log = File::create(gateway.path().join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", gateway.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self { child, port };
        eventually(Patience::LONG, "Prometheus to be ready", || {
            get(port, "/-/ready").ok().filter(|answer| answer.status == 200)
        });
        prometheus
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(self.port, path).unwrap();
        let body: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// Every series that a question has for an answer, and its value now.
    fn query(&self, question: &str) -> Vec<(Value, f64)> {
        let encoded = question.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02x}").unwrap();
            text
        });
        let data = self.ask(&format!("/api/v1/query?query={encoded}"));
        let series = data["result"].as_array().unwrap().iter();
        let value = |it: &Value| it["value"][1].as_str().unwrap().parse::<f64>().unwrap();
        series.map(|it| (it["metric"].clone(), value(it))).collect()
    }

    /// The names of all counters and parts of histograms that it has ever seen here.
    fn counters(&self) -> BTreeSet<String> {
        let names = self.ask("/api/v1/label/__name__/values");
        let names = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        let ends = ["_total", "_bucket", "_sum", "_count"];
        names
            .filter(|name| name.starts_with("holdfast_"))
            .filter(|name| ends.iter().any(|end| name.ends_with(end)))
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Every question of the dashboard, as Grafana would ask it.
fn questions() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_slice(&fs::read(monitoring("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let asked = targets.map(|target| target["expr"].as_str().unwrap());
    let filled = |question: &str| -> String {
        question
            .replace("$__rate_interval", "15m")
            .replace("$instance", ".*")
            .replace("$listener", ".*")
    };
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let listed = variables.filter(|it| it["type"] == "query").map(|it| {
        let values = it["query"].as_str().unwrap().strip_prefix("label_values(").unwrap();
        let (series, label) = values.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        // No answer where no series has the label.
        format!("group by ({label}) ({series}{{{label}!=\"\"}})")
    });
    let listed: Vec<_> = listed.collect();
    assert!(!listed.is_empty());
    asked.map(filled).chain(listed).collect()
}

/// A gateway with a bit of everything, and what it stands between.
struct Scene {
    gateway: Gateway,
    backends: Vec<Backend>,
    certificate: Certificate,
    port: u16,
    secure_port: u16,
}

impl Scene {
    fn new() -> Self {
        let directory = directory();
        let certificate = Certificate::make(directory.path(), "secure", "localhost");
        let backends = Backend::group(&["one", "two"]);
        let (port, secure_port) = (free_port(), free_port());
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let log = directory.path().join("access.log");
        let document = Document::simple(port, &addresses)
            .tls_site("secure", secure_port, &certificate, "chat")
            // The probe is to be slower than the requests that meet a dead backend.
            .set("probes", "chat", "interval", 5)
            .holdfast("accessLog", json!({"destination": "file", "file": log}));
        let gateway = Gateway::start_in(directory, &document);
        Self { gateway, backends, certificate, port, secure_port }
    }

    /// Requests and tunnels that come and go, and what is wrong with some of them.
    fn traffic(&self) {
        for _ in 0..4 {
            get(self.port, "/whoami").unwrap();
        }
        // Plain HTTP to a TLS listener, and a request that no HTTP is.
        get(self.secure_port, "/whoami").unwrap();
        let mut rude = Connection::open(self.port).unwrap();
        rude.write("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap();
        rude.response().unwrap();
        let secure = WebSocket::open_tls(self.secure_port, "/echo", &self.certificate);
        for mut socket in [WebSocket::open(self.port, "/echo"), secure] {
            assert!(socket.echoes("hello"));
            socket.finish_sending();
            assert!(socket.end().is_some());
        }
    }

    /// The newest worker's generation, of all listeners.
    fn generation(&self) -> f64 {
        let text = get(self.gateway.status_port(), "/metrics").unwrap().text();
        let rows = text.lines().filter(|row| row.starts_with("holdfast_worker_generation{"));
        let values = rows.map(|row| row.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.fold(0.0, f64::max)
    }
}

fn promtool(arguments: &[&str], input: Option<&str>) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(monitoring(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {}", words(&output));
    // What it would rather have otherwise, it says and succeeds.
    assert!(input.is_none() || words(&output).trim().is_empty(), "{}", words(&output));
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    if tools("promtool").is_none() {
        return;
    }
    promtool(&["check", "config", "prometheus.yml"], None);
    promtool(&["check", "rules", "alerts.yml"], None);
    promtool(&["test", "rules", "alerts_test.yml"], None);
}

#[test]
fn prometheus_sees_no_counter_go_back_over_twenty_generations_and_answers_the_dashboard() {
    if tools("Prometheus").is_none() {
        return;
    }
    let mut scene = Scene::new();
    let begun = Instant::now();
    let span = scale("HOLDFAST_TEST_PROMETHEUS_SECONDS", 0);
    let prometheus = Prometheus::start(&scene.gateway);
    let mut kept = WebSocket::open(scene.port, "/echo");
    scene.traffic();
    for round in 1..=GENERATIONS {
        let before = scene.generation();
        match round % 5 {
            3 => kill9(scene.gateway.worker_pids()[0]),
            _ => drop(scene.gateway.must(&["restart"])),
        }
        if round == GENERATIONS / 2 {
            // Another supervisor goes on counting where this one was.
            kill9(scene.gateway.supervisor_pid());
            scene.gateway.start_again();
        }
        let generation = eventually(Patience::USUAL, "another generation", || {
            Some(scene.generation()).filter(|it| *it > before)
        });
        scene.traffic();
        eventually(Patience::USUAL, "Prometheus to see it", || {
            let seen = prometheus.query("max(holdfast_worker_generation)");
            seen.first().filter(|(_, seen)| *seen >= generation).map(|_| ())
        });
        let due = Duration::from_secs((span * round / GENERATIONS).into());
        while let Some(left) = due.checked_sub(begun.elapsed()).filter(|it| !it.is_zero()) {
            thread::park_timeout(left);
        }
    }
    assert!(kept.echoes("still here"));
    // A backend that is gone before any probe has noticed.
    drop(scene.backends.pop().unwrap().stop());
    for _ in 0..4 {
        assert_eq!(get(scene.port, "/whoami").unwrap().status, 200);
    }
    scene.traffic();
    // Twice, since one sample is no rate.
    let failures = "sum(rate(holdfast_backend_connect_failures_total[15m]))";
    eventually(Patience::USUAL, "Prometheus to have seen the dead backend", || {
        prometheus.query(failures).first().map(|_| ())
    });

    let counters = prometheus.counters();
    assert!(counters.len() >= 50, "{counters:?}");
    for name in &counters {
        let resets = prometheus.query(&format!("resets({name}[2h]) > 0"));
        assert!(resets.is_empty(), "{name} went back: {resets:?}");
    }
    let generations = prometheus.query("sum(changes(holdfast_worker_generation[2h]))");
    assert!(generations[0].1 >= f64::from(GENERATIONS), "{generations:?}");
    let mute: Vec<_> = questions()
        .into_iter()
        .filter(|question| prometheus.query(question).iter().all(|(_, value)| value.is_nan()))
        .collect();
    assert!(mute.is_empty(), "questions without an answer: {mute:#?}");
    for name in ["holdfast_tunnels_lost_total", "holdfast_samples_refused_total"] {
        assert_eq!(scene.gateway.count(name), 0, "{name}");
    }
    let exposition = scene.gateway.status_page("/metrics").body;
    promtool(&["check", "metrics"], Some(&String::from_utf8(exposition).unwrap()));
}
