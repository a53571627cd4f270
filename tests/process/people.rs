//! What people's own clients and servers notice when the gateway's processes die under them: nothing. Python
//! `websockets`, npm `ws` and Chromium.
//!
//! The scripts in `tests/clients/` judge what they hear; here processes are killed.

use serde_json::Value;

use crate::harness::{
    Backend, Demo, Document, Gateway, Patience, Talker, alive, eventually, free_port, kill9, scale,
    tools,
};

/// Both clients through one server, numbered messages all the time, while everything of the gateway is replaced.
fn streams_outlive_everything(server: &str) {
    let Some(tools) = tools(&format!("Python and Node clients through kills, {server}")) else {
        return;
    };
    let backend = Backend::start_script(&tools, server);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let url = format!("ws://localhost:{port}/echo");
    let mut clients =
        ["ws_stream.py", "ws_stream.mjs"].map(|client| Talker::start(&tools, client, &[&url]));
    let mut go_on = || clients.iter_mut().for_each(|client| client.goes_on_for(2));
    go_on();
    for _ in 0..scale("HOLDFAST_TEST_PEOPLE_KILLS", 5) {
        gateway.replace_by_force();
        go_on();
    }
    gateway.replace_in_order();
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
    streams_outlive_everything("ws_server.py");
}

#[test]
fn python_and_node_clients_of_a_node_server_notice_no_kill() {
    streams_outlive_everything("ws_server.mjs");
}

/// The worker of the demo's page.
fn page_worker(demo: &Demo) -> Option<u32> {
    let status: Value = serde_json::from_slice(&demo.cli(&["status", "--json"]).stdout).ok()?;
    let end = format!(":{}", demo.port);
    let listeners = status["listeners"].as_array()?;
    let page = listeners.iter().find(|it| it["address"].as_str().unwrap().ends_with(&end))?;
    let workers = page["workers"].as_array()?;
    let serving = workers.iter().find(|worker| worker["state"] == "serving")?;
    u32::try_from(serving["pid"].as_u64()?).ok()
}

#[test]
fn the_demos_page_in_chromium_grows_older_through_kills_of_its_worker() {
    let Some(tools) = tools("Chromium on the demo's page through kills") else { return };
    let demo = Demo::start();
    let url = format!("http://localhost:{}/", demo.port);
    let mut page = Talker::start(&tools, "browser_age.mjs", &[&url]);
    let mut look = || -> Value { serde_json::from_str(&page.ask()).unwrap() };
    let first = look();
    let mut age = first["age"].as_u64().unwrap();
    for round in 2..=4 {
        let worker = eventually(Patience::USUAL, "the page's worker", || page_worker(&demo));
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
