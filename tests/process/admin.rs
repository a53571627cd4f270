//! The operator's side: commands, exit codes, revisions, metrics.

use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, eventually, free_port, get, pause,
    resume, words,
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

/// The rows of a dry run: what, detail, tunnels.
fn dry_run(gateway: &Gateway, document: &Document) -> Vec<(String, String, u64)> {
    let file = gateway.write("dry.json", &document.text());
    let said = gateway.must(&["apply", file.to_str().unwrap(), "--dry-run", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = said["changes"].as_array().unwrap().iter();
    rows.map(|row| (text(row, "what"), text(row, "detail"), row["tunnels"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_dry_run_tells_what_changes_for_a_listener_and_whom_it_costs() {
    let backends = Backend::group(&["one", "two"]);
    let [one, two] = [0, 1].map(|index| backends[index].address);
    let (port, other) = (free_port(), free_port());
    let pools = || Document::new().pool("chat", &[one, two]).pool("spare", &[two]);
    let document = pools().site("web", port, "chat").site("more", other, "chat");
    let gateway = Gateway::start(&document);
    let _sockets: Vec<_> =
        [port, port, port, port, other, other].map(|port| WebSocket::open(port, "/echo")).into();
    eventually(Patience::USUAL, "six tunnels", || (gateway.tunnels().len() == 6).then_some(()));
    let row = |what: &str, detail: &str, tunnels| (what.to_owned(), detail.to_owned(), tunnels);
    let [web, more] = [port, other].map(|port| format!("listener 127.0.0.1:{port}"));

    // One more site costs nobody anything.
    let bigger = document.clone().host_site("named", port, "named.test", "chat");
    assert_eq!(dry_run(&gateway, &bigger), [row(&web, "site named added", 0)]);

    // A backend that leaves is told with its pool.
    let smaller = Document::new()
        .pool("chat", &[one])
        .pool("spare", &[two])
        .site("web", port, "chat")
        .site("more", other, "chat");
    let told = dry_run(&gateway, &smaller);
    let gone = format!("-{two}");
    assert!(told.contains(&row("pool chat", &gone, 3)), "{told:?}");
    assert!(told.contains(&row(&web, "backends of pool chat", 0)), "{told:?}");

    // Who is routed elsewhere from now on leaves tunnels where they are.
    let rerouted = pools().site("web", port, "spare").site("more", other, "chat");
    let told = dry_run(&gateway, &rerouted);
    assert!(told.contains(&row(&web, "site web: routes", 0)), "{told:?}");
    assert!(told.iter().all(|row| row.2 == 0), "{told:?}");

    // No configuration ends the tunnels of a listener that is removed.
    let told = dry_run(&gateway, &pools().site("web", port, "chat"));
    let left = "site more removed; 2 tunnels live on until they end by themselves";
    assert_eq!(told, [row(&more, left, 0)]);
    assert_eq!(gateway.revision(), 1);

    // A pool that nobody is routed to any more has tunnels still.
    let unrouted = pools().site("web", port, "spare").site("more", other, "spare");
    gateway.apply(&unrouted);
    let gone = Document::new().pool("chat", &[two]).pool("spare", &[two]);
    let told = dry_run(&gateway, &gone.site("web", port, "spare").site("more", other, "spare"));
    assert_eq!(told, [row("pool chat", &format!("-{one}"), 3)]);
}

#[test]
fn a_dry_run_says_whose_tunnels_it_could_not_count() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let document = Document::simple(port, &addresses);
    let gateway = Gateway::start(&document);
    let _sockets = [(); 2].map(|()| WebSocket::open(port, "/echo"));
    gateway.protects(2);
    let worker = gateway.worker_pid();
    pause(worker);
    let smaller = gateway.write("smaller.json", &Document::simple(port, &addresses[..1]).text());
    let ask = ["apply", smaller.to_str().unwrap(), "--dry-run"];
    let said = gateway.must(&ask);
    let note = format!(
        "worker {worker} of 127.0.0.1:{port} has not answered, it is stopped or very busy: its 2 tunnels are not among these"
    );
    assert!(said.contains(&note), "{said}");
    let said = gateway.must(&[&ask[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    let silent =
        serde_json::json!([{"listener": format!("127.0.0.1:{port}"), "pid": worker, "tunnels": 2}]);
    assert_eq!(said["silent"], silent, "{said}");
    // What ends no tunnel asks nobody.
    let bigger = document.host_site("named", port, "named.test", "chat");
    let bigger = gateway.write("bigger.json", &bigger.text());
    let said = gateway.must(&["apply", bigger.to_str().unwrap(), "--dry-run"]);
    assert!(!said.contains("has not answered"), "{said}");
    resume(worker);
    let said = gateway.must(&ask);
    assert!(!said.contains("has not answered"), "{said}");
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
