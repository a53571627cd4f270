//! What a person is told when something is wrong: what happened, what still runs, what to do.

use std::fs::{File, Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use nix::unistd::Uid;

use crate::harness::{
    Backend, Disk, Document, Gateway, HOLDFAST, Patience, WebSocket, alive, directory, eventually,
    free_port, kill9, words,
};

/// The user that owns nothing.
pub(super) const NOBODY: u32 = 65534;

pub(super) fn gateway() -> (Gateway, WebSocket, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backend.address]));
    let socket = WebSocket::open(port, "/echo");
    (gateway, socket, backend)
}

pub(super) fn fails(output: &Output, code: i32, says: &[&str]) {
    let said = words(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in says {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

#[test]
fn a_wrong_word_gets_the_right_one_named() {
    let run = |arguments: &[&str]| Command::new(HOLDFAST).args(arguments).output().unwrap();
    let nothing = "Nothing was done: whatever runs goes on as before";
    fails(&run(&["statsu"]), 2, &["'status'", nothing]);
    fails(&run(&["status", "--jsn"]), 2, &["'--json'", nothing]);
    fails(&run(&["tunnels", "--min_age", "5m"]), 2, &["'--min-age'"]);
    fails(&run(&["tunnels", "--min-age", "soon"]), 2, &["90s, 5m, 12h or 3d"]);
    fails(&run(&["completions", "bsh"]), 2, &["'bash'"]);
}

#[test]
fn a_dead_supervisor_is_told_with_what_still_serves() {
    let (gateway, mut socket, _backend) = gateway();
    let worker = gateway.worker_pid();
    let supervisor = gateway.supervisor_pid();
    kill9(supervisor);
    eventually(Patience::USUAL, "the supervisor's end", || gateway.has_ended().then_some(()));
    let still = format!("worker {worker} of 127.0.0.1");
    for command in [&["status"][..], &["apply", "gateway.json"], &["tunnels", "--watch"]] {
        let says = ["supervisor has ended", &still, "serves as before", "holdfast run"];
        fails(&gateway.cli(command), 1, &says);
    }
    assert!(alive(worker));
    assert!(socket.echoes("through it all"));
    gateway.start_again();
    assert_eq!(gateway.worker_pid(), worker);
    assert!(socket.echoes("and adopted"));
}

#[test]
fn a_gateway_that_may_not_be_asked_is_told_with_whom_it_belongs_to() {
    let (gateway, mut socket, _backend) = gateway();
    let runtime = gateway.path().join("r");
    let says = ["you may not open", "belongs to", "Nothing was asked or changed", "sudo -u"];
    if Uid::effective().is_root() {
        // An executable that everybody may execute, wherever the tests' own stands.
        let place = directory();
        set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let executable = place.path().join("holdfast");
        std::fs::copy(HOLDFAST, &executable).unwrap();
        let admin = format!("unix:{}", runtime.join("admin.sock").display());
        let mut command = Command::new(executable);
        command.args(["stop", "--admin", &admin]).current_dir("/").uid(NOBODY).gid(NOBODY);
        fails(&command.output().unwrap(), 1, &says);
    } else {
        set_permissions(&runtime, Permissions::from_mode(0o0)).unwrap();
        let output = gateway.cli(&["stop"]);
        set_permissions(&runtime, Permissions::from_mode(0o700)).unwrap();
        fails(&output, 1, &says);
    }
    assert!(socket.echoes("untouched"));
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_named() {
    let (gateway, mut socket, _backend) = gateway();
    gateway.write("broken.json", "{ \"name\": ");
    for (file, says) in [
        ("nowhere.json", &["cannot read nowhere.json", "No such file", "Nothing was changed"][..]),
        ("/", &["cannot read /", "Is a directory", "Nothing was changed"]),
        ("broken.json", &["broken.json:1:", "refused; revision 1 stays in force"]),
        ("/bin/sh", &["is not UTF-8 text"]),
    ] {
        fails(&gateway.cli(&["apply", file]), 1, says);
    }
    assert!(socket.echoes("untouched"));
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_full_disk_is_told_whether_it_is_the_readers_or_the_gateways() {
    let (home, port) = (directory(), free_port());
    let backends = Backend::group(&["one", "two"]);
    let disk = Disk::mount(&home.path().join("s"), 256, "a full disk");
    let gateway = Gateway::start_in(home, &Document::simple(port, &[backends[0].address]));
    let mut socket = WebSocket::open(port, "/echo");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(HOLDFAST)
        .args(["config", "--admin"])
        .arg(format!("unix:{}", gateway.path().join("r/admin.sock").display()))
        .stdout(full)
        .output()
        .unwrap();
    fails(&output, 1, &["No space left", "no room where the output goes", "holdfast status"]);
    if let Some(disk) = disk {
        disk.fill();
        let more = Document::simple(port, &[backends[1].address]);
        let file = gateway.write("more.json", &more.text());
        let output = gateway.cli(&["apply", file.to_str().unwrap()]);
        let says = ["No space left", "make room on that disk", "Nothing was changed"];
        fails(&output, 1, &says);
        let target = format!("chat/{}", backends[0].address);
        fails(&gateway.cli(&["drain", &target]), 1, &says);
        assert_eq!(gateway.revision(), 1);
        disk.clear();
        gateway.must(&["apply", file.to_str().unwrap()]);
    }
    assert!(socket.echoes("untouched"));
}

#[test]
fn what_is_not_a_terminal_gets_no_colours() {
    let (gateway, _socket, _backend) = gateway();
    for command in [&["status"][..], &["health"], &["tunnels"], &["revisions"], &["--help"]] {
        let output = gateway.cli(command);
        assert!(output.status.success(), "{}", words(&output));
        assert!(!words(&output).contains('\u{1b}'), "{command:?}");
    }
}
