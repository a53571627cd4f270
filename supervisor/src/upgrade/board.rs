//! Who has asked for an upgrade, how far the last one has come, and what the next executable is to have.
//!
//! Nothing is carried out here.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use holdfast_proto::admin::UpgradeStatus;
use holdfast_proto::admin::upgrade_status::Step;
use tokio::sync::{Notify, watch};

use super::guard;

/// Bytes of randomness in an upgrade's id: enough that two gateways never confuse their callers.
const ID_BYTES: usize = 8;

/// What only the executable as a whole knows, without which it cannot be upgraded.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Layout of its workers' arenas.
    pub arena: u32,
}

/// Upgrades of this supervisor: the one that is asked for, and how far the last one has come.
#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    pub(super) terms: OnceLock<Terms>,
    /// What the next executable is to have, besides the listening sockets.
    pub(super) kept: Mutex<BTreeMap<&'static str, OwnedFd>>,
    pub(super) status: watch::Sender<UpgradeStatus>,
    /// SIGHUPs that were heard and not answered yet: a reload waits while an executable is checked.
    pub(crate) hangups: AtomicUsize,
    pub(super) deferred: Mutex<Deferred>,
    asked: Mutex<Inbox>,
    bell: Notify,
}

/// A stop that comes before an executable that takes over has all workers would leave those behind.
#[derive(Debug, Default)]
pub(super) enum Deferred {
    #[default]
    No,
    /// With what was asked for.
    Yes(Option<Duration>),
}

#[derive(Debug, Default)]
struct Inbox {
    next: Option<Asked>,
    /// Nobody takes any more.
    closed: bool,
}

/// An upgrade that somebody wants.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) binary: PathBuf,
    pub(super) by: String,
}

/// Why an upgrade was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// A demo.
    #[error(
        "this gateway cannot be upgraded in place: it is a demo, whose backends would end with its executable"
    )]
    NotHere,
    /// One at a time.
    #[error("an upgrade to {} is under way (its id is {id})", binary)]
    Busy {
        /// To what.
        binary: String,
        /// To follow it.
        id: String,
    },
    /// Too late.
    #[error("the gateway stops; start it again first")]
    Stopping,
    /// `/proc` does not tell what to start.
    #[error("cannot tell which file this executable was started from: name one with --binary")]
    Unknown(#[source] io::Error),
}

// === impl Upgrades ===

impl Upgrades {
    /// Lets upgrades be asked for.
    pub(crate) fn allow(&self, terms: Option<Terms>) {
        if let Some(terms) = terms {
            // A second call would come with the same.
            self.terms.set(terms).unwrap_or_default();
        }
    }

    /// Keeps a duplicate of a descriptor for the next executable.
    pub(crate) fn keep(&self, name: &'static str, fd: impl AsFd) -> io::Result<()> {
        let duplicate = fd.as_fd().try_clone_to_owned()?;
        lock(&self.kept).insert(name, duplicate);
        Ok(())
    }

    /// The next executable is not to have it.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.kept).remove(name);
    }

    /// A duplicate of something that is kept.
    pub(crate) fn kept(&self, name: &str) -> Option<OwnedFd> {
        lock(&self.kept).get(name).and_then(|fd| fd.try_clone().ok())
    }

    /// Begins an upgrade to the executable at `binary`, or to where this one came from. Answers its id.
    pub(crate) fn ask(&self, binary: Option<PathBuf>, by: String) -> Result<String, AskError> {
        if self.terms.get().is_none() {
            return Err(AskError::NotHere);
        }
        let binary = match binary {
            Some(binary) => binary,
            None => own_path().map_err(AskError::Unknown)?,
        };
        let mut inbox = lock(&self.asked);
        if inbox.closed {
            return Err(AskError::Stopping);
        }
        let bytes: [u8; ID_BYTES] = rand::random();
        let id = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let fresh = UpgradeStatus {
            id: id.clone(),
            step: Step::Checking.into(),
            binary: binary.display().to_string(),
            from_version: holdfast_proto::VERSION.to_owned(),
            ..UpgradeStatus::default()
        };
        let mut busy = None;
        self.status.send_if_modified(|status| {
            if status.step() == Step::Unspecified || is_last(status.step()) {
                *status = fresh;
                return true;
            }
            busy = Some(AskError::Busy { binary: status.binary.clone(), id: status.id.clone() });
            false
        });
        if let Some(busy) = busy {
            return Err(busy);
        }
        inbox.next = Some(Asked { binary, by });
        self.bell.notify_one();
        Ok(id)
    }

    /// The next upgrade that somebody wants. Cancel-safe.
    pub(crate) async fn asked(&self) -> Asked {
        loop {
            if let Some(asked) = lock(&self.asked).next.take() {
                return asked;
            }
            self.bell.notified().await;
        }
    }

    /// How the last upgrade stands, and each step.
    pub(crate) fn watch(&self) -> watch::Receiver<UpgradeStatus> {
        self.status.subscribe()
    }

    /// Whether a stop waits already.
    pub(crate) fn owes_a_stop(&self) -> bool {
        matches!(&*lock(&self.deferred), Deferred::Yes(Some(_)))
    }

    /// Whether a stop has to wait. It comes as soon as the start is over, or after a rollback; one that only detaches does not
    /// then, for the executable before would drain.
    pub(crate) fn defer_stop(&self, tunnel_deadline: Duration, detached: bool) -> bool {
        match &mut *lock(&self.deferred) {
            Deferred::No => false,
            Deferred::Yes(asked) => {
                *asked = Some(asked.map_or(tunnel_deadline, |sooner| sooner.min(tunnel_deadline)));
                if !detached {
                    guard::owe_stop();
                }
                true
            }
        }
    }

    /// The gateway stops: whoever asked and is not begun with is told.
    pub(crate) fn end(&self) {
        let mut inbox = lock(&self.asked);
        inbox.closed = true;
        if inbox.next.take().is_some() {
            self.refuse(&AskError::Stopping);
        }
    }

    pub(super) fn note(&self, step: Step, change: impl FnOnce(&mut UpgradeStatus)) {
        self.status.send_modify(|status| {
            status.set_step(step);
            change(status);
        });
    }

    pub(super) fn refuse(&self, refusal: &(dyn std::error::Error + 'static)) {
        let reason = chain(refusal);
        tracing::error!(binary = self.status.borrow().binary, reason, "upgrade refused");
        self.note(Step::Refused, |status| status.reason = reason);
    }
}

/// Whether nothing comes after that step.
pub(crate) fn is_last(step: Step) -> bool {
    matches!(step, Step::Done | Step::Refused | Step::RolledBack)
}

/// Where this executable was started from; another file may lie there now.
pub(super) fn own_path() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// An error and its causes, in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
