//! Tunnels outlive the processes that serve them: killed workers, restarts, and what else becomes of them meanwhile.

use std::time::Instant;

use crate::harness::{
    Document, Gateway, MOMENT, Manner, Patience, Sealed, Shape, Traffic, Wire, Wires, alive,
    directory, eventually, finish, free_port, kill9, limit_descriptors, pause, reset, rest, resume,
    scale, stays,
};

/// A gateway in front of a backend whose connections the test holds.
pub(crate) fn wired() -> (Gateway, u16, Wires) {
    let (wires, port) = (Wires::start(), free_port());
    (Gateway::start(&Document::wired(port, &wires)), port, wires)
}

/// The same with TLS.
pub(crate) fn wired_with(sealed: Sealed, manner: Manner) -> (Gateway, u16, Wires) {
    let directory = directory();
    let (wires, port) = (Wires::start_sealed(directory.path(), sealed, manner), free_port());
    (Gateway::start_in(directory, &Document::wired(port, &wires)), port, wires)
}

/// Each of them carries bytes both ways.
pub(crate) fn all_carry(tunnels: &mut [Wire], text: &str) {
    for tunnel in tunnels {
        tunnel.carries(text).unwrap();
    }
}

/// Several tunnels of each shape.
pub(crate) fn traffic(wires: &Wires, port: u16, each: usize) -> Traffic {
    let shapes = Shape::ALL.into_iter().cycle().take(Shape::ALL.len() * each);
    Traffic::start(shapes.map(|shape| (shape, wires.open(port))).collect::<Vec<_>>())
}

/// Checked streams of every shape, while `replace` puts one worker in the place of another. Nothing else arrives than
/// what was sent, and that is what the gateway says of them, each once, and of all together.
pub(crate) fn streams_go_on(
    (gateway, port, wires): (Gateway, u16, Wires),
    each: usize,
    times: u32,
    replace: impl Fn(&Gateway) -> u32,
) {
    let count = each * Shape::ALL.len();
    let traffic = traffic(&wires, port, each);
    for _ in 0..times {
        traffic.moves(300_000);
        replace(&gateway);
    }
    gateway.holds_exactly(count);
    traffic.moves(300_000);
    let total = traffic.finish();
    gateway.holds_exactly(0);
    gateway.has_lost_none();
    eventually(Patience::USUAL, "each end to be told", || {
        (gateway.ends_told().len() >= count).then_some(())
    });
    assert_eq!((gateway.ends_told().len(), gateway.bytes_told()), (count, total));
    eventually(Patience::USUAL, "the bytes to be reported", || {
        let counted =
            |way| gateway.count(&format!("holdfast_tunnels_bytes_total{{direction=\"{way}\"}}"));
        let now = ["in", "out"].map(counted);
        assert!(now[0] <= total[0] && now[1] <= total[1], "{now:?} of {total:?}");
        (now == total).then_some(())
    });
    println!("{count} tunnels, {times} workers, {total:?} bytes to backends and to clients");
}

#[test]
fn a_killed_worker_drops_no_tunnel() {
    let (gateway, port, wires) = wired();
    let mut tunnels: Vec<Wire> = (0..20).map(|_| wires.open(port)).collect();
    for round in 0..10 {
        gateway.replace_by_force();
        tunnels.push(wires.open(port));
        all_carry(&mut tunnels, &format!("round {round}"));
    }
    gateway.holds_exactly(tunnels.len());
    gateway.has_lost_none();
    drop(tunnels);
    gateway.holds_exactly(0);
}

#[test]
pub(crate) fn no_byte_is_lost_or_doubled_when_workers_are_killed() {
    streams_go_on(wired(), 3, scale("HOLDFAST_TEST_KILLS", 12), Gateway::replace_by_force);
}

#[test]
pub(crate) fn no_byte_is_lost_or_doubled_when_workers_are_restarted() {
    streams_go_on(wired(), 3, scale("HOLDFAST_TEST_KILLS", 12), Gateway::replace_in_order);
}

