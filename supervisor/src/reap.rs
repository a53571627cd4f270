//! Waiting for children that this process has from before it re-executed itself: nobody else would, and each would stay a
//! zombie.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use holdfast_proto::process::{self, ProcessId};
use rustix::process::{Pid, WaitOptions, waitpid};

/// The exit status of a child that has ended; `None` for one that has not, and for those who are not ours to wait for.
pub(crate) fn reap(pid: u32) -> Option<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let (_, status) = waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(ExitStatus::from_raw(status.as_raw()))
}

/// Waits for every child there is now but `others`, whose keepers wait for them. For a process that has just begun and
/// has started none itself. Where the kernel does not list children, the worst is a zombie.
pub(crate) fn tend(others: &[u32]) {
    let me = std::process::id();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{me}/children"));
    let listed = listed.unwrap_or_default();
    for pid in listed.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        if !others.contains(&pid)
            && reap(pid).is_none()
            && let Ok(id) = ProcessId::of(pid)
        {
            tokio::spawn(async move {
                process::gone(id).await;
                reap(pid);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    #[allow(clippy::zombie_processes, reason = "to wait is what is tried")]
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
}
