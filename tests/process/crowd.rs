//! Commands in a crowd: what each caller is told when another's command is under way.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Child;

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

/// A gateway, and an apply of one more listener that has reached the ledger and now waits for the first verdict on a
/// backend that never says a word.
fn long_apply() -> (Gateway, Child, u16, (Backend, TcpListener)) {
    let (gateway, port, backend) = one_gateway();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    let added = free_port();
    let document = Document::simple(port, &[backend.address])
        .pool("silent", &[address])
        .set("probes", "silent", "timeout", 30)
        .site("more", added, "silent");
    let file = gateway.write("long.json", &document.text());
    let apply = gateway.begin_cli(&["apply", file.to_str().unwrap()]);
    eventually(Patience::USUAL, "the revision to be in the ledger", || {
        let revisions = gateway.must(&["revisions", "--json"]);
        let revisions: Vec<Value> = serde_json::from_str(&revisions).unwrap();
        (revisions.len() == 2).then_some(())
    });
    (gateway, apply, added, (backend, silent))
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
