//! The operator's side: commands, exit codes, revisions, metrics.

use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, eventually, free_port, get, words,
};

fn two_revisions() -> (Gateway, u16, [Backend; 2]) {
    let backends = ["one", "two"].map(Backend::start);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backends[0].address]));
    gateway.apply(&Document::simple(port, &[backends[1].address]));
    (gateway, port, backends)
}

#[test]
fn usage_errors_exit_2_and_help_exits_0() {
    let code =
        |arguments: &[&str]| Command::new(HOLDFAST).args(arguments).output().unwrap().status.code();
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["drain"]), Some(2));
    for command in ["run", "demo", "validate", "apply", "status", "drain", "restart", "stop"] {
        assert_eq!(code(&[command, "--help"]), Some(0), "{command}");
    }
}

#[test]
fn a_command_without_a_gateway_says_where_it_looked() {
    let output = Command::new(HOLDFAST)
        .args(["status", "--admin", "unix:/tmp/holdfast-none.sock"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("/tmp/holdfast-none.sock"), "{}", words(&output));
}

#[test]
fn a_rollback_is_a_new_revision_with_the_old_document() {
    let (gateway, port, _backends) = two_revisions();
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    gateway.must(&["rollback", "1"]);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    assert_eq!(gateway.revision(), 3);
    let revisions: Value = serde_json::from_str(&gateway.must(&["revisions", "--json"])).unwrap();
    assert_eq!(revisions.as_array().unwrap().len(), 3);
}

#[test]
fn an_apply_against_another_revision_is_refused() {
    let (gateway, port, backends) = two_revisions();
    let document = Document::simple(port, &[backends[0].address]);
    let file = gateway.write("late.json", &document.text());
    let file = file.to_str().unwrap();
    assert_eq!(gateway.cli(&["apply", file, "--if-revision", "1"]).status.code(), Some(1));
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    gateway.must(&["apply", file, "--if-revision", "2"]);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_dry_run_tells_the_change_and_makes_none() {
    let (gateway, port, backends) = two_revisions();
    let added = free_port();
    let document = Document::simple(port, &[backends[0].address]).site("more", added, "chat");
    let file = gateway.write("dry.json", &document.text());
    let said = gateway.must(&["apply", file.to_str().unwrap(), "--dry-run"]);
    assert!(said.contains(&added.to_string()), "{said}");
    assert_eq!(gateway.revision(), 2);
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
}

#[test]
fn the_same_document_applied_again_makes_no_revision() {
    let (gateway, port, backends) = two_revisions();
    gateway.apply(&Document::simple(port, &[backends[1].address]));
    assert_eq!(gateway.revision(), 2);
}

#[test]
fn the_effective_configuration_shows_defaults_and_no_secret() {
    let (gateway, _port, _backends) = two_revisions();
    let said = gateway.must(&["config"]);
    assert!(said.contains("requestTimeout"), "{said}");
    assert!(!said.contains("PRIVATE KEY"), "{said}");
}

#[test]
fn the_status_address_tells_health_and_counts_tunnels() {
    let (gateway, port, _backends) = two_revisions();
    assert_eq!(gateway.status_page("/healthz").status, 200);
    assert_eq!(gateway.status_page("/no-such-page").status, 404);
    let mut sockets = [(); 3].map(|()| WebSocket::open(port, "/echo"));
    assert!(sockets.iter_mut().all(|socket| socket.echoes("hello")));
    eventually(Patience::USUAL, "three tunnels in the metrics", || {
        (gateway.metric("holdfast_tunnels_active") > 2.5).then_some(())
    });
    drop(sockets);
    eventually(Patience::USUAL, "three ended tunnels in the metrics", || {
        (gateway.metric("holdfast_tunnels_closed_total") > 2.5).then_some(())
    });
    assert!(gateway.metric("holdfast_tunnels_active") < 0.5);
}
