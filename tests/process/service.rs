//! The gateway as a service: what it tells a manager, what it has kept there, and which end it comes to. The manager is this
//! process; a real one is in tests/systemd.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tempfile::TempDir;

use crate::harness::{
    Backend, Document, Gateway, HOLDFAST, Patience, WebSocket, alive, directory, eventually,
    free_port, get, kill9, words,
};

mod sockets;

/// What the manager has heard, and keeps.
#[derive(Default)]
struct Books {
    heard: Vec<String>,
    kept: BTreeMap<String, OwnedFd>,
}

/// A manager that hears on `notify` in a gateway's directory, and starts it as a service.
struct Manager(Arc<Mutex<Books>>);

impl Manager {
    fn in_directory(directory: &TempDir) -> Self {
        let path = directory.path();
        let ear = UnixDatagram::bind(path.join("notify")).unwrap();
        let books = Arc::new(Mutex::new(Books::default()));
        let manager = Self(books.clone());
        // Ends with the test's process.
        thread::spawn(move || {
            loop {
                let (said, fd) = hear(&ear);
                books.lock().unwrap().note(said, fd);
            }
        });
        manager.start_with(path, &[]);
        manager
    }

    /// From now on the gateway is started with what is kept.
    fn pass_on(&self, directory: &Path) {
        self.pass_on_with(directory, &[]);
    }

    /// The same, after what a socket unit has.
    fn pass_on_with(&self, directory: &Path, sockets: &[(&str, &OwnedFd)]) {
        let books = self.0.lock().unwrap();
        let kept = books.kept.iter().map(|(name, fd)| (name.as_str(), fd));
        let passed: Vec<_> = sockets.iter().copied().chain(kept).collect();
        self.start_with(directory, &passed);
    }

    #[expect(clippy::unused_self, reason = "it is the manager that starts it")]
    fn start_with(&self, directory: &Path, kept: &[(&str, &OwnedFd)]) {
        let mut script = vec![
            "#!/bin/bash".to_owned(),
            format!("export NOTIFY_SOCKET='{}'", directory.join("notify").display()),
            "export WATCHDOG_USEC=1000000".to_owned(),
        ];
        for (place, (_, fd)) in kept.iter().enumerate() {
            // Shells need not pass on what is closed on exec.
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).unwrap();
            script.push(format!("exec {}<&{}", 100 + place, fd.as_raw_fd()));
        }
        for place in 0..kept.len() {
            script.push(format!("exec {}<&{} {1}<&-", 3 + place, 100 + place));
        }
        let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
        if !kept.is_empty() {
            let (count, names) = (kept.len(), names.join(":"));
            script
                .push(format!("export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES='{names}'"));
        }
        script.push(format!("exec {HOLDFAST} \"$@\"\n"));
        executable(&directory.join("holdfast"), &script.join("\n"));
    }

    fn hears(&self, what: &str) {
        eventually(Patience::USUAL, what, || {
            let mut books = self.0.lock().unwrap();
            let place = books.heard.iter().position(|it| it.lines().any(|line| line == what))?;
            books.heard.drain(..=place);
            Some(())
        });
    }

    fn kept(&self) -> Vec<String> {
        self.0.lock().unwrap().kept.keys().cloned().collect()
    }

    /// Waits until a tunnel is kept.
    fn keeps_a_tunnel(&self) {
        eventually(Patience::USUAL, "a tunnel to be kept", || {
            let books = self.0.lock().unwrap();
            let pages = books.kept.iter().filter(|(name, _)| name.starts_with("tunnels-"));
            let waiting = |fd: &OwnedFd| rustix::io::ioctl_fionread(fd).unwrap() > 0;
            pages.into_iter().any(|(_, page)| waiting(page)).then_some(())
        });
    }
}

impl Books {
    fn note(&mut self, said: String, fd: Option<OwnedFd>) {
        let name = said.lines().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
        match (name, fd) {
            (Some(name), Some(fd)) => drop(self.kept.insert(name, fd)),
            (Some(name), None) => drop(self.kept.remove(&name)),
            (None, _) => self.heard.push(said),
        }
    }
}

