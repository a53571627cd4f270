//! Workers whose supervisor is gone and that no other one will come for: a service that is to be stopped.
//!
//! Who ends them may be root, and the list of them is the gateway's user's: nothing on it is signalled that is not of the
//! caller's own control group, which is a thing that only root decides.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::process::{self, ProcessId};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::children::{Children, signal};

/// Time to end by themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the children that are listed in a runtime directory and are of this process's control group, with their connections;
/// answers how many there were. Needs a tokio runtime.
pub async fn end(runtime: &Path) -> usize {
    let ours = group_of("self");
    let left = Children::new(runtime).left_behind();
    let left = left.iter().filter(|it| ours.is_some() && group_of(&it.pid.to_string()) == ours);
    let ids: Vec<ProcessId> =
        left.map(|it| ProcessId { pid: it.pid, start_time: it.start_time }).collect();
    for id in &ids {
        signal(*id, Signal::TERM);
    }
    let all = join_all(ids.iter().map(|id| process::gone(*id)));
    if timeout(PATIENCE, all).await.is_err() {
        for id in &ids {
            signal(*id, Signal::KILL);
        }
        join_all(ids.iter().map(|id| process::gone(*id))).await;
    }
    ids.len()
}

/// Where a process is in the trees of control groups.
fn group_of(pid: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

/// Ends one process at once, as a crash would.
pub fn kill(id: ProcessId) {
    signal(id, Signal::KILL);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::children::Role;

    #[tokio::test]
    async fn those_that_are_listed_and_live_are_ended() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(end(directory.path()).await, 0);
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = ProcessId::of(sleeper.id()).unwrap();
        let children = Children::new(directory.path());
        let other = ProcessId { start_time: 1, ..ProcessId::me().unwrap() };
        for id in [id, other] {
            children.born(&children.expect(Role::Prober), id).unwrap();
        }
        assert_eq!(end(directory.path()).await, 1);
        assert!(!sleeper.wait().unwrap().success());
    }
}
