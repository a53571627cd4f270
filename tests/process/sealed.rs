//! Tunnels with TLS on either side outlive the processes that serve them, as plain ones do.

use std::io::Write;

use crate::harness::{
    Gateway, Manner, Patience, Sealed, Wire, alive, eventually, finish, rest, resume,
};
use crate::survive::{
    a_stop_ends_moved_tunnels, all_carry, ends_are_passed_on, half_closed_tunnels_go_on,
    moved_tunnels_can_be_closed, orphaned, resets_are_passed_on, streams_go_on, wired_with,
};
use crate::upgrade::{executable, upgrade_to};

/// Kills, or restarts, that each set of streams has to bear.
const TIMES: u32 = 4;
const LEGS: [Sealed; 3] = [Sealed::Client, Sealed::Backend, Sealed::Both];
const USUAL: Manner = Manner { old: false, shreds: false, rekeys: 0, rude: false };
const OLD: Manner = Manner { old: true, ..USUAL };
const RESTLESS: Manner = Manner { rekeys: 1, shreds: true, ..USUAL };

#[test]
fn a_killed_worker_drops_no_wss_tunnel() {
    streams_go_on(wired_with(Sealed::Client, USUAL), 2, TIMES, Gateway::replace_by_force);
}

#[test]
fn a_restart_drops_no_wss_tunnel() {
    streams_go_on(wired_with(Sealed::Client, USUAL), 2, TIMES, Gateway::replace_in_order);
}

#[test]
fn an_upgrade_drops_no_wss_tunnel() {
    streams_go_on(wired_with(Sealed::Client, USUAL), 1, 1, |gateway| {
        let old = gateway.worker_pid();
        let outcome = upgrade_to(gateway, &executable(gateway, "9.9.9"));
        assert_eq!(outcome["outcome"], "done");
        eventually(Patience::USUAL, "another worker to serve", || {
            gateway.worker_pids().into_iter().find(|pid| *pid != old)
        })
    });
}

#[test]
fn tunnels_to_https_backends_outlive_their_workers() {
    streams_go_on(wired_with(Sealed::Backend, USUAL), 1, TIMES, Gateway::replace_by_force);
    streams_go_on(wired_with(Sealed::Backend, USUAL), 1, TIMES, Gateway::replace_in_order);
}

#[test]
fn tunnels_with_tls_on_both_sides_outlive_their_workers() {
    streams_go_on(wired_with(Sealed::Both, USUAL), 1, TIMES, Gateway::replace_by_force);
    streams_go_on(wired_with(Sealed::Both, USUAL), 1, TIMES, Gateway::replace_in_order);
}

#[test]
fn tls_1_2_is_as_good() {
    for sealed in LEGS {
        streams_go_on(wired_with(sealed, OLD), 1, TIMES / 2, Gateway::replace_by_force);
        streams_go_on(wired_with(sealed, OLD), 1, TIMES / 2, Gateway::replace_in_order);
    }
}

#[test]
pub(crate) fn peers_that_change_their_keys_and_send_records_in_pieces_lose_nothing() {
    streams_go_on(wired_with(Sealed::Both, RESTLESS), 1, TIMES, Gateway::replace_by_force);
    streams_go_on(wired_with(Sealed::Both, RESTLESS), 1, TIMES, Gateway::replace_in_order);
}

#[test]
fn a_wss_tunnel_is_counted_as_protected() {
    let (gateway, port, wires) = wired_with(Sealed::Client, USUAL);
    let mut tunnels: Vec<Wire> = (0..5).map(|_| wires.open(port)).collect();
    all_carry(&mut tunnels, "hello");
    gateway.protects(tunnels.len() as u64);
    assert_eq!(gateway.count("holdfast_tunnels_unprotected"), 0);
    gateway.replace_by_force();
    all_carry(&mut tunnels, "still here");
    gateway.protects(tunnels.len() as u64);
    gateway.holds_exactly(tunnels.len());
    gateway.has_lost_none();
}

/// Memory of the process that no core dump shows and that no file stands behind: whether there is any, in use or not,
/// and how much of it is in use, in KiB.
fn undumped(pid: u32) -> Option<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut is_anonymous, mut resident, mut sum) = (false, 0, None);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // Its range; four more words, and a name if it has one.
            Some(range) if range.contains('-') => is_anonymous = words.count() == 4,
            Some("Rss:") => resident = words.next().unwrap().parse().unwrap(),
            Some("VmFlags:") if is_anonymous && words.any(|flag| flag == "dd") => {
                sum = Some(sum.unwrap_or(0) + resident);
            }
            _ => {}
        }
    }
    sum
}

