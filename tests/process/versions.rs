//! Processes of different versions beside one another: an older or newer worker, an arena of another layout, a successor
//! that is short of descriptors. Only in a build with the feature `failpoints`, which can plant another version
//! (`docs/testing.md`).

use crate::harness::{
    Document, Gateway, Patience, Shape, Wire, Wires, alive, eventually, first_free_descriptor,
    free_port, get, has_stopped, kill9, limit_descriptors, rest, resume, stamp_arenas, stays,
};
use crate::survive::{all_carry, traffic, wired};

/// Rows of `status --json` of the only listener's workers.
fn workers(gateway: &Gateway) -> Vec<serde_json::Value> {
    gateway.status()["listeners"][0]["workers"].as_array().unwrap().clone()
}

/// A supervisor of another protocol than its worker, which is `theirs`; both go on.
fn a_worker_of_protocol(theirs: &str, ours: &str) {
    let (wires, port) = (Wires::start(), free_port());
    let document = Document::wired(port, &wires);
    let home = crate::harness::directory();
    Gateway::plant_in(home.path(), "protocol", theirs);
    let gateway = Gateway::start_in(home, &document);
    let traffic = traffic(&wires, port, 1);
    let count = Shape::ALL.len() as u64;
    gateway.protects(count);
    let mut tunnels = vec![wires.open(port)];
    let old = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    gateway.arm("protocol", ours);
    gateway.start_again();
    let why = format!("it speaks control protocol {theirs}, this supervisor {ours}");
    gateway.says(&["WARN", "a worker of another version drains", &why, "not protected"]);
    // The old one goes on with what it has; the new one serves whoever comes.
    let serving = gateway.worker_pid();
    assert_ne!(serving, old);
    tunnels.push(wires.open(port));
    assert_eq!(get(port, "/").unwrap().status, 200);
    let row = |pid: u32| workers(&gateway).into_iter().find(|row| row["pid"] == pid).unwrap();
    eventually(Patience::USUAL, "the old one's tunnels to be counted", || {
        let row = row(old);
        (row["tunnels"] == count + 1).then(|| {
            assert_eq!((&row["state"], &row["reason"]), (&"draining".into(), &why.clone().into()));
        })
    });
    assert_eq!(row(serving)["tunnels"], 1);
    let problems = gateway.status()["problems"].to_string();
    assert!(problems.contains(&format!("worker {old}")) && problems.contains(&why), "{problems}");
    // A change waits for nobody who could not understand it, and a restart is the new one's.
    gateway.apply(&document.host_site("more", port, "more.test", "chat"));
    gateway.replace_by_force();
    gateway.replace_in_order();
    all_carry(&mut tunnels, "still here");
    traffic.moves(100_000);
    assert!(alive(old), "it was ended for its age");
    // Its tunnels end as they would have; then it leaves.
    drop(tunnels);
    traffic.finish();
    eventually(Patience::USUAL, "the old one to leave", || (!alive(old)).then_some(()));
    gateway.says(&["drained worker left", &format!("pid={old}")]);
    gateway.holds_exactly(0);
    gateway.has_lost_none();
    let problems = gateway.status()["problems"].clone();
    assert_eq!(problems, serde_json::json!([]));
}

#[test]
fn a_worker_older_than_its_supervisor_keeps_its_tunnels() {
    a_worker_of_protocol("1", "2");
}

#[test]
fn a_worker_newer_than_its_supervisor_keeps_its_tunnels() {
    a_worker_of_protocol("2", "1");
}

