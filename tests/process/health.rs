//! Health: who is in rotation, and that nobody's death but the backend's changes it.

use std::time::Duration;

use crate::harness::{
    Backend, Document, Gateway, Patience, WebSocket, eventually, free_port, get, kill9, stays,
};

fn addresses(backends: &[Backend]) -> Vec<std::net::SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

fn wait_state(gateway: &Gateway, address: &str, state: &str) {
    eventually(Patience::USUAL, &format!("{address} to become {state}"), || {
        (gateway.health_of(address) == state).then_some(())
    });
}

#[test]
fn a_gateway_is_ready_only_with_its_first_verdicts() {
    let backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses(&backends)));
    assert_eq!(gateway.health_of("127.0.0.2"), "Healthy");
    assert_eq!(gateway.health_of("127.0.0.3"), "Healthy");
    assert_eq!(get(port, "/whoami").unwrap().status, 200);
}

#[test]
fn a_stopped_backend_leaves_rotation_and_returns() {
    let mut backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses(&backends)));
    let stopped = backends.pop().unwrap().stop();
    wait_state(&gateway, "127.0.0.3", "Unhealthy");
    for _ in 0..20 {
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    }
    let _two = stopped.start();
    wait_state(&gateway, "127.0.0.3", "Healthy");
    eventually(Patience::USUAL, "the returned backend to answer", || {
        (get(port, "/whoami").unwrap().text() == "two").then_some(())
    });
}

#[test]
fn a_backend_gone_since_its_last_probe_costs_no_request() {
    let mut backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let document =
        Document::simple(port, &addresses(&backends)).set("probes", "chat", "interval", 60);
    let _gateway = Gateway::start(&document);
    drop(backends.pop().unwrap().stop());
    for _ in 0..10 {
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    }
}

#[test]
fn three_backends_are_tried_and_no_fourth() {
    let mut backends = Backend::group(&["one", "two", "three", "four"]);
    let port = free_port();
    let document =
        Document::simple(port, &addresses(&backends)).set("probes", "chat", "interval", 60);
    let _gateway = Gateway::start(&document);
    for backend in backends.drain(1..) {
        drop(backend.stop());
    }
    // Each request begins one further; of four beginnings one has the living backend last.
    let answers: Vec<u16> = (0..8).map(|_| get(port, "/whoami").unwrap().status).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 6, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 502).count(), 2, "{answers:?}");
}

#[test]
fn with_all_backends_unhealthy_the_answer_is_502_and_open_websockets_live_on() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    gateway.apply(&document.set("probes", "chat", "path", "/no-such-page"));
    wait_state(&gateway, "127.0.0.1", "Unhealthy");
    eventually(Patience::USUAL, "502", || {
        (get(port, "/whoami").unwrap().status == 502).then_some(())
    });
    assert!(socket.echoes("still here"));
}

#[test]
fn a_killed_prober_flaps_nothing() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    for _ in 0..3 {
        let prober = gateway.prober_pid();
        kill9(prober);
        stays(Duration::from_millis(700), "healthy and served", || {
            gateway.health_of("127.0.0.1") == "Healthy"
                && get(port, "/whoami").is_ok_and(|answer| answer.status == 200)
        });
        eventually(Patience::USUAL, "another prober", || {
            (gateway.prober_pid() != prober && gateway.prober_pid() != 0).then_some(())
        });
    }
    drop(backend.stop());
    wait_state(&gateway, "127.0.0.1", "Unhealthy");
}
