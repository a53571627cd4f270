//! The gateway under torture, from outside: its commands, its status address, its processes.
//!
//! Everything that it starts carries a mark in its environment, so that at the end nothing of it is left, and nobody
//! else's process is ever touched. Every command is bounded in time.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Marks the gateway's processes.
const MARK: &str = "HOLDFAST_TORTURE";
/// A command that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway in its directory.
pub(crate) struct Gateway {
    pub(crate) directory: PathBuf,
    binary: PathBuf,
    status_address: SocketAddr,
    supervisor: Mutex<Child>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ok: bool,
    pub(crate) said: String,
    pub(crate) took: Duration,
}

/// `holdfast status --json`.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) prober: u32,
    pub(crate) workers: Vec<Worker>,
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) address: String,
    pub(crate) pid: u32,
    pub(crate) state: String,
    pub(crate) tunnels: u64,
    pub(crate) protected: u64,
}

impl Status {
    pub(crate) fn tunnels(&self) -> u64 {
        self.workers.iter().map(|worker| worker.tunnels).sum()
    }

    /// Whether every tunnel would outlive its process, and every listener has a worker that serves.
    pub(crate) fn protected(&self) -> bool {
        let serves = |worker: &Worker| {
            let same = |one: &&Worker| one.address == worker.address && one.state == "serving";
            self.workers.iter().any(|one| same(&one))
        };
        !self.workers.is_empty()
            && self.workers.iter().all(|one| one.protected == one.tunnels && serves(one))
    }
}

impl Gateway {
    /// Starts one in an empty directory.
    pub(crate) fn start(
        directory: &Path,
        binary: &Path,
        status_address: SocketAddr,
        document: &str,
    ) -> io::Result<Self> {
        let directory = directory.to_owned();
        fs::write(directory.join("gateway.json"), document)?;
        fs::create_dir_all(directory.join("failpoints"))?;
        let supervisor = Mutex::new(spawn(&directory, binary, status_address)?);
        Ok(Self { directory, binary: binary.to_owned(), status_address, supervisor })
    }

    /// Starts the supervisor again on the same directories.
    pub(crate) fn start_again(&self) -> io::Result<()> {
        let mut supervisor = self.supervisor.lock().unwrap();
        supervisor.wait()?;
        *supervisor = spawn(&self.directory, &self.binary, self.status_address)?;
        Ok(())
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn supervisor(&self) -> u32 {
        self.supervisor.lock().unwrap().id()
    }

    /// How the supervisor ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        let status = self.supervisor.lock().unwrap().try_wait().ok()??;
        Some(status.to_string())
    }

    /// Runs a command.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Done {
        self.cli_within(arguments, PATIENCE)
    }

    pub(crate) fn cli_within(&self, arguments: &[&str], patience: Duration) -> Done {
        let begin = Instant::now();
        let run = || -> io::Result<(bool, String)> {
            let mut child = Command::new(&self.binary)
                .args(arguments)
                .env(
                    "HOLDFAST_ADMIN",
                    format!("unix:{}", self.directory.join("r/admin.sock").display()),
                )
                .current_dir(&self.directory)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let out = std::thread::spawn(move || words(out));
            let err = std::thread::spawn(move || words(err));
            let status = loop {
                match child.try_wait()? {
                    Some(status) => break Some(status),
                    None if begin.elapsed() > patience => break None,
                    None => std::thread::park_timeout(Duration::from_millis(5)),
                }
            };
            if status.is_none() {
                child.kill()?;
                child.wait()?;
            }
            let said = out.join().unwrap_or_default() + &err.join().unwrap_or_default();
            match status {
                Some(status) => Ok((status.success(), said)),
                None => Ok((false, format!("no answer within {} s; {said}", patience.as_secs()))),
            }
        };
        let (ok, said) = run().unwrap_or_else(|error| (false, error.to_string()));
        Done { ok, said: said.trim().to_owned(), took: begin.elapsed() }
    }

    /// What the gateway says of its processes; nothing while it cannot be asked.
    pub(crate) fn status(&self) -> Option<Status> {
        let done = self.cli_within(&["status", "--json"], Duration::from_secs(10));
        let status: Value = serde_json::from_str(&done.said).ok().filter(|_| done.ok)?;
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let mut workers = Vec::new();
        for listener in status["listeners"].as_array()? {
            for worker in listener["workers"].as_array()? {
                workers.push(Worker {
                    address: listener["address"].as_str()?.to_owned(),
                    pid: number(&worker["pid"]) as u32,
                    state: worker["state"].as_str()?.to_owned(),
                    tunnels: number(&worker["tunnels"]),
                    protected: number(&worker["protected"]),
                });
            }
        }
        Some(Status { prober: number(&status["prober"]["pid"]) as u32, workers })
    }

    /// Whether `/readyz` says so.
    pub(crate) fn ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    /// The sum of a metric over its labels, or nothing where there is none of that name.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").ok()?;
        let rows = page
            .lines()
            .filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])));
        let values = rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok());
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let patience = Duration::from_secs(5);
        let mut socket = TcpStream::connect_timeout(&self.status_address, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Stops it as an operator would, and says which of its processes were left behind; those are ended.
    pub(crate) fn stop(&self) -> (Done, Vec<String>) {
        let done = self.cli(&["stop", "--drain-timeout", "0"]);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) && !self.processes().is_empty() {
            drop(self.ended());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let left = self.processes();
        let told = left.iter().map(|pid| format!("{pid} {}", command_line(*pid))).collect();
        self.kill_everything();
        (done, told)
    }

    /// Ends whatever there is of it.
    pub(crate) fn kill_everything(&self) {
        for pid in self.processes() {
            signal(pid, Signal::SIGKILL);
        }
        // By whatever way one gets here, the supervisor must not stay as a zombie.
        drop(self.supervisor.lock().unwrap().wait());
    }

    /// The processes that carry this gateway's mark.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.directory.display());
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
        };
        pids.filter(marked).collect()
    }
}

fn words(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    drop(pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn spawn(directory: &Path, binary: &Path, status_address: SocketAddr) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    let [config, runtime, state] = ["gateway.json", "r", "s"].map(|name| directory.join(name));
    Command::new(binary)
        .arg("run")
        .args(["--config".as_ref(), config.as_os_str()])
        .args(["--runtime-dir".as_ref(), runtime.as_os_str()])
        .args(["--state-dir".as_ref(), state.as_os_str()])
        .args(["--status-listen", &status_address.to_string()])
        .env(MARK, directory)
        .env("HOLDFAST_FAILPOINTS", directory.join("failpoints"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Sends one signal; a process that is gone already is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).ok();
}

/// Whether the process runs (a zombie does not).
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}