#[test]
fn a_worker_of_an_older_build_is_replaced_before_it_serves_what_it_does_not_know() {
    let (wires, port) = (Wires::start(), free_port());
    let document = Document::wired(port, &wires);
    let home = crate::harness::directory();
    Gateway::plant_in(home.path(), "level", "0");
    let gateway = Gateway::start_in(home, &document);
    let traffic = traffic(&wires, port, 1);
    let count = Shape::ALL.len() as u64;
    let mut tunnels = vec![wires.open(port)];
    gateway.protects(count + 1);
    let old = gateway.worker_pid();
    // Another supervisor, with other workers to come. What is in force anybody can serve, so the old one goes on.
    kill9(gateway.supervisor_pid());
    gateway.arm("level", "1");
    gateway.start_again();
    let more = document.host_site("more", port, "more.test", "chat");
    gateway.apply(&more);
    assert_eq!(gateway.worker_pid(), old);
    // Who may speak for clients is nothing to pass over.
    let mut trusting = more.clone();
    for site in trusting.0["properties"]["httpListeners"].as_array_mut().unwrap() {
        site["holdfast"] = serde_json::json!({
            "trustedProxies": ["127.0.0.1"], "trustForwardedHeaders": true,
        });
    }
    gateway.apply(&trusting);
    gateway.says(&[
        "WARN",
        "a worker of an older build is not sent a revision",
        &format!("pid={old}"),
    ]);
    let new = gateway.worker_pid();
    assert_ne!(new, old);
    all_carry(&mut tunnels, "still here");
    traffic.moves(100_000);
    eventually(Patience::USUAL, "the old one to leave", || (!alive(old)).then_some(()));
    gateway.protects(count + 1);
    // And one is enough: the new one stays.
    gateway.apply(&more);
    gateway.apply(&trusting);
    assert_eq!(gateway.worker_pid(), new);
    all_carry(&mut tunnels, "still here");
    traffic.finish();
    gateway.has_lost_none();
    assert_eq!(gateway.status()["problems"], serde_json::json!([]));
}

#[test]
fn a_stop_ends_a_worker_of_another_protocol_too() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    let old = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    gateway.arm("protocol", "2");
    gateway.start_again();
    tunnel.carries("still here").unwrap();
    gateway.must(&["stop", "--drain-timeout", "1"]);
    assert_eq!(rest(&mut tunnel.client), (vec![], false));
    eventually(Patience::USUAL, "both to end", || {
        (gateway.has_ended() && !alive(old)).then_some(())
    });
}

#[test]
fn an_executable_of_another_protocol_or_arena_is_refused_and_disturbs_nobody() {
    for (name, word) in [("protocol", "protocol 99"), ("arena", "layout 99")] {
        let (gateway, port, wires) = wired();
        let mut tunnel = wires.open(port);
        let worker = gateway.worker_pid();
        gateway.arm(name, "99");
        let output = gateway.cli(&["upgrade", "--binary", crate::harness::HOLDFAST]);
        let told = crate::harness::words(&output);
        assert!(!output.status.success() && told.contains(word), "{told}");
        tunnel.carries("still here").unwrap();
        assert_eq!(gateway.worker_pid(), worker);
    }
}

#[test]
fn tunnels_in_an_arena_of_another_layout_stay_with_their_worker_and_end_with_it() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    let mut tunnels = vec![wires.open(port)];
    let count = Shape::ALL.len();
    gateway.protects(count as u64 + 1);
    let old = gateway.worker_pid();
    gateway.arm("arena", "99");
    let restart = gateway.begin_cli(&["restart"]);
    eventually(Patience::USUAL, "the old one to drain", || {
        workers(&gateway)
            .iter()
            .any(|row| row["pid"] == old && row["state"] == "draining")
            .then_some(())
    });
    // The old one may take a last connection or two while the new one takes others already.
    tunnels.push(eventually(Patience::USUAL, "a tunnel of the new one", || {
        let wire = wires.open(port);
        let client = wire.client.local_addr().unwrap().port();
        let row = gateway.tunnel_of(client)?;
        let id = u64::from_str_radix(row["id"].as_str().unwrap(), 16).unwrap();
        (id >> 40 > 1).then_some(wire)
    }));
    all_carry(&mut tunnels, "still here");
    traffic.moves(100_000);
    assert!(alive(old));
    // A new one that dies leaves both alone.
    gateway.replace_by_force();
    all_carry(&mut tunnels, "still here");
    traffic.moves(100_000);
    traffic.finish();
    eventually(Patience::USUAL, "the vault to hold nothing else", || {
        (gateway.count("holdfast_vault_tunnels") == 2).then_some(())
    });
    // Nobody could go on with what a dead one leaves: its peers are told so, and do not wait for ever.
    kill9(old);
    let [mut orphan, mut other] = <[Wire; 2]>::try_from(tunnels).ok().unwrap();
    drop(rest(&mut orphan.client));
    drop(rest(&mut orphan.backend));
    gateway.says(&["ERROR", "tunnels were let go of", "layout", "version=5", "tunnels=1"]);
    other.carries("still here").unwrap();
    gateway.replace_by_force();
    other.carries("still here").unwrap();
    drop(restart.wait_with_output());
}

