//! Commands as they meet terminals, pipes that nobody reads, and Ctrl-C.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;

use super::answers::gateway;
use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, eventually, free_port, signal, words,
};

/// What stands on a terminal of so many columns after a command, line by line. Nothing: there is no `script` here.
fn on_terminal(
    gateway: &Gateway,
    columns: u32,
    command: &str,
    no_color: &str,
) -> Option<Vec<String>> {
    let line = format!("stty cols {columns} rows 50 && exec {HOLDFAST} {command}");
    let output = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("HOLDFAST_ADMIN", gateway.admin())
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color)
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        println!("LEFT OUT: terminals (needs script(1))");
        return None;
    };
    assert!(output.status.success(), "{command}: {}", words(&output));
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    Some(text.lines().map(str::to_owned).collect())
}

/// A line as it is seen: without the sequences that set colours.
fn seen(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |seen, part| seen + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn a_narrow_terminal_gets_lines_that_fit_and_colours_that_it_may_refuse() {
    let (gateway, _socket, _backend) = gateway();
    eventually(Patience::USUAL, "a tunnel", || (gateway.tunnels().len() == 1).then_some(()));
    for command in ["status", "health", "tunnels", "revisions", "--help"] {
        for columns in [40, 80] {
            let Some(lines) = on_terminal(&gateway, columns, command, "") else { return };
            assert!(lines.len() > 1, "{command}: {lines:?}");
            for line in &lines {
                let length = seen(line).chars().count();
                assert!(length <= columns as usize, "{command}: {length} characters: {line:?}");
            }
            let plain = on_terminal(&gateway, columns, command, "1").unwrap();
            assert!(!plain.concat().contains('\u{1b}'), "{command}: {plain:?}");
        }
    }
    let coloured = on_terminal(&gateway, 80, "health", "").unwrap().concat();
    assert!(coloured.contains("\u{1b}[32mHealthy\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn a_reader_that_has_gone_away_is_nobodys_mistake() {
    let (gateway, _socket, _backend) = gateway();
    let url = "http://127.0.0.1/";
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--watch"],
        &["health"],
        &["tunnels"],
        &["config"],
        &["revisions"],
        &["restart"],
        &["validate", "gateway.json"],
        &["explain", url, "--config", "gateway.json", "--listener", &listener(&gateway)],
        &["schema"],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(HOLDFAST)
            .args(command)
            .env("HOLDFAST_ADMIN", gateway.admin())
            .current_dir(gateway.path())
            .stdout(writer)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", words(&output));
        assert_eq!(words(&output), "", "{command:?}");
    }
}

fn listener(gateway: &Gateway) -> String {
    gateway.status()["listeners"][0]["address"].as_str().unwrap().to_owned()
}

/// Presses Ctrl-C and waits for the end.
fn interrupt(command: Child) -> Output {
    signal(command.id(), Signal::SIGINT);
    command.wait_with_output().unwrap()
}

#[test]
fn who_watches_leaves_by_ctrl_c_without_a_word() {
    let (gateway, _socket, _backend) = gateway();
    for command in ["status", "health", "tunnels"] {
        let mut watching = gateway.begin_cli(&[command, "--watch", "--json"]);
        let mut first = String::new();
        BufReader::new(watching.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'), "{command}: {first:?}");
        let output = interrupt(watching);
        // What a shell tells as 130.
        assert_eq!(output.status.signal(), Some(2), "{command}: {}", words(&output));
        assert_eq!(words(&output), "", "{command}");
    }
}

#[test]
fn who_no_longer_waits_for_a_drain_is_told_what_stays() {
    let (gateway, mut socket, backend) = gateway();
    let target = format!("chat/{}", backend.address);
    let waiting = gateway.begin_cli(&["drain", &target, "--wait"]);
    let address = backend.address.ip().to_string();
    eventually(Patience::USUAL, "the backend to be drained", || {
        (gateway.health_of(&address) == "Draining").then_some(())
    });
    let output = interrupt(waiting);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    for part in ["interrupted", "gets no new connections", "its tunnels live on", "undrain"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(socket.echoes("still here"));
    gateway.must(&["undrain", &target]);
}

#[test]
fn an_upgrade_tells_each_worker_that_is_replaced() {
    let backend = Backend::start("one");
    let ports = [free_port(), free_port()];
    let document = Document::simple(ports[0], &[backend.address]).site("more", ports[1], "chat");
    let gateway = Gateway::start(&document);
    let mut sockets = ports.map(|port| WebSocket::open(port, "/echo"));
    let before = gateway.worker_pids();
    let output = gateway.cli(&["upgrade", "--binary", HOLDFAST]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for (place, part) in ["1 of 2: 127.0.0.1:", "2 of 2: 127.0.0.1:"].iter().enumerate() {
        let lines: Vec<_> = told.lines().filter(|line| line.starts_with(part)).collect();
        assert_eq!(lines.len(), 1, "line {place} in: {told}");
        let known = before.iter().any(|pid| lines[0].ends_with(&format!("taken over from {pid}")));
        assert!(known, "{before:?}: {told}");
    }
    assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
}
