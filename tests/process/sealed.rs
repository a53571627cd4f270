//! Tunnels with TLS on either side outlive the processes that serve them, as plain ones do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{
    Gateway, Manner, Patience, Sealed, Wire, alive, eventually, finish, kill9, pause, rest, resume,
    tools, upgrade_request,
};
use crate::survive::{
    a_stop_ends_moved_tunnels, all_carry, ends_are_passed_on, half_closed_tunnels_go_on,
    moved_tunnels_can_be_closed, orphaned, resets_are_passed_on, streams_go_on, wired_with,
};
use crate::upgrade::{executable, upgrade_to};

/// Kills, or restarts, that each set of streams has to bear.
const TIMES: u32 = 4;
const LEGS: [Sealed; 3] = [Sealed::Client, Sealed::Backend, Sealed::Both];
const USUAL: Manner = Manner { old: false, shreds: false, rekeys: false, rude: false };
const OLD: Manner = Manner { old: true, ..USUAL };
const RESTLESS: Manner = Manner { rekeys: true, shreds: true, ..USUAL };

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

/// OpenSSL's `s_client`, and all that it has said.
struct OpenSsl {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl OpenSsl {
    fn connect(port: u16) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-servername", "localhost", "-connect"])
            .arg(format!("127.0.0.1:{port}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut pipe in pipes {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            });
        }
        Self { child, said }
    }

    /// Gives it a line, which is a command if it begins like one, and waits until it has said `answer` since.
    fn says(&mut self, line: &str, answer: &str) {
        let before = self.said.lock().unwrap().len();
        self.gives(line);
        eventually(Patience::USUAL, &format!("{answer:?} after {line:?}"), || {
            self.said.lock().unwrap()[before..].contains(answer).then_some(())
        });
    }

    /// Gives it a line. Nothing may follow before it has said something of it: two lines that it reads at once are one.
    fn gives(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Waits for words that it says once.
    fn hears(&self, words: &str) {
        eventually(Patience::USUAL, &format!("{words:?}"), || {
            self.said.lock().unwrap().contains(words).then_some(())
        });
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            println!("--- openssl s_client ---\n{}", self.said.lock().unwrap());
        }
    }
}

fn echo(stream: &TcpStream) {
    let [mut from, mut to] = [(); 2].map(|()| stream.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
}

#[test]
fn openssl_changes_its_keys_while_workers_are_killed() {
    if tools("openssl s_client").is_none() {
        return;
    }
    let (gateway, port, wires) = wired_with(Sealed::Client, USUAL);
    let mut client = OpenSsl::connect(port);
    client.says("", "Verify return code");
    client.says(&upgrade_request("/wire/openssl", "localhost"), "101 Switching Protocols");
    echo(&wires.backend_of("/wire/openssl"));
    for round in 0..3 {
        client.says(&format!("line {round}\n"), &format!("line {round}\n"));
        // For both directions; for its own.
        client.says("K\n", "KEYUPDATE");
        gateway.replace_by_force();
        client.says(&format!("more {round}\n"), &format!("more {round}\n"));
        client.says("k\n", "KEYUPDATE");
        client.says(&format!("last {round}\n"), &format!("last {round}\n"));
        gateway.replace_in_order();
    }
    // Updates that are on their way to nobody: the worker that was to answer is stopped, and killed before it looks; or
    // there is none at all. What follows comes under the new keys.
    for (first, second) in [("K", "k"), ("k", "K")] {
        let worker = gateway.worker_pid();
        pause(worker);
        client.says(&format!("{first}\n"), "KEYUPDATE");
        client.gives(&format!("held up {first}\n"));
        kill9(worker);
        client.hears(&format!("held up {first}\n"));
        let worker = gateway.worker_pid();
        pause(gateway.supervisor_pid());
        kill9(worker);
        eventually(Patience::USUAL, "the worker to be gone", || (!alive(worker)).then_some(()));
        for command in [first, second, first] {
            client.says(&format!("{command}\n"), "KEYUPDATE");
        }
        client.gives(&format!("orphaned {first}\n"));
        resume(gateway.supervisor_pid());
        client.hears(&format!("orphaned {first}\n"));
    }
    // What it ends with is a close_notify, and so it is told.
    client.child.stdin.as_mut().unwrap().write_all(b"Q\n").unwrap();
    gateway.holds_exactly(0);
    gateway.says(&["tunnel ended", "cause=\"client\"", "bytes_in=105 bytes_out=105"]);
    gateway.has_lost_none();
}