#[test]
fn an_arena_that_says_another_version_is_left_alone() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 1);
    let mut tunnels = vec![wires.open(port)];
    gateway.protects(Shape::ALL.len() as u64 + 1);
    let old = gateway.worker_pid();
    stamp_arenas(gateway.supervisor_pid(), 99);
    let restart = gateway.begin_cli(&["restart"]);
    let words = ["ERROR", "cannot be taken over: they stay with their owners", "version 99"];
    gateway.says(&words);
    eventually(Patience::USUAL, "the old one to drain", || {
        let draining = |row: &serde_json::Value| row["pid"] == old && row["state"] == "draining";
        workers(&gateway).iter().any(draining).then_some(())
    });
    tunnels.push(wires.open(port));
    all_carry(&mut tunnels, "still here");
    traffic.moves(100_000);
    assert!(alive(old));
    eventually(Patience::USUAL, "the new one's to be counted as unprotected", || {
        (gateway.count("holdfast_tunnels_unprotected") == 1).then_some(())
    });
    traffic.finish();
    drop(tunnels);
    eventually(Patience::USUAL, "the old one to leave", || (!alive(old)).then_some(()));
    gateway.has_lost_none();
    drop(restart.wait_with_output());
}

/// A gateway with tunnels, and its next worker, stopped before it is handed anything, with few descriptors.
fn starved(gateway: &Gateway, replace: impl FnOnce(&Gateway, u32)) -> u32 {
    let old = gateway.worker_pid();
    let known = gateway.children();
    gateway.arm("line.before", "stop");
    replace(gateway, old);
    eventually(Patience::USUAL, "it to stop", || gateway.has_fired("line.before").then_some(()));
    let new = gateway.children().into_iter().find(|pid| !known.contains(pid)).unwrap();
    has_stopped(new);
    // Enough to talk and to serve a little, and not for forty legs.
    limit_descriptors(new, first_free_descriptor(new) + 12);
    resume(new);
    new
}

#[test]
fn a_worker_without_descriptors_for_what_it_is_handed_leaves_it_with_the_vault() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..20).map(|_| wires.open(port)).collect();
    gateway.protects(20);
    let new = starved(&gateway, |_, old| kill9(old));
    gateway.says(&[
        "WARN",
        "tunnels are neither protected nor taken over",
        "20 tunnels wait in the vault",
    ]);
    limit_descriptors(new, 4096);
    all_carry(&mut tunnels, "still here");
    gateway.protects(20);
    gateway.holds_exactly(20);
    gateway.has_lost_none();
}

#[test]
fn a_successor_without_descriptors_takes_nothing_from_a_living_predecessor() {
    let (gateway, port, wires) = wired();
    let traffic = traffic(&wires, port, 3);
    let count = 3 * Shape::ALL.len();
    gateway.protects(count as u64);
    let mut restart = None;
    let begin = |gateway: &Gateway, _| restart = Some(gateway.begin_cli(&["restart"]));
    let new = starved(&gateway, begin);
    gateway.says(&["WARN", "neither protected nor taken over", "tunnels wait in the vault"]);
    let mut rounds = 0;
    stays(std::time::Duration::from_millis(1500), "traffic", || {
        traffic.moves(50_000);
        rounds += 1;
        true
    });
    assert!(rounds > 1);
    assert_eq!(gateway.has_said("resumed tunnels of a process that is gone"), 0);
    limit_descriptors(new, 4096);
    let restart = restart.unwrap().wait_with_output().unwrap();
    assert!(restart.status.success());
    gateway.protects(count as u64);
    gateway.holds_exactly(count);
    traffic.finish();
    gateway.holds_exactly(0);
    gateway.has_lost_none();
}
