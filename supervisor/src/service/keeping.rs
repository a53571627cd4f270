//! The thread that keeps the manager's copies up to date: it alone waits for the manager, but for the first pass of a start.
//!
//! It costs a bounded part of one core, however many tunnels come and go: a pass looks at all of them.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::name::Name;
use super::notify::{self, Manager};
use super::store::{Pass, Shop, Store, Wanted};
use crate::directories::write_private;
use crate::state::Supervisor;

/// Between two passes: what opens at the same time goes together.
const PAUSE: Duration = Duration::from_millis(50);
/// So many times as long as a pass takes is nothing done after it: a twentieth of a core at most.
const REST: u32 = 19;
/// Listening sockets ring no bell, stale pages neither, nor does the end of the start. And before a manager that was not
/// reached, since it is busy or begins anew, is tried again.
const LOOK: Duration = Duration::from_secs(2);
/// Before the manager is asked again that has kept nothing.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest wait for the thread, at the end.
const END: Duration = Duration::from_secs(5);
/// The list of what is kept, in the runtime directory. An executable that takes this process's place has nothing else to go by.
const LIST: &str = "kept";

/// The thread.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Whether everything is to be taken back.
    end: watch::Sender<Option<bool>>,
    ended: oneshot::Receiver<()>,
}

/// The manager, and the list of what it keeps.
#[derive(Debug)]
struct Files {
    manager: &'static Manager,
    list: PathBuf,
}

/// What an operator is told of it.
#[derive(Debug, Default)]
struct Told {
    problem: Option<String>,
    /// What is put there now is seen to be kept by the next pass only.
    doubtful: bool,
}

/// Begins to keep what is held; `passed` is what the manager has passed.
pub(super) fn begin(supervisor: &Arc<Supervisor>, passed: Vec<String>) -> Option<Keeping> {
    let manager = notify::manager()?;
    let list = supervisor.directories.runtime.join(LIST);
    let noted = listed(&list);
    let mut store = Store::new(Files { manager, list }, passed, noted, most());
    // Now: what was on the manager's pages is in this process alone, which has a whole start before it.
    let mut told_so_far = Told::default();
    told_so_far.note(supervisor, &pass(supervisor, &mut store));
    let (end, told) = watch::channel(None);
    let (tell, ended) = oneshot::channel();
    let supervisor = supervisor.clone();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        match runtime {
            Ok(runtime) => runtime.block_on(keep(supervisor, store, told_so_far, told)),
            Err(error) => tracing::error!(%error, "nothing is copied to the service manager"),
        }
        // Nobody waits, unless it is the end.
        tell.send(()).unwrap_or_default();
    };
    let started = std::thread::Builder::new().name("keeping".to_owned()).spawn(run);
    started
        .inspect_err(|error| tracing::error!(%error, "nothing is copied to the service manager"))
        .ok()?;
    Some(Keeping { end, ended })
}

/// Two descriptors each, and what is on its way between processes of one user is limited, too: a quarter of that is left to
/// others.
fn most() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    usize::try_from(soft / 4).unwrap_or(usize::MAX)
}

fn listed(list: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(list).unwrap_or_default();
    text.lines().filter(|line| Name::parse(line).is_some()).map(str::to_owned).collect()
}

fn pass(supervisor: &Supervisor, store: &mut Store<Files>) -> io::Result<Pass> {
    store.pass(&wanted(supervisor), |keys| supervisor.vault.copies(keys))
}

async fn keep(
    supervisor: Arc<Supervisor>,
    mut store: Store<Files>,
    mut told_so_far: Told,
    mut told: watch::Receiver<Option<bool>>,
) {
    loop {
        let begun = Instant::now();
        let outcome = pass(&supervisor, &mut store);
        told_so_far.note(&supervisor, &outcome);
        let pause = match outcome {
            Ok(Pass::Done | Pass::Full(_)) => PAUSE,
            Ok(Pass::Refused) => AGAIN,
            Err(_) => LOOK,
        };
        let pause = pause.max(begun.elapsed() * REST);
        let changed = async {
            sleep(pause).await;
            // Cancel-safe: it only waits, and what is held is looked at as a whole.
            drop(timeout(LOOK, supervisor.vault.changed()).await);
        };
        // Cancel-safe, both: they only wait.
        let end = tokio::select! {
            () = changed => None,
            end = told.wait_for(Option::is_some) => Some(end.is_ok_and(|end| *end == Some(true))),
        };
        match end {
            None => {}
            Some(false) => return,
            Some(true) => {
                if let Err(error) = store.clear() {
                    tracing::debug!(%error, "the service manager keeps what it has");
                }
                return;
            }
        }
    }
}

fn wanted(supervisor: &Supervisor) -> Wanted {
    let shared = supervisor.vault.shared();
    let arenas = shared.arenas.into_iter();
    let arenas = arenas.map(|(listener, version, fd)| (Name::Arena { listener, version }, fd));
    let tallies = shared.tallies.into_iter().map(|(listener, fd)| (Name::Tally(listener), fd));
    let groups = supervisor.groups();
    let sockets = groups.iter().filter_map(|group| Some((group.address, group.socket()?)));
    let duplicate = |socket: &TcpListener| socket.as_fd().try_clone_to_owned().ok();
    let sockets = sockets
        .filter_map(|(address, socket)| Some((Name::Listener(address), duplicate(&socket)?)));
    let single: Vec<(Name, OwnedFd)> = sockets.chain(arenas).chain(tallies).collect();
    Wanted { single, tunnels: supervisor.vault.keys(), is_all: *supervisor.started.borrow() }
}

// === impl Told ===

impl Told {
    fn note(&mut self, supervisor: &Supervisor, outcome: &io::Result<Pass>) {
        let was_doubtful = std::mem::replace(&mut self.doubtful, false);
        let problem = match outcome {
            Ok(Pass::Done) if was_doubtful => return,
            Ok(Pass::Done) => None,
            Ok(Pass::Full(tunnels)) => Some(format!(
                "{tunnels} tunnels would be lost should all processes die at once: the limit on descriptors \
                 (LimitNOFILE) allows no more copies"
            )),
            Ok(Pass::Refused) => {
                self.doubtful = true;
                Some(
                    "the service manager keeps no more descriptors: tunnels would be lost should all \
                     processes die at once. Raise FileDescriptorStoreMax in the unit"
                        .to_owned(),
                )
            }
            Err(error) => Some(format!(
                "tunnels are not copied to the service manager, and would be lost should all processes die at once: \
                 {error}"
            )),
        };
        if problem == self.problem {
            return;
        }
        // Once an outage; `status` has the present figure.
        if let Some(problem) = problem.as_ref().filter(|_| self.problem.is_none()) {
            tracing::warn!("{problem}");
        }
        supervisor.problem("service", problem.clone());
        self.problem = problem;
    }
}

// === impl Keeping ===

impl Keeping {
    pub(super) async fn end(self, take_back: bool) {
        // A thread that is gone has nothing to end.
        self.end.send(Some(take_back)).unwrap_or_default();
        drop(timeout(END, self.ended).await);
    }
}

// === impl Files ===

impl Shop for Files {
    fn put(&mut self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        // What nobody listens at any more is kept all the same: its peers have not all heard of it.
        self.manager.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[fd])
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.manager.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    fn note(&mut self, names: &BTreeSet<String>) {
        let mut text = String::new();
        for name in names {
            text.push_str(name);
            text.push('\n');
        }
        if let Err(error) = write_private(&self.list, text.as_bytes()) {
            tracing::debug!(%error, "the list of what the service manager keeps is out of date");
        }
    }
}
