//! Upgrades: another executable takes this process's place, under the same pid, and then every worker's.
//!
//! ```text
//! ask ── check: a child of the new executable answers that it can take over ──> no: refused
//!   └─ leave: exec, with the lock and the sockets ──> failed: refused, and everything goes on
//!        └─ the new executable starts as after a crash, under a guard ──> not ready: exec of the old one, rolled back
//!             └─ finish: every group is restarted ──> done
//! ```
//! To exec is to crash and start at once: workers and tunnels know no difference, and what a start does for them is
//! done by [`crate::run`]. What is here is only what makes it safe: `check` and `candidate` before, `leave` and
//! `inherited` between, `guard` after. Nothing is changed before the exec, and nothing irrevocable before readiness.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_proto::admin::upgrade_status::Step;
use tokio::sync::MutexGuard;
use tokio::time::{interval, sleep, timeout};

use crate::change;
use crate::group;
use crate::state::Supervisor;

pub(crate) mod board;
mod candidate;
mod check;
pub(crate) mod early;
mod guard;
mod inherited;
mod leave;
mod manifest;

pub use board::Terms;
pub(crate) use board::{Asked, chain, is_last};
use board::{Deferred, lock};
pub use candidate::answer as takeover_check;
pub use inherited::arrive;
pub(crate) use inherited::{Inherited, inherited};
use manifest::{Manifest, Question, TAKEOVER};

/// Longest wait for children that are being born: a fork, a line in a file and one in a pipe each.
const BIRTHS: Duration = Duration::from_secs(10);
/// From a signal's handler to the task that answers it: microseconds, on a busy machine some milliseconds.
const SIGNALS: Duration = Duration::from_millis(20);
/// Longest wait for a successor to take what a dead worker has left. One starts within tenths of a second; where the
/// dead one was a successor itself, and its predecessor is stopped, that is overcome within five.
const ORPHANS: Duration = Duration::from_secs(10);
/// Between two looks whether it has: little beside its start, and one look at 10,000 tunnels takes a millisecond.
const LOOK: Duration = Duration::from_millis(20);

/// What is kept: the status address's listening socket.
pub(crate) const STATUS: &str = "status";
/// The operators' listening socket, so that whoever dials it meanwhile waits in its queue.
pub(crate) const ADMIN: &str = "admin";
/// The same of operators who come over the network.
pub(crate) const ADMIN_NETWORK: &str = "admin network";
/// The runtime directory's lock.
pub(crate) const LOCK: &str = "lock";
/// The ledger's lock.
pub(crate) const LEDGER: &str = "ledger";
/// Keys of session tickets.
pub(crate) const TICKETS: &str = "tickets";

/// Why an upgrade was refused, or is rolled back.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a file", path.display())]
    NotFile { path: PathBuf },
    #[error(transparent)]
    Check(#[from] check::CheckError),
    #[error("the gateway stops")]
    Stopping,
    #[error("a change of the configuration is still being made; try again after it")]
    Changing,
    #[error("a process is still being started; try again")]
    Births,
    #[error("{0} tunnels of a worker that died have no new one yet, and would be lost; try again")]
    Orphans(usize),
    #[error(
        "the list of children in the runtime directory cannot be written (a full disk?), and the new one would not know its workers: make room there, then try again"
    )]
    Unlisted,
    #[error("cannot start it in this process's place; the old one goes on")]
    Leave(#[from] leave::LeaveError),
}

/// A new executable that can take over. No change is made while there is one.
pub(crate) struct Ready<'a> {
    supervisor: &'a Arc<Supervisor>,
    binary: File,
    by: String,
    _unchanged: MutexGuard<'a, ()>,
}

