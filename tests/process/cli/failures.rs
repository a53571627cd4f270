//! What a person and a script are told when something is wrong: what happened, what still runs, what to do. With `--json`
//! the same stands on standard output, as JSON.

use std::fs::{self, Permissions, set_permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::unistd::Uid;
use serde_json::Value;
use tempfile::TempDir;

use super::answers::{NOBODY, fails, gateway};
use crate::harness::{
    Backend, Disk, Document, Gateway, HOLDFAST, Patience, alive, directory, eventually, free_port,
    get, kill9, pause, resume, words,
};

fn run(arguments: &[&str]) -> Output {
    Command::new(HOLDFAST).args(arguments).output().unwrap()
}

/// The kind of a failure, whose words are the same on standard error.
fn kind(output: &Output) -> String {
    let said = words(output);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let message = told["error"]["message"].as_str().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!message.is_empty() && errors.contains(message), "{message:?} is not in: {errors}");
    told["error"]["kind"].as_str().unwrap().to_owned()
}

#[test]
fn a_stopped_supervisor_is_told_of_soon_and_hears_of_nothing_later() {
    let (gateway, mut socket, backend) = gateway();
    let (worker, supervisor) = (gateway.worker_pid(), gateway.supervisor_pid());
    let document = Document::simple(free_port(), &[backend.address]);
    gateway.write("other.json", &document.text());
    let target = format!("chat/{}", backend.address);
    pause(supervisor);
    let mend = format!("`kill -CONT {supervisor}`");
    let still = format!("worker {worker} of 127.0.0.1");
    let says = ["is stopped", "Nothing was asked or changed", &still, "serves as before", &mend];
    for command in [&["status"][..], &["drain", &target], &["apply", "other.json"]] {
        fails(&gateway.cli(command), 1, &says);
    }
    assert_eq!(kind(&gateway.cli(&["health", "--json"])), "no_answer");
    assert!(socket.echoes("meanwhile"));
    assert!(alive(worker));
    resume(supervisor);
    assert_eq!(gateway.revision(), 1);
    let health = gateway.health_of(&backend.address.ip().to_string());
    assert_eq!(health, "Healthy", "a drain came late");
}

/// Longer than any other test here: nobody is given up before two pings are due.
#[test]
fn who_waits_for_a_supervisor_that_stops_meanwhile_is_let_go_of() {
    let (gateway, _socket, backend) = gateway();
    let worker = gateway.worker_pid();
    let target = format!("chat/{}", backend.address);
    let waiting = gateway.begin_cli(&["drain", &target, "--wait"]);
    let address = backend.address.ip().to_string();
    eventually(Patience::USUAL, "the backend to be drained", || {
        (gateway.health_of(&address) == "Draining").then_some(())
    });
    pause(gateway.supervisor_pid());
    let output = waiting.wait_with_output().unwrap();
    let says = ["fell silent", "is not known", "workers serve on", "holdfast status"];
    fails(&output, 1, &says);
    assert!(alive(worker));
    resume(gateway.supervisor_pid());
    gateway.must(&["undrain", &target]);
}

