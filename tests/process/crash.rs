//! Deaths without warning: of a worker, the prober, the supervisor, all of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, MOMENT, Patience, WebSocket, alive, directory,
    eventually, free_port, get, kill9, pause, resume, signal, stays,
};

fn one_gateway() -> (Gateway, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    (Gateway::start(&Document::simple(port, &[backend.address])), port, backend)
}

/// A backend, a document without one of its two listeners, the same with both, and that listener's port.
fn one_listener_more() -> (Backend, Document, Document, u16) {
    let backend = Backend::start("one");
    let (kept, more) = (free_port(), free_port());
    let without = Document::simple(kept, &[backend.address]);
    let with = without.clone().site("more", more, "chat");
    (backend, without, with, more)
}

#[test]
fn a_killed_worker_is_replaced_and_new_connections_are_served() {
    let (gateway, port, _backend) = one_gateway();
    for _ in 0..10 {
        let worker = gateway.worker_pid();
        kill9(worker);
        // The supervisor holds the listening socket: this connection waits in its queue for the next worker.
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
        assert_ne!(gateway.worker_pid(), worker);
    }
}

#[test]
fn a_killed_worker_takes_no_other_listener_with_it() {
    let backend = Backend::start("one");
    let (first, second) = (free_port(), free_port());
    let document = Document::simple(first, &[backend.address]).site("more", second, "chat");
    let gateway = Gateway::start(&document);
    let mut sockets = [first, second].map(|port| WebSocket::open(port, "/echo"));
    let status = gateway.status();
    let listeners = status["listeners"].as_array().unwrap();
    let listener = listeners.iter().find(|one| one["address"] == format!("127.0.0.1:{first}"));
    kill9(listener.unwrap()["workers"][0]["pid"].as_u64().unwrap().try_into().unwrap());
    assert!(sockets[1].echoes("still here"));
    assert_eq!(get(first, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_killed_supervisor_leaves_traffic_flowing() {
    let (gateway, port, _backend) = one_gateway();
    let mut socket = WebSocket::open(port, "/echo");
    gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    stays(MOMENT, "traffic without a supervisor", || {
        socket.echoes("still here") && get(port, "/whoami").is_ok_and(|one| one.status == 200)
    });
}

#[test]
fn a_supervisor_adopts_what_lives_however_often_it_is_killed() {
    let (gateway, port, _backend) = one_gateway();
    let (worker, mut prober) = (gateway.worker_pid(), gateway.prober_pid());
    let mut socket = WebSocket::open(port, "/echo");
    for _ in 0..4 {
        kill9(gateway.supervisor_pid());
        gateway.start_again();
        assert_eq!(gateway.worker_pid(), worker);
        assert!(socket.echoes("still here"));
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
        eventually(Patience::USUAL, "the orphaned prober to end", || {
            (!alive(prober)).then_some(())
        });
        prober = gateway.prober_pid();
    }
    gateway.must(&["restart"]);
    assert_ne!(gateway.worker_pid(), worker);
    assert!(socket.echoes("still here"));
}

#[test]
fn a_removed_listener_frees_its_address_and_its_tunnels_outlive_a_supervisor() {
    let (_backend, one, both, removed) = one_listener_more();
    let gateway = Gateway::start(&both);
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(WebSocket::open(removed, "/echo"));
        gateway.apply(&one);
        let refused = std::net::TcpStream::connect(("127.0.0.1", removed)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        gateway.apply(&both);
        assert_eq!(get(removed, "/whoami").unwrap().text(), "one");
    }
    gateway.apply(&one);
    let workers = gateway.children();
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
    gateway.must(&["stop", "--drain-timeout", "0"]);
    eventually(Patience::USUAL, "nothing of the gateway to be left", || {
        (gateway.has_ended() && !workers.iter().any(|pid| alive(*pid))).then_some(())
    });
}

/// Asks for something over and over on threads of its own, as long as it lives.
struct Asking(Arc<AtomicBool>);

impl Asking {
    fn for_metrics(port: u16, threads: usize) -> Self {
        let over = Arc::<AtomicBool>::default();
        for _ in 0..threads {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    drop(get(port, "/metrics"));
                }
            });
        }
        Self(over)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Between two workers a removed listener has none, and whoever looks at it then must not have it forgotten.
#[test]
fn a_removed_listeners_worker_is_replaced_whoever_asks_meanwhile() {
    let (_backend, one, both, removed) = one_listener_more();
    let gateway = Gateway::start(&both);
    let mut socket = WebSocket::open(removed, "/echo");
    gateway.apply(&one);
    let others = [gateway.worker_pid(), gateway.prober_pid()];
    let _asking = Asking::for_metrics(gateway.status_port(), 3);
    for _ in 0..10 {
        let caretaker = eventually(Patience::USUAL, "somebody who looks after it", || {
            let children = gateway.children().into_iter();
            children.filter(|pid| alive(*pid)).find(|pid| !others.contains(pid))
        });
        kill9(caretaker);
        assert!(socket.echoes("still here"));
    }
}

/// Where its keeper of before took these tunnels for its own to look after, it started one worker after the other.
#[test]
fn tunnels_of_a_listener_that_came_back_are_looked_after_once() {
    let (_backend, one, both, removed) = one_listener_more();
    let gateway = Gateway::start(&both);
    let mut socket = WebSocket::open(removed, "/echo");
    for document in [&one, &both, &one, &both, &one] {
        gateway.apply(document);
        let living = || {
            let mut children = gateway.children();
            children.retain(|pid| alive(*pid));
            children
        };
        let these = eventually(Patience::USUAL, "the prober and a worker for each", || {
            Some(living()).filter(|children| children.len() == 3)
        });
        stays(MOMENT / 2, "the same processes", || living() == these);
        assert!(socket.echoes("still here"));
    }
}

/// Each death once everything is protected again, and nothing else is waited for: what one change or death has begun, the
/// next one meets.
#[test]
fn no_tunnel_ends_while_its_listener_comes_and_goes_and_processes_die() {
    let (_backend, without, with, going) = one_listener_more();
    let gateway = Gateway::start(&with);
    let mut sockets = Vec::new();
    let mut is_there = true;
    // Digits of pi: each step follows, and is followed by, each other.
    for (round, step) in "3141592653589793238462643383279502884197".bytes().enumerate() {
        match step {
            b'0'..=b'4' => {
                is_there = !is_there;
                gateway.apply(if is_there { &with } else { &without });
            }
            b'5' | b'6' => gateway.must(&["restart"]).clear(),
            b'7' => {
                gateway.protects(sockets.len() as u64);
                kill9(gateway.supervisor_pid());
                gateway.start_again();
            }
            _ => {
                gateway.protects(sockets.len() as u64);
                let mut workers = gateway.children();
                let prober = gateway.prober_pid();
                workers.retain(|pid| *pid != prober && alive(*pid));
                workers.into_iter().nth(round % 2).into_iter().for_each(kill9);
            }
        }
        if is_there {
            sockets.push(WebSocket::open(going, "/echo"));
        }
        assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")), "step {round}");
    }
    gateway.has_lost_none();
}

/// Workers, so often that the next one is waited for for some seconds.
fn die_by_themselves(gateway: &Gateway) {
    for _ in 0..11 {
        let worker = gateway.worker_pid();
        signal(worker, Signal::SIGABRT);
        eventually(Patience::USUAL, "its end", || (!alive(worker)).then_some(()));
    }
}

#[test]
fn a_worker_that_was_asked_for_is_not_replaced_by_the_one_that_was_waited_for() {
    let (gateway, _port, _backend) = one_gateway();
    die_by_themselves(&gateway);
    gateway.must(&["restart"]);
    let worker = gateway.worker_pid();
    stays(2 * MOMENT, "the same worker", || gateway.worker_pids() == [worker]);
}

#[test]
fn tunnels_whose_next_worker_is_waited_for_outlive_their_listener() {
    let (gateway, port, backend) = one_gateway();
    let mut socket = WebSocket::open(port, "/echo");
    die_by_themselves(&gateway);
    gateway.apply(&Document::simple(free_port(), &[backend.address]));
    assert!(socket.echoes("still here"));
}

#[test]
fn a_worker_that_keeps_dying_by_itself_is_a_problem_in_the_status() {
    let (gateway, port, _backend) = one_gateway();
    assert_eq!(gateway.status()["problems"], serde_json::json!([]));
    for _ in 0..6 {
        let worker = gateway.worker_pid();
        signal(worker, Signal::SIGABRT);
        eventually(Patience::USUAL, "its successor to serve", || {
            gateway.worker_pids().first().is_some_and(|pid| *pid != worker).then_some(())
        });
    }
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    let problems = gateway.status()["problems"].to_string();
    assert!(problems.contains("keep dying"), "{problems}");
}

/// As some shells and daemons start what they do not wait for.
#[test]
fn how_a_worker_has_died_is_known_though_deaths_of_children_are_ignored_where_the_gateway_is_started()
 {
    let (home, backend, port) = (directory(), Backend::start("one"), free_port());
    let script = home.path().join("holdfast");
    let text = format!("#!/bin/sh\nexec env --ignore-signal=CHLD '{HOLDFAST}' \"$@\"\n");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let gateway = Gateway::start_in(home, &Document::simple(port, &[backend.address]));
    signal(gateway.worker_pid(), Signal::SIGABRT);
    gateway.says(&["WARN", "worker died", "Crashed", "SIGABRT"]);
}

#[test]
fn a_prober_that_keeps_dying_by_itself_is_a_problem_in_the_status() {
    let (gateway, port, _backend) = one_gateway();
    for _ in 0..6 {
        assert_eq!(gateway.status()["problems"], serde_json::json!([]));
        let prober = eventually(Patience::USUAL, "a prober that serves", || {
            let status = gateway.status();
            (status["prober"]["state"] == "serving").then(|| gateway.prober_pid())
        });
        signal(prober, Signal::SIGABRT);
        eventually(Patience::USUAL, "it to be gone", || {
            (gateway.prober_pid() != prober).then_some(())
        });
    }
    let problems = gateway.status()["problems"].to_string();
    assert!(problems.contains("the prober keeps dying"), "{problems}");
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn applied_revision_and_drain_outlive_kill_9_of_everything() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses[..1]));
    gateway.apply(&Document::simple(port, &addresses));
    gateway.must(&["drain", "chat/127.0.0.2"]);
    for _ in 0..3 {
        gateway.kill_everything();
        gateway.start_again();
        assert_eq!(gateway.revision(), 2);
        assert_eq!(gateway.health_of("127.0.0.2"), "Draining");
        for _ in 0..6 {
            assert_eq!(get(port, "/whoami").unwrap().text(), "two");
        }
    }
}

#[test]
fn a_stopped_supervisor_stops_no_traffic() {
    let (gateway, port, _backend) = one_gateway();
    pause(gateway.supervisor_pid());
    stays(MOMENT, "traffic beside a stopped supervisor", || {
        WebSocket::open(port, "/echo").echoes("hello")
    });
    resume(gateway.supervisor_pid());
    eventually(Patience::USUAL, "admin to answer again", || {
        gateway.cli(&["status"]).status.success().then_some(())
    });
}

#[test]
fn a_killed_worker_ends_only_what_it_had_accepted() {
    let (gateway, port, _backend) = one_gateway();
    let worker = gateway.worker_pid();
    pause(worker);
    let waiting = std::thread::spawn(move || get(port, "/whoami"));
    stays(Duration::from_millis(200), "a stopped worker answers nothing", || {
        !waiting.is_finished()
    });
    kill9(worker);
    // It may have been accepted by the kernel on the dead worker's behalf only: then the next one answers it.
    assert_eq!(waiting.join().unwrap().unwrap().text(), "one");
}
