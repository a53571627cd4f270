//! Commands in a crowd: what each caller is told when another's command is under way.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Child;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Backend, Document, Gateway, Patience, WebSocket, alive, eventually, free_port, get, kill9,
    pause, resume, words,
};

fn one_gateway() -> (Gateway, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    (Gateway::start(&Document::simple(port, &[backend.address])), port, backend)
}

/// What a begun command said, if it succeeded.
fn said(command: Child) -> String {
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    words(&output)
}

#[test]
fn restarts_at_once_are_each_answered_with_a_successor_that_serves() {
    let (gateway, port, _backend) = one_gateway();
    let old = gateway.worker_pid();
    // All of them are there before the first one is heard.
    pause(gateway.supervisor_pid());
    let restarts = [(); 4].map(|()| gateway.begin_cli(&["restart", "--json"]));
    resume(gateway.supervisor_pid());
    for restart in restarts {
        let answer: Value = serde_json::from_str(&said(restart)).unwrap();
        assert_eq!(answer[0]["error"], Value::Null, "{answer}");
        assert_ne!(answer[0]["new_pid"], old, "{answer}");
    }
    assert_ne!(gateway.worker_pid(), old);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_restart_of_an_unknown_listener_is_refused_with_those_that_there_are() {
    let (gateway, port, _backend) = one_gateway();
    let worker = gateway.worker_pid();
    let refused = gateway.cli(&["restart", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        words(&refused).contains(&format!("there are: 127.0.0.1:{port}")),
        "{}",
        words(&refused)
    );
    assert_eq!(gateway.worker_pid(), worker);
}

#[test]
fn an_apply_during_restarts_is_served_when_it_returns() {
    let [one, two] = ["one", "two"].map(Backend::start);
    let port = free_port();
    let documents = [&two, &one].map(|it| Document::simple(port, &[it.address]));
    let gateway = Gateway::start(&documents[1]);
    for (document, name) in documents.iter().zip(["two", "one"]).cycle().take(10) {
        let restart = gateway.begin_cli(&["restart"]);
        gateway.apply(document);
        assert_eq!(get(port, "/whoami").unwrap().text(), name);
        said(restart);
        assert_eq!(get(port, "/whoami").unwrap().text(), name);
    }
}

/// A gateway; a document whose change takes long: one more listener, in front of a backend that never says a word, for
/// whose first verdict the change waits; that listener's port.
fn slow_change() -> (Gateway, Document, u16, (Backend, TcpListener)) {
    let (gateway, port, backend) = one_gateway();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    let added = free_port();
    let document = Document::simple(port, &[backend.address])
        .pool("silent", &[address])
        .set("probes", "silent", "timeout", 30)
        .site("more", added, "silent");
    (gateway, document, added, (backend, silent))
}

/// Waits until the slow change has reached the ledger; it waits for the verdict then.
fn is_under_way(gateway: &Gateway) {
    eventually(Patience::USUAL, "the revision to be in the ledger", || {
        let revisions = gateway.must(&["revisions", "--json"]);
        let revisions: Vec<Value> = serde_json::from_str(&revisions).unwrap();
        (revisions.len() == 2).then_some(())
    });
    assert_eq!(gateway.revision(), 1, "the change was over already");
}

/// A gateway with an apply of the slow change under way.
fn long_apply() -> (Gateway, Child, u16, (Backend, TcpListener)) {
    let (gateway, document, added, backends) = slow_change();
    let file = gateway.write("long.json", &document.text());
    let apply = gateway.begin_cli(&["apply", file.to_str().unwrap()]);
    is_under_way(&gateway);
    (gateway, apply, added, backends)
}

/// How many lines of the log say all of this.
fn logged(gateway: &Gateway, what: [&str; 2]) -> usize {
    gateway.log().lines().filter(|line| what.iter().all(|it| line.contains(it))).count()
}

#[test]
fn a_flood_of_hangups_during_a_reload_is_one_more_reload() {
    let (gateway, document, added, _backends) = slow_change();
    gateway.write("gateway.json", &document.text());
    gateway.signal(Signal::SIGHUP);
    is_under_way(&gateway);
    for _ in 0..10 {
        gateway.signal(Signal::SIGHUP);
        // Each is caught before the next one comes: the kernel would merge them.
        gateway.status();
    }
    let read_again = ["holdfast_supervisor::signals", "has not changed since it was last read"];
    eventually(Patience::USUAL, "one more reload", || {
        (logged(&gateway, read_again) > 0).then_some(())
    });
    // Whatever waited before this apply has had its turn when it returns.
    gateway.must(&["apply", "gateway.json"]);
    assert_eq!(logged(&gateway, read_again), 1);
    assert!(get(added, "/whoami").is_ok());
}

#[test]
fn reloads_at_once_share_a_reading_that_began_after_the_last_was_asked_for() {
    let (gateway, document, _added, _backends) = slow_change();
    let before = std::fs::read_to_string(gateway.path().join("gateway.json")).unwrap();
    gateway.write("gateway.json", &document.text());
    let first = gateway.begin_cli(&["reload", "--json"]);
    is_under_way(&gateway);
    gateway.write("gateway.json", &before);
    let crowd = [(); 5].map(|()| gateway.begin_cli(&["reload", "--json"]));
    eventually(Patience::USUAL, "all of them to be heard", || {
        (logged(&gateway, ["audit: asked", "method=\"Reload\""]) == 6).then_some(())
    });
    let revision = |command: Child| -> Value {
        let answer: Value = serde_json::from_str(&said(command)).unwrap();
        assert_eq!(answer["changed"], true, "{answer}");
        answer["revision"].clone()
    };
    assert_eq!(revision(first), 2);
    assert!(crowd.into_iter().map(revision).all(|revision| revision == 3));
}

#[test]
fn an_apply_whose_caller_goes_away_is_carried_out() {
    let (gateway, mut apply, added, _backends) = long_apply();
    kill9(apply.id());
    apply.wait().unwrap();
    assert_eq!(gateway.revision(), 1, "the apply was over before its caller was");
    eventually(Patience::USUAL, "the revision to be served", || {
        (gateway.revision() == 2 && get(added, "/whoami").is_ok()).then_some(())
    });
}

#[test]
fn a_stop_during_an_apply_leaves_no_process_and_the_revision_for_the_next_start() {
    let (gateway, apply, added, _backends) = long_apply();
    let children = gateway.children();
    gateway.must(&["stop", "--drain-timeout", "0"]);
    let told = said(apply);
    assert!(told.contains("served when it is started again"), "{told}");
    eventually(Patience::USUAL, "the gateway to end", || {
        (gateway.has_ended() && !children.iter().any(|pid| alive(*pid))).then_some(())
    });
    assert!(TcpStream::connect(("127.0.0.1", added)).is_err(), "somebody listens still");
    gateway.start_again();
    assert_eq!(gateway.revision(), 2);
}

#[test]
fn a_stopping_gateway_refuses_changes_and_a_second_stop_puts_nothing_off() {
    let (gateway, port, backend) = one_gateway();
    let mut socket = WebSocket::open(port, "/echo");
    gateway.must(&["stop", "--drain-timeout", "3"]);
    gateway.must(&["stop", "--drain-timeout", "600"]);
    let more = Document::simple(port, &[backend.address]).site("more", free_port(), "chat");
    let told = gateway.apply_refused(&more.text());
    assert!(told.contains("the gateway stops"), "{told}");
    let restart = gateway.cli(&["restart"]);
    assert_eq!(restart.status.code(), Some(1));
    assert!(words(&restart).contains("the gateway stops"), "{}", words(&restart));
    assert!(socket.echoes("still here"));
    eventually(Patience::USUAL, "the first stop's deadline", || gateway.has_ended().then_some(()));
}
