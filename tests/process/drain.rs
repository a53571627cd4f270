//! Leaving in order: restarts, stops, drained backends.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use crate::harness::{
    Backend, Connection, Document, Gateway, Patience, WebSocket, alive, eventually, free_port, get,
    scale, stays, words,
};

#[test]
fn connects_during_worker_restarts_are_never_refused() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let done = Arc::new(AtomicBool::new(false));
    let clients = [(); 4].map(|()| {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let mut served = 0;
            while !done.load(Ordering::SeqCst) {
                assert_eq!(get(port, "/whoami").unwrap().status, 200);
                served += 1;
            }
            served
        })
    });
    for _ in 0..scale("HOLDFAST_TEST_RESTARTS", 20) {
        gateway.must(&["restart"]);
    }
    done.store(true, Ordering::SeqCst);
    let served: u32 = clients.map(|client| client.join().unwrap()).iter().sum();
    assert!(served > 0);
}

#[test]
fn a_restart_replaces_the_worker_and_keeps_its_tunnels() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let old = gateway.worker_pid();
    let mut socket = WebSocket::open(port, "/echo");
    gateway.must(&["restart", &format!("127.0.0.1:{port}")]);
    assert_ne!(gateway.worker_pid(), old);
    assert!(socket.echoes("still here"));
    assert!(WebSocket::open(port, "/echo").echoes("new"));
}

#[test]
fn a_keep_alive_connection_is_told_before_it_is_closed() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut connection = Connection::open(port).unwrap();
    assert_eq!(connection.get("/whoami", "localhost").unwrap().header("connection"), None);
    gateway.must(&["restart"]);
    let last = connection.get("/whoami", "localhost").unwrap();
    assert_eq!(last.status, 200);
    assert_eq!(last.header("connection").map(str::to_lowercase).as_deref(), Some("close"));
    assert_eq!(connection.read_byte().unwrap(), 0);
}

#[test]
fn a_drained_backend_gets_nothing_new_and_keeps_its_tunnels() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses));
    let mut sockets: Vec<_> = (0..10).map(|_| WebSocket::open(port, "/echo")).collect();
    gateway.must(&["drain", "chat/127.0.0.2"]);
    assert_eq!(gateway.health_of("127.0.0.2"), "Draining");
    for _ in 0..20 {
        assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    }
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
    gateway.must(&["undrain", "chat/127.0.0.2"]);
    eventually(Patience::USUAL, "the backend to be back", || {
        (get(port, "/whoami").unwrap().text() == "one").then_some(())
    });
}

#[test]
fn a_drain_is_taken_back_though_its_backend_has_left_and_however_it_is_spelt() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let [both, one] =
        [&addresses[..], &addresses[..1]].map(|backends| Document::simple(port, backends));
    let gateway = Gateway::start(&both);
    gateway.must(&["drain", "chat/127.0.0.2"]);
    let said = gateway.must(&["drain", "CHAT/127.0.0.2"]);
    assert!(said.contains("was drained already"), "{said}");
    gateway.must(&["drain", "chat/127.0.0.3"]);
    gateway.apply(&one);
    let said = gateway.must(&["undrain", "Chat/127.0.0.3"]);
    assert!(said.contains("is no longer drained"), "{said}");
    let again = gateway.cli(&["undrain", "chat/127.0.0.3"]);
    assert_eq!(again.status.code(), Some(1), "it is neither there nor drained: {}", words(&again));
    gateway.apply(&both);
    assert_eq!(gateway.health_of("127.0.0.3"), "Healthy");
    assert_eq!(gateway.health_of("127.0.0.2"), "Draining");
}

/// Two backends, four tunnels, and the documents with both backends and with the first alone.
fn two_backends(drain_seconds: u32) -> (Gateway, [Document; 2], Vec<WebSocket>, Vec<Backend>) {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let draining = json!({"enabled": true, "drainTimeoutInSec": drain_seconds});
    let documents = [&addresses[..], &addresses[..1]].map(|backends| {
        Document::simple(port, backends).set(
            "backendHttpSettingsCollection",
            "chat",
            "connectionDraining",
            draining.clone(),
        )
    });
    let gateway = Gateway::start(&documents[0]);
    let sockets: Vec<_> = (0..4).map(|_| WebSocket::open(port, "/echo")).collect();
    (gateway, documents, sockets, backends)
}

#[test]
fn tunnels_of_a_removed_backend_live_for_the_drain_time() {
    let (gateway, [_, one], mut sockets, _backends) = two_backends(3);
    gateway.apply(&one);
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
    let ended = r#"holdfast_tunnels_closed_total{cause="backend_removed"}"#;
    eventually(Patience::LONG, "the removed backend's tunnels to end", || {
        (gateway.metric(ended) >= 2.0).then_some(())
    });
    assert_eq!(gateway.tunnels().len(), 2);
}

