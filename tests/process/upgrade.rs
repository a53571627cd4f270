//! Another executable in the supervisor's place: what clients and operators notice of it, which is nothing.
//!
//! What happens when the new one fails after it has taken over needs a build with the feature `failpoints`
//! (`docs/testing.md`).

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{
    Backend, Demo, Document, Gateway, HOLDFAST, Patience, WebSocket, alive, eventually, free_port,
    get, scale, words,
};

/// A part of every executable; the version stands behind it.
const STAMP: &str = "holdfast version ";

fn one_gateway() -> (Gateway, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    (Gateway::start(&Document::simple(port, &[backend.address])), port, backend)
}

/// An executable of another version (as long as the present one) beside the gateway's configuration.
pub(crate) fn executable(gateway: &Gateway, version: &str) -> PathBuf {
    let asked = Command::new(HOLDFAST).arg("--version").output().unwrap();
    let asked = String::from_utf8(asked.stdout).unwrap();
    let now = asked.trim().strip_prefix("holdfast ").unwrap();
    assert_eq!(now.len(), version.len(), "the version is overwritten in its place");
    let path = gateway.path().join(version);
    let edit = format!("s/{STAMP}{now}/{STAMP}{version}/g");
    let sed = Command::new("sed")
        .env("LC_ALL", "C")
        .arg(edit)
        .stdin(fs::File::open(HOLDFAST).unwrap())
        .stdout(Stdio::from(fs::File::create(&path).unwrap()))
        .status();
    assert!(sed.unwrap().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub(crate) fn upgrade_to(gateway: &Gateway, binary: &Path) -> Value {
    let said = gateway.must(&["upgrade", "--json", "--binary", binary.to_str().unwrap()]);
    serde_json::from_str(&said).unwrap()
}

/// Does something over and over on threads of its own; every time must succeed.
struct Busy {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u32>>,
}

impl Busy {
    fn with<T: Send + 'static>(
        all: impl IntoIterator<Item = T>,
        act: impl Fn(&mut T) + Send + Clone + 'static,
    ) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let start = |mut one: T| {
            let (done, act) = (Arc::clone(&done), act.clone());
            thread::spawn(move || {
                let mut times = 0;
                while !done.load(Ordering::SeqCst) {
                    act(&mut one);
                    times += 1;
                }
                times
            })
        };
        let threads = all.into_iter().map(start).collect();
        Self { done, threads }
    }

    fn echoing(sockets: Vec<WebSocket>) -> Self {
        Self::with(sockets, |socket| assert!(socket.echoes("still here"), "a socket was dropped"))
    }

    /// Ends it; each thread has succeeded many times.
    fn end(self) {
        self.done.store(true, Ordering::SeqCst);
        for thread in self.threads {
            assert!(thread.join().unwrap() > 0);
        }
    }
}

#[test]
fn websockets_outlive_an_upgrade_and_the_new_version_is_shown_under_the_same_pid() {
    let (gateway, port, _backend) = one_gateway();
    let (supervisor, worker) = (gateway.supervisor_pid(), gateway.worker_pid());
    let new = executable(&gateway, "9.9.9");
    let busy = Busy::echoing((0..20).map(|_| WebSocket::open(port, "/echo")).collect());
    let outcome = upgrade_to(&gateway, &new);
    assert_eq!((&outcome["outcome"], &outcome["to"]), (&"done".into(), &"9.9.9".into()));
    assert_eq!(outcome["replaced"][0]["listener"], format!("127.0.0.1:{port}"));
    assert_eq!(outcome["replaced"][0]["old_pid"], worker);
    let status = gateway.status();
    assert_eq!(status["supervisor"]["pid"], supervisor);
    assert_eq!(status["version"], "9.9.9");
    assert_eq!(status["problems"], serde_json::json!([]));
    eventually(Patience::USUAL, "the old worker to leave and the prober to be new", || {
        let status = gateway.status();
        let workers = status["listeners"][0]["workers"].as_array().unwrap().clone();
        (workers.len() == 1
            && workers[0]["version"] == "9.9.9"
            && status["prober"]["version"] == "9.9.9")
            .then_some(())
    });
    assert_eq!(gateway.tunnels().len(), 20);
    busy.end();
    assert_eq!(fs::read_link(format!("/proc/{supervisor}/exe")).unwrap(), new);
}

#[test]
fn connections_and_commands_during_upgrades_are_never_refused() {
    let (gateway, port, _backend) = one_gateway();
    let connects = Busy::with([(); 3], move |()| {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(get(port, "/whoami").unwrap().status, 200);
        assert!(WebSocket::open(port, "/echo").echoes("new"));
    });
    let admin = format!("unix:{}", gateway.path().join("r/admin.sock").display());
    let commands = Busy::with([()], move |()| {
        let output = Command::new(HOLDFAST).args(["status", "--admin", &admin]).output().unwrap();
        assert!(output.status.success(), "{}", words(&output));
    });
    for _ in 0..3 {
        upgrade_to(&gateway, Path::new(HOLDFAST));
    }
    connects.end();
    commands.end();
}

