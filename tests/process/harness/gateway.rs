//! One gateway in directories of its own, from `holdfast run` to the last of its processes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::document::Document;
use super::eventually::{Patience, eventually};
use super::ports::free_port;
use super::{HOLDFAST, http, proc};

/// Set in the environment of everything that a gateway starts, so that its own processes can be told from others'.
const MARK: &str = "HOLDFAST_TEST_GATEWAY";

/// A running gateway; all its processes end with this value.
pub(crate) struct Gateway {
    directory: TempDir,
    supervisor: RefCell<Child>,
    seen: RefCell<BTreeSet<u32>>,
    status_port: u16,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(document: &Document) -> Self {
        Self::start_in(directory(), document)
    }

    /// The same in a directory that already holds files (certificates, an older state).
    pub(crate) fn start_in(directory: TempDir, document: &Document) -> Self {
        Self::start_text(directory, &document.text())
    }

    /// The same with a document as somebody wrote it.
    pub(crate) fn start_text(directory: TempDir, text: &str) -> Self {
        let gateway = Self::begin_in(directory, text);
        gateway.wait_ready();
        gateway
    }

    /// Starts one whose status address is not a loopback one, with a token file of that text, if any.
    pub(crate) fn start_exposed(document: &Document, token: Option<&str>) -> Self {
        let directory = directory();
        fs::write(directory.path().join("status-ip"), "0.0.0.0").unwrap();
        if let Some(token) = token {
            fs::write(directory.path().join("token"), token).unwrap();
        }
        Self::start_in(directory, document)
    }

    /// Starts one and does not wait.
    pub(crate) fn begin(document: &Document) -> Self {
        Self::begin_in(directory(), &document.text())
    }

    /// Starts one from an executable of its own, `holdfast` in its directory, that a test may replace.
    pub(crate) fn start_copy(document: &Document) -> Self {
        let directory = directory();
        let copy = directory.path().join("holdfast");
        fs::hard_link(HOLDFAST, &copy).or_else(|_| fs::copy(HOLDFAST, &copy).map(drop)).unwrap();
        Self::start_in(directory, document)
    }

    fn begin_in(directory: TempDir, text: &str) -> Self {
        fs::write(directory.path().join("gateway.json"), text).unwrap();
        let status_port = free_port();
        let supervisor = RefCell::new(spawn(directory.path(), status_port));
        Self { directory, supervisor, seen: RefCell::default(), status_port }
    }

    /// Starts one that must refuse to run, and returns what it said.
    pub(crate) fn start_refused(text: &str) -> Output {
        let directory = directory();
        fs::write(directory.path().join("gateway.json"), text).unwrap();
        let mut child = spawn(directory.path(), free_port());
        let status =
            eventually(Patience::USUAL, "a refused start to exit", || child.try_wait().unwrap());
        let log = fs::read(directory.path().join("log")).unwrap();
        Output { status, stdout: Vec::new(), stderr: log }
    }

    /// Starts the supervisor again on the same directories and waits until it is ready.
    pub(crate) fn start_again(&self) {
        self.begin_again();
        self.wait_ready();
    }

    /// The same, and does not wait.
    pub(crate) fn begin_again(&self) {
        drop(self.supervisor.borrow_mut().wait());
        *self.supervisor.borrow_mut() = spawn(self.directory.path(), self.status_port);
    }

    /// Starts the supervisor again on the same directories, where it must fail.
    pub(crate) fn start_in_vain(&self) {
        drop(self.supervisor.borrow_mut().wait());
        let mut child = spawn(self.directory.path(), self.status_port);
        let status = eventually(Patience::USUAL, "a start to fail", || child.try_wait().unwrap());
        assert!(!status.success(), "it ended as if all was well:\n{}", self.log());
        *self.supervisor.borrow_mut() = child;
    }

    fn wait_ready(&self) {
        eventually(Patience::LONG, "/readyz to answer 200", || {
            if let Some(status) = self.supervisor.borrow_mut().try_wait().unwrap() {
                panic!("the supervisor ended ({status}) before it was ready:\n{}", self.log());
            }
            http::get(self.status_port, "/readyz").ok().filter(|answer| answer.status == 200)
        });
        self.status();
    }

    /// How commands are told where this gateway is.
    pub(crate) fn admin(&self) -> String {
        format!("unix:{}", self.runtime_dir().join("admin.sock").display())
    }

