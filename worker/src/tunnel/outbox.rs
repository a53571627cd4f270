//! What tunnels have for the vault, until the worker's line to it takes it.
//!
//! Nobody waits here; who opens a tunnel waits for its own answer, but not on a vault that is known not to answer. While
//! there is no line deposits are refused at once. Releases are kept then: the line may have failed and not the vault, and
//! one that has never held those tunnels passes them over. Only what was once sent is released, so that there are never
//! more of them than were live when the line failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::TunnelId;
use super::record::Record;

/// A tunnel on its way to the vault.
#[derive(Debug)]
pub(crate) struct Deposit {
    pub(super) record: Arc<Record>,
    /// Who waits for it; nobody waits for a tunnel that was opened unprotected.
    stored: Option<oneshot::Sender<bool>>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) deposits: Vec<Deposit>,
    /// To be sent after the deposits: one of them may be of a tunnel that has ended since.
    pub(crate) releases: Vec<TunnelId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    attached: bool,
    /// It let somebody wait in vain, and has said nothing since.
    silent: bool,
    deposits: VecDeque<Deposit>,
    releases: Vec<TunnelId>,
}

impl Deposit {
    pub(crate) fn id(&self) -> TunnelId {
        self.record.id
    }

    pub(crate) fn index(&self) -> u32 {
        self.record.slot.index()
    }

    pub(crate) fn sockets(&self) -> [std::os::fd::BorrowedFd<'_>; 2] {
        use std::os::fd::AsFd;
        self.record.sockets().map(|socket| socket.as_fd())
    }

    /// Tells who waits.
    pub(crate) fn answer(self, held: bool) {
        self.record.protect(held);
        if let Some(stored) = self.stored {
            // Who asked has given up: the tunnel runs unprotected, and is protected from now on.
            stored.send(held).unwrap_or_default();
        }
    }
}

impl Outbox {
    /// Hands a tunnel in; the answer is whether the vault holds it. At once `false` while there is no line, or nobody at its
    /// other end: then it is held later.
    pub(super) fn deposit(&self, record: Arc<Record>) -> oneshot::Receiver<bool> {
        let (stored, answer) = oneshot::channel();
        let mut inner = self.lock();
        let waits = inner.attached && !inner.silent;
        let stored = if waits {
            Some(stored)
        } else {
            stored.send(false).unwrap_or_default();
            None
        };
        if inner.attached {
            inner.deposits.push_back(Deposit { record, stored });
            drop(inner);
            self.bell.notify_one();
        }
        answer
    }

    /// Somebody has waited in vain: nobody else does until the vault has answered. Whether that is news.
    pub(super) fn note_silence(&self) -> bool {
        let mut inner = self.lock();
        inner.attached && !std::mem::replace(&mut inner.silent, true)
    }

    /// The vault has answered. Whether it had not before.
    pub(super) fn note_answer(&self) -> bool {
        std::mem::take(&mut self.lock().silent)
    }

    /// Hands in tunnels that nobody waits for.
    pub(super) fn deposit_all(&self, records: impl Iterator<Item = Arc<Record>>) {
        let mut inner = self.lock();
        // Under the lock: one that has ended since it was listed must not be held for ever.
        let deposits = records
            .filter(|record| !record.was_released())
            .map(|record| Deposit { record, stored: None });
        inner.deposits.extend(deposits);
        drop(inner);
        self.bell.notify_one();
    }

    /// The tunnel has ended: the vault lets go of it, if it was ever told of it.
    pub(super) fn release(&self, record: &Record) {
        let id = record.id;
        let mut inner = self.lock();
        record.note_released();
        if record.was_offered() {
            inner.releases.push(id);
            drop(inner);
            self.bell.notify_one();
        } else if let Some(at) = inner.deposits.iter().position(|waiting| waiting.id() == id) {
            // Not sent yet; its sockets must not stay open until a vault that is stopped goes on.
            let waited = inner.deposits.remove(at);
            drop(inner);
            drop(waited);
        }
    }

    /// The vault holds what has ended already: it was told so by a process that did not know.
    pub(super) fn release_ended(&self, ids: impl Iterator<Item = TunnelId>) {
        self.lock().releases.extend(ids);
        self.bell.notify_one();
    }

    /// Makes the line look up, whether there is something for it or not.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Whether there is a line. With a new one, what waited for the old one is dropped.
    pub(super) fn set_attached(&self, attached: bool) {
        let waiting = {
            let mut inner = self.lock();
            inner.attached = attached;
            inner.silent = false;
            std::mem::take(&mut inner.deposits)
        };
        for deposit in waiting {
            deposit.answer(false);
        }
    }

    /// Waits until there may be something. Cancel-safe.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether anything waits.
    pub(super) fn has_any(&self) -> bool {
        let inner = self.lock();
        !inner.deposits.is_empty() || !inner.releases.is_empty()
    }

    /// Takes what waits, at most so many deposits; rings again for the rest.
    pub(crate) fn take(&self, most: usize) -> Pending {
        let mut inner = self.lock();
        let count = inner.deposits.len().min(most);
        let deposits: Vec<_> = inner.deposits.drain(..count).collect();
        // Under the lock, where `release` asks.
        for deposit in &deposits {
            deposit.record.note_offered();
        }
        let rest = !inner.deposits.is_empty();
        // A tunnel that waits behind these may have ended: its release must not overtake it.
        let releases = if rest { Vec::new() } else { std::mem::take(&mut inner.releases) };
        drop(inner);
        if rest {
            self.bell.notify_one();
        }
        Pending { deposits, releases }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
