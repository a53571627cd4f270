//! Who closed my socket? One closed set of words, wherever an operator looks, and what was seen of either leg.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{
    Backend, Document, Gateway, Patience, WebSocket, eventually, finish, free_port,
};
use crate::survive::wired;

type Words = BTreeSet<String>;

/// First cells of the table under a heading of a page.
fn table(page: &str, heading: &str) -> Words {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) = text.split_once(heading).unwrap();
    let rows = rest.split("\n## ").next().unwrap().lines();
    rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned)).collect()
}

fn keys(counts: &Value) -> Words {
    counts.as_object().unwrap().keys().cloned().collect()
}

/// The causes that the metric has series of.
fn series(gateway: &Gateway) -> Words {
    let text = gateway.status_page("/metrics").text();
    let label = |line: &str| {
        let rest = line.strip_prefix("holdfast_tunnels_closed_total{cause=\"")?;
        Some(rest.split('"').next()?.to_owned())
    };
    text.lines().filter_map(label).collect()
}

fn page(gateway: &Gateway) -> Value {
    let state: Value = serde_json::from_str(&gateway.status_page("/ui/state.json").text()).unwrap();
    state["status"]["tunnels_ended"].clone()
}

#[test]
fn a_cause_has_one_word_in_log_metric_api_command_and_page() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let causes = table("tunnel-ends.md", "## Causes");
    assert!(causes.len() > 8, "{causes:?}");
    assert_eq!(table("operations.md", "## Who closed my socket?"), causes);
    eventually(Patience::USUAL, "every cause to be counted from the start", || {
        (series(&gateway) == causes && keys(&gateway.status()["tunnels_ended"]) == causes)
            .then_some(())
    });
    assert_eq!(keys(&page(&gateway)), causes);

    let mut socket = WebSocket::open(port, "/echo");
    assert!(socket.echoes("hello"));
    let id = eventually(Patience::USUAL, "a tunnel", || {
        gateway.tunnels().first().map(|tunnel| tunnel["id"].as_str().unwrap().to_owned())
    });
    gateway.must(&["close", &id]);
    gateway.says(&["tunnel ended", "cause=\"admin\""]);
    let counted = "holdfast_tunnels_closed_total{cause=\"admin\"}";
    eventually(Patience::USUAL, "it to be counted everywhere", || {
        let told = [&gateway.status()["tunnels_ended"], &page(&gateway)].map(|it| it["admin"] == 1);
        (told == [true, true] && gateway.count(counted) == 1).then_some(())
    });
    let said = gateway.must(&["status"]);
    assert!(said.contains("tunnels ended: admin 1\n"), "{said}");
    // They go on counting, whoever counts.
    gateway.must(&["restart"]);
    assert_eq!(gateway.status()["tunnels_ended"]["admin"], 1);
}

#[test]
fn a_leg_that_has_ended_is_shown_while_the_other_goes_on() {
    let (gateway, port, wires) = wired();
    let mut wire = wires.open(port);
    wire.carries("hello").unwrap();
    let client = wire.client.local_addr().unwrap().port();
    let ends = |row: &Value| [&row["client_end"], &row["backend_end"]].map(ToString::to_string);
    let shown = |expected: [&str; 2]| {
        eventually(Patience::USUAL, &format!("legs {expected:?}"), || {
            let row = gateway.tunnel_of(client)?;
            (ends(&row) == expected.map(|end| format!("\"{end}\""))).then_some(())
        });
    };
    shown(["open", "open"]);
    assert!(!gateway.must(&["tunnels"]).contains("ENDED"));
    finish(&wire.client);
    shown(["fin", "open"]);
    let said = gateway.must(&["tunnels"]);
    assert!(said.contains("ENDED") && said.contains("client fin"), "{said}");
    // Its successor knows it as well.
    gateway.replace_by_force();
    shown(["fin", "open"]);
    drop(wire);
    gateway.holds_exactly(0);
    gateway.says(&["tunnel ended", "cause=\"client\"", "client_end=\"fin\""]);
}