#[test]
fn a_backend_that_no_rule_leads_to_can_be_drained_with_what_is_left_there() {
    let backends = Backend::group(&["one", "two", "three"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let draining = json!({"enabled": true, "drainTimeoutInSec": 2});
    let routed_to = |pool: &str| {
        let pools = Document::new().pool("chat", &addresses[..2]).pool("spare", &addresses[2..]);
        pools
            .set("backendHttpSettingsCollection", "chat", "connectionDraining", draining.clone())
            .site("web", port, pool)
    };
    let gateway = Gateway::start(&routed_to("chat"));
    let said = gateway.must(&["drain", "spare/127.0.0.4"]);
    assert!(said.contains("has no tunnels; no rule routes to its pool"), "{said}");
    let _sockets: Vec<_> = (0..4).map(|_| WebSocket::open(port, "/echo")).collect();
    gateway.apply(&routed_to("spare"));
    assert_eq!(gateway.health_of("127.0.0.4"), "Draining", "a later rule finds it drained");
    gateway.must(&["undrain", "spare/127.0.0.4"]);

    let said = gateway.must(&["drain", "chat/127.0.0.2"]);
    assert!(said.contains("2 tunnels live on; no rule routes to its pool"), "{said}");
    // Another worker knows it as well.
    gateway.must(&["restart"]);
    let ended = r#"holdfast_tunnels_closed_total{cause="backend_removed"}"#;
    eventually(Patience::LONG, "the drained backend's tunnels to end", || {
        (gateway.metric(ended) >= 2.0).then_some(())
    });
    gateway.must(&["drain", "chat/127.0.0.3"]);
    let said = gateway.must(&["undrain", "chat/127.0.0.3"]);
    assert!(said.contains("is no longer drained"), "{said}");
    stays(Duration::from_secs(3), "the others", || gateway.tunnels().len() == 2);

    for (target, reason) in [
        ("caht/127.0.0.2", "there is no pool \"caht\" (did you mean \"chat\"?)"),
        ("chat/127.0.0.9", "pool \"chat\" has no backend \"127.0.0.9\""),
    ] {
        let output = gateway.cli(&["drain", target]);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains(reason), "{}", words(&output));
    }
}

#[test]
fn a_backend_that_returns_keeps_its_tunnels() {
    let (gateway, [both, one], mut sockets, _backends) = two_backends(3);
    gateway.apply(&one);
    gateway.apply(&both);
    stays(Duration::from_secs(4), "four tunnels", || gateway.tunnels().len() == 4);
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
}

#[test]
fn a_stopping_gateway_refuses_newcomers_and_waits_for_its_tunnels() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).holdfast("drainTimeoutInSec", 600);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    gateway.signal(Signal::SIGTERM);
    // Refused, not left waiting for an answer that nobody will give.
    eventually(Patience::USUAL, "new connections to be refused", || {
        get(port, "/").err().filter(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(socket.echoes("still here"));
    drop(socket);
    eventually(Patience::LONG, "the supervisor to end", || gateway.has_ended().then_some(()));
}

#[test]
fn signals_are_heard_by_every_process_whoever_has_blocked_them_before() {
    let backend = Backend::start("one");
    let document = Document::simple(free_port(), &[backend.address]);
    // As some service managers, and shells that wait for a signal of their own, start their children.
    let blocked: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    blocked.thread_block().unwrap();
    let gateway = Gateway::start(&document);
    blocked.thread_unblock().unwrap();
    for pid in [gateway.supervisor_pid(), gateway.prober_pid(), gateway.worker_pid()] {
        eventually(Patience::USUAL, "no signal to be blocked", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.contains("SigBlk:\t0000000000000000\n").then_some(())
        });
    }
    gateway.signal(Signal::SIGHUP);
    gateway.says(&["INFO", "has not changed since it was last read"]);
    gateway.signal(Signal::SIGTERM);
    eventually(Patience::LONG, "the supervisor to end", || gateway.has_ended().then_some(()));
}

#[test]
fn a_stop_ends_every_process_at_its_deadline() {
    let backend = Backend::start("one");
    let port = free_port();
    let document = Document::simple(port, &[backend.address]).holdfast("drainTimeoutInSec", 2);
    let gateway = Gateway::start(&document);
    let mut socket = WebSocket::open(port, "/echo");
    let workers = gateway.worker_pids();
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the supervisor to end", || gateway.has_ended().then_some(()));
    assert!(workers.into_iter().all(|pid| !crate::harness::alive(pid)));
    assert!(socket.end().is_some());
}

#[test]
fn a_termination_signal_is_a_stop() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    gateway.signal(Signal::SIGTERM);
    eventually(Patience::LONG, "the supervisor to end", || gateway.has_ended().then_some(()));
}

#[test]
fn a_stop_can_be_watched_and_hurried_and_leaves_nothing() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let mut socket = WebSocket::open(port, "/echo");
    let children = gateway.children();
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the worker to be seen draining", || {
        (gateway.status()["listeners"][0]["workers"][0]["state"] == "draining").then_some(())
    });
    assert!(socket.echoes("still here"));
    gateway.must(&["stop", "--drain-timeout", "0"]);
    eventually(Patience::USUAL, "a hurried stop to be over", || {
        (gateway.has_ended() && !children.iter().any(|pid| alive(*pid))).then_some(())
    });
    for name in ["admin.sock", "control.sock", "fd.sock", "holdfast.pid"] {
        assert!(!gateway.path().join("r").join(name).exists(), "{name}");
    }
}
