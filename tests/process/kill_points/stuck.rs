//! Processes that stop, hang, or die of a tunnel.

use super::*;
use crate::survive::all_carry;

#[test]
fn a_successor_that_dies_before_it_serves_leaves_the_predecessor_serving() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    let old = gateway.worker_pid();
    for _ in 0..3 {
        gateway.arm("serve.before", "kill");
        let restart = gateway.cli(&["restart"]);
        let told = crate::harness::words(&restart);
        assert!(!restart.status.success() && told.contains("died before it served"), "{told}");
        traffic.moves(50_000);
        assert_eq!(gateway.worker_pid(), old);
    }
    gateway.says(&["WARN", "worker died", "cause=Killed", "tunnels=0"]);
    gateway.replace_in_order();
    gateway.holds_exactly(Shape::ALL.len());
    traffic.finish();
    gateway.has_lost_none();
}

#[test]
fn a_successor_that_never_becomes_ready_leaves_the_predecessor_serving() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    let old = gateway.worker_pid();
    gateway.arm("serve.before", "stop");
    let restart = gateway.cli(&["restart"]);
    let told = crate::harness::words(&restart);
    assert!(!restart.status.success() && told.contains("not ready after 30s"), "{told}");
    gateway.says(&["ERROR", "worker did not become ready, ending it", "not ready after 30s"]);
    traffic.moves(50_000);
    assert_eq!(gateway.worker_pid(), old);
    gateway.replace_in_order();
    gateway.holds_exactly(Shape::ALL.len());
    traffic.finish();
    gateway.has_lost_none();
}

#[test]
fn a_predecessor_that_stops_in_its_handover_is_overcome() {
    for step in ["freeze.frozen", "handover.frozen", "handover.told"] {
        let (gateway, port, wires) = wired();
        let traffic = traffic(&wires, port, 1);
        let old = gateway.worker_pid();
        gateway.arm(step, "stop");
        gateway.must(&["restart"]);
        assert!(!alive(old));
        // Before or after it has said that it drains.
        let words = ["ERROR", "a predecessor", "its successor takes", "by force"];
        gateway.says(&words);
        gateway.holds_exactly(Shape::ALL.len());
        traffic.finish();
        gateway.has_lost_none();
    }
}

#[test]
fn tunnels_that_a_slow_successor_did_not_take_in_time_move_later() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    for action in ["sleep 1100", "sleep 1500", "sleep 3000"] {
        gateway.arm("adopt.heard", action);
        gateway.replace_in_order();
        gateway.holds_exactly(Shape::ALL.len());
        traffic.moves(50_000);
    }
    gateway.says(&["WARN", "the successor did not take a batch", "they go on here"]);
    gateway.replace_by_force();
    gateway.holds_exactly(Shape::ALL.len());
    traffic.finish();
    gateway.has_lost_none();
}

#[test]
fn a_predecessor_killed_after_a_slow_successor_let_its_tunnels_thaw() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    let old = gateway.worker_pid();
    gateway.arm("adopt.heard", "sleep 1100");
    gateway.arm("handover.told", "skip 1 kill");
    gateway.must(&["restart"]);
    eventually(Patience::USUAL, "the predecessor to be gone", || (!alive(old)).then_some(()));
    gateway.holds_exactly(Shape::ALL.len());
    traffic.finish();
    gateway.has_lost_none();
}