#[test]
fn a_tunnel_that_moves_is_the_same_tunnel() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    tunnel.carries("twelve bytes").unwrap();
    let client = tunnel.client.local_addr().unwrap().port();
    let row = || eventually(Patience::USUAL, "the tunnel", || gateway.tunnel_of(client));
    let before = row();
    for replace in [Gateway::replace_in_order, Gateway::replace_by_force] {
        replace(&gateway);
        let after = row();
        let fields = [
            "id", "client", "backend", "site", "pool", "settings", "opened", "trace_id", "bytes_in",
        ];
        for field in fields {
            assert_eq!(before[field], after[field], "{field}");
        }
        assert!(after["age_ms"].as_u64() >= before["age_ms"].as_u64());
        assert!(after["idle_ms"].as_u64() >= before["idle_ms"].as_u64());
    }
    tunnel.carries("and twelve..").unwrap();
    drop(tunnel);
    gateway.holds_exactly(0);
    let told = eventually(Patience::USUAL, "the log", || {
        Some(gateway.ends_told()).filter(|told| !told.is_empty())
    });
    assert!(told.len() == 1 && told[0].contains("bytes_in=24 bytes_out=24"), "{told:?}");
}

#[test]
fn clients_that_arrive_during_restarts_get_their_tunnels() {
    let (gateway, port, wires) = wired();
    let over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let opened: usize = std::thread::scope(|scope| {
        let client = || {
            let mut kept = Vec::new();
            while !over.load(order) {
                let mut tunnel = wires.try_open(port, true).unwrap().expect("a tunnel");
                tunnel.carries("hello").unwrap();
                kept.push(tunnel);
                kept.truncate(kept.len().min(20));
            }
            all_carry(&mut kept, "still here");
            kept.len()
        };
        let clients = [(); 4].map(|()| scope.spawn(client));
        for _ in 0..8 {
            gateway.replace_in_order();
        }
        over.store(true, order);
        clients.map(|client| client.join().unwrap()).iter().sum()
    });
    assert!(opened > 0);
    gateway.has_lost_none();
    gateway.holds_exactly(0);
}

/// A tunnel whose worker is dead, while no other can be started.
pub(crate) fn orphaned(gateway: &Gateway, port: u16, wires: &Wires) -> Wire {
    let mut tunnel = wires.open(port);
    tunnel.carries("before").unwrap();
    let worker = gateway.worker_pid();
    pause(gateway.supervisor_pid());
    kill9(worker);
    eventually(Patience::USUAL, "the worker to be gone", || (!alive(worker)).then_some(()));
    tunnel
}

#[test]
fn an_end_while_no_worker_lives_is_passed_on_by_the_next() {
    ends_are_passed_on(wired());
}

pub(crate) fn ends_are_passed_on((gateway, port, wires): (Gateway, u16, Wires)) {
    for client_first in [true, false] {
        let [ending, mut other] = orphaned(&gateway, port, &wires).ends(client_first);
        std::io::Write::write_all(&mut &ending, b"last words").unwrap();
        finish(&ending);
        resume(gateway.supervisor_pid());
        assert_eq!(rest(&mut other), (b"last words".to_vec(), false));
        std::io::Write::write_all(&mut &other, b"answer").unwrap();
        finish(&other);
        assert_eq!(rest(&mut { ending }), (b"answer".to_vec(), false));
    }
    gateway.holds_exactly(0);
    assert_eq!(gateway.count("holdfast_tunnels_closed_total{cause=\"client\"}"), 1);
    gateway.has_lost_none();
}

#[test]
fn a_reset_while_no_worker_lives_is_passed_on_by_the_next() {
    resets_are_passed_on(wired());
}

pub(crate) fn resets_are_passed_on((gateway, port, wires): (Gateway, u16, Wires)) {
    for client_first in [true, false] {
        let [ending, mut other] = orphaned(&gateway, port, &wires).ends(client_first);
        reset(ending);
        resume(gateway.supervisor_pid());
        assert!(rest(&mut other).1, "a reset");
    }
    gateway.holds_exactly(0);
    gateway.has_lost_none();
}

#[test]
fn a_half_closed_tunnel_goes_on_through_kills_and_restarts() {
    half_closed_tunnels_go_on(wired());
}

pub(crate) fn half_closed_tunnels_go_on((gateway, port, wires): (Gateway, u16, Wires)) {
    for client_first in [true, false] {
        let [ended, mut other] = wires.open(port).ends(client_first);
        finish(&ended);
        assert_eq!(rest(&mut other).0, b"");
        gateway.replace_by_force();
        std::io::Write::write_all(&mut other, b"one ").unwrap();
        gateway.replace_in_order();
        std::io::Write::write_all(&mut other, b"two").unwrap();
        finish(&other);
        assert_eq!(rest(&mut { ended }), (b"one two".to_vec(), false));
    }
    gateway.holds_exactly(0);
}

