//! `holdfast demo`, as a newcomer meets it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{HOLDFAST, Patience, WebSocket, directory, eventually, free_port, get, words};

/// A running demo; it ends with this value, in order.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT).ok();
        eventually(Patience::LONG, "the demo to end", || self.0.try_wait().unwrap());
    }
}

#[test]
fn the_demo_serves_a_chat_page_and_echo_and_explains_itself() {
    let directory = directory();
    let [port, secure, status] = [(); 3].map(|()| free_port());
    let ports = [
        format!("--http-port={port}"),
        format!("--https-port={secure}"),
        format!("--status-listen=127.0.0.1:{status}"),
    ];
    let demo = || {
        let mut command = Command::new(HOLDFAST);
        command.arg("demo").args(&ports).env("XDG_RUNTIME_DIR", directory.path());
        command.env("XDG_STATE_HOME", directory.path()).env("TMPDIR", directory.path());
        command.env_remove("HOLDFAST_ADMIN").env_remove("RUNTIME_DIRECTORY");
        command
    };
    let mut child = demo().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _demo = Demo(child);
    let said = lines.by_ref().map_while(Result::ok).find(|line| line.contains("restart"));
    assert!(said.is_some(), "the demo does not say what to try");
    let page = eventually(Patience::LONG, "the chat page", || {
        get(port, "/").ok().filter(|answer| answer.status == 200)
    });
    assert!(page.text().contains("WebSocket"));
    assert!(WebSocket::open(port, "/echo").echoes("hello"));
    let second = demo().output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", words(&second));
}
