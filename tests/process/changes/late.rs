//! Tunnels that open while a change goes on.

use std::thread;

use crate::harness::{Criers, Document, Gateway, Patience, WebSocket, eventually, free_port};

#[test]
fn a_tunnel_that_opens_while_its_backend_is_removed_ends_after_the_drain_time_too() {
    let criers = Criers::new();
    let backends = criers.group(&["one", "two"], None);
    let port = free_port();
    let [one, two] = [backends[0], backends[1]].map(|backend| {
        let draining = serde_json::json!({"enabled": true, "drainTimeoutInSec": 3});
        let settings = "backendHttpSettingsCollection";
        Document::simple(port, &[backend]).set(settings, "chat", "connectionDraining", draining)
    });
    let gateway = Gateway::start(&one);
    let mut early = WebSocket::open(port, "/");
    let opening = thread::spawn(move || WebSocket::open(port, "/held"));
    eventually(Patience::USUAL, "the handshake to reach the backend", || {
        criers.were_asked("/held").then_some(())
    });
    gateway.apply(&two);
    assert!(early.end().is_some());
    // The change itself is over and done with when this one opens.
    criers.release();
    let mut late = opening.join().unwrap();
    assert!(late.end().is_some(), "it lives on and on");
    let removed = r#"holdfast_tunnels_closed_total{cause="backend_removed"}"#;
    eventually(Patience::USUAL, "both ends to be counted", || {
        (gateway.count(removed) == 2).then_some(())
    });
}