#[test]
fn a_signal_upgrades_to_what_lies_where_the_executable_came_from() {
    let (gateway, port, _backend) = one_gateway();
    let installed = executable(&gateway, "9.9.8");
    upgrade_to(&gateway, &installed);
    let busy = Busy::echoing(vec![WebSocket::open(port, "/echo")]);
    // As a package manager does it: the running file loses its name.
    fs::rename(executable(&gateway, "9.9.9"), &installed).unwrap();
    let worker = gateway.worker_pid();
    gateway.signal(Signal::SIGUSR2);
    eventually(Patience::LONG, "the new version in every process", || {
        let status = gateway.status();
        // Empty while the new one starts.
        let workers = status["listeners"][0]["workers"].as_array().cloned().unwrap_or_default();
        let new = |one: &Value| one["version"] == "9.9.9";
        (new(&status) && !workers.is_empty() && workers.iter().all(new)).then_some(())
    });
    assert_ne!(gateway.worker_pid(), worker);
    busy.end();
}

#[test]
fn what_cannot_take_over_is_refused_with_the_reason_and_nothing_changes() {
    let (gateway, port, _backend) = one_gateway();
    let (worker, prober) = (gateway.worker_pid(), gateway.prober_pid());
    let mut socket = WebSocket::open(port, "/echo");
    let script = gateway.write("script", "#!/bin/sh\nsleep 1000\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let plain = gateway.write("plain", "no program");
    for (binary, reason) in [
        (Path::new("/bin/true"), "is no Holdfast"),
        (Path::new("/bin/false"), "exit status: 1"),
        (Path::new("/nonexistent"), "No such file"),
        (gateway.path(), "not a file"),
        (script.as_path(), "script"),
        (plain.as_path(), "cannot be executed"),
    ] {
        let output = gateway.cli(&["upgrade", "--binary", binary.to_str().unwrap()]);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{binary:?}: {said}");
        assert!(said.contains(reason) && said.contains("nothing was changed"), "{said}");
    }
    assert_eq!((gateway.worker_pid(), gateway.prober_pid()), (worker, prober));
    assert!(socket.echoes("still here"));
}

#[test]
fn an_upgrade_keeps_applied_revision_and_drain_and_does_not_read_the_file() {
    let backends = Backend::group(&["one", "two"]);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let port = free_port();
    let gateway = Gateway::start(&Document::simple(port, &addresses[..1]));
    gateway.apply(&Document::simple(port, &addresses));
    gateway.must(&["drain", "chat/127.0.0.2"]);
    gateway.write("gateway.json", "edited, and not yet meant");
    upgrade_to(&gateway, Path::new(HOLDFAST));
    assert_eq!(gateway.revision(), 2);
    assert_eq!(gateway.health_of("127.0.0.2"), "Draining");
    assert_eq!(gateway.status()["problems"], serde_json::json!([]));
    for _ in 0..4 {
        assert_eq!(get(port, "/whoami").unwrap().text(), "two");
    }
}

/// Open descriptors, and children that have ended and nobody waited for.
fn left_in(supervisor: u32) -> (usize, Vec<String>) {
    let descriptors = fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count();
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    let children = children.unwrap();
    let dead = children.split_whitespace().filter(|pid| !alive(pid.parse().unwrap()));
    (descriptors, dead.map(str::to_owned).collect())
}

fn hears_every_signal(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    assert_eq!(blocked.trim().trim_start_matches('0'), "", "signals are blocked");
}

#[test]
fn twenty_upgrades_leave_nothing_behind() {
    let (gateway, port, _backend) = one_gateway();
    let supervisor = gateway.supervisor_pid();
    let busy = Busy::echoing((0..5).map(|_| WebSocket::open(port, "/echo")).collect());
    let settled = |most: usize| {
        eventually(Patience::LONG, "two children, no zombie, no more descriptors", || {
            // An upgrade is done before the new prober has dialled, and its stream is a descriptor, too.
            let prober = gateway.status()["prober"]["state"] == "serving";
            let (descriptors, dead) = left_in(supervisor);
            let children = gateway.children().into_iter().filter(|pid| alive(*pid)).count();
            (prober && children == 2 && dead.is_empty() && descriptors <= most)
                .then_some(descriptors)
        })
    };
    upgrade_to(&gateway, Path::new(HOLDFAST));
    let first = settled(usize::MAX);
    for _ in 0..scale("HOLDFAST_TEST_UPGRADES", 20) {
        upgrade_to(&gateway, Path::new(HOLDFAST));
    }
    settled(first);
    busy.end();
    hears_every_signal(supervisor);
    gateway.must(&["stop", "--drain-timeout", "0"]);
    eventually(Patience::USUAL, "the gateway to end", || gateway.has_ended().then_some(()));
}

#[test]
fn a_worker_that_dies_later_is_replaced_and_waited_for() {
    let (gateway, port, _backend) = one_gateway();
    upgrade_to(&gateway, Path::new(HOLDFAST));
    let worker = gateway.worker_pid();
    crate::harness::kill9(worker);
    assert_eq!(get(port, "/whoami").unwrap().text(), "one");
    assert_ne!(gateway.worker_pid(), worker);
    eventually(Patience::USUAL, "no zombie", || {
        left_in(gateway.supervisor_pid()).1.is_empty().then_some(())
    });
}

#[test]
fn hang_ups_during_upgrades_end_nothing_and_the_last_is_answered() {
    let (gateway, port, backend) = one_gateway();
    let added = free_port();
    let supervisor = gateway.supervisor_pid();
    let hangups = Busy::with([()], move |()| {
        crate::harness::signal(supervisor, Signal::SIGHUP);
        thread::park_timeout(Duration::from_millis(1));
    });
    for _ in 0..3 {
        upgrade_to(&gateway, Path::new(HOLDFAST));
    }
    hangups.end();
    for round in 0..3 {
        let document = Document::simple(port, &[backend.address]);
        let document = if round % 2 == 0 { document.site("more", added, "chat") } else { document };
        let revision = gateway.revision();
        gateway.write("gateway.json", &document.text());
        let upgrade = gateway.begin_cli(&["upgrade", "--binary", HOLDFAST]);
        eventually(Patience::USUAL, "the upgrade to begin", || {
            let asked = gateway.log().matches("asking the new executable").count();
            (asked == 4 + round).then_some(())
        });
        gateway.signal(Signal::SIGHUP);
        let output = upgrade.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", words(&output));
        eventually(Patience::USUAL, "the file to be read", || {
            (gateway.revision() == revision + 1).then_some(())
        });
    }
}

#[test]
fn a_stop_during_an_upgrade_ends_the_gateway() {
    for said in ["asking the new executable", "takes over", "found a living worker"] {
        let (gateway, _port, _backend) = one_gateway();
        let children = gateway.children();
        let upgrade = gateway.begin_cli(&["upgrade", "--binary", HOLDFAST]);
        eventually(Patience::USUAL, said, || gateway.log().contains(said).then_some(()));
        gateway.signal(Signal::SIGTERM);
        upgrade.wait_with_output().unwrap();
        eventually(Patience::USUAL, "every process to end", || {
            (gateway.has_ended() && !children.iter().any(|pid| alive(*pid))).then_some(())
        });
        assert!(!gateway.path().join("r/admin.sock").exists());
    }
}

#[test]
fn a_demo_says_that_it_cannot_be_upgraded() {
    let demo = Demo::start();
    let output = demo.cli(&["upgrade", "--binary", HOLDFAST]);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("it is a demo"), "{}", words(&output));
}

