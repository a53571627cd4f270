//! A process's name that cannot be mistaken for a later one's: its pid together with its start time.
//!
//! Gone is whose pidfd is readable: the pidfd is opened first and the start time compared after, so that a later process
//! with the same pid is never waited for. It holds for processes that are nobody's children, too.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::fd_channel::owned;

/// A process, told apart from any later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The pid in this pid namespace.
    pub pid: u32,
    /// Clock ticks between boot and start: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that runs now under `pid`.
    ///
    /// # Errors
    /// `NotFound` where there is none, `InvalidData` where `/proc` does not look as documented in proc(5).
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time_of(&stat).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat")
        })?;
        Ok(Self { pid, start_time })
    }

    /// This process.
    pub fn me() -> io::Result<Self> {
        Self::of(std::process::id())
    }
}

/// A pidfd of that very process; `None` when it is gone.
pub fn open(id: ProcessId) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(id.pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    (ProcessId::of(id.pid).ok()? == id).then_some(pidfd)
}

/// Whether the process still runs. One that has ended does not, even while nobody has waited for it yet: an orphan's new
/// parent may take its time.
pub fn runs(id: ProcessId) -> bool {
    let Some(pidfd) = open(id) else { return false };
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&at_once)) == Ok(0)
}

/// Waits until the process is gone; at once where it is already. Cancel-safe. Needs a tokio runtime.
pub async fn gone(id: ProcessId) {
    if let Some(pidfd) = open(id)
        && let Ok(pidfd) = owned::watch(pidfd)
    {
        // An error can only mean that there is nothing to wait for.
        drop(pidfd.readable().await);
    }
}

/// Field 22; the name (field 2) may hold spaces and brackets, so fields are counted from its last bracket.
fn start_time_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(start_time_of(stat), Some(4242));
    }

    #[tokio::test]
    async fn a_child_is_there_until_it_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(runs(id));
        assert!(!runs(ProcessId { start_time: id.start_time + 1, ..id }));
        let mut waiting = std::pin::pin!(gone(id));
        let moment = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(moment, &mut waiting).await.is_err());
        child.kill().unwrap();
        waiting.await;
        // Ended, though nobody has waited for it.
        assert!(!runs(id));
        child.wait().unwrap();
        gone(id).await;
    }

    #[test]
    fn this_process_is_itself() {
        let me = ProcessId::me().unwrap();
        assert_eq!(ProcessId::of(me.pid).unwrap(), me);
    }
}
