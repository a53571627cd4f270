//! The command line as a person meets it: explanations that are true, lists narrowed down, answers that say what to do.

mod answers;
mod explain;
mod failures;
mod names;
mod terminal;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, directory, eventually, free_port,
    get, pause, resume, words,
};

/// `holdfast tunnels --json` with filters: the clients' ports.
fn clients(gateway: &Gateway, filters: &[&str]) -> Vec<u16> {
    let arguments = [&["tunnels", "--json"], filters].concat();
    let tunnels: Vec<Value> = serde_json::from_str(&gateway.must(&arguments)).unwrap();
    let port =
        |tunnel: &Value| tunnel["client"].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
    let mut ports: Vec<_> = tunnels.iter().map(port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn tunnels_are_listed_by_site_pool_backend_client_and_age() {
    let backends = Backend::group(&["one", "two"]);
    let [one, two] = [0, 1].map(|index| backends[index].address);
    let (port, other) = (free_port(), free_port());
    let document = Document::new()
        .pool("chat", &[one])
        .pool("spare", &[two])
        .site("web", port, "chat")
        .site("more", other, "spare");
    let gateway = Gateway::start(&document);
    let sockets = [port, other, other].map(|port| WebSocket::open(port, "/echo"));
    eventually(Patience::USUAL, "three tunnels", || (gateway.tunnels().len() == 3).then_some(()));
    let first = vec![sockets[0].local_port()];
    let mut rest = vec![sockets[1].local_port(), sockets[2].local_port()];
    rest.sort_unstable();
    let none = Vec::<u16>::new();
    for (filters, expected) in [
        (vec!["--site", "WEB"], &first),
        (vec!["--site", "more"], &rest),
        (vec!["--site", "none"], &none),
        (vec!["--pool", "chat"], &first),
        (vec!["--pool", "chat", "--site", "more"], &none),
        (vec!["--backend", &two.to_string()], &rest),
        (vec!["--backend", &one.ip().to_string()], &first),
        (vec!["--client", "127.0.0.0/8", "--pool", "spare"], &rest),
        (vec!["--client", "10.0.0.0/8"], &none),
        (vec!["--max-age", "1d", "--site", "web"], &first),
        (vec!["--min-age", "1d"], &none),
    ] {
        assert_eq!(clients(&gateway, &filters), *expected, "{filters:?}");
    }
    let said = gateway.must(&["tunnels", "--site", "none"]);
    assert_eq!(said, "no tunnels\n");
}

#[test]
fn a_watched_status_is_told_again_with_each_revision() {
    let backends = ["one", "two"].map(Backend::start);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backends[0].address]));
    let mut watching = gateway.begin_cli(&["status", "--watch", "--json"]);
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut revision_told = |wanted: u64| {
        let is_it = |line: std::io::Result<String>| {
            serde_json::from_str::<Value>(&line.unwrap()).unwrap()["revision"] == wanted
        };
        assert!(lines.by_ref().any(is_it), "revision {wanted}");
    };
    revision_told(1);
    gateway.apply(&Document::simple(port, &[backends[1].address]));
    revision_told(2);
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn a_drain_can_be_waited_for() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("hello"));
    let target = format!("chat/{}", backend.address);
    let output = gateway.cli(&["drain", &target, "--wait", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("1 tunnel lives on"), "{}", words(&output));
    let waiting = gateway.begin_cli(&["drain", &target, "--wait"]);
    assert!(socket.echoes("still here"));
    drop(socket);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(words(&output).contains("has no tunnels"), "{}", words(&output));
    gateway.must(&["undrain", &target]);
}

#[test]
fn tunnels_of_a_stopped_worker_are_not_taken_for_none() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("hello"));
    let (worker, target) = (gateway.worker_pid(), format!("chat/{}", backend.address));
    // The supervisor knows of it from the worker's reports.
    eventually(Patience::USUAL, "the tunnel to be known", || {
        let workers = &gateway.status()["listeners"][0]["workers"];
        (workers[0]["tunnels"] == 1).then_some(())
    });
    pause(worker);
    let note = format!("worker {worker} of 127.0.0.1:{port} has not answered");
    let output = gateway.cli(&["tunnels"]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(words(&output).contains(&note), "{}", words(&output));
    let output = gateway.cli(&["drain", &target, "--wait", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("whether it has tunnels is not known"), "{}", words(&output));
    assert!(words(&output).contains(&note), "{}", words(&output));
    let waiting = gateway.begin_cli(&["drain", &target, "--wait"]);
    resume(worker);
    assert!(socket.echoes("still here"));
    drop(socket);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(!words(&output).contains("has not answered"), "{}", words(&output));
}

#[test]
fn what_is_logged_changes_while_everything_runs() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let logged = |path: &str| {
        get(port, path).unwrap();
        gateway.log().lines().any(|line| line.contains("answered") && line.contains(path))
    };
    assert!(!logged("/before"), "requests are logged without being asked for");
    assert_eq!(gateway.must(&["log-level"]), "info\n");
    gateway.must(&["log-level", "info,holdfast_worker=debug"]);
    // The worker hears of it a moment later.
    eventually(Patience::USUAL, "a debug line of the worker", || logged("/then").then_some(()));
    assert_eq!(gateway.status()["log_filter"], "info,holdfast_worker=debug");
    let output = gateway.cli(&["log-level", "loud"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("\"loud\" is no level"), "{}", words(&output));
    assert_eq!(gateway.must(&["log-level"]), "info,holdfast_worker=debug\n");
    // A worker that is born later is told, too.
    gateway.must(&["restart"]);
    eventually(Patience::USUAL, "a debug line of its successor", || logged("/later").then_some(()));
    assert_eq!(gateway.must(&["log-level", "info"]), "info\n");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let said = |arguments: &[&str]| {
        let output = Command::new(HOLDFAST).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        for part in ["explain", "tunnels", "min-age"] {
            assert!(script.contains(part), "{part} is not in the completions of {shell}");
        }
        assert!(!script.contains("takeover-check"), "{shell} completes what nobody calls");
    }
    assert!(said(&["man"]).contains(".TH holdfast"), "the page on standard output");
    let pages = directory();
    said(&["man", pages.path().to_str().unwrap()]);
    for page in ["holdfast.1", "holdfast-run.1", "holdfast-explain.1", "holdfast-man.1"] {
        let text = std::fs::read_to_string(pages.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}:\n{text}");
    }
    assert!(!pages.path().join("holdfast-worker.1").exists());
    let output = Command::new(HOLDFAST).args(["man", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("/nowhere/at/all"), "{}", words(&output));
}
