//! The supervisor dies, or stands still, and is started again: what nobody may notice, and how soon all is well again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Backend, Document, Gateway, MOMENT, Patience, WebSocket, alive, eventually, free_port, get,
    kill9, pause, resume, scale, stays, watch_counters,
};

fn one_gateway() -> (Gateway, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    (Gateway::start(&Document::simple(port, &[backend.address])), port, backend)
}

/// Tunnels, and how many of them are protected, over all workers.
fn tunnels_and_protected(gateway: &Gateway) -> (u64, u64) {
    let status = gateway.status();
    let workers = status["listeners"].as_array().unwrap().iter();
    let workers = workers.flat_map(|listener| listener["workers"].as_array().unwrap());
    workers.fold((0, 0), |(tunnels, protected), worker| {
        let [more, held] = ["tunnels", "protected"].map(|key| worker[key].as_u64().unwrap());
        assert!(held <= more, "more protected than there are: {worker}");
        (tunnels + more, protected + held)
    })
}

#[test]
fn everything_is_protected_again_soon_after_the_supervisor_is_back() {
    let (gateway, port, _backend) = one_gateway();
    let count = scale("HOLDFAST_TEST_REBORN", 100);
    let mut sockets: Vec<_> = (0..count).map(|_| WebSocket::open(port, "/echo")).collect();
    let all = (u64::from(count), u64::from(count));
    assert_eq!(tunnels_and_protected(&gateway), all);
    for _ in 0..3 {
        kill9(gateway.supervisor_pid());
        // One that opens meanwhile is not protected, and does not wait for it.
        sockets[0] = WebSocket::open(port, "/echo");
        assert_eq!(gateway.has_said("the vault does not answer"), 0, "it has waited");
        let begun = Instant::now();
        gateway.start_again();
        let ready = Instant::now();
        eventually(Patience::USUAL, "everything to be protected", || {
            (tunnels_and_protected(&gateway) == all).then_some(())
        });
        let (after, since_ready) = (begun.elapsed(), ready.elapsed());
        println!("{count} tunnels protected in {after:?}, {since_ready:?} after it was ready");
        // Those that nobody holds but the supervisor now go on with the next worker.
        let worker = gateway.worker_pid();
        kill9(worker);
        assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
        eventually(Patience::USUAL, "all to be with the successor", || {
            (tunnels_and_protected(&gateway) == all).then_some(())
        });
    }
    assert!(gateway.metric("holdfast_tunnels_lost_total") == 0.0);
}

#[test]
fn beside_a_stopped_supervisor_only_the_first_websockets_wait() {
    let (gateway, port, _backend) = one_gateway();
    let mut old = WebSocket::open(port, "/echo");
    pause(gateway.supervisor_pid());
    let mut new = vec![WebSocket::open(port, "/echo")];
    let begun = Instant::now();
    stays(MOMENT, "old and new WebSockets", || {
        new.push(WebSocket::open(port, "/echo"));
        old.echoes("old") && new.last_mut().unwrap().echoes("new")
    });
    let each = begun.elapsed() / u32::try_from(new.len()).unwrap();
    assert!(each < Duration::from_millis(250), "{} opened, {each:?} each", new.len());
    // Of those that end before it goes on nothing is left.
    let ended = new.split_off(new.len() / 2).len();
    assert!(ended > 0);
    resume(gateway.supervisor_pid());
    let all = new.len() as u64 + 1;
    eventually(Patience::USUAL, "everything to be protected", || {
        (tunnels_and_protected(&gateway) == (all, all)).then_some(())
    });
    eventually(Patience::USUAL, "the vault to hold nothing else", || {
        (gateway.metric("holdfast_vault_tunnels") == all as f64).then_some(())
    });
    eventually(Patience::USUAL, "the figure to say so", || {
        (gateway.metric("holdfast_tunnels_unprotected") == 0.0).then_some(())
    });
    assert_eq!(gateway.log().matches("the vault does not answer").count(), 1);
    kill9(gateway.worker_pid());
    assert!(old.echoes("still here") && new.iter_mut().all(|one| one.echoes("still here")));
}