#[test]
fn keys_of_an_idle_tunnel_are_kept_by_no_process() {
    let (gateway, port, wires) = wired_with(Sealed::Both, USUAL);
    let in_use = || undumped(gateway.worker_pid()).expect("keys have a place of their own");
    assert_eq!(in_use(), 0);
    let mut tunnels: Vec<Wire> = (0..5).map(|_| wires.open(port)).collect();
    for text in ["first", "second"] {
        eventually(Patience::USUAL, "keys where they belong", || {
            all_carry(&mut tunnels, text);
            (in_use() > 0).then_some(())
        });
        eventually(Patience::USUAL, "keys to be gone", || (in_use() == 0).then_some(()));
    }
    all_carry(&mut tunnels, "third");
    gateway.has_lost_none();
}

#[test]
fn an_end_without_close_notify_is_told_as_one_whatever_dies_before() {
    let rude = Manner { rude: true, ..USUAL };
    let (gateway, port, wires) = wired_with(Sealed::Client, rude);
    let mut tunnel = wires.open(port);
    tunnel.carries("before").unwrap();
    gateway.replace_by_force();
    tunnel.carries("after").unwrap();
    let Wire { mut client, mut backend } = tunnel;
    finish(&client);
    assert_eq!(rest(&mut backend), (vec![], false));
    gateway.replace_by_force();
    backend.write_all(b"last words").unwrap();
    finish(&backend);
    assert_eq!(rest(&mut client), (b"last words".to_vec(), false));
    gateway.holds_exactly(0);
    gateway.says(&["tunnel ended", "cause=\"truncated\"", "bytes_in=11 bytes_out=21"]);
    gateway.has_lost_none();
}

#[test]
fn ends_and_resets_while_no_worker_lives_are_passed_on_by_the_next() {
    for sealed in LEGS {
        for manner in [USUAL, OLD] {
            ends_are_passed_on(wired_with(sealed, manner));
            resets_are_passed_on(wired_with(sealed, manner));
        }
    }
}

/// Both ends have ended while a reader still has most to hear.
#[test]
fn the_last_words_reach_a_slow_reader_who_has_ended() {
    for (sealed, client_first) in [
        (Sealed::Client, true),
        (Sealed::Client, false),
        (Sealed::Both, true),
        (Sealed::Both, false),
        (Sealed::Backend, true),
        (Sealed::Backend, false),
    ] {
        let (gateway, port, wires) = wired_with(sealed, USUAL);
        let [mut talker, mut listener] = wires.open(port).ends(client_first);
        let words = vec![b'w'; 3 << 20];
        talker.set_write_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        talker.write_all(&words).unwrap();
        finish(&talker);
        finish(&listener);
        assert_eq!(rest(&mut talker), (vec![], false));
        let (heard, was_reset) = rest(&mut listener);
        assert_eq!((heard.len(), was_reset), (words.len(), false), "{sealed:?} {client_first}");
        gateway.holds_exactly(0);
    }
}

#[test]
fn half_closed_tunnels_with_tls_go_on_through_kills_and_restarts() {
    for sealed in LEGS {
        half_closed_tunnels_go_on(wired_with(sealed, USUAL));
    }
}

#[test]
fn an_end_without_close_notify_while_no_worker_lives_is_told_by_the_next() {
    let rude = Manner { rude: true, ..USUAL };
    for client_first in [true, false] {
        let (gateway, port, wires) =
            wired_with(if client_first { Sealed::Client } else { Sealed::Backend }, rude);
        let [mut ending, mut other] = orphaned(&gateway, port, &wires).ends(client_first);
        ending.write_all(b"last words").unwrap();
        finish(&ending);
        resume(gateway.supervisor_pid());
        assert_eq!(rest(&mut other), (b"last words".to_vec(), false));
        finish(&other);
        assert_eq!(rest(&mut ending), (vec![], false));
        gateway.says(&["tunnel ended", "cause=\"truncated\""]);
        gateway.holds_exactly(0);
        gateway.has_lost_none();
    }
}

#[test]
fn tunnels_with_tls_that_have_moved_can_be_closed() {
    for sealed in LEGS {
        moved_tunnels_can_be_closed(wired_with(sealed, USUAL));
        a_stop_ends_moved_tunnels(wired_with(sealed, OLD));
    }
}

#[test]
fn sealed_tunnels_leave_a_predecessor_that_is_free_to_go() {
    let (gateway, port, wires) = wired_with(Sealed::Both, USUAL);
    let mut tunnels: Vec<Wire> = (0..5).map(|_| wires.open(port)).collect();
    let old = gateway.worker_pid();
    gateway.replace_in_order();
    assert!(!alive(old));
    all_carry(&mut tunnels, "still here");
    gateway.holds_exactly(tunnels.len());
    gateway.has_lost_none();
}