#[test]
fn a_supervisor_killed_between_a_batchs_freezing_and_its_taking_costs_no_tunnel() {
    for (step, action) in [
        // It is not told of yet; it is on its way; the successor has heard of it.
        ("handover.frozen", "sleep 700"),
        ("handover.told", "sleep 700"),
        ("adopt.heard", "sleep 700"),
    ] {
        let (gateway, port, wires) = wired();
        let traffic = traffic(&wires, port, 1);
        gateway.protects(Shape::ALL.len() as u64);
        gateway.arm(step, action);
        let restart = gateway.begin_cli(&["restart"]);
        eventually(Patience::USUAL, step, || gateway.has_fired(step).then_some(()));
        kill9(gateway.supervisor_pid());
        drop(restart.wait_with_output());
        // What nobody took has thawed, or is its successor's: either goes on without a supervisor.
        traffic.moves(100_000);
        let words = ["WARN", "no line to the vault", "neither protected nor taken over"];
        gateway.says(&words);
        gateway.start_again();
        eventually(Patience::USUAL, "one worker to have everything", || {
            let workers = gateway.status()["listeners"][0]["workers"].clone();
            (workers.as_array().unwrap().len() == 1).then_some(())
        });
        gateway.holds_exactly(Shape::ALL.len());
        gateway.protects(Shape::ALL.len() as u64);
        gateway.replace_by_force();
        traffic.finish();
        gateway.holds_exactly(0);
        gateway.has_lost_none();
    }
}