    /// Runs a command against this gateway.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(HOLDFAST);
        command
            .args(arguments)
            .env("HOLDFAST_ADMIN", self.admin())
            .current_dir(self.directory.path());
        command
    }

    /// Begins a command; what it says comes with its end.
    pub(crate) fn begin_cli(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let said = words(&output);
        assert!(output.status.success(), "holdfast {arguments:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies a document that must be accepted.
    pub(crate) fn apply(&self, document: &Document) {
        let file = self.write("applied.json", &document.text());
        self.must(&["apply", file.to_str().unwrap()]);
    }

    /// Applies a document that must be refused, and returns what was said.
    pub(crate) fn apply_refused(&self, text: &str) -> String {
        let file = self.write("refused.json", text);
        let output = self.cli(&["apply", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        words(&output)
    }

    /// `holdfast status --json`.
    pub(crate) fn status(&self) -> Value {
        let status: Value = serde_json::from_str(&self.must(&["status", "--json"])).unwrap();
        let mut seen = self.seen.borrow_mut();
        seen.extend(pids_of(&status));
        status
    }

    /// The revision in force.
    pub(crate) fn revision(&self) -> u64 {
        self.status()["revision"].as_u64().unwrap()
    }

    /// Workers of all listeners that serve.
    pub(crate) fn worker_pids(&self) -> Vec<u32> {
        let status = self.status();
        let workers = status["listeners"].as_array().unwrap().iter().flat_map(|listener| {
            listener["workers"].as_array().unwrap().iter().filter(|one| one["state"] == "serving")
        });
        workers.map(|worker| number(&worker["pid"])).collect()
    }

    /// The only serving worker.
    pub(crate) fn worker_pid(&self) -> u32 {
        eventually(Patience::USUAL, "exactly one serving worker", || {
            <[u32; 1]>::try_from(self.worker_pids()).ok().map(|[pid]| pid)
        })
    }

    /// The prober.
    pub(crate) fn prober_pid(&self) -> u32 {
        number(&self.status()["prober"]["pid"])
    }

    /// Every child on the supervisor's list, workers of removed listeners too.
    pub(crate) fn children(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.runtime_dir().join("children")).unwrap();
        list.lines()
            .map(|line| number(&serde_json::from_str::<Value>(line).unwrap()["pid"]))
            .collect()
    }

    /// The supervisor.
    pub(crate) fn supervisor_pid(&self) -> u32 {
        self.supervisor.borrow().id()
    }

    /// Whether the supervisor has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.supervisor.borrow_mut().try_wait().unwrap().is_some()
    }

    /// Waits for the supervisor's end.
    pub(crate) fn ended(&self) -> ExitStatus {
        eventually(Patience::USUAL, "the supervisor's end", || {
            self.supervisor.borrow_mut().try_wait().unwrap()
        })
    }

    /// Live tunnels over all workers.
    pub(crate) fn tunnels(&self) -> Vec<Value> {
        serde_json::from_str(&self.must(&["tunnels", "--json"])).unwrap()
    }

    /// State of the backend at an address, in the first pool that has it.
    pub(crate) fn health_of(&self, address: &str) -> String {
        let pools: Value = serde_json::from_str(&self.must(&["health", "--json"])).unwrap();
        let mut backends = pools
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|pool| pool["backends"].as_array().unwrap().iter());
        let backend = backends.find(|backend| backend["address"] == address).unwrap();
        backend["state"].as_str().unwrap().to_owned()
    }

    /// Value of a metric without labels, or the sum over its labels; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = http::get(self.status_port, "/metrics").unwrap().text();
        let rows = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        rows.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Where the status address is.
    pub(crate) fn status_port(&self) -> u16 {
        self.status_port
    }

    /// The status address's answer.
    pub(crate) fn status_page(&self, path: &str) -> http::Response {
        http::get(self.status_port, path).unwrap()
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: Signal) {
        proc::signal(self.supervisor_pid(), signal);
    }

    /// Ends every process at once, as a power cut would.
    pub(crate) fn kill_everything(&self) {
        let status = self.status();
        let supervisor = self.supervisor_pid();
        for pid in std::iter::once(supervisor).chain(pids_of(&status)) {
            proc::kill9(pid);
        }
        drop(self.supervisor.borrow_mut().wait());
        eventually(Patience::USUAL, "every process to be gone", || {
            pids_of(&status).into_iter().all(|pid| !proc::alive(pid)).then_some(())
        });
    }

    /// Writes a file beside the configuration.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// The gateway's directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What the processes have logged.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn runtime_dir(&self) -> PathBuf {
        self.directory.path().join("r")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let mut supervisor = self.supervisor.borrow_mut();
        proc::signal(supervisor.id(), Signal::SIGCONT);
        // Killed rather than drained: a test that holds tunnels open would wait for their drain time.
        drop(supervisor.kill());
        drop(supervisor.wait());
        let ours = proc::with_environment(&format!("{MARK}={}", self.directory.path().display()));
        let seen =
            self.seen.borrow().iter().copied().filter(|pid| proc::is_holdfast(*pid)).collect();
        for pid in [ours, seen].concat() {
            proc::kill9(pid);
        }
        if std::thread::panicking() {
            println!("--- the gateway's log ---\n{}", self.log());
        }
    }
}

/// Everything that a command said.
pub(crate) fn words(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// A directory with a path short enough for socket names.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new().prefix("hf").tempdir_in("/tmp").unwrap()
}

fn spawn(directory: &Path, status_port: u16) -> Child {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let [config, runtime, state, failpoints] =
        ["gateway.json", "r", "s", "f"].map(|name| directory.join(name));
    fs::create_dir_all(&failpoints).unwrap();
    let own = Some(directory.join("holdfast")).filter(|copy| copy.exists());
    let status_ip = fs::read_to_string(directory.join("status-ip"));
    let status_ip = status_ip.unwrap_or_else(|_| "127.0.0.1".to_owned());
    let token = Some(directory.join("token")).filter(|token| token.exists());
    let token = token.map(|token| ["--status-token-file".into(), token.into_os_string()]);
    Command::new(own.as_deref().unwrap_or(HOLDFAST.as_ref()))
        .arg("run")
        .args(token.into_iter().flatten())
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--runtime-dir".as_ref(), runtime.as_os_str()])
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--status-listen", &format!("{status_ip}:{status_port}")])
        .env(MARK, directory)
        .env("HOLDFAST_FAILPOINTS", failpoints)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Children named by a status.
fn pids_of(status: &Value) -> Vec<u32> {
    let workers = status["listeners"].as_array().into_iter().flatten();
    let workers = workers.flat_map(|one| one["workers"].as_array().into_iter().flatten());
    let pids = workers.chain(std::iter::once(&status["prober"])).map(|child| number(&child["pid"]));
    pids.filter(|pid| *pid > 0).collect()
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0)
}

/// Time within which a change must be noticed by everybody.
pub(crate) const MOMENT: Duration = Duration::from_secs(2);
