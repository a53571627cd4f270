//! What people's own clients and servers notice when the gateway's processes die under them: nothing. Python
//! `websockets`, npm `ws` and Chromium, with and without TLS.
//!
//! The scripts in `tests/clients/` judge what they hear; here processes are killed.

use serde_json::Value;

use crate::harness::{
    Backend, Certificate, Demo, Document, Gateway, Patience, Peer, Sealed, Talker, alive,
    directory, eventually, free_port, kill9, scale, tools,
};
use crate::upgrade::{executable, upgrade_to};

/// Which of the two sides of the gateway has TLS, if any.
type Legs = Option<Sealed>;

/// The gateway, its backend, and the clients' arguments: where it is, and whom to trust.
fn place(
    start: &dyn Fn(Option<&Certificate>) -> Backend,
    legs: Legs,
) -> (Gateway, Backend, Vec<String>) {
    let directory = directory();
    let certificate = Certificate::signed_by_openssl(directory.path(), "localhost");
    let [wss, https] = [Sealed::Client, Sealed::Backend]
        .map(|leg| legs == Some(leg) || legs == Some(Sealed::Both));
    let backend = start(https.then_some(&certificate));
    let port = free_port();
    let document = Document::new().pool("chat", &[backend.address]);
    let document = if https { document.with_https_backends("chat") } else { document };
    let (document, arguments) = if wss {
        let trusted = certificate.root_file.to_str().unwrap().to_owned();
        let document = document.tls_site("web", port, &certificate, "chat");
        (document, vec![format!("wss://localhost:{port}/echo"), trusted])
    } else {
        (document.site("web", port, "chat"), vec![format!("ws://localhost:{port}/echo")])
    };
    (Gateway::start_in(directory, &document), backend, arguments)
}

/// Both clients through one server, numbered messages all the time, while everything of the gateway is replaced.
fn streams_outlive_everything(server: &str, legs: Legs, peer: Peer) {
    let what = format!("Python and Node clients through kills, {server}, TLS: {legs:?}");
    let Some(tools) = tools(&what) else { return };
    let started =
        |certificate: Option<&Certificate>| Backend::start_peer(&tools, server, certificate, peer);
    let (gateway, _backend, arguments) = place(&started, legs);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut clients = ["ws_stream.py", "ws_stream.mjs"]
        .map(|client| Talker::start_peer(&tools, client, &arguments, peer));
    let mut go_on = || clients.iter_mut().for_each(|client| client.goes_on_for(2));
    go_on();
    for _ in 0..scale("HOLDFAST_TEST_PEOPLE_KILLS", 5) {
        gateway.replace_by_force();
        go_on();
    }
    gateway.replace_in_order();
    go_on();
    upgrade_to(&gateway, &executable(&gateway, "9.9.9"));
    go_on();
    gateway.replace_by_force();
    go_on();
    let worker = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    go_on();
    gateway.start_again();
    go_on();
    assert_eq!(gateway.worker_pid(), worker, "a supervisor's death cost a worker");
    gateway.protects(2);
    gateway.replace_by_force();
    go_on();
    gateway.holds_exactly(2);
    assert!(gateway.ends_told().is_empty(), "{:?}", gateway.ends_told());
    for client in clients {
        let told = client.finish();
        assert!(told.starts_with("all "), "{told}");
    }
    gateway.holds_exactly(0);
    gateway.has_lost_none();
    let ends = eventually(Patience::USUAL, "both ends to be told", || {
        Some(gateway.ends_told()).filter(|told| told.len() == 2)
    });
    // Either side may close its socket first once the closing handshake is done.
    let in_order = |end: &String| {
        ["client", "backend"].iter().any(|it| end.contains(&format!("cause=\"{it}\"")))
    };
    assert!(ends.iter().all(in_order), "{ends:?}");
}

#[test]
fn python_and_node_clients_of_a_python_server_notice_no_kill() {
    streams_outlive_everything("ws_server.py", None, Peer::default());
}

#[test]
fn python_and_node_clients_of_a_node_server_notice_no_kill() {
    streams_outlive_everything("ws_server.mjs", None, Peer::default());
}

#[test]
fn python_and_node_clients_over_wss_of_a_plain_server_notice_no_kill() {
    streams_outlive_everything("ws_server.py", Some(Sealed::Client), Peer::default());
}

#[test]
fn python_and_node_clients_of_an_https_server_notice_no_kill() {
    streams_outlive_everything("ws_server.mjs", Some(Sealed::Backend), Peer::default());
}

#[test]
fn python_and_node_clients_over_wss_of_a_python_https_server_notice_no_kill() {
    streams_outlive_everything("ws_server.py", Some(Sealed::Both), Peer::default());
}

#[test]
fn python_and_node_clients_over_wss_of_a_node_https_server_notice_no_kill() {
    streams_outlive_everything("ws_server.mjs", Some(Sealed::Both), Peer::default());
}

#[test]
fn python_and_node_clients_of_a_python_server_that_knows_only_tls_1_2_notice_no_kill() {
    streams_outlive_everything("ws_server.py", Some(Sealed::Both), Peer { old: true });
}

#[test]
fn python_and_node_clients_of_a_node_server_that_knows_only_tls_1_2_notice_no_kill() {
    streams_outlive_everything("ws_server.mjs", Some(Sealed::Both), Peer { old: true });
}

/// The worker of the demo's page on `port`.
fn page_worker(demo: &Demo, port: u16) -> Option<u32> {
    let status: Value = serde_json::from_slice(&demo.cli(&["status", "--json"]).stdout).ok()?;
    let end = format!(":{port}");
    let listeners = status["listeners"].as_array()?;
    let page = listeners.iter().find(|it| it["address"].as_str().unwrap().ends_with(&end))?;
    let workers = page["workers"].as_array()?;
    let serving = workers.iter().find(|worker| worker["state"] == "serving")?;
    u32::try_from(serving["pid"].as_u64()?).ok()
}

/// Chromium on the demo's page at one of its addresses while its worker is killed.
fn the_page_grows_older(scheme: &str, port_of: impl Fn(&Demo) -> u16) {
    let Some(tools) = tools(&format!("Chromium on the demo's {scheme} page through kills")) else {
        return;
    };
    let demo = Demo::start();
    let port = port_of(&demo);
    let mut page =
        Talker::start(&tools, "browser_age.mjs", &[&format!("{scheme}://localhost:{port}/")]);
    let mut look = || -> Value { serde_json::from_str(&page.ask()).unwrap() };
    let first = look();
    let mut age = first["age"].as_u64().unwrap();
    for round in 2..=4 {
        let worker = eventually(Patience::USUAL, "the page's worker", || page_worker(&demo, port));
        kill9(worker);
        eventually(Patience::USUAL, "it to be gone", || (!alive(worker)).then_some(()));
        let now = look();
        assert!(now["age"].as_u64().unwrap() > age, "{now} after {age}");
        age = now["age"].as_u64().unwrap();
        assert_eq!((&now["reconnects"], &now["state"]), (&"0".into(), &"open".into()));
        // One connection has told one name, and each sentence came back once.
        assert_eq!((&now["notes"], &now["heard"]), (&1.into(), &round.into()), "{now}");
        assert_eq!(now["backend"], first["backend"]);
    }
    page.finish();
}

#[test]
fn the_demos_page_in_chromium_grows_older_through_kills_of_its_worker() {
    the_page_grows_older("http", |demo| demo.port);
}

#[test]
fn the_demos_https_page_in_chromium_grows_older_through_kills_of_its_worker() {
    the_page_grows_older("https", |demo| demo.secure_port);
}
