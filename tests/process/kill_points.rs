//! A death at every named step of a tunnel's life, while tunnels of every shape carry bytes that are all checked, and
//! others come and go. Only in a build with the feature `failpoints` (`docs/testing.md`).

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::harness::{
    Gateway, Patience, Shape, Traffic, Wire, Wires, alive, eventually, finish, kill9, pause, reset,
    rest, resume, scale, stays,
};
use crate::survive::{traffic, wired};

mod born;
mod failpoints;
mod pinned;
mod sealed;
mod stuck;

/// Clients that come and go at once.
const COMERS: usize = 3;

/// A gateway under kills.
struct Stage {
    gateway: Gateway,
    traffic: Traffic,
    tunnels: usize,
    over: Arc<AtomicBool>,
    comers: Vec<JoinHandle<usize>>,
    kills: usize,
}

impl Stage {
    /// `each` tunnels of every shape stay all the time.
    fn begin(each: usize, (gateway, port, wires): (Gateway, u16, Wires)) -> Self {
        let traffic = traffic(&wires, port, each);
        let (over, wires) = (Arc::new(AtomicBool::new(false)), Arc::new(wires));
        let comers = (0..COMERS).map(|_| {
            let (over, wires) = (Arc::clone(&over), Arc::clone(&wires));
            thread::spawn(move || come_and_go(&wires, port, &over))
        });
        let comers = comers.collect();
        Self { gateway, traffic, tunnels: each * Shape::ALL.len(), over, comers, kills: 0 }
    }

    /// Kills whoever comes to `step` for the `skip + 1`st time; `drive` makes somebody come.
    fn kill_at(&mut self, step: &str, skip: u32, drive: impl Fn(&Gateway)) {
        self.gateway.arm(step, &format!("skip {skip} kill"));
        eventually(Patience::LONG, &format!("a process to come to {step}, skip {skip}"), || {
            drive(&self.gateway);
            self.gateway.has_fired(step).then_some(())
        });
        self.kills += 1;
        // Each death is told, with what became of its tunnels. Before that, the thread that has come to the step may not have died
        // of it yet, and another one could come to the next step: two kills, and one death.
        eventually(Patience::USUAL, &format!("{} deaths to be told", self.kills), || {
            (self.gateway.has_said("worker died") >= self.kills).then_some(())
        });
        self.traffic.moves(20_000);
    }

    /// Nothing was lost, nothing is left.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let unheard: usize = self.comers.into_iter().map(|comer| comer.join().unwrap()).sum();
        assert!(unheard <= self.kills * COMERS, "{unheard} without a byte");
        self.gateway.says(&["INFO", "resumed tunnels of a process that is gone"]);
        self.gateway.holds_exactly(self.tunnels);
        self.traffic.finish();
        self.gateway.holds_exactly(0);
        self.gateway.has_lost_none();
    }
}

/// Opens tunnels and ends them in every way. Answers how many connections ended without a byte.
fn come_and_go(wires: &Wires, port: u16, over: &AtomicBool) -> usize {
    let mut unheard = 0;
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let Some(mut wire) = wires.try_open(port, true).unwrap() else {
            unheard += 1;
            continue;
        };
        wire.carries("hello").unwrap();
        let [first, second] = wire.ends(round % 2 == 0);
        if round % 6 < 4 { end_in_order(first, second) } else { end_by_reset(first, second) }
    }
    unheard
}

fn end_in_order(mut first: TcpStream, mut second: TcpStream) {
    first.write_all(b"last words").unwrap();
    finish(&first);
    assert_eq!(rest(&mut second), (b"last words".to_vec(), false));
    second.write_all(b"answer").unwrap();
    finish(&second);
    assert_eq!(rest(&mut first), (b"answer".to_vec(), false));
}

fn end_by_reset(first: TcpStream, mut second: TcpStream) {
    reset(first);
    assert_eq!(rest(&mut second), (vec![], true));
}

/// Each of these steps, at its first pass and at some later one.
fn kill_at_each(steps: &[&str], skips: &[u32], drive: impl Fn(&Gateway)) {
    kill_at_each_of(Stage::begin(2, wired()), steps, skips, drive);
}

fn kill_at_each_of(mut stage: Stage, steps: &[&str], skips: &[u32], drive: impl Fn(&Gateway)) {
    for _ in 0..scale("HOLDFAST_TEST_ROUNDS", 1) {
        for step in steps {
            for skip in skips {
                stage.kill_at(step, *skip, &drive);
            }
        }
    }
    stage.end();
}