#[test]
fn who_asks_for_json_gets_json_whatever_goes_wrong() {
    let (gateway, _socket, _backend) = gateway();
    gateway.write("broken.json", "{ nothing");
    let output = run(&["status", "--json", "--admin", "unix:/tmp/holdfast-none.sock"]);
    assert_eq!((output.status.code(), kind(&output).as_str()), (Some(1), "no_gateway"));
    for (command, code, expected) in [
        (&["rollback", "99"][..], 1, "refused"),
        (&["drain", "none/10.0.0.4"], 1, "refused"),
        (&["log-level", "loud"], 1, "refused"),
        (&["apply", "nowhere.json"], 1, "unreadable"),
        (&["validate", "/"], 1, "unreadable"),
        (&["explain", "http://127.0.0.1:9/"], 1, "failed"),
        (&["status", "--jsn"], 2, "usage"),
        (&["statsu"], 2, "usage"),
    ] {
        let output = gateway.cli(&[command, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", words(&output));
        assert_eq!(kind(&output), expected, "{command:?}");
    }
    let url = "http://127.0.0.1/";
    let output = gateway.cli(&["explain", url, "--config", "broken.json", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["error"]["kind"], "invalid");
    assert_eq!(told["error"]["diagnostics"][0]["line"], 1);
    let output = gateway.cli(&["apply", "broken.json", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["accepted"]), (Some(1), &false.into()));
    let supervisor = gateway.supervisor_pid();
    kill9(supervisor);
    eventually(Patience::USUAL, "the supervisor's end", || gateway.has_ended().then_some(()));
    assert_eq!(kind(&gateway.cli(&["stop", "--json"])), "supervisor_gone");
}

/// `holdfast run` on these directories, which is to fail.
fn start(command: &mut Command, config: &Path, runtime: &Path, state: &Path) -> Output {
    run_on(command, config, runtime, state).output().unwrap()
}

fn run_on<'a>(
    command: &'a mut Command,
    config: &Path,
    runtime: &Path,
    state: &Path,
) -> &'a mut Command {
    command
        .args(["run".as_ref(), "--config".as_ref(), config.as_os_str()])
        .args(["--runtime-dir".as_ref(), runtime.as_os_str()])
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--status-listen", &format!("127.0.0.1:{}", free_port())])
}

#[test]
fn a_start_that_fails_says_what_runs_and_what_to_do() {
    let home = directory();
    let path = |name: &str| home.path().join(name);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let document = Document::simple(port, &["127.0.0.2:9".parse().unwrap()]);
    fs::write(path("taken.json"), document.text()).unwrap();
    fs::write(path("broken.json"), "{ nothing").unwrap();
    fs::write(path("latin.json"), b"{ \"name\": \"\xe9\" }").unwrap();
    let deep = path(&"x".repeat(100));
    for (config, runtime, says) in [
        ("nowhere.json", path("r"), &["cannot read", "No such file", "put the document there"][..]),
        ("latin.json", path("r"), &["cannot read", "UTF-8", "save it as UTF-8 text"]),
        ("broken.json", path("r"), &["broken.json:1:", "holdfast validate"]),
        ("taken.json", path("r"), &["cannot listen on", "Address already in use", "ss -ltnp"]),
        ("taken.json", deep, &["bytes long", "give a shorter --runtime-dir"]),
        ("taken.json", path("broken.json"), &["cannot create the directory"]),
    ] {
        let mut command = Command::new(HOLDFAST);
        let output = start(&mut command, &path(config), &runtime, &path("s"));
        fails(&output, 1, &[says, &["No gateway was started"]].concat());
    }
}

/// Whom a start has begun with may just be being born when it fails.
#[test]
fn a_start_that_fails_leaves_nobody_behind() {
    let home = directory();
    let path = |name: &str| home.path().join(name);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let document = Document::simple(port, &["127.0.0.2:9".parse().unwrap()]);
    fs::write(path("gateway.json"), document.text()).unwrap();
    for _ in 0..30 {
        let mut command = Command::new(HOLDFAST);
        run_on(&mut command, &path("gateway.json"), &path("r"), &path("s"));
        // Not to its end of file: whoever is left would hold that up.
        let status = command.stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(1));
        // There is no list where nobody was begun with.
        let listed = fs::read_to_string(path("r/children")).unwrap_or_default();
        assert_eq!(listed, "", "is left");
    }
}

#[test]
fn a_next_start_that_lacks_one_address_starts_no_worker_for_the_others() {
    let (first, second) = (free_port(), free_port());
    let document = Document::simple(first, &["127.0.0.2:9".parse().unwrap()]);
    let gateway = Gateway::start(&document.host_site("other", second, "other.example", "chat"));
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the gateway's end", || gateway.has_ended().then_some(()));
    let last = first.max(second);
    let _taken = TcpListener::bind(("127.0.0.1", last)).unwrap();
    for _ in 0..10 {
        gateway.start_in_vain();
        let listed = fs::read_to_string(gateway.path().join("r/children")).unwrap();
        assert_eq!(listed, "", "is left");
    }
    assert!(gateway.log().contains(&format!("cannot listen on 127.0.0.1:{last}")));
}

#[test]
fn a_second_start_leaves_the_first_gateway_as_it_is_and_says_so() {
    let (gateway, mut socket, _backend) = gateway();
    let path = |name: &str| gateway.path().join(name);
    let start = |runtime, state| {
        start(&mut Command::new(HOLDFAST), &path("gateway.json"), &path(runtime), &path(state))
    };
    let first = format!("in use by the gateway with pid {}", gateway.supervisor_pid());
    let says = [first.as_str(), "--runtime-dir", "runs as before", "holdfast upgrade"];
    fails(&start("r", "s"), 1, &says);
    fails(&start("r2", "s"), 1, &["in use by another gateway", "--state-dir"]);
    assert!(socket.echoes("untouched"));
    assert_eq!(gateway.revision(), 1);
}

/// The executable, for a user who owns nothing, or at least for one who may not do everything.
fn powerless(home: &TempDir) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(HOLDFAST);
    }
    set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let executable = home.path().join("holdfast");
    if !executable.exists() {
        fs::copy(HOLDFAST, &executable).unwrap();
    }
    let mut command = Command::new(executable);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command
}