/// Checks the executable that somebody wants. `None`: it was refused.
pub(crate) async fn prepare(supervisor: &Arc<Supervisor>, asked: Asked) -> Option<Ready<'_>> {
    supervisor.problem("upgrade", None);
    tracing::info!(binary = %asked.binary.display(), by = asked.by, "upgrade: asking the new executable");
    // Cancel-safe: nothing is changed, and a candidate that is let go of is killed.
    let checked = tokio::select! {
        checked = check(supervisor, asked) => checked,
        () = supervisor.stopped() => Err(Refusal::Stopping),
    };
    match checked {
        Ok(ready) => Some(ready),
        Err(refusal) => {
            supervisor.upgrades.refuse(&refusal);
            None
        }
    }
}

async fn check(supervisor: &Arc<Supervisor>, asked: Asked) -> Result<Ready<'_>, Refusal> {
    let unchanged = timeout(change::LONGEST, supervisor.changing.lock());
    let unchanged = unchanged.await.map_err(|_| Refusal::Changing)?;
    if !supervisor.children.is_listed() {
        return Err(Refusal::Unlisted);
    }
    let binary = open(&asked.binary)?;
    let terms = supervisor.upgrades.terms.get().copied().ok_or(Refusal::Stopping)?;
    let question = Question {
        takeover: TAKEOVER,
        protocol: holdfast_proto::protocol(),
        arena: terms.arena,
        runtime_dir: supervisor.directories.runtime.clone(),
        state_dir: supervisor.directories.state.clone(),
        revision: supervisor.revision(),
        arguments: std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect(),
    };
    let version = check::ask(&binary, &question).await?;
    // Last, so that what dies while the candidate is asked counts.
    no_orphans(supervisor).await?;
    supervisor.upgrades.note(Step::Checking, |status| status.to_version = version);
    Ok(Ready { supervisor, binary, by: asked.by, _unchanged: unchanged })
}

/// Waits until each tunnel has a worker: what only the vault holds ends with the exec.
async fn no_orphans(supervisor: &Supervisor) -> Result<(), Refusal> {
    let orphans = || supervisor.vault.orphans();
    if orphans() == 0 {
        return Ok(());
    }
    tracing::info!(
        tunnels = orphans(),
        "upgrade: tunnels of a worker that died have no new one yet"
    );
    let taken = async {
        let mut looks = interval(LOOK);
        while orphans() > 0 {
            looks.tick().await;
        }
    };
    timeout(ORPHANS, taken).await.map_err(|_| Refusal::Orphans(orphans()))
}

/// Once, so that what is started is what was checked. Never waits for a pipe's other end.
fn open(path: &Path) -> Result<File, Refusal> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let failed = |source| Refusal::Open { path: path.to_owned(), source };
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Refusal::NotFile { path: path.to_owned() });
    }
    Ok(file)
}

// === impl Ready ===

impl Ready<'_> {
    /// Tells those who follow to dial again.
    pub(crate) fn announce(&self) {
        // Early, so that the log's thread has written it before the exec ends it.
        let version = self.supervisor.upgrades.status.borrow().to_version.clone();
        tracing::info!(version, "upgrade: the new executable takes over");
        self.supervisor.upgrades.note(Step::TakingOver, |_| {});
    }

    /// Re-executes this process. Comes back only when that has failed, with everything as before.
    pub(crate) async fn take_over(self) {
        let error = self.try_take_over().await;
        self.supervisor.upgrades.refuse(&error);
    }

    async fn try_take_over(&self) -> Refusal {
        let supervisor = self.supervisor;
        // From here on nobody forks: descriptors are made inheritable.
        let Ok(_births) = timeout(BIRTHS, supervisor.spawner.hold()).await else {
            return Refusal::Births;
        };
        // Those that were heard before have been acted upon when this is over; the others wait for the next executable.
        let _held_back = early::hold_back();
        sleep(SIGNALS).await;
        if supervisor.stopping() {
            return Refusal::Stopping;
        }
        // Somebody may have been born since the check, and nobody is before this is over.
        if !supervisor.children.is_listed() {
            return Refusal::Unlisted;
        }
        // Of one that has died since the check; its successor cannot be born before this is over.
        let orphans = supervisor.vault.orphans();
        if orphans > 0 {
            return Refusal::Orphans(orphans);
        }
        // A drain that is being written is written.
        let _whole = supervisor.ledger();
        let mut kept = Vec::new();
        for (name, fd) in &*lock(&supervisor.upgrades.kept) {
            match fd.try_clone() {
                Ok(fd) => kept.push(((*name).to_owned(), fd)),
                Err(source) => return leave::LeaveError::from(source).into(),
            }
        }
        for socket in supervisor.groups().iter().filter_map(|group| group.socket()) {
            match socket.as_fd().try_clone_to_owned() {
                Ok(fd) => kept.push((manifest::LISTENER.to_owned(), fd)),
                Err(source) => return leave::LeaveError::from(source).into(),
            }
        }
        let status = supervisor.upgrades.status.borrow().clone();
        let mut draft = Manifest::of(&status, &self.by, leave::patience());
        draft.reload = supervisor.upgrades.hangups.load(Ordering::Relaxed) > 0;
        match leave::leave(&self.binary, draft, kept) {
            Ok(never) => match never {},
            Err(error) => error.into(),
        }
    }
}