/// The tunnels that come and go, and those that stay, come by themselves.
fn by_itself(_: &Gateway) {}

fn by_restart(gateway: &Gateway) {
    // It fails where the successor is the one that dies.
    drop(gateway.cli(&["restart"]));
}

fn by_force(gateway: &Gateway) {
    if let Some(worker) = gateway.worker_pids().first() {
        kill9(*worker);
    }
    eventually(Patience::USUAL, "a worker", || gateway.worker_pids().first().map(drop));
}

/// A worker dies with bytes that no leg has.
fn by_its_hands(gateway: &Gateway) {
    if gateway.has_fired("intake.received") {
        gateway.arm("intake.received", "kill");
    }
}

#[test]
fn a_worker_killed_while_a_tunnel_opens() {
    let steps = [
        "open.published",
        "open.deposited",
        "deposit.before",
        "deposit.sent",
        "deposit.stored",
        "prelude.before",
        "prelude.sent",
        "watch.begun",
    ];
    kill_at_each(&steps, &[0, 1, 4], by_itself);
}

#[test]
fn a_worker_killed_while_it_relays() {
    let steps = ["turn.begun", "intake.noted", "intake.received", "intake.sent", "intake.ended"];
    kill_at_each(&steps, &[0, 3, 40, 301, 800], by_itself);
}

#[test]
fn a_worker_killed_while_it_keeps_what_a_target_has_no_room_for() {
    let stage = Stage::begin(2, wired());
    // Streams of bytes are peeked at, and seldom come here.
    stage.gateway.arm("receive", "");
    let steps = ["intake.kept", "intake.carried", "kept.sent", "kept.dropped"];
    kill_at_each_of(stage, &steps, &[0, 1, 5, 19], by_itself);
}

#[test]
fn a_worker_killed_while_it_relays_what_it_leaves_in_the_queue() {
    let stage = Stage::begin(2, wired());
    stage.gateway.arm("peek", "");
    let steps = ["relay.peeked", "relay.sent", "relay.discarded"];
    kill_at_each_of(stage, &steps, &[0, 3, 40, 301, 800], by_itself);
}

#[test]
fn a_worker_killed_while_a_tunnel_ends() {
    let steps = [
        "relay.end_seen",
        "relay.fin_marked",
        "relay.fin_sent",
        "end.marked",
        "end.shut",
        "end.told",
        "end.counted",
        "end.freed",
        "release.before",
    ];
    kill_at_each(&steps, &[0, 1, 2, 5], by_itself);
}

#[test]
fn a_predecessor_killed_while_it_hands_over() {
    let steps = ["freeze.before", "freeze.frozen", "handover.frozen", "handover.told"];
    kill_at_each(&steps, &[0], by_restart);
    kill_at_each(&steps[..2], &[1, 4, 9], by_restart);
}

#[test]
fn a_successor_killed_while_it_takes_over() {
    let steps = ["adopt.heard", "adopt.told", "adopt.told_predecessor"];
    kill_at_each(&steps, &[0], by_restart);
    kill_at_each(&["adopt.before", "adopt.won", "adopt.owned"], &[0, 1, 4, 9], by_restart);
}

#[test]
fn a_successor_killed_while_it_takes_what_the_dead_have_left() {
    kill_at_each(&["adopt.before", "adopt.won", "adopt.owned"], &[0, 1, 4, 9], by_force);
    kill_at_each(&["salvage.written"; 4], &[0], by_its_hands);
    kill_at_each(&["adopt.told"], &[0], by_force);
    kill_at_each(&["watch.kept"], &[0, 1], by_force);
}

#[test]
fn a_worker_killed_while_it_has_room_watched_for() {
    // A leg for which it is on record needs no further one, whoever has it then: there are only so many.
    kill_at_each(&["watch.room"], &[0, 1], by_itself);
}

#[test]
fn a_checker_that_notices_nothing_would_be_told() {
    for fault in ["send-twice", "skip-discard", "drop-tunnel"] {
        let (gateway, port, wires) = wired();
        let traffic = traffic(&wires, port, 1);
        gateway.arm(fault, "");
        let unwatched = std::panic::AssertUnwindSafe(|| {
            gateway.replace_by_force();
            traffic.moves(300_000);
            gateway.holds_exactly(Shape::ALL.len());
            gateway.has_lost_none();
            traffic.finish();
        });
        assert!(std::panic::catch_unwind(unwatched).is_err(), "nobody has noticed {fault}");
    }
}