#[cfg(feature = "failpoints")]
mod failing {
    use super::*;
    use crate::harness::{kill9, resume, stays};

    fn arm(gateway: &Gateway, failpoint: &str, action: &str) {
        let aside = gateway.write("failpoint", action);
        fs::rename(aside, gateway.path().join("f").join(failpoint)).unwrap();
    }

    fn is_rolled_back(failpoint: &str, action: &str, reason: &str) {
        is_rolled_back_when(failpoint, action, reason, |_| {});
    }

    fn is_rolled_back_when(failpoint: &str, action: &str, reason: &str, act: impl Fn(&Gateway)) {
        let (gateway, port, _backend) = one_gateway();
        let new = executable(&gateway, "9.9.9");
        let worker = gateway.worker_pid();
        let busy = Busy::echoing((0..10).map(|_| WebSocket::open(port, "/echo")).collect());
        let connects = Busy::with([()], move |()| {
            assert_eq!(get(port, "/whoami").unwrap().status, 200);
        });
        let before = gateway.status()["version"].clone();
        arm(&gateway, failpoint, action);
        let upgrade = gateway.begin_cli(&["upgrade", "--binary", new.to_str().unwrap()]);
        act(&gateway);
        let output = upgrade.wait_with_output().unwrap();
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("rolled back") && said.contains(reason), "{said}");
        let status = gateway.status();
        assert_eq!(status["version"], before);
        assert!(status["problems"].to_string().contains(reason), "{status}");
        assert_eq!(gateway.worker_pid(), worker);
        // What it still holds of the new one's time must not bring it down later.
        stays(Duration::from_secs(1), "service after a rollback", || {
            gateway.cli(&["status"]).status.success()
        });
        hears_every_signal(gateway.supervisor_pid());
        assert_eq!(upgrade_to(&gateway, &new)["to"], "9.9.9");
        assert_eq!(gateway.status()["problems"], serde_json::json!([]));
        busy.end();
        connects.end();
    }

    #[test]
    fn an_executable_that_is_hit_by_a_fault_of_the_machine_is_rolled_back() {
        for (signal, name) in [(Signal::SIGSEGV, "SIGSEGV"), (Signal::SIGBUS, "SIGBUS")] {
            is_rolled_back_when("upgrade.started", "sleep 3600000", name, |gateway| {
                let armed = gateway.path().join("f/upgrade.started");
                eventually(Patience::USUAL, "the new one to start", || {
                    (!armed.exists()).then_some(())
                });
                gateway.signal(signal);
            });
        }
    }

    #[test]
    fn an_executable_that_crashes_at_once_is_rolled_back() {
        is_rolled_back("upgrade.arrived", "abort", "it crashed (SIGABRT)");
    }

    #[test]
    fn an_executable_that_crashes_while_it_starts_is_rolled_back() {
        is_rolled_back("upgrade.started", "abort", "it crashed (SIGABRT)");
    }

    #[test]
    fn an_executable_that_cannot_start_is_rolled_back() {
        is_rolled_back("upgrade.started", "error", "a test said so");
    }

    #[test]
    fn an_executable_that_hangs_is_rolled_back() {
        is_rolled_back("upgrade.started", "sleep 3600000", "it was not ready within");
    }

    #[test]
    fn an_executable_that_does_not_answer_is_refused() {
        let (gateway, _port, _backend) = one_gateway();
        arm(&gateway, "upgrade.asked", "sleep 3600000");
        let output = gateway.cli(&["upgrade", "--binary", HOLDFAST]);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("did not answer within"), "{said}");
        upgrade_to(&gateway, Path::new(HOLDFAST));
    }

    /// The vault's sockets end with the exec, and its tunnels' worker is dead.
    #[test]
    fn an_upgrade_waits_for_tunnels_that_only_the_vault_holds() {
        let (gateway, port, _backend) = one_gateway();
        let mut sockets: Vec<_> = (0..5).map(|_| WebSocket::open(port, "/echo")).collect();
        gateway.protects(sockets.len() as u64);
        arm(&gateway, "line.before", "stop");
        let armed = gateway.path().join("f/line.before");
        kill9(gateway.worker_pid());
        eventually(Patience::USUAL, "a worker to stop", || (!armed.exists()).then_some(()));
        let mut upgrade = gateway.begin_cli(&["upgrade", "--binary", HOLDFAST]);
        gateway.says(&["upgrade: tunnels of a worker that died have no new one yet"]);
        let ended = eventually(Patience::USUAL, "the upgrade to end", || {
            gateway.children().into_iter().for_each(resume);
            upgrade.try_wait().unwrap()
        });
        assert!(ended.success());
        assert!(sockets.iter_mut().all(|socket| socket.echoes("still here")));
        gateway.has_lost_none();
    }

    #[test]
    fn an_exec_that_fails_leaves_everything_as_it_was() {
        let (gateway, port, _backend) = one_gateway();
        let mut socket = WebSocket::open(port, "/echo");
        arm(&gateway, "upgrade.exec", "error");
        let output = gateway.cli(&["upgrade", "--binary", HOLDFAST]);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("exec failed"), "{said}");
        assert!(socket.echoes("still here"));
        upgrade_to(&gateway, Path::new(HOLDFAST));
    }

    #[test]
    fn a_stop_before_a_rollback_ends_the_gateway_after_it() {
        let (gateway, _port, _backend) = one_gateway();
        let children = gateway.children();
        arm(&gateway, "upgrade.started", "sleep 3600000");
        let upgrade = gateway.begin_cli(&["upgrade", "--binary", HOLDFAST]);
        let armed = gateway.path().join("f/upgrade.started");
        eventually(Patience::USUAL, "the new one to start", || (!armed.exists()).then_some(()));
        gateway.signal(Signal::SIGTERM);
        stays(Duration::from_millis(500), "a stop waits for the start", || !gateway.has_ended());
        gateway.signal(Signal::SIGSEGV);
        eventually(Patience::USUAL, "every process to end", || {
            (gateway.has_ended() && !children.iter().any(|pid| alive(*pid))).then_some(())
        });
        drop(upgrade.wait_with_output());
    }
}