#[test]
fn tunnels_of_a_removed_listener_outlive_its_last_worker() {
    let wires = Wires::start();
    let (kept, removed) = (free_port(), free_port());
    let one = Document::wired(kept, &wires);
    let gateway = Gateway::start(&one.clone().site("more", removed, "chat"));
    let mut tunnel = wires.open(removed);
    gateway.apply(&one);
    for _ in 0..3 {
        let serving = gateway.worker_pid();
        let prober = gateway.prober_pid();
        let caretaker = eventually(Patience::USUAL, "somebody who looks after it", || {
            let children = gateway.children().into_iter();
            children.filter(|pid| alive(*pid)).find(|pid| ![serving, prober].contains(pid))
        });
        tunnel.carries("still here").unwrap();
        kill9(caretaker);
        tunnel.carries("and now").unwrap();
    }
    drop(tunnel);
    eventually(Patience::USUAL, "nobody to be left over", || {
        (gateway.children().iter().filter(|pid| alive(**pid)).count() == 2).then_some(())
    });
    gateway.has_lost_none();
}

#[test]
fn silence_is_counted_through_restarts() {
    let (wires, port) = (Wires::start(), free_port());
    let timeout = Document::wired(port, &wires).set(
        "backendHttpSettingsCollection",
        "chat",
        "requestTimeout",
        5,
    );
    let gateway = Gateway::start(&timeout);
    let [mut quiet, mut busy] = [(); 2].map(|()| wires.open(port));
    // Before its last byte: the gateway counts from there.
    let begin = Instant::now();
    quiet.carries("last").unwrap();
    let waiting = std::thread::spawn(move || (rest(&mut quiet.client).1, begin.elapsed()));
    let mut by_force = false;
    while !waiting.is_finished() {
        busy.carries("ping").unwrap();
        if by_force {
            gateway.replace_by_force()
        } else {
            gateway.replace_in_order()
        };
        by_force = !by_force;
    }
    let (was_reset, silence) = waiting.join().unwrap();
    let most = 6 * scale("HOLDFAST_TEST_PATIENCE", 1);
    assert!(!was_reset && (5..u64::from(most)).contains(&silence.as_secs()), "{silence:?}");
    gateway.says(&["tunnel ended", "cause=\"idle\"", "bytes_in=4 bytes_out=4"]);
    busy.carries("ping").unwrap();
}

#[test]
fn a_tunnel_that_has_moved_can_be_closed() {
    moved_tunnels_can_be_closed(wired());
}

pub(crate) fn moved_tunnels_can_be_closed((gateway, port, wires): (Gateway, u16, Wires)) {
    for replace in [Gateway::replace_in_order, Gateway::replace_by_force] {
        let mut tunnel = wires.open(port);
        replace(&gateway);
        let id = eventually(Patience::USUAL, "the tunnel", || gateway.tunnels().pop());
        gateway.must(&["close", id["id"].as_str().unwrap()]);
        assert_eq!(rest(&mut tunnel.client), (vec![], false));
        gateway.holds_exactly(0);
    }
}

#[test]
fn closing_a_tunnel_closes_no_other_listeners() {
    let wires = Wires::start();
    let (first, second) = (free_port(), free_port());
    let gateway = Gateway::start(&Document::wired(first, &wires).site("more", second, "chat"));
    let mut tunnels = [first, second].map(|port| wires.open(port));
    let client = tunnels[0].client.local_addr().unwrap().port();
    let row = eventually(Patience::USUAL, "the tunnel", || gateway.tunnel_of(client));
    gateway.must(&["close", row["id"].as_str().unwrap()]);
    assert_eq!(rest(&mut tunnels[0].client), (vec![], false));
    tunnels[1].carries("still here").unwrap();
}

#[test]
fn a_stop_ends_tunnels_that_have_moved_at_its_deadline() {
    a_stop_ends_moved_tunnels(wired());
}

