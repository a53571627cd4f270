//! Waiting for children: how each ended, and that none stays a zombie, also of those that this process has from before it
//! re-executed itself.
//!
//! Reaping never stands in anybody's way. Whoever has listed a process's descriptors in `/proc`, as monitoring agents do
//! every second, has left an entry for each in the kernel, and `wait` takes these down one by one: tens of milliseconds
//! for a worker with thousands of tunnels.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use holdfast_proto::process::{self, ProcessId};
use rustix::process::{
    Pid, WaitId, WaitIdOptions, WaitOptions, setpriority_process, waitid, waitpid,
};

/// Nobody is in a hurry for a dead process's number, and its tunnels are.
const BURIAL_AFTER: Duration = Duration::from_millis(500);
/// A thread's priority, as nice(2) counts.
const LOWEST: i32 = 19;

/// Waits until a process is gone. How it ended is known where it is our child: an adopted one may be, too, since a
/// supervisor that has executed another binary is still its parent. It is still to be reaped.
pub(crate) async fn ended(id: ProcessId) -> Option<ExitStatus> {
    if matches!(process::open(id), Ok(None)) {
        return None;
    }
    process::gone(id).await;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // Its number is nobody else's before it is reaped.
    let status = waitid(WaitId::Pid(pid_of(id.pid)?), options).ok()??;
    // As wait(2) tells it.
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, signal) => signal?,
    };
    Some(ExitStatus::from_raw(raw))
}

/// Reaps a process as soon as it is gone, in the background. Nothing happens where it is nobody's we have to wait for.
pub(crate) fn bury(id: ProcessId) {
    tokio::spawn(async move {
        process::gone(id).await;
        // What it has left is being adopted now, and needs every processor.
        tokio::time::sleep(BURIAL_AFTER).await;
        let burial = std::thread::Builder::new().name("burial".to_owned()).spawn(move || {
            if let Err(error) = setpriority_process(None, LOWEST) {
                tracing::debug!(%error, "a burial goes on at the usual priority");
            }
            reap(id.pid);
        });
        if burial.is_err() {
            reap(id.pid);
        }
    });
}

/// Buries every child there is now but `others`, whose keepers do. For a process that has just begun and has started
/// none itself. Where the kernel does not list children, the worst is a zombie.
pub(crate) fn tend(others: &[u32]) {
    let me = std::process::id();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{me}/children"));
    let listed = listed.unwrap_or_default();
    for pid in listed.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        if !others.contains(&pid)
            && reap(pid).is_none()
            && let Ok(id) = ProcessId::of(pid)
        {
            bury(id);
        }
    }
}

/// The exit status of a child that has ended; `None` for one that has not, and for those who are not ours to wait for.
fn reap(pid: u32) -> Option<ExitStatus> {
    let (_, status) = waitpid(Some(pid_of(pid)?), WaitOptions::NOHANG).ok()??;
    Some(ExitStatus::from_raw(status.as_raw()))
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    #![allow(
        clippy::zombie_processes,
        reason = "that it is waited for elsewhere is what is tested"
    )]
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_child_is_reaped_once_and_only_when_it_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert_eq!(reap(id.pid), None);
        child.kill().unwrap();
        process::gone(id).await;
        assert_eq!(reap(id.pid).unwrap().signal(), Some(nix::libc::SIGKILL));
        assert_eq!(reap(id.pid), None);
        assert_eq!(reap(1), None);
    }

    #[tokio::test]
    async fn how_a_child_ended_is_told_and_it_leaves_no_zombie() {
        for (word, success) in [("true", true), ("false", false)] {
            let child = Command::new(word).spawn().unwrap();
            let id = ProcessId::of(child.id()).unwrap();
            assert_eq!(ended(id).await.unwrap().success(), success);
            assert!(ProcessId::of(id.pid).is_ok(), "to tell is not to reap");
            bury(id);
            while ProcessId::of(id.pid).is_ok() {
                tokio::task::yield_now().await;
            }
        }
        let me = ProcessId::me().unwrap();
        assert_eq!(ended(ProcessId { start_time: 1, ..me }).await, None);
    }
}
