//! TLS peers that change their keys and ask for ours, as often as they like.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{
    Gateway, Manner, Patience, Sealed, Wire, Wires, alive, eventually, finish, kill9, pause, rest,
    resume, tools, upgrade_request,
};
use crate::survive::wired_with;

/// Peers that ask a hundred times in a row. They hold their sessions by rustls, which takes no more than 32 key updates
/// without a byte of data in between.
const GREEDY: Manner = Manner { old: false, shreds: false, rekeys: 100, rude: false };
/// Things that one end says: several times it asks for keys behind one of them.
const WORDS: usize = 12;

/// One end speaks and the other one does not.
fn speak(mut from: &TcpStream, mut to: &TcpStream) {
    for word in 0..WORDS {
        let word = format!("word {word};");
        from.write_all(word.as_bytes()).unwrap();
        let mut heard = vec![0; word.len()];
        to.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), word);
    }
}

#[test]
fn who_asks_for_keys_hundreds_of_times_and_hears_nothing_meanwhile_hears_what_comes_then() {
    for sealed in [Sealed::Client, Sealed::Backend, Sealed::Both] {
        let (gateway, port, wires) = wired_with(sealed, GREEDY);
        let tunnel = wires.open(port);
        let Wire { client, backend } = &tunnel;
        let replacements = [|_: &Gateway| 0, Gateway::replace_by_force, Gateway::replace_in_order];
        for replace in replacements {
            for (talker, listener) in [(client, backend), (backend, client)] {
                speak(talker, listener);
                // Whoever comes then owes the answer.
                replace(&gateway);
            }
        }
        // An end is none of data: it needs no answer ahead of it.
        speak(client, backend);
        let Wire { mut client, mut backend } = tunnel;
        finish(&backend);
        assert_eq!(rest(&mut client), (vec![], false), "{sealed:?}");
        finish(&client);
        assert_eq!(rest(&mut backend), (vec![], false), "{sealed:?}");
        gateway.holds_exactly(0);
        gateway.says(&["tunnel ended", "cause=\"backend\""]);
        gateway.has_lost_none();
    }
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

/// A gateway, and a tunnel of OpenSSL's whose backend says again what it hears.
fn echoed() -> (Gateway, Wires, OpenSsl) {
    let (gateway, port, wires) = wired_with(Sealed::Client, Manner::default());
    let mut client = OpenSsl::connect(port);
    client.says("", "Verify return code");
    client.says(&upgrade_request("/wire/openssl", "localhost"), "101 Switching Protocols");
    let backend = wires.backend_of("/wire/openssl");
    let [mut from, mut to] = [(); 2].map(|()| backend.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    (gateway, wires, client)
}

#[test]
fn openssl_changes_its_keys_while_workers_are_killed() {
    if tools("openssl s_client").is_none() {
        return;
    }
    let (gateway, _wires, mut client) = echoed();
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

#[test]
fn openssl_asks_for_keys_a_hundred_times_while_nobody_speaks_and_is_echoed() {
    if tools("openssl s_client").is_none() {
        return;
    }
    let (gateway, _wires, mut client) = echoed();
    for (round, asks_after) in [0, 40, 100].into_iter().enumerate() {
        for _ in asks_after..100 {
            client.says("K\n", "KEYUPDATE");
        }
        if asks_after > 0 {
            gateway.replace_by_force();
        }
        for _ in 0..asks_after {
            client.says("K\n", "KEYUPDATE");
        }
        client.says(&format!("line {round}\n"), &format!("line {round}\n"));
    }
    client.child.stdin.as_mut().unwrap().write_all(b"Q\n").unwrap();
    gateway.holds_exactly(0);
    gateway.says(&["tunnel ended", "cause=\"client\"", "bytes_in=21 bytes_out=21"]);
    gateway.has_lost_none();
}