pub(crate) fn a_stop_ends_moved_tunnels((gateway, port, wires): (Gateway, u16, Wires)) {
    let mut tunnel = wires.open(port);
    gateway.replace_in_order();
    gateway.replace_by_force();
    tunnel.carries("still here").unwrap();
    gateway.must(&["stop", "--drain-timeout", "1"]);
    assert_eq!(rest(&mut tunnel.client), (vec![], false));
    eventually(Patience::USUAL, "the supervisor to end", || gateway.has_ended().then_some(()));
}

#[test]
fn a_removed_backends_tunnels_end_in_time_whoever_serves_them() {
    let (wires, port) = (Wires::start(), free_port());
    let drain = serde_json::json!({"enabled": true, "drainTimeoutInSec": 3});
    let document = |wires: &Wires| {
        Document::wired(port, wires).set(
            "backendHttpSettingsCollection",
            "chat",
            "connectionDraining",
            drain.clone(),
        )
    };
    let gateway = Gateway::start(&document(&wires));
    let mut tunnel = wires.open(port);
    let begin = Instant::now();
    gateway.apply(&document(&Wires::start()));
    for _ in 0..3 {
        gateway.replace_by_force();
    }
    assert_eq!(rest(&mut tunnel.client), (vec![], false));
    let most = 6 * scale("HOLDFAST_TEST_PATIENCE", 1);
    assert!((3..u64::from(most)).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[test]
fn a_stopped_predecessor_does_not_keep_the_tunnels() {
    let (gateway, port, wires) = wired();
    let mut tunnel = wires.open(port);
    let old = gateway.worker_pid();
    pause(old);
    gateway.must(&["restart"]);
    tunnel.carries("still here").unwrap();
    assert!(!alive(old));
    gateway.says(&["ERROR", "a predecessor does not answer", "takes its tunnels by force"]);
    gateway.says(&["resumed tunnels of a process that is gone", "tunnels=1"]);
    gateway.holds_exactly(1);
    gateway.has_lost_none();
}

#[test]
fn tunnels_beyond_the_vaults_descriptors_work_and_are_counted() {
    let (gateway, port, wires) = wired();
    let supervisor = gateway.supervisor_pid();
    limit_descriptors(supervisor, 120);
    let mut tunnels: Vec<Wire> = (0..50).map(|_| wires.open(port)).collect();
    all_carry(&mut tunnels, "hello");
    let unprotected = eventually(Patience::USUAL, "the unprotected to be counted", || {
        let worker = gateway.status()["listeners"][0]["workers"][0].clone();
        let open = 50 - worker["protected"].as_u64().unwrap();
        let counted = gateway.count("holdfast_tunnels_unprotected");
        (worker["tunnels"] == 50 && open > 10 && counted == open).then_some(open)
    });
    gateway.says(&["WARN", "the vault holds no more tunnels", "no descriptors left for more"]);
    let warned = || gateway.has_said("holds no more tunnels");
    // There are two: the vault's own budget, and what the kernel lets it receive.
    stays(MOMENT, "one warning a reason, however long it lasts", || warned() <= 2);
    limit_descriptors(supervisor, 1000);
    assert!(unprotected > 0);
    eventually(Patience::USUAL, "every tunnel to be protected", || {
        (gateway.count("holdfast_tunnels_unprotected") == 0).then_some(())
    });
    gateway.says(&["INFO", "the vault holds every tunnel again"]);
    gateway.replace_by_force();
    all_carry(&mut tunnels, "still here");
    gateway.has_lost_none();
}

#[test]
fn what_was_not_protected_when_its_worker_was_killed_is_counted_as_lost() {
    let (gateway, port, wires) = wired();
    limit_descriptors(gateway.supervisor_pid(), 120);
    let tunnels: Vec<Wire> = (0..50).map(|_| wires.open(port)).collect();
    gateway.replace_by_force();
    let alive = tunnels.into_iter().filter_map(|mut tunnel| tunnel.carries("hello").ok()).count();
    let lost = u64::try_from(50 - alive).unwrap();
    assert!((10..40).contains(&lost), "{lost}");
    eventually(Patience::USUAL, "the others to be counted", || {
        (gateway.count("holdfast_tunnels_lost_total") == lost).then_some(())
    });
    gateway.says(&["ERROR", "it was not protected when its process died", "cause=\"lost\""]);
    gateway.holds_exactly(0);
}