#[test]
fn a_start_waits_for_no_worker_longer_than_it_takes_to_come() {
    let backend = Backend::start("one");
    let (kept, removed) = (free_port(), free_port());
    let one = Document::simple(kept, &[backend.address]);
    let gateway = Gateway::start(&one.clone().site("more", removed, "chat"));
    let mut sockets = [kept, removed].map(|port| WebSocket::open(port, "/echo"));
    // Its worker drains from now on: it has no listening socket to bring.
    gateway.apply(&one);
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    assert_eq!(gateway.has_said("has not come; going on"), 0, "it has waited");
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
}

#[test]
fn a_handover_that_the_supervisor_died_of_is_carried_out_by_the_next() {
    let (gateway, port, _backend) = one_gateway();
    let mut sockets: Vec<_> = (0..50).map(|_| WebSocket::open(port, "/echo")).collect();
    for delay in [0, 20, 60, 120, 250] {
        let first = gateway.worker_pid();
        let restart = gateway.begin_cli(&["restart"]);
        let begun = Instant::now();
        // Somewhere between the birth of the successor and the end of the predecessor.
        eventually(Patience::USUAL, "two generations", || {
            (gateway.children().len() > 2 || !alive(first)).then_some(())
        });
        eventually(Patience::USUAL, "a moment in the handover", || {
            (begun.elapsed() > Duration::from_millis(delay)).then_some(())
        });
        kill9(gateway.supervisor_pid());
        drop(restart.wait_with_output());
        gateway.start_again();
        assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
        eventually(Patience::USUAL, "one worker to have everything", || {
            let status = gateway.status();
            let workers = status["listeners"][0]["workers"].as_array().unwrap();
            (workers.len() == 1 && tunnels_and_protected(&gateway) == (50, 50)).then_some(())
        });
    }
    assert_eq!(gateway.metric("holdfast_tunnels_lost_total"), 0.0);
}

#[test]
fn a_worker_that_stands_still_does_not_keep_the_next_supervisor_from_serving() {
    let (gateway, port, _backend) = one_gateway();
    let worker = gateway.worker_pid();
    pause(worker);
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    assert!(!alive(worker));
}

#[test]
fn a_stop_during_a_start_ends_those_too_who_have_outlived_the_supervisor_before() {
    let (gateway, _port, _backend) = one_gateway();
    let children = gateway.children();
    let worker = gateway.worker_pid();
    // So that the start waits for it.
    pause(worker);
    kill9(gateway.supervisor_pid());
    gateway.begin_again();
    gateway.says(&["found a living worker"]);
    gateway.signal(Signal::SIGTERM);
    gateway.says(&["stopping deadline"]);
    resume(worker);
    eventually(Patience::LONG, "the gateway's end", || gateway.has_ended().then_some(()));
    assert!(!children.iter().any(|pid| alive(*pid)), "is left");
}

#[test]
fn a_prober_that_stands_still_does_not_outlive_the_next_supervisors_start() {
    let (gateway, _port, _backend) = one_gateway();
    let prober = gateway.prober_pid();
    pause(prober);
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    eventually(Patience::USUAL, "the old prober's end", || (!alive(prober)).then_some(()));
}

#[test]
fn tunnels_are_listed_as_before_after_the_supervisor_is_back() {
    let (gateway, port, _backend) = one_gateway();
    let mut sockets: Vec<_> = (0..5).map(|_| WebSocket::open(port, "/echo")).collect();
    assert!(sockets.iter_mut().all(|socket| socket.echoes("some bytes")));
    // Everything but the two figures that time moves.
    let list = |gateway: &Gateway| {
        let mut tunnels = gateway.tunnels();
        let times: Vec<_> = tunnels
            .iter_mut()
            .map(|one| {
                let facts = one.as_object_mut().unwrap();
                ["age_seconds", "idle_seconds"]
                    .map(|key| facts.remove(key).unwrap().as_f64().unwrap())
            })
            .collect();
        (tunnels, times)
    };
    let (before, times_before) = list(&gateway);
    assert_eq!(before.len(), 5);
    assert!(before.iter().all(|one| one["bytes_in"].as_u64() > Some(10)), "{before:?}");
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    let (after, times_after) = list(&gateway);
    assert_eq!(after, before);
    let older = |(now, then): (&[f64; 2], &[f64; 2])| now.iter().zip(then).all(|(a, b)| a >= b);
    assert!(times_after.iter().zip(&times_before).all(older));
}

