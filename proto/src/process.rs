//! A process's name that cannot be mistaken for a later one's: its pid together with its start time.
//!
//! Gone is whose pidfd is readable: the pidfd is opened first and the start time compared after, so that a later process
//! with the same pid is never waited for. It holds for processes that are nobody's children, too. A process may have run
//! its last instruction long before it is gone; one that cannot be looked at, since there are no descriptors left, counts
//! as living: whoever takes it for dead takes its tunnels.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

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
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = Stat::of(&text).and_then(|stat| stat.start_time()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat")
        })?;
        Ok(Self { pid, start_time })
    }

    /// This process.
    pub fn me() -> io::Result<Self> {
        Self::of(std::process::id())
    }
}

/// Before a process is looked at again that could not be.
const AGAIN: Duration = Duration::from_millis(100);

/// A pidfd of that very process; `None` when it is gone.
///
/// # Errors
/// It cannot be told: there are no descriptors left.
pub fn open(id: ProcessId) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = pid_of(id) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(error) if is_shortage(&error.into()) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    match ProcessId::of(id.pid) {
        Ok(now) => Ok((now == id).then_some(pidfd)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn pid_of(id: ProcessId) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id.pid).ok()?)
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Whether the process may still do something. One that has ended may not, even while nobody has waited for it yet: an
/// orphan's new parent may take its time. Nor may one that the kernel is still taking apart: with thousands of
/// descriptors that takes tens of milliseconds, in which nobody serves what it has left.
pub fn runs(id: ProcessId) -> bool {
    let pidfd = match open(id) {
        Ok(Some(pidfd)) => pidfd,
        Ok(None) => return false,
        // The number is all that can be asked for.
        Err(_) => return pid_of(id).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH)),
    };
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&at_once)) == Ok(0) && !exits(id.pid)
}

/// How a process ends that [`runs`] no more, as wait(2) will tell it; `None` where it runs, or where the kernel does not
/// say yet. An orderly end is never told: its status is the same as none.
pub fn ending(id: ProcessId) -> Option<i32> {
    // Held until the end, so that all of this is about one process.
    let _pidfd = open(id).ok()??;
    if !exits(id.pid) {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{}/stat", id.pid)).ok()?;
    Stat::of(&text)?.exit_code().filter(|status| *status != 0)
}

/// Waits until the process is gone; at once where it is already. Cancel-safe. Needs a tokio runtime.
pub async fn gone(id: ProcessId) {
    loop {
        match open(id) {
            Ok(None) => return,
            Ok(Some(pidfd)) => {
                if let Ok(pidfd) = owned::watch(pidfd) {
                    // An error can only mean that there is nothing to wait for.
                    drop(pidfd.readable().await);
                    return;
                }
            }
            Err(_) if !runs(id) => return,
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether every thread is on its way out (`PF_EXITING`): none returns to the program from there, nor to a system call.
///
/// A list of threads is cut short only behind one that was released meanwhile, and that one's file cannot be read any
/// more. A second look finds whom one of the first has started before it began to exit; there is no third generation,
/// since a thread exits together with the main thread, and then starts nothing.
fn exits(pid: u32) -> bool {
    let Some(first) = exiting_threads(pid) else { return false };
    exiting_threads(pid).is_some_and(|second| second.is_subset(&first))
}

/// The threads, if each of them exits; the kernel releases some while we look, and then we look again.
fn exiting_threads(pid: u32) -> Option<BTreeSet<OsString>> {
    const LOOKS: usize = 8;
    let directory = format!("/proc/{pid}/task");
    'look: for _ in 0..LOOKS {
        let mut threads = BTreeSet::new();
        for thread in fs::read_dir(&directory).ok()? {
            let name = thread.ok()?.file_name();
            let stat = fs::read_to_string(format!("{directory}/{}/stat", name.to_str()?));
            let Ok(stat) = stat else { continue 'look };
            if !Stat::of(&stat)?.is_exiting() {
                return None;
            }
            threads.insert(name);
        }
        return (!threads.is_empty()).then_some(threads);
    }
    None
}

/// `/proc/PID/stat` behind the name, which may hold spaces and brackets: fields are counted from its last bracket.
struct Stat<'a>(&'a str);

impl<'a> Stat<'a> {
    fn of(text: &'a str) -> Option<Self> {
        text.rsplit_once(')').map(|(_, rest)| Self(rest))
    }

    /// A field, by its number in proc(5).
    fn field<T: FromStr>(&self, number: usize) -> Option<T> {
        self.0.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    }

    fn start_time(&self) -> Option<u64> {
        self.field(22)
    }

    fn is_exiting(&self) -> bool {
        const PF_EXITING: u64 = 4;
        self.field::<u64>(9).is_some_and(|flags| flags & PF_EXITING != 0)
    }

    fn exit_code(&self) -> Option<i32> {
        self.field(52)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = Stat::of(stat).unwrap();
        assert_eq!((stat.start_time(), stat.is_exiting()), (Some(4242), false));
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

    /// The first process of a pid namespace cannot end before everybody in it has been waited for, and one of them is a
    /// child of somebody who waits for nobody.
    #[tokio::test]
    async fn what_the_kernel_takes_apart_does_nothing_any_more() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};

        let script = "sleep 60 & echo $!; sleep 60 & echo $!; exec sleep 60";
        let arguments: &[_] =
            if rustix::process::geteuid().is_root() { &["-p"] } else { &["-r", "-p"] };
        let mut parent = Command::new("unshare")
            .args(arguments)
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let mut next = || ProcessId::of(lines.next().unwrap().unwrap().parse().unwrap()).unwrap();
        let (first, second) = (next(), next());
        // Until then it is a shell, which waits for its children.
        let name = || fs::read_to_string(format!("/proc/{}/comm", parent.id())).unwrap();
        while name() != "sleep\n" {
            tokio::task::yield_now().await;
        }
        assert!(runs(first) && ending(first).is_none());

        let kill = rustix::process::Signal::KILL;
        rustix::process::pidfd_send_signal(open(first).unwrap().unwrap(), kill).unwrap();
        while runs(first) || ending(first).is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ending(first), Some(kill.as_raw()));
        let mut waiting = std::pin::pin!(gone(first));
        let moment = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(moment, &mut waiting).await.is_err(), "it is still there");

        // Their next parent is this process, which does wait.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        parent.kill().unwrap();
        parent.wait().unwrap();
        for id in [second, first] {
            let pid = Pid::from_raw(i32::try_from(id.pid).unwrap());
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        }
        waiting.await;
        assert!(!runs(first));
    }

    #[test]
    #[ignore = "a process that the next test starts"]
    fn the_process_without_descriptors() {
        let parent = ProcessId::of(std::os::unix::process::parent_id()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 3, 3).unwrap();
        assert!(open(parent).is_err() && runs(parent));
        let moment = Duration::from_millis(250);
        let gone = async { tokio::time::timeout(moment, gone(parent)).await };
        assert!(runtime.block_on(gone).is_err());
        // No kernel gives this number.
        let nobody = ProcessId { pid: i32::MAX.unsigned_abs(), start_time: 1 };
        assert!(!runs(nobody));
        runtime.block_on(super::gone(nobody));
    }

    #[test]
    fn a_process_without_descriptors_takes_nobody_for_dead() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::tests::the_process_without_descriptors", "--ignored"])
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn this_process_is_itself() {
        let me = ProcessId::me().unwrap();
        assert_eq!(ProcessId::of(me.pid).unwrap(), me);
    }
}
