//! The process table, as the kernel tells it, and signals to single processes by id.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::eventually::{Patience, eventually};

/// Ends a process at once, as an out-of-memory kill would.
pub(crate) fn kill9(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// Stops a process from running without ending it.
pub(crate) fn pause(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    has_stopped(pid);
}

/// Waits for a stop that is on its way: a thread may still finish what it was at when the signal came.
pub(crate) fn has_stopped(pid: u32) {
    eventually(Patience::USUAL, "every thread to stop", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        threads.flatten().all(stopped).then_some(())
    });
}

/// Lets a paused process run again.
pub(crate) fn resume(pid: u32) {
    signal(pid, Signal::SIGCONT);
}

/// Sends one signal; a process that is already gone is fine.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).ok();
}

/// Whether the process runs (a zombie does not).
pub(crate) fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Whether the process is a `holdfast`, so that a number used again never ends a stranger.
pub(super) fn is_holdfast(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path.to_string_lossy().contains("holdfast"))
}

/// Processes that were started with `entry` (`KEY=VALUE`) in their environment.
pub(super) fn with_environment(entry: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let started_with = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == entry.as_bytes())
    };
    pids.filter(started_with).collect()
}

/// User and system time that the process has used.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let fields = stat(pid).unwrap();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_millis(ticks * 1000 / u64::try_from(per_second).unwrap())
}

/// Resident memory of the process.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    of_status(pid, "VmRSS:")
}

/// Whether the kernel may give the process huge pages that it did not ask for (Linux 5.0 and later tell).
pub(crate) fn gets_huge_pages(pid: u32) -> bool {
    of_status(pid, "THP_enabled:") != 0
}

/// A number of `/proc/PID/status`.
fn of_status(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The fields of `/proc/PID/stat` from the state on (the name before it may hold anything).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