#[test]
fn status_tells_the_figures_of_this_moment() {
    let (gateway, port, _backend) = one_gateway();
    let mut sockets = Vec::new();
    for count in 1..=20 {
        sockets.push(WebSocket::open(port, "/echo"));
        assert_eq!(tunnels_and_protected(&gateway), (count, count));
    }
    // A worker that says nothing is shown as it was last heard, and holds nobody up.
    let worker = gateway.worker_pid();
    pause(worker);
    assert_eq!(tunnels_and_protected(&gateway), (20, 20));
    resume(worker);
}

#[test]
fn no_counter_ever_goes_back_or_vanishes_whoever_is_killed() {
    let (gateway, port, _backend) = one_gateway();
    let (done, status_port) = (AtomicBool::new(false), gateway.status_port());
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_counters(status_port, &done));
        let mut standing = WebSocket::open(port, "/echo");
        for round in 0..scale("HOLDFAST_TEST_REBORN_ROUNDS", 15) {
            if watch.is_finished() {
                break;
            }
            for _ in 0..5 {
                assert!(WebSocket::open(port, "/echo").echoes("hello"));
                assert_eq!(get(port, "/whoami").unwrap().status, 200);
            }
            assert!(standing.echoes("still here"));
            let worker = gateway.worker_pid();
            match round % 5 {
                0 => kill9(worker),
                1 => {
                    kill9(gateway.supervisor_pid());
                    gateway.start_again();
                }
                2 => drop(gateway.must(&["restart"])),
                // Alone, a worker that dies without a supervisor takes its tunnels along.
                3 => {
                    kill9(gateway.supervisor_pid());
                    kill9(worker);
                    gateway.start_again();
                    standing = WebSocket::open(port, "/echo");
                }
                _ => {
                    gateway.kill_everything();
                    gateway.start_again();
                    standing = WebSocket::open(port, "/echo");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        let (last, scrapes) = watch.join().unwrap();
        assert!(scrapes > 50, "{scrapes} scrapes");
        // What nobody was told of within the second before everything died is lost.
        assert!(last["holdfast_tunnels_opened_total"] >= 30.0, "{last:?}");
        let deaths = last.iter().filter(|(name, _)| name.contains("worker_deaths_total"));
        assert!(deaths.map(|(_, count)| count).sum::<f64>() >= 3.0, "{last:?}");
    });
}

#[test]
fn counters_that_cannot_be_read_begin_at_zero_with_a_warning() {
    let (gateway, _port, _backend) = one_gateway();
    kill9(gateway.supervisor_pid());
    gateway.write("r/counters", "not counters");
    gateway.start_again();
    assert_eq!(gateway.metric("holdfast_reloads_refused_total"), 0.0);
    assert!(gateway.log().contains("counters begin at zero"));
}

#[test]
fn no_request_fails_when_supervisor_and_prober_are_killed_together() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                let answer = get(port, "/whoami").unwrap();
                assert_eq!(answer.status, 200, "after {served}: {}", answer.text());
                served += 1;
            }
            served
        });
        for _ in 0..3 {
            let prober = gateway.prober_pid();
            kill9(gateway.supervisor_pid());
            kill9(prober);
            gateway.start_again();
            // What was known is known from the first moment.
            for address in ["127.0.0.2", "127.0.0.3"] {
                assert_eq!(gateway.health_of(address), "Healthy");
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(traffic.join().unwrap() > 20);
    });
}

#[test]
fn a_package_upgrade_mixes_no_versions_when_a_worker_is_killed() {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start_copy(&Document::simple(port, &[backend.address]));
    let mut socket = WebSocket::open(port, "/echo");
    let (worker, version) = (gateway.worker_pid(), gateway.status()["version"].clone());
    // As a package manager does: another file of the same name.
    let other = gateway.write("other", "#!/bin/sh\nexit 1\n");
    std::fs::rename(other, gateway.path().join("holdfast")).unwrap();
    kill9(worker);
    assert!(socket.echoes("still here"));
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    assert_ne!(gateway.worker_pid(), worker);
    let workers = &gateway.status()["listeners"][0]["workers"];
    assert_eq!(workers[0]["version"], version);
}
