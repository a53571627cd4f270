//! What a machine runs out of: descriptors in a worker or in the supervisor, room on the disk. No tunnel may notice, and
//! the log must say what is missing and what waits for it.

use std::thread;
use std::time::Duration;

use crate::harness::{
    Connection, Disk, Document, Gateway, HOLDFAST, Shape, Wire, Wires, alive, cpu_time, directory,
    first_free_descriptor, free_port, kill9, limit_descriptors, stays, upgrade_request, words,
};
use crate::survive::{all_carry, traffic, wired};

/// As much as any process here needs.
const PLENTY: u32 = 4096;

/// Lets a process open nothing more: its standard streams are always open.
fn starve(pid: u32) {
    limit_descriptors(pid, 3);
}

#[test]
fn a_worker_without_descriptors_keeps_its_tunnels_and_lets_newcomers_wait() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..10).map(|_| wires.open(port)).collect();
    gateway.protects(10);
    let worker = gateway.worker_pid();
    starve(worker);
    let newcomer = thread::spawn(move || wires.open(port));
    gateway.says(&["WARN", "out of descriptors or memory: connections wait in the queue"]);
    all_carry(&mut tunnels, "still here");
    assert!(!newcomer.is_finished());
    limit_descriptors(worker, PLENTY);
    let mut newcomer = newcomer.join().unwrap();
    newcomer.carries("here at last").unwrap();
    all_carry(&mut tunnels, "still here");
    assert_eq!(gateway.has_said("out of descriptors"), 1, "once a shortage");
    gateway.holds_exactly(11);
    gateway.has_lost_none();
}

#[test]
fn a_worker_that_has_no_descriptor_for_a_backend_says_so_and_keeps_its_tunnels() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..10).map(|_| wires.open(port)).collect();
    gateway.protects(10);
    let worker = gateway.worker_pid();
    // One for the client, none for the backend.
    limit_descriptors(worker, first_free_descriptor(worker) + 1);
    let mut client = Connection::open(port).unwrap();
    client.write(upgrade_request("/wire/none", "localhost")).unwrap();
    let answer = client.response().unwrap();
    assert_eq!(answer.status, 503);
    gateway.says(&["WARN", "out of descriptors", "answered 503", "Too many open files"]);
    all_carry(&mut tunnels, "still here");
    limit_descriptors(worker, PLENTY);
    drop(client);
    tunnels.push(wires.open(port));
    all_carry(&mut tunnels, "still here");
    gateway.holds_exactly(11);
    gateway.has_lost_none();
}

#[test]
fn a_supervisor_without_descriptors_harms_no_tunnel_and_serves_on_when_it_has_some() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..10).map(|_| wires.open(port)).collect();
    gateway.protects(10);
    let supervisor = gateway.supervisor_pid();
    starve(supervisor);
    let status = gateway.begin_cli(&["status"]);
    gateway.says(&["WARN", "operators wait", "Too many open files"]);
    // Nor does it ask again and again for what it cannot have.
    let (before, span) = (cpu_time(supervisor), Duration::from_secs(1));
    stays(span, "the tunnels", || tunnels.iter_mut().all(|it| it.carries("still here").is_ok()));
    let used = cpu_time(supervisor).saturating_sub(before);
    assert!(used < span / 4, "{used:?} of CPU in {span:?} without descriptors");
    tunnels.push(wires.open(port));
    all_carry(&mut tunnels, "still here");
    gateway.says(&["WARN", "the vault holds no more tunnels", "may have no more descriptors"]);
    limit_descriptors(supervisor, PLENTY);
    let output = status.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    gateway.protects(11);
    gateway.replace_by_force();
    gateway.replace_in_order();
    all_carry(&mut tunnels, "still here");
    gateway.holds_exactly(11);
    gateway.has_lost_none();
}

#[test]
fn a_worker_that_dies_when_no_other_can_be_started_leaves_its_tunnels_to_a_later_one() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..10).map(|_| wires.open(port)).collect();
    gateway.protects(10);
    let (supervisor, worker) = (gateway.supervisor_pid(), gateway.worker_pid());
    starve(supervisor);
    kill9(worker);
    gateway.says(&["ERROR", "cannot start a worker", "Too many open files", "wait for it"]);
    assert!(!alive(worker));
    limit_descriptors(supervisor, PLENTY);
    all_carry(&mut tunnels, "still here");
    gateway.protects(10);
    gateway.holds_exactly(10);
    gateway.has_lost_none();
}

