//! The same thing over and over, with traffic: what is left over, and what is told meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Document, Gateway, Patience, Shape, Traffic, Wire, Wires, descriptors, eventually, free_port,
    resident_kib, scale, sockets, watch_counters, watched_legs,
};
use crate::survive::{all_carry, traffic, wired};

/// What a gateway of one worker uses.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// Descriptors and sockets of the supervisor, descriptors of the worker, children.
    counts: [usize; 4],
    /// Resident memory of the supervisor and of the worker. Not their proportional share, which depends on who else runs the
    /// executable just now; what they share with one another is small, and of the same size all the time.
    kib: [u64; 2],
}

impl Use {
    fn of(gateway: &Gateway) -> Self {
        let (supervisor, worker) = (gateway.supervisor_pid(), gateway.worker_pid());
        let counts = [
            descriptors(supervisor),
            sockets(supervisor),
            descriptors(worker),
            gateway.children().len(),
        ];
        Self { counts, kib: [supervisor, worker].map(resident_kib) }
    }

    /// The same things, and memory within five percent.
    fn is_like(self, before: Self) -> bool {
        let near = |(now, then): (u64, u64)| now.abs_diff(then) * 20 <= then;
        self.counts == before.counts && self.kib.into_iter().zip(before.kib).all(near)
    }
}

/// What it uses all the time: of several looks the least of each, since a scrape, or a dead worker's last descriptor, only
/// ever adds to what is there.
fn steady(gateway: &Gateway, tunnels: usize) -> Use {
    let looks: Vec<_> = (0..20).map(|_| settled(gateway, tunnels)).collect();
    let least = |which: usize| looks.iter().map(|look| look.counts[which]).min().unwrap();
    Use { counts: std::array::from_fn(least), kib: looks[looks.len() - 1].kib }
}

/// What it uses when nothing of a replacement is under way any more.
fn settled(gateway: &Gateway, tunnels: usize) -> Use {
    gateway.holds_exactly(tunnels);
    gateway.protects(tunnels as u64);
    Use::of(gateway)
}

#[test]
fn a_hundred_generations_under_load_leave_nothing_behind() {
    let (gateway, port, wires) = wired();
    let shapes =
        [Shape::Talk, Shape::SlowClient, Shape::SlowBackend, Shape::BackendEnded, Shape::Silent];
    let count = shapes.len();
    let traffic = Traffic::start(shapes.map(|shape| (shape, wires.open(port))));
    let (done, status_port) = (AtomicBool::new(false), gateway.status_port());
    let mut after_ten = None;
    let (last, scrapes) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch_counters(status_port, &done));
        for round in 1..=scale("HOLDFAST_TEST_GENERATIONS", 100).max(20) {
            if watch.is_finished() {
                break;
            }
            if round % 4 == 0 {
                gateway.replace_by_force()
            } else {
                gateway.replace_in_order()
            };
            if round == 10 {
                after_ten = Some(steady(&gateway, count));
            }
        }
        traffic.moves(300_000);
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    let before = after_ten.unwrap();
    let after = eventually(Patience::USUAL, &format!("everything to be like {before:?}"), || {
        Some(settled(&gateway, count)).filter(|now| now.is_like(before))
    });
    println!("after the tenth {before:?}, after the last {after:?}");
    assert!(scrapes > 50, "{scrapes} scrapes");
    assert_eq!(last["holdfast_tunnels_lost_total"], 0.0, "{last:?}");
    gateway.has_lost_none();
    traffic.finish();
    gateway.holds_exactly(0);
}

#[test]
fn workers_without_tunnels_leave_their_names_to_later_ones() {
    let (gateway, port, wires) = wired();
    for _ in 0..70 {
        gateway.must(&["restart"]);
    }
    let mut tunnel = wires.open(port);
    gateway.replace_by_force();
    tunnel.carries("hello").unwrap();
}

#[test]
fn each_leg_is_watched_once_however_many_workers_die() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..20).map(|_| wires.open(port)).collect();
    all_carry(&mut tunnels, "first");
    // What has ended is watched until the vault has closed it.
    let watches = |legs: usize| {
        eventually(Patience::USUAL, &format!("{legs} legs to be watched"), || {
            (watched_legs(gateway.worker_pid()) == legs).then_some(())
        });
    };
    let mut descriptors_before = None;
    for round in 0..8 {
        gateway.replace_by_force();
        gateway.holds_exactly(tunnels.len());
        all_carry(&mut tunnels, &format!("round {round}"));
        watches(2 * tunnels.len());
        let count = || descriptors(gateway.supervisor_pid());
        let before = *descriptors_before.get_or_insert_with(count);
        // A connection that has just ended may be open there for a moment.
        eventually(Patience::USUAL, &format!("at most {before} descriptors"), || {
            (count() <= before).then_some(())
        });
        // Others come and go, in the records that are free now.
        let last = tunnels.pop();
        tunnels.push(wires.open(port));
        drop(last);
    }
    // A successor that was planned watches them itself; those that it has from it go with their sockets.
    gateway.replace_in_order();
    all_carry(&mut tunnels, "at the end");
    watches(2 * tunnels.len());
    drop(tunnels);
    gateway.holds_exactly(0);
    watches(0);
}

#[test]
fn ten_reloads_a_second_drop_no_tunnel_and_leave_no_process() {
    let (wires, port) = (Wires::start(), free_port());
    let plain = Document::wired(port, &wires);
    let gateway = Gateway::start(&plain);
    let traffic = traffic(&wires, port, 1);
    let count = Shape::ALL.len();
    let before = steady(&gateway, count);
    let (processes, begun) = (gateway.children(), Instant::now());
    let span = Duration::from_secs(scale("HOLDFAST_TEST_RELOAD_SECONDS", 5).into());
    let mut reloads = 0;
    while begun.elapsed() < span {
        // As a whole: half a file would be refused, and no reload.
        let host = format!("more{reloads}.test");
        let changed = plain.clone().host_site("more", port, &host, "chat");
        let aside = gateway.write("aside", &changed.text());
        fs::rename(aside, gateway.path().join("gateway.json")).unwrap();
        gateway.signal(Signal::SIGHUP);
        reloads += 1;
        let due = begun + Duration::from_millis(100) * reloads;
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())
        {
            thread::park_timeout(left);
        }
    }
    gateway.must(&["reload"]);
    traffic.moves(300_000);
    let revision = gateway.revision();
    println!("{reloads} reloads, revision {revision}");
    // Signals that come while one is carried out are one more reload.
    assert!(revision > u64::from(reloads) / 4, "{reloads} reloads, revision {revision}");
    assert_eq!(gateway.children(), processes, "a process came or went");
    eventually(Patience::USUAL, &format!("descriptors to be as before, {before:?}"), || {
        (settled(&gateway, count).counts == before.counts).then_some(())
    });
    assert_eq!(gateway.count("holdfast_reloads_refused_total"), 0);
    gateway.has_lost_none();
    traffic.finish();
    gateway.holds_exactly(0);
    // A process's log is written by a thread of its own.
    eventually(Patience::USUAL, "each end to be told", || {
        (gateway.ends_told().len() >= count).then_some(())
    });
    assert_eq!(gateway.ends_told().len(), count);
}