/// What is left of an upgrade when the start is over: every group is restarted, or the rollback is told of.
pub(crate) async fn finish(supervisor: Arc<Supervisor>, inherited: Arc<Inherited>) {
    let upgrades = &supervisor.upgrades;
    let Some(record) = inherited.record() else { return };
    let to = &record.to_version;
    if let Some(reason) = inherited.rolled_back() {
        let told =
            format!("the last upgrade, to {} ({to}), was rolled back: {reason}", record.binary);
        tracing::error!("{told}");
        supervisor.problem("upgrade", Some(told));
        upgrades.note(Step::RolledBack, |status| reason.clone_into(&mut status.reason));
        return;
    }
    tracing::info!(from = record.from_version, to, by = record.by, "upgrade: replacing workers");
    let groups = supervisor.groups();
    let listeners = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    upgrades.note(Step::Replacing, |status| status.listeners = listeners);
    for group in groups {
        let result = group.restart().await;
        if let Err(error) = &result {
            if supervisor.group(group.address).is_none() {
                // Removed meanwhile: its workers live on as they are.
                continue;
            }
            tracing::error!(listener = %group.address, error, "upgrade: a worker was not replaced");
        }
        let replacement = group::replacement(group.address, result);
        upgrades.note(Step::Replacing, |status| status.replaced.push(replacement));
    }
    tracing::info!(from = record.from_version, to, "upgrade: done");
    upgrades.note(Step::Done, |_| {});
}

/// The start of an executable in another one's place: what was kept for it is kept for the next one too.
pub(crate) fn resume(supervisor: &Supervisor, inherited: &Inherited) -> io::Result<()> {
    let Some(record) = inherited.record() else { return Ok(()) };
    supervisor.upgrades.status.send_replace(record.status());
    *lock(&supervisor.upgrades.deferred) = Deferred::Yes(None);
    if inherited.owes_reload() {
        early::note_hangup();
    }
    for name in [STATUS, ADMIN, ADMIN_NETWORK] {
        if let Some(fd) = inherited.duplicate(name) {
            supervisor.upgrades.keep(name, fd)?;
        }
    }
    Ok(())
}

/// The start is over, well or by an operator's wish: there is no way back any more.
pub(crate) fn settle(supervisor: &Supervisor, inherited: &Inherited) {
    inherited.settle();
    let deferred = std::mem::take(&mut *lock(&supervisor.upgrades.deferred));
    if let Deferred::Yes(Some(tunnel_deadline)) = deferred {
        supervisor.begin_stop(tunnel_deadline);
    }
}

/// Rolls the upgrade back where this executable is not ready yet and there is one to go back to; else nothing.
pub fn failed(reason: &dyn std::error::Error) {
    guard::roll_back(format!("it could not start: {}", chain(reason)).as_bytes());
}

/// The same for a panic, in whatever thread.
pub fn panicked(panic: &str) {
    guard::roll_back(panic.as_bytes());
}

#[cfg(test)]
mod tests;