#[test]
fn a_tunnel_that_workers_die_of_is_given_up_alone() {
    let (gateway, port, wires) = wired();
    let mut others: Vec<Wire> = (0..5).map(|_| wires.open(port)).collect();
    let mut deadly = wires.open(port);
    let mut deaths = 0;
    deadly.client.set_nonblocking(true).unwrap();
    let is_over = |mut client: &TcpStream| {
        let end = std::io::Read::read(&mut client, &mut [0]);
        !matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    while !is_over(&deadly.client) {
        gateway.arm("turn.begun", "abort");
        deadly.client.write_all(b"!").ok();
        eventually(Patience::USUAL, "a death, or the end", || {
            (gateway.has_fired("turn.begun") || is_over(&deadly.client)).then_some(())
        });
        deaths += u32::from(gateway.has_fired("turn.begun"));
    }
    gateway.disarm("turn.begun");
    assert_eq!(deaths, 3);
    gateway.says(&["ERROR", "giving up a tunnel", "processes that had it in hand died"]);
    assert!(rest(&mut deadly.backend).1, "a reset");
    all_carry(&mut others, "still here");
    eventually(Patience::USUAL, "it to be counted", || {
        (gateway.count("holdfast_tunnels_lost_total") == 1).then_some(())
    });
    gateway.holds_exactly(others.len());
}

#[test]
fn a_tunnel_whose_deposit_is_late_is_protected_all_the_same() {
    let (gateway, port, wires) = wired();
    gateway.arm("vault.heard", "sleep 1500");
    let mut tunnel = wires.open(port);
    tunnel.carries("unprotected").unwrap();
    eventually(Patience::USUAL, "the tunnel to be protected", || {
        (gateway.metric("holdfast_tunnels_unprotected") == 0.0 && gateway.has_fired("vault.heard"))
            .then_some(())
    });
    stays(std::time::Duration::from_millis(300), "one record", || gateway.tunnels().len() == 1);
    gateway.replace_by_force();
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}

#[test]
fn a_tunnel_that_is_about_to_open_when_its_worker_is_replaced_moves_too() {
    let (gateway, port, wires) = wired();
    gateway.arm("open.deposited", "sleep 1500");
    let opening = thread::spawn(move || wires.open(port));
    eventually(Patience::USUAL, "the tunnel to be held", || {
        gateway.has_fired("open.deposited").then_some(())
    });
    gateway.replace_in_order();
    let mut tunnel = opening.join().unwrap();
    tunnel.carries("hello").unwrap();
    gateway.holds_exactly(1);
    gateway.has_lost_none();
}

#[test]
fn a_worker_that_serves_before_it_talks_to_the_vault_opens_no_unprotected_tunnel() {
    let (gateway, port, wires) = wired();
    gateway.arm("line.before", "sleep 700");
    gateway.replace_by_force();
    let mut tunnel = wires.open(port);
    gateway.replace_by_force();
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}

/// One side sends, the worker dies at that step on the way to the other, and nobody takes its place yet.
fn half_way(
    gateway: &Gateway,
    port: u16,
    wires: &Wires,
    client_first: bool,
    step: &str,
) -> [TcpStream; 2] {
    if step.starts_with("relay.") {
        gateway.arm("peek", "");
    } else {
        gateway.disarm("peek");
    }
    let mut tunnel = wires.open(port);
    tunnel.carries("before").unwrap();
    let [mut first, second] = tunnel.ends(client_first);
    let worker = gateway.worker_pid();
    // Its peers have heard, but the worker may not have come past that send yet: it counts when its turn is over.
    eventually(Patience::USUAL, "its turn to be over", || {
        let tunnels = gateway.tunnels();
        let counted = |it: &serde_json::Value| it["bytes_in"] == 6 && it["bytes_out"] == 6;
        tunnels.last().is_some_and(counted).then_some(())
    });
    pause(gateway.supervisor_pid());
    gateway.arm(step, "kill");
    first.write_all(b"once").unwrap();
    eventually(Patience::USUAL, "the worker to be gone", || (!alive(worker)).then_some(()));
    [first, second]
}

#[test]
fn what_was_passed_on_is_not_passed_on_again_before_a_reset() {
    let (gateway, port, wires) = wired();
    for step in ["relay.sent", "intake.sent"] {
        for client_first in [true, false] {
            let [first, mut second] = half_way(&gateway, port, &wires, client_first, step);
            reset(first);
            resume(gateway.supervisor_pid());
            assert_eq!(rest(&mut second), (b"once".to_vec(), true));
        }
    }
    gateway.holds_exactly(0);
    gateway.has_lost_none();
}

#[test]
fn what_was_passed_on_is_not_passed_on_again_before_an_end() {
    let (gateway, port, wires) = wired();
    let steps = ["relay.sent", "intake.noted", "intake.received", "intake.sent"];
    for step in steps {
        for client_first in [true, false] {
            let [mut first, mut second] = half_way(&gateway, port, &wires, client_first, step);
            first.write_all(b" and for all").unwrap();
            finish(&first);
            resume(gateway.supervisor_pid());
            assert_eq!(rest(&mut second), (b"once and for all".to_vec(), false), "{step}");
            finish(&second);
            assert_eq!(rest(&mut first), (vec![], false), "{step}");
        }
    }
    gateway.holds_exactly(0);
    let ends = eventually(Patience::USUAL, "all ends to be told", || {
        Some(gateway.ends_told()).filter(|told| told.len() == 2 * steps.len())
    });
    for pair in ends.chunks(2) {
        assert!(pair[0].contains("bytes_in=22 bytes_out=6"), "{ends:?}");
        assert!(pair[1].contains("bytes_in=6 bytes_out=22"), "{ends:?}");
    }
}

#[test]
fn what_was_passed_on_is_reported_however_soon_the_next_worker_dies() {
    let (gateway, port, wires) = wired();
    let steps = [
        ("relay.sent", "relay.peeked"),
        ("intake.sent", "intake.received"),
        ("intake.received", "kept.sent"),
        ("intake.received", "kept.dropped"),
    ];
    for (step, next) in steps {
        for client_first in [true, false] {
            let [mut first, mut second] = half_way(&gateway, port, &wires, client_first, step);
            first.write_all(b" and for all").unwrap();
            finish(&first);
            gateway.arm(next, "kill");
            resume(gateway.supervisor_pid());
            assert_eq!(rest(&mut second), (b"once and for all".to_vec(), false), "{next}");
            assert!(gateway.has_fired(next), "{next}");
            finish(&second);
            assert_eq!(rest(&mut first), (vec![], false), "{next}");
        }
    }
    gateway.holds_exactly(0);
    eventually(Patience::USUAL, "the bytes to be reported", || {
        let counted = gateway.count("holdfast_tunnels_bytes_total");
        (counted == 2 * 4 * (22 + 6)).then_some(())
    });
    gateway.has_lost_none();
}