#[test]
fn a_missing_permission_is_told_with_who_has_it() {
    let home = directory();
    let (file, locked) = (home.path().join("gateway.json"), home.path().join("locked"));
    fs::write(&file, "{}").unwrap();
    set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(&locked).unwrap();
    set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
    let output = powerless(&home).arg("validate").arg(&file).output().unwrap();
    let says = ["Permission denied", "belongs to", "and you are", "Nothing was changed"];
    fails(&output, 1, &says);
    let runtime = locked.join("r");
    let output = start(&mut powerless(&home), &file, &runtime, &locked.join("s"));
    fails(&output, 1, &["cannot create the directory", "Permission denied", "--runtime-dir"]);
    set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_full_disk_keeps_changes_out_and_nothing_else() {
    let (home, port) = (directory(), free_port());
    let backends = Backend::group(&["one", "two"]);
    let Some(disk) = Disk::mount(&home.path().join("s"), 256, "a full disk and a rollback") else {
        return;
    };
    let gateway = Gateway::start_in(home, &Document::simple(port, &[backends[0].address]));
    gateway.apply(&Document::simple(port, &[backends[1].address]));
    disk.fill();
    let says =
        ["No space left", "make room on that disk", "Nothing was changed", "serves as before"];
    let target = format!("chat/{}", backends[1].address);
    for command in [&["rollback", "1"][..], &["drain", &target]] {
        fails(&gateway.cli(command), 1, &says);
    }
    let output = gateway.cli(&["rollback", "1", "--json"]);
    assert_eq!(kind(&output), "refused");
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    gateway.must(&["restart"]);
    assert_eq!(gateway.revision(), 2);
    disk.clear();
    gateway.must(&["rollback", "1"]);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
}

#[test]
fn a_state_directory_that_nobody_may_write_to_keeps_changes_out_and_nothing_else() {
    let (home, port) = (directory(), free_port());
    let backends = Backend::group(&["one", "two"]);
    let state = home.path().join("s");
    let Some(disk) = Disk::mount(&state, 256, "a read-only state directory") else { return };
    let gateway = Gateway::start_in(home, &Document::simple(port, &[backends[0].address]));
    let other = gateway.write("other.json", &Document::simple(port, &[backends[1].address]).text());
    let other = other.to_str().unwrap();
    disk.freeze();
    let target = format!("chat/{}", backends[0].address);
    for command in [&["apply", other][..], &["drain", &target]] {
        let says =
            ["Read-only file system", "mount that file system writable", "Nothing was changed"];
        fails(&gateway.cli(command), 1, &says);
    }
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    gateway.must(&["restart"]);
    assert_eq!(gateway.revision(), 1);
    disk.thaw();
    gateway.must(&["apply", other]);
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
}

#[test]
fn a_start_on_a_full_or_a_read_only_disk_says_which() {
    let home = directory();
    let path = |name: &str| home.path().join(name);
    let Some(disk) = Disk::mount(&path("s"), 64, "a start on a full disk") else { return };
    let document = Document::simple(free_port(), &["127.0.0.2:9".parse().unwrap()]);
    fs::write(path("gateway.json"), document.text()).unwrap();
    let start =
        || start(&mut Command::new(HOLDFAST), &path("gateway.json"), &path("r"), &path("s"));
    disk.fill();
    let says = ["No space left", "make room on that disk", "No gateway was started"];
    fails(&start(), 1, &says);
    disk.clear();
    disk.freeze();
    let says = ["Read-only file system", "mount that file system writable", "No gateway was"];
    fails(&start(), 1, &says);
}

#[test]
fn a_reload_of_a_file_that_is_gone_or_no_text_changes_nothing() {
    let (gateway, mut socket, _backend) = gateway();
    let file = gateway.path().join("gateway.json");
    let unchanged = ["Nothing was changed", "serves as before"];
    fs::write(&file, b"\xff").unwrap();
    fails(&gateway.cli(&["reload"]), 1, &[&["save it as UTF-8 text"], &unchanged[..]].concat());
    fs::remove_file(&file).unwrap();
    let says = ["cannot read", "No such file", "put the document there"];
    fails(&gateway.cli(&["reload"]), 1, &[&says[..], &unchanged[..]].concat());
    assert!(socket.echoes("untouched"));
    assert_eq!(gateway.revision(), 1);
}

#[test]
fn a_reload_that_cannot_be_noted_is_no_refusal() {
    let backends = Backend::group(&["one", "two"]);
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &[backends[0].address]));
    gateway.write("gateway.json", &Document::simple(port, &[backends[1].address]).text());
    // What is to be replaced by a file is something that cannot be.
    let note = gateway.path().join("s/file.json");
    fs::remove_file(&note).unwrap();
    fs::create_dir_all(note.join("in the way")).unwrap();
    let said = gateway.must(&["reload"]);
    assert!(said.contains("revision 2 is in force"), "{said}");
    assert!(said.contains("cannot be written down"), "{said}");
    assert_eq!(gateway.revision(), 2);
    assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    fs::remove_dir_all(&note).unwrap();
    let said = gateway.must(&["reload"]);
    assert!(said.contains("nothing to change"), "{said}");
}

#[test]
fn an_upgrade_to_nothing_that_fits_says_what_serves_on() {
    let (gateway, mut socket, _backend) = gateway();
    let version = gateway.status()["version"].as_str().unwrap().to_owned();
    let serves = format!("version {version} serves on");
    for (binary, reason) in [("/nonexistent", "No such file"), ("/bin/true", "is no Holdfast")] {
        let output = gateway.cli(&["upgrade", "--binary", binary]);
        fails(&output, 1, &[reason, "nothing was changed", &serves, "--binary"]);
    }
    assert!(socket.echoes("untouched"));
}