#[test]
fn tunnels_of_a_removed_listener_wait_for_a_worker_that_cannot_be_started_yet() {
    let (wires, kept, removed) = (Wires::start(), free_port(), free_port());
    let one = Document::wired(kept, &wires);
    let gateway = Gateway::start(&one.clone().site("more", removed, "chat"));
    let mut tunnel = wires.open(removed);
    gateway.protects(1);
    gateway.apply(&one);
    let (supervisor, others) =
        (gateway.supervisor_pid(), [gateway.worker_pid(), gateway.prober_pid()]);
    let caretaker = gateway.children().into_iter().find(|pid| !others.contains(pid)).unwrap();
    starve(supervisor);
    kill9(caretaker);
    gateway.says(&["ERROR", "looks after a removed listener's tunnels", "Too many open files"]);
    limit_descriptors(supervisor, PLENTY);
    tunnel.carries("still here").unwrap();
    gateway.has_lost_none();
}

/// A gateway with a directory of its own (`r` or `s`) on a small disk.
fn on_a_disk(name: &str) -> Option<(Disk, Gateway, u16, Wires)> {
    let (home, wires, port) = (directory(), Wires::start(), free_port());
    let disk = Disk::mount(&home.path().join(name), 256, "a full disk")?;
    let gateway = Gateway::start_in(home, &Document::wired(port, &wires));
    Some((disk, gateway, port, wires))
}

#[test]
fn a_full_state_disk_harms_no_tunnel_whoever_dies_or_is_replaced() {
    let Some((disk, gateway, port, wires)) = on_a_disk("s") else { return };
    let traffic = traffic(&wires, port, 1);
    let count = Shape::ALL.len();
    gateway.protects(count as u64);
    disk.fill();
    let more = Document::wired(port, &wires).host_site("more", port, "more.test", "chat");
    let told = gateway.apply_refused(&more.text());
    assert!(told.contains("No space left on device") && told.contains("refused"), "{told}");
    gateway.says(&["ERROR", "a change was refused", "what was in force stays so", "No space left"]);
    for _ in 0..3 {
        gateway.replace_by_force();
        traffic.moves(50_000);
    }
    gateway.replace_in_order();
    traffic.moves(50_000);
    let done = gateway.must(&["upgrade", "--json", "--binary", HOLDFAST]);
    assert!(done.contains("\"done\""), "{done}");
    traffic.moves(50_000);
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    gateway.protects(count as u64);
    gateway.replace_by_force();
    traffic.moves(50_000);
    assert_eq!(gateway.revision(), 1);
    disk.clear();
    gateway.apply(&more);
    assert_eq!(gateway.revision(), 2);
    gateway.holds_exactly(count);
    traffic.finish();
    gateway.holds_exactly(0);
    gateway.has_lost_none();
}

#[test]
fn a_full_runtime_disk_harms_no_tunnel_whoever_dies_or_is_replaced() {
    let Some((disk, gateway, port, wires)) = on_a_disk("r") else { return };
    let traffic = traffic(&wires, port, 1);
    let count = Shape::ALL.len();
    gateway.protects(count as u64);
    disk.fill();
    for _ in 0..3 {
        gateway.replace_by_force();
        traffic.moves(50_000);
    }
    gateway.says(&["ERROR", "cannot write the list of children", "would not know", "No space"]);
    gateway.says(&["WARN", "cannot write down what is counted", "No space"]);
    gateway.replace_in_order();
    traffic.moves(50_000);
    // An executable that takes over knows its workers by the list.
    let upgrade = gateway.cli(&["upgrade", "--binary", HOLDFAST]);
    let told = words(&upgrade);
    assert!(!upgrade.status.success() && told.contains("list of children"), "{told}");
    traffic.moves(50_000);
    disk.clear();
    gateway.says(&["the list of children is written again"]);
    let worker = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    gateway.start_again();
    assert_eq!(gateway.worker_pid(), worker);
    gateway.protects(count as u64);
    gateway.replace_by_force();
    traffic.moves(50_000);
    gateway.holds_exactly(count);
    traffic.finish();
    gateway.holds_exactly(0);
    gateway.has_lost_none();
}
