//! Tunnels that cannot move, because their TLS sessions do not leave rustls: they are listed and counted as such, stay with
//! their worker when it is replaced, and drain.

use serde_json::Value;

use super::*;
use crate::harness::{Document, Manner, Sealed, directory, free_port};

const PIN: &str = "pin-session";

/// A gateway for wss whose drained workers keep their tunnels for so many seconds.
fn wss(drain_seconds: u32) -> (Gateway, u16, Wires) {
    let directory = directory();
    let wires = Wires::start_sealed(directory.path(), Sealed::Client, Manner::default());
    let port = free_port();
    let document = Document::wired(port, &wires).holdfast("drainTimeoutInSec", drain_seconds);
    (Gateway::start_in(directory, &document), port, wires)
}

/// Opens one tunnel, whose session does not leave rustls.
fn open_pinned(gateway: &Gateway, port: u16, wires: &Wires) -> Wire {
    gateway.arm(PIN, "");
    let mut tunnel = wires.open(port);
    tunnel.carries("first words").unwrap();
    gateway.disarm(PIN);
    tunnel
}

/// The rows of `tunnels --json` that say a reason.
fn listed_as_pinned(gateway: &Gateway) -> Vec<Value> {
    let rows = gateway.tunnels();
    rows.into_iter().map(|row| row["pinned"].clone()).filter(|pinned| !pinned.is_null()).collect()
}

/// Tunnels and pinned ones of the worker with that pid, and whether it drains.
fn worker(gateway: &Gateway, pid: u32) -> Option<(u64, u64, bool)> {
    let status = gateway.status();
    let workers = status["listeners"][0]["workers"].as_array().unwrap();
    let worker = workers.iter().find(|worker| worker["pid"] == pid)?;
    let of = |key: &str| worker[key].as_u64().unwrap();
    Some((of("tunnels"), of("pinned"), worker["state"] == "draining"))
}

#[test]
fn a_pinned_tunnel_stays_with_its_worker_and_is_told_of_everywhere() {
    let (gateway, port, wires) = wss(600);
    let mut portable = wires.open(port);
    let mut pinned = open_pinned(&gateway, port, &wires);
    let mut second = open_pinned(&gateway, port, &wires);
    assert_eq!(listed_as_pinned(&gateway), ["tls", "tls"]);
    let table = gateway.must(&["tunnels"]);
    assert!(table.contains("PINNED") && table.contains("tls"), "{table}");
    let old = gateway.worker_pid();
    assert_eq!(worker(&gateway, old), Some((3, 2, false)));
    assert!(gateway.must(&["status"]).contains("3 (2 unprotected, 2 pinned)"));
    gateway.says(&["INFO", "a tunnel is pinned", "cause=\"tls\""]);
    assert_eq!(gateway.count("holdfast_tunnels_pinned"), 2);

    let restart: Value = serde_json::from_str(&gateway.must(&["restart", "--json"])).unwrap();
    assert_eq!((&restart[0]["old_pid"], &restart[0]["pinned"]), (&old.into(), &2.into()));
    assert_eq!(worker(&gateway, old), Some((2, 2, true)), "the old one keeps what cannot move");
    assert_eq!(worker(&gateway, gateway.worker_pid()), Some((1, 0, false)));
    for tunnel in [&mut portable, &mut pinned, &mut second] {
        tunnel.carries("still here").unwrap();
    }
    assert_eq!(listed_as_pinned(&gateway), ["tls", "tls"]);
    eventually(Patience::USUAL, "both workers' figures", || {
        let figures = ["holdfast_tunnels_active", "holdfast_tunnels_pinned"];
        (figures.map(|name| gateway.count(name)) == [3, 2]).then_some(())
    });
    // The worker that serves now dies, and so it costs them nothing.
    gateway.replace_by_force();
    for tunnel in [&mut portable, &mut pinned, &mut second] {
        tunnel.carries("and still").unwrap();
    }
    // With its last one ended, the old worker is free to go.
    drop((pinned, second));
    eventually(Patience::USUAL, "the old worker to leave", || (!alive(old)).then_some(()));
    portable.carries("to the end").unwrap();
    gateway.says(&["drained worker left"]);
    assert_eq!(gateway.has_said("a tunnel is pinned"), 1, "told once a process, and counted");
    gateway.holds_exactly(1);
    gateway.has_lost_none();
}

#[test]
fn a_pinned_tunnel_ends_at_the_drain_deadline() {
    let (gateway, port, wires) = wss(2);
    let mut portable = wires.open(port);
    let Wire { mut client, backend } = open_pinned(&gateway, port, &wires);
    let old = gateway.worker_pid();
    gateway.must(&["restart"]);
    gateway.says(&["tunnel ended", "cause=\"drain\""]);
    // In order, with a close_notify.
    assert_eq!(rest(&mut client), (vec![], false));
    finish(&backend);
    eventually(Patience::USUAL, "the old worker to leave", || (!alive(old)).then_some(()));
    portable.carries("still here").unwrap();
    gateway.holds_exactly(1);
}

#[test]
fn a_pinned_tunnel_is_lost_with_its_worker_and_told_as_lost() {
    let (gateway, port, wires) = wss(600);
    let mut portable = wires.open(port);
    let Wire { mut client, backend } = open_pinned(&gateway, port, &wires);
    gateway.replace_by_force();
    assert_eq!(rest(&mut client).0, b"");
    drop(backend);
    portable.carries("still here").unwrap();
    gateway.holds_exactly(1);
    eventually(Patience::USUAL, "the lost one to be counted", || {
        (gateway.count("holdfast_tunnels_lost_total") == 1).then_some(())
    });
}
