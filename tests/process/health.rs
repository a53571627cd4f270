//! Health: who is in rotation, and that nobody's death but the backend's changes it.

use std::time::Duration;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, eventually, free_port, get, kill9,
    stays,
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
fn each_turn_of_a_backend_is_one_line_in_the_log_and_a_restart_is_none() {
    let mut backends = Backend::group(&["one", "two"]);
    let gateway = Gateway::start(&Document::simple(free_port(), &addresses(&backends)));
    let turns = || [gateway.has_said("a backend is unhealthy"), gateway.has_said("healthy again")];
    assert_eq!(turns(), [0, 0]);
    let two = backends.pop().unwrap();
    let backend = format!("backend=\"{}\"", two.address);
    let stopped = two.stop();
    gateway.says(&["WARN", "a backend is unhealthy", "pool=\"chat\"", &backend, "reason=\""]);
    let two = stopped.start();
    gateway.says(&["INFO", "a backend is healthy again", "pool=\"chat\"", &backend, "reason=\""]);
    assert_eq!(turns(), [1, 1]);
    let stopped = two.stop();
    wait_state(&gateway, "127.0.0.3", "Unhealthy");
    assert_eq!(turns(), [2, 1]);
    // Whoever is asked now has been judged by the present supervisor's own prober.
    let is_judged = || gateway.must(&["health"]).matches("as it was before").count() == 0;
    for _ in 0..3 {
        kill9(gateway.supervisor_pid());
        gateway.start_again();
        eventually(Patience::USUAL, "new verdicts", || is_judged().then_some(()));
        assert_eq!(gateway.health_of("127.0.0.3"), "Unhealthy");
    }
    gateway.must(&["upgrade", "--binary", HOLDFAST]);
    eventually(Patience::USUAL, "new verdicts", || is_judged().then_some(()));
    kill9(gateway.prober_pid());
    gateway.says(&["prober died"]);
    assert_eq!(turns(), [2, 1]);
    // What has changed while nobody looked is a turn.
    kill9(gateway.supervisor_pid());
    let _two = stopped.start();
    gateway.start_again();
    wait_state(&gateway, "127.0.0.3", "Healthy");
    assert_eq!(turns(), [2, 2]);
}

#[test]
fn a_backend_that_is_ill_from_the_first_is_told_of_once() {
    let mut backends = Backend::group(&["one", "two"]);
    let addresses = addresses(&backends);
    drop(backends.pop().unwrap().stop());
    let gateway = Gateway::start(&Document::simple(free_port(), &addresses));
    gateway.says(&["WARN", "a backend is unhealthy", &addresses[1].to_string()]);
    assert_eq!(gateway.has_said("a backend is"), 1);
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
