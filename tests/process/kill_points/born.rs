//! Processes that are born, or die, at a bad moment.

use std::fs;
use std::process::Child;

use nix::sys::signal::Signal;

use super::*;
use crate::harness::{
    Disk, Document, HOLDFAST, directory, free_port, has_stopped, limit_descriptors, words,
};

/// Everybody whom the supervisor has started, whatever for.
fn started_by(supervisor: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().flatten();
    let theirs = threads.map(|it| fs::read_to_string(it.path().join("children")));
    let theirs: String = theirs.map(Result::unwrap_or_default).collect();
    theirs.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Begins an upgrade whose candidate has stopped before it answers. Answers that one's pid, too.
fn upgrade_in_suspense(gateway: &Gateway) -> (Child, u32) {
    gateway.arm("upgrade.asked", "stop");
    let upgrade = gateway.begin_cli(&["upgrade", "--binary", HOLDFAST]);
    eventually(Patience::USUAL, "it to be asked", || {
        gateway.has_fired("upgrade.asked").then_some(())
    });
    let listed = gateway.children();
    let started = started_by(gateway.supervisor_pid());
    let asked = started.into_iter().find(|pid| !listed.contains(pid)).unwrap();
    has_stopped(asked);
    (upgrade, asked)
}

#[test]
fn nobody_takes_over_who_would_not_know_a_worker_that_was_born_since_he_was_asked() {
    let (home, wires, port) = (directory(), Wires::start(), free_port());
    let Some(disk) = Disk::mount(&home.path().join("r"), 256, "a full disk") else { return };
    let gateway = Gateway::start_in(home, &Document::wired(port, &wires));
    let mut tunnel = wires.open(port);
    gateway.protects(1);
    let (upgrade, asked) = upgrade_in_suspense(&gateway);
    disk.fill();
    kill9(gateway.worker_pid());
    gateway.says(&["ERROR", "cannot write the list of children"]);
    resume(asked);
    let upgrade = upgrade.wait_with_output().unwrap();
    let told = words(&upgrade);
    assert!(!upgrade.status.success() && told.contains("list of children"), "{told}");
    tunnel.carries("still here").unwrap();
    disk.clear();
    gateway.has_lost_none();
}

/// The operators' socket cannot be had a second time then.
#[test]
fn an_exec_that_fails_for_want_of_descriptors_is_told_of_and_operators_are_served_on() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    gateway.protects(1);
    let supervisor = gateway.supervisor_pid();
    let (upgrade, asked) = upgrade_in_suspense(&gateway);
    // All four are open: whatever it opens is one too many.
    limit_descriptors(supervisor, 4);
    resume(asked);
    // Who has asked dials again, to hear what came of it.
    gateway.says(&["WARN", "operators wait", "Too many open files"]);
    limit_descriptors(supervisor, 4096);
    let upgrade = upgrade.wait_with_output().unwrap();
    let told = words(&upgrade);
    assert_eq!(upgrade.status.code(), Some(1), "{told}");
    assert!(told.contains("the old one goes on") && told.contains("Too many open files"), "{told}");
    assert_eq!(gateway.status()["supervisor"]["pid"], supervisor);
    let again = gateway.must(&["upgrade", "--json", "--binary", HOLDFAST]);
    assert!(again.contains("\"done\""), "{again}");
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}

#[test]
fn a_prober_that_speaks_before_its_birth_is_written_down_is_heard() {
    let (gateway, _port, _wires) = wired();
    let old = gateway.prober_pid();
    gateway.arm("prober.born", "sleep 3000");
    kill9(old);
    let serving = || {
        let prober = gateway.status()["prober"].clone();
        (prober["pid"] != old && prober["state"] == "serving").then_some(prober["pid"].clone())
    };
    let new = eventually(Patience::USUAL, "the next one to serve", serving);
    gateway.says(&["supervisor[", "prober started", &format!("pid={new}")]);
    assert_eq!(serving(), Some(new));
}

/// Its worker has not heard yet that it drains.
#[test]
fn a_supervisor_killed_when_it_has_given_an_address_back_is_followed_by_one_that_serves_there() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    gateway.protects(1);
    gateway.arm("address.given_back", "kill");
    gateway.signal(Signal::SIGTERM);
    eventually(Patience::USUAL, "its death", || gateway.has_ended().then_some(()));
    gateway.start_again();
    wires.open(port).carries("hello").unwrap();
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}