fn hear(ear: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let packet = rustix::net::recvmsg(ear, &mut parts, &mut control, flags).unwrap();
    let length = packet.bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (String::from_utf8(bytes[..length].to_vec()).unwrap(), fd)
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// `holdfast stop --from-systemd`, as the unit would have it run for a job of that kind.
fn stop_for(gateway: &Gateway, job: &str, main: Option<u32>) -> Output {
    // The test is the supervisor's parent, and a manager's stop waits for its end.
    let output = stop_command(gateway, job, main).output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    output
}

fn stop_command(gateway: &Gateway, job: &str, main: Option<u32>) -> Command {
    let bin = gateway.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    executable(
        &bin.join("systemctl"),
        &format!("#!/bin/bash\necho \"7 ${{@: -1}} {job} running\"\n"),
    );
    let mut command = Command::new(HOLDFAST);
    let runtime = gateway.path().join("r");
    command.args(["stop", "--from-systemd"]).env("RUNTIME_DIRECTORY", &runtime);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.env_remove("MAINPID").env("SERVICE_RESULT", "success");
    if let Some(main) = main {
        command.env("MAINPID", main.to_string());
    }
    command
}

fn service() -> (Gateway, Manager, u16, Backend) {
    let backend = Backend::start("one");
    let port = free_port();
    let directory = directory();
    let manager = Manager::in_directory(&directory);
    let gateway = Gateway::start_in(directory, &Document::simple(port, &[backend.address]));
    (gateway, manager, port, backend)
}

#[test]
fn a_manager_hears_of_readiness_life_reloads_and_the_end() {
    let (gateway, manager, _, _backend) = service();
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    gateway.must(&["reload"]);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    gateway.must(&["stop"]);
    manager.hears("STOPPING=1");
    eventually(Patience::USUAL, "the end", || gateway.has_ended().then_some(()));
}

#[test]
fn a_websocket_outlives_all_processes_where_a_manager_keeps_it() {
    let (gateway, manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    for round in 0..3 {
        manager.keeps_a_tunnel();
        gateway.kill_everything();
        // Said while there is nobody.
        socket.send(&format!("anybody? {round}"));
        manager.pass_on(gateway.path());
        gateway.start_again();
        assert_eq!(socket.receive().unwrap(), format!("anybody? {round}"));
        assert!(socket.echoes("still here"));
        assert_eq!(get(port, "/whoami").unwrap().text(), "one");
        assert_eq!(gateway.tunnels().len(), 1);
    }
    assert!(gateway.metric("holdfast_tunnels_lost_total").abs() < 0.5);
}

#[test]
fn a_tunnel_that_ends_is_kept_no_more_and_a_stop_leaves_nothing() {
    let (gateway, manager, port, _backend) = service();
    let socket = WebSocket::open(port, "/echo");
    manager.keeps_a_tunnel();
    drop(socket);
    eventually(Patience::USUAL, "its page to be given up", || {
        manager.kept().iter().all(|name| !name.starts_with("tunnels-")).then_some(())
    });
    assert!(manager.kept().iter().any(|name| name.starts_with("listener-")));
    gateway.must(&["stop"]);
    eventually(Patience::USUAL, "the end", || gateway.has_ended().then_some(()));
    eventually(Patience::USUAL, "nothing to be kept", || manager.kept().is_empty().then_some(()));
}

#[test]
fn what_the_manager_keeps_is_taken_for_no_tunnel_where_workers_live() {
    let (gateway, manager, port, _backend) = service();
    let [mut first, second] = [(); 2].map(|()| WebSocket::open(port, "/echo"));
    manager.keeps_a_tunnel();
    let worker = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    // Ends while no supervisor is there to hear of it.
    drop(second);
    manager.pass_on(gateway.path());
    gateway.start_again();
    assert_eq!(gateway.worker_pid(), worker);
    assert!(first.echoes("still here"));
    eventually(Patience::USUAL, "one tunnel", || (gateway.tunnels().len() == 1).then_some(()));
    gateway.must(&["restart"]);
    assert!(first.echoes("still here"));
}

#[test]
fn a_restart_leaves_the_workers_to_the_next_supervisor() {
    let (gateway, manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    manager.keeps_a_tunnel();
    let worker = gateway.worker_pid();
    stop_for(&gateway, "restart", Some(gateway.supervisor_pid()));
    assert!(alive(worker) && socket.echoes("nobody but the worker"));
    assert!(manager.kept().iter().any(|name| name.starts_with("tunnels-")));
    // The control process of a stop that comes after all.
    stop_for(&gateway, "start", None);
    assert!(alive(worker));
    manager.pass_on(gateway.path());
    gateway.start_again();
    assert_eq!(gateway.worker_pid(), worker);
    assert!(socket.echoes("still here"));
}

/// The manager asks nobody while a reload is under way: it sends a signal.
#[test]
fn a_supervisor_that_is_signalled_to_go_leaves_its_workers_alone() {
    let (gateway, manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    manager.keeps_a_tunnel();
    let worker = gateway.worker_pid();
    gateway.signal(Signal::SIGUSR1);
    eventually(Patience::USUAL, "the end", || gateway.has_ended().then_some(()));
    assert!(alive(worker) && socket.echoes("nobody but the worker"));
    manager.pass_on(gateway.path());
    gateway.start_again();
    assert_eq!(gateway.worker_pid(), worker);
    assert!(socket.echoes("still here"));
}

#[test]
fn a_stop_from_systemd_that_is_called_by_hand_says_so_and_stops_nothing() {
    let (gateway, _manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    let output = gateway.cli(&["stop", "--from-systemd"]);
    let said = words(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was done") && said.contains("holdfast stop"), "{said}");
    assert!(socket.echoes("still here"));
    assert!(!gateway.has_ended());
}

#[test]
fn a_start_that_fails_loses_nothing_of_what_was_kept() {
    let (gateway, manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    manager.keeps_a_tunnel();
    gateway.kill_everything();
    // Without revisions, and with a file that is no document, there is nothing to serve.
    let [state, hidden, document] =
        ["s", "hidden", "gateway.json"].map(|name| gateway.path().join(name));
    let good = fs::read_to_string(&document).unwrap();
    fs::rename(&state, &hidden).unwrap();
    fs::write(&document, "{").unwrap();
    manager.pass_on(gateway.path());
    gateway.start_in_vain();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&hidden, &state).unwrap();
    fs::write(&document, good).unwrap();
    // What was on the page that the first one has read is on another one.
    manager.keeps_a_tunnel();
    manager.pass_on(gateway.path());
    gateway.start_again();
    assert!(socket.echoes("still here"));
}

#[test]
fn a_restart_that_comes_while_everything_drains_cuts_nothing_short() {
    let (gateway, _manager, port, _backend) = service();
    let mut socket = WebSocket::open(port, "/echo");
    let main = gateway.supervisor_pid();
    gateway.must(&["stop"]);
    let mut restart = stop_command(&gateway, "restart", Some(main)).spawn().unwrap();
    eventually(Patience::USUAL, "both to be heard", || {
        // Each is told when it is asked and when it is carried out.
        (gateway.has_said("method=\"Stop\"") == 4).then_some(())
    });
    assert!((0..3).all(|_| socket.echoes("still here")));
    drop(socket);
    eventually(Patience::USUAL, "the end", || gateway.has_ended().then_some(()));
    assert!(restart.wait().unwrap().success());
}

#[test]
fn a_stop_ends_the_workers_too_even_those_of_a_dead_supervisor() {
    let (gateway, _manager, port, _backend) = service();
    let _socket = WebSocket::open(port, "/echo");
    let worker = gateway.worker_pid();
    kill9(gateway.supervisor_pid());
    assert!(alive(worker));
    let said = words(&stop_for(&gateway, "stop", None));
    assert!(said.contains("had no supervisor"), "{said}");
    eventually(Patience::USUAL, "the worker to be gone", || (!alive(worker)).then_some(()));
}
